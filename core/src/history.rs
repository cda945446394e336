//! The history of a volume: snapshots that are kept, and names for them.
//!
//! Both are part of the tree of each head, as two sets that merge like names in a directory: what one tree has and another
//! one has not is new to that one, unless its author had seen it. So all devices have one history, what was pruned stays so,
//! and what it takes to keep one more snapshot does not grow with how many there are.
//!
//! A snapshot is signed by the device that took it, and names those that its author had taken or heard of before: nobody can
//! put one between two others, or change what any of them holds, afterwards.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec;
use crate::head::{HeadError, Snapshot};
use crate::id::SnapshotId;
use crate::limits::{HISTORY_MAX, REVISION_NAME_MAX, SEALED_MAX, SNAPSHOT_MESSAGE_MAX};
use crate::merge::covers;
use crate::time::Hlc;
use crate::tree::{Dot, Item};

pub mod policy;
pub mod revision;
#[cfg(test)]
pub(crate) mod tests;

/// When a snapshot was taken, and which it is: by this they are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Moment {
    /// When.
    #[n(0)]
    pub time: Hlc,
    /// Which.
    #[n(1)]
    pub id: SnapshotId,
}

/// By what a snapshot was taken. Of two that say it of one, the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum By {
    /// A person asked for it.
    #[n(0)]
    Hand,
    /// A command took it before it changed something, or as what a branch begins with: nobody means it who says `HEAD` or `HEAD~`. It
    /// stays as long as one that a person asked for.
    #[n(1)]
    Command,
    /// Nobody asked for it: a policy did, and may let go of it.
    #[n(2)]
    Policy,
}

/// A snapshot that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Kept {
    /// It.
    #[n(0)]
    pub snapshot: Snapshot,
    /// In which change it came into the history.
    #[n(1)]
    pub dot: Dot,
    /// By what it was taken.
    #[n(2)]
    pub by: By,
}

impl Kept {
    /// Its place in the history.
    pub fn moment(&self) -> Moment {
        Moment { time: self.snapshot.time, id: self.snapshot.id() }
    }

    /// Whether its author has signed it, whoever that is.
    pub fn verify(&self) -> Result<(), HeadError> {
        Snapshot::verify(&codec::encode(&self.snapshot)).map(drop)
    }
}

impl Item for Kept {
    type Key = Moment;
    const NAME: &'static str = "history";

    fn key(&self) -> Moment {
        self.moment()
    }

    fn weight(&self) -> u64 {
        1
    }

    fn cut_bytes(&self) -> Vec<u8> {
        self.snapshot.id().0.to_vec()
    }
}

/// A name that somebody has given a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Tag {
    /// As people type it.
    #[n(0)]
    pub name: String,
    /// Which snapshot.
    #[n(1)]
    pub to: SnapshotId,
    /// When it was given: of two at once the later one counts.
    #[n(2)]
    pub time: Hlc,
    /// In which change.
    #[n(3)]
    pub dot: Dot,
}

impl Item for Tag {
    type Key = String;
    const NAME: &'static str = "tags";

    fn key(&self) -> String {
        self.name.clone()
    }

    fn weight(&self) -> u64 {
        1
    }

    fn cut_bytes(&self) -> Vec<u8> {
        self.name.as_bytes().to_vec()
    }
}

/// A snapshot that comes before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before<'a> {
    /// It.
    pub kept: &'a Kept,
    /// Something between the two is not here: it was pruned, or nobody here has ever known it.
    pub has_gap: bool,
}

/// The history as one tree has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Snapshots, from the first to the last one.
    pub kept: BTreeMap<Moment, Kept>,
    /// Names.
    pub tags: BTreeMap<String, Tag>,
}

impl History {
    /// What the leaves of two trees say.
    pub fn new(kept: Vec<Kept>, tags: Vec<Tag>) -> Self {
        Self {
            kept: kept.into_iter().map(|one| (one.moment(), one)).collect(),
            tags: tags.into_iter().map(|tag| (tag.name.clone(), tag)).collect(),
        }
    }

    /// A snapshot by its id.
    pub fn snapshot(&self, id: &SnapshotId) -> Option<&Kept> {
        self.kept.iter().find(|(moment, _)| moment.id == *id).map(|(_, kept)| kept)
    }

    /// The newest one that somebody means who says `HEAD`: no command took it.
    pub fn newest(&self) -> Option<&Kept> {
        self.kept.values().rev().find(|kept| kept.by != By::Command)
    }

    /// The one that a snapshot follows: of its parents this one, from 0. Where the first one of them is not here, it was pruned or
    /// nobody here has ever known it, and the one before in time stands for it. It is older in any case, whatever its author says of
    /// what it follows: so there is an end to going back.
    pub fn before(&self, kept: &Kept, which: usize) -> Option<Before<'_>> {
        let parent = kept.snapshot.parents.get(which)?;
        let older = || self.kept.range(..kept.moment()).rev();
        let found = older().find(|(moment, _)| moment.id == *parent);
        let has_gap = found.is_none();
        let found = found.or_else(|| older().next().filter(|_| which == 0));
        found.map(|(_, kept)| Before { kept, has_gap })
    }

    /// Of those that count, the ones that no other one follows: what comes next follows them.
    pub fn tips(&self, counts: impl Fn(&Moment) -> bool) -> Vec<SnapshotId> {
        let all = || self.kept.iter().filter(|(moment, _)| counts(moment));
        let followed: BTreeSet<SnapshotId> =
            all().flat_map(|(_, kept)| kept.snapshot.parents.iter().copied()).collect();
        all().map(|(moment, _)| moment.id).filter(|id| !followed.contains(id)).collect()
    }

    /// Only so many of each stay: of the names those that were given last, and of the snapshots the newest, but for those that have
    /// a name. Devices that had room each may have more than that together.
    pub fn keep_newest(&mut self, max: usize) {
        let mut names: Vec<(Hlc, String)> = self.tags.values().map(|tag| (tag.time, tag.name.clone())).collect();
        names.sort_unstable();
        for (_, name) in &names[..names.len().saturating_sub(max)] {
            self.tags.remove(name);
        }
        let surplus = self.kept.len().saturating_sub(max);
        if surplus > 0 {
            let tagged = self.tagged();
            let mut moments: Vec<Moment> = self.kept.keys().copied().collect();
            moments.sort_by_key(|moment| tagged.contains(&moment.id));
            for moment in &moments[..surplus] {
                self.kept.remove(moment);
            }
        }
    }

    /// Snapshots that have a name.
    pub fn tagged(&self) -> BTreeSet<SnapshotId> {
        self.tags.values().map(|tag| tag.to).collect()
    }
}

/// A change of the history that this device has made, until it is part of a head. To make it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Edit {
    /// A snapshot was taken.
    #[n(0)]
    Keep {
        /// It.
        #[n(0)]
        snapshot: Snapshot,
        /// By what.
        #[n(1)]
        by: By,
    },
    /// One is kept no longer.
    #[n(1)]
    Forget(#[n(0)] Moment),
    /// A snapshot got a name, which another one had perhaps.
    #[n(2)]
    Name {
        /// The name.
        #[n(0)]
        name: String,
        /// Which one.
        #[n(1)]
        to: SnapshotId,
        /// When.
        #[n(2)]
        time: Hlc,
    },
    /// A snapshot lost its name.
    #[n(3)]
    Unname {
        /// The name.
        #[n(0)]
        name: String,
        /// Which one had it.
        #[n(1)]
        of: SnapshotId,
    },
}
crate::format!(Edit, tag = 0x3b, version = 1, max = SEALED_MAX, name = "change of a history");

impl History {
    /// Makes a change, as part of this one of the tree.
    pub fn apply(&mut self, edit: Edit, dot: Dot) {
        match edit {
            Edit::Keep { snapshot, by } => {
                let kept = Kept { snapshot, dot, by };
                match self.kept.entry(kept.moment()) {
                    Entry::Vacant(place) => drop(place.insert(kept)),
                    Entry::Occupied(mut place) if by < place.get().by => drop(place.insert(kept)),
                    Entry::Occupied(_) => {}
                }
            }
            Edit::Forget(moment) => drop(self.kept.remove(&moment)),
            Edit::Name { name, to, time } => {
                if self.tags.get(&name).is_none_or(|tag| tag.time < time) {
                    self.tags.insert(name.clone(), Tag { name, to, time, dot });
                }
            }
            Edit::Unname { name, of } => {
                if self.tags.get(&name).is_some_and(|tag| tag.to == of) {
                    self.tags.remove(&name);
                }
            }
        }
    }
}

/// What the histories of several trees come to, each with what its author had seen; the order does not matter. There is no more in it
/// than can be.
pub fn merge(all: &[(&History, &[Dot])]) -> History {
    let mut merged = History::default();
    for (history, _) in all {
        for (name, tag) in &history.tags {
            let lacks = |other: &History| other.tags.get(name) != Some(tag);
            if !all.iter().any(|(other, vector)| lacks(other) && covers(vector, tag.dot)) {
                let rank = |tag: &Tag| (tag.time, tag.dot, tag.to);
                let place = merged.tags.entry(name.clone()).or_insert_with(|| tag.clone());
                if rank(tag) > rank(place) {
                    *place = tag.clone();
                }
            }
        }
    }
    let tagged = merged.tagged();
    for (history, _) in all {
        for (moment, kept) in &history.kept {
            let lacks = |other: &History| !other.kept.contains_key(moment);
            let is_gone = all.iter().any(|(other, vector)| lacks(other) && covers(vector, kept.dot));
            // Who pruned what has a name had not heard of that name, or it would be gone, too.
            if !is_gone || tagged.contains(&moment.id) {
                // Who was asked for it by a person keeps it, whatever a policy thought of.
                let place = merged.kept.entry(*moment).or_insert_with(|| kept.clone());
                *place = [&*place, kept].into_iter().min_by_key(|one| (one.by, one.dot)).unwrap_or(kept).clone();
            }
        }
    }
    merged.keep_newest(HISTORY_MAX);
    merged
}

/// Why a name or a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAName {
    /// There is nothing.
    #[error("a name needs at least one character")]
    Empty,
    /// It has no room.
    #[error("a name has at most {REVISION_NAME_MAX} bytes")]
    Long,
    /// It would be read as something else.
    #[error("{0:?} is no name: {1}")]
    Reserved(String, &'static str),
    /// It has no room.
    #[error("a message has at most {SNAPSHOT_MESSAGE_MAX} bytes")]
    LongMessage,
}

/// Whether something can be a tag or a branch: what can stand in a [revision](revision::Revision), in a path and in a command, as
/// one word. As git has it (`git check-ref-format`), but that there are no directories of names.
pub fn check_name(name: &str) -> Result<(), NotAName> {
    let reserved = |why| Err(NotAName::Reserved(name.to_owned(), why));
    if name.is_empty() {
        return Err(NotAName::Empty);
    }
    if name.len() > REVISION_NAME_MAX {
        return Err(NotAName::Long);
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return reserved("no spaces or control characters are in a name");
    }
    if name.chars().any(|c| "~^:?*[\\/@{}".contains(c)) {
        return reserved("none of ~ ^ : ? * [ \\ / @ { } is in a name");
    }
    if name.starts_with(['-', '.']) || name.ends_with('.') || name.contains("..") {
        return reserved("it does not begin with - or a dot, nor end with one, nor have two in a row");
    }
    if name.eq_ignore_ascii_case("HEAD") {
        return reserved("it is the newest snapshot");
    }
    if name.len() >= revision::PREFIX_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return reserved("it would be taken for the number of a snapshot");
    }
    Ok(())
}

/// Whether something can be the message of a snapshot.
pub fn check_message(message: &str) -> Result<(), NotAName> {
    if message.len() > SNAPSHOT_MESSAGE_MAX { Err(NotAName::LongMessage) } else { Ok(()) }
}

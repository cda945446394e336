//! Merging: from the trees of several devices to the one tree that each of them comes to.
//!
//! Every name and every inode carries the [`Dot`] of its last change, and every tree a version vector: the dots that its
//! author had seen. So what is in one tree and not in another is new to the other where the other's vector does not cover
//! its dot, and was taken away there where it does. No common ancestor is needed, and pruned history does not matter.
//! (Dots and vectors as in Almeida et al., "Scalable and Accurate Causality Tracking for Eventually Consistent Stores",
//! 2014; sets that keep what was added beside a removal as in Bieniusa et al., "An optimized conflict-free replicated set",
//! 2012.)
//!
//! - A file is known by its id: one that was renamed here and written there is both.
//! - What was changed where another one did not see it is not taken away by that other one: it stays, with the directories
//!   that lead to it.
//! - Two contents of one file are both kept: one stays, and the other one lies beside it under a name that says so. It
//!   carries the dots of both, so only a tree that has seen both can have taken it away, and a [mark](mark::Mark) by which it is
//!   found.
//! - Two directories that came to have one name become one; of other things all but one get another name, and files a mark, too:
//!   editors save by giving a new file the name of the old one.
//! - Two places for one directory: the move with the greater dot counts, whenever it was made. Where moves would make a circle, one of them does not.
//! - Snapshots that are kept, and their names, merge as names do ([`crate::history`]).
//! - Metadata (mode, owner, each extended attribute, times) is that of the later change of it: it never makes a copy.
//!
//! A directory or a table whose nodes are none is read as an empty one, and what cannot be a name as nothing: whoever may write
//! may take away what they like, and no more than that comes of it.
//!
//! Invariant: the result depends on the set of trees only, not on their order, and two devices that merge equal sets come to
//! equal roots. To merge further one merges the trees of before, which a [root](Root::parts) that was merged names, and not
//! the result: what a result does not show would be lost to the next merge otherwise.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::id::{DeviceTag, FileId, VolumeId};
use crate::seal::ExtentRef;
use crate::time::Timespec;
use crate::tree::{Content, Dot, Inode, Root, Sink, Source, TreeError, TreeRef};

mod build;
mod gather;
mod histories;
mod inodes;
pub mod mark;
mod metadata;
mod places;
#[cfg(test)]
pub(crate) mod tests;

use gather::Gathered;

const HASH_CONTEXT: &str = "hypernet 2026 part of a merge v1";

/// One of the trees that are merged.
#[derive(Clone, Debug)]
pub struct Part {
    /// By which whoever merges knows it again. It plays no part in what comes out.
    pub number: usize,
    /// Its root directory.
    pub inode: Inode,
    /// Its inodes with several names.
    pub links: Option<TreeRef>,
    /// What its author had seen.
    pub vector: Vec<Dot>,
    /// It is a directory of another volume, in which this one had its place when the part's author saw it last: its
    /// link table has rows of what is elsewhere.
    pub is_below: bool,
    /// Another part has seen all of it: merged with that, what was put elsewhere since would look as if it had been taken away. So of this
    /// one only the snapshots count.
    pub is_past: bool,
    /// Its snapshots are some of this volume's: not those of a directory of another one.
    pub has_history: bool,
    /// Its snapshots, and their names.
    pub history: Option<TreeRef>,
    /// Names of snapshots.
    pub tags: Option<TreeRef>,
}

impl From<&Root> for Part {
    fn from(root: &Root) -> Self {
        Self {
            number: 0,
            inode: root.inode.clone(),
            links: root.links.clone(),
            vector: root.vector.clone(),
            is_below: false,
            is_past: false,
            has_history: true,
            history: root.history.clone(),
            tags: root.tags.clone(),
        }
    }
}

impl Part {
    /// Whether its author had seen this change.
    fn covers(&self, dot: Dot) -> bool {
        covers(&self.vector, dot)
    }

    /// What tells it from others.
    pub fn hash(&self) -> [u8; 32] {
        let bytes = inodes::bytes(&(&self.inode, &self.links, &self.vector));
        blake3::derive_key(HASH_CONTEXT, &bytes)
    }

    /// By which parts are put in order, so that who came first plays no part.
    fn rank(&self) -> impl Ord + use<> {
        (
            self.vector.clone(),
            (self.is_below, self.is_past, self.has_history),
            inodes::bytes(&(&self.inode, &self.links, &self.history, &self.tags)),
        )
    }
}

/// Whether a version vector has this dot.
pub fn covers(vector: &[Dot], dot: Dot) -> bool {
    vector.iter().any(|other| other.device == dot.device && other.sequence >= dot.sequence)
}

/// Whether a version vector has all that another one has.
pub fn covers_all(vector: &[Dot], other: &[Dot]) -> bool {
    other.iter().all(|dot| covers(vector, *dot))
}

/// What each of two has seen, sorted by device.
pub fn meet(one: &[Dot], other: &[Dot]) -> Vec<Dot> {
    let one: BTreeMap<DeviceTag, u64> = join([one]).into_iter().map(|dot| (dot.device, dot.sequence)).collect();
    let both = join([other]).into_iter().filter_map(|dot| Some((dot.device, dot.sequence.min(*one.get(&dot.device)?))));
    both.map(|(device, sequence)| Dot { device, sequence }).collect()
}

/// What all of these together have seen, sorted by device.
pub fn join<'a>(vectors: impl IntoIterator<Item = &'a [Dot]>) -> Vec<Dot> {
    let mut all: BTreeMap<DeviceTag, u64> = BTreeMap::new();
    for dot in vectors.into_iter().flatten() {
        let sequence = all.entry(dot.device).or_default();
        *sequence = dot.sequence.max(*sequence);
    }
    all.into_iter().map(|(device, sequence)| Dot { device, sequence }).collect()
}

/// A directory that is a volume of its own in one of the trees, and was changed as part of this one in another: that is to
/// be merged into the volume.
#[derive(Clone, Debug)]
pub struct Split {
    /// The volume.
    pub volume: VolumeId,
    /// The directory.
    pub part: Part,
    /// The numbers of the parts that name the volume there.
    pub named_by: BTreeSet<usize>,
}

/// What was kept beside something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The directory.
    pub parent: FileId,
    /// The name that it would have.
    pub wanted: Vec<u8>,
    /// The one that it has.
    pub name: Vec<u8>,
    /// Whose version it is.
    pub of: DeviceTag,
    /// What has that name.
    pub id: FileId,
    /// The two are versions of one file, and none of the trees has both: where one did, somebody has seen them and left
    /// them apart.
    pub is_new: bool,
    /// Numbers of two parts: one has this version, the other one has that beside which it is.
    pub parts: Option<(usize, usize)>,
}

/// What something in a merged tree holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// It: not what a record says itself.
    pub content: Content,
    /// The numbers of the parts that are known to have it, each in the same thing.
    pub of: BTreeSet<usize>,
}

/// What trees come to.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The root directory.
    pub inode: Inode,
    /// The inodes with several names.
    pub links: Option<TreeRef>,
    /// Snapshots that are kept.
    pub history: Option<TreeRef>,
    /// Names for them.
    pub tags: Option<TreeRef>,
    /// What all authors together had seen.
    pub vector: Vec<Dot>,
    /// What belongs into other volumes.
    pub splits: Vec<Split>,
    /// What was kept beside something else.
    pub conflicts: Vec<Conflict>,
    /// All that the tree holds and that is not in each of the parts, but for the link table, and for nodes that were written for it.
    pub held: Vec<Holding>,
}

/// Why trees were not merged.
#[derive(Debug, Error)]
pub enum MergeError<E> {
    /// A node could not be read or written.
    #[error(transparent)]
    Tree(#[from] TreeError<E>),
    /// One of the trees cannot be read now, or is more than is merged at once. The others can be merged without it.
    #[error("tree {number} of those that are to be merged: {error}")]
    Unread {
        /// Its number.
        number: usize,
        /// Why.
        error: TreeError<E>,
    },
    /// One of the trees is none: what its author says is not believed.
    #[error("tree {number} of those that are to be merged is malformed ({reason})")]
    Malformed {
        /// Its number.
        number: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is nothing to merge.
    #[error("there is no tree to merge")]
    Nothing,
}

/// Gives the nodes of the trees that are merged. A [`Source`] gives those of all.
pub trait Sources {
    /// What can go wrong.
    type Error;
    /// As [`Source::get`]: those of the part with this number.
    fn get_for(&self, number: usize, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, Self::Error>;
}

impl<S: Source> Sources for S {
    type Error = S::Error;

    fn get_for(&self, _: usize, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, S::Error> {
        self.get(refs)
    }
}

/// The nodes of one part.
struct SourceOf<'a, S>(&'a S, usize);

impl<S: Sources> Source for SourceOf<'_, S> {
    type Error = S::Error;

    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, S::Error> {
        self.0.get_for(self.1, refs)
    }
}

/// How a version is called that is kept beside another one: by who wrote it, and when.
pub type Label<'a> = &'a dyn Fn(DeviceTag, Timespec) -> String;

/// Merges trees of one volume. What has seen no more than another one is to be marked as [past](Part::is_past).
/// `beside`: directories of which what was changed is kept beside the volumes that they have become, and split off no more.
pub fn merge<S, K>(
    parts: &[Part],
    beside: &BTreeSet<FileId>,
    label: Label<'_>,
    source: &S,
    sink: &mut K,
) -> Result<Merged, MergeError<S::Error>>
where
    S: Sources,
    K: Sink<Error = S::Error>,
{
    let mut parts = parts.to_vec();
    parts.sort_by_cached_key(Part::rank);
    parts.dedup_by_key(|part| part.rank());
    let present: Vec<Part> = parts.iter().filter(|part| !part.is_past).cloned().collect();
    if let ([part], true) = (&present[..], parts.len() > 1) {
        return taken_over(part, &parts, source, sink);
    }
    let gathered = Gathered::gather(&present, beside, source)?;
    let outcomes = inodes::resolve(&gathered);
    let places = places::resolve(&gathered, &outcomes, label);
    let splits = splits(&gathered);
    let vector = join(parts.iter().map(|part| &part.vector[..]));
    let conflicts = places.conflicts.iter().cloned().collect();
    let (inode, links, held) = build::build(&gathered, outcomes, places, sink)?;
    let (history, tags) = histories::merge(&parts, source, sink)?;
    Ok(Merged { inode, links, history, tags, vector, splits, conflicts, held })
}

/// The tree of a part that has all of the others, node by node: by that it is known again as the same.
fn taken_over<S, K>(part: &Part, parts: &[Part], source: &S, sink: &mut K) -> Result<Merged, MergeError<S::Error>>
where
    S: Sources,
    K: Sink<Error = S::Error>,
{
    let (inode, links) = (part.inode.clone(), part.links.clone());
    let vector = join(parts.iter().map(|part| &part.vector[..]));
    let (history, tags) = histories::merge(parts, source, sink)?;
    let held = vec![Holding { content: inode.content.clone(), of: BTreeSet::from([part.number]) }];
    Ok(Merged { inode, links, history, tags, vector, splits: Vec::new(), conflicts: Vec::new(), held })
}

/// Directories of one part that are volumes in another one.
fn splits(gathered: &Gathered<'_>) -> Vec<Split> {
    let mut splits = Vec::new();
    for (id, volume) in &gathered.volumes {
        for (part, seen) in gathered.parts.iter().zip(&gathered.seen) {
            if let Some(inode) = seen.inodes.get(id).filter(|inode| inodes::is_directory(inode)) {
                let part = Part {
                    inode: inode.clone(),
                    is_below: true,
                    has_history: false,
                    history: None,
                    tags: None,
                    ..part.clone()
                };
                let named_by = gathered.named_by.get(id).cloned().unwrap_or_default();
                splits.push(Split { volume: *volume, part, named_by });
            }
        }
    }
    splits
}

//! Snapshots as people ask for them: of the volume that a path is in.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hypernet_core::diff::{Change, Side, Thing, Version, compare};
use hypernet_core::history::policy::{Policy, superfluous};
use hypernet_core::history::revision::{Revision, RevisionError, short};
use hypernet_core::history::{Before, By, Edit, History, Kept, Moment, Tag, check_message, check_name};
use hypernet_core::id::{DeviceId, SnapshotId};
use hypernet_core::limits::HISTORY_MAX;
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{Content, FileKind, Inode, Root};
use hypernet_fs::vfs::{MAIN, Rooted};
use hypernet_sdk::api;

use super::tree::of_tree;
use super::{Agent, Own, port_failure};
use crate::failure::{Failure, Kind};
use crate::volume::Volume;
use crate::volume::heads::when;
use crate::volume::reach::Seen;
use crate::volume::read::{Deadline, Nodes, tree_error};
use crate::volume::recover::clock;

/// Changes that are told at once.
const CHANGES_MAX: usize = if cfg!(test) { 100 } else { 100_000 };
/// Problems that are told.
const PROBLEMS_MAX: usize = 100;

/// What is known of the snapshots of a volume.
pub(super) struct Known {
    pub(super) history: Arc<History>,
    waiting: BTreeSet<Moment>,
    devices: BTreeMap<DeviceId, String>,
    tags: BTreeMap<SnapshotId, Vec<String>>,
    /// What the trees are called that somebody may take for a snapshot.
    branches: BTreeSet<String>,
}

impl Known {
    pub(super) fn info(&self, kept: &Kept) -> api::SnapshotInfo {
        let (snapshot, moment) = (&kept.snapshot, kept.moment());
        let author = self.devices.get(&snapshot.author).cloned();
        api::SnapshotInfo {
            id: moment.id.to_string(),
            time_ms: snapshot.time.millis,
            author: author.unwrap_or_else(|| format!("device {}", snapshot.author.short())),
            author_id: snapshot.author.to_string(),
            message: snapshot.message.clone(),
            parents: snapshot.parents.iter().map(ToString::to_string).collect(),
            tags: self.tags.get(&moment.id).cloned().unwrap_or_default(),
            automatic: kept.by == By::Policy,
            command: kept.by == By::Command,
            waiting: self.waiting.contains(&moment),
        }
    }

    /// What somebody means.
    fn meant(&self, revision: &str) -> Result<Before<'_>, Failure> {
        let parsed = Revision::parse(revision).map_err(revision_failure)?;
        parsed.resolve(&self.history, millis).map_err(|error| match &error {
            RevisionError::Unknown(name) if self.branches.contains(name) => {
                Failure::new(Kind::NoInput, format!("{name} is a branch, and no snapshot is called so"))
                    .hint("`hn log` in its directory shows its snapshots; `diff -r` compares two trees")
            }
            _ => revision_failure(error),
        })
    }

    fn resolve(&self, revision: &str) -> Result<Kept, Failure> {
        Ok(self.meant(revision)?.kept.clone())
    }
}

/// A volume, and a place in it, of now or then.
pub(crate) struct Past<'a> {
    pub(super) own: &'a Own,
    pub(super) volume: Arc<Volume>,
    /// Of its tree.
    pub(super) root: u64,
    /// From the root of the volume on.
    names: Vec<Vec<u8>>,
}

impl Agent {
    /// The history of the volume that a path is in. Nothing needs to be at the path now.
    pub(crate) fn past(&self, path: &Path) -> Result<Past<'_>, Failure> {
        let own = self.own()?;
        let mut found: Option<(PathBuf, Rooted)> = None;
        for rooted in own.vfs.volumes() {
            let root = own.vfs.path(rooted.ino).map_err(|error| of_tree(&error))?;
            let is_deeper =
                found.as_ref().is_none_or(|(other, _)| root.components().count() > other.components().count());
            if path.starts_with(&root) && is_deeper {
                found = Some((root, rooted));
            }
        }
        let (root, rooted) = found.ok_or_else(|| Failure::new(Kind::NoInput, "there is no volume yet"))?;
        let below = path.strip_prefix(&root).unwrap_or(path).components();
        let names = below.filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        });
        let volume = own.volumes.of(rooted.volume).map_err(port_failure)?;
        Ok(Past { own, volume, root: rooted.ino, names: names.collect() })
    }
}

fn revision_failure(error: RevisionError) -> Failure {
    let hint = match &error {
        RevisionError::Empty => "`hn snap -m MESSAGE` takes one",
        RevisionError::OnlyByCommands | RevisionError::NoParentByHand(_) => {
            "`hn log` shows them: name one by its number, or take one with `hn snap -m MESSAGE`"
        }
        RevisionError::Syntax(..) | RevisionError::Time(..) => {
            "HEAD, HEAD~2, a tag, the beginning of a number, or @{yesterday}: `hn log` shows what there is"
        }
        _ => "`hn log` shows what there is",
    };
    let text = match &error {
        RevisionError::NoneThen(millis) => {
            let millis = millis.parse().unwrap_or_default();
            format!("there is no snapshot from before {}", when(Hlc { millis, counter: 0 }))
        }
        other => other.to_string(),
    };
    Failure::new(Kind::NoInput, text).hint(hint)
}

/// A time in a revision is a number here: whoever asks knows what is meant by words.
fn millis(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "milliseconds since 1970 are expected here".to_owned())
}

pub(super) fn policy_of(info: api::PolicyInfo) -> Policy {
    let api::PolicyInfo { last, hourly, daily, weekly, monthly, yearly } = info;
    Policy { last, hourly, daily, weekly, monthly, yearly }
}

fn thing_info(version: Version) -> api::ThingInfo {
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&version.path));
    let (kind, size, mode) = match &version.thing {
        Thing::Volume(_) => ("volume", 0, 0),
        Thing::Inode(inode) => {
            let kind = match inode.kind {
                FileKind::Regular => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                _ => "special",
            };
            let size = if inode.kind == FileKind::Regular { inode.content.size() } else { 0 };
            (kind, size, inode.mode)
        }
    };
    api::ThingInfo { path, kind: kind.into(), size, mode, content: None }
}

pub(super) fn change_info(change: Change) -> api::ChangeInfo {
    let (content, metadata, renamed) = (change.has_other_content(), change.has_other_metadata(), change.is_renamed);
    let Change { before, after, .. } = change;
    let (before, after) = (before.map(thing_info), after.map(thing_info));
    api::ChangeInfo { before, after, renamed, content, metadata, text: None, binary: false, large: false }
}

/// Whether so many changes can be told.
pub(super) fn check_number(changes: usize) -> Result<(), Failure> {
    match changes > CHANGES_MAX {
        true => Err(Failure::new(Kind::Data, format!("more than {CHANGES_MAX} changes"))
            .hint("name a directory, and look at that alone")),
        false => Ok(()),
    }
}

/// Whether something at a path is the same one, as far as a history tells of it.
fn is_same(one: &Option<Inode>, other: &Option<Inode>) -> bool {
    let of = |inode: &Inode| (inode.id, inode.content.clone(), inode.mode, inode.uid, inode.gid, inode.xattrs.clone());
    one.as_ref().map(of) == other.as_ref().map(of)
}

impl Past<'_> {
    pub(super) fn known(&self) -> Result<Known, Failure> {
        let history = self.volume.history().map_err(port_failure)?;
        let waiting = self.volume.waiting_snapshots().map_err(port_failure)?;
        let publishers = self.volume.publishers();
        let devices = publishers.listed.into_iter().chain(publishers.gone).map(|device| (device.id, device.name));
        let mut tags: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
        for tag in history.tags.values() {
            tags.entry(tag.to).or_default().push(tag.name.clone());
        }
        let branches = self.own.branches().into_keys().chain([MAIN.to_owned()]).collect();
        Ok(Known { waiting, devices: devices.collect(), tags, branches, history })
    }

    fn names(&self) -> Vec<&[u8]> {
        self.names.iter().map(Vec::as_slice).collect()
    }

    /// The place, from the root of the volume, without a slash at its start.
    pub(super) fn place(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }

    /// Takes a snapshot before a command changes something, unless the newest one holds all that; says which one does. Blocks.
    pub(super) fn snap_first(&self, message: String) -> Result<Option<SnapshotId>, Failure> {
        match self.volume.snap_by(&self.own.vfs, message, (By::Command, true)).map_err(port_failure)? {
            Some(taken) => Ok(Some(taken.kept.snapshot.id())),
            None => self.volume.last_snapshot().map_err(port_failure),
        }
    }

    /// The snapshot that a person means.
    pub(super) fn resolve(&self, revision: &str) -> Result<Kept, Failure> {
        self.known()?.resolve(revision)
    }

    /// What a snapshot holds.
    pub(super) fn root(&self, kept: &Kept) -> Result<Root, Failure> {
        self.volume.root_in(kept).map_err(|error| {
            let what = format!("snapshot {}: {error}", short(&kept.snapshot.id()));
            match error {
                PortError::Damaged(_) => Failure::new(Kind::Data, what),
                other => Failure { message: what, ..port_failure(other) },
            }
        })
    }

    /// Takes a snapshot, for a person or for a command. Blocks.
    pub(crate) fn snap(&self, message: String, for_command: bool) -> Result<api::Snapped, Failure> {
        check_message(&message).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
        let began = Instant::now();
        let by = if for_command { By::Command } else { By::Hand };
        let taken = self.volume.snap_by(&self.own.vfs, message, (by, false)).map_err(port_failure)?;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let taken = taken.ok_or_else(|| Failure::new(Kind::System, "no snapshot was taken"))?;
        let snapshot = self.known()?.info(&taken.kept);
        let (files, read_bytes, new_bytes, same) = (taken.files, taken.read, taken.new, taken.is_same);
        Ok(api::Snapped { snapshot, files, read_bytes, new_bytes, same, newer: taken.newer, micros })
    }

    /// Snapshots, the newest first: those in which the place is not as it was in the one before. Blocks.
    pub(crate) fn log(&self, limit: Option<u64>) -> Result<Vec<api::SnapshotInfo>, Failure> {
        let known = self.known()?;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        if self.names.is_empty() {
            return Ok(known.history.kept.values().rev().take(limit).map(|kept| known.info(kept)).collect());
        }
        let (mut changed, mut before) = (Vec::new(), None);
        let (mut read, mut unread) = (0u64, None);
        for kept in known.history.kept.values() {
            let here = self.root(kept).and_then(|root| self.volume.find_in(&root, &self.names()).map_err(port_failure));
            let here = match here {
                Ok(here) => here,
                // One that nobody can read is in the way of no other.
                Err(failure) if matches!(failure.kind, Kind::Data | Kind::NoInput) => {
                    tracing::warn!(snapshot = short(&kept.snapshot.id()), %failure, "a snapshot is left out of a log");
                    unread = Some(failure);
                    continue;
                }
                Err(failure) => {
                    let message =
                        format!("snapshot {} cannot be read: {}", short(&kept.snapshot.id()), failure.message);
                    return Err(Failure { message, ..failure });
                }
            };
            read += 1;
            if !is_same(&here, &before) {
                changed.push(kept);
            }
            before = here;
        }
        if let Some(failure) = unread.filter(|_| read == 0) {
            return Err(failure);
        }
        Ok(changed.into_iter().rev().take(limit).map(|kept| known.info(kept)).collect())
    }

    fn compare(&self, before: Option<&Root>, after: &Root) -> Result<Vec<Change>, Failure> {
        let empty = Inode { content: Content::Empty, ..after.inode.clone() };
        let side = before.map_or(Side { inode: &empty, links: None }, Side::from);
        let nodes = Nodes(&self.volume, Deadline::of_read());
        compare(side, Side::from(after), &nodes).map_err(|error| port_failure(tree_error(error)))
    }

    /// Those of some changes that are at the place that was asked for, or below it.
    pub(super) fn within(&self, changes: Vec<Change>) -> Result<Vec<Change>, Failure> {
        let changes = self.some_within(changes);
        check_number(changes.len()).map(|()| changes)
    }

    /// The same; where there are more than can be told, one more than that.
    fn some_within(&self, changes: Vec<Change>) -> Vec<Change> {
        let place = self.place();
        let is_there = |version: &Option<Version>| {
            version.as_ref().is_some_and(|version| match version.path.strip_prefix(place.as_slice()) {
                Some(rest) => place.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
                None => false,
            })
        };
        let changes = changes.into_iter().filter(|change| is_there(&change.before) || is_there(&change.after));
        changes.take(CHANGES_MAX + 1).collect()
    }

    /// A snapshot, with what it has changed, unless it is asked for `alone`. Blocks.
    pub(crate) fn show(&self, revision: &str, alone: bool) -> Result<api::Shown, Failure> {
        let known = self.known()?;
        let Before { kept, has_gap: passed_gap } = known.meant(revision)?;
        let root = self.root(kept)?;
        let before = known.history.before(kept, 0);
        // Where nothing is here that is older, what it follows is not here either.
        let gap = before.map_or(!kept.snapshot.parents.is_empty(), |before| before.has_gap);
        let mut shown = api::Shown {
            snapshot: known.info(kept),
            passed_gap,
            before: before.map(|before| known.info(before.kept)),
            gap,
            changes: Vec::new(),
            too_many: false,
        };
        if alone {
            return Ok(shown);
        }
        let before = before.map(|before| self.root(before.kept)).transpose()?;
        let changes = self.some_within(self.compare(before.as_ref(), &root)?);
        shown.too_many = changes.len() > CHANGES_MAX;
        if !shown.too_many {
            shown.changes = changes.into_iter().map(change_info).collect();
        }
        Ok(shown)
    }

    /// All that has changed in the volume, and what it came to. Blocks.
    pub(super) fn changes(&self, from: &str, to: Option<&str>) -> Result<(Vec<Change>, Root), Failure> {
        let known = self.known()?;
        let before = self.root(&known.resolve(from)?)?;
        let after = match to {
            Some(to) => self.root(&known.resolve(to)?)?,
            None => self.volume.now(&self.own.vfs).map_err(port_failure)?,
        };
        Ok((self.compare(Some(&before), &after)?, after))
    }

    /// What has changed. Blocks.
    pub(crate) fn diff(&self, from: &str, to: Option<&str>) -> Result<Vec<api::ChangeInfo>, Failure> {
        let (changes, _) = self.changes(from, to)?;
        Ok(self.within(changes)?.into_iter().map(change_info).collect())
    }

    /// What can be proven of a snapshot: its signature and those of all before it, their order in time, and that all that it
    /// leads to is there and is what it names. Blocks.
    pub(crate) fn verify(&self, revision: &str) -> Result<api::Verified, Failure> {
        let known = self.known()?;
        let kept = known.resolve(revision)?;
        let root = self.root(&kept)?;
        let snapshot = known.info(&kept);
        let publishers = self.volume.publishers();
        let is_known = publishers.listed.iter().chain(&publishers.gone).any(|device| device.id == kept.snapshot.author);
        let (mut problems, mut followed, mut gone) = (Vec::new(), 0, 0);
        let mut seen = BTreeSet::new();
        let mut waiting = vec![&kept];
        while let Some(one) = waiting.pop() {
            for parent in one.snapshot.parents.iter().filter(|parent| seen.insert(**parent)) {
                let Some(before) = known.history.snapshot(parent) else {
                    gone += 1;
                    continue;
                };
                followed += 1;
                if before.verify().is_err() {
                    problems.push(format!("{}, which it follows, is not signed by its author", short(parent)));
                }
                if before.snapshot.time >= one.snapshot.time {
                    let after = short(&one.snapshot.id());
                    problems.push(format!("{} is followed by {after} and says that it is later", short(parent)));
                }
                waiting.push(before);
            }
        }
        let mut inodes = 0;
        let mut see = |one| {
            match one {
                Seen::Inodes(count) => inodes = count,
                Seen::Problem(line) if problems.len() < PROBLEMS_MAX => problems.push(line),
                Seen::Problem(_) => {}
            }
            true
        };
        self.volume.check_reach(&root, &mut see).map_err(port_failure)?;
        Ok(api::Verified { snapshot, known: is_known, followed, gone, inodes, problems })
    }

    /// Gives a snapshot a name, or takes one away. Blocks.
    pub(crate) fn tag(&self, request: &api::TagRequest) -> Result<Vec<api::TagInfo>, Failure> {
        let known = self.known()?;
        let edit = match (&request.name, request.delete) {
            (None, _) => None,
            (Some(name), true) => {
                let Some(tag) = known.history.tags.get(name) else {
                    return Err(Failure::new(Kind::NoInput, format!("no snapshot is called {name}"))
                        .hint("`hn tag` shows all names"));
                };
                Some(Edit::Unname { name: name.clone(), of: tag.to })
            }
            (Some(name), false) => {
                check_name(name).map_err(|error| Failure::new(Kind::Usage, error.to_string()))?;
                let kept = known.resolve(request.revision.as_deref().unwrap_or("HEAD"))?;
                let before = known.history.tags.get(name);
                if let Some(tag) = before.filter(|tag| tag.to != kept.snapshot.id() && !request.force) {
                    return Err(Failure::new(Kind::CantCreate, format!("{} is called {name} already", short(&tag.to)))
                        .hint("--force gives the name to this one"));
                }
                if before.is_none() && known.history.tags.len() >= HISTORY_MAX {
                    let text = format!("{HISTORY_MAX} snapshots have names, which is all that can be");
                    return Err(Failure::new(Kind::CantCreate, text).hint("`hn tag --delete NAME` makes room"));
                }
                let time = clock(before.map_or(Hlc::default(), |tag| tag.time));
                Some(Edit::Name { name: name.clone(), to: kept.snapshot.id(), time })
            }
        };
        let tags = match edit {
            Some(edit) => {
                self.volume.edit_history(&edit).map_err(port_failure)?;
                self.known()?.history.tags.clone()
            }
            None => known.history.tags.clone(),
        };
        let info =
            |tag: &Tag| api::TagInfo { name: tag.name.clone(), id: tag.to.to_string(), time_ms: tag.time.millis };
        Ok(tags.values().map(info).collect())
    }

    /// Lets go of snapshots. Blocks.
    pub(crate) fn prune(&self, request: &api::PruneRequest) -> Result<api::Pruned, Failure> {
        let known = self.known()?;
        let tagged = known.history.tagged();
        let mut gone: Vec<Kept> = Vec::new();
        for revision in &request.revisions {
            let Before { kept, has_gap } = known.meant(revision)?;
            if has_gap {
                // It may have been meant for one that is gone already.
                let text = format!(
                    "what {revision} named is pruned or unknown; the one before is {}",
                    short(&kept.snapshot.id())
                );
                return Err(Failure::new(Kind::Usage, text).hint("name it by its number"));
            }
            if tagged.contains(&kept.snapshot.id()) {
                return Err(Failure::new(Kind::Usage, format!("{revision} has a name, and so it stays"))
                    .hint("`hn tag --delete NAME` first"));
            }
            gone.push(kept.clone());
        }
        if let Some(policy) = request.policy {
            let policy = policy_of(policy);
            if policy.is_empty() {
                return Err(Failure::new(Kind::Usage, "that would keep nothing")
                    .hint("say how many of each kind stay: --keep-last 10, --keep-daily 7"));
            }
            let may_go = |moment: &Moment| {
                let is_automatic = known.history.kept.get(moment).is_some_and(|kept| kept.by == By::Policy);
                !tagged.contains(&moment.id) && (request.all || is_automatic)
            };
            let superfluous = superfluous(&known.history, &policy, may_go);
            gone.extend(superfluous.iter().filter_map(|moment| known.history.kept.get(moment).cloned()));
        }
        gone.sort_by_key(Kept::moment);
        gone.dedup_by_key(|kept| kept.moment());
        let infos = gone.iter().map(|kept| known.info(kept)).collect();
        if !request.dry_run {
            for kept in &gone {
                self.volume.edit_history(&Edit::Forget(kept.moment())).map_err(port_failure)?;
            }
        }
        Ok(api::Pruned { left: (known.history.kept.len() - gone.len()) as u64, gone: infos })
    }
}

#[cfg(test)]
mod tests;

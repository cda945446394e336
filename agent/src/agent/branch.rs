//! Branches: volumes of this identity that begin with a tree of another one, and are merged with it again.
//!
//! What a branch begins with is sealed and uploaded already; nothing of it is again. Its root, its keys and its heads are its own, and
//! its devices have tags of their own in version vectors, so that merging is what it is among the heads of one volume: by what each
//! side has seen, without a common ancestor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::history::{By, Edit, History, Kept, Tag, check_name};
use hypernet_core::id::{SnapshotId, VolumeId};
use hypernet_core::merge::{Part, covers, covers_all};
use hypernet_core::port::PortError;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{Dot, Inode, Root};
use hypernet_fs::vfs::{BRANCHES, Branch as Planted, MAIN, VfsError};
use hypernet_sdk::api;

use super::history::Past;
use super::tree::of_tree;
use super::{Agent, Own, blocking, port_failure};
use crate::branch::{self, BRANCHES_MAX, Branch};
use crate::failure::{Failure, Kind};
use crate::keystore::random_volume;
use crate::volume::Volume;
use crate::volume::recover::clock;
use crate::volume::settling::Kept as Beside;
use crate::volume::snapshots::trunk;
use crate::volume::state::{self, Origin};
use crate::volume::sync::Engine;

/// What is changed in a volume is to be on the mesh before it is branched, where that is quick.
const SYNCED_WITHIN: Duration = Duration::from_secs(5);
/// For how long a tree that is in use is waited for.
const MERGED_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked whether another device has made a branch, or has let go of one,
const HEAR_EVERY: Duration = Duration::from_secs(5);
/// and whether what was in the way of letting go of one here still is.
const LET_GO_EVERY: Duration = Duration::from_secs(60);

/// What the tree was told of branches that other devices have made or let go of.
#[derive(Default)]
struct Heard {
    branches: Vec<Branch>,
    /// When it was last tried to let go of one here.
    tried: Option<Instant>,
}

/// Tells the tree what the keystore hears of branches, until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut heard = Heard::default();
    loop {
        tokio::time::sleep(HEAR_EVERY).await;
        let agent = agent.clone();
        let hear = move || {
            let own = agent.with_volume().filter(|_| !agent.config.lock().recovering);
            let told = own.map_or(Ok(()), |own| own.hear_of_branches(&mut heard));
            if let Err(failure) = told {
                tracing::warn!(%failure, "what other devices have done with branches is not seen here yet");
            }
            heard
        };
        heard = blocking(hear).await.unwrap_or_else(|failure| {
            tracing::error!(%failure, "hearing of branches");
            Heard::default()
        });
    }
}

fn stays(branch: &Branch, failure: &Failure) {
    tracing::warn!(%failure, branch = branch.name, "a branch that another device has let go of stays here");
}

/// Changes of a history by which it becomes that of what begins with a snapshot: what else it has came after, or beside it.
fn trimmed(history: &History, kept: &Kept, seen: &[Dot]) -> Vec<Edit> {
    let (mut before, mut waiting) = (BTreeSet::from([kept.snapshot.id()]), vec![kept]);
    while let Some(one) = waiting.pop() {
        let parents = one.snapshot.parents.iter().filter_map(|parent| history.snapshot(parent));
        waiting.extend(parents.filter(|parent| before.insert(parent.snapshot.id())));
    }
    let stays = |id: &SnapshotId, dot: Dot| before.contains(id) || covers(seen, dot);
    let after = history.kept.values().filter(|other| !stays(&other.snapshot.id(), other.dot));
    let after = after.map(|other| Edit::Forget(other.moment()));
    let later = history.tags.values().filter(|tag| !stays(&tag.to, tag.dot));
    after.chain(later.map(|tag| Edit::Unname { name: tag.name.clone(), of: tag.to })).collect()
}

fn holds_the_same(one: &Root, other: &Root) -> bool {
    (&one.inode.content, &one.links) == (&other.inode.content, &other.links)
}

/// Whether one volume has all that is in another one's tree: by what it has seen, or by what it holds. Whoever takes over what another
/// has becomes no more than that, and has a number of its own for it. `begun`: what the one began with, which the other one has seen.
fn is_in(
    (one, root): (&Volume, &Root),
    (other, has): (&Volume, &Root),
    begun: Option<&Root>,
) -> Result<bool, PortError> {
    if covers_all(&has.vector, &root.vector) {
        return Ok(true);
    }
    if ![Some(has), begun].into_iter().flatten().any(|known| holds_the_same(known, root)) {
        return Ok(false);
    }
    // Of what others have a part in a branch does not tell what was before.
    if other.share().is_some() {
        return Ok(true);
    }
    let theirs = one.history_at(root.history.as_ref(), root.tags.as_ref())?;
    let mine = other.history_at(has.history.as_ref(), has.tags.as_ref())?;
    let has_tag = |(name, tag): (&String, &Tag)| mine.tags.get(name).is_some_and(|mine| mine.to == tag.to);
    Ok(theirs.kept.keys().all(|moment| mine.kept.contains_key(moment)) && theirs.tags.iter().all(has_tag))
}

impl Own {
    /// The working tree finds the branches that the keystore knows.
    pub(super) fn tell_of_branches(&self) -> Result<(), Failure> {
        // One that is being made is not known yet, and is not to be cleared away.
        let _one = self.branching.lock();
        let keystore = self.volume.identity.keystore().keystore();
        self.find_branches(&keystore.branches);
        let heads = |volume: VolumeId| -> Result<bool, Failure> {
            let db = self.volume.db.of(volume).map_err(|error| port_failure(error.into()))?;
            Ok(state::latest(&db).map_err(port_failure)?.is_some())
        };
        for rooted in
            self.vfs.volumes().into_iter().filter(|rooted| rooted.volume.is_branch() && rooted.above.is_none())
        {
            let is_known = keystore.branches.iter().any(|branch| branch.volume == rooted.volume);
            if is_known {
                continue;
            }
            // The agent was stopped while it was made, before anybody was told that it is there.
            let may_go = heads(rooted.volume).map(|has_heads| !has_heads);
            let let_go = may_go.and_then(|may_go| if may_go { self.let_go_of(rooted.volume, true) } else { Ok(false) });
            // What is wrong with one is in the way of nothing else.
            if let Err(failure) = let_go {
                tracing::warn!(%failure, volume = %rooted.volume.short(), "what is left of a branch stays here");
            }
        }
        // Another device has let go of them.
        for gone in keystore.branches.iter().filter(|branch| branch.is_gone) {
            if self.mounted_at(gone.volume).is_some() || !self.is_here(gone.volume) {
                continue;
            }
            // That it was merged may be heard of later than that it is gone.
            let let_go = match self.let_go_of_merged(gone) {
                Ok(false) if self.look_at(gone) => self.let_go_of_merged(gone),
                Ok(false) => continue,
                other => other,
            };
            match let_go {
                Ok(true) => {}
                Ok(false) => {
                    // Whoever let go of it had not seen what is in it here.
                    let back = Branch { is_gone: false, changed: clock(gone.changed), ..gone.clone() };
                    self.volume
                        .identity
                        .keystore()
                        .change(|keystore| branch::merge(&mut keystore.branches, &[back]))?;
                    tracing::warn!(
                        name = gone.name,
                        "a branch that another device has let go of is there again: it was not merged"
                    );
                }
                Err(failure) => stays(gone, &failure),
            }
        }
        Ok(())
    }

    /// The tree finds a branch that another device has made, and does no more find one that was let go of, when all of that was merged as
    /// far as is known here. Whether it was may be heard of later than that it is gone: until then it stays as it is.
    fn hear_of_branches(&self, heard: &mut Heard) -> Result<(), Failure> {
        let _one = self.branching.lock();
        let mut branches = self.volume.identity.keystore().keystore().branches;
        if branches != heard.branches {
            *heard = Heard { branches: branches.clone(), tried: None };
        } else if !branches.iter().any(|branch| branch.is_gone && self.is_here(branch.volume)) {
            return Ok(());
        }
        let tries = heard.tried.is_none_or(|tried| tried.elapsed() >= LET_GO_EVERY);
        for gone in branches.iter_mut().filter(|branch| branch.is_gone && self.is_here(branch.volume)) {
            if tries && self.mounted_at(gone.volume).is_none() {
                let let_go = self.let_go_of_merged(gone);
                if !matches!(let_go, Ok(false)) {
                    heard.tried = Some(Instant::now());
                }
                // The others are seen all the same.
                if let Err(failure) = let_go {
                    stays(gone, &failure);
                }
            }
            if self.is_here(gone.volume) {
                // Under its name, unless another one has that by now.
                (gone.is_gone, gone.changed) = (false, Hlc { millis: u64::MAX, counter: 0 });
            }
        }
        self.find_branches(&branches);
        Ok(())
    }

    fn find_branches(&self, branches: &[Branch]) {
        let planted = |(name, branch): (String, Branch)| {
            (name.into_bytes(), Planted { volume: branch.volume, root: branch.root })
        };
        self.vfs.set_branches(branch::named(branches).into_iter().map(planted));
    }

    /// Whether nothing is here of a branch that somebody has let go of but what was merged.
    fn may_go(&self, branch: &Branch) -> Result<bool, Failure> {
        Ok(!self.is_entered(branch.volume) || self.is_merged(branch)? == Some(true))
    }

    /// Tries to let go of one that [may go](Self::may_go), and returns whether it may.
    fn let_go_of_merged(&self, gone: &Branch) -> Result<bool, Failure> {
        let may_go = self.may_go(gone)?;
        if may_go {
            self.let_go_of(gone.volume, false)?;
        }
        Ok(may_go)
    }

    fn is_here(&self, volume: VolumeId) -> bool {
        self.vfs.volumes().iter().any(|rooted| rooted.volume == volume)
    }

    /// Nothing of a branch is here any more, unless something in it is only here, or in use.
    fn let_go_of(&self, volume: VolumeId, discard: bool) -> Result<bool, Failure> {
        self.engines.end(volume);
        let gone = self.vfs.detach(volume, discard);
        match gone {
            Ok(()) => self.volumes.close(volume),
            // What is written there goes on to be published.
            Err(_) => self.start_engine(self.volumes.of(volume).map_err(port_failure)?)?,
        }
        match gone {
            Ok(()) => Ok(true),
            Err(VfsError::Busy) => Ok(false),
            Err(error) => Err(of_tree(&error)),
        }
    }

    pub(super) fn branches(&self) -> BTreeMap<String, Branch> {
        branch::named(&self.volume.identity.keystore().keystore().branches)
    }

    /// The volume that a branch is, by its name.
    pub(super) fn called(&self, name: &str) -> Result<Arc<Volume>, Failure> {
        if name == MAIN {
            return Ok(self.volume.clone());
        }
        self.vfs.branch(name.as_bytes()).map_err(|error| match error {
            VfsError::NotFound => {
                Failure::new(Kind::NoInput, format!("no branch is called {name}")).hint("`hn branch` shows all")
            }
            other => of_tree(&other),
        })?;
        let branch = self.branches().remove(name).map(|branch| branch.volume);
        let branch = branch.ok_or_else(|| Failure::new(Kind::NoInput, format!("{name} is gone already")))?;
        self.volumes.of(branch).map_err(port_failure)
    }

    /// Whether something of it is here, and not only its name.
    fn is_entered(&self, volume: VolumeId) -> bool {
        self.vfs.volumes().iter().any(|rooted| rooted.volume == volume && !rooted.is_vacant)
    }

    /// Whether all of a branch is in what it was made of, or in the main volume, where that is known here.
    fn is_merged(&self, branch: &Branch) -> Result<Option<bool>, Failure> {
        let latest = |volume: VolumeId| -> Result<Option<(Arc<Volume>, Root)>, Failure> {
            let volume = self.volumes.of(volume).map_err(port_failure)?;
            let latest = state::latest(&volume.db).map_err(port_failure)?;
            Ok(latest.map(|latest| (volume, latest.root)))
        };
        // Of what was changed and is in no head yet nothing is merged.
        let edits = self.volume.db.of(branch.volume).and_then(|db| db.count_edits());
        let is_waiting = self.is_entered(branch.volume)
            && (self.vfs.pending(branch.volume).files > 0 || edits.map_err(|error| port_failure(error.into()))? > 0);
        let Some((volume, root)) = latest(branch.volume)? else { return Ok(None) };
        let others = [latest(branch.of)?, latest(self.volume.id)?];
        for (other, has) in others.iter().flatten() {
            let history = other.history().map_err(port_failure)?;
            let begun = history.snapshot(&branch.from).and_then(|kept| other.root_in(kept).ok());
            let begun = begun.filter(|begun| covers_all(&has.vector, &begun.vector));
            if is_in((&volume, &root), (other, has), begun.as_ref()).map_err(port_failure)? {
                return Ok(Some(!is_waiting));
            }
        }
        Ok(others[0].as_ref().map(|_| false))
    }

    /// Has what other devices have published in a branch, and in what it was made of, known here; whether it is.
    fn look_at(&self, branch: &Branch) -> bool {
        let synced = |volume: VolumeId| match self.engine_of(volume).map(|engine| engine.sync_within(SYNCED_WITHIN)) {
            Some(Some(Err(error))) => {
                tracing::debug!(%error, volume = %volume.short(), "what others have in it cannot be asked now");
                false
            }
            Some(None) => false,
            // Nobody has looked at it here.
            Some(Some(Ok(_))) | None => true,
        };
        [branch.volume, branch.of].into_iter().fold(true, |all, volume| all & synced(volume))
    }

    fn branch_info(&self, name: String, branch: &Branch) -> Result<api::BranchInfo, Failure> {
        let of = match self.branches().into_iter().find(|(_, other)| other.volume == branch.of) {
            Some((name, _)) => name,
            None if branch.of == self.volume.id => MAIN.to_owned(),
            None => branch.of.to_string(),
        };
        let (here, merged) = (self.is_entered(branch.volume), self.is_merged(branch)?);
        let path = Path::new("/").join(BRANCHES).join(&name);
        let (id, from) = (branch.volume.to_string(), branch.from.to_string());
        Ok(api::BranchInfo { name, id, of, from, path, here, merged })
    }
}

impl Agent {
    /// The branches, of all volumes. Blocks.
    pub(crate) fn branches(&self) -> Result<Vec<api::BranchInfo>, Failure> {
        let own = self.own_tree()?;
        own.tell_of_branches()?;
        own.branches().into_iter().map(|(name, branch)| own.branch_info(name, &branch)).collect()
    }

    /// Makes a branch of the volume that a path is in, which begins with a snapshot, or with what is there now. Blocks.
    pub(crate) fn make_branch(&self, request: &api::BranchRequest) -> Result<api::BranchInfo, Failure> {
        let own = self.own_tree()?;
        let _one = own.branching.lock();
        let name = &request.name;
        check_name(name).map_err(|error| {
            Failure::new(Kind::Usage, error.to_string()).hint("one word, such as `try` or `v2-layout`")
        })?;
        own.tell_of_branches()?;
        if name == MAIN || own.branches().contains_key(name) {
            let text = format!("there is something called {name} already");
            return Err(Failure::new(Kind::CantCreate, text).hint("`hn branch` shows all; take another name"));
        }
        let past = self.past(&request.path)?;
        own.has_no_others(past.volume.id)?;
        let kept = match &request.revision {
            Some(revision) => past.resolve(revision)?,
            None => self.branched_now(own, &past, name)?,
        };
        let root = past.root(&kept)?;
        let of = past.volume.clone();
        let id = self.begin_branch(own, &of, &kept, &root)?;
        let made = Branch {
            volume: id,
            changed: clock(Hlc::default()),
            is_gone: false,
            name: name.clone(),
            of: of.id,
            root: root.inode.id,
            from: kept.snapshot.id(),
        };
        let volume = own.volumes.of(id).map_err(port_failure)?;
        let planted = own.vfs.plant(Planted { volume: id, root: root.inode.id }).and_then(|_| {
            own.vfs.set_root(id, root.inode)?;
            own.vfs.mark_changed(id)
        });
        planted.map_err(|error| of_tree(&error))?;
        let has_room = own.volume.identity.keystore().change(|keystore| {
            let there = keystore.branches.iter().filter(|branch| !branch.is_gone).count();
            let has_room = there < BRANCHES_MAX && keystore.add_volume(id);
            if has_room {
                branch::merge(&mut keystore.branches, std::slice::from_ref(&made));
            }
            has_room
        })?;
        if !has_room {
            own.let_go_of(id, true)?;
            let text = format!("there are {BRANCHES_MAX} branches, which is all that can be");
            return Err(Failure::new(Kind::Config, text).hint("`hn branch --delete NAME` lets go of one"));
        }
        own.tell_of_branches()?;
        own.start_engine(volume)?;
        self.keep_on_the_mesh()?;
        own.branch_info(name.clone(), &made)
    }

    /// What is there now, as a snapshot.
    fn branched_now(&self, own: &Own, past: &Past<'_>, name: &str) -> Result<Kept, Failure> {
        // What is in a head has dots that nothing else has: the branch begins with all of it as seen.
        if let Some(Some(Err(error))) = own.engine_of(past.volume.id).map(|engine| engine.sync_within(SYNCED_WITHIN)) {
            tracing::debug!(%error, "what a branch begins with goes to the mesh later");
        }
        let taken = past
            .volume
            .snap_by(&own.vfs, format!("branch {name} begins here"), (By::Command, false))
            .map_err(port_failure)?;
        taken.map(|taken| taken.kept).ok_or_else(|| Failure::new(Kind::System, "no snapshot was taken"))
    }

    /// Writes down what a branch begins with, before anything leads to it.
    fn begin_branch(&self, own: &Own, of: &Volume, kept: &Kept, root: &Root) -> Result<VolumeId, Failure> {
        let id = random_volume(true)?;
        let db = own.volume.db.of(id).map_err(|error| port_failure(error.into()))?;
        let vector = root.vector.clone();
        // Of a branch that is not on the mesh yet those of what it begins with.
        let (history, tags) = of.history_trees().map_err(port_failure)?;
        // What was kept and is in no head yet comes along, and then what is none of the branch's history goes.
        let waiting = of.db.edits().map_err(|error| port_failure(error.into()))?.into_iter().map(|(_, edit)| edit);
        let trimmed = trimmed(&*of.history().map_err(port_failure)?, kept, &vector);
        for edit in waiting.chain(trimmed.iter().map(codec::encode)) {
            db.add_edit(&edit).map_err(|error| port_failure(error.into()))?;
        }
        let links = root.links.clone();
        let origin = Origin { head: 0, vector, links, history, tags, of: Some(of.id) };
        state::put_origin(&db, &origin).map_err(port_failure)?;
        Ok(id)
    }

    /// Lets go of a branch. Blocks.
    pub(crate) fn drop_branch(&self, request: &api::DropBranchRequest) -> Result<api::BranchInfo, Failure> {
        let own = self.own_tree()?;
        let _one = own.branching.lock();
        own.tell_of_branches()?;
        let name = &request.name;
        if name == MAIN {
            return Err(Failure::new(Kind::Usage, "main is what branches are made of, and stays")
                .hint("`hn branch` shows those that can go"));
        }
        let Some(branch) = own.branches().remove(name) else {
            return Err(
                Failure::new(Kind::NoInput, format!("no branch is called {name}")).hint("`hn branch` shows all")
            );
        };
        own.nothing_begins_with(&branch)?;
        // Another device may have published something in it.
        if !request.force && !own.look_at(&branch) && own.volume.has_others() {
            let text = format!("what other devices have in {name} cannot be asked now");
            return Err(Failure::new(Kind::TryAgain, text).hint(
                "try again when more peers are there (`hn peers`), or --force: what is only in it is gone then",
            ));
        }
        let info = own.branch_info(name.clone(), &branch)?;
        if info.merged != Some(true) && !request.force {
            let text = match info.merged {
                Some(_) => format!("something in {name} was not merged into {}", info.of),
                None => format!("nobody here knows whether all of {name} was merged"),
            };
            return Err(Failure::new(Kind::Usage, text)
                .hint(format!("`hn merge {name}` first, or --force: what is only in it is gone then")));
        }
        if let Some(dir) = own.mounted_at(branch.volume) {
            return Err(Failure::new(Kind::TryAgain, format!("{name} is mounted on {}", dir.display()))
                .hint("`hn switch main` or `hn umount` of it first"));
        }
        let is_here = own.vfs.volumes().iter().any(|rooted| rooted.volume == branch.volume);
        if is_here && !own.let_go_of(branch.volume, request.force)? {
            return Err(Failure::new(Kind::TryAgain, format!("something in {name} is in use"))
                .hint("close what is open in it, and leave it in all shells"));
        }
        own.volume.identity.keystore().change(|keystore| {
            let gone = Branch { is_gone: true, changed: clock(branch.changed), ..branch };
            branch::merge(&mut keystore.branches, &[gone]);
        })?;
        own.tell_of_branches()?;
        self.keep_on_the_mesh()?;
        Ok(info)
    }

    /// Merges a branch, or the main volume, into the volume that a path is in, between two snapshots: by the first one nothing is lost, and
    /// what the second one has changed can be undone. Blocks.
    pub(crate) fn merge(&self, request: &api::MergeRequest) -> Result<api::MergedInfo, Failure> {
        let own = self.own_tree()?;
        own.tell_of_branches()?;
        let past = self.past(&request.path)?;
        let into = past.volume.clone();
        let from = match trunk(&own.volume.identity.keystore().keystore().branches, into.id) {
            // What a branch comes from, whichever volume that is.
            Some(main) if request.from == MAIN && into.id.is_branch() => own.volumes.of(main).map_err(port_failure)?,
            _ => own.called(&request.from)?,
        };
        if into.id == from.id {
            return Err(Failure::new(Kind::Usage, format!("{} would be merged into itself", request.from))
                .hint("name what it is to be merged into: `hn merge NAME PATH`, or work in that directory"));
        }
        into.may_write().map_err(port_failure)?;
        let (part, is_in) = own.part_of(&from, &into)?;
        if is_in {
            return Ok(api::MergedInfo { already: true, ..api::MergedInfo::default() });
        }
        let before = past.snap_first(format!("before merging {}", request.from))?.map(|id| id.to_string());
        *into.kept.lock() = Beside::default();
        into.splits.lock().push(part.clone());
        let merged = own.merged(&into, &part);
        // It is not in the way of what others publish when it came to nothing.
        into.splits.lock().retain(|split| split.vector != part.vector);
        let sequence = merged?;
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Beside { conflicts, texts, .. } = std::mem::take(&mut *into.kept.lock());
        let info = |one: &hypernet_core::merge::Conflict| api::KeptBeside {
            wanted: shown(&one.wanted),
            name: shown(&one.name),
        };
        // It is merged, whatever becomes of this.
        let taken =
            into.snap_by(&own.vfs, format!("Merge {}", request.from), (By::Hand, true)).unwrap_or_else(|error| {
                tracing::warn!(%error, volume = %into.id.short(), "no snapshot was taken of what was merged");
                None
            });
        let snapshot = taken.map(|taken| taken.kept.snapshot.id().to_string());
        let conflicts = conflicts.iter().map(info).collect();
        Ok(api::MergedInfo { already: false, sequence, conflicts, texts, before, snapshot })
    }
}

impl Own {
    /// An error where other volumes begin in one that is to be branched: they are not part of the branch, and who removed a directory
    /// around one of them there would remove it here.
    fn has_no_others(&self, of: VolumeId) -> Result<(), Failure> {
        let keystore = self.volume.identity.keystore().keystore();
        let is_left = |id: VolumeId| keystore.share(id).is_some_and(|share| share.left.is_out);
        let is_below = |id: VolumeId| id != keystore.main && !id.is_branch() && !is_left(id);
        let elsewhere = of == keystore.main && keystore.volumes.iter().any(|id| is_below(*id));
        if !elsewhere && self.vfs.volumes_below([of]).is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Usage,
            "directories in it are volumes of their own, or shared, and a branch cannot have them",
        )
        .hint("make a volume of what is to be branched (`hn volume make DIR`), and name it with --of"))
    }

    /// An error while a branch of this one waits for what it begins with.
    fn nothing_begins_with(&self, branch: &Branch) -> Result<(), Failure> {
        for (name, other) in self.branches().into_iter().filter(|(_, other)| other.of == branch.volume) {
            let db = self.volume.db.of(other.volume).map_err(|error| port_failure(error.into()))?;
            let waits =
                state::origin(&db).map_err(port_failure)?.is_some_and(|origin| origin.of == Some(branch.volume));
            if waits && state::latest(&db).map_err(port_failure)?.is_none() {
                return Err(Failure::new(Kind::TryAgain, format!("{name} begins in it, and is not on the mesh yet"))
                    .hint("`hn sync` first"));
            }
        }
        Ok(())
    }

    /// What is to be merged of a volume: all of it is on the mesh, and the attributes of its root are left out.
    /// And whether the other one has it already.
    fn part_of(&self, from: &Arc<Volume>, into: &Arc<Volume>) -> Result<(Part, bool), Failure> {
        let rooted = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == from.id);
        if rooted.is_some_and(|rooted| rooted.is_vacant) {
            // Whoever enters it has it looked for.
            let root = rooted.map_or(0, |rooted| rooted.ino);
            self.vfs.readdir(root, 0).map_err(|error| of_tree(&error))?;
        }
        self.sync_all([into, from])?;
        let latest = |volume: &Volume| {
            let latest = state::latest(&volume.db).map_err(port_failure)?;
            latest
                .ok_or_else(|| Failure::new(Kind::TryAgain, "nothing of it is on the mesh yet").hint("`hn sync` first"))
        };
        let (theirs, mine) = (latest(from)?.root, latest(into)?.root);
        if theirs.inode.id != mine.inode.id {
            return Err(Failure::new(
                Kind::Usage,
                "these two have nothing in common: neither is a branch of the other",
            )
            .hint("`hn branch` shows what each branch was made of"));
        }
        let is_in = is_in((from, &theirs), (into, &mine), None).map_err(port_failure)?;
        let content = theirs.inode.content.clone();
        let inode = Inode { content, content_dot: theirs.inode.content_dot, ..mine.inode };
        Ok((Part { inode, ..Part::from(&theirs) }, is_in))
    }

    /// Has all of these on the mesh. What a branch begins with is to be there before it, and what that begins with before that; of volumes that
    /// have heads already none waits for the other.
    fn sync_all(&self, volumes: [&Arc<Volume>; 2]) -> Result<(), Failure> {
        let has_head = |volume: &Arc<Volume>| state::latest(&volume.db).map(|latest| latest.is_some());
        let mut at_once = true;
        for volume in volumes {
            at_once &= has_head(volume).map_err(port_failure)?;
        }
        let synced = match at_once {
            true => {
                let [one, other] = volumes.map(|volume| self.engine(volume).map(|engine| (engine.begin(), engine)));
                let (one, other) = (one?, other?);
                [one, other]
                    .into_iter()
                    .try_for_each(|(ticket, engine)| engine.outcome(ticket).map(drop))
                    .map_err(port_failure)
            }
            false => volumes.into_iter().try_for_each(|volume| self.sync_after_its_origins(volume)),
        };
        synced.map_err(|failure| {
            let message = format!("what is merged goes to the mesh first, and cannot: {}", failure.message);
            Failure { message, ..failure }
        })
    }

    fn sync_after_its_origins(&self, volume: &Arc<Volume>) -> Result<(), Failure> {
        let mut line = vec![volume.clone()];
        while let Some(last) = line.last()
            && let Some(of) = state::origin(&last.db).map_err(port_failure)?.and_then(|origin| origin.of)
            && line.iter().all(|one| one.id != of)
        {
            line.push(self.volumes.of(of).map_err(port_failure)?);
        }
        line.iter().rev().try_for_each(|volume| self.sync(volume))
    }

    fn engine(&self, volume: &Volume) -> Result<Arc<Engine>, Failure> {
        self.engine_of(volume.id).ok_or_else(|| Failure::new(Kind::TryAgain, "it is not in the tree yet"))
    }

    fn sync(&self, volume: &Volume) -> Result<(), Failure> {
        self.engine(volume)?.sync().map(drop).map_err(port_failure)
    }

    fn has_all(&self, volume: &Volume, part: &Part) -> Result<bool, Failure> {
        let latest = state::latest(&volume.db).map_err(port_failure)?;
        Ok(latest.is_some_and(|latest| covers_all(&latest.root.vector, &part.vector)))
    }

    /// Waits until a part is in the head of a volume; says which head that is.
    fn merged(&self, into: &Arc<Volume>, part: &Part) -> Result<u64, Failure> {
        let until = Instant::now() + MERGED_WITHIN;
        loop {
            self.sync(into)?;
            if self.has_all(into, part)? {
                let latest = state::latest(&into.db).map_err(port_failure)?;
                return Ok(latest.map_or(0, |latest| latest.head.sequence));
            }
            if Instant::now() > until {
                let why = self.vfs.open_in(into.id).map_err(|error| of_tree(&error))?;
                let why: Vec<String> = why.iter().take(3).map(|path| path.display().to_string()).collect();
                let text = match why.is_empty() {
                    true => "it could not be merged yet: the log of the agent says why".to_owned(),
                    false => format!("files are open for writing: {}", why.join(", ")),
                };
                return Err(Failure::new(Kind::TryAgain, text).hint("nothing has changed; try again"));
            }
            std::thread::sleep(AGAIN);
        }
    }
}

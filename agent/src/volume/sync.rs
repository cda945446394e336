//! From a cut of the working tree to a head on the mesh.
//!
//! Order is everything: content and tree are placed and acknowledged, then the catalog that finds them, then the head
//! that finds the catalog, then the local state, and only then inodes count as synced. A crash between any two of
//! these repeats work (dedup makes that cheap) and loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::catalog::Manifest;
use hypernet_core::codec;
use hypernet_core::extent::Cutter;
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::limits::NAME_MAX;
use hypernet_core::merge::join;
use hypernet_core::port::{InodeRow, Local, PortError};
use hypernet_core::seal::Kind;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{self, Content, Dot, Entry, FileKind, Inode, LinkEntry, Root, Sink, Target};
use hypernet_fs::vfs::{Cut, CutDirectory, CutEntry, Stamp, Synced, Vfs, VfsError};

use super::catalog::Sizes;
use super::follow::Counted;
use super::progress::{Meter, Phase};
use super::read::{Deadline, tree_error};
use super::recover::clock;
use super::state::{self, HandedTree, Latest, Origin};
use super::write::{Put, Tally, Writer};
use super::{Volume, damaged};
use crate::share::hearing::Ask;

mod before;
mod content;
mod engine;
mod pace;

use before::Before;
pub(super) use before::Patience;
pub(crate) use engine::{Engine, Engines};

/// What a sync did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Inodes that are durable now and were not before.
    pub(crate) inodes: u64,
    /// Bytes of content that were read.
    pub(crate) bytes: u64,
    /// Sequence number of the head; 0 when there was nothing to do.
    pub(crate) sequence: u64,
    /// Segments of content, tree and catalog that were placed.
    pub(crate) segments: u64,
    /// Bytes of their shards.
    pub(crate) bytes_stored: u64,
    /// Shards of the segment that survives the loss of the fewest, and how many of them suffice.
    pub(crate) n: u8,
    pub(crate) k: u8,
    /// Peers that hold the segment that the fewest hold.
    pub(crate) peers: u8,
}

impl Report {
    /// Of a sync of this volume and then of one below it.
    pub(crate) fn and(self, below: Self) -> Self {
        let (least, sequence) = match (self.sequence, below.sequence) {
            (_, 0) => (self, self.sequence),
            (0, _) => (below, below.sequence),
            (sequence, _) if self.n - self.k <= below.n - below.k => (self, sequence),
            (sequence, _) => (below, sequence),
        };
        Self {
            inodes: self.inodes + below.inodes,
            bytes: self.bytes + below.bytes,
            sequence,
            segments: self.segments + below.segments,
            bytes_stored: self.bytes_stored + below.bytes_stored,
            n: least.n,
            k: least.k,
            peers: least.peers,
        }
    }
}

impl Volume {
    /// Whether another volume was published, as far as this device knows.
    fn has_head(&self, volume: VolumeId) -> Result<bool, PortError> {
        Ok(state::latest(&self.db.of(volume)?)?.is_some())
    }

    /// Whether all volumes that begin in this one can be found by their own heads: before that no head of this one may
    /// lead to them.
    fn may_be_published(&self, vfs: &Vfs) -> Result<bool, PortError> {
        let below = vfs.volumes().into_iter().filter(|rooted| rooted.above == Some(self.id) && !rooted.is_vacant);
        for rooted in below {
            if !self.has_head(rooted.volume)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The working tree failed, on this device.
pub(crate) fn of_tree(error: VfsError) -> PortError {
    match error {
        VfsError::NoSpace => PortError::DiskFull("the changes of the working tree cannot be written down".into()),
        VfsError::Damaged(text) => PortError::Damaged(text),
        VfsError::Unreachable(text) => PortError::Unreachable(text),
        other => PortError::Disk(other.to_string()),
    }
}

/// An error with what could not be done because of it.
fn explained(what: &str, error: PortError) -> PortError {
    match error {
        PortError::Unreachable(why) => PortError::Unreachable(format!("{what}: {why}")),
        PortError::Deadline(why) => PortError::Deadline(format!("{what}: {why}")),
        PortError::Damaged(why) => PortError::Damaged(format!("{what}: {why}")),
        PortError::DiskFull(why) => PortError::DiskFull(format!("{what}: {why}")),
        PortError::Disk(why) => PortError::Disk(format!("{what}: {why}")),
        PortError::NotFound(why) => PortError::NotFound(format!("{what}: {why}")),
        PortError::Superseded(_) | PortError::NoPart(_) | PortError::Newer(_) => error,
    }
}

/// Ends the cut however the sync ends.
pub(super) struct CutGuard<'a>(pub(super) &'a Vfs);

impl Drop for CutGuard<'_> {
    fn drop(&mut self) {
        self.0.end_cut();
    }
}

/// What this device's next tree goes on from.
pub(super) struct Base {
    pub(super) latest: Option<Latest>,
    origin: Option<Origin>,
    /// The last tree of this device that others may have.
    handed: Option<HandedTree>,
    /// The tree is in no head yet.
    is_merged: bool,
    /// What this home has of those that it was copied from.
    homes_before: Vec<Dot>,
}

impl Base {
    pub(super) fn of(volume: &Volume) -> Result<Self, PortError> {
        // Before the rest: what is handed out meanwhile is another one than this.
        let handed = state::handed_tree(&volume.db)?;
        let (latest, origin) = (state::latest(&volume.db)?, state::origin(&volume.db)?);
        Ok(Self { latest, origin, handed, is_merged: false, homes_before: volume.homes_before.clone() })
    }

    /// The same, or the tree that was merged since and that this device has moved to.
    pub(super) fn here(volume: &Volume, vfs: &Vfs) -> Result<Self, PortError> {
        let mut base = Self::of(volume)?;
        if let (Some(latest), Some(merged)) = (&mut base.latest, volume.moved_to(vfs)?) {
            (latest.root, latest.time) = (merged.root, latest.time.max(merged.time));
            base.is_merged = true;
        }
        Ok(base)
    }

    /// The last tree of this device that others may have, where it went on from the same or is the one that this device stands on:
    /// what is in it as it is now is no new change.
    fn known(&self) -> Option<&Root> {
        let handed = self.handed.as_ref().filter(|_| !self.is_merged)?;
        let latest = self.latest.as_ref();
        let goes_on = handed.after == latest.map(|latest| latest.snapshot);
        let is_stood_on = latest.is_some_and(|latest| Some(&latest.root) == handed.root.as_ref());
        handed.root.as_ref().filter(|_| goes_on || is_stood_on)
    }

    /// What was published of the root directory.
    fn known_inode(&self) -> Option<&Inode> {
        let latest = self.latest.as_ref().map(|latest| &latest.root);
        self.known().or(latest).map(|root| &root.inode)
    }

    /// What others may have when this tree is handed out, and the number of what they may have had when it was begun.
    pub(super) fn next(&self, number: u64, root: &Root) -> (Option<u64>, HandedTree) {
        let after = self.latest.as_ref().map(|latest| latest.snapshot);
        // What comes after a merge goes on from the head of that.
        let root = (!self.is_merged).then(|| root.clone());
        (self.handed.as_ref().map(|handed| handed.number), HandedTree { number, after, root })
    }

    /// Nothing of the volume was published by itself yet.
    pub(super) fn is_adopted(&self) -> bool {
        self.origin.is_some()
    }

    /// The link table of the tree that this one has changes of.
    fn table(&self) -> Option<&tree::TreeRef> {
        match (&self.latest, &self.origin) {
            (Some(latest), _) => latest.root.links.as_ref(),
            (None, origin) => origin.as_ref().and_then(Origin::table),
        }
    }

    fn links(&self) -> Option<&tree::TreeRef> {
        match (&self.latest, &self.origin) {
            (Some(latest), _) => latest.root.links.as_ref(),
            (None, origin) => origin.as_ref().and_then(|origin| origin.links.as_ref()),
        }
    }

    /// Snapshots that are kept, and their names.
    pub(super) fn history(&self) -> (Option<&tree::TreeRef>, Option<&tree::TreeRef>) {
        match (&self.latest, &self.origin) {
            (Some(latest), _) => (latest.root.history.as_ref(), latest.root.tags.as_ref()),
            (None, Some(origin)) => (origin.history.as_ref(), origin.tags.as_ref()),
            (None, None) => (None, None),
        }
    }

    /// Of a branch of which nothing was published yet, an error while what it begins with is only on this device.
    fn is_on_the_mesh(&self, volume: &Volume) -> Result<(), PortError> {
        match self.origin.as_ref().and_then(|origin| origin.of) {
            Some(of) if self.latest.is_none() && volume.db.of(of)?.count_edits()? > 0 => Err(PortError::Unreachable(
                format!("volume {}, which this one is a branch of, comes first", of.short()),
            )),
            _ => Ok(()),
        }
    }

    /// What it has seen.
    pub(super) fn seen(&self) -> Vec<Dot> {
        let seen = self.latest.as_ref().map(|latest| &latest.root.vector);
        seen.or(self.origin.as_ref().map(|origin| &origin.vector)).cloned().unwrap_or_default()
    }

    /// What a tree has seen that goes on from it by this change.
    pub(super) fn vector(&self, dot: Dot) -> Vec<Dot> {
        join([&self.seen()[..], &self.homes_before, &[dot]])
    }
}

/// What a cut comes to.
pub(super) struct Built {
    /// The root directory.
    pub(super) inode: Inode,
    /// The link table.
    pub(super) links: Option<tree::TreeRef>,
    /// What is durable of the working tree when all of this is.
    pub(super) synced: Vec<Synced>,
    /// Bytes of content that were read.
    pub(super) bytes: u64,
}

/// Puts what has changed since the last head, and makes a tree of it and what has not.
pub(super) fn build<P: Put>(
    (volume, vfs, meter): (&Arc<Volume>, &Arc<Vfs>, &Meter),
    (cut, base, dot): (&mut Cut, &Base, Dot),
    (cutter, patience): (Cutter, Patience),
    writer: &mut P,
) -> Result<Built, PortError> {
    let before = Before::look(volume, cut, base, patience)?;
    let (placed, built, synced) = (placed(volume, vfs), BTreeMap::new(), Vec::new());
    let mut build = Build { volume, vfs, meter, cutter, writer, dot, before, placed, built, synced, bytes: 0 };
    let links = build.link_table(cut, base.table())?;
    let mut inode = base.latest.as_ref().map(|latest| latest.root.inode.clone());
    let old_root = base.known_inode();
    for directory in std::mem::take(&mut cut.directories) {
        let is_root = directory.row.ino == cut.root;
        let made = build.directory(directory, old_root.filter(|_| is_root))?;
        if is_root {
            inode = Some(made);
        }
    }
    let Build { synced, bytes, .. } = build;
    Ok(Built { inode: inode.ok_or_else(|| damaged("the cut has no root"))?, links, synced, bytes })
}

/// Makes everything durable that is in the working tree now.
pub(crate) fn run(volume: &Arc<Volume>, vfs: &Arc<Vfs>, meter: &Meter) -> Result<Report, PortError> {
    volume.still_current()?;
    volume.end_following(vfs, meter)?;
    // A snapshot that is taken from here on goes into the next head.
    let edits = volume.db.edits()?;
    let one = volume.numbering.lock();
    let mut cut = vfs.cut(volume.id).map_err(of_tree)?;
    let _guard = CutGuard(vfs);
    let base = Base::of(volume)?;
    if cut.is_empty() && edits.is_empty() {
        return Ok(Report::default());
    }
    let sequence = volume.take_number()?;
    drop(one);
    base.is_on_the_mesh(volume)?;
    // Whoever was taken off is to read nothing of it.
    volume.hear(Ask::Places)?;
    volume.may_write()?;
    volume.seal_off()?;
    for entry in cut.directories.iter().flat_map(|directory| directory.entries.iter().flatten()) {
        // What its root held is to be found by its own heads from now on, so there must be one.
        if let Some(below) = entry.volume.filter(|_| !entry.inode.is_vacant())
            && !volume.has_head(below)?
        {
            let what = format!("volume {}, which begins in this one, has no head yet", below.short());
            return Err(PortError::Unreachable(what));
        }
    }
    start_meter(&cut, meter);
    let dot = volume.dot(sequence);
    let mut writer = Writer::new(volume.clone(), meter.clone())?;
    let staged = writer.put_staged()?;
    let cutter = Cutter::new(writer.keys());
    let how = (cutter, Patience::Read);
    let Built { inode, links, synced, bytes } = build((volume, vfs, meter), (&mut cut, &base, dot), how, &mut writer)?;
    let latest = base.latest.as_ref();
    let (history, tags) = volume.edited(&base, &edits, dot, &mut writer)?;
    let root = Root { volume: volume.id, inode, links, vector: base.vector(dot), parts: Vec::new(), history, tags };
    let handed = Some(base.next(sequence, &root));
    let publication = Publication { handed, ..Publication::after(latest, root, sequence) };
    let all = publish(volume, writer, publication, meter)?;
    volume.forget_edits(staged, &edits)?;
    let inodes = synced.len() as u64;
    vfs.mark_synced(volume.id, cut.seq, synced).map_err(of_tree)?;
    Ok(Report {
        inodes,
        bytes,
        sequence,
        segments: all.segments,
        bytes_stored: all.bytes,
        n: all.n(),
        k: all.k(),
        peers: all.peers(),
    })
}

/// A root that is to be published.
pub(super) struct Publication {
    pub(super) root: Root,
    /// The number of its head.
    pub(super) sequence: u64,
    /// What it follows, and the last of their times.
    pub(super) parents: Vec<SnapshotId>,
    pub(super) after: Hlc,
    /// The catalog of this device before.
    pub(super) manifest: Manifest,
    /// What says which of it has which number, where this does.
    pub(super) handed: Option<(Option<u64>, HandedTree)>,
}

impl Publication {
    /// A root that follows this one.
    pub(super) fn after(latest: Option<&Latest>, root: Root, sequence: u64) -> Self {
        let parents = latest.iter().map(|latest| latest.snapshot).collect();
        let after = latest.map_or(Hlc::default(), |latest| latest.time);
        let manifest = latest.map(|latest| latest.manifest.clone()).unwrap_or_default();
        Self { root, sequence, parents, after, manifest, handed: None }
    }
}

impl Volume {
    /// Notes what others may have from now on.
    pub(super) fn hand_out(&self, number: u64, tree: Option<(Option<u64>, HandedTree)>) -> Result<(), PortError> {
        let _one = self.handing_out.lock();
        match tree {
            Some((read, tree)) => state::put_handed_tree(&self.db, read, tree),
            None => state::hand_out_as(&self.db, number),
        }
    }
}

/// A root becomes a snapshot, then a catalog, then the next head, and what this device stands on. What is below it was put
/// before.
pub(super) fn publish(
    volume: &Arc<Volume>,
    mut writer: Writer,
    publication: Publication,
    meter: &Meter,
) -> Result<Tally, PortError> {
    let Publication { root, sequence, parents, after, manifest, handed } = publication;
    let plan = writer.plan();
    let time = clock(after);
    let root_extent = writer.put(Kind::Root, &codec::encode(&root))?;
    let snapshot = Snapshot::sign(&volume.device.signing_key(), root_extent, parents, time, String::new());
    let snapshot_extent = writer.put(Kind::Snapshot, &codec::encode(&snapshot))?;
    let tally = writer.finish()?;
    let adopted = state::origin(&volume.db)?.is_none()
        || volume.adopt(&root, &volume.history_at(root.history.as_ref(), root.tags.as_ref())?)?;

    meter.update(|progress| progress.phase = Phase::Catalog);
    let published = volume.publish_catalog(&manifest, Sizes::FULL, plan, meter)?;

    meter.update(|progress| progress.phase = Phase::Publishing);
    // Whoever took in the segments is there to be asked.
    volume.confirm()?;
    if volume.share().is_some() && volume.known_share().is_none() {
        // Others have got a part in it meanwhile. By who has one is told what counts of this tree.
        volume.hear(Ask::Places)?;
    }
    let counted = Counted::by(&volume.publishers(), volume.id).of(&root.vector);
    let (seen, vector) = {
        let heads = volume.heads.lock();
        (heads.seen(volume.id, &root.vector), heads.had_by(counted, volume.tag()))
    };
    let head = Head {
        volume: volume.id,
        device: volume.device.id(),
        sequence,
        time,
        seen,
        vector,
        snapshot: snapshot.id(),
        snapshot_extent,
        manifest: published.extent,
        manifest_placement: published.placement,
        asks: volume.asks(sequence)?,
        home: volume.identity.home(),
        copied: volume.copied,
        signature: [0; 64],
    };
    // All that it leads to can be read by now.
    volume.hand_out(sequence, handed)?;
    // It is to outlive as many losses as the weakest segment that it reaches.
    let all = tally.and(published.tally);
    let head = volume.publish_head(head, usize::from(all.spare()) + 1)?;
    let links = root.links.clone();
    let latest = Latest { snapshot: head.snapshot, root, manifest: published.manifest, time, head };
    state::put_latest(&volume.db, &latest)?;
    volume.db.forget_stale(&published.stale)?;
    if adopted {
        state::forget_origin(&volume.db)?;
    }
    *volume.links.lock() = links;
    Ok(all)
}

fn start_meter(cut: &Cut, meter: &Meter) {
    let (files, bytes) = cut.to_read();
    meter.update(|progress| {
        progress.phase = Phase::Uploading;
        progress.files_total = files;
        progress.files_done = 0;
        progress.bytes_total = bytes;
        progress.bytes_sealed = 0;
        progress.bytes_placing = 0;
        progress.segments_placed = 0;
    });
}

/// Volumes that have their place in this one, and those that were taken out of the tree.
fn placed(volume: &Volume, vfs: &Vfs) -> BTreeSet<VolumeId> {
    let below = vfs.volumes().into_iter().filter(|rooted| rooted.above == Some(volume.id)).map(|rooted| rooted.volume);
    // Nobody takes them out of what others have a part in, too.
    let shares = if volume.share().is_none() { volume.identity.keystore().keystore().shares } else { Vec::new() };
    below.chain(shares.iter().filter(|share| share.left.is_out).map(|share| share.volume)).collect()
}

/// Adds an entry where it belongs in the order of names; by another one where something else has its name.
fn add_beside(entries: &mut Vec<Entry>, mut entry: Entry, dot: Dot) {
    let wanted = entry.name.clone();
    for number in 2u64.. {
        match entries.binary_search_by(|other| other.name.cmp(&entry.name)) {
            Err(at) => return entries.insert(at, entry),
            Ok(_) => {
                let label = format!(" ({number})");
                let mut end = wanted.len().min(NAME_MAX - label.len());
                while end > 0 && end < wanted.len() && wanted[end] & 0xc0 == 0x80 {
                    end -= 1;
                }
                (entry.name, entry.dot) = ([&wanted[..end], label.as_bytes()].concat(), dot);
            }
        }
    }
}

/// The content of a file of a cut; `read` is told how many bytes of it went through.
fn read_file<P: Put>(
    vfs: &Vfs,
    cutter: &Cutter,
    writer: &mut P,
    row: &InodeRow,
    read: &mut dyn FnMut(u64),
) -> Result<(Content, Option<Stamp>), PortError> {
    let failed = |error: VfsError| PortError::Disk(format!("reading inode {}: {error}", row.ino));
    let Some((file, stamp)) = vfs.open_backing(row.ino).map_err(failed)? else {
        return match &row.remote {
            _ if row.size == 0 => Ok((Content::Empty, None)),
            Some(remote) => {
                tracing::error!(ino = row.ino, "what a file held is gone from this disk; the mesh's version stays");
                Ok((remote.clone(), None))
            }
            None => Err(PortError::Disk(format!(
                "the content of inode {} ({} bytes) is gone from this disk: see hn fsck",
                row.ino, row.size
            ))),
        };
    };
    if let Some(known) = writer.known(row.ino, &stamp)? {
        return Ok((known, Some(stamp)));
    }
    let content = content::read(&file, cutter, writer, read)?;
    writer.note(row.ino, &stamp, &content);
    Ok((content, Some(stamp)))
}

/// Reads what is to be read of a cut, for whoever [knows](Put::known) it then. Returns how many bytes that were.
pub(super) fn read_ahead<P: Put>(vfs: &Vfs, cut: &Cut, cutter: &Cutter, writer: &mut P) -> Result<u64, PortError> {
    let named = cut.directories.iter().flat_map(|directory| directory.entries.iter().flatten());
    let named = named.filter(|entry| entry.dirty && entry.volume.is_none()).filter_map(CutEntry::row);
    let mut bytes = 0;
    for row in named.chain(cut.linked.iter().cloned()) {
        if row.kind == FileKind::Regular && row.local == Local::Complete {
            read_file(vfs, cutter, writer, &row, &mut |len| bytes += len)?;
        }
    }
    Ok(bytes)
}

/// One tree under construction.
struct Build<'a, P> {
    volume: &'a Arc<Volume>,
    vfs: &'a Arc<Vfs>,
    meter: &'a Meter,
    cutter: Cutter,
    writer: &'a mut P,
    dot: Dot,
    /// What was published of it before.
    before: Before,
    /// Volumes that have their place in this one, and those that were taken out of the tree.
    placed: BTreeSet<VolumeId>,
    /// Directories that are done, by inode: they come before their parents.
    built: BTreeMap<u64, Content>,
    synced: Vec<Synced>,
    bytes: u64,
}

/// Whether two records differ in nothing that counts as a change of metadata: times that follow from another change do not.
fn same_metadata(a: &Inode, b: &Inode) -> bool {
    let bare = |inode: &Inode| (inode.id, inode.kind, inode.mode, inode.uid, inode.gid, inode.rdev);
    bare(a) == bare(b) && a.xattrs == b.xattrs && (a.mtime == b.mtime || a.content != b.content)
}

/// Whether an inode that nothing has changed is this one, times aside: what others may have of it need not be what it was found as.
fn is_published(row: &InodeRow, old: &Inode) -> bool {
    (row.mode, row.uid, row.gid, row.rdev) == (old.mode, old.uid, old.gid, old.rdev)
        && row.xattrs == old.xattrs
        && row.remote.as_ref() == Some(&old.content)
}

impl<P: Put> Build<'_, P> {
    fn inode(&self, row: &InodeRow, content: Content, old: Option<&Inode>) -> Inode {
        let mut inode = Inode {
            id: row.id,
            kind: row.kind,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            rdev: row.rdev,
            mtime: row.mtime,
            ctime: row.ctime,
            xattrs: row.xattrs.clone(),
            content,
            meta_dot: self.dot,
            content_dot: None,
            older: None,
        };
        if let Some(old) = old.filter(|old| old.id == row.id) {
            let old_content_dot = old.content_dot.unwrap_or(old.meta_dot);
            if same_metadata(&inode, old) {
                inode.meta_dot = old.meta_dot;
                inode.older = old.older.clone();
            } else {
                inode.date_after(old);
            }
            let content_dot = if inode.content == old.content { old_content_dot } else { self.dot };
            inode.content_dot = (content_dot != inode.meta_dot).then_some(content_dot);
        }
        inode
    }

    /// The content of an inode that is no directory, read where it is dirty.
    fn content(&mut self, row: &InodeRow, dirty: bool) -> Result<Content, PortError> {
        if !dirty && let Some(remote) = &row.remote {
            return Ok(remote.clone());
        }
        let (content, stamp) = match row.kind {
            FileKind::Symlink => (Content::Symlink(row.symlink.clone()), None),
            FileKind::Regular if row.local == Local::Complete => self.read_file(row)?,
            FileKind::Regular => (row.remote.clone().unwrap_or(Content::Empty), None),
            FileKind::Directory => return Err(damaged("a directory was taken for a file")),
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => (Content::Empty, None),
        };
        self.synced.push(Synced { ino: row.ino, content: Box::new(content.clone()), stamp });
        if row.kind == FileKind::Regular {
            self.meter.update(|progress| progress.files_done += 1);
        }
        Ok(content)
    }

    fn read_file(&mut self, row: &InodeRow) -> Result<(Content, Option<Stamp>), PortError> {
        let (meter, bytes) = (self.meter, &mut self.bytes);
        read_file(self.vfs, &self.cutter, self.writer, row, &mut |len| {
            *bytes += len;
            meter.update(|progress| progress.bytes_sealed += len);
        })
    }

    /// `old_root`: of the root, what was published of it.
    fn directory(&mut self, directory: CutDirectory, old_root: Option<&Inode>) -> Result<Inode, PortError> {
        let CutDirectory { row, entries } = directory;
        let content = match (entries, &row.remote) {
            (None, Some(remote)) => remote.clone(),
            (None, None) => return Err(damaged("a directory without entries was never published")),
            (Some(entries), _) => {
                let mut old = self.before.listing(self.volume, row.ino)?;
                let mut made = Vec::with_capacity(entries.len());
                // A volume that has its place elsewhere in this device's tree has none here, and for others it has.
                let mut left_out = Vec::new();
                for entry in entries {
                    let old = old.remove(&*entry.name);
                    let is_hidden = |old: &&Entry| entry.volume.is_none() && self.is_left_out(&old.target);
                    left_out.extend(old.as_ref().filter(is_hidden).cloned());
                    made.push(self.entry(entry, old)?);
                }
                left_out.extend(old.into_values().filter(|entry| self.is_left_out(&entry.target)));
                for entry in left_out {
                    add_beside(&mut made, entry, self.dot);
                }
                Content::Directory(tree::build(made, self.writer).map_err(tree_error)?)
            }
        };
        self.built.insert(row.ino, content.clone());
        self.synced.push(Synced { ino: row.ino, content: Box::new(content.clone()), stamp: None });
        Ok(self.inode(&row, content, old_root))
    }

    /// Whether this is a volume that nobody has taken away here, though it is not in the cut.
    fn is_left_out(&self, target: &Target) -> bool {
        matches!(target, Target::Volume { volume, .. } if !self.placed.contains(volume))
    }

    fn entry(&mut self, entry: CutEntry, old: Option<Entry>) -> Result<Entry, PortError> {
        let old = old.filter(|old| old.target.id() == entry.inode.id());
        if let Some(volume) = entry.volume {
            let target = Target::Volume { volume, id: entry.inode.id() };
            let dot = old.filter(|old| old.target == target).map_or(self.dot, |old| old.dot);
            return Ok(Entry { name: entry.name.into(), dot, target });
        }
        let dot = old.as_ref().map_or(self.dot, |old| old.dot);
        let row = entry.row();
        let CutEntry { name, ino, inode, dirty, .. } = entry;
        let Some(row) = row else {
            return Ok(Entry { name: name.into(), dot, target: Target::Link(inode.id()) });
        };
        let old_inode = match old {
            Some(Entry { target: Target::Inode(inode), .. }) => Some(*inode),
            _ => self.before.moved(row.id),
        };
        let inode = match (&old_inode, dirty) {
            (Some(old), false) if is_published(&row, old) => old.clone(),
            _ => {
                let content = match (row.kind, self.built.get(&ino), &row.remote) {
                    (FileKind::Directory, Some(built), _) => built.clone(),
                    (FileKind::Directory, None, Some(remote)) => remote.clone(),
                    (FileKind::Directory, None, None) => return Err(damaged("a directory of the cut was not built")),
                    _ => self.content(&row, dirty)?,
                };
                self.inode(&row, content, old_inode.as_ref())
            }
        };
        Ok(Entry { name: name.into(), dot, target: Target::Inode(Box::new(inode)) })
    }

    fn link_table(&mut self, cut: &Cut, old: Option<&tree::TreeRef>) -> Result<Option<tree::TreeRef>, PortError> {
        if cut.linked.is_empty() && cut.unlinked.is_empty() {
            return Ok(old.cloned());
        }
        // Unlike a directory, the cut has only the rows that changed: without the others their inodes would be gone.
        let rows = old.map_or(Ok(Vec::new()), |old| self.volume.link_entries(old, Deadline::of_read()));
        let rows = rows.map_err(|error| {
            let what = "the last list of files with several names cannot be read, and it is needed to write the next";
            explained(what, error)
        })?;
        let mut rows: BTreeMap<FileId, LinkEntry> = rows.into_iter().map(|row| (row.inode.id, row)).collect();
        for id in &cut.unlinked {
            rows.remove(id);
        }
        for row in &cut.linked {
            let content = self.content(row, true)?;
            let old = || rows.get(&row.id).map(|old| old.inode.clone());
            let old = self.before.linked(row.id).or_else(old).or_else(|| self.before.moved(row.id));
            let inode = self.inode(row, content, old.as_ref());
            rows.insert(row.id, LinkEntry { inode, links: row.nlink });
        }
        if rows.is_empty() {
            return Ok(None);
        }
        tree::build(rows.into_values(), self.writer).map(Some).map_err(tree_error)
    }
}

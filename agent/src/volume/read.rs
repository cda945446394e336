//! Reading: references in, plaintext out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hypernet_core::codec;
use hypernet_core::id::{ExtentId, FileId, SegmentId};
use hypernet_core::node::{Command, CommandError, Outcome};
use hypernet_core::port::{PortError, Stretch};
use hypernet_core::seal::{ExtentRef, Kind};
use hypernet_core::segment::Placement;
use hypernet_core::tree::{self, Content, Entry, LinkEntry, Run, Source, Target, TreeError, TreeRef};
use lru::LruCache;
use tokio::sync::oneshot;

use super::nearby;
use super::{READ_WITHIN, Volume, damaged, stage, state};

/// Placements kept decoded.
const PLACEMENTS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Sealed bytes asked for by one command: long enough to keep peers busy, short enough to spread over them.
const FETCH_BYTES: u64 = 4 << 20;

pub(crate) type PlacementCache = LruCache<SegmentId, Arc<Placement>>;

pub(crate) fn placement_cache() -> PlacementCache {
    LruCache::new(PLACEMENTS)
}

pub(crate) fn failed(error: CommandError) -> PortError {
    match error {
        CommandError::TooFewShards { .. } => PortError::Unreachable(error.to_string()),
        CommandError::Deadline { .. } | CommandError::Busy => PortError::Deadline(error.to_string()),
        CommandError::Damaged { .. } | CommandError::Invalid(_) => PortError::Damaged(error.to_string()),
        CommandError::NotPlaced { .. }
        | CommandError::Copy { .. }
        | CommandError::Lease { .. }
        | CommandError::Record(_) => PortError::Unreachable(error.to_string()),
    }
}

pub(crate) fn tree_error(error: TreeError<PortError>) -> PortError {
    match error {
        TreeError::Port(error) => error,
        other => PortError::Damaged(other.to_string()),
    }
}

/// When a read must have ended, however many fetches it takes: several levels of a tree have no more time than one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// [`READ_WITHIN`] from now.
    pub(crate) fn of_read() -> Self {
        Self(Instant::now() + Duration::from_millis(READ_WITHIN))
    }

    /// For what is on this disk: nothing is asked of the mesh.
    pub(crate) fn of_disk() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds that are left; an error when none is.
    fn left(self) -> Result<u64, PortError> {
        let left = self.0.saturating_duration_since(Instant::now()).as_millis() as u64;
        if left > 0 {
            return Ok(left);
        }
        Err(PortError::Deadline(format!("{} s were over before all that leads there was read", READ_WITHIN / 1000)))
    }
}

/// Some extents of one segment, to be fetched together.
struct Batch {
    segment: SegmentId,
    placement: Arc<Placement>,
    /// Position among the asked, reference, offset in the payload.
    extents: Vec<(usize, ExtentRef, u32)>,
}

impl Batch {
    fn is_small(&self) -> bool {
        self.extents.iter().map(|(_, extent, _)| u64::from(extent.sealed_len)).sum::<u64>() <= nearby::SMALL
    }
}

/// A batch that was asked for, or that was here.
enum Asked {
    /// What came along with something else, each with its position among the asked.
    Here(Vec<(usize, Bytes)>),
    /// What is on its way.
    Waiting {
        /// Positions among the asked.
        positions: Vec<usize>,
        segment: SegmentId,
        shard_len: u32,
        outcome: oneshot::Receiver<Outcome>,
    },
}

impl Asked {
    /// What came, each with its position. Blocks until the deadline at the latest.
    fn wait(self, volume: &Volume) -> Result<Vec<(usize, Bytes)>, PortError> {
        let (positions, segment, shard_len, outcome) = match self {
            Self::Here(came) => return Ok(came),
            Self::Waiting { positions, segment, shard_len, outcome } => (positions, segment, shard_len, outcome),
        };
        match outcome.blocking_recv() {
            Ok(Outcome::Fetched { plain, around }) => {
                let mut nearby = volume.nearby.lock();
                around.iter().for_each(|stretch| nearby.keep(segment, shard_len, stretch));
                drop(nearby);
                Ok(positions.into_iter().zip(plain).collect())
            }
            Ok(Outcome::Failed(error)) => Err(failed(error)),
            Ok(other) => Err(PortError::Damaged(format!("unexpected outcome {other:?}"))),
            Err(_) => Err(PortError::Unreachable("the agent is stopping".into())),
        }
    }
}

impl Volume {
    /// A placement, decoded once for as long as it is in use.
    pub(super) fn placement(&self, segment: SegmentId, descriptor: &[u8]) -> Result<Arc<Placement>, PortError> {
        let mut cache = self.placements.lock();
        if let Some(placement) = cache.get(&segment) {
            return Ok(placement.clone());
        }
        let placement: Placement =
            codec::decode(descriptor).map_err(|error| PortError::Damaged(format!("local index: {error}")))?;
        let placement = Arc::new(placement);
        cache.put(segment, placement.clone());
        Ok(placement)
    }

    /// Where these are, and those that wait on this disk to be placed.
    fn batches(&self, refs: &[ExtentRef]) -> Result<(Vec<Batch>, Asked), PortError> {
        let mut here = Vec::new();
        let ids: Vec<ExtentId> = refs.iter().map(ExtentRef::id).collect();
        let (located, staged) = (self.db.locate_many(&ids)?, self.db.are_staged(&ids)?);
        let mut by_segment: BTreeMap<SegmentId, Batch> = BTreeMap::new();
        for (at, (reference, location)) in refs.iter().zip(located).enumerate() {
            // What waits here may be on the mesh for a while only, or not any more.
            if staged.get(at) == Some(&true)
                && let Some(bytes) = self.db.staged(&ids[at])?
            {
                here.push((at, reference.open(&stage::unfiled(bytes)?.bytes).map_err(damaged)?.into()));
                continue;
            }
            let Some(location) = location else {
                return Err(PortError::NotFound(format!(
                    "extent {} is in no segment that the index knows",
                    ids[at].short()
                )));
            };
            let placement = self.placement(location.segment, &location.descriptor)?;
            by_segment
                .entry(location.segment)
                .or_insert_with(|| Batch { segment: location.segment, placement, extents: Vec::new() })
                .extents
                .push((at, reference.clone(), location.offset));
        }
        let mut out = Vec::new();
        for (segment, mut batch) in by_segment {
            batch.extents.sort_by_key(|(_, _, offset)| *offset);
            // Neighbours go into one command, so that a range of a row is asked for once.
            let mut run: Vec<(usize, ExtentRef, u32)> = Vec::new();
            let mut start = 0u64;
            for extent in batch.extents {
                let (offset, len) = (u64::from(extent.2), u64::from(extent.1.sealed_len));
                if !run.is_empty() && offset + len - start > FETCH_BYTES {
                    let extents = std::mem::take(&mut run);
                    out.push(Batch { segment, placement: batch.placement.clone(), extents });
                }
                if run.is_empty() {
                    start = offset;
                }
                run.push(extent);
            }
            out.push(Batch { segment, placement: batch.placement, extents: run });
        }
        Ok((out, Asked::Here(here)))
    }

    /// Asks for `refs`, a batch for each stretch of a segment; their positions in `refs` and what will come of them.
    fn ask(&self, refs: &[ExtentRef], deadline: Deadline) -> Result<Vec<Asked>, PortError> {
        let (batches, here) = self.batches(refs)?;
        let mut asked = vec![here];
        for mut batch in batches {
            let mut around = 0;
            if batch.is_small() {
                asked.push(Asked::Here(self.take_nearby(&mut batch)));
                let Some((_, extent, offset)) = batch.extents.first() else { continue };
                let shard_len = batch.placement.segment.shard_len;
                around = self.nearby.lock().width(batch.segment, shard_len, extent, *offset);
            }
            let Batch { segment, placement, extents } = batch;
            let (positions, wanted): (Vec<usize>, Vec<(ExtentRef, u32)>) =
                extents.into_iter().map(|(at, reference, offset)| (at, (reference, offset))).unzip();
            let shard_len = placement.segment.shard_len;
            let command = Command::Fetch { placement, wanted, around, within: deadline.left()? };
            asked.push(Asked::Waiting { positions, segment, shard_len, outcome: self.node.start(command) });
        }
        #[cfg(test)]
        if asked.iter().any(|asked| matches!(asked, Asked::Waiting { .. })) {
            self.trips.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(asked)
    }

    /// Takes out of a batch what came along with something else before.
    fn take_nearby(&self, batch: &mut Batch) -> Vec<(usize, Bytes)> {
        let (segment, shard_len) = (batch.segment, batch.placement.segment.shard_len);
        let mut here = Vec::new();
        batch.extents.retain(|(at, extent, offset)| {
            let Some(sealed) = self.nearby.lock().sealed(segment, shard_len, extent, *offset) else { return true };
            match extent.open(&sealed) {
                Ok(plain) => {
                    here.push((*at, plain.into()));
                    false
                }
                Err(_) => {
                    self.nearby.lock().forget(segment, shard_len, extent, *offset);
                    true
                }
            }
        });
        here
    }

    /// Plaintexts of `refs`, in order, from the mesh. Blocks until the deadline at the latest.
    pub(crate) fn fetch(&self, refs: &[ExtentRef], deadline: Deadline) -> Result<Vec<Bytes>, PortError> {
        let mut plain: Vec<Bytes> = vec![Bytes::new(); refs.len()];
        for asked in self.ask(refs, deadline)? {
            for (at, bytes) in asked.wait(self)? {
                plain[at] = bytes;
            }
        }
        Ok(plain)
    }

    /// All entries of a directory.
    pub(crate) fn entries(&self, directory: &TreeRef, deadline: Deadline) -> Result<Vec<Entry>, PortError> {
        tree::list(directory, &Nodes(self, deadline)).map_err(tree_error)
    }

    /// Where the directory with this id is in the newest tree, if it is. That takes a look at every directory there is.
    pub(crate) fn find_directory(&self, id: FileId) -> Result<Option<PathBuf>, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        let mut waiting = match latest.root.inode.content {
            Content::Directory(tree) => vec![(PathBuf::new(), tree)],
            _ => Vec::new(),
        };
        let mut seen = BTreeSet::new();
        while let Some((above, tree)) = waiting.pop() {
            // What is in one place twice is looked into once.
            if !seen.insert(tree.node.id()) {
                continue;
            }
            for entry in self.entries(&tree, Deadline::of_read())? {
                if let Target::Inode(inode) = entry.target
                    && let Content::Directory(tree) = inode.content
                {
                    let path = above.join(OsStr::from_bytes(&entry.name));
                    if inode.id == id {
                        return Ok(Some(path));
                    }
                    waiting.push((path, tree));
                }
            }
        }
        Ok(None)
    }

    /// All rows of a link table.
    pub(crate) fn link_entries(&self, links: &TreeRef, deadline: Deadline) -> Result<Vec<LinkEntry>, PortError> {
        tree::list(links, &Nodes(self, deadline)).map_err(tree_error)
    }

    /// The runs of a file that overlap a range, each with its offset.
    pub(crate) fn runs(
        &self,
        runs: &TreeRef,
        range: Range<u64>,
        deadline: Deadline,
    ) -> Result<Vec<(u64, Run)>, PortError> {
        tree::range(runs, &Nodes(self, deadline), range.start, range.end).map_err(tree_error)
    }
}

/// Tree nodes, from the local cache first. The cache only spares work, so that nothing fails for its sake.
pub(crate) struct Nodes<'a>(pub(crate) &'a Volume, pub(crate) Deadline);

impl Nodes<'_> {
    fn cached(&self, id: &ExtentId) -> Option<Vec<u8>> {
        self.0.db.node(id).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the cache of tree nodes; asking the mesh");
            None
        })
    }

    fn keep(&self, nodes: &[(ExtentId, &[u8])]) {
        if let Err(error) = self.0.db.put_nodes(nodes) {
            tracing::warn!(%error, "cannot keep tree nodes; they will be fetched again");
        }
    }
}

impl Source for Nodes<'_> {
    type Error = PortError;

    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, PortError> {
        let mut out: Vec<Option<Vec<u8>>> = refs.iter().map(|reference| self.cached(&reference.id())).collect();
        let missing: Vec<usize> = (0..refs.len()).filter(|at| out[*at].is_none()).collect();
        if missing.is_empty() {
            return Ok(out.into_iter().flatten().collect());
        }
        let wanted: Vec<ExtentRef> = missing.iter().map(|at| refs[*at].clone()).collect();
        let mut failure = None;
        for asked in self.0.ask(&wanted, self.1)? {
            // What came is kept even where the rest did not: the next try has less to ask for.
            match asked.wait(self.0) {
                Ok(came) => {
                    let nodes: Vec<(ExtentId, &[u8])> =
                        came.iter().map(|(at, bytes)| (wanted[*at].id(), bytes.as_ref())).collect();
                    self.keep(&nodes);
                    for (at, bytes) in came {
                        out[missing[at]] = Some(bytes.into());
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(out.into_iter().flatten().collect()),
        }
    }
}

/// What [`hypernet_core::port::RemoteTree`] says of them.
impl Volume {
    pub(crate) fn list(&self, directory: &TreeRef) -> Result<Vec<Entry>, PortError> {
        self.entries(directory, Deadline::of_read())
    }

    pub(crate) fn link(&self, id: FileId) -> Result<LinkEntry, PortError> {
        let links = self.links.lock().clone();
        let found = match links {
            Some(links) => {
                let found = tree::find::<LinkEntry, _>(&links, &Nodes(self, Deadline::of_read()), &id);
                found.map_err(|error| match tree_error(error) {
                    // A node of the table that no segment has is another matter than a table that has no such row.
                    PortError::NotFound(what) => PortError::Unreachable(what),
                    other => other,
                })?
            }
            None => None,
        };
        found.ok_or_else(|| PortError::NotFound(format!("inode {id} is not in the link table")))
    }

    pub(crate) fn read(&self, content: &Content, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, PortError> {
        let deadline = Deadline::of_read();
        match content {
            Content::Empty | Content::Directory(_) => Ok(Vec::new()),
            Content::Inline(bytes) | Content::Symlink(bytes) => Ok(vec![(0, Bytes::copy_from_slice(bytes))]),
            Content::Extent(extent) => {
                let bytes = self.fetch(std::slice::from_ref(extent), deadline)?;
                Ok(bytes.into_iter().map(|bytes| (0, bytes)).collect())
            }
            Content::Runs { tree: runs, .. } => {
                let data: Vec<(u64, ExtentRef)> = self
                    .runs(runs, range, deadline)?
                    .into_iter()
                    .filter_map(|(at, run)| match run {
                        Run::Data(extent) => Some((at, extent)),
                        Run::Hole(_) => None,
                    })
                    .collect();
                let refs: Vec<ExtentRef> = data.iter().map(|(_, extent)| extent.clone()).collect();
                let bytes = self.fetch(&refs, deadline)?;
                Ok(data.into_iter().map(|(at, _)| at).zip(bytes).collect())
            }
        }
    }

    pub(crate) fn seek(&self, content: &Content, from: u64, wanted: Stretch) -> Result<Option<u64>, PortError> {
        let tree = match content {
            Content::Runs { tree, data } if *data < tree.weight => tree,
            whole => return Ok((wanted == Stretch::Data && from < whole.size()).then_some(from)),
        };
        let deadline = Deadline::of_read();
        let mut at = from;
        while at < tree.weight {
            for (start, run) in self.runs(tree, at..at.saturating_add(SEEK_WINDOW), deadline)? {
                let found = match run {
                    Run::Data(_) => Stretch::Data,
                    Run::Hole(_) => Stretch::Hole,
                };
                if found == wanted {
                    return Ok(Some(start.max(from)));
                }
                // The last may reach far beyond the window: a hole can be as long as it likes.
                at = at.max(start.saturating_add(tree::Item::weight(&run)));
            }
        }
        Ok(None)
    }

    /// As [`RemoteTree::common`](hypernet_core::port::RemoteTree::common) says: extents that both begin with.
    pub(crate) fn common(&self, one: &Content, other: &Content) -> Result<u64, PortError> {
        match (one, other) {
            (Content::Runs { tree: one, .. }, Content::Runs { tree: other, .. }) => {
                tree::common_prefix::<Run, _>(one, other, &Nodes(self, Deadline::of_read())).map_err(tree_error)
            }
            _ => Ok(0),
        }
    }
}

/// Bytes of a file whose runs are looked at at once for a hole, or for data.
const SEEK_WINDOW: u64 = 64 << 20;

/// Whether a reference may stand for a unit of this kind; a guard against a head or a snapshot that points at the wrong
/// thing, or at one that cannot be.
pub(crate) fn expect_kind(reference: &ExtentRef, kind: Kind) -> Result<(), PortError> {
    if reference.kind != kind {
        Err(PortError::Damaged(format!("a {kind:?} was expected and a {:?} is named", reference.kind)))
    } else if !reference.is_sound() {
        Err(PortError::Damaged(format!("a {kind:?} of {} bytes is named", reference.sealed_len)))
    } else {
        Ok(())
    }
}

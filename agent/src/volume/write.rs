//! Writing: plaintext in, references out; sealed, packed, coded and placed along the way.
//!
//! Sealing runs on the caller's thread; coding and placing run behind it, a bounded number of segments at a time, so
//! memory stays flat however large the tree is. An extent counts as stored only when every row of its segment is
//! acknowledged; until then it is remembered here, so that it is not sealed twice. And it counts as stored only as long
//! as enough holders of its segment say that they have it: see [`super::census`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hypernet_core::id::{ExtentId, PeerId, SegmentId};
use hypernet_core::key::VolumeKeys;
use hypernet_core::lease::LeaseNumber;
use hypernet_core::limits::UPLOAD_WINDOW;
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind, Prepared, Sealer};
use hypernet_core::segment::{Located, Packed, Packer, Placement, full_shard_len};
use hypernet_core::tree::{Content, Sink};
use hypernet_fs::vfs::Stamp;
use hypernet_store::volume::NewSegment;

use super::census::{Census, Enough};
use super::leases::new_leases;
use super::progress::{Meter, Phase};
use super::{Volume, damaged, stage};

/// A segment that was placed.
pub(crate) struct Placed {
    pub(crate) id: SegmentId,
    /// By which this device knows its leases.
    pub(crate) number: LeaseNumber,
    pub(crate) placement: Placement,
    pub(crate) contents: Vec<Located>,
}

/// What was placed: how much, and the least of what a segment of it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) segments: u64,
    /// Bytes of their shards.
    pub(crate) bytes: u64,
    /// `None` without a segment.
    least: Option<Least>,
}

/// The least of what some segments have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Least {
    /// Rows of the weakest that may be lost, those it has, and those that suffice.
    spare: u8,
    n: u8,
    k: u8,
    /// Peers that hold the one that the fewest hold.
    peers: u8,
}

impl Tally {
    pub(crate) fn of(placement: &Placement) -> Self {
        let (n, k) = (placement.n, placement.segment.k);
        let peers: BTreeSet<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();
        Self {
            segments: 1,
            bytes: u64::from(placement.n) * u64::from(placement.segment.shard_len),
            least: Some(Least { spare: n.saturating_sub(k), n, k, peers: peers.len() as u8 }),
        }
    }

    /// Of a segment that was there before, of which this many rows are left.
    pub(super) fn relied(placement: &Placement, held: u8) -> Self {
        let k = placement.segment.k;
        let least = Least { spare: held.saturating_sub(k), n: held, k, peers: held };
        Self { segments: 0, bytes: 0, least: Some(least) }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        let least = match (self.least, other.least) {
            (Some(one), Some(other)) => Some(Least { peers: one.peers.min(other.peers), ..one.min(other) }),
            (one, other) => one.or(other),
        };
        Self { segments: self.segments + other.segments, bytes: self.bytes + other.bytes, least }
    }

    /// Rows that the weakest segment may lose.
    pub(crate) fn spare(&self) -> u8 {
        self.least.map_or(0, |least| least.spare)
    }

    /// Rows of the weakest segment: the plan's only where peers did not go while it was placed.
    pub(crate) fn n(&self) -> u8 {
        self.least.map_or(0, |least| least.n)
    }

    /// Rows of the weakest segment that suffice.
    pub(crate) fn k(&self) -> u8 {
        self.least.map_or(0, |least| least.k)
    }

    /// The fewest peers that hold a segment.
    pub(crate) fn peers(&self) -> u8 {
        self.least.map_or(0, |least| least.peers)
    }
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether k rows of a segment are with peers in `connected`.
pub(super) fn is_readable(placement: &Placement, connected: &BTreeSet<PeerId>) -> bool {
    let there = placement.holders.iter().filter(|holder| connected.contains(&holder.peer));
    let rows: BTreeSet<u8> = there.map(|holder| holder.row).collect();
    rows.len() >= usize::from(placement.segment.k)
}

/// Where content and tree of a cut go, sealed.
pub(super) trait Put: Sink<Error = PortError> {
    /// [`Sink::put`] for many, which are sealed on all cores; the references are in the order of `plains`.
    fn put_all(&mut self, kind: Kind, plains: &[&[u8]]) -> Result<Vec<ExtentRef>, PortError>;

    /// What a file holds, where it was read for this before and its backing file is as it was.
    fn known(&self, _ino: u64, _stamp: &Stamp) -> Result<Option<Content>, PortError> {
        Ok(None)
    }

    /// What a file was found to hold.
    fn note(&mut self, _ino: u64, _stamp: &Stamp, _content: &Content) {}
}

/// The pipeline of one sync.
pub(crate) struct Writer {
    volume: Arc<Volume>,
    keys: Arc<VolumeKeys>,
    sealer: Sealer,
    packer: Packer,
    plan: Plan,
    meter: Meter,
    /// What the peers that were there when the sync began have of older segments.
    census: Census,
    /// Extents that were put by this sync; they are placed when it ends well.
    on_the_way: BTreeSet<ExtentId>,
    work: Option<crossbeam_channel::Sender<Packed>>,
    /// Set when the sync has failed: what was not begun is not placed any more.
    cancelled: Arc<AtomicBool>,
    workers: Vec<std::thread::JoinHandle<Result<Tally, PortError>>>,
    nodes: Vec<(ExtentId, Vec<u8>)>,
}

/// Extents read at once that wait to be placed.
const STAGED_AT_ONCE: u32 = 64;
/// Tree nodes collected before they go to the local cache.
const NODE_BATCH: usize = 256;

impl Writer {
    /// A pipeline under the plan for the peers of now.
    pub(crate) fn new(volume: Arc<Volume>, meter: Meter) -> Result<Self, PortError> {
        let plan = volume.peers.settled_plan()?;
        let census = Census::new(&volume)?;
        let keys = volume.keys();
        let footprint = full_shard_len(plan.k) * usize::from(plan.committed);
        let window = (UPLOAD_WINDOW / footprint.max(1)).clamp(2, 8);
        let (work, jobs) = crossbeam_channel::bounded::<Packed>(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let workers = (0..window)
            .map(|_| {
                let (volume, keys, jobs, meter) = (volume.clone(), keys.clone(), jobs.clone(), meter.clone());
                let cancelled = cancelled.clone();
                std::thread::Builder::new().name("hn-place".into()).spawn(move || {
                    let mut tally = Tally::default();
                    for packed in jobs {
                        let placed =
                            volume.peers.place_unless((&keys, &|| volume.draw()), &packed, plan, &meter, &cancelled)?;
                        volume.remember(&placed)?;
                        let len = packed.len() as u64;
                        tally = placed.iter().map(|placed| Tally::of(&placed.placement)).fold(tally, Tally::and);
                        meter.update(|progress| {
                            progress.bytes_placing = progress.bytes_placing.saturating_sub(len);
                            progress.segments_placed += 1;
                            progress.phase = Phase::Uploading;
                        });
                    }
                    Ok(tally)
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PortError::Disk(format!("cannot start a thread that places segments: {error}")))?;
        Ok(Self {
            sealer: Sealer::new(&keys),
            packer: Packer::new(plan.k),
            plan,
            meter,
            census,
            on_the_way: BTreeSet::new(),
            work: Some(work),
            cancelled,
            workers,
            nodes: Vec::new(),
            keys,
            volume,
        })
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// The keys by which all of this sync is sealed, whatever counts when it ends: the head alone decides who reads it.
    pub(crate) fn keys(&self) -> &VolumeKeys {
        &self.keys
    }

    /// Puts the nodes written so far into the local cache: the next sync compares with them.
    fn keep_nodes(&mut self) -> Result<(), PortError> {
        let nodes: Vec<(ExtentId, &[u8])> = self.nodes.iter().map(|(id, plain)| (*id, plain.as_slice())).collect();
        self.volume.db.put_nodes(&nodes)?;
        self.nodes.clear();
        Ok(())
    }

    fn dispatch(&mut self, packed: Packed) -> Result<(), PortError> {
        let len = packed.len() as u64;
        self.meter.update(|progress| progress.bytes_placing += len);
        let sent = self.work.as_ref().is_some_and(|work| work.send(packed).is_ok());
        if sent {
            return Ok(());
        }
        // A closed queue means that all workers have ended, each with an error.
        self.join()?;
        Err(PortError::Unreachable("placing has stopped".into()))
    }

    /// Waits for the workers, whose queue is closed; the first error of any.
    fn join(&mut self) -> Result<Tally, PortError> {
        self.work = None;
        let mut result = Ok(Tally::default());
        for worker in self.workers.drain(..) {
            let ended = worker.join().unwrap_or_else(|_| Err(PortError::Disk("a placing thread panicked".into())));
            result = match (result, ended) {
                (Ok(tally), Ok(more)) => Ok(tally.and(more)),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            };
        }
        result
    }

    /// Waits until everything that was put is acknowledged by its holders. The least of what the tally has counts the
    /// older segments, too, that some of it was found in.
    pub(crate) fn finish(mut self) -> Result<Tally, PortError> {
        let flushed = match self.packer.finish() {
            Some(packed) => self.dispatch(packed),
            None => Ok(()),
        };
        flushed?;
        let tally = self.join()?;
        self.keep_nodes()?;
        Ok(tally.and(self.census.relied()))
    }
}

/// A sync that failed leaves nothing running behind: the next one has other segments to place.
impl Drop for Writer {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.work = None;
        for worker in self.workers.drain(..) {
            // Why it failed is known already.
            let _ = worker.join();
        }
    }
}

impl Put for Writer {
    fn put_all(&mut self, kind: Kind, plains: &[&[u8]]) -> Result<Vec<ExtentRef>, PortError> {
        let prepared = self.sealer.prepare_all(kind, plains).map_err(damaged)?;
        let references: Vec<ExtentRef> = prepared.iter().map(|prepared| prepared.reference.clone()).collect();
        let ids: Vec<ExtentId> = references.iter().map(ExtentRef::id).collect();
        let stored = self.census.stored(&self.volume, &ids, Enough::Last)?;
        let mut new = Vec::new();
        for ((prepared, id), stored) in prepared.into_iter().zip(ids).zip(stored) {
            if !stored && self.on_the_way.insert(id) {
                new.push(prepared);
            }
        }
        for sealed in Prepared::seal_all(new).map_err(damaged)? {
            if let Some(packed) = self.packer.add(sealed).map_err(damaged)? {
                self.dispatch(packed)?;
            }
        }
        Ok(references)
    }
}

impl Writer {
    /// Places what was sealed for snapshots and waits since; the number of the last of it.
    pub(super) fn put_staged(&mut self) -> Result<u64, PortError> {
        let mut last = 0;
        loop {
            let some = self.volume.db.staged_iter(last, STAGED_AT_ONCE)?;
            let Some(newest) = some.last() else { return Ok(last) };
            last = newest.num;
            let ids: Vec<ExtentId> = some.iter().map(|staged| staged.id).collect();
            let stored = self.census.stored(&self.volume, &ids, Enough::Last)?;
            for (staged, stored) in some.into_iter().zip(stored) {
                if !stored && self.on_the_way.insert(staged.id) {
                    let packed = self.packer.add(stage::unfiled(staged.bytes)?).map_err(damaged)?;
                    packed.map_or(Ok(()), |packed| self.dispatch(packed))?;
                }
            }
        }
    }
}

impl Sink for Writer {
    type Error = PortError;

    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, PortError> {
        let reference = self.put_all(kind, &[plain])?.pop().ok_or_else(|| damaged("nothing was sealed"))?;
        if kind == Kind::Node {
            self.nodes.push((reference.id(), plain.to_vec()));
            if self.nodes.len() >= NODE_BATCH {
                self.keep_nodes()?;
            }
        }
        Ok(reference)
    }
}

impl Volume {
    /// Takes placed segments into the local index, durably.
    pub(crate) fn remember(&self, placed: &[Placed]) -> Result<(), PortError> {
        for Placed { id, number, placement, contents } in placed {
            let extents: Vec<(ExtentId, u32, u32)> = contents.iter().map(|at| (at.id, at.offset, at.len)).collect();
            let descriptor = hypernet_core::codec::encode(placement);
            let leases = Some(new_leases(*number, *id, placement, &descriptor));
            let new = NewSegment { id: *id, descriptor: &descriptor, extents: &extents, leases, is_foreign: false };
            self.db.add_segments(&[new])?;
            // A segment that was placed before, and again now, is with other peers than the cache says.
            self.placements.lock().put(*id, Arc::new(placement.clone()));
            self.lacking.placed(*id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::ShardId;
    use hypernet_core::limits::EXTENT_MAX;
    use hypernet_core::node::{CommandError, Outcome};
    use hypernet_core::segment::{Holder, Segment};
    use hypernet_core::time::UnixSeconds;

    use super::super::double::{self, Mesh};
    use super::*;

    fn placement(k: u8, n: u8, peers: &[u8]) -> Placement {
        let segment = Segment { k, shard_len: 4096, rows: vec![ShardId([0; 32]); usize::from(n)] };
        let holders =
            peers.iter().zip(0..).map(|(peer, row)| Holder { row, peer: PeerId([*peer; 32]), until: UnixSeconds(0) });
        Placement { segment, n, holders: holders.collect() }
    }

    #[test]
    fn the_weakest_segment_is_what_counts() {
        assert_eq!((Tally::default().n(), Tally::default().peers()), (0, 0));
        let some = [placement(2, 5, &[1, 2, 3, 4, 5]), placement(2, 4, &[1, 2, 3, 3]), placement(2, 6, &[1; 6])];
        let all = some.iter().map(Tally::of).fold(Tally::default(), Tally::and);
        assert_eq!((all.segments, all.bytes, all.peers()), (3, 15 * 4096, 1));
        assert_eq!((all.n(), all.k(), all.spare()), (4, 2, 2));
        assert_eq!(all.and(Tally::default()), all);
        // More rows are weaker where it takes more of them.
        let all = all.and(Tally::of(&placement(5, 6, &[1, 2, 3, 4, 5, 6])));
        assert_eq!((all.n(), all.k(), all.spare()), (6, 5, 1));
    }

    #[test]
    fn a_sync_that_fails_leaves_nothing_running_and_begins_nothing_more() {
        let mesh = Mesh::new(10);
        let dir = tempfile::tempdir().unwrap();
        let (node, waiting) = mesh.held();
        let volume = double::volume(node, dir.path(), 7);
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let threads = writer.workers.len();
        // A segment for each thread, and one that waits for a thread.
        let mut noise = blake3::Hasher::new().finalize_xof();
        let full = full_shard_len(writer.plan().k) * usize::from(writer.plan().k);
        for _ in 0..(threads + 1) * full / EXTENT_MAX + 2 {
            let mut plain = vec![0; EXTENT_MAX];
            noise.fill(&mut plain);
            writer.put(Kind::Content, &plain).unwrap();
        }
        let begun: Vec<_> = (0..threads).map(|_| waiting.recv().unwrap()).collect();
        let cancelled = writer.cancelled.clone();
        let dropping = std::thread::spawn(move || drop(writer));
        while !cancelled.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // Each would be planned anew.
        for done in begun {
            let _ = done.send(Outcome::Failed(CommandError::Busy));
        }
        dropping.join().unwrap();
        assert!(waiting.try_recv().is_err(), "more was begun");
        assert_eq!(Arc::strong_count(&volume), 1, "a thread goes on");
    }

    #[test]
    fn a_segment_is_there_while_k_of_its_holders_are() {
        let connected = [1, 2, 9].map(|peer| PeerId([peer; 32])).into();
        assert!(is_readable(&placement(2, 4, &[1, 2, 3, 4]), &connected));
        assert!(!is_readable(&placement(3, 4, &[1, 2, 3, 4]), &connected));
        assert!(!is_readable(&placement(1, 2, &[3, 4]), &connected));
    }
}

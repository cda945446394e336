//! What is asked of the peers of a mesh: a plan for what they take, and that they take it; what they keep under a key, and
//! that they keep something there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hypernet_core::head::MANIFEST_ROWS_MAX;
use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::key::VolumeKeys;
use hypernet_core::lease::{LeaseNumber, LeaseSecret};
use hypernet_core::limits::RECORD_KEEPERS_MAX;
use hypernet_core::node::{Command, CommandError, NoPlan, Node, Outcome, PeerView};
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::seal::{ExtentRef, Kind, Sealer};
use hypernet_core::segment::{Packed, Packer, Placement};
use hypernet_core::time::UnixSeconds;
use parking_lot::Mutex;

use crate::driver::{NodeHandle, outcome};
use crate::volume::progress::{Meter, Phase};
use crate::volume::read::failed;
use crate::volume::write::{Placed, unix_now};
use crate::volume::{LEASE_SECONDS, READ_WITHIN, damaged};

/// Donors count as settled when none has come or gone for this long,
const SETTLED: Duration = Duration::from_millis(1500);
/// or when this much time has been given to it.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// Times a segment is planned anew when too few peers take it, before the sync gives up for now.
const REPLANS: u32 = 3;
/// Peers that have gone are waited for with one segment, for [`NodeHandle::patience`], and not again with the next ones for this
/// long.
const WAIT_AGAIN: Duration = Duration::from_secs(60);

/// Records that are on their way to their keepers at the same time.
const PUBLISHED_AT_ONCE: usize = 16;

/// The records that a look-up found, the one that counts first, and how many other peers have answered.
fn answer_of(outcome: Outcome) -> Result<(Vec<Record>, usize), PortError> {
    match outcome {
        Outcome::Found { record, others, answers } => Ok((record.into_iter().chain(others).collect(), answers)),
        Outcome::Failed(error) => Err(PortError::Unreachable(error.to_string())),
        other => Err(damaged(format!("unexpected outcome {other:?}"))),
    }
}

/// Whether a record is kept by enough.
fn is_published(outcome: Outcome, wanted: usize, what: &str) -> Result<(), PortError> {
    match outcome {
        Outcome::Published { stored } if stored >= wanted => Ok(()),
        Outcome::Published { stored } => Err(PortError::Unreachable(format!(
            "{what} is kept by {stored} peers where {wanted} are needed to outlive the loss of {}",
            wanted.saturating_sub(1)
        ))),
        Outcome::Failed(error) => Err(PortError::Unreachable(error.to_string())),
        other => Err(damaged(format!("unexpected outcome {other:?}"))),
    }
}

/// The plan for the peers that are there now, for what was meant for others: never for more rows.
fn replan(meant: Plan, now: Plan) -> Plan {
    if now.n < meant.n { now } else { meant }
}

/// Gives a number for a placement, and the secret of its leases.
pub(crate) type Draw<'a> = &'a (dyn Fn() -> Result<(LeaseNumber, LeaseSecret), PortError> + Sync);

/// The peers that this agent knows.
pub(crate) struct Peers {
    node: NodeHandle,
    /// When a segment last waited for peers that did not come back.
    waited: Mutex<Option<Instant>>,
}

impl Peers {
    pub(crate) fn new(node: NodeHandle) -> Self {
        Self { node, waited: Mutex::new(None) }
    }

    /// The peer that this agent is.
    pub(crate) fn me(&self) -> Result<PeerId, PortError> {
        let me = self.node.ask_blocking(Node::me);
        me.ok_or_else(|| PortError::Unreachable("the agent is stopping".into()))
    }

    /// Peers that a connection is up to.
    pub(crate) fn connected(&self) -> Result<BTreeSet<PeerId>, PortError> {
        Ok(self.views()?.into_iter().filter(|view| view.connected).map(|view| view.peer).collect())
    }

    /// The peer that this agent is, if it stops storing for others.
    pub(crate) fn leaving_here(&self) -> Option<PeerId> {
        self.node.ask_blocking(|node| node.is_leaving().then(|| node.me())).flatten()
    }

    /// What is known of all peers.
    pub(crate) fn views(&self) -> Result<Vec<PeerView>, PortError> {
        let views = self.node.ask_blocking(Node::peers);
        views.ok_or_else(|| PortError::Unreachable("the agent is stopping".into()))
    }

    /// The plan for the donors that are there, or why there is none.
    pub(crate) fn plan(&self) -> Result<Plan, PortError> {
        self.plan_by(Node::plan)
    }

    fn plan_by(&self, how: fn(&Node) -> Result<Plan, NoPlan>) -> Result<Plan, PortError> {
        let plan = || {
            let plan = self.node.ask_blocking(how);
            plan.ok_or_else(|| PortError::Unreachable("the agent is stopping".into()))
        };
        let plan = match plan()? {
            Err(NoPlan::Full { .. }) => {
                // Space may have been freed since they last said what they have.
                self.node.run_blocking(Command::AskRoom);
                plan()?
            }
            plan => plan,
        };
        plan.map_err(|why| PortError::Unreachable(why.to_string()))
    }

    /// [`Self::plan`], once donors have stopped coming in: right after the start a plan would use the first few only.
    pub(crate) fn settled_plan(&self) -> Result<Plan, PortError> {
        self.settle();
        self.plan()
    }

    /// Returns when donors have stopped coming in, or after [`SETTLE_MAX`].
    pub(crate) fn settle(&self) {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let settled = self.node.ask_blocking(Node::settled_for).unwrap_or(u64::MAX);
            let settled = Duration::from_millis(settled);
            let left = deadline.saturating_duration_since(Instant::now());
            if settled >= SETTLED || left.is_zero() {
                return;
            }
            std::thread::sleep((SETTLED - settled).min(left));
        }
    }

    /// Codes and places one segment; plans anew while peers come and go, never for more rows than it was meant to have.
    /// It becomes several where the rows of one would be too long for the peers that are left.
    pub(crate) fn place(
        &self,
        (keys, draw): (&VolumeKeys, Draw<'_>),
        packed: &Packed,
        plan: Plan,
        meter: &Meter,
    ) -> Result<Vec<Placed>, PortError> {
        self.place_unless((keys, draw), packed, plan, meter, &AtomicBool::new(false))
    }

    /// As [`Self::place`], until `cancelled` says that nobody wants it any more. What is on its way then ends by itself.
    pub(crate) fn place_unless(
        &self,
        (keys, draw): (&VolumeKeys, Draw<'_>),
        packed: &Packed,
        meant: Plan,
        meter: &Meter,
        cancelled: &AtomicBool,
    ) -> Result<Vec<Placed>, PortError> {
        let padding = keys.padding();
        let waited = self.waited.lock().is_some_and(|when| when.elapsed() < WAIT_AGAIN);
        let mut plan = meant;
        // Who is not there is waited for, once; who is there and full is not.
        if (waited || self.node.ask_blocking(Node::donors).is_some_and(|donors| donors >= usize::from(meant.n)))
            && let Ok(now) = self.plan()
        {
            plan = replan(meant, now);
        }
        let mut last = None;
        for _ in 0..=REPLANS {
            if cancelled.load(Ordering::Relaxed) {
                return Err(PortError::Unreachable("the sync that this was for has failed".into()));
            }
            let room = self.node.ask_blocking(move |node| node.shard_room(plan.n)).flatten();
            if !packed.fits(plan.k, room.unwrap_or(u64::MAX))
                && let Some((left, right)) = packed.split()
            {
                let mut placed = self.place_unless((keys, draw), &left, plan, meter, cancelled)?;
                placed.extend(self.place_unless((keys, draw), &right, plan, meter, cancelled)?);
                return Ok(placed);
            }
            let coded = Arc::new(packed.code(plan.k, plan.n, plan.committed, &padding).map_err(damaged)?);
            let (id, contents) = (coded.segment.id(), coded.contents.clone());
            let until = UnixSeconds(unix_now() + LEASE_SECONDS);
            // What of an attempt was placed that failed, the node gives up.
            let (number, leases) = draw()?;
            let command = Command::Upload { coded, leases, until, patience: self.node.patience() };
            match self.node.run_blocking(command) {
                Outcome::Uploaded(placement) => return Ok(vec![Placed { id, number, placement, contents }]),
                Outcome::Failed(error @ (CommandError::NotPlaced { .. } | CommandError::Busy)) => {
                    meter.update(|progress| progress.phase = Phase::Waiting(error.to_string()));
                    last = Some(error);
                }
                Outcome::Failed(error) => return Err(PortError::Unreachable(error.to_string())),
                other => return Err(PortError::Damaged(format!("unexpected outcome {other:?}"))),
            }
            let before = plan;
            plan = replan(meant, self.plan_by(Node::cautious_plan)?);
            if plan.n < before.n {
                *self.waited.lock() = Some(Instant::now());
                let Plan { k, n, .. } = plan;
                tracing::warn!(n, k, planned = meant.n, "fewer peers take shards than planned: a segment gets fewer");
            }
        }
        Err(PortError::Unreachable(last.map_or_else(|| "no peer takes shards".into(), |error| error.to_string())))
    }

    /// One extent in a segment of its own, in no more rows than a record has room for beside what names it.
    pub(crate) fn place_alone(
        &self,
        (keys, draw): (&VolumeKeys, Draw<'_>),
        kind: Kind,
        plain: &[u8],
        plan: Plan,
        meter: &Meter,
    ) -> Result<(ExtentRef, Placed), PortError> {
        let sealed = Sealer::new(keys).seal(kind, plain).map_err(damaged)?;
        let extent = sealed.reference.clone();
        let plan = plan.within(MANIFEST_ROWS_MAX);
        let mut packer = Packer::new(plan.k);
        packer.add(sealed).map_err(damaged)?;
        let packed = packer.finish().ok_or_else(|| damaged("an extent was packed nowhere"))?;
        let placed = self.place((keys, draw), &packed, plan, meter)?.pop();
        Ok((extent, placed.ok_or_else(|| damaged("an extent was placed nowhere"))?))
    }

    /// Asks for several records at once; one answer for each.
    pub(crate) fn lookup_all(&self, keys: &[RecordKey]) -> Result<Vec<Option<Record>>, PortError> {
        Ok(self.lookup_lasts(keys)?.into_iter().map(|found| found.into_iter().next()).collect())
    }

    /// The same with all last records that differ: nothing replaces any of them, and whoever has the key of a signer can sign
    /// more of them at any time.
    pub(crate) fn lookup_lasts(&self, keys: &[RecordKey]) -> Result<Vec<Vec<Record>>, PortError> {
        Ok(self.ask_all(keys)?.into_iter().map(|(found, _)| found).collect())
    }

    /// As [`Self::lookup_all`], for who takes it for an answer that nothing was found: an error where fewer than `wanted`
    /// other peers have said so, for what is found then is what this node itself has.
    pub(crate) fn lookup_heard(
        &self,
        keys: &[RecordKey],
        wanted: usize,
        what: &str,
    ) -> Result<Vec<Option<Record>>, PortError> {
        let wanted = wanted.clamp(1, RECORD_KEEPERS_MAX);
        let found = self.ask_all(keys)?;
        match found.iter().map(|(_, answers)| *answers).min() {
            Some(answers) if answers < wanted => Err(PortError::Unreachable(format!(
                "asked {what}, {answers} peers have answered where {wanted} are needed"
            ))),
            _ => Ok(found.into_iter().map(|(found, _)| found.into_iter().next()).collect()),
        }
    }

    fn ask_all(&self, keys: &[RecordKey]) -> Result<Vec<(Vec<Record>, usize)>, PortError> {
        let asked: Vec<_> = keys.iter().map(|key| self.node.start(Command::Lookup(*key))).collect();
        asked.into_iter().map(|asked| answer_of(outcome(asked))).collect()
    }

    pub(crate) fn lookup(&self, key: RecordKey) -> Result<Option<Record>, PortError> {
        Ok(answer_of(self.node.run_blocking(Command::Lookup(key)))?.0.into_iter().next())
    }

    /// As [`Self::lookup`], twice, and once peers have stopped coming in: the first answer after a start may be that of
    /// the few who are there already, and they may have missed the newest record. The node keeps the newer of both.
    pub(crate) fn look_well(&self, key: RecordKey) -> Result<Option<Record>, PortError> {
        self.settle();
        self.lookup(key)?;
        self.lookup(key)
    }

    /// Publishes a record; an error unless `wanted` other peers have it on stable storage.
    pub(crate) fn publish(&self, record: Record, wanted: usize, what: &str) -> Result<(), PortError> {
        let mut published = self.publish_all(vec![record], wanted, what);
        published.pop().unwrap_or_else(|| Err(damaged("a record was published nowhere")))
    }

    /// The same of several, some of them at once; one answer for each.
    pub(crate) fn publish_all(&self, records: Vec<Record>, wanted: usize, what: &str) -> Vec<Result<(), PortError>> {
        // It is handed to no more; where segments survive more losses than that, so must one of these.
        let wanted = wanted.min(RECORD_KEEPERS_MAX);
        let mut published = Vec::with_capacity(records.len());
        for records in records.chunks(PUBLISHED_AT_ONCE) {
            let publish = |record: &Record| Command::Publish { record: record.clone(), enough: wanted };
            let under_way: Vec<_> = records.iter().map(|record| self.node.start(publish(record))).collect();
            published.extend(under_way.into_iter().map(|one| is_published(outcome(one), wanted, what)));
        }
        published
    }

    /// Peers that must keep a record, so that it outlives as many losses as a segment does.
    pub(crate) fn keepers(&self) -> usize {
        // Without a plan nothing can be stored, but what is there can be recovered and read.
        self.plan().map_or(1, |plan| usize::from(plan.n - plan.k) + 1)
    }

    /// Whether so many shards of a segment are with holders that are there, and say that they have them.
    pub(crate) fn holds(&self, placement: &Placement, rows: u8, within: u64) -> Result<bool, PortError> {
        let connected = self.connected()?;
        let mut asked = placement.clone();
        asked.holders.retain(|holder| connected.contains(&holder.peer));
        if asked.holders.len() < usize::from(rows) {
            return Ok(false);
        }
        match self.node.run_blocking(Command::Probe { placement: asked.into(), within }) {
            Outcome::Probed { held, .. } => Ok(held.len() >= usize::from(rows)),
            Outcome::Failed(error) => Err(failed(error)),
            other => Err(damaged(format!("unexpected outcome {other:?}"))),
        }
    }

    /// One extent at a known place: how the manifest is read, before there is an index.
    pub(crate) fn fetch_at(
        &self,
        placement: Arc<Placement>,
        wanted: Vec<(ExtentRef, u32)>,
    ) -> Result<Vec<Bytes>, PortError> {
        self.fetch_within(placement, wanted, Duration::from_millis(READ_WITHIN))
    }

    /// The same, of who does not wait for so long.
    pub(crate) fn fetch_within(
        &self,
        placement: Arc<Placement>,
        wanted: Vec<(ExtentRef, u32)>,
        within: Duration,
    ) -> Result<Vec<Bytes>, PortError> {
        let within = u64::try_from(within.as_millis()).unwrap_or(READ_WITHIN).max(1);
        match self.node.run_blocking(Command::Fetch { placement, wanted, around: 0, within }) {
            Outcome::Fetched { plain, .. } => Ok(plain),
            Outcome::Failed(error) => Err(failed(error)),
            other => Err(PortError::Damaged(format!("unexpected outcome {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::limits::EXTENT_MAX;

    use super::*;
    use crate::volume::Volume;
    use crate::volume::double::Mesh;

    /// What [`Peers::place_unless`] makes of it.
    fn fitting(packed: &Packed, k: u8) -> Vec<Packed> {
        if packed.fits(k, u64::MAX) {
            return vec![packed.clone()];
        }
        let (left, right) = packed.split().unwrap();
        [left, right].iter().flat_map(|half| fitting(half, k)).collect()
    }

    #[test]
    fn a_segment_is_cut_anew_when_there_are_fewer_peers_than_it_was_packed_for() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Mesh::new(0).volume(dir.path(), 7).keys();
        let sealer = Sealer::new(&keys);
        let pack = |extents: u8| {
            let mut packer = Packer::new(6);
            for number in 0..extents {
                let mut plain = vec![0; EXTENT_MAX];
                blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut plain);
                assert!(packer.add(sealer.seal(Kind::Content, &plain).unwrap()).unwrap().is_none());
            }
            packer.finish().unwrap()
        };
        let plan = |peers| hypernet_core::placement::plan(peers, 0.95).unwrap();
        let (small, full) = (pack(8), pack(36));
        let meant = plan(10);
        for peers in 2..=10 {
            for packed in [&small, &full] {
                let now = replan(meant, plan(peers));
                assert_eq!((now.k, now.n), (plan(peers).k, peers as u8));
                let parts = fitting(packed, now.k);
                // All of a full segment does not fit in two rows.
                assert_eq!(parts.len() > 1, std::ptr::eq(packed, &full) && now.k < 3, "{now:?}");
                let mut extents = 0;
                for part in parts {
                    let coded = part.code(now.k, now.n, now.committed, &keys.padding()).unwrap();
                    assert_eq!(coded.shards.len(), usize::from(now.n));
                    extents += coded.contents.len();
                }
                assert_eq!(extents, if std::ptr::eq(packed, &full) { 36 } else { 8 });
            }
        }
    }

    #[test]
    fn without_room_it_is_said_that_donors_are_full_and_space_that_was_freed_is_found_at_once() {
        let mesh = Mesh::new(0);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        let why = |volume: &Volume| volume.peers.plan().unwrap_err().to_string();
        assert!(why(&volume).contains("fewer than two peers that donate space are connected"), "{}", why(&volume));
        mesh.set_free(3 << 10);
        mesh.connect([1, 2, 3].map(|peer| PeerId([peer; 32])));
        let full = why(&volume);
        assert!(full.contains("the 3 connected peers that donate space are full"), "{full}");
        assert!(full.contains("0 of them") && full.contains("all of them together have 9 KiB left"), "{full}");
        mesh.set_free(1 << 40);
        assert!(volume.peers.plan().is_ok(), "{}", why(&volume));
    }
}

//! Having every holder prove that it has what it acknowledged, all of it again and again, evenly.
//!
//! A round goes over the segments of all volumes by their numbers, as far as its time has gone, so that what a device knows is
//! nowhere but in where it stands. Who is away when its turn comes is asked when it is there again. What is found out goes to
//! [`Lacking`](super::lacking::Lacking), and outlives a restart: a status that is green because the agent was started anew would be a lie.
//!
//! Invariant: a round takes [`ROUND`], half of the time in which every shard is to be audited; and no more than a bounded number of
//! segments is asked for in a minute, whatever has been missed (docs/design/0015-audits.md has the figures).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::audit::Seed;
use hypernet_core::codec;
use hypernet_core::id::{PeerId, SegmentId, VolumeId};
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_core::time::UnixSeconds;
use hypernet_store::volume::VolumeDb;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;

use super::lacking::At;
use super::tended::Tending;
use crate::driver::outcome;

/// How long a round takes, in seconds.
pub(crate) const ROUND: u64 = 7 * 86_400;
/// Of a round that is late as many segments are asked for at a time as this, or twice as many as in one that is not, if that is more.
const CATCH_UP: u64 = 32;
/// Segments asked for at the same time. Of each a peer has one shard, and it proves no more than
/// [`AUDITS_PER_PEER`](hypernet_core::limits::AUDITS_PER_PEER) at once.
const AT_ONCE: u32 = 4;
/// Milliseconds in which the holders of a segment must have answered.
const WITHIN: u64 = 20_000;
/// Whoever is there and does not answer is asked again after so many seconds.
const SILENT_FOR: u64 = 3_600;
/// Stretches that peers have missed, and peers with faults, of which one knows at most.
const KNOWN_MAX: usize = 4_096;
/// The number after those of all segments: that of what a catalog lies in.
const CATALOG: u64 = u64::MAX;
/// What the state of a device is filed by.
const AUDIT: &str = "audit";

/// Shards by what their holders have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Shown {
    /// Proven.
    #[n(0)]
    pub(crate) passed: u64,
    /// Something else came than a proof.
    #[n(1)]
    pub(crate) lied: u64,
    /// Spoiled, as their holder says,
    #[n(2)]
    pub(crate) damaged: u64,
    /// or gone.
    #[n(3)]
    pub(crate) missing: u64,
    /// Their holder was not there, or did not answer.
    #[n(4)]
    pub(crate) unasked: u64,
}

impl Shown {
    /// Those that are not there, as far as their holders have answered.
    pub(crate) fn failed(&self) -> u64 {
        self.lied + self.damaged + self.missing
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.lied += other.lied;
        self.damaged += other.damaged;
        self.missing += other.missing;
        self.unasked += other.unasked;
    }
}

/// A peer that has failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Failing {
    #[n(0)]
    pub(crate) peer: PeerId,
    #[n(1)]
    pub(crate) shown: Shown,
}

/// Segments of a volume that a peer was not asked for when their turn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Missed {
    #[n(0)]
    peer: PeerId,
    #[n(1)]
    volume: VolumeId,
    /// Those with later numbers than this,
    #[n(2)]
    after: u64,
    /// up to this one.
    #[n(3)]
    to: u64,
    /// Not before then.
    #[n(4)]
    at: UnixSeconds,
}

/// A round that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Ended {
    #[n(0)]
    pub(crate) at: UnixSeconds,
    #[n(1)]
    pub(crate) shown: Shown,
    #[n(2)]
    pub(crate) failing: Vec<Failing>,
}

/// When holders of a volume have answered what they were to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Answered {
    #[n(0)]
    pub(crate) volume: VolumeId,
    /// For the first time,
    #[n(1)]
    pub(crate) first: UnixSeconds,
    /// and for the last.
    #[n(2)]
    pub(crate) last: UnixSeconds,
}

/// Holders of a segment that are known to have nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Gone {
    #[n(0)]
    pub(crate) segment: SegmentId,
    /// As they say.
    #[n(1)]
    pub(crate) said: Vec<At>,
    /// Whatever these say.
    #[n(2)]
    pub(crate) unproven: Vec<At>,
}

/// Where the audits of a device stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Round {
    #[n(0)]
    began: UnixSeconds,
    /// How many volumes are done,
    #[n(1)]
    volumes: u32,
    /// and which segment of the next one was the last.
    #[n(2)]
    after: u64,
    #[n(3)]
    pub(crate) shown: Shown,
    #[n(4)]
    pub(crate) failing: Vec<Failing>,
    #[n(5)]
    missed: Vec<Missed>,
    #[n(6)]
    pub(crate) last: Option<Ended>,
    #[n(7)]
    gone: Vec<Gone>,
    #[n(8)]
    answered: Vec<Answered>,
}
hypernet_core::format!(Round, tag = 0x5f, version = 2, max = 8 << 20, name = "round of audits");

impl Round {
    /// What a peer has shown in this round and the last one.
    pub(crate) fn failing_of(&self, peer: &PeerId) -> Shown {
        let all = self.failing.iter().chain(self.last.iter().flat_map(|last| &last.failing));
        let mut sum = Shown::default();
        all.filter(|failing| failing.peer == *peer).for_each(|failing| sum.add(&failing.shown));
        sum
    }

    /// When holders of a volume have answered, if any ever has.
    pub(crate) fn answered(&self, volume: &VolumeId) -> Option<Answered> {
        self.answered.iter().find(|answered| answered.volume == *volume).copied()
    }

    /// How many peers were not there, or did not answer, when something of a volume was to be proven, and were not asked since.
    pub(crate) fn unanswered(&self, volume: &VolumeId) -> u64 {
        self.missed.iter().filter(|missed| missed.volume == *volume).count() as u64
    }

    fn answer(&mut self, volume: VolumeId, now: UnixSeconds) {
        let known = self.answered.len();
        match self.answered.iter_mut().find(|answered| answered.volume == volume) {
            Some(answered) => answered.last = now,
            None if known < KNOWN_MAX => self.answered.push(Answered { volume, first: now, last: now }),
            None => {}
        }
    }

    fn note(&mut self, peer: PeerId, shown: Shown) {
        self.shown.add(&shown);
        if shown.failed() == 0 {
            return;
        }
        let known = self.failing.len();
        match self.failing.iter_mut().find(|failing| failing.peer == peer) {
            Some(failing) => failing.shown.add(&shown),
            None if known < KNOWN_MAX => self.failing.push(Failing { peer, shown }),
            None => {}
        }
    }

    fn miss(&mut self, peer: PeerId, volume: VolumeId, num: u64, at: UnixSeconds) {
        let before = num.saturating_sub(1);
        let known = self.missed.len();
        match self.missed.iter_mut().find(|missed| missed.peer == peer && missed.volume == volume) {
            Some(missed) => {
                (missed.after, missed.to) = (missed.after.min(before), missed.to.max(num));
                missed.at = missed.at.max(at);
            }
            None if known < KNOWN_MAX => {
                self.missed.push(Missed { peer, volume, after: before, to: num, at });
            }
            None => {}
        }
    }
}

/// Segments with numbers one after another.
struct Page {
    all: Vec<(u64, Arc<Placement>)>,
    /// The last number, also where what was filed under it cannot be read.
    last: u64,
}

/// Audits all that this device knows, a little at a time.
pub(crate) struct Auditor {
    of: Arc<dyn Tending>,
    /// In seconds.
    round: u64,
    state: Mutex<Round>,
    /// How often what is gone had changed when it was last filed.
    filed: Mutex<u64>,
}

impl Auditor {
    /// Goes on where it stood. `of`: the main volume, or a ward; `round`: how long one takes, in seconds.
    pub(crate) fn open(of: Arc<dyn Tending>, round: u64) -> Result<Self, PortError> {
        let tended = of.tended();
        let state = match tended.db.get_state(AUDIT)?.map(|bytes| codec::decode::<Round>(&bytes)) {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                // Only a round is lost, which is begun anew.
                tracing::warn!(%error, "where the audits stood cannot be read");
                Round::default()
            }
            None => Round::default(),
        };
        tended.lacking.restore(&state.gone);
        let filed = Mutex::new(tended.lacking.changes());
        Ok(Self { of, round: round.max(1), state: Mutex::new(state), filed })
    }

    /// Where they stand.
    pub(crate) fn view(&self) -> Round {
        self.state.lock().clone()
    }

    /// Does what is due at `now`, when it was last looked `every` seconds ago. Blocks.
    pub(crate) fn tend(&self, now: UnixSeconds, every: u64) -> Result<(), PortError> {
        let before = self.view();
        let mut round = before.clone();
        let tended = self.advance(&mut round, now, every).and_then(|()| self.catch_up(&mut round, now));
        let changes = self.of.tended().lacking.changes();
        let is_news = std::mem::replace(&mut *self.filed.lock(), changes) != changes;
        if is_news {
            round.gone = self.of.tended().lacking.all();
        }
        if round != before {
            *self.state.lock() = round.clone();
            self.of.tended().db.put_state(AUDIT, &codec::encode(&round))?;
        }
        tended
    }

    /// Asks for the segments whose turn has come.
    fn advance(&self, round: &mut Round, now: UnixSeconds, every: u64) -> Result<(), PortError> {
        if round.began.0 == 0 || round.began > now {
            // The first one, or the clock was wrong.
            round.began = now;
        }
        let volumes = self.of.tended().db.volumes()?;
        let catalogs =
            volumes.iter().map(|id| Ok(self.of.tended().db.of(*id)?)).collect::<Result<Vec<_>, PortError>>()?;
        let ends = catalogs.iter().map(|db| Ok(db.next_segment()?)).collect::<Result<Vec<u64>, PortError>>()?;
        let all: u64 = ends.iter().sum();
        let passed = now.0.saturating_sub(round.began.0).min(self.round);
        let due = (u128::from(all) * u128::from(passed)).div_ceil(u128::from(self.round)) as u64;
        let evenly = (u128::from(all) * u128::from(every)).div_ceil(u128::from(self.round)) as u64;
        let mut left = CATCH_UP.max(2 * evenly);
        while let Some((id, db)) = volumes.get(round.volumes as usize).zip(catalogs.get(round.volumes as usize)) {
            if round.after == CATALOG {
                (round.volumes, round.after) = (round.volumes + 1, 0);
                continue;
            }
            let done: u64 = ends[..round.volumes as usize].iter().sum::<u64>().saturating_add(round.after);
            let is_over = passed == self.round;
            if left == 0 || (done >= due && !is_over) {
                return Ok(());
            }
            let page = self.page(db, round.after)?;
            self.audit(round, *id, &page.all, now, None)?;
            round.after = page.last;
            left = left.saturating_sub(page.all.len().max(1) as u64);
        }
        if passed == self.round {
            let failing = std::mem::take(&mut round.failing);
            round.last = Some(Ended { at: now, shown: std::mem::take(&mut round.shown), failing });
            // The next one begins when this one was to end, unless that is long ago.
            let began = round.began.0.saturating_add(self.round);
            round.began = UnixSeconds(if now.0 - began < self.round { began } else { now.0 });
            (round.volumes, round.after) = (0, 0);
        }
        Ok(())
    }

    /// Asks those that are there again for what they have missed, those first whose turn was first.
    fn catch_up(&self, round: &mut Round, now: UnixSeconds) -> Result<(), PortError> {
        let mut left = CATCH_UP;
        let connected = self.of.tended().peers.connected()?;
        let is_due = |missed: &&Missed| missed.at <= now && connected.contains(&missed.peer);
        while left > 0
            && let Some(first) =
                round.missed.iter().filter(is_due).min_by_key(|missed| (missed.volume, missed.after)).copied()
        {
            let page = self.page(&self.of.tended().db.of(first.volume)?, first.after)?;
            let due = |missed: &Missed| is_due(&missed) && missed.volume == first.volume && missed.after == first.after;
            let peers: BTreeSet<PeerId> =
                round.missed.iter().filter(|missed| due(missed)).map(|missed| missed.peer).collect();
            // What is missed again is noted again.
            let to: BTreeMap<PeerId, u64> =
                round.missed.iter().filter(|missed| due(missed)).map(|missed| (missed.peer, missed.to)).collect();
            round.missed.retain_mut(|missed| {
                if !due(missed) {
                    return true;
                }
                missed.after = page.last;
                page.last < missed.to
            });
            let of = |(num, _): &&(u64, Arc<Placement>)| to.values().any(|to| num <= to);
            let all: Vec<(u64, Arc<Placement>)> = page.all.iter().filter(of).cloned().collect();
            self.audit(round, first.volume, &all, now, Some(&peers))?;
            left = left.saturating_sub(page.all.len().max(1) as u64);
        }
        Ok(())
    }

    /// The segments after this one; behind the last one those of the catalog.
    fn page(&self, db: &VolumeDb, after: u64) -> Result<Page, PortError> {
        if after == CATALOG {
            return Ok(Page { all: Vec::new(), last: CATALOG });
        }
        let rows = db.own_segments_iter(after.min(i64::MAX as u64), AT_ONCE)?;
        let Some(last) = rows.last().map(|row| row.num) else {
            return Ok(Page { all: self.catalog(db)?, last: CATALOG });
        };
        let read = |row: &hypernet_store::volume::SegmentRow| match codec::decode::<Placement>(&row.descriptor) {
            Ok(placement) => Some((row.num, Arc::new(placement))),
            Err(error) => {
                tracing::error!(%error, "a row of the local index is damaged");
                None
            }
        };
        Ok(Page { all: rows.iter().filter_map(read).collect(), last })
    }

    /// What the catalog lies in, as far as its listings are here.
    fn catalog(&self, db: &VolumeDb) -> Result<Vec<(u64, Arc<Placement>)>, PortError> {
        let all = self.of.catalog_segments(db)?;
        Ok(all.into_iter().map(|placement| (CATALOG, Arc::new(placement))).collect())
    }

    /// Has the holders of these segments prove their shards: those of `peers`, or all.
    fn audit(
        &self,
        round: &mut Round,
        volume: VolumeId,
        all: &[(u64, Arc<Placement>)],
        now: UnixSeconds,
        peers: Option<&BTreeSet<PeerId>>,
    ) -> Result<(), PortError> {
        for some in all.chunks(AT_ONCE as usize) {
            let connected = self.of.tended().peers.connected()?;
            let mut started = Vec::new();
            for (num, placement) in some {
                let mut rows = Vec::new();
                for holder in placement.holders.iter().filter(|holder| peers.is_none_or(|of| of.contains(&holder.peer)))
                {
                    if connected.contains(&holder.peer) {
                        rows.push(holder.row);
                    } else {
                        if peers.is_none() {
                            round.shown.unasked += 1;
                        }
                        round.miss(holder.peer, volume, *num, UnixSeconds(0));
                    }
                }
                let seed = seed()?;
                let command = Command::Audit { placement: placement.clone(), rows, seed, within: WITHIN };
                started.push((*num, placement, self.of.tended().node.start(command)));
            }
            for (num, placement, started) in started {
                match outcome(started) {
                    Outcome::Audited { passed, lied, damaged, missing, unreachable } => {
                        let found = Found { passed, lied, damaged, missing, unreachable };
                        self.found(round, volume, num, placement, &found, now, peers.is_some());
                    }
                    Outcome::Failed(error) => return Err(PortError::Unreachable(error.to_string())),
                    other => return Err(super::damaged(format!("unexpected outcome {other:?}"))),
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of one audit")]
    fn found(
        &self,
        round: &mut Round,
        volume: VolumeId,
        num: u64,
        placement: &Placement,
        found: &Found,
        now: UnixSeconds,
        is_again: bool,
    ) {
        let id = placement.segment.id();
        for holder in &placement.holders {
            let shown = found.of(holder.row);
            if shown.unasked > 0 {
                round.miss(holder.peer, volume, num, UnixSeconds(now.0.saturating_add(SILENT_FOR)));
            }
            if is_again && shown != Shown::default() && shown.unasked == 0 {
                // It was counted among those that were not asked when its turn came, if that was in this round.
                round.shown.unasked = round.shown.unasked.saturating_sub(1);
            }
            if !is_again || shown.unasked == 0 {
                round.note(holder.peer, shown);
            }
            if shown.passed + shown.failed() > 0 {
                round.answer(volume, now);
            }
            if shown.failed() > 0 {
                let (peer, row) = (crate::status::peer_name(&holder.peer), holder.row);
                tracing::warn!(segment = %id.short(), row, peer, ?shown, "an audit has found a shard to be gone");
            }
        }
        let missing = [&found.damaged[..], &found.missing].concat();
        if self.of.tended().lacking.audited(id, placement, (&found.passed, &missing, &found.lied)) {
            self.of.is_told();
        }
    }
}

/// Rows by what their holders have shown.
struct Found {
    passed: Vec<u8>,
    lied: Vec<u8>,
    damaged: Vec<u8>,
    missing: Vec<u8>,
    unreachable: Vec<u8>,
}

impl Found {
    /// The one of this row; none of those that were not asked for.
    fn of(&self, row: u8) -> Shown {
        let is_of = |rows: &[u8]| u64::from(rows.contains(&row));
        Shown {
            passed: is_of(&self.passed),
            lied: is_of(&self.lied),
            damaged: is_of(&self.damaged),
            missing: is_of(&self.missing),
            unasked: is_of(&self.unreachable),
        }
    }
}

pub(crate) fn seed() -> Result<Seed, PortError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| PortError::Disk(format!("the system has no randomness: {error}")))?;
    Ok(seed)
}

#[cfg(test)]
mod tests;

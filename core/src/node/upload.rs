//! Placing a segment: every row on a peer of its own, acknowledged by that peer as durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::peers::{Fault, Peers};
use super::{CommandError, CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::id::{PeerId, SegmentId, ShardId};
use crate::lease::LeaseSecret;
use crate::limits::ROWS_MAX;
use crate::placement::{self, Wanted};
use crate::segment::{Coded, Holder, Placement};
use crate::time::{Instant, UnixSeconds};
use crate::wire::{Refusal, Request, Response};

/// How often waiting rows look for a peer again.
const RETRY: u64 = 1_000;
/// A peer that failed is tried for the same segment again after this.
const FORGIVE: u64 = 5_000;
/// When nothing moved for so long, a peer that may hold one row is given another.
const DESPERATE: u64 = 30_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Waiting,
    Sent(PeerId),
    Stored(PeerId),
}

/// Which rows of a segment are placed, and with whom not.
pub(super) struct Rows {
    /// The number of each.
    pub(super) numbers: Vec<u8>,
    /// Who has the others.
    pub(super) others: BTreeSet<PeerId>,
    /// Who is to have none.
    pub(super) spared: BTreeSet<PeerId>,
}

pub(super) struct Upload {
    id: SegmentId,
    coded: Arc<Coded>,
    /// The number of each row that is placed: of a segment that is mended these are some.
    numbers: Vec<u8>,
    /// Who has the others, and is given none of these.
    others: BTreeSet<PeerId>,
    /// Who has none, and is given none either.
    spared: BTreeSet<PeerId>,
    leases: LeaseSecret,
    until: UnixSeconds,
    patience: u64,
    moved: Instant,
    rows: Vec<Row>,
    avoid: BTreeSet<(PeerId, Instant)>,
    /// Peers that may hold a row without having said so, because an answer was lost or a failed disk has it after all:
    /// each gets that row again or none, so that faults do not put two rows on one peer.
    tried: BTreeMap<PeerId, usize>,
    why: String,
}

impl Upload {
    pub(super) fn new(
        context: &mut Context,
        command: CommandId,
        (coded, Rows { numbers, others, spared }): (Arc<Coded>, Rows),
        leases: LeaseSecret,
        until: UnixSeconds,
        patience: u64,
    ) -> Option<Self> {
        let exists = |number: &u8| usize::from(*number) < coded.segment.rows.len();
        let is_sound = coded.segment.is_sound() && numbers.len() == coded.shards.len() && numbers.iter().all(exists);
        if !is_sound || numbers.is_empty() {
            return None;
        }
        context.arm(Timer::Upload(command), RETRY);
        Some(Self {
            id: coded.segment.id(),
            rows: vec![Row::Waiting; coded.shards.len()],
            coded,
            numbers,
            others,
            spared,
            leases,
            // Holders keep it, and to the second it would tell them what was uploaded together.
            until: until.end_of_day(),
            patience,
            moved: context.now.mono,
            avoid: BTreeSet::new(),
            tried: BTreeMap::new(),
            why: "no peer is there that would".into(),
        })
    }

    /// Sends what waits; gives the outcome when there is one.
    pub(super) fn drive(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) -> Option<Outcome> {
        let now = context.now.mono;
        self.avoid.retain(|(_, since)| now.since(*since) < FORGIVE);
        let stored = self.rows.iter().filter(|row| matches!(row, Row::Stored(_))).count();
        if stored == self.rows.len() {
            context.disarm(Timer::Upload(command));
            return Some(Outcome::Uploaded(self.placement()));
        }
        // What is under way or has its turn on the line after others is waited for: it has a deadline of its own.
        if now.since(self.moved) >= self.patience && self.rows.contains(&Row::Waiting) {
            context.disarm(Timer::Upload(command));
            return Some(Outcome::Failed(CommandError::NotPlaced {
                stored: stored as u8,
                n: self.rows.len() as u8,
                why: self.why.clone(),
            }));
        }
        if self.rows.contains(&Row::Waiting) {
            self.assign(context, peers, command);
        }
        context.arm_once(Timer::Upload(command), RETRY);
        None
    }

    /// How long the shards are that nobody who is there has room for, as far as one knows.
    pub(super) fn waits_for_room(&self) -> Option<u64> {
        self.rows.contains(&Row::Waiting).then_some(u64::from(self.coded.segment.shard_len))
    }

    fn assign(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) {
        let shard_len = u64::from(self.coded.segment.shard_len);
        let taken: BTreeSet<PeerId> = self
            .rows
            .iter()
            .filter_map(|row| match row {
                Row::Waiting => None,
                Row::Sent(peer) | Row::Stored(peer) => Some(*peer),
            })
            .chain(self.others.iter().copied())
            .collect();
        let holding = peers.holding(context, &taken);
        let avoided: BTreeSet<PeerId> = self.avoid.iter().map(|(peer, _)| *peer).collect();
        let mut candidates = peers.candidates(context);
        candidates.retain(|candidate| {
            let peer = &candidate.peer;
            !taken.contains(peer) && !avoided.contains(peer) && !self.spared.contains(peer)
        });
        let (k, n) = (self.coded.segment.k, (self.rows.len() + self.others.len()).min(ROWS_MAX) as u8);
        let mut order = placement::order(&Wanted { segment: &self.id, shard_len, k, n }, &candidates, &holding);
        for row in 0..self.rows.len() {
            if self.rows[row] != Row::Waiting {
                continue;
            }
            let Some(at) = self.choose(&order, row, context.now.mono) else { continue };
            let peer = order.remove(at);
            let shard = self.shard(row);
            let lease = self.leases.lease(&peer, &shard, self.until);
            let request = Request::Put { shard, lease, body: self.coded.shards[row].clone() };
            peers.reserve(&peer, shard_len);
            self.rows[row] = Row::Sent(peer);
            peers.send(context, peer, request, Waiter::Upload(command, row as u8));
        }
    }

    fn shard(&self, row: usize) -> ShardId {
        self.coded.segment.rows[usize::from(self.numbers[row])]
    }

    /// Which of the peers in `order` gets `row`: one that may have it already, else one that has none; one that may
    /// have another row only when the upload is about to be given up for want of anyone else.
    fn choose(&self, order: &[PeerId], row: usize, now: Instant) -> Option<usize> {
        let find = |wanted: Option<usize>| order.iter().position(|peer| self.tried.get(peer).copied() == wanted);
        let desperate = now.since(self.moved) >= DESPERATE.min(self.patience / 2) && !order.is_empty();
        find(Some(row)).or_else(|| find(None)).or(desperate.then_some(0))
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        row: u8,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) {
        let now = context.now.mono;
        let slot = &mut self.rows[usize::from(row)];
        if *slot != Row::Sent(peer) {
            return;
        }
        let why = match &result {
            Ok(Response::Ok) => {
                *slot = Row::Stored(peer);
                self.moved = now;
                peers.took(context, peer, true);
                return;
            }
            Ok(Response::Refused(refusal)) => {
                if matches!(refusal, Refusal::Busy | Refusal::Clock) {
                    peers.slow(context, peer);
                }
                refusal.to_string()
            }
            Ok(_) => {
                peers.fault(context, peer, Fault::Nonsense);
                "it answered something else".into()
            }
            Err(fault) => fault.to_string(),
        };
        // Who is busy, or went away or is about to, is no unwilling one.
        let is_willing =
            matches!(result, Ok(Response::Refused(Refusal::Busy | Refusal::Leaving)) | Err(SendFault::Unreachable));
        if !is_willing {
            peers.took(context, peer, false);
        }
        *slot = Row::Waiting;
        if result == Err(SendFault::Deadline) {
            // It was under way for long: there is time to find somebody else.
            self.moved = self.moved.max(Instant(now.0.saturating_sub(self.patience / 2)));
        }
        self.tried.insert(peer, usize::from(row));
        self.why = format!("peer {}: {why}", peer.short());
        self.avoid.insert((peer, now));
    }

    /// It has ended: whoever may have a row of it that is not part of it is told that nobody needs that; of one that has failed that
    /// is all of them.
    pub(super) fn give_up(&self, context: &mut Context, peers: &mut Peers, has_failed: bool) {
        let sent = self.rows.iter().enumerate().filter_map(|(row, state)| match state {
            Row::Waiting => None,
            Row::Sent(peer) | Row::Stored(peer) => Some((*peer, row)),
        });
        let sent: BTreeSet<(PeerId, usize)> = sent.collect();
        let mut given: BTreeSet<(PeerId, usize)> = self.tried.iter().map(|(peer, row)| (*peer, *row)).collect();
        match has_failed {
            true => given.extend(sent),
            false => given.retain(|one| !sent.contains(one)),
        }
        given.retain(|(peer, _)| peers.is_connected(peer));
        for (peer, row) in given {
            let shard = self.shard(row);
            let tokens = vec![(shard, self.leases.token(&peer, &shard))];
            peers.send(context, peer, Request::Release { tokens }, Waiter::GivenUp);
        }
    }

    fn placement(&self) -> Placement {
        let holders = self.rows.iter().enumerate().filter_map(|(row, state)| match state {
            Row::Stored(peer) => Some(Holder { row: self.numbers[row], peer: *peer, until: self.until }),
            Row::Waiting | Row::Sent(_) => None,
        });
        Placement { segment: self.coded.segment.clone(), n: self.rows.len() as u8, holders: holders.collect() }
    }
}

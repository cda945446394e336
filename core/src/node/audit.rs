//! Having the holders of a segment prove that they have what they acknowledged.
//!
//! Each is asked for a chunk that follows from randomness which comes in with the command. What it sends is checked against the
//! address of its shard and nothing else, so that a custodian, who knows no more, can do the same.
//!
//! Nothing is known of a row whose holder does not answer: messages get lost, and machines freeze. But whoever is there day after
//! day, takes shards and lets audits pass would be believed for ever. So its silence comes to be an answer ([`Silences`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::peers::{Fault, Peers};
use super::{CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::audit::{self, Seed};
use crate::id::PeerId;
use crate::limits::PEERS_MAX;
use crate::segment::Placement;
use crate::time::Instant;
use crate::wire::{Refusal, Request, Response};

/// Audits that a peer lets pass, more than it answers, until its silence says that it has not what it is asked for,
const SILENCES_MAX: u32 = 8;
/// if the first of them was so long ago, in milliseconds.
const SILENT_FOR: u64 = 48 * 3_600_000;

/// Peers that were there and let audits pass. A proof makes up for one of these: who keeps a few of many shards to prove those is
/// asked for the others more often, since they are due until they are proven.
#[derive(Default)]
pub(super) struct Silences(BTreeMap<PeerId, (u32, Instant)>);

impl Silences {
    /// It has not answered once more; whether that says that it has nothing to answer with.
    fn one_more(&mut self, now: Instant, peer: PeerId) -> bool {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&peer) {
            return false;
        }
        let (count, since) = self.0.entry(peer).or_insert((0, now));
        *count = count.saturating_add(1);
        *count >= SILENCES_MAX && now.since(*since) >= SILENT_FOR
    }

    fn proved(&mut self, peer: &PeerId) {
        if let Some((count, _)) = self.0.get_mut(peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(peer);
            }
        }
    }
}

/// What the holder of a row has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Passed,
    Lied,
    Damaged,
    Missing,
}

pub(super) struct Audit {
    placement: Arc<Placement>,
    seed: Seed,
    /// Who was asked for which row, and what came of it.
    rows: BTreeMap<u8, (PeerId, Option<Shown>)>,
    waiting: usize,
    command: CommandId,
    /// Rows whose holder was asked again.
    again: BTreeSet<u8>,
}

impl Audit {
    /// Asks the holders of `rows`; `None` when there was nobody to ask and the command is answered already.
    pub(super) fn start(
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        placement: Arc<Placement>,
        rows: &[u8],
        seed: Seed,
        within: u64,
    ) -> Option<Self> {
        let is_sound = placement.is_sound();
        let asked = placement.holders.iter().filter(|holder| is_sound && rows.contains(&holder.row));
        let rows: BTreeMap<u8, _> = asked.map(|holder| (holder.row, (holder.peer, None))).collect();
        let all: Vec<u8> = rows.keys().copied().collect();
        let new = Self { waiting: rows.len(), rows, placement, seed, command, again: BTreeSet::new() };
        if all.is_empty() {
            context.finish(command, new.outcome());
            return None;
        }
        context.arm(Timer::Audit(command), within);
        all.into_iter().for_each(|row| new.ask(context, peers, row));
        Some(new)
    }

    /// The row's address, the length of it, and the chunk that is asked for.
    fn challenge(&self, row: u8, peer: &PeerId) -> (crate::id::ShardId, u32, u32) {
        let segment = &self.placement.segment;
        let shard = segment.rows[usize::from(row)];
        (shard, segment.shard_len, audit::chunk_of(&self.seed, peer, &shard, segment.shard_len))
    }

    fn ask(&self, context: &mut Context, peers: &mut Peers, row: u8) {
        let Some((peer, _)) = self.rows.get(&row).copied() else { return };
        let (shard, _, chunk) = self.challenge(row, &peer);
        peers.send(context, peer, Request::Audit { shard, chunk }, Waiter::Audit(self.command, row));
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        silences: &mut Silences,
        row: u8,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) {
        let is_passing = matches!(result, Err(SendFault::Unreachable) | Ok(Response::Refused(Refusal::Busy)));
        if is_passing && self.again.insert(row) {
            // The connection broke under the request, or others were served first. It waits where whoever is busy is left alone.
            self.ask(context, peers, row);
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        let shown = self.judge(context, peers, silences, row, peer, result);
        if let Some((_, state)) = self.rows.get_mut(&row) {
            *state = shown;
        }
    }

    /// What an answer shows; none where it shows nothing.
    fn judge(
        &self,
        context: &mut Context,
        peers: &mut Peers,
        silences: &mut Silences,
        row: u8,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) -> Option<Shown> {
        let owed = self.placement.is_leased(row, context.now.unix);
        match result {
            Ok(Response::Bytes(proof)) => {
                let (shard, len, chunk) = self.challenge(row, &peer);
                if audit::verify(&shard, len, chunk, &proof) {
                    silences.proved(&peer);
                    return Some(Shown::Passed);
                }
                // Whoever answers honestly has looked at the bytes before: this is no rot.
                peers.fault(context, peer, Fault::Lie);
                Some(Shown::Lied)
            }
            Ok(Response::Refused(Refusal::NotFound)) => {
                if owed {
                    peers.fault(context, peer, Fault::Lost);
                }
                Some(Shown::Missing)
            }
            Ok(Response::Refused(Refusal::Damaged)) => {
                if owed {
                    peers.fault(context, peer, Fault::Damaged);
                }
                Some(Shown::Damaged)
            }
            Ok(Response::Refused(Refusal::Busy | Refusal::Disk)) => None,
            Ok(_) => {
                // It is there, and does not prove it.
                peers.fault(context, peer, Fault::Nonsense);
                Some(Shown::Lied)
            }
            Err(SendFault::Malformed(_)) => Some(Shown::Lied),
            Err(SendFault::Deadline) if peers.is_connected(&peer) && silences.one_more(context.now.mono, peer) => {
                if owed {
                    peers.fault(context, peer, Fault::Lost);
                }
                Some(Shown::Missing)
            }
            Err(SendFault::Unreachable | SendFault::Deadline) => None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn outcome(&self) -> Outcome {
        let of = |shown| self.rows.iter().filter(move |(_, (_, state))| *state == shown).map(|(row, _)| *row).collect();
        Outcome::Audited {
            passed: of(Some(Shown::Passed)),
            lied: of(Some(Shown::Lied)),
            damaged: of(Some(Shown::Damaged)),
            missing: of(Some(Shown::Missing)),
            unreachable: of(None),
        }
    }
}

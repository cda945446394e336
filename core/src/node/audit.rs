//! Having the holders of a segment prove that they have what they acknowledged.
//!
//! Each is asked for a chunk that follows from randomness which comes in with the command. What it sends is checked against the
//! address of its shard and nothing else, so that a custodian, who knows no more, can do the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::peers::{Fault, Peers};
use super::{CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::audit::{self, Seed};
use crate::id::PeerId;
use crate::segment::Placement;
use crate::wire::{Refusal, Request, Response};

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
        let shown = self.judge(context, peers, row, peer, result);
        if let Some((_, state)) = self.rows.get_mut(&row) {
            *state = shown;
        }
    }

    /// What an answer shows; none where it shows nothing.
    fn judge(
        &self,
        context: &mut Context,
        peers: &mut Peers,
        row: u8,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) -> Option<Shown> {
        let owed = self.placement.is_leased(row, context.now.unix);
        match result {
            Ok(Response::Bytes(proof)) => {
                let (shard, len, chunk) = self.challenge(row, &peer);
                if audit::verify(&shard, len, chunk, &proof) {
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

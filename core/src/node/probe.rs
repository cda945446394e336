//! Asking the holders of a segment what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::peers::{Fault, Peers};
use super::{CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::id::PeerId;
use crate::segment::Placement;
use crate::wire::{Request, Response};

pub(super) struct Probe {
    placement: Arc<Placement>,
    rows: BTreeMap<u8, Option<bool>>,
    waiting: usize,
    command: CommandId,
    /// Rows whose holder was asked again.
    again: BTreeSet<u8>,
}

impl Probe {
    /// Asks everyone; `None` when there was nobody to ask and the command is answered already.
    pub(super) fn start(
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        placement: Arc<Placement>,
        within: u64,
    ) -> Option<Self> {
        if placement.holders.is_empty() || !placement.is_sound() {
            context.finish(command, Outcome::Probed { held: vec![], missing: vec![], unreachable: vec![] });
            return None;
        }
        context.arm(Timer::Probe(command), within);
        let mut rows = BTreeMap::new();
        for holder in &placement.holders {
            let shards = vec![placement.segment.rows[usize::from(holder.row)]];
            rows.insert(holder.row, None);
            peers.send(context, holder.peer, Request::Have { shards }, Waiter::Probe(command, holder.row));
        }
        Some(Self { waiting: placement.holders.len(), rows, placement, command, again: BTreeSet::new() })
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        row: u8,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) {
        if matches!(result, Err(SendFault::Unreachable)) && self.again.insert(row) {
            // The connection broke under the request; who has just been started again has another one.
            let shards = vec![self.placement.segment.rows[usize::from(row)]];
            peers.send(context, peer, Request::Have { shards }, Waiter::Probe(self.command, row));
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        if let Ok(Response::Have(bits)) = result {
            let have = bits.first().is_some_and(|bits| bits & 1 == 1);
            if !have && self.placement.is_leased(row, context.now.unix) {
                peers.fault(context, peer, Fault::Damaged);
            }
            self.rows.insert(row, Some(have));
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn outcome(&self) -> Outcome {
        let of = |state| self.rows.iter().filter(move |(_, have)| **have == state).map(|(row, _)| *row).collect();
        Outcome::Probed { held: of(Some(true)), missing: of(Some(false)), unreachable: of(None) }
    }
}

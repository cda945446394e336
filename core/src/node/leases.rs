//! Asking one holder to keep shards for longer, or telling it that it need not.

use std::collections::BTreeMap;

use super::peers::{Fault, Peers};
use super::{CommandError, CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::id::PeerId;
use crate::limits::LEASES_AT_ONCE;
use crate::wire::{Request, Response};

/// One request that is under way.
struct Asked {
    holder: PeerId,
    /// Of a renewal, for how many shards.
    renews: Option<usize>,
}

#[derive(Default)]
pub(super) struct Leases {
    asked: BTreeMap<CommandId, Asked>,
}

impl Leases {
    pub(super) fn under_way(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn ask(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        holder: PeerId,
        request: Request,
        within: u64,
    ) {
        let (len, renews) = match &request {
            Request::Renew { leases } => (leases.len(), Some(leases.len())),
            Request::Release { tokens } => (tokens.len(), None),
            _ => (0, None),
        };
        if len == 0 || len > LEASES_AT_ONCE {
            context.finish(command, Outcome::Failed(CommandError::Invalid("no leases, or too many at once")));
            return;
        }
        self.asked.insert(command, Asked { holder, renews });
        context.arm(Timer::Lease(command), within);
        peers.send(context, holder, request, Waiter::Lease(command));
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        result: Result<Response, SendFault>,
    ) {
        let Some(Asked { holder, renews }) = self.asked.remove(&command) else { return };
        context.disarm(Timer::Lease(command));
        let outcome = match (result, renews) {
            (Ok(Response::Have(bits)), Some(len)) if bits.len() == len.div_ceil(8) => {
                Outcome::Renewed((0..len).map(|at| bits[at / 8] >> (at % 8) & 1 == 1).collect())
            }
            (Ok(Response::Ok), None) => Outcome::Released,
            (Ok(Response::Refused(why)), _) => failed(&holder, why.to_string()),
            (Ok(_), _) => {
                peers.fault(context, holder, Fault::Nonsense);
                failed(&holder, "it answered something else".into())
            }
            (Err(fault), _) => failed(&holder, fault.to_string()),
        };
        context.finish(command, outcome);
    }

    /// Its time is over.
    pub(super) fn late(&mut self, context: &mut Context, command: CommandId) {
        if let Some(Asked { holder, .. }) = self.asked.remove(&command) {
            context.finish(command, failed(&holder, "it did not answer in time".into()));
        }
    }
}

fn failed(holder: &PeerId, why: String) -> Outcome {
    Outcome::Failed(CommandError::Lease { peer: holder.short(), why })
}

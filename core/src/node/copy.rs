//! Getting one whole shard from one holder: how a shard is moved from a peer that stops storing for others, without reading k of them.

use std::collections::BTreeMap;

use super::peers::{Fault, Peers};
use super::{CommandError, CommandId, Context, Outcome, SendFault, Timer, Waiter};
use crate::id::{PeerId, ShardId};
use crate::limits::SHARD_MAX;
use crate::wire::{Refusal, Request, Response};

/// One that is under way.
struct Asked {
    holder: PeerId,
    shard: ShardId,
    len: u32,
}

#[derive(Default)]
pub(super) struct Copies {
    asked: BTreeMap<CommandId, Asked>,
}

impl Copies {
    pub(super) fn under_way(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn ask(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        (holder, shard, len): (PeerId, ShardId, u32),
        within: u64,
    ) {
        if len == 0 || len as usize > SHARD_MAX {
            context.finish(command, Outcome::Failed(CommandError::Invalid("a shard of a length that there is not")));
            return;
        }
        if peers.reluctance(context, &holder).is_none() {
            context.finish(command, failed(&holder, "it cannot be reached now".into(), false));
            return;
        }
        self.asked.insert(command, Asked { holder, shard, len });
        context.arm(Timer::Copy(command), within);
        peers.send(context, holder, Request::Get { shard, offset: 0, len }, Waiter::Copy(command));
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        result: Result<Response, SendFault>,
    ) {
        let Some(Asked { holder, shard, len }) = self.asked.remove(&command) else { return };
        context.disarm(Timer::Copy(command));
        let outcome = match result {
            Ok(Response::Bytes(bytes))
                if bytes.len() == len as usize && blake3::hash(&bytes).as_bytes() == shard.as_bytes() =>
            {
                Outcome::Copied(bytes)
            }
            Ok(Response::Bytes(_)) => {
                peers.fault(context, holder, Fault::Lie);
                failed(&holder, "it sent something else".into(), true)
            }
            Ok(Response::Refused(why)) => {
                // Whoever asks knows whether it owes the shard, and has it proven by an audit.
                failed(&holder, why.to_string(), matches!(why, Refusal::NotFound | Refusal::Damaged))
            }
            Ok(_) => {
                peers.fault(context, holder, Fault::Nonsense);
                failed(&holder, "it answered something else".into(), false)
            }
            Err(fault) => failed(&holder, fault.to_string(), false),
        };
        context.finish(command, outcome);
    }

    /// Its time is over.
    pub(super) fn late(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) {
        if let Some(Asked { holder, .. }) = self.asked.remove(&command) {
            // What waits for its turn nobody waits for any more.
            peers.forget(|waiter| *waiter != Waiter::Copy(command));
            context.finish(command, failed(&holder, "it did not answer in time".into(), false));
        }
    }
}

fn failed(holder: &PeerId, why: String, lacks: bool) -> Outcome {
    Outcome::Failed(CommandError::Copy { peer: holder.short(), why, lacks })
}

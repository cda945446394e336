//! Records that this node keeps for the mesh, its own and others'.
//!
//! Whoever keeps a record hands it on again a few times within its lifetime, verbatim: a record lives as long as any
//! of its keepers does, however long its owner is away. A record that nobody hands on any more expires.

use std::collections::BTreeMap;

use super::peers::{Fault, Peers};
use super::{CommandError, CommandId, Context, Effect, Outcome, Timer, Waiter};
use crate::codec;
use crate::id::{PeerId, RecordKey};
use crate::limits::{RECORDS_HELD_MAX, RECORDS_PER_SENDER_HOUR};
use crate::port::StoreOp;
use crate::record::{Record, RecordError};
use crate::time::Instant;

/// Times a record is handed on within its lifetime.
const REPUBLISH_PER_LIFETIME: u64 = 4;
const HOUR: u64 = 3_600_000;

#[derive(Default)]
pub(super) struct Records {
    held: BTreeMap<RecordKey, Record>,
    senders: BTreeMap<PeerId, (Instant, u32)>,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// A peer wants a record kept: checked, compared, counted.
    pub(super) fn offered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        from: PeerId,
        key: RecordKey,
        bytes: &[u8],
    ) {
        let record = match Record::verify_under(&key, bytes) {
            Ok(record) => record,
            Err(RecordError::Signature | RecordError::WrongKey) => return peers.fault(context, from, Fault::Lie),
            Err(_) => return peers.fault(context, from, Fault::Nonsense),
        };
        let held = self.held.get(&key);
        if held == Some(&record) {
            self.refresh(context, key);
        } else if held.is_some_and(|held| record.replaces(held))
            || (held.is_none() && self.may_add(context, peers, from))
        {
            self.keep(context, record, true);
        }
    }

    fn may_add(&mut self, context: &mut Context, peers: &mut Peers, from: PeerId) -> bool {
        let now = context.now.mono;
        self.senders.retain(|_, (since, _)| now.since(*since) < HOUR);
        let (_, count) = self.senders.entry(from).or_insert((now, 0));
        *count += 1;
        if *count > RECORDS_PER_SENDER_HOUR {
            peers.fault(context, from, Fault::Flood);
            return false;
        }
        self.held.len() < RECORDS_HELD_MAX
    }

    /// Kept before the last stop: checked again, because the disk may have changed it.
    pub(super) fn held(&mut self, context: &mut Context, bytes: &[u8]) {
        if let Ok(record) = Record::verify(bytes)
            && self.held.get(&record.key()).is_none_or(|held| record.replaces(held))
        {
            self.keep(context, record, false);
        }
    }

    fn keep(&mut self, context: &mut Context, record: Record, store: bool) {
        let (key, bytes) = (record.key(), codec::encode(&record));
        self.held.insert(key, record);
        context.effects.push(Effect::KeepRecord { key, bytes: bytes.clone() });
        if store {
            context.store(Waiter::RecordKept, StoreOp::PutRecord { key, bytes });
        }
        self.refresh(context, key);
    }

    fn refresh(&mut self, context: &mut Context, key: RecordKey) {
        let lifetime = context.config.record_lifetime;
        context.arm(Timer::Expire(key), lifetime);
        // Spread by key and holder, so that not all holders hand it on at the same moment.
        let hash = blake3::hash(&[key.as_bytes().as_slice(), context.config.me.as_bytes()].concat());
        let spread = u64::from(hash.as_bytes()[0]);
        let every = lifetime / REPUBLISH_PER_LIFETIME;
        context.arm_once(Timer::Republish(key), every / 2 + every * spread / 512);
    }

    pub(super) fn republish(&mut self, context: &mut Context, key: RecordKey) {
        if let Some(record) = self.held.get(&key) {
            let bytes = codec::encode(record);
            let id = context.request_id(None, Waiter::Publish(None, key));
            context.effects.push(Effect::PutRecord { id, key, bytes });
        }
    }

    pub(super) fn expire(&mut self, context: &mut Context, key: RecordKey) {
        if self.held.remove(&key).is_some() {
            context.disarm(Timer::Republish(key));
            context.effects.push(Effect::DropRecord { key });
        }
    }

    pub(super) fn publish(&mut self, context: &mut Context, command: CommandId, record: Record) {
        let (key, bytes) = (record.key(), codec::encode(&record));
        let error = match (Record::verify(&bytes), self.held.get(&key)) {
            (Err(error), _) => Some(error),
            (Ok(_), Some(held)) if *held != record && !record.replaces(held) => {
                Some(RecordError::Stale { found: record.sequence, held: held.sequence })
            }
            _ => None,
        };
        if let Some(error) = error {
            return context.finish(command, Outcome::Failed(CommandError::Record(error.to_string())));
        }
        self.keep(context, record, true);
        let id = context.request_id(None, Waiter::Publish(Some(command), key));
        context.effects.push(Effect::PutRecord { id, key, bytes });
    }

    /// The mesh has taken a record, or has not.
    pub(super) fn put(&mut self, context: &mut Context, command: Option<CommandId>, key: RecordKey, stored: usize) {
        if let Some(command) = command {
            context.finish(command, Outcome::Published { stored });
        }
        // Others have it now, so it is worth keeping here as well; alone with it, this node keeps it too, because
        // being cut off must not lose what it holds.
        if self.held.contains_key(&key) {
            self.refresh(context, key);
        }
    }

    pub(super) fn lookup(&mut self, context: &mut Context, command: CommandId, key: RecordKey) {
        let id = context.request_id(None, Waiter::Lookup(command, key));
        context.effects.push(Effect::FindRecord { id, key });
    }

    /// The newest of what came back and what is held here.
    pub(super) fn found(&mut self, context: &mut Context, command: CommandId, key: RecordKey, found: &[Vec<u8>]) {
        let mut best = self.held.get(&key).cloned();
        for record in found.iter().filter_map(|bytes| Record::verify_under(&key, bytes).ok()) {
            if best.as_ref().is_none_or(|best| record.replaces(best)) {
                best = Some(record);
            }
        }
        if let Some(record) = &best
            && self.held.get(&key) != Some(record)
        {
            self.keep(context, record.clone(), true);
        }
        context.finish(command, Outcome::Found(best));
    }
}

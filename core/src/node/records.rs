//! Records that this node keeps for the mesh, its own and others'.
//!
//! Whoever keeps a record hands it on again a few times within its lifetime, verbatim: a record lives as long as any
//! of its keepers does, however long its owner is away. A record that nobody hands on any more expires.
//!
//! So time alone never clears a keeper of junk. What does is want of room: then the records go that this keeper has
//! the least reason to keep ([`Reason`]). A signer has one record, so there is no signer with many; what can be made
//! in any number are signers. They are cheap, but not near this keeper, and not by many senders.
//!
//! Invariants:
//! - a record counts as kept by a peer only when that peer has said that it is on its stable storage;
//! - no stranger's record takes the place of one that this node published or looked for, nor of a nearer one, unless
//!   that is one of the many that a single sender brought.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::peers::{Fault, Peers};
use super::watch::{self, Watches};
use super::{CommandError, CommandId, Context, Effect, Outcome, SendFault, Timer, Waiter};
use crate::codec;
use crate::id::{PeerId, RecordKey};
use crate::limits::{
    PUBLISHING_MAX, RECORD_CHANGES_FLOOD, RECORD_CHANGES_HOUR, RECORD_KEEPERS_MAX, RECORD_LASTS_MAX, RECORDS_HELD_MAX,
    RECORDS_PER_SENDER_HELD, RECORDS_PER_SENDER_HOUR,
};
use crate::port::StoreOp;
use crate::record::{LAST, Record, RecordError};
use crate::time::Instant;
use crate::wire::{Refusal, Request, Response};

/// Times a record is handed on within its lifetime.
const REPUBLISH_PER_LIFETIME: u64 = 4;
const HOUR: u64 = 3_600_000;

/// What could not be served, or no longer be served, is tried again after so many milliseconds.
const SERVE_AGAIN: u64 = 1_000;
/// After so many milliseconds whoever has not answered is no longer waited for, when enough of the others have. Whoever
/// no connection is up to is not waited for even that long: any mesh has peers that have left it.
const HAND_ON: u64 = 4_000;
/// After so many more, nobody is waited for.
const HAND_ON_LAST: u64 = 8_000;

/// On whose account a record is here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This node published it or looked for it.
    Own,
    /// A peer was the first to bring it.
    Brought(PeerId),
    /// It was here before the last start; who brought it is not known any more.
    Before,
}

/// Why a record is kept rather than others: the larger the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// Its sender brought more than its share.
    Surplus(Reverse<[u8; 32]>),
    /// This node is as near to its key as that.
    Near(Reverse<[u8; 32]>),
    /// This node wants it.
    Own,
}

struct Held {
    record: Record,
    origin: Origin,
    /// From its key to this node.
    distance: [u8; 32],
    /// It is on stable storage.
    durable: bool,
    /// Changes since then.
    changes: (Instant, u32),
}

/// A record on its way to the peers closest to its key.
struct Handing {
    key: RecordKey,
    bytes: Bytes,
    /// Who wants to know, and how many peers are enough for it.
    command: Option<(CommandId, usize)>,
    waiting: BTreeSet<PeerId>,
    stored: usize,
    /// The one of the two times above that has passed.
    late: u8,
}

#[derive(Default)]
pub(super) struct Records {
    held: BTreeMap<RecordKey, Held>,
    senders: BTreeMap<PeerId, (Instant, u32)>,
    handing: BTreeMap<u64, Handing>,
    handed: u64,
    lookups: usize,
    pub(super) watches: Watches,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Commands about records that have not ended.
    pub(super) fn under_way(&self) -> usize {
        self.handing.len() + self.lookups
    }

    fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.held.get(key).map(|held| &held.record)
    }

    /// A peer wants a record kept, and to hear when it is on stable storage.
    pub(super) fn asked(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        from: PeerId,
        bytes: &[u8],
    ) -> Result<StoreOp, Response> {
        let record = checked(context, peers, from, Record::verify(bytes)).ok_or(Response::Refused(Refusal::Invalid))?;
        self.take(context, peers, from, record)
    }

    /// What the store is to do before a record counts as kept; or the answer, when there is nothing to do.
    fn take(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        from: PeerId,
        record: Record,
    ) -> Result<StoreOp, Response> {
        let (key, now) = (record.key(), context.now.mono);
        match self.held.get_mut(&key) {
            Some(held) if held.record == record => {
                let durable = held.durable;
                self.refresh(context, key);
                if durable {
                    return Err(Response::Ok);
                }
            }
            Some(held) if record.replaces(&held.record) => {
                if now.since(held.changes.0) >= HOUR {
                    held.changes = (now, 0);
                }
                held.changes.1 = held.changes.1.saturating_add(1);
                if held.changes.1 > RECORD_CHANGES_HOUR {
                    // Whoever brings somewhat more may not have counted as this node does.
                    if held.changes.1 > RECORD_CHANGES_FLOOD {
                        peers.fault(context, from, Fault::Flood);
                    }
                    return Err(Response::Refused(Refusal::TooOften));
                }
                self.keep(context, record.clone(), Origin::Brought(from));
                self.watches.changed(context, peers, &record, Some(from));
            }
            Some(_) => return Err(Response::Refused(Refusal::Newer)),
            None => {
                if !self.may_add(context, peers, from) {
                    // Not "full": that is about space for shards, of which there may be plenty.
                    return Err(Response::Refused(Refusal::Busy));
                }
                if !self.make_room(context, &key, Origin::Brought(from)) {
                    return Err(Response::Refused(Refusal::Crowded));
                }
                self.keep(context, record.clone(), Origin::Brought(from));
                self.watches.changed(context, peers, &record, Some(from));
            }
        }
        Ok(StoreOp::PutRecord { key, bytes: codec::encode(&record) })
    }

    /// A peer wants to hear when a record changes: the answer.
    pub(super) fn watch(&mut self, context: &mut Context, key: RecordKey, from: PeerId) -> Response {
        let is_asked = self.watches.ask(context, key, from);
        watch::answer(is_asked, self.record(&key))
    }

    /// A peer that was asked to tell of a record says what it is now.
    pub(super) fn heard(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        key: RecordKey,
        from: PeerId,
        bytes: &[u8],
    ) {
        let record = checked(context, peers, from, Record::verify_under(&key, bytes));
        if let Some(record) = record.filter(|record| self.record(&key).is_none_or(|held| record.replaces(held))) {
            self.keep_own(context, record.clone());
            self.watches.changed(context, peers, &record, Some(from));
        }
    }

    /// A peer that wants to hear of a record was told of it, or could not be.
    pub(super) fn told(&mut self, context: &mut Context, peers: &mut Peers, key: RecordKey, peer: PeerId) {
        let newest = self.held.get(&key).map(|held| &held.record);
        self.watches.told(context, peers, key, peer, newest);
    }

    /// The store has said that a record is on stable storage; a newer one may have taken its place here meanwhile.
    pub(super) fn is_durable(&mut self, key: &RecordKey, sequence: u64) {
        if let Some(held) = self.held.get_mut(key)
            && held.record.sequence == sequence
        {
            held.durable = true;
        }
    }

    fn may_add(&mut self, context: &mut Context, peers: &mut Peers, from: PeerId) -> bool {
        let now = context.now.mono;
        self.senders.retain(|_, (since, _)| now.since(*since) < HOUR);
        let (_, count) = self.senders.entry(from).or_insert((now, 0));
        *count = count.saturating_add(1);
        if *count > RECORDS_PER_SENDER_HOUR {
            peers.fault(context, from, Fault::Flood);
            return false;
        }
        true
    }

    fn reason(senders: &BTreeMap<PeerId, usize>, origin: Origin, distance: [u8; 32]) -> Reason {
        match origin {
            Origin::Own => Reason::Own,
            Origin::Brought(peer) if senders.get(&peer).is_some_and(|count| *count > RECORDS_PER_SENDER_HELD) => {
                Reason::Surplus(Reverse(distance))
            }
            Origin::Brought(_) | Origin::Before => Reason::Near(Reverse(distance)),
        }
    }

    /// Makes room for one record more, which is not held yet; false when it is the one that there is the least reason
    /// to keep.
    fn make_room(&mut self, context: &mut Context, key: &RecordKey, origin: Origin) -> bool {
        if self.held.len() < RECORDS_HELD_MAX {
            return true;
        }
        let mut senders = BTreeMap::new();
        for origin in self.held.values().map(|held| held.origin).chain([origin]) {
            if let Origin::Brought(peer) = origin {
                *senders.entry(peer).or_default() += 1;
            }
        }
        let reasons = self.held.iter().map(|(key, held)| (Self::reason(&senders, held.origin, held.distance), *key));
        let Some((least, victim)) = reasons.min() else { return true };
        let distance = (context.config.metric)(&context.config.me, key);
        if Self::reason(&senders, origin, distance) < least {
            return false;
        }
        self.forget(context, victim);
        true
    }

    /// The driver could not pass on what is to be served.
    pub(super) fn not_served(&mut self, context: &mut Context, key: RecordKey) {
        context.arm_once(Timer::Serve(key), SERVE_AGAIN);
    }

    /// Says again what is to be served under a key, which may be something else by now.
    pub(super) fn serve(&self, context: &mut Context, key: RecordKey) {
        let bytes = self.record(&key).map(codec::encode);
        context.effects.push(match bytes {
            Some(bytes) => Effect::KeepRecord { key, bytes },
            None => Effect::DropRecord { key },
        });
    }

    fn forget(&mut self, context: &mut Context, key: RecordKey) {
        if self.held.remove(&key).is_some() {
            context.disarm(Timer::Republish(key));
            context.disarm(Timer::Expire(key));
            context.effects.push(Effect::DropRecord { key });
        }
    }

    /// Kept before the last stop: checked again, because the disk may have changed it.
    pub(super) fn held(&mut self, context: &mut Context, bytes: &[u8]) {
        if let Ok(record) = Record::verify(bytes)
            && self.record(&record.key()).is_none_or(|held| record.replaces(held))
        {
            let (key, sequence) = (record.key(), record.sequence);
            if !self.held.contains_key(&key) && !self.make_room(context, &key, Origin::Before) {
                return context.effects.push(Effect::DropRecord { key });
            }
            self.keep(context, record, Origin::Before);
            self.is_durable(&key, sequence);
        }
    }

    /// Serves it from now on; whoever calls this has it stored.
    fn keep(&mut self, context: &mut Context, record: Record, origin: Origin) {
        let (key, bytes) = (record.key(), codec::encode(&record));
        let (origin, changes) = match self.held.get(&key) {
            Some(held) if origin != Origin::Own => (held.origin, held.changes),
            Some(held) => (origin, held.changes),
            None => (origin, (context.now.mono, 0)),
        };
        let distance = (context.config.metric)(&context.config.me, &key);
        self.held.insert(key, Held { record, origin, distance, durable: false, changes });
        context.effects.push(Effect::KeepRecord { key, bytes });
        self.refresh(context, key);
    }

    /// Keeps what this node itself wants kept: there is always room for that.
    fn keep_own(&mut self, context: &mut Context, record: Record) {
        let (key, sequence, bytes) = (record.key(), record.sequence, codec::encode(&record));
        if !self.held.contains_key(&key) {
            self.make_room(context, &key, Origin::Own);
        }
        self.keep(context, record, Origin::Own);
        context.store(Waiter::RecordKept(key, sequence), StoreOp::PutRecord { key, bytes });
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
        if self.held.contains_key(&key) {
            self.hand_on(context, key, None);
        }
    }

    pub(super) fn expire(&mut self, context: &mut Context, key: RecordKey) {
        if self.handing.values().any(|handing| handing.key == key) {
            // It is being handed on at this moment; whether that was in time shows when it has ended.
            return context.arm(Timer::Expire(key), HAND_ON);
        }
        self.forget(context, key);
    }

    pub(super) fn publish(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        record: Record,
        enough: usize,
    ) {
        let (key, bytes) = (record.key(), codec::encode(&record));
        let error = match (Record::verify(&bytes), self.record(&key)) {
            (Err(error), _) => Some(error),
            (Ok(_), Some(held)) if *held != record && !record.replaces(held) => {
                Some(RecordError::Stale { found: record.sequence, held: held.sequence })
            }
            _ => None,
        };
        if let Some(error) = error {
            return context.finish(command, Outcome::Failed(CommandError::Record(error.to_string())));
        }
        let is_new = self.record(&key) != Some(&record);
        self.keep_own(context, record.clone());
        if is_new {
            self.watches.changed(context, peers, &record, None);
        }
        self.hand_on(context, key, Some((command, enough)));
    }

    fn hand_on(&mut self, context: &mut Context, key: RecordKey, command: Option<(CommandId, usize)>) {
        let Some(record) = self.record(&key) else { return };
        let bytes = Bytes::from(codec::encode(record));
        if self.handing.len() >= PUBLISHING_MAX {
            match command {
                Some((command, _)) => context.finish(command, Outcome::Failed(CommandError::Busy)),
                // Its turn comes again within the lifetime.
                None => self.refresh(context, key),
            }
            return;
        }
        self.handed += 1;
        let handing = self.handed;
        self.handing.insert(handing, Handing { key, bytes, command, waiting: BTreeSet::new(), stored: 0, late: 0 });
        let id = context.request_id(None, Waiter::Closest(handing));
        context.effects.push(Effect::FindClosest { id, key });
    }

    /// The peers that are to keep it.
    pub(super) fn closest(&mut self, context: &mut Context, peers: &mut Peers, handing: u64, closest: Vec<PeerId>) {
        let Some(task) = self.handing.get_mut(&handing) else { return };
        let me = context.config.me;
        let closest: BTreeSet<PeerId> =
            closest.into_iter().filter(|peer| *peer != me).take(RECORD_KEEPERS_MAX).collect();
        task.waiting.clone_from(&closest);
        let bytes = task.bytes.clone();
        for peer in closest {
            peers.send(context, peer, Request::Record { bytes: bytes.clone() }, Waiter::Handed(handing));
        }
        context.arm(Timer::Published(handing), HAND_ON);
        self.settle(context, peers, handing);
    }

    /// One of them has answered, or will not.
    pub(super) fn handed(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        handing: u64,
        peer: PeerId,
        result: &Result<Response, SendFault>,
    ) {
        let Some(task) = self.handing.get_mut(&handing) else { return };
        task.waiting.remove(&peer);
        task.stored += usize::from(*result == Ok(Response::Ok));
        self.settle(context, peers, handing);
    }

    /// The time has passed after which fewer are waited for.
    pub(super) fn enough(&mut self, context: &mut Context, peers: &mut Peers, handing: u64) {
        if let Some(task) = self.handing.get_mut(&handing) {
            task.late += 1;
            if task.late == 1 {
                context.arm(Timer::Published(handing), HAND_ON_LAST);
            }
        }
        self.settle(context, peers, handing);
    }

    fn settle(&mut self, context: &mut Context, peers: &mut Peers, handing: u64) {
        let Some(task) = self.handing.get(&handing) else { return };
        let enough = task.command.is_none_or(|(_, enough)| task.stored >= enough);
        let waits = match task.late {
            0 if enough => task.waiting.iter().any(|peer| peers.is_connected(peer)),
            0 => !task.waiting.is_empty(),
            1 => !enough && !task.waiting.is_empty(),
            _ => false,
        };
        if waits {
            return;
        }
        let Some(task) = self.handing.remove(&handing) else { return };
        context.disarm(Timer::Published(handing));
        peers.forget(|waiter| *waiter != Waiter::Handed(handing));
        if let Some((command, _)) = task.command {
            context.finish(command, Outcome::Published { stored: task.stored });
        }
        // Others have it now, so it is worth keeping here as well; alone with it, this node keeps it too, because
        // being cut off must not lose what it holds.
        if self.held.contains_key(&task.key) {
            self.refresh(context, task.key);
        }
    }

    pub(super) fn lookup(&mut self, context: &mut Context, command: CommandId, key: RecordKey) {
        self.lookups += 1;
        let id = context.request_id(None, Waiter::Lookup(command, key));
        context.effects.push(Effect::FindRecord { id, key });
    }

    /// The newest of what came back and what is held here. Of last records that differ, which whoever has the key of a signer
    /// can sign at any time, all are told of: a peer that lies may have been asked first.
    pub(super) fn found(
        &mut self,
        context: &mut Context,
        command: CommandId,
        key: RecordKey,
        found: &[Vec<u8>],
        answers: usize,
    ) {
        self.lookups = self.lookups.saturating_sub(1);
        let mut best = self.record(&key).cloned();
        let mut others: Vec<Record> = Vec::new();
        for record in found.iter().filter_map(|bytes| Record::verify_under(&key, bytes).ok()) {
            match &best {
                Some(best) if !record.replaces(best) => {
                    let is_new = *best != record && others.iter().all(|one| *one != record);
                    if record.sequence == LAST && is_new && others.len() < RECORD_LASTS_MAX {
                        others.push(record);
                    }
                }
                _ => best = Some(record),
            }
        }
        match (&best, self.held.get_mut(&key)) {
            (Some(best), Some(held)) if held.record == *best => held.origin = Origin::Own,
            (Some(best), _) => self.keep_own(context, best.clone()),
            (None, _) => {}
        }
        context.finish(command, Outcome::Found { record: best, others, answers });
    }
}

/// A record that is what it should be; else its sender is to blame.
fn checked(
    context: &mut Context,
    peers: &mut Peers,
    from: PeerId,
    record: Result<Record, RecordError>,
) -> Option<Record> {
    match record {
        Ok(record) => return Some(record),
        Err(RecordError::Signature | RecordError::WrongKey) => peers.fault(context, from, Fault::Lie),
        Err(_) => peers.fault(context, from, Fault::Nonsense),
    }
    None
}

#[cfg(test)]
mod tests;

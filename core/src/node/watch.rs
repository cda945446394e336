//! Who wants to hear of a record when it changes: peers, of what this node keeps for the mesh, and its own agent, of what others
//! keep.
//!
//! A peer that has asked is sent each newer record, by the request that brings any record, until its time has passed; it asks
//! again before that. Whoever wants to hear asks a few of those closest to the key. Nothing depends on it: a keeper that
//! forgets, or says nothing, is found out when the record is looked up the next time.
//!
//! Invariants: one push is under way to a peer for a key, and of what changes meanwhile the newest follows; nobody is sent what
//! they did not ask for, for longer than they asked, nor what they have brought.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::peers::Peers;
use super::{Context, Effect, Timer, Waiter};
use crate::codec;
use crate::id::{PeerId, RecordKey};
use crate::limits::{WATCHED_MAX, WATCHERS_PER_RECORD, WATCHES_HELD_MAX, WATCHES_PER_PEER};
use crate::record::Record;
use crate::time::Instant;
use crate::wire::{Refusal, Request, Response};

/// How often it is asked again, in milliseconds.
const ASK_EVERY: u64 = 60_000;
/// For how long a peer is told, which may ask a little late, in milliseconds.
const TOLD_FOR: u64 = 150_000;
/// How many of those closest to a key are asked.
const KEEPERS_ASKED: usize = 3;

struct Watcher {
    until: Instant,
    /// Something is on its way to it.
    is_told: bool,
    /// And that is not the newest any more.
    is_behind: bool,
}

#[derive(Default)]
pub(super) struct Watches {
    watchers: BTreeMap<(RecordKey, PeerId), Watcher>,
    /// How many of them are of one peer.
    of: BTreeMap<PeerId, usize>,
    /// What the own agent wants to hear of.
    wanted: BTreeSet<RecordKey>,
}

impl Watches {
    /// A peer wants to hear of a record; false when there is no room for that.
    pub(super) fn ask(&mut self, context: &mut Context, key: RecordKey, from: PeerId) -> bool {
        let until = context.now.mono.after(TOLD_FOR);
        if let Some(watcher) = self.watchers.get_mut(&(key, from)) {
            watcher.until = until;
            return true;
        }
        let is_crowded = |watches: &Self| {
            watches.watchers.len() >= WATCHES_HELD_MAX
                || watches.of.get(&from).is_some_and(|count| *count >= WATCHES_PER_PEER)
                || watches.of_record(&key).count() >= WATCHERS_PER_RECORD
        };
        if is_crowded(self) {
            self.forget_late(context);
            if is_crowded(self) {
                return false;
            }
        }
        self.watchers.insert((key, from), Watcher { until, is_told: false, is_behind: false });
        *self.of.entry(from).or_default() += 1;
        context.arm_once(Timer::Unwatched, TOLD_FOR);
        true
    }

    fn of_record(&self, key: &RecordKey) -> impl Iterator<Item = PeerId> {
        let all = (*key, PeerId([0; 32]))..=(*key, PeerId([0xff; 32]));
        self.watchers.range(all).map(|((_, peer), _)| *peer)
    }

    /// Forgets whose time has passed.
    pub(super) fn forget_late(&mut self, context: &mut Context) {
        let now = context.now.mono;
        self.watchers.retain(|_, watcher| watcher.until > now);
        self.of.clear();
        for (_, peer) in self.watchers.keys() {
            *self.of.entry(*peer).or_default() += 1;
        }
        if !self.watchers.is_empty() {
            context.arm_once(Timer::Unwatched, TOLD_FOR);
        }
    }

    /// A record has changed: `from` has brought it, or this node itself.
    pub(super) fn changed(&mut self, context: &mut Context, peers: &mut Peers, record: &Record, from: Option<PeerId>) {
        let key = record.key();
        if from.is_some() && self.wanted.contains(&key) {
            context.effects.push(Effect::Changed { key });
        }
        let (now, mut to) = (context.now.mono, Vec::new());
        for peer in self.of_record(&key).collect::<Vec<_>>() {
            if let Some(watcher) = self.watchers.get_mut(&(key, peer))
                && Some(peer) != from
                && watcher.until > now
            {
                watcher.is_behind = watcher.is_told;
                if !std::mem::replace(&mut watcher.is_told, true) {
                    to.push(peer);
                }
            }
        }
        if !to.is_empty() {
            let bytes = Bytes::from(codec::encode(record));
            for peer in to {
                peers.send(context, peer, Request::Record { bytes: bytes.clone() }, Waiter::Told(key));
            }
        }
    }

    /// A peer has been told, or will not be; what it is to hear next is the newest there is, if that has changed.
    pub(super) fn told(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        key: RecordKey,
        peer: PeerId,
        newest: Option<&Record>,
    ) {
        let Some(watcher) = self.watchers.get_mut(&(key, peer)) else { return };
        watcher.is_told = false;
        if std::mem::take(&mut watcher.is_behind)
            && let Some(record) = newest
        {
            watcher.is_told = true;
            let bytes = Bytes::from(codec::encode(record));
            peers.send(context, peer, Request::Record { bytes }, Waiter::Told(key));
        }
    }

    /// The agent wants to hear of these, in place of what it named before.
    pub(super) fn want(&mut self, context: &mut Context, keys: Vec<RecordKey>) {
        let wanted: BTreeSet<RecordKey> = keys.into_iter().take(WATCHED_MAX).collect();
        for key in self.wanted.difference(&wanted) {
            context.disarm(Timer::Watch(*key));
        }
        for key in wanted.difference(&self.wanted) {
            context.arm(Timer::Watch(*key), 0);
        }
        self.wanted = wanted;
    }

    /// It is time to ask for it, again.
    pub(super) fn ask_for(&self, context: &mut Context, key: RecordKey) {
        if self.wanted.contains(&key) {
            let id = context.request_id(None, Waiter::Watched(key));
            context.effects.push(Effect::FindClosest { id, key });
            context.arm(Timer::Watch(key), ASK_EVERY);
        }
    }

    /// Those closest to a key are known.
    pub(super) fn closest(&self, context: &mut Context, peers: &mut Peers, key: RecordKey, closest: Vec<PeerId>) {
        let me = context.config.me;
        if self.wanted.contains(&key) {
            for peer in closest.into_iter().filter(|peer| *peer != me).take(KEEPERS_ASKED) {
                peers.send(context, peer, Request::Watch { key }, Waiter::Watching(key));
            }
        }
    }
}

/// What a peer is told that wants to hear of a record: the record as it is now.
pub(super) fn answer(is_asked: bool, record: Option<&Record>) -> Response {
    match record {
        _ if !is_asked => Response::Refused(Refusal::Crowded),
        Some(record) => Response::Bytes(Bytes::from(codec::encode(record))),
        None => Response::Ok,
    }
}

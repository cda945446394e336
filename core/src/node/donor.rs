//! The donor's side: what a node does for others. It keeps shards it cannot read for owners it does not know.
//!
//! For whom, [`crate::quota`] says. Who stores for this node may bring [`RECIPROCITY`] times what it holds, and all of
//! them together no more than that of what all hold: the first is counted from the start of this process on and forgotten with
//! it, so that no disk says who has brought what; the second stands on the disk as a sum, and bounds what anybody gains by
//! waiting for a restart. What one brings beyond that counts as a newcomer's.

use std::collections::BTreeMap;

use super::peers::{Fault, Peers};
use super::records::Records;
use super::{Context, Effect, InboundId, Waiter};
use crate::codec;
use crate::id::{PeerId, RecordKey};
use crate::lease::Lease;
use crate::limits::{AUDITS_PER_PEER, RECIPROCALS_MAX, SERVING_PER_PEER};
use crate::port::{StoreFault, StoreOp, StoreReply};
use crate::quota::{Depositor, Quota, Used};
use crate::record::Record;
use crate::time::Instant;
use crate::wire::{Hello, Refusal, Request, Response};

/// Longest lease that is granted: a little over a year.
const LEASE_MAX: u64 = 400 * 24 * 3600;

/// How long a disk that was full is taken for full, in milliseconds: then somebody may try again.
const FULL_FOR: u64 = 60_000;

/// Whoever holds a byte for this node may bring so many.
const RECIPROCITY: u64 = 2;

/// Seconds for which a newcomer is told to go elsewhere: what others have brought stays for weeks as a rule.
const NEWCOMERS_WAIT: u32 = 600;

/// A request that is being served. Space that is promised to a put under way is not offered twice.
struct Promise {
    peer: PeerId,
    /// Of a shard.
    bytes: u64,
    /// For whom it is put, or leased; whose lease ends.
    depositor: Depositor,
    /// Key and sequence number of a record.
    record: Option<(RecordKey, u64)>,
    /// A whole shard is read for it.
    is_audit: bool,
}

pub(super) struct Donor {
    quota: Quota,
    used: Used,
    promised: Used,
    /// What those have brought, and not given up, that store for this node; since its start, and at most.
    brought: BTreeMap<PeerId, u64>,
    /// Nothing new is taken in: others are to move elsewhere what is here.
    leaving: bool,
    /// The disk is full, whatever is donated: until then nothing is offered.
    full_until: Instant,
    serving: BTreeMap<InboundId, Promise>,
    /// Audits of each peer among those.
    audits: BTreeMap<PeerId, usize>,
}

impl Donor {
    pub(super) fn new(quota: Quota, used: Used, leaving: bool) -> Self {
        Self {
            quota,
            leaving,
            used,
            promised: Used::default(),
            brought: BTreeMap::new(),
            full_until: Instant(0),
            serving: BTreeMap::new(),
            audits: BTreeMap::new(),
        }
    }

    pub(super) fn used(&self) -> Used {
        self.used
    }

    pub(super) fn quota(&self) -> Quota {
        self.quota
    }

    pub(super) fn give(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Takes in nothing more from now on, or does again.
    pub(super) fn leave(&mut self, leaving: bool) {
        self.leaving = leaving;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// What those who store for this node may bring, all together.
    pub(super) fn reciprocal_most(peers: &Peers) -> u64 {
        peers.acquainted.held().saturating_mul(RECIPROCITY)
    }

    /// What is left for some, with what is promised.
    fn left(&self, depositor: Depositor) -> u64 {
        self.quota.room(&self.used.and(&self.promised), depositor)
    }

    /// What a peer may bring because it stores for this node, beside what it has brought.
    fn owed(&self, peers: &Peers, peer: &PeerId, now: Instant) -> u64 {
        if peers.is_distrusted(peer, now) {
            return 0;
        }
        let reciprocal = self.used.reciprocal.saturating_add(self.promised.reciprocal);
        // Of what has expired nobody said whose it was: but nobody has more here than all of them together.
        let brought = self.brought.get(peer).copied().unwrap_or(0).min(reciprocal);
        let own = peers.acquainted.held_by(peer).saturating_mul(RECIPROCITY).saturating_sub(brought);
        let all = Self::reciprocal_most(peers).saturating_sub(reciprocal);
        own.min(all).min(self.left(Depositor::Reciprocal))
    }

    /// For whom so many bytes of a peer would be kept, if there is room.
    pub(super) fn depositor(&self, peers: &Peers, peer: &PeerId, bytes: u64, now: Instant) -> Depositor {
        match peers.acquainted.of(peer) {
            Some(_) => Depositor::Known,
            None if bytes <= self.owed(peers, peer, now) => Depositor::Reciprocal,
            None => Depositor::Newcomer,
        }
    }

    /// What this node takes in for a peer.
    pub(super) fn hello(&self, peers: &Peers, peer: &PeerId, now: Instant) -> Hello {
        let (owed, is_known) = (self.owed(peers, peer, now), peers.acquainted.of(peer).is_some());
        let free = match is_known {
            true => self.left(Depositor::Known),
            false => self.left(Depositor::Newcomer).max(owed),
        };
        let (leaving, donated) = (self.leaving, self.quota.bytes);
        let to_newcomer = !leaving && !is_known && free < self.left(Depositor::Known);
        Hello { free: if leaving || self.full_until > now { 0 } else { free }, donated, to_newcomer, leaving }
    }

    /// Why there is no room for a peer.
    fn no_room(&self, now: Instant, bytes: u64) -> Refusal {
        match self.full_until <= now && bytes <= self.left(Depositor::Known) {
            _ if self.leaving => Refusal::Leaving,
            true => Refusal::NewcomersFull(NEWCOMERS_WAIT),
            false => Refusal::Full,
        }
    }

    pub(super) fn request(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        records: &mut Records,
        peer: PeerId,
        inbound: InboundId,
        request: Request,
    ) {
        let op = match self.check(context, peers, records, peer, request) {
            Ok(op) => op,
            Err(response) => {
                if response == Response::Refused(Refusal::Busy) {
                    peers.turned_away(context, peer);
                }
                context.effects.push(Effect::Reply { inbound, response });
                return;
            }
        };
        if !peers.serve(context, peer, SERVING_PER_PEER) {
            peers.fault(context, peer, Fault::Flood);
            context.effects.push(Effect::Reply { inbound, response: Response::Refused(Refusal::Busy) });
            return;
        }
        let (bytes, depositor) = match &op {
            StoreOp::Put { body, depositor, .. } => (body.len() as u64, *depositor),
            _ => (0, Depositor::Newcomer),
        };
        self.promised.add(depositor, bytes);
        if depositor == Depositor::Reciprocal {
            self.bring(peer, bytes);
        }
        let record = match &op {
            StoreOp::PutRecord { key, bytes } => {
                codec::decode::<Record>(bytes).ok().map(|record| (*key, record.sequence))
            }
            _ => None,
        };
        let is_audit = matches!(op, StoreOp::Prove { .. });
        if is_audit {
            *self.audits.entry(peer).or_default() += 1;
        }
        self.serving.insert(inbound, Promise { peer, bytes, depositor, record, is_audit });
        context.store(Waiter::Served(inbound), op);
    }

    fn check(
        &self,
        context: &mut Context,
        peers: &mut Peers,
        records: &mut Records,
        peer: PeerId,
        request: Request,
    ) -> Result<StoreOp, Response> {
        let now = context.now.unix.0;
        let is_timely = |lease: &Lease| lease.expires.0 > now && lease.expires.0 <= now.saturating_add(LEASE_MAX);
        let mut invalid = |fault| {
            peers.fault(context, peer, fault);
            Response::Refused(Refusal::Invalid)
        };
        // A lease whose time does not fit ours says that one of the two clocks is wrong, and not whose: no fault of
        // either side. The asker is told, so that somebody can look at a clock, and goes elsewhere for a while.
        let ill_timed = Response::Refused(Refusal::Clock);
        match request {
            Request::Hello(hello) => {
                peers.hello(context, peer, hello);
                Err(Response::Hello(self.hello(peers, &peer, context.now.mono)))
            }
            Request::Put { shard, lease, body } => {
                if blake3::hash(&body).as_bytes() != shard.as_bytes() {
                    return Err(invalid(Fault::Lie));
                }
                if !is_timely(&lease) {
                    return Err(ill_timed);
                }
                let (now, bytes) = (context.now.mono, body.len() as u64);
                if self.hello(peers, &peer, now).free < bytes {
                    return Err(Response::Refused(self.no_room(now, bytes)));
                }
                let depositor = self.depositor(peers, &peer, bytes, now);
                Ok(StoreOp::Put { shard, lease, body, depositor })
            }
            Request::Get { shard, offset, len } => Ok(StoreOp::Read { shard, offset, len }),
            Request::Have { shards } => Ok(StoreOp::Have { shards }),
            Request::Renew { leases } => match leases.iter().all(|(_, lease)| is_timely(lease)) {
                // How long the shards are is not known here, but in the store, which sees to it that all of those who store for
                // this node together have no more than they may.
                true => {
                    let depositor = self.depositor(peers, &peer, 1, context.now.mono);
                    let most = match depositor {
                        Depositor::Reciprocal => Self::reciprocal_most(peers),
                        Depositor::Known | Depositor::Newcomer => u64::MAX,
                    };
                    Ok(StoreOp::Renew { leases, depositor, most })
                }
                false => Err(ill_timed),
            },
            Request::Release { tokens } => {
                let leases = tokens.into_iter().map(|(shard, token)| (shard, token.key())).collect();
                Ok(StoreOp::Release { leases })
            }
            Request::Record { bytes } => records.asked(context, peers, peer, &bytes),
            Request::Audit { .. } if self.audits.get(&peer).is_some_and(|audits| *audits >= AUDITS_PER_PEER) => {
                Err(Response::Refused(Refusal::Busy))
            }
            Request::Audit { shard, chunk } => Ok(StoreOp::Prove { shard, chunk }),
            Request::Watch { key } => Err(records.watch(context, key, peer)),
        }
    }

    /// The store has answered: pass it on, and give back what was promised.
    pub(super) fn stored(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        records: &mut Records,
        inbound: InboundId,
        reply: StoreReply,
    ) {
        if let Some(promise) = self.serving.remove(&inbound) {
            if let (Some((key, sequence)), StoreReply::Done { .. }) = (promise.record, &reply) {
                records.is_durable(&key, sequence);
            }
            self.promised.remove(promise.depositor, promise.bytes);
            match &reply {
                StoreReply::Released { freed, .. } => self.give_back(&promise.peer, freed.reciprocal),
                StoreReply::Failed(_) if promise.depositor == Depositor::Reciprocal => {
                    self.give_back(&promise.peer, promise.bytes);
                }
                _ => {}
            }
            peers.served(&promise.peer);
            if promise.is_audit {
                let left = self.audits.remove(&promise.peer).unwrap_or_default().saturating_sub(1);
                if left > 0 {
                    self.audits.insert(promise.peer, left);
                }
            }
            if reply == StoreReply::Failed(StoreFault::Full) {
                self.full_until = context.now.mono.after(FULL_FOR);
            }
            if reply == StoreReply::Failed(StoreFault::Busy) {
                peers.turned_away(context, promise.peer);
            }
        }
        if let StoreReply::Done { used } | StoreReply::Renewed { used, .. } | StoreReply::Released { used, .. } = &reply
        {
            self.used = *used;
        }
        context.effects.push(Effect::Reply { inbound, response: response(reply) });
    }

    /// What one brings that stores for this node. Where too many do, those who have brought least make room: each of them could
    /// bring it once more, within what all may.
    fn bring(&mut self, peer: PeerId, bytes: u64) {
        let brought = self.brought.entry(peer).or_default();
        *brought = brought.saturating_add(bytes);
        if self.brought.len() > RECIPROCALS_MAX
            && let Some(least) = self.brought.iter().min_by_key(|(_, bytes)| **bytes).map(|(peer, _)| *peer)
        {
            self.brought.remove(&least);
        }
    }

    /// What it has brought is here no more.
    fn give_back(&mut self, peer: &PeerId, bytes: u64) {
        if let Some(brought) = self.brought.get_mut(peer) {
            *brought = brought.saturating_sub(bytes);
            if *brought == 0 {
                self.brought.remove(peer);
            }
        }
    }
}

/// What the store said, as a peer is told it.
pub(super) fn response(reply: StoreReply) -> Response {
    match reply {
        StoreReply::Done { .. } | StoreReply::Released { .. } => Response::Ok,
        StoreReply::Bytes(bytes) => Response::Bytes(bytes),
        StoreReply::Have(have) | StoreReply::Renewed { held: have, .. } => {
            let mut bits = vec![0u8; have.len().div_ceil(8)];
            for (i, _) in have.iter().enumerate().filter(|(_, have)| **have) {
                bits[i / 8] |= 1 << (i % 8);
            }
            Response::Have(bits)
        }
        StoreReply::Failed(fault) => Response::Refused(match fault {
            StoreFault::Full => Refusal::Full,
            StoreFault::NewcomersFull => Refusal::NewcomersFull(NEWCOMERS_WAIT),
            StoreFault::NotFound => Refusal::NotFound,
            StoreFault::Damaged => Refusal::Damaged,
            StoreFault::Disk(_) => Refusal::Disk,
            StoreFault::Busy => Refusal::Busy,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Input, Node, NodeConfig, Now};
    use super::*;
    use crate::id::ShardId;
    use crate::lease::LeaseToken;
    use crate::time::UnixSeconds;

    #[test]
    fn a_clock_that_is_wrong_blocks_nobody_and_a_wrong_address_does() {
        let (me, other, time) = (PeerId([1; 32]), PeerId([2; 32]), 1_000_000);
        let now = Now { mono: Instant(1), unix: UnixSeconds(time) };
        let mut node = Node::new(NodeConfig::new(me, |_, key| key.0, Quota::for_all(1 << 20), Used::default()));
        let body = bytes::Bytes::from_static(b"a shard");
        let shard = ShardId(*blake3::hash(&body).as_bytes());
        let lease = |until| Lease { key: LeaseToken([3; 32]).key(), expires: UnixSeconds(until) };
        let put = |lease| Request::Put { shard, lease, body: body.clone() };
        let mut step = |request| node.step(now, Input::Request { peer: other, inbound: InboundId(7), request });
        let answers = |effects: &[Effect], refusal| {
            let refused = Response::Refused(refusal);
            effects.iter().any(|effect| matches!(effect, Effect::Reply { response, .. } if *response == refused))
        };
        let blocks = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Block { .. }));

        for _ in 0..10 {
            let renew = |until| Request::Renew { leases: vec![(shard, lease(time + 9)), (shard, lease(until))] };
            let puts = [put(lease(time)), put(lease(time + LEASE_MAX + 1)), put(lease(u64::MAX))];
            for request in puts.into_iter().chain([renew(time), renew(u64::MAX)]) {
                let effects = step(request);
                assert!(answers(&effects, Refusal::Clock) && !blocks(&effects), "{effects:?}");
            }
        }
        let effects = step(put(lease(time + LEASE_MAX)));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Store { .. })), "{effects:?}");
        // The address is looked at first: a time that is wrong as well excuses nothing.
        let forged = || Request::Put { shard: ShardId([1; 32]), lease: lease(time), body: body.clone() };
        let effects: Vec<Effect> = (0..3).flat_map(|_| step(forged())).collect();
        assert!(answers(&effects, Refusal::Invalid) && blocks(&effects), "{effects:?}");
    }
}

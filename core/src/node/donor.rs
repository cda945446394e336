//! The donor's side: what a node does for others. It keeps shards it cannot read for owners it does not know.

use std::collections::BTreeMap;

use super::peers::{Fault, Peers};
use super::records::Records;
use super::{Context, Effect, InboundId, Waiter};
use crate::codec;
use crate::id::{PeerId, RecordKey};
use crate::lease::Lease;
use crate::limits::{AUDITS_PER_PEER, SERVING_PER_PEER};
use crate::port::{StoreFault, StoreOp, StoreReply};
use crate::record::Record;
use crate::time::Instant;
use crate::wire::{Hello, Refusal, Request, Response};

/// Longest lease that is granted: a little over a year.
const LEASE_MAX: u64 = 400 * 24 * 3600;

/// How long a disk that was full is taken for full, in milliseconds: then somebody may try again.
const FULL_FOR: u64 = 60_000;

/// A request that is being served. Space that is promised to a put under way is not offered twice.
struct Promise {
    peer: PeerId,
    bytes: u64,
    /// Key and sequence number of a record.
    record: Option<(RecordKey, u64)>,
    /// A whole shard is read for it.
    is_audit: bool,
}

pub(super) struct Donor {
    donated: u64,
    used: u64,
    promised: u64,
    /// The disk is full, whatever is donated: until then nothing is offered.
    full_until: Instant,
    serving: BTreeMap<InboundId, Promise>,
    /// Audits of each peer among those.
    audits: BTreeMap<PeerId, usize>,
}

impl Donor {
    pub(super) fn new(donated: u64, used: u64) -> Self {
        Self { donated, used, promised: 0, full_until: Instant(0), serving: BTreeMap::new(), audits: BTreeMap::new() }
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn hello(&self, now: Instant) -> Hello {
        let left = self.donated.saturating_sub(self.used + self.promised);
        Hello { free: if self.full_until > now { 0 } else { left }, donated: self.donated }
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
        let bytes = match &request {
            Request::Put { body, .. } => body.len() as u64,
            _ => 0,
        };
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
        self.promised += bytes;
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
        self.serving.insert(inbound, Promise { peer, bytes, record, is_audit });
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
                Err(Response::Hello(self.hello(context.now.mono)))
            }
            Request::Put { shard, lease, body } => {
                if blake3::hash(&body).as_bytes() != shard.as_bytes() {
                    return Err(invalid(Fault::Lie));
                }
                if !is_timely(&lease) {
                    return Err(ill_timed);
                }
                if self.hello(context.now.mono).free < body.len() as u64 {
                    return Err(Response::Refused(Refusal::Full));
                }
                Ok(StoreOp::Put { shard, lease, body })
            }
            Request::Get { shard, offset, len } => Ok(StoreOp::Read { shard, offset, len }),
            Request::Have { shards } => Ok(StoreOp::Have { shards }),
            Request::Renew { leases } => match leases.iter().all(|(_, lease)| is_timely(lease)) {
                true => Ok(StoreOp::Renew { leases }),
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
            self.promised = self.promised.saturating_sub(promise.bytes);
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
        if let StoreReply::Done { used } | StoreReply::Renewed { used, .. } = &reply {
            self.used = *used;
        }
        context.effects.push(Effect::Reply { inbound, response: response(reply) });
    }
}

/// What the store said, as a peer is told it.
pub(super) fn response(reply: StoreReply) -> Response {
    match reply {
        StoreReply::Done { .. } => Response::Ok,
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
        let mut node = Node::new(NodeConfig::new(me, |_, key| key.0, 1 << 20, 0));
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

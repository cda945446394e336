//! A disk that is stricter than a real one: what was not synced before a crash is gone or torn, an answer comes only
//! when the write is down, full means full, and rot is noticed on reading.

use std::collections::BTreeMap;

use bytes::Bytes;
use hypernet_core::audit;
use hypernet_core::codec;
use hypernet_core::id::{RecordKey, ShardId};
use hypernet_core::lease::LeaseKey;
use hypernet_core::node::RequestId;
use hypernet_core::port::{StoreFault, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Used};
use hypernet_core::record::Record;

/// A shard on a disk.
pub(crate) struct Kept {
    pub(crate) body: Bytes,
    lease: LeaseKey,
    /// It no longer matches its address.
    pub(crate) damaged: bool,
}

/// One node's disk.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) shards: BTreeMap<ShardId, Kept>,
    pub(crate) records: BTreeMap<RecordKey, Vec<u8>>,
    /// What was handed over and is not down yet.
    pub(crate) writing: BTreeMap<RequestId, StoreOp>,
    /// When the last write that waits will be down: writes do not overtake one another.
    pub(crate) synced_at: u64,
    /// No room until then.
    pub(crate) full_until: u64,
}

impl Disk {
    /// Bytes of all shards.
    pub(crate) fn used(&self) -> u64 {
        self.shards.values().map(|kept| kept.body.len() as u64).sum()
    }

    /// The same, as it is told: here nobody knows anybody.
    pub(crate) fn told(&self) -> Used {
        Used::by(Depositor::Newcomer, self.used())
    }

    /// Whether this shard is here and whole.
    pub(crate) fn has_good(&self, shard: &ShardId) -> bool {
        self.shards.get(shard).is_some_and(|kept| !kept.damaged)
    }

    /// Performs what was written. `keeps` is false for a liar that only says so.
    pub(crate) fn commit(&mut self, op: StoreOp, now: u64, keeps: bool) -> StoreReply {
        match op {
            StoreOp::Put { shard, lease, body, .. } => {
                if now < self.full_until && !self.has_good(&shard) {
                    return StoreReply::Failed(StoreFault::Full);
                }
                if keeps {
                    self.shards.insert(shard, Kept { body, lease: lease.key, damaged: false });
                }
                StoreReply::Done { used: self.told() }
            }
            StoreOp::Read { shard, offset, len } => match self.shards.get(&shard) {
                None => StoreReply::Failed(StoreFault::NotFound),
                Some(kept) if kept.damaged => StoreReply::Failed(StoreFault::Damaged),
                Some(kept) => {
                    let end = (offset as usize).saturating_add(len as usize).min(kept.body.len());
                    StoreReply::Bytes(kept.body.slice((offset as usize).min(end)..end))
                }
            },
            StoreOp::Prove { shard, chunk } => match self.shards.get(&shard) {
                None => StoreReply::Failed(StoreFault::NotFound),
                Some(kept) if kept.damaged => StoreReply::Failed(StoreFault::Damaged),
                Some(kept) => StoreReply::Bytes(audit::prove(&kept.body, chunk).unwrap_or_default().into()),
            },
            StoreOp::Have { shards } => {
                StoreReply::Have(shards.iter().map(|shard| self.shards.contains_key(shard)).collect())
            }
            StoreOp::Renew { leases, .. } => {
                let held = leases.iter().map(|(shard, _)| self.has_good(shard)).collect();
                StoreReply::Renewed { used: self.told(), held }
            }
            // Stricter than a real one, which keeps them for as long as it has room.
            StoreOp::Release { leases } => {
                let before = self.used();
                for (shard, key) in leases {
                    if self.shards.get(&shard).is_some_and(|kept| kept.lease == key) {
                        self.shards.remove(&shard);
                    }
                }
                let freed = Used::by(Depositor::Newcomer, before - self.used());
                StoreReply::Released { used: self.told(), freed }
            }
            StoreOp::PutRecord { key, bytes } => {
                let held = self.records.get(&key).and_then(|held| codec::decode::<Record>(held).ok());
                let newer =
                    codec::decode::<Record>(&bytes).is_ok_and(|record| held.is_none_or(|h| !h.replaces(&record)));
                if newer {
                    self.records.insert(key, bytes);
                }
                StoreReply::Done { used: self.told() }
            }
        }
    }

    /// The power goes: what waits is lost, and some of it leaves a torn shard behind, as `tears` decides.
    pub(crate) fn crash(&mut self, mut tears: impl FnMut() -> bool) {
        for op in std::mem::take(&mut self.writing).into_values() {
            if let StoreOp::Put { shard, lease, body, .. } = op
                && !self.shards.contains_key(&shard)
                && tears()
            {
                let torn = body.slice(..body.len() / 2);
                self.shards.insert(shard, Kept { body: torn, lease: lease.key, damaged: true });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::lease::Lease;
    use hypernet_core::time::UnixSeconds;

    use super::*;

    fn put(body: &'static [u8]) -> (ShardId, StoreOp) {
        let shard = ShardId(*blake3::hash(body).as_bytes());
        let lease = Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(1) };
        (shard, StoreOp::Put { shard, lease, body: Bytes::from_static(body), depositor: Depositor::Newcomer })
    }

    #[test]
    fn a_crash_loses_or_tears_what_was_not_down_and_nothing_else() {
        let mut disk = Disk::default();
        let ((down, first), (lost, second), (torn, third)) = (put(b"down"), put(b"lost"), put(b"torn"));
        disk.commit(first, 0, true);
        disk.writing.insert(RequestId(1), second);
        disk.writing.insert(RequestId(2), third);
        let mut tears = [false, true].into_iter();
        disk.crash(|| tears.next().unwrap());
        assert!(disk.has_good(&down) && !disk.shards.contains_key(&lost));
        assert!(disk.shards.contains_key(&torn) && !disk.has_good(&torn));
        let read = StoreOp::Read { shard: torn, offset: 0, len: 2 };
        assert_eq!(disk.commit(read, 0, true), StoreReply::Failed(StoreFault::Damaged));
    }
}

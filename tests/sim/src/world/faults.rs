//! What breaks, and how much of it at once: no more than the mesh has promised to survive, so that every failure of
//! a check is a failure of the code.

use std::collections::BTreeSet;

use bytes::Bytes;
use hypernet_core::codec;
use hypernet_core::id::ShardId;
use hypernet_core::lease::{Lease, LeaseToken};
use hypernet_core::node::{Input, Node, RequestId};
use hypernet_core::record::Record;
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::Request;

use super::network::Partition;
use super::{EPOCH, Event, Manner, World};

impl World {
    fn down(&self) -> BTreeSet<usize> {
        let mut down: BTreeSet<usize> = (0..self.hosts.len()).filter(|i| !self.hosts[*i].up()).collect();
        down.extend(self.network.partitions.values().flat_map(|partition| partition.group.iter().copied()));
        down
    }

    pub(super) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let after = self.random.between(1, 2 * self.config.fault_every);
        self.push(after, Event::Fault);
        let at = self.victim();
        let down = self.down();
        let may_go_down = down.len() < self.config.down_max && !down.contains(&at);
        match self.random.below(100) {
            0..30 if may_go_down => {
                self.crash(at);
                let after = self.random.between(1_000, 50_000);
                self.push(after, Event::Restart { node: at });
            }
            30..45 if may_go_down => {
                self.counts.freezes += 1;
                self.note(10, [at as u64, 0, 0]);
                self.hosts[at].frozen = Some(Vec::new());
                self.hosts[at].trouble = self.now;
                let after = self.random.between(500, 30_000);
                self.push(after, Event::Thaw { node: at });
            }
            45..60 if may_go_down => self.partition(at, &down),
            60..72 => self.rot(at),
            72..80 => {
                self.counts.full += 1;
                self.hosts[at].disk.full_until = self.now + self.random.between(5_000, 60_000);
            }
            80..84 => {
                self.hosts[at].skew = self.random.below(2 * self.config.skew + 1) as i64 - self.config.skew as i64
            }
            _ => {}
        }
        if self.config.liars > 0 {
            let liar = self.config.owners + self.random.index(self.config.liars);
            self.mischief(liar, at);
        }
    }

    /// Whom a fault hits: anyone, but rather owners and nodes whose disks have not synced, where it hurts.
    fn victim(&mut self) -> usize {
        let writing: Vec<usize> = (0..self.hosts.len()).filter(|i| !self.hosts[*i].disk.writing.is_empty()).collect();
        match self.random.below(4) {
            0 => self.random.index(self.config.owners),
            1 if !writing.is_empty() => writing[self.random.index(writing.len())],
            _ => self.random.index(self.hosts.len()),
        }
    }

    fn crash(&mut self, at: usize) {
        self.counts.crashes += 1;
        self.note(11, [at as u64, 0, 0]);
        let now = self.now;
        let host = &mut self.hosts[at];
        host.node = None;
        host.frozen = None;
        host.life += 1;
        host.trouble = now;
        host.pending.clear();
        host.blocked.clear();
        host.kept.clear();
        host.unserved.clear();
        host.yesterday.clear();
        host.wake = None;
        host.disk.synced_at = 0;
        let random = &mut self.random;
        host.disk.crash(|| random.chance(5_000));
        let connected: Vec<usize> = std::mem::take(&mut host.connected).into_keys().collect();
        for other in connected {
            let noticed = self.random.between(200, 8_000);
            self.sever(other, at, noticed);
        }
        self.inbound.retain(|_, inbound| inbound.at != at);
        self.book.finding.retain(|(node, _), _| *node != at);
        let before = self.book.tasks.len();
        self.book.tasks.retain(|_, task| task.node != at);
        self.counts.aborted += (before - self.book.tasks.len()) as u64;
        self.check_recoverable();
    }

    pub(super) fn restart(&mut self, at: usize) {
        if self.hosts[at].node.is_some() {
            return;
        }
        self.counts.restarts += 1;
        self.note(12, [at as u64, 0, 0]);
        self.hosts[at].trouble = self.now;
        let node = Node::new(self.node_config(at));
        self.hosts[at].node = Some(node);
        let held: Vec<_> = self.hosts[at].disk.records.iter().map(|(key, bytes)| (*key, bytes.clone())).collect();
        for (key, bytes) in held {
            self.step(at, Input::RecordHeld { bytes });
            if !self.hosts[at].kept.contains_key(&key) && !self.hosts[at].unserved.contains_key(&key) {
                self.violate(|| format!("node {at} does not serve a record that it had on its disk"));
            }
        }
        self.dial_all(at);
    }

    pub(super) fn thaw(&mut self, at: usize) {
        let Some(waiting) = self.hosts[at].frozen.take() else { return };
        self.note(13, [at as u64, waiting.len() as u64, 0]);
        let frozen_for = self.now - self.hosts[at].trouble;
        self.hosts[at].trouble = self.now;
        for task in self.book.tasks.values_mut().filter(|task| task.node == at) {
            task.deadline += frozen_for;
        }
        for event in waiting {
            self.push(0, event);
        }
    }

    fn partition(&mut self, at: usize, down: &BTreeSet<usize>) {
        self.counts.partitions += 1;
        let size = self.random.between(1, (self.config.down_max - down.len()) as u64);
        let mut group = BTreeSet::from([at]);
        for _ in 1..size {
            let other = self.random.index(self.hosts.len());
            if !down.contains(&other) {
                group.insert(other);
            }
        }
        let (deaf, mute) = [(true, false), (false, true), (true, true)][self.random.index(3)];
        self.note(14, [at as u64, group.len() as u64, u64::from(deaf) * 2 + u64::from(mute)]);
        for inside in &group {
            self.hosts[*inside].trouble = self.now;
            let connected: Vec<usize> = self.hosts[*inside].connected.keys().copied().collect();
            for outside in connected.into_iter().filter(|other| !group.contains(other)) {
                if self.random.chance(5_000) {
                    let noticed = self.random.between(4_000, 15_000);
                    self.sever(*inside, outside, noticed);
                    self.sever(outside, *inside, noticed + 500);
                }
            }
        }
        let partition = self.network.next_partition;
        self.network.next_partition += 1;
        self.network.partitions.insert(partition, Partition { group, deaf, mute });
        let after = self.random.between(3_000, 45_000);
        self.push(after, Event::Heal { partition });
    }

    pub(super) fn heal(&mut self, partition: u64) {
        let Some(Partition { group, .. }) = self.network.partitions.remove(&partition) else { return };
        for at in group {
            self.hosts[at].trouble = self.now;
            self.dial_all(at);
        }
    }

    /// Damages a shard at `at`, if its segment can bear it even when every liar holds a row of it.
    fn rot(&mut self, at: usize) {
        let shards: Vec<ShardId> = self.hosts[at].disk.shards.keys().copied().collect();
        if shards.is_empty() || self.hosts[at].manner != Manner::Honest {
            return;
        }
        let shard = shards[self.random.index(shards.len())];
        let Some(lot) = self.book.lot_of.get(&shard).map(|lot| &mut self.book.lots[*lot]) else { return };
        if lot.rotten + self.config.liars < usize::from(lot.n - lot.k) && self.hosts[at].disk.has_good(&shard) {
            lot.rotten += 1;
            self.counts.rot += 1;
            if let Some(kept) = self.hosts[at].disk.shards.get_mut(&shard) {
                kept.damaged = true;
            }
            self.note(15, [at as u64, u64::from(shard.0[0]), 0]);
        }
    }

    /// A liar sends something that is wrong.
    fn mischief(&mut self, liar: usize, victim: usize) {
        if liar == victim || !self.reachable(liar, victim) {
            return;
        }
        self.counts.mischief += 1;
        let body = Bytes::from(self.random.bytes(4096));
        let shard = ShardId(*blake3::hash(&body).as_bytes());
        let soon = UnixSeconds(EPOCH + self.now / 1000 + 86_400);
        let token = LeaseToken([7; 32]);
        let lease = |expires| Lease { key: token.key(), expires };
        let request = match self.random.below(6) {
            0 => {
                let shard = ShardId([9; 32]);
                Request::Put { shard, lease: lease(soon), body }
            }
            // Of what somebody else has placed, whose token nobody can know.
            1 => {
                let held: Vec<ShardId> = self.hosts[victim].disk.shards.keys().copied().collect();
                let shard = if held.is_empty() { shard } else { held[self.random.index(held.len())] };
                Request::Release { tokens: vec![(shard, token)] }
            }
            2 => Request::Put { shard, lease: lease(UnixSeconds(5)), body },
            3 => Request::Get { shard, offset: 0, len: 1 },
            4 => match self.forged_record(liar) {
                Some(bytes) => Request::Record { bytes: bytes.into() },
                None => return,
            },
            _ => {
                let (life, id) = (self.hosts[liar].life, RequestId(u64::MAX));
                let message = (self.random.bytes(40), Bytes::new());
                return self.push(30, Event::Arrive { to: victim, from: liar, life, id, message });
            }
        };
        // No such request is pending at the liar, so the answer goes nowhere.
        let (life, id) = (self.hosts[liar].life, RequestId(u64::MAX));
        self.push(30, Event::Arrive { to: victim, from: liar, life, id, message: request.to_parts() });
    }

    /// A record of an owner, bent, broken off or of yesterday.
    fn forged_record(&mut self, liar: usize) -> Option<Vec<u8>> {
        let key = self.book.record_key(self.random.index(self.config.owners));
        let (bytes, _) = self.hosts[liar].kept.get(&key).cloned()?;
        Some(match self.random.below(3) {
            0 => {
                let record = codec::decode::<Record>(&bytes).ok()?;
                codec::encode(&Record { sequence: record.sequence + 1_000, ..record })
            }
            1 => bytes[..bytes.len() / 2].to_vec(),
            _ => self.hosts[liar].yesterday.get(&key).cloned().unwrap_or(bytes),
        })
    }

    /// The storm is over: everything comes back, and nothing is lost any more. Liars stay liars.
    pub(super) fn calm(&mut self) {
        self.quiet = true;
        self.config.loss = 0;
        self.config.disk_faults = 0;
        for at in 0..self.hosts.len() {
            self.hosts[at].disk.full_until = 0;
            self.restart(at);
            self.thaw(at);
        }
        let partitions: Vec<u64> = self.network.partitions.keys().copied().collect();
        for partition in partitions {
            self.heal(partition);
        }
    }
}

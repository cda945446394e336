//! The network between the nodes: latency that lets messages overtake one another, loss, duplication, one-way
//! partitions, connections whose end is noticed late. A request has one outcome here as everywhere.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::id::PeerId;
use hypernet_core::limits::{AUDIT_PROOF_MAX, IN_FLIGHT_PER_PEER, SERVING_PER_PEER};
use hypernet_core::node::{Destination, InboundId, Input, RequestId, SendFault};
use hypernet_core::placement::Subnet;
use hypernet_core::port::{StoreFault, StoreOp, StoreReply};
use hypernet_core::wire::{Refusal, Request, Response};

use super::{Event, Manner, Message, World};

/// Time that dialling someone who does not answer takes.
const DIAL: u64 = 3_000;
/// Bytes that a link carries in a millisecond.
const RATE: u64 = 10_000;
/// Requests of one peer that are in the store at once: the node's bound, and those that come twice are no excuse.
const SERVED_MAX: usize = SERVING_PER_PEER;

/// A request whose outcome is open.
pub(super) struct Pending {
    pub(super) to: usize,
}

/// A request that a node has got and not answered.
pub(super) struct Inbound {
    pub(super) at: usize,
    pub(super) from: usize,
    life: u32,
    id: RequestId,
    pub(super) since: u64,
}

/// Nodes that are cut off from the rest.
pub(super) struct Partition {
    pub(super) group: BTreeSet<usize>,
    /// They do not hear the others.
    pub(super) deaf: bool,
    /// The others do not hear them.
    pub(super) mute: bool,
}

/// What is between the nodes.
#[derive(Default)]
pub(super) struct Network {
    pub(super) partitions: BTreeMap<u64, Partition>,
    pub(super) next_partition: u64,
    generation: u64,
    /// When a message between two nodes was last lost.
    trouble: BTreeMap<(usize, usize), u64>,
}

impl Network {
    /// Whether what `from` sends reaches `to`.
    pub(super) fn open(&self, from: usize, to: usize) -> bool {
        self.partitions.values().all(|partition| {
            let (inside, other) = (partition.group.contains(&from), partition.group.contains(&to));
            inside == other || !(inside && partition.mute || other && partition.deaf)
        })
    }

    pub(super) fn troubled_since(&self, a: usize, b: usize, since: u64) -> bool {
        self.trouble.get(&(a.min(b), a.max(b))).is_some_and(|at| *at >= since)
    }
}

impl World {
    /// Decides who knows whom.
    pub(super) fn introduce(&mut self) {
        let count = self.hosts.len();
        let full = self.config.neighbours + 1 >= count;
        let mut pairs = BTreeSet::new();
        for a in 0..count {
            if full {
                pairs.extend((a + 1..count).map(|b| (a, b)));
            } else {
                for _ in 0..self.config.neighbours / 2 {
                    let b = self.random.index(count);
                    if a != b {
                        pairs.insert((a.min(b), a.max(b)));
                    }
                }
            }
        }
        for (a, b) in pairs {
            self.hosts[a].neighbours.push(b);
            self.hosts[b].neighbours.push(a);
        }
    }

    /// Whom a node knows, it dials.
    pub(super) fn dial_all(&mut self, a: usize) {
        let life = self.hosts[a].life;
        for b in self.hosts[a].neighbours.clone() {
            let after = self.random.between(1, 2_000);
            self.push(after, Event::Connect { a, life, b });
        }
    }

    fn latency(&mut self, a: usize, b: usize, bytes: usize) -> u64 {
        // A fixed part per link, by hash rather than by a table of a million pairs.
        let mixed = (a as u64 ^ (b as u64) << 20 ^ self.seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let base = 1 + mixed % self.config.latency.max(1);
        let slow = if self.random.chance(50) { 10 } else { 1 };
        if slow > 1 {
            // Late enough to count as lost for whoever could not wait.
            self.trouble(a, b);
        }
        (base + self.random.below(self.config.jitter + 1)) * slow + bytes as u64 / RATE
    }

    fn lose(&mut self, a: usize, b: usize) {
        self.counts.lost += 1;
        self.trouble(a, b);
    }

    fn trouble(&mut self, a: usize, b: usize) {
        let now = self.now;
        self.network.trouble.insert((a.min(b), a.max(b)), now);
    }

    fn blocks(&self, at: usize, other: usize) -> bool {
        self.hosts[at].blocked.get(&other).is_some_and(|until| *until > self.now)
    }

    /// Whether `a` and `b` could talk now.
    pub(super) fn reachable(&self, a: usize, b: usize) -> bool {
        self.hosts[a].up()
            && self.hosts[b].up()
            && self.network.open(a, b)
            && self.network.open(b, a)
            && !self.blocks(a, b)
            && !self.blocks(b, a)
    }

    pub(super) fn connect(&mut self, a: usize, life: u32, b: usize) {
        if !self.lives(a, life) || self.hosts[b].node.is_none() {
            return;
        }
        let both = self.hosts[a].connected.get(&b).is_some_and(|g| self.hosts[b].connected.get(&a) == Some(g));
        if both {
            return;
        }
        if self.reachable(a, b) {
            self.establish(a, b);
        } else {
            let after = self.random.between(3_000, 8_000);
            self.push(after, Event::Connect { a, life, b });
        }
    }

    fn establish(&mut self, a: usize, b: usize) {
        self.network.generation += 1;
        let generation = self.network.generation;
        for (x, y) in [(a, b), (b, a)] {
            self.hosts[x].connected.insert(y, generation);
            let (life, peer) = (self.hosts[x].life, self.hosts[y].id);
            let after = self.latency(x, y, 0);
            self.push(after, Event::Input { to: x, life, input: Input::Connected(peer) });
            // A few nodes share a subnet.
            let subnet = Subnet::v4([9, (y >> 10) as u8, (y >> 2) as u8, 1]);
            self.push(after, Event::Input { to: x, life, input: Input::SeenAt { peer, subnet } });
        }
    }

    /// `a` will notice that its connection to `b` is gone.
    pub(super) fn sever(&mut self, a: usize, b: usize, after: u64) {
        if let Some(generation) = self.hosts[a].connected.get(&b).copied() {
            let life = self.hosts[a].life;
            self.push(after, Event::Lost { a, life, b, generation });
        }
    }

    pub(super) fn lost(&mut self, a: usize, life: u32, b: usize, generation: u64) {
        if !self.lives(a, life) || self.hosts[a].connected.get(&b) != Some(&generation) {
            return;
        }
        self.hosts[a].connected.remove(&b);
        let peer = self.hosts[b].id;
        self.step(a, Input::Disconnected(peer));
        let after = self.random.between(1_000, 4_000);
        self.push(after, Event::Connect { a, life, b });
    }

    /// Performs a send of `a`. Its outcome comes by an answer, by a failed dial, or at the deadline.
    pub(super) fn send(&mut self, a: usize, to: Destination, id: RequestId, request: &Request, within: u64) {
        let Destination::Peer(peer) = to;
        let Some(b) = self.by_id.get(&peer).copied() else {
            return self.violate(|| format!("node {a} sends to a peer that never was"));
        };
        self.counts.sent += 1;
        self.note(2, [a as u64, b as u64, id.0]);
        let life = self.hosts[a].life;
        if self.hosts[a].pending.insert(id, Pending { to: b }).is_some() {
            self.violate(|| format!("node {a} uses {id:?} twice"));
        }
        let under_way = self.hosts[a].pending.values().filter(|pending| pending.to == b).count();
        if under_way > IN_FLIGHT_PER_PEER {
            self.violate(|| format!("node {a} has {under_way} requests under way to node {b}"));
        }
        if a == b {
            self.violate(|| format!("node {a} sends to itself over the network"));
        }
        let message = request.to_parts();
        self.check_sealed(a, "a request", &message.1);
        self.push(within, Event::Answer { to: a, life, id, result: Err(SendFault::Deadline) });
        let mut after = 0;
        if !self.hosts[a].connected.contains_key(&b) {
            if !self.reachable(a, b) {
                self.lose(a, b);
                let result = Err(SendFault::Unreachable);
                return self.push(DIAL.min(within), Event::Answer { to: a, life, id, result });
            }
            self.establish(a, b);
            after = self.latency(a, b, 0) + self.latency(b, a, 0);
        }
        if !self.network.open(a, b) || self.random.chance(self.config.loss) {
            return self.lose(a, b);
        }
        after += self.latency(a, b, message.1.len());
        if self.random.chance(self.config.duplicates) {
            self.counts.duplicated += 1;
            let again = after + self.random.between(0, 3_000);
            self.push(again, Event::Arrive { to: b, from: a, life, id, message: message.clone() });
        }
        self.push(after, Event::Arrive { to: b, from: a, life, id, message });
    }

    pub(super) fn arrive(&mut self, to: usize, from: usize, life: u32, id: RequestId, message: Message) {
        if self.hosts[to].node.is_none() || self.blocks(to, from) || !self.network.open(from, to) {
            return self.lose(from, to);
        }
        let peer = self.hosts[from].id;
        match Request::from_parts(&message.0, message.1) {
            Ok(request) => {
                let inbound = self.next_inbound;
                self.next_inbound += 1;
                self.inbound.insert(inbound, Inbound { at: to, from, life, id, since: self.now });
                if let Request::Record { bytes } = &request {
                    self.remember_record(to, bytes);
                }
                self.step(to, Input::Request { peer, inbound: InboundId(inbound), request });
            }
            Err(error) if self.hosts[from].manner == Manner::Honest => {
                self.violate(|| format!("node {from} sends what cannot be read: {error}"));
            }
            Err(_) => self.step(to, Input::Misbehaved { peer }),
        }
    }

    /// Performs a reply of `at`. Only the first answer to a request that came twice counts.
    pub(super) fn reply(&mut self, at: usize, inbound: InboundId, response: Response) {
        let Some(Inbound { at: asked, from, life, id, .. }) = self.inbound.remove(&inbound.0) else {
            return self.violate(|| format!("node {at} answers {inbound:?}, which it was not asked or has answered"));
        };
        if asked != at {
            return self.violate(|| format!("node {at} answers for node {asked}"));
        }
        let response = self.bend(at, response);
        let message = response.to_parts();
        self.note(3, [at as u64, from as u64, message.1.len() as u64]);
        self.check_sealed(at, "an answer", &message.1);
        if !self.network.open(at, from) || self.random.chance(self.config.loss) {
            return self.lose(at, from);
        }
        let after = self.latency(at, from, message.1.len());
        self.push(after, Event::Answer { to: from, life, id, result: Ok(message) });
    }

    fn bend(&mut self, at: usize, response: Response) -> Response {
        match (self.hosts[at].manner, response) {
            (Manner::Bender, Response::Bytes(bytes)) if !bytes.is_empty() => {
                let mut bent = bytes.to_vec();
                match self.random.below(8) {
                    0 => bent.truncate(bytes.len() / 2),
                    1 => return Response::Ok,
                    _ => {
                        let at = self.random.index(bent.len());
                        bent[at] ^= 1;
                    }
                }
                Response::Bytes(bent.into())
            }
            // It makes one up rather than to say that it has none: as long as one of a shard of that length is.
            (Manner::Forgetter, Response::Refused(Refusal::NotFound)) if self.random.chance(5_000) => {
                Response::Bytes(self.random.bytes(AUDIT_PROOF_MAX).into())
            }
            (Manner::Forgetter, Response::Have(bits)) => Response::Have(vec![0xff; bits.len()]),
            (_, response) => response,
        }
    }

    /// Delivers the outcome of a request, unless it has had one.
    pub(super) fn answer(&mut self, to: usize, life: u32, id: RequestId, result: Result<Message, SendFault>) {
        if !self.lives(to, life) || self.hosts[to].pending.remove(&id).is_none() {
            return;
        }
        let result = result.and_then(|(header, body)| {
            Response::from_parts(&header, body).map_err(|error| SendFault::Malformed(error.to_string()))
        });
        self.step(to, Input::Response { id, result });
    }

    /// Hands an operation to the disk of `at`.
    pub(super) fn write(&mut self, at: usize, id: RequestId, op: StoreOp) {
        match &op {
            StoreOp::Put { shard, body, .. } => {
                if blake3::hash(body).as_bytes() != shard.as_bytes() {
                    self.violate(|| format!("node {at} stores bytes that are not {shard:?}"));
                }
                self.check_sealed(at, "its disk", body);
            }
            StoreOp::PutRecord { bytes, .. } => self.check_sealed(at, "its disk", bytes),
            StoreOp::Read { .. }
            | StoreOp::Prove { .. }
            | StoreOp::Have { .. }
            | StoreOp::Renew { .. }
            | StoreOp::Release { .. } => {}
        }
        let served = self.inbound.values().filter(|inbound| inbound.at == at);
        let mut per_peer: BTreeMap<usize, usize> = BTreeMap::new();
        served.for_each(|inbound| *per_peer.entry(inbound.from).or_default() += 1);
        if per_peer.values().any(|count| *count > SERVED_MAX) {
            self.violate(|| format!("node {at} serves more than {SERVED_MAX} requests of one peer"));
        }
        let after = match &op {
            StoreOp::Read { .. } | StoreOp::Prove { .. } | StoreOp::Have { .. } => self.random.between(1, 5),
            _ => {
                let down = (self.now + self.random.between(1, self.config.sync)).max(self.hosts[at].disk.synced_at);
                self.hosts[at].disk.synced_at = down;
                down - self.now
            }
        };
        let life = self.hosts[at].life;
        self.hosts[at].disk.writing.insert(id, op);
        self.push(after, Event::Commit { node: at, life, id });
    }

    pub(super) fn commit(&mut self, at: usize, life: u32, id: RequestId) {
        if !self.lives(at, life) {
            return;
        }
        let Some(op) = self.hosts[at].disk.writing.remove(&id) else { return };
        let reply = if self.random.chance(self.config.disk_faults) {
            let now = self.now;
            self.hosts[at].trouble = now;
            StoreReply::Failed(if self.random.chance(5_000) {
                StoreFault::Busy
            } else {
                StoreFault::Disk("an injected fault".into())
            })
        } else {
            let keeps = self.hosts[at].manner != Manner::Forgetter || self.random.chance(5_000);
            self.hosts[at].disk.commit(op, self.now, keeps)
        };
        let (used, donated) = (self.hosts[at].disk.used(), self.hosts[at].donated);
        if used > donated {
            self.violate(|| format!("node {at} stores {used} bytes of the {donated} it gives"));
        }
        self.step(at, Input::Stored { id, reply });
    }

    /// Performs a block: nothing goes to or comes from that peer for a while.
    pub(super) fn block(&mut self, at: usize, peer: PeerId, millis: u64) {
        let Some(other) = self.by_id.get(&peer).copied() else { return };
        let both_honest = self.hosts[at].manner == Manner::Honest && self.hosts[other].manner == Manner::Honest;
        if both_honest {
            self.violate(|| format!("node {at} blocks node {other}, which did nothing wrong"));
        }
        self.counts.blocks += 1;
        self.note(4, [at as u64, other as u64, millis]);
        let now = self.now;
        self.hosts[at].blocked.insert(other, now + millis);
        self.sever(at, other, 1);
        self.sever(other, at, 50);
    }
}

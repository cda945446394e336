//! Somebody who has segments on the mesh: the very node, and what an agent does with it from day to day.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hypernet_core::id::PeerId;
use hypernet_core::node::{Command, CommandId, Destination, Effect, Input, Node, NodeConfig, Outcome};
use hypernet_core::quota::{Quota, Used};
use hypernet_core::wire::{Request, Response};

use super::lot::Lot;
use super::mesh::{Mesh, clocks};
use super::report::{Doing, Traffic};

/// A peer that an owner is connected to when it is there.
struct Known {
    slot: usize,
    generation: u32,
    id: PeerId,
    connected: bool,
}

/// What comes to a node at a time.
struct Mail {
    at: u64,
    sequence: u64,
    input: Input,
}

impl PartialEq for Mail {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Mail {}
impl PartialOrd for Mail {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Mail {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

pub(super) struct Owner {
    pub(super) id: PeerId,
    pub(super) number: u64,
    pub(super) region: u64,
    pub(super) node: Node,
    /// Milliseconds since the start.
    pub(super) clock: u64,
    pub(super) lots: Vec<Lot>,
    known: Vec<Known>,
    /// Peers that it has nothing to do with, and until when.
    blocked: BTreeMap<PeerId, u64>,
    inbox: BinaryHeap<Reverse<Mail>>,
    sequence: u64,
    next_command: u64,
    waits_for: Option<CommandId>,
    outcome: Option<Outcome>,
    pub(super) doing: Doing,
    pub(super) traffic: Traffic,
    /// All that it did; two runs of a seed must say the same.
    pub(super) trace: u64,
}

impl Owner {
    pub(super) fn new(seed: u64, number: usize, slots: Vec<usize>, region: u64) -> Self {
        let id =
            PeerId(*blake3::hash(&[&b"owner"[..], &seed.to_be_bytes()[..], &number.to_be_bytes()].concat()).as_bytes());
        let known = slots.into_iter().map(|slot| Known { slot, generation: u32::MAX, id, connected: false }).collect();
        Self {
            id,
            number: number as u64,
            region,
            node: Node::new(NodeConfig::new(id, |_, key| key.0, Quota::default(), Used::default())),
            clock: 1,
            lots: Vec::new(),
            known,
            blocked: BTreeMap::new(),
            inbox: BinaryHeap::new(),
            sequence: 0,
            next_command: 1,
            waits_for: None,
            outcome: None,
            doing: Doing::Greeting,
            traffic: Traffic::default(),
            trace: 0,
        }
    }

    /// It hears of more peers.
    pub(super) fn meet(&mut self, slots: impl Iterator<Item = usize>) {
        let id = self.id;
        self.known.extend(slots.map(|slot| Known { slot, generation: u32::MAX, id, connected: false }));
    }

    pub(super) fn connected(&self) -> usize {
        self.known.iter().filter(|known| known.connected).count()
    }

    fn note(&mut self, word: u64) {
        self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Peers have come and gone in the hour that has passed, and what they offer is asked.
    pub(super) fn look_around(&mut self, mesh: &mut Mesh) {
        self.doing = Doing::Greeting;
        for at in 0..self.known.len() {
            let known = &self.known[at];
            let donor = &mesh.donors[known.slot];
            let (id, generation, subnet) = (donor.id, donor.generation, donor.subnet);
            let is_blocked = self.blocked.get(&id).is_some_and(|until| *until > self.clock);
            let up = mesh.reaches(self.region, donor) && !is_blocked;
            if known.generation != generation {
                let (old, was) = (known.id, known.connected);
                self.known[at] = Known { slot: known.slot, generation, id, connected: false };
                if was {
                    self.step(mesh, Input::Disconnected(old));
                }
            }
            match (self.known[at].connected, up) {
                (false, true) => {
                    self.known[at].connected = true;
                    self.step(mesh, Input::SeenAt { peer: id, subnet });
                    self.step(mesh, Input::Connected(id));
                }
                (true, false) => {
                    self.known[at].connected = false;
                    self.step(mesh, Input::Disconnected(id));
                }
                _ => {}
            }
        }
        self.settle(mesh);
    }

    /// Has the node do something, and waits until it has.
    pub(super) fn command(&mut self, mesh: &mut Mesh, doing: Doing, command: Command) -> Outcome {
        self.doing = doing;
        let id = CommandId(self.next_command);
        self.next_command += 1;
        (self.waits_for, self.outcome) = (Some(id), None);
        self.step(mesh, Input::Command { id, command });
        loop {
            if let Some(outcome) = self.outcome.take() {
                self.waits_for = None;
                return outcome;
            }
            let mail = self.inbox.peek().map_or(u64::MAX, |Reverse(mail)| mail.at);
            let wake = self.node.wake_at().map_or(u64::MAX, |at| at.0);
            if mail <= wake {
                self.take_mail(mesh);
            } else {
                self.clock = self.clock.max(wake);
                self.step(mesh, Input::Tick);
            }
        }
    }

    /// Takes in what is under way.
    pub(super) fn settle(&mut self, mesh: &mut Mesh) {
        while !self.inbox.is_empty() {
            self.take_mail(mesh);
        }
    }

    fn take_mail(&mut self, mesh: &mut Mesh) {
        if let Some(Reverse(mail)) = self.inbox.pop() {
            self.clock = self.clock.max(mail.at);
            self.step(mesh, mail.input);
        }
    }

    fn step(&mut self, mesh: &mut Mesh, input: Input) {
        let effects = self.node.step(clocks(self.clock), input);
        for effect in effects {
            match effect {
                Effect::Send { to: Destination::Peer(peer), id, request, within, .. } => {
                    let doing = if matches!(request, Request::Hello(_)) { Doing::Greeting } else { self.doing };
                    let out = match &request {
                        Request::Put { body, .. } => body.len() as u64,
                        _ => 0,
                    };
                    let (after, result) = mesh.deliver(&self.id, self.region, &peer, request, self.clock, within);
                    let back = match &result {
                        Ok(Response::Bytes(bytes)) => bytes.len() as u64,
                        _ => 0,
                    };
                    self.traffic.add(doing, out + back);
                    self.note(id.0 ^ (u64::from(result.is_ok()) << 63) ^ u64::from(peer.0[0]) << 40);
                    self.sequence += 1;
                    let input = Input::Response { id, result };
                    self.inbox.push(Reverse(Mail { at: self.clock + after, sequence: self.sequence, input }));
                }
                Effect::Finished { id, outcome } if self.waits_for == Some(id) => self.outcome = Some(outcome),
                Effect::Block { peer, millis } => {
                    self.traffic.blocked += u64::from(mesh.of(&peer).is_some_and(|donor| donor.is_honest()));
                    self.blocked.insert(peer, self.clock + millis);
                    if let Some(known) = self.known.iter_mut().find(|known| known.id == peer && known.connected) {
                        known.connected = false;
                        self.sequence += 1;
                        let input = Input::Disconnected(peer);
                        self.inbox.push(Reverse(Mail { at: self.clock + 1, sequence: self.sequence, input }));
                    }
                }
                // It stores nothing, answers nobody and keeps no records.
                _ => {}
            }
        }
    }

    /// Who of these is connected.
    pub(super) fn connected_peers(&self) -> BTreeSet<PeerId> {
        self.known.iter().filter(|known| known.connected).map(|known| known.id).collect()
    }
}

//! The world: nodes, an event queue ordered by (time, sequence), and one seeded source of chance.
//!
//! Nothing else decides anything: no clock, no thread, no hash map. So a seed is a whole history, and a failure is
//! replayed by its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::node::{Effect, Input, Node, NodeConfig, Now, RequestId, SendFault};
use hypernet_core::quota::Quota;
use hypernet_core::time::{Instant, UnixSeconds};

use crate::book::Book;
use crate::config::Config;
use crate::random::Random;
use crate::report::{Counts, Failure, Report};

mod checks;
mod dht;
mod disk;
mod faults;
mod network;
mod workload;

use disk::Disk;
use network::{Inbound, Network, Pending};

/// Wall clock at the start of every world.
const EPOCH: u64 = 1_700_000_000;

/// Bytes on the wire: header and body.
type Message = (Vec<u8>, Bytes);

/// What happens at a time.
enum Event {
    /// An input comes to a node.
    Input { to: usize, life: u32, input: Input },
    /// A node's timer is due.
    Wake { node: usize, life: u32 },
    /// A request arrives.
    Arrive { to: usize, from: usize, life: u32, id: RequestId, message: Message },
    /// An answer, or what stands in for one, arrives.
    Answer { to: usize, life: u32, id: RequestId, result: Result<Message, SendFault> },
    /// The disk has done an operation.
    Commit { node: usize, life: u32, id: RequestId },
    /// `a` dials `b`.
    Connect { a: usize, life: u32, b: usize },
    /// `a` notices that its connection to `b` is gone.
    Lost { a: usize, life: u32, b: usize, generation: u64 },
    /// The peers closest to a key have been found.
    Closest { node: usize, life: u32, id: RequestId, key: RecordKey },
    /// A lookup asks the peers closest to the key.
    Find { node: usize, life: u32, id: RequestId, key: RecordKey },
    /// Something breaks.
    Fault,
    /// A crashed node comes back.
    Restart { node: usize },
    /// A frozen node goes on.
    Thaw { node: usize },
    /// A partition ends.
    Heal { partition: u64 },
    /// The workload goes on.
    Work,
}

struct Queued {
    at: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// How a node treats the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Honest,
    /// Bytes it serves are bent, or of another length.
    Bender,
    /// It acknowledges shards that it does not keep, and records of yesterday.
    Forgetter,
}

/// One machine: a node, its disk and its connections.
struct Host {
    id: PeerId,
    /// `None` while crashed.
    node: Option<Node>,
    /// Counts restarts; what was meant for an earlier life does not reach a later one.
    life: u32,
    disk: Disk,
    donated: u64,
    manner: Manner,
    /// It serves old records, or none.
    stale: bool,
    /// Seconds its wall clock is ahead.
    skew: i64,
    /// What happened to it while it was frozen.
    frozen: Option<Vec<Event>>,
    /// When it last went down, froze or was cut off.
    trouble: u64,
    neighbours: Vec<usize>,
    connected: BTreeMap<usize, u64>,
    blocked: BTreeMap<usize, u64>,
    pending: BTreeMap<RequestId, Pending>,
    /// Records it serves, and since when.
    kept: BTreeMap<RecordKey, (Vec<u8>, u64)>,
    /// Records that it was to serve and could not yet, and since when.
    unserved: BTreeMap<RecordKey, u64>,
    /// The first version of each record it saw: what a forgetter serves.
    yesterday: BTreeMap<RecordKey, Vec<u8>>,
    wake: Option<u64>,
}

impl Host {
    fn up(&self) -> bool {
        self.node.is_some() && self.frozen.is_none()
    }
}

/// A simulated mesh.
pub struct World {
    config: Config,
    seed: u64,
    random: Random,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    hosts: Vec<Host>,
    by_id: BTreeMap<PeerId, usize>,
    network: Network,
    /// Requests that peers have not answered yet.
    inbound: BTreeMap<u64, Inbound>,
    next_inbound: u64,
    book: Book,
    quiet: bool,
    trace: blake3::Hasher,
    counts: Counts,
    failure: Option<String>,
}

impl World {
    /// A world at its start: every node is up and dials the peers it knows.
    pub fn new(seed: u64, mut config: Config) -> Self {
        let mut random = Random::new(seed);
        // Some worlds are slow: links on which answers come only after a node has asked others.
        config.latency *= [1, 1, 5, 20][random.index(4)];
        let hosts: Vec<Host> = (0..config.nodes).map(|i| host(&mut random, seed, &config, i)).collect();
        let by_id = hosts.iter().enumerate().map(|(i, host)| (host.id, i)).collect();
        let book = Book::new(&mut random, config.owners);
        let mut world = Self {
            seed,
            random,
            now: 1,
            sequence: 0,
            queue: BinaryHeap::new(),
            hosts,
            by_id,
            network: Network::default(),
            inbound: BTreeMap::new(),
            next_inbound: 0,
            book,
            quiet: false,
            trace: blake3::Hasher::new(),
            counts: Counts::default(),
            failure: None,
            config,
        };
        world.introduce();
        for i in 0..world.hosts.len() {
            let node = Node::new(world.node_config(i));
            world.hosts[i].node = Some(node);
            world.dial_all(i);
        }
        world.push(5_000, Event::Work);
        world.push(8_000, Event::Fault);
        world
    }

    /// Runs the storm, the recovery and the last checks.
    pub fn run(mut self) -> Result<Report, Failure> {
        self.advance(self.config.storm)?;
        self.calm();
        self.advance(self.config.recovery)?;
        self.demand();
        let end = self.now + DEMANDS_WITHIN;
        while self.now < end && !self.book.tasks.is_empty() {
            self.advance(1_000)?;
        }
        self.settle();
        match self.failure.take() {
            Some(what) => Err(self.fail(what)),
            None => Ok(Report {
                trace: self.trace.finalize().to_hex().to_string(),
                next_random: self.random.draw(),
                clock: self.now,
                counts: self.counts,
            }),
        }
    }

    fn fail(&self, what: String) -> Failure {
        let (seed, nodes) = (self.seed, self.config.nodes);
        let replay = format!("SIM_SEED={seed} SIM_NODES={nodes} cargo nextest run -p hypernet-sim replay");
        Failure { seed, nodes, at: self.now, what, replay }
    }

    /// Notes the first thing that is wrong; the run ends there.
    fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(what());
        }
    }

    fn push(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at: self.now + after, sequence: self.sequence, event }));
    }

    fn advance(&mut self, millis: u64) -> Result<(), Failure> {
        let end = self.now + millis;
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at <= end
        {
            let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else { break };
            self.now = at;
            self.counts.events += 1;
            self.happen(event);
            if let Some(what) = self.failure.take() {
                return Err(self.fail(what));
            }
        }
        self.now = end;
        Ok(())
    }

    /// Adds to the trace; two runs of a seed must add the same.
    fn note(&mut self, tag: u8, words: [u64; 3]) {
        self.trace.update(&[tag]);
        self.trace.update(&self.now.to_be_bytes());
        for word in words {
            self.trace.update(&word.to_be_bytes());
        }
    }

    fn happen(&mut self, event: Event) {
        // What reaches a frozen process waits for it.
        let frozen = match &event {
            Event::Input { to: at, .. } | Event::Arrive { to: at, .. } | Event::Answer { to: at, .. } => Some(*at),
            Event::Wake { node: at, .. } | Event::Commit { node: at, .. } | Event::Lost { a: at, .. } => Some(*at),
            Event::Closest { node: at, .. } | Event::Find { node: at, .. } => Some(*at),
            _ => None,
        };
        if let Some(waiting) = frozen.and_then(|at| self.hosts[at].frozen.as_mut()) {
            waiting.push(event);
            return;
        }
        match event {
            Event::Input { to, life, input } => {
                if self.lives(to, life) {
                    self.step(to, input);
                }
            }
            Event::Wake { node, life } => {
                if self.lives(node, life) && self.hosts[node].wake == Some(self.now) {
                    self.hosts[node].wake = None;
                    self.step(node, Input::Tick);
                } else if self.lives(node, life) && self.hosts[node].wake.is_some_and(|wake| wake < self.now) {
                    // it was frozen when it was due
                    self.hosts[node].wake = None;
                    self.step(node, Input::Tick);
                }
            }
            Event::Arrive { to, from, life, id, message } => self.arrive(to, from, life, id, message),
            Event::Answer { to, life, id, result } => self.answer(to, life, id, result),
            Event::Commit { node, life, id } => self.commit(node, life, id),
            Event::Connect { a, life, b } => self.connect(a, life, b),
            Event::Lost { a, life, b, generation } => self.lost(a, life, b, generation),
            Event::Closest { node, life, id, key } => self.tell_closest(node, life, id, key),
            Event::Find { node, life, id, key } => self.find(node, life, id, key),
            Event::Fault => self.fault(),
            Event::Restart { node } => self.restart(node),
            Event::Thaw { node } => self.thaw(node),
            Event::Heal { partition } => self.heal(partition),
            Event::Work => self.work(),
        }
    }

    fn lives(&self, at: usize, life: u32) -> bool {
        self.hosts[at].node.is_some() && self.hosts[at].life == life
    }

    fn node_config(&self, at: usize) -> NodeConfig {
        let host = &self.hosts[at];
        let mut config = NodeConfig::new(host.id, dht::distance, Quota::for_all(host.donated), host.disk.told());
        config.record_lifetime = self.config.record_lifetime;
        config
    }

    fn clocks(&self, at: usize) -> Now {
        let unix = EPOCH.saturating_add_signed(self.hosts[at].skew) + self.now / 1000;
        Now { mono: Instant(self.now), unix: UnixSeconds(unix) }
    }

    /// Steps a node and performs what it wants.
    fn step(&mut self, at: usize, input: Input) {
        let now = self.clocks(at);
        let floor = self.lookup_floor(at, &input);
        let Some(node) = self.hosts[at].node.as_mut() else { return };
        let effects = node.step(now, input);
        let wake = node.wake_at();
        self.counts.steps += 1;
        self.note(1, [at as u64, effects.len() as u64, wake.map_or(0, |wake| wake.0)]);
        if wake.is_some_and(|wake| wake <= now.mono) {
            self.violate(|| format!("node {at} wants to be woken in the past"));
        }
        if let Some(floor) = floor {
            self.check_lookup(at, floor, &effects);
        }
        for effect in effects {
            self.perform(at, effect);
        }
        if let Some(Instant(wake)) = wake
            && self.hosts[at].wake.is_none_or(|set| wake < set)
        {
            let life = self.hosts[at].life;
            self.hosts[at].wake = Some(wake);
            self.push(wake.saturating_sub(self.now), Event::Wake { node: at, life });
        }
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Send { to, id, request, within, .. } => self.send(at, to, id, &request, within),
            Effect::Reply { inbound, response } => self.reply(at, inbound, response),
            Effect::Store { id, op } => self.write(at, id, op),
            Effect::KeepRecord { key, bytes } => self.keep_record(at, key, bytes),
            Effect::DropRecord { key } => self.drop_record(at, key),
            Effect::FindClosest { id, key } => {
                let (life, after) = (self.hosts[at].life, self.random.between(20, 400));
                self.push(after, Event::Closest { node: at, life, id, key });
            }
            Effect::FindRecord { id, key } => {
                let (life, after) = (self.hosts[at].life, self.random.between(20, 400));
                self.push(after, Event::Find { node: at, life, id, key });
            }
            Effect::Block { peer, millis } => self.block(at, peer, millis),
            // Nobody watches anything here.
            Effect::Changed { .. } => {}
            Effect::Finished { id, outcome } => self.finished(at, id, outcome),
        }
    }
}

/// What is asked of everyone after the storm must be done within this.
const DEMANDS_WITHIN: u64 = 120_000;

fn host(random: &mut Random, seed: u64, config: &Config, i: usize) -> Host {
    let id = PeerId(*blake3::hash(&[seed.to_be_bytes(), (i as u64).to_be_bytes()].concat()).as_bytes());
    let liar = i >= config.owners && i < config.owners + config.liars;
    let manner = match (liar, i % 2) {
        (false, _) => Manner::Honest,
        (true, 0) => Manner::Bender,
        (true, _) => Manner::Forgetter,
    };
    // Every tenth has little room, so that quotas are met.
    let donated = if i % 10 == 9 { 64 << 10 } else { 1 << 30 };
    Host {
        id,
        node: None,
        life: 0,
        disk: Disk::default(),
        donated,
        manner,
        stale: i >= config.nodes - config.stale,
        skew: random.below(2 * config.skew + 1) as i64 - config.skew as i64,
        frozen: None,
        trouble: 0,
        neighbours: Vec::new(),
        connected: BTreeMap::new(),
        blocked: BTreeMap::new(),
        pending: BTreeMap::new(),
        kept: BTreeMap::new(),
        unserved: BTreeMap::new(),
        yesterday: BTreeMap::new(),
        wake: None,
    }
}

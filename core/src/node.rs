//! The node: every decision a peer takes, as one state machine without clock, socket, disk or randomness.
//!
//! `step(now, input)` gives effects; whoever drives the node performs them and feeds the outcomes back by id. The
//! agent drives it over libp2p and SQLite, `tests/sim` drives thousands of the same over a seeded network. For that
//! to be worth anything nothing here may depend on what is not an input: maps are ordered, choices are hashes.
//!
//! Invariants:
//! - a request that was sent has exactly one outcome, and each command ends exactly once;
//! - a put is answered `Ok` only after the store has said that it is durable;
//! - no two rows of a segment go to one peer;
//! - bytes from a peer are believed only when a hash or a tag says so;
//! - every queue is bounded by a number in [`crate::limits`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use crate::id::{PeerId, RecordKey, SegmentId};
use crate::lease::LeaseSecret;
use crate::limits::COMMANDS_MAX;
use crate::placement::Subnet;
use crate::port::{StoreOp, StoreReply};
use crate::quota::{Quota, Used};
use crate::segment::Coded;
use crate::time::{Instant, UnixSeconds};
use crate::wire::{Request, Response};

mod acquainted;
mod audit;
mod command;
mod copy;
mod donor;
mod fetch;
mod leases;
mod peers;
mod planning;
mod probe;
mod records;
mod standing;
mod upload;
mod views;
mod watch;

pub use acquainted::{Acquaintance, Acquainted, Whose};
pub use command::{Command, CommandError, Outcome, Stretch};
pub use peers::{Fault, PeerView};
pub use planning::NoPlan;
pub use standing::{Hour, Presence, Standing, Standings};

/// The two clocks, read by whoever drives the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic, for deadlines.
    pub mono: Instant,
    /// Wall clock, for leases.
    pub unix: UnixSeconds,
}

/// How far a record is from a peer, as the DHT sees it that finds the closest peers: smaller bytes are nearer.
pub type Metric = fn(&PeerId, &RecordKey) -> [u8; 32];

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Who it is.
    pub me: PeerId,
    /// Which records are its own to keep, when it cannot keep all.
    pub metric: Metric,
    /// What it gives to others.
    pub quota: Quota,
    /// Bytes it already stores.
    pub used: Used,
    /// It stops storing for others.
    pub leaving: bool,
    /// How long a record is kept that nobody publishes again, in milliseconds.
    pub record_lifetime: u64,
    /// How long a small request may take before another peer is asked as well, in milliseconds; a large one longer, by
    /// the rate at which its peer sends.
    pub patience: u64,
    /// How long a peer may be away without anything being thought of it, in milliseconds.
    pub grace: u64,
    /// How long it is away when it is taken to be gone for good, in milliseconds.
    pub gone_after: u64,
}

impl NodeConfig {
    /// With everything but name, place and offer at its default.
    pub fn new(me: PeerId, metric: Metric, quota: Quota, used: Used) -> Self {
        let (grace, gone_after) = (24 * 3_600_000, 7 * 24 * 3_600_000);
        let record_lifetime = 48 * 3600 * 1000;
        Self { me, metric, quota, used, leaving: false, record_lifetime, patience: 700, grace, gone_after }
    }
}

/// Names a command of the local agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Names something the node asked for; the outcome comes back under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a request of a peer; the driver makes it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundId(pub u64);

/// Where an effect goes: a peer today, a circuit or a mailbox when there is an anonymity layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// Straight to a peer.
    Peer(PeerId),
}

/// In whose account an effect falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// The identity whose agent this is.
    Owner,
    /// The donor itself: upkeep of the mesh.
    Donor,
}

/// Why a request to a peer has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendFault {
    /// No connection could be had.
    #[error("cannot be reached")]
    Unreachable,
    /// No answer in time.
    #[error("did not answer in time")]
    Deadline,
    /// The answer is no answer.
    #[error("sent nonsense: {0}")]
    Malformed(String),
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection to a peer is up.
    Connected(PeerId),
    /// The address that a peer is connected from, or the relay that it is reached through: whoever is in one subnet may
    /// well fail together, or be one.
    SeenAt {
        /// Who.
        peer: PeerId,
        /// Where; none for an address that says nothing, as that of a local network.
        subnet: Option<Subnet>,
    },
    /// The last connection to a peer is gone.
    Disconnected(PeerId),
    /// A peer asks.
    Request {
        /// Who.
        peer: PeerId,
        /// To answer under.
        inbound: InboundId,
        /// What.
        request: Request,
    },
    /// The one outcome of an [`Effect::Send`].
    Response {
        /// Of which.
        id: RequestId,
        /// The answer, or why there is none.
        result: Result<Response, SendFault>,
    },
    /// A peer broke the protocol below the messages.
    Misbehaved {
        /// Who.
        peer: PeerId,
    },
    /// A peer asked for more than is served at once, and was told so without the node.
    TurnedAway {
        /// Who.
        peer: PeerId,
    },
    /// The one outcome of an [`Effect::Store`].
    Stored {
        /// Of which.
        id: RequestId,
        /// The answer.
        reply: StoreReply,
    },
    /// An [`Effect::KeepRecord`] or an [`Effect::DropRecord`] could not be performed.
    NotServed {
        /// Of which record.
        key: RecordKey,
    },
    /// A record that was kept before the last stop.
    RecordHeld {
        /// The record.
        bytes: Vec<u8>,
    },
    /// The one outcome of an [`Effect::FindClosest`].
    Closest {
        /// Of which.
        id: RequestId,
        /// The closest first; not this node itself.
        peers: Vec<PeerId>,
    },
    /// The one outcome of an [`Effect::FindRecord`].
    RecordFound {
        /// Of which.
        id: RequestId,
        /// Whatever came back, unchecked.
        records: Vec<Vec<u8>>,
        /// How many other peers have answered, with a record or without.
        answers: usize,
    },
    /// The agent wants something done.
    Command {
        /// To answer under.
        id: CommandId,
        /// What.
        command: Command,
    },
    /// Time passed: the driver calls at [`Node::wake_at`].
    Tick,
}

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a request. Exactly one [`Input::Response`] must follow, within `within` milliseconds.
    Send {
        /// To whom.
        to: Destination,
        /// To answer under.
        id: RequestId,
        /// What.
        request: Request,
        /// The deadline.
        within: u64,
        /// Whose account.
        payer: Payer,
    },
    /// Answer a request.
    Reply {
        /// Which.
        inbound: InboundId,
        /// With what.
        response: Response,
    },
    /// Do something in the store. Exactly one [`Input::Stored`] must follow.
    Store {
        /// To answer under.
        id: RequestId,
        /// What.
        op: StoreOp,
    },
    /// Serve this record to whoever asks, in place of an older one. Where that is not done, [`Input::NotServed`] must
    /// follow, or the record would be on disk here and nobody would ever find it.
    KeepRecord {
        /// Where it lives.
        key: RecordKey,
        /// The record.
        bytes: Vec<u8>,
    },
    /// Serve the record of this key no more, and forget it; else [`Input::NotServed`] must follow.
    DropRecord {
        /// Where it lived.
        key: RecordKey,
    },
    /// Find the peers closest to a key. Exactly one [`Input::Closest`] must follow.
    FindClosest {
        /// To answer under.
        id: RequestId,
        /// Where a record lives.
        key: RecordKey,
    },
    /// Ask over disjoint paths. Exactly one [`Input::RecordFound`] must follow.
    FindRecord {
        /// To answer under.
        id: RequestId,
        /// Where it lives.
        key: RecordKey,
    },
    /// Have nothing to do with a peer for so many milliseconds.
    Block {
        /// Whom.
        peer: PeerId,
        /// How long.
        millis: u64,
    },
    /// A record that is watched has changed: a peer has brought a newer one.
    Changed {
        /// Where it lives.
        key: RecordKey,
    },
    /// A command has ended.
    Finished {
        /// Which.
        id: CommandId,
        /// How.
        outcome: Outcome,
    },
}

/// Donors that do not say in so many milliseconds that they have room have none.
const ROOM_PATIENCE: u64 = 3_000;

/// What waits for the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    Hello,
    Room(CommandId),
    Upload(CommandId, u8),
    Fetch(CommandId, u32),
    Probe(CommandId, u8),
    Copy(CommandId),
    Lease(CommandId),
    /// Whoever was told that a row is not needed that it was sent: nobody waits for that.
    GivenUp,
    Audit(CommandId, u8),
    Served(InboundId),
    /// Key and sequence number of the record.
    RecordKept(RecordKey, u64),
    Closest(u64),
    Handed(u64),
    Lookup(CommandId, RecordKey),
    /// The closest to a record that is watched.
    Watched(RecordKey),
    /// One of them, which was asked to tell.
    Watching(RecordKey),
    /// A peer that has asked to be told.
    Told(RecordKey),
}

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Hello(PeerId),
    Resume(PeerId),
    Upload(CommandId),
    Fetch(CommandId),
    Probe(CommandId),
    Copy(CommandId),
    Lease(CommandId),
    Audit(CommandId),
    Room(CommandId),
    Published(u64),
    Republish(RecordKey),
    Expire(RecordKey),
    Serve(RecordKey),
    Watch(RecordKey),
    Unwatched,
}

/// The shared parts that every machine of a node works with.
struct Context {
    config: NodeConfig,
    now: Now,
    next_request: u64,
    waiters: BTreeMap<RequestId, (Option<PeerId>, Waiter)>,
    timers: BTreeSet<(Instant, Timer)>,
    armed: BTreeMap<Timer, Instant>,
    effects: Vec<Effect>,
}

impl Context {
    fn request_id(&mut self, peer: Option<PeerId>, waiter: Waiter) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.waiters.insert(id, (peer, waiter));
        id
    }

    /// Sets a timer, in place of where it stood before. It never fires in the step that sets it, or a machine that
    /// sets it again each time would keep that step from ending.
    fn arm(&mut self, timer: Timer, after: u64) {
        self.disarm(timer);
        let at = self.now.mono.after(after.max(1));
        self.armed.insert(timer, at);
        self.timers.insert((at, timer));
    }

    /// Sets a timer unless it is set.
    fn arm_once(&mut self, timer: Timer, after: u64) {
        if !self.armed.contains_key(&timer) {
            self.arm(timer, after);
        }
    }

    fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.armed.remove(&timer) {
            self.timers.remove(&(at, timer));
        }
    }

    fn finish(&mut self, id: CommandId, outcome: Outcome) {
        self.effects.push(Effect::Finished { id, outcome });
    }

    fn store(&mut self, waiter: Waiter, op: StoreOp) {
        let id = self.request_id(None, waiter);
        self.effects.push(Effect::Store { id, op });
    }
}

/// One peer of the mesh.
pub struct Node {
    context: Context,
    peers: peers::Peers,
    donor: donor::Donor,
    uploads: BTreeMap<CommandId, upload::Upload>,
    fetches: BTreeMap<CommandId, fetch::Fetch>,
    probes: BTreeMap<CommandId, probe::Probe>,
    copies: copy::Copies,
    leases: leases::Leases,
    audits: BTreeMap<CommandId, audit::Audit>,
    silences: audit::Silences,
    /// Commands that ask for room, and how many donors have not answered yet.
    rooms: BTreeMap<CommandId, usize>,
    records: records::Records,
}

impl Node {
    /// A node at its start.
    pub fn new(config: NodeConfig) -> Self {
        Self {
            donor: donor::Donor::new(config.quota, config.used, config.leaving),
            peers: peers::Peers::default(),
            uploads: BTreeMap::new(),
            fetches: BTreeMap::new(),
            probes: BTreeMap::new(),
            copies: copy::Copies::default(),
            leases: leases::Leases::default(),
            audits: BTreeMap::new(),
            silences: audit::Silences::default(),
            rooms: BTreeMap::new(),
            records: records::Records::default(),
            context: Context {
                config,
                now: Now::default(),
                next_request: 1,
                waiters: BTreeMap::new(),
                timers: BTreeSet::new(),
                armed: BTreeMap::new(),
                effects: Vec::new(),
            },
        }
    }

    /// Takes one input in and gives what is to be done.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        self.context.now = now;
        self.peers.book_hours(&self.context);
        match input {
            Input::Connected(peer) => self.peers.connected(&mut self.context, &self.donor, peer),
            Input::SeenAt { peer, subnet } => self.peers.seen_at(&self.context, peer, subnet),
            Input::Disconnected(peer) => self.peers.disconnected(&self.context, peer),
            Input::Misbehaved { peer } => self.peers.fault(&mut self.context, peer, Fault::Nonsense),
            Input::TurnedAway { peer } => self.peers.turned_away(&mut self.context, peer),
            Input::Request { peer, inbound, request } => {
                let (context, peers, records) = (&mut self.context, &mut self.peers, &mut self.records);
                self.donor.request(context, peers, records, peer, inbound, request);
            }
            Input::Response { id, result } => self.response(id, result),
            Input::Stored { id, reply } => self.stored(id, reply),
            Input::NotServed { key } => self.records.not_served(&mut self.context, key),
            Input::RecordHeld { bytes } => self.records.held(&mut self.context, &bytes),
            Input::Closest { id, peers } => match self.context.waiters.remove(&id) {
                Some((_, Waiter::Closest(handing))) => {
                    self.records.closest(&mut self.context, &mut self.peers, handing, peers);
                }
                Some((_, Waiter::Watched(key))) => {
                    self.records.watches.closest(&mut self.context, &mut self.peers, key, peers);
                }
                _ => {}
            },
            Input::RecordFound { id, records, answers } => {
                if let Some((_, Waiter::Lookup(command, key))) = self.context.waiters.remove(&id) {
                    self.records.found(&mut self.context, command, key, &records, answers);
                }
            }
            Input::Command { id, command } => self.command(id, command),
            Input::Tick => {}
        }
        self.fire_timers();
        std::mem::take(&mut self.context.effects)
    }

    /// When the node wants to be stepped at the latest.
    pub fn wake_at(&self) -> Option<Instant> {
        self.context.timers.first().map(|(at, _)| *at)
    }

    fn command(&mut self, id: CommandId, command: Command) {
        let leases = self.leases.under_way() + self.copies.under_way();
        let asking = self.probes.len() + self.audits.len() + leases + self.rooms.len();
        let busy = self.uploads.len() + self.fetches.len() + asking + self.records.under_way() >= COMMANDS_MAX;
        match command {
            _ if busy => self.context.finish(id, Outcome::Failed(CommandError::Busy)),
            Command::Upload { coded, leases, until, patience } => {
                let all = (0..=u8::MAX).take(coded.shards.len()).collect();
                let rows = upload::Rows { numbers: all, others: BTreeSet::new(), spared: BTreeSet::new() };
                self.upload(id, (coded, rows), leases, until, patience);
            }
            Command::Mend { coded, rows, others, spared, leases, until, patience } => {
                let rows = upload::Rows { numbers: rows, others, spared };
                self.upload(id, (coded, rows), leases, until, patience);
            }
            Command::Fetch { placement, wanted, around, within } => {
                match fetch::Fetch::new(&self.context, placement, wanted, around, within) {
                    Ok(fetch) => {
                        self.fetches.insert(id, fetch);
                        self.drive_fetch(id);
                    }
                    Err(error) => self.context.finish(id, Outcome::Failed(error)),
                }
            }
            Command::Rows { placement, within } => match fetch::Fetch::of_rows(&self.context, placement, within) {
                Ok(fetch) => {
                    self.fetches.insert(id, fetch);
                    self.drive_fetch(id);
                }
                Err(error) => self.context.finish(id, Outcome::Failed(error)),
            },
            Command::Probe { placement, within } => {
                let probe = probe::Probe::start(&mut self.context, &mut self.peers, id, placement, within);
                if let Some(probe) = probe {
                    self.probes.insert(id, probe);
                }
            }
            Command::Copy { holder, shard, len, within } => {
                self.copies.ask(&mut self.context, &mut self.peers, id, (holder, shard, len), within);
            }
            Command::Renew { holder, leases, within } => {
                let (context, peers) = (&mut self.context, &mut self.peers);
                self.leases.ask(context, peers, id, holder, Request::Renew { leases }, within);
            }
            Command::Release { holder, tokens, within } => {
                let (context, peers) = (&mut self.context, &mut self.peers);
                self.leases.ask(context, peers, id, holder, Request::Release { tokens }, within);
            }
            Command::Audit { placement, rows, seed, within } => {
                let (context, peers) = (&mut self.context, &mut self.peers);
                if let Some(audit) = audit::Audit::start(context, peers, id, placement, &rows, seed, within) {
                    self.audits.insert(id, audit);
                }
            }
            Command::Publish { record, enough } => {
                self.records.publish(&mut self.context, &mut self.peers, id, record, enough);
            }
            Command::Lookup(key) => self.records.lookup(&mut self.context, id, key),
            Command::Watch(keys) => {
                self.records.watches.want(&mut self.context, keys);
                self.context.finish(id, Outcome::Watching);
            }
            Command::Spare(peers) => {
                self.peers.spare(peers);
                self.context.finish(id, Outcome::Spared);
            }
            Command::Give(quota) => {
                self.donor.give(quota);
                self.context.finish(id, Outcome::Noted);
            }
            Command::Leave(leaving) => {
                self.donor.leave(leaving);
                self.peers.greet_all(&mut self.context, &self.donor);
                self.context.finish(id, Outcome::Noted);
            }
            Command::Acquaint(acquainted) => {
                self.peers.acquaint(&mut self.context, &self.donor, acquainted);
                self.context.finish(id, Outcome::Noted);
            }
            Command::AskRoom => {
                let asked = self.peers.ask_room_to_plan(&mut self.context, &self.donor, Waiter::Room(id));
                self.rooms.insert(id, asked);
                self.context.arm(Timer::Room(id), ROOM_PATIENCE);
                self.drive_room(id, 0);
            }
        }
    }

    fn upload(
        &mut self,
        id: CommandId,
        what: (Arc<Coded>, upload::Rows),
        leases: LeaseSecret,
        until: UnixSeconds,
        patience: u64,
    ) {
        match upload::Upload::new(&mut self.context, id, what, leases, until, patience) {
            Some(upload) => {
                self.uploads.insert(id, upload);
                self.drive_uploads();
            }
            None => self.context.finish(id, Outcome::Failed(CommandError::Invalid("a segment without shards"))),
        }
    }

    fn response(&mut self, id: RequestId, result: Result<Response, SendFault>) {
        let Some((peer, waiter)) = self.context.waiters.remove(&id) else { return };
        let Some(peer) = peer else { return };
        self.peers.answered(&mut self.context, peer, id, &result);
        self.answered(waiter, peer, result);
    }

    /// A peer, or the own store in its place, has answered.
    fn answered(&mut self, waiter: Waiter, peer: PeerId, result: Result<Response, SendFault>) {
        match waiter {
            Waiter::Hello | Waiter::Room(_) => {
                if let Ok(Response::Hello(hello)) = result {
                    self.peers.hello(&self.context, peer, hello);
                    self.drive_uploads();
                }
                if let Waiter::Room(command) = waiter {
                    self.drive_room(command, 1);
                }
            }
            Waiter::Upload(command, row) => {
                if let Some(upload) = self.uploads.get_mut(&command) {
                    upload.answered(&mut self.context, &mut self.peers, row, peer, result);
                }
                self.drive_uploads();
            }
            Waiter::Fetch(command, ask) => {
                if let Some(fetch) = self.fetches.get_mut(&command) {
                    fetch.answered(&mut self.context, &mut self.peers, ask, peer, result);
                }
                self.drive_fetch(command);
            }
            Waiter::Probe(command, row) => {
                if let Some(probe) = self.probes.get_mut(&command) {
                    probe.answered(&mut self.context, &mut self.peers, row, peer, result);
                    if probe.is_done()
                        && let Some(probe) = self.probes.remove(&command)
                    {
                        self.context.disarm(Timer::Probe(command));
                        self.context.finish(command, probe.outcome());
                    }
                }
            }
            Waiter::Copy(command) => {
                self.copies.answered(&mut self.context, &mut self.peers, command, result);
            }
            Waiter::Lease(command) => {
                self.leases.answered(&mut self.context, &mut self.peers, command, result);
            }
            Waiter::Audit(command, row) => {
                if let Some(audit) = self.audits.get_mut(&command) {
                    audit.answered(&mut self.context, &mut self.peers, &mut self.silences, row, peer, result);
                    if audit.is_done() {
                        self.end_audit(command);
                    }
                }
            }
            Waiter::Handed(handing) => {
                self.records.handed(&mut self.context, &mut self.peers, handing, peer, &result);
            }
            Waiter::Told(key) => self.records.told(&mut self.context, &mut self.peers, key, peer),
            Waiter::Watching(key) => {
                if let Ok(Response::Bytes(bytes)) = result {
                    self.records.heard(&mut self.context, &mut self.peers, key, peer, &bytes);
                }
            }
            Waiter::GivenUp
            | Waiter::Served(_)
            | Waiter::RecordKept(..)
            | Waiter::Closest(_)
            | Waiter::Lookup(..)
            | Waiter::Watched(_) => {}
        }
    }

    fn stored(&mut self, id: RequestId, reply: StoreReply) {
        match self.context.waiters.remove(&id) {
            Some((_, Waiter::Served(inbound))) => {
                let (context, peers, records) = (&mut self.context, &mut self.peers, &mut self.records);
                self.donor.stored(context, peers, records, inbound, reply);
            }
            Some((_, Waiter::RecordKept(key, sequence))) => {
                if let StoreReply::Done { .. } = reply {
                    self.records.is_durable(&key, sequence);
                }
            }
            Some((
                _,
                waiter @ (Waiter::Fetch(..)
                | Waiter::Probe(..)
                | Waiter::Copy(_)
                | Waiter::Audit(..)
                | Waiter::Lease(_)),
            )) => {
                let me = self.context.config.me;
                self.answered(waiter, me, Ok(donor::response(reply)));
            }
            // A record that could not be written is served from memory while this process lives; the other holders
            // have it too.
            Some(_) | None => {}
        }
    }

    fn drive_uploads(&mut self) {
        let ids: Vec<CommandId> = self.uploads.keys().copied().collect();
        for id in ids {
            self.drive_upload(id);
        }
    }

    fn drive_upload(&mut self, id: CommandId) {
        let Some(upload) = self.uploads.get_mut(&id) else { return };
        if let Some(outcome) = upload.drive(&mut self.context, &mut self.peers, id) {
            let upload = self.uploads.remove(&id);
            // Rows that still wait for their turn would be kept by peers that nobody remembers.
            self.peers.forget(|waiter| !matches!(waiter, Waiter::Upload(command, _) if *command == id));
            if let Some(upload) = upload {
                let has_failed = matches!(outcome, Outcome::Failed(_));
                upload.give_up(&mut self.context, &mut self.peers, has_failed);
            }
            self.context.finish(id, outcome);
        } else if let Some(shard_len) = upload.waits_for_room() {
            self.peers.ask_room(&mut self.context, &self.donor, shard_len, Waiter::Hello);
        }
    }

    /// So many more donors have answered.
    fn drive_room(&mut self, id: CommandId, answers: usize) {
        let Some(missing) = self.rooms.get_mut(&id) else { return };
        *missing = missing.saturating_sub(answers);
        if *missing == 0 {
            self.end_room(id);
        }
    }

    fn end_room(&mut self, id: CommandId) {
        self.context.disarm(Timer::Room(id));
        if self.rooms.remove(&id).is_some() {
            self.context.finish(id, Outcome::Asked);
        }
    }

    fn end_audit(&mut self, id: CommandId) {
        self.context.disarm(Timer::Audit(id));
        if let Some(audit) = self.audits.remove(&id) {
            // What still waits for its turn would have a disk read for nobody.
            self.peers.forget(|waiter| !matches!(waiter, Waiter::Audit(command, _) if *command == id));
            self.context.finish(id, audit.outcome());
        }
    }

    fn drive_fetch(&mut self, id: CommandId) {
        let Some(fetch) = self.fetches.get_mut(&id) else { return };
        if let Some(outcome) = fetch.drive(&mut self.context, &mut self.peers, id) {
            self.fetches.remove(&id);
            self.context.finish(id, outcome);
        }
    }

    fn fire_timers(&mut self) {
        while let Some((at, timer)) = self.context.timers.first().copied() {
            if at > self.context.now.mono {
                break;
            }
            self.context.disarm(timer);
            match timer {
                Timer::Hello(peer) => self.peers.greet(&mut self.context, &self.donor, peer),
                Timer::Resume(peer) => self.peers.resume(&mut self.context, peer),
                Timer::Upload(id) => self.drive_upload(id),
                Timer::Fetch(id) => self.drive_fetch(id),
                Timer::Probe(id) => {
                    if let Some(probe) = self.probes.remove(&id) {
                        self.context.finish(id, probe.outcome());
                    }
                }
                Timer::Copy(id) => self.copies.late(&mut self.context, &mut self.peers, id),
                Timer::Lease(id) => self.leases.late(&mut self.context, id),
                Timer::Audit(id) => self.end_audit(id),
                Timer::Room(id) => self.end_room(id),
                Timer::Published(handing) => self.records.enough(&mut self.context, &mut self.peers, handing),
                Timer::Republish(key) => self.records.republish(&mut self.context, key),
                Timer::Expire(key) => self.records.expire(&mut self.context, key),
                Timer::Serve(key) => self.records.serve(&mut self.context, key),
                Timer::Watch(key) => self.records.watches.ask_for(&mut self.context, key),
                Timer::Unwatched => self.records.watches.forget_late(&mut self.context),
            }
        }
    }
}

fn short(segment: &SegmentId) -> String {
    segment.short()
}

#[cfg(test)]
mod tests;

//! The loop that drives the node: inputs in from mesh, store, timers and commands, effects out.
//!
//! One task owns the node, so a step never waits for a lock, and no effect waits for another: sending goes through a
//! bounded queue to a task of its own, because the loop must keep taking events in while the mesh is busy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::limits::UPLOAD_WINDOW;
use hypernet_core::node::{
    Command, CommandError, CommandId, Destination, Effect, InboundId, Input, Node, Now, Outcome, RequestId, SendFault,
};
use hypernet_core::placement::Subnet;
use hypernet_core::port::StoreReply;
use hypernet_core::time::{Instant, UnixSeconds};
use hypernet_mesh::{Mesh, MeshEvent, SendError};
use hypernet_store::shards::ShardStore;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::volume::UPLOAD_PATIENCE;

/// Messages waiting for the loop.
const INBOX: usize = 1024;
/// Store completions waiting for the loop.
const COMPLETIONS: usize = 4096;
/// Changes of records that are remembered one by one.
const CHANGES: usize = 1_024;
/// Effects waiting for the mesh. The node bounds what is under way per peer; this bounds all peers together.
const OUTBOX: usize = 16_384;

type Query = Box<dyn FnOnce(&Node) + Send>;

enum Message {
    Command(Command, oneshot::Sender<Outcome>),
    Query(Query),
    Stop,
}

/// Talks to the node.
#[derive(Clone)]
pub(crate) struct NodeHandle {
    inbox: mpsc::Sender<Message>,
    donors: watch::Receiver<usize>,
    changes: broadcast::Sender<RecordKey>,
    patience: u64,
}

/// Milliseconds for which the upload of a segment goes on while nothing comes of it: with a limit of so many bytes a second,
/// what is under way of the others has its turn first.
fn patience(upload: Option<u64>) -> u64 {
    let all = 2 * UPLOAD_WINDOW as u64;
    upload.map_or(UPLOAD_PATIENCE, |rate| UPLOAD_PATIENCE.saturating_add(all.saturating_mul(1_000) / rate.max(1)))
}

fn stopped() -> Outcome {
    Outcome::Failed(CommandError::Invalid("the agent is stopping"))
}

/// Waits for what [`NodeHandle::start`] began.
pub(crate) fn outcome(started: oneshot::Receiver<Outcome>) -> Outcome {
    started.blocking_recv().unwrap_or_else(|_| stopped())
}

impl NodeHandle {
    /// Runs a command to its end.
    pub(crate) async fn run(&self, command: Command) -> Outcome {
        let (done, outcome) = oneshot::channel();
        if self.inbox.send(Message::Command(command, done)).await.is_err() {
            return stopped();
        }
        outcome.await.unwrap_or_else(|_| stopped())
    }

    /// Starts a command from a thread outside the runtime; the outcome is waited for on the receiver.
    pub(crate) fn start(&self, command: Command) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        // When the agent is stopping the sender is dropped with the message, and the receiver says so.
        let _ = self.inbox.blocking_send(Message::Command(command, done));
        outcome
    }

    /// [`Self::start`], waited for.
    pub(crate) fn run_blocking(&self, command: Command) -> Outcome {
        outcome(self.start(command))
    }

    /// Asks the node something.
    pub(crate) async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&Node) -> T + Send + 'static) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let query = Box::new(move |node: &Node| drop(done.send(question(node))));
        self.inbox.send(Message::Query(query)).await.ok()?;
        answer.await.ok()
    }

    /// [`Self::ask`] from a thread outside the runtime.
    pub(crate) fn ask_blocking<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let query = Box::new(move |node: &Node| drop(done.send(question(node))));
        self.inbox.blocking_send(Message::Query(query)).ok()?;
        answer.blocking_recv().ok()
    }

    /// Milliseconds without progress after which the upload of a segment is given up.
    pub(crate) fn patience(&self) -> u64 {
        self.patience
    }

    /// How many donors are connected, and each change of that. It ends with the loop.
    pub(crate) fn donors(&self) -> watch::Receiver<usize> {
        self.donors.clone()
    }

    /// The keys of records that change, of those that are watched.
    pub(crate) fn changes(&self) -> broadcast::Receiver<RecordKey> {
        self.changes.subscribe()
    }

    /// Ends the loop.
    pub(crate) async fn stop(&self) {
        let _ = self.inbox.send(Message::Stop).await;
    }
}

#[cfg(test)]
impl NodeHandle {
    /// A handle without a driver: `answer` hears commands in its place, one after the other, and questions are asked of
    /// the node that `node` holds. The donors are those of now: who waits for others hears that there will be none.
    pub(crate) fn double(
        node: Arc<parking_lot::Mutex<Node>>,
        mut answer: impl FnMut(Command, oneshot::Sender<Outcome>) + Send + 'static,
    ) -> Self {
        let (inbox, mut messages) = mpsc::channel(INBOX);
        let (_, donors) = watch::channel(node.lock().donors());
        std::thread::spawn(move || {
            while let Some(message) = messages.blocking_recv() {
                match message {
                    Message::Command(command, done) => answer(command, done),
                    Message::Query(query) => query(&node.lock()),
                    Message::Stop => return,
                }
            }
        });
        Self { inbox, donors, changes: broadcast::channel(CHANGES).0, patience: patience(None) }
    }
}

/// Told of addresses that are worth remembering.
pub(crate) type Remember = Box<dyn Fn(PeerId, String) + Send>;

/// The subnet of an address: of one that leads over a relay that of the relay, since whatever is behind it fails with it.
fn subnet(addr: &Multiaddr) -> Option<Subnet> {
    addr.iter().find_map(|part| match part {
        Protocol::Ip4(address) => Some(Subnet::v4(address.octets())),
        Protocol::Ip6(address) => Some(Subnet::v6(address.octets())),
        _ => None,
    })?
}

struct Driver {
    node: Node,
    began: std::time::Instant,
    store: Arc<ShardStore>,
    completions: mpsc::Sender<(RequestId, StoreReply)>,
    outbox: mpsc::Sender<Effect>,
    waiting: BTreeMap<CommandId, oneshot::Sender<Outcome>>,
    next_command: u64,
    donors: watch::Sender<usize>,
    changes: broadcast::Sender<RecordKey>,
    remember: Remember,
}

/// Starts the loop, of a mesh that sends so many bytes of shards a second at most. It ends with [`NodeHandle::stop`] or when the mesh does.
pub(crate) fn start(
    node: Node,
    mesh: Mesh,
    events: mpsc::Receiver<MeshEvent>,
    store: Arc<ShardStore>,
    remember: Remember,
    upload: Option<u64>,
) -> (NodeHandle, tokio::task::JoinHandle<()>) {
    let (inbox, messages) = mpsc::channel(INBOX);
    let (completions, completed) = mpsc::channel(COMPLETIONS);
    let (outbox, effects) = mpsc::channel(OUTBOX);
    let (tell_donors, donors) = watch::channel(node.donors());
    let (changes, _) = broadcast::channel(CHANGES);
    tokio::spawn(forward(mesh, effects));
    let driver = Driver {
        node,
        began: std::time::Instant::now(),
        store,
        completions,
        outbox,
        waiting: BTreeMap::new(),
        next_command: 1,
        donors: tell_donors,
        changes: changes.clone(),
        remember,
    };
    let task = tokio::spawn(driver.run(messages, events, completed));
    (NodeHandle { inbox, donors, changes, patience: patience(upload) }, task)
}

/// Hands effects to the mesh, in order.
async fn forward(mesh: Mesh, mut effects: mpsc::Receiver<Effect>) {
    while let Some(effect) = effects.recv().await {
        match effect {
            Effect::Send { to: Destination::Peer(peer), id, request, within, payer: _ } => {
                mesh.send(peer, id.0, request, Duration::from_millis(within)).await;
            }
            Effect::Reply { inbound, response } => mesh.reply(inbound.0, response).await,
            Effect::KeepRecord { key, bytes } => mesh.keep_record(key, bytes).await,
            Effect::DropRecord { key } => mesh.forget_record(key).await,
            Effect::FindClosest { id, key } => mesh.find_closest(id.0, key).await,
            Effect::FindRecord { id, key } => mesh.get_record(id.0, key).await,
            Effect::Block { peer, millis } => mesh.block(peer, Duration::from_millis(millis)).await,
            // The loop performs these itself.
            Effect::Store { .. } | Effect::Changed { .. } | Effect::Finished { .. } => {}
        }
    }
}

impl Driver {
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Starts at 1, so that 0 is before everything.
        Now { mono: Instant(self.began.elapsed().as_millis() as u64 + 1), unix: UnixSeconds(unix) }
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: mpsc::Receiver<MeshEvent>,
        mut completed: mpsc::Receiver<(RequestId, StoreReply)>,
    ) {
        let kept = self.store.records().unwrap_or_else(|error| {
            tracing::error!(%error, "the records that were kept for the mesh cannot be read");
            Vec::new()
        });
        for (_, bytes) in kept {
            self.step(Input::RecordHeld { bytes });
        }
        loop {
            let now = self.now().mono;
            let wait = self.node.wake_at().map_or(3_600_000, |at| at.since(now));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                Some((id, reply)) = completed.recv() => self.step(Input::Stored { id, reply }),
                message = messages.recv() => match message {
                    Some(Message::Command(command, done)) => {
                        let id = CommandId(self.next_command);
                        self.next_command += 1;
                        self.waiting.insert(id, done);
                        self.step(Input::Command { id, command });
                    }
                    Some(Message::Query(query)) => {
                        // What is asked may depend on the time.
                        self.step(Input::Tick);
                        query(&self.node);
                    }
                    Some(Message::Stop) | None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(wait)) => self.step(Input::Tick),
            }
        }
    }

    fn event(&mut self, event: MeshEvent) {
        let input = match event {
            MeshEvent::Connected { peer, addr } => {
                self.step(Input::Connected(peer));
                Input::SeenAt { peer, subnet: subnet(&addr) }
            }
            MeshEvent::Disconnected { peer } => Input::Disconnected(peer),
            MeshEvent::Request { peer, inbound, request } => {
                Input::Request { peer, inbound: InboundId(inbound), request }
            }
            MeshEvent::Response { id, result, .. } => {
                let result = result.map_err(|error| match error {
                    SendError::Deadline => SendFault::Deadline,
                    SendError::Malformed(why) => SendFault::Malformed(why),
                    SendError::Unsupported => SendFault::Malformed("does not speak the shard protocol".into()),
                    SendError::Unreachable | SendError::Closed | SendError::OverLimit { .. } => SendFault::Unreachable,
                });
                Input::Response { id: RequestId(id), result }
            }
            MeshEvent::Misbehaved { peer, reason } => {
                tracing::warn!(peer = %peer.short(), reason, "a peer broke the protocol");
                Input::Misbehaved { peer }
            }
            MeshEvent::TurnedAway { peer } => Input::TurnedAway { peer },
            MeshEvent::Closest { id, peers } => Input::Closest { id: RequestId(id), peers },
            MeshEvent::RecordFound { id, records, answers } => {
                Input::RecordFound { id: RequestId(id), records, answers }
            }
            MeshEvent::PeerAddr { peer, addr } => return (self.remember)(peer, addr.to_string()),
            MeshEvent::Moved { peer, path, why } => {
                tracing::info!(peer = %peer.short(), ?path, why, "a peer is reached another way");
                return;
            }
            MeshEvent::Listening { addr } => {
                tracing::info!(%addr, "listening");
                return;
            }
        };
        self.step(input);
    }

    /// Steps the node and performs what it wants done. What cannot be handed to the mesh has its outcome at once,
    /// which may want more done: hence the queue.
    fn step(&mut self, input: Input) {
        let now = self.now();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.node.step(now, input) {
                inputs.extend(self.perform(effect));
            }
        }
        let donors = self.node.donors();
        self.donors.send_if_modified(|told| std::mem::replace(told, donors) != donors);
    }

    /// Performs an effect; gives its outcome where it has failed already.
    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Store { id, op } => {
                let completions = self.completions.clone();
                self.store.submit(
                    op,
                    Box::new(move |reply| {
                        // Called on a thread of the store; when the loop has ended nobody waits for it.
                        let _ = completions.blocking_send((id, reply));
                    }),
                );
                None
            }
            Effect::Finished { id, outcome } => {
                if let Some(done) = self.waiting.remove(&id) {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(outcome);
                }
                None
            }
            Effect::Changed { key } => {
                // Whether or not anybody wants to hear of it by now.
                let _ = self.changes.send(key);
                None
            }
            Effect::DropRecord { key } => {
                // What is left on disk after a failure here expires again after the next start.
                self.store.forget_record(key, Box::new(|_| {}));
                self.send(Effect::DropRecord { key })
            }
            other => self.send(other),
        }
    }

    /// Hands an effect to the mesh. Every request has an outcome, also one that found no place in the queue; an
    /// answer that found none is missed by its peer, which asks again or asks another.
    fn send(&mut self, effect: Effect) -> Option<Input> {
        let effect = match self.outbox.try_send(effect) {
            Ok(()) => return None,
            Err(mpsc::error::TrySendError::Full(effect) | mpsc::error::TrySendError::Closed(effect)) => effect,
        };
        tracing::warn!("too many requests at once; refusing one");
        match effect {
            Effect::Send { id, .. } => Some(Input::Response { id, result: Err(SendFault::Unreachable) }),
            Effect::FindClosest { id, .. } => Some(Input::Closest { id, peers: Vec::new() }),
            Effect::FindRecord { id, .. } => Some(Input::RecordFound { id, records: Vec::new(), answers: 0 }),
            Effect::KeepRecord { key, .. } | Effect::DropRecord { key } => Some(Input::NotServed { key }),
            Effect::Reply { .. }
            | Effect::Block { .. }
            | Effect::Store { .. }
            | Effect::Changed { .. }
            | Effect::Finished { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::node::NodeConfig;
    use hypernet_core::quota::{Quota, Used};
    use hypernet_core::record::Record;
    use hypernet_core::wire::{Hello, Response};

    use super::*;

    /// One whose effects are taken from the receiver, and no more than `room` wait there.
    fn driver(dir: &std::path::Path, room: usize) -> (Driver, mpsc::Receiver<Effect>) {
        let (completions, _) = mpsc::channel(COMPLETIONS);
        let (outbox, effects) = mpsc::channel(room);
        let driver = Driver {
            node: Node::new(NodeConfig::new(
                PeerId([1; 32]),
                hypernet_mesh::distance,
                Quota::default(),
                Used::default(),
            )),
            began: std::time::Instant::now(),
            store: Arc::new(ShardStore::open(dir, Quota::default()).unwrap()),
            completions,
            outbox,
            waiting: BTreeMap::new(),
            next_command: 1,
            donors: watch::channel(0).0,
            changes: broadcast::channel(CHANGES).0,
            remember: Box::new(|_, _| {}),
        };
        (driver, effects)
    }

    #[test]
    fn an_address_has_the_subnet_that_it_begins_with() {
        let of = |addr: &str| subnet(&addr.parse().unwrap()).map(|subnet| subnet.to_string());
        assert_eq!(of("/ip4/9.8.7.6/udp/4001/quic-v1").as_deref(), Some("9.8.7.0/24"));
        assert_eq!(of("/ip6/2a01:203:405::1/tcp/4001").as_deref(), Some("2a01:0203:0405::/48"));
        let relayed = "/ip4/9.8.7.6/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit";
        assert_eq!(of(relayed).as_deref(), Some("9.8.7.0/24"));
        assert_eq!((of("/ip4/127.0.0.1/tcp/1"), of("/dns4/example.org/tcp/1")), (None, None));
    }

    #[tokio::test]
    async fn a_record_that_found_no_place_in_the_queue_is_served_later() {
        let dir = tempfile::tempdir().unwrap();
        let (mut driver, mut effects) = driver(dir.path(), 1);
        driver.send(Effect::Block { peer: PeerId([2; 32]), millis: 1 });
        let record = Record::sign(&hypernet_format::values::device().signing_key(), 1, b"sealed".to_vec()).unwrap();
        let (done, outcome) = oneshot::channel();
        driver.waiting.insert(CommandId(1), done);
        let command = Command::Publish { record: record.clone(), enough: 0 };
        driver.step(Input::Command { id: CommandId(1), command });
        assert_eq!(outcome.await, Ok(Outcome::Published { stored: 0 }));
        assert!(matches!(effects.try_recv(), Ok(Effect::Block { .. })));
        assert!(effects.try_recv().is_err(), "the queue was full");
        // A little later, without waiting for it.
        driver.began -= Duration::from_secs(5);
        driver.step(Input::Tick);
        let kept = effects.try_recv();
        assert!(matches!(&kept, Ok(Effect::KeepRecord { key, .. }) if *key == record.key()), "{kept:?}");
        assert!(effects.try_recv().is_err());
    }

    #[test]
    fn a_slow_line_is_given_the_time_that_it_takes() {
        assert_eq!(patience(None), UPLOAD_PATIENCE);
        let slow = patience(Some(1 << 20));
        assert!(slow / 1_000 >= (UPLOAD_WINDOW >> 20) as u64, "all that is under way has its turn: {slow}");
        assert!(patience(Some(0)) > slow);
    }

    #[tokio::test]
    async fn the_donors_are_told_when_one_comes_or_goes_and_not_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let (mut driver, mut effects) = driver(dir.path(), 8);
        let mut donors = driver.donors.subscribe();
        let mut step = |input| {
            driver.step(input);
            donors.has_changed().unwrap().then(|| *donors.borrow_and_update())
        };
        let mut greet = |step: &mut dyn FnMut(Input) -> Option<usize>, peer: u8, donated| {
            assert_eq!(step(Input::Connected(PeerId([peer; 32]))), None, "it has not said yet what it offers");
            let Ok(Effect::Send { id, .. }) = effects.try_recv() else { panic!("it was not asked what it offers") };
            step(Input::Response {
                id,
                result: Ok(Response::Hello(Hello { free: donated, donated, to_newcomer: false, leaving: false })),
            })
        };
        assert_eq!(greet(&mut step, 2, 1 << 30), Some(1));
        assert_eq!(greet(&mut step, 3, 0), None);
        assert_eq!(greet(&mut step, 4, 1 << 30), Some(2));
        assert_eq!(step(Input::Tick), None);
        assert_eq!(step(Input::Disconnected(PeerId([3; 32]))), None);
        assert_eq!(step(Input::Disconnected(PeerId([2; 32]))), Some(1));
        // What it offered is remembered.
        assert_eq!(step(Input::Connected(PeerId([2; 32]))), Some(2));
        drop(driver);
        assert!(donors.changed().await.is_err(), "nobody is left to tell");
    }
}

//! Volumes over a mesh that is a map: what peers hold can be read while k of its holders are connected, and no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use hypernet_core::codec;
use hypernet_core::head::Head;
use hypernet_core::id::{PeerId, RecordKey, SegmentId, ShardId};
use hypernet_core::identity::era::Era;
use hypernet_core::key::{DeviceKeys, RecoveryKeys, Secret};
use hypernet_core::lease::{Lease, LeaseKey, LeaseSecret, LeaseToken};
use hypernet_core::merge::join;
use hypernet_core::node::{Command, CommandError, Effect, InboundId, Input, Node, NodeConfig, Now, Outcome};
use hypernet_core::placement::{Candidate, Wanted, order};
use hypernet_core::port::PortError;
use hypernet_core::quota::{Quota, Used};
use hypernet_core::record::{Record, record_key};
use hypernet_core::seal::ExtentRef;
use hypernet_core::segment::{Coded, Holder, Placement, Segment};
use hypernet_core::time::{Hlc, Instant, UnixSeconds};
use hypernet_core::tree::Dot;
use hypernet_core::wire::{Hello, Request, Response};
use hypernet_store::volume::VolumeDb;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Volume, state};
use crate::driver::NodeHandle;
use crate::identity::Identity;
use crate::identity::arrival::Arrived;
use crate::identity::known::{Known, enrol_by_phrase, listed};
use crate::keystore::{Keystore, KeystoreFile, Unlock};
use crate::peers::Peers;
use crate::sealing;

/// A step of the clock after which donors count as settled.
const LATER: u64 = 10_000;

/// What the peers hold together.
#[derive(Default)]
struct Kept {
    /// Bytes that each has left.
    free: u64,
    connected: BTreeSet<PeerId>,
    /// Those that have lost what they held so far.
    lost: BTreeMap<PeerId, BTreeSet<SegmentId>>,
    rows_of_data: BTreeMap<SegmentId, u8>,
    /// Which segment a shard is of.
    shards: BTreeMap<ShardId, SegmentId>,
    /// Those that were placed.
    bodies: BTreeMap<ShardId, Bytes>,
    /// Of each shard of each peer, what leases it has: one without any is gone.
    leases: BTreeMap<(PeerId, ShardId), BTreeSet<LeaseKey>>,
    /// Those that were given up.
    ended: BTreeSet<(PeerId, ShardId, LeaseKey)>,
    /// Those that have dropped all that they took, and say that they have it.
    droppers: BTreeSet<PeerId>,
    /// Those that stop storing for others.
    leaving: BTreeSet<PeerId>,
    /// Those whose disk has spoiled all, and that find that out when they look.
    spoiled: BTreeSet<PeerId>,
    /// The payload of each segment.
    segments: BTreeMap<SegmentId, Vec<u8>>,
    records: BTreeMap<RecordKey, Record>,
    /// Those that were published since they last expired.
    published: BTreeSet<RecordKey>,
    /// What a peer that lies answers, before all others.
    lies: BTreeMap<RecordKey, Record>,
    /// Where what is published reaches nobody, and this node alone has it.
    unheard: BTreeSet<RecordKey>,
    /// Nobody answers who is asked for a record: what is found is what this node itself has.
    mute: bool,
    /// How much is done yet before nothing is any more, if that is so.
    left: Option<u64>,
    now: u64,
}

/// A mesh of donors.
pub(crate) struct Mesh {
    node: Arc<Mutex<Node>>,
    kept: Arc<Mutex<Kept>>,
    /// Segments that were uploaded, and extents that were asked for.
    uploads: Arc<AtomicU64>,
    fetches: Arc<AtomicU64>,
    /// Shards that were to be proven.
    audits: Arc<AtomicU64>,
    /// The devices that have a home.
    enrolled: Mutex<Option<Known>>,
    /// Other people, and their devices.
    people: Mutex<BTreeMap<u8, Known>>,
}

/// What the words yield whose identity all devices are of.
pub(crate) fn phrase() -> RecoveryKeys {
    RecoveryKeys::new(&[3; 64])
}

impl Mesh {
    pub(crate) fn new(donors: u8) -> Self {
        let node =
            Node::new(NodeConfig::new(PeerId([0; 32]), hypernet_mesh::distance, Quota::default(), Used::default()));
        let mesh = Self {
            node: Arc::new(Mutex::new(node)),
            kept: Arc::new(Mutex::new(Kept { free: 1 << 40, ..Kept::default() })),
            uploads: Arc::default(),
            fetches: Arc::default(),
            audits: Arc::default(),
            enrolled: Mutex::default(),
            people: Mutex::default(),
        };
        mesh.connect((1..=donors).map(|i| PeerId([i; 32])));
        mesh
    }

    pub(crate) fn connect(&self, peers: impl IntoIterator<Item = PeerId>) {
        for peer in peers {
            let hello = {
                let mut kept = self.kept.lock();
                kept.connected.insert(peer);
                kept.hello(&peer)
            };
            let greetings = self.step(Input::Connected(peer));
            for effect in greetings {
                if let Effect::Send { id, request: Request::Hello(_), .. } = effect {
                    self.step(Input::Response { id, result: Ok(Response::Hello(hello.clone())) });
                }
            }
        }
        self.settle();
    }

    pub(crate) fn disconnect(&self, peers: impl IntoIterator<Item = PeerId>) {
        for peer in peers {
            self.kept.lock().connected.remove(&peer);
            self.step(Input::Disconnected(peer));
        }
        self.settle();
    }

    /// The peer says that it stops storing for others, or takes that back.
    pub(crate) fn leave(&self, peer: PeerId, leaving: bool) {
        let hello = {
            let mut kept = self.kept.lock();
            if leaving {
                kept.leaving.insert(peer)
            } else {
                kept.leaving.remove(&peer)
            };
            kept.hello(&peer)
        };
        self.step(Input::Request { peer, inbound: InboundId(1), request: Request::Hello(hello) });
        self.settle();
    }

    /// Shards of a peer that somebody has a lease of.
    pub(crate) fn leased_at(&self, peer: PeerId) -> usize {
        let kept = self.kept.lock();
        kept.leases.iter().filter(|((at, _), leases)| *at == peer && !leases.is_empty()).count()
    }

    /// The peer stays, and has nothing any more of what it holds now.
    pub(crate) fn lose_disk(&self, peer: PeerId) {
        let mut kept = self.kept.lock();
        let all = kept.segments.keys().copied().collect();
        kept.lost.insert(peer, all);
    }

    /// The peer stays, and has not got its shard of this segment any more.
    pub(crate) fn lose(&self, peer: PeerId, segment: SegmentId) {
        self.kept.lock().lost.entry(peer).or_default().insert(segment);
    }

    /// The peer says that it has what it is given, and drops it.
    pub(crate) fn drop_all(&self, peer: PeerId) {
        self.kept.lock().droppers.insert(peer);
    }

    /// All that the peer has is spoiled, and it does not know.
    pub(crate) fn spoil(&self, peer: PeerId) {
        self.kept.lock().spoiled.insert(peer);
    }

    /// Each peer has so much left, and says so when it is asked.
    pub(crate) fn set_free(&self, free: u64) {
        self.kept.lock().free = free;
    }

    /// Each peer has so much left, and has said so.
    pub(crate) fn tell_free(&self, free: u64) {
        self.set_free(free);
        self.handle().run_blocking(Command::AskRoom);
    }

    /// From now on nobody answers who is asked for a record, or everybody does.
    pub(crate) fn set_mute(&self, mute: bool) {
        self.kept.lock().mute = mute;
    }

    /// After so many commands none is done any more, as while an agent stops; or all are.
    pub(crate) fn stop_after(&self, commands: Option<u64>) {
        self.kept.lock().left = commands;
    }

    /// All records expire that nobody has published since this was last done.
    pub(crate) fn expire(&self) {
        let mut kept = self.kept.lock();
        let published = std::mem::take(&mut kept.published);
        kept.records.retain(|key, _| published.contains(key));
    }

    fn settle(&self) {
        self.kept.lock().now += LATER;
        // So that `Node::settled_for` sees the time.
        self.step(Input::Tick);
    }

    fn step(&self, input: Input) -> Vec<Effect> {
        let now = self.kept.lock().now;
        self.node.lock().step(Now { mono: Instant(now + 1), unix: UnixSeconds(1_800_000_000) }, input)
    }

    /// Bytes of all shards that somebody has a lease of.
    pub(crate) fn leased_bytes(&self) -> u64 {
        let kept = self.kept.lock();
        let len = |shard: &ShardId| {
            let segment = &kept.shards[shard];
            kept.segments[segment].len() as u64 / u64::from(kept.rows_of_data[segment])
        };
        kept.leases.iter().filter(|(_, leases)| !leases.is_empty()).map(|((_, shard), _)| len(shard)).sum()
    }

    pub(crate) fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::SeqCst)
    }

    pub(crate) fn audits(&self) -> u64 {
        self.audits.load(Ordering::SeqCst)
    }

    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    /// A handle whose commands wait until the test answers them.
    pub(crate) fn held(&self) -> (NodeHandle, mpsc::Receiver<oneshot::Sender<Outcome>>) {
        let (begun, waiting) = mpsc::sync_channel(64);
        (NodeHandle::double(self.node.clone(), move |_, done| drop(begun.send(done))), waiting)
    }

    /// By which an agent, or a volume, asks it.
    pub(crate) fn handle(&self) -> NodeHandle {
        let (kept, uploads, fetches) = (self.kept.clone(), self.uploads.clone(), self.fetches.clone());
        let audits = self.audits.clone();
        let node = self.node.clone();
        NodeHandle::double(self.node.clone(), move |command, done| {
            let mut kept = kept.lock();
            let is_stopped = kept.left == Some(0);
            kept.left = kept.left.map(|left| left.saturating_sub(1));
            let outcome = match command {
                _ if is_stopped => Outcome::Failed(CommandError::Invalid("the agent is stopping")),
                Command::Upload { coded, leases, until, .. } => {
                    uploads.fetch_add(1, Ordering::SeqCst);
                    kept.upload(&coded, &leases, until)
                }
                Command::Mend { coded, rows, others, spared, leases, until, .. } => {
                    let others = &others | &spared;
                    kept.mend(&coded, &rows, &others, &leases, until)
                }
                Command::Fetch { placement, wanted, .. } => {
                    fetches.fetch_add(wanted.len() as u64, Ordering::SeqCst);
                    kept.fetch(&placement, &wanted)
                }
                Command::Copy { holder, shard, .. } => kept.copy(holder, shard),
                Command::Probe { placement, .. } => kept.probe(&placement),
                Command::Rows { placement, .. } => kept.rows(&placement),
                Command::Renew { holder, leases, .. } => kept.renew(holder, &leases),
                Command::Release { holder, tokens, .. } => kept.release(holder, &tokens),
                Command::Audit { placement, rows, .. } => {
                    audits.fetch_add(rows.len() as u64, Ordering::SeqCst);
                    kept.audit(&placement, &rows)
                }
                Command::Publish { record, enough } => {
                    kept.published.insert(record.key());
                    let is_unheard = kept.unheard.contains(&record.key());
                    let kept = kept.records.entry(record_key(&record.signer)).or_insert_with(|| record.clone());
                    if record.replaces(kept) {
                        *kept = record.clone();
                    }
                    let is_kept = *kept == record && !is_unheard;
                    Outcome::Published { stored: if is_kept { enough } else { 0 } }
                }
                Command::AskRoom => {
                    let now = Now { mono: Instant(kept.now + 1), unix: UnixSeconds(1_800_000_000) };
                    for peer in &kept.connected {
                        let request = Request::Hello(kept.hello(peer));
                        node.lock().step(now, Input::Request { peer: *peer, inbound: InboundId(1), request });
                    }
                    Outcome::Asked
                }
                Command::Watch(_) => Outcome::Watching,
                Command::Spare(_) => Outcome::Spared,
                Command::Give(_) | Command::Leave(_) | Command::Acquaint(_) => Outcome::Noted,
                Command::Lookup(key) => {
                    let answers = if kept.mute { 0 } else { kept.connected.len() };
                    let (lie, kept) = (kept.lies.get(&key), kept.records.get(&key));
                    let others = kept.filter(|_| lie.is_some()).into_iter().cloned().collect();
                    Outcome::Found { record: lie.or(kept).cloned(), others, answers }
                }
            };
            let _ = done.send(outcome);
        })
    }

    /// A device's volume, whose home is `dir`. All devices are of one identity; one that has no home yet comes onto the
    /// list first.
    pub(crate) fn volume(&self, dir: &Path, device: u8) -> Arc<Volume> {
        let mut enrolled = self.enrolled.lock();
        let known = known_with(enrolled.take(), device);
        *enrolled = Some(known.clone());
        open(self.handle(), dir, device, known)
    }

    /// The home of somebody else, who has one device; they are on the mesh.
    pub(crate) fn person(&self, dir: &Path, who: u8) -> Arc<Volume> {
        let volume = self.device_of(dir, who, 0);
        volume.look_around().unwrap();
        volume
    }

    /// One of many people, each with one device, on the mesh.
    pub(crate) fn numbered(&self, dir: &Path, number: u16) -> Arc<Volume> {
        let mut seed = [0x5e; 64];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let (phrase, mut secret) = (RecoveryKeys::new(&seed), [0x5f; 32]);
        secret[..2].copy_from_slice(&number.to_be_bytes());
        let main = phrase.main_volume();
        let keystore = Keystore {
            eras: vec![Era::new(0, Secret::new(secret))],
            volumes: vec![main],
            main,
            ..Keystore::fixed(phrase.id(), sealing::recipient(&phrase.opening_key()).unwrap())
        };
        let keys = DeviceKeys::new(Secret::new(secret));
        Known::create(&phrase, &keystore, &keys, "device", Hlc::default())
            .unwrap()
            .save(&dir.join("identity"))
            .unwrap();
        KeystoreFile::new(dir.join("keystore.age"), Unlock::KeyFile, keystore).save().unwrap();
        let volume = open_as(self.handle(), dir, keys);
        volume.look_around().unwrap();
        volume
    }

    /// The home of one of the devices of somebody else, made where there is none. Each has all that the first one begins with,
    /// and was enrolled by the words.
    pub(crate) fn device_of(&self, dir: &Path, who: u8, which: u8) -> Arc<Volume> {
        let phrase = RecoveryKeys::new(&[who; 64]);
        let main = phrase.main_volume();
        let keystore = Keystore {
            eras: vec![Era::new(0, Secret::new([who; 32]))],
            volumes: vec![main],
            main,
            ..Keystore::fixed(phrase.id(), sealing::recipient(&phrase.opening_key()).unwrap())
        };
        let (keys, path) =
            (|which: u8| keys_of(who.wrapping_mul(8).wrapping_add(100 + which)), dir.join("keystore.age"));
        if !path.exists() {
            // What is sealed for the first device is sealed anew each time, so all begin with the same.
            let mut all = self.people.lock();
            let known = all
                .entry(who)
                .or_insert_with(|| Known::create(&phrase, &keystore, &keys(0), "device 0", Hlc::default()).unwrap());
            let one = listed(&phrase.id(), &keys(which), &format!("device {which}")).unwrap();
            if known.posting.log().roster().device(&one.id).is_none() {
                let era = known.posting.log().roster().era.unwrap();
                let enrol = |log: &mut _| enrol_by_phrase(log, &phrase, &one, Hlc::default(), era);
                known.posting.change(enrol).unwrap();
            }
            known.save(&dir.join("identity")).unwrap();
            KeystoreFile::new(path, Unlock::KeyFile, keystore).save().unwrap();
        }
        open_as(self.handle(), dir, keys(which))
    }

    /// All that is kept for anybody.
    pub(crate) fn all_records(&self) -> Vec<Record> {
        self.kept.lock().records.values().cloned().collect()
    }

    /// The home of a device that has come onto the list.
    pub(crate) fn arrived(&self, dir: &Path, device: u8, arrived: Arrived) -> Arc<Volume> {
        KeystoreFile::new(dir.join("keystore.age"), Unlock::KeyFile, arrived.keystore).save().unwrap();
        arrived.known.save(&dir.join("identity")).unwrap();
        open(self.handle(), dir, device, arrived.known)
    }

    /// Another part of the mesh, that this one does not hear of from now on.
    pub(crate) fn split(&self, donors: u8) -> Self {
        let other = Self::new(donors);
        {
            let (here, mut there) = (self.kept.lock(), other.kept.lock());
            there.segments.clone_from(&here.segments);
            there.leases.clone_from(&here.leases);
            there.rows_of_data.clone_from(&here.rows_of_data);
            there.shards.clone_from(&here.shards);
            there.bodies.clone_from(&here.bodies);
            there.records.clone_from(&here.records);
        }
        *other.enrolled.lock() = self.enrolled.lock().clone();
        other
    }

    /// The other part is there again: of two records of one key a keeper has the one that replaces the other.
    pub(crate) fn join(&self, other: &Self) {
        let there = other.kept.lock();
        let mut here = self.kept.lock();
        here.segments.extend(there.segments.clone());
        here.shards.extend(there.shards.clone());
        here.bodies.extend(there.bodies.clone());
        here.rows_of_data.extend(there.rows_of_data.clone());
        here.ended.extend(there.ended.iter().copied());
        for (at, leases) in &there.leases {
            here.leases.entry(*at).or_default().extend(leases.iter().copied());
        }
        for (peer, shard, key) in here.ended.clone() {
            here.leases.get_mut(&(peer, shard)).map(|leases| leases.remove(&key));
        }
        for (key, record) in &there.records {
            match here.records.get(key) {
                Some(held) if !record.replaces(held) => {}
                _ => drop(here.records.insert(*key, record.clone())),
            }
        }
    }

    /// Nobody has the record of this signer any more.
    pub(crate) fn forget_records_of(&self, signer: &[u8; 32]) {
        self.kept.lock().records.remove(&record_key(signer));
    }

    /// Somebody has this record kept.
    pub(crate) fn keep(&self, record: Record) {
        let mut kept = self.kept.lock();
        match kept.records.get(&record.key()) {
            Some(held) if !record.replaces(held) => {}
            _ => drop(kept.records.insert(record.key(), record)),
        }
    }

    /// A peer answers with this one from now on, whatever others keep. It is a last one, as what they keep is.
    pub(crate) fn lie(&self, record: Record) {
        self.kept.lock().lies.insert(record.key(), record);
    }

    /// From now on what is published there reaches nobody, or everybody again.
    pub(crate) fn set_unheard(&self, key: RecordKey, unheard: bool) {
        let mut kept = self.kept.lock();
        if unheard {
            kept.unheard.insert(key)
        } else {
            kept.unheard.remove(&key)
        };
    }

    /// What is asked of its peers.
    pub(crate) fn peers(&self) -> Peers {
        Peers::new(self.handle())
    }
}

fn keys_of(device: u8) -> DeviceKeys {
    DeviceKeys::new(Secret::new([device; 32]))
}

fn keystore() -> Keystore {
    let main = phrase().main_volume();
    let keystore = Keystore::fixed(phrase().id(), sealing::recipient(&phrase().opening_key()).unwrap());
    Keystore { volumes: vec![main], main, ..keystore }
}

/// The list of devices with one more on it.
fn known_with(known: Option<Known>, device: u8) -> Known {
    let (keys, name) = (keys_of(device), format!("device {device}"));
    let Some(mut known) = known else {
        return Known::create(&phrase(), &keystore(), &keys, &name, Hlc::default()).unwrap();
    };
    if known.posting.log().roster().device(&keys.id()).is_none() {
        let (one, era) = (listed(&phrase().id(), &keys, &name).unwrap(), known.posting.log().roster().era.unwrap());
        let enrol = |log: &mut _| enrol_by_phrase(log, &phrase(), &one, Hlc::default(), era);
        known.posting.change(enrol).unwrap();
    }
    known
}

/// A device's volume over whatever answers.
pub(crate) fn volume(node: NodeHandle, dir: &Path, device: u8) -> Arc<Volume> {
    open(node, dir, device, known_with(None, device))
}

/// A device's home, made where there is none.
pub(crate) fn open(node: NodeHandle, dir: &Path, device: u8, known: Known) -> Arc<Volume> {
    let (file, path) = (dir.join("identity"), dir.join("keystore.age"));
    if !path.exists() {
        known.save(&file).unwrap();
        KeystoreFile::new(path.clone(), Unlock::KeyFile, keystore()).save().unwrap();
    }
    open_as(node, dir, keys_of(device))
}

fn open_as(node: NodeHandle, dir: &Path, device: DeviceKeys) -> Arc<Volume> {
    let (file, path) = (dir.join("identity"), dir.join("keystore.age"));
    let keystore = Arc::new(KeystoreFile::load(&path, &Unlock::KeyFile).unwrap());
    let peers = Arc::new(Peers::new(node.clone()));
    let identity = Identity::load(file, keystore.clone(), device.clone(), peers).unwrap();
    let main = keystore.keystore().main;
    let db = Arc::new(VolumeDb::open(dir, main, 64 << 20).unwrap());
    Arc::new(Volume::open(main, device, Arc::new(identity), db, node).unwrap())
}

/// As if it had been sealed by the keys of now.
pub(crate) fn sealed_now(volume: &Volume, extent: ExtentRef) -> ExtentRef {
    ExtentRef { origin: volume.id.into(), epoch: volume.keys().epoch, ..extent }
}

/// The next head of a device; nothing is behind it.
pub(crate) fn head(volume: &Volume, millis: u64, vector: &[Dot]) -> Head {
    let golden: Head = codec::decode(&hypernet_format::all()["head"].bytes).unwrap();
    let heads = volume.heads.lock();
    let sequence = state::next_sequence(&volume.db, &volume.device.id()).unwrap();
    Head {
        volume: volume.id,
        device: volume.device.id(),
        home: volume.identity.home(),
        copied: volume.copied,
        sequence,
        time: Hlc { millis, counter: 0 },
        snapshot_extent: sealed_now(volume, golden.snapshot_extent.clone()),
        seen: heads.seen(volume.id, vector),
        vector: {
            let me = volume.dot(sequence);
            join([vector, &[me]])
        },
        ..golden
    }
}

/// As it goes to the mesh.
pub(crate) fn record(volume: &Volume, head: Head) -> Record {
    head.publish(&volume.device, &volume.keys()).unwrap()
}

/// Publishes it.
pub(crate) fn publish(volume: &Volume, millis: u64) -> Result<(), PortError> {
    publish_with(volume, millis, &[])
}

/// The same of a tree that has what others have done.
pub(crate) fn publish_with(volume: &Volume, millis: u64, vector: &[Dot]) -> Result<(), PortError> {
    volume.confirm()?;
    volume.publish_head(head(volume, millis, vector), 1).map(drop)
}

impl Kept {
    /// What a peer says of itself.
    fn hello(&self, peer: &PeerId) -> Hello {
        let leaving = self.leaving.contains(peer);
        Hello { free: if leaving { 0 } else { self.free }, donated: 1 << 40, to_newcomer: false, leaving }
    }

    /// Those that take something in.
    fn takers(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.difference(&self.leaving)
    }

    fn copy(&self, holder: PeerId, shard: ShardId) -> Outcome {
        let (peer, why) = (holder.short(), "it has not got it".to_owned());
        let segment = self.shards.get(&shard);
        let is_lost = segment.is_none_or(|id| self.lost.get(&holder).is_some_and(|lost| lost.contains(id)));
        let is_leased = self.leases.get(&(holder, shard)).is_some_and(|leases| !leases.is_empty());
        match self.bodies.get(&shard) {
            _ if !self.connected.contains(&holder) => Outcome::Failed(CommandError::Copy { peer, why, lacks: false }),
            Some(body) if is_leased && !is_lost => Outcome::Copied(body.clone()),
            _ => Outcome::Failed(CommandError::Copy { peer, why, lacks: true }),
        }
    }

    fn upload(&mut self, coded: &Coded, leases: &LeaseSecret, until: UnixSeconds) -> Outcome {
        let id = coded.segment.id();
        let candidates: Vec<Candidate> = self.takers().map(|peer| Candidate::new(*peer, 1 << 40)).collect();
        let (shard_len, k, n) = (coded.segment.shard_len.into(), coded.segment.k, coded.shards.len() as u8);
        let peers = order(&Wanted { segment: &id, shard_len, k, n }, &candidates, &[]);
        if peers.len() < coded.shards.len() {
            let (stored, n, why) = (peers.len() as u8, coded.shards.len() as u8, "too few are here".to_owned());
            return Outcome::Failed(CommandError::NotPlaced { stored, n, why });
        }
        for lost in self.lost.values_mut() {
            lost.remove(&id);
        }
        self.shards.extend(coded.segment.rows.iter().map(|shard| (*shard, id)));
        self.bodies.extend(coded.segment.rows.iter().copied().zip(coded.shards.iter().cloned()));
        self.rows_of_data.insert(id, coded.segment.k);
        self.segments.insert(id, coded.shards[..usize::from(coded.segment.k)].concat());
        let holders: Vec<Holder> =
            (0..coded.shards.len() as u8).zip(peers).map(|(row, peer)| Holder { row, peer, until }).collect();
        for holder in &holders {
            let shard = coded.segment.rows[usize::from(holder.row)];
            let key = leases.token(&holder.peer, &shard).key();
            self.leases.entry((holder.peer, shard)).or_default().insert(key);
        }
        let n = coded.shards.len() as u8;
        Outcome::Uploaded(Placement { segment: coded.segment.clone(), n, holders })
    }

    fn has(&self, holder: &Holder, segment: &Segment) -> bool {
        let (peer, shard) = (holder.peer, segment.rows[usize::from(holder.row)]);
        self.connected.contains(&peer)
            && !self.lost.get(&peer).is_some_and(|lost| lost.contains(&segment.id()))
            && self.leases.get(&(peer, shard)).is_some_and(|leases| !leases.is_empty())
    }

    fn mend(
        &mut self,
        coded: &Coded,
        rows: &[u8],
        others: &BTreeSet<PeerId>,
        leases: &LeaseSecret,
        until: UnixSeconds,
    ) -> Outcome {
        let id = coded.segment.id();
        if self.free < u64::from(coded.segment.shard_len) {
            let (stored, n, why) = (0, rows.len() as u8, "they are full".to_owned());
            return Outcome::Failed(CommandError::NotPlaced { stored, n, why });
        }
        let peers: Vec<PeerId> =
            self.takers().filter(|peer| !others.contains(peer)).take(rows.len()).copied().collect();
        if peers.len() < rows.len() {
            let (stored, n, why) = (peers.len() as u8, rows.len() as u8, "too few are here".to_owned());
            return Outcome::Failed(CommandError::NotPlaced { stored, n, why });
        }
        let holders: Vec<Holder> =
            rows.iter().zip(peers).map(|(row, peer)| Holder { row: *row, peer, until }).collect();
        for (holder, shard) in holders.iter().zip(&coded.shards) {
            let row = coded.segment.rows[usize::from(holder.row)];
            assert_eq!(blake3::hash(shard).as_bytes(), row.as_bytes(), "another row");
            if let Some(lost) = self.lost.get_mut(&holder.peer) {
                lost.remove(&id);
            }
            self.shards.insert(row, id);
            self.bodies.insert(row, shard.clone());
            self.leases.entry((holder.peer, row)).or_default().insert(leases.token(&holder.peer, &row).key());
        }
        Outcome::Uploaded(Placement { segment: coded.segment.clone(), n: rows.len() as u8, holders })
    }

    fn rows(&self, placement: &Placement) -> Outcome {
        match self.fetch(placement, &[]) {
            Outcome::Fetched { .. } => {
                let payload = &self.segments[&placement.segment.id()];
                let rows = payload.chunks(placement.segment.shard_len as usize);
                Outcome::Rows(rows.map(Bytes::copy_from_slice).collect())
            }
            failed => failed,
        }
    }

    fn renew(&mut self, holder: PeerId, leases: &[(ShardId, Lease)]) -> Outcome {
        if !self.connected.contains(&holder) {
            return Outcome::Failed(CommandError::Lease { peer: holder.short(), why: "it is not here".into() });
        }
        let lost: Vec<SegmentId> = self.lost.get(&holder).into_iter().flatten().copied().collect();
        let held = leases.iter().map(|(shard, lease)| {
            let is_lost = self.shards.get(shard).is_some_and(|segment| lost.contains(segment));
            let held = self.leases.get_mut(&(holder, *shard)).filter(|held| !held.is_empty() && !is_lost);
            held.map(|held| held.insert(lease.key)).is_some()
        });
        Outcome::Renewed(held.collect())
    }

    fn release(&mut self, holder: PeerId, tokens: &[(ShardId, LeaseToken)]) -> Outcome {
        if !self.connected.contains(&holder) {
            return Outcome::Failed(CommandError::Lease { peer: holder.short(), why: "it is not here".into() });
        }
        for (shard, token) in tokens {
            self.leases.get_mut(&(holder, *shard)).map(|held| held.remove(&token.key()));
            self.ended.insert((holder, *shard, token.key()));
        }
        Outcome::Released
    }

    fn audit(&self, placement: &Placement, rows: &[u8]) -> Outcome {
        let of = |shown: &dyn Fn(&Holder) -> bool| {
            let holders = placement.holders.iter().filter(|holder| rows.contains(&holder.row));
            holders.filter(|holder| shown(holder)).map(|holder| holder.row).collect::<Vec<u8>>()
        };
        let has = |holder: &Holder| self.has(holder, &placement.segment);
        let is_there = |holder: &Holder| self.connected.contains(&holder.peer);
        let lies = |holder: &Holder| is_there(holder) && self.droppers.contains(&holder.peer);
        let is_spoiled = |holder: &Holder| has(holder) && !lies(holder) && self.spoiled.contains(&holder.peer);
        Outcome::Audited {
            passed: of(&|holder| has(holder) && !lies(holder) && !is_spoiled(holder)),
            lied: of(&lies),
            damaged: of(&is_spoiled),
            missing: of(&|holder| is_there(holder) && !has(holder) && !lies(holder)),
            unreachable: of(&|holder| !is_there(holder)),
        }
    }

    fn probe(&self, placement: &Placement) -> Outcome {
        let segment = &placement.segment;
        let rows = |wanted: &dyn Fn(&Holder) -> bool| {
            placement.holders.iter().filter(|holder| wanted(holder)).map(|holder| holder.row).collect()
        };
        let is_here = |holder: &Holder| self.connected.contains(&holder.peer);
        Outcome::Probed {
            held: rows(&|holder| self.has(holder, segment)),
            missing: rows(&|holder| is_here(holder) && !self.has(holder, segment)),
            unreachable: rows(&|holder| !is_here(holder)),
        }
    }

    fn fetch(&self, placement: &Placement, wanted: &[(ExtentRef, u32)]) -> Outcome {
        let id = placement.segment.id();
        let is_good = |holder: &&Holder| {
            let peer = &holder.peer;
            self.has(holder, &placement.segment) && !self.droppers.contains(peer) && !self.spoiled.contains(peer)
        };
        let have = placement.holders.iter().filter(is_good).count() as u8;
        let need = placement.segment.k;
        let Some(payload) = self.segments.get(&id).filter(|_| have >= need) else {
            let why = "they are gone".to_owned();
            return Outcome::Failed(CommandError::TooFewShards { segment: id.short(), have, need, why });
        };
        let open = |(extent, offset): &(ExtentRef, u32)| {
            let start = *offset as usize;
            extent.open(&payload[start..start + extent.sealed_len as usize]).unwrap().into()
        };
        let plain: Vec<Bytes> = wanted.iter().map(open).collect();
        Outcome::Fetched { plain, around: vec![] }
    }
}

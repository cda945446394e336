//! Volumes over a mesh that is a map: what peers hold can be read while k of its holders are connected, and no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use hypernet_core::id::{PeerId, RecordKey, SegmentId, VolumeId};
use hypernet_core::key::{DeviceKeys, IdentityKeys, Secret, VolumeKeys};
use hypernet_core::node::{Command, CommandError, Effect, InboundId, Input, Node, NodeConfig, Now, Outcome};
use hypernet_core::placement::{Candidate, order};
use hypernet_core::record::{Record, record_key};
use hypernet_core::segment::{Coded, Holder, Placement};
use hypernet_core::time::{Instant, UnixSeconds};
use hypernet_core::wire::{Hello, Request, Response};
use hypernet_store::volume::VolumeDb;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::nearby::Nearby;
use super::{Volume, read};
use crate::driver::NodeHandle;
use crate::peers::Peers;

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
    /// The payload of each segment.
    segments: BTreeMap<SegmentId, Vec<u8>>,
    records: BTreeMap<RecordKey, Record>,
    now: u64,
}

/// A mesh of donors.
pub(crate) struct Mesh {
    node: Arc<Mutex<Node>>,
    kept: Arc<Mutex<Kept>>,
    /// Segments that were uploaded, and extents that were asked for.
    uploads: Arc<AtomicU64>,
    fetches: Arc<AtomicU64>,
}

impl Mesh {
    pub(crate) fn new(donors: u8) -> Self {
        let node = Node::new(NodeConfig::new(PeerId([0; 32]), hypernet_mesh::distance, 0, 0));
        let mesh = Self {
            node: Arc::new(Mutex::new(node)),
            kept: Arc::new(Mutex::new(Kept { free: 1 << 40, ..Kept::default() })),
            uploads: Arc::default(),
            fetches: Arc::default(),
        };
        mesh.connect((1..=donors).map(|i| PeerId([i; 32])));
        mesh
    }

    pub(crate) fn connect(&self, peers: impl IntoIterator<Item = PeerId>) {
        for peer in peers {
            let free = {
                let mut kept = self.kept.lock();
                kept.connected.insert(peer);
                kept.free
            };
            let greetings = self.step(Input::Connected(peer));
            for effect in greetings {
                if let Effect::Send { id, request: Request::Hello(_), .. } = effect {
                    let hello = Hello { free, donated: 1 << 40 };
                    self.step(Input::Response { id, result: Ok(Response::Hello(hello)) });
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

    /// The peer stays, and has nothing any more of what it holds now.
    pub(crate) fn lose_disk(&self, peer: PeerId) {
        let mut kept = self.kept.lock();
        let all = kept.segments.keys().copied().collect();
        kept.lost.insert(peer, all);
    }

    /// Each peer has so much left, and says so when it is asked.
    pub(crate) fn set_free(&self, free: u64) {
        self.kept.lock().free = free;
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

    pub(crate) fn uploads(&self) -> u64 {
        self.uploads.load(Ordering::SeqCst)
    }

    pub(crate) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    /// A handle whose commands wait until the test answers them.
    pub(crate) fn held(&self) -> (NodeHandle, mpsc::Receiver<oneshot::Sender<Outcome>>) {
        let (begun, waiting) = mpsc::sync_channel(64);
        (NodeHandle::double(self.node.clone(), move |_, done| drop(begun.send(done))), waiting)
    }

    fn handle(&self) -> NodeHandle {
        let (kept, uploads, fetches) = (self.kept.clone(), self.uploads.clone(), self.fetches.clone());
        let node = self.node.clone();
        NodeHandle::double(self.node.clone(), move |command, done| {
            let mut kept = kept.lock();
            let outcome = match command {
                Command::Upload { coded, until, .. } => {
                    uploads.fetch_add(1, Ordering::SeqCst);
                    kept.upload(&coded, until)
                }
                Command::Fetch { placement, wanted, .. } => {
                    fetches.fetch_add(wanted.len() as u64, Ordering::SeqCst);
                    kept.fetch(&placement, &wanted)
                }
                Command::Probe { placement, .. } => kept.probe(&placement),
                Command::Publish { record, enough } => {
                    let kept = kept.records.entry(record_key(&record.signer)).or_insert_with(|| record.clone());
                    if record.replaces(kept) {
                        *kept = record.clone();
                    }
                    Outcome::Published { stored: if *kept == record { enough } else { 0 } }
                }
                Command::AskRoom => {
                    let now = Now { mono: Instant(kept.now + 1), unix: UnixSeconds(1_800_000_000) };
                    for peer in &kept.connected {
                        let request = Request::Hello(Hello { free: kept.free, donated: 1 << 40 });
                        node.lock().step(now, Input::Request { peer: *peer, inbound: InboundId(1), request });
                    }
                    Outcome::Asked
                }
                Command::Lookup(key) => Outcome::Found(kept.records.get(&key).cloned()),
            };
            let _ = done.send(outcome);
        })
    }

    /// A device's volume, with an empty index in `dir`. All devices are of one identity.
    pub(crate) fn volume(&self, dir: &std::path::Path, device: u8) -> Arc<Volume> {
        volume(self.handle(), dir, device)
    }
}

/// A device's volume over whatever answers.
pub(crate) fn volume(node: NodeHandle, dir: &std::path::Path, device: u8) -> Arc<Volume> {
    Arc::new(Volume {
        keys: Arc::new(VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]))),
        device: DeviceKeys::new(Secret::new([device; 32])),
        identity: IdentityKeys::new(Secret::new([3; 32])),
        device_name: format!("device {device}"),
        db: Arc::new(VolumeDb::open(dir, 64 << 20).unwrap()),
        node: node.clone(),
        links: Mutex::new(None),
        placements: Mutex::new(read::placement_cache()),
        surveyed: Mutex::new(None),
        peers: Peers::new(node.clone()),
        lacking: Default::default(),
        heads: Mutex::default(),
        nearby: Mutex::new(Nearby::new()),
    })
}

impl Kept {
    fn upload(&mut self, coded: &Coded, until: UnixSeconds) -> Outcome {
        let id = coded.segment.id();
        let candidates: Vec<Candidate> =
            self.connected.iter().map(|peer| Candidate { peer: *peer, free: 1 << 40, trusted: true }).collect();
        let peers = order(&id, u64::from(coded.segment.shard_len), &candidates);
        if peers.len() < coded.shards.len() {
            let (stored, n, why) = (peers.len() as u8, coded.shards.len() as u8, "too few are here".to_owned());
            return Outcome::Failed(CommandError::NotPlaced { stored, n, why });
        }
        for lost in self.lost.values_mut() {
            lost.remove(&id);
        }
        self.segments.insert(id, coded.shards[..usize::from(coded.segment.k)].concat());
        let holders = (0..coded.shards.len() as u8).zip(peers).map(|(row, peer)| Holder { row, peer, until });
        let n = coded.shards.len() as u8;
        Outcome::Uploaded(Placement { segment: coded.segment.clone(), n, holders: holders.collect() })
    }

    fn has(&self, peer: PeerId, segment: SegmentId) -> bool {
        self.connected.contains(&peer) && !self.lost.get(&peer).is_some_and(|lost| lost.contains(&segment))
    }

    fn probe(&self, placement: &Placement) -> Outcome {
        let id = placement.segment.id();
        let rows = |wanted: &dyn Fn(PeerId) -> bool| {
            placement.holders.iter().filter(|holder| wanted(holder.peer)).map(|holder| holder.row).collect()
        };
        Outcome::Probed {
            held: rows(&|peer| self.has(peer, id)),
            missing: rows(&|peer| self.connected.contains(&peer) && !self.has(peer, id)),
            unreachable: rows(&|peer| !self.connected.contains(&peer)),
        }
    }

    fn fetch(&self, placement: &Placement, wanted: &[(hypernet_core::seal::ExtentRef, u32)]) -> Outcome {
        let id = placement.segment.id();
        let have = placement.holders.iter().filter(|holder| self.has(holder.peer, id)).count() as u8;
        let need = placement.segment.k;
        let Some(payload) = self.segments.get(&id).filter(|_| have >= need) else {
            let why = "they are gone".to_owned();
            return Outcome::Failed(CommandError::TooFewShards { segment: id.short(), have, need, why });
        };
        let open = |(extent, offset): &(hypernet_core::seal::ExtentRef, u32)| {
            let start = *offset as usize;
            extent.open(&payload[start..start + extent.sealed_len as usize]).unwrap().into()
        };
        let plain: Vec<Bytes> = wanted.iter().map(open).collect();
        Outcome::Fetched { plain, around: vec![] }
    }
}

//! A mesh and its events, as the tests drive it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use hypernet_core::id::{NetworkId, PeerId, RecordKey, ShardId};
use hypernet_core::key::Secret;
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::RECORD_MAX;
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::{Hello, Refusal, Request, Response};
use hypernet_mesh::{Mesh, MeshConfig, MeshEvent, Multiaddr, RelayLimits, SendError};
use tokio::sync::mpsc;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const NETWORK: NetworkId = NetworkId([1; 16]);
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A mesh and its events.
pub(crate) struct Peer {
    pub(crate) mesh: Mesh,
    pub(crate) events: mpsc::Receiver<MeshEvent>,
}

impl Peer {
    pub(crate) async fn start(seed: u8, network: NetworkId, listen: &str, bootstrap: &[Multiaddr]) -> Self {
        let (mesh, events) = Mesh::start(config(seed, network, listen, bootstrap)).await.unwrap();
        Self { mesh, events }
    }

    /// One that is connected to `server`.
    pub(crate) async fn of(seed: u8, server: &Self) -> Self {
        let mut peer = Self::start(seed, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
        peer.connected_to(server.id()).await;
        peer
    }

    /// Where it listens on this address, once it does.
    pub(crate) async fn at(&mut self, ip: &str) -> Multiaddr {
        let (start, mesh) = (format!("/ip4/{ip}/"), self.mesh.clone());
        let known = mesh.listen_addrs().into_iter().find(|addr| addr.to_string().starts_with(&start));
        let told = |event| match event {
            MeshEvent::Listening { addr } => addr.to_string().starts_with(&start).then_some(addr),
            _ => None,
        };
        match known {
            Some(addr) => addr,
            None => self.until(told).await,
        }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.mesh.peer_id()
    }

    /// Reads events until one is what we want.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(MeshEvent) -> Option<T>) -> T {
        tokio::time::timeout(LIMIT, async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        })
        .await
        .expect("the event comes")
    }

    pub(crate) async fn connected_to(&mut self, other: PeerId) {
        self.until(|event| matches!(event, MeshEvent::Connected { peer, .. } if peer == other).then_some(())).await;
    }

    /// What was asked, and by whom.
    pub(crate) async fn asked(&mut self) -> (PeerId, u64, Request) {
        self.until(|event| match event {
            MeshEvent::Request { peer, inbound, request } => Some((peer, inbound, request)),
            _ => None,
        })
        .await
    }

    /// The next response to any request.
    pub(crate) async fn answer(&mut self) -> Result<Response, SendError> {
        self.until(|event| if let MeshEvent::Response { result, .. } = event { Some(result) } else { None }).await
    }

    /// What a peer got wrong.
    pub(crate) async fn fault_of(&mut self, culprit: PeerId) -> String {
        self.until(|event| match event {
            MeshEvent::Misbehaved { peer, reason } if peer == culprit => Some(reason),
            _ => None,
        })
        .await
    }

    /// What a look-up finds.
    pub(crate) async fn find(&mut self, key: RecordKey) -> Vec<Vec<u8>> {
        self.look_up(key).await.0
    }

    /// The same, and how many peers have answered.
    pub(crate) async fn look_up(&mut self, key: RecordKey) -> (Vec<Vec<u8>>, usize) {
        self.mesh.get_record(77, key).await;
        self.until(|event| match event {
            MeshEvent::RecordFound { id: 77, records, answers } => Some((records, answers)),
            _ => None,
        })
        .await
    }

    /// Who is closest to a key.
    pub(crate) async fn closest(&mut self, key: RecordKey) -> Vec<PeerId> {
        self.mesh.find_closest(77, key).await;
        self.until(|event| if let MeshEvent::Closest { id: 77, peers } = event { Some(peers) } else { None }).await
    }

    /// Keeps a record; it is kept when this returns.
    pub(crate) async fn keep(&self, key: RecordKey, bytes: &[u8]) {
        self.mesh.keep_record(key, bytes.to_vec()).await;
        // Commands are done in order, so an answer to this one means that the record is kept.
        self.mesh.peers().await;
    }

    pub(crate) async fn outcome(&mut self, wanted: u64) -> Result<Response, SendError> {
        self.until(|event| match event {
            MeshEvent::Response { id, result, .. } if id == wanted => Some(result),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ask(&mut self, peer: PeerId, request: Request) -> Result<Response, SendError> {
        self.mesh.send(peer, 77, request, DEADLINE).await;
        self.outcome(77).await
    }

    /// Stops and returns the events that were still to come.
    pub(crate) async fn stop(mut self) -> Vec<MeshEvent> {
        let mut rest = Vec::new();
        let stopping = tokio::spawn(self.mesh.shutdown());
        while let Some(event) = self.events.recv().await {
            rest.push(event);
        }
        stopping.await.unwrap();
        rest
    }
}

pub(crate) fn config(seed: u8, network: NetworkId, listen: &str, bootstrap: &[Multiaddr]) -> MeshConfig {
    MeshConfig {
        secret: Secret::new([seed; 32]),
        network,
        listen: vec![listen.parse().unwrap()],
        bootstrap: bootstrap.to_vec(),
        mdns: false,
        upnp: false,
        relay: RelayLimits::default(),
        upload: None,
        download: None,
    }
}

pub(crate) fn hello() -> Request {
    Request::Hello(Hello { free: 1, donated: 2, to_newcomer: false, leaving: false })
}

pub(crate) fn put(shard: ShardId, body: Bytes) -> Request {
    Request::Put { shard, lease: Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(9) }, body }
}

/// Keeps shards in memory for as long as the mesh runs.
pub(crate) async fn serve(mut peer: Peer) {
    let mut shards: HashMap<ShardId, Bytes> = HashMap::new();
    while let Some(event) = peer.events.recv().await {
        let MeshEvent::Request { inbound, request, .. } = event else { continue };
        let response = match request {
            Request::Put { shard, body, .. } => {
                // A copy, as on a disk: who keeps the body itself keeps its share of the receive budget.
                shards.insert(shard, Bytes::copy_from_slice(&body));
                Response::Ok
            }
            Request::Get { shard, offset, len } => match shards.get(&shard) {
                Some(body) => Response::Bytes(body.slice(offset as usize..(offset + len) as usize)),
                None => Response::Refused(Refusal::NotFound),
            },
            Request::Hello(_) => Response::Hello(Hello { free: 3, donated: 4, to_newcomer: true, leaving: false }),
            Request::Watch { .. } => Response::Bytes(Bytes::from(vec![7; RECORD_MAX])),
            _ => Response::Refused(Refusal::Invalid),
        };
        peer.mesh.reply(inbound, response).await;
    }
}

/// Meshes with these seeds that start from the first one's address, each connected to all others.
pub(crate) async fn full_mesh(seeds: &[u8]) -> Vec<Peer> {
    let mut peers = vec![Peer::start(seeds[0], NETWORK, QUIC, &[]).await];
    let bootstrap = peers[0].mesh.listen_addrs();
    for seed in &seeds[1..] {
        peers.push(Peer::start(*seed, NETWORK, QUIC, &bootstrap).await);
    }
    let all: BTreeSet<PeerId> = peers.iter().map(Peer::id).collect();
    for peer in &mut peers {
        let mut missing = all.clone();
        missing.remove(&peer.id());
        peer.until(|event| {
            match event {
                MeshEvent::Connected { peer, .. } => missing.remove(&peer),
                MeshEvent::Disconnected { peer } => missing.insert(peer),
                _ => false,
            };
            missing.is_empty().then_some(())
        })
        .await;
    }
    peers
}

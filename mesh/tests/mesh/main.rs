//! Real meshes on loopback sockets. Whatever is waited for is an event; the time limit only turns a hang into a
//! failure.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use hypernet_core::id::{NetworkId, PeerId, RecordKey, ShardId};
use hypernet_core::limits::{MESH_RESPONSES_PER_PEER, MIB, SERVING_PER_PEER, WIRE_BODY_MAX};
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::{Hello, Lease, Refusal, Request, Response};
use hypernet_mesh::{Mesh, MeshConfig, MeshError, MeshEvent, Multiaddr, SendError, Transport};
use tokio::sync::mpsc;

mod rogue;

const LIMIT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);
const NETWORK: NetworkId = NetworkId([1; 16]);
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// A mesh and its events.
struct Peer {
    mesh: Mesh,
    events: mpsc::Receiver<MeshEvent>,
}

impl Peer {
    async fn start(seed: u8, network: NetworkId, listen: &str, bootstrap: &[Multiaddr]) -> Self {
        let (mesh, events) = Mesh::start(config(seed, network, listen, bootstrap)).await.unwrap();
        Self { mesh, events }
    }

    fn id(&self) -> PeerId {
        self.mesh.peer_id()
    }

    /// Reads events until one is what we want.
    async fn until<T>(&mut self, mut wanted: impl FnMut(MeshEvent) -> Option<T>) -> T {
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

    async fn connected_to(&mut self, other: PeerId) {
        self.until(|event| matches!(event, MeshEvent::Connected { peer, .. } if peer == other).then_some(())).await;
    }

    async fn outcome(&mut self, wanted: u64) -> Result<Response, SendError> {
        self.until(|event| match event {
            MeshEvent::Response { id, result, .. } if id == wanted => Some(result),
            _ => None,
        })
        .await
    }

    async fn ask(&mut self, peer: PeerId, request: Request) -> Result<Response, SendError> {
        self.mesh.send(peer, 77, request, DEADLINE).await;
        self.outcome(77).await
    }

    /// Stops and returns the events that were still to come.
    async fn stop(mut self) -> Vec<MeshEvent> {
        let mut rest = Vec::new();
        let stopping = tokio::spawn(self.mesh.shutdown());
        while let Some(event) = self.events.recv().await {
            rest.push(event);
        }
        stopping.await.unwrap();
        rest
    }
}

fn config(seed: u8, network: NetworkId, listen: &str, bootstrap: &[Multiaddr]) -> MeshConfig {
    MeshConfig {
        secret: [seed; 32],
        network,
        listen: vec![listen.parse().unwrap()],
        bootstrap: bootstrap.to_vec(),
        mdns: false,
    }
}

fn hello() -> Request {
    Request::Hello(Hello { free: 1, donated: 2 })
}

fn put(shard: ShardId, body: Bytes) -> Request {
    Request::Put { shard, lease: Lease { key: [1; 32], expires: UnixSeconds(9), signature: [2; 64] }, body }
}

/// Keeps shards in memory for as long as the mesh runs.
async fn serve(mut peer: Peer) {
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
            Request::Hello(_) => Response::Hello(Hello { free: 3, donated: 4 }),
            _ => Response::Refused(Refusal::Invalid),
        };
        peer.mesh.reply(inbound, response).await;
    }
}

async fn exchange_over(listen: &str, transport: Transport) {
    let server = Peer::start(1, NETWORK, listen, &[]).await;
    let (server_id, server_mesh) = (server.id(), server.mesh.clone());
    let mut client = Peer::start(2, NETWORK, listen, &server.mesh.listen_addrs()).await;
    let serving = tokio::spawn(serve(server));
    client.connected_to(server_id).await;

    let body: Bytes = (0..4 * MIB).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    let shard = ShardId([5; 32]);
    assert_eq!(client.ask(server_id, put(shard, body.clone())).await, Ok(Response::Ok));
    let get = |offset, len| Request::Get { shard, offset, len };
    assert_eq!(client.ask(server_id, get(0, 4 * MIB as u32)).await, Ok(Response::Bytes(body.clone())));
    assert_eq!(client.ask(server_id, get(4096, 8192)).await, Ok(Response::Bytes(body.slice(4096..4096 + 8192))));
    let missing = Request::Get { shard: ShardId([6; 32]), offset: 0, len: 1 };
    assert_eq!(client.ask(server_id, missing).await, Ok(Response::Refused(Refusal::NotFound)));

    let peers = client.mesh.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].peer, peers[0].transport), (server_id, transport));
    assert_eq!(peers[0].sent, 4 * MIB as u64);
    assert_eq!(peers[0].received, 4 * MIB as u64 + 8192);
    client.stop().await;
    server_mesh.shutdown().await;
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_mebibytes_there_and_back_over_quic() {
    exchange_over(QUIC, Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_mebibytes_there_and_back_over_tcp() {
    exchange_over(TCP, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_listen_on_both_meet_over_quic() {
    let mut both = config(1, NETWORK, TCP, &[]);
    both.listen.push(QUIC.parse().unwrap());
    let (server, _events) = Mesh::start(both).await.unwrap();
    assert_eq!(server.listen_addrs().len(), 2);
    let mut client = Peer::start(2, NETWORK, QUIC, &server.listen_addrs()).await;
    client.connected_to(server.peer_id()).await;
    assert_eq!(client.mesh.peers().await[0].transport, Transport::Quic);
    // Both addresses are worth remembering, the one we came by too.
    let mut expected: BTreeSet<String> = server.listen_addrs().iter().map(Multiaddr::to_string).collect();
    client
        .until(|event| {
            if let MeshEvent::PeerAddr { peer, addr } = event {
                assert!(peer == server.peer_id() && expected.remove(&addr.to_string()), "{addr}");
            }
            expected.is_empty().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_networks_never_talk() {
    let other_network = NetworkId([2; 16]);
    let mut ours = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut theirs = Peer::start(2, other_network, QUIC, &ours.mesh.listen_addrs()).await;
    let (our_id, their_id) = (ours.id(), theirs.id());
    // It dials, is connected, and is refused: by the protocol's name or, sooner, by identify.
    theirs.ask(our_id, hello()).await.unwrap_err();
    ours.mesh.dial(theirs.mesh.listen_addrs()[0].clone()).await;
    ours.ask(their_id, hello()).await.unwrap_err();

    // A newcomer that knows both finds only its own, although both are in its reach.
    let both = [ours.mesh.listen_addrs(), theirs.mesh.listen_addrs()].concat();
    let mut newcomer = Peer::start(3, NETWORK, QUIC, &both).await;
    newcomer.connected_to(our_id).await;
    newcomer.ask(their_id, hello()).await.unwrap_err();
    let key = RecordKey([9; 32]);
    newcomer.mesh.find_closest(1, key).await;
    let closest =
        newcomer.until(|event| if let MeshEvent::Closest { peers, .. } = event { Some(peers) } else { None }).await;
    assert_eq!(closest, [our_id], "only the peer of the same network is in the routing table");

    for (peer, stranger) in [(ours, their_id), (theirs, our_id), (newcomer, their_id)] {
        assert!(peer.mesh.peers().await.iter().all(|info| info.peer != stranger));
        for event in peer.stop().await {
            let heard = match event {
                MeshEvent::Connected { peer, .. } | MeshEvent::PeerAddr { peer, .. } => Some(peer),
                MeshEvent::RecordOffered { from, .. } => Some(from),
                _ => None,
            };
            assert_ne!(heard, Some(stranger));
        }
    }
}

/// `count` meshes that start from the first one's address, each connected to all others.
async fn full_mesh(count: u8) -> Vec<Peer> {
    let mut peers = vec![Peer::start(1, NETWORK, QUIC, &[]).await];
    let bootstrap = peers[0].mesh.listen_addrs();
    for seed in 2..=count {
        peers.push(Peer::start(seed, NETWORK, QUIC, &bootstrap).await);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eleven_meshes_that_know_one_address_all_meet() {
    let peers = full_mesh(11).await;
    for peer in &peers {
        assert_eq!(peer.mesh.peers().await.len(), 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_found_where_it_was_kept_and_only_then() {
    let mut peers = full_mesh(5).await;
    let (kept, refused) = (RecordKey([7; 32]), RecordKey([8; 32]));
    peers[0].mesh.find_closest(1, kept).await;
    let mut closest =
        peers[0].until(|event| if let MeshEvent::Closest { id: 1, peers } = event { Some(peers) } else { None }).await;
    closest.sort();
    let mut others: Vec<PeerId> = peers[1..].iter().map(Peer::id).collect();
    others.sort();
    assert_eq!(closest, others);
    for peer in &peers[1..] {
        peer.mesh.keep_record(kept, b"good".to_vec()).await;
        // Commands are done in order, so an answer to this one means that the record is kept.
        peer.mesh.peers().await;
    }

    // The publisher itself did not keep it, so it has to ask the others, as they may ask one another.
    for peer in [0, 4] {
        peers[peer].mesh.get_record(3, kept).await;
        peers[peer].mesh.get_record(4, refused).await;
        let mut found = HashMap::new();
        peers[peer]
            .until(|event| {
                if let MeshEvent::RecordFound { id, records } = event {
                    found.insert(id, records);
                }
                (found.len() == 2).then_some(())
            })
            .await;
        assert_eq!(found, HashMap::from([(3, vec![b"good".to_vec()]), (4, vec![])]));
    }

    // Holders that disagree are all heard.
    peers[2].mesh.keep_record(kept, b"newer".to_vec()).await;
    peers[2].mesh.peers().await;
    peers[0].mesh.get_record(5, kept).await;
    let mut both = peers[0]
        .until(|event| match event {
            MeshEvent::RecordFound { id: 5, records } => Some(records),
            _ => None,
        })
        .await;
    both.sort();
    assert_eq!(both, [b"good".to_vec(), b"newer".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_nothing_is_stored_and_only_what_is_kept_here_is_found() {
    let mut peer = Peer::start(1, NETWORK, QUIC, &[]).await;
    let (kept, put) = (RecordKey([7; 32]), RecordKey([8; 32]));
    peer.mesh.keep_record(kept, b"mine".to_vec()).await;
    peer.mesh.find_closest(1, put).await;
    peer.mesh.get_record(2, kept).await;
    peer.mesh.get_record(3, put).await;
    peer.mesh.forget_record(kept).await;
    peer.mesh.get_record(4, kept).await;
    let mut outcomes = HashMap::new();
    peer.until(|event| {
        match event {
            MeshEvent::Closest { id, peers } => outcomes.insert(id, vec![peers.len().to_string().into_bytes()]),
            MeshEvent::RecordFound { id, records } => outcomes.insert(id, records),
            _ => None,
        };
        (outcomes.len() == 4).then_some(())
    })
    .await;
    let expected = [(1, vec![b"0".to_vec()]), (2, vec![b"mine".to_vec()]), (3, vec![]), (4, vec![])];
    assert_eq!(outcomes, HashMap::from(expected));
}

/// Multicast leaves the machine, so this runs only where somebody has made a network for it:
/// `unshare -n sh -c 'ip link set lo up; ip link add v0 type veth peer name v1; ip addr add 10.9.0.1/24 dev v0;
/// ip link set v1 up; ip link set v0 up; ip route add 224.0.0.0/4 dev v0; exec TEST --ignored'`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network of its own to multicast in"]
async fn peers_on_one_lan_find_each_other_and_nobody_elses() {
    let start = async |seed, network| {
        let mut config = config(seed, network, "/ip4/0.0.0.0/udp/0/quic-v1", &[]);
        config.mdns = true;
        let (mesh, events) = Mesh::start(config).await.unwrap();
        Peer { mesh, events }
    };
    let mut first = start(1, NETWORK).await;
    let mut stranger = start(2, NetworkId([2; 16])).await;
    let mut second = start(3, NETWORK).await;
    let mut third = start(4, NetworkId([2; 16])).await;
    let lan: std::net::Ipv4Addr = "10.9.0.1".parse().unwrap();
    for (peer, other) in [(&mut first, &mut second), (&mut stranger, &mut third)] {
        peer.connected_to(other.id()).await;
        other.connected_to(peer.id()).await;
        let known =
            peer.until(|event| if let MeshEvent::PeerAddr { addr, .. } = event { Some(addr) } else { None }).await;
        assert!(known.iter().any(|part| part == lan.into()), "{known}");
    }
    for (peer, friend) in [(&first, second.id()), (&stranger, third.id())] {
        let connected: Vec<PeerId> = peer.mesh.peers().await.iter().map(|info| info.peer).collect();
        assert_eq!(connected, [friend]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_to_a_dead_peer_has_one_outcome() {
    let dead = Peer::start(1, NETWORK, QUIC, &[]).await;
    let (dead_id, dead_addrs) = (dead.id(), dead.mesh.listen_addrs());
    dead.stop().await;
    let mut peer = Peer::start(2, NETWORK, QUIC, &dead_addrs).await;
    // Nobody has ever heard of this one, so there is nothing to wait for.
    assert_eq!(peer.ask(PeerId([3; 32]), hello()).await, Err(SendError::Unreachable));
    let before = std::time::Instant::now();
    let deadline = Duration::from_millis(300);
    peer.mesh.send(dead_id, 5, hello(), deadline).await;
    let outcome = peer.outcome(5).await.unwrap_err();
    assert!(matches!(outcome, SendError::Deadline | SendError::Unreachable), "{outcome}");
    assert!(before.elapsed() >= deadline || outcome == SendError::Unreachable);
    // And one that is open when the mesh stops has its outcome as well.
    peer.mesh.send(dead_id, 6, hello(), DEADLINE).await;
    let rest = peer.stop().await;
    let outcomes: Vec<u64> =
        rest.iter().filter_map(|e| if let MeshEvent::Response { id, .. } = e { Some(*id) } else { None }).collect();
    assert_eq!(outcomes, [6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_while_the_peer_thinks_and_its_late_answer_changes_nothing() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    client.connected_to(server.id()).await;
    client.mesh.send(server.id(), 1, hello(), Duration::from_millis(200)).await;
    let inbound =
        server.until(|event| if let MeshEvent::Request { inbound, .. } = event { Some(inbound) } else { None }).await;
    assert_eq!(client.outcome(1).await, Err(SendError::Deadline));
    server.mesh.reply(inbound, Response::Ok).await;
    let rest = client.stop().await;
    assert!(!rest.iter().any(|event| matches!(event, MeshEvent::Response { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_beyond_the_bound_is_refused_as_busy() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    client.connected_to(server.id()).await;
    let total = SERVING_PER_PEER + 8;
    for id in 0..total as u64 {
        client.mesh.send(server.id(), id, hello(), DEADLINE).await;
    }
    for _ in 0..8 {
        let refused = client
            .until(|event| if let MeshEvent::Response { result, .. } = event { Some(result) } else { None })
            .await;
        assert_eq!(refused, Ok(Response::Refused(Refusal::Busy)));
    }
    let (mut asked, mut turned_away) = (Vec::new(), 0);
    while asked.len() < SERVING_PER_PEER || turned_away < 8 {
        let request = server
            .until(|event| match event {
                MeshEvent::Request { inbound, .. } => Some(Some(inbound)),
                MeshEvent::TurnedAway { peer } if peer == client.id() => Some(None),
                _ => None,
            })
            .await;
        turned_away += usize::from(request.is_none());
        asked.extend(request);
    }
    for inbound in asked {
        server.mesh.reply(inbound, Response::Ok).await;
        let served = client
            .until(|event| if let MeshEvent::Response { result, .. } = event { Some(result) } else { None })
            .await;
        assert_eq!(served, Ok(Response::Ok));
    }
    // Every place is free again.
    let serving = tokio::spawn(serve(server));
    for _ in 0..=SERVING_PER_PEER {
        let peer = client.mesh.peers().await[0].peer;
        assert_eq!(client.ask(peer, hello()).await, Ok(Response::Hello(Hello { free: 3, donated: 4 })));
    }
    client.stop().await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_asked_for_beyond_the_bound_are_refused_as_busy() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    let server_id = server.id();
    client.connected_to(server_id).await;
    let get = || Request::Get { shard: ShardId([5; 32]), offset: 0, len: WIRE_BODY_MAX as u32 };
    let fits = MESH_RESPONSES_PER_PEER / WIRE_BODY_MAX;
    for id in 0..fits as u64 + 2 {
        client.mesh.send(server_id, id, get(), DEADLINE).await;
    }
    let response = |event| if let MeshEvent::Response { result, .. } = event { Some(result) } else { None };
    for _ in 0..2 {
        assert_eq!(client.until(response).await, Ok(Response::Refused(Refusal::Busy)));
    }
    let asked = |event| match event {
        MeshEvent::Request { inbound, request, .. } => Some((inbound, request)),
        _ => None,
    };
    let mut open = Vec::new();
    for _ in 0..fits {
        open.push(server.until(asked).await.0);
    }
    // What has no body is served all the same.
    client.mesh.send(server_id, 100, hello(), DEADLINE).await;
    let (inbound, request) = server.until(asked).await;
    assert_eq!(request, hello());
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(client.outcome(100).await, Ok(Response::Ok));
    // A response gives back what it does not need at once, and the rest when it is sent.
    for answer in [Response::Refused(Refusal::NotFound), Response::Bytes(vec![7; WIRE_BODY_MAX].into())] {
        server.mesh.reply(open.remove(0), answer.clone()).await;
        assert_eq!(client.until(response).await, Ok(answer));
        // The last byte may be here before the server has heard of it.
        loop {
            client.mesh.send(server_id, 200, get(), DEADLINE).await;
            let taken = tokio::select! {
                (inbound, request) = server.until(asked) => {
                    assert_eq!(request, get());
                    open.push(inbound);
                    true
                }
                refused = client.until(response) => {
                    assert_eq!(refused, Ok(Response::Refused(Refusal::Busy)));
                    false
                }
            };
            if taken {
                break;
            }
        }
        assert_eq!(open.len(), fits);
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    for listen in [QUIC, TCP] {
        let first = Peer::start(1, NETWORK, listen, &[]).await;
        let mut taken = first.mesh.listen_addrs()[0].clone();
        taken.pop();
        let error = Mesh::start(config(2, NETWORK, &taken.to_string(), &[])).await.err().unwrap();
        assert!(matches!(&error, MeshError::PortInUse(addr) if *addr == taken), "{error}");
        assert!(error.to_string().contains(&taken.to_string()));
    }
    let unsupported = Mesh::start(config(2, NETWORK, "/ip4/127.0.0.1/udp/0", &[])).await.err().unwrap();
    assert!(matches!(unsupported, MeshError::Listen { .. }), "{unsupported}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_peer_is_out() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    client.connected_to(server.id()).await;
    server.connected_to(client.id()).await;
    let blocked = client.id();
    server.mesh.block(blocked, Duration::from_secs(3600)).await;
    server.until(|event| (event == MeshEvent::Disconnected { peer: blocked }).then_some(())).await;
    assert!(server.mesh.peers().await.is_empty());
    assert_eq!(server.ask(blocked, hello()).await, Err(SendError::Unreachable));
    client.ask(server.id(), hello()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_comes_back_is_found_again() {
    // Its own runtime is to it what a process is to an agent: with it goes whatever still drains a connection.
    let process = tokio::runtime::Runtime::new().unwrap();
    let first = process.spawn(Peer::start(1, NETWORK, QUIC, &[])).await.unwrap();
    let (id, addrs) = (first.id(), first.mesh.listen_addrs());
    let mut client = Peer::start(2, NETWORK, QUIC, &addrs).await;
    client.connected_to(id).await;
    first.stop().await;
    tokio::task::spawn_blocking(move || process.shutdown_timeout(LIMIT)).await.unwrap();
    client.until(|event| (event == MeshEvent::Disconnected { peer: id }).then_some(())).await;
    let mut same = addrs[0].clone();
    same.pop();
    let again = Peer::start(1, NETWORK, &same.to_string(), &[]).await;
    assert_eq!(again.mesh.listen_addrs(), addrs);
    client.connected_to(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_claim_is_reported_and_the_mesh_goes_on() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let claim = [10u32.to_be_bytes(), u32::MAX.to_be_bytes()].concat();
    let rogue = rogue::Rogue::start(9, NETWORK, claim);
    let rogue_id = rogue.id();
    let attack = tokio::spawn(rogue.ask(server.mesh.listen_addrs()[0].clone()));
    let reason = server
        .until(|event| match event {
            MeshEvent::Misbehaved { peer, reason } if peer == rogue_id => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("body") && reason.contains("at most"), "{reason}");
    attack.abort();

    let mut client = Peer::start(2, NETWORK, QUIC, &server.mesh.listen_addrs()).await;
    client.connected_to(server.id()).await;
    let server_id = server.id();
    let serving = tokio::spawn(serve(server));
    assert!(client.ask(server_id, hello()).await.is_ok());
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_answer_is_the_outcome_of_the_send() {
    let mut rogue = rogue::Rogue::start(9, NETWORK, [4u32.to_be_bytes(), 0u32.to_be_bytes(), [0xff; 4]].concat());
    let (rogue_id, addr) = (rogue.id(), rogue.listen().await);
    let answering = tokio::spawn(rogue.answer());
    let mut client = Peer::start(2, NETWORK, QUIC, &[addr]).await;
    let error = client.ask(rogue_id, hello()).await.unwrap_err();
    assert!(matches!(&error, SendError::Malformed(reason) if reason.contains("tag")), "{error}");
    answering.abort();
}

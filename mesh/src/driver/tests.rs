//! Bounds on what peers may ask of us, over real sockets. Whatever is waited for is an event; the time limit only turns
//! a hang into a failure.

use bytes::Bytes;
use hypernet_core::id::{NetworkId, ShardId};
use hypernet_core::limits::{MESH_INBOUND_PER_PEER, MESH_RESPONSES_PER_PEER, WIRE_BODY_MAX};
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::{Hello, Lease, Refusal};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(30);
const SHARD: ShardId = ShardId([5; 32]);

struct Peer {
    mesh: Mesh,
    events: mpsc::Receiver<MeshEvent>,
}

impl Peer {
    async fn start(seed: u8, bootstrap: &[Multiaddr]) -> Self {
        let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
        let (secret, network) = ([seed; 32], NetworkId([1; 16]));
        let config = MeshConfig { secret, network, listen, bootstrap: bootstrap.to_vec(), mdns: false };
        let (mesh, events) = Mesh::start(config).await.unwrap();
        Self { mesh, events }
    }

    /// One that is connected to `server`.
    async fn of(seed: u8, server: &Self) -> Self {
        let mut peer = Self::start(seed, &server.mesh.listen_addrs()).await;
        let id = server.mesh.peer_id();
        peer.until(|event| matches!(event, MeshEvent::Connected { peer, .. } if peer == id).then_some(())).await;
        peer
    }

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

    async fn asked(&mut self) -> (PeerId, u64, Request) {
        self.until(|event| match event {
            MeshEvent::Request { peer, inbound, request } => Some((peer, inbound, request)),
            _ => None,
        })
        .await
    }

    async fn outcome(&mut self) -> Response {
        self.until(|event| match event {
            MeshEvent::Response { result, .. } => Some(result.unwrap()),
            _ => None,
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_asked_for_beyond_the_bound_are_refused_as_busy() {
    let mut server = Peer::start(1, &[]).await;
    let mut client = Peer::of(2, &server).await;
    let id = server.mesh.peer_id();
    let (busy, hello) = (Response::Refused(Refusal::Busy), Request::Hello(Hello { free: 1, donated: 2 }));
    let get = || Request::Get { shard: SHARD, offset: 0, len: WIRE_BODY_MAX as u32 };
    let fits = MESH_RESPONSES_PER_PEER / WIRE_BODY_MAX;
    for _ in 0..fits + 2 {
        client.mesh.send(id, 1, get(), DEADLINE).await;
    }
    for _ in 0..2 {
        assert_eq!(client.outcome().await, busy);
    }
    let mut open = Vec::new();
    while open.len() < fits {
        open.push(server.asked().await.1);
    }
    // What has no body is served all the same.
    client.mesh.send(id, 2, hello.clone(), DEADLINE).await;
    let (_, inbound, request) = server.asked().await;
    assert_eq!(request, hello);
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(client.outcome().await, Response::Ok);
    // A response gives back what it does not need at once, and the rest when it is sent.
    for answer in [Response::Refused(Refusal::NotFound), Response::Bytes(vec![7; WIRE_BODY_MAX].into())] {
        server.mesh.reply(open.remove(0), answer.clone()).await;
        assert_eq!(client.outcome().await, answer);
        // The last byte may be here before the server has heard of it, so it is asked until it has.
        while open.len() < fits {
            client.mesh.send(id, 3, get(), DEADLINE).await;
            tokio::select! {
                (_, inbound, _) = server.asked() => open.push(inbound),
                refused = client.outcome() => assert_eq!(refused, busy),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_peer_do_not_take_the_room_of_others() {
    let mut server = Peer::start(1, &[]).await;
    let greedy = Peer::of(2, &server).await;
    let mut modest = Peer::of(3, &server).await;
    let (id, greedy_id) = (server.mesh.peer_id(), greedy.mesh.peer_id());
    let lease = Lease { key: [1; 32], expires: UnixSeconds(9), signature: [2; 64] };
    let put = |body: &Bytes| Request::Put { shard: SHARD, lease: lease.clone(), body: body.clone() };
    let (large, small) = (Bytes::from(vec![7; WIRE_BODY_MAX]), Bytes::from_static(b"x"));
    let fits = MESH_INBOUND_PER_PEER / WIRE_BODY_MAX;
    // Two more than there is room for, and the server holds on to what it has.
    for _ in 0..fits + 2 {
        greedy.mesh.send(id, 1, put(&large), DEADLINE).await;
    }
    let mut held = Vec::new();
    while held.len() < fits {
        held.push(server.asked().await);
    }
    assert!(held.iter().all(|(peer, ..)| *peer == greedy_id));
    modest.mesh.send(id, 1, put(&large), DEADLINE).await;
    let (peer, inbound, _) = server.asked().await;
    assert_eq!(peer, modest.mesh.peer_id());
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(modest.outcome().await, Response::Ok);
    // What is given back is there again for the one that had it: for what waits, or has been told that we are busy.
    held.clear();
    greedy.mesh.send(id, 2, put(&small), DEADLINE).await;
    assert_eq!(server.asked().await.0, greedy_id);
}

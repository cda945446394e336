//! Requests and their one outcome.

use std::time::Duration;

use bytes::Bytes;
use hypernet_core::id::{PeerId, RecordKey, ShardId};
use hypernet_core::limits::{MIB, RECORD_MAX};
use hypernet_core::wire::{Refusal, Request, Response};
use hypernet_mesh::{MeshEvent, SendError, Transport};

use crate::peer::{DEADLINE, NETWORK, Peer, QUIC, TCP, hello, put, serve};

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

    let watch = Request::Watch { key: RecordKey([4; 32]) };
    assert_eq!(client.ask(server_id, watch).await, Ok(Response::Bytes(vec![7; RECORD_MAX].into())));

    let peers = client.mesh.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].peer, peers[0].transport), (server_id, transport));
    assert_eq!(peers[0].sent, 4 * MIB as u64);
    assert_eq!(peers[0].received, (4 * MIB + 8192 + RECORD_MAX) as u64);
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
    let (_, inbound, _) = server.asked().await;
    assert_eq!(client.outcome(1).await, Err(SendError::Deadline));
    server.mesh.reply(inbound, Response::Ok).await;
    let rest = client.stop().await;
    assert!(!rest.iter().any(|event| matches!(event, MeshEvent::Response { .. })));
}

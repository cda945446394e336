//! Bounds on what peers may ask of a mesh.

use bytes::Bytes;
use hypernet_core::id::ShardId;
use hypernet_core::limits::{MESH_INBOUND_PER_PEER, MESH_RESPONSES_PER_PEER, SERVING_PER_PEER, WIRE_BODY_MAX};
use hypernet_core::wire::{Hello, Refusal, Request, Response};
use hypernet_mesh::MeshEvent;

use crate::peer::{DEADLINE, NETWORK, Peer, QUIC, hello, put, serve};

const SHARD: ShardId = ShardId([5; 32]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_beyond_the_bound_is_refused_as_busy() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::of(2, &server).await;
    let total = SERVING_PER_PEER + 8;
    for id in 0..total as u64 {
        client.mesh.send(server.id(), id, hello(), DEADLINE).await;
    }
    for _ in 0..8 {
        assert_eq!(client.answer().await, Ok(Response::Refused(Refusal::Busy)));
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
        assert_eq!(client.answer().await, Ok(Response::Ok));
    }
    // Every place is free again.
    let serving = tokio::spawn(serve(server));
    for _ in 0..=SERVING_PER_PEER {
        let peer = client.mesh.peers().await[0].peer;
        assert_eq!(
            client.ask(peer, hello()).await,
            Ok(Response::Hello(Hello { free: 3, donated: 4, to_newcomer: true, leaving: false }))
        );
    }
    client.stop().await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_asked_for_beyond_the_bound_are_refused_as_busy() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut client = Peer::of(2, &server).await;
    let id = server.id();
    let busy = Ok(Response::Refused(Refusal::Busy));
    let get = || Request::Get { shard: SHARD, offset: 0, len: WIRE_BODY_MAX as u32 };
    let fits = MESH_RESPONSES_PER_PEER / WIRE_BODY_MAX;
    for _ in 0..fits + 2 {
        client.mesh.send(id, 1, get(), DEADLINE).await;
    }
    for _ in 0..2 {
        assert_eq!(client.answer().await, busy);
    }
    let mut open = Vec::new();
    while open.len() < fits {
        open.push(server.asked().await.1);
    }
    // What has no body is served all the same.
    client.mesh.send(id, 2, hello(), DEADLINE).await;
    let (_, inbound, request) = server.asked().await;
    assert_eq!(request, hello());
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(client.answer().await, Ok(Response::Ok));
    // A response gives back what it does not need at once, and the rest when it is sent.
    for answer in [Response::Refused(Refusal::NotFound), Response::Bytes(vec![7; WIRE_BODY_MAX].into())] {
        server.mesh.reply(open.remove(0), answer.clone()).await;
        assert_eq!(client.answer().await, Ok(answer));
        // The last byte may be here before the server has heard of it, so it is asked until it has.
        while open.len() < fits {
            client.mesh.send(id, 3, get(), DEADLINE).await;
            tokio::select! {
                (_, inbound, _) = server.asked() => open.push(inbound),
                refused = client.answer() => assert_eq!(refused, busy),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_peer_do_not_take_the_room_of_others() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let greedy = Peer::of(2, &server).await;
    let mut modest = Peer::of(3, &server).await;
    let (id, greedy_id) = (server.id(), greedy.id());
    let put = |body: &Bytes| put(SHARD, body.clone());
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
    assert_eq!(peer, modest.id());
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(modest.answer().await, Ok(Response::Ok));
    // What is given back is there again for the one that had it: for what waits, or has been told that we are busy.
    held.clear();
    greedy.mesh.send(id, 2, put(&small), DEADLINE).await;
    assert_eq!(server.asked().await.0, greedy_id);
}

//! Peers that break the protocols: what they send is reported, costs no memory that they did not fill, and does not
//! touch the connections of others.

use hypernet_core::id::{RecordKey, ShardId};
use hypernet_core::limits::{
    LEASES_AT_ONCE, MESH_INBOUND_PER_PEER, RECORD_MAX, SHARD_MAX, WIRE_BODY_MAX, WIRE_HEADER_MAX,
};
use hypernet_core::wire::{self, Refusal, Request, Response};
use hypernet_fuzz_smoke::memory;
use hypernet_mesh::{MeshEvent, SendError};

use crate::peer::{DEADLINE, NETWORK, Peer, QUIC, TCP, hello, put};
use crate::rogue::{On, Raw, Rogue};

const SHARD: ShardId = ShardId([5; 32]);

fn frame((header, body): (Vec<u8>, bytes::Bytes)) -> Vec<u8> {
    [&wire::prefix(&header, &body)[..], &header, &body].concat()
}

fn asking(request: &Request) -> Vec<u8> {
    frame(request.to_parts())
}

fn answering(response: &Response) -> Vec<u8> {
    frame(response.to_parts())
}

fn claim(header: u32, body: u32) -> Vec<u8> {
    [header.to_be_bytes(), body.to_be_bytes()].concat()
}

/// A put that claims the longest body and begins it.
fn begun() -> Vec<u8> {
    let mut bytes = asking(&put(SHARD, vec![7; WIRE_BODY_MAX].into()));
    bytes.truncate(1_000);
    bytes.shrink_to_fit();
    bytes
}

/// Each is wrong in a way of its own.
fn malformed() -> Vec<Vec<u8>> {
    let header = |header: &[u8]| frame((header.to_vec(), bytes::Bytes::new()));
    let (good, _) = hello().to_parts();
    let mut newer = good.clone();
    newer[1] += 1;
    let no_body = (put(SHARD, vec![1].into()).to_parts().0, bytes::Bytes::new());
    let unasked = (good.clone(), bytes::Bytes::from_static(b"x"));
    vec![
        claim(10, WIRE_BODY_MAX as u32 + 1),
        claim(WIRE_HEADER_MAX as u32 + 1, 0),
        claim(u32::MAX, u32::MAX),
        header(&[]),
        header(&[0xff; 40]),
        header(&good[..good.len() - 1]),
        header(&[&good[..], &[0]].concat()),
        header(&newer),
        // A list that claims four thousand million ids.
        header(&[&good[..2], &[0x82, 0x03, 0x81, 0x9a, 0xff, 0xff, 0xff, 0xff]].concat()),
        frame(no_body),
        frame(unasked),
        asking(&Request::Get { shard: SHARD, offset: 1, len: SHARD_MAX as u32 }),
        asking(&Request::Get { shard: SHARD, offset: 0, len: 0 }),
        asking(&Request::Have { shards: vec![SHARD; LEASES_AT_ONCE + 1] }),
        asking(&Request::Record { bytes: vec![7; RECORD_MAX + 1].into() }),
    ]
}

/// `client` asks something and is answered.
async fn served(server: &mut Peer, client: &mut Peer) {
    client.mesh.send(server.id(), 1, hello(), DEADLINE).await;
    let (peer, inbound, request) = server.asked().await;
    assert_eq!((peer, request), (client.id(), hello()));
    server.mesh.reply(inbound, Response::Ok).await;
    assert_eq!(client.answer().await, Ok(Response::Ok));
}

/// Neither has lost the other.
async fn still_connected(server: Peer, client: Peer) {
    let ids = [server.id(), client.id()];
    for (peer, other) in [(&server, ids[1]), (&client, ids[0])] {
        assert!(peer.mesh.peers().await.iter().any(|info| info.peer == other));
    }
    for event in server.stop().await {
        assert_ne!(event, MeshEvent::Disconnected { peer: ids[1] }, "the honest one was let go");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_malformed_request_costs_its_sender_and_nobody_else() {
    for listen in [QUIC, TCP] {
        let mut server = Peer::start(1, NETWORK, listen, &[]).await;
        let mut honest = Peer::of(2, &server).await;
        let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
        let (rogue_id, to) = (rogue.id(), rogue.join(&server.mesh.listen_addrs()[0]).await);
        for (at, bytes) in malformed().into_iter().enumerate() {
            let asked = rogue.ask(to, On::Shards, Raw::bytes(bytes));
            let (answer, reason) = tokio::join!(asked, server.fault_of(rogue_id));
            assert_eq!(answer.unwrap(), answering(&Response::Refused(Refusal::Invalid)), "{at}: {reason}");
            served(&mut server, &mut honest).await;
        }
        still_connected(server, honest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_twice_is_heard_as_often_as_it_was_asked_and_answered_once() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let to = rogue.join(&server.mesh.listen_addrs()[0]).await;
    // On one stream only the first is a message; on another the same bytes are another.
    let twice = [asking(&hello()), asking(&hello())].concat();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let answering_twice = async {
            let (_, inbound, request) = server.asked().await;
            assert_eq!(request, hello());
            server.mesh.reply(inbound, Response::Ok).await;
            server.mesh.reply(inbound, Response::Refused(Refusal::NotFound)).await;
            inbound
        };
        let (answer, inbound) = tokio::join!(rogue.ask(to, On::Shards, Raw::bytes(twice.clone())), answering_twice);
        assert_eq!(answer.unwrap(), answering(&Response::Ok));
        assert!(!seen.contains(&inbound), "an answer could be taken for another's");
        seen.push(inbound);
    }
    let rest = server.stop().await;
    assert!(!rest.iter().any(|event| matches!(event, MeshEvent::Request { .. })), "heard more often: {rest:?}");
}

#[test]
fn claims_hold_no_memory_and_no_place_of_others() {
    // All of it on one thread, whose memory is counted.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = async {
        let server = Peer::start(1, NETWORK, QUIC, &[]).await;
        let honest = Peer::of(2, &server).await;
        let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
        let to = rogue.join(&server.mesh.listen_addrs()[0]).await;
        (server, honest, rogue, to)
    };
    let (mut server, mut honest, mut rogue, to) = runtime.block_on(start);
    let (claims, begun) = (MESH_INBOUND_PER_PEER / WIRE_BODY_MAX, begun());
    let peak = memory::peak(|| {
        runtime.block_on(async {
            for _ in 0..claims {
                rogue.send(to, Raw::stalled(begun.clone()));
            }
            // The answer to one more shows that all of those are being read, and hold all that this peer may have.
            let more = rogue.ask(to, On::Shards, Raw::bytes(begun.clone())).await.unwrap();
            assert_eq!(more, answering(&Response::Refused(Refusal::Busy)));
            served(&mut server, &mut honest).await;
        });
    });
    assert!(peak < WIRE_BODY_MAX, "{claims} claims of {WIRE_BODY_MAX} bytes were given {peak}");
    runtime.block_on(still_connected(server, honest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_answer_is_the_outcome_of_the_send() {
    let answers = [
        (claim(10, u32::MAX), "at most"),
        (claim(10, WIRE_BODY_MAX as u32), "where 0 were asked for"),
        ([claim(4, 0), vec![0xff; 4]].concat(), "tag"),
        (answering(&Response::Have(vec![0; LEASES_AT_ONCE.div_ceil(8) + 1])), "out of bounds"),
    ];
    for (seed, (bytes, wanted)) in (9..).zip(answers) {
        let mut rogue = Rogue::start(seed, NETWORK, Raw::bytes(bytes));
        let (rogue_id, addr) = (rogue.id(), rogue.listen().await);
        let answering = tokio::spawn(rogue.run());
        let mut client = Peer::start(2, NETWORK, QUIC, &[addr]).await;
        let error = client.ask(rogue_id, hello()).await.unwrap_err();
        assert!(matches!(&error, SendError::Malformed(reason) if reason.contains(wanted)), "{error}");
        answering.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_in_place_of_kademlia_harms_nobody() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let mut honest = Peer::of(2, &server).await;
    let key = RecordKey([7; 32]);
    server.keep(key, b"kept").await;
    let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let to = rogue.join(&server.mesh.listen_addrs()[0]).await;
    // A length that never ends, one of a gigabyte, no message, and one of an unknown kind.
    for bytes in [vec![0xff; 64], vec![0x80, 0x80, 0x80, 0x80, 0x04], vec![3; 4], vec![2, 0x08, 0x63]] {
        let answer = rogue.ask(to, On::Kad, Raw::bytes(bytes.clone())).await;
        assert!(answer.as_ref().map_or(true, Vec::is_empty), "{bytes:?} was answered with {answer:?}");
        served(&mut server, &mut honest).await;
        assert_eq!(honest.find(key).await, [b"kept".to_vec()]);
    }
    still_connected(server, honest).await;
}

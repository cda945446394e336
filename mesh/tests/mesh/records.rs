//! Records and where they belong.

use std::collections::HashMap;

use ed25519_dalek::SigningKey;
use hypernet_core::codec::encode;
use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::limits::RECORD_MAX;
use hypernet_core::record::Record;
use hypernet_mesh::MeshEvent;

use crate::peer::{NETWORK, Peer, QUIC, full_mesh};
use crate::rogue::{Raw, Rogue};

/// Of one signer, always.
pub(crate) fn record(sequence: u64, payload: &[u8]) -> Record {
    Record::sign(&SigningKey::from_bytes(&[3; 32]), sequence, payload.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_found_where_it_was_kept_and_only_then() {
    let mut peers = full_mesh(&[1, 2, 3, 4, 5]).await;
    let (kept, refused) = (RecordKey([7; 32]), RecordKey([8; 32]));
    let mut closest = peers[0].closest(kept).await;
    closest.sort();
    let mut others: Vec<PeerId> = peers[1..].iter().map(Peer::id).collect();
    others.sort();
    assert_eq!(closest, others);
    for peer in &peers[1..] {
        peer.keep(kept, b"good").await;
    }

    // The publisher itself did not keep it, so it has to ask the others, as they may ask one another.
    for peer in [0, 4] {
        assert_eq!(peers[peer].find(kept).await, [b"good".to_vec()]);
        assert_eq!(peers[peer].look_up(refused).await, (vec![], 4), "all the others have said that they have none");
    }

    // Holders that disagree are all heard.
    peers[2].keep(kept, b"newer").await;
    let mut both = peers[0].find(kept).await;
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
            MeshEvent::RecordFound { id, records, answers: 0 } => outcomes.insert(id, records),
            _ => None,
        };
        (outcomes.len() == 4).then_some(())
    })
    .await;
    let expected = [(1, vec![b"0".to_vec()]), (2, vec![b"mine".to_vec()]), (3, vec![]), (4, vec![])];
    assert_eq!(outcomes, HashMap::from(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_put_by_kademlia_is_kept() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let kept = record(5, b"kept");
    let key = kept.key();
    server.keep(key, &encode(&kept)).await;
    let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let (rogue_id, addr) = (rogue.id(), server.mesh.listen_addrs()[0].clone());
    let to = rogue.join(&addr).await;
    let other = Record::sign(&SigningKey::from_bytes(&[4; 32]), 1, b"other".to_vec()).unwrap();
    let puts = [
        ("unsigned", key, b"unsigned".to_vec()),
        ("forged", key, encode(&Record { sequence: 9, ..kept.clone() })),
        ("older", key, encode(&record(4, b"older"))),
        ("too long", key, vec![7; RECORD_MAX + 1]),
        ("another's", key, encode(&other)),
        // Whoever has something to keep asks for it, and is told when it is kept.
        ("newer", key, encode(&record(6, b"newer"))),
        ("new", other.key(), encode(&other)),
    ];
    for (what, under, bytes) in puts {
        let (_, reason) = tokio::join!(rogue.put(to, under.as_bytes(), bytes), server.fault_of(rogue_id));
        assert!(reason.contains("Kademlia"), "{what}: {reason}");
        let expected = if under == key { vec![encode(&kept)] } else { Vec::new() };
        assert_eq!(server.find(under).await, expected, "{what}");
    }
    let (_, reason) = tokio::join!(rogue.put(to, b"short", b"x".to_vec()), server.fault_of(rogue_id));
    assert!(reason.contains("Kademlia"), "{reason}");
    // More than a message may have is not even read.
    assert!(!rogue.put(to, key.as_bytes(), vec![7; 64 << 10]).await);
    assert_eq!(server.find(key).await, [encode(&kept)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_provides_anything() {
    let mut server = Peer::start(1, NETWORK, QUIC, &[]).await;
    let addr = server.mesh.listen_addrs()[0].clone();
    let mut rogue = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let mut asks = Rogue::start(10, NETWORK, Raw::bytes(Vec::new()));
    rogue.join(&addr).await;
    asks.join(&addr).await;
    let rogue_id = rogue.id();
    for n in 0..50 {
        let key = RecordKey([n; 32]);
        let reason = tokio::select! {
            reason = server.fault_of(rogue_id) => reason,
            () = rogue.provide(&addr, key) => unreachable!("it goes on"),
        };
        assert!(reason.contains("Kademlia"), "{reason}");
        assert_eq!(asks.providers(&addr, key).await, 0);
    }
}

//! Look-ups among liars.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use hypernet_core::codec::encode;
use hypernet_core::id::RecordKey;
use hypernet_core::record::Record;
use hypernet_mesh::{MeshEvent, Multiaddr, SendError};
use libp2p::identity::Keypair;
use libp2p::kad::KBucketKey;
use libp2p::multihash::Multihash;

use crate::peer::{DEADLINE, LIMIT, NETWORK, Peer, QUIC, TCP, full_mesh, hello};
use crate::records::record;
use crate::rogue::{Raw, Rogue, id_of};

type P2p = libp2p::PeerId;

/// Peers of the mesh beside the one that asks; so many of them, the closest to the record, lie.
const OTHERS: u8 = 15;
const LIARS: usize = 7;
/// Peers that each liar invents: as many as Kademlia takes from one answer.
const INVENTED: usize = 20;

/// The newest of what was found, as a node takes it.
fn newest(key: &RecordKey, found: &[Vec<u8>]) -> Option<Record> {
    let verified = found.iter().filter_map(|bytes| Record::verify_under(key, bytes).ok());
    verified.reduce(|best, record| if record.replaces(&best) { record } else { best })
}

fn p2p(seed: u8) -> P2p {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn distance(key: &RecordKey, peer: P2p) -> impl Ord + use<> {
    KBucketKey::new(key.as_bytes().to_vec()).distance(&KBucketKey::from(peer))
}

/// Peers that do not exist and are closer to the key than this one.
fn invented(key: RecordKey, than: P2p) -> impl Iterator<Item = P2p> {
    let all = (0u64..).map(|n| {
        let public = [&[0x08, 0x01, 0x12, 0x20][..], blake3::hash(&n.to_be_bytes()).as_bytes()].concat();
        P2p::from_multihash(Multihash::wrap(0, &public).unwrap()).unwrap()
    });
    all.filter(move |peer| distance(&key, *peer) < distance(&key, than))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_record_is_found_although_the_closest_peers_lie() {
    let (stale, older, latest) = (record(1, b"stale"), record(2, b"older"), record(3, b"latest"));
    let forged = Record { sequence: 9, ..stale.clone() };
    let key = latest.key();
    let mut by_distance: Vec<u8> = (2..2 + OTHERS).collect();
    by_distance.sort_by_key(|seed| distance(&key, p2p(*seed)));
    let (lying, honest) = by_distance.split_at(LIARS);
    let mut peers = full_mesh(&[&[1], honest].concat()).await;

    // Of the honest ones only the last to be asked has heard of the newest.
    for peer in &peers[1..honest.len()] {
        peer.keep(key, &encode(&older)).await;
    }
    peers[honest.len()].keep(key, &encode(&latest)).await;

    // What liars invent is closer than anybody real, and at an address that never answers.
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let hole: Multiaddr = format!("/ip4/127.0.0.1/udp/{}/quic-v1", hole.local_addr().unwrap().port()).parse().unwrap();
    let mut invented = invented(key, p2p(lying[0]));
    let mut running = tokio::task::JoinSet::new();
    for (at, seed) in lying.iter().enumerate() {
        let mut liar = Rogue::start(*seed, NETWORK, Raw::bytes(Vec::new()));
        for _ in 0..INVENTED {
            liar.know(hole.clone().with_p2p(invented.next().unwrap()).unwrap());
        }
        match at % 3 {
            0 => liar.serve(key, encode(&stale)),
            1 => liar.serve(key, encode(&forged)),
            _ => {}
        }
        liar.listen().await;
        for peer in &peers {
            liar.join(&peer.mesh.listen_addrs()[0]).await;
        }
        running.spawn(liar.run());
        for peer in &mut peers {
            peer.connected_to(id_of(*seed)).await;
        }
    }

    let closest = peers[0].closest(key).await;
    for seed in honest {
        assert!(closest.contains(&id_of(*seed)), "{seed} would not be given the record");
    }
    let found = peers[0].find(key).await;
    assert!(found.contains(&encode(&stale)) && found.contains(&encode(&forged)), "nobody lied");
    assert_eq!(newest(&key, &found), Some(latest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_could_not_be_reached_keeps_no_look_up_waiting_and_is_found_when_it_comes_back() {
    const LOOKUPS: u32 = 5;
    /// What each took while it waited.
    const STEP: Duration = Duration::from_secs(4);
    let mut peers = full_mesh(&[1, 2, 3]).await;
    // Its own runtime is to it what a process is to an agent.
    let process = tokio::runtime::Runtime::new().unwrap();
    let others = peers[0].mesh.listen_addrs();
    let gone = process.spawn(async move { Peer::start(4, NETWORK, QUIC, &others).await }).await.unwrap();
    let (id, addr) = (gone.id(), gone.mesh.listen_addrs()[0].clone());
    for peer in &mut peers {
        peer.connected_to(id).await;
    }
    gone.stop().await;
    tokio::task::spawn_blocking(move || process.shutdown_timeout(DEADLINE)).await.unwrap();
    for peer in &mut peers {
        peer.until(|event| (event == MeshEvent::Disconnected { peer: id }).then_some(())).await;
    }
    // It has failed to be reached once.
    assert_eq!(peers[0].ask(id, hello()).await, Err(SendError::Unreachable));
    let before = Instant::now();
    for i in 0..LOOKUPS {
        let closest = peers[0].closest(RecordKey([i as u8; 32])).await;
        assert_eq!(closest.len(), 2, "{closest:?}");
    }
    assert!(before.elapsed() < STEP * LOOKUPS / 2, "{LOOKUPS} look-ups took {:?}", before.elapsed());

    // Nobody is told that it is back, and it knows nobody.
    let mut same = addr.clone();
    same.pop();
    let again = Peer::start(4, NETWORK, &same.to_string(), &[]).await;
    assert_eq!(again.mesh.listen_addrs(), [addr]);
    let found = async { while peers[0].closest(RecordKey([9; 32])).await.len() < 3 {} };
    tokio::time::timeout(LIMIT, found).await.expect("it is dialed beside the look-ups");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_waited_for_once_and_asked_again_when_it_speaks() {
    const LOOKUPS: usize = 20;
    let mut peers = full_mesh(&[1, 2, 3]).await;
    let mut still = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let id = still.id();
    still.listen().await;
    for peer in &peers {
        still.join(&peer.mesh.listen_addrs()[0]).await;
    }
    let asker = &mut peers[0];
    let key = RecordKey([7; 32]);
    still.run_while(async { while !asker.closest(key).await.contains(&id) {} }).await;

    // It stands still from here on, and its connections stay.
    let before = still.asked();
    for n in 0..LOOKUPS {
        let closest = asker.closest(RecordKey([n as u8; 32])).await;
        assert!(closest.len() == 2 && !closest.contains(&id), "{closest:?}");
        assert_eq!(asker.look_up(RecordKey([n as u8; 32])).await, (vec![], 2), "nobody says that it was asked");
    }
    let there = asker.mesh.peers().await;
    assert!(there.iter().any(|peer| peer.peer == id), "the connection was lost");

    // What it was asked it answers now, and with that it is one of them.
    still.run_while(async { while !asker.closest(key).await.contains(&id) {} }).await;
    let asked = still.asked() - before;
    assert!((1..LOOKUPS).contains(&asked), "it was asked {asked} times in {} look-ups", 2 * LOOKUPS);
    let before = still.asked();
    let (_, answers) = still.run_while(asker.look_up(key)).await;
    assert_eq!(answers, 3);
    assert!(still.asked() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_is_heard_of_anybody_nobody_is_given_up() {
    const LOOKUPS: usize = 3;
    let mut still = Rogue::start(9, NETWORK, Raw::bytes(Vec::new()));
    let (id, addr) = (still.id(), still.listen().await);
    let mut asker = Peer::start(1, NETWORK, QUIC, &[addr]).await;
    let key = RecordKey([7; 32]);
    still.run_while(async { while !asker.closest(key).await.contains(&id) {} }).await;
    let before = still.asked();
    for n in 0..LOOKUPS {
        assert_eq!(asker.look_up(RecordKey([n as u8; 32])).await, (vec![], 0));
    }
    let (_, answers) = still.run_while(asker.look_up(key)).await;
    assert_eq!(answers, 1, "it is asked and waited for all the time");
    assert!(still.asked() - before > LOOKUPS);
}

#[test]
fn a_process_that_stands_still_is_gone_in_the_end_by_tcp_too() {
    let here = tokio::runtime::Runtime::new().unwrap();
    let process = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut asker, other) = here.block_on(async {
        let mut asker = Peer::start(1, NETWORK, TCP, &[]).await;
        let other = Peer::of(2, &asker).await;
        asker.connected_to(other.id()).await;
        (asker, other)
    });
    let (me, addrs) = (asker.id(), asker.mesh.listen_addrs());
    let mut still = process.block_on(Peer::start(3, NETWORK, TCP, &addrs));
    let id = still.id();
    let known = here.spawn(async move {
        while !asker.closest(RecordKey([7; 32])).await.contains(&id) {}
        asker
    });
    let mut asker = process.block_on(async {
        still.connected_to(me).await;
        known.await.unwrap()
    });
    // Nothing of it runs from here on; its sockets are open, and the kernel takes in what comes.
    here.block_on(async {
        assert_eq!(asker.closest(RecordKey([8; 32])).await, [other.id()]);
        asker.until(|event| (event == MeshEvent::Disconnected { peer: id }).then_some(())).await;
    });
    // It goes on, and is one of them again.
    let back = here.spawn(async move { while !asker.closest(RecordKey([9; 32])).await.contains(&id) {} });
    process.block_on(async { tokio::time::timeout(LIMIT, back).await }).expect("it comes back").unwrap();
}

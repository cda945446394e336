//! Who meets whom, and by what.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use hypernet_core::id::{NetworkId, RecordKey};
use hypernet_core::wire::Response;
use hypernet_mesh::{Mesh, MeshError, MeshEvent, Multiaddr, SendError, Transport};

use crate::peer::{LIMIT, NETWORK, Peer, QUIC, TCP, config, full_mesh, hello, serve};

/// What a node gives its smallest request.
const SMALLEST_DEADLINE: Duration = Duration::from_secs(10);

/// Where, and who.
fn address_of(addr: &Multiaddr) -> (Multiaddr, libp2p::PeerId) {
    let mut bare = addr.clone();
    match bare.pop() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => (bare, peer),
        _ => panic!("{addr} names no peer"),
    }
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
async fn a_peer_whose_quic_leads_nowhere_is_reached_over_tcp_in_time() {
    let server = Peer::start(1, NETWORK, TCP, &[]).await;
    let (server_id, tcp) = (server.id(), server.mesh.listen_addrs());
    let serving = tokio::spawn(serve(server));
    let p2p = address_of(&tcp[0]).1;
    // A firewall that drops, a port where nobody is, and somebody else's.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = Peer::start(3, NETWORK, QUIC, &[]).await;
    let quic = |port: u16| -> Multiaddr { format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{p2p}").parse().unwrap() };
    let taken = address_of(&stranger.mesh.listen_addrs()[0]).0.with_p2p(p2p).unwrap();
    let wrong = [quic(silent.local_addr().unwrap().port()), quic(closed.port()), taken];
    let mut cases: Vec<Vec<Multiaddr>> = wrong.iter().map(|addr| vec![addr.clone()]).collect();
    cases.extend([wrong.to_vec(), Vec::new()]);
    for wrong in cases {
        for addrs in [[wrong.clone(), tcp.clone()].concat(), [tcp.clone(), wrong.clone()].concat()] {
            let mut client = Peer::start(2, NETWORK, QUIC, &addrs).await;
            // Asked before there is a connection: the time it takes to get one is part of the deadline.
            client.mesh.send(server_id, 1, hello(), SMALLEST_DEADLINE).await;
            let outcome = client.outcome(1).await;
            assert!(matches!(outcome, Ok(Response::Hello(_))), "{outcome:?} with {addrs:?}");
            assert_eq!(client.mesh.peers().await[0].transport, Transport::Tcp);
            client.stop().await;
        }
    }
    serving.abort();
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
    assert_eq!(
        newcomer.closest(RecordKey([9; 32])).await,
        [our_id],
        "only the peer of the same network is in the routing table"
    );

    for (peer, stranger) in [(ours, their_id), (theirs, our_id), (newcomer, their_id)] {
        assert!(peer.mesh.peers().await.iter().all(|info| info.peer != stranger));
        for event in peer.stop().await {
            let heard = match event {
                MeshEvent::Connected { peer, .. } | MeshEvent::PeerAddr { peer, .. } => Some(peer),
                _ => None,
            };
            assert_ne!(heard, Some(stranger));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eleven_meshes_that_know_one_address_all_meet() {
    let peers = full_mesh(&Vec::from_iter(1..=11)).await;
    for peer in &peers {
        assert_eq!(peer.mesh.peers().await.len(), 10);
    }
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

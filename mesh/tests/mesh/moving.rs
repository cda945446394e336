//! Addresses that change while peers are connected.

use hypernet_core::id::PeerId;
use hypernet_core::wire::{Hello, Response};
use hypernet_mesh::MeshEvent;
use tokio::time::timeout;

use crate::net::{self, Away, sh};
use crate::peer::{LIMIT, NETWORK, Peer, config, hello, serve};

const ANYWHERE: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const NAME: &str = "moving::a_peer_that_moves_is_met_again_whoever_dialed_whom";

fn internet() -> String {
    net::WAN.to_owned()
        + &net::host("fixed", "203.0.113.1")
        + &net::host("dials", "203.0.113.2")
        + &net::host("dialed", "203.0.113.3")
}

/// The old address goes before the new one comes, as when somebody leaves one network for another.
async fn moves(host: &str, from: u8, to: u8) {
    sh(&format!(
        "ip -n {host} addr del 203.0.113.{from}/24 dev eth0
         ip -n {host} addr add 203.0.113.{to}/24 dev eth0
         ip -n {host} route replace default dev eth0"
    ))
    .await;
}

/// Asks until there is an answer from this address. What goes over a connection that is dead fails when that is missed.
async fn is_back(peer: &mut Peer, other: PeerId, ip: &str) {
    let back = async {
        loop {
            let answer = peer.ask(other, hello()).await;
            let infos = peer.mesh.peers().await;
            let there = infos.iter().filter(|info| info.peer == other).flat_map(|info| &info.addrs);
            if answer.is_ok() && there.clone().any(|addr| addr.to_string().contains(ip)) {
                assert_eq!(
                    answer,
                    Ok(Response::Hello(Hello { free: 3, donated: 4, to_newcomer: true, leaving: false }))
                );
                return;
            }
        }
    };
    timeout(LIMIT, back).await.expect("it is met again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_is_met_again_whoever_dialed_whom() {
    if !net::is_inside(NAME, &internet()).await {
        return;
    }
    let mut dialed = net::start_on("dialed", config(3, NETWORK, ANYWHERE, &[])).await;
    let at = [dialed.peer.at("203.0.113.3").await];
    let Away { peer: mut fixed, running: _fixed } = net::start_on("fixed", config(1, NETWORK, ANYWHERE, &at)).await;
    let at = [fixed.at("203.0.113.1").await];
    let dials = net::start_on("dials", config(2, NETWORK, ANYWHERE, &at)).await;
    let (one, other) = (dials.peer.id(), dialed.peer.id());
    // One of them may have been heard of while it was waited for the address.
    let there: Vec<PeerId> = fixed.mesh.peers().await.iter().map(|info| info.peer).collect();
    let mut missing = vec![one, other];
    missing.retain(|peer| !there.contains(peer));
    while !missing.is_empty() {
        let connected = |event| if let MeshEvent::Connected { peer, .. } = event { Some(peer) } else { None };
        let met = fixed.until(connected).await;
        missing.retain(|other| *other != met);
    }
    tokio::spawn(serve(dials.peer));
    tokio::spawn(serve(dialed.peer));
    let _running = (dials.running, dialed.running);
    // It is the one that moves who knows, so it dials the other one again, whoever did so before.
    for (peer, host, from, to) in [(one, "dials", 2, 12), (other, "dialed", 3, 13)] {
        moves(host, from, to).await;
        is_back(&mut fixed, peer, &format!("/203.0.113.{to}/")).await;
    }
}

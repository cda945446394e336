//! Addresses that change while peers are connected.

use hypernet_core::id::PeerId;
use hypernet_core::wire::{Hello, Response};
use hypernet_mesh::MeshEvent;

use crate::net::{self, Away, sh};
use crate::peer::{NETWORK, Peer, config, hello, serve};

const ANYWHERE: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const NAME: &str = "moving::a_peer_that_moves_is_met_again_whoever_dialed_whom";

fn internet() -> String {
    net::WAN.to_owned()
        + &net::host("fixed", "203.0.113.1")
        + &net::host("dials", "203.0.113.2")
        + &net::host("dialed", "203.0.113.3")
}

async fn moves(host: &str, from: u8, to: u8) {
    let at = |n| format!("203.0.113.{n}/24 dev eth0");
    sh(&format!(
        "ip -n {host} addr add {} && ip -n {host} addr del {} && ip -n {host} route replace default dev eth0",
        at(to),
        at(from)
    ))
    .await;
}

/// Waits until a peer is connected from this address.
async fn is_back(peer: &mut Peer, other: PeerId, ip: &str) {
    peer.until(|event| match event {
        MeshEvent::Connected { peer, addr } => (peer == other && addr.to_string().contains(ip)).then_some(()),
        _ => None,
    })
    .await;
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
    let mut missing = vec![one, other];
    fixed
        .until(|event| {
            if let MeshEvent::Connected { peer, .. } = event {
                missing.retain(|other| *other != peer);
            }
            missing.is_empty().then_some(())
        })
        .await;
    tokio::spawn(serve(dials.peer));
    tokio::spawn(serve(dialed.peer));
    let _running = (dials.running, dialed.running);
    // It is the one that moves who knows, so it dials the other one again, whoever did so before.
    for (peer, host, from, to) in [(one, "dials", 2, 12), (other, "dialed", 3, 13)] {
        moves(host, from, to).await;
        is_back(&mut fixed, peer, &format!("/203.0.113.{to}/")).await;
        let answer = Response::Hello(Hello { free: 3, donated: 4 });
        assert_eq!(fixed.ask(peer, hello()).await, Ok(answer), "{host}");
    }
}

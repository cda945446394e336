//! Peers behind routers that let nobody in. They meet at a relay, and leave it where their routers can be opened.

use bytes::Bytes;
use hypernet_core::id::{PeerId, ShardId};
use hypernet_core::limits::MIB;
use hypernet_core::wire::{Request, Response};
use hypernet_mesh::{MeshConfig, MeshEvent, Path, Reachability, SendError};

use crate::net::{self, Away, Nat};
use crate::peer::{NETWORK, Peer, config, put, serve};

const ANYWHERE: &str = "/ip4/0.0.0.0/udp/4001/quic-v1";
const RELAY: &str = "203.0.113.1";

fn internet(nat: Nat) -> String {
    let homes = net::home("a", "203.0.113.10", 1, nat) + &net::home("b", "203.0.113.20", 2, nat);
    net::WAN.to_owned() + &net::host("relay", RELAY) + &homes
}

/// A peer that everybody can reach, and two that nobody can.
struct Three {
    relay: Away,
    a: Away,
    b: Away,
}

impl Three {
    async fn start(change: impl FnOnce(&mut MeshConfig)) -> Self {
        let mut relay = config(1, NETWORK, ANYWHERE, &[]);
        change(&mut relay);
        let mut relay = net::start_on("relay", relay).await;
        let at = [relay.peer.at(RELAY).await];
        let a = net::start_on("a", config(2, NETWORK, ANYWHERE, &at)).await;
        let b = net::start_on("b", config(3, NETWORK, ANYWHERE, &at)).await;
        Self { relay, a, b }
    }
}

/// Waits until a peer is to be met at a relay.
async fn is_to_be_met(peer: &mut Peer, relay: PeerId) {
    peer.until(|event| match event {
        MeshEvent::Listening { addr } => addr.to_string().contains("/p2p-circuit/").then_some(()),
        _ => None,
    })
    .await;
    let standing = peer.mesh.standing().await.unwrap();
    assert_eq!((standing.reachability, standing.relays), (Reachability::Private, vec![relay]));
    assert_eq!(standing.external, []);
}

/// Waits until all that may become of the way to a peer has.
async fn way_to(peer: &mut Peer, other: PeerId) -> (Path, String) {
    peer.until(|event| match event {
        MeshEvent::Moved { peer, path, why } if peer == other => Some((path, why)),
        _ => None,
    })
    .await
}

async fn meet(nat: Nat) -> (Three, Path, String) {
    let mut three = Three::start(|_| {}).await;
    let relay = three.relay.peer.id();
    is_to_be_met(&mut three.a.peer, relay).await;
    is_to_be_met(&mut three.b.peer, relay).await;
    // Whoever looks for its neighbours hears of them at the relay, with the addresses at which they are to be met.
    let other = three.b.peer.id();
    let (path, why) = way_to(&mut three.a.peer, other).await;
    assert!(matches!(nat, Nat::Cone) || matches!(path, Path::Relayed(_)), "{why}");
    (three, path, why)
}

async fn exchange(three: &mut Three, bytes: usize) {
    let (shard, body) = (ShardId([7; 32]), Bytes::from(vec![5; bytes]));
    let b = three.b.peer.id();
    assert_eq!(three.a.peer.ask(b, put(shard, body.clone())).await, Ok(Response::Ok));
    let get = Request::Get { shard, offset: 0, len: bytes as u32 };
    assert_eq!(three.a.peer.ask(b, get).await, Ok(Response::Bytes(body)));
}

/// A peer that goes on serving while its mesh is asked about in another way.
fn serving(three: &mut Three) {
    let mesh = three.b.peer.mesh.clone();
    let (_, nothing) = tokio::sync::mpsc::channel(1);
    let events = std::mem::replace(&mut three.b.peer.events, nothing);
    tokio::spawn(serve(Peer { mesh, events }));
}

const OPENED: &str = "nat::routers_that_can_be_opened_are_and_the_relay_is_left";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_that_can_be_opened_are_and_the_relay_is_left() {
    if !net::is_inside(OPENED, &internet(Nat::Cone)).await {
        return;
    }
    let (mut three, path, why) = meet(Nat::Cone).await;
    assert_eq!(path, Path::HolePunched, "{why}");
    serving(&mut three);
    exchange(&mut three, 2 * MIB).await;
    let infos = three.a.peer.mesh.peers().await;
    let b = infos.iter().find(|info| info.peer == three.b.peer.id()).unwrap();
    assert_eq!(b.path, Path::HolePunched);
    // The circuit is closed; there may be two connections, when both ends have opened the other's router.
    assert!(b.addrs.iter().all(|addr| addr.to_string().starts_with("/ip4/203.0.113.20/udp/")), "{b:?}");
    let relay = infos.iter().find(|info| info.peer == three.relay.peer.id()).unwrap();
    assert_eq!((relay.path, relay.why.as_str()), (Path::Direct, "over the internet, dialed by us"));
    let standing = three.relay.peer.mesh.standing().await.unwrap();
    assert_eq!((standing.reachability, standing.hosted), (Reachability::Public, 2));
    assert_eq!(standing.external, [format!("/ip4/{RELAY}/udp/4001/quic-v1").parse().unwrap()]);
}

const RELAYED: &str = "nat::where_routers_cannot_be_opened_the_relay_carries_all";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_routers_cannot_be_opened_the_relay_carries_all() {
    if !net::is_inside(RELAYED, &internet(Nat::Symmetric)).await {
        return;
    }
    let (mut three, path, why) = meet(Nat::Symmetric).await;
    assert_eq!(path, Path::Relayed(Some(three.relay.peer.id())), "{why}");
    assert!(why.starts_with("hole punching failed: "), "{why}");
    serving(&mut three);
    exchange(&mut three, 2 * MIB).await;
    let there = three.b.peer.mesh.peers().await;
    let a = there.iter().find(|info| info.peer == three.a.peer.id()).unwrap();
    assert_eq!(a.path, Path::Relayed(Some(three.relay.peer.id())), "{a:?}");
}

const LIMITED: &str = "nat::a_circuit_is_given_no_more_than_it_carries";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_is_given_no_more_than_it_carries() {
    if !net::is_inside(LIMITED, &internet(Nat::Symmetric)).await {
        return;
    }
    let limit = MIB as u64;
    let mut three = Three::start(|config| config.relay.circuit_bytes = limit).await;
    let (relay, b) = (three.relay.peer.id(), three.b.peer.id());
    is_to_be_met(&mut three.a.peer, relay).await;
    is_to_be_met(&mut three.b.peer, relay).await;
    way_to(&mut three.a.peer, b).await;
    serving(&mut three);
    // Nothing of it is sent, so it takes no attempt to find out.
    let whole = put(ShardId([7; 32]), vec![5; MIB].into());
    assert_eq!(three.a.peer.ask(b, whole).await, Err(SendError::OverLimit { limit }));
    // Four times what one circuit carries: each goes over one that has room for it.
    for _ in 0..8 {
        exchange(&mut three, MIB / 4).await;
    }
}

const FORWARDED: &str = "nat::a_router_that_forwards_makes_a_public_peer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_forwards_makes_a_public_peer() {
    let homes = net::home("a", "203.0.113.10", 1, Nat::Forward) + &net::home("b", "203.0.113.20", 2, Nat::Cone);
    if !net::is_inside(FORWARDED, &(net::WAN.to_owned() + &net::host("relay", RELAY) + &homes)).await {
        return;
    }
    let mut three = Three::start(|_| {}).await;
    // Somebody has tried that address from outside, which it has seen on no interface of its own.
    let outside = three.a.peer.at("203.0.113.10").await;
    let standing = three.a.peer.mesh.standing().await.unwrap();
    assert_eq!((standing.reachability, standing.relays.len()), (Reachability::Public, 0));
    assert!(outside.to_string().starts_with(&standing.external[0].to_string()), "{standing:?}");
    // The trial is no connection to speak of: nothing goes over it, and nobody is told when it ends.
    let relay = three.relay.peer.id();
    let infos = three.a.peer.mesh.peers().await;
    let info = infos.iter().find(|info| info.peer == relay).unwrap();
    assert_eq!((info.path, info.addrs.len()), (Path::Direct, 1), "{info:?}");
    // So the other one has two relays to choose from, and goes straight to the one that it wants.
    let mut relays = 0;
    three
        .b
        .peer
        .until(|event| {
            if let MeshEvent::Listening { addr } = event {
                relays += usize::from(addr.to_string().contains("/p2p-circuit/"));
            }
            (relays == 2).then_some(())
        })
        .await;
    serving(&mut three);
    exchange(&mut three, MIB).await;
    let infos = three.a.peer.mesh.peers().await;
    let b = infos.iter().find(|info| info.peer == three.b.peer.id()).unwrap();
    assert_eq!((b.path, b.why.as_str()), (Path::Direct, "over the internet, dialed by it"), "{b:?}");
}

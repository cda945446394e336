use hypernet_core::id::{NetworkId, PeerId};
use hypernet_mesh::{Mesh, MeshEvent};

use crate::peer::{NETWORK, Peer, config};

/// Multicast leaves the machine, so this runs only where somebody has made a network for it:
/// `unshare -n sh -c 'ip link set lo up; ip link add v0 type veth peer name v1; ip addr add 10.9.0.1/24 dev v0;
/// ip link set v1 up; ip link set v0 up; ip route add 224.0.0.0/4 dev v0; exec TEST --ignored'`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a network of its own to multicast in"]
async fn peers_on_one_lan_find_each_other_and_nobody_elses() {
    let start = async |seed, network| {
        let mut config = config(seed, network, "/ip4/0.0.0.0/udp/0/quic-v1", &[]);
        config.mdns = true;
        let (mesh, events) = Mesh::start(config).await.unwrap();
        Peer { mesh, events }
    };
    let mut first = start(1, NETWORK).await;
    let mut stranger = start(2, NetworkId([2; 16])).await;
    let mut second = start(3, NETWORK).await;
    let mut third = start(4, NetworkId([2; 16])).await;
    let lan: std::net::Ipv4Addr = "10.9.0.1".parse().unwrap();
    for (peer, other) in [(&mut first, &mut second), (&mut stranger, &mut third)] {
        peer.connected_to(other.id()).await;
        other.connected_to(peer.id()).await;
        let known =
            peer.until(|event| if let MeshEvent::PeerAddr { addr, .. } = event { Some(addr) } else { None }).await;
        assert!(known.iter().any(|part| part == lan.into()), "{known}");
    }
    for (peer, friend) in [(&first, second.id()), (&stranger, third.id())] {
        let connected: Vec<PeerId> = peer.mesh.peers().await.iter().map(|info| info.peer).collect();
        assert_eq!(connected, [friend]);
    }
}

//! Records and where they belong.

use std::collections::HashMap;

use hypernet_core::id::{PeerId, RecordKey};
use hypernet_mesh::MeshEvent;

use crate::peer::{NETWORK, Peer, QUIC, full_mesh};

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
        assert!(peers[peer].find(refused).await.is_empty());
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
            MeshEvent::RecordFound { id, records } => outcomes.insert(id, records),
            _ => None,
        };
        (outcomes.len() == 4).then_some(())
    })
    .await;
    let expected = [(1, vec![b"0".to_vec()]), (2, vec![b"mine".to_vec()]), (3, vec![]), (4, vec![])];
    assert_eq!(outcomes, HashMap::from(expected));
}

//! So many bytes a second and no more, whoever wants them. How long it takes at least follows from the bytes; nothing
//! here depends on how fast the machine is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hypernet_core::id::ShardId;
use hypernet_core::limits::KIB;
use hypernet_core::wire::{Request, Response};
use hypernet_mesh::{Mesh, MeshConfig, MeshEvent};

use crate::peer::{DEADLINE, NETWORK, Peer, QUIC, config, put, serve};

const BODY: usize = 256 * KIB;
const BODIES: usize = 10;
const RATE: u64 = 1 << 20;
/// All but what may go in the first second, and the last body, which only has to begin.
const LEAST: Duration = Duration::from_millis((((BODIES - 1) * BODY) as u64 - RATE) * 1_000 / RATE);

async fn start(seed: u8, server: Option<&Peer>, change: impl FnOnce(&mut MeshConfig)) -> Peer {
    let bootstrap = server.map(|server| server.mesh.listen_addrs()).unwrap_or_default();
    let mut config = config(seed, NETWORK, QUIC, &bootstrap);
    change(&mut config);
    let (mesh, events) = Mesh::start(config).await.unwrap();
    let mut peer = Peer { mesh, events };
    if let Some(server) = server {
        peer.connected_to(server.id()).await;
    }
    peer
}

/// Sends requests at once, and returns when all have an answer.
async fn all(peer: &mut Peer, server: hypernet_core::id::PeerId, request: impl Fn(u8) -> Request) -> Duration {
    let began = Instant::now();
    for n in 0..BODIES as u8 {
        peer.mesh.send(server, n.into(), request(n), DEADLINE).await;
    }
    let mut open = BODIES;
    peer.until(|event| {
        if let MeshEvent::Response { result, .. } = event {
            assert!(matches!(result, Ok(Response::Ok | Response::Bytes(_))), "{result:?}");
            open -= 1;
        }
        (open == 0).then_some(())
    })
    .await;
    began.elapsed()
}

fn puts(n: u8) -> Request {
    put(ShardId([n; 32]), Bytes::from(vec![n; BODY]))
}

fn gets(n: u8) -> Request {
    Request::Get { shard: ShardId([n; 32]), offset: 0, len: BODY as u32 }
}

#[tokio::test]
async fn what_is_sent_keeps_to_the_upload_limit_and_what_is_fetched_to_the_download_limit() {
    let server = start(1, None, |_| {}).await;
    let id = server.id();
    let mut sender = start(2, Some(&server), |config| config.upload = Some(RATE)).await;
    let mut reader = start(3, Some(&server), |config| config.download = Some(RATE)).await;
    tokio::spawn(serve(server));
    assert!(all(&mut sender, id, puts).await >= LEAST);
    assert!(all(&mut reader, id, gets).await >= LEAST);
}

#[tokio::test]
async fn what_is_served_keeps_to_the_limits_too() {
    let server = start(1, None, |config| {
        config.upload = Some(RATE);
        config.download = Some(RATE);
    })
    .await;
    let id = server.id();
    let mut client = start(2, Some(&server), |_| {}).await;
    tokio::spawn(serve(server));
    assert!(all(&mut client, id, puts).await >= LEAST);
    assert!(all(&mut client, id, gets).await >= LEAST);
}

//! How fast shards go from one mesh to another over loopback: puts of 1 MiB, eight under way.
//!
//! `cargo run --release -p hypernet-mesh --example throughput -- [quic|tcp] [MiB]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use hypernet_core::id::{NetworkId, ShardId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::{IN_FLIGHT_PER_PEER, MIB};
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::{Request, Response};
use hypernet_mesh::{Mesh, MeshConfig, MeshEvent};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let listen = match args.next().as_deref() {
        None | Some("quic") => "/ip4/127.0.0.1/udp/0/quic-v1",
        Some("tcp") => "/ip4/127.0.0.1/tcp/0",
        Some(other) => return println!("{other} is neither quic nor tcp"),
    };
    let total: u64 = args.next().map_or(1024, |n| n.parse().unwrap());
    let config = |seed, bootstrap| MeshConfig {
        secret: hypernet_core::key::Secret::new([seed; 32]),
        network: NetworkId([1; 16]),
        listen: vec![listen.parse().unwrap()],
        bootstrap,
        mdns: false,
        upnp: false,
        relay: hypernet_mesh::RelayLimits::default(),
        upload: None,
        download: None,
    };
    let (server, mut asked) = Mesh::start(config(1, Vec::new())).await.unwrap();
    let (client, mut events) = Mesh::start(config(2, server.listen_addrs())).await.unwrap();
    let to = server.peer_id();
    tokio::spawn(async move {
        while let Some(event) = asked.recv().await {
            if let MeshEvent::Request { inbound, request, .. } = event {
                let response = match request {
                    Request::Get { len, .. } => Response::Bytes(vec![7; len as usize].into()),
                    _ => Response::Ok,
                };
                server.reply(inbound, response).await;
            }
        }
    });

    let lease = Lease { key: LeaseKey([0; 32]), expires: UnixSeconds(0) };
    let body = Bytes::from(vec![7; MIB]);
    let put = || Request::Put { shard: ShardId([0; 32]), lease: lease.clone(), body: body.clone() };
    let get = |len: usize| Request::Get { shard: ShardId([0; 32]), offset: 0, len: len as u32 };
    while !matches!(events.recv().await.unwrap(), MeshEvent::Connected { .. }) {}

    let mut rates = Vec::new();
    for (name, request) in [("put", put()), ("get", get(MIB))] {
        let start = Instant::now();
        let (mut sent, mut done) = (0, 0);
        while done < total {
            while sent < total && sent - done < IN_FLIGHT_PER_PEER as u64 {
                client.send(to, sent, request.clone(), DEADLINE).await;
                sent += 1;
            }
            if let MeshEvent::Response { result, .. } = events.recv().await.unwrap() {
                result.unwrap();
                done += 1;
            }
        }
        rates.push(format!(
            "{name} of 1 MiB: {:.0} MB/s",
            (total as usize * MIB) as f64 / 1e6 / start.elapsed().as_secs_f64()
        ));
    }
    const SERIAL: u32 = 500;
    let start = Instant::now();
    for id in 0..u64::from(SERIAL) {
        client.send(to, id, get(64 * 1024), DEADLINE).await;
        while !matches!(events.recv().await.unwrap(), MeshEvent::Response { .. }) {}
    }
    rates.push(format!("one serial get of 64 KiB: {:.2} ms", (start.elapsed() / SERIAL).as_secs_f64() * 1e3));
    println!("{}", rates.join("\n"));
}

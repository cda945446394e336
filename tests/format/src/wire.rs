//! Goldens of the shard protocol: the header of every request and response. Bodies are raw.

use bytes::Bytes;
use hypernet_core::audit;
use hypernet_core::id::{RecordKey, ShardId};
use hypernet_core::lease::{Lease, LeaseToken};
use hypernet_core::time::UnixSeconds;
use hypernet_core::wire::{Hello, Refusal, Request, Response};

use crate::Golden;

const SHARD: ShardId = ShardId([0x81; 32]);

fn lease() -> Lease {
    Lease { key: LeaseToken([0x82; 32]).key(), expires: UnixSeconds(1_800_000_000) }
}

fn request(name: &'static str, request: Request) -> Golden {
    let (bytes, body) = request.to_parts();
    Golden {
        name,
        tag: Some(0x20),
        format: "request",
        bytes,
        check: Box::new(move |golden| match Request::from_parts(golden, body.clone()) {
            Ok(read) if read == request => Ok(()),
            Ok(read) => Err(format!("it reads as {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

fn response(name: &'static str, response: Response) -> Golden {
    let (bytes, body) = response.to_parts();
    Golden {
        name,
        tag: Some(0x21),
        format: "response",
        bytes,
        check: Box::new(move |golden| match Response::from_parts(golden, body.clone()) {
            Ok(read) if read == response => Ok(()),
            Ok(read) => Err(format!("it reads as {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// That of the second of three chunks.
fn proof() -> Golden {
    let shard: Vec<u8> = (0..3_000u32).map(|i| (i % 251) as u8).collect();
    let id = ShardId(*blake3::hash(&shard).as_bytes());
    Golden {
        name: "audit-proof",
        tag: None,
        format: "audit proof",
        bytes: audit::prove(&shard, 1).unwrap_or_default(),
        check: Box::new(move |golden| match audit::verify(&id, 3_000, 1, golden) {
            true => Ok(()),
            false => Err("it proves nothing".to_owned()),
        }),
    }
}

pub(crate) fn all() -> Vec<Golden> {
    let hello = Hello { free: 1 << 34, donated: 1 << 35, to_newcomer: true, leaving: true };
    let body = Bytes::from_static(b"a shard");
    let mut all = vec![
        proof(),
        request("request-hello", Request::Hello(hello.clone())),
        request("request-put", Request::Put { shard: SHARD, lease: lease(), body: body.clone() }),
        request("request-get", Request::Get { shard: SHARD, offset: 8192, len: 4096 }),
        request("request-have", Request::Have { shards: vec![SHARD, ShardId([0x83; 32])] }),
        request("request-record", Request::Record { bytes: Bytes::from_static(b"a signed record") }),
        request("request-watch", Request::Watch { key: RecordKey([0x55; 32]) }),
        request("request-renew", Request::Renew { leases: vec![(SHARD, lease())] }),
        request("request-release", Request::Release { tokens: vec![(SHARD, LeaseToken([0x82; 32]))] }),
        request("request-audit", Request::Audit { shard: SHARD, chunk: 1023 }),
        response("response-hello", Response::Hello(hello)),
        response("response-ok", Response::Ok),
        response("response-bytes", Response::Bytes(body)),
        response("response-have", Response::Have(vec![0b10])),
    ];
    let refusals = [
        ("response-refused-full", Refusal::Full),
        ("response-refused-not-found", Refusal::NotFound),
        ("response-refused-damaged", Refusal::Damaged),
        ("response-refused-invalid", Refusal::Invalid),
        ("response-refused-busy", Refusal::Busy),
        ("response-refused-disk", Refusal::Disk),
        ("response-refused-newer", Refusal::Newer),
        ("response-refused-crowded", Refusal::Crowded),
        ("response-refused-clock", Refusal::Clock),
        ("response-refused-too-often", Refusal::TooOften),
        ("response-refused-newcomers-full", Refusal::NewcomersFull(600)),
    ];
    all.extend(refusals.map(|(name, refusal)| response(name, Response::Refused(refusal))));
    all
}

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::io::Cursor;
use hypernet_core::id::ShardId;
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::{MIB, WIRE_BODY_MAX, WIRE_HEADER_MAX};
use hypernet_core::time::UnixSeconds;
use libp2p::request_response::Codec;

use super::*;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/test/shard/1");

fn unpaced() -> ShardCodec {
    ShardCodec::new(Shared::new(None))
}

fn put(len: usize) -> Request {
    Request::Put {
        shard: ShardId([3; 32]),
        lease: Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(9) },
        body: (0..len).map(|i| i as u8).collect::<Vec<_>>().into(),
    }
}

fn get(len: u32) -> Request {
    Request::Get { shard: ShardId([3; 32]), offset: 0, len }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn written(codec: &mut ShardCodec, request: Request) -> Vec<u8> {
    let mut io = Cursor::new(Vec::new());
    codec.write_request(&PROTOCOL, &mut io, Asked::Ours { request, deadline: soon() }).await.unwrap();
    io.into_inner()
}

async fn heard(codec: &mut ShardCodec, bytes: &[u8]) -> io::Result<Result<Request, String>> {
    match codec.read_request(&PROTOCOL, &mut Cursor::new(bytes)).await? {
        Asked::Theirs(heard) => Ok(heard),
        Asked::NoRoom => panic!("there is room"),
        Asked::Ours { .. } => panic!("a request that was read is theirs"),
    }
}

/// Gives a few bytes, then no more for now, and notes how much room the reader ever offered.
struct Stingy {
    bytes: Vec<u8>,
    given: usize,
    offered: usize,
}

impl AsyncRead for Stingy {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.offered = self.offered.max(buf.len());
        let rest = self.bytes.len() - self.given;
        if rest == 0 {
            return Poll::Pending;
        }
        let n = rest.min(buf.len());
        buf[..n].copy_from_slice(&self.bytes[self.given..self.given + n]);
        self.given += n;
        Poll::Ready(Ok(n))
    }
}

/// Takes so many bytes, then no more for now.
struct Reluctant {
    room: usize,
}

impl AsyncWrite for Reluctant {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = buf.len().min(self.room);
        self.room -= n;
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn frames_of_all_sizes_round_trip() {
    for len in [1, SMALL_BODY, SMALL_BODY + 1, MESH_BODY_STEP, MESH_BODY_STEP + 1, MIB + 7, WIRE_BODY_MAX] {
        let mut codec = unpaced();
        let bytes = written(&mut codec, put(len)).await;
        assert_eq!(heard(&mut codec, &bytes).await.unwrap(), Ok(put(len)), "a body of {len} bytes");
    }
}

#[tokio::test]
async fn a_body_gives_its_share_back_when_it_is_dropped() {
    let mut codec = unpaced();
    let all = codec.budget.free.available_permits();
    let bytes = written(&mut codec, put(MIB)).await;
    let held = heard(&mut codec, &bytes).await.unwrap().unwrap();
    assert_eq!(all - codec.budget.free.available_permits(), MIB / KIB);
    let Request::Put { body, .. } = held else { panic!("a put was sent") };
    let slice = body.slice(10..20);
    drop(body);
    assert!(codec.budget.free.available_permits() < all, "a slice still holds the buffer");
    drop(slice);
    assert_eq!(codec.budget.free.available_permits(), all);
}

#[tokio::test]
async fn without_budget_no_body_is_read() {
    let mut codec = unpaced();
    let bytes = written(&mut codec, put(MIB)).await;
    let all = Arc::clone(&codec.budget.free).acquire_many_owned((MESH_INBOUND_BODIES / KIB) as u32).await.unwrap();
    let mut io = Stingy { given: 0, offered: 0, bytes };
    let protocol = PROTOCOL;
    let mut reading = Box::pin(codec.read_request(&protocol, &mut io));
    assert!(futures::poll!(&mut reading).is_pending());
    drop(all);
    assert!(matches!(reading.await.unwrap(), Asked::Theirs(Ok(request)) if request == put(MIB)));
}

#[tokio::test]
async fn who_waits_for_room_in_vain_is_told_so() {
    let mut codec = unpaced();
    let bytes = written(&mut codec, put(MIB)).await;
    let all = Arc::clone(&codec.budget.free).acquire_many_owned((MESH_INBOUND_BODIES / KIB) as u32).await.unwrap();
    codec.room_wait = Duration::ZERO;
    let asked = codec.read_request(&PROTOCOL, &mut Cursor::new(&bytes)).await.unwrap();
    assert!(matches!(asked, Asked::NoRoom));
    assert_eq!(codec.budget.waiting.load(Ordering::Acquire), 0);
    drop(all);
    assert_eq!(heard(&mut codec, &bytes).await.unwrap(), Ok(put(MIB)));
}

#[tokio::test]
async fn one_peer_holds_its_share_and_no_more_over_all_its_connections() {
    let behaviour = unpaced();
    let connection = |peer| {
        behaviour.budget.expect(peer);
        behaviour.clone()
    };
    let (greedy, modest) = (PeerId::random(), PeerId::random());
    let (first, other, second) = (connection(greedy), connection(modest), connection(greedy));
    let large = written(&mut first.clone(), put(WIRE_BODY_MAX)).await;
    let mut held = Vec::new();
    while held.len() < MESH_INBOUND_PER_PEER / WIRE_BODY_MAX {
        let codec = if held.len() % 2 == 0 { &first } else { &second };
        held.push(heard(&mut codec.clone(), &large).await.unwrap().unwrap());
    }
    let (protocol, mut io, mut stream) = (PROTOCOL, Cursor::new(&large), second.clone());
    let mut waiting = Box::pin(stream.read_request(&protocol, &mut io));
    assert!(futures::poll!(&mut waiting).is_pending());
    // That is its own affair: nobody is hurried for it, and others have room.
    assert_eq!(behaviour.budget.waiting.load(Ordering::Acquire), 0);
    held.push(heard(&mut other.clone(), &large).await.unwrap().unwrap());
    held.remove(0);
    assert!(matches!(waiting.await.unwrap(), Asked::Theirs(Ok(request)) if request == put(WIRE_BODY_MAX)));
    // Connections that end take nothing with them: what is held counts when the peer is back.
    drop((first, second, stream));
    let mut again = connection(greedy);
    let share = MESH_INBOUND_PER_PEER / KIB;
    assert_eq!(again.own.as_ref().unwrap().available_permits(), WIRE_BODY_MAX / KIB);
    drop(held);
    assert_eq!(again.own.as_ref().unwrap().available_permits(), share);
    assert_eq!(heard(&mut again, &large).await.unwrap(), Ok(put(WIRE_BODY_MAX)));
    assert_eq!(behaviour.budget.free.available_permits(), MESH_INBOUND_BODIES / KIB);
}

#[tokio::test]
async fn a_slow_body_gives_way_when_others_wait_and_that_is_no_fault() {
    let mut slow = unpaced();
    // Small enough to have no time but what is set here, which is none.
    let len = HURRIED_KIB_PER_SECOND * KIB / 2;
    slow.hurried = Duration::ZERO;
    let mut bytes = written(&mut slow, put(len)).await;
    bytes.truncate(len / 2);
    let budget = Arc::clone(&slow.budget);
    let (protocol, mut io) = (PROTOCOL, Stingy { bytes, given: 0, offered: 0 });
    let mut reading = Box::pin(slow.read_request(&protocol, &mut io));
    assert!(futures::poll!(&mut reading).is_pending(), "nobody waits");
    let waiting = Waiting::new(&budget.waiting);
    assert!(matches!(reading.await.unwrap(), Asked::NoRoom));
    drop(waiting);
    assert_eq!(budget.free.available_permits(), MESH_INBOUND_BODIES / KIB);
}

#[tokio::test]
async fn a_claim_over_the_limit_is_refused_before_anything_is_read_for_it() {
    let mut codec = unpaced();
    for prefix in [
        [((WIRE_HEADER_MAX + 1) as u32).to_be_bytes(), 0u32.to_be_bytes()].concat(),
        [10u32.to_be_bytes(), ((WIRE_BODY_MAX + 1) as u32).to_be_bytes()].concat(),
        vec![0xff; PREFIX_LEN],
    ] {
        let mut io = Stingy { bytes: prefix, given: 0, offered: 0 };
        let heard = codec.read_request(&PROTOCOL, &mut io).await.unwrap();
        assert!(matches!(heard, Asked::Theirs(Err(reason)) if reason.contains("at most")));
        assert_eq!(io.offered, PREFIX_LEN);
    }
}

#[tokio::test]
async fn a_claim_within_the_limit_costs_memory_only_as_bytes_arrive_and_a_stall_is_a_fault() {
    let mut codec = unpaced();
    let mut bytes = written(&mut codec, put(WIRE_BODY_MAX)).await;
    bytes.truncate(1000);
    // Patience of zero still takes what is there, and gives up at the first wait: no clock decides this test.
    codec.stall = Duration::ZERO;
    let mut io = Stingy { bytes, given: 0, offered: 0 };
    let heard = codec.read_request(&PROTOCOL, &mut io).await.unwrap();
    assert!(matches!(heard, Asked::Theirs(Err(reason)) if reason.contains("stalled")));
    assert!(io.offered <= MESH_BODY_STEP, "{} bytes were set aside for 1,000", io.offered);
    assert_eq!(codec.budget.free.available_permits(), MESH_INBOUND_BODIES / KIB);
}

#[tokio::test]
async fn a_request_that_was_given_up_on_is_nobodys_fault() {
    let mut codec = unpaced();
    let bytes = written(&mut codec, put(MIB)).await;
    let cut = heard(&mut codec, &bytes[..bytes.len() - 1]).await;
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn nonsense_is_the_peers_fault_and_never_a_panic() {
    let mut codec = unpaced();
    let good = written(&mut codec, put(5)).await;
    for at in PREFIX_LEN..good.len() - 5 {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        // Flips inside the id, the key or the signature still decode; the layers above verify those.
        let _ = heard(&mut codec, &bytes).await.unwrap();
    }
    let frame = [&3u32.to_be_bytes()[..], &0u32.to_be_bytes(), &[0x20, 1, 0xff]].concat();
    assert!(heard(&mut codec, &frame).await.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_its_response_is_given_up_on_before_a_slow_one() {
    let mut codec = unpaced();
    codec.stall = Duration::ZERO;
    let body: Bytes = vec![7; WIRE_BODY_MAX].into();
    let mut io = Reluctant { room: 1000 };
    // A slow peer would have two minutes for so much; no clock decides this test.
    let error = codec.write_response(&PROTOCOL, &mut io, Ok(Response::Bytes(body.clone()))).await.unwrap_err();
    assert!(error.to_string().contains("takes nothing"), "{error}");
    assert!(body.is_unique(), "nobody holds the body any more");
}

async fn answered(asked: Request, answer: Response) -> Answer {
    let mut ours = unpaced();
    written(&mut ours, asked).await;
    let mut io = Cursor::new(Vec::new());
    unpaced().write_response(&PROTOCOL, &mut io, Ok(answer)).await.unwrap();
    ours.read_response(&PROTOCOL, &mut Cursor::new(io.into_inner())).await.unwrap()
}

#[tokio::test]
async fn an_answer_may_not_be_longer_than_what_was_asked_for() {
    let bytes = |n: usize| Response::Bytes(vec![7; n].into());
    assert_eq!(answered(get(4096), bytes(4096)).await, Ok(bytes(4096)));
    assert_eq!(answered(get(4096), bytes(10)).await, Ok(bytes(10)));
    assert!(answered(get(4096), bytes(4097)).await.unwrap_err().contains("4097"));
    assert!(answered(Request::Have { shards: Vec::new() }, bytes(1)).await.is_err());
}

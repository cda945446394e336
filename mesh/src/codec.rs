//! How the frames of the shard protocol ([`hypernet_core::wire`]) go onto and come off a stream.
//!
//! Invariants: a stranger's claim never decides how much is allocated (a body's buffer at most doubles what has
//! arrived); all bodies of strangers together stay under [`MESH_INBOUND_BODIES`], however long the layers above hold
//! them, and those of one peer under [`MESH_INBOUND_PER_PEER`]; every read and write of a stranger's stream, and every
//! wait for room, has a deadline. What a peer gets wrong is a value, not an I/O error, because libp2p keeps the I/O
//! errors of inbound streams to itself and the owner has to hear of them.
//!
//! A share is taken for the whole of a body before its first byte is read: bodies that grew into the budget step by
//! step could all stop half way, each waiting for the others. So a claim alone holds memory that is not used yet, and
//! what keeps a few peers from holding all of it is threefold. First, a peer has a budget of its own, in front of the
//! common one and over all its connections ([`Budget::expect`] says how the codec learns whose they are). But there may
//! be any number of peers, so, second, a body has about the time in which an honest sender gives up on it
//! ([`SHARED_LINE`]), and much less ([`HURRIED`]) once somebody waits for the memory. Third, whoever waits in vain is told
//! that we are busy while it still has the time to go elsewhere.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hypernet_core::limits::{BODIES_IN_FLIGHT, KIB, MESH_BODY_STEP, MESH_INBOUND_BODIES, MESH_INBOUND_PER_PEER};
use hypernet_core::wire::{self, PREFIX_LEN, Request, Response};
use libp2p::request_response;
use libp2p::{PeerId, StreamProtocol};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::pace::Shared;

/// A peer that sends nothing for this long in the middle of a message has stalled.
const STALL: Duration = Duration::from_secs(15);
/// Whoever takes a body from us may not be slower than this on top of [`STALL`], or it holds our memory for nothing.
const SLOWEST_KIB_PER_SECOND: usize = 128;
/// Whoever sends one may take so long on top of [`STALL`] while nobody waits for the memory: a line of a home carries all that its
/// node sends to others at the same time ([`BODIES_IN_FLIGHT`]), and an honest node gives up on a body after about that time.
const SHARED_LINE: Duration = Duration::from_secs(BODIES_IN_FLIGHT as u64 / (64 * KIB) as u64);
/// While others wait for memory a body has so long,
const HURRIED: Duration = Duration::from_secs(5);
/// and on top of that the time it takes at this speed.
const HURRIED_KIB_PER_SECOND: usize = 512;
/// How often a body that takes longer is asked whether others wait.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a body waits for room. A sender waits a little longer than that for the smallest request, so it hears of
/// it. And it is less than [`STALL`]: bodies that wait unread use up the flow control of their connection, and those
/// that are being read must not stall for them.
const ROOM_WAIT: Duration = Duration::from_secs(8);
/// Bodies up to this size are copied behind their header, which saves a write.
const SMALL_BODY: usize = 8 * KIB;

/// A request on its way out, or one that came in.
#[derive(Debug)]
pub(crate) enum Asked {
    /// We ask, and want the answer by then.
    Ours {
        /// What we ask.
        request: Request,
        /// When it no longer matters.
        deadline: Instant,
    },
    /// A peer asks, or tried to.
    Theirs(Result<Request, String>),
    /// A peer asks, and there was no room for the body in time.
    NoRoom,
}

/// A response; an error says what the peer got wrong.
pub(crate) type Answer = Result<Response, String>;

/// One per stream: libp2p clones the first for each connection, and that clone for each stream.
pub(crate) struct ShardCodec {
    /// Of all peers.
    budget: Arc<Budget>,
    /// KiB that may still be taken in from this peer; the first of all codecs has none.
    own: Option<Arc<Semaphore>>,
    /// Of our own request on this stream: how long a body may come back.
    expected: usize,
    /// Of our own request on this stream.
    deadline: Option<Instant>,
    /// See [`STALL`].
    stall: Duration,
    /// See [`HURRIED`].
    hurried: Duration,
    /// See [`ROOM_WAIT`].
    room_wait: Duration,
    /// The bodies of strangers, of those a second that the owner wants to take in.
    down: Shared,
}

/// What may be taken in from all peers together.
pub(crate) struct Budget {
    /// KiB of their bodies.
    free: Arc<Semaphore>,
    /// Streams that wait for some of it.
    waiting: AtomicUsize,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    /// Whose connection the next clone of the first codec is for.
    next: Option<PeerId>,
    /// KiB that may still be taken in from each, for as long as there are codecs or bodies of it.
    own: HashMap<PeerId, Weak<Semaphore>>,
}

impl Budget {
    fn new() -> Self {
        let free = Arc::new(Semaphore::new(MESH_INBOUND_BODIES / KIB));
        Self { free, waiting: AtomicUsize::new(0), peers: Mutex::default() }
    }

    /// Says whose connection is about to be given a codec. libp2p makes that with a clone and does not say for whom, so
    /// a behaviour that is asked about each connection just before the one with the codec tells us.
    pub(crate) fn expect(&self, peer: PeerId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).next = Some(peer);
    }

    /// The own budget of the peer that is expected; one that belongs to nobody else when there is none.
    fn own(&self) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(MESH_INBOUND_PER_PEER / KIB));
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.next.take() else { return new() };
        if let Some(own) = peers.own.get(&peer).and_then(Weak::upgrade) {
            return own;
        }
        let own = new();
        peers.own.retain(|_, own| own.strong_count() > 0);
        peers.own.insert(peer, Arc::downgrade(&own));
        own
    }
}

/// Somebody waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ShardCodec {
    /// A codec whose clones share one budget.
    pub(crate) fn new(down: Shared) -> Self {
        Self {
            down,
            budget: Arc::new(Budget::new()),
            own: None,
            expected: 0,
            deadline: None,
            stall: STALL,
            hurried: HURRIED,
            room_wait: ROOM_WAIT,
        }
    }

    /// What all clones share.
    pub(crate) fn budget(&self) -> Arc<Budget> {
        Arc::clone(&self.budget)
    }

    /// Waits for room for a body; until it is there the stream is not read, and flow control tells the peer to wait.
    async fn share(&self, len: usize) -> Result<Share, Failure> {
        let kib = len.div_ceil(KIB) as u32;
        let wait = async {
            // Behind its own bodies a peer is in nobody's way: only what comes after counts as waiting.
            let own = match &self.own {
                Some(own) => Some(Arc::clone(own).acquire_many_owned(kib).await?),
                None => None,
            };
            let free = || Arc::clone(&self.budget.free);
            let all = match free().try_acquire_many_owned(kib) {
                Ok(all) => all,
                Err(_) => {
                    let _waiting = Waiting::new(&self.budget.waiting);
                    free().acquire_many_owned(kib).await?
                }
            };
            Ok::<_, AcquireError>(Share { _all: all, _own: own })
        };
        let share = timeout(self.room_wait, wait).await.map_err(|_| Failure::NoRoom)?;
        share.map_err(|_| Failure::Io(io::ErrorKind::BrokenPipe.into()))
    }

    /// Reads a body that has its share, for as long as it may hold that.
    async fn body<T: AsyncRead + Unpin>(&self, io: &mut T, len: usize) -> Result<Vec<u8>, Failure> {
        let start = Instant::now();
        let end = start + self.stall + SHARED_LINE;
        let mut look = start + self.hurried + transfer(len, HURRIED_KIB_PER_SECOND);
        let mut reading = pin!(read_exactly(io, len, self.stall));
        loop {
            if let Ok(read) = timeout_at(look.min(end), &mut reading).await {
                return read;
            }
            if look >= end {
                return Err(Failure::Peer(format!("sent a body of {len} bytes too slowly")));
            }
            if self.budget.waiting.load(Ordering::Acquire) > 0 {
                return Err(Failure::NoRoom);
            }
            look += LOOK_AGAIN;
        }
    }

    async fn request<T: AsyncRead + Unpin>(&self, io: &mut T) -> Result<Request, Failure> {
        let (header_len, body_len) = read_lengths(io, self.stall).await?;
        let header = read_exactly(io, header_len, self.stall).await?;
        let body = if body_len == 0 {
            Bytes::new()
        } else {
            // Whoever would have to wait for too long goes elsewhere, as it does when there is no room.
            let turn = self.down.take_within(body_len, self.room_wait / 2).ok_or(Failure::NoRoom)?;
            if !turn.is_zero() {
                sleep(turn).await;
            }
            let share = self.share(body_len).await?;
            Bytes::from_owner(Held { bytes: self.body(io, body_len).await?, _share: share })
        };
        Request::from_parts(&header, body).map_err(|error| Failure::Peer(error.to_string()))
    }
}

impl Clone for ShardCodec {
    /// A clone of the first codec is a new connection's, and clones of that share what its peer may have.
    fn clone(&self) -> Self {
        let own = self.own.clone().unwrap_or_else(|| self.budget.own());
        Self { budget: Arc::clone(&self.budget), own: Some(own), down: self.down.clone(), ..*self }
    }
}

/// Room for a body.
struct Share {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

/// A body that gives its room back when the last reference to it goes.
struct Held {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn transfer(len: usize, kib_per_second: usize) -> Duration {
    Duration::from_secs((len / KIB / kib_per_second) as u64)
}

fn patience(stall: Duration, len: usize) -> Duration {
    stall + transfer(len, SLOWEST_KIB_PER_SECOND)
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Why a frame could not be read.
enum Failure {
    /// The stream broke: nobody's fault.
    Io(io::Error),
    /// The peer broke the protocol.
    Peer(String),
    /// Its body had to give way to others.
    NoRoom,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Turns a peer's fault into a value and keeps the stream's own errors.
fn peer_fault<T>(read: Result<T, Failure>) -> io::Result<Result<T, String>> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Peer(reason)) => Ok(Err(reason)),
        Err(Failure::Io(error)) => Err(error),
        Err(Failure::NoRoom) => Err(timed_out("no room for a body")),
    }
}

/// Reads exactly `len` bytes into a buffer that is never more than twice what has arrived, or one step.
///
/// An end of the stream is an I/O error and not the peer's fault: it is how a request that its sender gave up on
/// looks from here.
async fn read_exactly<T: AsyncRead + Unpin>(io: &mut T, len: usize, stall: Duration) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; len.min(MESH_BODY_STEP)];
    let mut filled = 0;
    while filled < len {
        if filled == buffer.len() {
            buffer.resize(len.min(filled * 2), 0);
        }
        match timeout(stall, io.read(&mut buffer[filled..])).await {
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(Ok(read)) => filled += read,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(Failure::Peer(format!("stalled after {filled} of {len} bytes"))),
        }
    }
    Ok(buffer)
}

async fn read_lengths<T: AsyncRead + Unpin>(io: &mut T, stall: Duration) -> Result<(usize, usize), Failure> {
    let mut prefix = [0; PREFIX_LEN];
    // Before the first byte of a message nothing is owed, so silence here costs the stream and not the reputation.
    timeout(stall, io.read_exact(&mut prefix)).await.map_err(|_| timed_out("no message on the stream"))??;
    wire::lengths(prefix).map_err(|error| Failure::Peer(error.to_string()))
}

async fn read_response<T: AsyncRead + Unpin>(
    io: &mut T,
    expected: usize,
    stall: Duration,
) -> Result<Response, Failure> {
    // How long we wait for the first byte is up to the request's own deadline: the peer may be at its disk.
    let (header_len, body_len) = read_lengths(io, Duration::MAX).await?;
    if body_len > expected {
        return Err(Failure::Peer(format!("answered with {body_len} bytes where {expected} were asked for")));
    }
    let header = read_exactly(io, header_len, stall).await?;
    let body = Bytes::from(read_exactly(io, body_len, stall).await?);
    Response::from_parts(&header, body).map_err(|error| Failure::Peer(error.to_string()))
}

/// Writes a frame to a peer that takes some of it every `stall`. Nothing is flushed here: closing the stream's writing
/// side, which libp2p does next, flushes once.
async fn write_frame<T: AsyncWrite + Unpin>(
    io: &mut T,
    header: &[u8],
    body: &Bytes,
    stall: Duration,
) -> io::Result<()> {
    let prefix = wire::prefix(header, body);
    let small = body.len() <= SMALL_BODY;
    let mut head = Vec::with_capacity(PREFIX_LEN + header.len() + if small { body.len() } else { 0 });
    head.extend_from_slice(&prefix);
    head.extend_from_slice(header);
    if small {
        head.extend_from_slice(body);
        return write_steadily(io, &head, stall).await;
    }
    write_steadily(io, &head, stall).await?;
    write_steadily(io, body, stall).await
}

async fn write_steadily<T: AsyncWrite + Unpin>(io: &mut T, mut bytes: &[u8], stall: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        match timeout(stall, io.write(bytes)).await.map_err(|_| timed_out("the peer takes nothing"))?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

impl request_response::Codec for ShardCodec {
    type Protocol = StreamProtocol;
    type Request = Asked;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Asked>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.request(io).await {
            Err(Failure::NoRoom) => Ok(Asked::NoRoom),
            read => Ok(Asked::Theirs(peer_fault(read)?)),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let deadline = self.deadline.ok_or_else(|| io::Error::other("a response before its request"))?;
        let read = timeout_at(deadline, read_response(io, self.expected, self.stall)).await;
        peer_fault(read.map_err(|_| timed_out("no response by the deadline"))?)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, asked: Asked) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Asked::Ours { request, deadline } = asked else {
            return Err(io::Error::other("a stranger's request is not ours to send"));
        };
        self.deadline = Some(deadline);
        self.expected = request.answer_max();
        let (header, body) = request.to_parts();
        drop(request);
        // A peer may have reasons to let us wait, such as no room for our body; our patience is the deadline.
        timeout_at(deadline, write_frame(io, &header, &body, Duration::MAX))
            .await
            .map_err(|_| timed_out("not sent by the deadline"))?
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let (header, body) = answer.map_err(io::Error::other)?.to_parts();
        // It has asked for this, so one that takes none of it is not worth the memory.
        timeout(patience(self.stall, body.len()), write_frame(io, &header, &body, self.stall))
            .await
            .map_err(|_| timed_out("the peer does not take its response"))?
    }
}

#[cfg(test)]
mod tests;

//! How the frames of the shard protocol ([`hypernet_core::wire`]) go onto and come off a stream.
//!
//! Invariants: a stranger's claim never decides how much is allocated (a body's buffer at most doubles what has
//! arrived); all bodies of strangers together stay under [`MESH_INBOUND_BODIES`], however long the layers above hold
//! them; every read and write of a stranger's stream has a deadline. What a peer gets wrong is a value, not an I/O
//! error, because libp2p keeps the I/O errors of inbound streams to itself and the owner has to hear of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hypernet_core::limits::{KIB, MESH_BODY_STEP, MESH_INBOUND_BODIES};
use hypernet_core::wire::{self, PREFIX_LEN, Request, Response};
use libp2p::StreamProtocol;
use libp2p::request_response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// A peer that sends nothing for this long in the middle of a message has stalled.
const STALL: Duration = Duration::from_secs(15);
/// A peer may not be slower than this on top of [`STALL`], or it holds our memory for nothing.
const SLOWEST_KIB_PER_SECOND: usize = 32;
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
}

/// A response; an error says what the peer got wrong.
pub(crate) type Answer = Result<Response, String>;

/// One per stream: libp2p clones the first.
#[derive(Clone)]
pub(crate) struct ShardCodec {
    /// KiB of strangers' bodies that may still be taken in.
    budget: Arc<Semaphore>,
    /// Of our own request on this stream: how long a body may come back.
    expected: usize,
    /// Of our own request on this stream.
    deadline: Option<Instant>,
    /// See [`STALL`].
    stall: Duration,
}

impl ShardCodec {
    /// A codec whose clones share one budget.
    pub(crate) fn new() -> Self {
        Self { budget: Arc::new(Semaphore::new(MESH_INBOUND_BODIES / KIB)), expected: 0, deadline: None, stall: STALL }
    }
}

/// A body that gives its share of the budget back when the last reference to it goes.
struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn patience(stall: Duration, len: usize) -> Duration {
    stall + Duration::from_secs((len / KIB / SLOWEST_KIB_PER_SECOND) as u64)
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

async fn read_request<T: AsyncRead + Unpin>(
    io: &mut T,
    budget: &Arc<Semaphore>,
    stall: Duration,
) -> Result<Request, Failure> {
    let (header_len, body_len) = read_lengths(io, stall).await?;
    let header = read_exactly(io, header_len, stall).await?;
    let body = if body_len == 0 {
        Bytes::new()
    } else {
        // Until the share is there the stream is not read, and flow control tells the peer to wait.
        let share = Arc::clone(budget)
            .acquire_many_owned(body_len.div_ceil(KIB) as u32)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let bytes = timeout(patience(stall, body_len), read_exactly(io, body_len, stall))
            .await
            .map_err(|_| Failure::Peer(format!("sent a body of {body_len} bytes too slowly")))??;
        Bytes::from_owner(Held { bytes, _share: share })
    };
    Request::from_parts(&header, body).map_err(|error| Failure::Peer(error.to_string()))
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
        Ok(Asked::Theirs(peer_fault(read_request(io, &self.budget, self.stall).await)?))
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
        self.expected = if let Request::Get { len, .. } = &request { *len as usize } else { 0 };
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

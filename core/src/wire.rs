//! The shard protocol: what two peers say to each other about shards. A message is a small CBOR header and a raw
//! body; shards travel only as bodies, never as CBOR.
//!
//! Frame: `header length (u32 BE) | body length (u32 BE) | header | body`. Both lengths are checked against
//! [`limits`](crate::limits) before anything is allocated for them.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{RecordKey, ShardId};
use crate::lease::{self, Lease, LeaseToken};
use crate::limits::{
    AUDIT_CHUNK, AUDIT_PROOF_MAX, LEASES_AT_ONCE, RECORD_MAX, SHARD_MAX, WIRE_BODY_MAX, WIRE_HEADER_MAX, WIRE_IDS_MAX,
};

/// What one peer asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who are you, what do you offer?
    Hello(Hello),
    /// Keep this shard. Answered by [`Response::Ok`] once it is on stable storage.
    Put {
        /// Its address: the hash of `body`.
        shard: ShardId,
        /// For how long, and by whose right.
        lease: Lease,
        /// The shard.
        body: Bytes,
    },
    /// Send me these bytes of a shard.
    Get {
        /// Its address.
        shard: ShardId,
        /// First byte.
        offset: u32,
        /// How many; fewer come when the shard ends earlier.
        len: u32,
    },
    /// Keep these shards for so long. Answered by [`Response::Have`] once that is on stable storage: which of them are here and
    /// leased. Of a shard that the holder keeps already another lease may be taken.
    Renew {
        /// At least one, and at most [`LEASES_AT_ONCE`].
        leases: Vec<(ShardId, Lease)>,
    },
    /// These leases are over, and nobody needs the shards for them. Answered by [`Response::Ok`], whether or not there are such
    /// leases.
    Release {
        /// At least one, and at most [`LEASES_AT_ONCE`].
        tokens: Vec<(ShardId, LeaseToken)>,
    },
    /// Which of these do you have?
    Have {
        /// At most [`WIRE_IDS_MAX`].
        shards: Vec<ShardId>,
    },
    /// Keep this record for the mesh and serve it to whoever looks for it. Answered by [`Response::Ok`] once it, or
    /// the same one from before, is on stable storage.
    Record {
        /// The encoded record.
        bytes: Bytes,
    },
    /// Tell me of this record when it changes, for a few minutes: each newer one comes as [`Request::Record`]. Answered by
    /// [`Response::Bytes`] with the record as it is kept now, or [`Response::Ok`] when none is.
    Watch {
        /// Where it lives.
        key: RecordKey,
    },
    /// Prove that you have this chunk of a shard. Answered by [`Response::Bytes`] with what [`crate::audit::prove`] makes.
    Audit {
        /// Its address.
        shard: ShardId,
        /// Which chunk, counted from the beginning of the shard.
        chunk: u32,
    },
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Hello {
    /// Bytes it still takes in for the peer that it says this to; 0 when it stores for nobody.
    #[n(0)]
    pub free: u64,
    /// Bytes it offers in all.
    #[n(1)]
    pub donated: u64,
    /// The peer that it says this to is a newcomer to it: it takes in more for others, or would once there is room.
    #[n(2)]
    pub to_newcomer: bool,
    /// It stores for others no longer than until they have moved what it holds elsewhere: it takes in nothing new.
    #[n(3)]
    pub leaving: bool,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// Done, and durable.
    Ok,
    /// To [`Request::Get`], [`Request::Watch`] and [`Request::Audit`].
    Bytes(Bytes),
    /// To [`Request::Have`] and [`Request::Renew`]: one bit per asked shard, least significant first.
    Have(Vec<u8>),
    /// Not done.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Error)]
pub enum Refusal {
    /// The donor's quota or disk is full.
    #[n(0)]
    #[error("its donated space is full")]
    Full,
    /// There is no such shard here.
    #[n(1)]
    #[error("it does not hold this shard")]
    NotFound,
    /// The shard here does not match its address any more.
    #[n(2)]
    #[error("its copy of this shard is damaged")]
    Damaged,
    /// The body does not hash to its address, or a signature or bound is wrong.
    #[n(3)]
    #[error("it says the request is invalid")]
    Invalid,
    /// Too much at once; ask again later.
    #[n(4)]
    #[error("it is busy")]
    Busy,
    /// Its disk failed.
    #[n(5)]
    #[error("its disk failed")]
    Disk,
    /// A newer record is kept here.
    #[n(6)]
    #[error("it keeps a newer record")]
    Newer,
    /// There are as many records here as can be kept, all of them nearer or of somebody who brought fewer.
    #[n(7)]
    #[error("it has no room for this record beside nearer ones")]
    Crowded,
    /// The time of the lease does not fit the clock here: one of the two clocks is wrong.
    #[n(8)]
    #[error("its clock and this device's do not agree, so one of them is wrong: set it right")]
    Clock,
    /// The record has changed as often within the hour as it may.
    #[n(9)]
    #[error("this record has changed too often within the hour: wait before the next change")]
    TooOften,
    /// The share of its space that newcomers have is full, or what it has for a peer that stores for it; so it is likely to
    /// stay for so many seconds.
    #[n(10)]
    #[error(
        "what it gives to peers that it does not know is taken, and likely to be so for {0} s: it serves its contacts first, \
         then those who store for it"
    )]
    NewcomersFull(#[n(0)] u32),
    /// It stops storing for others.
    #[n(11)]
    #[error("it stops storing for others, and takes in nothing new")]
    Leaving,
}

#[derive(Encode, Decode)]
enum RequestHeader {
    #[n(0)]
    Hello(#[n(0)] Hello),
    #[n(1)]
    Put(#[n(0)] ShardId, #[n(1)] Lease),
    #[n(2)]
    Get(#[n(0)] ShardId, #[n(1)] u32, #[n(2)] u32),
    #[n(3)]
    Have(#[n(0)] Vec<ShardId>),
    #[n(4)]
    Record,
    #[n(5)]
    Watch(#[n(0)] RecordKey),
    #[n(6)]
    Renew,
    #[n(7)]
    Release,
    #[n(8)]
    Audit(#[n(0)] ShardId, #[n(1)] u32),
}
crate::format!(RequestHeader, tag = 0x20, version = 1, max = WIRE_HEADER_MAX, name = "request");

#[derive(Encode, Decode)]
enum ResponseHeader {
    #[n(0)]
    Hello(#[n(0)] Hello),
    #[n(1)]
    Ok,
    #[n(2)]
    Bytes,
    #[n(3)]
    Have(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(4)]
    Refused(#[n(0)] Refusal),
}
crate::format!(ResponseHeader, tag = 0x21, version = 1, max = WIRE_HEADER_MAX, name = "response");

/// Why a message was refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum WireError {
    /// The header does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A claimed length is over its limit.
    #[error("message: {what} of {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Header or body.
        what: &'static str,
        /// Claimed length.
        len: usize,
        /// Limit.
        max: usize,
    },
    /// A body where none belongs, or none where one does.
    #[error("message: a body where none belongs")]
    UnexpectedBody,
    /// A field is out of its bounds.
    #[error("message: {0} is out of bounds")]
    Bounds(&'static str),
}

/// Size of the two lengths before each message.
pub const PREFIX_LEN: usize = 8;

/// Reads the lengths before a message: (header, body), both within limits.
pub fn lengths(prefix: [u8; PREFIX_LEN]) -> Result<(usize, usize), WireError> {
    let word = |at: usize| u32::from_be_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]) as usize;
    let (header, body) = (word(0), word(4));
    if header > WIRE_HEADER_MAX {
        return Err(WireError::TooLong { what: "header", len: header, max: WIRE_HEADER_MAX });
    }
    if body > WIRE_BODY_MAX {
        return Err(WireError::TooLong { what: "body", len: body, max: WIRE_BODY_MAX });
    }
    Ok((header, body))
}

/// The lengths to send before `header` and `body`.
pub fn prefix(header: &[u8], body: &[u8]) -> [u8; PREFIX_LEN] {
    let mut out = [0; PREFIX_LEN];
    out[..4].copy_from_slice(&(header.len() as u32).to_be_bytes());
    out[4..].copy_from_slice(&(body.len() as u32).to_be_bytes());
    out
}

impl Request {
    /// Header bytes and raw body.
    pub fn to_parts(&self) -> (Vec<u8>, Bytes) {
        let (header, body) = match self {
            Self::Hello(hello) => (RequestHeader::Hello(hello.clone()), Bytes::new()),
            Self::Put { shard, lease, body } => (RequestHeader::Put(*shard, lease.clone()), body.clone()),
            Self::Get { shard, offset, len } => (RequestHeader::Get(*shard, *offset, *len), Bytes::new()),
            Self::Have { shards } => (RequestHeader::Have(shards.clone()), Bytes::new()),
            Self::Record { bytes } => (RequestHeader::Record, bytes.clone()),
            Self::Watch { key } => (RequestHeader::Watch(*key), Bytes::new()),
            Self::Renew { leases } => (RequestHeader::Renew, lease::to_body(leases)),
            Self::Release { tokens } => (RequestHeader::Release, lease::tokens_to_body(tokens)),
            Self::Audit { shard, chunk } => (RequestHeader::Audit(*shard, *chunk), Bytes::new()),
        };
        (codec::encode(&header), body)
    }

    /// Reads [`Self::to_parts`] from a stranger.
    pub fn from_parts(header: &[u8], body: Bytes) -> Result<Self, WireError> {
        let header: RequestHeader = codec::decode(header)?;
        let has_body = matches!(
            header,
            RequestHeader::Put(..) | RequestHeader::Record | RequestHeader::Renew | RequestHeader::Release
        );
        if !body.is_empty() && !has_body {
            return Err(WireError::UnexpectedBody);
        }
        match header {
            RequestHeader::Hello(hello) => Ok(Self::Hello(hello)),
            RequestHeader::Put(shard, lease) if !body.is_empty() && body.len() <= SHARD_MAX => {
                Ok(Self::Put { shard, lease, body })
            }
            RequestHeader::Put(..) => Err(WireError::Bounds("shard length")),
            RequestHeader::Get(shard, offset, len)
                if len > 0 && (offset as usize).saturating_add(len as usize) <= SHARD_MAX =>
            {
                Ok(Self::Get { shard, offset, len })
            }
            RequestHeader::Get(..) => Err(WireError::Bounds("read range")),
            RequestHeader::Have(shards) if shards.len() <= WIRE_IDS_MAX => Ok(Self::Have { shards }),
            RequestHeader::Have(_) => Err(WireError::Bounds("number of shards")),
            RequestHeader::Record if !body.is_empty() && body.len() <= RECORD_MAX => Ok(Self::Record { bytes: body }),
            RequestHeader::Record => Err(WireError::Bounds("record length")),
            RequestHeader::Watch(key) => Ok(Self::Watch { key }),
            RequestHeader::Renew => {
                let leases = lease::from_body(&body).ok_or(WireError::Bounds("leases"))?;
                Ok(Self::Renew { leases })
            }
            RequestHeader::Release => {
                let tokens = lease::tokens_from_body(&body).ok_or(WireError::Bounds("leases"))?;
                Ok(Self::Release { tokens })
            }
            RequestHeader::Audit(shard, chunk) if (chunk as usize) < SHARD_MAX / AUDIT_CHUNK => {
                Ok(Self::Audit { shard, chunk })
            }
            RequestHeader::Audit(..) => Err(WireError::Bounds("number of the chunk")),
        }
    }

    /// Bytes of shard that travel with or because of this request: what deadlines and windows are sized by.
    pub fn weight(&self) -> usize {
        match self {
            Self::Put { body, .. } => body.len(),
            Self::Get { len, .. } => *len as usize,
            Self::Audit { .. } => AUDIT_PROOF_MAX,
            Self::Hello(_)
            | Self::Have { .. }
            | Self::Record { .. }
            | Self::Watch { .. }
            | Self::Renew { .. }
            | Self::Release { .. } => 0,
        }
    }

    /// Bytes of shard that travel with it.
    pub fn body_len(&self) -> usize {
        if let Self::Put { body, .. } = self { body.len() } else { 0 }
    }

    /// No answer to it has a longer body.
    pub fn answer_max(&self) -> usize {
        match self {
            Self::Get { len, .. } => *len as usize,
            Self::Watch { .. } => RECORD_MAX,
            Self::Audit { .. } => AUDIT_PROOF_MAX,
            Self::Hello(_)
            | Self::Put { .. }
            | Self::Have { .. }
            | Self::Record { .. }
            | Self::Renew { .. }
            | Self::Release { .. } => 0,
        }
    }
}

impl Response {
    /// Header bytes and raw body.
    pub fn to_parts(&self) -> (Vec<u8>, Bytes) {
        let (header, body) = match self {
            Self::Hello(hello) => (ResponseHeader::Hello(hello.clone()), Bytes::new()),
            Self::Ok => (ResponseHeader::Ok, Bytes::new()),
            Self::Bytes(bytes) => (ResponseHeader::Bytes, bytes.clone()),
            Self::Have(bits) => (ResponseHeader::Have(bits.clone()), Bytes::new()),
            Self::Refused(why) => (ResponseHeader::Refused(*why), Bytes::new()),
        };
        (codec::encode(&header), body)
    }

    /// Reads [`Self::to_parts`] from a stranger.
    pub fn from_parts(header: &[u8], body: Bytes) -> Result<Self, WireError> {
        let header: ResponseHeader = codec::decode(header)?;
        if !body.is_empty() && !matches!(header, ResponseHeader::Bytes) {
            return Err(WireError::UnexpectedBody);
        }
        match header {
            ResponseHeader::Hello(hello) => Ok(Self::Hello(hello)),
            ResponseHeader::Ok => Ok(Self::Ok),
            ResponseHeader::Bytes => Ok(Self::Bytes(body)),
            ResponseHeader::Have(bits) if bits.len() <= LEASES_AT_ONCE.div_ceil(8) => Ok(Self::Have(bits)),
            ResponseHeader::Have(_) => Err(WireError::Bounds("number of bits")),
            ResponseHeader::Refused(why) => Ok(Self::Refused(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixSeconds;

    fn lease() -> Lease {
        Lease { key: LeaseToken([1; 32]).key(), expires: UnixSeconds(99) }
    }

    #[test]
    fn messages_round_trip() {
        let requests = [
            Request::Hello(Hello { free: 1, donated: 2, to_newcomer: true, leaving: false }),
            Request::Put { shard: ShardId([3; 32]), lease: lease(), body: Bytes::from_static(b"x") },
            Request::Get { shard: ShardId([3; 32]), offset: 4096, len: 4096 },
            Request::Have { shards: vec![ShardId([3; 32]); WIRE_IDS_MAX] },
            Request::Record { bytes: Bytes::from_static(b"signed") },
            Request::Watch { key: RecordKey([4; 32]) },
            Request::Renew { leases: vec![(ShardId([3; 32]), lease()); LEASES_AT_ONCE] },
            Request::Release { tokens: vec![(ShardId([3; 32]), LeaseToken([1; 32])); LEASES_AT_ONCE] },
            Request::Audit { shard: ShardId([3; 32]), chunk: 4095 },
        ];
        for request in requests {
            let (header, body) = request.to_parts();
            assert!(lengths(prefix(&header, &body)).is_ok());
            assert_eq!(Request::from_parts(&header, body), Ok(request));
        }
        let refusals = [Refusal::Full, Refusal::NewcomersFull(u32::MAX)].map(Response::Refused);
        for response in [Response::Ok, Response::Bytes(Bytes::from_static(b"abc"))].into_iter().chain(refusals) {
            let (header, body) = response.to_parts();
            assert_eq!(Response::from_parts(&header, body), Ok(response));
        }
    }

    #[test]
    fn bounds_hold_before_anything_is_allocated() {
        let mut huge = [0xff; PREFIX_LEN];
        assert!(matches!(lengths(huge), Err(WireError::TooLong { what: "header", .. })));
        huge[..4].copy_from_slice(&10u32.to_be_bytes());
        assert!(matches!(lengths(huge), Err(WireError::TooLong { what: "body", .. })));
        let get = |offset, len| {
            let (header, _) = Request::Get { shard: ShardId([0; 32]), offset, len }.to_parts();
            Request::from_parts(&header, Bytes::new())
        };
        assert!(get(0, 0).is_err() && get(u32::MAX, 1).is_err() && get(0, u32::MAX).is_err());
        let (header, _) = Request::Have { shards: vec![ShardId([0; 32]); WIRE_IDS_MAX + 1] }.to_parts();
        assert!(Request::from_parts(&header, Bytes::new()).is_err());
        let (header, _) = Request::Record { bytes: Bytes::new() }.to_parts();
        assert!(Request::from_parts(&header, Bytes::new()).is_err());
        assert!(Request::from_parts(&header, vec![0; RECORD_MAX + 1].into()).is_err());
        let audit = |chunk| {
            let (header, _) = Request::Audit { shard: ShardId([0; 32]), chunk }.to_parts();
            Request::from_parts(&header, Bytes::new())
        };
        assert!(audit(4096).is_err() && audit(u32::MAX).is_err());
        let (header, _) = Response::Ok.to_parts();
        assert_eq!(Response::from_parts(&header, Bytes::from_static(b"x")), Err(WireError::UnexpectedBody));
    }
}

//! What the agent wants a node to do, and how that ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::Acquainted;
use crate::audit::Seed;
use crate::id::{PeerId, RecordKey, ShardId};
use crate::lease::{Lease, LeaseSecret, LeaseToken};
use crate::quota::Quota;
use crate::record::Record;
use crate::seal::ExtentRef;
use crate::segment::{Coded, Placement};
use crate::time::UnixSeconds;

/// What the agent wants done.
#[derive(Clone, Debug)]
pub enum Command {
    /// Place all rows of a coded segment on as many peers.
    Upload {
        /// The segment with its shards.
        coded: Arc<Coded>,
        /// Of this placement and no other: what it is ended by.
        leases: LeaseSecret,
        /// When the leases end, at the earliest: they run to the end of that day.
        until: UnixSeconds,
        /// Give up when nothing moved for this long, in milliseconds.
        patience: u64,
    },
    /// Place some rows of a segment of which others are held.
    Mend {
        /// The segment, with these shards and no others.
        coded: Arc<Coded>,
        /// The number of each of them.
        rows: Vec<u8>,
        /// Who holds others: none of these goes there.
        others: BTreeSet<PeerId>,
        /// Who holds none of it, and is to get none.
        spared: BTreeSet<PeerId>,
        /// Of this placement and no other: what it is ended by.
        leases: LeaseSecret,
        /// When the leases end, at the earliest: they run to the end of that day.
        until: UnixSeconds,
        /// Give up when nothing moved for this long, in milliseconds.
        patience: u64,
    },
    /// Get extents of one segment.
    Fetch {
        /// The segment and its holders.
        placement: Arc<Placement>,
        /// Which extents, each with its offset in the payload.
        wanted: Vec<(ExtentRef, u32)>,
        /// Ask for whole blocks of so many bytes, and give those back, too; 0 for the smallest there are.
        around: u32,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Get all of a segment, each row of it checked against its hash.
    Rows {
        /// The segment and its holders.
        placement: Arc<Placement>,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Get one whole shard from one holder, checked against its address.
    Copy {
        /// Whom.
        holder: PeerId,
        /// Which.
        shard: ShardId,
        /// Its length in bytes, at most [`crate::limits::SHARD_MAX`].
        len: u32,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Ask the holders of a segment what they have.
    Probe {
        /// The segment and its holders.
        placement: Arc<Placement>,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Have one holder keep shards for longer, or for somebody else as well.
    Renew {
        /// Whom.
        holder: PeerId,
        /// At least one, and at most [`crate::limits::LEASES_AT_ONCE`].
        leases: Vec<(ShardId, Lease)>,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// End leases at one holder.
    Release {
        /// Whom.
        holder: PeerId,
        /// At least one, and at most [`crate::limits::LEASES_AT_ONCE`].
        tokens: Vec<(ShardId, LeaseToken)>,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Have holders of a segment prove that they have their rows.
    Audit {
        /// The segment and its holders.
        placement: Arc<Placement>,
        /// Which rows; those that nobody holds are left out.
        rows: Vec<u8>,
        /// Random bytes that nobody else has, never used for an audit before: what is asked for follows from them.
        seed: Seed,
        /// Milliseconds until it must have ended.
        within: u64,
    },
    /// Hand a record to the peers closest to its key, and keep it here.
    Publish {
        /// The record.
        record: Record,
        /// As many peers must keep it; fewer in the mesh are all that can be had.
        enough: usize,
    },
    /// The newest record of this key.
    Lookup(RecordKey),
    /// Ask the donors that are full whether they have room by now; a moment after the last time, none.
    AskRoom,
    /// These peers are to get no shards, and no others: they know, or may know, where those of this node are.
    Spare(BTreeSet<PeerId>),
    /// Give this to others from now on; what is there stays.
    Give(Quota),
    /// Take in nothing new from now on, so that others move elsewhere what is here; or take that back. All who are there are told.
    Leave(bool),
    /// Know whose peers are, and who holds how much for this identity, in place of what was known of that.
    Acquaint(Acquainted),
    /// Be told of these records when they change, by [`super::Effect::Changed`], and of no others.
    Watch(Vec<RecordKey>),
}

/// Sealed bytes of a row, as its holder sent them: nothing says that they are right before an extent in them opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which row.
    pub row: u8,
    /// Where in the row they begin.
    pub start: u32,
    /// The bytes.
    pub bytes: Bytes,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// [`Command::Upload`] and [`Command::Mend`]: every row is durable on a peer of its own. Of a mended one these are the new ones.
    Uploaded(Placement),
    /// [`Command::Fetch`].
    Fetched {
        /// The plaintexts, in the order of the request.
        plain: Vec<Bytes>,
        /// What was asked for around them, if that was wanted.
        around: Vec<Stretch>,
    },
    /// [`Command::Rows`]: the rows of data, one after the other the payload.
    Rows(Vec<Bytes>),
    /// [`Command::Copy`].
    Copied(Bytes),
    /// [`Command::Probe`].
    Probed {
        /// Rows their holder has.
        held: Vec<u8>,
        /// Rows their holder says it does not have.
        missing: Vec<u8>,
        /// Rows whose holder did not answer.
        unreachable: Vec<u8>,
    },
    /// [`Command::Renew`]: one per asked shard, whether the holder has it, leased.
    Renewed(Vec<bool>),
    /// [`Command::Release`]: they are over.
    Released,
    /// [`Command::Audit`].
    Audited {
        /// Rows whose holder has proven that it has them.
        passed: Vec<u8>,
        /// Rows whose holder sent something else than a proof.
        lied: Vec<u8>,
        /// Rows whose holder says that they are spoiled.
        damaged: Vec<u8>,
        /// Rows whose holder says that it does not have them, or says nothing though it is there, for days.
        missing: Vec<u8>,
        /// Rows whose holder did not answer, or was too busy: of these nothing is known.
        unreachable: Vec<u8>,
    },
    /// [`Command::Publish`]: how many other peers keep it.
    Published {
        /// That many have it on stable storage.
        stored: usize,
    },
    /// [`Command::Lookup`].
    Found {
        /// The newest of what came back and what is held here.
        record: Option<Record>,
        /// Others that say something else and are last ones, too: nothing tells which of them was first.
        others: Vec<Record>,
        /// How many other peers have answered: where none has, that nothing was found says nothing.
        answers: usize,
    },
    /// [`Command::AskRoom`]: what answered in time counts from now on.
    Asked,
    /// [`Command::Spare`].
    Spared,
    /// [`Command::Watch`]: those who keep them are asked, now and again.
    Watching,
    /// [`Command::Give`], [`Command::Leave`] and [`Command::Acquaint`]: it counts from now on.
    Noted,
    /// It could not be done.
    Failed(CommandError),
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Fewer than k shards can be had.
    #[error("segment {segment} lacks {} of the {need} shards it takes to read it ({why})", need - have)]
    TooFewShards {
        /// Which.
        segment: String,
        /// Shards at hand.
        have: u8,
        /// k.
        need: u8,
        /// What its holders said.
        why: String,
    },
    /// No end within the deadline.
    #[error("segment {segment} lacks {} of the {need} shards it takes to read it (the others did not answer within {seconds} s)", need - have)]
    Deadline {
        /// Which.
        segment: String,
        /// The deadline.
        seconds: u64,
        /// Shards at hand.
        have: u8,
        /// k.
        need: u8,
    },
    /// The bytes are not what their reference names.
    #[error("segment {segment}: an extent in it is damaged beyond what its shards can mend")]
    Damaged {
        /// Which.
        segment: String,
    },
    /// Too few peers took shards.
    #[error("only {stored} of {n} shards found a peer: {why}")]
    NotPlaced {
        /// Shards that are placed.
        stored: u8,
        /// Shards to be placed.
        n: u8,
        /// What the others said.
        why: String,
    },
    /// A holder was asked for something about leases, and did not do it.
    #[error("peer {peer} did not say that it keeps, or gives up, what it holds: {why}")]
    Lease {
        /// Which.
        peer: String,
        /// What it said.
        why: String,
    },
    /// A holder was asked for a shard, and did not send it.
    #[error("peer {peer} did not hand over a shard: {why}")]
    Copy {
        /// Which.
        peer: String,
        /// What it said.
        why: String,
        /// It has not got it, as it says or has shown.
        lacks: bool,
    },
    /// The record was refused.
    #[error("{0}")]
    Record(String),
    /// Too many commands at once.
    #[error("too much at once; try again when some of it is done")]
    Busy,
    /// The command makes no sense.
    #[error("invalid command: {0}")]
    Invalid(&'static str),
}

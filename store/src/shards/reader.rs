//! Reads of shards, checked before they are served.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use hypernet_core::audit;
use hypernet_core::id::ShardId;
use hypernet_core::limits::{SHARD_CHECK_BLOCK, SHARD_MAX};
use hypernet_core::port::{StoreFault, StoreReply};
use rusqlite::{Connection, OptionalExtension};

use super::packs::{Packs, SUM_LEN, Span, sums_match};
use super::recovery::LOST;
use super::{Done, Job, Write};
use crate::database::Readers;
use crate::error::StoreError;

/// What a reading thread is asked.
pub(super) enum Read {
    Range { shard: ShardId, offset: u32, len: u32, done: Done },
    Prove { shard: ShardId, chunk: u32, done: Done },
    Have { shards: Vec<ShardId>, done: Done },
}

impl Read {
    pub(super) fn into_done(self) -> Done {
        match self {
            Self::Range { done, .. } | Self::Prove { done, .. } | Self::Have { done, .. } => done,
        }
    }
}

/// A row of a shard.
struct Row {
    at: Span,
    damaged: u32,
    sums: Vec<u8>,
}

/// What reading a range came to.
enum Outcome {
    Bytes(Bytes),
    Failed(StoreFault),
    /// The bytes there are not the shard's.
    Rot(Span),
}

/// Looking up a row and reading its bytes are two steps; between them the shard can be given up or put anew. After
/// this many times in a row it is no coincidence.
const ATTEMPTS: usize = 4;

pub(super) struct Reader {
    connection: Connection,
    readers: Arc<Readers>,
    packs: Arc<Packs>,
    writes: Sender<Job>,
}

impl Reader {
    pub(super) fn new(readers: Arc<Readers>, packs: Arc<Packs>, writes: Sender<Job>) -> Result<Self, StoreError> {
        Ok(Self { connection: readers.connect()?, readers, packs, writes })
    }

    pub(super) fn run(&self, jobs: &Receiver<Read>) {
        for job in jobs {
            match job {
                Read::Range { shard, offset, len, done } => self.answer(shard, offset, len, done),
                Read::Prove { shard, chunk, done } => {
                    // All of it, checked against its address: an audit finds what has rotted anywhere in the shard.
                    self.answer(shard, 0, SHARD_MAX as u32, Box::new(move |reply| done(proof(reply, chunk))));
                }
                Read::Have { shards, done } => done(match self.have(&shards) {
                    Ok(have) => StoreReply::Have(have),
                    Err(error) => failed(error),
                }),
            }
        }
    }

    fn answer(&self, shard: ShardId, offset: u32, len: u32, done: Done) {
        match self.range(&shard, offset, len) {
            Ok(Outcome::Bytes(bytes)) => done(StoreReply::Bytes(bytes)),
            Ok(Outcome::Failed(fault)) => done(StoreReply::Failed(fault)),
            Ok(Outcome::Rot(at)) => {
                tracing::warn!(shard = %shard.short(), pack = at.pack, "a shard on this disk is damaged");
                // Answered by the writer once the row says so. When it has too much to do, the next read tells it.
                if let Err(error) = self.writes.try_send(Job { write: Write::Damaged { shard, at }, done }) {
                    (error.into_inner().done)(StoreReply::Failed(StoreFault::Damaged));
                }
            }
            Err(error) => done(failed(error)),
        }
    }

    /// Which may be relied on: what nobody has a lease of can go at any time.
    fn have(&self, shards: &[ShardId]) -> Result<Vec<bool>, StoreError> {
        let sql = "SELECT 1 FROM shards WHERE id = ?1 AND damaged = 0 AND idle IS NULL";
        let mut statement = self.connection.prepare_cached(sql).map_err(|e| self.error(&e))?;
        shards.iter().map(|shard| statement.exists([shard.as_bytes()]).map_err(|e| self.error(&e))).collect()
    }

    fn range(&self, shard: &ShardId, offset: u32, len: u32) -> Result<Outcome, StoreError> {
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let Some(row) = self.row(shard)? else { return Ok(Outcome::Failed(StoreFault::NotFound)) };
            if row.damaged == LOST {
                return Ok(Outcome::Failed(StoreFault::Damaged));
            }
            if seen == Some(row.at) {
                // The row has not changed since, so the bytes are wrong. Where they are not, the shard still serves.
                return Ok(if row.damaged == 0 { Outcome::Rot(row.at) } else { Outcome::Failed(StoreFault::Damaged) });
            }
            match self.load(shard, &row, u64::from(offset), u64::from(len)) {
                Ok(Some(bytes)) => return Ok(Outcome::Bytes(bytes)),
                Ok(None) => seen = Some(row.at),
                Err(error) => return Ok(Outcome::Failed(StoreFault::Disk(error.to_string()))),
            }
        }
        Ok(Outcome::Failed(StoreFault::Busy))
    }

    fn row(&self, shard: &ShardId) -> Result<Option<Row>, StoreError> {
        let sql = "SELECT pack, offset, len, damaged, sums FROM shards WHERE id = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(|e| self.error(&e))?;
        statement
            .query_row([shard.as_bytes()], |row| {
                let at = Span {
                    pack: row.get(0)?,
                    offset: row.get::<_, i64>(1)? as u64,
                    len: u64::from(row.get::<_, u32>(2)?),
                };
                Ok(Row { at, damaged: row.get(3)?, sums: row.get(4)? })
            })
            .optional()
            .map_err(|e| self.error(&e))
    }

    /// The range, or `None` when what is on disk is not the shard.
    fn load(&self, shard: &ShardId, row: &Row, offset: u64, len: u64) -> io::Result<Option<Bytes>> {
        let block = SHARD_CHECK_BLOCK as u64;
        let end = offset.saturating_add(len).min(row.at.len);
        let blocks = row.at.len.div_ceil(block) as usize;
        if row.at.len > SHARD_MAX as u64 || row.sums.len() != blocks * SUM_LEN {
            return Ok(None);
        }
        if offset >= end {
            return Ok(Some(Bytes::new()));
        }
        let whole = offset == 0 && end == row.at.len;
        let (from, to) = (offset / block * block, end.next_multiple_of(block).min(row.at.len));
        let bytes = match self.packs.read(row.at.pack, row.at.offset.saturating_add(from), (to - from) as usize) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => return Ok(None),
            Err(e) => return Err(e),
        };
        let good = if whole {
            blake3::hash(&bytes).as_bytes() == shard.as_bytes()
        } else {
            sums_match(&bytes, &row.sums, (from / block) as usize)
        };
        Ok(good.then(|| Bytes::from(bytes).slice((offset - from) as usize..(end - from) as usize)))
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        self.readers.place().error(error)
    }
}

/// What is sent of a shard that was read whole.
fn proof(reply: StoreReply, chunk: u32) -> StoreReply {
    match reply {
        StoreReply::Bytes(shard) => StoreReply::Bytes(audit::prove(&shard, chunk).unwrap_or_default().into()),
        reply => reply,
    }
}

fn failed(error: StoreError) -> StoreReply {
    tracing::error!(%error, hint = error.hint(), "the shard store cannot read");
    StoreReply::Failed(error.into())
}

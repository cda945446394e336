//! The cache of opened tree nodes: bounded by bytes, the ones unused for longest go first.
//!
//! It is only a cache: a lost entry is fetched again. So its writes are not flushed, and uses are noted in memory and
//! written along with the next put, because a read must never have to write.

use std::collections::BTreeSet;

use hypernet_core::id::ExtentId;
use hypernet_core::port::Durability;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, Transaction, params};

use super::write;
use crate::database::{Readers, Writer};
use crate::error::StoreError;

/// Uses that are noted between two puts; beyond it the oldest knowledge of use is good enough.
const NOTED_MAX: usize = 4_096;
/// Entries that one statement looks at to make room.
const EVICT_STEP: i64 = 256;

/// Nodes listed at once.
const LISTED: i64 = 1_000;

pub(super) struct Nodes {
    cap: u64,
    state: Mutex<State>,
}

struct State {
    bytes: u64,
    /// Counts puts: the age of an entry is the put it was last used before.
    round: i64,
    used: BTreeSet<ExtentId>,
}

impl Nodes {
    pub(super) fn open(readers: &Readers, cap: u64) -> Result<Self, StoreError> {
        let (bytes, round): (i64, i64) = readers.read(|c| {
            c.query_row("SELECT ifnull(sum(size), 0), ifnull(max(last_used), 0) FROM nodes", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
        })?;
        Ok(Self { cap, state: Mutex::new(State { bytes: bytes as u64, round, used: BTreeSet::new() }) })
    }

    pub(super) fn get(&self, readers: &Readers, id: &ExtentId) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT plain FROM nodes WHERE id = ?1";
        let found: Option<Vec<u8>> =
            readers.read(|c| c.prepare_cached(sql)?.query_row([id.as_bytes()], |row| row.get(0)).optional())?;
        let found = found.and_then(unwrapped);
        if found.is_some() {
            let mut state = self.state.lock();
            if state.used.len() < NOTED_MAX {
                state.used.insert(*id);
            }
        }
        Ok(found)
    }

    pub(super) fn put(&self, writer: &mut Writer, nodes: &[(ExtentId, &[u8])]) -> Result<(), StoreError> {
        let (used, round, mut bytes) = {
            let mut state = self.state.lock();
            state.round += 1;
            (std::mem::take(&mut state.used), state.round, state.bytes)
        };
        write(writer, Durability::Process, |tx| {
            let mut touch = tx.prepare_cached("UPDATE nodes SET last_used = ?2 WHERE id = ?1")?;
            for id in &used {
                touch.execute(params![id.as_bytes(), round])?;
            }
            for (id, plain) in nodes {
                bytes += insert(tx, id, plain, round)?;
            }
            while bytes > self.cap {
                let freed = evict(tx, bytes - self.cap)?;
                if freed == 0 {
                    break;
                }
                bytes = bytes.saturating_sub(freed);
            }
            Ok(())
        })?;
        self.state.lock().bytes = bytes;
        Ok(())
    }

    /// The ids of some nodes after a row, and the last of their rows.
    pub(super) fn page(&self, readers: &Readers, after: i64) -> Result<Option<(i64, Vec<ExtentId>)>, StoreError> {
        let sql = "SELECT rowid, id FROM nodes WHERE rowid > ?1 ORDER BY rowid LIMIT ?2";
        let rows: Vec<(i64, [u8; ExtentId::LEN])> = readers.read(|c| {
            c.prepare_cached(sql)?.query_map([after, LISTED], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        Ok(rows.last().map(|(last, _)| (*last, rows.iter().map(|(_, id)| ExtentId(*id)).collect())))
    }

    pub(super) fn remove(&self, writer: &mut Writer, ids: &[ExtentId]) -> Result<(), StoreError> {
        let freed = write(writer, Durability::Process, |tx| {
            let mut remove = tx.prepare_cached("DELETE FROM nodes WHERE id = ?1 RETURNING size")?;
            let mut freed = 0;
            for id in ids {
                let size: Option<i64> = remove.query_row([id.as_bytes()], |row| row.get(0)).optional()?;
                freed += size.unwrap_or(0) as u64;
            }
            Ok(freed)
        })?;
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(freed);
        ids.iter().for_each(|id| {
            state.used.remove(id);
        });
        Ok(())
    }
}

/// Bytes of a hash before each node: nothing else tells what is damaged on this disk from what somebody has written.
const SUM_LEN: usize = 8;

fn wrapped(plain: &[u8]) -> Vec<u8> {
    [&blake3::hash(plain).as_bytes()[..SUM_LEN], plain].concat()
}

/// A node that is as it was put.
fn unwrapped(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let plain = if bytes.len() < SUM_LEN { return None } else { bytes.split_off(SUM_LEN) };
    (blake3::hash(&plain).as_bytes()[..SUM_LEN] == bytes).then_some(plain)
}

/// Inserts a node, and returns by how much the cache grew.
fn insert(tx: &Transaction<'_>, id: &ExtentId, plain: &[u8], round: i64) -> rusqlite::Result<u64> {
    let sql = "INSERT OR IGNORE INTO nodes (id, last_used, size, plain) VALUES (?1, ?2, ?3, ?4)";
    let size = plain.len() as u64;
    let bytes = wrapped(plain);
    if tx.prepare_cached(sql)?.execute(params![id.as_bytes(), round, size as i64, bytes])? > 0 {
        return Ok(size);
    }
    // What is there under an id is the same node, unless it was damaged here.
    let sql = "UPDATE nodes SET plain = ?2 WHERE id = ?1 AND plain != ?2";
    tx.prepare_cached(sql)?.execute(params![id.as_bytes(), bytes])?;
    Ok(0)
}

/// Removes entries, the ones unused for longest first, until `wanted` bytes or a step's worth of them are gone.
fn evict(tx: &Transaction<'_>, wanted: u64) -> rusqlite::Result<u64> {
    let oldest: Vec<(i64, i64)> = tx
        .prepare_cached("SELECT rowid, size FROM nodes ORDER BY last_used, size LIMIT ?1")?
        .query_map([EVICT_STEP], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut remove = tx.prepare_cached("DELETE FROM nodes WHERE rowid = ?1")?;
    let mut freed = 0;
    for (row, size) in oldest {
        if freed >= wanted {
            break;
        }
        remove.execute([row])?;
        freed += size as u64;
    }
    Ok(freed)
}

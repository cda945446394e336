//! What opening does: brings packs and rows back together after any kind of stop.

use std::collections::BTreeMap;

use hypernet_core::port::Durability;
use hypernet_core::quota::{Depositor, Used};

use super::packs::{Packs, Span, room};
use crate::database::Writer;
use crate::error::StoreError;

/// Where the next shard goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) pack: u32,
    pub(super) len: u64,
}

/// What was found.
pub(super) struct Found {
    /// Of shards that somebody has a lease of, and of the others.
    pub(super) used: Used,
    pub(super) idle: u64,
    /// How many there are of the first.
    pub(super) count: u64,
    pub(super) records: u64,
    /// `None`: the next shard starts a new pack.
    pub(super) tail: Option<Tail>,
    /// The highest pack number in use, or 0.
    pub(super) newest: u32,
}

/// What stands in a row as `damaged` when the bytes of a shard were not there at the last start; 1 is what was found
/// wrong. It counts as damage like any other, but ends by itself when the pack is back: a disk that was not mounted
/// once must not cost what is on it. That is safe, because every read is checked.
pub(super) const LOST: u32 = 2;

/// Finishes releases that were cut short, removes packs without shards, cuts off what lies behind the last shard of
/// each pack, and marks shards whose bytes are not there. No row goes away.
pub(super) fn recover(db: &mut Writer, packs: &Packs, pack_max: u64) -> Result<Found, StoreError> {
    let place = db.place().clone();
    // Before anything is written: a hole could lie where the next shard goes.
    db.commit(Durability::Power, |tx| {
        let sql = |e: rusqlite::Error| place.error(&e);
        let mut statement = tx.prepare("SELECT pack, offset, len FROM holes").map_err(sql)?;
        let holes = statement
            .query_map([], |row| {
                Ok(Span { pack: row.get(0)?, offset: row.get::<_, i64>(1)? as u64, len: row.get::<_, i64>(2)? as u64 })
            })
            .map_err(sql)?;
        for hole in holes {
            packs.punch(hole.map_err(sql)?);
        }
        tx.execute("DELETE FROM holes", []).map_err(sql)
    })?;
    let (ends, used, idle, count, records) = db.commit(Durability::Power, |tx| {
        let sql = |e: rusqlite::Error| place.error(&e);
        let mut statement = tx
            .prepare(
                "SELECT pack, max(offset + len), sum((len + 4095) / 4096 * 4096), count(*),
                        sum(CASE WHEN idle IS NULL THEN 0 ELSE (len + 4095) / 4096 * 4096 END), count(idle), depositor
                 FROM shards GROUP BY pack, depositor",
            )
            .map_err(sql)?;
        let rows = statement
            .query_map([], |row| {
                let figure = |i| row.get::<_, i64>(i).map(|value| value as u64);
                let depositor = Depositor::from_number(row.get(6)?).unwrap_or(Depositor::Newcomer);
                Ok((row.get::<_, u32>(0)?, figure(1)?, (figure(2)?, figure(3)?), (figure(4)?, figure(5)?), depositor))
            })
            .map_err(sql)?;
        let (mut ends, mut used, mut idle, mut count) = (BTreeMap::new(), Used::default(), 0, 0);
        for row in rows {
            let (pack, end, (bytes, shards), (idle_bytes, idle_shards), depositor) = row.map_err(sql)?;
            let last: &mut u64 = ends.entry(pack).or_default();
            *last = end.max(*last);
            used.add(depositor, bytes - idle_bytes);
            idle += idle_bytes;
            count += shards - idle_shards;
        }
        let records: i64 = tx.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).map_err(sql)?;
        Ok((ends, used, idle, count, records as u64))
    })?;
    let files = packs.list()?;
    let newest = files.keys().chain(ends.keys()).copied().max().unwrap_or(0);
    for (pack, len) in &files {
        let io = |e| StoreError::io(&packs.path(*pack), e);
        match ends.get(pack) {
            None => packs.remove(*pack).map_err(io)?,
            Some(end) if len > end => packs.truncate(*pack, *end).map_err(io)?,
            Some(_) => {}
        }
    }
    let short: Vec<(u32, u64)> = ends
        .iter()
        .map(|(pack, end)| (*pack, *end, files.get(pack).copied().unwrap_or(0)))
        .filter(|(_, end, len)| len < end)
        .map(|(pack, _, len)| (pack, len))
        .collect();
    for (pack, _) in &short {
        let pack = packs.path(*pack);
        tracing::error!(pack = %pack.display(), "a pack is missing or too short: shards in it are lost");
    }
    match mark_lost(db, &short) {
        Ok(lost) => {
            for ((pack, _), shards) in short.iter().zip(lost) {
                tracing::error!(pack = %packs.path(*pack).display(), shards, "so many shards of it are lost");
            }
        }
        // What is there can be read all the same; what is not is found by whoever reads it.
        Err(error @ StoreError::DiskFull { .. }) => tracing::warn!(%error, "lost shards are not marked"),
        Err(error) => return Err(error),
    }
    let tail = ends
        .last_key_value()
        .filter(|(pack, end)| files.get(pack).is_some_and(|len| len >= end) && room(**end) < pack_max)
        .map(|(pack, end)| Tail { pack: *pack, len: room(*end) });
    Ok(Found { used, idle, count, records, tail, newest })
}

/// Marks the shards that do not lie in what is there of the packs in `short`, given by number and length, and takes
/// back the marks of those that were missing before and are not any more. How many there are for each pack.
fn mark_lost(db: &mut Writer, short: &[(u32, u64)]) -> Result<Vec<usize>, StoreError> {
    let place = db.place().clone();
    db.commit(Durability::Power, |tx| {
        let sql = |e: rusqlite::Error| place.error(&e);
        // A number that SQLite keeps for us in the head of the file. It says whether there may be marks at all, so
        // that an ordinary start need not look at every row.
        let marked: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
        if marked == 0 && short.is_empty() {
            return Ok(Vec::new());
        }
        tx.execute("UPDATE shards SET damaged = 0 WHERE damaged = ?1", [LOST]).map_err(sql)?;
        let mut mark = tx
            .prepare("UPDATE shards SET damaged = ?3 WHERE pack = ?1 AND offset + len > ?2 AND damaged = 0")
            .map_err(sql)?;
        let lost: Vec<usize> = short
            .iter()
            .map(|(pack, len)| mark.execute((pack, *len as i64, LOST)))
            .collect::<rusqlite::Result<_>>()
            .map_err(sql)?;
        tx.pragma_update(None, "user_version", u32::from(!short.is_empty())).map_err(sql)?;
        Ok(lost)
    })
}

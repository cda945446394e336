//! Segments of which pages of the catalog say what is not so any more: what is in them has gone, or is elsewhere. Those pages
//! are to be written anew.

use hypernet_core::id::SegmentId;
use hypernet_core::port::Durability;
use rusqlite::{Transaction, params};

use super::{VolumeDb, remove};
use crate::error::StoreError;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stale {
    /// Its number.
    pub num: u64,
    /// It is not there any more, so that also what lies in it is not to be told.
    pub is_gone: bool,
}

pub(super) fn mark(tx: &Transaction<'_>, catalog: i64, num: i64, is_gone: bool) -> rusqlite::Result<()> {
    let sql = "INSERT INTO stale (volume, num, is_gone) VALUES (?1, ?2, ?3)
               ON CONFLICT (volume, num) DO UPDATE SET is_gone = max(is_gone, excluded.is_gone)";
    tx.prepare_cached(sql)?.execute(params![catalog, num, is_gone]).map(drop)
}

impl VolumeDb {
    /// Forgets segments, all or none, and that pages tell of them.
    pub fn drop_segments(&self, ids: &[SegmentId]) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| {
            if !ids.is_empty() {
                // What a file was found to hold may be in one of them.
                tx.prepare_cached("DELETE FROM contents WHERE volume = ?1")?.execute([self.volume])?;
            }
            for id in ids {
                if let Some(num) = remove(tx, self.catalog(), id)? {
                    mark(tx, self.catalog(), num, true)?;
                }
            }
            Ok(())
        })
    }

    /// All of them, by their numbers.
    pub fn stale(&self) -> Result<Vec<Stale>, StoreError> {
        self.shared.readers.read(|c| {
            let row = |row: &rusqlite::Row<'_>| Ok(Stale { num: row.get::<_, i64>(0)? as u64, is_gone: row.get(1)? });
            let sql = "SELECT num, is_gone FROM stale WHERE volume = ?1 ORDER BY num";
            c.prepare_cached(sql)?.query_map([self.catalog()], row)?.collect()
        })
    }

    /// Whether one of them is not there any more.
    pub fn has_dropped(&self) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM stale WHERE volume = ?1 AND is_gone";
        self.shared.readers.read(|c| c.prepare_cached(sql)?.exists([self.catalog()]))
    }

    /// The pages that tell of these were written anew, and are found.
    pub fn forget_stale(&self, written: &[Stale]) -> Result<(), StoreError> {
        if written.is_empty() {
            return Ok(());
        }
        self.write(Durability::Power, |tx| {
            let sql = "DELETE FROM stale WHERE volume = ?1 AND num = ?2 AND is_gone <= ?3";
            let mut statement = tx.prepare_cached(sql)?;
            for Stale { num, is_gone } in written {
                statement.execute(params![self.catalog(), *num as i64, is_gone])?;
            }
            Ok(())
        })
    }
}

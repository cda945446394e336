//! What waits to be placed: extents that were sealed for snapshots, changes of the history that go into the next head, and what
//! files held when they were read for that.
//!
//! Invariants: what was staged stays until whoever has placed it says so, in the order in which it came; numbers are given out
//! once. What files held spares only work.

use hypernet_core::id::ExtentId;
use hypernet_core::port::Durability;
use rusqlite::{OptionalExtension, params};

use super::VolumeDb;
use crate::error::StoreError;

/// An extent that waits to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its number: later ones have higher ones.
    pub num: u64,
    /// The extent.
    pub id: ExtentId,
    /// It, sealed.
    pub bytes: Vec<u8>,
}

impl VolumeDb {
    /// Keeps sealed extents of this volume until they are placed. They outlive a power failure once an edit that was added after
    /// them does.
    pub fn stage(&self, extents: &[(ExtentId, &[u8])]) -> Result<(), StoreError> {
        self.write(Durability::Process, |tx| {
            let sql = "INSERT OR IGNORE INTO staged (id, volume, bytes) VALUES (?1, ?2, ?3)";
            let mut insert = tx.prepare_cached(sql)?;
            for (id, bytes) in extents {
                insert.execute(params![id.as_bytes(), self.volume, bytes])?;
            }
            Ok(())
        })
    }

    /// An extent that waits to be placed, of whichever volume.
    pub fn staged(&self, id: &ExtentId) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT bytes FROM staged WHERE id = ?1";
        self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row([id.as_bytes()], |row| row.get(0)).optional())
    }

    /// Which of these wait to be placed, of whichever volume.
    pub fn are_staged(&self, ids: &[ExtentId]) -> Result<Vec<bool>, StoreError> {
        self.shared.readers.read(|c| {
            let mut statement = c.prepare_cached("SELECT 1 FROM staged WHERE id = ?1")?;
            ids.iter().map(|id| statement.exists([id.as_bytes()])).collect()
        })
    }

    /// Extents of this volume that wait, with numbers above `after`, in order, at most `limit`.
    pub fn staged_iter(&self, after: u64, limit: u32) -> Result<Vec<Staged>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT num, id, bytes FROM staged WHERE volume = ?1 AND num > ?2 ORDER BY num LIMIT ?3";
            let row = |row: &rusqlite::Row<'_>| {
                Ok(Staged { num: row.get::<_, i64>(0)? as u64, id: ExtentId(row.get(1)?), bytes: row.get(2)? })
            };
            c.prepare_cached(sql)?.query_map(params![self.volume, after as i64, limit], row)?.collect()
        })
    }

    /// Adds a change of the history; returns its number. It and what was staged before outlive a power failure.
    pub fn add_edit(&self, edit: &[u8]) -> Result<u64, StoreError> {
        self.write(Durability::Power, |tx| {
            let sql = "INSERT INTO edits (volume, edit) VALUES (?1, ?2) RETURNING num";
            let num: i64 = tx.prepare_cached(sql)?.query_row(params![self.volume, edit], |row| row.get(0))?;
            Ok(num as u64)
        })
    }

    /// Changes of the history that wait, in order, each with its number.
    pub fn edits(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT num, edit FROM edits WHERE volume = ?1 ORDER BY num";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?));
            c.prepare_cached(sql)?.query_map([self.volume], row)?.collect()
        })
    }

    /// How many changes of the history wait.
    pub fn count_edits(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM edits WHERE volume = ?1";
        let count: i64 =
            self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row([self.volume], |row| row.get(0)))?;
        Ok(count as u64)
    }

    /// Extents up to one number are placed, changes up to another one are published: both go.
    pub fn unstage(&self, staged: u64, edits: u64) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| {
            let mut gone = tx.prepare_cached("DELETE FROM staged WHERE volume = ?1 AND num <= ?2")?;
            gone.execute(params![self.volume, staged as i64])?;
            let mut gone = tx.prepare_cached("DELETE FROM edits WHERE volume = ?1 AND num <= ?2")?;
            gone.execute(params![self.volume, edits as i64]).map(drop)
        })
    }

    /// What a file held when its backing file was as `stamp` says, if that was noted.
    pub fn content(&self, inode: u64, stamp: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT content FROM contents WHERE volume = ?1 AND inode = ?2 AND stamp = ?3";
        let params = params![self.volume, inode as i64, stamp];
        self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional())
    }

    /// Notes what files hold: inode, stamp, content.
    pub fn put_contents(&self, contents: &[(u64, Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(Durability::Process, |tx| {
            let sql = "INSERT OR REPLACE INTO contents (volume, inode, stamp, content) VALUES (?1, ?2, ?3, ?4)";
            let mut insert = tx.prepare_cached(sql)?;
            for (inode, stamp, content) in contents {
                insert.execute(params![self.volume, *inode as i64, stamp, content])?;
            }
            Ok(())
        })
    }

    /// Forgets what files hold.
    pub fn clear_contents(&self) -> Result<(), StoreError> {
        self.write(Durability::Process, |tx| {
            tx.prepare_cached("DELETE FROM contents WHERE volume = ?1")?.execute([self.volume]).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::VolumeId;

    use super::*;

    fn extent(byte: u8) -> ExtentId {
        ExtentId([byte; 32])
    }

    #[test]
    fn what_waits_stays_until_it_is_placed_and_is_found_from_any_volume() {
        let dir = tempfile::tempdir().unwrap();
        let open = || VolumeDb::open(dir.path(), VolumeId([1; 16]), 1_000).unwrap();
        let db = open();
        let other = db.of(VolumeId([2; 16])).unwrap();
        db.stage(&[(extent(1), b"one"), (extent(2), b"two")]).unwrap();
        other.stage(&[(extent(3), b"three")]).unwrap();
        // Once is enough.
        db.stage(&[(extent(2), b"two"), (extent(4), b"four")]).unwrap();
        let (first, second) = (db.add_edit(b"first").unwrap(), db.add_edit(b"second").unwrap());
        other.add_edit(b"elsewhere").unwrap();
        drop((db, other));

        let db = open();
        let other = db.of(VolumeId([2; 16])).unwrap();
        assert_eq!(db.staged(&extent(3)).unwrap().as_deref(), Some(&b"three"[..]));
        assert_eq!(db.are_staged(&[extent(1), extent(9)]).unwrap(), [true, false]);
        let waiting = |db: &VolumeDb| db.staged_iter(0, 10).unwrap();
        let bytes: Vec<_> = waiting(&db).into_iter().map(|staged| staged.bytes).collect();
        assert_eq!(bytes, [&b"one"[..], b"two", b"four"]);
        assert_eq!(db.edits().unwrap(), [(first, b"first".to_vec()), (second, b"second".to_vec())]);

        // What came while the rest was placed stays.
        db.unstage(waiting(&db)[1].num, first).unwrap();
        assert_eq!(waiting(&db).len(), 1);
        assert_eq!((db.count_edits().unwrap(), other.count_edits().unwrap()), (1, 1));
        assert_eq!(waiting(&other).len(), 1);
        db.unstage(u64::MAX >> 1, u64::MAX >> 1).unwrap();
        assert!(waiting(&db).is_empty() && db.edits().unwrap().is_empty());
        // No number is given out again.
        assert!(db.add_edit(b"third").unwrap() > second);
    }

    #[test]
    fn what_a_file_held_counts_for_one_stamp_only() {
        let dir = tempfile::tempdir().unwrap();
        let db = VolumeDb::open(dir.path(), VolumeId([1; 16]), 1_000).unwrap();
        db.put_contents(&[(7, b"then".to_vec(), b"old".to_vec())]).unwrap();
        assert_eq!(db.content(7, b"then").unwrap().as_deref(), Some(&b"old"[..]));
        db.put_contents(&[(7, b"now".to_vec(), b"new".to_vec())]).unwrap();
        assert_eq!((db.content(7, b"then").unwrap(), db.content(8, b"now").unwrap()), (None, None));
        assert_eq!(db.content(7, b"now").unwrap().as_deref(), Some(&b"new"[..]));
        db.clear_contents().unwrap();
        assert_eq!(db.content(7, b"now").unwrap(), None);
    }
}

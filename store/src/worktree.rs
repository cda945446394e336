//! The metadata of a working tree: inodes, names, and the next inode number.
//!
//! Invariants: a commit is all or nothing and in order; after [`Durability::Process`] it outlives this process, after
//! [`Durability::Power`] it and everything before it outlive a power failure. Reading never waits for a commit and
//! sees the tree as it was after some whole number of commits.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hypernet_core::id::FileId;
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, PortError};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use self::rows::{Columns, FIELDS, row};
use crate::database::{self, Readers, Schema, Writer};
use crate::error::{LOST, StoreError};

const SCHEMA: Schema = Schema {
    name: "worktree",
    version: 1,
    tables: "
        CREATE TABLE inodes (
            ino INTEGER PRIMARY KEY,
            id BLOB NOT NULL,
            kind INTEGER NOT NULL,
            mode INTEGER NOT NULL,
            uid INTEGER NOT NULL,
            gid INTEGER NOT NULL,
            rdev INTEGER NOT NULL,
            nlink INTEGER NOT NULL,
            size INTEGER NOT NULL,
            parent INTEGER NOT NULL,
            linked INTEGER NOT NULL,
            dirty INTEGER NOT NULL,
            pending INTEGER NOT NULL,
            local INTEGER NOT NULL,
            times BLOB NOT NULL,
            clean_size INTEGER,
            clean_ctime BLOB,
            xattrs BLOB,
            symlink BLOB,
            remote BLOB,
            volume BLOB
        );
        CREATE INDEX inodes_linked ON inodes (id, parent) WHERE linked = 1;
        CREATE INDEX inodes_volume ON inodes (ino) WHERE volume IS NOT NULL;
        CREATE INDEX inodes_pending ON inodes (pending) WHERE pending = 1;
        CREATE INDEX inodes_clean ON inodes (local) WHERE local = 2;
        CREATE TABLE names (
            parent INTEGER NOT NULL,
            name BLOB NOT NULL,
            ino INTEGER NOT NULL,
            PRIMARY KEY (parent, name)
        ) WITHOUT ROWID;
        CREATE TABLE state (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    ",
    remedy: "keep this agent's directory, here OLD, and recover what was synced beside it: `HN_HOME=NEW hn recover \
             --from OLD`; the rest is in OLD/tree/files by inode, `sqlite3 FILE .recover` names it",
    lost: LOST,
    spare: 4 << 20,
};

/// The metadata of the working tree on this device.
pub struct WorkTree {
    writer: Mutex<Writer>,
    readers: Readers,
}

impl WorkTree {
    /// The file in `dir` that holds it.
    pub fn file(dir: &Path) -> PathBuf {
        SCHEMA.path(dir)
    }

    /// Opens the tree in `dir`, making an empty one when there is none.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_known(dir, None)
    }

    /// As [`Self::open`]; but with `evidence`, a file that shows that there was a tree, a missing one is an error.
    pub fn open_known(dir: &Path, evidence: Option<&Path>) -> Result<Self, StoreError> {
        let database = database::open(dir, &SCHEMA, evidence)?;
        Ok(Self { writer: Mutex::new(database.writer), readers: database.readers })
    }

    /// Leaves all of it in one file. Blocks on the local disk.
    pub fn close(&self) -> Result<(), StoreError> {
        self.writer.lock().close()
    }

    /// Looks for damage in all of it. Blocks on the local disk, and keeps nobody else waiting.
    pub fn check(&self) -> Result<(), StoreError> {
        self.readers.check()
    }

    fn one(&self, sql: &str, key: impl rusqlite::Params) -> Result<Option<InodeRow>, PortError> {
        let found = self.readers.read(|c| c.prepare_cached(sql)?.query_row(key, row).optional())?;
        Ok(found)
    }

    fn many<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, PortError> {
        Ok(self.readers.read(|c: &Connection| c.prepare_cached(sql)?.query_map(params, map)?.collect())?)
    }
}

impl MetaStore for WorkTree {
    fn inode(&self, ino: u64) -> Result<Option<InodeRow>, PortError> {
        self.one(&format!("SELECT {FIELDS} FROM inodes i WHERE ino = ?1"), [ino as i64])
    }

    fn linked(&self, root: u64, id: FileId) -> Result<Option<InodeRow>, PortError> {
        let sql = format!(
            "SELECT {FIELDS} FROM inodes i INDEXED BY inodes_linked WHERE linked = 1 AND id = ?1 AND parent = ?2 LIMIT 1"
        );
        self.one(&sql, params![id.as_bytes(), root as i64])
    }

    fn all_linked(&self, root: u64, after: Option<FileId>, limit: u32) -> Result<Vec<InodeRow>, PortError> {
        let sql = format!(
            "SELECT {FIELDS} FROM inodes i INDEXED BY inodes_linked
             WHERE linked = 1 AND id > ?1 AND parent = ?2 ORDER BY id LIMIT ?3"
        );
        // No id is shorter.
        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
        self.many(&sql, params![after, root as i64, limit], row)
    }

    fn names_of(&self, inos: &[u64]) -> Result<Vec<(u64, Vec<u8>)>, PortError> {
        let wanted: HashSet<i64> = inos.iter().map(|ino| *ino as i64).collect();
        Ok(self.readers.read(|c: &Connection| {
            let mut statement = c.prepare_cached("SELECT ino, parent, name FROM names")?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                if wanted.contains(&row.get(0)?) {
                    found.push((row.get::<_, i64>(1)? as u64, row.get(2)?));
                }
            }
            Ok(found)
        })?)
    }

    fn roots(&self) -> Result<Vec<InodeRow>, PortError> {
        let sql =
            format!("SELECT {FIELDS} FROM inodes i INDEXED BY inodes_volume WHERE volume IS NOT NULL ORDER BY ino");
        self.many(&sql, [], row)
    }

    fn children(&self, parent: u64) -> Result<Vec<(Vec<u8>, InodeRow)>, PortError> {
        let sql = format!(
            "SELECT {FIELDS}, n.name FROM names n LEFT JOIN inodes i ON i.ino = n.ino
             WHERE n.parent = ?1 ORDER BY n.name"
        );
        let found = self.many(&sql, [parent as i64], |sql_row| match sql_row.get::<_, Option<i64>>(0)? {
            Some(_) => Ok(Some((sql_row.get(rows::COUNT)?, row(sql_row)?))),
            None => Ok(None),
        })?;
        let names = found.len();
        let children: Vec<_> = found.into_iter().flatten().collect();
        if children.len() < names {
            // One such name must not make the whole directory unreadable.
            tracing::error!(
                directory = parent,
                names = names - children.len(),
                "names that lead nowhere; run `hn fsck`"
            );
        }
        Ok(children)
    }

    fn pending(&self, after: u64, limit: u32) -> Result<Vec<InodeRow>, PortError> {
        let sql = format!(
            "SELECT {FIELDS} FROM inodes i INDEXED BY inodes_pending
             WHERE pending = 1 AND ino > ?1 ORDER BY ino LIMIT ?2"
        );
        self.many(&sql, params![after as i64, limit], row)
    }

    fn clean(&self, after: u64, limit: u32) -> Result<Vec<InodeRow>, PortError> {
        let sql = format!(
            "SELECT {FIELDS} FROM inodes i INDEXED BY inodes_clean
             WHERE local = 2 AND ino > ?1 ORDER BY ino LIMIT ?2"
        );
        self.many(&sql, params![after as i64, limit], row)
    }

    fn next_ino(&self) -> Result<u64, PortError> {
        let sql = "SELECT value FROM state WHERE key = 'next_ino'";
        let next: Option<i64> =
            self.readers.read(|c| c.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional())?;
        Ok(next.map_or(1, |next| next as u64))
    }

    fn commit(&self, ops: &[MetaOp], durability: Durability) -> Result<(), PortError> {
        let mut writer = self.writer.lock();
        let place = writer.place().clone();
        let attempt = |writer: &mut Writer| {
            writer.commit(durability, |tx| apply(tx, ops, durability).map_err(|e| place.error(&e)))
        };
        match attempt(&mut writer) {
            // Only for what makes room: others would use it up, and then nothing could be removed any more.
            Err(StoreError::DiskFull { .. }) if ops.iter().any(MetaOp::makes_room) && writer.use_spare() => {
                attempt(&mut writer)?;
            }
            other => other?,
        }
        writer.restore_spare();
        Ok(())
    }
}

fn apply(tx: &Transaction<'_>, ops: &[MetaOp], durability: Durability) -> rusqlite::Result<()> {
    let mut update = tx.prepare_cached(rows::UPDATE)?;
    let mut insert = tx.prepare_cached(rows::INSERT)?;
    let mut remove = tx.prepare_cached("DELETE FROM inodes WHERE ino = ?1")?;
    let mut link = tx.prepare_cached("INSERT OR REPLACE INTO names (parent, name, ino) VALUES (?1, ?2, ?3)")?;
    let mut unlink = tx.prepare_cached("DELETE FROM names WHERE parent = ?1 AND name = ?2")?;
    for op in ops {
        match op {
            MetaOp::PutInode(row) => {
                let columns = Columns::new(row);
                // Most inodes are put again with the id they have: that leaves the row where it is.
                if columns.run(&mut update)? == 0 {
                    columns.run(&mut insert)?;
                }
            }
            MetaOp::RemoveInode(ino) => {
                remove.execute([*ino as i64])?;
            }
            MetaOp::Link { parent, name, ino } => {
                link.execute(params![*parent as i64, name, *ino as i64])?;
            }
            MetaOp::Unlink { parent, name } => {
                unlink.execute(params![*parent as i64, name])?;
            }
            MetaOp::NextIno(next) => {
                tx.prepare_cached(
                    "INSERT INTO state VALUES ('next_ino', ?1)
                     ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
                )?
                .execute([*next as i64])?;
            }
        }
    }
    if durability == Durability::Power {
        // A transaction that changes nothing is not flushed, and then neither are the commits before it.
        tx.prepare_cached("INSERT INTO state VALUES ('flushes', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1")?
            .execute([])?;
    }
    Ok(())
}

/// Whether an inode belongs in [`MetaStore::pending`].
fn pending(row: &InodeRow) -> bool {
    row.dirty || row.nlink == 0
}

/// The column `local`; the index on clean inodes depends on these numbers.
fn local_code(local: &Local) -> u8 {
    match local {
        Local::Absent => 0,
        Local::Complete => 1,
        Local::Clean { .. } => 2,
    }
}

//! A set of ids that may be too large for memory: on this disk, in a file that nobody else sees and that is gone when it is
//! dropped, whatever ends the process.

use std::path::{Path, PathBuf};

use hypernet_core::id::ExtentId;
use rusqlite::{Connection, params};

use crate::error::StoreError;

const REMEDY: &str = "free some space where temporary files are, and try again";
/// Memory that it takes up, in KiB.
const CACHE_KIB: i64 = 32 * 1024;
/// See the module.
pub struct Marks {
    db: Connection,
    path: PathBuf,
}

impl Marks {
    /// An empty one; `dir` is named in errors.
    pub fn new(dir: &Path) -> Result<Self, StoreError> {
        // Without a name it is a file of its own, which SQLite has removed already.
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open("")?;
            db.execute_batch(&format!(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};
                 CREATE TABLE marks (id BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
            ))?;
            Ok(db)
        };
        let db = open().map_err(|error| StoreError::sqlite(dir, REMEDY, &error))?;
        Ok(Self { db, path: dir.to_path_buf() })
    }

    /// Adds one; whether it was not there.
    pub fn add(&mut self, id: &ExtentId) -> Result<bool, StoreError> {
        let add = || -> rusqlite::Result<bool> {
            let sql = "INSERT OR IGNORE INTO marks (id) VALUES (?1)";
            Ok(self.db.prepare_cached(sql)?.execute(params![id.as_bytes()])? > 0)
        };
        add().map_err(|error| self.error(&error))
    }

    /// Whether it is there.
    pub fn has(&self, id: &ExtentId) -> Result<bool, StoreError> {
        let has = || -> rusqlite::Result<bool> {
            self.db.prepare_cached("SELECT 1 FROM marks WHERE id = ?1")?.exists(params![id.as_bytes()])
        };
        has().map_err(|error| self.error(&error))
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, REMEDY, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_nothing_else_is() {
        let mut marks = Marks::new(Path::new("here")).unwrap();
        let id = |number: u32| ExtentId(*blake3::hash(&number.to_be_bytes()).as_bytes());
        for number in 0..3_000 {
            assert!(marks.add(&id(number)).unwrap());
            assert!(!marks.add(&id(number / 2)).unwrap());
        }
        for number in 0..6_000 {
            assert_eq!(marks.has(&id(number)).unwrap(), number < 3_000);
        }
    }
}

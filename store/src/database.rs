//! Opening a SQLite database as this crate wants it, and two ways to use it: one writer, any number of readers.
//!
//! Invariants: one process per file (a lock file, because SQLite itself would let two processes in); a format row
//! that refuses newer data; 0600 files in 0700 directories; write-ahead log, so that readers never wait for a writer.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypernet_core::limits::DB_READERS_IDLE_MAX;
use hypernet_core::port::Durability;
use parking_lot::Mutex;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};

use crate::error::StoreError;

/// What is special about one kind of database.
pub(crate) struct Schema {
    /// Stem of the file names.
    pub(crate) name: &'static str,
    /// The format this program writes.
    pub(crate) version: u32,
    /// Creates the tables.
    pub(crate) tables: &'static str,
    /// What to do about a corrupted file.
    pub(crate) remedy: &'static str,
    /// What to do about a missing one.
    pub(crate) lost: &'static str,
    /// Bytes set aside for [`Writer::use_spare`]; 0 for none.
    pub(crate) spare: u64,
}

impl Schema {
    /// Where the database lies in `dir`.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).with_extension("db")
    }

    /// Its write-ahead log.
    fn log(&self, dir: &Path) -> PathBuf {
        dir.join(self.name).with_extension("db-wal")
    }
}

/// Statements kept compiled per connection: more than any of our databases has.
const STATEMENTS: usize = 64;
/// Pages of write-ahead log after which a commit copies them into the database: 16 MiB, because in a smaller log a
/// page that is changed often would be copied (and flushed) again and again.
const CHECKPOINT_PAGES: i32 = 4_096;
/// Size to which the log file is cut back when it starts over.
const LOG_KEPT: u32 = 64 << 20;
/// Connections of one process wait for one another only around checkpoints, and never this long.
const BUSY: Duration = Duration::from_secs(10);
/// The same, when a database is closed.
const BUSY_AT_END: Duration = Duration::from_secs(1);

/// A file that this process alone has locked; the lock ends with the last owner of this.
struct Lock {
    file: File,
}

impl Lock {
    fn take(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = dir.join(name).with_extension("lock");
        let file = private_file().open(&path).map_err(|e| StoreError::io(&path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { dir: dir.into() }),
            Err(e) => Err(StoreError::io(&path, e.into())),
        }
    }
}

impl Drop for Lock {
    /// Closing alone would not do: a process that another thread has just forked holds a copy of the descriptor until
    /// it executes its program, and with it the lock.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "a lock is only given up with its file");
        }
    }
}

/// Options for a file that only its owner may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Makes `dir` with all that is above it, for its owner alone.
pub(crate) fn private_dir(dir: &Path) -> Result<(), StoreError> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| StoreError::io(dir, e))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|e| StoreError::io(dir, e))
}

/// Where a database is and how its errors are told.
#[derive(Clone)]
pub(crate) struct Place {
    path: PathBuf,
    remedy: &'static str,
    /// Held as long as anybody may use the database.
    _lock: Arc<Lock>,
}

impl Place {
    pub(crate) fn error(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::sqlite(&self.path, self.remedy, error)
    }

    /// Something in the database cannot be.
    pub(crate) fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), detail, remedy: self.remedy }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|e| self.error(&e))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.busy_timeout(BUSY).map_err(|e| self.error(&e))?;
        Ok(connection)
    }
}

/// An open database.
pub(crate) struct Database {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
}

/// Opens the database in `dir`, making directory and file when they are missing.
///
/// `evidence` would not be there if the database had never been: where it is given, a missing one is an error, because
/// an empty one in its place would have what belongs to it removed or written over.
pub(crate) fn open(dir: &Path, schema: &Schema, evidence: Option<&Path>) -> Result<Database, StoreError> {
    private_dir(dir)?;
    let lock = Lock::take(dir, schema.name)?;
    let path = schema.path(dir);
    let in_use = dir.join(schema.name).with_extension("open");
    refuse_missing(&path, &schema.log(dir), &in_use, schema, evidence)?;
    // From here on SQLite may merge the log and remove it, also where opening fails.
    InUse(in_use.clone()).end();
    // Made here and not by SQLite, so that it (and the log, which takes over its mode) is private from the start.
    drop(private_file().open(&path).map_err(|e| StoreError::io(&path, e))?);
    let place = Place { path, remedy: schema.remedy, _lock: Arc::new(lock) };
    let mut connection = place.connect()?;
    prepare(&mut connection, schema, &place, evidence)?;
    let unsynced = Unsynced::watch(&mut connection).map_err(|e| place.error(&e))?;
    sync_dir(dir)?;
    let in_use = InUse::begin(in_use);
    let spare = Spare { path: dir.join(schema.name).with_extension("spare"), len: schema.spare };
    spare.set_aside();
    let writer = Writer { in_use, connection, level: Durability::Power, unsynced, place: place.clone(), spare };
    let readers = Readers { idle: Mutex::new(Vec::new()), place };
    Ok(Database { writer, readers })
}

/// Looks before anything is touched: SQLite makes a missing database, and removes the log of an empty one.
fn refuse_missing(
    path: &Path,
    log: &Path,
    in_use: &Path,
    schema: &Schema,
    evidence: Option<&Path>,
) -> Result<(), StoreError> {
    let missing = |file: &Path, evidence: &Path, remedy| {
        Err(StoreError::Missing { file: file.into(), evidence: evidence.into(), remedy })
    };
    let was_in_use = len(in_use)?.map(|_| in_use);
    let log_len = len(log)?;
    if len(path)?.unwrap_or(0) > 0 {
        return match was_in_use {
            Some(in_use) if log_len.is_none() => missing(log, in_use, LOG_LOST),
            _ => Ok(()),
        };
    }
    let filled = log_len.filter(|len| *len > 0).map(|_| log);
    evidence.or(filled).or(was_in_use).map_or(Ok(()), |evidence| missing(path, evidence, schema.lost))
}

/// How long a file is, if it is there.
fn len(path: &Path) -> Result<Option<u64>, StoreError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// What to do about a missing log.
const LOG_LOST: &str = "put the log back: the newest changes are in it alone; where another program, such as sqlite3, \
                        has merged it into the database since, remove the .open file";

/// A file that is there while a database may have a log, made after the log and removed before it: where it is and
/// the log is not, the log was lost.
struct InUse(PathBuf);

impl InUse {
    fn begin(path: PathBuf) -> Self {
        if let Err(error) = private_file().open(&path) {
            tracing::debug!(%error, "a log that goes missing would not be noticed");
        }
        Self(path)
    }

    fn end(&self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "cannot be removed: remove it before the next start");
            }
            _ => {}
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sets the connection up, makes the tables when there are none, and checks the format.
fn prepare(
    connection: &mut Connection,
    schema: &Schema,
    place: &Place,
    evidence: Option<&Path>,
) -> Result<(), StoreError> {
    let sql = |e: rusqlite::Error| place.error(&e);
    connection.pragma_update(None, "journal_mode", "wal").map_err(sql)?;
    connection.pragma_update(None, "synchronous", "full").map_err(sql)?;
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT).map_err(sql)?;
    connection.pragma_update(None, "cache_size", -8_192).map_err(sql)?;
    // The last process may have met a sync that failed, see `Unsynced`. Where there is no room for it the log stays.
    if let Err(error) = merge(connection) {
        tracing::warn!(path = %place.path.display(), %error, "what is in the log could not be brought into the database");
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    if tables == 0 {
        // The file alone is not it: everything may have been in a log that is gone.
        if let Some(evidence) = evidence {
            let (file, evidence) = (place.path.clone(), evidence.into());
            return Err(StoreError::Missing { file, evidence, remedy: schema.lost });
        }
        tx.execute_batch("CREATE TABLE format (version INTEGER NOT NULL)").map_err(sql)?;
        tx.execute("INSERT INTO format VALUES (?1)", [schema.version]).map_err(sql)?;
        tx.execute_batch(schema.tables).map_err(sql)?;
    } else {
        let found: Option<u32> =
            tx.query_row("SELECT version FROM format", [], |row| row.get(0)).optional().map_err(sql)?;
        match found {
            Some(found) if found == schema.version => {}
            Some(found) if found > schema.version => {
                return Err(StoreError::Newer { path: place.path.clone(), found, known: schema.version });
            }
            found => return Err(place.corrupt(format!("format {found:?} was never written by any program"))),
        }
    }
    tx.commit().map_err(sql)
}

/// Copies all that is in the log into the database and empties the log; `false` when somebody still reads from it.
fn merge(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)).map(|busy| !busy)
}

/// Whether a sync failed since the log was last empty.
///
/// What a failed sync did not write Linux counts as written, and the next sync succeeds. A commit that failed with one is
/// written again; not so what was committed before it without a sync of its own ([`Durability::Process`]): it stays in
/// the middle of the log, in memory only, and after a loss of power nothing behind it is found either. So nothing is
/// committed after such a failure until all of the log has been written to the database.
struct Unsynced(Arc<AtomicBool>);

impl Unsynced {
    /// SQLite's own checkpoints tell nobody that they failed, so they are made here.
    fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let failed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&failed);
        connection.wal_hook(Some(move |log: &mut Wal, pages: i32| {
            if pages >= CHECKPOINT_PAGES
                && let Err(error) = log.checkpoint()
            {
                tracing::debug!(%error, "the log of a database could not be merged yet");
                noted.fetch_or(is_of_the_disk(&error), Ordering::Relaxed);
            }
            // The commit itself has succeeded.
            Ok(())
        }))?;
        Ok(Self(failed))
    }

    fn note<T>(&self, result: rusqlite::Result<T>) -> rusqlite::Result<T> {
        if let Err(error) = &result {
            self.0.fetch_or(is_of_the_disk(error), Ordering::Relaxed);
        }
        result
    }

    fn make_good(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            if !self.note(merge(connection))? {
                let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
            self.0.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// Disk space that is set aside for the changes that give space back: without it nothing could be removed any more
/// once the disk is full, because also a removal has to be written down first.
struct Spare {
    path: PathBuf,
    len: u64,
}

impl Spare {
    /// Where there is no room for it there is none; it is tried again later.
    fn set_aside(&self) {
        if self.len == 0 || std::fs::metadata(&self.path).is_ok_and(|found| found.len() == self.len) {
            return;
        }
        let made = private_file()
            .open(&self.path)
            .and_then(|file| Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.len)?));
        if let Err(error) = made {
            tracing::debug!(%error, "no spare space for a full disk");
            self.free();
        }
    }

    fn free(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok()
    }
}

/// The one connection that writes.
pub(crate) struct Writer {
    // Before the connection, which removes the log when it closes.
    in_use: InUse,
    connection: Connection,
    level: Durability,
    unsynced: Unsynced,
    place: Place,
    spare: Spare,
}

impl Writer {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Gives the spare space back to a full disk, so that a commit can be tried again; `false` when it is gone.
    pub(crate) fn use_spare(&mut self) -> bool {
        let freed = self.spare.free();
        if freed {
            tracing::warn!(path = %self.spare.path.display(), "the disk is full: using the spare space");
        }
        freed
    }

    /// Sets the spare space aside again, if there is room.
    pub(crate) fn restore_spare(&mut self) {
        self.spare.set_aside();
    }

    /// Brings all that was committed into the database, so that its file alone is whole; whoever else has a connection
    /// may keep it. What is written after this is as safe, but goes unnoticed when the log is removed.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        // A reader that is at it still is not waited for long: the log stays then.
        let merged = self.connection.busy_timeout(BUSY_AT_END).and_then(|()| merge(&self.connection));
        if merged.map_err(|e| self.place.error(&e))? {
            self.in_use.end();
        }
        Ok(())
    }

    /// Runs `f` in a transaction and commits it; an error of `f` or of the commit leaves everything as it was.
    pub(crate) fn commit<T>(
        &mut self,
        durability: Durability,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let place = &self.place;
        self.unsynced.make_good(&self.connection).map_err(|e| place.error(&e))?;
        if self.level != durability {
            let level = match durability {
                Durability::Process => "normal",
                Durability::Power => "full",
            };
            self.connection.pragma_update(None, "synchronous", level).map_err(|e| place.error(&e))?;
            self.level = durability;
        }
        let tx =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| place.error(&e))?;
        let value = f(&tx)?;
        self.unsynced.note(tx.commit()).map_err(|e| place.error(&e))?;
        Ok(value)
    }
}

/// Connections for reading. None of them ever waits for the writer.
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    place: Place,
}

impl Readers {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// A connection for one thread's own use.
    pub(crate) fn connect(&self) -> Result<Connection, StoreError> {
        let connection = self.place.connect()?;
        connection.pragma_update(None, "query_only", true).map_err(|e| self.place.error(&e))?;
        Ok(connection)
    }

    /// Lends a connection to `f`.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = f(&connection).map_err(|e| self.place.error(&e));
        let mut idle = self.idle.lock();
        if idle.len() < DB_READERS_IDLE_MAX {
            idle.push(connection);
        }
        result
    }

    /// Looks at every page. Nobody waits for it, and it sees the database as it was when it began.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        // An index against its table takes many times as long (SQLite's integrity_check), and can be made anew.
        match self.read(|c| c.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)))? {
            fine if fine == "ok" => Ok(()),
            detail => Err(self.place.corrupt(detail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use hypernet_kit::machine::{Need, has};
    use hypernet_kit::{Fault, FaultyDisk, PowerCut};

    use super::*;

    const SCHEMA: Schema = Schema {
        name: "sample",
        version: 2,
        tables: "CREATE TABLE t (x INTEGER)",
        remedy: "restore it",
        lost: "put it back",
        spare: 0,
    };

    fn insert(database: &mut Database, durability: Durability, number: i64, padding: usize) -> Result<(), StoreError> {
        let place = database.writer.place().clone();
        database.writer.commit(durability, |tx| {
            tx.execute("INSERT INTO t VALUES (?1)", [number])
                .and_then(|_| tx.execute("INSERT INTO pad VALUES (zeroblob(?1))", [padding as i64]))
                .map(drop)
                .map_err(|e| place.error(&e))
        })
    }

    /// Commits without a sync, after which one fails; then all is well again, and what is committed must stay.
    fn after_a_failed_sync(fails: impl FnOnce(&FaultyDisk, &mut Database)) {
        const PADDED: Schema = Schema { tables: "CREATE TABLE t (x INTEGER); CREATE TABLE pad (x BLOB)", ..SCHEMA };
        if !has(&[Need::Root, Need::Fuse]) {
            return;
        }
        let disk = FaultyDisk::new(1).unwrap();
        let dir = disk.path().join("db");
        let mut database = open(&dir, &PADDED, None).unwrap();
        insert(&mut database, Durability::Power, 1, 0).unwrap();
        fails(&disk, &mut database);
        assert!(disk.heal().unwrap() > 0, "no sync failed");
        insert(&mut database, Durability::Power, 4, 0).unwrap();
        disk.cut().unwrap();
        drop(database);
        disk.restore().unwrap();
        let found = open(&dir, &PADDED, None).unwrap();
        let numbers = found.readers.read(|c| {
            let mut all = c.prepare("SELECT x FROM t ORDER BY x")?;
            all.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()
        });
        assert_eq!(numbers.unwrap(), [1, 2, 4]);
    }

    #[test]
    fn what_a_failed_sync_gave_up_is_written_again_before_more_is_promised() {
        after_a_failed_sync(|disk, database| {
            insert(database, Durability::Process, 2, 0).unwrap();
            disk.fail(Fault::Sync, 1000).unwrap();
            insert(database, Durability::Power, 3, 0).unwrap_err();
        });
    }

    #[test]
    fn a_merge_of_the_log_that_fails_is_noticed() {
        after_a_failed_sync(|disk, database| {
            disk.fail(Fault::Sync, 1000).unwrap();
            insert(database, Durability::Process, 2, 5000 * 4096).unwrap();
        });
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &SCHEMA, None).unwrap();
        let second = open(dir.path(), &SCHEMA, None).map(|_| ()).unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        assert!(second.to_string().starts_with("another hnd uses "));
        // Readers alone hold the lock too.
        let Database { writer, readers } = first;
        drop(writer);
        assert!(matches!(open(dir.path(), &SCHEMA, None).map(|_| ()), Err(StoreError::Locked { .. })));
        drop(readers);
        assert!(open(dir.path(), &SCHEMA, None).is_ok());
    }

    #[test]
    fn closing_unlocks_even_while_another_thread_starts_processes() {
        let dir = tempfile::tempdir().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::process::Command::new("true").env("made_to_fork", "1").current_dir("/").status().unwrap();
                }
            });
            let opened: Vec<_> = (0..300).map(|_| open(dir.path(), &SCHEMA, None).map(drop)).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for result in opened {
                result.unwrap();
            }
        });
    }

    #[test]
    fn newer_formats_and_garbage_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let newer = Schema { version: 3, ..SCHEMA };
        let mut database = open(dir.path(), &SCHEMA, None).unwrap();
        let place = database.writer.place().clone();
        let bump = |tx: &Transaction<'_>| tx.execute("UPDATE format SET version = 3", []).map_err(|e| place.error(&e));
        database.writer.commit(Durability::Power, bump).unwrap();
        drop((database, place));
        let error = open(dir.path(), &SCHEMA, None).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
        assert!(open(dir.path(), &newer, None).is_ok());

        let path = SCHEMA.path(dir.path());
        std::fs::write(&path, [0x5a; 8192]).unwrap();
        let error = open(dir.path(), &SCHEMA, None).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("sample.db") && error.hint() == "restore it");
        assert_eq!(std::fs::read(&path).unwrap(), [0x5a; 8192]);
    }

    #[test]
    fn a_check_finds_a_damaged_page_that_opening_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(dir.path(), &SCHEMA, None).unwrap();
        let place = database.writer.place().clone();
        let fill =
            "WITH n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9000) INSERT INTO t SELECT x FROM n";
        let insert = |tx: &Transaction<'_>| tx.execute(fill, []).map_err(|e| place.error(&e));
        database.writer.commit(Durability::Power, insert).unwrap();
        database.readers.check().unwrap();
        drop((database, place));
        let path = SCHEMA.path(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4096;
        bytes[last..].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let error = open(dir.path(), &SCHEMA, None).unwrap().readers.check().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert_eq!(error.hint(), "restore it");
    }

    /// What lies in a directory, with its bytes.
    fn contents(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    /// A copy of a directory as kill -9 leaves it.
    fn killed(dir: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for (path, bytes) in contents(dir) {
            std::fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        copy
    }

    #[test]
    fn a_database_that_was_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = SCHEMA.path(dir.path());
        let evidence = dir.path().join("evidence");
        let open_known = || open(dir.path(), &SCHEMA, Some(&evidence)).map(|_| ());
        drop(open(dir.path(), &SCHEMA, None).unwrap());
        open_known().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for empty in [false, true] {
            std::fs::remove_file(&path).unwrap();
            if empty {
                std::fs::write(&path, "").unwrap();
            }
            let before = contents(dir.path());
            let error = open_known().unwrap_err();
            assert!(matches!(&error, StoreError::Missing { file, .. } if *file == path), "{error}");
            assert_eq!(error.hint(), "put it back");
            assert_eq!(contents(dir.path()), before);
            std::fs::write(&path, &whole).unwrap();
            open_known().unwrap();
        }
    }

    #[test]
    fn a_log_and_its_database_are_missed_when_one_of_them_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut database = open(dir.path(), &SCHEMA, None).unwrap();
        let place = database.writer.place().clone();
        let insert = |tx: &Transaction<'_>| tx.execute("INSERT INTO t VALUES (1)", []).map_err(|e| place.error(&e));
        database.writer.commit(Durability::Power, insert).unwrap();
        let rows = |dir: &Path| {
            let database = open(dir, &SCHEMA, None)?;
            database.readers.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)))
        };
        assert_eq!(rows(killed(dir.path()).path()).unwrap(), 1);
        for gone in [SCHEMA.path(Path::new("")), SCHEMA.log(Path::new(""))] {
            let copy = killed(dir.path());
            std::fs::rename(copy.path().join(&gone), copy.path().join("aside")).unwrap();
            let before = contents(copy.path());
            let error = rows(copy.path()).unwrap_err();
            assert!(matches!(&error, StoreError::Missing { file, .. } if file.ends_with(&gone)), "{error}");
            assert_eq!(contents(copy.path()), before);
            std::fs::rename(copy.path().join("aside"), copy.path().join(&gone)).unwrap();
            assert_eq!(rows(copy.path()).unwrap(), 1);
        }
        // Once it is closed the file alone is whole, also while somebody has it open still.
        database.writer.close().unwrap();
        let copy = killed(dir.path());
        std::fs::remove_file(SCHEMA.log(copy.path())).unwrap();
        assert_eq!(rows(copy.path()).unwrap(), 1);
        drop((database, place));
        assert_eq!(rows(dir.path()).unwrap(), 1);
    }

    #[test]
    fn a_failed_transaction_changes_nothing_and_readers_see_only_commits() {
        let dir = tempfile::tempdir().unwrap();
        let Database { mut writer, readers } = open(dir.path(), &SCHEMA, None).unwrap();
        let count = || readers.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))).unwrap();
        let place = writer.place().clone();
        let insert = |tx: &Transaction<'_>| tx.execute("INSERT INTO t VALUES (1)", []).map_err(|e| place.error(&e));
        let failed: Result<(), _> = writer.commit(Durability::Process, |tx| {
            insert(tx)?;
            assert_eq!(count(), 0);
            Err(place.corrupt("on purpose".into()))
        });
        assert!(failed.is_err());
        assert_eq!(count(), 0);
        writer.commit(Durability::Process, insert).unwrap();
        assert_eq!(count(), 1);
        // Readers cannot write, whatever they are asked.
        assert!(readers.read(|c| c.execute("DELETE FROM t", [])).is_err());
    }

    #[test]
    fn everything_is_private() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("a/b");
        let mut database = open(&dir, &SCHEMA, None).unwrap();
        let place = database.writer.place().clone();
        let insert = |tx: &Transaction<'_>| tx.execute("INSERT INTO t VALUES (1)", []).map_err(|e| place.error(&e));
        database.writer.commit(Durability::Power, insert).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let mut seen = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
            seen += 1;
        }
        assert!(seen >= 3, "database, log and lock");
    }
}

//! What a storage peer keeps for others: shards in pack files, and rows in SQLite that say what lies where.
//!
//! Invariants:
//! - An operation is acknowledged only when a power failure cannot undo it: bodies are flushed first, then the rows
//!   that make them shards are committed and flushed, many operations at a time.
//! - Bytes are served only when they are those that were put: each read is checked against the shard's address or
//!   the hashes of its blocks.
//! - Nobody is told that a shard is here whose bytes are known to be wrong, or were missing at the start.
//! - A shard of which nobody has a lease is *idle*: it stays for as long as its space is not needed, those first that were
//!   given up, then those whose leases ended first. So a lease that was not renewed in time loses nothing where there is room.
//! - Bytes in a pack that no row speaks of are dead space and never served; opening reclaims them.
//! - [`ShardStore::submit`] never blocks: what may not wait is turned away with [`StoreFault::Busy`].

mod packs;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use hypernet_core::id::{RecordKey, ShardId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::{
    PACK_MAX, STORE_READERS, STORE_READS_MAX, STORE_REFUSALS_MAX, STORE_WRITE_BYTES_MAX, STORE_WRITES_MAX,
};
use hypernet_core::port::{StoreFault, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Quota, Used};
use hypernet_core::time::UnixSeconds;
use parking_lot::{Mutex, RwLock};

use self::packs::{Packs, Span};
use self::reader::{Read, Reader};
use self::writer::Writer;
use crate::database::{self, Readers, Schema};
use crate::error::StoreError;

/// Told the outcome of an operation, on a thread of the store: it may block, and holds up the store while it does.
pub type Done = Box<dyn FnOnce(StoreReply) + Send>;

const SCHEMA: Schema = Schema {
    name: "shards",
    version: 3,
    tables: "
        CREATE TABLE shards (
            id BLOB PRIMARY KEY,
            pack INTEGER NOT NULL,
            offset INTEGER NOT NULL,
            len INTEGER NOT NULL,
            damaged INTEGER NOT NULL,
            sums BLOB NOT NULL,
            -- For whom it is kept, by number: nothing says for whom among those.
            depositor INTEGER NOT NULL,
            -- Since when nobody has had a lease of it: 0 when the last one was given up, NULL while somebody has one.
            idle INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX shards_idle ON shards (idle, id) WHERE idle IS NOT NULL;
        CREATE INDEX shards_by_pack ON shards (pack, offset, len);
        CREATE TABLE leases (
            shard BLOB NOT NULL,
            key BLOB NOT NULL,
            expires INTEGER NOT NULL,
            PRIMARY KEY (shard, key)
        ) WITHOUT ROWID;
        CREATE INDEX leases_by_expiry ON leases (expires);
        CREATE TABLE holes (pack INTEGER NOT NULL, offset INTEGER NOT NULL, len INTEGER NOT NULL);
        CREATE TABLE records (seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, bytes BLOB NOT NULL);
    ",
    remedy: "stop hnd, move this directory away and start again with an empty one: its shards are lost, and their owners \
             read from their other peers; nothing places the lost ones anew yet",
    lost: "put it back from a copy, or move the packs away if their shards may be given up",
    spare: 1 << 20,
};

/// Figures that every thread may look at.
struct Shared {
    /// What shards may take up.
    quota: Mutex<Quota>,
    used: Mutex<Used>,
    idle: AtomicU64,
    count: AtomicU64,
    /// Bytes of shards that wait to be written.
    waiting: AtomicUsize,
}

/// A change, and whom to tell.
struct Job {
    write: Write,
    done: Done,
}

enum Write {
    Put {
        shard: ShardId,
        lease: Lease,
        body: bytes::Bytes,
        depositor: Depositor,
    },
    Renew {
        leases: Vec<(ShardId, Lease)>,
        depositor: Depositor,
        most: u64,
    },
    Release {
        leases: Vec<(ShardId, LeaseKey)>,
    },
    PutRecord {
        key: RecordKey,
        bytes: Vec<u8>,
    },
    ForgetRecord {
        key: RecordKey,
    },
    /// A reader found that the bytes at `at` are not the shard's.
    Damaged {
        shard: ShardId,
        at: Span,
    },
    /// Leases that ended before this are over.
    Expire {
        before: UnixSeconds,
    },
}

/// What one lease of many counts for, in bytes: a batch of the largest holds as many as are changed in some tenths of a second.
const LEASE_WEIGHT: usize = 1024;

impl Write {
    fn weight(&self) -> usize {
        match self {
            Self::Put { body, .. } => body.len(),
            Self::PutRecord { bytes, .. } => bytes.len(),
            Self::Renew { leases, .. } => leases.len() * LEASE_WEIGHT,
            Self::Release { leases } => leases.len() * LEASE_WEIGHT,
            Self::ForgetRecord { .. } | Self::Damaged { .. } | Self::Expire { .. } => 0,
        }
    }
}

struct Running {
    writes: Sender<Job>,
    reads: Sender<Read>,
    refusals: Sender<Done>,
    readers: Arc<Readers>,
    threads: Vec<JoinHandle<()>>,
}

/// The shards and records that this device keeps for others.
pub struct ShardStore {
    shared: Arc<Shared>,
    running: RwLock<Option<Running>>,
}

impl ShardStore {
    /// Opens the store in `dir`, making it when it is not there, and clears up after an unclean stop. Shards beyond
    /// `quota` are refused; those that are there stay.
    pub fn open(dir: &Path, quota: Quota) -> Result<Self, StoreError> {
        Self::open_with(dir, quota, PACK_MAX)
    }

    /// [`Self::open`] with packs of another size, so that tests reach the end of one.
    fn open_with(dir: &Path, quota: Quota, pack_max: u64) -> Result<Self, StoreError> {
        let packs = Packs::open(dir.join("packs"))?;
        let evidence = (!packs.list()?.is_empty()).then(|| packs.dir().to_path_buf());
        let database = database::open(dir, &SCHEMA, evidence.as_deref())?;
        let mut db = database.writer;
        let found = recovery::recover(&mut db, &packs, pack_max)?;
        let shared = Arc::new(Shared {
            quota: Mutex::new(quota),
            used: Mutex::new(found.used),
            idle: AtomicU64::new(found.idle),
            count: AtomicU64::new(found.count),
            waiting: AtomicUsize::new(0),
        });
        let (packs, readers) = (Arc::new(packs), Arc::new(database.readers));
        let (writes, write_jobs) = bounded(STORE_WRITES_MAX);
        let (reads, read_jobs) = bounded(STORE_READS_MAX);
        let (refusals, refused) = bounded::<Done>(STORE_REFUSALS_MAX);
        let mut threads = Vec::new();
        for i in 0..STORE_READERS {
            let reader = Reader::new(Arc::clone(&readers), Arc::clone(&packs), writes.clone())?;
            let jobs: Receiver<Read> = read_jobs.clone();
            threads.push(spawn(dir, format!("store-read-{i}"), move || reader.run(&jobs))?);
        }
        let writer = Writer::new(db, packs, Arc::clone(&shared), found, pack_max);
        threads.push(spawn(dir, "store-write".into(), move || writer.run(&write_jobs))?);
        let refuse = move || refused.iter().for_each(|done| done(StoreReply::Failed(StoreFault::Busy)));
        threads.push(spawn(dir, "store-refuse".into(), refuse)?);
        Ok(Self { shared, running: RwLock::new(Some(Running { writes, reads, refusals, readers, threads })) })
    }

    /// Starts an operation; `done` is called once, on a thread of the store. After [`Self::close`] nothing starts
    /// and nobody is told.
    pub fn submit(&self, op: StoreOp, done: Done) {
        match op {
            StoreOp::Put { shard, lease, body, depositor } => {
                self.write(Write::Put { shard, lease, body, depositor }, done);
            }
            StoreOp::Renew { leases, depositor, most } => self.write(Write::Renew { leases, depositor, most }, done),
            StoreOp::Release { leases } => self.write(Write::Release { leases }, done),
            StoreOp::PutRecord { key, bytes } => self.write(Write::PutRecord { key, bytes }, done),
            StoreOp::Read { shard, offset, len } => self.read(Read::Range { shard, offset, len, done }),
            StoreOp::Prove { shard, chunk } => self.read(Read::Prove { shard, chunk, done }),
            StoreOp::Have { shards } => self.read(Read::Have { shards, done }),
        }
    }

    /// Forgets a record that nobody hands on any more.
    pub fn forget_record(&self, key: RecordKey, done: Done) {
        self.write(Write::ForgetRecord { key }, done);
    }

    /// Ends all leases that expired before `before`; shards without any are idle from then on. The rest of a long list
    /// follows after `done`, between other operations.
    pub fn expire(&self, before: UnixSeconds, done: Done) {
        self.write(Write::Expire { before }, done);
    }

    /// Takes in no more than that from now on; what is there stays.
    pub fn set_quota(&self, quota: Quota) {
        *self.shared.quota.lock() = quota;
    }

    /// What all idle shards take up, in whole disk blocks.
    pub fn idle(&self) -> u64 {
        self.shared.idle.load(Ordering::Acquire)
    }

    /// What all shards that somebody has a lease of take up, in whole disk blocks.
    pub fn used(&self) -> Used {
        *self.shared.used.lock()
    }

    /// How many of those there are.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// When leases of what is here end, in seconds since 1970: of the last one of each shard the first, and the last of all; none when
    /// nobody has any. Blocks on the local disk.
    pub fn lease_ends(&self) -> Result<Option<(UnixSeconds, UnixSeconds)>, StoreError> {
        let readers = self.running.read().as_ref().map(|running| Arc::clone(&running.readers));
        let Some(readers) = readers else { return Ok(None) };
        readers.read(|connection| {
            let sql = "SELECT min(last), max(last) FROM (SELECT max(expires) AS last FROM leases GROUP BY shard)";
            connection.prepare_cached(sql)?.query_row([], |row| {
                let end =
                    |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(|end| UnixSeconds(end as u64)));
                Ok(end(0)?.zip(end(1)?))
            })
        })
    }

    /// All records, oldest first. Blocks on the local disk.
    pub fn records(&self) -> Result<Vec<(RecordKey, Vec<u8>)>, StoreError> {
        let readers = self.running.read().as_ref().map(|running| Arc::clone(&running.readers));
        let Some(readers) = readers else { return Ok(Vec::new()) };
        readers.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT key, bytes FROM records ORDER BY seq")?;
            let rows = statement.query_map([], |row| Ok((RecordKey(row.get(0)?), row.get(1)?)))?;
            rows.collect()
        })
    }

    /// Finishes what was submitted and closes the files. Blocks; never call it from a `Done`.
    pub fn close(&self) {
        let Some(running) = self.running.write().take() else { return };
        let Running { writes, reads, refusals, readers, threads } = running;
        drop((writes, reads, refusals, readers));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the shard store panicked");
            }
        }
    }

    fn write(&self, write: Write, done: Done) {
        let running = self.running.read();
        let Some(running) = &*running else { return };
        let weight = write.weight();
        let waiting = self.shared.waiting.fetch_add(weight, Ordering::AcqRel);
        let done = if waiting + weight > STORE_WRITE_BYTES_MAX {
            done
        } else {
            match running.writes.try_send(Job { write, done }) {
                Ok(()) => return,
                Err(error) => error.into_inner().done,
            }
        };
        self.shared.waiting.fetch_sub(weight, Ordering::AcqRel);
        running.refuse(done);
    }

    fn read(&self, read: Read) {
        let running = self.running.read();
        let Some(running) = &*running else { return };
        if let Err(error) = running.reads.try_send(read) {
            running.refuse(error.into_inner().into_done());
        }
    }
}

impl Running {
    /// The answer must come from a thread of the store: the caller may be one that must not block.
    fn refuse(&self, done: Done) {
        if self.refusals.try_send(done).is_err() {
            tracing::error!("the shard store is flooded: a request is dropped without an answer");
        }
    }
}

impl Drop for ShardStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn(dir: &Path, name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(|e| StoreError::io(dir, e))
}

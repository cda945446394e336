//! The catalogs of volumes as a device keeps them: which segment holds an extent, what is known of each segment, small
//! state, and a bounded cache of opened tree nodes.
//!
//! All volumes of a device are in one database, because what is read may be in a segment of any of them: a volume that was
//! split off another refers to what was sealed for that one. What is written, numbered and remembered is of one volume.
//!
//! Invariants, of each volume: segments are numbered upwards from 1 in the order they came, and no number is ever given out twice,
//! so that a page of the catalog can name a range of them; one that comes again is numbered anew, because no page is
//! written again for a number that a full one covers; whoever takes over another device's catalog keeps its numbers
//! and goes on above them; an extent leads to the segment that this device has added last with it, or else another; whatever is taken outlives a
//! power failure, except for the cache. Descriptors are opaque here: core encodes and versions them.

mod ledger;
mod nodes;
mod stage;
mod stale;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hypernet_core::id::{ExtentId, SegmentId, VolumeId};
use hypernet_core::port::Durability;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub use self::ledger::{LeaseChange, Leased, NewLeases};
use self::nodes::Nodes;
pub use self::stage::Staged;
pub use self::stale::Stale;
use crate::database::{self, Place, Readers, Schema, Writer};
use crate::error::{LOST, StoreError};

const SCHEMA: Schema = Schema {
    name: "volume",
    version: 3,
    tables: "
        CREATE TABLE volumes (
            num INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,
            -- By which its segments and extents go; NULL is num.
            catalog INTEGER,
            -- Of the segments that go by num.
            next_segment INTEGER NOT NULL DEFAULT 1
        );
        CREATE TABLE extents (
            id BLOB NOT NULL,
            volume INTEGER NOT NULL,
            segment INTEGER NOT NULL,
            offset INTEGER NOT NULL,
            len INTEGER NOT NULL,
            PRIMARY KEY (id, volume)
        ) WITHOUT ROWID;
        CREATE TABLE segments (
            volume INTEGER NOT NULL,
            num INTEGER NOT NULL,
            id BLOB NOT NULL,
            descriptor BLOB NOT NULL,
            contents BLOB NOT NULL,
            PRIMARY KEY (volume, num)
        );
        CREATE UNIQUE INDEX segments_by_id ON segments (id, volume);
        -- Of which pages of the catalog say what is not so any more; volume is that by which segments go.
        CREATE TABLE stale (
            volume INTEGER NOT NULL,
            num INTEGER NOT NULL,
            is_gone INTEGER NOT NULL,
            PRIMARY KEY (volume, num)
        ) WITHOUT ROWID;
        -- Of all shards of one placement.
        CREATE TABLE leases (
            row INTEGER PRIMARY KEY AUTOINCREMENT,
            number BLOB NOT NULL UNIQUE,
            volume INTEGER NOT NULL,
            segment BLOB NOT NULL,
            descriptor BLOB NOT NULL,
            until INTEGER NOT NULL,
            -- The head of this device since which nothing needs them, and when that was.
            gone INTEGER,
            gone_at INTEGER
        );
        CREATE INDEX leases_by_volume ON leases (volume, row);
        CREATE INDEX leases_by_segment ON leases (segment, volume);
        CREATE TABLE state (
            volume INTEGER NOT NULL,
            key TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (volume, key)
        ) WITHOUT ROWID;
        CREATE TABLE nodes (
            id BLOB PRIMARY KEY,
            last_used INTEGER NOT NULL,
            size INTEGER NOT NULL,
            plain BLOB NOT NULL
        );
        CREATE INDEX nodes_by_use ON nodes (last_used, size);
        -- Sealed, and not on the mesh yet.
        CREATE TABLE staged (
            num INTEGER PRIMARY KEY AUTOINCREMENT,
            id BLOB NOT NULL UNIQUE,
            volume INTEGER NOT NULL,
            bytes BLOB NOT NULL
        );
        CREATE INDEX staged_by_volume ON staged (volume, num);
        CREATE TABLE edits (
            num INTEGER PRIMARY KEY AUTOINCREMENT,
            volume INTEGER NOT NULL,
            edit BLOB NOT NULL
        );
        CREATE INDEX edits_by_volume ON edits (volume, num);
        CREATE TABLE contents (
            volume INTEGER NOT NULL,
            inode INTEGER NOT NULL,
            stamp BLOB NOT NULL,
            content BLOB NOT NULL,
            PRIMARY KEY (volume, inode)
        ) WITHOUT ROWID;
    ",
    remedy: "keep this agent's directory, here OLD, and recover beside it: `HN_HOME=NEW hn recover --from OLD`; \
             files that were not synced yet are in OLD/tree/files, named by inode",
    lost: LOST,
    spare: 0,
};

/// An extent in its segment: id, first byte in the payload, sealed bytes.
pub type ExtentAt = (ExtentId, u32, u32);

/// Where an extent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What is known of the segment, holders included; core decodes it.
    pub descriptor: Vec<u8>,
    /// The segment.
    pub segment: SegmentId,
    /// First byte in the segment's payload.
    pub offset: u32,
    /// Sealed bytes.
    pub len: u32,
}

/// A segment as the volume knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// This device's number for it.
    pub num: u64,
    /// The segment.
    pub id: SegmentId,
    /// What is known of it, holders included; core decodes it.
    pub descriptor: Vec<u8>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments.
    pub segments: u64,
    /// Extents.
    pub extents: u64,
    /// Sealed bytes of all extents.
    pub bytes: u64,
}

/// A segment to add.
#[derive(Clone, Copy, Debug)]
pub struct NewSegment<'a> {
    /// The segment.
    pub id: SegmentId,
    /// What is known of it.
    pub descriptor: &'a [u8],
    /// What lies in it.
    pub extents: &'a [ExtentAt],
    /// Leases that this device has taken of it.
    pub leases: Option<NewLeases<'a>>,
    /// Somebody else has placed it: what lies in another segment as well is still looked for there.
    pub is_foreign: bool,
}

/// What the volumes of a device have in common.
struct Shared {
    writer: Mutex<Writer>,
    changes: AtomicU64,
    readers: Readers,
    nodes: Nodes,
}

/// The catalog of one volume on this device.
pub struct VolumeDb {
    shared: Arc<Shared>,
    /// The volume's number in this database.
    volume: i64,
    /// That by which its segments and extents go: another one once another catalog was taken over.
    catalog: AtomicI64,
}

impl VolumeDb {
    /// The catalog's file in `dir`.
    pub fn file(dir: &Path) -> PathBuf {
        SCHEMA.path(dir)
    }

    /// Opens the catalog of a volume in `dir`, making an empty one when there is none. Opened tree nodes, of all volumes,
    /// take up at most `node_cache_bytes` of it.
    pub fn open(dir: &Path, volume: VolumeId, node_cache_bytes: u64) -> Result<Self, StoreError> {
        Self::open_known(dir, volume, node_cache_bytes, None)
    }

    /// As [`Self::open`]; but with `evidence`, a file that shows that there was a catalog, a missing one is an error.
    pub fn open_known(
        dir: &Path,
        volume: VolumeId,
        node_cache_bytes: u64,
        evidence: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let database = database::open(dir, &SCHEMA, evidence)?;
        let nodes = Nodes::open(&database.readers, node_cache_bytes)?;
        let (writer, changes) = (Mutex::new(database.writer), AtomicU64::new(0));
        let shared = Arc::new(Shared { writer, changes, readers: database.readers, nodes });
        Self::of_shared(shared, volume)
    }

    fn of_shared(shared: Arc<Shared>, volume: VolumeId) -> Result<Self, StoreError> {
        let sql = "SELECT num, COALESCE(catalog, num) FROM volumes WHERE id = ?1";
        let numbers = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let known = shared.readers.read(|c| c.query_row(sql, [volume.as_bytes()], numbers).optional())?;
        let (number, catalog) = match known {
            Some(numbers) => numbers,
            None => write(&mut shared.writer.lock(), Durability::Power, |tx| {
                tx.execute("INSERT OR IGNORE INTO volumes (id) VALUES (?1)", [volume.as_bytes()])?;
                tx.query_row(sql, [volume.as_bytes()], numbers)
            })?,
        };
        Ok(Self { shared, volume: number, catalog: AtomicI64::new(catalog) })
    }

    fn catalog(&self) -> i64 {
        self.catalog.load(Ordering::SeqCst)
    }

    /// Whether a catalog in `dir`, of whichever volume, has a segment or this state.
    pub fn has_any(dir: &Path, key: &str, evidence: Option<&Path>) -> Result<bool, StoreError> {
        let database = database::open(dir, &SCHEMA, evidence)?;
        let sql = "SELECT EXISTS (SELECT 1 FROM segments) OR EXISTS (SELECT 1 FROM state WHERE key = ?1)";
        database.readers.read(|c| c.query_row(sql, [key], |row| row.get(0)))
    }

    /// The catalog of another volume beside this one.
    pub fn of(&self, volume: VolumeId) -> Result<Self, StoreError> {
        Self::of_shared(self.shared.clone(), volume)
    }

    /// All volumes that have, or had, a catalog here.
    pub fn volumes(&self) -> Result<Vec<VolumeId>, StoreError> {
        self.shared.readers.read(|c| {
            let row = |row: &rusqlite::Row<'_>| Ok(VolumeId(row.get(0)?));
            c.prepare_cached("SELECT id FROM volumes ORDER BY num")?.query_map([], row)?.collect()
        })
    }

    /// Leaves all of it in one file. Blocks on the local disk.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.writer.lock().close()
    }

    /// How often segments or state may have changed since it was opened: who reads them after this, and finds the same
    /// number later, would read the same again. The cache does not count.
    pub fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::SeqCst)
    }

    /// Which of these are in some segment of this volume.
    pub fn has_extents(&self, ids: &[ExtentId]) -> Result<Vec<bool>, StoreError> {
        self.shared.readers.read(|c| {
            let mut statement = c.prepare_cached("SELECT 1 FROM extents WHERE id = ?1 AND volume = ?2")?;
            ids.iter().map(|id| statement.exists(params![id.as_bytes(), self.catalog()])).collect()
        })
    }

    /// Where an extent is, of whichever volume.
    pub fn locate(&self, id: &ExtentId) -> Result<Option<Location>, StoreError> {
        self.shared.readers.read(|c| locate(c, id, self.catalog(), Among::All))
    }

    /// Where these extents are, of whichever volume, one answer each.
    pub fn locate_many(&self, ids: &[ExtentId]) -> Result<Vec<Option<Location>>, StoreError> {
        self.locate_among(ids, Among::All)
    }

    /// The same, in segments of this volume only.
    pub fn locate_own(&self, ids: &[ExtentId]) -> Result<Vec<Option<Location>>, StoreError> {
        self.locate_among(ids, Among::Own)
    }

    fn locate_among(&self, ids: &[ExtentId], among: Among) -> Result<Vec<Option<Location>>, StoreError> {
        self.shared.readers.read(|c| ids.iter().map(|id| locate(c, id, self.catalog(), among)).collect())
    }

    /// Adds a segment with what lies in it; returns its number. One that is known already gets a new number, and what
    /// is told of it now holds.
    pub fn add_segment(&self, id: SegmentId, descriptor: &[u8], extents: &[ExtentAt]) -> Result<u64, StoreError> {
        let new = NewSegment { id, descriptor, extents, leases: None, is_foreign: false };
        let added = self.add_segments(&[new])?;
        // One in, one out.
        Ok(added.first().copied().unwrap_or_default())
    }

    /// Adds segments, all or none, with one flush; returns their numbers.
    pub fn add_segments(&self, segments: &[NewSegment<'_>]) -> Result<Vec<u64>, StoreError> {
        if segments.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Durability::Power, |tx| {
            let leases = segments.iter().filter_map(|segment| segment.leases);
            leases.into_iter().try_for_each(|leases| ledger::add(tx, self.volume, &leases))?;
            segments.iter().map(|segment| add(tx, self.catalog(), segment)).collect()
        })
    }

    /// Forgets all segments: what [`Self::take_segments`] begins with when another catalog is taken over.
    pub fn clear_segments(&self) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| {
            tx.execute("DELETE FROM extents WHERE volume = ?1", [self.catalog()])?;
            tx.execute("DELETE FROM segments WHERE volume = ?1", [self.catalog()])?;
            tx.execute("DELETE FROM stale WHERE volume = ?1", [self.catalog()])?;
            Ok(())
        })
    }

    /// Takes the catalog of another volume in the place of this one's, with changes of this one's state, all or none. The
    /// other one, which nobody else uses, is left empty.
    pub fn take_over(&self, other: &Self, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        {
            let mut writer = self.shared.writer.lock();
            let (mine, theirs) = (self.catalog(), other.catalog());
            write(&mut writer, Durability::Power, |tx| {
                for (volume, catalog) in [(self.volume, theirs), (other.volume, mine)] {
                    tx.execute("UPDATE volumes SET catalog = ?2 WHERE num = ?1", [volume, catalog])?;
                }
                tx.execute("DELETE FROM contents WHERE volume = ?1", [self.volume])?;
                put_states(tx, self.volume, changes)
            })?;
            // Whoever writes next does so there; who reads meanwhile finds both.
            self.catalog.store(theirs, Ordering::SeqCst);
            other.catalog.store(mine, Ordering::SeqCst);
        }
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
        other.clear_segments()
    }

    /// Takes over segments under the numbers that the catalog gives them, all or none; what lies in them comes later.
    /// One that is there under another number was placed again, and goes; so does another under this number. Numbers
    /// are given out above them from now on.
    pub fn take_segments(&self, segments: &[SegmentRow]) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| {
            for row in segments {
                if let Some(old) = remove(tx, self.catalog(), &row.id)?.filter(|old| *old != row.num as i64) {
                    stale::mark(tx, self.catalog(), old, true)?;
                }
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO segments (volume, num, id, descriptor, contents) VALUES (?1, ?2, ?3, ?4, x'')",
                )?
                .execute(params![self.catalog(), row.num as i64, row.id.as_bytes(), row.descriptor])?;
            }
            let last = segments.iter().map(|row| row.num).max().unwrap_or(0);
            raise(tx, self.catalog(), last + 1)
        })
    }

    /// Takes over what lies in segments, by their numbers, all or none. Numbers that no segment has are left out.
    pub fn take_contents(&self, contents: &[(u64, Vec<ExtentAt>)]) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| {
            let mut update = tx.prepare_cached("UPDATE segments SET contents = ?3 WHERE volume = ?1 AND num = ?2")?;
            for (num, extents) in contents {
                if update.execute(params![self.catalog(), *num as i64, pack(extents)])? > 0 {
                    insert_extents(tx, self.catalog(), *num as i64, extents, false)?;
                }
            }
            Ok(())
        })
    }

    /// Gives out no number below `next` from now on: pages of the catalog that is used cover them.
    pub fn number_from(&self, next: u64) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| raise(tx, self.catalog(), next))
    }

    /// Takes over changed descriptors, as when a shard has moved, all or none, with one flush; those of unknown segments are
    /// left out. Pages of the catalog that tell of them are stale.
    pub fn replace_descriptors(&self, changed: &[(SegmentId, Vec<u8>)]) -> Result<(), StoreError> {
        if changed.is_empty() {
            return Ok(());
        }
        self.write(Durability::Power, |tx| {
            let sql = "UPDATE segments SET descriptor = ?2 WHERE id = ?1 AND volume = ?3 RETURNING num";
            let mut statement = tx.prepare_cached(sql)?;
            for (id, descriptor) in changed {
                let params = params![id.as_bytes(), descriptor, self.catalog()];
                let num: Option<i64> = statement.query_row(params, |row| row.get(0)).optional()?;
                num.map_or(Ok(()), |num| stale::mark(tx, self.catalog(), num, false))?;
            }
            Ok(())
        })
    }

    /// The segment that each of these extents is in, by the number of it in this volume.
    pub fn numbers_of(&self, ids: &[ExtentId]) -> Result<Vec<Option<u64>>, StoreError> {
        self.shared.readers.read(|c| {
            let mut statement = c.prepare_cached("SELECT segment FROM extents WHERE id = ?1 AND volume = ?2")?;
            let mut number = |id: &ExtentId| -> rusqlite::Result<Option<i64>> {
                statement.query_row(params![id.as_bytes(), self.catalog()], |row| row.get(0)).optional()
            };
            ids.iter().map(|id| Ok(number(id)?.map(|number| number as u64))).collect()
        })
    }

    /// One segment.
    pub fn segment(&self, id: &SegmentId) -> Result<Option<SegmentRow>, StoreError> {
        self.shared.readers.read(|c| {
            let mut statement =
                c.prepare_cached("SELECT num, id, descriptor FROM segments WHERE id = ?1 AND volume = ?2")?;
            statement.query_row(params![id.as_bytes(), self.catalog()], segment_row).optional()
        })
    }

    /// What is known to lie in a segment.
    pub fn contents(&self, id: &SegmentId) -> Result<Vec<ExtentAt>, StoreError> {
        let sql = "SELECT contents FROM segments WHERE id = ?1 AND volume = ?2";
        let params = params![id.as_bytes(), self.catalog()];
        let bytes: Option<Vec<u8>> =
            self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional())?;
        let cut_short = || self.shared.readers.place().corrupt("the contents of a segment are cut short".into());
        bytes.map_or(Ok(Vec::new()), |bytes| unpack(&bytes).ok_or_else(cut_short))
    }

    /// Segments with numbers above `after`, in order, at most `limit`. Start with 0.
    pub fn segments_iter(&self, after: u64, limit: u32) -> Result<Vec<SegmentRow>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT num, id, descriptor FROM segments WHERE volume = ?1 AND num > ?2 ORDER BY num LIMIT ?3";
            c.prepare_cached(sql)?.query_map(params![self.catalog(), after as i64, limit], segment_row)?.collect()
        })
    }

    /// As [`Self::segments_iter`], without those that a volume has which came before this one.
    pub fn own_segments_iter(&self, after: u64, limit: u32) -> Result<Vec<SegmentRow>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT num, id, descriptor FROM segments s WHERE volume = ?1 AND num > ?2 AND NOT EXISTS
                       (SELECT 1 FROM segments o WHERE o.id = s.id AND o.volume < ?1) ORDER BY num LIMIT ?3";
            c.prepare_cached(sql)?.query_map(params![self.catalog(), after as i64, limit], segment_row)?.collect()
        })
    }

    /// Segments with numbers from `from` on, in order, at most `limit`, each with what lies in it: what pages of the
    /// catalog are written from.
    pub fn segments_since(&self, from: u64, limit: u32) -> Result<Vec<(SegmentRow, Vec<ExtentAt>)>, StoreError> {
        let rows: Vec<(SegmentRow, Vec<u8>)> = self.shared.readers.read(|c| {
            let sql = "SELECT num, id, descriptor, contents FROM segments WHERE volume = ?1 AND num >= ?2
                       ORDER BY num LIMIT ?3";
            let row = |row: &rusqlite::Row<'_>| Ok((segment_row(row)?, row.get(3)?));
            c.prepare_cached(sql)?.query_map(params![self.catalog(), from as i64, limit], row)?.collect()
        })?;
        let unpack = |(row, contents): (SegmentRow, Vec<u8>)| match unpack(&contents) {
            Some(extents) => Ok((row, extents)),
            None => {
                Err(self.shared.readers.place().corrupt(format!("the contents of segment {} are cut short", row.num)))
            }
        };
        rows.into_iter().map(unpack).collect()
    }

    /// The number that the next new segment gets.
    pub fn next_segment(&self) -> Result<u64, StoreError> {
        let sql = "SELECT next_segment FROM volumes WHERE num = ?1";
        let next: i64 =
            self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row([self.catalog()], |row| row.get(0)))?;
        Ok(next as u64)
    }

    /// Looks for damage in all of it. Blocks on the local disk, and keeps nobody else waiting.
    pub fn check(&self) -> Result<(), StoreError> {
        self.shared.readers.check()
    }

    /// How much there is of this volume. Reads all extents.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT count(*) FROM segments WHERE volume = ?1";
            let segments: i64 = c.query_row(sql, [self.catalog()], |row| row.get(0))?;
            let sql = "SELECT count(*), ifnull(sum(len), 0) FROM extents WHERE volume = ?1";
            let (extents, bytes): (i64, i64) =
                c.query_row(sql, [self.catalog()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(Counts { segments: segments as u64, extents: extents as u64, bytes: bytes as u64 })
        })
    }

    /// A piece of state.
    pub fn get_state(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM state WHERE volume = ?1 AND key = ?2";
        let params = params![self.volume, key];
        self.shared.readers.read(|c| c.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional())
    }

    /// Sets a piece of state.
    pub fn put_state(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.put_states(&[(key, Some(value))])
    }

    /// Sets (or, with `None`, removes) pieces of state, all or none.
    pub fn put_states(&self, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        self.write(Durability::Power, |tx| put_states(tx, self.volume, changes))
    }

    /// An opened tree node, if it is in the cache.
    pub fn node(&self, id: &ExtentId) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.nodes.get(&self.shared.readers, id)
    }

    /// Puts opened tree nodes into the cache; the ones that were not used for longest make room. A power failure may
    /// undo it.
    pub fn put_nodes(&self, nodes: &[(ExtentId, &[u8])]) -> Result<(), StoreError> {
        self.shared.nodes.put(&mut self.shared.writer.lock(), nodes)
    }

    /// Removes nodes from the cache that `may_go` says may go; it is asked of some at a time, with an answer for each.
    pub fn drop_nodes<E: From<StoreError>>(
        &self,
        mut may_go: impl FnMut(&[ExtentId]) -> Result<Vec<bool>, E>,
    ) -> Result<(), E> {
        let mut after = 0;
        while let Some((last, ids)) = self.shared.nodes.page(&self.shared.readers, after)? {
            after = last;
            let gone: Vec<ExtentId> =
                may_go(&ids)?.into_iter().zip(ids).filter_map(|(may, id)| may.then_some(id)).collect();
            self.shared.nodes.remove(&mut self.shared.writer.lock(), &gone)?;
        }
        Ok(())
    }

    fn write<T>(
        &self,
        durability: Durability,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let written = write(&mut self.shared.writer.lock(), durability, f);
        // After it, or who looked in between would take what was there before for what is there now.
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
        written
    }
}

fn write<T>(
    writer: &mut Writer,
    durability: Durability,
    f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let place: Place = writer.place().clone();
    writer.commit(durability, |tx| f(tx).map_err(|e| place.error(&e)))
}

fn put_states(tx: &Transaction<'_>, volume: i64, changes: &[(&str, Option<&[u8]>)]) -> rusqlite::Result<()> {
    for (key, value) in changes {
        match value {
            Some(value) => tx
                .prepare_cached("INSERT OR REPLACE INTO state (volume, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![volume, key, value])?,
            None => {
                tx.prepare_cached("DELETE FROM state WHERE volume = ?1 AND key = ?2")?.execute(params![volume, key])?
            }
        };
    }
    Ok(())
}

/// In whose segments to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    /// Those of this volume only.
    Own,
    /// Those of any, this volume's first.
    All,
}

/// Where an extent is, seen from `volume`.
fn locate(c: &Connection, id: &ExtentId, volume: i64, among: Among) -> rusqlite::Result<Option<Location>> {
    let sql = "SELECT s.descriptor, s.id, e.offset, e.len
               FROM extents e JOIN segments s ON s.volume = e.volume AND s.num = e.segment
               WHERE e.id = ?1 AND (?3 OR e.volume = ?2) ORDER BY e.volume != ?2, e.volume LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Location { descriptor: row.get(0)?, segment: SegmentId(row.get(1)?), offset: row.get(2)?, len: row.get(3)? })
    };
    c.prepare_cached(sql)?.query_row(params![id.as_bytes(), volume, among == Among::All], row).optional()
}

/// Segments of this volume get no number below `next` from now on.
fn raise(tx: &Transaction<'_>, volume: i64, next: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE volumes SET next_segment = max(next_segment, ?2) WHERE num = ?1";
    tx.prepare_cached(sql)?.execute(params![volume, next as i64]).map(drop)
}

fn segment_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SegmentRow> {
    Ok(SegmentRow { num: row.get::<_, i64>(0)? as u64, id: SegmentId(row.get(1)?), descriptor: row.get(2)? })
}

/// Removes a segment and its extents, if it is there; under which number it was. Pages may tell of it under that.
fn remove(tx: &Transaction<'_>, volume: i64, id: &SegmentId) -> rusqlite::Result<Option<i64>> {
    let known: Option<(i64, Vec<u8>)> = tx
        .prepare_cached("DELETE FROM segments WHERE id = ?1 AND volume = ?2 RETURNING num, contents")?
        .query_row(params![id.as_bytes(), volume], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((num, contents)) = known else { return Ok(None) };
    let mut remove = tx.prepare_cached("DELETE FROM extents WHERE id = ?1 AND volume = ?2 AND segment = ?3")?;
    for (id, _, _) in unpack(&contents).unwrap_or_default() {
        remove.execute(params![id.as_bytes(), volume, num])?;
    }
    Ok(Some(num))
}

/// `stay`: what lies in another segment as well is found there.
fn insert_extents(
    tx: &Transaction<'_>,
    volume: i64,
    num: i64,
    extents: &[ExtentAt],
    stay: bool,
) -> rusqlite::Result<()> {
    let sql = match stay {
        true => "INSERT OR IGNORE INTO extents (id, volume, segment, offset, len) VALUES (?1, ?2, ?3, ?4, ?5)",
        false => "INSERT OR REPLACE INTO extents (id, volume, segment, offset, len) VALUES (?1, ?2, ?3, ?4, ?5)",
    };
    let mut insert = tx.prepare_cached(sql)?;
    for (id, offset, len) in extents {
        insert.execute(params![id.as_bytes(), volume, num, offset, len])?;
    }
    Ok(())
}

fn add(tx: &Transaction<'_>, volume: i64, segment: &NewSegment<'_>) -> rusqlite::Result<u64> {
    // One that comes again was placed again, on other peers: under its old number no page would ever tell of them. And the page
    // that tells of it there is not to go on doing so when it is not there any more.
    if let Some(old) = remove(tx, volume, &segment.id)? {
        stale::mark(tx, volume, old, true)?;
    }
    let num: i64 = tx
        .prepare_cached("UPDATE volumes SET next_segment = next_segment + 1 WHERE num = ?1 RETURNING next_segment - 1")?
        .query_row([volume], |row| row.get(0))?;
    let sql = "INSERT INTO segments (volume, num, id, descriptor, contents) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.prepare_cached(sql)?.execute(params![
        volume,
        num,
        segment.id.as_bytes(),
        segment.descriptor,
        pack(segment.extents)
    ])?;
    insert_extents(tx, volume, num, segment.extents, segment.is_foreign)?;
    Ok(num as u64)
}

/// Bytes of one extent in the column `contents`.
const PACKED_LEN: usize = ExtentId::LEN + 8;

/// What lies in a segment, in payload order: the table of extents is ordered by id and cannot tell.
fn pack(extents: &[ExtentAt]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(extents.len() * PACKED_LEN);
    for (id, offset, len) in extents {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<Vec<ExtentAt>> {
    let (rows, rest) = bytes.as_chunks::<PACKED_LEN>();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    if !rest.is_empty() {
        return None;
    }
    rows.iter().map(|row| Some((ExtentId::from_slice(&row[..32])?, word(&row[32..36])?, word(&row[36..])?))).collect()
}

//! What this device has leases of: one row for each placement that it made, or took leases of, until they are given up or
//! over. It is what leases are renewed by, and ended.

use hypernet_core::id::SegmentId;
use hypernet_core::lease::LeaseNumber;
use hypernet_core::port::Durability;
use rusqlite::{Transaction, params};

use super::VolumeDb;
use crate::error::StoreError;

/// Leases of all shards of one placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The number of the row, by which pages of them go on.
    pub row: u64,
    /// By which this device's secret gives their tokens.
    pub number: LeaseNumber,
    /// The segment.
    pub segment: SegmentId,
    /// What is known of it, holders included; core decodes it.
    pub descriptor: Vec<u8>,
    /// When the first of them ends, in seconds since 1970.
    pub until: u64,
    /// Nothing of this device has needed it any more since its head with this number, and since when that is.
    pub gone: Option<(u64, u64)>,
}

/// Leases to be written down.
#[derive(Clone, Copy, Debug)]
pub struct NewLeases<'a> {
    /// By which this device's secret gives their tokens.
    pub number: LeaseNumber,
    /// The segment.
    pub segment: SegmentId,
    /// What is known of it, with the holders that have taken them.
    pub descriptor: &'a [u8],
    /// When the first of them ends, in seconds since 1970.
    pub until: u64,
}

/// What has become of leases.
#[derive(Clone, Debug)]
pub enum LeaseChange {
    /// They run until then.
    Renewed(LeaseNumber, u64),
    /// Nothing has needed them since the head with this number, as of this time; or something does.
    Gone(LeaseNumber, Option<(u64, u64)>),
    /// These holders have them still, of those that did.
    Held(LeaseNumber, Vec<u8>),
    /// There are none any more.
    Over(LeaseNumber),
}

fn leased(row: &rusqlite::Row<'_>) -> rusqlite::Result<Leased> {
    let figure = |at| row.get::<_, Option<i64>>(at).map(|figure| figure.map(|figure| figure as u64));
    Ok(Leased {
        row: figure(0)?.unwrap_or_default(),
        number: row.get(1)?,
        segment: SegmentId(row.get(2)?),
        descriptor: row.get(3)?,
        until: figure(4)?.unwrap_or_default(),
        gone: figure(5)?.zip(figure(6)?),
    })
}

pub(super) fn add(tx: &Transaction<'_>, volume: i64, new: &NewLeases<'_>) -> rusqlite::Result<()> {
    let sql = "INSERT INTO leases (number, volume, segment, descriptor, until) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.prepare_cached(sql)?
        .execute(params![new.number, volume, new.segment.as_bytes(), new.descriptor, new.until as i64])
        .map(drop)
}

impl VolumeDb {
    /// Writes leases down, all or none.
    pub fn add_leases(&self, new: &[NewLeases<'_>]) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        self.write(Durability::Power, |tx| new.iter().try_for_each(|new| add(tx, self.volume, new)))
    }

    /// Leases for this volume, in the order in which they were taken, after this row, at most `limit`. Start with 0.
    pub fn leases_iter(&self, after: u64, limit: u32) -> Result<Vec<Leased>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT row, number, segment, descriptor, until, gone, gone_at FROM leases
                       WHERE volume = ?1 AND row > ?2 ORDER BY row LIMIT ?3";
            c.prepare_cached(sql)?.query_map(params![self.volume, after as i64, limit], leased)?.collect()
        })
    }

    /// Whether something needs leases of a segment for this volume that are written down.
    pub fn has_leases(&self, segment: &SegmentId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM leases WHERE segment = ?1 AND volume = ?2 AND gone IS NULL";
        let params = params![segment.as_bytes(), self.volume];
        self.shared.readers.read(|c| c.prepare_cached(sql)?.exists(params))
    }

    /// Leases of one segment for this volume, in the order in which they were taken.
    pub fn leases_of(&self, segment: &SegmentId) -> Result<Vec<Leased>, StoreError> {
        self.shared.readers.read(|c| {
            let sql = "SELECT row, number, segment, descriptor, until, gone, gone_at FROM leases
                       WHERE segment = ?1 AND volume = ?2 ORDER BY row";
            c.prepare_cached(sql)?.query_map(params![segment.as_bytes(), self.volume], leased)?.collect()
        })
    }

    /// Writes down what has become of leases, all or none.
    pub fn change_leases(&self, changes: &[LeaseChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(Durability::Power, |tx| {
            for change in changes {
                match change {
                    LeaseChange::Renewed(number, until) => tx
                        .prepare_cached("UPDATE leases SET until = ?2 WHERE number = ?1")?
                        .execute(params![number, *until as i64])?,
                    LeaseChange::Gone(number, gone) => {
                        let (gone, at) = gone.map(|(gone, at)| (gone as i64, at as i64)).unzip();
                        tx.prepare_cached("UPDATE leases SET gone = ?2, gone_at = ?3 WHERE number = ?1")?
                            .execute(params![number, gone, at])?
                    }
                    LeaseChange::Held(number, descriptor) => tx
                        .prepare_cached("UPDATE leases SET descriptor = ?2 WHERE number = ?1")?
                        .execute(params![number, descriptor])?,
                    LeaseChange::Over(number) => {
                        tx.prepare_cached("DELETE FROM leases WHERE number = ?1")?.execute(params![number])?
                    }
                };
            }
            Ok(())
        })
    }
}

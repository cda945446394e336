//! An inode as a row. What most inodes do not have is NULL; times are 12 bytes each, because two integers would take
//! up more.

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::port::{InodeRow, Local};
use hypernet_core::time::Timespec;
use hypernet_core::tree::FileKind;
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Row, params};

use super::{local_code, pending};

/// The columns of table `inodes` under the alias `i`, in the order that [`row`] reads them.
pub(super) const FIELDS: &str = "i.ino, i.id, i.kind, i.mode, i.uid, i.gid, i.rdev, i.nlink, i.size, i.parent, \
    i.linked, i.dirty, i.local, i.times, i.clean_size, i.clean_ctime, i.xattrs, i.symlink, i.remote, i.volume";
/// How many they are.
pub(super) const COUNT: usize = 20;

/// Changes all but the id of an inode that has this id; see [`Columns::run`] for the parameters.
pub(super) const UPDATE: &str = "UPDATE inodes SET kind = ?3, mode = ?4, uid = ?5, gid = ?6, rdev = ?7, nlink = ?8,
    size = ?9, parent = ?10, linked = ?11, dirty = ?12, local = ?13, times = ?14, clean_size = ?15, clean_ctime = ?16,
    xattrs = ?17, symlink = ?18, remote = ?19, pending = ?20, volume = ?21 WHERE ino = ?1 AND id = ?2";
/// Inserts or replaces an inode; the same parameters.
pub(super) const INSERT: &str = "INSERT OR REPLACE INTO inodes (ino, id, kind, mode, uid, gid, rdev, nlink, size,
    parent, linked, dirty, local, times, clean_size, clean_ctime, xattrs, symlink, remote, pending, volume)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";

const TIME_LEN: usize = 12;

/// An inode, ready to be bound to [`UPDATE`] or [`INSERT`].
pub(super) struct Columns<'a> {
    row: &'a InodeRow,
    times: [u8; 3 * TIME_LEN],
    clean: Option<(u64, [u8; TIME_LEN])>,
    xattrs: Option<Vec<u8>>,
    remote: Option<Vec<u8>>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(row: &'a InodeRow) -> Self {
        let mut times = [0; 3 * TIME_LEN];
        for (at, time) in times.chunks_exact_mut(TIME_LEN).zip([row.atime, row.mtime, row.ctime]) {
            at.copy_from_slice(&time_bytes(time));
        }
        let clean = match row.local {
            Local::Absent | Local::Complete => None,
            Local::Clean { size, ctime } => Some((size, time_bytes(ctime))),
        };
        // Encoding into a Vec cannot fail.
        let xattrs = (!row.xattrs.is_empty()).then(|| minicbor::to_vec(&row.xattrs).unwrap_or_default());
        let remote = row.remote.as_ref().map(|content| minicbor::to_vec(content).unwrap_or_default());
        Self { row, times, clean, xattrs, remote }
    }

    pub(super) fn run(&self, statement: &mut CachedStatement<'_>) -> rusqlite::Result<usize> {
        let row = self.row;
        statement.execute(params![
            row.ino as i64,
            row.id.as_bytes(),
            kind_code(row.kind),
            row.mode,
            row.uid,
            row.gid,
            row.rdev as i64,
            row.nlink,
            row.size as i64,
            row.parent as i64,
            row.linked,
            row.dirty,
            local_code(&row.local),
            self.times,
            self.clean.map(|(size, _)| size as i64),
            self.clean.map(|(_, ctime)| ctime),
            self.xattrs,
            (!row.symlink.is_empty()).then_some(&row.symlink),
            self.remote,
            pending(row),
            row.volume.as_ref().map(|volume| volume.as_bytes()),
        ])
    }
}

/// Reads [`FIELDS`].
pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<InodeRow> {
    let times: [u8; 3 * TIME_LEN] = row.get(13)?;
    let time = |at: usize| time_from(&times[at * TIME_LEN..(at + 1) * TIME_LEN]).ok_or_else(|| odd(13, "a time"));
    let local = match row.get::<_, u8>(12)? {
        0 => Local::Absent,
        1 => Local::Complete,
        2 => {
            let ctime: [u8; TIME_LEN] = row.get(15)?;
            let ctime = time_from(&ctime).ok_or_else(|| odd(15, "a time"))?;
            Local::Clean { size: row.get::<_, i64>(14)? as u64, ctime }
        }
        _ => return Err(odd(12, "a local state")),
    };
    let xattrs = match row.get_ref(16)?.as_blob_or_null()? {
        Some(bytes) => minicbor::decode(bytes).map_err(|_| odd(16, "extended attributes"))?,
        None => Vec::new(),
    };
    let remote = match row.get_ref(18)?.as_blob_or_null()? {
        Some(bytes) => Some(minicbor::decode(bytes).map_err(|_| odd(18, "a content"))?),
        None => None,
    };
    Ok(InodeRow {
        ino: row.get::<_, i64>(0)? as u64,
        id: FileId(row.get(1)?),
        kind: kind_from(row.get(2)?).ok_or_else(|| odd(2, "a kind"))?,
        mode: row.get(3)?,
        uid: row.get(4)?,
        gid: row.get(5)?,
        rdev: row.get::<_, i64>(6)? as u64,
        nlink: row.get(7)?,
        size: row.get::<_, i64>(8)? as u64,
        atime: time(0)?,
        mtime: time(1)?,
        ctime: time(2)?,
        xattrs,
        symlink: row.get::<_, Option<Vec<u8>>>(17)?.unwrap_or_default(),
        parent: row.get::<_, i64>(9)? as u64,
        linked: row.get(10)?,
        volume: row.get::<_, Option<_>>(19)?.map(VolumeId),
        dirty: row.get(11)?,
        remote,
        local,
    })
}

fn odd(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, format!("not {what}").into())
}

fn time_bytes(time: Timespec) -> [u8; TIME_LEN] {
    let mut bytes = [0; TIME_LEN];
    bytes[..8].copy_from_slice(&time.seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&time.nanos.to_be_bytes());
    bytes
}

fn time_from(bytes: &[u8]) -> Option<Timespec> {
    let (seconds, nanos) = bytes.split_first_chunk::<8>()?;
    Some(Timespec { seconds: i64::from_be_bytes(*seconds), nanos: u32::from_be_bytes(nanos.try_into().ok()?) })
}

fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharDevice => 5,
        FileKind::BlockDevice => 6,
    }
}

fn kind_from(code: u8) -> Option<FileKind> {
    Some(match code {
        0 => FileKind::Regular,
        1 => FileKind::Directory,
        2 => FileKind::Symlink,
        3 => FileKind::Fifo,
        4 => FileKind::Socket,
        5 => FileKind::CharDevice,
        6 => FileKind::BlockDevice,
        _ => return None,
    })
}

//! Why local storage failed, by what the person at the keyboard can do about it.
//!
//! Every message names the file, and every hint says what to do next; none of them loses anything by being shown.

use std::io;
use std::path::{Path, PathBuf};

use hypernet_core::port::{PortError, StoreFault};
use rusqlite::ErrorCode;
use thiserror::Error;

/// What to do when a database of this agent's own is gone.
pub const LOST: &str = "put it back from a copy, with its -wal; or keep this agent's directory, here OLD, and recover \
                        what was synced beside it: `HN_HOME=NEW hn recover --from OLD`; what was not \
                        is in OLD/tree/files, named by inode";

/// Local storage failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the directory.
    #[error("another hnd uses {}", .dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory or file cannot be written to.
    #[error("{} cannot be written to: {source}", .path.display())]
    ReadOnly {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No space is left.
    #[error("the disk is full: {}", .path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The database file is damaged.
    #[error("the database {} is corrupted: {detail}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
        /// What to do about this file.
        remedy: &'static str,
    },
    /// The database was written by a newer program.
    #[error("the database {} has format {found}, this program knows up to {known}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file was there, and a new one in its place would lose what is known by it alone.
    #[error(
        "{} is missing or empty, but {} shows that there was one; nothing was changed",
        .file.display(),
        .evidence.display()
    )]
    Missing {
        /// The missing file.
        file: PathBuf,
        /// What would not be there if it had never been.
        evidence: PathBuf,
        /// What to do about this file.
        remedy: &'static str,
    },
    /// A system call failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed in another way.
    #[error("the database {} failed: {detail}", .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
}

impl StoreError {
    /// What to do next, in one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "stop the other one (`hn down`) or use another HN_HOME",
            Self::ReadOnly { .. } => "make it writable for this user, or use another HN_HOME",
            Self::DiskFull { .. } => "free some space on this disk; nothing that was acknowledged is lost",
            Self::Corrupt { remedy, .. } | Self::Missing { remedy, .. } => remedy,
            Self::Newer { .. } => "update this program; an older one must not touch newer data",
            Self::Io { .. } | Self::Database { .. } => "check the disk and the system log (`dmesg`)",
        }
    }

    /// A system call on `path` failed.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.into() },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path: path.into(), source }
            }
            _ => Self::Io { path: path.into(), source },
        }
    }

    /// SQLite failed on `path`.
    pub(crate) fn sqlite(path: &Path, remedy: &'static str, error: &rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let detail = error.to_string();
        match error.sqlite_error_code() {
            // The shared index of the log cannot grow: SQLite does not call that a full disk, but that is what it is.
            _ if extended_code(error) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Self::DiskFull { path },
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => match unreadable(&path) {
                // What SQLite reads of a disk that has failed looks like anything to it.
                Some(source) => Self::io(&path, source),
                None => Self::Corrupt { path, detail, remedy },
            },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path, source: io::Error::other(detail) },
            // A value that does not convert is one that this program did not write.
            None if !matches!(error, rusqlite::Error::InvalidQuery | rusqlite::Error::InvalidParameterName(_)) => {
                Self::Corrupt { path, detail, remedy }
            }
            _ => Self::Database { path, detail },
        }
    }

    /// The error with its hint, in one line.
    fn with_hint(&self) -> String {
        format!("{self}; {}", self.hint())
    }
}

/// Why the disk does not give the beginning of a file.
fn unreadable(path: &Path) -> Option<io::Error> {
    match std::fs::File::open(path) {
        Ok(mut file) => io::Read::read(&mut file, &mut [0; 4096]).err(),
        Err(error) => Some(error).filter(|error| error.kind() != io::ErrorKind::NotFound),
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

impl From<StoreError> for PortError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::DiskFull { path } => Self::DiskFull(path.display().to_string()),
            StoreError::Corrupt { .. } | StoreError::Missing { .. } => Self::Damaged(error.with_hint()),
            StoreError::Locked { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Newer { .. }
            | StoreError::Io { .. }
            | StoreError::Database { .. } => Self::Disk(error.with_hint()),
        }
    }
}

impl From<StoreError> for StoreFault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull { .. } => Self::Full,
            other => Self::Disk(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_disk_does_not_give_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let named = |path: &Path| {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            StoreError::sqlite(path, "put it back", &rusqlite::Error::SqliteFailure(error, None))
        };
        let file = dir.path().join("file");
        std::fs::write(&file, "no database").unwrap();
        assert!(matches!(named(&file), StoreError::Corrupt { .. }), "{}", named(&file));
        // Reading a directory fails.
        assert!(matches!(named(dir.path()), StoreError::Io { .. }), "{}", named(dir.path()));
    }
}

//! Structured logs, in `hnd.log`. A storage peer runs for months, so the log is bounded: before the file grows too long
//! it becomes `hnd.log.old`, in place of the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::config::Home;
use crate::failure::{Failure, Kind};

/// The file is no longer than this, and neither is the old one.
const LOG_MAX: u64 = 32 << 20;

/// The log file, and how long it is.
struct Log {
    path: PathBuf,
    file: File,
    len: u64,
    max: u64,
}

impl Log {
    fn open(path: &Path, max: u64) -> io::Result<Self> {
        let file = append(path)?;
        // `hn` writes what hnd says before its log begins, so the file need not be new.
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, max })
    }

    /// Puts the file aside. Where that is not possible it is emptied: a log must not fill the disk.
    fn turn(&mut self) {
        let turned = fs::rename(&self.path, self.path.with_extension("log.old")).and_then(|()| append(&self.path));
        match turned {
            Ok(file) => self.file = file,
            Err(_) => {
                let _ = self.file.set_len(0);
            }
        }
        self.len = 0;
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for Log {
    /// One event comes as one call, so none is torn between two files.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len > 0 && self.len + bytes.len() as u64 > self.max {
            self.turn();
        }
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Logs to the file from here on. HN_LOG chooses what, as in `HN_LOG=debug` or `HN_LOG=hnd=trace`.
pub(crate) fn start(home: &Home) -> Result<(), Failure> {
    let path = home.path().join("hnd.log");
    let log = Log::open(&path, LOG_MAX).map_err(|error| {
        Failure::new(Kind::CantCreate, format!("cannot write the log {}: {error}", path.display()))
            .hint("set HN_HOME to a directory that you can write to")
    })?;
    let filter = EnvFilter::try_from_env("HN_LOG").unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn"));
    // A second start in one process only happens in tests; the first one keeps the log then.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(log)).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hnd.log");
        let mut log = Log::open(&path, 100).unwrap();
        for i in 0..50 {
            log.write_all(format!("this is event {i:04}\n").as_bytes()).unwrap();
        }
        let (now, old) =
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(dir.path().join("hnd.log.old")).unwrap());
        assert!(now.len() <= 100 && old.len() <= 100, "{} {}", now.len(), old.len());
        assert!(now.ends_with("this is event 0049\n"));
        let whole = |text: &str| text.lines().all(|line| line.len() == "this is event 0000".len());
        assert!(whole(&now) && whole(&old), "no event is torn");
        // A start goes on where the last run ended.
        let mut log = Log::open(&path, 100).unwrap();
        log.write_all(&[b'x'; 99]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("hnd.log.old")).unwrap(), now);
        assert_eq!(fs::metadata(&path).unwrap().len(), 99);
    }
}

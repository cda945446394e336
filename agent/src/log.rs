//! Structured logs, in `hnd.log`. A storage peer runs for months, so the log is bounded: before the file grows too long
//! it becomes `hnd.log.old`, in place of the one before.
//!
//! Invariant: logging never ends anything. What cannot be written, because the disk is full, is left out and counted,
//! and nothing is said of it on standard error: for an agent in the background that is the same file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
    /// Events that could not be written since the last one that could.
    left_out: u64,
}

impl Log {
    fn open(path: &Path, max: u64) -> io::Result<Self> {
        let file = append(path)?;
        // `hn` writes what hnd says before its log begins, so the file need not be new.
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len, max, left_out: 0 })
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

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Writes one event, or leaves it out.
    fn event(&mut self, bytes: &[u8]) {
        // Whole, so that none is torn between two files.
        if self.len > 0 && self.len + bytes.len() as u64 > self.max {
            self.turn();
        }
        if self.left_out > 0 {
            // The last of them may have come half way.
            let gap = format!("\n{} events could not be written here\n", self.left_out);
            if self.put(gap.as_bytes()).is_err() {
                self.left_out += 1;
                return;
            }
            self.left_out = 0;
        }
        if self.put(bytes).is_err() {
            self.left_out += 1;
        }
    }
}

/// The log, for all threads.
struct Shared(Mutex<Log>);

/// The log while one thread has it.
struct Event<'a>(MutexGuard<'a, Log>);

impl<'a> MakeWriter<'a> for Shared {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self.0.lock())
    }
}

impl Write for Event<'_> {
    /// One event comes as one call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.event(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Logs to the file from here on. HN_LOG chooses what, as in `HN_LOG=debug` or `HN_LOG=hnd=trace`.
pub(crate) fn start(home: &Home) -> Result<(), Failure> {
    let path = home.path().join("hnd.log");
    let log = Log::open(&path, LOG_MAX).map_err(|error| {
        Failure::new(Kind::CantCreate, format!("cannot write the log {}: {error}", path.display()))
            .hint("set HN_HOME to a directory that you can write to")
    })?;
    let filter =
        EnvFilter::try_from_env("HN_LOG").unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn,fuser::mnt=error"));
    // A second start in one process only happens in tests; the first one keeps the log then.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(Shared(Mutex::new(log)))
        .try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_a_full_disk_does_not_take_are_counted_and_nothing_else_happens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hnd.log");
        let mut log = Log::open(&path, 1 << 20).unwrap();
        log.event(b"before\n");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let room = std::mem::replace(&mut log.file, full);
        let shared = Shared(Mutex::new(log));
        for _ in 0..3 {
            shared.make_writer().write_all(b"during\n").unwrap();
        }
        shared.0.lock().file = room;
        shared.make_writer().write_all(b"after\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "before\n\n3 events could not be written here\nafter\n");
    }

    #[test]
    fn a_log_is_bounded_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hnd.log");
        let mut log = Log::open(&path, 100).unwrap();
        for i in 0..50 {
            log.event(format!("this is event {i:04}\n").as_bytes());
        }
        let (now, old) =
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(dir.path().join("hnd.log.old")).unwrap());
        assert!(now.len() <= 100 && old.len() <= 100, "{} {}", now.len(), old.len());
        assert!(now.ends_with("this is event 0049\n"));
        let whole = |text: &str| text.lines().all(|line| line.len() == "this is event 0000".len());
        assert!(whole(&now) && whole(&old), "no event is torn");
        // A start goes on where the last run ended.
        let mut log = Log::open(&path, 100).unwrap();
        log.event(&[b'x'; 99]);
        assert_eq!(fs::read_to_string(dir.path().join("hnd.log.old")).unwrap(), now);
        assert_eq!(fs::metadata(&path).unwrap().len(), 99);
    }
}

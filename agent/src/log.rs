//! Structured logs, in `hnd.log`. A storage peer runs for months, so the file is bounded: at start a large one becomes
//! `hnd.log.old`.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use tracing_subscriber::EnvFilter;

use crate::config::Home;
use crate::failure::{Failure, Kind};

/// A log longer than this is put aside at start.
const LOG_MAX: u64 = 32 << 20;

/// Logs to the file from here on. HN_LOG chooses what, as in `HN_LOG=debug` or `HN_LOG=hnd=trace`.
pub(crate) fn start(home: &Home) -> Result<(), Failure> {
    let path = home.path().join("hnd.log");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MAX) {
        let _ = fs::rename(&path, path.with_extension("log.old"));
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(|error| {
        Failure::new(Kind::CantCreate, format!("cannot write the log {}: {error}", path.display()))
            .hint("set HN_HOME to a directory that you can write to")
    })?;
    let filter = EnvFilter::try_from_env("HN_LOG").unwrap_or_else(|_| EnvFilter::new("info,libp2p=warn"));
    // A second start in one process only happens in tests; the first one keeps the log then.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(file).try_init();
    Ok(())
}

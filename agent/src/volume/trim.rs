//! Keeps the local copies of what the mesh has below the limit that was set for them.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::port::PortError;
use hypernet_core::tree::Content;
use hypernet_fs::panics;
use hypernet_fs::vfs::{Trimmed, Vfs, VfsError};
use parking_lot::Mutex;

use super::Volume;
use super::census::Census;

/// It looks up at least this often.
const LOOK_UP: Duration = Duration::from_secs(600);

/// When what is left must stay, because it is open or the mesh does not serve it, it is looked at again when more has
/// come, but not before this,
const PAUSE: Duration = Duration::from_secs(1);
/// and after this at the latest.
const RETRY: Duration = Duration::from_secs(30);

/// A thread of its own that trims the cache whenever it has grown over the limit.
pub(crate) struct Trimmer {
    vfs: Arc<Vfs>,
    pub(crate) limit: u64,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Trimmer {
    pub(crate) fn start(volume: Arc<Volume>, vfs: Arc<Vfs>, limit: u64) -> std::io::Result<Self> {
        let worker = vfs.clone();
        let thread = std::thread::Builder::new().name("hn-trim".into()).spawn(move || work(&volume, &worker, limit))?;
        Ok(Self { vfs, limit, thread: Mutex::new(Some(thread)) })
    }

    /// Returns when the thread has ended.
    pub(crate) fn stop(&self) {
        self.vfs.stop_waiting_cached();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that trims the cache panicked");
        }
    }
}

fn work(volume: &Volume, vfs: &Vfs, limit: u64) {
    loop {
        let trimmed = panics::caught(|| trim(volume, vfs, limit));
        // What is left when that is more than may be.
        let excess = match trimmed {
            Ok(Ok(trimmed)) => {
                if trimmed.after < trimmed.before {
                    let Trimmed { before, after, kept_files } = trimmed;
                    tracing::info!(before, after, kept_files, limit, "local copies were evicted");
                }
                (trimmed.after > limit).then_some(trimmed.after)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "local copies could not be evicted; it is tried again");
                Some(u64::MAX)
            }
            Err(text) => {
                tracing::error!(text, "evicting local copies panicked; it is tried again");
                Some(u64::MAX)
            }
        };
        let go_on = match excess {
            None => vfs.wait_cached(limit, LOOK_UP),
            Some(left) => vfs.rest_cached(PAUSE) && vfs.wait_cached(left, RETRY),
        };
        if !go_on {
            return;
        }
    }
}

fn trim(volume: &Volume, vfs: &Vfs, limit: u64) -> Result<Trimmed, VfsError> {
    // Made when it is first needed: it asks who is there.
    let mut census: Option<Result<Census, PortError>> = None;
    let mut served = |contents: &[&Content]| {
        if vfs.is_closing() {
            return vec![false; contents.len()];
        }
        match census.get_or_insert_with(|| Census::new(volume)) {
            Ok(census) => volume.served(contents, census),
            Err(error) => {
                tracing::debug!(%error, "nobody says what the mesh serves");
                vec![false; contents.len()]
            }
        }
    };
    vfs.trim_cache(limit, &mut served)
}

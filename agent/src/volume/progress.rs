//! How far a sync has come, for whoever watches. Numbers only grow within one sync; watchers are woken, not polled.

use tokio::sync::watch;

/// What the upload is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// Reading, sealing and placing.
    Uploading,
    /// Bringing the trees of several devices together.
    Merging,
    /// Placing the catalog.
    Catalog,
    /// Publishing the head.
    Publishing,
    /// Cannot go on for now, and why.
    Waiting(String),
    /// Held back by the user.
    Held,
    /// Never goes on, and why.
    Stopped(String),
}

/// One moment of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) files_total: u64,
    pub(crate) files_done: u64,
    pub(crate) bytes_total: u64,
    /// Bytes read and sealed.
    pub(crate) bytes_sealed: u64,
    /// Sealed bytes that are not yet acknowledged by their holders.
    pub(crate) bytes_placing: u64,
    /// Shards that are acknowledged.
    pub(crate) segments_placed: u64,
    /// Counts syncs that ended well.
    pub(crate) completed: u64,
    /// Counts syncs that failed, with the newest reason.
    pub(crate) failed: u64,
    pub(crate) error: Option<String>,
}

/// Shared by the sync engine and its watchers.
#[derive(Clone)]
pub(crate) struct Meter(watch::Sender<Progress>);

impl Meter {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    pub(crate) fn now(&self) -> Progress {
        self.0.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }
}

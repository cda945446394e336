//! A volume that holds still while a snapshot of it is read.
//!
//! A snapshot is to be a state that a loss of power could have left. Its names are of one moment; contents are read after that, from
//! files that somebody may be writing to. So until they are read nobody is told that something else is on stable storage, and no
//! name changes: what is written to a file meanwhile cannot rely on anything that the snapshot lacks. Writers do not wait. Nobody
//! waits for longer than whoever reads has said, and that may then have read what is newer.

use std::time::{Duration, Instant, SystemTime};

use hypernet_core::id::VolumeId;

use super::state::{Need, State, Step};
use super::sync::Cut;
use super::{Result, Vfs};

impl State {
    /// Whether something may change, or be told to be on stable storage, in the volume that an inode is in.
    pub(super) fn moves(&self, ino: u64) -> Step<()> {
        // What has no name is in no volume.
        if self.paused.is_empty() || self.node(ino)?.nlink == 0 {
            return Ok(());
        }
        match self.paused.get(&self.root_of(ino)?) {
            Some(until) if Instant::now() < *until => Err(Need::Paused(*until)),
            _ => Ok(()),
        }
    }
}

/// While this is there a volume holds still, but not for longer than was said.
#[derive(Debug)]
pub struct Paused<'a> {
    vfs: &'a Vfs,
    root: u64,
    until: Instant,
    until_wall: SystemTime,
}

impl Paused<'_> {
    /// Since when it holds still no more.
    pub fn ended(&self) -> Option<SystemTime> {
        (Instant::now() >= self.until).then_some(self.until_wall)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.vfs.state.lock().paused.remove(&self.root);
        self.vfs.stilled.notify_all();
    }
}

impl Vfs {
    /// As [`Self::cut`]; the volume holds still from that moment, for as long as it takes to read what is in the cut, and at most
    /// for this time.
    pub fn cut_paused(&self, volume: VolumeId, within: Duration) -> Result<(Cut, Paused<'_>)> {
        let (until, until_wall) = (Instant::now() + within, SystemTime::now() + within);
        let cut = self.cut_and(volume, |state, root| {
            state.paused.insert(root, until);
        })?;
        let root = cut.root;
        Ok((cut, Paused { vfs: self, root, until, until_wall }))
    }

    /// Waits until a volume does not hold still any more.
    pub(super) fn wait_moving(&self, until: Instant) {
        let mut state = self.state.lock();
        state.stopped += 1;
        // Whoever it is of: it is looked again then.
        self.stilled.wait_until(&mut state, until);
        state.stopped -= 1;
    }

    /// How many wait for that.
    #[cfg(test)]
    pub(super) fn stopped(&self) -> usize {
        self.state.lock().stopped
    }
}

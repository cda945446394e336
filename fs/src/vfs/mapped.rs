//! Mappings that outlive their handles.
//!
//! In passthrough a shared mapping is one of the backing file: it stays when the handle is closed, the mount hears of
//! the close only, and what is stored into it later changes the file without a word. So a handle through which a file
//! can have been mapped for writing counts as open until nobody holds the backing file for writing any more, which the
//! kernel tells by granting a read lease on it. The same goes for what outlives an agent that was killed: handles that
//! the kernel reads and writes through, and mappings.

use hypernet_core::port::Durability;

use super::file::OpenFlags;
use super::{Result, Vfs, VfsError};

impl Vfs {
    /// Closes a handle of which the kernel had the backing file.
    pub fn release_passed_through(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        if !flags.can_map_for_writing() {
            return self.release(ino, flags);
        }
        self.run(|state| {
            if state.node(ino)?.writers() == 0 {
                return Err(VfsError::BadHandle.into());
            }
            self.refresh(state, ino)?;
            *state.lingering.entry(ino).or_default() += 1;
            Ok(())
        })?;
        self.tell_stale();
        self.signal.arm();
        Ok(())
    }

    /// Closes those of them whose files nobody holds any more. One at a time: what two have counted is there once, and by
    /// the time that the second one closes it, it may be the handle of somebody who came since.
    pub(super) fn let_go(&self) -> Result<()> {
        let _one = self.letting_go.lock();
        let lingering: Vec<(u64, u32)> = {
            let state = self.state.lock();
            // While a handle is really open the file is held.
            let alone = |ino: &u64, count: u32| state.nodes.get(ino).is_some_and(|node| node.handles() == count);
            state
                .lingering
                .iter()
                .map(|(ino, count)| (*ino, *count))
                .filter(|(ino, count)| alone(ino, *count))
                .collect()
        };
        for (ino, count) in lingering {
            if self.backing.is_held(ino)? {
                continue;
            }
            {
                // Others may have come since; theirs is another look.
                let mut state = self.state.lock();
                match state.lingering.get_mut(&ino) {
                    Some(left) if *left > count => *left -= count,
                    _ => _ = state.lingering.remove(&ino),
                }
            }
            for _ in 0..count {
                self.release(ino, OpenFlags(libc::O_RDWR))?;
            }
        }
        Ok(())
    }

    /// After an unclean stop: counts whoever still holds one of the files that were dirty then as a writer that has closed
    /// its handle. A file is marked before its first writer has it, so these are all. Nobody uses the files here yet.
    pub(super) fn count_survivors_in(&self, dirty: &[u64]) -> Result<()> {
        let mut found = 0u64;
        for ino in dirty {
            if self.backing.is_held(*ino)? {
                match self.open_writer(*ino, false, Durability::Process) {
                    // It hangs in the air, which has been said.
                    Err(VfsError::NotFound) => continue,
                    opened => opened?,
                }
                *self.state.lock().lingering.entry(*ino).or_default() += 1;
                found += 1;
            }
        }
        if found > 0 {
            tracing::info!(found, "programs still write to files that they opened before the last stop");
        }
        Ok(())
    }

    /// Closes all handles: whoever had them is gone. What is still held by a program, which passes us by, is not closed.
    pub(super) fn close_all(&self) {
        let _one = self.letting_go.lock();
        let open: Vec<(u64, u32, u32)> = {
            let state = self.state.lock();
            let open = state.nodes.iter().filter(|(_, node)| node.handles() > 0);
            open.map(|(ino, node)| (*ino, node.handles(), node.writers())).collect()
        };
        let tells = !open.is_empty() && self.tells_holders();
        for (ino, mut handles, mut writers) in open {
            let held = tells && writers > 0 && self.backing.is_held(ino).unwrap_or(true);
            {
                let mut state = self.state.lock();
                if held {
                    state.lingering.insert(ino, 1);
                    (handles, writers) = (handles - 1, writers - 1);
                } else {
                    state.lingering.remove(&ino);
                }
            }
            for n in 0..handles {
                let flags = OpenFlags(if n < writers { libc::O_RDWR } else { libc::O_RDONLY });
                if let Err(error) = self.release(ino, flags) {
                    tracing::debug!(ino, %error, "a file was closed already");
                }
            }
        }
    }

    /// Whether the disk's filesystem can tell that nobody holds a file. Without that there can be no passthrough.
    pub fn tells_holders(&self) -> bool {
        self.backing.tells_holders()
    }
}

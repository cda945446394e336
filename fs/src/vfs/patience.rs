//! What the current thread may wait for.
//!
//! Two threads serve the kernel. If both waited for a peer, `ls` and `df` would hang with them; so on such a thread
//! every wait is refused with [`VfsError::WouldBlock`] before anything has changed, and the request is repeated on
//! a thread that may. Which one that is depends on what the wait is for: peers that do not answer hold up those who
//! want something from them, and nobody else.

use std::cell::Cell;

use super::VfsError;

/// What a request waits for, the shorter wait first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// The local disk, to have something on stable storage.
    Disk,
    /// Peers.
    Mesh,
}

thread_local! {
    /// The shortest wait that is refused here.
    static REFUSED: Cell<Option<Wait>> = const { Cell::new(None) };
}

fn refusing<T>(wait: Wait, op: impl FnOnce() -> T) -> T {
    struct Reset(Option<Wait>);
    impl Drop for Reset {
        fn drop(&mut self) {
            REFUSED.set(self.0);
        }
    }
    let _reset = Reset(REFUSED.replace(Some(wait)));
    op()
}

/// Runs `op` on a thread that must not wait.
pub fn never<T>(op: impl FnOnce() -> T) -> T {
    refusing(Wait::Disk, op)
}

/// Runs `op` on a thread that may wait for the disk, but not for the mesh.
pub fn for_disk<T>(op: impl FnOnce() -> T) -> T {
    refusing(Wait::Mesh, op)
}

/// Called before every wait.
pub(crate) fn check(wait: Wait) -> Result<(), VfsError> {
    match REFUSED.get() {
        Some(refused) if wait >= refused => Err(VfsError::WouldBlock(wait)),
        _ => Ok(()),
    }
}

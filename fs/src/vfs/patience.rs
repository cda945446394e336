//! Whether the current thread may wait for the network or for a slow disk.
//!
//! Two threads serve the kernel. If both waited for a peer, `ls` and `df` would hang with them; so on such a thread
//! every wait is refused with [`VfsError::WouldBlock`] before anything has changed, and the request is repeated on
//! a thread that may wait.

use std::cell::Cell;

use super::VfsError;

thread_local! {
    static IMPATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `op` on a thread that must not wait.
pub fn never<T>(op: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IMPATIENT.set(self.0);
        }
    }
    let _reset = Reset(IMPATIENT.replace(true));
    op()
}

/// Called before every wait.
pub(super) fn check() -> Result<(), VfsError> {
    if IMPATIENT.get() { Err(VfsError::WouldBlock) } else { Ok(()) }
}

//! A thread that has answered looks out for the next request for a moment before it goes to sleep.
//!
//! Whoever made the last call mostly makes another at once. To wake a thread on another core costs tens of microseconds,
//! many times what a call itself does (measured: docs/design/0007-lingering.md).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long: about what falling asleep and waking up cost together.
const MOMENT: Duration = Duration::from_micros(50);

#[derive(Debug, Default)]
pub(super) struct Linger {
    device: OnceLock<OwnedFd>,
    /// A thread does it now; one is enough.
    taken: AtomicBool,
}

impl Linger {
    /// `device` is where requests come from. With one core nobody could make one meanwhile.
    pub(super) fn begin(&self, device: impl AsFd) {
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
            && let Ok(device) = device.as_fd().try_clone_to_owned()
        {
            let _ = self.device.set(device);
        }
    }

    /// Returns when there is a request, or a moment has passed.
    pub(super) fn rest(&self) {
        let Some(device) = self.device.get() else { return };
        if self.taken.swap(true, Ordering::Acquire) {
            return;
        }
        let until = Instant::now() + MOMENT;
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while matches!(poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&now)), Ok(0)) && Instant::now() < until {
            std::hint::spin_loop();
        }
        self.taken.store(false, Ordering::Release);
    }
}

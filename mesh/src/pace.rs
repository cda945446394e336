//! So many bytes a second, in each direction.
//!
//! A body has its turn as a whole: when the bytes before it have had the time that they may take. So nothing that is
//! under way is slowed down until its deadline passes: what has to wait has not begun yet, and its deadline counts
//! from its turn.
//!
//! Invariant: over any time `t` at most `rate * (t + BURST)` bytes and one body have a turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What was not used for so long may be used at once.
const BURST: Duration = Duration::from_secs(1);

/// The bytes of one direction.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; no limit when there is none.
    rate: Option<u64>,
    /// When all that has had its turn is through, at that rate.
    free: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), free: now }
    }

    /// How long a body would have to wait for its turn.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        match self.rate {
            Some(_) => self.free.saturating_duration_since(now + BURST),
            None => Duration::ZERO,
        }
    }

    /// Its turn, after [`Self::wait`].
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let wait = self.wait(now);
        if let Some(rate) = self.rate {
            let time = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate);
            self.free = self.free.max(now) + time;
        }
        wait
    }
}

/// One that the streams share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Pace>>);

impl Shared {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(Pace::new(rate, Instant::now()))))
    }

    /// See [`Pace::take`].
    pub(crate) fn take(&self, bytes: usize) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now())
    }

    /// The same, unless it would have to wait for longer than that.
    pub(crate) fn take_within(&self, bytes: usize, longest: Duration) -> Option<Duration> {
        let now = Instant::now();
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (pace.wait(now) <= longest).then(|| pace.take(bytes, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_turns_one_after_the_other() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(Some(1_000), start);
        assert_eq!(pace.take(500, start), Duration::ZERO);
        assert_eq!(pace.take(2_000, start), Duration::ZERO, "a body larger than a second's bytes has its turn, too");
        assert_eq!(pace.wait(start), second * 3 / 2);
        assert_eq!(pace.take(1_000, start), second * 3 / 2);
        assert_eq!(pace.take(1_000, start + second), second * 3 / 2);
        // What nobody used long ago is not saved up.
        let later = start + 100 * second;
        assert_eq!(pace.take(1_000, later), Duration::ZERO);
        assert_eq!(pace.take(1_000, later), Duration::ZERO);
        assert_eq!(pace.take(1_000, later), second);
    }

    #[test]
    fn as_many_bytes_as_a_second_has_go_in_a_second_over_a_long_time() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(1 << 20), start);
        let (mut now, mut bytes) = (start, 0_u64);
        while now < start + Duration::from_secs(60) {
            now += pace.take(300_000, now);
            bytes += 300_000;
        }
        assert!((60 << 20..=61 * (1 << 20) + 600_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(None, now);
        assert_eq!((0..1_000).map(|_| pace.take(usize::MAX >> 12, now)).max(), Some(Duration::ZERO));
        let shared = Shared::new(Some(1));
        assert_eq!(shared.take_within(100, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(shared.take_within(100, Duration::from_secs(9)), None);
        assert!(shared.take(1) > Duration::from_secs(9));
    }
}

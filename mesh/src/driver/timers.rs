//! What happens later, as data: one queue, one sleep, no polling.

use super::{BTreeMap, ConnectionId, Instant, P2p};

/// What a timer is for.
#[derive(Debug, PartialEq)]
pub(super) enum Timer {
    /// A send runs out of time.
    Deadline(u64),
    /// A lost bootstrap peer is dialed again.
    Redial(usize),
    /// A blocked peer may come back.
    Unblock(P2p),
    /// Our neighbourhood is looked up again.
    Refresh,
    /// A send has its turn.
    Paced(u64),
    /// An answer has its turn.
    PacedReply(u64),
    /// A trial has had its time.
    Hangup(P2p, ConnectionId),
    /// Hole punching has had its time: what waited for it goes over the relay.
    Punch(P2p),
    /// Relays are looked for again.
    Relays,
    /// The network has changed again, just after it did.
    Renew,
    /// A peer that was lost with an old address is dialed again.
    Again(P2p),
    /// The clocks are compared again.
    Clocks,
    /// A query has heard from whoever is there; the rest is not waited for.
    Enough(libp2p::kad::QueryId),
}

/// Names a timer until it fires. Timers of one instant fire in the order in which they were set.
pub(super) type Key = (Instant, u64);

#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeMap<Key, Timer>,
    count: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) -> Key {
        self.count += 1;
        let key = (at, self.count);
        self.queue.insert(key, timer);
        key
    }

    pub(super) fn cancel(&mut self, key: Key) {
        self.queue.remove(&key);
    }

    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, timer)| timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn they_fire_in_order_and_cancelled_ones_do_not() {
        let (start, step) = (Instant::now(), Duration::from_secs(1));
        let mut timers = Timers::default();
        timers.set(start + 2 * step, Timer::Redial(2));
        timers.set(start + step, Timer::Redial(1));
        let cancelled = timers.set(start + step, Timer::Refresh);
        timers.set(start + step, Timer::Deadline(1));
        timers.cancel(cancelled);
        assert_eq!(timers.next(), Some(start + step));
        assert_eq!(timers.due(start), None);
        assert_eq!(timers.due(start + step), Some(Timer::Redial(1)));
        assert_eq!(timers.due(start + step), Some(Timer::Deadline(1)));
        assert_eq!(timers.due(start + step), None);
        assert_eq!(timers.due(start + 3 * step), Some(Timer::Redial(2)));
        assert_eq!(timers.next(), None);
    }
}

//! How often this device publishes heads: seldom enough that no keeper ever has a reason to refuse one, and blocks the
//! device for a flooder.

use std::time::{Duration, Instant};

use hypernet_core::limits::{HEADS_BURST, HEADS_HOUR};

/// From one head to the next, when there were many.
const EVERY: Duration = Duration::from_millis(3_600_000 / HEADS_HOUR as u64);

/// [`HEADS_BURST`] at once, and one more after each [`EVERY`].
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that were published would have been, one at a time.
    due: Option<Instant>,
}

impl Pace {
    /// How long the next head has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let ahead = self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        (ahead + EVERY).saturating_sub(EVERY * HEADS_BURST)
    }

    /// A head was published, or may have been.
    pub(super) fn published(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + EVERY);
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::codec;
    use hypernet_core::id::PeerId;
    use hypernet_core::limits::{HEADS_BURSTS, RECORD_CHANGES_HOUR};
    use hypernet_core::node::{Effect, InboundId, Input, Node, NodeConfig, Now};
    use hypernet_core::port::StoreReply;
    use hypernet_core::quota::{Quota, Used};
    use hypernet_core::record::Record;
    use hypernet_core::time::UnixSeconds;
    use hypernet_core::wire::{Request, Response};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// When heads are published by who publishes as often as it may, and takes no time for one.
    fn eager(hours: u32, starts: impl Fn(Duration) -> bool) -> Vec<Duration> {
        let began = Instant::now();
        let (mut pace, mut time, mut times) = (Pace::default(), Duration::ZERO, Vec::new());
        while time < HOUR * hours {
            if starts(time) {
                pace = Pace::default();
            }
            time += pace.wait(began + time);
            pace.published(began + time);
            times.push(time);
        }
        times
    }

    #[test]
    fn many_at_once_wait_for_nothing_and_more_for_their_turn() {
        let times = eager(1, |_| false);
        assert!(times[..HEADS_BURST as usize].iter().all(Duration::is_zero));
        assert!(times[HEADS_BURST as usize..].windows(2).all(|two| two[1] - two[0] == EVERY));
        // What was not used up comes back.
        let began = Instant::now();
        let mut pace = Pace::default();
        (0..HEADS_BURST).for_each(|_| pace.published(began));
        assert_eq!(pace.wait(began), EVERY);
        assert_eq!(pace.wait(began + EVERY), Duration::ZERO);
    }

    #[test]
    fn no_keeper_refuses_a_head_of_an_eager_device_that_starts_again_and_again() {
        let starts = Duration::from_secs(1_200);
        assert!(HOUR / HEADS_BURSTS <= starts);
        let last = std::cell::Cell::new(Duration::ZERO);
        let times = eager(2, |time| {
            time.saturating_sub(last.get()) >= starts && {
                last.set(time);
                true
            }
        });
        let most = times.iter().map(|from| times.iter().filter(|time| (*from..*from + HOUR).contains(*time)).count());
        assert!(most.max().unwrap() as u32 <= RECORD_CHANGES_HOUR);

        let key = hypernet_format::values::device().signing_key();
        let mut keeper =
            Node::new(NodeConfig::new(PeerId([1; 32]), hypernet_mesh::distance, Quota::default(), Used::default()));
        for (sequence, time) in (1..).zip(times) {
            let now = Now {
                mono: hypernet_core::time::Instant(1 + time.as_millis() as u64),
                unix: UnixSeconds(1_800_000_000),
            };
            let bytes = codec::encode(&Record::sign(&key, sequence, b"a head".to_vec()).unwrap()).into();
            let (peer, inbound) = (PeerId([2; 32]), InboundId(sequence));
            let effects = keeper.step(now, Input::Request { peer, inbound, request: Request::Record { bytes } });
            let store = effects.iter().find_map(|effect| match effect {
                Effect::Store { id, .. } => Some(*id),
                _ => None,
            });
            let stored =
                Input::Stored { id: store.expect("it is kept"), reply: StoreReply::Done { used: Used::default() } };
            let effects = keeper.step(now, stored);
            assert!(matches!(effects[..], [Effect::Reply { response: Response::Ok, .. }]), "{effects:?}");
        }
        assert_eq!(keeper.peers().iter().map(|view| view.faults).sum::<u32>(), 0);
    }
}

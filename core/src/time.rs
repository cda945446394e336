//! Time as data: wall-clock instants come in as arguments, never from a clock in here.

use minicbor::{Decode, Encode};

/// Milliseconds of a monotonic clock, as the loop that drives a node counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// This instant plus `millis`.
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this, or 0.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Seconds since 1970, for leases and heads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UnixSeconds(#[n(0)] pub u64);

impl UnixSeconds {
    /// Seconds of a day, which has no leap seconds here.
    pub const DAY: u64 = 86_400;

    /// The first midnight (UTC) that is not before this; the last one that there is when there is none.
    pub fn end_of_day(self) -> Self {
        Self(self.0.checked_next_multiple_of(Self::DAY).unwrap_or(self.0 / Self::DAY * Self::DAY))
    }
}

/// A file time: seconds (before 1970 negative) and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Timespec {
    /// Seconds since 1970.
    #[n(0)]
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    #[n(1)]
    pub nanos: u32,
}

/// A hybrid logical clock reading: milliseconds since 1970, then a counter for what happens within one.
///
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Hlc {
    /// Milliseconds since 1970.
    #[n(0)]
    pub millis: u64,
    /// Orders readings of the same millisecond.
    #[n(1)]
    pub counter: u32,
}

impl Hlc {
    /// The next reading at wall-clock time `millis`: later than this one even when the clock went back.
    pub fn next(self, millis: u64) -> Self {
        if millis > self.millis {
            Self { millis, counter: 0 }
        } else {
            Self { millis: self.millis, counter: self.counter.saturating_add(1) }
        }
    }

    /// The next reading after also having seen `other`.
    pub fn merge(self, other: Self, millis: u64) -> Self {
        self.max(other).next(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_and_at_the_end_of_time() {
        let end = |seconds| UnixSeconds(seconds).end_of_day().0;
        assert_eq!([end(0), end(1), end(86_400), end(86_401)], [0, 86_400, 86_400, 172_800]);
        assert_eq!((end(u64::MAX) % UnixSeconds::DAY, u64::MAX - end(u64::MAX) < UnixSeconds::DAY), (0, true));
    }

    #[test]
    fn the_clock_never_goes_back() {
        let now = Hlc { millis: 100, counter: 0 };
        assert!(now.next(50) > now);
        assert_eq!(now.next(101), Hlc { millis: 101, counter: 0 });
        let ahead = Hlc { millis: 500, counter: 3 };
        assert!(now.merge(ahead, 120) > ahead);
    }
}

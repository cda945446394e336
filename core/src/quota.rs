//! Whose shards a donor keeps, and how much of what it gives each of them may take up.
//!
//! A donor serves peers that it knows first, then those that store for it, then newcomers within a share. The first may
//! take all that it gives; the second as much, but no more than a factor of what they store for it (which the
//! [node](crate::node) sees to); all newcomers together no more than [`Quota::newcomers`]. Nobody is put out again for
//! somebody else: what was acknowledged stays for as long as somebody has a lease of it. So the share of newcomers is what
//! keeps room for the others, and strangers who are many, or one under many names, fill that and nothing else.
//!
//! Invariant: of a shard nothing else is kept but which of the three it was taken in for, never for whom.

/// For whom a donor keeps a shard; the first is served before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depositor {
    /// A device of the same person, or of somebody whom they know.
    Known,
    /// A peer that stores for this one.
    Reciprocal,
    /// Anybody else.
    Newcomer,
}

impl Depositor {
    /// All of them, in that order.
    pub const ALL: [Self; 3] = [Self::Known, Self::Reciprocal, Self::Newcomer];

    /// The number by which a store writes it down.
    pub fn number(self) -> u8 {
        match self {
            Self::Known => 0,
            Self::Reciprocal => 1,
            Self::Newcomer => 2,
        }
    }

    /// Reads [`Self::number`]; none of any other.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|depositor| depositor.number() == number)
    }
}

/// Bytes that are kept for others, by whom they are kept for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// For [`Depositor::Known`].
    pub known: u64,
    /// For [`Depositor::Reciprocal`].
    pub reciprocal: u64,
    /// For [`Depositor::Newcomer`].
    pub newcomers: u64,
}

impl Used {
    /// So many bytes for one of them.
    pub fn by(depositor: Depositor, bytes: u64) -> Self {
        let mut used = Self::default();
        used.add(depositor, bytes);
        used
    }

    /// For all of them.
    pub fn total(&self) -> u64 {
        self.known.saturating_add(self.reciprocal).saturating_add(self.newcomers)
    }

    /// For one of them.
    pub fn of(&self, depositor: Depositor) -> u64 {
        match depositor {
            Depositor::Known => self.known,
            Depositor::Reciprocal => self.reciprocal,
            Depositor::Newcomer => self.newcomers,
        }
    }

    fn of_mut(&mut self, depositor: Depositor) -> &mut u64 {
        match depositor {
            Depositor::Known => &mut self.known,
            Depositor::Reciprocal => &mut self.reciprocal,
            Depositor::Newcomer => &mut self.newcomers,
        }
    }

    /// So many more.
    pub fn add(&mut self, depositor: Depositor, bytes: u64) {
        let of = self.of_mut(depositor);
        *of = of.saturating_add(bytes);
    }

    /// So many fewer.
    pub fn remove(&mut self, depositor: Depositor, bytes: u64) {
        let of = self.of_mut(depositor);
        *of = of.saturating_sub(bytes);
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        Depositor::ALL.into_iter().for_each(|depositor| self.add(depositor, other.of(depositor)));
        self
    }
}

/// The share of newcomers where nothing else is said, in percent.
pub const NEWCOMERS_PERCENT: u8 = 10;

/// What a donor gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes, in all.
    pub bytes: u64,
    /// Of these so many for all newcomers together.
    pub newcomers: u64,
}

impl Quota {
    /// So many bytes, of which newcomers have this share at most; a share above 100 % is all.
    pub fn new(bytes: u64, newcomers_percent: u8) -> Self {
        let newcomers = u128::from(bytes) * u128::from(newcomers_percent.min(100)) / 100;
        Self { bytes, newcomers: u64::try_from(newcomers).unwrap_or(bytes) }
    }

    /// So many bytes, all of them for whoever comes.
    pub fn for_all(bytes: u64) -> Self {
        Self { bytes, newcomers: bytes }
    }

    /// Bytes that are left for one of them where so much is used.
    pub fn room(&self, used: &Used, depositor: Depositor) -> u64 {
        let left = self.bytes.saturating_sub(used.total());
        match depositor {
            Depositor::Known | Depositor::Reciprocal => left,
            Depositor::Newcomer => left.min(self.newcomers.saturating_sub(used.newcomers)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_is_one_of_the_whole() {
        assert_eq!(Quota::new(1_000, 10), Quota { bytes: 1_000, newcomers: 100 });
        assert_eq!(Quota::new(u64::MAX, 100), Quota::for_all(u64::MAX));
        assert_eq!(Quota::new(7, 255), Quota::for_all(7));
        assert_eq!(Quota::new(99, 0), Quota { bytes: 99, newcomers: 0 });
        assert!(Depositor::ALL.iter().all(|one| Depositor::from_number(one.number()) == Some(*one)));
        assert_eq!(Depositor::from_number(3), None);
    }

    proptest! {
        /// Whoever comes in whatever order: nobody takes more than there is, newcomers no more than their share, and
        /// others are never without room that newcomers would have.
        #[test]
        fn nobody_takes_more_than_there_is(
            (bytes, percent) in (0u64..1_000, 0u8..=110),
            puts in prop::collection::vec((0u8..3, 0u64..300), 0..60),
        ) {
            let quota = Quota::new(bytes, percent);
            let mut used = Used::default();
            for (number, len) in puts {
                let depositor = Depositor::from_number(number).unwrap();
                prop_assert!(quota.room(&used, Depositor::Newcomer) <= quota.room(&used, Depositor::Known));
                if len <= quota.room(&used, depositor) {
                    used.add(depositor, len);
                }
                prop_assert!(used.total() <= quota.bytes && used.newcomers <= quota.newcomers);
            }
        }
    }
}

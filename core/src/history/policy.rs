//! Which snapshots are kept when there are many: the last few, and then one an hour, a day, a week, a month and a year, for as
//! many of these as are asked for. As restic's `forget` has it: of each stretch of time the last snapshot in it stays.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use super::{History, Moment};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// How many are kept of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Policy {
    /// The last ones, whenever they were taken.
    #[n(0)]
    pub last: u32,
    /// The last ones of as many hours in which there are some.
    #[n(1)]
    pub hourly: u32,
    /// Days.
    #[n(2)]
    pub daily: u32,
    /// Weeks, which begin on Mondays.
    #[n(3)]
    pub weekly: u32,
    /// Months.
    #[n(4)]
    pub monthly: u32,
    /// Years.
    #[n(5)]
    pub yearly: u32,
}

impl Policy {
    /// Whether it keeps nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The date of a moment in UTC: year, month and day (Howard Hinnant, "chrono-compatible low-level date algorithms", 2013).
pub fn civil(millis: u64) -> (u64, u64, u64) {
    let days = millis / DAY + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// In which stretch of each kind a moment is.
fn stretches(moment: &Moment) -> [u64; 6] {
    let millis = moment.time.millis;
    let (year, month, _) = civil(millis);
    // The first of January 1970 was a Thursday.
    let week = (millis / DAY + 3) / 7;
    [0, millis / HOUR, millis / DAY, week, year * 12 + month, year]
}

/// Those of a history that a policy does not keep, of those that may go.
pub fn superfluous(history: &History, policy: &Policy, may_go: impl Fn(&Moment) -> bool) -> BTreeSet<Moment> {
    let candidates: Vec<Moment> = history.kept.keys().copied().filter(&may_go).collect();
    let wanted = [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
    let mut stay: BTreeSet<Moment> = BTreeSet::new();
    for (kind, wanted) in wanted.into_iter().enumerate() {
        let (mut before, mut left) = (None, wanted);
        for moment in candidates.iter().rev() {
            let stretch = Some(stretches(moment)[kind]);
            if left == 0 {
                break;
            }
            // Each of the last ones is one by itself.
            if kind == 0 || stretch != before {
                stay.insert(*moment);
                left -= 1;
            }
            before = stretch;
        }
    }
    candidates.into_iter().filter(|moment| !stay.contains(moment)).collect()
}

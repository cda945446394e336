//! Which snapshots are kept when there are many: the last few, and then one an hour, a day, a week, a month and a year, for as
//! many of these as are asked for. As restic's `forget` has it: of each stretch of time the last snapshot in it stays.
//!
//! The policy of a volume is an extended attribute of its root: by it snapshots are also taken, one in each of the shortest
//! stretches that it names. All devices decide by the history that they have in common, so that one is enough for all of them;
//! where two have taken one apart from each other, the earlier goes.
//!
//! Invariant: nothing that a person has asked for or given a name goes by itself, nor what a command took before it changed
//! something, nor the newest one that a policy has taken: so the same stretch is never taken for one without.

use std::collections::BTreeSet;
use std::fmt;

use minicbor::{Decode, Encode};
use thiserror::Error;

use super::{By, History, Moment};
use crate::limits::{POLICY_KEPT_MAX, POLICY_TEXT_MAX};
use crate::time::Hlc;

/// The extended attribute of a volume's root that holds its policy, in words.
pub const XATTR: &[u8] = b"user.hypernet.snapshots";

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// By how much clocks of devices may differ, in milliseconds: what comes after something is dated after it only within that.
pub const AHEAD_MAX: u64 = DAY;

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

/// A stretch of time of which the last snapshot stays. All are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week, which begins on Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Period {
    /// All, from the shortest on.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// How often that is, in one word.
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// Which one a time is in.
    fn number(self, millis: u64) -> u64 {
        let (year, month, _) = civil(millis);
        match self {
            Self::Hour => millis / HOUR,
            Self::Day => millis / DAY,
            // The first of January 1970 was a Thursday.
            Self::Week => (millis / DAY + 3) / 7,
            Self::Month => year * 12 + month,
            Self::Year => year,
        }
    }

    /// When the one after that begins in which a time is.
    fn next(self, millis: u64) -> u64 {
        let step = if self == Self::Hour { HOUR } else { DAY };
        let begins = |n: u64| (millis / step).saturating_add(n).saturating_mul(step);
        // None is longer than a leap year.
        (1..=366).map(begins).find(|at| self.number(*at) > self.number(millis)).unwrap_or(u64::MAX)
    }
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAPolicy {
    /// It has no room.
    #[error("it has more than {POLICY_TEXT_MAX} bytes")]
    Long,
    /// It is no text.
    #[error("it is no text")]
    Bytes,
    /// A word of it means nothing.
    #[error("{0:?} is none of last=N, hourly=N, daily=N, weekly=N, monthly=N and yearly=N, with a number for N")]
    Word(String),
    /// It says two things.
    #[error("it says twice how many are {0}")]
    Twice(&'static str),
    /// Nothing would be taken.
    #[error("it says nothing of how often: it needs one of hourly, daily, weekly, monthly and yearly")]
    Never,
    /// The history has no room.
    #[error("it keeps more than {POLICY_KEPT_MAX} snapshots")]
    Many,
}

impl Policy {
    /// Whether it keeps nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many of each kind, by name.
    fn kinds(&self) -> [(&'static str, u32); 6] {
        let [hour, day, week, month, year] = Period::ALL.map(Period::adverb);
        let Self { last, hourly, daily, weekly, monthly, yearly } = *self;
        [("last", last), (hour, hourly), (day, daily), (week, weekly), (month, monthly), (year, yearly)]
    }

    /// What stands in a volume's attribute, by whoever has written it there.
    pub fn parse(text: &[u8]) -> Result<Self, NotAPolicy> {
        if text.len() > POLICY_TEXT_MAX {
            return Err(NotAPolicy::Long);
        }
        let text = std::str::from_utf8(text).map_err(|_| NotAPolicy::Bytes)?;
        let (mut policy, mut seen) = (Self::default(), BTreeSet::new());
        for word in text.split_ascii_whitespace() {
            let unknown = || NotAPolicy::Word(word.to_owned());
            let (kind, number) = word.split_once('=').ok_or_else(unknown)?;
            let (kind, _) = Self::default().kinds().into_iter().find(|(name, _)| *name == kind).ok_or_else(unknown)?;
            let place = match kind {
                "last" => &mut policy.last,
                "hourly" => &mut policy.hourly,
                "daily" => &mut policy.daily,
                "weekly" => &mut policy.weekly,
                "monthly" => &mut policy.monthly,
                "yearly" => &mut policy.yearly,
                _ => return Err(unknown()),
            };
            // A sign is no part of a number here.
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            *place = number.parse().ok().filter(|_| is_number).ok_or_else(unknown)?;
            if !seen.insert(kind) {
                return Err(NotAPolicy::Twice(kind));
            }
        }
        policy.check()?;
        Ok(policy)
    }

    /// Whether it can be the policy of a volume.
    pub fn check(&self) -> Result<(), NotAPolicy> {
        let kept: u64 = self.kinds().into_iter().map(|(_, count)| u64::from(count)).sum();
        match self.period() {
            None => Err(NotAPolicy::Never),
            Some(_) if kept > POLICY_KEPT_MAX => Err(NotAPolicy::Many),
            Some(_) => Ok(()),
        }
    }

    /// In each of which one is taken: the shortest that it names.
    pub fn period(&self) -> Option<Period> {
        let counts = self.kinds().map(|(_, count)| count);
        Period::ALL.into_iter().zip(&counts[1..]).find(|(_, count)| **count > 0).map(|(period, _)| period)
    }

    /// Whether one is to be taken now, by the clock of this device: where none was since the period began, by any device. However
    /// many periods went by, it is one. A clock that went back waits until it has caught up, but not for something that is more
    /// than [`AHEAD_MAX`] ahead of it.
    pub fn due(&self, history: &History, now: u64) -> Option<Period> {
        let next = self.next(history, now)?;
        self.period().filter(|_| next <= now)
    }

    /// From when on one is to be taken, by the clock of this device.
    pub fn next(&self, history: &History, now: u64) -> Option<u64> {
        let period = self.period()?;
        let mut all = history.kept.iter().rev().filter(|(_, kept)| kept.by == By::Policy);
        let last = all.find(|(moment, _)| self.counts(moment, now));
        Some(last.map_or(0, |(last, _)| period.next(last.time.millis)))
    }

    /// Those of a history that are to go by it, by the clock of this device. What is too far ahead of that stands for no other one.
    pub fn surplus(&self, history: &History, now: u64) -> BTreeSet<Moment> {
        let tagged = history.tagged();
        let is_automatic = |moment: &Moment| history.kept.get(moment).is_some_and(|kept| kept.by == By::Policy);
        superfluous(history, self, |moment| {
            is_automatic(moment) && !tagged.contains(&moment.id) && self.counts(moment, now)
        })
    }

    /// Whether a snapshot says anything of what is due: it is not too far ahead, or in the same period all the same.
    fn counts(&self, moment: &Moment, now: u64) -> bool {
        let millis = moment.time.millis;
        !is_ahead(moment.time, now) || self.period().is_some_and(|period| period.number(millis) <= period.number(now))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.kinds().into_iter().filter(|(_, count)| *count > 0);
        let words: Vec<String> = words.map(|(kind, count)| format!("{kind}={count}")).collect();
        f.write_str(&words.join(" "))
    }
}

/// The newest one of a history that a policy has taken, by the clock of this device.
pub fn last(history: &History, now: u64) -> Option<Moment> {
    let mut all = history.kept.iter().rev().filter(|(_, kept)| kept.by == By::Policy);
    all.find(|(moment, _)| !is_ahead(moment.time, now)).map(|(moment, _)| *moment)
}

/// Whether something is so far ahead of a clock that it says nothing of what comes next: somebody's clock was wrong by more than
/// hours, or they have written down any time.
pub fn is_ahead(time: Hlc, now: u64) -> bool {
    time.millis > now.saturating_add(AHEAD_MAX)
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

/// Those of a history that a policy does not keep, of those that may go.
pub fn superfluous(history: &History, policy: &Policy, may_go: impl Fn(&Moment) -> bool) -> BTreeSet<Moment> {
    let candidates: Vec<Moment> = history.kept.keys().copied().filter(&may_go).collect();
    // Each of the last ones is one by itself.
    let kinds = std::iter::once(None).chain(Period::ALL.map(Some));
    let mut stay: BTreeSet<Moment> = BTreeSet::new();
    for (kind, (_, wanted)) in kinds.zip(policy.kinds()) {
        let (mut before, mut left) = (None, wanted);
        for moment in candidates.iter().rev() {
            if left == 0 {
                break;
            }
            let number = kind.map(|period| period.number(moment.time.millis));
            if number.is_none() || number != before {
                stay.insert(*moment);
                left -= 1;
            }
            before = number;
        }
    }
    candidates.into_iter().filter(|moment| !stay.contains(moment)).collect()
}

#[cfg(test)]
mod tests;

//! What a storm came to, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tabled::builder::Builder;
use tabled::settings::Style;

use crate::switch::Carried;

/// How long one read takes at most when its bytes are not to be had: `READ_WITHIN` of the agent.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a call may take that reads. The kernel asks once more for a part of what failed, so it is two deadlines; the
/// rest is for a machine of which more is asked than it can do. Time in which the agent was frozen comes on top.
pub const READ_MAX: Duration = Duration::from_secs(2 * 20 + 5);

/// How it was around a device when a call failed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sky {
    /// Nothing had been wrong anywhere for a while: nothing may fail.
    Clear,
    /// No more donors were away, or had been shortly before, than may be.
    Few,
    /// More were.
    Many,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    faults: BTreeMap<&'static str, u64>,
    calls: BTreeMap<&'static str, u64>,
    failed: BTreeMap<(&'static str, Sky), u64>,
    slowest: BTreeMap<&'static str, (Duration, String)>,
    /// Reads that took longer than one deadline.
    late: u64,
    /// Looks at a tree after its agent was killed.
    crashes: u64,
    figures: BTreeMap<&'static str, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault was brought about.
    pub fn fault(&self, kind: &'static str) {
        *self.counts().faults.entry(kind).or_default() += 1;
    }

    /// A call succeeded, after so long.
    pub fn call(&self, kind: &'static str, took: Duration, what: &str) {
        *self.counts().calls.entry(kind).or_default() += 1;
        self.took(kind, took, what);
    }

    /// A call failed, after so long.
    pub fn failed(&self, kind: &'static str, sky: Sky, took: Duration, what: &str) {
        *self.counts().failed.entry((kind, sky)).or_default() += 1;
        self.took(kind, took, what);
    }

    fn took(&self, kind: &'static str, took: Duration, what: &str) {
        let mut counts = self.counts();
        counts.late += u64::from(kind == "read" && took > DEADLINE);
        if counts.slowest.get(kind).is_none_or(|(slowest, _)| took > *slowest) {
            counts.slowest.insert(kind, (took, what.to_owned()));
        }
    }

    /// A tree was looked at after a crash.
    pub fn crash(&self) {
        self.counts().crashes += 1;
    }

    /// Something else that is to be told in the end.
    pub fn figure(&self, name: &'static str, figure: u64) {
        self.counts().figures.insert(name, figure);
    }

    /// Calls of this kind that succeeded.
    pub fn calls(&self, kind: &str) -> u64 {
        self.counts().calls.get(kind).copied().unwrap_or(0)
    }

    /// Faults, of all kinds.
    pub fn faults(&self) -> u64 {
        self.counts().faults.values().sum()
    }

    /// Faults by kind.
    pub fn kinds(&self) -> usize {
        self.counts().faults.len()
    }

    /// What the network did.
    pub fn carried(&self, carried: Carried) {
        for (name, figure) in [
            ("packets carried", carried.packets),
            ("packets carried, MiB", carried.bytes >> 20),
            ("packets lost by chance", carried.lost),
            ("packets lost by partitions", carried.cut),
            ("packets lost in full queues", carried.crowded),
        ] {
            self.figure(name, figure);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        let mut faults = Builder::from_iter([["fault", "times"].map(str::to_owned)]);
        for (kind, times) in &counts.faults {
            faults.push_record([(*kind).to_owned(), times.to_string()]);
        }
        writeln!(to, "{}\n", faults.build().with(Style::psql()))?;

        let heads = ["call", "succeeded", "failed: clear sky", "few away", "many away", "slowest", "which was"];
        let mut calls = Builder::from_iter([heads.map(str::to_owned)]);
        let mut kinds: Vec<&str> = counts.slowest.keys().copied().collect();
        kinds.dedup();
        for kind in kinds {
            let failed = |sky| counts.failed.get(&(kind, sky)).copied().unwrap_or(0).to_string();
            let (slowest, which) = counts.slowest.get(kind).cloned().unwrap_or_default();
            calls.push_record([
                kind.to_owned(),
                counts.calls.get(kind).copied().unwrap_or(0).to_string(),
                failed(Sky::Clear),
                failed(Sky::Few),
                failed(Sky::Many),
                format!("{:.1} s", slowest.as_secs_f64()),
                which,
            ]);
        }
        writeln!(to, "{}\n", calls.build().with(Style::psql()))?;

        let mut figures = Builder::from_iter([["figure", "value"].map(str::to_owned)]);
        figures.push_record(["trees compared after a kill".to_owned(), counts.crashes.to_string()]);
        figures.push_record([format!("reads longer than {} s", DEADLINE.as_secs()), counts.late.to_string()]);
        for (name, figure) in &counts.figures {
            figures.push_record([(*name).to_owned(), figure.to_string()]);
        }
        write!(to, "{}", figures.build().with(Style::psql()))
    }
}

//! What the last looks for something to mend have come to: how fast it went, and what is in the way.
//!
//! It is in memory, and says nothing before something was seen: of who has mended nothing nobody knows how long it takes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hypernet_core::port::PortError;

use super::repair::Repaired;

/// Looks that the rate is taken from: so many as make one slow one tell little, and few enough to follow the line.
const LOOKS: usize = 8;

/// A look that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Looked {
    /// When.
    pub(crate) at: Instant,
    /// What it has found and done, or why it came to no end.
    pub(crate) found: Result<Repaired, String>,
}

impl Looked {
    /// What is in the way of all, or of some.
    pub(crate) fn stopped(&self) -> Option<&String> {
        match &self.found {
            Ok(found) => found.failed.as_ref(),
            Err(why) => Some(why),
        }
    }

    fn has_mended(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.mended > 0)
    }
}

/// The last looks of a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mending {
    pub(crate) last: Option<Looked>,
    /// Bytes of shards that were placed by each that has placed some, and how long it took.
    rates: VecDeque<(u64, Duration)>,
}

impl Mending {
    pub(crate) fn note(&mut self, found: &Result<Repaired, PortError>, took: Duration) {
        if let Ok(found) = found
            && found.bytes > 0
        {
            self.rates.push_back((found.bytes, took));
            self.rates.drain(..self.rates.len().saturating_sub(LOOKS));
        }
        let found = match found {
            Ok(found) => Ok(found.clone()),
            Err(error) => Err(error.to_string()),
        };
        self.last = Some(Looked { at: Instant::now(), found });
    }

    /// How long it takes until so many bytes are placed, at the rate of the last looks: where the next one is in `next`, others
    /// follow after `every`, and each places `most` bytes. None where nothing was measured, or the last look has mended nothing.
    pub(crate) fn takes(&self, bytes: u64, next: Duration, every: Duration, most: u64) -> Option<Duration> {
        self.last.as_ref().filter(|last| last.has_mended())?;
        let (placed, took) = self
            .rates
            .iter()
            .fold((0.0, 0.0), |(placed, took), (bytes, time)| (placed + *bytes as f64, took + time.as_secs_f64()));
        let rests = every.as_secs_f64() * bytes.saturating_sub(1).checked_div(most)? as f64;
        let work = bytes as f64 * took / placed;
        Duration::try_from_secs_f64(next.as_secs_f64() + rests + work).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(600);

    fn placed(bytes: u64) -> Result<Repaired, PortError> {
        Ok(Repaired { due: 9, mended: u64::from(bytes > 0), bytes, ..Repaired::default() })
    }

    #[test]
    fn nothing_is_told_of_how_long_it_takes_before_it_was_measured() {
        let mut mending = Mending::default();
        let takes = |mending: &Mending, bytes| mending.takes(bytes, Duration::from_secs(60), EVERY, 1_000);
        assert_eq!(takes(&mending, 1), None);
        // Looks that mend nothing say nothing, and what was measured before holds no more than they do.
        mending.note(&placed(0), Duration::from_secs(5));
        assert_eq!(takes(&mending, 1), None);
        mending.note(&placed(1_000), Duration::from_secs(10));
        assert_eq!(takes(&mending, 500), Some(Duration::from_secs(65)), "the next look, and half as long as the last");
        assert_eq!(takes(&mending, 1_000), Some(Duration::from_secs(70)));
        assert_eq!(takes(&mending, 2_500), Some(Duration::from_secs(60 + 2 * 600 + 25)));
        mending.note(&placed(0), Duration::from_secs(5));
        assert_eq!(takes(&mending, 500), None);
        assert_eq!(mending.takes(1, EVERY, EVERY, 0), None);
        // The last ones count.
        for _ in 0..20 {
            mending.note(&placed(1_000), Duration::from_secs(100));
        }
        assert_eq!(takes(&mending, 1_000), Some(Duration::from_secs(160)));
    }

    #[test]
    fn what_is_in_the_way_is_kept() {
        let mut mending = Mending::default();
        mending.note(&Err(PortError::Disk("broken".into())), Duration::ZERO);
        assert!(mending.last.as_ref().unwrap().stopped().unwrap().contains("broken"));
        let found = Repaired { due: 2, mended: 1, failed: Some("full".into()), ..Repaired::default() };
        mending.note(&Ok(found), Duration::ZERO);
        assert_eq!(mending.last.as_ref().unwrap().stopped(), Some(&"full".to_owned()));
        mending.note(&placed(1), Duration::ZERO);
        assert_eq!(mending.last.unwrap().stopped(), None);
    }
}

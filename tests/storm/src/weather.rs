//! What is wrong at the moment, and what was a moment ago.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::tally::Sky;

/// How long after something was put right it may still be felt: connections have to time out, and to be made anew.
pub const AFTERMATH: Duration = Duration::from_secs(45);

#[derive(Debug)]
struct State {
    /// Hosts that are away, how often at once, and since when those are back that are not.
    away: BTreeMap<usize, (u32, Instant)>,
    last: Instant,
    wrong: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Weather(Mutex<State>);

impl Default for Weather {
    fn default() -> Self {
        Self(Mutex::new(State { away: BTreeMap::new(), last: Instant::now(), wrong: 0 }))
    }
}

impl Weather {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something goes wrong, by which these hosts are away.
    pub fn worsens(&self, hosts: &[usize]) {
        let mut state = self.state();
        let now = Instant::now();
        (state.wrong, state.last) = (state.wrong + 1, now);
        for host in hosts {
            state.away.entry(*host).or_insert((0, now)).0 += 1;
        }
    }

    /// That is over.
    pub fn betters(&self, hosts: &[usize]) {
        let mut state = self.state();
        let now = Instant::now();
        (state.wrong, state.last) = (state.wrong.saturating_sub(1), now);
        for host in hosts {
            if let Some((times, since)) = state.away.get_mut(host) {
                (*times, *since) = (times.saturating_sub(1), now);
            }
        }
    }

    /// Whether a host is away.
    pub fn is_away(&self, host: usize) -> bool {
        self.state().away.get(&host).is_some_and(|(times, _)| *times > 0)
    }

    /// How it is for a device, where so many of these donors may be away.
    pub fn sky(&self, device: usize, donors: &[usize], spare: usize) -> Sky {
        let state = self.state();
        if state.wrong == 0 && state.last.elapsed() > AFTERMATH {
            return Sky::Clear;
        }
        let felt = |donor: &&usize| {
            state.away.get(donor).is_some_and(|(times, since)| *times > 0 || since.elapsed() < AFTERMATH)
        };
        // For one that is away itself all others are.
        if !felt(&&device) && donors.iter().filter(felt).count() <= spare { Sky::Few } else { Sky::Many }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_felt_for_a_while() {
        let weather = Weather::default();
        let donors = [0, 1, 2, 3];
        weather.worsens(&[1, 9]);
        weather.worsens(&[1]);
        weather.betters(&[1]);
        assert!(weather.is_away(1) && weather.is_away(9) && !weather.is_away(0));
        weather.worsens(&[2]);
        weather.betters(&[2]);
        assert_eq!(weather.sky(9, &donors, 4), Sky::Many);
        assert!(!weather.is_away(2));
        assert_eq!((weather.sky(5, &donors, 2), weather.sky(5, &donors, 1)), (Sky::Few, Sky::Many));
    }
}

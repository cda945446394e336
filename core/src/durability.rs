//! How likely it is that a segment can be read, and that it is lost: the model that plans are made with.
//!
//! A segment has n rows on as many peers, any k of which restore it.
//!
//! **Readable now.** Peer i is online with probability p_i, apart from all others. The number of rows at hand is then
//! Poisson-binomial, and the segment is readable with P(X >= k): [`readable_among`], by going through the peers one after
//! the other. With one p for all it is the binomial tail: [`readable`]. The mean of the p_i may stand for all of them
//! where k is below n times that mean: it gives the lower bound (Hoeffding, "On the distribution of the number of
//! successes in independent trials", 1956).
//!
//! **Lost for good.** Each peer leaves for good at the rate λ a year. It is noticed after a while, what is missing is
//! made anew, and both together take 1/μ years on average, exponentially. Nothing is done as long as more than r rows
//! are left: that is what makes repair lazy, since one repair reads k rows however many it makes. At r and below, all
//! missing rows are made at once. So rows that are left are a birth-death chain, as in Ramabhadran and Pasquale,
//! "Analysis of long-running replicated systems" (INFOCOM 2006) and in the models of disk arrays before it, but that a
//! repair leads back to n in one step. Each return to n begins a new round, and rounds are alike. With the rates
//! i λ out of state i and μ back from states up to r,
//!
//! ```text
//! f_i = i λ / (i λ + μ)                                 another one leaves before the repair has ended
//! P   = f_k f_(k+1) ... f_r                             a round ends with fewer than k rows
//! T   = sum over i = r+1..n of 1 / (i λ)                a round lasts so long,
//!     + sum over i = k..r of f_(i+1) ... f_r / (i λ + μ)
//! ```
//!
//! and the mean time to loss is T / P (Wald's equation: rounds are independent). A year loses the segment with
//! 1 - exp(-P / T): [`Outlook::lost_meanwhile`].
//!
//! **Nobody left.** What a peer took along can be made anew only on one that has no row of the segment. Where nobody
//! joins, D peers that take shards become fewer year by year, and with the best of repair a segment is lost when fewer
//! than k of the D are left: P(Y < k), Y ~ B(D, exp(-λ)), [`Outlook::lost_for_want_of_peers`]. On a large mesh this is
//! nothing, on one of ten peers it is nearly all. The [nines](Nines) that are told are of the sum of both.
//!
//! **What it leaves out.** Peers of one operator or one subnet go together; placement spreads over those, and the model
//! does not know of them. Repair has the k rows that it needs at hand: at the threshold that is so with the probability
//! that is aimed at. The year is one like those that were measured; whoever joins improves on it. And a holder that
//! lies is one that has left, noticed by an audit instead of by its absence.

use crate::limits::PLACED_MAX;

/// The probability that a segment is readable at any moment that plans aim at.
pub const TARGET: f64 = 0.9999;
/// The probability that a segment is lost within a year that plans aim at: eleven nines.
pub const LOSS_TARGET: f64 = 1e-11;
/// Rows of data when there are peers enough.
pub const K_PREFERRED: u8 = 20;
/// The most that is stored per byte, by those who are too few for [`PLACED_MAX`] rows or are seldom there.
pub const OVERHEAD_MAX: f64 = 4.5;
/// Peers that leave for good within a year, as a rate, before any was watched for long: of five one is gone after a year.
pub const DEPARTURES_PRIOR: f64 = 0.223;
/// Years until a departure has been noticed and made good, on average: a week of absence, and a day of work.
pub const REPAIR_YEARS: f64 = 8.0 / 365.0;

/// Faster than this peers do not leave: all within days.
const DEPARTURES_MOST: f64 = 100.0;
/// Events that are followed where 16 are the mean: P(more) < 1e-20.
const JUMPS: u32 = 72;

/// P(X < k) for X ~ B(n, p): the tail that is small in every case that matters, summed without cancellation.
fn below(k: u32, n: u32, p: f64) -> f64 {
    if k > n {
        return 1.0;
    }
    let q = 1.0 - p;
    let mut term = 1.0;
    for _ in 0..n {
        term *= q;
    }
    let mut below = 0.0;
    for i in 0..k {
        below += term;
        term = if q > 0.0 { term * f64::from(n - i) / f64::from(i + 1) * p / q } else { 0.0 };
    }
    below
}

/// P(X >= k) for X ~ B(n, p): any k of n rows, each there with probability p.
pub fn readable(k: u8, n: u8, p: f64) -> f64 {
    (1.0 - below(k.into(), n.into(), p)).clamp(0.0, 1.0)
}

/// With which probability so many rows are at hand, where each of `holders` is there with a probability and has so many
/// rows, which come and go together; k and more are one state.
fn at_hand(k: u8, holders: impl Iterator<Item = (f64, u8)>) -> Vec<f64> {
    let k = usize::from(k);
    let mut at_hand = vec![0.0; k + 1];
    at_hand[0] = 1.0;
    for (p, rows) in holders.filter(|(_, rows)| *rows > 0) {
        let p = p.clamp(0.0, 1.0);
        for have in (0..k).rev() {
            let more = at_hand[have] * p;
            at_hand[have] -= more;
            at_hand[k.min(have + usize::from(rows))] += more;
        }
    }
    at_hand
}

/// The same where each row is there with a probability of its own.
pub fn readable_among(k: u8, online: &[f64]) -> f64 {
    at_hand(k, online.iter().map(|p| (*p, 1)))[usize::from(k)].clamp(0.0, 1.0)
}

/// P(X < k), the tail that is small, where each of `holders` is there with a probability of its own and has so many rows:
/// a peer that has several takes all of them along.
pub fn unreadable_among(k: u8, holders: impl IntoIterator<Item = (f64, u8)>) -> f64 {
    at_hand(k, holders.into_iter())[..usize::from(k)].iter().sum::<f64>().clamp(0.0, 1.0)
}

/// A small probability as people tell it: 0.001 is three nines.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Nines(pub f64);

impl Nines {
    /// More is not told: nothing that is measured here reaches as far.
    pub const MOST: Self = Self(15.0);

    /// Of the probability that it goes wrong.
    pub fn of(wrong: f64) -> Self {
        // Never the zero below zero.
        Self((-wrong.max(1e-300).log10()).clamp(0.0, Self::MOST.0) + 0.0)
    }

    /// What is left of them, in whole ones.
    pub fn whole(self) -> u32 {
        // What should be 11.0 and is a hair less is 11.
        (self.0 + 1e-9) as u32
    }
}

/// What is known of the peers that a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// How many there are.
    pub peers: usize,
    /// With which probability one is online, in the worst hour of the day.
    pub availability: f64,
    /// How many leave for good, for each that is there and each year.
    pub departures: f64,
    /// Years until that has been noticed and made good.
    pub repair: f64,
}

impl Outlook {
    /// So many peers of this availability, of which nothing else is known.
    pub fn of(peers: usize, availability: f64) -> Self {
        Self { peers, availability, departures: DEPARTURES_PRIOR, repair: REPAIR_YEARS }
    }

    /// The probability that a year loses a segment because rows go faster than they are made anew: with k, n, and the
    /// rows at which a repair begins.
    pub fn lost_meanwhile(&self, k: u8, n: u8, threshold: u8) -> f64 {
        // With all rows there nothing can be repaired; with fewer than k nothing can be either.
        let threshold = threshold.min(n.saturating_sub(1));
        let (leave, mend) = (self.departures.max(1e-9), 1.0 / self.repair.max(1e-9));
        let mut round: f64 = (threshold + 1..=n).filter(|i| *i >= k).map(|i| 1.0 / (f64::from(i) * leave)).sum();
        let mut reached = 1.0;
        for i in (k..=threshold).rev() {
            let all = f64::from(i) * leave + mend;
            round += reached / all;
            reached *= f64::from(i) * leave / all;
        }
        -(-reached / round.max(1e-300)).exp_m1()
    }

    /// The probability that a year loses a segment although all that is missing is made anew at once, since fewer than k
    /// peers are left and nobody joins.
    pub fn lost_for_want_of_peers(&self, k: u8) -> f64 {
        below(
            k.into(),
            u32::try_from(self.peers).unwrap_or(u32::MAX).min(4 * PLACED_MAX as u32),
            (-self.departures).exp(),
        )
        .clamp(0.0, 1.0)
    }

    /// Both together.
    pub fn lost(&self, k: u8, n: u8, threshold: u8) -> f64 {
        // Where nobody has none of its rows, a repair has nowhere to put one.
        let meanwhile = if self.peers > usize::from(n) { self.lost_meanwhile(k, n, threshold) } else { 0.0 };
        (meanwhile + self.lost_for_want_of_peers(k)).min(1.0)
    }

    /// The probability that the year that begins now loses a segment of which `left` rows are left now: [`Self::lost`] of
    /// one that is not as it was meant to be.
    ///
    /// It is the chain of [above](self), gone through for a year from where it is now (by uniformization: Jensen, "Markoff
    /// chains as an aid in the study of Markoff processes", 1953), and not its mean. Where nobody has none of its rows,
    /// nothing is made anew, and k of those that are left must still be there at the end.
    pub fn lost_from(&self, k: u8, n: u8, threshold: u8, left: u8) -> f64 {
        if left < k {
            return 1.0;
        }
        let (left, departures) = (left.min(n.max(k)), self.departures.clamp(0.0, DEPARTURES_MOST));
        if self.peers <= usize::from(n) {
            return below(k.into(), left.into(), (-departures).exp()).clamp(0.0, 1.0);
        }
        let meanwhile = self.lost_within_a_year(k, n.max(k), threshold.min(n.saturating_sub(1)), left);
        (meanwhile + self.lost_for_want_of_peers(k)).min(1.0)
    }

    fn lost_within_a_year(&self, k: u8, n: u8, threshold: u8, left: u8) -> f64 {
        let (leave, mend) = (self.departures.clamp(1e-9, DEPARTURES_MOST), 1.0 / self.repair.max(REPAIR_YEARS / 100.0));
        let rate = f64::from(n) * leave + mend;
        // Stretches in which so little happens that the numbers of Poisson's distribution are no smaller than can be told.
        let stretches = (rate / 16.0).ceil().max(1.0);
        let mean = rate / stretches;
        let down = |i: usize| (i + usize::from(k)) as f64 * leave / rate;
        let up = |i: usize| if i + usize::from(k) <= usize::from(threshold) { mend / rate } else { 0.0 };
        let top = usize::from(n - k);
        // By rows that are left beyond k; and what is lost.
        let (mut now, mut lost) = (vec![0.0; top + 1], 0.0);
        now[usize::from(left - k).min(top)] = 1.0;
        for _ in 0..stretches as u32 {
            let (mut chance, mut then, mut then_lost) = ((-mean).exp(), vec![0.0; top + 1], 0.0);
            for events in 0..JUMPS {
                then.iter_mut().zip(&now).for_each(|(then, now)| *then += chance * now);
                then_lost += chance * lost;
                let mut next = vec![0.0; top + 1];
                for (i, p) in now.iter().enumerate() {
                    let (down, up) = (down(i), up(i));
                    next[i] += p * (1.0 - down - up);
                    next[top] += p * up;
                    match i.checked_sub(1) {
                        Some(below) => next[below] += p * down,
                        None => lost += p * down,
                    }
                }
                now = next;
                chance *= mean / f64::from(events + 1);
            }
            (now, lost) = (then, then_lost);
        }
        lost.clamp(0.0, 1.0)
    }

    /// The fewest rows, at most `most`, of which k are there with the probability that is aimed at.
    fn fewest(&self, k: u8, most: u8) -> Option<u8> {
        (k.saturating_add(1)..=most).find(|n| readable(k, *n, self.availability) >= TARGET)
    }

    /// Rows beyond those at which a repair begins: as many as leave in about a year, so that it begins about once a year.
    fn slack(&self, threshold: u8) -> u8 {
        (f64::from(threshold) * -(-self.departures).exp_m1()).ceil().clamp(1.0, f64::from(u8::MAX)) as u8
    }

    /// How segments are best coded and placed; `None` with fewer than two peers, because nothing can be coded.
    ///
    /// A repair begins at r, the fewest rows that are readable as well as is aimed at; n is r with some [slack](Self::slack)
    /// on top, and r is raised until no more is lost meanwhile than is aimed at. k is the largest, up to
    /// [`K_PREFERRED`], for which r rows are not more than there are peers and than [`PLACED_MAX`]: large ones store
    /// less for the same. What is missing for the slack is done without, down to a quarter of k: with less, k rows and more would
    /// be moved for each few that are lost, again and again. Where no k does, a shard is on every peer, as
    /// many as there may be, and k is the smallest that is affordable.
    pub fn plan(&self) -> Option<Plan> {
        if self.peers < 2 {
            return None;
        }
        let most = self.peers.min(PLACED_MAX) as u8;
        // With k = 1 all shards are equal, and holders that compare notes can link them: two peers leave no choice.
        let smallest = (f64::from(most) / OVERHEAD_MAX).ceil().max(if self.peers > 2 { 2.0 } else { 1.0 }) as u8;
        let largest = (most - 1).min(K_PREFERRED);
        let smallest = smallest.min(largest);
        for k in (smallest..=largest).rev() {
            let Some(fewest) = self.fewest(k, most) else { continue };
            let with = |threshold: u8| (threshold.saturating_add(self.slack(threshold)).min(most), threshold);
            let durable = |(n, threshold): &(u8, u8)| self.lost_meanwhile(k, *n, *threshold) <= LOSS_TARGET;
            let (n, threshold) = (fewest..=most).map(with).find(durable).unwrap_or((most, most));
            // Raising the threshold helps nobody where a repair has nowhere to put a row, and k is then as large as can
            // be read: what that risks is told.
            if self.peers == usize::from(n) {
                return Some(Plan::of(self, k, most, fewest));
            }
            let is_lazy = n.saturating_sub(threshold) >= self.slack(threshold).min(k.div_ceil(4));
            if (durable(&(n, threshold)) && is_lazy) || k == smallest {
                return Some(Plan::of(self, k, n, threshold));
            }
        }
        Some(Plan::of(self, smallest, most, most))
    }
}

/// How a segment is coded and placed, and what is to be expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Rows that suffice.
    pub k: u8,
    /// Rows that are placed, each on a peer of its own.
    pub n: u8,
    /// Rows whose hashes are committed, so that repair can add some.
    pub committed: u8,
    /// Rows at which a repair begins: while more are with peers that have not left, nothing needs to be done. What lacks
    /// one of n is to be repaired, too, where this is n.
    pub threshold: u8,
    /// Probability that a segment is readable at any moment.
    pub readable: f64,
    /// Whether that meets the target.
    pub meets_target: bool,
    /// Nines of the probability that a segment is not lost within a year.
    pub nines: Nines,
    /// What it was made for.
    pub outlook: Outlook,
}

impl Plan {
    fn of(outlook: &Outlook, k: u8, n: u8, threshold: u8) -> Self {
        let readable = readable(k, n, outlook.availability);
        Self {
            k,
            n,
            // A peer that comes back has its row still, so what is made in place of it is better another one.
            committed: n + (n - k).div_ceil(2),
            threshold: threshold.min(n),
            readable,
            meets_target: readable >= TARGET,
            nines: Nines::of(outlook.lost(k, n, threshold)),
            outlook: *outlook,
        }
    }

    /// The same where it is known who is there how much: those that hold the rows.
    pub fn among(self, online: &[f64]) -> Self {
        let readable = readable_among(self.k, online);
        Self { readable, meets_target: readable >= TARGET, ..self }
    }

    /// Whether no more is lost within a year than is aimed at.
    pub fn is_durable(&self) -> bool {
        self.nines >= Nines::of(LOSS_TARGET)
    }

    /// Bytes that are stored per byte.
    pub fn overhead(&self) -> f64 {
        f64::from(self.n) / f64::from(self.k.max(1))
    }

    /// The plan for something that is as readable and has no more than `most` rows in all: rows that are dearer than
    /// bytes, because something small lists them. Fewer rows take fewer of data, so it costs more than a byte for each.
    /// None are committed beyond the placed ones.
    pub fn within(self, most: u8) -> Self {
        if self.n <= most {
            return Self { committed: self.n, ..self };
        }
        let goal = self.readable.min(TARGET);
        let of = |k| {
            let fewest = self.outlook.fewest(k, most).unwrap_or(most);
            Self { committed: most, ..Self::of(&self.outlook, k, most, fewest) }
        };
        (2..=self.k.min(most.saturating_sub(1)))
            .rev()
            .map(of)
            .find(|plan| plan.readable >= goal)
            .unwrap_or_else(|| of(self.k.min(2)))
    }
}

#[cfg(test)]
mod tests;

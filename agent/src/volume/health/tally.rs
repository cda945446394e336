//! The count itself: what each segment adds to what is told of a volume.
//!
//! What counts is what [`Wear`](super::super::repair::Wear) says, by which segments are mended: so health is never better than
//! what repair goes by. A failure is that of a peer, or of a subnet, and never that of a row: a peer that has several rows takes
//! all of them along.

use std::collections::BTreeMap;

use hypernet_core::durability::unreadable_among;
use hypernet_core::id::PeerId;
use hypernet_core::node::Presence;
use hypernet_core::repair::Due;
use hypernet_core::segment::{Holder, Placement};

use super::super::collect::lives_until;
use super::super::repair::Left;
use super::sight::Measure;

/// Why a row does not count, or may not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Its holder could not prove that it has it.
    Unproven,
    /// Its holder says that it has lost or spoiled it.
    Lacking,
    /// Its holder is taken to be gone for good.
    Gone,
    /// Its holder stops storing for others: it has the row until that is elsewhere.
    Leaving,
    /// Its holder is away for longer than its grace. The row counts.
    Suspect,
    /// Its holder is away. The row counts.
    Away,
    /// This device has not met its holder. The row counts.
    Unmet,
}

/// A segment that is nearest to its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weakest {
    /// How many of the peers that have rows which count may go, whichever they are; below zero so many rows are missing.
    pub(crate) margin: i32,
    /// The probability that it cannot be read in the worst hour.
    pub(crate) unreadable: f64,
    pub(crate) k: u8,
    /// Rows that count, and the peers that have them.
    pub(crate) rows: u8,
    pub(crate) peers: u8,
    /// The mean of the probabilities that these are there in their worst hour.
    pub(crate) there: f64,
    pub(crate) is_catalog: bool,
}

/// What there is, and with whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) segments: u64,
    /// Bytes of payload in them.
    pub(crate) logical: u64,
    /// Bytes of their shards.
    pub(crate) stored: u64,
    /// Segments by how many shards are not to be reached, and by whether they can be read.
    pub(crate) health: BTreeMap<(u32, bool), u64>,
    /// Segments by how many of the peers that are there now may go, whichever they are, until they cannot be read.
    pub(crate) spare: BTreeMap<u32, u64>,
    /// When the first segment has fewer leases than it takes to read it, if nobody renews any, in seconds since 1970.
    pub(crate) until: Option<u64>,
    /// Shards by holder.
    pub(crate) held: BTreeMap<PeerId, u64>,
    /// Segments by how many of the peers with rows that count may go for good, whichever they are, until they are lost; below
    /// zero by how many rows are missing to read them at all.
    pub(crate) margins: BTreeMap<i32, u64>,
    /// The same by subnets, each with all of its peers.
    pub(crate) domains: BTreeMap<i32, u64>,
    pub(crate) weakest: Option<Weakest>,
    /// The greatest probability that one of those that are not lost cannot be read in the worst hour, and the sum of them.
    pub(crate) unreadable: (f64, f64),
    /// The greatest probability that a year loses one of those that are not lost, and the sum of them.
    pub(crate) losing: (f64, f64),
    /// Rows by why they do not count or may not be had, and by holder.
    pub(crate) causes: BTreeMap<Cause, BTreeMap<PeerId, u64>>,
    /// Rows that are with nobody.
    pub(crate) homeless: u64,
    /// Segments of which a peer has several rows.
    pub(crate) crowded: u64,
    /// Segments that are due to be mended, and bytes of the shards to be placed for them,
    pub(crate) due: u64,
    pub(crate) due_bytes: u64,
    /// and segments of the catalog among them, which the next sync writes anew.
    pub(crate) due_catalog: u64,
    /// Rows of the index that cannot be read: nobody knows where what they are of is.
    pub(crate) damaged: u64,
    /// Listings of the catalog that are not on this device: what they list is not counted.
    pub(crate) unlisted: u64,
    /// What was computed before: the chance of loss by k, n, threshold and what is left.
    pub(crate) chances: BTreeMap<(u8, u8, u8, u8), f64>,
}

impl Tally {
    pub(super) fn add(&mut self, placement: &Placement, measure: &Measure<'_>, is_catalog: bool) {
        self.segments += 1;
        self.logical += placement.segment.payload_len();
        measure.wear.lacking.without(placement, |left| self.add_reachable(left, measure));
        let (k, n) = (placement.segment.k, placement.n);
        let Left { rows, leaving, threshold } = measure.wear.left(placement);
        let mut held = one_of_each_row(measure.wear.counted(placement).holders, measure);
        let is_going = rows < k && rows.saturating_add(leaving) >= k;
        if is_going {
            // It is not lost, and nothing more may go.
            let readable = measure.wear.lacking.without(placement, |left| measure.wear.mesh.readable(left));
            held = one_of_each_row(readable.holders, measure);
        }
        let margin_of = |rows: Vec<usize>| if is_going { margin(k, rows).min(0) } else { margin(k, rows) };
        let groups = groups(held.iter().map(|holder| holder.peer));
        let margin = margin_of(groups.iter().map(|(_, rows)| *rows).collect());
        *self.margins.entry(margin).or_default() += 1;
        let domains = self::groups(held.iter().map(|holder| measure.domain(holder.peer)));
        *self.domains.entry(margin_of(domains.iter().map(|(_, rows)| *rows).collect())).or_default() += 1;
        self.crowded += u64::from(groups.iter().any(|(_, rows)| *rows > 1));
        self.add_causes(placement, &held, measure);

        let due = measure.wear.due(placement);
        let is_due = due != Due::No;
        // Nobody can mend what fewer rows are left of than it takes; a catalog is written anew from what is here.
        if is_due && (due != Due::Lost || is_catalog) {
            self.due += 1;
            self.due_catalog += u64::from(is_catalog);
            let missing = match due {
                _ if is_catalog => n,
                Due::Move(_) => leaving.min(n.saturating_sub(rows)),
                _ => n.saturating_sub(rows),
            };
            self.due_bytes += u64::from(missing) * u64::from(placement.segment.shard_len);
        }
        let there = |peer: &PeerId| measure.known(peer).map_or(0.0, |known| known.there);
        let unreadable = unreadable_among(k, groups.iter().map(|(peer, rows)| (there(peer), *rows as u8)));
        let weakest = Weakest {
            margin,
            unreadable,
            k,
            rows,
            peers: groups.len() as u8,
            there: groups.iter().map(|(peer, _)| there(peer)).sum::<f64>() / groups.len().max(1) as f64,
            is_catalog,
        };
        self.weakest = weaker(self.weakest, Some(weakest));
        if margin >= 0 {
            let left = k.saturating_add(margin as u8);
            // Rows that are crowded are nothing that repair sees to: it goes by rows.
            let (n, threshold) = if rows <= threshold && rows < n || left >= rows {
                (n, threshold)
            } else {
                (left, threshold.min(left))
            };
            let lost = *self
                .chances
                .entry((k, n, threshold, left))
                .or_insert_with(|| measure.outlook.lost_from(k, n, threshold, left));
            grow(&mut self.unreadable, (unreadable, unreadable));
            grow(&mut self.losing, (lost, lost));
        }
    }

    /// `left`: without the rows that are known not to be there.
    fn add_reachable(&mut self, left: &Placement, measure: &Measure<'_>) {
        self.stored += left.holders.len() as u64 * u64::from(left.segment.shard_len);
        let until = lives_until(left);
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
        for holder in &left.holders {
            *self.held.entry(holder.peer).or_default() += 1;
        }
        let connected = left.holders.iter().filter(|holder| measure.connected.contains(&holder.peer));
        let up = one_of_each_row(connected.cloned().collect(), measure);
        let spare = margin(left.segment.k, groups(up.iter().map(|holder| holder.peer)).iter().map(|of| of.1).collect());
        *self.spare.entry(spare.max(0) as u32).or_default() += 1;
        let missing = usize::from(left.n).saturating_sub(up.len()) as u32;
        *self.health.entry((missing, up.len() >= usize::from(left.segment.k))).or_default() += 1;
    }

    fn add_causes(&mut self, placement: &Placement, held: &[Holder], measure: &Measure<'_>) {
        let mut note = |cause, peer| {
            *self.causes.entry(cause).or_default().entry(peer).or_default() += 1;
        };
        let lacking = measure.wear.lacking.gone(placement);
        for (peer, is_unproven) in &lacking {
            note(if *is_unproven { Cause::Unproven } else { Cause::Lacking }, *peer);
        }
        let gone = placement.holders.iter().filter(|holder| measure.wear.mesh.is_gone(&holder.peer));
        gone.for_each(|holder| note(Cause::Gone, holder.peer));
        let leaving = placement.holders.iter().filter(|holder| measure.wear.mesh.is_leaving(&holder.peer));
        leaving.for_each(|holder| note(Cause::Leaving, holder.peer));
        for holder in held {
            let cause = match measure.known(&holder.peer) {
                None => Some(Cause::Unmet),
                Some(known) => match known.presence {
                    Presence::Here | Presence::Gone => None,
                    Presence::Away => Some(Cause::Away),
                    Presence::Suspect => Some(Cause::Suspect),
                },
            };
            if let Some(cause) = cause {
                note(cause, holder.peer);
            }
        }
        let placed = groups(placement.holders.iter().map(|holder| holder.row)).len();
        self.homeless += usize::from(placement.n).saturating_sub(placed) as u64;
    }

    /// Segments that are lost, as far as is known: fewer rows count than it takes to read them.
    pub(crate) fn lost(&self) -> u64 {
        self.margins.range(..0).map(|(_, segments)| segments).sum()
    }

    /// Segments that cannot be read from the peers that are there now.
    pub(crate) fn unreadable_now(&self) -> u64 {
        self.health.iter().filter(|((_, readable), _)| !readable).map(|(_, segments)| segments).sum()
    }

    /// That of several volumes.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.segments += other.segments;
        self.logical += other.logical;
        self.stored += other.stored;
        join(&mut self.health, &other.health);
        join(&mut self.spare, &other.spare);
        join(&mut self.held, &other.held);
        join(&mut self.margins, &other.margins);
        join(&mut self.domains, &other.domains);
        self.until = [self.until, other.until].into_iter().flatten().min();
        self.weakest = weaker(self.weakest, other.weakest);
        grow(&mut self.unreadable, other.unreadable);
        grow(&mut self.losing, other.losing);
        for (cause, rows) in &other.causes {
            join(self.causes.entry(*cause).or_default(), rows);
        }
        self.homeless += other.homeless;
        self.crowded += other.crowded;
        self.due += other.due;
        self.due_bytes += other.due_bytes;
        self.due_catalog += other.due_catalog;
        self.damaged += other.damaged;
        self.unlisted += other.unlisted;
        self
    }
}

fn join<K: Ord + Copy>(sums: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    more.iter().for_each(|(key, count)| *sums.entry(*key).or_default() += count);
}

/// The greater of two, and the sum.
fn grow((most, sum): &mut (f64, f64), (other, more): (f64, f64)) {
    *most = most.max(other);
    *sum += more;
}

fn weaker(one: Option<Weakest>, other: Option<Weakest>) -> Option<Weakest> {
    let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
    let is_weaker = (b.margin, -b.unreadable) < (a.margin, -a.unreadable);
    Some(if is_weaker { b } else { a })
}

/// Of each row one holder, the one that it is best to be had from: two devices may have made one anew at once.
fn one_of_each_row(mut holders: Vec<Holder>, measure: &Measure<'_>) -> Vec<Holder> {
    let rank = |holder: &Holder| {
        let known = measure.known(&holder.peer);
        (known.is_some_and(|known| known.connected), known.map_or(0.0, |known| known.there))
    };
    let is_in_order = holders.is_sorted_by(|a, b| a.row < b.row);
    if !is_in_order {
        holders.sort_by(|a, b| {
            let ((here, there), (other_here, other_there)) = (rank(a), rank(b));
            a.row.cmp(&b.row).then(other_here.cmp(&here)).then(other_there.total_cmp(&there))
        });
        holders.dedup_by_key(|holder| holder.row);
    }
    holders
}

/// How often each is there.
fn groups<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.chunk_by(|a, b| a == b).filter_map(|same| Some((*same.first()?, same.len()))).collect()
}

/// How many of those that have so many rows each may go, whichever they are, until fewer than k rows are left. Below zero: so many
/// rows are missing now.
pub(super) fn margin(k: u8, mut rows: Vec<usize>) -> i32 {
    // Where peers are few, one can hold several.
    rows.sort_unstable();
    let (k, mut left) = (usize::from(k), rows.iter().sum::<usize>());
    if left < k {
        return left as i32 - k as i32;
    }
    let may_go = |most: &&usize| {
        left = left.saturating_sub(**most);
        left >= k
    };
    rows.iter().rev().take_while(may_go).count() as i32
}

#[cfg(test)]
mod tests;

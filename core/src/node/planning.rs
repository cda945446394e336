//! The plan that is made for the donors that a node knows, or why there is none.

use std::cmp::Reverse;

use thiserror::Error;

use super::Context;
use super::peers::{Peer, Peers};
use crate::durability::{K_PREFERRED, Outlook, Plan};
use crate::limits::{KIB, PLACED_MAX};
use crate::segment::full_shard_len;

/// Room for a shard, without which a donor counts for no plan.
pub(super) fn room() -> u64 {
    full_shard_len(K_PREFERRED) as u64
}

/// What a plan has to know of a donor: bytes that it still takes, and with which probability it is there in each hour of
/// the day.
#[derive(Clone, Copy)]
pub(super) struct Donor {
    pub(super) free: u64,
    pub(super) by_hour: [f64; 24],
}

/// The plan for these donors, for the hour of the day in which fewest of them are there; see [`Outlook`].
fn plan_of(donors: &[Donor], departures: f64) -> Option<Plan> {
    let count = donors.len().max(1) as f64;
    let mean = |hour: usize| donors.iter().map(|donor| donor.by_hour[hour]).sum::<f64>() / count;
    let means = (0..24).map(|hour| (hour, mean(hour)));
    let (hour, availability) = means.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or_default();
    let plan = Outlook { departures, ..Outlook::of(donors.len(), availability) }.plan()?;
    if usize::from(plan.n) < donors.len() {
        // Which of them it will be is not known: the mean stands for them.
        return Some(plan);
    }
    Some(plan.among(&donors.iter().map(|donor| donor.by_hour[hour]).collect::<Vec<f64>>()))
}

/// The plan for donors of which each will take the shards of a full segment: one with less room than that counts for none,
/// since rows that wait for it would wait for good. Where no two have as much, segments get smaller (see
/// [`super::Node::shard_room`]) rather than not to be placed at all.
pub(super) fn plan_for(mut donors: Vec<Donor>, departures: f64) -> Option<Plan> {
    donors.sort_by_key(|donor| Reverse(donor.free));
    let plan = |most: usize| plan_of(&donors[..most], departures);
    let takes = |plan: &Plan| donors[usize::from(plan.n) - 1].free >= full_shard_len(plan.k) as u64;
    // With more than twice what a plan places there is not another plan for one more or one less.
    let fewer = (2..donors.len().min(2 * PLACED_MAX)).rev();
    let full = std::iter::once(donors.len()).chain(fewer).find_map(|most| plan(most).filter(takes));
    full.or_else(|| plan(donors.len()))
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPlan {
    /// Donors are missing.
    #[error("fewer than two peers that donate space are connected; invite some")]
    Few,
    /// They are there, and have no room.
    #[error(
        "the {donors} connected peers that donate space are full: {roomy} of them have room for a shard of {} KiB, where \
         two are needed, and all of them together have {} KiB left{}; free some space there, or invite more",
        room() / KIB as u64,
        .free / KIB as u64,
        newcomers(*.to_newcomer)
    )]
    Full {
        /// How many there are,
        donors: usize,
        /// those with room among them,
        roomy: usize,
        /// and bytes that all of them together have left.
        free: u64,
        /// Those without room that would have some for others: this node is a newcomer to them.
        to_newcomer: usize,
    },
}

/// What to know of donors to which this node is a newcomer.
fn newcomers(count: usize) -> String {
    match count {
        0 => String::new(),
        _ => format!(
            ": {count} of them keep what is left for peers that they know and for those that store for them, so become a contact \
             of theirs, or give space"
        ),
    }
}

impl Peers {
    /// The longest shard for which `n` donors have room, as far as one knows; none when fewer count for a plan.
    pub(super) fn shard_room(&self, context: &Context, n: u8) -> Option<u64> {
        let now = context.now.mono;
        let mut free: Vec<u64> =
            self.unspared().filter(|(_, peer)| peer.takes_shards(now)).map(|(_, peer)| peer.free).collect();
        free.sort_unstable_by_key(|free| Reverse(*free));
        free.get(usize::from(n).checked_sub(1)?).copied()
    }

    /// Why there is none.
    pub(super) fn no_plan(&self, context: &Context) -> NoPlan {
        let now = context.now.mono;
        let takes = |peer: &&Peer| peer.is_donor() && peer.blocked_until <= now;
        let donors: Vec<&Peer> = self.unspared().map(|(_, peer)| peer).filter(takes).collect();
        if donors.len() < 2 {
            return NoPlan::Few;
        }
        let roomy = donors.iter().filter(|peer| peer.takes_shards(now)).count();
        // They say what they like.
        let free = donors.iter().fold(0, |free: u64, peer| free.saturating_add(peer.free));
        let to_newcomer = donors.iter().filter(|peer| !peer.takes_shards(now) && peer.to_newcomer()).count();
        NoPlan::Full { donors: donors.len(), roomy, free, to_newcomer }
    }
}

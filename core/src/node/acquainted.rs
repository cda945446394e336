//! Whom this node's agent knows, as it has found out by other ways than their own words: what devices of people it knows
//! say of themselves in their beacons, and what stands in the placement log.

use std::collections::BTreeMap;

use crate::id::{IdentityId, PeerId};
use crate::limits::{HOLDING_PEERS_MAX, KNOWN_PEERS_MAX};

/// Whose a peer is that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Another device of the same identity.
    Own,
    /// A device of somebody whom they know.
    Contact,
}

/// A peer that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquaintance {
    /// Whose it is.
    pub whose: Whose,
    /// Which identity vouches for it: all of its peers may go together, or be one.
    pub operator: IdentityId,
}

/// Who is known, and who stores how much for this identity. In place of what was told before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acquainted {
    known: BTreeMap<PeerId, Acquaintance>,
    holding: BTreeMap<PeerId, u64>,
    /// The sum of that: it is asked for with every put.
    held: u64,
}

impl Acquainted {
    /// These peers are known, and these hold so many bytes of shards of this identity. Of more than [`KNOWN_PEERS_MAX`]
    /// and [`HOLDING_PEERS_MAX`] the own ones stay, and those that hold most.
    pub fn new(
        known: impl IntoIterator<Item = (PeerId, Acquaintance)>,
        holding: impl IntoIterator<Item = (PeerId, u64)>,
    ) -> Self {
        let mut known: Vec<(PeerId, Acquaintance)> = known.into_iter().collect();
        // A peer that two claim is that of the first: the own devices' word counts before that of others.
        known.sort_by_key(|(peer, one)| (one.whose, *peer, one.operator));
        let mut kept = BTreeMap::new();
        for (peer, one) in known {
            if kept.len() < KNOWN_PEERS_MAX {
                kept.entry(peer).or_insert(one);
            }
        }
        let mut holding: Vec<(PeerId, u64)> = holding.into_iter().collect();
        holding.sort_by_key(|(peer, bytes)| (std::cmp::Reverse(*bytes), *peer));
        holding.truncate(HOLDING_PEERS_MAX);
        let holding: BTreeMap<PeerId, u64> = holding.into_iter().collect();
        let held = holding.values().fold(0, |all: u64, bytes| all.saturating_add(*bytes));
        Self { known: kept, holding, held }
    }

    /// What is known of a peer.
    pub fn of(&self, peer: &PeerId) -> Option<&Acquaintance> {
        self.known.get(peer)
    }

    /// Bytes of shards that a peer holds for this identity.
    pub fn held_by(&self, peer: &PeerId) -> u64 {
        self.holding.get(peer).copied().unwrap_or(0)
    }

    /// The same of all peers together.
    pub fn held(&self) -> u64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(i: u32) -> PeerId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&i.to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn of_too_many_the_own_ones_stay_and_those_that_hold_most() {
        let one = |whose, by: u8| Acquaintance { whose, operator: IdentityId([by; 32]) };
        let many = KNOWN_PEERS_MAX as u32 + 9;
        let contacts = (0..many).map(|i| (peer(i), one(Whose::Contact, 2)));
        // The last ones are claimed by a contact, too.
        let own = (many - 3..many).map(|i| (peer(i), one(Whose::Own, 1)));
        let holding = (0..HOLDING_PEERS_MAX as u32 + 9).map(|i| (peer(i), u64::from(i)));
        let all = Acquainted::new(contacts.chain(own), holding);
        assert_eq!((all.known.len(), all.holding.len()), (KNOWN_PEERS_MAX, HOLDING_PEERS_MAX));
        assert_eq!(all.of(&peer(many - 1)).map(|one| one.operator), Some(IdentityId([1; 32])));
        assert_eq!(
            (all.held_by(&peer(0)), all.held_by(&peer(HOLDING_PEERS_MAX as u32))),
            (0, HOLDING_PEERS_MAX as u64)
        );
    }

    #[test]
    fn sums_do_not_overflow() {
        assert_eq!(Acquainted::new([], [(peer(1), u64::MAX), (peer(2), 1)]).held(), u64::MAX);
    }
}

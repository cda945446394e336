//! A person whom this one knows, as the keystore has them.
//!
//! Two devices may change contacts at once. So each of them says when it was changed last, the newest change of one
//! identity counts, and one that was removed stays as a mark: sets of changes come to the same in any order.
//!
//! Who says when is the clock of the device that makes a change, and that may be wrong or lie. So a change of more than a day
//! ahead counts as the oldest that there is, wherever it lies: it is taken in where there is no other one, and is in nobody's
//! way. It needs the own clock, and is forgotten by it alone: which of the others is the newest does not depend on when they
//! are heard of, so that devices whose clocks are right come to the same once they have heard of the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use hypernet_core::id::IdentityId;
use hypernet_core::identity::place::Address;
use hypernet_core::name::is_name;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

/// Contacts in one keystore, with marks of those that were removed. The marks make room first, the oldest before the
/// others.
pub(crate) const CONTACTS_MAX: usize = 1024;
/// Longest name, in bytes.
pub(crate) const CONTACT_NAME_MAX: usize = 64;
/// How far ahead of this device's clock that of another one may be: what it says is of a later time is of none.
const AHEAD_MAX: u64 = 24 * 60 * 60 * 1000;
/// 2026-11-29. A clock that shows an earlier time was not set yet, and says of no other one that it is ahead.
const NOT_SET: u64 = 1_795_910_400_000;

/// One contact.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Contact {
    /// Who it is: pinned when they were added.
    #[n(0)]
    pub(crate) identity: IdentityId,
    /// When any of this was changed last.
    #[n(1)]
    pub(crate) changed: Hlc,
    /// It was removed, and the rest is of no account.
    #[n(2)]
    pub(crate) is_removed: bool,
    /// What they are called here.
    #[n(3)]
    pub(crate) name: String,
    #[cbor(n(4), with = "minicbor::bytes")]
    signer: [u8; 32],
    #[cbor(n(5), with = "minicbor::bytes")]
    secret: [u8; 16],
    /// Two people have compared what their devices showed.
    #[n(6)]
    pub(crate) is_verified: bool,
}

/// Not what opens the way to them.
impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, changed, is_removed, name, is_verified, .. } = self;
        let mut shown = f.debug_struct("Contact");
        shown.field("identity", identity).field("changed", changed).field("is_removed", is_removed);
        shown.field("name", name).field("is_verified", is_verified).finish_non_exhaustive()
    }
}

impl Contact {
    /// One that nobody has verified.
    pub(crate) fn new(name: &str, identity: IdentityId, address: Address, now: Hlc) -> Self {
        let Address { signer, secret } = address;
        let (is_removed, is_verified) = (false, false);
        Self { identity, changed: now, is_removed, name: name.to_owned(), signer, secret, is_verified }
    }

    /// The same, by a clock that shows `now`.
    pub(crate) fn by_clock(self, now: Hlc) -> Self {
        let is_ahead = now.millis >= NOT_SET && self.changed.millis > now.millis.saturating_add(AHEAD_MAX);
        let changed = if is_ahead { Hlc::default() } else { self.changed };
        Self { changed, ..self }
    }

    /// Whether it can be called so.
    fn is_sound(&self) -> bool {
        is_name(&self.name, CONTACT_NAME_MAX)
    }

    /// Where they are found.
    pub(crate) fn address(&self) -> Address {
        Address { signer: self.signer, secret: self.secret }
    }
}

/// Takes in what another copy has: of each identity the newest change, and of all what there is room for. What no device
/// that means well has written is left out.
pub(crate) fn merge(mine: &mut Vec<Contact>, others: &[Contact], now: Hlc) {
    let mut newest: BTreeMap<IdentityId, Contact> = BTreeMap::new();
    let all = mine.drain(..).chain(others.iter().filter(|other| other.is_sound()).cloned());
    for contact in all.map(|contact| contact.by_clock(now)) {
        let held = newest.entry(contact.identity).or_insert_with(|| contact.clone());
        if (contact.changed, &contact) > (held.changed, &*held) {
            *held = contact;
        }
    }
    mine.extend(newest.into_values());
    if mine.len() > CONTACTS_MAX {
        mine.sort_by_key(|one| (one.is_removed, Reverse(one.changed), one.identity));
        mine.truncate(CONTACTS_MAX);
        mine.sort_by_key(|one| one.identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_the_way_to_somebody_is_not_shown() {
        let shown = format!("{:?}", contact(0x5a, 1));
        assert!(!shown.contains("90, 90") && shown.contains("contact 90"), "{shown}");
    }

    const NOW: Hlc = Hlc { millis: NOT_SET, counter: 0 };

    fn contact(byte: u8, millis: u64) -> Contact {
        let address = Address { signer: [byte; 32], secret: [byte; 16] };
        Contact::new(&format!("contact {byte}"), IdentityId([byte; 32]), address, Hlc { millis, counter: 0 })
    }

    fn merged(parts: &[&[Contact]]) -> Vec<Contact> {
        let mut all = Vec::new();
        parts.iter().for_each(|part| merge(&mut all, part, NOW));
        all
    }

    #[test]
    fn the_newest_change_counts_in_whatever_order_changes_are_heard_of() {
        let (old, mut verified, mut gone) = (contact(1, 1), contact(1, 2), contact(1, 3));
        verified.is_verified = true;
        gone.is_removed = true;
        let other = contact(2, 1);
        let parts: [&[Contact]; 3] = [&[old, other.clone()], &[verified], std::slice::from_ref(&gone)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(merged(&order.map(|at| parts[at])), [gone.clone(), other.clone()], "{order:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_bends_a_terminal_is_not_taken_in() {
        let called = |name: &str| Contact { name: name.to_owned(), ..contact(1, 9) };
        let mine = [contact(1, 1)];
        for name in ["", " a", "\u{1b}[2J", "a\nb", "a\u{202e}b", &"x".repeat(1 << 20)] {
            assert_eq!(merged(&[&mine, &[called(name)]]), mine, "{} bytes", name.len());
        }
    }

    /// One device's clock is far ahead, or its thief wants to have the last word.
    #[test]
    fn a_change_from_the_year_9999_has_no_last_word() {
        let far = [Hlc { millis: 253_370_764_800_000, counter: 0 }, Hlc { millis: u64::MAX, counter: u32::MAX }];
        for changed in far {
            let frozen = Contact { changed, is_removed: true, ..contact(1, 0) };
            let (old, new) = (contact(1, 1), Contact { is_verified: true, ..contact(1, 2) });
            let parts = [&old, &frozen, &new].map(std::slice::from_ref);
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                assert_eq!(merged(&order.map(|at| parts[at])), std::slice::from_ref(&new), "{order:?}");
            }
            // Also where it lies in the own keystore, and it stays where it is the only one.
            let mut mine = vec![frozen.clone()];
            merge(&mut mine, &[], NOW);
            assert_eq!(mine, [Contact { changed: Hlc::default(), ..frozen.clone() }]);
            merge(&mut mine, parts[0], NOW);
            assert_eq!(mine, [old]);
        }
        // A clock that is a little ahead is one.
        let soon = contact(1, NOW.millis + AHEAD_MAX);
        assert_eq!(merged(&[&[contact(1, 5)], std::slice::from_ref(&soon)]), std::slice::from_ref(&soon));
        // One that was not set yet makes nobody else's a wrong one.
        let mut mine = vec![contact(1, 5)];
        merge(&mut mine, std::slice::from_ref(&soon), Hlc::default());
        assert_eq!(mine, [soon]);
    }

    #[test]
    fn two_changes_of_one_moment_come_to_the_same() {
        let (one, mut other) = (contact(1, 1), contact(1, 1));
        other.name = "anna".into();
        let both = [std::slice::from_ref(&one), std::slice::from_ref(&other)];
        let found = merged(&both);
        assert_eq!((found.len(), &found), (1, &merged(&[both[1], both[0]])));
    }

    #[test]
    fn marks_make_room_first() {
        let numbered = |number: u64, is_removed| {
            let mut one = contact(0, number);
            one.identity.0[..8].copy_from_slice(&number.to_be_bytes());
            Contact { is_removed, ..one }
        };
        let there: Vec<_> = (0..CONTACTS_MAX as u64 - 10).map(|number| numbered(number, false)).collect();
        let gone: Vec<_> = (10_000..10_020).map(|number| numbered(number, true)).collect();
        let all = merged(&[&gone, &there]);
        assert_eq!(all.len(), CONTACTS_MAX);
        assert_eq!(all.iter().filter(|one| one.is_removed).count(), 10);
        assert!(all.iter().filter(|one| one.is_removed).all(|one| one.changed.millis >= 10_010), "the oldest go");
    }
}

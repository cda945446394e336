//! A person whom this one knows, as the keystore has them.
//!
//! Two devices may change contacts at once. So each of them says when it was changed last, the newest change of one
//! identity counts, and one that was removed stays as a mark: sets of changes come to the same in any order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hypernet_core::id::IdentityId;
use hypernet_core::identity::place::Address;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

/// Contacts in one keystore, with marks of those that were removed. The marks make room first, the oldest before the
/// others.
pub(crate) const CONTACTS_MAX: usize = 1024;
/// Longest name, in bytes.
pub(crate) const CONTACT_NAME_MAX: usize = 64;

/// One contact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
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

impl Contact {
    /// One that nobody has verified.
    pub(crate) fn new(name: &str, identity: IdentityId, address: Address, now: Hlc) -> Self {
        let Address { signer, secret } = address;
        let (is_removed, is_verified) = (false, false);
        Self { identity, changed: now, is_removed, name: name.to_owned(), signer, secret, is_verified }
    }

    /// Whether it can be called so.
    fn is_sound(&self) -> bool {
        (1..=CONTACT_NAME_MAX).contains(&self.name.len()) && !self.name.chars().any(char::is_control)
    }

    /// Where they are found.
    pub(crate) fn address(&self) -> Address {
        Address { signer: self.signer, secret: self.secret }
    }
}

/// Takes in what another copy has: of each identity the newest change, and of all what there is room for. What no device
/// that means well has written is left out.
pub(crate) fn merge(mine: &mut Vec<Contact>, others: &[Contact]) {
    let mut newest: BTreeMap<IdentityId, Contact> = BTreeMap::new();
    for contact in mine.drain(..).chain(others.iter().filter(|other| other.is_sound()).cloned()) {
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

    fn contact(byte: u8, millis: u64) -> Contact {
        let address = Address { signer: [byte; 32], secret: [byte; 16] };
        Contact::new(&format!("contact {byte}"), IdentityId([byte; 32]), address, Hlc { millis, counter: 0 })
    }

    fn merged(parts: &[&[Contact]]) -> Vec<Contact> {
        let mut all = Vec::new();
        parts.iter().for_each(|part| merge(&mut all, part));
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
        for name in ["", "\u{1b}[2J", "a\nb", &"x".repeat(1 << 20)] {
            assert_eq!(merged(&[&mine, &[called(name)]]), mine, "{} bytes", name.len());
        }
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

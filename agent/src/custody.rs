//! Custodians: peers that keep somebody's segments whole while none of their devices runs.
//!
//! - here: who they are, as the owner's keystore has them, and the *ticket* by which one is appointed;
//! - `entrusting`: the owner's side, which tells where segments are and takes in what has moved;
//! - `serving`: the custodian's side, with the tickets that it has given out;
//! - `ward`: one volume of somebody else's, there.
//!
//! How they find each other, and what they tell each other, is [`hypernet_core::custody`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use hypernet_core::custody::{Appointment, Tag};
use hypernet_core::id::PeerId;
use hypernet_core::key::Secret;
use hypernet_core::limits::CUSTODIANS_MAX;
use hypernet_core::name::is_name;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

use crate::failure::{Failure, Kind};

mod entrusting;
pub(crate) mod serving;
pub(crate) mod ward;

/// Longest name of one, in bytes.
pub(crate) const NAME_MAX: usize = 64;
/// Marks of those that were removed, which a keystore keeps.
const MARKS_MAX: usize = 64;

/// One custodian, as the keystore has them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Custodian {
    #[n(0)]
    secret: Secret,
    /// When any of this was changed last.
    #[n(1)]
    pub(crate) changed: Hlc,
    /// It was removed, and the rest is of no account.
    #[n(2)]
    pub(crate) is_removed: bool,
    #[n(3)]
    pub(crate) peer: PeerId,
    /// What it is called here.
    #[n(4)]
    pub(crate) name: String,
}

/// Not what opens its places.
impl fmt::Debug for Custodian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custodian").field("peer", &self.peer).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Custodian {
    /// Whoever has given out this ticket.
    pub(crate) fn new(ticket: &Ticket, name: &str, now: Hlc) -> Self {
        let secret = ticket.appointment.secret().clone();
        Self { secret, changed: now, is_removed: false, peer: ticket.peer, name: name.to_owned() }
    }

    /// What both have in common.
    pub(crate) fn appointment(&self) -> Appointment {
        Appointment::new(self.secret.clone())
    }

    /// By which both sides name it.
    pub(crate) fn tag(&self) -> Tag {
        self.appointment().tag()
    }
}

/// Takes in what another keystore has: of each appointment the later change.
pub(crate) fn merge(mine: &mut Vec<Custodian>, others: &[Custodian]) {
    let rank = |one: &Custodian| (one.changed, one.is_removed, one.peer, one.name.clone());
    let mut all: BTreeMap<[u8; 32], Custodian> = BTreeMap::new();
    for one in mine.drain(..).chain(others.iter().filter(|one| is_name(&one.name, NAME_MAX)).cloned()) {
        let known = all.entry(*one.secret.expose()).or_insert_with(|| one.clone());
        if rank(&one) > rank(known) {
            *known = one;
        }
    }
    let (mut gone, mut there): (Vec<Custodian>, Vec<Custodian>) = all.into_values().partition(|one| one.is_removed);
    for (list, most) in [(&mut gone, MARKS_MAX), (&mut there, CUSTODIANS_MAX)] {
        list.sort_by_key(|one| (Reverse(one.changed), *one.secret.expose()));
        list.truncate(most);
    }
    mine.extend(there.into_iter().chain(gone));
    mine.sort_by_key(|one| *one.secret.expose());
}

/// Those that are there, by name.
pub(crate) fn named(all: &[Custodian]) -> Vec<Custodian> {
    let mut there: Vec<Custodian> = all.iter().filter(|one| !one.is_removed).cloned().collect();
    there.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
    there
}

const HRP: Hrp = Hrp::parse_unchecked("hnc");
const TICKET_BYTES: usize = 64;

/// What a custodian gives out, and whoever has it appoints that one by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) peer: PeerId,
    pub(crate) appointment: Appointment,
}

impl Ticket {
    /// As it is handed on: Bech32m, in lower case.
    pub(crate) fn text(&self) -> String {
        let bytes = [&self.peer.as_bytes()[..], self.appointment.secret().expose()].concat();
        // 64 bytes fit.
        bech32::encode::<Bech32m>(HRP, &bytes).unwrap_or_default()
    }

    /// What somebody has pasted or typed.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(Kind::Usage, format!("not a custodian's ticket: {why}"))
                .hint("copy all of the line that `hn custodian offer` prints there, which begins with hnc1")
        };
        let text = text.trim();
        if !text.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("hnc1")) {
            return Err(wrong("it does not begin with hnc1"));
        }
        let slip = "its checksum does not fit, so it is cut short or a character of it is mistyped";
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| wrong(slip))?;
        let bytes: Vec<u8> = checked.byte_iter().take(TICKET_BYTES + 1).collect();
        let split = bytes.split_first_chunk::<32>().and_then(|(peer, rest)| Some((*peer, rest.try_into().ok()?)));
        match split {
            Some((peer, secret)) if checked.hrp() == HRP => {
                Ok(Self { peer: PeerId(peer), appointment: Appointment::new(Secret::new(secret)) })
            }
            _ => Err(wrong(slip)),
        }
    }
}

/// Always the same one.
#[cfg(test)]
pub(crate) fn fixed() -> Custodian {
    let ticket = Ticket { peer: PeerId([1; 32]), appointment: Appointment::new(Secret::new([2; 32])) };
    Custodian { is_removed: true, ..Custodian::new(&ticket, "nas", Hlc { millis: 3, counter: 1 }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custodian(byte: u8, name: &str, millis: u64) -> Custodian {
        let ticket = Ticket { peer: PeerId([byte; 32]), appointment: Appointment::new(Secret::new([byte; 32])) };
        Custodian::new(&ticket, name, Hlc { millis, counter: 0 })
    }

    #[test]
    fn what_two_keystores_have_comes_to_the_same_and_who_was_removed_stays_so() {
        let (one, other) = (custodian(1, "nas", 1), custodian(2, "nas", 2));
        let gone = Custodian { is_removed: true, changed: Hlc { millis: 3, counter: 0 }, ..one.clone() };
        let (mut a, mut b) = (vec![one.clone()], vec![other.clone()]);
        merge(&mut a, &b);
        merge(&mut b, &[one.clone(), gone.clone()]);
        merge(&mut a, &b);
        merge(&mut b, std::slice::from_ref(&one));
        assert_eq!((&a, a.len()), (&b, 2));
        assert_eq!(named(&a), std::slice::from_ref(&other));
        let many: Vec<Custodian> = (3..250).map(|byte| custodian(byte, "x", byte.into())).collect();
        merge(&mut a, &many);
        assert_eq!((named(&a).len(), a.len()), (CUSTODIANS_MAX, CUSTODIANS_MAX + 1));
        let mut bad = Vec::new();
        merge(&mut bad, &[custodian(1, "\n", 1)]);
        assert!(bad.is_empty());
    }

    #[test]
    fn a_ticket_is_read_as_it_was_written_and_a_slip_is_named() {
        let ticket = Ticket { peer: PeerId([7; 32]), appointment: Appointment::new(Secret::new([9; 32])) };
        let text = ticket.text();
        assert!(text.starts_with("hnc1"), "{text}");
        for typed in [text.clone(), text.to_uppercase(), format!(" {text}\n")] {
            assert_eq!(Ticket::parse(&typed).unwrap(), ticket);
        }
        for at in 4..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
            let failure = Ticket::parse(&String::from_utf8(typed).unwrap()).unwrap_err();
            assert!(failure.message.contains("checksum") && failure.hint.is_some(), "{failure}");
            assert!(Ticket::parse(&text[..at]).is_err());
        }
        assert!(Ticket::parse("hn1qqq").unwrap_err().message.contains("does not begin"));
        assert!(Ticket::parse("").is_err());
    }
}

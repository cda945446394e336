//! The code by which two agents meet: a random number that names the places at which they leave word for each other.
//!
//! ```text
//! mvqx-7k2p-wd3h-4c5a                        16 characters of base32: 64 random bits, 16 bits that find a slip
//! hypernet:pair/mvqx-7k2p-wd3h-4c5a/…?via=…  the same with the rest of an invite link, for who is on no mesh yet
//! ```
//!
//! It is a name and no secret to rely on: whoever has it can take the other side's place, and is found out when people
//! compare what they see. Who keeps the records has not got it, and in the minutes for which it is good cannot try them all.

use std::fmt;

use data_encoding::BASE32;
use hypernet_core::identity::place::Place;
use hypernet_core::key::Secret;
use zeroize::Zeroizing;

use super::sas::Role;
use crate::failure::{Failure, Kind};
use crate::keystore::random_secret;

/// How a link begins that carries a code.
const SCHEME: &str = "hypernet:pair/";
/// Random bytes, and all with the sum.
const RANDOM: usize = 8;
const ALL: usize = RANDOM + 2;
/// Characters in a group.
const GROUP: usize = 4;
/// Nobody types more.
const TEXT_MAX: usize = 64;

const SUM_CONTEXT: &str = "hypernet 2026 pairing code sum v1";
const PLACE_CONTEXT: &str = "hypernet 2026 pairing place v1";

/// A code. It never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Code([u8; RANDOM]);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

fn sum(random: &[u8; RANDOM]) -> [u8; ALL - RANDOM] {
    let hash = blake3::derive_key(SUM_CONTEXT, random);
    [hash[0], hash[1]]
}

impl Code {
    /// A new one.
    pub(crate) fn random() -> Result<Self, Failure> {
        let mut random = [0; RANDOM];
        random.copy_from_slice(&random_secret()?.expose()[..RANDOM]);
        Ok(Self(random))
    }

    /// As a person writes it.
    pub(crate) fn text(&self) -> String {
        let bytes = [&self.0[..], &sum(&self.0)].concat();
        let all = BASE32.encode(&bytes).to_lowercase();
        let groups: Vec<&str> = (0..all.len()).step_by(GROUP).map(|at| &all[at..at + GROUP]).collect();
        groups.join("-")
    }

    /// What a person has typed, however they have grouped it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::new(Kind::Usage, format!("not a code: {why}"))
                .hint("look at it again on the other device; it looks like mvqx-7k2p-wd3h-4c5a")
        };
        if text.len() > TEXT_MAX {
            return Err(wrong("it is too long".into()));
        }
        let read = |c: char| match c.to_ascii_uppercase() {
            // No code has these; who writes them by hand means what they look like.
            '0' => 'O',
            '1' => 'I',
            '8' => 'B',
            other => other,
        };
        let typed: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(read).collect();
        let wanted = ALL * 8 / 5;
        match typed.chars().count() {
            count if count == wanted => {}
            count => return Err(wrong(format!("it has {count} letters and digits where {wanted} are needed"))),
        }
        let bytes = BASE32.decode(typed.as_bytes()).map_err(|_| wrong("it has a character that no code has".into()))?;
        let (random, found) = bytes.split_at_checked(RANDOM).ok_or_else(|| wrong("it is cut short".into()))?;
        let random: [u8; RANDOM] = random.try_into().map_err(|_| wrong("it is cut short".into()))?;
        if found != sum(&random) {
            return Err(wrong("a character of it is mistyped".into()));
        }
        Ok(Self(random))
    }

    /// The link that carries it and the mesh of an invite link.
    pub(crate) fn link(&self, invite: &str) -> String {
        let rest = invite.strip_prefix(crate::invite::SCHEME).unwrap_or(invite);
        format!("{SCHEME}{}/{rest}", self.text())
    }

    fn place_of(&self, what: u8) -> Place {
        let bytes = Zeroizing::new([&self.0[..], &[what]].concat());
        Place::new(Secret::new(blake3::derive_key(PLACE_CONTEXT, &bytes)))
    }

    /// Where one of the two leaves word.
    pub(crate) fn place(&self, role: Role) -> Place {
        self.place_of(match role {
            Role::Shows => 0,
            Role::Enters => 1,
        })
    }

    /// Where there is what is too long to be said.
    pub(crate) fn parcels(&self) -> [Place; 2] {
        [2, 3].map(|what| self.place_of(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed_and_a_slip_is_found() {
        let code = Code([0x5a, 1, 2, 3, 4, 5, 6, 0xff]);
        let text = code.text();
        assert_eq!((text.len(), text.split('-').count()), (19, 4));
        let loud = text.to_uppercase().replace('-', " ");
        let looks_like = text.replace('o', "0").replace('i', "1").replace('b', "8");
        for typed in [text.as_str(), &loud, &text.replace('-', ""), &looks_like, &format!("  {text}\n")] {
            assert_eq!(Code::parse(typed).unwrap(), code, "{typed}");
        }
        let says = |typed: &str, what: &str| {
            let failure = Code::parse(typed).unwrap_err();
            assert!(failure.message.contains(what) && failure.hint.is_some(), "{typed}: {failure}");
        };
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'a' { b'c' } else { b'a' };
            says(std::str::from_utf8(&typed).unwrap(), "mistyped");
        }
        says(&text[..text.len() - 1], "15 letters and digits where 16 are needed");
        says("", "0 letters");
        says("abcd-efgh-ijkl-mno!", "character that no code has");
        says(&"a".repeat(100), "too long");
    }

    #[test]
    fn no_two_places_of_one_code_or_of_two_are_one() {
        let codes = [Code([1; 8]), Code([2; 8])];
        let places = |code: &Code| {
            let [one, other] = code.parcels();
            [code.place(Role::Shows), code.place(Role::Enters), one, other]
        };
        let mut all: Vec<_> = codes.iter().flat_map(places).map(|place| place.signer()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
        assert_eq!(format!("{:?}", codes[0]), "Code(..)");
    }

    #[test]
    fn a_link_carries_the_code_and_the_mesh() {
        let code = Code([7; 8]);
        let link = code.link("hypernet:join/abcd?via=/ip4/1.2.3.4");
        assert_eq!(link, format!("hypernet:pair/{}/abcd?via=/ip4/1.2.3.4", code.text()));
    }

    #[test]
    fn what_is_typed_is_never_a_panic() {
        crate::golden::mutations(Code([9; 8]).text().as_bytes(), |bytes| {
            let _ = Code::parse(&String::from_utf8_lossy(bytes));
        });
    }
}

//! The address of a person, as they hand it on: `hn1…`, 86 characters.
//!
//! It is what the signpost is found and opened by: 32 bytes that sign it and 16 that open it, in Bech32m, which finds every
//! slip of up to four characters in a text of this length. Whose it is stands in the signpost, in
//! which that identity has signed the address; with the identity in it as well the address would be longer than the checksum is good for,
//! and say nothing that is not signed there.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use hypernet_core::identity::place::Address;

use crate::failure::{Failure, Kind};

const HRP: Hrp = Hrp::parse_unchecked("hn");
const BYTES: usize = 48;
/// What an address has, no more and no less.
const CHARS: usize = 86;

/// In words for people: lower case.
pub(crate) fn text(address: &Address) -> String {
    let bytes = [&address.signer[..], &address.secret].concat();
    // 48 bytes fit.
    bech32::encode::<Bech32m>(HRP, &bytes).unwrap_or_default()
}

/// What somebody has pasted, typed or read from a picture.
pub(crate) fn parse(text: &str) -> Result<Address, Failure> {
    let wrong = |why: String| {
        Failure::new(Kind::Usage, format!("not an address: {why}"))
            .hint("copy all of the line that `hn id` prints there, which begins with hn1")
    };
    let text = text.trim();
    if !text.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case("hn1")) {
        return Err(wrong("it does not begin with hn1".into()));
    }
    match text.chars().count() {
        CHARS => {}
        count if count < CHARS => return Err(wrong(format!("it is cut short: it has {count} of {CHARS} characters"))),
        _ => return Err(wrong(format!("it is longer than {CHARS} characters"))),
    }
    let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|error| {
        tracing::debug!(%error, "an address is refused");
        wrong("its checksum does not fit, so a character of it is mistyped".into())
    })?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    let (signer, secret) = bytes.split_at_checked(32).ok_or_else(|| wrong("it is cut short".into()))?;
    match (checked.hrp() == HRP && bytes.len() == BYTES, signer.try_into(), secret.try_into()) {
        (true, Ok(signer), Ok(secret)) => Ok(Address { signer, secret }),
        _ => Err(wrong("its checksum does not fit, so a character of it is mistyped".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address { signer: [0x5a; 32], secret: [7; 16] }
    }

    #[test]
    fn an_address_is_read_in_either_case_and_is_as_long_as_ever() {
        let text = text(&address());
        assert_eq!(text.len(), CHARS);
        // It is on paper and in mails: it reads as ever.
        let golden = "hn1tfd95kj6tfd95kj6tfd95kj6tfd95kj6tfd95kj6tfd95kj6tfdqwpc8qurswpc8qurswpc8qursw7kx83s";
        assert_eq!(text, golden);
        for typed in [text.clone(), text.to_uppercase(), format!(" {text}\n")] {
            assert_eq!(parse(&typed).unwrap(), address());
        }
    }

    #[test]
    fn a_slip_anywhere_is_named_and_so_is_a_cut() {
        let text = text(&address());
        let says = |typed: &str, what: &str| {
            let failure = parse(typed).unwrap_err();
            assert!(failure.message.contains(what) && failure.hint.is_some(), "{typed}: {failure}");
        };
        for at in 3..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
            says(std::str::from_utf8(&typed).unwrap(), "checksum");
            if at + 1 < text.len() && text.as_bytes()[at] != text.as_bytes()[at + 1] {
                let mut typed = text.clone().into_bytes();
                typed.swap(at, at + 1);
                says(std::str::from_utf8(&typed).unwrap(), "checksum");
            }
            says(&text[..at], "cut short");
        }
        says(&format!("{text}q"), "longer");
        says("anna@example.org", "begin with hn1");
        says("", "begin with hn1");
        // Half in capitals is no writing of it.
        says(&format!("{}{}", &text[..40], text[40..].to_uppercase()), "checksum");
    }

    #[test]
    fn what_is_typed_is_never_a_panic() {
        crate::golden::mutations(text(&address()).as_bytes(), |bytes| {
            if let Ok(parsed) = parse(&String::from_utf8_lossy(bytes)) {
                assert_eq!(parse(&text(&parsed)).unwrap(), parsed);
            }
        });
    }
}

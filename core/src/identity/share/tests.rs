use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::codec;

fn phrase(byte: u8) -> Phrase {
    Phrase::new(&Secret::new([byte; 32]))
}

fn guardians(count: u8) -> Vec<(IdentityId, String)> {
    (1..=count).map(|i| (IdentityId([i; 32]), format!("guardian {i}"))).collect()
}

fn terms(set: u8, threshold: u8) -> Terms {
    Terms { set: ShareSetId([set; 16]), made: Hlc { millis: set.into(), counter: 0 }, threshold }
}

fn random(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// Those of a set.
fn shares(words: u8, set: u8, threshold: u8, count: u8) -> Vec<Share> {
    split(&phrase(words), "", &terms(set, threshold), &guardians(count), random(set.into())).unwrap()
}

fn gathered(shares: &[Share]) -> Shares {
    let mut all = Shares::default();
    for share in shares {
        all.take(share.clone()).unwrap();
    }
    all
}

proptest! {
    #[test]
    fn so_many_give_the_words_back_and_fewer_say_so(
        entropy: [u8; 32],
        seed: u64,
        (threshold, count) in (2..=16u8).prop_flat_map(|count| (2..=count, Just(count))),
        order: prop::sample::Index,
    ) {
        let words = Phrase::new(&Secret::new(entropy));
        let mut all = split(&words, "", &terms(1, threshold), &guardians(count), random(seed)).unwrap();
        all.rotate_left(order.index(count.into()));
        let needed = usize::from(threshold);
        prop_assert_eq!(gathered(&all[..needed]).words(""), Ok(words.clone()));
        prop_assert_eq!(gathered(&all).words(""), Ok(words));
        let have = needed - 1;
        prop_assert_eq!(gathered(&all[..have]).words(""), Err(ShareError::TooFew { have, needed }));
        for (at, share) in all.iter().enumerate() {
            prop_assert!(codec::decode::<Share>(&codec::encode(share)).as_ref() == Ok(share));
            prop_assert!(all[..at].iter().all(|other| other.value != share.value));
        }
    }
}

#[test]
fn a_share_with_one_bit_changed_anywhere_is_no_share() {
    let share = &shares(7, 1, 2, 3)[0];
    let bytes = codec::encode(share);
    let mut forged = 0;
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        if let Ok(bent) = codec::decode::<Share>(&bent) {
            assert!(&bent != share, "bit {bit} says nothing");
            assert_eq!(Shares::default().take(bent), Err(ShareError::Forged), "bit {bit}");
            forged += 1;
        }
    }
    assert!(forged > 32 * 8, "{forged}");
}

#[test]
fn a_share_that_somebody_else_has_signed_or_that_is_none_is_refused() {
    let mine = shares(7, 1, 2, 3);
    // Of other words, under this identity's name.
    let other = Share { identity: mine[0].identity, ..shares(8, 1, 2, 3)[1].clone() };
    assert_eq!(gathered(&mine[..1]).take(other), Err(ShareError::Forged));
    // Of whoever has the words, and of no use.
    let keys = phrase(7).keys("");
    let refused = |share: Share| gathered(&mine[..1]).take(signed(share, &keys)).unwrap_err();
    let one = || mine[1].clone();
    assert_eq!(refused(Share { threshold: 1, ..one() }), ShareError::Terms(1, 3));
    assert_eq!(refused(Share { threshold: 4, ..one() }), ShareError::Terms(4, 3));
    assert_eq!(refused(Share { count: 200, ..one() }), ShareError::Terms(2, 200));
    for index in [0, 4] {
        assert_eq!(refused(Share { index, ..one() }), ShareError::Terms(2, 3));
    }
    for name in ["", "\u{1b}[2J", &"x".repeat(65)] {
        assert_eq!(refused(Share { name: name.into(), ..one() }), ShareError::Name);
    }
    // What shares of one set say of it they say alike.
    for other in [
        Share { threshold: 3, ..one() },
        Share { count: 4, ..one() },
        Share { has_passphrase: true, ..one() },
        Share { made: Hlc { millis: 9, counter: 0 }, ..one() },
    ] {
        assert_eq!(refused(other), ShareError::NotUniform);
    }
    assert_eq!(refused(Share { index: 1, ..one() }), ShareError::Index("guardian 1".into()));
}

#[test]
fn shares_of_two_sets_or_of_two_identities_are_never_put_together() {
    let (old, new, others) = (shares(7, 1, 3, 5), shares(7, 2, 3, 5), shares(8, 3, 2, 2));
    // Somebody comes first with what they have made themselves.
    let mut all = gathered(&others[..1]);
    assert_eq!(all.take(new[0].clone()), Ok(Taken::OtherIdentity));
    assert_eq!(all.take(new[0].clone()), Ok(Taken::Known));
    assert_eq!(all.take(new[1].clone()), Ok(Taken::OtherIdentity), "the other one lacks as many");
    // Now most are of one identity.
    assert_eq!((all.gathered().len(), all.gathered()[0].identity), (1, others[0].identity));
    assert_eq!(all.take(old[2].clone()), Ok(Taken::OtherIdentity));
    assert_eq!(all.words(""), Err(ShareError::TooFew { have: 1, needed: 2 }));
    assert_eq!(all.take(new[4].clone()), Ok(Taken::OtherIdentity));
    assert_eq!(all.words(""), Ok(phrase(7)));
    assert_eq!(all.take(old[3].clone()), Ok(Taken::OtherSet));
    assert_eq!(all.take(new[2].clone()), Ok(Taken::Fits));
    assert_eq!(all.words(""), Ok(phrase(7)));
}

#[test]
fn gathering_is_bounded() {
    let mut all = Shares::default();
    for set in 0..SHARE_SETS_MAX as u8 {
        all.take(shares(7, set, 2, 2)[0].clone()).unwrap();
    }
    assert_eq!(all.take(shares(7, 99, 2, 2)[0].clone()), Err(ShareError::Sets));
    assert_eq!(all.take(shares(7, 5, 2, 2)[1].clone()), Ok(Taken::OtherSet));
    assert_eq!(all.words(""), Ok(phrase(7)));
}

#[test]
fn what_cannot_be_shared_so_is_refused() {
    let refused =
        |threshold, count| split(&phrase(7), "", &terms(1, threshold), &guardians(count), random(1)).unwrap_err();
    for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, 1), (2, 0), (2, 17)] {
        assert_eq!(refused(threshold, count), ShareError::Terms(threshold, count.into()));
    }
    let unnamed = [guardians(1), vec![(IdentityId([9; 32]), "a\nb".into())]].concat();
    assert_eq!(split(&phrase(7), "", &terms(1, 2), &unnamed, random(1)), Err(ShareError::Name));
}

#[test]
fn a_passphrase_of_the_words_is_asked_for_and_is_in_no_share() {
    let made = split(&phrase(7), "a passphrase", &terms(1, 2), &guardians(2), random(1)).unwrap();
    assert!(made.iter().all(|share| share.has_passphrase && share.identity == phrase(7).keys("a passphrase").id()));
    let all = gathered(&made);
    assert_eq!((all.words("a passphrase"), all.words("")), (Ok(phrase(7)), Err(ShareError::Words)));
}

/// Products in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1, written down once more.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        product ^= if b & 1 == 1 { a } else { 0 };
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    product
}

/// So that another crate, or another program, puts them together in ten years.
#[test]
fn shares_are_points_of_polynomials_in_the_field_of_the_formats_page() {
    let entropy = *phrase(7).entropy().expose();
    let made = shares(7, 1, 2, 16);
    for (at, secret) in entropy.iter().enumerate() {
        let slope = made[0].value.expose()[at] ^ secret;
        for share in &made {
            assert_eq!(share.value.expose()[at], secret ^ times(slope, share.index));
        }
    }
}

/// The flaw of crates before: coefficients that are never 0, or always odd, say something of the secret.
#[test]
fn every_byte_of_a_share_is_uniform_whatever_the_secret_is() {
    const SETS: u64 = 64;
    let mut random = random(1);
    for threshold in [2, 3] {
        // Of words of which all bytes are zeros, and of others.
        for words in [0, 0xa5] {
            let mut seen = [[0u32; 256]; 3];
            for _ in 0..SETS {
                let made = split(&phrase(words), "", &terms(1, threshold), &guardians(3), &mut random).unwrap();
                for (share, seen) in made.iter().zip(&mut seen) {
                    share.value.expose().iter().for_each(|byte| seen[usize::from(*byte)] += 1);
                }
            }
            for seen in seen {
                let expected = (SETS * 32) as f64 / 256.0;
                let chi: f64 = seen.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
                // 255 degrees of freedom: it lies beyond 400 once in 10^8.
                assert!(chi < 400.0, "{chi} with {threshold} of 3 of {words:#x}");
            }
        }
    }
    let twice = [1, 2].map(|set| shares(7, set, 2, 2));
    assert!(twice[0].iter().zip(&twice[1]).all(|(one, other)| one.value != other.value), "of equal secrets");
}

#[test]
fn a_place_is_of_one_owner_and_one_guardian() {
    let address = |byte| Address { signer: [byte; 32], secret: [byte; 16] };
    let (one, other) = (place(&address(1), &address(2)), place(&address(2), &address(1)));
    assert!(one != other && one == place(&address(1), &address(2)));
    assert!(one != place(&Address { secret: [9; 16], ..address(1) }, &address(2)), "who has only half of an address");
}

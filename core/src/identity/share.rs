//! Shares of the 24 words, one for each guardian: a number of them that was agreed on gives the words back, and fewer say
//! nothing of them.
//!
//! What is split is the entropy of the words, byte by byte by Shamir's scheme over GF(2^8), with coefficients that are
//! uniform over all of the field, 0 included.
//!
//! Invariant: a share is signed by the phrase's own key, which is the identity's name, with all that it says: of which set
//! it is, where in it, for whom. So one that was forged, changed or swapped is known by itself, and nothing is ever put
//! together but shares of one identity, of one set, that say the same of that set.

use ed25519_dalek::Signer;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use thiserror::Error;
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

use crate::id::{IdentityId, ShareSetId};
use crate::identity::phrase::Phrase;
use crate::identity::place::{Address, Place};
use crate::key::{RecoveryKeys, Secret, is_signed};
use crate::limits::{GUARDIAN_NAME_MAX, GUARDIANS_MAX, SHARE_SETS_MAX};
use crate::time::Hlc;

const CONTEXT: &[u8] = b"hypernet share of the words v1\0";
const PLACE_CONTEXT: &str = "hypernet 2026 place of a share v1";

/// With one share that is enough there would be nothing to put together.
pub const THRESHOLD_MIN: u8 = 2;

/// Why shares are not made, not believed, or not put together.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum ShareError {
    /// So many of so many cannot be.
    #[error(
        "the words can be shared among {THRESHOLD_MIN} to {GUARDIANS_MAX} guardians, of whom at least {THRESHOLD_MIN} are needed: {0} of {1} cannot be"
    )]
    Terms(u8, usize),
    /// It would not be a name.
    #[error("a guardian's name has between 1 and {GUARDIAN_NAME_MAX} bytes and no control characters")]
    Name,
    /// Nobody who has the words has signed it.
    #[error("it is not signed by the identity that it names: it was forged, or changed on its way")]
    Forged,
    /// It says something else of its set than the others.
    #[error("it says otherwise than the others of its set how many there are and how many are needed")]
    NotUniform,
    /// Two are at one point.
    #[error("it stands in the place of {0}'s")]
    Index(String),
    /// Shares of too many sets have come.
    #[error("shares of too many sets have come")]
    Sets,
    /// There are not enough.
    #[error("{have} of {needed} shares are there: fewer than {needed} say nothing of the words")]
    TooFew {
        /// Those of the set that has the most.
        have: usize,
        /// As many as it takes.
        needed: usize,
    },
    /// What comes out has another name.
    #[error(
        "the shares give words, and these words, with this passphrase or without, are not those of the identity that has signed them"
    )]
    Words,
}

/// What one guardian has of the words.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Share {
    /// Whose words.
    #[n(0)]
    pub identity: IdentityId,
    /// Which shares belong together.
    #[n(1)]
    pub set: ShareSetId,
    /// When they were made.
    #[n(2)]
    pub made: Hlc,
    /// How many give the words back.
    #[n(3)]
    pub threshold: u8,
    /// How many there are.
    #[n(4)]
    pub count: u8,
    /// Which of them this is, from 1: where the polynomials were evaluated.
    #[n(5)]
    pub index: u8,
    /// Whose it is to have.
    #[n(6)]
    pub guardian: IdentityId,
    /// What they are called by the one whose words these are.
    #[n(7)]
    pub name: String,
    /// A passphrase belongs to the words, of which no share has anything.
    #[n(8)]
    pub has_passphrase: bool,
    #[n(9)]
    value: Secret,
    #[cbor(n(10), with = "minicbor::bytes")]
    signature: [u8; 64],
}
crate::format!(Share, tag = 0x3a, version = 1, max = 512, name = "share of the words");

fn is_name(name: &str) -> bool {
    crate::name::is_name(name, GUARDIAN_NAME_MAX)
}

fn can_be(threshold: u8, count: usize) -> bool {
    threshold >= THRESHOLD_MIN && usize::from(threshold) <= count && count <= GUARDIANS_MAX
}

impl Share {
    fn signed_bytes(&self) -> Zeroizing<Vec<u8>> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        let mut bytes = Zeroizing::new(Vec::with_capacity(512));
        bytes.extend_from_slice(CONTEXT);
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(&unsigned, &mut *bytes);
        bytes
    }

    /// Whether who has the words of the identity that it names has made it.
    pub fn verify(&self) -> Result<(), ShareError> {
        if !is_signed(self.identity.as_bytes(), &self.signed_bytes(), &self.signature) {
            return Err(ShareError::Forged);
        }
        if !can_be(self.threshold, self.count.into()) || !(1..=self.count).contains(&self.index) {
            return Err(ShareError::Terms(self.threshold, self.count.into()));
        }
        if is_name(&self.name) { Ok(()) } else { Err(ShareError::Name) }
    }

    /// Of two that one guardian has of one identity, the one that counts.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.made, self.set, self.index) > (other.made, other.set, other.index)
    }

    fn is_uniform_with(&self, other: &Self) -> bool {
        let terms = |share: &Self| (share.made, share.threshold, share.count, share.has_passphrase);
        terms(self) == terms(other)
    }
}

/// Where a guardian's devices find the share that is theirs. Who has both addresses finds the place, and nothing there that
/// they could open.
pub fn place(owner: &Address, guardian: &Address) -> Place {
    let parts = [&owner.signer[..], &owner.secret, &guardian.signer, &guardian.secret].concat();
    Place::new(Secret::new(blake3::derive_key(PLACE_CONTEXT, &parts)))
}

/// A set of shares that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Random.
    pub set: ShareSetId,
    /// Now.
    pub made: Hlc,
    /// How many are to give the words back.
    pub threshold: u8,
}

/// Splits words, which bring back an identity together with a passphrase that may be empty, among guardians: their
/// identities and what they are called.
pub fn split(
    phrase: &Phrase,
    passphrase: &str,
    terms: &Terms,
    guardians: &[(IdentityId, String)],
    random: impl CryptoRng,
) -> Result<Vec<Share>, ShareError> {
    let Terms { set, made, threshold } = *terms;
    let refused = || ShareError::Terms(threshold, guardians.len());
    if !can_be(threshold, guardians.len()) {
        return Err(refused());
    }
    if guardians.iter().any(|(_, name)| !is_name(name)) {
        return Err(ShareError::Name);
    }
    let count = u8::try_from(guardians.len()).map_err(|_| refused())?;
    let (entropy, keys) = (phrase.entropy(), phrase.keys(passphrase));
    let (identity, has_passphrase) = (keys.id(), !passphrase.is_empty());
    let points = Gf256::split_bytes(threshold.into(), count.into(), entropy.expose(), random).map_err(|_| refused())?;
    let points: Vec<_> = points.into_iter().map(Zeroizing::new).collect();
    let one = |(point, (guardian, name)): (&Zeroizing<Vec<u8>>, &(IdentityId, String))| {
        // First where, then what is there.
        let (index, value) = point.split_first()?;
        let (index, value) = (*index, Secret::new(value.try_into().ok()?));
        let (guardian, name) = (*guardian, name.clone());
        let signature = [0; 64];
        let share =
            Share { identity, set, made, threshold, count, index, guardian, name, has_passphrase, value, signature };
        Some(signed(share, &keys))
    };
    points.iter().zip(guardians).map(one).collect::<Option<Vec<_>>>().ok_or_else(refused)
}

fn signed(mut share: Share, keys: &RecoveryKeys) -> Share {
    share.signature = keys.signing_key().sign(&share.signed_bytes()).to_bytes();
    share
}

/// What has come of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is one of the set that has the most shares.
    Fits,
    /// It was there.
    Known,
    /// It is of another identity than most that have come, and is held apart.
    OtherIdentity,
    /// It is of another set of the same identity, and is held apart.
    OtherSet,
}

/// Shares that are being gathered. Those of each identity and set are held apart: somebody who comes first with a share of
/// their own making keeps nobody from putting the others together.
#[derive(Clone, Debug, Default)]
pub struct Shares(Vec<Vec<Share>>);

impl Shares {
    /// Takes one in, if it is one.
    pub fn take(&mut self, share: Share) -> Result<Taken, ShareError> {
        share.verify()?;
        let of_set = |one: &Share| (one.identity, one.set) == (share.identity, share.set);
        let taken = match self.gathered().first() {
            None => Taken::Fits,
            Some(first) if of_set(first) => Taken::Fits,
            Some(first) if first.identity == share.identity => Taken::OtherSet,
            Some(_) => Taken::OtherIdentity,
        };
        let Some(set) = self.0.iter_mut().find(|set| set.first().is_some_and(of_set)) else {
            if self.0.len() >= SHARE_SETS_MAX {
                return Err(ShareError::Sets);
            }
            self.0.push(vec![share]);
            return Ok(taken);
        };
        if set.contains(&share) {
            return Ok(Taken::Known);
        }
        if !set.iter().all(|other| other.is_uniform_with(&share)) {
            return Err(ShareError::NotUniform);
        }
        if let Some(other) = set.iter().find(|other| other.index == share.index) {
            return Err(ShareError::Index(other.name.clone()));
        }
        set.push(share);
        Ok(taken)
    }

    /// Those of the set that lacks the fewest; of two such sets, the one that began first.
    pub fn gathered(&self) -> &[Share] {
        let lacks = |set: &&Vec<Share>| set.first().map(|one| usize::from(one.threshold).saturating_sub(set.len()));
        self.0.iter().min_by_key(lacks).map(Vec::as_slice).unwrap_or_default()
    }

    /// The words, once there are enough. The passphrase is the one that belongs to them, or empty.
    pub fn words(&self, passphrase: &str) -> Result<Phrase, ShareError> {
        let set = self.gathered();
        let first = set.first().ok_or(ShareError::TooFew { have: 0, needed: THRESHOLD_MIN.into() })?;
        let needed = usize::from(first.threshold);
        let enough = set.get(..needed).ok_or(ShareError::TooFew { have: set.len(), needed })?;
        let mut points: Vec<Vec<u8>> =
            enough.iter().map(|share| [&[share.index][..], share.value.expose()].concat()).collect();
        let entropy = Gf256::combine_bytes(&points).map(Zeroizing::new);
        points.iter_mut().for_each(Zeroize::zeroize);
        let entropy: [u8; 32] =
            entropy.ok().and_then(|entropy| entropy.as_slice().try_into().ok()).ok_or(ShareError::Words)?;
        let phrase = Phrase::new(&Secret::new(entropy));
        if phrase.keys(passphrase).id() == first.identity { Ok(phrase) } else { Err(ShareError::Words) }
    }
}

#[cfg(test)]
mod tests;

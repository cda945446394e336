//! Sealing for people and devices, by age. A roster names whom by a public key alone, and so does nothing here by more:
//! another kind of [`Recipient`] is another arm of [`age_recipient`], and what it seals opens beside what is there.
//!
//! All that age seals for anybody goes through [`seal_to`] and [`open_by`], which know of whom only age's own two traits,
//! `Recipient` and `Identity`: grants and ways by [`seal`] and [`open`], and the keystore's file by its
//! [`Unlock`](crate::keystore::Unlock). So a hybrid recipient, when age has one, comes in as one more implementation of these
//! ([why not yet](../../docs/design/0009-post-quantum.md)).

use std::io::Write;
use std::str::FromStr;

use bech32::{Bech32, Hrp};
use hypernet_core::identity::log::Recipient;
use hypernet_core::key::Secret;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

#[cfg(test)]
mod testkit;

const PUBLIC: Hrp = Hrp::parse_unchecked("age");
const SECRET: Hrp = Hrp::parse_unchecked("age-secret-key-");

/// Why something was not sealed or opened.
#[derive(Debug, Error)]
pub(crate) enum SealingError {
    /// A key is none.
    #[error("a key is damaged: {0}")]
    Key(String),
    /// It could not be sealed.
    #[error("it cannot be sealed: {0}")]
    Seal(#[from] age::EncryptError),
    /// It is not for this key, or damaged.
    #[error("it cannot be opened: {0}")]
    Open(#[from] age::DecryptError),
    /// Writing to memory failed.
    #[error("it cannot be sealed: {0}")]
    Io(#[from] std::io::Error),
}

fn age_recipient(recipient: &Recipient) -> Result<Box<dyn age::Recipient>, SealingError> {
    let Recipient::X25519(key) = recipient;
    let text = bech32::encode::<Bech32>(PUBLIC, key).map_err(|error| SealingError::Key(error.to_string()))?;
    let parsed = age::x25519::Recipient::from_str(&text).map_err(|error| SealingError::Key(error.to_owned()))?;
    Ok(Box::new(parsed))
}

fn age_identity(secret: &Secret) -> Result<age::x25519::Identity, SealingError> {
    let mut text = bech32::encode_upper::<Bech32>(SECRET, secret.expose())
        .map_err(|error| SealingError::Key(error.to_string()))?;
    let parsed = age::x25519::Identity::from_str(&text).map_err(|error| SealingError::Key(error.to_owned()));
    text.zeroize();
    parsed
}

/// Who opens what is sealed for it: the public half of an opening key.
pub(crate) fn recipient(secret: &Secret) -> Result<Recipient, SealingError> {
    let text = age_identity(secret)?.to_public().to_string();
    let (_, key) = bech32::decode(&text).map_err(|error| SealingError::Key(error.to_string()))?;
    let key = key.try_into().map_err(|_| SealingError::Key("its length is wrong".into()))?;
    Ok(Recipient::X25519(key))
}

/// Seals for each of `recipients`, of whom there must be one.
pub(crate) fn seal(recipients: &[Recipient], plain: &[u8]) -> Result<Vec<u8>, SealingError> {
    let recipients = recipients.iter().map(age_recipient).collect::<Result<Vec<_>, _>>()?;
    let recipients: Vec<&dyn age::Recipient> = recipients.iter().map(|recipient| &**recipient).collect();
    seal_to(&recipients, plain)
}

/// Opens what was sealed for this key.
pub(crate) fn open(secret: &Secret, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    Ok(open_by(&age_identity(secret)?, sealed)?)
}

/// Seals for all that age can seal for.
pub(crate) fn seal_to(recipients: &[&dyn age::Recipient], plain: &[u8]) -> Result<Vec<u8>, SealingError> {
    let encryptor = age::Encryptor::with_recipients(recipients.iter().copied())?;
    let mut sealed = Vec::with_capacity(plain.len() + 1024);
    let mut writer = encryptor.wrap_output(&mut sealed)?;
    writer.write_all(plain)?;
    writer.finish()?;
    Ok(sealed)
}

/// Opens by all that age can open by.
pub(crate) fn open_by(identity: &impl age::Identity, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, age::DecryptError> {
    age::decrypt(identity, sealed).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_for_some_opens_for_each_of_them_and_for_nobody_else() {
        let secret = |byte| Secret::new([byte; 32]);
        let to = |byte| recipient(&secret(byte)).unwrap();
        let sealed = seal(&[to(1), to(2)], b"for two").unwrap();
        for byte in [1, 2] {
            assert_eq!(open(&secret(byte), &sealed).unwrap().as_slice(), b"for two");
        }
        assert!(open(&secret(3), &sealed).is_err());
        assert!(open(&secret(1), &sealed[..sealed.len() - 1]).is_err());
        assert!(seal(&[], b"for nobody").is_err());
    }
}

//! What opens the file of a keystore: a passphrase, a key in a file beside it, or one in the keyring of the desktop.
//!
//! The file says itself which: one with a passphrase is known by age's own header, and one whose key is in a keyring has a
//! stanza there that names the key. Other tools pass over stanzas that they do not know. So one atomic write changes the
//! content and what opens it.
//!
//! Invariant: a key is where it will be looked for before anything is sealed for it, and stays there until nothing is. So
//! at every moment of a change either the old or the new opens the file. While keys change there are two in the key file,
//! and the first is the one for which it will be sealed next.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use age::x25519;
use age_core::format::{FileKey, Stanza};
use hypernet_sdk::SecretText;
use hypernet_sdk::api::SealedBy;
use zeroize::Zeroizing;

use super::damaged;
use crate::failure::{Failure, Kind};
use crate::keyring;
use crate::locked::LockedBytes;
use crate::{files, sealing};

/// The stanza that names a key in a keyring.
const KEYRING_TAG: &str = "hypernet-keyring";
/// No key file is longer: it has two keys at most, in a line each.
const KEY_FILE_MAX: u64 = 4096;

/// A passphrase that stays in memory, because what it seals is sealed anew when it changes.
#[derive(Clone)]
pub(crate) struct Passphrase(LockedBytes);

impl Passphrase {
    pub(crate) fn new(text: &SecretText) -> Self {
        Self(LockedBytes::new(text.expose().as_bytes()))
    }

    /// As age takes it. It was made of text, so nothing is replaced.
    fn text(&self) -> SecretString {
        SecretString::from(String::from_utf8_lossy(self.0.expose()).into_owned())
    }
}

/// What opens the file of a keystore.
#[derive(Clone)]
pub(crate) enum Unlock {
    Passphrase(Passphrase),
    KeyFile,
    Keyring,
}

impl Unlock {
    pub(crate) fn sealed_by(&self) -> SealedBy {
        match self {
            Self::Passphrase(_) => SealedBy::Passphrase,
            Self::KeyFile => SealedBy::KeyFile,
            Self::Keyring => SealedBy::Keyring,
        }
    }
}

/// Where the key of a keystore without passphrase lies: beside it.
pub(crate) fn key_file(keystore: &Path) -> PathBuf {
    keystore.with_extension("key")
}

/// For whom a file is sealed from now on.
#[derive(Clone)]
pub(super) enum Seal {
    Passphrase(Passphrase),
    KeyFile(x25519::Recipient),
    Keyring(x25519::Recipient),
}

/// A recipient whose key is in a keyring.
struct InKeyring<'a>(&'a x25519::Recipient);

impl age::Recipient for InKeyring<'_> {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        let (mut stanzas, labels) = self.0.wrap_file_key(file_key)?;
        stanzas.push(Stanza { tag: KEYRING_TAG.into(), args: vec![self.0.to_string()], body: Vec::new() });
        Ok((stanzas, labels))
    }
}

/// Opens nothing, and tells which key in a keyring would.
#[derive(Default)]
struct Names(RefCell<Option<String>>);

impl age::Identity for Names {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        if stanza.tag == KEYRING_TAG {
            *self.0.borrow_mut() = stanza.args.first().cloned();
        }
        None
    }
}

/// How sealed bytes are opened.
enum Way {
    Passphrase,
    KeyFile,
    Keyring(x25519::Recipient),
}

fn way(path: &Path, sealed: &[u8]) -> Result<Way, Failure> {
    let decryptor = age::Decryptor::new(sealed).map_err(|error| damaged(path, &error.to_string()))?;
    if decryptor.is_scrypt() {
        return Ok(Way::Passphrase);
    }
    let names = Names::default();
    // It fails, having looked at all stanzas.
    let _ = decryptor.decrypt(std::iter::once(&names as &dyn age::Identity));
    match names.0.into_inner() {
        Some(name) => x25519::Recipient::from_str(&name).map(Way::Keyring).map_err(|error| damaged(path, error)),
        None => Ok(Way::KeyFile),
    }
}

pub(super) fn sealed_by(path: &Path, sealed: &[u8]) -> Result<SealedBy, Failure> {
    Ok(match way(path, sealed)? {
        Way::Passphrase => SealedBy::Passphrase,
        Way::KeyFile => SealedBy::KeyFile,
        Way::Keyring(_) => SealedBy::Keyring,
    })
}

/// Opens a file's bytes. Returns also for whom it is to be sealed when it changes.
pub(super) fn open(path: &Path, sealed: &[u8], unlock: &Unlock) -> Result<(Zeroizing<Vec<u8>>, Seal), Failure> {
    let refused = |message: String, hint: &str| Failure::new(Kind::Permission, message).hint(hint);
    match (unlock, way(path, sealed)?) {
        (Unlock::Passphrase(passphrase), Way::Passphrase) => {
            let plain = sealing::open_by(&by_passphrase(passphrase), sealed);
            let plain = plain.map_err(|error| match error {
                age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys => refused(
                    format!("wrong passphrase for {}", path.display()),
                    "type it again; without it nothing here can be opened",
                ),
                error => damaged(path, &error.to_string()),
            })?;
            Ok((plain, Seal::Passphrase(passphrase.clone())))
        }
        (Unlock::KeyFile, Way::KeyFile) => {
            let keys = load_keys(&key_file(path))?;
            for key in &keys {
                match sealing::open_by(key, sealed) {
                    Ok(plain) => return Ok((plain, Seal::KeyFile(keys[0].to_public()))),
                    Err(age::DecryptError::NoMatchingKeys) => {}
                    Err(error) => return Err(damaged(path, &error.to_string())),
                }
            }
            Err(refused(
                format!("{} does not open {}", key_file(path).display(), path.display()),
                "put back the key file that was made together with this keystore",
            ))
        }
        (Unlock::Keyring, Way::Keyring(recipient)) => {
            let key = keyring::load(&recipient)?;
            let plain = sealing::open_by(&key, sealed).map_err(|error| damaged(path, &error.to_string()))?;
            Ok((plain, Seal::Keyring(recipient)))
        }
        (unlock, _) => {
            let is = sealed_by(path, sealed)?;
            let not = unlock.sealed_by();
            Err(refused(
                format!("{} is sealed by a {}, and not by a {}", path.display(), is.words(), not.words()),
                "`hn up` asks for what opens it; leave out what it was told to use",
            ))
        }
    }
}

impl Seal {
    /// For a file that there is not yet. A key that it needs is made; one in a key file that is there is used.
    pub(super) fn begin(path: &Path, unlock: &Unlock) -> Result<Self, Failure> {
        let keys = key_file(path);
        match unlock {
            Unlock::KeyFile if keys.exists() => Ok(Self::KeyFile(load_keys(&keys)?[0].to_public())),
            _ => Self::anew(path, unlock),
        }
    }

    /// For a file that is there, which is to be opened by something else, or by another key. What opened it opens it
    /// until it is [written](super::KeystoreFile::reseal).
    pub(super) fn anew(path: &Path, unlock: &Unlock) -> Result<Self, Failure> {
        match unlock {
            Unlock::Passphrase(passphrase) => Ok(Self::Passphrase(passphrase.clone())),
            Unlock::KeyFile => {
                let (file, key) = (key_file(path), x25519::Identity::generate());
                let before = if file.exists() { load_keys(&file)? } else { Vec::new() };
                save_keys(&file, std::iter::once(&key).chain(&before))?;
                Ok(Self::KeyFile(key.to_public()))
            }
            Unlock::Keyring => keyring::create(&format!("Hypernet keystore {}", path.display())).map(Self::Keyring),
        }
    }

    /// Whether nothing is left of a change that did not end.
    pub(super) fn is_clear(&self, path: &Path) -> Result<bool, Failure> {
        let file = key_file(path);
        match self {
            Self::KeyFile(_) => Ok(load_keys(&file)?.len() == 1),
            Self::Passphrase(_) | Self::Keyring(_) => Ok(!file.exists()),
        }
    }

    /// Takes away what opened the file before it was sealed for this. A key that stays opens only old copies of it.
    pub(super) fn clear(&self, path: &Path, before: &Self) -> Result<(), Failure> {
        let file = key_file(path);
        match self {
            Self::KeyFile(recipient) => {
                let keys = load_keys(&file)?;
                // Somebody may have put another file there meanwhile: then nothing is taken out of it.
                let key = keys.iter().find(|key| key.to_public() == *recipient);
                save_keys(&file, std::iter::once(key.ok_or_else(|| damaged(&file, "it has got another key"))?))?;
            }
            _ if file.exists() => files::remove(&file)?,
            _ => {}
        }
        match (before, self) {
            (Self::Keyring(old), Self::Keyring(new)) if old == new => Ok(()),
            (Self::Keyring(old), _) => keyring::remove(old),
            _ => Ok(()),
        }
    }

    /// Seals.
    pub(super) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Failure> {
        let sealed = match self {
            Self::Passphrase(passphrase) => {
                sealing::seal_to(&[&for_passphrase(passphrase) as &dyn age::Recipient], plain)
            }
            Self::KeyFile(recipient) => sealing::seal_to(&[recipient as &dyn age::Recipient], plain),
            Self::Keyring(recipient) => sealing::seal_to(&[&InKeyring(recipient) as &dyn age::Recipient], plain),
        };
        sealed.map_err(|error| Failure::new(Kind::System, format!("cannot seal the keystore: {error}")))
    }
}

/// The keys in a key file, of which there is one at least.
fn load_keys(path: &Path) -> Result<Vec<x25519::Identity>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(Kind::Permission, format!("cannot read the key file {}: {error}", path.display()))
            .hint("a keystore without passphrase opens only with the key file that was made with it")
    };
    if fs::metadata(path).map_err(cannot)?.len() > KEY_FILE_MAX {
        return Err(damaged(path, "too long"));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(cannot)?);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<_> =
        lines.map(x25519::Identity::from_str).collect::<Result<_, _>>().map_err(|error| damaged(path, error))?;
    if keys.is_empty() { Err(damaged(path, "it is empty")) } else { Ok(keys) }
}

fn save_keys<'a>(path: &Path, keys: impl Iterator<Item = &'a x25519::Identity>) -> Result<(), Failure> {
    let mut text = Zeroizing::new(String::new());
    for key in keys {
        text.push_str(key.to_string().expose_secret());
        text.push('\n');
    }
    files::write_secret(path, text.as_bytes())
}
/// log₂ of scrypt's cost N, with r = 8 and p = 1: the least that OWASP's "Password Storage Cheat Sheet" recommends, 128 MiB
/// and a third of a second. age measures how quick the machine is just then, and refuses to open what was sealed when it
/// was quicker.
const WORK: u8 = 17;
/// What is opened at most: 32 times as much.
const WORK_MAX: u8 = 22;

fn for_passphrase(passphrase: &Passphrase) -> age::scrypt::Recipient {
    let mut recipient = age::scrypt::Recipient::new(passphrase.text());
    recipient.set_work_factor(WORK);
    recipient
}

fn by_passphrase(passphrase: &Passphrase) -> age::scrypt::Identity {
    let mut identity = age::scrypt::Identity::new(passphrase.text());
    identity.set_max_work_factor(WORK_MAX);
    identity
}

//! The keystore of a device, and what opens it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exact_path;
use crate::secret::SecretText;

/// The keystore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreStatus {
    /// What opens it.
    pub sealed_by: SealedBy,
    /// Where it lies.
    #[serde(with = "exact_path")]
    pub path: PathBuf,
}

/// What opens a keystore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealedBy {
    /// A passphrase.
    #[serde(rename = "passphrase")]
    Passphrase,
    /// A file beside the keystore that only its owner can read.
    #[serde(rename = "key file")]
    KeyFile,
    /// A key in the keyring of the desktop.
    #[serde(rename = "keyring")]
    Keyring,
}

impl SealedBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passphrase, Self::KeyFile, Self::Keyring];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Keyring => "keyring",
        }
    }
}

/// `POST /v1/keystore/seal`: what is to open the keystore from now on, or, while a recovery looks for it, once it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRequest {
    /// What opens it now, where that is a passphrase. Whoever sits down at an agent that runs does not know it.
    #[serde(default)]
    pub old: Option<SecretText>,
    /// What is to open it: a new passphrase, or a new key.
    pub by: SealedBy,
    /// The passphrase, if it is to be one.
    #[serde(default)]
    pub new: Option<SecretText>,
}

/// What opens a keystore now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreSealed {
    /// Where it lies, and what opens it.
    #[serde(flatten)]
    pub keystore: KeystoreStatus,
    /// What could not be cleared away of that which opened it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

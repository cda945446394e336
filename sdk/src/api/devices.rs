//! Recovering an identity on a new device, and the list of its devices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, HeadStatus};
use crate::secret::SecretText;

// ---- recover --------------------------------------------------------------------------------------------------------

/// 24 words, as a person typed them, and the passphrase that belongs to them, which may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhraseInput {
    words: SecretText,
    #[serde(default)]
    passphrase: SecretText,
}

impl PhraseInput {
    /// Of what was typed.
    pub fn new(words: SecretText, passphrase: SecretText) -> Self {
        Self { words, passphrase }
    }

    /// The words, in one line.
    pub fn words(&self) -> &str {
        self.words.expose()
    }

    /// Empty where there is none.
    pub fn passphrase(&self) -> &str {
        self.passphrase.expose()
    }
}

/// What to recover. Where the identity was found already, neither `phrase` nor `from` is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// The identity with these words.
    #[serde(default)]
    pub phrase: Option<PhraseInput>,
    /// The identity of the device with this HN_HOME, or a copy of it.
    #[serde(default, with = "crate::exact_path::option")]
    pub from: Option<PathBuf>,
    /// Not the newest head, but that of the device with this name or id.
    #[serde(default)]
    pub device: Option<String>,
    /// Where something else lies in the place of the keystore, go on with an empty one.
    #[serde(default)]
    pub without_keystore: bool,
    /// Where no head is found, begin with an empty tree.
    #[serde(default)]
    pub empty: bool,
}

/// One line of a recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum RecoverEvent {
    /// On the way.
    Progress {
        /// What happens.
        text: String,
    },
    /// The newest head is found, and what it leads to is this device's tree.
    Done(Recovered),
    /// It failed; it may be tried again.
    Error(ApiError),
}

/// What a recovery found. Where it is an empty tree, no head is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Devices of this identity before this one.
    pub devices: u64,
    /// Since the head was signed.
    pub head_age_seconds: u64,
    /// By which device.
    pub head_device: String,
    /// The head's number.
    #[serde(default)]
    pub head_sequence: u64,
    /// Heads of other devices that are not part of this one.
    #[serde(default)]
    pub others: Vec<OtherHead>,
    /// Those in words, and heads that others have seen and that were not found.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A head of another device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherHead {
    /// Of which device.
    pub device: String,
    /// Its id.
    pub device_id: String,
    /// The head's number.
    pub sequence: u64,
    /// When it was signed, as in RFC 3339.
    pub time: String,
}

// ---- devices --------------------------------------------------------------------------------------------------------

/// A device of this identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// What its owner calls it.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Since when it is on the list, as in RFC 3339.
    pub enrolled: String,
    /// Its newest head, if one is found.
    #[serde(default)]
    pub head: Option<HeadStatus>,
    /// It is the one that was asked.
    pub this: bool,
    /// All of its head is in the tree of the one that was asked.
    pub here: bool,
}

/// Which device to take off the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeDeviceRequest {
    /// Its name, or its id where several are called so.
    pub name: String,
    /// Also when nothing would lead to what it published.
    #[serde(default)]
    pub force: bool,
    /// The words of the identity: they count more than anything that the device has signed.
    #[serde(default)]
    pub phrase: Option<PhraseInput>,
}

/// A device that is on the list no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRevoked {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Others that were on the list as the one that was asked knew it, and are not any more either: those that it had
    /// enrolled and of whom whoever took it off had not heard.
    #[serde(default)]
    pub with: Vec<NamedDevice>,
    /// Those that it had enrolled and that are on the list still.
    #[serde(default)]
    pub brought: Vec<NamedDevice>,
    /// A head that it published before it knew: nothing leads to that one but `hn recover --device`.
    #[serde(default)]
    pub late: Option<OtherHead>,
}

/// A device, as far as a person needs it to name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDevice {
    /// What its owner calls it.
    pub name: String,
    /// Its id.
    pub id: String,
}

/// Puts the keys, the device that is asked and the way of the words right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewDeviceRequest {
    /// The words of the identity.
    pub phrase: PhraseInput,
}

/// What the words have put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRenewed {
    /// The device that was asked had been taken off the list, and is on it again.
    pub back: bool,
    /// All devices that are on the list now, whoever has enrolled them.
    pub devices: Vec<NamedDevice>,
}

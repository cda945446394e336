//! What an agent gives to others, and to whom.

use serde::{Deserialize, Serialize};

/// What an agent stores for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonateStatus {
    /// Bytes it gives at most.
    pub quota: u64,
    /// Bytes in use.
    pub used: u64,
    /// Shards held.
    pub shards: u64,
    /// Of what it gives, so many percent are for all newcomers together at most.
    #[serde(default)]
    pub newcomers_percent: u8,
    /// The same by depositors: those who are served first come first.
    #[serde(default)]
    pub shares: Vec<DonateShare>,
    /// It stops storing for others; none when it does not.
    #[serde(default)]
    pub leaving: Option<Leaving>,
}

/// How far an agent has come that stops storing for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// For how many seconds.
    pub for_seconds: u64,
    /// Bytes that others had here then,
    pub bytes_then: u64,
    /// and shards.
    pub shards_then: u64,
    /// In how many seconds the last lease ends of what others have here still; none when they have nothing.
    #[serde(default)]
    pub ends_in_seconds: Option<u64>,
    /// The longest time for which nobody has taken or renewed a lease of some of it, in seconds: whoever is to move that was last heard
    /// of then.
    #[serde(default)]
    pub unheard_seconds: Option<u64>,
}

/// What some of those have whom an agent stores for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonateShare {
    /// Who.
    pub depositor: Depositor,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that they may have in all, where others leave them.
    pub limit: u64,
}

/// For whom an agent stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depositor {
    /// Devices of the same identity, and of its contacts.
    Known,
    /// Peers that store for this one.
    Reciprocal,
    /// Anybody else.
    Newcomer,
}

impl Depositor {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Known => "own devices and contacts",
            Self::Reciprocal => "peers that store for you",
            Self::Newcomer => "newcomers",
        }
    }
}

/// Gives so much from now on; what is not said stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonateRequest {
    /// Bytes.
    #[serde(default)]
    pub quota: Option<u64>,
    /// Percent of them for all newcomers together, 0..=100.
    #[serde(default)]
    pub newcomers_percent: Option<u8>,
    /// Whether to stop storing for others: nothing new is taken in, and what is there is to be moved elsewhere.
    #[serde(default)]
    pub leave: Option<bool>,
}

/// Whose a peer is that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// A device of the same identity.
    Own,
    /// A device of a contact.
    Contact,
}

//! Guardians: who has shares of the 24 words.

use serde::{Deserialize, Serialize};

use super::PhraseInput;
use crate::secret::SecretText;

/// Whose shares are to give the words back, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetGuardiansRequest {
    /// So many are enough.
    pub threshold: u8,
    /// Contacts, by their names or addresses.
    pub guardians: Vec<String>,
    /// The words of the identity.
    pub phrase: PhraseInput,
}

/// A guardian of this identity's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardianInfo {
    /// What they are called here.
    pub name: String,
    /// Where they are found.
    pub address: String,
    /// Who it is.
    pub identity: String,
    /// Two people have compared what their devices showed.
    pub verified: bool,
    /// Enough peers keep their share, sealed for them, where their devices find it.
    pub placed: bool,
}

/// The guardians of this identity's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardiansInfo {
    /// So many of them are enough.
    pub threshold: u8,
    /// Since when, as in RFC 3339.
    pub set: String,
    /// A passphrase belongs to the words, of which they have nothing.
    #[serde(default)]
    pub phrase_passphrase: bool,
    /// All of them.
    pub guardians: Vec<GuardianInfo>,
}

/// A share of somebody's words that this identity has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldShare {
    /// What they are called here; none where they are no contact any more.
    pub name: Option<String>,
    /// Whose words.
    pub identity: String,
    /// Since when, as in RFC 3339.
    pub set: String,
    /// So many shares are enough.
    pub threshold: u8,
    /// So many there are.
    pub count: u8,
}

/// `GET /v1/guardians`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardiansList {
    /// Those of this identity's words, if there are any.
    pub mine: Option<GuardiansInfo>,
    /// For whom this identity is a guardian.
    pub held: Vec<HeldShare>,
    /// What needs a look.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Guardians that were taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardiansCleared {
    /// Who they were.
    pub names: Vec<String>,
    /// Those of them whose share is on the mesh still; the agent goes on trying.
    #[serde(default)]
    pub left: Vec<String>,
}

/// How far a recovery by guardians has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathered {
    /// Whose shares fit together, as the one whose words they are calls them.
    pub have: Vec<String>,
    /// How many it takes; none before the first has come.
    pub needed: Option<u8>,
    /// Whose words, as far as the shares say.
    pub identity: Option<String>,
    /// A passphrase belongs to the words.
    #[serde(default)]
    pub phrase_passphrase: bool,
}

impl Gathered {
    /// Whether there are enough.
    pub fn is_enough(&self) -> bool {
        self.needed.is_some_and(|needed| self.have.len() >= usize::from(needed))
    }
}

/// Puts the words together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedWordsRequest {
    /// The one that belongs to the words; empty where there is none.
    #[serde(default)]
    pub passphrase: SecretText,
}

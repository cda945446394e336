//! Who this is, whom it knows, and meetings of two devices or two people.

use serde::{Deserialize, Serialize};

use super::ApiError;

/// Who this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdInfo {
    /// What others add as a contact.
    pub address: String,
    /// The identity.
    pub identity: String,
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactInfo {
    /// What they are called here.
    pub name: String,
    /// What they have handed on.
    pub address: String,
    /// Who it is, pinned when they were added.
    pub identity: String,
    /// Two people have compared what their devices showed.
    pub verified: bool,
    /// A share of their words is here.
    #[serde(default)]
    pub share: bool,
}

/// Whom to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddContactRequest {
    /// As `hn id` prints it there.
    pub address: String,
    /// What they are to be called here.
    pub name: String,
}

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRequest {
    /// Their name, or their address where several are called so.
    pub name: String,
}

fn minutes() -> u64 {
    300
}

/// A meeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRequest {
    /// The code that the other side shows; without one this side shows one.
    #[serde(default)]
    pub code: Option<String>,
    /// Who it is to be, where two people meet.
    #[serde(default)]
    pub contact: Option<String>,
    /// How long the other side, and each person, is waited for.
    #[serde(default = "minutes")]
    pub timeout_seconds: u64,
}

impl Default for PairRequest {
    fn default() -> Self {
        Self { code: None, contact: None, timeout_seconds: minutes() }
    }
}

/// One line of a meeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum PairEvent {
    /// To be entered on the other side.
    Code {
        /// The code.
        code: String,
        /// The code and the way to this mesh in one.
        link: String,
        /// How long it is good for.
        seconds: u64,
    },
    /// Somebody has entered it.
    Met {
        /// As they call themselves.
        name: String,
    },
    /// To be compared with what the other side shows, and answered by [`ComparedRequest`].
    Compare {
        /// Seven pictures.
        emoji: Vec<String>,
        /// A word for each.
        words: Vec<String>,
    },
    /// On the way.
    Progress {
        /// What happens.
        text: String,
    },
    /// It is done, on both sides.
    Done(Paired),
    /// It failed, and nothing has changed.
    Error(ApiError),
}

/// With whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The name of the new device, or of the contact.
    pub name: String,
    /// The id of the new device, or the identity of the contact.
    pub id: String,
    /// Why what was handed over is of no use, where that is so: a share of the words that does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ApiError>,
}

impl Paired {
    /// With whom, and all is well.
    pub fn with(name: String, id: String) -> Self {
        Self { name, id, refused: None }
    }
}

/// What the other side shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedRequest {
    /// Its words. Others than those that are shown here, or none, say that it is not the same, which ends the meeting.
    pub words: Vec<String>,
}

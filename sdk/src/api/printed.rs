//! What `hnd` prints.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, SealedBy};
use crate::exact_path;
use crate::secret::SecretText;

/// What `hnd clear` prints: one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Where an agent that died had left its mount, if it had.
    #[serde(with = "exact_path::option")]
    pub mount: Option<PathBuf>,
}

/// The one line that `hnd run` prints, when it serves or when it gave up. Any other verb of `hnd` that fails prints it
/// as well, with `ready: false`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// It serves its socket.
    pub ready: bool,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
    /// The socket.
    #[serde(default, with = "exact_path")]
    pub socket: PathBuf,
    /// Where it is mounted.
    #[serde(default, with = "exact_path::option")]
    pub mount: Option<PathBuf>,
    /// Addresses it listens on.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Why it gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// What `hnd init`, `hnd recover` and `hnd join` print on success: one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetUp {
    /// The agent's directory.
    #[serde(with = "exact_path")]
    pub home: PathBuf,
    /// How the mesh calls it.
    pub peer: String,
    /// Which mesh.
    pub network: String,
    /// The identity; none on a storage peer.
    #[serde(default)]
    pub identity: Option<String>,
    /// The device; none on a storage peer.
    #[serde(default)]
    pub device: Option<String>,
    /// The volume; none on a storage peer.
    #[serde(default)]
    pub volume: Option<String>,
    /// The keystore; none on a storage peer.
    #[serde(default, with = "exact_path::option")]
    pub keystore: Option<PathBuf>,
    /// What opens it.
    #[serde(default)]
    pub sealed_by: Option<SealedBy>,
}

/// What `hnd phrase` prints: words that were never shown to anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// 24 of them.
    pub words: Vec<SecretText>,
}

//! The volumes of the tree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HeadStatus;

/// A volume that has its root in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// In hex.
    pub id: String,
    /// Of its root, from that of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Whether it was looked for; else whoever enters it has it looked for.
    pub here: bool,
    /// Inodes that the mesh lacks.
    pub dirty_files: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// Of this device, or the one that was found.
    #[serde(default)]
    pub head: Option<HeadStatus>,
}

/// Makes a directory a volume of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeVolumeRequest {
    /// The directory, from the root of the tree, or below the mount.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
}

//! Branches: volumes that begin with a tree of another one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchInfo {
    /// What it is called.
    pub name: String,
    /// Its volume, in hex.
    pub id: String,
    /// The branch that it was made of, `main`, or the number of another volume.
    pub of: String,
    /// The snapshot that it begins with, in hex.
    pub from: String,
    /// Where it is, from the root of the tree.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Something of it is on this device.
    pub here: bool,
    /// All of it is part of what it was made of; none where that is not known here.
    pub merged: Option<bool>,
}

/// Makes one of the volume that a path is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchRequest {
    /// Of the root of the tree, or below the mount.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// What it is to be called.
    pub name: String,
    /// The snapshot that it begins with; none: what is there now.
    #[serde(default)]
    pub revision: Option<String>,
}

/// Lets go of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropBranchRequest {
    /// What it is called.
    pub name: String,
    /// Also where something in it was not merged.
    #[serde(default)]
    pub force: bool,
}

/// Merges a branch into the volume that a path is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeRequest {
    /// Of the root of the tree, or below the mount.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// A branch, or `main`.
    pub from: String,
}

/// What was kept beside something else that has its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBeside {
    /// The name that it would have.
    pub wanted: String,
    /// The one that it has.
    pub name: String,
}

/// What came of merging.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedInfo {
    /// There was nothing to merge.
    pub already: bool,
    /// The head that has it all.
    pub sequence: u64,
    /// What was kept beside something else, and is to be settled.
    pub conflicts: Vec<KeptBeside>,
    /// Versions of texts that were merged line by line.
    #[serde(default)]
    pub texts: u64,
    /// The snapshot that holds what was there before, in hex, unless there was nothing to merge.
    #[serde(default)]
    pub before: Option<String>,
    /// The one that was taken of what it came to, in hex; none where that is in a snapshot already, or could not be taken.
    #[serde(default)]
    pub snapshot: Option<String>,
}

/// Shows another tree in the main mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchRequest {
    /// A branch, or `main`.
    pub name: String,
}

/// Answer to [`SwitchRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// What is shown.
    pub name: String,
    /// Its root, from the uppermost one.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Where it is shown, if anything is mounted.
    #[serde(default, with = "crate::exact_path::option")]
    pub dir: Option<PathBuf>,
}

//! Versions of files that are kept beside others, and settling which of them stays.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A version that is kept beside another one. Paths are from the root of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictInfo {
    /// Where it is.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Where the file is that it is a version of; none where that is gone.
    #[serde(default, with = "crate::exact_path::option")]
    pub file: Option<PathBuf>,
    /// The device that wrote it, by its name where that is known.
    pub device: String,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: i64,
    /// Bytes in it.
    pub size: u64,
}

/// Asks for those in the volume that a path is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictsRequest {
    /// Of the root of the tree, or below the mount.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
}

/// What stays of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The file as it is.
    File,
    /// What the other version holds, in the file.
    Version,
    /// Both, as files of their own.
    Both,
}

/// Settles conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// A version, or the file that it is one of; with `all` also a directory.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// What stays.
    pub keep: Keep,
    /// Those of all versions at this path and below it.
    #[serde(default)]
    pub all: bool,
}

/// A conflict that was left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// The version.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Answer to [`ResolveRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// What was settled.
    pub settled: Vec<ConflictInfo>,
    /// What was not.
    pub left: Vec<Unresolved>,
    /// The snapshot that has all as it was before, in hex; none where nothing goes.
    #[serde(default)]
    pub before: Option<String>,
}

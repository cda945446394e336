//! Giving back the space of what nothing reaches any more.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Looks through all volumes of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// Only say what there is.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was found in one volume, and done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcVolume {
    /// In hex.
    pub id: String,
    /// Of its root, from that of the tree; empty for a branch.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// Segments that there were.
    pub segments: u64,
    /// Bytes in them, before they are coded.
    pub bytes: u64,
    /// Bytes of that which something reaches.
    pub live_bytes: u64,
    /// Segments of which nothing is reached.
    pub dead_segments: u64,
    /// Bytes of their shards, on all peers.
    pub dead_bytes: u64,
    /// Segments of which less than half is reached: that goes into new ones.
    pub sparse_segments: u64,
    /// Bytes of that.
    pub sparse_live_bytes: u64,
    /// Bytes of their shards, on all peers.
    pub sparse_bytes: u64,
    /// Bytes of shards that peers were told to give up now.
    pub freed_bytes: u64,
    /// Bytes of shards that are given up later.
    pub waiting_bytes: u64,
    /// What that waits for.
    pub waits_for: Vec<String>,
    /// Why nothing was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

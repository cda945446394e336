//! How healthy volumes are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Counted, Upload};
use crate::exact_path;

/// `POST /v1/health`: changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRequest {
    /// Only the volume that this lies in; all of them when left out.
    #[serde(default, with = "exact_path::option")]
    pub path: Option<PathBuf>,
}

/// How healthy volumes are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Of when the count of segments is.
    #[serde(default)]
    pub counted: Counted,
    /// Why there is no count, where one has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Each.
    pub volumes: Vec<VolumeHealth>,
}

/// In one word; the worst that holds of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Nothing is stored, and nothing waits to be.
    #[default]
    Empty,
    /// All of it can be read now, every segment has more shards than those at which it is mended, and holders have proven that they
    /// have them: all but those that are too new to have had their turn.
    Well,
    /// The same, as far as holders have said: they have not proven all of it yet.
    Acknowledged,
    /// All of it can be read now, and some of it is to be mended.
    Worn,
    /// Nothing of it is on the mesh: what was written is on this device alone.
    Local,
    /// It is not known: it is being counted, or the index of this device is damaged.
    Unknown,
    /// Some of it cannot be read from the peers that are there now.
    Unreadable,
    /// Of some of it fewer shards are left than it takes to read it, as far as is known.
    Lost,
}

/// How healthy a volume is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeHealth {
    /// In hex.
    pub id: String,
    /// What people know it by: the path of its root in the tree, or the name of its branch.
    pub name: String,
    /// In one word.
    pub state: HealthState,
    /// What is on the mesh; none before the first count.
    #[serde(default)]
    pub safety: Option<Safety>,
    /// Files that wait to be durable,
    pub waiting_files: u64,
    /// and their bytes.
    pub waiting_bytes: u64,
    /// What its upload is doing; none where it has not begun.
    #[serde(default)]
    pub upload: Option<Upload>,
    /// What is to be mended.
    pub repair: RepairStatus,
    /// When holders have last proven what they have.
    #[serde(default)]
    pub proven: Proven,
    /// Why it is so, in words, the worst first.
    pub reasons: Vec<String>,
}

/// How safe what is stored is, by what is known of its holders.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Safety {
    /// Segments on the mesh, those included that say where others are.
    pub segments: u64,
    /// Segments by margin, ascending.
    pub margins: Vec<MarginBucket>,
    /// Segments of which fewer shards are left than it takes to read them.
    pub lost: u64,
    /// Segments that cannot be read from the peers that are there now, those included that are lost.
    pub unreadable: u64,
    /// How many peers may go for good, whichever they are, until the first segment is lost; below zero where one is.
    pub least_margin: Option<i32>,
    /// The same of subnets: all peers of one go together.
    pub least_domains: Option<i32>,
    /// Probability that the segment which is there least can be read in the hour in which its holders are there least, 0..=1.
    pub readable: Option<f64>,
    /// Nines of the probability that the weakest segment is not lost within a year.
    pub nines: Option<f64>,
    /// How many segments a year is expected to lose; those that are lost already are none of them.
    pub expected_lost: f64,
}

/// Segments of one margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarginBucket {
    /// How many of the peers that hold it may go for good, whichever they are, until it is lost; below zero: so many shards are
    /// missing to read it.
    pub margin: i32,
    /// So many segments.
    pub segments: u64,
}

/// What is to be mended, and how that goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Segments of which so few shards are left that others are made.
    pub due: u64,
    /// Bytes of those shards.
    pub due_bytes: u64,
    /// Segments among them that say where others are: the next sync writes them anew.
    #[serde(default)]
    pub due_catalog: u64,
    /// Segments that the last look has mended,
    pub mended: u64,
    /// and bytes that it has placed.
    pub mended_bytes: u64,
    /// Seconds since then; none before the first look since the agent started.
    #[serde(default)]
    pub looked_seconds: Option<u64>,
    /// Seconds until the next look; none where nothing is mended by this device for now.
    #[serde(default)]
    pub next_seconds: Option<u64>,
    /// What is in the way.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Seconds until all is mended, as fast as it went lately; none where nothing was measured, or nothing is due.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
}

/// How far holders have proven that they have their shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Proven {
    /// No holder has answered yet: all that is known is that they took them.
    #[default]
    Never,
    /// The first round of audits has not gone through all of it yet.
    Partly {
        /// Seconds since the last answer.
        seconds: u64,
    },
    /// Each shard that was there had its turn in a round.
    Round {
        /// Seconds since the last answer.
        seconds: u64,
        /// Peers that were away at theirs, and were not asked since.
        unanswered: u64,
    },
}

//! Peers, as they are told of.

use serde::{Deserialize, Serialize};

/// Peers in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersStatus {
    /// Ever met on this mesh.
    pub known: u64,
    /// Connected now.
    pub connected: u64,
    /// Of those, how many store for others.
    pub donors: u64,
}

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Connected.
    Here,
    /// Away, as home machines are every day.
    Away,
    /// Away for longer than a day: nothing new is placed on it.
    Suspect,
    /// Away for longer than a week: taken to be gone for good. It may come back.
    Gone,
}

impl Presence {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Here => "connected",
            Self::Away => "away",
            Self::Suspect => "suspect",
            Self::Gone => "gone",
        }
    }
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its id.
    pub peer: String,
    /// An address, if connected or remembered.
    #[serde(default)]
    pub address: Option<String>,
    /// Connected now.
    pub connected: bool,
    /// Bytes it offers; none when unknown.
    #[serde(default)]
    pub quota: Option<u64>,
    /// Bytes of it that are free.
    #[serde(default)]
    pub free: Option<u64>,
    /// Shards of ours that it holds, as they were counted last; none when they have not been counted yet.
    #[serde(default)]
    pub shards: Option<u64>,
    /// Measured availability, 0..=1; none when not yet measured.
    #[serde(default)]
    pub availability: Option<f64>,
    /// Round trip.
    #[serde(default)]
    pub rtt_micros: Option<u64>,
    /// Whether it is there, and what its absence means.
    pub presence: Presence,
    /// Seconds that it has been away, of those in which this device was among others.
    pub away_seconds: u64,
    /// Measured availability in the hour of the day in which it is there least, 0..=1.
    pub worst_hour: f64,
    /// Share of what it did lately that was without a fault, 0..=1.
    pub honesty: f64,
    /// Bytes per second that it sends; none when not yet measured.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
    /// Known for too short a time for much to be entrusted to it while others suffice.
    pub young: bool,
    /// Its subnet; none when it is unknown or local.
    #[serde(default)]
    pub subnet: Option<String>,
    /// What speaks against it: backed off, lied, full.
    #[serde(default)]
    pub note: Option<String>,
}

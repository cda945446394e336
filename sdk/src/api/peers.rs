//! Peers, as they are told of.

use serde::{Deserialize, Serialize};

use super::{Depositor, Whose};

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
    /// Whose it is, if its people are known here.
    #[serde(default)]
    pub whose: Option<Whose>,
    /// The contact that it is of.
    #[serde(default)]
    pub name: Option<String>,
    /// The identity that vouches for it, in hex.
    #[serde(default)]
    pub operator: Option<String>,
    /// For whom is stored what it brings.
    #[serde(default)]
    pub depositor: Option<Depositor>,
    /// Bytes of shards that it holds for this identity.
    #[serde(default)]
    pub holds: u64,
    /// It takes this agent for a newcomer, and keeps what it has left for others.
    #[serde(default)]
    pub to_newcomer: bool,
    /// It stops storing for others: what it holds is moved elsewhere.
    #[serde(default)]
    pub leaving: bool,
    /// What speaks against it: backed off, lied, full.
    #[serde(default)]
    pub note: Option<String>,
    /// How its connection came about; none when there is none.
    #[serde(default)]
    pub path: Option<Path>,
    /// The relay, where it is relayed and known.
    #[serde(default)]
    pub relay: Option<String>,
    /// `quic` or `tcp`; over a relay, to there.
    #[serde(default)]
    pub transport: Option<String>,
    /// In words: why its connection is that way, or why there is none, as far as it was tried.
    #[serde(default)]
    pub why: Option<String>,
    /// Since it was last connected, of who is not, and was since the agent started.
    #[serde(default)]
    pub seen_seconds: Option<u64>,
    /// Since it was last tried in vain.
    #[serde(default)]
    pub tried_seconds: Option<u64>,
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// One end dialed the other.
    Direct,
    /// Both routers were opened at the same moment.
    HolePunched,
    /// By way of a peer that carries it and cannot read it.
    Relayed,
}

/// Whether others can reach this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reachability {
    /// Nobody has tried, or could.
    Unknown,
    /// At a public address.
    Public,
    /// At none of its own addresses.
    Private,
}

/// How this agent is reached, and what it takes of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReachStatus {
    /// Whether others can.
    pub reachability: Reachability,
    /// The public addresses at which they can.
    #[serde(default)]
    pub external: Vec<String>,
    /// The relays at which it is to be met.
    #[serde(default)]
    pub relays: Vec<String>,
    /// Peers that are to be met at this one, as a relay.
    #[serde(default)]
    pub hosted: u64,
    /// What the router says to the wish to be let in.
    #[serde(default)]
    pub router: Option<String>,
    /// Bytes of shards a second that go out; no limit when there is none.
    #[serde(default)]
    pub upload: Option<u64>,
    /// Bytes of shards a second that come in; no limit when there is none.
    #[serde(default)]
    pub download: Option<u64>,
}

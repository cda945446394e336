//! What a run comes to.

use std::fmt;

use tabled::builder::Builder;

/// What happened how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken from the queue.
    pub events: u64,
    /// Steps of nodes.
    pub steps: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests and answers lost.
    pub lost: u64,
    /// Requests that arrived twice.
    pub duplicated: u64,
    /// Crashes.
    pub crashes: u64,
    /// Restarts.
    pub restarts: u64,
    /// Nodes frozen.
    pub freezes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Shards rotten.
    pub rot: u64,
    /// Disks that filled up.
    pub full: u64,
    /// Things liars tried.
    pub mischief: u64,
    /// Blocks of liars.
    pub blocks: u64,
    /// Segments acknowledged.
    pub uploaded: u64,
    /// Uploads that ended with an error.
    pub uploads_failed: u64,
    /// Fetches that gave the right bytes.
    pub fetched: u64,
    /// Fetches that ended with an error.
    pub fetches_failed: u64,
    /// Records published.
    pub published: u64,
    /// Lookups.
    pub lookups: u64,
    /// Probes.
    pub probes: u64,
    /// Audits of segments,
    pub audits: u64,
    /// shards that were proven in them,
    pub audits_passed: u64,
    /// and shards that were not, though their holder answered.
    pub audits_failed: u64,
    /// Commands that ended with their node.
    pub aborted: u64,
}

impl Counts {
    /// As a table for people.
    pub fn table(&self) -> String {
        let lines = [
            ("events", self.events),
            ("steps of nodes", self.steps),
            ("requests sent", self.sent),
            ("messages lost", self.lost),
            ("requests duplicated", self.duplicated),
            ("crashes", self.crashes),
            ("restarts", self.restarts),
            ("freezes", self.freezes),
            ("partitions", self.partitions),
            ("rotten shards", self.rot),
            ("full disks", self.full),
            ("tricks of liars", self.mischief),
            ("liars blocked", self.blocks),
            ("segments acknowledged", self.uploaded),
            ("uploads failed", self.uploads_failed),
            ("fetches right", self.fetched),
            ("fetches failed", self.fetches_failed),
            ("records published", self.published),
            ("lookups", self.lookups),
            ("probes", self.probes),
            ("audits of segments", self.audits),
            ("shards proven", self.audits_passed),
            ("shards not proven", self.audits_failed),
            ("commands cut short by a crash", self.aborted),
        ];
        let mut table = Builder::new();
        for (what, count) in lines {
            table.push_record([what.to_string(), count.to_string()]);
        }
        table.build().to_string()
    }
}

/// A run in which nothing was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Hash over everything that happened.
    pub trace: String,
    /// What chance would have drawn next.
    pub next_random: u64,
    /// The clock at the end.
    pub clock: u64,
    /// How often what happened.
    pub counts: Counts,
}

/// A run in which something was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The world's seed.
    pub seed: u64,
    /// Its size.
    pub nodes: usize,
    /// When, in milliseconds.
    pub at: u64,
    /// What.
    pub what: String,
    /// The command that does it again, where nothing but the seed and the size is other than usual.
    pub replay: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} with {} nodes, at {} ms: {}\nreplay: {}",
            self.seed, self.nodes, self.at, self.what, self.replay
        )
    }
}

impl std::error::Error for Failure {}

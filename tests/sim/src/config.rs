//! What a world is made of, and the profiles that the tests run.

/// A world's size and weather. Chances are per ten thousand, times in milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Nodes in the mesh.
    pub nodes: usize,
    /// The first so many of them also upload.
    pub owners: usize,
    /// Peers a node knows at first; all of them where there are no more.
    pub neighbours: usize,
    /// How long faults go on.
    pub storm: u64,
    /// Time between two faults, on average.
    pub fault_every: u64,
    /// Nodes that are crashed, frozen or cut off at the same time, at most.
    pub down_max: usize,
    /// Nodes that lie.
    pub liars: usize,
    /// Nodes that are honest but for records: they serve the first one they ever saw of a key, or none.
    pub stale: usize,
    /// Requests and answers that are lost.
    pub loss: u64,
    /// Requests that arrive twice.
    pub duplicates: u64,
    /// Slowest base latency of a link.
    pub latency: u64,
    /// Added to it at random, so that messages overtake one another.
    pub jitter: u64,
    /// Longest time until the disk has synced.
    pub sync: u64,
    /// Store operations that fail.
    pub disk_faults: u64,
    /// Wall clocks are off by up to this many seconds.
    pub skew: u64,
    /// Time between two commands, on average.
    pub work_every: u64,
    /// Segments uploaded during the storm, at most.
    pub segments_max: usize,
    /// How long records live that nobody hands on.
    pub record_lifetime: u64,
    /// Give the nodes this much time after the storm before everything must work.
    pub recovery: u64,
}

impl Config {
    /// Every fault at once.
    pub fn stormy(nodes: usize) -> Self {
        Self {
            nodes,
            owners: 3.min(nodes),
            neighbours: 64,
            storm: 120_000,
            fault_every: 700,
            down_max: (nodes / 6).max(1),
            liars: 2.min(nodes / 12),
            stale: 0,
            loss: 150,
            duplicates: 200,
            latency: 60,
            jitter: 40,
            sync: 80,
            disk_faults: 30,
            skew: 900,
            work_every: 600,
            segments_max: 24,
            record_lifetime: 90_000,
            recovery: 45_000,
        }
    }

    /// A thousand nodes, each of which knows forty: put, get, crash, restart.
    pub fn thousand() -> Self {
        Self {
            owners: 8,
            neighbours: 40,
            storm: 60_000,
            fault_every: 1_500,
            down_max: 40,
            liars: 2,
            loss: 50,
            work_every: 700,
            segments_max: 32,
            record_lifetime: 48 * 3_600_000,
            recovery: 60_000,
            ..Self::stormy(1_000)
        }
    }
}

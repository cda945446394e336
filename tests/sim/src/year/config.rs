//! What a year is made of.

/// What is broken on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    None,
    /// Nobody mends anything.
    NoRepair,
    /// Segments are mended only when there is no row left to lose.
    RepairAtK,
    /// What audits find out is forgotten.
    AuditsIgnored,
    /// Leases are never renewed.
    NoRenewal,
}

/// What somebody attempts who means harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing.
    None,
    /// Many peers come at once, to each owner as many as it knows already; they behave, and leave together after so many days.
    Sybils {
        /// The day on which they come.
        from: u64,
        /// The days for which they stay.
        stay: u64,
    },
    /// Somebody has overheard leases, says them again, and tries to end them by what it knows: twenty each hour.
    Replays,
}

/// A world that lives for long. Times are in days and hours: what happens within a minute is the storm's affair
/// ([`crate::Config`]).
#[derive(Clone, Debug, PartialEq)]
pub struct YearConfig {
    /// Peers that store for others; whoever leaves is followed by a newcomer.
    pub peers: usize,
    /// Those that upload; they store nothing.
    pub owners: usize,
    /// Peers that an owner is connected to, when they are there.
    pub known: usize,
    /// Segments of each owner.
    pub segments: usize,
    /// Bytes of a shard.
    pub shard_len: u32,
    /// How long it lasts.
    pub days: u64,
    /// Share of the peers that leave for good within a year, 0 to 1.
    pub loss: f64,
    /// The share of the day for which a peer is there is spread evenly between these.
    pub availability: (f64, f64),
    /// Share of the peers that lie, 0 to 1.
    pub liars: f64,
    /// Share of the peers that have an operator with others, with whom they share a subnet and the day on which they leave.
    pub operators: f64,
    /// Times a year that a peer is away for 1 to 14 days, and comes back.
    pub holidays: f64,
    /// Times a year that a third of the world is cut off from the others, for 1 to 3 days.
    pub partitions: f64,
    /// How segments are coded, in place of what the node plans: k and n.
    pub code: Option<(u8, u8)>,
    /// What is broken on purpose.
    pub sabotage: Sabotage,
    /// What is attempted.
    pub attack: Attack,
}

impl YearConfig {
    /// So many peers of a mixed world: 25 to 95 % of the day there, a fifth leaves within the year, a tenth lies.
    pub fn mixed(peers: usize) -> Self {
        Self {
            peers,
            owners: (peers / 200).clamp(1, 50),
            known: 160.min(peers),
            segments: 40,
            shard_len: 4_096,
            days: 365,
            loss: 0.2,
            availability: (0.25, 0.95),
            liars: 0.1,
            operators: 0.3,
            holidays: 1.0,
            partitions: 3.0,
            code: None,
            sabotage: Sabotage::None,
            attack: Attack::None,
        }
    }

    /// Rate at which one peer leaves, a year.
    pub fn departures(&self) -> f64 {
        -(1.0 - self.loss.clamp(0.0, 0.999)).ln()
    }
}

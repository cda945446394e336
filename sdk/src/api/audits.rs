//! What audits have shown.

use serde::{Deserialize, Serialize};

/// Audits: holders prove, all of them again and again, that they have the shards that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// The last round that has ended; none yet in the first days.
    pub last: Option<AuditRound>,
    /// The one that is going on, so far.
    pub now: Audited,
}

/// A round of audits that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRound {
    /// How long ago, in seconds.
    pub age_seconds: u64,
    /// What came of it.
    pub shards: Audited,
}

/// Shards by what their holders have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// They have them.
    pub passed: u64,
    /// They sent something else than a proof.
    pub lied: u64,
    /// They say that what they have is spoiled.
    pub damaged: u64,
    /// They say that they have none.
    pub missing: u64,
    /// They were not there, or did not answer, and were not asked again since.
    pub unasked: u64,
}

impl Audited {
    /// Those that are not there, as far as their holders have answered.
    pub fn failed(&self) -> u64 {
        self.lied + self.damaged + self.missing
    }
}

//! Snapshots that nobody takes by hand: the policy of a volume, which is an extended attribute of its root, and what it asks for now.
//!
//! Invariant: nothing is taken or let go of by what is no policy.

use std::sync::Arc;

use hypernet_core::history::policy::{NotAPolicy, Policy, XATTR};
use hypernet_core::history::{Edit, Kept};
use hypernet_core::port::PortError;
use hypernet_fs::vfs::{Vfs, VfsError};
use thiserror::Error;

use super::Volume;

/// Snapshots that are let go of at once: each is a commit of its own. The others go when it is looked the next time.
const GO_AT_ONCE: usize = 1_000;

/// Why a policy could not be tended.
#[derive(Debug, Error)]
pub(crate) enum PolicyError {
    #[error("the policy of the volume means nothing: {0}; `hn policy` sets another one")]
    Text(#[from] NotAPolicy),
    #[error("the policy of the volume cannot be read: {0}")]
    Tree(VfsError),
    #[error(transparent)]
    Port(#[from] PortError),
}

/// What was done for a policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tended {
    pub(crate) taken: Option<Kept>,
    pub(crate) gone: usize,
}

/// The policy of the volume with this root, as it is written there.
pub(crate) fn text_of(vfs: &Vfs, root: u64) -> Result<Option<Vec<u8>>, VfsError> {
    match vfs.getxattr(root, XATTR) {
        Ok(text) => Ok(Some(text)),
        Err(VfsError::NoAttribute) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Volume {
    /// Takes a snapshot where the policy of this volume says that one is due and something has changed, and lets go of those that it does
    /// not keep. `root`: of its tree; `now`: by the clock of this device, in milliseconds since 1970. Blocks.
    pub(crate) fn tend_policy(self: &Arc<Self>, vfs: &Arc<Vfs>, root: u64, now: u64) -> Result<Tended, PolicyError> {
        let Some(text) = text_of(vfs, root).map_err(PolicyError::Tree)? else { return Ok(Tended::default()) };
        let policy = Policy::parse(&text)?;
        // In a history that is full there may be room afterwards.
        let mut gone = self.let_go_by(&policy, now)?;
        let mut taken = None;
        if let Some(period) = policy.due(&*self.history()?, now) {
            taken = self.snap_at(vfs, period.adverb().into(), true, now)?.map(|taken| taken.kept);
            gone += self.let_go_by(&policy, now)?;
        }
        Ok(Tended { taken, gone })
    }

    fn let_go_by(&self, policy: &Policy, now: u64) -> Result<usize, PortError> {
        let surplus = policy.surplus(&*self.history()?, now);
        let mut gone = 0;
        for moment in surplus.into_iter().take(GO_AT_ONCE) {
            self.edit_history(&Edit::Forget(moment))?;
            gone += 1;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;

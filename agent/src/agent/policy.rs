//! The policies of volumes: what people ask of them, and looking again and again what they ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hypernet_core::history::By;
use hypernet_core::history::policy::{self, Policy, XATTR};
use hypernet_core::id::VolumeId;
use hypernet_fs::panics;
use hypernet_fs::vfs::{Caller, VfsError, XattrFlags};
use hypernet_sdk::api;

use super::history::policy_of;
use super::tree::of_tree;
use super::{Agent, Own, blocking, port_failure};
use crate::failure::{Failure, Kind};
use crate::volume::policy::text_of;
use crate::volume::recover::wall;

/// How often it is looked what is due, in seconds. It is later than that by two thirds at most: the devices of a volume do not look at
/// once, so that one takes what the others hear of.
const EVERY: u64 = 45;

/// Looks again and again, until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut causes = Causes::default();
    let every = Duration::from_secs(agent.config.lock().policies_every.unwrap_or(EVERY).max(1));
    loop {
        tokio::time::sleep(every + later(every)).await;
        let agent = agent.clone();
        let looked = blocking(move || {
            agent.tend_policies(&mut causes);
            causes
        });
        causes = match looked.await {
            Ok(causes) => causes,
            Err(failure) => {
                tracing::error!(%failure, "looking after the policies of volumes");
                Causes::default()
            }
        };
    }
}

fn later(every: Duration) -> Duration {
    let mut bytes = [0; 8];
    // Without randomness it is the same each time, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    let max = every.as_millis() as u64 * 2 / 3;
    Duration::from_millis(u64::from_le_bytes(bytes) % max.max(1))
}

/// Why the policies of volumes could not be followed when it was last tried: each is told once.
#[derive(Default)]
struct Causes(BTreeMap<VolumeId, String>);

impl Causes {
    /// Whether it was another one, or none.
    fn is_new(&mut self, volume: VolumeId, cause: &str) -> bool {
        self.0.insert(volume, cause.to_owned()).is_none_or(|before| before != cause)
    }

    /// It was not, or no longer.
    fn clear(&mut self, volume: VolumeId) {
        self.0.remove(&volume);
    }

    /// Only these volumes are there still.
    fn retain(&mut self, there: &[VolumeId]) {
        self.0.retain(|volume, _| there.contains(volume));
    }
}

fn policy_info(policy: Policy) -> api::PolicyInfo {
    let Policy { last, hourly, daily, weekly, monthly, yearly } = policy;
    api::PolicyInfo { last, hourly, daily, weekly, monthly, yearly }
}

impl Agent {
    /// Takes what is due by the policies of all volumes that this device may write in. Blocks.
    fn tend_policies(&self, causes: &mut Causes) {
        // Before the head is found nothing is known of what there is.
        let Some(own) = self.with_volume().filter(|_| !self.config.lock().recovering) else { return };
        let there: Vec<_> = own.vfs.volumes().into_iter().filter(|rooted| !rooted.is_vacant).collect();
        causes.retain(&there.iter().map(|rooted| rooted.volume).collect::<Vec<_>>());
        for rooted in there {
            let id = rooted.volume;
            match panics::caught(|| own.tend_policy(id, rooted.ino)).unwrap_or_else(Err) {
                Ok(()) => causes.clear(id),
                Err(cause) if causes.is_new(id, &cause) => {
                    tracing::warn!(volume = %id.short(), cause, "no snapshot was taken by the policy; it is tried again");
                }
                Err(cause) => tracing::debug!(volume = %id.short(), cause, "the same as before"),
            }
        }
    }

    /// Shows the policy of a volume, or sets it before. Blocks.
    pub(crate) fn policy(&self, request: &api::PolicyRequest) -> Result<api::PolicyState, Failure> {
        let past = self.past(&request.path)?;
        let (own, volume, root) = (past.own, &past.volume, past.root);
        let is_change = request.set.is_some() || request.off;
        if is_change && self.config.lock().recovering {
            return Err(Failure::new(Kind::TryAgain, "the head of this volume has not been found yet")
                .hint("`hn recover` looks again"));
        }
        if let Some(set) = request.set {
            let policy = policy_of(set);
            policy.check().map_err(|error| {
                Failure::new(Kind::Usage, format!("this is no policy: {error}")).hint("`hn policy --off` ends it")
            })?;
            volume.may_write().map_err(port_failure)?;
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            let caller = Caller { uid, gid, umask: 0o022 };
            let text = policy.to_string();
            own.vfs.setxattr(caller, root, XATTR, text.as_bytes(), XattrFlags::Set).map_err(|error| of_tree(&error))?;
        } else if request.off {
            volume.may_write().map_err(port_failure)?;
            match own.vfs.removexattr(root, XATTR) {
                Ok(()) | Err(VfsError::NoAttribute) => {}
                Err(error) => return Err(of_tree(&error)),
            }
        }
        let text = text_of(&own.vfs, root).map_err(|error| of_tree(&error))?;
        let parsed = text.as_deref().map(Policy::parse).transpose();
        let known = past.known()?;
        let history = &known.history;
        let last =
            policy::last(history, wall()).and_then(|moment| history.kept.get(&moment)).map(|kept| known.info(kept));
        let (policy, wrong) = match parsed {
            Ok(policy) => (policy, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(api::PolicyState {
            volume: own.vfs.path(root).map_err(|error| of_tree(&error))?,
            next_ms: policy.and_then(|policy| policy.next(history, wall())),
            policy: policy.map(policy_info),
            wrong,
            last,
            automatic: history.kept.values().filter(|kept| kept.by == By::Policy).count() as u64,
            here: volume.may_write().is_ok(),
        })
    }
}

impl Own {
    fn tend_policy(&self, id: VolumeId, root: u64) -> Result<(), String> {
        let volume = self.volumes.of(id).map_err(|error| error.to_string())?;
        if volume.may_write().is_err() {
            return Ok(());
        }
        let tended = volume.tend_policy(&self.vfs, root, wall()).map_err(|error| error.to_string())?;
        if tended.taken.is_some() || tended.gone > 0 {
            let (is_taken, gone) = (tended.taken.is_some(), tended.gone);
            tracing::info!(volume = %id.short(), is_taken, gone, "snapshots by the policy");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_until_it_is_another_one_or_was_none() {
        let (one, two) = (VolumeId([1; 16]), VolumeId([2; 16]));
        let mut causes = Causes::default();
        assert!(causes.is_new(one, "a") && causes.is_new(two, "a"));
        assert!(!causes.is_new(one, "a") && causes.is_new(one, "b") && !causes.is_new(one, "b"));
        causes.clear(one);
        assert!(causes.is_new(one, "b"));
        causes.retain(&[two]);
        assert!(causes.is_new(one, "b") && !causes.is_new(two, "a"));
    }

    #[test]
    fn it_is_looked_about_once_a_minute_and_not_by_all_at_once() {
        let all: Vec<Duration> = (0..100).map(|_| later(Duration::from_secs(EVERY))).collect();
        assert!(all.iter().all(|later| *later < Duration::from_secs(30)));
        assert!(all.iter().any(|later| *later != all[0]));
    }
}

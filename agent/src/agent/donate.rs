//! What this agent gives to others, and to whom.

use hypernet_core::node::{Command, Node, Outcome, Whose};
use hypernet_core::quota::{Depositor, Used};
use hypernet_sdk::api;

use super::{Agent, blocking};
use crate::config::Leaving;
use crate::failure::{Failure, Kind};
use crate::volume::LEASE_SECONDS;
use crate::volume::write::unix_now;

/// As it is told.
pub(crate) fn depositor(depositor: Depositor) -> api::Depositor {
    match depositor {
        Depositor::Known => api::Depositor::Known,
        Depositor::Reciprocal => api::Depositor::Reciprocal,
        Depositor::Newcomer => api::Depositor::Newcomer,
    }
}

/// As it is told.
pub(crate) fn whose(whose: Whose) -> api::Whose {
    match whose {
        Whose::Own => api::Whose::Own,
        Whose::Contact => api::Whose::Contact,
    }
}

impl Agent {
    /// What is given now, and used.
    pub(crate) async fn donated(&self) -> api::DonateStatus {
        let reciprocal = self.node.ask(Node::reciprocal_most).await.unwrap_or_default();
        let (quota, newcomers_percent, leaving) = {
            let config = self.config.lock();
            (config.quota(), config.newcomers, config.leaving)
        };
        let (used, shards): (Used, u64) = (self.store.used(), self.store.count());
        let limit = |depositor| match depositor {
            Depositor::Known => quota.bytes,
            Depositor::Reciprocal => reciprocal,
            Depositor::Newcomer => quota.newcomers,
        };
        let share =
            |one: Depositor| api::DonateShare { depositor: depositor(one), used: used.of(one), limit: limit(one) };
        let shares = Depositor::ALL.into_iter().map(share).collect();
        let leaving = match leaving {
            Some(leaving) => Some(self.left(leaving).await),
            None => None,
        };
        api::DonateStatus { quota: quota.bytes, used: used.total(), shards, newcomers_percent, shares, leaving }
    }

    /// How far it has come with what others had here when it began to stop.
    async fn left(&self, leaving: Leaving) -> api::Leaving {
        let store = self.store.clone();
        let ends = match blocking(move || store.lease_ends()).await {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the leases of what is stored for others cannot be read");
                None
            }
            Err(failure) => {
                tracing::warn!(%failure, "the leases of what is stored for others cannot be read");
                None
            }
        };
        let now = unix_now();
        // A lease that is renewed runs for so long, to the end of a day.
        let renewed = |until: u64| until.saturating_sub(LEASE_SECONDS);
        api::Leaving {
            for_seconds: now.saturating_sub(leaving.since),
            bytes_then: leaving.bytes,
            shards_then: leaving.shards,
            ends_in_seconds: ends.map(|(_, last)| last.0.saturating_sub(now)),
            unheard_seconds: ends.map(|(first, _)| now.saturating_sub(renewed(first.0))),
        }
    }

    /// Gives that from now on. What is there stays, also where it is more.
    pub(crate) async fn donate(&self, request: &api::DonateRequest) -> Result<api::DonateStatus, Failure> {
        if request.newcomers_percent.is_some_and(|percent| percent > 100) {
            return Err(Failure::new(Kind::Usage, "newcomers cannot have more than all of it")
                .hint("--newcomers takes 0 to 100, in percent"));
        }
        let (quota, leaves) = {
            let mut config = self.config.lock();
            let mut changed = config.clone();
            changed.donate = request.quota.unwrap_or(changed.donate);
            changed.newcomers = request.newcomers_percent.unwrap_or(changed.newcomers);
            // Whoever gives something from now on goes on.
            let leaves = request.leave.or(request.quota.filter(|bytes| *bytes > 0).map(|_| false));
            changed.leaving = match leaves {
                Some(false) => None,
                Some(true) => Some(changed.leaving.unwrap_or_else(|| Leaving {
                    since: unix_now(),
                    bytes: self.store.used().total(),
                    shards: self.store.count(),
                })),
                None => changed.leaving,
            };
            let leaves = (changed.leaving.is_some() != config.leaving.is_some()).then_some(changed.leaving.is_some());
            if changed != *config {
                changed.save(&self.home)?;
                *config = changed;
            }
            (config.quota(), leaves)
        };
        self.store.set_quota(quota);
        let commands = [Some(Command::Give(quota)), leaves.map(Command::Leave)];
        for command in commands.into_iter().flatten() {
            if let Outcome::Failed(error) = self.node.run(command).await {
                return Err(Failure::new(Kind::TryAgain, error.to_string())
                    .hint("try again: the next start knows it in any case"));
            }
        }
        Ok(self.donated().await)
    }

    /// What somebody should know whose agent stops storing for others.
    pub(crate) fn stopped_giving(&self) -> Option<String> {
        self.config.lock().leaving.map(|_| {
            "this agent stops storing for others, who move elsewhere what they have here: `hn donate` shows how far they are, and \
             `hn donate resume` goes on"
                .to_owned()
        })
    }

    /// What somebody should know who gives space that nobody can use.
    pub(crate) fn unused_gift(&self) -> Option<String> {
        let config = self.config.lock();
        let is_for_some = config.storage_only && config.newcomers < 100 && config.donate > 0;
        is_for_some.then(|| {
            format!(
                "this peer has no identity and so knows nobody: others can use {} % of what it gives; \
                 `hn donate --newcomers 100` gives them all of it",
                config.newcomers
            )
        })
    }
}

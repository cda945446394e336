//! What this agent gives to others, and to whom.

use hypernet_core::node::{Command, Node, Outcome, Whose};
use hypernet_core::quota::{Depositor, Used};
use hypernet_sdk::api;

use super::Agent;
use crate::failure::{Failure, Kind};

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
        let (quota, newcomers_percent) = {
            let config = self.config.lock();
            (config.quota(), config.newcomers)
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
        api::DonateStatus { quota: quota.bytes, used: used.total(), shards, newcomers_percent, shares }
    }

    /// Gives that from now on. What is there stays, also where it is more.
    pub(crate) async fn donate(&self, request: &api::DonateRequest) -> Result<api::DonateStatus, Failure> {
        if request.newcomers_percent.is_some_and(|percent| percent > 100) {
            return Err(Failure::new(Kind::Usage, "newcomers cannot have more than all of it")
                .hint("--newcomers takes 0 to 100, in percent"));
        }
        let quota = {
            let mut config = self.config.lock();
            let mut changed = config.clone();
            changed.donate = request.quota.unwrap_or(changed.donate);
            changed.newcomers = request.newcomers_percent.unwrap_or(changed.newcomers);
            if changed != *config {
                changed.save(&self.home)?;
                *config = changed;
            }
            config.quota()
        };
        self.store.set_quota(quota);
        if let Outcome::Failed(error) = self.node.run(Command::Give(quota)).await {
            return Err(
                Failure::new(Kind::TryAgain, error.to_string()).hint("try again: the next start knows it in any case")
            );
        }
        Ok(self.donated().await)
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

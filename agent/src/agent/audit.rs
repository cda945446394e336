//! Looks again and again which shards are to be proven now.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::time::UnixSeconds;

use super::{Agent, blocking};
use crate::volume::audit::ROUND;
use crate::volume::write::unix_now;

/// How often, in seconds; more often where a round is shorter.
const EVERY: u64 = 60;

/// Looks until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let every = (agent.config.lock().audits_every.unwrap_or(ROUND) / 16).clamp(1, EVERY);
    let mut told = String::new();
    loop {
        tokio::time::sleep(Duration::from_secs(every)).await;
        let agent = agent.clone();
        let looked = blocking(move || agent.tend_audits(every)).await;
        let cause = match looked {
            Ok(Ok(())) => String::new(),
            Ok(Err(cause)) => cause,
            Err(failure) => failure.to_string(),
        };
        if !cause.is_empty() && cause != told {
            tracing::warn!(cause, "shards could not be audited; it is tried again");
        }
        told = cause;
    }
}

impl Agent {
    /// Blocks.
    fn tend_audits(&self, every: u64) -> Result<(), String> {
        // Before the head is found nothing is known of what there is.
        let Some(own) = self.with_volume().filter(|_| !self.config.lock().recovering) else { return Ok(()) };
        own.auditor.tend(UnixSeconds(unix_now()), every).map_err(|error| error.to_string())
    }
}

//! Hearing at once of what other devices publish: the keepers of their heads tell this agent's node when one changes, and
//! whoever follows that volume looks.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::id::RecordKey;
use hypernet_core::node::Command;
use tokio::sync::broadcast::error::RecvError;

use super::Agent;
use crate::volume::sync::Engine;

/// How often it is looked which heads there are to be heard of.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Hears until it is aborted, or the node stops.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut changes = agent.node.changes();
    let mut watched: Vec<RecordKey> = Vec::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            changed = changes.recv() => match changed {
                Ok(key) => hear(&agent, |engine| engine.places().contains(&key)),
                // More has changed than is remembered one by one.
                Err(RecvError::Lagged(_)) => hear(&agent, |engine| !engine.places().is_empty()),
                Err(RecvError::Closed) => return,
            },
            _ = look.tick() => {
                let engines = engines(&agent);
                let mut wanted: Vec<RecordKey> = engines.iter().flat_map(|engine| engine.places()).collect();
                wanted.sort();
                wanted.dedup();
                if wanted != watched {
                    watched.clone_from(&wanted);
                    agent.node.run(Command::Watch(wanted)).await;
                }
            }
        }
    }
}

fn engines(agent: &Agent) -> Vec<Arc<Engine>> {
    agent.with_volume().map_or_else(Vec::new, |own| own.engines())
}

fn hear(agent: &Agent, of: impl Fn(&Engine) -> bool) {
    engines(agent).iter().filter(|engine| of(engine)).for_each(|engine| engine.hear());
}

//! Keeps what the next start will need: room on the disk, the peers that were met, and how they have behaved.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Memory, blocking};
use crate::config::{self, Home};
use crate::driver::NodeHandle;
use crate::{reserve, standings};

/// How often what changed is written.
const EVERY: Duration = Duration::from_secs(5);

/// How many times more seldom the conduct of peers is, which is a longer text and changes slowly.
const STANDINGS_EVERY: u32 = 120;

/// Writes it down.
pub(super) struct Keeper {
    pub(super) home: Home,
    pub(super) memory: Arc<Mutex<Memory>>,
}

impl Keeper {
    /// Writes what has changed. Blocks.
    pub(super) fn save(&self) {
        // Whoever only stores for others has nothing that could be removed to make room.
        if self.home.keystore().exists() {
            reserve::set_aside(&self.home);
        }
        let list = {
            let mut memory = self.memory.lock();
            if !std::mem::take(&mut memory.changed) {
                return;
            }
            memory.list()
        };
        if let Err(failure) = config::remember_peers(&self.home, &list) {
            tracing::warn!(%failure, "cannot remember the peers met");
        }
    }
}

/// Saves again and again, until it is aborted.
pub(super) async fn run(keeper: Arc<Keeper>, node: NodeHandle) {
    loop {
        for _ in 0..STANDINGS_EVERY {
            tokio::time::sleep(EVERY).await;
            save(&keeper).await;
        }
        save_standings(&keeper, &node).await;
    }
}

/// Writes down how peers have behaved.
pub(super) async fn save_standings(keeper: &Arc<Keeper>, node: &NodeHandle) {
    let Some(all) = node.ask(hypernet_core::node::Node::standings).await else { return };
    let home = keeper.home.clone();
    match blocking(move || standings::save(&home, &all)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) | Err(failure) => tracing::warn!(%failure, "cannot remember how peers have behaved"),
    }
}

/// Saves once.
pub(super) async fn save(keeper: &Arc<Keeper>) {
    let keeper = keeper.clone();
    if let Err(failure) = blocking(move || keeper.save()).await {
        tracing::error!(%failure, "remembering the peers met");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{addr, peer_id};
    use super::*;

    #[test]
    fn peers_are_written_down_when_one_was_met() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().into());
        let memory = Arc::new(Mutex::new(Memory::default()));
        let keeper = Keeper { home: home.clone(), memory: memory.clone() };
        keeper.save();
        assert!(!home.peers().exists(), "nobody was met, and it was written");
        memory.lock().note(peer_id(1), addr(1, 7));
        keeper.save();
        assert_eq!(config::known_peers(&home), [addr(1, 7)]);
    }
}

//! Keeps what the next start will need: room on the disk, and the peers that were met, all of them in a list of the
//! agent's own, and some in the keystore.
//!
//! Whoever founds a mesh knows nobody yet, and the keystore made then names no peer: it would not lead back to the mesh
//! by itself. So it is sealed anew as long as it names too few, and a copy made after that needs no link.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hypernet_core::id::PeerId;
use parking_lot::Mutex;

use super::{Memory, blocking, mount};
use crate::config::{self, Home};
use crate::failure::Failure;
use crate::keystore::{Keystore, Unlock};
use crate::reserve;

/// How often what changed is written.
const EVERY: Duration = Duration::from_secs(5);
/// Peers that a keystore names, at least: so many are hardly all gone when it is needed.
const NAMED: usize = 8;

/// Writes it down.
pub(super) struct Keeper {
    pub(super) home: Home,
    pub(super) memory: Arc<Mutex<Memory>>,
    /// The keystore and what opens it, unless this agent only stores.
    pub(super) keystore: Option<(Keystore, Unlock)>,
}

impl Keeper {
    /// Writes what has changed. Blocks: sealing by a passphrase takes a second.
    pub(super) fn save(&mut self) {
        // Whoever only stores for others has nothing that could be removed to make room.
        if self.keystore.is_some() {
            reserve::set_aside(&self.home);
        }
        let (all, some) = {
            let mut memory = self.memory.lock();
            if !std::mem::take(&mut memory.changed) {
                return;
            }
            (memory.list(), memory.others(NAMED).cloned().collect::<Vec<_>>())
        };
        if let Err(failure) = config::remember_peers(&self.home, &all) {
            tracing::warn!(%failure, "cannot remember the peers met");
        }
        match self.name_in_keystore(&some) {
            Ok(0) => {}
            Ok(peers) => tracing::info!(peers, "the keystore names more peers now: a new copy of it needs no link"),
            Err(failure) => tracing::warn!(%failure, "cannot name the peers met in the keystore"),
        }
    }

    /// Adds peers to a keystore that names too few; how many.
    fn name_in_keystore(&mut self, met: &[String]) -> Result<usize, Failure> {
        let Some((keystore, unlock)) = &mut self.keystore else { return Ok(0) };
        let mut named: BTreeSet<PeerId> = keystore.bootstrap.iter().filter_map(|addr| peer_in(addr)).collect();
        let mut fuller = keystore.clone();
        for addr in met {
            if named.len() < NAMED && peer_in(addr).is_some_and(|peer| named.insert(peer)) {
                fuller.bootstrap.push(addr.clone());
            }
        }
        let added = fuller.bootstrap.len() - keystore.bootstrap.len();
        if added > 0 {
            fuller.save(&self.home.keystore(), unlock)?;
            *keystore = fuller;
        }
        Ok(added)
    }
}

fn peer_in(addr: &str) -> Option<PeerId> {
    addr.parse().ok().as_ref().and_then(mount::peer_named)
}

/// Saves again and again, until it is aborted.
pub(super) async fn run(keeper: Arc<Mutex<Keeper>>) {
    loop {
        tokio::time::sleep(EVERY).await;
        save(&keeper).await;
    }
}

/// Saves once.
pub(super) async fn save(keeper: &Arc<Mutex<Keeper>>) {
    let keeper = keeper.clone();
    if let Err(failure) = blocking(move || keeper.lock().save()).await {
        tracing::error!(%failure, "remembering the peers met");
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::NetworkId;

    use super::super::tests::{addr, peer_id};
    use super::*;

    #[test]
    fn a_keystore_that_names_too_few_peers_is_filled_up_and_then_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().into());
        let keystore = Keystore::create(NetworkId([1; 16]), vec![addr(0, 1), addr(0, 2)]).unwrap();
        let memory = Arc::new(Mutex::new(Memory::default()));
        let mut keeper =
            Keeper { home: home.clone(), memory: memory.clone(), keystore: Some((keystore, Unlock::KeyFile)) };
        let named = || Keystore::load(&home.keystore(), &Unlock::KeyFile).map(|keystore| keystore.bootstrap);
        keeper.save();
        assert!(named().is_err(), "nobody was met, and it was written");
        for peer in [0, 1] {
            memory.lock().note(peer_id(peer), addr(peer, 7));
        }
        keeper.save();
        assert_eq!(named().unwrap(), [addr(0, 1), addr(0, 2), addr(1, 7)], "one of each that it did not name");
        for peer in 2..100 {
            memory.lock().note(peer_id(peer), addr(peer, 7));
        }
        keeper.save();
        let full = named().unwrap();
        assert_eq!(full.len(), NAMED + 1);
        memory.lock().note(peer_id(100), addr(100, 7));
        keeper.save();
        assert_eq!(named().unwrap(), full);
        assert_eq!(config::known_peers(&home).len(), 101);
    }
}

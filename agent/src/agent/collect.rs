//! Leases, garbage and repair: what is looked after by itself once a day, and when somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::time::UnixSeconds;
use hypernet_sdk::api;

use super::{Agent, blocking, port_failure};
use crate::failure::Failure;
use crate::volume::collect::{Collected, GRACE, Released};
use crate::volume::handing::LetGo;
use crate::volume::recover::wall;
use crate::volume::repair::Repaired;
use crate::volume::sync::Engine;

/// How often it is looked, in seconds, whether there is something to do.
const LOOK_EVERY: u64 = 600;
/// Bytes of shards that are placed in one look to mend segments: some 850 kB/s at most.
pub(crate) const REPAIRED_AT_ONCE: u64 = 512 << 20;
/// How often leases are renewed that need it: at another hour of the day each time, since there are peers that are never there at
/// some of them.
const RENEWED_EVERY: Duration = Duration::from_secs(5 * 3600);
/// How often garbage is looked for.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// What a look has to do besides mending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// To see after leases.
    Leases,
    /// And to look for garbage.
    All,
}

/// Somebody who was taken off could end leases: others are taken at each look until all are. Garbage is not looked for the more
/// often for that, since some of them may never be had.
fn due(is_time: bool, has_lost: impl FnOnce() -> bool) -> Due {
    if is_time {
        return Due::All;
    }
    if has_lost() { Due::Leases } else { Due::Nothing }
}

/// Looks again and again, until it is aborted.
pub(super) async fn run(agent: Arc<Agent>) {
    let look = agent.looks_every();
    let every = agent.config.lock().collect_every.map_or(EVERY, Duration::from_secs);
    let (mut last, mut renewed): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        tokio::time::sleep(look).await;
        // What nobody has renewed is kept for as long as there is room.
        agent.store.expire(UnixSeconds(wall() / 1000), Box::new(|_| ()));
        let worker = agent.clone();
        if let Err(failure) = blocking(move || worker.repair()).await {
            tracing::error!(%failure, "repair");
        }
        let has_lost = || {
            let engines = agent.with_volume().map_or_else(Vec::new, |own| own.engines());
            engines.iter().any(|engine| engine.has_lost_devices())
        };
        let is_hour = renewed.is_none_or(|at| at.elapsed() >= RENEWED_EVERY);
        let due = due(last.is_none_or(|last| last.elapsed() >= every), || is_hour || has_lost());
        if due != Due::Nothing && agent.with_volume().is_some_and(|own| !own.engines().is_empty()) {
            let worker = agent.clone();
            if let Err(failure) = blocking(move || worker.tend_leases(due)).await {
                tracing::error!(%failure, "looking after leases and garbage");
            }
            renewed = Some(Instant::now());
            if due == Due::All {
                last = renewed;
            }
        }
    }
}

impl Agent {
    /// How long it rests between two looks.
    pub(crate) fn looks_every(&self) -> Duration {
        Duration::from_secs(self.config.lock().collect_every.map_or(LOOK_EVERY, |seconds| seconds.max(1)))
    }

    /// The seconds between the end of all need of a shard and the end of its lease.
    fn grace(&self) -> u64 {
        self.config.lock().release_after.unwrap_or(GRACE)
    }

    /// Mends what needs it most, in all volumes.
    fn repair(&self) {
        let Some(own) = self.with_volume() else { return };
        for engine in own.engines().into_iter().filter(|engine| !engine.is_held()) {
            let volume = engine.volume();
            match engine.repair(REPAIRED_AT_ONCE) {
                Ok(Repaired { due: 0, lost: 0, catalog: 0, .. }) => {}
                Ok(Repaired { due, lost, mended, bytes, leaving, handed, catalog, failed, .. }) => {
                    tracing::info!(
                        volume = %volume.short(),
                        due, lost, mended, bytes, leaving, handed, catalog, failed,
                        "segments are mended"
                    );
                }
                Err(error) => tracing::warn!(volume = %volume.short(), %error, "segments cannot be mended yet"),
            }
            match engine.let_go(self.grace()) {
                Ok(LetGo { left: 0, .. }) => {}
                Ok(LetGo { bytes, left, waits }) => {
                    let waits = waits.join(", ");
                    tracing::info!(volume = %volume.short(), bytes, left, waits, "peers that stop are let go of");
                }
                Err(error) => {
                    tracing::warn!(volume = %volume.short(), %error, "peers that stop cannot be let go of yet")
                }
            }
        }
    }

    fn tend_leases(&self, due: Due) {
        let Some(own) = self.with_volume() else { return };
        for engine in own.engines() {
            let volume = engine.volume();
            match engine.renew() {
                Ok(renewed) if renewed.shards + renewed.missing > 0 => {
                    let (shards, messages, missing) = (renewed.shards, renewed.messages, renewed.missing);
                    tracing::info!(volume = %volume.short(), shards, messages, missing, "leases are renewed");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(volume = %volume.short(), %error, "leases cannot be renewed yet"),
            }
            if engine.is_held() || due == Due::Leases {
                continue;
            }
            match engine.collect(false, self.grace()) {
                Ok((collected, released)) => {
                    let Collected { dead, sparse, moved, .. } = collected;
                    let (freed, waiting) = (released.bytes, released.waiting);
                    if let Some(why) = collected.waits {
                        tracing::info!(volume = %volume.short(), why, "no garbage is looked for yet");
                    } else if dead + sparse + freed > 0 {
                        tracing::info!(volume = %volume.short(), dead, sparse, moved, freed, waiting, "garbage is collected");
                    }
                }
                Err(error) => tracing::warn!(volume = %volume.short(), %error, "garbage cannot be collected yet"),
            }
        }
    }

    /// Gives back the space of what nothing reaches any more, in all volumes of the tree; or only says what that is. Blocks.
    pub(crate) fn gc(&self, dry: bool) -> Result<Vec<api::GcVolume>, Failure> {
        let own = self.own()?;
        let mut all = Vec::new();
        // Those below first, as they are published.
        for engine in own.engines() {
            let path = own.vfs.volumes().into_iter().find(|rooted| rooted.volume == engine.volume());
            let path = path.and_then(|rooted| own.vfs.path(rooted.ino).ok()).unwrap_or_default();
            let (collected, released) = engine.collect(dry, self.grace()).map_err(port_failure)?;
            all.push(told(&engine, path, collected, released));
        }
        Ok(all)
    }
}

fn told(engine: &Engine, path: std::path::PathBuf, collected: Collected, released: Released) -> api::GcVolume {
    api::GcVolume {
        id: engine.volume().to_string(),
        path,
        segments: collected.segments,
        bytes: collected.bytes,
        live_bytes: collected.live,
        dead_segments: collected.dead,
        dead_bytes: collected.dead_bytes,
        sparse_segments: collected.sparse,
        sparse_live_bytes: collected.sparse_live,
        sparse_bytes: collected.sparse_bytes,
        freed_bytes: released.bytes,
        waiting_bytes: released.waiting,
        waits_for: released.waits,
        skipped: collected.waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_cannot_be_had_are_no_reason_to_look_for_garbage_all_the_time() {
        assert_eq!([(true, true), (true, false)].map(|(is_time, lost)| due(is_time, || lost)), [Due::All; 2]);
        assert_eq!((due(false, || true), due(false, || false)), (Due::Leases, Due::Nothing));
    }
}

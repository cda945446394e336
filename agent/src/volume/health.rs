//! How healthy volumes are: a count over all their segments.
//!
//! A volume may have a million of them, and whoever asks for the status waits for no such walk. So it is made in the
//! background, when it is asked for and something that it depends on has changed. It is waited for a little, which
//! is enough in most volumes; else the last one is told, and that it is of before. There is one count of all volumes: what is told
//! of each and of all of them together is of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::id::{PeerId, VolumeId};
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_store::volume::VolumeDb;
use tokio::sync::{Notify, oneshot, watch};

use self::sight::Measure;
pub(crate) use self::sight::Sight;
pub(crate) use self::tally::{Cause, Tally, Weakest};
use super::{Volume, state};

mod sight;
mod tally;

/// How long a count of now is waited for.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// A count that took longer than that is followed by a rest of so many times as long: who watches the status of a large
/// volume must not keep its disk busy.
const REST: u32 = 4;
/// Segments looked at at once.
const SEGMENTS_AT_ONCE: u32 = 512;
/// How long a count is one of now although nothing has come or gone: how much peers are there is measured all the time.
const FRESH: Duration = Duration::from_secs(600);

/// All that a count depends on, but for how much peers are there, which changes slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    /// See [`hypernet_store::volume::VolumeDb::changes`].
    changes: u64,
    connected: BTreeSet<PeerId>,
    /// Those whose rows do not count.
    uncounted: BTreeSet<PeerId>,
    /// k, n and the threshold of what is placed now.
    planned: Option<(u8, u8, u8)>,
    /// See [`super::lacking::Lacking::changes`].
    lacking: u64,
}

impl Basis {
    fn of(volume: &Volume, sight: &Sight) -> Self {
        Self {
            changes: volume.db.changes(),
            connected: sight.online(),
            uncounted: sight.mesh().uncounted(),
            planned: sight.planned(),
            lacking: volume.lacking.changes(),
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) all: Tally,
    /// Of each volume that has a catalog here.
    pub(crate) of: BTreeMap<VolumeId, Tally>,
}

/// One count.
#[derive(Debug)]
pub(crate) struct Count {
    /// Before its basis was looked at: whatever changed until then is in it.
    began: Instant,
    basis: Basis,
    pub(crate) counts: Result<Counts, PortError>,
}

impl Count {
    /// Counts, and stops somewhere on the way when it is not wanted any more.
    fn new(volume: &Volume, is_wanted: &dyn Fn() -> bool) -> Self {
        let began = Instant::now();
        let stopping = || PortError::Unreachable("the agent is stopping".into());
        let sight = volume.node.ask_blocking(Sight::of).ok_or_else(stopping);
        let (sight, failed) = match sight {
            Ok(sight) => (sight, None),
            Err(error) => (Sight::nobody(), Some(error)),
        };
        // What changes from here on is another basis.
        let basis = Basis::of(volume, &sight);
        let counts = failed.map_or_else(|| count_all(volume, &sight, is_wanted), Err);
        Self { began, basis, counts }
    }
}

fn count_all(volume: &Volume, sight: &Sight, is_wanted: &dyn Fn() -> bool) -> Result<Counts, PortError> {
    let measure = Measure::new(&volume.lacking, sight);
    let mut counts = Counts::default();
    for id in volume.db.volumes()? {
        let mut tally = Tally::default();
        each_seen(volume, &volume.db.of(id)?, is_wanted, &mut |seen| match seen {
            Seen::Segment(placement) => tally.add(placement, &measure, false),
            Seen::OfCatalog(placement) => tally.add(placement, &measure, true),
            Seen::Damaged => tally.damaged += 1,
            Seen::Unlisted => tally.unlisted += 1,
        })?;
        counts.all = std::mem::take(&mut counts.all).and(&tally);
        counts.of.insert(id, tally);
    }
    Ok(counts)
}

/// A count as it is told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) count: Arc<Count>,
    /// How long ago it was made, if something may have changed since.
    pub(crate) ago: Option<Duration>,
}

/// Makes counts, one at a time.
#[derive(Debug)]
pub(crate) struct Counter {
    asked: Notify,
    newest: watch::Sender<Option<Arc<Count>>>,
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self { asked: Notify::new(), newest: watch::Sender::new(None) }
    }

    /// Counts whenever it is asked to, until it is aborted.
    pub(crate) async fn run(self: Arc<Self>, volume: Arc<Volume>) {
        loop {
            self.asked.notified().await;
            let began = Instant::now();
            let (done, counted) = oneshot::channel();
            let volume = volume.clone();
            // It ends soon after this has been aborted, and so does not hold a stop up.
            tokio::task::spawn_blocking(move || {
                let count = Count::new(&volume, &|| !done.is_closed());
                let _ = done.send(count);
            });
            if let Ok(count) = counted.await {
                self.newest.send_replace(Some(Arc::new(count)));
            }
            let took = began.elapsed();
            if took > SOON {
                tokio::time::sleep(took * REST).await;
            }
        }
    }

    /// The newest count; one of now, by what is seen of the peers, if that is to be had within this time. `None` before the
    /// first one.
    pub(crate) async fn count(&self, volume: &Volume, sight: &Sight, within: Duration) -> Option<Told> {
        let asked = Instant::now();
        let basis = Basis::of(volume, sight);
        let holds = |count: &Count| count.basis == basis && count.counts.is_ok() && count.began.elapsed() < FRESH;
        let is_of_now =
            |count: &Option<Arc<Count>>| count.as_ref().is_some_and(|count| count.began >= asked || holds(count));
        let mut newest = self.newest.subscribe();
        if !is_of_now(&newest.borrow()) {
            self.asked.notify_one();
        }
        let of_now = tokio::time::timeout(within, newest.wait_for(is_of_now)).await.is_ok_and(|found| found.is_ok());
        let count = newest.borrow().clone()?;
        let ago = (!of_now).then(|| count.began.elapsed());
        Some(Told { count, ago })
    }
}

/// A number that is another one when [`holding`] may be.
pub(crate) fn changes(volume: &Volume) -> u64 {
    // Both only grow.
    volume.db.changes().wrapping_add(volume.lacking.changes())
}

/// Bytes of shards that each peer holds of all volumes, as far as it was not found to lack them. Blocks on the local disk.
pub(crate) fn holding(volume: &Volume) -> Result<BTreeMap<PeerId, u64>, PortError> {
    let mut held: BTreeMap<PeerId, u64> = BTreeMap::new();
    for id in volume.db.volumes()? {
        each_seen(volume, &volume.db.of(id)?, &|| true, &mut |seen| {
            let (Seen::Segment(placement) | Seen::OfCatalog(placement)) = seen else { return };
            volume.lacking.without(placement, |left| {
                for holder in &left.holders {
                    *held.entry(holder.peer).or_default() += u64::from(left.segment.shard_len);
                }
            });
        })?;
    }
    Ok(held)
}

/// A count of now.
#[cfg(test)]
pub(crate) fn count_now(volume: &Volume) -> (Counts, Sight) {
    let sight = volume.node.ask_blocking(Sight::of).unwrap();
    (count_all(volume, &sight, &|| true).unwrap(), sight)
}

/// What is come upon on the way through a volume.
enum Seen<'a> {
    Segment(&'a Placement),
    /// One that the catalog lies in.
    OfCatalog(&'a Placement),
    /// A row of the index that cannot be read.
    Damaged,
    /// A listing that is not here: whoever asks for the status waits for no peer.
    Unlisted,
}

/// Every segment of a volume that this device knows.
fn each_seen(
    volume: &Volume,
    db: &VolumeDb,
    is_wanted: &dyn Fn() -> bool,
    see: &mut dyn FnMut(Seen<'_>),
) -> Result<(), PortError> {
    let mut at = 0;
    while is_wanted() {
        let rows = db.own_segments_iter(at, SEGMENTS_AT_ONCE)?;
        let Some(last) = rows.last() else { break };
        at = last.num;
        for row in &rows {
            match codec::decode::<Placement>(&row.descriptor) {
                Ok(placement) => see(Seen::Segment(&placement)),
                Err(error) => {
                    tracing::error!(%error, "a row of the local index is damaged");
                    see(Seen::Damaged);
                }
            }
        }
    }
    let Some(latest) = state::latest(db)? else { return Ok(()) };
    see(Seen::OfCatalog(&latest.head.manifest_placement));
    volume.each_catalog_segment(&latest.manifest, false, &mut |found| match found {
        Ok(placement) => see(Seen::OfCatalog(placement)),
        Err(_) => see(Seen::Unlisted),
    });
    Ok(())
}

#[cfg(test)]
mod lies;

#[cfg(test)]
mod tests {
    use hypernet_core::seal::Kind;
    use hypernet_core::tree::Sink;

    use super::super::double::Mesh;
    use super::super::progress::Meter;
    use super::super::write::Writer;
    use super::*;

    /// Longer than any count here takes, however busy the machine is.
    const LONG: Duration = Duration::from_secs(300);

    fn put(volume: &Arc<Volume>, fill: u8) -> Placement {
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let extent = writer.put(Kind::Content, &[fill; 5_000]).unwrap();
        writer.finish().unwrap();
        codec::decode(&volume.db.locate(&extent.id()).unwrap().unwrap().descriptor).unwrap()
    }

    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    /// The count, as of the peers that are connected now.
    async fn ask(counter: &Counter, volume: &Arc<Volume>, within: Duration) -> Option<Told> {
        let sight = volume.node.ask(Sight::of).await.unwrap();
        counter.count(volume, &sight, within).await
    }

    fn tally(told: &Told) -> &Tally {
        &told.count.counts.as_ref().unwrap().all
    }

    fn health(told: &Told) -> Vec<((u32, bool), u64)> {
        tally(told).health.iter().map(|(bucket, segments)| (*bucket, *segments)).collect()
    }

    #[tokio::test]
    async fn a_count_of_before_says_so_and_one_of_now_is_made_once() {
        let mesh = Mesh::new(10);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        let counter = Arc::new(Counter::new());
        assert!(ask(&counter, &volume, Duration::ZERO).await.is_none(), "nobody has counted");
        let running = tokio::spawn(counter.clone().run(volume.clone()));
        let writing = volume.clone();
        let placement = blocking(move || put(&writing, 1)).await;
        let (k, n) = (u32::from(placement.segment.k), u32::from(placement.n));
        let holders: Vec<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();

        let told = ask(&counter, &volume, LONG).await.unwrap();
        assert_eq!((health(&told), told.ago), (vec![((0, true), 1)], None));
        let tally = tally(&told);
        assert_eq!((tally.segments, tally.logical), (1, placement.segment.payload_len()));
        assert_eq!(tally.stored, u64::from(n) * u64::from(placement.segment.shard_len));
        assert_eq!(tally.held, holders.iter().map(|holder| (*holder, 1)).collect());
        // Nothing has changed: it is not made again, but for once by who asked while the first was under way.
        let (mut last, mut made) = (told.count, 0);
        for _ in 0..5 {
            let again = ask(&counter, &volume, LONG).await.unwrap();
            made += u32::from(!Arc::ptr_eq(&again.count, &last));
            last = again.count;
            assert!(again.ago.is_none() && made <= 1);
        }

        // With as many peers gone as may be, and one more.
        mesh.disconnect(holders[..(n - k) as usize].iter().copied());
        assert_eq!(health(&ask(&counter, &volume, LONG).await.unwrap()), [((n - k, true), 1)]);
        mesh.disconnect([holders[(n - k) as usize]]);
        let told = ask(&counter, &volume, LONG).await.unwrap();
        assert_eq!((health(&told), told.ago), (vec![((n - k + 1, false), 1)], None));

        // Where nobody counts any more, the last one holds as long as nothing has changed, and is of before then.
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(ask(&counter, &volume, Duration::ZERO).await.unwrap().ago.is_none());
        mesh.connect(holders.iter().copied());
        let stale = ask(&counter, &volume, Duration::ZERO).await.unwrap();
        assert!(Arc::ptr_eq(&stale.count, &told.count) && stale.ago.is_some());
        // What it was asked for meanwhile comes when somebody counts again; so does what is new.
        let writing = volume.clone();
        blocking(move || put(&writing, 2)).await;
        let running = tokio::spawn(counter.clone().run(volume.clone()));
        let told = ask(&counter, &volume, LONG).await.unwrap();
        assert_eq!((health(&told), told.ago), (vec![((0, true), 2)], None));
        running.abort();
    }

    #[test]
    fn a_count_that_nobody_waits_for_ends() {
        let mesh = Mesh::new(10);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        put(&volume, 1);
        let mut seen = 0;
        each_seen(&volume, &volume.db, &|| false, &mut |_| seen += 1).unwrap();
        assert_eq!(seen, 0);
        each_seen(&volume, &volume.db, &|| true, &mut |_| seen += 1).unwrap();
        assert_eq!(seen, 1);
    }
}

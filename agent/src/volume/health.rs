//! How healthy a volume is: a count over all its segments.
//!
//! A volume may have a million of them, and whoever asks for the status waits for no such walk. So it is made in the
//! background, when it is asked for and something that it depends on has changed. It is waited for a little, which
//! is enough in most volumes; else the last one is told, and that it is of before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::id::PeerId;
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_store::volume::VolumeDb;
use tokio::sync::{Notify, oneshot, watch};

use super::collect::lives_until;
use super::{Volume, state};

/// How long a count of now is waited for.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// A count that took longer than that is followed by a rest of so many times as long: who watches the status of a large
/// volume must not keep its disk busy.
const REST: u32 = 4;
/// Segments looked at at once.
const SEGMENTS_AT_ONCE: u32 = 512;

/// What there is, and with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) segments: u64,
    /// Bytes of payload in them.
    pub(crate) logical: u64,
    /// Bytes of their shards.
    pub(crate) stored: u64,
    /// Segments by how many shards are not to be reached, and by whether they can be read.
    pub(crate) health: BTreeMap<(u32, bool), u64>,
    /// Segments by how many of the peers that are there now may go, whichever they are, until they cannot be read.
    pub(crate) spare: BTreeMap<u32, u64>,
    /// When the first segment has fewer leases than it takes to read it, if nobody renews any, in seconds since 1970.
    pub(crate) until: Option<u64>,
    /// Shards by holder.
    pub(crate) held: BTreeMap<PeerId, u64>,
}

impl Tally {
    fn add(&mut self, placement: &Placement, connected: &BTreeSet<PeerId>) {
        self.segments += 1;
        self.logical += placement.segment.payload_len();
        self.stored += placement.holders.len() as u64 * u64::from(placement.segment.shard_len);
        let until = lives_until(placement);
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
        let mut up = 0;
        for holder in &placement.holders {
            up += usize::from(connected.contains(&holder.peer));
            *self.held.entry(holder.peer).or_default() += 1;
        }
        *self.spare.entry(spare(placement, connected)).or_default() += 1;
        let missing = usize::from(placement.n).saturating_sub(up) as u32;
        *self.health.entry((missing, up >= usize::from(placement.segment.k))).or_default() += 1;
    }
}

/// How many of the peers that are there now may go, whichever they are, until a segment cannot be read.
fn spare(placement: &Placement, connected: &BTreeSet<PeerId>) -> u32 {
    let mut rows: BTreeMap<PeerId, usize> = BTreeMap::new();
    for holder in placement.holders.iter().filter(|holder| connected.contains(&holder.peer)) {
        *rows.entry(holder.peer).or_default() += 1;
    }
    // Where peers are few, one can hold several.
    let mut rows: Vec<usize> = rows.into_values().collect();
    rows.sort_unstable();
    let mut left: usize = rows.iter().sum();
    let may_go = |most: &&usize| {
        left = left.saturating_sub(**most);
        left >= usize::from(placement.segment.k)
    };
    rows.iter().rev().take_while(may_go).count() as u32
}

/// All that a count depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Basis {
    /// See [`hypernet_store::volume::VolumeDb::changes`].
    changes: u64,
    connected: BTreeSet<PeerId>,
    /// See [`super::lacking::Lacking::changes`].
    lacking: u64,
}

/// One count.
#[derive(Debug)]
pub(crate) struct Count {
    /// Before its basis was looked at: whatever changed until then is in it.
    began: Instant,
    basis: Basis,
    pub(crate) tally: Result<Tally, PortError>,
}

impl Count {
    /// Counts, and stops somewhere on the way when it is not wanted any more.
    fn new(volume: &Volume, is_wanted: &dyn Fn() -> bool) -> Self {
        let began = Instant::now();
        let (changes, lacking) = (volume.db.changes(), volume.lacking.changes());
        let (connected, tally) = match volume.peers.connected() {
            Ok(connected) => {
                let mut tally = Tally::default();
                let all = each_placement(volume, is_wanted, &mut |placement| {
                    volume.lacking.without(placement, |left| tally.add(left, &connected));
                });
                (connected, all.map(|()| tally))
            }
            Err(error) => (BTreeSet::new(), Err(error)),
        };
        Self { began, basis: Basis { changes, connected, lacking }, tally }
    }
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

    /// The newest count; one of now, with these peers connected, if that is to be had within this time. `None` before the
    /// first one.
    pub(crate) async fn count(&self, volume: &Volume, connected: &BTreeSet<PeerId>, within: Duration) -> Option<Told> {
        let asked = Instant::now();
        let basis =
            Basis { changes: volume.db.changes(), connected: connected.clone(), lacking: volume.lacking.changes() };
        let is_of_now = |count: &Option<Arc<Count>>| {
            count.as_ref().is_some_and(|count| count.began >= asked || (count.basis == basis && count.tally.is_ok()))
        };
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

/// Every segment that this device knows, of all volumes.
/// A number that is another one when [`holding`] may be.
pub(crate) fn changes(volume: &Volume) -> u64 {
    // Both only grow.
    volume.db.changes().wrapping_add(volume.lacking.changes())
}

/// Bytes of shards that each peer holds of all volumes, as far as it was not found to lack them. Blocks on the local disk.
pub(crate) fn holding(volume: &Volume) -> Result<BTreeMap<PeerId, u64>, PortError> {
    let mut held: BTreeMap<PeerId, u64> = BTreeMap::new();
    each_placement(volume, &|| true, &mut |placement| {
        volume.lacking.without(placement, |left| {
            for holder in &left.holders {
                *held.entry(holder.peer).or_default() += u64::from(left.segment.shard_len);
            }
        });
    })?;
    Ok(held)
}

fn each_placement(
    volume: &Volume,
    is_wanted: &dyn Fn() -> bool,
    see: &mut dyn FnMut(&Placement),
) -> Result<(), PortError> {
    for id in volume.db.volumes()? {
        each_placement_of(volume, &volume.db.of(id)?, is_wanted, see)?;
    }
    Ok(())
}

fn each_placement_of(
    volume: &Volume,
    db: &VolumeDb,
    is_wanted: &dyn Fn() -> bool,
    see: &mut dyn FnMut(&Placement),
) -> Result<(), PortError> {
    let mut at = 0;
    while is_wanted() {
        let rows = db.own_segments_iter(at, SEGMENTS_AT_ONCE)?;
        let Some(last) = rows.last() else { break };
        at = last.num;
        for row in &rows {
            match codec::decode::<Placement>(&row.descriptor) {
                Ok(placement) => see(&placement),
                Err(error) => tracing::error!(%error, "a row of the local index is damaged"),
            }
        }
    }
    let Some(latest) = state::latest(db)? else { return Ok(()) };
    see(&latest.head.manifest_placement);
    // A listing that is not here is left out: whoever asks for the status waits for no peer.
    volume.each_catalog_segment(&latest.manifest, false, &mut |found| {
        if let Ok(placement) = found {
            see(placement);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::ShardId;
    use hypernet_core::seal::Kind;
    use hypernet_core::segment::{Holder, Segment};
    use hypernet_core::time::UnixSeconds;
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
        let looked = volume.clone();
        let connected = blocking(move || looked.peers.connected().unwrap()).await;
        counter.count(volume, &connected, within).await
    }

    fn health(told: &Told) -> Vec<((u32, bool), u64)> {
        told.count.tally.as_ref().unwrap().health.iter().map(|(bucket, segments)| (*bucket, *segments)).collect()
    }

    #[test]
    fn what_may_go_are_peers_and_the_ones_that_hold_most_first() {
        let segment = Segment { k: 3, shard_len: 4096, rows: vec![ShardId([0; 32]); 6] };
        let placement = |peers: &[u8]| {
            let holder = |(peer, row): (&u8, u8)| Holder { row, peer: PeerId([*peer; 32]), until: UnixSeconds(0) };
            Placement { segment: segment.clone(), n: 6, holders: peers.iter().zip(0..).map(holder).collect() }
        };
        let connected: BTreeSet<PeerId> = (1..=6).map(|peer| PeerId([peer; 32])).collect();
        assert_eq!(spare(&placement(&[1, 2, 3, 4, 5, 6]), &connected), 3);
        assert_eq!(spare(&placement(&[1, 2, 3, 4, 8, 9]), &connected), 1);
        assert_eq!(spare(&placement(&[1, 1, 1, 4, 5, 6]), &connected), 1);
        assert_eq!(spare(&placement(&[1, 1, 1, 1, 5, 6]), &connected), 0);
        assert_eq!(spare(&placement(&[1, 2, 7, 8, 9, 10]), &connected), 0);
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
        let tally = told.count.tally.as_ref().unwrap();
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
        each_placement(&volume, &|| false, &mut |_| seen += 1).unwrap();
        assert_eq!(seen, 0);
        each_placement(&volume, &|| true, &mut |_| seen += 1).unwrap();
        assert_eq!(seen, 1);
    }
}

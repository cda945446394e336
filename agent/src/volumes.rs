//! The volumes of this device: the main one, whose root is the uppermost, and those whose roots are below it.
//!
//! What one of them knows can be read through any: their catalogs are in one database. A volume below is opened when its
//! root is first come by, and is then looked for in the background, because nobody who enters a directory waits for longer
//! than a read may take.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hypernet_core::history::check_name;
use hypernet_core::history::revision::short;
use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::limits::FS_VOLUMES_MAX;
use hypernet_core::port::{PortError, RemoteTree, Stretch};
use hypernet_core::seal::{ExtentRef, Origin};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, Entry, Inode, LinkEntry, Root, TreeRef};
use hypernet_fs::panics;
use hypernet_fs::past::{Named, Snapshots};
use parking_lot::{Condvar, Mutex};

use crate::volume::heads::YEAR_9999;
use crate::volume::{READ_WITHIN, Volume, damaged, state};

/// Volumes below the main one that are open at once.
const VOLUMES_MAX: usize = FS_VOLUMES_MAX;
/// Volumes that are looked for at once.
const SEARCHES_MAX: usize = 8;

#[derive(Default)]
struct Below {
    open: BTreeMap<VolumeId, Arc<Volume>>,
    /// The [turns](Volume::turn) of those that somebody has, though they may be open no more: of each volume there is one.
    turns: BTreeMap<VolumeId, Weak<Mutex<()>>>,
    /// Those that are being looked for.
    searched: BTreeSet<VolumeId>,
    /// How the last search of those ended that were not found.
    failed: BTreeMap<VolumeId, PortError>,
}

/// See the module.
pub(crate) struct Volumes {
    main: Arc<Volume>,
    below: Mutex<Below>,
    searched: Condvar,
    found: Box<dyn Fn(Arc<Volume>) + Send + Sync>,
}

impl Volumes {
    /// `found` is told of volumes below the main one whose newest head was looked for and found.
    pub(crate) fn new(main: Arc<Volume>, found: impl Fn(Arc<Volume>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { main, below: Mutex::default(), searched: Condvar::new(), found: Box::new(found) })
    }

    /// Those that are open, the main one first.
    pub(crate) fn all(&self) -> Vec<Arc<Volume>> {
        let below = self.below.lock();
        std::iter::once(&self.main).chain(below.open.values()).cloned().collect()
    }

    /// A volume of this identity. Blocks on the local disk.
    pub(crate) fn of(&self, id: VolumeId) -> Result<Arc<Volume>, PortError> {
        if id == self.main.id {
            return Ok(self.main.clone());
        }
        let mut below = self.below.lock();
        if let Some(volume) = below.open.get(&id) {
            return Ok(volume.clone());
        }
        if below.open.len() >= VOLUMES_MAX {
            return Err(damaged(format!("there are more than {VOLUMES_MAX} volumes in this tree")));
        }
        let mut volume = Volume::below(&self.main, id)?;
        if let Some(turn) = below.turns.get(&id).and_then(Weak::upgrade) {
            volume.turn = turn;
        }
        let volume = Arc::new(volume);
        below.turns.retain(|_, turn| turn.strong_count() > 0);
        below.turns.insert(id, Arc::downgrade(&volume.turn));
        below.open.insert(id, volume.clone());
        Ok(volume)
    }

    /// Lets go of one that came to nothing.
    pub(crate) fn close(&self, id: VolumeId) {
        self.below.lock().open.remove(&id);
    }

    /// Looks for the newest head of a volume, unless somebody does.
    fn search(self: &Arc<Self>, volume: Arc<Volume>) -> Result<(), PortError> {
        {
            let mut below = self.below.lock();
            if below.searched.contains(&volume.id) {
                return Ok(());
            }
            if below.searched.len() >= SEARCHES_MAX {
                return Err(PortError::Unreachable("many other volumes are being looked for; try again".into()));
            }
            below.searched.insert(volume.id);
        }
        let (volumes, id) = (self.clone(), volume.id);
        let search = move || {
            let found = panics::caught(|| {
                // Whoever publishes a head of it has found one.
                let _turn = volume.turn.lock();
                match Reader::newest(&volume)? {
                    Some(_) => Ok(()),
                    None => volume.recover(None, &mut |_| ()).map(drop),
                }
            });
            let mut below = volumes.below.lock();
            below.searched.remove(&volume.id);
            if !matches!(found, Ok(Ok(_))) {
                // It takes up no room.
                below.open.remove(&volume.id);
                if below.failed.len() >= VOLUMES_MAX {
                    below.failed.clear();
                }
            }
            match found {
                Ok(Ok(_)) => drop(below.failed.remove(&volume.id)),
                Ok(Err(error)) => drop(below.failed.insert(volume.id, error.into())),
                Err(text) => drop(below.failed.insert(volume.id, damaged(text))),
            }
            drop(below);
            volumes.searched.notify_all();
        };
        let begun = std::thread::Builder::new().name("hn-find".into()).spawn(search);
        begun.map(drop).map_err(|error| {
            self.below.lock().searched.remove(&id);
            PortError::Disk(format!("cannot start a thread: {error}"))
        })
    }

    /// Waits until nobody looks for a volume any more, or the deadline has passed.
    fn wait(&self, id: VolumeId, until: Instant) -> Result<(), PortError> {
        let mut below = self.below.lock();
        while below.searched.contains(&id) {
            if self.searched.wait_until(&mut below, until).timed_out() {
                return Err(PortError::Deadline(format!("volume {} is still being looked for", id.short())));
            }
        }
        below.failed.get(&id).cloned().map_or(Ok(()), Err)
    }
}

/// What the tree is read by. It holds the volumes, and lets searches go on that nobody waits for.
pub(crate) struct Reader(pub(crate) Arc<Volumes>);

impl Reader {
    /// By whose index something is looked up first: that of the volume that it was sealed for, where there is one. What that one
    /// does not know may be in any other's.
    fn by(&self, reference: &ExtentRef) -> Arc<Volume> {
        let is_of = |volume: &Arc<Volume>| Origin::from(volume.id) == reference.origin;
        self.0.all().into_iter().find(is_of).unwrap_or_else(|| self.0.main.clone())
    }

    fn by_content(&self, content: &Content) -> Arc<Volume> {
        match content {
            Content::Extent(extent) => self.by(extent),
            Content::Runs { tree, .. } | Content::Directory(tree) => self.by(&tree.node),
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => self.0.main.clone(),
        }
    }

    fn newest(volume: &Volume) -> Result<Option<Inode>, PortError> {
        Ok(state::latest(&volume.db)?.map(|latest| latest.root.inode))
    }
}

impl RemoteTree for Reader {
    fn list(&self, directory: &TreeRef) -> Result<Vec<Entry>, PortError> {
        self.by(&directory.node).list(directory)
    }

    fn link(&self, volume: VolumeId, id: FileId) -> Result<LinkEntry, PortError> {
        self.0.of(volume)?.link(id)
    }

    fn read(&self, content: &Content, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, PortError> {
        self.by_content(content).read(content, range)
    }

    fn seek(&self, content: &Content, from: u64, wanted: Stretch) -> Result<Option<u64>, PortError> {
        self.by_content(content).seek(content, from, wanted)
    }

    fn common(&self, one: &Content, other: &Content) -> Result<u64, PortError> {
        self.by_content(one).common(one, other)
    }

    fn root(&self, volume: VolumeId, enter: &mut dyn FnMut(Inode)) -> Result<(), PortError> {
        let until = Instant::now() + Duration::from_millis(READ_WITHIN);
        let volume = self.0.of(volume)?;
        if Self::newest(&volume)?.is_none() {
            self.0.search(volume.clone())?;
            self.0.wait(volume.id, until)?;
        }
        {
            // Whoever publishes a head of a volume that is not in the tree does not have the tree follow: it is to stay so until
            // that is over. Else what the tree lacks of that head would be published as taken away.
            let Some(_turn) = volume.turn.try_lock_until(until) else {
                let text = format!("what others have changed is still being merged into volume {}", volume.id.short());
                return Err(PortError::Deadline(text));
            };
            enter(Self::newest(&volume)?.ok_or_else(|| PortError::NotFound("the volume has no head".into()))?);
        }
        // Also of one that was found before, by a search that somebody did not wait for, or before a crash.
        (self.0.found)(volume);
        Ok(())
    }
}

impl Snapshots for Reader {
    fn names(&self, volume: VolumeId) -> Result<BTreeMap<Vec<u8>, Named>, PortError> {
        let history = self.0.of(volume)?.history()?;
        let mut names: BTreeMap<Vec<u8>, Named> = BTreeMap::new();
        let mut by_id: BTreeMap<SnapshotId, Vec<u8>> = BTreeMap::new();
        for moment in history.kept.keys() {
            let millis = moment.time.millis;
            let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
            let time = std::time::UNIX_EPOCH + Duration::from_millis(millis.min(YEAR_9999));
            // Colons are no part of names elsewhere. To the millisecond, so that names are in the order of time.
            let when = humantime::format_rfc3339_millis(time).to_string().replace(':', ".");
            let name = format!("{when}-{}", short(&moment.id)).into_bytes();
            by_id.insert(moment.id, name.clone());
            let time = Timespec { seconds, nanos: (millis % 1_000) as u32 * 1_000_000 };
            names.insert(name, Named::Snapshot(moment.id, time));
        }
        for tag in history.tags.values() {
            // What somebody else has named need not be a name here.
            if let Some(target) = by_id.get(&tag.to).filter(|_| check_name(&tag.name).is_ok()) {
                names.entry(tag.name.clone().into_bytes()).or_insert_with(|| Named::Tag(target.clone()));
            }
        }
        Ok(names)
    }

    fn changed(&self, volume: VolumeId) -> Result<Timespec, PortError> {
        let history = self.0.of(volume)?.history()?;
        let millis = history.kept.keys().next_back().map_or(0, |newest| newest.time.millis);
        let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
        let nanos = (millis % 1_000) * 1_000_000 + (history.kept.len() + history.tags.len()) as u64;
        Ok(Timespec { seconds, nanos: (nanos % 1_000_000_000) as u32 })
    }

    fn snapshot(&self, volume: VolumeId, id: SnapshotId) -> Result<Root, PortError> {
        let volume = self.0.of(volume)?;
        let history = volume.history()?;
        let kept =
            history.snapshot(&id).ok_or_else(|| PortError::NotFound("the snapshot is pruned or unknown".into()))?;
        volume.root_in(kept)
    }

    fn link_in(&self, links: &TreeRef, id: FileId) -> Result<Option<LinkEntry>, PortError> {
        self.0.main.row_of(links, id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::volume::double::Mesh;
    use crate::volume::state::tests::golden;

    #[test]
    fn whoever_enters_a_volume_has_its_upload_begin_whenever_it_was_found() {
        let (mesh, dir) = (Mesh::new(4), tempfile::tempdir().unwrap());
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        let volumes = Volumes::new(mesh.volume(dir.path(), 1), move |_| _ = count.fetch_add(1, Ordering::SeqCst));
        let (reader, id) = (Reader(volumes.clone()), VolumeId([9; 16]));
        assert!(matches!(reader.root(id, &mut |_| panic!("nothing")), Err(PortError::NotFound(_))));
        assert_eq!((told.load(Ordering::SeqCst), volumes.all().len()), (0, 1), "what is not found takes up no room");
        // By a search that nobody waited for.
        state::put_latest(&volumes.of(id).unwrap().db, &golden()).unwrap();
        for times in 1..3 {
            reader.root(id, &mut |root| assert_eq!(root, golden().root.inode)).unwrap();
            assert_eq!(told.load(Ordering::SeqCst), times);
        }
    }

    #[test]
    fn whoever_enters_a_volume_waits_for_whoever_publishes_a_head_of_it_and_has_that() {
        let (mesh, dir) = (Mesh::new(4), tempfile::tempdir().unwrap());
        let volumes = Volumes::new(mesh.volume(dir.path(), 1), |_| ());
        let (reader, id) = (Reader(volumes.clone()), VolumeId([9; 16]));
        let volume = volumes.of(id).unwrap();
        state::put_latest(&volume.db, &golden()).unwrap();
        let mut merged = golden();
        merged.root.inode.mode ^= 0o111;
        let turn = volume.turn.lock();
        // It is the same turn for whoever comes by the volume anew.
        volumes.close(id);
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                let mut entered = None;
                let mut enter = |root| {
                    assert!(volume.turn.try_lock().is_none(), "and nothing is published meanwhile");
                    entered = Some(root);
                };
                reader.root(id, &mut enter).unwrap();
                entered
            });
            std::thread::sleep(Duration::from_millis(100));
            assert!(!entered.is_finished());
            state::put_latest(&volume.db, &merged).unwrap();
            drop(turn);
            assert_eq!(entered.join().unwrap(), Some(merged.root.inode.clone()));
        });
        assert!(volume.turn.try_lock().is_some());
    }

    #[test]
    fn volumes_and_searches_are_bounded() {
        let (mesh, dir) = (Mesh::new(4), tempfile::tempdir().unwrap());
        let volumes = Volumes::new(mesh.volume(dir.path(), 1), |_| ());
        let id = |number: u64| VolumeId((u128::from(number) << 64).to_be_bytes());
        for number in 0..VOLUMES_MAX as u64 {
            volumes.of(id(number)).unwrap();
        }
        assert!(volumes.of(id(1 << 40)).is_err());
        volumes.close(id(0));
        volumes.of(id(1 << 40)).unwrap();
        volumes.below.lock().searched.extend((0..SEARCHES_MAX as u64).map(id));
        assert!(matches!(volumes.search(volumes.of(id(900)).unwrap()), Err(PortError::Unreachable(_))));
        volumes.search(volumes.of(id(1)).unwrap()).unwrap();
    }
}

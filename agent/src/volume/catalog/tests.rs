use hypernet_core::head::{Head, Snapshot};
use hypernet_core::id::{FileId, SegmentId, ShardId};
use hypernet_core::limits::SEALED_MAX;
use hypernet_core::segment::{Holder, Segment};
use hypernet_core::time::{Hlc, Timespec, UnixSeconds};
use hypernet_core::tree::{Content, Dot, FileKind, Inode, Root, Sink};
use hypernet_store::volume::NewSegment;
use tempfile::TempDir;

use super::super::double::Mesh;
use super::super::recover::RecoverError;
use super::super::state::{self, Latest};
use super::super::write::Writer;
use super::*;

/// Small pages, so that a catalog has many of them without a file for each; manifests have the size that is used.
const SMALL: Sizes = Sizes { page_rows: small_rows, manifest: MANIFEST_TARGET };

fn small_rows(kind: PageKind) -> usize {
    match kind {
        PageKind::Index => 4,
        PageKind::Placement => 2,
    }
}

/// One device of the volume.
struct Device {
    volume: Arc<Volume>,
    manifest: Manifest,
    sequence: u64,
    /// Segments that were added.
    segments: u64,
    _dir: TempDir,
}

impl Device {
    fn new(mesh: &Mesh, device: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), device);
        Self { volume, manifest: Manifest::default(), sequence: 0, segments: 0, _dir: dir }
    }

    /// So many segments as syncs add them, of two extents each, which no peer has ever seen.
    fn add(&mut self, count: u64) {
        let hash = |text: &[u8], i: u64| *blake3::hash(&[text, &i.to_be_bytes()].concat()).as_bytes();
        let segments: Vec<(SegmentId, Vec<u8>, Vec<ExtentAt>)> = (self.segments..self.segments + count)
            .map(|i| {
                let rows = (0..4).map(|row| ShardId(hash(b"row", 4 * i + row))).collect();
                let holder = |row| Holder { row, peer: PeerId([row; 32]), until: UnixSeconds(1_800_000_000) };
                let segment = Segment { k: 2, shard_len: 4096, rows };
                let placement = Placement { n: 4, holders: (0..4).map(holder).collect(), segment };
                let extents = (0..2).map(|at| (ExtentId(hash(b"extent", 2 * i + at)), at as u32 * 4096, 4096));
                (placement.segment.id(), codec::encode(&placement), extents.collect())
            })
            .collect();
        let new = segments.iter().map(|(id, descriptor, extents)| NewSegment {
            id: *id,
            descriptor,
            extents,
            leases: None,
            is_foreign: false,
        });
        self.volume.db.add_segments(&new.collect::<Vec<_>>()).unwrap();
        self.segments += count;
    }

    /// What a sync does, with an empty tree.
    fn sync(&mut self) -> Published {
        self.sequence += 1;
        let volume = &self.volume;
        let dot = Dot { device: volume.device.id().tag(), sequence: self.sequence };
        let now = Timespec { seconds: 0, nanos: 0 };
        let inode = Inode {
            id: FileId::new(dot.device, 1),
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            mtime: now,
            ctime: now,
            xattrs: vec![],
            content: Content::Empty,
            meta_dot: dot,
            content_dot: None,
            older: None,
        };
        let root =
            Root { volume: volume.id, inode, links: None, vector: vec![dot], parts: vec![], history: None, tags: None };
        let time = Hlc { millis: self.sequence, counter: 0 };
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let plan = writer.plan();
        let root = writer.put(Kind::Root, &codec::encode(&root)).unwrap();
        let snapshot = Snapshot::sign(&volume.device.signing_key(), root, vec![], time, String::new());
        let snapshot_extent = writer.put(Kind::Snapshot, &codec::encode(&snapshot)).unwrap();
        writer.finish().unwrap();
        let published = volume.publish_catalog(&self.manifest, SMALL, plan, &Meter::new()).unwrap();
        self.publish(&published, time, &snapshot, snapshot_extent);
        self.manifest = published.manifest.clone();
        published
    }

    fn publish(&self, published: &Published, time: Hlc, snapshot: &Snapshot, snapshot_extent: ExtentRef) {
        let volume = &self.volume;
        volume.tell().unwrap();
        volume.identity.confirm().unwrap();
        let head = Head {
            volume: volume.id,
            device: volume.device.id(),
            sequence: self.sequence,
            time,
            seen: vec![],
            vector: vec![Dot { device: volume.device.id().tag(), sequence: self.sequence }],
            snapshot: snapshot.id(),
            snapshot_extent,
            manifest: published.extent.clone(),
            manifest_placement: published.placement.clone(),
            asks: 0,
            home: volume.identity.home(),
            copied: 0,
            signature: [0; 64],
        };
        volume.peers.publish(head.publish(&volume.device, &volume.keys()).unwrap(), 1, "the head").unwrap();
    }

    /// A device that knows nothing but the keys, and recovers.
    fn recovered(mesh: &Mesh, number: u8) -> Self {
        let mut device = Self::new(mesh, number);
        let mut said = Vec::new();
        device.volume.recover(None, &mut |text| said.push(text)).unwrap();
        assert!(said.iter().any(|text| text.ends_with("rows of the catalog")), "{said:?}");
        let Latest { manifest, .. } = state::latest(&device.volume.db).unwrap().unwrap();
        device.manifest = manifest;
        device
    }

    fn index(&self) -> Vec<(SegmentRow, Vec<ExtentAt>)> {
        self.volume.db.segments_since(0, u32::MAX).unwrap()
    }

    /// All pages and listings of its catalog.
    fn pages(&self) -> Vec<PageRef> {
        fn walk(volume: &Volume, listing: &Manifest, out: &mut Vec<PageRef>) {
            for page in &listing.pages {
                out.push(page.clone());
                if page.level > 0 {
                    walk(volume, &volume.listing(listing, page, true).unwrap(), out);
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.volume, &self.manifest, &mut out);
        out
    }

    /// That what it published is what it has.
    fn assert_recoverable(&self, mesh: &Mesh, number: u8) -> Self {
        let other = Self::recovered(mesh, number);
        assert!(other.index() == self.index(), "the recovered index is another");
        assert_eq!(other.manifest, self.manifest);
        assert_eq!(other.volume.db.next_segment().unwrap(), self.volume.db.next_segment().unwrap());
        for kind in PageKind::ALL {
            assert_eq!(other.manifest.covered(kind), self.volume.db.next_segment().unwrap());
        }
        other
    }
}

#[test]
fn a_catalog_far_larger_than_one_unit_is_published_kept_up_and_recovered() {
    let mesh = Mesh::new(30);
    let mut mine = Device::new(&mesh, 7);
    mine.add(80_000);
    mine.sync();
    let pages = mine.pages();
    let flat: usize =
        pages.iter().map(|page| codec::encode(&Manifest { segments: vec![], pages: vec![page.clone()] }).len()).sum();
    assert!(flat > 5 * SEALED_MAX, "it would have fitted into one manifest: {flat} bytes");
    assert!(codec::encode(&mine.manifest).len() <= MANIFEST_TARGET);
    assert!(pages.iter().any(|page| page.level > 0));

    // A small change costs a page or two of each kind, and the manifest; a fold now and then one listing more.
    for _ in 0..10 {
        mine.add(1);
        let (uploads, fetches) = (mesh.uploads(), mesh.fetches());
        mine.sync();
        let cost = mesh.uploads() - uploads;
        assert!(cost <= 4, "{cost} segments were placed for one");
        assert_eq!(mesh.fetches(), fetches, "what is known was asked for");
    }

    let mut again = mine.assert_recoverable(&mesh, 8);
    // The next device goes on where this one ended, and so does one after it.
    again.segments = mine.segments;
    again.add(3);
    again.sequence = 20;
    let uploads = mesh.uploads();
    again.sync();
    assert!(mesh.uploads() - uploads <= 4, "the catalog that was taken over was written anew");
    again.assert_recoverable(&mesh, 9);
}

#[test]
fn what_the_mesh_lost_of_a_catalog_is_written_anew_and_nothing_else() {
    // More than hold rows of one segment: of thirty each would hold one of every segment.
    let mesh = Mesh::new(100);
    let mut mine = Device::new(&mesh, 7);
    // Some listings and many segments of pages.
    for _ in 0..40 {
        mine.add(600);
        mine.sync();
    }
    let before = mine.pages();
    let listing = mine.manifest.pages.iter().find(|page| page.level > 0).unwrap();
    let below = mine.volume.listing(&mine.manifest, listing, false).unwrap();
    let lost = &below.segments[below.pages[5].segment as usize];
    let gone: Vec<PeerId> =
        lost.holders.iter().map(|holder| holder.peer).take(usize::from(lost.n - lost.segment.k) + 1).collect();
    mesh.disconnect(gone.clone());
    let published = mine.sync();
    let after = mine.pages();
    let kept = after.iter().filter(|page| before.contains(page)).count();
    assert!(kept > before.len() / 2, "{kept} of {} pages were kept", before.len());
    assert!(published.manifest.is_sound());
    let connected = mine.volume.peers.connected().unwrap();
    let mut segments = 0;
    mine.volume.each_catalog_segment(&mine.manifest, false, &mut |placement| {
        assert!(crate::volume::write::is_readable(placement.unwrap(), &connected));
        segments += 1;
    });
    assert!(segments > 10, "{segments}");
    // With the same peers gone.
    mine.assert_recoverable(&mesh, 8);

    // As long as no other goes, nothing is looked at again, and what comes back changes nothing.
    let (uploads, fetches) = (mesh.uploads(), mesh.fetches());
    mine.sync();
    mesh.connect(gone);
    mine.sync();
    assert!(mesh.uploads() - uploads <= 8);
    assert_eq!(mesh.fetches(), fetches);
}

#[test]
fn a_listing_that_nobody_has_any_more_is_made_from_what_it_lists() {
    let mesh = Mesh::new(30);
    let mut mine = Device::new(&mesh, 7);
    for _ in 0..20 {
        mine.add(1_000);
        mine.sync();
    }
    let at = mine.manifest.pages.iter().position(|page| page.level > 0).unwrap();
    let lost = mine.manifest.segments[mine.manifest.pages[at].segment as usize].clone();
    let gone = lost.holders.iter().map(|holder| holder.peer).take(usize::from(lost.n - lost.segment.k) + 1);
    mesh.disconnect(gone.collect::<Vec<_>>());
    // Once with the copy that is here, once without it: then the local index is all there is.
    let mut copy = Device { manifest: mine.manifest.clone(), ..Device::new(&mesh, 9) };
    copy.volume = mine.volume.clone();
    mine.sync();
    mine.assert_recoverable(&mesh, 8);
    copy.sequence = mine.sequence;
    copy.volume.db.drop_nodes(|ids| Ok::<_, PortError>(vec![true; ids.len()])).unwrap();
    *copy.volume.surveyed.lock() = None;
    copy.sync();
    copy.assert_recoverable(&mesh, 10);
}

#[test]
fn a_head_that_names_what_cannot_be_asks_for_nothing() {
    let mesh = Mesh::new(10);
    let mut mine = Device::new(&mesh, 7);
    mine.add(3);
    let published = mine.sync();
    let bent = Published { extent: ExtentRef { sealed_len: u32::MAX, ..published.extent.clone() }, ..published };
    let extent = bent.extent.clone();
    mine.sequence += 1;
    let snapshot = Snapshot::sign(
        &mine.volume.device.signing_key(),
        extent.clone(),
        vec![],
        Hlc { millis: 9, counter: 0 },
        String::new(),
    );
    mine.publish(&bent, Hlc { millis: 9, counter: 0 }, &snapshot, extent);
    let other = Device::new(&mesh, 8);
    let error = other.volume.recover(None, &mut |_| {}).err().unwrap();
    let damaged = matches!(&error, RecoverError::Port(PortError::Damaged(why)) if why.contains("4294967295 bytes"));
    assert!(damaged, "{error}");
    assert_eq!(mesh.fetches(), 0);
}

#[test]
fn a_catalog_that_claims_what_is_not_there_is_refused_where_it_does() {
    let mesh = Mesh::new(10);
    let mut mine = Device::new(&mesh, 7);
    mine.add(40);
    let good = mine.sync().manifest;
    let load = |manifest: &Manifest| {
        let other = Device::new(&mesh, 8);
        other.volume.load_catalog(manifest, &mut |_, _| {})
    };
    load(&good).unwrap();
    let last = good.pages.len() - 1;
    for bend in [
        (|page: &mut PageRef| (page.from, page.to) = (page.to, page.to + 9)) as fn(&mut PageRef),
        |page| page.level = 3,
        |page| page.segment = 99,
    ] {
        let mut bent = good.clone();
        bend(&mut bent.pages[last]);
        let error = load(&bent).unwrap_err();
        assert!(matches!(error, PortError::Damaged(_)), "{error}");
    }
    // What rows it claims is for the eye only.
    let mut bent = good;
    bent.pages.iter_mut().for_each(|page| page.rows = u64::MAX);
    load(&bent).unwrap();
}

/// Each device's head is durable by itself: the newest is taken, the others are named, and each can be chosen.
#[test]
fn a_recovery_names_the_heads_that_it_leaves_out_and_takes_the_one_that_is_asked_for() {
    let mesh = Mesh::new(6);
    let mut devices = [1, 2].map(|number| Device::new(&mesh, number));
    for (device, syncs) in devices.iter_mut().zip([2, 1]) {
        for _ in 0..syncs {
            device.add(1);
            device.sync();
        }
    }
    let recover = |number, name| {
        let device = Device::new(&mesh, number);
        device.volume.recover(name, &mut |_| ())
    };
    let found = recover(3, None).unwrap();
    assert_eq!((found.head_device.as_str(), found.head_sequence), ("device 1", 2));
    let others: Vec<_> = found.others.iter().map(|other| (other.device.name.as_str(), other.head.sequence)).collect();
    assert_eq!(others, [("device 2", 1)]);
    assert!(found.warnings[0].contains("device 2 has head 1 of"), "{:?}", found.warnings);
    let found = recover(4, Some("device 2")).unwrap();
    assert_eq!((found.head_device.as_str(), found.head_sequence), ("device 2", 1));
    assert!(found.warnings[0].contains("device 1 has head 2 of"), "{:?}", found.warnings);
    assert!(found.warnings[1].starts_with("no head is found of device 3"), "{:?}", found.warnings);
    assert_eq!(found.warnings.len(), 2);
    let error = recover(5, Some("device 7")).err().unwrap();
    assert!(error.to_string().contains("no device is called device 7; there are: device 1, device 2"), "{error}");
}

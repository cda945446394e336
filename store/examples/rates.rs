//! How fast the store is on the disk under the given directory: `rates DIR`.
//!
//! Puts of shards with several under way, as a donor sees them; cold and random reads; metadata in batches as an
//! unpacked source tree makes them; the catalog.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a bench for people to run and read")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::bounded;
use hypernet_core::id::{ExtentId, FileId, SegmentId, ShardId, VolumeId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Quota};
use hypernet_core::time::{Timespec, UnixSeconds};
use hypernet_core::tree::FileKind;
use hypernet_store::shards::ShardStore;
use hypernet_store::volume::VolumeDb;
use hypernet_store::worktree::WorkTree;

const UNDER_WAY: usize = 8;

fn main() {
    let base = std::env::args_os().nth(1).expect("usage: rates DIR");
    let dir = tempfile::tempdir_in(base).unwrap();
    for (len, count) in [(2 << 20, 300), (1 << 20, 600), (64 << 10, 2_000), (4 << 10, 4_000)] {
        shards(&dir.path().join(format!("shards {len}")), len, count);
    }
    metadata(&dir.path().join("tree"));
    catalog(&dir.path().join("volume"));
}

fn report(what: &str, count: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let mb = bytes as f64 / 1e6;
    println!("{what:44} {:>9.0} /s {:>8.0} MB/s  ({seconds:.2} s)", count as f64 / seconds, mb / seconds);
}

fn body(seed: usize, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Runs all of it with a few under way.
fn pipeline(store: &ShardStore, ops: impl Iterator<Item = StoreOp>) {
    let (slots, taken) = bounded(UNDER_WAY);
    for op in ops {
        slots.send(()).unwrap();
        let taken = taken.clone();
        let done = move |reply| {
            assert!(!matches!(reply, StoreReply::Failed(_)), "{reply:?}");
            taken.recv().unwrap();
        };
        store.submit(op, Box::new(done));
    }
    for _ in 0..UNDER_WAY {
        slots.send(()).unwrap();
    }
}

fn shards(dir: &std::path::Path, len: usize, count: usize) {
    let store = ShardStore::open(dir, Quota::for_all(1 << 40)).unwrap();
    let bodies: Vec<(ShardId, Bytes)> = (0..count)
        .map(|i| {
            let body = body(i, len);
            (ShardId(*blake3::hash(&body).as_bytes()), body)
        })
        .collect();
    let lease = Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(1) };
    let began = Instant::now();
    let put = |(shard, body): &(ShardId, Bytes)| StoreOp::Put {
        shard: *shard,
        lease: lease.clone(),
        body: body.clone(),
        depositor: Depositor::Newcomer,
    };
    pipeline(&store, bodies.iter().map(put));
    report(&format!("put {} KiB", len >> 10), count, count * len, began.elapsed());
    let began = Instant::now();
    pipeline(&store, bodies.iter().map(|(shard, _)| StoreOp::Read { shard: *shard, offset: 0, len: len as u32 }));
    report(&format!("read {} KiB whole (cached)", len >> 10), count, count * len, began.elapsed());
    if len > 64 << 10 {
        let some = bodies.iter().cycle().take(10_000).enumerate();
        let range = |(i, (shard, _)): (usize, &(ShardId, Bytes))| StoreOp::Read {
            shard: *shard,
            offset: (i * 7_919 * 4_096 % (len - 65_536)) as u32,
            len: 4_096,
        };
        let began = Instant::now();
        pipeline(&store, some.map(range));
        report("read a 4 KiB range (cached)", 10_000, 10_000 * 4_096, began.elapsed());
    }
    store.close();
}

fn file(ino: u64) -> InodeRow {
    let now = Timespec { seconds: 1_700_000_000, nanos: 123_456_789 };
    InodeRow {
        ino,
        id: FileId(u128::from(ino).to_be_bytes()),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        nlink: 1,
        size: 16_000,
        atime: now,
        mtime: now,
        ctime: now,
        xattrs: vec![],
        symlink: vec![],
        parent: 1,
        linked: false,
        volume: None,
        dirty: true,
        remote: None,
        local: Local::Complete,
    }
}

fn metadata(dir: &std::path::Path) {
    const FILES: u64 = 84_000;
    let tree = WorkTree::open(dir).unwrap();
    let inos: Vec<u64> = (2..FILES + 2).collect();
    let name = |ino: u64| format!("some_file_name_{ino}.c").into_bytes();
    let timed = |what: &str, durability, ops: &dyn Fn(u64) -> Vec<MetaOp>| {
        let began = Instant::now();
        let mut count = 0;
        for batch in inos.chunks(500) {
            let ops: Vec<MetaOp> = batch.iter().flat_map(|ino| ops(*ino)).collect();
            count += ops.len();
            tree.commit(&ops, durability).unwrap();
        }
        report(what, count, 0, began.elapsed());
    };
    let parent = |ino: u64| 1 + ino / 20;
    timed("create, batches of 1,000 ops", Durability::Process, &|ino| {
        vec![MetaOp::PutInode(file(ino)), MetaOp::Link { parent: parent(ino), name: name(ino), ino }]
    });
    timed("change inodes, batches of 500, each flushed", Durability::Power, &|ino| {
        let ctime = Timespec { seconds: 5, nanos: 6 };
        vec![MetaOp::PutInode(InodeRow { dirty: false, local: Local::Clean { size: 16_000, ctime }, ..file(ino) })]
    });
    let began = Instant::now();
    let found: usize = (1..=FILES / 20 + 1).map(|parent| tree.children(parent).unwrap().len()).sum();
    report("list directories (entries)", found, 0, began.elapsed());
    let began = Instant::now();
    let clean = tree.clean(0, u32::MAX).unwrap().len();
    report("list clean inodes", clean, 0, began.elapsed());
    timed("remove, batches of 1,000 ops", Durability::Process, &|ino| {
        vec![MetaOp::Unlink { parent: parent(ino), name: name(ino) }, MetaOp::RemoveInode(ino)]
    });
}

fn catalog(dir: &std::path::Path) {
    let db = VolumeDb::open(dir, VolumeId([1; 16]), 1 << 20).unwrap();
    let extent = |i: u32| ExtentId(*blake3::hash(&i.to_be_bytes()).as_bytes());
    let began = Instant::now();
    for segment in 0..600u32 {
        let extents: Vec<_> = (0..160).map(|i| (extent(segment * 160 + i), i * 65_536, 65_536)).collect();
        let id = SegmentId(*blake3::hash(&segment.to_le_bytes()).as_bytes());
        db.add_segment(id, &[7; 2_000], &extents).unwrap();
    }
    report("add extents, 160 per segment, each flushed", 96_000, 0, began.elapsed());
    let ids: Vec<ExtentId> = (0..96_000).map(extent).collect();
    let began = Instant::now();
    assert!(db.has_extents(&ids).unwrap().into_iter().all(|has| has));
    report("look up extents", ids.len(), 0, began.elapsed());
    let began = Instant::now();
    assert_eq!(db.locate_many(&ids).unwrap().into_iter().flatten().count(), ids.len());
    report("locate extents", ids.len(), 0, began.elapsed());
}

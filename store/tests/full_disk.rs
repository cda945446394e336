//! A full disk and a read-only one: typed errors, nothing lost, and giving up shards still works.
//!
//! Needs a small file system of its own, which a child makes in a mount namespace that ends with it. The child is this
//! very test binary, run again by `unshare`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use crossbeam_channel::bounded;
use hypernet_core::id::{FileId, ShardId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, PortError, StoreFault, StoreOp, StoreReply};
use hypernet_core::quota::{Depositor, Quota};
use hypernet_core::time::{Timespec, UnixSeconds};
use hypernet_core::tree::FileKind;
use hypernet_store::StoreError;
use hypernet_store::shards::ShardStore;
use hypernet_store::worktree::WorkTree;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};

const DIR: &str = "HN_TEST_SMALL_DISK";
const QUOTA: u64 = 1 << 30;

/// Runs `child` where it may mount; `false` where this machine does not let it.
fn in_namespace(child: &str) -> bool {
    let may =
        |flags: &str| Command::new("unshare").args([flags, "true"]).output().is_ok_and(|out| out.status.success());
    let Some(flags) = ["-Urm", "-m"].into_iter().find(|flags| may(flags)) else { return false };
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    true
}

fn run(child: &str) {
    assert!(in_namespace(child), "`unshare` may not make a mount namespace here: run this as root");
}

/// Mounts a file system of `size` at the inherited directory.
fn small_disk(size: &str) -> Option<std::path::PathBuf> {
    let dir: std::path::PathBuf = std::env::var_os(DIR)?.into();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let options = std::ffi::CString::new(format!("size={size}")).unwrap();
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
    Some(dir)
}

fn body(i: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&i.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn id(body: &Bytes) -> ShardId {
    ShardId(*blake3::hash(body).as_bytes())
}

fn ask(store: &ShardStore, op: StoreOp) -> StoreReply {
    let (tx, rx) = bounded(1);
    store.submit(op, Box::new(move |reply| tx.send(reply).unwrap()));
    rx.recv().unwrap()
}

fn put(store: &ShardStore, body: &Bytes) -> StoreReply {
    let lease = Lease { key: LeaseKey([1; 32]), expires: UnixSeconds(9) };
    ask(store, StoreOp::Put { shard: id(body), lease, body: body.clone(), depositor: Depositor::Newcomer })
}

fn all_there(store: &ShardStore, held: &[Bytes]) {
    for body in held {
        let whole = StoreOp::Read { shard: id(body), offset: 0, len: body.len() as u32 };
        assert_eq!(ask(store, whole), StoreReply::Bytes(body.clone()));
    }
    assert_eq!(store.count(), held.len() as u64);
}

fn open(dir: &Path) -> ShardStore {
    ShardStore::open(dir, Quota::for_all(QUOTA)).unwrap()
}

#[test]
fn a_full_disk_loses_no_shard() {
    run("child_fills_the_disk_with_shards");
}

#[test]
#[ignore = "the child of a_full_disk_loses_no_shard"]
fn child_fills_the_disk_with_shards() {
    let Some(disk) = small_disk("8m") else { return };
    let dir = disk.join("store");
    let mut store = open(&dir);
    let mut held = Vec::new();
    let mut next = 0;
    // Ever smaller, until not one block is left: the last ones fail in the database rather than in a pack.
    for len in [300_000, 50_000, 4_096, 1, 1, 1] {
        loop {
            let body = body(next, len);
            next += 1;
            match put(&store, &body) {
                StoreReply::Done { .. } => held.push(body),
                reply => {
                    assert_eq!(reply, StoreReply::Failed(StoreFault::Full));
                    break;
                }
            }
        }
        all_there(&store, &held);
    }
    assert!(held.len() > 20, "only {}", held.len());
    // On the very same full disk: giving up works, and makes room.
    for body in held.drain(..15) {
        let reply = ask(&store, StoreOp::Release { leases: vec![(id(&body), LeaseKey([1; 32]))] });
        assert!(matches!(reply, StoreReply::Released { .. }), "{reply:?}");
    }
    all_there(&store, &held);
    let again = body(next, 300_000);
    assert!(matches!(put(&store, &again), StoreReply::Done { .. }));
    held.push(again);
    store.close();
    store = open(&dir);
    all_there(&store, &held);
}

fn file(ino: u64) -> InodeRow {
    let now = Timespec { seconds: 1, nanos: 2 };
    InodeRow {
        ino,
        id: FileId(u128::from(ino).to_be_bytes()),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        nlink: 1,
        size: ino,
        atime: now,
        mtime: now,
        ctime: now,
        xattrs: vec![],
        symlink: vec![0x61; 500],
        parent: 1,
        linked: false,
        volume: None,
        dirty: true,
        remote: None,
        local: Local::Complete,
    }
}

#[test]
fn a_full_disk_loses_no_metadata() {
    run("child_fills_the_disk_with_files");
}

#[test]
#[ignore = "the child of a_full_disk_loses_no_metadata"]
fn child_fills_the_disk_with_files() {
    let Some(disk) = small_disk("16m") else { return };
    let dir = disk.join("tree");
    let mut tree = WorkTree::open(&dir).unwrap();
    let make = |tree: &WorkTree, ino: u64| {
        let link = MetaOp::Link { parent: 1, name: ino.to_be_bytes().to_vec(), ino };
        tree.commit(&[MetaOp::PutInode(file(ino)), link, MetaOp::NextIno(ino + 1)], Durability::Power)
    };
    make(&tree, 2).unwrap();
    // Somebody else fills the disk.
    let other = std::fs::File::create(disk.join("other")).unwrap();
    let full =
        (0..).find(|i| rustix::fs::fallocate(&other, rustix::fs::FallocateFlags::empty(), 0, (i + 1) << 12).is_err());
    assert!(full.is_some());
    let mut made = vec![2];
    let error = loop {
        let ino = made.len() as u64 + 2;
        match make(&tree, ino) {
            Ok(()) => made.push(ino),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PortError::DiskFull(_)), "{error}");
    // Nothing more can be made, but everything can be removed, however often something new was tried meanwhile.
    assert!(dir.join("worktree.spare").exists(), "the spare space is used up by what makes no room");
    let unlink = |ino: u64| MetaOp::Unlink { parent: 1, name: ino.to_be_bytes().to_vec() };
    for removed in 0..50 {
        let ino = 1_000_000 + removed;
        let more = [MetaOp::PutInode(file(ino)), MetaOp::Link { parent: 1, name: ino.to_be_bytes().to_vec(), ino }];
        tree.commit(&[&more[..], &[unlink(ino)]].concat(), Durability::Power).unwrap();
    }
    assert!(!dir.join("worktree.spare").exists(), "it was never needed");
    let inos = |tree: &WorkTree| tree.children(1).unwrap().into_iter().map(|(_, row)| row.ino).collect::<Vec<_>>();
    assert_eq!(inos(&tree), made);
    drop(tree);
    // When there is room again all goes on, and the spare space is set aside anew.
    drop(other);
    std::fs::remove_file(disk.join("other")).unwrap();
    tree = WorkTree::open(&dir).unwrap();
    assert_eq!(inos(&tree), made);
    tree.commit(&[unlink(2)], Durability::Power).unwrap();
    assert_eq!(inos(&tree), made[1..]);
    assert!(dir.join("worktree.spare").exists());
}

#[test]
fn a_read_only_disk_is_named() {
    run("child_on_a_read_only_disk");
}

#[test]
#[ignore = "the child of a_read_only_disk_is_named"]
fn child_on_a_read_only_disk() {
    let Some(disk) = small_disk("8m") else { return };
    let dir = disk.join("store");
    open(&dir).close();
    mount_remount(&disk, MountFlags::RDONLY, c"").unwrap();
    for dir in [dir, disk.join("new")] {
        let error = ShardStore::open(&dir, Quota::for_all(QUOTA)).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains(disk.to_str().unwrap()) && !error.hint().is_empty());
    }
}

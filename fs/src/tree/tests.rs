//! What was, over doubles. The rest is tried by real tools in a real mount (`tests/cli`).

use std::collections::BTreeMap;

use bytes::Bytes;
use hypernet_core::id::{DeviceTag, FileId};
use hypernet_core::port::{MetaStore, PortError, RemoteTree, Stretch};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, Dot, Entry, FileKind, Inode, LinkEntry, Root, TreeRef};
use tempfile::TempDir;

use super::*;
use crate::past::Named;
use crate::testing::{MemoryMeta, MemoryRemote, VOLUME, publish};
use crate::vfs::Config;
use crate::vfs::patience::{self, Wait};

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };
const THEN: SnapshotId = SnapshotId([7; 32]);

/// One snapshot of a tree that was published once.
struct Double {
    remote: Arc<MemoryRemote>,
    root: Inode,
}

impl RemoteTree for Double {
    fn list(&self, directory: &TreeRef) -> std::result::Result<Vec<Entry>, PortError> {
        self.remote.list(directory)
    }

    fn link(&self, volume: VolumeId, id: FileId) -> std::result::Result<LinkEntry, PortError> {
        self.remote.link(volume, id)
    }

    fn read(
        &self,
        content: &Content,
        range: std::ops::Range<u64>,
    ) -> std::result::Result<Vec<(u64, Bytes)>, PortError> {
        self.remote.read(content, range)
    }

    fn seek(&self, content: &Content, from: u64, wanted: Stretch) -> std::result::Result<Option<u64>, PortError> {
        self.remote.seek(content, from, wanted)
    }

    fn root(&self, volume: VolumeId, enter: &mut dyn FnMut(Inode)) -> std::result::Result<(), PortError> {
        self.remote.root(volume, enter)
    }
}

impl Snapshots for Double {
    fn names(&self, _: VolumeId) -> std::result::Result<BTreeMap<Vec<u8>, Named>, PortError> {
        let time = Timespec { seconds: 5, nanos: 0 };
        let all = [(&b"then"[..], Named::Snapshot(THEN, time)), (b"v1", Named::Tag(b"then".to_vec()))];
        Ok(all.map(|(name, named)| (name.to_vec(), named)).into())
    }

    fn changed(&self, _: VolumeId) -> std::result::Result<Timespec, PortError> {
        Ok(Timespec { seconds: 5, nanos: 2 })
    }

    fn snapshot(&self, volume: VolumeId, id: SnapshotId) -> std::result::Result<Root, PortError> {
        assert_eq!((volume, id), (VOLUME, THEN));
        let vector = vec![Dot { device: DeviceTag(1), sequence: 1 }];
        let inode = self.root.clone();
        Ok(Root { volume, inode, links: None, vector, parts: vec![], history: None, tags: None })
    }

    fn link_in(&self, _: &TreeRef, _: FileId) -> std::result::Result<Option<LinkEntry>, PortError> {
        Ok(None)
    }
}

/// A tree of which something was changed since.
fn tree() -> (TempDir, Tree) {
    let (dir, remote, meta) = (tempfile::tempdir().unwrap(), Arc::new(MemoryRemote::default()), MemoryMeta::strict());
    let config = Config::new(dir.path().to_owned(), VOLUME, DeviceTag(1));
    let vfs = Vfs::open(config, meta as Arc<dyn MetaStore>, remote.clone()).unwrap();
    let sub = vfs.mkdir(ME, ROOT, b"sub", 0o750).unwrap().ino;
    let flags = OpenFlags(libc::O_RDWR);
    let file = vfs.create(ME, sub, b"f", 0o640, flags, false).unwrap().0.ino;
    vfs.write(file, 0, &[b'x'; 100_000], false).unwrap();
    vfs.release(file, flags).unwrap();
    let root = publish(&vfs, &remote).unwrap().unwrap();
    vfs.unlink(sub, b"f").unwrap();
    vfs.mkdir(ME, ROOT, b"later", 0o755).unwrap();
    (dir, Tree::new(vfs, Some(Arc::new(Double { remote, root })), ROOT))
}

fn names(tree: &Tree, dir: u64) -> Vec<String> {
    let items = tree.readdir(dir, 0).unwrap();
    let names = items.iter().map(|item| String::from_utf8(item.name.to_vec()).unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    // In a directory of now they come in the order of a hash.
    names.sort();
    names
}

fn at(tree: &Tree, path: &str) -> u64 {
    path.split('/').fold(ROOT, |dir, name| tree.lookup(dir, name.as_bytes()).unwrap().ino)
}

#[test]
fn each_directory_has_its_past_which_no_listing_shows() {
    let (_dir, tree) = tree();
    assert_eq!(names(&tree, ROOT), ["later", "sub"].map(String::from).to_vec());
    assert!(tree.readdir(ROOT, 0).unwrap().iter().all(|item| &*item.name != NAME));
    let all = at(&tree, ".snapshots");
    assert_eq!(names(&tree, all), ["then", "v1"]);
    // Whoever has the listing sees by this whether it is still that.
    assert_eq!(tree.getattr(all).unwrap().mtime, Timespec { seconds: 5, nanos: 2 });
    assert_eq!(tree.readlink(at(&tree, ".snapshots/v1")).unwrap(), b"then");
    assert_eq!(names(&tree, at(&tree, ".snapshots/then")), ["sub"]);
    let file = at(&tree, ".snapshots/then/sub/f");
    let attr = tree.getattr(file).unwrap();
    assert_eq!((attr.size, attr.mode, attr.kind), (100_000, 0o640, FileKind::Regular));
    // From the directory itself, under another number: a directory has one place.
    let below = at(&tree, "sub/.snapshots/then");
    assert_eq!(names(&tree, below), ["f"]);
    assert_ne!(below, at(&tree, ".snapshots/then/sub"));
    // Of what was not there there is nothing.
    assert_eq!(names(&tree, at(&tree, "later/.snapshots/then")), Vec::<String>::new());
    tree.open_file(ME, file, OpenFlags(libc::O_RDONLY), true).unwrap();
    let mut buf = vec![0; 70_000];
    assert_eq!(tree.read(file, 40_000, &mut buf).unwrap(), 60_000);
    assert!(buf[..60_000].iter().all(|byte| *byte == b'x'));
    assert_eq!(tree.read(file, 100_000, &mut buf).unwrap(), 0);
    assert_eq!(tree.lookup(all, b"never").unwrap_err().errno(), libc::ENOENT);
    assert_eq!(tree.lookup(file, b"x").unwrap_err().errno(), libc::ENOTDIR);
}

#[test]
fn nothing_of_it_changes() {
    let (_dir, tree) = tree();
    let (then, file) = (at(&tree, ".snapshots/then"), at(&tree, ".snapshots/then/sub/f"));
    let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    let later = at(&tree, "later");
    let refused = [
        tree.setattr(ME, file, set).map(drop),
        tree.mkdir(ME, then, b"d", 0o755).map(drop),
        tree.mknod(ME, then, b"n", libc::S_IFREG | 0o644, 0).map(drop),
        tree.symlink(ME, then, b"s", b"t").map(drop),
        tree.create(ME, then, b"c", 0o644, OpenFlags(libc::O_RDWR), false).map(drop),
        tree.unlink(at(&tree, ".snapshots/then/sub"), b"f"),
        tree.rmdir(then, b"sub"),
        tree.rmdir(ROOT, NAME),
        tree.rename(then, b"sub", later, b"sub", RenameFlags::Replace),
        tree.rename(ROOT, b"later", then, b"later", RenameFlags::Replace),
        tree.link(file, later, b"f").map(drop),
        tree.open_file(ME, file, OpenFlags(libc::O_RDWR), true).map(drop),
        tree.write(file, 0, b"y", false),
        tree.fallocate(ME, file, 0, 10, 0),
        tree.setxattr(ME, file, b"user.a", b"b", XattrFlags::Set),
        tree.removexattr(file, b"user.a"),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert_eq!(refused.unwrap_err().errno(), libc::EROFS, "{number}");
    }
}

#[test]
fn what_the_kernel_has_forgotten_takes_up_no_room_and_is_found_again() {
    let (_dir, tree) = tree();
    let (all, then) = (at(&tree, ".snapshots"), at(&tree, ".snapshots/then"));
    assert_eq!(tree.past.sizes().0, 2);
    // It was looked up twice.
    tree.forget(all, 1);
    tree.forget(then, 1);
    assert_eq!(tree.past.sizes().0, 1);
    tree.forget(all, 1);
    assert!(tree.past.sizes() == (0, 0));
    assert_eq!(tree.getattr(then).unwrap_err().errno(), libc::ENOENT);
    assert_eq!((at(&tree, ".snapshots"), at(&tree, ".snapshots/then")), (all, then));
    // What somebody has called so is that.
    let own = tree.mkdir(ME, at(&tree, "later"), NAME, 0o755).unwrap();
    assert_eq!(at(&tree, "later/.snapshots"), own.ino);
    assert!(!is_past(own.ino));
}

#[test]
fn a_thread_that_must_not_wait_does_not() {
    let (_dir, tree) = tree();
    let error = patience::never(|| tree.lookup(ROOT, NAME)).unwrap_err();
    assert!(matches!(error, VfsError::WouldBlock(Wait::Mesh)), "{error}");
    let file = at(&tree, ".snapshots/then/sub/f");
    let read = patience::for_disk(|| tree.read(file, 0, &mut [0; 10]));
    assert!(matches!(read, Err(VfsError::WouldBlock(Wait::Mesh))), "{read:?}");
}

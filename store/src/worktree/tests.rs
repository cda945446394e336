use std::collections::BTreeMap;

use hypernet_core::id::VolumeId;
use hypernet_core::key::{Secret, VolumeKeys};
use hypernet_core::seal::{Kind, Sealer};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind, TreeRef, Xattr};
use proptest::prelude::*;

use super::*;

/// What a [`MetaStore`] is to behave like.
#[derive(Clone, Default)]
struct Model {
    inodes: BTreeMap<u64, InodeRow>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    next_ino: u64,
}

impl Model {
    fn apply(&mut self, ops: &[MetaOp]) {
        for op in ops {
            match op.clone() {
                MetaOp::PutInode(row) => {
                    self.inodes.insert(row.ino, row);
                }
                MetaOp::RemoveInode(ino) => {
                    self.inodes.remove(&ino);
                }
                MetaOp::Link { parent, name, ino } => {
                    self.names.insert((parent, name), ino);
                }
                MetaOp::Unlink { parent, name } => {
                    self.names.remove(&(parent, name));
                }
                MetaOp::NextIno(next) => self.next_ino = self.next_ino.max(next),
            }
        }
    }

    /// Every call of the port agrees with the model.
    fn check(&self, store: &dyn MetaStore) {
        assert_eq!(store.next_ino().unwrap(), self.next_ino.max(1));
        for ino in 0..INOS + 1 {
            assert_eq!(store.inode(ino).unwrap().as_ref(), self.inodes.get(&ino));
            let children: Vec<(Vec<u8>, InodeRow)> = self
                .names
                .range((ino, Vec::new())..(ino + 1, Vec::new()))
                .filter_map(|((_, name), child)| Some((name.clone(), self.inodes.get(child)?.clone())))
                .collect();
            assert_eq!(store.children(ino).unwrap(), children);
        }
        for row in self.inodes.values() {
            let found = store.linked(row.parent, row.id).unwrap();
            assert_eq!(found.map(|found| (found.id, found.parent)), row.linked.then_some((row.id, row.parent)));
            assert_eq!(store.linked(row.parent ^ 1, row.id).unwrap(), None);
        }
        for root in 0..3 {
            let mut linked: Vec<InodeRow> =
                self.inodes.values().filter(|row| row.linked && row.parent == root).cloned().collect();
            linked.sort_by_key(|row| row.id);
            let mut found: Vec<InodeRow> = Vec::new();
            loop {
                let page = store.all_linked(root, found.last().map(|row| row.id), 2).unwrap();
                match page.len() {
                    0 => break,
                    len => assert!(len <= 2),
                }
                found.extend(page);
            }
            assert_eq!(found, linked);
        }
        let named: Vec<u64> = (0..INOS).step_by(2).collect();
        let mut found = store.names_of(&named).unwrap();
        found.sort();
        let names = self.names.iter().filter(|(_, ino)| named.contains(ino)).map(|(name, _)| name.clone());
        assert_eq!(found, names.collect::<Vec<_>>());
        let roots: Vec<InodeRow> = self.inodes.values().filter(|row| row.volume.is_some()).cloned().collect();
        assert_eq!(store.roots().unwrap(), roots);
        let pending: Vec<InodeRow> = self.inodes.values().filter(|row| row.dirty || row.nlink == 0).cloned().collect();
        assert_eq!(all_pages(|after| store.pending(after, 3)), pending);
        let clean: Vec<InodeRow> =
            self.inodes.values().filter(|row| matches!(row.local, Local::Clean { .. })).cloned().collect();
        assert_eq!(all_pages(|after| store.clean(after, 3)), clean);
    }
}

/// What comes in pages of at most three.
fn all_pages(page: impl Fn(u64) -> Result<Vec<InodeRow>, PortError>) -> Vec<InodeRow> {
    let mut all: Vec<InodeRow> = Vec::new();
    loop {
        let next = page(all.last().map_or(0, |row| row.ino)).unwrap();
        assert!(next.len() <= 3);
        if next.is_empty() {
            return all;
        }
        all.extend(next);
    }
}

const INOS: u64 = 12;

fn time() -> impl Strategy<Value = Timespec> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Timespec { seconds, nanos })
}

fn kind() -> impl Strategy<Value = FileKind> {
    use FileKind::*;
    prop::sample::select(vec![Regular, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice])
}

fn content() -> impl Strategy<Value = Option<Content>> {
    let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
    let node = Sealer::new(&keys).seal(Kind::Node, b"a node").unwrap().reference;
    let tree = TreeRef { node: node.clone(), depth: 2, weight: 1 << 40 };
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Content::Empty)),
        1 => prop::collection::vec(any::<u8>(), 0..512).prop_map(|bytes| Some(Content::Inline(bytes))),
        1 => Just(Some(Content::Extent(node))),
        1 => Just(Some(Content::Runs { tree: tree.clone(), data: 1 << 20 })),
        1 => Just(Some(Content::Directory(tree))),
    ]
}

fn local() -> impl Strategy<Value = Local> {
    prop_oneof![
        Just(Local::Absent),
        Just(Local::Complete),
        (any::<u64>(), time()).prop_map(|(size, ctime)| Local::Clean { size, ctime }),
    ]
}

fn xattrs() -> impl Strategy<Value = Vec<Xattr>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::vec((bytes(), bytes()).prop_map(|(name, value)| Xattr { name, value }), 0..3)
}

prop_compose! {
    fn inode()(
        (ino, id_seed, kind, mode, uid, gid) in (1..INOS, 0..2u8, kind(), 0..0o10000u32, any::<u32>(), any::<u32>()),
        (rdev, nlink, size, parent, linked, dirty) in
            (any::<u64>(), 0..3u32, any::<u64>(), prop_oneof![0..3u64, any::<u64>()], any::<bool>(), any::<bool>()),
        (atime, mtime, ctime) in (time(), time(), time()),
        (xattrs, symlink, remote, local, volume) in
            (xattrs(), prop::collection::vec(any::<u8>(), 0..30), content(), local(), any::<Option<[u8; 16]>>()),
    ) -> InodeRow {
        let mut id = [id_seed; 16];
        id[0] = ino as u8;
        InodeRow {
            ino, id: FileId(id), kind, mode, uid, gid, rdev, nlink, size, atime, mtime, ctime, xattrs, symlink, parent,
            linked, volume: volume.map(VolumeId), dirty, remote, local,
        }
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![&b"a"[..], b"a\0b", b"a.", b"\xff\xfe", b"B", b"", b"aa"]).prop_map(<[u8]>::to_vec)
}

fn op() -> impl Strategy<Value = MetaOp> {
    prop_oneof![
        4 => inode().prop_map(MetaOp::PutInode),
        1 => (1..INOS).prop_map(MetaOp::RemoveInode),
        3 => (1..INOS, name(), 1..INOS).prop_map(|(parent, name, ino)| MetaOp::Link { parent, name, ino }),
        2 => (1..INOS, name()).prop_map(|(parent, name)| MetaOp::Unlink { parent, name }),
        1 => (1..1u64 << 40).prop_map(MetaOp::NextIno),
    ]
}

/// Batches, how durable each is to be, and whether the store is opened anew after it.
fn batches() -> impl Strategy<Value = Vec<(Vec<MetaOp>, Durability, bool)>> {
    let durability = prop::sample::select(vec![Durability::Process, Durability::Power]);
    prop::collection::vec((prop::collection::vec(op(), 0..25), durability, prop::bool::weighted(0.3)), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(batches in batches()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = WorkTree::open(dir.path()).unwrap();
        let mut model = Model::default();
        for (ops, durability, reopen) in batches {
            store.commit(&ops, durability).unwrap();
            model.apply(&ops);
            if reopen {
                drop(store);
                store = WorkTree::open(dir.path()).unwrap();
            }
            model.check(&store);
        }
    }
}

fn file(ino: u64) -> InodeRow {
    let now = Timespec { seconds: 1_700_000_000, nanos: 5 };
    InodeRow {
        ino,
        id: FileId(u128::from(ino).to_be_bytes()),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        nlink: 1,
        size: 12,
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

fn log_len(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("worktree.db-wal")).unwrap().len()
}

#[test]
fn a_directory_of_a_hundred_thousand_is_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    // Names go in backwards, so that the order is the store's doing.
    for batch in (0..100_000u64).rev().collect::<Vec<_>>().chunks(1_000) {
        let ops: Vec<MetaOp> = batch
            .iter()
            .flat_map(|i| {
                let name = format!("file {i:08}").into_bytes();
                [MetaOp::PutInode(file(i + 2)), MetaOp::Link { parent: 1, name, ino: i + 2 }]
            })
            .collect();
        store.commit(&ops, Durability::Process).unwrap();
    }
    let children = store.children(1).unwrap();
    assert_eq!(children.len(), 100_000);
    for (i, (name, row)) in children.iter().enumerate() {
        assert_eq!((name, row.ino), (&format!("file {i:08}").into_bytes(), i as u64 + 2));
    }
    assert_eq!(store.pending(0, u32::MAX).unwrap().len(), 100_000);
}

#[test]
fn a_power_commit_without_changes_still_flushes_the_ones_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    store.commit(&[MetaOp::PutInode(file(2))], Durability::Process).unwrap();
    let before = log_len(dir.path());
    store.commit(&[], Durability::Process).unwrap();
    assert_eq!(log_len(dir.path()), before, "nothing to write");
    // SQLite flushes the log only when a commit adds to it.
    store.commit(&[], Durability::Power).unwrap();
    assert!(log_len(dir.path()) > before);
    let before = log_len(dir.path());
    store.commit(&[MetaOp::Unlink { parent: 9, name: b"not there".to_vec() }], Durability::Power).unwrap();
    assert!(log_len(dir.path()) > before);
}

#[test]
fn what_was_committed_outlives_a_copy_of_the_files_as_they_are() {
    // What a kill leaves is what the files hold: nothing may wait in this process.
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    let mut model = Model::default();
    for ino in 2..INOS {
        let ops = [
            MetaOp::PutInode(file(ino)),
            MetaOp::Link { parent: 1, name: vec![ino as u8], ino },
            MetaOp::NextIno(ino + 1),
        ];
        store.commit(&ops, Durability::Process).unwrap();
        model.apply(&ops);
        let copy = tempfile::tempdir().unwrap();
        for name in ["worktree.db", "worktree.db-wal"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        model.check(&WorkTree::open(copy.path()).unwrap());
    }
}

#[test]
fn a_torn_commit_is_as_if_it_had_never_begun() {
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    let mut models = vec![];
    let mut model = Model::default();
    for ino in 2..INOS {
        let ops = [MetaOp::PutInode(file(ino)), MetaOp::Link { parent: 1, name: vec![ino as u8], ino }];
        store.commit(&ops, Durability::Process).unwrap();
        model.apply(&ops);
        models.push((log_len(dir.path()), model.clone()));
    }
    let (first, last) = (models[0].0, models[models.len() - 1].0);
    let database = std::fs::read(dir.path().join("worktree.db")).unwrap();
    let log = std::fs::read(dir.path().join("worktree.db-wal")).unwrap();
    for cut in (first..last).step_by(1_013) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join("worktree.db"), &database).unwrap();
        // The rest of the page that was being written is garbage.
        let torn = [&log[..cut as usize], &[0xa5; 700]].concat();
        std::fs::write(copy.path().join("worktree.db-wal"), torn).unwrap();
        let (_, expected) = models.iter().rev().find(|(len, _)| *len <= cut).unwrap();
        expected.check(&WorkTree::open(copy.path()).unwrap());
    }
}

#[test]
fn readers_do_not_wait_for_a_long_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    store.commit(&[MetaOp::PutInode(file(2))], Durability::Process).unwrap();
    let mut writer = store.writer.lock();
    let seen = writer.commit(Durability::Process, |tx| {
        tx.execute_batch("DELETE FROM inodes").unwrap();
        // In the middle of a transaction, on this very thread: were it to wait, it would be for ever.
        Ok(store.inode(2).unwrap())
    });
    assert_eq!(seen.unwrap(), Some(file(2)));
    assert_eq!(store.inode(2).unwrap(), None);
}

#[test]
fn a_corrupted_database_says_which_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    let ops: Vec<MetaOp> = (2..5_000).map(|ino| MetaOp::PutInode(file(ino))).collect();
    store.commit(&ops, Durability::Power).unwrap();
    drop(store);
    let path = dir.path().join("worktree.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The header stays, so it opens; what it leads to does not make sense any more.
    bytes[8 * 4096..].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let store = WorkTree::open(dir.path()).unwrap();
    let error = store.pending(0, 1).unwrap_err();
    assert!(matches!(error, PortError::Damaged(_)), "{error}");
    assert!(error.to_string().contains("worktree.db") && error.to_string().contains("hn recover"), "{error}");
}

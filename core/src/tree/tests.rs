use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{DeviceTag, ExtentId, FileId, VolumeId};
use crate::key::{Secret, VolumeKeys};
use crate::seal::Sealer;
use crate::time::Timespec;

/// Seals for real and keeps ciphertext; counts what was new.
struct Bag {
    sealer: Sealer,
    kept: RefCell<BTreeMap<ExtentId, bytes::Bytes>>,
}

impl Bag {
    fn new() -> Self {
        let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
        Self { sealer: Sealer::new(&keys), kept: RefCell::default() }
    }
}

impl Sink for Bag {
    type Error = SealError;
    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, SealError> {
        let sealed = self.sealer.seal(kind, plain)?;
        self.kept.borrow_mut().insert(sealed.reference.id(), sealed.bytes);
        Ok(sealed.reference)
    }
}

impl Source for Bag {
    type Error = SealError;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, SealError> {
        refs.iter().map(|r| r.open(self.kept.borrow().get(&r.id()).ok_or(SealError::Tag)?)).collect()
    }
}

const DOT: Dot = Dot { device: DeviceTag(1), sequence: 1 };

fn entry(name: &[u8], size: usize) -> Entry {
    let inode = Inode {
        id: FileId::new(DeviceTag(1), name.len() as u64),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        mtime: Timespec::default(),
        ctime: Timespec::default(),
        xattrs: vec![],
        content: Content::Inline(vec![7; size]),
        meta_dot: DOT,
        content_dot: None,
        older: None,
    };
    Entry { name: name.to_vec(), dot: DOT, target: Target::Inode(Box::new(inode)) }
}

fn entries(names: &BTreeMap<Vec<u8>, usize>) -> Vec<Entry> {
    names.iter().map(|(name, size)| entry(name, *size)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_directory_lists_and_finds_what_was_put_in(
        names in proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..20), 0usize..500, 0..800),
    ) {
        let mut bag = Bag::new();
        let all = entries(&names);
        let tree = build(all.clone(), &mut bag).unwrap();
        prop_assert_eq!(tree.weight, names.len() as u64);
        prop_assert_eq!(&list::<Entry, _>(&tree, &bag).unwrap(), &all);
        for entry in all.iter().step_by(37) {
            let found = find::<Entry, _>(&tree, &bag, &entry.key()).unwrap();
            prop_assert_eq!(found.as_ref(), Some(entry));
        }
        prop_assert_eq!(find::<Entry, _>(&tree, &bag, &Name(vec![0; 30])).unwrap(), None);
        let nodes = node_refs::<Entry, _>(&tree, &bag).unwrap();
        prop_assert_eq!(nodes.len(), bag.kept.borrow().len());
    }

    #[test]
    fn two_directories_differ_in_what_only_one_of_them_has(
        names in proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..20), 0usize..500, 0..800),
        others in proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..20), 0usize..500, 0..20),
        gone in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut bag = Bag::new();
        let mut changed = names.clone();
        for index in gone.iter().filter(|_| !names.is_empty()) {
            changed.remove(names.keys().nth(index.index(names.len())).unwrap());
        }
        changed.extend(others);
        let (one, other) = (entries(&names), entries(&changed));
        let trees = [build(one.clone(), &mut bag).unwrap(), build(other.clone(), &mut bag).unwrap()];
        let only = |all: &[Entry], not: &[Entry]| all.iter().filter(|entry| !not.contains(entry)).cloned().collect();
        let expected = Differing { before: only(&one, &other), after: only(&other, &one) };
        let pairs = [(Some(&trees[0]), Some(&trees[1])), (None, Some(&trees[1])), (Some(&trees[1]), Some(&trees[1]))];
        let found = differing::<Entry, _>(&pairs, &bag).unwrap();
        prop_assert_eq!(&found[0], &expected);
        prop_assert_eq!(&found[1], &Differing { before: vec![], after: other });
        prop_assert_eq!(&found[2], &Differing { before: vec![], after: vec![] });
    }

    #[test]
    fn a_file_range_is_what_overlaps(lens in proptest::collection::vec(1u64..1_000_000, 1..300), a: u64, b: u64) {
        let mut bag = Bag::new();
        let total: u64 = lens.iter().sum();
        let tree = build(lens.iter().map(|len| Run::Hole(*len)), &mut bag).unwrap();
        prop_assert_eq!(tree.weight, total);
        let (start, end) = ((a % total).min(b % total), (a % total).max(b % total) + 1);
        let mut at = 0;
        let mut expected = vec![];
        for len in &lens {
            if at < end && at + len > start {
                expected.push((at, Run::Hole(*len)));
            }
            at += len;
        }
        prop_assert_eq!(range::<Run, _>(&tree, &bag, start, end).unwrap(), expected);
    }
}

proptest! {
    #[test]
    fn two_files_begin_with_the_runs_that_both_begin_with(
        lens in proptest::collection::vec(1u64..1_000, 1..3_000),
        at in any::<proptest::sample::Index>(),
        others in proptest::collection::vec(1u64..1_000, 0..1_000),
    ) {
        let mut bag = Bag::new();
        let at = at.index(lens.len() + 1);
        let runs = |lens: &[u64]| lens.iter().map(|len| Run::Hole(*len)).collect::<Vec<_>>();
        let (one, other) = (runs(&lens), runs(&[&lens[..at], &others[..]].concat()));
        let trees = [build(one.clone(), &mut bag).unwrap(), build(other.clone(), &mut bag).unwrap()];
        let both = one.iter().zip(&other).take_while(|(a, b)| a == b).map(|(a, _)| a.weight()).sum::<u64>();
        prop_assert_eq!(common_prefix::<Run, _>(&trees[0], &trees[1], &bag).unwrap(), both);
        prop_assert_eq!(common_prefix::<Run, _>(&trees[1], &trees[0], &bag).unwrap(), both);
        prop_assert_eq!(common_prefix::<Run, _>(&trees[0], &trees[0], &bag).unwrap(), trees[0].weight);
    }
}

#[test]
fn what_was_appended_to_a_long_file_is_found_by_few_nodes() {
    let mut bag = Bag::new();
    let before = build((1..100_000u64).map(Run::Hole), &mut bag).unwrap();
    let after = build((1..100_010u64).map(Run::Hole), &mut bag).unwrap();
    let counted = Counted(&bag, RefCell::new(0));
    assert_eq!(common_prefix::<Run, _>(&before, &after, &counted).unwrap(), before.weight);
    let read = counted.1.into_inner();
    assert!(read <= 2 * (usize::from(after.depth) + 1) + 2, "{read} nodes");
}

#[test]
fn nodes_in_which_nothing_is_are_not_opened_for_ever() {
    let mut bag = Bag::new();
    let empty = build(Vec::<Run>::new(), &mut bag).unwrap().node;
    let mut branch = |depth: u8, children: Vec<(u64, ExtentRef)>| {
        let children = children.into_iter().map(|(weight, node)| Child { first: Some(()), weight, node }).collect();
        bag.put(Kind::Node, &codec::encode(&Node::<Run>::Branch(depth, children))).unwrap()
    };
    let trees = [0, 10_000].map(|from| {
        let below = (from..from + 1_500).map(|weight| (weight, branch(1, vec![(weight, empty.clone())]))).collect();
        TreeRef { node: branch(2, below), depth: 2, weight: 0 }
    });
    assert!(matches!(common_prefix::<Run, _>(&trees[0], &trees[1], &bag), Err(TreeError::TooMuch(_))));
}

/// Counts what is read.
struct Counted<'a>(&'a Bag, RefCell<usize>);

impl Source for Counted<'_> {
    type Error = SealError;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, SealError> {
        *self.1.borrow_mut() += refs.len();
        self.0.get(refs)
    }
}

#[test]
fn one_change_touches_only_the_nodes_above_it() {
    let mut names: BTreeMap<Vec<u8>, usize> = (0..20_000).map(|i| (format!("file{i:05}").into_bytes(), 10)).collect();
    let mut bag = Bag::new();
    let before = build(entries(&names), &mut bag).unwrap();
    let nodes = bag.kept.borrow().len();
    names.insert(b"file10000x".to_vec(), 20);
    let after = build(entries(&names), &mut bag).unwrap();
    assert_ne!(before, after);
    let added = bag.kept.borrow().len() - nodes;
    assert!(added <= usize::from(after.depth) * 3 + 3, "{added} nodes for one entry in a tree of {nodes}");
    names.remove(&b"file10000x"[..]);
    assert_eq!(before, build(entries(&names), &mut bag).unwrap(), "the shape depends on history");
}

#[test]
fn an_empty_tree_is_a_tree() {
    let mut bag = Bag::new();
    let tree = build(Vec::<Entry>::new(), &mut bag).unwrap();
    assert_eq!(tree.weight, 0);
    assert!(list::<Entry, _>(&tree, &bag).unwrap().is_empty());
    assert_eq!(find::<Entry, _>(&tree, &bag, &Name(b"x".to_vec())).unwrap(), None);
}

#[test]
fn what_is_named_again_and_again_is_no_directory() {
    let mut bag = Bag::new();
    let leaf = build(entries(&BTreeMap::from([(b"a".to_vec(), 1), (b"b".to_vec(), 2)])), &mut bag).unwrap();
    let child = |first: &[u8]| Child { first: Some(Name(first.to_vec())), weight: 2, node: leaf.node.clone() };
    for children in
        [vec![child(b"a"); 1_000], vec![child(b"a"), child(b"b")], vec![Child { first: None, ..child(b"a") }]]
    {
        let weight = 2 * children.len() as u64;
        let node = bag.put(Kind::Node, &codec::encode(&Node::<Entry>::Branch(1, children))).unwrap();
        let tree = TreeRef { node, depth: 1, weight };
        assert!(matches!(list::<Entry, _>(&tree, &bag), Err(TreeError::Malformed { .. })));
        // Whoever compares it reads it once.
        let found = differing::<Entry, _>(&[(None, Some(&tree))], &bag).unwrap();
        assert_eq!(found[0].after.len(), 2);
    }
    // In a file it is the same bytes once more.
    let file = build(std::iter::repeat_n(Run::Hole(4096), 3_000), &mut bag).unwrap();
    assert_eq!(list::<Run, _>(&file, &bag).unwrap().len(), 3_000);
}

#[test]
fn malformed_trees_are_errors() {
    let mut bag = Bag::new();
    let tree = build((1..2000u64).map(Run::Hole), &mut bag).unwrap();
    assert!(tree.depth > 0);
    let range = |tree: &TreeRef| super::range::<Run, _>(tree, &bag, 0, u64::MAX);
    assert!(range(&tree).is_ok());
    assert!(matches!(range(&TreeRef { depth: 0, ..tree.clone() }), Err(TreeError::Malformed { .. })));
    assert!(matches!(range(&TreeRef { depth: 200, ..tree.clone() }), Err(TreeError::Malformed { .. })));
    assert!(matches!(range(&TreeRef { weight: 1, ..tree.clone() }), Err(TreeError::Malformed { .. })));
    assert!(matches!(list::<Entry, _>(&tree, &bag), Err(TreeError::Codec(_))));
}

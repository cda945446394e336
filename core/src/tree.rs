//! Trees: directories, long files and link tables as Merkle search trees whose shape follows from their content
//! alone.
//!
//! A tree is a run of leaves cut into nodes where a hash of the item says so (a "prolly tree", as Dolt and Noms
//! have it), each node sealed under a key that stands in its parent. Because the cuts depend on nothing but the
//! items, equal sets of items have byte-identical roots whatever the order in which they came, and a change touches
//! the nodes above it only. Nodes hold weights (entries of a directory, bytes of a file) and never absolute
//! offsets, so an insertion at the front of a large file is cheap and a hole of terabytes is one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError, Format};
use crate::id::ExtentId;
use crate::limits::{NODE_MAX, NODE_TARGET, TREE_DEPTH_MAX, TREE_ITEMS_AT_ONCE, TREE_NODES_AT_ONCE};
use crate::seal::{ExtentRef, Kind, SealError};

mod dates;
mod differ;
mod inode;
mod prefix;

pub use dates::{DATED_XATTRS_MAX, DatedXattr, Older, is_of_mode};
pub use differ::{Differing, differing};
pub use inode::{Content, Dot, Entry, FileKind, Inode, LinkEntry, Name, Root, Run, Target, Xattr, is_name};
pub use prefix::common_prefix;

/// What stands in the leaves of a tree.
pub trait Item: Encode<()> + for<'b> Decode<'b, ()> + Clone + Debug {
    /// What a lookup goes by; `()` where only weights count.
    type Key: Encode<()> + for<'b> Decode<'b, ()> + Ord + Clone + Debug;
    /// What the error messages call such a tree.
    const NAME: &'static str;

    /// The key of this item.
    fn key(&self) -> Self::Key;
    /// How much this item adds to the weight of its tree.
    fn weight(&self) -> u64;
    /// Bytes whose hash decides whether a node ends here.
    fn cut_bytes(&self) -> Vec<u8>;
}

/// A tree, named by its root node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TreeRef {
    /// The root node.
    #[n(0)]
    pub node: ExtentRef,
    /// 0 when the root is a leaf.
    #[n(1)]
    pub depth: u8,
    /// Weight of all leaves.
    #[n(2)]
    pub weight: u64,
}

/// A child as its parent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Child<K> {
    /// The first key below it; absent only in the root of an empty tree, which no parent names.
    first: Option<K>,
    weight: u64,
    node: ExtentRef,
}

impl<K: Encode<()>> Encode<()> for Child<K> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut (),
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.encode_with(&self.first, ctx)?.u64(self.weight)?.encode_with(&self.node, ctx)?.ok()
    }
}

impl<'b, K: Decode<'b, ()>> Decode<'b, ()> for Child<K> {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut ()) -> Result<Self, minicbor::decode::Error> {
        expect_array(d, 3)?;
        Ok(Self { first: d.decode_with(ctx)?, weight: d.u64()?, node: d.decode_with(ctx)? })
    }
}

fn expect_array(d: &mut minicbor::Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    match d.array()? {
        Some(n) if n == len => Ok(()),
        _ => Err(minicbor::decode::Error::message("an array of another length was expected")),
    }
}

/// One node. Its depth stands in it, and a parent of depth d has only children of depth d-1, so no cycle and no
/// bottomless tree can be made.
enum Node<T: Item> {
    Leaf(Vec<T>),
    Branch(u8, Vec<Child<T::Key>>),
}

impl<T: Item> Format for Node<T> {
    const TAG: u8 = 0x30;
    const VERSION: u8 = 1;
    const MAX: usize = NODE_MAX + 1024;
    const NAME: &'static str = T::NAME;
}

impl<T: Item> Encode<()> for Node<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut (),
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?;
        match self {
            Self::Leaf(items) => e.u8(0)?.encode_with(items, ctx)?.ok(),
            Self::Branch(depth, children) => e.u8(*depth)?.encode_with(children, ctx)?.ok(),
        }
    }
}

impl<'b, T: Item> Decode<'b, ()> for Node<T> {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut ()) -> Result<Self, minicbor::decode::Error> {
        expect_array(d, 2)?;
        match d.u8()? {
            0 => Ok(Self::Leaf(d.decode_with(ctx)?)),
            depth => Ok(Self::Branch(depth, d.decode_with(ctx)?)),
        }
    }
}

/// Why a tree could not be read or written.
#[derive(Debug, Error)]
pub enum TreeError<E> {
    /// A node could not be had or stored.
    #[error(transparent)]
    Port(E),
    /// A node does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A node could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It may well be a tree, and is larger than what is read at once.
    #[error("{0}: more than is read at once")]
    TooMuch(&'static str),
    /// The nodes do not fit together.
    #[error("{tree}: malformed tree ({reason})")]
    Malformed {
        /// Which tree.
        tree: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Takes nodes that were built.
pub trait Sink {
    /// What can go wrong.
    type Error;
    /// Seals and keeps `plain`; what is kept already is not kept twice.
    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, Self::Error>;
}

/// Gives nodes that were stored.
pub trait Source {
    /// What can go wrong.
    type Error;
    /// The plaintext of each, in order. One call, so that an implementation can fetch them at the same time.
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, Self::Error>;
}

/// Whether a node ends after an item: on average after [`NODE_TARGET`] bytes of items, whatever their sizes.
fn cuts_after(cut_bytes: &[u8], encoded_len: usize) -> bool {
    let mut first = [0; 4];
    first.copy_from_slice(&blake3::hash(cut_bytes).as_bytes()[..4]);
    let limit = (u64::from(u32::MAX) * encoded_len as u64) / NODE_TARGET as u64;
    u64::from(u32::from_be_bytes(first)) < limit
}

/// Builds the tree over `items`, which come in order of their keys.
pub fn build<T: Item, S: Sink>(
    items: impl IntoIterator<Item = T>,
    sink: &mut S,
) -> Result<TreeRef, TreeError<S::Error>> {
    let mut level: Vec<Child<T::Key>> = Vec::new();
    let mut run: Vec<T> = Vec::new();
    let mut run_len = 0;
    for item in items {
        let len = encoded_len(&item);
        if run_len + len > NODE_MAX {
            level.push(close_leaf(&mut run, sink)?);
            run_len = 0;
        }
        let cut = cuts_after(&item.cut_bytes(), len);
        run.push(item);
        run_len += len;
        if cut {
            level.push(close_leaf(&mut run, sink)?);
            run_len = 0;
        }
    }
    if !run.is_empty() || level.is_empty() {
        level.push(close_leaf(&mut run, sink)?);
    }
    let mut depth = 0;
    while level.len() > 1 {
        depth += 1;
        if depth > TREE_DEPTH_MAX {
            return Err(TreeError::Malformed { tree: T::NAME, reason: "too deep" });
        }
        level = build_level::<T, S>(depth as u8, level, sink)?;
    }
    match level.pop() {
        Some(root) => Ok(TreeRef { node: root.node, depth: depth as u8, weight: root.weight }),
        None => Err(TreeError::Malformed { tree: T::NAME, reason: "no root" }),
    }
}

fn build_level<T: Item, S: Sink>(
    depth: u8,
    below: Vec<Child<T::Key>>,
    sink: &mut S,
) -> Result<Vec<Child<T::Key>>, TreeError<S::Error>> {
    let mut level = Vec::new();
    let mut run: Vec<Child<T::Key>> = Vec::new();
    let mut run_len = 0;
    for child in below {
        let len = encoded_len(&child);
        let cut = cuts_after(child.node.id().as_bytes(), len);
        run.push(child);
        run_len += len;
        // A branch of one child would only add depth, and could do so for ever.
        if run.len() > 1 && (cut || run_len + 2 * len > NODE_MAX) {
            level.push(close_branch::<T, S>(depth, &mut run, sink)?);
            run_len = 0;
        }
    }
    if !run.is_empty() {
        level.push(close_branch::<T, S>(depth, &mut run, sink)?);
    }
    Ok(level)
}

/// Counts what an encoding would take.
struct Counter(usize);

impl minicbor::encode::Write for Counter {
    type Error = std::convert::Infallible;
    fn write_all(&mut self, buf: &[u8]) -> Result<(), Self::Error> {
        self.0 += buf.len();
        Ok(())
    }
}

fn encoded_len<T: Encode<()>>(value: &T) -> usize {
    let mut counter = Counter(0);
    let _ = minicbor::encode(value, &mut counter);
    counter.0
}

fn close_leaf<T: Item, S: Sink>(run: &mut Vec<T>, sink: &mut S) -> Result<Child<T::Key>, TreeError<S::Error>> {
    let items = std::mem::take(run);
    let weight = items.iter().map(Item::weight).fold(0, u64::saturating_add);
    let first = items.first().map(Item::key);
    let bytes = codec::encode(&Node::Leaf(items));
    let node = sink.put(Kind::Node, &bytes).map_err(TreeError::Port)?;
    Ok(Child { first, weight, node })
}

fn close_branch<T: Item, S: Sink>(
    depth: u8,
    run: &mut Vec<Child<T::Key>>,
    sink: &mut S,
) -> Result<Child<T::Key>, TreeError<S::Error>> {
    let children = std::mem::take(run);
    let weight = children.iter().fold(0u64, |sum, c| sum.saturating_add(c.weight));
    let first = children.first().and_then(|child| child.first.clone());
    let bytes = codec::encode(&Node::<T>::Branch(depth, children));
    let node = sink.put(Kind::Node, &bytes).map_err(TreeError::Port)?;
    Ok(Child { first, weight, node })
}

fn read_node<T: Item, E>(expected: u8, bytes: &[u8]) -> Result<Node<T>, TreeError<E>> {
    let node = codec::decode::<Node<T>>(bytes)?;
    let depth = match &node {
        Node::Leaf(_) => 0,
        Node::Branch(depth, _) => *depth,
    };
    if depth != expected {
        return Err(TreeError::Malformed { tree: T::NAME, reason: "a node at the wrong depth" });
    }
    Ok(node)
}

fn check_depth<T: Item, E>(tree: &TreeRef) -> Result<(), TreeError<E>> {
    if usize::from(tree.depth) > TREE_DEPTH_MAX {
        return Err(TreeError::Malformed { tree: T::NAME, reason: "too deep" });
    }
    Ok(())
}

/// All items, in order. Each level is fetched in one call.
pub fn list<T: Item, S: Source>(tree: &TreeRef, source: &S) -> Result<Vec<T>, TreeError<S::Error>> {
    Ok(range(tree, source, 0, u64::MAX)?.into_iter().map(|(_, item)| item).collect())
}

/// The items that overlap weights `start..end`, each with the weight before it. Only the nodes on the way are
/// fetched.
pub fn range<T: Item, S: Source>(
    tree: &TreeRef,
    source: &S,
    start: u64,
    end: u64,
) -> Result<Vec<(u64, T)>, TreeError<S::Error>> {
    check_depth::<T, _>(tree)?;
    // Where there are keys, each is there once: a node that is named again and again takes no more room than once.
    let is_keyed = std::mem::size_of::<T::Key>() > 0;
    let unordered = || TreeError::Malformed { tree: T::NAME, reason: "keys are not in order" };
    let missing = || TreeError::Malformed { tree: T::NAME, reason: "a node is missing" };
    let overlaps = |at: u64, weight: u64| at < end && (at.saturating_add(weight) > start || weight == 0);
    let mut level = vec![(0u64, tree.weight, tree.node.clone())];
    let mut items = Vec::new();
    for depth in (0..=tree.depth).rev() {
        let nodes = Level::get(level.iter().map(|(_, _, node)| node), source)?;
        let mut below = Vec::new();
        let mut last: Option<T::Key> = None;
        let mut follows = |key: T::Key| {
            let is_next = last.as_ref().is_none_or(|last| *last < key);
            last = Some(key);
            if is_next { Ok(()) } else { Err(unordered()) }
        };
        for (mut at, weight, node) in level {
            let stop = at.saturating_add(weight);
            match read_node::<T, _>(depth, nodes.bytes(&node).ok_or_else(missing)?)? {
                Node::Leaf(leaf) => {
                    for item in leaf {
                        if is_keyed {
                            follows(item.key())?;
                        }
                        let weight = item.weight();
                        if overlaps(at, weight) {
                            items.push((at, item));
                        }
                        at = at.saturating_add(weight);
                    }
                }
                Node::Branch(_, children) => {
                    for child in children {
                        if is_keyed {
                            follows(child.first.ok_or_else(unordered)?)?;
                        }
                        if child.weight == 0 {
                            // It would be part of whatever is asked for.
                            return Err(TreeError::Malformed { tree: T::NAME, reason: "a node without weight" });
                        }
                        if overlaps(at, child.weight) {
                            below.push((at, child.weight, child.node));
                        }
                        at = at.saturating_add(child.weight);
                    }
                }
            }
            if at != stop {
                return Err(TreeError::Malformed { tree: T::NAME, reason: "weights do not add up" });
            }
            // One node may be named any number of times.
            if below.len() > TREE_NODES_AT_ONCE || items.len() > TREE_ITEMS_AT_ONCE {
                return Err(TreeError::TooMuch(T::NAME));
            }
        }
        level = below;
    }
    Ok(items)
}

/// Reads the nodes of a tree but for those of its lowest `levels`: where they are kept, whoever lists it then waits for no more
/// calls than so many. As in [`list`] each level is one call.
pub fn read_ahead<T: Item, S: Source>(tree: &TreeRef, source: &S, levels: u8) -> Result<(), TreeError<S::Error>> {
    check_depth::<T, _>(tree)?;
    let mut level = vec![tree.node.clone()];
    for depth in (levels..=tree.depth).rev() {
        let nodes = Level::get(level.iter(), source)?;
        let mut below = Vec::new();
        for node in &level {
            let missing = || TreeError::Malformed { tree: T::NAME, reason: "a node is missing" };
            match read_node::<T, _>(depth, nodes.bytes(node).ok_or_else(missing)?)? {
                Node::Leaf(_) => {}
                Node::Branch(_, children) => below.extend(children.into_iter().map(|child| child.node)),
            }
            if below.len() > TREE_NODES_AT_ONCE {
                return Err(TreeError::TooMuch(T::NAME));
            }
        }
        level = below;
    }
    Ok(())
}

/// The item with this key.
pub fn find<T: Item, S: Source>(tree: &TreeRef, source: &S, key: &T::Key) -> Result<Option<T>, TreeError<S::Error>> {
    check_depth::<T, _>(tree)?;
    let mut node = tree.node.clone();
    for depth in (0..=tree.depth).rev() {
        let bytes = source.get(std::slice::from_ref(&node)).map_err(TreeError::Port)?;
        let Some(bytes) = bytes.first() else {
            return Err(TreeError::Malformed { tree: T::NAME, reason: "a node is missing" });
        };
        match read_node::<T, _>(depth, bytes)? {
            Node::Leaf(items) => return Ok(items.into_iter().find(|item| item.key() == *key)),
            Node::Branch(_, children) => {
                let at = children.partition_point(|child| child.first.as_ref().is_some_and(|first| first <= key));
                match at.checked_sub(1).and_then(|at| children.into_iter().nth(at)) {
                    Some(child) => node = child.node,
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(None)
}

/// The references of all nodes of a tree, each once, for marking what is live.
pub fn node_refs<T: Item, S: Source>(tree: &TreeRef, source: &S) -> Result<Vec<ExtentRef>, TreeError<S::Error>> {
    check_depth::<T, _>(tree)?;
    let mut all = vec![tree.node.clone()];
    let mut named = BTreeSet::from([tree.node.id()]);
    let mut level = all.clone();
    for depth in (1..=tree.depth).rev() {
        let mut below = Vec::new();
        for bytes in source.get(&level).map_err(TreeError::Port)? {
            if let Node::Branch(_, children) = read_node::<T, _>(depth, &bytes)? {
                below.extend(children.into_iter().map(|child| child.node).filter(|node| named.insert(node.id())));
            }
            if below.len() > TREE_NODES_AT_ONCE {
                return Err(TreeError::TooMuch(T::NAME));
            }
        }
        all.extend_from_slice(&below);
        level = below;
    }
    Ok(all)
}

/// The nodes of one level, each of which is read once, however often it is named.
struct Level(BTreeMap<ExtentId, Vec<u8>>);

impl Level {
    fn get<'a, S: Source>(named: impl Iterator<Item = &'a ExtentRef>, source: &S) -> Result<Self, TreeError<S::Error>> {
        let mut ids = BTreeSet::new();
        let refs: Vec<ExtentRef> = named.filter(|node| ids.insert(node.id())).cloned().collect();
        let nodes = source.get(&refs).map_err(TreeError::Port)?;
        Ok(Self(refs.iter().map(ExtentRef::id).zip(nodes).collect()))
    }

    fn bytes(&self, node: &ExtentRef) -> Option<&[u8]> {
        self.0.get(&node.id()).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;

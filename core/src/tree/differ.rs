//! What two trees do not have in common. Whatever lies in a node that both have is in both, and is not read.

use std::collections::BTreeSet;

use super::{Item, Node, Source, TreeError, TreeRef, check_depth, read_node};
use crate::id::ExtentId;
use crate::limits::{TREE_ITEMS_AT_ONCE, TREE_NODES_AT_ONCE};
use crate::seal::ExtentRef;

/// Items of two trees that only one of them has as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing<T> {
    /// Of the first one.
    pub before: Vec<T>,
    /// Of the second one.
    pub after: Vec<T>,
}

/// One of two trees, down to some depth: the nodes that are to be read, with the items of those that were.
struct Reading<T> {
    tree: Option<TreeRef>,
    nodes: Vec<ExtentRef>,
    /// All that were named so far.
    named: BTreeSet<ExtentId>,
    items: Vec<T>,
}

impl<T: Item> Reading<T> {
    fn new<E>(tree: Option<&TreeRef>) -> Result<Self, TreeError<E>> {
        tree.map_or(Ok(()), check_depth::<T, E>)?;
        Ok(Self { tree: tree.cloned(), nodes: Vec::new(), named: BTreeSet::new(), items: Vec::new() })
    }

    /// Begins with the root where that is this deep.
    fn begin(&mut self, depth: u8) {
        if let Some(tree) = self.tree.take_if(|tree| tree.depth == depth) {
            self.nodes.push(tree.node);
        }
    }

    /// Takes in a node of this depth; the one above named it.
    fn take<E>(&mut self, depth: u8, bytes: &[u8]) -> Result<(), TreeError<E>> {
        match read_node::<T, E>(depth, bytes)? {
            Node::Leaf(items) => self.items.extend(items),
            // A node that is named twice is read once.
            Node::Branch(_, children) => {
                for child in children {
                    if self.named.insert(child.node.id()) {
                        self.nodes.push(child.node);
                    }
                }
            }
        }
        match self.nodes.len() > TREE_NODES_AT_ONCE || self.items.len() > TREE_ITEMS_AT_ONCE {
            true => Err(TreeError::TooMuch(T::NAME)),
            false => Ok(()),
        }
    }
}

/// Leaves only what the other one does not name.
fn drop_common(one: &mut Vec<ExtentRef>, other: &mut Vec<ExtentRef>) {
    let ids = |nodes: &[ExtentRef]| nodes.iter().map(ExtentRef::id).collect::<BTreeSet<ExtentId>>();
    let common: BTreeSet<ExtentId> = ids(one).intersection(&ids(other)).copied().collect();
    if !common.is_empty() {
        one.retain(|node| !common.contains(&node.id()));
        other.retain(|node| !common.contains(&node.id()));
    }
}

/// What each two trees do not have in common; of one that is not there all is different. The nodes of a level are fetched in one
/// call for all of them. Both have each key once.
pub fn differing<T: Item + PartialEq, S: Source>(
    pairs: &[(Option<&TreeRef>, Option<&TreeRef>)],
    source: &S,
) -> Result<Vec<Differing<T>>, TreeError<S::Error>> {
    let mut all: Vec<[Reading<T>; 2]> = Vec::with_capacity(pairs.len());
    for (before, after) in pairs {
        all.push([Reading::new(*before)?, Reading::new(*after)?]);
    }
    let deepest = pairs.iter().flat_map(|(before, after)| [before, after]).flatten().map(|tree| tree.depth).max();
    for depth in (0..=deepest.unwrap_or(0)).rev() {
        let mut wanted: Vec<ExtentRef> = Vec::new();
        for [before, after] in &mut all {
            before.begin(depth);
            after.begin(depth);
            drop_common(&mut before.nodes, &mut after.nodes);
            wanted.extend(before.nodes.iter().chain(&after.nodes).cloned());
        }
        let mut nodes = source.get(&wanted).map_err(TreeError::Port)?.into_iter();
        for reading in all.iter_mut().flatten() {
            for _ in std::mem::take(&mut reading.nodes) {
                let bytes = nodes.next();
                let bytes = bytes.ok_or(TreeError::Malformed { tree: T::NAME, reason: "a node is missing" })?;
                reading.take(depth, &bytes)?;
            }
        }
    }
    Ok(all.into_iter().map(|[before, after]| without_common(before.items, after.items)).collect())
}

fn without_common<T: Item + PartialEq>(before: Vec<T>, after: Vec<T>) -> Differing<T> {
    let mut differing = Differing { before: Vec::new(), after: Vec::new() };
    let mut after = after.into_iter().peekable();
    for item in before {
        let key = item.key();
        while let Some(other) = after.next_if(|other| other.key() < key) {
            differing.after.push(other);
        }
        if after.next_if_eq(&item).is_none() {
            differing.before.push(item);
        }
    }
    differing.after.extend(after);
    differing
}

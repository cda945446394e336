//! How much two trees have in common at their beginnings. Whatever lies in a node that both begin with is not read.

use super::{Child, Item, Node, Source, TreeError, TreeRef, check_depth, read_node};
use crate::seal::ExtentRef;

/// Nodes that are read at most, one after the other. Two trees of which one was made from the other need two for each level.
const NODES_MAX: usize = 1_000;

/// What is next in one of two trees.
enum Next<T> {
    Node { depth: u8, weight: u64, node: ExtentRef },
    Item(T),
}

/// What was not looked at yet, the first of it last. Of each node on the way down its children are kept, so it holds no more
/// than so many nodes as the tree is deep.
struct Reading<T>(Vec<Next<T>>);

impl<T: Item> Reading<T> {
    fn new<E>(tree: &TreeRef) -> Result<Self, TreeError<E>> {
        check_depth::<T, E>(tree)?;
        Ok(Self(vec![Next::Node { depth: tree.depth, weight: tree.weight, node: tree.node.clone() }]))
    }

    /// How deep the node is that comes next; `None` where it is an item, or nothing.
    fn depth(&self) -> Option<u8> {
        match self.0.last()? {
            Next::Node { depth, .. } => Some(*depth),
            Next::Item(_) => None,
        }
    }

    /// Puts what is in the node that comes next in its place.
    fn open<S: Source>(&mut self, source: &S) -> Result<(), TreeError<S::Error>> {
        let Some(Next::Node { depth, node, .. }) = self.0.pop() else { return Ok(()) };
        let bytes = source.get(std::slice::from_ref(&node)).map_err(TreeError::Port)?.into_iter().next();
        let bytes = bytes.ok_or(TreeError::Malformed { tree: T::NAME, reason: "a node is missing" })?;
        match read_node::<T, _>(depth, &bytes)? {
            Node::Leaf(items) => self.0.extend(items.into_iter().rev().map(Next::Item)),
            Node::Branch(_, children) => self.0.extend(children.into_iter().rev().map(|child| {
                let Child { weight, node, .. } = child;
                Next::Node { depth: depth.saturating_sub(1), weight, node }
            })),
        }
        Ok(())
    }
}

/// The weight of the items that both trees begin with, as they are.
pub fn common_prefix<T: Item + PartialEq, S: Source>(
    one: &TreeRef,
    other: &TreeRef,
    source: &S,
) -> Result<u64, TreeError<S::Error>> {
    let (mut one, mut other) = (Reading::<T>::new(one)?, Reading::<T>::new(other)?);
    let mut common = 0u64;
    let mut opened = 0;
    loop {
        let weight = match (one.0.last(), other.0.last()) {
            (Some(Next::Item(a)), Some(Next::Item(b))) if a == b => Some(a.weight()),
            (Some(Next::Item(_)), Some(Next::Item(_))) | (None, _) | (_, None) => return Ok(common),
            (Some(Next::Node { node: a, weight, .. }), Some(Next::Node { node: b, .. })) if a == b => Some(*weight),
            _ => None,
        };
        if let Some(weight) = weight {
            common = common.saturating_add(weight);
            (_, _) = (one.0.pop(), other.0.pop());
            continue;
        }
        opened += 1;
        if opened > NODES_MAX {
            return Err(TreeError::TooMuch(T::NAME));
        }
        // The deeper one first, so that what both have is met on one level.
        let (a, b) = (one.depth(), other.depth());
        if a >= b {
            one.open(source)?;
        }
        if b >= a {
            other.open(source)?;
        }
    }
}

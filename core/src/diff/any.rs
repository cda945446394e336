//! Whether anything has changed at all: no more is read than it takes to find the first change.

use std::collections::BTreeMap;

use super::{Side, Thing};
use crate::limits::{DIFF_DIRECTORIES_AT_ONCE, TREE_ITEMS_AT_ONCE};
use crate::tree::{self, Content, Entry, Inode, Item, LinkEntry, Source, Target, TreeError, TreeRef};

/// Directories that are compared.
type Pair = (Option<TreeRef>, Option<TreeRef>);

/// Whether anything below the root is not the same in both trees. Times alone are no change.
pub fn differs<S: Source>(before: Side<'_>, after: Side<'_>, source: &S) -> Result<bool, TreeError<S::Error>> {
    for rows in tree::differing::<LinkEntry, S>(&[(before.links, after.links)], source)? {
        let mut was: BTreeMap<_, _> = rows.before.into_iter().map(|row| (row.inode.id, row.inode)).collect();
        let is_same = |row: LinkEntry| was.remove(&row.inode.id).is_some_and(|was| is_equal(was, row.inode));
        if !rows.after.into_iter().all(is_same) || !was.is_empty() {
            return Ok(true);
        }
    }
    let mut pairs = Vec::from([pair(before.inode, after.inode)]);
    // Most differ in the first few.
    let mut at_once = 1;
    while !pairs.is_empty() {
        let some = pairs.split_off(pairs.len().saturating_sub(at_once));
        at_once = (at_once * 2).min(DIFF_DIRECTORIES_AT_ONCE);
        let trees: Vec<_> = some.iter().map(|(before, after)| (before.as_ref(), after.as_ref())).collect();
        for differing in tree::differing::<Entry, S>(&trees, source)? {
            let mut was: BTreeMap<_, _> =
                differing.before.into_iter().map(|entry| (entry.name, entry.target)).collect();
            for Entry { name, target, .. } in differing.after {
                match (was.remove(&name), target) {
                    (Some(Target::Inode(was)), Target::Inode(is)) if was.id == is.id => {
                        pairs.extend(Some(pair(&was, &is)).filter(|(before, after)| before != after));
                        if !is_equal(*was, *is) {
                            return Ok(true);
                        }
                    }
                    (Some(was), is) if was == is => {}
                    _ => return Ok(true),
                }
            }
            if !was.is_empty() {
                return Ok(true);
            }
        }
        if pairs.len() > TREE_ITEMS_AT_ONCE {
            return Err(TreeError::TooMuch(<Entry as Item>::NAME));
        }
    }
    Ok(false)
}

fn pair(before: &Inode, after: &Inode) -> Pair {
    let tree = |inode: &Inode| match &inode.content {
        Content::Directory(tree) => Some(tree.clone()),
        _ => None,
    };
    (tree(before), tree(after))
}

fn is_equal(before: Inode, after: Inode) -> bool {
    let (before, after) = (Thing::Inode(before.into()), Thing::Inode(after.into()));
    !before.has_other_content(&after) && !before.has_other_metadata(&after)
}

//! Of the snapshots that are kept and of their names, what the parts come to.

use super::gather::listed;
use super::{MergeError, Part, Sources};
use crate::history::{self, History};
use crate::limits::HISTORY_MAX;
use crate::tree::{self, Item, Sink, TreeRef};

/// The tree of what is kept, and that of the names.
type Trees = (Option<TreeRef>, Option<TreeRef>);

/// The trees of both. Where all parts have the same ones, nothing is read.
pub(super) fn merge<S, K>(parts: &[Part], source: &S, sink: &mut K) -> Result<Trees, MergeError<S::Error>>
where
    S: Sources,
    K: Sink<Error = S::Error>,
{
    let parts: Vec<&Part> = parts.iter().filter(|part| part.has_history).collect();
    let Some(first) = parts.first() else { return Ok((None, None)) };
    if parts.iter().all(|part| (&part.history, &part.tags) == (&first.history, &first.tags)) {
        return Ok((first.history.clone(), first.tags.clone()));
    }
    let read = parts.iter().map(|part| {
        Ok(History::new(all(part, part.history.as_ref(), source)?, all(part, part.tags.as_ref(), source)?))
    });
    let read: Vec<History> = read.collect::<Result<_, MergeError<S::Error>>>()?;
    let histories: Vec<_> = read.iter().zip(&parts).map(|(history, part)| (history, &part.vector[..])).collect();
    let History { kept, tags } = history::merge(&histories);
    Ok((build(kept.into_values(), sink)?, build(tags.into_values(), sink)?))
}

fn all<T: Item, S: Sources>(part: &Part, tree: Option<&TreeRef>, source: &S) -> Result<Vec<T>, MergeError<S::Error>> {
    match tree {
        None => Ok(Vec::new()),
        // It is none, which is so for everybody who reads it.
        Some(tree) if tree.weight > HISTORY_MAX as u64 => Ok(Vec::new()),
        Some(tree) => listed(part, tree, source),
    }
}

fn build<T: Item, K: Sink>(
    items: impl ExactSizeIterator<Item = T>,
    sink: &mut K,
) -> Result<Option<TreeRef>, MergeError<K::Error>> {
    Ok(if items.len() == 0 { None } else { Some(tree::build(items, sink)?) })
}

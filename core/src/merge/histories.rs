//! Of the snapshots that are kept and of their names, what the parts come to.

use super::gather::{malformed, unread};
use super::{MergeError, Part};
use crate::history::{self, History};
use crate::limits::HISTORY_MAX;
use crate::tree::{self, Item, Sink, Source, TreeRef};

/// The trees of both. Where all parts have the same ones, nothing is read.
pub(super) fn merge<S, K>(
    parts: &[Part],
    source: &S,
    sink: &mut K,
) -> Result<(Option<TreeRef>, Option<TreeRef>), MergeError<S::Error>>
where
    S: Source,
    K: Sink<Error = S::Error>,
{
    let parts: Vec<&Part> = parts.iter().filter(|part| !part.is_below).collect();
    let Some(first) = parts.first() else { return Ok((None, None)) };
    if parts.iter().all(|part| (&part.history, &part.tags) == (&first.history, &first.tags)) {
        return Ok((first.history.clone(), first.tags.clone()));
    }
    let read = parts.iter().map(|part| {
        Ok(History::new(listed(part, part.history.as_ref(), source)?, listed(part, part.tags.as_ref(), source)?))
    });
    let read: Vec<History> = read.collect::<Result<_, MergeError<S::Error>>>()?;
    let all: Vec<_> = read.iter().zip(&parts).map(|(history, part)| (history, &part.vector[..])).collect();
    let History { kept, tags } = history::merge(&all);
    Ok((build(kept.into_values(), sink)?, build(tags.into_values(), sink)?))
}

fn listed<T: Item, S: Source>(
    part: &Part,
    tree: Option<&TreeRef>,
    source: &S,
) -> Result<Vec<T>, MergeError<S::Error>> {
    match tree {
        None => Ok(Vec::new()),
        Some(tree) if tree.weight > HISTORY_MAX as u64 => Err(malformed(part, "its history has no end")),
        Some(tree) => tree::list(tree, source).map_err(|error| unread(part, error)),
    }
}

fn build<T: Item, K: Sink>(
    items: impl ExactSizeIterator<Item = T>,
    sink: &mut K,
) -> Result<Option<TreeRef>, MergeError<K::Error>> {
    Ok(if items.len() == 0 { None } else { Some(tree::build(items, sink)?) })
}

//! Signed changes that name by their hashes those before them: in which order they stand, and which of the others each of
//! them follows.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::EntryId;

/// A change that names those before it.
pub(crate) trait Follows {
    /// By their hashes.
    fn previous(&self) -> &[EntryId];
}

/// A set of small numbers.
#[derive(Clone, Default)]
pub(crate) struct Numbers(Vec<u64>);

impl Numbers {
    pub(crate) fn insert(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, other)| *mine |= other);
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

/// A change that can be followed back to the beginning, and all of that.
pub(crate) struct Standing<'a, E> {
    pub(crate) id: EntryId,
    pub(crate) entry: &'a E,
    /// What it follows, by their numbers: places in the list that [`standing`] gives.
    pub(crate) before: Numbers,
}

/// All that can be followed back to `begin`, each after all that it follows; equal sets in equal order.
pub(crate) fn standing<'a, E: Follows>(
    all: &'a BTreeMap<EntryId, E>,
    begin: Option<EntryId>,
    may_stand: impl Fn(&E, &Numbers, &[Standing<'a, E>]) -> bool,
) -> Vec<Standing<'a, E>> {
    let mut after: BTreeMap<EntryId, Vec<EntryId>> = BTreeMap::new();
    for (id, entry) in all {
        entry.previous().iter().for_each(|previous| after.entry(*previous).or_default().push(*id));
    }
    let mut found: Vec<Standing<'a, E>> = Vec::new();
    let mut numbers: BTreeMap<EntryId, usize> = BTreeMap::new();
    let mut ready: BTreeSet<EntryId> = begin.into_iter().collect();
    while let Some(id) = ready.pop_first() {
        let Some(entry) = all.get(&id) else { continue };
        let mut before = Numbers::default();
        for number in entry.previous().iter().filter_map(|previous| numbers.get(previous)) {
            before.insert(*number);
            before.extend(&found[*number].before);
        }
        if !may_stand(entry, &before, &found) {
            continue;
        }
        numbers.insert(id, found.len());
        found.push(Standing { id, entry, before });
        let follows = |next: &&EntryId| all[*next].previous().iter().all(|previous| numbers.contains_key(previous));
        ready.extend(after.get(&id).into_iter().flatten().filter(follows).filter(|next| !numbers.contains_key(*next)));
    }
    found
}

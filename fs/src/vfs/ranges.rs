//! A set of byte ranges: which parts of a file are here.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges that do not touch, by their start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.insert(range);
        ranges
    }
}

impl Ranges {
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        while let Some((&at, &stop)) = self.0.range(..=end).next_back() {
            if stop < start {
                break;
            }
            start = start.min(at);
            end = end.max(stop);
            self.0.remove(&at);
        }
        self.0.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        while let Some((&at, &stop)) = self.0.range(..range.end).next_back() {
            if stop <= range.start {
                break;
            }
            self.0.remove(&at);
            if stop > range.end {
                self.0.insert(range.end, stop);
            }
            if at < range.start {
                self.0.insert(at, range.start);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// How long they are together.
    pub(super) fn len(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// The first part of `range` that is not in here.
    pub(super) fn gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        let mut start = range.start;
        if let Some((_, &stop)) = self.0.range(..=start).next_back() {
            start = start.max(stop);
        }
        if start >= range.end {
            return None;
        }
        let end = self.0.range(start..range.end).next().map_or(range.end, |(&at, _)| at);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_bitmap(
            changes in prop::collection::vec((0u64..64, 0u64..16, prop::bool::weighted(0.7)), 0..20),
            ask in (0u64..64, 0u64..24),
        ) {
            let mut ranges = Ranges::default();
            let mut bits = [false; 96];
            for (start, len, insert) in changes {
                let range = start..start + len;
                if insert { ranges.insert(range) } else { ranges.remove(range) }
                bits[start as usize..(start + len) as usize].fill(insert);
            }
            prop_assert_eq!(ranges.len(), bits.iter().filter(|bit| **bit).count() as u64);
            prop_assert!(ranges.iter().all(|range| bits[range.start as usize..range.end as usize].iter().all(|bit| *bit)));
            let (start, end) = (ask.0, ask.0 + ask.1);
            let first = (start..end).find(|i| !bits[*i as usize]);
            let expected = first.map(|first| {
                first..(first..end).find(|i| bits[*i as usize]).unwrap_or(end)
            });
            prop_assert_eq!(ranges.gap(start..end), expected);
        }
    }
}

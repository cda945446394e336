//! What has changed between two texts that may be longer than what is compared: they are cut where they have lines in common for sure.
//!
//! These are the lines at both ends, and in between those that each of the two has once, as far as they are in the same order: the most of
//! them that are (patience sorting). Between two such lines it goes on with what is the same at both ends there; what is left of all is
//! compared by Myers' algorithm, where it is not too much.
//!
//! Invariant: what is short enough is never cut. There the result is that of Myers' algorithm alone.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::NotCompared;
use crate::limits::TEXT_COMPARED_MAX;

/// What has changed from one text to another, each line of them given by its number.
pub(super) fn edits(before: &[u32], after: &[u32]) -> Result<Vec<DiffOp>, NotCompared> {
    edits_within(before, after, TEXT_COMPARED_MAX)
}

/// The same, with so many lines that are compared at most.
pub(super) fn edits_within(before: &[u32], after: &[u32], max: usize) -> Result<Vec<DiffOp>, NotCompared> {
    if before.len().max(after.len()) <= max {
        return Ok(capture_diff_slices(Algorithm::Myers, before, after));
    }
    let mut cut = Cut { before, after, left: max, edits: Vec::new() };
    let (start, end) = cut.common((0, 0), (before.len(), after.len()));
    let anchors = anchors(&before[start.0..end.0], &after[start.1..end.1]);
    let mut at = (0, 0);
    for (was, is) in anchors {
        let next = (start.0 + was, start.1 + is);
        cut.stretch(at, next)?;
        at = next;
    }
    cut.stretch(at, (before.len(), after.len()))?;
    Ok(cut.edits)
}

/// A place in both.
type Place = (usize, usize);

struct Cut<'a> {
    before: &'a [u32],
    after: &'a [u32],
    /// Lines that may still be compared.
    left: usize,
    edits: Vec<DiffOp>,
}

impl Cut<'_> {
    /// What is left between two places without the lines that are the same at both ends.
    fn common(&self, from: Place, to: Place) -> (Place, Place) {
        let (was, is) = (&self.before[from.0..to.0], &self.after[from.1..to.1]);
        let first = was.iter().zip(is).take_while(|(one, other)| one == other).count();
        let (was, is) = (&was[first..], &is[first..]);
        let last = was.iter().rev().zip(is.iter().rev()).take_while(|(one, other)| one == other).count();
        ((from.0 + first, from.1 + first), (to.0 - last, to.1 - last))
    }

    fn equal(&mut self, (old_index, new_index): Place, len: usize) {
        match self.edits.last_mut() {
            _ if len == 0 => {}
            Some(DiffOp::Equal { len: before, .. }) => *before += len,
            _ => self.edits.push(DiffOp::Equal { old_index, new_index, len }),
        }
    }

    /// Goes on to a place, which follows what was told so far.
    fn stretch(&mut self, from: Place, to: Place) -> Result<(), NotCompared> {
        let (start, end) = self.common(from, to);
        self.equal(from, start.0 - from.0);
        let (was, is) = (&self.before[start.0..end.0], &self.after[start.1..end.1]);
        // Where one of the two has nothing there is nothing to be compared.
        let lines = if was.is_empty() || is.is_empty() { 0 } else { was.len().max(is.len()) };
        self.left = self.left.checked_sub(lines).ok_or(NotCompared::Large)?;
        for edit in capture_diff_slices(Algorithm::Myers, was, is) {
            // Places in the stretch are such in the whole.
            match edit {
                DiffOp::Equal { old_index, new_index, len } => {
                    self.equal((old_index + start.0, new_index + start.1), len);
                }
                DiffOp::Delete { old_index, old_len, new_index } => self.edits.push(DiffOp::Delete {
                    old_index: start.0 + old_index,
                    old_len,
                    new_index: start.1 + new_index,
                }),
                DiffOp::Insert { old_index, new_index, new_len } => self.edits.push(DiffOp::Insert {
                    old_index: start.0 + old_index,
                    new_index: start.1 + new_index,
                    new_len,
                }),
                DiffOp::Replace { old_index, old_len, new_index, new_len } => self.edits.push(DiffOp::Replace {
                    old_index: start.0 + old_index,
                    old_len,
                    new_index: start.1 + new_index,
                    new_len,
                }),
            }
        }
        self.equal(end, to.0 - end.0);
        Ok(())
    }
}

/// Where each number stands, if it does so once.
fn once(lines: &[u32]) -> Vec<Option<usize>> {
    let numbers = lines.iter().max().map_or(0, |max| *max as usize + 1);
    let (mut count, mut at) = (vec![0u32; numbers], vec![None; numbers]);
    for (place, line) in lines.iter().enumerate() {
        let number = *line as usize;
        count[number] += 1;
        at[number] = Some(place).filter(|_| count[number] == 1);
    }
    at
}

/// The most lines that both have once, in the same order in both.
fn anchors(before: &[u32], after: &[u32]) -> Vec<Place> {
    let (in_before, in_after) = (once(before), once(after));
    let is_once = |place: usize, line: u32| in_before[line as usize] == Some(place);
    let both: Vec<Place> = before
        .iter()
        .enumerate()
        .filter(|(place, line)| is_once(*place, **line))
        .filter_map(|(place, line)| Some((place, (*in_after.get(*line as usize)?)?)))
        .collect();
    // The longest rising sequence: of each length so far the one that ends first, and what comes before each.
    let (mut ends, mut previous): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    for (number, (_, is)) in both.iter().enumerate() {
        let length = ends.partition_point(|end| both[*end].1 < *is);
        previous.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = number,
            None => ends.push(number),
        }
    }
    let mut anchors = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(number) = at {
        anchors.push(both[number]);
        at = previous[number];
    }
    anchors.reverse();
    anchors
}

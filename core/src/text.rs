//! Text: what has changed in it line by line, and what two versions of one come to.
//!
//! Invariant: all of it follows from the bytes alone. What two devices make of the same versions is the same, so the work is bounded
//! by lengths and not by a clock, and nothing hangs on the seed of a hash. Which lines two versions have in common is found by Myers'
//! algorithm, which gives up looking for the shortest way after a number of steps that grows with the root of their number of lines: the
//! worst that was found for as many lines as there may be took 0.4 s (random ones of 16 kinds), and two versions are two such searches.
//! Longer texts are first [cut](cut) where they have a line in common for sure, and only what is left counts.
//!
//! A line has its end with it: `a\r\n`, `a\n` and a last `a` without any are three.

use std::collections::BTreeMap;

use similar::DiffOp;
use thiserror::Error;

use crate::limits::{TEXT_LINES_MAX, TEXT_MAX};

mod cut;
mod hunks;
#[cfg(test)]
mod tests;

pub use hunks::Hunks;

/// Something that can be compared line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    lines: Vec<&'a str>,
}

/// Why something is not compared line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotCompared {
    /// It is no text.
    #[error("it is no text")]
    Binary,
    /// It is too long, or has too little in common with the other version.
    #[error("it is too large to be compared line by line")]
    Large,
}

impl<'a> Text<'a> {
    /// Of bytes: UTF-8 without a zero, of at most [`TEXT_MAX`] bytes and [`TEXT_LINES_MAX`] lines.
    pub fn of(bytes: &'a [u8]) -> Result<Self, NotCompared> {
        if bytes.len() > TEXT_MAX {
            return Err(NotCompared::Large);
        }
        let text = std::str::from_utf8(bytes).ok().filter(|_| !bytes.contains(&0)).ok_or(NotCompared::Binary)?;
        let lines: Vec<&str> = text.split_inclusive('\n').take(TEXT_LINES_MAX + 1).collect();
        if lines.len() > TEXT_LINES_MAX { Err(NotCompared::Large) } else { Ok(Self { lines }) }
    }
}

/// A number for each line of several texts, the same for equal ones.
fn numbered<const N: usize>(texts: [&Text<'_>; N]) -> [Vec<u32>; N] {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    texts.map(|text| {
        let mut number = |line| {
            let next = numbers.len() as u32;
            *numbers.entry(line).or_insert(next)
        };
        text.lines.iter().copied().map(&mut number).collect()
    })
}

/// Where each line of the one is in the other, unless it is gone.
fn kept(before: &[u32], after: &[u32]) -> Result<Vec<Option<usize>>, NotCompared> {
    let mut kept = vec![None; before.len()];
    for edit in cut::edits(before, after)? {
        if let DiffOp::Equal { old_index, new_index, len } = edit {
            (0..len).for_each(|at| kept[old_index + at] = Some(new_index + at));
        }
    }
    Ok(kept)
}

/// What two versions of a text come to, if that is clear: none where both have changed the same lines, or some next to one another,
/// each in its own way, and where they are [not compared](NotCompared). It does not matter which one is whose.
///
/// This is diff3 (Khanna, Kunal, Pierce: A Formal Investigation of Diff3). The lines that all three have cut them into stretches; of a
/// stretch that only one has changed that one's version counts.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let text = |bytes| Text::of(bytes).ok();
    let (base, ours, theirs) = (text(base)?, text(ours)?, text(theirs)?);
    let [base_numbers, our_numbers, their_numbers] = numbered([&base, &ours, &theirs]);
    let (in_ours, in_theirs) = (kept(&base_numbers, &our_numbers).ok()?, kept(&base_numbers, &their_numbers).ok()?);
    let mut merged = String::new();
    let (mut at, mut at_ours, mut at_theirs) = (0, 0, 0);
    let both = in_ours.iter().zip(&in_theirs).enumerate();
    let common = both.filter_map(|(line, (one, other))| Some((line, (*one)?, (*other)?)));
    let end = (base.lines.len(), ours.lines.len(), theirs.lines.len());
    for (to, to_ours, to_theirs) in common.chain([end]) {
        let was = &base.lines[at..to];
        let (one, other) = (&ours.lines[at_ours..to_ours], &theirs.lines[at_theirs..to_theirs]);
        let stretch = match () {
            () if one == was || one == other => other,
            () if other == was => one,
            () => return None,
        };
        merged.extend(stretch.iter().copied());
        merged.extend(base.lines.get(to).copied());
        (at, at_ours, at_theirs) = (to + 1, to_ours + 1, to_theirs + 1);
    }
    Some(merged.into_bytes())
}

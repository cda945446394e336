//! The difference of two texts, as `diff -u` and git tell it and `patch` takes it.

use std::fmt::Write;

use similar::{DiffOp, group_diff_ops};

use super::cut::edits;
use super::{NotCompared, Text, numbered};

/// What has changed from one text to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunks {
    /// Lines that only the second one has.
    pub added: u64,
    /// Lines that only the first one has.
    pub removed: u64,
    /// Each hunk with its header (`@@ -1,3 +1,4 @@`); nothing where nothing has changed, or where only numbers were asked for.
    pub text: String,
}

/// Where a hunk is in one of both: nothing is behind the line before it.
fn place(start: usize, len: usize) -> String {
    match len {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{len}", start + 1),
    }
}

impl Hunks {
    /// Compares two texts, with so many lines around each change; none: only numbers are asked for. An error where both are long, and too
    /// much of them is different.
    pub fn of(before: &Text<'_>, after: &Text<'_>, context: Option<usize>) -> Result<Self, NotCompared> {
        let [was, is] = numbered([before, after]);
        let edits = edits(&was, &is)?;
        let mut hunks = Self::default();
        for edit in edits.iter().filter(|edit| !matches!(edit, DiffOp::Equal { .. })) {
            hunks.removed += edit.old_range().len() as u64;
            hunks.added += edit.new_range().len() as u64;
        }
        if let Some(context) = context.filter(|_| hunks.added + hunks.removed > 0) {
            // More than a file has would only make numbers overflow.
            let context = context.min(before.lines.len().max(after.lines.len()));
            group_diff_ops(edits, context).iter().for_each(|hunk| hunks.write(before, after, hunk));
        }
        Ok(hunks)
    }

    fn write(&mut self, before: &Text<'_>, after: &Text<'_>, hunk: &[DiffOp]) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { return };
        let was = first.old_range().start..last.old_range().end;
        let is = first.new_range().start..last.new_range().end;
        // To a string it cannot fail.
        let _ = writeln!(self.text, "@@ -{} +{} @@", place(was.start, was.len()), place(is.start, is.len()));
        for edit in hunk {
            if let DiffOp::Equal { .. } = edit {
                self.lines(' ', &before.lines[edit.old_range()]);
                continue;
            }
            self.lines('-', &before.lines[edit.old_range()]);
            self.lines('+', &after.lines[edit.new_range()]);
        }
    }

    fn lines(&mut self, sign: char, lines: &[&str]) {
        for line in lines {
            self.text.push(sign);
            self.text.push_str(line);
            if !line.ends_with('\n') {
                self.text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
}

//! How people name a snapshot: `HEAD`, a tag, the beginning of its number, `@{yesterday}`, and from any of these back with `~2`
//! and `^`. The syntax is that of git (gitrevisions(7)), as far as there is such a thing here.
//!
//! `HEAD`, `~` and `^` pass over what [a command](super::By::Command) took before it changed something: so they name the same snapshot
//! before and after the command. By time, number or tag any can be named.

use std::fmt;

use thiserror::Error;

use super::{Before, By, History, Kept, Moment};
use crate::id::SnapshotId;

/// Digits of a number that suffice, where they are unique.
pub const PREFIX_MIN: usize = 4;
/// Steps in one revision.
const STEPS_MAX: usize = 64;

/// Where one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The newest snapshot that no command took.
    Head,
    /// The newest one that is not after a time, which somebody has said in words.
    At(String),
    /// A tag, or the beginning of a number.
    Named(String),
}

/// From one snapshot to one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many first parents back.
    Back(u64),
    /// To this parent of several, from 1; 0 is where one is.
    Parent(u64),
}

/// What somebody has typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Where it begins.
    pub base: Base,
    /// And where it goes from there.
    pub steps: Vec<Step>,
}

/// Why nothing is named by it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RevisionError {
    /// It is no revision.
    #[error("{0:?} names no snapshot: {1}")]
    Syntax(String, &'static str),
    /// There is none of this name.
    #[error("there is no snapshot or tag {0}")]
    Unknown(String),
    /// Several numbers begin so.
    #[error("{name} is the beginning of several snapshots: {}", Shorts(.found))]
    Ambiguous {
        /// What was typed.
        name: String,
        /// These.
        found: Vec<SnapshotId>,
    },
    /// None is so old.
    #[error("there is no snapshot from before {0}")]
    NoneThen(String),
    /// There is none at all.
    #[error("there is no snapshot yet")]
    Empty,
    /// There are only those that commands took, which nobody means.
    #[error("there is no snapshot yet but those that commands took before they changed something")]
    OnlyByCommands,
    /// It goes back too far.
    #[error("{0} has no snapshot before it: none was taken, or it is pruned or unknown")]
    NoParent(String),
    /// It goes back to those that commands took, which nobody means.
    #[error("{0} has no snapshot before it but those that commands took before they changed something")]
    NoParentByHand(String),
    /// The time cannot be read.
    #[error("{0:?} is no time: {1}")]
    Time(String, String),
}

/// The beginnings of some numbers.
struct Shorts<'a>(&'a [SnapshotId]);

impl fmt::Display for Shorts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(short).collect();
        f.write_str(&all.join(", "))
    }
}

/// As it is shown: enough of it to be typed.
pub fn short(id: &SnapshotId) -> String {
    id.to_string().chars().take(12).collect()
}

/// The number at the beginning of what is left; 1 where there is none, as neither ~ nor ^ needs one.
fn number(rest: &mut &str) -> Option<u64> {
    let (digits, after) = rest.split_at(rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    *rest = after;
    if digits.is_empty() { Some(1) } else { digits.parse().ok() }
}

impl Revision {
    /// Reads what somebody has typed.
    pub fn parse(text: &str) -> Result<Self, RevisionError> {
        let wrong = |why| RevisionError::Syntax(text.to_owned(), why);
        let (base, mut rest) = if let Some(rest) = text.strip_prefix("@{") {
            let (time, rest) = rest.split_once('}').ok_or_else(|| wrong("the brace is not closed"))?;
            (Base::At(time.trim().to_owned()), rest)
        } else {
            let (base, rest) = text.split_at(text.find(['~', '^']).unwrap_or(text.len()));
            match base {
                "" => return Err(wrong("it begins with no name")),
                "@" | "HEAD" => (Base::Head, rest),
                named => (Base::Named(named.to_owned()), rest),
            }
        };
        let mut steps = Vec::new();
        while let Some(kind) = rest.chars().next() {
            rest = &rest[kind.len_utf8()..];
            let count = number(&mut rest).ok_or_else(|| wrong("that is too far back"))?;
            steps.push(match kind {
                '~' => Step::Back(count),
                '^' => Step::Parent(count),
                _ => return Err(wrong("after the name come ~ and ^, with numbers")),
            });
            if steps.len() > STEPS_MAX {
                return Err(wrong("it has too many steps"));
            }
        }
        Ok(Self { base, steps })
    }

    /// The snapshot that it names, and whether something on the way to it is not here. `time`: what somebody means by words for a time, in
    /// milliseconds since 1970.
    pub fn resolve<'a>(
        &self,
        history: &'a History,
        time: impl Fn(&str) -> Result<u64, String>,
    ) -> Result<Before<'a>, RevisionError> {
        let kept = match &self.base {
            Base::Head if history.kept.is_empty() => return Err(RevisionError::Empty),
            Base::Head => history.newest().ok_or(RevisionError::OnlyByCommands)?,
            Base::At(words) => {
                let until = time(words).map_err(|why| RevisionError::Time(words.clone(), why))?;
                let is_before = |moment: &Moment| moment.time.millis <= until;
                let found = history.kept.iter().rev().find(|(moment, _)| is_before(moment));
                found.map(|(_, kept)| kept).ok_or_else(|| RevisionError::NoneThen(words.clone()))?
            }
            Base::Named(name) => named(history, name)?,
        };
        let mut at = Before { kept, has_gap: false };
        for step in &self.steps {
            let (count, which) = match *step {
                Step::Back(count) => (count, 1),
                Step::Parent(0) => (0, 1),
                Step::Parent(which) => (1, which),
            };
            for _ in 0..count {
                let before = back(history, at.kept, which)?;
                at = Before { has_gap: before.has_gap | at.has_gap, ..before };
            }
        }
        Ok(at)
    }
}

/// The one before, by this parent from 1 on, that no command took.
fn back<'a>(history: &'a History, kept: &Kept, which: u64) -> Result<Before<'a>, RevisionError> {
    let short = || short(&kept.snapshot.id());
    let parent = usize::try_from(which - 1).ok().and_then(|which| history.before(kept, which));
    let mut at = parent.ok_or_else(|| RevisionError::NoParent(short()))?;
    while at.kept.by == By::Command {
        let before = history.before(at.kept, 0).ok_or_else(|| RevisionError::NoParentByHand(short()))?;
        at = Before { has_gap: before.has_gap | at.has_gap, ..before };
    }
    Ok(at)
}

/// By its tag, or by the beginning of its number.
fn named<'a>(history: &'a History, name: &str) -> Result<&'a Kept, RevisionError> {
    let unknown = || RevisionError::Unknown(name.to_owned());
    if let Some(tag) = history.tags.get(name) {
        return history.snapshot(&tag.to).ok_or_else(unknown);
    }
    let is_number = name.len() >= PREFIX_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_number {
        return Err(unknown());
    }
    let begins = |id: &SnapshotId| id.to_string().starts_with(&name.to_ascii_lowercase());
    let mut found = history.kept.iter().filter(|(moment, _)| begins(&moment.id));
    match (found.next(), found.next()) {
        (Some((_, kept)), None) => Ok(kept),
        (None, _) => Err(unknown()),
        (Some(_), Some(_)) => {
            let found = history.kept.keys().map(|moment| moment.id).filter(begins).collect();
            Err(RevisionError::Ambiguous { name: name.to_owned(), found })
        }
    }
}

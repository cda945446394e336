//! What must be in a directory that one program writes to, whatever becomes of the agent.
//!
//! A call that has returned counts, also when the agent is killed: content is in the kernel's hands by then, and names
//! come back as they were at one moment, in the order in which they changed: at the last change that an `fsync` has
//! brought to the disk, or later. That of a file brings its own last change of name, with all before; that of the directory all. A call that failed,
//! or that the agent's end came into, may have done all of what it was to do, or a part of it.
//!
//! Invariant: [`Model::fits`] and [`Model::crashed`] fail for whatever no promise allows; what they allow is narrowed
//! down to what was seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

/// What a file holds.
pub type Content = Arc<Vec<u8>>;
/// Names, and the files that they stand for.
type Names = BTreeMap<String, u64>;

static NOTHING: Names = Names::new();

/// What is known of one file.
#[derive(Clone, Debug)]
struct File {
    /// It holds one of these; the newest is the last.
    versions: Vec<Content>,
    /// Or a part of them: nobody knows how far a call came.
    torn: bool,
}

impl File {
    fn allows(&self, seen: &[u8]) -> bool {
        self.versions.iter().any(|version| ***version == *seen) || self.torn && self.is_part(seen)
    }

    fn is_part(&self, seen: &[u8]) -> bool {
        let longest = self.versions.iter().map(|version| version.len()).max().unwrap_or(0);
        let of_one = |(at, byte): (usize, &u8)| {
            // A file that is made longer holds zeros there at first.
            *byte == 0 || self.versions.iter().any(|version| version.get(at) == Some(byte))
        };
        seen.len() <= longest && seen.iter().enumerate().all(of_one)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    files: BTreeMap<u64, File>,
    /// The names as they may come back, from the oldest to those of now.
    history: Vec<Names>,
    next: u64,
    /// The newest calls, to tell them when something is wrong.
    trace: VecDeque<String>,
}

/// Calls that are told when something is wrong.
const TRACE: usize = 24;

impl Model {
    /// An empty directory.
    pub fn new() -> Self {
        Self { history: vec![Names::new()], ..Self::default() }
    }

    fn note(&mut self, call: String) {
        self.trace.push_back(call);
        if self.trace.len() > TRACE {
            self.trace.pop_front();
        }
    }

    fn names(&self) -> &Names {
        self.history.last().unwrap_or(&NOTHING)
    }

    /// The names of now, in order.
    pub fn list(&self) -> Vec<String> {
        self.names().keys().cloned().collect()
    }

    fn file(&self, name: &str) -> Result<&File> {
        let number = self.names().get(name).with_context(|| format!("{name} is not in the model"))?;
        self.files.get(number).with_context(|| format!("{name} has no file in the model"))
    }

    fn file_mut(&mut self, name: &str) -> Result<&mut File> {
        let number = *self.names().get(name).with_context(|| format!("{name} is not in the model"))?;
        self.files.get_mut(&number).with_context(|| format!("{name} has no file in the model"))
    }

    /// What a file holds, where that is certain.
    pub fn content(&self, name: &str) -> Option<Content> {
        let file = self.file(name).ok()?;
        (!file.torn && file.versions.len() == 1).then(|| file.versions[0].clone())
    }

    /// The newest that was written to a file, whether or not it has come that far.
    pub fn newest(&self, name: &str) -> Option<Content> {
        self.file(name).ok()?.versions.last().cloned()
    }

    /// A file is about to be made, with this content.
    pub fn creates(&mut self, name: &str, content: &Content) {
        self.note(format!("create {name}"));
        let mut names = self.names().clone();
        names.insert(name.to_owned(), self.next);
        self.files.insert(self.next, File { versions: vec![content.clone()], torn: true });
        self.next += 1;
        self.history.push(names);
    }

    /// A file is about to be written to in place, after which it holds this.
    pub fn writes(&mut self, name: &str, content: &Content) -> Result<()> {
        let file = self.file_mut(name)?;
        file.versions.push(content.clone());
        file.torn = true;
        Ok(())
    }

    /// That was done.
    pub fn written(&mut self, name: &str) -> Result<()> {
        let file = self.file_mut(name)?;
        file.versions.drain(..file.versions.len().saturating_sub(1));
        file.torn = false;
        Ok(())
    }

    /// A file is about to be renamed, perhaps over another one.
    pub fn renames(&mut self, from: &str, to: &str) -> Result<()> {
        self.note(format!("rename {from} to {to}"));
        let mut names = self.names().clone();
        let file = names.remove(from).with_context(|| format!("{from} is not in the model"))?;
        names.insert(to.to_owned(), file);
        self.history.push(names);
        Ok(())
    }

    /// A file is about to be deleted.
    pub fn deletes(&mut self, name: &str) {
        self.note(format!("delete {name}"));
        let mut names = self.names().clone();
        names.remove(name);
        self.history.push(names);
    }

    /// The last change of a name was refused, by an agent that lives on.
    pub fn refused(&mut self) {
        self.note("refused".to_owned());
        if self.history.len() > 1 {
            self.history.pop();
        }
    }

    /// An `fsync` of a file has returned: its name is safe, and all changes before it got it.
    pub fn synced(&mut self, name: &str) {
        self.note(format!("fsync {name}"));
        let file = self.names().get(name).copied();
        let since = self.history.iter().rev().take_while(|names| names.get(name).copied() == file).count();
        self.forget_before(self.history.len().saturating_sub(since.max(1)));
    }

    /// The same of the directory: all names of now are safe.
    pub fn synced_all(&mut self) {
        self.note("fsync of the directory".to_owned());
        self.forget_before(self.history.len().saturating_sub(1));
    }

    fn forget_before(&mut self, moment: usize) {
        self.history.drain(..moment);
        let history = &self.history;
        self.files.retain(|number, _| history.iter().any(|names| names.values().any(|known| known == number)));
    }

    /// A file was read from beginning to end. It must hold what it may.
    pub fn fits(&mut self, name: &str, seen: &[u8]) -> Result<()> {
        let file = self.file_mut(name)?;
        if !file.allows(seen) {
            let newest = file.versions.last().map(|version| version.as_slice()).unwrap_or_default();
            let first = newest.iter().zip(seen).position(|(one, other)| one != other);
            let differ = newest.iter().zip(seen).filter(|(one, other)| one != other).count();
            anyhow::bail!(
                "{name} holds {} bytes where {} were written; {differ} of them differ, from byte {first:?} on ({} versions, torn: {})",
                seen.len(),
                newest.len(),
                file.versions.len(),
                file.torn
            );
        }
        // What was seen once stays.
        *file = File { versions: vec![Arc::new(seen.to_vec())], torn: false };
        Ok(())
    }

    /// The agent was killed and is there again, with these names.
    pub fn crashed(&mut self, seen: &[String]) -> Result<()> {
        let is_it = |names: &&Names| names.keys().eq(seen.iter());
        let matching: Vec<&Names> = self.history.iter().filter(is_it).collect();
        ensure!(
            !matching.is_empty(),
            "at no moment that may come back it had these names:{}; its last calls: {}",
            self.near(seen),
            self.trace.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        let mut names = Names::new();
        let mut merged = BTreeMap::new();
        for name in seen {
            // Where a file took another one's name, it is one or the other.
            let mut numbers: Vec<u64> = matching.iter().filter_map(|names| names.get(name).copied()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let files: Vec<&File> = numbers.iter().filter_map(|number| self.files.get(number)).collect();
            let versions = files.iter().flat_map(|file| file.versions.iter().cloned()).collect();
            let torn = files.iter().any(|file| file.torn);
            merged.insert(self.next, File { versions, torn });
            names.insert(name.clone(), self.next);
            self.next += 1;
        }
        // They came from the disk, so they stay.
        self.note("killed".to_owned());
        (self.history, self.files) = (vec![names], merged);
        Ok(())
    }

    fn near(&self, seen: &[String]) -> String {
        let differ = |names: &Names| -> Vec<String> {
            let missing = names.keys().filter(|name| !seen.contains(name)).map(|name| format!("-{name}"));
            let more = seen.iter().filter(|name| !names.contains_key(*name)).map(|name| format!("+{name}"));
            missing.chain(more).collect()
        };
        let nearest = self.history.iter().map(differ).min_by_key(Vec::len).unwrap_or_default();
        format!(" the nearest of {} differs in {}", self.history.len(), nearest.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Arc::new(text.as_bytes().to_vec())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn with(files: &[(&str, &str)]) -> Model {
        let mut model = Model::new();
        for (name, text) in files {
            model.creates(name, &content(text));
            model.written(name).unwrap();
        }
        model.synced_all();
        model
    }

    #[test]
    fn what_was_written_is_there_and_nothing_else() {
        let mut model = with(&[("a", "one")]);
        assert!(model.fits("a", b"one").is_ok() && model.fits("a", b"one ").is_err() && model.fits("a", b"").is_err());
        assert!(model.fits("b", b"").is_err());
        model.writes("a", &content("oneandmore")).unwrap();
        // The call has not returned.
        assert!(model.clone().fits("a", b"one").is_ok() && model.clone().fits("a", b"onean\0").is_ok());
        assert!(model.clone().fits("a", b"onexx").is_err() && model.clone().fits("a", b"oneandmore!").is_err());
        model.written("a").unwrap();
        assert!(model.fits("a", b"one").is_err() && model.fits("a", b"oneandmore").is_ok());
    }

    #[test]
    fn a_crash_leaves_the_names_of_one_moment_since_the_last_fsync() {
        let mut model = with(&[("a", "1"), ("b", "2")]);
        model.renames("a", "c").unwrap();
        model.deletes("b");
        for (seen, is_right) in [(vec!["a", "b"], true), (vec!["b", "c"], true), (vec!["c"], true), (vec!["a"], false)]
        {
            assert_eq!(model.clone().crashed(&names(&seen)).is_ok(), is_right, "{seen:?}");
        }
        assert!(model.clone().crashed(&names(&["a", "b", "c"])).is_err(), "a renamed file has one name");
        // Of the file that was renamed first, and of the directory.
        let mut other = model.clone();
        other.synced("c");
        assert!(other.clone().crashed(&names(&["a", "b"])).is_err() && other.crashed(&names(&["b", "c"])).is_ok());
        model.synced_all();
        assert!(model.crashed(&names(&["b", "c"])).is_err() && model.crashed(&names(&["c"])).is_ok());
        assert!(model.fits("c", b"1").is_ok());
    }

    #[test]
    fn a_name_that_was_taken_over_is_one_file_or_the_other() {
        let mut model = with(&[("a", "old")]);
        model.creates("a~", &content("new"));
        model.written("a~").unwrap();
        model.renames("a~", "a").unwrap();
        for (text, is_right) in [("old", true), ("new", true), ("nld", false), ("", false)] {
            let mut after = model.clone();
            after.crashed(&names(&["a"])).unwrap();
            assert_eq!(after.fits("a", text.as_bytes()).is_ok(), is_right, "{text}");
        }
        model.refused();
        assert_eq!(model.list(), ["a", "a~"]);
    }
}

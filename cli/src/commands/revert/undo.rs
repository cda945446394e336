//! Change by change what a snapshot has changed is undone, where that has not been changed since.
//!
//! Three trees are known: the one before the snapshot, that of the snapshot, and the one of now. What the snapshot has changed is followed
//! by the changes since to where it is now, and then through all that is moved here. A step that has to wait for another one (its place
//! is taken, its directory is not back yet) is tried again as long as others are done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypernet_sdk::api::{ChangeInfo, ThingInfo};
use os_display::Quotable;

use super::ground::{Content, Ground, Refusal};
use super::metadata::{About, Back};
use super::moves::{Course, Moves, Tracked, join};
use super::text::{Merged, is_same, merge, text};
use crate::output::Output;
use crate::output::bar::{Bar, Counting};

/// Who has waited for so long is told how far it is.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// What is to be done about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// What was added goes.
    Remove,
    /// What was removed comes back.
    Restore,
    Rename,
    Content,
    Metadata,
}

/// How far a step is.
#[derive(Debug)]
enum State {
    Open,
    /// It waits for others, since this is in its way.
    Waits(String),
    /// It is done, and was so already.
    Was,
    Undone,
    /// It cannot be done.
    Left(String),
}

impl State {
    fn is_over(&self) -> bool {
        !matches!(self, Self::Open | Self::Waits(_))
    }
}

#[derive(Debug)]
struct Step {
    /// Its number.
    change: usize,
    what: What,
    is_dir: bool,
    state: State,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Now,
    /// It was so already.
    Before,
}

type Tried = Result<Done, Refusal>;

/// What gets the name back that it had.
struct Renaming {
    step: usize,
    /// Where it was when all was looked at.
    then: PathBuf,
    from: PathBuf,
    to: PathBuf,
}

/// A change that stays, and why.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) change: ChangeInfo,
    pub(super) reason: String,
}

/// What came of all of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) undone: Vec<ChangeInfo>,
    pub(super) left: Vec<Left>,
}

/// What is known of the three trees.
#[derive(Debug)]
pub(super) struct Trees {
    /// Where what was before the snapshot is read,
    pub(super) before: PathBuf,
    /// and what the snapshot has.
    pub(super) then: PathBuf,
    /// All that the snapshot has changed.
    pub(super) changed: Moves,
    /// What of that is to be undone.
    pub(super) changes: Vec<ChangeInfo>,
    /// All that has changed since.
    pub(super) since: Course,
    /// Where other volumes begin.
    pub(super) others: Vec<PathBuf>,
}

/// How far it is, for whoever waits.
struct Watch<'a> {
    out: &'a Output,
    message: &'static str,
    began: Instant,
    bar: Option<Bar>,
    done: u64,
    total: u64,
}

impl Watch<'_> {
    fn bar(&mut self) -> Option<&mut Bar> {
        if self.bar.is_none() && self.began.elapsed() > SHOW_AFTER {
            self.bar = Some(Bar::new(self.out, self.message));
        }
        self.bar.as_mut()
    }

    fn count(&mut self, steps: u64) {
        self.done += steps;
        let (done, total) = (self.done, self.total);
        if let Some(bar) = self.bar() {
            bar.count(done, total);
        }
    }

    fn bytes(&mut self, done: u64, size: u64) {
        if let Some(bar) = self.bar() {
            bar.count_of(Counting::Bytes, done, Some(size));
        }
    }
}

/// All that goes on.
pub(super) struct Undo<'a> {
    trees: &'a Trees,
    ground: Ground,
    /// Where things are by now, by where they were when all was looked at,
    moved: Tracked,
    /// and directories and files with several names that have come back, by where they were before the snapshot.
    back: Tracked,
    /// Such files, by their numbers in that.
    links: BTreeMap<u64, PathBuf>,
    /// Those of them that were not there already.
    restored: Vec<PathBuf>,
    steps: Vec<Step>,
    /// Where the snapshot has put what it has renamed.
    renamed: BTreeSet<&'a Path>,
    watch: Watch<'a>,
}

fn ever<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Ever(reason.into()))
}

fn yet<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Yet(reason.into()))
}

fn is_directory(thing: &ThingInfo) -> bool {
    thing.kind == "directory"
}

fn is_of_kind(found: &Metadata, kind: &str) -> bool {
    let of = found.file_type();
    match kind {
        "file" => of.is_file(),
        "directory" => of.is_dir(),
        "symlink" => of.is_symlink(),
        _ => !of.is_file() && !of.is_dir() && !of.is_symlink(),
    }
}

/// What a change takes to be undone.
fn steps_of(change: &ChangeInfo) -> Vec<(What, bool)> {
    match (&change.before, &change.after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![(What::Remove, is_directory(after))],
        (Some(before), None) => vec![(What::Restore, is_directory(before))],
        (Some(before), Some(after)) if before.kind != after.kind => {
            vec![(What::Remove, is_directory(after)), (What::Restore, is_directory(before))]
        }
        (Some(before), Some(_)) => {
            let all =
                [(What::Rename, change.renamed), (What::Content, change.content), (What::Metadata, change.metadata)];
            all.into_iter().filter(|(_, is_one)| *is_one).map(|(what, _)| (what, is_directory(before))).collect()
        }
    }
}

impl<'a> Undo<'a> {
    pub(super) fn new(trees: &'a Trees, ground: Ground, message: &'static str, out: &'a Output) -> Self {
        let all = trees.changes.iter().enumerate();
        let steps = all.flat_map(|(change, info)| {
            let step = move |(what, is_dir)| Step { change, what, is_dir, state: State::Open };
            steps_of(info).into_iter().map(step)
        });
        let steps: Vec<Step> = steps.collect();
        let renamed = trees.changes.iter().filter(|change| change.renamed);
        let renamed = renamed.filter_map(|change| Some(change.after.as_ref()?.path.as_path())).collect();
        let watch = Watch { out, message, began: Instant::now(), bar: None, done: 0, total: steps.len() as u64 };
        let (moved, back, restored) = (Tracked::default(), Tracked::default(), Vec::new());
        Self { trees, ground, moved, back, links: BTreeMap::new(), restored, steps, renamed, watch }
    }

    /// Undoes what can be undone. Says also in which directories something was copied.
    pub(super) fn run(mut self) -> (Outcome, BTreeSet<PathBuf>) {
        self.leave_volumes();
        while self.pass() || self.turn() {}
        self.phase(&[What::Content, What::Metadata], None);
        for path in &self.restored {
            // Of what was in it all has come back by now that does.
            let _ = self.back.get(path).map(|at| self.ground.set_times(at, &self.trees.before.join(path)));
        }
        (self.outcome(), self.ground.touched)
    }

    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut steps = self.steps.iter().peekable();
        for (number, change) in self.trees.changes.iter().enumerate() {
            let (mut done, mut reason) = (Vec::new(), None);
            while let Some(step) = steps.next_if(|step| step.change == number) {
                match &step.state {
                    State::Undone => done.push(step.what),
                    State::Waits(why) | State::Left(why) => reason = reason.or(Some(why.clone())),
                    State::Open | State::Was => {}
                }
            }
            let did = |what| done.contains(&what);
            let (renamed, content, metadata) = (did(What::Rename), did(What::Content), did(What::Metadata));
            if renamed || content || metadata {
                outcome.undone.push(ChangeInfo { renamed, content, metadata, ..change.clone() });
            } else if reason.is_none() && !done.is_empty() {
                outcome.undone.push(change.clone());
            }
            outcome.left.extend(reason.map(|reason| Left { change: change.clone(), reason }));
        }
        outcome
    }

    /// What is another volume, or was, has a history of its own.
    fn leave_volumes(&mut self) {
        for step in &mut self.steps {
            let change = &self.trees.changes[step.change];
            if [&change.before, &change.after].into_iter().flatten().any(|thing| thing.kind == "volume") {
                step.state = State::Left("it is a volume of its own".to_owned());
            }
        }
    }

    /// Tries all steps once that are about places; whether to do so again.
    fn pass(&mut self) -> bool {
        let mut is_any = self.phase(&[What::Remove], Some(false));
        is_any |= self.phase(&[What::Rename], None);
        is_any |= self.phase(&[What::Restore], None);
        is_any |= self.phase(&[What::Remove], Some(true));
        is_any && self.steps.iter().any(|step| matches!(step.state, State::Waits(_)))
    }

    /// Tries steps of these kinds, `of_dirs`: for directories or for all else; whether any is over now that was not.
    fn phase(&mut self, whats: &[What], of_dirs: Option<bool>) -> bool {
        let is_meant = |step: &Step| {
            !step.state.is_over() && whats.contains(&step.what) && of_dirs.is_none_or(|of_dirs| step.is_dir == of_dirs)
        };
        let mut numbers: Vec<usize> = (0..self.steps.len()).filter(|number| is_meant(&self.steps[*number])).collect();
        // What holds others comes back before them, and goes after them.
        numbers.sort_by_key(|number| {
            let change = &self.trees.changes[self.steps[*number].change];
            change.before.as_ref().or(change.after.as_ref()).map(|thing| thing.path.as_path())
        });
        if whats == [What::Remove] {
            numbers.reverse();
        }
        let leaving = if whats == [What::Restore] { self.leaving() } else { BTreeSet::new() };
        let mut is_any = false;
        for number in numbers {
            is_any |= self.step(number, &leaving);
        }
        is_any
    }

    /// Where something is that is to be elsewhere, or nowhere, as soon as that can be.
    fn leaving(&self) -> BTreeSet<PathBuf> {
        let leaves = |step: &&Step| !step.state.is_over() && matches!(step.what, What::Remove | What::Rename);
        let things = self.steps.iter().filter(leaves).filter_map(|step| self.trees.changes[step.change].after.as_ref());
        things.filter_map(|thing| self.here(&thing.path)).collect()
    }

    /// Tries a step; whether it is over.
    fn step(&mut self, number: usize, leaving: &BTreeSet<PathBuf>) -> bool {
        let trees = self.trees;
        let Step { change, what, is_dir, .. } = self.steps[number];
        let ChangeInfo { before, after, .. } = &trees.changes[change];
        let tried = match (what, before, after) {
            (What::Remove, _, Some(after)) => self.remove(after, is_dir),
            (What::Restore, Some(before), _) => self.restore(before, is_dir, leaving),
            (What::Rename, Some(before), Some(after)) => self.rename(number, before, after),
            (What::Content, Some(before), Some(after)) => self.content(before, after),
            (What::Metadata, Some(before), Some(after)) => self.metadata(before, after),
            _ => Ok(Done::Before),
        };
        let state = match tried {
            Ok(Done::Now) => State::Undone,
            Ok(Done::Before) => State::Was,
            Err(Refusal::Yet(reason)) => State::Waits(reason),
            Err(Refusal::Ever(reason)) => State::Left(reason),
        };
        let is_over = state.is_over();
        self.steps[number].state = state;
        self.watch.count(is_over.into());
        is_over
    }

    /// Where something of the snapshot is by now; none: it was removed since.
    fn here(&self, path: &Path) -> Option<PathBuf> {
        self.trees.since.to(path).map(|then| self.moved.at(&then))
    }

    /// Where a directory from before the snapshot is by now.
    fn directory(&self, path: &Path) -> Option<PathBuf> {
        let back = self.back.get(path).cloned();
        back.or_else(|| {
            let then = self.trees.changed.directory(path)?;
            self.trees.since.directory(&then).map(|now| self.moved.at(&now))
        })
    }

    /// The place that something had before the snapshot, and which is in the volume.
    fn place(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let dir = match path.parent() {
            Some(parent) => self.directory(parent),
            None => Some(PathBuf::new()),
        };
        let Some(dir) = dir else { return yet("the directory that it was in is not there") };
        let place = join(&dir, path.file_name().map_or(Path::new(""), Path::new));
        self.check_own(&place).map(|()| place)
    }

    fn check_own(&self, place: &Path) -> Result<(), Refusal> {
        match self.trees.others.iter().any(|other| place.starts_with(other)) {
            true => ever("its place is in another volume"),
            false => Ok(()),
        }
    }

    /// What is there now of something that the snapshot has, whatever that is by now.
    fn find(&self, after: &ThingInfo) -> Result<Option<(PathBuf, Metadata)>, Refusal> {
        let Some(at) = self.here(&after.path) else { return Ok(None) };
        self.check_own(&at)?;
        Ok(self.ground.look(&at)?.map(|found| (at, found)))
    }

    /// The same of what was there before, too, and is to stay.
    fn find_both(&self, before: &ThingInfo, after: &ThingInfo) -> Result<(PathBuf, Metadata), Refusal> {
        let replaced = self.find_replaced(before, after)?;
        let found = if replaced.is_some() { replaced } else { self.find(after)? };
        match found {
            None => ever("it was removed since"),
            Some((_, found)) if !is_of_kind(&found, &after.kind) => ever("something else is there now"),
            Some(found) => Ok(found),
        }
    }

    /// What has got both its name and its content back is another file, of which nothing tells that it is the same one: it is known
    /// by what it holds.
    fn find_replaced(&self, before: &ThingInfo, after: &ThingInfo) -> Result<Option<(PathBuf, Metadata)>, Refusal> {
        let since = &self.trees.since;
        let is_moved = before.path != after.path && since.fate(&after.path).has_other_content;
        let is_gone = since.to(&after.path).is_none();
        let at = match self.place(&before.path) {
            Ok(at) if is_moved || is_gone => at,
            // The directory that it was in may come back.
            Err(_) if is_gone => return yet("it was removed since"),
            _ => return Ok(None),
        };
        let Some(found) = self.ground.look(&at)?.filter(|found| is_of_kind(found, &before.kind)) else {
            return Ok(None);
        };
        let is_it = self.is_undone(&at, &found, before, after)?;
        Ok(is_it.then_some((at, found)))
    }

    /// Whether what is at a place holds what something did before, or all of that which can be had.
    fn is_undone(&self, at: &Path, found: &Metadata, before: &ThingInfo, after: &ThingInfo) -> Result<bool, Refusal> {
        let was = self.trees.before.join(&before.path);
        let is_merged = || matches!(self.merge(at, &was, &self.trees.then.join(&after.path)), Ok(None));
        Ok(self.is_like(at, found, &was)? || found.is_file() && is_merged())
    }

    /// Whether what is in the place of something that was added is what has its name and its content from before back.
    fn is_back(&self, at: &Path, found: &Metadata, added: &ThingInfo) -> Result<bool, Refusal> {
        if !self.trees.since.fate(&added.path).has_other_content {
            return Ok(false);
        }
        let both = self.trees.changes.iter().filter_map(|change| change.before.as_ref().zip(change.after.as_ref()));
        let mut same = both.filter(|(before, after)| {
            let is_named = before.path.file_name() == at.file_name() && before.path != after.path;
            is_named && is_of_kind(found, &before.kind) && self.place(&before.path).is_ok_and(|place| place == at)
        });
        same.try_fold(false, |is, (before, after)| Ok(is || self.is_undone(at, found, before, after)?))
    }

    /// Whether what is at a place holds what something in a snapshot does.
    fn is_like(&self, at: &Path, found: &Metadata, then: &Path) -> Result<bool, Refusal> {
        let of_then = fs::symlink_metadata(then)?;
        if of_then.file_type() != found.file_type() {
            return Ok(false);
        }
        Ok(match found.is_file() {
            true => is_same(&mut self.ground.read(at)?, &mut File::open(then)?)?,
            false if found.is_symlink() => self.ground.target(at)? == fs::read_link(then)?,
            false => found.is_dir() || found.rdev() == of_then.rdev(),
        })
    }

    /// Whether something does not hold any more what it held in the snapshot. Of what has several names one is told.
    fn is_changed(&self, at: &Path, found: &Metadata, after: &ThingInfo) -> Result<bool, Refusal> {
        let since = &self.trees.since;
        let is_told = since.to(&after.path).is_none() || since.fate(&after.path).has_other_content;
        let is_sure = !is_told && found.nlink() < 2;
        Ok(!is_sure && !self.is_like(at, found, &self.trees.then.join(&after.path))?)
    }

    fn remove(&mut self, after: &ThingInfo, is_dir: bool) -> Tried {
        let Some((at, found)) = self.find(after)? else { return Ok(Done::Before) };
        // What has come to its place stays, above all where that was there before.
        if !is_of_kind(&found, &after.kind) || !is_dir && self.is_back(&at, &found, after)? {
            return Ok(Done::Before);
        }
        if self.trees.since.fate(&after.path).has_other_metadata {
            return ever("its mode, owner or attributes were changed since");
        }
        if !is_dir {
            if self.is_changed(&at, &found, after)? {
                return ever("it was changed since");
            }
            // The other name would be left, as that of a file that was only renamed.
            if found.nlink() > 1 && found.nlink() > fs::symlink_metadata(self.trees.then.join(&after.path))?.nlink() {
                return ever("it has another name since");
            }
            self.ground.check_quiet(&found)?;
        }
        self.ground.remove(&at, is_dir)?;
        Ok(Done::Now)
    }

    fn restore(&mut self, before: &ThingInfo, is_dir: bool, leaving: &BTreeSet<PathBuf>) -> Tried {
        let at = self.place(&before.path)?;
        let was = self.trees.before.join(&before.path);
        let done = match self.ground.look(&at)? {
            None => {
                self.bring(before, &at, &was)?;
                Done::Now
            }
            // It may look the same, and is another one all the same.
            Some(found) if !leaving.contains(&at) && self.is_like(&at, &found, &was)? => Done::Before,
            Some(_) => return yet("something else is in its place"),
        };
        if is_dir {
            self.back.put(before.path.clone(), at);
            self.restored.extend((done == Done::Now).then(|| before.path.clone()));
        }
        Ok(done)
    }

    /// Brings something back from before the snapshot. Names of one file are that again, as far as they come back here.
    fn bring(&mut self, before: &ThingInfo, at: &Path, was: &Path) -> Result<(), Refusal> {
        let found = fs::symlink_metadata(was)?;
        let is_one_of_many = !found.is_dir() && found.nlink() > 1;
        let other = self.links.get(&found.ino()).filter(|_| is_one_of_many).and_then(|other| self.back.get(other));
        match other {
            Some(other) => self.ground.link(other, at)?,
            None => {
                let (size, watch) = (before.size, &mut self.watch);
                self.ground.put(at, was, &mut |done| watch.bytes(done, size))?;
            }
        }
        if is_one_of_many {
            self.links.insert(found.ino(), before.path.clone());
            self.back.put(before.path.clone(), at.to_owned());
        }
        Ok(())
    }

    /// What gets a name back, and which.
    fn renaming(&self, step: usize, before: &ThingInfo, after: &ThingInfo) -> Result<Renaming, Refusal> {
        if let Some((at, _)) = self.find_replaced(before, after)? {
            return Ok(Renaming { step, then: at.clone(), from: at.clone(), to: at });
        }
        let Some(then) = self.trees.since.to(&after.path) else { return ever("it was removed since") };
        let from = self.moved.at(&then);
        self.check_own(&from)?;
        let to = self.place(&before.path)?;
        let is_renamed = then != after.path && self.trees.since.fate(&after.path).is_renamed;
        // Where the snapshot has put something else, it was brought by a command like this one that was ended half-way.
        if is_renamed && from != to && !self.renamed.contains(then.as_path()) {
            return ever(format!("it has another name since: {}", then.maybe_quote()));
        }
        Ok(Renaming { step, then, from, to })
    }

    fn rename(&mut self, step: usize, before: &ThingInfo, after: &ThingInfo) -> Tried {
        let Renaming { then, from, to, .. } = self.renaming(step, before, after)?;
        if from == to {
            return Ok(Done::Before);
        }
        self.ground.rename(&from, &to, false)?;
        if is_directory(after) {
            self.relocate(&[(from, to.clone())]);
        }
        self.moved.put(then, to);
        Ok(Done::Now)
    }

    fn relocate(&mut self, moves: &[(PathBuf, PathBuf)]) {
        self.moved.relocate(moves);
        self.back.relocate(moves);
    }

    /// Where things wait for each other in a circle, one of them changes places with the one that is in its place.
    fn turn(&mut self) -> bool {
        let trees = self.trees;
        let waiting = |step: &Step| matches!((step.what, &step.state), (What::Rename, State::Waits(_)));
        let numbers = (0..self.steps.len()).filter(|number| waiting(&self.steps[*number]));
        let all = numbers.filter_map(|number| {
            let ChangeInfo { before, after, .. } = &trees.changes[self.steps[number].change];
            self.renaming(number, before.as_ref()?, after.as_ref()?).ok()
        });
        let all: BTreeMap<PathBuf, Renaming> = all.map(|renaming| (renaming.from.clone(), renaming)).collect();
        let is_circle = |start: &Renaming| {
            let mut at = start;
            for _ in 0..all.len() {
                match all.get(&at.to) {
                    Some(next) if next.from == start.from => return true,
                    Some(next) => at = next,
                    None => return false,
                }
            }
            false
        };
        let Some(one) = all.values().find(|renaming| is_circle(renaming)) else { return false };
        let Some(other) = all.get(&one.to) else { return false };
        if self.ground.rename(&one.from, &one.to, true).is_err() {
            return false;
        }
        self.relocate(&[(one.from.clone(), one.to.clone()), (one.to.clone(), one.from.clone())]);
        self.moved.put(one.then.clone(), one.to.clone());
        self.moved.put(other.then.clone(), one.from.clone());
        for renaming in [Some(one), Some(other).filter(|other| other.to == one.from)].into_iter().flatten() {
            self.steps[renaming.step].state = State::Undone;
            self.watch.count(1);
        }
        true
    }

    fn content(&mut self, before: &ThingInfo, after: &ThingInfo) -> Tried {
        let (at, found) = self.find_both(before, after)?;
        let was = self.trees.before.join(&before.path);
        let is_changed = self.is_changed(&at, &found, after)?;
        if is_changed && self.is_like(&at, &found, &was)? {
            return Ok(Done::Before);
        }
        if found.nlink() > 1 {
            return ever("it has several names, of which this one would be another file");
        }
        self.ground.check_quiet(&found)?;
        if is_changed {
            let merged = self.merge(&at, &was, &self.trees.then.join(&after.path))?;
            let Some(merged) = merged else { return Ok(Done::Before) };
            self.ground.fill(&at, Content::Bytes(&merged), &mut |_| {})?;
        } else {
            let (size, watch) = (before.size, &mut self.watch);
            self.ground.fill(&at, Content::Of(&was), &mut |done| watch.bytes(done, size))?;
        }
        Ok(Done::Now)
    }

    /// What a text becomes that was changed since; none: it is that already.
    fn merge(&self, at: &Path, was: &Path, then: &Path) -> Result<Option<Vec<u8>>, Refusal> {
        let now = text(&self.ground.read(at)?)?;
        let is_text = |path: &Path| -> Result<bool, Refusal> { Ok(text(&File::open(path)?)?.is_some()) };
        let Some(now) = now else { return ever("it was changed since") };
        if !is_text(was)? || !is_text(then)? {
            return ever("it was changed since");
        }
        match self.ground.in_dir(at, |dir, name| merge(dir, name, then, was))? {
            Ok(Merged::Clean(merged)) => Ok(Some(merged).filter(|merged| *merged != now)),
            Ok(Merged::Conflict) => ever("it was changed since, in the same lines"),
            Err(reason) => ever(format!("it was changed since, and {reason}")),
        }
    }

    fn metadata(&mut self, before: &ThingInfo, after: &ThingInfo) -> Tried {
        let (at, _) = self.find_both(before, after)?;
        let about = |path: &Path, thing: &ThingInfo| About::read(&path.join(&thing.path));
        let was = about(&self.trees.before, before)?.of_mode(before.mode);
        let then = about(&self.trees.then, after)?.of_mode(after.mode);
        if before.path.as_os_str().is_empty() && before.mode == after.mode {
            // A snapshot shows it with the owner of now.
            return ever("which owner and attributes the uppermost directory had is not shown");
        }
        match self.ground.about(&at)?.back(&was, &then) {
            Back::Is => Ok(Done::Before),
            Back::Changed(what) => ever(format!("its {what} was changed since")),
            Back::Set(settings) => {
                self.ground.set(&at, &settings)?;
                Ok(Done::Now)
            }
        }
    }
}

//! Whatever a person does with a tree, its branches and its snapshots, by `hn` and by ordinary calls in a real mount: nothing is gone
//! that nobody took away, branches that are merged with each other become one tree, and snapshots read the same for ever.
//!
//! What is written is different each time, so that it is known again wherever it is. Long runs are those of `scripts/anything`.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

const NAMES: [&str; 6] = ["a", "b.txt", "c", "d", "e.rs", "f"];
const BRANCHES: usize = 3;
/// Of a tree no more is written once it has so many entries.
const ENTRIES: usize = 60;

/// What was written once, anywhere: a line, or part of one.
type Token = String;

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Dir,
    Fifo,
    File(Vec<u8>),
    Symlink(PathBuf),
}

/// Something in a tree, with its mode and, of what has several names, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thing {
    what: What,
    mode: u32,
    names: BTreeSet<String>,
}

/// All that is below a directory, by paths.
type Listing = BTreeMap<String, Thing>;

fn list(root: &Path) -> Result<Listing> {
    let (mut found, mut dirs) = (Listing::new(), vec![String::new()]);
    let mut same: BTreeMap<u64, (u64, BTreeSet<String>)> = BTreeMap::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).with_context(|| format!("in {dir:?}"))? {
            let name = entry.with_context(|| format!("{dir:?} is listed"))?.file_name().into_string().unwrap();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let at = root.join(&path);
            let meta = fs::symlink_metadata(&at).with_context(|| format!("{path:?} is listed"))?;
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                dirs.push(path.clone());
                What::Dir
            } else if kind.is_symlink() {
                What::Symlink(fs::read_link(&at).with_context(|| format!("{path:?} is a symlink"))?)
            } else if kind.is_file() {
                What::File(fs::read(&at).with_context(|| format!("{path:?} is read"))?)
            } else {
                What::Fifo
            };
            let mut names = BTreeSet::new();
            if !kind.is_dir() && meta.nlink() > 1 {
                names.insert(path.clone());
                let (links, all) = same.entry(meta.ino()).or_insert((meta.nlink(), BTreeSet::new()));
                ensure!(*links == meta.nlink(), "{path:?} has {} names, and {links} by another one", meta.nlink());
                all.insert(path.clone());
            }
            found.insert(path, Thing { what, mode: meta.mode() & 0o7777, names });
        }
    }
    for (links, all) in same.values() {
        ensure!(*links == all.len() as u64, "{links} names are counted of what has {all:?}");
        all.iter().for_each(|path| found.get_mut(path).unwrap().names.clone_from(all));
    }
    Ok(found)
}

/// What was written, and in how many files it is: what was kept beside something else is there twice.
fn counted(listing: &Listing) -> BTreeMap<Token, usize> {
    let mut counted = BTreeMap::new();
    let is_first = |path: &String, thing: &Thing| thing.names.first().is_none_or(|first| first == path);
    for (_, thing) in listing.iter().filter(|(path, thing)| is_first(path, thing)) {
        let mut count = |token: &str| *counted.entry(token.to_owned()).or_default() += 1;
        match &thing.what {
            What::File(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                text.split(['\n', '\0']).filter(|part| !part.is_empty()).for_each(count);
            }
            What::Symlink(target) => count(target.to_str().unwrap()),
            What::Dir | What::Fifo => {}
        }
    }
    counted
}

fn tokens(listing: &Listing) -> BTreeSet<Token> {
    counted(listing).into_keys().collect()
}

struct World {
    random: ChaCha8Rng,
    agent: Agent,
    /// `main`, and the branches there are.
    trees: Vec<(String, PathBuf)>,
    named: usize,
    written: u64,
    /// What somebody took away, or wrote over.
    gone: BTreeSet<Token>,
    /// A snapshot, and what was there.
    taken: Vec<(PathBuf, Listing)>,
    done: Vec<String>,
    _mesh: Mesh,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let mesh = Mesh::start(5)?;
        let agent = Agent::held_on(&mesh, 5)?;
        let trees = vec![("main".into(), agent.mount())];
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (gone, taken, done) = (BTreeSet::new(), Vec::new(), Vec::new());
        Ok(Self { random, agent, trees, named: 0, written: 0, gone, taken, done, _mesh: mesh })
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn token(&mut self) -> Token {
        self.written += 1;
        format!("token {}.", self.written)
    }

    fn hn(&mut self, args: &[&str]) -> Result<Value> {
        self.done.push(format!("hn {}", args.join(" ")));
        self.agent.json(args)
    }

    fn one_of(&mut self, listing: &Listing, is_it: impl Fn(&Thing) -> bool) -> Option<String> {
        let all: Vec<&String> = listing.iter().filter(|(_, thing)| is_it(thing)).map(|(path, _)| path).collect();
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }

    /// A place in a tree, at which there may be something.
    fn place(&mut self, listing: &Listing) -> String {
        let dirs: Vec<&String> =
            listing.iter().filter(|(_, thing)| thing.what == What::Dir).map(|(path, _)| path).collect();
        let name = NAMES[self.below(NAMES.len())];
        match self.below(dirs.len() + 1) {
            0 => name.to_owned(),
            number => format!("{}/{name}", dirs[number - 1]),
        }
    }

    /// Something that an ordinary program does in a tree. What it may not do it does not.
    fn act(&mut self, root: &Path, listing: &Listing) -> Result<()> {
        let to = self.place(listing);
        let at = root.join(&to);
        let is_free = !listing.contains_key(&to) && listing.len() < ENTRIES;
        let file = self.one_of(listing, |thing| matches!(thing.what, What::File(_)));
        let any = self.one_of(listing, |_| true);
        let token = self.token();
        let mut said = |what: String| self.done.push(format!("{what} in {}", root.display()));
        let random = self.random.next_u64();
        match random % 20 {
            0..5 if is_free => {
                said(format!("write {token} to {to}"));
                // One in three is no text.
                let end = if random.is_multiple_of(3) { '\0' } else { '\n' };
                fs::write(at, format!("{token}{end}"))?;
            }
            5..7 if is_free => {
                said(format!("mkdir {to}"));
                fs::create_dir(at)?;
            }
            7 if is_free => {
                said(format!("symlink {to} to {token}"));
                symlink(token, at)?;
            }
            8 if is_free && random.is_multiple_of(3) => {
                said(format!("mkfifo {to}"));
                ensure!(Command::new("mkfifo").arg(at).status()?.success(), "mkfifo");
            }
            9 | 10 if is_free => {
                if let Some(file) = file {
                    said(format!("link {file} {to}"));
                    fs::hard_link(root.join(file), at)?;
                }
            }
            11 | 12 => {
                if let Some(file) = file {
                    said(format!("write {token} over {file}"));
                    fs::write(root.join(file), format!("{token}\n"))?;
                }
            }
            13 => {
                if let Some(file) = file {
                    said(format!("append {token} to {file}"));
                    let mut file = OpenOptions::new().append(true).open(root.join(file))?;
                    file.write_all(format!("{token}\n").as_bytes())?;
                }
            }
            14 => {
                if let Some(any) = any.filter(|any| !matches!(listing[any].what, What::Symlink(_))) {
                    said(format!("chmod {any}"));
                    let mode = 0o700 | (random >> 32) as u32 & 0o77;
                    fs::set_permissions(root.join(any), fs::Permissions::from_mode(mode))?;
                }
            }
            15 | 16 => {
                if let Some(any) = any {
                    said(format!("remove {any}"));
                    match listing[&any].what {
                        What::Dir => fs::remove_dir_all(root.join(any))?,
                        _ => fs::remove_file(root.join(any))?,
                    }
                }
            }
            17.. => {
                // Into itself, over a full directory, a file over a directory: as it is said no, it is not done.
                if let Some(any) = any {
                    said(format!("rename {any} {to}"));
                    let _ = fs::rename(root.join(any), at);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Says whether all was there already.
    fn merge(&mut self, from: usize, into: usize) -> Result<bool> {
        let ((from, source), (_, target)) = (self.trees[from].clone(), self.trees[into].clone());
        let before = [list(&source)?, list(&target)?];
        let mut there: BTreeSet<Token> = before.iter().flat_map(tokens).collect();
        there.retain(|token| !self.gone.contains(token));
        let merged = self.hn(&["merge", &from, target.to_str().unwrap()])?;
        let now = list(&target)?;
        match there.difference(&tokens(&now)).next() {
            None => Ok(merged["already"] == true),
            Some(lost) => bail!("{lost:?} is gone, and nobody took it away: of\n{before:?}\nthis came:\n{now:?}"),
        }
    }

    fn snap(&mut self, of: usize) -> Result<()> {
        let root = self.trees[of].1.clone();
        let message = format!("snapshot {}", self.taken.len());
        let info = self.hn(&["snap", "-m", &message, root.to_str().unwrap()])?;
        let id = info["snapshot"]["id"].as_str().unwrap()[..12].to_owned();
        let past = root.join(".snapshots");
        let names = fs::read_dir(&past)?.map(|entry| Ok(entry?.file_name().into_string().unwrap()));
        let name = names.filter_map(|name: std::io::Result<String>| name.ok()).find(|name| name.ends_with(&id));
        self.taken.push((past.join(name.context("a snapshot that was just taken is not listed")?), list(&root)?));
        Ok(())
    }

    /// Of a branch that is gone they are gone, too.
    fn look_back(&self, count: usize) -> Result<()> {
        for (path, listing) in self.taken.iter().rev().take(count).filter(|(path, _)| path.exists()) {
            let now = list(path).with_context(|| format!("in {}", path.display()))?;
            ensure!(now == *listing, "{} has changed: {now:?}\nand was {listing:?}", path.display());
        }
        Ok(())
    }

    /// What changes a tree as a person wants it: what is not in it any more was taken away.
    fn meant(&mut self, root: &Path, change: impl FnOnce(&mut Self, &Listing) -> Result<()>) -> Result<()> {
        let before = list(root)?;
        change(self, &before).with_context(|| format!("of\n{before:?}"))?;
        let after = counted(&list(root)?);
        // Of what is in two files one may have been taken away here and the other one elsewhere.
        let is_less = |(token, count): &(Token, usize)| after.get(token).is_none_or(|left| left < count);
        self.gone.extend(counted(&before).into_iter().filter(is_less).map(|(token, _)| token));
        Ok(())
    }

    /// One of the snapshots of trees that there are: its place among those that were taken, the tree, and its number.
    fn one_taken(&mut self) -> Option<(usize, PathBuf, String)> {
        let tree = |path: &Path| {
            self.trees.iter().map(|(_, root)| root).find(|root| path.starts_with(root.join(".snapshots")))
        };
        let all: Vec<_> = (0..self.taken.len()).filter_map(|at| Some((at, tree(&self.taken[at].0)?.clone()))).collect();
        if all.is_empty() {
            return None;
        }
        let (at, root) = all[self.below(all.len())].clone();
        let name = self.taken[at].0.to_str()?.to_owned();
        Some((at, root, name.rsplit('-').next()?.to_owned()))
    }

    fn restore(&mut self) -> Result<()> {
        let Some((at, root, id)) = self.one_taken() else { return Ok(()) };
        let then = self.taken[at].1.clone();
        let Some(path) = self.one_of(&then, |_| true) else { return Ok(()) };
        self.meant(&root, |world, before| {
            let to = root.join(&path);
            world.done.push(format!("hn restore {id} {}", to.display()));
            let ran = world.agent.hn(["restore", &id, to.to_str().unwrap()])?;
            let now = list(&root)?;
            if ran.code != Some(0) {
                // Where a file is in the way, say: it has a reason, and nothing has changed.
                ensure!(ran.stderr.contains("error: ") && now == *before, "{ran:?}\n{now:?}");
                return Ok(());
            }
            let below = format!("{path}/");
            let of = |listing: &Listing| -> Vec<(String, What)> {
                let is_it = |name: &str| name == path || name.starts_with(&below);
                let all = listing.iter().filter(|(name, _)| is_it(name));
                all.map(|(name, thing)| (name.clone(), thing.what.clone())).collect()
            };
            ensure!(of(&now) == of(&then), "{path:?} is not as it was: {:?} and not {:?}", of(&now), of(&then));
            Ok(())
        })
    }

    fn undo(&mut self, root: &Path) -> Result<()> {
        self.meant(root, |world, _| {
            world.done.push(format!("hn revert HEAD {}", root.display()));
            let ran = world.agent.hn(["revert", "HEAD", root.to_str().unwrap()])?;
            ensure!(ran.code == Some(0) || ran.stderr.contains("error: "), "{ran:?}");
            Ok(())
        })
    }

    fn resolve(&mut self, root: &Path) -> Result<()> {
        let keep = ["file", "version", "both"][self.below(3)];
        self.meant(root, |world, before| {
            world.done.push(format!("hn resolve --keep {keep} {}", root.display()));
            let ran = world.agent.hn(["--json", "resolve", "--all", "--keep", keep, root.to_str().unwrap()])?;
            let left = world.agent.json(["conflicts", root.to_str().unwrap()])?;
            // Of a version whose file is gone it is the only one: that stays, and it is said.
            let said: Value = serde_json::from_str(ran.stdout.lines().next().unwrap_or("{}"))?;
            let paths = |all: &Value| -> BTreeSet<String> {
                let all = all.as_array().into_iter().flatten();
                all.map(|one| one["path"].as_str().unwrap().to_owned()).collect()
            };
            ensure!(paths(&left) == paths(&said["left"]), "{left} and {ran:?}");
            let now = list(root)?;
            ensure!(keep != "both" || tokens(&now) == tokens(before), "{now:?}");
            Ok(())
        })
    }

    fn prune(&mut self) -> Result<()> {
        let Some((at, root, id)) = self.one_taken() else { return Ok(()) };
        self.hn(&["snap", "prune", &id, "--of", root.to_str().unwrap()])?;
        // It is none of a branch either that has it as what it began with.
        self.taken.remove(at);
        self.look_back(2)
    }

    /// All snapshots of the trees there are, are listed.
    fn all_listed(&self) -> Result<()> {
        let is_there = |path: &&PathBuf| self.trees.iter().any(|(_, root)| path.starts_with(root.join(".snapshots")));
        for path in self.taken.iter().map(|(path, _)| path).filter(is_there) {
            let past = path.parent().unwrap();
            fs::metadata(past)?;
            let names: Vec<_> = fs::read_dir(past)?.map(|entry| entry.unwrap().path()).collect();
            ensure!(names.contains(path), "snapshot {} is not listed: {names:?}", path.display());
        }
        Ok(())
    }

    fn branch(&mut self) -> Result<()> {
        let at = self.below(self.trees.len());
        let (of, root) = self.trees[at].clone();
        self.named += 1;
        let name = format!("b{}", self.named);
        self.hn(&["branch", &name, "--of", root.to_str().unwrap()])?;
        let path = self.agent.mount().join(".branches").join(&name);
        ensure!(list(&path)? == list(&root)?, "{name} does not begin with what is in {of}");
        self.trees.push((name, path));
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let which = self.below(self.trees.len());
        let root = self.trees[which].1.clone();
        match self.below(60) {
            0..2 if self.trees.len() <= BRANCHES => self.branch()?,
            2..6 if self.trees.len() > 1 => {
                let other = (which + 1 + self.below(self.trees.len() - 1)) % self.trees.len();
                self.merge(other, which)?;
            }
            6..8 => self.snap(which)?,
            8 => drop(self.hn(&["sync", root.to_str().unwrap()])?),
            9 => drop(self.hn(&["cache", "drop"])?),
            10 if self.below(3) == 0 => {
                self.done.push("kill, and up again".into());
                self.agent.kill()?;
                self.agent.up_with(&["--hold"])?;
                self.agent.wait_for_peers(5)?;
            }
            11 if self.trees.len() > 1 && which > 0 => {
                self.merge(which, 0)?;
                let (name, _) = self.trees.remove(which);
                // Another one may begin in it.
                drop(self.hn(&["sync"])?);
                // It may be a branch of another one, into which it was not merged.
                self.hn(&["branch", "--delete", "--force", &name])?;
            }
            12 => self.look_back(2)?,
            13 | 14 => self.restore()?,
            15 => self.undo(&root)?,
            16 => self.resolve(&root)?,
            17 if self.below(3) == 0 => self.prune()?,
            _ => {
                self.meant(&root, |world, before| world.act(&root, before))?;
            }
        }
        Ok(())
    }

    /// All become one, which has all of it.
    fn end(&mut self) -> Result<()> {
        // What comes of a merge is new to the other one where that has changed since, and be it by a snapshot.
        for round in 0.. {
            ensure!(round < 4, "there is no end of merging");
            let mut all = true;
            for which in 1..self.trees.len() {
                all &= self.merge(which, 0)?;
            }
            for which in 1..self.trees.len() {
                all &= self.merge(0, which)?;
            }
            if all {
                break;
            }
        }
        let main = list(&self.trees[0].1)?;
        for (name, path) in &self.trees {
            ensure!(list(path)? == main, "{name} is\n{:?}\nand main is\n{main:?}", list(path)?);
        }
        self.look_back(usize::MAX)?;
        let ran = self.agent.hn(["fsck"])?;
        ensure!(ran.code == Some(0), "{ran:?}");
        for taken in self.hn(&["log"])?.as_array().unwrap() {
            let id = taken["id"].as_str().unwrap();
            let found = self.hn(&["verify", id])?;
            ensure!(found["problems"] == Value::Array(vec![]), "{found}");
        }
        // And so it is for whoever has nothing of it in memory.
        self.agent.hn(["sync"])?.ok()?;
        self.agent.kill()?;
        self.agent.up_with(&["--hold"])?;
        self.agent.wait_for_peers(5)?;
        self.agent.hn(["cache", "drop"])?.ok()?;
        ensure!(list(&self.trees[0].1)? == main, "main is another one after a restart");
        Ok(())
    }
}

fn live(seed: u64, steps: usize) -> Result<String> {
    let mut world = World::new(seed)?;
    let done = (0..steps).try_for_each(|_| world.step().and_then(|()| world.all_listed())).and_then(|()| world.end());
    done.with_context(|| format!("seed {seed}, after:\n{}", world.done.join("\n")))?;
    let merges = world.done.iter().filter(|line| line.starts_with("hn merge")).count();
    let (written, gone) = (world.written, world.gone.len());
    Ok(format!(
        "seed {seed}: {merges} merges, {} snapshots, {gone} of {written} contents taken away",
        world.taken.len()
    ))
}

#[test]
fn trees_branches_and_snapshots_are_right_whatever_is_done_with_them() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    live(1, 150).map(drop)
}

/// For `scripts/anything`.
#[test]
#[ignore = "as long as one likes"]
#[expect(clippy::print_stdout, reason = "it says how far it has come")]
fn for_as_long_as_one_likes() -> Result<()> {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, runs, steps) = (number("HN_SEED", 1), number("HN_RUNS", 10), number("HN_STEPS", 300));
    for seed in first..first + runs {
        println!("{}", live(seed, steps as usize)?);
    }
    Ok(())
}

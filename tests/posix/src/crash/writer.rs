//! A writer: random changes to one directory until one fails, each told to the model before it is tried.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};

use super::model::{Entry, FileId, Found, Model, parent};

/// Names of a writer at most; above it removes.
const NAMES_MAX: usize = 24;
/// Changes that are told of when something is wrong.
const LOG_MAX: usize = 60;
/// Bytes of a file at most.
const SIZE_MAX: u64 = 192 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    random: ChaCha8Rng,
    model: Model,
    /// Names are never used twice, so that a file found under one is known.
    names: u64,
    /// The latest changes, to be told where one went wrong.
    log: VecDeque<String>,
    falling: Arc<AtomicBool>,
}

impl Writer {
    /// One that works below this directory. Where `falling` is set, the round is at its end, and its next sync fails:
    /// ext4 lets one succeed that meets the end of its journal, so what succeeds from then on says nothing.
    pub(super) fn new(dir: PathBuf, seed: u64, falling: Arc<AtomicBool>) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        File::open(&dir)?.sync_all()?;
        Ok(Self {
            dir,
            random: ChaCha8Rng::seed_from_u64(seed),
            model: Model::of(&BTreeMap::new()),
            names: 0,
            log: VecDeque::new(),
            falling,
        })
    }

    /// Changes things until a call fails, and gives its error and how many calls went well.
    pub(super) fn run(&mut self) -> (u64, io::Error) {
        let mut calls = 0;
        loop {
            match self.step() {
                Ok(()) => calls += 1,
                Err(error) => return (calls, error),
            }
        }
    }

    /// Compares what is there with what may be, and goes on from there, with all of it synced.
    pub(super) fn check(&mut self) -> Result<()> {
        let found = look(&self.dir)?;
        self.model.check(&found).with_context(|| {
            let log: Vec<&str> = self.log.iter().map(String::as_str).collect();
            format!("{} is not what it may be after\n    {}", self.dir.display(), log.join("\n    "))
        })?;
        // A sync that failed in the background is told to the next one.
        if settle(&self.dir, &found).is_err() {
            settle(&self.dir, &found).context("cannot sync though all is well again")?;
        }
        self.log.clear();
        self.model = Model::of(&found);
        Ok(())
    }

    /// After a sync that succeeded.
    fn still_there(&self) -> io::Result<()> {
        if self.falling.load(Ordering::SeqCst) { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
    }

    fn says(&mut self, what: String) {
        self.log.push_back(what);
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from.get(at).cloned()
    }

    fn files(&self) -> Vec<(String, FileId)> {
        let file = |(path, entry): (&String, &Entry)| match entry {
            Entry::File { file, .. } => Some((path.clone(), *file)),
            Entry::Dir(_) => None,
        };
        self.model.tree().iter().filter_map(file).collect()
    }

    /// The writer's own, and those in it.
    fn dirs(&self) -> Vec<String> {
        let dirs =
            self.model.tree().iter().filter(|(_, entry)| matches!(entry, Entry::Dir(_))).map(|(path, _)| path.clone());
        std::iter::once(String::new()).chain(dirs).collect()
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        let dirs = self.dirs();
        match self.pick(&dirs) {
            Some(dir) if !dir.is_empty() => format!("{dir}/{}", self.names),
            _ => self.names.to_string(),
        }
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        // Small ones are common, as they are in the world.
        let most = if self.below(3) == 0 { most } else { most.min(600) };
        let mut bytes = vec![0; usize::try_from(self.below(most) + 1).unwrap_or(1)];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn step(&mut self) -> io::Result<()> {
        let files = self.files();
        if self.model.tree().len() >= NAMES_MAX {
            return self.remove();
        }
        let Some((path, file)) = self.pick(&files) else { return self.create().map(drop) };
        match self.below(20) {
            0..2 => self.create().map(drop),
            2..6 => self.write(&path, file),
            6 => self.truncate(&path, file),
            7 => self.punch(&path, file),
            8..11 => self.sync(&path, file),
            11 => self.sync_dir(),
            12..14 => self.replace(&path),
            14..16 => self.rename(&path),
            16 => self.exchange(&path, &files),
            17 => self.make_dir(),
            18 => self.rename_dir(),
            _ => self.remove(),
        }
    }

    fn create(&mut self) -> io::Result<(String, FileId)> {
        let path = self.new_name();
        let file = self.model.creates(&path);
        self.says(format!("create {path}"));
        let opened = OpenOptions::new().write(true).create_new(true).open(self.at(&path))?;
        self.write_to(&opened, file)?;
        close(opened)?;
        Ok((path, file))
    }

    fn write(&mut self, path: &str, file: FileId) -> io::Result<()> {
        self.says(format!("open {path}"));
        let opened = OpenOptions::new().write(true).open(self.at(path))?;
        for _ in 0..=self.below(3) {
            self.write_to(&opened, file)?;
        }
        if self.below(3) == 0 {
            opened.sync_data()?;
            self.still_there()?;
            self.says(format!("fdatasync {path}"));
            self.model.synced(path, file);
        }
        close(opened)
    }

    fn write_to(&mut self, opened: &File, file: FileId) -> io::Result<()> {
        let len = self.model.content(file).len() as u64;
        let offset = if self.below(2) == 0 { len } else { self.below(len + 1) };
        let bytes = self.bytes((SIZE_MAX - offset.min(SIZE_MAX - 1)).min(64 << 10));
        self.model.writes(file, |content| {
            let start = usize::try_from(offset).unwrap_or(0);
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(&bytes);
        });
        self.says(format!("write {} at {offset}, which has {len} bytes", bytes.len()));
        opened.write_all_at(&bytes, offset)
    }

    fn truncate(&mut self, path: &str, file: FileId) -> io::Result<()> {
        let len = self.below((self.model.content(file).len() as u64 + 4096).min(SIZE_MAX));
        self.model.writes(file, |content| content.resize(usize::try_from(len).unwrap_or(0), 0));
        self.says(format!("truncate {path} to {len}"));
        OpenOptions::new().write(true).open(self.at(path))?.set_len(len)
    }

    fn punch(&mut self, path: &str, file: FileId) -> io::Result<()> {
        let len = self.model.content(file).len() as u64;
        if len < 2 {
            return Ok(());
        }
        let start = self.below(len - 1);
        let hole = self.below(len - start - 1) + 1;
        let range = usize::try_from(start).unwrap_or(0)..usize::try_from(start + hole).unwrap_or(0);
        self.model.writes(file, |content| content[range].fill(0));
        let opened = OpenOptions::new().write(true).open(self.at(path))?;
        self.says(format!("punch {path} at {start}, {hole}"));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&opened, flags, start, hole)?)
    }

    fn sync(&mut self, path: &str, file: FileId) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()?;
        self.still_there()?;
        self.says(format!("fsync {path}"));
        self.model.synced(path, file);
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let dirs = self.dirs();
        let dir = self.pick(&dirs).unwrap_or_default();
        File::open(self.at(&dir))?.sync_all()?;
        self.still_there()?;
        self.says(format!("fsync of directory {dir}"));
        self.model.synced_dir(&dir);
        Ok(())
    }

    /// As careful programs save: a new file, synced or not, renamed over the old one.
    fn replace(&mut self, path: &str) -> io::Result<()> {
        let (new, file) = self.create()?;
        if self.below(2) == 0 {
            self.sync(&new, file)?;
        }
        self.says(format!("rename {new} over {path}"));
        self.model.renames(&new, path);
        fs::rename(self.at(&new), self.at(path))
    }

    fn rename(&mut self, path: &str) -> io::Result<()> {
        let to = self.new_name();
        self.says(format!("rename {path} to {to}"));
        self.model.renames(path, &to);
        renameat_with(CWD, self.at(path), CWD, self.at(&to), RenameFlags::NOREPLACE)?;
        Ok(())
    }

    fn exchange(&mut self, path: &str, files: &[(String, FileId)]) -> io::Result<()> {
        let Some((other, _)) = self.pick(files) else { return Ok(()) };
        self.says(format!("exchange {path} and {other}"));
        self.model.changes(|tree| {
            let (Some(one), Some(two)) = (tree.get(path).copied(), tree.get(&other).copied()) else { return };
            tree.insert(path.to_owned(), two);
            tree.insert(other.clone(), one);
        });
        renameat_with(CWD, self.at(path), CWD, self.at(&other), RenameFlags::EXCHANGE)?;
        Ok(())
    }

    fn make_dir(&mut self) -> io::Result<()> {
        let path = self.new_name();
        self.says(format!("mkdir {path}"));
        self.model.makes_dir(&path);
        fs::create_dir(self.at(&path))
    }

    fn rename_dir(&mut self) -> io::Result<()> {
        let dirs = self.dirs();
        let Some(dir) = self.pick(&dirs[1..]) else { return Ok(()) };
        let to = self.new_name();
        if to.starts_with(&format!("{dir}/")) {
            return Ok(());
        }
        self.says(format!("rename directory {dir} to {to}"));
        self.model.renames(&dir, &to);
        fs::rename(self.at(&dir), self.at(&to))
    }

    fn remove(&mut self) -> io::Result<()> {
        let tree = self.model.tree();
        let empty = |path: &str| !tree.keys().any(|other| parent(other) == path);
        let removable: Vec<(String, Entry)> = tree
            .iter()
            .filter(|(path, entry)| matches!(entry, Entry::File { .. }) || empty(path))
            .map(|(path, entry)| (path.clone(), *entry))
            .collect();
        let Some((path, entry)) = self.pick(&removable) else { return Ok(()) };
        self.says(format!("remove {path}"));
        self.model.changes(|tree| _ = tree.remove(&path));
        match entry {
            Entry::Dir(_) => fs::remove_dir(self.at(&path)),
            Entry::File { .. } => fs::remove_file(self.at(&path)),
        }
    }
}

/// In writeback what is written goes to the disk with this, and it tells when that fails.
fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor has just been given up by its owner.
    Ok(unsafe { rustix::io::try_close(file.into_raw_fd()) }?)
}

/// Syncs what is there, and tells the first error, if any.
///
/// Behind the end of a file its last block may hold what was written there before the crash and not synced. ext4 shows
/// it after the next one, when its journal has a new size and the disk not the data of it, so it is cleared away: the
/// model knows nothing of an earlier life.
fn settle(dir: &Path, found: &BTreeMap<String, Found>) -> io::Result<()> {
    let one = |(path, what): (&String, &Found)| -> io::Result<()> {
        let path = dir.join(path);
        match what {
            Found::Dir => File::open(path)?.sync_all(),
            Found::File(content) => {
                let file = OpenOptions::new().write(true).open(path)?;
                let len = content.len() as u64;
                file.set_len(len + 1)?;
                file.set_len(len)?;
                file.sync_all()
            }
        }
    };
    found.iter().map(one).fold(File::open(dir)?.sync_all(), Result::and)
}

/// Everything below a directory.
fn look(dir: &Path) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.context("cannot list")?;
        let path = entry.path().strip_prefix(dir)?.to_str().context("a name is no text")?.to_owned();
        let what = if entry.file_type().is_dir() {
            Found::Dir
        } else {
            ensure!(entry.file_type().is_file(), "{path} is neither file nor directory");
            Found::File(fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?)
        };
        found.insert(path, what);
    }
    Ok(found)
}

//! A program that writes and reads in a directory of a mount without end, and knows what must be there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::io::Errno;

use crate::Storm;
use crate::host::Host;
use crate::model::{Content, Model};
use crate::tally::{READ_MAX, Sky};

/// Files of each kind.
const FILES: u64 = 30;
/// Bytes of a file, which are of a random magnitude between these.
const SIZES: (u32, u32) = (12, 20);
/// Bytes that one call reads.
const PIECE: usize = 128 << 10;
/// Bytes that one call changes.
const PATCH: u64 = 64 << 10;
/// The longest pause between two operations, in milliseconds.
const PAUSE: u64 = 120;
/// How long a directory that cannot be listed after a crash is tried again.
const PATIENCE: Duration = Duration::from_secs(180);

/// Hashes of all that was ever written as a whole to files that are only replaced: what others see must be one of them.
#[derive(Debug, Default)]
pub struct Written(Mutex<BTreeSet<[u8; 32]>>);

impl Written {
    fn add(&self, content: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*blake3::hash(content).as_bytes());
    }

    fn has(&self, content: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(blake3::hash(content).as_bytes())
    }
}

/// Why a call did not do what it was to do.
enum Met {
    /// The agent was killed.
    Crash,
    /// What it takes is not to be had in time.
    Unreachable,
    /// There is no such file (any more).
    Gone,
}

type Call<T> = Result<Result<T, Met>>;

/// Takes what a call gave, or ends the operation: what the model allows then was told to it before.
macro_rules! given {
    ($call:expr) => {
        match $call? {
            Ok(value) => value,
            Err(_) => return Ok(()),
        }
    };
}

/// See the module.
pub struct Work<'a> {
    storm: &'a Storm,
    host: &'a Host,
    /// Its own directory: nobody else writes there.
    dir: PathBuf,
    /// What it has written.
    written: Arc<Written>,
    /// A directory of another device that is seen here, and what is written there.
    other: Option<(PathBuf, Arc<Written>)>,
    random: ChaCha8Rng,
    kills: u64,
    /// What must be there.
    pub model: Model,
}

impl<'a> Work<'a> {
    /// One that begins with an empty directory.
    pub fn new(storm: &'a Storm, host: &'a Host, dir: PathBuf, written: Arc<Written>, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { storm, host, dir, written, other: None, random, kills: host.kills(), model: Model::new() }
    }

    /// It also reads what another device writes.
    pub fn reads_of(mut self, dir: PathBuf, written: Arc<Written>) -> Self {
        self.other = Some((dir, written));
        self
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end.max(1)
    }

    fn content(&mut self) -> Content {
        let magnitude = SIZES.0 + self.below(u64::from(SIZES.1 - SIZES.0)) as u32;
        let length = (1 << magnitude) + self.below(1 << magnitude);
        let mut content = vec![0; length as usize];
        self.random.fill_bytes(&mut content);
        Arc::new(content)
    }

    /// A name of a kind: `w` is replaced as a whole, `f` is also changed in place.
    fn name(&mut self, kind: char) -> String {
        format!("{kind}{:02}", self.below(FILES))
    }

    /// A file that is there.
    fn known(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut names = self.model.list();
        names.retain(|name| wanted(name));
        let at = self.below(names.len() as u64) as usize;
        (!names.is_empty()).then(|| names.swap_remove(at))
    }

    /// Works until it is told to stop.
    pub fn run(&mut self) -> Result<()> {
        while !self.storm.is_over() {
            self.one().with_context(|| format!("on {}", self.host.name))?;
            self.look_for_crash().with_context(|| format!("after {} was killed", self.host.name))?;
            // A pause of a program that has something else to do; nothing waits for it.
            let pause = self.below(PAUSE);
            thread::sleep(Duration::from_millis(pause));
        }
        Ok(())
    }

    fn one(&mut self) -> Result<()> {
        match self.below(20) {
            0..=2 => self.replace('w'),
            3..=4 => self.replace('f'),
            5..=7 => self.change(),
            8 => self.rename(),
            9 => self.delete(),
            10..=13 => self.read_all(),
            14..=16 => self.read_some(),
            17 => self.sync_names(),
            _ => self.read_other(),
        }
    }

    /// One call, with its time.
    fn call<T>(&mut self, kind: &'static str, what: &str, call: impl FnOnce() -> io::Result<T>) -> Call<T> {
        let began = Instant::now();
        let result = call();
        let ended = Instant::now();
        let took = ended.duration_since(began).saturating_sub(self.host.frozen(began, ended));
        let was_killed = self.host.kills() != self.kills;
        let told = || format!("{what} on {}", self.host.name);
        ensure!(
            kind != "read" || took <= READ_MAX,
            "a read of {what} took {:.1} s, and {} s is the most that it may",
            took.as_secs_f64(),
            READ_MAX.as_secs()
        );
        let error = match result {
            Ok(value) => {
                self.storm.tally.call(kind, took, &told());
                return Ok(Ok(value));
            }
            Err(_) if was_killed => return Ok(Err(Met::Crash)),
            Err(error) => error,
        };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::IO) => {
                let sky = self.storm.sky(self.host.number);
                self.storm.tally.failed(kind, sky, took, &told());
                self.storm.say(&format!("EIO  {kind} of {} after {:.1} s, {sky:?}", told(), took.as_secs_f64()));
                ensure!(sky != Sky::Clear, "EIO for {kind} of {what} while nothing is wrong");
                Ok(Err(Met::Unreachable))
            }
            Some(Errno::NOENT | Errno::STALE) => Ok(Err(Met::Gone)),
            _ => bail!("{kind} of {what}: {error}"),
        }
    }

    /// The same, of a file that must be there.
    fn sure<T>(&mut self, kind: &'static str, what: &str, call: impl FnOnce() -> io::Result<T>) -> Call<T> {
        match self.call(kind, what, call)? {
            // Its mount went away with it.
            Err(Met::Gone) if self.host.kills() != self.kills => Ok(Err(Met::Crash)),
            Err(Met::Gone) => bail!("{kind} of {what}: it is not there"),
            other => Ok(other),
        }
    }

    fn sync(&mut self, name: &str, file: &File) -> Call<()> {
        let synced = self.sure("fsync", name, || file.sync_all())?;
        if synced.is_ok() {
            self.model.synced(name);
        }
        Ok(synced)
    }

    /// The directory, with all names in it.
    fn sync_names(&mut self) -> Result<()> {
        let path = self.dir.clone();
        if self.sure("fsync", "the directory", || File::open(path)?.sync_all())?.is_ok() {
            self.model.synced_all();
        }
        Ok(())
    }

    /// As editors save: beside it, and then in its place.
    fn replace(&mut self, kind: char) -> Result<()> {
        let (name, content) = (self.name(kind), self.content());
        let beside = format!("{name}~");
        if self.model.list().contains(&beside) {
            return self.delete_this(&beside);
        }
        if kind == 'w' {
            self.written.add(&content);
        }
        let path = self.dir.join(&beside);
        self.model.creates(&beside, &content);
        let made = self.sure("create", &beside, || File::create_new(&path))?;
        let mut file = match made {
            Ok(file) => file,
            Err(Met::Crash) => return Ok(()),
            Err(Met::Unreachable | Met::Gone) => {
                self.model.refused();
                return Ok(());
            }
        };
        given!(self.sure("write", &beside, || file.write_all(&content)));
        self.model.written(&beside)?;
        if kind == 'w' || self.below(2) == 0 {
            given!(self.sync(&beside, &file));
        }
        self.move_to(&beside, &name)?;
        if self.below(3) == 0 {
            given!(self.sync(&name, &file));
        }
        Ok(())
    }

    fn move_to(&mut self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.dir.join(from), self.dir.join(to));
        self.model.renames(from, to)?;
        if let Err(Met::Unreachable) = self.sure("rename", from, || fs::rename(source, target))? {
            self.model.refused();
        }
        Ok(())
    }

    /// In place, also beyond its end.
    fn change(&mut self) -> Result<()> {
        let Some(name) = self.known(|name| name.starts_with('f') && !name.ends_with('~')) else {
            return self.replace('f');
        };
        let Some(before) = self.model.content(&name) else { return self.read_this(&name) };
        let at = self.below(before.len() as u64 + 1) as usize;
        let mut patch = vec![0; 1 + self.below(PATCH) as usize];
        self.random.fill_bytes(&mut patch);
        let mut after = before.to_vec();
        after.resize(after.len().max(at + patch.len()), 0);
        after[at..at + patch.len()].copy_from_slice(&patch);
        // One that has grown too long begins anew.
        if after.len() > 2 << SIZES.1 {
            return self.delete_this(&name);
        }
        let path = self.dir.join(&name);
        let file = given!(self.sure("open", &name, || File::options().write(true).open(path)));
        self.model.writes(&name, &Arc::new(after))?;
        given!(self.sure("write", &name, || file.write_all_at(&patch, at as u64)));
        self.model.written(&name)?;
        if self.below(2) == 0 {
            given!(self.sync(&name, &file));
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<()> {
        let Some(from) = self.known(|name| !name.ends_with('~')) else { return Ok(()) };
        let to = self.name(from.chars().next().unwrap_or('f'));
        if from == to { Ok(()) } else { self.move_to(&from, &to) }
    }

    fn delete(&mut self) -> Result<()> {
        // As many are deleted as are made anew: half of the names stand for something.
        match self.known(|name| !name.ends_with('~')) {
            Some(name) if self.model.list().len() as u64 > FILES => self.delete_this(&name),
            _ => Ok(()),
        }
    }

    fn delete_this(&mut self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        self.model.deletes(name);
        if let Err(Met::Unreachable) = self.sure("delete", name, || fs::remove_file(path))? {
            self.model.refused();
        }
        Ok(())
    }

    fn read_all(&mut self) -> Result<()> {
        match self.known(|_| true) {
            Some(name) => self.read_this(&name),
            None => Ok(()),
        }
    }

    fn read_this(&mut self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        let seen = given!(self.whole(name, &path));
        self.model.fits(name, &seen)
    }

    /// Reads a file in pieces, each of which has a deadline.
    fn whole(&mut self, name: &str, path: &Path) -> Call<Vec<u8>> {
        let file = match self.call("open", name, || File::open(path))? {
            Ok(file) => file,
            Err(met) => return Ok(Err(met)),
        };
        let mut all = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            match self.call("read", name, || file.read_at(&mut piece, all.len() as u64))? {
                Ok(0) => return Ok(Ok(all)),
                Ok(read) => all.extend_from_slice(&piece[..read]),
                Err(met) => return Ok(Err(met)),
            }
        }
    }

    fn read_some(&mut self) -> Result<()> {
        let Some(name) = self.known(|_| true) else { return Ok(()) };
        let Some(content) = self.model.content(&name) else { return self.read_this(&name) };
        let at = self.below(content.len() as u64) as usize;
        let mut piece = vec![0; PIECE];
        let path = self.dir.join(&name);
        let file = given!(self.sure("open", &name, || File::open(path)));
        let read = given!(self.sure("read", &name, || file.read_at(&mut piece, at as u64)));
        let expected = &content[at..content.len().min(at + PIECE)];
        // A read ends early only at the end, and nobody else writes here.
        ensure!(
            piece[..read] == *expected,
            "{name} holds something else at {at}: {read} bytes of {}, equal up to {:?}",
            expected.len(),
            piece[..read].iter().zip(expected).position(|(one, other)| one != other)
        );
        Ok(())
    }

    /// What another device has written must be whole, whichever version of it is seen here.
    fn read_other(&mut self) -> Result<()> {
        let Some((dir, written)) = self.other.clone() else { return self.read_some() };
        let names = given!(self.call("list", "what another device has", || list(&dir)));
        let whole: Vec<String> = names.into_iter().filter(|name| name.starts_with('w') && name.len() == 3).collect();
        let at = self.below(whole.len() as u64) as usize;
        let Some(name) = whole.get(at) else { return Ok(()) };
        let seen = given!(self.whole(name, &dir.join(name)));
        ensure!(written.has(&seen), "{name} of another device holds {} bytes that nobody has written", seen.len());
        Ok(())
    }

    /// If its agent was killed, waits until it is there again, and looks at what is left.
    pub fn look_for_crash(&mut self) -> Result<()> {
        let mut until = Instant::now() + PATIENCE;
        while self.host.kills() != self.kills {
            let kills = self.host.wait_until_up()?;
            match list(&self.dir) {
                Ok(names) if self.host.kills() == kills => {
                    self.model.crashed(&names)?;
                    self.kills = kills;
                    self.storm.tally.crash();
                }
                // Once more, before anybody could look.
                _ if self.host.kills() != kills => until = Instant::now() + PATIENCE,
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) && Instant::now() < until => {
                    thread::sleep(Duration::from_secs(1));
                }
                Err(error) => bail!("{} cannot be listed: {error}", self.dir.display()),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Reads all, here or where else it must be the same, and compares; each file may be tried so often.
    pub fn check(&mut self, dir: &Path, tries: u32) -> Result<u64> {
        let names = list(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        ensure!(names == self.model.list(), "{} has {names:?}, and not {:?}", dir.display(), self.model.list());
        for name in &names {
            let mut tried = 1;
            let seen = loop {
                match fs::read(dir.join(name)) {
                    Ok(seen) => break seen,
                    Err(error) if tried >= tries => bail!("{} cannot be read: {error}", dir.join(name).display()),
                    Err(_) => tried += 1,
                }
            };
            self.model.fits(name, &seen).with_context(|| format!("in {}", dir.display()))?;
        }
        Ok(names.len() as u64)
    }
}

/// The names in a directory, in order.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

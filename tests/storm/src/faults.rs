//! What goes wrong, as a seed has it, and how it is put right again.
//!
//! Invariant: bytes are flipped only on as many hosts as a segment can lose rows without being lost, whatever else
//! happens: everything but that comes back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use walkdir::WalkDir;

use crate::Storm;

/// Seconds between two faults at most.
const EVERY: u64 = 8;
/// A look at what is to be put right, and whether the storm is over.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that are flipped at once at most.
const FLIPS: u64 = 20;
/// A storm rests after so long,
const STORM: Duration = Duration::from_secs(100);
/// for so long.
const LULL: Duration = Duration::from_secs(80);

/// How something is put right.
#[derive(Debug)]
enum Undo {
    Start(usize),
    Thaw(usize),
    Heal(Vec<usize>, Vec<usize>),
    Empty(usize, PathBuf),
}

/// See the module.
pub struct Faults<'a> {
    storm: &'a Storm,
    random: ChaCha8Rng,
    undo: Vec<(Instant, Undo)>,
}

impl<'a> Faults<'a> {
    /// The faults of a seed.
    pub fn new(storm: &'a Storm, seed: u64) -> Self {
        Self { storm, random: ChaCha8Rng::seed_from_u64(seed), undo: Vec::new() }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.random.next_u64() % end.max(1) as u64) as usize
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1_000 + self.random.next_u64() % ((to - from) * 1_000))
    }

    fn one_of(&mut self, hosts: &[usize]) -> Option<usize> {
        let at = self.below(hosts.len());
        hosts.get(at).copied()
    }

    /// Brings faults about until the storm is over, and puts all right. `in_lull` is called whenever all has been right
    /// for a while.
    pub fn run(&mut self, in_lull: &dyn Fn() -> Result<()>) -> Result<()> {
        let (mut began, mut next) = (Instant::now(), Instant::now());
        while !self.storm.is_over() {
            self.put_right(Instant::now())?;
            self.storm.hosts.iter().try_for_each(|host| host.look())?;
            if began.elapsed() > STORM {
                self.put_all_right()?;
                self.storm.say("lull");
                let until = Instant::now() + LULL;
                while Instant::now() < until && !self.storm.is_over() {
                    thread::sleep(TICK);
                }
                if self.storm.is_over() {
                    break;
                }
                in_lull()?;
                (began, next) = (Instant::now(), Instant::now());
            }
            if Instant::now() >= next {
                self.bring_about()?;
                next = Instant::now() + self.seconds(0, EVERY);
            }
            thread::sleep(TICK);
        }
        self.put_all_right()
    }

    fn put_all_right(&mut self) -> Result<()> {
        let latest = self.undo.iter().map(|(due, _)| *due).max();
        latest.map_or(Ok(()), |due| self.put_right(due))
    }

    fn put_right(&mut self, now: Instant) -> Result<()> {
        let (due, rest) = self.undo.drain(..).partition(|(due, _)| *due <= now);
        self.undo = rest;
        let mut due: Vec<(Instant, Undo)> = due;
        due.sort_by_key(|(due, _)| *due);
        due.into_iter().try_for_each(|(_, undo)| self.undo(undo))
    }

    fn undo(&mut self, undo: Undo) -> Result<()> {
        let (storm, weather) = (self.storm, &self.storm.weather);
        match undo {
            Undo::Start(host) => {
                storm.hosts[host].up()?;
                weather.betters(&[host]);
            }
            Undo::Thaw(host) => {
                storm.hosts[host].thaw()?;
                weather.betters(&[host]);
            }
            Undo::Heal(some, others) => {
                storm.switch.heal(&some, &others);
                weather.betters(&some);
            }
            Undo::Empty(host, path) => {
                fs::remove_file(path).context("cannot empty a disk")?;
                weather.betters(&[host]);
            }
        }
        Ok(())
    }

    fn later(&mut self, from: u64, to: u64, undo: Undo) {
        let due = Instant::now() + self.seconds(from, to);
        self.undo.push((due, undo));
    }

    /// Hosts that nothing is wrong with.
    fn well(&self, hosts: &[usize]) -> Vec<usize> {
        hosts.iter().copied().filter(|host| !self.storm.weather.is_away(*host)).collect()
    }

    fn bring_about(&mut self) -> Result<()> {
        let storm = self.storm;
        let donors = self.well(&storm.donors);
        let away = storm.donors.len() - donors.len();
        // Mostly no more are away than may be: what is asked for then must come.
        let may = away + storm.rotten.len() < storm.spare;
        match self.below(20) {
            0..=5 if may => self.kill(&donors),
            6 => {
                let owners = self.well(&storm.owners);
                self.kill(&owners)
            }
            7..=9 if may => self.freeze(&donors),
            10 => {
                let owners = self.well(&storm.owners);
                self.freeze(&owners)
            }
            11..=13 if may => self.cut_one(),
            14 => self.cut_half(),
            15..=16 => self.fill(),
            17..=18 => self.flip(),
            _ => Ok(()),
        }
    }

    fn kill(&mut self, hosts: &[usize]) -> Result<()> {
        let Some(host) = self.one_of(hosts) else { return Ok(()) };
        self.happens(
            if self.storm.owners.contains(&host) { "kill -9 of a device" } else { "kill -9 of a donor" },
            &[host],
        );
        self.storm.hosts[host].kill()?;
        self.later(1, 15, Undo::Start(host));
        Ok(())
    }

    fn freeze(&mut self, hosts: &[usize]) -> Result<()> {
        let Some(host) = self.one_of(hosts) else { return Ok(()) };
        self.happens("SIGSTOP for 1 to 20 s", &[host]);
        self.storm.hosts[host].freeze()?;
        self.later(1, 20, Undo::Thaw(host));
        Ok(())
    }

    fn cut_one(&mut self) -> Result<()> {
        let hosts = self.well(&[self.storm.donors.as_slice(), &self.storm.owners].concat());
        let Some(one) = self.one_of(&hosts) else { return Ok(()) };
        let others = (0..self.storm.hosts.len()).filter(|host| *host != one).collect();
        self.cut("partition of one host", vec![one], others, 40)
    }

    fn cut_half(&mut self) -> Result<()> {
        if self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Heal(some, _) if some.len() > 1)) {
            return Ok(());
        }
        let (some, others): (Vec<usize>, Vec<usize>) = (0..self.storm.hosts.len()).partition(|_| self.below(2) == 0);
        self.cut("partition into halves", some, others, 25)
    }

    fn cut(&mut self, kind: &'static str, some: Vec<usize>, others: Vec<usize>, seconds: u64) -> Result<()> {
        self.happens(kind, &some);
        self.storm.switch.cut(&some, &others);
        self.later(3, seconds, Undo::Heal(some, others));
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        // One that is full already is not well.
        let mut hosts = self.well(&self.storm.donors);
        hosts.retain(|host| self.storm.hosts[*host].disk.is_some());
        let Some(host) = self.one_of(&hosts) else { return Ok(()) };
        let Some(disk) = &self.storm.hosts[host].disk else { return Ok(()) };
        self.happens("disk of a donor full", &[host]);
        let filler = disk.fill()?;
        self.later(15, 60, Undo::Empty(host, filler));
        Ok(())
    }

    /// In what a donor keeps for others, behind its back.
    fn flip(&mut self) -> Result<()> {
        let Some(host) = self.one_of(&self.storm.rotten) else { return Ok(()) };
        let packs = WalkDir::new(self.storm.hosts[host].home.join("donated/packs")).sort_by_file_name();
        let files: Vec<(PathBuf, u64)> = packs
            .into_iter()
            .filter_map(|found| found.ok())
            .filter_map(|found| Some((found.path().to_path_buf(), found.metadata().ok()?)))
            .filter(|(_, meta)| meta.is_file() && meta.len() > 0)
            .map(|(path, meta)| (path, meta.len()))
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        self.storm.tally.fault("bytes flipped");
        self.storm.say(&format!("bytes flipped: {}", self.storm.hosts[host].name));
        for _ in 0..=self.below(FLIPS as usize) {
            let (path, len) = &files[self.below(files.len())];
            let at = self.random.next_u64() % len;
            let file = File::options().read(true).write(true).open(path).context("cannot open a pack")?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).context("cannot read a pack")?;
            file.write_all_at(&[byte[0] ^ (1 << self.below(8))], at).context("cannot change a pack")?;
        }
        Ok(())
    }

    fn happens(&mut self, kind: &'static str, hosts: &[usize]) {
        self.storm.tally.fault(kind);
        self.storm.weather.worsens(hosts);
        let names: Vec<&str> = hosts.iter().map(|host| self.storm.hosts[*host].name.as_str()).collect();
        self.storm.say(&format!("{kind}: {}", names.join(" ")));
    }
}

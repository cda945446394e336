//! Crashes: writers change their directories at random; at a random moment the agent is killed, or its disk fails it;
//! it starts again; what is there is compared with what may be.

mod model;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypernet_kit::{Agent, Disk, Fault, FaultyDisk, PowerCut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Mounted, Profile};
use writer::Writer;

/// Directories that are written to at once.
const WRITERS: u64 = 3;
/// The longest time from the first write to the crash.
const LIFE_MAX: Duration = Duration::from_millis(600);
/// The size of a disk whose power is cut.
const DISK: u64 = 2 << 30;

/// The longest time from when a disk begins to fail to the crash.
const FAILING_MAX: Duration = Duration::from_millis(400);
/// The most room that a disk has left when it fills up.
const ROOM_MAX: u64 = 1 << 20;

/// What happens to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Crash {
    /// kill -9: what the agent handed to the kernel stays.
    Kill,
    /// The power of the ext4 that it lives on is cut: what it did not sync is gone. Needs root.
    Power,
    /// The power of a disk is cut that tears: of what was not synced, any sectors are there. Needs root.
    Torn,
    /// Its disk is full; then it is killed, or the power is cut, or there is room again. Needs root.
    Full,
    /// Some calls to its disk fail; then it is killed, or the power is cut, or they do not fail any more. Needs root.
    Faults,
}

/// How a disk that failed it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Cut,
    /// All is well again, and nothing is started anew.
    LivesOn,
}

/// What the agent lives on.
enum Ground {
    Tmp,
    Ext4(Disk),
    Faulty(FaultyDisk),
}

impl Ground {
    fn new(crash: Crash, seed: u64) -> Result<Self> {
        Ok(match crash {
            Crash::Kill => Self::Tmp,
            Crash::Power => Self::Ext4(Disk::new(DISK)?),
            Crash::Torn | Crash::Full | Crash::Faults => Self::Faulty(FaultyDisk::new(seed)?),
        })
    }

    fn disk(&self) -> Option<&dyn PowerCut> {
        match self {
            Self::Tmp => None,
            Self::Ext4(disk) => Some(disk),
            Self::Faulty(disk) => Some(disk),
        }
    }

    /// What a round does to the disk before its end.
    fn fail(&self, crash: Crash, random: &mut ChaCha8Rng) -> Result<()> {
        let Self::Faulty(disk) = self else { return Ok(()) };
        match crash {
            Crash::Full => disk.fill(Some(random.next_u64() % ROOM_MAX)),
            Crash::Faults => {
                let fault = Fault::ALL[(random.next_u64() % 4) as usize];
                disk.fail(fault, [30, 300, 1000][(random.next_u64() % 3) as usize])
            }
            Crash::Kill | Crash::Power | Crash::Torn => Ok(()),
        }
    }

    fn heal(&self) -> Result<()> {
        let Self::Faulty(disk) = self else { return Ok(()) };
        disk.fill(None)?;
        disk.heal().map(drop)
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Crashes.
    pub rounds: u64,
    /// Calls that went well before them.
    pub calls: u64,
}

/// Runs rounds of it, each on what the one before left. `after` is told of each.
///
/// # Errors
///
/// The first state that no crash may leave, with the round in which it was found.
pub fn run(crash: Crash, profile: Profile, rounds: u64, seed: u64, mut after: impl FnMut(&Summary)) -> Result<Summary> {
    let ground = Ground::new(crash, seed)?;
    let agent = match ground.disk() {
        None => Agent::empty()?,
        Some(disk) => Agent::empty_at(disk.path().join("home"))?,
    };
    agent.hn(["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1"])?.ok()?;
    let mounted = Mounted::with(agent, profile)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let falling = Arc::new(AtomicBool::new(false));
    let mut writers = (0..WRITERS)
        .map(|number| Writer::new(mounted.path().join(format!("w{number}")), random.next_u64(), falling.clone()))
        .collect::<Result<Vec<_>>>()?;
    let mut summary = Summary::default();
    for round in 0..rounds {
        let told = || format!("round {round} of seed {seed}, {} mount, {crash:?}", profile.name());
        let calls = one(crash, &mounted, &ground, &falling, &mut writers, &mut random).with_context(told)?;
        summary.calls += calls;
        summary.rounds += 1;
        after(&summary);
    }
    mounted.agent.down()?;
    Ok(summary)
}

fn part(of: Duration, random: &mut ChaCha8Rng) -> Duration {
    of.mul_f64((random.next_u64() % 1000) as f64 / 1000.0)
}

/// One crash, and a look at what it left.
fn one(
    crash: Crash,
    mounted: &Mounted,
    ground: &Ground,
    falling: &AtomicBool,
    writers: &mut [Writer],
    random: &mut ChaCha8Rng,
) -> Result<u64> {
    let pid = mounted.agent.status()?["pid"].as_u64().context("the status names no process")?;
    let (life, failing) = (part(LIFE_MAX, random), part(FAILING_MAX, random));
    let fails = matches!(crash, Crash::Full | Crash::Faults);
    let end = match crash {
        Crash::Kill => End::Kill,
        Crash::Power | Crash::Torn => End::Cut,
        Crash::Full | Crash::Faults => [End::Kill, End::Cut, End::LivesOn][(random.next_u64() % 3) as usize],
    };
    let ended = thread::scope(|scope| -> Result<Vec<_>> {
        let running: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run())).collect();
        thread::sleep(life);
        let early = running.iter().any(thread::ScopedJoinHandle::is_finished);
        let ran = ground.fail(crash, random).and_then(|()| {
            if fails {
                thread::sleep(failing);
            }
            bring(end, mounted, ground, falling, pid)
        });
        // Whatever became of the agent, its writers must come to an end for this to return.
        falling.store(true, Ordering::SeqCst);
        let ended: Vec<_> = running.into_iter().map(|writer| writer.join().expect("a writer panicked")).collect();
        ran?;
        ensure!(!early, "a call failed before the crash: {ended:?}");
        Ok(ended)
    })?;
    for (_, error) in &ended {
        ensure!(is_of_a_crash(error, crash), "the crash was met as: {error}");
    }
    if end == End::Cut
        && let Some(disk) = ground.disk()
    {
        detach(&mounted.path())?;
        disk.restore()?;
    }
    ground.heal()?;
    falling.store(false, Ordering::SeqCst);
    if end != End::LivesOn {
        let started = Instant::now();
        mounted.up()?;
        ensure!(started.elapsed() < Duration::from_secs(60), "it took {:?} to start", started.elapsed());
    }
    mounted.agent.hn(["fsck"])?.ok().with_context(|| format!("the tree is damaged, {end:?}"))?;
    writers.iter_mut().try_for_each(Writer::check).with_context(|| format!("{end:?}"))?;
    Ok(ended.iter().map(|(calls, _)| calls).sum())
}

fn bring(end: End, mounted: &Mounted, ground: &Ground, falling: &AtomicBool, pid: u64) -> Result<()> {
    match (end, ground.disk()) {
        (End::LivesOn, _) => Ok(()),
        (End::Cut, Some(disk)) => {
            falling.store(true, Ordering::SeqCst);
            disk.cut()?;
            mounted.agent.kill_process(pid)
        }
        (End::Kill | End::Cut, _) => mounted.agent.kill_process(pid),
    }
}

/// The dead mount holds files of the disk open.
fn detach(mount: &Path) -> Result<()> {
    hypernet_kit::hn::run(std::process::Command::new("umount").arg("-l").arg(mount))?.ok().map(drop)
}

/// What a program meets whose filesystem went away, or has no room.
fn is_of_a_crash(error: &std::io::Error, crash: Crash) -> bool {
    use rustix::io::Errno;
    let known = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO, Errno::ROFS];
    let full = (crash == Crash::Full).then_some(Errno::NOSPC);
    let mut known = known.into_iter().chain(full);
    error.raw_os_error().is_some_and(|number| known.any(|errno| errno.raw_os_error() == number))
}

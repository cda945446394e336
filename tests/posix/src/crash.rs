//! Crashes: writers change their directories at random; at a random moment the agent is killed, or the power of its
//! disk is cut; it starts again; what is there is compared with what may be.

mod model;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypernet_kit::{Agent, Disk};
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

/// What happens to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Crash {
    /// kill -9: what the agent handed to the kernel stays.
    Kill,
    /// The power of the disk that it lives on is cut: what it did not sync is gone. Needs root.
    Power,
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
    let disk = (crash == Crash::Power).then(|| Disk::new(DISK)).transpose()?;
    let agent = match &disk {
        None => Agent::empty()?,
        Some(disk) => Agent::empty_at(disk.path().join("home"))?,
    };
    agent.hn(["init", "--no-mdns", "--listen", "127.0.0.1"])?.ok()?;
    let mounted = Mounted::with(agent, profile)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let falling = Arc::new(AtomicBool::new(false));
    let mut writers = (0..WRITERS)
        .map(|number| Writer::new(mounted.path().join(format!("w{number}")), random.next_u64(), falling.clone()))
        .collect::<Result<Vec<_>>>()?;
    let mut summary = Summary::default();
    for round in 0..rounds {
        let life = LIFE_MAX.mul_f64((random.next_u64() % 1000) as f64 / 1000.0);
        let told = || format!("round {round} of seed {seed}, {} mount, {crash:?}", profile.name());
        summary.calls += one(&mounted, disk.as_ref(), &falling, &mut writers, life).with_context(told)?;
        summary.rounds += 1;
        after(&summary);
    }
    mounted.agent.down()?;
    Ok(summary)
}

/// One crash, and a look at what it left.
fn one(
    mounted: &Mounted,
    disk: Option<&Disk>,
    falling: &AtomicBool,
    writers: &mut [Writer],
    life: Duration,
) -> Result<u64> {
    let pid = mounted.agent.status()?["pid"].as_u64().context("the status names no process")?;
    let ended = thread::scope(|scope| -> Result<Vec<_>> {
        let running: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run())).collect();
        thread::sleep(life);
        let early = running.iter().any(thread::ScopedJoinHandle::is_finished);
        let killed = match disk {
            None => mounted.agent.kill_process(pid),
            Some(disk) => {
                falling.store(true, Ordering::SeqCst);
                disk.cut().and_then(|()| mounted.agent.kill_process(pid))
            }
        };
        // Whatever became of the agent, its writers must come to an end for this to return.
        let ended: Vec<_> = running.into_iter().map(|writer| writer.join().expect("a writer panicked")).collect();
        killed?;
        ensure!(!early, "a call failed before the crash: {ended:?}");
        Ok(ended)
    })?;
    for (_, error) in &ended {
        ensure!(is_of_a_crash(error), "the crash was met as: {error}");
    }
    if let Some(disk) = disk {
        detach(&mounted.path())?;
        disk.restore()?;
        falling.store(false, Ordering::SeqCst);
    }
    let started = Instant::now();
    mounted.up()?;
    ensure!(started.elapsed() < Duration::from_secs(60), "it took {:?} to start", started.elapsed());
    mounted.agent.hn(["fsck"])?.ok().context("the tree is damaged")?;
    writers.iter_mut().try_for_each(Writer::check)?;
    Ok(ended.iter().map(|(calls, _)| calls).sum())
}

/// The dead mount holds files of the disk open.
fn detach(mount: &Path) -> Result<()> {
    hypernet_kit::hn::run(std::process::Command::new("umount").arg("-l").arg(mount))?.ok().map(drop)
}

/// What a program meets whose filesystem went away.
fn is_of_a_crash(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let known = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO, Errno::ROFS];
    error.raw_os_error().is_some_and(|number| known.iter().any(|errno| errno.raw_os_error() == number))
}

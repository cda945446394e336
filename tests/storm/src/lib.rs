//! A storm: agents as processes in networks of their own, at work while everything goes wrong that goes wrong at home.
//!
//! - [`inside`]: where nothing leaves, and nothing is left;
//! - [`network`], [`switch`]: hosts, some behind routers, and the internet between them, which delays, loses and parts;
//! - [`host`]: an agent on a host, which is killed and frozen;
//! - [`faults`], [`weather`]: what goes wrong, and what is wrong now;
//! - [`work`], [`model`]: programs that write and read, and what must be there;
//! - [`tally`]: what it came to.
//!
//! Two devices of one person, a device of another one, and donors. When it is over, all is put right: then every file that
//! was acknowledged must be there, on both devices alike, read from the mesh alone, and on a device that knows only the
//! words.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod faults;
pub mod host;
pub mod inside;
pub mod model;
pub mod network;
pub mod switch;
pub mod tally;
pub mod weather;
pub mod work;

mod end;
mod setup;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::faults::Faults;
use crate::host::Host;
use crate::switch::Switch;
use crate::tally::{Sky, Tally};
use crate::weather::Weather;
use crate::work::{Work, Written};

/// How often a device brings all that it has to the mesh, in seconds at most.
const SYNC_EVERY: u64 = 8;
/// Every so many syncs its local copies are dropped.
const DROP_EVERY: u64 = 4;
/// How long a sync may take in a storm, in seconds; one that takes longer is given up.
const SYNC_WITHIN: u64 = 120;
/// The same when all has been right for a while.
const CALM_SYNC_WITHIN: u64 = 300;

/// How often it is looked whether it is over.
const TICK: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of everything that is random.
    pub seed: u64,
    /// Hosts that only store.
    pub donors: usize,
    /// How long faults are brought about.
    pub length: Duration,
}

/// All that takes part.
pub struct Storm {
    /// By number: donors, then devices, then one that is used in the end.
    pub hosts: Vec<Host>,
    /// Hosts that only store.
    pub donors: Vec<usize>,
    /// Hosts with a mount: two devices of one person, and one of another.
    pub owners: Vec<usize>,
    /// Donors whose bytes may be flipped.
    pub rotten: Vec<usize>,
    /// Donors that may be gone at once.
    pub spare: usize,
    /// The network.
    pub switch: Switch,
    /// What is wrong.
    pub weather: Weather,
    /// What it came to.
    pub tally: Tally,
    began: Instant,
    over: AtomicBool,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl Storm {
    /// Whether all are to stop.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How it is now for a device.
    pub fn sky(&self, device: usize) -> Sky {
        self.weather.sky(device, &self.donors, self.spare.saturating_sub(self.rotten.len()))
    }

    /// Tells somebody what happens.
    pub fn say(&self, what: &str) {
        (self.tell)(&format!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64()));
    }
}

/// Runs a storm to its end, in this directory. `tell` is told what happens.
///
/// # Errors
///
/// The first promise that was broken, and what the agents logged about it.
pub fn run(settings: Settings, work: &Path, tell: Box<dyn Fn(&str) + Send + Sync>) -> Result<Tally> {
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let storm = setup::storm(settings, work, &mut random, tell)?;
    let ran = through(&storm, settings, &mut random);
    storm.tally.carried(storm.switch.carried());
    storm.tally.figure("segments mended", storm.hosts.iter().map(Host::mended).sum());
    storm.tally.figure("seconds in all", storm.began.elapsed().as_secs());
    match ran {
        Ok(()) => Ok(storm.tally),
        Err(error) => {
            storm.say(&format!("what there was until then:\n{}", storm.tally));
            for host in &storm.hosts {
                host.complaints(6).iter().for_each(|line| storm.say(&format!("{}: {line}", host.name)));
            }
            Err(error.context(format!("the storm of seed {} broke something", settings.seed)))
        }
    }
}

fn through(storm: &Storm, settings: Settings, random: &mut ChaCha8Rng) -> Result<()> {
    let dirs = setup::directories(storm)?;
    let written: Vec<Arc<Written>> = dirs.iter().map(|_| Arc::default()).collect();
    let mut works = Vec::new();
    for (at, owner) in storm.owners.iter().enumerate() {
        let host = &storm.hosts[*owner];
        let work = Work::new(storm, host, dirs[at].clone(), written[at].clone(), random.next_u64());
        // The first two are one person's, and see what the other one does.
        works.push(match (at, host.mount.as_ref()) {
            (0 | 1, Some(mount)) => work.reads_of(mount.join(setup::DIRECTORIES[1 - at]), written[1 - at].clone()),
            _ => work,
        });
    }
    let seeds: Vec<u64> = storm.owners.iter().map(|_| random.next_u64()).collect();
    let mut faults = Faults::new(storm, random.next_u64());
    storm.say("the storm begins");
    let until = Instant::now() + settings.length;
    thread::scope(|scope| {
        let mut running = Vec::new();
        for work in &mut works {
            running.push(scope.spawn(move || ends(storm, work.run())));
        }
        for (owner, seed) in storm.owners.iter().zip(seeds) {
            running.push(scope.spawn(move || ends(storm, sync_on(storm, &storm.hosts[*owner], seed))));
        }
        running.push(scope.spawn(|| ends(storm, faults.run(&|| calm(storm)))));
        let mut stall = Duration::ZERO;
        while !storm.is_over() && Instant::now() < until {
            let before = Instant::now();
            thread::sleep(TICK);
            stall = stall.max(before.elapsed().saturating_sub(TICK));
        }
        storm.tally.figure("longest time this process got no turn, in ms", stall.as_millis() as u64);
        storm.over.store(true, Ordering::Relaxed);
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    })?;
    storm.say("all is put right");
    end::check(storm, &mut works)
}

/// Whoever fails ends it for all.
fn ends(storm: &Storm, result: Result<()>) -> Result<()> {
    if let Err(error) = &result {
        storm.say(&format!("FAIL {error:#}"));
        storm.over.store(true, Ordering::Relaxed);
    }
    result
}

/// Brings what a device has to the mesh, again and again, and drops its local copies.
fn sync_on(storm: &Storm, host: &Host, seed: u64) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut round = 0;
    while !storm.is_over() {
        let until = Instant::now() + Duration::from_millis(1_000 + random.next_u64() % (SYNC_EVERY * 1_000));
        while Instant::now() < until && !storm.is_over() {
            thread::sleep(TICK);
        }
        round += 1;
        for (kind, args) in [("hn sync", ["sync"].as_slice()), ("hn cache drop", &["cache", "drop"])] {
            if kind == "hn cache drop" && round % DROP_EVERY != 0 || storm.is_over() {
                continue;
            }
            let began = Instant::now();
            let ran = host.hn_within(SYNC_WITHIN, args, None)?;
            // Whether it may fail now is looked at in lulls and in the end.
            match ran.code {
                Some(0) => storm.tally.call(kind, began.elapsed(), &host.name),
                _ => {
                    storm.tally.failed(kind, storm.sky(host.number), began.elapsed(), &host.name);
                    let why = ran.stderr.lines().next().unwrap_or("it was given up");
                    storm.say(&format!("{kind} on {} after {:.0} s: {why}", host.name, began.elapsed().as_secs_f64()));
                }
            }
        }
    }
    Ok(())
}

/// Nothing has been wrong for a while: all can be brought to the mesh, and all is there.
fn calm(storm: &Storm) -> Result<()> {
    for owner in &storm.owners {
        let host = &storm.hosts[*owner];
        host.hn_within(CALM_SYNC_WITHIN, &["sync"], None)?.ok()?;
        end::verify(storm, host)?;
    }
    Ok(())
}

//! The power of all storage peers fails at once, while an agent uploads to them.
//!
//! The agent is killed first: what it has heard by then is what was acknowledged, and its index names a holder for each
//! such shard. Then the disk that all peers are on loses what was not synced, or tears it. When they are back, they must
//! have every shard that the index says they have.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hypernet_kit::{Agent, Disk, FaultyDisk, Mesh, PowerCut};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Mounted, Profile};

/// Storage peers, all on one disk.
const PEERS: u32 = 4;
/// The size of that disk.
const DISK: u64 = 16 << 30;
/// The longest time from the first write to the outage.
const LIFE_MAX: Duration = Duration::from_millis(1500);
/// Bytes of a file at most.
const SIZE_MAX: u64 = 600 << 10;
/// The same once so many were written in a round.
const SMALL_AFTER: u64 = 24 << 20;
const SMALL_MAX: u64 = 4 << 10;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Outages.
    pub rounds: u64,
    /// Shards that were looked for after them, and were there.
    pub shards: u64,
    /// Files that were read back from the peers alone.
    pub files: u64,
}

/// The disk that all peers are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Ground {
    /// An ext4: what was not synced is gone.
    Ext4,
    /// One that tears: of what was not synced, any sectors are there.
    Torn,
}

/// Runs rounds of it, each on what the one before left. `after` is told of each.
///
/// # Errors
///
/// The first shard or file that is gone, with the round in which it was found.
pub fn run(
    ground: Ground,
    profile: Profile,
    rounds: u64,
    seed: u64,
    mut after: impl FnMut(&Summary),
) -> Result<Summary> {
    let disk: Box<dyn PowerCut> = match ground {
        Ground::Ext4 => Box::new(Disk::new(DISK)?),
        Ground::Torn => Box::new(FaultyDisk::new(seed)?),
    };
    let mesh = Mesh::within(&disk.path(), PEERS)?;
    let mounted = Mounted::with(Agent::on(&mesh)?, profile)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut summary = Summary::default();
    for round in 0..rounds {
        let told = || format!("round {round} of seed {seed}, {} mount, {ground:?} outage", profile.name());
        one(&*disk, &mesh, &mounted, round, &mut random, &mut summary).with_context(told)?;
        summary.rounds += 1;
        after(&summary);
    }
    Ok(summary)
}

/// One outage, and a look at what it left.
fn one(
    disk: &dyn PowerCut,
    mesh: &Mesh,
    mounted: &Mounted,
    round: u64,
    random: &mut ChaCha8Rng,
    summary: &mut Summary,
) -> Result<()> {
    mounted.agent.wait_for_peers(PEERS)?;
    let agent = mounted.agent.status()?["pid"].as_u64().context("the status names no process")?;
    let status = mesh.status()?;
    let peers = status["peers"].as_array().context("the mesh names no peers")?;
    let peers: Vec<u64> = peers.iter().filter_map(|peer| peer["pid"].as_u64()).collect();
    ensure!(peers.len() == PEERS as usize, "not all peers run: {status}");
    let dir = mounted.path().join(format!("round {round}"));
    fs::create_dir(&dir)?;
    let life = LIFE_MAX.mul_f64((random.next_u64() % 1000) as f64 / 1000.0);
    let seed = random.next_u64();
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&dir, seed));
        // Until the agent is gone.
        let syncs = scope.spawn(|| while mounted.agent.sync().is_ok() {});
        thread::sleep(life);
        let killed = mounted.agent.kill_process(agent);
        let written = writer.join().expect("the writer panicked");
        syncs.join().expect("the thread that syncs panicked");
        killed.map(|()| written)
    })?;
    disk.cut()?;
    peers.into_iter().try_for_each(|pid| mounted.agent.kill_process(pid))?;
    disk.restore()?;
    mesh.revive()?;
    mounted.up()?;
    mounted.agent.wait_for_peers(PEERS)?;
    let report = mounted.agent.json(["fsck", "--verify"]).context("what was acknowledged is gone")?;
    summary.shards += report["shards"].as_u64().context("the report counts no shards")?;
    mounted.agent.sync()?;
    mounted.agent.json(["cache", "drop"])?;
    for (path, content) in &written {
        ensure!(fs::read(path)? == *content, "{} is not what it was", path.display());
        summary.files += 1;
    }
    Ok(())
}

/// Writes files until that fails, and gives those that were synced.
fn write(dir: &Path, seed: u64) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut written = BTreeMap::new();
    let mut total = 0;
    loop {
        let most = if total < SMALL_AFTER { SIZE_MAX } else { SMALL_MAX };
        let path = dir.join(written.len().to_string());
        let mut content = vec![0; usize::try_from(random.next_u64() % most).unwrap_or(0)];
        total += content.len() as u64;
        random.fill_bytes(&mut content);
        let synced = File::create(&path).and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()
        });
        if synced.is_err() {
            return written;
        }
        written.insert(path, content);
    }
}

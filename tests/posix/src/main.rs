//! The long runs of what `tests/` shows in short. Each takes a seed and a length, and prints what it came to.
#![expect(clippy::print_stdout, reason = "it prints what it came to")]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use hypernet_posix::crash::{self, Crash};
use hypernet_posix::outage::{self, Ground};
use hypernet_posix::pressed::{Pressed, RARELY};
use hypernet_posix::{Mounted, Profile, suite};
use hypernet_posix::{crowd, million};
use indicatif::{ProgressBar, ProgressStyle};

/// Long runs against real mounts.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// Kill the agent, or have its disk fail it, under random writers, and compare.
    Crash {
        /// What happens to the agent.
        #[arg(value_enum)]
        crash: Crash,
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Profile,
        /// Crashes.
        #[arg(long, default_value_t = 1000)]
        rounds: u64,
        /// Of everything that is random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Cut the power of all storage peers under an agent that uploads, and compare. Needs root.
    Outage {
        /// The disk that the peers are on.
        #[arg(value_enum)]
        ground: Ground,
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Profile,
        /// Outages.
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        /// Of everything that is random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// fsx with all that it can do.
    Fsx(Fsx),
    /// fsx on a file that is larger than the local cache, with peers that it is fetched back from.
    Pressed(Fsx),
    /// One directory with very many entries: what each costs.
    Crowd {
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Profile,
        /// Entries.
        #[arg(long, default_value_t = 1_000_000)]
        entries: u64,
    },
    /// A tree of very many files: the agent's memory for each, and a start over all.
    Million {
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Profile,
        /// Files.
        #[arg(long, default_value_t = 1_000_000)]
        files: u64,
    },
    /// pjdfstest, as root.
    Pjdfstest {
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Profile,
    },
}

/// Runs of fsx.
#[derive(Args)]
struct Fsx {
    /// How it is mounted.
    #[arg(value_enum)]
    profile: Profile,
    /// Operations of each seed.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after another.
    #[arg(long, default_value_t = 8)]
    seeds: u64,
}

fn bar(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}  {elapsed} so far, {eta} to go");
    ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what.to_owned())
}

/// A line of the result, above the bar: `println` of a bar prints nothing where there is no terminal.
fn tell(bar: &ProgressBar, text: &str) {
    bar.suspend(|| println!("{text}"));
}

fn main() -> Result<()> {
    match Cli::parse().run {
        Run::Crash { crash, profile, rounds, seed } => {
            let bar = bar(rounds, "crashes");
            let summary = crash::run(crash, profile, rounds, seed, |summary| bar.set_position(summary.rounds))?;
            bar.finish_and_clear();
            println!(
                "{crash:?}, {}: {} crashes after {} calls, seed {seed}: nothing synced was lost, fsck found nothing",
                profile.name(),
                summary.rounds,
                summary.calls
            );
        }
        Run::Outage { ground, profile, rounds, seed } => {
            let bar = bar(rounds, "outages");
            let summary = outage::run(ground, profile, rounds, seed, |summary| bar.set_position(summary.rounds))?;
            bar.finish_and_clear();
            println!(
                "{ground:?} outage, {}: {} of all peers at once, seed {seed}: all {} shards looked for were there, and {} files read back",
                profile.name(),
                summary.rounds,
                summary.shards,
                summary.files
            );
        }
        Run::Fsx(Fsx { profile, operations, seed, seeds }) => {
            let mounted = Mounted::new(profile)?;
            let bar = bar(seeds, "seeds");
            let artifacts = PathBuf::from("fsx-artifacts");
            for seed in seed..seed + seeds {
                suite::fsx(&mounted, seed, operations, &artifacts)?;
                tell(
                    &bar,
                    &format!("fsx, {}: seed {seed}, {operations} operations: all well", mounted.profile().name()),
                );
                bar.inc(1);
            }
        }
        Run::Pressed(Fsx { profile, operations, seed, seeds }) => {
            let pressed = Pressed::new(profile)?;
            let bar = bar(seeds, "seeds");
            let artifacts = PathBuf::from("fsx-artifacts");
            for seed in seed..seed + seeds {
                let closed = pressed.fsx(seed, operations, RARELY, &artifacts)?;
                let text = format!(
                    "fsx, {}, a cache of a quarter of its file: seed {seed}, {operations} operations: all well; closed {} times \
                     and evicted {} times",
                    profile.name(),
                    closed.times,
                    closed.evicted
                );
                tell(&bar, &text);
                bar.inc(1);
            }
        }
        Run::Crowd { profile, entries } => {
            let mounted = Mounted::new(profile)?;
            let costs = crowd::run(&mounted, entries)?;
            println!(
                "one directory, {}: {entries} entries; for each of the first and of the last tenth",
                profile.name()
            );
            costs.iter().for_each(|cost| println!("  {cost}"));
        }
        Run::Million { profile, files } => {
            let mounted = Mounted::new(profile)?;
            println!("a tree, {}: {}", profile.name(), million::run(&mounted, files)?);
        }
        Run::Pjdfstest { profile } => {
            let mounted = Mounted::new(profile)?;
            suite::pjdfstest(&mounted)?;
            println!("pjdfstest, {}: all pass but {:?}", mounted.profile().name(), suite::SKIPPED);
        }
    }
    Ok(())
}

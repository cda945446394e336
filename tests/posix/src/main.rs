//! The long runs of what `tests/` shows in short. Each takes a seed and a length, and prints what it came to.
#![expect(clippy::print_stdout, reason = "it prints what it came to")]

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use hypernet_posix::crash::{self, Crash};
use hypernet_posix::{Mounted, Profile, suite};
use indicatif::{ProgressBar, ProgressStyle};

/// Long runs against real mounts.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// Kill the agent, or cut the power of its disk, under random writers, and compare.
    Crash {
        /// What happens to the agent.
        #[arg(value_enum)]
        crash: How,
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Kind,
        /// Crashes.
        #[arg(long, default_value_t = 1000)]
        rounds: u64,
        /// Of everything that is random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// fsx with all that it can do.
    Fsx {
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Kind,
        /// Operations of each seed.
        #[arg(long, default_value_t = 1_000_000)]
        operations: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many seeds, one after another.
        #[arg(long, default_value_t = 8)]
        seeds: u64,
    },
    /// pjdfstest, as root.
    Pjdfstest {
        /// How it is mounted.
        #[arg(value_enum)]
        profile: Kind,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// kill -9.
    Kill,
    /// Everything is gone that is not synced.
    Power,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Passthrough,
    Writeback,
}

impl From<Kind> for Profile {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Passthrough => Self::Passthrough,
            Kind::Writeback => Self::Writeback,
        }
    }
}

fn bar(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}  {elapsed} so far, {eta} to go");
    ProgressBar::new(length)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what.to_owned())
}

fn main() -> Result<()> {
    match Cli::parse().run {
        Run::Crash { crash, profile, rounds, seed } => {
            let crash = match crash {
                How::Kill => Crash::Kill,
                How::Power => Crash::Power,
            };
            let (profile, bar) = (Profile::from(profile), bar(rounds, "crashes"));
            let summary = crash::run(crash, profile, rounds, seed, |summary| bar.set_position(summary.rounds))?;
            bar.finish_and_clear();
            println!(
                "{crash:?}, {}: {} crashes after {} calls, seed {seed}: nothing synced was lost, fsck found nothing",
                profile.name(),
                summary.rounds,
                summary.calls
            );
        }
        Run::Fsx { profile, operations, seed, seeds } => {
            let mounted = Mounted::new(profile.into())?;
            let bar = bar(seeds, "seeds");
            let artifacts = PathBuf::from("fsx-artifacts");
            for seed in seed..seed + seeds {
                suite::fsx(&mounted, seed, operations, &artifacts)?;
                bar.println(format!(
                    "fsx, {}: seed {seed}, {operations} operations: all well",
                    mounted.profile().name()
                ));
                bar.inc(1);
            }
        }
        Run::Pjdfstest { profile } => {
            let mounted = Mounted::new(profile.into())?;
            suite::pjdfstest(&mounted)?;
            println!("pjdfstest, {}: all pass but {:?}", mounted.profile().name(), suite::SKIPPED);
        }
    }
    Ok(())
}

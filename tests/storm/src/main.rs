//! `hypernet-storm`: a long storm; `scripts/storm` builds what it takes and runs it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it came to")]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use hypernet_kit::machine::{Need, has};
use hypernet_storm::{Settings, inside};

/// Agents as processes in networks of their own, at work while everything goes wrong. Needs root.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  hypernet-storm --seed 7                   ten minutes of it, with 16 agents\n  hypernet-storm --seed 7 --minutes 2 --donors 8 --keep    a short one, and what is left of it"
)]
struct Cli {
    /// Of everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long faults are brought about.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Agents that only store, beside three with a mount.
    #[arg(long, default_value_t = 13)]
    donors: usize,
    /// Print nothing while it goes on.
    #[arg(long)]
    quiet: bool,
    /// Leave the directory for a look.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let Some(work) = inside::directory() else {
        let args: Vec<_> = env::args_os().skip(1).collect();
        if !has(&[Need::Fuse, Need::Networks]) {
            return Ok(ExitCode::SUCCESS);
        }
        let (ended, dir) = inside::run(&env::current_exe().context("cannot tell where this is")?, &args, cli.keep)?;
        if cli.keep {
            eprintln!("kept: {}", dir.display());
        }
        return Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let settings = Settings { seed: cli.seed, donors: cli.donors, length: Duration::from_secs(60 * cli.minutes) };
    let quiet = cli.quiet;
    let tell = Box::new(move |line: &str| {
        if !quiet {
            eprintln!("{line}");
        }
    });
    let tally = hypernet_storm::run(settings, &work, tell)?;
    println!(
        "seed {}: {} agents, {} minutes of faults: nothing that was acknowledged is lost, no read took longer than it may\n\n{tally}",
        cli.seed,
        cli.donors + 3,
        cli.minutes
    );
    Ok(ExitCode::SUCCESS)
}

//! `year`: what a year of churn comes to, as a table.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hypernet_sim::{Attack, Year, YearConfig, YearReport, plot};

/// A year of churn, by the very node that people run.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  scripts/sim-year --peers 10000\n  scripts/sim-year --peers 1000 --loss 0.5 --availability 0.55..0.95\n  \
                        scripts/sim-year --growth --plot growth.svg"
)]
struct Arguments {
    /// The seed: a whole history.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run so many seeds, from this one on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Peers that store for others.
    #[arg(long, default_value_t = 1_000)]
    peers: usize,
    /// How long it lasts.
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// Share of the peers that leave for good within a year.
    #[arg(long, default_value_t = 0.2)]
    loss: f64,
    /// The share of the day for which peers are there: the least and the most.
    #[arg(long, default_value = "0.25..0.95", value_parser = range)]
    availability: (f64, f64),
    /// Share of the peers that lie.
    #[arg(long, default_value_t = 0.1)]
    liars: f64,
    /// Times a year that a peer is away for 1 to 14 days.
    #[arg(long, default_value_t = 1.0)]
    holidays: f64,
    /// Times a year that a third of the world is cut off for 1 to 3 days.
    #[arg(long, default_value_t = 3.0)]
    partitions: f64,
    /// Share of the peers that have an operator with nine others.
    #[arg(long, default_value_t = 0.3)]
    operators: f64,
    /// Peers that an owner knows.
    #[arg(long, default_value_t = 160)]
    known: usize,
    /// Those that upload [default: one for 200 peers]
    #[arg(long)]
    owners: Option<usize>,
    /// Segments of each owner.
    #[arg(long, default_value_t = 40)]
    segments: usize,
    /// To each owner as many peers as it knows come on day 60, and leave together after so many days.
    #[arg(long)]
    sybils: Option<u64>,
    /// Run 100, 300, 1,000, 3,000 and 10,000 peers, up to --peers.
    #[arg(long)]
    growth: bool,
    /// Write a picture of how figures grow, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
}

fn range(text: &str) -> Result<(f64, f64)> {
    let (low, high) = text.split_once("..").context("two numbers with .. between them, as in 0.25..0.95")?;
    let (low, high): (f64, f64) = (low.parse()?, high.parse()?);
    ensure!(0.0 < low && low <= high && high <= 1.0, "both are above 0, at most 1, and the least is first");
    Ok((low, high))
}

impl Arguments {
    fn config(&self, peers: usize) -> YearConfig {
        let base = YearConfig::mixed(peers);
        YearConfig {
            owners: self.owners.unwrap_or(base.owners),
            known: self.known.min(peers),
            segments: self.segments,
            days: self.days,
            loss: self.loss,
            availability: self.availability,
            liars: self.liars,
            operators: self.operators,
            holidays: self.holidays,
            partitions: self.partitions,
            attack: self.sybils.map_or(Attack::None, |stay| Attack::Sybils { from: 60, stay }),
            ..base
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sizes: Vec<usize> = match arguments.growth {
        true => [100, 300, 1_000, 3_000, 10_000].into_iter().filter(|size| *size <= arguments.peers.max(100)).collect(),
        false => vec![arguments.peers],
    };
    let mut reports: Vec<YearReport> = Vec::new();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        for peers in &sizes {
            let began = Instant::now();
            let report = Year::new(seed, arguments.config(*peers)).run()?;
            println!(
                "seed {seed}, in {:.0} s\n{}\ntrace {:016x}\n",
                began.elapsed().as_secs_f64(),
                report.table(),
                report.trace
            );
            reports.push(report);
        }
    }
    if let Some(path) = &arguments.plot {
        std::fs::write(path, plot(&reports)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

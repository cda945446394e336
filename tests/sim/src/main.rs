//! `sim`: one world, as a table.
#![allow(clippy::print_stdout)]

use anyhow::Result;
use clap::Parser;
use hypernet_sim::{Config, World};

/// Runs one seed and prints what happened.
#[derive(Parser)]
struct Arguments {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nodes in the mesh.
    #[arg(long, default_value_t = 60)]
    nodes: usize,
    /// Minutes of storm.
    #[arg(long, default_value_t = 4)]
    minutes: u64,
    /// Run so many seeds, from this one on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let base = if arguments.nodes >= 500 { Config::thousand() } else { Config::stormy(arguments.nodes) };
        let config = Config { nodes: arguments.nodes, storm: arguments.minutes * 60_000, ..base };
        let report = World::new(seed, config).run()?;
        println!("seed {seed}: nothing wrong in {} s\n{}", report.clock / 1000, report.counts.table());
        println!("trace {}", report.trace);
    }
    Ok(())
}

//! Worlds under faults. A failing seed prints how to replay it; put it into `corpus.txt`, where it stays.
#![allow(clippy::unwrap_used)]

use hypernet_sim::{Config, Report, World};

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 20;
const NODES: usize = 60;

fn run(seed: u64, nodes: usize) -> Report {
    match World::new(seed, Config::stormy(nodes)).run() {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

fn seeds(from: u64, to: u64) {
    let (mut found_out, mut audits) = (0, 0);
    for seed in from..to {
        let counts = run(seed, NODES).counts;
        assert!(counts.audits > 0 && counts.audits_passed > 20, "seed {seed} audited little: {counts:?}");
        audits += counts.audits;
        found_out += counts.audits_failed;
        assert!(counts.uploaded > 3 && counts.fetched > 20 && counts.lookups > 3, "seed {seed} did little: {counts:?}");
    }
    assert!(audits > 4 * (to - from), "{audits} audits in all");
    assert!(found_out > 0, "liars drop what they take, and disks rot");
}

#[test]
fn seeds_first_half() {
    seeds(0, SEEDS / 2);
}

#[test]
fn seeds_second_half() {
    seeds(SEEDS / 2, SEEDS);
}

/// Small meshes have small margins: every peer holds a row of everything.
#[test]
fn seeds_of_small_meshes() {
    for (seed, nodes) in (1_000..1_024).zip([8, 11, 14, 20].into_iter().cycle()) {
        run(seed, nodes);
    }
}

/// Two of three peers serve an old head, or none: the few among the closest that do not are enough. How the closest are
/// asked is libp2p's; what is made of their answers is the node's.
#[test]
fn the_newest_record_is_found_among_peers_that_serve_old_ones() {
    let mut lookups = 0;
    for seed in 2_000..2_005 {
        let config = Config { stale: NODES * 2 / 3, ..Config::stormy(NODES) };
        match World::new(seed, config).run() {
            Ok(report) => lookups += report.counts.lookups,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(lookups > 50, "{lookups} lookups");
}

#[test]
fn determinism() {
    for seed in [1, 7, 4_711] {
        // trace, next random number, clock and all counts
        assert_eq!(run(seed, 30), run(seed, 30));
    }
    assert_ne!(run(1, 30).trace, run(2, 30).trace);
}

#[test]
fn thousand() {
    let report = match World::new(1, Config::thousand()).run() {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    };
    let counts = report.counts;
    assert!(counts.uploaded > 10 && counts.fetched > 40 && counts.crashes > 3 && counts.restarts > 3, "{counts:?}");
}

#[test]
fn corpus() {
    for line in include_str!("corpus.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace().map(str::parse);
        let (seed, nodes): (u64, u64) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
        run(seed, nodes as usize);
    }
}

/// Replays what `SIM_SEED` and `SIM_NODES` name; without them, seed 0.
#[test]
fn replay() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let report = run(number("SIM_SEED").unwrap_or(0), number("SIM_NODES").map_or(NODES, |nodes| nodes as usize));
    assert!(report.counts.events > 0);
}

//! Worlds that live for long. A failing seed prints how to replay it; put it into `year-corpus.txt`, where it stays.
#![allow(clippy::unwrap_used)]

use hypernet_sim::{Attack, Sabotage, Year, YearConfig, YearReport};

fn run(seed: u64, config: YearConfig) -> YearReport {
    match Year::new(seed, config).run() {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    }
}

/// Two months of a mixed world: as much happens in it as in a year of one in which things last.
fn two_months(peers: usize) -> YearConfig {
    YearConfig { owners: 2, segments: 24, known: 120.min(peers), days: 60, ..YearConfig::mixed(peers) }
}

fn check(seed: u64, report: &YearReport) {
    let table = report.table();
    assert_eq!(report.lost, 0, "seed {seed} lost segments:\n{table}");
    assert!(
        report.acknowledged == 48 && report.audits.0 > 5_000 && report.audits.1 > 50,
        "seed {seed} did little:\n{table}"
    );
    assert_eq!(report.blocked, (0, 0), "seed {seed}: somebody honest was cut off\n{table}");
}

#[test]
fn two_months_lose_nothing() {
    for seed in 0..4 {
        check(seed, &run(seed, two_months(300)));
    }
}

#[test]
fn determinism() {
    let config = || YearConfig { days: 30, segments: 8, ..two_months(200) };
    assert_eq!(run(7, config()), run(7, config()));
    assert_ne!(run(7, config()).trace, run(8, config()).trace);
}

#[test]
fn corpus() {
    for line in include_str!("year-corpus.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>().unwrap());
        let [seed, peers, days] = std::array::from_fn(|_| words.next().unwrap());
        let report = run(seed, YearConfig { days, ..YearConfig::mixed(peers as usize) });
        assert_eq!(report.lost, 0, "{}", report.table());
    }
}

/// A few segments of one owner, on peers that leave fast: what is not mended is lost.
fn hard(sabotage: Sabotage) -> YearReport {
    let (liars, availability) = (0.2, (0.8, 0.95));
    let base =
        YearConfig { owners: 1, segments: 12, days: 240, loss: 0.8, liars, availability, ..YearConfig::mixed(150) };
    run(3, YearConfig { sabotage, known: 150, ..base })
}

/// Every check can fail.
#[test]
fn what_is_broken_on_purpose_is_noticed() {
    let good = hard(Sabotage::None);
    assert!(good.lost == 0 && good.margin.1 > 2 && good.reads.0 == good.reads.1, "{}", good.table());
    let phantom = |report: &YearReport| report.phantom.0 as f64 / report.phantom.1 as f64;
    assert!(phantom(&good) < 0.15, "{}", good.table());

    let unmended = hard(Sabotage::NoRepair);
    assert!(unmended.lost > 3 && unmended.reads.1 < unmended.reads.0, "{}", unmended.table());
    let late = hard(Sabotage::RepairAtK);
    assert!(late.margin.1 < good.margin.1 && late.margin.1 <= 0, "{}", late.table());
    let credulous = hard(Sabotage::AuditsIgnored);
    // Liars are still found out by those who read and renew, and by far fewer of their rows.
    let noticed = |report: &YearReport| report.repairs[3];
    assert!(2 * noticed(&credulous) < noticed(&good), "{}\n{}", good.table(), credulous.table());
    assert!(phantom(&credulous) > phantom(&good), "{}\n{}", good.table(), credulous.table());
    let forgetful = hard(Sabotage::NoRenewal);
    assert!(forgetful.lost > 0, "{}", forgetful.table());
}

/// The model of `core::durability` against what comes to pass, with codes so weak that something does.
#[test]
fn as_many_are_lost_as_the_model_says() {
    let (liars, operators, holidays, partitions) = (0.0, 0.0, 0.0, 0.0);
    let weak = YearConfig {
        owners: 4,
        segments: 150,
        known: 100,
        availability: (0.9, 0.98),
        code: Some((3, 5)),
        shard_len: 64,
        ..YearConfig::mixed(400)
    };
    let weak = YearConfig { liars, operators, holidays, partitions, ..weak };

    // Nobody mends: each row is with somebody who is still there, or not.
    let report = run(1, YearConfig { loss: 0.5, sabotage: Sabotage::NoRepair, ..weak.clone() });
    let (expected, varies) = report.if_unmended;
    let off = (report.lost as f64 - expected).abs();
    // Segments share their holders, so they vary by more than if each were alone: by three times as much at most.
    assert!(expected > 50.0 && off < 4.0 * (3.0 * varies).sqrt(), "{expected:.1} ± {varies:.1}:\n{}", report.table());

    // Mended, on peers of which nine in ten leave within the year: the model lets repairs take any time, a week and a day in the
    // mean, where they take a week; so it expects more than comes to pass, and not by much.
    let report = run(2, YearConfig { loss: 0.9, ..weak });
    let expected = report.if_mended;
    let (least, most) = (expected / 5.0, expected + 4.0 * (3.0 * expected).sqrt());
    assert!(expected > 30.0 && (least..most).contains(&(report.lost as f64)), "{expected:.1}:\n{}", report.table());
}

/// Peers that nobody knows for long hold no more than may be lost, however many they are; those that stay become like all others.
#[test]
fn a_crowd_that_leaves_early_takes_nothing_along() {
    let attack = Attack::Sybils { from: 20, stay: 6 };
    let report = run(1, YearConfig { attack, ..two_months(300) });
    let (with, may) = report.sybils;
    assert!(with <= may && report.lost == 0, "{with} of {may}:\n{}", report.table());
}

#[test]
fn leases_that_are_said_again_by_somebody_else_end_nothing() {
    let report = run(1, YearConfig { attack: Attack::Replays, ..two_months(300) });
    check(1, &report);
}

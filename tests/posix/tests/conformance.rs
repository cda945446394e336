//! pjdfstest, whole; fsx, short.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_posix::pressed::{OFTEN, Pressed};
use hypernet_posix::{Mounted, Profile, crowd, million, suite};

#[test]
fn pjdfstest_passes() -> Result<()> {
    if has(&[Need::Fuse, Need::Root]) {
        for profile in Profile::all() {
            suite::pjdfstest(&Mounted::new(profile)?)?;
        }
    }
    Ok(())
}

#[test]
fn fsx_finds_nothing() -> Result<()> {
    if has(&[Need::Fuse]) {
        for (seed, profile) in (1..).zip(Profile::all()) {
            let mounted = Mounted::new(profile)?;
            suite::fsx(&mounted, seed, 10_000, &mounted.agent.scratch().join("artifacts"))?;
        }
    }
    Ok(())
}

/// The long run says what each costs.
#[test]
fn a_directory_with_very_many_entries_is_made_listed_and_emptied() -> Result<()> {
    if has(&[Need::Fuse]) {
        for profile in Profile::all() {
            let costs = crowd::run(&Mounted::new(profile)?, 3_000)?;
            assert_eq!(costs.len(), 4, "{costs:?}");
        }
    }
    Ok(())
}

/// So does this one.
#[test]
fn a_tree_of_many_files_is_there_after_a_start() -> Result<()> {
    if has(&[Need::Fuse]) {
        for profile in Profile::all() {
            let mounted = Mounted::new(profile)?;
            let cost = million::run(&mounted, 3_500)?;
            assert!(cost.inodes == 3_504 && cost.peak >= cost.empty, "{cost:?}");
            assert_eq!(std::fs::read_dir(mounted.path().join("d3"))?.count(), 500);
        }
    }
    Ok(())
}

#[test]
fn fsx_finds_nothing_while_its_file_is_evicted_and_fetched_back() -> Result<()> {
    if has(&[Need::Fuse]) {
        for (seed, profile) in (1..).zip(Profile::all()) {
            let pressed = Pressed::new(profile)?;
            let closed = pressed.fsx(seed, 1_500, OFTEN, &pressed.scratch().join("artifacts"))?;
            assert!(closed.times >= 4 && closed.evicted * 2 > closed.times, "{closed:?}");
        }
    }
    Ok(())
}

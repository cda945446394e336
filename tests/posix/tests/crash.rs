//! Some crashes of each kind.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_posix::Profile;
use hypernet_posix::crash::{self, Crash};
use hypernet_posix::outage::{self, Ground};

const ROUNDS: u64 = 8;

/// In every profile.
fn fails(needs: &[Need], crash: Crash, seed: u64) -> Result<()> {
    if has(needs) {
        for profile in Profile::all() {
            let summary = crash::run(crash, profile, ROUNDS, seed, |_| {})?;
            assert!(summary.calls > ROUNDS, "hardly anything was written: {summary:?}");
        }
    }
    Ok(())
}

const DISK: [Need; 2] = [Need::Fuse, Need::Root];

#[test]
fn a_killed_agent_loses_nothing_that_was_synced() -> Result<()> {
    fails(&[Need::Fuse], Crash::Kill, 1)
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced() -> Result<()> {
    fails(&DISK, Crash::Power, 2)
}

#[test]
fn a_disk_that_tears_loses_nothing_that_was_synced() -> Result<()> {
    fails(&DISK, Crash::Torn, 4)
}

#[test]
fn a_full_disk_loses_nothing_that_was_synced() -> Result<()> {
    fails(&DISK, Crash::Full, 5)
}

#[test]
fn a_disk_that_fails_loses_nothing_that_was_synced() -> Result<()> {
    fails(&DISK, Crash::Faults, 6)
}

#[test]
fn an_outage_of_all_peers_loses_nothing_that_they_acknowledged() -> Result<()> {
    if has(&DISK) {
        for (profile, ground) in Profile::all().into_iter().zip([Ground::Ext4, Ground::Torn].into_iter().cycle()) {
            let summary = outage::run(ground, profile, 3, 3, |_| {})?;
            assert!(summary.shards > 3 && summary.files > 3, "hardly anything was stored: {summary:?}");
        }
    }
    Ok(())
}

//! Some crashes of each kind.
#![allow(clippy::unwrap_used)]

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_posix::crash::{self, Crash};
use hypernet_posix::{Profile, outage};

const ROUNDS: u64 = 8;

#[test]
fn a_killed_agent_loses_nothing_that_was_synced() -> Result<()> {
    if has(&[Need::Fuse]) {
        for profile in Profile::all() {
            let summary = crash::run(Crash::Kill, profile, ROUNDS, 1, |_| {})?;
            assert!(summary.calls > ROUNDS, "hardly anything was written: {summary:?}");
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced() -> Result<()> {
    if has(&[Need::Fuse, Need::Root]) {
        for profile in Profile::all() {
            let summary = crash::run(Crash::Power, profile, ROUNDS, 2, |_| {})?;
            assert!(summary.calls > ROUNDS, "hardly anything was written: {summary:?}");
        }
    }
    Ok(())
}

#[test]
fn an_outage_of_all_peers_loses_nothing_that_they_acknowledged() -> Result<()> {
    if has(&[Need::Fuse, Need::Root]) {
        for profile in Profile::all() {
            let summary = outage::run(profile, 3, 3, |_| {})?;
            assert!(summary.shards > 3 && summary.files > 3, "hardly anything was stored: {summary:?}");
        }
    }
    Ok(())
}

//! A short storm of a fixed seed; `scripts/storm` runs long ones.
#![expect(clippy::print_stderr, reason = "a failure is understood by what went before it")]

use std::time::Duration;

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_storm::{Settings, inside};

const NAME: &str = "nothing_that_was_acknowledged_is_lost_in_a_storm";

#[test]
#[ignore = "after 45 s of faults it takes ten minutes until all is compared; `scripts/storm` runs the same"]
fn nothing_that_was_acknowledged_is_lost_in_a_storm() -> Result<()> {
    let Some(work) = inside::directory() else {
        if has(&[Need::Fuse, Need::Networks]) {
            let args = ["--exact", NAME, "--nocapture"];
            let (ended, _) = inside::run(&std::env::current_exe()?, &args, false)?;
            ensure!(ended.success(), "the storm ended with {ended}: see above");
        }
        return Ok(());
    };
    let settings = Settings { seed: 7, donors: 5, length: Duration::from_secs(45) };
    let tally = hypernet_storm::run(settings, &work, Box::new(|line| eprintln!("{line}")))?;
    eprintln!("{tally}");
    // It must have been one.
    assert!(tally.faults() >= 8 && tally.kinds() >= 4 && tally.calls("read") > 100, "hardly anything happened");
    Ok(())
}

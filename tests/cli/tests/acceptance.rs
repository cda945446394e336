//! `scripts/acceptance` itself, on a small tree: the script that proves the rest must work.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hypernet_kit::hn;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::tree::Generator;

#[test]
fn the_acceptance_run_passes_on_a_small_tree() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/acceptance");
    let tree = tempfile::tempdir()?;
    Generator::new(7).fill(tree.path(), 60)?;
    let hn = hn::binary("hn")?;
    let ran = Command::new(script)
        // With this seed the peer by which all others joined is among those that are lost.
        .args(["--peers", "7", "--lifetime", "15", "--seed", "1", "--tree"])
        .arg(tree.path())
        .env("HN_BIN", hn.parent().context("hn is nowhere")?)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.lines().filter(|line| line.starts_with("PASS")).count() >= 19, "{said}");
    Ok(())
}

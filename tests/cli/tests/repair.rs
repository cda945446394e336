//! Shards that peers have lost are made anew, without anybody asking for it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

/// Longer than any repair here takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(240);

/// Shards that their holders lack, as they say when they are asked.
fn missing(agent: &Agent) -> Result<u64> {
    let checked = agent.hn(["--json", "fsck", "--verify"])?;
    let lines = checked.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let report = lines.iter().find(|line| line["event"] == "done").unwrap();
    let buckets = report["health"].as_array().unwrap();
    Ok(buckets.iter().map(|at| at["missing"].as_u64().unwrap() * at["segments"].as_u64().unwrap()).sum())
}

#[test]
fn what_peers_have_lost_is_made_anew_and_outlives_the_loss_of_the_others() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(6)?;
    let agent = Agent::on(&mesh)?;
    let path = agent.home().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["collect_every"] = 1.into();
    fs::write(&path, config.to_string())?;
    agent.up()?;
    agent.wait_for_peers(6)?;
    let mut content = vec![0; 8_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    fs::write(agent.mount().join("file"), &content)?;
    let report = agent.sync()?;
    let (k, n) = (report["k"].as_u64().unwrap(), report["n"].as_u64().unwrap());
    ensure!(n > k && missing(&agent)? == 0, "{report}");

    // As many as may be lose their disks, one after the other; what each had is elsewhere, or there again, before the next one does.
    for peer in 1..=n - k {
        mesh.mesh(["kill", "--peer", &peer.to_string()])?.ok()?;
        let home = mesh.status()?["peers"][peer as usize - 1]["home"].as_str().map(str::to_owned);
        let packs = std::path::Path::new(&home.unwrap()).join("donated/packs");
        fs::remove_dir_all(&packs)?;
        fs::create_dir(&packs)?;
        mesh.revive()?;
        agent.wait_for_peers(6)?;
    }
    let deadline = Instant::now() + LONG;
    loop {
        // Whoever asks finds out, and the agent mends what it knows of.
        let left = missing(&agent)?;
        if left == 0 {
            break;
        }
        ensure!(Instant::now() < deadline, "{left} shards are missing still");
        std::thread::sleep(Duration::from_millis(500));
    }
    // Those that have lost nothing go: what was made anew is enough, with one of them.
    for peer in n - k + 1..n {
        if n - (peer - (n - k)) >= k {
            mesh.mesh(["kill", "--peer", &peer.to_string()])?.ok()?;
        }
    }
    agent.json(["cache", "drop"])?;
    assert!(fs::read(agent.mount().join("file"))? == content);
    Ok(())
}

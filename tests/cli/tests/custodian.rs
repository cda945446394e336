//! A custodian keeps somebody's segments whole while none of their devices runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh, Ran};
use serde_json::Value;

/// Longer than anything here takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(240);
const PEERS: u32 = 7;

/// Looks after leases, repair and custody every second, and has all audited within five.
fn hasten(home: &Path) -> Result<()> {
    let path = home.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["collect_every"] = 1.into();
    config["audits_every"] = 5.into();
    Ok(fs::write(&path, config.to_string())?)
}

/// `hn` of one of the peers.
fn hn_of(home: &Path, args: &[&str]) -> Result<Ran> {
    let mut command = hypernet_kit::hn::command(args)?;
    command.env("HN_HOME", home);
    hypernet_kit::hn::run(&mut command)
}

fn served(home: &Path) -> Result<Value> {
    Ok(hn_of(home, &["--json", "custodian"])?.ok()?.json()?["served"][0].clone())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LONG;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

#[test]
fn what_is_lost_while_the_owner_is_away_is_made_anew() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let custodian = mesh.peer_home(1);
    mesh.mesh(["kill", "--peer", "1"])?.ok()?;
    hasten(&custodian)?;
    mesh.revive()?;
    let ticket = hn_of(&custodian, &["--json", "custodian", "offer", "--name", "anna"])?.ok()?.json()?;
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();

    let agent = Agent::on(&mesh)?;
    hasten(&agent.home())?;
    agent.up()?;
    agent.wait_for_peers(PEERS)?;
    agent.hn(["custodian", "add", "hnc1nonsense", "--name", "nas"])?.fails(64, "not a custodian's ticket", "hnc1");
    let added = agent.json(["custodian", "add", &ticket, "--name", "nas"])?;
    assert_eq!(added["name"], "nas");
    agent.hn(["custodian", "add", &ticket, "--name", "other"])?.fails(64, "custodian already", "hn custodian");
    let mut content = vec![0; 8_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    fs::write(agent.mount().join("file"), &content)?;
    let report = agent.sync()?;
    let (k, n) = (report["k"].as_u64().unwrap(), report["n"].as_u64().unwrap());
    ensure!(n > k && n < u64::from(PEERS), "the custodian holds nothing: {report}");
    wait_until("the custodian knows all there is", || {
        let volume = agent.status()?["volume"]["segments"].as_u64().unwrap();
        let served = served(&custodian)?;
        Ok(served["volumes"] == 1 && served["segments"].as_u64() >= Some(volume) && served["due"] == 0)
    })?;

    // Nobody is there. As many as may be lose their disks.
    agent.down()?;
    let all = mesh.status()?;
    let lost: Vec<u64> = (2..=n - k + 1).collect();
    for peer in &lost {
        mesh.mesh(["kill", "--peer", &peer.to_string()])?.ok()?;
        let home = all["peers"][*peer as usize - 1]["home"].as_str().unwrap().to_owned();
        let packs = Path::new(&home).join("donated/packs");
        fs::remove_dir_all(&packs)?;
        fs::create_dir(&packs)?;
    }
    mesh.revive()?;
    wait_until("the custodian finds it, and makes it anew", || {
        let served = served(&custodian)?;
        Ok(served["mended"].as_u64() > Some(0) && served["due"] == 0 && served["lost"] == 0)
    })?;

    // Those go that have lost nothing, with what is left of the first ones too few would be there.
    let rest: Vec<u64> = (n - k + 2..=u64::from(PEERS)).take((n - k) as usize).collect();
    for peer in &rest {
        mesh.mesh(["kill", "--peer", &peer.to_string()])?.ok()?;
    }
    agent.up()?;
    agent.hn(["custodian", "list"])?.ok()?;
    wait_until("the owner takes in what has moved, and reads it", || {
        let dropped = agent.hn(["cache", "drop"])?;
        Ok(dropped.ok().is_ok() && fs::read(agent.mount().join("file")).is_ok_and(|read| read == content))
    })?;
    let removed = agent.json(["custodian", "remove", "nas"])?;
    assert_eq!(removed["name"], "nas");
    wait_until("the custodian hears of it", || Ok(served(&custodian)?["volumes"] == 0))?;
    let withdrawn = hn_of(&custodian, &["--json", "custodian", "withdraw", "anna"])?.ok()?.json()?;
    assert_eq!(withdrawn["name"], "anna");
    agent.down()
}

//! A donor stops storing for others: all that they have there is handed over, and it goes for good.
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
const PEERS: u32 = 6;
/// Who leaves, and who comes only after all was stored: so there is room.
const LEAVER: u32 = 3;
const LATE: u32 = 1;

/// Looks after leases and repair every second, and gives up at once what nothing needs.
fn hasten(agent: &Agent) -> Result<()> {
    let path = agent.home().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["collect_every"] = 1.into();
    config["release_after"] = 1.into();
    Ok(fs::write(&path, config.to_string())?)
}

/// `hn` of one of the peers.
fn hn_of(home: &Path, args: &[&str]) -> Result<Ran> {
    let mut command = hypernet_kit::hn::command(args)?;
    command.env("HN_HOME", home);
    hypernet_kit::hn::run(&mut command)
}

fn donated(home: &Path) -> Result<Value> {
    hn_of(home, &["--json", "donate"])?.ok()?.json()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let deadline = Instant::now() + LONG;
    while let Some(why) = is_so()? {
        ensure!(Instant::now() < deadline, "in vain: {what}: {why}");
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 6_000_000];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What an agent says of the peer that leaves.
fn told_of(agent: &Agent, leaver: &Value) -> Result<Value> {
    let peers = agent.json(["peers"])?;
    Ok(peers.as_array().unwrap().iter().find(|peer| peer["peer"] == *leaver).unwrap().clone())
}

#[test]
fn a_donor_hands_over_what_two_owners_have_there_and_goes_for_good() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let kill = |peer: u32| mesh.mesh(["kill", "--peer", &peer.to_string()])?.ok();
    kill(LATE)?;
    let owners = [Agent::on(&mesh)?, Agent::on(&mesh)?];
    for (seed, owner) in (0u64..).zip(&owners) {
        hasten(owner)?;
        owner.up()?;
        owner.wait_for_peers(PEERS - 1)?;
        fs::write(owner.mount().join("file"), noise(seed))?;
        fs::write(owner.mount().join("small"), seed.to_string())?;
        owner.sync()?;
    }
    mesh.revive()?;
    let home = mesh.peer_home(LEAVER);
    let name = hn_of(&home, &["--json", "status"])?.ok()?.json()?["peer"].clone();
    let before = donated(&home)?;
    ensure!(before["shards"].as_u64() > Some(4) && before["leaving"].is_null(), "{before}");

    // It is killed as soon as it has said so, and knows that it leaves when it is there again.
    let stopped = hn_of(&home, &["--json", "donate", "stop"])?.ok()?.json()?;
    assert_eq!(stopped["leaving"]["shards_then"], before["shards"], "{stopped}");
    kill(LEAVER)?;
    mesh.revive()?;
    assert!(!donated(&home)?["leaving"].is_null());
    for owner in &owners {
        wait_until("all hear of it", || {
            let told = told_of(owner, &name)?;
            let is_told = told["leaving"] == true && told["free"] == 0 && told["honesty"].as_f64() == Some(1.0);
            Ok((!is_told).then(|| told.to_string()))
        })?;
        let text = owner.hn(["peers"])?.ok()?.stdout;
        assert!(text.contains("leaving: it stops storing for others"), "{text}");
    }
    let waited = hn_of(&home, &["donate", "stop", "--wait"])?.ok()?.stdout;
    assert!(waited.contains("everything was handed over"), "{waited}");
    let after = donated(&home)?;
    assert_eq!((after["shards"].as_u64(), after["used"].as_u64()), (Some(0), Some(0)), "{after}");

    // It goes for good.
    kill(LEAVER)?;
    fs::remove_dir_all(&home)?;
    for (seed, owner) in (0u64..).zip(&owners) {
        owner.down()?;
        owner.wipe()?;
        owner.recover(&["--json", "--join", mesh.link()])?.ok()?;
        owner.up()?;
        assert!(fs::read(owner.mount().join("file"))? == noise(seed), "owner {seed}");
        assert_eq!(fs::read_to_string(owner.mount().join("small"))?, seed.to_string());
        owner.down()?;
    }
    Ok(())
}

#[test]
fn whoever_changes_its_mind_stores_again() -> Result<()> {
    let agent = Agent::empty()?;
    agent.hn(["init", "--storage-only", "--no-mdns", "--listen", "127.0.0.1", "--donate", "1G"])?.ok()?;
    agent.up_unmounted()?;
    let stopped = agent.json(["donate", "stop"])?;
    assert_eq!((stopped["quota"].as_u64(), stopped["shards"].as_u64()), (Some(1 << 30), Some(0)));
    assert!(agent.hn(["donate"])?.ok()?.stdout.contains("this agent can go"));
    assert!(agent.status()?["warnings"].to_string().contains("hn donate resume"));
    agent.down()?;
    agent.up_unmounted()?;
    assert!(!agent.json(["donate"])?["leaving"].is_null(), "it is for good");
    assert!(agent.json(["donate", "resume"])?["leaving"].is_null());
    agent.json(["donate", "stop"])?;
    assert!(agent.json(["donate", "--space", "2G"])?["leaving"].is_null(), "who gives something goes on");
    assert_eq!(agent.hn(["donate", "stop", "--space", "1G"])?.code, Some(64));
    agent.down()
}

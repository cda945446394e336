//! `hn health` tells no lies that others have told.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

/// Longer than anything here takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(240);

/// What is told in JSON, and the exit code.
fn health(agent: &Agent) -> Result<(Value, i32)> {
    let ran = agent.hn(["--json", "health"])?;
    let first = ran.stdout.lines().next().unwrap_or_default();
    Ok((serde_json::from_str(first)?, ran.code.unwrap()))
}

/// Waits until it is said in one word of the main volume.
fn wait_for(agent: &Agent, state: &str) -> Result<(Value, i32)> {
    wait_until(agent, state, |_| true)
}

/// The same, and until this is so of the volume as well.
fn wait_until(agent: &Agent, state: &str, is_so: impl Fn(&Value) -> bool) -> Result<(Value, i32)> {
    let deadline = Instant::now() + LONG;
    loop {
        let (told, code) = health(agent)?;
        if told["volumes"][0]["state"] == state && is_so(&told["volumes"][0]) {
            return Ok((told, code));
        }
        ensure!(Instant::now() < deadline, "it is not {state}: {told}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn it_is_green_over_nothing_that_is_not_there() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(6)?;
    let agent = Agent::held_on(&mesh, 6)?;
    fs::write(agent.mount().join("file"), vec![7; 300_000])?;

    // Nothing is on the mesh, and that is not well.
    let (told, code) = wait_for(&agent, "local")?;
    assert_eq!(code, 75, "{told}");
    let volume = &told["volumes"][0];
    assert!(volume["name"] == "/" && volume["waiting_bytes"].as_u64().unwrap() >= 300_000, "{told}");
    let text = agent.hn(["health"])?;
    assert!(text.stdout.starts_with("VOLUME") && text.stdout.contains("ONLY HERE"), "{text:?}");
    assert_eq!(text.code, Some(75), "{text:?}");
    assert!(text.stderr.contains("nothing of what was written is on the mesh: /"), "{text:?}");

    // What was synced is as safe as holders say, and that is what is said.
    let report = agent.sync()?;
    let (k, n) = (report["k"].as_u64().unwrap(), report["n"].as_u64().unwrap());
    let (told, code) = wait_for(&agent, "acknowledged")?;
    let safety = &told["volumes"][0]["safety"];
    assert!(code == 0 && safety["lost"] == 0 && safety["least_margin"] == n - k, "{told}");
    assert!(safety["readable"].as_f64().unwrap() > 0.0 && safety["nines"].as_f64().is_some(), "{told}");
    assert_eq!(told["volumes"][0]["proven"]["state"], "never");
    let file = agent.mount().join("file");
    let text = agent.hn(["health".as_ref(), file.as_os_str(), "-v".as_ref()])?.ok()?.stdout;
    assert!(text.contains("well, not proven") && text.contains("may go for good: "), "{text}");
    assert!(text.contains("no holder has been asked to prove anything yet"), "{text}");
    let status = agent.hn(["status"])?.ok()?.stdout;
    assert!(status.contains("may go for good, and nothing is lost") && status.contains("to be mended"), "{status}");

    // One more is away than may be: they come back.
    mesh.kill((n - k + 1) as u32)?;
    let (told, code) = wait_for(&agent, "unreadable")?;
    assert!(code == 69 && told["volumes"][0]["safety"]["lost"] == 0, "{told}");
    mesh.revive()?;
    agent.wait_for_peers(6)?;
    wait_for(&agent, "acknowledged")?;

    // All have lost their disks. Nobody has asked, and it says so; whoever asks finds that it is lost.
    mesh.kill(6)?;
    for peer in 1..=6 {
        let packs = mesh.peer_home(peer).join("donated/packs");
        fs::remove_dir_all(&packs)?;
        fs::create_dir(&packs)?;
    }
    mesh.revive()?;
    agent.wait_for_peers(6)?;
    let (told, code) = wait_for(&agent, "acknowledged")?;
    assert!(code == 0 && told["volumes"][0]["reasons"].to_string().contains("no holder has been asked"), "{told}");
    let checked = agent.hn(["fsck", "--verify"])?;
    assert_eq!(checked.code, Some(65), "{checked:?}");
    // One segment is found out after the other.
    let all = |volume: &Value| volume["safety"]["lost"] == volume["safety"]["segments"];
    let (told, code) = wait_until(&agent, "lost", all)?;
    let safety = &told["volumes"][0]["safety"];
    assert!(code == 65 && safety["lost"] == safety["segments"] && safety["nines"] == 0.0, "{told}");
    let text = agent.hn(["health"])?;
    assert!(text.stdout.contains("LOST") && text.stdout.contains("by their own word"), "{text:?}");
    assert_eq!(text.code, Some(65), "{text:?}");
    assert!(text.stderr.contains("segments are lost, as far as is known: /"), "{text:?}");
    let status = agent.hn(["status"])?;
    assert!(status.stderr.contains("segments are lost, as far as is known"), "{status:?}");
    Ok(())
}

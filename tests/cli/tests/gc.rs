//! `hn gc`: the space of what was deleted comes back to the peers that had it, and nothing else does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

/// Bytes that nobody can compress or share.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What all peers hold that somebody has a lease of.
fn held(mesh: &Mesh) -> Result<u64> {
    let status = mesh.status()?;
    let peers = status["peers"].as_array().unwrap();
    Ok(peers.iter().map(|peer| peer["status"]["donate"]["used"].as_u64().unwrap()).sum())
}

/// An agent that gives up what it does not need as soon as it may.
fn agent(mesh: &Mesh, peers: u32) -> Result<Agent> {
    let agent = Agent::on(mesh)?;
    let path = agent.home().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["release_after"] = 0.into();
    fs::write(&path, config.to_string())?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(peers)?;
    Ok(agent)
}

fn sum(volumes: &Value, what: &str) -> u64 {
    volumes.as_array().unwrap().iter().map(|volume| volume[what].as_u64().unwrap()).sum()
}

#[test]
fn what_was_deleted_comes_back_to_the_peers_and_everything_else_is_found_by_the_words() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = agent(&mesh, 4)?;
    let at = |name: &str| agent.mount().join(name);
    let kept = noise(1, 3_000_000);
    fs::write(at("kept"), &kept)?;
    agent.sync()?;
    fs::write(at("gone"), noise(2, 30_000_000))?;
    agent.sync()?;
    let before = held(&mesh)?;
    let text = agent.hn(["gc", "--dry-run"])?.ok()?.stdout;
    assert!(text.starts_with("PATH") && !text.contains("nothing was changed"), "{text}");
    fs::remove_file(at("gone"))?;
    agent.sync()?;

    let dry = agent.json(["gc", "--dry-run"])?;
    assert!(sum(&dry, "dead_segments") >= 2 && sum(&dry, "freed_bytes") == 0, "{dry}");
    assert!(held(&mesh)? >= before, "it only says what there is");
    let text = agent.hn(["gc", "--dry-run"])?.ok()?.stdout;
    assert!(text.contains("nothing was changed; `hn gc` gives it back"), "{text}");
    let done = agent.json(["gc"])?;
    assert!(sum(&done, "freed_bytes") > 30_000_000, "{done}");
    let after = held(&mesh)?;
    assert!(after * 3 < before, "{after} of {before} bytes are held");
    assert_eq!(fs::read(at("kept"))?, kept);

    let until = agent.status()?["volume"]["unattended_until"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    assert!((85..=92).contains(&(until.saturating_sub(now) / 86_400)), "{until}");
    assert!(agent.hn(["status"])?.ok()?.stdout.contains("all of it stays until 2"));

    agent.down()?;
    agent.wipe()?;
    agent.recover(&["--json", "--join", mesh.link()])?.ok()?;
    agent.json(["mount".as_ref(), agent.mount().as_os_str()])?;
    assert_eq!(fs::read(at("kept"))?, kept);
    Ok(())
}

/// Kubo's collector has raced its writers.
#[test]
fn collecting_all_the_time_takes_nothing_away_from_those_who_write_meanwhile() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    const FILES: u64 = 12;
    let mesh = Mesh::start(4)?;
    let agent = agent(&mesh, 4)?;
    let root = agent.mount();
    let ended = std::sync::atomic::AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| -> Result<()> {
        let collecting = scope.spawn(|| -> Result<u64> {
            let mut rounds = 0;
            while !ended.load(std::sync::atomic::Ordering::SeqCst) {
                agent.json(["gc"])?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let written = (|| -> Result<()> {
            for round in 0..FILES {
                // New, as another one was, and as one is that goes now.
                fs::write(root.join(format!("new-{round}")), noise(round, 400_000))?;
                fs::write(root.join("again"), noise(round / 2, 400_000))?;
                if round % 3 == 2 {
                    fs::remove_file(root.join(format!("new-{}", round - 1)))?;
                }
                agent.sync()?;
            }
            Ok(())
        })();
        ended.store(true, std::sync::atomic::Ordering::SeqCst);
        rounds = collecting.join().unwrap()?;
        written
    })?;
    assert!(rounds > 1);
    agent.json(["gc"])?;
    let check = |root: &Path| {
        for round in 0..FILES {
            let path = root.join(format!("new-{round}"));
            match round % 3 {
                1 => assert!(!path.exists()),
                _ => assert!(fs::read(path).unwrap() == noise(round, 400_000), "{round}"),
            }
        }
        assert!(fs::read(root.join("again")).unwrap() == noise((FILES - 1) / 2, 400_000));
    };
    check(&root);
    agent.down()?;
    agent.wipe()?;
    agent.recover(&["--json", "--join", mesh.link()])?.ok()?;
    agent.json(["mount".as_ref(), agent.mount().as_os_str()])?;
    check(&root);
    Ok(())
}

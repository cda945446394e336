//! `hn policy`, as a person sets it, and as ordinary tools see and set what it is.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::{Value, json};

const NAME: &str = "user.hypernet.snapshots";

fn by_hand(dir: &Path, text: &str) -> Result<()> {
    let status = Command::new("setfattr").args(["-n", NAME, "-v", text]).arg(dir).status()?;
    ensure!(status.success(), "setfattr failed");
    Ok(())
}

/// What ordinary tools read; nothing where there is none.
fn read(dir: &Path) -> Result<String> {
    let out = Command::new("getfattr").args(["--only-values", "-n", NAME]).arg(dir).output()?;
    Ok(String::from_utf8(out.stdout)?)
}

#[test]
fn a_policy_is_set_shown_and_ended_and_is_an_attribute_that_any_tool_knows() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::held_on(&mesh, 4)?;
    let root = agent.mount();
    let none = agent.json(["policy"])?;
    assert_eq!(
        (&none["policy"], &none["wrong"], &none["next_ms"], &none["here"]),
        (&Value::Null, &Value::Null, &Value::Null, &Value::Bool(true))
    );
    let out = agent.hn(["policy"])?.ok()?;
    assert!(out.stdout.contains("none") && out.stderr.contains("hn policy --hourly"), "{out:?}");

    let set = agent.json(["policy", "--hourly", "24", "--weekly", "4"])?;
    let expected = json!({ "last": 0, "hourly": 24, "daily": 0, "weekly": 4, "monthly": 0, "yearly": 0 });
    assert_eq!((&set["policy"], &set["last"], &set["automatic"]), (&expected, &Value::Null, &Value::from(0)), "{set}");
    assert_eq!(read(&root)?, "hourly=24 weekly=4");
    // Of a directory below it is the same one: a volume has one policy.
    let below = root.join("below");
    fs::create_dir(&below)?;
    assert_eq!(agent.json(["policy".as_ref(), below.as_os_str()])?["policy"], expected);
    let out = agent.hn(["policy"])?.ok()?;
    assert!(out.stdout.contains("policy of /: hourly=24 weekly=4\nnext: as soon as"), "{out:?}");

    // By hand it is set just so, and what is no policy is told to be none.
    by_hand(&root, "daily=7")?;
    assert_eq!(agent.json(["policy"])?["policy"]["daily"], 7);
    by_hand(&root, "hourly=24 sometimes=1")?;
    agent.hn(["policy"])?.fails(65, "no snapshots are taken by themselves of /:", "hn policy --off");
    agent.hn(["policy"])?.fails(65, "sometimes=1", "");
    by_hand(&root, &"x".repeat(1_000))?;
    agent.hn(["policy"])?.fails(65, "more than 256 bytes", "hn policy --off");
    // One that keeps nothing, or never takes any, is not set, and neither is one for a file.
    agent.hn(["policy", "--hourly", "0"])?.fails(64, "how often", "--off");
    agent.hn(["policy", "--last", "5"])?.fails(64, "how often", "--off");
    agent.hn(["policy", "--hourly", "4000000000"])?.fails(64, "more than", "--off");
    assert_eq!(agent.hn(["policy", "--hourly", "1", "--off"])?.code, Some(64));
    fs::write(root.join("file"), "")?;
    assert!(by_hand(&root.join("file"), "daily=7").is_err());

    // It outlives the process, and ends.
    agent.json(["policy", "--daily", "7"])?;
    agent.down()?;
    agent.up_unmounted()?;
    assert_eq!(agent.json(["policy"])?["policy"]["daily"], 7);
    assert_eq!(agent.json(["policy", "--off"])?["policy"], Value::Null);
    assert_eq!(agent.json(["policy", "--off"])?["policy"], Value::Null, "it is none already");
    agent.json(["policy", "--yearly", "2"])?;
    agent.down()?;
    agent.up_with(&["--hold"])?;
    assert_eq!(read(&root)?, "yearly=2");
    agent.json(["policy", "--off"])?;
    assert_eq!(read(&root)?, "");
    Ok(())
}

#[test]
fn an_agent_that_runs_takes_by_itself_what_the_policy_asks_for_and_only_that() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::on(&mesh)?;
    let path = agent.home().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["policies_every"] = 1.into();
    fs::write(&path, config.to_string())?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(4)?;
    let log = || -> Result<Vec<(String, bool)>> {
        let log = agent.json(["log"])?;
        let one = |one: &Value| (one["message"].as_str().unwrap().to_owned(), one["automatic"] == true);
        Ok(log.as_array().unwrap().iter().map(one).collect())
    };
    fs::write(agent.mount().join("file"), "worth it")?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(log()?, [], "nobody has asked for any");
    agent.json(["policy", "--yearly", "3"])?;
    let until = Instant::now() + Duration::from_secs(60);
    while log()?.is_empty() {
        ensure!(Instant::now() < until, "no snapshot is taken");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(log()?, [("yearly".to_owned(), true)]);
    let taken = fs::read_dir(agent.mount().join(".snapshots"))?.next().unwrap()?;
    assert_eq!(fs::read_to_string(taken.path().join("file"))?, "worth it");
    // This year has one.
    fs::write(agent.mount().join("file"), "more")?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(log()?.len(), 1);
    Ok(())
}

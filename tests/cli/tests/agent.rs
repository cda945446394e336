//! The life of an agent: up, mounted, down, killed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Stdio;

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};

#[test]
fn comes_up_once_mounts_and_goes_down_clean() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let agent = Agent::alone()?;
    let up = agent.up()?;
    assert_eq!((&up["started"], up["mount"].as_str()), (&true.into(), agent.mount().to_str()));
    fs::write(agent.mount().join("file"), "content")?;
    let again = agent.up()?;
    assert_eq!((&again["started"], &again["pid"]), (&false.into(), &up["pid"]));
    let status = agent.status()?;
    assert_eq!(status["mount"]["dir"].as_str(), agent.mount().to_str());
    // The file, and the directory it is in.
    assert_eq!(status["volume"]["dirty_files"], 2);
    agent.down()?;
    assert!(!agent.mount().join("file").exists(), "still mounted");
    // One that has ended and that nobody has waited for yet is a zombie.
    let stat = fs::read_to_string(format!("/proc/{}/stat", up["pid"])).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "the process is still there: {stat}");
    agent.up()?;
    assert_eq!(fs::read_to_string(agent.mount().join("file"))?, "content");
    agent.hn(["umount"])?.ok()?;
    assert!(!agent.mount().join("file").exists());
    // Where it was mounted last is where `hn mount` mounts.
    agent.hn(["mount"])?.ok()?;
    assert_eq!(fs::read_to_string(agent.mount().join("file"))?, "content");
    Ok(())
}

#[test]
fn comes_up_again_after_a_kill_and_clears_the_stale_mount() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let agent = Agent::alone()?;
    agent.up()?;
    let file = agent.mount().join("file");
    fs::write(&file, "content")?;
    fs::File::open(&file)?.sync_all()?;
    agent.kill()?;
    assert_eq!(agent.hn(["status"])?.code, Some(69));
    agent.up()?;
    assert_eq!(fs::read_to_string(&file)?, "content");
    Ok(())
}

#[test]
fn an_invite_leads_from_one_agent_to_another() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let (one, two) = (Agent::alone()?, Agent::alone()?);
    one.up_unmounted()?;
    two.up()?;
    let link = one.hn(["invite"])?.ok()?.stdout;
    let joined = two.json(["join", link.trim()])?;
    assert_eq!(joined["network"], one.status()?["network"]);
    // It ran before, so it runs again, mounted where it was.
    let status = two.status()?;
    assert_eq!(status["mount"]["dir"].as_str(), two.mount().to_str());
    two.wait_for_peers(1)?;
    let peers = two.json(["peers"])?;
    assert_eq!(peers[0]["peer"], one.status()?["peer"]);
    Ok(())
}

#[test]
fn limits_of_the_line_are_kept_over_a_restart_and_shown() -> Result<()> {
    let agent = Agent::alone()?;
    agent.hn(["up", "--no-mount", "--upload", "2M", "--download", "10M", "--upnp", "false"])?.ok()?;
    agent.hn(["up", "--no-mount", "--upload", "3M"])?.fails(75, "takes --upload only at its start", "hn up --upload");
    agent.down()?;
    agent.up_unmounted()?;
    let reach = &agent.status()?["reach"];
    assert_eq!((&reach["upload"], &reach["download"]), (&(2 << 20).into(), &(10 << 20).into()), "{reach}");
    let shown = agent.hn(["status"])?.ok()?.stdout;
    assert!(shown.contains("at most 2.00 MiB/s out, 10.00 MiB/s in"), "{shown}");
    agent.down()?;
    agent.hn(["up", "--no-mount", "--upload", "none"])?.ok()?;
    let reach = &agent.status()?["reach"];
    assert_eq!((&reach["upload"], &reach["download"]), (&serde_json::Value::Null, &(10 << 20).into()), "{reach}");
    agent.down()?;
    Ok(())
}

#[test]
fn waiting_for_peers_ends_when_they_are_there_or_the_time_is_over() -> Result<()> {
    let (one, two) = (Agent::alone()?, Agent::alone()?);
    one.up_unmounted()?;
    let too_few = one.hn(["peers", "--wait", "1", "--timeout", "0"])?;
    too_few.fails(75, "0 of 1 peers that store are connected after 0 s", "hn peers");
    one.hn(["peers", "--wait", "0", "--timeout", "0"])?.ok()?;

    let wait = |count| {
        one.command(["--json", "peers", "--wait", count])?.stdout(Stdio::piped()).spawn().map_err(anyhow::Error::from)
    };
    let (waiting, in_vain) = (wait("1")?, wait("2")?);
    two.json(["join", one.hn(["invite"])?.ok()?.stdout.trim()])?;
    two.up_unmounted()?;
    let heard = waiting.wait_with_output()?;
    let peers: serde_json::Value = serde_json::from_slice(&heard.stdout)?;
    assert_eq!(peers[0]["peer"], two.status()?["peer"]);
    one.hn(["peers", "--wait", "1", "--timeout", "0"])?.ok()?;
    // How it is reached, and why that is.
    assert_eq!((&peers[0]["path"], &peers[0]["transport"]), (&"direct".into(), &"quic".into()), "{peers}");
    assert_eq!(peers[0]["why"], "on this machine, dialed by it");
    let table = one.hn(["peers"])?.ok()?.stdout;
    assert!(table.contains("REACHED") && table.contains("direct (quic)"), "{table}");
    assert_eq!(one.status()?["reach"]["reachability"], "unknown");
    // An agent that stops keeps nobody waiting.
    one.down()?;
    assert_eq!(in_vain.wait_with_output()?.status.code(), Some(69));
    Ok(())
}

#[test]
fn says_what_is_wrong_with_a_mount() -> Result<()> {
    let agent = Agent::alone()?;
    fs::write(agent.scratch().join("file"), "")?;
    let at = agent.scratch().join("file");
    let ran = agent.hn(["up".as_ref(), "--mount".as_ref(), at.as_os_str()])?;
    assert_eq!(ran.code, Some(73), "{ran:?}");
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("file"), "{ran:?}");
    // A path that was mistyped is not made; a directory where there is room for one is.
    let typo = agent.scratch().join("no/such");
    let ran = agent.hn(["up".as_ref(), "--mount".as_ref(), typo.as_os_str()])?;
    ran.fails(73, "there is no directory", "mkdir -p");
    assert!(!typo.parent().unwrap().exists());
    // One that could not mount does not run half.
    assert_eq!(agent.hn(["status"])?.code, Some(69));
    agent.up_unmounted()?;
    let ran = agent.hn(["sync".as_ref(), at.as_os_str()])?;
    assert_eq!(ran.code, Some(64), "{ran:?}");
    if has(&[Need::Fuse]) {
        let new = agent.scratch().join("new");
        agent.hn(["mount".as_ref(), new.as_os_str()])?.ok()?;
        agent.hn(["umount"])?.ok()?;
        assert!(new.is_dir());
    }
    Ok(())
}

#[test]
fn who_stops_an_agent_that_died_is_left_with_no_mount() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let agent = Agent::alone()?;
    let mount = agent.mount();
    fs::create_dir_all(&mount)?;
    agent.up()?;
    fs::write(mount.join("file"), "there")?;
    fs::File::open(mount.join("file"))?.sync_all()?;
    agent.kill()?;
    assert_eq!(fs::metadata(&mount).unwrap_err().kind(), std::io::ErrorKind::NotConnected, "the mount is dead");
    let down = agent.json(["down"])?;
    assert_eq!((down["stopped"].as_bool(), down["cleared"].as_str()), (Some(false), mount.to_str()));
    assert_eq!(fs::read_dir(&mount)?.count(), 0, "it is the directory below");
    let down = agent.hn(["down"])?.ok()?;
    assert_eq!(down.stdout.trim(), "the agent was not running");
    agent.up()?;
    assert_eq!(fs::read(mount.join("file"))?, b"there");
    agent.down()
}

#[test]
fn a_volume_that_was_never_touched_is_published_once_and_has_nothing_to_sync_then() -> Result<()> {
    let mesh = Mesh::start(2)?;
    let agent = Agent::on(&mesh)?;
    agent.up_unmounted()?;
    agent.wait_for_peers(2)?;
    // Whoever has only the words finds that it is empty.
    for (files, head) in [(1, 1), (0, 0)] {
        let report = agent.sync()?;
        assert_eq!((&report["files"], &report["bytes"]), (&files.into(), &0.into()), "{report}");
        assert_eq!(report["head"], head, "{report}");
    }
    Ok(())
}

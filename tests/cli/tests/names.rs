//! Directories and files whose names are unusual: spaces, and bytes that are no text. Linux allows them, so all works.
#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};

fn name(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

/// What JSON calls a path that is no text.
fn in_json(path: &std::path::Path) -> serde_json::Value {
    let hex: String = path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({ "bytes": hex })
}

#[test]
fn names_that_are_no_text_are_synced_dropped_and_read_again() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::up_on(&mesh, 3)?;
    let dir = agent.mount().join(name(b"dir \xfe"));
    fs::create_dir(&dir)?;
    let file = dir.join(name(b"\xff\xfe"));
    fs::write(&file, vec![7; 100_000])?;
    let report = agent.json([OsStr::new("sync"), file.as_os_str()])?;
    assert_eq!(report["state"], format!("durable {0}/{0}", report["n"]), "{report}");
    assert!(agent.hn([OsStr::new("sync"), file.as_os_str()])?.ok()?.stdout.contains("durable"));
    let dropped = agent.json([OsStr::new("cache"), OsStr::new("drop"), file.as_os_str()])?;
    assert_eq!((&dropped["files"], &dropped["bytes"]), (&1.into(), &100_000.into()), "{dropped}");
    assert_eq!(fs::read(&file)?, vec![7; 100_000]);
    // One that looks the same when it is printed is another.
    let other = dir.join("\u{fffd}\u{fffd}");
    assert_eq!(agent.hn([OsStr::new("sync"), other.as_os_str()])?.code, Some(66));
    Ok(())
}

#[test]
fn an_agent_lives_and_mounts_in_directories_whose_names_are_no_text() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let agent = Agent::empty_at(dir.path().join(name(b"ho me\xff")))?;
    let made = agent.json(["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1"])?;
    assert_eq!(made["home"], in_json(&agent.home()));
    let mount = dir.path().join(name(b"m\xff"));
    let up = agent.json([OsStr::new("up"), OsStr::new("--mount"), mount.as_os_str()])?;
    assert_eq!((&up["home"], &up["mount"]), (&in_json(&agent.home()), &in_json(&mount)));
    fs::write(mount.join("file"), "content")?;
    // Killed, it leaves a dead mount, which the next start finds where the last one was.
    fs::File::open(mount.join("file"))?.sync_all()?;
    agent.kill()?;
    assert_eq!(agent.json(["up"])?["mount"], in_json(&mount));
    assert_eq!(fs::read_to_string(mount.join("file"))?, "content");
    agent.down()?;
    assert!(!mount.join("file").exists(), "still mounted");
    Ok(())
}

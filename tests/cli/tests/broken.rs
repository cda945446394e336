//! Disks that are full, read-only or damaged, and ports that are taken: each is named with what to do, and nothing is
//! lost.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Disk, hn};

/// An agent that is set up, with all that it has on a disk of its own.
fn on(disk: &Disk) -> Result<Agent> {
    let agent = Agent::empty()?;
    fs::create_dir(disk.path().join("home"))?;
    symlink(disk.path().join("home"), agent.home())?;
    agent.hn(["init", "--no-mdns", "--listen", "127.0.0.1", "--donate", "1M"])?.ok()?;
    Ok(agent)
}

#[test]
fn a_read_only_disk_is_named() -> Result<()> {
    if !has(&[Need::Root]) {
        return Ok(());
    }
    let disk = Disk::new(64 << 20)?;
    let agent = on(&disk)?;
    agent.up_unmounted()?;
    agent.down()?;
    disk.set_read_only(true)?;
    agent.hn(["up", "--no-mount"])?.fails(77, "Read-only file system", "set HN_HOME");
    let other = hn::run(hn::command(["init"])?.env("HN_HOME", disk.path().join("other")))?;
    other.fails(73, "Read-only file system", "set HN_HOME");
    disk.set_read_only(false)?;
    agent.up_unmounted()?;
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() -> Result<()> {
    if !has(&[Need::Root, Need::Fuse]) {
        return Ok(());
    }
    let disk = Disk::new(64 << 20)?;
    let agent = on(&disk)?;
    agent.up()?;
    let (before, after) = (agent.mount().join("before"), agent.mount().join("after"));
    fs::write(&before, "kept")?;
    fs::File::open(&before)?.sync_all()?;
    disk.fill()?;
    let refused = fs::write(&after, vec![7; 1 << 20]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    assert_eq!(fs::read_to_string(&before)?, "kept");
    agent.status()?;
    agent.down()?;
    // A stop gives some room back.
    let filler = disk.fill()?;
    agent.hn(["up", "--no-mount"])?.fails(74, "the disk is full", "free some space");
    let other = hn::run(hn::command(["init"])?.env("HN_HOME", disk.path().join("other")))?;
    other.fails(73, "No space left on device", "make room");
    fs::remove_file(filler)?;
    agent.up()?;
    assert_eq!(fs::read_to_string(&before)?, "kept");
    fs::write(&after, "room again")?;
    assert_eq!(fs::read_to_string(&after)?, "room again");
    Ok(())
}

/// Writes nonsense over all of a file that lies behind an offset.
fn spoil(file: &Path, from: u64) -> Result<()> {
    for log in ["-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(log);
        let _ = fs::remove_file(name);
    }
    let file = fs::File::options().write(true).open(file)?;
    let len = file.metadata()?.len() - from;
    Ok(file.write_all_at(&vec![0xa5; usize::try_from(len)?], from)?)
}

#[test]
fn a_corrupted_database_is_named_with_the_way_out() -> Result<()> {
    let agent = Agent::alone()?;
    agent.up_unmounted()?;
    agent.down()?;
    for (file, hint) in [
        ("volume/volume.db", "hn recover --keystore"),
        ("tree/worktree.db", "hn recover --keystore"),
        ("donated/shards.db", "move this directory away"),
    ] {
        let file = agent.home().join(file);
        let whole = fs::read(&file)?;
        spoil(&file, 0)?;
        agent.hn(["up", "--no-mount"])?.fails(65, file.to_str().unwrap(), hint);
        fs::write(&file, whole)?;
    }
    agent.up_unmounted()?;
    Ok(())
}

#[test]
fn a_missing_database_is_named_with_the_way_out() -> Result<()> {
    let agent = Agent::alone()?;
    agent.up_unmounted()?;
    agent.down()?;
    for file in ["volume/volume.db", "tree/worktree.db"] {
        let file = agent.home().join(file);
        let whole = fs::read(&file)?;
        fs::remove_file(&file)?;
        let named = format!("{} is missing or empty", file.display());
        agent.hn(["up", "--no-mount"])?.fails(65, &named, "hn recover --keystore");
        assert!(!file.exists(), "an empty one was made");
        fs::write(&file, whole)?;
    }
    agent.up_unmounted()?;
    Ok(())
}

#[test]
fn a_database_that_opens_and_is_corrupted_inside_is_named_too() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let agent = Agent::alone()?;
    agent.up()?;
    for number in 0..3000 {
        fs::write(agent.mount().join(format!("file {number}")), "")?;
    }
    agent.down()?;
    let tree = agent.home().join("tree/worktree.db");
    assert!(fs::metadata(&tree)?.len() > 100_000, "what it holds is in its log still");
    spoil(&tree, 4096)?;
    agent.hn(["up", "--no-mount"])?.fails(65, "worktree.db is corrupted", "hn recover --keystore");
    Ok(())
}

/// Ports of the addresses in a text, each with whether it is one of UDP.
fn ports(text: &str) -> Vec<(bool, u16)> {
    let parts: Vec<&str> = text.split(['/', '"', '&', '?']).collect();
    let pairs = parts.windows(2).filter(|pair| ["udp", "tcp"].contains(&pair[0]));
    pairs.filter_map(|pair| Some((pair[0] == "udp", pair[1].parse().ok()?))).collect()
}

/// They are a convenience, so that others find it again: whoever took them keeps them, and it looks for others meanwhile.
#[test]
fn ports_that_are_taken_are_replaced_until_they_are_free() -> Result<()> {
    let agent = Agent::alone()?;
    agent.up_unmounted()?;
    let now = || anyhow::Ok(ports(&agent.hn(["invite"])?.ok()?.stdout));
    let own = now()?;
    assert_eq!(own.len(), 2, "{own:?}");
    agent.down()?;
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for (is_udp, port) in &own {
        match is_udp {
            true => udp.push(UdpSocket::bind(("127.0.0.1", *port))?),
            false => tcp.push(TcpListener::bind(("127.0.0.1", *port))?),
        }
    }
    agent.up_unmounted()?;
    let meanwhile = now()?;
    assert!(meanwhile.len() == 2 && meanwhile.iter().all(|port| !own.contains(port)), "{own:?} {meanwhile:?}");
    agent.down()?;
    drop((udp, tcp));
    agent.up_unmounted()?;
    assert_eq!(now()?, own);
    Ok(())
}

//! Disks that are full, read-only or damaged, and ports that are taken: each is named with what to do, and nothing is
//! lost.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Disk, Mesh, PowerCut, hn};
use rusqlite::Connection;

/// An agent that is set up, with all that it has on a disk of its own.
fn on(disk: &Disk) -> Result<Agent> {
    let agent = Agent::empty()?;
    fs::create_dir(disk.path().join("home"))?;
    symlink(disk.path().join("home"), agent.home())?;
    agent.hn(["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1", "--donate", "1M"])?.ok()?;
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
    let other = hn::run(hn::command(["init", "--no-confirm"])?.env("HN_HOME", disk.path().join("other")))?;
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
    fs::write(agent.mount().join("large"), vec![7; 1 << 20])?;
    fs::File::open(&before)?.sync_all()?;
    disk.fill()?;
    let refused = fs::write(&after, vec![7; 1 << 20]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "{refused}");
    assert_eq!(fs::read_to_string(&before)?, "kept");
    agent.status()?;
    agent.down()?;
    // A stop gives some room back. A start has room of its own, once, and what is removed then makes more.
    let filler = disk.fill()?;
    agent.up()?;
    assert_eq!(fs::read_to_string(&before)?, "kept");
    fs::remove_file(agent.mount().join("large"))?;
    agent.hn(["cache", "drop"])?;
    agent.down()?;
    disk.fill()?;
    agent.hn(["up", "--no-mount"])?.fails(74, "the disk is full", "free some space");
    let other = hn::run(hn::command(["init", "--no-confirm"])?.env("HN_HOME", disk.path().join("other")))?;
    other.fails(74, "the disk is full", "free some space");
    fs::remove_file(filler)?;
    agent.up()?;
    assert_eq!(fs::read_to_string(&before)?, "kept");
    fs::write(&after, "room again")?;
    assert_eq!(fs::read_to_string(&after)?, "room again");
    Ok(())
}

#[test]
fn a_disk_that_is_filled_through_the_mount_ends_nothing() -> Result<()> {
    if !has(&[Need::Root, Need::Fuse]) {
        return Ok(());
    }
    let disk = Disk::new(48 << 20)?;
    let agent = on(&disk)?;
    let mount = agent.mount();
    let args = ["--json", "up", "--mount", mount.to_str().context("the directory's name is no text")?];
    // It logs much, so that there is always something that the disk does not take.
    let pid = hn::run(agent.command(args)?.env("HN_LOG", "trace"))?.ok()?.json()?["pid"].clone();
    let (name, bytes) = (|n: usize| agent.mount().join(format!("file {n}")), |n: usize, len| vec![n as u8; len]);
    let write = |n: usize, len| -> std::io::Result<()> {
        let mut file = fs::File::create(name(n))?;
        file.write_all(&bytes(n, len))?;
        file.sync_all()
    };
    let mut synced = Vec::new();
    let mut n = 0;
    // The room goes in large pieces, and what is left of it in small ones, until hardly any fits any more.
    for (len, enough) in [(1 << 20, 1), (4 << 10, 30)] {
        let mut refused = 0;
        while refused < enough {
            match write(n, len) {
                Ok(()) => {
                    synced.push((n, len));
                    refused = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
                    refused += 1;
                }
            }
            n += 1;
            assert!(n < 20_000, "the disk does not fill");
        }
    }
    // What is removed makes room, once it is committed.
    for (n, _) in synced.drain(..2) {
        fs::remove_file(name(n))?;
    }
    fs::File::open(agent.mount())?.sync_all()?;
    write(n, 100)?;
    synced.push((n, 100));
    n += 1;
    // Whatever is given back meanwhile is taken, too, so that nothing can be logged either.
    for _ in 0..30 {
        disk.fill()?;
        assert!(write(n, 1 << 20).is_err());
        assert_eq!(agent.status()?["pid"], pid);
        n += 1;
    }
    let kept = |synced: &[(usize, usize)]| -> Result<()> {
        for (n, len) in synced {
            assert!(fs::read(name(*n))? == bytes(*n, *len), "file {n}");
        }
        Ok(())
    };
    kept(&synced)?;
    fs::remove_file(disk.path().join("filler"))?;
    for (n, _) in synced.drain(..4) {
        fs::remove_file(name(n))?;
    }
    write(n, 100)?;
    synced.push((n, 100));
    assert_eq!(agent.status()?["pid"], pid);
    let log = fs::read_to_string(agent.home().join("hnd.log"))?;
    assert!(log.contains("events could not be written here"), "the log was never in the way");
    agent.kill()?;
    assert_eq!(agent.up()?["started"], true);
    kept(&synced)
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
        ("volume/volume.db", "hn recover --from"),
        ("tree/worktree.db", "hn recover --from"),
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
        agent.hn(["up", "--no-mount"])?.fails(65, &named, "hn recover --from");
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
    agent.hn(["up", "--no-mount"])?.fails(65, "worktree.db is corrupted", "hn recover --from");
    Ok(())
}

/// Writes nonsense over the leaves of a table, but for the last one, which is looked at in every start.
fn spoil_leaves(database: &Path, table: &str) -> Result<()> {
    let connection = Connection::open(database)?;
    let mut leaves =
        connection.prepare("SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path")?;
    let mut leaves: Vec<u32> = leaves.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    leaves.pop();
    anyhow::ensure!(!leaves.is_empty(), "the table has one leaf");
    let file = fs::File::options().write(true).open(database)?;
    for page in leaves {
        file.write_all_at(&[0xa5; 4096], u64::from(page - 1) * 4096)?;
    }
    Ok(())
}

#[test]
fn a_damaged_index_is_told_and_keeps_nobody_from_what_is_here() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::up_on(&mesh, 3)?;
    for number in 0..40 {
        fs::write(agent.mount().join(format!("file {number}")), [number; 5000])?;
        // A segment each, so that their table has pages enough.
        agent.sync()?;
    }
    assert!(agent.hn(["fsck"])?.ok()?.stdout.contains("all is well"));
    agent.down()?;
    spoil_leaves(&agent.home().join("volume/volume.db"), "segments")?;
    agent.up()?;
    let way_out = "hn recover --from";
    agent.hn(["fsck"])?.fails(65, "volume.db is corrupted", way_out);
    fs::write(agent.mount().join("new"), "new")?;
    let refused = agent.hn(["sync"])?;
    refused.fails(65, "volume.db is corrupted", "recover what was synced");
    assert_eq!(fs::read(agent.mount().join("file 7"))?, [7; 5000]);
    assert_eq!(fs::read_to_string(agent.mount().join("new"))?, "new");
    assert!(agent.hn(["status"])?.ok()?.stderr.contains("volume.db is corrupted"));
    agent.down()
}

#[test]
fn a_sync_on_a_full_disk_says_how_to_go_on() -> Result<()> {
    if !has(&[Need::Root, Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let disk = Disk::new(64 << 20)?;
    let agent = on(&disk)?;
    agent.hn(["join", mesh.link()])?.ok()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(3)?;
    // Not to be compressed away, and more than the spare room of all databases.
    let durable: Vec<u8> = (0..).flat_map(hypernet_kit::marker::marker).take(20 << 20).collect();
    fs::write(agent.mount().join("durable"), &durable)?;
    agent.sync()?;
    fs::write(agent.mount().join("new"), "new")?;
    fs::File::open(agent.mount().join("new"))?.sync_all()?;
    disk.fill()?;
    agent.hn(["sync"])?.fails(74, "full", "delete or move something");
    assert_eq!(agent.json(["cache", "drop"])?["files"], 1);
    agent.sync()?;
    assert_eq!(fs::read_to_string(agent.mount().join("new"))?, "new");
    // What is not here can be read, also where there is no room to keep it.
    disk.fill()?;
    assert!(fs::read(agent.mount().join("durable"))? == durable);
    Ok(())
}

#[test]
fn a_recovery_that_fills_the_disk_says_so_and_goes_on_when_there_is_room() -> Result<()> {
    if !has(&[Need::Root, Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::up_on(&mesh, 3)?;
    // So many that the recovered databases need more than is left for them.
    for number in 0..20_000u32 {
        fs::write(agent.mount().join(format!("file {number}")), number.to_le_bytes().repeat(150))?;
    }
    agent.sync()?;
    agent.down()?;
    let disk = Disk::new(64 << 20)?;
    let other = Agent::empty()?;
    fs::create_dir(disk.path().join("home"))?;
    symlink(disk.path().join("home"), other.home())?;
    let ballast = fs::File::options().write(true).open(disk.fill()?)?;
    ballast.set_len(ballast.metadata()?.len() - (1 << 20))?;
    let from = agent.home();
    let recover = || {
        let first = ["recover", "--no-mdns", "--listen", "127.0.0.1", "--donate", "1M", "--join", mesh.link()];
        other.hn(first.iter().map(OsStr::new).chain([OsStr::new("--from"), from.as_os_str()]))
    };
    let full = recover()?;
    full.fails(74, "full", "free some space");
    other.hn(["down"])?.ok()?;
    ballast.set_len(0)?;
    recover()?.ok()?;
    other.json(["mount".as_ref(), other.mount().as_os_str()])?;
    assert_eq!(fs::read(other.mount().join("file 19999"))?, 19_999u32.to_le_bytes().repeat(150));
    assert_eq!(fs::read_dir(other.mount())?.count(), 20_000);
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
    // Nobody else listens there: the kernel gives the ports of 127.0.0.1 to others meanwhile.
    const OWN: &str = "127.77.13.5";
    let agent = Agent::empty()?;
    agent.hn(["init", "--no-confirm", "--no-mdns", "--listen", OWN])?.ok()?;
    agent.up_unmounted()?;
    let now = || anyhow::Ok(ports(&agent.hn(["invite"])?.ok()?.stdout));
    let own = now()?;
    assert_eq!(own.len(), 2, "{own:?}");
    agent.down()?;
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for (is_udp, port) in &own {
        match is_udp {
            true => udp.push(UdpSocket::bind((OWN, *port))?),
            false => tcp.push(TcpListener::bind((OWN, *port))?),
        }
    }
    let up = agent.hn(["up", "--no-mount"])?.ok()?;
    for said in [&up.stderr, &agent.status()?["warnings"].to_string()] {
        assert!(said.contains("is in use by another program") && said.contains("`listen`"), "{said}");
    }
    let meanwhile = now()?;
    assert!(meanwhile.len() == 2 && meanwhile.iter().all(|port| !own.contains(port)), "{own:?} {meanwhile:?}");
    agent.down()?;
    drop((udp, tcp));
    agent.up_unmounted()?;
    assert_eq!(now()?, own);
    assert_eq!(agent.status()?["notes"], serde_json::json!([]));
    Ok(())
}

/// What an agent that died left mounted goes away with the start of the next, wherever that one mounts.
#[test]
fn a_dead_mount_goes_away_when_the_next_is_elsewhere() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let agent = Agent::alone()?;
    agent.up()?;
    fs::write(agent.mount().join("a"), "b")?;
    agent.kill()?;
    assert!(fs::read_dir(agent.mount()).is_err(), "the mount is dead");
    agent.up_unmounted()?;
    assert_eq!(fs::read_dir(agent.mount())?.count(), 0, "the directory below it");
    Ok(())
}

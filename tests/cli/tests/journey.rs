//! The main job, small: put files on a mesh, lose peers, lose the machine, have everything again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::tree::{Generator, differences};
use hypernet_kit::{Agent, Mesh, marker};
use serde_json::{Value, json};

const PEERS: u32 = 10;

/// A tree to keep, beside the agent's mount.
fn plant(agent: &Agent, seed: u64, entries: u32) -> Result<(PathBuf, Vec<[u8; 16]>)> {
    let original = agent.scratch().join("original");
    fs::create_dir(&original)?;
    let markers: Vec<[u8; 16]> = (0..3).map(|n| marker::marker(seed * 100 + n)).collect();
    let name = std::str::from_utf8(&markers[0])?;
    fs::write(original.join(name), "the name is the marker")?;
    fs::write(original.join("small"), markers[1])?;
    let mut large = vec![0; 2_000_000];
    large[1_000_000..1_000_016].copy_from_slice(&markers[2]);
    fs::write(original.join("large"), large)?;
    let random = original.join("random");
    fs::create_dir(&random)?;
    Generator::new(seed).fill(&random, entries)?;
    Ok((original, markers))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    anyhow::ensure!(status.success(), "cp -a failed");
    Ok(())
}

#[track_caller]
fn assert_same(original: &Path, copy: &Path) {
    let found = differences(original, copy).unwrap();
    assert!(found.is_empty(), "{} differences, the first: {:?}", found.len(), &found[..found.len().min(10)]);
}

/// The first bytes of an id, which are its own as much as all of it.
fn named_by(id: &str) -> [u8; 16] {
    std::array::from_fn(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn files_survive_the_loss_of_peers_and_of_the_machine() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let agent = Agent::on(&mesh)?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(PEERS)?;
    let (original, markers) = plant(&agent, 1, 200)?;
    let there = agent.mount().join("tree");
    copy(&original, &there)?;
    assert_same(&original, &there);
    let report = agent.sync()?;
    let (k, n) = (report["k"].as_u64().unwrap(), report["n"].as_u64().unwrap());
    assert_eq!((n, report["peers"].as_u64()), (u64::from(PEERS), Some(n)), "{report}");
    assert!(k < n, "{report}");
    assert_eq!(agent.status()?["volume"]["dirty_files"], 0);
    // With a path the report says how durable that is; one that is not there is no input.
    let named = agent.json(["sync".as_ref(), there.as_os_str()])?;
    assert_eq!(named["state"], format!("durable {n}/{n}"), "{named}");
    assert_eq!(agent.hn(["sync".as_ref(), agent.mount().join("missing").as_os_str()])?.code, Some(66));

    // A peer's directory tells nothing.
    let status = agent.status()?;
    let names = [&status["identity"], &status["device_id"], &status["volume"]["id"]];
    let mut markers = markers;
    markers.extend(names.map(|name| named_by(name.as_str().unwrap())));
    let (found, looked_at) = marker::scan(mesh.dir(), &markers)?;
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(looked_at > 1_000_000, "there is nothing to look at: {looked_at} bytes");
    assert_eq!(marker::scan(&original, &markers)?.0.len(), 3, "the scan does not find what is there");

    // m peers are lost, and every local copy.
    mesh.kill(u32::try_from(n - k)?)?;
    let dropped = agent.json(["cache", "drop"])?;
    assert!(dropped["files"].as_u64().unwrap() > 10, "{dropped}");
    assert_same(&original, &there);

    // The machine is lost.
    agent.down()?;
    agent.wipe()?;
    let recovered = agent.recover(&["--json", "--join", mesh.link()])?.ok()?;
    let done: Value = serde_json::from_str(recovered.stdout.lines().last().unwrap())?;
    assert_eq!((&done["event"], &done["devices"]), (&"done".into(), &1.into()), "{done}");
    agent.json(["mount".as_ref(), agent.mount().as_os_str()])?;
    assert_same(&original, &there);

    // The new device can write, with fewer peers.
    fs::write(agent.mount().join("new"), "written after the recovery")?;
    agent.sync()?;
    agent.json(["cache", "drop"])?;
    assert_eq!(fs::read_to_string(agent.mount().join("new"))?, "written after the recovery");

    // By the words its keys are new; nobody is off the list for it, and it goes on.
    let listed = agent.json(["device", "list"])?;
    let renewed = agent.by_words(&["--json", "device", "renew"])?.json()?;
    let ids = |devices: &Value| devices.as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!((&renewed["back"], ids(&renewed["devices"])), (&false.into(), ids(&listed)), "{renewed}");
    fs::write(agent.mount().join("newer"), "written with the new keys")?;
    agent.sync()?;
    agent.json(["cache", "drop"])?;
    assert_eq!(fs::read_to_string(agent.mount().join("newer"))?, "written with the new keys");
    Ok(())
}

#[test]
fn damage_on_peers_is_routed_around_and_too_much_loss_is_an_error_in_time() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::up_on(&mesh, 4)?;
    let (original, _) = plant(&agent, 2, 40)?;
    let there = agent.mount().join("tree");
    copy(&original, &there)?;
    let report = agent.sync()?;
    let spare = report["n"].as_u64().unwrap() - report["k"].as_u64().unwrap();
    assert!(spare >= 1, "{report}");

    // Every byte that one peer keeps is changed, while it sleeps.
    mesh.mesh(["kill", "--peer", "2"])?.ok()?;
    let damaged = damage(&mesh.peer_home(2).join("donated"))?;
    assert!(damaged > 100_000, "nothing to damage: {damaged} bytes");
    mesh.revive()?;
    agent.wait_for_peers(4)?;
    agent.json(["cache", "drop"])?;
    assert_same(&original, &there);

    // What a check finds out is told from then on.
    let checked = agent.hn(["--json", "fsck", "--verify"])?;
    let lines = checked.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let report = lines.iter().find(|line| line["event"] == "done").unwrap();
    assert_eq!(agent.status()?["volume"]["health"], report["health"], "{report}");

    // More are gone than can be missed: reads fail, and nothing hangs.
    agent.json(["cache", "drop"])?;
    mesh.kill(4)?;
    let error = fs::read(there.join("large")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(fs::read_dir(&there)?.count() >= 4);
    agent.status()?;

    // They come back, and so does the data.
    mesh.revive()?;
    agent.wait_for_peers(4)?;
    assert_same(&original, &there);
    Ok(())
}

/// Flips bits in the packs below a directory. Returns how many bytes they hold.
fn damage(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            total += damage(&path)?;
            continue;
        }
        // The database beside them is another matter: a peer whose database is damaged says so and does not start.
        let name = path.to_string_lossy().into_owned();
        if name.contains(".db") || name.contains("sqlite") || name.ends_with("lock") {
            continue;
        }
        let file = fs::File::options().read(true).write(true).open(&path)?;
        let mut bytes = fs::read(&path)?;
        bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
        file.write_all_at(&bytes, 0)?;
        total += bytes.len() as u64;
    }
    Ok(total)
}

/// A link to a peer of a mesh at a port where nobody is.
fn dead_link(mesh: &Mesh) -> Result<String> {
    let peer = mesh.status()?["peers"][0]["status"]["peer"].as_str().unwrap().to_owned();
    let (network, _) = mesh.link().split_once('?').unwrap();
    Ok(format!("{network}?via=/ip4/127.0.0.1/udp/9/quic-v1/p2p/{peer}"))
}

#[test]
fn a_recovery_that_found_nobody_goes_on_by_a_link() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::alone()?;
    agent.hn(["join", mesh.link()])?.ok()?;
    agent.up()?;
    agent.wait_for_peers(3)?;
    let file = agent.mount().join("file");
    fs::write(&file, "content")?;
    agent.sync()?;
    agent.down()?;
    agent.wipe()?;
    // The words do not say where to look.
    agent.recover(&[])?.fails(64, "do not say on which mesh", "--join LINK");
    assert!(!agent.home().exists(), "it was begun all the same");
    let nobody = agent.recover(&["--timeout", "1", "--join", &dead_link(&mesh)?])?;
    nobody.fails(75, "cannot recover yet", "--join LINK");
    assert!(agent.recover(&["--join", mesh.link()])?.ok()?.stdout.contains("found head"));
    agent.json(["mount".as_ref(), agent.mount().as_os_str()])?;
    assert_eq!(fs::read_to_string(&file)?, "content");
    Ok(())
}

#[test]
fn what_was_stored_on_few_peers_is_told_when_there_are_many() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(3)?;
    let agent = Agent::up_on(&mesh, 3)?;
    fs::write(agent.mount().join("old"), vec![1; 300_000])?;
    agent.sync()?;
    let few = agent.status()?;
    assert_eq!((&few["volume"]["spare"], &few["warnings"]), (&1.into(), &json!([])), "{few}");

    mesh.mesh(["up", "--peers", "8"])?.ok()?;
    agent.wait_for_peers(8)?;
    fs::write(agent.mount().join("new"), vec![2; 300_000])?;
    let report = agent.sync()?;
    let spare = report["n"].as_u64().unwrap() - report["k"].as_u64().unwrap();
    assert!(spare > 1, "{report}");
    let many = agent.status()?;
    // What is old has not moved, and the plan of what is new is no promise for it.
    assert_eq!(many["volume"]["spare"], 1, "{many}");
    assert!(many["warnings"].to_string().contains("can lose fewer peers than new ones"), "{many}");
    Ok(())
}

/// Bytes that no compression makes fewer.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    (seed << 32..).flat_map(marker::marker).take(bytes).collect()
}

#[test]
fn a_sync_goes_on_with_those_who_are_left() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(8)?;
    let agent = Agent::up_on(&mesh, 8)?;
    fs::write(agent.mount().join("first"), noise(1, 300_000))?;
    let all = agent.sync()?;
    assert_eq!(all["n"], 8, "{all}");
    // More than may be missed: the segments, packed for eight, have to be packed for the rest.
    let second = noise(2, 20_000_000);
    fs::write(agent.mount().join("second"), &second)?;
    let killed = u32::try_from(all["n"].as_u64().unwrap() - all["k"].as_u64().unwrap() + 1)?;
    mesh.kill(killed)?;
    let rest = agent.sync()?;
    assert_eq!(rest["n"], 8 - killed, "{rest}");
    // Those alone have all of what was written last.
    agent.json(["cache".as_ref(), "drop".as_ref(), agent.mount().join("second").as_os_str()])?;
    assert!(fs::read(agent.mount().join("second"))? == second);
    Ok(())
}

#[test]
fn a_peer_that_comes_and_goes_keeps_nobody_from_storing() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(6)?;
    let agent = Agent::up_on(&mesh, 6)?;
    fs::write(agent.mount().join("large"), noise(1, 10_000_000))?;
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let flapping = &mesh;
    let report = std::thread::scope(|scope| {
        // As long as it takes, with less time between than anything would be stored in by luck.
        let comes_and_goes = scope.spawn(move || -> Result<()> {
            let pause = || ended.recv_timeout(std::time::Duration::from_secs(1));
            while pause() == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                flapping.mesh(["kill", "--peer", "3"])?.ok()?;
                let _ = pause();
                flapping.revive()?;
            }
            Ok(())
        });
        let report = agent.sync();
        drop(done);
        comes_and_goes.join().expect("the thread panicked")?;
        report
    })?;
    assert!(report["n"] == 5 || report["n"] == 6, "{report}");
    Ok(())
}

#[test]
fn a_donor_that_is_nearly_full_keeps_nobody_from_storing() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let small = Agent::empty()?;
    small
        .hn([
            "init",
            "--storage-only",
            "--donate",
            "1200K",
            "--newcomers",
            "100",
            "--no-mdns",
            "--listen",
            "127.0.0.1",
            "--join",
            mesh.link(),
        ])?
        .ok()?;
    small.up_unmounted()?;
    let agent = Agent::up_on(&mesh, 5)?;
    // Its shards would be longer than what the fifth has left.
    fs::write(agent.mount().join("large"), noise(1, 20_000_000))?;
    let report = agent.sync()?;
    assert_eq!((&report["n"], &report["peers"]), (&4.into(), &4.into()), "{report}");
    Ok(())
}

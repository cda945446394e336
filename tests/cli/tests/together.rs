//! Several devices of two people at one directory, each at real work and apart from the others for a while: in the end all of them have
//! one tree, and nothing that was written is missing.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::tree::differences;
use hypernet_kit::{Agent, Host, Mesh, Net};

const PEERS: u32 = 6;
/// How often all of them tell each other what they have before they must have the same.
const MEETINGS: usize = 8;

/// Another device of the same identity.
fn another(mesh: &Mesh, first: &Agent) -> Result<Agent> {
    recovered(Agent::empty()?, mesh.link(), first, PEERS)
}

/// A device that is made one of the same identity.
fn recovered(device: Agent, link: &str, first: &Agent, peers: u32) -> Result<Agent> {
    fs::copy(first.scratch().join("words"), device.scratch().join("words"))?;
    let ran = device.recover(&["--join", link])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    device.up_with(&["--hold"])?;
    device.wait_for_peers(peers)?;
    Ok(device)
}

fn run(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.current_dir(dir).args(args).env("HOME", dir).env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "somebody").env(format!("GIT_{who}_EMAIL"), "somebody@example.org");
    }
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {args:?}: {said}");
    Ok(String::from_utf8(out.stdout)?)
}

fn git(dir: &Path, args: &[&str]) -> Result<String> {
    run(dir, "git", &[&["-c", "init.defaultBranch=main", "-c", "gc.auto=0"], args].concat())
}

/// As editors save.
fn save(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("tmp~");
    fs::write(&beside, text)?;
    fs::File::open(&beside)?.sync_all()?;
    Ok(fs::rename(&beside, path)?)
}

/// All that is in files below a directory.
fn all_text(dir: &Path) -> Result<String> {
    let mut all = String::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            all += &all_text(&path)?;
        } else if path.is_file() {
            all += &String::from_utf8_lossy(&fs::read(&path)?);
        }
    }
    Ok(all)
}

fn meet(agents: &[&Agent], dirs: &[std::path::PathBuf]) -> Result<()> {
    let mut found = Vec::new();
    for _ in 0..MEETINGS {
        for agent in agents {
            agent.sync()?;
        }
        found.clear();
        for dir in &dirs[1..] {
            found.extend(differences(&dirs[0], dir)?.into_iter().map(|line| format!("{}: {line}", dir.display())));
        }
        if found.is_empty() {
            return Ok(());
        }
    }
    anyhow::bail!("they are not one after all: {found:#?}")
}

/// The directory in which all write, wherever it is.
fn desk(dir: &Path) -> Result<std::path::PathBuf> {
    let mut desks = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("desk") {
            desks.push(entry.path());
        }
    }
    ensure!(desks.len() == 1, "{desks:?}");
    desks.pop().context("there is no desk")
}

/// What one device does while it is by itself. Says what of it must be found in the end.
fn work(dir: &Path, who: usize, round: usize, scratch: &Path) -> Result<Vec<String>> {
    let token = |what: &str| format!("{what} of {who} in round {round}.");
    let mut written = Vec::new();
    let mut put = |path: &Path, what: &str| -> Result<()> {
        written.push(token(what));
        save(path, &token(what))
    };
    // Files of one's own, and new versions of one that all have.
    put(&dir.join(format!("own-{who}-{round}")), "a file")?;
    put(&dir.join(format!("notes-{who}")), "notes")?;
    save(&dir.join("plan"), &token("plan"))?;
    // Something moves about, while others write in it.
    let mut desk = desk(dir)?;
    if who == round {
        let to = dir.join(format!("desk-{round}"));
        fs::rename(&desk, &to)?;
        desk = to;
    }
    put(&desk.join(format!("paper-{who}-{round}")), "paper")?;
    // A repository of one's own.
    let repository = dir.join(format!("git-{who}"));
    if round == 0 {
        git(dir, &["init", "-q", repository.to_str().unwrap()])?;
    }
    put(&repository.join("code"), "code")?;
    git(&repository, &["add", "code"])?;
    git(&repository, &["commit", "-q", "-m", &token("commit")])?;
    // An archive is unpacked.
    let pack = scratch.join(format!("pack-{round}"));
    fs::create_dir_all(pack.join("a/b"))?;
    for number in 0..20 {
        fs::write(pack.join(format!("a/b/{number}")), format!("{} {number}", token("packed")))?;
    }
    written.push(format!("{} 19", token("packed")));
    let archive = scratch.join("pack.tar");
    run(scratch, "tar", &["-cf", "pack.tar", &format!("pack-{round}")])?;
    let unpacked = dir.join(format!("unpacked-{who}"));
    fs::create_dir_all(&unpacked)?;
    run(&unpacked, "tar", &["-xf", archive.to_str().unwrap()])?;
    if round > 0 {
        let gone = unpacked.join(format!("pack-{}", round - 1));
        fs::remove_dir_all(&gone).with_context(|| format!("{who} in round {round}: {}", gone.display()))?;
    }
    Ok(written)
}

/// Storage peers on each host.
const STORES: u32 = 3;

/// An agent with an identity of its own, on a host.
fn held_on(host: &Host, link: &str, peers: u32) -> Result<Agent> {
    let agent = Agent::empty_on(host)?;
    agent.init(&["--join", link])?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(peers)?;
    Ok(agent)
}

/// Three hosts with storage peers and devices on each: parted from one another, the network between them lost, devices of each part
/// sync and merge with one another, and one is killed. When it is whole again all have one tree.
#[test]
fn five_devices_of_two_people_end_with_one_tree_after_partitions_and_nothing_is_missing() -> Result<()> {
    if !has(&[Need::Fuse, Need::Root]) {
        return Ok(());
    }
    let test = "five_devices_of_two_people_end_with_one_tree_after_partitions_and_nothing_is_missing";
    let Some(net) = Net::inside(test, 3)? else { return Ok(()) };
    let mut stores = vec![Agent::stores_on(net.host(0), None)?];
    let link = stores[0].link()?;
    for host in [0, 0, 1, 1, 1, 2, 2, 2] {
        stores.push(Agent::stores_on(net.host(host), Some(&link))?);
    }
    let all_peers = 3 * STORES;
    let (anna, ben) = (held_on(net.host(0), &link, all_peers)?, held_on(net.host(1), &link, all_peers)?);
    for (one, other, name) in [(&anna, &ben, "ben"), (&ben, &anna, "anna")] {
        let address = other.json(["id"])?["address"].as_str().unwrap().to_owned();
        one.json(["contact", "add", &address, "--name", name]).or_else(|_| {
            other.sync()?;
            one.json(["contact", "add", &address, "--name", name])
        })?;
    }
    let here = |agent: &Agent| agent.mount().join("work");
    fs::create_dir_all(here(&anna).join("desk"))?;
    save(&here(&anna).join("plan"), "the plan at first")?;
    anna.sync()?;
    let arg = |text: &str| OsStr::new(text).to_owned();
    anna.json([arg("share"), here(&anna).into(), arg("--with"), arg("ben"), arg("--write")])?;
    anna.sync()?;
    ben.json([arg("attach"), arg("anna/work"), here(&ben).into()])?;
    fs::read_dir(here(&ben))?;
    ben.sync()?;
    let on = |host: usize, first: &Agent| recovered(Agent::empty_on(net.host(host))?, &link, first, all_peers);
    let (anna2, anna3, ben2) = (on(1, &anna)?, on(2, &anna)?, on(2, &ben)?);
    let agents = [&anna, &anna2, &anna3, &ben, &ben2];
    // Of each agent, its host.
    let hosts = [0, 1, 2, 1, 2];
    let dirs: Vec<_> = agents.iter().map(|agent| here(agent)).collect();
    for dir in &dirs {
        fs::read_dir(dir)?;
    }
    meet(&agents, &dirs)?;

    let rounds: [&[&[usize]]; 3] = [&[&[0, 1], &[2]], &[&[0], &[1, 2]], &[&[0], &[1], &[2]]];
    let (mut written, mut conflicts) = (Vec::new(), 0);
    for (round, parts) in rounds.into_iter().enumerate() {
        net.part(parts)?;
        for (who, dir) in dirs.iter().enumerate() {
            written.retain(|one: &String| !is_replaced(one, who));
            written.extend(work(dir, who, round, agents[who].scratch())?);
        }
        if round == 1 {
            // One of them dies on the way, with all of it written down.
            sync_all(&dirs[1].join("unpacked-1"))?;
            agents[1].kill()?;
            agents[1].up_with(&["--hold"])?;
            agents[1].wait_for_peers(STORES)?;
        }
        // Each part has a mesh, and goes on by itself.
        for agent in agents {
            agent.sync()?;
        }
        let part = |host: usize| parts.iter().position(|part| part.contains(&host));
        for (who, other) in (0..5).flat_map(|who| (0..5).map(move |other| (who, other))) {
            let is_heard = dirs[who].join(format!("own-{other}-{round}")).exists();
            let may_hear = part(hosts[who]) == part(hosts[other]);
            ensure!(may_hear || !is_heard, "{who} has heard of {other} in round {round}");
        }
        net.heal()?;
        for agent in agents {
            agent.wait_for_peers(all_peers)?;
        }
        meet(&agents, &dirs)?;
        // What was saved under one name by all of them is listed, each version once.
        let listed = anna.json([arg("conflicts"), here(&anna).into()])?;
        let listed: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|one| one["path"].as_str()).collect();
        let is_plan = |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with("plan ("));
        let listed = listed.into_iter().filter(|path| is_plan(path)).count();
        let plans = fs::read_dir(&dirs[0])?.filter_map(Result::ok).map(|entry| entry.file_name());
        let plans = plans.filter(|name| name.to_string_lossy().starts_with("plan (")).count();
        ensure!(listed == plans, "{listed} of {plans} are listed");
        ensure!(plans > conflicts && plans <= conflicts + 4, "{plans} after {conflicts}");
        conflicts = plans;
    }
    let all = all_text(&dirs[0])?;
    for one in &written {
        assert!(all.contains(one.as_str()), "{one:?}");
    }
    // All versions of what all have written at once are there, the last ones.
    for who in 0..5 {
        assert!(all.contains(&format!("plan of {who} in round 2.")), "{who}");
        let repository = dirs[4 - who].join(format!("git-{who}"));
        git(&repository, &["fsck", "--strict"])?;
        for round in 0..3 {
            let at = format!("HEAD~{}", 2 - round);
            assert_eq!(git(&repository, &["show", &format!("{at}:code")])?, format!("code of {who} in round {round}."));
            let said = git(&repository, &["log", "-1", "--format=%s", &at])?;
            assert_eq!(said.trim(), format!("commit of {who} in round {round}."));
        }
        assert_eq!(git(&repository, &["rev-list", "--count", "HEAD"])?.trim(), "3");
    }
    for agent in agents {
        let found = agent.hn(["fsck"])?;
        ensure!(found.code == Some(0), "{found:?}");
    }
    Ok(())
}

/// Whether something is gone when this device has worked once more: it writes it anew, or removes it.
fn is_replaced(token: &str, who: usize) -> bool {
    let of = format!(" of {who} ");
    ["notes", "code", "packed"].iter().any(|what| token.starts_with(&format!("{what}{of}")))
}

/// What was changed in this directory is on the disk, and with it all that was changed before.
fn sync_all(dir: &Path) -> Result<()> {
    Ok(fs::File::open(dir)?.sync_all()?)
}

#[test]
fn a_bare_repository_that_two_devices_push_to_in_turn_stays_healthy() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let one = Agent::up_on(&mesh, PEERS)?;
    let repository = |agent: &Agent| agent.mount().join("project.git");
    git(&one.mount(), &["init", "-q", "--bare", repository(&one).to_str().unwrap()])?;
    one.sync()?;
    let two = another(&mesh, &one)?;
    let agents = [&one, &two];
    let clone = |agent: &Agent| agent.scratch().join("clone");
    for turn in 0..6 {
        let agent = agents[turn % 2];
        agent.sync()?;
        let dir = clone(agent);
        if !dir.exists() {
            git(agent.scratch(), &["clone", "-q", repository(agent).to_str().unwrap(), "clone"])?;
        } else {
            git(&dir, &["pull", "-q", "--rebase", "origin", "main"])?;
        }
        fs::write(dir.join(format!("file-{turn}")), format!("of turn {turn}"))?;
        git(&dir, &["add", "."])?;
        git(&dir, &["commit", "-q", "-m", &format!("turn {turn}")])?;
        git(&dir, &["push", "-q", "origin", "HEAD:main"])?;
        if turn == 3 {
            git(&repository(agent), &["gc", "-q"])?;
        }
        agent.sync()?;
    }
    for agent in agents {
        agent.sync()?;
        git(&repository(agent), &["fsck", "--full", "--strict"])?;
        assert_eq!(git(&repository(agent), &["rev-list", "--count", "main"])?.trim(), "6");
    }
    Ok(())
}

/// Reads a file again and again until it has that.
fn read_until(path: &Path, text: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let read = fs::read_to_string(path);
        if read.as_deref().is_ok_and(|read| read == text) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{} has not become {text:?}: {read:?}", path.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_another_device_has_synced_comes_by_itself_to_whoever_only_reads() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let one = Agent::held_on(&mesh, PEERS)?;
    let (here, log) = (one.mount().join("new"), one.mount().join("log"));
    fs::write(&log, "begun\n")?;
    one.sync()?;
    let two = another(&mesh, &one)?;
    let (there, open) = (two.mount().join("new"), two.mount().join("log"));
    assert_eq!(fs::read_to_string(&open)?, "begun\n");
    assert!(!there.exists());
    fs::write(&here, "first")?;
    one.sync()?;
    read_until(&there, "first")?;
    // What was read is read anew, also while somebody has it open.
    let mut reader = fs::File::open(&open)?;
    assert_eq!(rest(&mut reader)?, "begun\n");
    for round in 0..3 {
        let mut file = fs::File::options().append(true).open(&log)?;
        writeln!(file, "line {round}")?;
        drop(file);
        fs::write(&here, format!("round {round}"))?;
        one.sync()?;
        read_until(&there, &format!("round {round}"))?;
        read_until(&open, &fs::read_to_string(&log)?)?;
    }
    fs::remove_file(&here)?;
    one.sync()?;
    let until = Instant::now() + Duration::from_secs(60);
    while there.exists() {
        ensure!(Instant::now() < until, "what was removed stays");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(reader);
    Ok(())
}

/// All that is left to read of a file.
fn rest(file: &mut fs::File) -> Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn whoever_reads_a_file_while_another_device_changes_it_reads_on() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(PEERS)?;
    let one = Agent::held_on(&mesh, PEERS)?;
    let (log, page) = (one.mount().join("log"), one.mount().join("page"));
    fs::write(&log, "begun\n")?;
    fs::write(&page, "the first edition\n")?;
    one.sync()?;
    let two = another(&mesh, &one)?;
    let (there, other) = (two.mount().join("log"), two.mount().join("page"));
    // All of it is here when it is opened: so the kernel reads past its cache, where it can do that.
    assert_eq!(fs::read_to_string(&there)?, "begun\n");
    let (mut tail, mut reader) = (fs::File::open(&there)?, fs::File::open(&other)?);
    let passes = two.json(["status"])?["mount"]["profile"] == "passthrough";
    assert_eq!(rest(&mut tail)?, "begun\n");
    let mut first = [0; 9];
    reader.read_exact(&mut first)?;
    for round in 0..3 {
        let mut file = fs::File::options().append(true).open(&log)?;
        writeln!(file, "line {round}")?;
        drop(file);
        fs::write(&page, format!("edition {round}\n"))?;
        one.sync()?;
        two.sync()?;
        if passes {
            assert_eq!(rest(&mut tail)?, format!("line {round}\n"));
            assert_eq!(fs::metadata(&there)?.ino(), tail.metadata()?.ino(), "it is the same file");
        } else {
            assert_eq!(rest(&mut tail)?, "");
        }
        assert_eq!(fs::read(&there)?, fs::read(&log)?);
        assert_eq!(fs::read_to_string(&other)?, format!("edition {round}\n"));
    }
    assert_eq!(rest(&mut reader)?, " edition\n", "whoever began to read one edition reads that one");
    assert_ne!(fs::metadata(&other)?.ino(), reader.metadata()?.ino());
    drop((tail, reader));
    fs::write(&other, "by two\n")?;
    two.sync()?;
    one.sync()?;
    assert_eq!(fs::read_to_string(&page)?, "by two\n");
    Ok(())
}

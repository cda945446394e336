//! Snapshots as a person uses them: by `hn`, and by ordinary tools in a real mount.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::tree::{Generator, differences};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a failed");
    Ok(())
}

#[track_caller]
fn assert_same(original: &Path, copy: &Path) {
    let found = differences(original, copy).unwrap();
    assert!(found.is_empty(), "{} differences, the first: {:?}", found.len(), &found[..found.len().min(10)]);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What `hn diff --name-status` says, a line for each change.
fn letters(agent: &Agent, args: &[&str]) -> Result<Vec<String>> {
    let out = agent.hn([&["diff", "--name-status"], args].concat())?;
    ensure!(out.code == Some(0), "{out:?}");
    Ok(out.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn what_was_is_read_with_ordinary_tools_and_reads_the_same_for_ever() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let original = agent.scratch().join("original");
    fs::create_dir(&original)?;
    Generator::new(5).fill(&original, 150)?;
    let there = agent.mount().join("tree");
    copy(&original, &there)?;
    fs::write(agent.mount().join("notes"), "one")?;
    fs::set_permissions(agent.mount().join("notes"), std::os::unix::fs::PermissionsExt::from_mode(0o640))?;

    // Before anything was synced.
    let first = agent.json(["snap", "-m", "first light"])?;
    assert_eq!((&first["snapshot"]["waiting"], &first["same"]), (&Value::Bool(true), &Value::Bool(false)), "{first}");
    fs::write(agent.mount().join("notes"), "another one")?;
    fs::write(agent.mount().join("new"), "new")?;
    fs::rename(&there, agent.mount().join("moved"))?;
    assert_eq!(letters(&agent, &[])?, ["R  tree/ -> moved/", "A  new", "M  notes"]);
    assert_eq!(agent.json(["snap", "-m", "second"])?["same"], false);
    agent.json(["tag", "v1", "HEAD~"])?;
    let past = agent.mount().join(".snapshots");
    let all = names(&past);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].ends_with(&first["snapshot"]["id"].as_str().unwrap()[..12]), "{all:?}");
    assert_eq!(fs::read_link(past.join("v1"))?, PathBuf::from(&all[0]));
    assert!(!names(&agent.mount()).contains(&".snapshots".to_owned()));
    // What comes later is listed, too, by whoever asks what the directory is.
    agent.json(["tag", "other", "HEAD"])?;
    fs::metadata(&past)?;
    assert_eq!(names(&past).len(), 4);
    agent.json(["tag", "--delete", "other"])?;
    fs::metadata(&past)?;
    assert_eq!(names(&past).len(), 3);

    let then = past.join("v1");
    let check = |agent: &Agent, moved: &Path| -> Result<()> {
        let past = agent.mount().join(".snapshots/v1");
        assert_same(&original, &past.join("tree"));
        assert_eq!(names(&past), ["notes", "tree"]);
        assert_eq!(fs::read_to_string(past.join("notes"))?, "one");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(past.join("notes"))?);
        assert_eq!(mode & 0o7777, 0o640);
        // From a directory below; what was not there then is empty.
        assert_eq!(names(&moved.join(".snapshots/v1")), Vec::<String>::new());
        let outer = original.read_dir()?.filter_map(|entry| entry.ok()).find(|entry| entry.path().is_dir());
        if let Some(dir) = outer {
            let now = moved.join(dir.file_name());
            let second = names(&now.join(".snapshots")).into_iter().find(|name| *name != "v1" && *name != all[0]);
            // The directory of a snapshot itself has the time of that, and who may look into it is as it is now.
            let found = differences(&dir.path(), &now.join(".snapshots").join(second.unwrap()))?;
            assert!(found.iter().all(|line| line.starts_with(": ")), "{found:?}");
        }
        Ok(())
    };
    let moved = agent.mount().join("moved");
    check(&agent, &moved)?;
    // Nothing of it changes.
    let refused = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    refused(fs::write(then.join("notes"), "x"));
    refused(fs::write(then.join("more"), "x"));
    refused(fs::create_dir(then.join("tree/dir")));
    refused(fs::remove_file(then.join("notes")));
    refused(fs::rename(then.join("notes"), agent.mount().join("out")));
    refused(fs::remove_dir(&past));
    assert_eq!(fs::create_dir(&past).unwrap_err().kind(), ErrorKind::AlreadyExists);
    for command in ["diff -r --no-dereference", "cp -a"] {
        let mut words = command.split(' ');
        let mut run = Command::new(words.next().unwrap());
        let (from, to) = (then.join("tree"), agent.scratch().join("restored"));
        let to = if command == "cp -a" { &to } else { &moved };
        ensure!(run.args(words).arg(&from).arg(to).status()?.success(), "{command}");
    }
    assert_same(&original, &agent.scratch().join("restored"));
    let grep = Command::new("grep").args(["-r", "one"]).arg(&then).output()?;
    assert!(String::from_utf8_lossy(&grep.stdout).contains("notes:one"), "{grep:?}");

    // It outlives the process, is durable by the next sync, and comes back from the mesh.
    agent.kill()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    check(&agent, &moved)?;
    agent.sync()?;
    assert_eq!(agent.json(["log"])?[0]["waiting"], false);
    agent.json(["cache", "drop"])?;
    check(&agent, &moved)?;
    let verified = agent.json(["verify", "HEAD"])?;
    assert_eq!((&verified["followed"], &verified["problems"]), (&Value::from(1), &Value::Array(vec![])), "{verified}");
    assert_eq!(letters(&agent, &["v1..HEAD"])?, ["R  tree/ -> moved/", "A  new", "M  notes"]);
    // Put back: elsewhere, in place of something else, and where nothing is any more.
    let restore = |args: &[&str], path: &str| {
        let path = agent.mount().join(path);
        let args = ["restore"].iter().chain(args).map(|arg| arg.to_string().into());
        agent.json(args.chain([path.into_os_string()]).collect::<Vec<std::ffi::OsString>>())
    };
    let out = agent.scratch().join("out");
    restore(&["v1", "--to", out.to_str().unwrap()], "tree")?;
    assert_same(&original, &out.join("tree"));
    restore(&["v1"], "tree")?;
    assert_same(&original, &agent.mount().join("tree"));
    fs::write(agent.mount().join("tree/extra"), "x")?;
    let back = restore(&["v1"], "tree")?;
    assert_same(&original, &agent.mount().join("tree"));
    restore(&["v1"], "notes")?;
    assert_eq!(fs::read_to_string(agent.mount().join("notes"))?, "one");
    // What was in its place is not lost, and nothing else is left.
    let before = &back["before"].as_str().unwrap()[..12];
    restore(&[before], "tree")?;
    assert_eq!(fs::read_to_string(agent.mount().join("tree/extra"))?, "x");
    assert_eq!(names(&agent.mount()), ["moved", "new", "notes", "tree"]);
    assert!(restore(&["v1"], "nothing").is_err() && restore(&["v1"], "").is_err());
    assert_eq!(names(&agent.mount()), ["moved", "new", "notes", "tree"]);
    let log = agent.json(["log".as_ref(), agent.mount().join("new").as_os_str()])?;
    assert_eq!(log.as_array().map(Vec::len), Some(1), "{log}");
    Ok(())
}

#[test]
fn the_same_word_names_the_same_snapshot_before_and_after_a_command() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::held_on(&mesh, 4)?;
    let at = |name: &str| agent.mount().join(name);
    let all = |text: &str| ["a", "b"].iter().try_for_each(|name| fs::write(at(name), text));
    let restore = |snapshot: &str, name: &str| {
        agent.hn(["restore".as_ref(), snapshot.as_ref(), at(name).as_os_str()])?.ok().map(|ran| ran.stderr)
    };
    all("older")?;
    agent.json(["snap", "-m", "older"])?;
    all("good")?;
    agent.json(["snap", "-m", "good"])?;
    all("broken")?;
    restore("HEAD", "a")?;
    restore("HEAD", "b")?;
    let texts = || ["a", "b"].map(|name| fs::read_to_string(at(name)).unwrap());
    assert_eq!(texts(), ["good", "good"]);
    restore("HEAD~1", "a")?;
    restore("HEAD~1", "b")?;
    assert_eq!(texts(), ["older", "older"]);
    // What was there first is found, and told apart.
    let log = agent.hn(["log", "--oneline"])?.ok()?.stdout;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 6, "{log}");
    assert!(lines[..4].iter().all(|line| line.contains("by a command) before restoring ")), "{log}");
    assert!(lines[4].contains(" (HEAD, ") && lines[4].ends_with(" good"), "{log}");
    let first = lines[3].split(' ').next().unwrap();
    restore(first, "b")?;
    assert_eq!(texts(), ["older", "broken"]);
    // A branch of now begins with one, too.
    agent.json(["branch", "try"])?;
    assert_eq!(agent.json(["show", "HEAD"])?["snapshot"]["message"], "good");

    // What is gone in between is said.
    agent.json(["snap", "-m", "last"])?;
    agent.json(["snap", "prune", "HEAD~"])?;
    let log = agent.json(["log"])?;
    let says = |one: &&Value, words| one["message"].as_str().unwrap().starts_with(words);
    for one in log.as_array().unwrap().iter().filter(|one| says(one, "before ") || says(one, "branch ")) {
        agent.json(["snap", "prune", one["id"].as_str().unwrap()])?;
    }
    let shown = agent.hn(["show", "HEAD"])?.ok()?;
    assert!(shown.stderr.contains("the one before in time"), "{shown:?}");
    assert_eq!(shown.stdout.lines().filter(|line| line.starts_with("M  ")).count(), 1, "{shown:?}");
    let diff = agent.hn(["diff", "--name-only", "HEAD~..HEAD"])?.ok()?;
    assert!(diff.stderr.contains("pruned or unknown") && diff.stdout == "b\n", "{diff:?}");
    assert!(restore("HEAD~", "b")?.contains("pruned or unknown"));
    assert_eq!(texts(), ["older", "older"]);
    fs::write(at("b"), "broken")?;
    let reverted = agent.hn(["revert", "HEAD"])?.ok()?;
    assert!(reverted.stderr.contains("the one before in time"), "{reverted:?}");
    assert_eq!(texts(), ["older", "older"]);
    let verified = agent.hn(["verify"])?.ok()?;
    assert!(verified.stdout.contains("not here, pruned or never known: "), "{verified:?}");
    Ok(())
}

#[test]
fn what_is_typed_as_for_git_is_understood_or_refused() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::held_on(&mesh, 4)?;
    let root = agent.mount();
    let ran = |args: &[&str]| hypernet_kit::hn::run(agent.command(args)?.current_dir(&root));
    let says = |args: &[&str], code: i32, words: &str| -> Result<()> {
        let out = ran(args)?;
        ensure!(out.code == Some(code) && out.stderr.contains(words), "{args:?}: {out:?}");
        Ok(())
    };
    says(&["log"], 0, "no snapshot was taken yet")?;
    fs::create_dir(root.join("dir"))?;
    for (number, name) in ["one", "dir/two", "dir/three"].iter().enumerate() {
        fs::write(root.join(name), name)?;
        agent.json(["snap", "-m", &number.to_string()])?;
    }
    fs::write(root.join("new"), "new")?;

    // Two snapshots as two words.
    for args in [&["HEAD~2", "HEAD"][..], &["HEAD~2..HEAD"], &["HEAD~2", "HEAD", "."]] {
        let out = ran(&[&["diff", "--name-only"], args].concat())?.ok()?;
        assert_eq!(out.stdout, "dir/three\ndir/two\n", "{args:?}");
    }
    assert_eq!(ran(&["diff", "--name-only", "HEAD~2", "HEAD~", "dir"])?.ok()?.stdout, "dir/two\n");
    let patch = ran(&["diff", "HEAD~", "HEAD"])?.ok()?.stdout;
    assert!(patch.contains("+++ b/dir/three"), "{patch}");
    // What is there, or was, is a path, whatever it is called.
    fs::write(root.join("HEAD"), "a file")?;
    assert_eq!(ran(&["diff", "--name-only", "HEAD~", "HEAD"])?.ok()?.stdout, "HEAD\n");
    fs::remove_file(root.join("HEAD"))?;
    fs::remove_file(root.join("one"))?;
    assert_eq!(ran(&["diff", "--name-status", "HEAD", "one"])?.ok()?.stdout, "D  one\n");
    says(&["diff", "HEAD", "nosuch"], 66, "there is no snapshot or tag nosuch; nor is or was anything at")?;
    says(&["diff", "HEAD~..HEAD", "HEAD", "dir"], 64, "names two snapshots already")?;

    says(&["log", "nosuch"], 66, "in no snapshot there is anything at")?;
    says(&["log", "new"], 0, "in no snapshot there is anything at")?;
    let none = ran(&["log", "-n", "0"])?.ok()?;
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", ""));
    assert_eq!(ran(&["log", "--oneline", "one"])?.ok()?.stdout.lines().count(), 1);
    says(&["snap", "nosuch"], 66, "nothing is at")?;
    says(&["conflicts", "nosuch"], 66, "nothing is at")?;
    says(&["show", "@{1}"], 64, "HEAD~1 is the snapshot before")?;
    says(&["branch", "-d", "main"], 64, "main is what branches are made of")?;
    says(&["diff", "main..HEAD"], 66, "main is a branch")?;
    says(&["snap", "prune", "--keep-last", "1"], 0, "2 snapshots more would go that no policy has taken: --all")?;
    assert_eq!(agent.json(["log"])?.as_array().map(Vec::len), Some(3));
    Ok(())
}

#[test]
fn what_names_no_snapshot_or_cannot_be_a_name_is_refused_with_a_reason() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::held_on(&mesh, 4)?;
    let says = |args: &[&str], words: &str| -> Result<()> {
        let out = agent.hn(args)?;
        ensure!(out.code != Some(0) && out.stderr.contains(words), "{args:?}: {out:?}");
        Ok(())
    };
    says(&["show"], "there is no snapshot yet")?;
    fs::write(agent.mount().join("a"), "a")?;
    agent.json(["snap", "-m", "first"])?;
    says(&["show", "nothing"], "there is no snapshot or tag nothing")?;
    says(&["show", "HEAD~"], "no snapshot before it")?;
    says(&["diff", "@{no time at all}"], "is no time")?;
    says(&["show", "@{1999-01-01}"], "from before 1999-01-01")?;
    for name in ["../x", "a b", "HEAD", "-x", "deadbeef", ""] {
        says(&["tag", "--", name], "name")?;
    }
    agent.json(["tag", "v1"])?;
    agent.json(["snap", "-m", "second"])?;
    says(&["tag", "v1"], "--force")?;
    says(&["snap", "prune", "v1"], "has a name")?;
    says(&["snap", "prune"], "which snapshots")?;
    says(&["tag", "--delete", "v2"], "no snapshot is called v2")?;
    agent.json(["tag", "v1", "--force"])?;
    let pruned = agent.json(["snap", "prune", "HEAD~"])?;
    assert_eq!((&pruned["left"], pruned["gone"].as_array().map(Vec::len)), (&Value::from(1), Some(1)), "{pruned}");
    Ok(())
}

#[test]
fn a_snapshot_is_a_state_that_a_loss_of_power_could_have_left() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(4)?;
    let agent = Agent::held_on(&mesh, 4)?;
    let root = agent.mount();
    fs::create_dir(root.join("names"))?;
    // What takes long to be read comes between the names and the last of the files.
    Generator::new(7).fill(&root.join("names"), 200)?;
    fs::write(root.join("zz"), [b'0'; 8])?;
    agent.sync()?;
    let stop = AtomicBool::new(false);
    let mut whole = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<u64> {
            let file = fs::OpenOptions::new().write(true).open(root.join("zz"))?;
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                // Whoever reads the number finds the file that was made before it.
                fs::write(root.join(format!("names/made {number}")), number.to_string())?;
                file.write_all_at(format!("{number:08}").as_bytes(), 0)?;
                // So many names that a snapshot of them takes long are not what this is about.
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(number)
        });
        for number in 0..25 {
            let taken = agent.json(["snap", "-m", &number.to_string()])?;
            // Where it took too long it says so.
            if taken["newer"] == 0 {
                whole.push(taken["snapshot"]["id"].as_str().unwrap()[..12].to_owned());
            }
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap()?;
        ensure!(written > 25, "{written}");
        Ok(())
    })?;
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root.join(".snapshots"))? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap();
        if !whole.iter().any(|id| name.ends_with(id)) {
            continue;
        }
        let number: u64 = fs::read_to_string(entry.path().join("zz"))?.parse()?;
        for made in 1..=number {
            let path = entry.path().join(format!("names/made {made}"));
            // Nobody has said that the content of the last one is on disk.
            let content = fs::read_to_string(&path).with_context(|| format!("{number} in {}", path.display()))?;
            ensure!(
                content == made.to_string() || (made == number && content.is_empty()),
                "{number} in {}: {content:?}",
                path.display()
            );
        }
        numbers.push(number);
    }
    ensure!(numbers.len() == whole.len() && numbers.iter().max() > numbers.iter().min(), "{numbers:?}");
    Ok(())
}

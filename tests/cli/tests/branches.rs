//! Branches as a person uses them: by `hn`, and by ordinary tools in a real mount.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn messages(agent: &Agent, args: &[&str]) -> Result<Vec<String>> {
    let log = agent.json([&["log"], args].concat())?;
    Ok(log.as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect())
}

/// Names and contents of all files below a directory.
fn files(dir: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
        } else {
            found.push((name, fs::read_to_string(path)?));
        }
    }
    Ok(found)
}

#[test]
fn a_branch_goes_its_own_way_and_is_merged() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    let write = |path: &Path, text: &str| fs::write(path, text).unwrap();
    fs::create_dir(main.join("src"))?;
    for name in ["kept", "edited", "removed", "renamed", "both"] {
        write(&main.join("src").join(name), &format!("{name} at first"));
    }
    agent.json(["snap", "-m", "before"])?;
    write(&main.join("later"), "after the snapshot");
    let made = agent.json(["branch", "try"])?;
    assert_eq!((&made["name"], &made["of"], &made["merged"]), (&"try".into(), &"main".into(), &Value::Null), "{made}");
    let branch = main.join(".branches/try");
    assert_eq!(files(&branch)?, files(&main)?);
    assert!(!names(&main).contains(&".branches".to_owned()));
    assert_eq!(names(&main.join(".branches")), ["try"]);
    assert_eq!(messages(&agent, &[branch.to_str().unwrap()])?, ["branch try begins here", "before"]);

    // Each goes its own way, and has a history of its own.
    let src = branch.join("src");
    write(&src.join("edited"), "edited in the branch");
    fs::remove_file(src.join("removed"))?;
    fs::rename(src.join("renamed"), src.join("moved"))?;
    write(&src.join("both"), "by the branch");
    write(&src.join("new"), "new in the branch");
    fs::set_permissions(&branch, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    write(&main.join("src/both"), "by main");
    write(&main.join("src/kept"), "edited in main");
    write(&main.join("src/own"), "new in main");
    agent.sync()?;
    agent.json(["snap", "-m", "in the branch", branch.to_str().unwrap()])?;
    agent.json(["snap", "-m", "in main"])?;
    assert_eq!(messages(&agent, &[])?, ["in main", "branch try begins here", "before"]);
    assert_eq!(messages(&agent, &[branch.to_str().unwrap()])?, ["in the branch", "branch try begins here", "before"]);
    assert_eq!(fs::read_to_string(main.join("src/edited"))?, "edited at first");
    assert_eq!(names(&src), ["both", "edited", "kept", "moved", "new"]);
    // What is in a branch does not stand in a snapshot of what it was made of.
    assert!(!main.join(".snapshots").join(&names(&main.join(".snapshots"))[0]).join(".branches").exists());

    // It outlives the process.
    agent.kill()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    assert_eq!(names(&branch.join("src")), ["both", "edited", "kept", "moved", "new"]);
    let refused = agent.hn(["branch", "--delete", "try"])?;
    ensure!(refused.code != Some(0) && refused.stderr.contains("not merged"), "{refused:?}");

    let merged = agent.json(["merge", "try"])?;
    assert_eq!(merged["already"], false, "{merged}");
    let log = agent.json(["log"])?;
    assert_eq!((&log[0]["id"], &log[0]["message"]), (&merged["snapshot"], &"Merge try".into()), "{log}");
    let conflicts = merged["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{merged}");
    let beside = conflicts[0]["name"].as_str().unwrap();
    assert!(beside.starts_with("both (conflict of "), "{beside}");
    let now = fs::read_to_string(main.join("src/both"))?;
    let mut both = [now.as_str(), &fs::read_to_string(main.join("src").join(beside))?].map(str::to_owned);
    both.sort();
    assert_eq!(both, ["by main", "by the branch"]);
    let mut expected = ["both", beside, "edited", "kept", "moved", "new", "own"].map(str::to_owned);
    expected.sort();
    assert_eq!(names(&main.join("src")), expected);
    assert_eq!(fs::read_to_string(main.join("src/edited"))?, "edited in the branch");
    assert_eq!(fs::read_to_string(main.join("src/kept"))?, "edited in main");
    assert_eq!(fs::read_to_string(main.join("src/moved"))?, "renamed at first");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&main)?) & 0o777;
    assert_ne!(mode, 0o700, "the root of the tree keeps its own attributes");
    assert_eq!(agent.json(["merge", "try"])?["already"], true);
    let log = messages(&agent, &[])?;
    assert!(log.contains(&"in the branch".to_owned()) && log.contains(&"in main".to_owned()), "{log:?}");
    assert_eq!(agent.json(["verify", "HEAD"])?["problems"], Value::Array(vec![]));

    // And the other way round: what main has become since.
    fs::remove_file(main.join("src/new"))?;
    write(&main.join("src/own"), "once more");
    agent.json(["merge", "main", branch.to_str().unwrap()])?;
    assert_eq!(files(&branch)?, files(&main)?);
    agent.json(["merge", "try"])?;
    agent.json(["branch", "--delete", "try"])?;
    assert!(!branch.exists());
    assert_eq!(agent.json(["branch"])?, Value::Array(vec![]));
    let found = agent.hn(["fsck"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

/// As `git clone` makes them of a repository beside it.
#[test]
fn files_with_several_names_go_into_a_branch_and_back() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    let link = |dir: &Path, text: &str| -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("one"), text)?;
        Ok(fs::hard_link(dir.join("one"), dir.join("other"))?)
    };
    link(&main.join("kept"), "in both")?;
    link(&main.join("changed"), "at first")?;
    agent.sync()?;
    // One is not on the mesh yet when the branch begins.
    link(&main.join("late"), "just now")?;
    agent.json(["branch", "try"])?;
    let branch = main.join(".branches/try");
    assert_eq!(files(&branch)?, files(&main)?);
    fs::write(branch.join("changed/other"), "by the branch")?;
    link(&branch.join("new"), "in the branch")?;
    agent.json(["sync", branch.to_str().unwrap()])?;
    agent.sync()?;
    assert_eq!(fs::read_to_string(branch.join("kept/one"))?, "in both");
    agent.json(["merge", "try"])?;
    let expected = [("changed", "by the branch"), ("kept", "in both"), ("late", "just now"), ("new", "in the branch")];
    for dir in [main.clone(), branch] {
        for (name, text) in expected {
            for file in ["one", "other"].map(|file| dir.join(name).join(file)) {
                assert_eq!(fs::read_to_string(&file)?, text, "{}", file.display());
                assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&file)?), 2, "{}", file.display());
            }
        }
    }
    agent.sync()?;
    agent.kill()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    agent.hn(["cache", "drop"])?.ok()?;
    for (name, text) in expected {
        assert_eq!(fs::read_to_string(main.join(name).join("other"))?, text);
    }
    let found = agent.hn(["fsck"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

#[test]
fn a_branch_begins_with_any_snapshot_and_bad_names_are_refused() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    for text in ["one", "two", "three"] {
        fs::write(main.join("f"), text)?;
        fs::write(main.join(text), text)?;
        agent.json(["snap", "-m", text])?;
        agent.json(["tag", &format!("v-{text}")])?;
    }
    // Without the mesh: nothing of it was synced yet.
    let made = agent.json(["branch", "old", "HEAD~1"])?;
    let branch = main.join(".branches/old");
    assert_eq!(files(&branch)?, [("f", "two"), ("one", "one"), ("two", "two")].map(|(a, b)| (a.into(), b.into())));
    assert_eq!(messages(&agent, &[branch.to_str().unwrap()])?, ["two", "one"]);
    assert_eq!(agent.json(["show", "v-two"])?["snapshot"]["id"], made["from"]);
    // What came after the snapshot was not taken away by it.
    fs::write(branch.join("four"), "four")?;
    agent.sync()?;
    agent.json(["merge", "old"])?;
    assert_eq!(names(&main), ["f", "four", "one", "three", "two"]);
    assert_eq!(fs::read_to_string(main.join("f"))?, "three");
    // All is in "three": no other snapshot was taken first.
    assert_eq!(messages(&agent, &[])?, ["Merge old", "three", "two", "one"]);
    assert_eq!(agent.json(["tag"])?.as_array().unwrap().len(), 3);

    for name in ["../x", "a/b", "", "HEAD", "main", "old", "x~1", ".hidden"] {
        let out = agent.hn(["branch", name])?;
        ensure!(out.code != Some(0) && out.stderr.contains("hint:"), "{name:?}: {out:?}");
    }
    for args in
        [&["branch", "new", "nothing"][..], &["merge", "nothing"], &["branch", "-d", "nothing"], &["merge", "main"]]
    {
        let out = agent.hn(args)?;
        ensure!(out.code != Some(0) && !out.stderr.is_empty(), "{args:?}: {out:?}");
    }
    assert_eq!(names(&main.join(".branches")), ["old"]);
    Ok(())
}

#[test]
fn branches_and_snapshots_are_mounted_side_by_side_and_switched_to() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    fs::create_dir(main.join("dir"))?;
    fs::write(main.join("dir/f"), "one")?;
    fs::write(main.join("only"), "in main")?;
    let made = agent.json(["branch", "try"])?;
    let from = made["from"].as_str().unwrap();
    let (beside, then) = (agent.scratch().join("beside"), agent.scratch().join("then"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    agent.json(["mount", "--branch", "try", &path(&beside)])?;
    // Nobody means what a command took who says HEAD.
    let out = agent.hn(["mount", "--snapshot", "HEAD", &path(&then)])?;
    ensure!(out.code != Some(0) && out.stderr.contains("no snapshot yet but those that commands took"), "{out:?}");
    agent.json(["mount", "--snapshot", from, &path(&then)])?;

    // What one mount shows is found there alone.
    let seen = main.join(".branches/try");
    assert!(!seen.exists());
    fs::write(beside.join("dir/f"), "two")?;
    fs::rename(beside.join("only"), beside.join("dir/moved"))?;
    assert_eq!(names(&main), ["dir", "only"]);
    let out = agent.hn(["switch", "try"])?;
    ensure!(out.code != Some(0) && out.stderr.contains("mounted beside"), "{out:?}");
    // The snapshot is what was.
    assert_eq!(files(&then)?, [("dir/f", "one"), ("only", "in main")].map(|(a, b)| (a.into(), b.into())));
    let refused = fs::write(then.join("x"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // Commands know what is meant by a path in each of them.
    agent.json(["snap", "-m", "by the side", &path(&beside)])?;
    assert_eq!(messages(&agent, &[&path(&beside)])?[0], "by the side");
    assert_eq!(messages(&agent, &[&path(&main)])?, ["branch try begins here"]);
    let out = agent.hn(["snap", &path(&then)])?;
    ensure!(out.code != Some(0) && out.stderr.contains("mount of snapshot"), "{out:?}");
    assert_eq!(agent.json(["status"])?["side_mounts"].as_array().unwrap().len(), 2);
    let out = agent.hn(["branch", "-d", "try", "--force"])?;
    ensure!(out.code != Some(0) && out.stderr.contains("mounted on"), "{out:?}");

    // One of them goes, and what the others have open stays.
    let kept = fs::File::open(main.join("dir/f"))?;
    agent.json(["umount", &path(&beside)])?;
    assert_eq!((names(&seen), names(&seen.join("dir"))), (vec!["dir".into()], vec!["f".into(), "moved".into()]));
    assert_eq!(fs::read_to_string(seen.join("dir/f"))?, "two");
    // It is not mounted while somebody is in it through the other mount.
    let used = fs::File::open(seen.join("dir/f"))?;
    let out = agent.hn(["mount", "--branch", "try", &path(&beside)])?;
    ensure!(out.code != Some(0) && out.stderr.contains("in use through"), "{out:?}");
    drop(used);
    fs::remove_file(seen.join("dir/f"))?;
    assert_eq!(names(&seen.join("dir")), ["moved"]);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::BufReader::new(kept), &mut text)?;
    assert_eq!(text, "one");
    assert!(names(&beside).is_empty());
    agent.json(["umount", &path(&then)])?;

    // The main mount shows the branch, at once and after a restart.
    assert_eq!(fs::read_to_string(main.join("only"))?, "in main");
    agent.json(["switch", "try"])?;
    assert_eq!((names(&main), names(&main.join("dir"))), (vec!["dir".into()], vec!["moved".into()]));
    assert!(!main.join("only").exists());
    assert_eq!(names(&main.join(".branches")), ["main"]);
    fs::write(main.join("new"), "in the branch")?;
    fs::File::open(&main)?.sync_all()?;
    assert_eq!(messages(&agent, &[])?[0], "by the side");
    assert_eq!(messages(&agent, &[&path(&main)])?[0], "by the side");
    assert_eq!(names(&main.join(".snapshots")).len(), 2);
    agent.kill()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    assert_eq!(names(&main), ["dir", "new"]);
    agent.json(["switch", "main"])?;
    assert_eq!(names(&main), ["dir", "only"]);
    assert_eq!(fs::read_to_string(main.join("dir/f"))?, "one");
    assert!(!main.join("new").exists());
    assert_eq!(names(&main.join(".branches")), ["try"]);
    agent.json(["merge", "try"])?;
    assert_eq!((names(&main), names(&main.join("dir"))), (vec!["dir".into(), "new".into()], vec!["moved".into()]));
    let found = agent.hn(["fsck"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

#[test]
fn a_merge_is_undone_and_nothing_that_was_there_is_lost() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    for name in ["edited", "removed", "both"] {
        fs::write(main.join(name), format!("{name} at first\n"))?;
    }
    // A text of many lines, which are not all different.
    let lines = |first: &str, last: &str| {
        let middle: String =
            (1..70_000u32).map(|n| if n.is_multiple_of(3) { "}\n".into() } else { format!("{n}\n") }).collect();
        format!("{first}\n{middle}{last}\n")
    };
    fs::write(main.join("long"), lines("first", "last"))?;
    agent.json(["snap", "-m", "first"])?;
    agent.json(["branch", "try"])?;
    let branch = main.join(".branches/try");
    fs::write(branch.join("long"), lines("first", "last in the branch"))?;
    fs::write(main.join("long"), lines("first in main", "last"))?;
    fs::write(branch.join("edited"), "in the branch\n")?;
    fs::write(branch.join("both"), "by the branch\n")?;
    fs::write(branch.join("new"), "new\n")?;
    fs::remove_file(branch.join("removed"))?;
    fs::write(main.join("both"), "by main\n")?;
    fs::write(main.join("own"), "in no snapshot\n")?;
    let was = files(&main)?;
    let ran = agent.hn(["merge", "try"])?.ok()?;
    let merged = files(&main)?;
    assert_ne!(merged, was);
    assert!(fs::read_to_string(main.join("long"))? == lines("first in main", "last in the branch"));
    assert!(ran.stdout.contains("1 version kept beside others, 1 text merged line by line"), "{ran:?}");
    let log = agent.json(["log"])?;
    assert_eq!(messages(&agent, &[])?[..2], ["Merge try", "before merging try"]);
    let [after, before] = [0, 1].map(|at| log[at]["id"].as_str().unwrap()[..12].to_owned());
    assert!(ran.stderr.contains(&format!("what was there is in {before}")), "{ran:?}");
    assert!(ran.stderr.contains(&format!("`hn revert {after}` undoes it")), "{ran:?}");
    assert_eq!((&log[0]["command"], &log[1]["command"]), (&Value::Bool(false), &Value::Bool(true)));
    agent.hn(["revert", &after])?.ok()?;
    assert_eq!(files(&main)?, was);
    agent.hn(["revert", "HEAD"])?.ok()?;
    assert_eq!(files(&main)?, merged);
    // Where there is nothing to merge nothing is taken.
    let count = messages(&agent, &[])?.len();
    assert_eq!(agent.json(["merge", "try"])?["already"], true);
    assert_eq!(messages(&agent, &[])?.len(), count);
    Ok(())
}

#[test]
fn merging_to_and_fro_comes_to_an_end_and_keeps_apart_what_was_kept_apart() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let main = agent.mount();
    fs::write(main.join("f"), "at first\n")?;
    agent.json(["snap", "-m", "first"])?;
    agent.sync()?;
    fs::write(main.join("f"), "then\n")?;
    agent.json(["snap", "-m", "second"])?;
    agent.json(["branch", "try"])?;
    let branch = main.join(".branches/try");
    // A branch of one of which nothing is on the mesh yet has all that was before as well.
    agent.json(["branch", "further", "--of", branch.to_str().unwrap()])?;
    let further = main.join(".branches/further");
    let log = messages(&agent, &[further.to_str().unwrap()])?;
    assert_eq!(log, ["branch further begins here", "branch try begins here", "second", "first"]);

    // Two files of one name: each was begun by itself, and no line of one is a change of the other.
    fs::write(branch.join("new.txt"), "of the branch\n")?;
    agent.sync()?;
    fs::write(main.join("new.txt"), "of main\n")?;
    let merged = agent.json(["merge", "try"])?;
    assert_eq!(merged["conflicts"].as_array().unwrap().len(), 1, "{merged}");
    let both = |dir: &Path| -> Result<Vec<String>> {
        let mut texts: Vec<String> =
            files(dir)?.into_iter().filter(|(name, _)| name.starts_with("new")).map(|(_, text)| text).collect();
        texts.sort();
        Ok(texts)
    };
    assert_eq!(both(&main)?, ["of main\n", "of the branch\n"]);
    fs::write(branch.join("other"), "since")?;
    agent.json(["merge", "main", branch.to_str().unwrap()])?;
    assert_eq!(both(&branch)?, ["of main\n", "of the branch\n"]);

    // Each has all of the other now, and says so however often it is asked.
    agent.json(["merge", "try"])?;
    assert_eq!(files(&main)?, files(&branch)?);
    for _ in 0..2 {
        assert_eq!(agent.json(["merge", "main", branch.to_str().unwrap()])?["already"], true);
        assert_eq!(agent.json(["merge", "try"])?["already"], true);
    }
    agent.json(["merge", "further"])?;
    let log = messages(&agent, &[])?;
    assert!(log.ends_with(&["second".to_owned(), "first".to_owned()]), "{log:?}");
    agent.json(["branch", "--delete", "further"])?;
    agent.json(["branch", "--delete", "try"])?;
    Ok(())
}

#[test]
fn what_was_put_back_since_a_branch_was_merged_is_not_undone_by_the_next_merge() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let agent = Agent::held_on(&mesh, 5)?;
    let file = agent.mount().join("f");
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n6\n7\n8\n{last}\n");
    fs::write(&file, lines("a", "z"))?;
    agent.sync()?;
    agent.json(["branch", "dev"])?;
    let branch = agent.mount().join(".branches/dev/f");
    fs::write(&branch, lines("A", "z"))?;
    agent.json(["merge", "dev"])?;
    assert_eq!(fs::read_to_string(&file)?, lines("A", "z"));
    fs::write(&file, lines("a", "z"))?;
    fs::write(&branch, lines("A", "Z"))?;
    let merged = agent.json(["merge", "dev"])?;
    assert_eq!(merged["conflicts"], Value::Array(vec![]), "{merged}");
    assert_eq!(fs::read_to_string(&file)?, lines("a", "Z"));
    Ok(())
}

/// Asks again and again until it is so.
fn wait_for(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(150);
    while !is_so() {
        ensure!(Instant::now() < until, "{what}: it does not come to that");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn a_branch_that_one_device_makes_and_lets_go_of_comes_and_goes_on_another_by_itself() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let one = Agent::up_on(&mesh, 5)?;
    fs::write(one.mount().join("f"), "at first")?;
    one.sync()?;
    let two = Agent::empty()?;
    fs::copy(one.scratch().join("words"), two.scratch().join("words"))?;
    let ran = two.recover(&["--join", mesh.link()])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    two.up()?;
    two.wait_for_peers(5)?;
    assert_eq!(files(&two.mount())?, [("f".into(), "at first".into())]);

    one.json(["branch", "try"])?;
    one.json(["branch", "unused"])?;
    one.sync()?;
    two.sync()?;
    let [branch, unused] = ["try", "unused"].map(|name| two.mount().join(".branches").join(name));
    wait_for("a branch that another device has made is here", || branch.exists() && unused.exists())?;
    assert_eq!(files(&branch)?, [("f".into(), "at first".into())]);
    fs::write(branch.join("f"), "in the branch")?;
    fs::write(branch.join("new"), "by the other device")?;
    two.sync()?;

    one.json(["merge", "try"])?;
    assert_eq!(fs::read_to_string(one.mount().join("f"))?, "in the branch");
    assert_eq!(fs::read_to_string(one.mount().join("new"))?, "by the other device");
    one.json(["branch", "--delete", "try"])?;
    // Nobody has changed anything in it.
    one.json(["branch", "--delete", "unused"])?;
    one.sync()?;
    two.sync()?;
    wait_for("what was merged and let go of is gone", || !branch.exists())?;
    wait_for("what nobody has entered and somebody has let go of is gone", || !unused.exists())?;
    assert_eq!(names(&two.mount().join(".branches")), Vec::<String>::new());
    assert_eq!(files(&two.mount())?, files(&one.mount())?);
    // Nobody brings it back.
    for agent in [&two, &one] {
        assert_eq!(agent.json(["branch"])?, Value::Array(vec![]));
    }
    Ok(())
}

/// A device whose main tree has become that of a branch has something new, also for whoever counts what was changed here.
#[test]
fn what_was_taken_over_from_a_branch_is_seen_by_a_device_that_was_away_and_has_changes_of_its_own() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let one = Agent::held_on(&mesh, 5)?;
    fs::write(one.mount().join("f"), "at first")?;
    one.sync()?;
    let two = Agent::empty()?;
    fs::copy(one.scratch().join("words"), two.scratch().join("words"))?;
    let ran = two.recover(&["--join", mesh.link()])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    two.up_with(&["--hold"])?;
    two.wait_for_peers(5)?;
    assert_eq!(files(&two.mount())?, [("f".into(), "at first".into())]);

    one.json(["branch", "try"])?;
    one.sync()?;
    two.sync()?;
    fs::write(two.mount().join("by two"), "while it was away")?;
    let branch = one.mount().join(".branches/try");
    fs::write(branch.join("by one"), "in the branch")?;
    one.json(["snap", "-m", "in the branch", branch.to_str().unwrap()])?;
    one.json(["merge", "main", branch.to_str().unwrap()])?;
    one.json(["merge", "try"])?;
    one.json(["branch", "--delete", "try"])?;
    one.sync()?;
    let log = messages(&one, &[])?;
    assert!(log.contains(&"in the branch".to_owned()), "{log:?}");

    two.sync()?;
    wait_for("both have all of both", || {
        let all = [&one, &two].map(|agent| agent.sync().and_then(|_| files(&agent.mount())));
        all.into_iter().all(|all| all.is_ok_and(|all| all.len() == 3))
    })?;
    assert_eq!(fs::read_to_string(two.mount().join("by one"))?, "in the branch");
    assert_eq!(fs::read_to_string(one.mount().join("by two"))?, "while it was away");
    for agent in [&one, &two] {
        assert!(messages(agent, &[])?.contains(&"in the branch".to_owned()));
    }
    Ok(())
}

/// All that a merge has brought, and where it lies, is told by the main tree alone.
#[test]
fn what_was_merged_is_read_by_a_device_that_never_knew_the_branch() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let one = Agent::held_on(&mesh, 5)?;
    let main = one.mount();
    let text = |from: u32| (from..from + 30_000).map(|number| format!("{number}\n")).collect::<String>();
    fs::create_dir(main.join("dir"))?;
    fs::write(main.join("dir/first"), text(0))?;
    one.sync()?;
    one.json(["branch", "try"])?;
    let branch = main.join(".branches/try");
    let write = |dir: &Path, name: &str, from: u32| -> Result<()> {
        fs::create_dir_all(dir.join(name))?;
        fs::write(dir.join(name).join("new"), text(from))?;
        fs::hard_link(dir.join(name).join("new"), dir.join(format!("{name} linked")))?;
        fs::write(dir.join("dir").join(name), text(from + 1))?;
        Ok(())
    };
    // Both have changed something,
    write(&branch, "branch", 100)?;
    write(&main, "main", 200)?;
    one.json(["snap", "-m", "in the branch", branch.to_str().unwrap()])?;
    fs::write(branch.join("dir/first"), text(300))?;
    one.json(["merge", "try"])?;
    one.json(["merge", "main", branch.to_str().unwrap()])?;
    // or only the branch has, and main becomes what it is.
    write(&branch, "later", 400)?;
    one.json(["merge", "try"])?;
    one.json(["branch", "--delete", "try"])?;
    one.sync()?;
    let read = |main: &Path| -> Result<Vec<String>> {
        let names = ["dir/first", "dir/branch", "dir/main", "dir/later", "branch/new", "main/new", "later/new"];
        let links = ["branch linked", "main linked", "later linked"];
        let read = |name: &&str| fs::read_to_string(main.join(name)).with_context(|| (*name).to_owned());
        names.iter().chain(&links).map(read).collect()
    };
    let all = read(&main)?;
    assert_eq!(all, [300, 101, 201, 401, 100, 200, 400, 100, 200, 400].map(text));

    let two = Agent::empty()?;
    fs::copy(one.scratch().join("words"), two.scratch().join("words"))?;
    one.kill()?;
    let ran = two.recover(&["--join", mesh.link()])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    two.up()?;
    two.wait_for_peers(5)?;
    assert_eq!(read(&two.mount())?, all);
    let snapshots = two.mount().join(".snapshots");
    let taken = names(&snapshots);
    let in_the_branch = |name: &&String| {
        let read = |path: &str| fs::read_to_string(snapshots.join(name).join(path)).ok();
        read("dir/first") == Some(text(0)) && read("branch linked") == Some(text(100))
    };
    assert!(taken.iter().any(|name| in_the_branch(&name)), "{taken:?}");
    Ok(())
}

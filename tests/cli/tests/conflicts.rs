//! Conflicts as a person meets and settles them: by `hn`, on branches, which need one agent only.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Versions that are kept beside others: where, and of what.
fn conflicts(agent: &Agent) -> Result<Vec<(PathBuf, PathBuf)>> {
    let found = agent.json(["conflicts"])?;
    let path = |value: &Value| agent.mount().join(value.as_str().unwrap().trim_start_matches('/'));
    Ok(found.as_array().unwrap().iter().map(|one| (path(&one["path"]), path(&one["file"]))).collect())
}

fn messages(agent: &Agent) -> Result<Vec<String>> {
    let log = agent.json(["log"])?;
    Ok(log.as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect())
}

/// A file: its name, what it holds at first, then in the branch, and in the main volume.
type File<'a> = (&'a str, &'a [u8], &'a [u8], &'a [u8]);

/// An agent with files that were written in a branch and in the main volume, and merged.
fn merged(mesh: &Mesh, files: &[File<'_>]) -> Result<(Agent, Value)> {
    let agent = Agent::on(mesh)?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    let main = agent.mount();
    fs::create_dir(main.join("dir"))?;
    for (name, base, ..) in files {
        fs::write(main.join(name), base)?;
    }
    agent.json(["branch", "try"])?;
    for (name, _, branch, own) in files {
        fs::write(main.join(".branches/try").join(name), branch)?;
        fs::write(main.join(name), own)?;
    }
    let merged = agent.json(["merge", "try"])?;
    Ok((agent, merged))
}

#[test]
fn texts_are_merged_line_by_line_where_that_is_clear() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let base: String = (0..500).map(|line| format!("line {line}\n")).collect();
    let (branch, own) = (base.replace("line 7\n", "branch\n"), base.replace("line 470\n", "main\n"));
    let files: [File<'_>; 3] = [
        ("dir/clear", base.as_bytes(), branch.as_bytes(), own.as_bytes()),
        ("overlap", b"a\nb\nc\n", b"a\nbranch\nc\n", b"a\nmain\nc\n"),
        ("binary", b"a\nb\n\0\n", b"A\nb\n\0\n", b"a\nb\n\0!\n"),
    ];
    let (agent, merged) = merged(&mesh, &files)?;
    let main = agent.mount();
    assert_eq!((&merged["texts"], merged["conflicts"].as_array().unwrap().len()), (&1.into(), 2), "{merged}");
    let both = base.replace("line 7\n", "branch\n").replace("line 470\n", "main\n");
    assert_eq!(fs::read_to_string(main.join("dir/clear"))?, both);
    assert_eq!(names(&main.join("dir")), ["clear"]);
    let of: Vec<PathBuf> = conflicts(&agent)?.into_iter().map(|(_, file)| file).collect();
    assert_eq!(of, ["binary", "overlap"].map(|name| main.join(name)));
    // The branch gets the same by merging the other way round.
    agent.json(["merge", "main", text(&main.join(".branches/try"))])?;
    assert_eq!(fs::read_to_string(main.join(".branches/try/dir/clear"))?, both);
    agent.sync()?;
    let found = agent.hn(["fsck"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

#[test]
fn conflicts_are_listed_and_settled_and_what_goes_is_in_a_snapshot() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mesh = Mesh::start(5)?;
    let names_of = ["one", "two.txt", "three", "dir/four", "dir/five"];
    let files = names_of.map(|name| (name, &b"base"[..], &b"by the branch"[..], &b"by main"[..]));
    let (agent, merged) = merged(&mesh, &files)?;
    let main = agent.mount();
    assert_eq!(merged["conflicts"].as_array().unwrap().len(), 5, "{merged}");
    let listed = agent.json(["conflicts"])?;
    let info = &listed.as_array().unwrap()[0];
    assert!(info["size"].as_u64().unwrap() > 0 && info["time_ms"].as_i64().unwrap() > 0, "{info}");
    assert!(!info["device"].as_str().unwrap().starts_with("device "), "it is one that is known: {info}");
    let all = conflicts(&agent)?;
    let version_of = |name: &str| all.iter().find(|(_, file)| *file == main.join(name)).unwrap().0.clone();
    let table = agent.hn(["conflicts"])?.ok()?.stdout;
    assert!(table.starts_with("VERSION") && table.contains("two (conflict of "), "{table}");

    // The file as it is: what the version held is in a snapshot.
    let (one, version) = (main.join("one"), version_of("one"));
    let (kept, gone) = (fs::read(&one)?, fs::read(&version)?);
    let done = agent.json(["resolve", text(&one), "--keep", "file"])?;
    assert_eq!((done["settled"].as_array().unwrap().len(), done["left"].as_array().unwrap().len()), (1, 0), "{done}");
    assert!(!version.exists() && fs::read(&one)? == kept);
    // What came of merging is in one, and nothing has changed since.
    assert_eq!((&done["before"], messages(&agent)?[0].as_str()), (&merged["snapshot"], "Merge try"));
    let name = version.file_name().unwrap();
    let past = names(&main.join(".snapshots")).pop().unwrap();
    assert_eq!(fs::read(main.join(".snapshots").join(past).join(name))?, gone);

    // What the version holds: the file stays the same one, and whoever looks sees the new content.
    let (two, version) = (main.join("two.txt"), version_of("two.txt"));
    let (number, content) = (std::os::unix::fs::MetadataExt::ino(&fs::metadata(&two)?), fs::read(&version)?);
    assert_ne!(fs::read(&two)?, content);
    // It is refused while somebody writes to either.
    for path in [&two, &version] {
        let mut open = fs::OpenOptions::new().append(true).open(path)?;
        open.write_all(b"")?;
        let out = agent.hn(["resolve", text(&version), "--keep", "version"])?;
        ensure!(out.code != Some(0) && out.stderr.contains("in use") && out.stderr.contains("hint:"), "{out:?}");
        assert!(version.exists());
    }
    agent.json(["resolve", text(&version), "--keep", "version"])?;
    assert_eq!(fs::read(&two)?, content);
    assert!(messages(&agent)?[0].starts_with("before resolving /two"));
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&two)?), number);
    assert!(!version.exists());

    // Both: nothing goes, so no snapshot is taken.
    let (before, version) = (messages(&agent)?, version_of("three"));
    let done = agent.json(["resolve", text(&version), "--keep", "both"])?;
    assert_eq!(done["before"], Value::Null);
    assert!(version.exists());
    assert_eq!((messages(&agent)?, conflicts(&agent)?.len()), (before, 2));

    let dir = main.join("dir");
    let refusals: [&[&str]; 5] = [
        &["resolve", text(&one), "--keep", "file"],
        &["resolve", text(&dir), "--keep", "file"],
        &["resolve", text(&one)],
        &["resolve", "--keep", "file"],
        &["resolve", text(&one), "--keep", "something"],
    ];
    for args in refusals {
        let out = agent.hn(args)?;
        ensure!(out.code != Some(0) && !out.stderr.is_empty(), "{args:?}: {out:?}");
    }
    assert_eq!(conflicts(&agent)?.len(), 2);

    // Without a mount, all of a directory; it outlives the process.
    agent.json(["umount"])?;
    agent.json(["resolve", "/dir", "--all", "--keep", "version"])?;
    assert_eq!(agent.json(["conflicts"])?, Value::Array(vec![]));
    let note = agent.hn(["conflicts"])?.ok()?;
    ensure!(note.stderr.contains("nothing is in conflict"), "{note:?}");
    agent.kill()?;
    agent.up_with(&["--hold"])?;
    agent.wait_for_peers(5)?;
    assert_eq!(agent.json(["conflicts"])?, Value::Array(vec![]));
    assert_eq!(names(&main.join("dir")), ["five", "four"]);
    agent.sync()?;
    let found = agent.hn(["fsck"])?;
    ensure!(found.code == Some(0), "{found:?}");
    Ok(())
}

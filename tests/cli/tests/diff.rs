//! `hn diff` as whoever knows git expects it: what it writes is taken by `patch` and by `git apply`.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

fn run(command: &mut Command) -> Result<String> {
    let out = command.env("LC_ALL", "C").output()?;
    let (said, warned) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{command:?}: {said}{warned}");
    Ok(said.into_owned())
}

/// Kinds, modes and contents of all that is there.
fn listing(dir: &Path) -> Result<String> {
    let all = "find . ! -type d -printf '%P %y %m %l\\n' | sort; find . -type f -exec sha256sum {} + | sort";
    run(Command::new("sh").args(["-c", all]).current_dir(dir))
}

fn numbers(to: u32) -> String {
    (1..=to).map(|n| format!("line {n}\n")).collect()
}

/// What there is at first.
fn make(at: &Path) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(at.join(name), text);
    write("numbers", &numbers(60))?;
    write("ends.txt", "one\r\ntwo\r\nthree\r\n")?;
    write("bare", "no\nend")?;
    write("a name", "with a space\n")?;
    write("gone", "it was here\n")?;
    write("run.sh", "#!/bin/sh\n")?;
    write("old name", &numbers(20))?;
    write("same", "the same\n")?;
    fs::create_dir_all(at.join("dir/sub"))?;
    write("dir/one", "1\n")?;
    write("dir/two", "2\n")?;
    write("dir/sub/three", "3\n")?;
    symlink("numbers", at.join("link"))?;
    symlink("gone", at.join("file"))?;
    // What changes places, and what others come in the place of.
    write("left", "left\n")?;
    write("right", "right\n")?;
    write("log", "of yesterday\n")?;
    fs::create_dir(at.join("tree"))?;
    write("tree/leaf", "green\n")?;
    write("stone", "grey\n")?;
    Ok(())
}

/// What somebody does to that.
fn change(at: &Path) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(at.join(name), text);
    write(
        "numbers",
        &numbers(60).replace("line 7\n", "line seven\n").replace("line 40\n", "").replace("line 41\n", "x\ny\nz\n"),
    )?;
    write("ends.txt", "one\r\n2\r\nthree\r\n")?;
    write("bare", "no\nend\n")?;
    write("a name", "with a space\nand more")?;
    fs::remove_file(at.join("gone"))?;
    write("new", "it is here\n")?;
    write("empty", "")?;
    write("say \"ä\"\ttab", "odd\n")?;
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755))?;
    fs::rename(at.join("old name"), at.join("new name"))?;
    write("new name", &numbers(20).replace("line 3\n", "line three\n"))?;
    fs::rename(at.join("same"), at.join("the same"))?;
    fs::rename(at.join("dir"), at.join("moved"))?;
    write("moved/two", "2\n2\n")?;
    write("moved/four", "4\n")?;
    fs::remove_file(at.join("link"))?;
    symlink("new", at.join("link"))?;
    fs::remove_file(at.join("file"))?;
    write("file", "not a link any more\n")?;
    fs::rename(at.join("log"), at.join("log.1"))?;
    write("log", "of today\n")?;
    Ok(())
}

/// Files become directories, and the other way round; two of them change places.
fn change_places(at: &Path) -> Result<()> {
    fs::rename(at.join("left"), at.join("between"))?;
    fs::rename(at.join("right"), at.join("left"))?;
    fs::rename(at.join("between"), at.join("right"))?;
    fs::remove_dir_all(at.join("tree"))?;
    fs::write(at.join("tree"), "cut\n")?;
    fs::remove_file(at.join("stone"))?;
    fs::create_dir(at.join("stone"))?;
    Ok(fs::write(at.join("stone/wall"), "grey\n")?)
}

/// What is no text, or nothing that a patch can hold.
fn change_more(at: &Path) -> Result<()> {
    fs::write(at.join("bytes"), b"a\0b")?;
    fs::write(at.join("new"), b"\xff\xfe")?;
    fs::write(at.join("long"), numbers(150_000))?;
    fs::write(at.join("lines"), numbers(60_000))?;
    fs::create_dir(at.join("bare dir"))?;
    fs::set_permissions(at.join("moved/sub"), fs::Permissions::from_mode(0o700))?;
    run(Command::new("mkfifo").arg(at.join("pipe"))).map(drop)
}

struct World {
    _mesh: Mesh,
    agent: Agent,
    /// What the first snapshot has, outside of the mount.
    first: PathBuf,
    patches: u32,
}

impl World {
    fn start() -> Result<Self> {
        let mesh = Mesh::start(4)?;
        let agent = Agent::on(&mesh)?;
        agent.up_with(&["--hold"])?;
        agent.wait_for_peers(4)?;
        let first = agent.scratch().join("first");
        fs::create_dir(&first)?;
        make(&first)?;
        make(&agent.mount())?;
        agent.json(["snap", "-m", "first"])?;
        agent.json(["tag", "first"])?;
        Ok(Self { _mesh: mesh, agent, first, patches: 0 })
    }

    fn diff(&self, args: &[&str]) -> Result<String> {
        let out = self.agent.hn([&["diff"], args].concat())?.ok()?;
        ensure!(out.stderr.is_empty(), "{out:?}");
        Ok(out.stdout)
    }

    /// What becomes of the first one by this program, which reads a patch.
    fn applied(&mut self, patch: &str, program: &[&str]) -> Result<String> {
        self.patches += 1;
        let dir = self.agent.scratch().join(format!("patched{}", self.patches));
        run(Command::new("cp").arg("-a").args([&self.first, &dir]))?;
        let file = self.agent.scratch().join("patch");
        fs::write(&file, patch)?;
        let mut command = Command::new(program[0]);
        // Git would take a repository above for its own.
        command.args(&program[1..]).current_dir(&dir).env("GIT_CEILING_DIRECTORIES", self.agent.scratch());
        run(command.stdin(File::open(&file)?))?;
        listing(&dir)
    }
}

#[test]
fn what_has_changed_in_files_is_a_patch_for_other_programs() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mut world = World::start()?;
    let mount = world.agent.mount();
    assert_eq!(world.diff(&[])?, "");
    // From the mesh, before it is there, and without a mount.
    change(&mount)?;
    let now = listing(&mount)?;
    let patch = world.diff(&[])?;
    world.agent.sync()?;
    assert_eq!(world.diff(&[])?, patch);
    world.agent.json(["snap", "-m", "second"])?;
    world.agent.json(["tag", "second"])?;
    world.agent.hn(["umount"])?.ok()?;
    assert_eq!(world.diff(&["first..second"])?, patch);
    world.agent.hn(["mount"])?.ok()?;

    for (lines, git) in
        [("3", &["git", "apply"][..]), ("0", &["git", "apply", "--unidiff-zero"]), ("1000", &["git", "apply"])]
    {
        let patch = world.diff(&["-U", lines, "first..second"])?;
        assert_eq!(world.applied(&patch, &["patch", "-p1", "--fuzz=0"])?, now, "{patch}");
        assert_eq!(world.applied(&patch, git)?, now, "{patch}");
    }
    let has = |text: &str| assert!(patch.contains(text), "{text:?} is missing:\n{patch}");
    has(
        "diff --git a/bare b/bare\n--- a/bare\n+++ b/bare\n@@ -1,2 +1,2 @@\n no\n-end\n\\ No newline at end of file\n+end\n",
    );
    has("@@ -4,7 +4,7 @@\n line 4\n line 5\n line 6\n-line 7\n+line seven\n line 8\n");
    has("@@ -37,8 +37,9 @@\n line 37\n line 38\n line 39\n-line 40\n-line 41\n+x\n+y\n+z\n line 42\n");
    has(" one\r\n-two\r\n+2\r\n three\r\n");
    has("old mode 100644\nnew mode 100755\n");
    has("similarity index 100%\nrename from same\nrename to the same\n");
    has("rename from old name\nrename to new name\n--- a/old name\t\n+++ b/new name\t\n");
    has("rename from dir/sub/three\nrename to moved/sub/three\n");
    has("deleted file mode 120000\n");
    has("new file mode 100644\n--- /dev/null\n+++ \"b/say \\\"ä\\\"\\ttab\"\n");

    // Of that git alone makes sense.
    change_places(&mount)?;
    let patch = world.diff(&["first"])?;
    assert_eq!(world.applied(&patch, &["git", "apply"])?, listing(&mount)?, "{patch}");

    // A place alone, and numbers as git has them.
    let numbers = mount.join("numbers");
    let of_numbers = world.diff(&["first..second", numbers.to_str().unwrap()])?;
    assert_eq!(of_numbers.matches("diff --git").count(), 1, "{of_numbers}");
    let stat = world.diff(&["--stat", "first..second", numbers.to_str().unwrap()])?;
    assert_eq!(stat, " numbers | 7 ++++---\n 1 file changed, 4 insertions(+), 3 deletions(-)\n");
    let names = world.diff(&["--name-only", "first..second"])?;
    assert!(names.lines().any(|line| line == "moved/four") && !names.contains("sub"), "{names}");
    Ok(())
}

#[test]
fn what_no_patch_holds_is_said_and_bounded() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let mut world = World::start()?;
    change(&world.agent.mount())?;
    let now = listing(&world.agent.mount())?;
    world.agent.json(["snap", "-m", "second"])?;
    change_more(&world.agent.mount())?;
    let patch = world.diff(&["HEAD"])?;
    let has = |text: &str| assert!(patch.contains(text), "{text:?} is missing");
    has("diff --git a/bytes b/bytes\nnew file mode 100644\nindex 000000000000..");
    has("\nBinary files /dev/null and b/bytes differ\n");
    has(
        "# too large to be compared line by line: long\ndiff --git a/long b/long\nnew file mode 100644\nindex 000000000000..",
    );
    has("\nBinary files /dev/null and b/long differ\n");
    let index = patch.split("diff --git a/new b/new\nindex ").nth(1).unwrap();
    let (ids, rest) = index.split_once(" 100644\n").unwrap();
    assert!(ids.split("..").all(|id| id.len() == 12 && id != "000000000000"), "{ids}");
    assert!(rest.starts_with("Binary files a/new and b/new differ\n"), "{rest}");
    // Git takes no such patch, and says of which file.
    let refused = world.applied(&patch, &["git", "apply"]).unwrap_err().to_string();
    assert!(refused.contains("cannot apply binary patch to 'bytes' without full index line"), "{refused}");
    has("# new directory: bare dir/\n");
    has("# directory of mode 700, before 755: moved/sub/\n");
    has("# new special file: pipe\n");
    has("@@ -0,0 +1,60000 @@\n+line 1\n");
    // None of that hinders `patch`.
    let whole = world.diff(&["first"])?;
    let patched = world.applied(&whole, &["patch", "-p1"])?;
    let is_there = |line: &&str| !line.contains("new") || line.contains("name");
    for line in now.lines().filter(is_there) {
        assert!(patched.contains(line), "{line} is missing in\n{patched}");
    }
    let told = world.agent.hn(["diff", "--stat", "HEAD"])?.ok()?;
    assert_eq!(told.stderr, "lines of 1 file are not counted: too large to be compared\n");
    let stat = told.stdout;
    let is_large = |line: &str| line.starts_with(" long ") && line.contains("| Large 0 -> ");
    assert!(stat.lines().any(is_large), "{stat}");
    let is_new = |line: &str| line.starts_with(" new ") && line.ends_with("|   Bin 11 -> 2 bytes");
    assert!(stat.lines().any(is_new), "{stat}");
    assert!(stat.ends_with(" 7 files changed, 60000 insertions(+)\n"), "{stat}");

    // For programs: a list, as without it, with what has changed in texts.
    let json = world.agent.json(["diff", "first..HEAD"])?;
    let of = |path: &str| json.as_array().unwrap().iter().find(|change| change["after"]["path"] == path).cloned();
    let bare = of("bare").unwrap();
    assert_eq!((&bare["text"]["added"], &bare["text"]["removed"]), (&Value::from(1), &Value::from(1)), "{bare}");
    assert!(bare["text"]["hunks"].as_str().unwrap().starts_with("@@ -1,2 +1,2 @@\n"), "{bare}");
    assert_eq!(of("moved").unwrap()["before"]["path"], "dir");
    assert_eq!(of("moved/sub/three"), None);
    let json = world.agent.json(["diff", "HEAD"])?;
    let bytes = json.as_array().unwrap().iter().find(|change| change["after"]["path"] == "bytes").cloned().unwrap();
    assert_eq!((&bytes["binary"], &bytes["text"]), (&Value::Bool(true), &Value::Null), "{bytes}");
    let long = json.as_array().unwrap().iter().find(|change| change["after"]["path"] == "long").cloned().unwrap();
    assert_eq!(
        (&long["large"], &long["binary"], &long["text"]),
        (&Value::Bool(true), &Value::Null, &Value::Null),
        "{long}"
    );

    // Whoever reads no more gets no error.
    let mut diff = world.agent.command(["diff", "HEAD"])?;
    let mut diff = diff.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let head = Command::new("head").args(["-n", "1"]).stdin(diff.stdout.take().unwrap()).output()?;
    assert_eq!(String::from_utf8_lossy(&head.stdout).lines().count(), 1);
    let said = std::io::read_to_string(diff.stderr.take().unwrap())?;
    diff.wait()?;
    assert_eq!(said, "");
    for args in [&["diff", "-U", "x"][..], &["diff", "--stat", "--name-only"], &["diff", "-U", "1", "--stat"]] {
        assert_eq!(world.agent.hn(args)?.code, Some(64), "{args:?}");
    }
    Ok(())
}

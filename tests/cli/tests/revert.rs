//! `hn revert` as a person uses it: what one snapshot has changed is undone, and what came later stays.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use hypernet_kit::hn::Ran;
use hypernet_kit::machine::{Need, has};
use hypernet_kit::tree::{Generator, differences};
use hypernet_kit::{Agent, Mesh};
use serde_json::Value;

struct World {
    _mesh: Mesh,
    agent: Agent,
    mount: PathBuf,
}

fn lines(to: u32) -> String {
    (1..=to).map(|n| format!("line {n}\n")).collect()
}

impl World {
    fn start() -> Result<Self> {
        let mesh = Mesh::start(4)?;
        let agent = Agent::held_on(&mesh, 4)?;
        let mount = agent.mount();
        Ok(Self { _mesh: mesh, agent, mount })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap())?;
        Ok(fs::write(path, text)?)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| format!("{name}: {error}"))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(fs::rename(self.at(from), self.at(to))?)
    }

    fn chmod(&self, name: &str, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode))?)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.at(name)).unwrap().mode() & 0o7777
    }

    fn snap(&self, message: &str) -> Result<String> {
        let taken = self.agent.json(["snap", "-m", message])?;
        Ok(taken["snapshot"]["id"].as_str().unwrap().to_owned())
    }

    fn revert(&self, args: &[&str]) -> Result<Ran> {
        self.agent.hn([&["revert"], args].concat())
    }

    /// What was undone and what was left, a line for each.
    fn reverted(&self, args: &[&str]) -> Result<(Vec<String>, Vec<String>)> {
        let ran = self.revert(args)?;
        let left: Vec<String> =
            ran.stderr.lines().filter(|line| line.contains(" is left: ")).map(str::to_owned).collect();
        ensure!(ran.code == Some(if left.is_empty() { 0 } else { 75 }), "{ran:?}");
        Ok((ran.stdout.lines().map(str::to_owned).collect(), left))
    }

    fn snapshots(&self) -> Result<Vec<Value>> {
        Ok(self.agent.json(["log"])?.as_array().unwrap().clone())
    }

    fn letters(&self, args: &[&str]) -> Result<Vec<String>> {
        let ran = self.agent.hn([&["diff", "--name-status"], args].concat())?.ok()?;
        Ok(ran.stdout.lines().map(str::to_owned).collect())
    }

    /// All that is there, kept outside.
    fn keep(&self, name: &str) -> Result<PathBuf> {
        let kept = self.agent.scratch().join(name);
        ensure!(Command::new("cp").arg("-a").args([&self.mount, &kept]).status()?.success(), "cp -a failed");
        Ok(kept)
    }

    /// Times of directories aside: something was put into them.
    #[track_caller]
    fn assert_is(&self, kept: &Path) {
        let mut found = differences(kept, &self.mount).unwrap();
        found.retain(|line| !line.contains("mtime"));
        assert!(found.is_empty(), "{found:?}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What there is at first.
fn make(world: &World) -> Result<()> {
    for name in ["gone", "edited", "a name", "moved", "left", "right", "x", "y", "z", "run.sh", "thing", "log"] {
        world.write(name, &format!("{name} {}", lines(9)))?;
    }
    world.write("old/deep/leaf", "leaf\n")?;
    world.write("old/deep/taken", "taken\n")?;
    world.write("dir/sub/one", "1\n")?;
    world.write("dir/two", "2\n")?;
    world.write("tree/in", "in\n")?;
    symlink("gone", world.at("link"))?;
    symlink("nowhere", world.at("dangling"))?;
    world.chmod("old/deep/leaf", 0o640)?;
    world.chmod("old/deep", 0o750)?;
    let times =
        fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9));
    fs::File::open(world.at("old/deep/leaf"))?.set_times(times)?;
    fs::write(world.mount.join(OsStr::from_bytes(b"odd \xff\n'name")), "odd\n")?;
    Ok(())
}

/// All that can be done to that.
fn change(world: &World) -> Result<()> {
    fs::remove_file(world.at("gone"))?;
    world.write("edited", "other\n")?;
    world.rename("a name", "another\tname")?;
    world.rename("moved", "dir/moved in")?;
    world.write("dir/moved in", "and edited\n")?;
    world.chmod("dir/moved in", 0o600)?;
    world.chmod("run.sh", 0o755)?;
    // In circles.
    world.rename("left", "between")?;
    world.rename("right", "left")?;
    world.rename("between", "right")?;
    world.rename("x", "between")?;
    world.rename("z", "x")?;
    world.rename("y", "z")?;
    world.rename("between", "y")?;
    // A directory goes, and what was in it is elsewhere.
    world.rename("old/deep/taken", "taken")?;
    fs::remove_dir_all(world.at("old"))?;
    world.rename("dir", "new dir")?;
    world.write("new dir/two", "two\n")?;
    world.write("new dir/sub/three", "3\n")?;
    world.write("fresh/er/est", "new\n")?;
    world.rename("new dir/sub/one", "fresh/one")?;
    // What becomes something else.
    fs::remove_dir_all(world.at("tree"))?;
    world.write("tree", "cut\n")?;
    fs::remove_file(world.at("thing"))?;
    world.write("thing/in it", "x\n")?;
    world.rename("log", "log.1")?;
    world.write("log.1", "yesterday\n")?;
    world.write("log", "today\n")?;
    fs::remove_file(world.at("link"))?;
    symlink("elsewhere", world.at("link"))?;
    fs::remove_file(world.at("dangling"))?;
    fs::write(world.mount.join(OsStr::from_bytes(b"odd \xff\n'name")), "even\n")?;
    fs::remove_file(world.mount.join(OsStr::from_bytes(b"odd \xff\n'name")))?;
    fs::write(world.mount.join(OsStr::from_bytes(b"new \xfe")), "even\n")?;
    Ok(())
}

#[test]
fn all_that_a_snapshot_has_changed_is_undone() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    make(&world)?;
    let first = world.snap("first")?;
    let before = world.keep("before")?;
    change(&world)?;
    let second = world.snap("second: \"all\"\nand more")?;
    let after = world.keep("after")?;
    let told = world.letters(&[&format!("{first}..{second}")])?;
    assert!(told.len() > 25, "{told:?}");

    // Said first, and nothing is done.
    let dry = world.reverted(&["HEAD", "-n"])?;
    assert_eq!((&dry.0, dry.1.len()), (&told, 0), "{dry:?}");
    world.assert_is(&after);
    assert_eq!(differences(&after, &world.mount)?, Vec::<String>::new());
    assert_eq!(world.snapshots()?.len(), 2);

    let done = world.reverted(&["HEAD"])?;
    assert_eq!((&done.0, done.1.len()), (&told, 0), "{done:?}");
    world.assert_is(&before);
    assert_eq!(world.letters(&[&first])?, Vec::<String>::new());
    let leaf = fs::metadata(world.at("old/deep/leaf"))?;
    assert_eq!((leaf.mtime(), world.mode("old/deep/leaf"), world.mode("old/deep")), (9, 0o640, 0o750));
    let taken = world.snapshots()?;
    let messages: Vec<&str> = taken.iter().map(|one| one["message"].as_str().unwrap()).collect();
    let reverts = format!("Revert \"second: \"all\"\"\n\nThis reverts snapshot {second}.");
    assert_eq!(messages[..2], [reverts.as_str(), &format!("before reverting {}", &second[..12])]);

    // Once more there is nothing to do, and what was undone can be undone.
    let again = world.revert(&[&second])?.ok()?;
    assert!(again.stdout.is_empty() && again.stderr.contains("nothing of what"), "{again:?}");
    assert_eq!(world.snapshots()?.len(), 4);
    world.reverted(&["HEAD"])?;
    world.assert_is(&after);
    let (undone, left) = world.reverted(&[&second])?;
    assert_eq!((undone, left.len()), (told, 0));
    world.assert_is(&before);
    Ok(())
}

#[test]
fn what_was_changed_since_stays_and_texts_are_merged() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    for name in ["merged", "clash", "bytes", "moved on", "mode", "chmodded", "follows", "gone", "back"] {
        world.write(name, &format!("{name}\n{}", lines(20)))?;
    }
    world.write("dir/in", "1\n")?;
    world.write("renamed", "r\n")?;
    world.snap("first")?;
    let edit = |name: &str, from: &str, to: &str| world.write(name, &world.read(name).replace(from, to));
    for name in ["merged", "clash", "moved on", "mode", "follows", "back"] {
        edit(name, "line 3\n", "line three\n")?;
    }
    fs::write(world.at("bytes"), b"a\0b")?;
    world.chmod("mode", 0o600)?;
    world.chmod("chmodded", 0o700)?;
    fs::remove_file(world.at("gone"))?;
    world.write("new", "new\n")?;
    world.write("new too", "new\n")?;
    world.write("new dir/one", "1\n")?;
    world.write("new dir/two", "2\n")?;
    world.write("dir/in", "2\n")?;
    world.rename("renamed", "renamed once")?;
    let second = world.snap("second")?;
    // And since.
    edit("merged", "line 17\n", "line seventeen\n")?;
    edit("clash", "line three\n", "line drei\n")?;
    fs::write(world.at("bytes"), b"a\0c")?;
    world.rename("moved on", "here")?;
    world.rename("dir", "elsewhere")?;
    world.chmod("mode", 0o666)?;
    world.chmod("chmodded", 0o750)?;
    world.chmod("follows", 0o640)?;
    world.write("gone", "something else\n")?;
    world.write("new", "changed\n")?;
    world.write("new dir/three", "3\n")?;
    edit("back", "line three\n", "line 3\n")?;
    world.write("later", "later\n")?;
    world.rename("renamed once", "renamed twice")?;

    let (undone, left) = world.reverted(&["HEAD"])?;
    let expected =
        ["M  dir/in", "M  follows", "M  merged", "M  mode", "M  moved on", "A  new dir/one", "A  new dir/two"];
    let mut told = undone.clone();
    told.retain(|line| line != "A  'new too'");
    assert_eq!(
        told,
        expected.map(|line| line
            .replace("moved on", "'moved on'")
            .replace("new dir/one", "'new dir/one'")
            .replace("new dir/two", "'new dir/two'")),
        "{undone:?}"
    );
    assert_eq!(undone.len(), told.len() + 1);
    let reasons = [
        "bytes is left: it was changed since",
        "chmodded is left: its mode was changed since",
        "clash is left: it was changed since, in the same lines",
        "gone is left: something else is in its place",
        "mode is left: its mode was changed since",
        "new is left: it was changed since",
        "'new dir'/ is left: it is not empty",
        "'renamed once' is left: it has another name since: 'renamed twice'",
    ];
    assert_eq!(left, reasons);
    assert_eq!(world.read("merged"), format!("merged\n{}", lines(20)).replace("line 17\n", "line seventeen\n"));
    assert!(world.read("clash").contains("line drei\n") && !world.read("clash").contains("<<<"));
    assert_eq!(fs::read(world.at("bytes"))?, b"a\0c");
    assert_eq!(world.read("here"), format!("moved on\n{}", lines(20)));
    assert_eq!((world.read("elsewhere/in"), world.read("mode")), ("1\n".into(), format!("mode\n{}", lines(20))));
    assert_eq!((world.mode("mode"), world.mode("chmodded"), world.mode("follows")), (0o666, 0o750, 0o640));
    assert_eq!(
        (world.read("gone"), world.read("new"), world.read("later")),
        ("something else\n".into(), "changed\n".into(), "later\n".into())
    );
    assert_eq!(names(&world.at("new dir")), ["three"]);
    assert_eq!(names(&world.mount).iter().filter(|name| name.starts_with('.')).count(), 0);

    // Nothing is done twice, and what was settled is done.
    let count = world.snapshots()?.len();
    let (undone, again) = world.reverted(&[&second])?;
    assert_eq!((undone.len(), again), (0, left));
    assert_eq!(world.snapshots()?.len(), count);
    let ran = world.agent.hn(["--json", "revert", &second, "--no-snap"])?;
    let json = ran.json()?;
    assert_eq!((ran.code, json["left"].as_array().unwrap().len()), (Some(75), 8), "{json}");
    assert_eq!(json["left"][2]["change"]["after"]["path"], "clash");
    assert_eq!((&json["snapshot"], &json["before"]), (&Value::Null, &Value::Null), "{json}");
    edit("clash", "line drei\n", "line 3\n")?;
    fs::remove_file(world.at("gone"))?;
    let (undone, left) = world.reverted(&[&second, "--no-snap"])?;
    assert_eq!((undone, left.len()), (vec!["D  gone".to_owned()], 6));
    assert_eq!(world.snapshots()?.len(), count + 1);
    Ok(())
}

#[test]
fn only_what_is_named_is_undone_and_what_names_nothing_is_refused() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    let says = |args: &[&str], code: i32, words: &str, hint: &str| -> Result<()> {
        world.revert(args)?.fails(code, words, hint);
        Ok(())
    };
    says(&["HEAD"], 66, "there is no snapshot yet", "hn snap")?;
    world.write("a/one", "1\n")?;
    world.write("b/one", "1\n")?;
    world.snap("first")?;
    says(&["HEAD"], 64, "is the first one", "hn log")?;
    says(&["nothing"], 66, "there is no snapshot or tag nothing", "hn log")?;
    says(&["@{no time}"], 64, "is no time", "yesterday")?;
    world.rename("a", "c")?;
    world.write("c/one", "2\n")?;
    world.write("c/two", "2\n")?;
    world.write("b/one", "2\n")?;
    fs::remove_file(world.at("b/one"))?;
    let second = world.snap("second")?;
    let at = |name: &str| world.at(name).to_str().unwrap().to_owned();
    assert_eq!(world.reverted(&[&second, &at("c/two")])?.0, ["A  c/two"]);
    assert_eq!(world.reverted(&[&second, &at("b")])?.0, ["D  b/one"]);
    assert_eq!((world.read("b/one"), world.read("c/one")), ("1\n".into(), "2\n".into()));
    // Where one stands does not matter.
    let ran = hypernet_kit::hn::run(world.agent.command(["revert", &second])?.current_dir(world.at("b")))?.ok()?;
    assert_eq!(ran.stdout, "R  a/ -> c/\nM  c/one\n");
    assert_eq!((names(&world.mount), world.read("a/one")), (vec!["a".to_owned(), "b".into()], "1\n".into()));
    let out = world.revert(&[&second, "/tmp"])?;
    out.fails(64, "is not below the mount", "below the mount");
    world.agent.json(["snap", "prune", "HEAD~", "--all"]).ok();
    world.agent.hn(["umount"])?.ok()?;
    says(&[&second], 64, "nothing is mounted", "hn mount")
}

#[test]
fn what_is_in_use_or_behind_a_link_or_another_volume_is_left() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    for name in ["open", "dir/in", "vol/in", "busy"] {
        world.write(name, "1\n")?;
    }
    world.snap("first")?;
    for name in ["open", "dir/in", "vol/in", "names", "fresh"] {
        world.write(name, "2\n")?;
    }
    fs::remove_file(world.at("busy"))?;
    world.write("vol/new", "2\n")?;
    let second = world.snap("second")?;
    // The directory is a link now to another one, and it is not to be followed.
    let outside = world.agent.scratch().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("in"), "2\n")?;
    world.rename("dir", "dir.old")?;
    symlink(&outside, world.at("dir"))?;
    fs::hard_link(world.at("fresh"), world.at("names too"))?;
    let open = fs::OpenOptions::new().append(true).open(world.at("open"))?;
    let (undone, left) = world.reverted(&["HEAD", "--no-snap"])?;
    assert_eq!(undone, ["D  busy", "M  dir/in", "A  names", "M  vol/in", "A  vol/new"]);
    assert_eq!(left, ["fresh is left: it has another name since", "open is left: somebody has it open for writing"]);
    assert_eq!((fs::read_to_string(outside.join("in"))?, world.read("dir.old/in")), ("2\n".into(), "1\n".into()));
    assert_eq!((world.read("open"), world.read("names too")), ("2\n".into(), "2\n".into()));
    drop(open);
    fs::remove_file(world.at("names too"))?;
    assert_eq!(world.reverted(&[&second, "--no-snap"])?, (vec!["A  fresh".into(), "M  open".into()], vec![]));

    // A directory that has become a volume has a history of its own from then on.
    world.snap("between")?;
    world.write("vol/in", "3\n")?;
    fs::remove_file(world.at("busy"))?;
    let third = world.snap("third")?;
    world.agent.json(["volume", "make", world.at("vol").to_str().unwrap()])?;
    let (undone, left) = world.reverted(&[&third, "--no-snap"])?;
    assert_eq!(undone, ["D  busy"]);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(world.read("vol/in"), "3\n");
    Ok(())
}

#[test]
fn whoever_was_killed_goes_on() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    for n in 0..60 {
        world.write(&format!("d{}/sub/f{n}", n % 7), &lines(n))?;
        world.write(&format!("g{n}"), &lines(n))?;
    }
    world.write("d0/big", &lines(200_000))?;
    world.snap("first")?;
    let before = world.keep("before")?;
    for n in 0..60 {
        world.write(&format!("g{n}"), &format!("{n}\n"))?;
        world.write(&format!("new/n{n}"), "n\n")?;
    }
    world.rename("d6", "d7")?;
    world.rename("d5/sub/f5", "five")?;
    for n in 0..5 {
        fs::remove_dir_all(world.at(&format!("d{n}")))?;
    }
    let second = world.snap("second")?;
    for millis in [30, 60, 90, 120, 150, 200, 250, 300, 400] {
        let mut command = world.agent.command(["revert", &second, "--no-snap"])?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(millis));
        child.kill()?;
        child.wait()?;
    }
    let (_, left) = world.reverted(&[&second, "--no-snap"])?;
    assert_eq!(left, Vec::<String>::new());
    world.assert_is(&before);
    assert_eq!(names(&world.mount).iter().filter(|name| name.starts_with('.')).count(), 0);
    Ok(())
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Does something to something.
fn meddle(world: &World, random: &mut Random) {
    let there = all(&world.mount);
    if there.is_empty() {
        return;
    }
    let path = there[random.below(there.len())].clone();
    let dirs: Vec<&PathBuf> = there.iter().filter(|path| path.symlink_metadata().unwrap().is_dir()).collect();
    let dir = if dirs.is_empty() { &world.mount } else { dirs[random.below(dirs.len())] };
    let found = path.symlink_metadata().unwrap();
    let other = &there[random.below(there.len())];
    // What cannot be done is not.
    let _ = match random.below(9) {
        0 | 1 => fs::rename(&path, dir.join(format!("n{}", random.below(20)))),
        2 => fs::rename(&path, other),
        3 if found.is_dir() => fs::remove_dir_all(&path),
        3 => fs::remove_file(&path),
        4 => fs::write(dir.join(format!("n{}", random.below(20))), format!("{}\n", random.below(1_000))),
        5 if found.is_file() && found.nlink() == 1 => fs::write(&path, lines(random.below(30) as u32)),
        6 if !found.is_symlink() => {
            fs::set_permissions(&path, fs::Permissions::from_mode([0o700, 0o755][random.below(2)]))
        }
        7 => fs::create_dir_all(dir.join(format!("n{}/n{}", random.below(20), random.below(20)))),
        8 => fs::remove_file(&path).and_then(|()| symlink("n1", &path)),
        _ => Ok(()),
    };
}

#[test]
fn whatever_was_done_is_undone() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    let world = World::start()?;
    let original = world.agent.scratch().join("original");
    fs::create_dir(&original)?;
    Generator::new(11).fill(&original, 100)?;
    let rounds = std::env::var("HN_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    for seed in 0..rounds {
        if all(&world.mount).len() < 50 {
            let to = world.at(&format!("tree{seed}"));
            ensure!(Command::new("cp").arg("-a").args([&original, &to]).status()?.success(), "cp -a failed");
        }
        world.snap("before")?;
        let before = world.keep(&format!("before{seed}"))?;
        let mut random = Random(seed);
        for _ in 0..10 + random.below(60) {
            meddle(&world, &mut random);
        }
        let done = world.snap("after")?;
        let told = world.letters(&["HEAD~..HEAD"])?;
        let dry = world.reverted(&[&done, "--dry-run"])?;
        assert_eq!((&dry.0, &dry.1), (&told, &vec![]), "{seed}");
        let (undone, left) = world.reverted(&[&done])?;
        assert_eq!((&undone, &left), (&told, &vec![]), "{seed}");
        let mut found = differences(&before, &world.mount)?;
        // A name of a file that has others, too, comes back as a file of its own.
        found.retain(|line| ["mtime", "link count", "hard link"].iter().all(|times| !line.contains(times)));
        assert!(found.is_empty(), "{seed}: {found:?}\n{told:?}");
        assert_eq!(world.reverted(&[&done])?, (vec![], vec![]), "{seed}: {told:#?} {:#?}", world.letters(&[&done])?);
        // The next one begins with what comes of this one.
        world.agent.hn(["revert", "HEAD"])?;

        // And with more that was done since: what is left is left for ever, and all else is done at once.
        for _ in 0..random.below(30) {
            meddle(&world, &mut random);
        }
        let done = world.snap("other")?;
        for _ in 0..random.below(30) {
            meddle(&world, &mut random);
        }
        let parent = world.letters(&[&format!("{done}~..{done}")])?;
        let since = world.letters(&[&done])?;
        let dry = world.reverted(&[&done, "--dry-run"])?;
        let first = world.reverted(&[&done])?;
        assert_eq!(dry, first, "{seed}: {parent:#?} {since:#?}");
        let now = world.letters(&[&done])?;
        let again = world.reverted(&[&done])?;
        // Where something is by now, of which that is told, may be in a directory that was renamed.
        let left =
            |all: Vec<String>| all.iter().map(|line| line.split(" since: ").next().unwrap().to_owned()).collect();
        let [first, left]: [Vec<String>; 2] = [first.1, again.1].map(left);
        assert_eq!((again.0, left), (vec![], first), "{seed}: {parent:#?} {since:#?} {now:#?}");
    }
    Ok(())
}

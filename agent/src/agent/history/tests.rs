//! What people are told of snapshots, over a mesh that is a map.

use hypernet_core::head::Snapshot;
use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::port::{MetaStore, RemoteTree};
use hypernet_core::seal::{Kind as Sealed, Sealer};
use hypernet_fs::fuse::Kernels;
use hypernet_fs::vfs::{Caller, Config, OpenFlags, ROOT, Vfs};
use hypernet_store::worktree::WorkTree;
use parking_lot::{Mutex, ReentrantMutex};
use tempfile::TempDir;

use super::*;
use crate::volume::audit::{Auditor, ROUND};
use crate::volume::double::Mesh;
use crate::volume::health::Counter;
use crate::volume::progress::Meter;
use crate::volume::sync::{Engines, run};
use crate::volumes::{Reader, Volumes};

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const HOUR: u64 = 3_600_000;

/// An agent without its processes.
struct Home {
    _dir: TempDir,
    own: Own,
}

impl Home {
    fn new(mesh: &Mesh) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 1);
        let engines = Arc::new(Engines::new(true));
        let volumes = Volumes::new(volume.clone(), |_| ());
        let tree = Arc::new(WorkTree::open(&dir.path().join("tree")).unwrap());
        let (meta, remote): (Arc<dyn MetaStore>, Arc<dyn RemoteTree>) =
            (tree.clone(), Arc::new(Reader(volumes.clone())));
        let config = Config::new(dir.path().join("files"), volume.id, volume.device.id().tag());
        let vfs = Vfs::open(config, meta, remote).unwrap();
        volume.look_around().unwrap();
        let auditor = Arc::new(Auditor::open(volume.clone(), ROUND).unwrap());
        let own = Own {
            volume,
            volumes,
            tree,
            kernels: Kernels::new(vfs.clone()),
            vfs,
            engines,
            counter: Arc::new(Counter::new()),
            auditor,
            trimmer: None,
            mount: Mutex::new(None),
            branching: ReentrantMutex::new(()),
            sides: Mutex::default(),
            closed: Mutex::default(),
        };
        Self { _dir: dir, own }
    }

    fn past(&self, names: &[&str]) -> Past<'_> {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Past { own: &self.own, volume: self.own.volume.clone(), root: ROOT, names }
    }

    fn write(&self, name: &str, content: &[u8]) {
        let (vfs, flags) = (&self.own.vfs, OpenFlags(libc::O_RDWR));
        let ino = match vfs.lookup(ROOT, name.as_bytes()) {
            Ok(attr) => {
                vfs.open_file(ME, attr.ino, OpenFlags(libc::O_RDWR | libc::O_TRUNC), false).unwrap();
                attr.ino
            }
            Err(_) => vfs.create(ME, ROOT, name.as_bytes(), 0o644, flags, false).unwrap().0.ino,
        };
        vfs.write(ino, 0, content, false).unwrap();
        vfs.release(ino, flags).unwrap();
    }

    fn sync(&self) {
        run(&self.own.volume, &self.own.vfs, &Meter::new()).unwrap();
    }

    fn snap(&self, message: &str) -> Kept {
        self.own.volume.snap(&self.own.vfs, message.into(), false).unwrap().unwrap().kept
    }

    fn keep(&self, snapshot: Snapshot, is_automatic: bool) {
        let by = if is_automatic { By::Policy } else { By::Hand };
        self.own.volume.edit_history(&Edit::Keep { snapshot, by }).unwrap();
    }

    /// Keeps another one of what a snapshot holds.
    fn again(&self, like: &Kept, millis: u64, message: &str, is_automatic: bool) -> SnapshotId {
        let (key, time) = (self.own.volume.device.signing_key(), Hlc { millis, counter: 0 });
        let snapshot = Snapshot::sign(&key, like.snapshot.root.clone(), Vec::new(), time, message.into());
        self.keep(snapshot.clone(), is_automatic);
        snapshot.id()
    }

    fn tag(&self, name: &str, to: SnapshotId) {
        let time = Hlc { millis: 1, counter: 0 };
        self.own.volume.edit_history(&Edit::Name { name: name.into(), to, time }).unwrap();
    }
}

fn messages(all: &[api::SnapshotInfo]) -> Vec<&str> {
    all.iter().map(|one| one.message.as_str()).collect()
}

#[test]
fn what_is_too_much_to_be_told_is_named_all_the_same() {
    let home = Home::new(&Mesh::new(6));
    home.write("first", b"1");
    home.snap("first");
    for number in 0..=CHANGES_MAX {
        home.write(&format!("f{number}"), b"new");
    }
    let many = home.snap("many").snapshot.id().to_string();
    let all = home.past(&[]);
    let shown = all.show("HEAD", false).unwrap();
    assert_eq!((shown.snapshot.id.clone(), shown.changes.len(), shown.too_many), (many, 0, true));
    assert_eq!(all.show("HEAD", true).unwrap(), api::Shown { too_many: false, ..shown });
    assert_eq!(all.diff("HEAD~1", None).unwrap_err().kind, Kind::Data);
    let one = home.past(&["f7"]).show("HEAD", false).unwrap();
    assert_eq!((one.changes.len(), one.too_many), (1, false));
    let first = all.show("HEAD~", false).unwrap();
    assert!(!first.too_many && first.changes.iter().any(|change| change.before.is_none()), "{first:?}");
    assert_eq!(all.show("HEAD~", true).unwrap().changes, []);
}

#[test]
fn a_log_of_a_path_leaves_out_what_nobody_can_read_and_tells_of_the_rest() {
    let home = Home::new(&Mesh::new(6));
    home.write("a", b"one");
    let one = home.snap("one");
    let key = home.own.volume.device.signing_key();
    let root = Sealer::new(&home.own.volume.keys()).seal(Sealed::Root, b"it is in no segment").unwrap().reference;
    let time = Hlc { millis: one.snapshot.time.millis + 1, counter: 0 };
    home.keep(Snapshot::sign(&key, root, vec![], time, "nowhere".into()), false);
    std::thread::sleep(std::time::Duration::from_millis(5));
    home.write("a", b"two");
    home.snap("two");
    assert_eq!(messages(&home.past(&[]).log(None).unwrap()), ["two", "nowhere", "one"]);
    assert_eq!(messages(&home.past(&["a"]).log(None).unwrap()), ["two", "one"]);
    assert_eq!(messages(&home.past(&["a"]).log(Some(1)).unwrap()), ["two"]);
    assert_eq!(home.past(&["b"]).log(None).unwrap(), []);
    // Where nothing can be read that is what is told.
    for id in ["two", "one"].map(|message| {
        let known = home.past(&[]).known().unwrap();
        let kept = known.history.kept.values().find(|kept| kept.snapshot.message == message);
        kept.unwrap().moment()
    }) {
        home.own.volume.edit_history(&Edit::Forget(id)).unwrap();
    }
    assert!(home.past(&["a"]).log(None).unwrap_err().message.contains("snapshot "));
}

#[test]
fn what_a_command_takes_is_found_and_is_not_what_head_means() {
    let home = Home::new(&Mesh::new(6));
    let past = home.past(&[]);
    home.write("a", b"good");
    let good = past.snap("good".into(), false).unwrap().snapshot;
    home.write("a", b"broken");
    let first = past.snap("before restoring a".into(), true).unwrap().snapshot;
    assert_eq!((good.command, first.command, first.automatic), (false, true, false));
    let named = |revision: &str| past.show(revision, true).unwrap().snapshot.message;
    assert_eq!((named("HEAD"), named(&first.id)), ("good".into(), "before restoring a".into()));
    assert_eq!(named(&format!("@{{{}}}", first.time_ms)), "before restoring a");
    home.write("a", b"better");
    past.snap("better".into(), false).unwrap();
    assert_eq!((named("HEAD"), named("HEAD~")), ("better".into(), "good".into()));
    // What is undone is what came after the one directly before, whoever took that.
    let shown = past.show("HEAD", false).unwrap();
    assert_eq!((shown.before.map(|before| before.id), shown.gap, shown.changes.len()), (Some(first.id), false, 1));
    // No policy lets go of it by itself.
    let policy = Some(api::PolicyInfo { last: 1, ..api::PolicyInfo::default() });
    let prune = |all| api::PruneRequest { path: "/".into(), revisions: Vec::new(), policy, all, dry_run: true };
    assert_eq!(past.prune(&prune(false)).unwrap().gone, []);
    assert_eq!(messages(&past.prune(&prune(true)).unwrap().gone), ["good", "before restoring a"]);
    assert_eq!(messages(&past.log(None).unwrap()), ["better", "before restoring a", "good"]);
    let none = past.show("main", true).unwrap_err();
    assert!(none.message.contains("main is a branch"), "{none}");
}

#[test]
fn where_something_between_is_gone_the_one_before_in_time_is_meant_and_that_is_told() {
    let home = Home::new(&Mesh::new(6));
    let past = home.past(&[]);
    let all = ["one", "two", "three"].map(|name| {
        home.write(name, name.as_bytes());
        home.snap(name)
    });
    home.own.volume.edit_history(&Edit::Forget(all[1].moment())).unwrap();
    let shown = past.show("HEAD", false).unwrap();
    let before = |shown: &api::Shown| shown.before.clone().map(|before| before.message);
    assert_eq!((before(&shown), shown.gap, shown.passed_gap), (Some("one".into()), true, false));
    let new = shown.changes.iter().filter(|change| change.before.is_none());
    assert_eq!(
        new.map(|change| change.after.as_ref().unwrap().path.to_str().unwrap()).collect::<Vec<_>>(),
        ["three", "two"]
    );
    let back = past.show("HEAD~", true).unwrap();
    assert_eq!((back.snapshot.message.as_str(), back.passed_gap, back.gap, &back.before), ("one", true, false, &None));
    assert!(past.diff("HEAD~", Some("HEAD")).unwrap().len() >= 2);
    // Whoever lets go of one by such a name meant the one that is gone, perhaps.
    let revisions = vec!["HEAD~".to_owned()];
    let prune = api::PruneRequest { path: "/".into(), revisions, policy: None, all: false, dry_run: false };
    let refused = past.prune(&prune).unwrap_err();
    assert!(refused.message.contains("pruned or unknown"), "{refused}");
    home.own.volume.edit_history(&Edit::Forget(all[0].moment())).unwrap();
    let shown = past.show("HEAD", false).unwrap();
    assert_eq!((before(&shown), shown.gap), (None, true));
    assert!(past.show("HEAD~", true).unwrap_err().message.contains("pruned or unknown"));
}

/// By hand and by a policy, with and without names, in six hours of one day.
fn many(home: &Home) -> Vec<&'static str> {
    home.write("a", b"a");
    let like = home.snap("now");
    let begin = 1_699_920_000_000;
    let all = [
        (0, "automatic 0", true),
        (1, "by hand 1", false),
        (2, "automatic 2", true),
        (3, "named automatic 3", true),
        (4, "automatic 4", true),
        (5, "by hand 5", false),
        (6, "named by hand 6", false),
        (7, "automatic 7", true),
        (8, "automatic 8", true),
    ];
    for (number, message, is_automatic) in all {
        let id = home.again(&like, begin + number * HOUR / 2, message, is_automatic);
        if message.starts_with("named") {
            home.tag(message.split(' ').next_back().unwrap(), id);
        }
    }
    home.own.volume.edit_history(&Edit::Forget(like.moment())).unwrap();
    all.iter().rev().map(|(_, message, _)| *message).collect()
}

#[test]
fn what_is_pruned_by_a_policy_is_what_it_does_not_keep_of_those_that_nobody_asked_for_unless_all_are_meant() {
    let home = Home::new(&Mesh::new(6));
    let before = many(&home);
    let past = home.past(&[]);
    let left = || past.log(None).unwrap();
    assert_eq!(messages(&left()), before);
    let request = |policy: api::PolicyInfo, all, dry_run| api::PruneRequest {
        path: "/".into(),
        revisions: Vec::new(),
        policy: Some(policy),
        all,
        dry_run,
    };
    let hourly = api::PolicyInfo { hourly: 2, ..api::PolicyInfo::default() };
    let last = api::PolicyInfo { last: 1, ..api::PolicyInfo::default() };

    // Who only asks changes nothing.
    let asked = past.prune(&request(hourly, false, true)).unwrap();
    assert_eq!(messages(&asked.gone), ["automatic 0", "automatic 2", "automatic 4"]);
    assert_eq!((asked.left, messages(&left())), (6, before.clone()));
    let everything = past.prune(&request(hourly, true, true)).unwrap();
    assert_eq!(messages(&everything.gone), ["automatic 0", "by hand 1", "automatic 2", "automatic 4", "by hand 5"]);
    assert_eq!(messages(&left()), before);
    assert_eq!(past.prune(&request(api::PolicyInfo::default(), true, false)).unwrap_err().kind, Kind::Usage);

    // What was taken by hand stays, and so does what has a name.
    assert_eq!(past.prune(&request(hourly, false, false)).unwrap(), asked);
    let stay = ["automatic 8", "automatic 7", "named by hand 6", "by hand 5", "named automatic 3", "by hand 1"];
    assert_eq!(messages(&left()), stay);
    assert_eq!(past.prune(&request(hourly, false, false)).unwrap().gone, []);
    past.prune(&request(last, true, false)).unwrap();
    assert_eq!(messages(&left()), ["automatic 8", "named by hand 6", "named automatic 3"]);
    // By its name it is refused, and without one it goes.
    let by_name =
        |name: &str| api::PruneRequest { revisions: vec![name.into()], policy: None, ..request(last, false, false) };
    assert!(past.prune(&by_name("6")).unwrap_err().message.contains("has a name"));
    past.tag(&api::TagRequest { path: "/".into(), name: Some("3".into()), revision: None, delete: true, force: false })
        .unwrap();
    past.prune(&request(last, false, false)).unwrap();
    assert_eq!(messages(&left()), ["automatic 8", "named by hand 6"]);
    home.sync();
    assert_eq!(messages(&left()), ["automatic 8", "named by hand 6"]);
}

#[test]
fn what_cannot_be_proven_of_a_snapshot_is_told() {
    let home = Home::new(&Mesh::new(6));
    home.write("a", &blake3::hash(b"a").as_bytes().repeat(100));
    let one = home.snap("one");
    home.write("b", b"b");
    let two = home.snap("two");
    home.sync();
    let past = home.past(&[]);
    let good = past.verify("HEAD").unwrap();
    assert_eq!((good.known, good.followed, good.gone, &good.problems), (true, 1, 0, &Vec::new()));
    assert_eq!((good.snapshot.message.as_str(), good.inodes), ("two", 3));

    // It follows one that says that it is later.
    let key = home.own.volume.device.signing_key();
    let early = Hlc { millis: one.snapshot.time.millis - 1, counter: 0 };
    let root = two.snapshot.root.clone();
    let backwards = Snapshot::sign(&key, root.clone(), vec![two.snapshot.id()], early, "backwards".into());
    home.keep(backwards.clone(), false);
    let found = past.verify(&backwards.id().to_string()).unwrap();
    assert!(found.known && found.problems.len() == 1, "{found:?}");
    assert!(found.problems[0].contains("says that it is later"), "{found:?}");
    // One that follows that is told of it, too; and of one that is gone only that.
    let time = Hlc { millis: two.snapshot.time.millis + 1, counter: 0 };
    let gone = SnapshotId([7; 32]);
    let after = Snapshot::sign(&key, root.clone(), vec![backwards.id(), gone], time, "after".into());
    home.keep(after, false);
    let found = past.verify("HEAD").unwrap();
    assert_eq!((found.followed, found.gone, found.problems.len()), (3, 1, 1), "{found:?}");

    // Somebody has signed it, and nobody knows who that is.
    let stranger = DeviceKeys::new(Secret::new([99; 32])).signing_key();
    let time = Hlc { millis: two.snapshot.time.millis + 2, counter: 0 };
    home.keep(Snapshot::sign(&stranger, root, vec![two.snapshot.id()], time, "by a stranger".into()), false);
    let found = past.verify("HEAD").unwrap();
    assert_eq!((found.known, found.followed, &found.problems), (false, 2, &Vec::new()));
    assert!(found.snapshot.author.starts_with("device "), "{found:?}");

    // What it holds is in no segment any more.
    home.own.volume.db.clear_segments().unwrap();
    let found = past.verify(&two.snapshot.id().to_string()).unwrap();
    assert!(found.problems.iter().any(|problem| problem.starts_with("a: ")), "{found:?}");
}

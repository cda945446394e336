//! Several devices with a working tree each, over a mesh that is a map.

use std::collections::BTreeMap;

use hypernet_core::head::Snapshot;
use hypernet_core::id::VolumeId;
use hypernet_core::port::{MetaStore, RemoteTree};
use hypernet_core::seal::{Kind, Sealer};
use hypernet_core::tree::{Content, Target, TreeRef};
use hypernet_fs::vfs::{Caller, Config, OpenFlags, ROOT, RenameFlags, SetAttr};
use hypernet_store::worktree::WorkTree;
use tempfile::TempDir;

use super::*;
use crate::volume::catalog::Sizes;
use crate::volume::collect::{Collected, Released};
use crate::volume::double::Mesh;
use crate::volume::follow::Asked;
use crate::volume::sync::run;
use crate::volumes::Reader;

mod apart;
mod copied;
mod cut_off;
mod left_out;
mod links;
mod shared;
mod something;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const ASKED: Asked = Asked { publishes: true, by_somebody: true };
const BELOW: VolumeId = VolumeId([0xb; 16]);

/// What a tree holds by path: the content of files, and the mode of all.
pub(crate) type Tree = BTreeMap<String, (u32, Option<Vec<u8>>)>;

pub(crate) struct Home {
    dir: TempDir,
    pub(crate) volume: Arc<Volume>,
    volumes: Arc<Volumes>,
    pub(crate) vfs: Arc<Vfs>,
    /// What somebody has open.
    open: Mutex<Vec<u64>>,
}

impl Home {
    pub(crate) fn new(mesh: &Mesh, device: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), device);
        Self::of(volume, dir)
    }

    /// That of somebody whose main volume this is.
    fn of(volume: Arc<Volume>, dir: TempDir) -> Self {
        let volumes = Volumes::new(volume.clone(), |_| ());
        let meta: Arc<dyn MetaStore> = Arc::new(WorkTree::open(&dir.path().join("tree")).unwrap());
        let remote: Arc<dyn RemoteTree> = Arc::new(Reader(volumes.clone()));
        let config =
            Config::new(dir.path().join("files"), volume.id, volume.device.id().tag().of_home(volume.identity.home()));
        let vfs = Vfs::open(config, meta, remote).unwrap();
        volume.look_around().unwrap();
        Self { dir, volume, volumes, vfs, open: Mutex::default() }
    }

    pub(crate) fn at(&self, path: &str) -> u64 {
        path.split('/').filter(|name| !name.is_empty()).fold(ROOT, |dir, name| {
            self.vfs.lookup(dir, name.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}")).ino
        })
    }

    fn place<'a>(&self, path: &'a str) -> (u64, &'a [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.at(parent), name.as_bytes())
    }

    pub(crate) fn mkdir(&self, path: &str) {
        let (parent, name) = self.place(path);
        self.vfs.mkdir(ME, parent, name, 0o755).unwrap();
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let (parent, name) = self.place(path);
        let flags = OpenFlags(libc::O_RDWR);
        let ino = match self.vfs.lookup(parent, name) {
            Ok(attr) => {
                self.vfs.open_file(ME, attr.ino, OpenFlags(libc::O_RDWR | libc::O_TRUNC), false).unwrap();
                attr.ino
            }
            Err(_) => self.vfs.create(ME, parent, name, 0o644, flags, false).unwrap().0.ino,
        };
        self.vfs.write(ino, 0, content, false).unwrap();
        self.vfs.release(ino, flags).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let ((parent, name), (dir, to)) = (self.place(from), self.place(to));
        self.vfs.rename(parent, name, dir, to, RenameFlags::Replace).unwrap();
    }

    pub(crate) fn unlink(&self, path: &str) {
        let (parent, name) = self.place(path);
        self.vfs.unlink(parent, name).unwrap();
    }

    pub(crate) fn link(&self, path: &str, to: &str) {
        let (dir, name) = self.place(to);
        self.vfs.link(self.at(path), dir, name).unwrap();
    }

    fn chmod(&self, path: &str, mode: u32) {
        self.vfs.setattr(ME, self.at(path), SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.content(self.at(path))
    }

    fn content(&self, ino: u64) -> Vec<u8> {
        let flags = OpenFlags(libc::O_RDONLY);
        self.vfs.open_file(ME, ino, flags, false).unwrap();
        let mut bytes = vec![0; 1 << 20];
        let len = self.vfs.read(ino, 0, &mut bytes).unwrap();
        self.vfs.release(ino, flags).unwrap();
        bytes.truncate(len);
        bytes
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        self.walk(ROOT, "", &mut tree);
        tree
    }

    fn walk(&self, dir: u64, path: &str, tree: &mut Tree) {
        for entry in self.vfs.readdir(dir, 0).unwrap().iter() {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            if name == "." || name == ".." {
                continue;
            }
            let (attr, path) = (self.vfs.lookup(dir, name.as_bytes()).unwrap(), format!("{path}{name}"));
            let is_dir = attr.kind == hypernet_core::tree::FileKind::Directory;
            tree.insert(path.clone(), (attr.mode & 0o7777, (!is_dir).then(|| self.content(attr.ino))));
            if is_dir {
                self.walk(attr.ino, &format!("{path}/"), tree);
            }
        }
    }

    pub(crate) fn sync(&self) {
        self.sync_of(&self.volume);
    }

    fn sync_of(&self, volume: &Arc<Volume>) {
        run(volume, &self.vfs, &Meter::new()).unwrap();
        links::check(volume);
    }

    /// What an agent does once a day: garbage is collected, and what nobody can need any more is given up at once.
    pub(crate) fn collect(&self) -> Result<(Collected, Released), PortError> {
        let collected = self.volume.collect(&self.vfs, &Meter::new(), false)?;
        run(&self.volume, &self.vfs, &Meter::new())?;
        let released = self.volume.release(&self.vfs, 0)?;
        if self.volume.is_asked()? {
            self.vfs.mark_changed(self.volume.id).unwrap();
        }
        Ok((collected, released))
    }

    /// Asks who else there is.
    pub(crate) fn look(&self) {
        self.volume.identity.look().unwrap();
    }

    pub(crate) fn follow(&self) -> Followed {
        self.follow_of(&self.volume)
    }

    fn follow_of(&self, volume: &Arc<Volume>) -> Followed {
        self.look();
        let followed = volume.follow(&self.vfs, &self.volumes, ASKED, &Meter::new()).unwrap();
        links::check(volume);
        followed
    }

    /// Opens something for reading, for as long as it stays so.
    fn open(&self, ino: u64) {
        if self.vfs.open_file(ME, ino, OpenFlags(libc::O_RDONLY), false).is_ok() {
            self.open.lock().push(ino);
        }
    }

    fn close_all(&self) {
        for ino in std::mem::take(&mut *self.open.lock()) {
            self.vfs.release(ino, OpenFlags(libc::O_RDONLY)).unwrap();
        }
    }

    fn latest(&self) -> Latest {
        state::latest(&self.volume.db).unwrap().unwrap()
    }

    /// A directory becomes a volume.
    fn split(&self, path: &str, id: VolumeId) -> Arc<Volume> {
        self.volume.identity.keystore().change(|keystore| keystore.add_volume(id)).unwrap();
        let below = self.volumes.of(id).unwrap();
        let head = state::next_sequence(&self.volume.db, &self.volume.device.id()).unwrap() - 1;
        let Root { vector, links, .. } = self.latest().root;
        state::put_origin(&below.db, &state::Origin { head, vector, links, ..Default::default() }).unwrap();
        self.vfs.split(self.at(path), id).unwrap();
        below
    }
}

/// Devices that stand on one head.
pub(crate) fn homes(mesh: &Mesh, n: u8, begin: impl Fn(&Home)) -> Vec<Home> {
    let first = Home::new(mesh, 1);
    begin(&first);
    first.sync();
    let mut homes = vec![first];
    for device in 2..=n {
        let home = Home::new(mesh, device);
        let found = home.volume.recover(None, &mut |_| ()).unwrap();
        home.vfs.set_root(home.volume.id, found.root.inode).unwrap();
        homes.push(home);
    }
    for home in &homes {
        home.volume.look_around().unwrap();
    }
    homes
}

/// Everybody hears of everybody until nothing happens any more; then all trees are one.
pub(crate) fn meet(homes: &[Home]) -> Tree {
    homes.iter().for_each(Home::close_all);
    homes.iter().for_each(Home::sync);
    homes.iter().for_each(Home::look);
    for round in 0.. {
        assert!(round < 12, "there is no end of it");
        let followed: Vec<Followed> = homes.iter().map(Home::follow).collect();
        // Whoever has no part in it waits once.
        let again: Vec<Followed> = homes.iter().map(Home::follow).collect();
        if followed.iter().chain(&again).all(|one| *one == Followed::Nothing) {
            break;
        }
    }
    let trees: Vec<Tree> = homes.iter().map(Home::tree).collect();
    for tree in &trees[1..] {
        assert_eq!(tree, &trees[0]);
    }
    trees.into_iter().next().unwrap()
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.keys().map(String::as_str).collect()
}

#[test]
fn what_two_devices_did_apart_from_one_another_is_in_both_trees_and_that_is_the_end() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| {
        home.write("a", b"a");
        home.write("b", b"b");
        home.mkdir("dir");
        home.write("dir/deep", b"deep");
    });
    let [one, two] = &homes[..] else { panic!() };
    one.write("a", b"by one");
    one.write("new one", b"1");
    two.write("b", b"by two");
    two.write("dir/new two", b"2");
    two.unlink("dir/deep");
    let tree = meet(&homes);
    assert_eq!(names(&tree), ["a", "b", "dir", "dir/new two", "new one"]);
    assert_eq!((one.read("b"), two.read("a")), (b"by two".to_vec(), b"by one".to_vec()));
    let (first, second) = (one.latest(), two.latest());
    assert_eq!(first.root, second.root);
    // It is not taken for a change of anybody.
    assert!(first.root.parts.len() == 2 && first.root.vector.len() == 2);
    for home in &homes {
        assert_eq!(home.follow(), Followed::Nothing);
        assert_eq!(run(&home.volume, &home.vfs, &Meter::new()).unwrap().sequence, 0);
    }
    one.write("a", b"and on");
    assert_eq!(meet(&homes)["a"].1, Some(b"and on".to_vec()));
    assert_eq!(one.latest().root.vector, two.latest().root.vector);
}

#[test]
fn a_file_that_got_another_place_here_and_was_written_there_is_one() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| {
        for dir in ["from", "to", "gone", "gone/below"] {
            home.mkdir(dir);
        }
        for file in ["same", "from/moved", "linked", "gone/below/saved", "twice", "mode", "touched"] {
            home.write(file, b"before");
        }
        home.link("twice", "from/twice");
    });
    let [one, two] = &homes[..] else { panic!() };
    one.rename("same", "renamed");
    one.rename("from/moved", "to/moved");
    one.link("linked", "to/link");
    one.rename("gone/below/saved", "saved");
    one.vfs.rmdir(one.at("gone"), b"below").unwrap();
    one.vfs.rmdir(ROOT, b"gone").unwrap();
    one.unlink("from/twice");
    one.chmod("mode", 0o600);
    for file in ["same", "from/moved", "linked", "gone/below/saved", "twice", "mode"] {
        two.write(file, file.as_bytes());
    }
    let tree = meet(&homes);
    let expected = ["from", "linked", "mode", "renamed", "saved", "to", "to/link", "to/moved", "touched", "twice"];
    assert_eq!(names(&tree), expected);
    let content = |path: &str| String::from_utf8(tree[path].1.clone().unwrap()).unwrap();
    let contents = [content("renamed"), content("to/moved"), content("linked"), content("to/link"), content("saved")];
    assert_eq!(contents, ["same", "from/moved", "linked", "linked", "gone/below/saved"]);
    assert_eq!((content("twice"), content("mode"), tree["mode"].0), ("twice".into(), "mode".into(), 0o600));
}

#[test]
fn two_versions_of_a_file_are_kept_under_one_name_on_all_devices() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("notes.txt", b"before"));
    homes[0].write("notes.txt", b"by one");
    homes[1].write("notes.txt", b"by two");
    homes[2].write("other", b"by three");
    let tree = meet(&homes);
    let names = names(&tree);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("notes (conflict of device ") && names[0].ends_with(").txt"), "{names:?}");
    let mut both = [tree[names[0]].1.clone().unwrap(), tree["notes.txt"].1.clone().unwrap()];
    both.sort();
    assert_eq!(both, [b"by one".to_vec(), b"by two".to_vec()]);
    // One of them is taken away, by somebody who has seen both.
    homes[2].unlink(names[0]);
    assert_eq!(meet(&homes).keys().collect::<Vec<_>>(), ["notes.txt", "other"]);
}

#[test]
fn whoever_has_no_part_in_it_leaves_it_to_those_who_have_and_does_it_when_they_do_not() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("a", b"a"));
    homes[0].write("one", b"1");
    homes[1].write("two", b"2");
    homes[0].sync();
    homes[1].sync();
    assert_eq!(homes[2].follow(), Followed::Nothing);
    assert_eq!(homes[2].follow(), Followed::Merged);
    assert_eq!(names(&homes[2].tree()), ["a", "one", "two"]);
    assert_eq!([homes[0].follow(), homes[1].follow()], [Followed::MovedOn; 2]);
    meet(&homes);
}

#[test]
fn a_merge_that_is_broken_off_is_ended_before_anything_else() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    one.write("one", b"1");
    two.write("two", b"2");
    one.sync();
    two.sync();
    // As far as it goes without its head.
    let root = write_down(one);
    assert!(one.volume.advance(&one.vfs, &root).unwrap());
    // And what is changed in it then.
    assert_eq!(names(&one.tree()), ["a", "one", "two"]);
    one.unlink("two");
    one.write("a", b"later");
    one.sync();
    assert_eq!(state::merging(&one.volume.db).unwrap(), None);
    assert_eq!(one.latest().root.vector.len(), 2);
    let tree = meet(&homes);
    assert_eq!(names(&tree), ["a", "one"]);
    assert_eq!(tree["a"].1, Some(b"later".to_vec()));
}

/// What `one` makes of the heads of all is written down, and nothing else.
fn write_down(one: &Home) -> Root {
    one.look();
    let latest = one.latest();
    let survey = one.volume.find_heads(&one.volume.heard_devices()).unwrap();
    let heads: Vec<Head> = survey.found.into_iter().map(|found| found.head).collect();
    let gathered = one.volume.gather(&latest, &heads).unwrap();
    let merged = one.volume.merged(&gathered.trees, &[], &BTreeSet::new(), &heads, &Meter::new()).unwrap();
    one.volume.put_merged(merged, gathered, &[], false).unwrap();
    state::merging(&one.volume.db).unwrap().unwrap().root
}

/// What `one` has merged is written down, and its tree has moved there or not; then it is changed, and everything begins anew.
#[track_caller]
fn break_off(one: &Home, has_moved: bool) {
    let (latest, root) = (one.latest(), write_down(one));
    if has_moved {
        assert!(one.volume.advance(&one.vfs, &root).unwrap());
    }
    one.write("later", b"later");
    // As one that is opened.
    *one.volume.links.lock() = latest.root.links;
}

#[test]
fn what_has_several_names_is_there_wherever_a_merge_was_broken_off() {
    for (has_moved, is_new) in [(true, true), (true, false), (false, true), (false, false)] {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 2, |home| {
            home.mkdir("dir");
            home.write("x", b"x");
            if !is_new {
                home.link("x", "dir/y");
            }
        });
        let [one, two] = &homes[..] else { panic!() };
        one.write("one", b"1");
        match is_new {
            true => two.link("x", "dir/y"),
            // No listing is another one by that.
            false => two.write("x", b"by two"),
        }
        one.sync();
        two.sync();
        break_off(one, has_moved);
        one.sync();
        let tree = meet(&homes);
        assert_eq!(names(&tree), ["dir", "dir/y", "later", "one", "x"], "{has_moved} {is_new}");
        let expected = Some(if is_new { b"x".to_vec() } else { b"by two".to_vec() });
        assert_eq!([&tree["x"].1, &tree["dir/y"].1], [&expected, &expected], "{has_moved} {is_new}");
        for home in &homes {
            assert!(home.vfs.fsck(false).unwrap().problems.is_empty(), "{has_moved} {is_new}");
        }
    }
}

#[test]
fn nothing_is_merged_while_something_is_in_use_and_nothing_is_lost_by_that() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    one.write("a", b"by one");
    two.write("a", b"by two");
    one.sync();
    two.sync();
    let a = one.at("a");
    one.vfs.open_file(ME, a, OpenFlags(libc::O_RDWR), false).unwrap();
    assert_eq!(one.follow(), Followed::Nothing);
    one.vfs.write(a, 0, b"BY ONE", false).unwrap();
    one.vfs.release(a, OpenFlags(libc::O_RDWR)).unwrap();
    assert_eq!(one.follow(), Followed::Nothing, "something waits for the upload");
    let tree = meet(&homes);
    let mut both: Vec<_> = tree.values().map(|(_, content)| content.clone().unwrap()).collect();
    both.sort();
    assert_eq!(both, [b"BY ONE".to_vec(), b"by two".to_vec()]);
}

#[test]
fn a_head_that_has_more_of_a_device_than_that_published_is_not_believed() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    two.write("a", b"by two");
    two.sync();
    let me = Dot { device: one.volume.device.id().tag(), sequence: 9 };
    let head = two.latest().head;
    let vector = join([&head.vector[..], &[me]]);
    two.volume.publish_head(Head { vector, sequence: head.sequence + 1, ..head }, 1).unwrap();
    assert_eq!(one.follow(), Followed::Nothing);
    assert_eq!(one.read("a"), b"a");
}

/// A directory of the first device becomes a volume, and the other one has changed it without having heard of that.
fn split(mesh: &Mesh, n: u8) -> Vec<Home> {
    let homes = homes(mesh, n, |home| {
        home.mkdir("dir");
        home.mkdir("dir/sub");
        home.write("dir/f", b"before");
        home.write("dir/kept", b"kept");
        home.write("dir/linked", b"linked");
        home.link("dir/linked", "dir/sub/link");
        home.write("beside", b"beside");
    });
    let [one, others @ ..] = &homes[..] else { panic!() };
    let below = one.split("dir", BELOW);
    one.write("dir/by one", b"1");
    one.write("beside", b"changed by one");
    one.sync_of(&below);
    one.sync();
    let two = &others[0];
    two.write("dir/f", b"changed by two");
    two.write("dir/sub/by two", b"2");
    two.write("dir/linked", b"linked by two");
    two.write("other", b"2");
    two.sync();
    for (number, home) in others.iter().enumerate().skip(1) {
        home.write(&format!("dir/sub/of {number}"), b"more");
        // Its numbers are not those of the others.
        for _ in 0..2 * number {
            home.write(&format!("elsewhere {number}"), b"anything");
            home.sync();
        }
    }
    homes
}

const AFTER_SPLIT: [&str; 9] =
    ["beside", "dir", "dir/by one", "dir/f", "dir/kept", "dir/linked", "dir/sub", "dir/sub/by two", "dir/sub/link"];

fn assert_split(homes: &[Home]) {
    for home in homes {
        let tree = home.tree();
        assert_eq!(names(&tree)[..9], AFTER_SPLIT);
        assert_eq!(names(&tree)[9..], ["other"]);
        assert_eq!(tree["dir/f"].1, Some(b"changed by two".to_vec()));
        assert_eq!(tree["beside"].1, Some(b"changed by one".to_vec()));
        assert_eq!(tree["dir/sub/link"].1, Some(b"linked by two".to_vec()));
        let rooted = home.vfs.volumes();
        assert!(rooted.iter().any(|rooted| rooted.volume == BELOW && rooted.ino == home.at("dir")), "{rooted:?}");
        assert!(home.vfs.fsck(false).unwrap().problems.is_empty());
    }
}

#[test]
fn what_was_changed_in_a_directory_that_became_a_volume_is_in_the_volume_though_who_made_it_is_away() {
    let mesh = Mesh::new(6);
    let homes = split(&mesh, 2);
    let [one, two] = &homes[..] else { panic!() };
    assert_eq!(two.follow(), Followed::Merged);
    assert_eq!(two.follow(), Followed::Nothing);
    assert_split(&homes[1..]);
    // The other one comes back.
    let below = one.volumes.of(BELOW).unwrap();
    assert_eq!([one.follow_of(&below), one.follow()], [Followed::MovedOn; 2]);
    assert_split(&homes);
    for home in &homes {
        let below = home.volumes.of(BELOW).unwrap();
        assert_eq!([home.follow_of(&below), home.follow()], [Followed::Nothing; 2]);
    }
}

#[test]
fn what_was_changed_in_a_directory_that_became_a_volume_is_handed_to_whoever_uploads_that() {
    let mesh = Mesh::new(6);
    let homes = split(&mesh, 2);
    let [one, two] = &homes[..] else { panic!() };
    let below = one.volumes.of(BELOW).unwrap();
    assert_eq!(one.follow(), Followed::Nothing, "not before it is in the volume");
    assert!(below.take_news() && !below.take_news());
    assert_eq!(one.follow_of(&below), Followed::Merged);
    assert_eq!(one.follow(), Followed::Merged);
    assert_split(&homes[..1]);
    assert_eq!(two.follow(), Followed::MovedOn);
    assert_split(&homes);
}

#[test]
fn whoever_enters_a_volume_while_something_is_merged_into_it_has_that() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| {
        home.mkdir("dir");
        home.write("dir/f", b"before");
    });
    let [one, two, three] = &homes[..] else { panic!() };
    let below = one.split("dir", BELOW);
    one.sync_of(&below);
    one.sync();
    three.volume.identity.keystore().change(|keystore| keystore.add_volume(BELOW)).unwrap();
    assert_eq!(three.follow(), Followed::MovedOn);
    // Somebody has looked for it, and has not waited.
    let below = three.volumes.of(BELOW).unwrap();
    below.recover(None, &mut |_| ()).unwrap();
    assert!(!below.is_here(&three.vfs));
    two.write("dir/by two", b"2");
    two.sync();
    let (before, dir) = (mesh.uploads(), three.at("dir"));
    std::thread::scope(|scope| {
        let followed = scope.spawn(|| three.follow());
        // What is merged is there, and its root is on its way.
        while mesh.uploads() < before + 2 && !followed.is_finished() {
            std::thread::yield_now();
        }
        three.vfs.readdir(dir, 0).unwrap();
        assert_eq!(followed.join().unwrap(), Followed::Merged);
    });
    assert_eq!(
        three.vfs.published(BELOW).unwrap(),
        Some(state::latest(&below.db).unwrap().unwrap().root.inode.content)
    );
    three.write("dir/later", b"3");
    three.sync_of(&below);
    let names = ["dir", "dir/by two", "dir/f", "dir/later"];
    assert_eq!(three.tree().keys().collect::<Vec<_>>(), names);
    one.follow_of(&one.volumes.of(BELOW).unwrap());
    assert_eq!(one.tree().keys().collect::<Vec<_>>(), names);
}

/// Always the same numbers for one seed (SplitMix64; Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
fn what_several_changed_in_a_directory_that_became_a_volume_is_all_in_it() {
    // Whoever does it first, and whether that one has the volume in its tree.
    for first in 0..4 {
        let homes = split(&Mesh::new(6), 4);
        let all = |home: &Home| {
            let names = ["dir/sub/by two", "dir/sub/of 1", "dir/sub/of 2", "dir/by one", "elsewhere 1", "elsewhere 2"];
            names.iter().all(|path| home.tree().contains_key(*path))
        };
        for _ in 0..6 {
            for home in homes.iter().cycle().skip(first).take(4) {
                let below = home.volumes.of(BELOW).unwrap();
                if home.vfs.volumes().iter().any(|rooted| rooted.volume == BELOW && !rooted.is_vacant) {
                    home.sync_of(&below);
                    home.follow_of(&below);
                }
                home.follow();
                // And goes on in it as soon as it has it.
                if home.vfs.volumes().iter().any(|rooted| rooted.volume == BELOW) {
                    let name = format!("later of {}", home.volume.device.id().short());
                    if home.vfs.lookup(home.at("dir"), name.as_bytes()).is_err() {
                        home.write(&format!("dir/{name}"), b"later");
                        home.sync_of(&home.volumes.of(BELOW).unwrap());
                    }
                }
            }
        }
        let trees: Vec<Tree> = homes.iter().map(Home::tree).collect();
        for (home, tree) in homes.iter().zip(&trees) {
            assert!(all(home), "by {first}: {:?}", names(tree));
            assert_eq!(tree.keys().filter(|path| path.starts_with("dir/later of ")).count(), 4, "{:?}", names(tree));
            assert!(!tree.keys().any(|path| path.contains("conflict")), "{:?}", names(tree));
            assert_eq!(tree, &trees[0]);
        }
    }
}

#[test]
fn no_two_heads_of_a_device_have_one_number_whatever_volumes_they_are_of() {
    let mesh = Mesh::new(6);
    let homes = split(&mesh, 2);
    let one = &homes[0];
    let below = one.volumes.of(BELOW).unwrap();
    let handed = |volume: &Volume| state::handed_out(&volume.db).unwrap().unwrap().sequence;
    let mut numbers = vec![handed(&below), handed(&one.volume)];
    for _ in 0..3 {
        one.write("dir/again", &numbers.len().to_be_bytes());
        one.sync_of(&below);
        numbers.push(handed(&below));
        one.write("beside", &numbers.len().to_be_bytes());
        one.sync();
        numbers.push(handed(&one.volume));
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn a_head_that_leads_to_something_else_is_left_out_and_the_others_go_on() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("a", b"a"));
    let [one, two, three] = &homes[..] else { panic!() };
    // Two publishes what is no tree of the volume.
    let latest = two.latest();
    let node = Sealer::new(&two.volume.keys()).seal(Kind::Node, b"it is in no segment").unwrap().reference;
    let nowhere = Content::Directory(TreeRef { node, depth: 0, weight: 1 });
    let stranger = Dot { device: hypernet_core::id::DeviceTag(u64::MAX), sequence: 1 };
    let Content::Directory(tree) = &latest.root.inode.content else { panic!("no directory") };
    let endless = Some(TreeRef { weight: 1 << 40, ..tree.clone() });
    let bent: [&dyn Fn(&mut Root); 8] = [
        &|root| root.inode.id = hypernet_core::id::FileId([9; 16]),
        &|root| root.vector.clear(),
        &|root| root.vector.push(Dot { device: one.volume.device.id().tag(), sequence: u64::MAX }),
        &|root| root.parts = vec![latest.head.snapshot_extent.clone()],
        &|root| root.history.clone_from(&endless),
        &|root| root.tags.clone_from(&endless),
        &|root| root.inode.content = nowhere.clone(),
        &|root| {
            root.inode.content = nowhere.clone();
            root.vector.push(stranger);
        },
    ];
    for (number, bend) in bent.into_iter().enumerate() {
        let sequence = two.volume.take_number().unwrap();
        let mut root = latest.root.clone();
        root.vector = join([&root.vector[..], &[Dot { device: two.volume.device.id().tag(), sequence }]]);
        bend(&mut root);
        let mut writer = Writer::new(two.volume.clone(), Meter::new()).unwrap();
        let at = hypernet_core::tree::Sink::put(&mut writer, Kind::Root, &codec::encode(&root)).unwrap();
        let key = two.volume.device.signing_key();
        let snapshot = Snapshot::sign(&key, at, vec![], latest.time, String::new());
        let extent = hypernet_core::tree::Sink::put(&mut writer, Kind::Snapshot, &codec::encode(&snapshot)).unwrap();
        let plan = writer.plan();
        writer.finish().unwrap();
        let published = two.volume.publish_catalog(&latest.manifest, Sizes::FULL, plan, &Meter::new()).unwrap();
        let mine = Dot { device: two.volume.device.id().tag(), sequence };
        let head = Head {
            sequence,
            vector: join([&latest.head.vector[..], &[mine]]),
            snapshot: snapshot.id(),
            snapshot_extent: extent,
            manifest: published.extent,
            manifest_placement: published.placement,
            ..latest.head.clone()
        };
        let head = two.volume.publish_head(Head { device: two.volume.device.id(), ..head }, 1).unwrap();
        three.write(&format!("of three {number}"), b"3");
        three.sync();
        one.write(&format!("of one {number}"), b"1");
        one.sync();
        for _ in 0..3 {
            for home in [one, three] {
                home.look();
                let _ = home.volume.follow(&home.vfs, &home.volumes, ASKED, &Meter::new());
            }
        }
        assert_eq!(one.tree(), three.tree(), "{number}");
        // What lies nowhere may be there later.
        assert!(number >= 6 || one.volume.is_refused(&head) || three.volume.is_refused(&head), "{number}");
        assert!(one.tree().contains_key(&format!("of three {number}")), "{number}: {:?}", names(&one.tree()));
        one.sync();
    }
}

#[test]
fn the_newest_head_is_found_by_whoever_has_only_the_keys_of_now() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("a", b"a"));
    let [one, two, three] = &homes[..] else { panic!() };
    two.write("b", b"b");
    two.sync();
    let sequence = two.latest().head.sequence;
    let found = |keys: &hypernet_core::key::VolumeKeys| {
        let signer = two.volume.device.head_signer(keys);
        let record = two.volume.peers.lookup(hypernet_core::record::record_key(&signer)).unwrap();
        record.map(|record| record.sequence)
    };
    let before = two.volume.keys();
    one.volume.identity.revoke(&three.volume.device.id()).unwrap();
    two.look();
    let now = two.volume.keys();
    assert_ne!(before.epoch, now.epoch);
    assert_eq!((found(&before), found(&now)), (Some(sequence), None));
    two.follow();
    assert_eq!(found(&now), Some(sequence));
    // It is the same head, and that is the end of it.
    let latest = two.latest();
    assert_eq!((latest.head.sequence, latest.head.snapshot), (sequence, latest.snapshot));
    let handed = state::handed_out(&two.volume.db).unwrap();
    two.follow();
    assert_eq!(state::handed_out(&two.volume.db).unwrap(), handed);
    one.follow();
    assert_eq!(one.read("b"), b"b");
}

#[test]
fn what_cannot_be_moved_to_is_left_out_and_keeps_nothing_from_being_published() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    one.tree();
    two.write("b", b"b");
    two.sync();
    let mut next = two.latest();
    let node = Sealer::new(&two.volume.keys()).seal(Kind::Node, b"it is in no segment").unwrap().reference;
    next.root.inode.content = Content::Directory(TreeRef { node, depth: 0, weight: 1 });
    let head = next.head.clone();
    // What cannot be read now may be there soon; not for ever.
    for is_refused in [false, false, true] {
        state::put_following(&one.volume.db, &next).unwrap();
        one.volume.end_following(&one.vfs, &Meter::new()).unwrap();
        assert!(state::following(&one.volume.db).unwrap().is_none());
        assert_eq!(one.volume.is_refused(&head), is_refused);
    }
    one.write("c", b"c");
    one.sync();
    assert_eq!(one.read("c"), b"c");
    assert!(one.latest().root.vector.iter().any(|dot| dot.device == one.volume.device.id().tag()));
}

//! Heads of which their device does not know whether the mesh has them: it was cut off while they were published.

use super::*;
use crate::identity::homes;

/// Publishes, and is cut off after so many commands.
fn cut_off(mesh: &Mesh, home: &Home, commands: u64) {
    mesh.stop_after(Some(commands));
    let synced = run(&home.volume, &home.vfs, &Meter::new());
    mesh.stop_after(None);
    assert!(synced.is_err(), "it came through");
}

#[test]
fn what_others_have_taken_away_of_a_head_that_its_device_thinks_lost_stays_away() {
    for (restarts, moves) in [(false, false), (true, false), (true, true)] {
        let mesh = Mesh::new(6);
        let mut homes = homes(&mesh, 2, |home| {
            home.mkdir("dir");
            home.write("dir/file", b"begun");
            home.write("linked", b"linked");
            home.link("linked", "dir/too");
            home.write("old", b"old");
            home.write("also old", b"also old");
        });
        let [one, two] = &homes[..] else { panic!() };
        one.write("dir/file", b"by one");
        one.write("linked", b"linked by one");
        one.mkdir("dir/below");
        one.write("dir/below/new", b"new");
        one.write("gone", b"to go");
        // It is cut off later and later, until the other one has its head, and it does not know.
        let commands = (0..).find(|commands| {
            cut_off(&mesh, one, *commands);
            two.follow();
            two.vfs.lookup(ROOT, b"gone").is_ok()
        });
        // And then again, at every moment before that.
        (0..commands.unwrap()).for_each(|commands| cut_off(&mesh, one, commands));
        assert!(one.vfs.pending(one.volume.id).files > 0);
        two.unlink("gone");
        two.unlink("old");
        two.rename("also old", "renamed");
        two.write("dir/file", b"by one and two");
        two.write("linked", b"linked by both");
        two.rename("dir/below/new", "dir/below/renamed");
        two.sync();
        // What it has done since is its own.
        one.write("later", b"later");
        if restarts {
            one.vfs.fsync(one.at("later"), false).unwrap();
            let dir = apart::copy_of(one.dir.path());
            if !moves {
                homes::begin(dir.path()).unwrap();
            }
            homes[0] = Home::of(mesh.volume(dir.path(), 1), dir);
        }
        let tree = meet(&homes);
        let expected = ["dir", "dir/below", "dir/below/renamed", "dir/file", "dir/too", "later", "linked", "renamed"];
        assert_eq!(names(&tree), expected);
        assert_eq!(tree["dir/file"].1.as_deref(), Some(&b"by one and two"[..]));
        assert_eq!(tree["dir/too"].1.as_deref(), Some(&b"linked by both"[..]));
        // No number is in a tree that says it has seen less.
        homes[0].unlink("later");
        homes[1].write("beside", b"beside");
        assert!(!meet(&homes).contains_key("later"));
    }
}

/// Two devices that have done something, of which the second one was cut off from the mesh after so many commands of a merge; none
/// where it was so before the tree had moved.
fn cut_off_in_a_merge(mesh: &Mesh, commands: u64) -> Option<Vec<Home>> {
    let homes = homes(mesh, 2, |home| home.write("a", b"begun"));
    let [one, two] = &homes[..] else { panic!() };
    one.write("by one", b"1");
    one.sync();
    two.write("by two", b"2");
    two.sync();
    two.look();
    mesh.stop_after(Some(commands));
    let followed = two.volume.follow(&two.vfs, &two.volumes, ASKED, &Meter::new());
    mesh.stop_after(None);
    assert!(followed.is_err() || followed == Ok(Followed::Nothing), "it came through, and it was never so");
    two.vfs.lookup(ROOT, b"by one").is_ok().then_some(homes)
}

#[test]
fn a_snapshot_is_taken_while_the_head_of_a_merge_waits_for_the_mesh() {
    let mut worlds = (0..).map(|commands| (Mesh::new(6), commands));
    let (mesh, homes) =
        worlds.find_map(|(mesh, commands)| cut_off_in_a_merge(&mesh, commands).map(|homes| (mesh, homes))).unwrap();
    let [one, two] = &homes[..] else { panic!() };
    assert!(state::merging(&two.volume.db).unwrap().is_some(), "its head is not out");
    two.write("since", b"since then");
    mesh.stop_after(Some(0));
    let taken = two.volume.snap(&two.vfs, "between".into(), false).unwrap().unwrap();
    mesh.stop_after(None);
    let listed = |home: &Home| {
        let kept = home.volume.history().unwrap().snapshot(&taken.kept.snapshot.id()).cloned().unwrap();
        let root = home.volume.root_in(&kept).unwrap();
        let Content::Directory(tree) = &root.inode.content else { panic!("a directory") };
        let entries = home.volume.list(tree).unwrap();
        entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed(two), ["a", "by one", "by two", "since"]);
    let tree = meet(&homes);
    assert_eq!(names(&tree), ["a", "by one", "by two", "since"]);
    assert_eq!(listed(one), ["a", "by one", "by two", "since"]);
}

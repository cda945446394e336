//! What merging promises, tried with devices that change their trees apart from one another.

use proptest::prelude::*;

use super::*;
use crate::history::tests::{kept, tag};
use crate::history::{Kept, Moment, Tag};
use crate::id::VolumeId;
use crate::tree::{self, Target};

pub(crate) mod devices;

use devices::{Op, Token, World, run};

/// A world of `n` devices that have one tree with these files in its root.
fn world(n: u8, files: &[&str]) -> World {
    let mut world = World::new(n);
    for name in files {
        world.device(0).create(FileId::ROOT, name);
    }
    world.meet();
    world
}

#[test]
fn a_file_that_is_renamed_here_and_written_there_is_both() {
    let mut world = world(2, &["a"]);
    world.device(0).rename("a", "b");
    let token = world.device(1).write("a");
    world.meet();
    assert_eq!(world.names(), ["b"]);
    assert_eq!(world.device(0).read("b"), token);
}

#[test]
fn two_versions_of_a_file_are_both_kept_and_whoever_takes_one_away_has_seen_both() {
    let mut world = world(3, &["notes.txt"]);
    let (one, two) = (world.device(0).write("notes.txt"), world.device(1).write("notes.txt"));
    // The third has seen one of them only.
    world.learn(2, 1);
    world.learn(0, 1);
    let names = world.device(0).names();
    assert_eq!(names.len(), 2, "{names:?}");
    let copy = names.iter().find(|name| *name != "notes.txt").unwrap().clone();
    assert!(copy.starts_with("notes (conflict of ") && copy.ends_with(").txt"), "{copy}");
    let mut read = [world.device(0).read("notes.txt"), world.device(0).read(&copy)];
    read.sort();
    assert_eq!(read, [one, two]);
    // It writes something else on top of that, and the third does, too.
    world.device(0).create(FileId::ROOT, "other");
    world.device(2).create(FileId::ROOT, "third");
    world.meet();
    assert_eq!(world.names(), [&copy, "notes.txt", "other", "third"].map(String::from));
    world.device(2).unlink(&copy);
    world.meet();
    assert_eq!(world.names(), ["notes.txt", "other", "third"]);
}

/// As editors and `sed -i` save: a new file takes the name of the old one.
#[test]
fn files_that_took_one_name_apart_are_versions_of_one_another() {
    for in_place in [false, true] {
        let mut world = world(3, &["notes.txt"]);
        let save = |world: &mut World, number: usize| {
            world.device(number).create(FileId::ROOT, "notes.tmp");
            let token = world.device(number).write("notes.tmp");
            world.device(number).rename("notes.tmp", "notes.txt");
            token
        };
        let one = save(&mut world, 0);
        let two = if in_place { world.device(1).write("notes.txt") } else { save(&mut world, 1) };
        world.learn(0, 1);
        world.learn(2, 1);
        // Whoever goes on from a part of it, and whoever merges all of it, mark the same.
        world.device(0).create(FileId::ROOT, "other");
        world.device(2).create(FileId::ROOT, "third");
        world.meet();
        let names: Vec<String> = world.names().into_iter().filter(|name| name.starts_with("notes")).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let file = world.device(0).lookup("notes.txt");
        let beside = names.iter().find(|name| name.contains("conflict of")).unwrap();
        let mut read = [world.device(0).read("notes.txt"), world.device(0).read(beside)];
        read.sort();
        assert_eq!(read, [one, two]);
        for number in 0..3 {
            let marks: Vec<FileId> = names.iter().filter_map(|name| world.device(number).mark(name)).collect();
            assert_eq!(marks, [file], "{in_place} {number}");
        }
        // A directory has no versions.
        world.device(0).mkdir(FileId::ROOT, "x");
        world.device(1).create(FileId::ROOT, "x");
        world.meet();
        let beside = world.names().into_iter().find(|name| name.starts_with("x (")).unwrap();
        assert_eq!(world.device(0).mark(&beside), None);
    }
}

#[test]
fn of_two_modes_that_were_given_apart_the_later_one_counts_whoever_hears_first() {
    // The clocks of the first and the third are right.
    for later in [0, 2] {
        for first in [0, 2] {
            let mut world = world(3, &["f"]);
            world.device(2 - later).chmod("f");
            world.device(later).chmod("f");
            let modes = [later, 2 - later].map(|number| world.device(number).mode("f"));
            assert_ne!(modes[0], modes[1]);
            world.learn(first, 2 - first);
            assert_eq!(world.device(first).mode("f"), modes[0]);
            world.meet();
            for number in 0..3 {
                assert_eq!(world.device(number).mode("f"), modes[0], "{later} is later, {first} hears first");
            }
            assert_eq!(world.names(), ["f"]);
        }
    }
}

#[test]
fn a_version_stays_of_which_each_of_two_others_has_seen_half() {
    let mut world = world(3, &["f"]);
    world.device(0).write("f");
    let token = world.device(1).write("f");
    world.learn(2, 1);
    // Beside the other one's content, since whoever wrote that; the first knows of no copy, and the third has it in the file.
    world.learn(1, 0);
    for number in 0..3 {
        world.device(number).create(FileId::ROOT, &format!("of {number}"));
    }
    world.meet();
    assert!(world.device(0).holds(token), "{:?}", world.names());
}

#[test]
fn a_version_stays_that_is_in_the_file_here_and_in_a_copy_there() {
    let mut world = world(3, &["f"]);
    world.device(2).write("f");
    world.learn(0, 2);
    let token = world.device(1).write("f");
    world.device(1).rename("f", "e");
    world.device(2).unlink("f");
    world.learn(0, 1);
    world.learn(2, 1);
    assert_eq!(world.device(2).read("e"), token);
    assert_ne!(world.device(0).read("e"), token);
    world.device(0).unlink("e");
    world.device(2).create(FileId::ROOT, "x");
    world.meet();
    assert!(world.device(0).holds(token), "{:?}", world.names());
}

#[test]
fn what_is_written_is_kept_though_it_is_taken_away_elsewhere() {
    let mut world = world(2, &[]);
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    let below = world.device(0).mkdir(dir, "e");
    world.device(0).create(below, "f");
    world.device(0).create(below, "g");
    world.meet();
    let token = world.device(1).write("d/e/f");
    world.device(0).remove_all("d");
    world.meet();
    assert_eq!(world.device(0).paths(), ["d/e/f"]);
    assert_eq!(world.device(0).read("d/e/f"), token);
    // Of metadata alone nothing is kept.
    world.device(1).chmod("d/e/f");
    world.device(0).remove_all("d");
    world.meet();
    assert!(world.names().is_empty());
}

#[test]
fn directories_that_come_to_have_one_name_become_one() {
    let mut world = world(3, &[]);
    for number in 0..3 {
        let dir = world.device(number).mkdir(FileId::ROOT, "photos");
        world.device(number).create(dir, &format!("of {number}"));
        world.device(number).create(dir, "same name");
    }
    // One does not hear of it for a while, and goes on in its own.
    world.learn(0, 1);
    world.learn(1, 0);
    world.device(0).create(FileId::ROOT, "x");
    let late = world.device(2).lookup("photos");
    world.device(2).create(late, "late");
    world.meet();
    let paths = world.device(1).paths();
    for name in ["photos/of 0", "photos/of 1", "photos/of 2", "photos/late", "photos/same name", "x"] {
        assert!(paths.iter().any(|path| path == name), "{name}: {paths:?}");
    }
    assert_eq!(paths.len(), 8, "{paths:?}");
}

#[test]
fn moves_that_make_a_circle_lose_nothing() {
    let mut world = world(2, &[]);
    for name in ["a", "b"] {
        let dir = world.device(0).mkdir(FileId::ROOT, name);
        world.device(0).create(dir, &format!("in {name}"));
    }
    world.meet();
    world.device(0).rename("a", "b/a");
    world.device(1).rename("b", "a/b");
    world.meet();
    let paths = world.device(0).paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert!(paths.iter().any(|path| path.ends_with("in a")) && paths.iter().any(|path| path.ends_with("in b")));
}

#[test]
fn a_directory_is_in_one_place_however_many_move_it() {
    let mut world = world(3, &[]);
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    world.device(0).create(dir, "f");
    world.meet();
    for number in 0..3 {
        world.device(number).rename("d", &format!("to {number}"));
    }
    let token = world.device(1).write("to 1/f");
    world.meet();
    let paths = world.device(0).paths();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert_eq!(world.device(0).read(&paths[0]), token);
}

#[test]
fn names_of_one_file_are_kept_apart_and_together() {
    let mut world = world(2, &["a"]);
    world.device(0).link("a", "b");
    world.device(1).link("a", "c");
    world.meet();
    assert_eq!(world.names(), ["a", "b", "c"]);
    // Two versions of what has several names: the directory does not differ.
    let tokens = [world.device(0).write("a"), world.device(1).write("c")];
    world.meet();
    let names = world.names();
    assert_eq!(names.len(), 4, "{names:?}");
    let read: Vec<Token> = names.iter().map(|name| world.device(0).read(name)).collect();
    assert!(tokens.iter().all(|token| read.contains(token)));
    assert_eq!(world.device(0).links("a"), 3);
    world.device(0).unlink("a");
    world.device(1).unlink("b");
    world.meet();
    assert_eq!(world.device(1).links("c"), 1);
}

#[test]
fn a_row_of_the_link_table_that_has_no_name_keeps_nothing() {
    let mut world = world(1, &["a"]);
    world.device(0).link("a", "b");
    world.device(0).publish();
    let good = world.device(0).root();
    let by = |device: u64, entries: Vec<tree::Entry>| {
        let dot = Dot { device: crate::id::DeviceTag(device), sequence: 1 };
        let target = world.file(dot.device);
        let new = tree::Entry { name: device.to_string().into_bytes(), dot, target };
        let bent = world.bent(&good, entries.into_iter().chain([new]).collect());
        Part { vector: join([&good.vector[..], &[dot]]), ..bent }
    };
    let both = world.list(&good.inode);
    // One has taken both names away, and not the row.
    let merged = world.merge(&[by(8, Vec::new()), by(9, both.clone())]);
    let names: Vec<_> = world.list(&merged.inode).into_iter().map(|entry| entry.name).collect();
    assert_eq!((names, merged.links), (vec![b"8".to_vec(), b"9".to_vec()], None));
    // And one of them, which says that there are two still.
    let merged = world.merge(&[by(8, both[..1].to_vec()), by(9, both)]);
    let names: Vec<_> = world.list(&merged.inode).into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [b"8".to_vec(), b"9".to_vec(), b"a".to_vec()]);
}

#[test]
fn what_is_kept_beside_a_file_is_found_a_place_past_a_deep_and_wide_directory() {
    let mut world = World::new(1);
    let dir = world.device(0).mkdir(FileId::ROOT, "a");
    world.device(0).create(dir, "x");
    world.device(0).link("a/x", "a/y");
    world.device(0).publish();
    let (good, bag) = (world.device(0).root(), world.device(0).bag().clone());
    let empty = world.directory(Vec::new());
    let wide = (0..3_000).map(|number: u64| world.below(number, number.to_string().as_bytes(), empty.clone()));
    let deep = world.deep(1_000, b"deep", wide.collect());
    let entries: Vec<_> = world.list(&good.inode).into_iter().chain([deep]).collect();
    // Only the records of what is in `a` differ, and the other directory comes first.
    let by = |device: u64| {
        let dot = Dot { device: crate::id::DeviceTag(device), sequence: 1 };
        let mut rows = world.rows(good.links.as_ref());
        rows[0].inode.content = crate::tree::Content::Inline(device.to_be_bytes().to_vec());
        rows[0].inode.content_dot = Some(dot);
        let links = Some(tree::build(rows, &mut bag.clone()).unwrap());
        Part { links, vector: join([&good.vector[..], &[dot]]), ..world.bent(&good, entries.clone()) }
    };
    let merged = world.merge(&[by(8), by(9)]);
    let Target::Inode(a) = &world.list(&merged.inode)[0].target else { panic!() };
    assert_eq!(world.list(a).len(), 3, "{:?}", merged.conflicts);
}

#[test]
fn metadata_never_makes_a_copy() {
    let mut world = world(2, &["a"]);
    world.device(0).chmod("a");
    let token = world.device(1).write("a");
    world.device(1).chmod("a");
    world.meet();
    assert_eq!(world.names(), ["a"]);
    assert_eq!(world.device(0).read("a"), token);
}

#[test]
fn what_was_changed_of_the_metadata_here_and_there_is_both() {
    let mut world = world(3, &["a"]);
    let id = world.device(0).lookup("a");
    world.device(0).tag(id, b"user.old", true);
    world.device(0).tag(id, b"user.kept", true);
    world.meet();
    world.device(0).tag(id, b"user.mine", true);
    world.device(0).tag(id, b"user.old", false);
    world.device(1).chmod("a");
    world.device(2).tag(id, b"user.theirs", true);
    let mode = world.device(1).mode("a");
    // Whoever goes on from a part of it loses nothing either.
    world.learn(0, 1);
    world.device(0).tag(id, b"user.more", true);
    world.device(2).tag(id, b"user.theirs", true);
    world.meet();
    assert_eq!(world.device(1).tags("a"), ["user.kept", "user.mine", "user.more", "user.theirs"]);
    assert_eq!(world.device(2).mode("a"), mode);
}

#[test]
fn what_was_changed_in_a_directory_that_became_a_volume_is_handed_to_the_volume() {
    let mut world = world(2, &[]);
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    world.device(0).create(dir, "f");
    world.device(0).create(dir, "linked");
    world.device(0).link("d/linked", "d/again");
    world.device(0).create(FileId::ROOT, "elsewhere");
    world.device(0).link("elsewhere", "twice");
    world.meet();
    let before = world.device(0).root();
    world.device(1).create(dir, "new");
    world.device(1).write("elsewhere");
    let (token, linked) = (world.device(1).write("d/f"), world.device(1).write("d/linked"));
    let (Part { inode, .. }, volume) = (Part::from(&before), VolumeId([7; 16]));
    let inner = world.device(0).split("d", volume);
    let [mine, theirs] = [0, 1].map(|number| {
        world.device(number).publish();
        world.device(number).root()
    });
    let outside = world.rows_of(before.links.as_ref(), &inner, false);
    let merged =
        world.merge(&[Part { links: outside, ..Part::from(&mine) }, Part { number: 1, ..Part::from(&theirs) }]);
    let entries = world.list(&merged.inode);
    assert!(matches!(entries[0].target, Target::Volume { id, .. } if id == dir), "{entries:?}");
    assert_ne!(merged.inode, inode);
    let rows = world.rows(merged.links.as_ref());
    assert_eq!((rows.len(), rows[0].links), (1, 2), "what has its names in the volume is there: {rows:?}");
    let [Split { volume: of, part, named_by }] = &merged.splits[..] else { panic!("{:?}", merged.splits) };
    assert_eq!((*of, part.inode.id, part.number, named_by), (volume, dir, 1, &BTreeSet::from([0])));
    // What the volume began with is older than all that.
    let links = world.rows_of(before.links.as_ref(), &inner, true);
    let begun = Part { inode: inner, links, ..Part::from(&before) };
    let volume = world.merge(&[begun, part.clone()]);
    let entries = world.list(&volume.inode);
    let names: Vec<&[u8]> = entries.iter().map(|entry| &entry.name[..]).collect();
    assert_eq!(names, [&b"again"[..], b"f", b"linked", b"new"]);
    let Target::Inode(file) = &entries[1].target else { panic!("{entries:?}") };
    assert_eq!(devices::token(&file.content), token);
    let rows = world.rows(volume.links.as_ref());
    assert_eq!((rows.len(), devices::token(&rows[0].inode.content), rows[0].links), (1, linked, 2));
}

#[test]
fn a_directory_that_two_have_made_a_volume_each_is_both() {
    let mut world = world(2, &[]);
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    world.device(0).create(dir, "f");
    world.meet();
    let volumes = [VolumeId([7; 16]), VolumeId([3; 16])];
    let parts: Vec<Part> = [0, 1]
        .map(|number| {
            world.device(number).split("d", volumes[number]);
            world.device(number).publish();
            Part::from(&world.device(number).root())
        })
        .into();
    let mut merged = world.merge(&parts);
    let found = |world: &World, merged: &Merged| -> Vec<_> {
        let entries = world.list(&merged.inode).into_iter();
        let found = entries.map(|entry| match entry.target {
            Target::Volume { volume, id } => (String::from_utf8(entry.name).unwrap(), volume, id),
            other => panic!("{other:?}"),
        });
        found.collect()
    };
    let both = found(&world, &merged);
    assert_eq!((both.len(), both[0].2, both[1].2), (2, dir, dir), "{both:?}");
    assert!(both[0].0 == "d" && both[1].0.starts_with("d (conflict of "), "{both:?}");
    assert!(volumes.iter().all(|volume| both.iter().any(|(_, found, _)| found == volume)), "{both:?}");
    assert!(merged.splits.is_empty() && merged.conflicts.len() == 1);
    // It stays so, whoever goes on from there.
    let again = Part {
        number: 0,
        inode: merged.inode.clone(),
        links: merged.links.take(),
        vector: merged.vector.clone(),
        is_below: false,
        is_past: false,
        has_history: true,
        history: None,
        tags: None,
    };
    assert_eq!(found(&world, &world.merge(&[again])), both);
}

#[test]
fn what_was_changed_in_a_directory_is_kept_beside_a_volume_that_nobody_can_enter() {
    // Whichever of two ids comes first.
    (0..16).for_each(kept_beside);
}

fn kept_beside(before: u32) {
    let mut world = world(3, &[]);
    for _ in 0..before {
        world.device(0).create(FileId::ROOT, "x");
        world.device(0).unlink("x");
    }
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    for name in ["f", "g", "h"] {
        world.device(0).create(dir, name);
    }
    world.meet();
    let tokens = [world.device(1).write("d/f"), world.device(2).write("d/g")];
    let volume = VolumeId([7; 16]);
    world.device(0).split("d", volume);
    // Its name may be as old as the directory: a merge has made it so.
    if before.is_multiple_of(2) {
        world.device(0).keep_dot("d");
    }
    let mut parts: Vec<Part> = Vec::new();
    for number in 0..3 {
        world.device(number).publish();
        parts.push(Part::from(&world.device(number).root()));
    }
    assert_eq!(world.merge(&parts).splits.len(), 2);
    let mut merged = world.merge_beside(&parts, dir);
    assert!(merged.splits.is_empty());
    let entries = world.list(&merged.inode);
    assert_eq!(entries[0].target, Target::Volume { volume, id: dir });
    let Target::Inode(kept) = &entries[1].target else { panic!("{entries:?}") };
    assert!(entries[1].name.starts_with(b"d (conflict of ") && kept.id != dir, "{entries:?}");
    let files: Vec<_> = world
        .list(kept)
        .into_iter()
        .map(|entry| match entry.target {
            Target::Inode(file) => (entry.name, devices::token(&file.content)),
            other => panic!("{other:?}"),
        })
        .collect();
    // What nobody has changed is in the volume.
    assert_eq!(files, [(b"f".to_vec(), tokens[0]), (b"g".to_vec(), tokens[1])]);
    // It stays so, and is a directory like any other for whoever can enter the volume.
    let again = Part {
        number: 0,
        inode: merged.inode.clone(),
        links: merged.links.take(),
        vector: merged.vector.clone(),
        is_below: false,
        is_past: false,
        has_history: true,
        history: None,
        tags: None,
    };
    let more = world.merge(&[again, parts[0].clone()]);
    assert!(more.inode == merged.inode && more.splits.is_empty());
}

#[test]
fn what_stands_in_two_places_is_two_things() {
    let mut world = world(1, &["a"]);
    let dir = world.device(0).mkdir(FileId::ROOT, "d");
    world.device(0).create(dir, "f");
    world.device(0).publish();
    let good = world.device(0).root();
    let entries = world.list(&good.inode);
    let dot = Dot { device: crate::id::DeviceTag(9), sequence: 1 };
    let as_it_is =
        |name: &str, from: &crate::tree::Entry| crate::tree::Entry { name: name.into(), dot, ..from.clone() };
    let as_root = |entry: &crate::tree::Entry| {
        let Target::Inode(inode) = &entry.target else { panic!() };
        Target::Inode(Inode { id: FileId::ROOT, ..Inode::clone(inode) }.into())
    };
    let up = Target::Inode(good.inode.clone().into());
    let link = Target::Link(FileId([8; 16]));
    let more = [
        as_it_is("a again", &entries[0]),
        as_it_is("d again", &entries[1]),
        crate::tree::Entry { target: up, ..as_it_is("up", &entries[0]) },
        // The link table has nothing of it.
        crate::tree::Entry { target: link, ..as_it_is("nothing", &entries[0]) },
        // By the id of the root.
        crate::tree::Entry { target: Target::Link(FileId::ROOT), ..as_it_is("root", &entries[0]) },
        crate::tree::Entry { target: as_root(&entries[0]), ..as_it_is("root file", &entries[0]) },
        crate::tree::Entry {
            target: Target::Volume { volume: VolumeId([5; 16]), id: FileId::ROOT },
            ..as_it_is("root volume", &entries[0])
        },
    ];
    let bent = world.bent(&good, entries.iter().cloned().chain(more).collect());
    let merged = world.merge(&[Part::from(&good), bent.clone()]);
    let names = |world: &World, inode: &Inode| -> Vec<String> {
        world.list(inode).into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
    };
    let expected = ["a", "a again", "d", "d again", "root file", "root volume", "up"];
    assert_eq!(names(&world, &merged.inode), expected);
    assert!(merged.splits.is_empty());
    // Now it is a tree.
    let ids: std::collections::BTreeSet<FileId> =
        world.list(&merged.inode).iter().map(|entry| entry.target.id()).collect();
    assert_eq!(ids.len(), 7);
    // Each is changed where it is.
    let changed = |name: &str| {
        let mut entries = world.list(&bent.inode);
        let entry = entries.iter_mut().find(|entry| entry.name == name.as_bytes()).unwrap();
        let Target::Inode(dir) = &mut entry.target else { panic!() };
        let mut files = world.list(dir);
        let device = crate::id::DeviceTag(name.len() as u64 + 20);
        let dot = Dot { device, sequence: 1 };
        files.push(crate::tree::Entry { name: b"new".to_vec(), dot, target: world.file(device) });
        dir.content = world.directory(files);
        Part { vector: join([&bent.vector[..], &[dot]]), ..world.bent(&good, entries) }
    };
    let merged = world.merge(&[changed("d"), changed("d again")]);
    for entry in world.list(&merged.inode).iter().filter(|entry| entry.name.starts_with(b"d")) {
        let Target::Inode(dir) = &entry.target else { panic!() };
        assert!(names(&world, dir).contains(&"new".to_owned()), "{:?}", entry.name);
    }
}

#[test]
fn a_tree_that_is_none_is_refused_and_a_directory_that_is_none_is_empty() {
    let mut world = world(1, &["a", "b"]);
    let good = world.device(0).root();
    let bag = world.device(0).bag().clone();
    let other = Part { number: 7, inode: Inode { id: FileId([9; 16]), ..good.inode.clone() }, ..Part::from(&good) };
    assert!(matches!(world.try_merge(&[Part::from(&good), other]), Err(MergeError::Malformed { number: 7, .. })));
    assert!(matches!(world.try_merge(&[]), Err(MergeError::Nothing)));
    let names =
        |merged: &Merged| -> Vec<Vec<u8>> { world.list(&merged.inode).into_iter().map(|entry| entry.name).collect() };
    let dot = Dot { device: crate::id::DeviceTag(9), sequence: 1 };
    let entry = |name: &[u8]| crate::tree::Entry { name: name.to_vec(), dot, target: world.file(dot.device) };
    // A name twice: nothing of it is believed, and what its author has not seen stays.
    let bent = |entries| Part { number: 1, vector: vec![dot], ..world.bent(&good, entries) };
    let merged = world.merge(&[Part::from(&good), bent(vec![entry(b"x"), entry(b"x")])]);
    assert_eq!(names(&merged), [b"a", b"b"]);
    // What cannot be a name is none, and the rest is there.
    let long = vec![b'n'; crate::limits::NAME_MAX + 1];
    let mut entries: Vec<_> = [&b"."[..], b"..", b"a/b", b"new", b"nul\0", &long, b""].map(entry).into();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let merged = world.merge(&[Part::from(&good), bent(entries)]);
    assert_eq!(names(&merged), [&b"a"[..], b"b", b"new"]);
    // A table that is none has no rows.
    let links = match &world.bent(&good, vec![entry(b"x")]).inode.content {
        crate::tree::Content::Directory(tree) => Some(tree.clone()),
        _ => None,
    };
    let merged = world.merge(&[Part::from(&good), Part { links, vector: vec![dot], ..Part::from(&good) }]);
    assert_eq!(merged.links, None);
    // Nor has it rows of directories, which would be something else than what is named.
    let there = world.bent(&good, vec![entry(b"x")]).inode;
    let row = crate::tree::LinkEntry { inode: Inode { id: FileId([8; 16]), ..there }, links: 2 };
    let links = Some(tree::build(vec![row], &mut bag.clone()).unwrap());
    let target = Target::Volume { volume: crate::id::VolumeId([8; 16]), id: FileId([8; 16]) };
    let named = world.bent(&good, vec![crate::tree::Entry { name: b"volume".to_vec(), dot, target }]);
    let merged = world.merge(&[Part::from(&good), Part { links, ..named }]);
    assert!(merged.splits.is_empty(), "{:?}", merged.splits);
    // What cannot be read now is told apart from that, and whose it is.
    let crate::tree::Content::Directory(tree) = &good.inode.content else { panic!() };
    let elsewhere = world.bent(&good, vec![entry(b"far away")]).inode.content;
    let crate::tree::Content::Directory(far) = elsewhere else { panic!() };
    world.device(0).bag().forget(&far);
    let inode = Inode { content: crate::tree::Content::Directory(far), ..good.inode.clone() };
    let away = Part { number: 3, inode, vector: vec![dot], ..Part::from(&good) };
    let refused = world.try_merge(&[Part::from(&good), away]).unwrap_err();
    assert!(matches!(refused, MergeError::Unread { number: 3, error: crate::tree::TreeError::Port(_) }), "{tree:?}");
    // Each directory has the one below it in it twice: to go through all of them would take for ever, and would be in the way.
    let mut inode = good.inode.clone();
    for depth in 0..40u8 {
        let below = Inode { id: FileId([100 + depth; 16]), ..inode.clone() };
        let entry = |name: &str| {
            let dot = Dot { device: crate::id::DeviceTag(9), sequence: 1 };
            crate::tree::Entry { name: name.into(), dot, target: Target::Inode(below.clone().into()) }
        };
        inode.content = world.directory(vec![entry("one"), entry("other")]);
    }
    let bent = Part { vector: vec![Dot { device: crate::id::DeviceTag(9), sequence: 1 }], inode, ..Part::from(&good) };
    let merged = world.merge(&[Part::from(&good), bent]);
    assert_eq!(world.list(&merged.inode).len(), 4);
}

#[test]
fn a_table_without_a_row_takes_nothing_away_that_has_a_name_in_all_trees() {
    let mut world = world(2, &["f", "g"]);
    world.device(0).mkdir(FileId::ROOT, "d");
    world.device(0).link("f", "d/f");
    world.device(0).link("g", "d/g");
    world.meet();
    let [f, g] = ["f", "g"].map(|name| world.device(0).lookup(name));
    world.device(0).create(FileId::ROOT, "here");
    world.device(1).create(FileId::ROOT, "there");
    // This one takes a name away, which is another thing.
    world.device(1).unlink("g");
    world.device(0).publish();
    world.device(1).publish();
    let roots = [world.device(0).root(), world.device(1).root()];
    for bent in 0..2 {
        let mut parts = roots.each_ref().map(Part::from);
        parts[bent].links = None;
        let merged = world.merge(&parts);
        let rows: Vec<FileId> = world.rows(merged.links.as_ref()).into_iter().map(|row| row.inode.id).collect();
        assert!(rows.contains(&f), "{bent}");
        let (entries, names) = (world.list(&merged.inode), |entries: &[tree::Entry], id: FileId| {
            entries.iter().filter(|entry| entry.target.id() == id).count()
        });
        let Some(Target::Inode(dir)) = entries.iter().find(|entry| entry.name == b"d").map(|entry| &entry.target)
        else {
            panic!()
        };
        let below = world.list(dir);
        assert_eq!((names(&entries, g), names(&below, g)), (0, 1));
        for entry in entries.iter().chain(&below) {
            let is_row = matches!(entry.target, Target::Link(_));
            assert!(!is_row || rows.contains(&entry.target.id()), "{bent} {:?}", entry.name);
        }
    }
}

#[test]
fn histories_merge_as_names_do_and_are_not_read_where_they_are_equal() {
    let mut world = world(2, &["a"]);
    world.device(0).create(FileId::ROOT, "b");
    world.device(1).create(FileId::ROOT, "c");
    world.device(0).publish();
    world.device(1).publish();
    let roots = [world.device(0).root(), world.device(1).root()];
    let bag = world.device(0).bag().clone();
    let (old, pruned, new) = (kept(1_000, 1, &[]), kept(1_500, 2, &[]), kept(2_000, 3, &[]));
    let stamp = |one: &Kept, dot: Dot| Kept { dot, ..one.clone() };
    let known = roots[0].vector[0];
    let theirs = *roots[1].vector.iter().find(|dot| !covers(&roots[0].vector, **dot)).unwrap();
    let tree = |all: Vec<Kept>| Some(tree::build(all, &mut bag.clone()).unwrap());
    let old_dot = Dot { sequence: 1, ..known };
    // The first has seen both and has let go of one; the second has taken another one.
    let first = Part { history: tree(vec![stamp(&old, old_dot)]), ..Part::from(&roots[0]) };
    let all = vec![stamp(&old, old_dot), stamp(&pruned, old_dot), stamp(&new, theirs)];
    let tags = Some(tree::build([Tag { dot: theirs, ..tag("v1", &new, 7) }], &mut bag.clone()).unwrap());
    let second = Part { history: tree(all), tags: tags.clone(), ..Part::from(&roots[1]) };
    let merged = world.merge(&[first.clone(), second.clone()]);
    let names: Vec<Moment> = world.history(&merged).iter().map(Kept::moment).collect();
    assert_eq!(names, [old.moment(), new.moment()]);
    assert_eq!(merged.tags, tags);
    assert_eq!(world.merge(&[second.clone(), first]).history, merged.history);
    // What is equal may as well be somewhere else.
    let unread = tree(vec![stamp(&new, theirs)]).map(|tree| TreeRef { depth: 9, ..tree });
    let with = |root: &Root| Part { history: unread.clone(), ..Part::from(root) };
    assert_eq!(world.merge(&[with(&roots[0]), with(&roots[1])]).history, unread);
    // That of a part whose snapshots are none of this volume's says nothing of those that are.
    let apart = Part { has_history: false, ..Part::from(&roots[0]) };
    let merged = world.merge(&[apart.clone(), second.clone()]);
    assert_eq!(merged.history, second.history);
    let private = Part { history: second.history.clone(), tags: tags.clone(), ..apart };
    let merged = world.merge(&[private, Part::from(&roots[1])]);
    assert_eq!((merged.history, merged.tags), (None, None));
    // Nor has one that has more in it than there can be, or says so.
    let endless = |tree: &Option<TreeRef>| tree.clone().map(|tree| TreeRef { weight: 1 << 40, ..tree });
    let lying = Part { history: endless(&second.history), tags: endless(&tags), ..Part::from(&roots[0]) };
    let merged = world.merge(&[lying, second.clone()]);
    assert_eq!(world.history(&merged).iter().map(Kept::moment).collect::<Vec<_>>(), [new.moment()]);
    assert_eq!(merged.tags, tags);
    // One that is none has nothing.
    let merged = world.merge(&[with(&roots[0]), second]);
    assert_eq!(world.history(&merged).iter().map(Kept::moment).collect::<Vec<_>>(), [new.moment()]);
}

#[test]
fn what_somebody_has_seen_beside_something_else_is_no_new_conflict() {
    let mut world = world(2, &[]);
    for device in [0, 1] {
        world.device(device).create(FileId::ROOT, "c.txt");
        world.device(device).publish();
    }
    let conflicts = |world: &mut World| {
        let parts = [0, 1].map(|device| Part::from(&world.device(device).root()));
        world.merge(&parts).conflicts
    };
    let new = conflicts(&mut world);
    assert!(new.len() == 1 && new[0].is_new, "{new:?}");
    // One has both and goes on; the other one has its own still.
    world.learn(0, 1);
    for device in [0, 1] {
        world.device(device).create(FileId::ROOT, "other");
        world.device(device).publish();
    }
    let again = conflicts(&mut world);
    let of_text: Vec<bool> = again.iter().filter(|one| one.wanted == b"c.txt").map(|one| one.is_new).collect();
    assert!(of_text.iter().all(|is_new| !is_new), "{again:?}");
    assert!(again.iter().any(|one| one.wanted == b"other" && one.is_new), "{again:?}");
}

#[test]
fn long_names_stay_names() {
    let mut world = world(2, &[]);
    let name = format!("{}.tar.gz", "ä".repeat(120));
    world.device(0).create(FileId::ROOT, &name);
    world.device(1).create(FileId::ROOT, &name);
    world.meet();
    let names = world.names();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.len() <= crate::limits::NAME_MAX && name.ends_with(".gz")), "{names:?}");
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let pick = any::<u8>();
    prop_oneof![
        4 => (pick, pick).prop_map(|(dir, name)| Op::Create(dir, name)),
        5 => pick.prop_map(Op::Write),
        2 => (pick, pick).prop_map(|(dir, name)| Op::Mkdir(dir, name)),
        4 => (pick, pick, pick).prop_map(|(what, dir, name)| Op::Rename(what, dir, name)),
        3 => pick.prop_map(Op::Remove),
        1 => (pick, pick, pick).prop_map(|(what, dir, name)| Op::Link(what, dir, name)),
        2 => pick.prop_map(Op::Chmod),
        2 => (pick, pick).prop_map(|(what, name)| Op::Tag(what, name)),
        1 => (pick, pick).prop_map(|(what, name)| Op::Untag(what, name)),
        3 => pick.prop_map(Op::Learn),
        1 => Just(Op::Publish),
    ]
}

/// More than there are by default, of which one can ask for more still.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(2_000), ..config }
}

proptest! {
    #![proptest_config(cases())]

    /// Up to eight devices, apart and together in any way: at the end all have one tree, it is a tree, nothing is
    /// missing in it that nobody has taken away, and of no file there are more versions than were written.
    #[test]
    fn devices_come_to_one_tree_and_lose_nothing(
        devices in 2u8..=8,
        ops in proptest::collection::vec((any::<u8>(), op()), 1..120),
    ) {
        run(devices, &ops).map_err(TestCaseError::fail)?;
    }
}

//! What a comparison tells, by which the one tree must become the other.

use proptest::prelude::*;

use super::*;
use crate::merge::tests::devices::{Device, Op, World};
use crate::merge::tests::op;
use crate::seal::{ExtentRef, SealError};

/// All that is in a tree, by path: the root, too.
type All = BTreeMap<Vec<u8>, Inode>;

fn all(world: &World, root: &Root) -> All {
    let rows: BTreeMap<FileId, Inode> =
        world.rows(root.links.as_ref()).into_iter().map(|row| (row.inode.id, row.inode)).collect();
    let mut all = All::from([(Vec::new(), root.inode.clone())]);
    let mut waiting = vec![(Vec::new(), root.inode.clone())];
    while let Some((above, dir)) = waiting.pop() {
        for entry in world.list(&dir) {
            let path = if above.is_empty() { entry.name } else { [&above[..], &entry.name].join(&b'/') };
            let inode = match entry.target {
                Target::Inode(inode) => *inode,
                other => rows[&other.id()].clone(),
            };
            if inode.kind == FileKind::Directory {
                waiting.push((path.clone(), inode.clone()));
            }
            all.insert(path, inode);
        }
    }
    all
}

fn published(device: &mut Device) -> Root {
    device.publish();
    device.root()
}

/// In short, as people read it.
fn short(changes: &[Change]) -> Vec<String> {
    let text = |version: &Option<Version>| {
        version.as_ref().map(|version| String::from_utf8_lossy(&version.path).into_owned()).unwrap_or_default()
    };
    let line = |change: &Change| {
        let (before, after) = (text(&change.before), text(&change.after));
        let (content, metadata) = (change.has_other_content(), change.has_other_metadata());
        let how = format!("{}{}", if content { "M" } else { "" }, if metadata { "m" } else { "" });
        match (&change.before, &change.after) {
            (None, _) => format!("A {after}"),
            (_, None) => format!("D {before}"),
            _ if change.is_renamed => format!("R{how} {before} -> {after}"),
            _ => format!("{how} {after}"),
        }
    };
    changes.iter().map(line).collect()
}

/// Whether two records are the same to whoever compares trees.
fn same(one: &Inode, other: &Inode) -> bool {
    let (one, other) = (Thing::Inode(one.clone().into()), Thing::Inode(other.clone().into()));
    !one.has_other_content(&other) && !one.has_other_metadata(&other)
}

/// What is told of all that was done since then, line by line in order. By it the one tree becomes the other.
fn told(world: &mut World, before: &Root) -> Vec<String> {
    let after = published(world.device(0));
    let changes = compare(before.into(), (&after).into(), world.device(0).bag()).unwrap();
    check(world, before, &after, &changes).unwrap();
    let mut lines = short(&changes);
    lines.sort();
    lines
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at]))
}

/// What the first tree becomes by the changes, and what is told of something that is the same.
fn apply(before: &All, changes: &[Change]) -> Result<All, String> {
    let inode = |version: &Version| match &version.thing {
        Thing::Inode(inode) => Inode::clone(inode),
        Thing::Volume(_) => panic!("a volume"),
    };
    let mut told: BTreeMap<&[u8], &Change> = BTreeMap::new();
    for change in changes {
        if let Some(version) = &change.before
            && told.insert(&version.path, change).is_some()
        {
            return Err(format!("something is told twice: {:?}", short(changes)));
        }
    }
    let mut after = All::new();
    // What has several names is told of one of them.
    let mut files: BTreeMap<FileId, Inode> = BTreeMap::new();
    for version in changes.iter().filter_map(|change| change.after.as_ref()) {
        files.insert(inode(version).id, inode(version));
    }
    // Where each path has come to; those above come first.
    let mut now: BTreeMap<&[u8], Option<Vec<u8>>> = BTreeMap::new();
    for (path, was) in before {
        let above = parent(path).map(|above| now[above].clone());
        let expected = above.clone().map_or(Some(Vec::new()), |above| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
            above.map(|above| if above.is_empty() { name.to_vec() } else { [&above[..], name].join(&b'/') })
        });
        let (path_now, is) = match told.get(&path[..]) {
            Some(Change { after: None, .. }) => (None, was.clone()),
            Some(Change { after: Some(after), is_renamed, .. }) => {
                if *is_renamed == (expected.as_ref() == Some(&after.path)) {
                    return Err(format!("{}: renamed or not? {:?}", String::from_utf8_lossy(path), short(changes)));
                }
                if !is_renamed && same(was, &inode(after)) {
                    return Err(format!("{} is the same: {:?}", String::from_utf8_lossy(path), short(changes)));
                }
                (Some(after.path.clone()), inode(after))
            }
            _ => (expected, files.get(&was.id).unwrap_or(was).clone()),
        };
        let is_lost = path_now.is_none() && !told.contains_key(&path[..]);
        if is_lost {
            return Err(format!("{} is lost: {:?}", String::from_utf8_lossy(path), short(changes)));
        }
        if let Some(path) = &path_now
            && after.insert(path.clone(), is).is_some()
        {
            return Err(format!("{} twice: {:?}", String::from_utf8_lossy(path), short(changes)));
        }
        now.insert(path, path_now);
    }
    for change in changes.iter().filter(|change| change.before.is_none()) {
        let version = change.after.as_ref().unwrap();
        if after.insert(version.path.clone(), inode(version)).is_some() {
            return Err(format!("{} twice: {:?}", String::from_utf8_lossy(&version.path), short(changes)));
        }
    }
    Ok(after)
}

fn check(world: &World, before: &Root, after: &Root, changes: &[Change]) -> Result<(), String> {
    let (was, is) = (all(world, before), all(world, after));
    let made = apply(&was, changes)?;
    let names = |all: &All| all.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>();
    if names(&made) != names(&is) {
        return Err(format!("{:?} is not {:?}: {:?}", names(&made), names(&is), short(changes)));
    }
    match made.iter().find(|(path, inode)| !same(inode, &is[*path])) {
        Some((path, _)) => Err(format!("{} is another: {:?}", String::from_utf8_lossy(path), short(changes))),
        None => Ok(()),
    }
}

fn world(files: &[&str]) -> World {
    let mut world = World::new(1);
    for file in files {
        let (mut dir, mut parts) = (FileId::ROOT, file.split('/').peekable());
        let mut path = String::new();
        while let Some(part) = parts.next() {
            path = if path.is_empty() { part.into() } else { format!("{path}/{part}") };
            let exists = world.device(0).has(&path);
            dir = match (exists, parts.peek()) {
                (true, _) => world.device(0).lookup(&path),
                (false, Some(_)) => world.device(0).mkdir(dir, part),
                (false, None) => world.device(0).create(dir, part),
            };
        }
    }
    world.device(0).publish();
    world
}

#[test]
fn what_was_added_removed_written_and_renamed_is_told_so() {
    let mut world = world(&["a", "b", "c", "dir/e", "dir/f", "dir/sub/g", "old/h"]);
    let before = world.device(0).root();
    let device = world.device(0);
    device.write("a");
    device.unlink("b");
    device.create(FileId::ROOT, "new");
    device.chmod("c");
    device.rename("dir", "moved");
    device.write("moved/f");
    let sub = device.mkdir(FileId::ROOT, "sub");
    let deep = device.mkdir(sub, "deep");
    device.rename("old", "sub/deep/old");
    device.create(deep, "i");
    let expected = ["A new", "A sub", "A sub/deep", "A sub/deep/i", "D b", "M a", "M moved/f", "R dir -> moved"];
    let told = told(&mut world, &before);
    assert_eq!(told[..8], expected);
    assert_eq!(told[8..], ["R old -> sub/deep/old", "m c"]);
}

#[test]
fn what_took_the_place_of_something_else_is_a_change_of_it() {
    let mut world = world(&["notes.txt", "dir/a", "dir/b", "x"]);
    let before = world.device(0).root();
    let device = world.device(0);
    // As editors save.
    device.create(FileId::ROOT, ".notes.swp");
    device.rename(".notes.swp", "notes.txt");
    // And as somebody unpacks anew.
    device.remove_all("dir");
    let dir = device.mkdir(FileId::ROOT, "dir");
    device.create(dir, "a");
    device.create(dir, "c");
    assert_eq!(told(&mut world, &before), ["A dir/c", "D dir/b", "M dir/a", "M notes.txt"]);
    // One that is elsewhere now is there.
    let before = world.device(0).root();
    let device = world.device(0);
    device.rename("dir", "away");
    let dir = device.mkdir(FileId::ROOT, "dir");
    device.create(dir, "a");
    assert_eq!(told(&mut world, &before), ["A dir", "A dir/a", "R dir -> away"]);
    // A file for a directory.
    let before = world.device(0).root();
    world.device(0).remove_all("away");
    world.device(0).create(FileId::ROOT, "away");
    assert_eq!(told(&mut world, &before), ["D away/a", "D away/c", "M away"]);
}

#[test]
fn what_was_moved_out_of_what_is_gone_and_into_what_is_new_is_the_same() {
    let mut world = world(&["gone/sub/a", "gone/sub/b", "gone/c"]);
    let before = world.device(0).root();
    let new = world.device(0).mkdir(FileId::ROOT, "new");
    world.device(0).mkdir(new, "below");
    world.device(0).rename("gone/sub", "new/below/sub");
    world.device(0).remove_all("gone");
    world.device(0).write("new/below/sub/a");
    let expected = ["A new", "A new/below", "D gone", "D gone/c", "M new/below/sub/a", "R gone/sub -> new/below/sub"];
    assert_eq!(told(&mut world, &before), expected);
}

#[test]
fn of_several_names_each_is_told_and_a_content_once() {
    let mut world = world(&["a", "dir/x", "y"]);
    world.device(0).link("a", "dir/b");
    world.device(0).link("y", "dir/z");
    let before = published(world.device(0));
    world.device(0).rename("dir/b", "dir/c");
    assert_eq!(told(&mut world, &before), ["R dir/b -> dir/c"]);
    let before = world.device(0).root();
    // No name of it is different, and it is.
    world.device(0).write("a");
    assert_eq!(told(&mut world, &before), ["M a"]);
    let before = world.device(0).root();
    world.device(0).unlink("a");
    world.device(0).link("y", "w");
    world.device(0).write("y");
    assert_eq!(told(&mut world, &before), ["A w", "D a", "M y"]);
}

#[test]
fn two_that_change_places_do() {
    let mut world = world(&["a/one", "b/two"]);
    let before = world.device(0).root();
    for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
        world.device(0).rename(from, to);
    }
    assert_eq!(told(&mut world, &before), ["R a -> b", "R b -> a"]);
    let before = world.device(0).root();
    world.device(0).rename("a/two", "b/two");
    world.device(0).rename("b/one", "a/one");
    assert_eq!(told(&mut world, &before), ["R a/two -> b/two", "R b/one -> a/one"]);
}

#[test]
fn a_directory_that_became_a_volume_is_another_thing() {
    let mut world = world(&["dir/a", "b"]);
    let before = world.device(0).root();
    world.device(0).split("dir", crate::id::VolumeId([7; 16]));
    let after = published(world.device(0));
    let changes = compare((&before).into(), (&after).into(), world.device(0).bag()).unwrap();
    assert_eq!(short(&changes), ["M dir", "D dir/a"]);
    assert!(matches!(changes[0].after.as_ref().unwrap().thing, Thing::Volume(_)));
}

#[test]
fn parts_of_two_trees_are_compared_like_trees() {
    let mut world = world(&["dir/a", "dir/b", "c"]);
    let dir = |world: &World, root: &Root| {
        let entries = world.list(&root.inode);
        let entry = entries.into_iter().find(|entry| entry.name == b"dir").unwrap();
        let Target::Inode(inode) = entry.target else { panic!() };
        inode
    };
    let before = world.device(0).root();
    world.device(0).rename("dir", "away");
    let new = world.device(0).mkdir(FileId::ROOT, "dir");
    world.device(0).create(new, "a");
    world.device(0).rename("away/b", "dir/e");
    world.device(0).write("c");
    let after = published(world.device(0));
    let (one, other) = (dir(&world, &before), dir(&world, &after));
    let (one, other) = (Side { inode: &one, links: None }, Side { inode: &other, links: None });
    let changes = compare(one, other, world.device(0).bag()).unwrap();
    assert_eq!(short(&changes), ["M a", "R b -> e"]);
}

/// Counts what is read.
struct Counting<'a>(&'a crate::merge::tests::devices::Bag, std::cell::Cell<(usize, usize)>);

impl Source for Counting<'_> {
    type Error = SealError;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, SealError> {
        let (calls, nodes) = self.1.get();
        self.1.set((calls + 1, nodes + refs.len()));
        self.0.get(refs)
    }
}

#[test]
fn what_is_the_same_is_not_read() {
    let names: Vec<String> = (0..2_000).map(|n| format!("dir{:02}/sub{}/file{n}", n % 50, n % 7)).collect();
    let mut world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let before = world.device(0).root();
    world.device(0).write("dir07/sub0/file7");
    world.device(0).write("dir08/sub1/file8");
    let after = published(world.device(0));
    let source = Counting(world.device(0).bag(), Default::default());
    let changes = compare((&before).into(), (&after).into(), &source).unwrap();
    assert_eq!(short(&changes), ["M dir07/sub0/file7", "M dir08/sub1/file8"]);
    let (calls, nodes) = source.1.get();
    // Three levels of directories, of which each is no more than a few nodes.
    assert!(calls <= 9 && nodes <= 40, "{calls} calls, {nodes} nodes");
    let none = compare((&after).into(), (&after).into(), &source).unwrap();
    assert!(none.is_empty() && source.1.get().1 == nodes, "{:?}", short(&none));
}

#[test]
fn the_first_change_is_enough_to_know_that_there_is_one() {
    let names: Vec<String> = (0..2_000).map(|n| format!("dir{:02}/file{n}", n % 50)).collect();
    let mut world = world(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let before = world.device(0).root();
    for name in &names[..50] {
        world.device(0).write(name);
    }
    let after = published(world.device(0));
    let source = Counting(world.device(0).bag(), Default::default());
    let read = |differ: &dyn Fn() -> bool, expected: bool| {
        let (_, had) = source.1.get();
        assert_eq!(differ(), expected);
        source.1.get().1 - had
    };
    let all = read(&|| !compare((&before).into(), (&after).into(), &source).unwrap().is_empty(), true);
    let first = read(&|| differs((&before).into(), (&after).into(), &source).unwrap(), true);
    assert!(first > 0 && first * 5 < all, "{first} of {all}");
    assert_eq!(read(&|| differs((&after).into(), (&after).into(), &source).unwrap(), false), 0);
}

proptest! {
    /// Whatever a device does, by what is told of it the one tree becomes the other one, and nothing is told that is not so.
    #[test]
    fn by_what_is_told_one_tree_becomes_the_other(
        first in proptest::collection::vec(op(), 1..80),
        then in proptest::collection::vec(op(), 0..60),
    ) {
        let mut world = World::new(1);
        let act = |world: &mut World, ops: &[Op]| {
            ops.iter().filter(|op| !matches!(op, Op::Publish | Op::Learn(_))).for_each(|op| world.device(0).act(op));
            published(world.device(0))
        };
        let before = act(&mut world, &first);
        let after = act(&mut world, &then);
        for (one, other) in [(&before, &after), (&after, &before)] {
            let changes = compare(one.into(), other.into(), world.device(0).bag()).unwrap();
            check(&world, one, other, &changes).map_err(TestCaseError::fail)?;
            let is_told = changes.iter().any(|change| !change.path().is_empty());
            prop_assert_eq!(differs(one.into(), other.into(), world.device(0).bag()).unwrap(), is_told);
        }
    }
}

#[test]
fn paths_of_a_deep_and_wide_tree_are_not_held_without_end() {
    let mut world = World::new(1);
    let dir = world.device(0).mkdir(FileId::ROOT, "a");
    world.device(0).create(dir, "x");
    world.device(0).link("a/x", "a/y");
    let before = published(world.device(0));
    let bag = world.device(0).bag().clone();
    let empty = world.directory(Vec::new());
    let wide = (0..1_000).map(|number: u64| world.below(number, number.to_string().as_bytes(), empty.clone()));
    let deep = world.deep(2_100, &[b'd'; 255], wide.collect());
    let entries: Vec<_> = world.list(&before.inode).into_iter().chain([deep]).collect();
    let with = Root { inode: Inode { content: world.directory(entries), ..before.inode.clone() }, ..before.clone() };
    let is_too_much = |one: &Root, other: &Root| {
        let compared = compare(one.into(), other.into(), &bag);
        matches!(compared, Err(TreeError::TooMuch(_)))
    };
    // All of it is new,
    assert!(is_too_much(&before, &with));
    // or it is gone through for the names of something else, which has none.
    let nameless = |content: &[u8]| {
        let mut rows = world.rows(before.links.as_ref());
        (rows[0].inode.id, rows[0].inode.content) = (FileId([9; 16]), Content::Inline(content.to_vec()));
        Root { links: Some(tree::build(rows, &mut bag.clone()).unwrap()), ..with.clone() }
    };
    assert!(is_too_much(&nameless(b"one"), &nameless(b"other")));
}

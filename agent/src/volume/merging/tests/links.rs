//! The link table of what is published has what has a name in the tree, and nothing else: a row without a name says that its device
//! has not seen the file taken away.

use super::*;

/// Panics where a row of the link table that this device stands on has not just as many names in the tree as it says. What had
/// all its names in a directory that has become a volume may have a row still.
pub(super) fn check(volume: &Volume) {
    let Some(latest) = state::latest(&volume.db).unwrap() else { return };
    let rows = latest.root.links.map(|links| volume.link_entries(&links, Deadline::of_read()).unwrap());
    let mut rows: BTreeMap<_, u32> =
        rows.unwrap_or_default().into_iter().map(|row| (row.inode.id, row.links)).collect();
    let (mut names, mut waiting) = (BTreeMap::new(), vec![latest.root.inode.content]);
    let mut has_volumes = false;
    while let Some(content) = waiting.pop() {
        let Content::Directory(tree) = content else { continue };
        for entry in volume.list(&tree).unwrap() {
            match entry.target {
                Target::Link(id) => *names.entry(id).or_insert(0) += 1,
                Target::Inode(inode) => waiting.push(inode.content),
                Target::Volume { .. } => has_volumes = true,
            }
        }
    }
    rows.retain(|id, _| !has_volumes || names.contains_key(id));
    assert_eq!(rows, names, "of {}", volume.id.short());
}

#[test]
fn a_file_that_is_open_while_its_names_go_does_not_come_back() {
    for is_replaced in [false, true] {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 2, |home| {
            home.write("server", b"runs");
            home.mkdir("deps");
            home.link("server", "deps/server");
        });
        let [one, two] = &homes[..] else { panic!() };
        one.open(one.at("server"));
        one.unlink("server");
        one.unlink("deps/server");
        if is_replaced {
            one.write("server", b"built anew");
            one.link("server", "deps/server");
        }
        one.sync();
        two.write("beside", b"by two");
        two.sync();
        assert_eq!(two.follow(), Followed::Merged);
        one.follow();
        let tree = meet(&homes);
        match is_replaced {
            true => assert_eq!(names(&tree), ["beside", "deps", "deps/server", "server"]),
            false => assert_eq!(names(&tree), ["beside", "deps"]),
        }
        assert!(tree.values().all(|(_, content)| content.as_deref() != Some(b"runs")));
    }
}

#[test]
fn a_file_that_goes_while_it_is_published_does_not_come_back() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    one.write("tmp", b"object");
    one.link("tmp", "object");
    one.unlink("tmp");
    let before = mesh.uploads();
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| one.sync());
        while mesh.uploads() == before && !synced.is_finished() {
            std::thread::yield_now();
        }
        one.unlink("object");
        synced.join().unwrap();
    });
    assert_eq!(two.follow(), Followed::MovedOn);
    assert_eq!(names(&two.tree()), ["a", "object"]);
    one.sync();
    two.write("b", b"b");
    two.sync();
    assert_eq!(names(&meet(&homes)), ["a", "b"]);
}

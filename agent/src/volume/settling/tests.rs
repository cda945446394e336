//! Texts that several devices have changed, over a mesh that is a map.

use hypernet_fs::vfs::{Caller, OpenFlags};

use super::super::double::Mesh;
use super::super::follow::Followed;
use super::super::merging::tests::{Home, Tree, homes, meet};
use super::*;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// Everybody publishes and hears of everybody until nothing is left to do; then all trees are one.
fn settle(homes: &[Home]) -> Tree {
    for round in 0.. {
        assert!(round < 8, "there is no end of it");
        let tree = meet_dirty(homes);
        if homes.iter().all(|home| home.vfs.pending(home.volume.id).files == 0) {
            assert_eq!(meet(homes), tree);
            return tree;
        }
    }
    unreachable!()
}

/// One round of that.
fn meet_dirty(homes: &[Home]) -> Tree {
    homes.iter().for_each(Home::sync);
    homes.iter().for_each(Home::look);
    for _ in 0..2 {
        homes.iter().for_each(|home| _ = home.follow());
    }
    homes[0].tree()
}

fn root(home: &Home) -> Root {
    state::latest(&home.volume.db).unwrap().unwrap().root
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|line| format!("line {line}\n")).collect()
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree[path].1.clone().unwrap()).unwrap()
}

fn conflicts(tree: &Tree) -> usize {
    tree.keys().filter(|path| path.contains("(conflict of ")).count()
}

/// As editors and `sed -i` save: a new file takes the name of the old one.
fn save(home: &Home, path: &str, content: &str) {
    let new = format!("{path}.new");
    home.write(&new, content.as_bytes());
    home.rename(&new, path);
}

#[test]
fn texts_that_were_saved_as_new_files_under_the_old_name_are_versions_and_are_merged() {
    let base = lines(0..400);
    let (one_has, two_has) = (format!("of one\n{base}"), format!("{base}of two\n"));
    let both = format!("of one\n{base}of two\n");
    for in_place in [false, true] {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 2, |home| {
            home.mkdir("dir");
            home.write("dir/text", base.as_bytes());
            home.write("clash", b"begun\n");
        });
        let [one, two] = &homes[..] else { panic!() };
        save(one, "dir/text", &one_has);
        save(one, "clash", "of one\n");
        if in_place {
            two.write("dir/text", two_has.as_bytes());
        } else {
            save(two, "dir/text", &two_has);
        }
        save(two, "clash", "of two\n");
        // Nothing had this name.
        save(one, "new", "of one\n");
        save(two, "new", "of two\n");
        let tree = settle(&homes);
        assert_eq!(text(&tree, "dir/text"), both, "{in_place}");
        assert_eq!(conflicts(&tree), 2, "{:?}", tree.keys());
        for home in &homes {
            let listed = home.volume.conflicts_in(&root(home)).unwrap();
            let of: Vec<(String, usize)> = listed
                .iter()
                .map(|conflict| (String::from_utf8(conflict.file[0].clone()).unwrap(), conflict.file.len()))
                .collect();
            assert_eq!(of, [("clash".to_owned(), 1), ("new".to_owned(), 1)]);
        }
        // However often that goes on, there is one more for each time at most, and each is listed.
        for round in 0..3 {
            save(one, "clash", &format!("one {round}\n"));
            save(two, "clash", &format!("two {round}\n"));
            settle(&homes);
            assert_eq!(one.volume.conflicts_in(&root(one)).unwrap().len(), 3 + round, "{round}");
        }
    }
}

#[test]
fn what_two_have_changed_in_one_text_is_both_in_it_whoever_merges() {
    let mesh = Mesh::new(6);
    let base = lines(0..400);
    let homes = homes(&mesh, 2, |home| {
        home.mkdir("dir");
        for path in ["dir/text", "linked", "small"] {
            home.write(path, base.as_bytes());
        }
        home.write("small", b"a\nb\nc\n");
        home.link("linked", "dir/link");
    });
    let [one, two] = &homes[..] else { panic!() };
    let id = |home: &Home, path: &str| home.vfs.still(home.at(path)).unwrap();
    let before = id(one, "dir/text");
    for (home, line, by) in [(one, "line 3\n", "one\n"), (two, "line 390\n", "two\n")] {
        for path in ["dir/text", "linked"] {
            home.write(path, base.replace(line, by).as_bytes());
        }
    }
    one.write("small", b"A\nb\nc\n");
    two.write("small", b"a\nb\nC\nd\n");
    // Where it was moved meanwhile it is the same file.
    two.rename("dir/text", "moved");
    let tree = settle(&homes);
    let both = base.replace("line 3\n", "one\n").replace("line 390\n", "two\n");
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["dir", "dir/link", "linked", "moved", "small"]);
    for path in ["moved", "linked", "dir/link"] {
        assert_eq!(text(&tree, path), both, "{path}");
    }
    assert_eq!(text(&tree, "small"), "A\nb\nC\nd\n");
    assert_eq!(id(one, "moved").id(), before.id(), "it is the same file");
    assert_eq!(homes[0].read("moved"), homes[1].read("moved"));
}

#[test]
fn two_that_settle_the_same_come_to_one_text() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("text", lines(0..9).as_bytes()));
    let [one, two, three] = &homes[..] else { panic!() };
    for (home, line) in [(one, "line 0\n"), (two, "line 4\n"), (three, "line 8\n")] {
        home.write("text", lines(0..9).replace(line, &line.to_uppercase()).as_bytes());
    }
    homes.iter().for_each(Home::sync);
    homes.iter().for_each(Home::look);
    // Each merges by itself, and settles by itself what it has merged.
    for home in &homes {
        assert!((0..3).any(|_| home.follow() != Followed::Nothing));
    }
    let tree = settle(&homes);
    let all = ["line 0\n", "line 4\n", "line 8\n"];
    let all = all.iter().fold(lines(0..9), |text, line| text.replace(line, &line.to_uppercase()));
    assert_eq!((tree.len(), text(&tree, "text")), (1, all));
}

#[test]
fn what_is_not_clear_stays_with_both_versions() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| {
        home.write("lines", lines(0..9).as_bytes());
        home.write("binary", b"a\nb\nc\n\0");
        home.write("became", lines(0..9).as_bytes());
        home.write("empty", b"");
    });
    let [one, two] = &homes[..] else { panic!() };
    one.write("lines", lines(0..9).replace("line 4", "by one").as_bytes());
    two.write("lines", lines(0..9).replace("line 4", "by two").as_bytes());
    one.write("binary", b"A\nb\nc\n\0");
    two.write("binary", b"a\nb\nC\n\0");
    one.write("became", lines(0..9).replace("line 0", "by one").as_bytes());
    two.write("became", lines(0..8).replace("line 7", "\0").as_bytes());
    one.write("empty", b"by one\n");
    two.write("empty", b"by two\n");
    let tree = settle(&homes);
    assert_eq!((tree.len(), conflicts(&tree)), (8, 4), "{:?}", tree.keys());
    let kept = homes[0].volume.conflicts_in(&homes[0].volume.now(&homes[0].vfs).unwrap()).unwrap();
    let files: Vec<String> = kept.iter().map(|kept| String::from_utf8(kept.file.concat()).unwrap()).collect();
    assert_eq!(files, ["became", "binary", "empty", "lines"]);
    let names = homes[0].volume.names();
    assert!(kept.iter().all(|kept| names.iter().any(|(tag, _)| *tag == kept.mark.device)));
}

#[test]
fn without_what_both_began_with_both_versions_stay() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("text", lines(0..9).as_bytes()));
    for (home, line) in [(&homes[0], "line 0"), (&homes[1], "line 8")] {
        home.volume.db.put_states(&[("stood", None)]).unwrap();
        home.write("text", lines(0..9).replace(line, "changed").as_bytes());
        home.sync();
    }
    // What one has published since is nothing that the other has seen.
    let tree = settle(&homes);
    assert_eq!((tree.len(), conflicts(&tree)), (2, 1), "{:?}", tree.keys());
}

#[test]
fn a_snapshot_of_just_what_both_have_seen_is_what_they_began_with() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("text", lines(0..9).as_bytes()));
    let one = &homes[0];
    one.write("text", lines(0..9).replace("line 4", "later").as_bytes());
    meet(&homes);
    one.volume.snap(&one.vfs, "before".into(), false).unwrap().unwrap();
    for (home, line) in homes.iter().zip(["line 0", "line 8"]) {
        home.volume.db.put_states(&[("stood", None)]).unwrap();
        home.write("text", lines(0..9).replace("line 4", "later").replace(line, "changed").as_bytes());
    }
    homes.iter().for_each(Home::sync);
    one.look();
    one.follow();
    let both = lines(0..9).replace("line 4", "later").replace("line 0", "changed").replace("line 8", "changed");
    assert_eq!(one.read("text"), both.as_bytes());
    let tree = settle(&homes);
    assert_eq!((tree.len(), text(&tree, "text")), (1, both));
}

/// In a tree from before all that both have seen, what somebody has put back looks as if nobody had changed it.
#[test]
fn what_somebody_has_put_back_stays_so_or_is_kept_beside_the_other_version() {
    let (base, later) = (lines(0..9), lines(0..9).replace("line 4", "later"));
    for is_known in [true, false] {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 2, |home| home.write("text", base.as_bytes()));
        let [one, two] = &homes[..] else { panic!() };
        one.volume.snap(&one.vfs, "before".into(), false).unwrap().unwrap();
        meet(&homes);
        let old: Vec<_> = homes.iter().map(|home| state::stood(&home.volume.db).unwrap()).collect();
        one.write("text", later.as_bytes());
        meet(&homes);
        if !is_known {
            // As if there had been many others since.
            for (home, old) in homes.iter().zip(old) {
                home.volume.db.put_states(&[("stood", Some(&hypernet_core::codec::encode(&old)))]).unwrap();
            }
        }
        two.write("text", base.as_bytes());
        one.write("text", later.replace("line 0", "changed").as_bytes());
        let tree = settle(&homes);
        let all: Vec<_> = tree.keys().map(|path| text(&tree, path)).collect();
        if is_known {
            assert_eq!(all, [base.replace("line 0", "changed")]);
        } else {
            assert!(all.len() == 2 && all.contains(&base), "{all:?}");
        }
    }
}

/// Two of them have seen what the third one has not.
#[test]
fn versions_that_did_not_begin_with_one_tree_stay_beside_one_another() {
    let mesh = Mesh::new(6);
    let (base, later) = (lines(0..9), lines(0..9).replace("line 4", "later"));
    let homes = homes(&mesh, 3, |home| home.write("text", base.as_bytes()));
    homes[0].write("text", later.as_bytes());
    meet(&homes[..2]);
    let texts = [later.replace("line 0", "changed"), base.replace("line 2", "else"), base.replace("line 8", "last")];
    for (home, text) in homes.iter().zip(&texts) {
        home.write("text", text.as_bytes());
    }
    homes.iter().for_each(Home::sync);
    homes.iter().for_each(Home::look);
    homes[2].follow();
    homes[2].sync();
    let tree = homes[2].tree();
    let all: BTreeSet<_> = tree.keys().map(|path| text(&tree, path)).collect();
    assert_eq!(all, texts.into_iter().collect());
}

#[test]
fn what_was_changed_since_it_was_merged_is_left_alone() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("text", lines(0..9).as_bytes()));
    let one = &homes[0];
    let known = hypernet_core::codec::encode(&state::stood(&one.volume.db).unwrap());
    for (home, line) in homes.iter().zip(["line 0", "line 8"]) {
        home.volume.db.put_states(&[("stood", None)]).unwrap();
        home.write("text", lines(0..9).replace(line, "changed").as_bytes());
        home.sync();
    }
    let vectors = homes.iter().map(|home| root(home).vector).collect::<Vec<_>>();
    let tree = settle(&homes);
    let version = tree.keys().find(|path| path.contains("(conflict of ")).unwrap();
    // As if it had just been merged, with what both began with.
    one.volume.db.put_states(&[("stood", Some(&known))]).unwrap();
    let kept = one.volume.conflicts_in(&root(one)).unwrap();
    let (wanted, name) = (b"text".to_vec(), version.clone().into_bytes());
    let (of, id) = (kept[0].mark.device, kept[0].inode.id);
    let conflict = Conflict { parent: root(one).inode.id, wanted, name, of, id, is_new: true, parts: Some((0, 1)) };
    let again = |merged: &Root| {
        *one.volume.kept.lock() = Kept { conflicts: vec![conflict.clone()], vectors: vectors.clone(), texts: 0 };
        one.volume.settle(&one.vfs, merged);
        let kept = one.volume.kept.lock();
        (kept.texts, kept.conflicts.len())
    };
    // Somebody has it open for writing, or has written to it.
    let (ino, flags) = (one.at(version), OpenFlags(libc::O_RDWR));
    one.vfs.open_file(ME, ino, flags, false).unwrap();
    assert_eq!((again(&root(one)), one.tree()), ((0, 1), tree.clone()));
    one.vfs.release(ino, flags).unwrap();
    one.write("text", lines(0..9).replace("line 4", "since then").as_bytes());
    let changed = one.tree();
    assert_eq!((again(&root(one)), one.tree()), ((0, 1), changed.clone()));
    let before = root(one);
    one.sync();
    assert_eq!((again(&before), one.tree()), ((0, 1), changed), "that is another tree");
    assert_eq!(again(&root(one)), (1, 0));
    assert_eq!(one.tree().len(), 1);
}

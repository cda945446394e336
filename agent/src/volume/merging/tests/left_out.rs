//! What cannot be read, or comes too slowly, and that it is in nobody's way.

use hypernet_core::tree;

use super::*;
use crate::volume::sync::{Publication, publish};

/// What lies in no segment.
fn nowhere(volume: &Volume) -> Content {
    let node = Sealer::new(&volume.keys()).seal(Kind::Node, b"it is in no segment").unwrap().reference;
    Content::Directory(TreeRef { node, depth: 0, weight: 1 })
}

/// Publishes a tree in which a directory cannot be read.
fn publish_unread(home: &Home, name: &str) {
    let (volume, latest) = (&home.volume, home.latest());
    let sequence = volume.take_number().unwrap();
    let dot = volume.dot(sequence);
    let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
    let mut root = latest.root.clone();
    let Content::Directory(tree) = &root.inode.content else { panic!("no directory") };
    let mut entries = volume.entries(tree, Deadline::of_read()).unwrap();
    for entry in entries.iter_mut().filter(|entry| entry.name == name.as_bytes()) {
        let Target::Inode(inode) = &mut entry.target else { panic!("{name} is no directory") };
        (inode.content, inode.content_dot) = (nowhere(volume), Some(dot));
    }
    root.inode.content = Content::Directory(tree::build(entries, &mut writer).unwrap());
    root.vector = join([&root.vector[..], &[dot]]);
    root.parts.clear();
    publish(volume, writer, Publication::after(Some(&latest), root, sequence), &Meter::new()).unwrap();
}

#[test]
fn what_cannot_be_read_of_a_directory_that_became_a_volume_keeps_neither_volume_from_merging() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| {
        home.mkdir("dir");
        home.write("dir/f", b"before");
    });
    let [one, two, three] = &homes[..] else { panic!() };
    let below = one.split("dir", BELOW);
    one.sync_of(&below);
    one.sync();
    three.write("of three", b"3");
    three.write("dir/of three", b"3");
    three.sync();
    publish_unread(two, "dir");
    for _ in 0..4 {
        for volume in [&one.volume, &below] {
            one.look();
            let _ = volume.follow(&one.vfs, &one.volumes, ASKED, &Meter::new());
        }
    }
    let tree = one.tree();
    assert!(tree.contains_key("of three") && tree.contains_key("dir/of three"), "{:?}", names(&tree));
    assert!(below.splits.lock().is_empty());
    one.write("dir/later", b"later");
    one.sync_of(&below);
    assert_eq!([one.follow_of(&below), one.follow()], [Followed::Nothing; 2]);
}

#[test]
fn whoever_names_the_snapshot_of_somebody_else_is_left_out_alone() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 3, |home| home.write("a", b"a"));
    let [one, two, three] = &homes[..] else { panic!() };
    two.write("of two", b"2");
    two.sync();
    let theirs = two.latest().head;
    three.look();
    let sequence = three.volume.take_number().unwrap();
    // It says that there is more in it than there is.
    let vector = join([&theirs.vector[..], &[three.volume.dot(sequence)]]);
    let bent = Head { sequence, vector, device: three.volume.device.id(), ..theirs.clone() };
    let bent = three.volume.publish_head(bent, 1).unwrap();
    one.look();
    let _ = one.volume.follow(&one.vfs, &one.volumes, ASKED, &Meter::new());
    assert!(one.volume.is_refused(&bent) && !one.volume.is_refused(&theirs));
    assert_eq!(one.follow(), Followed::MovedOn);
    assert_eq!(one.read("of two"), b"2");
}

#[test]
fn of_trees_that_come_too_slowly_the_slowest_is_left_out() {
    let spent = Spent::default();
    let seconds = |number, seconds| spent.add(number, Duration::from_secs(seconds));
    for _ in 0..40 {
        seconds(1, 19);
    }
    seconds(0, 100);
    assert!(!spent.is_too_long());
    assert_eq!(spent.to_blame(|_| true), None);
    // The last that is read, and what this device has itself.
    seconds(2, 30);
    seconds(0, 800);
    assert!(spent.is_too_long());
    assert_eq!((spent.to_blame(|number| number > 0), spent.to_blame(|number| number == 3)), (Some(1), None));
}

#[test]
fn what_has_moved_on_is_not_given_up() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    one.tree();
    two.write("b", b"b");
    two.sync();
    let Latest { root: next, head, .. } = two.latest();
    one.look();
    let (beside, _) = one.volume.load_beside(&head).unwrap();
    one.volume.take_segments_of(&beside).unwrap();
    let bad = [damaged("a row is none"), PortError::Unreachable("not now".into())];
    let given_up = || bad.clone().map(|why| one.volume.is_given_up(&one.vfs, &next, &why).unwrap());
    assert_eq!(given_up(), [true, true]);
    assert!(one.volume.advance(&one.vfs, &next).unwrap());
    assert_eq!(given_up(), [false, false]);
}

#[test]
fn what_is_merged_beside_the_working_tree_forgets_what_it_was_moving_on_to() {
    let mesh = Mesh::new(6);
    let homes = split(&mesh, 2);
    let [one, two] = &homes[..] else { panic!() };
    let (theirs, below) = (one.volumes.of(BELOW).unwrap(), two.volumes.of(BELOW).unwrap());
    below.recover(None, &mut |_| ()).unwrap();
    state::put_following(&below.db, &state::latest(&theirs.db).unwrap().unwrap()).unwrap();
    below.take_splits(&two.vfs, &two.volumes, Vec::new()).unwrap();
    assert!(state::following(&below.db).unwrap().is_none());
    assert_eq!(two.follow(), Followed::Merged);
    assert_split(&homes[1..]);
}

/// Nothing is collected in the one before until a volume has all that it begins with, so it does not wait until somebody writes there.
#[test]
fn a_volume_that_has_not_all_that_it_begins_with_says_so_until_it_has() {
    let mesh = Mesh::new(6);
    let mut noise = [0; 200_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let begin = |home: &Home| {
        home.mkdir("dir");
        home.write("dir/file", &noise);
    };
    let home = homes(&mesh, 1, begin).remove(0);
    let placed = |volume: &Volume| -> Vec<Placement> {
        let rows = volume.db.segments_iter(0, 999).unwrap();
        rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect()
    };
    let mut lost = Vec::new();
    for placement in placed(&home.volume) {
        let (id, spare) = (placement.segment.id(), usize::from(placement.n - placement.segment.k));
        let rows: Vec<u8> = placement.holders[..spare].iter().map(|holder| holder.row).collect();
        placement.holders[..spare].iter().for_each(|holder| mesh.lose(holder.peer, id));
        lost.push((id, placement, rows));
    }
    let below = home.split("dir", BELOW);
    home.sync_of(&below);
    assert!(below.is_still_adopting().unwrap() && home.volume.branched().unwrap().is_some());
    // When its segments are as they should be again, the next head ends it.
    for (id, placement, rows) in &lost {
        below.lacking.asked(*id, placement, &[], rows);
    }
    below.repair(&home.vfs, u64::MAX).unwrap();
    home.vfs.mark_changed(BELOW).unwrap();
    home.sync_of(&below);
    assert!(!below.is_still_adopting().unwrap());
    assert_eq!(home.volume.branched().unwrap(), None);
}

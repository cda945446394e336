//! What devices rely on that others have placed, and what they know of it that others do not.

use hypernet_core::id::PeerId;
use hypernet_core::time::UnixSeconds;

use super::*;
use crate::volume::LEASE_SECONDS;

/// The segments of a device's index.
fn placed(home: &Home) -> BTreeMap<SegmentId, Placement> {
    let rows = home.volume.db.segments_iter(0, 999).unwrap();
    rows.into_iter().map(|row| (row.id, codec::decode(&row.descriptor).unwrap())).collect()
}

/// Peers that nobody has placed anything on so far, and that come before all others.
fn more_peers(mesh: &Mesh, from: u8) {
    mesh.connect((from..from + 8).map(|last| {
        let mut id = [0; 32];
        id[31] = last;
        PeerId(id)
    }));
}

/// So many holders of each segment have lost it; who they are, by segment.
fn lose(mesh: &Mesh, all: &BTreeMap<SegmentId, Placement>, from: usize, count: usize) -> BTreeSet<(SegmentId, PeerId)> {
    let mut lost = BTreeSet::new();
    for (id, placement) in all {
        for holder in placement.holders.iter().skip(from).take(count) {
            mesh.lose(holder.peer, *id);
            lost.insert((*id, holder.peer));
        }
    }
    lost
}

/// What was placed anew by a device that has found the first copy to be gone another one lets go of only when it has that.
#[test]
fn what_was_placed_anew_is_not_let_go_of_for_a_copy_that_is_gone() {
    for has_changed in [false, true] {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 900_000)));
        let [one, two] = &homes[..] else { panic!() };
        meet(&homes);
        lose(&mesh, &placed(one), 0, 99);
        // Of these two the first does not know.
        two.write("a", &big(1, 900_000));
        two.write("b", &big(2, 50_000));
        two.sync();
        if has_changed {
            one.write("c", b"c");
        }
        let tree = meet(&homes);
        one.collect().unwrap();
        one.collect().unwrap();
        assert_eq!(found_by_a_newcomer(&mesh, 3), tree, "{has_changed}");
        rounds(&homes, 3);
        one.write("d", b"d");
        one.sync();
        rounds(&homes, 2);
        assert_eq!(found_by_a_newcomer(&mesh, 4), meet(&homes), "{has_changed}");
    }
}

/// One device mends, the other one does not know that it had to, and merges.
#[test]
fn where_rows_were_mended_is_not_forgotten_when_trees_are_merged() {
    let mesh = Mesh::new(8);
    let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 700_000)));
    let [one, two] = &homes[..] else { panic!() };
    meet(&homes);
    let before = placed(two);
    let first = before.values().next().unwrap();
    let spare = usize::from(first.n - first.segment.k);
    let lost = lose(&mesh, &before, 0, spare);
    more_peers(&mesh, 1);
    for (id, placement) in &before {
        let holders = placement.holders.iter();
        let missing: Vec<u8> = holders.filter(|at| lost.contains(&(*id, at.peer))).map(|at| at.row).collect();
        two.volume.lacking.asked(*id, placement, &[], &missing);
    }
    assert_eq!(two.volume.repair(&two.vfs, u64::MAX).unwrap().mended, before.len() as u64);
    let mended = |home: &Home| {
        let all = placed(home);
        before.keys().all(|id| all[id].holders.iter().all(|holder| !lost.contains(&(*id, holder.peer))))
    };
    assert!(mended(two) && !mended(one));
    two.sync();
    one.write("c", b"c");
    let tree = meet(&homes);
    assert!(mended(two), "it looks for rows where they are not any more");
    two.sync();
    two.volume.release(&two.vfs, 0).unwrap();
    for id in before.keys() {
        assert!(two.volume.db.leases_of(id).unwrap().iter().all(|row| row.gone.is_none()));
    }
    // With what was mended there is enough, and without it there is not.
    lose(&mesh, &before, spare, spare);
    assert_eq!(found_by_a_newcomer(&mesh, 3), tree);
    // When the other one has found it out, too, it has them where they are.
    for (id, placement) in &before {
        let holders = placement.holders.iter();
        let missing: Vec<u8> = holders.filter(|at| lost.contains(&(*id, at.peer))).map(|at| at.row).collect();
        one.volume.lacking.asked(*id, placement, &[], &missing);
    }
    two.write("d", b"d");
    meet(&homes);
    assert!(mended(one) && mended(two));
}

#[test]
fn who_has_read_from_holders_before_asks_those_of_now_after_a_merge() {
    let mesh = Mesh::new(8);
    let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 700_000)));
    let [one, two] = &homes[..] else { panic!() };
    meet(&homes);
    let before = placed(two);
    let first = before.values().next().unwrap();
    let spare = usize::from(first.n - first.segment.k);
    let lost = lose(&mesh, &before, 0, spare);
    more_peers(&mesh, 1);
    for home in [one, two] {
        for (id, placement) in &before {
            let holders = placement.holders.iter();
            let missing: Vec<u8> = holders.filter(|at| lost.contains(&(*id, at.peer))).map(|at| at.row).collect();
            home.volume.lacking.asked(*id, placement, &[], &missing);
        }
    }
    assert!(two.volume.repair(&two.vfs, u64::MAX).unwrap().mended > 0);
    two.sync();
    one.write("c", b"c");
    one.sync();
    for row in one.volume.db.segments_iter(0, 999).unwrap() {
        one.volume.placement(row.id, &row.descriptor).unwrap();
    }
    while one.follow() != Followed::Merged {}
    for row in one.volume.db.segments_iter(0, 999).unwrap() {
        let read = one.volume.placement(row.id, &row.descriptor).unwrap();
        assert_eq!(*read, codec::decode::<Placement>(&row.descriptor).unwrap());
    }
}

/// A head says what a device relies on only when it is there, and others cannot wait for what they have not heard of.
#[test]
fn what_a_device_relies_on_is_kept_for_it_whatever_others_give_up() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| {
        home.write("a", &big(1, 900_000));
        home.write("b", &big(2, 50_000));
    });
    let [one, two] = &homes[..] else { panic!() };
    meet(&homes);
    let content = |home: &Home| placed(home).into_keys().collect::<BTreeSet<SegmentId>>();
    let before = content(one);
    two.write("c", &big(1, 900_000));
    let uploads = mesh.uploads();
    two.sync();
    assert!(mesh.uploads() > uploads);
    // All that the other one has placed, but what only its own tree needs.
    let given_up = one.volume.db.leases_iter(0, 999).unwrap();
    let given_up: Vec<_> =
        given_up.iter().map(|row| (row.number, codec::decode::<Placement>(&row.descriptor).unwrap())).collect();
    assert!(one.volume.tended().end_leases(&given_up).unwrap() > 0);
    let kept: Vec<&SegmentId> = before.iter().filter(|id| !two.volume.db.leases_of(id).unwrap().is_empty()).collect();
    assert!(!kept.is_empty());
    // Its catalog can be read, and what was found to be there already.
    let latest = state::latest(&two.volume.db).unwrap().unwrap();
    assert!(latest.manifest.pages.iter().any(|page| page.kind == PageKind::Index));
    two.volume.load_beside(&latest.head).unwrap();
    two.volume.drop_nodes(None).unwrap();
    let root = two.volume.root_of(&latest.head, &two.volume.publishers()).unwrap();
    let inode = two.volume.find_in(&root, &[b"c"]).unwrap().unwrap();
    let read = two.volume.read(&inode.content, 0..900_000).unwrap();
    assert_eq!(read.iter().map(|(_, part)| part.len()).sum::<usize>(), 900_000);
}

/// Of what nothing reached for a while the leases are not renewed: that it is in the index says nothing of the next sync.
#[test]
fn a_snapshot_does_not_hold_what_may_be_gone_by_the_next_sync() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| home.write("a", &big(1, 600_000))).remove(0);
    home.unlink("a");
    home.sync();
    let staged = |home: &Home| home.volume.db.staged_iter(0, 999).unwrap().len();
    for row in home.volume.db.leases_iter(0, 999).unwrap() {
        let mut placement: Placement = codec::decode(&row.descriptor).unwrap();
        let until = unix_now() + LEASE_SECONDS / 9;
        placement.holders.iter_mut().for_each(|holder| holder.until = UnixSeconds(until));
        let changes =
            [LeaseChange::Renewed(row.number, until), LeaseChange::Held(row.number, codec::encode(&placement))];
        home.volume.db.change_leases(&changes).unwrap();
    }
    home.write("a", &big(1, 600_000));
    let kept = home.volume.snap(&home.vfs, "kept".into(), false).unwrap().unwrap().kept;
    assert!(staged(&home) > 5);
    home.unlink("a");
    lose(&mesh, &placed(&home), 0, 99);
    let content = |home: &Home| {
        let root = home.volume.root_in(&kept).unwrap();
        let inode = home.volume.find_in(&root, &[b"a"]).unwrap().unwrap();
        let read = home.volume.read(&inode.content, 0..600_000).unwrap();
        read.iter().map(|(_, part)| part.len()).sum::<usize>()
    };
    assert_eq!(content(&home), 600_000, "it is on this disk");
    home.sync();
    assert_eq!(staged(&home), 0);
    home.volume.drop_nodes(None).unwrap();
    assert_eq!(content(&home), 600_000, "and on the mesh");
}

/// What is never published is no reason to keep garbage for ever.
#[test]
fn what_was_begun_from_a_volume_and_is_given_up_is_not_waited_for() {
    let mesh = Mesh::new(4);
    let home = homes(&mesh, 1, |home| home.write("a", b"a")).remove(0);
    let volume = &home.volume;
    let (branch, below) = (hypernet_core::id::VolumeId([0xff; 16]), hypernet_core::id::VolumeId([1; 16]));
    assert!(branch.is_branch() && !below.is_branch());
    for id in [branch, below] {
        volume.identity.keystore().change(|keystore| keystore.add_volume(id)).unwrap();
    }
    let begin = |id| state::put_origin(&volume.db.of(id).unwrap(), &state::Origin::default()).unwrap();
    begin(branch);
    assert_eq!(volume.branched().unwrap(), None, "nobody has it as a branch any more");
    begin(below);
    assert!(volume.branched().unwrap().is_some());
    // It has a place in the tree, or has none.
    volume.forget_unmade(&[volume.id, below].into()).unwrap();
    assert!(volume.branched().unwrap().is_some());
    volume.forget_unmade(&[volume.id].into()).unwrap();
    assert_eq!(volume.branched().unwrap(), None);
}

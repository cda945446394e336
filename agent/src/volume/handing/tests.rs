//! Peers that stop storing for others, over a mesh that is a map.

use hypernet_core::segment::Holder;
use hypernet_sdk::api::HealthState;

use super::super::double::Mesh;
use super::super::health::{Cause, count_now};
use super::super::merging::tests::{Home, Tree, homes};
use super::super::repair::Repaired;
use super::*;

fn noise(byte: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[byte]).finalize_xof().fill(&mut bytes);
    bytes
}

fn peer(i: u8) -> PeerId {
    PeerId([i; 32])
}

fn placements(home: &Home) -> Vec<Placement> {
    let rows = home.volume.db.segments_iter(0, 999).unwrap();
    let mut all: Vec<Placement> = rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect();
    all.extend(home.volume.catalog_segments(&home.volume.db).unwrap());
    all
}

fn is_named(home: &Home, peer: PeerId) -> bool {
    placements(home).iter().flat_map(|placement| &placement.holders).any(|holder: &Holder| holder.peer == peer)
}

fn repair(home: &Home) -> Repaired {
    home.volume.repair(&home.vfs, u64::MAX).unwrap()
}

fn let_go(home: &Home) -> LetGo {
    home.volume.let_go(&home.vfs, 0).unwrap()
}

/// What somebody finds who has nothing but the words, by path.
fn found_by_a_newcomer(mesh: &Mesh, device: u8) -> Tree {
    let home = Home::new(mesh, device);
    let found = home.volume.recover(None, &mut |_| ()).unwrap();
    home.vfs.set_root(home.volume.id, found.root.inode).unwrap();
    home.tree()
}

/// A home whose segments lie with eight peers, and two more that have room.
fn stored(mesh: &Mesh) -> Home {
    let home = homes(mesh, 1, |home| {
        home.write("file", &noise(1, 700_000));
        home.write("other", &noise(2, 300_000));
    })
    .remove(0);
    mesh.connect([9, 10].map(peer));
    home
}

#[test]
fn what_a_peer_hands_over_is_let_go_of_only_when_a_head_knows_where_it_is() {
    let mesh = Mesh::new(8);
    let home = stored(&mesh);
    let before = mesh.leased_at(peer(1));
    assert!(before > 2 && let_go(&home) == LetGo::default(), "nobody stops");
    mesh.leave(peer(1), true);
    let (told, _) = count_now(&home.volume);
    let segments = told.all.segments;
    assert_eq!((told.all.due, told.all.lost(), told.all.unreadable_now()), (segments, 0, 0));
    assert!(told.all.causes[&Cause::Leaving][&peer(1)] == segments && !told.all.causes.contains_key(&Cause::Gone));
    assert_eq!(crate::health::state(&told.all, 0, hypernet_sdk::api::Proven::Never), HealthState::Worn);

    // One of them at first, as slowly as all repair.
    let one = home.volume.repair(&home.vfs, 1).unwrap();
    assert_eq!((one.mended, one.handed, one.lost), (1, 1, 0));
    let rest = repair(&home);
    assert_eq!((rest.due, rest.mended, rest.handed, rest.failed), (rest.leaving, rest.leaving, rest.leaving, None));
    assert!(rest.catalog > 0 && repair(&home).due == 0);
    // It keeps all of it: nobody else knows yet where it is now.
    for _ in 0..3 {
        let gone = let_go(&home);
        assert!(gone.bytes == 0 && gone.left == before as u64 && !gone.waits.is_empty(), "{gone:?}");
    }
    assert_eq!(mesh.leased_at(peer(1)), before);
    let tree = home.tree();
    home.sync();
    assert!(!is_named(&home, peer(1)));
    let gone = let_go(&home);
    assert!(gone.bytes > 0 && gone.waits.is_empty(), "{gone:?}");
    while let_go(&home).left > 0 {}
    assert_eq!(mesh.leased_at(peer(1)), 0);
    // It is gone for good, and so are as many others as may be.
    let all = placements(&home);
    let spare = all.iter().map(|placement| placement.n - placement.segment.k).min().unwrap();
    mesh.disconnect((1..=spare + 1).map(peer));
    assert_eq!(found_by_a_newcomer(&mesh, 3), tree);
    assert_eq!(count_now(&home.volume).0.all.lost(), 0);
}

#[test]
fn whoever_changes_its_mind_keeps_what_it_has_and_it_counts_again() {
    let mesh = Mesh::new(8);
    let home = stored(&mesh);
    mesh.leave(peer(1), true);
    let moved = home.volume.repair(&home.vfs, 1).unwrap();
    assert_eq!((moved.mended, moved.handed), (1, 1));
    mesh.leave(peer(1), false);
    assert_eq!(repair(&home), Repaired::default());
    home.sync();
    // What was moved stays where it is; the lease of what it had before runs out.
    assert_eq!(let_go(&home), LetGo::default());
    assert!(is_named(&home, peer(1)) && mesh.leased_at(peer(1)) > 2);
    let (told, _) = count_now(&home.volume);
    assert_eq!((told.all.due, told.all.causes.contains_key(&Cause::Leaving)), (0, false));
}

#[test]
fn what_nobody_has_room_for_stays_and_is_said_to_be_worn() {
    let mesh = Mesh::new(8);
    let home = stored(&mesh);
    mesh.tell_free(3 << 10);
    mesh.leave(peer(1), true);
    let found = repair(&home);
    assert!(found.due > 0 && found.mended == 0, "{found:?}");
    assert!(found.failed.as_ref().unwrap().contains("no peer is there that has room"), "{found:?}");
    let (told, _) = count_now(&home.volume);
    assert!(told.all.due > 0 && told.all.lost() == 0 && told.all.unreadable_now() == 0);
    let before = mesh.leased_at(peer(1));
    assert_eq!((repair(&home).mended, let_go(&home).bytes, mesh.leased_at(peer(1))), (0, 0, before));
    // There is room again.
    mesh.tell_free(1 << 40);
    let moved = repair(&home);
    assert!(moved.handed > 0 && moved.failed.is_none(), "{moved:?}");
    home.sync();
    while let_go(&home).left > 0 {}
    assert_eq!(mesh.leased_at(peer(1)), 0);
}

#[test]
fn where_all_have_a_shard_already_what_lies_in_segments_is_written_anew_for_those_who_stay() {
    let mesh = Mesh::new(8);
    let home = homes(&mesh, 1, |home| home.write("file", &noise(1, 700_000))).remove(0);
    assert_eq!(placements(&home)[0].n, 8);
    mesh.leave(peer(1), true);
    let (told, _) = count_now(&home.volume);
    assert!(told.all.due > 0, "until then it is worn");
    let anew = repair(&home);
    assert!(anew.mended > 0 && anew.bytes > 0 && (anew.handed, &anew.failed) == (0, &None), "{anew:?}");
    assert!(let_go(&home).bytes == 0 && mesh.leased_at(peer(1)) > 0, "no head says so");
    home.sync();
    while let_go(&home).left > 0 {}
    assert_eq!((mesh.leased_at(peer(1)), repair(&home).due), (0, 0));
    let all = placements(&home);
    assert!(all.iter().all(|placement| placement.n <= 7) && !is_named(&home, peer(1)));
    let spare = all.iter().map(|placement| placement.n - placement.segment.k).min().unwrap();
    mesh.disconnect((1..=spare + 1).map(peer));
    assert_eq!(found_by_a_newcomer(&mesh, 2), home.tree());
}

/// Nothing would ever spread it again.
#[test]
fn what_all_have_is_not_written_anew_for_fewer_because_some_are_away() {
    let mesh = Mesh::new(8);
    let home = homes(&mesh, 1, |home| home.write("file", &noise(1, 700_000))).remove(0);
    let segments = |home: &Home| -> BTreeSet<_> {
        home.volume.db.segments_iter(0, 999).unwrap().into_iter().map(|row| row.id).collect()
    };
    let before = segments(&home);
    mesh.disconnect((6..=8).map(peer));
    mesh.leave(peer(1), true);
    let left = repair(&home);
    assert!(left.due > 0 && left.mended == 0 && left.failed.is_some(), "{left:?}");
    assert_eq!(segments(&home), before);
    mesh.connect((6..=8).map(peer));
    assert!(repair(&home).mended > 0);
    assert!(segments(&home).is_disjoint(&before));
}

#[test]
fn what_is_with_nobody_but_such_peers_is_not_lost_and_moved_first() {
    let mesh = Mesh::new(4);
    let home = homes(&mesh, 1, |home| home.write("file", &noise(1, 700_000))).remove(0);
    (1..=4).for_each(|i| mesh.leave(peer(i), true));
    let (told, _) = count_now(&home.volume);
    assert_eq!((told.all.lost(), told.all.unreadable_now(), told.all.margins.keys().next()), (0, 0, Some(&0)));
    mesh.connect((5..=9).map(peer));
    let moved = repair(&home);
    assert!(moved.lost == 0 && moved.mended == moved.due && moved.failed.is_none(), "{moved:?}");
    assert!(moved.handed > moved.mended, "all rows of each: {moved:?}");
    home.sync();
    while let_go(&home).left > 0 {}
    assert_eq!((1..=4).map(|i| mesh.leased_at(peer(i))).sum::<usize>(), 0);
    mesh.disconnect((1..=4).map(peer));
    assert_eq!(found_by_a_newcomer(&mesh, 2), home.tree());
}

#[test]
fn whoever_has_nothing_to_hand_over_costs_what_a_lost_shard_does_and_once() {
    let mesh = Mesh::new(8);
    let home = stored(&mesh);
    mesh.lose_disk(peer(1));
    mesh.leave(peer(1), true);
    let made = repair(&home);
    assert!(made.mended > 0 && made.mended == made.due && made.handed == 0, "{made:?}");
    for _ in 0..3 {
        home.sync();
        let again = repair(&home);
        assert_eq!((again.due, again.bytes), (0, 0), "what is said again costs nothing");
        mesh.leave(peer(1), true);
    }
    // It is away when it is to hand over what it has.
    let mesh = Mesh::new(8);
    let home = stored(&mesh);
    mesh.leave(peer(1), true);
    mesh.disconnect([peer(1)]);
    let made = repair(&home);
    assert!(made.mended > 0 && made.mended == made.due && made.handed == 0, "{made:?}");
    home.sync();
    assert!(!is_named(&home, peer(1)));
}

#[test]
fn another_device_that_has_not_seen_it_is_waited_for() {
    let mesh = Mesh::new(8);
    let homes = homes(&mesh, 2, |home| home.write("file", &noise(1, 700_000)));
    let [one, two] = &homes[..] else { panic!() };
    two.write("mine", &noise(2, 300_000));
    two.sync();
    super::super::merging::tests::meet(&homes);
    mesh.connect([9, 10].map(peer));
    mesh.leave(peer(1), true);
    while repair(one).handed > 0 {}
    one.sync();
    for _ in 0..3 {
        let gone = let_go(one);
        assert!(gone.left > 0, "{gone:?}");
        assert!(gone.waits.iter().any(|what| what.contains("device 2")), "{gone:?}");
    }
    let before = mesh.leased_at(peer(1));
    // It comes, hears of it, and moves what it answers for itself.
    super::super::merging::tests::meet(&homes);
    for _ in 0..6 {
        for home in &homes {
            repair(home);
            home.sync();
        }
        super::super::merging::tests::meet(&homes);
        for home in &homes {
            // Which also publishes what others ask for.
            home.collect().unwrap();
            let_go(home);
        }
    }
    assert_eq!((before > 0, mesh.leased_at(peer(1))), (true, 0));
    mesh.disconnect([peer(1)]);
    assert_eq!(found_by_a_newcomer(&mesh, 3), one.tree());
}

/// Whoever publishes changes has the catalog of before, and has seen what was found meanwhile.
#[test]
fn a_head_that_has_seen_the_move_and_names_the_old_place_keeps_what_is_there() {
    let mesh = Mesh::new(8);
    let homes = homes(&mesh, 2, |home| home.write("file", &noise(1, 700_000)));
    let [one, two] = &homes[..] else { panic!() };
    super::super::merging::tests::meet(&homes);
    mesh.connect([9, 10].map(peer));
    mesh.leave(peer(1), true);
    while repair(one).handed > 0 {}
    one.sync();
    two.look();
    two.volume.look_around().unwrap();
    two.write("later", &noise(2, 3_000));
    two.sync();
    one.look();
    let since = state::handed(&one.volume.db).unwrap().unwrap();
    let (seen, _) = one.volume.seen_by_others(&mut Vec::new()).unwrap();
    assert!(seen >= Some(since) && is_named(two, peer(1)), "{seen:?} of {since}");
    for _ in 0..3 {
        let_go(one);
    }
    assert!(mesh.leased_at(peer(1)) > 0);
    mesh.disconnect([9, 10].map(peer));
    assert_eq!(found_by_a_newcomer(&mesh, 3), two.tree());
}

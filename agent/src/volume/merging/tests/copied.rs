//! A home that was copied, agent and all, and both run at once.

use std::path::Path;

use super::*;

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if entry.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

/// The home of a device, and a copy of it as `cp -a` makes it while the agent is down.
fn copied(mesh: &Mesh, home: Home, device: u8) -> [Home; 2] {
    let Home { dir, volume, volumes, vfs, .. } = home;
    vfs.close(true).unwrap();
    let still = Arc::downgrade(&vfs);
    drop((vfs, volumes));
    while still.strong_count() > 0 {
        std::thread::yield_now();
    }
    let still = Arc::downgrade(&volume);
    drop(volume);
    while still.strong_count() > 0 {
        std::thread::yield_now();
    }
    let second = tempfile::tempdir().unwrap();
    copy(dir.path(), second.path());
    [dir, second].map(|dir| Home::of(mesh.volume(dir.path(), device), dir))
}

fn is_stopped(home: &Home) -> bool {
    matches!(home.volume.still_current(), Err(PortError::Superseded(_)))
}

/// Everybody goes on for as long as they may, and looks again each time.
fn go_on(homes: &[&Home]) {
    for _ in 0..6 {
        for home in homes.iter().filter(|home| !is_stopped(home)) {
            let _ = run(&home.volume, &home.vfs, &Meter::new());
            home.volume.confirm_again();
            let _ = home.volume.look_around();
            if !is_stopped(home) {
                let _ = home.volume.follow(&home.vfs, &home.volumes, ASKED, &Meter::new());
            }
        }
    }
}

fn begun(mesh: &Mesh, others: bool) -> ([Home; 2], Option<Home>) {
    let mut homes = homes(mesh, if others { 2 } else { 1 }, |home| home.write("before", b"before"));
    let third = others.then(|| homes.pop().unwrap());
    let both = copied(mesh, homes.pop().unwrap(), 1);
    both.iter().for_each(|home| home.volume.confirm().unwrap());
    (both, third)
}

/// Whichever of both records of one number stays on the mesh, and whatever a third device has seen of it by then.
#[test]
fn what_both_homes_have_published_under_one_number_is_in_everybodys_tree_and_one_of_them_stops() {
    for number in 0..8_u8 {
        let mesh = Mesh::new(6);
        let ([one, two], third) = begun(&mesh, true);
        let third = third.unwrap();
        if number % 4 < 2 {
            third.write("third", b"of its own");
            third.sync();
        }
        one.write("p", &[number]);
        one.sync();
        if number % 2 == 0 {
            // It has moved on to the first one, or merged it.
            while third.follow() != Followed::Nothing {}
            assert!(third.tree().contains_key("p"));
        }
        two.write("q", &[number, number]);
        two.unlink("before");
        let _ = run(&two.volume, &two.vfs, &Meter::new());
        go_on(&[&third, &one, &two]);
        if ![&one, &two].into_iter().any(is_stopped) {
            // A third device has brought both together, and neither had anything to say since: it is the next word that tells.
            one.write("next", b"next");
            go_on(&[&third, &one, &two]);
        }
        let (stopped, on): (Vec<&Home>, Vec<&Home>) = [&one, &two].into_iter().partition(|home| is_stopped(home));
        assert_eq!((stopped.len(), on.len()), (1, 1), "{number}");
        for home in [on[0], &third] {
            let tree = home.tree();
            assert_eq!(tree["p"].1.as_deref(), Some(&[number][..]), "{number}: {:?}", names(&tree));
            assert_eq!(tree["q"].1.as_deref(), Some(&[number, number][..]), "{number}: {:?}", names(&tree));
            assert!(!tree.contains_key("before"), "{number}: what one of them has taken away came back");
        }
        assert_eq!(on[0].tree(), third.tree());
        let told = format!("{}", stopped[0].volume.still_current().unwrap_err());
        assert!(told.contains("runs twice") && told.contains("hn device add"), "{told}");
        for home in [on[0], &third] {
            let told = home.volume.heads.lock().twice();
            assert!(told.len() == 1 && told[0].contains("publishes from two homes"), "{number}: {told:?}");
        }
        // Whoever goes on goes on.
        on[0].write("after", b"after");
        on[0].sync();
        while third.follow() != Followed::Nothing {}
        assert_eq!(third.read("after"), b"after");
    }
}

#[test]
fn an_identity_with_one_device_and_two_homes_of_it_loses_nothing_either() {
    for number in 0..4_u8 {
        let mesh = Mesh::new(6);
        let ([one, two], _) = begun(&mesh, false);
        one.write("p", &[number]);
        one.write("before", b"as the one has it");
        one.sync();
        two.write("q", &[number, number]);
        two.write("before", b"as the other has it");
        let _ = run(&two.volume, &two.vfs, &Meter::new());
        go_on(&[&one, &two]);
        let on: Vec<&Home> = [&one, &two].into_iter().filter(|home| !is_stopped(home)).collect();
        assert_eq!(on.len(), 1);
        let tree = on[0].tree();
        assert!(tree.contains_key("p") && tree.contains_key("q"), "{:?}", names(&tree));
        let versions: Vec<&[u8]> = tree
            .iter()
            .filter(|(name, _)| name.starts_with("before"))
            .filter_map(|(_, (_, held))| held.as_deref())
            .collect();
        assert!(versions.contains(&&b"as the one has it"[..]) && versions.contains(&&b"as the other has it"[..]));
    }
}

/// Both homes have the same leases: whoever gave up what only the other one needs would end them for both.
#[test]
fn nothing_is_collected_while_the_other_home_has_published_what_is_not_here() {
    let mesh = Mesh::new(6);
    let ([one, two], _) = begun(&mesh, false);
    one.unlink("before");
    one.sync();
    two.write("q", b"of the other one");
    let _ = run(&two.volume, &two.vfs, &Meter::new());
    for home in [&one, &two] {
        home.volume.confirm_again();
        let _ = home.volume.look_around();
    }
    let apart: Vec<&Home> = [&one, &two].into_iter().filter(|home| home.volume.has_twin()).collect();
    assert!(!apart.is_empty());
    for home in apart {
        let (collected, _) = home.collect().unwrap();
        assert!(collected.waits.is_some_and(|why| why.contains("not part of this tree yet")));
        assert_eq!(collected.dead, 0);
    }
    // All that either of them knows is kept for them, with all of its rows.
    for Volume { db, peers, .. } in [&one, &two].map(|home| &*home.volume) {
        let rows = db.segments_iter(0, 999).unwrap();
        let mut all: Vec<Placement> = rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect();
        let latest = state::latest(db).unwrap().unwrap();
        all.extend(latest.manifest.segments.iter().cloned().chain([latest.head.manifest_placement]));
        for placement in &all {
            assert!(peers.holds(placement, placement.n, 1_000).unwrap(), "{}", placement.segment.id().short());
        }
    }
}

#[test]
fn a_home_that_was_only_moved_goes_on_as_ever() {
    let mesh = Mesh::new(6);
    let ([left, moved], third) = begun(&mesh, true);
    let third = third.unwrap();
    drop(left);
    moved.write("p", b"p");
    moved.sync();
    assert_eq!(third.follow(), Followed::MovedOn);
    assert_eq!(third.read("p"), b"p");
    moved.volume.confirm_again();
    moved.volume.look_around().unwrap();
    for home in [&moved, &third] {
        assert!(!is_stopped(home) && home.volume.heads.lock().twice().is_empty());
    }
}

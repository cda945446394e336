use std::path::Path;
use std::sync::Arc;

use hypernet_core::codec;
use tempfile::TempDir;

use super::super::devices::RevokeError;
use super::super::double::{Mesh, head, publish, publish_with, record};
use super::super::state::Latest;
use super::*;

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The newest head of the device that the mesh has.
fn on_the_mesh(volume: &Volume) -> u64 {
    let signer = volume.device.head_signer(&volume.keys());
    volume.peers.lookup(record_key(&signer)).unwrap().unwrap().sequence
}

fn is_superseded(outcome: &Result<(), PortError>) -> bool {
    matches!(outcome, Err(PortError::Superseded(_)))
}

/// A device that has published one head, and a copy of its home of that moment. Neither is open.
fn copied(mesh: &Mesh) -> (TempDir, TempDir) {
    let (home, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(&mesh.volume(home.path(), 1), 1).unwrap();
    copy(home.path(), old.path());
    (home, old)
}

#[test]
fn a_home_that_was_put_back_from_a_copy_publishes_nothing_however_often_it_tries() {
    let mesh = Mesh::new(4);
    let (home, old) = copied(&mesh);
    let mine = mesh.volume(home.path(), 1);
    publish(&mine, 2).unwrap();
    publish(&mine, 3).unwrap();
    let back = mesh.volume(old.path(), 1);
    for _ in 0..4 {
        let Err(PortError::Superseded(why)) = publish(&back, 4) else { panic!("an old home published") };
        assert!(why.contains("older than head 3, which this device published at 1970-01-01T00:00:00Z"), "{why}");
        assert!(!why.contains('\n'));
    }
    assert!(is_superseded(&back.still_current()));
    assert_eq!(state::next_sequence(&back.db, &back.device.id()).unwrap(), 2, "a number was used up");
    assert_eq!(on_the_mesh(&mine), 3);
    publish(&mine, 5).unwrap();
}

#[test]
fn who_only_looks_finds_it_too_and_a_look_without_peers_decides_nothing() {
    let mesh = Mesh::new(4);
    let (home, old) = copied(&mesh);
    publish(&mesh.volume(home.path(), 1), 2).unwrap();
    let back = mesh.volume(old.path(), 1);
    let peers = || (1..=4).map(|i| hypernet_core::id::PeerId([i; 32]));
    mesh.disconnect(peers());
    assert!(matches!(back.look_around(), Err(PortError::Unreachable(_))));
    back.still_current().unwrap();
    mesh.connect(peers());
    assert!(is_superseded(&back.look_around()) && is_superseded(&back.still_current()));
}

/// Both have looked, and publish under one number: one of the two records stays. Each goes on for as long as the other one lacks what
/// it has published, and then stops.
#[test]
fn of_two_homes_that_run_at_once_one_stops_when_the_other_one_has_all() {
    for millis in 10..20 {
        let mesh = Mesh::new(4);
        let (home, old) = copied(&mesh);
        let homes = [mesh.volume(home.path(), 1), mesh.volume(old.path(), 1)];
        assert_ne!(homes[0].dot(2), homes[1].dot(2));
        homes.iter().for_each(|home| home.confirm().unwrap());
        let _ = publish(&homes[0], 1);
        let _ = publish(&homes[1], millis);
        homes.iter().for_each(|home| home.look_around().unwrap());
        assert_eq!((homes.iter().filter(|home| home.has_twin()).count(), on_the_mesh(&homes[0])), (1, 2));
        let (one, other) = if millis % 2 == 0 { (0, 1) } else { (1, 0) };
        homes[one].confirm_again();
        publish_with(&homes[one], 30, &[homes[other].dot(2)]).unwrap();
        assert!(on_the_mesh(&homes[0]) > 2);
        assert!(is_superseded(&homes[other].look_around()) && is_superseded(&homes[other].still_current()));
        homes[one].look_around().unwrap();
        assert!(is_superseded(&publish(&homes[other], 40)));
        publish(&homes[one], 50).unwrap();
    }
}

#[test]
fn a_number_that_was_handed_out_and_published_by_nobody_is_passed_over() {
    let mesh = Mesh::new(4);
    let home = tempfile::tempdir().unwrap();
    let mine = mesh.volume(home.path(), 1);
    publish(&mine, 1).unwrap();
    state::hand_out(&mine.db, &record(&mine, head(&mine, 2, &[]))).unwrap();
    drop(mine);
    let mine = mesh.volume(home.path(), 1);
    publish(&mine, 3).unwrap();
    assert_eq!(on_the_mesh(&mine), 3);
    // And after a stop in which it was published and not known to be.
    let unsure = record(&mine, head(&mine, 4, &[]));
    state::hand_out(&mine.db, &unsure).unwrap();
    mine.peers.publish(unsure, 1, "the head").unwrap();
    drop(mine);
    publish(&mesh.volume(home.path(), 1), 5).unwrap();
}

#[test]
fn what_others_published_is_known_told_and_handed_on() {
    let mesh = Mesh::new(4);
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [a, b]: [Arc<Volume>; 2] = [mesh.volume(homes[0].path(), 1), mesh.volume(homes[1].path(), 2)];
    publish(&a, 1).unwrap();
    publish(&b, 2).unwrap();
    publish(&b, 3).unwrap();
    assert_eq!(a.heads.lock().not_part_of(&[]).len(), 0, "nobody has looked");
    a.look_around().unwrap();
    let dot = |sequence| Dot { device: b.device.id().tag(), sequence };
    let told = a.heads.lock().not_part_of(&[dot(1)]);
    let words: Vec<String> = told.iter().map(|found| found.words()).collect();
    assert_eq!(words.len(), 1);
    assert!(words[0].contains("device device 2 has head 2 of 1970-01-01T00:00:00Z"), "{words:?}");
    assert_eq!(a.heads.lock().not_part_of(&[dot(2)]).len(), 0, "a tree that has it all lacks nothing");
    // The next head says so, whatever its tree has.
    assert_eq!(a.heads.lock().seen(a.id, &[dot(1)]), [dot(2)]);
    publish(&a, 4).unwrap();
    let roster = a.identity.roster();
    assert_eq!(a.find_heads(&roster.devices).unwrap().seen_of(&b.device.id()), 2);
}

#[test]
fn a_device_is_taken_off_only_when_something_else_leads_to_what_it_published() {
    let mesh = Mesh::new(4);
    let homes: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let volumes: Vec<Arc<Volume>> = (0..3).map(|i| mesh.volume(homes[i].path(), i as u8 + 1)).collect();
    for (volume, millis) in volumes.iter().zip(1..) {
        publish(volume, millis).unwrap();
    }
    let last = volumes[2].clone();
    // Nothing that is here leads to what it published.
    assert!(matches!(
        last.revoke_device(&|| Ok(vec![]), "device 2", false, None),
        Err(RevokeError::Only { sequence: 1, .. })
    ));
    let dot = |i: usize| Dot { device: volumes[i].device.id().tag(), sequence: 1 };
    let formats = hypernet_format::all();
    let of = |name: &str| formats[name].bytes.clone();
    let mut latest = Latest {
        snapshot: hypernet_core::id::SnapshotId([0; 32]),
        root: codec::decode(&of("root")).unwrap(),
        manifest: codec::decode(&of("manifest")).unwrap(),
        time: Hlc::default(),
        head: Head { device: volumes[0].device.id(), ..codec::decode(&of("head")).unwrap() },
    };
    latest.root.vector = vec![dot(0), dot(1)];
    state::put_latest(&last.db, &latest).unwrap();
    // Its tree has all of both, and the first is what leads to it.
    assert!(matches!(last.revoke_device(&|| Ok(vec![]), "device 1", false, None), Err(RevokeError::Only { .. })));
    assert_eq!(last.devices().unwrap().iter().filter(|listed| listed.is_here).count(), 2);
    assert_eq!(last.revoke_device(&|| Ok(vec![]), "device 2", false, None).unwrap().device.name, "device 2");
    assert_eq!(last.devices().unwrap().len(), 2);
    assert!(matches!(last.revoke_device(&|| Ok(vec![]), "device 3", true, None), Err(RevokeError::This(_))));
    assert!(matches!(last.revoke_device(&|| Ok(vec![]), "device 2", true, None), Err(RevokeError::Device(_))));
    // It publishes no more, and those that stay do.
    let [first, second, third] = [0, 1, 2].map(|i| volumes[i].clone());
    for volume in [&first, &second, &third] {
        volume.heads.lock().confirmed = None;
    }
    assert!(is_superseded(&second.confirm()));
    publish(&first, 9).unwrap();
    publish(&third, 9).unwrap();
}

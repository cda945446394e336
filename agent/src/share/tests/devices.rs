//! What several devices of one person say of a volume.

use hypernet_core::key::{DeviceKeys, RecoveryKeys, Secret};
use hypernet_core::share::posting;
use hypernet_core::time::Hlc;
use hypernet_core::tree::Dot;

use super::super::kept::Left;
use super::*;
use crate::identity::arrival;
use crate::volume::devices::RevokeError;
use crate::volume::double::publish_with;
use crate::volume::state::{self, tests::golden};

/// Another device of the owner, which has nothing but the words.
fn recovered(mesh: &Mesh) -> One {
    let home = tempfile::tempdir().unwrap();
    let phrase = RecoveryKeys::new(&[OWNER; 64]);
    let keys = DeviceKeys::new(Secret::new([99; 32]));
    let arrived = arrival::by_phrase(&mesh.peers(), &phrase, &keys, "new", false, &mut |_| ()).unwrap();
    let main = mesh.arrived(home.path(), 99, arrived);
    main.look_around().unwrap();
    One { main, _home: home }
}

fn role(volume: &Volume, of: &One) -> Option<Role> {
    volume.hear(Ask::All).unwrap().unwrap().members.role(&of.main.identity.id())
}

#[test]
fn what_a_device_has_granted_stays_when_another_one_takes_it_off_the_list() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer), (&ben, "ben", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let (hers, his) = (accepted(&anna, &owner), accepted(&ben, &owner));
    let new = recovered(&mesh);
    let theirs = new.volume();
    theirs.vouch_for(&owner.id()).unwrap();
    new.main.identity.revoke(&owner.id()).unwrap();
    theirs.tend().unwrap();
    tell(&new);
    publish(&theirs, 2).unwrap();
    for volume in [&theirs, &hers, &his] {
        assert_eq!((role(volume, &anna), role(volume, &ben)), (Some(Role::Writer), Some(Role::Reader)));
        assert!(seen(volume).contains(&(new.id(), 1)), "{:?}", seen(volume));
    }
    hers.may_write().unwrap();
    assert_eq!(his.role(), Some(Role::Reader));
    // What the one that is off says from now on is nothing.
    let refused = volume.remove(&[anna.main.identity.id()]);
    assert!(refused.is_err() || role(&theirs, &anna).is_some());
    theirs.tend().unwrap();
    assert_eq!((role(&theirs, &anna), role(&his, &anna)), (Some(Role::Writer), Some(Role::Writer)));
}

/// Whoever has a device that is off the list signs what they like with it, and others hear of it.
#[test]
fn what_a_device_signs_that_is_off_the_list_changes_nothing_however_often_it_is_heard_of() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer), (&ben, "ben", Role::Reader)]);
    let new = recovered(&mesh);
    let theirs = new.volume();
    theirs.vouch_for(&owner.id()).unwrap();
    new.main.identity.revoke(&owner.id()).unwrap();
    theirs.tend().unwrap();
    // It was told of the epoch before the one that began when it was gone, and of none after that.
    let before = volume.share().unwrap().epochs;
    volume.remove_unheard(&[ben.main.identity.id()]).unwrap();
    theirs.tend().unwrap();
    let heard = theirs.known_share().unwrap().circle.log;
    assert!(heard.entries().filter(|entry| entry.author.device == owner.id()).count() > 2, "it was heard of");
    assert!(theirs.share().unwrap().epochs.iter().any(|epoch| !before.contains(epoch)));
    let entries = heard.entries().count();
    for _ in 0..3 {
        theirs.tend().unwrap();
    }
    assert_eq!(theirs.known_share().unwrap().circle.log.entries().count(), entries, "it is answered again and again");
    assert_eq!((role(&theirs, &anna), role(&theirs, &ben)), (Some(Role::Writer), Some(Role::Reader)));
}

#[test]
fn a_removal_by_a_device_that_nobody_has_met_reaches_all() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let (hers, his) = (accepted(&anna, &owner), accepted(&ben, &owner));
    assert_eq!(seen(&his), [(owner.id(), 1)]);
    // Another epoch has begun before anybody could hear of the device from one that they know.
    let new = recovered(&mesh);
    let theirs = new.volume();
    theirs.hear(Ask::All).unwrap();
    theirs.remove(&[ben.main.identity.id()]).unwrap();
    tell(&new);
    publish(&theirs, 2).unwrap();
    owner.main.identity.look().unwrap();
    assert_eq!((role(&hers, &ben), role(&volume, &ben)), (None, None));
    assert!(seen(&hers).contains(&(new.id(), 1)));
    let _ = his.hear(Ask::All);
    assert_eq!(his.role(), None, "he finds that he is shut out");
    // The same of somebody who was just made admin, and is asked nothing.
    let known = Contacts::of(new.main.identity.keystore()).get("ben").unwrap();
    let guest = Guest::find(&theirs, known).unwrap();
    theirs.grant(vec![guest], Role::Writer).unwrap();
    tell(&new);
    assert_eq!(role(&hers, &ben), Some(Role::Writer));
    hers.remove(&[ben.main.identity.id()]).unwrap();
    tell(&anna);
    assert_eq!((role(&theirs, &ben), role(&volume, &ben)), (None, None));
}

#[test]
fn nobody_is_left_out_by_a_device_that_has_met_nobody() {
    let mesh = Mesh::new(6);
    let people: Vec<One> = (40..70).map(|who| One::new(&mesh, who)).collect();
    let owner = One::new(&mesh, OWNER);
    let with: Vec<(&One, String)> = people.iter().enumerate().map(|(at, one)| (one, format!("p{at}"))).collect();
    let with: Vec<(&One, &str, Role)> = with.iter().map(|(one, name)| (*one, name.as_str(), Role::Reader)).collect();
    let volume = share(&owner, &with);
    publish(&volume, 1).unwrap();
    let last = accepted(people.last().unwrap(), &owner);
    let new = recovered(&mesh);
    let theirs = new.volume();
    theirs.hear(Ask::All).unwrap();
    theirs.remove(&[people[0].main.identity.id()]).unwrap();
    tell(&new);
    publish(&theirs, 2).unwrap();
    assert!(seen(&last).contains(&(new.id(), 1)));
    assert_eq!(last.role(), Some(Role::Reader));
}

#[test]
fn who_is_no_admin_any_more_shuts_nobody_out() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let (hers, his) = (accepted(&anna, &owner), accepted(&ben, &owner));
    tell(&anna);
    hers.tend().unwrap();
    assert_eq!(role(&his, &anna), Some(Role::Admin));
    // She has not heard of it, and takes off another one.
    let before = hers.known_share().unwrap();
    volume.remove(&[anna.main.identity.id()]).unwrap();
    tell(&owner);
    assert_eq!(role(&his, &anna), None);
    hers.change_circle(|circle| {
        *circle = Some(before.circle.clone());
        Ok::<_, PortError>(())
    })
    .unwrap();
    hers.remove_unheard(&[ben.main.identity.id()]).unwrap();
    let _ = his.hear(Ask::All);
    assert_eq!((role(&his, &ben), his.role()), (Some(Role::Writer), Some(Role::Writer)));
    his.may_write().unwrap();
}

#[test]
fn a_device_that_is_off_the_list_is_told_so() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    let new = recovered(&mesh);
    new.volume().vouch_for(&owner.id()).unwrap();
    new.main.identity.revoke(&owner.id()).unwrap();
    let _ = owner.main.identity.confirm();
    let refused = volume.remove(&[anna.main.identity.id()]).unwrap_err();
    assert!(refused.to_string().contains("not on the list"), "{refused}");
}

#[test]
fn an_admin_who_was_taken_off_is_told_so_and_not_that_it_is_done() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let theirs = accepted(&anna, &owner);
    theirs.hear(Ask::All).unwrap();
    let link = theirs.make_link(Role::Reader, None).unwrap();
    volume.remove(&[anna.main.identity.id()]).unwrap();
    let guest = Guest::find(&theirs, anna.knows(&ben, "ben")).unwrap();
    let refused = [
        theirs.grant(vec![guest], Role::Admin),
        theirs.remove(&[ben.main.identity.id()]),
        theirs.rotate(),
        theirs.make_link(Role::Writer, None).map(drop),
        theirs.take_back(&link),
    ];
    for one in refused {
        assert!(matches!(one, Err(ShareError::Members(_))), "{one:?}");
    }
    volume.hear(Ask::All).unwrap();
    let members = volume.known_share().unwrap().members;
    assert_eq!(members.role(&ben.main.identity.id()), Some(Role::Writer));
}

/// Whether somebody is taken off by the one that the other one has named, too.
fn two_beginnings(removes: bool) {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    let volumes = [owner.volume(), Arc::new(Volume::below(&second, SHARED).unwrap())];
    volumes.iter().for_each(|volume| volume.begin_share(FileId([5; 16]), "photos").unwrap());
    assert_ne!(volumes[0].share().unwrap().begin, volumes[1].share().unwrap().begin);
    for (volume, guests) in [(&volumes[0], &[(&anna, "anna")][..]), (&volumes[1], &[(&anna, "anna"), (&ben, "ben")])] {
        for (guest, name) in guests {
            let them = &guest.main.identity;
            let contact = Contacts::of(volume.identity.keystore()).add(name, them.id(), them.address()).unwrap();
            volume.grant(vec![Guest::find(volume, contact).unwrap()], Role::Writer).unwrap();
        }
    }
    if removes {
        volumes[0].remove(&[anna.main.identity.id()]).unwrap();
    }
    for _ in 0..3 {
        for volume in &volumes {
            volume.identity.confirm().unwrap();
            volume.identity.look().unwrap();
        }
        volumes.iter().for_each(|volume| volume.tend().unwrap());
    }
    assert_eq!(volumes[0].share().unwrap().begin, volumes[1].share().unwrap().begin);
    for volume in &volumes {
        let members = volume.known_share().unwrap().members;
        assert_eq!(members.role(&ben.main.identity.id()), Some(Role::Writer));
        assert_eq!(members.role(&anna.main.identity.id()), (!removes).then_some(Role::Writer));
        publish(volume, 7).unwrap();
    }
    let mut both = vec![(owner.id(), 1), (second.device.id(), 1)];
    both.sort();
    volumes.iter().for_each(|volume| assert_eq!(seen(volume), both));
    tell(&owner);
    second.put_offers().unwrap();
    second.identity.confirm().unwrap();
    assert_eq!(seen(&accepted(&ben, &owner)), both);
    assert_eq!(offered(&anna, &anna.knows(&owner, "carl")).is_empty(), removes);
}

#[test]
fn two_devices_that_begin_to_share_one_volume_at_once_come_to_one_beginning_with_all_whom_either_has_named() {
    two_beginnings(false);
    two_beginnings(true);
}

#[test]
fn a_device_that_has_published_in_a_share_what_no_other_one_of_its_identity_has_is_not_taken_off() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    // In the main volume it has written something, and another one has it.
    second.look_around().unwrap();
    publish(&second, 2).unwrap();
    publish_with(&owner.main, 3, &[second.dot(1)]).unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    theirs.tend().unwrap();
    let revoke = || owner.main.revoke_device(&|| Ok(vec![volume.clone()]), "device 1", false, None);

    publish(&theirs, 4).unwrap();
    let refused = revoke().map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("of device 1, of"), "{refused}");
    // Also while its head is not found.
    let keys = theirs.keys();
    let (signer, place) = (second.device.head_signer(&keys), second.identity.own_beacon(&second.device.id()).unwrap());
    assert_eq!(place.head_signer(&second.device.id(), &keys), Some(signer));
    let kept = mesh.all_records().into_iter().find(|record| record.signer == signer).unwrap();
    mesh.forget_records_of(&signer);
    let refused = revoke().map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("no head of device 1"), "{refused}");
    mesh.keep(kept);
    // What it has published is part of what this one has published.
    publish_with(&volume, 5, &[theirs.dot(state::next_sequence(&theirs.db, &second.device.id()).unwrap() - 1)])
        .unwrap();
    assert_eq!(revoke().unwrap().device.name, "device 1");
}

#[test]
fn a_device_that_has_published_nothing_in_a_share_that_it_looks_after_is_taken_off() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    second.look_around().unwrap();
    publish(&second, 2).unwrap();
    publish_with(&owner.main, 3, &[second.dot(1)]).unwrap();
    let looks = Arc::new(Volume::below(&second, SHARED).unwrap());
    looks.tend().unwrap();
    second.identity.confirm().unwrap();
    // Others find what it says of who has a part in it all the same.
    looks.rotate().unwrap();
    second.identity.confirm().unwrap();
    volume.hear(Ask::All).unwrap();
    assert_eq!(volume.share().unwrap().epochs.len(), 2);
    owner.main.revoke_device(&|| Ok(vec![volume.clone()]), "device 1", false, None).unwrap();
}

/// What is shared, as the owner has it, and as two devices of one who may write have it, of which the second has published in it.
struct Two {
    owner: One,
    anna: One,
    second: Arc<Volume>,
    volume: Arc<Volume>,
    hers: Arc<Volume>,
    theirs: Arc<Volume>,
    _home: tempfile::TempDir,
}

fn two_devices_of_a_writer() -> Two {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let _home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(_home.path(), ANNA, 1);
    second.look_around().unwrap();
    anna.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    tell(&anna);
    second.look_around().unwrap();
    publish(&second, 2).unwrap();
    publish_with(&anna.main, 3, &[second.dot(1)]).unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    theirs.tend().unwrap();
    publish(&theirs, 4).unwrap();
    Two { owner, anna, second, volume, hers, theirs, _home }
}

#[test]
fn a_device_that_has_published_in_a_share_that_is_out_of_the_tree_is_taken_off_where_this_one_stands_on_all_of_it() {
    let Two { owner, anna, second, hers, theirs, .. } = &two_devices_of_a_writer();
    let revoke = || anna.main.revoke_device(&|| Ok(vec![hers.clone()]), "device 1", false, None);
    let refused = |is: bool| {
        let error = revoke().map(|_| ()).unwrap_err();
        assert!(matches!(error, RevokeError::Only { is_out, .. } if is_out == is), "{error}");
        assert!(error.to_string().contains("in 'photos' (volume"), "{error}");
    };
    refused(false);
    // It stands on a head of somebody else that has all of it.
    hers.hear(Ask::All).unwrap();
    let stands = |on: DeviceId, all: &[Dot]| {
        let mut latest = golden();
        (latest.root.volume, latest.root.vector) = (SHARED, all.to_vec());
        latest.head.snapshot_extent = crate::volume::double::sealed_now(hers, latest.head.snapshot_extent);
        latest.head.device = on;
        state::put_latest(&hers.db, &latest).unwrap();
    };
    stands(owner.id(), &[]);
    let left = Left { changed: Hlc { millis: 1, counter: 0 }, is_out: true };
    anna.main.identity.keystore().change(|mine| mine.change_share(SHARED, |share| share.left = left)).unwrap();
    refused(true);
    let all = [theirs.dot(state::next_sequence(&theirs.db, &second.device.id()).unwrap() - 1)];
    // What it has published is all that leads to that.
    stands(second.device.id(), &all);
    refused(true);
    stands(owner.id(), &all);
    assert_eq!(revoke().unwrap().device.name, "device 1");
}

#[test]
fn what_a_device_has_published_is_not_given_up_for_a_part_that_may_not_be_that_of_now() {
    let Two { owner, anna, volume, hers, .. } = &two_devices_of_a_writer();
    volume.remove(&[anna.main.identity.id()]).unwrap();
    volume.grant(vec![Guest::find(volume, owner.knows(anna, "anna")).unwrap()], Role::Reader).unwrap();
    tell(owner);
    hers.hear(Ask::All).unwrap();
    assert_eq!(hers.known_share().unwrap().role(&anna.main.identity.id()), Some(Role::Reader));
    let revoke = || anna.main.revoke_device(&|| Ok(vec![hers.clone()]), "device 1", false, None);
    hers.unread.lock().insert(posting::place(&volume.device, &SHARED).signer());
    let refused = revoke().map(|_| ()).unwrap_err();
    assert!(matches!(refused, RevokeError::Only { .. }), "{refused}");
    hers.unread.lock().clear();
    revoke().unwrap();
}

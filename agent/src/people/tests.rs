use hypernet_core::id::VolumeId;
use hypernet_core::identity::place::{Notice, roster_sealing_key};
use hypernet_core::key::{DeviceKeys, RecoveryKeys, Secret};
use hypernet_core::node::Whose;

use super::told::Person;
use super::*;
use crate::keystore::{Keystore, Unlock};
use crate::volume::double::{Mesh, phrase, publish};

fn keystore(dir: &tempfile::TempDir) -> Arc<KeystoreFile> {
    let recipient = hypernet_core::identity::log::Recipient::X25519([2; 32]);
    let file = KeystoreFile::new(
        dir.path().join("other.age"),
        Unlock::KeyFile,
        Keystore::create(IdentityId([1; 32]), recipient, VolumeId([3; 16])).unwrap(),
    );
    Arc::new(file)
}

fn address(byte: u8) -> Address {
    Address { signer: [byte; 32], secret: [byte; 16] }
}

#[test]
fn a_name_is_of_one_person_and_says_so_loudly() {
    let dir = tempfile::tempdir().unwrap();
    let contacts = Contacts::of(&keystore(&dir));
    let anna = contacts.add("anna", IdentityId([2; 32]), address(2)).unwrap();
    assert_eq!(contacts.add("anna", IdentityId([2; 32]), address(2)).unwrap(), anna);
    let taken = contacts.add("anna", IdentityId([3; 32]), address(3)).unwrap_err();
    assert!(matches!(taken, ContactError::Taken(_)) && taken.to_string().contains("ANOTHER ONE"), "{taken}");
    // The same identity by another address is no less another address.
    assert!(matches!(contacts.add("anna", IdentityId([2; 32]), address(3)), Err(ContactError::Taken(_))));
    assert!(
        matches!(contacts.add("bob", IdentityId([2; 32]), address(2)), Err(ContactError::Known(name)) if name == "anna")
    );
    assert!(matches!(contacts.add("me", IdentityId([1; 32]), address(1)), Err(ContactError::Own)));
    for name in ["", " anna", "a\nb", "a\u{202e}b", &"x".repeat(65), &address::text(&address(2))] {
        assert!(matches!(contacts.add(name, IdentityId([4; 32]), address(4)), Err(ContactError::Name)), "{name:?}");
    }
    assert!(contacts.verified(&anna).unwrap().is_verified);
    assert!(contacts.get("anna").unwrap().is_verified);
    assert_eq!(contacts.get(&address::text(&address(2))).unwrap().name, "anna");
    contacts.remove("anna").unwrap();
    assert!(matches!(contacts.get("anna"), Err(ContactError::Unknown(_))) && contacts.list().is_empty());
    // Whoever comes back is a stranger again, and a name that is free is free.
    assert!(!contacts.add("anna", IdentityId([2; 32]), address(2)).unwrap().is_verified);
    assert!(matches!(
        contacts.verified(&Contact::new("x", IdentityId([9; 32]), address(9), anna.changed)),
        Err(ContactError::Unknown(_))
    ));
}

#[test]
fn two_devices_that_give_one_name_to_two_people_lose_neither() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = [keystore(&dirs[0]), keystore(&dirs[1])];
    for (file, byte) in files.iter().zip(2..) {
        Contacts::of(file).add("anna", IdentityId([byte; 32]), address(byte)).unwrap();
    }
    let other = files[1].keystore();
    files[0].change(|mine| mine.merge(&other)).unwrap();
    let contacts = Contacts::of(&files[0]);
    assert!(matches!(contacts.get("anna"), Err(ContactError::Ambiguous(2, _))));
    contacts.remove(&address::text(&address(3))).unwrap();
    assert_eq!(contacts.get("anna").unwrap().identity, IdentityId([2; 32]));
}

/// What a device has written whose clock is far ahead is changed here all the same.
#[test]
fn a_contact_of_the_year_9999_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = keystore(&dir);
    let contacts = Contacts::of(&file);
    let anna = contacts.add("anna", IdentityId([2; 32]), address(2)).unwrap();
    let never = Hlc { millis: u64::MAX, counter: u32::MAX };
    file.change(|mine| mine.contacts[0].changed = never).unwrap();
    assert!(contacts.verified(&anna).unwrap().is_verified && contacts.get("anna").unwrap().is_verified);
    file.change(|mine| mine.contacts[0].changed = never).unwrap();
    contacts.remove("anna").unwrap();
    file.change(|mine| mine.contacts[0].changed = never).unwrap();
    contacts.add("anna", IdentityId([2; 32]), address(3)).unwrap();
    assert_eq!(contacts.get("anna").unwrap().address(), address(3));
}

/// A contact whose identity is on the mesh.
fn there(mesh: &Mesh, identity: IdentityId) -> Contact {
    let address = Address::of(&phrase());
    assert_eq!(identity_at(&mesh.peers(), &address).unwrap(), phrase().id());
    Contact::new("anna", identity, address, clock(Default::default()))
}

#[test]
fn a_contacts_devices_are_found_and_another_key_is_loud() {
    let (mesh, home) = (Mesh::new(5), tempfile::tempdir().unwrap());
    let me = tempfile::tempdir().unwrap();
    let me = mesh.person(me.path(), 7);
    let address = Address::of(&phrase());
    assert!(matches!(identity_at(&mesh.peers(), &address), Err(PortError::NotFound(_))));
    let volume = mesh.volume(home.path(), 1);
    publish(&volume, 1).unwrap();
    let anna = there(&mesh, phrase().id());
    let found = look_up_contact(&me.identity, &anna).unwrap();
    let roster = found.posting.log().roster();
    assert_eq!(*roster, volume.identity.roster());
    assert!(roster.era.is_some() && found.beacons.iter().any(|(id, _)| *id == volume.device.id()));

    let other = there(&mesh, RecoveryKeys::new(&[4; 64]).id());
    let loud = look_up_contact(&me.identity, &other).map(drop).unwrap_err();
    assert!(
        matches!(loud, PortError::Damaged(_)) && loud.to_string().contains("the key of anna has CHANGED"),
        "{loud}"
    );

    // Somebody who has the era puts up a list that anna has not signed, and nothing else is there.
    let bare = Mesh::new(5);
    let stranger = tempfile::tempdir().unwrap();
    let stranger = bare.person(stranger.path(), 8);
    let post = mesh.peers().lookup(address.record_key()).unwrap().unwrap();
    bare.keep(post.clone());
    assert!(matches!(look_up_contact(&stranger.identity, &anna), Err(PortError::NotFound(_))));
    let kept = volume.identity.keystore().keystore();
    let era = kept.eras.last().unwrap();
    let forged = Posting::new(Log::new(RecoveryKeys::new(&[4; 64]).id())).encode();
    bare.keep(Notice::Here(forged).publish(&era.roster(), &roster_sealing_key(&phrase().id()), 9).unwrap());
    let loud = look_up_contact(&stranger.identity, &anna).map(drop).unwrap_err();
    assert!(loud.to_string().contains("the key of anna has CHANGED"), "{loud}");
}

#[test]
fn people_who_know_each_other_know_each_other_s_peers_and_nobody_else_does() {
    let mesh = Mesh::new(5);
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (anna, me, third) =
        (mesh.volume(homes[0].path(), 1), mesh.person(homes[1].path(), 7), mesh.person(homes[2].path(), 8));
    publish(&anna, 1).unwrap();
    let contact = there(&mesh, phrase().id());
    let told = |to: &crate::volume::Volume| told::of_contact(&to.identity, &contact).unwrap();
    assert!(told(&me).is_empty(), "whom anna does not know is told nothing");
    let peer = anna.identity.peers().me().unwrap();
    let own = told::own(&anna.identity);
    assert_eq!(own.get(&peer).map(|person| (person.whose, person.identity)), Some((Whose::Own, phrase().id())));

    let annas = Contacts::of(anna.identity.keystore());
    annas.add("me", me.identity.id(), me.identity.address()).unwrap();
    anna.identity.confirm().unwrap();
    let known = Person { whose: Whose::Contact, identity: phrase().id(), name: Some("anna".into()) };
    assert_eq!(told(&me), [(peer, known)].into());
    assert!(told(&third).is_empty(), "the address alone opens nothing");
    annas.remove("me").unwrap();
    anna.identity.confirm().unwrap();
    assert!(told(&me).is_empty());
}

#[test]
fn a_contact_is_who_has_one_of_their_devices_now() {
    let (mesh, home) = (Mesh::new(5), tempfile::tempdir().unwrap());
    let volume = mesh.volume(home.path(), 1);
    publish(&volume, 1).unwrap();
    let me = tempfile::tempdir().unwrap();
    let me = mesh.person(me.path(), 7);
    let (anna, meeting) = (there(&mesh, phrase().id()), Transcript([7; 32]));
    let them = |proof: &Proof| is_them(&me.identity, &anna, proof, &meeting).unwrap();
    assert!(them(&Proof::sign(phrase().id(), &volume.device, &meeting)));
    assert!(!them(&Proof::sign(phrase().id(), &volume.device, &Transcript([8; 32]))), "of another meeting");
    let stranger = DeviceKeys::new(Secret::new([99; 32]));
    assert_ne!(stranger.id(), DeviceId([0; 32]));
    assert!(!them(&Proof::sign(phrase().id(), &stranger, &meeting)), "who only knows the address");
    assert!(!them(&Proof::sign(IdentityId([5; 32]), &volume.device, &meeting)));
}

/// Whoever keeps the records shows the list of before.
#[test]
fn a_device_that_a_contact_has_taken_off_stays_off_for_who_has_seen_it() {
    let mesh = Mesh::new(5);
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let (first, second) = (mesh.volume(homes[0].path(), 1), mesh.volume(homes[1].path(), 2));
    publish(&second, 1).unwrap();
    publish(&first, 1).unwrap();
    let (anna, meeting) = (there(&mesh, phrase().id()), Transcript([7; 32]));
    let before = mesh.all_records();
    let me = mesh.person(homes[2].path(), 7);
    let thief = Proof::sign(phrase().id(), &second.device, &meeting);
    assert!(is_them(&me.identity, &anna, &thief, &meeting).unwrap());
    first.identity.revoke(&second.device.id()).unwrap();
    assert!(!is_them(&me.identity, &anna, &thief, &meeting).unwrap());
    let old = Mesh::new(5);
    before.into_iter().for_each(|record| old.keep(record));
    let stranger = old.person(homes[3].path(), 8);
    assert!(is_them(&stranger.identity, &anna, &thief, &meeting).unwrap(), "the list of before is whole");
    drop(me);
    let me = old.device_of(homes[2].path(), 7, 0);
    assert!(!is_them(&me.identity, &anna, &thief, &meeting).unwrap());
    // What is kept does not say of whom it is.
    let kept = std::fs::read_dir(homes[2].path().join("contacts")).unwrap().next().unwrap().unwrap();
    let bytes = std::fs::read(kept.path()).unwrap();
    assert!(!bytes.windows(32).any(|part| part == phrase().id().as_bytes()));
    assert!(!phrase().id().to_string().contains(kept.file_name().to_str().unwrap()));
    // Nor is it of use to anybody when it is damaged.
    std::fs::write(kept.path(), &bytes[..bytes.len() - 1]).unwrap();
    assert!(me.identity.lists().known(&phrase().id()).is_none());
}

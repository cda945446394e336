mod bearers;
mod devices;
mod figures;
mod model;
mod removal;
mod rights;

use std::sync::Arc;

use hypernet_core::id::{DeviceId, FileId, VolumeId};
use hypernet_core::port::PortError;
use hypernet_core::share::members::Role;

use super::granting::Guest;
use super::hearing::Ask;
use super::offers::Offered;
use super::*;
use crate::people::contact::Contact;
use crate::people::{Contacts, address};
use crate::volume::Volume;
use crate::volume::double::{Mesh, publish};

const OWNER: u8 = 20;
const ANNA: u8 = 21;
const BEN: u8 = 22;
const CAROL: u8 = 26;
const SHARED: VolumeId = VolumeId([0x77; 16]);

/// Somebody with one device.
struct One {
    main: Arc<Volume>,
    _home: tempfile::TempDir,
}

impl One {
    fn new(mesh: &Mesh, who: u8) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { main: mesh.person(home.path(), who), _home: home }
    }

    fn knows(&self, other: &Self, name: &str) -> Contact {
        let identity = &other.main.identity;
        Contacts::of(self.main.identity.keystore()).add(name, identity.id(), identity.address()).unwrap()
    }

    /// The volume that is shared, on this device.
    fn volume(&self) -> Arc<Volume> {
        Arc::new(Volume::below(&self.main, SHARED).unwrap())
    }

    fn id(&self) -> DeviceId {
        self.main.device.id()
    }
}

/// All that an agent does after something was changed.
fn tell(one: &One) {
    one.main.put_offers().unwrap();
    one.main.identity.confirm().unwrap();
}

fn share(owner: &One, with: &[(&One, &str, Role)]) -> Arc<Volume> {
    let volume = owner.volume();
    volume.begin_share(FileId([5; 16]), "photos").unwrap();
    for (who, name, role) in with {
        let guest = Guest::find(&volume, owner.knows(who, name)).unwrap();
        volume.grant(vec![guest], *role).unwrap();
    }
    tell(owner);
    volume
}

fn offered(to: &One, by: &Contact) -> Vec<Offered> {
    to.main.offered_by(by).unwrap()
}

/// The volume on the device of somebody who takes what they are offered.
fn accepted(one: &One, by: &One) -> Arc<Volume> {
    let volume = one.volume();
    volume.accept(offered(one, &one.knows(by, "carl"))[0].offer.clone()).unwrap();
    volume
}

/// The sequence numbers of the heads that a device takes, by whose they are.
fn seen(volume: &Volume) -> Vec<(DeviceId, u64)> {
    volume.hear(Ask::All).unwrap();
    let survey = volume.find_heads(&volume.publishers().listed).unwrap();
    let mut found: Vec<_> = survey.found.iter().map(|found| (found.head.device, found.head.sequence)).collect();
    found.sort();
    found
}

#[test]
fn who_is_granted_a_volume_is_offered_it_reads_and_writes_and_nobody_else_does() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();

    assert!(offered(&ben, &ben.knows(&owner, "carl")).is_empty());
    let found = offered(&anna, &anna.knows(&owner, "carl"));
    let names: Vec<String> = found.iter().map(Offered::name).collect();
    assert_eq!(names, ["carl/photos"]);
    let offer = found[0].offer.clone();
    assert_eq!((offer.volume, offer.root, offer.role), (SHARED, FileId([5; 16]), Role::Writer));

    let theirs = anna.volume();
    theirs.accept(offer.clone()).unwrap();
    assert_eq!(seen(&theirs), [(owner.id(), 1)]);
    theirs.may_write().unwrap();
    publish(&theirs, 2).unwrap();
    let mut both = [(owner.id(), 1), (anna.id(), 1)];
    both.sort();
    assert_eq!(seen(&volume), both);

    // Ben has seen the offer over Anna's shoulder, and is not granted anything by that.
    let stolen = ben.volume();
    let refused = stolen.accept(offer).unwrap_err();
    assert!(matches!(refused, ShareError::Port(PortError::NotFound(_))), "{refused}");
    assert!(stolen.share().is_none(), "nothing is kept of it");
}

#[test]
fn who_may_only_read_publishes_nothing_that_others_take() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let theirs = accepted(&anna, &owner);
    assert_eq!(seen(&theirs), [(owner.id(), 1)]);
    let refused = theirs.may_write().unwrap_err();
    assert!(refused.to_string().contains("shared for reading"), "{refused}");
    // A program of hers that does not ask whether it may.
    theirs.identity.tell(SHARED, Vec::new());
    theirs.identity.confirm().unwrap();
    let head = crate::volume::double::head(&theirs, 9, &[]);
    let record = crate::volume::double::record(&theirs, head);
    mesh.keep(record);
    assert_eq!(seen(&volume), [(owner.id(), 1)]);
    assert!(volume.publishers().device(&anna.id()).is_none());
}

#[test]
fn who_is_taken_off_reads_nothing_of_what_comes_after_and_is_not_believed_any_more() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    publish(&hers, 2).unwrap();
    publish(&his, 3).unwrap();
    assert_eq!(seen(&volume).len(), 3);

    volume.remove(&[anna.main.identity.id()]).unwrap();
    tell(&owner);
    publish(&volume, 4).unwrap();
    assert_eq!(seen(&his), {
        let mut both = [(owner.id(), 2), (ben.id(), 1)];
        both.sort();
        both
    });
    publish(&his, 5).unwrap();
    // What she published before is found by those who ask for what is gone, and nothing after that.
    let gone = |volume: &Volume| {
        let survey = volume.find_heads(&volume.publishers().gone).unwrap();
        survey.found.iter().map(|found| (found.head.device, found.head.sequence)).collect::<Vec<_>>()
    };
    assert_eq!(gone(&volume), [(anna.id(), 1)]);
    let head = crate::volume::double::head(&hers, 9, &[]);
    mesh.keep(crate::volume::double::record(&hers, head));
    // Whoever has seen it has kept it.
    assert_eq!([gone(&volume), gone(&his)], [[(anna.id(), 1)]; 2]);
    // She finds what there was, and learns that she was taken off no otherwise than by finding nothing.
    let before = hers.share().unwrap().epochs.len();
    let _ = hers.hear(Ask::All);
    assert_eq!(hers.share().unwrap().epochs.len(), before);
    let survey = hers.find_heads(&hers.publishers().listed).unwrap();
    let newest = |id| survey.found.iter().find(|found| found.head.device == id).map(|found| found.head.sequence);
    assert!(newest(owner.id()) <= Some(1) && newest(ben.id()) <= Some(1), "{:?}", survey.found);
}

#[test]
fn an_admin_shares_with_others_and_what_each_says_is_found_through_the_other() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    let guest = Guest::find(&hers, anna.knows(&ben, "ben")).unwrap();
    hers.grant(vec![guest], Role::Writer).unwrap();
    tell(&anna);
    let his = accepted(&ben, &anna);
    assert_eq!(seen(&his), [(owner.id(), 1)]);
    publish(&his, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2, "the owner hears from the admin whom she has brought");
    // The owner takes the admin off: whom she has brought stays.
    volume.remove(&[anna.main.identity.id()]).unwrap();
    tell(&owner);
    publish(&volume, 3).unwrap();
    assert_eq!(seen(&his).len(), 2);
    assert_eq!(volume.known_share().unwrap().members.role(&ben.main.identity.id()), Some(Role::Writer));
}

#[test]
fn a_link_reads_until_it_is_taken_back() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Reader, None).unwrap();
    let hers = anna.volume();
    hers.accept_link(link, hers.follow_link(&link).unwrap()).unwrap();
    assert_eq!(seen(&hers), [(owner.id(), 1)]);
    assert!(hers.may_write().is_err());
    publish(&volume, 2).unwrap();
    assert_eq!(seen(&hers), [(owner.id(), 2)]);
    // Another epoch, for whatever reason: whoever has the link hears of it.
    volume.rotate().unwrap();
    volume.tend().unwrap();
    tell(&owner);
    publish(&volume, 3).unwrap();
    assert_eq!(seen(&hers), [(owner.id(), 3)]);

    volume.take_back(&link).unwrap();
    tell(&owner);
    publish(&volume, 4).unwrap();
    assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));
    let _ = hers.hear(Ask::All);
    let survey = hers.find_heads(&hers.publishers().listed).unwrap();
    assert!(survey.found.iter().all(|found| found.head.sequence <= 3));
    // One that ends by itself.
    let short = volume.make_link(Role::Reader, Some(1)).unwrap();
    assert!(matches!(hers.follow_link(&short), Err(ShareError::Ended)));
    let epochs = volume.share().unwrap().epochs.len();
    volume.tend().unwrap();
    assert_eq!(volume.share().unwrap().epochs.len(), epochs + 1);
    assert!(volume.share().unwrap().open_links().next().is_none());
    assert!(matches!(volume.take_back(&short), Err(ShareError::Link(_))));
}

#[test]
fn whoever_comes_back_by_the_words_has_what_was_shared() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader)]);
    publish(&volume, 1).unwrap();
    owner.main.identity.confirm().unwrap();
    // Nothing of the device is left but what is on the mesh.
    let kept = owner.main.identity.keystore().keystore();
    drop((owner, volume));
    let share = kept.share(SHARED).unwrap();
    assert_eq!((share.epochs.len(), share.name.as_str()), (1, "photos"));
    let home = tempfile::tempdir().unwrap();
    let phrase = hypernet_core::key::RecoveryKeys::new(&[OWNER; 64]);
    let keys = hypernet_core::key::DeviceKeys::new(hypernet_core::key::Secret::new([99; 32]));
    let arrived =
        crate::identity::arrival::by_phrase(&mesh.peers(), &phrase, &keys, "new", false, &mut |_| ()).unwrap();
    assert!(arrived.keystore.share(SHARED).is_some());
    let main = mesh.arrived(home.path(), 99, arrived);
    main.look_around().unwrap();
    let volume = Volume::below(&main, SHARED).unwrap();
    let known = volume.hear(Ask::All).unwrap().unwrap();
    assert_eq!(known.role(&main.identity.id()), Some(Role::Owner));
    assert_eq!(seen(&volume).len(), 1, "the head of the device that is gone");
    // It speaks for the owner as the other one did.
    publish(&volume, 2).unwrap();
    let hers = anna.volume();
    let by = Contacts::of(anna.main.identity.keystore());
    let carl = by.add("carl", main.identity.id(), main.identity.address()).unwrap();
    main.put_offers().unwrap();
    main.identity.confirm().unwrap();
    hers.accept(offered(&anna, &carl)[0].offer.clone()).unwrap();
    assert_eq!(seen(&hers).len(), 2);
    let _ = address::text(&main.identity.address());
}

#[test]
fn a_device_that_a_member_has_taken_off_its_list_reads_nothing_of_what_comes_after() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), ANNA, 1);
    second.look_around().unwrap();
    anna.main.look_around().unwrap();
    // Who only reads may lose a device as well.
    for (role, epochs) in [(Role::Reader, 1), (Role::Writer, 2)] {
        let volume = share(&owner, &[(&anna, "anna", role)]);
        let carl = anna.knows(&owner, "carl");
        anna.volume().accept(offered(&anna, &carl)[0].offer.clone()).unwrap();
        anna.main.identity.confirm().unwrap();
        volume.tend().unwrap();
        assert_eq!(volume.share().unwrap().epochs.len(), epochs, "nothing has changed");
        if role == Role::Reader {
            second.identity.confirm().unwrap();
            let lost = second.identity.keystore().keystore();
            anna.main.identity.revoke(&second.device.id()).unwrap();
            volume.tend().unwrap();
            let now = volume.share().unwrap().epochs;
            assert_eq!(now.len(), 2);
            let had: Vec<_> = lost.share(SHARED).unwrap().epochs.clone();
            assert!(!had.is_empty() && now.iter().filter(|epoch| had.contains(epoch)).count() == 1);
            let hers = anna.volume();
            hers.hear(Ask::All).unwrap();
            assert_eq!(hers.share().unwrap().epochs.len(), 2);
        }
    }
    // And the owner.
    let volume = owner.volume();
    owner.main.renew(&hypernet_core::key::RecoveryKeys::new(&[OWNER; 64])).unwrap();
    volume.tend().unwrap();
    assert_eq!(volume.share().unwrap().epochs.len(), 3);
}

#[test]
fn a_device_that_was_taken_off_before_anybody_has_looked_again_reads_nothing_of_what_comes_after() {
    let mesh = Mesh::new(6);
    let [owner, ben] = [OWNER, BEN].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let phone = mesh.device_of(home.path(), BEN, 1);
    phone.look_around().unwrap();
    ben.main.look_around().unwrap();
    let volume = share(&owner, &[(&ben, "ben", Role::Writer)]);
    assert_eq!(volume.share().unwrap().epochs.len(), 1);
    ben.main.identity.revoke(&phone.device.id()).unwrap();
    volume.tend().unwrap();
    assert_eq!(volume.share().unwrap().epochs.len(), 2);
}

#[test]
fn a_device_that_was_taken_off_reads_nothing_of_what_comes_after_though_whoever_sealed_for_it_is_off() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let phone = mesh.device_of(homes[0].path(), BEN, 1);
    phone.look_around().unwrap();
    ben.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Reader)]);
    volume.rotate().unwrap();
    tell(&owner);
    phone.identity.confirm().unwrap();
    // That was the last of the owner's device. The other admin's device hears of the epoch when he has lost his phone already.
    drop(volume);
    ben.main.identity.revoke(&phone.device.id()).unwrap();
    let hers = accepted(&anna, &owner);
    hers.tend().unwrap();
    tell(&anna);
    assert_eq!(hers.share().unwrap().epochs.len(), 3, "the epoch that the phone has goes on");
    for _ in 0..3 {
        hers.tend().unwrap();
    }
    assert_eq!(hers.share().unwrap().epochs.len(), 3, "and no other one begins after that");
    let his = accepted(&ben, &owner);
    his.hear(Ask::All).unwrap();
    assert_eq!(his.share().unwrap().epochs.len(), 3);
    // Nor is it in the way of anything that the owner's device is off, or on again.
    let back = owner.volume();
    back.tend().unwrap();
    hers.tend().unwrap();
    assert_eq!([&back, &hers].map(|volume| volume.share().unwrap().epochs.len()), [3, 3]);

    // The same where the other admin has lost one: for whom it was sealed says the device that sealed it.
    let tablet = mesh.device_of(homes[1].path(), ANNA, 1);
    tablet.look_around().unwrap();
    anna.main.look_around().unwrap();
    hers.rotate().unwrap();
    tell(&anna);
    drop(hers);
    anna.main.identity.revoke(&tablet.device.id()).unwrap();
    back.tend().unwrap();
    assert_eq!(back.share().unwrap().epochs.len(), 5);
}

#[test]
fn a_lost_device_is_not_told_an_epoch_that_was_begun_without_it_by_whoever_hears_of_that_and_shares_at_once() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben, carol] = [OWNER, ANNA, BEN, CAROL].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let phone = mesh.device_of(home.path(), BEN, 1);
    phone.look_around().unwrap();
    ben.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Reader)]);
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    hers.tend().unwrap();
    tell(&anna);
    tell(&ben);
    phone.identity.look().unwrap();
    let thiefs = Arc::new(Volume::below(&phone, SHARED).unwrap());
    thiefs.hear(Ask::All).unwrap();
    assert_eq!(thiefs.share().unwrap().epochs.len(), 1);

    ben.main.identity.revoke(&phone.device.id()).unwrap();
    volume.tend().unwrap();
    tell(&owner);
    assert_eq!(volume.share().unwrap().epochs.len(), 2);
    // She has heard of the epoch, and not looked at those who only read since.
    hers.hear(Ask::Places).unwrap();
    hers.grant(vec![Guest::find(&hers, anna.knows(&carol, "carol")).unwrap()], Role::Reader).unwrap();
    assert_eq!(hers.share().unwrap().epochs.len(), 2);
    let _ = thiefs.hear(Ask::Places);
    assert_eq!(thiefs.share().unwrap().epochs.len(), 1);
    his.hear(Ask::All).unwrap();
    assert_eq!(his.share().unwrap().epochs.len(), 2);
}

#[test]
fn because_of_one_reader_keys_are_changed_at_once_and_then_once_an_hour() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let homes = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let more = |at: usize, who: u8, one: &One| {
        let device = mesh.device_of(homes[at].path(), who, at as u8 + 1);
        device.look_around().unwrap();
        one.main.look_around().unwrap();
        device.device.id()
    };
    let of_ben = [more(0, BEN, &ben), more(1, BEN, &ben), more(2, BEN, &ben)];
    let of_anna = more(3, ANNA, &anna);
    let volume = share(&owner, &[(&anna, "anna", Role::Reader), (&ben, "ben", Role::Reader)]);
    let after = |lost: &DeviceId, of: &One| {
        of.main.identity.revoke(lost).unwrap();
        volume.tend().unwrap();
        volume.tend().unwrap();
        volume.share().unwrap().epochs.len()
    };
    assert_eq!(after(&of_ben[0], &ben), 2);
    assert_eq!(after(&of_ben[1], &ben), 2);
    // What is due is not forgotten, and somebody else does not wait for it.
    assert_eq!(after(&of_anna, &anna), 3);
    assert_eq!(after(&of_ben[2], &ben), 3);
    *volume.lost.lock() = Default::default();
    volume.tend().unwrap();
    assert_eq!(volume.share().unwrap().epochs.len(), 4, "an hour later");
}

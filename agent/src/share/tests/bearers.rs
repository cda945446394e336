//! Links that write.

use hypernet_core::identity::posting::Posting;
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::offer::Link;

use super::super::kept::Made;
use super::*;
use crate::volume::double::{head, record};

const DORA: u8 = 24;

fn take(one: &One, link: &Link) -> Arc<Volume> {
    let volume = one.volume();
    volume.accept_link(*link, volume.follow_link(link).unwrap()).unwrap();
    volume
}

fn sorted<T: Ord>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort();
    all
}

/// The devices on the list of a link, as somebody knows it.
fn listed(volume: &Volume, link: &Link) -> Vec<DeviceId> {
    let known = volume.known_share().unwrap();
    let posting: &Posting = known.circle.people[&Bearer::of(link).id()].posting.as_ref().unwrap();
    sorted(posting.log().roster().devices.iter().map(|device| device.id))
}

#[test]
fn two_strangers_with_one_link_write_until_it_is_taken_back_and_what_they_wrote_stays() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben, carol] = [OWNER, ANNA, BEN, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&carol, "carol", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    tell(&owner);
    let reads = accepted(&carol, &owner);

    let [hers, his] = [&anna, &ben].map(|one| take(one, &link));
    for theirs in [&hers, &his] {
        theirs.may_write().unwrap();
    }
    publish(&hers, 2).unwrap();
    publish(&his, 3).unwrap();
    publish(&hers, 4).unwrap();
    let all = sorted([(owner.id(), 1), (anna.id(), 2), (ben.id(), 1)]);
    for one in [&volume, &hers, &his, &reads] {
        assert_eq!(seen(one), all);
    }
    // Neither is known by more than a device.
    let names = |volume: &Volume| {
        let listed = volume.publishers().listed;
        listed.into_iter().filter(|one| one.id == anna.id()).map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&volume), [format!("link-{}", anna.id().short())]);
    // Another epoch: they write on.
    volume.rotate().unwrap();
    volume.tend().unwrap();
    publish(&volume, 5).unwrap();
    hers.hear(Ask::All).unwrap();
    publish(&hers, 6).unwrap();
    assert_eq!(seen(&volume), sorted([(owner.id(), 2), (anna.id(), 3), (ben.id(), 1)]));
    assert_eq!(hers.share().unwrap().epochs.len(), 2);

    volume.take_back(&link).unwrap();
    tell(&owner);
    publish(&volume, 7).unwrap();
    assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));
    assert!(matches!(volume.take_back(&link), Err(ShareError::Link(_))));
    let gone = |volume: &Volume| {
        let survey = volume.find_heads(&volume.publishers().gone).unwrap();
        sorted(survey.found.iter().map(|found| (found.head.device, found.head.sequence)))
    };
    for one in [&volume, &reads] {
        assert_eq!(seen(one), [(owner.id(), 3)]);
        assert_eq!(gone(one), sorted([(anna.id(), 3), (ben.id(), 1)]));
    }
    // She finds out, and a program of hers that does not ask is not believed.
    let _ = hers.hear(Ask::All);
    let refused = hers.may_write().unwrap_err();
    assert!(refused.to_string().contains("has ended, or was taken back"), "{refused}");
    assert!(matches!(refused, PortError::NoPart(_)));
    assert_eq!(hers.share().unwrap().epochs.len(), 2, "what comes after she does not read");
    mesh.keep(record(&hers, head(&hers, 9, &[])));
    // Nor is one from before that, which is found where she published before the keys changed: anybody could have signed its number
    // since. Who has taken the link back has kept the last one.
    assert_eq!(gone(&volume), sorted([(anna.id(), 3), (ben.id(), 1)]));
    // He does not ask, either, but as agents do.
    his.tend().ok();
    assert!(his.may_write().is_err());
    assert_eq!(seen(&volume), [(owner.id(), 3)]);
}

#[test]
fn a_link_that_an_admin_has_made_ends_with_the_admin_and_when_all_are_taken_back() {
    for is_removed in [true, false] {
        let mesh = Mesh::new(6);
        let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
        let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
        publish(&volume, 1).unwrap();
        let hers = accepted(&anna, &owner);
        let link = hers.make_link(Role::Writer, None).unwrap();
        tell(&anna);
        let his = take(&ben, &link);
        publish(&his, 2).unwrap();
        assert_eq!(seen(&volume).len(), 2);
        let bearers = |volume: &Volume| volume.known_share().unwrap().members.links().count();
        assert_eq!(bearers(&volume), 1);
        if is_removed {
            volume.remove(&[anna.main.identity.id()]).unwrap();
        } else {
            volume.take_all_back().unwrap();
        }
        tell(&owner);
        publish(&volume, 3).unwrap();
        assert_eq!(bearers(&volume), 0);
        let _ = his.hear(Ask::All);
        his.may_write().unwrap_err();
        assert_eq!(his.share().unwrap().epochs.len(), 1, "what comes after he does not read");
        // He does not ask, and is not believed.
        mesh.keep(record(&his, head(&his, 9, &[])));
        assert_eq!(seen(&volume), [(owner.id(), 2)]);
        // Her agent looks after her links, and does not bring it back.
        let _ = hers.hear(Ask::All);
        let _ = hers.tend();
        let _ = volume.hear(Ask::All);
        assert_eq!(bearers(&volume), 0);
        if !is_removed {
            assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));
        }
    }
}

#[test]
fn whoever_may_write_by_name_stays_a_writer_when_the_link_ends_and_by_the_link_when_the_name_does() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    hers.may_write().unwrap_err();
    let link = volume.make_link(Role::Writer, None).unwrap();
    for theirs in [&hers, &his] {
        theirs.accept_link(link, theirs.follow_link(&link).unwrap()).unwrap();
        theirs.may_write().unwrap();
    }
    publish(&hers, 2).unwrap();
    publish(&his, 3).unwrap();
    assert_eq!(seen(&volume).len(), 3);
    assert_eq!(listed(&volume, &link), sorted([owner.id(), anna.id()]), "who may write anyway needs no link");
    // Taken off by name, he writes by the link, as anybody does who has it.
    volume.remove(&[ben.main.identity.id()]).unwrap();
    tell(&owner);
    his.hear(Ask::All).unwrap();
    his.may_write().unwrap();
    publish(&his, 4).unwrap();
    assert_eq!(seen(&volume).len(), 3);
    assert_eq!(listed(&volume, &link).len(), 3);

    let guest = Guest::find(&volume, owner.knows(&anna, "anna")).unwrap();
    volume.grant(vec![guest], Role::Writer).unwrap();
    volume.take_back(&link).unwrap();
    tell(&owner);
    publish(&volume, 5).unwrap();
    hers.hear(Ask::All).unwrap();
    hers.may_write().unwrap();
    publish(&hers, 6).unwrap();
    assert_eq!(seen(&volume), sorted([(owner.id(), 2), (anna.id(), 2)]));
    let _ = his.hear(Ask::All);
    assert!(his.may_write().is_err());
}

#[test]
fn a_link_that_reads_is_made_no_writing_one_by_whoever_has_it() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Reader, None).unwrap();
    let hers = take(&anna, &link);
    assert!(hers.may_write().unwrap_err().to_string().contains("shared for reading"));
    // She has all keys of its bearer, and puts up a list with her device on it.
    let bearer = Bearer::of(&link);
    hers.forge_list(&bearer).unwrap();
    hers.identity.tell(SHARED, Vec::new());
    hers.identity.confirm().unwrap();
    mesh.keep(record(&hers, head(&hers, 2, &[])));
    assert_eq!(listed(&hers, &link), [anna.id()]);
    volume.tend().unwrap();
    assert_eq!(seen(&volume), [(owner.id(), 1)]);
    assert!(volume.publishers().device(&anna.id()).is_none());
    // What the link leads to she cannot replace, nor grant herself anything.
    assert!(matches!(
        hers.make_link(Role::Writer, None),
        Err(ShareError::Members(hypernet_core::share::members::MembersError::Refused(_)))
    ));
    assert_eq!(hers.follow_link(&link).unwrap().offer.role, Role::Reader);
}

#[test]
fn whoever_comes_at_once_by_one_link_is_on_the_list_with_the_others() {
    let mesh = Mesh::new(6);
    let owner = One::new(&mesh, OWNER);
    let homes = [ANNA, BEN].map(|who| (who, tempfile::tempdir().unwrap()));
    for (who, home) in &homes {
        drop(mesh.person(home.path(), *who));
    }
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    tell(&owner);
    // Parted, each finds the list without the other one.
    let other = mesh.split(6);
    let open = |mesh: &Mesh, place: usize| {
        let (who, home) = &homes[place];
        let main = mesh.device_of(home.path(), *who, 0);
        let volume = Arc::new(Volume::below(&main, SHARED).unwrap());
        (main, volume)
    };
    {
        let (hers, his) = (open(&mesh, 0), open(&other, 1));
        for (_, theirs) in [&hers, &his] {
            theirs.accept_link(link, theirs.follow_link(&link).unwrap()).unwrap();
            publish(theirs, 2).unwrap();
        }
    }
    mesh.join(&other);
    let (hers, his) = (open(&mesh, 0), open(&mesh, 1));
    // One of the two lists is there. Whoever is not on it puts itself on it again, and nobody loses the other one by that.
    for (_, theirs) in [&hers, &his] {
        theirs.tend().unwrap();
    }
    let both = sorted([owner.id(), hers.0.device.id(), his.0.device.id()]);
    seen(&volume);
    assert_eq!(listed(&volume, &link), both);
    for one in [&volume, &hers.1, &his.1] {
        assert_eq!(
            seen(one),
            sorted(
                [(owner.id(), 1), (both[0], 1), (both[1], 1), (both[2], 1)]
                    .into_iter()
                    .collect::<std::collections::BTreeSet<_>>()
            )
        );
    }
    // Before a head counts it was seen that the list at its place has the device: here it has not, at first.
    let bearer = Bearer::of(&link);
    let mut lists: Vec<_> =
        mesh.all_records().into_iter().filter(|one| one.signer == bearer.era().roster().signer()).collect();
    assert_eq!(lists.len(), 1);
    lists.clear();
    publish(&hers.1, 5).unwrap();
    publish(&his.1, 6).unwrap();
    assert_eq!(seen(&volume), sorted([(owner.id(), 1), (hers.0.device.id(), 2), (his.0.device.id(), 2)]));
}

#[test]
fn another_device_of_whoever_has_a_link_writes_by_it_too() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), ANNA, 1);
    second.look_around().unwrap();
    anna.main.look_around().unwrap();
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    publish(&take(&anna, &link), 2).unwrap();
    anna.main.identity.confirm().unwrap();
    second.identity.confirm().unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    theirs.hear(Ask::All).unwrap();
    theirs.may_write().unwrap();
    publish(&theirs, 3).unwrap();
    assert_eq!(seen(&volume), sorted([(owner.id(), 1), (anna.id(), 1), (second.device.id(), 1)]));
    assert_eq!(listed(&volume, &link).len(), 3);
}

#[test]
fn taking_off_whoever_has_a_link_ends_it_and_one_that_was_half_made_is_made() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben, dora] = [OWNER, ANNA, BEN, DORA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&ben, "ben", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let his = accepted(&ben, &owner);
    // By an admin, who has it from nobody: the owner ends it by what is shown of it.
    let link = his.make_link(Role::Writer, None).unwrap();
    tell(&ben);
    let hers = take(&anna, &link);
    publish(&hers, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);
    volume.remove(&[Bearer::of(&link).id()]).unwrap();
    publish(&volume, 3).unwrap();
    assert_eq!(seen(&volume), [(owner.id(), 2)]);
    let epochs = volume.share().unwrap().epochs.len();
    his.tend().unwrap();
    assert!(his.share().unwrap().open_links().next().is_none());
    assert_eq!(his.share().unwrap().epochs.len(), epochs, "nobody begins another one for it");
    assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));

    // The agent stopped when the link was in its keystore, and nothing else was done.
    let made = Made::new(&crate::keystore::random_secret().unwrap(), Role::Writer, None, Default::default());
    let keystore = owner.main.identity.keystore();
    keystore.change(|mine| mine.change_share(SHARED, |share| share.add_link(&made))).unwrap();
    volume.tend().unwrap();
    publish(&take(&dora, &made.link()), 4).unwrap();
    assert_eq!(seen(&volume), sorted([(owner.id(), 2), (dora.id(), 1)]));
    // One whose time has come ends as any other does.
    let short = volume.make_link(Role::Writer, Some(1)).unwrap();
    assert!(matches!(hers.follow_link(&short), Err(ShareError::Ended)));
    volume.tend().unwrap();
    let members = volume.known_share().unwrap().members;
    assert!(members.role(&Bearer::of(&short).id()).is_none() && members.gone.contains_key(&Bearer::of(&short).id()));
    assert_eq!(seen(&volume), sorted([(owner.id(), 2), (dora.id(), 1)]), "and is nobody else's business");
}

#[test]
fn a_link_takes_so_many_devices_and_says_so_to_the_next() {
    let mesh = Mesh::new(6);
    let owner = One::new(&mesh, OWNER);
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    let homes: Vec<_> = (0..hypernet_core::limits::DEVICES_MAX).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut refused = Vec::new();
    for (number, home) in homes.iter().enumerate() {
        let main = mesh.numbered(home.path(), number as u16);
        let theirs = Volume::below(&main, SHARED).unwrap();
        if let Err(error) = theirs.accept_link(link, theirs.follow_link(&link).unwrap()) {
            assert!(theirs.share().is_none(), "nothing is kept of it");
            refused.push((number, error.to_string()));
        }
    }
    let [(number, error)] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!(*number, hypernet_core::limits::DEVICES_MAX - 1);
    assert!(error.contains("28 devices write by this link"), "{error}");
    assert_eq!(seen(&volume).len(), 1);
}

//! What somebody has said or written who may do less by now, and what others tell.

use hypernet_core::codec;
use hypernet_core::head::Head;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::place::Address;
use hypernet_core::key::Secret;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::members::{Change, Member, MembersError, Refused};
use hypernet_core::share::offer::{Link, LinkNotice, Offer};
use hypernet_core::share::posting::{self, SealedFor};

use super::super::circle::Publishers;
use super::super::posters::Poster;
use super::*;
use crate::identity::places::put;
use crate::volume::double::{head, record};

/// The heads that are found of those who may publish no more.
fn found_gone(volume: &Volume) -> Vec<(DeviceId, u64)> {
    volume.hear(Ask::All).unwrap();
    let survey = volume.find_heads(&volume.publishers().gone).unwrap();
    survey.found.iter().map(|found| (found.head.device, found.head.sequence)).collect()
}

/// Up to which number it counts what a device did.
fn counts(publishers: &Publishers, one: &One) -> Option<u64> {
    publishers.counted(SHARED).get(&one.id().tag_in(SHARED)).copied()
}

fn identity(one: &One) -> IdentityId {
    one.main.identity.id()
}

#[test]
fn what_somebody_wrote_who_only_reads_by_now_is_taken_and_nothing_after_that() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben, carol] = [OWNER, ANNA, BEN, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    publish(&hers, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);

    volume.remove(&[identity(&anna)]).unwrap();
    volume.grant(vec![Guest::find(&volume, owner.knows(&anna, "anna")).unwrap()], Role::Reader).unwrap();
    tell(&owner);
    // Also by whoever comes later, and was never told of it.
    volume.grant(vec![Guest::find(&volume, owner.knows(&carol, "carol")).unwrap()], Role::Writer).unwrap();
    tell(&owner);
    let theirs = accepted(&carol, &owner);
    assert_eq!(volume.known_share().unwrap().members.role(&identity(&anna)), Some(Role::Reader));
    for (volume, name) in [(&volume, "owner"), (&his, "ben")] {
        assert_eq!(found_gone(volume), [(anna.id(), 1)], "{name}");
    }
    for volume in [&volume, &his, &theirs] {
        volume.hear(Ask::All).unwrap();
        let publishers = volume.publishers();
        assert_eq!(publishers.accepted().collect::<Vec<_>>(), [(anna.id(), 1)]);
        assert!(counts(&publishers, &anna) == Some(1) && publishers.device(&anna.id()).is_none());
    }
    // She is a reader to herself as well, and a program of hers that does not ask is not believed.
    hers.hear(Ask::All).unwrap();
    assert!(hers.may_write().is_err());
    let bad = record(&hers, head(&hers, 9, &[]));
    hers.identity.tell(SHARED, vec![bad.signer]);
    hers.identity.confirm().unwrap();
    mesh.keep(bad);
    for volume in [&volume, &his, &theirs] {
        assert!(found_gone(volume).iter().all(|found| *found == (anna.id(), 1)));
        assert_eq!(volume.publishers().accepted().collect::<Vec<_>>(), [(anna.id(), 1)]);
    }
}

#[test]
fn whoever_comes_later_counts_what_somebody_wrote_who_is_gone_by_then() {
    let mesh = Mesh::new(6);
    let [owner, anna, carol] = [OWNER, ANNA, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    publish(&accepted(&anna, &owner), 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);
    volume.remove(&[identity(&anna)]).unwrap();
    volume.grant(vec![Guest::find(&volume, owner.knows(&carol, "carol")).unwrap()], Role::Writer).unwrap();
    tell(&owner);
    let theirs = accepted(&carol, &owner);
    theirs.hear(Ask::All).unwrap();
    assert_eq!(counts(&theirs.publishers(), &anna), Some(1));
    assert!(theirs.publishers().device(&anna.id()).is_none());
}

#[test]
fn of_a_device_that_its_owner_has_revoked_no_head_is_taken_that_nobody_had() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let stolen = mesh.device_of(home.path(), ANNA, 1);
    stolen.look_around().unwrap();
    anna.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    anna.main.identity.confirm().unwrap();
    stolen.identity.confirm().unwrap();
    let thiefs = Arc::new(Volume::below(&stolen, SHARED).unwrap());
    thiefs.hear(Ask::All).unwrap();
    publish(&hers, 2).unwrap();
    publish(&thiefs, 3).unwrap();
    assert_eq!(seen(&volume).len(), 3);

    anna.main.identity.revoke(&stolen.device.id()).unwrap();
    volume.tend().unwrap();
    // It goes on where it published before, under the epoch that it has.
    let bad: Head = head(&thiefs, 9, &[]);
    assert_eq!(bad.sequence, 2);
    mesh.keep(record(&thiefs, bad));
    volume.remove(&[identity(&anna)]).unwrap();
    let accepted = volume.known_share().unwrap().members.accepted;
    assert_eq!(accepted.get(&anna.id()).map(|accepted| accepted.sequence), Some(1));
    assert_eq!(accepted.get(&stolen.device.id()), None);
}

#[test]
fn a_grant_that_is_refused_changes_nothing_of_who_is_known() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    hers.grant(vec![Guest::find(&hers, anna.knows(&ben, "ben")).unwrap()], Role::Writer).unwrap();
    hers.rotate().unwrap();
    tell(&anna);
    volume.hear(Ask::All).unwrap();
    let before = volume.known_share().unwrap();
    assert_eq!(before.members.role(&identity(&ben)), Some(Role::Writer));

    let guest = || Guest::find(&volume, owner.knows(&anna, "anna")).unwrap();
    let refused = volume.grant(vec![guest()], Role::Reader).unwrap_err();
    assert!(matches!(refused, ShareError::Members(MembersError::Refused(Refused::Less))), "{refused}");
    let after = volume.known_share().unwrap();
    assert!(after.circle.people == before.circle.people && after.members == before.members);
    assert_eq!(after.share.epochs, before.share.epochs);
    // Nor is anything of an epoch left that nobody has begun.
    volume.remove(&[identity(&owner)]).unwrap_err();
    assert_eq!(volume.share().unwrap().epochs, before.share.epochs);
}

#[test]
fn epochs_that_no_change_begins_which_counts_are_not_kept() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben, carol] = [OWNER, ANNA, BEN, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    volume.remove(&[identity(&anna)]).unwrap();
    tell(&owner);
    his.hear(Ask::All).unwrap();
    let before = his.share().unwrap().epochs;
    assert_eq!(before.len(), 2);
    // She has not heard, or does not care.
    for _ in 0..5 {
        hers.change_members(Change::Rotate).unwrap();
    }
    hers.post().unwrap();
    his.hear(Ask::All).unwrap();
    assert_eq!(his.share().unwrap().epochs, before);
    let (known, told) = (hers.known_share().unwrap(), hers.share().unwrap().epochs);
    assert!(told.len() > 5);
    let sealed = SealedFor { epoch: known.members.epoch.unwrap(), people: Vec::new() };
    his.take_in(posting::place(&hers.device, &SHARED).signer(), known.circle.log, sealed, told).unwrap();
    his.hear(Ask::All).unwrap();
    assert_eq!(his.share().unwrap().epochs, before);
    publish(&his, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);

    // Nor those that are told where a link leads.
    let link = volume.make_link(Role::Reader, None).unwrap();
    tell(&owner);
    let mut linked = volume.follow_link(&link).unwrap();
    let many = (0..300u32).map(|number| Epoch::new(u32::MAX - number, Secret::new([9; 32])));
    linked.epochs.extend(many);
    let secret = volume.share().unwrap().open_links().next().unwrap().secret();
    let bytes = codec::encode(&LinkNotice::Leads(linked.into()));
    mesh.keep(put(&mesh.peers(), &Link::place(&secret), &link.sealing_key(), bytes, 100).unwrap());
    let theirs = carol.volume();
    let _ = theirs.accept_link(link, theirs.follow_link(&link).unwrap());
    assert!(theirs.share().is_none_or(|share| share.epochs.iter().all(|epoch| before.contains(epoch))));
    // What is put right is found.
    volume.tend().unwrap();
    let record = mesh.all_records().into_iter().find(|record| record.signer == link.signer).unwrap();
    assert!(record.sequence > 101);
    theirs.accept_link(link, theirs.follow_link(&link).unwrap()).unwrap();
    assert_eq!(theirs.share().unwrap().epochs, before);
}

#[test]
fn what_is_no_name_for_a_directory_is_not_attached() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Reader, None).unwrap();
    let carl = anna.knows(&owner, "carl");
    let good = offered(&anna, &carl)[0].offer.clone();
    for name in ["../../etc", "", "..", "a\nb", "\u{1b}[2J/x", &"x".repeat(300)] {
        let hers = anna.volume();
        let bad = Offer { name: name.into(), ..good.clone() };
        let linked = hers.follow_link(&link).unwrap();
        let linked = hypernet_core::share::offer::Linked { offer: bad.clone(), ..linked };
        for refused in [hers.accept(bad).unwrap_err(), hers.accept_link(link, linked).unwrap_err()] {
            let text = refused.to_string();
            assert!(matches!(refused, ShareError::Name(_)) && text.contains("no name for a directory"), "{text}");
            assert!(!text.contains('\u{1b}') && !text.contains('\n') && text.len() < 200, "{text}");
        }
        assert!(hers.share().is_none());
    }
}

#[test]
fn an_admin_who_names_another_place_each_time_takes_no_room_of_others() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [_hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    let owners = posting::place(&volume.device, &SHARED).signer();
    for number in 0..200u8 {
        let poster = Poster { signer: [number; 32], identity: identity(&anna), device: Some(anna.id()), heard: None };
        his.remember_posters(&[poster]).unwrap();
        // As another device of his may have taken them in.
        his.identity
            .keystore()
            .change(|mine| mine.change_share(SHARED, |share| share.add_poster([number; 32])))
            .unwrap();
    }
    let of_anna = |volume: &Volume| {
        let posters = volume.known_share().unwrap().circle.posters;
        posters
            .iter()
            .filter(|poster| poster.identity == identity(&anna))
            .map(|poster| poster.signer)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_anna(&his), [[199; 32]]);
    // Another device of the owner's, which nobody has met.
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    second.look_around().unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    theirs.hear(Ask::All).unwrap();
    theirs.remove(&[identity(&anna)]).unwrap();
    second.identity.confirm().unwrap();
    his.hear(Ask::All).unwrap();
    assert_eq!(his.known_share().unwrap().members.role(&identity(&anna)), None);
    assert_eq!(of_anna(&his), Vec::<[u8; 32]>::new(), "she says nothing any more");
    let kept: Vec<[u8; 32]> = his.share().unwrap().posters.iter().map(|signer| signer.0).collect();
    let seconds = posting::place(&second.device, &SHARED).signer();
    assert!(kept.contains(&owners) && kept.contains(&seconds));
}

#[test]
fn nothing_is_written_while_an_admin_says_something_that_cannot_be_read() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    hers.post().unwrap();
    tell(&anna);
    his.hear(Ask::All).unwrap();
    his.seal_off().unwrap();
    // What is too long for a record lies with peers that are not to be reached.
    let noise: Vec<u8> =
        (0..40_000u32).flat_map(|number| blake3::hash(&number.to_be_bytes()).as_bytes()[..1].to_vec()).collect();
    let secret = volume.share().unwrap().secret;
    let says = |volume: &Volume, after: u64| {
        let (place, key) = (posting::place(&volume.device, &SHARED), posting::sealing_key(&secret));
        mesh.keep(put(&mesh.peers(), &place, &key, noise.clone(), after).unwrap());
        (1..=6u8).for_each(|peer| mesh.lose_disk(hypernet_core::id::PeerId([peer; 32])));
    };
    says(&volume, 100);
    let _ = his.hear(Ask::Places);
    let refused = his.seal_off().unwrap_err();
    assert!(matches!(refused, PortError::Unreachable(_)) && refused.to_string().contains("cannot be read now"));
    // It comes back.
    volume.post().unwrap();
    his.seal_off().unwrap();
    // Who is no admin any more is in nobody's way.
    volume.remove(&[identity(&anna)]).unwrap();
    tell(&owner);
    says(&hers, 200);
    his.hear(Ask::All).unwrap();
    his.seal_off().unwrap();
}

#[test]
fn what_was_heard_before_and_is_lost_keeps_nobody_from_writing() {
    let mesh = Mesh::new(6);
    let [owner, ben] = [OWNER, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let his = accepted(&ben, &owner);
    // So many that what is said of them has no room in a record.
    let many = (0..60u8).map(|byte| {
        let address = Address { signer: [byte; 32], secret: [byte; 16] };
        Member::new(IdentityId([byte; 32]), address, Role::Reader)
    });
    volume.change_members(Change::Grant(many.collect())).unwrap();
    volume.post().unwrap();
    his.hear(Ask::All).unwrap();
    assert!(his.known_share().unwrap().members.members.len() > 60);
    drop(his);
    (1..=6u8).for_each(|peer| mesh.lose_disk(hypernet_core::id::PeerId([peer; 32])));
    let again = ben.volume();
    let _ = again.hear(Ask::Places);
    again.seal_off().unwrap();
    // What comes after that is waited for.
    volume.rotate().unwrap();
    (1..=6u8).for_each(|peer| mesh.lose_disk(hypernet_core::id::PeerId([peer; 32])));
    let _ = again.hear(Ask::Places);
    again.seal_off().unwrap_err();
}

#[test]
fn a_link_that_one_device_has_taken_back_is_told_nothing_more_by_another_one() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Reader, None).unwrap();
    tell(&owner);
    second.look_around().unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    theirs.tend().unwrap();
    let hers = anna.volume();
    hers.accept_link(link, hers.follow_link(&link).unwrap()).unwrap();

    volume.take_back(&link).unwrap();
    // The other device hears of the epoch, and has not looked at the keystore since.
    assert_eq!(theirs.share().unwrap().open_links().count(), 1);
    theirs.tend().unwrap();
    assert_eq!(theirs.share().unwrap().epochs.len(), 2);
    assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));
    let _ = hers.hear(Ask::All);
    assert_eq!(hers.share().unwrap().epochs.len(), 1);
    // Also where nobody could put up where the link leads.
    let mute = mesh.all_records().into_iter().find(|record| record.signer == link.signer).unwrap();
    mesh.forget_records_of(&mute.signer);
    theirs.rotate().unwrap();
    theirs.tend().unwrap();
    assert!(matches!(hers.follow_link(&link), Err(ShareError::Ended)));
}

#[test]
fn links_of_an_admin_who_was_taken_off_lead_nowhere_when_they_are_admin_again() {
    let mesh = Mesh::new(6);
    let [owner, anna, carol] = [OWNER, ANNA, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    let link = hers.make_link(Role::Reader, None).unwrap();
    tell(&anna);
    let theirs = carol.volume();
    theirs.accept_link(link, theirs.follow_link(&link).unwrap()).unwrap();
    volume.remove(&[identity(&anna)]).unwrap();
    // Whether she has heard of it meanwhile or not.
    volume.grant(vec![Guest::find(&volume, owner.knows(&anna, "anna")).unwrap()], Role::Admin).unwrap();
    tell(&owner);
    hers.tend().unwrap();
    assert_eq!(hers.role(), Some(Role::Admin));
    assert!(matches!(theirs.follow_link(&link), Err(ShareError::Ended)));
    assert_eq!(hers.share().unwrap().open_links().count(), 0);
    let before = hers.share().unwrap().epochs.len();
    let new = hers.make_link(Role::Reader, None).unwrap();
    hers.tend().unwrap();
    theirs.follow_link(&new).unwrap();
    assert_eq!(hers.share().unwrap().epochs.len(), before);
    let _ = theirs.hear(Ask::All);
    assert_eq!(theirs.share().unwrap().epochs.len(), 1);
}

#[test]
fn what_cannot_be_read_of_one_share_closes_that_alone_and_says_so() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let kept = volume.db.get_state("circle").unwrap().unwrap();
    volume.db.put_state("circle", &kept[..kept.len() - 1]).unwrap();
    let refused = Volume::below(&owner.main, SHARED).err().unwrap();
    assert!(refused.to_string().contains("so it stays closed"), "{refused}");
    owner.main.put_offers().unwrap();
    owner.main.look_around().unwrap();
    volume.db.put_state("circle", &kept).unwrap();
    assert!(Volume::below(&owner.main, SHARED).unwrap().known_share().is_some());
}

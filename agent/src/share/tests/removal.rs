//! Taking off whose devices are not found, or who has told of others.

use hypernet_core::id::IdentityId;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::Log as Roster;
use hypernet_core::identity::place::{Address, roster_sealing_key};
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::{RecoveryKeys, Secret};
use hypernet_core::record::LAST;
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::members::{Change, Member, MembersError, Refused};
use hypernet_core::share::posting::{self, Met, SealedFor};
use hypernet_core::tree::Dot;

use super::super::circle::{Circle, Person};
use super::*;
use crate::identity::known::signpost;
use crate::identity::places::put;
use crate::volume::follow::Counted;
use crate::volume::state::{self, tests::golden};

/// The tree of this device has what these have done.
fn stand_on(volume: &Volume, all: &[(&One, u64)]) {
    let mut latest = golden();
    latest.root.volume = SHARED;
    latest.head.snapshot_extent = crate::volume::double::sealed_now(volume, latest.head.snapshot_extent);
    latest.root.vector =
        all.iter().map(|(one, sequence)| Dot { device: one.id().tag_in(SHARED), sequence: *sequence }).collect();
    state::put_latest(&volume.db, &latest).unwrap();
}

/// What it counts of what somebody has done.
fn counted(volume: &Volume, one: &One, sequence: u64) -> Vec<u64> {
    let dot = Dot { device: one.id().tag_in(SHARED), sequence };
    let of = Counted::by(&volume.publishers(), SHARED).of(&[dot]);
    of.into_iter().map(|dot| dot.sequence).collect()
}

fn change(volume: &Volume, change: impl FnOnce(&mut Circle)) {
    volume
        .change_circle(|circle| {
            change(circle.as_mut().unwrap());
            Ok::<_, PortError>(())
        })
        .unwrap();
}

#[test]
fn whose_devices_are_not_found_is_taken_off_and_what_they_wrote_stays() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    publish(&his, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);
    stand_on(&volume, &[(&owner, 1), (&ben, 1)]);
    // What is known of him is what others have told, and where his list is found he has put something else.
    let him = ben.main.identity.id();
    Contacts::of(owner.main.identity.keystore()).remove("ben").unwrap();
    change(&volume, |circle| circle.people.get_mut(&him).unwrap().posting = None);
    let elsewhere = Era::new(7, Secret::new([0x77; 32]));
    mesh.keep(signpost(&RecoveryKeys::new(&[BEN; 64]), &elsewhere, LAST - 1).unwrap());

    volume.remove(&[him]).unwrap();
    tell(&owner);
    assert_eq!(volume.known_share().unwrap().members.role(&him), None);
    hers.hear(Ask::All).unwrap();
    for volume in [&volume, &hers] {
        assert!(volume.publishers().device(&ben.id()).is_none());
    }
    assert_eq!(counted(&volume, &ben, 5), [1], "and nothing after that");
    assert_eq!(hers.known_share().unwrap().members.taken.values().collect::<Vec<_>>(), [&1]);
    // What is taken already is not said again.
    volume.remove(&[anna.main.identity.id()]).unwrap();
    let log = volume.known_share().unwrap().circle.log;
    let taken = log.entries().filter(|entry| matches!(&entry.change, Change::Remove(_, _, taken) if !taken.is_empty()));
    assert_eq!(taken.count(), 1);
}

#[test]
fn what_a_removal_takes_is_found_though_whoever_was_taken_off_has_put_something_else_in_its_place() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Writer), (&ben, "ben", Role::Writer)]);
    publish(&volume, 1).unwrap();
    let [hers, his] = [&anna, &ben].map(|one| accepted(one, &owner));
    publish(&hers, 2).unwrap();
    publish(&his, 3).unwrap();
    volume.remove(&[anna.main.identity.id()]).unwrap();
    // She has not heard of it.
    mesh.keep(crate::volume::double::record(&hers, crate::volume::double::head(&hers, 9, &[])));
    let restarted = owner.volume();
    restarted.remember_share().unwrap();
    restarted.hear(Ask::All).unwrap();
    let publishers = restarted.publishers();
    let devices: Vec<_> = publishers.listed.into_iter().chain(publishers.gone).collect();
    let found = restarted.find_heads(&devices).unwrap();
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let of_anna = found.found.iter().find(|found| found.head.device == anna.id()).map(|found| found.head.sequence);
    assert_eq!(of_anna, Some(1));
    // Until the tree has all of it.
    stand_on(&volume, &[(&owner, 1), (&anna, 1), (&ben, 1)]);
    let vector = state::latest(&volume.db).unwrap().unwrap().root.vector;
    state::add_named(&volume.db, Vec::new(), &vector).unwrap();
    assert!(state::named(&volume.db).unwrap().is_empty());
}

#[test]
fn what_was_written_by_a_link_whose_list_somebody_has_spoilt_stays_when_the_link_ends() {
    let mesh = Mesh::new(6);
    let [owner, anna] = [OWNER, ANNA].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    tell(&owner);
    let hers = anna.volume();
    hers.accept_link(link, hers.follow_link(&link).unwrap()).unwrap();
    publish(&hers, 2).unwrap();
    stand_on(&volume, &[(&owner, 1), (&anna, 1)]);
    // The owner's device has never seen her on the list, and does not find it any more.
    let bearer = Bearer::of(&link);
    change(&volume, |circle| {
        circle.people.get_mut(&bearer.id()).unwrap().posting = Some(Posting::new(Roster::new(bearer.id())));
    });
    let (place, key) = (bearer.era().roster(), roster_sealing_key(&bearer.id()));
    mesh.keep(put(&mesh.peers(), &place, &key, b"something else".to_vec(), LAST - 2).unwrap());

    volume.take_back(&link).unwrap();
    assert!(volume.known_share().unwrap().members.links().next().is_none());
    assert!(volume.publishers().device(&anna.id()).is_none());
    assert_eq!(counted(&volume, &anna, 5), [1]);
}

#[test]
fn one_who_was_taken_off_says_in_vain_who_opens_what_is_sealed_for_others() {
    let mesh = Mesh::new(6);
    let [owner, anna, carol] = [OWNER, ANNA, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin), (&carol, "carol", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    volume.remove(&[anna.main.identity.id()]).unwrap();
    tell(&owner);
    // Another device of the owner comes by her place first.
    let home = tempfile::tempdir().unwrap();
    let second = mesh.device_of(home.path(), OWNER, 1);
    second.look_around().unwrap();
    owner.main.look_around().unwrap();
    second.look_around().unwrap();
    let theirs = Arc::new(Volume::below(&second, SHARED).unwrap());
    let lie = Met { identity: carol.main.identity.id(), recipient: anna.main.identity.recipient().unwrap() };
    let known = hers.known_share().unwrap();
    let sealed = SealedFor { epoch: known.members.epoch.unwrap(), people: vec![lie] };
    theirs.take_in(posting::place(&hers.device, &SHARED).signer(), known.circle.log, sealed, Vec::new()).unwrap();
    let known = theirs.hear(Ask::All).unwrap().unwrap();
    let carols = known.circle.people.get(&lie.identity).map(|person| person.recipient);
    assert_eq!(carols, Some(carol.main.identity.recipient().unwrap()));
}

#[test]
fn what_an_admin_has_said_of_others_goes_with_the_admin() {
    let mesh = Mesh::new(6);
    let [owner, anna, carol] = [OWNER, ANNA, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    hers.grant(vec![Guest::find(&hers, anna.knows(&carol, "carol")).unwrap()], Role::Reader).unwrap();
    let (who, lie) = (carol.main.identity.id(), anna.main.identity.recipient().unwrap());
    change(&hers, |circle| {
        let person = Person { recipient: lie, posting: None, told_by: None };
        circle.people.insert(who, person);
    });
    hers.post().unwrap();
    tell(&anna);
    volume.hear(Ask::All).unwrap();
    let person = |volume: &Volume| volume.known_share().unwrap().circle.people.get(&who).cloned().unwrap();
    let told = person(&volume);
    assert_eq!((told.recipient, told.told_by), (lie, Some(anna.main.identity.id())));

    volume.remove(&[anna.main.identity.id()]).unwrap();
    let found = person(&volume);
    assert_eq!((found.recipient, found.told_by), (carol.main.identity.recipient().unwrap(), None));
}

/// Takes all the room that there is for what anybody says of who may do what.
fn fill(volume: &Volume) {
    let stranger = |turn: u8, number: u16| {
        let mut id = [turn; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Member::new(IdentityId(id), Address { signer: id, secret: [7; 16] }, Role::Reader)
    };
    for (turn, many) in [(1, 1_000), (2, 1_000), (3, 1_000), (4, 1_000), (5, 1_000), (6, 100), (7, 100), (8, 10)] {
        let all: Vec<Member> = (0..many).map(|number| stranger(turn, number)).collect();
        let gone = all.iter().map(|member| member.identity).collect();
        if volume.change_members(Change::Grant(all)).is_ok() {
            volume.change_members(Change::Remove(gone, Vec::new(), Vec::new())).unwrap();
        }
    }
    while volume.change_members(Change::Rotate).is_ok() {}
}

/// Whom each removal names, and how many heads.
fn removals(volume: &Volume) -> Vec<(Vec<IdentityId>, usize)> {
    let log = volume.known_share().unwrap().circle.log;
    let removal = |change: &Change| match change {
        Change::Remove(gone, accepted, _) => Some((gone.clone(), accepted.len())),
        _ => None,
    };
    log.entries().filter_map(|entry| removal(&entry.change)).collect()
}

#[test]
fn who_is_taken_off_goes_first_then_their_links_and_where_that_was_broken_off_it_ends() {
    let mesh = Mesh::new(6);
    let [owner, anna, carol] = [OWNER, ANNA, CAROL].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Admin)]);
    publish(&volume, 1).unwrap();
    let hers = accepted(&anna, &owner);
    let her = anna.main.identity.id();
    let links = |volume: &Volume| volume.hear(Ask::All).unwrap().unwrap().members.links().count();
    let made = || {
        hers.tend().unwrap();
        hers.make_link(Role::Writer, None).unwrap();
        hers.make_link(Role::Writer, None).unwrap();
        tell(&anna);
        assert_eq!(links(&volume), 2);
    };
    let again = || {
        volume.grant(vec![Guest::find(&volume, owner.knows(&anna, "anna")).unwrap()], Role::Admin).unwrap();
        tell(&owner);
    };
    made();
    volume.remove(&[her]).unwrap();
    assert_eq!(links(&volume), 0);
    let all = removals(&volume);
    assert!(all.len() == 2 && all.iter().any(|(gone, _)| *gone == [her]), "{all:?}");
    // It is killed between the two: whoever looks after the volume ends it, or whoever says it again.
    let broken_off = || volume.change_members(Change::Remove(vec![her], Vec::new(), Vec::new())).unwrap();
    again();
    made();
    broken_off();
    assert_eq!(links(&volume), 2);
    volume.tend().unwrap();
    assert_eq!(links(&volume), 0);
    again();
    made();
    broken_off();
    volume.remove(&[her]).unwrap();
    assert_eq!(links(&volume), 0);
    // Who never had a part in it is told so all the same.
    let refused = volume.remove(&[carol.main.identity.id()]).unwrap_err();
    assert!(matches!(refused, ShareError::Members(MembersError::Refused(Refused::Unknown))), "{refused}");
}

#[test]
fn where_all_the_room_is_taken_an_admins_device_goes_on_and_spends_none_that_is_kept_on_links() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let home = tempfile::tempdir().unwrap();
    let phone = mesh.device_of(home.path(), ANNA, 1);
    phone.look_around().unwrap();
    anna.main.look_around().unwrap();
    let volume = share(&owner, &[(&anna, "anna", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Writer, None).unwrap();
    tell(&owner);
    let his = ben.volume();
    his.accept_link(link, his.follow_link(&link).unwrap()).unwrap();
    publish(&his, 2).unwrap();
    assert_eq!(seen(&volume).len(), 2);
    fill(&volume);
    volume.tend().unwrap();
    let before = volume.known_share().unwrap().members.epoch;
    anna.main.identity.revoke(&phone.device.id()).unwrap();
    let place = posting::place(&volume.device, &SHARED).signer();
    mesh.forget_records_of(&place);
    volume.tend().unwrap();
    assert_eq!(volume.known_share().unwrap().members.epoch, before, "there is no room for another one");
    assert!(mesh.all_records().iter().any(|record| record.signer == place), "and all else is done");

    let (bearer, before) = (Bearer::of(&link).id(), removals(&volume).len());
    volume.take_back(&link).unwrap();
    let all = removals(&volume);
    assert_eq!(all.len(), before + 1);
    assert!(all.contains(&(vec![bearer], 0)), "no head is named");
    volume.remove(&[anna.main.identity.id()]).unwrap();
    assert_eq!(volume.known_share().unwrap().members.members.len(), 1);
}

#[test]
fn where_all_the_room_is_taken_a_link_whose_time_has_come_keeps_nobody_in() {
    let mesh = Mesh::new(6);
    let [owner, anna, ben] = [OWNER, ANNA, BEN].map(|who| One::new(&mesh, who));
    let volume = share(&owner, &[(&anna, "anna", Role::Reader), (&ben, "ben", Role::Reader)]);
    publish(&volume, 1).unwrap();
    let link = volume.make_link(Role::Reader, Some(1)).unwrap();
    fill(&volume);
    volume.tend().unwrap();
    let his = accepted(&ben, &owner);
    let open = |volume: &Volume| volume.known_share().unwrap().share.open_links().count();
    assert_eq!(open(&volume), 1, "there was no room for another epoch");
    volume.remove(&[anna.main.identity.id()]).unwrap();
    tell(&owner);
    assert_eq!(open(&volume), 0);
    assert!(matches!(volume.follow_link(&link), Err(ShareError::Ended)));
    his.hear(Ask::All).unwrap();
    assert_eq!(his.known_share().unwrap().members.role(&anna.main.identity.id()), None, "and the others hear of it");
    // So it is where nobody else is to be taken off any more.
    volume.remove(&[anna.main.identity.id()]).unwrap();
}

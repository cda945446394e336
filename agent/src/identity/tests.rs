use std::path::Path;
use std::sync::Arc;

use hypernet_core::codec;
use hypernet_core::head::Head;
use hypernet_core::id::PeerId;
use hypernet_core::identity::era::Door;
use hypernet_core::identity::log::{Author, Change, NewEra, Recipient};
use hypernet_core::identity::place::{Address, Notice, Signpost, roster_sealing_key};
use hypernet_core::key::Secret;
use hypernet_core::limits::DEVICES_MAX;
use hypernet_core::record::LAST;
use tempfile::TempDir;

use super::arrival::by_phrase;
use super::*;
use crate::volume::Volume;
use crate::volume::devices::RevokeError;
use crate::volume::double::{Mesh, phrase, publish};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn keys(byte: u8) -> DeviceKeys {
    DeviceKeys::new(Secret::new([byte; 32]))
}

fn confirm(volume: &Volume) -> Result<Roster, PortError> {
    volume.tell().unwrap();
    volume.identity.confirm()
}

/// Of the era that counts.
fn number(volume: &Volume) -> u32 {
    volume.identity.era.lock().number
}

fn names(roster: &Roster) -> Vec<&str> {
    roster.devices.iter().map(|device| device.name.as_str()).collect()
}

/// A new device that came by the phrase, and is on the mesh.
fn arrive(mesh: &Mesh, home: &Path, byte: u8) -> Arc<Volume> {
    let name = format!("device {byte}");
    let arrived = by_phrase(&mesh.peers(), &phrase(), &keys(byte), &name, false, &mut |_| {}).unwrap();
    let volume = mesh.arrived(home, byte, arrived);
    confirm(&volume).unwrap();
    volume
}

#[test]
fn the_phrase_alone_brings_everything_back_and_another_one_nothing() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    let find =
        |phrase: &hypernet_core::key::RecoveryKeys| by_phrase(&mesh.peers(), phrase, &keys(2), "b", false, &mut |_| {});
    assert!(matches!(find(&phrase()), Err(PortError::NotFound(_))), "nothing is on the mesh yet");
    confirm(&first).unwrap();
    assert!(matches!(find(&hypernet_core::key::RecoveryKeys::new(&[4; 64])), Err(PortError::NotFound(_))));
    let second = arrive(&mesh, b.path(), 2);
    assert_eq!(second.identity.keystore().keystore(), first.identity.keystore().keystore());
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1", "device 2"]);
    let signer = second.device.head_signer(&first.keys());
    let found = first.identity.head_signers(&second.device.id(), &first.identity.all_keys(first.id));
    assert_eq!(found.into_iter().map(|(signer, _)| signer).collect::<Vec<_>>(), [signer]);
}

#[test]
fn a_revoked_device_is_out_and_the_phrase_still_finds_the_others() {
    let mesh = Mesh::new(5);
    let (a, b, c, d) = (dir(), dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    confirm(&first).unwrap();
    let (second, third) = (arrive(&mesh, b.path(), 2), arrive(&mesh, c.path(), 3));
    let before = second.identity.keystore().keystore();
    first.identity.revoke(&second.device.id()).unwrap();
    // It says so itself, and what it knew opens nothing of what comes after.
    assert!(matches!(confirm(&second), Err(PortError::Superseded(_))));
    assert!(matches!(second.identity.look(), Err(PortError::Superseded(_))));
    assert_eq!(second.identity.keystore().keystore(), before);
    assert_eq!(names(&confirm(&third).unwrap()), ["device 1", "device 3"]);
    assert_eq!(third.identity.keystore().keystore(), first.identity.keystore().keystore());
    let fourth = arrive(&mesh, d.path(), 4);
    assert_eq!(names(&fourth.identity.roster()), ["device 1", "device 3", "device 4"]);
    assert_eq!(number(&fourth), 1);
    // The new signpost leads there at once.
    let post = mesh.peers().lookup(Address::of(&phrase()).record_key()).unwrap().unwrap();
    let found = Signpost::open(&post, &Address::of(&phrase())).unwrap();
    assert_eq!(found.door, fourth.identity.era.lock().door());
}

#[test]
fn of_two_that_revoke_at_once_each_ends_with_the_same_list() {
    let mesh = Mesh::new(5);
    let homes: Vec<TempDir> = (0..4).map(|_| dir()).collect();
    let first = mesh.volume(homes[0].path(), 1);
    confirm(&first).unwrap();
    let others: Vec<Arc<Volume>> = (2..=4).map(|byte| arrive(&mesh, homes[byte as usize - 1].path(), byte)).collect();
    confirm(&first).unwrap();
    // The first has not heard of what the second does.
    others[0].identity.revoke(&others[1].device.id()).unwrap();
    first.identity.revoke(&others[2].device.id()).unwrap();
    let (one, other) = (confirm(&first).unwrap(), confirm(&others[0]).unwrap());
    assert_eq!(names(&one), ["device 1", "device 2"]);
    assert_eq!(one, other);
    assert_eq!(number(&first), 2);
}

#[test]
fn a_list_that_does_not_fit_into_a_record_lies_in_a_segment() {
    let mesh = Mesh::new(5);
    let homes: Vec<TempDir> = (0..=DEVICES_MAX).map(|_| dir()).collect();
    let first = mesh.volume(homes[0].path(), 1);
    confirm(&first).unwrap();
    for byte in 2..=DEVICES_MAX as u8 {
        arrive(&mesh, homes[byte as usize - 1].path(), byte);
    }
    assert_eq!(first.identity.look().unwrap().devices.len(), DEVICES_MAX);
    assert!(mesh.uploads() > 0, "it was never too long");
    // Others come, and the holders of that segment go, while the list stays as it is.
    for peer in 1..=5 {
        mesh.connect([PeerId([peer + 5; 32])]);
        mesh.disconnect([PeerId([peer; 32])]);
        confirm(&first).unwrap();
    }
    let full = by_phrase(&mesh.peers(), &phrase(), &keys(99), "one more", false, &mut |_| {}).map(drop).unwrap_err();
    assert!(full.to_string().contains("revoke one"), "{full}");
    let last = first.identity.roster().devices.pop().unwrap();
    first.identity.revoke(&last.id).unwrap();
    arrive(&mesh, homes[DEVICES_MAX].path(), 99);
}

/// A device enrols another one: nobody types a word.
#[test]
fn a_device_enrols_another_and_is_left_as_it_is() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    confirm(&first).unwrap();
    let arrived = first.identity.enrol(&keys(2), "second", &mut |_| {}).unwrap();
    let second = mesh.arrived(b.path(), 2, arrived);
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1"], "it has not said so yet");
    confirm(&second).unwrap();
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1", "second"]);
}

/// By the phrase somebody came onto a list that had not heard of a revocation.
#[test]
fn what_happens_at_the_same_time_all_counts() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    confirm(&first).unwrap();
    let second = arrive(&mesh, b.path(), 2);
    let stale = by_phrase(&mesh.peers(), &phrase(), &keys(3), "third", false, &mut |_| {}).unwrap();
    first.identity.revoke(&second.device.id()).unwrap();
    first.identity.change_known(|known| known.merge(&stale.known.posting)).unwrap();
    let both = confirm(&first).unwrap();
    assert_eq!(names(&both), ["device 1", "third"]);
    assert!(both.is_sealed_off && both.gone.iter().all(|device| device.id == second.device.id()));
}

/// A listed device says that there is an era, and lets nobody in.
#[test]
fn an_era_that_nobody_can_open_is_followed_by_another() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    let (me, key) = (Author::Device(thief.device.id()), thief.device.signing_key());
    let shut = Some(NewEra { recipient: Recipient::X25519([7; 32]), way: [7; 32] });
    let mut posting = thief.identity.known.lock().posting.clone();
    posting.change(|log| log.change(me, &key, Hlc::default(), Change::Rotate, shut)).unwrap();
    thief.identity.change_known(|known| known.merge(&posting)).unwrap();
    let era = Era::clone(&thief.identity.era.lock());
    let list = Notice::Here(posting.encode());
    mesh.keep(list.publish(&era.roster(), &roster_sealing_key(&phrase().id()), 1_000).unwrap());
    publish(&first, 2).unwrap();
    assert!(first.identity.roster().era != shut);
    let third = arrive(&mesh, c.path(), 3);
    assert_eq!(found(&third), [at("device 1", 2)]);
}

/// The numbers of the heads that a device finds of others.
fn found(volume: &Volume) -> Vec<(String, u64)> {
    let survey = volume.find_heads(&volume.identity.roster().devices).unwrap();
    let mut found: Vec<_> = survey.found.iter().map(|one| (one.device.name.clone(), one.head.sequence)).collect();
    found.sort();
    found
}

fn at(name: &str, sequence: u64) -> (String, u64) {
    (name.to_owned(), sequence)
}

/// What was written before is found as before, and what comes after is closed to whoever was taken off.
#[test]
fn a_revocation_changes_the_keys_and_loses_no_head() {
    let mesh = Mesh::new(5);
    let (a, b, c, d) = (dir(), dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let (second, third) = (arrive(&mesh, b.path(), 2), arrive(&mesh, c.path(), 3));
    for volume in [&second, &third] {
        publish(volume, 2).unwrap();
    }
    let before = first.keys();
    first.identity.revoke(&second.device.id()).unwrap();
    confirm(&third).unwrap();
    assert!(*first.keys().secret() != *before.secret() && first.keys().secret() == third.keys().secret());
    assert_eq!(found(&third), [at("device 1", 1), at("device 3", 1)]);
    publish(&first, 3).unwrap();
    assert_eq!(found(&third), [at("device 1", 2), at("device 3", 1)]);
    let fourth = arrive(&mesh, d.path(), 4);
    assert_eq!(found(&fourth), [at("device 1", 2), at("device 3", 1)]);
    // All that the second one has: it neither finds the place nor could it open what is there.
    let all = second.identity.all_keys(second.id);
    assert!(all.iter().all(|keys| keys.secret() != first.keys().secret()));
    let place = first.device.head_signer(&first.keys());
    let signers = second.identity.head_signers(&first.device.id(), &all);
    assert!(signers.iter().all(|(signer, _)| *signer != place));
    let post = mesh.peers().lookup(hypernet_core::record::record_key(&place)).unwrap().unwrap();
    assert!(all.iter().all(|keys| Head::open(&post, &first.device.id(), keys).is_err()));
}

/// Although it has asked for everything a moment ago.
#[test]
fn a_device_that_was_taken_off_calls_nothing_durable() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let second = arrive(&mesh, b.path(), 2);
    publish(&second, 2).unwrap();
    first.revoke_device(&|| Ok(vec![]), "device 2", true, None).unwrap();
    assert!(matches!(publish(&second, 3), Err(PortError::Superseded(_))));
    assert!(matches!(second.still_current(), Err(PortError::Superseded(_))));
    // And what the survivor publishes counts, though the keys were changed since it last asked.
    publish(&first, 4).unwrap();
    // The head that was not called durable is told of all the same, and whoever asks for it by name gets it.
    let c = dir();
    let third = arrive(&mesh, c.path(), 3);
    let gone = third.find_heads(&third.identity.roster().gone).unwrap();
    assert_eq!((gone.found[0].head.sequence, gone.found[0].device.name.as_str()), (2, "device 2"));
}

/// It has all that the others have, so it can write at the end of the era; and the phrase has the last word.
#[test]
fn what_a_stolen_device_puts_in_the_way_is_seen_and_the_phrase_leads_past_it() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    let third = arrive(&mesh, c.path(), 3);
    publish(&third, 2).unwrap();
    confirm(&first).unwrap();
    // First it spoils everything that is there, then it takes the others off.
    let era = Era::clone(&thief.identity.era.lock());
    let (key, junk) = (roster_sealing_key(&phrase().id()), Door { roster: [7; 32], end: [8; 32] });
    mesh.keep(Notice::Ended(junk).publish(&era.end(), &key, 0).unwrap());
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.roster(), &key, LAST - 1).unwrap());
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.keystore(), &era.keystore().sealing_key(), LAST - 1).unwrap());
    let told = publish(&first, 3).unwrap_err();
    assert!(matches!(told, PortError::Unreachable(_)) && told.to_string().contains("--phrase"), "{told}");
    let wrong = hypernet_core::key::RecoveryKeys::new(&[4; 64]);
    assert!(first.revoke_device(&|| Ok(vec![]), "device 2", true, Some(&wrong)).is_err());
    first.revoke_device(&|| Ok(vec![]), "device 2", true, Some(&phrase())).unwrap();
    publish(&first, 4).unwrap();
    assert_eq!(names(&confirm(&third).unwrap()), ["device 1", "device 3"]);
    publish(&third, 5).unwrap();
    let d = dir();
    let fourth = arrive(&mesh, d.path(), 4);
    assert_eq!(names(&fourth.identity.roster()), ["device 1", "device 3", "device 4"]);
    assert_eq!(found(&fourth).iter().filter(|(name, _)| name == "device 3").count(), 1);
}

/// The thief has the oldest device and takes the other one off, which has the words.
#[test]
fn a_device_that_was_taken_off_by_a_thief_comes_back_by_the_phrase() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let thief = mesh.volume(a.path(), 1);
    publish(&thief, 1).unwrap();
    let mine = arrive(&mesh, b.path(), 2);
    publish(&mine, 2).unwrap();
    thief.identity.revoke(&mine.device.id()).unwrap();
    assert!(matches!(publish(&mine, 3), Err(PortError::Superseded(_))));
    mine.revoke_device(&|| Ok(vec![]), "device 1", true, Some(&phrase())).unwrap();
    mine.still_current().unwrap();
    publish(&mine, 4).unwrap();
    assert!(matches!(publish(&thief, 5), Err(PortError::Superseded(_))));
    let fresh = arrive(&mesh, c.path(), 3);
    assert_eq!(names(&fresh.identity.roster()), ["device 2", "device 3"]);
    assert_eq!(found(&fresh), [at("device 2", 3)]);
}

/// Each takes another device off, begins an era, and publishes in it, while the mesh is split.
#[test]
fn two_parts_of_an_identity_come_together_and_no_head_is_lost() {
    let mesh = Mesh::new(5);
    let homes: Vec<TempDir> = (0..5).map(|_| dir()).collect();
    let first = mesh.volume(homes[0].path(), 1);
    publish(&first, 1).unwrap();
    let [second, third, fourth] = [2, 3, 4].map(|byte| arrive(&mesh, homes[byte as usize - 1].path(), byte));
    confirm(&first).unwrap();
    let (third, fourth) = (third.device.id(), fourth.device.id());
    drop(second);
    let other = mesh.split(5);
    let second = other.volume(homes[1].path(), 2);
    second.identity.revoke(&third).unwrap();
    publish(&second, 2).unwrap();
    first.identity.revoke(&fourth).unwrap();
    publish(&first, 3).unwrap();
    assert!(first.keys().secret() != second.keys().secret());
    drop(second);
    mesh.join(&other);
    // Whoever comes by the phrase finds both before they have heard of each other, and whoever is asked first.
    let late = arrive(&mesh, homes[4].path(), 5);
    assert_eq!(found(&late), [at("device 1", 2), at("device 2", 1)]);
    let second = mesh.volume(homes[1].path(), 2);
    for _ in 0..2 {
        confirm(&first).unwrap();
        confirm(&second).unwrap();
    }
    confirm(&late).unwrap();
    let rosters = [&first, &second, &late].map(|volume| volume.identity.roster());
    assert_eq!(names(&rosters[0]), ["device 1", "device 2", "device 5"]);
    assert!(rosters[0] == rosters[1] && rosters[1] == rosters[2]);
    assert!(first.keys().secret() == second.keys().secret() && late.keys().secret() == first.keys().secret());
    for (volume, millis) in [&first, &second, &late].into_iter().zip(7..) {
        publish(volume, millis).unwrap();
    }
    assert_eq!(found(&first), [at("device 1", 3), at("device 2", 2), at("device 5", 1)]);
}

/// It does not know of the revocation that happens while it comes.
#[test]
fn who_arrives_while_a_device_is_taken_off_is_found() {
    let mesh = Mesh::new(5);
    let (a, b, c, d) = (dir(), dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let second = arrive(&mesh, b.path(), 2);
    let arrived = by_phrase(&mesh.peers(), &phrase(), &keys(3), "third", false, &mut |_| {}).unwrap();
    first.identity.revoke(&second.device.id()).unwrap();
    let third = mesh.arrived(c.path(), 3, arrived);
    publish(&third, 2).unwrap();
    publish(&first, 3).unwrap();
    publish(&third, 4).unwrap();
    assert_eq!(names(&confirm(&first).unwrap()), ["device 1", "third"]);
    assert!(first.keys().secret() == third.keys().secret());
    let fourth = arrive(&mesh, d.path(), 4);
    assert_eq!(names(&fourth.identity.roster()), ["device 1", "third", "device 4"]);
    assert_eq!(found(&fourth), [at("device 1", 2), at("third", 2)]);
}

/// What `agent/golden/new-device.hex` stands for.
#[test]
fn how_a_device_wants_to_be_listed_is_written_and_read_as_ever() {
    let device = known::listed(&phrase().id(), &keys(5), "laptop").unwrap();
    let golden = arrival::Newcomer { device };
    let bytes = crate::golden::bytes(include_str!("../../golden/new-device.hex"));
    assert_eq!(crate::golden::hex(&codec::encode(&golden)), crate::golden::hex(&bytes));
    assert_eq!(codec::decode::<arrival::Newcomer>(&bytes).unwrap(), golden);
    crate::golden::mutations(&bytes, |bytes| {
        if let Ok(found) = codec::decode::<arrival::Newcomer>(bytes) {
            let _ = found.device.verify(&phrase().id());
        }
    });
}

/// As two that meet do it: the new device signs its own entry, and nobody is enrolled who has not.
#[test]
fn a_device_that_is_met_is_enrolled_as_it_has_signed_and_is_on_no_list_before_it_says_so() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    confirm(&first).unwrap();
    let device = known::listed(&phrase().id(), &keys(2), "second").unwrap();
    let elsewhere = known::listed(&IdentityId([9; 32]), &keys(2), "second").unwrap();
    assert!(first.identity.enrol_listed(elsewhere).is_err(), "it has signed for another identity");
    let code = crate::pairing::code::Code::random().unwrap();
    let arrived = first.identity.enrol_listed(device.clone()).unwrap();
    let named = crate::pairing::parcel::send(&mesh.peers(), &code, &device.recipient, &arrived).unwrap();
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1"], "it has not said so yet");
    let receive =
        |by: &DeviceKeys, named: &[u8]| crate::pairing::parcel::receive(&mesh.peers(), &code, by, phrase().id(), named);
    assert!(receive(&keys(3), &named).is_err(), "sealed for another device");
    assert!(receive(&keys(2), &[0; 32]).is_err(), "not what was vouched for");
    let got = receive(&keys(2), &named).unwrap();
    arrival::is_sound(&got, phrase().id(), &keys(2)).unwrap();
    assert!(arrival::is_sound(&got, phrase().id(), &keys(3)).is_err(), "it lists another device");
    assert!(arrival::is_sound(&got, IdentityId([9; 32]), &keys(2)).is_err());
    let second = mesh.arrived(b.path(), 2, got);
    confirm(&second).unwrap();
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1", "second"]);
}

/// A thief of a device enrols another one, and wants what is sealed for the words to be sealed for words of their own.
#[test]
fn a_device_takes_no_address_and_no_words_but_those_that_its_identity_has_signed() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let thief = mesh.volume(a.path(), 1);
    confirm(&thief).unwrap();
    let theirs = hypernet_core::key::RecoveryKeys::new(&[4; 64]);
    let hand_over = || thief.identity.enrol(&keys(2), "second", &mut |_| {}).unwrap();
    let refused = |arrived: &arrival::Arrived| arrival::is_sound(arrived, phrase().id(), &keys(2)).unwrap_err();
    arrival::is_sound(&hand_over(), phrase().id(), &keys(2)).unwrap();
    let mut arrived = hand_over();
    let era = Era::clone(&thief.identity.era.lock());
    let post = known::signpost(&theirs, &era, 9).unwrap();
    arrived.known = Known::new(post, Address::of(&theirs), arrived.known.posting);
    assert!(refused(&arrived).to_string().contains("another identity"));
    let mut arrived = hand_over();
    arrived.keystore.phrase = sealing::recipient(&theirs.opening_key()).unwrap();
    assert!(refused(&arrived).to_string().contains("other words"));
    // One that has taken them all the same seals for the words, and hands on no others.
    let second = mesh.arrived(b.path(), 2, arrived);
    confirm(&second).unwrap();
    second.identity.revoke(&thief.device.id()).unwrap();
    let now = Era::clone(&second.identity.era.lock());
    let read = |by: &Secret| meeting::read_keystore(&mesh.peers(), &now, by, None).unwrap().keystore;
    assert!(read(&phrase().opening_key()).is_some() && read(&theirs.opening_key()).is_none());
    let third = second.identity.enrol(&keys(3), "third", &mut |_| {}).unwrap();
    arrival::is_sound(&third, phrase().id(), &keys(3)).unwrap();
}

/// Its host name may be anything, and whoever enrols it looks.
#[test]
fn whatever_a_machine_is_called_its_device_has_a_name_that_bends_no_terminal() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    confirm(&first).unwrap();
    let bent = Device::sign(
        &phrase().id(),
        &keys(2).signing_key(),
        sealing::recipient(&keys(2).opening_key()).unwrap(),
        "\u{1b}[2Jlaptop".into(),
        Beacon::place(&keys(2)).signer(),
    );
    let refused = first.identity.enrol_listed(bent).map(drop).unwrap_err();
    assert!(refused.to_string().contains("control"), "{refused}");
    let arrived = first.identity.enrol(&keys(2), " \u{202e}lap\ntop\t", &mut |_| {}).unwrap();
    confirm(&mesh.arrived(b.path(), 2, arrived)).unwrap();
    assert_eq!(names(&first.identity.look().unwrap()), ["device 1", "laptop"]);
    assert_eq!(known::device_name("\u{7}\n"), "device");
}

/// It has all that the others have, and nobody here knows which device it is.
#[test]
fn the_words_put_right_what_a_device_has_spoiled_that_is_not_known_here() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let mine = mesh.volume(a.path(), 1);
    publish(&mine, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    let era = Era::clone(&thief.identity.era.lock());
    let (key, junk) = (roster_sealing_key(&phrase().id()), Door { roster: [7; 32], end: [8; 32] });
    mesh.keep(Notice::Ended(junk).publish(&era.end(), &key, 0).unwrap());
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.roster(), &key, LAST - 1).unwrap());
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.keystore(), &era.keystore().sealing_key(), LAST - 1).unwrap());
    let told = publish(&mine, 2).unwrap_err();
    assert!(matches!(told, PortError::Unreachable(_)) && told.to_string().contains("hn device renew"), "{told}");
    assert_eq!(names(&mine.identity.roster()), ["device 1"], "there is no name to revoke");
    let wrong = hypernet_core::key::RecoveryKeys::new(&[4; 64]);
    assert!(matches!(mine.renew(&wrong), Err(RevokeError::Words)));
    let renewed = mine.renew(&phrase()).unwrap();
    assert!(!renewed.is_back && renewed.devices.len() == 1);
    publish(&mine, 3).unwrap();
    let fresh = arrive(&mesh, c.path(), 3);
    let heads = found(&fresh);
    assert!(heads.iter().any(|(name, sequence)| name == "device 1" && *sequence > 1), "{heads:?}");
}

/// By one that the thief has enrolled, and of which this one has not heard.
#[test]
fn a_device_that_a_stranger_took_off_comes_back_by_the_words_and_sees_who_is_on_the_list() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let thief = mesh.volume(a.path(), 1);
    publish(&thief, 1).unwrap();
    let mine = arrive(&mesh, b.path(), 2);
    publish(&mine, 2).unwrap();
    let arrived = thief.identity.enrol(&keys(9), "minted", &mut |_| {}).unwrap();
    let minted = mesh.arrived(c.path(), 9, arrived);
    confirm(&minted).unwrap();
    minted.identity.revoke(&mine.device.id()).unwrap();
    assert!(matches!(publish(&mine, 3), Err(PortError::Superseded(_))));
    let renewed = mine.renew(&phrase()).unwrap();
    let listed: Vec<&str> = renewed.devices.iter().map(|device| device.name.as_str()).collect();
    assert!(renewed.is_back && listed.contains(&"minted") && listed.contains(&"device 2"), "{listed:?}");
    publish(&mine, 4).unwrap();
    // Whom it has brought is on the list still, and named.
    let revoked = mine.revoke_device(&|| Ok(vec![]), "device 1", true, Some(&phrase())).unwrap();
    assert!(revoked.with.is_empty());
    assert_eq!(revoked.brought.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["minted"]);
    let revoked = mine.revoke_device(&|| Ok(vec![]), "minted", true, Some(&phrase())).unwrap();
    assert!(revoked.with.is_empty() && revoked.brought.is_empty());
    publish(&mine, 5).unwrap();
    assert_eq!(names(&mine.identity.roster()), ["device 2"]);
}

/// Somebody had taken the thief off who had not heard of whom it has enrolled.
#[test]
fn who_takes_a_device_off_hears_who_goes_with_it() {
    let mesh = Mesh::new(5);
    let (a, b, c, d) = (dir(), dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    drop(arrive(&mesh, c.path(), 3));
    confirm(&thief).unwrap();
    let other = mesh.split(5);
    let third = other.volume(c.path(), 3);
    third.identity.revoke(&thief.device.id()).unwrap();
    let arrived = thief.identity.enrol(&keys(9), "minted", &mut |_| {}).unwrap();
    confirm(&mesh.arrived(d.path(), 9, arrived)).unwrap();
    confirm(&first).unwrap();
    assert_eq!(names(&first.identity.roster()), ["device 1", "device 2", "device 3", "minted"]);
    mesh.join(&other);
    let revoked = first.revoke_device(&|| Ok(vec![]), "device 2", true, Some(&phrase())).unwrap();
    assert_eq!(revoked.with.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["minted"]);
    assert!(revoked.brought.is_empty());
    assert_eq!(names(&first.identity.roster()), ["device 1", "device 3"]);
}

/// This node has its own copies of the records, and they say that all is as it was.
#[test]
fn silence_does_not_say_that_the_keys_are_as_they_were() {
    let mesh = Mesh::new(5);
    let a = dir();
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    mesh.set_mute(true);
    let told = publish(&first, 2).unwrap_err();
    assert!(told.to_string().contains("0 peers have answered where 1 are needed"), "{told}");
    assert!(!first.identity.is_current(1).is_ok_and(|is_current| is_current));
    mesh.set_mute(false);
    // As many are to answer as are to keep a record, and never more than are asked.
    assert!(first.identity.is_current(5).unwrap());
    assert!(first.identity.is_current(6).is_err());
    mesh.connect((6..=30).map(|peer| PeerId([peer; 32])));
    assert!(first.identity.is_current(25).unwrap());
    publish(&first, 3).unwrap();
}

/// The holders of its segment go, or lose their disks, and nobody changes it meanwhile.
#[test]
fn a_keystore_that_lies_in_a_segment_is_placed_anew_before_it_is_lost() {
    let mesh = Mesh::new(10);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    let fill = |mine: &mut crate::keystore::Keystore| {
        for number in 0..500_u128 {
            assert!(mine.add_volume(hypernet_core::id::VolumeId((number << 64).to_be_bytes())));
        }
    };
    first.identity.keystore().change(fill).unwrap();
    confirm(&first).unwrap();
    let uploads = mesh.uploads();
    assert!(uploads > 0, "it was never too long");
    for _ in 0..3 {
        confirm(&first).unwrap();
    }
    assert_eq!(mesh.uploads(), uploads, "what is there is left as it is");
    mesh.disconnect([PeerId([1; 32])]);
    confirm(&first).unwrap();
    assert_eq!(mesh.uploads(), uploads, "one loss is what it is coded for");
    for peer in 1..=10 {
        mesh.connect([PeerId([peer + 10; 32])]);
        mesh.disconnect([PeerId([peer; 32])]);
        confirm(&first).unwrap();
    }
    let moved = mesh.uploads();
    assert!(moved > uploads && moved <= uploads + 10, "{moved}");
    for peer in 11..=20 {
        mesh.lose_disk(PeerId([peer; 32]));
        confirm(&first).unwrap();
    }
    assert!(mesh.uploads() > moved);
    let second = arrive(&mesh, b.path(), 2);
    assert_eq!(second.identity.keystore().keystore(), first.identity.keystore().keystore());
}

/// More than there are eras whose ends are kept up for their own sake, and nobody else keeps a record up.
#[test]
fn the_words_lead_over_many_revocations_to_where_all_is_now() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    for byte in 100..124 {
        let home = dir();
        let arrived = first.identity.enrol(&keys(byte), "short-lived", &mut |_| {}).unwrap();
        let other = mesh.arrived(home.path(), byte, arrived);
        confirm(&other).unwrap();
        first.identity.revoke(&other.device.id()).unwrap();
    }
    mesh.expire();
    publish(&first, 2).unwrap();
    confirm(&first).unwrap();
    mesh.expire();
    let second = arrive(&mesh, b.path(), 2);
    assert_eq!((number(&second), found(&second)), (24, vec![at("device 1", 2)]));
    drop(second);
    // That one has put up a signpost to where all is. Without it, and without anything else that there was:
    let signpost = first.identity.known.lock().signpost.clone();
    mesh.expire();
    mesh.expire();
    assert!(mesh.peers().lookup(signpost.key()).unwrap().is_none());
    confirm(&first).unwrap();
    publish(&first, 3).unwrap();
    let third = arrive(&mesh, c.path(), 3);
    assert_eq!((number(&third), found(&third)), (24, vec![at("device 1", 3)]));
}

/// It has the keys of the place, and names a volume of its own.
#[test]
fn the_keystore_of_a_thief_does_not_change_what_the_words_recover() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    let its = hypernet_core::id::VolumeId([9; 16]);
    // That the main volume is shared, by something that nobody finds, it says, too.
    let share = crate::share::kept::Share { volume: first.id, ..crate::share::kept::fixed() };
    let of_thief = crate::keystore::Keystore {
        main: its,
        volumes: vec![its],
        shares: vec![share],
        ..thief.identity.keystore().keystore()
    };
    let era = Era::clone(&thief.identity.era.lock());
    mesh.keep(thief.identity.seal_keystore(&of_thief, &era, 1_000).unwrap());
    let third = arrive(&mesh, c.path(), 3);
    assert_eq!((third.id, found(&third)), (first.id, vec![at("device 1", 1)]));
    let kept = third.identity.keystore().keystore();
    assert!(kept.main == first.id && kept.volumes.contains(&first.id) && kept.share(first.id).is_none());
    // And nobody takes it over who has a main volume.
    confirm(&first).unwrap();
    let kept = first.identity.keystore().keystore();
    assert!(kept.main == first.id && kept.share(first.id).is_none());
}

/// It was the only device that was left, and nothing replaces what it has put there.
#[test]
fn the_words_recover_past_what_a_thief_has_put_in_the_place_of_the_keystore() {
    let (junk, words) = (Door { roster: [7; 32], end: [8; 32] }, sealing::recipient(&phrase().opening_key()).unwrap());
    let others = crate::keystore::Keystore::fixed(IdentityId([9; 32]), words);
    let sealed = |plain: &[u8]| Notice::Here(sealing::seal(&[words], plain).unwrap());
    for spoilt in
        [Notice::Ended(junk), Notice::Here(vec![9; 40]), sealed(b"no keystore"), sealed(&codec::encode(&others))]
    {
        let mesh = Mesh::new(5);
        let (a, b, c) = (dir(), dir(), dir());
        let thief = mesh.volume(a.path(), 1);
        publish(&thief, 1).unwrap();
        let place = thief.identity.era.lock().keystore();
        mesh.keep(spoilt.publish(&place, &place.sealing_key(), LAST - 1).unwrap());
        let refused = by_phrase(&mesh.peers(), &phrase(), &keys(2), "mine", false, &mut |_| {}).map(drop).unwrap_err();
        assert!(refused.to_string().contains("--without-keystore"), "{refused}");
        let arrived = by_phrase(&mesh.peers(), &phrase(), &keys(2), "mine", true, &mut |_| {}).unwrap();
        assert!(arrived.warning.as_ref().unwrap().contains("hn device revoke NAME --phrase"));
        let mine = mesh.arrived(b.path(), 2, arrived);
        confirm(&mine).unwrap();
        assert_eq!((mine.id, number(&mine), found(&mine)), (thief.id, 1, vec![at("device 1", 1)]), "{spoilt:?}");
        mine.revoke_device(&|| Ok(vec![]), "device 1", true, Some(&phrase())).unwrap();
        publish(&mine, 2).unwrap();
        assert!(matches!(confirm(&thief), Err(PortError::Superseded(_))));
        // What is in its place now is whole.
        let fresh = by_phrase(&mesh.peers(), &phrase(), &keys(3), "fresh", false, &mut |_| {}).unwrap();
        assert_eq!(fresh.warning, None);
        let fresh = mesh.arrived(c.path(), 3, fresh);
        assert_eq!(names(&confirm(&fresh).unwrap()), ["mine", "fresh"]);
    }
}

/// What a newer program has written is whole, and says more than is understood here.
#[test]
fn nothing_takes_the_place_of_what_a_newer_program_has_written() {
    let newer = |mut bytes: Vec<u8>| {
        bytes[1] += 1;
        bytes
    };
    for is_list in [true, false] {
        let mesh = Mesh::new(5);
        let home = dir();
        let mine = mesh.volume(home.path(), 1);
        publish(&mine, 1).unwrap();
        let (era, key) = (Era::clone(&mine.identity.era.lock()), roster_sealing_key(&mine.identity.id()));
        let (place, written) = match is_list {
            true => (era.roster(), newer(mine.identity.known.lock().posting.encode())),
            false => {
                let plain = newer(codec::encode(&mine.identity.keystore().keystore()));
                let words = sealing::recipient(&phrase().opening_key()).unwrap();
                let opens = sealing::recipient(&era.opening_key()).unwrap();
                (era.keystore(), sealing::seal(&[words, opens], &plain).unwrap())
            }
        };
        let key = if is_list { key } else { place.sealing_key() };
        let there = Notice::Here(written).publish(&place, &key, 1_000).unwrap();
        mesh.keep(there.clone());
        let told = confirm(&mine).unwrap_err();
        assert!(matches!(told, PortError::Newer(_)) && told.to_string().contains("update it"), "{told:?}");
        assert_eq!(mesh.peers().lookup(place.record_key()).unwrap(), Some(there));
        let found = by_phrase(&mesh.peers(), &phrase(), &keys(2), "new", false, &mut |_| {});
        assert!(matches!(found.map(drop), Err(PortError::Newer(_))));
    }
}

/// It has the keys of the era that has ended, and a peer of its own is asked first.
#[test]
fn a_device_that_was_taken_off_and_a_peer_that_lies_keep_the_words_from_nothing() {
    let mesh = Mesh::new(5);
    let (a, b, c) = (dir(), dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let thief = arrive(&mesh, b.path(), 2);
    let era = Era::clone(&thief.identity.era.lock());
    first.identity.revoke(&thief.device.id()).unwrap();
    let (key, junk) = (roster_sealing_key(&phrase().id()), Door { roster: [7; 32], end: [8; 32] });
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.roster(), &key, LAST - 1).unwrap());
    mesh.lie(Notice::Ended(junk).publish(&era.end(), &key, 0).unwrap());
    confirm(&first).unwrap();
    publish(&first, 2).unwrap();
    let third = arrive(&mesh, c.path(), 3);
    assert_eq!(names(&third.identity.roster()), ["device 1", "device 3"]);
    assert_eq!(found(&third), [at("device 1", 2)]);
    publish(&third, 3).unwrap();
}

/// What a node finds of what it has put there itself says nothing of what others find.
#[test]
fn a_way_that_only_this_node_knows_is_none() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    let second = arrive(&mesh, b.path(), 2);
    let era = Era::clone(&first.identity.era.lock());
    first.identity.revoke(&second.device.id()).unwrap();
    confirm(&first).unwrap();
    mesh.set_unheard(era.end().record_key(), true);
    let told = confirm(&first).unwrap_err();
    assert!(told.to_string().contains("the way to both is kept by 0 peers"), "{told}");
    // Others keep another end, and the list of devices leads past that.
    let (key, junk) = (roster_sealing_key(&phrase().id()), Door { roster: [7; 32], end: [8; 32] });
    mesh.lie(Notice::Ended(junk).publish(&era.end(), &key, 0).unwrap());
    confirm(&first).unwrap();
    // Until somebody who has its keys spoils that, too.
    mesh.keep(Notice::Here(vec![9; 40]).publish(&era.roster(), &key, LAST - 1).unwrap());
    let told = confirm(&first).unwrap_err();
    assert!(told.to_string().contains("hn device renew"), "{told}");
    // The words do not go that way any more.
    first.renew(&phrase()).unwrap();
    confirm(&first).unwrap();
    publish(&first, 2).unwrap();
}

/// Each gets to hear that it is out, or goes on alone, and none goes on as if nothing had happened.
#[test]
fn of_two_that_take_each_other_off_at_once_whoever_is_out_is_told_so() {
    let mesh = Mesh::new(5);
    let (a, b) = (dir(), dir());
    let first = mesh.volume(a.path(), 1);
    publish(&first, 1).unwrap();
    drop(arrive(&mesh, b.path(), 2));
    confirm(&first).unwrap();
    let other = mesh.split(5);
    let second = other.volume(b.path(), 2);
    first.identity.revoke(&second.device.id()).unwrap();
    second.identity.revoke(&first.device.id()).unwrap();
    drop(second);
    mesh.join(&other);
    let second = mesh.volume(b.path(), 2);
    let mut said = Vec::new();
    for _ in 0..2 {
        said = Vec::from([&first, &second].map(|volume| confirm(volume)));
    }
    let is_out = |one: &Result<Roster, PortError>| matches!(one, Err(PortError::Superseded(_)));
    let listed: Vec<&str> = said.iter().flatten().flat_map(names).collect();
    assert!(said.iter().any(is_out) && said.iter().all(|one| one.is_ok() || is_out(one)), "{said:?}");
    assert_eq!(listed.len(), said.iter().filter(|one| one.is_ok()).count(), "{said:?}");
    // The words bring either back.
    for volume in [&first, &second] {
        volume.renew(&phrase()).unwrap();
        publish(volume, 9).unwrap();
    }
}

use proptest::prelude::*;

use super::*;
use crate::key::{DeviceKeys, RecoveryKeys, Secret};

const SEALED_TO: Option<Recipient> = Some(Recipient::X25519([7; 32]));

fn phrase() -> RecoveryKeys {
    RecoveryKeys::new(&[1; 64])
}

fn keys(device: u8) -> DeviceKeys {
    DeviceKeys::new(Secret::new([device; 32]))
}

fn id(device: u8) -> DeviceId {
    keys(device).id()
}

fn enrol(device: u8) -> Change {
    Change::Enrol(Device {
        id: id(device),
        recipient: Recipient::X25519([device; 32]),
        name: format!("device {device}"),
    })
}

fn revoke(device: u8) -> Change {
    Change::Revoke(id(device))
}

fn at(millis: u64) -> Hlc {
    Hlc { millis, counter: 0 }
}

/// What every holder of keys can do.
trait Changes {
    fn by_phrase(&mut self, millis: u64, change: Change) -> Result<EntryId, LogError>;
    fn by(&mut self, device: u8, change: Change) -> Result<EntryId, LogError>;
    fn listed(&self) -> Vec<DeviceId>;
}

fn recipient(log: &Log, change: &Change) -> Option<Recipient> {
    let needed = log.entries.is_empty() || matches!(change, Change::Revoke(_));
    if needed { SEALED_TO } else { None }
}

impl Changes for Log {
    fn by_phrase(&mut self, millis: u64, change: Change) -> Result<EntryId, LogError> {
        let to = recipient(self, &change);
        self.change(Author::Phrase, &phrase().signing_key(), at(millis), change, to)
    }

    fn by(&mut self, device: u8, change: Change) -> Result<EntryId, LogError> {
        let to = recipient(self, &change);
        self.change(Author::Device(id(device)), &keys(device).signing_key(), at(5), change, to)
    }

    fn listed(&self) -> Vec<DeviceId> {
        self.roster().devices.iter().map(|device| device.id).collect()
    }
}

/// A log in which the phrase has enrolled device 1, and each device the next one.
fn begun(devices: u8) -> Log {
    let mut log = Log::new(phrase().id());
    log.by_phrase(1, enrol(1)).unwrap();
    for device in 2..=devices {
        log.by(device - 1, enrol(device)).unwrap();
    }
    log
}

fn refused(result: Result<EntryId, LogError>) -> Refused {
    match result {
        Err(LogError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[test]
fn devices_come_and_go_by_those_on_the_list() {
    let mut log = begun(3);
    assert_eq!(log.listed(), [id(1), id(2), id(3)]);
    log.by(3, revoke(1)).unwrap();
    assert_eq!(log.listed(), [id(2), id(3)]);
    assert_eq!(log.roster().revoked[0].id, id(1));
    assert_eq!(refused(log.by(1, enrol(4))), Refused::Stranger);
    assert_eq!(refused(log.by(2, enrol(3))), Refused::Taken);
    assert_eq!(refused(log.by(2, enrol(1))), Refused::Revoked);
    assert_eq!(refused(log.by(2, revoke(9))), Refused::Unknown);
    log.by(2, revoke(2)).unwrap();
    assert_eq!(refused(log.by(3, revoke(3))), Refused::Last);
    log.by_phrase(2, enrol(1)).unwrap();
    assert_eq!(log.listed(), [id(3), id(1)]);
    assert!(log.lost().is_empty());
}

#[test]
fn a_list_begins_by_the_phrase_and_with_whom_to_seal_to() {
    let mut log = Log::new(phrase().id());
    assert_eq!(log.roster().devices, []);
    assert_eq!(refused(log.by(1, enrol(1))), Refused::Stranger);
    let key = phrase().signing_key();
    assert_eq!(refused(log.change(Author::Phrase, &key, at(1), enrol(1), None)), Refused::Recipient);
    log.change(Author::Phrase, &key, at(1), enrol(1), SEALED_TO).unwrap();
    assert_eq!(refused(log.change(Author::Phrase, &key, at(2), enrol(2), SEALED_TO)), Refused::Recipient);
    log.change(Author::Phrase, &key, at(2), enrol(2), None).unwrap();
    assert_eq!(refused(log.change(Author::Phrase, &key, at(3), revoke(2), None)), Refused::Recipient);
    let next = Some(Recipient::X25519([8; 32]));
    log.change(Author::Phrase, &key, at(3), revoke(2), next).unwrap();
    assert_eq!(log.roster().recipient, next);
}

#[test]
fn a_name_has_its_length_and_a_list_its_room() {
    let mut log = begun(1);
    for name in [String::new(), "x".repeat(DEVICE_NAME_MAX + 1)] {
        let device = Device { id: id(2), recipient: Recipient::X25519([2; 32]), name };
        assert_eq!(refused(log.by(1, Change::Enrol(device))), Refused::Name);
    }
    let mut log = begun(DEVICES_MAX as u8);
    assert_eq!(refused(log.by(1, enrol(200))), Refused::Crowded);
}

#[test]
fn nobody_signs_for_another() {
    let mut log = begun(2);
    let key = keys(2).signing_key();
    assert_eq!(log.change(Author::Device(id(1)), &key, at(1), enrol(3), None), Err(LogError::Signature));
    assert_eq!(log.change(Author::Phrase, &key, at(1), enrol(3), None), Err(LogError::Signature));
    // Nor does what was signed for one identity count for another.
    let mut other = Log::new(RecoveryKeys::new(&[2; 64]).id());
    assert_eq!(other.take(log.entries.values().cloned().collect()), Err(LogError::Signature));
    assert_eq!(Log::decode(&log.encode(), &other.identity), Err(LogError::Identity));
    assert_eq!(other.merge(&log), Err(LogError::Identity));
    let bytes = log.encode();
    assert_eq!(Log::decode(&bytes, &log.identity).unwrap(), log);
    for i in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[i] ^= 1;
        assert!(Log::decode(&bent, &log.identity).is_err(), "flip at {i} went unnoticed");
    }
}

#[test]
fn of_two_that_revoke_each_other_the_older_stays_until_the_phrase_says_otherwise() {
    let (mut one, mut two) = (begun(2), begun(2));
    one.by(1, revoke(2)).unwrap();
    two.by(2, revoke(1)).unwrap();
    let mut both = two.clone();
    assert!(both.merge(&one).unwrap());
    one.merge(&two).unwrap();
    assert_eq!((one.listed(), &one), (vec![id(1)], &both));
    assert_eq!(one.lost().len(), 1, "what the younger one signed is told");
    assert_eq!(refused(both.by(2, enrol(3))), Refused::Stranger);
    // The older one was the thief's.
    both.by_phrase(9, enrol(3)).unwrap();
    both.by(3, revoke(1)).unwrap();
    both.by_phrase(10, enrol(2)).unwrap();
    assert_eq!(both.listed(), [id(3), id(2)]);
}

#[test]
fn who_was_revoked_by_an_older_device_or_the_phrase_comes_back_by_no_trick() {
    let before = begun(3);
    let mut log = before.clone();
    log.by(1, revoke(2)).unwrap();
    // It says that it had not heard of it yet, and goes on long after.
    let mut thief = before.clone();
    thief.by(2, enrol(66)).unwrap();
    thief.by(66, revoke(1)).unwrap();
    thief.by(2, revoke(3)).unwrap();
    log.merge(&thief).unwrap();
    assert_eq!(log.listed(), [id(1), id(3)]);
    // The oldest device is the thief's: it wins against the others, and not against the phrase.
    let mut log = before.clone();
    log.by(2, revoke(1)).unwrap();
    let mut thief = before.clone();
    thief.by(1, revoke(2)).unwrap();
    log.merge(&thief).unwrap();
    assert_eq!(log.listed(), [id(1), id(3)]);
    log.by_phrase(5, revoke(1)).unwrap();
    thief.by(1, enrol(67)).unwrap();
    thief.by(67, revoke(3)).unwrap();
    log.merge(&thief).unwrap();
    assert_eq!(log.listed(), [id(3)]);
}

#[test]
fn a_clock_that_was_wrong_keeps_nobody_from_changing_the_list() {
    let mut log = begun(2);
    let end = Hlc { millis: u64::MAX, counter: 7 };
    log.change(Author::Device(id(2)), &keys(2).signing_key(), end, enrol(3), None).unwrap();
    log.by(1, revoke(3)).unwrap();
    log.by_phrase(0, revoke(2)).unwrap();
    log.by_phrase(0, enrol(4)).unwrap();
    assert_eq!(log.listed(), [id(1), id(4)]);
}

#[test]
fn a_list_that_was_changed_too_often_is_begun_anew_by_the_phrase() {
    let mut log = begun(2);
    for _ in 0..(ROSTER_ENTRIES_MAX - 2) / 2 {
        log.by_phrase(1, revoke(2)).unwrap();
        log.by_phrase(1, enrol(2)).unwrap();
    }
    assert_eq!(log.by(1, enrol(3)), Err(LogError::Full));
    assert!(Log::decode(&log.encode(), &log.identity).is_ok(), "{} bytes", log.encode().len());
    log.change(Author::Phrase, &phrase().signing_key(), at(2), enrol(4), SEALED_TO).unwrap();
    assert_eq!(log.listed(), [id(4)]);
    let back = Log::decode(&log.encode(), &log.identity);
    assert_eq!(back.unwrap().listed(), [id(4)]);
}

/// Something that happens among people and machines that do not all hear of one another.
#[derive(Clone, Debug)]
enum Event {
    Change { author: u8, enrols: bool, device: u8 },
    Phrase { at: u8, enrols: bool, device: u8 },
    Hears { who: u8, of: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let who = || 1..=5u8;
    prop_oneof![
        6 => (who(), any::<bool>(), who()).prop_map(|(author, enrols, device)| Event::Change { author, enrols, device }),
        1 => (who(), any::<bool>(), who()).prop_map(|(at, enrols, device)| Event::Phrase { at, enrols, device }),
        3 => (who(), who()).prop_map(|(who, of)| Event::Hears { who, of }),
    ]
}

proptest! {
    #[test]
    fn whoever_heard_of_the_same_changes_has_the_same_list(
        events in prop::collection::vec(event(), 0..60),
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut logs = vec![begun(2); 5];
        let (mut phrases, mut newest) = (1, None);
        for event in events {
            let change = |enrols, device| if enrols { enrol(device) } else { revoke(device) };
            match event {
                Event::Change { author, enrols, device } => {
                    let log = &mut logs[usize::from(author) - 1];
                    let was_listed = log.listed().contains(&id(author));
                    let done = log.by(author, change(enrols, device));
                    prop_assert!(was_listed || done.is_err(), "a stranger has changed the list");
                }
                Event::Phrase { at, enrols, device } => {
                    phrases += 1;
                    let log = &mut logs[usize::from(at) - 1];
                    if let Ok(entry) = log.by_phrase(phrases, change(enrols, device)) {
                        newest = Some(entry);
                    }
                }
                Event::Hears { who, of } => {
                    let other = logs[usize::from(of) - 1].clone();
                    logs[usize::from(who) - 1].merge(&other).unwrap();
                }
            }
        }
        let mut all = Log::new(phrase().id());
        for log in &logs {
            all.merge(log).unwrap();
        }
        let mut other = Log::new(phrase().id());
        for i in order {
            let heard = Log::decode(&logs[i].encode(), &other.identity).unwrap();
            other.merge(&heard).unwrap();
            other.merge(&heard).unwrap();
        }
        prop_assert_eq!(all.roster(), other.roster());
        let (roster, counting) = all.resolve();
        prop_assert!(newest.is_none_or(|newest| counting.contains(&newest)), "the phrase was not obeyed");
        prop_assert_eq!(roster.length, counting.len());
        let both = roster.devices.iter().filter(|device| roster.revoked.contains(device)).count();
        prop_assert_eq!(both, 0);
    }
}

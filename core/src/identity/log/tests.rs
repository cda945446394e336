use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::key::{DeviceKeys, RecoveryKeys, Secret};

/// An era that nobody has named.
fn new_era() -> Option<NewEra> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut way = [0; 32];
    way[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Some(NewEra { recipient: Recipient::X25519([7; 32]), way })
}

fn phrase() -> RecoveryKeys {
    RecoveryKeys::new(&[1; 64])
}

fn keys(device: u8) -> DeviceKeys {
    DeviceKeys::new(Secret::new([device; 32]))
}

fn id(device: u8) -> DeviceId {
    keys(device).id()
}

fn named(device: u8, name: String) -> Device {
    let recipient = Recipient::X25519([device; 32]);
    Device::sign(&phrase().id(), &keys(device).signing_key(), recipient, name, [device; 32])
}

fn enrol(device: u8) -> Change {
    Change::Enrol(named(device, format!("device {device}")))
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

fn era(log: &Log, change: &Change) -> Option<NewEra> {
    let needed = log.is_empty() || !matches!(change, Change::Enrol(_));
    if needed { new_era() } else { None }
}

impl Changes for Log {
    fn by_phrase(&mut self, millis: u64, change: Change) -> Result<EntryId, LogError> {
        let era = era(self, &change);
        self.change(Author::Phrase, &phrase().signing_key(), at(millis), change, era)
    }

    fn by(&mut self, device: u8, change: Change) -> Result<EntryId, LogError> {
        let era = era(self, &change);
        self.change(Author::Device(id(device)), &keys(device).signing_key(), at(5), change, era)
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
    assert_eq!(log.roster().gone[0].id, id(1));
    assert_eq!(refused(log.by(1, enrol(4))), Refused::Stranger);
    assert_eq!(refused(log.by(2, enrol(3))), Refused::Taken);
    assert_eq!(refused(log.by(2, enrol(1))), Refused::Revoked);
    assert_eq!(refused(log.by(2, revoke(9))), Refused::Unknown);
    log.by(2, revoke(2)).unwrap();
    assert_eq!(refused(log.by(3, revoke(3))), Refused::Last);
    log.by_phrase(2, enrol(1)).unwrap();
    assert_eq!(log.listed(), [id(3), id(1)]);
    assert_eq!(log.outcome.counting, log.entries.len());
}

#[test]
fn whom_a_device_has_brought_is_known_while_they_are_listed() {
    let mut log = begun(2);
    log.by(2, enrol(3)).unwrap();
    log.by(3, enrol(4)).unwrap();
    let brought = |log: &Log, device| log.brought_by(&id(device)).iter().map(|device| device.id).collect::<Vec<_>>();
    assert_eq!([1, 2, 3, 4].map(|device| brought(&log, device)), [vec![id(2)], vec![id(3)], vec![id(4)], vec![]]);
    // They stay when it goes, and are named still.
    log.by(1, revoke(2)).unwrap();
    assert_eq!(brought(&log, 2), [id(3)]);
    log.by(1, revoke(3)).unwrap();
    assert!(brought(&log, 2).is_empty());
    log.by_phrase(9, enrol(3)).unwrap();
    assert!(brought(&log, 2).is_empty(), "the phrase has brought it");
}

#[test]
fn a_list_begins_by_the_phrase_and_with_an_era() {
    let mut log = Log::new(phrase().id());
    assert_eq!(log.roster().devices, []);
    assert_eq!(refused(log.by(1, enrol(1))), Refused::Beginning);
    let key = phrase().signing_key();
    assert_eq!(refused(log.change(Author::Phrase, &key, at(1), enrol(1), None)), Refused::Era);
    log.change(Author::Phrase, &key, at(1), enrol(1), new_era()).unwrap();
    let me = keys(1).signing_key();
    assert_eq!(refused(log.change(Author::Device(id(1)), &me, at(2), enrol(2), new_era())), Refused::Era);
    log.change(Author::Phrase, &key, at(2), enrol(2), None).unwrap();
    assert_eq!(refused(log.change(Author::Device(id(1)), &me, at(2), Change::Rotate, None)), Refused::Era);
    assert_eq!(refused(log.change(Author::Phrase, &key, at(3), revoke(2), None)), Refused::Era);
    let next = Some(NewEra { recipient: Recipient::X25519([8; 32]), way: [2; 32] });
    log.change(Author::Phrase, &key, at(3), revoke(2), next).unwrap();
    assert_eq!(log.roster().era, next);
}

/// What a revoked device was told must not come back.
#[test]
fn no_era_is_begun_twice() {
    let mut log = begun(2);
    let first = log.roster().era;
    log.by(1, Change::Rotate).unwrap();
    let second = log.roster().era;
    let (key, now) = (keys(2).signing_key(), at(9));
    let again = log.change(Author::Device(id(2)), &key, now, Change::Rotate, first);
    assert_eq!(again, Err(LogError::Full));
    assert_eq!(log.roster().era, second);
}

#[test]
fn a_name_has_its_length_and_a_list_its_room() {
    let mut log = begun(1);
    let bent = [" laptop", "laptop ", "\u{1b}[2J", "lap\ntop", "pot\u{202e}pal"].map(str::to_owned);
    for name in [String::new(), "x".repeat(DEVICE_NAME_MAX + 1)].into_iter().chain(bent) {
        assert_eq!(refused(log.by(1, Change::Enrol(named(2, name)))), Refused::Name);
    }
    // Whoever has a device fills the list, and the phrase has room all the same.
    let mut log = begun(DEVICES_BY_DEVICES_MAX as u8);
    assert_eq!(refused(log.by(1, enrol(200))), Refused::Crowded);
    let others = DEVICES_MAX as u8 - 1;
    for device in 101..=100 + others {
        log.by_phrase(5, enrol(device)).unwrap();
    }
    assert_eq!(refused(log.by_phrase(5, enrol(200))), Refused::Crowded);
    let listed = log.listed();
    assert!(listed.len() == DEVICES_MAX && (101..=100 + others).all(|device| listed.contains(&id(device))));
    assert_eq!(log.roster().gone.len(), DEVICES_BY_DEVICES_MAX - 1, "nobody is forgotten");
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
    assert_eq!(Log::decode(&log.encode(), &other.identity()), Err(LogError::Identity));
    assert_eq!(other.merge(&log), Err(LogError::Identity));
    let bytes = log.encode();
    assert_eq!(Log::decode(&bytes, &log.identity()).unwrap(), log);
    for i in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[i] ^= 1;
        assert!(Log::decode(&bent, &log.identity()).is_err(), "flip at {i} went unnoticed");
    }
}

#[test]
fn what_is_done_at_once_all_counts() {
    let mut one = begun(4);
    let mut two = one.clone();
    one.by(1, revoke(3)).unwrap();
    one.by(1, enrol(5)).unwrap();
    two.by(2, revoke(4)).unwrap();
    two.by_phrase(9, enrol(6)).unwrap();
    assert!(one.merge(&two).unwrap() && !one.merge(&two).unwrap());
    let mut listed = one.listed();
    listed.sort_unstable();
    let mut expected = [1, 2, 5, 6].map(id);
    expected.sort_unstable();
    assert_eq!(listed, expected);
    // Each has begun an era of which the other has heard nothing.
    assert!(!one.roster().is_sealed_off);
    one.by(2, Change::Rotate).unwrap();
    assert!(one.roster().is_sealed_off);
}

#[test]
fn of_two_that_revoke_each_other_the_one_that_comes_first_stays_until_the_phrase_says_otherwise() {
    let mut one = begun(2);
    let mut two = one.clone();
    one.by(1, revoke(2)).unwrap();
    two.by(2, revoke(1)).unwrap();
    let mut both = two.clone();
    assert!(both.merge(&one).unwrap());
    one.merge(&two).unwrap();
    assert_eq!((one.listed(), &one), (vec![id(1)], &both));
    assert_eq!(refused(both.by(2, enrol(3))), Refused::Stranger);
    // The first one was the thief's. Whoever comes back by the words comes before it.
    both.by_phrase(9, enrol(3)).unwrap();
    let before = both.clone();
    both.by(3, revoke(1)).unwrap();
    both.by_phrase(10, enrol(2)).unwrap();
    assert_eq!(both.listed(), [id(3), id(2)]);
    let mut thief = before;
    thief.by(1, revoke(3)).unwrap();
    both.merge(&thief).unwrap();
    assert_eq!(both.listed(), [id(3), id(2)]);
}

#[test]
fn who_was_revoked_comes_back_by_no_trick() {
    let before = begun(3);
    let mut log = before.clone();
    log.by(1, revoke(2)).unwrap();
    // It says that it had not heard of it yet, and goes on long after.
    let mut thief = before.clone();
    thief.by(2, enrol(66)).unwrap();
    thief.by(66, revoke(1)).unwrap();
    thief.by(2, revoke(3)).unwrap();
    thief.by(66, Change::Rotate).unwrap();
    log.merge(&thief).unwrap();
    // The third was enrolled by it before, and stays.
    assert_eq!(log.listed(), [id(1), id(3)]);
    assert!(log.roster().is_sealed_off);
    // One that comes first wins against the others, and not against the phrase.
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
    // What the phrase has taken off before anybody else heard of it stays off, too.
    let mut log = before.clone();
    log.by(1, revoke(2)).unwrap();
    log.by_phrase(5, revoke(2)).unwrap();
    assert_eq!(log.listed(), [id(1), id(3)]);
}

#[test]
fn nobody_lists_a_device_otherwise_than_it_wants() {
    let mut log = begun(3);
    let theirs = named(2, "device 2".to_owned());
    for forged in [
        Device { recipient: Recipient::X25519([66; 32]), ..theirs.clone() },
        Device { beacon: [66; 32], ..theirs.clone() },
        Device { name: "forged".to_owned(), ..theirs.clone() },
        Device { id: id(4), ..theirs.clone() },
    ] {
        let (author, key) = (Author::Device(id(3)), keys(3).signing_key());
        let previous = log.outcome.tips.clone();
        let change = Change::Enrol(forged);
        let mut entry = Entry { previous, author, time: at(9), change, era: None, signature: [0; 64] };
        entry.signature = key.sign(&entry.signed_bytes(&log.identity())).to_bytes();
        assert_eq!(log.take(vec![entry]), Err(LogError::Signature));
    }
    let other = RecoveryKeys::new(&[2; 64]).id();
    assert_eq!(theirs.verify(&other), Err(LogError::Signature), "nor for somebody else");
}

/// What a thief signs without looking whether it would count.
fn forged(log: &Log, device: u8, change: Change, previous: &[EntryId]) -> Entry {
    let era = if matches!(change, Change::Enrol(_)) { None } else { new_era() };
    let (author, previous) = (Author::Device(id(device)), previous.to_vec());
    let mut entry = Entry { previous, author, time: at(7), change, era, signature: [0; 64] };
    entry.signature = keys(device).signing_key().sign(&entry.signed_bytes(&log.identity())).to_bytes();
    entry
}

#[test]
fn what_does_not_count_gives_nobody_precedence() {
    // 1 enrols 2; 3, which the phrase has brought, enrols 4, which enrols 5.
    let mut log = begun(2);
    log.by_phrase(2, enrol(3)).unwrap();
    log.by(3, enrol(4)).unwrap();
    log.by(4, enrol(5)).unwrap();
    let before = log.clone();
    log.by_phrase(3, revoke(3)).unwrap();
    log.by_phrase(4, revoke(4)).unwrap();
    log.by(2, revoke(5)).unwrap();
    assert_eq!(log.listed(), [id(1), id(2)]);
    let tips = &before.outcome.tips;
    let entries = vec![forged(&before, 3, enrol(5), tips), forged(&before, 5, revoke(2), tips)];
    let sealed_off = log.roster().era;
    log.take(entries).unwrap();
    assert_eq!((log.listed(), log.roster().era), (vec![id(1), id(2)], sealed_off));
}

#[test]
fn the_phrase_is_obeyed_whatever_a_thief_signs_at_once() {
    let mut log = begun(1);
    log.by_phrase(2, enrol(3)).unwrap();
    let tips = log.outcome.tips.clone();
    let many = (0..40).map(|n| {
        let mut entry = forged(&log, 3, revoke(1), &tips);
        entry.time = at(100 + n);
        entry.signature = keys(3)
            .signing_key()
            .sign(&Entry { signature: [0; 64], ..entry.clone() }.signed_bytes(&log.identity()))
            .to_bytes();
        entry
    });
    let many: Vec<Entry> = many.collect();
    log.take(many).unwrap();
    assert_eq!(log.listed(), [id(3)]);
    log.by_phrase(3, enrol(1)).unwrap();
    log.by_phrase(4, revoke(3)).unwrap();
    assert_eq!(log.listed(), [id(1)]);
    // It had signed more than anybody had heard.
    let late: Vec<Entry> = (0..20).map(|n| forged(&log, 3, revoke(1), &tips[..n.min(1)])).collect();
    log.take(late).unwrap();
    assert_eq!(log.listed(), [id(1)]);
    assert!(log.roster().is_sealed_off);
}

#[test]
fn a_clock_that_was_wrong_keeps_nobody_from_changing_the_list() {
    let mut log = begun(2);
    let end = Hlc { millis: u64::MAX, counter: 7 };
    log.change(Author::Device(id(2)), &keys(2).signing_key(), end, enrol(3), None).unwrap();
    log.by(1, revoke(3)).unwrap();
    log.by_phrase(0, revoke(2)).unwrap();
    log.by_phrase(0, enrol(4)).unwrap();
    let mut listed = log.listed();
    listed.sort_unstable();
    let mut expected = [id(1), id(4)];
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[test]
fn a_list_that_is_full_has_room_for_the_phrase_and_is_begun_anew_by_it() {
    let mut log = begun(2);
    while log.by(2, Change::Rotate).is_ok() {}
    assert_eq!(log.outcome.counting, ROSTER_ENTRIES_BY_DEVICES_MAX);
    assert_eq!(log.by(1, revoke(2)), Err(LogError::Full));
    log.by_phrase(1, revoke(2)).unwrap();
    assert_eq!(log.listed(), [id(1)]);
    while log.by_phrase(1, Change::Rotate).is_ok() {}
    assert_eq!(log.by_phrase(1, enrol(3)), Err(LogError::Full));
    let old = log.clone();
    assert!(Log::decode(&log.encode(), &log.identity()).is_ok(), "{} bytes", log.encode().len());
    let begin = log.anew(named(4, "new".to_owned()));
    assert_eq!(refused(log.by(1, begin.clone())), Refused::Beginning);
    log.by_phrase(2, begin).unwrap();
    assert_eq!((log.listed(), log.entries.len()), (vec![id(4)], 1));
    assert!(!log.merge(&old).unwrap(), "what was before is gone");
    let mut gone: Vec<DeviceId> = log.roster().gone.iter().map(|device| device.id).collect();
    gone.sort_unstable();
    let mut expected = vec![id(1), id(2)];
    expected.sort_unstable();
    assert_eq!(gone, expected, "and what those have left is to be found");
    log.by_phrase(3, enrol(1)).unwrap();
    assert_eq!((log.listed(), log.roster().gone.len()), (vec![id(4), id(1)], 1));
    let back = Log::decode(&log.encode(), &log.identity());
    assert_eq!(back.unwrap(), log);
}

#[test]
fn what_matters_most_is_kept_where_there_is_no_room() {
    let before = begun(3);
    let mut log = before.clone();
    log.by(1, revoke(3)).unwrap();
    for n in 0..200 {
        let mut thief = before.clone();
        for m in 0..5 {
            let (key, now) = (keys(3).signing_key(), at(n * 10 + m));
            thief.change(Author::Device(id(3)), &key, now, Change::Rotate, new_era()).unwrap();
        }
        log.merge(&thief).unwrap();
    }
    assert!(log.entries.len() <= ROSTER_ENTRIES_MAX && log.outcome.counting == 4);
    assert_eq!(log.listed(), [id(1), id(2)]);
    log.by(2, enrol(4)).unwrap();
    assert_eq!(log.listed(), [id(1), id(2), id(4)]);
    assert!(Log::decode(&log.encode(), &log.identity()).is_ok(), "{} bytes", log.encode().len());
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

fn change(enrols: bool, device: u8) -> Change {
    if enrols { enrol(device) } else { revoke(device) }
}

/// What five people come to who each have a copy of the log, and what the phrase has said last of each device.
fn live(events: &[Event]) -> (Vec<Log>, BTreeMap<u8, bool>) {
    let mut logs = vec![begun(2); 5];
    let (mut phrases, mut said) = (1, BTreeMap::from([(1, true)]));
    for event in events {
        match *event {
            Event::Change { author, enrols, device } => {
                let log = &mut logs[usize::from(author) - 1];
                let was_listed = log.listed().contains(&id(author));
                let done = log.by(author, change(enrols, device));
                assert!(was_listed || done.is_err(), "a stranger has changed the list");
            }
            Event::Phrase { at, enrols, device } => {
                phrases += 1;
                let done = logs[usize::from(at) - 1].by_phrase(phrases, change(enrols, device));
                if done.is_ok() {
                    said.insert(device, enrols);
                }
            }
            Event::Hears { who, of } => {
                let other = logs[usize::from(of) - 1].clone();
                logs[usize::from(who) - 1].merge(&other).unwrap();
            }
        }
    }
    (logs, said)
}

fn together(logs: &[Log]) -> Log {
    let mut all = Log::new(phrase().id());
    for log in logs {
        all.merge(log).unwrap();
    }
    all
}

/// Whether nobody has revoked a device, nor any of those who have enrolled it, and so on.
fn is_beyond_doubt(log: &Log, device: &DeviceId, depth: u8) -> bool {
    depth > 0
        && log.entries.values().all(|entry| match (&entry.change, &entry.author) {
            (Change::Revoke(one), _) => one != device,
            (Change::Enrol(one), Author::Device(by)) => one.id != *device || is_beyond_doubt(log, by, depth - 1),
            _ => true,
        })
}

proptest! {
    #[test]
    fn whoever_heard_of_the_same_changes_has_the_same_list(
        events in prop::collection::vec(event(), 0..60),
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (logs, said) = live(&events);
        let all = together(&logs);
        let mut other = Log::new(phrase().id());
        for i in order {
            let heard = Log::decode(&logs[i].encode(), &other.identity()).unwrap();
            other.merge(&heard).unwrap();
            other.merge(&heard).unwrap();
        }
        prop_assert_eq!(&all, &other);
        let roster = all.roster();
        for (device, enrols) in said {
            prop_assert!(enrols || roster.device(&id(device)).is_none(), "the phrase was not obeyed");
        }
        // Nothing that counts is lost to something else that happened at the same time.
        for entry in all.entries.values() {
            if let Some(device) = entry.change.enrols() {
                prop_assert!(roster.device(&device.id).is_some() || !is_beyond_doubt(&all, &device.id, 6));
            }
        }
        prop_assert!(roster.devices.iter().all(|device| !roster.gone.contains(device)));
        prop_assert!(all.is_empty() || roster.era.is_some());
    }

    #[test]
    fn what_a_revoked_device_signs_changes_nothing(
        events in prop::collection::vec(event(), 0..40),
        junk in prop::collection::vec((any::<bool>(), any::<bool>(), 1..=5u8), 0..20),
        (thief, stale, by_phrase) in (1..=5u8, 0..5usize, any::<bool>()),
    ) {
        let (logs, _) = live(&events);
        let mut all = together(&logs);
        // By the phrase, or by a device that has just come back by it.
        let done = if by_phrase {
            all.by_phrase(1_000, revoke(thief))
        } else {
            all.by_phrase(1_000, enrol(100)).and_then(|_| all.by(100, revoke(thief)))
        };
        if done.is_err() {
            return Ok(());
        }
        let before = all.clone();
        // It goes on from what anybody knew, together with one that it enrols.
        let mut log = logs[stale].clone();
        let _ = log.by(thief, enrol(66));
        for (other, enrols, device) in junk {
            let _ = log.by(if other { 66 } else { thief }, change(enrols, device));
            let _ = log.by(thief, Change::Rotate);
        }
        all.merge(&log).unwrap();
        let ids = |log: &Log| log.listed().into_iter().collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(ids(&all), ids(&before));
        prop_assert_eq!(all.roster().era, before.roster().era);
        prop_assert!(all.roster().is_sealed_off);
    }
}

#[test]
fn a_device_is_meant_by_its_name_or_as_much_of_its_id_as_no_other_has() {
    let device = |begins: [u8; 5], name: &str| {
        let mut id = [7; 32];
        id[..5].copy_from_slice(&begins);
        Device { id: DeviceId(id), ..named(1, name.to_owned()) }
    };
    let (one, other) = (device([1, 2, 3, 4, 5], "laptop"), device([1, 2, 3, 4, 6], "desk"));
    let alone = device([9; 5], "phone");
    // Whoever is on the list can call a device of theirs as they like.
    let posing = device([8; 5], "0909090909");
    let all = [one.clone(), other.clone(), alone.clone(), posing.clone()];
    let meant = |name: &str| among(&all, name);
    assert_eq!([meant("laptop"), meant("0102030405"), meant("0102030406")], [Ok(&one), Ok(&one), Ok(&other)]);
    assert_eq!([meant("phone"), meant("09090909"), meant("08080808")], [Ok(&alone), Ok(&alone), Ok(&posing)]);
    assert_eq!(meant(&alone.id.to_string()), Ok(&alone));
    let ids = |name: &str| match meant(name) {
        Err(NameError::Ambiguous { ids, .. }) => ids,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(ids("01020304"), "0102030405, 0102030406");
    assert_eq!(ids("0909090909"), "09090909, 08080808");
    for name in ["0102030", "lap", ""] {
        assert!(matches!(meant(name), Err(NameError::Unknown { .. })), "{name}");
    }
}

//! What a keeper without room for all records keeps.

use ed25519_dalek::SigningKey;

use super::super::{Command, InboundId, Input, Node, NodeConfig, Now};
use super::*;
use crate::port::StoreReply;
use crate::quota::{Quota, Used};
use crate::time::UnixSeconds;

/// Half of the keys.
fn is_near(key: &RecordKey) -> bool {
    key.0[0] < 0x80
}

/// A node whose distance from a record is the record's key.
struct Keeper {
    node: Node,
    now: Now,
    keys: u64,
    served: BTreeSet<RecordKey>,
}

impl Keeper {
    fn new() -> Self {
        let config = NodeConfig::new(PeerId([0; 32]), |_, key| key.0, Quota::default(), Used::default());
        let now = Now { mono: Instant(1), unix: UnixSeconds(1_000_000) };
        Self { node: Node::new(config), now, keys: 0, served: BTreeSet::new() }
    }

    fn step(&mut self, input: Input) -> Option<Response> {
        let mut answer = None;
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.node.step(self.now, input) {
                match effect {
                    Effect::Reply { response, .. } => answer = Some(response),
                    Effect::Store { id, .. } => {
                        inputs.push(Input::Stored { id, reply: StoreReply::Done { used: Used::default() } })
                    }
                    Effect::KeepRecord { key, .. } => drop(self.served.insert(key)),
                    Effect::DropRecord { key } => assert!(self.served.remove(&key), "dropped and never kept"),
                    _ => {}
                }
            }
        }
        assert!(self.served.len() <= RECORDS_HELD_MAX && self.served.len() == self.node.records_held());
        answer
    }

    /// A record of a signer nobody has seen before.
    fn record(&mut self, wanted: impl Fn(&RecordKey) -> bool) -> Record {
        loop {
            self.keys += 1;
            let secret = blake3::hash(&self.keys.to_be_bytes());
            let record = Record::sign(&SigningKey::from_bytes(secret.as_bytes()), 1, b"x".to_vec()).unwrap();
            if wanted(&record.key()) {
                return record;
            }
        }
    }

    fn bring(&mut self, from: u64, record: &Record) -> Response {
        let mut peer = PeerId([0xff; 32]);
        peer.0[..8].copy_from_slice(&from.to_be_bytes());
        let request = Request::Record { bytes: codec::encode(record).into() };
        self.step(Input::Request { peer, inbound: InboundId(1), request }).unwrap()
    }
}

const CROWDED: Response = Response::Refused(Refusal::Crowded);

#[test]
fn junk_of_thousands_of_signers_takes_no_near_records_place() {
    let mut keeper = Keeper::new();
    let far = |key: &RecordKey| !is_near(key);
    // What this node itself published is far away, and came first.
    let own = keeper.record(|key| key.0[0] == 0xff);
    keeper.step(Input::Command { id: CommandId(1), command: Command::Publish { record: own.clone(), enough: 1 } });
    let mut near = Vec::new();
    for from in 0..50 {
        let record = keeper.record(is_near);
        assert_eq!(keeper.bring(1_000 + from, &record), Response::Ok);
        near.push(record.key());
    }
    for i in 0..RECORDS_HELD_MAX as u64 + 500 {
        let junk = keeper.record(far);
        keeper.bring(i % 20, &junk);
    }
    assert_eq!(keeper.served.len(), RECORDS_HELD_MAX);
    // Near ones find a place when all is full, and then too it is junk that goes.
    for from in 50..100 {
        let record = keeper.record(is_near);
        assert_eq!(keeper.bring(1_000 + from, &record), Response::Ok);
        near.push(record.key());
    }
    assert!(near.iter().all(|key| keeper.served.contains(key)) && keeper.served.contains(&own.key()));
    let last = keeper.served.iter().copied().filter(|key| *key != own.key()).max().unwrap();
    let farthest = keeper.record(|key| *key > last);
    assert_eq!(keeper.bring(1_500, &farthest), CROWDED);
    assert!(!keeper.served.contains(&farthest.key()));
}

#[test]
fn a_sender_with_ever_more_near_records_displaces_no_more_than_its_share() {
    let mut keeper = Keeper::new();
    let mut others = Vec::new();
    for i in 0..RECORDS_HELD_MAX as u64 {
        let record = keeper.record(|key| !is_near(key));
        assert_eq!(keeper.bring(1_000 + i % 100, &record), Response::Ok);
        others.push(record.key());
    }
    let mut taken = 0;
    for _ in 0..RECORDS_PER_SENDER_HOUR {
        let record = keeper.record(is_near);
        taken += usize::from(keeper.bring(1, &record) == Response::Ok);
    }
    assert!(taken > RECORDS_PER_SENDER_HELD, "nearer ones of its own take the place of its farther ones");
    let left = others.iter().filter(|key| keeper.served.contains(*key)).count();
    assert_eq!(left, RECORDS_HELD_MAX - RECORDS_PER_SENDER_HELD);
    // Somebody else is still heard.
    let record = keeper.record(is_near);
    assert_eq!(keeper.bring(2, &record), Response::Ok);
}

#[test]
fn what_is_too_much_after_a_start_leaves_the_disk_as_well() {
    let mut keeper = Keeper::new();
    let near: Vec<Record> = (0..10).map(|_| keeper.record(is_near)).collect();
    for _ in 0..RECORDS_HELD_MAX {
        let record = keeper.record(|key| !is_near(key));
        keeper.step(Input::RecordHeld { bytes: codec::encode(&record) });
    }
    for record in &near {
        keeper.step(Input::RecordHeld { bytes: codec::encode(record) });
    }
    assert!(near.iter().all(|record| keeper.served.contains(&record.key())));
    let last = keeper.served.last().copied().unwrap();
    let farthest = keeper.record(|key| *key > last);
    let effects = keeper.node.step(keeper.now, Input::RecordHeld { bytes: codec::encode(&farthest) });
    assert!(matches!(effects[..], [Effect::DropRecord { key }] if key == farthest.key()), "{effects:?}");
}

#[test]
fn what_this_node_looked_for_stays_whatever_comes_later() {
    let mut keeper = Keeper::new();
    let (brought, sought) = (keeper.record(|key| key.0[0] == 0xff), keeper.record(|key| key.0[0] == 0xff));
    assert_eq!(keeper.bring(1, &brought), Response::Ok);
    for record in [&brought, &sought] {
        let command = Command::Lookup(record.key());
        let effects = keeper.node.step(keeper.now, Input::Command { id: CommandId(1), command });
        let [Effect::FindRecord { id, .. }] = effects[..] else { panic!("{effects:?}") };
        keeper.step(Input::RecordFound { id, records: vec![codec::encode(record)], answers: 1 });
    }
    for i in 0..RECORDS_HELD_MAX as u64 + 10 {
        let record = keeper.record(is_near);
        assert_eq!(keeper.bring(1_000 + i % 100, &record), Response::Ok);
    }
    assert!(keeper.served.contains(&brought.key()) && keeper.served.contains(&sought.key()));
}

#[test]
fn what_could_not_be_served_or_dropped_is_said_again_as_it_is_by_then() {
    let mut keeper = Keeper::new();
    let (held, dropped) = (keeper.record(|_| true), keeper.record(|_| true).key());
    keeper.bring(1, &held);
    let later = |keeper: &mut Keeper, key| {
        // Twice refused, said again once, in its time.
        for _ in 0..2 {
            assert!(keeper.node.step(keeper.now, Input::NotServed { key }).is_empty());
        }
        keeper.now.mono = keeper.now.mono.after(SERVE_AGAIN);
        keeper.node.step(keeper.now, Input::Tick)
    };
    let effects = later(&mut keeper, held.key());
    let kept = codec::encode(&held);
    assert!(matches!(&effects[..], [Effect::KeepRecord { key, bytes }] if *key == held.key() && *bytes == kept));
    let effects = later(&mut keeper, dropped);
    assert!(matches!(&effects[..], [Effect::DropRecord { key }] if *key == dropped));
}

#[test]
fn of_last_records_that_differ_all_are_told_of_and_the_one_that_is_here_first() {
    let mut keeper = Keeper::new();
    let key = SigningKey::from_bytes(&[3; 32]);
    let sign = |sequence, text: u8| Record::sign(&key, sequence, vec![text]).unwrap();
    let mut look = |records: &[Record]| {
        let command = Command::Lookup(records[0].key());
        let effects = keeper.node.step(keeper.now, Input::Command { id: CommandId(1), command });
        let [Effect::FindRecord { id, .. }] = effects[..] else { panic!("{effects:?}") };
        let records = records.iter().map(codec::encode).collect();
        let effects = keeper.node.step(keeper.now, Input::RecordFound { id, records, answers: 1 });
        let found = effects.into_iter().find_map(|effect| match effect {
            Effect::Finished { outcome: Outcome::Found { record, others, .. }, .. } => Some((record.unwrap(), others)),
            _ => None,
        });
        found.unwrap()
    };
    // Others are in order.
    assert_eq!(look(&[sign(1, 1), sign(2, 2), sign(2, 3)]), (sign(2, 2), vec![]));
    assert_eq!(look(&[sign(3, 1), sign(LAST, 2), sign(4, 1), sign(LAST, 3)]), (sign(LAST, 2), vec![sign(LAST, 3)]));
    assert_eq!(look(&[sign(LAST, 3), sign(LAST, 2), sign(LAST, 3)]), (sign(LAST, 2), vec![sign(LAST, 3)]));
    let many: Vec<Record> = (3..100).map(|text| sign(LAST, text)).collect();
    assert_eq!(look(&many).1.len(), RECORD_LASTS_MAX);
}

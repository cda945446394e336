//! Who hears of a record when it changes.

use ed25519_dalek::SigningKey;

use super::*;
use crate::codec;
use crate::limits::{WATCHERS_PER_RECORD, WATCHES_PER_PEER};

fn record(sequence: u64) -> Record {
    Record::sign(&SigningKey::from_bytes(&[7; 32]), sequence, vec![sequence as u8]).unwrap()
}

fn publish(world: &mut World, at: usize, sequence: u64) {
    let outcome = world.command(at, Command::Publish { record: record(sequence), enough: 1 });
    assert!(matches!(outcome, Outcome::Published { .. }), "{outcome:?}");
}

/// How often one was told of the record since it was asked last.
fn told(world: &mut World, at: usize) -> usize {
    let all = world.changed.len();
    world.changed.retain(|(to, _)| *to != at);
    all - world.changed.len()
}

#[test]
fn whoever_watches_a_record_hears_of_each_change_and_no_longer_than_that() {
    let mut world = World::new(6);
    publish(&mut world, 0, 1);
    assert_eq!(world.command(5, Command::Watch(vec![record(1).key()])), Outcome::Watching);
    world.run(10);
    // What there is already it hears of, too: it may have looked before that came.
    told(&mut world, 5);
    for sequence in 2..5 {
        publish(&mut world, 0, sequence);
        assert!(told(&mut world, 5) >= 1, "{sequence}");
    }
    // For as long as it wants to.
    world.run(400_000);
    told(&mut world, 5);
    publish(&mut world, 0, 5);
    assert!(told(&mut world, 5) >= 1);
    assert_eq!(world.command(5, Command::Watch(Vec::new())), Outcome::Watching);
    world.run(200_000);
    publish(&mut world, 0, 6);
    world.run(100);
    assert_eq!(told(&mut world, 5), 0);
}

#[test]
fn a_watcher_that_does_not_answer_is_sent_one_at_a_time_and_then_the_newest() {
    let mut world = World::new(3);
    publish(&mut world, 0, 1);
    let (key, keeper, watcher) = (record(1).key(), 1, 2);
    world.queue.push_back((
        keeper,
        Input::Request { peer: peer(watcher), inbound: InboundId(u64::MAX), request: Request::Watch { key } },
    ));
    world.inbound.insert(u64::MAX, (watcher, RequestId(u64::MAX), Instant(u64::MAX)));
    world.settle();
    world.manners[watcher] = Manner::Silent;
    world.sent.clear();
    for sequence in 2..50 {
        let bytes = Bytes::from(codec::encode(&record(sequence)));
        let (peer, inbound) = (peer(0), InboundId(1_000_000 + sequence));
        world.inbound.insert(inbound.0, (0, RequestId(u64::MAX), Instant(u64::MAX)));
        world.queue.push_back((keeper, Input::Request { peer, inbound, request: Request::Record { bytes } }));
        world.settle();
    }
    let sent = |world: &World| -> Vec<Bytes> {
        let all = world.sent.iter().filter(|(to, _)| *to == watcher);
        all.filter_map(|(_, request)| match request {
            Request::Record { bytes } => Some(bytes.clone()),
            _ => None,
        })
        .collect()
    };
    assert_eq!(sent(&world).len(), 1);
    world.manners[watcher] = Manner::Honest;
    world.run(140_000);
    let newest = Bytes::from(codec::encode(&record(49)));
    assert_eq!(sent(&world).last(), Some(&newest));
    // Whoever published the first one hands that on, until it hears of a newer one.
    let first = Bytes::from(codec::encode(&record(1)));
    let others: Vec<Bytes> = sent(&world).into_iter().filter(|bytes| ![&newest, &first].contains(&bytes)).collect();
    assert_eq!(others.len(), 1);
}

#[test]
fn nobody_is_told_of_more_than_there_is_room_for_and_what_is_over_makes_room() {
    let mut node = Node::new(NodeConfig::new(PeerId([0; 32]), metric, Quota::default(), Used::default()));
    let mut now = Now { mono: Instant(1), unix: UnixSeconds(1_000_000) };
    let ask = |node: &mut Node, now: Now, peer: u64, key: u64| {
        let wide = |number: u64| {
            let mut id = [1; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        };
        let request = Request::Watch { key: RecordKey(wide(key)) };
        let effects = node.step(now, Input::Request { peer: PeerId(wide(peer)), inbound: InboundId(1), request });
        effects.into_iter().any(|effect| matches!(effect, Effect::Reply { response: Response::Ok, .. }))
    };
    for key in 0..WATCHES_PER_PEER as u64 {
        assert!(ask(&mut node, now, 1, key));
    }
    assert!(!ask(&mut node, now, 1, u64::MAX));
    assert!(ask(&mut node, now, 1, 0), "once more of the same is no more");
    for peer in 0..WATCHERS_PER_RECORD as u64 {
        assert!(ask(&mut node, now, 1_000 + peer, u64::MAX));
    }
    assert!(!ask(&mut node, now, 2, u64::MAX));
    now.mono = now.mono.after(200_000);
    assert!(ask(&mut node, now, 1, u64::MAX) && ask(&mut node, now, 2, u64::MAX));
}

#[test]
fn what_a_keeper_says_of_a_watched_record_is_believed_by_its_signature_only() {
    let mut world = World::new(3);
    publish(&mut world, 0, 1);
    world.manners[0] = Manner::Liar;
    world.manners[1] = Manner::Liar;
    world.kept[2].clear();
    let before = world.nodes[2].records_held();
    world.command(2, Command::Watch(vec![record(1).key()]));
    world.run(10);
    assert_eq!((told(&mut world, 2), world.nodes[2].records_held()), (0, before));
    assert!(world.nodes[2].peers().iter().any(|view| view.faults > 0));
}

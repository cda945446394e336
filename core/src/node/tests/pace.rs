//! How long a peer is waited for, and how often one is asked that has too much to do.

use super::*;
use crate::limits::{BODIES_IN_FLIGHT, BUSY_ANSWERS_MAX, IN_FLIGHT_PER_PEER, SHARD_MAX};

/// An upload from a home, in bytes per millisecond.
const HOME: u64 = 200;

fn gets(world: &World) -> Vec<usize> {
    world.sent.iter().filter(|(_, request)| matches!(request, Request::Get { .. })).map(|(to, _)| *to).collect()
}

type Homes = (World, Arc<Placement>, Arc<Coded>, Vec<(ExtentRef, Bytes)>);

/// A mesh of peers on slow lines, each of which has sent something once.
fn homes() -> Homes {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    world.manners[1..].fill(Manner::Slow(HOME));
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert!(gets(&world).len() > 6, "a line that nobody knows yet is waited for as ever");
    world.run(20_000);
    world.sent.clear();
    (world, placement, coded, plain)
}

#[test]
fn a_slow_line_is_given_the_time_it_takes() {
    let (mut world, placement, coded, plain) = homes();
    let began = world.now.mono;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert!(world.now.mono.since(began) > 1_500, "the lines are not slow");
    // One request for each of the k rows, and nobody else.
    assert_eq!(gets(&world).len(), 6);
    // Two at once share the line and take twice as long: that is no reason to ask others either.
    world.sent.clear();
    let at = |extent: &ExtentRef| coded.contents.iter().find(|at| at.id == extent.id()).unwrap().offset;
    let wanted: Vec<_> = plain[..6].iter().map(|(extent, _)| (extent.clone(), at(extent))).collect();
    for id in 0..2 {
        let (placement, wanted) = (placement.clone(), wanted.clone());
        let command = Command::Fetch { placement, wanted, around: 0, within: 30_000 };
        world.queue.push_back((0, Input::Command { id: CommandId(id), command }));
    }
    world.run(10_000);
    assert!(world.finished.iter().filter(|(id, _)| id.0 < 2).all(|(_, end)| *end == expect(&plain[..6])));
    let asked = gets(&world);
    assert!(asked.len() == 2 && asked[0] == asked[1], "{asked:?}");
}

#[test]
fn a_slow_line_that_ends_is_not_waited_for_much_longer() {
    let (mut world, placement, coded, plain) = homes();
    for i in [2, 5, 7, 9] {
        world.manners[i] = Manner::Silent;
    }
    let began = world.now.mono;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    // Those that are asked instead may have gone as well, and then there is a third round.
    assert!(world.now.mono.since(began) < 11_000, "it took {} ms", world.now.mono.since(began));
}

#[test]
fn who_crawls_is_passed_over_while_there_are_others() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    let crawler = world.at(placement.holders.iter().find(|holder| holder.row == 0).unwrap().peer);
    world.manners[crawler] = Manner::Slow(40);
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    world.run(30_000);
    world.sent.clear();
    let began = world.now.mono;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert!(world.now.mono.since(began) < 1_000 && !gets(&world).contains(&crawler));
    // Where nobody else has enough of it, it is asked all the same.
    for i in (1..=10).filter(|i| *i != crawler).take(4) {
        world.manners[i] = Manner::Silent;
    }
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn who_is_busy_is_left_alone_for_a_while() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    world.manners[1..].fill(Manner::Busy(u32::MAX));
    world.sent.clear();
    let (extent, _) = &plain[0];
    let at = coded.contents.iter().find(|at| at.id == extent.id()).unwrap();
    for id in 0..200 {
        let wanted = vec![(extent.clone(), at.offset)];
        let command = Command::Fetch { placement: placement.clone(), wanted, around: 0, within: 30_000 };
        world.queue.push_back((0, Input::Command { id: CommandId(id), command }));
    }
    world.run(10_000);
    let asked = (1..=10).map(|i| gets(&world).iter().filter(|to| **to == i).count());
    let most = asked.max().unwrap();
    assert!(most > 100, "nobody was asked again");
    assert!(most <= IN_FLIGHT_PER_PEER * 51, "one peer was asked {most} times in ten seconds");
    world.manners[1..].fill(Manner::Honest);
    world.run(2_000);
    assert!((0..200).all(|id| world.finished.contains(&(CommandId(id), expect(&plain[..1])))));
}

#[test]
fn who_does_not_hear_that_one_is_busy_is_blocked() {
    let mut world = World::new(3);
    let turn_away = |world: &mut World, times: u32| {
        for _ in 0..times {
            world.queue.push_back((1, Input::TurnedAway { peer: peer(2) }));
        }
        world.settle();
        world.nodes[1].peers().into_iter().find(|view| view.peer == peer(2)).unwrap()
    };
    for _ in 0..3 {
        let view = turn_away(&mut world, BUSY_ANSWERS_MAX);
        assert!(view.faults == 0 && !view.blocked, "so often happens to everybody");
        world.run(10_000);
    }
    assert!(turn_away(&mut world, BUSY_ANSWERS_MAX + 10).blocked);
}

#[test]
fn a_store_without_time_turns_away_too() {
    let mut node = Node::new(NodeConfig::new(peer(0), metric, Quota::for_all(1 << 30), Used::default()));
    let now = Now { mono: Instant(1), unix: UnixSeconds(1) };
    let mut blocked = false;
    for i in 0..u64::from(BUSY_ANSWERS_MAX) + 10 {
        let request = Request::Get { shard: ShardId([1; 32]), offset: 0, len: 1 };
        let effects = node.step(now, Input::Request { peer: peer(1), inbound: InboundId(i), request });
        let [Effect::Store { id, .. }] = effects[..] else { panic!("{effects:?}") };
        let effects = node.step(now, Input::Stored { id, reply: StoreReply::Failed(StoreFault::Busy) });
        blocked |= effects.iter().any(|effect| matches!(effect, Effect::Block { .. }));
        assert_eq!(blocked, i == u64::from(BUSY_ANSWERS_MAX) + 9);
    }
}

/// Bytes of what was sent to be stored, to each.
fn bodies(world: &World) -> BTreeMap<usize, usize> {
    let mut all = BTreeMap::new();
    for (to, request) in &world.sent {
        *all.entry(*to).or_default() += request.body_len();
    }
    all
}

/// Five segments at once, of which the first have the larger shards.
fn begin_uploads(world: &mut World) {
    let until = UnixSeconds(world.now.unix.0 + 1000);
    for k in 2..7 {
        let command = Command::Upload { coded: coded(k, 10).0, leases: leases(), until, patience: 20_000 };
        world.queue.push_back((0, Input::Command { id: CommandId(k.into()), command }));
    }
}

fn uploaded(world: &World) -> usize {
    world.finished.iter().filter(|(_, end)| matches!(end, Outcome::Uploaded(_))).count()
}

#[test]
fn what_goes_to_many_at_once_over_the_line_of_a_home_is_sent_once_and_holds_nothing_small_up() {
    let mut world = World::new(13);
    world.manners[0] = Manner::Home(100);
    world.sent.clear();
    begin_uploads(&mut world);
    world.settle();
    let first = bodies(&world);
    let all: usize = first.values().sum();
    assert!(all <= BODIES_IN_FLIGHT && all > BODIES_IN_FLIGHT / 2, "{all} bytes are under way");
    assert!(first.values().all(|one| *one <= SHARD_MAX), "{first:?}");
    world.run(70_000);
    let greeted = world.sent.iter().filter(|(to, request)| *to > 0 && matches!(request, Request::Hello(_)));
    assert_eq!(greeted.map(|(to, _)| *to).collect::<BTreeSet<_>>().len(), 12, "who is greeted waits for no body");
    assert!(uploaded(&world) < 5, "the line is not slow");
    world.run(400_000);
    assert_eq!(uploaded(&world), 5);
    assert_eq!(world.sent.iter().filter(|(_, request)| request.body_len() > 0).count(), 50, "nothing is sent twice");
}

#[test]
fn who_takes_nothing_does_not_have_the_line() {
    let mut world = World::new(14);
    world.manners[1..3].fill(Manner::Silent);
    world.sent.clear();
    begin_uploads(&mut world);
    world.run(1_000);
    let silent = world.sent.iter().filter(|(to, request)| *to < 3 && request.body_len() > 0).count();
    let stored: usize = world.disks.iter().map(BTreeMap::len).sum();
    assert!(silent > 0 && stored >= 40, "{stored} are stored, {silent} wait");
    world.run(400_000);
    assert_eq!(uploaded(&world), 5);
}

#[test]
fn a_line_that_has_become_slow_is_soon_known_to_be() {
    let mut world = World::new(13);
    begin_uploads(&mut world);
    world.run(10_000);
    assert_eq!(uploaded(&world), 5);
    world.manners[0] = Manner::Home(100);
    for _ in 0..3 {
        world.finished.clear();
        begin_uploads(&mut world);
        world.run(600_000);
    }
    assert_eq!(uploaded(&world), 5);
}

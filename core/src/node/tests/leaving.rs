//! A donor that stops storing for others: what it does still, what others make of it, and how a shard is had from it.

use super::*;
use crate::quota::Used;

fn view(node: &Node, at: usize) -> PeerView {
    node.peers().into_iter().find(|view| view.peer == peer(at)).unwrap()
}

fn leave(world: &mut World, at: usize, leaving: bool) {
    assert_eq!(world.command(at, Command::Leave(leaving)), Outcome::Noted);
    world.settle();
}

fn holders(placement: &Placement) -> Vec<usize> {
    placement.holders.iter().map(|holder| usize::from(holder.peer.0[0]) - 1).collect()
}

#[test]
fn whoever_leaves_serves_what_it_has_and_gets_nothing_new() {
    let mut world = World::new(6);
    let (coded, plain) = coded(2, 5);
    let placement = placed(upload(&mut world, &coded));
    assert_eq!(world.nodes[0].plan().unwrap().n, 5);
    leave(&mut world, 1, true);
    // All who are there know at once, and think no worse of it.
    for at in [0, 2, 5] {
        let seen = view(&world.nodes[at], 1);
        assert!(seen.leaving && seen.connected && seen.hello.as_ref().unwrap().free == 0, "{seen:?}");
        assert_eq!((seen.faults, seen.distrusted, seen.honesty), (0, false, 1.0));
    }
    assert!(world.nodes[1].is_leaving() && !world.nodes[0].is_leaving());
    assert_eq!((world.nodes[0].plan().unwrap().n, world.nodes[0].donors()), (4, 4));
    // What it has is read and audited, and its leases run on.
    let Outcome::Fetched { .. } = world.command(0, get(&placement, &coded, &plain)) else { panic!("it is readable") };
    let holder = *placement.holders.iter().find(|holder| holder.peer == peer(1)).unwrap();
    let shard = coded.segment.rows[usize::from(holder.row)];
    let lease = leases().lease(&peer(1), &shard, UnixSeconds(world.now.unix.0 + 9_000));
    let renew = Command::Renew { holder: peer(1), leases: vec![(shard, lease)], within: 9_000 };
    assert_eq!(world.command(0, renew), Outcome::Renewed(vec![true]));
    let (rows, seed) = (vec![holder.row], [7; 32]);
    let audit = Command::Audit { placement: placement.clone(), rows, seed, within: 9_000 };
    let Outcome::Audited { passed, .. } = world.command(0, audit) else { panic!("no audit") };
    assert_eq!(passed, [holder.row]);
    // Nothing new is asked of it.
    world.sent.clear();
    let (small, _) = self::coded(2, 4);
    let again = placed(upload(&mut world, &small));
    assert!(!holders(&again).contains(&1), "{again:?}");
    let to_it = |at: usize, request: &Request| at == 1 && matches!(request, Request::Put { .. });
    assert!(!world.sent.iter().any(|(at, request)| to_it(*at, request)));
    let (large, _) = self::coded(2, 5);
    assert!(matches!(upload(&mut world, &large), Outcome::Failed(CommandError::NotPlaced { stored: 4, .. })));
    // It changes its mind.
    leave(&mut world, 1, false);
    assert!(!view(&world.nodes[0], 1).leaving);
    assert_eq!(world.nodes[0].plan().unwrap().n, 5);
    assert_eq!(holders(&placed(upload(&mut world, &large))).len(), 5);
}

#[test]
fn whoever_has_not_heard_of_it_is_told_by_a_refusal_and_an_old_greeting_is_put_right_by_the_next() {
    let mut world = World::new(4);
    let greeting = world.nodes[1].step(
        world.now,
        Input::Request {
            peer: peer(0),
            inbound: InboundId(77_000),
            request: Request::Hello(Hello { free: 0, donated: 0, to_newcomer: false, leaving: false }),
        },
    );
    let Some(Effect::Reply { response: Response::Hello(old), .. }) = greeting.first() else { panic!("{greeting:?}") };
    let old = old.clone();
    assert!(!old.leaving && old.free > 0);
    leave(&mut world, 1, true);
    // What it said before arrives once more, after what it said last.
    let late = Input::Request { peer: peer(1), inbound: InboundId(78_000), request: Request::Hello(old) };
    world.nodes[0].step(world.now, late);
    assert!(!view(&world.nodes[0], 1).leaving);
    let (coded, _) = coded(1, 3);
    assert!(matches!(upload(&mut world, &coded), Outcome::Failed(CommandError::NotPlaced { stored: 2, .. })));
    let seen = view(&world.nodes[0], 1);
    assert!(seen.leaving && seen.faults == 0 && world.disks[1].is_empty(), "{seen:?}");
}

#[test]
fn whoever_comes_and_goes_at_will_waits_longer_each_time() {
    let mut world = World::new(4);
    let in_plan = |world: &World| world.nodes[0].plan().is_ok_and(|plan| plan.n == 3);
    leave(&mut world, 1, true);
    assert!(!in_plan(&world));
    leave(&mut world, 1, false);
    assert!(in_plan(&world), "once is nothing");
    for minutes in [10, 20, 40] {
        leave(&mut world, 1, true);
        leave(&mut world, 1, false);
        world.run((minutes - 1) * 60_000);
        assert!(!view(&world.nodes[0], 1).leaving && !in_plan(&world), "{minutes}");
        let (coded, _) = coded(1, 2);
        assert!(!holders(&placed(upload(&mut world, &coded))).contains(&1));
        world.run(2 * 60_000);
        assert!(in_plan(&world), "{minutes}");
    }
}

#[test]
fn that_it_leaves_outlives_a_start_of_whoever_has_heard_it_and_is_no_loss() {
    let hour = 3_600_000;
    let config = NodeConfig::new(peer(0), metric, Quota::default(), Used::default());
    let mut now = Now { mono: Instant(1), unix: UnixSeconds(1_800_000_000 / 86_400 * 86_400) };
    let mut node = Node::new(config.clone());
    let say = |node: &mut Node, now: Now, at: usize, leaving: bool| {
        let hello = Hello { free: 1 << 40, donated: 1 << 40, to_newcomer: false, leaving };
        node.step(now, Input::Request { peer: peer(at), inbound: InboundId(1), request: Request::Hello(hello) });
    };
    for at in [1, 2, 3] {
        node.step(now, Input::Connected(peer(at)));
        say(&mut node, now, at, false);
    }
    let mut pass = |node: &mut Node, hours: u64| {
        for _ in 0..hours {
            now = Now { mono: now.mono.after(hour), unix: UnixSeconds(now.unix.0 + 3_600) };
            node.step(now, Input::Tick);
        }
        now
    };
    let now = pass(&mut node, 9 * 24);
    say(&mut node, now, 1, true);
    let before = node.departures();
    node.step(now, Input::Disconnected(peer(1)));
    node.step(now, Input::Disconnected(peer(2)));
    let mut again = Node::new(config);
    again.restore(&crate::codec::decode(&crate::codec::encode(&node.standings())).unwrap());
    assert_eq!([1, 2].map(|at| view(&again, at).leaving), [true, false]);
    assert!(!view(&again, 1).connected);
    // Both are gone after a week; one of them has taken something along.
    pass(&mut node, 8 * 24);
    assert_eq!([1, 2].map(|at| view(&node, at).presence), [Presence::Gone; 2]);
    assert_eq!(node.standings().departed, 1);
    assert!(node.departures() > before);
}

fn copy(placement: &Placement, at: usize) -> Command {
    let holder = &placement.holders[at];
    let shard = placement.segment.rows[usize::from(holder.row)];
    Command::Copy { holder: holder.peer, shard, len: placement.segment.shard_len, within: 20_000 }
}

#[test]
fn one_shard_is_had_from_its_holder_alone_and_what_it_sends_is_checked() {
    let mut world = World::new(6);
    let (coded, _) = coded(2, 5);
    let placement = placed(upload(&mut world, &coded));
    let row = |at: usize| coded.shards[usize::from(placement.holders[at].row)].clone();
    let first = world.at(placement.holders[0].peer);
    leave(&mut world, first, true);
    world.sent.clear();
    assert_eq!(world.command(0, copy(&placement, 0)), Outcome::Copied(row(0)));
    let reads = world.sent.iter().filter(|(_, request)| matches!(request, Request::Get { .. })).count();
    assert_eq!(reads, 1);
    let fails = |world: &mut World, at: usize, manner: Manner| {
        let peer = world.at(placement.holders[at].peer);
        world.manners[peer] = manner;
        match world.command(0, copy(&placement, at)) {
            Outcome::Failed(CommandError::Copy { lacks, .. }) => lacks,
            other => panic!("{manner:?}: {other:?}"),
        }
    };
    assert!(fails(&mut world, 1, Manner::Liar));
    assert!(view(&world.nodes[0], world.at(placement.holders[1].peer)).faults > 0);
    assert!(!fails(&mut world, 2, Manner::Silent), "it may have it");
    assert!(!fails(&mut world, 3, Manner::Gone));
    let lost = world.at(placement.holders[4].peer);
    world.disks[lost].clear();
    assert!(fails(&mut world, 4, Manner::Honest));
    let outcome = world.command(0, Command::Copy { holder: peer(1), shard: ShardId([0; 32]), len: 0, within: 9 });
    assert!(matches!(outcome, Outcome::Failed(CommandError::Invalid(_))), "{outcome:?}");
}

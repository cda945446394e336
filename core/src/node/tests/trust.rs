//! Whom shards are entrusted to that has lost some.

use super::*;

const MINUTE: u64 = 60_000;

/// Donors after which the first node puts all others.
fn distrusted(world: &mut World) -> Vec<usize> {
    // A node knows the time of its last step.
    world.queue.push_back((0, Input::Tick));
    world.settle();
    let views = world.nodes[0].peers();
    assert!(views.iter().all(|view| view.faults == 0 && !view.blocked), "nobody is cut off for it: {views:?}");
    views.iter().filter(|view| view.distrusted).map(|view| world.at(view.peer)).collect()
}

type Stored = (World, Arc<Placement>, Arc<Coded>, Vec<(ExtentRef, Bytes)>, usize);

/// Ten donors, a segment on all of them, and who holds its first row.
fn stored() -> Stored {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    let first = placement.holders.iter().find(|holder| holder.row == 0).unwrap();
    let first = world.at(first.peer);
    (world, placement, coded, plain, first)
}

#[test]
fn who_lost_what_it_acknowledged_is_backed_off_and_given_nothing_new_for_a_while() {
    let (mut world, placement, coded, plain, at) = stored();
    world.disks[at].clear();
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert_eq!(distrusted(&mut world), [at]);
    assert_eq!(world.nodes[0].plan().unwrap().n, 9, "nothing is planned for it");

    world.sent.clear();
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    let (next, _) = super::coded(5, 9);
    let placement = placed(upload(&mut world, &next));
    assert!(placement.holders.iter().all(|holder| holder.peer != peer(at)));
    let asked = |to: usize, request: &Request| to == at && !matches!(request, Request::Hello(_));
    assert!(!world.sent.iter().any(|(to, request)| asked(*to, request)), "others have it all");

    world.run(5 * MINUTE);
    assert_eq!(distrusted(&mut world), [0; 0]);
    assert_eq!(world.nodes[0].plan().unwrap().n, 10, "it can come back with a new disk");
}

#[test]
fn what_is_stored_is_spread_no_thinner_because_somebody_lost_something() {
    // Ten peers of a plan that was made before, of which one is trusted no more.
    let (mut world, placement, coded, plain, at) = stored();
    world.disks[at].clear();
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    let (other, _) = super::coded(5, 10);
    let began = world.now.mono;
    assert_eq!(placed(upload(&mut world, &other)).holders.len(), 10);
    assert!(world.now.mono.since(began) < 1_000, "nobody else came meanwhile, so nobody was waited for");

    // Three peers are too few as it is, and two of them would be fewer.
    let mut world = World::new(4);
    let plan = world.nodes[0].plan().unwrap();
    let (coded, plain) = super::coded(plan.k, plan.n);
    let placement = placed(upload(&mut world, &coded));
    world.disks[1].clear();
    let probe = Command::Probe { placement: placement.clone(), within: 5_000 };
    world.command(0, probe);
    assert_eq!(distrusted(&mut world), [1]);
    let now = world.nodes[0].plan().unwrap();
    assert_eq!((now.k, now.n), (plan.k, plan.n));
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn who_lost_something_is_still_asked_for_what_only_it_has() {
    let (mut world, placement, coded, plain, at) = stored();
    let (other, others) = super::coded(5, 10);
    let second = placed(upload(&mut world, &other));
    world.disks[at].remove(&coded.segment.rows[0]);
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert_eq!(distrusted(&mut world), [at]);
    for i in (1..=10).filter(|i| *i != at).take(5) {
        world.manners[i] = Manner::Silent;
    }
    assert_eq!(fetch(&mut world, &second, &other, &others), expect(&others));
    // It may say no, but those that are silent say nothing for ten seconds: it is asked before them.
    world.sent.clear();
    assert_eq!(fetch(&mut world, &second, &other, &others), expect(&others));
    let silent = |to: &usize| world.manners[*to] == Manner::Silent;
    let gets = world.sent.iter().filter(|(_, request)| matches!(request, Request::Get { .. }));
    assert!(!gets.map(|(to, _)| to).any(silent));
    assert_eq!(distrusted(&mut world), [at]);
}

#[test]
fn who_goes_on_losing_is_distrusted_for_longer_and_never_for_more_than_an_hour() {
    let (mut world, placement, coded, plain, at) = stored();
    world.disks[at].clear();
    let lose = |world: &mut World| {
        assert_eq!(fetch(world, &placement, &coded, &plain), expect(&plain));
        let minute = |minute: &u64| {
            assert_eq!(distrusted(world), [at], "minute {minute}");
            world.run(MINUTE);
            !distrusted(world).is_empty()
        };
        (1..).take_while(minute).count() + 1
    };
    let minutes: Vec<usize> = (0..6).map(|_| lose(&mut world)).collect();
    assert_eq!(minutes, [5, 10, 20, 40, 60, 60]);
    // A good hour, and the past is forgiven.
    world.run(60 * MINUTE);
    assert_eq!(lose(&mut world), 5);
}

#[test]
fn what_is_spoiled_weighs_less_than_what_is_lost() {
    let (mut world, placement, coded, plain, at) = stored();
    world.manners[at] = Manner::Spoiled;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert_eq!(distrusted(&mut world), [at]);
    world.run(MINUTE / 2);
    assert_eq!(distrusted(&mut world), [0; 0]);
}

#[test]
fn a_probe_finds_out_the_same_and_an_ended_lease_binds_nobody() {
    let (mut world, placement, coded, plain, at) = stored();
    world.disks[at].clear();
    world.now.unix = placement.holders[0].until;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    let probe = || Command::Probe { placement: placement.clone(), within: 5_000 };
    let Outcome::Probed { missing, .. } = world.command(0, probe()) else { panic!() };
    assert_eq!((missing, distrusted(&mut world)), (vec![0], vec![]));
    world.now.unix = UnixSeconds(world.now.unix.0 - 1);
    world.command(0, probe());
    assert_eq!(distrusted(&mut world), [at]);
}

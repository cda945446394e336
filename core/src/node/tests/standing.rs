//! How peers are judged by what was seen of them.

use super::*;
use crate::codec;
use crate::placement::Subnet;

const HOUR: u64 = 3_600_000;

/// A node whose peers say nothing.
struct Lone {
    node: Node,
    now: Now,
}

impl Lone {
    fn new() -> Self {
        let now = Now { mono: Instant(1), unix: UnixSeconds(1_800_000_000 / 86_400 * 86_400) };
        Self { node: Node::new(NodeConfig::new(peer(0), metric, Quota::default(), Used::default())), now }
    }

    fn step(&mut self, input: Input) {
        for effect in self.node.step(self.now, input) {
            if let Effect::Send { id, request: Request::Hello(_), .. } = effect {
                let hello =
                    Response::Hello(Hello { free: 1 << 40, donated: 1 << 40, to_newcomer: false, leaving: false });
                self.node.step(self.now, Input::Response { id, result: Ok(hello) });
            }
        }
    }

    fn there(&mut self, peers: impl IntoIterator<Item = usize>) {
        peers.into_iter().for_each(|i| self.step(Input::Connected(peer(i))));
    }

    fn away(&mut self, peers: impl IntoIterator<Item = usize>) {
        peers.into_iter().for_each(|i| self.step(Input::Disconnected(peer(i))));
    }

    fn pass(&mut self, hours: u64) {
        for _ in 0..hours {
            self.now = Now { mono: self.now.mono.after(HOUR), unix: UnixSeconds(self.now.unix.0 + 3_600) };
            self.step(Input::Tick);
        }
    }

    fn view(&self, i: usize) -> PeerView {
        self.node.peers().into_iter().find(|view| view.peer == peer(i)).unwrap()
    }
}

#[test]
fn who_is_away_is_suspect_after_a_day_gone_after_a_week_and_counts_again_at_once() {
    let mut lone = Lone::new();
    lone.there([1, 2]);
    assert_eq!((lone.view(1).presence, lone.view(1).away_for), (Presence::Here, 0));
    lone.away([1]);
    assert_eq!(lone.view(1).presence, Presence::Away);
    lone.pass(23);
    assert_eq!((lone.view(1).presence, lone.view(1).away_for), (Presence::Away, 23 * HOUR));
    lone.pass(1);
    assert_eq!(lone.view(1).presence, Presence::Suspect);
    lone.pass(6 * 24);
    assert_eq!((lone.view(1).presence, lone.view(2).presence), (Presence::Gone, Presence::Here));
    lone.there([1]);
    assert_eq!((lone.view(1).presence, lone.view(1).away_for), (Presence::Here, 0));
    lone.away([1]);
    assert_eq!(lone.view(1).presence, Presence::Away, "its grace begins anew");
}

#[test]
fn time_without_anybody_counts_for_nobody() {
    let mut lone = Lone::new();
    lone.there([1, 2]);
    lone.pass(50);
    lone.away([1]);
    lone.pass(1);
    let before = (lone.view(1), lone.view(2));
    lone.away([2]);
    lone.pass(30 * 24);
    let after = (lone.view(1), lone.view(2));
    assert_eq!((after.0.availability, after.1.availability), (before.0.availability, before.1.availability));
    assert_eq!((after.0.presence, after.0.away_for, after.1.away_for), (Presence::Away, HOUR, 0));
    lone.there([2]);
    lone.pass(2);
    assert_eq!((lone.view(1).away_for, lone.view(2).present), (3 * HOUR, 53 * HOUR));
}

#[test]
fn a_plan_is_made_for_the_hour_in_which_fewest_are_there() {
    let mut lone = Lone::new();
    lone.there(1..=30);
    let (calm, sleepers) = (lone.node.plan().unwrap(), 1..=20);
    for _ in 0..21 {
        lone.away(sleepers.clone());
        lone.pass(6);
        lone.there(sleepers.clone());
        lone.pass(18);
    }
    let (sleeper, other) = (lone.view(1), lone.view(30));
    assert!((0.7..0.8).contains(&sleeper.availability) && sleeper.worst_hour < 0.15, "{sleeper:?}");
    assert!(other.worst_hour > 0.97 && !other.young, "{other:?}");
    let plan = lone.node.plan().unwrap();
    // A third of them are always there, and the others an eighth of the time or less at night.
    assert!((0.3..0.45).contains(&plan.outlook.availability) && plan.k < calm.k, "{plan:?}");
    // What was long ago fades.
    lone.pass(60 * 24);
    assert!(lone.view(1).worst_hour > 0.95, "{:?}", lone.view(1));
}

#[test]
fn what_was_seen_outlives_a_restart_and_nonsense_does_not() {
    let mut lone = Lone::new();
    lone.there(1..=4);
    lone.pass(10 * 24);
    lone.away([1]);
    lone.pass(30);
    let written = codec::encode(&lone.node.standings());
    let mut again = Lone { now: Now { mono: Instant(1), ..lone.now }, ..Lone::new() };
    let mut standings: Standings = codec::decode(&written).unwrap();
    again.node.restore(&standings);
    again.step(Input::Tick);
    let same = |view: PeerView| (view.availability, view.worst_hour, view.present, view.young, view.honesty);
    for i in 1..=4 {
        assert_eq!(same(again.view(i)), same(lone.view(i)), "{i}");
    }
    assert_eq!((again.view(1).presence, again.view(2).presence), (Presence::Suspect, Presence::Away));
    again.there(2..=4);
    assert_eq!((again.view(1).away_for, again.view(2).presence), (30 * HOUR, Presence::Here));
    assert_eq!(codec::decode::<Standings>(&codec::encode(&again.node.standings())).unwrap().watched, standings.watched);

    standings.peers[0].hours[3].online = u32::MAX;
    standings.peers[1].present = u64::MAX;
    standings.peers[2].rate = Some(u64::MAX);
    standings.peers[3].seen = u64::MAX;
    let mut third = Lone::new();
    third.node.restore(&standings);
    assert_eq!(third.node.peers(), []);
}

#[test]
fn who_leaves_for_good_is_counted_until_it_comes_back() {
    let mut lone = Lone::new();
    lone.there(1..=20);
    let departures = |lone: &Lone| lone.node.plan().unwrap().outlook.departures;
    let assumed = departures(&lone);
    lone.pass(60 * 24);
    let calm = departures(&lone);
    assert!(calm < assumed, "twenty peers in two months, and none has left: {calm}");
    lone.away(1..=3);
    lone.pass(6 * 24);
    assert!(departures(&lone) < calm);
    lone.pass(2 * 24);
    assert!(departures(&lone) > calm, "three have");
    lone.there(1..=3);
    assert!(departures(&lone) < calm);
    // Who was hardly there says nothing of others.
    lone.there(30..=60);
    lone.away(30..=60);
    lone.pass(8 * 24);
    assert!(departures(&lone) < calm);
    assert_eq!(lone.view(40).presence, Presence::Gone);
}

#[test]
fn who_lies_is_less_welcome_than_who_does_not() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    let first = placement.holders.iter().find(|holder| holder.row == 0).unwrap();
    let at = world.at(first.peer);
    world.manners[at] = Manner::Liar;
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    let honesty =
        |world: &World, i: usize| world.nodes[0].peers().into_iter().find(|view| view.peer == peer(i)).unwrap().honesty;
    let other = (1..11).find(|i| *i != at).unwrap();
    assert!(honesty(&world, at) < 0.3 && honesty(&world, other) == 1.0);
}

#[test]
fn rows_of_a_segment_are_spread_over_subnets() {
    let mut world = World::new(13);
    let net = |i: usize| (i - 1) as u8 / 3;
    for i in 1..13 {
        let subnet = Subnet::v4([9, 9, net(i), i as u8]);
        world.queue.push_back((0, Input::SeenAt { peer: peer(i), subnet }));
    }
    world.settle();
    for n in [4, 8] {
        let (coded, _) = coded(2, n);
        let placement = placed(upload(&mut world, &coded));
        let mut nets = [0; 4];
        for holder in &placement.holders {
            nets[usize::from(net(world.at(holder.peer)))] += 1;
        }
        assert_eq!(nets, [usize::from(n) / 4; 4]);
    }
}

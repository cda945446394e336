//! Who stores for whom: what a donor takes in, and for whom, and what others make of that.

use super::*;
use crate::id::IdentityId;
use crate::placement::Subnet;

const KNOWN: usize = 1;
const HOLDER: usize = 2;
const SHARD: u64 = 100;

/// A donor whose disk answers when it is told to, and is as strict as a store.
struct Bench {
    node: Node,
    now: Now,
    quota: Quota,
    used: Used,
    /// What is to be stored, for whom and by which number.
    waiting: VecDeque<(RequestId, StoreOp)>,
    next: u64,
}

fn person(i: u8) -> IdentityId {
    IdentityId([i; 32])
}

fn acquainted(known: &[(usize, Whose, u8)], holding: &[(usize, u64)]) -> Acquainted {
    let known = known.iter().map(|(at, whose, by)| (peer(*at), Acquaintance { whose: *whose, operator: person(*by) }));
    Acquainted::new(known, holding.iter().map(|(at, bytes)| (peer(*at), *bytes)))
}

fn shard(number: u64) -> (ShardId, Bytes) {
    let mut body = vec![0; SHARD as usize];
    body[..8].copy_from_slice(&number.to_be_bytes());
    (ShardId(*blake3::hash(&body).as_bytes()), body.into())
}

impl Bench {
    /// One that knows a peer, and for which another one holds ten shards.
    fn new(quota: Quota) -> Self {
        let now = Now { mono: Instant(1), unix: UnixSeconds(1_000_000) };
        let node = Node::new(NodeConfig::new(peer(0), metric, quota, Used::default()));
        let mut bench = Self { node, now, quota, used: Used::default(), waiting: VecDeque::new(), next: 1 };
        bench.acquaint(acquainted(&[(KNOWN, Whose::Contact, 1)], &[(HOLDER, 10 * SHARD)]));
        bench
    }

    fn acquaint(&mut self, acquainted: Acquainted) {
        self.step(Input::Command { id: CommandId(1), command: Command::Acquaint(acquainted) });
    }

    /// What is answered at once.
    fn step(&mut self, input: Input) -> Option<Response> {
        let mut answer = None;
        for effect in self.node.step(self.now, input) {
            match effect {
                Effect::Store { id, op } => self.waiting.push_back((id, op)),
                Effect::Reply { response, .. } => answer = Some(response),
                _ => {}
            }
        }
        answer
    }

    fn ask(&mut self, from: usize, request: Request) -> Option<Response> {
        self.next += 1;
        self.step(Input::Request { peer: peer(from), inbound: InboundId(self.next), request })
    }

    /// Begins to put a shard that nobody has put yet; the answer if there is one at once.
    fn begin(&mut self, from: usize) -> Option<Response> {
        let (shard, body) = shard(self.next);
        let lease = leases().lease(&peer(0), &shard, UnixSeconds(1_000_100));
        self.ask(from, Request::Put { shard, lease, body })
    }

    /// The disk has done what it was told first.
    fn write(&mut self) -> Option<Response> {
        let (id, op) = self.waiting.pop_front()?;
        let StoreOp::Put { body, depositor, .. } = op else { panic!("{op:?}") };
        let bytes = body.len() as u64;
        assert!(bytes <= self.quota.room(&self.used, depositor), "more was taken in than there is room for");
        self.used.add(depositor, bytes);
        self.step(Input::Stored { id, reply: StoreReply::Done { used: self.used } })
    }

    /// How many shards one after the other are taken in, and what is said of the next one.
    fn fill(&mut self, from: usize) -> (usize, Refusal) {
        for taken in 0.. {
            match self.begin(from) {
                Some(Response::Refused(why)) => return (taken, why),
                Some(other) => panic!("{other:?}"),
                None => assert_eq!(self.write(), Some(Response::Ok)),
            }
        }
        unreachable!()
    }

    fn hello(&mut self, from: usize) -> Hello {
        match self.ask(from, Request::Hello(Hello { free: 0, donated: 0, to_newcomer: false, leaving: false })) {
            Some(Response::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn newcomers_have_a_share_those_who_store_here_what_they_are_owed_and_who_is_known_the_rest() {
    let mut bench = Bench::new(Quota::new(100 * SHARD, 10));
    let told = |bench: &mut Bench, from| {
        let hello = bench.hello(from);
        (hello.free / SHARD, hello.to_newcomer)
    };
    let all = |bench: &mut Bench| [KNOWN, HOLDER, 7].map(|from| told(bench, from));
    assert_eq!(all(&mut bench), [(100, false), (20, true), (10, true)]);
    let newcomers = Refusal::NewcomersFull(600);
    // Ten of one stranger, and none of another one.
    assert_eq!((bench.fill(7), bench.fill(8)), ((10, newcomers), (0, newcomers)));
    assert_eq!(all(&mut bench), [(90, false), (20, true), (0, true)]);
    // Who holds ten may bring twenty.
    assert_eq!(bench.fill(HOLDER), (20, newcomers));
    assert_eq!(bench.used, Used { known: 0, reciprocal: 20 * SHARD, newcomers: 10 * SHARD });
    assert_eq!(all(&mut bench), [(70, false), (0, true), (0, true)]);
    assert_eq!(bench.fill(KNOWN), (70, Refusal::Full));
    assert_eq!(all(&mut bench), [(0, false), (0, false), (0, false)]);
    assert_eq!(bench.fill(7), (0, Refusal::Full));
}

#[test]
fn what_is_under_way_counts_whoever_brings_it() {
    let mut bench = Bench::new(Quota::new(100 * SHARD, 10));
    // Each of thirty begins one before any is written.
    let begun = (10..40).filter(|from| bench.begin(*from).is_none()).count();
    assert_eq!((begun, bench.waiting.len()), (10, 10));
    let begun = (0..30).filter(|_| bench.begin(HOLDER).is_none()).count();
    assert_eq!(begun, 20);
    // One that the disk does not take is not counted, and leaves room for another.
    let (id, _) = bench.waiting.pop_back().unwrap();
    bench.step(Input::Stored { id, reply: StoreReply::Failed(StoreFault::Busy) });
    assert_eq!((0..3).filter(|_| bench.begin(HOLDER).is_none()).count(), 1);
    while bench.write().is_some() {}
    assert_eq!(bench.used, Used { known: 0, reciprocal: 20 * SHARD, newcomers: 10 * SHARD });
    // A share that is full by what the disk counts is no disk that is full.
    bench.begin(KNOWN);
    let (id, _) = bench.waiting.pop_front().unwrap();
    let reply = bench.step(Input::Stored { id, reply: StoreReply::Failed(StoreFault::NewcomersFull) });
    assert_eq!(reply, Some(Response::Refused(Refusal::NewcomersFull(600))));
    assert_eq!(bench.hello(KNOWN).free, 70 * SHARD);
}

#[test]
fn who_gives_up_what_it_brought_may_bring_as_much_again_and_a_restart_gains_nobody_anything() {
    let mut bench = Bench::new(Quota::new(100 * SHARD, 0));
    assert_eq!(bench.fill(HOLDER), (20, Refusal::NewcomersFull(600)));
    bench.ask(HOLDER, Request::Release { tokens: vec![(shard(0).0, leases().token(&peer(0), &shard(0).0))] });
    let (id, op) = bench.waiting.pop_front().unwrap();
    assert!(matches!(op, StoreOp::Release { .. }));
    let freed = Used::by(Depositor::Reciprocal, 5 * SHARD);
    bench.used.remove(Depositor::Reciprocal, 5 * SHARD);
    bench.step(Input::Stored { id, reply: StoreReply::Released { used: bench.used, freed } });
    assert_eq!(bench.fill(HOLDER), (5, Refusal::NewcomersFull(600)));
    // After a restart nobody knows any more who brought what, and all of them together have what they may.
    bench.node = Node::new(NodeConfig::new(peer(0), metric, bench.quota, bench.used));
    bench.acquaint(acquainted(&[], &[(HOLDER, 10 * SHARD)]));
    assert_eq!(bench.fill(HOLDER), (0, Refusal::NewcomersFull(600)));
    bench.acquaint(acquainted(&[], &[(HOLDER, 10 * SHARD), (3, 2 * SHARD)]));
    assert_eq!((bench.fill(HOLDER).0, bench.fill(3).0), (4, 0));
}

#[test]
fn who_lost_what_it_held_is_owed_nothing() {
    let mut bench = Bench::new(Quota::new(100 * SHARD, 10));
    assert_eq!(bench.hello(HOLDER).free, 20 * SHARD);
    bench.node.peers.fault(&mut bench.node.context, peer(HOLDER), Fault::Lost);
    assert_eq!(bench.hello(HOLDER).free, 10 * SHARD);
}

#[test]
fn who_takes_a_node_for_a_newcomer_is_not_blamed_and_asked_less_often() {
    let mut world = World::new(12);
    let quota = Quota::new(1 << 30, 0);
    world.nodes[3] = Node::new(NodeConfig::new(peer(3), metric, quota, Used::default()));
    for at in [0, 3] {
        world.queue.push_back((at, Input::Connected(peer(3 - at))));
    }
    world.settle();
    let view = |world: &World| world.nodes[0].peers().into_iter().find(|view| view.peer == peer(3)).unwrap();
    assert!(view(&world).to_newcomer && !view(&world).distrusted && view(&world).faults == 0);
    // Ten others take ten rows.
    let (coded, _) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    assert!(placement.holders.iter().all(|holder| holder.peer != peer(3)));
    assert_eq!(world.nodes[0].plan().unwrap().n, 10);
    // It comes to know node 0, tells it so at once, and takes in what it brings.
    let command = Command::Acquaint(acquainted(&[(0, Whose::Contact, 9)], &[]));
    assert_eq!(world.command(3, command), Outcome::Noted);
    world.settle();
    assert_eq!((view(&world).to_newcomer, world.nodes[0].plan().unwrap().n), (false, 11));
    // And the other way around.
    world.command(3, Command::Acquaint(Acquainted::default()));
    world.settle();
    assert!(view(&world).to_newcomer);
    assert_eq!(view(&world).hello.map(|hello| (hello.free, hello.donated)), Some((0, 1 << 30)));
}

#[test]
fn what_is_given_can_be_changed_and_puts_nobody_out() {
    let mut bench = Bench::new(Quota::new(100 * SHARD, 10));
    assert_eq!(bench.fill(7).0, 10);
    bench.quota = Quota::new(100 * SHARD, 15);
    bench.step(Input::Command { id: CommandId(2), command: Command::Give(bench.quota) });
    assert_eq!(bench.fill(7).0, 5);
    let less = Quota::new(10 * SHARD, 10);
    bench.step(Input::Command { id: CommandId(3), command: Command::Give(less) });
    assert_eq!((bench.hello(7).free, bench.hello(KNOWN).free, bench.node.used().total()), (0, 0, 15 * SHARD));
}

#[test]
fn where_all_keep_what_is_left_for_others_that_is_said() {
    let mut world = World::new(4);
    for at in 1..4 {
        let quota = Quota::new(1 << 30, 0);
        world.nodes[at] = Node::new(NodeConfig::new(peer(at), metric, quota, Used::default()));
        world.queue.push_back((at, Input::Connected(peer(0))));
    }
    world.settle();
    let full = NoPlan::Full { donors: 3, roomy: 0, free: 0, to_newcomer: 3 };
    assert_eq!(world.nodes[0].plan(), Err(full));
    let why = full.to_string();
    assert!(why.contains("3 of them keep what is left for peers that they know"), "{why}");
}

#[test]
fn a_segment_outlives_an_operator_that_goes_as_a_whole() {
    // Of sixteen donors eight are one person's, who has the most room, in subnets of their own.
    let mut world = World::new(17);
    let theirs = 1..9;
    let known: Vec<_> = theirs.clone().map(|at| (at, Whose::Contact, 5)).collect();
    world.command(0, Command::Acquaint(acquainted(&known, &[])));
    for at in 1..17 {
        let subnet = Subnet::v4([9, 9, at as u8, 1]);
        world.queue.push_back((0, Input::SeenAt { peer: peer(at), subnet }));
        has_room(&mut world, at, if theirs.contains(&at) { 1 << 34 } else { 1 << 30 });
    }
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    let of_theirs = placement.holders.iter().filter(|holder| theirs.contains(&world.at(holder.peer))).count();
    assert!(of_theirs <= 4, "{of_theirs} of 10 rows are with one operator");
    world.manners[1..9].fill(Manner::Gone);
    for at in theirs {
        world.queue.push_back((0, Input::Disconnected(peer(at))));
    }
    world.settle();
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

proptest::proptest! {
    /// Whoever brings what, and whenever the disk gets to it: it is never told to keep more than there is room for.
    #[test]
    fn quotas_hold_under_load(
        (shards, percent) in (0u64..60, 0u8..101),
        events in proptest::collection::vec((0usize..12, 0u8..4), 0..300),
    ) {
        let quota = Quota::new(shards * SHARD, percent);
        let mut bench = Bench::new(quota);
        for (from, what) in events {
            match what {
                0 => drop(bench.write()),
                1 => bench.acquaint(acquainted(&[(from, Whose::Own, 1)], &[(HOLDER, 3 * SHARD), (from, SHARD)])),
                _ => drop(bench.begin(from + 1)),
            }
        }
        while bench.write().is_some() {}
        assert!(bench.used.total() <= quota.bytes && bench.used.newcomers <= quota.newcomers);
    }
}

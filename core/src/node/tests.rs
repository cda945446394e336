//! Nodes against one another over an instant network: what each machine decides. The hostile network is in
//! `tests/sim`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::id::{ShardId, VolumeId};
use crate::key::{Secret, VolumeKeys};
use crate::lease::LeaseSecret;
use crate::port::StoreFault;
use crate::quota::Depositor;
use crate::record::Record;
use crate::seal::{ExtentRef, Kind, Sealer};
use crate::segment::{Coded, Holder, Packer, Placement, full_shard_len};
use crate::wire::{Hello, Refusal};

mod audit;
mod donors;
mod leases;
mod leaving;
mod mend;
mod pace;
mod standing;
mod trust;
mod watch;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Manner {
    Honest,
    /// Requests vanish until the deadline.
    Silent,
    /// So many more requests vanish.
    Deaf(u32),
    /// No connection can be had.
    Gone,
    /// Every byte it serves is flipped.
    Liar,
    /// All it holds is spoiled, and it knows.
    Spoiled,
    /// It takes nothing.
    Full,
    /// It refuses so many more reads.
    Busy(u32),
    /// It sends so many bytes in a millisecond.
    Slow(u64),
    /// What it stores on others, all of them together, goes out at so many bytes in a millisecond.
    Home(u64),
}

struct World {
    now: Now,
    nodes: Vec<Node>,
    disks: Vec<BTreeMap<ShardId, Bytes>>,
    manners: Vec<Manner>,
    queue: VecDeque<(usize, Input)>,
    late: Vec<(Instant, usize, Input)>,
    finished: Vec<(CommandId, Outcome)>,
    /// Who waits for the answer, and until when.
    inbound: BTreeMap<u64, (usize, RequestId, Instant)>,
    /// When a node has sent what it is sending.
    lines: Vec<Instant>,
    sent: Vec<(usize, Request)>,
    kept: Vec<BTreeMap<RecordKey, Vec<u8>>>,
    /// Who was told that a record has changed.
    changed: Vec<(usize, RecordKey)>,
    /// Nodes whose disk takes no records.
    broken: Vec<usize>,
}

fn metric(peer: &PeerId, key: &RecordKey) -> [u8; 32] {
    std::array::from_fn(|i| peer.0[i] ^ key.0[i])
}

fn peer(i: usize) -> PeerId {
    PeerId([i as u8 + 1; 32])
}

impl World {
    fn new(count: usize) -> Self {
        let nodes = (0..count).map(|i| {
            let mut config =
                NodeConfig::new(peer(i), metric, Quota::for_all(if i == 0 { 0 } else { 1 << 30 }), Used::default());
            config.record_lifetime = 10_000;
            Node::new(config)
        });
        let mut world = Self {
            now: Now { mono: Instant(1), unix: UnixSeconds(1_000_000) },
            nodes: nodes.collect(),
            disks: vec![BTreeMap::new(); count],
            manners: vec![Manner::Honest; count],
            queue: VecDeque::new(),
            late: vec![],
            finished: vec![],
            inbound: BTreeMap::new(),
            lines: vec![Instant(0); count],
            sent: vec![],
            kept: vec![BTreeMap::new(); count],
            changed: vec![],
            broken: vec![],
        };
        for a in 0..count {
            for b in (0..count).filter(|b| *b != a) {
                world.queue.push_back((a, Input::Connected(peer(b))));
            }
        }
        world.settle();
        world
    }

    fn at(&self, id: PeerId) -> usize {
        usize::from(id.0[0]) - 1
    }

    fn settle(&mut self) {
        while let Some((at, input)) = self.queue.pop_front() {
            for effect in self.nodes[at].step(self.now, input) {
                self.perform(at, effect);
            }
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now.mono.after(millis);
        loop {
            self.settle();
            let timers = self.nodes.iter().filter_map(Node::wake_at);
            let next = timers.chain(self.late.iter().map(|(at, _, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now.mono = next.max(self.now.mono);
            let now = self.now.mono;
            for at in 0..self.nodes.len() {
                if self.nodes[at].wake_at().is_some_and(|wake| wake <= now) {
                    self.queue.push_back((at, Input::Tick));
                }
            }
            let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _, _)| *at <= now);
            self.late = later;
            let due: Vec<_> = due;
            self.queue.extend(due.into_iter().map(|(_, at, input)| (at, input)));
        }
        self.now.mono = end;
    }

    fn perform(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Send { to: Destination::Peer(to), id, request, within, .. } => {
                let to = self.at(to);
                self.sent.push((to, request.clone()));
                if self.manners[to] == Manner::Gone {
                    let input = Input::Response { id, result: Err(SendFault::Unreachable) };
                    return self.late.push((self.now.mono.after(10), at, input));
                }
                let lost = match &mut self.manners[to] {
                    Manner::Silent => true,
                    Manner::Deaf(times @ 1..) => {
                        *times -= 1;
                        true
                    }
                    _ => false,
                };
                if lost {
                    let input = Input::Response { id, result: Err(SendFault::Deadline) };
                    return self.late.push((self.now.mono.after(within), at, input));
                }
                let deadline = self.now.mono.after(within);
                let inbound = self.inbound.len() as u64;
                self.inbound.insert(inbound, (at, id, deadline));
                let body = request.body_len() as u64;
                let input = Input::Request { peer: peer(at), inbound: InboundId(inbound), request };
                if let (Manner::Home(rate), 1..) = (self.manners[at], body) {
                    let come = self.lines[at].max(self.now.mono).after(body / rate);
                    self.lines[at] = come;
                    let input = match come <= deadline {
                        true => (come, to, input),
                        false => (deadline, at, Input::Response { id, result: Err(SendFault::Deadline) }),
                    };
                    return self.late.push(input);
                }
                self.queue.push_back((to, input));
            }
            Effect::Reply { inbound, mut response } => {
                let (to, id, deadline) = self.inbound[&inbound.0];
                if let (Response::Bytes(_), Manner::Busy(times @ 1..)) = (&response, self.manners[at]) {
                    self.manners[at] = Manner::Busy(times - 1);
                    response = Response::Refused(Refusal::Busy);
                }
                match (&mut response, self.manners[at]) {
                    (Response::Bytes(bytes), Manner::Liar) => {
                        *bytes = bytes.iter().map(|byte| byte ^ 1).collect();
                    }
                    (Response::Bytes(_), Manner::Spoiled) => response = Response::Refused(Refusal::Damaged),
                    (Response::Ok, Manner::Full) => response = Response::Refused(Refusal::Full),
                    _ => {}
                }
                if let (Manner::Slow(rate), Response::Bytes(bytes)) = (self.manners[at], &response) {
                    let sent = self.lines[at].max(self.now.mono).after(bytes.len() as u64 / rate);
                    self.lines[at] = sent;
                    let result = if sent <= deadline { Ok(response) } else { Err(SendFault::Deadline) };
                    return self.late.push((sent.min(deadline), to, Input::Response { id, result }));
                }
                self.queue.push_back((to, Input::Response { id, result: Ok(response) }));
            }
            Effect::Store { id, op } => {
                let disk = &mut self.disks[at];
                let reply = match op {
                    StoreOp::Put { shard, body, .. } => {
                        disk.insert(shard, body);
                        let bytes = disk.values().map(|b| b.len() as u64).sum();
                        StoreReply::Done { used: Used::by(Depositor::Newcomer, bytes) }
                    }
                    StoreOp::Read { shard, offset, len } => match disk.get(&shard) {
                        Some(bytes) => {
                            let end = (offset as usize + len as usize).min(bytes.len());
                            StoreReply::Bytes(bytes.slice((offset as usize).min(end)..end))
                        }
                        None => StoreReply::Failed(StoreFault::NotFound),
                    },
                    StoreOp::Prove { shard, chunk } => match disk.get(&shard) {
                        Some(bytes) => StoreReply::Bytes(crate::audit::prove(bytes, chunk).unwrap_or_default().into()),
                        None => StoreReply::Failed(StoreFault::NotFound),
                    },
                    StoreOp::Have { shards } => {
                        StoreReply::Have(shards.iter().map(|shard| disk.contains_key(shard)).collect())
                    }
                    StoreOp::Renew { leases, .. } => StoreReply::Renewed {
                        used: Used::default(),
                        held: leases.iter().map(|(id, _)| disk.contains_key(id)).collect(),
                    },
                    StoreOp::Release { leases } => {
                        leases.iter().for_each(|(shard, _)| drop(disk.remove(shard)));
                        StoreReply::Released { used: Used::default(), freed: Used::default() }
                    }
                    StoreOp::PutRecord { .. } if self.broken.contains(&at) => {
                        StoreReply::Failed(StoreFault::Disk("broken".into()))
                    }
                    StoreOp::PutRecord { .. } => StoreReply::Done { used: Used::default() },
                };
                self.queue.push_back((at, Input::Stored { id, reply }));
            }
            Effect::KeepRecord { key, bytes } => drop(self.kept[at].insert(key, bytes)),
            Effect::DropRecord { key } => drop(self.kept[at].remove(&key)),
            Effect::FindClosest { id, .. } => {
                let peers = (0..self.nodes.len()).filter(|to| *to != at).map(peer).collect();
                self.queue.push_back((at, Input::Closest { id, peers }));
            }
            Effect::FindRecord { id, key } => {
                let asked = (0..self.nodes.len()).filter(|i| *i != at && self.manners[*i] == Manner::Honest);
                let asked: Vec<usize> = asked.collect();
                let records = asked.iter().filter_map(|i| self.kept[*i].get(&key).cloned()).collect();
                self.queue.push_back((at, Input::RecordFound { id, records, answers: asked.len() }));
            }
            Effect::Block { .. } => {}
            Effect::Changed { key } => self.changed.push((at, key)),
            Effect::Finished { id, outcome } => self.finished.push((id, outcome)),
        }
    }

    /// What is found, and how many have answered.
    fn lookup(&mut self, at: usize, key: RecordKey) -> (Option<Record>, usize) {
        match self.command(at, Command::Lookup(key)) {
            Outcome::Found { record, answers, .. } => (record, answers),
            other => panic!("{other:?}"),
        }
    }

    fn command(&mut self, at: usize, command: Command) -> Outcome {
        let id = CommandId(self.finished.len() as u64 + 1000);
        self.queue.push_back((at, Input::Command { id, command }));
        let end = self.now.mono.after(300_000);
        while self.finished.last().map(|(id, _)| *id) != Some(id) {
            assert!(self.now.mono < end, "command without end");
            self.run(100);
        }
        let count = self.finished.iter().filter(|(other, _)| *other == id).count();
        assert_eq!(count, 1, "a command ended more than once");
        self.finished.last().unwrap().1.clone()
    }
}

fn leases() -> LeaseSecret {
    LeaseSecret::new(Secret::new([4; 32]))
}

fn keys() -> Arc<VolumeKeys> {
    Arc::new(VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32])))
}

/// A segment of 40 extents of 60 kB, with their plaintexts.
fn coded(k: u8, n: u8) -> (Arc<Coded>, Vec<(ExtentRef, Bytes)>) {
    let keys = keys();
    let sealer = Sealer::new(&keys);
    let mut packer = Packer::new(k);
    let mut plain = vec![];
    for i in 0..40u32 {
        let mut bytes = vec![0; 60_000];
        blake3::Hasher::new().update(&i.to_be_bytes()).finalize_xof().fill(&mut bytes);
        let sealed = sealer.seal(Kind::Content, &bytes).unwrap();
        plain.push((sealed.reference.clone(), Bytes::from(bytes)));
        assert!(packer.add(sealed).unwrap().is_none());
    }
    let coded = packer.finish().unwrap().code(k, n, n + 2, &keys.padding()).unwrap();
    (Arc::new(coded), plain)
}

fn upload(world: &mut World, coded: &Arc<Coded>) -> Outcome {
    let until = UnixSeconds(world.now.unix.0 + 1000);
    world.command(0, Command::Upload { coded: coded.clone(), leases: leases(), until, patience: 20_000 })
}

fn placed(outcome: Outcome) -> Arc<Placement> {
    match outcome {
        Outcome::Uploaded(placement) => Arc::new(placement),
        other => panic!("{other:?}"),
    }
}

fn get(placement: &Arc<Placement>, coded: &Coded, plain: &[(ExtentRef, Bytes)]) -> Command {
    let wanted = plain
        .iter()
        .map(|(extent, _)| {
            let at = coded.contents.iter().find(|at| at.id == extent.id()).unwrap();
            (extent.clone(), at.offset)
        })
        .collect();
    Command::Fetch { placement: placement.clone(), wanted, around: 0, within: 30_000 }
}

fn fetch(world: &mut World, placement: &Arc<Placement>, coded: &Coded, plain: &[(ExtentRef, Bytes)]) -> Outcome {
    world.command(0, get(placement, coded, plain))
}

fn expect(plain: &[(ExtentRef, Bytes)]) -> Outcome {
    Outcome::Fetched { plain: plain.iter().map(|(_, bytes)| bytes.clone()).collect(), around: vec![] }
}

#[test]
fn every_row_goes_to_a_peer_of_its_own_and_one_small_read_is_one_request() {
    let mut world = World::new(11);
    let plan = world.nodes[0].plan().unwrap();
    assert_eq!((plan.k, plan.n), (6, 10));
    let (coded, plain) = coded(plan.k, plan.n);
    let placement = placed(upload(&mut world, &coded));
    let peers: BTreeSet<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();
    assert_eq!((placement.holders.len(), peers.len()), (10, 10));
    world.sent.clear();
    assert_eq!(fetch(&mut world, &placement, &coded, &plain[..1]), expect(&plain[..1]));
    let gets: Vec<_> = world.sent.iter().filter(|(_, r)| matches!(r, Request::Get { .. })).collect();
    assert_eq!(gets.len(), 1);
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn nothing_that_holders_keep_of_two_shards_is_equal_but_the_day_on_which_their_leases_end() {
    let mut world = World::new(11);
    for k in [5, 6] {
        let (coded, _) = coded(k, 10);
        let placement = placed(upload(&mut world, &coded));
        let whole = |until: UnixSeconds| until.0.is_multiple_of(UnixSeconds::DAY) && until > world.now.unix;
        assert!(placement.holders.iter().all(|holder| whole(holder.until)), "the owner knows what was agreed");
    }
    let leases = world.sent.iter().filter_map(|(_, request)| match request {
        Request::Put { lease, .. } => Some(lease),
        _ => None,
    });
    assert!(leases.clone().all(|lease| lease.expires.0.is_multiple_of(UnixSeconds::DAY)));
    let keys: BTreeSet<_> = leases.clone().map(|lease| lease.key).collect();
    assert_eq!((keys.len(), leases.count()), (20, 20));
}

#[test]
fn what_lies_around_comes_along_when_it_is_wanted() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    let (extent, _) = &plain[1];
    let at = coded.contents.iter().find(|at| at.id == extent.id()).unwrap();
    let block = 256 << 10;
    let wanted = vec![(extent.clone(), at.offset)];
    let command = Command::Fetch { placement, wanted, around: block, within: 30_000 };
    let Outcome::Fetched { plain: found, around } = world.command(0, command) else { panic!() };
    assert_eq!(found, [plain[1].1.clone()]);
    let shard_len = coded.segment.shard_len;
    for Stretch { row, start, bytes } in around {
        assert!(start.is_multiple_of(block), "{start}");
        let end = start + bytes.len() as u32;
        assert!(end.is_multiple_of(block) || end == shard_len, "{end}");
        assert_eq!(bytes, coded.shards[usize::from(row)].slice(start as usize..end as usize));
    }
}

#[test]
fn any_m_peers_may_be_gone() {
    for dead in [[1, 2, 3, 4], [7, 8, 9, 10], [1, 4, 6, 9]] {
        let mut world = World::new(11);
        let (coded, plain) = coded(6, 10);
        let placement = placed(upload(&mut world, &coded));
        for i in dead {
            world.manners[i] = Manner::Silent;
        }
        let began = world.now.mono;
        assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
        assert!(world.now.mono.since(began) < 5_000, "it waited for the dead");
        // who is known to be slow is not waited for again
        let began = world.now.mono;
        assert_eq!(fetch(&mut world, &placement, &coded, &plain[20..21]), expect(&plain[20..21]));
        assert!(world.now.mono.since(began) < 1_000);
    }
}

#[test]
fn more_than_m_gone_is_an_error_that_says_so_and_ends_in_time() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    for i in 1..=5 {
        world.manners[i] = Manner::Silent;
    }
    match fetch(&mut world, &placement, &coded, &plain) {
        Outcome::Failed(CommandError::TooFewShards { have, need, .. }) => assert_eq!((have, need), (5, 6)),
        Outcome::Failed(CommandError::Deadline { .. }) => {}
        other => panic!("{other:?}"),
    }
    for i in 1..=5 {
        world.manners[i] = Manner::Honest;
    }
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn liars_are_found_out_left_out_and_blocked() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    for i in [2, 5, 9] {
        world.manners[i] = Manner::Liar;
    }
    for _ in 0..4 {
        assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    }
    let views = world.nodes[0].peers();
    let faulty: Vec<usize> = views.iter().filter(|v| v.faults > 0).map(|v| world.at(v.peer)).collect();
    assert!(!faulty.is_empty() && faulty.iter().all(|i| [2, 5, 9].contains(i)), "{faulty:?}");
}

#[test]
fn a_peer_that_refuses_is_passed_over_while_there_is_another() {
    let mut world = World::new(13);
    world.manners[3] = Manner::Full;
    world.manners[4] = Manner::Silent;
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    assert!(placement.holders.iter().all(|holder| holder.peer != peer(3) && holder.peer != peer(4)));
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn who_is_busy_is_asked_again() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    // Just k are left, and all of them refuse the first time.
    for i in 1..=4 {
        world.manners[i] = Manner::Silent;
    }
    for i in 5..=10 {
        world.manners[i] = Manner::Busy(1);
    }
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert!(world.manners[5..].iter().all(|manner| *manner == Manner::Busy(0)), "nobody was busy");
}

type Stored = (World, Arc<Placement>, Arc<Coded>, Vec<(ExtentRef, Bytes)>);

/// A segment of which `dead` have no connection any more.
fn stored_without(dead: &[usize]) -> Stored {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    for i in dead {
        world.manners[*i] = Manner::Gone;
        world.queue.push_back((0, Input::Disconnected(peer(*i))));
    }
    world.settle();
    (world, placement, coded, plain)
}

#[test]
fn a_lost_message_is_no_reason_to_give_a_row_up() {
    let (mut world, placement, coded, plain) = stored_without(&[1, 2, 3, 4]);
    for i in 5..=10 {
        world.manners[i] = Manner::Deaf(1);
    }
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
    assert!(world.manners[5..].iter().all(|manner| *manner == Manner::Deaf(0)), "nobody was deaf");
}

#[test]
fn who_cannot_be_reached_though_it_has_a_connection_is_asked_once_in_a_while() {
    let (mut world, placement, coded, plain) = stored_without(&[]);
    for i in 1..=5 {
        world.manners[i] = Manner::Gone;
    }
    world.sent.clear();
    match fetch(&mut world, &placement, &coded, &plain) {
        Outcome::Failed(CommandError::Deadline { have, need, .. }) => assert_eq!((have, need), (5, 6)),
        other => panic!("{other:?}"),
    }
    for i in 1..=5 {
        let asked = world.sent.iter().filter(|(to, request)| *to == i && matches!(request, Request::Get { .. }));
        let asked = asked.count();
        assert!((2..=31).contains(&asked), "{asked} times in 30 s");
    }
}

#[test]
fn who_comes_back_while_others_are_waited_for_is_asked_again() {
    let (mut world, placement, coded, plain) = stored_without(&[1, 2, 3, 4, 5]);
    world.manners[6] = Manner::Deaf(1);
    let id = CommandId(7);
    world.queue.push_back((0, Input::Command { id, command: get(&placement, &coded, &plain) }));
    world.run(2_000);
    world.manners[5] = Manner::Honest;
    world.queue.push_back((0, Input::Connected(peer(5))));
    world.run(15_000);
    let ended = world.finished.iter().find(|(ended, _)| *ended == id);
    assert_eq!(ended.map(|(_, outcome)| outcome), Some(&expect(&plain)));
}

#[test]
fn what_nobody_is_there_to_give_is_an_error_at_once() {
    let (mut world, placement, coded, plain) = stored_without(&[1, 2, 3, 4, 5]);
    let began = world.now.mono;
    match fetch(&mut world, &placement, &coded, &plain) {
        Outcome::Failed(CommandError::TooFewShards { have, need, .. }) => assert_eq!((have, need), (5, 6)),
        other => panic!("{other:?}"),
    }
    assert!(world.now.mono.since(began) < 1_000, "it waited for the dead");
}

#[test]
fn too_few_peers_end_an_upload_with_a_reason() {
    let mut world = World::new(8);
    let (coded, _) = coded(6, 10);
    match upload(&mut world, &coded) {
        Outcome::Failed(CommandError::NotPlaced { stored, n, .. }) => assert_eq!((stored, n), (7, 10)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upload_that_all_clocks_refuse_says_that_it_is_the_clock() {
    let mut world = World::new(11);
    let (coded, _) = coded(6, 10);
    // This device's clock is years ahead, and with it the end of its leases.
    let until = UnixSeconds(world.now.unix.0 + 10 * 365 * 86_400);
    let outcome = world.command(0, Command::Upload { coded, leases: leases(), until, patience: 20_000 });
    let Outcome::Failed(CommandError::NotPlaced { stored: 0, why, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("clock"), "{why}");
    assert!(world.nodes.iter().all(|node| node.peers().iter().all(|view| view.faults == 0)), "nobody is to blame");
}

#[test]
fn a_probe_tells_held_missing_and_unreachable_apart() {
    let mut world = World::new(11);
    let (coded, _) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    world.disks[1].clear();
    world.manners[2] = Manner::Silent;
    match world.command(0, Command::Probe { placement, within: 5_000 }) {
        Outcome::Probed { held, missing, unreachable } => {
            assert_eq!((held.len(), missing.len(), unreachable.len()), (8, 1, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_reads_the_row_it_holds_from_its_own_store() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    // m others are gone: with its own row there are just k
    for i in [2, 3, 4, 5] {
        world.manners[i] = Manner::Silent;
    }
    world.sent.clear();
    let wanted = plain
        .iter()
        .map(|(extent, _)| {
            let at = coded.contents.iter().find(|at| at.id == extent.id()).unwrap();
            (extent.clone(), at.offset)
        })
        .collect();
    let outcome = world.command(1, Command::Fetch { placement: placement.clone(), wanted, around: 0, within: 30_000 });
    assert_eq!(outcome, expect(&plain));
    match world.command(1, Command::Probe { placement, within: 20_000 }) {
        Outcome::Probed { held, missing, unreachable } => {
            assert_eq!((held.len(), missing.len(), unreachable.len()), (6, 0, 4));
        }
        other => panic!("{other:?}"),
    }
    assert!(world.sent.iter().all(|(to, _)| *to != 1), "it asked itself over the network");
}

/// What is held here is found all the same: it says nothing of what the others have by now.
#[test]
fn a_look_up_says_how_many_others_have_answered() {
    let mut world = World::new(4);
    let record = Record::sign(&ed25519_dalek::SigningKey::from_bytes(&[9; 32]), 1, b"one".to_vec()).unwrap();
    assert_eq!(world.lookup(0, record.key()), (None, 3));
    world.command(0, Command::Publish { record: record.clone(), enough: 3 });
    world.manners[1] = Manner::Silent;
    assert_eq!(world.lookup(0, record.key()), (Some(record.clone()), 2));
    (2..4).for_each(|other| world.manners[other] = Manner::Silent);
    assert_eq!(world.lookup(0, record.key()), (Some(record), 0));
}

#[test]
fn a_record_outlives_its_owner_by_being_handed_on() {
    let mut world = World::new(6);
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let record = Record::sign(&key, 1, b"one".to_vec()).unwrap();
    assert_eq!(
        world.command(0, Command::Publish { record: record.clone(), enough: 3 }),
        Outcome::Published { stored: 5 }
    );
    world.manners[0] = Manner::Silent;
    // the owner is away for three lifetimes; nobody hears from it
    world.nodes[0] = Node::new(NodeConfig::new(peer(0), metric, Quota::default(), Used::default()));
    world.run(35_000);
    assert_eq!(world.lookup(3, record.key()), (Some(record.clone()), 4));
    let newer = Record::sign(&key, 2, b"two".to_vec()).unwrap();
    world.command(1, Command::Publish { record: newer.clone(), enough: 3 });
    assert_eq!(world.lookup(3, record.key()), (Some(newer), 4));
    assert!(matches!(
        world.command(1, Command::Publish { record, enough: 3 }),
        Outcome::Failed(CommandError::Record(_))
    ));
}

#[test]
fn a_record_counts_only_where_the_disk_has_it() {
    let mut world = World::new(6);
    world.broken = vec![2, 3];
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let record = Record::sign(&key, 1, b"one".to_vec()).unwrap();
    let publish = |record: &Record| Command::Publish { record: record.clone(), enough: 5 };
    assert_eq!(world.command(0, publish(&record)), Outcome::Published { stored: 3 });
    // The same again: what is served from memory only is still not kept, and what is kept need not be written again.
    assert_eq!(world.command(0, publish(&record)), Outcome::Published { stored: 3 });
    world.broken = vec![];
    assert_eq!(world.command(0, publish(&record)), Outcome::Published { stored: 5 });
    let newer = Record::sign(&key, 2, b"two".to_vec()).unwrap();
    world.command(1, publish(&newer));
    let asked = |record: &Record| Request::Record { bytes: crate::codec::encode(record).into() };
    world.inbound.insert(77, (0, RequestId(u64::MAX), Instant(u64::MAX)));
    let input = Input::Request { peer: peer(0), inbound: InboundId(77), request: asked(&record) };
    let effects = world.nodes[4].step(world.now, input);
    let newer_here = Response::Refused(Refusal::Newer);
    assert!(effects.iter().any(|e| matches!(e, Effect::Reply { response, .. } if *response == newer_here)));
}

#[test]
fn one_signer_cannot_keep_a_disk_busy_and_is_a_flooder_only_when_it_goes_on() {
    use crate::limits::{RECORD_CHANGES_FLOOD, RECORD_CHANGES_HOUR};
    let mut world = World::new(2);
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let mut stores = 0;
    let mut bring = |sequence: u32| {
        let record = Record::sign(&key, u64::from(sequence), b"x".to_vec()).unwrap();
        let bytes = crate::codec::encode(&record);
        let request = Request::Record { bytes: bytes.into() };
        let input = Input::Request { peer: peer(0), inbound: InboundId(u64::from(sequence)), request };
        let mut refused = None;
        for effect in world.nodes[1].step(world.now, input) {
            match effect {
                Effect::Store { id, .. } => {
                    stores += 1;
                    world.nodes[1]
                        .step(world.now, Input::Stored { id, reply: StoreReply::Done { used: Used::default() } });
                }
                Effect::Reply { response: Response::Refused(refusal), .. } => refused = Some(refusal),
                _ => {}
            }
        }
        let view = world.nodes[1].peers().into_iter().find(|view| view.peer == peer(0)).unwrap();
        (refused, view.faults, view.blocked)
    };
    // The first one is new and no change.
    let last = RECORD_CHANGES_HOUR + 1;
    for sequence in 1..=last {
        assert_eq!(bring(sequence), (None, 0, false));
    }
    for sequence in last + 1..=RECORD_CHANGES_FLOOD + 1 {
        assert_eq!(bring(sequence), (Some(Refusal::TooOften), 0, false));
    }
    let mut sequence = RECORD_CHANGES_FLOOD + 2;
    while !bring(sequence).2 {
        assert!(sequence < RECORD_CHANGES_FLOOD + 50, "it may go on and on");
        sequence += 1;
    }
    assert_eq!(stores, RECORD_CHANGES_HOUR + 1);
}

#[test]
fn who_could_not_be_reached_is_not_waited_for_again_at_once() {
    let mut world = World::new(11);
    let (coded, plain) = coded(6, 10);
    let placement = placed(upload(&mut world, &coded));
    for i in 1..=5 {
        world.manners[i] = Manner::Silent;
        world.queue.push_back((0, Input::Disconnected(peer(i))));
    }
    let failed = |outcome| match outcome {
        Outcome::Failed(CommandError::TooFewShards { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let began = world.now.mono;
    failed(fetch(&mut world, &placement, &coded, &plain));
    assert!(world.now.mono.since(began) > 5_000, "they were not asked");
    let began = world.now.mono;
    let why = failed(fetch(&mut world, &placement, &coded, &plain));
    assert!(world.now.mono.since(began) < 1_000, "it waited again");
    assert!(why.contains("a moment ago"), "{why}");
    for i in 1..=5 {
        world.manners[i] = Manner::Honest;
        world.queue.push_back((0, Input::Connected(peer(i))));
    }
    assert_eq!(fetch(&mut world, &placement, &coded, &plain), expect(&plain));
}

#[test]
fn a_publisher_waits_for_who_is_there_and_for_others_only_while_too_few_are() {
    let mut world = World::new(10);
    for i in 6..10 {
        world.manners[i] = Manner::Silent;
        world.queue.push_back((0, Input::Disconnected(peer(i))));
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let publish = |world: &mut World, sequence, enough| {
        let record = Record::sign(&key, sequence, b"one".to_vec()).unwrap();
        let (began, sent) = (world.now.mono, world.sent.len());
        let outcome = world.command(0, Command::Publish { record, enough });
        let handed = world.sent[sent..].iter().filter(|(_, request)| matches!(request, Request::Record { .. })).count();
        (outcome, handed, world.now.mono.since(began))
    };
    // All are handed it.
    let (outcome, handed, took) = publish(&mut world, 1, 3);
    assert_eq!((outcome, handed), (Outcome::Published { stored: 5 }, 9));
    assert!(took < 1_000, "{took} ms for those that have left");
    // Five are too few, and any of the others may be one that only has no connection yet.
    let (outcome, _, took) = publish(&mut world, 2, 6);
    assert_eq!(outcome, Outcome::Published { stored: 5 });
    assert!(took >= 4_000, "given up after {took} ms");
    // One that is there and slow is waited for, but not for ever.
    world.manners[5] = Manner::Silent;
    let (outcome, _, took) = publish(&mut world, 3, 3);
    assert_eq!(outcome, Outcome::Published { stored: 4 });
    assert!((4_000..6_000).contains(&took), "{took} ms for one that is slow");
}

#[test]
fn forged_and_broken_records_cost_their_sender() {
    let mut world = World::new(3);
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let good = Record::sign(&key, 1, b"one".to_vec()).unwrap();
    let mut bytes = crate::codec::encode(&good);
    let broken = bytes[..bytes.len() / 2].to_vec();
    bytes[60] ^= 1;
    for (id, bytes) in [(70, broken), (71, bytes)] {
        world.inbound.insert(id, (2, RequestId(u64::MAX), Instant(u64::MAX)));
        let request = Request::Record { bytes: bytes.into() };
        world.queue.push_back((1, Input::Request { peer: peer(2), inbound: InboundId(id), request }));
    }
    world.settle();
    assert_eq!(world.nodes[1].records_held(), 0);
    let view = world.nodes[1].peers().into_iter().find(|view| view.peer == peer(2)).unwrap();
    assert!(view.faults >= 50);
}

#[test]
fn a_donor_refuses_what_is_not_right_and_keeps_its_quota() {
    let mut world = World::new(2);
    world.nodes[1] = Node::new(NodeConfig::new(peer(1), metric, Quota::for_all(1000), Used::default()));
    let body = Bytes::from(vec![7; 600]);
    let shard = ShardId(*blake3::hash(&body).as_bytes());
    let sign = |until| leases().lease(&peer(1), &shard, UnixSeconds(until));
    let mut ask = |request| {
        world.inbound.insert(77, (0, RequestId(u64::MAX), Instant(u64::MAX)));
        let input = Input::Request { peer: peer(0), inbound: InboundId(77), request };
        let mut effects = VecDeque::from(world.nodes[1].step(world.now, input));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Reply { response, .. } => return response,
                Effect::Store { id, .. } => {
                    let input =
                        Input::Stored { id, reply: StoreReply::Done { used: Used::by(Depositor::Newcomer, 600) } };
                    effects.extend(world.nodes[1].step(world.now, input));
                }
                _ => {}
            }
        }
        panic!("no reply")
    };
    let put = |shard, lease| Request::Put { shard, lease, body: body.clone() };
    let invalid = Response::Refused(Refusal::Invalid);
    assert_eq!(ask(put(ShardId([0; 32]), sign(1_000_100))), invalid);
    assert_eq!(ask(put(shard, sign(10))), Response::Refused(Refusal::Clock));
    assert_eq!(ask(put(shard, sign(u64::MAX))), Response::Refused(Refusal::Clock));
    assert_eq!(ask(put(shard, sign(1_000_100))), Response::Ok);
    assert_eq!(ask(put(shard, sign(1_000_100))), Response::Refused(Refusal::Full));
}

#[test]
fn a_keeper_that_came_later_serves_records_when_the_first_ones_are_gone() {
    let mut world = World::new(9);
    let late = 6..9;
    for i in late.clone() {
        world.manners[i] = Manner::Silent;
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let record = Record::sign(&key, 1, b"one".to_vec()).unwrap();
    let publish = Command::Publish { record: record.clone(), enough: 5 };
    assert_eq!(world.command(0, publish), Outcome::Published { stored: 5 });
    assert!(late.clone().all(|i| world.kept[i].is_empty()));
    for i in late.clone() {
        world.manners[i] = Manner::Honest;
    }
    world.run(10_000);
    // All that ever heard from the owner go, for good.
    for i in 0..6 {
        world.manners[i] = Manner::Silent;
        world.kept[i].clear();
        world.nodes[i] = Node::new(NodeConfig::new(peer(i), metric, Quota::default(), Used::default()));
    }
    // Three lifetimes on, with nobody but the late ones.
    world.run(35_000);
    for i in late.clone() {
        assert_eq!(world.nodes[i].records_held(), 1);
        assert_eq!(world.lookup(i, record.key()).0, Some(record.clone()));
    }
}

#[test]
fn donors_are_counted_as_they_come_and_go() {
    let mut world = World::new(4);
    let settled = |world: &mut World| {
        world.run(5_000);
        world.nodes[1].step(world.now, Input::Tick);
        world.nodes[1].settled_for()
    };
    // What the count says is what going through the peers says.
    let step = |world: &mut World, input: Input| {
        let node = &mut world.nodes[1];
        node.step(world.now, input);
        let views = node.peers();
        let there = views.iter().filter(|view| view.connected && view.hello.as_ref().is_some_and(|h| h.donated > 0));
        assert_eq!(node.donors(), there.count());
        (node.donors(), node.settled_for() == 0)
    };
    assert_eq!((world.nodes[0].donors(), world.nodes[1].donors()), (3, 2));
    assert!(settled(&mut world) >= 5_000);
    // One that stores nothing is none, and unsettles nobody.
    assert_eq!(step(&mut world, Input::Disconnected(peer(0))), (2, false));
    assert_eq!(step(&mut world, Input::Connected(peer(0))), (2, false));
    let request = Request::Hello(Hello { free: 0, donated: 0, to_newcomer: false, leaving: false });
    assert_eq!(step(&mut world, Input::Request { peer: peer(0), inbound: InboundId(1 << 41), request }), (2, false));
    assert_eq!(step(&mut world, Input::Disconnected(peer(2))), (1, true));
    assert!(settled(&mut world) >= 5_000);
    assert_eq!(step(&mut world, Input::Disconnected(peer(2))), (1, false));
    // One that comes back is known to store; one that says that it does so no more is none.
    assert_eq!(step(&mut world, Input::Connected(peer(2))), (2, true));
    assert!(settled(&mut world) >= 5_000);
    assert_eq!(step(&mut world, Input::Connected(peer(2))), (2, false));
    let request = Request::Hello(Hello { free: 0, donated: 0, to_newcomer: false, leaving: false });
    assert_eq!(step(&mut world, Input::Request { peer: peer(2), inbound: InboundId(1 << 40), request }), (1, true));
}

/// A donor says to node 0 how much room it has.
fn has_room(world: &mut World, i: usize, free: u64) {
    let request = Request::Hello(Hello { free, donated: 1 << 30, to_newcomer: false, leaving: false });
    world.inbound.insert(500 + i as u64, (i, RequestId(u64::MAX), Instant(u64::MAX)));
    world.queue.push_back((0, Input::Request { peer: peer(i), inbound: InboundId(500 + i as u64), request }));
    world.settle();
}

/// All donors of the world are full, and say so to node 0.
fn all_full(world: &mut World) {
    (1..world.nodes.len()).for_each(|i| has_room(world, i, 2048));
}

#[test]
fn who_has_no_room_for_a_shard_of_the_plan_counts_for_none() {
    let mut world = World::new(12);
    let all = world.nodes[0].plan().unwrap();
    assert_eq!(all.n, 11);
    // Enough for a shard of the largest k, and not for one of this plan.
    let shard = full_shard_len(all.k) as u64;
    has_room(&mut world, 7, shard - 1);
    let rest = world.nodes[0].plan().unwrap();
    assert_eq!(rest.n, 10);
    assert!(world.nodes[0].shard_room(10) >= Some(full_shard_len(rest.k) as u64));
    assert_eq!(world.nodes[0].shard_room(11), Some(shard - 1));
    has_room(&mut world, 7, shard);
    assert_eq!(world.nodes[0].plan().unwrap().n, 11);
    // Where nobody has room for more, segments get as small as they have to be.
    (1..12).for_each(|i| has_room(&mut world, i, shard - 1));
    assert_eq!(world.nodes[0].plan().unwrap().n, 11);
    assert_eq!((world.nodes[0].shard_room(11), world.nodes[0].shard_room(12)), (Some(shard - 1), None));
}

#[test]
fn who_comes_and_goes_counts_for_a_plan_when_it_has_stayed() {
    let flap = |world: &mut World, i: usize| {
        for input in [Input::Disconnected(peer(i)), Input::Connected(peer(i))] {
            world.run(1_000);
            world.queue.push_back((0, input));
            world.settle();
        }
    };
    let n = |world: &World| (world.nodes[0].plan().unwrap().n, world.nodes[0].cautious_plan().unwrap().n);
    let mut world = World::new(11);
    flap(&mut world, 3);
    assert_eq!(n(&world), (10, 10), "everyone restarts now and then");
    flap(&mut world, 3);
    assert_eq!(n(&world), (9, 9));
    world.run(130_000);
    assert_eq!(n(&world), (10, 10));
    // Where too few stay, the others are better than none; but not for what they did not take.
    (4..11).for_each(|i| (0..2).for_each(|_| flap(&mut world, i)));
    assert_eq!(n(&world), (10, 3));
}

#[test]
fn who_says_that_it_has_room_and_takes_nothing_counts_for_no_plan_for_a_while() {
    let mut world = World::new(11);
    world.manners[3] = Manner::Full;
    let (coded, _) = coded(6, 10);
    let outcome = upload(&mut world, &coded);
    assert!(matches!(outcome, Outcome::Failed(CommandError::NotPlaced { stored: 9, n: 10, .. })), "{outcome:?}");
    has_room(&mut world, 3, 1 << 40);
    assert_eq!(world.nodes[0].plan().unwrap().n, 9);
    world.run(130_000);
    assert_eq!(world.nodes[0].plan().unwrap().n, 10);
    // One shard that it takes makes up for all.
    world.manners[3] = Manner::Honest;
    assert_eq!(placed(upload(&mut world, &coded)).holders.len(), 10);
    assert_eq!(world.nodes[0].plan().unwrap().n, 10);
}

#[test]
fn donors_without_room_are_told_apart_from_none_and_asked_again_but_not_all_the_time() {
    let mut world = World::new(4);
    all_full(&mut world);
    let full = NoPlan::Full { donors: 3, roomy: 0, free: 6144, to_newcomer: 0 };
    assert_eq!(world.nodes[0].plan(), Err(full));
    let why = full.to_string();
    assert!(why.contains("the 3 connected peers that donate space are full") && why.contains("6 KiB"), "{why}");
    // They have room again, and are asked for it.
    let hellos = |world: &World| world.sent.iter().filter(|(_, sent)| matches!(sent, Request::Hello(_))).count();
    let before = hellos(&world);
    assert_eq!(world.command(0, Command::AskRoom), Outcome::Asked);
    assert_eq!(hellos(&world), before + 3);
    assert!(world.nodes[0].plan().is_ok());
    all_full(&mut world);
    assert_eq!(world.command(0, Command::AskRoom), Outcome::Asked);
    assert_eq!((hellos(&world), world.nodes[0].plan()), (before + 3, Err(full)), "they were asked a moment ago");
    // One that does not answer keeps nobody waiting for long.
    world.run(5_000);
    world.manners[1] = Manner::Silent;
    let began = world.now.mono;
    assert_eq!(world.command(0, Command::AskRoom), Outcome::Asked);
    assert!(world.now.mono.since(began) < 4_000 && world.nodes[0].plan().is_ok());
    let mut alone = World::new(2);
    all_full(&mut alone);
    assert_eq!(alone.nodes[0].plan(), Err(NoPlan::Few));
}

#[test]
fn an_upload_that_waits_for_room_goes_on_soon_after_there_is_some() {
    let mut world = World::new(11);
    all_full(&mut world);
    let (coded, _) = coded(6, 10);
    // It gives up in 20 s; of itself each donor says what it has once a minute.
    let began = world.now.mono;
    let placement = placed(upload(&mut world, &coded));
    assert_eq!(placement.holders.len(), 10);
    assert!(world.now.mono.since(began) < 6_000);
}

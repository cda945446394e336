//! Having holders prove that they have what they acknowledged.

use super::*;
use crate::limits::{AUDIT_CHUNK, AUDITS_PER_PEER};

const SEED: [u8; 32] = [9; 32];

fn audit(world: &mut World, placement: &Arc<Placement>, rows: impl IntoIterator<Item = u8>, seed: u8) -> Outcome {
    let rows = rows.into_iter().collect();
    world.command(0, Command::Audit { placement: placement.clone(), rows, seed: [seed; 32], within: 30_000 })
}

/// Who holds these rows.
fn holders<const N: usize>(world: &World, placement: &Placement, rows: [u8; N]) -> [usize; N] {
    rows.map(|row| world.at(placement.holders.iter().find(|holder| holder.row == row).unwrap().peer))
}

fn stored(donors: usize, k: u8) -> (World, Arc<Placement>) {
    let mut world = World::new(donors + 1);
    let (coded, _) = coded(k, donors as u8);
    let placement = placed(upload(&mut world, &coded));
    (world, placement)
}

fn view(world: &World, at: usize) -> PeerView {
    world.nodes[0].peers().into_iter().find(|view| view.peer == peer(at)).unwrap()
}

#[test]
fn every_holder_is_told_apart_by_what_it_proves() {
    let (mut world, placement) = stored(10, 6);
    let all = (0..10).collect::<Vec<u8>>();
    let nothing = Vec::new;
    let audited = |passed: &[u8], lied: &[u8], damaged: &[u8], missing: &[u8], unreachable: &[u8]| Outcome::Audited {
        passed: passed.to_vec(),
        lied: lied.to_vec(),
        damaged: damaged.to_vec(),
        missing: missing.to_vec(),
        unreachable: unreachable.to_vec(),
    };
    assert_eq!(audit(&mut world, &placement, all.clone(), 1), audited(&all, &[], &[], &[], &[]));
    assert!(world.nodes[0].peers().iter().all(|view| view.faults == 0 && !view.distrusted));

    let [liar, empty, spoiled, silent, gone, busy] = holders(&world, &placement, [0, 1, 2, 3, 4, 5]);
    world.manners[liar] = Manner::Liar;
    world.disks[empty].clear();
    world.manners[spoiled] = Manner::Spoiled;
    world.manners[silent] = Manner::Silent;
    world.manners[gone] = Manner::Gone;
    // Once is no more than being busy.
    world.manners[busy] = Manner::Busy(1);
    let outcome = audit(&mut world, &placement, all, 2);
    assert_eq!(outcome, audited(&[5, 6, 7, 8, 9], &[0], &[2], &[1], &[3, 4]));
    // Those that were asked for, and nobody else; what nobody holds is left out.
    world.sent.clear();
    let outcome = audit(&mut world, &placement, [1, 7, 11, 200], 3);
    assert_eq!(outcome, audited(&[7], &[], &[], &[1], &[]));
    let asked = world.sent.iter().filter(|(_, request)| matches!(request, Request::Audit { .. })).count();
    assert_eq!(asked, 2);
    assert_eq!(audit(&mut world, &placement, [], 3), audited(&nothing(), &[], &[], &[], &[]));

    // Who was busy and stays so has shown nothing, and is no liar.
    world.manners[busy] = Manner::Busy(9);
    assert_eq!(audit(&mut world, &placement, [5], 4), audited(&[], &[], &[], &[], &[5]));
    world.run(1);
    assert!(view(&world, liar).faults > 0 && view(&world, liar).distrusted);
    assert!(view(&world, empty).faults == 0 && view(&world, empty).distrusted, "it owns up to it");
    assert!(view(&world, spoiled).faults == 0 && view(&world, spoiled).distrusted);
    assert!(!view(&world, busy).distrusted && view(&world, busy).faults == 0);
}

#[test]
fn who_lies_in_audits_gets_nothing_new_for_a_day_and_is_cut_off_at_the_third() {
    let (mut world, placement) = stored(10, 6);
    let [liar] = holders(&world, &placement, [0]);
    world.manners[liar] = Manner::Liar;
    audit(&mut world, &placement, [0], 1);
    world.run(20 * 3_600_000);
    world.queue.push_back((0, Input::Tick));
    world.settle();
    assert!(view(&world, liar).distrusted && !view(&world, liar).blocked);
    assert_eq!(world.nodes[0].plan().unwrap().n, 9, "nothing is planned for it");
    audit(&mut world, &placement, [0], 2);
    assert!(!view(&world, liar).blocked);
    audit(&mut world, &placement, [0], 3);
    assert!(view(&world, liar).blocked);
}

/// A custodian knows the address and the length: what it asks for cannot be known before, and an answer to another challenge or of
/// another shard is none.
#[test]
fn each_holder_is_asked_for_a_chunk_of_its_own_that_follows_from_the_seed() {
    let (mut world, placement) = stored(10, 6);
    let mut chunks = |seed| {
        world.sent.clear();
        audit(&mut world, &placement, 0..10, seed);
        let chunk = |(_, request): &(usize, Request)| match request {
            Request::Audit { chunk, .. } => Some(*chunk),
            _ => None,
        };
        world.sent.iter().filter_map(chunk).collect::<Vec<u32>>()
    };
    let (first, second) = (chunks(1), chunks(2));
    assert!(first.len() == 10 && first != second && chunks(1) == first);
    let count = placement.segment.shard_len / AUDIT_CHUNK as u32;
    assert!(first.iter().chain(&second).all(|chunk| *chunk < count));
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 5, "{first:?}");
}

#[test]
fn what_is_not_owed_any_more_is_no_fault() {
    let (mut world, placement) = stored(10, 6);
    let [empty] = holders(&world, &placement, [0]);
    world.disks[empty].clear();
    world.now.unix.0 += 100 * 86_400;
    assert!(matches!(audit(&mut world, &placement, [0], 1), Outcome::Audited { missing, .. } if missing == [0]));
    assert!(!view(&world, empty).distrusted);
}

#[test]
fn a_node_audits_the_row_it_holds_itself() {
    let (mut world, placement) = stored(10, 6);
    let [at] = holders(&world, &placement, [3]);
    let command = Command::Audit { placement: placement.clone(), rows: vec![3], seed: SEED, within: 30_000 };
    assert!(matches!(world.command(at, command), Outcome::Audited { passed, .. } if passed == [3]));
    world.disks[at].clear();
    let command = Command::Audit { placement, rows: vec![3], seed: SEED, within: 30_000 };
    assert!(matches!(world.command(at, command), Outcome::Audited { missing, .. } if missing == [3]));
}

/// A few bytes asked have a whole shard read: so a donor does that for nobody more than a little at once.
#[test]
fn more_audits_than_a_few_of_one_peer_wait_their_turn() {
    let mut node = Node::new(NodeConfig::new(peer(1), metric, Quota::for_all(1 << 30), Used::default()));
    let now = Now { mono: Instant(1), unix: UnixSeconds(1) };
    let request = Request::Audit { shard: ShardId([1; 32]), chunk: 3 };
    let mut ask = |from: usize, inbound| {
        node.step(now, Input::Request { peer: peer(from), inbound: InboundId(inbound), request: request.clone() })
    };
    let mut stores = vec![];
    for inbound in 0..AUDITS_PER_PEER as u64 {
        let effects = ask(2, inbound);
        let [Effect::Store { id, op: StoreOp::Prove { chunk: 3, .. } }] = &effects[..] else { panic!("{effects:?}") };
        stores.push(*id);
    }
    let is_busy =
        |effects: &[Effect]| matches!(effects, [Effect::Reply { response: Response::Refused(Refusal::Busy), .. }]);
    assert!(is_busy(&ask(2, 10)) && is_busy(&ask(2, 11)));
    assert!(!is_busy(&ask(3, 12)), "others are served");
    node.step(now, Input::Stored { id: stores[0], reply: StoreReply::Bytes(Bytes::from_static(b"proof")) });
    let mut ask = |inbound| {
        node.step(now, Input::Request { peer: peer(2), inbound: InboundId(inbound), request: request.clone() })
    };
    assert!(!is_busy(&ask(13)) && is_busy(&ask(14)));
}

#[test]
fn what_is_not_audited_in_time_is_not_known() {
    let (mut world, placement) = stored(10, 6);
    for at in 1..11 {
        world.manners[at] = Manner::Silent;
    }
    let began = world.now.mono;
    let command = Command::Audit { placement, rows: (0..10).collect(), seed: SEED, within: 2_000 };
    let Outcome::Audited { unreachable, .. } = world.command(0, command) else { panic!() };
    assert_eq!(unreachable.len(), 10);
    assert!(world.now.mono.since(began) <= 2_100);
}

/// It takes what it is sent, is there, and lets every audit pass: for how long it is believed is bounded.
#[test]
fn who_is_there_and_answers_no_audit_is_believed_for_two_days() {
    let (mut world, placement) = stored(10, 6);
    let [silent, other] = holders(&world, &placement, [0, 1]);
    world.manners[silent] = Manner::Silent;
    let ask = |world: &mut World, rows: &[u8], hours: u64| {
        world.run(hours * 3_600_000);
        let Outcome::Audited { missing, unreachable, .. } = audit(world, &placement, rows.to_vec(), 1) else {
            panic!()
        };
        (missing, unreachable)
    };
    for _ in 0..20 {
        assert_eq!(ask(&mut world, &[0], 2), (vec![], vec![0]), "it may have frozen");
    }
    assert!(!view(&world, silent).distrusted);
    assert_eq!(ask(&mut world, &[0], 10), (vec![0], vec![]));
    assert!(view(&world, silent).distrusted && view(&world, silent).faults == 0);
    assert_eq!(ask(&mut world, &[1], 0), (vec![], vec![]), "nobody else is thought of like that");

    // It answers again: as often as it did not it has to, and then it has a clean slate.
    world.manners[silent] = Manner::Honest;
    for _ in 0..21 {
        assert_eq!(ask(&mut world, &[0], 0), (vec![], vec![]));
    }
    world.manners[silent] = Manner::Silent;
    assert_eq!(ask(&mut world, &[0], 1), (vec![], vec![0]));
    // Who is away is not silent.
    world.manners[other] = Manner::Gone;
    for _ in 0..9 {
        assert_eq!(ask(&mut world, &[1], 6), (vec![], vec![1]));
    }
}

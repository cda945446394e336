//! Who may take up how much.

use super::*;

const BLOCK_LEN: u64 = 4096;

fn open(dir: &Path, quota: Quota) -> ShardStore {
    ShardStore::open_with(dir, quota, 5 * BLOCK as u64).unwrap()
}

/// A store for ten shards of one block, two of which may be newcomers'.
fn ten() -> (Bench, Vec<Bytes>) {
    let mut bench = Bench::new(0, 5 * BLOCK as u64);
    bench.store.close();
    bench.store = open(bench.dir.path(), Quota { bytes: 10 * BLOCK_LEN, newcomers: 2 * BLOCK_LEN });
    (bench, (0..20).map(|i| body(i, 4000)).collect())
}

fn used(known: u64, reciprocal: u64, newcomers: u64) -> Used {
    Used { known: known * BLOCK_LEN, reciprocal: reciprocal * BLOCK_LEN, newcomers: newcomers * BLOCK_LEN }
}

#[test]
fn newcomers_fill_their_share_and_nobody_else_s() {
    let (bench, bodies) = ten();
    // All at once: of what waits to be written, too, no more is taken than there is room for.
    let started: Vec<_> = bodies[..8].iter().map(|body| bench.start(put(body, 1, 90))).collect();
    let replies: Vec<StoreReply> = started.into_iter().map(|reply| reply.recv().unwrap()).collect();
    let refused = replies.iter().filter(|reply| **reply == failed_with(StoreFault::NewcomersFull)).count();
    assert_eq!((refused, bench.store.used()), (6, used(0, 0, 2)));
    for body in &bodies[8..16] {
        let depositor = if bench.store.used().known < 5 * BLOCK_LEN { Depositor::Known } else { Depositor::Reciprocal };
        assert!(matches!(bench.run(put_for(depositor, body, 2, 90)), StoreReply::Done { .. }));
    }
    assert_eq!(bench.store.used(), used(5, 3, 2));
    for depositor in Depositor::ALL {
        assert_eq!(bench.run(put_for(depositor, &bodies[17], 2, 90)), failed_with(StoreFault::Full));
    }
}

#[test]
fn a_shard_counts_for_the_first_of_those_who_have_a_lease_and_what_is_given_up_for_whoever_takes_it_again() {
    let (bench, bodies) = ten();
    bench.put(&bodies[0], 1);
    let shard = id(&bodies[0]);
    // A device of somebody who is known has a lease of it as well.
    bench.run(put_for(Depositor::Known, &bodies[0], 2, 90));
    assert_eq!(bench.store.used(), used(1, 0, 0));
    bench.put(&bodies[0], 3);
    assert_eq!(bench.store.used(), used(1, 0, 0));
    for key in [1, 2] {
        assert!(
            matches!(bench.run(release(shard, key)), StoreReply::Released { freed, .. } if freed == Used::default())
        );
    }
    let freed = used(1, 0, 0);
    assert_eq!(bench.run(release(shard, 3)), StoreReply::Released { used: used(0, 0, 0), freed });
    // Idle, it is taken again by one that stores for this node, within what all of those may.
    let again = |most| StoreOp::Renew { leases: vec![(shard, lease(4, 90))], depositor: Depositor::Reciprocal, most };
    let renewed = |used, held| StoreReply::Renewed { used, held: vec![held] };
    assert_eq!(bench.run(again(BLOCK_LEN - 1)), renewed(used(0, 0, 0), false));
    assert_eq!(bench.run(again(BLOCK_LEN)), renewed(used(0, 1, 0), true));
    assert_eq!(bench.run(again(0)), renewed(used(0, 1, 0), true), "a lease that runs is made longer");
    // And by newcomers within their share.
    bench.run(release(shard, 4));
    bodies[1..3].iter().for_each(|body| drop(bench.put(body, 1)));
    assert_eq!(bench.run(renew(vec![(shard, lease(5, 90))])), renewed(used(0, 0, 2), false));
    assert_eq!(bench.put(&bodies[0], 5), failed_with(StoreFault::NewcomersFull));
    bench.release(id(&bodies[1]), 1);
    assert_eq!(bench.run(renew(vec![(shard, lease(5, 90))])), renewed(used(0, 0, 2), true));
}

#[test]
fn what_is_there_is_counted_at_the_start_and_a_smaller_quota_puts_nobody_out() {
    let (mut bench, bodies) = ten();
    bench.put(&bodies[0], 1);
    bench.put(&bodies[1], 1);
    bench.run(put_for(Depositor::Known, &bodies[2], 1, 90));
    bench.run(put_for(Depositor::Reciprocal, &bodies[3], 1, 90));
    bench.release(id(&bodies[1]), 1);
    let before = bench.store.used();
    assert_eq!(before, used(1, 1, 1));
    for quota in [Quota::for_all(10 * BLOCK_LEN), Quota::new(10 * BLOCK_LEN, 0), Quota::default()] {
        bench.store.close();
        bench.store = open(bench.dir.path(), quota);
        assert_eq!((bench.store.used(), bench.store.idle(), bench.store.count()), (before, BLOCK_LEN, 3));
        let fault = if quota.bytes == 0 { StoreFault::Full } else { StoreFault::NewcomersFull };
        if quota.newcomers == 0 {
            assert_eq!(bench.put(&bodies[9], 1), failed_with(fault));
        }
        bodies[..4].iter().enumerate().filter(|(i, _)| *i != 1).for_each(|(_, body)| assert!(bench.have(id(body))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Puts of many at once, with ends of leases and unclean stops in between: no more than was given, ever.
    #[test]
    fn nobody_takes_more_than_was_given(
        rounds in prop::collection::vec(prop::collection::vec((0..20usize, 0..3u8, 0..3u8, any::<bool>()), 1..20), 1..6),
    ) {
        let (mut bench, bodies) = ten();
        for round in rounds {
            let started: Vec<_> = round
                .into_iter()
                .map(|(shard, depositor, key, is_put)| match is_put {
                    true => {
                        let depositor = Depositor::from_number(depositor).unwrap();
                        bench.start(put_for(depositor, &bodies[shard], key, 90))
                    }
                    false => bench.start(release(id(&bodies[shard]), key)),
                })
                .collect();
            let mut last = bench.store.used();
            for reply in started {
                if let StoreReply::Done { used } | StoreReply::Released { used, .. } = reply.recv().unwrap() {
                    last = used;
                }
                prop_assert!(last.total() <= 10 * BLOCK_LEN && last.newcomers <= 2 * BLOCK_LEN);
            }
            prop_assert_eq!(bench.store.used(), last);
            bench.store.close();
            bench.store = open(bench.dir.path(), Quota { bytes: 10 * BLOCK_LEN, newcomers: 2 * BLOCK_LEN });
            prop_assert_eq!(bench.store.used(), last, "what is on the disk says the same");
        }
    }
}

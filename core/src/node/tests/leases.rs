//! Having shards kept for longer, or no longer.

use super::*;
use crate::lease::{Lease, LeaseToken};

fn lease() -> Lease {
    Lease { key: LeaseToken([5; 32]).key(), expires: UnixSeconds(1_000_100) }
}

fn shards(placement: &Placement, holder: usize) -> Vec<ShardId> {
    let rows = placement.holders.iter().filter(|at| at.peer == peer(holder));
    rows.map(|at| placement.segment.rows[usize::from(at.row)]).collect()
}

#[test]
fn a_holder_says_which_shards_it_keeps_and_gives_up_those_that_it_is_told_to() {
    let mut world = World::new(9);
    let Outcome::Uploaded(placement) = upload(&mut world, &coded(3, 6).0) else { panic!("not placed") };
    let holder = world.at(placement.holders[0].peer);
    let held = shards(&placement, holder);
    let renew = |leases| Command::Renew { holder: peer(holder), leases, within: 5_000 };
    let of = |id: ShardId| (id, lease());
    let asked = [of(ShardId([1; 32])), of(held[0]), of(ShardId([2; 32]))];
    assert_eq!(world.command(0, renew(asked.to_vec())), Outcome::Renewed(vec![false, true, false]));
    // The answer for some tells nothing of the others.
    let many = vec![of(held[0]); crate::limits::LEASES_AT_ONCE];
    assert_eq!(world.command(0, renew(many.clone())), Outcome::Renewed(vec![true; many.len()]));
    let invalid = |outcome| matches!(outcome, Outcome::Failed(CommandError::Invalid(_)));
    assert!(invalid(world.command(0, renew(Vec::new()))));
    assert!(invalid(world.command(0, renew([&many[..], &many].concat()))));

    let tokens = vec![(held[0], LeaseToken([5; 32]))];
    let release = Command::Release { holder: peer(holder), tokens, within: 5_000 };
    assert_eq!(world.command(0, release), Outcome::Released);
    assert_eq!(world.command(0, renew(vec![of(held[0])])), Outcome::Renewed(vec![false]));
}

#[test]
fn who_does_not_answer_about_leases_is_waited_for_no_longer_than_was_said() {
    let mut world = World::new(3);
    for manner in [Manner::Silent, Manner::Gone] {
        world.manners[1] = manner;
        let renew = Command::Renew { holder: peer(1), leases: vec![(ShardId([1; 32]), lease())], within: 5_000 };
        let outcome = world.command(0, renew);
        assert!(matches!(outcome, Outcome::Failed(CommandError::Lease { .. })), "{outcome:?}");
    }
    assert!(world.now.mono.since(Instant(0)) < 30_000);
}

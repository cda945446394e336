//! Rows that are placed anew beside those that are held.

use super::*;
use crate::erasure;

#[test]
fn what_is_lost_goes_to_peers_that_have_none_of_it() {
    let mut world = World::new(10);
    let (coded, _) = coded(3, 6);
    let Outcome::Uploaded(placement) = upload(&mut world, &coded) else { panic!("not placed") };
    // Two of six are gone with all they had.
    let gone: Vec<Holder> = placement.holders[1..3].to_vec();
    for holder in &gone {
        let at = world.at(holder.peer);
        world.disks[at].clear();
        world.manners[at] = Manner::Gone;
    }
    let rows = Command::Rows { placement: Arc::new(placement.clone()), within: 20_000 };
    let Outcome::Rows(data) = world.command(0, rows) else { panic!("it is readable") };
    let numbered: Vec<(u8, Bytes)> = (0..).zip(data).collect();
    // One of the lost rows, and one that nobody had.
    let wanted = vec![gone[0].row, 7];
    let shards = erasure::remake(3, &numbered, &wanted).unwrap();
    for (row, shard) in wanted.iter().zip(&shards) {
        assert_eq!(blake3::hash(shard).as_bytes(), coded.segment.rows[usize::from(*row)].as_bytes());
    }
    let left: Vec<Holder> = placement.holders.iter().filter(|holder| !gone.contains(holder)).copied().collect();
    let others = left.iter().map(|holder| holder.peer).collect();
    let part = Coded { segment: coded.segment.clone(), shards, contents: Vec::new() };
    let until = UnixSeconds(world.now.unix.0 + 1000);
    let mend = |rows, others| Command::Mend {
        coded: Arc::new(part.clone()),
        rows,
        others,
        spared: std::collections::BTreeSet::new(),
        leases: leases(),
        until,
        patience: 20_000,
    };
    let Outcome::Uploaded(new) = world.command(0, mend(wanted.clone(), others)) else { panic!("not mended") };
    assert_eq!(new.holders.iter().map(|holder| holder.row).collect::<Vec<u8>>(), wanted);
    let peers: std::collections::BTreeSet<PeerId> = left.iter().chain(&new.holders).map(|holder| holder.peer).collect();
    assert_eq!(peers.len(), 6, "each on a peer of its own");
    // With what was placed and what was left it is read by any three of them.
    let placement = Placement { holders: [left[0], new.holders[0], new.holders[1]].to_vec(), ..placement };
    let rows = Command::Rows { placement: Arc::new(placement), within: 20_000 };
    assert_eq!(world.command(0, rows), Outcome::Rows(numbered.into_iter().map(|(_, row)| row).collect()));
    for bad in [vec![], vec![1], vec![1, 200]] {
        let outcome = world.command(0, mend(bad, std::collections::BTreeSet::new()));
        assert!(matches!(outcome, Outcome::Failed(CommandError::Invalid(_))), "{outcome:?}");
    }
}

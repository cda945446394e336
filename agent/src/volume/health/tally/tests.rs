use hypernet_core::id::ShardId;
use hypernet_core::node::PeerView;
use hypernet_core::segment::Segment;
use hypernet_core::time::UnixSeconds;

use super::super::super::double::Mesh;
use super::super::super::lacking::Lacking;
use super::super::sight::Sight;
use super::*;

fn placement(k: u8, peers: &[u8]) -> Placement {
    let segment = Segment { k, shard_len: 4096, rows: vec![ShardId([k; 32]); peers.len() + 4] };
    let holder = |(peer, row): (&u8, u8)| Holder { row, peer: PeerId([*peer; 32]), until: UnixSeconds(9) };
    Placement { segment, n: peers.len() as u8, holders: peers.iter().zip(0..).map(holder).collect() }
}

/// What is seen with ten donors.
fn sight(change: impl Fn(&mut PeerView)) -> Sight {
    let mesh = Mesh::new(10);
    let mut sight = mesh.handle().ask_blocking(Sight::of).unwrap();
    sight.peers.iter_mut().for_each(change);
    sight
}

fn count(placements: &[Placement], lacking: &Lacking, sight: &Sight) -> Tally {
    let (measure, mut tally) = (Measure::new(lacking, sight), Tally::default());
    placements.iter().for_each(|placement| tally.add(placement, &measure, false));
    tally
}

fn only<K: Copy, V>(map: &BTreeMap<K, V>) -> K {
    assert_eq!(map.len(), 1);
    *map.keys().next().unwrap()
}

#[test]
fn what_may_go_are_peers_and_the_ones_that_hold_most_first() {
    let sight = sight(|view| view.connected = view.peer.0[0] <= 6);
    let spare = |peers: &[u8]| only(&count(&[placement(3, peers)], &Lacking::default(), &sight).spare);
    assert_eq!(spare(&[1, 2, 3, 4, 5, 6]), 3);
    assert_eq!(spare(&[1, 2, 3, 4, 8, 9]), 1);
    assert_eq!(spare(&[1, 1, 1, 4, 5, 6]), 1);
    assert_eq!(spare(&[1, 1, 1, 1, 5, 6]), 0);
    assert_eq!(spare(&[1, 2, 7, 8, 9, 10]), 0);
}

/// A peer, or a subnet, is one failure whatever it holds, and the same row twice is one row.
#[test]
fn the_margin_is_in_failures_and_not_in_rows() {
    let sight = sight(|_| ());
    let tally = |placement: &Placement| count(std::slice::from_ref(placement), &Lacking::default(), &sight);
    let spread = tally(&placement(3, &[1, 2, 3, 4, 5, 6]));
    assert_eq!((only(&spread.margins), spread.crowded, spread.lost()), (3, 0, 0));
    let crowded = tally(&placement(3, &[1, 1, 1, 4, 5, 6]));
    assert_eq!((only(&crowded.margins), crowded.crowded), (1, 1));
    assert!(crowded.unreadable.0 > spread.unreadable.0 && crowded.losing.0 >= spread.losing.0);
    let alone = tally(&placement(3, &[1, 1, 1, 1, 1, 1]));
    assert_eq!(only(&alone.margins), 0);
    let there = sight.peers.iter().find(|view| view.peer == PeerId([1; 32])).unwrap().worst_hour;
    assert!((alone.unreadable.0 - (1.0 - there)).abs() < 1e-9, "it is readable as long as that one is there");
    // Two devices have made row 0 anew, each on another peer.
    let mut twice = placement(3, &[1, 2, 3, 4]);
    twice.holders[3].row = 0;
    let tally = tally(&twice);
    assert_eq!((only(&tally.margins), only(&tally.health)), (0, (1, true)));
    assert_eq!(tally.homeless, 1);
}

#[test]
fn a_segment_of_which_a_row_too_many_is_gone_is_never_green() {
    for gone in 0..=6u8 {
        let placement = placement(3, &[1, 2, 3, 4, 5, 6]);
        let id = placement.segment.id();
        let rows: Vec<u8> = (0..gone).collect();
        // Whoever says so itself, and whoever could not prove it; and who is taken to be gone.
        let lacking = Lacking::default();
        let (said, unproven) = rows.split_at(usize::from(gone / 2));
        lacking.audited(id, &placement, (&[], said, unproven));
        let said = count(std::slice::from_ref(&placement), &lacking, &sight(|_| ()));
        let away = sight(|view| {
            if view.peer.0[0] <= gone {
                (view.connected, view.presence) = (false, Presence::Gone);
            }
        });
        let left = count(&[placement], &Lacking::default(), &away);
        for tally in [said, left] {
            assert_eq!(only(&tally.margins), 3 - i32::from(gone), "{gone}");
            assert_eq!((tally.lost(), tally.unreadable_now()), (u64::from(gone > 3), u64::from(gone > 3)));
            assert_eq!(tally.causes.values().flat_map(BTreeMap::values).sum::<u64>(), u64::from(gone));
            let weakest = tally.weakest.unwrap();
            assert_eq!((weakest.margin, weakest.rows), (3 - i32::from(gone), 6 - gone));
            // What nobody can mend is no work that is left, and what is due is.
            assert!(gone <= 3 || tally.due == 0);
            assert_eq!(tally.due_bytes, tally.due * u64::from(gone) * 4096);
        }
    }
}

#[test]
fn who_is_away_counts_and_is_named() {
    let away = sight(|view| match view.peer.0[0] {
        1 => (view.connected, view.presence) = (false, Presence::Away),
        2 => (view.connected, view.presence) = (false, Presence::Suspect),
        _ => {}
    });
    let tally = count(&[placement(2, &[1, 2, 3, 77])], &Lacking::default(), &away);
    assert_eq!((only(&tally.margins), only(&tally.health)), (2, (3, false)));
    assert_eq!((tally.lost(), tally.unreadable_now()), (0, 1));
    let causes: Vec<Cause> = tally.causes.keys().copied().collect();
    assert_eq!(causes, [Cause::Suspect, Cause::Away, Cause::Unmet]);
}

/// Storj's pieces came to lie in a few subnets after repairs.
#[test]
fn rows_that_came_to_lie_in_few_subnets_show() {
    let subnets = |of: fn(u8) -> u8| {
        sight(move |view| view.subnet = hypernet_core::placement::Subnet::v4([203, 0, of(view.peer.0[0]), 1]))
    };
    let tally = |sight: &Sight| count(&[placement(3, &[1, 2, 3, 4, 5, 6])], &Lacking::default(), sight);
    let (each, two) = (tally(&subnets(|peer| peer)), tally(&subnets(|peer| peer % 2)));
    assert_eq!((only(&each.margins), only(&each.domains)), (3, 3));
    assert_eq!((only(&two.margins), only(&two.domains)), (3, 1));
    let one = tally(&subnets(|_| 0));
    assert_eq!((only(&one.margins), only(&one.domains)), (3, 0));
}

#[test]
fn the_sum_is_that_of_all() {
    let sight = sight(|_| ());
    let all = [placement(3, &[1, 2, 3, 4, 5, 6]), placement(2, &[1, 1, 3]), placement(4, &[1, 2, 77])];
    let lacking = Lacking::default();
    let parts = all.iter().map(|placement| count(std::slice::from_ref(placement), &lacking, &sight));
    let sum = parts.fold(Tally::default(), |sum, tally| sum.and(&tally));
    let whole = count(&all, &lacking, &sight);
    let shown = |tally: &Tally| format!("{:?}", Tally { chances: BTreeMap::new(), ..tally.clone() });
    assert_eq!(shown(&sum), shown(&whole));
    assert_eq!(whole.lost(), 1);
}

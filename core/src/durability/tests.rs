use super::*;

fn plan(peers: usize, availability: f64) -> Plan {
    Outlook::of(peers, availability).plan().unwrap()
}

/// A sequence of numbers that depends on its seed alone.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof())
    }

    /// Above 0, and not above 1.
    fn next(&mut self) -> f64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        ((u64::from_be_bytes(bytes) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Waiting for something of this rate.
    fn wait(&mut self, rate: f64) -> f64 {
        -self.next().ln() / rate
    }
}

#[test]
fn the_tail_matches_what_the_design_names() {
    let fewest = |k, p| Outlook::of(1_000, p).fewest(k, 255);
    assert_eq!(fewest(10, 0.9), Some(18));
    assert_eq!(fewest(10, 0.75), Some(25));
    assert_eq!(fewest(20, 0.75), Some(41));
    // 42 give 99.987 %.
    assert_eq!(fewest(10, 0.5), Some(43));
    assert_eq!(readable(3, 2, 0.9), 0.0);
    assert_eq!(readable(1, 5, 1.0), 1.0);
    assert_eq!(readable(20, 60, 0.0), 0.0);
}

#[test]
fn plans_of_a_large_mesh_are_lazy_within_what_they_may_cost() {
    let at = |availability| {
        let plan = plan(1_000, availability);
        assert!(plan.meets_target && plan.is_durable(), "{plan:?}");
        (plan.k, plan.threshold, plan.n)
    };
    assert_eq!(at(0.75), (20, 41, 50), "2.5 times");
    assert_eq!(at(0.9), (20, 31, 38));
    // 28 rows are as readable as is aimed at, and would be lost too soon.
    assert_eq!(at(0.95), (20, 31, 38));
    // Less than half of the time: what is asked is had, and costs more than 2.5 times.
    let (k, threshold, n) = at(0.5);
    assert!((10..=15).contains(&k) && threshold <= n && usize::from(n) <= PLACED_MAX, "{k} {threshold} {n}");
}

#[test]
fn peers_that_differ_are_gone_through_one_by_one() {
    for (k, n) in [(1, 2), (3, 5), (10, 18), (20, 50)] {
        for p in [0.0, 0.3, 0.75, 0.95, 1.0] {
            let same = readable_among(k, &vec![p; usize::from(n)]);
            assert!((same - readable(k, n, p)).abs() < 1e-12, "{k} of {n} at {p}: {same}");
        }
    }
    // Two of three: 0.9 0.5 0.2, by hand.
    let by_hand = 0.9 * 0.5 * 0.8 + 0.9 * 0.5 * 0.2 + 0.1 * 0.5 * 0.2 + 0.9 * 0.5 * 0.2;
    assert!((readable_among(2, &[0.9, 0.5, 0.2]) - by_hand).abs() < 1e-12);
    assert_eq!(readable_among(4, &[1.0; 3]), 0.0);
    assert_eq!(readable_among(0, &[]), 1.0);
    // The mean is the lower bound.
    let mixed: Vec<f64> = (0..50).map(|i| if i % 2 == 0 { 0.55 } else { 0.95 }).collect();
    assert!(readable_among(20, &mixed) >= readable(20, 50, 0.75));
}

#[test]
fn what_is_readable_is_what_is_drawn() {
    let mut dice = Dice::new(1);
    let online: Vec<f64> = (0..12).map(|i| 0.3 + f64::from(i) * 0.05).collect();
    let draws = 40_000;
    let good = (0..draws).filter(|_| online.iter().filter(|p| dice.next() <= **p).count() >= 7).count();
    let expected = readable_among(7, &online);
    // Four standard deviations.
    let error = 4.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt();
    assert!((good as f64 / f64::from(draws) - expected).abs() < error, "{good} of {draws}, {expected} expected");
}

/// Years until fewer than k rows are left.
fn lifetime(dice: &mut Dice, outlook: &Outlook, (k, n, threshold): (u8, u8, u8)) -> f64 {
    let (mut rows, mut years) = (n, 0.0);
    while rows >= k {
        let leaves = dice.wait(f64::from(rows) * outlook.departures);
        let mends = if rows <= threshold && rows < n { dice.wait(1.0 / outlook.repair) } else { f64::INFINITY };
        years += leaves.min(mends);
        rows = if mends < leaves { n } else { rows - 1 };
    }
    years
}

#[test]
fn what_is_lost_is_what_is_drawn() {
    // Peers that hardly stay and repairs that hardly come: what is rare cannot be drawn.
    for (seed, code) in [(1, (3, 6, 4)), (2, (2, 4, 4)), (3, (5, 9, 6)), (4, (1, 3, 1))] {
        let outlook = Outlook { departures: 1.5, repair: 0.25, ..Outlook::of(1_000, 0.9) };
        let mut dice = Dice::new(seed);
        let lives = 20_000;
        let mean = (0..lives).map(|_| lifetime(&mut dice, &outlook, code)).sum::<f64>() / f64::from(lives);
        let (k, n, threshold) = code;
        let expected = -1.0 / (-outlook.lost_meanwhile(k, n, threshold)).ln_1p();
        assert!((mean / expected - 1.0).abs() < 0.04, "{code:?}: {mean} years, {expected} expected");
    }
}

#[test]
fn a_mesh_that_nobody_joins_is_what_is_drawn() {
    let outlook = Outlook { departures: 0.5, ..Outlook::of(10, 0.9) };
    let mut dice = Dice::new(7);
    let years = 40_000;
    let lost = (0..years).filter(|_| (0..10).filter(|_| dice.wait(0.5) > 1.0).count() < 5).count();
    let expected = outlook.lost_for_want_of_peers(5);
    assert!((lost as f64 / f64::from(years) / expected - 1.0).abs() < 0.05, "{lost} of {years}, {expected} expected");
}

#[test]
fn more_of_what_is_good_is_never_worse() {
    for peers in [3, 10, 20, 35, 60, 500] {
        let mut before = 0.0;
        for percent in (5..=100).step_by(5) {
            let readable = plan(peers, f64::from(percent) / 100.0).readable.min(TARGET);
            assert!(readable >= before - 1e-12, "{peers} peers, {percent} %");
            before = readable;
        }
    }
    let (near, far) = (Outlook::of(500, 0.75), Outlook { departures: 0.69, ..Outlook::of(500, 0.75) });
    for k in 2..20u8 {
        assert!(near.lost_meanwhile(k, 40, 30) <= near.lost_meanwhile(k + 1, 40, 30));
        assert!(near.lost_meanwhile(k, 40, 30) <= far.lost_meanwhile(k, 40, 30));
        assert!(near.lost_meanwhile(k, 40, 31) <= near.lost_meanwhile(k, 40, 30), "repairs that begin earlier");
        assert!(near.lost_for_want_of_peers(k) <= far.lost_for_want_of_peers(k));
    }
    let slow = Outlook { repair: 1.0, ..near };
    assert!(near.lost_meanwhile(20, 50, 41) < slow.lost_meanwhile(20, 50, 41));
}

#[test]
fn a_small_mesh_says_what_it_risks() {
    // One of five peers is gone after a year, and nobody comes: five of ten are, in three years of a hundred.
    let ten = plan(10, 0.95);
    assert_eq!((ten.k, ten.n, ten.threshold), (6, 10, 10));
    assert!(ten.meets_target && !ten.is_durable(), "{ten:?}");
    assert_eq!(ten.nines.whole(), 1, "{ten:?}");
    let forty = plan(40, 0.95);
    assert!(forty.nines > ten.nines && forty.k == K_PREFERRED, "{forty:?}");
    let many = plan(70, 0.95);
    assert!(many.is_durable(), "{many:?}");
    assert!(!plan(3, 0.9).meets_target);
}

#[test]
fn repairs_begin_earlier_where_peers_leave_faster_or_are_missed_later() {
    let calm = plan(1_000, 0.95);
    let outlook = Outlook { departures: 0.6, repair: 0.05, ..Outlook::of(1_000, 0.95) };
    let wild = outlook.plan().unwrap();
    assert!(wild.threshold > calm.threshold || wild.k < calm.k, "{wild:?}");
    assert!(outlook.lost_meanwhile(wild.k, wild.n, wild.threshold) <= LOSS_TARGET, "{wild:?}");
    // Where nothing helps, it is said.
    let hopeless = Outlook { departures: 50.0, repair: 1.0, ..Outlook::of(1_000, 0.95) }.plan().unwrap();
    assert!(!hopeless.is_durable() && hopeless.nines.whole() == 0, "{hopeless:?}");
}

#[test]
fn plans_shrink_with_the_mesh() {
    assert_eq!(Outlook::of(0, 0.9).plan(), None);
    assert_eq!(Outlook::of(1, 0.9).plan(), None);
    for peers in 2..120 {
        for availability in [0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0] {
            for departures in [0.0, 0.02, 0.223, 0.69, 5.0] {
                let plan = Outlook { departures, ..Outlook::of(peers, availability) }.plan().unwrap();
                assert!(plan.k >= 1 && plan.k < plan.n && usize::from(plan.n) <= peers.min(PLACED_MAX), "{plan:?}");
                assert!(plan.committed >= plan.n && plan.threshold > plan.k && plan.threshold <= plan.n, "{plan:?}");
                assert!(plan.k > 1 || peers == 2, "equal shards: {plan:?}");
                assert!(plan.n == 3 || plan.overhead() <= OVERHEAD_MAX + 0.5, "{plan:?}");
                assert!((0.0..=1.0).contains(&plan.readable) && plan.nines <= Nines::MOST, "{plan:?}");
            }
        }
    }
    let eighteen = plan(18, 0.9);
    assert_eq!((eighteen.k, eighteen.n), (10, 18), "peers do not suffice for 20 rows of data");
}

#[test]
fn fewer_rows_are_as_readable() {
    for peers in 2..80 {
        for availability in (0..=100).map(|percent| f64::from(percent) / 100.0) {
            let plan = plan(peers, availability);
            for most in [20, 25, 30, 45] {
                let within = plan.within(most);
                assert!(within.k >= 1 && within.k < within.n && within.n <= plan.n.min(most), "{within:?}");
                assert_eq!(within.committed, within.n);
                let same = within.readable >= plan.readable.min(TARGET);
                assert!(most < 25 || availability < 0.5 || same, "{plan:?} {within:?}");
                assert!(within.k > 1 || peers == 2, "equal shards: {peers} {within:?}");
                assert_eq!(within.n, plan.n.min(most));
            }
        }
    }
}

#[test]
fn nines_are_told_as_people_do() {
    assert_eq!([0.1, 0.03, 0.001, 1e-11, 0.0, 1.0].map(|wrong| Nines::of(wrong).whole()), [1, 1, 3, 11, 15, 0]);
}

#[test]
fn a_peer_that_has_several_rows_takes_all_of_them_along() {
    let each = |p: f64, rows: &[u8]| rows.iter().map(|rows| (p, *rows)).collect::<Vec<_>>();
    // One row each: the same as ever, and the tail is told where one minus it is no number any more.
    for (k, n, p) in [(1, 2, 0.5), (3, 5, 0.9), (20, 50, 0.75)] {
        let unreadable = unreadable_among(k, each(p, &vec![1; n]));
        assert!((unreadable - (1.0 - readable(k, n as u8, p))).abs() < 1e-12);
    }
    let far = unreadable_among(2, each(0.999_999, &[1; 12]));
    assert!(far > 0.0 && far < 1e-60, "{far}");
    // All on one peer, and two of three on one.
    assert!((unreadable_among(2, each(0.9, &[3])) - 0.1).abs() < 1e-12);
    assert!((unreadable_among(2, each(0.9, &[2, 1])) - 0.1).abs() < 1e-12);
    assert!((unreadable_among(3, each(0.9, &[2, 2])) - 0.19).abs() < 1e-12);
    assert_eq!(unreadable_among(3, each(1.0, &[1, 1])), 1.0);
    assert_eq!(unreadable_among(0, each(0.0, &[1])), 0.0);
}

#[test]
fn what_is_worn_is_lost_sooner_than_what_is_whole() {
    let outlook = Outlook::of(1_000, 0.75);
    // From all rows a year is what the mean rate says, but for the time until the first repair can be too late.
    let plan = outlook.plan().unwrap();
    let (k, n, threshold) = (plan.k, plan.n, plan.threshold);
    for (k, n, threshold) in [(k, n, threshold), (3, 6, 4), (2, 4, 3), (10, 18, 12)] {
        let outlook = Outlook { departures: 2.0, ..outlook };
        let (year, mean) = (outlook.lost_within_a_year(k, n, threshold, n), outlook.lost_meanwhile(k, n, threshold));
        assert!(year < 1.5 * mean && year > 0.3 * mean, "{k} of {n}: {year} {mean}");
    }
    let mut before = 0.0;
    for left in (k..=n).rev() {
        let lost = outlook.lost_from(k, n, threshold, left);
        assert!(lost >= before && lost < 1.0, "{left}: {lost} {before}");
        before = lost;
    }
    // With no row to spare it is about the chance that one goes before eight days have passed.
    let rate = f64::from(k) * outlook.departures * outlook.repair;
    assert!((before / (rate / (1.0 + rate)) - 1.0).abs() < 0.05, "{before}");
    assert_eq!(outlook.lost_from(k, n, threshold, k - 1), 1.0);
    assert_eq!(outlook.lost_from(k, n, threshold, n + 9), outlook.lost_from(k, n, threshold, n));
}

#[test]
fn where_nothing_is_made_anew_a_year_is_the_binomial_tail() {
    for (k, n, departures) in [(3, 8, 0.3), (20, 50, 0.223), (2, 3, 5.0), (10, 18, 60.0)] {
        let outlook = Outlook { departures, repair: 1e12, ..Outlook::of(5_000, 0.9) };
        let binomial = below(k.into(), n.into(), (-departures).exp());
        let year = outlook.lost_within_a_year(k, n, k, n);
        assert!((year / binomial - 1.0).abs() < 1e-6, "{k} of {n}: {year} {binomial}");
        // And where a repair has nowhere to put a row.
        let few = Outlook { peers: n.into(), departures, ..Outlook::of(0, 0.9) };
        assert!((few.lost_from(k, n, k, n) / binomial - 1.0).abs() < 1e-9);
        assert!(few.lost_from(k, n, k, n - 1) >= few.lost_from(k, n, k, n));
    }
    // Numbers from outside one's own measure end nothing.
    for odd in [0.0, 1e300, f64::INFINITY, f64::NAN] {
        let outlook = Outlook { departures: odd, repair: odd, ..Outlook::of(1_000, 0.9) };
        let lost = outlook.lost_from(3, 6, 4, 5);
        assert!((0.0..=1.0).contains(&lost), "{odd}: {lost}");
    }
}

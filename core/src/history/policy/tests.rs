use proptest::prelude::*;

use super::*;
use crate::head::Snapshot;
use crate::history::tests::{kept, tag};
use crate::history::{Kept, merge};
use crate::id::DeviceTag;
use crate::merge::join;
use crate::time::Hlc;
use crate::tree::Dot;

/// A Monday.
const MONDAY: u64 = 1_699_833_600_000;

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes()).unwrap()
}

fn automatic(millis: u64, byte: u8) -> Kept {
    Kept { by: By::Policy, ..kept(millis, byte, &[]) }
}

#[test]
fn a_policy_is_written_as_it_is_read() {
    let all = Policy { last: 1, hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 10 };
    assert_eq!(all.to_string(), "last=1 hourly=24 daily=7 weekly=4 monthly=12 yearly=10");
    for one in [all, Policy { last: 0, weekly: 0, ..all }, Policy { yearly: 1, ..Policy::default() }] {
        assert_eq!(Policy::parse(one.to_string().as_bytes()), Ok(one));
    }
    // As somebody writes it by hand.
    assert_eq!(policy("  weekly=4\n\thourly=0 daily=07\n"), Policy { daily: 7, weekly: 4, ..Policy::default() });
    assert_eq!(Policy::default().to_string(), "");
}

#[test]
fn what_is_no_policy_is_told_what_is_wrong_with_it() {
    let fails = |text: &str| Policy::parse(text.as_bytes()).unwrap_err();
    for word in ["hourly", "minutely=4", "hourly=", "hourly=-1", "hourly=+1", "hourly=x", "hourly=4294967296", "=1"] {
        assert_eq!(fails(&format!("daily=7 {word}")), NotAPolicy::Word(word.into()));
    }
    assert_eq!(fails("hourly=1 hourly=1"), NotAPolicy::Twice("hourly"));
    for text in ["", " \n", "last=5", "hourly=0"] {
        assert_eq!(fails(text), NotAPolicy::Never);
    }
    assert_eq!(policy(&format!("hourly={POLICY_KEPT_MAX}")).kinds()[1].1, POLICY_KEPT_MAX as u32);
    assert_eq!(fails(&format!("last=1 hourly={POLICY_KEPT_MAX}")), NotAPolicy::Many);
    assert_eq!(fails(&"daily=7".to_owned().replace('7', &"7".repeat(POLICY_TEXT_MAX))), NotAPolicy::Long);
    assert_eq!(Policy::parse(b"hourly=\xff"), Err(NotAPolicy::Bytes));
    // Nothing that others have written reaches a terminal as it is.
    assert!(!fails("\u{1b}[2J=1").to_string().contains('\u{1b}'));
}

proptest! {
    #[test]
    fn any_bytes_are_a_policy_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[a-z0-9= ]{0,40}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Ok(read) = Policy::parse(bytes) {
                prop_assert_eq!(Policy::parse(read.to_string().as_bytes()), Ok(read));
            }
        }
    }

    /// The next period begins later, and no other one begins in between.
    #[test]
    fn periods_follow_one_another(millis in 0..u64::MAX / 2) {
        for period in Period::ALL {
            let next = period.next(millis);
            prop_assert!(next > millis && period.number(next - 1) == period.number(millis));
            prop_assert!(period.number(next) > period.number(millis));
        }
    }
}

#[test]
fn periods_begin_as_the_calendar_has_it() {
    let at = MONDAY + DAY + 5 * HOUR + 7;
    let next = Period::ALL.map(|period| period.next(at));
    let (december, new_year) = (1_701_388_800_000, 1_704_067_200_000);
    assert_eq!(next, [MONDAY + DAY + 6 * HOUR, MONDAY + 2 * DAY, MONDAY + 7 * DAY, december, new_year]);
    assert_eq!((civil(december), civil(new_year)), ((2023, 12, 1), (2024, 1, 1)));
    assert_eq!(Period::Hour.next(u64::MAX), u64::MAX);
}

#[test]
fn one_is_due_when_the_shortest_period_has_begun_anew() {
    let hourly = policy("hourly=24 daily=7");
    let at = MONDAY + HOUR / 2;
    assert_eq!(
        (hourly.due(&History::default(), at), hourly.next(&History::default(), at)),
        (Some(Period::Hour), Some(0))
    );
    // What a person has asked for does not stand for one.
    let history = History::new(vec![automatic(at, 1), kept(at + HOUR, 2, &[])], vec![]);
    assert_eq!(hourly.next(&history, at), Some(MONDAY + HOUR));
    assert_eq!(hourly.due(&history, at), None);
    assert_eq!(hourly.due(&history, MONDAY + HOUR - 1), None);
    assert_eq!(hourly.due(&history, MONDAY + HOUR), Some(Period::Hour));
    assert_eq!(hourly.due(&history, MONDAY + 900 * HOUR), Some(Period::Hour));
    // A clock that went back, and one that is far behind whichever has taken the last one.
    assert_eq!(hourly.due(&history, MONDAY - 5 * HOUR), None);
    assert_eq!(hourly.due(&history, MONDAY - 3 * DAY), Some(Period::Hour));
    let far = automatic(MONDAY + 80_000 * DAY, 3);
    let forged = History::new(vec![automatic(at, 1), far.clone()], vec![]);
    assert_eq!(hourly.due(&forged, MONDAY + HOUR), Some(Period::Hour));
    assert_eq!(super::last(&forged, at), super::last(&history, at));
    let (three, one) = (policy("hourly=1"), automatic(at + HOUR, 4));
    let forged = History::new(vec![automatic(at, 1), one, far], vec![]);
    assert_eq!(
        three.surplus(&forged, at + HOUR),
        BTreeSet::from([automatic(at, 1).moment()]),
        "it stands for no other"
    );
    let weekly = policy("monthly=2 weekly=3 last=9");
    assert_eq!((weekly.period(), weekly.next(&history, at)), (Some(Period::Week), Some(MONDAY + 7 * DAY)));
    assert_eq!(Policy { last: 3, ..Policy::default() }.due(&History::default(), at), None);
}

#[test]
fn what_a_person_wants_does_not_go_by_itself() {
    let all: Vec<Kept> = (0..6).map(|n| automatic(MONDAY + u64::from(n) * HOUR, n)).collect();
    let asked_for = kept(MONDAY + 2 * HOUR + 1, 9, &[]);
    let named = tag("v1", &all[0], 1);
    let history = History::new(all.iter().cloned().chain([asked_for]).collect(), vec![named]);
    let gone: Vec<Moment> = policy("hourly=2").surplus(&history, u64::MAX).into_iter().collect();
    assert_eq!(gone, [1, 2, 3].map(|n: usize| all[n].moment()));
    assert_eq!(policy("hourly=24").surplus(&history, u64::MAX), BTreeSet::new());
}

/// A device with a clock of its own.
#[derive(Clone, Default)]
struct Device {
    history: History,
    vector: Vec<Dot>,
    sequence: u64,
    /// How far its clock goes wrong, in milliseconds.
    off: i64,
}

#[derive(Clone, Debug)]
enum Op {
    /// It looks what is due; something has changed before that.
    Look,
    /// A person takes one.
    Keep,
    /// It hears of all that another one has.
    Learn(u8),
    /// So many minutes go by.
    Pass(u16),
    /// Its clock is set.
    Set(i16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Look),
        1 => Just(Op::Keep),
        2 => any::<u8>().prop_map(Op::Learn),
        3 => (0u16..200).prop_map(Op::Pass),
        1 => any::<u16>().prop_map(Op::Pass),
        1 => any::<i16>().prop_map(Op::Set),
    ]
}

impl Device {
    fn keep(&mut self, who: u8, number: u8, now: u64, by: By) -> Kept {
        self.sequence += 1;
        let dot = Dot { device: DeviceTag(u64::from(who)), sequence: self.sequence };
        self.vector = join([&self.vector[..], &[dot]]);
        let mut before = self.history.kept.keys().rev().filter(|moment| !is_ahead(moment.time, now));
        let last = before.next().map_or(Hlc::default(), |moment| moment.time);
        let key = ed25519_dalek::SigningKey::from_bytes(&[who + 1; 32]);
        let root = kept(0, number, &[]).snapshot.root;
        let snapshot = Snapshot::sign(&key, root, vec![], last.next(now), String::new());
        let one = Kept { snapshot, dot, by };
        self.history.kept.insert(one.moment(), one.clone());
        one
    }

    fn thin(&mut self, who: u8, policy: &Policy, now: u64) {
        for moment in policy.surplus(&self.history, now) {
            self.history.kept.remove(&moment);
            self.sequence += 1;
            let dot = Dot { device: DeviceTag(u64::from(who)), sequence: self.sequence };
            self.vector = join([&self.vector[..], &[dot]]);
        }
    }
}

proptest! {
    /// Two devices, apart and together, with clocks that are set back and forth and after any pause: each takes at most one in
    /// each period, however often it looks, and nothing that a person has asked for goes.
    #[test]
    fn one_in_each_period_is_enough(
        begin in MONDAY..MONDAY + 400 * DAY,
        counts in (0u32..3, 0u32..4, 0u32..4, 1u32..4),
        ops in proptest::collection::vec((0u8..2, op()), 1..80),
    ) {
        let (last, hourly, daily, weekly) = counts;
        let policy = Policy { last, hourly, daily, weekly, ..Policy::default() };
        let period = policy.period().unwrap();
        let (mut devices, mut clock) = ([Device::default(), Device::default()], begin);
        let (mut wanted, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for (number, (who, op)) in ops.into_iter().enumerate() {
            let other = devices.clone();
            let device = &mut devices[usize::from(who)];
            let now = clock.saturating_add_signed(device.off);
            match op {
                Op::Look => {
                    let before = last_of(&policy, &device.history, now);
                    if let Some(due) = policy.due(&device.history, now) {
                        prop_assert_eq!(due, period);
                        prop_assert!(before.is_none_or(|before| period.number(before) < period.number(now)));
                        let one = device.keep(who, number as u8, now, By::Policy);
                        let is_first = taken.insert((who, period.number(one.snapshot.time.millis)));
                        // By a clock that was set back by more than it waits for, what it took there may have gone for later ones.
                        let is_back = device.history.kept.keys().any(|moment| is_ahead(moment.time, now));
                        prop_assert!(is_first || is_back, "a second one in the same period");
                        device.thin(who, &policy, now);
                        prop_assert!(device.history.kept.contains_key(&one.moment()), "the newest is there");
                        prop_assert_eq!(policy.due(&device.history, now), None, "many for what is missing");
                    } else {
                        prop_assert!(before.is_some_and(|before| period.number(before) >= period.number(now)));
                    }
                }
                Op::Keep => drop(wanted.insert(device.keep(who, number as u8, now, By::Hand).moment())),
                Op::Learn(of) => {
                    let of = &other[usize::from(of) % other.len()];
                    device.history = merge(&[(&device.history, &device.vector[..]), (&of.history, &of.vector[..])]);
                    device.vector = join([&device.vector[..], &of.vector[..]]);
                }
                Op::Pass(minutes) => clock += u64::from(minutes) * 60_000,
                Op::Set(minutes) => device.off = i64::from(minutes) * 60_000,
            }
        }
        let [one, two] = &mut devices;
        one.history = merge(&[(&one.history, &one.vector[..]), (&two.history, &two.vector[..])]);
        one.thin(0, &policy, u64::MAX);
        let (automatic, asked): (Vec<&Kept>, Vec<&Kept>) = one.history.kept.values().partition(|kept| kept.by == By::Policy);
        prop_assert!(automatic.len() as u32 <= last + hourly + daily + weekly);
        prop_assert_eq!(asked.into_iter().map(Kept::moment).collect::<BTreeSet<_>>(), wanted);
        prop_assert_eq!(policy.surplus(&one.history, u64::MAX), BTreeSet::new(), "once is enough");
    }
}

fn last_of(policy: &Policy, history: &History, now: u64) -> Option<u64> {
    let mut all = history.kept.iter().rev().filter(|(_, kept)| kept.by == By::Policy);
    all.find(|(moment, _)| policy.counts(moment, now)).map(|(moment, _)| moment.time.millis)
}

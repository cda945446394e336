use proptest::prelude::*;

use super::policy::{Policy, civil, superfluous};
use super::revision::{Revision, RevisionError, short};
use super::*;
use crate::id::{DeviceId, DeviceTag};
use crate::merge::join;
use crate::seal::ExtentRef;

fn root(byte: u8) -> ExtentRef {
    let keys = crate::key::VolumeKeys::new(crate::id::VolumeId([1; 16]), 0, crate::key::Secret::new([2; 32]));
    crate::seal::Sealer::new(&keys).seal(crate::seal::Kind::Root, &[byte]).unwrap().reference
}

fn dot(device: u8, sequence: u64) -> Dot {
    Dot { device: DeviceTag(u64::from(device)), sequence }
}

pub(crate) fn kept(millis: u64, byte: u8, parents: &[&Kept]) -> Kept {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let parents = parents.iter().map(|parent| parent.snapshot.id()).collect();
    let time = Hlc { millis, counter: 0 };
    let snapshot = Snapshot::sign(&key, root(byte), parents, time, format!("number {byte}"));
    Kept { snapshot, dot: dot(1, u64::from(byte) + 1), by: By::Hand }
}

pub(crate) fn tag(name: &str, to: &Kept, sequence: u64) -> Tag {
    let time = Hlc { millis: sequence, counter: 0 };
    Tag { name: name.into(), to: to.snapshot.id(), time, dot: dot(1, sequence) }
}

/// Five, of which the third has two parents.
fn history() -> (History, Vec<Kept>) {
    let one = kept(1_000, 1, &[]);
    let two = kept(2_000, 2, &[&one]);
    let beside = kept(2_500, 3, &[&one]);
    let three = kept(3_000, 4, &[&two, &beside]);
    let four = kept(4_000, 5, &[&three]);
    let all = vec![one, two, beside, three, four];
    (History::new(all.clone(), vec![tag("v1", &all[1], 1)]), all)
}

fn resolve(history: &History, text: &str) -> Result<Kept, RevisionError> {
    let time = |words: &str| match words {
        "yesterday" => Ok(2_600),
        "then" => Ok(10),
        _ => Err("it is not understood".to_owned()),
    };
    Revision::parse(text)?.resolve(history, time).map(|found| found.kept.clone())
}

#[test]
fn a_change_that_is_made_again_changes_nothing() {
    let (mut history, all) = history();
    let extra = kept(5_000, 6, &[&all[4]]);
    let keep = |by| Edit::Keep { snapshot: extra.snapshot.clone(), by };
    let name = |to: &Kept, sequence| Edit::Name {
        name: "v1".into(),
        to: to.snapshot.id(),
        time: Hlc { millis: sequence, counter: 0 },
    };
    let unname = |of: &Kept| Edit::Unname { name: "v1".into(), of: of.snapshot.id() };
    let edits = [
        keep(By::Policy),
        keep(By::Hand),
        keep(By::Command),
        Edit::Forget(all[0].moment()),
        name(&all[2], 9),
        name(&all[3], 5),
        unname(&all[1]),
    ];
    for edit in &edits {
        history.apply(edit.clone(), dot(1, 10));
    }
    let one = history.snapshot(&extra.snapshot.id()).unwrap();
    assert!(one.by == By::Hand && history.snapshot(&all[0].snapshot.id()).is_none());
    assert_eq!(history.tags["v1"].to, all[2].snapshot.id());
    let before = history.clone();
    for edit in edits {
        history.apply(edit, dot(1, 11));
    }
    assert_eq!(history, before);
    history.apply(unname(&all[2]), dot(1, 12));
    assert!(history.tags.is_empty());
}

#[test]
fn a_snapshot_is_named_as_people_name_commits() {
    let (history, all) = history();
    let is = |text: &str, number: usize| assert_eq!(resolve(&history, text).as_ref(), Ok(&all[number]), "{text}");
    is("HEAD", 4);
    is("@", 4);
    is("HEAD~", 3);
    is("HEAD~2", 1);
    is("HEAD~1^2", 2);
    is("HEAD^^", 1);
    is("HEAD~^2~1", 0);
    is("v1", 1);
    is("v1^0", 1);
    is("v1~", 0);
    is("@{yesterday}", 2);
    is("@{yesterday}~", 0);
    let id = all[3].snapshot.id().to_string();
    is(&id, 3);
    is(&id[..12].to_uppercase(), 3);
    is(&format!("{}^2", short(&all[3].snapshot.id())), 2);
}

#[test]
fn what_names_nothing_is_told_so() {
    let (mut history, all) = history();
    let fails = |history: &History, text: &str| resolve(history, text).unwrap_err();
    for text in ["", "~1", "^", "HEAD~x", "HEAD~1:a", "@{yesterday", "HEAD~99999999999999999999", "HEAD^1v"] {
        assert!(matches!(fails(&history, text), RevisionError::Syntax(..)), "{text}");
    }
    assert!(matches!(fails(&history, &"HEAD".to_owned().add_many("^0", 100)), RevisionError::Syntax(..)));
    for text in ["v2", "abc", "ffff0000", "head"] {
        assert_eq!(fails(&history, text), RevisionError::Unknown(text.into()));
    }
    assert!(matches!(fails(&history, "HEAD~5"), RevisionError::NoParent(_)));
    assert!(matches!(fails(&history, "HEAD~18446744073709551615"), RevisionError::NoParent(_)));
    assert!(matches!(fails(&history, "HEAD^3"), RevisionError::NoParent(_)));
    assert_eq!(fails(&history, "@{then}"), RevisionError::NoneThen("then".into()));
    assert!(matches!(fails(&history, "@{soon}"), RevisionError::Time(..)));
    assert_eq!(fails(&History::default(), "HEAD"), RevisionError::Empty);
    // Of what was pruned only the name is left.
    history.kept.remove(&all[1].moment());
    assert_eq!(fails(&history, "v1"), RevisionError::Unknown("v1".into()));
}

#[test]
fn what_is_not_here_is_passed_over_and_told() {
    let (mut history, all) = history();
    let found = |history: &History, text: &str| {
        let found = Revision::parse(text).unwrap().resolve(history, |_| Err(String::new()))?;
        Ok((all.iter().position(|one| one == found.kept).unwrap(), found.has_gap))
    };
    assert_eq!(found(&history, "HEAD~2"), Ok((1, false)));
    // The one before in time stands for it: here one beside it.
    history.kept.remove(&all[1].moment());
    assert_eq!(found(&history, "HEAD~"), Ok((3, false)));
    assert_eq!(found(&history, "HEAD~2"), Ok((2, true)));
    assert_eq!(found(&history, "HEAD~3"), Ok((0, true)));
    assert_eq!(found(&history, "HEAD~^2"), Ok((2, false)));
    history.kept.remove(&all[2].moment());
    assert_eq!(found(&history, "HEAD~2"), Ok((0, true)));
    // Of several parents this one was meant, and no other.
    assert!(matches!(found(&history, "HEAD~^2"), Err(RevisionError::NoParent(_))));
    history.kept.remove(&all[3].moment());
    assert_eq!(found(&history, "HEAD~"), Ok((0, true)));
    history.kept.remove(&all[0].moment());
    assert!(matches!(found(&history, "HEAD~"), Err(RevisionError::NoParent(_))));
}

#[test]
fn nobody_means_what_a_command_took_unless_it_is_named() {
    let by = |kept: Kept, by| Kept { by, ..kept };
    let first = by(kept(500, 1, &[]), By::Command);
    let one = by(kept(1_000, 2, &[&first]), By::Policy);
    let a = by(kept(2_000, 3, &[&one]), By::Command);
    let b = by(kept(3_000, 4, &[&a]), By::Command);
    let two = kept(4_000, 5, &[&b]);
    let c = by(kept(5_000, 6, &[&two]), By::Command);
    let all = vec![first, one, a, b, two, c];
    let mut history = History::new(all.clone(), vec![tag("v1", &all[3], 1)]);
    let is = |text: &str, number: usize| assert_eq!(resolve(&history, text).as_ref(), Ok(&all[number]), "{text}");
    is("HEAD", 4);
    is("HEAD~", 1);
    is("HEAD^", 1);
    is("v1", 3);
    is("v1~", 1);
    is("@{yesterday}", 2);
    is("@{yesterday}~", 1);
    is(&all[5].snapshot.id().to_string(), 5);
    is(&format!("{}^", all[5].snapshot.id()), 4);
    assert!(matches!(resolve(&history, "HEAD~2"), Err(RevisionError::NoParentByHand(_))));
    // What is gone among them is told, too.
    history.kept.remove(&all[3].moment());
    let found = Revision::parse("HEAD~").unwrap().resolve(&history, |_| Err(String::new())).unwrap();
    assert_eq!((found.kept, found.has_gap), (&all[1], true));
    history.kept.retain(|_, kept| kept.by == By::Command);
    assert_eq!(resolve(&history, "HEAD"), Err(RevisionError::OnlyByCommands));
}

#[test]
fn going_back_has_an_end_whatever_is_said() {
    // One that says that it follows a later one: somebody who may write can sign that.
    let like = kept(1, 1, &[]);
    let signed = |millis, parents: Vec<SnapshotId>| {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let time = Hlc { millis, counter: 0 };
        let snapshot = Snapshot::sign(&key, like.snapshot.root.clone(), parents, time, String::new());
        Kept { snapshot, ..like.clone() }
    };
    let later = signed(2_000, vec![SnapshotId([9; 32])]);
    let earlier = signed(1_000, vec![later.snapshot.id()]);
    let last = signed(3_000, vec![earlier.snapshot.id()]);
    let history = History::new(vec![later.clone(), earlier.clone(), last], vec![]);
    assert_eq!(resolve(&history, "HEAD~"), Ok(earlier.clone()));
    assert_eq!(
        resolve(&history, "HEAD~18446744073709551615"),
        Err(RevisionError::NoParent(short(&earlier.snapshot.id())))
    );
    assert_eq!(resolve(&history, "HEAD~2"), Err(RevisionError::NoParent(short(&earlier.snapshot.id()))));
    assert_eq!(resolve(&history, &format!("{}~", later.snapshot.id())), Ok(earlier));
}

trait AddMany {
    fn add_many(self, what: &str, times: usize) -> String;
}

impl AddMany for String {
    fn add_many(mut self, what: &str, times: usize) -> String {
        self.push_str(&what.repeat(times));
        self
    }
}

#[test]
fn the_beginning_of_several_numbers_is_none() {
    let all: Vec<Kept> = (0..=255).map(|byte| kept(1_000 + u64::from(byte), byte, &[])).collect();
    let mut by_beginning: BTreeMap<String, usize> = BTreeMap::new();
    for one in &all {
        *by_beginning.entry(one.snapshot.id().to_string()[..2].to_owned()).or_default() += 1;
    }
    assert!(by_beginning.values().any(|count| *count > 1));
    let history = History::new(all.clone(), vec![]);
    for one in &all {
        let id = one.snapshot.id().to_string();
        let same = all.iter().filter(|other| other.snapshot.id().to_string().starts_with(&id[..4])).count();
        match resolve(&history, &id[..4]) {
            Ok(found) => assert!(same == 1 && found == *one),
            Err(RevisionError::Ambiguous { found, .. }) => assert_eq!(found.len(), same),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn of_more_than_there_is_room_for_the_newest_stay_and_what_has_a_name() {
    let (mut history, all) = history();
    history.tags.insert("v2".into(), tag("v2", &all[0], 2));
    history.tags.insert("v0".into(), tag("v0", &all[2], 3));
    let before = history.clone();
    history.keep_newest(5);
    assert_eq!(history, before);
    history.keep_newest(3);
    let left: Vec<Moment> = history.kept.keys().copied().collect();
    assert_eq!(left, [0, 1, 2].map(|at| all[at].moment()), "all have names");
    history.keep_newest(2);
    assert_eq!(history.tags.keys().map(String::as_str).collect::<Vec<_>>(), ["v0", "v2"]);
    assert_eq!(history.kept.keys().copied().collect::<Vec<_>>(), [0, 2].map(|at| all[at].moment()));
    let mut unnamed = History { tags: BTreeMap::new(), ..before };
    unnamed.keep_newest(2);
    assert_eq!(unnamed.kept.keys().copied().collect::<Vec<_>>(), [3, 4].map(|at| all[at].moment()));
}

#[test]
fn two_that_have_room_each_come_to_no_more_than_there_is_room_for() {
    // What is in them plays no part here.
    let like = kept(0, 1, &[]);
    let made = |device: u8, from: u64| {
        let dot = dot(device, 1);
        let one = |n: u64| {
            let time = Hlc { millis: from + 2 * n, counter: 0 };
            Kept { snapshot: Snapshot { time, ..like.snapshot.clone() }, dot, by: By::Hand }
        };
        (History::new((0..HISTORY_MAX as u64 / 2 + 5).map(one).collect(), vec![]), vec![dot])
    };
    let ((one, seen), (other, by_other)) = (made(1, 1_000), made(2, 1_001));
    let merged = merge(&[(&one, &seen), (&other, &by_other)]);
    assert_eq!(merged.kept.len(), HISTORY_MAX);
    assert_eq!(merged.kept.keys().next().map(|moment| moment.time.millis), Some(1_010));
    assert_eq!(merge(&[(&other, &by_other), (&one, &seen)]), merged);
    // What made room stays away.
    let vector = join([&seen[..], &by_other]);
    assert_eq!(merge(&[(&merged, &vector), (&one, &seen)]), merged);
}

#[test]
fn what_comes_next_follows_all_that_nothing_follows() {
    let (history, all) = history();
    assert_eq!(history.tips(|_| true), [all[4].snapshot.id()]);
    let before = History::new(all[..3].to_vec(), vec![]);
    assert_eq!(before.tips(|_| true), [all[1].snapshot.id(), all[2].snapshot.id()]);
    assert!(all.iter().all(|one| one.verify().is_ok()));
    let mut forged = all[2].clone();
    forged.snapshot.message = "something else".into();
    assert_eq!(forged.verify(), Err(HeadError::Signature));
    forged.snapshot.author = DeviceId([9; 32]);
    assert_eq!(forged.verify(), Err(HeadError::Signature));
}

#[test]
fn names_are_words_that_mean_nothing_else() {
    for name in ["v1", "before-the-move", "übung", "a.b", "abc", "release_2"] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for name in [
        "../x", "a/b", "..", ".hidden", "-x", "a b", "a\n", "HEAD", "head", "@", "a~1", "x.", "a..b", "deadbeef",
        "1234",
    ] {
        assert!(matches!(check_name(name), Err(NotAName::Reserved(..))), "{name}");
    }
    assert_eq!(check_name(""), Err(NotAName::Empty));
    assert_eq!(check_name(&"x".repeat(REVISION_NAME_MAX + 1)), Err(NotAName::Long));
    assert_eq!(check_message(&"x".repeat(SNAPSHOT_MESSAGE_MAX)), Ok(()));
    assert_eq!(check_message(&"x".repeat(SNAPSHOT_MESSAGE_MAX + 1)), Err(NotAName::LongMessage));
}

#[test]
fn days_have_their_dates() {
    let dates = [
        (0, (1970, 1, 1)),
        (951_782_400_000, (2000, 2, 29)),
        (1_700_000_000_000, (2023, 11, 14)),
        (4_107_542_399_000, (2100, 2, 28)),
        (4_107_542_400_000, (2100, 3, 1)),
    ];
    for (millis, date) in dates {
        assert_eq!(civil(millis), date);
    }
}

#[test]
fn of_many_the_last_of_each_stretch_stay() {
    const HOUR: u64 = 3_600_000;
    // Every half hour of 40 days, from a Monday on.
    let begin = 1_699_833_600_000;
    let all: Vec<Kept> = (0..40 * 48).map(|n| kept(begin + n * HOUR / 2, 0, &[])).collect();
    let history = History::new(all.clone(), vec![]);
    let stay = |policy: Policy| -> Vec<u64> {
        let gone = superfluous(&history, &policy, |_| true);
        history
            .kept
            .keys()
            .filter(|moment| !gone.contains(moment))
            .map(|moment| (moment.time.millis - begin) / (HOUR / 2))
            .collect()
    };
    let last = 40 * 48 - 1;
    assert_eq!(stay(Policy { last: 3, ..Policy::default() }), [last - 2, last - 1, last]);
    assert_eq!(stay(Policy { hourly: 3, ..Policy::default() }), [last - 4, last - 2, last]);
    assert_eq!(stay(Policy { daily: 2, ..Policy::default() }), [last - 48, last]);
    // 40 days are five weeks and five days.
    assert_eq!(stay(Policy { weekly: 10, ..Policy::default() }).len(), 6);
    assert_eq!(stay(Policy { weekly: 2, ..Policy::default() }), [35 * 48 - 1, last]);
    assert_eq!(stay(Policy { monthly: 10, ..Policy::default() }).len(), 2);
    assert_eq!(stay(Policy { yearly: 10, ..Policy::default() }), [last]);
    assert!(stay(Policy::default()).is_empty() && Policy::default().is_empty());
    // What may not go does not stand for others.
    let policy = Policy { last: 1, ..Policy::default() };
    let gone = superfluous(&history, &policy, |moment| moment.time.millis != begin + last * HOUR / 2);
    assert_eq!(gone.len() as u64, last - 1);
}

/// A device that knows of a history what it has done and heard.
#[derive(Clone, Default)]
struct Device {
    history: History,
    vector: Vec<Dot>,
    sequence: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Keep(By),
    Prune(u8),
    Tag(u8, u8),
    Untag(u8),
    Learn(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<u8>();
    prop_oneof![
        4 => prop_oneof![Just(By::Hand), Just(By::Command), Just(By::Policy)].prop_map(Op::Keep),
        2 => pick.prop_map(Op::Prune),
        2 => (pick, pick).prop_map(|(name, to)| Op::Tag(name, to)),
        1 => pick.prop_map(Op::Untag),
        3 => pick.prop_map(Op::Learn),
    ]
}

proptest! {
    /// In whatever order devices hear of one another: in the end all have one history, with all that nobody has taken out of it.
    #[test]
    fn devices_come_to_one_history(count in 2u8..6, ops in proptest::collection::vec((any::<u8>(), op()), 1..60)) {
        let mut devices = vec![Device::default(); usize::from(count)];
        let (mut clock, mut alive, mut tagged) = (0u64, BTreeSet::new(), BTreeSet::new());
        for (who, op) in ops {
            let who = usize::from(who) % devices.len();
            clock += 1;
            let others = devices.clone();
            let device = &mut devices[who];
            let pick = |number: u8, device: &Device| {
                device.history.kept.keys().copied().nth(usize::from(number) % device.history.kept.len().max(1))
            };
            match op {
                Op::Learn(of) => {
                    let of = &others[usize::from(of) % others.len()];
                    let both = [(&device.history, &device.vector[..]), (&of.history, &of.vector[..])];
                    let merged = merge(&both);
                    let [one, other] = both;
                    prop_assert_eq!(&merged, &merge(&[other, one]));
                    device.vector = join([one.1, other.1]);
                    device.history = merged;
                    continue;
                }
                Op::Keep(by) => {
                    device.sequence += 1;
                    let dot = dot(who as u8, device.sequence);
                    let one = Kept { dot, by, ..kept(clock * 1_000, clock as u8, &[]) };
                    alive.insert(one.moment());
                    device.history.kept.insert(one.moment(), one);
                }
                Op::Prune(number) => {
                    let Some(moment) = pick(number, device) else { continue };
                    device.sequence += 1;
                    // Who knows of a name takes that away first.
                    if device.history.tagged().contains(&moment.id) {
                        continue;
                    }
                    alive.remove(&moment);
                    device.history.kept.remove(&moment);
                }
                Op::Tag(name, to) => {
                    let Some(moment) = pick(to, device) else { continue };
                    device.sequence += 1;
                    let name = format!("tag{}", name % 3);
                    let (time, dot) = (Hlc { millis: clock, counter: 0 }, dot(who as u8, device.sequence));
                    tagged.insert(moment);
                    device.history.tags.insert(name.clone(), Tag { name, to: moment.id, time, dot });
                }
                Op::Untag(name) => {
                    device.sequence += 1;
                    device.history.tags.remove(&format!("tag{}", name % 3));
                }
            }
            device.vector = join([&device.vector[..], &[dot(who as u8, device.sequence)]]);
        }
        let all: Vec<_> = devices.iter().map(|device| (&device.history, &device.vector[..])).collect();
        let merged = merge(&all);
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        prop_assert_eq!(&merged, &merge(&reversed));
        let vector = join(all.iter().map(|(_, vector)| *vector));
        prop_assert_eq!(&merge(&[(&merged, &vector), all[0]]), &merged, "merged once more it is the same");
        let found: BTreeSet<Moment> = merged.kept.keys().copied().collect();
        prop_assert!(alive.is_subset(&found));
        prop_assert!(found.difference(&alive).all(|moment| tagged.contains(moment)), "pruned, and it never had a name");
        let dangling = merged.tagged().into_iter().filter(|id| merged.snapshot(id).is_none());
        let is_held = |id: &SnapshotId| all.iter().any(|(history, _)| history.snapshot(id).is_some());
        prop_assert!(dangling.into_iter().all(|id| !is_held(&id)), "what has a name is kept");
    }
}

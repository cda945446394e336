use proptest::prelude::*;

use super::*;
use crate::key::{DeviceKeys, Secret};
use crate::limits::{EPOCH_STEP_MAX, MEMBERS_PREVIOUS_MAX};
use crate::share::epoch::Epoch;

const VOLUME: VolumeId = VolumeId([9; 16]);

fn device(who: u8, which: u8) -> DeviceKeys {
    let mut seed = [who; 32];
    seed[0] = which;
    DeviceKeys::new(Secret::new(seed))
}

fn identity(who: u8) -> IdentityId {
    IdentityId([who; 32])
}

fn member(who: u8, role: Role) -> Member {
    Member::new(identity(who), Address { signer: [who; 32], secret: [who; 16] }, role)
}

fn author(who: u8, which: u8) -> Author {
    Author { identity: identity(who), device: device(who, which).id() }
}

fn epoch(number: u32) -> NewEpoch {
    Epoch::new(number, Secret::new([number as u8; 32])).name()
}

fn all(_: &Author) -> bool {
    true
}

/// All are devices of those in whose name they sign.
fn known(_: &Author) -> Option<bool> {
    Some(true)
}

fn log() -> Log {
    let key = device(0, 0).signing_key();
    Log::begin(VOLUME, author(0, 0), &key, Address { signer: [0; 32], secret: [0; 16] }, Hlc::default(), epoch(0))
}

fn say(log: &mut Log, who: (u8, u8), change: Change, number: Option<u32>) -> Result<(), MembersError> {
    let key = device(who.0, who.1).signing_key();
    log.change(author(who.0, who.1), &key, Hlc::default(), change, number.map(epoch), &all).map(drop)
}

fn grant(log: &mut Log, who: u8, whom: u8, role: Role) -> Result<(), MembersError> {
    say(log, (who, 0), Change::Grant(vec![member(whom, role)]), None)
}

fn remove(log: &mut Log, who: u8, whom: u8, number: u32) -> Result<(), MembersError> {
    say(log, (who, 0), Change::Remove(vec![identity(whom)], Vec::new(), Vec::new()), Some(number))
}

fn roles(log: &Log) -> Vec<(u8, Role)> {
    log.members(&all).members.values().map(|member| (member.identity.0[0], member.role)).collect()
}

fn refused(result: Result<(), MembersError>) -> Refused {
    match result.unwrap_err() {
        MembersError::Refused(refused) => refused,
        other => panic!("{other}"),
    }
}

#[test]
fn the_owner_brings_admins_and_they_bring_others() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    grant(&mut log, 1, 2, Role::Writer).unwrap();
    grant(&mut log, 1, 3, Role::Reader).unwrap();
    let owner = (0, Role::Owner);
    assert_eq!(roles(&log), [owner, (1, Role::Admin), (2, Role::Writer), (3, Role::Reader)]);
    assert_eq!(refused(grant(&mut log, 2, 4, Role::Reader)), Refused::Stranger);
    assert_eq!(refused(grant(&mut log, 9, 4, Role::Reader)), Refused::Stranger);
    assert_eq!(refused(grant(&mut log, 1, 4, Role::Admin)), Refused::Admins);
    assert_eq!(refused(grant(&mut log, 0, 4, Role::Owner)), Refused::Owner);
    assert_eq!(refused(grant(&mut log, 1, 2, Role::Reader)), Refused::Less);
    assert_eq!(refused(remove(&mut log, 1, 0, 1)), Refused::Owner);
    assert_eq!(refused(remove(&mut log, 1, 7, 1)), Refused::Unknown);
    let rotates = say(&mut log, (1, 0), Change::Grant(vec![member(4, Role::Reader)]), Some(1));
    assert_eq!(refused(rotates), Refused::Epoch);
    remove(&mut log, 1, 3, 1).unwrap();
    remove(&mut log, 0, 1, 2).unwrap();
    assert_eq!(roles(&log), [owner, (2, Role::Writer)]);
    let members = log.members(&all);
    assert_eq!((members.epoch, members.is_sealed_off), (Some(epoch(2)), true));
    assert!(members.gone.contains_key(&identity(3)) && members.forks.is_empty());
    assert_eq!(refused(grant(&mut log, 1, 4, Role::Reader)), Refused::Stranger);
}

#[test]
fn what_a_removed_admin_signed_counts_only_where_the_removal_follows_it() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    grant(&mut log, 1, 2, Role::Reader).unwrap();
    let mut behind = log.clone();
    remove(&mut log, 0, 1, 1).unwrap();
    // Says that it was earlier: nobody can tell, and nobody asks.
    grant(&mut behind, 1, 3, Role::Writer).unwrap();
    log.merge(&behind, &known).unwrap();
    assert_eq!(roles(&log), [(0, Role::Owner), (2, Role::Reader)]);
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    assert_eq!(
        roles(&log),
        [(0, Role::Owner), (1, Role::Admin), (2, Role::Reader)],
        "it is back, and what it said is not"
    );
    grant(&mut log, 1, 3, Role::Writer).unwrap();
    assert_eq!(roles(&log).len(), 4);
}

#[test]
fn whoever_is_taken_off_stays_off_until_somebody_who_knows_brings_them_back() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    grant(&mut log, 0, 2, Role::Reader).unwrap();
    let mut other = log.clone();
    remove(&mut log, 0, 2, 1).unwrap();
    grant(&mut other, 1, 2, Role::Writer).unwrap();
    log.merge(&other, &known).unwrap();
    assert_eq!(roles(&log), [(0, Role::Owner), (1, Role::Admin)]);
    grant(&mut log, 1, 2, Role::Writer).unwrap();
    assert_eq!(roles(&log).last(), Some(&(2, Role::Writer)));
}

#[test]
fn an_epoch_that_somebody_has_who_was_taken_off_is_known_as_one() {
    let mut log = log();
    (1..=3).for_each(|who| grant(&mut log, 0, who, Role::Admin).unwrap());
    let mut other = log.clone();
    remove(&mut log, 0, 3, 1).unwrap();
    say(&mut other, (1, 0), Change::Rotate, Some(2)).unwrap();
    log.merge(&other, &known).unwrap();
    let members = log.members(&all);
    assert_eq!((members.epoch, members.is_sealed_off), (Some(epoch(1)), true), "the one that has heard of the removal");
    let mut third = other.clone();
    remove(&mut third, 0, 2, 3).unwrap();
    log.merge(&third, &known).unwrap();
    assert!(!log.members(&all).is_sealed_off, "neither has heard of both");
    assert!(!log.members(&all).forks.is_empty(), "the owner's one device has said two things at once");
    say(&mut log, (0, 0), Change::Rotate, Some(4)).unwrap();
    let members = log.members(&all);
    assert_eq!((members.epoch, members.is_sealed_off), (Some(epoch(4)), true));
}

#[test]
fn of_a_device_that_is_off_its_list_counts_what_its_identity_has_built_upon() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    say(&mut log, (0, 1), Change::Grant(vec![member(2, Role::Reader)]), None).unwrap();
    // The device was stolen, and is off the list.
    let mut theirs = log.clone();
    let without = |author: &Author| *author != self::author(0, 1);
    let seen = |log: &Log| log.members(&without).members.len();
    assert_eq!(seen(&log), 2, "nobody has said yet that this is how it was");
    say(&mut log, (0, 0), Change::Rotate, Some(1)).unwrap();
    assert_eq!(seen(&log), 3);
    say(&mut theirs, (0, 1), Change::Grant(vec![member(3, Role::Admin)]), None).unwrap();
    // And their friend, whose device is on a list, follows that.
    say(&mut theirs, (3, 0), Change::Rotate, Some(2)).unwrap();
    log.merge(&theirs, &known).unwrap();
    let members = log.members(&without);
    assert_eq!((members.members.len(), members.epoch), (3, Some(epoch(1))));
    assert_eq!(members.role(&identity(3)), None);
}

#[test]
fn a_log_is_of_its_volume_and_begins_as_it_does() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Writer).unwrap();
    let (bytes, begin) = (log.encode(), log.beginning());
    assert_eq!(Log::decode(&bytes, VOLUME, begin).unwrap(), log);
    assert_eq!(Log::decode(&bytes, VolumeId([1; 16]), begin), Err(MembersError::Other));
    assert_eq!(Log::decode(&bytes, VOLUME, EntryId([1; 32])), Err(MembersError::Other));
    // Somebody else begins one of the same volume: it is another log.
    let (key, address) = (device(5, 0).signing_key(), Address { signer: [5; 32], secret: [5; 16] });
    let theirs = Log::begin(VOLUME, author(5, 0), &key, address, Hlc::default(), epoch(0));
    assert_eq!(log.merge(&theirs, &known), Err(MembersError::Other));
    // And every byte of it is signed.
    let mut bent = bytes.clone();
    let at = bytes.windows(32).rposition(|part| part == identity(1).as_bytes()).unwrap();
    bent[at] ^= 1;
    assert!(Log::decode(&bent, VOLUME, begin).is_err());
}

#[test]
fn a_removal_takes_the_heads_that_it_names() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Writer).unwrap();
    let head = |sequence, byte| Accepted { device: device(1, 0).id(), sequence, head: [byte; 32] };
    let mut other = log.clone();
    let dot = |device, sequence| Dot { device: DeviceTag(device), sequence };
    let removal = |heads, dots| Change::Remove(vec![identity(1)], heads, dots);
    say(&mut log, (0, 0), removal(vec![head(3, 1)], vec![dot(7, 4), dot(8, 2)]), Some(1)).unwrap();
    say(&mut other, (0, 1), removal(vec![head(5, 2)], vec![dot(7, 3), dot(9, 1)]), Some(2)).unwrap();
    log.merge(&other, &known).unwrap();
    let members = log.members(&all);
    assert_eq!(members.accepted[&device(1, 0).id()], head(5, 2));
    assert_eq!(members.taken, [(7, 4), (8, 2), (9, 1)].map(|(device, last)| (DeviceTag(device), last)).into());
    // Nobody fills the room with what is taken.
    let many = (0..=TAKEN_MAX as u64).map(|device| dot(device + 10, 1)).collect();
    grant(&mut log, 0, 1, Role::Writer).unwrap();
    sign_anyway(&mut log, (0, 0), removal(Vec::new(), many), Some(3));
    assert_eq!(log.members(&all).taken.len(), 3);
}

#[test]
fn a_thousand_members_are_granted_and_read_quickly_enough_to_count() {
    let mut log = log();
    let members = (1..=1_000u32).map(|number| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Member::new(IdentityId(id), Address { signer: id, secret: [1; 16] }, Role::Reader)
    });
    say(&mut log, (0, 0), Change::Grant(members.collect()), None).unwrap();
    let read = Log::decode(&log.encode(), VOLUME, log.beginning()).unwrap();
    assert_eq!(read.members(&all).members.len(), 1_001);
}

/// One step of somebody: who, what, and whom; or what they hear from whom.
#[derive(Clone, Debug)]
enum Step {
    Grant(u8, u8, Role),
    Remove(u8, u8),
    Rotate(u8),
    Hear(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4u8;
    let role = prop_oneof![Just(Role::Reader), Just(Role::Writer), Just(Role::Admin)];
    prop_oneof![
        (who.clone(), 1..6u8, role).prop_map(|(who, whom, role)| Step::Grant(who, whom, role)),
        (who.clone(), 1..6u8).prop_map(|(who, whom)| Step::Remove(who, whom)),
        who.clone().prop_map(Step::Rotate),
        (who.clone(), who).prop_map(|(who, whom)| Step::Hear(who, whom)),
    ]
}

proptest! {
    /// Four people change one volume while they hear of each other now and then. Whoever has heard of all sees the same,
    /// in whatever order; nobody whom the owner has taken off, and has not brought back since, has a part in it.
    #[test]
    fn all_see_the_same_and_nobody_who_was_taken_off_by_the_owner_is_back(steps in prop::collection::vec(step(), 1..40)) {
        let mut logs = vec![log(); 4];
        let mut number = 0;
        let mut off: Vec<u8> = Vec::new();
        for step in steps {
            number += 1;
            match step {
                Step::Grant(who, whom, role) => {
                    let granted = grant(&mut logs[usize::from(who)], who, whom, role).is_ok();
                    if granted && who == 0 {
                        off.retain(|other| *other != whom);
                    }
                }
                Step::Remove(who, whom) => {
                    let removed = remove(&mut logs[usize::from(who)], who, whom, number).is_ok();
                    if removed && who == 0 {
                        off.push(whom);
                    }
                }
                Step::Rotate(who) => drop(say(&mut logs[usize::from(who)], (who, 0), Change::Rotate, Some(number))),
                Step::Hear(who, whom) => {
                    let other = logs[usize::from(whom)].clone();
                    logs[usize::from(who)].merge(&other, &known).unwrap();
                }
            }
        }
        let before = logs[0].clone();
        for other in logs.clone() {
            logs[0].merge(&other, &known).unwrap();
        }
        let mut backwards = logs[3].clone();
        for other in [&logs[2], &logs[1], &before] {
            backwards.merge(other, &known).unwrap();
        }
        prop_assert_eq!(logs[0].members(&all), backwards.members(&all));
        prop_assert_eq!(logs[0].encode(), backwards.encode());
        let members = logs[0].members(&all);
        prop_assert_eq!(members.role(&identity(0)), Some(Role::Owner));
        prop_assert!(members.epoch.is_some());
        for whom in off {
            // Admins that had heard of it may have brought them back as readers and writers.
            let heard = |entry: &Entry| matches!(&entry.change, Change::Grant(new) if new.iter().any(|one| one.identity == identity(whom)));
            let back = logs[0].entries().any(|entry| heard(entry) && entry.author.identity != identity(0));
            prop_assert!(members.role(&identity(whom)).is_none() || back, "{} is back", whom);
            prop_assert!(members.role(&identity(whom)).is_none_or(|role| role < Role::Admin));
        }
    }
}

#[test]
fn what_one_signs_who_is_no_admin_takes_no_room() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    grant(&mut log, 0, 2, Role::Admin).unwrap();
    let mut behind = log.clone();
    // Heard of by another admin before that, and followed: it is part of what stands.
    grant(&mut behind, 1, 3, Role::Reader).unwrap();
    let mut between = behind.clone();
    grant(&mut between, 2, 4, Role::Reader).unwrap();
    remove(&mut log, 0, 1, 1).unwrap();
    log.merge(&between, &known).unwrap();
    assert_eq!(roles(&log), [(0, Role::Owner), (2, Role::Admin), (4, Role::Reader)]);
    let before = log.entries().count();
    let key = device(1, 0).signing_key();
    for number in 0..MEMBER_CHANGES_MAX as u32 {
        let change = Change::Grant(vec![member(5, Role::Reader)]);
        let time = Hlc { millis: u64::from(number), counter: 0 };
        let entry = sign(vec![log.beginning()], VOLUME, author(1, 0), &key, time, change, None);
        behind.entries.insert(entry.id(), entry);
    }
    // Somebody who was never one.
    let key = device(9, 0).signing_key();
    let rotate =
        sign(vec![log.beginning()], VOLUME, author(9, 0), &key, Hlc::default(), Change::Rotate, Some(epoch(9)));
    behind.entries.insert(rotate.id(), rotate);
    assert!(!log.merge(&behind, &known).unwrap().is_new && log.entries().count() == before);
    // Once it is an admin again, what it signs is taken, and it has to hear first.
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    let mut again = log.clone();
    grant(&mut again, 1, 6, Role::Reader).unwrap();
    assert!(log.merge(&again, &known).unwrap().is_new);
    assert!(roles(&log).contains(&(6, Role::Reader)) && !roles(&log).contains(&(5, Role::Reader)));
}

#[test]
fn whoever_is_off_the_list_signs_nothing_and_what_it_said_is_vouched_for_before() {
    let mut log = log();
    let say = |log: &mut Log, which: u8, change: Change, number: Option<u32>, listed: &dyn Fn(&Author) -> bool| {
        let key = device(0, which).signing_key();
        log.change(author(0, which), &key, Hlc::default(), change, number.map(epoch), listed).map(drop)
    };
    let without = |author: &Author| author.device != device(0, 0).id();
    say(&mut log, 0, Change::Grant(vec![member(1, Role::Writer)]), None, &all).unwrap();
    let refused = say(&mut log, 0, Change::Rotate, Some(1), &without).unwrap_err();
    assert_eq!(refused, Refused::Device.into());
    let (old, new) = (device(0, 0).id(), author(0, 1));
    assert!(!log.has_all_of(&old, &new));
    assert!(!log.members(&without).members.contains_key(&identity(1)));
    say(&mut log, 1, Change::Rotate, Some(1), &all).unwrap();
    assert!(log.has_all_of(&old, &new));
    assert!(log.members(&without).members.contains_key(&identity(1)));
}

#[test]
fn of_several_grants_the_one_that_gives_the_most_counts_and_only_a_removal_takes_any_back() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    let mut other = log.clone();
    grant(&mut log, 0, 2, Role::Writer).unwrap();
    grant(&mut other, 1, 2, Role::Reader).unwrap();
    log.merge(&other, &known).unwrap();
    assert_eq!(log.members(&all).role(&identity(2)), Some(Role::Writer), "what was published by it is taken");
    assert!(log.members(&all).wrote.is_empty());
    // A program that does not ask whether it may.
    let (tips, key) = (log.members(&all).tips, device(1, 0).signing_key());
    let change = Change::Grant(vec![member(2, Role::Reader)]);
    let less = sign(tips, VOLUME, author(1, 0), &key, Hlc::default(), change, None);
    log.entries.insert(less.id(), less);
    assert_eq!(log.members(&all).role(&identity(2)), Some(Role::Writer));
    // Taken off first, it has less, and nobody forgets that it wrote.
    remove(&mut log, 0, 2, 1).unwrap();
    grant(&mut log, 1, 2, Role::Reader).unwrap();
    grant(&mut log, 1, 3, Role::Reader).unwrap();
    let members = log.members(&all);
    assert_eq!(members.role(&identity(2)), Some(Role::Reader));
    assert_eq!(members.wrote, BTreeSet::from([identity(2)]));
    remove(&mut log, 0, 2, 2).unwrap();
    assert_eq!(log.members(&all).wrote, BTreeSet::from([identity(2)]), "also when the last it could was to read");
    grant(&mut log, 0, 2, Role::Writer).unwrap();
    assert!(log.members(&all).wrote.is_empty());
}

#[test]
fn nobody_uses_up_the_numbers_of_epochs() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    let key = device(1, 0).signing_key();
    for number in [0, EPOCH_STEP_MAX + 1, 1 << 31, u32::MAX] {
        let refused = say(&mut log, (1, 0), Change::Rotate, Some(number)).unwrap_err();
        assert_eq!(refused, Refused::Number.into(), "{number}");
        // Nor does it count where somebody signs it all the same.
        let (mut bent, tips) = (log.clone(), log.members(&all).tips);
        let rotate = sign(tips, VOLUME, author(1, 0), &key, Hlc::default(), Change::Rotate, Some(epoch(number)));
        bent.entries.insert(rotate.id(), rotate);
        let members = bent.members(&all);
        assert_eq!(
            (members.epoch, members.epochs, members.next_epoch),
            (Some(epoch(0)), vec![epoch(0)], 1),
            "{number}"
        );
    }
    say(&mut log, (1, 0), Change::Rotate, Some(EPOCH_STEP_MAX)).unwrap();
    let mut behind = log.clone();
    remove(&mut log, 0, 1, EPOCH_STEP_MAX + 1).unwrap();
    say(&mut behind, (1, 0), Change::Rotate, Some(EPOCH_STEP_MAX + 9)).unwrap();
    log.merge(&behind, &known).unwrap();
    let members = log.members(&all);
    let counting = [0, EPOCH_STEP_MAX, EPOCH_STEP_MAX + 1].map(epoch);
    assert_eq!(
        (members.epochs, members.next_epoch),
        (counting.to_vec(), EPOCH_STEP_MAX + 2),
        "and not of who was taken off"
    );
}

#[test]
fn what_opens_the_way_to_a_member_is_not_shown() {
    let shown =
        format!("{:?}", Member::new(identity(1), Address { signer: [2; 32], secret: [0x5a; 16] }, Role::Reader));
    assert!(!shown.contains("90, 90") && shown.contains("Reader"), "{shown}");
}

/// Somebody whose program does not ask whether there is room.
fn sign_anyway(log: &mut Log, who: (u8, u8), change: Change, number: Option<u32>) {
    let (tips, key) = (log.members(&all).tips, device(who.0, who.1).signing_key());
    let entry = sign(tips, VOLUME, author(who.0, who.1), &key, Hlc::default(), change, number.map(epoch));
    log.entries.insert(entry.id(), entry);
}

/// Changes one after the other, without working out each time what counts.
fn chain(log: &mut Log, who: (u8, u8), changes: impl Iterator<Item = (Change, Option<u32>)>) {
    let (mut tips, key) = (log.members(&all).tips, device(who.0, who.1).signing_key());
    for (change, number) in changes {
        let entry = sign(tips, VOLUME, author(who.0, who.1), &key, Hlc::default(), change, number.map(epoch));
        tips = vec![entry.id()];
        log.entries.insert(entry.id(), entry);
    }
}

fn rotations(from: u32) -> impl Iterator<Item = (Change, Option<u32>)> {
    (from..from + MEMBER_CHANGES_MAX as u32).map(|number| (Change::Rotate, Some(number)))
}

fn stranger(number: u32) -> Member {
    let mut id = [0xee; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Member::new(IdentityId(id), Address { signer: id, secret: [7; 16] }, Role::Reader)
}

/// As many as one change says something of.
fn strangers(from: u32) -> Change {
    Change::Grant((from..from + CHANGED_MAX as u32).map(stranger).collect())
}

#[test]
fn an_admin_who_has_filled_the_room_with_changes_is_taken_off_by_the_owner_for_all() {
    let mut owners = log();
    grant(&mut owners, 0, 1, Role::Admin).unwrap();
    grant(&mut owners, 0, 2, Role::Admin).unwrap();
    let mut bad = owners.clone();
    chain(&mut bad, (1, 0), rotations(1));
    let room = MEMBER_CHANGES_MAX - MEMBER_CHANGES_KEPT;
    // Others have heard of something before that which the owner has not.
    let mut others = owners.clone();
    grant(&mut others, 2, 3, Role::Reader).unwrap();
    for log in [&mut owners, &mut others] {
        assert!(log.merge(&bad, &known).unwrap().is_new);
        assert_eq!(log.entries().count(), room);
    }
    assert_eq!(grant(&mut owners, 0, 4, Role::Reader), Err(MembersError::Full));
    let next = owners.members(&all).next_epoch;
    assert_eq!(say(&mut owners, (0, 0), Change::Rotate, Some(next)), Err(MembersError::Full));
    assert!(!owners.has_room_to_name(1, 0), "but what is kept");
    remove(&mut owners, 0, 1, next).unwrap();
    assert_eq!(owners.members(&all).role(&identity(1)), None);
    assert!(others.merge(&owners, &known).unwrap().is_new);
    assert_eq!(others.members(&all).role(&identity(1)), None, "the removal stands though more than the room was taken");
    // Whoever begins with what the admin says hears of it, too.
    let mut new = bad.begun();
    for log in [&bad, &owners] {
        new.merge(log, &known).unwrap();
    }
    assert_eq!(new.members(&all).role(&identity(1)), None);
    for log in [&owners, &others, &new] {
        assert_eq!(Log::decode(&log.encode(), VOLUME, log.beginning()).as_ref(), Ok(log));
    }
    // And it can sign no removals in the name of the owner that would take what is kept for these.
    let mut forged = owners.clone();
    let gone = || Change::Remove(vec![identity(2)], Vec::new(), Vec::new());
    chain(&mut forged, (0, 9), (next + 1..next + 500).map(|number| (gone(), Some(number))));
    let lists = |author: &Author| Some(author.device != device(0, 9).id());
    let before = others.entries().count();
    let merged = others.merge(&forged, &lists).unwrap();
    assert_eq!((merged, others.entries().count()), (Merged { is_new: false, is_all: false }, before));
    // Where nobody knows yet whose device that is, it is asked again.
    let merged = others.merge(&forged, &|author| lists(author).filter(|is_device| *is_device)).unwrap();
    assert_eq!((merged, others.entries().count()), (Merged { is_new: false, is_all: false }, before));
}

#[test]
fn where_the_room_is_taken_the_owner_begins_an_epoch_only_that_shuts_out_whom_two_have_taken_off_at_once() {
    let mut log = log();
    (1..=3).for_each(|who| grant(&mut log, 0, who, Role::Admin).unwrap());
    let mut bad = log.clone();
    chain(&mut bad, (1, 0), rotations(1));
    log.merge(&bad, &known).unwrap();
    let mut other = log.clone();
    let next = log.members(&all).next_epoch;
    assert_eq!(say(&mut log, (0, 0), Change::Rotate, Some(next)), Err(MembersError::Full), "there is no need");
    remove(&mut log, 0, 2, next).unwrap();
    say(&mut other, (0, 1), Change::Remove(vec![identity(3)], Vec::new(), Vec::new()), Some(next + 1)).unwrap();
    log.merge(&other, &known).unwrap();
    let members = log.members(&all);
    assert!(!members.is_sealed_off);
    assert_eq!(say(&mut log, (1, 0), Change::Rotate, Some(members.next_epoch)), Err(MembersError::Full));
    say(&mut log, (0, 0), Change::Rotate, Some(members.next_epoch)).unwrap();
    assert!(log.members(&all).is_sealed_off);
    // Others have as little room, and take it in.
    assert!(other.merge(&log, &known).unwrap().is_new);
    assert!(other.members(&all).is_sealed_off && other == log);
}

#[test]
fn a_log_is_as_long_as_it_is_read_again_whatever_an_admin_writes_into_it() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    let mut bad = log.clone();
    chain(&mut bad, (1, 0), (0..20).map(|turn| (strangers(turn * CHANGED_MAX as u32), None)));
    assert!(bad.encode().len() > MEMBER_LOG_MAX);
    assert!(log.merge(&bad, &known).unwrap().is_new);
    let most = MEMBER_LOG_MAX - MEMBER_LOG_KEPT;
    assert!(log.encode().len() <= most && log.encode().len() > most / 2, "{}", log.encode().len());
    let next = log.members(&all).next_epoch;
    assert_eq!(say(&mut log, (1, 0), strangers(0), None), Err(MembersError::Full));
    // However many strangers it has brought, it has its part, which is taken from it.
    assert_eq!(log.members(&all).role(&identity(1)), Some(Role::Admin));
    remove(&mut log, 0, 1, next).unwrap();
    assert_eq!(log.members(&all).role(&identity(1)), None);
    // Nor does the owner make it longer than that.
    let head = |at: usize| Accepted { device: device(3, at as u8).id(), sequence: u64::MAX, head: [at as u8; 32] };
    let heads: Vec<_> = (0..ACCEPTED_MAX).map(head).collect();
    let removal = |log: &mut Log, number: u32| {
        let next = log.members(&all).next_epoch;
        say(log, (0, 0), Change::Remove(vec![stranger(number).identity], heads.clone(), Vec::new()), Some(next))
    };
    let removed = (0..200).take_while(|number| removal(&mut log, *number).is_ok()).count();
    assert!(removed >= 2 && removal(&mut log, 199) == Err(MembersError::Full), "{removed}");
    assert!(log.encode().len() <= MEMBER_LOG_MAX);
    assert_eq!(Log::decode(&log.encode(), VOLUME, log.beginning()).as_ref(), Ok(&log));
}

#[test]
fn what_says_more_than_one_change_may_is_not_signed_and_does_not_stand() {
    let mut log = log();
    grant(&mut log, 0, 1, Role::Admin).unwrap();
    let Change::Grant(mut many) = strangers(0) else { panic!() };
    many.push(member(9, Role::Reader));
    let head = |at: usize| Accepted { device: device(3, at as u8).id(), sequence: 1, head: [at as u8; 32] };
    let heads: Vec<_> = (0..=ACCEPTED_MAX).map(head).collect();
    for (change, epoch) in [
        (Change::Grant(many), None),
        (Change::Remove(vec![identity(1)], heads, Vec::new()), Some(1)),
        (Change::Remove(vec![identity(1); CHANGED_MAX + 1], Vec::new(), Vec::new()), Some(1)),
    ] {
        assert_eq!(refused(say(&mut log, (0, 0), change.clone(), epoch)), Refused::Long);
        sign_anyway(&mut log, (0, 0), change, epoch);
        assert_eq!(roles(&log), [(0, Role::Owner), (1, Role::Admin)]);
    }
}

#[test]
fn a_change_is_never_longer_than_the_room_that_is_asked_for_it() {
    let previous = (0..MEMBERS_PREVIOUS_MAX).map(|at| EntryId([at as u8; 32])).collect();
    let time = Hlc { millis: u64::MAX, counter: u32::MAX };
    let epoch = NewEpoch { number: u32::MAX, name: [9; 32] };
    let key = device(0, 0).signing_key();
    let entry = sign(previous, VOLUME, author(0, 0), &key, time, Change::Rotate, Some(epoch));
    assert!(entry.size() - encoded(&Change::Rotate).len() <= SIGNED);
    let head = Accepted { device: device(3, 0).id(), sequence: u64::MAX, head: [9; 32] };
    let dot = Dot { device: DeviceTag(u64::MAX), sequence: u64::MAX };
    let removal = Change::Remove(vec![identity(9); CHANGED_MAX], vec![head; ACCEPTED_MAX], vec![dot; TAKEN_MAX]);
    assert!(encoded(&removal).len() <= removal_size(CHANGED_MAX, ACCEPTED_MAX));
    let log = log();
    let changes: usize = log.entries().map(Entry::size).sum();
    assert!(log.encode().len() - changes <= HEADER - 8);
}

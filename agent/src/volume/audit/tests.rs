use std::path::Path;

use hypernet_core::seal::Kind;
use hypernet_core::tree::Sink;

use super::super::Volume;
use super::super::census::{Census, Enough};
use super::super::double::Mesh;
use super::super::lacking::At;
use super::super::progress::Meter;
use super::super::write::Writer;
use super::*;

const BEGAN: u64 = 1_800_000_000;
/// How often it is looked.
const EVERY: u64 = 60;

fn at(seconds: u64) -> UnixSeconds {
    UnixSeconds(BEGAN + seconds)
}

/// So many segments, each on all ten donors or fewer.
fn put(volume: &Arc<Volume>, count: u32) -> Vec<(hypernet_core::id::ExtentId, Placement)> {
    let one = |i: u32| {
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let extent = writer.put(Kind::Content, &[&i.to_be_bytes()[..], &[1; 5_000]].concat()).unwrap();
        writer.finish().unwrap();
        let found = volume.db.locate(&extent.id()).unwrap().unwrap();
        (extent.id(), codec::decode(&found.descriptor).unwrap())
    };
    (0..count).map(one).collect()
}

fn auditor(volume: &Arc<Volume>) -> Auditor {
    Auditor::open(volume.clone(), ROUND).unwrap()
}

fn home(mesh: &Mesh, dir: &Path) -> Arc<Volume> {
    mesh.volume(dir, 7)
}

fn shards(all: &[(hypernet_core::id::ExtentId, Placement)]) -> u64 {
    all.iter().map(|(_, placement)| placement.holders.len() as u64).sum()
}

/// Also by an agent that is started anew all the time.
#[test]
fn every_shard_is_asked_for_once_in_a_round_evenly() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 40);
    auditor(&volume).tend(at(0), EVERY).unwrap();
    assert_eq!(mesh.audits(), 0, "nothing is due at once");
    let (mut seconds, mut before) = (0, 0);
    let looks = 168;
    while seconds < ROUND {
        seconds += ROUND / looks;
        let auditor = auditor(&volume);
        auditor.tend(at(seconds), EVERY).unwrap();
        let asked = mesh.audits();
        let due = shards(&all) * seconds / ROUND;
        // A page at a time.
        assert!(asked.abs_diff(due) <= 10 * u64::from(AT_ONCE + 1), "{asked} of {due} at {seconds}");
        assert!(asked - before <= 10 * 2 * u64::from(AT_ONCE));
        before = asked;
        // Nothing is asked again when it is looked again at once.
        auditor.tend(at(seconds), EVERY).unwrap();
        assert_eq!(mesh.audits(), before);
    }
    assert_eq!(mesh.audits(), shards(&all));
    let round = auditor(&volume).view();
    let last = round.last.unwrap();
    assert_eq!((last.shown, last.at), (Shown { passed: shards(&all), ..Shown::default() }, at(ROUND)));
    assert!(last.failing.is_empty() && round.shown == Shown::default());
    // The next one.
    for day in 1..=7 {
        auditor(&volume).tend(at(ROUND + day * 86_400), EVERY).unwrap();
    }
    assert_eq!(mesh.audits(), 2 * shards(&all));
}

#[test]
fn who_accepted_and_dropped_everything_is_found_and_named_and_so_is_who_spoiled_it() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 6);
    let (id, placement) = &all[0];
    let peer = |row: usize| placement.holders[row].peer;
    mesh.drop_all(peer(0));
    mesh.spoil(peer(1));
    let of =
        |peer: PeerId| all.iter().filter(|(_, placed)| placed.holders.iter().any(|h| h.peer == peer)).count() as u64;
    let stored = |enough| Census::new(&volume).unwrap().stored(&volume, &[*id], enough).unwrap()[0];
    assert!(stored(Enough::Last), "by their words they have it all");
    let left = || volume.lacking.without(placement, |left| left.holders.len());
    assert_eq!(left(), placement.holders.len());

    let auditor = auditor(&volume);
    auditor.tend(at(0), EVERY).unwrap();
    auditor.tend(at(ROUND), EVERY).unwrap();
    let round = auditor.view();
    let (liar, spoiler) = (round.failing_of(&peer(0)), round.failing_of(&peer(1)));
    assert_eq!((liar.lied, liar.failed()), (of(peer(0)), of(peer(0))));
    assert_eq!((spoiler.damaged, spoiler.failed()), (of(peer(1)), of(peer(1))));
    let last = round.last.unwrap();
    assert_eq!(last.failing.len(), 2, "nobody else is named");
    assert_eq!(last.shown.passed, shards(&all) - of(peer(0)) - of(peer(1)));
    assert_eq!(left(), placement.holders.len() - 2);
    assert_eq!(volume.lacking.unproven(placement.segment.id(), placement, &[0, 1, 2]), [placement.holders[0].row]);

    // The liar says again that it has everything; nobody counts on that.
    let relied = |volume: &Arc<Volume>| {
        let census = Census::new(volume).unwrap();
        census.stored(volume, &[*id], Enough::Read).unwrap();
        volume.lacking.without(placement, |left| left.holders.iter().any(|holder| holder.peer == peer(0)))
    };
    assert!(!relied(&volume));
    // Nor does the agent when it was started anew.
    drop(auditor);
    drop(volume);
    let volume = home(&mesh, dir.path());
    assert_eq!(volume.lacking.without(placement, |left| left.holders.len()), placement.holders.len());
    let _again = super::Auditor::open(volume.clone(), ROUND).unwrap();
    assert!(!relied(&volume));
}

#[test]
fn who_was_away_is_asked_when_it_is_there_again_and_for_nothing_else() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 12);
    let peer = all[0].1.holders[0].peer;
    let of = all.iter().filter(|(_, placed)| placed.holders.iter().any(|holder| holder.peer == peer)).count() as u64;
    let auditor = auditor(&volume);
    auditor.tend(at(0), EVERY).unwrap();
    mesh.disconnect([peer]);
    auditor.tend(at(ROUND), EVERY).unwrap();
    assert_eq!(mesh.audits(), shards(&all) - of);
    assert_eq!(auditor.view().last.unwrap().shown.unasked, of);
    auditor.tend(at(ROUND + 60), EVERY).unwrap();
    let before = mesh.audits();
    mesh.connect([peer]);
    // What has its turn in this round meanwhile is not counted here.
    auditor.tend(at(ROUND + 60), EVERY).unwrap();
    assert_eq!(mesh.audits() - before, of);
    auditor.tend(at(ROUND + 60), EVERY).unwrap();
    assert_eq!(mesh.audits() - before, of, "once");
    assert!(auditor.view().missed.is_empty());
}

#[test]
fn a_round_that_is_late_is_made_up_for_in_bounded_steps() {
    let (mesh, dir) = (Mesh::new(4), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 100);
    let n = all[0].1.holders.len() as u64;
    let auditor = auditor(&volume);
    auditor.tend(at(0), EVERY).unwrap();
    // The device was off for a month.
    let mut before = 0;
    let mut looks = 0;
    while auditor.view().last.is_none() {
        auditor.tend(at(30 * 86_400 + looks * EVERY), EVERY).unwrap();
        assert!(mesh.audits() - before <= (CATCH_UP + u64::from(AT_ONCE)) * n);
        before = mesh.audits();
        looks += 1;
    }
    assert_eq!((mesh.audits(), looks), (shards(&all), 4));
    // The next one has its time.
    auditor.tend(at(30 * 86_400 + looks * EVERY), EVERY).unwrap();
    assert!(mesh.audits() - before <= u64::from(AT_ONCE) * n);
}

/// A clock that was far ahead for a while does not end the audits for as long.
#[test]
fn a_clock_that_goes_back_begins_a_round_anew() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 4);
    let auditor = auditor(&volume);
    auditor.tend(UnixSeconds(u64::MAX), EVERY).unwrap();
    auditor.tend(at(0), EVERY).unwrap();
    auditor.tend(at(ROUND), EVERY).unwrap();
    assert!(mesh.audits() >= shards(&all));
    assert!(auditor.view().last.is_some());
}

#[test]
fn an_agent_that_stops_loses_nothing_of_a_round() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    let all = put(&volume, 12);
    let auditor = auditor(&volume);
    auditor.tend(at(0), EVERY).unwrap();
    mesh.stop_after(Some(4));
    assert!(auditor.tend(at(ROUND), EVERY).is_err());
    assert!(auditor.view().last.is_none(), "it has not ended");
    mesh.stop_after(None);
    auditor.tend(at(ROUND), EVERY).unwrap();
    let last = auditor.view().last.unwrap();
    assert!(last.shown.passed >= shards(&all));
}

fn golden() -> Round {
    let shown = Shown { passed: 1, lied: 2, damaged: 3, missing: 4, unasked: 5 };
    let failing = vec![Failing { peer: PeerId([6; 32]), shown }];
    Round {
        began: UnixSeconds(7),
        volumes: 8,
        after: 9,
        shown,
        failing: failing.clone(),
        missed: vec![Missed {
            peer: PeerId([10; 32]),
            volume: VolumeId([11; 16]),
            after: 12,
            to: CATALOG,
            at: UnixSeconds(13),
        }],
        last: Some(Ended { at: UnixSeconds(14), shown, failing }),
        gone: vec![Gone {
            segment: SegmentId([15; 32]),
            said: vec![At { row: 16, peer: PeerId([17; 32]) }],
            unproven: vec![At { row: 18, peer: PeerId([19; 32]) }],
        }],
        answered: vec![Answered { volume: VolumeId([19; 16]), first: UnixSeconds(20), last: UnixSeconds(21) }],
    }
}

#[test]
fn where_the_audits_stand_is_written_and_read_as_ever() {
    let bytes = crate::golden::bytes(include_str!("../../../golden/audit.hex"));
    assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
    assert_eq!(codec::decode::<Round>(&bytes).unwrap(), golden());
    crate::golden::mutations(&bytes, |bytes| {
        let _ = codec::decode::<Round>(bytes);
    });
}

/// What cannot be read costs a round, and nothing else.
#[test]
fn a_state_that_is_damaged_begins_anew() {
    let (mesh, dir) = (Mesh::new(10), tempfile::tempdir().unwrap());
    let volume = home(&mesh, dir.path());
    volume.db.put_state(AUDIT, b"nonsense").unwrap();
    assert_eq!(auditor(&volume).view(), Round::default());
}

/// All that is filed fits into its frame, or the agent would do without what it knows.
#[test]
fn as_much_as_can_be_known_can_be_filed() {
    let Round { failing, missed, gone, answered, .. } = golden();
    let answered =
        vec![Answered { first: UnixSeconds(u64::MAX), last: UnixSeconds(u64::MAX), ..answered[0] }; KNOWN_MAX];
    let failing = vec![Failing { shown: Shown { passed: u64::MAX, ..failing[0].shown }, ..failing[0] }; KNOWN_MAX];
    let said = vec![At { row: 255, ..gone[0].said[0] }];
    let gone = vec![Gone { said, unproven: Vec::new(), ..gone[0].clone() }; 65_536];
    let missed = vec![missed[0]; KNOWN_MAX];
    let last = golden().last.map(|last| Ended { failing: failing.clone(), ..last });
    let full = Round { failing, missed, gone, answered, last, ..golden() };
    assert_eq!(codec::decode::<Round>(&codec::encode(&full)).unwrap(), full);
}

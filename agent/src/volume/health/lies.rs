//! Lies that others have told, and that are to be impossible here.

use hypernet_core::codec;
use hypernet_core::time::UnixSeconds;
use hypernet_sdk::api::{HealthState, Proven, RepairStatus};

use super::super::audit::Auditor;
use super::super::double::Mesh;
use super::super::merging::tests::{Home, homes};
use super::*;
use crate::health::{proven, reasons, safety, state, told};

const BEGAN: u64 = 1_800_000_000;
/// Seconds of a round of audits.
const ROUND: u64 = 1_000;
const LOOK: Duration = Duration::from_secs(600);

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A home with so many segments of data.
fn home(mesh: &Mesh, segments: u8) -> Home {
    let home = homes(mesh, 1, |home| home.write("file 0", &noise(0, 60_000))).remove(0);
    for i in 1..segments {
        home.write(&format!("file {i}"), &noise(i, 60_000));
        home.sync();
    }
    home
}

fn auditor(home: &Home) -> Auditor {
    Auditor::open(home.volume.clone(), ROUND).unwrap()
}

/// All is asked for once.
fn audit(auditor: &Auditor) {
    for tenth in 0..=10 {
        auditor.tend(UnixSeconds(BEGAN + tenth * ROUND / 10), ROUND / 10).unwrap();
    }
}

/// What is told of it.
struct Shown {
    state: HealthState,
    lost: u64,
    least: Option<i32>,
    nines: Option<f64>,
    reasons: Vec<String>,
    tally: Tally,
}

impl Shown {
    fn says(&self, what: &str) -> bool {
        self.reasons.iter().any(|why| why.contains(what))
    }
}

fn shown(home: &Home, auditor: &Auditor) -> Shown {
    let (counts, sight) = count_now(&home.volume);
    let tally = counts.of.get(&home.volume.id).cloned().unwrap_or_default();
    let proven = proven(&auditor.view(), &home.volume.id);
    let safety = safety(&tally);
    let (lost, least, nines) = (safety.lost, safety.least_margin, safety.nines);
    let state = state(&tally, home.vfs.pending(home.volume.id).files, proven);
    Shown { state, lost, least, nines, reasons: reasons(&tally, &sight, proven), tally }
}

fn repair_status(home: &Home) -> RepairStatus {
    let (counts, _) = count_now(&home.volume);
    told(&counts.all, &home.volume.mending.lock(), None, Duration::from_secs(60), LOOK)
}

fn placements(home: &Home) -> Vec<Placement> {
    let rows = home.volume.db.segments_iter(0, 999).unwrap();
    rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect()
}

/// These peers have lost their disks, and whoever has asked knows.
fn lose(mesh: &Mesh, home: &Home, peers: &[PeerId]) {
    peers.iter().for_each(|peer| mesh.lose_disk(*peer));
    for placement in placements(home) {
        let rows = placement.holders.iter().filter(|holder| peers.contains(&holder.peer)).map(|holder| holder.row);
        home.volume.lacking.asked(placement.segment.id(), &placement, &[], &rows.collect::<Vec<u8>>());
    }
}

/// Storj and Sia: green over empty slabs.
#[test]
fn what_nobody_has_asked_for_is_not_green_and_what_was_not_proven_is_lost() {
    for is_lying in [false, true] {
        let mesh = Mesh::new(8);
        if is_lying {
            (1..=8).for_each(|peer| mesh.drop_all(PeerId([peer; 32])));
        }
        let home = home(&mesh, 3);
        let auditor = auditor(&home);
        let before = shown(&home, &auditor);
        assert_eq!((before.state, before.lost), (HealthState::Acknowledged, 0));
        assert!(before.says("no holder has been asked to prove anything yet"), "{:?}", before.reasons);
        (1..=8).for_each(|peer| mesh.lose_disk(PeerId([peer; 32])));
        // Nobody has asked, and it says so.
        let unasked = shown(&home, &auditor);
        assert_eq!(unasked.state, HealthState::Acknowledged);
        assert!(unasked.says("no holder has been asked to prove anything yet"));
        audit(&auditor);
        let asked = shown(&home, &auditor);
        assert_eq!((asked.state, asked.lost), (HealthState::Lost, asked.tally.segments), "{is_lying}");
        assert_eq!((asked.nines, asked.least.map(i32::signum)), (Some(0.0), Some(-1)));
        let why = if is_lying { "could not prove to have them" } else { "by their own word" };
        assert!(asked.says(why) && asked.says("lost, as far as is known"), "{:?}", asked.reasons);
        // Nor is it forgotten by who starts anew.
        assert_eq!(shown(&home, &Auditor::open(home.volume.clone(), ROUND).unwrap()).state, HealthState::Lost);
    }
}

#[test]
fn a_round_of_audits_makes_it_well_and_half_of_one_does_not() {
    let mesh = Mesh::new(8);
    let home = home(&mesh, 3);
    let auditor = auditor(&home);
    auditor.tend(UnixSeconds(BEGAN), 1).unwrap();
    auditor.tend(UnixSeconds(BEGAN + 1), 1).unwrap();
    let id = home.volume.id;
    assert!(matches!(proven(&auditor.view(), &id), Proven::Partly { .. }));
    let half = shown(&home, &auditor);
    assert_eq!(half.state, HealthState::Acknowledged);
    assert!(half.says("has not gone through all of it"), "{:?}", half.reasons);
    audit(&auditor);
    let whole = shown(&home, &auditor);
    assert_eq!((whole.state, whole.lost), (HealthState::Well, 0));
    assert!(matches!(proven(&auditor.view(), &id), Proven::Round { .. }));
    // Who is away at its turn has proven nothing.
    mesh.disconnect([PeerId([1; 32])]);
    auditor.tend(UnixSeconds(BEGAN + 2 * ROUND), ROUND).unwrap();
    let away = shown(&home, &auditor);
    assert!(away.says("1 peers were away at their turn to prove what they have"), "{:?}", away.reasons);
    // What this says of one volume it says of no other.
    assert_eq!(proven(&auditor.view(), &VolumeId([9; 16])), Proven::Never);
}

#[test]
fn what_is_on_this_device_alone_is_not_healthy() {
    let mesh = Mesh::new(8);
    let home = Home::new(&mesh, 1);
    home.write("file", &noise(1, 100_000));
    let local = shown(&home, &auditor(&home));
    assert_eq!((local.state, local.least, local.nines), (HealthState::Local, None, None));
    assert!(local.says("nothing of it is on the mesh"));
    home.sync();
    let synced = shown(&home, &auditor(&home));
    assert_eq!((synced.state, synced.tally.segments > 0), (HealthState::Acknowledged, true));
}

/// Hyphanet: all of a file but its last block.
#[test]
fn one_block_that_is_missing_is_lost_and_the_one_before_it_is_mended_first() {
    let mesh = Mesh::new(8);
    let home = home(&mesh, 4);
    let auditor = auditor(&home);
    let all = placements(&home);
    let (k, n) = (all[0].segment.k, all[0].n);
    let whole = shown(&home, &auditor);
    assert_eq!(whole.least, Some(i32::from(n - k)));
    let last = all.last().unwrap();
    let rows: Vec<u8> = last.holders.iter().map(|holder| holder.row).collect();
    let id = last.segment.id();
    // One more than may be, of one segment of many.
    home.volume.lacking.asked(id, last, &[], &rows[..usize::from(n - k) + 1]);
    let lost = shown(&home, &auditor);
    assert_eq!((lost.state, lost.lost, lost.least), (HealthState::Lost, 1, Some(-1)));
    assert_eq!(lost.tally.margins[&i32::from(n - k)], whole.tally.segments - 1, "the others are as they were");
    let tried = home.volume.repair(&home.vfs, u64::MAX).unwrap();
    assert_eq!((tried.lost, tried.mended), (1, 0));
    // One comes back: it can be read, by nobody less. Another one has lost less, and waits until this one is mended.
    home.volume.lacking.asked(id, last, &rows[..1], &[]);
    let other = all[0].segment.id();
    home.volume.lacking.asked(other, &all[0], &[], &rows[..usize::from(n - k) - 1]);
    let worn = shown(&home, &auditor);
    assert_eq!((worn.state, worn.lost, worn.least), (HealthState::Worn, 0, Some(0)));
    assert!(worn.nines < whole.nines, "{:?} {:?}", worn.nines, whole.nines);
    assert!(worn.says("few peers: any"), "{:?}", worn.reasons);
    home.volume.repair(&home.vfs, 1).unwrap();
    let margin = |id| {
        let at = placements(&home).into_iter().find(|placement| placement.segment.id() == id).unwrap();
        home.volume.lacking.without(&at, |left| left.holders.len()) as i32 - i32::from(k)
    };
    assert_eq!((margin(id), margin(other)), (i32::from(n - k), 1));
    home.volume.repair(&home.vfs, u64::MAX).unwrap();
    assert_eq!(repair_status(&home).due, 0);
}

/// Sia: data was to move to hosts that were full.
#[test]
fn where_all_others_are_full_it_says_so_and_loses_nothing_and_goes_on_when_there_is_room() {
    let mesh = Mesh::new(8);
    let home = home(&mesh, 3);
    let auditor = auditor(&home);
    let before = placements(&home);
    let (k, n) = (before[0].segment.k, before[0].n);
    let lost: Vec<PeerId> = before[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
    mesh.tell_free(0);
    lose(&mesh, &home, &lost);
    let due = repair_status(&home);
    assert_eq!((due.due, due.stopped, due.eta_seconds), (before.len() as u64, None, None), "nobody has tried yet");
    for _ in 0..2 {
        let tried = home.volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!((tried.due, tried.mended, tried.lost), (before.len() as u64, 0, 0));
        let status = repair_status(&home);
        assert!(status.stopped.unwrap().contains("no peer is there that has room"));
        assert_eq!((status.eta_seconds, status.next_seconds), (None, Some(60)));
        let full = shown(&home, &auditor);
        assert_eq!((full.state, full.least), (HealthState::Worn, Some(0)));
        assert!(
            full.says("nothing can be mended: the 8 connected peers that donate space are full"),
            "{:?}",
            full.reasons
        );
        assert_eq!(placements(&home), before, "what there is stays where it is");
    }
    // One of them has room again; nobody tells, and it is asked.
    mesh.set_free(1 << 40);
    let mended = home.volume.repair(&home.vfs, u64::MAX).unwrap();
    assert_eq!((mended.mended, mended.failed), (before.len() as u64, None));
    let status = repair_status(&home);
    assert_eq!((status.due, status.stopped, status.mended), (0, None, before.len() as u64));
    assert_eq!(shown(&home, &auditor).least, Some(i32::from(n - k)));
}

/// Storj: after years of churn the pieces lay close to one another.
#[test]
fn however_often_it_is_mended_no_peer_gets_two_rows_of_a_segment() {
    let mesh = Mesh::new(12);
    let home = home(&mesh, 3);
    let auditor = auditor(&home);
    let (k, n) = (placements(&home)[0].segment.k, placements(&home)[0].n);
    let spread = |home: &Home| {
        for placement in placements(home) {
            let peers: BTreeSet<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();
            let rows: BTreeSet<u8> = placement.holders.iter().map(|holder| holder.row).collect();
            let of = placement.holders.len();
            assert_eq!((peers.len(), rows.len()), (of, of), "{:?}", placement.holders);
        }
    };
    for round in 0..24u8 {
        let some: Vec<PeerId> = (0..n - k).map(|i| PeerId([1 + (round * (n - k) + i) % 12; 32])).collect();
        lose(&mesh, &home, &some);
        while home.volume.repair(&home.vfs, u64::MAX).unwrap().mended > 0 {}
        spread(&home);
        let shown = shown(&home, &auditor);
        assert_eq!((shown.lost, shown.tally.crowded), (0, 0), "{round}");
    }
    // Fewer peers than rows: what is missing waits for one that has none, and it shows.
    let all = placements(&home);
    mesh.disconnect((usize::from(n)..=12).map(|peer| PeerId([peer as u8; 32])));
    let lost: Vec<PeerId> = all[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
    lose(&mesh, &home, &lost);
    let _ = home.volume.repair(&home.vfs, u64::MAX).unwrap();
    spread(&home);
    assert_eq!(shown(&home, &auditor).tally.crowded, 0);
}

use hypernet_core::custody::Wards;
use hypernet_core::key::Secret;
use hypernet_core::segment::Holder;
use hypernet_core::time::Hlc;
use tempfile::TempDir;

use super::super::{Custodian, Ticket};
use super::*;
use crate::volume::double::Mesh;
use crate::volume::merging::tests::{Home, homes};

const ME: PeerId = PeerId([0xcc; 32]);

fn appointment() -> Appointment {
    Appointment::new(Secret::new([5; 32]))
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// An owner whose custodian this is.
fn owner(mesh: &Mesh) -> Home {
    let home = homes(mesh, 1, |home| home.write("file", &noise(700_000))).remove(0);
    let ticket = Ticket { peer: ME, appointment: appointment() };
    let custodian = Custodian::new(&ticket, "nas", Hlc { millis: 1, counter: 0 });
    home.volume.identity.keystore().change(|keystore| keystore.custodians.push(custodian)).unwrap();
    tell(&home);
    home
}

fn tell(home: &Home) {
    let troubles = home.volume.entrust(true).unwrap();
    assert!(troubles.is_empty(), "{troubles:?}");
}

/// What the custodian finds at the owner's place.
fn wards(charge: &Charge) -> Vec<Ward> {
    let place = charge.appointment.wards();
    let record = charge.peers.lookup(place.record_key()).unwrap().unwrap();
    let At::Here(bytes) = places::read(&charge.peers, &record, &place.sealing_key()).unwrap() else {
        panic!("nothing")
    };
    let wards: Wards = codec::decode(&bytes).unwrap();
    assert_eq!(wards.custodians, [ME]);
    wards.wards
}

fn charge(mesh: &Mesh, dir: &TempDir, home: &Home) -> Charge {
    let volume = appointment().ward(&home.volume.id, &home.volume.device.id()).volume;
    let device = DeviceKeys::new(Secret::new([7; 32]));
    Charge::open(dir.path(), appointment(), volume, device, mesh.handle(), Arc::new(Peers::new(mesh.handle()))).unwrap()
}

fn placements(db: &VolumeDb) -> BTreeMap<SegmentId, Placement> {
    let rows = db.segments_iter(0, 999).unwrap();
    rows.iter().map(|row| (row.id, codec::decode(&row.descriptor).unwrap())).collect()
}

/// As many holders of a segment as it may lose, or one fewer, such that no other one loses more than it may.
fn to_lose(all: &BTreeMap<SegmentId, Placement>, of: &Placement) -> Vec<PeerId> {
    let mut lost: Vec<PeerId> = Vec::new();
    for peer in of.holders.iter().map(|holder| holder.peer) {
        let goes = |at: &&Holder| at.peer == peer || lost.contains(&at.peer);
        let lasts = |placement: &Placement| {
            placement.holders.iter().filter(goes).count() <= usize::from(placement.n - placement.segment.k)
        };
        if all.values().all(lasts) {
            lost.push(peer);
        }
    }
    // Of places that are drawn by lot the others may leave one fewer.
    let may = usize::from(of.n - of.segment.k);
    assert!(lost.len() == may || lost.len() + 1 == may, "{} of {may}", lost.len());
    lost
}

/// These peers go with what they have, and whoever looks after it learns of that.
fn lose(mesh: &Mesh, charge: &Charge, lost: &[PeerId]) {
    lost.iter().for_each(|peer| mesh.lose_disk(*peer));
    mesh.disconnect(lost.iter().copied());
    for (id, placement) in placements(&charge.db) {
        let missing = placement.holders.iter().filter(|at| lost.contains(&at.peer)).map(|at| at.row);
        charge.lacking.asked(id, &placement, &[], &missing.collect::<Vec<_>>());
    }
}

#[test]
fn segments_are_mended_while_the_owner_is_away_and_the_owner_finds_them() {
    let mesh = Mesh::new(60);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    let first = charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let (known, theirs) = (placements(&charge.db), placements(&home.volume.db));
    // All data, the pages of the catalog, and what it was told in.
    assert!(theirs.keys().all(|id| known.contains_key(id)) && known.len() > theirs.len() + 2);
    for placement in home.volume.catalog_segments(&home.volume.db).unwrap() {
        assert!(known.contains_key(&placement.segment.id()));
    }
    assert_eq!((first.segments, first.moves, first.repaired), (known.len() as u64, 0, Repaired::default()));

    let some = theirs.values().next().unwrap();
    let (k, n) = (some.segment.k, some.n);
    let lost = to_lose(&known, some);
    lose(&mesh, &charge, &lost);
    let mended = charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    assert!(mended.repaired.mended > 0 && mended.repaired.lost == 0 && mended.moves > 0, "{mended:?}");
    // A restart knows as much.
    drop(charge);
    let charge = self::charge(&mesh, &dir, &home);
    let again = charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    assert_eq!((again.moves, again.repaired.mended), (mended.moves, 0));

    // The owner is back, learns of it, and has leases of all of it.
    let rows = home.volume.hear_custodians(&home.vfs).unwrap();
    assert!(rows > 0);
    for (id, placement) in placements(&home.volume.db) {
        let there: BTreeSet<(u8, PeerId)> = placement.holders.iter().map(|at| (at.row, at.peer)).collect();
        let moved = placements(&charge.db)[&id].clone();
        let counts = |at: &&Holder| !lost.contains(&at.peer);
        assert!(moved.holders.iter().filter(counts).all(|at| there.contains(&(at.row, at.peer))), "{id:?}");
        assert_eq!(placement.holders.len(), usize::from(placement.n));
    }
    assert_eq!(home.volume.hear_custodians(&home.vfs).unwrap(), 0);
    home.sync();
    tell(&home);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    // What is not of the index, and stays as it is, is found by whoever recovers.
    let index = placements(&home.volume.db);
    let moves = charge.moves(&wards).unwrap();
    assert!(moves.iter().all(|moved| !index.contains_key(&moved.segment)), "what the owner tells itself has not moved");
    // All others that had rows at first go: what was made anew is enough, together with as few as it takes.
    let rest = some.holders.iter().map(|holder| holder.peer).filter(|peer| !lost.contains(peer)).skip(1);
    let gone: Vec<PeerId> = rest.take(usize::from(n - k).saturating_sub(1)).collect();
    gone.iter().for_each(|peer| mesh.lose_disk(*peer));
    assert_eq!(home.tree()["file"].1.as_deref(), Some(&noise(700_000)[..]));
}

#[test]
fn who_recovers_by_the_words_finds_what_was_moved_of_the_catalog_too() {
    let mesh = Mesh::new(60);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let manifest = home.volume.catalog_segments(&home.volume.db).unwrap().remove(0);
    let (k, n) = (usize::from(manifest.segment.k), usize::from(manifest.n));
    let lost = to_lose(&placements(&charge.db), &manifest);
    lose(&mesh, &charge, &lost);
    let mended = charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    assert!(mended.repaired.mended > 0 && mended.moves > 0);
    let there = placements(&charge.db)[&manifest.segment.id()].clone();
    // Of those that have it by the head alone there are too few now.
    let held = manifest.holders.iter().map(|holder| holder.peer);
    let gone: Vec<PeerId> = held.filter(|peer| !lost.contains(peer)).take(1).collect();
    mesh.disconnect(gone.iter().copied());
    let left = there.holders.iter().filter(|holder| !gone.contains(&holder.peer)).count();
    assert!(left >= k && n - lost.len() - gone.len() < k, "{left} of {n}");
    let other = tempfile::tempdir().unwrap();
    let device = mesh.volume(other.path(), 8);
    let recover = || device.recover(None, &mut |_| ());
    assert!(recover().is_err(), "it is found without the custodian");
    let custodian = home.volume.identity.keystore().keystore().custodians;
    device.identity.keystore().change(|keystore| keystore.custodians = custodian).unwrap();
    recover().unwrap();
    let (mine, theirs) = (placements(&device.db), placements(&home.volume.db));
    assert!(mine.keys().eq(theirs.keys()));
}

#[test]
fn a_custodian_that_lies_about_moves_changes_nothing() {
    let mesh = Mesh::new(10);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let before = placements(&home.volume.db);
    let liar = |(id, placement): (&SegmentId, &Placement)| {
        let has_none = |peer: &u8| placement.holders.iter().all(|at| at.peer != PeerId([*peer; 32]));
        let peer = (1..=10).find(has_none).unwrap_or(200);
        let row = placement.holders[0].row;
        let until = UnixSeconds(u64::MAX);
        let moves = [(row, PeerId([peer; 32])), (250, PeerId([201; 32])), (row, PeerId([202; 32]))];
        moves.map(|(row, peer)| Move { segment: *id, holder: Holder { row, peer, until } })
    };
    let unknown = Move { segment: SegmentId([9; 32]), holder: Holder { row: 0, peer: ME, until: UnixSeconds(1) } };
    let lies: Vec<Move> = before.iter().flat_map(liar).chain([unknown]).collect();
    // Of holders that count nothing is taken, and of those that do not what is confirmed.
    let first = before.values().next().unwrap();
    home.volume.lacking.asked(first.segment.id(), first, &[], &[first.holders[0].row]);
    let away: Vec<PeerId> = first.holders.iter().skip(1).take(2).map(|holder| holder.peer).collect();
    mesh.disconnect(away);
    charge.tell(lies, unix_now()).unwrap();
    assert_eq!(home.volume.hear_custodians(&home.vfs).unwrap(), 0);
    assert!(placements(&home.volume.db) == before);
}

#[test]
fn two_custodians_that_mend_at_once_do_no_harm() {
    let mesh = Mesh::new(60);
    let home = owner(&mesh);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (charge(&mesh, &one, &home), charge(&mesh, &two, &home));
    let wards = wards(&one);
    let some = placements(&home.volume.db).into_values().next().unwrap();
    for charge in [&one, &two] {
        charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    }
    let lost = to_lose(&placements(&one.db), &some);
    for charge in [&one, &two] {
        lose(&mesh, charge, &lost);
        assert!(charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap().repaired.mended > 0);
    }
    assert!(home.volume.hear_custodians(&home.vfs).unwrap() > 0);
    for placement in placements(&home.volume.db).values() {
        let rows: BTreeSet<u8> = placement.holders.iter().map(|at| at.row).collect();
        assert_eq!((rows.len(), placement.holders.len()), (usize::from(placement.n), usize::from(placement.n)));
    }
    home.sync();
    assert_eq!(home.tree()["file"].1.as_deref(), Some(&noise(700_000)[..]));
}

#[test]
fn what_a_peer_hands_over_a_custodian_moves_and_the_owner_lets_go_of_it() {
    let mesh = Mesh::new(60);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    let tend = || charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    tend();
    let some = placements(&home.volume.db).into_values().next().unwrap();
    let leaver = some.holders[0].peer;
    let before = mesh.leased_at(leaver);
    mesh.leave(leaver, true);
    let moved = tend().repaired;
    assert!(moved.handed > 0 && moved.handed == moved.mended && moved.failed.is_none(), "{moved:?}");
    assert_eq!((tend().repaired.due, mesh.leased_at(leaver)), (0, before), "nobody but the owner lets go of it");
    let is_named = |db: &VolumeDb| placements(db).values().any(|at| at.holders.iter().any(|at| at.peer == leaver));
    assert!(!is_named(&charge.db) && is_named(&home.volume.db));

    // The owner is back, and takes its word: nothing is moved twice.
    assert!(home.volume.hear_custodians(&home.vfs).unwrap() > 0 && !is_named(&home.volume.db));
    let left = home.volume.repair(&home.vfs, u64::MAX).unwrap();
    assert_eq!((left.due, left.handed), (0, 0), "{left:?}");
    assert_eq!(
        (home.volume.let_go(&home.vfs, 0).unwrap().bytes, mesh.leased_at(leaver)),
        (0, before),
        "no head says so"
    );
    home.sync();
    tell(&home);
    tend();
    for _ in 0..4 {
        home.volume.let_go(&home.vfs, 0).unwrap();
    }
    let of_segments = |placement: &Placement| placement.holders.iter().filter(|at| at.peer == leaver).count();
    assert_eq!(placements(&home.volume.db).values().map(of_segments).sum::<usize>(), 0);
    assert!(mesh.leased_at(leaver) == 0, "{} of {before}", mesh.leased_at(leaver));
    mesh.disconnect([leaver]);
    assert_eq!(home.tree()["file"].1.as_deref(), Some(&noise(700_000)[..]));
}

#[test]
fn an_owner_and_a_custodian_that_move_the_same_at_once_do_no_harm() {
    let mesh = Mesh::new(60);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let some = placements(&home.volume.db).into_values().next().unwrap();
    let leaver = some.holders[0].peer;
    mesh.leave(leaver, true);
    assert!(charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap().repaired.handed > 0);
    assert!(home.volume.repair(&home.vfs, u64::MAX).unwrap().handed > 0);
    home.volume.hear_custodians(&home.vfs).unwrap();
    home.sync();
    tell(&home);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    home.volume.let_go(&home.vfs, 0).unwrap();
    for placement in placements(&home.volume.db).values() {
        let rows: BTreeSet<u8> = placement.holders.iter().map(|at| at.row).collect();
        let peers: BTreeSet<PeerId> = placement.holders.iter().map(|at| at.peer).collect();
        let n = usize::from(placement.n);
        assert_eq!((rows.len(), placement.holders.len(), peers.len(), peers.contains(&leaver)), (n, n, n, false));
    }
    mesh.disconnect([leaver]);
    assert_eq!(home.tree()["file"].1.as_deref(), Some(&noise(700_000)[..]));
}

#[test]
fn what_the_owner_lets_go_of_is_looked_after_no_more_and_a_log_that_cannot_be_read_changes_nothing() {
    let mesh = Mesh::new(10);
    let home = owner(&mesh);
    let dir = tempfile::tempdir().unwrap();
    let charge = charge(&mesh, &dir, &home);
    let wards = wards(&charge);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let before = placements(&charge.db);
    home.write("file", b"short");
    home.sync();
    home.collect().unwrap();
    home.sync();
    tell(&home);
    // Nobody is there to be asked for it.
    let all: Vec<PeerId> = (1..=10).map(|peer| PeerId([peer; 32])).collect();
    mesh.disconnect(all.iter().copied());
    assert!(!charge.tend(&wards, &BTreeSet::new(), u64::MAX).is_ok_and(|standing| standing.trouble.is_none()));
    assert!(placements(&charge.db) == before);
    mesh.connect(all);
    charge.tend(&wards, &BTreeSet::new(), u64::MAX).unwrap();
    let after = placements(&charge.db);
    let theirs = placements(&home.volume.db);
    assert!(theirs.keys().all(|id| after.contains_key(id)) && before.keys().any(|id| !after.contains_key(id)));
    let gone = before.keys().find(|id| !after.contains_key(*id)).unwrap();
    assert!(charge.db.leases_of(gone).unwrap().is_empty());
}

#[test]
fn what_was_told_is_written_and_read_as_ever() {
    let told = Told { hash: [1; 32], at: UnixSeconds(2) };
    let bytes = crate::golden::bytes(include_str!("../../../golden/told.hex"));
    assert_eq!(crate::golden::hex(&codec::encode(&told)), crate::golden::hex(&bytes));
    assert_eq!(codec::decode::<Told>(&bytes).unwrap(), told);
    crate::golden::mutations(&bytes, |bytes| {
        let _ = codec::decode::<Told>(bytes);
    });
}

#[test]
fn what_was_moved_stays_until_the_owner_tells_something_else() {
    let some = hypernet_format::all()["placement"].bytes.clone();
    let base: Placement = codec::decode(&some).unwrap();
    let at = |holders: &[(u8, u8, u64)]| {
        let holder = |(row, peer, until): &(u8, u8, u64)| Holder {
            row: *row,
            peer: PeerId([*peer; 32]),
            until: UnixSeconds(*until),
        };
        Placement { holders: holders.iter().map(holder).collect(), ..base.clone() }
    };
    let was = at(&[(0, 1, 5), (1, 2, 5)]);
    let known = at(&[(0, 9, 3), (1, 2, 5), (2, 8, 3)]);
    assert_eq!(follow(Some(&was), &was, &known), known);
    // A later end of what is not there any more is no news; a later one of what is there is.
    assert_eq!(follow(Some(&was), &at(&[(0, 1, 7), (1, 2, 7)]), &known), at(&[(0, 9, 3), (1, 2, 7), (2, 8, 3)]));
    let told = at(&[(0, 7, 5), (1, 2, 5), (2, 6, 5)]);
    assert_eq!(follow(Some(&was), &told, &known), told);
    assert_eq!(follow(None, &told, &known), told);
    assert_eq!(follow(Some(&told), &was, &known), at(&[(0, 1, 5), (1, 2, 5)]));
}

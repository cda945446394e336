//! Snapshots of real working trees, over a mesh that is a map.

use hypernet_core::history::revision::Revision;

use super::super::double::Mesh;
use super::super::follow::Followed;
use super::super::merging::tests::{Home, homes, meet};
use super::super::recover::clock;
use super::*;

/// Names, and what they hold.
type Files = Vec<(String, Vec<u8>)>;

fn big(byte: u8, len: usize) -> Vec<u8> {
    let mut noise = blake3::Hasher::new().update(&[byte]).finalize_xof();
    let mut bytes = vec![0; len];
    noise.fill(&mut bytes);
    bytes
}

fn snap(home: &Home, message: &str) -> Kept {
    home.volume.snap(&home.vfs, message.into(), false).unwrap().unwrap().kept
}

/// What a snapshot has at a path, as this device reads it.
fn read(home: &Home, kept: &Kept, path: &str) -> Option<Vec<u8>> {
    let root = home.volume.root_in(kept).unwrap();
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let inode = home.volume.find_in(&root, &names).unwrap()?;
    let size = inode.content.size();
    let mut bytes = vec![0; size as usize];
    for (at, part) in home.volume.read(&inode.content, 0..size).unwrap() {
        bytes[at as usize..at as usize + part.len()].copy_from_slice(&part);
    }
    Some(bytes)
}

fn messages(home: &Home) -> Vec<String> {
    home.volume.history().unwrap().kept.values().map(|kept| kept.snapshot.message.clone()).collect()
}

#[test]
fn a_snapshot_holds_what_was_there_and_reads_the_same_for_ever_on_every_device() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| {
        home.mkdir("dir");
        home.write("dir/a", &big(1, 100_000));
        home.write("small", b"small");
    });
    let [one, two] = &homes[..] else { panic!() };
    one.link("small", "hard");
    one.sync();
    one.write("dir/a", &big(2, 100_000));
    one.write("dir/b", &big(3, 700));
    let first = snap(one, "first");
    assert!(first.snapshot.parents.is_empty() && one.volume.has_edits());
    // What only it holds is gone from the working tree before anything is synced.
    one.write("dir/a", &big(4, 50_000));
    one.unlink("dir/b");
    one.write("hard", b"through the other name");
    let second = snap(one, "second");
    assert_eq!(second.snapshot.parents, [first.snapshot.id()]);
    let check = |home: &Home| {
        assert_eq!(read(home, &first, "dir/a"), Some(big(2, 100_000)));
        assert_eq!(read(home, &first, "dir/b"), Some(big(3, 700)));
        assert_eq!(read(home, &first, "small").as_deref(), Some(&b"small"[..]));
        assert_eq!(read(home, &first, "hard").as_deref(), Some(&b"small"[..]));
        assert_eq!(read(home, &second, "dir/a"), Some(big(4, 50_000)));
        assert_eq!((read(home, &second, "dir/b"), read(home, &second, "small/x")), (None, None));
        assert_eq!(read(home, &second, "small").as_deref(), Some(&b"through the other name"[..]));
        assert_eq!(messages(home), ["first", "second"]);
    };
    check(one);
    one.sync();
    assert!(!one.volume.has_edits() && one.volume.db.staged_iter(0, 1).unwrap().is_empty());
    check(one);
    meet(&homes);
    check(two);
    one.write("dir/a", b"third");
    meet(&homes);
    check(two);
    // Nothing of a history goes by itself: not by a merge, either.
    one.write("of one", b"1");
    two.write("of two", b"2");
    snap(one, "of one");
    snap(two, "of two");
    meet(&homes);
    let mut all = messages(two);
    assert_eq!(messages(one), all);
    all.sort();
    assert_eq!(all, ["first", "of one", "of two", "second"]);
    let history = two.volume.history().unwrap();
    assert_eq!(history.tips(|_| true).len(), 2);
    assert_eq!(snap(two, "both").snapshot.parents.len(), 2);
}

#[test]
fn what_was_taken_outlives_the_process_and_what_one_lets_go_of_is_gone_for_all() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", &big(1, 5_000)));
    let [one, two] = &homes[..] else { panic!() };
    one.write("a", &big(2, 5_000));
    let first = snap(one, "first");
    let waiting = one.volume.db.edits().unwrap();
    let held = one.volume.db.staged_iter(0, 100).unwrap();
    assert!(waiting.len() == 1 && held.len() >= 2, "{}", held.len());
    // No content is sealed twice.
    let again = one.volume.snap(&one.vfs, "again".into(), false).unwrap().unwrap();
    assert!(again.is_same && again.new < 2_000, "{again:?}");
    assert_eq!(one.volume.snap(&one.vfs, "by a policy".into(), true).unwrap(), None);
    let name = |home: &Home, name: &str, to: &Kept| {
        let time = clock(Hlc::default());
        home.volume.edit_history(&Edit::Name { name: name.into(), to: to.snapshot.id(), time }).unwrap();
    };
    name(one, "v1", &first);
    meet(&homes);
    assert_eq!(two.volume.history().unwrap().tags["v1"].to, first.snapshot.id());
    two.volume.edit_history(&Edit::Forget(again.kept.moment())).unwrap();
    two.volume.edit_history(&Edit::Unname { name: "v1".into(), of: first.snapshot.id() }).unwrap();
    assert_eq!(messages(two), ["first"]);
    meet(&homes);
    assert_eq!(messages(one), ["first"]);
    assert!(one.volume.history().unwrap().tags.is_empty());
    let found = |text: &str| {
        let history = one.volume.history().unwrap();
        let none = |_: &str| Err(String::new());
        Revision::parse(text).unwrap().resolve(&history, none).map(|found| found.kept.moment())
    };
    assert_eq!(found("HEAD"), Ok(first.moment()));
    assert_eq!(found(&first.snapshot.id().to_string()[..8]), Ok(first.moment()));
    assert!(found("v1").is_err());
}

#[test]
fn a_tree_that_is_moving_has_no_snapshot_and_one_that_waits_does_not_move() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    two.write("b", b"b");
    two.sync();
    let first = snap(one, "first");
    one.follow();
    assert!(one.vfs.lookup(hypernet_fs::vfs::ROOT, b"b").is_err(), "the index was given up");
    one.sync();
    one.follow();
    assert_eq!(one.read("b"), b"b");
    assert_eq!(read(one, &first, "b"), None);
    assert_eq!(messages(one), ["first"]);
    // A head that is being moved to.
    state::put_following(&one.volume.db, &state::latest(&one.volume.db).unwrap().unwrap()).unwrap();
    let error = one.volume.snap(&one.vfs, String::new(), false).unwrap_err();
    assert!(matches!(error, PortError::Deadline(_)), "{error}");
}

#[test]
fn what_is_not_signed_or_of_another_volume_is_not_read() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let one = &homes[0];
    let good = snap(one, "good");
    one.volume.root_in(&good).unwrap();
    let bend = |bend: &dyn Fn(&mut Snapshot)| {
        let mut kept = good.clone();
        bend(&mut kept.snapshot);
        one.volume.root_in(&kept).unwrap_err()
    };
    for error in [
        bend(&|snapshot| snapshot.message = "bad".into()),
        bend(&|snapshot| snapshot.time.millis += 1),
        bend(&|snapshot| snapshot.parents.push(hypernet_core::id::SnapshotId([1; 32]))),
        bend(&|snapshot| snapshot.signature = [0; 64]),
    ] {
        assert!(matches!(error, PortError::Damaged(_)), "{error}");
    }
    let mut stage = Stage::new(&one.volume);
    let root = one.volume.root_in(&good).unwrap();
    let other = Root { volume: hypernet_core::id::VolumeId([9; 16]), ..root };
    let extent = stage.put(Kind::Root, &codec::encode(&other)).unwrap();
    stage.finish().unwrap();
    let key = one.volume.device.signing_key();
    let snapshot = Snapshot::sign(&key, extent, vec![], good.snapshot.time, String::new());
    let error = one.volume.root_in(&Kept { snapshot, ..good.clone() }).unwrap_err();
    assert!(error.to_string().contains("another volume"), "{error}");
    assert!(good.moment() < Moment { time: Hlc { millis: u64::MAX, counter: 0 }, id: good.snapshot.id() });
}

#[test]
fn a_branch_has_snapshots_of_what_it_comes_from_and_of_nothing_else() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let (one, good) = (&homes[0], snap(&homes[0], "good"));
    let root = one.volume.root_in(&good).unwrap();
    let [first, second, far, unknown] = [1, 2, 3, 4].map(|byte| VolumeId::new([byte; 16], true));
    let plain = VolumeId::new([9; 16], false);
    let branch = |volume: VolumeId, of: VolumeId| Branch {
        volume,
        changed: good.snapshot.time,
        is_gone: volume == first,
        name: volume.short(),
        of,
        root: root.inode.id,
        from: good.snapshot.id(),
    };
    let all = [branch(first, one.volume.id), branch(second, first), branch(far, plain)];
    one.volume.identity.keystore().change(|keystore| crate::branch::merge(&mut keystore.branches, &all)).unwrap();
    let reads = |volume: &Arc<Volume>, of: VolumeId| {
        let mut stage = Stage::new(volume);
        let extent = stage.put(Kind::Root, &codec::encode(&Root { volume: of, ..root.clone() })).unwrap();
        stage.finish().unwrap();
        let snapshot = Snapshot::sign(&volume.device.signing_key(), extent, vec![], good.snapshot.time, String::new());
        volume.root_in(&Kept { snapshot, ..good.clone() }).is_ok()
    };
    let branches = [first, second].map(|id| Arc::new(Volume::below(&one.volume, id).unwrap()));
    for volume in branches.iter().chain([&one.volume]) {
        for of in [one.volume.id, first, second, unknown] {
            assert!(reads(volume, of));
        }
        for of in [plain, far] {
            assert!(!reads(volume, of), "{} has one of {}", volume.id.short(), of.short());
        }
    }
}

/// Somebody's clock was wrong by years, or they have written down any time: what comes after it is dated as it is.
#[test]
fn what_is_dated_far_ahead_is_followed_by_nothing() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let one = &homes[0];
    let (now, far) = (super::super::recover::wall(), YEAR_9999 - 1);
    one.volume.snap_at(&one.vfs, "far ahead".into(), true, far).unwrap().unwrap();
    one.write("a", b"b");
    let next = one.volume.snap_at(&one.vfs, "now".into(), false, now).unwrap().unwrap().kept;
    assert!(next.snapshot.time.millis < now + 60_000 && next.snapshot.parents.is_empty());
    one.write("a", b"c");
    let after = one.volume.snap_at(&one.vfs, "after".into(), false, now).unwrap().unwrap().kept;
    assert_eq!(after.snapshot.parents, [next.snapshot.id()]);
    assert!(after.snapshot.time > next.snapshot.time);
    // Of what is ahead by hours it is otherwise.
    one.write("a", b"d");
    let ahead = one.volume.snap_at(&one.vfs, "ahead".into(), false, now + 5 * 3_600_000).unwrap().unwrap().kept;
    one.write("a", b"e");
    let last = one.volume.snap_at(&one.vfs, "last".into(), false, now).unwrap().unwrap().kept;
    assert!(last.snapshot.time > ahead.snapshot.time);
}

/// Whatever is written, renamed and taken away, synced or not: each snapshot reads as the tree was when it was taken.
/// A policy lets go of its own, and not of what a command relies upon.
#[test]
fn a_snapshot_of_a_policy_that_stands_for_one_that_was_asked_for_stays_as_that_would() {
    let mesh = Mesh::new(6);
    let home = homes(&mesh, 1, |home| home.write("f", b"x")).remove(0);
    let by = |by| home.volume.snap_by(&home.vfs, "taken".into(), (by, true)).unwrap().is_some();
    let kept = || home.volume.history().unwrap().kept.values().map(|kept| kept.by).collect::<Vec<_>>();
    assert!(by(By::Policy) && !by(By::Policy));
    assert_eq!(kept(), [By::Policy]);
    home.sync();
    assert!(!by(By::Command) && home.volume.has_edits());
    assert_eq!(kept(), [By::Command]);
    home.sync();
    assert!(!by(By::Policy) && !by(By::Command) && !home.volume.has_edits());
    assert_eq!(kept(), [By::Command]);
}

#[test]
fn each_reads_as_the_tree_was() {
    for seed in 0..12 {
        let mesh = Mesh::new(6);
        let homes = homes(&mesh, 1, |home| home.write("begin", b"begin"));
        let one = &homes[0];
        let mut taken: Vec<(Kept, Files)> = Vec::new();
        let mut model = std::collections::BTreeMap::from([("begin".to_owned(), b"begin".to_vec())]);
        for step in big(seed, 160).chunks(4) {
            let (name, other, byte) = (format!("f{}", step[1] % 5), format!("f{}", step[2] % 5), step[3]);
            match step[0] % 8 {
                0..=2 => {
                    let bytes = big(byte, usize::from(byte) * 37);
                    one.write(&name, &bytes);
                    model.insert(name, bytes);
                }
                3 if model.contains_key(&name) => {
                    one.unlink(&name);
                    model.remove(&name);
                }
                4 if model.contains_key(&name) && name != other => {
                    one.rename(&name, &other);
                    let bytes = model.remove(&name).unwrap();
                    model.insert(other, bytes);
                }
                5 => one.sync(),
                6 | 7 => taken.push((snap(one, &name), model.clone().into_iter().collect())),
                _ => {}
            }
        }
        for synced in [false, true] {
            if synced {
                one.sync();
            }
            for (kept, expected) in &taken {
                let root = one.volume.root_in(kept).unwrap();
                let Content::Directory(tree) = &root.inode.content else { panic!() };
                let entries = one.volume.list(tree).unwrap().into_iter();
                let names: Vec<String> = entries.map(|entry| String::from_utf8(entry.name).unwrap()).collect();
                assert_eq!(names, expected.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "seed {seed}");
                for (name, bytes) in expected {
                    assert_eq!(read(one, kept, name).as_ref(), Some(bytes), "seed {seed}: {name}");
                }
            }
        }
    }
}

#[test]
fn what_is_given_up_waits_for_no_head() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let [one] = &homes[..] else { panic!() };
    one.sync();
    one.write("a", &big(1, 100_000));
    snap(one, "nobody takes it");
    assert!(one.volume.has_edits() && messages(one) == ["nobody takes it"]);
    one.volume.discard_edits().unwrap();
    assert!(!one.volume.has_edits() && one.volume.db.staged_iter(0, 1).unwrap().is_empty());
    assert_eq!((one.volume.db.count_edits().unwrap(), messages(one)), (0, vec![]));
}

#[test]
fn what_nobody_has_signed_is_no_snapshot_and_nothing_follows_it() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"begun"));
    let [one, two] = &homes[..] else { panic!() };
    let honest = snap(one, "honest");
    let mut forged = honest.snapshot.clone();
    forged.message = "what it never said".into();
    let key = two.volume.device.signing_key();
    let time = Hlc { millis: u64::MAX, counter: u32::MAX };
    let of_no_time = Snapshot::sign(&key, honest.snapshot.root.clone(), Vec::new(), time, "at the end of time".into());
    for snapshot in [forged, of_no_time] {
        two.volume.add_edit(&Edit::Keep { snapshot, by: By::Hand }).unwrap();
    }
    meet(&homes);
    for home in &homes {
        assert_eq!(messages(home), ["honest"]);
    }
    one.write("a", b"more");
    let next = snap(one, "next");
    assert_eq!(next.snapshot.parents, [honest.snapshot.id()]);
    assert!(next.snapshot.time.millis < YEAR_9999);
    meet(&homes);
    assert_eq!(messages(two), ["honest", "next"]);
}

#[test]
fn a_history_that_is_none_counts_as_an_empty_one_and_what_was_read_of_others_keeps_nobody_from_taking_more() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let one = &homes[0];
    snap(one, "gone");
    one.sync();
    let latest = state::latest(&one.volume.db).unwrap().unwrap();
    let Content::Directory(none) = &latest.root.inode.content else { panic!("no directory") };
    let endless = latest.root.history.clone().map(|tree| TreeRef { weight: 1 << 40, ..tree });
    for (number, tree) in [Some(none.clone()), endless].into_iter().enumerate() {
        let root = Root { history: tree.clone(), tags: tree, ..latest.root.clone() };
        state::put_latest(&one.volume.db, &state::Latest { root, ..latest.clone() }).unwrap();
        assert_eq!(messages(one), Vec::<String>::new());
        one.write("a", &[number as u8]);
        snap(one, "after that");
        let waiting = one.volume.db.edits().unwrap();
        let mut stage = Stage::new(&one.volume);
        let base = Base::of(&one.volume).unwrap();
        let (kept, tags) = one.volume.edited(&base, &waiting, one.volume.dot(9), &mut stage).unwrap();
        assert_eq!((kept.map(|tree| tree.weight), tags), (Some(1), None));
        one.volume.discard_edits().unwrap();
    }
}

#[test]
fn a_name_that_was_given_before_others_let_go_of_a_snapshot_keeps_it() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"begun"));
    let [one, two] = &homes[..] else { panic!() };
    let kept = snap(one, "worth it");
    one.write("a", b"since");
    meet(&homes);
    let (to, time) = (kept.snapshot.id(), clock(kept.snapshot.time));
    one.volume.edit_history(&Edit::Name { name: "v1".into(), to, time }).unwrap();
    two.volume.edit_history(&Edit::Forget(kept.moment())).unwrap();
    meet(&homes);
    for home in &homes {
        assert_eq!(messages(home), ["worth it"]);
        assert_eq!(read(home, &kept, "a").as_deref(), Some(&b"begun"[..]));
    }
}

#[test]
fn the_first_listing_of_thousands_of_snapshots_takes_two_trips_and_that_of_what_is_in_one_takes_two() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"begun"));
    let [one, two] = &homes[..] else { panic!() };
    let (first, key) = (snap(one, "first"), one.volume.device.signing_key());
    let mut last = first.snapshot.clone();
    // So many that their tree is as deep whatever their numbers are, by which its nodes are cut.
    for number in 0..4_000u32 {
        let (root, parents) = (first.snapshot.root.clone(), vec![last.id()]);
        last = Snapshot::sign(&key, root, parents, last.time.next(0), format!("number {number}"));
        one.volume.edit_history(&Edit::Keep { snapshot: last.clone(), by: By::Hand }).unwrap();
        if number % 40 == 0 {
            let (name, to, time) = (format!("v{number}"), last.id(), last.time);
            one.volume.edit_history(&Edit::Name { name, to, time }).unwrap();
        }
        // So what leads to them lies in many segments.
        if number % 360 == 0 {
            one.sync();
        }
    }
    one.sync();
    let dir = tempfile::tempdir().unwrap();
    let cold = mesh.volume(dir.path(), 3);
    cold.look_around().unwrap();
    cold.recover(None, &mut |_| ()).unwrap();
    // One that has just begun, and one that has moved on.
    assert_eq!(two.follow(), Followed::MovedOn);
    for volume in [&cold, &two.volume] {
        let trips = || volume.trips.load(Ordering::SeqCst);
        let before = trips();
        let history = volume.history().unwrap();
        assert_eq!((history.kept.len(), history.tags.len()), (4_001, 100));
        let names = trips() - before;
        let depth = state::latest(&volume.db).unwrap().unwrap().root.history.unwrap().depth;
        assert!(names <= 2 && depth >= 2, "{names} trips for the names in a tree of depth {depth}");
        // And two more for what is in one.
        let (_, oldest) = history.kept.first_key_value().unwrap();
        let before = trips();
        let root = volume.root_in(oldest).unwrap();
        let Content::Directory(tree) = &root.inode.content else { panic!("a directory") };
        assert_eq!(volume.list(tree).unwrap().len(), 1);
        assert!(trips() - before <= 2);
    }
    assert!(cold.trips.load(Ordering::SeqCst) > 0);
}

//! What the agent's timer does, by clocks that the test sets.

use hypernet_core::history::By;
use hypernet_core::history::policy::Policy;
use hypernet_core::time::Hlc;
use hypernet_fs::vfs::{Caller, ROOT, XattrFlags};

use super::super::double::Mesh;
use super::super::merging::tests::{Home, homes, meet};
use super::super::recover::wall;
use super::*;

const HOUR: u64 = 3_600_000;

fn set(home: &Home, text: &[u8]) {
    let me = Caller { uid: 0, gid: 0, umask: 0 };
    home.vfs.setxattr(me, ROOT, XATTR, text, XattrFlags::Set).unwrap();
}

fn look(home: &Home, now: u64) -> Tended {
    home.volume.tend_policy(&home.vfs, ROOT, now).unwrap()
}

/// Whether one was taken, and how many went.
fn counts(tended: &Tended) -> (usize, usize) {
    (tended.taken.iter().count(), tended.gone)
}

/// Messages, and whether nobody has asked for it.
fn history(home: &Home) -> Vec<(String, bool)> {
    let kept = home.volume.history().unwrap();
    kept.kept.values().map(|kept| (kept.snapshot.message.clone(), kept.by == By::Policy)).collect()
}

/// The beginning of an hour that is not over yet on any clock: the times of snapshots are never before those of heads.
fn begin() -> u64 {
    (wall() / HOUR + 2) * HOUR
}

#[test]
fn one_is_taken_in_each_period_in_which_something_has_changed_and_old_ones_go() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let one = &homes[0];
    let at = begin();
    assert_eq!(look(one, at), Tended::default(), "there is no policy");
    set(one, b"hourly=2");
    let first = look(one, at).taken.unwrap();
    assert_eq!((first.snapshot.message.as_str(), first.by), ("hourly", By::Policy));
    assert_eq!(first.snapshot.time, Hlc { millis: at, counter: 0 });
    one.write("a", b"b");
    assert_eq!(counts(&look(one, at + HOUR - 1)), (0, 0), "this hour has one");
    assert_eq!(counts(&look(one, at + HOUR)), (1, 0));
    assert_eq!(counts(&look(one, at + 2 * HOUR)), (0, 0), "nothing has changed");
    one.write("a", b"c");
    // Late, and not once for each hour that has gone by; the policy itself is no change of what it keeps.
    assert_eq!(counts(&look(one, at + 500 * HOUR)), (1, 1));
    set(one, b"hourly=3");
    assert_eq!(counts(&look(one, at + 501 * HOUR)), (0, 0));
    one.write("a", b"d");
    assert_eq!(counts(&look(one, at + 499 * HOUR)), (0, 0), "a clock that went back");
    assert_eq!(history(one), [("hourly".to_owned(), true), ("hourly".to_owned(), true)]);
    // What is in one taken by hand is kept already.
    one.volume.snap_at(&one.vfs, "by hand".into(), false, at + 501 * HOUR).unwrap();
    assert_eq!(counts(&look(one, at + 502 * HOUR)), (0, 0));
    set(one, b"daily=1");
    assert_eq!(counts(&look(one, at + 502 * HOUR)), (0, 1), "fewer are kept");
    assert_eq!(history(one), [("hourly".to_owned(), true), ("by hand".to_owned(), false)]);
}

#[test]
fn all_devices_have_one_policy_and_one_history_and_one_snapshot_is_enough() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 2, |home| home.write("a", b"a"));
    let [one, two] = &homes[..] else { panic!() };
    set(one, b"hourly=24 daily=7");
    meet(&homes);
    let text = text_of(&two.vfs, ROOT).unwrap().unwrap();
    assert_eq!(Policy::parse(&text), Ok(Policy { hourly: 24, daily: 7, ..Policy::default() }));
    let at = begin();
    assert_eq!(counts(&look(two, at)), (1, 0));
    meet(&homes);
    one.write("b", b"b");
    assert_eq!(counts(&look(one, at + HOUR / 2)), (0, 0), "the other device has taken it");
    // Apart from each other both take one; of these the later stays.
    two.write("c", b"c");
    assert_eq!((counts(&look(one, at + HOUR)), counts(&look(two, at + HOUR + 5))), ((1, 0), (1, 0)));
    meet(&homes);
    assert_eq!(history(one).len(), 3);
    assert_eq!((look(one, at + HOUR + 10), look(two, at + HOUR + 10)).0.gone, 1);
    meet(&homes);
    assert_eq!((history(one).len(), history(two)), (2, history(one)));
    let newest = two.volume.history().unwrap().kept.values().next_back().unwrap().clone();
    assert_eq!(newest.snapshot.author, two.volume.device.id());
    // Taken away on one device it is gone on all; of what was set at once the later one counts.
    two.vfs.removexattr(ROOT, XATTR).unwrap();
    meet(&homes);
    assert_eq!(text_of(&one.vfs, ROOT).unwrap(), None);
    one.write("a", b"more");
    assert_eq!(look(one, at + 10 * HOUR), Tended::default());
    set(one, b"daily=1");
    set(two, b"weekly=1");
    meet(&homes);
    assert_eq!(text_of(&one.vfs, ROOT).unwrap(), text_of(&two.vfs, ROOT).unwrap());
}

#[test]
fn by_what_is_no_policy_nothing_is_taken_and_nothing_goes() {
    let mesh = Mesh::new(6);
    let homes = homes(&mesh, 1, |home| home.write("a", b"a"));
    let one = &homes[0];
    let at = begin();
    set(one, b"hourly=5");
    for hour in 0..3 {
        one.write("a", &[hour]);
        assert_eq!(counts(&look(one, at + u64::from(hour) * HOUR)), (1, 0));
    }
    one.write("a", b"more");
    for text in [&b"hourly=1 weekly"[..], b"", b"last=1", b"\xff", &[b' '; 300]] {
        set(one, text);
        let error = one.volume.tend_policy(&one.vfs, ROOT, at + 9 * HOUR).unwrap_err();
        assert!(matches!(error, PolicyError::Text(_)) && error.to_string().contains("`hn policy`"), "{error}");
        assert_eq!(history(one).len(), 3);
    }
    // Nor where this device cannot take one.
    set(one, b"hourly=1");
    super::super::state::put_following(&one.volume.db, &super::super::state::latest(&one.volume.db).unwrap().unwrap())
        .unwrap();
    let error = one.volume.tend_policy(&one.vfs, ROOT, at + 9 * HOUR).unwrap_err();
    assert!(matches!(error, PolicyError::Port(PortError::Deadline(_))), "{error}");
}

//! The local copies stay below a limit.

use std::time::Duration;

use super::remote::big;
use super::*;

impl Bed {
    /// Trims what a mesh serves that serves everything.
    pub(super) fn trim(&self, limit: u64) -> Trimmed {
        self.vfs.trim_cache(limit, &mut |contents| vec![true; contents.len()]).unwrap()
    }

    fn is_here(&self, ino: u64) -> bool {
        self.vfs.backing.stat(ino).unwrap().is_some()
    }

    fn read_at(&self, ino: u64, at: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        let read = self.vfs.read(ino, at, &mut buf).unwrap();
        buf.truncate(read);
        buf
    }
}

#[test]
fn what_was_used_longest_ago_goes_first_and_no_more_than_need_be() {
    let bed = Bed::new();
    let inos: Vec<u64> = (0..5).map(|n| bed.file(ROOT, &format!("{n}"), &big(100_000))).collect();
    bed.publish().unwrap();
    assert_eq!(bed.trim(500_000), Trimmed { before: 500_000, after: 500_000, kept_files: 0 });
    for ino in [3, 1, 0, 4, 2].map(|n| inos[n]) {
        bed.read(ino);
        bed.trim(500_000); // time goes on
    }
    // Two are left after three have gone: nine tenths are 270 thousand.
    assert_eq!(bed.trim(300_000), Trimmed { before: 500_000, after: 200_000, kept_files: 0 });
    assert_eq!(inos.iter().map(|ino| bed.is_here(*ino)).collect::<Vec<_>>(), [false, false, true, false, true]);
    // It comes back, and is the newest then.
    assert_eq!(bed.read(inos[0]), big(100_000));
    bed.vfs.commit().unwrap();
    bed.trim(300_000);
    assert_eq!(bed.trim(150_000), Trimmed { before: 300_000, after: 100_000, kept_files: 0 });
    assert!(bed.is_here(inos[0]));
    assert_eq!(bed.trim(0).after, 0);
    for ino in inos {
        assert_eq!(bed.read(ino), big(100_000));
    }
    bed.assert_sound();
}

#[test]
fn what_is_dirty_open_or_not_served_stays() {
    let bed = Bed::new();
    let [clean, open, unserved] = ["clean", "open", "unserved"].map(|name| bed.file(ROOT, name, &big(10_000)));
    bed.overwrite(unserved, 0, b"another");
    bed.publish().unwrap();
    let dirty = bed.file(ROOT, "dirty", &big(1_000_000));
    bed.vfs.open_file(ME, open, RO, false).unwrap();
    let content = bed.meta.inode(unserved).unwrap().unwrap().remote.unwrap();
    let mut served = |contents: &[&Content]| contents.iter().map(|asked| **asked != content).collect();
    let trimmed = bed.vfs.trim_cache(0, &mut served).unwrap();
    assert_eq!(trimmed, Trimmed { before: 30_000, after: 20_000, kept_files: 1 });
    assert_eq!([clean, open, unserved, dirty].map(|ino| bed.is_here(ino)), [false, true, true, true]);
    bed.vfs.release(open, RO).unwrap();
    assert_eq!(bed.trim(0).after, 0);
    assert!(bed.is_here(dirty) && bed.read(dirty) == big(1_000_000));
    bed.assert_sound();
}

#[test]
fn holes_count_for_nothing() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "sparse", b"x");
    bed.vfs.truncate(ME, ino, 64 << 20).unwrap();
    bed.publish().unwrap();
    let trimmed = bed.trim(1 << 20);
    assert!(trimmed.before < 1 << 20 && trimmed.after == trimmed.before, "{trimmed:?}");
    assert!(bed.is_here(ino));
}

#[test]
fn holes_are_not_walked_through_on_the_way_here() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "sparse", b"at the start");
    bed.overwrite(ino, 100 << 20, &big(300_000));
    bed.vfs.truncate(ME, ino, 128 << 20).unwrap();
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    let reads = bed.remote.reads();
    assert!(reads < 10, "{reads} reads for two stretches of data");
    let blocks = bed.vfs.getattr(ino).unwrap().blocks;
    assert!(blocks < 4096, "{blocks} blocks");
    assert!(bed.read_at(ino, 0, 12) == b"at the start" && bed.read_at(ino, 100 << 20, 300_000) == big(300_000));
    assert!(bed.read_at(ino, 50 << 20, 100_000).iter().all(|byte| *byte == 0));
    bed.vfs.release(ino, RW).unwrap();
}

#[test]
fn what_is_given_up_of_a_sparse_file_is_its_data() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "sparse", b"");
    let pieces: Vec<u64> = (1..6).map(|n| n * (16 << 20)).collect();
    for at in &pieces {
        bed.overwrite(ino, *at, &big(1 << 20));
    }
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    let look = || {
        for at in &pieces {
            assert!(bed.read_at(ino, at - 4096, 4096).iter().all(|byte| *byte == 0));
            assert!(bed.read_at(ino, *at, 1 << 20) == big(1 << 20));
        }
        // The last read is not given up.
        bed.read_at(ino, 0, 1);
    };
    look();
    let trimmed = bed.trim(2 << 20);
    assert!(trimmed.before >= 5 << 20, "{trimmed:?}");
    let here = bed.vfs.backing.stat(ino).unwrap().unwrap().bytes();
    // Blocks in which the filesystem notes where the data is are counted with it, and come when it is written back.
    assert!(trimmed.after <= 2 << 20 && here <= trimmed.after + (64 << 10), "{here} bytes, {trimmed:?}");
    look();
    bed.vfs.release(ino, RO).unwrap();
}

#[test]
fn a_file_larger_than_the_cache_is_read_through_it() {
    let content = big(40 << 20);
    let bed = Bed::new();
    let ino = bed.file(ROOT, "large", &content);
    bed.publish().unwrap();
    assert_eq!(bed.trim(1 << 20).after, 0);
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    let look = || {
        for at in (0..10u64).rev().map(|n| n << 22) {
            let expected = &content[at as usize..at as usize + 100_000];
            assert!(bed.read_at(ino, at, 100_000) == expected, "at {at}");
        }
    };
    look();
    let trimmed = bed.trim(1 << 20);
    assert!(trimmed.before > 2 << 20 && trimmed.after < 1 << 20, "{trimmed:?}");
    look();
    // From many threads, while it is trimmed all the time.
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(look)).collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            bed.trim(100_000);
        }
    });
    // Whoever writes needs all of it, and gets it.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| bed.vfs.open_file(ME, ino, RW, false).map(drop));
        while !writer.is_finished() {
            bed.trim(100_000);
        }
        writer.join().unwrap().unwrap();
    });
    assert!(bed.read_at(ino, 0, content.len()) == content);
    bed.vfs.release(ino, RW).unwrap();
    bed.vfs.release(ino, RO).unwrap();
    // Opened for writing within a tick of its arrival, it may count as changed.
    bed.publish();
    assert_eq!(bed.trim(0).after, 0);
    bed.assert_sound();
}

#[test]
fn whoever_waits_hears_when_it_has_grown() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", &big(100_000));
    assert!(bed.vfs.wait_cached(0, Duration::ZERO), "nothing is clean yet");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bed.vfs.wait_cached(50_000, Duration::from_secs(600)));
        bed.publish().unwrap();
        assert!(waiting.join().unwrap());
        assert!(bed.vfs.cached() >= 100_000);
        bed.trim(0);
        assert_eq!(bed.vfs.cached(), 0);
        let waiting = scope.spawn(|| bed.vfs.wait_cached(50_000, Duration::from_secs(600)));
        bed.read(ino);
        assert!(waiting.join().unwrap());
        bed.trim(0);
        let waiting = scope.spawn(|| bed.vfs.wait_cached(50_000, Duration::from_secs(600)));
        bed.vfs.stop_waiting_cached();
        assert!(!waiting.join().unwrap() && !bed.vfs.rest_cached(Duration::from_secs(600)));
    });
}

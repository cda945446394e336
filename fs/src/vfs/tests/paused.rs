//! What waits while a volume holds still, and what does not.

use std::sync::mpsc::channel;

use super::*;

const LONG: Duration = Duration::from_secs(600);

type Change = fn(&Vfs, u64) -> Result<()>;

/// What may not happen before the volume moves again; the number is that of an open file.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("create", |vfs, _| vfs.create(ME, ROOT, b"made", 0o644, RW, false).map(drop)),
        ("mkdir", |vfs, _| vfs.mkdir(ME, ROOT, b"dir", 0o755).map(drop)),
        ("symlink", |vfs, _| vfs.symlink(ME, ROOT, b"symlink", b"a").map(drop)),
        ("link", |vfs, ino| vfs.link(ino, ROOT, b"link").map(drop)),
        ("unlink", |vfs, _| vfs.unlink(ROOT, b"gone")),
        ("rmdir", |vfs, _| vfs.rmdir(ROOT, b"empty")),
        ("rename", |vfs, _| vfs.rename(ROOT, b"from", ROOT, b"to", RenameFlags::Replace)),
        ("fsync", |vfs, ino| vfs.fsync(ino, true)),
        ("fsyncdir", |vfs, _| vfs.fsyncdir(ROOT)),
    ]
}

fn bed() -> (Bed, u64) {
    let bed = Bed::new();
    let make = |name: &[u8]| bed.vfs.create(ME, ROOT, name, 0o644, RW, false).unwrap().0.ino;
    let open = make(b"open");
    make(b"gone");
    make(b"from");
    bed.vfs.mkdir(ME, ROOT, b"empty", 0o755).unwrap();
    (bed, open)
}

#[test]
fn names_and_what_is_said_to_be_on_disk_wait_and_writers_do_not() {
    let (bed, open) = bed();
    let (cut, still) = bed.vfs.cut_paused(VOLUME, LONG).unwrap();
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for (name, change) in changes() {
            let (vfs, tell) = (&bed.vfs, tell.clone());
            scope.spawn(move || tell.send((name, change(vfs, open))).unwrap());
        }
        while bed.vfs.stopped() < changes().len() {
            assert!(told.try_recv().is_err(), "it has not waited");
            std::thread::yield_now();
        }
        // Nor does anybody who reads.
        bed.vfs.write(open, 0, b"written", false).unwrap();
        assert_eq!(bed.vfs.lookup(ROOT, b"open").unwrap().size, 7);
        bed.vfs.setattr(ME, open, SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
        assert_eq!(still.ended(), None);
        drop(still);
        bed.vfs.end_cut();
    });
    drop(tell);
    let all: Vec<_> = told.iter().collect();
    assert!(all.len() == changes().len() && all.iter().all(|(_, ended)| ended.is_ok()), "{all:?}");
    let named = cut.directories.last().unwrap().entries.as_ref().unwrap().len();
    assert_eq!(named, 4, "what came later is not in the cut");
}

#[test]
fn nobody_waits_for_longer_than_was_said_nor_elsewhere() {
    let (bed, open) = bed();
    let (_, still) = bed.vfs.cut_paused(VOLUME, Duration::from_millis(10)).unwrap();
    for (name, change) in changes() {
        change(&bed.vfs, open).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(still.ended().is_some());
    drop(still);
    bed.vfs.end_cut();
    // What has no name any more is in no volume, and what is in another one moves.
    for name in [&b"open"[..], b"link"] {
        bed.vfs.unlink(ROOT, name).unwrap();
    }
    let below = bed.vfs.mkdir(ME, ROOT, b"below", 0o755).unwrap().ino;
    bed.vfs.split(below, hypernet_core::id::VolumeId([9; 16])).unwrap();
    let (_, still) = bed.vfs.cut_paused(VOLUME, LONG).unwrap();
    bed.vfs.fsync(open, false).unwrap();
    bed.vfs.mkdir(ME, below, b"other", 0o755).unwrap();
    drop(still);
    bed.vfs.end_cut();
    bed.vfs.mkdir(ME, ROOT, b"again", 0o755).unwrap();
}

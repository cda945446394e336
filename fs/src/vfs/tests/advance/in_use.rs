//! Files that are written to while their volume moves on.

use std::fs::File;

use super::*;

/// A file that is open for writing on the device that follows, in passthrough or not.
fn opened(passthrough: bool) -> (Two, u64, Option<Arc<File>>) {
    let two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        let below = bed.dir(dir, "below");
        bed.file(below, "log", b"begun");
        bed.file(ROOT, "b", b"content");
        bed.dir(ROOT, "else");
    });
    two.reader.load_all();
    let log = two.reader.at("dir/below/log");
    let opened = two.reader.vfs.open_file(ME, log, RW, passthrough).unwrap();
    (two, log, opened.passthrough)
}

fn append(two: &Two, log: u64, file: Option<&Arc<File>>, at: u64, text: &[u8]) {
    match file {
        Some(file) => file.write_all_at(text, at).unwrap(),
        None => two.reader.vfs.write(log, at, text, false).unwrap(),
    }
}

#[test]
fn what_is_written_to_stays_while_the_rest_moves_on_and_is_published_where_it_is_then() {
    for passthrough in [false, true] {
        for writes_before in [false, true] {
            let (mut two, log, file) = opened(passthrough);
            if writes_before {
                append(&two, log, file.as_ref(), 5, b", more");
            }
            two.publish(|bed| {
                bed.overwrite(bed.at("b"), 0, b"CONTENT");
                bed.file(bed.at("else"), "new", b"new");
                let (dir, other) = (bed.at("dir"), bed.at("else"));
                bed.vfs.rename(bed.at("dir/below"), b"log", other, b"moved", RenameFlags::Replace).unwrap();
                bed.vfs.rmdir(dir, b"below").unwrap();
                bed.vfs.rename(ROOT, b"else", dir, b"else", RenameFlags::Replace).unwrap();
            });
            two.try_advance().unwrap();
            let reader = &two.reader;
            assert_eq!(reader.names(ROOT), ["b", "dir"]);
            assert_eq!((reader.at("dir/else/moved"), reader.read(reader.at("b"))), (log, b"CONTENT".to_vec()));
            let end = reader.stat(log).size;
            append(&two, log, file.as_ref(), end, b", and on");
            let expected = if writes_before { &b"begun, more, and on"[..] } else { b"begun, and on" };
            drop(file);
            two.reader.vfs.release(log, RW).unwrap();
            // Nothing of it is lost by a kill, either.
            two.reader.vfs.fsync(log, false).unwrap();
            two.reader.vfs.commit().unwrap();
            let two = two.kill();
            let log = two.reader.at("dir/else/moved");
            assert_eq!(two.reader.read(log), expected);
            assert_eq!(two.reader.vfs.pending(VOLUME).files, 1);
            let root = two.reader.publish().unwrap();
            two.writer.vfs.advance(VOLUME, root).unwrap();
            assert_eq!(two.writer.read(two.writer.at("dir/else/moved")), expected);
            two.reader.assert_sound();
        }
    }
}

#[test]
fn one_that_others_have_changed_or_taken_away_keeps_the_volume_where_it_is() {
    let changes: [fn(&Bed); 5] = [
        |bed| bed.overwrite(bed.at("dir/below/log"), 0, b"BEGUN"),
        |bed| bed.set_mode(bed.at("dir/below/log"), 0o600),
        |bed| bed.vfs.unlink(bed.at("dir/below"), b"log").unwrap(),
        |bed| {
            bed.vfs.link(bed.at("dir/below/log"), ROOT, b"too").unwrap();
        },
        |bed| {
            bed.vfs.unlink(bed.at("dir/below"), b"log").unwrap();
            bed.vfs.rmdir(bed.at("dir"), b"below").unwrap();
        },
    ];
    for change in changes {
        for writes in [false, true] {
            let (mut two, log, file) = opened(true);
            if writes {
                append(&two, log, file.as_ref(), 5, b", more");
            }
            two.publish(change);
            let before = two.reader.names(ROOT);
            assert_eq!(two.try_advance(), Err(VfsError::Busy));
            let expected = if writes { &b"begun, more"[..] } else { b"begun" };
            assert_eq!((two.reader.names(ROOT), two.reader.read(log)), (before, expected.to_vec()));
        }
    }
}

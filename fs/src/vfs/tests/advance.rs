//! A device that follows what another one publishes.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::tree::{Entry, LinkEntry, Target};

use super::*;
use crate::testing::publish_volume;

mod content;
mod in_use;
mod random;
mod reading;

const OTHER: VolumeId = VolumeId([2; 16]);

/// One device that writes, and one that follows it.
struct Two {
    writer: Bed,
    reader: Bed,
    root: Inode,
}

impl Two {
    fn new(make: impl FnOnce(&Bed)) -> Self {
        let writer = Bed::new();
        make(&writer);
        let root = writer.publish().unwrap();
        let reader = writer.recovered(root.clone());
        Self { writer, reader, root }
    }

    /// The writer changes something and publishes it; the reader has not heard of it yet.
    fn publish(&mut self, change: impl FnOnce(&Bed)) {
        change(&self.writer);
        self.root = self.writer.publish().unwrap();
    }

    fn try_advance(&self) -> Result<()> {
        self.reader.vfs.advance(VOLUME, self.root.clone())
    }

    /// The reader has what a device has that begins with the root, and nothing to upload.
    #[track_caller]
    fn assert_equal(&self) {
        assert_eq!(self.reader.dump(), self.fresh().dump());
        assert_eq!(self.reader.vfs.pending(VOLUME).files, 0);
        assert_eq!(self.reader.publish(), None);
        self.reader.assert_sound();
    }

    #[track_caller]
    fn advance(&mut self, change: impl FnOnce(&Bed)) {
        self.publish(change);
        self.try_advance().unwrap();
        self.assert_equal();
    }

    fn fresh(&self) -> Bed {
        self.writer.recovered(self.root.clone())
    }

    fn kill(self) -> Self {
        let meta = self.reader.meta.after_kill();
        Self { reader: self.reader.reopen(meta), ..self }
    }
}

impl Bed {
    /// All that can be seen of a tree, by path; names of one inode by the first of them. Everything is fetched for it.
    fn dump(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut first: BTreeMap<u64, String> = BTreeMap::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = waiting.pop() {
            if self.stat(ino).kind == FileKind::Directory {
                for name in self.names(ino).into_iter().rev() {
                    let child = self.vfs.lookup(ino, name.as_bytes()).unwrap().ino;
                    waiting.push((format!("{path}/{name}"), child));
                }
            }
            let attr = self.stat(ino);
            let holds = match attr.kind {
                FileKind::Regular => format!("{:?}", String::from_utf8_lossy(&self.read(ino))),
                FileKind::Symlink => format!("{:?}", self.vfs.readlink(ino).unwrap()),
                _ => String::new(),
            };
            let names = self.vfs.listxattr(ADMIN, ino).unwrap();
            let xattrs: Vec<_> = names
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| (String::from_utf8_lossy(name).into_owned(), self.vfs.getxattr(ino, name).unwrap()))
                .collect();
            // Those of whoever has just read it.
            let attr = Attr { ino: 0, atime: Timespec::default(), blocks: 0, ..attr };
            let same = first.entry(ino).or_insert_with(|| path.clone());
            all.insert(path, format!("{same} {attr:?} {xattrs:?} {holds}"));
        }
        all
    }

    fn load_all(&self) {
        self.dump();
        self.vfs.commit().unwrap();
    }

    fn set_mode(&self, ino: u64, mode: u32) {
        self.vfs.setattr(ADMIN, ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
    }

    fn rename_to(&self, from: &str, to: &str) {
        let split = |path: &str| {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            (self.at(dir), name.to_owned())
        };
        let ((from, name), (to, new)) = (split(from), split(to));
        self.vfs.rename(from, name.as_bytes(), to, new.as_bytes(), RenameFlags::Replace).unwrap();
    }

    fn remove_all(&self, dir: u64, name: &str) {
        let ino = self.vfs.lookup(dir, name.as_bytes()).unwrap().ino;
        if self.stat(ino).kind != FileKind::Directory {
            return self.vfs.unlink(dir, name.as_bytes()).unwrap();
        }
        self.names(ino).iter().for_each(|child| self.remove_all(ino, child));
        self.vfs.rmdir(dir, name.as_bytes()).unwrap();
    }
}

#[test]
fn files_come_and_go_and_change() {
    let mut two = Two::new(|bed| {
        for name in ["same", "changed", "gone", "old name", "mode"] {
            bed.file(ROOT, name, name.as_bytes());
        }
    });
    two.reader.load_all();
    let inos = ["same", "changed", "old name", "mode"].map(|name| two.reader.at(name));
    let reads = two.reader.remote.reads();
    two.publish(|bed| {
        bed.overwrite(bed.at("changed"), 0, b"CHANGED and longer");
        bed.vfs.unlink(ROOT, b"gone").unwrap();
        bed.rename_to("old name", "new name");
        bed.set_mode(bed.at("mode"), 0o600);
        bed.file(ROOT, "new", b"new");
    });
    two.try_advance().unwrap();
    let reader = &two.reader;
    assert_eq!(reader.names(ROOT), ["changed", "mode", "new", "new name", "same"]);
    assert_eq!(reader.vfs.lookup(ROOT, b"gone").map(drop), Err(VfsError::NotFound));
    assert_eq!(["same", "changed", "new name", "mode"].map(|name| reader.at(name)), inos);
    assert_eq!(reader.stat(inos[1]).size, 18);
    assert_eq!(reader.read(inos[1]), b"CHANGED and longer");
    assert_eq!((reader.stat(inos[3]).mode, reader.read(inos[3])), (0o600, b"mode".to_vec()));
    assert_eq!((reader.read(inos[0]), reader.read(inos[2])), (b"same".to_vec(), b"old name".to_vec()));
    assert_eq!(reader.remote.reads(), reads + 1, "what is equal is still here");
    two.assert_equal();
    // And it is in the store.
    two.reader = two.reader.restart();
    two.assert_equal();
    assert_eq!(["same", "changed", "new name", "mode"].map(|name| two.reader.at(name)), inos);
    two.try_advance().unwrap();
    two.assert_equal();
}

#[test]
fn what_is_not_listed_here_is_not_listed() {
    let mut two = Two::new(|bed| {
        for top in ["a", "b"] {
            let dir = bed.dir(ROOT, top);
            let deep = bed.dir(dir, "deep");
            bed.file(deep, "file", b"content");
        }
    });
    two.reader.names(two.reader.at("a/deep"));
    let before = two.reader.at("a/deep/file");
    two.publish(|bed| {
        for top in ["a", "b"] {
            bed.file(bed.at(&format!("{top}/deep")), "new", b"new");
        }
        bed.set_mode(bed.at("b"), 0o700);
    });
    let lists = two.reader.remote.lists();
    two.try_advance().unwrap();
    // The root, `a` and `a/deep`.
    assert_eq!(two.reader.remote.lists(), lists + 3);
    assert_eq!((two.reader.stat(two.reader.at("b")).mode, two.reader.at("a/deep/file")), (0o700, before));
    assert_eq!(two.reader.names(two.reader.at("b/deep")), ["file", "new"]);
    two.assert_equal();
    let lists = two.reader.remote.lists();
    two.try_advance().unwrap();
    assert_eq!(two.reader.remote.lists(), lists, "there is nothing to do");
}

#[test]
fn directories_move_and_take_what_is_in_them_along() {
    let mut two = Two::new(|bed| {
        let a = bed.dir(ROOT, "a");
        let b = bed.dir(a, "b");
        let c = bed.dir(b, "c");
        bed.file(c, "file", b"content");
        bed.dir(ROOT, "other");
    });
    two.reader.load_all();
    let inos = ["a", "a/b", "a/b/c", "a/b/c/file"].map(|path| two.reader.at(path));
    // What is below comes above, and what was above is in it.
    two.advance(|bed| {
        bed.rename_to("a/b/c", "c");
        bed.rename_to("a/b", "c/b");
        bed.rename_to("a", "c/b/a");
    });
    assert_eq!(["c/b/a", "c/b", "c", "c/file"].map(|path| two.reader.at(path)), inos);
    // Out of one that goes.
    two.advance(|bed| {
        bed.rename_to("c/b/a", "other/a");
        bed.rename_to("c/file", "other/a/file");
        bed.remove_all(ROOT, "c");
    });
    assert_eq!((two.reader.at("other/a"), two.reader.at("other/a/file")), (inos[0], inos[3]));
    // Unchanged below one that goes, and goes itself to where nothing was listed.
    two.advance(|bed| {
        let far = bed.dir(ROOT, "far");
        bed.dir(far, "x");
    });
    let reader = std::mem::replace(&mut two.reader, two.writer.recovered(two.root.clone()));
    drop(reader);
    two.reader.names(two.reader.at("other/a"));
    two.advance(|bed| bed.rename_to("other/a", "far/x/a"));
}

#[test]
fn one_thing_takes_the_name_of_another() {
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        bed.file(dir, "in it", b"content");
        bed.file(ROOT, "file", b"content");
        bed.vfs.symlink(ME, ROOT, b"link", b"file").unwrap();
    });
    two.reader.load_all();
    let before = ["dir", "file", "link"].map(|name| two.reader.at(name));
    two.advance(|bed| {
        ["dir", "file", "link"].iter().for_each(|name| bed.remove_all(ROOT, name));
        bed.file(ROOT, "dir", b"a file");
        bed.dir(ROOT, "link");
        let dir = bed.dir(ROOT, "file");
        bed.file(dir, "deep", b"deep");
    });
    assert!(["dir", "file", "link"].iter().zip(before).all(|(name, ino)| two.reader.at(name) != ino));
    assert_eq!((two.reader.read(two.reader.at("file/deep")), two.reader.stat(ROOT).nlink), (b"deep".to_vec(), 4));
    two.advance(|bed| {
        bed.vfs.rename(ROOT, b"dir", ROOT, b"file", RenameFlags::Exchange).unwrap();
    });
    assert_eq!(two.reader.read(two.reader.at("dir/deep")), b"deep");
}

#[test]
fn files_with_several_names_follow_the_link_table() {
    let mut two = Two::new(|bed| {
        let (a, b) = (bed.dir(ROOT, "a"), bed.dir(ROOT, "b"));
        let twice = bed.file(a, "one", b"twice");
        bed.vfs.link(twice, b, b"two").unwrap();
        bed.file(a, "single", b"single");
        let going = bed.file(a, "going", b"going");
        bed.vfs.link(going, b, b"going too").unwrap();
    });
    two.reader.load_all();
    let (twice, single) = (two.reader.at("a/one"), two.reader.at("a/single"));
    // No directory says anything of it.
    let root = two.root.clone();
    two.publish(|bed| bed.overwrite(bed.at("a/one"), 0, b"TWICE!"));
    assert_eq!(two.root.content, root.content);
    two.try_advance().unwrap();
    assert_eq!((two.reader.stat(twice).size, two.reader.read(twice)), (6, b"TWICE!".to_vec()));
    two.assert_equal();
    two.advance(|bed| {
        bed.vfs.link(bed.at("a/single"), bed.at("b"), b"not single").unwrap();
        bed.vfs.unlink(bed.at("b"), b"two").unwrap();
        bed.remove_all(bed.at("a"), "going");
        bed.remove_all(bed.at("b"), "going too");
    });
    assert_eq!((two.reader.at("b/not single"), two.reader.at("a/one")), (single, twice));
    assert_eq!((two.reader.stat(single).nlink, two.reader.stat(twice).nlink), (2, 1));
    assert_eq!(two.reader.vfs.state.lock().linked.len(), 2);
    two.advance(|bed| bed.remove_all(bed.at("a"), "one"));
    assert_eq!(two.reader.vfs.state.lock().linked.len(), 1);
    assert_eq!(two.reader.meta.inode(twice).unwrap(), None);
}

#[test]
fn names_that_are_not_listed_here_count_too() {
    let mut two = Two::new(|bed| {
        let (a, b) = (bed.dir(ROOT, "a"), bed.dir(ROOT, "b"));
        for name in ["stays", "goes", "moves"] {
            let ino = bed.file(a, name, name.as_bytes());
            bed.vfs.link(ino, b, name.as_bytes()).unwrap();
        }
    });
    let reader = &two.reader;
    let a = reader.at("a");
    let stays = reader.at("a/stays");
    reader.names(a).iter().for_each(|name| _ = reader.read(reader.at(&format!("a/{name}"))));
    two.publish(|bed| {
        bed.remove_all(bed.at("a"), "stays");
        bed.remove_all(bed.at("a"), "goes");
        bed.remove_all(bed.at("b"), "goes");
        bed.rename_to("a/moves", "b/moved");
    });
    two.try_advance().unwrap();
    assert!(two.reader.names(a).is_empty());
    two.reader.vfs.commit().unwrap();
    two.reader.assert_sound();
    let reads = two.reader.remote.reads();
    assert_eq!(two.reader.read(two.reader.at("b/stays")), b"stays");
    assert_eq!((two.reader.at("b/stays"), two.reader.remote.reads()), (stays, reads));
    two.assert_equal();
}

#[test]
fn a_record_that_the_link_table_lost_takes_nothing_else_with_it() {
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        let lost = bed.file(dir, "lost", b"lost");
        bed.vfs.link(lost, ROOT, b"lost too").unwrap();
        bed.file(dir, "other", b"other");
    });
    two.reader.load_all();
    let lost = two.reader.at("dir/lost");
    let id = two.reader.meta.inode(lost).unwrap().unwrap().id;
    two.publish(|bed| bed.overwrite(bed.at("dir/other"), 0, b"OTHER"));
    let row = two.writer.remote.take_link(id).unwrap();
    two.try_advance().unwrap();
    assert_eq!(two.reader.names(ROOT), ["dir", "lost too"]);
    assert!(two.reader.vfs.lookup(ROOT, b"lost too").unwrap_err().to_string().contains("link table"));
    assert_eq!(two.reader.read(two.reader.at("dir/other")), b"OTHER");
    assert_eq!(two.reader.vfs.backing.stat(lost).unwrap(), None);
    two.writer.remote.put_link(row.clone());
    two.try_advance().unwrap();
    assert_eq!(two.reader.at("dir/lost"), lost);
    two.assert_equal();
    // One that is about something else is none either.
    let inode = Inode { kind: FileKind::Symlink, content: Content::Symlink(b"x".to_vec()), ..row.inode.clone() };
    two.writer.remote.put_link(LinkEntry { inode, links: 2 });
    two.try_advance().unwrap();
    assert!(two.reader.vfs.lookup(ROOT, b"lost too").is_err());
    two.writer.remote.put_link(row);
    two.try_advance().unwrap();
    two.assert_equal();
}

#[test]
fn what_has_one_name_again_in_another_snapshot_has_so_after_a_restart() {
    // As a merge of several devices has it, of a file that was linked and whose other name is gone.
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        let file = bed.file(dir, "object", b"content");
        bed.vfs.link(file, dir, b"temporary").unwrap();
        bed.vfs.unlink(dir, b"temporary").unwrap();
        bed.file(ROOT, "other", b"other");
    });
    two.reader.load_all();
    let (object, dir) = (two.reader.at("dir/object"), two.reader.at("dir"));
    let row = two.reader.meta.inode(object).unwrap().unwrap();
    assert!(row.linked && row.nlink == 1);
    let remote = two.writer.remote.clone();
    let listed = |inode: &Inode| match &inode.content {
        Content::Directory(tree) => remote.list(tree).unwrap(),
        other => panic!("{other:?}"),
    };
    let record = remote.take_link(row.id).unwrap();
    let mut all = listed(&two.root);
    for entry in all.iter_mut().filter(|entry| entry.name == b"dir") {
        let Target::Inode(inode) = &mut entry.target else { panic!() };
        let mut below = listed(inode);
        below[0].target = Target::Inode(record.inode.clone().into());
        inode.content = Content::Directory(remote.put_directory(below).unwrap());
    }
    two.root.content = Content::Directory(remote.put_directory(all).unwrap());
    two.try_advance().unwrap();
    two.reader.vfs.commit().unwrap();
    let mut two = two.kill();
    let row = two.reader.meta.inode(object).unwrap().unwrap();
    assert_eq!((row.linked, row.parent), (false, dir));
    // Where it is is not looked into again, and it has no record in a link table.
    let mut all = listed(&two.root);
    all.retain(|entry| entry.name != b"other");
    two.root.content = Content::Directory(remote.put_directory(all).unwrap());
    two.try_advance().unwrap();
    assert_eq!(two.reader.read(two.reader.at("dir/object")), b"content");
    two.assert_equal();
}

#[test]
fn what_waits_for_the_upload_or_may_change_keeps_a_volume_where_it_is() {
    let mut two = Two::new(|bed| {
        bed.file(ROOT, "a", b"content");
        bed.file(ROOT, "b", b"content");
        let linked = bed.file(ROOT, "linked", b"linked");
        bed.vfs.link(linked, ROOT, b"too").unwrap();
    });
    two.publish(|bed| bed.overwrite(bed.at("b"), 0, b"CONTENT"));
    let reader = &two.reader;
    reader.load_all();
    let (a, b) = (reader.at("a"), reader.at("b"));
    let before = reader.dump();
    let busy = |two: &Two| {
        assert_eq!(two.try_advance(), Err(VfsError::Busy));
        assert_eq!(two.reader.vfs.state.lock().pinned, 0);
    };
    // One that changed is open for writing, of which nothing is written.
    for passthrough in [false, true] {
        reader.vfs.open_file(ME, b, RW, passthrough).unwrap();
        busy(&two);
        reader.vfs.release(b, RW).unwrap();
    }
    // Mapped for writing, without a handle.
    let passed = reader.vfs.open_file(ME, b, RW, true).unwrap().passthrough.unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*passed));
    let mapped = std::fs::File::options().read(true).write(true).open(path).unwrap();
    drop(passed);
    reader.vfs.release_passed_through(b, RW).unwrap();
    busy(&two);
    drop(mapped);
    let cut = reader.vfs.cut(VOLUME).unwrap();
    busy(&two);
    reader.vfs.end_cut();
    drop(cut);
    assert_eq!(reader.dump(), before);
    // Whoever looks at what is open for writing a moment after a write takes it for written to.
    reader.publish();
    // What is read and has not changed is in nobody's way.
    reader.vfs.open_file(ME, a, RO, false).unwrap();
    two.try_advance().unwrap();
    assert_eq!(two.reader.read(b), b"CONTENT");
    two.reader.vfs.release(a, RO).unwrap();
    two.reader.dir(ROOT, "dirty");
    busy(&two);
    assert!(two.reader.names(ROOT).contains(&"dirty".to_owned()));
    two.reader.publish().unwrap();
    // A row of the link table that must go.
    for name in [&b"linked"[..], b"too"] {
        two.reader.vfs.unlink(ROOT, name).unwrap();
    }
    two.reader.vfs.state.lock().volumes.values_mut().for_each(|held| held.dirty.clear());
    busy(&two);
    assert_eq!(two.reader.vfs.advance(OTHER, two.root.clone()), Err(VfsError::NotFound));
}

#[test]
fn what_is_no_root_of_that_volume_is_refused() {
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"content"));
    two.publish(|bed| _ = bed.file(ROOT, "b", b"content"));
    let of = |change: fn(&mut Inode)| {
        let mut inode = two.root.clone();
        change(&mut inode);
        two.reader.vfs.advance(VOLUME, inode)
    };
    assert_eq!(of(|inode| inode.id = FileId([9; 16])), Err(VfsError::Invalid));
    assert_eq!(of(|inode| inode.kind = FileKind::Regular), Err(VfsError::Invalid));
    assert_eq!(of(|inode| inode.content = Content::Empty), Err(VfsError::Invalid));
    assert_eq!(two.reader.names(ROOT), ["a"]);
    two.try_advance().unwrap();
    two.assert_equal();
}

#[test]
fn a_new_tree_and_a_volume_that_was_not_found_yet_begin_with_it() {
    let two = Two::new(|bed| {
        bed.file(ROOT, "top", b"top");
        let dir = bed.dir(ROOT, "shared");
        bed.file(dir, "a", b"content");
        bed.vfs.split(dir, OTHER).unwrap();
    });
    let other = publish_volume(&two.writer.vfs, &two.writer.remote, OTHER).unwrap().unwrap();
    let new = Bed::on(two.writer.remote.clone());
    assert!(new.names(ROOT).is_empty());
    new.vfs.advance(VOLUME, two.root.clone()).unwrap();
    assert_eq!(new.names(ROOT), ["shared", "top"]);
    let shared = new.at("shared");
    new.vfs.advance(OTHER, other.clone()).unwrap();
    assert_eq!((new.read(new.at("shared/a")), new.at("shared")), (b"content".to_vec(), shared));
    new.vfs.advance(OTHER, other).unwrap();
    new.assert_sound();
}

#[test]
fn volumes_below_stay_as_they_are_and_each_is_moved_on_by_itself() {
    let mut two = Two::new(|bed| {
        let place = bed.dir(ROOT, "place");
        let dir = bed.dir(place, "shared");
        bed.file(dir, "a", b"content");
        bed.file(place, "beside", b"beside");
        bed.vfs.split(dir, OTHER).unwrap();
    });
    let other = publish_volume(&two.writer.vfs, &two.writer.remote, OTHER).unwrap().unwrap();
    two.reader.at("place/shared");
    two.reader.vfs.set_root(OTHER, other).unwrap();
    two.reader.load_all();
    let (shared, a) = (two.reader.at("place/shared"), two.reader.at("place/shared/a"));
    two.publish(|bed| {
        bed.overwrite(bed.at("place/beside"), 0, b"BESIDE");
        bed.overwrite(bed.at("place/shared/a"), 0, b"CONTENT");
        bed.rename_to("place/shared", "theirs");
        let new = bed.dir(ROOT, "new");
        bed.vfs.split(new, VolumeId([3; 16])).unwrap();
    });
    // What is dirty in one is in nobody's way in the other.
    two.reader.vfs.setattr(ME, shared, SetAttr { mode: Some(0o700), ..SetAttr::default() }).unwrap();
    two.try_advance().unwrap();
    assert_eq!((two.reader.at("theirs"), two.reader.read(two.reader.at("theirs/a"))), (shared, b"content".to_vec()));
    assert_eq!(two.reader.read(two.reader.at("place/beside")), b"BESIDE");
    assert_eq!(two.reader.vfs.lookup(shared, b"..").unwrap().ino, ROOT);
    let vacant: Vec<_> = two.reader.vfs.volumes().iter().map(|one| (one.volume, one.is_vacant)).collect();
    assert_eq!(vacant, [(VOLUME, false), (OTHER, false), (VolumeId([3; 16]), true)]);
    let other = publish_volume(&two.writer.vfs, &two.writer.remote, OTHER).unwrap().unwrap();
    assert_eq!(two.reader.vfs.advance(OTHER, other.clone()), Err(VfsError::Busy));
    publish_volume(&two.reader.vfs, &two.reader.remote, OTHER).unwrap();
    two.reader.vfs.advance(OTHER, other).unwrap();
    assert_eq!((two.reader.at("theirs/a"), two.reader.read(a)), (a, b"CONTENT".to_vec()));
    two.reader.assert_sound();
    two.reader = two.reader.restart();
    assert_eq!(two.reader.read(two.reader.at("theirs/a")), b"CONTENT");

    // One whose name is not in the snapshot any more is not taken away.
    let Content::Directory(tree) = &two.root.content else { panic!("a directory") };
    let mut entries = hypernet_core::port::RemoteTree::list(&*two.reader.remote, tree).unwrap();
    entries.retain(|entry| entry.name != b"theirs");
    let content = Content::Directory(two.reader.remote.put_directory(entries).unwrap());
    assert_eq!(two.reader.vfs.advance(VOLUME, Inode { content, ..two.root.clone() }), Err(VfsError::Busy));
    assert_eq!(two.reader.read(two.reader.at("theirs/a")), b"CONTENT");
    two.reader.assert_sound();
}

#[test]
fn a_volume_in_which_nothing_may_be_changed_is_moved_on_all_the_same() {
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"content"));
    two.reader.load_all();
    two.reader.vfs.set_read_only(VOLUME, true);
    // Who wrote to its copy here has changed nothing either.
    let a = two.reader.at("a");
    two.reader.vfs.backing.get(a).unwrap().unwrap().write_all_at(b"scribble", 0).unwrap();
    two.advance(|bed| bed.overwrite(bed.at("a"), 0, b"CONTENT"));
    assert_eq!(two.reader.vfs.unlink(ROOT, b"a"), Err(VfsError::ReadOnlyVolume));
}

#[derive(Default)]
struct Told {
    all: Mutex<Vec<String>>,
    keeps_times: bool,
}

impl Invalidate for Told {
    fn inode(&self, ino: u64) {
        self.all.lock().push(format!("inode {ino}"));
    }
    fn attributes(&self, ino: u64) {
        panic!("a kernel that keeps times would not hear of {ino}");
    }
    fn mode(&self, ino: u64) {
        self.all.lock().push(format!("attributes {ino}"));
    }
    fn entry(&self, parent: u64, name: &[u8]) {
        self.all.lock().push(format!("entry {parent} {}", String::from_utf8_lossy(name)));
    }
    fn keeps_times(&self) -> bool {
        self.keeps_times
    }
    fn flush(&self, _open: &[u64]) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_kernel_is_told_of_what_changed_and_of_nothing_else() {
    for keeps_times in [false, true] {
        let mut two = Two::new(|bed| {
            let (dir, gone) = (bed.dir(ROOT, "dir"), bed.dir(ROOT, "gone"));
            bed.file(ROOT, "same", b"same");
            bed.file(ROOT, "old", b"old");
            bed.file(gone, "in it", b"x");
            bed.file(dir, "content", b"content");
            bed.file(dir, "mode", b"mode");
            let same = bed.dir(ROOT, "same dir");
            for (name, other) in [("one", "one more"), ("two", "three")] {
                let linked = bed.file(same, name, b"linked");
                bed.vfs.link(linked, same, other.as_bytes()).unwrap();
            }
        });
        two.reader.load_all();
        let told = Arc::new(Told { keeps_times, ..Told::default() });
        two.reader.vfs.set_invalidate(Some(told.clone()));
        let reader = &two.reader;
        let [dir, gone, same, mode, linked, old] =
            ["dir", "gone", "same dir", "dir/mode", "same dir/two", "old"].map(|path| reader.at(path));
        two.publish(|bed| {
            bed.rename_to("old", "new");
            bed.remove_all(ROOT, "gone");
            bed.overwrite(bed.at("dir/content"), 0, b"CONTENT");
            bed.set_mode(bed.at("dir/mode"), 0o600);
            bed.overwrite(bed.at("same dir/one"), 0, b"LINKED");
            bed.set_mode(bed.at("same dir/two"), 0o600);
        });
        two.try_advance().unwrap();
        // Files whose content is another it does not know.
        let mut all = std::mem::take(&mut *told.all.lock());
        let at = |line: &str, all: &[String]| all.iter().position(|other| other == line).unwrap();
        assert!(at(&format!("entry {gone} in it"), &all) < at("entry 1 gone", &all));
        let mut expected = vec![
            "inode 1".to_owned(),
            format!("inode {dir}"),
            format!("attributes {mode}"),
            format!("attributes {linked}"),
            // The time at which it was renamed.
            format!("attributes {old}"),
            "entry 1 old".into(),
            "entry 1 new".into(),
            "entry 1 gone".into(),
            format!("entry {gone} in it"),
        ];
        if keeps_times {
            for (dir, name) in [(ROOT, "new"), (dir, "mode"), (same, "two"), (same, "three")] {
                expected.push(format!("entry {dir} {name}"));
            }
        }
        // Times of the root are those of its names.
        all.retain(|line| *line != "attributes 1");
        all.sort();
        expected.sort();
        assert_eq!(all, expected, "keeps times: {keeps_times}");
        two.try_advance().unwrap();
        assert_eq!(*told.all.lock(), Vec::<String>::new());
    }
}

/// A kernel that forgets an inode when all its names are void, unless somebody holds it.
struct Cache {
    vfs: std::sync::Weak<Vfs>,
    names: Mutex<Vec<(u64, &'static str, u64)>>,
    held: Mutex<Vec<u64>>,
}

impl Invalidate for Cache {
    fn inode(&self, _ino: u64) {}
    fn attributes(&self, _ino: u64) {}
    fn mode(&self, _ino: u64) {}
    fn entry(&self, parent: u64, name: &[u8]) {
        let mut names = self.names.lock();
        let Some(at) = names.iter().position(|one| (one.0, one.1.as_bytes()) == (parent, name)) else { return };
        let (_, _, ino) = names.swap_remove(at);
        if names.iter().all(|one| one.2 != ino) && !self.held.lock().contains(&ino) {
            self.vfs.upgrade().unwrap().forget(ino, 1_000);
        }
    }
    fn keeps_times(&self) -> bool {
        true
    }
    fn flush(&self, _open: &[u64]) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_changes_only_when_the_kernel_does_not_know_it() {
    let mut two = Two::new(|bed| {
        let (a, b) = (bed.dir(ROOT, "a"), bed.dir(ROOT, "b"));
        bed.file(a, "one", b"one");
        let twice = bed.file(a, "two", b"twice");
        // Nothing else in it changes.
        bed.vfs.link(twice, b, b"too").unwrap();
        bed.file(a, "held", b"held");
    });
    two.reader.load_all();
    let vfs = two.reader.vfs.clone();
    let cache = Arc::new(Cache { vfs: Arc::downgrade(&vfs), names: Mutex::default(), held: Mutex::default() });
    vfs.set_invalidate(Some(cache.clone()));
    let look = |path: &'static str| {
        let (dir, name) = path.split_once('/').unwrap();
        let dir = two.reader.at(dir);
        let found = vfs.tell_found(|| vfs.lookup(dir, name.as_bytes()).unwrap(), |found| Some(found.ino));
        cache.names.lock().push((dir, name, found.ino));
        found.ino
    };
    let (one, twice, held) = (look("a/one"), look("a/two"), look("a/held"));
    assert_eq!(look("b/too"), twice);
    // Some are known though they are not in memory.
    vfs.commit().unwrap();
    (0..3).for_each(|_| vfs.evict());
    assert!(!vfs.state.lock().away.is_empty());
    cache.held.lock().push(held);
    two.writer.overwrite(two.writer.at("a/one"), 0, b"ONE");
    two.writer.overwrite(two.writer.at("a/two"), 0, b"TWICE");
    let root = two.writer.publish().unwrap();
    vfs.advance(VOLUME, root).unwrap();
    assert_eq!((two.reader.read(one), two.reader.read(twice)), (b"ONE".to_vec(), b"TWICE".to_vec()));
    assert_eq!(cache.names.lock().len(), 1, "of others it knows the names still");
    // One that is held without being open leaves its name to another.
    two.publish(|bed| {
        bed.overwrite(bed.at("a/held"), 0, b"HELD");
        bed.file(ROOT, "new", b"new");
    });
    two.try_advance().unwrap();
    let another = two.reader.at("a/held");
    assert_ne!(another, held);
    assert_eq!((two.reader.read(another), two.reader.read(held)), (b"HELD".to_vec(), b"held".to_vec()));
    vfs.forget(held, 1);
    assert_eq!(vfs.getattr(held).err(), Some(VfsError::NotFound));
    // Of one with several names they may be anywhere.
    cache.held.lock().push(twice);
    vfs.tell_found(|| vfs.getattr(twice).unwrap(), |found| Some(found.ino));
    two.publish(|bed| bed.overwrite(bed.at("a/two"), 0, b"again"));
    assert_eq!(two.try_advance(), Err(VfsError::Busy));
    assert_eq!(two.reader.read(twice), b"TWICE");
    vfs.forget(twice, 1);
    two.try_advance().unwrap();
    assert_eq!(two.reader.read(twice), b"again");
    two.assert_equal();
}

/// Its answer would be of the old, and the kernel would keep it.
#[test]
fn a_look_up_that_another_snapshot_overtakes_is_done_again() {
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"old"));
    two.reader = two.reader.mounted();
    let a = two.reader.at("a");
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, b"new and longer"));
    let vfs = two.reader.vfs.clone();
    let looks = std::cell::Cell::new(0);
    let look = || {
        let found = vfs.getattr(a).unwrap();
        if looks.replace(looks.get() + 1) == 0 {
            two.try_advance().unwrap();
        }
        found
    };
    assert_eq!(vfs.tell_found(look, |found| Some(found.ino)).size, 14);
    assert_eq!(looks.get(), 2);
    assert_eq!(vfs.state.lock().nodes[&a].told, 1);
}

#[test]
fn killed_before_or_after_it_is_written_down_a_tree_is_one_snapshot_or_the_other() {
    let make = || {
        let two = Two::new(|bed| {
            let dir = bed.dir(ROOT, "dir");
            for name in ["same", "changed", "gone", "emptied", "moved"] {
                bed.file(dir, name, format!("old {name}").as_bytes());
            }
        });
        two.reader.load_all();
        two
    };
    let change = |bed: &Bed| {
        bed.overwrite(bed.at("dir/changed"), 0, b"NEW changed");
        bed.vfs.truncate(ME, bed.at("dir/emptied"), 0).unwrap();
        bed.remove_all(bed.at("dir"), "gone");
        bed.rename_to("dir/moved", "moved");
        bed.file(ROOT, "new", b"new");
    };
    // The commit does not come about.
    let mut two = make();
    let old = two.reader.dump();
    two.publish(change);
    two.reader.meta.fail(Some(PortError::Disk("it broke".into())));
    assert!(matches!(two.try_advance(), Err(VfsError::Local(_))));
    let two = two.kill();
    assert_eq!(two.reader.dump(), old);
    two.reader.assert_sound();
    two.try_advance().unwrap();
    two.assert_equal();

    // It is tried again, by whoever comes, with what had come about in memory.
    let mut two = make();
    two.publish(change);
    two.reader.meta.fail(Some(PortError::Disk("it broke".into())));
    assert!(two.try_advance().is_err() && two.try_advance().is_err());
    two.reader.meta.fail(None);
    two.try_advance().unwrap();
    assert_eq!(two.reader.vfs.backing.all().unwrap().len(), 2, "`same` and `moved`");
    let two = two.kill();
    two.assert_equal();

    // Copies of what was there are left behind.
    let mut two = make();
    two.publish(change);
    let data = two.reader.dir.path().join("data/00");
    let copies: Vec<_> = std::fs::read_dir(&data)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(copies.len(), 5);
    two.try_advance().unwrap();
    for (path, content) in copies {
        if !path.exists() {
            std::fs::write(path, content).unwrap();
        }
    }
    let two = two.kill();
    two.assert_equal();
}

#[test]
fn nothing_is_changed_while_a_listing_is_not_to_be_had() {
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        bed.file(dir, "a", b"content");
    });
    two.reader.load_all();
    let old = two.reader.dump();
    two.publish(|bed| bed.overwrite(bed.at("dir/a"), 0, b"CONTENT"));
    two.reader.remote.fail(Some(PortError::Unreachable("nobody is there".into())));
    assert!(matches!(two.try_advance(), Err(VfsError::Unreachable(_))));
    two.reader.remote.fail(None);
    assert_eq!(two.reader.dump(), old);
    assert_eq!(two.reader.vfs.state.lock().pinned, 0);
    assert!(matches!(patience::for_disk(|| two.try_advance()), Err(VfsError::WouldBlock(_))));
    two.try_advance().unwrap();
    two.assert_equal();
}

/// Whoever publishes makes up what they like.
#[test]
fn one_id_in_many_places_confuses_nothing() {
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        let sub = bed.dir(dir, "sub");
        bed.file(sub, "a", b"content");
        bed.file(ROOT, "b", b"other");
    });
    two.reader.load_all();
    let remote = two.reader.remote.clone();
    let list = |content: &Content| {
        let Content::Directory(tree) = content else { panic!("a directory") };
        hypernet_core::port::RemoteTree::list(&*remote, tree).unwrap()
    };
    let root = two.root.clone();
    let entries = list(&root.content);
    let record = |entries: &[Entry], name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name.as_bytes()).unwrap();
        let Target::Inode(inode) = &entry.target else { panic!("an inode") };
        Inode::clone(inode)
    };
    let (dir, b) = (record(&entries, "dir"), record(&entries, "b"));
    let sub = record(&list(&dir.content), "sub");
    let entry = |name: &str, inode: &Inode| {
        let target = Target::Inode(Box::new(inode.clone()));
        Entry { name: name.as_bytes().to_vec(), dot: root.meta_dot, target }
    };
    let nested = Content::Directory(remote.put_directory(vec![entry("again", &dir), entry("root", &root)]).unwrap());
    let as_dir = Inode { id: sub.id, ..b.clone() };
    for entries in [
        vec![entry("dir", &dir), entry("dir2", &dir), entry("b", &b)],
        vec![entry("b", &Inode { id: dir.id, ..b.clone() }), entry("dir", &dir)],
        vec![entry("a", &as_dir), entry("sub", &sub), entry("x", &Inode { content: nested, ..sub.clone() })],
        vec![entry("b", &sub), entry("dir", &as_dir), entry("sub", &sub), entry("sub2", &sub)],
        list(&root.content),
    ] {
        let mut entries = entries;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let content = Content::Directory(remote.put_directory(entries).unwrap());
        two.root = Inode { content, ..root.clone() };
        two.try_advance().unwrap();
        two.assert_equal();
        two = two.kill();
        two.assert_equal();
    }
}

#[test]
fn a_listing_under_way_brings_nothing_from_before() {
    let mut two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        let linked = bed.file(dir, "linked", b"old");
        bed.vfs.link(linked, dir, b"too").unwrap();
    });
    let dir = two.reader.at("dir");
    // The tree stays the same, and only the link table changes.
    let (advanced, tree) =
        two.reader.vfs.run(|state| Ok((state.advanced, state.node(dir)?.remote.as_deref().cloned()))).unwrap();
    let Some(Content::Directory(tree)) = tree else { panic!("a directory") };
    let id = two.writer.meta.inode(two.writer.at("dir/linked")).unwrap().unwrap().id;
    let old = two.reader.vfs.find_linked(ROOT, VOLUME, id).unwrap();
    two.publish(|bed| bed.overwrite(bed.at("dir/linked"), 0, b"new!"));
    two.try_advance().unwrap();
    two.reader.vfs.adopt(dir, vec![(b"linked".to_vec(), old)], Some(&tree), advanced).unwrap();
    assert_eq!(two.reader.read(two.reader.at("dir/linked")), b"new!");
    two.assert_equal();
}

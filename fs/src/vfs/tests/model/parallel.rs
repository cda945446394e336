//! Clients at the same time.
//!
//! A short history of a few threads must be explained by some order of its calls, each of which takes effect between
//! its start and its end: then the model gives every result that was seen, and the tree that is left. A long one is
//! only asked what must hold whatever the order was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;

const THREADS: usize = 3;
/// A history is run this often: threads meet where they like.
const REPEATS: usize = 8;

/// Directories that are there at the start, by number. The kernel knows them to the end.
const DIRS: [(usize, &str); 3] = [(0, ""), (0, "a"), (1, "b")];
/// Files likewise, each in a directory.
const FILES: [(usize, &str); 2] = [(0, "b"), (1, "c")];

/// A directory and a name in it.
type Place = (usize, usize);

#[derive(Clone, Debug)]
enum Act {
    Create(Place),
    Mkdir(Place),
    Link(usize, Place),
    Unlink(Place),
    Rmdir(Place),
    Rename(Place, Place, RenameFlags),
    Lookup(Place),
    List(usize),
    Stat(usize),
    Write(usize, u16, u8),
    Truncate(usize, u16),
    SetXattr(usize, u8, XattrFlags),
    GetXattr(usize),
    /// What a file has in it; only when nobody writes, since nothing promises that a read sees all of a write.
    Content(usize),
    Commit,
    Publish,
    Drop,
    Evict,
}

fn any_act() -> impl Strategy<Value = Act> {
    let place = || (0..DIRS.len(), 0..NAMES.len());
    let file = || 0..FILES.len();
    let flags = prop::sample::select(vec![XattrFlags::Set, XattrFlags::Create, XattrFlags::Replace]);
    prop_oneof![
        3 => place().prop_map(Act::Create),
        3 => place().prop_map(Act::Mkdir),
        3 => (file(), place()).prop_map(|(file, place)| Act::Link(file, place)),
        4 => place().prop_map(Act::Unlink),
        3 => place().prop_map(Act::Rmdir),
        6 => (place(), place(), any_flags()).prop_map(|(from, to, flags)| Act::Rename(from, to, flags)),
        2 => place().prop_map(Act::Lookup),
        2 => (0..DIRS.len()).prop_map(Act::List),
        2 => file().prop_map(Act::Stat),
        2 => (file(), 0..5_000u16, any::<u8>()).prop_map(|(file, at, byte)| Act::Write(file, at, byte)),
        2 => (file(), 0..5_000u16).prop_map(|(file, size)| Act::Truncate(file, size)),
        1 => (file(), any::<u8>(), flags).prop_map(|(file, byte, flags)| Act::SetXattr(file, byte, flags)),
        1 => file().prop_map(Act::GetXattr),
        1 => Just(Act::Commit),
        1 => Just(Act::Publish),
        1 => Just(Act::Drop),
        1 => Just(Act::Evict),
    ]
}

/// What a call returned; things by inode.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Done(Result<()>),
    Made(Result<u64>),
    Found(Result<u64>),
    Listed(Vec<(String, u64)>),
    Shown(u32, u64),
    Bytes(Result<Vec<u8>>),
    Nothing,
}

#[derive(Clone, Debug)]
struct Call {
    act: Act,
    seen: Seen,
    began: usize,
    ended: usize,
}

/// A tree with what is open in it.
struct Stage {
    bed: Bed,
    dirs: Vec<u64>,
    files: Vec<u64>,
    /// The agent has one uploader.
    uploader: Mutex<()>,
}

fn data(byte: u8) -> [u8; 64] {
    [byte; 64]
}

impl Stage {
    fn new() -> Self {
        let bed = Bed::new().mounted();
        let mut dirs = vec![ROOT];
        for (parent, name) in &DIRS[1..] {
            dirs.push(bed.dir(dirs[*parent], name));
        }
        let files: Vec<u64> = FILES.iter().map(|(dir, name)| bed.file(dirs[*dir], name, b"content")).collect();
        for file in &files {
            bed.vfs.open_file(ME, *file, RW, false).unwrap();
        }
        Self { bed, dirs, files, uploader: Mutex::default() }
    }

    /// The model of the same, and which thing has which inode.
    fn model(&self) -> (Model, HashMap<u64, usize>) {
        let (mut model, mut inos) = (Model::new(), HashMap::from([(ROOT, TOP)]));
        for ((parent, name), ino) in DIRS.iter().zip(&self.dirs).skip(1) {
            let id = model.make(ME, *parent, name, What::Dir(BTreeMap::new()), 0o755).unwrap();
            inos.insert(*ino, id);
        }
        for ((dir, name), ino) in FILES.iter().zip(&self.files) {
            let id = model.make(ME, *dir, name, What::File(b"content".to_vec()), 0o644).unwrap();
            inos.insert(*ino, id);
        }
        (model, inos)
    }

    fn run(&self, act: &Act) -> Seen {
        let vfs = &self.bed.vfs;
        let at = |(dir, name): &Place| (self.dirs[*dir], NAMES[*name].as_bytes());
        match act {
            Act::Create(place) => Seen::Made(vfs.mknod(ME, at(place).0, at(place).1, 0o644, 0).map(|attr| attr.ino)),
            Act::Mkdir(place) => Seen::Made(vfs.mkdir(ME, at(place).0, at(place).1, 0o755).map(|attr| attr.ino)),
            Act::Link(file, place) => Seen::Done(vfs.link(self.files[*file], at(place).0, at(place).1).map(drop)),
            Act::Unlink(place) => Seen::Done(vfs.unlink(at(place).0, at(place).1)),
            Act::Rmdir(place) => Seen::Done(vfs.rmdir(at(place).0, at(place).1)),
            Act::Rename(from, to, flags) => Seen::Done(vfs.rename(at(from).0, at(from).1, at(to).0, at(to).1, *flags)),
            Act::Lookup(place) => Seen::Found(vfs.lookup(at(place).0, at(place).1).map(|attr| attr.ino)),
            Act::List(dir) => {
                let all = vfs.readdir(self.dirs[*dir], 0).unwrap();
                let named = |item: &DirItem| (String::from_utf8(item.name.to_vec()).unwrap(), item.ino);
                let mut listed: Vec<_> = all[2..].iter().map(named).collect();
                listed.sort_unstable();
                Seen::Listed(listed)
            }
            Act::Stat(file) => {
                let attr = self.bed.stat(self.files[*file]);
                Seen::Shown(attr.nlink, attr.size)
            }
            Act::Write(file, at, byte) => Seen::Done(vfs.write(self.files[*file], (*at).into(), &data(*byte), false)),
            Act::Truncate(file, size) => Seen::Done(vfs.truncate(ME, self.files[*file], (*size).into())),
            Act::SetXattr(file, byte, flags) => {
                Seen::Done(vfs.setxattr(ME, self.files[*file], b"user.a", &data(*byte), *flags))
            }
            Act::GetXattr(file) => Seen::Bytes(vfs.getxattr(self.files[*file], b"user.a")),
            Act::Content(file) => Seen::Bytes(self.bed.try_read(self.files[*file])),
            Act::Commit => Seen::Done(vfs.commit()),
            Act::Publish => {
                let _one = self.uploader.lock();
                Seen::Done(publish(vfs, &self.bed.remote).map(drop))
            }
            Act::Drop => Seen::Done(self.bed.drop_cache(None).map(drop)),
            Act::Evict => {
                vfs.evict();
                Seen::Nothing
            }
        }
    }

    /// Runs what each thread has to do, all at once.
    fn race(&self, threads: &[Vec<Act>]) -> Vec<Vec<Call>> {
        let (clock, ready) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let tick = || clock.fetch_add(1, Ordering::SeqCst);
        let run = |acts: &[Act]| -> Vec<Call> {
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < threads.len() {
                std::thread::yield_now();
            }
            let call = |act: &Act| {
                let began = tick();
                let seen = self.run(act);
                Call { act: act.clone(), seen, began, ended: tick() }
            };
            acts.iter().map(call).collect()
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = threads.iter().map(|acts| scope.spawn(|| run(acts))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// All that can be seen afterwards, as calls that came after all others.
    fn rest(&self) -> Vec<Call> {
        let dirs = (0..DIRS.len()).map(Act::List);
        let acts =
            dirs.chain((0..FILES.len()).flat_map(|file| [Act::Stat(file), Act::Content(file), Act::GetXattr(file)]));
        let late = usize::MAX;
        acts.map(|act| Call { seen: self.run(&act), act, began: late, ended: late }).collect()
    }

    /// Nothing is left open; what is wrong shows, also what only memory has right.
    fn end(self) {
        for file in &self.files {
            self.bed.vfs.release(*file, RW).unwrap();
        }
        self.bed.vfs.set_invalidate(None);
        self.bed.assert_sound();
        let before = walk(&self.bed);
        let bed = self.bed.restart();
        assert_eq!(walk(&bed), before);
        bed.assert_sound();
    }
}

/// Every name with its inode, its links and its size.
fn walk(bed: &Bed) -> Vec<(String, u64, u32, u64)> {
    let (mut all, mut queue) = (Vec::new(), vec![String::new()]);
    while let Some(path) = queue.pop() {
        let dir = bed.at(&path);
        for name in bed.names(dir) {
            let attr = bed.vfs.lookup(dir, name.as_bytes()).unwrap();
            let path = format!("{path}/{name}");
            if attr.kind == FileKind::Directory {
                queue.push(path.clone());
            }
            all.push((path, attr.ino, attr.nlink, attr.size));
        }
    }
    all
}

/// A state that an order of some calls leads to.
#[derive(Clone)]
struct Order {
    model: Model,
    inos: HashMap<u64, usize>,
}

impl Order {
    fn made(&mut self, made: Result<usize>, seen: &Seen) -> bool {
        match (made, seen) {
            (Ok(id), Seen::Made(Ok(ino))) => self.inos.insert(*ino, id).is_none(),
            (Err(made), Seen::Made(Err(seen))) => made == *seen,
            _ => false,
        }
    }

    /// Does it in the model; whether that shows what was seen.
    fn explains(&mut self, call: &Call, stage: &Stage) -> bool {
        let dir = |dir: usize| self.inos[&stage.dirs[dir]];
        let file = |file: usize| self.inos[&stage.files[file]];
        let at = |(in_dir, name): Place| (dir(in_dir), NAMES[name]);
        let model = &mut self.model;
        let seen = match call.act {
            Act::Create(place) => {
                let (dir, name) = at(place);
                let made = model.make(ME, dir, name, What::File(Vec::new()), 0o644);
                return self.made(made, &call.seen);
            }
            Act::Mkdir(place) => {
                let (dir, name) = at(place);
                let made = model.make(ME, dir, name, What::Dir(BTreeMap::new()), 0o755);
                return self.made(made, &call.seen);
            }
            Act::Lookup(place) => {
                let (dir, name) = at(place);
                return match (model.child(dir, name), &call.seen) {
                    (Ok(id), Seen::Found(Ok(ino))) => self.inos.get(ino) == Some(&id),
                    (Err(wanted), Seen::Found(Err(seen))) => wanted == *seen,
                    _ => false,
                };
            }
            Act::List(n) => {
                let Seen::Listed(listed) = &call.seen else { return false };
                let entries = model.entries(dir(n));
                let same = |(item, entry): (&(String, u64), (&String, &usize))| {
                    item.0 == *entry.0 && self.inos.get(&item.1) == Some(entry.1)
                };
                return listed.len() == entries.len() && listed.iter().zip(entries).all(same);
            }
            Act::Link(n, place) => Seen::Done(model.link(file(n), at(place).0, at(place).1)),
            Act::Unlink(place) => Seen::Done(model.unlink(at(place).0, at(place).1)),
            Act::Rmdir(place) => Seen::Done(model.rmdir(at(place).0, at(place).1)),
            Act::Rename(from, to, flags) => Seen::Done(model.rename(at(from), at(to), flags)),
            Act::Stat(n) => Seen::Shown(model.things[file(n)].nlink, model.content(file(n)).len() as u64),
            Act::Write(n, at, byte) => {
                model.write(file(n), at.into(), &data(byte), true);
                Seen::Done(Ok(()))
            }
            Act::Truncate(n, size) => {
                model.truncate(file(n), size.into(), false);
                Seen::Done(Ok(()))
            }
            Act::SetXattr(n, byte, flags) => Seen::Done(model.set_xattr(file(n), "user.a", data(byte).to_vec(), flags)),
            Act::GetXattr(n) => {
                Seen::Bytes(model.things[file(n)].xattrs.get("user.a").cloned().ok_or(VfsError::NoAttribute))
            }
            Act::Content(n) => Seen::Bytes(Ok(model.content(file(n)).clone())),
            Act::Commit | Act::Publish | Act::Drop => Seen::Done(Ok(())),
            Act::Evict => Seen::Nothing,
        };
        seen == call.seen
    }
}

/// Whether some order explains what is left of each thread's calls.
fn explained(order: &Order, left: &[&[Call]], stage: &Stage) -> bool {
    if left.iter().all(|calls| calls.is_empty()) {
        return true;
    }
    // A call that ended before another began comes before it.
    let first_end = left.iter().filter_map(|calls| calls.first()).map(|call| call.ended).min().unwrap_or(usize::MAX);
    (0..left.len()).any(|thread| {
        let Some((call, rest)) = left[thread].split_first() else { return false };
        if call.began > first_end {
            return false;
        }
        let mut next = order.clone();
        let mut left = left.to_vec();
        left[thread] = rest;
        next.explains(call, stage) && explained(&next, &left, stage)
    })
}

fn lines(history: &[Vec<Call>]) -> String {
    let mut all: Vec<_> = history.iter().enumerate().flat_map(|(n, calls)| calls.iter().map(move |c| (n, c))).collect();
    all.sort_by_key(|(_, call)| call.began);
    let line =
        |(n, call): (usize, &Call)| format!("{n}: {}..{} {:?} -> {:?}\n", call.began, call.ended, call.act, call.seen);
    all.into_iter().map(line).collect()
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn some_order_explains_what_threads_see(
        threads in prop::collection::vec(prop::collection::vec(any_act(), 1..5), THREADS)
    ) {
        for _ in 0..REPEATS {
            let stage = Stage::new();
            let (model, inos) = stage.model();
            let mut history = stage.race(&threads);
            history.push(stage.rest());
            let left: Vec<&[Call]> = history.iter().map(Vec::as_slice).collect();
            prop_assert!(explained(&Order { model, inos }, &left, &stage), "no order explains\n{}", lines(&history));
            stage.end();
        }
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// Every directory that is listed has each name once, in order, and what nobody touches is always there.
    #[test]
    fn whatever_the_order_no_name_is_lost_or_doubled(
        threads in prop::collection::vec(prop::collection::vec(any_act(), 200), THREADS)
    ) {
        let stage = Stage::new();
        for name in ["0 stays", "z stays"] {
            stage.bed.file(ROOT, name, name.as_bytes());
        }
        for call in stage.race(&threads).iter().flatten() {
            match (&call.act, &call.seen) {
                (Act::List(dir), Seen::Listed(listed)) => {
                    prop_assert!(listed.is_sorted_by(|one, next| one.0 < next.0), "{listed:?}");
                    let stays = listed.iter().filter(|(name, _)| name.ends_with("stays")).count();
                    prop_assert_eq!(stays, if *dir == 0 { 2 } else { 0 });
                }
                (Act::Commit | Act::Publish | Act::Drop | Act::Write(..) | Act::Truncate(..), seen) => {
                    prop_assert_eq!(seen, &Seen::Done(Ok(())), "{:?}", call.act);
                }
                _ => {}
            }
        }
        stage.end();
    }
}

//! Trees that change at random, of which at random something is here.

use super::*;

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// How many trees are tried.
const SEEDS: u64 = 60;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A name in a tree, and what it leads to.
#[derive(Clone)]
struct Place {
    dir: u64,
    name: String,
    ino: u64,
    kind: FileKind,
}

impl Bed {
    fn places(&self) -> Vec<Place> {
        let mut all = Vec::new();
        let mut waiting = vec![ROOT];
        while let Some(dir) = waiting.pop() {
            for name in self.names(dir) {
                let Attr { ino, kind, .. } = self.vfs.lookup(dir, name.as_bytes()).unwrap();
                if kind == FileKind::Directory {
                    waiting.push(ino);
                }
                all.push(Place { dir, name, ino, kind });
            }
        }
        all
    }

    /// What is refused is refused.
    fn change(&self, dice: &mut Dice) {
        let places = self.places();
        let mut dirs = vec![ROOT];
        dirs.extend(places.iter().filter(|place| place.kind == FileKind::Directory).map(|place| place.ino));
        let files: Vec<u64> =
            places.iter().filter(|place| place.kind == FileKind::Regular).map(|place| place.ino).collect();
        let (dir, name) = (*dice.pick(&dirs), *dice.pick(&NAMES));
        let is_free = self.vfs.lookup(dir, name.as_bytes()).is_err();
        let content = vec![b'0' + dice.below(10) as u8; dice.below(30)];
        match dice.below(12) {
            0 | 1 if is_free => _ = self.file(dir, name, &content),
            2 | 3 if is_free => _ = self.dir(dir, name),
            4 if is_free => _ = self.vfs.symlink(ME, dir, name.as_bytes(), b"target").unwrap(),
            5 if !files.is_empty() => _ = self.vfs.link(*dice.pick(&files), dir, name.as_bytes()),
            6 if !files.is_empty() => self.overwrite(*dice.pick(&files), 0, &content),
            7 if !files.is_empty() => self.vfs.truncate(ME, *dice.pick(&files), dice.below(2) as u64 * 5).unwrap(),
            8 if !places.is_empty() => {
                let place = dice.pick(&places);
                self.remove_all(place.dir, &place.name);
            }
            9 | 10 if !places.is_empty() => {
                let from = dice.pick(&places);
                let flags = *dice.pick(&[RenameFlags::Replace, RenameFlags::NoReplace, RenameFlags::Exchange]);
                _ = self.vfs.rename(from.dir, from.name.as_bytes(), dir, name.as_bytes(), flags);
            }
            11 if !places.is_empty() => {
                let ino = dice.pick(&places).ino;
                self.set_mode(ino, 0o600 + dice.below(8) as u32);
                _ = self.vfs.setxattr(ADMIN, ino, b"user.k", &content, XattrFlags::Set);
            }
            _ => {}
        }
    }

    /// What of a tree is here, by the ids of what is in it.
    fn listed(&self) -> BTreeMap<FileId, u64> {
        self.vfs.commit().unwrap();
        let mut all = BTreeMap::new();
        let mut waiting = vec![ROOT];
        while let Some(dir) = waiting.pop() {
            for (_, row) in self.meta.children(dir).unwrap() {
                if row.kind == FileKind::Directory && row.local != Local::Absent {
                    waiting.push(row.ino);
                }
                all.insert(row.id, row.ino);
            }
        }
        all
    }

    /// Looks into some directories and reads some files.
    fn look_around(&self, dice: &mut Dice) {
        let mut waiting = vec![ROOT];
        while let Some(dir) = waiting.pop() {
            for name in self.names(dir) {
                // The link table may be ahead of what is listed.
                let found = self.vfs.lookup(dir, name.as_bytes());
                let Ok(Attr { ino, kind, .. }) = found else {
                    assert!(matches!(found, Err(VfsError::Damaged(_))));
                    continue;
                };
                match kind {
                    FileKind::Directory if !dice.one_in(3) => waiting.push(ino),
                    FileKind::Regular if dice.one_in(2) => _ = self.read(ino),
                    _ => {}
                }
            }
        }
    }
}

impl Two {
    /// Something that leaves the tree as it is.
    fn live_on(mut self, dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 => _ = self.reader.drop_cache(None).unwrap(),
            1 | 2 => self.reader.vfs.evict(),
            3 => self.reader = self.reader.restart(),
            4 => {
                self.reader.vfs.commit().unwrap();
                self = self.kill();
            }
            5 => self.reader.vfs.set_read_only(VOLUME, dice.one_in(2)),
            _ => {}
        }
        self
    }
}

fn follow(seed: u64) {
    let mut dice = Dice(seed);
    let mut two = Two::new(|bed| {
        bed.file(ROOT, "first", b"first");
        (0..dice.below(40)).for_each(|_| bed.change(&mut dice));
    });
    for _ in 0..4 {
        if !dice.one_in(4) {
            two.reader.look_around(&mut dice);
        }
        two = two.live_on(&mut dice);
        let before = two.reader.listed();
        (0..=dice.below(12)).for_each(|_| two.writer.change(&mut dice));
        let Some(root) = two.writer.publish() else { continue };
        two.root = root;
        if dice.one_in(4) {
            // It comes to nothing, but in memory.
            two.reader.meta.fail(Some(PortError::Disk("it broke".into())));
            // Unless nothing here is changed by it.
            _ = two.try_advance();
            two.reader.meta.fail(None);
            if dice.one_in(2) {
                two = two.kill();
                if dice.one_in(2) {
                    two.reader.look_around(&mut dice);
                }
            }
        }
        two.try_advance().unwrap();
        let after = two.reader.listed();
        for (id, ino) in before {
            assert!(after.get(&id).is_none_or(|now| *now == ino), "inode {ino} has another number");
        }
        if dice.one_in(3) {
            two = two.live_on(&mut dice);
        }
        if dice.one_in(2) {
            two.assert_equal();
        }
    }
    two.assert_equal();
}

#[test]
fn a_tree_that_follows_is_equal_to_one_that_begins() {
    // `SEED=7` replays one, and `SEED=1000..2000` tries others.
    let asked = std::env::var("SEED").unwrap_or_default();
    let (from, to) = asked.split_once("..").unwrap_or((&asked, ""));
    let seeds = match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => from..to,
        (Ok(seed), Err(_)) => seed..seed + 1,
        _ => 0..SEEDS,
    };
    for seed in seeds {
        if let Err(text) = panics::caught(|| follow(seed)) {
            panic!("SEED={seed}: {text}");
        }
    }
}

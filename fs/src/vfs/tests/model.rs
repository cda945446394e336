//! Random operations against a reference model: names, content, sizes and link counts must agree, with restarts,
//! crashes, publications, evictions and recoveries in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum What {
    Dir(BTreeMap<String, usize>),
    File(Vec<u8>),
    Symlink,
}

#[derive(Clone, Debug)]
struct Model {
    things: Vec<(What, u32)>,
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize, usize),
    Mkdir(usize, usize),
    Symlink(usize, usize),
    Link((usize, usize), (usize, usize)),
    Unlink(usize, usize),
    Rmdir(usize, usize),
    Rename((usize, usize), (usize, usize), RenameFlags),
    Write((usize, usize), u16, u8, u8),
    Truncate((usize, usize), u16),
    Restart,
    Kill,
    Power,
    Publish,
    Drop,
    Evict,
    Recover,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Model {
    fn new() -> Self {
        Self { things: vec![(What::Dir(BTreeMap::new()), 2)] }
    }

    /// Directories that can be reached, in a fixed order, each with its path.
    fn dirs(&self) -> Vec<(usize, String)> {
        let mut all = vec![(0, String::new())];
        let mut at = 0;
        while at < all.len() {
            let (id, path) = all[at].clone();
            for (name, child) in self.entries(id) {
                if let What::Dir(_) = self.things[*child].0 {
                    all.push((*child, format!("{path}/{name}")));
                }
            }
            at += 1;
        }
        all
    }

    fn entries(&self, dir: usize) -> &BTreeMap<String, usize> {
        match &self.things[dir].0 {
            What::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn entries_mut(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.things[dir].0 {
            What::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn is_dir(&self, id: usize) -> bool {
        matches!(self.things[id].0, What::Dir(_))
    }

    fn add(&mut self, dir: usize, name: &str, what: What) -> Result<()> {
        if self.entries(dir).contains_key(name) {
            return Err(VfsError::Exists);
        }
        let id = self.things.len();
        let is_dir = matches!(what, What::Dir(_));
        self.things.push((what, if is_dir { 2 } else { 1 }));
        self.entries_mut(dir).insert(name.into(), id);
        self.things[dir].1 += u32::from(is_dir);
        Ok(())
    }

    fn within(&self, top: usize, id: usize) -> bool {
        top == id || (self.is_dir(top) && self.entries(top).values().any(|child| self.within(*child, id)))
    }

    fn rename(&mut self, from: (usize, &str), to: (usize, &str), flags: RenameFlags) -> Result<()> {
        let source = *self.entries(from.0).get(from.1).ok_or(VfsError::NotFound)?;
        let target = self.entries(to.0).get(to.1).copied();
        if flags == RenameFlags::NoReplace && target.is_some() {
            return Err(VfsError::Exists);
        }
        if target == Some(source) {
            return Ok(());
        }
        if self.is_dir(source) && self.within(source, to.0) {
            return Err(VfsError::Invalid);
        }
        let moves = |model: &mut Self, id: usize, from: usize, to: usize| {
            if model.is_dir(id) {
                model.things[from].1 -= 1;
                model.things[to].1 += 1;
            }
        };
        if flags == RenameFlags::Exchange {
            let target = target.ok_or(VfsError::NotFound)?;
            if self.is_dir(target) && self.within(target, from.0) {
                return Err(VfsError::Invalid);
            }
            self.entries_mut(from.0).insert(from.1.into(), target);
            self.entries_mut(to.0).insert(to.1.into(), source);
            moves(self, source, from.0, to.0);
            moves(self, target, to.0, from.0);
            return Ok(());
        }
        if let Some(target) = target {
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(VfsError::NotDirectory),
                (false, true) => return Err(VfsError::IsDirectory),
                (true, true) if !self.entries(target).is_empty() => return Err(VfsError::NotEmpty),
                (true, true) => self.things[to.0].1 -= 1,
                (false, false) => self.things[target].1 -= 1,
            }
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.into(), source);
        moves(self, source, from.0, to.0);
        Ok(())
    }
}

fn arb_op() -> impl Strategy<Value = Op> {
    let place = || (0..6usize, 0..NAMES.len());
    let flags = prop_oneof![
        3 => Just(RenameFlags::Replace),
        1 => Just(RenameFlags::NoReplace),
        1 => Just(RenameFlags::Exchange)
    ];
    prop_oneof![
        6 => place().prop_map(|(d, n)| Op::Create(d, n)),
        4 => place().prop_map(|(d, n)| Op::Mkdir(d, n)),
        1 => place().prop_map(|(d, n)| Op::Symlink(d, n)),
        3 => (place(), place()).prop_map(|(a, b)| Op::Link(a, b)),
        3 => place().prop_map(|(d, n)| Op::Unlink(d, n)),
        2 => place().prop_map(|(d, n)| Op::Rmdir(d, n)),
        6 => (place(), place(), flags).prop_map(|(a, b, f)| Op::Rename(a, b, f)),
        8 => (place(), 0..5000u16, any::<u8>(), any::<u8>()).prop_map(|(p, at, len, b)| Op::Write(p, at, len, b)),
        3 => (place(), 0..5000u16).prop_map(|(p, size)| Op::Truncate(p, size)),
        1 => Just(Op::Restart),
        1 => Just(Op::Kill),
        1 => Just(Op::Power),
        3 => Just(Op::Publish),
        3 => Just(Op::Drop),
        2 => Just(Op::Evict),
        1 => Just(Op::Recover),
    ]
}

struct Run {
    bed: Option<Bed>,
    model: Model,
}

impl Run {
    fn bed(&self) -> &Bed {
        self.bed.as_ref().unwrap()
    }

    fn dir(&self, n: usize) -> (usize, u64) {
        let dirs = self.model.dirs();
        let (id, path) = &dirs[n % dirs.len()];
        (*id, self.bed().at(path))
    }

    /// A file by place, if there is one.
    fn file(&self, (d, n): (usize, usize)) -> Option<(usize, u64)> {
        let (dir, ino) = self.dir(d);
        let id = *self.model.entries(dir).get(NAMES[n])?;
        matches!(self.model.things[id].0, What::File(_))
            .then(|| (id, self.bed().vfs.lookup(ino, NAMES[n].as_bytes()).unwrap().ino))
    }

    fn step(&mut self, op: &Op) {
        match op.clone() {
            Op::Create(d, n) => {
                let (dir, ino) = self.dir(d);
                let made = self.bed().vfs.mknod(ME, ino, NAMES[n].as_bytes(), 0o644, 0).map(drop);
                assert_eq!(made, self.model.add(dir, NAMES[n], What::File(Vec::new())));
            }
            Op::Mkdir(d, n) => {
                let (dir, ino) = self.dir(d);
                let made = self.bed().vfs.mkdir(ME, ino, NAMES[n].as_bytes(), 0o755).map(drop);
                assert_eq!(made, self.model.add(dir, NAMES[n], What::Dir(BTreeMap::new())));
            }
            Op::Symlink(d, n) => {
                let (dir, ino) = self.dir(d);
                let made = self.bed().vfs.symlink(ME, ino, NAMES[n].as_bytes(), b"target").map(drop);
                assert_eq!(made, self.model.add(dir, NAMES[n], What::Symlink));
            }
            Op::Link(from, (d, n)) => {
                let Some((id, file)) = self.file(from) else { return };
                let (dir, ino) = self.dir(d);
                let done = self.bed().vfs.link(file, ino, NAMES[n].as_bytes()).map(drop);
                if self.model.entries(dir).contains_key(NAMES[n]) {
                    assert_eq!(done, Err(VfsError::Exists));
                } else {
                    assert_eq!(done, Ok(()));
                    self.model.entries_mut(dir).insert(NAMES[n].into(), id);
                    self.model.things[id].1 += 1;
                }
            }
            Op::Unlink(d, n) => {
                let (dir, ino) = self.dir(d);
                let done = self.bed().vfs.unlink(ino, NAMES[n].as_bytes());
                match self.model.entries(dir).get(NAMES[n]).copied() {
                    None => assert_eq!(done, Err(VfsError::NotFound)),
                    Some(id) if self.model.is_dir(id) => assert_eq!(done, Err(VfsError::IsDirectory)),
                    Some(id) => {
                        assert_eq!(done, Ok(()));
                        self.model.entries_mut(dir).remove(NAMES[n]);
                        self.model.things[id].1 -= 1;
                    }
                }
            }
            Op::Rmdir(d, n) => {
                let (dir, ino) = self.dir(d);
                let done = self.bed().vfs.rmdir(ino, NAMES[n].as_bytes());
                match self.model.entries(dir).get(NAMES[n]).copied() {
                    None => assert_eq!(done, Err(VfsError::NotFound)),
                    Some(id) if !self.model.is_dir(id) => assert_eq!(done, Err(VfsError::NotDirectory)),
                    Some(id) if !self.model.entries(id).is_empty() => assert_eq!(done, Err(VfsError::NotEmpty)),
                    Some(_) => {
                        assert_eq!(done, Ok(()));
                        self.model.entries_mut(dir).remove(NAMES[n]);
                        self.model.things[dir].1 -= 1;
                    }
                }
            }
            Op::Rename((d1, n1), (d2, n2), flags) => {
                let ((from, ino1), (to, ino2)) = (self.dir(d1), self.dir(d2));
                let done = self.bed().vfs.rename(ino1, NAMES[n1].as_bytes(), ino2, NAMES[n2].as_bytes(), flags);
                assert_eq!(done, self.model.rename((from, NAMES[n1]), (to, NAMES[n2]), flags));
            }
            Op::Write(place, at, len, byte) => {
                let Some((id, ino)) = self.file(place) else { return };
                let data = vec![byte; usize::from(len) + 1];
                self.bed().overwrite(ino, at.into(), &data);
                let What::File(content) = &mut self.model.things[id].0 else { return };
                let end = usize::from(at) + data.len();
                content.resize(content.len().max(end), 0);
                content[at.into()..end].copy_from_slice(&data);
            }
            Op::Truncate(place, size) => {
                let Some((id, ino)) = self.file(place) else { return };
                self.bed().vfs.truncate(ME, ino, size.into()).unwrap();
                let What::File(content) = &mut self.model.things[id].0 else { return };
                content.resize(size.into(), 0);
            }
            Op::Restart => self.bed = self.bed.take().map(Bed::restart),
            Op::Kill | Op::Power => {
                let bed = self.bed.take().unwrap();
                bed.vfs.commit().unwrap();
                let meta = if matches!(op, Op::Kill) { bed.meta.after_kill() } else { bed.meta.after_power_loss() };
                self.bed = Some(bed.reopen(meta));
            }
            Op::Publish => {
                self.bed().publish();
                assert_eq!(self.bed().publish(), None, "nothing changed since");
            }
            Op::Drop => {
                self.bed().drop_cache(None).unwrap();
            }
            Op::Evict => {
                self.bed().vfs.commit().unwrap();
                for _ in 0..3 {
                    self.bed().vfs.evict();
                }
            }
            Op::Recover => {
                self.bed().vfs.setattr(ME, ROOT, SetAttr { mode: Some(0o755), ..SetAttr::default() }).unwrap();
                let root = self.bed().publish().unwrap();
                let other = self.bed().recovered(root);
                self.bed = Some(other);
            }
        }
    }

    fn compare(&self) {
        let bed = self.bed();
        for (id, path) in self.model.dirs() {
            let ino = bed.at(&path);
            let entries = self.model.entries(id);
            assert_eq!(bed.names(ino), entries.keys().cloned().collect::<Vec<_>>(), "in {path:?}");
            assert_eq!(bed.stat(ino).nlink, self.model.things[id].1, "links of {path:?}");
            for (name, child) in entries {
                let attr = bed.vfs.lookup(ino, name.as_bytes()).unwrap();
                let (what, nlink) = &self.model.things[*child];
                match what {
                    What::Dir(_) => assert_eq!(attr.kind, FileKind::Directory),
                    What::Symlink => assert_eq!(attr.kind, FileKind::Symlink),
                    What::File(content) => {
                        assert_eq!((attr.kind, attr.nlink), (FileKind::Regular, *nlink), "{path}/{name}");
                        assert_eq!(attr.size, content.len() as u64, "{path}/{name}");
                        assert!(bed.read(attr.ino) == *content, "content of {path}/{name}");
                    }
                }
            }
        }
        bed.assert_sound();
    }
}

/// `PROPTEST_CASES` asks for more than the usual number.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_the_model(ops in prop::collection::vec(arb_op(), 1..60)) {
        let mut run = Run { bed: Some(Bed::new()), model: Model::new() };
        for op in &ops {
            run.step(op);
        }
        run.compare();
    }
}

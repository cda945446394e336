//! Devices with a tree each in memory, which they publish as real trees, and a note of what nobody has taken away.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::mark::{Mark, XATTR};
use super::super::{Merged, Part, covers_all, join, merge};
use crate::id::{DeviceTag, ExtentId, FileId, VolumeId};
use crate::key::{Secret, VolumeKeys};
use crate::merge::MergeError;
use crate::seal::{ExtentRef, Kind, SealError, Sealer};
use crate::time::Timespec;
use crate::tree::{self, Content, Dot, Entry, FileKind, Inode, LinkEntry, Root, Sink, Source, Target, Xattr};

/// What was written once, anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(u64);

pub(crate) fn token(content: &Content) -> Token {
    match content {
        Content::Inline(bytes) => Token(u64::from_be_bytes(bytes[..].try_into().unwrap())),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone)]
pub(crate) struct Bag(Rc<(Sealer, RefCell<BTreeMap<ExtentId, bytes::Bytes>>)>);

impl Sink for Bag {
    type Error = SealError;
    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, SealError> {
        let sealed = self.0.0.seal(kind, plain)?;
        self.0.1.borrow_mut().insert(sealed.reference.id(), sealed.bytes);
        Ok(sealed.reference)
    }
}

impl Source for Bag {
    type Error = SealError;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, SealError> {
        refs.iter().map(|r| r.open(self.0.1.borrow().get(&r.id()).ok_or(SealError::Tag)?)).collect()
    }
}

impl Bag {
    /// The root of a tree is nowhere any more.
    pub(crate) fn forget(&self, tree: &tree::TreeRef) {
        self.0.1.borrow_mut().remove(&tree.node.id());
    }
}

/// What a part of the metadata of a file was set to, and in which head.
type Values = BTreeMap<(FileId, Vec<u8>), BTreeMap<Vec<u8>, Dot>>;

/// What all devices share: where trees lie, a clock, and what was written and not taken away.
#[derive(Clone)]
struct Shared {
    bag: Bag,
    clock: Rc<Cell<i64>>,
    alive: Rc<RefCell<BTreeSet<Token>>>,
    /// Modes, by no name, and extended attributes that nobody who knew of them has set otherwise.
    values: Rc<RefCell<Values>>,
    /// What somebody took away: of the metadata of that, where it stays, nothing follows.
    taken: Rc<RefCell<BTreeSet<FileId>>>,
    /// How often each file was written after it came to be.
    rewritten: Rc<RefCell<BTreeMap<FileId, usize>>>,
}

/// An inode. What has changed since the last head has no dot.
#[derive(Clone, Debug)]
struct Node {
    kind: FileKind,
    mode: u32,
    mtime: Timespec,
    ctime: Timespec,
    token: Option<Token>,
    names: BTreeMap<Vec<u8>, (FileId, Option<Dot>)>,
    volume: Option<VolumeId>,
    xattrs: Vec<Xattr>,
    meta: Option<Dot>,
    content: Option<Dot>,
    /// Its record, as it was published or found.
    was: Option<Box<Inode>>,
}

pub(crate) struct Device {
    shared: Shared,
    tag: DeviceTag,
    counter: u64,
    sequence: u64,
    nodes: BTreeMap<FileId, Node>,
    is_changed: bool,
    vector: Vec<Dot>,
    /// The newest change of each device that it has heard of.
    heard: BTreeMap<DeviceTag, Root>,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(u8, u8),
    Write(u8),
    Mkdir(u8, u8),
    Rename(u8, u8, u8),
    Remove(u8),
    Link(u8, u8, u8),
    Chmod(u8),
    Tag(u8, u8),
    Untag(u8, u8),
    Publish,
    Learn(u8),
}

pub(crate) struct World {
    shared: Shared,
    devices: Vec<Device>,
}

impl World {
    pub(crate) fn new(n: u8) -> Self {
        let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
        let bag = Bag(Rc::new((Sealer::new(&keys), RefCell::default())));
        let shared = Shared {
            bag,
            clock: Rc::default(),
            alive: Rc::default(),
            values: Rc::default(),
            taken: Rc::default(),
            rewritten: Rc::default(),
        };
        let mut first = Device::new(&shared, 1);
        first.is_changed = true;
        first.publish();
        let mut devices = vec![first];
        for number in 2..=n {
            let mut device = Device::new(&shared, number);
            device.hear(&devices[0].heard.clone());
            devices.push(device);
        }
        Self { shared, devices }
    }

    pub(crate) fn device(&mut self, number: usize) -> &mut Device {
        &mut self.devices[number]
    }

    /// Everybody publishes and hears of everybody.
    pub(crate) fn meet(&mut self) {
        let mut all: BTreeMap<DeviceTag, Root> = BTreeMap::new();
        for device in &mut self.devices {
            device.publish();
        }
        for device in &self.devices {
            for (tag, root) in &device.heard {
                let newest = all.entry(*tag).or_insert_with(|| root.clone());
                if sequence(newest, *tag) < sequence(root, *tag) {
                    *newest = root.clone();
                }
            }
        }
        self.devices.iter_mut().for_each(|device| device.hear(&all));
        let roots: Vec<_> = self.devices.iter().map(|device| device.tree()).collect();
        assert!(roots.windows(2).all(|two| two[0] == two[1]), "devices that have heard the same differ");
    }

    /// One publishes, and the other one hears of it.
    pub(crate) fn learn(&mut self, who: usize, of: usize) {
        self.devices[of].publish();
        let heard = self.devices[of].heard.clone();
        self.devices[who].publish();
        self.devices[who].hear(&heard);
    }

    pub(crate) fn names(&mut self) -> Vec<String> {
        self.devices[0].names()
    }

    pub(crate) fn merge(&self, parts: &[Part]) -> Merged {
        self.try_merge(parts).unwrap()
    }

    pub(crate) fn try_merge(&self, parts: &[Part]) -> Result<Merged, MergeError<SealError>> {
        merge_in(&self.shared.bag, parts, &BTreeSet::new())
    }

    pub(crate) fn merge_beside(&self, parts: &[Part], beside: FileId) -> Merged {
        merge_in(&self.shared.bag, parts, &BTreeSet::from([beside])).unwrap()
    }

    pub(crate) fn list(&self, inode: &Inode) -> Vec<Entry> {
        let Content::Directory(tree) = &inode.content else { panic!("{inode:?}") };
        tree::list(tree, &self.shared.bag).unwrap()
    }

    pub(crate) fn rows(&self, links: Option<&tree::TreeRef>) -> Vec<LinkEntry> {
        links.map_or(Vec::new(), |links| tree::list(links, &self.shared.bag).unwrap())
    }

    pub(crate) fn history(&self, merged: &Merged) -> Vec<crate::history::Kept> {
        merged.history.as_ref().map_or(Vec::new(), |history| tree::list(history, &self.shared.bag).unwrap())
    }

    /// The same table without what has no name in this directory, or with nothing else.
    pub(crate) fn rows_of(&self, links: Option<&tree::TreeRef>, dir: &Inode, inside: bool) -> Option<tree::TreeRef> {
        let named: BTreeSet<FileId> = self.list(dir).iter().map(|entry| entry.target.id()).collect();
        let rows = self.rows(links).into_iter().filter(|row| named.contains(&row.inode.id) == inside);
        Some(tree::build(rows, &mut self.shared.bag.clone()).unwrap())
    }

    /// A new file of this device.
    pub(crate) fn file(&self, device: DeviceTag) -> Target {
        let dot = Dot { device, sequence: 1 };
        let content = Content::Inline(device.0.to_be_bytes().to_vec());
        let mut inode = self.devices[0].root().inode;
        (inode.id, inode.kind, inode.content) = (FileId::new(device, 1), FileKind::Regular, content);
        (inode.meta_dot, inode.content_dot) = (dot, None);
        Target::Inode(inode.into())
    }

    pub(crate) fn directory(&self, mut entries: Vec<Entry>) -> Content {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Content::Directory(tree::build(entries, &mut self.shared.bag.clone()).unwrap())
    }

    /// An empty directory, or any other, with a name.
    pub(crate) fn below(&self, number: u64, name: &[u8], content: Content) -> Entry {
        let dot = Dot { device: DeviceTag(77), sequence: number };
        let inode = Inode { id: FileId::new(dot.device, number), content, ..self.devices[0].root().inode };
        Entry { name: name.to_vec(), dot, target: Target::Inode(inode.into()) }
    }

    /// So many directories in one another, by this name, the last of which has these in it.
    pub(crate) fn deep(&self, depth: u64, name: &[u8], last: Vec<Entry>) -> Entry {
        let number = |depth: u64| (1 << 32) + depth;
        let mut entry = self.below(number(0), name, self.directory(last));
        for depth in 1..depth {
            entry = self.below(number(depth), name, self.directory(vec![entry]));
        }
        entry
    }

    /// A tree with other entries in its root.
    pub(crate) fn bent(&self, good: &Root, entries: Vec<Entry>) -> Part {
        let content = self.directory(entries);
        let vector = vec![Dot { device: DeviceTag(9), sequence: 1 }];
        Part { inode: Inode { content, ..good.inode.clone() }, vector, ..Part::from(good) }
    }
}

fn merge_in(bag: &Bag, parts: &[Part], beside: &BTreeSet<FileId>) -> Result<Merged, MergeError<SealError>> {
    let label = |device: DeviceTag, time: Timespec| format!("conflict of {:x} {}", device.0, time.seconds);
    merge(parts, beside, &label, bag, &mut bag.clone())
}

fn sequence(root: &Root, device: DeviceTag) -> u64 {
    root.vector.iter().find(|dot| dot.device == device).map_or(0, |dot| dot.sequence)
}

impl Device {
    fn new(shared: &Shared, number: u8) -> Self {
        let root = Node::new(FileKind::Directory, Timespec::default());
        Self {
            shared: shared.clone(),
            // In another order than the numbers, and so are the ids of what they make.
            tag: DeviceTag(u64::from(number.wrapping_mul(151)) << 56 | u64::from(number)),
            counter: 0,
            sequence: 0,
            nodes: BTreeMap::from([(FileId::ROOT, root)]),
            is_changed: false,
            vector: Vec::new(),
            heard: BTreeMap::new(),
        }
    }

    fn now(&self) -> Timespec {
        self.shared.clock.set(self.shared.clock.get() + 1);
        // One clock is hours behind all others.
        let skew = if self.tag.0 & 0xff == 2 { 10_000 } else { 0 };
        Timespec { seconds: self.shared.clock.get() - skew, nanos: 0 }
    }

    fn fresh(&mut self) -> Token {
        let token = Token(self.shared.clock.get() as u64 * 1_000 + (self.tag.0 & 0xff));
        self.shared.alive.borrow_mut().insert(token);
        token
    }

    fn touch(&mut self, dir: FileId) {
        let now = self.now();
        let node = self.nodes.get_mut(&dir).unwrap();
        (node.mtime, node.ctime, node.content) = (now, now, None);
        self.is_changed = true;
    }

    fn add(&mut self, dir: FileId, name: &str, kind: FileKind) -> FileId {
        self.touch(dir);
        self.counter += 1;
        let id = FileId::new(self.tag, self.counter);
        let mut node = Node::new(kind, self.now());
        if kind == FileKind::Regular {
            node.token = Some(self.fresh());
        }
        self.nodes.insert(id, node);
        self.put(dir, name.as_bytes(), id);
        id
    }

    fn put(&mut self, dir: FileId, name: &[u8], id: FileId) {
        self.nodes.get_mut(&dir).unwrap().names.insert(name.to_vec(), (id, None));
    }

    pub(crate) fn create(&mut self, dir: FileId, name: &str) -> FileId {
        self.add(dir, name, FileKind::Regular)
    }

    pub(crate) fn mkdir(&mut self, dir: FileId, name: &str) -> FileId {
        self.add(dir, name, FileKind::Directory)
    }

    fn place(&self, path: &str) -> (FileId, Vec<u8>) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if dir.is_empty() { FileId::ROOT } else { self.lookup(dir) };
        (parent, name.as_bytes().to_vec())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        let step = |at: FileId, name: &str| self.nodes.get(&at)?.names.get(name.as_bytes()).map(|(id, _)| *id);
        path.split('/').try_fold(FileId::ROOT, step).is_some()
    }

    pub(crate) fn lookup(&self, path: &str) -> FileId {
        let step = |at: FileId, name: &str| self.nodes[&at].names[name.as_bytes()].0;
        path.split('/').fold(FileId::ROOT, step)
    }

    pub(crate) fn write(&mut self, path: &str) -> Token {
        self.write_to(self.lookup(path))
    }

    fn write_to(&mut self, id: FileId) -> Token {
        let now = self.now();
        let token = self.fresh();
        let node = self.nodes.get_mut(&id).unwrap();
        (node.mtime, node.ctime, node.content) = (now, now, None);
        let old = node.token.replace(token).unwrap();
        self.shared.alive.borrow_mut().remove(&old);
        *self.shared.rewritten.borrow_mut().entry(id).or_default() += 1;
        self.is_changed = true;
        token
    }

    pub(crate) fn chmod(&mut self, path: &str) {
        self.chmod_of(self.lookup(path));
    }

    fn chmod_of(&mut self, id: FileId) {
        let now = self.now();
        let node = self.nodes.get_mut(&id).unwrap();
        node.mode = self.shared.clock.get() as u32 & 0o7777;
        (node.ctime, node.meta) = (now, None);
        let mode = node.mode.to_be_bytes().to_vec();
        self.replace(id, b"", Some(mode));
        self.is_changed = true;
    }

    /// Something has this value now, or none, in the place of all that it has heard of.
    fn replace(&self, id: FileId, name: &[u8], value: Option<Vec<u8>>) {
        let mut values = self.shared.values.borrow_mut();
        let values = values.entry((id, name.to_vec())).or_default();
        values.retain(|_, dot| dot.device != self.tag && !covers_all(&self.vector, &[*dot]));
        values.extend(value.map(|value| (value, Dot { device: self.tag, sequence: self.sequence + 1 })));
    }

    /// Sets an extended attribute to what nobody else sets it to, or takes it away.
    pub(crate) fn tag(&mut self, id: FileId, name: &[u8], is_set: bool) {
        let now = self.now();
        let value = is_set.then(|| now_value(self.shared.clock.get()));
        let node = self.nodes.get_mut(&id).unwrap();
        let old = node.xattrs.iter().position(|one| one.name == name).map(|at| node.xattrs.remove(at).value);
        if old.is_none() && value.is_none() {
            return;
        }
        if let Some(value) = value.clone() {
            node.xattrs.push(Xattr { name: name.to_vec(), value });
            node.xattrs.sort();
        }
        (node.ctime, node.meta) = (now, None);
        self.replace(id, name, value);
        self.is_changed = true;
    }

    pub(crate) fn tags(&self, path: &str) -> Vec<String> {
        let text = |one: &Xattr| String::from_utf8_lossy(&one.name).into_owned();
        self.nodes[&self.lookup(path)].xattrs.iter().map(text).collect()
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        self.nodes[&self.lookup(path)].mode
    }

    pub(crate) fn link(&mut self, from: &str, to: &str) {
        let (id, (dir, name)) = (self.lookup(from), self.place(to));
        self.touch(dir);
        self.put(dir, &name, id);
    }

    pub(crate) fn unlink(&mut self, path: &str) {
        let (dir, name) = self.place(path);
        self.unlink_at(dir, &name);
    }

    fn unlink_at(&mut self, dir: FileId, name: &[u8]) {
        self.touch(dir);
        let (id, _) = self.nodes.get_mut(&dir).unwrap().names.remove(name).unwrap();
        if self.count(id) == 0 {
            let node = self.nodes.remove(&id).unwrap();
            if let Some(token) = node.token {
                self.shared.alive.borrow_mut().remove(&token);
            }
            self.shared.taken.borrow_mut().insert(id);
        }
    }

    pub(crate) fn remove_all(&mut self, path: &str) {
        let (dir, name) = self.place(path);
        self.remove_all_at(dir, &name);
    }

    fn remove_all_at(&mut self, dir: FileId, name: &[u8]) {
        let id = self.nodes[&dir].names[name].0;
        let below: Vec<Vec<u8>> = self.nodes[&id].names.keys().cloned().collect();
        below.iter().for_each(|name| self.remove_all_at(id, name));
        self.unlink_at(dir, name);
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let ((dir, name), (to, other)) = (self.place(from), self.place(to));
        self.rename_at((dir, &name), (to, &other));
    }

    fn rename_at(&mut self, (dir, name): (FileId, &[u8]), (to, other): (FileId, &[u8])) {
        let id = self.nodes[&dir].names[name].0;
        let there = self.nodes[&to].names.get(other).map(|(id, _)| *id);
        let is_directory = |id: &FileId| self.nodes[id].kind == FileKind::Directory;
        if there == Some(id) || is_directory(&id) && self.is_below(to, id) {
            return;
        }
        if let Some(there) = there {
            if is_directory(&there) != is_directory(&id) || !self.nodes[&there].names.is_empty() {
                return;
            }
            self.unlink_at(to, other);
        }
        self.touch(dir);
        self.touch(to);
        self.nodes.get_mut(&dir).unwrap().names.remove(name);
        self.put(to, other, id);
    }

    fn is_below(&self, id: FileId, top: FileId) -> bool {
        id == top || self.nodes[&top].names.values().any(|(below, _)| self.is_below(id, *below))
    }

    fn count(&self, id: FileId) -> u32 {
        self.nodes.values().flat_map(|node| node.names.values()).filter(|(other, _)| *other == id).count() as u32
    }

    pub(crate) fn links(&self, path: &str) -> u32 {
        self.count(self.lookup(path))
    }

    pub(crate) fn read(&self, path: &str) -> Token {
        self.nodes[&self.lookup(path)].token.unwrap()
    }

    /// The file that this is a version of.
    pub(crate) fn mark(&self, path: &str) -> Option<FileId> {
        let node = &self.nodes[&self.lookup(path)];
        let xattr = node.xattrs.iter().find(|xattr| xattr.name == XATTR)?;
        Mark::parse(&xattr.value).map(|mark| mark.file)
    }

    pub(crate) fn holds(&self, token: Token) -> bool {
        self.tokens().contains(&token)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes[&FileId::ROOT].names.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }

    /// Of all files.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut waiting = vec![(FileId::ROOT, String::new())];
        while let Some((id, path)) = waiting.pop() {
            for (name, (below, _)) in &self.nodes[&id].names {
                let path = format!("{path}{}", String::from_utf8_lossy(name));
                match self.nodes[below].kind {
                    FileKind::Directory => waiting.push((*below, format!("{path}/"))),
                    _ => all.push(path),
                }
            }
        }
        all.sort();
        all
    }

    /// The directory becomes a volume; returns its root.
    pub(crate) fn split(&mut self, name: &str, volume: VolumeId) -> Inode {
        let id = self.lookup(name);
        let inode = self.inode(id, None);
        self.touch(FileId::ROOT);
        self.nodes.get_mut(&id).unwrap().volume = Some(volume);
        self.put(FileId::ROOT, name.as_bytes(), id);
        inode
    }

    /// The trees of all devices, and where they lie.
    pub(crate) fn bag(&self) -> &Bag {
        &self.shared.bag
    }

    /// The name of something in the root is as old as what the first device has published.
    pub(crate) fn keep_dot(&mut self, name: &str) {
        let first = self.vector.iter().find(|dot| dot.device == self.tag).unwrap();
        let since = Some(Dot { sequence: 1, ..*first });
        let names = &mut self.nodes.get_mut(&FileId::ROOT).unwrap().names;
        names.get_mut(name.as_bytes()).unwrap().1 = since;
    }

    pub(crate) fn root(&self) -> Root {
        self.heard[&self.tag].clone()
    }

    fn inode(&mut self, id: FileId, dot: Option<Dot>) -> Inode {
        let node = self.nodes.get_mut(&id).unwrap();
        let was = node.was.clone().map(|was| (was, node.meta.is_none()));
        node.meta = node.meta.or(dot);
        node.content = node.content.or(dot);
        let node = node.clone();
        let content = match node.token {
            Some(token) => Content::Inline(token.0.to_be_bytes().to_vec()),
            None => {
                let mut entries = Vec::new();
                for (name, (below, since)) in node.names {
                    let since = since.or(dot).unwrap();
                    self.nodes.get_mut(&id).unwrap().names.insert(name.clone(), (below, Some(since)));
                    let target = match self.nodes[&below].volume {
                        Some(volume) => Target::Volume { volume, id: below },
                        None if self.count(below) > 1 => Target::Link(below),
                        None => Target::Inode(self.inode(below, dot).into()),
                    };
                    entries.push(Entry { name, dot: since, target });
                }
                Content::Directory(tree::build(entries, &mut self.shared.bag.clone()).unwrap())
            }
        };
        let (meta_dot, content_dot) = (node.meta.unwrap(), node.content.unwrap());
        let content_dot = (content_dot != meta_dot).then_some(content_dot);
        let Node { kind, mode, mtime, ctime, xattrs, .. } = node;
        let older = None;
        let mut inode = Inode {
            id,
            kind,
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            mtime,
            ctime,
            xattrs,
            content,
            meta_dot,
            content_dot,
            older,
        };
        // As a device finds out what has changed: by what it was.
        match was {
            Some((was, true)) => inode.date_after(&was),
            Some((was, false)) => inode.older = was.older,
            None => {}
        }
        self.nodes.get_mut(&id).unwrap().was = Some(Box::new(inode.clone()));
        inode
    }

    /// What it has, as a tree.
    fn tree_at(&mut self, dot: Option<Dot>) -> (Inode, Option<tree::TreeRef>) {
        let linked: Vec<FileId> = self.nodes.keys().copied().filter(|id| self.count(*id) > 1).collect();
        let mut rows = Vec::new();
        for id in linked {
            rows.push(LinkEntry { inode: self.inode(id, dot), links: self.count(id) });
        }
        let links = (!rows.is_empty()).then(|| tree::build(rows, &mut self.shared.bag.clone()).unwrap());
        (self.inode(FileId::ROOT, dot), links)
    }

    fn tree(&self) -> (Inode, Option<tree::TreeRef>) {
        let mut copy = Self {
            nodes: self.nodes.clone(),
            shared: self.shared.clone(),
            heard: BTreeMap::new(),
            vector: vec![],
            ..*self
        };
        copy.tree_at(None)
    }

    /// A head, if anything has changed.
    pub(crate) fn publish(&mut self) {
        if self.is_changed {
            self.sequence += 1;
            let dot = Dot { device: self.tag, sequence: self.sequence };
            let (inode, links) = self.tree_at(Some(dot));
            self.vector = join([&self.vector[..], &[dot]]);
            self.is_changed = false;
            let root = Root {
                volume: VolumeId([1; 16]),
                inode,
                links,
                vector: self.vector.clone(),
                parts: vec![],
                history: None,
                tags: None,
            };
            self.heard.insert(self.tag, root);
        }
    }

    /// Hears of what others have published, and moves on to what all of that comes to.
    fn hear(&mut self, heard: &BTreeMap<DeviceTag, Root>) {
        assert!(!self.is_changed);
        for (tag, root) in heard {
            if self.heard.get(tag).is_none_or(|mine| sequence(mine, *tag) < sequence(root, *tag)) {
                self.heard.insert(*tag, root.clone());
            }
        }
        let roots: Vec<&Root> = self.heard.values().collect();
        let has_all = |one: &Root, other: &Root| covers_all(&one.vector, &other.vector);
        let newest = roots.iter().filter(|root| !roots.iter().any(|other| *other != **root && has_all(other, root)));
        let mut parts: Vec<Part> = newest.map(|root| Part::from(*root)).collect();
        let merged = merge_in(&self.shared.bag, &parts, &BTreeSet::new()).unwrap();
        parts.reverse();
        let again = merge_in(&self.shared.bag, &parts, &BTreeSet::new()).unwrap();
        assert_eq!((&merged.inode, &merged.links), (&again.inode, &again.links), "the order of trees plays a part");
        parts.extend(parts.clone());
        let twice = merge_in(&self.shared.bag, &parts, &BTreeSet::new()).unwrap();
        assert_eq!((&merged.inode, &merged.links), (&twice.inode, &twice.links), "it counts how often a tree is there");
        let (inode, links, vector) = (merged.inode.clone(), merged.links.clone(), merged.vector.clone());
        let whole = Part { inode, links, vector, ..parts[0].clone() };
        let again = merge_in(&self.shared.bag, &[whole], &BTreeSet::new()).unwrap();
        assert_eq!(
            (&merged.inode, &merged.links),
            (&again.inode, &again.links),
            "what was merged is no tree by itself"
        );
        self.vector = merged.vector;
        let before: BTreeSet<FileId> = self.nodes.keys().copied().collect();
        self.load(&merged.inode, merged.links.as_ref());
        // Whoever takes a file away need not have seen its latest mode: that keeps no file.
        let gone = before.into_iter().filter(|id| !self.nodes.contains_key(id));
        self.shared.taken.borrow_mut().extend(gone);
    }

    fn load(&mut self, root: &Inode, links: Option<&tree::TreeRef>) {
        let bag = self.shared.bag.clone();
        let rows = links.map_or(Vec::new(), |links| tree::list::<LinkEntry, _>(links, &bag).unwrap());
        self.nodes.clear();
        let mut waiting = vec![root.clone()];
        let counts: BTreeMap<FileId, u32> = rows.iter().map(|row| (row.inode.id, row.links)).collect();
        waiting.extend(rows.into_iter().map(|row| row.inode));
        while let Some(inode) = waiting.pop() {
            let mut node = Node::new(inode.kind, inode.mtime);
            (node.mode, node.ctime, node.meta) = (inode.mode, inode.ctime, Some(inode.meta_dot));
            node.content = Some(inode.content_dot.unwrap_or(inode.meta_dot));
            node.xattrs.clone_from(&inode.xattrs);
            node.was = Some(Box::new(inode.clone()));
            match &inode.content {
                Content::Directory(tree) => {
                    for entry in tree::list::<Entry, _>(tree, &bag).unwrap() {
                        let id = entry.target.id();
                        assert!(node.names.insert(entry.name, (id, Some(entry.dot))).is_none(), "a name twice");
                        if let Target::Inode(inode) = entry.target {
                            waiting.push(*inode);
                        }
                    }
                }
                content => node.token = Some(token(content)),
            }
            assert!(self.nodes.insert(inode.id, node).is_none(), "an inode stands in two places");
        }
        for (id, count) in counts {
            assert_eq!(self.count(id), count, "names of {id:?}");
        }
        for id in self.nodes.keys().filter(|id| **id != FileId::ROOT) {
            assert!(self.count(*id) > 0, "nothing leads to {id:?}");
        }
    }
}

impl Node {
    fn new(kind: FileKind, now: Timespec) -> Self {
        let (names, xattrs, mode) = (BTreeMap::new(), Vec::new(), 0o644);
        let (meta, content, was) = (None, None, None);
        Self { kind, mode, mtime: now, ctime: now, token: None, names, volume: None, xattrs, meta, content, was }
    }
}

const TAGS: [&[u8]; 3] = [b"user.a", b"user.b", b"user.c"];

fn now_value(clock: i64) -> Vec<u8> {
    clock.to_string().into_bytes()
}

const NAMES: [&str; 5] = ["a", "b", "c.txt", "d", "e"];

impl Device {
    fn directories(&self) -> Vec<FileId> {
        self.nodes.iter().filter(|(_, node)| node.kind == FileKind::Directory).map(|(id, _)| *id).collect()
    }

    fn places(&self) -> Vec<(FileId, Vec<u8>, FileId)> {
        let all = self.nodes.iter();
        all.flat_map(|(dir, node)| node.names.iter().map(|(name, (id, _))| (*dir, name.clone(), *id))).collect()
    }

    pub(crate) fn act(&mut self, op: &Op) {
        let directory = |pick: u8| {
            let all = self.directories();
            all[usize::from(pick) % all.len()]
        };
        let free = |dir: FileId, pick: u8| {
            let name = NAMES[usize::from(pick) % NAMES.len()];
            (!self.nodes[&dir].names.contains_key(name.as_bytes())).then_some(name)
        };
        let places = self.places();
        let place = |pick: u8| places.get(usize::from(pick) % places.len().max(1)).cloned();
        let file = |pick: u8| {
            let all: Vec<_> = places.iter().filter(|(_, _, id)| self.nodes[id].kind == FileKind::Regular).collect();
            all.get(usize::from(pick) % all.len().max(1)).map(|(_, _, id)| *id)
        };
        match *op {
            Op::Create(dir, name) => {
                let dir = directory(dir);
                if let Some(name) = free(dir, name) {
                    self.create(dir, name);
                }
            }
            Op::Mkdir(dir, name) => {
                let dir = directory(dir);
                if let Some(name) = free(dir, name) {
                    self.mkdir(dir, name);
                }
            }
            Op::Write(what) => drop(file(what).map(|id| self.write_to(id))),
            Op::Tag(what, name) | Op::Untag(what, name) => {
                if let Some((_, _, id)) = place(what) {
                    self.tag(id, TAGS[usize::from(name) % TAGS.len()], matches!(op, Op::Tag(..)));
                }
            }
            Op::Chmod(what) => drop(place(what).map(|(_, _, id)| self.chmod_of(id))),
            Op::Remove(what) => drop(place(what).map(|(dir, name, _)| self.remove_all_at(dir, &name))),
            Op::Rename(what, dir, name) => {
                let to = directory(dir);
                let name = NAMES[usize::from(name) % NAMES.len()].as_bytes();
                if let Some((dir, old, _)) = place(what) {
                    self.rename_at((dir, &old), (to, name));
                }
            }
            Op::Link(what, dir, name) => {
                let dir = directory(dir);
                if let (Some(id), Some(name)) = (file(what), free(dir, name)) {
                    self.touch(dir);
                    self.put(dir, name.as_bytes(), id);
                }
            }
            Op::Publish => self.publish(),
            Op::Learn(_) => {}
        }
    }

    /// How many versions of each file are kept beside it.
    fn copies(&self) -> BTreeMap<FileId, usize> {
        let mut copies = BTreeMap::new();
        // Not files that came to have one name: each of those somebody has made.
        let is_made = |id: &FileId| id.0[1..7] == [0; 6];
        let nodes = self.nodes.iter().filter(|(id, _)| !is_made(id)).map(|(_, node)| node);
        let marks = nodes.flat_map(|node| &node.xattrs).filter(|xattr| xattr.name == XATTR);
        for mark in marks.filter_map(|xattr| Mark::parse(&xattr.value)) {
            *copies.entry(mark.file).or_default() += 1;
        }
        copies
    }

    fn tokens(&self) -> BTreeSet<Token> {
        self.nodes.values().filter_map(|node| node.token).collect()
    }
}

/// What devices do, then all meet.
pub(crate) fn run(devices: u8, ops: &[(u8, Op)]) -> Result<(), String> {
    let mut world = World::new(devices);
    for (who, op) in ops {
        let who = usize::from(*who) % world.devices.len();
        match op {
            Op::Learn(of) => {
                let of = usize::from(*of) % world.devices.len();
                if of != who {
                    world.learn(who, of);
                }
            }
            op => world.devices[who].act(op),
        }
    }
    world.meet();
    // Each is a version that somebody has written, and one of all is in the file.
    for (file, copies) in world.devices[0].copies() {
        let rewritten = world.shared.rewritten.borrow().get(&file).copied().unwrap_or(0);
        if copies > rewritten {
            return Err(format!("{copies} copies of a file that was written {rewritten} times since it came to be"));
        }
    }
    for ((id, name), values) in world.shared.values.borrow().iter().filter(|(_, values)| !values.is_empty()) {
        let is_taken = world.shared.taken.borrow().contains(id);
        // Of two directories that became one, one has a mode. What somebody sets of a version that is kept beside its file goes where
        // another one merges the two anew without having heard of that.
        let is_made = id.0[1..7] == [0; 6];
        let is_asked = |node: &&Node| node.kind == FileKind::Regular && is_made && !is_taken;
        let Some(node) = world.devices[0].nodes.get(id).filter(is_asked) else { continue };
        let found = match name.is_empty() {
            true => Some(node.mode.to_be_bytes().to_vec()),
            false => node.xattrs.iter().find(|one| one.name == *name).map(|one| one.value.clone()),
        };
        if found.is_none_or(|found| !values.contains_key(&found)) {
            return Err(format!("what was set last of {id:?} {:?} is gone: {values:?}", String::from_utf8_lossy(name)));
        }
    }
    let there = world.devices[0].tokens();
    let alive = world.shared.alive.borrow();
    match alive.difference(&there).next() {
        None => Ok(()),
        Some(lost) => Err(format!("{lost:?} is gone, and nobody took it away: {:?}", world.devices[0].paths())),
    }
}

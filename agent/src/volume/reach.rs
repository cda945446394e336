//! Whether the index knows a segment for everything that the newest snapshot reaches. What it does not know cannot be
//! read again on this device, and would be missing from the next catalog.

use std::cell::Cell;
use std::collections::BTreeSet;

use hypernet_core::id::ExtentId;
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::tree::{self, Content, Entry, Item, LinkEntry, Root, Run, Source, Target, TreeRef};

use super::Volume;
use super::read::{Deadline, Nodes, tree_error};
use super::served::{WINDOW, after_window};

/// Inodes looked at between two words of progress.
const PAGE: u64 = 1_000;

/// What a walk has to say.
pub(crate) enum Seen {
    /// So many inodes were looked at.
    Inodes(u64),
    /// Something is wrong.
    Problem(String),
}

/// Tree nodes, each looked up in the index first: one may be in the cache that no segment has.
struct Known<'a> {
    nodes: Nodes<'a>,
    lost: &'a Cell<bool>,
}

impl Source for Known<'_> {
    type Error = PortError;

    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, PortError> {
        let ids: Vec<ExtentId> = refs.iter().map(ExtentRef::id).collect();
        self.lost.set(self.lost.get() | self.nodes.0.any_unknown(&ids)?);
        self.nodes.get(refs)
    }
}

/// One walk: directories that are still to be listed, with their names from the root on.
struct Walk<'a> {
    volume: &'a Volume,
    waiting: Vec<(String, TreeRef)>,
    inodes: u64,
    ended: bool,
    see: &'a mut dyn FnMut(Seen) -> bool,
}

impl Volume {
    /// What waits on this disk to be placed is known, too.
    fn any_unknown(&self, ids: &[ExtentId]) -> Result<bool, PortError> {
        let (placed, staged) = (self.db.has_extents(ids)?, self.db.are_staged(ids)?);
        Ok(placed.into_iter().zip(staged).any(|(placed, staged)| !placed && !staged))
    }

    /// Looks at all that a snapshot reaches, a directory at a time. Ends early where the index itself cannot be
    /// read, or `see` says that nobody wants to know any more.
    pub(crate) fn check_reach(&self, root: &Root, see: &mut dyn FnMut(Seen) -> bool) -> Result<(), PortError> {
        let mut walk = Walk { volume: self, waiting: Vec::new(), inodes: 0, ended: false, see };
        walk.content(String::new(), &root.inode.content)?;
        let mut rows = BTreeSet::new();
        if let Some(links) = &root.links {
            let name = "the list of files with several names";
            for row in walk.list::<LinkEntry>(name, links)? {
                rows.insert(row.inode.id);
                walk.content(format!("file {}", row.inode.id), &row.inode.content)?;
            }
        }
        while let Some((name, directory)) = walk.waiting.pop() {
            if walk.ended {
                return Ok(());
            }
            let shown = if name.is_empty() { "the root" } else { &name };
            for entry in walk.list::<Entry>(shown, &directory)? {
                let child = String::from_utf8_lossy(&entry.name);
                let path = if name.is_empty() { child.into_owned() } else { format!("{name}/{child}") };
                match &entry.target {
                    Target::Inode(inode) => walk.content(path, &inode.content)?,
                    Target::Link(id) if !rows.contains(id) => walk.say(Seen::Problem(format!(
                        "{path}: the list of files with several names does not have it, so nobody can read it: `hn restore` brings \
                         back what a snapshot has of it"
                    ))),
                    Target::Link(_) | Target::Volume { .. } => {}
                }
            }
        }
        walk.say(Seen::Inodes(walk.inodes));
        Ok(())
    }
}

impl Walk<'_> {
    fn content(&mut self, name: String, content: &Content) -> Result<(), PortError> {
        self.inodes += 1;
        if self.inodes.is_multiple_of(PAGE) {
            self.say(Seen::Inodes(self.inodes));
        }
        match content {
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => Ok(()),
            Content::Extent(extent) => {
                let lost = self.volume.any_unknown(&[extent.id()])?;
                self.tell(&name, lost, None)
            }
            Content::Runs { tree, .. } => self.runs(&name, tree),
            Content::Directory(directory) => {
                self.waiting.push((name, directory.clone()));
                Ok(())
            }
        }
    }

    /// A whole tree of items; of one that cannot be read, nothing.
    fn list<T: Item>(&mut self, name: &str, items: &TreeRef) -> Result<Vec<T>, PortError> {
        let lost = Cell::new(false);
        let nodes = Known { nodes: Nodes(self.volume, Deadline::of_read()), lost: &lost };
        let listed = tree::list(items, &nodes).map_err(tree_error);
        let (items, error) = match listed {
            Ok(items) => (items, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.tell(name, lost.get(), error)?;
        Ok(items)
    }

    /// A file's tree and content, a stretch of it at a time.
    fn runs(&mut self, name: &str, runs: &TreeRef) -> Result<(), PortError> {
        let lost = Cell::new(false);
        let mut at = 0;
        let mut failed = None;
        while at < runs.weight {
            let nodes = Known { nodes: Nodes(self.volume, Deadline::of_read()), lost: &lost };
            let end = at.saturating_add(WINDOW);
            let found = match tree::range::<Run, _>(runs, &nodes, at, end) {
                Ok(found) => found,
                Err(error) => {
                    failed = Some(tree_error(error));
                    break;
                }
            };
            let data = found.iter().filter_map(|(_, run)| match run {
                Run::Data(extent) => Some(extent.id()),
                Run::Hole(_) => None,
            });
            lost.set(lost.get() | self.volume.any_unknown(&data.collect::<Vec<_>>())?);
            at = after_window(&found, end);
        }
        self.tell(name, lost.get(), failed)
    }

    fn say(&mut self, seen: Seen) {
        self.ended |= !(self.see)(seen);
    }

    fn tell(&mut self, name: &str, lost: bool, error: Option<PortError>) -> Result<(), PortError> {
        match error {
            Some(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
            _ if lost => {
                let line = format!("{name}: parts of it are in no segment that the index knows");
                self.say(Seen::Problem(line));
            }
            Some(error) => self.say(Seen::Problem(format!("{name}: what leads there cannot be read: {error}"))),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::{DeviceTag, FileId};
    use hypernet_core::seal::{Kind, Sealer};
    use hypernet_core::time::Timespec;
    use hypernet_core::tree::{Dot, FileKind, Inode, Sink};

    use super::super::double::Mesh;
    use super::super::progress::Meter;
    use super::super::write::Writer;
    use super::*;

    const DOT: Dot = Dot { device: DeviceTag(1), sequence: 1 };

    fn inode(number: u8, content: Content) -> Inode {
        let kind = if matches!(content, Content::Directory(_)) { FileKind::Directory } else { FileKind::Regular };
        let time = Timespec { seconds: 1, nanos: 0 };
        Inode {
            id: if number == 0 { FileId::ROOT } else { FileId([number; 16]) },
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            mtime: time,
            ctime: time,
            xattrs: Vec::new(),
            content,
            meta_dot: DOT,
            content_dot: None,
            older: None,
        }
    }

    fn entry(name: &str, inode: Inode) -> Entry {
        Entry { name: name.into(), dot: DOT, target: Target::Inode(Box::new(inode)) }
    }

    fn problems(volume: &Volume, root: &Root) -> Vec<String> {
        let mut found = Vec::new();
        let mut see = |seen| {
            if let Seen::Problem(line) = seen {
                found.push(line);
            }
            true
        };
        volume.check_reach(root, &mut see).unwrap();
        found
    }

    #[test]
    fn what_no_segment_has_is_found_wherever_it_is() {
        let mesh = Mesh::new(8);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let stored = writer.put(Kind::Content, &[1; 5_000]).unwrap();
        let gone = Sealer::new(&volume.keys()).seal(Kind::Content, &[9; 600]).unwrap().reference;
        let build = |writer: &mut Writer, lost: bool| {
            let part = if lost { gone.clone() } else { stored.clone() };
            let runs = [Run::Data(stored.clone()), Run::Hole(1 << 60), Run::Data(part.clone())];
            let runs = Content::Runs { tree: tree::build(runs, writer).unwrap(), data: 5_600 };
            let below = tree::build(
                [entry("runs", inode(3, runs)), entry("whole", inode(4, Content::Extent(part.clone())))],
                writer,
            );
            let below = inode(2, Content::Directory(below.unwrap()));
            let top = tree::build([entry("below", below)], writer).unwrap();
            let links = [LinkEntry { inode: inode(5, Content::Extent(part)), links: 2 }];
            let links = Some(tree::build(links, writer).unwrap());
            let inode = inode(0, Content::Directory(top));
            Root { volume: volume.id, inode, links, vector: vec![DOT], parts: vec![], history: None, tags: None }
        };
        let (whole, lost) = (build(&mut writer, false), build(&mut writer, true));
        writer.finish().unwrap();
        assert_eq!(problems(&volume, &whole), Vec::<String>::new());
        let found = problems(&volume, &lost);
        let parts = ": parts of it are in no segment that the index knows";
        let names = [format!("file {}", FileId([5; 16])), "below/runs".into(), "below/whole".into()];
        assert_eq!(found, names.map(|name| name + parts));

        // A name that leads to none of the rows.
        let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
        let name = |name: &str, id| Entry { name: name.into(), dot: DOT, target: Target::Link(FileId([id; 16])) };
        let top = tree::build([name("there", 5), name("torn", 6)], &mut writer).unwrap();
        let torn = Root { inode: inode(0, Content::Directory(top)), ..whole.clone() };
        writer.finish().unwrap();
        let found = problems(&volume, &torn);
        assert!(found.len() == 1 && found[0].starts_with("torn: "), "{found:?}");

        // With nothing in the index, what is in the cache of nodes is missed all the same.
        volume.db.clear_segments().unwrap();
        let found = problems(&volume, &whole);
        for name in ["the root", "below", "below/runs", "below/whole", "the list of files with several names"] {
            assert!(found.iter().any(|line| line.starts_with(&format!("{name}: "))), "{name}: {found:?}");
        }
        volume.drop_nodes(None).unwrap();
        assert!(problems(&volume, &whole).iter().any(|line| line.starts_with("the root: ")));
    }
}

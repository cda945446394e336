//! Versions that are kept beside others: which there are in a tree.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::id::{DeviceTag, FileId, VolumeId};
use hypernet_core::limits::{DIFF_DIRECTORIES_AT_ONCE, PATH_MAX, PATHS_MAX};
use hypernet_core::merge::mark::Mark;
use hypernet_core::port::PortError;
use hypernet_core::tree::{self, Content, Entry, FileKind, Inode, LinkEntry, Root, Target, TreeRef};

use super::read::{Deadline, Nodes, tree_error};
use super::{Volume, damaged};

/// Versions that are told at once.
pub(crate) const CONFLICTS_MAX: usize = 100_000;

/// A version that is kept beside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Where it is, from the root of the volume, without a slash at its start.
    pub(crate) path: Vec<u8>,
    pub(crate) inode: Inode,
    pub(crate) mark: Mark,
    /// Where the file is that it is a version of; nothing where that is gone.
    pub(crate) file: Vec<Vec<u8>>,
}

/// A directory that is to be looked into.
struct Below {
    path: Vec<u8>,
    tree: TreeRef,
}

/// Bytes of paths that are held: what others have made is of any depth.
#[derive(Default)]
struct Held(usize);

impl Held {
    fn add(&mut self, path: &[u8]) -> Result<(), PortError> {
        self.0 += path.len();
        match self.0 > PATHS_MAX {
            true => Err(damaged("the paths of all directories are longer than what is looked through at once")),
            false => Ok(()),
        }
    }
}

/// Told of a name, and the path of the directory that it is in.
type See<'a> = &'a mut dyn FnMut(&[u8], Entry) -> Result<(), PortError>;

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}

impl Volume {
    /// Goes through all names in a tree.
    fn walk(&self, root: &Root, see: See<'_>) -> Result<(), PortError> {
        let below = |path: Vec<u8>, inode: &Inode| match &inode.content {
            Content::Directory(tree) => Some(Below { path, tree: tree.clone() }),
            _ => None,
        };
        let mut waiting: Vec<Below> = below(Vec::new(), &root.inode).into_iter().collect();
        let mut held = Held::default();
        // Of a tree in which a directory is in itself there is an end, too.
        let mut seen: BTreeSet<FileId> = BTreeSet::from([root.inode.id]);
        while !waiting.is_empty() {
            let some = waiting.split_off(waiting.len().saturating_sub(DIFF_DIRECTORIES_AT_ONCE));
            let pairs: Vec<_> = some.iter().map(|below| (None, Some(&below.tree))).collect();
            let nodes = Nodes(self, Deadline::of_read());
            let all = tree::differing::<Entry, _>(&pairs, &nodes).map_err(tree_error)?;
            for (dir, listed) in some.iter().zip(all) {
                for entry in listed.after {
                    if let Target::Inode(inode) = &entry.target
                        && inode.kind == FileKind::Directory
                        && dir.path.len() + entry.name.len() < PATH_MAX
                        && seen.insert(inode.id)
                    {
                        let path = joined(&dir.path, &entry.name);
                        held.add(&path)?;
                        waiting.extend(below(path, inode));
                    }
                    see(&dir.path, entry)?;
                }
                held.0 = held.0.saturating_sub(dir.path.len());
            }
        }
        Ok(())
    }

    /// Versions in a tree that are kept beside others, in order of their paths. Blocks.
    pub(crate) fn conflicts_in(&self, root: &Root) -> Result<Vec<Conflict>, PortError> {
        // Somebody may have copied a version over its file, attributes and all.
        let is_one = |inode: &Inode, mark: &Mark| inode.kind != FileKind::Directory && mark.file != inode.id;
        let marked = |inode: &Inode| Mark::of(inode).filter(|mark| is_one(inode, mark));
        let mut linked: BTreeMap<FileId, Inode> = BTreeMap::new();
        if let Some(links) = &root.links {
            let nodes = Nodes(self, Deadline::of_read());
            let rows = tree::differing::<LinkEntry, _>(&[(None, Some(links))], &nodes).map_err(tree_error)?;
            let rows = rows.into_iter().flat_map(|rows| rows.after).map(|row| row.inode);
            linked.extend(rows.filter(|inode| marked(inode).is_some()).map(|inode| (inode.id, inode)));
        }
        let (mut found, mut held): (Vec<Conflict>, _) = (Vec::new(), Held::default());
        self.walk(root, &mut |dir, entry| {
            let inode = match &entry.target {
                Target::Inode(inode) => Some(&**inode),
                Target::Link(id) => linked.get(id),
                Target::Volume { .. } => None,
            };
            if let Some((inode, mark)) = inode.and_then(|inode| Some((inode, marked(inode)?))) {
                if found.len() >= CONFLICTS_MAX {
                    return Err(damaged(format!("more than {CONFLICTS_MAX} versions are kept beside others")));
                }
                let path = joined(dir, &entry.name);
                held.add(&path)?;
                found.push(Conflict { path, inode: inode.clone(), mark, file: Vec::new() });
            }
            Ok(())
        })?;
        if found.is_empty() {
            return Ok(found);
        }
        let mut files: BTreeMap<FileId, Vec<Vec<u8>>> =
            found.iter().map(|conflict| (conflict.mark.file, Vec::new())).collect();
        self.walk(root, &mut |dir, entry| {
            if let Some(paths) = files.get_mut(&entry.target.id()) {
                let path = joined(dir, &entry.name);
                held.add(&path)?;
                paths.push(path);
            }
            Ok(())
        })?;
        for conflict in &mut found {
            conflict.file = files.get(&conflict.mark.file).cloned().unwrap_or_default();
            conflict.file.sort();
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// How devices are called that may have written something here, or in a branch that may have been merged.
    pub(crate) fn names(&self) -> Vec<(DeviceTag, String)> {
        let branches = self.identity.keystore().keystore().branches;
        let mut volumes: BTreeMap<VolumeId, Option<&str>> = BTreeMap::from([(self.id, None)]);
        volumes.extend(branches.iter().map(|branch| (branch.of, None)));
        volumes.extend(branches.iter().map(|branch| (branch.volume, Some(&branch.name[..]))));
        let mut names = BTreeMap::new();
        let publishers = self.publishers();
        for device in publishers.listed.into_iter().chain(publishers.gone) {
            for (id, branch) in &volumes {
                // What is of the main volume has the name of the device alone, as if there were no branches.
                let name = branch.map_or(device.name.clone(), |branch| format!("{} in {branch}", device.name));
                names.insert(device.id.tag_in(*id), name);
            }
        }
        names.into_iter().collect()
    }
}

/// How a device is called, as far as it is known.
pub(crate) fn called(names: &[(DeviceTag, String)], device: DeviceTag) -> String {
    let name = names.iter().find(|(tag, _)| *tag == device.of_device()).map(|(_, name)| name.clone());
    name.unwrap_or_else(|| format!("device {:08x}", device.0 >> 32))
}

//! Making what is here what a new snapshot says.
//!
//! Invariant: all inodes that are named in the plan are in memory, so nothing here can fail half-way.

use hypernet_core::id::FileId;
use hypernet_core::port::Local;
use hypernet_core::tree::{Content, FileKind, Inode};

use super::super::Vfs;
use super::super::node::{Entries, Node, Rare};
use super::super::state::{Op, State, fit};
use super::super::volumes::vacant;
use super::vacate::drop_root;
use super::work::{Leads, Named, Plan, Renewed};
use super::{Done, Known};

impl Vfs {
    pub(super) fn carry_out(&self, state: &mut State, root: u64, plan: Plan<'_>, known: &Known) -> Done {
        let mut done = Done::default();
        // What nobody has a name for any more leaves its row in the link table to the snapshot.
        let nameless = |state: &State, ino: u64| state.nodes.get(&ino).is_some_and(|node| node.nlink == 0);
        let of_volume = state.linked.iter().filter(|((of, _), _)| *of == root).map(|(_, ino)| *ino);
        for ino in of_volume.filter(|ino| nameless(state, *ino)).collect::<Vec<_>>() {
            state.unlink_record(ino, 0);
            state.queue(ino);
        }
        // Nothing else of them need change: their rows are to say so all the same.
        for ino in &plan.relinked {
            state.relink(*ino, root);
            state.queue_needed(*ino);
        }
        for (ino, dir) in &plan.unlinked {
            state.unlink_record(*ino, *dir);
            state.queue_needed(*ino);
        }
        for named in &plan.named {
            self.name(state, root, named, known, &mut done);
        }
        for dir in &plan.emptied {
            set_names(state, *dir, Entries::new(), &mut done);
        }
        for one in &plan.renewed {
            self.renew(state, one, &mut done);
        }
        for ino in &plan.lost {
            self.renounce(state, *ino);
        }
        for ino in plan.removed.iter().rev() {
            if state.nodes.get(ino).is_some_and(|node| node.linked) {
                state.unlink_record(*ino, 0);
            }
            match state.nodes.get(ino).is_some_and(|node| node.volume().is_some()) {
                true => drop_root(state, *ino),
                false => state.vanished(*ino),
            }
            if state.nodes.contains_key(ino) {
                done.attributes.push(*ino);
            }
        }
        let left = plan.replaced.iter().filter(|ino| state.nodes.contains_key(ino));
        let left: Vec<u64> = left.copied().collect();
        state.replaced.extend(left);
        // What is written to may have other directories above it now.
        let written: Vec<u64> =
            state.volumes.get(&root).map_or_else(Vec::new, |held| held.dirty.iter().copied().collect());
        written.into_iter().for_each(|ino| _ = state.mark_above(ino));
        state.advanced += 1;
        state.note_relinked();
        done
    }

    /// Gives a directory its new names.
    fn name(&self, state: &mut State, root: u64, named: &Named<'_>, known: &Known, done: &mut Done) {
        let dir = named.dir;
        let mut entries = Entries::new();
        let mut subdirectories = 0;
        for (name, leads) in &named.names {
            let ino = match leads {
                Leads::Here(ino) => {
                    if state.nodes.get(ino).is_some_and(|node| node.parent != dir) {
                        state.set_parent(*ino, dir);
                        state.queue_needed(*ino);
                    }
                    *ino
                }
                Leads::New(inode) => add(state, Node::from_snapshot(Inode::clone(inode), dir, None)),
                Leads::Linked(id) => match state.linked.get(&(root, *id)) {
                    Some(ino) => *ino,
                    None => add(state, linked(*id, root, known)),
                },
                Leads::Root(volume, id) => {
                    let ino = state.alloc_ino();
                    state.add_root(ino, vacant(*id, dir, *volume, self.config.owner()), *volume);
                    ino
                }
            };
            subdirectories += u32::from(state.nodes.get(&ino).is_some_and(|node| node.is_dir()));
            entries.insert((*name).into(), ino);
        }
        set_names(state, dir, entries, done);
        if let Some(node) = state.nodes.get_mut(&dir) {
            node.nlink = 2 + subdirectories;
        }
        state.queue_needed(dir);
        done.inodes.push(dir);
    }

    /// Gives an inode the attributes and the content of its record.
    fn renew(&self, state: &mut State, one: &Renewed<'_>, done: &mut Done) {
        let Renewed { ino, inode, links, differs, grows, place } = one;
        let Some(node) = state.nodes.get_mut(ino) else { return };
        node.mode = inode.mode & 0o7777;
        (node.uid, node.gid) = (inode.uid, inode.gid);
        node.set_mtime(fit(inode.mtime));
        node.set_ctime(fit(inode.ctime));
        let symlink = match &inode.content {
            Content::Symlink(target) => target.as_slice().into(),
            _ => Box::default(),
        };
        let rare = Rare { xattrs: inode.xattrs.clone(), symlink, rdev: inode.rdev };
        node.rare = (rare != Rare::default()).then(|| Box::new(rare));
        let is_dir = node.is_dir();
        if !is_dir {
            node.nlink = links.unwrap_or(1);
        }
        if differs.content {
            let size = inode.content.size();
            node.remote = Some(Box::new(inode.content.clone()));
            let before = std::mem::replace(&mut node.size, size);
            if *grows {
                // What is here stays: whoever has it open may read it past us.
                node.set_local(Local::Absent);
                done.growths.push(self.begin_growth(*ino, &inode.content, before));
            } else if node.is_file() && (before, size) != (0, 0) {
                self.give_up(state, *ino);
            }
        }
        state.queue_needed(*ino);
        match (inode.kind, place) {
            // The kernel does not know it.
            (FileKind::Regular, _) if differs.content => {}
            (FileKind::Regular, place) => {
                done.attributes.push(*ino);
                match place {
                    Some((dir, name)) => done.stay.push((*dir, (*name).into())),
                    None => done.linked.push(*ino),
                }
            }
            // Of one that is here it is told as of its names.
            (FileKind::Directory, _) if !differs.attributes => {}
            (FileKind::Directory, _) => done.attributes.push(*ino),
            _ => done.inodes.push(*ino),
        }
    }

    /// What is here of a file is not what it holds any more. Even of one that is empty now it is not said that all is here
    /// while there may be a backing file, which would be taken for a change after the loss of power.
    fn give_up(&self, state: &mut State, ino: u64) {
        if let Some(node) = state.nodes.get_mut(&ino) {
            node.set_local(Local::Absent);
        }
        self.fetcher.discard(ino);
        state.given_up.push(ino);
    }

    /// The link table has no record of it, though it may have a name.
    fn renounce(&self, state: &mut State, ino: u64) {
        let Some(node) = state.nodes.get_mut(&ino) else { return };
        node.remote = None;
        node.size = 0;
        self.give_up(state, ino);
        state.queue_needed(ino);
    }
}

/// The inode with several names that has this id, as the snapshot has it.
fn linked(id: FileId, root: u64, known: &Known) -> Node {
    match known.record(id, None) {
        Some(record) => Node::from_snapshot(record.inode.clone(), root, Some(record.links)),
        None => Node::lost(id, root),
    }
}

fn add(state: &mut State, node: Node) -> u64 {
    let ino = state.alloc_ino();
    state.insert(ino, node);
    state.queue_needed(ino);
    ino
}

/// Gives a directory, whose entries are loaded, other names.
fn set_names(state: &mut State, dir: u64, entries: Entries, done: &mut Done) {
    let Some(of) = state.nodes.get_mut(&dir).and_then(|node| node.dir.as_mut()) else { return };
    let old = of.entries.take().unwrap_or_default();
    for name in old.keys().filter(|name| !entries.contains_key(*name)) {
        state.ops.push(Op::Unlink { parent: dir, name: name.clone() });
        done.entries.push((dir, name.clone()));
    }
    for (name, ino) in &entries {
        if old.get(name) != Some(ino) {
            state.ops.push(Op::Link { parent: dir, name: name.clone(), ino: *ino });
            done.entries.push((dir, name.clone()));
        }
    }
    of.entries = Some(entries);
}

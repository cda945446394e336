//! What the agent itself changes in files: it is not asked for by the kernel, which may have cached what was.
//!
//! What is changed was looked at before, without a lock: by [`Still`] it is that which is changed, or nothing is.
//!
//! Invariant: a file holds what it held or all of what it is to hold, at every moment and after every crash, and the one name of
//! something goes only when that is on stable storage which was done before.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use hypernet_core::id::FileId;
use hypernet_core::merge::mark;
use hypernet_core::port::Local;
use hypernet_core::tree::{Content, FileKind};

use super::super::attr::drop_privileges;
use super::super::fetch::next_data;
use super::super::patience::{self, Wait};
use super::super::state::{State, Step, now};
use super::super::{Result, Vfs, VfsError};
use super::FORGETS_WITHIN;
use super::work::Held;

/// Bytes that are copied at once.
const PIECE: usize = 16 << 20;

/// A file as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Still {
    /// Its number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    id: FileId,
    changed: u64,
    published: Option<Content>,
}

impl Still {
    /// The same in every tree that it is in.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Whether it is this file, and holds this, as it was published.
    pub fn is(&self, id: FileId, content: &Content) -> bool {
        self.id == id && self.changed == 0 && self.published.as_ref() == Some(content)
    }
}

/// What a file is to hold.
#[derive(Clone, Copy, Debug)]
pub enum Fill<'a> {
    /// This.
    Bytes(&'a [u8]),
    /// What another file holds.
    Of(&'a Still),
}

enum Next {
    Hold(Held),
    Commit(u64),
    Done,
}

/// A backing file of no inode, which the next start removes, too.
struct Spare<'a>(&'a Vfs, u64);

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.backing.remove(self.1) {
            tracing::debug!(%error, "what was to become the content of a file is removed at the next start");
        }
    }
}

/// Refused where it is not any more what it was, or somebody has it open for writing.
fn check(state: &State, still: &Still) -> Step<()> {
    let node = state.node(still.ino)?;
    if node.nlink == 0 {
        return Err(VfsError::NotFound.into());
    }
    // What was written and published meanwhile, here or elsewhere, counts as unchanged again, and is published as something else.
    let is_so = (node.changed, node.id, node.remote.as_deref()) == (still.changed, still.id, still.published.as_ref());
    match node.writers() == 0 && is_so {
        true => Ok(()),
        false => Err(VfsError::Busy.into()),
    }
}

impl Vfs {
    /// Looks at something that nobody has open for writing: with [`VfsError::Busy`] it is not so.
    pub fn still(&self, ino: u64) -> Result<Still> {
        patience::check(Wait::Disk)?;
        self.flush_kernel()?;
        self.let_go()?;
        self.run(|state| {
            self.refresh(state, ino)?;
            state.writable(ino)?;
            let node = state.node(ino)?;
            if node.nlink == 0 {
                return Err(VfsError::NotFound.into());
            }
            if node.writers() > 0 {
                return Err(VfsError::Busy.into());
            }
            let published = node.remote.as_deref().cloned();
            Ok(Still { ino, kind: node.kind, id: node.id, changed: node.changed, published })
        })
    }

    /// Gives a file another content, all of it at once; that is on stable storage when this returns. [`VfsError::Busy`] when it, or
    /// what it gets the content of, is not as it was looked at, and when somebody has it open.
    pub fn fill(&self, file: &Still, with: Fill<'_>) -> Result<()> {
        patience::check(Wait::Mesh)?;
        let spare = Spare(self, self.run_mut(|state| Ok(state.alloc_ino()))?);
        let made = self.backing.ensure(spare.1)?;
        match with {
            Fill::Bytes(bytes) => made.write_all_at(bytes, 0)?,
            Fill::Of(other) => self.copy_all(other, &made)?,
        }
        // Before it takes the place of what is there.
        made.sync_all()?;
        drop(made);
        let until = Instant::now() + FORGETS_WITHIN;
        loop {
            match self.run_mut(|state| self.fill_now(state, file, with, spare.1))? {
                Next::Hold(held) => {
                    if !self.have_forgotten(&held, until)? {
                        return Err(VfsError::Busy);
                    }
                }
                Next::Commit(needs) => self.commit_through(needs)?,
                Next::Done => break,
            }
        }
        self.fsync(file.ino, false)
    }

    /// Copies all that a file holds. What is a hole stays one.
    fn copy_all(&self, from: &Still, to: &Arc<File>) -> Result<()> {
        let size = self.run(|state| {
            check(state, from)?;
            Ok(state.node(from.ino)?.size)
        })?;
        let _in_use = self.ensure_in_use(from.ino, 0..size)?;
        if size == 0 {
            return Ok(());
        }
        let gone = || VfsError::Local(format!("the backing file of inode {} is gone: try again", from.ino));
        let source = self.backing.get(from.ino)?.ok_or_else(gone)?;
        if source.metadata()?.len() != size {
            return Err(VfsError::Busy);
        }
        to.set_len(size)?;
        let mut at = 0;
        while let Some(data) = next_data(&source, at..size)? {
            let mut piece = data.start;
            while piece < data.end {
                let (mut from_at, mut to_at) = (piece, piece);
                let len = (data.end - piece).min(PIECE as u64) as usize;
                match rustix::fs::copy_file_range(&*source, Some(&mut from_at), &**to, Some(&mut to_at), len)? {
                    0 => return Err(VfsError::Busy),
                    copied => piece += copied as u64,
                }
            }
            at = data.end;
        }
        Ok(())
    }

    fn fill_now(&self, state: &mut State, file: &Still, with: Fill<'_>, spare: u64) -> Step<Next> {
        check(state, file)?;
        if let Fill::Of(other) = with {
            check(state, other)?;
        }
        let ino = file.ino;
        state.writable(ino)?;
        let node = state.node(ino)?;
        if !node.is_file() {
            return Err(VfsError::Invalid.into());
        }
        if node.handles() > 0 {
            return Err(VfsError::Busy.into());
        }
        if node.told > 0 {
            return Ok(Next::Hold(held(state, ino)?));
        }
        if node.local() == Local::Absent {
            let needs = node.needs;
            if state.committed < needs {
                // Until it is on stable storage that nothing of it is here, its backing file may be needed.
                return Ok(Next::Commit(needs));
            }
            self.fetcher.discard(ino);
        }
        let stat = self.backing.stat(spare).map_err(VfsError::from)?;
        let stat = stat.ok_or_else(|| VfsError::Local("what was just written is gone".into()))?;
        self.backing.take_over(spare, ino).map_err(VfsError::from)?;
        let node = state.node_mut(ino)?;
        node.set_local(Local::Complete);
        node.size = stat.size;
        node.set_mtime(stat.mtime);
        drop_privileges(node);
        state.unsynced.insert(ino);
        state.changed(ino);
        Ok(Next::Done)
    }

    /// Takes away a name of something that is as it was looked at; that is on stable storage when this returns.
    pub fn take_away(&self, parent: u64, name: &[u8], still: &Still) -> Result<()> {
        let ino = still.ino;
        self.run_mut(|state| {
            check(state, still)?;
            state.writable(parent)?;
            if state.child(parent, name)? != Some(ino) || state.node(ino)?.is_dir() {
                return Err(VfsError::Busy.into());
            }
            state.remove_name(parent, name)?;
            state.add_links(ino, -1);
            if state.node(ino)?.linked {
                state.note_relinked();
            }
            if state.node(ino)?.nlink > 0 {
                state.changed(ino);
            } else {
                state.node_mut(ino)?.set_ctime(now());
                state.vanished(ino);
            }
            state.entries_changed(parent);
            Ok(())
        })?;
        self.tell_name(parent, name);
        self.commit()
    }

    /// Something is no version that is kept beside another one any more, but a file of its own; that is on stable storage when this
    /// returns.
    pub fn unmark(&self, still: &Still) -> Result<()> {
        self.run_mut(|state| {
            check(state, still)?;
            state.writable(still.ino)?;
            state.node_mut(still.ino)?.put_xattr(mark::XATTR, None);
            state.changed(still.ino);
            Ok(())
        })?;
        let kernel = self.invalidate.read().clone();
        if let Some(kernel) = kernel {
            kernel.attributes(still.ino);
        }
        self.commit()
    }
}

/// The names by which the kernel may know a file.
fn held(state: &State, ino: u64) -> Step<Held> {
    let node = state.node(ino)?;
    let mut held = Held { inos: vec![ino], ..Held::default() };
    if node.linked {
        held.linked.push(ino);
        return Ok(held);
    }
    let parent = node.parent;
    let names = state.entries(parent)?.iter().filter(|(_, child)| **child == ino);
    held.names.extend(names.map(|(name, _)| (parent, name.clone())));
    Ok(held)
}

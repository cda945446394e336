//! Opening and closing a working tree, and what an unclean stop needs in between.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypernet_core::id::FileId;
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, PortError, RemoteTree};
use hypernet_core::tree::FileKind;
use parking_lot::{Condvar, Mutex, RwLock};

use super::attr::drop_privileges;
use super::backing::{Backing, Stat};
use super::commit::{Signal, Stuck};
use super::evict::Gauge;
use super::fetch::Fetcher;
use super::node::{Node, ROOT};
use super::spoilt::Syncs;
use super::state::{Op, State, Tomb};
use super::volumes::vacant;
use super::{Config, Result, Vfs, VfsError, dir};

/// Present while nobody has the working tree open and everything in it is committed.
const CLEAN: &str = "clean-shutdown";

/// Inodes read at a time.
const PAGE: u32 = 1_000;

/// Rows changed by recovery that are committed at a time.
const RECOVERED: usize = 10_000;

/// The directory of backing files.
const BACKING: &str = "data";

fn marker(dir: &Path) -> PathBuf {
    dir.join(CLEAN)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(File::open(dir)?.as_fd())?)
}

impl Vfs {
    /// Opens a working tree, or makes an empty one.
    pub fn open(config: Config, meta: Arc<dyn MetaStore>, remote: Arc<dyn RemoteTree>) -> Result<Arc<Self>> {
        let backing = Arc::new(Backing::open_dir(&config.dir.join(BACKING))?);
        let root = meta.inode(ROOT)?;
        // The root is committed before the first backing file is made: these are of a tree whose metadata is gone, and
        // would be removed for having none, or written over by what gets their numbers.
        if root.is_none()
            && let Some(ino) = backing.all()?.first()
        {
            return Err(VfsError::Rootless(*ino));
        }
        let syncs = Syncs::new(&config.dir);
        syncs.recover(&backing)?;
        let marker = marker(&config.dir);
        let was_clean = marker.exists();
        if was_clean {
            std::fs::remove_file(&marker)?;
            sync_dir(&config.dir)?;
        } else {
            recover(&*meta, &backing)?;
        }
        let mut state = State::new(meta.next_ino()?.max(ROOT + 1));
        // What is reserved now may be given out and lost in a crash: it is not given out again.
        state.reserved = state.next_ino;
        let root = match root {
            Some(row) if row.volume != Some(config.volume) => {
                return Err(VfsError::Local("the working tree is of another volume".into()));
            }
            Some(row) => Node::from_row(row),
            None => {
                state.ops.push(Op::Put(ROOT));
                new_root(&config)
            }
        };
        state.insert(ROOT, root);
        if let Some(dir) = state.nodes.get_mut(&ROOT).and_then(|root| root.dir.as_mut())
            && !state.ops.is_empty()
        {
            dir.entries = Some(super::node::Entries::new());
        }
        let vfs = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            config,
            meta,
            remote,
            state: Mutex::new(state),
            committed: Condvar::new(),
            dirtied: Condvar::new(),
            stilled: Condvar::new(),
            forgotten: Condvar::new(),
            backing,
            syncs,
            commit: Mutex::new(Stuck::default()),
            meta_write: Mutex::new(()),
            letting_go: Mutex::new(()),
            signal: Arc::new(Signal::default()),
            fetcher: Fetcher::new(),
            gauge: Gauge::default(),
            listings: Mutex::new(dir::Listings::default()),
            listing: Mutex::new(HashMap::new()),
            invalidate: RwLock::new(None),
            durability: RwLock::new(None),
        });
        vfs.load_roots()?;
        let dirty = vfs.load_pending()?;
        if !was_clean && vfs.tells_holders() {
            vfs.count_survivors_in(&dirty)?;
        }
        vfs.run(|state| {
            // The first number is allocated to reserve the range durably before anyone can see one of it.
            state.alloc_ino();
            Ok(())
        })?;
        vfs.commit()?;
        vfs.start_commit_thread()?;
        Ok(vfs)
    }

    /// One of the backing files of a working tree in `dir`, if it has any: without its metadata they mean nothing.
    pub fn any_backing(dir: &Path) -> Result<Option<PathBuf>> {
        let dir = dir.join(BACKING);
        if !dir.exists() {
            return Ok(None);
        }
        let all = Backing::open_dir(&dir)?.all()?;
        Ok(all.first().map(|ino| dir.join(super::backing::path(*ino))))
    }

    /// The dirty inodes are kept in memory, and those that nothing leads to any more go. Returns the files that are dirty.
    fn load_pending(&self) -> Result<Vec<u64>> {
        let mut files = Vec::new();
        each_row(
            |after, limit| self.meta.pending(after, limit),
            |row| {
                if row.nlink == 0 {
                    self.load_unlinked(&row);
                    return Ok(());
                }
                if row.kind == FileKind::Regular {
                    files.push(row.ino);
                }
                self.load_dirty(row)
            },
        )?;
        Ok(files)
    }

    fn load_unlinked(&self, row: &InodeRow) {
        let ino = row.ino;
        let mut state = self.state.lock();
        if row.linked {
            // Whether it was published just before the end is not known.
            state.clock += 1;
            let changed = state.clock;
            state.add_tomb(row.parent, ino, Tomb { id: row.id, changed });
        } else {
            state.ops.push(Op::Remove(ino));
            let batch = state.batch;
            state.gone.insert(ino, batch);
        }
        if row.kind == FileKind::Regular {
            state.doomed.push(ino);
        }
    }

    fn load_dirty(&self, row: InodeRow) -> Result<()> {
        let ino = row.ino;
        {
            let mut state = self.state.lock();
            if !state.nodes.contains_key(&ino) && (row.parent == 0 || state.nodes.contains_key(&row.parent)) {
                state.insert(ino, Node::from_row(row));
            }
        }
        // Where its parent is not here yet, with all that is above it.
        match self.run(|state| {
            state.node(ino)?;
            state.touch(ino);
            Ok(())
        }) {
            Err(VfsError::NotFound) => {
                tracing::error!(ino, "a changed inode hangs in the air and is left alone: run hn fsck");
                Ok(())
            }
            other => other,
        }
    }

    /// Commits everything. With `quiet`, which says that nobody can have a file open any more, it is noted that the
    /// tree was left in order; else the next start looks at all backing files, as after a crash. Nothing may be done
    /// with it afterwards.
    pub fn close(&self, quiet: bool) -> Result<()> {
        self.signal.stop();
        for ino in self.fetcher.partial() {
            // Nothing says after a restart which parts of it are here.
            self.remove_absent(ino, true)?;
        }
        self.let_go()?;
        self.run(|state| {
            let watched: Vec<u64> = state.watch.iter().copied().collect();
            for ino in watched {
                self.refresh(state, ino)?;
            }
            Ok(())
        })?;
        self.commit()?;
        self.backing.sync_all()?;
        // A cut that is still read holds on to files that are gone; the next start removes them.
        // And what is still mapped will be written to.
        let busy = {
            let state = self.state.lock();
            state.cuts > 0 || !state.held.is_empty() || !state.lingering.is_empty()
        };
        if !quiet || busy {
            return Ok(());
        }
        let file = File::create(marker(&self.config.dir))?;
        file.sync_all()?;
        sync_dir(&self.config.dir)?;
        Ok(())
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.signal.stop();
    }
}

/// The root of a new working tree: nothing is to be fetched for it.
fn new_root(config: &Config) -> Node {
    let row = vacant(FileId::ROOT, 0, config.volume, config.owner());
    Node::from_row(InodeRow { ino: ROOT, local: Local::Complete, ..row })
}

/// After an unclean stop the backing files know better than the rows: whatever was written to is dirty, with the
/// size and time it has now, and what nothing needs is removed.
fn recover(meta: &dyn MetaStore, backing: &Backing) -> Result<()> {
    let mut changed: Vec<MetaOp> = Vec::new();
    let mut written = 0u64;
    let look = |row: InodeRow| {
        if row.kind == FileKind::Regular
            && row.local == Local::Complete
            && row.nlink > 0
            && let Some(stat) = backing.stat(row.ino)?
            && (stat.size, stat.mtime) != (row.size, row.mtime)
            // An empty file was not written to; its backing file is just a little younger than its inode.
            && (stat.size, row.size) != (0, 0)
        {
            changed.push(taken_over(row, stat));
        }
        commit_some(meta, &mut changed, RECOVERED)
    };
    each_row(|after, limit| meta.pending(after, limit), look)?;
    let look = |row: InodeRow| {
        let Local::Clean { size, ctime } = row.local else { return Ok(()) };
        match backing.stat(row.ino)? {
            Some(stat) if (stat.size, stat.ctime) != (size, ctime) => {
                written += 1;
                changed.push(taken_over(row, stat));
            }
            None if size > 0 => {
                // It can come from the mesh again.
                changed.push(MetaOp::PutInode(InodeRow { local: Local::Absent, ..row }));
            }
            _ => {}
        }
        commit_some(meta, &mut changed, RECOVERED)
    };
    each_row(|after, limit| meta.clean(after, limit), look)?;
    commit_some(meta, &mut changed, 1)?;
    let mut removed = 0u64;
    for ino in backing.all()? {
        let needed = match meta.inode(ino)? {
            Some(row) => row.nlink > 0 && row.local != Local::Absent,
            None => false,
        };
        if !needed {
            removed += 1;
            backing.remove(ino)?;
        }
    }
    if written + removed > 0 {
        tracing::info!(written, removed, "the last stop was unclean: changed files were found by their backing files");
    }
    Ok(())
}

/// Calls `look` with each row that a query finds, which reads them in pages: those after an inode, as many as given.
pub(super) fn each_row(
    query: impl Fn(u64, u32) -> std::result::Result<Vec<InodeRow>, PortError>,
    mut look: impl FnMut(InodeRow) -> Result<()>,
) -> Result<()> {
    let mut after = 0;
    loop {
        let page = query(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.ino;
        page.into_iter().try_for_each(&mut look)?;
    }
}

/// Commits changes once there are as many as this.
fn commit_some(meta: &dyn MetaStore, changed: &mut Vec<MetaOp>, enough: usize) -> Result<()> {
    if changed.len() >= enough {
        meta.commit(changed, Durability::Power)?;
        changed.clear();
    }
    Ok(())
}

/// What is found to have been written to. By whom nobody knows any more, so that it also loses what would let it run
/// with more rights than its caller's.
fn taken_over(row: InodeRow, stat: Stat) -> MetaOp {
    let (ino, ctime) = (row.ino, row.ctime.max(stat.ctime));
    let mut node = Node::from_row(row);
    drop_privileges(&mut node);
    let row = InodeRow { size: stat.size, mtime: stat.mtime, ctime, ..node.row(ino) };
    MetaOp::PutInode(InodeRow { dirty: true, local: Local::Complete, ..row })
}

//! Open files and their content.
//!
//! Of a file that is wholly here, the backing file is the truth about size and modification time: in passthrough
//! the kernel writes to it without a word to us, so what it shows is taken over whenever somebody asks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hypernet_core::port::{Durability, Local, Stretch};
use hypernet_core::time::Timespec;
use rustix::fs::{FallocateFlags, SeekFrom};

use super::attr::{drop_capability, drop_privileges, has_privileges};
use super::backing::Stat;
use super::patience::{self, Wait};
use super::state::{State, Step, now};
use super::{Attr, Caller, Result, Vfs, VfsError};

/// Times of a backing file that are younger than this may still be those of a later write: filesystems take them
/// from a clock with coarse ticks.
pub(super) const RACY_NANOS: i128 = 20_000_000;

/// One call copies at most this much, so that it does not keep a thread for long.
const COPY_MAX: u64 = 16 * 1024 * 1024;

/// Atime is brought up to date when it is older than this.
const RELATIME_SECONDS: i64 = 24 * 60 * 60;

/// The flags of `open(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags(pub i32);

impl OpenFlags {
    /// Whether the handle can write.
    pub fn writes(self) -> bool {
        self.0 & libc::O_ACCMODE != libc::O_RDONLY
    }

    /// Whether a shared mapping of it can be written to: that takes a handle that can read, too.
    pub(super) fn can_map_for_writing(self) -> bool {
        self.0 & libc::O_ACCMODE == libc::O_RDWR
    }

    fn truncates(self) -> bool {
        self.0 & libc::O_TRUNC != 0
    }

    /// Whether each write is to be on stable storage when it returns.
    fn syncs(self) -> bool {
        self.writes() && self.0 & (libc::O_SYNC | libc::O_DSYNC) != 0
    }
}

/// A file that was not here, before it was truncated.
struct Untruncated {
    size: u64,
    was_clean: bool,
    /// The number of the change that its truncation is.
    changed: u64,
}

/// An open file.
#[derive(Debug, Default)]
pub struct Opened {
    /// The backing file, when the kernel may read and write it directly.
    pub passthrough: Option<Arc<File>>,
    /// What the kernel has cached of it may be more than there is: a write that it had collected did not reach the disk.
    pub stale: bool,
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The next data.
    Data,
    /// The next hole.
    Hole,
}

fn nanos(time: Timespec) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// Whether a write that left this ctime could be followed by one that leaves the same.
pub(super) fn is_racy(ctime: Timespec) -> bool {
    nanos(now()) - nanos(ctime) < RACY_NANOS
}

fn check_end(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(VfsError::FileTooLarge)
}

impl Vfs {
    /// Takes over what the backing file of a file that is open for writing has become.
    pub(super) fn refresh(&self, state: &mut State, ino: u64) -> Step<()> {
        let node = state.node(ino)?;
        if node.writers() == 0 || node.local() != Local::Complete {
            return Ok(());
        }
        let Some(stat) = self.backing.stat(ino).map_err(VfsError::from)? else { return Ok(()) };
        let size = node.size;
        let Some(open) = state.node_mut(ino)?.open.as_mut() else { return Ok(()) };
        // When it was last looked at, its times may have been younger than a tick: then equal times prove nothing.
        let ambiguous = std::mem::replace(&mut open.racy, is_racy(stat.ctime));
        let same = match open.seen.replace(stat) {
            Some(seen) => (seen.size, seen.mtime) == (stat.size, stat.mtime),
            None => stat.size == size,
        };
        if !same {
            self.take_over_unseen(state, ino, stat);
            state.stale.insert(ino);
        } else if ambiguous && size > 0 {
            // Perhaps written to within the tick: it counts as changed, but its times are right to a tick, and must
            // not move under a file that nobody wrote to.
            self.mark_written(state, ino);
        }
        Ok(())
    }

    /// Has the kernel ask again for what moved past it: a store to a mapping in passthrough moves times without a word to
    /// either of us, and it would show what it has for [as long as it may](crate::fuse).
    pub(super) fn tell_stale(&self) {
        let stale = std::mem::take(&mut self.state.lock().stale);
        let kernel = (!stale.is_empty()).then(|| self.invalidate.read().clone()).flatten();
        if let Some(kernel) = kernel {
            stale.into_iter().for_each(|ino| kernel.attributes(ino));
        }
    }

    /// Takes over what somebody wrote past us. By whom is not known: so also where root may keep them, what lets the file
    /// run with more rights than its caller's is taken off, unless the kernel tells of that too.
    pub(super) fn take_over_unseen(&self, state: &mut State, ino: u64, stat: Stat) {
        self.take_over(state, ino, stat);
        let told = state.told_times;
        if state.nodes.get_mut(&ino).is_some_and(|node| !told && drop_privileges(node)) {
            state.changed(ino);
        }
    }

    /// Takes over the size of a backing file that was written to, and its times, unless the kernel tells of them.
    pub(super) fn take_over(&self, state: &mut State, ino: u64, stat: Stat) {
        let told = state.told_times;
        if let Some(node) = state.nodes.get_mut(&ino) {
            node.size = stat.size;
            if !told {
                node.set_mtime(stat.mtime);
                node.set_ctime(node.ctime().max(stat.ctime));
            }
        }
        self.mark_written(state, ino);
    }

    /// A file has been written to, and its backing file has the size and time of that.
    pub(super) fn mark_written(&self, state: &mut State, ino: u64) {
        // Not `queue_needed`: what an fsync of the backing file makes durable is enough to find this out again.
        state.queue(ino);
        state.unsynced.insert(ino);
        state.touch(ino);
    }

    /// Notes how the backing file is, without taking it for a write.
    pub(super) fn see(&self, state: &mut State, ino: u64) -> Step<()> {
        let stat = self.backing.stat(ino).map_err(VfsError::from)?;
        if let Some(open) = state.node_mut(ino)?.open.as_mut() {
            open.seen = stat;
        }
        Ok(())
    }

    /// Makes a file and opens it.
    pub fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
        passthrough: bool,
    ) -> Result<(Attr, Opened)> {
        if flags.syncs() {
            // Opening it will wait. By then the name would be there, and a repetition would find it taken.
            patience::check(Wait::Disk)?;
        }
        let attr = self.mknod(caller, parent, name, (mode & 0o7777) | libc::S_IFREG, 0)?;
        let opened = self.open_file(caller, attr.ino, OpenFlags(flags.0 & !libc::O_TRUNC), passthrough)?;
        Ok((attr, opened))
    }

    /// Opens a file. With `passthrough`, the backing file comes with it where the kernel may use it directly.
    pub fn open_file(&self, caller: Caller, ino: u64, flags: OpenFlags, passthrough: bool) -> Result<Opened> {
        if flags.syncs() {
            patience::check(Wait::Disk)?;
        }
        if flags.writes() {
            // What is synced past us, by msync or RWF_DSYNC, must be found after the loss of power without a commit.
            let mark = if passthrough { Durability::Power } else { Durability::Process };
            self.open_writer(ino, flags.truncates(), mark)?;
        } else {
            self.run(|state| {
                let node = state.node_mut(ino)?;
                check_file(node)?;
                node.open.get_or_insert_default().handles += 1;
                Ok(())
            })?;
        }
        let rest = || {
            match (flags.truncates(), flags.writes()) {
                (true, true) => self.resize(caller, ino, 0)?,
                // Allowed to whoever may write: the content changes, though this handle cannot.
                (true, false) => self.truncate(caller, ino, 0)?,
                (false, _) => {}
            }
            if flags.syncs() {
                // The kernel syncs what it writes to the backing file; name and dirty mark are up to us.
                let needs = self.run(|state| state.node(ino).map(|node| node.needs))?;
                self.commit_through(needs)?;
            }
            if passthrough { self.passthrough(ino, flags.writes()) } else { Ok(None) }
        };
        let opened = rest();
        if let Ok(None) = &opened {
            self.read_through_cache(ino);
        }
        match opened {
            Ok(passthrough) => Ok(Opened { passthrough, stale: self.state.lock().unwritten.remove(&ino) }),
            Err(error) => {
                self.release(ino, flags)?;
                Err(error)
            }
        }
    }

    /// A file is open, and somebody may read it through the kernel's cache: its backing file is not all that they see.
    pub fn read_through_cache(&self, ino: u64) {
        let mut state = self.state.lock();
        if let Some(open) = state.nodes.get_mut(&ino).and_then(|node| node.open.as_mut()) {
            open.cached = true;
        }
    }

    /// Counts a writer in. Not with `run_mut`: a file that was just created must not be asked to wait before it is
    /// open. The file is wholly here afterwards, or empty with `truncate`, and a crash that leaves as much as `mark` leaves
    /// it dirty.
    pub(super) fn open_writer(&self, ino: u64, truncate: bool, mark: Durability) -> Result<()> {
        enum Next {
            Hydrate,
            Commit(u64),
            /// What it was before, where it was not here and has been truncated.
            Mark(Option<Untruncated>),
            Ready,
        }
        loop {
            let next = self.run(|state| {
                let node = state.node(ino)?;
                check_file(node)?;
                state.writable(ino)?;
                let local = node.local();
                if local == Local::Absent && !truncate && node.size > 0 {
                    return Ok(Next::Hydrate);
                }
                let (first, node_times) = (node.writers() == 0, (node.atime(), node.mtime()));
                let is_dirty = matches!(local, Local::Complete) && node.is_dirty();
                let is_marked = is_dirty && state.is_marked(ino, mark);
                if !is_marked {
                    // The dirty mark waits for the disk.
                    patience::check(Wait::Disk)?;
                }
                let (mut untruncated, mut clean) = (None, None);
                if local == Local::Absent {
                    let needs = state.node(ino)?.needs;
                    if state.committed < needs {
                        // Until it is on stable storage that nothing of it is here, its backing file may be needed.
                        return Ok(Next::Commit(needs));
                    }
                    // Before anything has changed: a full disk fails it here.
                    let file = self.backing.ensure(ino).map_err(VfsError::from)?;
                    // Before the mark says that all of it is here: parts of what there was may be.
                    self.fetcher.discard(ino);
                    file.set_len(0).map_err(VfsError::from)?;
                    let node = state.node_mut(ino)?;
                    let (size, was_clean) = (node.size, node.changed == 0);
                    node.set_local(Local::Complete);
                    node.size = 0;
                    if size > 0 {
                        state.changed(ino);
                        untruncated = Some(Untruncated { size, was_clean, changed: state.node(ino)?.changed });
                    } else {
                        // There is nothing to fetch, and it is as it was.
                        let stat = Stat::of(&file).map_err(VfsError::from)?;
                        clean = Some(Local::Clean { size: 0, ctime: stat.ctime });
                    }
                }
                if !is_dirty {
                    state.unmarked.insert(ino);
                    state.queue_needed(ino);
                }
                if let Local::Clean { size, ctime } = local {
                    let stat = self.backing.stat(ino).map_err(VfsError::from)?;
                    clean = Some(local);
                    if let Some(stat) = stat
                        && (stat.size, stat.ctime) != (size, ctime)
                    {
                        // Written to past us: its times and its new stamp must not hide that.
                        clean = None;
                        self.take_over_unseen(state, ino, stat);
                    } else if let Some(stat) = stat
                        && stat.mtime != node_times.1
                    {
                        // From here on the mtimes agree, so that after a crash a difference is a write.
                        self.backing.set_times(ino, node_times.0, node_times.1).map_err(VfsError::from)?;
                        let stat = self.backing.stat(ino).map_err(VfsError::from)?.unwrap_or(stat);
                        clean = Some(Local::Clean { size: stat.size, ctime: stat.ctime });
                    }
                    state.node_mut(ino)?.set_local(Local::Complete);
                }
                let seen = if first { self.backing.stat(ino).map_err(VfsError::from)? } else { None };
                let open = state.node_mut(ino)?.open.get_or_insert_default();
                open.handles += 1;
                open.writers += 1;
                if first {
                    open.racy = seen.is_some_and(|seen| is_racy(seen.ctime));
                    open.seen = seen;
                    open.clean = clean;
                }
                state.watch.insert(ino);
                state.unsynced.insert(ino);
                Ok(if is_marked { Next::Ready } else { Next::Mark(untruncated) })
            })?;
            match next {
                Next::Ready => return Ok(()),
                Next::Hydrate => self.hydrate(ino)?,
                Next::Commit(needs) => self.commit_through(needs)?,
                Next::Mark(untruncated) => {
                    if let Err(error) = self.mark_dirty(ino, mark) {
                        self.release(ino, OpenFlags(libc::O_WRONLY))?;
                        if let Some(before) = untruncated
                            && let Err(error) = self.untruncate(ino, &before)
                        {
                            tracing::warn!(ino, %error, "a truncation that failed could not be taken back");
                        }
                        return Err(error);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Takes back a truncation that could not be marked. It stands where anybody can have seen it: who has the file open,
    /// whoever has marked it since, a cut.
    fn untruncate(&self, ino: u64, before: &Untruncated) -> Result<()> {
        if self.backing.is_open(ino).unwrap_or(true) {
            return Ok(());
        }
        self.run(|state| {
            let written = self.backing.stat(ino).map_err(VfsError::from)?.is_some_and(|stat| stat.size > 0);
            let is_unmarked = state.unmarked.contains(&ino);
            let (node, cuts) = (state.node(ino)?, state.cuts);
            if node.local() != Local::Complete || node.handles() > 0 || cuts > 0 || written || !is_unmarked {
                return Ok(());
            }
            let is_own = node.changed == before.changed;
            let node = state.node_mut(ino)?;
            node.set_local(Local::Absent);
            node.size = before.size;
            if before.was_clean && is_own {
                state.clean(ino);
            }
            state.unmarked.remove(&ino);
            // Nothing is fetched into its backing file before the store says again that nothing of it is here.
            state.queue_needed(ino);
            state.stale.insert(ino);
            Ok(())
        })?;
        self.tell_stale();
        Ok(())
    }

    /// The backing file for direct use by the kernel.
    fn passthrough(&self, ino: u64, writes: bool) -> Result<Option<Arc<File>>> {
        let usable = self.run(|state| {
            let node = state.node(ino)?;
            // A write that passes us by would leave the setuid bit.
            Ok(node.local() != Local::Absent && !(writes && has_privileges(node)))
        })?;
        if !usable {
            return Ok(None);
        }
        if !writes {
            return Ok(self.backing.get(ino)?);
        }
        let file = self.backing.ensure(ino)?;
        self.run(|state| {
            let fresh = state.node(ino)?.open.as_ref().is_some_and(|open| open.seen.is_none());
            if fresh { self.see(state, ino) } else { Ok(()) }
        })?;
        Ok(Some(file))
    }

    /// Closes a handle that was opened with these flags.
    pub fn release(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        let last = self.run(|state| {
            self.refresh(state, ino)?;
            let stat = self.backing_stat_if_clean(state, ino)?;
            let node = state.node_mut(ino)?;
            let Some(open) = node.open.as_mut() else { return Err(VfsError::BadHandle.into()) };
            open.handles = open.handles.saturating_sub(1);
            if flags.writes() {
                open.writers = open.writers.saturating_sub(1);
                if open.writers == 0 {
                    let unwritten = match (open.clean.take(), stat) {
                        (Some(Local::Clean { size, ctime }), Some(stat)) => (stat.size, stat.ctime) == (size, ctime),
                        (Some(Local::Clean { size, .. }), None) => size == 0,
                        _ => false,
                    };
                    if unwritten && let Local::Complete = node.local() {
                        node.set_local(match stat {
                            Some(stat) => Local::Clean { size: stat.size, ctime: stat.ctime },
                            None => Local::Clean { size: 0, ctime: Timespec::default() },
                        });
                        self.gauge.add(stat.map_or(0, |stat| stat.bytes()));
                        state.queue(ino);
                    } else if state.told_times {
                        self.leave_times(state, ino);
                    }
                    state.watch.remove(&ino);
                }
            }
            let node = state.node_mut(ino)?;
            if node.handles() > 0 {
                return Ok(false);
            }
            node.open = None;
            if state.is_free(ino) {
                state.bury(ino);
            }
            Ok(true)
        })?;
        self.tell_stale();
        if last {
            self.backing.close(ino);
        }
        Ok(())
    }

    /// Gives a backing file the time of its file, where writes left another one: after a crash a difference is a write.
    pub(super) fn leave_times(&self, state: &mut State, ino: u64) {
        let Some(node) = state.nodes.get(&ino) else { return };
        let (atime, mtime) = (node.atime(), node.mtime());
        let seen = node.open.as_ref().and_then(|open| open.seen);
        if node.nlink == 0 || node.local() != Local::Complete || seen.is_none_or(|seen| seen.mtime == mtime) {
            return;
        }
        let left = self.backing.set_times(ino, atime, mtime).map_err(VfsError::from);
        if left.is_err() || self.see(state, ino).is_err() {
            tracing::debug!(ino, "a file's time may move by what its last write took, should the agent be killed now");
        }
    }

    /// The backing file of what was clean when it was opened, to see whether it still is.
    fn backing_stat_if_clean(&self, state: &State, ino: u64) -> Step<Option<Stat>> {
        match &state.node(ino)?.open {
            Some(open) if open.writers == 1 && open.clean.is_some() => {
                Ok(self.backing.stat(ino).map_err(VfsError::from)?)
            }
            _ => Ok(None),
        }
    }

    /// Reads; less than `buf` at the end of the file.
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (local, size) = self.run(|state| {
            let node = state.node_mut(ino)?;
            check_file(node)?;
            let found = (node.local(), node.size);
            let time = now();
            if node.atime() <= node.mtime() || time.seconds - node.atime().seconds >= RELATIME_SECONDS {
                node.set_atime(time);
                state.queue(ino);
            }
            Ok(found)
        })?;
        let mut _in_use = None;
        if local == Local::Absent {
            let end = offset.saturating_add(buf.len() as u64).min(size);
            if offset >= end {
                return Ok(0);
            }
            _in_use = match self.ensure_in_use(ino, offset..end) {
                // Who reads need not be told of it.
                Err(VfsError::NoSpace) => return self.read_past(ino, offset..end, buf),
                in_use => in_use?,
            };
            self.read_ahead(ino, offset..end);
        }
        let Some(file) = self.backing.get(ino)? else {
            return match size {
                0 => Ok(0),
                _ => Err(VfsError::Local(format!("the backing file of inode {ino} is gone: run hn fsck"))),
            };
        };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// The writer check and what every write by this way changes.
    fn written(&self, caller_keeps_bits: bool, ino: u64) -> Result<()> {
        let dropped = self.run(|state| {
            // Not before: what another write has made of it since would be undone.
            let stat = self.backing.stat(ino).map_err(VfsError::from)?;
            let node = state.node_mut(ino)?;
            let bits = if caller_keeps_bits { drop_capability(node) } else { drop_privileges(node) };
            if let Some(open) = node.open.as_mut() {
                open.seen = stat;
            }
            if let Some(stat) = stat {
                self.take_over(state, ino, stat);
            }
            if bits {
                state.changed(ino);
            }
            Ok(bits && !caller_keeps_bits)
        })?;
        let kernel = dropped.then(|| self.invalidate.read().clone()).flatten();
        if let Some(kernel) = kernel {
            // It trusts the mode that it has.
            kernel.mode(ino);
        }
        Ok(())
    }

    fn check_writer(&self, ino: u64) -> Result<()> {
        self.run(|state| {
            let node = state.node(ino)?;
            check_file(node)?;
            state.writable(ino)?;
            if node.writers() == 0 { Err(VfsError::BadHandle.into()) } else { Ok(()) }
        })
    }

    /// Writes all of `data`. `drop_bits`: the caller may not keep the setuid bit.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], drop_bits: bool) -> Result<()> {
        check_end(offset, data.len() as u64)?;
        self.check_writer(ino)?;
        if data.is_empty() {
            return Ok(());
        }
        let result = self.backing.ensure(ino)?.write_all_at(data, offset);
        if result.is_err() {
            // The kernel tells that once, and has the page for written from then on: until it drops it, it shows what is
            // nowhere.
            self.state.lock().unwritten.insert(ino);
        }
        // What was written before the disk was full counts.
        self.written(!drop_bits, ino)?;
        Ok(result?)
    }

    /// Sets the size.
    pub fn truncate(&self, caller: Caller, ino: u64, size: u64) -> Result<()> {
        check_end(size, 0)?;
        let flags = OpenFlags(libc::O_WRONLY);
        self.open_writer(ino, size == 0, Durability::Process)?;
        let resized = self.resize(caller, ino, size);
        let released = self.release(ino, flags);
        resized.and(released)
    }

    fn resize(&self, caller: Caller, ino: u64, size: u64) -> Result<()> {
        let file = if size == 0 { self.backing.get(ino)? } else { Some(self.backing.ensure(ino)?) };
        if let Some(file) = &file {
            file.set_len(size)?;
        }
        self.written(caller.uid == 0, ino)?;
        self.run(|state| {
            // Where there is a backing file its size has been taken over: somebody may have written to it since.
            if file.is_none() && self.backing.stat(ino).map_err(VfsError::from)?.is_none() {
                let node = state.node_mut(ino)?;
                node.size = 0;
                node.set_mtime(now());
            }
            state.changed(ino);
            Ok(())
        })
    }

    /// Reserves, zeroes or frees a range. `mode` is that of `fallocate(2)`.
    pub fn fallocate(&self, caller: Caller, ino: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let punch = libc::FALLOC_FL_PUNCH_HOLE;
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        if !(mode == 0 || mode == keep || mode == punch | keep || mode == zero || mode == zero | keep) {
            return Err(VfsError::NotSupported);
        }
        if len == 0 {
            return Err(VfsError::Invalid);
        }
        check_end(offset, len)?;
        self.check_writer(ino)?;
        let file = self.backing.ensure(ino)?;
        let result = rustix::fs::fallocate(&*file, FallocateFlags::from_bits_retain(mode as u32), offset, len);
        self.written(caller.uid == 0, ino)?;
        Ok(result?)
    }

    /// The next data or hole at or after `offset`. What the kernel has `cached` of the writes to a file would be taken
    /// for a hole, or for what is beyond the end: it is brought here first.
    pub fn lseek(&self, ino: u64, offset: u64, whence: Whence, cached: bool) -> Result<u64> {
        if cached && self.run(|state| state.node(ino).map(|node| node.writers() > 0))? {
            patience::check(Wait::Disk)?;
            self.void(ino);
        }
        let (local, size, content) = self.run(|state| {
            self.refresh(state, ino)?;
            let node = state.node(ino)?;
            check_file(node)?;
            Ok((node.local(), node.size, node.remote.clone()))
        })?;
        if offset >= size {
            return Err(VfsError::NoSuchOffset);
        }
        if local == Local::Absent {
            let content =
                content.ok_or_else(|| VfsError::Damaged(format!("inode {ino} is neither here nor on the mesh")))?;
            patience::check(Wait::Mesh)?;
            return match whence {
                Whence::Data => self.remote.seek(&content, offset, Stretch::Data)?.ok_or(VfsError::NoSuchOffset),
                Whence::Hole => Ok(self.remote.seek(&content, offset, Stretch::Hole)?.unwrap_or(size)),
            };
        }
        let file = self.backing.get(ino)?.ok_or(VfsError::NoSuchOffset)?;
        let from = match whence {
            Whence::Data => SeekFrom::Data(offset),
            Whence::Hole => SeekFrom::Hole(offset),
        };
        Ok(rustix::fs::seek(&*file, from)?)
    }

    /// Copies a range from one file to another, and says how much of it.
    pub fn copy_range(&self, from: u64, from_at: u64, to: u64, to_at: u64, len: u64) -> Result<u64> {
        let size = self.run(|state| {
            self.refresh(state, from)?;
            let node = state.node(from)?;
            check_file(node)?;
            Ok(node.size)
        })?;
        self.check_writer(to)?;
        let len = len.min(COPY_MAX).min(size.saturating_sub(from_at));
        check_end(to_at, len)?;
        if len == 0 {
            return Ok(0);
        }
        if from == to && from_at < to_at + len && to_at < from_at + len {
            return Err(VfsError::Invalid);
        }
        let _in_use = self.ensure_in_use(from, from_at..from_at + len)?;
        let Some(source) = self.backing.get(from)? else { return Ok(0) };
        let target = self.backing.ensure(to)?;
        let (mut at, mut put) = (from_at, to_at);
        let mut failed = None;
        while at < from_at + len {
            let rest = (from_at + len - at) as usize;
            match rustix::fs::copy_file_range(&*source, Some(&mut at), &*target, Some(&mut put), rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
        }
        self.written(false, to)?;
        match failed {
            Some(errno) if at == from_at => Err(errno.into()),
            _ => Ok(at - from_at),
        }
    }

    /// Returns when content (and, unless only that matters, name and attributes) are on stable storage.
    pub fn fsync(&self, ino: u64, data_only: bool) -> Result<()> {
        patience::check(Wait::Disk)?;
        let (needs, is_file) = self.run(|state| {
            self.refresh(state, ino)?;
            if state.told_times {
                self.leave_times(state, ino);
            }
            let node = state.node(ino)?;
            Ok((node.needs, node.is_file() && node.local() != Local::Absent))
        })?;
        self.tell_stale();
        if self.state.lock().unflushed.remove(&ino) {
            return Err(VfsError::Local("an earlier write of this file did not reach the disk".into()));
        }
        if is_file && let Some(file) = self.backing.get(ino)? {
            self.sync_content(ino, &file, data_only)?;
        }
        self.commit_through(needs)?;
        self.run(|state| state.moves(ino))
    }

    /// Total and free blocks and inodes of the disk below, as `statvfs` shows them.
    pub fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        Ok(self.backing.space()?)
    }
}

pub(super) fn check_file(node: &super::node::Node) -> Result<()> {
    match node.kind {
        hypernet_core::tree::FileKind::Regular => Ok(()),
        hypernet_core::tree::FileKind::Directory => Err(VfsError::IsDirectory),
        _ => Err(VfsError::Invalid),
    }
}

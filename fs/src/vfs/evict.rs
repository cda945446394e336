//! Letting go of local copies: on demand, and of those used longest ago when there are too many bytes of them.
//!
//! Only what is clean goes, only when whoever knows the mesh says that it can be had from there, and only after it is
//! on stable storage that it must be. What is open stays, but for parts of files that are themselves on their way here.

use std::time::{Duration, Instant};

use hypernet_core::port::{InodeRow, Local};
use hypernet_core::tree::{Content, FileKind};
use parking_lot::{Condvar, Mutex};

use super::backing::Stat;
use super::state::{State, Step};
use super::{Result, Vfs, VfsError};

/// What an eviction freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Files.
    pub files: u64,
    /// Their bytes, without holes.
    pub bytes: u64,
    /// Files that would have gone, were they to be had from the mesh.
    pub kept_files: u64,
    /// Their bytes, without holes.
    pub kept_bytes: u64,
}

/// How the local copies were brought below a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes of clean content that were here.
    pub before: u64,
    /// And that are left.
    pub after: u64,
    /// Files that would have gone, were they to be had from the mesh.
    pub kept_files: u64,
}

/// Says what can be had from the mesh: an answer for each content it is asked about.
pub type Served<'a> = dyn FnMut(&[&Content]) -> Vec<bool> + 'a;

/// Clean inodes looked through at a time.
const PAGE: u32 = 1_000;

/// Of larger files it is asked how much of them is on the disk: they may be mostly holes.
const LOOK_FROM: u64 = 1 << 20;

/// Bytes of clean content on this device, roughly: it is counted when the cache is trimmed, and what comes in between
/// is added. What goes is not taken off, so that it errs towards another count.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    state: Mutex<Reading>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Reading {
    bytes: u64,
    closed: bool,
}

impl Gauge {
    pub(super) fn add(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_add(bytes);
        self.grown.notify_all();
    }

    fn read(&self) -> u64 {
        self.state.lock().bytes
    }

    /// It was counted, and `began` was read before that: what was added since may not have been counted.
    fn correct(&self, began: u64, counted: u64) {
        let mut state = self.state.lock();
        state.bytes = counted.saturating_add(state.bytes.saturating_sub(began));
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.grown.notify_all();
    }
}

/// Clean content that is here.
struct Copy {
    used: u32,
    ino: u64,
    bytes: u64,
    partial: bool,
}

impl Vfs {
    /// Bytes of clean content on this device, roughly, as of the last [`Self::trim_cache`] and what came since.
    pub fn cached(&self) -> u64 {
        self.gauge.read()
    }

    /// Waits until there is more than `limit` bytes of clean content here, for as long as `timeout`. False: nobody need
    /// wait for it any more, because [`Self::stop_waiting_cached`] was called.
    pub fn wait_cached(&self, limit: u64, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.gauge.state.lock();
        while state.bytes <= limit && !state.closed {
            if self.gauge.grown.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        !state.closed
    }

    /// Whether [`Self::stop_waiting_cached`] was called.
    pub fn is_closing(&self) -> bool {
        self.gauge.state.lock().closed
    }

    /// Waits for as long as `timeout`. False: as [`Self::wait_cached`] says.
    pub fn rest_cached(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.gauge.state.lock();
        while !state.closed && !self.gauge.grown.wait_until(&mut state, until).timed_out() {}
        !state.closed
    }

    /// Whoever waits in [`Self::wait_cached`] returns, now and from now on.
    pub fn stop_waiting_cached(&self) {
        self.gauge.close();
    }

    /// Removes local content that the mesh has, in all of the volume or below one inode. Dirty and open files stay, and
    /// so does what `served` says cannot be had from the mesh now: it is asked of some at a time, under no lock. `tell`
    /// hears now and then how many files of how many have been looked at.
    pub fn drop_cache(
        &self,
        below: Option<u64>,
        served: &mut Served<'_>,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Dropped> {
        self.let_go()?;
        self.commit_if_room()?;
        // Reading the rows once more is cheap beside removing files.
        let mut total = 0;
        self.each_copy(|_| total += 1)?;
        let mut done = 0;
        let mut dropped = Dropped::default();
        for ino in if below.is_none() { self.fetcher.partial() } else { Vec::new() } {
            self.evict_partial(ino, served)?;
        }
        let mut after = 0;
        loop {
            let page = self.meta.clean(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(dropped) };
            after = last.ino;
            tell(done, total);
            done += page.iter().filter(|row| has_bytes(row)).count() as u64;
            self.evict_rows(&page, below, served, &mut dropped)?;
        }
    }

    /// Brings the clean content that is here down to nine tenths of `limit` bytes when it is more than `limit`. What
    /// was used longest ago goes first; what is dirty is not counted and stays, what is open or not to be had from the
    /// mesh stays. Of files that are open and have arrived in part, parts go that nobody reads now.
    pub fn trim_cache(&self, limit: u64, served: &mut Served<'_>) -> Result<Trimmed> {
        // Before what waits is committed: what becomes clean in between is not among the rows that are counted.
        let began = self.gauge.read();
        self.let_go()?;
        self.commit_if_room()?;
        let mut copies = Vec::new();
        self.each_copy(|row| copies.push((row.ino, row.size)))?;
        let mut copies = self.sized(&copies)?;
        let before = copies.iter().fold(0, |sum: u64, copy| sum.saturating_add(copy.bytes));
        let mut trimmed = Trimmed { before, after: before, kept_files: 0 };
        if before > limit {
            let goal = limit - limit / 10;
            copies.sort_unstable_by_key(|copy| copy.used);
            self.evict_oldest(&copies, goal, served, &mut trimmed)?;
            for copy in copies.iter().filter(|copy| copy.partial) {
                if trimmed.after > goal {
                    trimmed.after -= self.shed(copy.ino, trimmed.after - goal)?.min(trimmed.after);
                }
            }
        }
        self.gauge.correct(began, trimmed.after);
        Ok(trimmed)
    }

    /// Commits what waits. On a full disk it is committed together with the first eviction, which may use what is set
    /// aside for that.
    fn commit_if_room(&self) -> Result<()> {
        match self.commit() {
            Err(VfsError::NoSpace) => Ok(()),
            done => done,
        }
    }

    /// Evicts copies in this order until the bytes that are left are down to `goal`.
    fn evict_oldest(&self, copies: &[Copy], goal: u64, served: &mut Served<'_>, trimmed: &mut Trimmed) -> Result<()> {
        let mut rest = copies.iter();
        while trimmed.after > goal {
            let mut some: Vec<&Copy> = Vec::new();
            let mut bytes = 0u64;
            while bytes < trimmed.after - goal
                && some.len() < PAGE as usize
                && let Some(copy) = rest.next()
            {
                bytes = bytes.saturating_add(copy.bytes);
                some.push(copy);
            }
            if some.is_empty() {
                return Ok(());
            }
            let mut rows = Vec::new();
            for copy in &some {
                if copy.partial {
                    if self.evict_partial(copy.ino, served)? {
                        trimmed.after -= copy.bytes.min(trimmed.after);
                    }
                } else if let Some(row) = self.meta.inode(copy.ino)? {
                    rows.push(row);
                }
            }
            let mut dropped = Dropped::default();
            let freed = self.evict_rows(&rows, None, served, &mut dropped)?;
            trimmed.kept_files += dropped.kept_files;
            let freed = some.iter().filter(|copy| freed.contains(&copy.ino));
            let freed = freed.fold(0, |sum: u64, copy| sum.saturating_add(copy.bytes));
            trimmed.after -= freed.min(trimmed.after);
        }
        Ok(())
    }

    /// What of these rows, and of files that have arrived in part, is on the disk, and when it was used last.
    fn sized(&self, rows: &[(u64, u64)]) -> Result<Vec<Copy>> {
        let mut copies = Vec::with_capacity(rows.len());
        for (ino, size) in rows {
            let bytes = match *size {
                small if small < LOOK_FROM => small,
                _ => self.backing.stat(*ino)?.map_or(0, |stat| stat.bytes()),
            };
            copies.push(Copy { used: 0, ino: *ino, bytes, partial: false });
        }
        for ino in self.fetcher.partial() {
            let bytes = self.backing.stat(ino)?.map_or(0, |stat| stat.bytes());
            copies.push(Copy { used: 0, ino, bytes, partial: true });
        }
        for some in copies.chunks_mut(PAGE as usize) {
            let mut state = self.state.lock();
            state.tick = state.tick.wrapping_add(1);
            for copy in some {
                // What is not in memory has not been used for longest.
                copy.used = state.nodes.get(&copy.ino).map_or(0, |node| node.used);
            }
        }
        Ok(copies)
    }

    /// Evicts those of these clean files that may go; adds to what was dropped, and returns the files.
    fn evict_rows(
        &self,
        rows: &[InodeRow],
        below: Option<u64>,
        served: &mut Served<'_>,
        dropped: &mut Dropped,
    ) -> Result<Vec<u64>> {
        let mut wanted = Vec::new();
        for row in rows {
            if let Some(content) = &row.remote
                && self.run(|state| self.may_evict(state, row.ino, content, below)).or_else(not_found)?
            {
                wanted.push((row, content));
            }
        }
        let contents: Vec<&Content> = wanted.iter().map(|(_, content)| *content).collect();
        let served = if contents.is_empty() { Vec::new() } else { served(&contents) };
        let mut freed = Vec::new();
        for (at, (row, content)) in wanted.into_iter().enumerate() {
            if !served.get(at).copied().unwrap_or(false) {
                dropped.kept_files += 1;
                dropped.kept_bytes += content.data();
            } else if self.run(|state| self.evict_content(state, row.ino, content, below)).or_else(not_found)? {
                freed.push(row.ino);
                dropped.files += 1;
                dropped.bytes += content.data();
            }
        }
        // Only when it is known that the content must come from the mesh may it go.
        self.commit()?;
        for ino in &freed {
            if self.remove_absent(*ino, false)? {
                self.void(*ino);
            }
        }
        Ok(freed)
    }

    /// Removes what has arrived of a file, which is clean by nature; what is open is being read.
    fn evict_partial(&self, ino: u64, served: &mut Served<'_>) -> Result<bool> {
        let content = self.meta.inode(ino)?.and_then(|row| row.remote);
        let may_go = content.is_none_or(|content| served(&[&content]) == [true]);
        if !may_go || !self.remove_absent(ino, true)? {
            return Ok(false);
        }
        self.void(ino);
        Ok(true)
    }

    /// Removes the backing file of an inode of which nothing need be here. Looking and removing are one step: whoever
    /// opens it in between might write to it.
    pub(super) fn remove_absent(&self, ino: u64, partial: bool) -> Result<bool> {
        let state = self.state.lock();
        let absent = state.nodes.get(&ino).is_some_and(|node| node.local() == Local::Absent && node.handles() == 0);
        if !absent || (!partial && self.fetcher.is_partial(ino)) {
            return Ok(false);
        }
        self.fetcher.discard(ino);
        self.backing.remove(ino)?;
        Ok(true)
    }

    /// Shows the rows of all files with local content that may be evicted, open ones included.
    fn each_copy(&self, mut show: impl FnMut(&InodeRow)) -> Result<()> {
        let mut after = 0;
        loop {
            let page = self.meta.clean(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.ino;
            page.iter().filter(|row| has_bytes(row)).for_each(&mut show);
        }
    }

    pub(super) fn void(&self, ino: u64) {
        let invalidate = self.invalidate.read().clone();
        if let Some(invalidate) = invalidate {
            invalidate.inode(ino);
        }
    }

    /// Whether local content may go if the mesh serves `content`. Whoever changes it meanwhile changes the answer.
    fn may_evict(&self, state: &mut State, ino: u64, content: &Content, below: Option<u64>) -> Step<bool> {
        let node = state.node(ino)?;
        if !matches!(node.local(), Local::Clean { .. }) || node.remote.as_deref() != Some(content) {
            return Ok(false);
        }
        if node.size == 0 || !node.is_file() || node.changed != 0 || node.handles() > 0 {
            return Ok(false);
        }
        match below {
            None => Ok(true),
            Some(below) => state.is_ancestor(below, ino),
        }
    }

    fn evict_content(&self, state: &mut State, ino: u64, content: &Content, below: Option<u64>) -> Step<bool> {
        if !self.may_evict(state, ino, content, below)? {
            return Ok(false);
        }
        let Local::Clean { size, ctime } = state.node(ino)?.local() else { return Ok(false) };
        // In passthrough what is mapped is the backing file itself, and nobody says when that ends: from another one,
        // fetched later, it would part for good.
        // Where nothing can tell there is no passthrough.
        if self.backing.is_open(ino).unwrap_or(false) {
            return Ok(false);
        }
        if let Some(stat) = self.backing.stat(ino).map_err(VfsError::from)?
            && (stat.size, stat.ctime) != (size, ctime)
        {
            self.found_written(state, ino, stat)?;
            return Ok(false);
        }
        state.node_mut(ino)?.set_local(Local::Absent);
        // A fetch must not touch the backing file before this is on stable storage.
        state.queue_needed(ino);
        Ok(true)
    }

    /// Somebody who had it open before the last start of the agent wrote to it past us.
    pub(super) fn found_written(&self, state: &mut State, ino: u64, stat: Stat) -> Step<()> {
        tracing::warn!(ino, "a file was changed behind the agent's back; it stays, and is uploaded");
        state.node_mut(ino)?.set_local(Local::Complete);
        state.unmarked.insert(ino);
        self.take_over_unseen(state, ino, stat);
        Ok(())
    }
}

fn has_bytes(row: &InodeRow) -> bool {
    row.kind == FileKind::Regular && row.size > 0
}

fn not_found(error: VfsError) -> Result<bool> {
    match error {
        VfsError::NotFound => Ok(false),
        other => Err(other),
    }
}

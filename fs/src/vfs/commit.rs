//! Group commit: the content written so far, then the queued changes, then what only they make safe to remove.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::limits::FS_FLUSH_EACH_MAX;
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp};
use parking_lot::{Condvar, Mutex};

use super::patience::{self, Wait};
use super::state::{InoMap, InoSet, Op, State};
use super::{Result, Vfs, VfsError};
use crate::panics;

/// A background commit takes at most this part of the time: a slow disk is not kept busy with flushing.
const REST: u32 = 4;

/// Longest rest between two background commits.
const REST_MAX: Duration = Duration::from_secs(20);

/// Wakes the commit thread.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<SignalState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    armed: bool,
    stop: bool,
}

impl Signal {
    pub(super) fn arm(&self) {
        self.state.lock().armed = true;
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_all();
    }

    /// Waits until there is work that is at least `rest` old. False: stop.
    fn wait(&self, rest: Duration) -> bool {
        let mut state = self.state.lock();
        while !state.armed && !state.stop {
            self.wake.wait(&mut state);
        }
        let until = Instant::now() + rest;
        while !state.stop {
            if self.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.armed = false;
        !state.stop
    }
}

/// Changes on their way to the store.
#[derive(Debug, Default)]
pub(super) struct Batch {
    ops: Vec<MetaOp>,
    /// Where in `ops` an inode is. However often a batch fails, and a file is written to meanwhile, its row is in it
    /// once.
    rows: InoMap<usize>,
    seq: u64,
    doomed: Vec<u64>,
    given_up: Vec<u64>,
    unsynced: InoSet,
}

/// The batch whose commit failed; the next commit brings it first.
pub(super) type Stuck = Batch;

impl Batch {
    /// Closes the current batch and appends it.
    fn close(&mut self, state: &mut State) {
        self.seq = state.batch;
        state.batch += 1;
        state.armed = false;
        state.marked.clear();
        for op in std::mem::take(&mut state.ops) {
            let op = match op {
                Op::Put(ino) => {
                    if let Some(node) = state.nodes.get(&ino) {
                        self.put(node.row(ino));
                        // Whoever has it open for writing may have written to it without a word. Of the other open
                        // files this batch says nothing: what is not synced is left to the disk's own time, as on it.
                        if state.watch.contains(&ino) {
                            self.unsynced.insert(ino);
                        }
                    }
                    continue;
                }
                Op::PutRow(row) => {
                    self.put(*row);
                    continue;
                }
                Op::Remove(ino) => MetaOp::RemoveInode(ino),
                Op::Link { parent, name, ino } => MetaOp::Link { parent, name: name.into(), ino },
                Op::Unlink { parent, name } => MetaOp::Unlink { parent, name: name.into() },
                Op::NextIno(next) => MetaOp::NextIno(next),
            };
            self.ops.push(op);
        }
        self.unsynced.extend(state.unsynced.drain());
        self.given_up.append(&mut state.given_up);
        let doomed = std::mem::take(&mut state.doomed);
        if state.cuts > 0 {
            state.held.extend(doomed);
        } else {
            self.doomed.extend(doomed);
        }
    }

    /// All of a batch is committed or nothing, so a row may stand where an older one did.
    fn put(&mut self, row: InodeRow) {
        match self.rows.entry(row.ino) {
            Entry::Occupied(at) => self.ops[*at.get()] = MetaOp::PutInode(row),
            Entry::Vacant(new) => {
                new.insert(self.ops.len());
                self.ops.push(MetaOp::PutInode(row));
            }
        }
    }
}

impl Vfs {
    /// Tells the commit thread that there is work, unless it knows.
    pub(super) fn arm(&self, state: &mut State) {
        if !std::mem::replace(&mut state.armed, true) {
            self.signal.arm();
        }
    }

    /// Commits all that is queued; returns when it survives the loss of power. Who comes while another commit is
    /// under way shares the next one.
    pub(super) fn commit(&self) -> Result<()> {
        let seq = {
            let state = self.state.lock();
            if state.ops.is_empty() && state.doomed.is_empty() { state.batch - 1 } else { state.batch }
        };
        self.commit_through(seq)
    }

    /// Returns when batch `seq` survives the loss of power.
    pub(super) fn commit_through(&self, seq: u64) -> Result<()> {
        if self.state.lock().committed >= seq {
            return Ok(());
        }
        patience::check(Wait::Disk)?;
        let mut stuck = self.commit.lock();
        {
            let mut state = self.state.lock();
            if state.committed >= seq {
                return Ok(());
            }
            stuck.close(&mut state);
        }
        let flushed = self.flush(&stuck.unsynced);
        if flushed.is_err() {
            self.state.lock().unflushed.extend(stuck.unsynced.iter().copied());
        }
        let done = flushed.and_then(|()| self.write_batch(&mut stuck));
        let mut state = self.state.lock();
        match done {
            Ok(()) => {
                let Batch { seq, doomed, given_up, .. } = std::mem::take(&mut *stuck);
                state.committed = seq;
                state.stuck = 0;
                state.weakly_marked.retain(|_, batch| *batch > seq);
                let before = state.gone.len();
                state.gone.retain(|_, batch| *batch > seq);
                if state.gone.len() != before {
                    state.epoch += 1;
                }
                state.removing.extend(&doomed);
                drop(state);
                self.committed.notify_all();
                self.remove_backing(&doomed);
                let mut state = self.state.lock();
                doomed.iter().for_each(|ino| _ = state.removing.remove(ino));
                drop(state);
                self.remove_given_up(&given_up);
                Ok(())
            }
            Err(error) => {
                // What was not flushed is flushed the next time; the changes stay in `stuck`.
                state.stuck = stuck.ops.len();
                drop(state);
                tracing::error!(%error, "changes could not be committed; they stay in memory and are tried again");
                self.signal.arm();
                Err(error)
            }
        }
    }

    fn write_batch(&self, batch: &mut Batch) -> Result<()> {
        let _writing = self.meta_write.lock();
        let marked = std::mem::take(&mut self.state.lock().marked);
        if !marked.is_empty() {
            for op in &mut batch.ops {
                if let MetaOp::PutInode(row) = op
                    && marked.contains(&row.ino)
                {
                    row.dirty = true;
                    row.local = Local::Complete;
                }
            }
        }
        if batch.ops.is_empty() {
            return Ok(());
        }
        Ok(self.meta.commit(&batch.ops, Durability::Power)?)
    }

    /// Brings the content of these files to stable storage.
    fn flush(&self, unsynced: &InoSet) -> Result<()> {
        if unsynced.len() > FS_FLUSH_EACH_MAX && self.backing.syncs_all() {
            return self.sync_all_content(unsynced);
        }
        for ino in unsynced {
            if let Some(file) = self.backing.get(*ino)? {
                self.sync_content(*ino, &file, true)?;
                if self.state.lock().nodes.get(ino).is_none_or(|node| node.handles() == 0) {
                    self.backing.close(*ino);
                }
            }
        }
        Ok(())
    }

    /// Removes content that nothing on stable storage needs any more.
    pub(super) fn remove_backing(&self, doomed: &[u64]) {
        for ino in doomed {
            self.fetcher.discard(*ino);
            self.syncs.gone(*ino);
            if let Err(error) = self.backing.remove(*ino) {
                tracing::warn!(ino, %error, "a file's content could not be removed from the disk; it is tried again");
                let mut state = self.state.lock();
                state.doomed.push(*ino);
                self.arm(&mut state);
            }
        }
    }

    /// Removes content that is not what its file holds any more. What is not removed now is when something is fetched.
    fn remove_given_up(&self, given_up: &[u64]) {
        for ino in given_up {
            let there = self.run(|state| state.node(*ino).map(drop));
            match there.and_then(|()| self.remove_absent(*ino, false)) {
                Ok(_) | Err(VfsError::NotFound) => {}
                Err(error) => tracing::warn!(ino, %error, "an old copy of a file could not be removed from the disk"),
            }
        }
    }

    /// Marks a file as dirty in the store, before the first write to it: after a crash that would go unseen. Whoever does it
    /// once more does no harm.
    pub(super) fn mark_dirty(&self, ino: u64, durability: Durability) -> Result<()> {
        let absent = self.meta.inode(ino)?.is_some_and(|row| row.local == Local::Absent);
        if absent && let Some(file) = self.backing.get(ino)? {
            // It has just come from the mesh. The mark says that all of it is here: so it must be.
            self.sync_content(ino, &file, true)?;
        }
        let writing = self.meta_write.lock();
        let Some(mut row) = self.meta.inode(ino)? else {
            // It is on its way there, and comes with the mark in it.
            drop(writing);
            let needs = self.run(|state| state.node(ino).map(|node| node.needs))?;
            self.commit_through(needs)?;
            self.state.lock().unmarked.remove(&ino);
            return Ok(());
        };
        if row.local == Local::Absent && !absent {
            // It came there just now, from before the content did.
            drop(writing);
            return self.mark_dirty(ino, durability);
        }
        row.dirty = true;
        row.local = Local::Complete;
        self.meta.commit(&[MetaOp::PutInode(row)], durability)?;
        let mut state = self.state.lock();
        state.unmarked.remove(&ino);
        // A batch that was closed before does not take it back.
        state.marked.insert(ino);
        match durability {
            Durability::Process => {
                let batch = state.batch;
                state.weakly_marked.insert(ino, batch);
            }
            Durability::Power => _ = state.weakly_marked.remove(&ino),
        }
        Ok(())
    }

    /// The commit thread. It holds the filesystem only while it works, and ends with it.
    pub(super) fn start_commit_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let (weak, signal, interval) = (Arc::downgrade(self), self.signal.clone(), self.config.commit_interval);
        std::thread::Builder::new().name("hn-commit".into()).spawn(move || {
            let mut rest = interval;
            while signal.wait(rest) {
                let Some(vfs) = weak.upgrade() else { return };
                let start = Instant::now();
                // An error is logged, told to whoever waits, and the work tried again.
                let round = panics::caught(|| {
                    if let Err(error) = vfs.let_go() {
                        tracing::warn!(%error, "files that were closed stay open: it cannot be told who has them mapped");
                    }
                    let _ = vfs.commit();
                    vfs.evict();
                });
                if let Err(text) = round {
                    tracing::error!(text, "a background commit panicked; it is tried again");
                    signal.arm();
                }
                rest = interval.max((start.elapsed() * REST).min(REST_MAX));
            }
        })?;
        Ok(())
    }
}

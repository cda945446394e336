//! Content that comes from the mesh while it is read.
//!
//! A file that is not here gets a sparse backing file, and a map of which parts of it have arrived. A part that
//! several readers miss is fetched once: the first claims it, the others wait for the claim. No lock is held over a
//! fetch; a fetch that was overtaken by a truncation or removal finds its map discarded and writes nothing. What has
//! arrived can be given up again while the rest has not, but for what is in use.
//!
//! Invariant: a map is discarded in the same step in which the file becomes one that is wholly here. What comes from the
//! mesh is whole extents, more than was claimed, so all can be here while a claim is still under way; what that brings
//! is what was there before anybody wrote.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use hypernet_core::limits::{
    FETCH_WHOLE_MAX, PREFETCH_CHUNK, PREFETCH_QUEUE, PREFETCH_THREADS, READAHEAD_MAX, READAHEAD_MIN,
};
use hypernet_core::port::{Local, Stretch};
use hypernet_core::tree::Content;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::patience::{self, Wait};
use super::ranges::Ranges;
use super::state::InoMap;
use super::{Result, Vfs, VfsError};
use crate::panics;

/// Reads this far from the end of the last one still count as sequential: the kernel reorders its read-ahead.
const NEAR: u64 = 2 * 1024 * 1024;

/// What a backing file's space is given back in.
const BLOCK: u64 = 4_096;

/// Warnings about failed fetches are at least this far apart.
const WARN_MILLIS: u64 = 2_000;

#[derive(Debug)]
struct Claim {
    range: Range<u64>,
    result: OnceLock<Result<()>>,
}

/// A claim of this thread. Whoever waits for it is told how it ended, even when the thread panics.
struct Claimed {
    fetch: Arc<Fetch>,
    claim: Arc<Claim>,
}

impl Claimed {
    fn end(&self, result: Result<()>) {
        let mut inner = self.fetch.inner.lock();
        inner.claims.retain(|other| !Arc::ptr_eq(other, &self.claim));
        inner.failed = result.clone().err().map(|error| (Instant::now(), self.claim.range.clone(), error));
        let _ = self.claim.result.set(result);
        self.fetch.arrived.notify_all();
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.claim.result.get().is_none() {
            self.end(Err(VfsError::Local("whoever was to fetch it did not come to it".into())));
        }
    }
}

/// What there is of a backing file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Prepared {
    /// Nothing, or what is of no use.
    #[default]
    No,
    /// One that holds the beginning, and is being read: it must grow from its end on.
    Begun,
    /// One as long as the file.
    Whole,
}

#[derive(Debug, Default)]
struct Inner {
    prepared: Prepared,
    discarded: bool,
    present: Ranges,
    claims: Vec<Arc<Claim>>,
    failed: Option<(Instant, Range<u64>, VfsError)>,
    /// What is being read, or must stay until all is here.
    in_use: Vec<Range<u64>>,
    last_end: u64,
    window: u64,
    ahead: u64,
}

/// A file on its way here.
#[derive(Debug)]
pub(super) struct Fetch {
    content: Content,
    size: u64,
    inner: Mutex<Inner>,
    arrived: Condvar,
}

/// A file that has grown, of which the beginning is here.
pub(super) struct Growth {
    pub(super) ino: u64,
    claimed: Claimed,
}

/// While this is kept, that range of the file is not given up once it is here.
pub(super) struct InUse {
    fetch: Arc<Fetch>,
    range: Range<u64>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut inner = self.fetch.inner.lock();
        if let Some(at) = inner.in_use.iter().position(|range| *range == self.range) {
            inner.in_use.swap_remove(at);
        }
    }
}

struct Task {
    vfs: Weak<Vfs>,
    ino: u64,
    range: Range<u64>,
}

/// All files on their way here, and the threads that fetch ahead of their readers.
pub(super) struct Fetcher {
    files: Mutex<InoMap<Arc<Fetch>>>,
    tasks: OnceLock<Option<Sender<Task>>>,
    started: Instant,
    last_warning: AtomicU64,
}

impl Fetcher {
    pub(super) fn new() -> Self {
        Self {
            files: Mutex::default(),
            tasks: OnceLock::new(),
            started: Instant::now(),
            last_warning: AtomicU64::new(0),
        }
    }

    /// Parts of it are here.
    pub(super) fn is_partial(&self, ino: u64) -> bool {
        self.files.lock().contains_key(&ino)
    }

    pub(super) fn partial(&self) -> Vec<u64> {
        self.files.lock().keys().copied().collect()
    }

    /// Forgets what has arrived; a fetch under way comes to nothing.
    pub(super) fn discard(&self, ino: u64) {
        let fetch = self.files.lock().remove(&ino);
        if let Some(fetch) = fetch {
            fetch.inner.lock().discarded = true;
            fetch.arrived.notify_all();
        }
    }

    fn warn(&self, ino: u64, error: &VfsError) {
        let now = self.started.elapsed().as_millis() as u64 + WARN_MILLIS;
        let last = self.last_warning.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= WARN_MILLIS
            && self.last_warning.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::warn!(ino, %error, "a file could not be read from the mesh");
        }
    }

    fn tasks(&self) -> Option<&Sender<Task>> {
        self.tasks
            .get_or_init(|| {
                let (sender, receiver) = bounded::<Task>(PREFETCH_QUEUE);
                let started = (0..PREFETCH_THREADS).filter(|n| start_prefetcher(*n, receiver.clone()));
                (started.count() > 0).then_some(sender)
            })
            .as_ref()
    }
}

/// The thread ends when the filesystem, which has the only sender, is gone.
fn start_prefetcher(number: usize, tasks: Receiver<Task>) -> bool {
    let work = move || {
        for Task { vfs, ino, range } in tasks {
            if let Some(vfs) = vfs.upgrade() {
                // Whoever reads there gets the error.
                let ended = panics::caught(|| vfs.ensure(ino, range).is_ok());
                if let Err(text) = ended {
                    tracing::error!(ino, text, "fetching ahead of a reader panicked");
                }
            }
        }
    };
    std::thread::Builder::new().name(format!("hn-prefetch-{number}")).spawn(work).is_ok()
}

impl Vfs {
    /// The fetch of a file that is not wholly here; `None` when it is.
    fn fetch_of(&self, ino: u64) -> Result<Option<Arc<Fetch>>> {
        self.run(|state| {
            let node = state.node(ino)?;
            if node.local() != Local::Absent {
                return Ok(None);
            }
            let content = match node.remote.as_deref() {
                Some(content) => content.clone(),
                None => return Err(VfsError::Damaged(format!("inode {ino} is neither here nor on the mesh")).into()),
            };
            let size = node.size;
            let fetch = self
                .fetcher
                .files
                .lock()
                .entry(ino)
                .or_insert_with(|| {
                    let inner = Mutex::new(Inner { window: READAHEAD_MIN as u64, ..Inner::default() });
                    Arc::new(Fetch { content, size, inner, arrived: Condvar::new() })
                })
                .clone();
            Ok(Some(fetch))
        })
    }

    /// Has a file that is wholly here, and is to hold this, keep the `size` bytes that it holds: its content begins with them. The
    /// rest is claimed for whoever gets the [`Growth`].
    pub(super) fn begin_growth(&self, ino: u64, content: &Content, size: u64) -> Growth {
        let claim = Arc::new(Claim { range: size..content.size(), result: OnceLock::new() });
        let inner = Inner {
            prepared: Prepared::Begun,
            present: Ranges::from(0..size),
            claims: vec![claim.clone()],
            // All of it, until all is here: in passthrough there is no other backing file for whoever has it open.
            in_use: std::iter::once(0..content.size()).collect(),
            window: READAHEAD_MIN as u64,
            ..Inner::default()
        };
        let inner = Mutex::new(inner);
        let fetch = Arc::new(Fetch { content: content.clone(), size: content.size(), inner, arrived: Condvar::new() });
        self.fetcher.discard(ino);
        self.fetcher.files.lock().insert(ino, fetch.clone());
        Growth { ino, claimed: Claimed { fetch, claim } }
    }

    /// Adds what a file has grown by, which has come from the mesh.
    pub(super) fn grow(&self, growth: &Growth, extents: &[(u64, Bytes)]) -> Result<()> {
        let Growth { ino, claimed: Claimed { fetch, claim } } = growth;
        let result = self.put(*ino, fetch, claim.range.clone(), extents);
        growth.claimed.end(result.clone());
        result?;
        self.ensure(*ino, claim.range.clone())
    }

    /// Returns when this range of the file is here.
    pub(super) fn ensure(&self, ino: u64, range: Range<u64>) -> Result<()> {
        let Some(fetch) = self.fetch_of(ino)? else { return Ok(()) };
        let range = range.start..range.end.min(fetch.size);
        loop {
            let mut inner = fetch.inner.lock();
            if inner.discarded {
                return Ok(());
            }
            let gap = inner.present.gap(range.clone());
            let whole = inner.present.gap(0..fetch.size).is_none();
            let Some(gap) = gap else {
                drop(inner);
                if whole && !self.arrived(ino, &fetch)? {
                    // Part of it was given up in between.
                    continue;
                }
                return Ok(());
            };
            if let Some((when, range, error)) = &inner.failed
                && range.contains(&gap.start)
                && when.elapsed() < self.config.failed_for
            {
                return Err(error.clone());
            }
            patience::check(Wait::Mesh)?;
            if let Some(claim) = inner.claims.iter().find(|claim| claim.range.contains(&gap.start)).cloned() {
                while claim.result.get().is_none() && !inner.discarded {
                    fetch.arrived.wait(&mut inner);
                }
                if let Some(Err(error)) = claim.result.get() {
                    return Err(error.clone());
                }
                continue;
            }
            let claim = Arc::new(Claim { range: fetch.claim(&inner, &gap), result: OnceLock::new() });
            inner.claims.push(claim.clone());
            drop(inner);
            let claimed = Claimed { fetch: fetch.clone(), claim };
            let range = claimed.claim.range.clone();
            let extents = self.remote.read(&fetch.content, range.clone()).map_err(VfsError::from);
            let result = extents.and_then(|extents| self.put(ino, &fetch, range, &extents));
            if let Err(error) = &result {
                self.fetcher.warn(ino, error);
            }
            claimed.end(result.clone());
            result?;
        }
    }

    /// Returns when this range of the file is here, to stay for as long as what it returns.
    pub(super) fn ensure_in_use(&self, ino: u64, range: Range<u64>) -> Result<Option<InUse>> {
        let Some(fetch) = self.fetch_of(ino)? else { return Ok(None) };
        fetch.inner.lock().in_use.push(range.clone());
        let in_use = InUse { fetch, range: range.clone() };
        self.ensure(ino, range)?;
        Ok(Some(in_use))
    }

    /// Reads a range from the mesh into the beginning of `buf` and keeps nothing of it: the local disk is full.
    pub(super) fn read_past(&self, ino: u64, range: Range<u64>, buf: &mut [u8]) -> Result<usize> {
        let Some(fetch) = self.fetch_of(ino)? else { return Err(VfsError::NoSpace) };
        patience::check(Wait::Mesh)?;
        let wanted = (range.end - range.start) as usize;
        let buf = &mut buf[..wanted];
        buf.fill(0);
        for (at, bytes) in self.remote.read(&fetch.content, range.clone())? {
            // What comes along on either side is not asked for.
            let skip = range.start.saturating_sub(at) as usize;
            let to = at.saturating_sub(range.start) as usize;
            if let (Some(bytes), Some(buf)) = (bytes.get(skip..), buf.get_mut(to..)) {
                let len = bytes.len().min(buf.len());
                buf[..len].copy_from_slice(&bytes[..len]);
            }
        }
        Ok(wanted)
    }

    /// Gives up parts of a file that has not all arrived, of about as many bytes; those that are in use or were fetched
    /// ahead of a reader stay. Returns how many it were.
    pub(super) fn shed(&self, ino: u64, bytes: u64) -> Result<u64> {
        let Some(fetch) = self.fetcher.files.lock().get(&ino).cloned() else { return Ok(0) };
        let mut inner = fetch.inner.lock();
        if inner.discarded || inner.prepared != Prepared::Whole {
            return Ok(0);
        }
        let mut unused = inner.present.clone();
        for range in &inner.in_use {
            unused.remove(range.clone());
        }
        unused.remove(inner.last_end.saturating_sub(NEAR)..inner.ahead.max(inner.last_end));
        let Some(file) = self.backing.get(ino)? else { return Ok(0) };
        let mut shed = 0;
        for range in unused.iter() {
            // Only whole blocks leave the disk.
            let (mut at, end) = (range.start.next_multiple_of(BLOCK), range.end / BLOCK * BLOCK);
            while shed < bytes
                && let Some(piece) = next_data(&file, at..end)?
            {
                let stop = piece.end.min(piece.start.saturating_add((bytes - shed).next_multiple_of(BLOCK)));
                inner.present.remove(piece.start..stop);
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&*file, mode, piece.start, stop - piece.start).map_err(io::Error::from)?;
                shed += stop - piece.start;
                at = stop;
            }
        }
        Ok(shed)
    }

    /// Writes a range, which has come from the mesh, to the backing file.
    fn put(&self, ino: u64, fetch: &Fetch, range: Range<u64>, extents: &[(u64, Bytes)]) -> Result<()> {
        // Until it is on stable storage that nothing of the file is here, what is in its backing file may be needed.
        let absent = self.run(|state| state.node(ino).map(|node| node.needs))?;
        self.commit_through(absent)?;
        let mut inner = fetch.inner.lock();
        if inner.discarded {
            return Ok(());
        }
        let file = match inner.prepared {
            Prepared::No => {
                let file = self.backing.fresh(ino)?;
                file.set_len(fetch.size)?;
                inner.prepared = Prepared::Whole;
                file
            }
            Prepared::Begun | Prepared::Whole => self
                .backing
                .get(ino)?
                .ok_or_else(|| VfsError::Local(format!("the backing file of inode {ino} is gone")))?,
        };
        let before = inner.present.len();
        for (at, bytes) in extents {
            let at = *at;
            let end = at.checked_add(bytes.len() as u64).filter(|end| *end <= fetch.size);
            let end = end.ok_or_else(|| VfsError::Damaged(format!("inode {ino}: an extent past its end")))?;
            while let Some(gap) = inner.present.gap(at..end) {
                file.write_all_at(&bytes[(gap.start - at) as usize..(gap.end - at) as usize], gap.start)?;
                inner.present.insert(gap);
            }
        }
        self.gauge.add(inner.present.len() - before);
        if inner.prepared == Prepared::Begun {
            // Only now: whoever reads past us must not find zeros where something is to come.
            file.set_len(fetch.size)?;
            inner.prepared = Prepared::Whole;
        }
        // Holes, too.
        inner.present.insert(range);
        Ok(())
    }

    /// All of it is here: from now on the backing file is all there is to it. False when it is not any more.
    fn arrived(&self, ino: u64, fetch: &Arc<Fetch>) -> Result<bool> {
        self.run(|state| {
            state.node(ino)?;
            let mut files = self.fetcher.files.lock();
            if !files.get(&ino).is_some_and(|current| Arc::ptr_eq(current, fetch)) {
                return Ok(true);
            }
            let mut inner = fetch.inner.lock();
            if inner.present.gap(0..fetch.size).is_some() {
                return Ok(false);
            }
            // Only by whoever is first: what it sees of the backing file is what it is compared with later.
            let node = state.node_mut(ino)?;
            self.backing.set_times(ino, node.atime(), node.mtime()).map_err(VfsError::from)?;
            if node.local() == Local::Absent
                && let Some(stat) = self.backing.stat(ino).map_err(VfsError::from)?
            {
                node.set_local(Local::Clean { size: stat.size, ctime: stat.ctime });
                if let Some(open) = node.open.as_mut() {
                    open.seen = Some(stat);
                }
                state.unsynced.insert(ino);
                state.queue(ino);
            }
            // Whoever still fetches a part of it comes too late, and whoever waits for that need not.
            inner.discarded = true;
            fetch.arrived.notify_all();
            files.remove(&ino);
            Ok(true)
        })
    }

    /// Fetches ahead of a sequential reader that is done with `range`.
    pub(super) fn read_ahead(&self, ino: u64, range: Range<u64>) {
        let Some(fetch) = self.fetcher.files.lock().get(&ino).cloned() else { return };
        if fetch.size <= FETCH_WHOLE_MAX as u64 {
            return;
        }
        let mut wanted = Vec::new();
        {
            let mut inner = fetch.inner.lock();
            if range.start.abs_diff(inner.last_end) <= NEAR {
                inner.window = (inner.window * 2).min(READAHEAD_MAX as u64);
            } else {
                inner.window = READAHEAD_MIN as u64;
                inner.ahead = range.end;
            }
            inner.last_end = range.end;
            inner.ahead = inner.ahead.max(range.end);
            let until = (range.end + inner.window).min(fetch.size);
            let step = (inner.window / 2).clamp(READAHEAD_MIN as u64, PREFETCH_CHUNK as u64);
            while inner.ahead < until {
                let end = (inner.ahead + step).min(fetch.size);
                wanted.push(inner.ahead..end);
                inner.ahead = end;
            }
        }
        let Some(tasks) = self.fetcher.tasks() else { return };
        for range in wanted {
            if tasks.try_send(Task { vfs: self.me.clone(), ino, range: range.clone() }).is_err() {
                // The threads are busy: the next read asks again from here.
                let mut inner = fetch.inner.lock();
                inner.ahead = inner.ahead.min(range.start);
                return;
            }
        }
    }

    /// Returns when the whole file is here.
    pub(super) fn hydrate(&self, ino: u64) -> Result<()> {
        let Some(fetch) = self.fetch_of(ino)? else { return Ok(()) };
        fetch.inner.lock().in_use.push(0..fetch.size);
        let _stays = InUse { range: 0..fetch.size, fetch: fetch.clone() };
        let mut at = 0;
        while at < fetch.size {
            patience::check(Wait::Mesh)?;
            // A hole can be as long as it likes.
            let data = self.remote.seek(&fetch.content, at, Stretch::Data)?.unwrap_or(fetch.size).min(fetch.size);
            if data > at {
                self.ensure(ino, at..data)?;
                at = data;
                continue;
            }
            let end = (at + PREFETCH_CHUNK as u64).min(fetch.size);
            self.ensure(ino, at..end)?;
            self.read_ahead(ino, at..end);
            at = end;
        }
        // Of an empty file too the end must be noticed.
        self.ensure(ino, 0..fetch.size)
    }
}

/// The next data of a backing file in this range.
pub(super) fn next_data(file: &File, range: Range<u64>) -> Result<Option<Range<u64>>> {
    if range.start >= range.end {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(range.start)) {
        Ok(start) if start < range.end => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start)).map_err(io::Error::from)?;
            Ok(Some(start..end.min(range.end)))
        }
        Ok(_) | Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

impl Fetch {
    /// What the first to miss `gap` fetches.
    fn claim(&self, inner: &Inner, gap: &Range<u64>) -> Range<u64> {
        if inner.prepared == Prepared::Begun {
            // From where it ends: a part farther on would leave zeros before it for whoever reads past us.
            return inner.present.gap(0..self.size).unwrap_or(gap.clone());
        }
        let untouched = inner.claims.is_empty() && inner.present.gap(0..self.size) == Some(0..self.size);
        if self.size <= FETCH_WHOLE_MAX as u64 && untouched {
            return 0..self.size;
        }
        let want = gap.end.max(gap.start + READAHEAD_MIN as u64).min(self.size);
        let gap = inner.present.gap(gap.start..want).unwrap_or(gap.clone());
        let next = inner.claims.iter().map(|claim| claim.range.start).filter(|start| *start > gap.start).min();
        gap.start..next.map_or(gap.end, |next| gap.end.min(next))
    }
}

//! The one thread that changes anything: takes whatever waits, writes the bodies, flushes each pack once, commits
//! once, and only then tells anybody.
//!
//! A batch that fails leaves no trace: its rows are rolled back, its bytes cut off, and its place in the pack is not
//! used again, because nobody can say what of a failed flush has reached the disk.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use hypernet_core::id::{RecordKey, ShardId};
use hypernet_core::lease::{Lease, LeaseKey};
use hypernet_core::limits::{LEASES_PER_SHARD_MAX, RECORDS_STORED_MAX, SHARD_MAX, STORE_BATCH_BYTES, STORE_BATCH_OPS};
use hypernet_core::port::{Durability, StoreFault, StoreReply};
use hypernet_core::quota::{Depositor, Quota, Used};
use hypernet_core::time::UnixSeconds;
use rusqlite::{OptionalExtension, Transaction, params};

use super::packs::{Packs, Span, room, sums};
use super::recovery::{Found, Tail};
use super::{Done, Job, Shared, Write};
use crate::database::{self, Place};
use crate::error::StoreError;

/// Since when a shard is idle that its owner gave up: before all others.
const GIVEN_UP: UnixSeconds = UnixSeconds(0);

/// Leases that one step of an expiry ends.
const EXPIRE_STEP: usize = 1_024;

pub(super) struct Writer {
    db: database::Writer,
    packs: Arc<Packs>,
    shared: Arc<Shared>,
    tail: Option<Tail>,
    newest: u32,
    pack_max: u64,
    records: u64,
    /// Holes that are punched but still stand in the database.
    punched: bool,
    /// Idle shards were given up because the disk is full.
    has_given: bool,
    /// An expiry that has more to do.
    expiring: Option<UnixSeconds>,
}

/// What a batch changes, until it is committed.
struct Batch<'a> {
    tx: &'a Transaction<'a>,
    place: &'a Place,
    packs: &'a Packs,
    quota: Quota,
    pack_max: u64,
    state: State,
}

/// What of a batch outlives its transaction.
#[derive(Clone, Default)]
struct State {
    used: Used,
    idle: u64,
    count: u64,
    records: u64,
    tail: Option<Tail>,
    newest: u32,
    touched: BTreeSet<u32>,
    created: Vec<u32>,
    holes: Vec<Span>,
    has_given: bool,
    expiring: Option<UnixSeconds>,
}

impl Writer {
    pub(super) fn new(
        db: database::Writer,
        packs: Arc<Packs>,
        shared: Arc<Shared>,
        found: Found,
        pack_max: u64,
    ) -> Self {
        let Found { tail, newest, records, .. } = found;
        Self { db, packs, shared, tail, newest, pack_max, records, punched: false, has_given: false, expiring: None }
    }

    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = match self.expiring.take() {
                Some(before) => Job { write: Write::Expire { before }, done: Box::new(|_| ()) },
                None => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
            let mut bytes = first.write.weight();
            let mut batch = vec![first];
            while bytes < STORE_BATCH_BYTES && batch.len() < STORE_BATCH_OPS {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += job.write.weight();
                batch.push(job);
            }
            let (writes, dones): (Vec<Write>, Vec<Done>) = batch.into_iter().map(|job| (job.write, job.done)).unzip();
            let replies = self.answer(&writes);
            drop(writes);
            self.shared.waiting.fetch_sub(bytes, Ordering::AcqRel);
            for (done, reply) in dones.into_iter().zip(replies) {
                done(reply);
            }
        }
    }

    /// One reply each. On a full disk what needs no space for a body gets a second chance, without the puts and with
    /// the spare space: giving shards up is how space comes back.
    fn answer(&mut self, writes: &[Write]) -> Vec<StoreReply> {
        let all: Vec<&Write> = writes.iter().collect();
        let mut replies = self.commit(&all);
        while std::mem::take(&mut self.has_given) {
            let full: Vec<usize> =
                (0..all.len()).filter(|i| replies[*i] == StoreReply::Failed(StoreFault::Full)).collect();
            let again: Vec<&Write> = full.iter().map(|i| all[*i]).collect();
            for (i, reply) in full.into_iter().zip(self.commit(&again)) {
                replies[i] = reply;
            }
        }
        let rest: Vec<usize> = (0..all.len()).filter(|i| !matches!(all[*i], Write::Put { .. })).collect();
        if rest.iter().any(|i| replies[*i] == StoreReply::Failed(StoreFault::Full)) {
            self.db.use_spare();
            let again: Vec<&Write> = rest.iter().map(|i| all[*i]).collect();
            for (i, reply) in rest.into_iter().zip(self.commit(&again)) {
                replies[i] = reply;
            }
        }
        if replies.iter().all(|reply| *reply != StoreReply::Failed(StoreFault::Full)) {
            self.db.restore_spare();
        }
        replies
    }

    /// Does all of it, or none; one reply each.
    fn commit(&mut self, writes: &[&Write]) -> Vec<StoreReply> {
        let before = State {
            used: *self.shared.used.lock(),
            idle: self.shared.idle.load(Ordering::Acquire),
            count: self.shared.count.load(Ordering::Acquire),
            records: self.records,
            tail: self.tail,
            newest: self.newest,
            ..State::default()
        };
        let (packs, place) = (Arc::clone(&self.packs), self.db.place().clone());
        let (quota, pack_max, punched) = (*self.shared.quota.lock(), self.pack_max, self.punched);
        // Outside of the transaction, so that a failed one can be cleared up after.
        let mut state = before.clone();
        let committed = self.db.commit(Durability::Power, |tx| {
            let mut batch =
                Batch { tx, place: &place, packs: &packs, quota, pack_max, state: std::mem::take(&mut state) };
            let outcome = batch.all(writes, punched);
            state = batch.state;
            outcome
        });
        match committed {
            Ok(outcomes) => {
                self.accept(state, &place);
                let used = *self.shared.used.lock();
                let reply = |outcome| match outcome {
                    Ok(Answer::Done) => StoreReply::Done { used },
                    Ok(Answer::Released(freed)) => StoreReply::Released { used, freed },
                    Ok(Answer::Renewed(held)) => StoreReply::Renewed { used, held },
                    Err(fault) => StoreReply::Failed(fault),
                };
                outcomes.into_iter().map(reply).collect()
            }
            Err(error) => {
                tracing::error!(%error, hint = error.hint(), "the shard store cannot write");
                self.undo(&before, &state);
                let fault = StoreFault::from(error);
                writes.iter().map(|_| StoreReply::Failed(fault.clone())).collect()
            }
        }
    }

    /// The batch is durable: give back what it released.
    fn accept(&mut self, state: State, place: &Place) {
        *self.shared.used.lock() = state.used;
        self.shared.idle.store(state.idle, Ordering::Release);
        self.shared.count.store(state.count, Ordering::Release);
        (self.tail, self.newest, self.records) = (state.tail, state.newest, state.records);
        self.expiring = state.expiring.or(self.expiring);
        self.has_given = state.has_given;
        self.punched = !state.holes.is_empty();
        let mut packs: BTreeSet<u32> = BTreeSet::new();
        for hole in &state.holes {
            packs.insert(hole.pack);
            self.packs.punch(*hole);
        }
        packs.retain(|pack| self.tail.is_none_or(|tail| tail.pack != *pack));
        for pack in packs {
            let empty = self.db.commit(Durability::Process, |tx| {
                let held = tx
                    .prepare_cached("SELECT 1 FROM shards WHERE pack = ?1 LIMIT 1")
                    .and_then(|mut statement| statement.exists([pack]));
                held.map(|held| !held).map_err(|e| place.error(&e))
            });
            let removed = empty.and_then(|empty| match empty {
                true => self.packs.remove(pack).map_err(|e| StoreError::io(&self.packs.path(pack), e)),
                false => Ok(()),
            });
            if let Err(error) = removed {
                tracing::warn!(%error, "a pack without shards stays until the next start");
            }
        }
    }

    /// The batch has failed: cut its bytes off, and write elsewhere from now on.
    fn undo(&mut self, before: &State, after: &State) {
        self.newest = after.newest.max(before.newest);
        self.tail = None;
        for pack in &after.created {
            if let Err(error) = self.packs.remove(*pack) {
                tracing::warn!(%error, pack, "a pack without shards stays until the next start");
            }
        }
        if let Some(tail) = before.tail
            && after.touched.contains(&tail.pack)
            && let Err(error) = self.packs.truncate(tail.pack, tail.len)
        {
            tracing::warn!(%error, pack = tail.pack, "dead bytes stay until the next start");
        }
    }
}

/// What was done.
enum Answer {
    Done,
    /// What nobody has a lease of any more since.
    Released(Used),
    /// Which of the shards are here, and leased.
    Renewed(Vec<bool>),
}

type Outcome = Result<Answer, StoreFault>;

/// A shard that is here.
#[derive(Clone, Copy)]
struct Held {
    at: Span,
    is_damaged: bool,
    is_idle: bool,
    depositor: Depositor,
}

impl Batch<'_> {
    fn all(&mut self, writes: &[&Write], punched: bool) -> Result<Vec<Outcome>, StoreError> {
        if punched {
            self.execute("DELETE FROM holes", [])?;
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            outcomes.push(match write {
                Write::Put { shard, lease, body, depositor } => self.put(shard, lease, body, *depositor)?,
                Write::Renew { leases, depositor, most } => Ok(Answer::Renewed(self.renew(leases, *depositor, *most)?)),
                Write::Release { leases } => self.release_all(leases)?,
                Write::PutRecord { key, bytes } => self.put_record(key, bytes)?,
                Write::ForgetRecord { key } => self.forget_record(key)?,
                Write::Damaged { shard, at } => {
                    self.damaged(shard, *at)?;
                    Err(StoreFault::Damaged)
                }
                Write::Expire { before } => self.expire(*before)?,
            });
        }
        for pack in &self.state.touched {
            let io = |e| StoreError::io(&self.packs.path(*pack), e);
            self.packs.file(*pack).map_err(io)?.sync_data().map_err(io)?;
        }
        if !self.state.created.is_empty() {
            self.packs.sync_names()?;
        }
        Ok(outcomes)
    }

    fn put(
        &mut self,
        shard: &ShardId,
        lease: &Lease,
        body: &Bytes,
        depositor: Depositor,
    ) -> Result<Outcome, StoreError> {
        if body.len() > SHARD_MAX {
            return Ok(Err(StoreFault::Disk(format!("a shard of {} bytes is over the limit", body.len()))));
        }
        let held = self.find(shard)?;
        if let Some(held) = held {
            if !self.may_lease(shard, &lease.key)? {
                return Ok(Err(StoreFault::Full));
            }
            if !self.has_room_again(held, depositor, u64::MAX) {
                return Ok(Err(self.no_room(room(held.at.len))));
            }
        }
        match held {
            // What is listed as good may have rotted, or been cut off, since anybody read it last; to answer for it now
            // is to say that the bytes are here.
            Some(Held { at, is_damaged: false, .. }) if self.is_stored(at, body) => {}
            Some(Held { at: old, is_damaged, is_idle, depositor: before }) => {
                if !is_damaged {
                    tracing::warn!(shard = %shard.short(), pack = old.pack, "a shard that is put again was damaged");
                }
                let Some(at) = self.append(body)? else {
                    self.damaged(shard, old)?;
                    return Ok(Err(StoreFault::Full));
                };
                self.execute(
                    "UPDATE shards SET pack = ?2, offset = ?3, len = ?4, damaged = 0, sums = ?5 WHERE id = ?1",
                    params![shard.as_bytes(), at.pack, at.offset as i64, at.len as i64, sums(body)],
                )?;
                if is_idle {
                    self.state.idle = self.state.idle.saturating_sub(room(old.len)) + room(at.len);
                } else {
                    self.state.used.remove(before, room(old.len));
                    self.state.used.add(before, room(at.len));
                }
                self.hole(old)?;
            }
            None => {
                let needed = room(body.len() as u64);
                if needed > self.quota.room(&self.state.used, depositor) {
                    return Ok(Err(self.no_room(needed)));
                }
                self.make_room(needed)?;
                let Some(at) = self.append(body)? else {
                    // The space comes back when this is committed.
                    self.state.has_given |= self.state.idle > 0;
                    self.give_up_idle(needed)?;
                    return Ok(Err(StoreFault::Full));
                };
                self.execute(
                    "INSERT INTO shards (id, pack, offset, len, damaged, sums, depositor) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)",
                    params![
                        shard.as_bytes(),
                        at.pack,
                        at.offset as i64,
                        at.len as i64,
                        sums(body),
                        depositor.number()
                    ],
                )?;
                self.state.used.add(depositor, room(at.len));
                self.state.count += 1;
            }
        }
        self.lease(shard, lease, depositor)?;
        Ok(Ok(Answer::Done))
    }

    /// Why there is no room for somebody.
    fn no_room(&self, needed: u64) -> StoreFault {
        match needed <= self.quota.room(&self.state.used, Depositor::Known) {
            true => StoreFault::NewcomersFull,
            false => StoreFault::Full,
        }
    }

    /// Whether an idle shard may count again, for whoever wants it now, of whom all have `most` at most.
    fn has_room_again(&self, held: Held, depositor: Depositor, most: u64) -> bool {
        let (used, needed) = (&self.state.used, room(held.at.len));
        let fits = needed <= self.quota.room(used, depositor) && used.of(depositor).saturating_add(needed) <= most;
        !held.is_idle || fits
    }

    /// Somebody has a lease of this shard, which is here. It is kept for the one of all who have a lease who is served first.
    fn lease(&mut self, shard: &ShardId, lease: &Lease, depositor: Depositor) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO leases (shard, key, expires) VALUES (?1, ?2, ?3)
             ON CONFLICT (shard, key) DO UPDATE SET expires = max(expires, excluded.expires)",
            params![shard.as_bytes(), lease.key.0, seconds(lease.expires)],
        )?;
        let Some(held) = self.find(shard)? else { return Ok(()) };
        let bytes = room(held.at.len);
        if held.is_idle {
            self.state.idle = self.state.idle.saturating_sub(bytes);
            self.state.count += 1;
        } else if depositor < held.depositor {
            self.state.used.remove(held.depositor, bytes);
        } else {
            return Ok(());
        }
        self.state.used.add(depositor, bytes);
        self.execute(
            "UPDATE shards SET idle = NULL, depositor = ?2 WHERE id = ?1",
            params![shard.as_bytes(), depositor.number()],
        )?;
        Ok(())
    }

    fn renew(&mut self, leases: &[(ShardId, Lease)], depositor: Depositor, most: u64) -> Result<Vec<bool>, StoreError> {
        let mut renewed = Vec::with_capacity(leases.len());
        for (shard, lease) in leases {
            let fits = |held: &Held| !held.is_damaged && self.has_room_again(*held, depositor, most);
            let may = self.find(shard)?.filter(fits).is_some() && self.may_lease(shard, &lease.key)?;
            if may {
                self.lease(shard, lease, depositor)?;
            }
            renewed.push(may);
        }
        Ok(renewed)
    }

    /// Whether the bytes at `at` are those of `body`. Bytes that cannot be read at all are as good as wrong.
    fn is_stored(&self, at: Span, body: &[u8]) -> bool {
        at.len == body.len() as u64
            && self.packs.read(at.pack, at.offset, body.len()).is_ok_and(|stored| stored == body)
    }

    /// Whether `key` has a lease of this shard, or may have one more.
    fn may_lease(&self, shard: &ShardId, key: &LeaseKey) -> Result<bool, StoreError> {
        let count = "SELECT count(*) FROM leases WHERE shard = ?1 AND key <> ?2";
        let others: i64 = self
            .tx
            .prepare_cached(count)
            .and_then(|mut statement| statement.query_row(params![shard.as_bytes(), key.0], |row| row.get(0)))
            .map_err(|e| self.place.error(&e))?;
        Ok((others as usize) < LEASES_PER_SHARD_MAX)
    }

    /// Writes a body at the end of the newest pack; `None` when the disk is full.
    fn append(&mut self, body: &[u8]) -> Result<Option<Span>, StoreError> {
        let len = body.len() as u64;
        let tail = match self.state.tail {
            Some(tail) if tail.len + len <= self.pack_max => tail,
            _ => {
                let pack = self.state.newest + 1;
                match self.packs.create(pack) {
                    Ok(_) => {}
                    Err(e) => return full(StoreError::io(&self.packs.path(pack), e)),
                }
                self.state.newest = pack;
                self.state.created.push(pack);
                Tail { pack, len: 0 }
            }
        };
        self.state.tail = Some(tail);
        self.state.touched.insert(tail.pack);
        let written = self.packs.file(tail.pack).and_then(|file| file.write_all_at(body, tail.len));
        if let Err(e) = written {
            // What was written of it counts for nothing and must not take up the little that is left.
            if let Err(error) = self.packs.truncate(tail.pack, tail.len) {
                tracing::warn!(%error, pack = tail.pack, "dead bytes stay until the next start");
            }
            return full(StoreError::io(&self.packs.path(tail.pack), e));
        }
        self.state.tail = Some(Tail { pack: tail.pack, len: tail.len + room(len) });
        Ok(Some(Span { pack: tail.pack, offset: tail.len, len }))
    }

    fn release_all(&mut self, leases: &[(ShardId, LeaseKey)]) -> Result<Outcome, StoreError> {
        let mut freed = Used::default();
        for (shard, key) in leases {
            if let Some(held) = self.end_lease(shard, key, GIVEN_UP)? {
                freed.add(held.depositor, room(held.at.len));
            }
        }
        Ok(Ok(Answer::Released(freed)))
    }

    /// Ends a lease, if there is one. When it was the last one, the shard is idle `since` then, and what was given up is that.
    fn end_lease(&mut self, shard: &ShardId, key: &LeaseKey, since: UnixSeconds) -> Result<Option<Held>, StoreError> {
        let removed =
            self.execute("DELETE FROM leases WHERE shard = ?1 AND key = ?2", params![shard.as_bytes(), key.0])?;
        if removed == 0 {
            return Ok(None);
        }
        let idle = self.execute(
            "UPDATE shards SET idle = ?2
             WHERE id = ?1 AND idle IS NULL AND NOT EXISTS (SELECT 1 FROM leases WHERE shard = ?1)",
            params![shard.as_bytes(), seconds(since)],
        )?;
        let given_up = if idle > 0 { self.find(shard)? } else { None };
        if let Some(Held { at, depositor, .. }) = given_up {
            self.state.used.remove(depositor, room(at.len));
            self.state.idle += room(at.len);
            self.state.count = self.state.count.saturating_sub(1);
        }
        Ok(given_up)
    }

    /// Makes room for so many bytes more within the quota, of which idle shards may take up any part.
    fn make_room(&mut self, needed: u64) -> Result<(), StoreError> {
        let taken = self.state.used.total().saturating_add(self.state.idle).saturating_add(needed);
        let over = taken.saturating_sub(self.quota.bytes);
        if over > 0 { self.give_up_idle(over) } else { Ok(()) }
    }

    /// Gives up idle shards that take up so much together, or all there are.
    fn give_up_idle(&mut self, bytes: u64) -> Result<(), StoreError> {
        let goal = self.state.idle.saturating_sub(bytes);
        while self.state.idle > goal {
            let first: Option<([u8; 32], Span)> = self
                .tx
                .prepare_cached(
                    "SELECT id, pack, offset, len FROM shards WHERE idle IS NOT NULL ORDER BY idle, id LIMIT 1",
                )
                .and_then(|mut statement| {
                    let row = |row: &rusqlite::Row<'_>| {
                        let (offset, len) = (row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64);
                        Ok((row.get(0)?, Span { pack: row.get(1)?, offset, len }))
                    };
                    statement.query_row([], row).optional()
                })
                .map_err(|e| self.place.error(&e))?;
            let Some((shard, at)) = first else {
                self.state.idle = 0;
                return Ok(());
            };
            self.execute("DELETE FROM shards WHERE id = ?1", [shard])?;
            self.state.idle = self.state.idle.saturating_sub(room(at.len));
            self.hole(at)?;
        }
        Ok(())
    }

    /// Notes space to give back. It stands in the database until it is done, so that a stop in between loses none.
    fn hole(&mut self, at: Span) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO holes (pack, offset, len) VALUES (?1, ?2, ?3)",
            params![at.pack, at.offset as i64, at.len as i64],
        )?;
        self.state.holes.push(at);
        Ok(())
    }

    fn put_record(&mut self, key: &RecordKey, bytes: &[u8]) -> Result<Outcome, StoreError> {
        let replaced = self.execute("DELETE FROM records WHERE key = ?1", [key.as_bytes()])?;
        self.execute("INSERT INTO records (key, bytes) VALUES (?1, ?2)", params![key.as_bytes(), bytes])?;
        if replaced == 0 {
            self.state.records += 1;
        }
        if self.state.records > RECORDS_STORED_MAX as u64 {
            self.execute("DELETE FROM records WHERE seq = (SELECT min(seq) FROM records)", [])?;
            self.state.records -= 1;
        }
        Ok(Ok(Answer::Done))
    }

    fn forget_record(&mut self, key: &RecordKey) -> Result<Outcome, StoreError> {
        let removed = self.execute("DELETE FROM records WHERE key = ?1", [key.as_bytes()])?;
        self.state.records = self.state.records.saturating_sub(removed as u64);
        Ok(Ok(Answer::Done))
    }

    /// From here on nobody is told that this shard can be had, unless it was put anew since `at` was looked up.
    fn damaged(&mut self, shard: &ShardId, at: Span) -> Result<(), StoreError> {
        self.execute(
            "UPDATE shards SET damaged = 1 WHERE id = ?1 AND pack = ?2 AND offset = ?3 AND damaged = 0",
            params![shard.as_bytes(), at.pack, at.offset as i64],
        )?;
        Ok(())
    }

    fn expire(&mut self, before: UnixSeconds) -> Result<Outcome, StoreError> {
        let sql = "SELECT shard, key, expires FROM leases WHERE expires < ?1 ORDER BY expires LIMIT ?2";
        let over: Vec<([u8; 32], [u8; 32], i64)> = self
            .tx
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                statement.query_map(params![seconds(before), EXPIRE_STEP as i64], row)?.collect()
            })
            .map_err(|e| self.place.error(&e))?;
        for (shard, key, expires) in &over {
            self.end_lease(&ShardId(*shard), &LeaseKey(*key), UnixSeconds(expires.unsigned_abs().max(1)))?;
        }
        if over.len() == EXPIRE_STEP {
            self.state.expiring = Some(before);
        }
        Ok(Ok(Answer::Done))
    }

    /// What is here of a shard.
    fn find(&self, shard: &ShardId) -> Result<Option<Held>, StoreError> {
        self.tx
            .prepare_cached("SELECT pack, offset, len, damaged, idle IS NOT NULL, depositor FROM shards WHERE id = ?1")
            .and_then(|mut statement| {
                let row = statement.query_row([shard.as_bytes()], |row| {
                    let at = Span {
                        pack: row.get(0)?,
                        offset: row.get::<_, i64>(1)? as u64,
                        len: u64::from(row.get::<_, u32>(2)?),
                    };
                    // A number that nobody has written here is no reason to favour anybody.
                    let depositor = Depositor::from_number(row.get(5)?).unwrap_or(Depositor::Newcomer);
                    Ok(Held { at, is_damaged: row.get(3)?, is_idle: row.get(4)?, depositor })
                });
                row.optional()
            })
            .map_err(|e| self.place.error(&e))
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.tx
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|e| self.place.error(&e))
    }
}

/// A time as SQLite keeps it; one beyond its numbers is for ever in any case.
fn seconds(time: UnixSeconds) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// A full disk is the answer to one put; anything else ends the batch.
fn full(error: StoreError) -> Result<Option<Span>, StoreError> {
    match error {
        StoreError::DiskFull { .. } => Ok(None),
        other => Err(other),
    }
}

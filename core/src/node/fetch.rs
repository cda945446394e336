//! Getting extents of one segment back.
//!
//! First the byte ranges that hold them are asked of the rows they lie in: one request for a small extent. What is
//! opened is checked by its tag. Where a holder is gone or slow, the same range is asked of other rows until k rows
//! have it, and the lost ones are computed. Where a tag says that someone sent wrong bytes, whole shards are fetched
//! and checked against their committed hashes, so that the liar is known and left out; so are they where all of a segment
//! is wanted, and nothing is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::peers::{BUSY_PAUSE, Fault, Peers};
use super::{CommandError, CommandId, Context, Outcome, SendFault, Stretch, Timer, Waiter, short};
use crate::erasure;
use crate::id::PeerId;
use crate::limits::READ_BLOCK;
use crate::seal::ExtentRef;
use crate::segment::Placement;
use crate::time::Instant;
use crate::wire::{Refusal, Request, Response};

/// A peer that has a connection and did not answer is asked again after this.
const UNANSWERED_PAUSE: u64 = 1_000;

/// A range of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn covers(self, other: Self) -> bool {
        self.start <= other.start && self.end >= other.end
    }

    fn hull(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A request that is under way.
struct Ask {
    row: u8,
    span: Span,
    since: Instant,
    /// It is late after so many milliseconds.
    patience: u64,
}

struct Piece {
    span: Span,
    bytes: Bytes,
}

/// A row that is not asked for any more.
struct Failed {
    why: String,
    /// Its holder could not be reached: it is asked again if it connects before the end.
    gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Each row is asked for its own bytes.
    Direct,
    /// Lost rows are computed from k others in this range.
    Columns(Span),
    /// All of k rows, checked by hash.
    Verified,
}

pub(super) struct Fetch {
    placement: Arc<Placement>,
    wanted: Vec<(ExtentRef, u32)>,
    need: BTreeMap<u8, Span>,
    around: u32,
    got: BTreeMap<u8, Piece>,
    asked: BTreeMap<u32, Ask>,
    asks: u32,
    holders: BTreeMap<u8, PeerId>,
    slow: BTreeSet<u8>,
    /// Rows whose holder has too much to do or did not answer, and when it is asked again.
    later: BTreeMap<u8, Instant>,
    failed: BTreeMap<u8, Failed>,
    stage: Stage,
    /// All rows of data are wanted, and nothing is opened.
    is_of_rows: bool,
    deadline: Instant,
    within: u64,
}

impl Fetch {
    /// All rows of data.
    pub(super) fn of_rows(context: &Context, placement: Arc<Placement>, within: u64) -> Result<Self, CommandError> {
        let mut fetch = Self::new(context, placement, Vec::new(), 0, within)?;
        let whole = fetch.whole();
        fetch.need = (0..fetch.placement.segment.k).map(|row| (row, whole)).collect();
        (fetch.stage, fetch.is_of_rows) = (Stage::Verified, true);
        Ok(fetch)
    }

    /// The rows of data, when all are there. Those that were computed are checked, too: whoever made the segment may have
    /// committed to rows of different ones.
    fn rows(&self) -> Result<Vec<Bytes>, ()> {
        let committed = self.placement.segment.rows.iter().take(self.k());
        let rows = committed.enumerate().map(|(row, id)| {
            let bytes = &self.got.get(&(row as u8)).ok_or(())?.bytes;
            if blake3::hash(bytes).as_bytes() == id.as_bytes() { Ok(bytes.clone()) } else { Err(()) }
        });
        rows.collect()
    }

    pub(super) fn new(
        context: &Context,
        placement: Arc<Placement>,
        wanted: Vec<(ExtentRef, u32)>,
        around: u32,
        within: u64,
    ) -> Result<Self, CommandError> {
        if !placement.is_sound() {
            return Err(CommandError::Invalid("a placement that cannot be"));
        }
        let segment = &placement.segment;
        let shard_len = segment.shard_len;
        let mut need: BTreeMap<u8, Span> = BTreeMap::new();
        for (extent, offset) in &wanted {
            let end = u64::from(*offset) + u64::from(extent.sealed_len);
            if extent.sealed_len == 0 || end > segment.payload_len() {
                return Err(CommandError::Invalid("an extent beyond its segment"));
            }
            for (row, span) in rows_of(*offset, extent.sealed_len, shard_len) {
                let block = around.max(READ_BLOCK as u32);
                let padded = Span {
                    start: span.start / block * block,
                    end: span.end.div_ceil(block).saturating_mul(block).min(shard_len),
                };
                need.entry(row).and_modify(|all| *all = all.hull(padded)).or_insert(padded);
            }
        }
        let holders = placement.holders.iter().map(|holder| (holder.row, holder.peer)).collect();
        Ok(Self {
            placement,
            wanted,
            need,
            around,
            got: BTreeMap::new(),
            asked: BTreeMap::new(),
            asks: 0,
            holders,
            slow: BTreeSet::new(),
            later: BTreeMap::new(),
            failed: BTreeMap::new(),
            stage: Stage::Direct,
            is_of_rows: false,
            deadline: context.now.mono.after(within),
            within,
        })
    }

    fn k(&self) -> usize {
        usize::from(self.placement.segment.k)
    }

    fn whole(&self) -> Span {
        Span { start: 0, end: self.placement.segment.shard_len }
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        ask: u32,
        peer: PeerId,
        result: Result<Response, SendFault>,
    ) {
        let Some(Ask { row, span, .. }) = self.asked.remove(&ask) else { return };
        self.slow.remove(&row);
        let gone = matches!(result, Err(SendFault::Deadline | SendFault::Unreachable));
        let why = match result {
            Ok(Response::Bytes(bytes)) if bytes.len() == (span.end - span.start) as usize => {
                self.accept(context, peers, row, peer, span, bytes);
                return;
            }
            Ok(Response::Bytes(_)) => {
                peers.fault(context, peer, Fault::Lie);
                "sent another length".to_string()
            }
            Ok(Response::Refused(Refusal::Busy)) => {
                self.later.insert(row, context.now.mono.after(BUSY_PAUSE));
                return;
            }
            Ok(Response::Refused(refusal)) => {
                let owed = self.placement.is_leased(row, context.now.unix);
                match refusal {
                    Refusal::NotFound if owed => peers.fault(context, peer, Fault::Lost),
                    Refusal::Damaged if owed => peers.fault(context, peer, Fault::Damaged),
                    _ => {}
                }
                refusal.to_string()
            }
            Ok(_) => {
                peers.fault(context, peer, Fault::Nonsense);
                "answered something else".to_string()
            }
            // One lost message is no reason to give a row up while there is time.
            Err(_) if gone && peers.is_connected(&peer) => {
                self.later.insert(row, context.now.mono.after(UNANSWERED_PAUSE));
                return;
            }
            Err(fault) => fault.to_string(),
        };
        self.fail(row, peer, &why, gone);
    }

    fn fail(&mut self, row: u8, peer: PeerId, why: &str, gone: bool) {
        self.failed.insert(row, Failed { why: format!("peer {} {why}", peer.short()), gone });
    }

    fn accept(&mut self, context: &mut Context, peers: &mut Peers, row: u8, peer: PeerId, span: Span, bytes: Bytes) {
        if self.stage == Stage::Verified {
            if span != self.whole() {
                return;
            }
            if blake3::hash(&bytes).as_bytes() != self.placement.segment.rows[usize::from(row)].as_bytes() {
                peers.fault(context, peer, Fault::Lie);
                self.fail(row, peer, "sent wrong bytes", false);
                return;
            }
        }
        let larger = self.got.get(&row).is_none_or(|piece| !piece.span.covers(span));
        if larger {
            self.got.insert(row, Piece { span, bytes });
        }
    }

    /// Asks for what is missing; gives the outcome when there is one.
    pub(super) fn drive(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) -> Option<Outcome> {
        let outcome = self.advance(context, peers, command);
        if outcome.is_some() {
            context.disarm(Timer::Fetch(command));
            let mine = |waiter: &Waiter| matches!(waiter, Waiter::Fetch(id, _) if *id == command);
            peers.forget(|waiter| !mine(waiter));
        } else {
            context.arm(Timer::Fetch(command), self.idle(context));
        }
        outcome
    }

    /// Milliseconds until there is something to do though nobody has answered.
    fn idle(&self, context: &Context) -> u64 {
        let due = |at: Instant| at.since(context.now.mono);
        let late = self.asked.values().filter(|ask| !self.slow.contains(&ask.row));
        let late = late.map(|ask| due(ask.since.after(ask.patience)));
        let later = self.later.values().map(|at| due(*at));
        let soonest = late.chain(later).chain([due(self.deadline)]).min();
        // Whom nobody would have asked may be there by then.
        soonest.unwrap_or(0).min(context.config.patience)
    }

    fn advance(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) -> Option<Outcome> {
        loop {
            let now = context.now.mono;
            self.later.retain(|_, at| *at > now);
            let back = |row: &u8| self.holders.get(row).is_some_and(|peer| peers.is_connected(peer));
            self.failed.retain(|row, failed| !(failed.gone && back(row)));
            if self.need.iter().all(|(row, span)| self.has(*row, *span)) {
                let outcome = match self.is_of_rows {
                    true => self.rows().map(Outcome::Rows),
                    false => self.open().map(|plain| Outcome::Fetched { plain, around: self.stretches() }),
                };
                match outcome {
                    Ok(outcome) => return Some(outcome),
                    Err(()) if self.stage != Stage::Verified => {
                        // Someone sent wrong bytes. Begin again with whole shards, which can be checked one by one.
                        self.stage = Stage::Verified;
                        self.got.clear();
                        self.asked.clear();
                        // Nothing is under way any more, so nobody is late: a row that stayed marked would never be
                        // asked again, and no answer would ever clear it.
                        self.slow.clear();
                        peers.forget(|waiter| !matches!(waiter, Waiter::Fetch(id, _) if *id == command));
                        continue;
                    }
                    Err(()) => {
                        let segment = short(&self.placement.segment.id());
                        return Some(Outcome::Failed(CommandError::Damaged { segment }));
                    }
                }
            }
            if now >= self.deadline {
                return Some(Outcome::Failed(CommandError::Deadline {
                    segment: short(&self.placement.segment.id()),
                    seconds: self.within.div_ceil(1000),
                    have: self.got.len().min(self.k()) as u8,
                    need: self.placement.segment.k,
                }));
            }
            for Ask { row, since, patience, .. } in self.asked.values() {
                if now.since(*since) >= *patience
                    && self.slow.insert(*row)
                    && let Some(peer) = self.holders.get(row)
                {
                    peers.slow(context, *peer);
                }
            }
            let column = match self.stage {
                Stage::Verified => self.whole(),
                Stage::Direct | Stage::Columns(_) => {
                    self.ask_directly(context, peers, command);
                    let lost = self.need.iter().filter(|(row, span)| !self.has(**row, **span) && !self.hopeful(**row));
                    let hull = lost.map(|(_, span)| *span).reduce(Span::hull);
                    match (hull, self.stage) {
                        (None, _) => return None,
                        (Some(hull), Stage::Columns(before)) => hull.hull(before),
                        (Some(hull), _) => hull,
                    }
                }
            };
            if self.stage != Stage::Verified {
                self.stage = Stage::Columns(column);
            }
            if self.compute(column) {
                continue;
            }
            return self.ask_others(context, peers, command, column);
        }
    }

    fn has(&self, row: u8, span: Span) -> bool {
        self.got.get(&row).is_some_and(|piece| piece.span.covers(span))
    }

    /// Whether an answer of this row is under way and not overdue.
    fn hopeful(&self, row: u8) -> bool {
        self.under_way(row) && !self.slow.contains(&row)
    }

    fn under_way(&self, row: u8) -> bool {
        self.asked.values().any(|ask| ask.row == row)
    }

    fn ask_directly(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId) {
        let missing: Vec<(u8, Span)> = self
            .need
            .iter()
            .filter(|(row, span)| !self.has(**row, **span) && !self.failed.contains_key(*row))
            .filter(|(row, _)| !self.under_way(**row) && !self.later.contains_key(*row))
            .map(|(row, span)| (*row, *span))
            .collect();
        for (row, span) in missing {
            let gladly = self.holders.get(&row).is_some_and(|peer| peers.reluctance(context, peer) == Some(0));
            if gladly {
                self.ask(context, peers, command, row, span);
            }
        }
    }

    fn ask(&mut self, context: &mut Context, peers: &mut Peers, command: CommandId, row: u8, span: Span) {
        let Some(peer) = self.holders.get(&row).copied() else { return };
        let shard = self.placement.segment.rows[usize::from(row)];
        self.asks += 1;
        let request = Request::Get { shard, offset: span.start, len: span.end - span.start };
        peers.send(context, peer, request, Waiter::Fetch(command, self.asks));
        // However slow its peer, there must be time left for others.
        let patience = peers.patience(context, &peer).min((self.within / 2).max(context.config.patience));
        self.asked.insert(self.asks, Ask { row, span, since: context.now.mono, patience });
    }

    /// Computes the lost rows in `column` when k rows have it.
    fn compute(&mut self, column: Span) -> bool {
        let cut = |piece: &Piece| {
            let start = (column.start - piece.span.start) as usize;
            piece.bytes.slice(start..start + (column.end - column.start) as usize)
        };
        let rows: Vec<(u8, Bytes)> = self
            .got
            .iter()
            .filter(|(_, piece)| piece.span.covers(column))
            .map(|(row, piece)| (*row, cut(piece)))
            .collect();
        if rows.len() < self.k() {
            return false;
        }
        match erasure::reconstruct(self.k(), &rows) {
            Ok(data) => {
                for (row, bytes) in data.into_iter().enumerate() {
                    let row = row as u8;
                    if !self.has(row, column) {
                        self.got.insert(row, Piece { span: column, bytes });
                    }
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Asks further rows for `column`, gladly connected ones first; gives up when nobody is left to ask or wait for.
    fn ask_others(
        &mut self,
        context: &mut Context,
        peers: &mut Peers,
        command: CommandId,
        column: Span,
    ) -> Option<Outcome> {
        let counts = |row: &u8| {
            self.has(*row, column)
                || (!self.slow.contains(row)
                    && self.asked.values().any(|ask| ask.row == *row && ask.span.covers(column)))
        };
        let expected = self.holders.keys().filter(|row| counts(row)).count();
        let mut others: Vec<(u8, u8)> = self
            .holders
            .iter()
            .filter(|(row, _)| !counts(row) && !self.slow.contains(*row) && !self.failed.contains_key(*row))
            .filter(|(row, _)| !self.later.contains_key(*row))
            .filter_map(|(row, peer)| peers.reluctance(context, peer).map(|reluctance| (reluctance, *row)))
            .collect();
        others.sort_unstable();
        for (_, row) in others.into_iter().take(self.k().saturating_sub(expected)) {
            self.ask(context, peers, command, row, column);
        }
        if !self.asked.is_empty() || !self.later.is_empty() {
            return None;
        }
        let have = self.holders.keys().filter(|row| self.has(**row, column)).count();
        let away = |row: &u8| !self.has(*row, column) && !self.failed.contains_key(row);
        let away = self
            .holders
            .iter()
            .filter(|(row, _)| away(row))
            .map(|(_, peer)| format!("peer {} was not to be had a moment ago", peer.short()));
        let failed = self.failed.values().map(|failed| failed.why.clone());
        let mut why: Vec<String> = failed.chain(away).collect();
        why.truncate(3);
        let why = if why.is_empty() { "no other holder is known".to_string() } else { why.join("; ") };
        Some(Outcome::Failed(CommandError::TooFewShards {
            segment: short(&self.placement.segment.id()),
            have: have as u8,
            need: self.placement.segment.k,
            why,
        }))
    }

    fn stretches(&self) -> Vec<Stretch> {
        let rows = self.need.keys().filter(|_| self.around > 0);
        rows.filter_map(|row| self.got.get(row).map(|piece| (*row, piece)))
            .map(|(row, piece)| Stretch { row, start: piece.span.start, bytes: piece.bytes.clone() })
            .collect()
    }

    fn open(&self) -> Result<Vec<Bytes>, ()> {
        self.wanted
            .iter()
            .map(|(extent, offset)| {
                let mut sealed = Vec::with_capacity(extent.sealed_len as usize);
                for (row, span) in rows_of(*offset, extent.sealed_len, self.placement.segment.shard_len) {
                    let piece = self.got.get(&row).filter(|piece| piece.span.covers(span)).ok_or(())?;
                    let start = (span.start - piece.span.start) as usize;
                    sealed.extend_from_slice(&piece.bytes[start..start + (span.end - span.start) as usize]);
                }
                extent.open_vec(sealed).map(Bytes::from).map_err(|_| ())
            })
            .collect()
    }
}

/// The rows that `len` bytes from `offset` of the payload lie in, with the range in each.
fn rows_of(offset: u32, len: u32, shard_len: u32) -> Vec<(u8, Span)> {
    let (mut at, end) = (u64::from(offset), u64::from(offset) + u64::from(len));
    let shard_len = u64::from(shard_len);
    let mut out = Vec::new();
    while at < end {
        let row = at / shard_len;
        let stop = end.min((row + 1) * shard_len);
        out.push((row as u8, Span { start: (at - row * shard_len) as u32, end: (stop - row * shard_len) as u32 }));
        at = stop;
    }
    out
}

//! What people do meanwhile, and what must hold of every end of a command.

use std::collections::BTreeSet;

use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::node::{Command, CommandError, CommandId, Input, Outcome};
use hypernet_core::segment::Placement;
use hypernet_core::time::UnixSeconds;

use super::{EPOCH, Event, Manner, World};
use crate::book::{Task, TaskKind};

/// Leases end so many seconds from now: longer than any clock is off.
const LEASE: u64 = 30 * 86_400;
/// An upload in which nothing moves for so long is given up.
const PATIENCE: u64 = 60_000;
/// An upload that took less time never had to give a peer that may hold a row another one.
const WITHOUT_DESPAIR: u64 = 30_000;
/// A fetch must have ended within this.
const WITHIN: u64 = 30_000;
/// A record counts as acknowledged from so many peers on: fewer may crash together before their disks have it.
const ACKNOWLEDGED_FROM: usize = 6;

impl World {
    /// Starts a command; it must end within `limit`.
    fn start(&mut self, node: usize, kind: TaskKind, command: Command, limit: u64, must: bool) {
        let id = CommandId(self.book.next_command);
        self.book.next_command += 1;
        let (started, deadline, life) = (self.now, self.now + limit, self.hosts[node].life);
        self.book.tasks.insert(id, Task { node, started, deadline, kind, must });
        self.push(0, Event::Input { to: node, life, input: Input::Command { id, command } });
    }

    /// One more thing that someone does.
    pub(super) fn work(&mut self) {
        self.check_overdue();
        if self.quiet {
            return;
        }
        let after = self.random.between(1, 2 * self.config.work_every);
        self.push(after, Event::Work);
        let owner = self.random.index(self.config.owners);
        let someone = self.random.index(self.hosts.len());
        let reader = if self.random.chance(5_000) { owner } else { someone };
        let lots: Vec<usize> = (0..self.book.lots.len()).filter(|i| self.book.lots[*i].placement.is_some()).collect();
        let lot = (!lots.is_empty()).then(|| lots[self.random.index(lots.len())]);
        match (self.random.below(100), lot) {
            (0..25, _) if self.book.lots.len() < self.config.segments_max => self.upload(owner, false),
            (25..35, _) => self.publish(owner, false),
            (35..45, _) => self.look_up(someone, owner, false),
            (45..50, _) => self.republish(someone),
            (50..58, Some(lot)) => self.probe(owner, lot),
            (58..66, Some(lot)) => self.audit(someone, lot),
            (_, Some(lot)) => self.fetch(reader, lot, false),
            _ => {}
        }
    }

    fn upload(&mut self, owner: usize, must: bool) {
        if !self.hosts[owner].up() {
            return;
        }
        let Some(plan) = self.hosts[owner].node.as_ref().and_then(|node| node.plan().ok()) else {
            if must {
                self.violate(|| format!("owner {owner} has no plan though everyone is up"));
            }
            return;
        };
        let made = self.book.make_lot(&mut self.random, owner, (plan.k, plan.n, plan.committed));
        let lot = match made {
            Ok(lot) => lot,
            Err(error) => return self.violate(|| format!("owner {owner} could not make a segment: {error}")),
        };
        let Some(coded) = self.book.lots[lot].coded.clone() else { return };
        let until = UnixSeconds(EPOCH + self.now / 1000 + LEASE);
        let leases = DeviceKeys::new(Secret::new([owner as u8; 32])).lease_secret(&(lot as u128).to_be_bytes());
        // It may move one row per patience, and no slower.
        let limit = (u64::from(plan.n) + 1) * (PATIENCE + 1_000);
        self.start(
            owner,
            TaskKind::Upload { lot },
            Command::Upload { coded, leases, until, patience: PATIENCE },
            limit,
            must,
        );
    }

    fn fetch(&mut self, reader: usize, lot: usize, must: bool) {
        if self.hosts[reader].node.is_none() {
            return;
        }
        let count = self.book.lots[lot].contents.len();
        let extents: Vec<usize> = match self.random.below(3) {
            0 => (0..count).collect(),
            1 => vec![self.random.index(count)],
            _ => (0..count).filter(|_| self.random.chance(4_000)).collect(),
        };
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        let wanted = extents.iter().map(|i| self.book.lots[lot].contents[*i].clone()).collect();
        let within = if must { WITHIN } else { self.random.between(5_000, WITHIN) + 12 * self.config.latency };
        self.start(
            reader,
            TaskKind::Fetch { lot, extents },
            Command::Fetch { placement, wanted, around: 0, within },
            within,
            must,
        );
    }

    fn probe(&mut self, owner: usize, lot: usize) {
        if self.hosts[owner].node.is_none() {
            return;
        }
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        self.start(owner, TaskKind::Probe { lot }, Command::Probe { placement, within: 8_000 }, 8_000, false);
    }

    /// Whoever knows where the shards are can do it.
    fn audit(&mut self, someone: usize, lot: usize) {
        if self.hosts[someone].node.is_none() {
            return;
        }
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        let rows = placement.holders.iter().map(|holder| holder.row).filter(|_| self.random.chance(7_000)).collect();
        let rows: Vec<u8> = rows;
        let mut seed = [0; 32];
        seed.copy_from_slice(&self.random.bytes(32));
        let command = Command::Audit { placement, rows: rows.clone(), seed, within: 12_000 };
        self.start(someone, TaskKind::Audit { lot, rows }, command, 12_000, false);
    }

    fn publish(&mut self, owner: usize, must: bool) {
        if self.hosts[owner].node.is_none() {
            return;
        }
        match self.book.make_record(&mut self.random, owner) {
            Ok(record) => {
                let kind = TaskKind::Publish { owner, record: record.clone() };
                let command = Command::Publish { record, enough: ACKNOWLEDGED_FROM };
                self.start(owner, kind, command, 15_000, must);
            }
            Err(error) => self.violate(|| format!("owner {owner} could not sign: {error}")),
        }
    }

    /// Someone else publishes the newest record that an owner had acknowledged, verbatim.
    fn republish(&mut self, someone: usize) {
        let owner = self.random.index(self.config.owners);
        if let Some(record) = self.book.owners[owner].acknowledged.clone()
            && self.hosts[someone].node.is_some()
        {
            let command = Command::Publish { record, enough: 1 };
            self.start(someone, TaskKind::Republish, command, 15_000, false);
        }
    }

    fn look_up(&mut self, someone: usize, owner: usize, must: bool) {
        if self.hosts[someone].node.is_some() {
            let key = self.book.record_key(owner);
            self.start(someone, TaskKind::Lookup { owner }, Command::Lookup(key), 10_000, must);
        }
    }

    /// After the storm everything that was acknowledged must come back, and everything new must work.
    pub(super) fn demand(&mut self) {
        let honest: Vec<usize> = (0..self.hosts.len()).filter(|i| self.hosts[*i].manner == Manner::Honest).collect();
        for lot in 0..self.book.lots.len() {
            if self.book.lots[lot].placement.is_some() {
                let (owner, reader) = (self.book.lots[lot].owner, honest[self.random.index(honest.len())]);
                self.fetch(owner, lot, true);
                self.fetch(reader, lot, true);
                // A holder reads what it holds a row of. One that lied may have been cut off by those it needs.
                let holders = self.book.lots[lot].placement.iter().flat_map(|placement| &placement.holders);
                let mut holders = holders.filter_map(|holder| self.by_id.get(&holder.peer).copied());
                if let Some(holder) = holders.find(|holder| honest.contains(holder)) {
                    self.fetch(holder, lot, true);
                }
            }
        }
        for owner in 0..self.config.owners {
            let reader = honest[self.random.index(honest.len())];
            self.look_up(reader, owner, true);
            self.upload(owner, true);
            self.publish(owner, true);
        }
    }

    /// A command has ended: it must be one that was open, in time, and with the right outcome.
    pub(super) fn finished(&mut self, at: usize, id: CommandId, outcome: Outcome) {
        let Some(task) = self.book.tasks.remove(&id) else {
            return self.violate(|| format!("node {at} ended {id:?}, which was not open"));
        };
        self.note(6, [at as u64, id.0, self.now - task.started]);
        if task.node != at {
            return self.violate(|| format!("node {at} ended {id:?} of node {}", task.node));
        }
        if self.now > task.deadline {
            let late = self.now - task.deadline;
            self.violate(|| format!("node {at} ended {:?} {late} ms too late", task.kind));
        }
        match (task.kind.clone(), outcome) {
            (TaskKind::Upload { lot }, Outcome::Uploaded(placement)) => self.uploaded(lot, task.started, placement),
            (TaskKind::Upload { .. }, Outcome::Failed(CommandError::NotPlaced { .. })) if !task.must => {
                self.counts.uploads_failed += 1;
            }
            (TaskKind::Fetch { lot, extents }, Outcome::Fetched { plain: bytes, .. }) => {
                self.counts.fetched += 1;
                let expected = extents.iter().map(|i| &self.book.lots[lot].plain[*i]);
                if !expected.eq(bytes.iter()) {
                    self.violate(|| format!("node {at} fetched other bytes than were uploaded"));
                }
            }
            (
                TaskKind::Fetch { lot, .. },
                Outcome::Failed(error @ (CommandError::TooFewShards { .. } | CommandError::Deadline { .. })),
            ) if !task.must => self.fetch_failed(at, lot, &task, &error),
            (TaskKind::Probe { lot }, Outcome::Probed { held, missing, unreachable }) => {
                self.probed(lot, &held, &missing, &unreachable);
            }
            (TaskKind::Audit { lot, rows }, Outcome::Audited { passed, lied, damaged, missing, unreachable }) => {
                let shown = [&passed[..], &lied, &damaged, &missing];
                let mut all = [&shown.concat()[..], &unreachable].concat();
                all.sort_unstable();
                if all != rows {
                    self.violate(|| format!("an audit of segment {lot} is of {all:?} and not of {rows:?}"));
                }
                self.audited(lot, shown);
            }
            (TaskKind::Publish { owner, record }, Outcome::Published { stored }) => {
                self.counts.published += 1;
                let known = &mut self.book.owners[owner].acknowledged;
                if stored >= ACKNOWLEDGED_FROM && known.as_ref().is_none_or(|known| record.replaces(known)) {
                    *known = Some(record);
                }
                if task.must && stored < ACKNOWLEDGED_FROM.min(self.hosts.len() - 1) {
                    self.violate(|| format!("owner {owner} published to {stored} peers only"));
                }
            }
            // A newer one may be here already, or come from the owner meanwhile.
            (TaskKind::Republish, Outcome::Published { .. } | Outcome::Failed(CommandError::Record(_))) => {}
            (TaskKind::Lookup { owner }, Outcome::Found { record: found, .. }) => {
                self.counts.lookups += 1;
                let newest = self.book.owners[owner].acknowledged.clone();
                let older = newest.is_some_and(|newest| found.as_ref().is_none_or(|found| newest.replaces(found)));
                if task.must && older {
                    let found = found.map(|record| record.sequence);
                    self.violate(|| format!("an acknowledged record of owner {owner} is gone, {found:?} was found"));
                }
            }
            (kind, outcome) => {
                let mut text = format!("{outcome:?}");
                text.truncate(300);
                self.violate(|| format!("node {at} ended {kind:?} with {text}"));
            }
        }
    }

    fn uploaded(&mut self, lot: usize, started: u64, placement: Placement) {
        self.counts.uploaded += 1;
        let Some(coded) = self.book.lots[lot].coded.take() else { return };
        let n = self.book.lots[lot].n;
        let mut rows: Vec<u8> = placement.holders.iter().map(|holder| holder.row).collect();
        rows.sort_unstable();
        if placement.segment != coded.segment || placement.n != n || !rows.into_iter().eq(0..n) {
            self.violate(|| format!("the placement of segment {lot} is not what was to be placed"));
        }
        let mut peers: Vec<_> = placement.holders.iter().map(|holder| holder.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        if peers.len() != placement.holders.len() {
            self.violate(|| format!("two rows of segment {lot} are on one peer"));
        }
        // Answers that were lost may leave a row behind that nobody counts, but not beside another one.
        let twice = self.hosts.iter().position(|host| {
            // With k = 1 all rows are equal, and one shard is all of them.
            let rows: BTreeSet<_> = coded.segment.rows.iter().filter(|row| host.disk.has_good(row)).collect();
            host.manner == Manner::Honest && rows.len() > 1
        });
        if let Some(twice) = twice
            && self.now - started < WITHOUT_DESPAIR
            && self.hosts.len() >= 4 * usize::from(n)
        {
            self.violate(|| format!("node {twice} has got two rows of segment {lot} of {n}, and others had none"));
        }
        self.book.lots[lot].placement = Some(placement.into());
        self.check_recoverable();
    }

    /// A fetch may fail only when the network or the disks gave it no k shards.
    fn fetch_failed(&mut self, at: usize, lot: usize, task: &Task, error: &CommandError) {
        self.counts.fetches_failed += 1;
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        let good = placement.holders.iter().filter(|holder| {
            let Some(peer) = self.by_id.get(&holder.peer).copied() else { return false };
            let host = &self.hosts[peer];
            host.manner == Manner::Honest
                && host.disk.has_good(&placement.segment.rows[usize::from(holder.row)])
                && host.trouble < task.started
                && self.reachable(at, peer)
                && !self.network.troubled_since(at, peer, task.started)
        });
        let (good, k) = (good.count(), usize::from(placement.segment.k));
        if self.hosts[at].trouble < task.started && good >= k {
            self.violate(|| {
                format!("node {at} could not fetch segment {lot} ({error}), though {good} of {k} were there")
            });
        }
    }

    /// Nobody passes without the shard, and nobody honest is called a liar or said to lack what it has.
    fn audited(&mut self, lot: usize, [passed, lied, damaged, missing]: [&[u8]; 4]) {
        self.counts.audits += 1;
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        for holder in &placement.holders {
            let Some(host) = self.by_id.get(&holder.peer).map(|i| &self.hosts[*i]) else { continue };
            let kept = host.disk.shards.get(&placement.segment.rows[usize::from(holder.row)]);
            let is_of = |rows: &[u8]| rows.contains(&holder.row);
            let (is_honest, has_none) = (host.manner == Manner::Honest, kept.is_none());
            // What is there may have rotted since, and never mends by itself.
            let is_spoiled = kept.is_none_or(|kept| kept.damaged);
            let is_wrong = is_of(passed) && has_none
                || is_honest && (is_of(lied) || is_of(missing) && !has_none || is_of(damaged) && !is_spoiled);
            self.counts.audits_passed += u64::from(is_of(passed));
            self.counts.audits_failed += u64::from(is_of(lied) || is_of(damaged) || is_of(missing));
            if is_wrong {
                self.violate(|| format!("an audit of segment {lot} is wrong about row {}", holder.row));
            }
        }
    }

    fn probed(&mut self, lot: usize, held: &[u8], missing: &[u8], unreachable: &[u8]) {
        self.counts.probes += 1;
        let Some(placement) = self.book.lots[lot].placement.clone() else { return };
        if held.len() + missing.len() + unreachable.len() != placement.holders.len() {
            self.violate(|| format!("a probe of segment {lot} forgot a row"));
        }
        for holder in &placement.holders {
            let Some(host) = self.by_id.get(&holder.peer).map(|i| &self.hosts[*i]) else { continue };
            let has = host.disk.shards.contains_key(&placement.segment.rows[usize::from(holder.row)]);
            let wrong = if has { missing } else { held };
            if host.manner == Manner::Honest && wrong.contains(&holder.row) {
                self.violate(|| format!("a probe of segment {lot} is wrong about row {}", holder.row));
            }
        }
    }
}

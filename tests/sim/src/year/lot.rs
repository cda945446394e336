//! A segment, as its owner has it written down, and what an agent does about it: upload, audit, renewal, repair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hypernet_core::durability::Plan;
use hypernet_core::erasure;
use hypernet_core::id::{PeerId, ShardId};
use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::lease::LeaseSecret;
use hypernet_core::limits::LEASES_AT_ONCE;
use hypernet_core::node::{Command, CommandError, Outcome};
use hypernet_core::repair::{self, Due, Mending};
use hypernet_core::segment::{Coded, Placement, Segment};
use hypernet_core::time::UnixSeconds;

use super::config::{Sabotage, YearConfig};
use super::mesh::{Manner, Mesh, clocks};
use super::owner::Owner;
use super::report::{Doing, Mended};

/// How long leases run, in seconds, as with the agent.
const LEASE: u64 = 90 * UnixSeconds::DAY;
/// Milliseconds in which an upload moves, or is given up; those of a read, an audit and a renewal.
const PATIENCE: u64 = 20_000;
/// Hours in which every shard is audited.
const ROUND: u64 = 7 * 24;

pub(super) struct Lot {
    pub(super) placement: Placement,
    /// Rows that count before it is mended, as it was planned.
    pub(super) threshold: u8,
    pub(super) plan: Option<Plan>,
    /// Milliseconds at which it was acknowledged.
    pub(super) since: u64,
    /// Rows that its holders were found to lack.
    pub(super) lacking: BTreeSet<u8>,
    /// Rows whose turn in an audit has come, and whose holder was not there.
    unasked: BTreeSet<u8>,
    payload: [u8; 32],
    /// Holders in whose place rows were made, and whether those are only away.
    told: BTreeMap<PeerId, bool>,
    /// The number of its placements.
    pub(super) leases: u64,
    /// It is gone, and that was told.
    pub(super) lost: bool,
}

fn leases(owner: u64, lot: usize, placement: u64) -> LeaseSecret {
    let number = (u128::from(lot as u64) << 64) | u128::from(placement);
    DeviceKeys::new(Secret::new([owner as u8; 32])).lease_secret(&number.to_be_bytes())
}

/// What is on the mesh looks like chance to all but its owner, so chance is what is stored: rows of data and those that
/// follow from them.
fn make(bytes: &[u8], shard_len: u32, (k, n, committed): (u8, u8, u8)) -> Result<Coded, String> {
    let data: Vec<&[u8]> = bytes.chunks(shard_len as usize).collect();
    let parity = erasure::parity(&data, usize::from(committed)).map_err(|error| error.to_string())?;
    let data = data.iter().map(|row| Bytes::copy_from_slice(row));
    let mut shards: Vec<Bytes> = data.chain(parity.into_iter().map(Bytes::from)).collect();
    let rows = shards.iter().map(|shard| ShardId(*blake3::hash(shard).as_bytes())).collect();
    shards.truncate(usize::from(n));
    Ok(Coded { segment: Segment { k, shard_len, rows }, shards, contents: Vec::new() })
}

impl Owner {
    /// Places one segment more; whether that was acknowledged.
    pub(super) fn upload(&mut self, mesh: &mut Mesh, config: &YearConfig) -> Result<bool, String> {
        let plan = self.node.plan().ok();
        let code = config.code.map(|(k, n)| (k, n, n + (n - k).div_ceil(2), n - 1));
        let planned = plan.map(|plan| (plan.k, plan.n, plan.committed, plan.threshold));
        let Some((k, n, committed, threshold)) = code.or(planned) else { return Ok(false) };
        let bytes = mesh.random.bytes(usize::from(k) * config.shard_len as usize);
        let coded = make(&bytes, config.shard_len, (k, n, committed))?;
        let (at, until) = (self.lots.len(), UnixSeconds(clocks(self.clock).unix.0 + LEASE));
        let segment = coded.segment.clone();
        let leases = leases(self.number, at, 0);
        let command = Command::Upload { coded: coded.into(), leases, until, patience: PATIENCE };
        match self.command(mesh, Doing::Upload, command) {
            Outcome::Uploaded(placement) => {
                if placement.segment != segment || placement.holders.len() != usize::from(n) {
                    return Err(format!("owner {}: a placement is not of what was to be placed", self.number));
                }
                let payload = *blake3::hash(&bytes).as_bytes();
                let (lacking, unasked, plan) = (BTreeSet::new(), BTreeSet::new(), plan.filter(|_| code.is_none()));
                let since = self.clock;
                self.lots.push(Lot {
                    placement,
                    threshold,
                    plan,
                    since,
                    lacking,
                    unasked,
                    payload,
                    told: BTreeMap::new(),
                    leases: 1,
                    lost: false,
                });
                Ok(true)
            }
            Outcome::Failed(CommandError::NotPlaced { .. }) => Ok(false),
            other => Err(format!("owner {}: an upload ended with {other:?}", self.number)),
        }
    }

    /// Has holders prove what they have: each segment once a week, and who was away when they are there again.
    pub(super) fn audit(&mut self, mesh: &mut Mesh, config: &YearConfig) -> Result<(), String> {
        let (hour, connected) = (mesh.hour, self.connected_peers());
        for at in 0..self.lots.len() {
            let lot = &mut self.lots[at];
            if (at as u64).wrapping_mul(61) % ROUND == hour % ROUND {
                lot.unasked.extend(lot.placement.holders.iter().map(|holder| holder.row));
            }
            if lot.unasked.is_empty() || lot.lost {
                continue;
            }
            let is_there =
                |row: &u8| lot.placement.holders.iter().any(|at| at.row == *row && connected.contains(&at.peer));
            let rows: Vec<u8> = lot.unasked.iter().copied().filter(is_there).collect();
            if rows.is_empty() {
                continue;
            }
            let mut seed = [0; 32];
            seed.copy_from_slice(&mesh.random.bytes(32));
            let placement = Arc::new(lot.placement.clone());
            let command = Command::Audit { placement, rows, seed, within: PATIENCE };
            match self.command(mesh, Doing::Audit, command) {
                Outcome::Audited { passed, lied, damaged, missing, .. } => {
                    self.audited(mesh, config, at, &passed, &[lied, damaged, missing].concat())?;
                }
                other => return Err(format!("owner {}: an audit ended with {other:?}", self.number)),
            }
        }
        Ok(())
    }

    fn audited(
        &mut self,
        mesh: &Mesh,
        config: &YearConfig,
        at: usize,
        passed: &[u8],
        failed: &[u8],
    ) -> Result<(), String> {
        let now = clocks(self.clock).unix;
        let lot = &mut self.lots[at];
        for holder in &lot.placement.holders {
            let Some(donor) = mesh.of(&holder.peer) else { continue };
            let has = donor.has(&lot.placement.segment.rows[usize::from(holder.row)], now);
            if passed.contains(&holder.row) && !has {
                return Err(format!("owner {}: a holder has proven what it does not have", self.number));
            }
            if failed.contains(&holder.row) && has && donor.is_honest() {
                return Err(format!("owner {}: a holder that is honest was found to lack what it has", self.number));
            }
        }
        self.traffic.passed += passed.len() as u64;
        self.traffic.failed += failed.len() as u64;
        lot.unasked.retain(|row| !passed.contains(row) && !failed.contains(row));
        lot.lacking.retain(|row| !passed.contains(row));
        if config.sabotage != Sabotage::AuditsIgnored {
            lot.lacking.extend(failed);
        }
        Ok(())
    }

    /// Has leases run on that are half over, as many of one holder as may be at once.
    pub(super) fn renew(&mut self, mesh: &mut Mesh) -> Result<(), String> {
        let now = clocks(self.clock).unix;
        let until = UnixSeconds(now.0 + LEASE).end_of_day();
        let connected = self.connected_peers();
        let mut due: BTreeMap<PeerId, Vec<(usize, u8)>> = BTreeMap::new();
        for (at, lot) in self.lots.iter().enumerate() {
            let late = lot.placement.holders.iter().filter(|holder| holder.until.0 < now.0 + LEASE / 2);
            for holder in late.filter(|holder| connected.contains(&holder.peer)) {
                due.entry(holder.peer).or_default().push((at, holder.row));
            }
        }
        for (peer, mut of) in due {
            of.truncate(LEASES_AT_ONCE);
            let lease = |(at, row): &(usize, u8)| {
                let shard = self.lots[*at].placement.segment.rows[usize::from(*row)];
                (shard, leases(self.number, *at, 0).lease(&peer, &shard, until))
            };
            let wanted = of.iter().map(lease).collect();
            let command = Command::Renew { holder: peer, leases: wanted, within: PATIENCE };
            match self.command(mesh, Doing::Renewal, command) {
                Outcome::Renewed(held) => {
                    for ((at, row), held) in of.into_iter().zip(held) {
                        let lot = &mut self.lots[at];
                        match held {
                            true => {
                                let mine = lot.placement.holders.iter_mut().find(|at| at.row == row && at.peer == peer);
                                mine.into_iter().for_each(|holder| holder.until = until);
                            }
                            false => {
                                lot.lacking.insert(row);
                            }
                        }
                    }
                }
                // The next time is early enough.
                Outcome::Failed(CommandError::Lease { .. }) => {}
                other => return Err(format!("owner {}: a renewal ended with {other:?}", self.number)),
            }
        }
        Ok(())
    }

    /// A placement without the rows that were found to be missing.
    fn held(&self, at: usize) -> Placement {
        let lot = &self.lots[at];
        let mut held = lot.placement.clone();
        held.holders.retain(|holder| !lot.lacking.contains(&holder.row));
        held
    }

    /// Looks for segments that are due, and mends them: those first that are nearest to their loss.
    pub(super) fn repair(&mut self, mesh: &mut Mesh, config: &YearConfig, mended: &mut Mended) -> Result<(), String> {
        let known = repair::Mesh::new(&self.node.peers());
        let plan = self.node.plan().ok();
        let mut due: Vec<(u8, usize)> = Vec::new();
        for at in 0..self.lots.len() {
            let counts = known.counted(&self.held(at)).holders.len() as u8;
            let lot = &self.lots[at];
            let (k, n) = (lot.placement.segment.k, lot.placement.n);
            // Nobody says here that they go.
            match repair::due(k, n, counts, 0, plan.as_ref()) {
                Due::Mend(margin) if config.sabotage != Sabotage::RepairAtK || margin == 0 => due.push((margin, at)),
                Due::Mend(_) | Due::Move(_) | Due::No => {}
                Due::Lost => mended.hopeless += 1,
            }
        }
        due.sort_unstable();
        for (_, at) in due {
            self.mend(mesh, at, &known, mended)?;
        }
        Ok(())
    }

    fn mend(&mut self, mesh: &mut Mesh, at: usize, known: &repair::Mesh, mended: &mut Mended) -> Result<(), String> {
        let (placement, held) = (self.lots[at].placement.clone(), self.held(at));
        let left = known.counted(&held);
        let Some(Mending { rows, others, .. }) = repair::mending(&held, known) else {
            mended.failed += 1;
            return Ok(());
        };
        let before = self.traffic.bytes(Doing::Repair);
        let command = Command::Rows { placement: Arc::new(left.clone()), within: PATIENCE };
        let data = match self.command(mesh, Doing::Repair, command) {
            Outcome::Rows(data) => data,
            Outcome::Failed(CommandError::TooFewShards { .. } | CommandError::Deadline { .. }) => {
                mended.failed += 1;
                mended.wasted += self.traffic.bytes(Doing::Repair) - before;
                return Ok(());
            }
            other => return Err(format!("owner {}: a read ended with {other:?}", self.number)),
        };
        if *blake3::hash(&data.concat()).as_bytes() != self.lots[at].payload {
            return Err(format!("owner {}: segment {at} reads as something else than was stored", self.number));
        }
        let shards = repair::remake(&placement.segment, data, &rows).map_err(|error| error.to_string())?;
        let coded = Arc::new(Coded { segment: placement.segment.clone(), shards, contents: Vec::new() });
        let until = UnixSeconds(clocks(self.clock).unix.0 + LEASE);
        let leases = leases(self.number, at, self.lots[at].leases);
        self.lots[at].leases += 1;
        let made = rows.len();
        let command = Command::Mend { coded, rows, others, spared: BTreeSet::new(), leases, until, patience: PATIENCE };
        let new = match self.command(mesh, Doing::Repair, command) {
            Outcome::Uploaded(new) => new,
            Outcome::Failed(CommandError::NotPlaced { .. }) => {
                mended.failed += 1;
                mended.wasted += self.traffic.bytes(Doing::Repair) - before;
                return Ok(());
            }
            other => return Err(format!("owner {}: a repair ended with {other:?}", self.number)),
        };
        let kept: BTreeSet<PeerId> = left.holders.iter().map(|holder| holder.peer).collect();
        let (mut gone, mut lied) = (0, 0);
        let told = &mut self.lots[at].told;
        for holder in placement.holders.iter().filter(|holder| !kept.contains(&holder.peer)) {
            let manner = mesh.of(&holder.peer).map(|donor| donor.manner);
            let is_away = manner == Some(Manner::Honest);
            // Who is away stays in the placement, and may leave for good later.
            match told.insert(holder.peer, is_away) {
                None if is_away => mended.back += 1,
                Some(was_away) if was_away == is_away || is_away => {}
                _ if manner.is_none() => gone += 1,
                _ => lied += 1,
            }
        }
        mended.gone += gone;
        mended.lied += lied;
        mended.times += 1;
        mended.rows += made as u64;
        let lot = &mut self.lots[at];
        let (k, batch) = (f64::from(placement.segment.k), f64::from(placement.n.saturating_sub(lot.threshold).max(1)));
        mended.bare += (gone + lied) as f64 * f64::from(placement.segment.shard_len);
        mended.least += (gone + lied) as f64 * f64::from(placement.segment.shard_len) * (1.0 + k / batch);
        lot.placement = repair::mended(held, new.holders);
        lot.lacking.clear();
        Ok(())
    }

    /// Reads a segment whole; whether it is what was stored.
    pub(super) fn read(&mut self, mesh: &mut Mesh, at: usize) -> Result<bool, String> {
        let mut left = self.lots[at].placement.clone();
        let lacking = self.lots[at].lacking.clone();
        left.holders.retain(|holder| !lacking.contains(&holder.row));
        match self.command(mesh, Doing::Reading, Command::Rows { placement: left.into(), within: PATIENCE }) {
            Outcome::Rows(data) if *blake3::hash(&data.concat()).as_bytes() == self.lots[at].payload => Ok(true),
            Outcome::Failed(CommandError::TooFewShards { .. } | CommandError::Deadline { .. }) => Ok(false),
            _ => Err(format!("owner {}: segment {at} reads as something else than was stored", self.number)),
        }
    }
}

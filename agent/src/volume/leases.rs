//! What this device has leases of: it renews them, and gives up those that nothing needs any more.
//!
//! Each device renews what it has placed itself. What another one has placed, which has not renewed that in time, it takes
//! leases of for itself: so a volume lives for as long as any of its devices does, and nobody can end the leases of somebody
//! else. Devices of whoever owns a volume that others may write to, and of its admins, have leases of all that is in it: what
//! somebody else has placed others may rely on, who have the same content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::codec;
use hypernet_core::id::{PeerId, SegmentId, ShardId};
use hypernet_core::key::Secret;
use hypernet_core::lease::{Lease, LeaseNumber, LeaseSecret, LeaseToken};
use hypernet_core::limits::LEASES_AT_ONCE;
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::segment::{Holder, Placement};
use hypernet_core::share::members::Role;
use hypernet_core::time::UnixSeconds;
use hypernet_store::volume::{LeaseChange, Leased, NewLeases};

use super::census::Enough;
use super::state;
use super::tended::{Tended, Tending as _};
use super::write::{Placed, unix_now};
use super::{LEASE_SECONDS, Volume, damaged};
use crate::driver::outcome;

/// A lease is renewed when it ends in so many seconds: halfway.
const RENEW_BEFORE: u64 = LEASE_SECONDS / 2;
/// What somebody else has placed is leased by this device when its leases end in so many seconds: whoever has placed it has had
/// two weeks for that.
pub(super) const TAKE_BEFORE: u64 = LEASE_SECONDS / 3;
/// Milliseconds in which a holder must have answered.
const ANSWER_WITHIN: u64 = 30_000;
/// Placements that are looked at together: their shards are asked for in as few messages as may be.
const AT_ONCE: u32 = 1_024;

/// What was asked of holders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Renewed {
    /// Shards whose leases run longer now.
    pub(crate) shards: u64,
    /// Messages that it took.
    pub(crate) messages: u64,
    /// Shards that their holders do not have.
    pub(crate) missing: u64,
}

/// Leases of one placement that are asked for.
struct Wanted {
    segment: SegmentId,
    number: LeaseNumber,
    placement: Placement,
}

/// Rows of a segment, each with a holder of it.
pub(super) type Held = BTreeSet<(u8, PeerId)>;

/// Leases that end.
pub(super) struct Ending {
    pub(super) number: LeaseNumber,
    /// With all holders that have them,
    pub(super) placement: Placement,
    /// and those with whom they end.
    pub(super) going: Held,
}

/// Those of a placement.
pub(super) fn held(placement: &Placement) -> Held {
    placement.holders.iter().map(|holder| (holder.row, holder.peer)).collect()
}

fn random<const N: usize>() -> Result<[u8; N], PortError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| PortError::Disk(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// For what is placed by nobody who remembers it, and is put up again where it is missing: it is kept until its leases end.
pub(crate) fn draw_once() -> Result<(LeaseNumber, LeaseSecret), PortError> {
    Ok((random()?, LeaseSecret::new(Secret::new(random()?))))
}

/// When the last lease of a placement ends, in seconds since 1970.
pub(super) fn last_end(placement: &Placement) -> u64 {
    placement.holders.iter().map(|holder| holder.until.0).max().unwrap_or(0)
}

/// When the first lease of a placement ends, in seconds since 1970.
pub(super) fn first_end(placement: &Placement) -> u64 {
    placement.holders.iter().map(|holder| holder.until.0).min().unwrap_or(0)
}

/// Whether those who have leases of it have not renewed them in time.
pub(crate) fn is_forgotten(placement: &Placement, now: u64) -> bool {
    // Those of whoever is gone have ended long ago, and its rows are with others as well.
    let running = placement.holders.iter().map(|holder| holder.until.0).filter(|until| *until >= now);
    running.min().is_none_or(|first| first < now + TAKE_BEFORE)
}

/// How the numbers of leases begin that were taken because somebody else has said where a row is.
const ON_WORD: [u8; 4] = *b"word";

pub(super) fn new_leases<'a>(
    number: LeaseNumber,
    segment: SegmentId,
    placement: &Placement,
    descriptor: &'a [u8],
) -> NewLeases<'a> {
    NewLeases { number, segment, descriptor, until: first_end(placement) }
}

impl Tended<'_> {
    /// A number for a placement of this device, and the secret of its leases.
    pub(crate) fn draw(&self) -> Result<(LeaseNumber, LeaseSecret), PortError> {
        let number = random()?;
        Ok((number, self.device.lease_secret(&number)))
    }

    /// Holders of whom this device has leases of a segment that something needs and that run until after `until`, in seconds since
    /// 1970.
    pub(super) fn leased(&self, id: &SegmentId, until: u64) -> Result<Held, PortError> {
        let mut mine = Held::new();
        for leased in self.db.leases_of(id)?.iter().filter(|leased| leased.gone.is_none()) {
            let mut leased: Placement = codec::decode(&leased.descriptor).map_err(damaged)?;
            leased.holders.retain(|holder| holder.until.0 > until);
            mine.extend(held(&leased));
        }
        Ok(mine)
    }

    /// Of leases those that are needed while the segment is where `there` says: with other holders they keep alive what nobody looks
    /// for. Where a later row of this device has a lease of the same holder that runs, that one is.
    pub(super) fn needed(&self, leased: &Leased, there: &Placement, now: u64) -> Result<Held, PortError> {
        let mine = held(&codec::decode(&leased.descriptor).map_err(damaged)?);
        let mut needed: Held = mine.intersection(&held(there)).copied().collect();
        let later = self.db.leases_of(&leased.segment)?;
        for later in later.iter().filter(|later| later.row > leased.row && later.gone.is_none()) {
            let mut later: Placement = codec::decode(&later.descriptor).map_err(damaged)?;
            later.holders.retain(|holder| holder.until.0 > now);
            needed = &needed - &held(&later);
        }
        Ok(needed)
    }

    /// Takes leases of what others have placed, of those holders of whom this device has none; whether so many of each agree that
    /// it would outlive further losses.
    pub(crate) fn lease_all(&self, segments: Vec<Placement>) -> Result<bool, PortError> {
        Ok(self.take_leases(&segments, Enough::Last, false)?.into_iter().all(|is_kept| is_kept))
    }

    /// Has segments kept for this device, so that nobody else can end that: of each whether so many holders agree that it is `enough`.
    /// Nobody is asked about one of which this device has enough leases.
    pub(super) fn keep(&self, segments: &[Placement], enough: Enough) -> Result<Vec<bool>, PortError> {
        self.take_leases(segments, enough, true)
    }

    fn take_leases(&self, segments: &[Placement], enough: Enough, is_lazy: bool) -> Result<Vec<bool>, PortError> {
        let now = unix_now();
        let mut kept = Vec::with_capacity(segments.len());
        for some in segments.chunks(AT_ONCE as usize) {
            let (mut wanted, mut waiting) = (Vec::new(), Vec::new());
            for placement in some {
                let segment = placement.segment.id();
                let mine = self.leased(&segment, now)?;
                let mut placement = placement.clone();
                let (rows, all) = (usize::from(enough.rows(&placement)), placement.holders.len());
                placement.holders.retain(|holder| !mine.contains(&(holder.row, holder.peer)));
                let lacks = rows.saturating_sub(all - placement.holders.len());
                let is_done = placement.holders.is_empty() || is_lazy && lacks == 0;
                if !is_done {
                    waiting.push((kept.len(), lacks));
                    wanted.push(Wanted { segment, number: random()?, placement });
                }
                kept.push(is_done);
            }
            for ((at, lacks), taken) in waiting.into_iter().zip(self.confirm(wanted)?) {
                kept[at] = taken.holders.len() >= lacks;
            }
        }
        Ok(kept)
    }

    /// Takes leases of these placements, in each of them with those holders that agree: no others are left in what is returned.
    fn confirm(&self, mut wanted: Vec<Wanted>) -> Result<Vec<Placement>, PortError> {
        // What whoever placed them was promised says nothing of this device's leases.
        wanted
            .iter_mut()
            .flat_map(|wanted| &mut wanted.placement.holders)
            .for_each(|holder| holder.until = UnixSeconds(0));
        self.ask_leases(&mut wanted, None)?;
        wanted.iter_mut().for_each(|wanted| wanted.placement.holders.retain(|holder| holder.until.0 > 0));
        let taken: Vec<(&Wanted, Vec<u8>)> = wanted
            .iter()
            .filter(|wanted| !wanted.placement.holders.is_empty())
            .map(|wanted| (wanted, codec::encode(&wanted.placement)))
            .collect();
        let new: Vec<NewLeases<'_>> = taken
            .iter()
            .map(|(wanted, descriptor)| new_leases(wanted.number, wanted.segment, &wanted.placement, descriptor))
            .collect();
        self.db.add_leases(&new)?;
        Ok(wanted.into_iter().map(|wanted| wanted.placement).collect())
    }

    /// How many rows of a segment are where somebody else has said that they are, of those that `there` still names.
    pub(crate) fn on_word(&self, there: &Placement) -> Result<usize, PortError> {
        let mut rows = Held::new();
        for leased in
            self.db.leases_of(&there.segment.id())?.iter().filter(|leased| leased.number.starts_with(&ON_WORD))
        {
            rows.extend(held(&codec::decode(&leased.descriptor).map_err(damaged)?));
        }
        Ok(rows.intersection(&held(there)).count())
    }

    /// Those holders of these placements that have what somebody else says they have, and keep it for this device from now on.
    pub(crate) fn confirmed(&self, placements: Vec<Placement>) -> Result<Vec<Placement>, PortError> {
        let mut all = Vec::with_capacity(placements.len());
        for some in placements.chunks(AT_ONCE as usize) {
            let wanted = some.iter().map(|placement| {
                let (segment, placement) = (placement.segment.id(), placement.clone());
                let mut number: LeaseNumber = random()?;
                number[..ON_WORD.len()].copy_from_slice(&ON_WORD);
                Ok(Wanted { segment, number, placement })
            });
            all.extend(self.confirm(wanted.collect::<Result<_, PortError>>()?)?);
        }
        Ok(all)
    }

    /// Asks the holders of these placements for leases, or to renew those that end before `due`, and notes until when those run
    /// that they give.
    fn ask_leases(&self, wanted: &mut [Wanted], due: Option<u64>) -> Result<Renewed, PortError> {
        let connected = self.peers.connected()?;
        let until = UnixSeconds(unix_now() + LEASE_SECONDS).end_of_day();
        let mut by_holder: BTreeMap<PeerId, Vec<(usize, usize, ShardId, Lease)>> = BTreeMap::new();
        for (at, Wanted { number, placement, .. }) in wanted.iter().enumerate() {
            let secret = self.device.lease_secret(number);
            for (of, holder) in placement.holders.iter().enumerate() {
                if connected.contains(&holder.peer) && due.is_none_or(|due| holder.until.0 < due) {
                    let shard = placement.segment.rows[usize::from(holder.row)];
                    let lease = secret.lease(&holder.peer, &shard, until);
                    by_holder.entry(holder.peer).or_default().push((at, of, shard, lease));
                }
            }
        }
        let mut under_way = Vec::new();
        for (holder, leases) in &by_holder {
            for some in leases.chunks(LEASES_AT_ONCE) {
                let leases = some.iter().map(|(_, _, shard, lease)| (*shard, lease.clone())).collect();
                let command = Command::Renew { holder: *holder, leases, within: ANSWER_WITHIN };
                under_way.push((some, self.node.start(command)));
            }
        }
        let mut renewed = Renewed::default();
        let mut gone: BTreeMap<usize, (Vec<u8>, Vec<u8>)> = BTreeMap::new();
        for (some, asked) in under_way {
            renewed.messages += 1;
            let Outcome::Renewed(held) = outcome(asked) else { continue };
            for ((at, of, _, _), held) in some.iter().zip(held) {
                let holder = &mut wanted[*at].placement.holders[*of];
                let (here, missing) = gone.entry(*at).or_default();
                if held {
                    holder.until = until;
                    here.push(holder.row);
                    renewed.shards += 1;
                } else {
                    missing.push(holder.row);
                    renewed.missing += 1;
                }
            }
        }
        for (at, (held, missing)) in gone {
            // Who refuses a lease to somebody that has none may have given as many as it does of one shard.
            let missing = if due.is_some() { &missing[..] } else { &[] };
            let Wanted { segment, placement, .. } = &wanted[at];
            self.lacking.asked(*segment, placement, &held, missing);
        }
        Ok(renewed)
    }

    /// Renews the leases that are halfway over, and are needed.
    pub(crate) fn renew_due(&self, now: u64) -> Result<Renewed, PortError> {
        let mut all = Renewed::default();
        let mut after = 0;
        loop {
            let rows = self.db.leases_iter(after, AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            after = last.row;
            let due = rows.into_iter().filter(|row| row.gone.is_none() && row.until < now + RENEW_BEFORE);
            let (mut wanted, mut others, mut over) = (Vec::new(), Vec::new(), Vec::new());
            for row in due {
                let mut placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                // What a catalog lies in is in no index, and is never with anybody else.
                let needed = match self.db.segment(&row.segment)? {
                    Some(there) => self.needed(&row, &codec::decode(&there.descriptor).map_err(damaged)?, now)?,
                    None => held(&placement),
                };
                let is_needed = |holder: &Holder| needed.contains(&(holder.row, holder.peer));
                let (renewed, mut rest): (Vec<Holder>, Vec<Holder>) =
                    placement.holders.into_iter().partition(is_needed);
                // Theirs end by themselves: it may be that others count on them.
                rest.retain(|holder| holder.until.0 > now);
                if renewed.is_empty() {
                    over.extend(rest.is_empty().then_some(LeaseChange::Over(row.number)));
                    continue;
                }
                placement.holders = renewed;
                wanted.push(Wanted { segment: row.segment, number: row.number, placement });
                others.push(rest);
            }
            self.db.change_leases(&over)?;
            let renewed = self.ask_leases(&mut wanted, Some(now + RENEW_BEFORE))?;
            all.shards += renewed.shards;
            all.messages += renewed.messages;
            all.missing += renewed.missing;
            if renewed.shards == 0 {
                continue;
            }
            let mut changes = Vec::new();
            let mut moved = Vec::new();
            for (Wanted { segment, number, mut placement }, rest) in wanted.into_iter().zip(others) {
                moved.extend(self.later(segment, &placement)?);
                changes.push(LeaseChange::Renewed(number, first_end(&placement)));
                placement.holders.extend(rest);
                placement.holders.sort_by_key(|holder| (holder.row, holder.peer));
                changes.push(LeaseChange::Held(number, codec::encode(&placement)));
            }
            self.db.change_leases(&changes)?;
            self.db.replace_descriptors(&moved)?;
            let mut cache = self.placements.lock();
            for (segment, descriptor) in &moved {
                cache.put(*segment, Arc::new(codec::decode(descriptor).map_err(damaged)?));
            }
        }
        Ok(all)
    }

    /// Takes leases of those of all segments that are `wanted`, where there are none; whether enough holders agree.
    pub(crate) fn lease_rows(&self, wanted: &dyn Fn(&Placement) -> bool) -> Result<bool, PortError> {
        let mut all_well = true;
        let mut after = 0;
        loop {
            let rows = self.db.segments_iter(after, AT_ONCE)?;
            let Some(last) = rows.last() else { return Ok(all_well) };
            after = last.num;
            let placements = rows.iter().map(|row| codec::decode(&row.descriptor).map_err(damaged));
            let mut placements = placements.collect::<Result<Vec<Placement>, _>>()?;
            placements.retain(wanted);
            all_well &= self.lease_all(placements)?;
        }
    }

    /// A segment's place in the index, with the leases of this device where they run longer.
    fn later(&self, segment: SegmentId, leased: &Placement) -> Result<Option<(SegmentId, Vec<u8>)>, PortError> {
        let Some(row) = self.db.segment(&segment)? else { return Ok(None) };
        let mut placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let mut is_later = false;
        for holder in &mut placement.holders {
            let mine = leased.holders.iter().find(|mine| (mine.row, mine.peer) == (holder.row, holder.peer));
            if let Some(mine) = mine.filter(|mine| mine.until > holder.until) {
                holder.until = mine.until;
                is_later = true;
            }
        }
        Ok(is_later.then(|| (segment, codec::encode(&placement))))
    }

    /// Gives up leases of placements, of which holders that cannot be reached keep theirs until they end or are asked again;
    /// returns bytes of shards that were given up.
    pub(crate) fn end_leases(&self, rows: &[(LeaseNumber, Placement)]) -> Result<u64, PortError> {
        let ending = rows.iter().map(|(number, placement)| Ending {
            number: *number,
            placement: placement.clone(),
            going: held(placement),
        });
        self.end_some(&ending.collect::<Vec<_>>())
    }

    /// The same of some of the holders of each.
    pub(super) fn end_some(&self, rows: &[Ending]) -> Result<u64, PortError> {
        let connected = self.peers.connected()?;
        let mut by_holder: BTreeMap<PeerId, Vec<(usize, u8, ShardId, LeaseToken)>> = BTreeMap::new();
        for (at, Ending { number, placement, going }) in rows.iter().enumerate() {
            let secret = self.device.lease_secret(number);
            let is_going = |holder: &&Holder| going.contains(&(holder.row, holder.peer));
            let there = placement.holders.iter().filter(|holder| connected.contains(&holder.peer));
            for holder in there.filter(is_going) {
                let shard = placement.segment.rows[usize::from(holder.row)];
                let token = secret.token(&holder.peer, &shard);
                by_holder.entry(holder.peer).or_default().push((at, holder.row, shard, token));
            }
        }
        let mut under_way = Vec::new();
        for (holder, tokens) in &by_holder {
            for some in tokens.chunks(LEASES_AT_ONCE) {
                let tokens = some.iter().map(|(_, _, shard, token)| (*shard, *token)).collect();
                let command = Command::Release { holder: *holder, tokens, within: ANSWER_WITHIN };
                under_way.push((*holder, some, self.node.start(command)));
            }
        }
        let mut left: BTreeMap<usize, Placement> = BTreeMap::new();
        let mut bytes = 0;
        for (holder, some, asked) in under_way {
            if outcome(asked) != Outcome::Released {
                continue;
            }
            for (at, row, _, _) in some {
                let placement = left.entry(*at).or_insert_with(|| rows[*at].placement.clone());
                placement.holders.retain(|other| (other.row, other.peer) != (*row, holder));
                bytes += u64::from(placement.segment.shard_len);
            }
        }
        let changes: Vec<LeaseChange> = left
            .into_iter()
            .map(|(at, placement)| match placement.holders.is_empty() {
                true => LeaseChange::Over(rows[at].number),
                false => LeaseChange::Held(rows[at].number, codec::encode(&placement)),
            })
            .collect();
        self.db.change_leases(&changes)?;
        Ok(bytes)
    }
}

impl Volume {
    /// A number for a placement of this device, and the secret of its leases.
    pub(crate) fn draw(&self) -> Result<(LeaseNumber, LeaseSecret), PortError> {
        self.tended().draw()
    }

    /// Writes down that this device has leases of what it has placed.
    pub(super) fn remember_leases(&self, placed: &Placed) -> Result<(), PortError> {
        let descriptor = codec::encode(&placed.placement);
        Ok(self.db.add_leases(&[new_leases(placed.number, placed.id, &placed.placement, &descriptor)])?)
    }

    /// Whether devices were taken off since this one last took leases of all that they may have placed.
    pub(crate) fn has_lost_devices(&self) -> Result<bool, PortError> {
        Ok(state::leased_after(&self.db)? != self.publishers().gone.len() as u64)
    }

    /// Renews the leases of this device that are halfway over, and takes some of what others have not renewed; of all there is when
    /// devices were taken off, who could end those that they have, and always where others may write and this device answers for
    /// the volume. Of what nothing needs any more the leases end by themselves.
    pub(crate) fn renew_leases(&self) -> Result<Renewed, PortError> {
        if self.known_share().is_some() && self.role().is_none() {
            // What was taken while there was a part in it ends by itself.
            return Ok(Renewed::default());
        }
        let now = unix_now();
        let all = self.tended().renew_due(now)?;
        self.take_over_leases(now)?;
        Ok(all)
    }

    /// Takes leases of all that this device's index and catalog have and it has none of; whether enough holders agree.
    pub(super) fn lease_everything(&self) -> Result<bool, PortError> {
        self.lease_those(&|_| true)
    }

    fn lease_those(&self, wanted: &dyn Fn(&Placement) -> bool) -> Result<bool, PortError> {
        let tended = self.tended();
        let all_well = tended.lease_rows(wanted)?;
        // Without its pages nothing of it is found.
        let mut pages = self.catalog_segments(&self.db)?;
        pages.retain(wanted);
        Ok(tended.lease_all(pages)? && all_well)
    }

    /// See [`Self::renew_leases`].
    fn take_over_leases(&self, now: u64) -> Result<(), PortError> {
        let gone = self.publishers().gone.len() as u64;
        let is_revoked = state::leased_after(&self.db)? != gone;
        let takes_all =
            is_revoked && self.may_write().is_ok() || self.share().is_some() && self.role() >= Some(Role::Admin);
        let is_due = |placement: &Placement| takes_all || is_forgotten(placement, now);
        let all_well = self.lease_those(&is_due)?;
        if is_revoked && (all_well || !takes_all) {
            state::put_leased_after(&self.db, gone)?;
        }
        Ok(())
    }
}

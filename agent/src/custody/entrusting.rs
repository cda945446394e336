//! The owner's side: custodians are told where segments are, and what they have moved is taken in.
//!
//! Invariant: what a custodian says of a holder is believed where that holder gives this device a lease of the row, and proves that
//! it has it, and not of a holder that is there and has the row; and only for so many rows of a segment, at any time, that the others
//! are enough. So a custodian that lies wastes requests, and loses nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use hypernet_core::catalog::{Manifest, PLACEMENT_PAGE_ROWS, PageKind, PageRef, PlacementPage, PlacementRow};
use hypernet_core::codec;
use hypernet_core::custody::{Appointment, Tag, Wards};
use hypernet_core::id::PeerId;
use hypernet_core::lease::LeaseNumber;
use hypernet_core::limits::{SEALED_MAX, WARDS_MAX};
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::seal::Kind;
use hypernet_core::segment::{Holder, Placement};
use hypernet_core::time::UnixSeconds;
use hypernet_fs::vfs::Vfs;
use minicbor::{Decode, Encode};

use super::ward::{Moved, read_moves};
use super::{Custodian, named};
use crate::driver::outcome;
use crate::identity::places::{self, At};
use crate::volume::audit;
use crate::volume::progress::Meter;
use crate::volume::state::{self, Latest};
use crate::volume::sync::of_tree;
use crate::volume::tended::Tending as _;
use crate::volume::write::unix_now;
use crate::volume::{Volume, damaged};

/// What was told stays on the mesh for longer than this, in seconds, and is put there again then.
const TOLD_FOR: u64 = 30 * UnixSeconds::DAY;
/// Rows of moves that are taken from one custodian for each segment that there is: more than a segment has.
const MOVES_PER_SEGMENT: usize = 256;
/// Rows of moves that are taken from one custodian before it is known how many segments there are.
const LEARNED_MAX: usize = 1 << 20;
/// Milliseconds in which a holder must have answered.
const ANSWER_WITHIN: u64 = 20_000;
/// Segments of which moves are taken in together.
const AT_ONCE: usize = 64;

/// What one custodian was told last of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Entrusted {
    /// A hash over it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) hash: [u8; 32],
    #[n(1)]
    pub(crate) at: UnixSeconds,
    /// What was placed for it, which is given up when the next has been told.
    #[n(2)]
    pub(crate) placed: Vec<Own>,
    /// The number of the record of moves that was taken in whole.
    #[n(3)]
    pub(crate) heard: u64,
}
hypernet_core::format!(Entrusted, tag = 0x69, version = 1, max = 1 << 20, name = "what a custodian was told");

/// A placement, and by which its leases are known.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Own {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) number: LeaseNumber,
    #[n(1)]
    pub(crate) placement: Placement,
}

fn filed_by(tag: &Tag) -> String {
    format!("custodian-{}", data_encoding::HEXLOWER.encode(&tag.0))
}

fn entrusted(volume: &Volume, tag: &Tag) -> Result<Option<Entrusted>, PortError> {
    // Where it cannot be read, it is told again.
    Ok(volume.db.get_state(&filed_by(tag))?.and_then(|bytes| codec::decode(&bytes).ok()))
}

fn put_entrusted(volume: &Volume, tag: &Tag, entrusted: &Entrusted) -> Result<(), PortError> {
    Ok(volume.db.put_state(&filed_by(tag), &codec::encode(entrusted))?)
}

impl Volume {
    fn custodians(&self) -> Vec<Custodian> {
        named(&self.identity.keystore().keystore().custodians)
    }

    /// Tells all custodians where the segments of this volume are now, as far as its newest head leads to them. Whom it was told
    /// to, by name, and who could not be told. `looks`: whether what they look after is looked at also where nothing has changed.
    pub(crate) fn entrust(&self, looks: bool) -> Result<Vec<(String, PortError)>, PortError> {
        let custodians = self.custodians();
        let Some(latest) = state::latest(&self.db)? else { return Ok(Vec::new()) };
        // What another device has published, that one tells.
        if custodians.is_empty() || latest.head.device != self.device.id() {
            return Ok(Vec::new());
        }
        let peers: BTreeSet<PeerId> = custodians.iter().map(|custodian| custodian.peer).collect();
        let mut troubles = Vec::new();
        for custodian in &custodians {
            match self.entrust_to(&custodian.appointment(), &latest, &peers, looks) {
                Ok(()) => {}
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => troubles.push((custodian.name.clone(), error)),
            }
        }
        Ok(troubles)
    }

    fn entrust_to(
        &self,
        to: &Appointment,
        latest: &Latest,
        custodians: &BTreeSet<PeerId>,
        looks: bool,
    ) -> Result<(), PortError> {
        let tag = to.tag();
        let before = entrusted(self, &tag)?;
        let hash = *blake3::hash(&codec::encode(&latest.head)).as_bytes();
        let now = unix_now();
        let is_told =
            |told: &Entrusted| told.hash == hash && (told.at.0..told.at.0.saturating_add(TOLD_FOR)).contains(&now);
        let is_told = before.as_ref().is_some_and(is_told);
        if looks || !is_told {
            // Another device, or whoever has removed it in between, may have put up a list without this volume.
            self.list_ward(to, custodians)?;
        }
        if is_told {
            return Ok(());
        }
        let mut placed = Vec::new();
        if let Err(error) = self.tell_log(to, latest, &mut placed) {
            self.untell(placed)?;
            return Err(error);
        }
        let heard = before.as_ref().map_or(0, |before| before.heard);
        put_entrusted(self, &tag, &Entrusted { hash, at: UnixSeconds(now), placed, heard })?;
        // Whoever was reading the last one begins again with this one.
        self.untell(before.into_iter().flat_map(|before| before.placed).collect())
    }

    fn untell(&self, placed: Vec<Own>) -> Result<(), PortError> {
        let over: Vec<(LeaseNumber, Placement)> = placed.into_iter().map(|own| (own.number, own.placement)).collect();
        self.tended().end_leases(&over).map(drop)
    }

    /// Puts the log up; what is placed for it is in `placed` however this ends.
    fn tell_log(&self, to: &Appointment, latest: &Latest, placed: &mut Vec<Own>) -> Result<(), PortError> {
        let manifest = self.log_of(latest, placed)?;
        let place = to.log(&to.ward(&self.id, &self.device.id()));
        let number = self.peers.lookup(place.record_key())?.map_or(0, |record| record.sequence);
        let bytes = codec::encode(&manifest);
        if bytes.len() > SEALED_MAX {
            return Err(damaged("the catalog of this volume is larger than a custodian can be told"));
        }
        let draw = || self.draw();
        let (record, whole) = places::put_drawn(&self.peers, &place, &place.sealing_key(), bytes, number, &draw)?;
        placed.extend(whole.map(|placed| Own { number: placed.number, placement: placed.placement }));
        self.peers.publish(record, self.peers.keepers(), "what a custodian is told")
    }

    /// What leads to all pages of the placement log, and to a page more for what the catalog itself lies in; and what was placed
    /// for that.
    fn log_of(&self, latest: &Latest, placed: &mut Vec<Own>) -> Result<Manifest, PortError> {
        let mut manifest = Manifest::default();
        for page in latest.manifest.pages.iter().filter(|page| page.kind == PageKind::Placement) {
            manifest.adopt(&latest.manifest, page);
        }
        let keys = self.keys();
        let around = self.catalog_segments(&self.db)?;
        let mut from = manifest.covered(PageKind::Placement);
        for some in around.chunks(PLACEMENT_PAGE_ROWS) {
            let rows =
                (from..).zip(some).map(|(number, placement)| PlacementRow { number, placement: placement.clone() });
            let page = codec::encode(&PlacementPage { rows: rows.collect() });
            let plan = self.peers.plan()?;
            let (extent, own) =
                self.peers.place_alone((&keys, &|| self.draw()), Kind::Page, &page, plan, &Meter::new())?;
            let to = from + some.len() as u64;
            manifest.segments.push(own.placement.clone());
            manifest.pages.push(PageRef {
                kind: PageKind::Placement,
                level: 0,
                extent,
                segment: manifest.segments.len() as u32 - 1,
                offset: 0,
                from,
                to,
                rows: some.len() as u64,
            });
            placed.push(Own { number: own.number, placement: own.placement });
            from = to;
        }
        Ok(manifest)
    }

    /// Has this volume on the list of what a custodian looks after.
    fn list_ward(&self, to: &Appointment, custodians: &BTreeSet<PeerId>) -> Result<(), PortError> {
        let ward = to.ward(&self.id, &self.device.id());
        let place = to.wards();
        let record = self.peers.lookup(place.record_key())?;
        let mut listed = match record.as_ref().map(|record| places::read(&self.peers, record, &place.sealing_key())) {
            Some(Ok(At::Here(bytes))) => {
                codec::decode::<Wards>(&bytes).ok().filter(Wards::is_sound).unwrap_or_default()
            }
            Some(Err(error)) => return Err(error),
            _ => Wards::default(),
        };
        let custodians: Vec<PeerId> = custodians.iter().copied().collect();
        if listed.wards.contains(&ward) && listed.custodians == custodians {
            return Ok(());
        }
        if !listed.wards.contains(&ward) && listed.wards.len() >= WARDS_MAX {
            return Err(PortError::Unreachable(format!(
                "a custodian looks after at most {WARDS_MAX} volumes, counted for each device: appoint another one"
            )));
        }
        listed.wards.push(ward);
        listed.wards.sort_unstable();
        listed.wards.dedup();
        listed.custodians = custodians;
        let after = record.map_or(0, |record| record.sequence);
        let record = places::put(&self.peers, &place, &place.sealing_key(), codec::encode(&listed), after)?;
        self.peers.publish(record, self.peers.keepers(), "what a custodian looks after")
    }

    /// Takes in what custodians have moved; how many rows.
    pub(crate) fn hear_custodians(&self, vfs: &Vfs) -> Result<u64, PortError> {
        let mut taken = 0;
        for custodian in self.custodians() {
            match self.hear_custodian(&custodian.appointment()) {
                Ok(rows) => taken += rows,
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => {
                    tracing::warn!(custodian = custodian.name, %error, "what it has moved cannot be read now")
                }
            }
        }
        if taken > 0 && self.may_write().is_ok() {
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(taken)
    }

    fn hear_custodian(&self, from: &Appointment) -> Result<u64, PortError> {
        let tag = from.tag();
        let volume = from.ward(&self.id, &self.device.id()).volume;
        let Some(record) = self.peers.lookup(from.moves(&volume).record_key())? else { return Ok(0) };
        let told = entrusted(self, &tag)?;
        if told.as_ref().is_some_and(|told| told.heard == record.sequence) {
            return Ok(0);
        }
        let most = (self.db.counts()?.segments as usize).saturating_add(1).saturating_mul(MOVES_PER_SEGMENT);
        let moved = read_moves(&self.peers, from, &volume, &record, most)?;
        let (taken, is_all) = self.take_in_moves(moved)?;
        // What its holders could not be asked for now is tried again.
        if let Some(told) = told.filter(|_| is_all) {
            put_entrusted(self, &tag, &Entrusted { heard: record.sequence, ..told })?;
        }
        Ok(taken)
    }

    /// Asks what custodians have moved, for as long as a catalog is read that may not know of it.
    pub(crate) fn learn_moves(&self) {
        self.moved.lock().clear();
        let mut left = LEARNED_MAX;
        for custodian in self.custodians() {
            let from = custodian.appointment();
            let volume = from.ward(&self.id, &self.device.id()).volume;
            let found = self.peers.lookup(from.moves(&volume).record_key());
            let read = found.and_then(|record| match record {
                Some(record) => read_moves(&self.peers, &from, &volume, &record, left),
                None => Ok(Moved::new()),
            });
            match read {
                Ok(moved) => {
                    let mut all = self.moved.lock();
                    for (segment, holders) in moved {
                        left = left.saturating_sub(holders.len());
                        all.entry(segment).or_default().extend(holders);
                    }
                }
                Err(error) => {
                    tracing::warn!(custodian = custodian.name, %error, "what it has moved cannot be read now")
                }
            }
        }
    }

    /// A placement with those holders in the place of such as are not there whom custodians name.
    pub(crate) fn as_moved(&self, placement: &Placement) -> Result<Placement, PortError> {
        let Some(moved) = self.moved.lock().get(&placement.segment.id()).cloned() else { return Ok(placement.clone()) };
        let connected = self.peers.connected()?;
        let mut now = placement.clone();
        for holder in moved.into_iter().filter(|holder| usize::from(holder.row) < placement.segment.rows.len()) {
            if !now.holders.iter().any(|known| known.row == holder.row && connected.contains(&known.peer)) {
                now.holders.retain(|known| known.row != holder.row);
                // Nobody has promised anything: who does not have it after all has lost nothing.
                now.holders.push(Holder { until: UnixSeconds(0), ..holder });
            }
        }
        now.holders.sort_by_key(|holder| holder.row);
        Ok(now)
    }

    /// Takes what was learned into an index that was read since; how many rows.
    pub(crate) fn take_moves(&self) -> Result<u64, PortError> {
        let moved = std::mem::take(&mut *self.moved.lock());
        Ok(if moved.is_empty() { 0 } else { self.take_in_moves(moved)?.0 })
    }

    /// How many rows have new holders, and whether nothing of what was told is left to be asked for.
    fn take_in_moves(&self, moved: Moved) -> Result<(u64, bool), PortError> {
        let moved: Vec<_> = moved.into_iter().collect();
        let (mut taken, mut is_all) = (0, true);
        for some in moved.chunks(AT_ONCE) {
            let mut told = Vec::new();
            for (id, holders) in some {
                let Some(row) = self.db.segment(id)? else { continue };
                let known: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                let news = news(&known, holders);
                if !news.is_empty() {
                    told.push((known, news));
                }
            }
            let (rows, are_all) = self.take_in_some(told)?;
            taken += rows;
            is_all &= are_all;
        }
        Ok((taken, is_all))
    }

    fn take_in_some(&self, told: Vec<(Placement, Vec<Holder>)>) -> Result<(u64, bool), PortError> {
        let views = self.peers.views()?;
        let connected: BTreeSet<PeerId> = views.iter().filter(|view| view.connected).map(|view| view.peer).collect();
        self.ask_holders(&told, &connected)?;
        let tended = self.tended();
        let wear = tended.wear(&views);
        let mut is_all = true;
        let mut asked = Vec::new();
        for (known, holders) in told {
            let counted = wear.counted(&known);
            // So many at most are ever where custodians say that they are that the others are enough; this device mends the rest.
            let most = usize::from(known.n.saturating_sub(known.segment.k));
            let mut left = most.saturating_sub(tended.on_word(&known)?);
            let mut wanted = Vec::new();
            for holder in holders {
                if counted.holders.iter().any(|mine| mine.peer == holder.peer) {
                    // It has another row, as far as is known.
                    is_all = false;
                    continue;
                }
                match counted.holders.iter().find(|mine| mine.row == holder.row) {
                    Some(mine) if connected.contains(&mine.peer) => {}
                    _ if left == 0 => {}
                    _ => {
                        left -= 1;
                        wanted.push(holder);
                    }
                }
            }
            if !wanted.is_empty() {
                asked.push(Placement { holders: wanted, ..known });
            }
        }
        let wanted: usize = asked.iter().map(|asked| asked.holders.len()).sum();
        let _turn = self.turn.lock();
        let proven = tended.confirmed(self.proven(asked)?)?;
        let mut taken = 0;
        let mut changed = Vec::new();
        for new in proven.into_iter().filter(|new| !new.holders.is_empty()) {
            let id = new.segment.id();
            // It may have changed since.
            let Some(row) = self.db.segment(&id)? else { continue };
            let mut whole: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
            let is_other =
                |mine: &Holder| new.holders.iter().all(|holder| holder.row != mine.row && holder.peer != mine.peer);
            whole.holders.retain(is_other);
            taken += new.holders.len() as u64;
            whole.holders.extend(new.holders);
            whole.holders.sort_by_key(|holder| holder.row);
            changed.push((id, codec::encode(&whole)));
        }
        if !wear.mesh.leaving().is_empty() {
            state::put_handed(&self.db, 0)?;
        }
        self.db.replace_descriptors(&changed)?;
        self.placements.lock().clear();
        Ok((taken, is_all && taken as usize == wanted))
    }

    /// Asks those of these holders that are there whether they have the rows that are said to be elsewhere.
    fn ask_holders(&self, told: &[(Placement, Vec<Holder>)], connected: &BTreeSet<PeerId>) -> Result<(), PortError> {
        let mut under_way = Vec::new();
        for (known, holders) in told {
            let mut asked = known.clone();
            let is_meant = |mine: &Holder| holders.iter().any(|holder| holder.row == mine.row);
            asked.holders.retain(|mine| is_meant(mine) && connected.contains(&mine.peer));
            if !asked.holders.is_empty() {
                let command = Command::Probe { placement: Arc::new(asked), within: ANSWER_WITHIN };
                under_way.push((known, self.node.start(command)));
            }
        }
        for (known, asked) in under_way {
            match outcome(asked) {
                Outcome::Probed { held, missing, .. } => {
                    self.lacking.asked(known.segment.id(), known, &held, &missing);
                }
                Outcome::Failed(error) => return Err(PortError::Unreachable(error.to_string())),
                other => return Err(damaged(format!("unexpected outcome {other:?}"))),
            }
        }
        Ok(())
    }

    /// Of these holders those that prove that they have their rows.
    fn proven(&self, placements: Vec<Placement>) -> Result<Vec<Placement>, PortError> {
        let mut under_way = Vec::new();
        for placement in placements.into_iter().filter(|placement| !placement.holders.is_empty()) {
            let rows = placement.holders.iter().map(|holder| holder.row).collect();
            let placement = Arc::new(placement);
            let command =
                Command::Audit { placement: placement.clone(), rows, seed: audit::seed()?, within: ANSWER_WITHIN };
            under_way.push((placement, self.node.start(command)));
        }
        let mut proven = Vec::new();
        for (placement, asked) in under_way {
            let Outcome::Audited { passed, .. } = outcome(asked) else { continue };
            let mut placement = Arc::unwrap_or_clone(placement);
            placement.holders.retain(|holder| passed.contains(&holder.row));
            if !placement.holders.is_empty() {
                self.lacking.audited(placement.segment.id(), &placement, (&passed, &[], &[]));
                proven.push(placement);
            }
        }
        Ok(proven)
    }
}

/// What is new of what was told of a segment: one holder for a row that there is, and one row for a holder.
fn news(known: &Placement, told: &[Holder]) -> Vec<Holder> {
    let rows = known.segment.rows.len();
    let is_new = |holder: &&Holder| {
        let is_known = |mine: &Holder| (mine.row, mine.peer) == (holder.row, holder.peer);
        usize::from(holder.row) < rows && !known.holders.iter().any(is_known)
    };
    let mut news: Vec<Holder> = told.iter().filter(is_new).copied().collect();
    news.sort_by_key(|holder| (holder.row, holder.peer));
    news.dedup_by_key(|holder| holder.row);
    let mut peers = BTreeSet::new();
    news.retain(|holder| peers.insert(holder.peer));
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_custodian_was_told_is_written_and_read_as_ever() {
        let formats = hypernet_format::all();
        let placement: Placement = codec::decode(&formats["placement"].bytes).unwrap();
        let placed = vec![Own { number: [3; 16], placement }];
        let entrusted = Entrusted { hash: [1; 32], at: UnixSeconds(2), placed, heard: 4 };
        let bytes = crate::golden::bytes(include_str!("../../golden/entrusted.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&entrusted)), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Entrusted>(&bytes).unwrap(), entrusted);
        crate::golden::mutations(&bytes, |bytes| {
            let _ = codec::decode::<Entrusted>(bytes);
        });
    }
}

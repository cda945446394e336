//! One volume of somebody else's that is looked after here.
//!
//! What its owner's devices tell of where segments are is read as it comes, a log of each; what is looked after is all of them
//! together, and what was moved here since. Audits, leases and repair are those of a volume ([`Tended`]); what has moved is told
//! to the owner at the volume's place for that.
//!
//! Invariant: a log is taken over whole or not at all, and what cannot be read now stays as it was read last. Leases end by
//! themselves, 90 days after a segment has vanished from all logs: nothing that the owner says has anything given up at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::catalog::{Manifest, PageKind, PageRef, PlacementPage};
use hypernet_core::codec::{self, Format};
use hypernet_core::custody::{Appointment, Move, Moves, MovesPage, PlacedPage, Tag, Ward};
use hypernet_core::id::{PeerId, SegmentId, VolumeId};
use hypernet_core::identity::place::Notice;
use hypernet_core::key::DeviceKeys;
use hypernet_core::limits::MOVES_PER_PAGE;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::seal::Kind;
use hypernet_core::segment::Placement;
use hypernet_core::time::UnixSeconds;
use hypernet_store::volume::{LeaseChange, NewSegment, SegmentRow, VolumeDb};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;

use crate::driver::NodeHandle;
use crate::files;
use crate::identity::places::{self, At};
use crate::peers::{Draw, Peers};
use crate::volume::lacking::Lacking;
use crate::volume::leases::{draw_once, is_forgotten};
use crate::volume::progress::Meter;
use crate::volume::read::{PlacementCache, expect_kind, placement_cache};
use crate::volume::repair::Repaired;
use crate::volume::tended::{NOBODY, Tended, Tending};
use crate::volume::write::unix_now;
use crate::volume::{READ_WITHIN, damaged};

/// Segments looked at together.
const AT_ONCE: u32 = 512;
/// Segments that one log may tell of.
const SEGMENTS_MAX: usize = 1 << 20;
/// Where the number of the record is filed that a log was read by.
const READ: &str = "read";
/// Where it is filed what was told of moves.
const TOLD: &str = "told";
/// What was told stays on the mesh for longer than this, in seconds, and is put there again then.
const TOLD_FOR: u64 = 30 * UnixSeconds::DAY;
/// The catalog that a log is read into first.
const SCRATCH: VolumeId = VolumeId([0; 16]);
/// The catalog of what was told when it was last taken in.
const BEFORE: VolumeId = VolumeId([1; 16]);
/// For how long one log is read,
const LOG_WITHIN: Duration = Duration::from_secs(600);
/// and what one custodian tells of moves.
const MOVES_WITHIN: Duration = Duration::from_secs(120);
const NODE_CACHE: u64 = 1 << 20;

/// What was told of moves last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Told {
    /// A hash over all of them.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) hash: [u8; 32],
    #[n(1)]
    pub(crate) at: UnixSeconds,
}
hypernet_core::format!(Told, tag = 0x68, version = 1, max = 64, name = "what was told of moves");

/// A volume of somebody else's.
pub(crate) struct Charge {
    volume: Tag,
    appointment: Appointment,
    /// All that is looked after, and the leases of it.
    db: VolumeDb,
    /// What each device of the owner tells, by its tag.
    logs: VolumeDb,
    device: DeviceKeys,
    node: NodeHandle,
    peers: Arc<Peers>,
    lacking: Lacking,
    placements: Mutex<PlacementCache>,
    turn: Mutex<()>,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) segments: u64,
    pub(crate) repaired: Repaired,
    /// Rows that were moved here, and that no log tells of yet.
    pub(crate) moves: u64,
    /// What of all that is due could not be done.
    pub(crate) trouble: Option<String>,
}

impl Charge {
    /// Goes on where it stood, with what is filed in `dir`. Leases are taken by `device`.
    pub(crate) fn open(
        dir: &Path,
        appointment: Appointment,
        volume: Tag,
        device: DeviceKeys,
        node: NodeHandle,
        peers: Arc<Peers>,
    ) -> Result<Self, PortError> {
        let open = |name: &str| {
            let dir = dir.join(name);
            files::private_dir(&dir).map_err(|failure| PortError::Disk(failure.to_string()))?;
            Ok::<_, PortError>(VolumeDb::open(&dir, VolumeId(volume.0), NODE_CACHE)?)
        };
        Ok(Self {
            volume,
            appointment,
            db: open("tended")?,
            logs: open("logs")?,
            device,
            node,
            peers,
            lacking: Lacking::default(),
            placements: Mutex::new(placement_cache()),
            turn: Mutex::default(),
        })
    }

    /// Does all that is due: reads what the owner tells, renews leases, mends until so many bytes were placed, and tells of it.
    /// `avoid`: who is to hold nothing of it.
    pub(crate) fn tend(&self, wards: &[Ward], avoid: &BTreeSet<PeerId>, bytes: u64) -> Result<Standing, PortError> {
        // What cannot be read now does not keep from looking after what is known.
        let read = self.read_logs(wards);
        self.combine(wards)?;
        let tended = Tended { avoid, ..self.tended() };
        let now = unix_now();
        tended.renew_due(now)?;
        tended.lease_rows(&|placement| is_forgotten(placement, now))?;
        let repaired = tended.repair(&self.peers.views()?, bytes, &self.turn)?;
        // What was placed is told of whatever comes after it.
        let mut standing = Standing { segments: self.db.counts()?.segments, repaired, ..Standing::default() };
        let told = self.moves(wards).and_then(|moves| {
            standing.moves = moves.len() as u64;
            self.tell(moves, now)
        });
        standing.trouble = read.and(told).err().map(|error| error.to_string());
        Ok(standing)
    }

    fn log(&self, device: &Tag) -> Result<VolumeDb, PortError> {
        Ok(self.logs.of(VolumeId(device.0))?)
    }

    fn read_logs(&self, wards: &[Ward]) -> Result<(), PortError> {
        let places: Vec<_> = wards.iter().map(|ward| self.appointment.log(ward)).collect();
        let keys: Vec<_> = places.iter().map(|place| place.record_key()).collect();
        let mut first = None;
        for ((ward, place), record) in wards.iter().zip(&places).zip(self.peers.lookup_all(&keys)?) {
            let log = self.log(&ward.device)?;
            let Some(record) = record else { continue };
            let number = record.sequence.to_be_bytes();
            if log.get_state(READ)?.as_deref() == Some(&number[..]) {
                continue;
            }
            let scratch = self.logs.of(SCRATCH)?;
            match self.read_log(&scratch, &record, &place.sealing_key()) {
                Ok(()) => log.take_over(&scratch, &[(READ, Some(&number[..]))])?,
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Reads one log into an empty catalog.
    fn read_log(&self, into: &VolumeDb, record: &Record, key: &hypernet_core::key::Secret) -> Result<(), PortError> {
        into.clear_segments()?;
        let At::Here(bytes) = places::read(&self.peers, record, key)? else {
            return Err(damaged("an owner tells of no segments in a way that is understood here"));
        };
        let manifest: Manifest = codec::decode(&bytes).map_err(damaged)?;
        if !manifest.is_sound() {
            return Err(damaged("a log refers to what it does not list"));
        }
        let within = Within::new(LOG_WITHIN);
        let mut reading = Reading { charge: self, into, within, segments: 0, around: Vec::new() };
        if let Ok(Notice::Placed(_, placement)) = Notice::open(record, key) {
            reading.around.push(placement);
        }
        reading.read(&manifest)?;
        let around = reading.around;
        let descriptors: Vec<_> = around.iter().map(|at| (at.segment.id(), codec::encode(at))).collect();
        into.add_segments(&bare(&descriptors))?;
        Ok(())
    }

    /// What all logs tell of a segment; nothing if none does.
    fn told(logs: &[VolumeDb], id: &SegmentId) -> Result<Option<Placement>, PortError> {
        let mut united: Option<Placement> = None;
        for log in logs {
            let Some(row) = log.segment(id)? else { continue };
            let told: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
            united = Some(match united {
                Some(before) => united_with(before, told),
                None => told,
            });
        }
        Ok(united)
    }

    /// Brings what is looked after up to date with all logs.
    fn combine(&self, wards: &[Ward]) -> Result<(), PortError> {
        let logs = wards.iter().map(|ward| self.log(&ward.device)).collect::<Result<Vec<_>, _>>()?;
        let before = self.logs.of(BEFORE)?;
        for log in &logs {
            let mut after = 0;
            loop {
                let rows = log.segments_iter(after, AT_ONCE)?;
                let Some(last) = rows.last() else { break };
                after = last.num;
                let (mut new, mut changed, mut seen) = (Vec::new(), Vec::new(), Vec::new());
                for row in rows {
                    let Some(told) = Self::told(&logs, &row.id)? else { continue };
                    let descriptor = codec::encode(&told);
                    let was = before.segment(&row.id)?.map(|row| row.descriptor);
                    if was.as_ref() == Some(&descriptor) {
                        continue;
                    }
                    match self.db.segment(&row.id)? {
                        None => new.push((row.id, descriptor.clone())),
                        Some(known) => {
                            let was = was.map(|was| codec::decode(&was).map_err(damaged)).transpose()?;
                            let known: Placement = codec::decode(&known.descriptor).map_err(damaged)?;
                            changed.push((row.id, codec::encode(&follow(was.as_ref(), &told, &known))));
                        }
                    }
                    seen.push((row.id, descriptor));
                }
                self.db.add_segments(&bare(&new))?;
                self.db.replace_descriptors(&changed)?;
                // What was taken in is not taken in again: what is moved from here on stays until somebody tells something else.
                before.add_segments(&bare(&seen))?;
                self.placements.lock().clear();
            }
        }
        self.each(|row, _| {
            if Self::told(&logs, &row.id)?.is_none() {
                // Its leases are renewed no more.
                let leases = self.db.leases_of(&row.id)?;
                let over: Vec<LeaseChange> = leases.iter().map(|leased| LeaseChange::Over(leased.number)).collect();
                self.db.change_leases(&over)?;
                self.db.drop_segments(&[row.id])?;
                before.drop_segments(&[row.id])?;
            }
            Ok(())
        })?;
        // Nobody writes pages of these catalogs.
        for db in [&self.db, &before] {
            db.forget_stale(&db.stale()?)?;
        }
        Ok(())
    }

    fn each(&self, mut see: impl FnMut(&SegmentRow, Placement) -> Result<(), PortError>) -> Result<(), PortError> {
        let mut after = 0;
        loop {
            let rows = self.db.segments_iter(after, AT_ONCE)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.num;
            for row in &rows {
                see(row, codec::decode(&row.descriptor).map_err(damaged)?)?;
            }
        }
    }

    /// What no log tells.
    fn moves(&self, wards: &[Ward]) -> Result<Vec<Move>, PortError> {
        let logs = wards.iter().map(|ward| self.log(&ward.device)).collect::<Result<Vec<_>, _>>()?;
        let mut moves = Vec::new();
        self.each(|row, placement| {
            let mut told: BTreeSet<(u8, PeerId)> = BTreeSet::new();
            for log in &logs {
                let Some(row) = log.segment(&row.id)? else { continue };
                let said: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                told.extend(said.holders.iter().map(|holder| (holder.row, holder.peer)));
            }
            let new = placement.holders.into_iter().filter(|holder| !told.contains(&(holder.row, holder.peer)));
            moves.extend(new.map(|holder| Move { segment: row.id, holder }));
            Ok(())
        })?;
        moves.sort_by_key(|moved| (moved.segment, moved.holder.row));
        Ok(moves)
    }

    /// Tells the owner what has moved, unless that was told.
    fn tell(&self, moves: Vec<Move>, now: u64) -> Result<(), PortError> {
        let pages: Vec<Vec<u8>> =
            moves.chunks(MOVES_PER_PAGE).map(|some| codec::encode(&MovesPage { moves: some.to_vec() })).collect();
        let hash = *blake3::hash(&pages.concat()).as_bytes();
        let told: Option<Told> = self.db.get_state(TOLD)?.and_then(|bytes| codec::decode(&bytes).ok());
        let is_told = match &told {
            Some(told) => told.hash == hash && (pages.is_empty() || told.at.0.saturating_add(TOLD_FOR) > now),
            None => pages.is_empty(),
        };
        if is_told {
            return Ok(());
        }
        let place = self.appointment.moves(&self.volume);
        let keys = place.keys();
        let mut placed = Vec::new();
        for page in &pages {
            let plan = self.peers.plan()?;
            let of = (&keys, &draw_once as Draw<'_>);
            let (extent, at) = self.peers.place_alone(of, Kind::Posted, page, plan, &Meter::new())?;
            placed.push(PlacedPage { extent, placement: at.placement });
        }
        let before = self.peers.lookup(place.record_key())?.map_or(0, |record| record.sequence);
        let bytes = codec::encode(&Moves { pages: placed });
        if bytes.len() > Moves::MAX {
            return Err(damaged(
                "more has moved than can be told at once: the owner's devices are to take it in first",
            ));
        }
        let record = places::put(&self.peers, &place, &place.sealing_key(), bytes, before)?;
        self.peers.publish(record, self.peers.keepers(), "what has moved of a volume")?;
        Ok(self.db.put_state(TOLD, &codec::encode(&Told { hash, at: UnixSeconds(now) }))?)
    }

    /// Where a segment is, as far as that is known here.
    fn now_at(&self, placement: &Placement) -> Result<Placement, PortError> {
        match self.db.segment(&placement.segment.id())? {
            Some(row) => codec::decode(&row.descriptor).map_err(damaged),
            None => Ok(placement.clone()),
        }
    }
}

/// Where a segment is, as two devices of one owner tell it: of each row with whom it is to stay the longest.
fn united_with(mut one: Placement, other: Placement) -> Placement {
    for holder in other.holders {
        match one.holders.iter_mut().find(|known| known.row == holder.row) {
            Some(known) if known.until < holder.until => *known = holder,
            Some(_) => {}
            None => one.holders.push(holder),
        }
    }
    one.holders.sort_by_key(|holder| holder.row);
    one.n = one.n.max(other.n);
    one
}

/// Segments of which nobody here knows what lies in them.
fn bare(segments: &[(SegmentId, Vec<u8>)]) -> Vec<NewSegment<'_>> {
    segments
        .iter()
        .map(|(id, descriptor)| NewSegment { id: *id, descriptor, extents: &[], leases: None, is_foreign: false })
        .collect()
}

/// Where a segment is when its owner, who has told `was` before, tells `told`, and it is known here as `known`: of rows of which the
/// owner tells the same as before it is known better here.
fn follow(was: Option<&Placement>, told: &Placement, known: &Placement) -> Placement {
    let at = |placement: &Placement, row: u8| placement.holders.iter().find(|holder| holder.row == row).copied();
    let mut now = told.clone();
    now.holders.clear();
    for row in 0..=u8::MAX {
        let (was, told, known) = (was.and_then(|was| at(was, row)), at(told, row), at(known, row));
        let is_same = was.map(|holder| holder.peer) == told.map(|holder| holder.peer);
        let holder = match (told, known) {
            (Some(told), Some(known)) if told.peer == known.peer => {
                Some(if told.until > known.until { told } else { known })
            }
            _ if is_same => known,
            _ => told,
        };
        now.holders.extend(holder);
    }
    now
}

impl Tending for Charge {
    fn tended(&self) -> Tended<'_> {
        Tended {
            db: &self.db,
            node: &self.node,
            peers: &self.peers,
            lacking: &self.lacking,
            device: &self.device,
            placements: &self.placements,
            avoid: &NOBODY,
        }
    }

    /// Those are among all others here.
    fn catalog_segments(&self, _: &VolumeDb) -> Result<Vec<Placement>, PortError> {
        Ok(Vec::new())
    }

    fn is_told(&self) {}
}

/// Until when something is read that somebody else has put there in many parts: whoever names them chooses who holds each, and how
/// late they answer.
struct Within(Instant);

impl Within {
    fn new(within: Duration) -> Self {
        Self(Instant::now() + within)
    }

    /// For how long the next part is waited for.
    fn left(&self) -> Result<Duration, PortError> {
        let left = self.0.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(PortError::Deadline("what somebody else has put there takes too long to be read".into())),
            false => Ok(left.min(Duration::from_millis(READ_WITHIN))),
        }
    }
}

/// A log on its way in.
struct Reading<'a> {
    charge: &'a Charge,
    into: &'a VolumeDb,
    within: Within,
    segments: usize,
    /// Segments that its own pages lie in.
    around: Vec<Placement>,
}

impl Reading<'_> {
    fn fetch(&self, listing: &Manifest, page: &PageRef) -> Result<bytes::Bytes, PortError> {
        let at = listing.segments.get(page.segment as usize).ok_or_else(|| damaged("a page of a log without place"))?;
        let at = Arc::new(self.charge.now_at(at)?);
        let wanted = vec![(page.extent.clone(), page.offset)];
        let plain = self.charge.peers.fetch_within(at, wanted, self.within.left()?)?;
        plain.into_iter().next().ok_or_else(|| damaged("a page of a log came back empty"))
    }

    /// Reads all pages below a listing. Each level is one less, so there is an end.
    fn read(&mut self, listing: &Manifest) -> Result<(), PortError> {
        self.count(listing.segments.len())?;
        self.around.extend(listing.segments.iter().cloned());
        for page in listing.pages.iter().filter(|page| page.kind == PageKind::Placement) {
            let bytes = self.fetch(listing, page)?;
            if page.level > 0 {
                expect_kind(&page.extent, Kind::Manifest)?;
                let below: Manifest = codec::decode(&bytes).map_err(damaged)?;
                if !below.is_listed_as(page) {
                    return Err(damaged("a listing of a log is not what it is listed as"));
                }
                self.read(&below)?;
                continue;
            }
            let plain: PlacementPage = codec::decode(&bytes).map_err(damaged)?;
            if !plain.is_sound(page) {
                return Err(damaged("a page of a log is not what it is listed as"));
            }
            self.count(plain.rows.len())?;
            let rows = plain.rows.iter().map(|row| SegmentRow {
                num: row.number,
                id: row.placement.segment.id(),
                descriptor: codec::encode(&row.placement),
            });
            self.into.take_segments(&rows.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn count(&mut self, more: usize) -> Result<(), PortError> {
        self.segments += more;
        match self.segments <= SEGMENTS_MAX {
            true => Ok(()),
            false => Err(damaged(format!("a log tells of more than {SEGMENTS_MAX} segments"))),
        }
    }
}

/// Holders by row, of one segment each.
pub(crate) type Moved = BTreeMap<SegmentId, Vec<hypernet_core::segment::Holder>>;

/// What a custodian tells of moves, by the record that was found at its place. No more than `most` rows are taken.
pub(super) fn read_moves(
    peers: &Peers,
    appointment: &Appointment,
    volume: &Tag,
    record: &Record,
    most: usize,
) -> Result<Moved, PortError> {
    let place = appointment.moves(volume);
    let At::Here(bytes) = places::read(peers, record, &place.sealing_key())? else {
        return Err(damaged("a custodian tells of moves in a way that is not understood here"));
    };
    let moves: Moves = codec::decode(&bytes).map_err(damaged)?;
    if !moves.is_sound() {
        return Err(damaged("a custodian tells of moves that lie nowhere"));
    }
    let (mut all, mut count) = (Moved::new(), 0);
    let within = Within::new(MOVES_WITHIN);
    for page in moves.pages {
        let plain = peers.fetch_within(Arc::new(page.placement), vec![(page.extent, 0)], within.left()?)?;
        let bytes = plain.first().ok_or_else(|| damaged("a page of moves came back empty"))?;
        let page: MovesPage = codec::decode(bytes).map_err(damaged)?;
        count += page.moves.len();
        if !page.is_sound() || page.moves.is_empty() || count > most {
            return Err(damaged("a custodian tells of more moves than there are rows"));
        }
        for moved in page.moves {
            all.entry(moved.segment).or_default().push(moved.holder);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;

//! Reading and writing what is at a place: a record, and where that is too short, a segment of its own that it names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::codec::CodecError;
use hypernet_core::identity::era::Door;
use hypernet_core::identity::place::{Notice, Place, PlaceError};
use hypernet_core::key::Secret;
use hypernet_core::port::PortError;
use hypernet_core::record::{LAST, Record};
use hypernet_core::seal::{Kind, SealError};

use crate::peers::{Draw, Peers};
use crate::volume::census::{ASK_WITHIN, Enough};
use crate::volume::leases;
use crate::volume::progress::Meter;
use crate::volume::write::Placed;
use crate::volume::{READ_WITHIN, damaged};

/// A device, of now or of before, that keeps others from what they are to find.
pub(crate) fn in_the_way(what: &str) -> PortError {
    PortError::Unreachable(format!(
        "{what}: a device that has the keys of this identity has put something in the way; take away the one that you do \
         not trust, with the words: `hn device revoke NAME --phrase`, or, not knowing which it is, `hn device renew`"
    ))
}

/// What a record that was found at a place says.
pub(crate) enum At {
    /// Nothing of use. Who has the place's key can have put anything there.
    Nothing,
    /// This.
    Here(Vec<u8>),
    /// The era has ended.
    Ended(Door),
}

/// What is left of the time in which it is read what others have put into segments: whoever names one chooses who holds it,
/// and how late they answer.
pub(crate) struct Allowance(Duration);

impl Allowance {
    pub(crate) fn new(within: Duration) -> Self {
        Self(within)
    }

    /// From now on nothing is fetched any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.is_zero()
    }

    /// Reads the record of a place, sealed under `key`.
    pub(crate) fn read(&mut self, peers: &Peers, record: &Record, key: &Secret) -> Result<At, PortError> {
        if self.is_spent() {
            return read_here(record, key);
        }
        let began = Instant::now();
        let at = read_within(peers, record, key, self.0);
        self.0 = self.0.saturating_sub(began.elapsed());
        at
    }
}

/// Reads the record of a place, sealed under `key`.
pub(crate) fn read(peers: &Peers, record: &Record, key: &Secret) -> Result<At, PortError> {
    read_within(peers, record, key, Duration::from_millis(READ_WITHIN))
}

fn read_within(peers: &Peers, record: &Record, key: &Secret, within: Duration) -> Result<At, PortError> {
    match Notice::open(record, key) {
        Ok(Notice::Placed(extent, placement)) => {
            if !placement.is_sound() || !extent.is_sound() || extent.kind != Kind::Posted {
                tracing::warn!("what a place of this identity names lies nowhere");
                return Ok(At::Nothing);
            }
            let mut plain = peers.fetch_within(Arc::new(placement), vec![(extent, 0)], within)?;
            let bytes = plain.pop().ok_or_else(|| damaged("what is posted on the mesh came back empty"))?;
            Ok(At::Here(bytes.to_vec()))
        }
        _ => read_here(record, key),
    }
}

/// The same, of what is in the record itself: nothing is fetched for it.
pub(crate) fn read_here(record: &Record, key: &Secret) -> Result<At, PortError> {
    match Notice::open(record, key) {
        Ok(Notice::Here(bytes)) => Ok(At::Here(bytes)),
        Ok(Notice::Ended(door)) => Ok(At::Ended(door)),
        Ok(Notice::Placed(..)) => Err(PortError::Unreachable("it lies in a segment, which was not asked for".into())),
        // Whoever wrote it has more to say than is understood here.
        Err(PlaceError::Codec(error @ CodecError::Version { .. })) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "what lies at a place of this identity is not believed");
            Ok(At::Nothing)
        }
    }
}

/// Whether what is at a place would outlive some more losses: its segment is mended by nothing else while what it says
/// stays the same. The holders are asked, in one round.
pub(crate) fn is_whole(peers: &Peers, record: &Record, key: &Secret) -> Result<bool, PortError> {
    match Notice::open(record, key) {
        Ok(Notice::Placed(_, placement)) if placement.is_sound() => {
            peers.holds(&placement, Enough::Last.rows(&placement), ASK_WITHIN)
        }
        Ok(Notice::Placed(..)) => Ok(false),
        _ => Ok(true),
    }
}

/// The record that puts something at a place, with a number above `after`. What it names is on the mesh when this
/// returns.
pub(crate) fn put(peers: &Peers, place: &Place, key: &Secret, bytes: Vec<u8>, after: u64) -> Result<Record, PortError> {
    Ok(put_drawn(peers, place, key, bytes, after, &leases::draw_once)?.0)
}

/// The same, and what was placed for it, if that was needed, with leases that `draw` gives.
pub(crate) fn put_drawn(
    peers: &Peers,
    place: &Place,
    key: &Secret,
    bytes: Vec<u8>,
    after: u64,
    draw: Draw<'_>,
) -> Result<(Record, Option<Placed>), PortError> {
    let sequence = after
        .checked_add(1)
        .filter(|sequence| *sequence < LAST)
        .ok_or_else(|| in_the_way("nothing can be put any more where the devices and the keys of this identity are"))?;
    let here = Notice::Here(bytes);
    match here.publish(place, key, sequence) {
        Err(PlaceError::Seal(SealError::TooLong(_))) => {}
        other => return Ok((other.map_err(damaged)?, None)),
    }
    let Notice::Here(bytes) = here else { return Err(damaged("it is here")) };
    let plan = peers.settled_plan()?;
    let (extent, placed) = peers.place_alone((&place.keys(), draw), Kind::Posted, &bytes, plan, &Meter::new())?;
    let notice = Notice::Placed(extent, placed.placement.clone());
    Ok((notice.publish(place, key, sequence).map_err(damaged)?, Some(placed)))
}

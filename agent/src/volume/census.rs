//! What the holders of segments say they have, asked when something new is about to rely on it: having been placed once
//! is no claim that a segment still exists, and a holder that is connected may have lost its disk.
//!
//! And what is there now another device may be about to give up, which has no reason to wait for this one: nothing that this device
//! has published says yet that it relies on it. So whatever something new relies on is kept for this device first; where too few
//! holders agree, it is placed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::id::{ExtentId, PeerId, SegmentId};
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use parking_lot::Mutex;

use super::Volume;
use super::tended::Tending as _;
use super::write::Tally;

/// How long the holders of a segment have to answer, in milliseconds. Who does not counts as gone from then on.
pub(crate) const ASK_WITHIN: u64 = 3_000;

/// How much of a segment must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enough {
    /// It can be read.
    Read,
    /// It can be read after further losses: new data may lie in it.
    Last,
}

impl Enough {
    /// Shards that must be there for it.
    pub(crate) fn rows(self, placement: &Placement) -> u8 {
        let (k, n) = (placement.segment.k, placement.n);
        match self {
            Self::Read => k,
            Self::Last => k + n.saturating_sub(k).div_ceil(2),
        }
    }
}

/// The answers of the holders, each segment asked for once.
#[derive(Debug)]
pub(crate) struct Census {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Peers that were there when it began, without those that do not answer.
    connected: BTreeSet<PeerId>,
    /// Those that stop storing for others, as of then: what is to last needs others.
    leaving: BTreeSet<PeerId>,
    /// Rows that are there.
    held: BTreeMap<SegmentId, Vec<u8>>,
    /// Whether it is kept for this device.
    kept: BTreeMap<SegmentId, bool>,
    relied: Tally,
}

impl Census {
    /// Of the peers that are connected now: who comes while it goes on changes nothing for it.
    pub(crate) fn new(volume: &Volume) -> Result<Self, PortError> {
        let views = volume.peers.views()?;
        let connected = views.iter().filter(|view| view.connected).map(|view| view.peer).collect();
        let leaving = views.iter().filter(|view| view.leaving).map(|view| view.peer);
        let leaving = leaving.chain(volume.peers.leaving_here()).collect();
        let (held, kept, relied) = (BTreeMap::new(), BTreeMap::new(), Tally::default());
        Ok(Self { seen: Mutex::new(Seen { connected, leaving, held, kept, relied }) })
    }

    /// Which of these are in segments of which enough is there. A segment whose row in the index is damaged is not.
    pub(crate) fn stored(&self, volume: &Volume, ids: &[ExtentId], enough: Enough) -> Result<Vec<bool>, PortError> {
        let located = match enough {
            Enough::Read => volume.db.locate_many(ids)?,
            // The catalog of this volume must lead to what is new in it.
            Enough::Last => volume.db.locate_own(ids)?,
        };
        let is_stored = |location: Option<hypernet_store::volume::Location>| {
            let Some(location) = location else { return Ok(false) };
            match volume.placement(location.segment, &location.descriptor) {
                Ok(placement) => self.is_there(volume, location.segment, &placement, enough),
                Err(_) => Ok(false),
            }
        };
        located.into_iter().map(is_stored).collect()
    }

    /// The least of the segments that new data was found to be in.
    pub(crate) fn relied(&self) -> Tally {
        self.seen.lock().relied
    }

    /// Whether enough of a segment is there, and, where it is to last, kept for this device.
    pub(super) fn is_there(
        &self,
        volume: &Volume,
        id: SegmentId,
        placement: &Arc<Placement>,
        enough: Enough,
    ) -> Result<bool, PortError> {
        let known = {
            let seen = self.seen.lock();
            match seen.held.get(&id) {
                Some(held) => Some(held.clone()),
                // Nobody is asked where too few are there to ask.
                None => (!volume.lacking.is_readable(placement, &seen.connected)).then(Vec::new),
            }
        };
        // Not under the lock: it takes a round trip.
        let mut held = known.unwrap_or_else(|| self.ask(volume, id, placement));
        if enough == Enough::Last {
            let seen = self.seen.lock();
            let stays = |row: &u8| {
                let mut holders = placement.holders.iter().filter(|holder| holder.row == *row);
                holders.any(|holder| !seen.leaving.contains(&holder.peer))
            };
            held.retain(stays);
        }
        if held.len() < usize::from(enough.rows(placement)) {
            return Ok(false);
        }
        if enough == Enough::Read {
            return Ok(true);
        }
        let kept = self.seen.lock().kept.get(&id).copied();
        let is_kept = match kept {
            Some(is_kept) => is_kept,
            None => {
                let mut asked = Placement::clone(placement);
                asked.holders.retain(|holder| held.contains(&holder.row));
                volume.tended().keep(&[asked], enough)?.into_iter().all(|is_kept| is_kept)
            }
        };
        let mut seen = self.seen.lock();
        seen.kept.insert(id, is_kept);
        if is_kept {
            seen.relied = seen.relied.and(Tally::relied(placement, held.len() as u8));
        }
        Ok(is_kept)
    }

    fn ask(&self, volume: &Volume, id: SegmentId, placement: &Arc<Placement>) -> Vec<u8> {
        let connected = self.seen.lock().connected.clone();
        let mut asked = Placement::clone(placement);
        asked.holders.retain(|holder| connected.contains(&holder.peer));
        let outcome = volume.node.run_blocking(Command::Probe { placement: asked.into(), within: ASK_WITHIN });
        let mut seen = self.seen.lock();
        let held = match outcome {
            Outcome::Probed { mut held, missing, unreachable } => {
                volume.lacking.asked(id, placement, &held, &missing);
                let unproven = volume.lacking.unproven(id, placement, &held);
                if !missing.is_empty() {
                    tracing::warn!(
                        segment = %id.short(),
                        shards = missing.len(),
                        "peers do not have the shards any more that they acknowledged"
                    );
                }
                for holder in &placement.holders {
                    if unreachable.contains(&holder.row) {
                        seen.connected.remove(&holder.peer);
                    }
                }
                held.retain(|row| !unproven.contains(row));
                held
            }
            // It was not placed as far as anybody can tell.
            _ => Vec::new(),
        };
        seen.held.insert(id, held.clone());
        held
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::codec;
    use hypernet_core::seal::Kind;
    use hypernet_core::tree::Sink;

    use super::super::double::Mesh;
    use super::super::progress::Meter;
    use super::super::write::Writer;
    use super::*;

    /// One that is connected, and without its disk, holds nothing.
    #[test]
    fn who_lost_its_disk_is_not_relied_upon() {
        let mesh = Mesh::new(10);
        let dir = tempfile::tempdir().unwrap();
        let volume = mesh.volume(dir.path(), 7);
        let put = || {
            let mut writer = Writer::new(volume.clone(), Meter::new()).unwrap();
            let extent = writer.put(Kind::Content, &[1; 5_000]).unwrap();
            let tally = writer.finish().unwrap();
            let at = volume.db.locate(&extent.id()).unwrap().unwrap();
            (extent.id(), tally, codec::decode::<Placement>(&at.descriptor).unwrap())
        };
        let (id, first, placement) = put();
        let (k, n) = (placement.segment.k, placement.n);
        assert_eq!((first.segments, first.n(), mesh.uploads()), (1, n, 1));
        let holders: Vec<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();
        let stored = |enough| Census::new(&volume).unwrap().stored(&volume, &[id], enough).unwrap()[0];

        // With one loss it still serves as it is, and what is said of it is what is there.
        mesh.lose_disk(holders[0]);
        let (_, again, _) = put();
        assert_eq!((again.segments, again.n(), again.k(), mesh.uploads()), (0, n - 1, k, 1));
        // With more it can be read, but nothing new is put on it.
        for holder in &holders[1..usize::from(n - k)] {
            mesh.lose_disk(*holder);
        }
        assert!(stored(Enough::Read) && !stored(Enough::Last));
        mesh.lose_disk(holders[usize::from(n - k)]);
        assert!(!stored(Enough::Read));
        let (_, anew, _) = put();
        assert_eq!((anew.segments, anew.n(), mesh.uploads()), (1, n, 2));
        assert!(stored(Enough::Last));
    }
}

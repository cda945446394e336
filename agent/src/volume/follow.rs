//! Moving on to what another device has published: where nothing is changed here, and its tree has all that this one has.
//!
//! Its catalog is read beside this device's own, then the working tree moves on, and only then the one takes the place of
//! the other, together with the head that this device stands on. What is under way is written down before the working tree
//! moves: wherever this is broken off, it is ended before anything is published or looked for.

use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, VolumeId};
use hypernet_core::port::PortError;
use hypernet_core::tree::Dot;
use hypernet_fs::vfs::{Vfs, VfsError};
use hypernet_store::volume::VolumeDb;

use super::Volume;
use super::heads::{Found, sequence_of};
use super::state::{self, Latest};
use super::sync::of_tree;

/// The number of the volume beside another one.
const BESIDE_CONTEXT: &str = "hypernet 2026 catalog beside a volume v1";

/// Whether a head's tree has all that is part of a tree with this version vector, as far as `known` devices say, each up to
/// the head that is the last one taken of it, and more.
fn goes_on(head: &Head, vector: &[Dot], known: &[(DeviceId, u64)]) -> bool {
    let has = |device: &DeviceId| match *device == head.device {
        true => head.sequence,
        false => sequence_of(&head.vector, device),
    };
    let is_part = known.iter().all(|(device, last)| has(device) >= sequence_of(vector, device).min(*last));
    is_part && head.sequence > sequence_of(vector, &head.device)
}

impl Volume {
    /// Where the catalog of another device is read.
    fn beside(&self) -> Result<VolumeDb, PortError> {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key(BESIDE_CONTEXT, self.id.as_bytes())[..16]);
        Ok(self.db.of(VolumeId(id))?)
    }

    /// The newest of these heads that has all that this device stands on.
    fn next(&self, found: &[Found], latest: &Latest) -> Option<Head> {
        let publishers = self.publishers();
        let listed = publishers.listed.iter().map(|device| (device.id, u64::MAX));
        // What was taken of those who are gone stays.
        let known: Vec<(DeviceId, u64)> = listed.chain(publishers.accepted()).collect();
        let may_be = |found: &&Found| {
            publishers.device(&found.head.device).is_some() && goes_on(&found.head, &latest.root.vector, &known)
        };
        let next: Vec<&Head> = found.iter().filter(may_be).map(|found| &found.head).collect();
        let had = |head: &Head| next.iter().any(|other| sequence_of(&other.vector, &head.device) >= head.sequence);
        let last = next.iter().filter(|head| !had(head));
        last.max_by_key(|head| (head.time, head.device)).map(|head| Head::clone(head))
    }

    /// Moves on to what another device has published, where that goes on from what is here and nothing waits to be published.
    /// Returns the head that this device stands on since.
    pub(crate) fn follow(&self, vfs: &Vfs) -> Result<Option<Head>, PortError> {
        self.end_following(vfs)?;
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        if state::origin(&self.db)?.is_some() || vfs.pending(self.id).files > 0 {
            return Ok(None);
        }
        let survey = self.find_heads(&self.other_publishers())?;
        let next = self.next(&survey.found, &latest);
        self.heads.lock().set_others(survey);
        let Some(head) = next else { return Ok(None) };
        let (beside, next) = self.read_beside(&head)?;
        state::put_following(&self.db, &next)?;
        Ok(self.move_on(vfs, &beside, next)?.then_some(head))
    }

    /// Ends what a crash, or a mesh that was not to be reached, has left under way.
    pub(crate) fn end_following(&self, vfs: &Vfs) -> Result<(), PortError> {
        match state::following(&self.db)? {
            Some(next) => self.move_on(vfs, &self.beside()?, next).map(drop),
            None => Ok(()),
        }
    }

    /// Reads the catalog and the root of a head.
    fn read_beside(&self, head: &Head) -> Result<(VolumeDb, Latest), PortError> {
        let manifest = self.manifest_of(head)?;
        let beside = self.beside()?;
        self.load_catalog_into(&beside, &manifest, &mut |_, _| ())?;
        let root = self.read_root(head, &self.publishers(), false)?;
        let (snapshot, time) = (head.snapshot, head.time);
        Ok((beside, Latest { snapshot, root, manifest, time, head: head.clone() }))
    }

    /// The working tree moves on, then the index. False when something was changed here meanwhile, or is in use.
    fn move_on(&self, vfs: &Vfs, beside: &VolumeDb, next: Latest) -> Result<bool, PortError> {
        let before = std::mem::replace(&mut *self.links.lock(), next.root.links.clone());
        // What another device of this identity has taken out of its tree goes from this one, too.
        let shares = self.identity.keystore().keystore().shares;
        vfs.set_leaving(shares.iter().filter(|share| share.left.is_out).map(|share| share.volume));
        match vfs.advance(self.id, next.root.inode.clone()) {
            Ok(()) => {}
            // It has moved on before a crash, and was changed since.
            Err(VfsError::Busy)
                if vfs.published(self.id).map_err(of_tree)?.as_ref() == Some(&next.root.inode.content) => {}
            Err(VfsError::Busy) => {
                *self.links.lock() = before;
                state::forget_following(&self.db)?;
                beside.clear_segments()?;
                return Ok(false);
            }
            Err(error) => {
                *self.links.lock() = before;
                return Err(of_tree(error));
            }
        }
        let changes = state::stands_on(&next);
        let changes: Vec<(&str, Option<&[u8]>)> = changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
        self.db.take_over(beside, &changes)?;
        self.placements.lock().clear();
        *self.surveyed.lock() = None;
        tracing::info!(volume = %self.id.short(), head = next.head.sequence, of = %next.head.device.short(), "moved on");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypernet_core::codec;

    fn device(byte: u8) -> DeviceId {
        DeviceId([byte; 32])
    }

    fn dots(all: &[(u8, u64)]) -> Vec<Dot> {
        all.iter().map(|(byte, sequence)| Dot { device: device(*byte).tag(), sequence: *sequence }).collect()
    }

    #[test]
    fn a_head_goes_on_from_a_tree_when_it_has_all_of_it_and_more() {
        let golden: Head = codec::decode(&hypernet_format::all()["head"].bytes).unwrap();
        let head = |byte, sequence, vector: &[(u8, u64)]| Head {
            device: device(byte),
            sequence,
            vector: dots(vector),
            ..golden.clone()
        };
        let known = [(device(1), u64::MAX), (device(2), u64::MAX), (device(3), u64::MAX), (device(4), 5)];
        let from = |head: &Head, vector: &[(u8, u64)]| goes_on(head, &dots(vector), &known);
        assert!(from(&head(2, 5, &[(1, 3)]), &[(1, 3)]));
        assert!(from(&head(2, 5, &[(1, 3)]), &[(1, 3), (2, 4)]));
        assert!(!from(&head(2, 5, &[(1, 3)]), &[(1, 3), (2, 5)]), "it is here already");
        assert!(!from(&head(2, 5, &[(1, 2)]), &[(1, 3)]), "something is here that it lacks");
        assert!(!from(&head(2, 5, &[]), &[(3, 1)]));
        // Of one that was taken off, what was taken stays, and what came after that does not.
        assert!(!from(&head(2, 5, &[(1, 3)]), &[(1, 3), (4, 5)]));
        assert!(from(&head(2, 5, &[(1, 3), (4, 5)]), &[(1, 3), (4, 7)]));
        // What a device published that may not any more is nobody's business.
        assert!(from(&head(2, 5, &[(1, 3)]), &[(1, 3), (9, 7)]));
    }
}

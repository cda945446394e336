//! Sealing without the mesh: what a snapshot holds and no segment has is kept on this disk until the next sync places it.
//!
//! Invariant: what was put can be read here from then on, and outlives a power failure once the change of the history does that
//! is added after [`Stage::finish`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::codec::{self, Format};
use hypernet_core::id::{ExtentId, SegmentId};
use hypernet_core::key::VolumeKeys;
use hypernet_core::limits::{MIB, SEALED_MAX};
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind, Prepared, Sealed, Sealer};
use hypernet_core::tree::{Content, Sink, Source};
use hypernet_fs::vfs::Stamp;
use minicbor::{Decode, Encode};

use super::census::Enough;
use super::leases::TAKE_BEFORE;
use super::read::{Deadline, Nodes};
use super::tended::Tending as _;
use super::write::{Put, unix_now};
use super::{Volume, damaged};

/// Sealed bytes that are written with one commit.
const AT_ONCE: usize = 4 * MIB;

/// What a file holds, as it lies beside the stamp of its backing file.
#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Filed(#[n(0)] Content);
hypernet_core::format!(Filed, tag = 0x59, version = 1, max = SEALED_MAX, name = "content of a file");

/// As an extent lies on this disk: its reference, and it.
fn filed(sealed: &Sealed) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sealed.bytes.len() + 96);
    // Writing to a Vec cannot fail.
    let _ = minicbor::encode(&sealed.reference, &mut bytes);
    bytes.extend_from_slice(&sealed.bytes);
    bytes
}

/// An extent that waits to be placed.
pub(super) fn unfiled(bytes: Vec<u8>) -> Result<Sealed, PortError> {
    let mut decoder = minicbor::Decoder::new(&bytes);
    let reference: ExtentRef = decoder.decode().map_err(damaged)?;
    let at = decoder.position();
    Ok(Sealed { reference, bytes: bytes::Bytes::from(bytes).slice(at..) })
}

/// By which it is known again whether a backing file is as it was; none where that cannot be told.
fn stamp_bytes(stamp: &Stamp) -> Option<Vec<u8>> {
    let Stamp { size, ctime, racy } = stamp;
    let bytes = [&size.to_be_bytes()[..], &ctime.seconds.to_be_bytes(), &ctime.nanos.to_be_bytes()];
    (!racy).then(|| bytes.concat())
}

/// See the module.
pub(super) struct Stage<'a> {
    volume: &'a Volume,
    sealer: Sealer,
    keys: Arc<VolumeKeys>,
    put: BTreeSet<ExtentId>,
    waiting: Vec<(ExtentId, Vec<u8>)>,
    bytes: usize,
    nodes: Vec<(ExtentId, Vec<u8>)>,
    contents: Vec<(u64, Vec<u8>, Vec<u8>)>,
    /// Segments that were looked up, and whether they stay.
    segments: BTreeMap<SegmentId, bool>,
    /// Sealed bytes that were new.
    pub(super) new: u64,
    /// Some of them are content of files.
    pub(super) has_content: bool,
}

/// Nodes of which some may be in a stage, and not written yet.
pub(super) struct Staged<'a>(BTreeMap<ExtentId, &'a [u8]>, Nodes<'a>);

impl Source for Staged<'_> {
    type Error = PortError;

    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, PortError> {
        let there = |reference: &ExtentRef| self.0.get(&reference.id()).map(|plain| plain.to_vec());
        let missing: Vec<ExtentRef> = refs.iter().filter(|reference| there(reference).is_none()).cloned().collect();
        let mut read = if missing.is_empty() { Vec::new() } else { self.1.get(&missing)? }.into_iter();
        let all: Option<Vec<Vec<u8>>> = refs.iter().map(|reference| there(reference).or_else(|| read.next())).collect();
        all.ok_or_else(|| damaged("a node is missing"))
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        let keys = volume.keys();
        let (put, waiting, nodes, contents) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            volume,
            sealer: Sealer::new(&keys),
            keys,
            put,
            waiting,
            bytes: 0,
            nodes,
            contents,
            segments: BTreeMap::new(),
            new: 0,
            has_content: false,
        }
    }

    /// What was put here, and what was before.
    pub(super) fn source(&self) -> Staged<'_> {
        let nodes = self.nodes.iter().map(|(id, plain)| (*id, plain.as_slice()));
        Staged(nodes.collect(), Nodes(self.volume, Deadline::of_read()))
    }

    pub(super) fn keys(&self) -> &VolumeKeys {
        &self.keys
    }

    /// Which of these are in segments that stay without anybody looking after them until a sync asks again. The mesh is not asked for
    /// a snapshot, and what is in the index may be there for a while only, or not any more.
    fn are_kept(&mut self, ids: &[ExtentId]) -> Result<Vec<bool>, PortError> {
        let mut kept = Vec::with_capacity(ids.len());
        for at in self.volume.db.locate_own(ids)? {
            let Some(at) = at else {
                kept.push(false);
                continue;
            };
            let is_kept = match self.segments.get(&at.segment) {
                Some(is_kept) => *is_kept,
                None => {
                    let placement = self.volume.placement(at.segment, &at.descriptor)?;
                    let mine = self.volume.tended().leased(&at.segment, unix_now() + TAKE_BEFORE)?;
                    let holders = placement.holders.iter();
                    let rows = holders.filter(|holder| mine.contains(&(holder.row, holder.peer))).count();
                    rows >= usize::from(Enough::Last.rows(&placement))
                }
            };
            self.segments.insert(at.segment, is_kept);
            kept.push(is_kept);
        }
        Ok(kept)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        let waiting: Vec<(ExtentId, &[u8])> = self.waiting.iter().map(|(id, bytes)| (*id, bytes.as_slice())).collect();
        self.volume.db.stage(&waiting)?;
        let nodes: Vec<(ExtentId, &[u8])> = self.nodes.iter().map(|(id, plain)| (*id, plain.as_slice())).collect();
        self.volume.db.put_nodes(&nodes)?;
        self.volume.db.put_contents(&self.contents)?;
        self.waiting.clear();
        self.nodes.clear();
        self.contents.clear();
        self.bytes = 0;
        Ok(())
    }

    /// All of it is on this disk.
    pub(super) fn finish(mut self) -> Result<u64, PortError> {
        self.flush()?;
        Ok(self.new)
    }
}

impl Put for Stage<'_> {
    fn put_all(&mut self, kind: Kind, plains: &[&[u8]]) -> Result<Vec<ExtentRef>, PortError> {
        let prepared = self.sealer.prepare_all(kind, plains).map_err(damaged)?;
        let references: Vec<ExtentRef> = prepared.iter().map(|prepared| prepared.reference.clone()).collect();
        let ids: Vec<ExtentId> = references.iter().map(ExtentRef::id).collect();
        let (placed, staged) = (self.are_kept(&ids)?, self.volume.db.are_staged(&ids)?);
        let known = placed.into_iter().zip(staged).map(|(placed, staged)| placed || staged);
        let mut new = Vec::new();
        for ((prepared, id), known) in prepared.into_iter().zip(ids).zip(known) {
            if !known && self.put.insert(id) {
                new.push(prepared);
            }
        }
        for sealed in Prepared::seal_all(new).map_err(damaged)? {
            let bytes = filed(&sealed);
            self.bytes += bytes.len();
            self.new += sealed.bytes.len() as u64;
            self.has_content |= kind == Kind::Content;
            self.waiting.push((sealed.reference.id(), bytes));
        }
        if self.bytes >= AT_ONCE {
            self.flush()?;
        }
        Ok(references)
    }

    fn known(&self, ino: u64, stamp: &Stamp) -> Result<Option<Content>, PortError> {
        let Some(stamp) = stamp_bytes(stamp) else { return Ok(None) };
        let Some(bytes) = self.volume.db.content(ino, &stamp)? else { return Ok(None) };
        Ok(codec::decode::<Filed>(&bytes).ok().map(|Filed(content)| content))
    }

    fn note(&mut self, ino: u64, stamp: &Stamp, content: &Content) {
        if let Some(stamp) = stamp_bytes(stamp) {
            let bytes = codec::encode(&Filed(content.clone()));
            if bytes.len() <= Filed::MAX {
                self.contents.push((ino, stamp, bytes));
            }
        }
    }
}

impl Sink for Stage<'_> {
    type Error = PortError;

    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, PortError> {
        let reference = self.put_all(kind, &[plain])?.pop().ok_or_else(|| damaged("nothing was sealed"))?;
        if kind == Kind::Node {
            self.nodes.push((reference.id(), plain.to_vec()));
        }
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_held_is_written_and_read_as_ever() {
        let content = Content::Inline(vec![1, 2, 3]);
        let bytes = crate::golden::bytes(include_str!("../../golden/content.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&Filed(content.clone()))), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Filed>(&bytes).unwrap().0, content);
        crate::golden::mutations(&bytes, |bytes| drop(codec::decode::<Filed>(bytes)));
    }

    #[test]
    fn an_extent_that_waits_is_told_from_its_reference() {
        let keys = VolumeKeys::new(hypernet_core::id::VolumeId([1; 16]), 0, hypernet_core::key::Secret::new([2; 32]));
        let sealed = Sealer::new(&keys).seal(Kind::Content, &[7; 900]).unwrap();
        let back = unfiled(filed(&sealed)).unwrap();
        assert_eq!((&back.reference, &back.bytes), (&sealed.reference, &sealed.bytes));
        assert!(unfiled(vec![1, 2, 3]).is_err());
        // Nothing tells that, and a file that is being written to is read again.
        let ctime = hypernet_core::time::Timespec { seconds: 1, nanos: 2 };
        assert!(stamp_bytes(&Stamp { size: 1, ctime, racy: true }).is_none());
        assert_ne!(
            stamp_bytes(&Stamp { size: 1, ctime, racy: false }),
            stamp_bytes(&Stamp { size: 2, ctime, racy: false })
        );
    }
}

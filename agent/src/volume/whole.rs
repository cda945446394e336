//! Reading some small files at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use hypernet_core::id::ExtentId;
use hypernet_core::limits::TEXT_MAX;
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::text::NotCompared;
use hypernet_core::tree::{Content, Run};

use super::read::Deadline;
use super::{Volume, damaged};

/// Whether it may be a text that is compared line by line. A hole is zeros.
pub(crate) fn may_be_text(content: &Content) -> bool {
    not_compared(content).is_none()
}

/// Why it is none, if that is known before it is read.
pub(crate) fn not_compared(content: &Content) -> Option<NotCompared> {
    match content.data() == content.size() {
        false => Some(NotCompared::Binary),
        true => (content.size() > TEXT_MAX as u64).then_some(NotCompared::Large),
    }
}

/// What a file is made of.
enum Piece<'a> {
    Here(&'a [u8]),
    /// Among what is fetched.
    Extent(usize),
    Hole(u64),
}

impl Volume {
    /// What these hold, all of it, in order; directories hold nothing. Whoever asks makes sure that it is not too much for memory.
    /// What several have in common is fetched once. Blocks until the deadline at the latest.
    pub(crate) fn whole(&self, contents: &[&Content], deadline: Deadline) -> Result<Vec<Vec<u8>>, PortError> {
        let mut wanted: Vec<ExtentRef> = Vec::new();
        let mut places: BTreeMap<ExtentId, usize> = BTreeMap::new();
        let mut extent = |extent: &ExtentRef| {
            let place = *places.entry(extent.id()).or_insert_with(|| {
                wanted.push(extent.clone());
                wanted.len() - 1
            });
            Piece::Extent(place)
        };
        let mut files: Vec<Vec<Piece<'_>>> = Vec::new();
        for content in contents {
            files.push(match content {
                Content::Empty | Content::Directory(_) => Vec::new(),
                Content::Inline(bytes) | Content::Symlink(bytes) => vec![Piece::Here(bytes)],
                Content::Extent(only) => vec![extent(only)],
                Content::Runs { tree, .. } => {
                    let runs = self.runs(tree, 0..tree.weight, deadline)?;
                    let piece = |(_, run): (u64, Run)| match run {
                        Run::Data(data) => extent(&data),
                        Run::Hole(len) => Piece::Hole(len),
                    };
                    runs.into_iter().map(piece).collect()
                }
            });
        }
        let fetched = self.fetch(&wanted, deadline)?;
        let all = contents.iter().zip(files);
        all.map(|(content, pieces)| assemble(content.size(), &pieces, &fetched)).collect()
    }
}

fn assemble(size: u64, pieces: &[Piece<'_>], fetched: &[Bytes]) -> Result<Vec<u8>, PortError> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Here(here) => bytes.extend_from_slice(here),
            Piece::Extent(at) => bytes.extend_from_slice(fetched.get(*at).map_or(&[], |extent| extent)),
            Piece::Hole(len) => {
                let end = (bytes.len() as u64).saturating_add(*len).min(size);
                bytes.resize(usize::try_from(end).unwrap_or(usize::MAX).max(bytes.len()), 0);
            }
        }
    }
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(damaged(format!("a file of {size} bytes has {} of them", bytes.len()))),
    }
}

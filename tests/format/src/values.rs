//! The fixed keys and values that goldens are made of.

use bytes::Bytes;
use hypernet_core::id::{DeviceTag, ExtentId, FileId, PeerId, ShardId, VolumeId};
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::key::{DeviceKeys, RecoveryKeys, Secret, VolumeKeys};
use hypernet_core::node::{Hour, Standing, Standings};
use hypernet_core::seal::{ExtentRef, Kind, SealError, Sealer};
use hypernet_core::segment::{Holder, Placement, Segment};
use hypernet_core::time::{Timespec, UnixSeconds};
use hypernet_core::tree::{Content, DatedXattr, Dot, Entry, FileKind, Inode, Older, Sink, Source, Target, Xattr};

/// A volume.
pub fn volume() -> VolumeId {
    VolumeId([0x11; 16])
}

/// Its keys.
pub fn volume_keys() -> VolumeKeys {
    VolumeKeys::new(volume(), 3, Secret::new([0x22; 32]))
}

/// A device.
pub fn device() -> DeviceKeys {
    DeviceKeys::new(Secret::new([0x33; 32]))
}

/// What 24 words yield.
pub fn recovery() -> RecoveryKeys {
    Phrase::new(&Secret::new([0x55; 32])).keys("")
}

/// So many bytes that do not compress.
pub fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

/// A reference to a sealed extent.
pub fn extent(seed: u8) -> ExtentRef {
    let sealed = Sealer::new(&volume_keys()).prepare(Kind::Content, &[&[seed][..], &noise(99)].concat());
    match sealed {
        Ok(prepared) => prepared.reference,
        Err(error) => unreachable!("100 bytes can be sealed: {error}"),
    }
}

/// A segment on three peers.
pub fn placement() -> Placement {
    let rows = (1..=4).map(|i| ShardId([i; 32])).collect();
    let holders = (0..3).map(|row| Holder { row, peer: PeerId([0x50 + row; 32]), until: UnixSeconds(1_800_000_000) });
    Placement { segment: Segment { k: 2, shard_len: 4096, rows }, n: 3, holders: holders.collect() }
}

/// What is known of two peers.
pub fn standings() -> Standings {
    let standing = |byte: u8, departed: bool| Standing {
        peer: PeerId([byte; 32]),
        met: UnixSeconds(1_800_000_000),
        seen: 90_000_000_000,
        present: 80_000_000_000,
        hours: std::array::from_fn(|hour| Hour { online: 1_000_000 * hour as u32, watched: 40_000_000 }),
        good: 1_500,
        bad: 64,
        round_trip: (!departed).then_some(12_345),
        rate: (!departed).then_some(7_000_000),
        departed,
        leaving: departed,
    };
    let peers = vec![standing(0x51, false), standing(0x52, true)];
    Standings { watched: 100_000_000_000, departed: 3, peer_time: 900_000_000_000, peers }
}

/// A dot.
pub fn dot(sequence: u64) -> Dot {
    Dot { device: DeviceTag(0x0102_0304_0506_0708), sequence }
}

/// An inode with everything in it.
pub fn inode(kind: FileKind, content: Content) -> Inode {
    Inode {
        id: FileId::new(DeviceTag(7), 9),
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        rdev: 0,
        mtime: Timespec { seconds: -1, nanos: 999_999_999 },
        ctime: Timespec { seconds: 1_700_000_000, nanos: 1 },
        xattrs: vec![Xattr { name: b"user.note".to_vec(), value: vec![0, 0xff] }],
        content,
        meta_dot: dot(4),
        content_dot: Some(dot(3)),
        older: Some(Box::new(Older {
            mode: Some(dot(1)),
            owner: None,
            xattrs: vec![DatedXattr { name: b"user.note".to_vec(), dot: dot(2) }],
        })),
    }
}

/// The entries of a directory, one of each kind.
pub fn entries() -> Vec<Entry> {
    let file = |name: &[u8], kind, content| Entry {
        name: name.to_vec(),
        dot: dot(2),
        target: Target::Inode(Box::new(inode(kind, content))),
    };
    vec![
        file(b"empty", FileKind::Regular, Content::Empty),
        file(b"extent", FileKind::Regular, Content::Extent(extent(1))),
        file(b"inline", FileKind::Regular, Content::Inline(b"hello\n".to_vec())),
        Entry { name: b"linked".to_vec(), dot: dot(1), target: Target::Link(FileId::new(DeviceTag(7), 10)) },
        Entry {
            name: b"other".to_vec(),
            dot: dot(2),
            target: Target::Volume { volume: VolumeId([8; 16]), id: FileId::new(DeviceTag(7), 11) },
        },
        file(b"symlink", FileKind::Symlink, Content::Symlink(b"../target".to_vec())),
        file(&[0x80, 0xff], FileKind::Fifo, Content::Empty),
    ]
}

/// An id of an extent.
pub fn extent_id(byte: u8) -> ExtentId {
    ExtentId([byte; 32])
}

/// Keeps the nodes of a tree as they were before sealing, newest last.
#[derive(Default)]
pub struct Nodes(pub Vec<(ExtentRef, Bytes)>);

impl Sink for Nodes {
    type Error = SealError;
    fn put(&mut self, kind: Kind, plain: &[u8]) -> Result<ExtentRef, SealError> {
        let reference = Sealer::new(&volume_keys()).prepare(kind, plain)?.reference;
        self.0.push((reference.clone(), Bytes::copy_from_slice(plain)));
        Ok(reference)
    }
}

impl Source for Nodes {
    type Error = SealError;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, SealError> {
        refs.iter()
            .map(|wanted| {
                let found = self.0.iter().find(|(reference, _)| reference == wanted);
                found.map(|(_, bytes)| bytes.to_vec()).ok_or(SealError::Tag)
            })
            .collect()
    }
}

//! One function per decoder of bytes from outside. `cargo fuzz` drives them with a sanitizer; `tests/fuzz` drives the
//! same over seeded mutations in every test run.
//!
//! Some are not here: invite links, addresses, codes, what is said in meetings, and keystores belong to the agent, which is a program and no library, and whose
//! dependencies (libp2p, SQLite, age) would have to be built with the sanitizer to reach a hundred lines. What parses
//! below those lines is libp2p's and age's, or the codec that is under test here. `agent/src/{invite,keystore}.rs`,
//! `agent/src/people/address.rs` and `agent/src/pairing` run the same mutations over all of them in every test run.
//!
//! Each must return whatever the bytes are, and what it accepts must survive being written and read again.

use std::fmt::Debug;
use std::sync::LazyLock;

use bytes::Bytes;
use hypernet_core::audit;
use hypernet_core::catalog::{IndexPage, Manifest, PageKind, PlacementPage};
use hypernet_core::codec::{self, Format};
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::id::{EntryId, FileId, IdentityId, ShardId, VolumeId};
use hypernet_core::identity::log::Log;
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::place::{Notice, Signpost};
use hypernet_core::identity::posting::Posting;
use hypernet_core::identity::proof::Proof;
use hypernet_core::identity::share::{Share, Shares};
use hypernet_core::key::Secret;
use hypernet_core::record::Record;
use hypernet_core::seal::{ExtentRef, Kind};
use hypernet_core::segment::Placement;
use hypernet_core::share::epoch::Epochs;
use hypernet_core::share::members;
use hypernet_core::share::offer::{Boxes, LinkNotice, Offers};
use hypernet_core::share::posting::SharePosting;
use hypernet_core::tree::{self, Entry, Item, LinkEntry, Name, Root, Run, Source, TreeRef};
use hypernet_core::wire::{self, Request, Response};
use minicbor::{Decode, Encode};

/// A decoder under test.
pub struct Target {
    /// Its name; `fuzz_targets/<name>.rs` is its program.
    pub name: &'static str,
    /// The tag of its format, if it has a frame.
    pub tag: Option<u8>,
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 24] = [
    Target { name: "request", tag: Some(0x20), run: request },
    Target { name: "response", tag: Some(0x21), run: response },
    Target { name: "record", tag: Some(0x10), run: record },
    Target { name: "tree_node", tag: Some(0x30), run: tree_node },
    Target { name: "root", tag: Some(0x31), run: round_trip::<Root> },
    Target { name: "snapshot", tag: Some(0x32), run: snapshot },
    Target { name: "head", tag: Some(0x33), run: head },
    Target { name: "posting", tag: Some(0x34), run: posting },
    Target { name: "placement", tag: Some(0x40), run: placement },
    Target { name: "pages", tag: Some(0x41), run: pages },
    Target { name: "manifest", tag: Some(0x43), run: manifest },
    Target { name: "sealed", tag: None, run: sealed },
    Target { name: "roster_log", tag: Some(0x35), run: roster_log },
    Target { name: "signpost", tag: Some(0x36), run: round_trip::<Signpost> },
    Target { name: "notice", tag: Some(0x37), run: round_trip::<Notice> },
    Target { name: "proof", tag: Some(0x39), run: round_trip::<Proof> },
    Target { name: "member_log", tag: Some(0x60), run: member_log },
    Target { name: "epochs", tag: Some(0x61), run: round_trip::<Epochs> },
    Target { name: "share_posting", tag: Some(0x62), run: round_trip::<SharePosting> },
    Target { name: "offers", tag: Some(0x63), run: round_trip::<Offers> },
    Target { name: "boxes", tag: Some(0x64), run: round_trip::<Boxes> },
    Target { name: "link_notice", tag: Some(0x65), run: round_trip::<LinkNotice> },
    Target { name: "share", tag: Some(0x3a), run: share },
    Target { name: "audit", tag: None, run: audit },
];

/// What is accepted reads the same after it was written again.
fn round_trip<T>(data: &[u8])
where
    T: Format + Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    if let Ok(value) = codec::decode::<T>(data) {
        let again = codec::encode(&value);
        // A shorter encoding of the same value is accepted, so the bytes may differ, but never the value.
        assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
    }
}

/// Who may do what in the volume that it says it is of; what it comes to is worked out, too.
pub fn member_log(data: &[u8]) {
    // The frame, the volume and the beginning stand at fixed places.
    let (Some(volume), Some(begin)) = (data.get(4..20), data.get(22..54)) else { return };
    let (Some(volume), Some(begin)) = (VolumeId::from_slice(volume), EntryId::from_slice(begin)) else { return };
    if let Ok(log) = members::Log::decode(data, volume, begin) {
        let _ = log.members(&|author| author.device.0[0] & 1 == 0);
        assert_eq!(members::Log::decode(&log.encode(), volume, begin).as_ref(), Ok(&log));
    }
}

/// The header of a request, with and without a body; the lengths before it.
pub fn request(data: &[u8]) {
    for body in [Bytes::new(), Bytes::from_static(b"body")] {
        if let Ok(request) = Request::from_parts(data, body) {
            let (header, body) = request.to_parts();
            assert_eq!(Request::from_parts(&header, body).as_ref(), Ok(&request));
            assert!(request.weight() <= hypernet_core::limits::SHARD_MAX);
        }
    }
    if let Some(prefix) = data.first_chunk()
        && let Ok((header, body)) = wire::lengths(*prefix)
    {
        assert!(header <= hypernet_core::limits::WIRE_HEADER_MAX && body <= hypernet_core::limits::WIRE_BODY_MAX);
    }
}

/// A proof of a chunk of a shard whose address is known: only the one that its holder makes is one. And bytes as a shard: each of
/// its chunks can be proven.
pub fn audit(data: &[u8]) {
    const LEN: usize = 5_000;
    static SHARD: LazyLock<(Vec<u8>, ShardId)> = LazyLock::new(|| {
        let bytes: Vec<u8> = (0..LEN).map(|i| (i * 31 % 251) as u8).collect();
        let id = ShardId(*blake3::hash(&bytes).as_bytes());
        (bytes, id)
    });
    let (shard, id) = &*SHARD;
    let Some((first, proof)) = data.split_first() else { return };
    let chunk = u32::from(first % 8);
    let is_right = audit::verify(id, LEN as u32, chunk, proof);
    assert_eq!(is_right, audit::prove(shard, chunk).is_some_and(|right| right == proof));
    let of = ShardId(*blake3::hash(data).as_bytes());
    if let Some(proof) = audit::prove(data, chunk) {
        assert!(
            audit::verify(&of, data.len() as u32, chunk, &proof)
                && !audit::verify(id, data.len() as u32, chunk, &proof)
        );
    }
}

/// The header of a response.
pub fn response(data: &[u8]) {
    for body in [Bytes::new(), Bytes::from_static(b"body")] {
        if let Ok(response) = Response::from_parts(data, body) {
            let (header, body) = response.to_parts();
            assert_eq!(Response::from_parts(&header, body), Ok(response));
        }
    }
}

/// A record from the DHT.
pub fn record(data: &[u8]) {
    round_trip::<Record>(data);
    if let Ok(record) = Record::verify(data) {
        assert!(Record::verify_under(&record.key(), data).is_ok());
    }
}

/// Gives one node for every reference.
struct Same<'a>(&'a [u8]);

impl Source for Same<'_> {
    type Error = std::convert::Infallible;
    fn get(&self, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, Self::Error> {
        Ok(vec![self.0.to_vec(); refs.len().min(64)])
    }
}

fn walk<T: Item>(data: &[u8], node: &ExtentRef, key: &T::Key) {
    for (depth, weight) in [(0, 3), (1, u64::MAX), (200, 0)] {
        let tree = TreeRef { node: node.clone(), depth, weight };
        let _ = tree::list::<T, _>(&tree, &Same(data));
        let _ = tree::range::<T, _>(&tree, &Same(data), 1, 2);
        let _ = tree::find::<T, _>(&tree, &Same(data), key);
        let _ = tree::node_refs::<T, _>(&tree, &Same(data));
    }
}

/// A node of a directory, a file or a link table.
pub fn tree_node(data: &[u8]) {
    if let Some(node) = reference() {
        walk::<Entry>(data, &node, &Name(b"inline".to_vec()));
        walk::<Run>(data, &node, &());
        walk::<LinkEntry>(data, &node, &FileId::ROOT);
    }
}

/// Any reference: what it leads to is the data.
fn reference() -> Option<ExtentRef> {
    use hypernet_core::id::VolumeId;
    use hypernet_core::key::{Secret, VolumeKeys};
    let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
    let prepared = hypernet_core::seal::Sealer::new(&keys).prepare(Kind::Node, b"any");
    prepared.ok().map(|prepared| prepared.reference)
}

/// A signed snapshot.
pub fn snapshot(data: &[u8]) {
    round_trip::<Snapshot>(data);
    let _ = Snapshot::verify(data);
}

/// What is inside a head's record.
pub fn head(data: &[u8]) {
    round_trip::<Head>(data);
    if let Ok(head) = codec::decode::<Head>(data) {
        let _ = head.manifest_placement.is_sound();
        let _ = head.manifest_placement.segment.id();
    }
}

/// The identity that the golden log and posting are of.
static IDENTITY: LazyLock<IdentityId> = LazyLock::new(|| Phrase::new(&Secret::new([0x55; 32])).keys("").id());

/// Devices and where their heads are.
pub fn posting(data: &[u8]) {
    if let Ok(posting) = Posting::decode(data, &IDENTITY) {
        assert_eq!(Posting::decode(&posting.encode(), &IDENTITY).as_ref(), Ok(&posting));
    }
}

/// The changes of a list of devices.
pub fn roster_log(data: &[u8]) {
    if let Ok(log) = Log::decode(data, &IDENTITY) {
        assert_eq!(Log::decode(&log.encode(), &IDENTITY).as_ref(), Ok(&log));
        assert!(log.roster().devices.iter().all(|device| !log.roster().gone.contains(device)));
    }
}

/// A segment and its holders.
pub fn placement(data: &[u8]) {
    round_trip::<Placement>(data);
    if let Ok(placement) = codec::decode::<Placement>(data) {
        let _ = placement.is_sound();
        let _ = placement.segment.payload_len();
    }
}

/// Pages of the index and of the placement log.
pub fn pages(data: &[u8]) {
    round_trip::<IndexPage>(data);
    let mut other = data.to_vec();
    if let Some(tag) = other.first_mut() {
        *tag = PlacementPage::TAG;
    }
    round_trip::<PlacementPage>(&other);
    round_trip::<PlacementPage>(data);
}

/// All pages of a catalog.
pub fn manifest(data: &[u8]) {
    round_trip::<Manifest>(data);
    if let Ok(mut manifest) = codec::decode::<Manifest>(data)
        && manifest.is_sound()
    {
        manifest.prune();
        let _ = manifest.reopen(PageKind::Index, 100, 1);
        for listing in manifest.fold(0) {
            assert!(listing.manifest.is_sound());
        }
        assert!(manifest.is_sound());
    }
}

/// What a guardian hands over.
pub fn share(data: &[u8]) {
    round_trip::<Share>(data);
    if let Ok(share) = codec::decode::<Share>(data) {
        let mut shares = Shares::default();
        assert_eq!(shares.take(share.clone()).is_ok(), share.verify().is_ok());
        assert!(shares.words("").is_err(), "one is never enough");
    }
}

/// A reference and the ciphertext it names, both from someone who wishes us ill.
pub fn sealed(data: &[u8]) {
    let mut decoder = minicbor::Decoder::new(data);
    if let Ok(reference) = decoder.decode::<ExtentRef>() {
        let rest = data.get(decoder.position()..).unwrap_or_default();
        if let Ok(plain) = reference.open(rest) {
            assert_eq!(plain.len(), reference.len as usize);
        }
    }
}

//! Goldens of what is persisted: trees, snapshots, heads, rosters, records, and the catalog.

use std::convert::Infallible;

use hypernet_core::catalog::{Contents, IndexPage, IndexRow, Manifest, PageKind, PageRef, PlacementPage, PlacementRow};
use hypernet_core::codec;
use hypernet_core::custody::{Appointment, Move, Moves, MovesPage, PlacedPage, Wards};
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::history::{By, Edit, Kept, Tag};
use hypernet_core::id::{HomeNumber, IdentityId, PeerId, ShareSetId, SnapshotId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::{Door, Era};
use hypernet_core::identity::log::{Author, Change, Device, Log, NewEra, Recipient};
use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::place::{Address, Notice, Place, Signpost};
use hypernet_core::identity::posting::{Posting, way_hash};
use hypernet_core::identity::proof::{Proof, Transcript};
use hypernet_core::identity::share::{Share, Shares, Terms, split};
use hypernet_core::key::{DeviceKeys, Secret};
use hypernet_core::record::Record;
use hypernet_core::seal::{ExtentRef, Kind};
use hypernet_core::share;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{self, Content, FileKind, Item, LinkEntry, Root, Run, TreeRef};
use rand_core::{TryCryptoRng, TryRng};

use crate::values::{
    Nodes, device, dot, entries, extent, extent_id, inode, placement, recovery, standings, volume, volume_keys,
};
use crate::{Golden, framed};

const TIME: Hlc = Hlc { millis: 1_700_000_000_123, counter: 5 };

/// A golden of the root node of the tree over `items`.
fn node<T: Item + PartialEq + 'static>(name: &'static str, items: Vec<T>) -> Golden {
    let mut nodes = Nodes::default();
    let built = tree::build(items.clone(), &mut nodes);
    let tree = built.ok();
    let bytes = nodes.0.last().map(|(_, bytes)| bytes.to_vec()).unwrap_or_default();
    Golden {
        name,
        tag: Some(0x30),
        format: "tree node",
        bytes,
        check: Box::new(move |golden| {
            // The last node made is the root: give the golden bytes in its place and read the whole tree.
            let tree: &TreeRef = tree.as_ref().ok_or("the tree could not be built")?;
            let mut kept = Nodes(nodes.0.clone());
            kept.0.retain(|(reference, _)| *reference != tree.node);
            kept.0.push((tree.node.clone(), golden.to_vec().into()));
            let read = tree::list::<T, _>(tree, &kept).map_err(|error| error.to_string())?;
            if read != items {
                return Err(format!("it reads as {read:?}"));
            }
            // The first keys in a branch guide lookups only, so listing does not notice them: build it again.
            let mut again = Nodes::default();
            let _ = tree::build(read, &mut again);
            match again.0.last().is_some_and(|(_, bytes)| bytes == golden) {
                true => Ok(()),
                false => Err("the same items make another node".into()),
            }
        }),
    }
}

fn links() -> Vec<LinkEntry> {
    vec![LinkEntry { inode: inode(FileKind::Regular, Content::Extent(extent(2))), links: 3 }]
}

fn root() -> Root {
    let tree = TreeRef { node: extent(4), depth: 1, weight: 6 };
    Root {
        volume: volume(),
        inode: inode(FileKind::Directory, Content::Directory(tree.clone())),
        links: Some(TreeRef { depth: 0, weight: 1, ..tree }),
        vector: vec![dot(12)],
        parts: vec![extent(6), extent(7)],
        history: Some(TreeRef { node: extent(8), depth: 0, weight: 3 }),
        tags: Some(TreeRef { node: extent(9), depth: 0, weight: 1 }),
    }
}

fn kept() -> Vec<Kept> {
    vec![Kept { snapshot: snapshot(), dot: dot(3), by: By::Policy }]
}

fn tags() -> Vec<Tag> {
    vec![Tag { name: "v1".into(), to: snapshot().id(), time: TIME, dot: dot(4) }]
}

fn snapshot() -> Snapshot {
    let parents = vec![SnapshotId([0x61; 32]), SnapshotId([0x62; 32])];
    Snapshot::sign(&device().signing_key(), extent(5), parents, TIME, "first light".into())
}

fn head() -> Head {
    Head {
        volume: volume(),
        device: device().id(),
        sequence: 9,
        time: TIME,
        seen: vec![dot(8)],
        vector: vec![dot(7)],
        snapshot: SnapshotId([0x63; 32]),
        snapshot_extent: extent(6),
        manifest: extent(7),
        manifest_placement: placement(),
        asks: 7,
        home: HomeNumber(5),
        copied: 6,
        signature: [0x77; 64],
    }
}

/// Sealed ways to eras.
const WAYS: [&[u8]; 2] = [b"the first way", b"the second way"];

/// A list of devices that four changes led to; only one is on it.
fn log() -> Log {
    let recipient = |byte| Recipient::X25519([byte; 32]);
    let one = |byte: u8, name: &str| {
        let key = DeviceKeys::new(Secret::new([byte; 32])).signing_key();
        Change::Enrol(Device::sign(&recovery().id(), &key, recipient(byte), name.into(), [byte; 32]))
    };
    let era = |byte, way: &[u8]| Some(NewEra { recipient: recipient(byte), way: way_hash(way) });
    let mut log = Log::new(recovery().id());
    let signed = [
        log.change(Author::Phrase, &recovery().signing_key(), TIME, one(0x33, "laptop"), era(1, WAYS[0])),
        log.change(Author::Device(device().id()), &device().signing_key(), TIME, one(0x34, "phone"), None),
        log.change(
            Author::Device(device().id()),
            &device().signing_key(),
            TIME,
            Change::Revoke(DeviceKeys::new(Secret::new([0x34; 32])).id()),
            era(2, WAYS[1]),
        ),
        log.change(Author::Phrase, &recovery().signing_key(), TIME, Change::Rotate, era(3, b"a third way")),
    ];
    if signed.iter().all(Result::is_ok) { log } else { Log::new(recovery().id()) }
}

/// The same, begun anew.
fn log_anew() -> Log {
    let mut log = log();
    let Some(device) = log.roster().devices.first().cloned() else { return log };
    let era = Some(NewEra { recipient: Recipient::X25519([4; 32]), way: way_hash(b"a fourth way") });
    let begin = log.anew(device);
    let signed = log.change(Author::Phrase, &recovery().signing_key(), TIME, begin, era);
    if signed.is_ok() { log } else { Log::new(recovery().id()) }
}

fn roster_log(name: &'static str, make: fn() -> Log) -> Golden {
    Golden {
        name,
        tag: Some(0x35),
        format: "roster log",
        bytes: make().encode(),
        check: Box::new(move |golden| match Log::decode(golden, &recovery().id()) {
            Ok(read) if read == make() => Ok(()),
            Ok(read) => Err(format!("it reads as {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

fn posting() -> Golden {
    let mut posting = Posting::new(log());
    WAYS.iter().for_each(|way| posting.add_way(way.to_vec()));
    Golden {
        name: "posting",
        tag: Some(0x34),
        format: "posting",
        bytes: posting.encode(),
        check: Box::new(move |golden| match Posting::decode(golden, &recovery().id()) {
            Ok(read) if read == posting => Ok(()),
            Ok(read) => Err(format!("it reads as {read:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

fn place() -> Place {
    Place::new(Secret::new([0x66; 32]))
}

fn door() -> Door {
    Door { roster: [0x67; 32], end: [0x68; 32] }
}

fn record_of_a_notice() -> Golden {
    let key = place().sealing_key();
    let record = Notice::Ended(door()).publish(&place(), &key, 0);
    published("record-of-a-notice", record.ok(), Notice::Ended(door()), move |record| {
        Notice::open(record, &key).map_err(|error| error.to_string())
    })
}

/// A signpost, and its record.
fn signposts() -> [Golden; 2] {
    let words = Recipient::X25519([0x69; 32]);
    let expected = Signpost::sign(door(), words, &recovery());
    let record = Signpost::publish(door(), words, &recovery(), 1_700_000_000_000);
    let record = published("record-of-a-signpost", record.ok(), expected.clone(), |record| {
        Signpost::open(record, &Address::of(&recovery())).map_err(|error| error.to_string())
    });
    [framed("signpost", expected), record]
}

fn beacon() -> Golden {
    let share = Secret::new([0x75; 32]);
    let told = Beacon::new(&device(), door(), &[volume_keys()], &[(volume(), share.clone())], true);
    // As many as leave no place that is for nobody.
    let contacts: Vec<Secret> = (0..8).map(|i| Secret::new([0x80 + i; 32])).collect();
    let peers = [PeerId([0x76; 32])];
    let told = told.and_then(|told| told.tell_peers(&device(), &peers, &contacts));
    let bytes = told.map(|told| codec::encode(&told)).unwrap_or_default();
    let signer = device().head_signer(&volume_keys());
    let poster = share::posting::place(&device(), &volume()).signer();
    let offers = share::offer::place(&device()).signer();
    Golden {
        name: "beacon",
        tag: Some(0x38),
        format: "beacon",
        bytes,
        check: Box::new(move |golden| {
            let told: Beacon = codec::decode(golden).map_err(|error| error.to_string())?;
            let (id, keys) = (device().id(), volume_keys());
            let leads = (
                told.door,
                told.head_signer(&id, &keys),
                told.poster(&id, &volume(), &share),
                told.offers.map(|at| at.0),
                contacts.iter().all(|contact| told.peers(&id, contact) == peers),
            );
            match leads == (door(), Some(signer), Some(poster), Some(offers), true) {
                true => Ok(()),
                false => Err("it does not lead where the device puts things".into()),
            }
        }),
    }
}

fn snapshot_signature() -> Golden {
    let bytes = codec::encode(&snapshot());
    let id = snapshot().id();
    Golden {
        name: "snapshot-id",
        tag: None,
        format: "snapshot",
        bytes: id.0.to_vec(),
        check: Box::new(move |golden| match Snapshot::verify(&bytes) {
            Ok(snapshot) if snapshot.id().0[..] == *golden => Ok(()),
            Ok(_) => Err("it has another id".into()),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// A record as the mesh keeps it, which opens to what was published.
fn published<T: PartialEq + 'static>(
    name: &'static str,
    record: Option<Record>,
    expected: T,
    open: impl Fn(&Record) -> Result<T, String> + 'static,
) -> Golden {
    Golden {
        name,
        tag: Some(0x10),
        format: "record",
        bytes: record.map(|record| codec::encode(&record)).unwrap_or_default(),
        check: Box::new(move |golden| {
            let record = Record::verify(golden).map_err(|error| error.to_string())?;
            match open(&record)? == expected {
                true => Ok(()),
                false => Err("it opens to something else".into()),
            }
        }),
    }
}

fn published_head() -> Golden {
    let expected = (head().snapshot, head().manifest, head().manifest_placement);
    published("record-of-a-head", head().publish(&device(), &volume_keys()).ok(), expected, |record| {
        let head = Head::open(record, &device().id(), &volume_keys()).map_err(|error| error.to_string())?;
        Ok((head.snapshot, head.manifest, head.manifest_placement))
    })
}

/// Always the same: what it gives does not depend on how much of it is asked for.
struct Same;

impl TryRng for Same {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x5a5a_5a5a)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x5a5a_5a5a_5a5a_5a5a)
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(0x5a);
        Ok(())
    }
}

impl TryCryptoRng for Same {}

/// The first of three shares of the words that [`recovery`] is made of. It gives them back together with the third.
fn share() -> Golden {
    let words = Phrase::new(&Secret::new([0x55; 32]));
    let terms = Terms { set: ShareSetId([0x6a; 16]), made: TIME, threshold: 2 };
    let guardians: Vec<_> = (1..=3).map(|i| (IdentityId([i; 32]), format!("guardian {i}"))).collect();
    let made = split(&words, "", &terms, &guardians, Same).unwrap_or_default();
    let bytes = made.first().map(codec::encode).unwrap_or_default();
    Golden {
        name: "share",
        tag: Some(0x3a),
        format: "share",
        bytes,
        check: Box::new(move |golden| {
            let share = codec::decode::<Share>(golden).map_err(|error| error.to_string())?;
            let mut all = Shares::default();
            for share in made.last().cloned().into_iter().chain([share]) {
                all.take(share).map_err(|error| error.to_string())?;
            }
            match all.words("") {
                Ok(found) if found == words => Ok(()),
                Ok(_) => Err("it gives other words".into()),
                Err(error) => Err(error.to_string()),
            }
        }),
    }
}

pub(crate) fn all() -> Vec<Golden> {
    let signed = Record::sign(&device().head_record_key(&volume_keys()), 9, b"a sealed payload".to_vec());
    let page = |kind, level, from, to| {
        let extent = ExtentRef { kind: if level == 0 { Kind::Page } else { Kind::Manifest }, ..extent(8) };
        PageRef { kind, level, extent, segment: 0, offset: 4096, from, to, rows: 10 }
    };
    let row = |byte, offset| IndexRow { id: extent_id(byte), offset, len: 65_552 };
    let big: Vec<LinkEntry> = (0..400u64)
        .map(|i| {
            let mut inode = inode(FileKind::Regular, Content::Empty);
            inode.id = hypernet_core::id::FileId::new(hypernet_core::id::DeviceTag(7), i);
            LinkEntry { inode, links: 2 }
        })
        .collect();
    let mut all: Vec<Golden> = signed.into_iter().map(|record| framed("record", record)).collect();
    all.extend(signposts());
    all.extend([
        node("node-directory", entries()),
        node("node-file", vec![Run::Data(extent(1)), Run::Hole(1 << 40), Run::Data(extent(2))]),
        node("node-links", links()),
        node("node-of-a-history", kept()),
        node("node-of-tags", tags()),
        node("node-branch", big),
        framed("root", root()),
        framed("snapshot", snapshot()),
        framed("history-keep", Edit::Keep { snapshot: snapshot(), by: By::Policy }),
        framed("history-forget", Edit::Forget(kept()[0].moment())),
        framed("history-name", Edit::Name { name: "v1".into(), to: snapshot().id(), time: TIME }),
        framed("history-unname", Edit::Unname { name: "v1".into(), of: snapshot().id() }),
        snapshot_signature(),
        framed("head", head()),
        published_head(),
        posting(),
        roster_log("roster-log", log),
        roster_log("roster-log-anew", log_anew),
        framed("proof", Proof::sign(recovery().id(), &device(), &Transcript([7; 32]))),
        share(),
        framed("notice-here", Notice::Here(b"a sealed keystore".to_vec())),
        framed("notice-placed", Notice::Placed(extent(9), placement())),
        framed("notice-ended", Notice::Ended(door())),
        record_of_a_notice(),
        beacon(),
        framed("era", Era::new(3, Secret::new([0x69; 32]))),
        framed("placement", placement()),
        framed("standings", standings()),
        framed(
            "index-page",
            IndexPage {
                segments: vec![
                    Contents { number: 17, rows: vec![row(0x71, 0), row(0x72, 70_000)] },
                    Contents { number: 300, rows: vec![row(0x73, 4096)] },
                ],
            },
        ),
        framed("wards", wards()),
        framed("moves", Moves { pages: vec![PlacedPage { extent: extent(10), placement: placement() }] }),
        framed(
            "moves-page",
            MovesPage { moves: vec![Move { segment: placement().segment.id(), holder: placement().holders[0] }] },
        ),
        framed("placement-page", PlacementPage { rows: vec![PlacementRow { number: 300, placement: placement() }] }),
        framed(
            "manifest",
            Manifest {
                segments: vec![placement()],
                pages: vec![
                    page(PageKind::Index, 1, 0, 200),
                    page(PageKind::Index, 0, 200, 301),
                    page(PageKind::Placement, 0, 0, 301),
                ],
            },
        ),
    ]);
    all
}

fn wards() -> Wards {
    let ward = Appointment::new(Secret::new([0x96; 32])).ward(&volume(), &device().id());
    Wards { wards: vec![ward], custodians: vec![hypernet_core::id::PeerId([0x97; 32])] }
}

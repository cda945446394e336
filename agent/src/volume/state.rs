//! What a device remembers of its own heads: the counterpart of the head on the mesh.

use std::collections::BTreeSet;

use hypernet_core::catalog::Manifest;
use hypernet_core::codec::{self, Format};
use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, EntryId, HomeNumber, SnapshotId, VolumeId};
use hypernet_core::merge::{covers_all, join};
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::seal::ExtentRef;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{Dot, Root, TreeRef};
use hypernet_store::volume::VolumeDb;
use minicbor::{Decode, Encode};

use super::damaged;
use super::heads::sequence_of;

/// The key of [`Latest`].
pub(crate) const LATEST: &str = "latest";
const ORIGIN: &str = "origin";
const FOLLOWING: &str = "following";
const MERGING: &str = "merging";
const REKEYING: &str = "rekeying";
const HANDED: &str = "handed";
const ACKNOWLEDGED: &str = "acknowledged";
const SPENT: &str = "spent";
const STOOD: &str = "stood";
const NAMED: &str = "named";
const TWINS: &str = "twins";
const HOMES: &str = "homes";
const HANDED_TREE: &str = "handed-tree";
const OPENS: &str = "opens";
const ASKS: &str = "asks";
/// Where the number of the head is filed that knows all that was moved away from peers that stop storing for others.
const MOVED_AWAY: &str = "moved-away";
const LEASED_AFTER: &str = "leased-after";

/// Heads that are kept for each reason.
const NAMED_MAX: usize = 64;
/// Trees that are remembered after this device has moved on,
const STOOD_MAX: usize = 512;
/// and numbers in the vectors of all of them.
const STOOD_DOTS_MAX: usize = 8_192;

/// The newest durable state of the volume as this device knows it.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Latest {
    #[n(0)]
    pub(crate) snapshot: SnapshotId,
    #[n(1)]
    pub(crate) root: Root,
    #[n(2)]
    pub(crate) manifest: Manifest,
    #[n(3)]
    pub(crate) time: Hlc,
    /// The head as published: by this device, or the one it recovered from.
    #[n(4)]
    pub(crate) head: Head,
}
hypernet_core::format!(Latest, tag = 0x51, version = 1, max = 4 << 20, name = "latest state");

/// What is filed by this name.
fn get<T: Format + for<'b> Decode<'b, ()>>(db: &VolumeDb, what: &str) -> Result<Option<T>, PortError> {
    db.get_state(what)?.map(|bytes| codec::decode(&bytes).map_err(damaged)).transpose()
}

pub(crate) fn latest(db: &VolumeDb) -> Result<Option<Latest>, PortError> {
    get(db, LATEST)
}

pub(crate) fn put_latest(db: &VolumeDb, latest: &Latest) -> Result<(), PortError> {
    let changes = stands_on(db, latest)?;
    let changes: Vec<(&str, Option<&[u8]>)> = changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
    Ok(db.put_states(&changes)?)
}

/// Where a volume that was split off another on this device, or is a branch of one, comes from. It is there until its index knows all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Origin {
    /// The newest head of this device then, of the volume that its root has a name in. Only a later one has that name.
    #[n(0)]
    pub(crate) head: u64,
    /// The version vector of what was there. Dots in what is taken over are from before, whatever they say.
    #[n(1)]
    pub(crate) vector: Vec<Dot>,
    /// The link table of what was there.
    #[n(2)]
    pub(crate) links: Option<TreeRef>,
    /// Of a branch: the history that it begins with.
    #[n(3)]
    pub(crate) history: Option<TreeRef>,
    #[n(4)]
    pub(crate) tags: Option<TreeRef>,
    /// Of a branch: the volume that has all of that, once it is on the mesh.
    #[n(5)]
    pub(crate) of: Option<VolumeId>,
}
impl Origin {
    /// The link table that the first tree has changes of: that of a branch. Where a directory has become a volume all of it is new there,
    /// and what several volumes have names of is none of it.
    pub(crate) fn table(&self) -> Option<&TreeRef> {
        self.links.as_ref().filter(|_| self.of.is_some())
    }
}

hypernet_core::format!(Origin, tag = 0x55, version = 2, max = 64 << 10, name = "origin of a volume");

/// Since which head of this device it asks the others to publish one, too, that has seen it; 0: since its next one.
pub(crate) fn asks(db: &VolumeDb) -> Result<Option<u64>, PortError> {
    let bytes = db.get_state(ASKS)?;
    let number =
        bytes.map(|bytes| bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged("a number is cut short")));
    number.transpose()
}

/// The head of this device since which its catalog knows where all is that was moved away from peers that stop storing for others; 0:
/// its next one. None where nothing was moved.
pub(crate) fn handed(db: &VolumeDb) -> Result<Option<u64>, PortError> {
    let bytes = db.get_state(MOVED_AWAY)?;
    let number =
        bytes.map(|bytes| bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged("a number is cut short")));
    number.transpose()
}

pub(crate) fn put_handed(db: &VolumeDb, since: u64) -> Result<(), PortError> {
    Ok(db.put_state(MOVED_AWAY, &since.to_be_bytes())?)
}

/// How many devices had been taken off when this one last took leases of all that is in the volume.
pub(crate) fn leased_after(db: &VolumeDb) -> Result<u64, PortError> {
    let bytes = db.get_state(LEASED_AFTER)?;
    let number =
        bytes.map(|bytes| bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged("a number is cut short")));
    Ok(number.transpose()?.unwrap_or(0))
}

pub(crate) fn put_leased_after(db: &VolumeDb, gone: u64) -> Result<(), PortError> {
    Ok(db.put_state(LEASED_AFTER, &gone.to_be_bytes())?)
}

pub(crate) fn ask(db: &VolumeDb, since: Option<u64>) -> Result<(), PortError> {
    let bytes = since.map(u64::to_be_bytes);
    if db.get_state(ASKS)?.as_deref() == bytes.as_ref().map(|bytes| &bytes[..]) {
        return Ok(());
    }
    Ok(db.put_states(&[(ASKS, bytes.as_ref().map(|bytes| &bytes[..]))])?)
}

pub(crate) fn origin(db: &VolumeDb) -> Result<Option<Origin>, PortError> {
    get(db, ORIGIN)
}

pub(crate) fn put_origin(db: &VolumeDb, origin: &Origin) -> Result<(), PortError> {
    Ok(db.put_state(ORIGIN, &codec::encode(origin))?)
}

pub(crate) fn forget_origin(db: &VolumeDb) -> Result<(), PortError> {
    if db.get_state(ORIGIN)?.is_some() {
        db.put_states(&[(ORIGIN, None)])?;
    }
    Ok(())
}

/// The head of another device that this one is moving on to.
pub(crate) fn following(db: &VolumeDb) -> Result<Option<Latest>, PortError> {
    get(db, FOLLOWING)
}

pub(crate) fn put_following(db: &VolumeDb, next: &Latest) -> Result<(), PortError> {
    Ok(db.put_state(FOLLOWING, &codec::encode(next))?)
}

pub(crate) fn forget_following(db: &VolumeDb) -> Result<(), PortError> {
    Ok(db.put_states(&[(FOLLOWING, None)])?)
}

/// From which homes of this device what it has done comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Homes {
    /// This one.
    #[n(0)]
    current: HomeNumber,
    /// Up to which number there is something from those that this one was copied from, and they from others.
    #[n(1)]
    before: Vec<Dot>,
}
hypernet_core::format!(Homes, tag = 0x71, version = 1, max = 64 << 10, name = "homes of before");

/// What this home has all of, from those that it was copied from: whatever they were about to publish is in its tree, or was taken
/// away here. Remembered, durably, when it is opened for the first time.
pub(crate) fn homes_before(
    db: &VolumeDb,
    device: &DeviceId,
    volume: VolumeId,
    home: HomeNumber,
) -> Result<Vec<Dot>, PortError> {
    let before = get::<Homes>(db, HOMES)?;
    let mut homes = match before {
        Some(homes) if homes.current == home => return Ok(homes.before),
        Some(homes) => homes,
        None => Homes { current: home, ..Homes::default() },
    };
    if homes.current != home {
        let sequence = next_sequence(db, device)?.saturating_sub(1);
        let dot = Dot { device: device.tag_in(volume).of_home(homes.current), sequence };
        homes.before = join([&homes.before[..], &[dot][..if sequence > 0 { 1 } else { 0 }]]);
        homes.current = home;
    }
    db.put_state(HOMES, &codec::encode(&homes))?;
    Ok(homes.before)
}

/// Heads of which this device's tree may not have all: those that removals by it name, or those of another home of it.
#[derive(Clone, Debug, Default, Encode, Decode)]
#[cbor(array)]
struct Named {
    #[n(0)]
    heads: Vec<Head>,
}
hypernet_core::format!(Named, tag = 0x5d, version = 1, max = 4 << 20, name = "heads that are kept");

pub(crate) fn named(db: &VolumeDb) -> Result<Vec<Head>, PortError> {
    Ok(get::<Named>(db, NAMED)?.unwrap_or_default().heads)
}

/// Heads of other homes of this device, whose place on the mesh this one may have taken.
pub(crate) fn twins(db: &VolumeDb) -> Result<Vec<Head>, PortError> {
    Ok(get::<Named>(db, TWINS)?.unwrap_or_default().heads)
}

/// Adds one, and forgets those of which a tree with this vector has all.
pub(crate) fn add_twin(db: &VolumeDb, new: Head, vector: &[Dot]) -> Result<(), PortError> {
    add_heads(db, TWINS, twins(db)?, vec![new], vector)
}

/// Adds some, and forgets those of which a tree with this vector has all.
pub(crate) fn add_named(db: &VolumeDb, new: Vec<Head>, vector: &[Dot]) -> Result<(), PortError> {
    add_heads(db, NAMED, named(db)?, new, vector)
}

fn add_heads(db: &VolumeDb, what: &str, mut heads: Vec<Head>, new: Vec<Head>, vector: &[Dot]) -> Result<(), PortError> {
    heads.extend(new);
    heads.retain(|head| !covers_all(vector, &head.vector));
    // The newest stay.
    heads.reverse();
    let mut seen = BTreeSet::new();
    heads.retain(|head| seen.insert((head.device, head.home, head.sequence)) && seen.len() <= NAMED_MAX);
    heads.reverse();
    Ok(db.put_state(what, &codec::encode(&Named { heads }))?)
}

/// The last tree of this device that others may have under a number of this device: that of a head that was handed out, whether
/// enough peers have taken it or not, or of a snapshot with which a branch begins. Whoever has it takes for gone what has an earlier
/// number and is not in it. So it says what has which number only where no other one was handed out since it was begun.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct HandedTree {
    /// Its number.
    #[n(0)]
    pub(crate) number: u64,
    /// What this device stood on then.
    #[n(1)]
    pub(crate) after: Option<SnapshotId>,
    /// It; none where another one says nothing of what has which number.
    #[n(2)]
    pub(crate) root: Option<Root>,
}
hypernet_core::format!(HandedTree, tag = 0x5e, version = 1, max = 4 << 20, name = "handed-out tree");

pub(crate) fn handed_tree(db: &VolumeDb) -> Result<Option<HandedTree>, PortError> {
    get(db, HANDED_TREE)
}

/// Remembers one, durably, before anybody else can have it. `read`: the number of the one that it was made after.
pub(crate) fn put_handed_tree(db: &VolumeDb, read: Option<u64>, tree: HandedTree) -> Result<(), PortError> {
    let last = handed_tree(db)?.map(|tree| tree.number);
    let is_next = last == read && last < Some(tree.number);
    let tree =
        if is_next { tree } else { HandedTree { number: tree.number.max(last.unwrap_or(0)), after: None, root: None } };
    Ok(db.put_state(HANDED_TREE, &codec::encode(&tree))?)
}

/// What it has is not what is here any more: that was given up.
pub(crate) fn forget_handed_tree(db: &VolumeDb) -> Result<(), PortError> {
    let Some(tree) = handed_tree(db)? else { return Ok(()) };
    Ok(db.put_state(HANDED_TREE, &codec::encode(&HandedTree { root: None, ..tree }))?)
}

/// Remembers that a tree is handed out that does not say what has which number.
pub(crate) fn hand_out_as(db: &VolumeDb, number: u64) -> Result<(), PortError> {
    let last = handed_tree(db)?.map_or(0, |tree| tree.number);
    Ok(db.put_state(HANDED_TREE, &codec::encode(&HandedTree { number: number.max(last), after: None, root: None }))?)
}

/// A tree that was made of those of several devices, and is on the mesh but for its head.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Merging {
    /// It.
    #[n(0)]
    pub(crate) root: Root,
    /// What it follows.
    #[n(1)]
    pub(crate) parents: Vec<SnapshotId>,
    /// The newest of the heads that it was made of.
    #[n(2)]
    pub(crate) time: Hlc,
    /// It is one more change of this device: it has what is no tree of this volume, and nobody else can make it of the same.
    #[n(3)]
    pub(crate) is_change: bool,
    /// Others had a part in the volume when it was made, and one of the trees that it was made of is theirs, too.
    #[n(4)]
    pub(crate) is_shared: bool,
}
hypernet_core::format!(Merging, tag = 0x58, version = 1, max = 4 << 20, name = "merged state");

/// The tree that this device is moving on to, and is to publish then.
pub(crate) fn merging(db: &VolumeDb) -> Result<Option<Merging>, PortError> {
    get(db, MERGING)
}

pub(crate) fn put_merging(db: &VolumeDb, merging: &Merging) -> Result<(), PortError> {
    Ok(db.put_state(MERGING, &codec::encode(merging))?)
}

pub(crate) fn forget_merging(db: &VolumeDb) -> Result<(), PortError> {
    Ok(db.put_states(&[(MERGING, None)])?)
}

/// Whether this device is to publish the first tree of its volume that others may read, since it has begun to share it by this change.
pub(crate) fn opens(db: &VolumeDb, begin: &EntryId) -> Result<bool, PortError> {
    Ok(db.get_state(OPENS)?.is_some_and(|bytes| bytes == begin.as_bytes()))
}

pub(crate) fn put_opens(db: &VolumeDb, begin: &EntryId) -> Result<(), PortError> {
    Ok(db.put_state(OPENS, begin.as_bytes())?)
}

/// Whether what was written before is to be sealed anew.
pub(crate) fn is_rekeying(db: &VolumeDb) -> Result<bool, PortError> {
    Ok(db.get_state(REKEYING)?.is_some())
}

pub(crate) fn put_rekeying(db: &VolumeDb, rekeying: bool) -> Result<(), PortError> {
    Ok(db.put_states(&[(REKEYING, rekeying.then_some(&[][..]))])?)
}

/// What is filed by a name from now on, if anything.
pub(crate) type Change = (&'static str, Option<Vec<u8>>);

/// What changes when this device has moved on, or has published.
pub(crate) fn stands_on(db: &VolumeDb, next: &Latest) -> Result<[Change; 4], PortError> {
    let stood = codec::encode(&stood(db)?.and(before(next)));
    Ok([(LATEST, Some(codec::encode(next))), (STOOD, Some(stood)), (FOLLOWING, None), (MERGING, None)])
}

/// A tree that this device has stood on, or merged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Before {
    /// What was seen by then.
    #[n(0)]
    pub(crate) vector: Vec<Dot>,
    /// The snapshot that it is in, or its root.
    #[n(1)]
    pub(crate) at: ExtentRef,
}

fn before(latest: &Latest) -> Before {
    Before { vector: latest.root.vector.clone(), at: latest.head.snapshot_extent.clone() }
}

/// The last trees that this device has stood on, or merged, the newest last: one of them is what two versions of a file began with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Stood {
    #[n(0)]
    pub(crate) all: Vec<Before>,
}
hypernet_core::format!(Stood, tag = 0x5c, version = 1, max = 4 << 20, name = "trees of before");

impl Stood {
    /// With one more. Of several with one vector the last one stays: the same, as it was published again.
    fn and(mut self, one: Before) -> Self {
        self.all.retain(|before| before.vector != one.vector);
        self.all.push(one);
        let mut dots = 0;
        let newest = self.all.iter().rev().take(STOOD_MAX).take_while(|before| {
            dots += before.vector.len();
            dots <= STOOD_DOTS_MAX
        });
        self.all.drain(..self.all.len() - newest.count());
        self
    }
}

/// What is remembered of them. It only spares people work, so what cannot be read is nothing.
pub(crate) fn stood(db: &VolumeDb) -> Result<Stood, PortError> {
    let bytes = db.get_state(STOOD)?;
    Ok(bytes.and_then(|bytes| codec::decode(&bytes).ok()).unwrap_or_default())
}

/// Remembers trees that are merged: what comes later may begin with one of them.
pub(crate) fn remember(db: &VolumeDb, merged: impl IntoIterator<Item = Before>) -> Result<(), PortError> {
    let all = merged.into_iter().fold(stood(db)?, Stood::and);
    Ok(db.put_state(STOOD, &codec::encode(&all))?)
}

fn record(db: &VolumeDb, what: &str) -> Result<Option<Record>, PortError> {
    db.get_state(what)?.map(|bytes| Record::verify(&bytes).map_err(damaged)).transpose()
}

/// The record of the last head that may have left this home.
pub(crate) fn handed_out(db: &VolumeDb) -> Result<Option<Record>, PortError> {
    record(db, HANDED)
}

/// The record of the last head that counts: whoever looks for this device's newest finds that one at least.
fn acknowledged(db: &VolumeDb) -> Result<Option<Record>, PortError> {
    record(db, ACKNOWLEDGED)
}

/// Signers of the records of the last heads: who finds them all finds whatever counts.
pub(crate) fn last_signers(db: &VolumeDb) -> Result<Vec<[u8; 32]>, PortError> {
    let last = [handed_out(db)?, acknowledged(db)?];
    Ok(last.into_iter().flatten().map(|record| record.signer).collect())
}

/// Remembers it.
pub(crate) fn acknowledge(db: &VolumeDb, record: &Record) -> Result<(), PortError> {
    Ok(db.put_state(ACKNOWLEDGED, &codec::encode(record))?)
}

/// Remembers a head, durably, before anybody else can have it: a number is never used for two heads, and whatever else
/// is found under one was published from elsewhere.
pub(crate) fn hand_out(db: &VolumeDb, record: &Record) -> Result<(), PortError> {
    Ok(db.put_state(HANDED, &codec::encode(record))?)
}

/// Remembers, durably, that a number stands for what a snapshot has: no head gets it.
pub(crate) fn spend(db: &VolumeDb, number: u64) -> Result<(), PortError> {
    Ok(db.put_state(SPENT, &number.to_be_bytes())?)
}

fn spent(db: &VolumeDb) -> Result<u64, PortError> {
    let Some(bytes) = db.get_state(SPENT)? else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| damaged("the last number of a snapshot is none"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The number of the next head. It is above those of all volumes of this device: a directory that becomes a volume takes the
/// dots of the volume above with it, and none of them may stand for something else there.
pub(crate) fn next_sequence(db: &VolumeDb, device: &DeviceId) -> Result<u64, PortError> {
    let mut handed = 0;
    for volume in db.volumes()? {
        let db = db.of(volume)?;
        let record = handed_out(&db)?.map_or(0, |record| record.sequence);
        // Things have this number, though no head may have got it.
        let tree = handed_tree(&db)?.map_or(0, |tree| tree.number);
        handed = record.max(tree).max(spent(&db)?).max(handed);
    }
    // Those of a tree that was taken over are covered by what comes next.
    let origin = origin(db)?.map_or(0, |origin| origin.head);
    let taken = latest(db)?.map_or(0, |latest| sequence_of(&latest.root.vector, device, latest.root.volume));
    handed.max(origin).max(taken).checked_add(1).ok_or_else(|| damaged("this device has no number for a head any more"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `agent/golden/latest.hex` stands for: the golden root, manifest and head of `tests/format`, in one.
    pub(crate) fn golden() -> Latest {
        let formats = hypernet_format::all();
        let of = |name: &str| formats[name].bytes.clone();
        Latest {
            snapshot: SnapshotId([0x44; 32]),
            root: codec::decode(&of("root")).unwrap(),
            manifest: codec::decode(&of("manifest")).unwrap(),
            time: Hlc { millis: 1_700_000_000_000, counter: 7 },
            head: codec::decode(&of("head")).unwrap(),
        }
    }

    #[test]
    fn it_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/latest.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        let back: Latest = codec::decode(&bytes).unwrap();
        assert_eq!(codec::encode(&back), bytes);
        assert_eq!((back.snapshot, back.time), (golden().snapshot, golden().time));
        assert_eq!((back.root, back.manifest, back.head), (golden().root, golden().manifest, golden().head));
    }

    fn from() -> Origin {
        let Root { vector, links, .. } = golden().root;
        let (history, tags, of) = (links.clone(), None, Some(VolumeId([3; 16])));
        Origin { head: 7, vector, links, history, tags, of }
    }

    #[test]
    fn where_a_volume_comes_from_is_written_and_read_as_ever() {
        let origin = from();
        let bytes = crate::golden::bytes(include_str!("../../golden/origin.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&origin)), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Origin>(&bytes).unwrap(), origin);
    }

    fn merging() -> Merging {
        let Latest { snapshot, root, time, .. } = golden();
        Merging { root, parents: vec![snapshot, SnapshotId([0x45; 32])], time, is_change: true, is_shared: true }
    }

    #[test]
    fn what_was_merged_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/merging.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&merging())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Merging>(&bytes).unwrap(), merging());
    }

    fn handed_out_as(number: u64) -> HandedTree {
        let Latest { snapshot, root, .. } = golden();
        HandedTree { number, after: Some(snapshot), root: Some(root) }
    }

    /// Whoever has the later one takes for gone what it lacks and what has an earlier number.
    #[test]
    fn a_tree_says_what_has_which_number_only_where_no_other_one_was_handed_out_since_it_was_begun() {
        let (mesh, dir) = (crate::volume::double::Mesh::new(4), tempfile::tempdir().unwrap());
        let db = &mesh.volume(dir.path(), 1).db;
        let put = |read, number| {
            put_handed_tree(db, read, handed_out_as(number)).unwrap();
            let tree = handed_tree(db).unwrap().unwrap();
            (tree.number, tree.root.is_some())
        };
        assert_eq!(put(None, 3), (3, true));
        assert_eq!(put(Some(3), 5), (5, true));
        assert_eq!(put(Some(3), 6), (6, false), "it was begun before the last one");
        assert_eq!(put(Some(6), 7), (7, true));
        assert_eq!(put(Some(7), 4), (7, false), "it has the earlier number");
        assert_eq!(put(Some(7), 8), (8, true));
        hand_out_as(db, 9).unwrap();
        let last = handed_tree(db).unwrap().unwrap();
        assert_eq!((last.number, last.root), (9, None));
        assert_eq!(put(Some(8), 10), (10, false));
        let device = DeviceId([7; 32]);
        assert!(next_sequence(db, &device).unwrap() > 10, "a number that things have stands for nothing else");
    }

    #[test]
    fn what_others_may_have_is_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/handed_tree.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&handed_out_as(8))), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<HandedTree>(&bytes).unwrap(), handed_out_as(8));
    }

    fn stood_on() -> Stood {
        Stood::default().and(before(&golden()))
    }

    #[test]
    fn what_comes_from_homes_of_before_is_covered_once_each() {
        let bytes = crate::golden::bytes(include_str!("../../golden/homes.hex"));
        let dot = |home, sequence| Dot { device: DeviceId([7; 32]).tag().of_home(HomeNumber(home)), sequence };
        let golden = Homes { current: HomeNumber(9), before: vec![dot(0, 8), dot(5, 11)] };
        assert_eq!(crate::golden::hex(&codec::encode(&golden)), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Homes>(&bytes).unwrap(), golden);
        crate::golden::mutations(&bytes, |bytes| {
            let _ = codec::decode::<Homes>(bytes);
        });
        let (mesh, dir) = (crate::volume::double::Mesh::new(4), tempfile::tempdir().unwrap());
        let db = &mesh.volume(dir.path(), 1).db;
        let before = |home| homes_before(db, &DeviceId([7; 32]), VolumeId([1; 16]), HomeNumber(home)).unwrap();
        assert_eq!(before(0), []);
        spend(db, 8).unwrap();
        assert_eq!(before(0), []);
        assert_eq!(before(5), [dot(0, 8)]);
        spend(db, 11).unwrap();
        assert_eq!(before(5), [dot(0, 8)]);
        assert_eq!(before(9), golden.before);
    }

    #[test]
    fn the_last_trees_are_remembered_and_written_and_read_as_ever() {
        let bytes = crate::golden::bytes(include_str!("../../golden/stood.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&stood_on())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<Stood>(&bytes).unwrap(), stood_on());
        let mut stood = stood_on().and(before(&golden()));
        assert_eq!(stood, stood_on(), "the same is there once");
        for (dots, kept) in [(1, STOOD_MAX), (64, STOOD_DOTS_MAX / 64)] {
            let last = STOOD_MAX as u64 + 100;
            for sequence in 0..last {
                let vector = (0..dots).map(|device| Dot { device: hypernet_core::id::DeviceTag(device), sequence });
                stood = stood.and(Before { vector: vector.collect(), ..before(&golden()) });
            }
            let sequences: Vec<u64> = stood.all.iter().map(|before| before.vector[0].sequence).collect();
            assert_eq!(sequences, (last - kept as u64..last).collect::<Vec<_>>());
        }
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_a_panic() {
        crate::golden::mutations(&codec::encode(&stood_on()), |bytes| {
            let _ = codec::decode::<Stood>(bytes);
        });
        crate::golden::mutations(&codec::encode(&merging()), |bytes| {
            let _ = codec::decode::<Merging>(bytes);
        });
        crate::golden::mutations(&codec::encode(&handed_out_as(8)), |bytes| {
            let _ = codec::decode::<HandedTree>(bytes);
        });
        crate::golden::mutations(&codec::encode(&golden()), |bytes| {
            let _ = codec::decode::<Latest>(bytes);
        });
        crate::golden::mutations(&codec::encode(&from()), |bytes| {
            let _ = codec::decode::<Origin>(bytes);
        });
    }
}

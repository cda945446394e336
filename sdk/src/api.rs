//! The JSON of the agent's local HTTP API on `$HN_HOME/hnd.sock`, and of what `hnd` prints.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/peers` | | list of [`PeerInfo`] |
//! | `POST /v1/donors` | [`DonorsRequest`] | stream of [`DonorsEvent`] |
//! | `POST /v1/sync` | [`SyncRequest`] | stream of [`SyncEvent`] |
//! | `POST /v1/hold` | [`HoldRequest`] | [`Empty`] |
//! | `POST /v1/mount` | [`MountRequest`] | [`Mounted`] |
//! | `POST /v1/umount` | [`UmountRequest`] | [`Empty`] |
//! | `POST /v1/cache/drop` | [`CacheDropRequest`] | stream of [`CacheDropEvent`] |
//! | `POST /v1/health` | [`HealthRequest`] | [`Health`] |
//! | `POST /v1/fsck` | [`FsckRequest`] | stream of [`FsckEvent`] |
//! | `POST /v1/invite` | [`Empty`] | [`Invite`] |
//! | `POST /v1/recover` | [`RecoverRequest`] | stream of [`RecoverEvent`] |
//! | `GET /v1/devices` | | list of [`DeviceInfo`] |
//! | `POST /v1/devices/revoke` | [`RevokeDeviceRequest`] | [`DeviceRevoked`] |
//! | `POST /v1/devices/renew` | [`RenewDeviceRequest`] | [`DeviceRenewed`] |
//! | `POST /v1/devices/add` | [`PairRequest`] | stream of [`PairEvent`] |
//! | `POST /v1/devices/join` | [`PairRequest`] | stream of [`PairEvent`] |
//! | `GET /v1/id` | | [`IdInfo`] |
//! | `GET /v1/contacts` | | list of [`ContactInfo`] |
//! | `POST /v1/contacts/add` | [`AddContactRequest`] | [`ContactInfo`] |
//! | `POST /v1/contacts/remove` | [`ContactRequest`] | [`ContactInfo`] |
//! | `POST /v1/contacts/verify` | [`PairRequest`] | stream of [`PairEvent`] |
//! | `GET /v1/custodians` | | [`Custodians`] |
//! | `POST /v1/custodians/add` | [`AddCustodianRequest`] | [`CustodianInfo`] |
//! | `POST /v1/custodians/remove` | [`CustodianRequest`] | [`CustodianInfo`] |
//! | `POST /v1/custodians/offer` | [`OfferCustodyRequest`] | [`CustodyOffer`] |
//! | `POST /v1/custodians/withdraw` | [`CustodianRequest`] | [`ServedTicket`] |
//! | `GET /v1/guardians` | | [`GuardiansList`] |
//! | `POST /v1/guardians/set` | [`SetGuardiansRequest`] | [`GuardiansInfo`] |
//! | `POST /v1/guardians/clear` | [`Empty`] | [`GuardiansCleared`] |
//! | `POST /v1/guardians/help` | [`PairRequest`] | stream of [`PairEvent`] |
//! | `GET /v1/recover/shares` | | [`Gathered`] |
//! | `POST /v1/recover/gather` | [`PairRequest`] | stream of [`PairEvent`] |
//! | `POST /v1/recover/words` | [`SharedWordsRequest`] | [`Words`] |
//! | `POST /v1/compared` | [`ComparedRequest`] | [`Empty`] |
//! | `GET /v1/volumes` | | list of [`VolumeInfo`] |
//! | `POST /v1/volumes/make` | [`MakeVolumeRequest`] | [`VolumeInfo`] |
//! | `GET /v1/shares` | | [`SharesInfo`] |
//! | `POST /v1/share` | [`ShareRequest`] | [`ShareInfo`] |
//! | `POST /v1/share/show` | [`ShareQuery`] | [`ShareInfo`] |
//! | `POST /v1/unshare` | [`UnshareRequest`] | [`ShareInfo`] |
//! | `POST /v1/attach` | [`AttachRequest`] | [`ShareInfo`] |
//! | `POST /v1/detach` | [`DetachRequest`] | [`ShareInfo`] |
//! | `POST /v1/snap` | [`SnapRequest`] | [`Snapped`] |
//! | `POST /v1/snap/log` | [`LogRequest`] | list of [`SnapshotInfo`] |
//! | `POST /v1/snap/show` | [`ShowRequest`] | [`Shown`] |
//! | `POST /v1/snap/verify` | [`RevisionRequest`] | [`Verified`] |
//! | `POST /v1/snap/diff` | [`DiffRequest`] | list of [`ChangeInfo`] |
//! | `POST /v1/snap/hunks` | [`HunksRequest`] | stream of [`HunksEvent`] |
//! | `POST /v1/snap/tag` | [`TagRequest`] | list of [`TagInfo`] |
//! | `POST /v1/snap/prune` | [`PruneRequest`] | [`Pruned`] |
//! | `POST /v1/snap/policy` | [`PolicyRequest`] | [`PolicyState`] |
//! | `GET /v1/branches` | | list of [`BranchInfo`] |
//! | `POST /v1/branch` | [`BranchRequest`] | [`BranchInfo`] |
//! | `POST /v1/branch/drop` | [`DropBranchRequest`] | [`BranchInfo`] |
//! | `POST /v1/switch` | [`SwitchRequest`] | [`Switched`] |
//! | `POST /v1/merge` | [`MergeRequest`] | [`MergedInfo`] |
//! | `POST /v1/conflicts` | [`ConflictsRequest`] | list of [`ConflictInfo`] |
//! | `POST /v1/conflicts/resolve` | [`ResolveRequest`] | [`Resolved`] |
//! | `POST /v1/keystore/seal` | [`SealRequest`] | [`KeystoreSealed`] |
//! | `POST /v1/down` | [`Empty`] | [`Empty`], then the agent stops |
//!
//! Streams are NDJSON: one event per line, the last being `done` or `error`. A request that fails before its stream
//! begins answers with a status ≥ 400 and an [`ApiError`]. Fields are only ever added, and added ones have defaults,
//! so that `hn` and `hnd` of neighbouring versions understand each other. A path is a string, or bytes in hex where it
//! is not UTF-8: see [`exact_path`](crate::exact_path).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exact_path;

mod audits;
mod branch;
mod conflicts;
mod custodians;
mod devices;
mod donate;
mod gc;
mod guardians;
mod health;
mod history;
mod keystore;
pub mod path;
mod peers;
mod people;
mod printed;
mod share;
mod volumes;

pub use audits::{AuditRound, AuditStatus, Audited};
pub use branch::{
    BranchInfo, BranchRequest, DropBranchRequest, KeptBeside, MergeRequest, MergedInfo, SwitchRequest, Switched,
};
pub use conflicts::{ConflictInfo, ConflictsRequest, Keep, ResolveRequest, Resolved, Unresolved};
pub use custodians::{
    AddCustodianRequest, CustodianInfo, CustodianRequest, Custodians, CustodyOffer, OfferCustodyRequest, ServedTicket,
};
pub use devices::{
    DeviceInfo, DeviceRenewed, DeviceRevoked, NamedDevice, OtherHead, PhraseInput, RecoverEvent, RecoverRequest,
    Recovered, RenewDeviceRequest, RevokeDeviceRequest,
};
pub use donate::{Depositor, DonateRequest, DonateShare, DonateStatus, Leaving, Whose};
pub use gc::{GcRequest, GcVolume};
pub use guardians::{
    Gathered, GuardianInfo, GuardiansCleared, GuardiansInfo, GuardiansList, HeldShare, SetGuardiansRequest,
    SharedWordsRequest,
};
pub use health::{Health, HealthRequest, HealthState, MarginBucket, Proven, RepairStatus, Safety, VolumeHealth};
pub use history::{
    ChangeInfo, DiffRequest, HunksEvent, HunksRequest, LogRequest, PolicyInfo, PolicyRequest, PolicyState,
    PruneRequest, Pruned, RevisionRequest, ShowRequest, Shown, SnapRequest, Snapped, SnapshotInfo, TagInfo, TagRequest,
    TextInfo, ThingInfo, Verified,
};
pub use keystore::{KeystoreSealed, KeystoreStatus, SealRequest, SealedBy};
pub use peers::{Path, PeerInfo, PeersStatus, Presence, ReachStatus, Reachability};
pub use people::{
    AddContactRequest, ComparedRequest, ContactInfo, ContactRequest, IdInfo, PairEvent, PairRequest, Paired,
};
pub use printed::{Cleared, Ready, SetUp, Words};
pub use share::{
    AttachRequest, DetachRequest, LinkInfo, MemberInfo, MissingContact, OfferInfo, ShareInfo, ShareQuery, ShareRequest,
    ShareRole, SharesInfo, UnshareRequest,
};
pub use volumes::{MakeVolumeRequest, VolumeInfo};

/// Version of the paths and of these types.
pub const API_VERSION: u32 = 1;

/// Where something went wrong, by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// An argument is wrong.
    Usage,
    /// A file, or what a peer sent, is damaged or of another version.
    Data,
    /// An input file cannot be read.
    NoInput,
    /// The agent or the mesh cannot be reached, or too little of it.
    Unavailable,
    /// The operating system refused.
    System,
    /// Something cannot be created.
    CantCreate,
    /// A disk or a socket failed.
    Io,
    /// The same again later may work.
    TryAgain,
    /// Not allowed.
    Permission,
    /// The set-up is not complete, or does not fit.
    Config,
    /// A defect of the program, or a code that this version does not know.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Usage,
        Self::Data,
        Self::NoInput,
        Self::Unavailable,
        Self::System,
        Self::CantCreate,
        Self::Io,
        Self::TryAgain,
        Self::Permission,
        Self::Config,
        Self::Internal,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Data => "data",
            Self::NoInput => "no-input",
            Self::Unavailable => "unavailable",
            Self::System => "system",
            Self::CantCreate => "cant-create",
            Self::Io => "io",
            Self::TryAgain => "try-again",
            Self::Permission => "permission",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }

    /// The code of a word; [`Self::Internal`] for one that is not known.
    pub fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.word() == word).unwrap_or(Self::Internal)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A failure as the agent tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorCode,
    /// What happened, to what: one line.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// Without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// No content: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

// ---- status ---------------------------------------------------------------------------------------------------------

/// What a person wants to know of a running agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The identity; none on a storage peer.
    #[serde(default)]
    pub identity: Option<String>,
    /// What this device is called.
    pub device_name: String,
    /// The device's id; none on a storage peer.
    #[serde(default)]
    pub device_id: Option<String>,
    /// How the mesh calls this agent.
    pub peer: String,
    /// Which mesh.
    pub network: String,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since it started.
    pub uptime_seconds: u64,
    /// Its directory.
    #[serde(with = "exact_path")]
    pub home: PathBuf,
    /// Addresses it listens on.
    #[serde(default)]
    pub listen: Vec<String>,
    /// The keystore; none on a storage peer.
    #[serde(default)]
    pub keystore: Option<KeystoreStatus>,
    /// What it gives to others.
    pub donate: DonateStatus,
    /// The mount, if there is one.
    #[serde(default)]
    pub mount: Option<MountStatus>,
    /// What else is mounted.
    #[serde(default)]
    pub side_mounts: Vec<SideMount>,
    /// The volume; none on a storage peer.
    #[serde(default)]
    pub volume: Option<VolumeStatus>,
    /// The peers around.
    pub peers: PeersStatus,
    /// How it is reached; none while it stops.
    #[serde(default)]
    pub reach: Option<ReachStatus>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Those of the warnings that were known at its start.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What a person should look into.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// How the volume is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountProfile {
    /// The kernel reads and writes backing files itself.
    Passthrough,
    /// The kernel caches writes and the agent serves them.
    Writeback,
}

impl MountProfile {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Writeback => "writeback",
        }
    }
}

/// The mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Where.
    #[serde(with = "exact_path")]
    pub dir: PathBuf,
    /// How.
    pub profile: MountProfile,
    /// Why so, when it is not the faster way.
    #[serde(default)]
    pub reason: Option<String>,
    /// The root of the tree that it shows, from the uppermost one: `/`, or where a branch is found.
    #[serde(with = "exact_path")]
    pub top: PathBuf,
}

/// A branch or a snapshot that is mounted beside the main mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideMount {
    /// Where.
    #[serde(with = "exact_path")]
    pub dir: PathBuf,
    /// What, for people.
    pub what: String,
    /// The root of the tree that it shows, from the uppermost one; none of a snapshot.
    #[serde(default, with = "exact_path::option")]
    pub top: Option<PathBuf>,
}

/// The volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its id.
    pub id: String,
    /// Segments on the mesh.
    pub segments: u64,
    /// Bytes of payload in them.
    pub bytes_logical: u64,
    /// Bytes on peers, coding included.
    pub bytes_stored: u64,
    /// Of when the three above and `health` are.
    #[serde(default)]
    pub counted: Counted,
    /// Files that are not durable yet.
    pub dirty_files: u64,
    /// Their bytes.
    pub dirty_bytes: u64,
    /// What the background upload is doing.
    pub upload: Upload,
    /// The newest head that this device published.
    pub last_head: Option<HeadStatus>,
    /// How new segments are coded and placed.
    pub plan: Option<PlanStatus>,
    /// Segments by how many of their shards are not to be reached; ascending, zeros left out.
    #[serde(default)]
    pub health: Vec<HealthBucket>,
    /// How many of the peers that are there now may go, and all that is stored can be read; none where some of it cannot
    /// be now, nothing is stored, or nothing is counted yet.
    pub spare: Option<u32>,
    /// Until when all of it stays though no device of it runs, in seconds since 1970: then the first leases end, and what they
    /// are for stays for as long as its holders have room.
    #[serde(default)]
    pub unattended_until: Option<u64>,
    /// The state was brought back from a keystore and its head is not found yet.
    #[serde(default)]
    pub recovering: bool,
    /// How safe all of it is; none before the first count.
    #[serde(default)]
    pub safety: Option<Safety>,
    /// What of all volumes is to be mended.
    #[serde(default)]
    pub repair: RepairStatus,
    /// The local copies, where a limit is set for them.
    pub cache: Option<CacheStatus>,
    /// How far holders have proven that they have what they took.
    #[serde(default)]
    pub audits: Option<AuditStatus>,
}

/// Local copies of what the mesh has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Their bytes, roughly.
    pub bytes: u64,
    /// What was allowed for them.
    pub limit: u64,
}

/// Of when a count of a volume's segments is. In a large volume it takes a while, and is made in the background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Counted {
    /// Of now.
    #[default]
    Now,
    /// Segments or peers may have changed since: what it says may be better than it is. A new one is being made.
    Before {
        /// How long ago.
        seconds: u64,
    },
    /// The first one is being made: its numbers are 0, and say nothing.
    Never,
}

/// The background upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Upload {
    /// Nothing to do.
    Idle,
    /// Held back by the user.
    Held,
    /// At work.
    Running(Progress),
    /// Cannot go on for now.
    Waiting {
        /// Why.
        reason: String,
    },
    /// Never goes on.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// A published head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadStatus {
    /// Its number.
    pub sequence: u64,
    /// Since it was signed.
    pub age_seconds: u64,
}

/// How segments are coded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Shards that are enough.
    pub k: u32,
    /// Shards that are made.
    pub n: u32,
    /// Shards at which a repair is due: while more are with peers that have not left, nothing needs to be done.
    pub threshold: u32,
    /// Peers that they are spread over.
    pub peers: u32,
    /// Measured availability of a peer in the worst hour of the day, 0..=1.
    pub availability: f64,
    /// Probability that a segment can be read at any moment, 0..=1.
    pub readable: f64,
    /// Nines of the probability that a segment is not lost within a year, by the rate at which peers leave for good.
    pub nines: f64,
    /// What that means and risks.
    pub words: String,
}

/// Segments that miss the same number of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthBucket {
    /// Shards whose holder cannot be reached now.
    pub missing: u32,
    /// Segments of which this holds.
    pub segments: u64,
    /// Whether they can still be read.
    pub readable: bool,
}

/// `POST /v1/donors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DonorsRequest {
    /// The stream ends when so many are connected; without it only with its reader.
    #[serde(default)]
    pub wanted: Option<u64>,
}

/// One line of the count of connected peers that store for others: one at once, and one at each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum DonorsEvent {
    /// Fewer than wanted.
    Progress {
        /// So many.
        donors: u64,
    },
    /// As many as wanted, or more.
    Done {
        /// So many.
        donors: u64,
    },
}

// ---- sync -----------------------------------------------------------------------------------------------------------

/// `POST /v1/sync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// A file or directory of which the state is wanted. It must exist; everything is synced whether it is named or
    /// not.
    #[serde(default, with = "exact_path::option")]
    pub path: Option<PathBuf>,
}

/// How far a long operation has come. Totals may grow while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// In a few words.
    pub phase: String,
    /// Files that are through.
    #[serde(default)]
    pub files_done: u64,
    /// Files in all.
    #[serde(default)]
    pub files_total: u64,
    /// Bytes that are through.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes in all.
    #[serde(default)]
    pub bytes_total: u64,
    /// Sealed bytes on their way to peers.
    #[serde(default)]
    pub bytes_in_flight: u64,
    /// Segments whose every shard is acknowledged.
    #[serde(default)]
    pub segments_done: u64,
    /// What it waits for, when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// One line of a sync.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum SyncEvent {
    /// On the way.
    Progress(Progress),
    /// Durable.
    Done(SyncReport),
    /// It failed; nothing is lost.
    Error(ApiError),
}

/// What a sync made durable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Files that were not durable before.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments written.
    #[serde(default)]
    pub segments: u64,
    /// Shards acknowledged.
    #[serde(default)]
    pub shards: u64,
    /// Bytes sent to peers, coding included.
    #[serde(default)]
    pub bytes_stored: u64,
    /// The head that reaches all of it.
    #[serde(default)]
    pub head: u64,
    /// The code used.
    #[serde(default)]
    pub k: u32,
    /// Shards of each segment.
    #[serde(default)]
    pub n: u32,
    /// The least number of distinct peers over which a segment's shards lie.
    #[serde(default)]
    pub peers: u32,
    /// How long it took.
    #[serde(default)]
    pub millis: u64,
    /// How durable the path that was named is, in the words of `user.hypernet.state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// `POST /v1/hold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRequest {
    /// True holds the background upload back; false lets it go.
    pub hold: bool,
}

// ---- mount, cache, invite -------------------------------------------------------------------------------------------

fn yes() -> bool {
    true
}

/// `POST /v1/mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Where; the place of the last mount when left out.
    #[serde(default, with = "exact_path::option")]
    pub dir: Option<PathBuf>,
    /// Use passthrough where possible.
    #[serde(default = "yes")]
    pub passthrough: bool,
    /// This branch, beside the main mount.
    #[serde(default)]
    pub branch: Option<String>,
    /// This snapshot, beside the main mount.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Something in the volume that it is a snapshot of.
    #[serde(default, with = "exact_path")]
    pub of: PathBuf,
}

/// Unmounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UmountRequest {
    /// Only this; all when left out.
    #[serde(default, with = "exact_path::option")]
    pub dir: Option<PathBuf>,
}

/// Answer to [`MountRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where.
    #[serde(with = "exact_path")]
    pub dir: PathBuf,
    /// How.
    pub profile: MountProfile,
    /// Why so, when it is not the faster way.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/cache/drop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDropRequest {
    /// Only this; all when left out.
    #[serde(default, with = "exact_path::option")]
    pub path: Option<PathBuf>,
    /// Also what cannot be read from the peers that are connected now.
    #[serde(default)]
    pub force: bool,
}

/// One line of an eviction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum CacheDropEvent {
    /// On the way.
    Progress(Progress),
    /// It ended.
    Done(CacheDropped),
    /// It failed; what was evicted until then comes back from the mesh.
    Error(ApiError),
}

/// What was evicted, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDropped {
    /// Files whose local bytes are gone.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay, although they are durable and nobody has them open.
    #[serde(default)]
    pub kept_files: u64,
    /// Their bytes.
    #[serde(default)]
    pub kept_bytes: u64,
    /// Why they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_because: Option<String>,
}

/// An invite link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// What `hn join` takes.
    pub link: String,
}

// ---- fsck -----------------------------------------------------------------------------------------------------------

/// `POST /v1/fsck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckRequest {
    /// Mend what can be mended on this device.
    #[serde(default)]
    pub repair: bool,
    /// Also ask every holder whether it still has its shards.
    #[serde(default)]
    pub verify: bool,
}

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum FsckEvent {
    /// On the way.
    Progress(Progress),
    /// The check ended.
    Done(FsckReport),
    /// The check itself failed.
    Error(ApiError),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FsckReport {
    /// Each in one line; empty when all is well.
    pub problems: Vec<String>,
    /// Problems that were mended.
    #[serde(default)]
    pub repaired: u64,
    /// Segments looked at.
    #[serde(default)]
    pub segments: u64,
    /// Shards that their holders have.
    #[serde(default)]
    pub shards: u64,
    /// Segments by how many of their shards are missing.
    #[serde(default)]
    pub health: Vec<HealthBucket>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_serde_agree_and_unknown_codes_are_understood() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.word()));
            assert_eq!(ErrorCode::from_word(code.word()), code);
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"of-tomorrow\"").unwrap(), ErrorCode::Internal);
    }

    #[test]
    fn events_are_tagged_lines() {
        let line =
            serde_json::to_string(&SyncEvent::Error(ApiError::new(ErrorCode::Unavailable, "too few peers"))).unwrap();
        assert_eq!(line, r#"{"event":"error","code":"unavailable","message":"too few peers"}"#);
        let event: SyncEvent = serde_json::from_str(r#"{"event":"progress","phase":"sealing","new_field":1}"#).unwrap();
        assert!(matches!(event, SyncEvent::Progress(progress) if progress.phase == "sealing"));
        let event: RecoverEvent = serde_json::from_str(r#"{"event":"progress","text":"asking"}"#).unwrap();
        assert_eq!(event, RecoverEvent::Progress { text: "asking".into() });
    }

    #[test]
    fn a_refusal_reads_as_a_readiness_line() {
        let line = r#"{"ready":false,"error":{"code":"config","message":"no agent","hint":"hn init"}}"#;
        let ready: Ready = serde_json::from_str(line).unwrap();
        assert!(!ready.ready);
        assert_eq!(ready.error.unwrap().hint.as_deref(), Some("hn init"));
    }

    #[test]
    fn uploads_carry_their_state_beside_their_numbers() {
        let running = Upload::Running(Progress { phase: "sealing".into(), ..Progress::default() });
        let text = serde_json::to_string(&running).unwrap();
        assert!(text.starts_with(r#"{"state":"running","phase":"sealing""#), "{text}");
        assert_eq!(serde_json::from_str::<Upload>(&text).unwrap(), running);
        assert_eq!(serde_json::to_string(&Upload::Idle).unwrap(), r#"{"state":"idle"}"#);
    }
}

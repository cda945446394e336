//! Snapshots, and what has changed between them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ApiError;

/// A snapshot that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its number, in hex.
    pub id: String,
    /// When it was taken, in milliseconds since 1970.
    pub time_ms: u64,
    /// The device that has taken and signed it: its name, as far as it is known here.
    pub author: String,
    /// The same, in hex.
    pub author_id: String,
    /// What was said about it.
    pub message: String,
    /// Those that it follows, in hex. They may be pruned, or never have been known here.
    pub parents: Vec<String>,
    /// Names that it has.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A policy has taken it, and may let go of it.
    #[serde(default)]
    pub automatic: bool,
    /// A command has taken it before it changed something, or as what a branch begins with: `HEAD`, `~` and `^` pass over it.
    #[serde(default)]
    pub command: bool,
    /// It is only on this device so far: the next sync takes it to the mesh.
    #[serde(default)]
    pub waiting: bool,
}

/// Takes a snapshot of the volume that a path is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapRequest {
    /// Of the root of the tree, or below the mount.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// What is said about it.
    #[serde(default)]
    pub message: String,
    /// A command takes it before it changes something, and not a person.
    #[serde(default)]
    pub command: bool,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapped {
    /// It.
    pub snapshot: SnapshotInfo,
    /// Files that were looked at since they were new or changed.
    pub files: u64,
    /// Bytes that were read of them.
    pub read_bytes: u64,
    /// Sealed bytes that are new.
    pub new_bytes: u64,
    /// It holds what the one before holds.
    pub same: bool,
    /// Files that may be newer than the rest: so much was to be read that they were written to before it was their turn.
    #[serde(default)]
    pub newer: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// Lists the snapshots of the volume that a path is in, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Those in which something at this path is not as in the one before.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u64>,
}

/// Names one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRequest {
    /// In the volume that this is in.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// A revision as git has it; a time in braces is in milliseconds since 1970.
    pub revision: String,
}

/// Asks for one snapshot, and for what it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowRequest {
    /// Which.
    #[serde(flatten)]
    pub of: RevisionRequest,
    /// Only which one it is: nothing is compared, however much there is in it.
    #[serde(default)]
    pub alone: bool,
}

/// A snapshot, and what it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// It. Its signature was verified.
    pub snapshot: SnapshotInfo,
    /// Something that the revision went back over is not here, pruned or never known: it would have named that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed_gap: bool,
    /// The first of those that it follows; where that is not here, the one before in time; none where nothing is.
    #[serde(default)]
    pub before: Option<SnapshotInfo>,
    /// Between the two something is not here, pruned or never known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// What has changed since `before`, where that was asked for.
    pub changes: Vec<ChangeInfo>,
    /// So much has changed that none of it is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_many: bool,
}

/// What can be proven of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// It.
    pub snapshot: SnapshotInfo,
    /// Its author is a device that could write here, now or before.
    pub known: bool,
    /// Those before it that are kept and signed, and earlier than it.
    pub followed: u64,
    /// Those before it that are not here: pruned, or never known. Which of the two nobody can tell.
    pub gone: u64,
    /// Files and directories of which all can be read.
    pub inodes: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Compares two snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffRequest {
    /// What is at this path or below it.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// The first one.
    pub from: String,
    /// The second one; none: what is in the working tree now.
    #[serde(default)]
    pub to: Option<String>,
}

/// Compares two snapshots, and what files hold in them, line by line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HunksRequest {
    /// What, as without that.
    #[serde(flatten)]
    pub of: DiffRequest,
    /// Lines around each change; none: lines are only counted.
    #[serde(default)]
    pub context: Option<u64>,
    /// As a patch tells it: files of a directory that was renamed one by one, what has become another kind of thing as one that is gone
    /// and one that is new, of directories only those that are not told by what is in them, and at the end what is new where something
    /// else was.
    #[serde(default)]
    pub by_file: bool,
}

/// One line of such a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum HunksEvent {
    /// Something that is not the same, in order of paths but for that.
    Change(Box<ChangeInfo>),
    /// That was all.
    Done,
    /// It failed.
    Error(ApiError),
}

/// What has changed in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextInfo {
    /// Lines that are new.
    pub added: u64,
    /// Lines that are gone.
    pub removed: u64,
    /// Hunks as `diff -u` has them, as far as they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunks: Option<String>,
}

/// Something that is not the same in two trees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    /// Where it was, from the root of its volume; none: it was added.
    #[serde(default)]
    pub before: Option<ThingInfo>,
    /// Where it is; none: it was removed.
    #[serde(default)]
    pub after: Option<ThingInfo>,
    /// It has another name, or is in another directory.
    pub renamed: bool,
    /// It holds something else.
    pub content: bool,
    /// Its mode, owner or extended attributes are others.
    pub metadata: bool,
    /// It is a text, or was one: what has changed in it, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextInfo>,
    /// Where that was asked for: what it holds, or held, is no text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// Where that was asked for: it is too large to be compared line by line, whether it is a text or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub large: bool,
}

/// One side of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingInfo {
    /// From the root of its volume.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// `file`, `directory`, `symlink`, `special` or `volume`.
    pub kind: String,
    /// Bytes of a file.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Of what is not compared line by line: a number for what it holds, 12 digits in hex. Equal ones are of equal content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Gives a snapshot a name, or takes one away; without a name nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRequest {
    /// In the volume that this is in.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// The name.
    #[serde(default)]
    pub name: Option<String>,
    /// Which snapshot; none: the newest.
    #[serde(default)]
    pub revision: Option<String>,
    /// Take the name away.
    #[serde(default)]
    pub delete: bool,
    /// Another snapshot may have it so far.
    #[serde(default)]
    pub force: bool,
}

/// A name of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagInfo {
    /// It.
    pub name: String,
    /// Of which, in hex.
    pub id: String,
    /// When it was given, in milliseconds since 1970.
    pub time_ms: u64,
}

/// How many snapshots of each kind stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The last ones.
    #[serde(default)]
    pub last: u32,
    /// The last of as many hours.
    #[serde(default)]
    pub hourly: u32,
    /// Days.
    #[serde(default)]
    pub daily: u32,
    /// Weeks.
    #[serde(default)]
    pub weekly: u32,
    /// Months.
    #[serde(default)]
    pub monthly: u32,
    /// Years.
    #[serde(default)]
    pub yearly: u32,
}

/// Lets go of snapshots. Those with names stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Of the volume that this is in.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// These; or, by a policy, what it does not keep.
    #[serde(default)]
    pub revisions: Vec<String>,
    /// What is kept.
    #[serde(default)]
    pub policy: Option<PolicyInfo>,
    /// A policy lets go of those that somebody has asked for, too.
    #[serde(default)]
    pub all: bool,
    /// Only say which.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// These.
    pub gone: Vec<SnapshotInfo>,
    /// So many are left.
    pub left: u64,
}

/// Sets the policy of the volume that a path is in, by which snapshots are taken and go; without anything to set nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRequest {
    /// In the volume.
    #[serde(with = "crate::exact_path")]
    pub path: PathBuf,
    /// This is it from now on.
    #[serde(default)]
    pub set: Option<PolicyInfo>,
    /// It has none from now on.
    #[serde(default)]
    pub off: bool,
}

/// The policy of a volume, and what was taken by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// Where the volume begins.
    #[serde(with = "crate::exact_path")]
    pub volume: PathBuf,
    /// Its policy; none: no snapshots are taken by themselves.
    #[serde(default)]
    pub policy: Option<PolicyInfo>,
    /// What is written in the attribute of its root is no policy, and why.
    #[serde(default)]
    pub wrong: Option<String>,
    /// The newest snapshot that a policy has taken.
    #[serde(default)]
    pub last: Option<SnapshotInfo>,
    /// From when on the next one is taken, as soon as something has changed, in milliseconds since 1970.
    #[serde(default)]
    pub next_ms: Option<u64>,
    /// So many are kept that a policy has taken.
    #[serde(default)]
    pub automatic: u64,
    /// This device may write in the volume, and so takes them.
    #[serde(default)]
    pub here: bool,
}

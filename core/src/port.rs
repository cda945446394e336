//! Where the layers meet: traits that L1 crates implement for one another without knowing one another, and the
//! plain data that crosses them. The agent wires them up.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use crate::codec::CodecError;
use crate::id::{FileId, RecordKey, ShardId, VolumeId};
use crate::lease::{Lease, LeaseKey};
use crate::quota::{Depositor, Used};
use crate::time::Timespec;
use crate::tree::{Content, Entry, FileKind, Inode, LinkEntry, TreeRef, Xattr};

/// What went wrong behind a port, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// The bytes cannot be had now: too few peers answer. The text says which segment lacks how many shards.
    #[error("{0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("no answer within the deadline: {0}")]
    Deadline(String),
    /// What came back does not verify.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A newer program has written it. The text says what.
    #[error("{0}")]
    Newer(String),
    /// The local disk is full.
    #[error("the disk under HN_HOME is full: {0}")]
    DiskFull(String),
    /// The local disk or database failed.
    #[error("local storage failed: {0}")]
    Disk(String),
    /// It does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// This home is older than what its device has published: it must publish nothing. The text says what is newer.
    #[error("{0}")]
    Superseded(String),
    /// This identity may not do that in this volume. The text says what.
    #[error("{0}")]
    NoPart(String),
}

impl PortError {
    /// Whether only what was asked for cannot be had, or is no good: another thing may be, and this one later. `false`
    /// when this home itself must be seen to first.
    pub fn is_of_what_was_read(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Deadline(_) | Self::Damaged(_) | Self::Newer(_) | Self::NotFound(_) => true,
            Self::DiskFull(_) | Self::Disk(_) | Self::Superseded(_) | Self::NoPart(_) => false,
        }
    }
}

impl From<CodecError> for PortError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Version { .. } => Self::Newer(error.to_string()),
            error => Self::Damaged(error.to_string()),
        }
    }
}

// ---- the store of a donor ----

/// What a node asks of the shard store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Keep a shard. Answered only when shard and lease are on stable storage.
    Put {
        /// Address, already checked against the body.
        shard: ShardId,
        /// Lease.
        lease: Lease,
        /// The shard.
        body: Bytes,
        /// For whom.
        depositor: Depositor,
    },
    /// Read a range; fewer bytes come when the shard ends earlier.
    Read {
        /// Address.
        shard: ShardId,
        /// First byte.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// Prove a chunk of a shard, having looked at all of it: see [`crate::audit::prove`]. Answered with no bytes where the shard ends
    /// before that chunk.
    Prove {
        /// Address.
        shard: ShardId,
        /// Which chunk.
        chunk: u32,
    },
    /// Which of these are held, with a lease?
    Have {
        /// Addresses.
        shards: Vec<ShardId>,
    },
    /// Keep these shards, of which some may not be here. Answered only when the leases are on stable storage.
    Renew {
        /// Addresses and leases.
        leases: Vec<(ShardId, Lease)>,
        /// For whom: a shard that several have leases of is kept for the one among them who is served first.
        depositor: Depositor,
        /// A shard of which nobody had a lease any more is kept again only where no more than so many bytes are kept for such
        /// depositors then.
        most: u64,
    },
    /// These leases are over; there need not be any. A shard of which nobody has one is kept for as long as its space is not
    /// needed.
    Release {
        /// Addresses and keys.
        leases: Vec<(ShardId, LeaseKey)>,
    },
    /// Keep a DHT record in place of any older one. Answered when it is on stable storage.
    PutRecord {
        /// Where it lives.
        key: RecordKey,
        /// The encoded record.
        bytes: Vec<u8>,
    },
}

/// The answer to a [`StoreOp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// Put and PutRecord: done. `used` is what all shards take up now that somebody has a lease of.
    Done {
        /// Bytes of all shards with a lease.
        used: Used,
    },
    /// Release.
    Released {
        /// Bytes of all shards with a lease.
        used: Used,
        /// Bytes of those of which nobody has one any more since.
        freed: Used,
    },
    /// Renew.
    Renewed {
        /// Bytes of all shards with a lease.
        used: Used,
        /// One per asked shard: whether it is here, and leased.
        held: Vec<bool>,
    },
    /// Read and Prove.
    Bytes(Bytes),
    /// Have: one per asked shard.
    Have(Vec<bool>),
    /// Not done.
    Failed(StoreFault),
}

/// Why a [`StoreOp`] was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreFault {
    /// Quota or disk are full.
    #[error("the donated space is full")]
    Full,
    /// The share of newcomers is; there is room for others.
    #[error("the share of the donated space that newcomers have is full")]
    NewcomersFull,
    /// No such shard.
    #[error("no such shard")]
    NotFound,
    /// The bytes on disk do not match their address any more.
    #[error("the shard on disk is damaged")]
    Damaged,
    /// The disk or database failed.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// More is waiting to be written or read than may wait; ask again later.
    #[error("the store is busy")]
    Busy,
}

// ---- the working tree ----

/// What the working tree keeps of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// The number that `stat` shows; local to this device, never reused.
    pub ino: u64,
    /// The id it has on every device.
    pub id: FileId,
    /// What it is.
    pub kind: FileKind,
    /// `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device nodes.
    pub rdev: u64,
    /// Names that lead here. 0 while unlinked but open.
    pub nlink: u32,
    /// Size in bytes. Of an open or unsynced file the backing file knows better.
    pub size: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of content.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Target of a symlink.
    pub symlink: Vec<u8>,
    /// The directory its one name is in; of a file that has or had several names (see `linked`) the root of its volume. 0 of
    /// the uppermost root, and of what has no name any more.
    pub parent: u64,
    /// It has, or once had, more than one name, so its record stands in the link table.
    pub linked: bool,
    /// Of a root the volume that begins here.
    pub volume: Option<VolumeId>,
    /// Changed since the last snapshot that is durable.
    pub dirty: bool,
    /// What the last durable snapshot says it holds; `None` for what was never synced.
    pub remote: Option<Content>,
    /// How much of it is on this device.
    pub local: Local,
}

/// How much of an inode's content is on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing: the backing file (or, of a directory, the list of children) must come from the mesh.
    Absent,
    /// All of it, and the backing file is the truth. For directories: all children are in the store.
    Complete,
    /// All of it, clean, with this size and ctime of the backing file: after an unclean stop a difference means
    /// that it was written to.
    Clean {
        /// `st_size` of the backing file.
        size: u64,
        /// `st_ctime` of the backing file.
        ctime: Timespec,
    },
}

/// One change of the working tree's metadata.
#[expect(clippy::large_enum_variant, reason = "nearly all of a batch are inodes; a box each would only cost")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaOp {
    /// Insert or replace an inode.
    PutInode(InodeRow),
    /// Remove an inode (its names are gone already).
    RemoveInode(u64),
    /// Insert or replace a name.
    Link {
        /// Directory.
        parent: u64,
        /// Name.
        name: Vec<u8>,
        /// Inode.
        ino: u64,
    },
    /// Remove a name.
    Unlink {
        /// Directory.
        parent: u64,
        /// Name.
        name: Vec<u8>,
    },
    /// Inode numbers below this are taken, so that none is ever given out twice.
    NextIno(u64),
}

impl MetaOp {
    /// Whether this lets go of what takes up the disk, so that it has to be kept on a full one, too.
    pub fn makes_room(&self) -> bool {
        match self {
            Self::RemoveInode(_) | Self::Unlink { .. } => true,
            Self::PutInode(row) => row.nlink == 0 || row.local == Local::Absent,
            Self::Link { .. } | Self::NextIno(_) => false,
        }
    }
}

/// How far a commit must have come before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// It survives the end of this process, kill -9 included.
    Process,
    /// It survives the loss of power.
    Power,
}

/// The metadata of a working tree on this device: a volume, with others below it. All calls block on the local disk only.
pub trait MetaStore: Send + Sync {
    /// One inode.
    fn inode(&self, ino: u64) -> Result<Option<InodeRow>, PortError>;
    /// The inode with several names that has this id in the volume of this root.
    fn linked(&self, root: u64, id: FileId) -> Result<Option<InodeRow>, PortError>;
    /// The inodes with several names in the volume of this root, by id, in pages: those whose id comes after `after`, at
    /// most `limit`.
    fn all_linked(&self, root: u64, after: Option<FileId>, limit: u32) -> Result<Vec<InodeRow>, PortError>;
    /// All names of these inodes, each with its directory. That takes a look at every name there is.
    fn names_of(&self, inos: &[u64]) -> Result<Vec<(u64, Vec<u8>)>, PortError>;
    /// The roots of all volumes.
    fn roots(&self) -> Result<Vec<InodeRow>, PortError>;
    /// The names in a directory, in bytewise order, each with its inode.
    fn children(&self, parent: u64) -> Result<Vec<(Vec<u8>, InodeRow)>, PortError>;
    /// All inodes that are dirty, and all that are unlinked (`nlink == 0`), in pages: those with `ino > after`, at most
    /// `limit`.
    fn pending(&self, after: u64, limit: u32) -> Result<Vec<InodeRow>, PortError>;
    /// All inodes with `Local::Clean`, in pages as above.
    fn clean(&self, after: u64, limit: u32) -> Result<Vec<InodeRow>, PortError>;
    /// The next inode number to give out.
    fn next_ino(&self) -> Result<u64, PortError>;
    /// Applies `ops` in order, all or none.
    fn commit(&self, ops: &[MetaOp], durability: Durability) -> Result<(), PortError>;
}

/// The newest snapshots of volumes on the mesh. What references name is found whatever volume it is of. Calls block, each
/// until its deadline at the latest; no lock may be held over one.
pub trait RemoteTree: Send + Sync {
    /// All entries of a directory.
    fn list(&self, directory: &TreeRef) -> Result<Vec<Entry>, PortError>;
    /// The record of an inode of a volume with several names.
    fn link(&self, volume: VolumeId, id: FileId) -> Result<LinkEntry, PortError>;
    /// Content of a file: the extents that overlap `range`, whole, each with its offset in the file, in order.
    /// Holes are left out.
    fn read(&self, content: &Content, range: Range<u64>) -> Result<Vec<(u64, Bytes)>, PortError>;
    /// Where the next data of a file is, or the next hole, at or after `from`; none when there is none before its end.
    fn seek(&self, content: &Content, from: u64, wanted: Stretch) -> Result<Option<u64>, PortError>;
    /// Bytes at the beginnings of two files that are the same for certain; no more need be, and it need not be looked for.
    fn common(&self, _one: &Content, _other: &Content) -> Result<u64, PortError> {
        Ok(0)
    }
    /// Has `enter` take the root of a volume of which nothing is here yet. While it does, the volume becomes no other one: what is
    /// entered is what is published next from here goes on from.
    fn root(&self, volume: VolumeId, enter: &mut dyn FnMut(Inode)) -> Result<(), PortError>;
}

/// What a file's content is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Bytes.
    Data,
    /// Zeros that take up no room.
    Hole,
}

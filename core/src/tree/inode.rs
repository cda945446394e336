//! What stands in the leaves: directory entries, inode records, runs of file content, link-table rows; and the root
//! of a snapshot.

use minicbor::{Decode, Encode};

use super::{Item, Older, TreeRef};
use crate::id::{DeviceTag, FileId, VolumeId};
use crate::limits::{KIB, NAME_MAX, SEALED_MAX};
use crate::seal::ExtentRef;
use crate::time::Timespec;

/// Who changed something last, and in which of that device's heads: what merging goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Dot {
    /// The device.
    #[n(0)]
    pub device: DeviceTag,
    /// Sequence number of the head that published the change.
    #[n(1)]
    pub sequence: u64,
}

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum FileKind {
    /// A regular file.
    #[n(0)]
    Regular,
    /// A directory.
    #[n(1)]
    Directory,
    /// A symbolic link.
    #[n(2)]
    Symlink,
    /// A named pipe.
    #[n(3)]
    Fifo,
    /// A socket.
    #[n(4)]
    Socket,
    /// A character device.
    #[n(5)]
    CharDevice,
    /// A block device.
    #[n(6)]
    BlockDevice,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.comment`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Value.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

impl Xattr {
    /// What it takes of the bytes that all of one inode may have.
    pub fn room(&self) -> usize {
        self.name.len() + 1 + self.value.len()
    }
}

/// What an inode holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Content {
    /// Nothing: an empty file, a fifo, a socket, a device.
    #[n(0)]
    Empty,
    /// A tiny file, whole.
    #[n(1)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A file of one extent.
    #[n(2)]
    Extent(#[n(0)] ExtentRef),
    /// A longer file: a tree of [`Run`]s.
    #[n(3)]
    Runs {
        /// The tree.
        #[n(0)]
        tree: TreeRef,
        /// Bytes of the file that are data; the rest are holes.
        #[n(1)]
        data: u64,
    },
    /// The target of a symbolic link.
    #[n(4)]
    Symlink(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A directory: a tree of [`Entry`]s.
    #[n(5)]
    Directory(#[n(0)] TreeRef),
}

impl Content {
    /// File size in bytes as `stat` shows it; 0 for directories.
    pub fn size(&self) -> u64 {
        match self {
            Self::Empty | Self::Directory(_) => 0,
            Self::Inline(bytes) | Self::Symlink(bytes) => bytes.len() as u64,
            Self::Extent(extent) => u64::from(extent.len),
            Self::Runs { tree, .. } => tree.weight,
        }
    }

    /// Bytes of a file that are data and no holes; 0 for directories.
    pub fn data(&self) -> u64 {
        match self {
            Self::Runs { data, .. } => *data,
            whole => whole.size(),
        }
    }
}

/// The inode record. It lies in its entry while it has one name, else in the link table.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Inode {
    /// For its whole life.
    #[n(0)]
    pub id: FileId,
    /// What it is.
    #[n(1)]
    pub kind: FileKind,
    /// Permission bits, with setuid, setgid and sticky: `mode & 0o7777`.
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub uid: u32,
    /// Group.
    #[n(4)]
    pub gid: u32,
    /// Device number of device nodes, else 0.
    #[n(5)]
    pub rdev: u64,
    /// Last change of the content.
    #[n(6)]
    pub mtime: Timespec,
    /// Last change of the inode, as it was on the device that made it.
    #[n(7)]
    pub ctime: Timespec,
    /// Extended attributes, sorted by name.
    #[n(8)]
    pub xattrs: Vec<Xattr>,
    /// Content.
    #[n(9)]
    pub content: Content,
    /// Last change of the metadata.
    #[n(10)]
    pub meta_dot: Dot,
    /// Last change of the content; absent where it is that of the metadata.
    #[n(11)]
    pub content_dot: Option<Dot>,
    /// What of the metadata was last changed earlier.
    #[n(12)]
    pub older: Option<Box<Older>>,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    /// An inode with this one name.
    #[n(0)]
    Inode(#[n(0)] Box<Inode>),
    /// An inode with several names: its record is in the link table.
    #[n(1)]
    Link(#[n(0)] FileId),
    /// A directory that is the root of another volume. What it holds is found by that volume's heads.
    #[n(2)]
    Volume {
        /// That volume.
        #[n(0)]
        volume: VolumeId,
        /// The id of its root.
        #[n(1)]
        id: FileId,
    },
}

impl Target {
    /// The id of the inode behind the name.
    pub fn id(&self) -> FileId {
        match self {
            Self::Inode(inode) => inode.id,
            Self::Link(id) | Self::Volume { id, .. } => *id,
        }
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// Bytes, compared bytewise, never normalised.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// When the name last came to lead here.
    #[n(1)]
    pub dot: Dot,
    /// What it leads to.
    #[n(2)]
    pub target: Target,
}

/// A name as a key: bytes on the wire, compared bytewise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Name(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

impl Item for Entry {
    type Key = Name;
    const NAME: &'static str = "directory";

    fn key(&self) -> Name {
        Name(self.name.clone())
    }

    fn weight(&self) -> u64 {
        1
    }

    fn cut_bytes(&self) -> Vec<u8> {
        self.name.clone()
    }
}

/// A piece of a file, in file order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Run {
    /// Bytes.
    #[n(0)]
    Data(#[n(0)] ExtentRef),
    /// A hole of this many bytes.
    #[n(1)]
    Hole(#[n(0)] u64),
}

impl Item for Run {
    type Key = ();
    const NAME: &'static str = "file";

    fn key(&self) {}

    fn weight(&self) -> u64 {
        match self {
            Self::Data(extent) => u64::from(extent.len),
            Self::Hole(len) => *len,
        }
    }

    fn cut_bytes(&self) -> Vec<u8> {
        match self {
            Self::Data(extent) => extent.id().0.to_vec(),
            Self::Hole(len) => len.to_be_bytes().to_vec(),
        }
    }
}

/// A row of the link table: an inode with several names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LinkEntry {
    /// The record.
    #[n(0)]
    pub inode: Inode,
    /// How many names lead to it.
    #[n(1)]
    pub links: u32,
}

impl Item for LinkEntry {
    type Key = FileId;
    const NAME: &'static str = "link table";

    fn key(&self) -> FileId {
        self.inode.id
    }

    fn weight(&self) -> u64 {
        1
    }

    fn cut_bytes(&self) -> Vec<u8> {
        self.inode.id.0.to_vec()
    }
}

/// Whether these bytes can be a name in a directory.
pub fn is_name(bytes: &[u8]) -> bool {
    let is_dots = bytes == b"." || bytes == b"..";
    !bytes.is_empty() && bytes.len() <= NAME_MAX && !is_dots && !bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The root of a snapshot: a whole volume at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Root {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// The root directory.
    #[n(1)]
    pub inode: Inode,
    /// Inodes with several names: a tree of [`LinkEntry`]s.
    #[n(2)]
    pub links: Option<TreeRef>,
    /// For each device the newest head whose changes are in here, sorted by device: the version vector.
    #[n(3)]
    pub vector: Vec<Dot>,
    /// Of a tree that was merged, in which its author has changed nothing: the sealed roots that it was made of. Whoever
    /// merges further takes these. None of them was merged itself.
    #[n(4)]
    pub parts: Vec<ExtentRef>,
    /// Snapshots that are kept: a tree of [`Kept`](crate::history::Kept).
    #[n(5)]
    pub history: Option<TreeRef>,
    /// Names for them: a tree of [`Tag`](crate::history::Tag)s.
    #[n(6)]
    pub tags: Option<TreeRef>,
}
crate::format!(Root, tag = 0x31, version = 1, max = SEALED_MAX, name = "snapshot root");

const _: () = assert!(256 * KIB < SEALED_MAX);

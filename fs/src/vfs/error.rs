//! What can go wrong in the filesystem, and the one place where it becomes an errno.

use std::io;

use hypernet_core::port::PortError;
use thiserror::Error;

use super::patience::Wait;

/// An operation was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VfsError {
    /// No such name or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("it exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory was not wanted.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name of more than 255 bytes, or too long a symlink target.
    #[error("the name is too long")]
    NameTooLong,
    /// The arguments make no sense together.
    #[error("invalid argument")]
    Invalid,
    /// Past the largest offset a file can have.
    #[error("the file would be too large")]
    FileTooLarge,
    /// The inode has as many names as it can have.
    #[error("too many links")]
    TooManyLinks,
    /// Not for a thing of this kind.
    #[error("access denied")]
    Denied,
    /// Never allowed, whoever asks.
    #[error("operation not permitted")]
    NotPermitted,
    /// This filesystem does not do that.
    #[error("operation not supported")]
    NotSupported,
    /// No extended attribute of that name.
    #[error("no such extended attribute")]
    NoAttribute,
    /// It would lead from one volume into another.
    #[error("that is another volume")]
    CrossesVolumes,
    /// A file has names both in what is to be a volume of its own and outside of it.
    #[error("inode {0} has another name outside of this directory")]
    LinkedElsewhere(u64),
    /// A volume begins there, or is being published.
    #[error("it is in use")]
    Busy,
    /// Others have changed the file, and its name leads to what it is now.
    #[error("it was replaced by what others have made of it: open it again")]
    Replaced,
    /// Nothing may be changed in that volume.
    #[error("the volume is read-only on this device")]
    ReadOnlyVolume,
    /// The caller's buffer is too small for the extended attribute.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// An extended attribute beyond what an inode can carry.
    #[error("the extended attribute is too large")]
    AttributeTooLarge,
    /// No room for one more extended attribute.
    #[error("no space for more extended attributes")]
    AttributeSpace,
    /// SEEK_DATA or SEEK_HOLE past the end.
    #[error("no such offset")]
    NoSuchOffset,
    /// A handle that is not open.
    #[error("bad handle")]
    BadHandle,
    /// The answer needs this, and the thread must not wait for it.
    #[error("this would have to wait ({0:?})")]
    WouldBlock(Wait),
    /// More requests wait than there is room for.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The content cannot be had from the mesh now.
    #[error("not to be had from the mesh now: {0}")]
    Unreachable(String),
    /// What came from the mesh is damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// There is no root, and a backing file that belongs to a tree which had one.
    #[error("the working tree is gone, but backing file {0:x} belongs to it; nothing was changed")]
    Rootless(u64),
    /// The disk under HN_HOME is full.
    #[error("the disk under HN_HOME is full")]
    NoSpace,
    /// The disk or database under HN_HOME failed.
    #[error("local storage failed: {0}")]
    Local(String),
}

impl VfsError {
    /// The errno that a caller sees. No wildcard: a new error needs a decision here.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::Invalid => libc::EINVAL,
            Self::FileTooLarge => libc::EFBIG,
            Self::TooManyLinks => libc::EMLINK,
            Self::Denied => libc::EACCES,
            Self::NotPermitted => libc::EPERM,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::NoAttribute => libc::ENODATA,
            Self::CrossesVolumes | Self::LinkedElsewhere(_) => libc::EXDEV,
            Self::Busy => libc::EBUSY,
            // The kernel looks its name up again.
            Self::Replaced => libc::ESTALE,
            Self::ReadOnlyVolume => libc::EROFS,
            Self::BufferTooSmall => libc::ERANGE,
            Self::AttributeTooLarge => libc::E2BIG,
            Self::AttributeSpace => libc::ENOSPC,
            Self::NoSuchOffset => libc::ENXIO,
            Self::BadHandle => libc::EBADF,
            Self::WouldBlock(_) => libc::EAGAIN,
            Self::Overloaded => libc::EBUSY,
            Self::Unreachable(_) | Self::Damaged(_) | Self::Rootless(_) => libc::EIO,
            Self::NoSpace => libc::ENOSPC,
            Self::Local(_) => libc::EIO,
        }
    }
}

impl From<PortError> for VfsError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unreachable(_)
            | PortError::Deadline(_)
            | PortError::NotFound(_)
            | PortError::Superseded(_)
            | PortError::Newer(_)
            | PortError::NoPart(_) => Self::Unreachable(error.to_string()),
            PortError::Damaged(text) => Self::Damaged(text),
            PortError::DiskFull(_) => Self::NoSpace,
            PortError::Disk(text) => Self::Local(text),
        }
    }
}

/// Errors of the backing files.
impl From<io::Error> for VfsError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            Some(libc::EFBIG) => Self::FileTooLarge,
            Some(libc::EOPNOTSUPP) => Self::NotSupported,
            Some(libc::ENXIO) => Self::NoSuchOffset,
            _ => Self::Local(error.to_string()),
        }
    }
}

impl From<rustix::io::Errno> for VfsError {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

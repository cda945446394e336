//! Between the words of the kernel and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use hypernet_core::time::Timespec;
use hypernet_core::tree::FileKind;

use crate::vfs::{Attr, SetTime, VfsError};

pub(super) fn errno(error: &VfsError) -> Errno {
    let number = error.errno();
    if number == libc::EIO {
        // All that a program hears is a number.
        tracing::debug!(%error, "answered with an input/output error");
    }
    Errno::from_i32(number)
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time for the kernel. What `SystemTime` cannot hold becomes the epoch.
fn system_time(time: Timespec) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// A time from the kernel. fuser 0.18 subtracts the nanoseconds of a time before 1970 where it should add them; this
/// undoes it.
pub(super) fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timespec { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            Timespec { seconds, nanos: before.subsec_nanos() }
        }
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timespec(time)),
    }
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: attr.mode as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// The answer to a lookup that found nothing: inode 0 lets the kernel remember that.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_through_fuser() {
        // As fuser makes it of (-2 s, 500,000,000 ns), which is half a second before -1.
        let from_kernel = UNIX_EPOCH - Duration::new(2, 500_000_000);
        let time = timespec(from_kernel);
        assert_eq!(time, Timespec { seconds: -2, nanos: 500_000_000 });
        assert_eq!(system_time(time), UNIX_EPOCH - Duration::from_millis(1_500));
        assert_eq!(
            system_time(Timespec { seconds: i64::MIN, nanos: 1 }),
            UNIX_EPOCH - Duration::from_secs(1 << 63) + Duration::from_nanos(1)
        );
    }
}

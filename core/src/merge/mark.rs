//! By what a version is known that is kept beside another one: an extended attribute that says of which file it is, and who wrote it.
//!
//! It is there for whoever lists and settles conflicts, and merging itself asks nothing of it: anybody may set it, or take it away.

use std::fmt;

use crate::id::{DeviceTag, FileId};
use crate::limits::XATTRS_TOTAL_MAX;
use crate::tree::{Inode, Xattr};

/// The extended attribute of a version that is kept beside another one.
pub const XATTR: &[u8] = b"user.hypernet.conflict";

/// Digits of a device tag.
const DEVICE_DIGITS: usize = 16;

/// Of which file something is a version, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The file.
    pub file: FileId,
    /// The device that wrote the version.
    pub device: DeviceTag,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:0width$x}", self.file, self.device.0, width = DEVICE_DIGITS)
    }
}

/// Digits as they are written here: no other text stands for the same.
fn digits(text: &str, len: usize) -> Option<&str> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == len && text.bytes().all(is_digit)).then_some(text)
}

impl Mark {
    /// From the value of the attribute; nothing where it is none.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (file, device) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let file = u128::from_str_radix(digits(file, 2 * FileId::LEN)?, 16).ok()?;
        let device = u64::from_str_radix(digits(device, DEVICE_DIGITS)?, 16).ok()?;
        Some(Self { file: FileId(file.to_be_bytes()), device: DeviceTag(device) })
    }

    /// That of an inode, if it is a version that is kept beside another one.
    pub fn of(inode: &Inode) -> Option<Self> {
        let xattr = inode.xattrs.iter().find(|xattr| xattr.name == XATTR)?;
        Self::parse(&xattr.value)
    }

    /// Puts it on an inode, in the place of one that it has. Where there is no room it is left out: what somebody has set stays.
    pub(super) fn put(self, inode: &mut Inode) {
        inode.xattrs.retain(|xattr| xattr.name != XATTR);
        let mark = Xattr { name: XATTR.to_vec(), value: self.to_string().into_bytes() };
        if inode.xattrs.iter().chain([&mark]).map(Xattr::room).sum::<usize>() <= XATTRS_TOTAL_MAX {
            let at = inode.xattrs.partition_point(|xattr| xattr.name < mark.name);
            inode.xattrs.insert(at, mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mark = Mark { file: FileId([0xa1; 16]), device: DeviceTag(0x0123) };
        assert_eq!(mark.to_string(), "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1 0000000000000123");
        assert_eq!(Mark::parse(mark.to_string().as_bytes()), Some(mark));
        let text = mark.to_string();
        for other in [
            String::new(),
            " ".into(),
            text.to_uppercase(),
            format!("{text} "),
            format!(" {text}"),
            text.replace(' ', "  "),
            text.replace('a', "+"),
            text.replace(" 0", " +"),
            text[..text.len() - 1].into(),
            format!("{text}0"),
            "ä".repeat(24),
        ] {
            assert_eq!(Mark::parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Mark::parse(&[0xff; 49]), None);
    }
}

//! Modes, owners and extended attributes, read and set without following symbolic links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, XattrFlags, chownat, lgetxattr, lgetxattr_query, llistxattr, llistxattr_query,
    lremovexattr, lsetxattr, openat, removexattr, setxattr,
};

/// Bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// What belongs to a file beside what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// None: a symbolic link has none of its own.
    mode: Option<u32>,
    owner: (u32, u32),
    attributes: BTreeMap<CString, Vec<u8>>,
}

/// What is to be set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    /// None: it is taken away.
    attributes: BTreeMap<CString, Option<Vec<u8>>>,
}

/// How what is there is on its way from what was to what it was before that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// It is as it was before.
    Is,
    /// These are to be set.
    Set(Settings),
    /// This was changed since.
    Changed(String),
}

/// A place in a directory that is open.
pub(super) fn at(dir: &impl AsFd, name: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name)
}

fn listed(path: &Path) -> io::Result<Vec<CString>> {
    let mut list = vec![0; llistxattr_query(path)?];
    let length = llistxattr(path, &mut list[..])?;
    let names = list[..length].split_inclusive(|byte| *byte == 0);
    Ok(names.filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(CStr::to_owned)).collect())
}

fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0; lgetxattr_query(path, name)?];
    let length = lgetxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

impl About {
    /// Of what is at a path.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let names = listed(path)?;
        let attributes = names.into_iter().map(|name| Ok((name.clone(), attribute(path, &name)?)));
        Ok(Self {
            mode: mode(&found),
            owner: (found.uid(), found.gid()),
            attributes: attributes.collect::<io::Result<_>>()?,
        })
    }

    /// The same, of this mode.
    pub(super) fn of_mode(self, mode: u32) -> Self {
        Self { mode: self.mode.map(|_| mode & PERMISSIONS), ..self }
    }

    /// What is to be set for `self` to be as before again, where it is as that has become.
    pub(super) fn back(&self, before: &Self, after: &Self) -> Back {
        let mut settings = Settings::default();
        let mut changed = None;
        let mut is_to_be_set = |what: &str, is_other: bool, is_before: bool, is_after: bool| {
            if is_other && !is_before && !is_after {
                changed.get_or_insert_with(|| what.to_owned());
            }
            is_other && !is_before
        };
        let now = self.mode;
        if is_to_be_set("mode", before.mode != after.mode, now == before.mode, now == after.mode) {
            settings.mode = before.mode;
        }
        let now = self.owner;
        if is_to_be_set("owner", before.owner != after.owner, now == before.owner, now == after.owner) {
            settings.owner = Some(before.owner);
        }
        let names: BTreeSet<&CString> = before.attributes.keys().chain(after.attributes.keys()).collect();
        for name in names {
            let [was, of, now] = [before, after, self].map(|about| about.attributes.get(name));
            if is_to_be_set(&format!("attribute {}", name.to_string_lossy()), was != of, now == was, now == of) {
                settings.attributes.insert(name.clone(), was.cloned());
            }
        }
        match changed {
            Some(what) => Back::Changed(what),
            None if settings == Settings::default() => Back::Is,
            None => Back::Set(settings),
        }
    }

    /// All of it.
    pub(super) fn settings(&self) -> Settings {
        let attributes = self.attributes.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
        Settings { mode: self.mode, owner: Some(self.owner), attributes }
    }
}

fn mode(found: &Metadata) -> Option<u32> {
    (!found.is_symlink()).then(|| found.mode() & PERMISSIONS)
}

impl Settings {
    /// Sets them. The owner comes first, as that takes away what is not for others, and the mode last, which an access control
    /// list changes, too.
    pub(super) fn apply(&self, dir: &impl AsFd, name: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(at(dir, name))?;
        if let Some((uid, gid)) = self.owner.filter(|owner| *owner != (found.uid(), found.gid())) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if found.is_symlink() {
            let path = at(dir, name);
            return self.each_attribute(|name, value| match value {
                Some(value) => lsetxattr(&path, name, value, XattrFlags::empty()),
                None => lremovexattr(&path, name),
            });
        }
        // What was opened is what is changed, whatever has this name by then.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(dir, name, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        if fs::metadata(&path)?.is_symlink() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.each_attribute(|name, value| match value {
            Some(value) => setxattr(&path, name, value, XattrFlags::empty()),
            None => removexattr(&path, name),
        })?;
        match self.mode {
            Some(mode) => fs::set_permissions(&path, Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }

    fn each_attribute(&self, set: impl Fn(&CStr, Option<&[u8]>) -> rustix::io::Result<()>) -> io::Result<()> {
        self.attributes.iter().try_for_each(|(name, value)| Ok(set(name, value.as_deref())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(mode: u32, owner: u32, attributes: &[(&str, &str)]) -> About {
        let attribute = |(name, value): &(&str, &str)| (CString::new(*name).unwrap(), value.as_bytes().to_vec());
        About { mode: Some(mode), owner: (owner, 0), attributes: attributes.iter().map(attribute).collect() }
    }

    #[test]
    fn what_was_changed_since_is_not_changed_back() {
        let (before, after) = (about(0o600, 1, &[("a", "1"), ("b", "1")]), about(0o644, 1, &[("b", "2"), ("c", "1")]));
        let Back::Set(settings) = after.back(&before, &after) else { panic!("nothing to set") };
        let attributes: Vec<_> = settings.attributes.values().map(|value| value.as_deref()).collect();
        assert_eq!((settings.mode, settings.owner), (Some(0o600), None));
        assert_eq!(attributes, [Some(&b"1"[..]), Some(b"1"), None]);
        assert_eq!(before.back(&before, &after), Back::Is);
        // What the two have in common stays as it is now.
        assert_eq!(about(0o600, 7, &[("a", "1"), ("b", "1"), ("d", "9")]).back(&before, &after), Back::Is);
        let other = about(0o755, 1, &[("b", "2"), ("c", "1")]);
        assert_eq!(other.back(&before, &after), Back::Changed("mode".into()));
        let other = about(0o644, 1, &[("b", "3"), ("c", "1")]);
        assert_eq!(other.back(&before, &after), Back::Changed("attribute b".into()));
    }

    #[test]
    fn what_is_set_is_read_again_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let open = fs::File::open(dir.path()).unwrap();
        let was = About::read(&file).unwrap();
        was.clone().of_mode(0o100_604).settings().apply(&open, Path::new("file")).unwrap();
        assert_eq!(About::read(&file).unwrap(), was.clone().of_mode(0o604));
        let of_link = About::read(&link).unwrap();
        assert_eq!(of_link.mode, None);
        was.settings().apply(&open, Path::new("link")).unwrap();
        assert_eq!(About::read(&file).unwrap().mode, Some(0o604));
    }
}

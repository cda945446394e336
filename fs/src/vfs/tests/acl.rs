//! Access control lists: what they do to mode bits and what mode bits do to them, inheritance, bad input.

use proptest::prelude::*;

use super::*;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

// Tags of the kernel's form.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// A list as the kernel writes it.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, bits, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// owner rwx, user 7 as given, group r-x, mask as given, others r--.
fn named(user: u16, mask: u16) -> Vec<u8> {
    list(&[(OWNER, 7, NOBODY), (USER, user, 7), (OWNING_GROUP, 5, NOBODY), (MASK, mask, NOBODY), (OTHERS, 4, NOBODY)])
}

fn plain(owner: u16, group: u16, others: u16) -> Vec<u8> {
    list(&[(OWNER, owner, NOBODY), (OWNING_GROUP, group, NOBODY), (OTHERS, others, NOBODY)])
}

impl Bed {
    fn set(&self, ino: u64, name: &[u8], value: &[u8]) -> Result<()> {
        self.vfs.setxattr(ME, ino, name, value, XattrFlags::Set)
    }

    fn chmod(&self, ino: u64, mode: u32) -> Result<Attr> {
        self.vfs.setattr(ME, ino, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    fn get(&self, ino: u64, name: &[u8]) -> Option<Vec<u8>> {
        match self.vfs.getxattr(ino, name) {
            Ok(value) => Some(value),
            Err(VfsError::NoAttribute) => None,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_list_and_the_mode_say_the_same() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"");
    bed.set(ino, ACCESS, &named(6, 3)).unwrap();
    assert_eq!(bed.stat(ino).mode, 0o734, "the group's bits are the mask");
    assert_eq!(bed.get(ino, ACCESS), Some(named(6, 3)));
    assert_eq!(bed.vfs.listxattr(ADMIN, ino).unwrap(), b"system.posix_acl_access\0");
    bed.chmod(ino, 0o4760).unwrap();
    let changed =
        list(&[(OWNER, 7, NOBODY), (USER, 6, 7), (OWNING_GROUP, 5, NOBODY), (MASK, 6, NOBODY), (OTHERS, 0, NOBODY)]);
    assert_eq!((bed.get(ino, ACCESS), bed.stat(ino).mode), (Some(changed.clone()), 0o4760));
    // What mode bits can say is said by them alone.
    bed.set(ino, ACCESS, &plain(6, 4, 0)).unwrap();
    assert_eq!((bed.get(ino, ACCESS), bed.stat(ino).mode), (None, 0o4640));
    bed.chmod(ino, 0o600).unwrap();
    assert_eq!(bed.get(ino, ACCESS), None);
    bed.set(ino, ACCESS, &changed).unwrap();
    bed.vfs.removexattr(ino, ACCESS).unwrap();
    assert_eq!((bed.get(ino, ACCESS), bed.stat(ino).mode), (None, 0o760));
    assert_eq!(bed.vfs.removexattr(ino, ACCESS), Err(VfsError::NoAttribute));
}

#[test]
fn who_is_not_of_the_group_loses_the_setgid_bit_of_a_file() {
    let bed = Bed::new();
    let other = Caller { gid: ME.gid + 1, ..ME };
    for (caller, mode) in [(other, 0o774), (ME, 0o2774), (ADMIN, 0o2774)] {
        let ino = bed.file(ROOT, &format!("{caller:?}"), b"");
        bed.chmod(ino, 0o2755).unwrap();
        bed.vfs.setxattr(caller, ino, ACCESS, &named(7, 7), XattrFlags::Set).unwrap();
        assert_eq!(bed.stat(ino).mode, mode, "{caller:?}");
    }
}

#[test]
fn a_default_list_takes_the_place_of_the_umask() {
    let bed = Bed::new();
    let strict = Caller { umask: 0o077, ..ME };
    let make =
        |dir: u64, name: &str, mode| bed.vfs.mknod(strict, dir, name.as_bytes(), libc::S_IFREG | mode, 0).unwrap().ino;
    assert_eq!(bed.stat(make(ROOT, "without", 0o666)).mode, 0o600);

    let dir = bed.dir(ROOT, "dir");
    bed.set(dir, DEFAULT, &named(7, 7)).unwrap();
    assert_eq!((bed.stat(dir).mode, bed.get(dir, ACCESS)), (0o755, None), "it is about what is made in it");
    let ino = make(dir, "file", 0o640);
    let given =
        list(&[(OWNER, 6, NOBODY), (USER, 7, 7), (OWNING_GROUP, 5, NOBODY), (MASK, 4, NOBODY), (OTHERS, 0, NOBODY)]);
    assert_eq!((bed.stat(ino).mode, bed.get(ino, ACCESS)), (0o640, Some(given)));
    assert_eq!(bed.get(ino, DEFAULT), None);

    let below = bed.vfs.mkdir(strict, dir, b"below", 0o1777).unwrap();
    assert_eq!((below.mode, bed.get(below.ino, ACCESS)), (0o1774, Some(named(7, 7))));
    assert_eq!(bed.get(below.ino, DEFAULT), Some(named(7, 7)), "and so on, all the way down");
    let (attr, _) = bed.vfs.create(strict, below.ino, b"file", 0o666, RW, false).unwrap();
    assert_eq!(attr.mode, 0o664);
    bed.vfs.release(attr.ino, RW).unwrap();
    let link = bed.vfs.symlink(strict, dir, b"link", b"file").unwrap();
    assert_eq!((link.mode, bed.get(link.ino, ACCESS)), (0o777, None));

    // One that says no more than a mode leaves no list behind, but is still in the umask's place.
    bed.set(dir, DEFAULT, &plain(7, 7, 1)).unwrap();
    let ino = make(dir, "plain", 0o666);
    assert_eq!((bed.stat(ino).mode, bed.get(ino, ACCESS)), (0o660, None));
    bed.vfs.removexattr(dir, DEFAULT).unwrap();
    assert_eq!(bed.stat(make(dir, "after", 0o666)).mode, 0o600);
    bed.assert_sound();
}

#[test]
fn lists_are_published_and_recovered() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let ino = bed.file(dir, "a", b"x");
    bed.publish().unwrap();
    bed.set(dir, DEFAULT, &named(7, 7)).unwrap();
    bed.set(ino, ACCESS, &named(4, 4)).unwrap();
    let root = bed.publish().unwrap();
    let bed = bed.restart();
    assert_eq!(bed.get(bed.at("dir/a"), ACCESS), Some(named(4, 4)));
    let other = bed.recovered(root);
    let (dir, ino) = (other.at("dir"), other.at("dir/a"));
    assert_eq!((other.get(dir, DEFAULT), other.get(ino, ACCESS)), (Some(named(7, 7)), Some(named(4, 4))));
    assert_eq!(other.stat(ino).mode, 0o744);
}

#[test]
fn what_is_no_list_is_refused_and_changes_nothing() {
    let bed = Bed::new();
    let (dir, ino) = (bed.dir(ROOT, "dir"), bed.file(ROOT, "a", b""));
    let link = bed.vfs.symlink(ME, ROOT, b"link", b"a").unwrap().ino;
    let (owner, group, others) = ((OWNER, 7, NOBODY), (OWNING_GROUP, 5, NOBODY), (OTHERS, 4, NOBODY));
    let (user, mask) = ((USER, 7, 7), (MASK, 7, NOBODY));
    let bad = [
        Vec::new(),
        vec![2, 0, 0],
        list(&[]),
        [&[1], &named(7, 7)[1..]].concat(),
        named(7, 7)[..11].to_vec(),
        [named(7, 7), vec![0; 4]].concat(),
        list(&[owner, group]),
        list(&[owner, others]),
        list(&[group, others]),
        list(&[owner, owner, group, others]),
        list(&[owner, group, mask, mask, others]),
        list(&[owner, user, group, others]),
        list(&[owner, group, (GROUP, 7, 7), others]),
        list(&[owner, group, user, mask, others]),
        list(&[others, group, owner]),
        list(&[(OWNER, 8, NOBODY), group, others]),
        list(&[owner, (USER, 7, NOBODY), group, mask, others]),
        list(&[owner, group, (0x40, 7, 7), others]),
    ];
    for value in &bad {
        assert_eq!(bed.set(ino, ACCESS, value), Err(VfsError::Invalid), "{value:?}");
        assert_eq!(bed.set(dir, DEFAULT, value), Err(VfsError::Invalid), "{value:?}");
    }
    let many: Vec<_> = (0..512).map(|id| (USER, 7, id)).collect();
    let long = list(&[&[owner], many.as_slice(), &[group, mask, others]].concat());
    assert_eq!(bed.set(ino, ACCESS, &long), Err(VfsError::AttributeTooLarge));
    assert_eq!(bed.set(ino, DEFAULT, &named(7, 7)).unwrap_err().errno(), libc::EACCES);
    assert_eq!(bed.set(link, ACCESS, &named(7, 7)), Err(VfsError::NotSupported));
    assert_eq!(bed.set(ino, b"system.posix_acl_other", &named(7, 7)), Err(VfsError::NotSupported));
    assert_eq!((bed.stat(ino).mode, bed.stat(dir).mode), (0o644, 0o755));
    assert_eq!((bed.get(ino, ACCESS), bed.get(dir, DEFAULT)), (None, None));
}

#[test]
fn a_damaged_list_from_elsewhere_gives_nobody_more_rights() {
    let bed = Bed::new();
    let (dir, ino) = (bed.dir(ROOT, "dir"), bed.file(ROOT, "a", b""));
    bed.set(dir, DEFAULT, &named(7, 7)).unwrap();
    bed.set(ino, ACCESS, &named(0, 0)).unwrap();
    bed.vfs.close(true).unwrap();
    for ino in [dir, ino] {
        bed.meta.damage(ino, |row| row.xattrs[0].value.truncate(9));
    }
    let meta = bed.meta.clone();
    let bed = bed.reopen(meta);
    assert_eq!(bed.chmod(ino, 0o777).unwrap_err().errno(), libc::EIO);
    assert_eq!(bed.vfs.mkdir(ME, dir, b"below", 0o777).unwrap_err().errno(), libc::EIO);
    assert_eq!(bed.stat(ino).mode, 0o704);
    // Whoever owns them can set them right.
    bed.set(ino, ACCESS, &named(4, 4)).unwrap();
    bed.vfs.removexattr(dir, DEFAULT).unwrap();
    bed.dir(dir, "below");
}

/// Lists as they may be, not only as they should be.
fn any_list() -> impl Strategy<Value = Vec<u8>> {
    let tag =
        prop_oneof![Just(OWNER), Just(USER), Just(OWNING_GROUP), Just(GROUP), Just(MASK), Just(OTHERS), any::<u16>()];
    let entry = (tag, 0u16..9, prop_oneof![Just(NOBODY), 0..4u32]);
    let sound = (0u16..8, 0u16..8, prop::collection::vec((0u16..8, 0u32..9), 0..4), 0u16..8, 0u16..8).prop_map(
        |(owner, group, users, mask, others)| {
            let mut entries = vec![(OWNER, owner, NOBODY)];
            entries.extend(users.iter().map(|(bits, id)| (USER, *bits, *id)));
            entries.push((OWNING_GROUP, group, NOBODY));
            entries.push((MASK, mask, NOBODY));
            entries.push((OTHERS, others, NOBODY));
            list(&entries)
        },
    );
    prop_oneof![
        sound,
        prop::collection::vec(entry, 0..8).prop_map(|entries| list(&entries)),
        prop::collection::vec(any::<u8>(), 0..40)
    ]
}

proptest! {
    #[test]
    fn whatever_is_taken_is_kept_as_it_is_and_follows_the_mode(value in any_list(), mode in 0u32..0o10000) {
        let bed = Bed::new();
        let ino = bed.file(ROOT, "a", b"");
        if bed.set(ino, ACCESS, &value).is_ok() && let Some(kept) = bed.get(ino, ACCESS) {
            prop_assert_eq!(kept, value);
            bed.chmod(ino, mode).unwrap();
            let changed = bed.get(ino, ACCESS).unwrap();
            // Setting what the new mode made of it changes nothing more.
            bed.vfs.setxattr(ADMIN, ino, ACCESS, &changed, XattrFlags::Replace).unwrap();
            prop_assert_eq!(bed.stat(ino).mode, mode);
        }
    }
}

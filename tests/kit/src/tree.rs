//! Random trees of everything that a filesystem can hold, and what two trees differ in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, lsetxattr, utimensat};
use walkdir::WalkDir;

/// Attributes that a filesystem makes up itself.
const MADE_UP: &[u8] = b"user.hypernet.";

/// Sizes around everything where a format changes: nothing, inline, one extent, several, more than a segment's row.
const SIZES: [u64; 12] = [0, 1, 17, 511, 512, 513, 4_096, 20_000, 65_536, 300_000, 1_000_003, 3_000_000];

/// A generator of trees. The same seed makes the same tree.
#[derive(Debug)]
pub struct Generator {
    random: ChaCha8Rng,
}

impl Generator {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Fills the empty directory `root` with `entries` files, directories, symlinks and hard links.
    pub fn fill(&mut self, root: &Path, entries: u32) -> Result<()> {
        let mut directories = vec![root.to_path_buf()];
        let mut files: Vec<PathBuf> = Vec::new();
        for number in 0..entries {
            let at = self.below(directories.len() as u64) as usize;
            let path = directories[at].join(self.name(number));
            match self.below(20) {
                0..3 => {
                    fs::create_dir(&path).with_context(|| format!("mkdir {}", path.display()))?;
                    directories.push(path);
                    continue;
                }
                3 => symlink(self.name(number + 7), &path)?,
                4 if !files.is_empty() => {
                    let other = self.below(files.len() as u64) as usize;
                    fs::hard_link(&files[other], &path)?;
                    continue;
                }
                5 => {
                    self.sparse(&path)?;
                    files.push(path.clone());
                }
                _ => {
                    let size = self.one_of(&SIZES);
                    self.file(&path, size)?;
                    files.push(path.clone());
                }
            }
            self.dress(&path)?;
        }
        // Deepest first: what is made in a directory changes its time.
        for directory in directories.iter().skip(1).rev() {
            self.dress(directory)?;
        }
        self.times(root)
    }

    fn name(&mut self, number: u32) -> OsString {
        let bytes = match self.below(8) {
            0 => format!("with space {number}").into_bytes(),
            1 => format!("überlang-\u{1f980}-{number}").into_bytes(),
            // Not UTF-8, and a newline: names are bytes.
            2 => [b"\xff\xfe\n", number.to_string().as_bytes()].concat(),
            3 => format!("-{number}{}", "x".repeat(200)).into_bytes(),
            _ => format!("file-{number}.txt").into_bytes(),
        };
        OsString::from_vec(bytes)
    }

    /// Half of the contents can be compressed.
    fn bytes(&mut self, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        if self.below(2) == 0 {
            self.random.fill_bytes(&mut bytes);
        } else {
            let word = self.random.next_u64().to_string();
            for (to, from) in bytes.iter_mut().zip(word.as_bytes().iter().cycle()) {
                *to = *from;
            }
        }
        bytes
    }

    fn file(&mut self, path: &Path, size: u64) -> Result<()> {
        let bytes = self.bytes(size);
        fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
    }

    fn sparse(&mut self, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        let hole = 1 + self.below(5_000_000);
        file.seek(SeekFrom::Start(hole))?;
        let bytes = self.bytes(5_000);
        file.write_all(&bytes)?;
        file.set_len(hole + 5_000 + self.below(1_000_000))?;
        Ok(())
    }

    fn dress(&mut self, path: &Path) -> Result<()> {
        if !fs::symlink_metadata(path)?.is_symlink() {
            if self.below(4) == 0 {
                let size = self.one_of(&[0, 5, 300, 3_000]);
                let value = self.bytes(size);
                lsetxattr(path, "user.kit", &value, XattrFlags::empty())
                    .with_context(|| format!("setxattr {}", path.display()))?;
            }
            let dir = path.is_dir();
            let mode =
                if dir { self.one_of(&[0o755, 0o700, 0o1777]) } else { self.one_of(&[0o644, 0o600, 0o755, 0o444]) };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        self.times(path)
    }

    fn times(&mut self, path: &Path) -> Result<()> {
        let mut time =
            || Timespec { tv_sec: self.below(2_000_000_000) as i64, tv_nsec: self.below(1_000_000_000) as i64 };
        let times = Timestamps { last_access: time(), last_modification: time() };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).with_context(|| format!("utimens {}", path.display()))
    }
}

/// Everything of one entry that must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    size: u64,
    seconds: i64,
    nanos: i64,
    /// Hash of the content, or a symlink's target.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    links: u64,
    /// The first path, in order, of the same inode.
    same_as: Option<PathBuf>,
}

fn read(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    for found in WalkDir::new(root).sort_by_file_name() {
        let found = found.with_context(|| format!("cannot walk {}", root.display()))?;
        let (path, meta) = (found.path(), found.metadata()?);
        let below = path.strip_prefix(root)?.to_path_buf();
        let file = meta.is_file();
        let first = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| below.clone());
        let entry = Entry {
            mode: meta.mode(),
            size: if meta.is_dir() { 0 } else { meta.len() },
            seconds: meta.mtime(),
            nanos: meta.mtime_nsec(),
            content: content(path, &meta)?,
            xattrs: xattrs(path)?,
            links: if meta.is_dir() { 0 } else { meta.nlink() },
            same_as: (file && *first != below).then(|| first.clone()),
        };
        entries.insert(below, entry);
    }
    Ok(entries)
}

fn content(path: &Path, meta: &fs::Metadata) -> Result<Vec<u8>> {
    if meta.is_symlink() {
        return Ok(fs::read_link(path)?.into_os_string().into_vec());
    }
    if !meta.is_file() {
        return Ok(Vec::new());
    }
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(hasher.finalize().as_bytes().to_vec()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names).with_context(|| format!("listxattr {}", path.display()))?;
    let mut attributes = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") || name.starts_with(MADE_UP) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value)
            .with_context(|| format!("getxattr {}", path.display()))?;
        value.truncate(length);
        attributes.insert(name.to_vec(), value);
    }
    Ok(attributes)
}

/// What two trees differ in, one line each: names, kinds, modes, sizes, times of change, contents, symlinks, hard links
/// and attributes. Empty when they are equal.
pub fn differences(left: &Path, right: &Path) -> Result<Vec<String>> {
    let (left, right) = (read(left)?, read(right)?);
    let mut found = Vec::new();
    for (path, one) in &left {
        let Some(other) = right.get(path) else {
            found.push(format!("{}: missing", path.display()));
            continue;
        };
        let mut say = |what: &str, a: String, b: String| {
            if a != b {
                found.push(format!("{}: {what} is {b} instead of {a}", path.display()));
            }
        };
        say("mode", format!("{:o}", one.mode), format!("{:o}", other.mode));
        say("size", one.size.to_string(), other.size.to_string());
        say("mtime", format!("{}.{:09}", one.seconds, one.nanos), format!("{}.{:09}", other.seconds, other.nanos));
        say("link count", one.links.to_string(), other.links.to_string());
        say("hard link", format!("{:?}", one.same_as), format!("{:?}", other.same_as));
        if one.content != other.content {
            found.push(format!("{}: content differs", path.display()));
        }
        if one.xattrs != other.xattrs {
            found.push(format!("{}: extended attributes differ", path.display()));
        }
    }
    found.extend(
        right.keys().filter(|path| !left.contains_key(*path)).map(|path| format!("{}: not expected", path.display())),
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(seed: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        Generator::new(seed).fill(dir.path(), 150).unwrap();
        dir
    }

    #[test]
    fn a_seed_makes_the_same_tree_again() {
        let (one, two, other) = (filled(1), filled(1), filled(2));
        assert_eq!(differences(one.path(), two.path()).unwrap(), Vec::<String>::new());
        assert!(differences(one.path(), other.path()).unwrap().len() > 50);
        let entries = read(one.path()).unwrap();
        let count = |test: &dyn Fn(&Entry) -> bool| entries.values().filter(|entry| test(entry)).count();
        assert!(count(&|entry| entry.mode & 0o170_000 == 0o120_000) > 0, "no symlink");
        assert!(count(&|entry| entry.same_as.is_some()) > 0, "no hard link");
        assert!(count(&|entry| !entry.xattrs.is_empty()) > 0, "no attribute");
    }

    /// A file of the tree, one that is no hard link.
    fn some_file(root: &Path) -> PathBuf {
        let entries = read(root).unwrap();
        let plain = |entry: &&Entry| entry.mode & 0o170_000 == 0o100_000 && entry.links == 1 && entry.size > 0;
        let (path, _) = entries.iter().find(|(_, entry)| plain(entry)).unwrap();
        root.join(path)
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        let whole = filled(3);
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("content differs", |path| {
                let time = fs::metadata(path).unwrap().modified().unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
                let mut bytes = fs::read(path).unwrap();
                bytes[0] ^= 1;
                fs::write(path, bytes).unwrap();
                File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
            }),
            ("mode is", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap()),
            ("mtime is", |path| File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap()),
            ("extended attributes differ", |path| {
                lsetxattr(path, "user.other", b"1", XattrFlags::empty()).unwrap();
            }),
            ("missing", |path| fs::remove_file(path).unwrap()),
            ("not expected", |path| fs::write(path.with_file_name("new"), "").unwrap()),
        ];
        for (expected, change) in changes {
            let copy = filled(3);
            change(&some_file(copy.path()));
            let found = differences(whole.path(), copy.path()).unwrap();
            assert!(found.iter().any(|line| line.contains(expected)), "{expected}: {found:?}");
        }
    }
}

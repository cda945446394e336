//! Trees of files: made from a seed, and compared in everything that must survive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use walkdir::WalkDir;

/// Bytes that occur nowhere by chance.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Markers that stand in contents and names, and must stand on no peer's disk.
pub(crate) const MARKERS: [&[u8; 16]; 2] = [b"mArKeR-cOnTeNt-7", b"mArKeR-iN-nAmE-9"];

/// Plants a tree of everything: empty, tiny, small, large, sparse and compressible files, links of both kinds, modes,
/// times, attributes, names that are no text.
pub(crate) fn plant(dir: &Path) {
    for i in 0..40 {
        let sub = dir.join(format!("dir{}/sub{}", i % 5, i % 3));
        fs::create_dir_all(&sub).unwrap();
        let len = [0, 1, 100, 512, 513, 4096, 20_000, 70_000, 300_000][i % 9];
        fs::write(sub.join(format!("file{i}")), noise(&format!("file{i}"), len)).unwrap();
    }
    fs::write(dir.join("large"), noise("large", 9 << 20)).unwrap();
    fs::write(dir.join("words"), b"the same words again and again\n".repeat(50_000)).unwrap();
    let marked = dir.join(std::str::from_utf8(MARKERS[1]).unwrap());
    fs::write(&marked, [b"before ", &MARKERS[0][..], b" after"].concat()).unwrap();
    fs::write(dir.join("marked-large"), MARKERS[0].repeat(40_000)).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 3 << 20).unwrap();
    drop(sparse);
    symlink("dir1/sub1", dir.join("link")).unwrap();
    symlink("nowhere/at/all", dir.join("dangling")).unwrap();
    fs::hard_link(dir.join("large"), dir.join("dir1/large-again")).unwrap();
    fs::set_permissions(dir.join("words"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(dir.join("dir2"), fs::Permissions::from_mode(0o1777)).unwrap();
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"no\xfftext\nat all");
    fs::write(dir.join(name), b"bytes").unwrap();
    let attr = ["-n", "user.colour", "-v", "blue"];
    assert!(Command::new("setfattr").args(attr).arg(dir.join("words")).status().unwrap().success());
    let touch = ["-h", "-d", "2001-02-03 04:05:06.789"];
    assert!(Command::new("touch").args(touch).arg(dir.join("words")).arg(dir.join("dir2")).status().unwrap().success());
}

/// Everything that must be equal of one inode.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    size: u64,
    links: u64,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: String,
    attr: String,
}

/// What is under `dir`.
pub(crate) fn look(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut out = BTreeMap::new();
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        let content = if meta.is_file() {
            blake3::hash(&fs::read(entry.path()).unwrap_or_else(|e| panic!("{}: {e}", entry.path().display())))
                .to_string()
        } else if meta.is_symlink() {
            fs::read_link(entry.path()).unwrap().display().to_string()
        } else {
            String::new()
        };
        let attr = Command::new("getfattr")
            .args(["-h", "--absolute-names", "--only-values", "-n", "user.colour"])
            .arg(entry.path())
            .output()
            .unwrap();
        let directory = meta.is_dir();
        let seen = Seen {
            mode: meta.mode(),
            // Of a directory size and links are the filesystem's own affair.
            size: if directory { 0 } else { meta.size() },
            links: if directory { 0 } else { meta.nlink() },
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            content,
            attr: String::from_utf8_lossy(&attr.stdout).into_owned(),
        };
        out.insert(entry.path().strip_prefix(dir).unwrap().to_owned(), seen);
    }
    out
}

/// Asserts that two views are the same, and names what is not.
pub(crate) fn assert_same(a: &BTreeMap<PathBuf, Seen>, b: &BTreeMap<PathBuf, Seen>) {
    let names = |view: &BTreeMap<PathBuf, Seen>| view.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for (path, seen) in a {
        assert_eq!(seen, &b[path], "{}", path.display());
    }
}

/// Files under `dir` in which `marker` stands, in their content or their name.
pub(crate) fn find_marker(dir: &Path, marker: &[u8]) -> Vec<PathBuf> {
    let mut out = vec![];
    for entry in WalkDir::new(dir).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
        let content = fs::read(entry.path()).unwrap_or_default();
        let name = entry.file_name().as_encoded_bytes();
        if [content.as_slice(), name].iter().any(|hay| hay.windows(marker.len()).any(|window| window == marker)) {
            out.push(entry.path().to_owned());
        }
    }
    out
}

/// Writes and brings to the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

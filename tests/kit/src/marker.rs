//! Bytes that are planted on one side and must be found nowhere on the other.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use walkdir::WalkDir;

/// Read at once; markers across two reads are found, too.
const CHUNK: usize = 1 << 20;

/// A marker of 16 bytes that does not occur by chance, and can be part of a file's name.
pub fn marker(seed: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let hash = blake3::hash(&seed.to_le_bytes());
    for (byte, random) in bytes.iter_mut().zip(hash.as_bytes()) {
        *byte = b'a' + random % 26;
    }
    bytes
}

/// Every path below `dir` whose name or content holds one of the markers, and how many bytes were looked at.
pub fn scan(dir: &Path, markers: &[[u8; 16]]) -> Result<(Vec<PathBuf>, u64)> {
    let finders: Vec<Finder<'_>> = markers.iter().map(Finder::new).collect();
    let holds = |bytes: &[u8]| finders.iter().any(|finder| finder.find(bytes).is_some());
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for entry in WalkDir::new(dir) {
        let entry = entry?;
        let inside = entry.file_type().is_file().then(|| content_holds(entry.path(), &holds)).transpose()?;
        looked_at += inside.map_or(0, |(_, bytes)| bytes);
        if holds(entry.file_name().as_bytes()) || inside.is_some_and(|(held, _)| held) {
            found.push(entry.into_path());
        }
    }
    Ok((found, looked_at))
}

fn content_holds(path: &Path, holds: &impl Fn(&[u8]) -> bool) -> Result<(bool, u64)> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; CHUNK];
    let (mut kept, mut total) = (0, 0);
    loop {
        let read = file.read(&mut buffer[kept..]).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            return Ok((false, total));
        }
        total += read as u64;
        let filled = kept + read;
        if holds(&buffer[..filled]) {
            return Ok((true, total));
        }
        let keep_from = filled.saturating_sub(15);
        buffer.copy_within(keep_from..filled, 0);
        kept = filled - keep_from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_markers_in_names_and_contents_and_across_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (marker(1), marker(2));
        assert_ne!(one, two);
        std::fs::write(dir.path().join("clean"), vec![7; 3 * CHUNK]).unwrap();
        assert_eq!(scan(dir.path(), &[one, two]).unwrap(), (vec![], 3 * CHUNK as u64));
        let mut bytes = vec![7; 2 * CHUNK];
        bytes[CHUNK - 5..CHUNK + 11].copy_from_slice(&one);
        std::fs::write(dir.path().join("across"), bytes).unwrap();
        let named = format!("x{}y", std::str::from_utf8(&two).unwrap());
        std::fs::create_dir(dir.path().join(&named)).unwrap();
        let (mut found, _) = scan(dir.path(), &[one, two]).unwrap();
        found.sort();
        assert_eq!(found, [dir.path().join("across"), dir.path().join(named)]);
        assert_eq!(scan(dir.path(), &[marker(3)]).unwrap().0, Vec::<PathBuf>::new());
    }
}

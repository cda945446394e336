//! What files hold: whether it is the same, and what becomes of it when two have changed it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

/// Bytes of a text that is merged, and lines, as anywhere else.
const TEXT_MAX: u64 = 1 << 20;
const LINES_MAX: usize = 65_536;
/// Bytes that are compared at once.
const PIECE: usize = 256 << 10;

/// As much as there is, up to the end of the room for it.
fn fill(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() {
        match file.read(&mut room[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Whether two files hold the same.
pub(super) fn is_same(one: &mut File, other: &mut File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (read, other_read) = (fill(one, &mut here)?, fill(other, &mut there)?);
        if here[..read] != there[..other_read] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// What a file holds, if that is a text.
pub(super) fn text(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(TEXT_MAX + 1).read_to_end(&mut bytes)?;
    let is_short = bytes.len() as u64 <= TEXT_MAX && bytes.iter().filter(|byte| **byte == b'\n').count() <= LINES_MAX;
    let is_text = is_short && !bytes.contains(&0) && std::str::from_utf8(&bytes).is_ok();
    Ok(is_text.then_some(bytes))
}

/// What has become of merging.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// This.
    Clean(Vec<u8>),
    /// Both have changed the same lines.
    Conflict,
}

/// What a text holds when what has changed from `then` to `other` is changed in it, too. It lies in `dir`.
///
/// What has been changed so already is none to be told of: without `-E` diff3 would take that for a conflict.
pub(super) fn merge(dir: &Path, now: &Path, then: &Path, other: &Path) -> Result<Merged, String> {
    let ran = Command::new("diff3")
        .args(["-a", "-m", "-E", "--"])
        .args([&Path::new(".").join(now), then, other])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output();
    let ran = ran.map_err(|error| format!("diff3 cannot be run: {error}"))?;
    match ran.status.code() {
        Some(0) => Ok(Merged::Clean(ran.stdout)),
        Some(1) => Ok(Merged::Conflict),
        _ => Err(String::from_utf8_lossy(&ran.stderr).lines().next().unwrap_or("diff3 failed").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_text_is_merged_once_and_again_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let merge = || {
            let [then, other] = ["then", "other"].map(|name| dir.path().join(name));
            merge(dir.path(), Path::new("-now"), &then, &other).unwrap()
        };
        write("then", "1\n2\n3\n4\n5\n6\n7");
        write("other", "one\n2\n3\n4\n5\n6\n7");
        write("-now", "1\n2\n3\n4\n5\n6\nseven");
        let merged = "one\n2\n3\n4\n5\n6\nseven";
        assert_eq!(merge(), Merged::Clean(merged.into()));
        write("-now", merged);
        assert_eq!(merge(), Merged::Clean(merged.into()));
        write("-now", "I\n2\n3\n4\n5\n6\n7");
        assert_eq!(merge(), Merged::Conflict);
    }

    #[test]
    fn files_are_compared_and_texts_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| File::open(dir.path().join(name)).unwrap();
        let long = vec![b'x'; PIECE + 10];
        let mut other = long.clone();
        other[PIECE + 1] = b'y';
        for (name, bytes) in [("a", &long), ("b", &long), ("c", &other)] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        assert!(is_same(&mut open("a"), &mut open("b")).unwrap());
        assert!(!is_same(&mut open("a"), &mut open("c")).unwrap());
        assert_eq!(text(&open("a")).unwrap(), Some(long));
        for bytes in [&b"a\0b"[..], b"\xff", &vec![b'\n'; LINES_MAX + 1], &vec![b'a'; TEXT_MAX as usize + 1]] {
            fs::write(dir.path().join("a"), bytes).unwrap();
            assert_eq!(text(&open("a")).unwrap(), None);
        }
    }
}

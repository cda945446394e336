//! A file's bytes into extents: cut by content, holes left out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use hypernet_core::extent::Cutter;
use hypernet_core::limits::{EXTENT_MAX, INLINE_MAX, MIB};
use hypernet_core::port::PortError;
use hypernet_core::seal::Kind;
use hypernet_core::tree::{self, Content, Run};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::super::write::Put;
use super::tree_error;
use crate::volume::damaged;

/// Bytes read at once. Cuts need [`EXTENT_MAX`] bytes ahead of them.
const BUFFER: usize = 4 * MIB;
/// Holes shorter than this are stored as the zeros they read as.
const HOLE_MIN: u64 = 64 * 1024;

const _: () = assert!(BUFFER >= 2 * EXTENT_MAX);

fn io(error: impl std::fmt::Display) -> PortError {
    PortError::Disk(format!("reading a backing file: {error}"))
}

/// Reads all of `file` and puts it; `read` is told how many bytes went through.
pub(super) fn read<P: Put>(
    file: &File,
    cutter: &Cutter,
    writer: &mut P,
    read: &mut dyn FnMut(u64),
) -> Result<Content, PortError> {
    let size = file.metadata().map_err(io)?.len();
    if size == 0 {
        return Ok(Content::Empty);
    }
    if size <= INLINE_MAX as u64 {
        let mut bytes = vec![0; size as usize];
        let len = read_full(file, &mut bytes, 0)?;
        bytes.truncate(len);
        read(len as u64);
        return Ok(if bytes.is_empty() { Content::Empty } else { Content::Inline(bytes) });
    }
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let (data, end) = next_data(file, at, size)?;
        if data > at {
            runs.push(Run::Hole(data - at));
        }
        if end > data {
            let reached = read_data(file, data, end, cutter, writer, &mut runs, read)?;
            if reached < end {
                // The file was cut short while it was read: what follows is a hole now, and it is dirty again.
                runs.push(Run::Hole(size - reached));
                break;
            }
        }
        at = end;
    }
    match runs.as_slice() {
        [Run::Data(extent)] => Ok(Content::Extent(extent.clone())),
        all => {
            let data = all.iter().filter(|run| matches!(run, Run::Data(_))).map(tree::Item::weight).sum();
            Ok(Content::Runs { tree: tree::build(runs, writer).map_err(tree_error)?, data })
        }
    }
}

/// The next stretch of data from `at`: its start and end. Short holes count as data.
fn next_data(file: &File, at: u64, size: u64) -> Result<(u64, u64), PortError> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) if start.saturating_sub(at) < HOLE_MIN => at,
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok((size, size)),
        // A filesystem below that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at, size)),
        Err(error) => return Err(io(error)),
    };
    let mut end = start.max(at + 1);
    loop {
        end = match seek(file, SeekFrom::Hole(end.min(size - 1))) {
            Ok(hole) => hole.min(size),
            Err(Errno::NXIO) => return Ok((start.min(size), size)),
            Err(error) => return Err(io(error)),
        };
        if end >= size {
            return Ok((start, size));
        }
        match seek(file, SeekFrom::Data(end)) {
            Ok(data) if data - end < HOLE_MIN => end = data + 1,
            Ok(_) | Err(Errno::NXIO) => return Ok((start, end)),
            Err(error) => return Err(io(error)),
        }
        if end >= size {
            return Ok((start, size));
        }
    }
}

fn read_full(file: &File, buf: &mut [u8], at: u64) -> Result<usize, PortError> {
    let mut len = 0;
    while len < buf.len() {
        match file.read_at(&mut buf[len..], at + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
    Ok(len)
}

fn read_data<P: Put>(
    file: &File,
    start: u64,
    end: u64,
    cutter: &Cutter,
    writer: &mut P,
    runs: &mut Vec<Run>,
    read: &mut dyn FnMut(u64),
) -> Result<u64, PortError> {
    let mut buffer = vec![0; BUFFER.min((end - start) as usize)];
    let (mut filled, mut at) = (0, start);
    loop {
        let left = end - at - filled as u64;
        let room = (buffer.len() - filled).min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = read_full(file, &mut buffer[filled..filled + room], at + filled as u64)?;
        filled += got;
        let is_last = got < room || left == got as u64;
        let mut used = 0;
        let mut extents = Vec::new();
        while used < filled && (is_last || filled - used >= EXTENT_MAX) {
            let len = cutter.first(&buffer[used..filled]);
            extents.push(&buffer[used..used + len]);
            used += len;
        }
        runs.extend(writer.put_all(Kind::Content, &extents)?.into_iter().map(Run::Data));
        read(used as u64);
        if used == 0 && !is_last {
            return Err(damaged("the read buffer is too small for an extent"));
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        at += used as u64;
        if is_last {
            return Ok(at);
        }
    }
}

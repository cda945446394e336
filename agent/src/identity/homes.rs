//! Which of its device's homes this one is.
//!
//! A directory that was copied, agent and all, is a second home of one device. What is done in both would get the same numbers,
//! and each would stand for two things: whoever had the one would take the other for seen. So a home remembers where it lies
//! (machine, inode and birth of the directory), and one that finds itself elsewhere draws a number of its own, under which its
//! changes, and the files that it makes, are known from then on. One that was only moved does so too, which costs a few bytes.
//!
//! What lies in the same place after all (an image of a whole disk that was started twice, a backup written over what was there)
//! is not told apart by this: see [`crate::volume::heads`] for what is found when it publishes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use hypernet_core::codec;
use hypernet_core::id::HomeNumber;
use minicbor::{Decode, Encode};

use crate::config::PUT_BACK;
use crate::failure::{Failure, Kind};
use crate::files;

const PLACE_CONTEXT: &str = "hypernet 2026 place of a home v1";
/// What tells machines apart; where there is none, they are not.
const MACHINE: &str = "/etc/machine-id";
/// The name of the file.
const NAME: &str = "home";

/// As it lies in its file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct HomeMark {
    #[n(0)]
    number: HomeNumber,
    /// A hash of where the directory lies.
    #[cbor(n(1), with = "minicbor::bytes")]
    place: [u8; 32],
}
hypernet_core::format!(HomeMark, tag = 0x70, version = 1, max = 64, name = "mark of a home");

/// Where a directory lies: a copy of it lies elsewhere.
fn place(dir: &Path) -> Result<[u8; 32], Failure> {
    let failed = |error| Failure::new(Kind::Io, format!("cannot look at {}: {error}", dir.display()));
    let found = fs::metadata(dir).map_err(failed)?;
    let born = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let machine = fs::read(MACHINE).unwrap_or_default();
    let bytes = [&found.ino().to_be_bytes()[..], &born.as_nanos().to_be_bytes(), &machine].concat();
    Ok(blake3::derive_key(PLACE_CONTEXT, &bytes))
}

fn save(dir: &Path, number: HomeNumber) -> Result<(), Failure> {
    files::write_secret(&dir.join(NAME), &codec::encode(&HomeMark { number, place: place(dir)? }))
}

/// A new device's home is this directory.
pub(crate) fn begin(dir: &Path) -> Result<(), Failure> {
    save(dir, HomeNumber::default())
}

/// The number of the home in this directory. It is on the disk when this returns.
pub(crate) fn number_in(dir: &Path) -> Result<HomeNumber, Failure> {
    let path = dir.join(NAME);
    let mark = match fs::read(&path) {
        Ok(bytes) => codec::decode::<HomeMark>(&bytes).map(Some).map_err(|error| {
            Failure::new(Kind::Data, format!("{} cannot be used: {error}", path.display())).hint(PUT_BACK)
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::new(Kind::Io, format!("cannot read {}: {error}", path.display()))),
    };
    let place = place(dir)?;
    match mark {
        Some(mark) if mark.place == place => Ok(mark.number),
        Some(HomeMark { number, .. }) => {
            let mut bytes = [0; 2];
            let none = |error| Failure::new(Kind::System, format!("the system has no randomness: {error}"));
            // Two copies of one home draw apart from each other. Neither gets that of the first one.
            let mut drawn = number;
            while drawn == number || drawn == HomeNumber::default() {
                getrandom::fill(&mut bytes).map_err(none)?;
                drawn = HomeNumber(u16::from_be_bytes(bytes));
            }
            tracing::warn!(
                home = %dir.display(), number = drawn.0,
                "this home was copied or moved here: what is changed in it is told apart from what the other one does"
            );
            save(dir, drawn)?;
            Ok(drawn)
        }
        None => {
            begin(dir)?;
            Ok(HomeNumber::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> HomeMark {
        HomeMark { number: HomeNumber(0x1234), place: [9; 32] }
    }

    #[test]
    fn it_is_written_and_read_as_ever_and_damaged_bytes_are_refused() {
        let bytes = crate::golden::bytes(include_str!("../../golden/home.hex"));
        assert_eq!(crate::golden::hex(&codec::encode(&golden())), crate::golden::hex(&bytes));
        assert_eq!(codec::decode::<HomeMark>(&bytes).unwrap(), golden());
        crate::golden::mutations(&bytes, |bytes| {
            let _ = codec::decode::<HomeMark>(bytes);
        });
    }

    #[test]
    fn a_copy_gets_a_number_of_its_own_and_keeps_it() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(number_in(one.path()).unwrap(), HomeNumber::default());
        fs::copy(one.path().join(NAME), other.path().join(NAME)).unwrap();
        let drawn = number_in(other.path()).unwrap();
        assert_ne!(drawn, HomeNumber::default());
        assert_eq!(number_in(other.path()).unwrap(), drawn);
        assert_eq!(number_in(one.path()).unwrap(), HomeNumber::default());
        // A name is no place.
        let moved = one.path().parent().unwrap().join(format!("moved-{}", std::process::id()));
        fs::rename(one.path(), &moved).unwrap();
        assert_eq!(number_in(&moved).unwrap(), HomeNumber::default());
        fs::rename(&moved, one.path()).unwrap();
        fs::write(one.path().join(NAME), b"what is this").unwrap();
        assert_eq!(number_in(one.path()).unwrap_err().kind, Kind::Data);
    }
}

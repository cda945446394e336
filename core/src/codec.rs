//! One frame for everything that is persisted or sent: a tag, a version, then CBOR.
//!
//! The tag keeps one format from being read as another; the version lets a reader refuse what it does not know
//! instead of guessing. Decoding never allocates in proportion to a length that the bytes merely claim: CBOR
//! strings are borrowed from the input first, and the input itself is bounded by [`Format::MAX`].

use minicbor::{Decode, Encode};
use thiserror::Error;

/// A persisted or wire format. Its bytes are pinned in `tests/format` and described in `docs/formats.md`.
pub trait Format {
    /// Tells formats apart; unique over the whole system.
    const TAG: u8;
    /// The version that this code writes.
    const VERSION: u8;
    /// The longest encoding that is accepted.
    const MAX: usize;
    /// What a person calls it in an error message.
    const NAME: &'static str;
}

/// Why bytes were refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum CodecError {
    /// Fewer bytes than a header.
    #[error("{0}: too short to be one")]
    Short(&'static str),
    /// More bytes than the format allows.
    #[error("{name}: {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Format.
        name: &'static str,
        /// Bytes that came.
        len: usize,
        /// Bytes that may come.
        max: usize,
    },
    /// Another format's tag.
    #[error("{name}: has tag {found:#04x} instead of {expected:#04x}")]
    Tag {
        /// Format.
        name: &'static str,
        /// The tag that came.
        found: u8,
        /// The tag of the format.
        expected: u8,
    },
    /// Written by a version that this one does not know.
    #[error("{name}: written in version {found}, this program reads up to {known}; update it")]
    Version {
        /// Format.
        name: &'static str,
        /// The version that came.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// The CBOR inside does not parse.
    #[error("{name}: malformed ({reason})")]
    Malformed {
        /// Format.
        name: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// Bytes follow the end.
    #[error("{0}: bytes follow its end")]
    Trailing(&'static str),
}

/// Encodes `value` with its header.
pub fn encode<T: Format + Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = vec![T::TAG, T::VERSION];
    // Writing to a Vec is infallible, and no Encode impl in this crate fails on its own.
    let _ = minicbor::encode(value, &mut out);
    out
}

/// Decodes what [`encode`] wrote, and nothing else.
pub fn decode<'b, T: Format + Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    let name = T::NAME;
    if bytes.len() > T::MAX {
        return Err(CodecError::TooLong { name, len: bytes.len(), max: T::MAX });
    }
    let [tag, version, body @ ..] = bytes else {
        return Err(CodecError::Short(name));
    };
    if *tag != T::TAG {
        return Err(CodecError::Tag { name, found: *tag, expected: T::TAG });
    }
    if *version == 0 || *version > T::VERSION {
        return Err(CodecError::Version { name, found: *version, known: T::VERSION });
    }
    let mut decoder = minicbor::Decoder::new(body);
    let value = decoder.decode().map_err(|e| CodecError::Malformed { name, reason: e.to_string() })?;
    if decoder.position() != body.len() {
        return Err(CodecError::Trailing(name));
    }
    Ok(value)
}

/// Declares a [`Format`].
#[macro_export]
macro_rules! format {
    ($type:ty, tag = $tag:literal, version = $version:literal, max = $max:expr, name = $name:literal) => {
        impl $crate::codec::Format for $type {
            const TAG: u8 = $tag;
            const VERSION: u8 = $version;
            const MAX: usize = $max;
            const NAME: &'static str = $name;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Encode, Decode, PartialEq, Debug)]
    struct Sample {
        #[n(0)]
        a: u32,
    }
    crate::format!(Sample, tag = 0xfe, version = 2, max = 16, name = "sample");

    #[test]
    fn refuses_what_it_did_not_write() {
        let good = encode(&Sample { a: 5 });
        assert_eq!(decode::<Sample>(&good), Ok(Sample { a: 5 }));
        assert_eq!(decode::<Sample>(&good[..1]), Err(CodecError::Short("sample")));
        let mut other = good.clone();
        other[0] = 1;
        assert!(matches!(decode::<Sample>(&other), Err(CodecError::Tag { .. })));
        let mut newer = good.clone();
        newer[1] = 3;
        assert!(matches!(decode::<Sample>(&newer), Err(CodecError::Version { found: 3, known: 2, .. })));
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(decode::<Sample>(&longer), Err(CodecError::Trailing("sample")));
        assert!(matches!(decode::<Sample>(&[0; 17]), Err(CodecError::TooLong { .. })));
        assert!(matches!(decode::<Sample>(&[0xfe, 2, 0xff]), Err(CodecError::Malformed { .. })));
    }
}

//! Paths in JSON, without loss: a string where the path is UTF-8, as nearly every one is, else `{"bytes":"2fff"}`, its
//! bytes in hex. Linux allows any bytes in a name; JSON only has text.
//!
//! For `#[serde(with = "exact_path")]` on a path, and `exact_path::option` on one that may be missing.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Exact<'a> {
    Text(Cow<'a, str>),
    Bytes { bytes: String },
}

impl<'a> Exact<'a> {
    fn of(path: &'a Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.into()),
            None => Self::Bytes { bytes: HEXLOWER.encode(path.as_os_str().as_bytes()) },
        }
    }

    fn into_path<E: serde::de::Error>(self) -> Result<PathBuf, E> {
        match self {
            Self::Text(text) => Ok(text.into_owned().into()),
            Self::Bytes { bytes } => HEXLOWER
                .decode(bytes.as_bytes())
                .map(|bytes| OsString::from_vec(bytes).into())
                .map_err(|error| E::custom(format_args!("the bytes of a path are not in hex: {error}"))),
        }
    }
}

/// Writes a path.
pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    Exact::of(path).serialize(to)
}

/// Reads a path.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Exact::deserialize(from)?.into_path()
}

/// The same for a path that may be missing.
pub mod option {
    use super::*;

    /// Writes a path, or null.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(Exact::of).serialize(to)
    }

    /// Reads a path, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Option::<Exact<'_>>::deserialize(from)?.map(Exact::into_path).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        one: PathBuf,
        #[serde(default, with = "super::option")]
        other: Option<PathBuf>,
    }

    fn path(bytes: &[u8]) -> PathBuf {
        OsString::from_vec(bytes.to_vec()).into()
    }

    #[test]
    fn any_path_comes_back_and_the_usual_one_is_a_string() {
        let usual = Both { one: "/ü b".into(), other: None };
        assert_eq!(serde_json::to_string(&usual).unwrap(), r#"{"one":"/ü b","other":null}"#);
        let odd = Both { one: path(b"/\xff\n"), other: Some(path(b"\xfe")) };
        assert_eq!(serde_json::to_string(&odd).unwrap(), r#"{"one":{"bytes":"2fff0a"},"other":{"bytes":"fe"}}"#);
        // The first looks like the second when printed, and must not become it.
        for both in [usual, odd, Both { one: "/\u{fffd}".into(), other: Some("".into()) }] {
            let text = serde_json::to_vec(&both).unwrap();
            assert_eq!(serde_json::from_slice::<Both>(&text).unwrap(), both);
        }
        assert_eq!(serde_json::from_str::<Both>(r#"{"one":"\u0061"}"#).unwrap().one, path(b"a"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in [r#"{"one":{"bytes":"f"}}"#, r#"{"one":{"bytes":"FF"}}"#, r#"{"one":3}"#, r#"{"one":{}}"#, "{}"] {
            assert!(serde_json::from_str::<Both>(wrong).is_err(), "{wrong}");
        }
    }
}

//! Golden bytes: a fixed value of every persisted and wire format, and what it must look like for ever.
//!
//! A golden file changes only when a format's version does, and then the old file stays as well: what one version
//! wrote every later one must read. Each golden is checked both ways, and where a value has a signature or a seal
//! that is checked too, so that a changed key derivation shows here and not as data that no longer opens.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use hypernet_core::codec::{self, Format};
use minicbor::{Decode, Encode};

mod catalog;
mod secrets;
mod share;
pub mod values;
mod wire;

/// Reads golden bytes and says what is wrong with them.
pub type Check = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// One golden value.
pub struct Golden {
    /// Its file is `golden/<name>.hex`.
    pub name: &'static str,
    /// The format's tag; none for bytes without a frame.
    pub tag: Option<u8>,
    /// What a person calls the format: a heading in `docs/formats.md`.
    pub format: &'static str,
    /// The value, encoded by this code.
    pub bytes: Vec<u8>,
    /// Decodes the golden bytes and compares.
    pub check: Check,
}

/// A golden of a framed format.
fn framed<T>(name: &'static str, value: T) -> Golden
where
    T: Format + Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug + 'static,
{
    Golden {
        name,
        tag: Some(T::TAG),
        format: T::NAME,
        bytes: codec::encode(&value),
        check: Box::new(move |bytes| match codec::decode::<T>(bytes) {
            Ok(decoded) if decoded == value => Ok(()),
            Ok(decoded) => Err(format!("it reads as {decoded:?}")),
            Err(error) => Err(error.to_string()),
        }),
    }
}

/// All goldens, by name.
pub fn all() -> BTreeMap<&'static str, Golden> {
    let all = catalog::all().into_iter().chain(wire::all()).chain(secrets::all()).chain(share::all());
    all.map(|golden| (golden.name, golden)).collect()
}

//! A person: the words that bring everything back, and the devices that speak for them.
//!
//! - `phrase`: 24 words;
//! - `log`: the signed changes of the list of devices, and which of them count.

pub mod log;
pub mod phrase;

//! A person: the words that bring everything back, and the devices that speak for them.
//!
//! - `phrase`: 24 words;
//! - `log`: the signed changes of the list of devices, and which of them count;
//! - `announce`: where each device publishes its heads;
//! - `place`: where all that is found.

pub mod announce;
pub mod log;
pub mod phrase;
pub mod place;

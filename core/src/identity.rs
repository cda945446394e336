//! A person: the words that bring everything back, and the devices that speak for them.
//!
//! - `phrase`: 24 words;
//! - `log`: the signed changes of the list of devices, and which of them count;
//! - `era`: what the devices share from one revocation to the next;
//! - `posting`: the log and the ways to eras, as the mesh has them;
//! - `beacon`: what each device says of itself: where it publishes its heads;
//! - `place`: where all that is found;
//! - `proof`: a device shows that it speaks for them;
//! - `share`: what each guardian of the words has of them.

pub mod beacon;
pub mod era;
pub mod log;
pub mod phrase;
pub mod place;
pub mod posting;
pub mod proof;
pub mod share;

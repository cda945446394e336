//! Volumes that several identities have.
//!
//! - `kept`: what the keystore keeps of one, so that all devices and the words come to it;
//! - `circle`: who has a part in one, as far as this device has heard;
//! - `posters`: where those who say who may do what do so;
//! - `hearing`: what the mesh has of that, and what this device puts there;
//! - `granting`: beginning to share, bringing people and taking them off;
//! - `offers`: what is told to those who are new, and what others tell here;
//! - `links`: the same, for whoever has a link;
//! - `bearer`: writing by a link: the list of devices of the identity that is granted what the link may do.
//!
//! Invariant: what this device has said is on its disk before it is on the mesh, and whoever has heard of a change never
//! acts again as if they had not.

pub(crate) mod bearer;
pub(crate) mod circle;
pub(crate) mod granting;
pub(crate) mod hearing;
pub(crate) mod kept;
pub(crate) mod links;
pub(crate) mod offers;
pub(crate) mod posters;

#[cfg(test)]
mod tests;

pub(crate) use granting::ShareError;

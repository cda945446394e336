//! A volume that several identities have: who may do what in it, by which keys, and how those who are new are told.
//!
//! - `members`: signed changes of who may do what, and what they come to;
//! - `epoch`: the secrets of such a volume, another one each time that somebody is taken off;
//! - `posting`: what an admin's device puts on the mesh of both;
//! - `offer`: what somebody is told who is to have it;
//! - `bearer`: the identity of whoever has a link that writes.
//!
//! Authority comes from signatures and keys alone: every reader works out for itself whom it believes.

pub mod bearer;
pub mod epoch;
pub mod members;
pub mod offer;
pub mod posting;

//! The pure heart of Hypernet: what is stored, how it is sealed, coded and found, and how a node decides.
//!
//! Nothing here touches a file, a socket, a clock or ambient randomness; everything that varies comes in as an
//! argument. That is what lets `tests/sim` run thousands of the very nodes that people run.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audit;
pub mod catalog;
mod causal;
pub mod codec;
pub mod custody;
pub mod diff;
pub mod durability;
pub mod erasure;
pub mod extent;
pub mod head;
pub mod history;
pub mod id;
pub mod identity;
pub mod key;
pub mod lease;
pub mod limits;
pub mod merge;
pub mod name;
pub mod node;
pub mod placement;
pub mod port;
pub mod quota;
pub mod record;
pub mod repair;
pub mod seal;
pub mod segment;
pub mod share;
pub mod text;
pub mod time;
pub mod tree;
#[cfg(test)]
mod vectors;
pub mod wire;

//! The simulator: the very `hypernet_core::node::Node` that people run, thousands of them, over a seeded network,
//! seeded clocks and seeded disks. One thread, one queue, one source of chance: a seed is a whole history.
//!
//! What happens: latency, loss, duplication, reordering, one-way partitions, connections that end unnoticed, crashes
//! with lost and torn writes, restarts, frozen processes, bit rot, full and failing disks, wrong clocks, and liars
//! that bend bytes, forget shards and forge records. Owners upload, fetch, probe, publish and look up meanwhile. Then
//! the storm ends, and everything that was ever acknowledged must come back.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod book;
mod config;
mod random;
mod report;
mod world;

pub use config::Config;
pub use report::{Counts, Failure, Report};
pub use world::World;

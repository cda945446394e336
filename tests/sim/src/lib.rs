//! The simulator: the very `hypernet_core::node::Node` that people run, thousands of them, over a seeded network,
//! seeded clocks and seeded disks. One thread, one queue, one source of chance: a seed is a whole history.
//!
//! What happens: latency, loss, duplication, reordering, one-way partitions, connections that end unnoticed, crashes
//! with lost and torn writes, restarts, frozen processes, bit rot, full and failing disks, wrong clocks, and liars
//! that bend bytes, forget shards and forge records. Owners upload, fetch, probe, publish and look up meanwhile. Then
//! the storm ends, and everything that was ever acknowledged must come back.
//!
//! # What it catches
//! Tried by breaking the node on purpose, with 30 seeds (10 each of 14, 27 and 60 nodes):
//!
//! | broken | noticed by | seeds |
//! |---|---|---|
//! | a put is acknowledged before the store has it | a row was acknowledged and is gone | 30 |
//! | a fetch does not check rows against their hashes | a fetch ends as damaged beyond repair | 20 |
//! | two rows of a segment go to one peer | two rows are on one peer | 30 |
//! | a read of an unknown shard is never answered | a node forgot to answer a request | 29 |
//! | an older record replaces a newer one | an older record is served | 30 |
//! | a donor does not check a shard against its address | a node stores bytes that are not their address | 30 |
//! | a peer whose answer was lost gets another row | two rows on a peer, and others had none | 2 |
//! | a fetch outlives its deadline by 5 s | a command never ended | 17 |
//!
//! It found by itself: a node that asked itself over the network for the row it held, and a fetch that met a liar and
//! never again asked the rows that had been slow.
//!
//! Beside this world of minutes there is one of [a year](Year): the same node, hour by hour, with what audits, leases and
//! repairs make of ten thousand peers that come and go. `scripts/sim-year` runs it, and `tests/year.rs` breaks it on purpose.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod book;
mod config;
mod random;
mod report;
mod world;
mod year;

pub use config::Config;
pub use report::{Counts, Failure, Report};
pub use world::World;
pub use year::{Attack, Sabotage, Year, YearConfig, YearReport, plot};

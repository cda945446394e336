//! For tests that run real agents as processes.
//!
//! - [`hn`]: the built binaries, run and read;
//! - [`Agent`] and [`Mesh`]: an agent of one's own and a mesh of storage peers, with directories that go away;
//! - [`Meets`]: a command that meets somebody by a code, with the test in the place of the person;
//! - [`machine`]: what a test needs of the machine, and fails without;
//! - [`Watcher`]: what is to be done when a test ends, however it ends;
//! - [`Net`]: a network of a test's own, with hosts that can be parted;
//! - [`Disk`] and [`FaultyDisk`]: disks whose power can be cut, and that fill up or fail;
//! - [`tree`]: random trees, and what two trees differ in;
//! - [`marker`]: bytes that must be found nowhere.
//!
//! Invariant: whatever a test starts is gone when the test is, also when it panics or is killed: every process and
//! mount has a watcher that outlives the test by exactly the cleaning up.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod disk;
mod faulty;
pub mod hn;
pub mod machine;
pub mod marker;
mod meets;
mod mesh;
mod net;
pub mod tree;
mod watcher;

pub use agent::Agent;
pub use disk::{Disk, PowerCut};
pub use faulty::{Fault, FaultyDisk};
pub use hn::Ran;
pub use meets::Meets;
pub use mesh::Mesh;
pub use net::{Host, Net};
pub use watcher::Watcher;

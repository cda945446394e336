//! The mount as programs meet it: conformance suites, real programs, and crashes, against real agents.
//!
//! - [`Mounted`]: an agent with a mount in one of the two profiles, and scripts run in it;
//! - [`suite`]: pjdfstest and fsx;
//! - [`pressed`]: fsx on a file that is larger than the local cache;
//! - [`crash`]: random writers, an agent killed under them (or the power of its disk cut), and what may be there then;
//! - [`crowd`]: one directory with very many entries;
//! - [`million`]: a tree of very many files: memory, and the time of a start;
//! - [`outage`]: the power of all storage peers cut under an agent that uploads.
//!
//! Short runs are in `tests/`; the long ones are this package's binary, which `scripts/posix` calls.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crash;
pub mod crowd;
pub mod million;
mod mounted;
pub mod outage;
pub mod pressed;
pub mod suite;

pub use mounted::{Mounted, Profile};

//! What a device keeps on its own disk: the shards it holds for others, the metadata of its working tree, and its
//! copy of a volume's catalog. Implements the ports of `hypernet-core` on SQLite and plain files.
//!
//! Invariants, whatever happens to the process or the power:
//! - What was acknowledged is still there, and what is served is what was put.
//! - A directory belongs to one process at a time; a database of a newer program is refused, never guessed at.
//! - A failed write changes nothing: the error says why, and what was there before stays.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod database;
pub mod error;
pub mod marks;
pub mod shards;
pub mod volume;
pub mod worktree;

pub use error::StoreError;

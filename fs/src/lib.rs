//! The filesystem of a volume: [`vfs`] has POSIX semantics and knows no kernel, [`fuse`] translates between it and
//! the kernel and decides nothing.
//!
//! The kernel talks to local state alone. What must come from the mesh comes through
//! [`RemoteTree`](hypernet_core::port::RemoteTree), never under a lock and never on a thread that serves the kernel.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod fuse;
pub mod panics;
pub mod past;
#[doc(hidden)]
pub mod testing;
pub mod tree;
pub mod vfs;

pub use vfs::{Config, Vfs, VfsError};

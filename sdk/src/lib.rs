//! What programs on this machine use to talk to the agent: its local socket, and the words spoken on it.
//!
//! - [`api`]: the JSON that the agent's socket and `hnd`'s standard output carry;
//! - [`client`]: a typed client of the socket;
//! - [`home`]: where an agent keeps its files;
//! - [`exact_path`]: paths in that JSON, whatever bytes they are of;
//! - [`secret`]: words and passphrases, which never show;
//! - [`size`]: sizes as people write them.
//!
//! The library never touches a terminal and gives no advice: kinds of exit codes and hints belong to the program that
//! speaks to a person. The one exception is the agent's own hint, which is passed on.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod client;
pub mod exact_path;
pub mod home;
pub mod secret;
pub mod size;

pub use api::{ApiError, ErrorCode};
pub use client::{Client, Error, Events};
pub use home::Home;
pub use secret::SecretText;

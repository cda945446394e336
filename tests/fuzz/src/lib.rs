//! Fuzzing in every test run: the targets of `fuzz/` over seeded mutations of the golden bytes.
//!
//! Without a sanitizer this finds panics and memory that follows a claimed length; the long search is `scripts/fuzz`.
//! Invariant: a run depends on its seed alone, so a failure is replayed by its name and number.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[path = "../../../fuzz/src/targets.rs"]
pub mod targets;

pub mod memory;
pub mod mutate;

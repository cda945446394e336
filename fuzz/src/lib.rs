//! The decoders under test, for the programs in `fuzz_targets`.

pub mod targets;

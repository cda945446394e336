//! Random operations against a reference model.
//!
//! [`clients`]: several clients with handles of their own, in one order that is shrunk when it fails, compared call by
//! call, with restarts, crashes, publications, evictions and recoveries in between, in both profiles. What they may ask for is in [`calls`]. [`parallel`]: threads at the same
//! time on the same names, whose results some order must explain.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;

use super::*;

mod calls;
mod clients;
mod parallel;
mod reference;

use reference::{Model, TOP, What};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// `PROPTEST_CASES` asks for more than the usual number.
fn cases(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

fn any_flags() -> impl Strategy<Value = RenameFlags> {
    prop_oneof![
        3 => Just(RenameFlags::Replace),
        1 => Just(RenameFlags::NoReplace),
        1 => Just(RenameFlags::Exchange)
    ]
}

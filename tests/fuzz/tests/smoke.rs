//! No input makes a decoder panic, or hold memory out of proportion to the input.
#![allow(clippy::unwrap_used)]

use hypernet_core::limits::SEALED_MAX;
use hypernet_fuzz_smoke::memory::{Counting, peak};
use hypernet_fuzz_smoke::mutate::Mutator;
use hypernet_fuzz_smoke::targets::{TARGETS, Target};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Mutations of each golden of a target's own format.
const OWN: u64 = 6_000;
/// Mutations of each golden of another format.
const OTHERS: u64 = 20;
/// Random inputs.
const NOISE: u64 = 4_000;
/// Bytes held per byte of input: the largest item over its shortest encoding, and room for a vector that grows.
const PER_BYTE: usize = 256;
/// Bytes held whatever the input: error messages, and buffers of fixed size.
const FIXED: usize = 64 * 1024;

fn goldens() -> Vec<(Option<u8>, Vec<u8>)> {
    hypernet_format::all().into_values().map(|golden| (golden.tag, golden.bytes)).collect()
}

fn bound(target: &Target, input: &[u8]) -> usize {
    // What is sealed says how long it is, and may be of any length up to the limit.
    let sealed = if target.name == "sealed" { 2 * SEALED_MAX } else { 0 };
    FIXED + sealed + PER_BYTE * input.len()
}

fn feed(target: &Target, input: &[u8], number: u64) {
    let held = peak(|| (target.run)(input));
    assert!(
        held <= bound(target, input),
        "{} number {number}: {held} bytes held for {} of input",
        target.name,
        input.len()
    );
}

#[test]
fn mutations_of_what_is_valid() {
    let goldens = goldens();
    for target in &TARGETS {
        let mut mutator = Mutator::new(1);
        let mut own = 0;
        for (i, (tag, bytes)) in goldens.iter().enumerate() {
            let mine = *tag == target.tag;
            own += u64::from(mine);
            feed(target, bytes, 0);
            for number in 0..if mine { OWN } else { OTHERS } {
                let other = &goldens[(i + number as usize) % goldens.len()].1;
                feed(target, &mutator.mutate(bytes, other), number);
            }
        }
        assert!(own > 0, "{} has no golden to start from", target.name);
    }
}

#[test]
fn noise_under_every_tag() {
    for target in &TARGETS {
        let mut mutator = Mutator::new(2);
        for number in 0..NOISE {
            feed(target, &mutator.noise(target.tag.unwrap_or(0), 300), number);
        }
    }
}

/// The bound means something: a decoder that believes a length is caught by it.
#[test]
fn a_believed_length_is_noticed() {
    let believes = Target {
        name: "gullible",
        tag: None,
        run: |data| {
            let len = u32::from_be_bytes(*data.first_chunk().unwrap());
            std::hint::black_box(Vec::<u8>::with_capacity(len as usize));
        },
    };
    let input = [0x00, 0xff, 0xff, 0xff];
    assert!(peak(|| (believes.run)(&input)) > bound(&believes, &input));
}

/// Every target has its program for `cargo fuzz`, and that program runs it.
#[test]
fn every_target_has_a_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for (i, Target { name, .. }) in TARGETS.iter().enumerate() {
        let program = std::fs::read_to_string(format!("{folder}/fuzz_targets/{name}.rs")).unwrap();
        assert!(program.contains(&format!("TARGETS[{i}].run")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

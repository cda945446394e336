//! See `hypernet_fuzz::targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (hypernet_fuzz::targets::TARGETS[23].run)(data);
});

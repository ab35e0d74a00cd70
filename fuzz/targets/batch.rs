//! libFuzzer's entry to the target of this name; see the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| forebay_fuzz::batch(input));

//! The first bytes of a recording.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate_wazo::fuzzing::wav_header(input));

#[cfg(not(fuzzing))]
fn main() {}

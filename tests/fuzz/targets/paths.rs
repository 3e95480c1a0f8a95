//! Paths as clients spell them.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate::fuzzing::paths(input));

#[cfg(not(fuzzing))]
fn main() {}

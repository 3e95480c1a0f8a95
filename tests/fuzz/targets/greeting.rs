//! What an SSH client sends first: its identification.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate::fuzzing::greeting(input));

#[cfg(not(fuzzing))]
fn main() {}

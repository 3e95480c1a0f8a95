//! The text of a configuration file.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate::fuzzing::config(input));

#[cfg(not(fuzzing))]
fn main() {}

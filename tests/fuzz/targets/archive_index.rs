//! An index file of an archive.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate_archive8x8::fuzzing::index(input));

#[cfg(not(fuzzing))]
fn main() {}

//! What a client sends on an SFTP channel.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate::fuzzing::sftp_packets(input));

#[cfg(not(fuzzing))]
fn main() {}

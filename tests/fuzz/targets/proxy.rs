//! What a load balancer sends before its client's bytes: a header of the PROXY protocol.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| recgate::fuzzing::proxy(input));

#[cfg(not(fuzzing))]
fn main() {}

//! The recgate command.
fn main() {}

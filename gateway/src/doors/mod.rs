//! The protocol fronts. A door knows its protocol and nothing of recordings.

pub mod common;
pub mod ssh;

//! The plugin host against real libraries: the one that misbehaves, one for another ABI, and some in C.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod calls;
mod contain;
mod load;
mod support;
mod watch;

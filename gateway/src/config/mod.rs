//! The configuration: its TOML form, its checks, its reload.

mod model;

pub use model::*;

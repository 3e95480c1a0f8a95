//! The contract between recgate and its storage plugins.

pub mod sdk;
pub mod types;

pub use sdk::{Call, Emit, Host, Level, Source};
pub use types::*;

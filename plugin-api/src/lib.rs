//! The contract between recgate and its storage plugins.
//!
//! The contract is C: `include/recgate_plugin.h`, mirrored in [`abi`]. A plugin in Rust needs neither: it implements
//! [`Source`] and exports it.
//!
//! ```text
//! struct Mine { /* … */ }
//! impl recgate_plugin_api::Source for Mine { /* … */ }
//! recgate_plugin_api::export!(Mine);
//! ```
//!
//! in a crate with `crate-type = ["cdylib"]`. Panics of the plugin are caught at every entry point and reported to the
//! gateway as [`ErrorCode::Panic`]; for that the plugin must be built with `panic = "unwind"`, the default.

pub mod abi;
#[doc(hidden)]
pub mod export;
pub mod sdk;
pub mod testing;
pub mod types;

pub use sdk::{Call, Emit, Host, Level, Source, Watcher};
pub use types::*;

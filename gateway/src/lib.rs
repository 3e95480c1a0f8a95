//! recgate: a storage gateway for call recordings.
//!
//! Arrows point one way: `doors` → `identity`, `vfs`, `admin` → `governance` → `catalog` → `sources`, `state` →
//! `layout`. Nothing below a door names a protocol, nothing above `sources` names a plugin, `layout` names nobody.
//! `telemetry` stands beside them: everybody may log and count there.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod doors;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
pub mod governance;
pub mod identity;
pub mod layout;
pub mod sources;
pub mod state;
pub mod telemetry;
pub mod vfs;

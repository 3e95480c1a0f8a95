//! The configuration: its TOML form, its checks, its reload.
//!
//! [`load`] tells all mistakes at once, each with its line and what to do about it, so that an operator
//! corrects a file once. What it returns is right: nothing behind it checks again.

use std::path::Path;

mod files;
mod inspect;
mod model;
mod problems;
mod quota;
mod read;
mod reload;
mod tenants;
mod values;
mod walk;

pub use inspect::{Inspection, Part, SourceDraft, inspect};
pub use model::*;
pub use problems::{Problem, Problems};
pub use reload::check_reload;
pub(crate) use values::nearest;

/// A configuration beyond this many bytes is a mistake; its keys belong in files of their own.
const MOST_BYTES: u64 = 16 << 20;

/// Reads and checks a configuration file, and the files that it names.
///
/// # Errors
/// Every mistake that was found, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Problems> {
    inspect(path).finish()
}

/// Checks a configuration's text. `file` is named in mistakes, relative paths begin from `base`.
///
/// # Errors
/// See [`load`].
pub fn parse(file: &Path, text: &str, base: &Path) -> Result<Config, Problems> {
    inspect::inspect_text(file, text.to_owned(), base).finish()
}

#[cfg(test)]
mod tests;

//! The configuration: its TOML form, its checks, its reload.
//!
//! [`load`] tells all mistakes at once, each with its line and what to do about it, so that an operator
//! corrects a file once. What it returns is right: nothing behind it checks again.

use std::path::Path;

use toml::de::DeTable;

mod files;
mod model;
mod problems;
mod read;
mod reload;
mod tenants;
mod values;
mod walk;

pub use model::*;
pub use problems::{Problem, Problems};
pub use reload::check_reload;

use files::Privacy;
use problems::Mistake;
use walk::{Document, Section};

/// A configuration beyond this many bytes is a mistake; its keys belong in files of their own.
const MOST_BYTES: u64 = 16 << 20;

/// Reads and checks a configuration file, and the files that it names.
///
/// # Errors
/// Every mistake that was found, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let unreadable = |mistake: Mistake| {
        Problems(vec![Problem {
            file: path.to_owned(),
            line: None,
            column: None,
            key: String::new(),
            wrong: mistake.wrong,
            remedy: mistake.remedy,
        }])
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| unreadable(Mistake::new(error.to_string(), "Name a file.")))?;
    let text = files::read(&absolute, MOST_BYTES, Privacy::Trusted).map_err(unreadable)?;
    parse(path, &text, absolute.parent().unwrap_or(Path::new("/")))
}

/// Checks a configuration's text. `file` is named in mistakes, relative paths begin from `base`.
///
/// # Errors
/// See [`load`].
pub fn parse(file: &Path, text: &str, base: &Path) -> Result<Config, Problems> {
    let document = Document::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What the parser guessed behind a syntax error would only cause more, wrong, complaints.
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let wrong = format!("this is not TOML: {}", error.message());
            document.report(at, "", Mistake::new(wrong, "Correct the syntax (https://toml.io)."));
        }
        return Err(document.into_problems());
    }
    let config = read::config(Section::root(&document, table.get_ref()), base);
    let problems = document.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

#[cfg(test)]
mod tests;

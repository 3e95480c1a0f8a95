//! Standard output: lines for people, or one JSON document for programs.

use std::{fmt::Display, io::Write};

use serde::Serialize;

use super::exit::Failure;

/// Where a command prints.
pub struct Output<'w> {
    writer: &'w mut dyn Write,
}

impl<'w> Output<'w> {
    /// Prints to a writer.
    pub fn new(writer: &'w mut dyn Write) -> Self {
        Self { writer }
    }

    /// A line of text.
    ///
    /// # Errors
    /// The writer's; see `Failure::from`.
    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        Ok(writeln!(self.writer, "{line}")?)
    }

    /// A JSON document.
    ///
    /// # Errors
    /// The writer's; see `Failure::from`.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
        self.line(text)
    }

    /// Hands over what may still be in a buffer.
    ///
    /// # Errors
    /// The writer's; see `Failure::from`.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}

/// A number with its noun, whose plural ends in "s".
pub fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Lays out rows in columns as wide as their widest cell.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let laid_out = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(laid_out).collect()
}

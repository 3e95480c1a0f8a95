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

    /// Bytes as they are.
    ///
    /// # Errors
    /// The writer's; see `Failure::from`.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// One line of JSON, where many follow each other.
    ///
    /// # Errors
    /// The writer's; see `Failure::from`.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(Failure::failed)?;
        self.line(text)
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

/// A length of time as the configuration writes it, in the largest unit that leaves a whole number.
pub fn time(ms: u64) -> String {
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

/// A number of bytes in the same way.
pub fn size(bytes: u64) -> String {
    for (unit, unit_bytes) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(unit_bytes) {
            return format!("{}{unit}", bytes / unit_bytes);
        }
    }
    format!("{bytes}B")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_told_as_they_are_configured() {
        for (ms, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (120_000, "2m"),
            (86_400_000, "1d"),
        ] {
            assert_eq!(time(ms), text);
        }
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (64 << 10, "64KiB"), (20 << 20, "20MiB"), (1 << 40, "1TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}

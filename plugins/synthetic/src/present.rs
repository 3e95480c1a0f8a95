//! Which calls are there by now.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use recgate_plugin_api::{Error, ErrorCode};

use crate::Synthetic;
use crate::calls::{Calls, Invented, LONGEST_MS};

/// More digits than any number of calls has.
const DIGITS: u64 = 20;

/// Which calls are there at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Present {
    /// Unix milliseconds UTC.
    pub(crate) now_ms: i64,
    /// Calls with this number or a later one aren't there.
    pub(crate) count: u64,
}

impl Synthetic {
    /// What is there now.
    pub(crate) fn present(&self) -> Result<Present, Error> {
        let count = match &self.count_file {
            Some(path) => read(path)?.min(self.calls.count()),
            None => self.calls.count(),
        };
        Ok(Present { now_ms: self.host.now_ms(), count })
    }
}

impl Present {
    /// Whether a call is there.
    pub(crate) fn has(self, call: &Invented) -> bool {
        call.number() < self.count && call.stop_ms() <= self.now_ms
    }

    /// What started before it is there: calls run for a while, and those that the file doesn't count yet are to come.
    pub(crate) fn watermark_ms(self, calls: &Calls) -> i64 {
        let ended_ms = self.now_ms.saturating_sub(LONGEST_MS);
        if self.count < calls.count() { ended_ms.min(calls.call(self.count).start_ms()) } else { ended_ms }
    }
}

fn read(path: &Path) -> Result<u64, Error> {
    let unavailable = |what: &dyn std::fmt::Display| {
        Error::new(ErrorCode::Unavailable, format!("count_file: {}: {what}", path.display()))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| unavailable(&error))?;
    file.take(DIGITS).read_to_string(&mut text).map_err(|error| unavailable(&error))?;
    text.trim_ascii_end().parse().map_err(|_| {
        unavailable(&"it doesn't hold a number in digits; write it under another name and rename it")
    })
}

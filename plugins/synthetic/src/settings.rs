//! The configuration of an instance.

use std::path::PathBuf;

use recgate_plugin_api::Error;
use recgate_plugin_common::settings::{self, invalid};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{calls, sound};

/// More could not be told from one another by their starts.
const MOST_RECORDINGS: u64 = 100_000_000;
const MOST_PER_DAY: u64 = 1_000_000;
/// 31 December 9000, in days since 1970: far enough from the end of the calendar.
const LAST_DAY: u64 = 2_567_848;
/// A header and one sample. At the most, as much as the longest call has.
const LEAST_BYTES: u64 = sound::HEADER + 2;
const MOST_BYTES: u64 = sound::HEADER + 2 * sound::RATE * calls::LONGEST_S;

/// What an operator sets, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// How many calls there are.
    pub(crate) recordings: u64,
    /// UTC day of the first, days since 1970-01-01.
    pub(crate) first_day: u64,
    /// Calls of each day.
    #[serde(default = "default_per_day")]
    pub(crate) per_day: u64,
    /// Calls of the first day, where it has another number.
    #[serde(default)]
    pub(crate) on_first_day: Option<u64>,
    /// Bytes of a recording at most.
    #[serde(default)]
    pub(crate) largest: Option<u64>,
    /// The file that says how many of the recordings there are by now.
    #[serde(default)]
    pub(crate) count_file: Option<PathBuf>,
}

impl Settings {
    /// Reads a configuration. The message of an error names the setting.
    pub(crate) fn parse(config_json: &str) -> Result<Self, Error> {
        let settings: Self = settings::parse(config_json)?;
        let on_first_day = settings.on_first_day.unwrap_or(settings.per_day);
        for (key, value, most) in [
            ("recordings", settings.recordings, MOST_RECORDINGS),
            ("per_day", settings.per_day, MOST_PER_DAY),
            ("on_first_day", on_first_day, MOST_PER_DAY),
        ] {
            settings::check_within(key, value, 1..=most, "")?;
        }
        if let Some(largest) = settings.largest {
            settings::check_within("largest", largest, LEAST_BYTES..=MOST_BYTES, "")?;
        }
        if let Some(path) = &settings.count_file {
            settings::check_absolute("count_file", path)?;
        }
        let days = settings.recordings.saturating_sub(on_first_day).div_ceil(settings.per_day);
        if settings.first_day.saturating_add(days) > LAST_DAY {
            return Err(invalid("first_day: the last call would be after the year 9000"));
        }
        Ok(settings)
    }
}

/// The JSON Schema that a configuration is checked with before an instance is made.
pub(crate) fn schema() -> Value {
    settings::schema(
        "synthetic",
        "Invented recordings, computed and not stored, for demonstrations and measurements",
        &["recordings", "first_day"],
        json!({
            "recordings": settings::number("How many recordings there are.", 1..=MOST_RECORDINGS),
            "first_day": settings::number(
                "UTC day of the first recording, in days since 1970-01-01.",
                0..=LAST_DAY
            ),
            "per_day": settings::number_or(default_per_day(), "Recordings of each day.", 1..=MOST_PER_DAY),
            "on_first_day": settings::number(
                "Recordings of the first day, where it has another number.",
                1..=MOST_PER_DAY
            ),
            "largest": settings::number(
                "Bytes of a recording at most: its end is left out. Without it, a recording is as long as its call.",
                LEAST_BYTES..=MOST_BYTES
            ),
            "count_file": settings::path(
                "Absolute path of a file with a number in digits: how many of the recordings, in the order of their \
                 starts, there are by now. It is looked at whenever the source is, and five times a second besides. \
                 Without it, those are there whose calls have ended."
            )
        }),
    )
}

fn default_per_day() -> u64 {
    5000
}

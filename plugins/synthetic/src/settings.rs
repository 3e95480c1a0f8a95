//! The configuration of an instance.

use recgate_plugin_api::{Error, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// More could not be told from one another by their starts.
const MOST_RECORDINGS: u64 = 100_000_000;
const MOST_PER_DAY: u64 = 1_000_000;
/// 31 December 9000, in days since 1970: far enough from the end of the calendar.
const LAST_DAY: u64 = 2_567_848;

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
}

impl Settings {
    /// Reads a configuration. The message of an error names the setting.
    pub(crate) fn parse(config_json: &str) -> Result<Self, Error> {
        let settings: Self =
            serde_json::from_str(config_json).map_err(|error| invalid(format!("settings: {error}")))?;
        let on_first_day = settings.on_first_day.unwrap_or(settings.per_day);
        for (key, value, most) in [
            ("recordings", settings.recordings, MOST_RECORDINGS),
            ("per_day", settings.per_day, MOST_PER_DAY),
            ("on_first_day", on_first_day, MOST_PER_DAY),
        ] {
            if value == 0 || value > most {
                return Err(invalid(format!("{key}: {value} is not between 1 and {most}")));
            }
        }
        let days = settings.recordings.saturating_sub(on_first_day).div_ceil(settings.per_day);
        if settings.first_day.saturating_add(days) > LAST_DAY {
            return Err(invalid("first_day: the last call would be after the year 9000".to_owned()));
        }
        Ok(settings)
    }
}

/// The JSON Schema that a configuration is checked with before an instance is made.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "synthetic",
        "description": "Invented recordings, computed and not stored, for demonstrations and measurements",
        "type": "object",
        "additionalProperties": false,
        "required": ["recordings", "first_day"],
        "properties": {
            "recordings": {
                "description": "How many recordings there are.",
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_RECORDINGS
            },
            "first_day": {
                "description": "UTC day of the first recording, in days since 1970-01-01.",
                "type": "integer",
                "minimum": 0,
                "maximum": LAST_DAY
            },
            "per_day": {
                "description": "Recordings of each day.",
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_PER_DAY,
                "default": default_per_day()
            },
            "on_first_day": {
                "description": "Recordings of the first day, where it has another number.",
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_PER_DAY
            }
        }
    })
}

fn default_per_day() -> u64 {
    5000
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::Invalid, message)
}

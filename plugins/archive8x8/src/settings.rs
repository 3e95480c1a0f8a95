//! The configuration of an instance.

use std::path::PathBuf;

use chrono_tz::Tz;
use recgate_plugin_api::{Error, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds after which a file that nobody changed counts as complete, unless configured. Archives are copied in over
/// networks, which pause for longer than a PBX that writes.
const GROWING_AFTER_S: u32 = 60;
const GROWING_AFTER_MAX_S: u32 = 3600;

/// What an operator sets, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The archive's folder, or the folder of some.
    pub(crate) root: PathBuf,
    /// The zone of START TIME and STOP TIME.
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default = "default_growing_after")]
    growing_after: u32,
    #[serde(skip)]
    zone: Option<Tz>,
}

impl Settings {
    /// Reads a configuration. The message of an error names the setting.
    pub(crate) fn parse(config_json: &str) -> Result<Self, Error> {
        let mut settings: Self =
            serde_json::from_str(config_json).map_err(|error| invalid(format!("settings: {error}")))?;
        if !settings.root.is_absolute() {
            let message = format!("root: {:?} is not an absolute path; write it from / on", settings.root);
            return Err(invalid(message));
        }
        if !(1..=GROWING_AFTER_MAX_S).contains(&settings.growing_after) {
            return Err(invalid(format!(
                "growing_after: {} is not between 1 and {GROWING_AFTER_MAX_S} seconds",
                settings.growing_after
            )));
        }
        if let Some(name) = &settings.time_zone {
            let zone = name.parse().map_err(|_| {
                invalid(format!(
                    "time_zone: {name:?} is no IANA time zone; write America/Los_Angeles, for example"
                ))
            })?;
            settings.zone = Some(zone);
        }
        Ok(settings)
    }

    /// The zone of START TIME and STOP TIME, where it is configured.
    pub(crate) fn zone(&self) -> Option<Tz> {
        self.zone
    }

    /// Milliseconds after which a file that nobody changed counts as complete.
    pub(crate) fn growing_after_ms(&self) -> i64 {
        i64::from(self.growing_after) * 1000
    }
}

/// The JSON Schema that a configuration is checked with before an instance is made.
pub(crate) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "archive8x8",
        "description": "An archive in the layout of 8x8 Contact Center, with its index files",
        "type": "object",
        "additionalProperties": false,
        "required": ["root"],
        "properties": {
            "root": {
                "description": "Absolute path of the archive: the folder that holds Index and S20160606, or one \
                    whose folders do. It is only read.",
                "type": "string",
                "pattern": "^/"
            },
            "time_zone": {
                "description": "IANA name of the zone of START TIME and STOP TIME, for example \
                    America/Los_Angeles. Needed only for index files without START TIME UTC and STOP TIME UTC.",
                "type": "string",
                "minLength": 1
            },
            "growing_after": {
                "description": "Seconds without a change after which a file counts as complete.",
                "type": "integer",
                "minimum": 1,
                "maximum": GROWING_AFTER_MAX_S,
                "default": GROWING_AFTER_S
            }
        }
    })
}

fn default_growing_after() -> u32 {
    GROWING_AFTER_S
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn defaults_are_filled_in() {
        let settings = Settings::parse(r#"{"root":"/srv/8x8"}"#).unwrap();
        assert_eq!((settings.growing_after_ms(), settings.zone()), (60_000, None));
        let settings = Settings::parse(r#"{"root":"/srv/8x8","time_zone":"America/Los_Angeles"}"#).unwrap();
        assert_eq!(settings.zone(), Some(Tz::America__Los_Angeles));
    }

    #[test]
    fn each_mistake_names_its_setting() {
        for (config, named) in [
            ("{}", "root"),
            (r#"{"root":"8x8"}"#, "root"),
            (r#"{"root":"/a","growing_after":0}"#, "growing_after"),
            (r#"{"root":"/a","growing_after":3601}"#, "growing_after"),
            (r#"{"root":"/a","time_zone":"PDT-ish"}"#, "time_zone"),
            (r#"{"root":"/a","zone":"UTC"}"#, "zone"),
            ("[", "settings"),
        ] {
            let error = Settings::parse(config).unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid, "{config}");
            assert!(error.message.contains(named), "{config}: {}", error.message);
        }
    }

    #[test]
    fn the_schema_knows_every_setting_and_describes_it() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["growing_after", "root", "time_zone"]);
        assert!(properties.values().all(|property| property["description"].is_string()));
        assert_eq!(schema["additionalProperties"], false);
    }
}

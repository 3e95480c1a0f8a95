//! The configuration of an instance.

use std::path::PathBuf;

use chrono_tz::Tz;
use recgate_plugin_api::Error;
use recgate_plugin_common::settings::{self, invalid};
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds after which a file that nobody changed counts as complete, unless configured. Archives are copied in over
/// networks, which pause for longer than a PBX that writes.
const GROWING_AFTER_S: u32 = 60;

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
        let mut settings: Self = settings::parse(config_json)?;
        settings::check_absolute("root", &settings.root)?;
        settings::check_growing_after(settings.growing_after)?;
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
    settings::schema(
        "archive8x8",
        "An archive in the layout of 8x8 Contact Center, with its index files",
        &["root"],
        json!({
            "root": settings::path(
                "Absolute path of the archive: the folder that holds Index and S20160606, or one whose folders do. It \
                 is only read."
            ),
            "time_zone": settings::text(
                "IANA name of the zone of START TIME and STOP TIME, for example America/Los_Angeles. Needed only for \
                 index files without START TIME UTC and STOP TIME UTC."
            ),
            "growing_after": settings::growing_after(GROWING_AFTER_S)
        }),
    )
}

fn default_growing_after() -> u32 {
    GROWING_AFTER_S
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
        let mistakes = [
            ("{}", "root"),
            (r#"{"root":"8x8"}"#, "root"),
            (r#"{"root":"/a","growing_after":0}"#, "growing_after"),
            (r#"{"root":"/a","growing_after":3601}"#, "growing_after"),
            (r#"{"root":"/a","time_zone":"PDT-ish"}"#, "time_zone"),
            (r#"{"root":"/a","zone":"UTC"}"#, "zone"),
            ("[", "settings"),
        ];
        assert_eq!(settings::faults_of_messages(Settings::parse, &mistakes), [""; 0]);
    }

    #[test]
    fn the_schema_knows_every_setting_and_describes_it() {
        let known = ["growing_after", "root", "time_zone"];
        assert_eq!(settings::faults_of_schema(&schema(), &known), [""; 0]);
    }
}

//! The configuration of an instance.

use std::path::PathBuf;

use recgate_plugin_api::Error;
use recgate_plugin_common::settings;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call_logd::{self, CallLogdSettings};

/// Seconds after which a file that nobody changed counts as complete, unless configured. MixMonitor writes each
/// frame through a buffer of about a second of audio, so ten seconds without a write is a pause or the end.
const GROWING_AFTER_S: u32 = 10;

/// What an operator sets, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The monitor folder.
    pub(crate) root: PathBuf,
    /// Where the call data records lie.
    #[serde(default)]
    pub(crate) cdr_dir: Option<PathBuf>,
    /// Where call data records are asked for.
    #[serde(default)]
    pub(crate) call_logd: Option<CallLogdSettings>,
    #[serde(default = "default_growing_after")]
    growing_after: u32,
    /// What fills EXTERNAL VARIABLE 1.
    #[serde(default)]
    pub(crate) external_variable_1: ExternalVariable1,
    /// Beginning of the tag whose rest is the case.
    #[serde(default)]
    pub(crate) case_id_tag: Option<String>,
    /// Beginning of the tag whose rest is the account.
    #[serde(default)]
    pub(crate) account_tag: Option<String>,
}

/// What fills EXTERNAL VARIABLE 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExternalVariable1 {
    /// The `conversation_id` of the record (calls after Wazo 24.09 have one).
    #[default]
    ConversationId,
    /// The first of the record's tags.
    FirstTag,
}

impl Settings {
    /// Reads a configuration. The message of an error names the setting.
    pub(crate) fn parse(config_json: &str) -> Result<Self, Error> {
        let mut settings: Self = settings::parse(config_json)?;
        settings.check()?;
        Ok(settings)
    }

    /// Milliseconds after which a file that nobody changed counts as complete.
    pub(crate) fn growing_after_ms(&self) -> i64 {
        i64::from(self.growing_after) * 1000
    }

    fn check(&mut self) -> Result<(), Error> {
        for (key, path) in [("root", Some(&self.root)), ("cdr_dir", self.cdr_dir.as_ref())] {
            if let Some(path) = path {
                settings::check_absolute(key, path)?;
            }
        }
        settings::check_growing_after(self.growing_after)?;
        for (key, prefix) in [("case_id_tag", &self.case_id_tag), ("account_tag", &self.account_tag)] {
            if prefix.as_ref().is_some_and(String::is_empty) {
                let message = format!("{key}: is empty, which would match every tag; leave it out");
                return Err(settings::invalid(message));
            }
        }
        if let Some(call_logd) = &mut self.call_logd {
            call_logd.check()?;
        }
        Ok(())
    }
}

/// The JSON Schema that a configuration is checked with before an instance is made.
pub(crate) fn schema() -> Value {
    settings::schema(
        "wazo",
        "The monitor folder of a Wazo PBX and its call data records",
        &["root"],
        json!({
            "root": settings::path(
                "Absolute path of the monitor folder, for example \
                 /var/lib/wazo/sounds/tenants/<tenant uuid>/monitor. It is only read."
            ),
            "cdr_dir": settings::path(
                "Absolute path of a folder with call data records: *.json files, each the answer of GET /cdr, an array \
                 of its items, or a single item. Without it and call_logd no recording has facts."
            ),
            "call_logd": call_logd::schema(),
            "growing_after": settings::growing_after(GROWING_AFTER_S),
            "external_variable_1": {
                "description": "What fills EXTERNAL VARIABLE 1: the record's conversation_id or its first tag.",
                "enum": ["conversation_id", "first_tag"],
                "default": "conversation_id"
            },
            "case_id_tag": settings::text(
                "Beginning of the tag that carries the case, for example \"case:\". The rest of the tag must be \
                 digits, at most 2147483647, to fill CASEID."
            ),
            "account_tag": settings::text(
                "Beginning of the tag that carries the account, for example \"account:\". The rest of the tag fills \
                 ACCOUNT."
            )
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
        let settings = Settings::parse(r#"{"root":"/srv/monitor"}"#).unwrap();
        assert_eq!(settings.growing_after_ms(), 10_000);
        assert_eq!(settings.external_variable_1, ExternalVariable1::ConversationId);
        assert_eq!(settings.cdr_dir, None);
    }

    #[test]
    fn each_mistake_names_its_setting() {
        let mistakes = [
            ("{}", "root"),
            (r#"{"root":"monitor"}"#, "root"),
            (r#"{"root":"/m","cdr_dir":"cdr"}"#, "cdr_dir"),
            (r#"{"root":"/m","growing_after":0}"#, "growing_after"),
            (r#"{"root":"/m","growing_after":3601}"#, "growing_after"),
            (r#"{"root":"/m","case_id_tag":""}"#, "case_id_tag"),
            (r#"{"root":"/m","account_tag":""}"#, "account_tag"),
            (r#"{"root":"/m","external_variable_1":"tag"}"#, "first_tag"),
            (r#"{"root":"/m","roots":1}"#, "roots"),
            ("[", "settings"),
        ];
        assert_eq!(settings::faults_of_messages(Settings::parse, &mistakes), [""; 0]);
    }

    #[test]
    fn the_schema_knows_every_setting_and_describes_it() {
        let known = [
            "account_tag",
            "call_logd",
            "call_logd.allow_plain_http",
            "call_logd.auth_url",
            "call_logd.ca_file",
            "call_logd.client_id",
            "call_logd.lookback_days",
            "call_logd.page_size",
            "call_logd.password_file",
            "call_logd.poll_interval",
            "call_logd.recheck_interval",
            "call_logd.refresh_token_file",
            "call_logd.sweep_interval",
            "call_logd.tenant_uuid",
            "call_logd.timeout",
            "call_logd.url",
            "call_logd.user",
            "case_id_tag",
            "cdr_dir",
            "external_variable_1",
            "growing_after",
            "root",
        ];
        assert_eq!(settings::faults_of_schema(&schema(), &known), [""; 0]);
    }
}

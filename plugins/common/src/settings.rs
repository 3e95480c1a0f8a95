//! What plugins' configurations have in common: how they are read, how mistakes are told, and their schema.
//!
//! The gateway checks a configuration against the schema before it makes an instance. It is read as strictly here
//! nevertheless: a plugin isn't only made by this gateway.

use std::ops::RangeInclusive;
use std::path::Path;

use recgate_plugin_api::{Error, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The longest `growing_after`, in seconds.
const GROWING_AFTER_MAX_S: u32 = 3600;

/// Reads a configuration. What isn't checked here is what no type says: the caller's business.
///
/// # Errors
/// `Invalid`; the message says what is wrong, and at which setting as far as that is known.
pub fn parse<T: DeserializeOwned>(config_json: &str) -> Result<T, Error> {
    serde_json::from_str(config_json).map_err(|error| invalid(format!("settings: {error}")))
}

/// A mistake in a configuration. The message begins with the setting.
pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Invalid, message)
}

/// Whether a setting is an absolute path.
///
/// # Errors
/// `Invalid` where it isn't: the gateway's working directory is nobody's business.
pub fn check_absolute(key: &str, path: &Path) -> Result<(), Error> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(invalid(format!("{key}: {path:?} is not an absolute path; write it from / on")))
}

/// Whether a number is within its bounds. The `unit` ends the message, and begins with a blank where it isn't empty.
///
/// # Errors
/// `Invalid` where it isn't.
pub fn check_within(key: &str, value: u64, bounds: RangeInclusive<u64>, unit: &str) -> Result<(), Error> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let (least, most) = (bounds.start(), bounds.end());
    Err(invalid(format!("{key}: {value} is not between {least} and {most}{unit}")))
}

/// Whether `growing_after` is within its bounds.
///
/// # Errors
/// `Invalid` where it isn't.
pub fn check_growing_after(seconds: u32) -> Result<(), Error> {
    check_within("growing_after", seconds.into(), 1..=GROWING_AFTER_MAX_S.into(), " seconds")
}

/// The schema of `growing_after`.
pub fn growing_after(default_s: u32) -> Value {
    let what = "Seconds without a change after which a file counts as complete.";
    number_or(default_s.into(), what, 1..=GROWING_AFTER_MAX_S.into())
}

/// The schema of an absolute path.
pub fn path(description: &str) -> Value {
    json!({"description": description, "type": "string", "pattern": "^/"})
}

/// The schema of a text that isn't empty.
pub fn text(description: &str) -> Value {
    json!({"description": description, "type": "string", "minLength": 1})
}

/// The schema of a whole number.
pub fn number(description: &str, bounds: RangeInclusive<u64>) -> Value {
    let (least, most) = (bounds.start(), bounds.end());
    json!({"description": description, "type": "integer", "minimum": least, "maximum": most})
}

/// The schema of a whole number that may be left out.
pub fn number_or(default: u64, description: &str, bounds: RangeInclusive<u64>) -> Value {
    let (least, most) = (bounds.start(), bounds.end());
    json!({"description": description, "type": "integer", "minimum": least, "maximum": most, "default": default})
}

/// The schema of a whole configuration: nothing besides these settings may be in it.
pub fn schema(plugin: &str, description: &str, required: &[&str], settings: Value) -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": plugin,
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": settings
    })
}

/// What a test finds wrong with a schema: that it, or one within it, lets settings in that it doesn't name, or that a
/// setting isn't described. `known` are the settings that the configuration has, in the order of the alphabet, those of
/// `call_logd` as `call_logd.url`.
pub fn faults_of_schema(schema: &Value, known: &[&str]) -> Vec<String> {
    let (mut faults, mut found) = (Vec::new(), Vec::new());
    look_through(schema, "", &mut faults, &mut found);
    found.sort();
    if found != known {
        faults.push(format!("it has the settings {found:?}, not {known:?}"));
    }
    faults
}

fn look_through(schema: &Value, prefix: &str, faults: &mut Vec<String>, found: &mut Vec<String>) {
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        faults.push(format!("{prefix:?} lets in what it doesn't name"));
    }
    let none = Map::new();
    for (key, setting) in schema.get("properties").and_then(Value::as_object).unwrap_or(&none) {
        let path = format!("{prefix}{key}");
        if !setting.get("description").is_some_and(Value::is_string) {
            faults.push(format!("{path} isn't described"));
        }
        if setting.get("properties").is_some() {
            look_through(setting, &format!("{path}."), faults, found);
        }
        found.push(path);
    }
}

/// What a test finds wrong with how mistakes are told: configurations that are taken, or refused with another code than
/// `Invalid`, or with a message that doesn't name what stands beside them.
pub fn faults_of_messages<T>(
    parse: impl Fn(&str) -> Result<T, Error>,
    mistakes: &[(&str, &str)],
) -> Vec<String> {
    let fault = |(config, named): &(&str, &str)| match parse(config) {
        Ok(_) => Some(format!("{config} is taken")),
        Err(error) if error.code == ErrorCode::Invalid && error.message.contains(named) => None,
        Err(error) => Some(format!("{config}, which should name {named}, is refused with: {error}")),
    };
    mistakes.iter().filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        root: std::path::PathBuf,
        growing_after: u32,
    }

    fn read(config_json: &str) -> Result<Settings, Error> {
        let settings: Settings = parse(config_json)?;
        check_absolute("root", &settings.root)?;
        check_growing_after(settings.growing_after)?;
        Ok(settings)
    }

    #[test]
    fn mistakes_are_told_by_their_setting() {
        for (config, message) in [
            (r#"{"root":"a","growing_after":1}"#, r#"root: "a" is not an absolute path; write it from / on"#),
            (
                r#"{"root":"/a","growing_after":3601}"#,
                "growing_after: 3601 is not between 1 and 3600 seconds",
            ),
            ("[", "settings: EOF while parsing a list at line 1 column 1"),
        ] {
            assert_eq!(read(config).unwrap_err(), invalid(message));
        }
        assert!(read(r#"{"root":"/a","growing_after":3600}"#).is_ok());
        let faults = faults_of_messages(
            read,
            &[
                ("{}", "root"),
                (r#"{"root":"/a","growing_after":60}"#, "root"),
                (r#"{"root":"/a","growing_after":0}"#, "root"),
                (r#"{"root":"/a","growing_after":0,"more":1}"#, "more"),
            ],
        );
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].ends_with("is taken") && faults[1].contains("which should name root"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_schema_with_gaps_is_found_out() {
        let inner = |closed: bool| {
            json!({
                "description": "More.",
                "additionalProperties": !closed,
                "properties": {"url": {"type": "string"}}
            })
        };
        let whole =
            |closed| schema("a", "b", &["root"], json!({"root": path("Where."), "inner": inner(closed)}));
        let known = ["inner", "inner.url", "root"];
        assert_eq!(faults_of_schema(&whole(true), &known), ["inner.url isn't described"]);
        assert_eq!(faults_of_schema(&whole(false), &known).len(), 2);
        assert_eq!(faults_of_schema(&whole(true), &known[..2]).len(), 2);
        assert_eq!(faults_of_schema(&json!({}), &[]), [r#""" lets in what it doesn't name"#]);
    }
}

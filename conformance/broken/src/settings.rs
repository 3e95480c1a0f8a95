//! The settings: what to serve, what to do wrong.

use recgate_plugin_api::{Error, ErrorCode, Facts, JoinKey, JoinKind};
use serde_json::{Value, json};

use crate::MISBEHAVIOURS;

/// Start of the first medium where the settings name none: 2016-06-06T00:01:17Z.
const FIRST_START_MS: i64 = 1_465_171_277_000;

/// See [`schema`].
pub(crate) struct Settings {
    pub(crate) misbehave: String,
    pub(crate) delay_ms: u64,
    pub(crate) release: Option<String>,
    pub(crate) facts: bool,
    pub(crate) told_facts: Vec<Facts>,
    pub(crate) max_concurrent_calls: u32,
    media: Vec<Medium>,
    count: u64,
    size: u64,
    start_ms: i64,
    step_ms: i64,
}

#[derive(Clone)]
pub(crate) struct Medium {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) start_ms: i64,
    pub(crate) duration_ms: i64,
    pub(crate) exact: bool,
}

/// The JSON Schema.
pub(crate) fn schema() -> String {
    let natural = || json!({"type": "integer", "minimum": 0});
    let key = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "value"],
        "properties": {
            "kind": {"enum": ["recording_uuid", "object_key", "contact_id", "conversation_id"]},
            "value": {"type": "string"},
        },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "misbehave": {"enum": MISBEHAVIOURS},
            "delay_ms": {"description": "how long each read takes, in milliseconds", "type": "integer", "minimum": 0},
            "release": {"description": "calls that hang go on once this file is there", "type": "string"},
            "facts": {"description": "tell facts for every medium", "type": "boolean"},
            "told_facts": {
                "description": "facts that are told besides",
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["id"],
                    "properties": {
                        "id": {"type": "string"},
                        "revision": natural(),
                        "gone": {"type": "boolean"},
                        "keys": {"type": "array", "items": key},
                        "values": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
            },
            "max_concurrent_calls": {"type": "integer", "minimum": 0, "maximum": 1000},
            "media": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["id"],
                    "properties": {
                        "id": {"type": "string"},
                        "version": {"type": "string"},
                        "size": natural(),
                        "media_type": {"type": "string"},
                        "start_ms": {"type": "integer"},
                        "duration_ms": natural(),
                        "exact": {"description": "the start is exact to the second", "type": "boolean"},
                    },
                },
            },
            "count": {"description": "media that are made besides: medium-0, medium-1, …", "type": "integer", "minimum": 0},
            "size": {"description": "bytes of a medium that doesn't name its own", "type": "integer", "minimum": 0},
            "start_ms": {"description": "start of the first medium that is made, Unix milliseconds", "type": "integer"},
            "step_ms": {"description": "milliseconds between the starts of two such media; 1000 if not named", "type": "integer", "minimum": 0},
        },
    })
    .to_string()
}

impl Settings {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |e: serde_json::Error| Error::new(ErrorCode::Invalid, format!("the settings: {e}"));
        let settings: Value = serde_json::from_str(text).map_err(invalid)?;
        let natural = |name: &str| settings.get(name).and_then(Value::as_u64);
        let list = |name: &str| settings.get(name).and_then(Value::as_array).into_iter().flatten();
        let size = natural("size").unwrap_or(4096);
        Ok(Self {
            misbehave: string(&settings, "misbehave").unwrap_or_default(),
            delay_ms: natural("delay_ms").unwrap_or(0),
            release: string(&settings, "release"),
            facts: settings.get("facts").and_then(Value::as_bool).unwrap_or(false),
            told_facts: list("told_facts").map(facts).collect(),
            max_concurrent_calls: natural("max_concurrent_calls")
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0),
            media: list("media").zip(0..).map(|(value, index)| Medium::parse(value, size, index)).collect(),
            count: natural("count").unwrap_or(0),
            size,
            start_ms: settings.get("start_ms").and_then(Value::as_i64).unwrap_or(FIRST_START_MS),
            step_ms: settings.get("step_ms").and_then(Value::as_i64).unwrap_or(1000),
        })
    }

    pub(crate) fn media_count(&self) -> u64 {
        self.count.saturating_add(self.media.len() as u64)
    }

    pub(crate) fn medium(&self, index: u64) -> Option<Medium> {
        let named = self.media.len() as u64;
        if let Some(made) = index.checked_sub(named) {
            return (made < self.count).then(|| self.made(made));
        }
        self.media.get(usize::try_from(index).ok()?).cloned()
    }

    pub(crate) fn find(&self, id: &str) -> Result<Medium, Error> {
        if let Some(medium) = self.media.iter().find(|medium| medium.id == id) {
            return Ok(medium.clone());
        }
        let made = id.strip_prefix("medium-").and_then(|number| number.parse().ok());
        match made {
            Some(index) if index < self.count => Ok(self.made(index)),
            _ => Err(Error::new(ErrorCode::NotFound, format!("there is no medium {id:?}"))),
        }
    }

    pub(crate) fn find_first(&self) -> Result<Medium, Error> {
        self.medium(0).ok_or_else(|| Error::new(ErrorCode::Invalid, "this needs at least one medium"))
    }

    fn made(&self, index: u64) -> Medium {
        let later = i64::try_from(index).unwrap_or(0).saturating_mul(self.step_ms);
        Medium::new(&format!("medium-{index}"), self.size, self.start_ms.saturating_add(later))
    }
}

impl Medium {
    pub(crate) fn new(id: &str, size: u64, start_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            version: "1".to_owned(),
            size,
            media_type: "audio/wav".to_owned(),
            start_ms,
            duration_ms: 1000,
            exact: true,
        }
    }

    fn parse(value: &Value, size: u64, index: i64) -> Self {
        let made = Self::new("", size, FIRST_START_MS.saturating_add(index.saturating_mul(1000)));
        let integer = |name: &str| value.get(name).and_then(Value::as_i64);
        Self {
            id: string(value, "id").unwrap_or_default(),
            version: string(value, "version").unwrap_or(made.version),
            size: value.get("size").and_then(Value::as_u64).unwrap_or(size),
            media_type: string(value, "media_type").unwrap_or(made.media_type),
            start_ms: integer("start_ms").unwrap_or(made.start_ms),
            duration_ms: integer("duration_ms").unwrap_or(made.duration_ms),
            exact: value.get("exact").and_then(Value::as_bool).unwrap_or(true),
        }
    }
}

fn facts(value: &Value) -> Facts {
    let keys = value.get("keys").and_then(Value::as_array).into_iter().flatten();
    let values = value.get("values").and_then(Value::as_object).into_iter().flatten();
    Facts {
        id: string(value, "id").unwrap_or_default(),
        revision: value.get("revision").and_then(Value::as_u64).unwrap_or(1),
        gone: value.get("gone").and_then(Value::as_bool).unwrap_or(false),
        keys: keys
            .map(|key| JoinKey {
                kind: match key.get("kind").and_then(Value::as_str) {
                    Some("recording_uuid") => JoinKind::RecordingUuid,
                    Some("contact_id") => JoinKind::ContactId,
                    Some("conversation_id") => JoinKind::ConversationId,
                    _ => JoinKind::ObjectKey,
                },
                value: string(key, "value").unwrap_or_default(),
            })
            .collect(),
        values: values
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

fn string(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

//! What the catalog writes to the governance chain: every uid and every name with its frozen fields, so
//! that the store can be rebuilt. No entry holds a personal value.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::CatalogError;
use crate::state::NewEntry;

/// An entry of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Entry {
    /// A tenant is served for the first time.
    Adopted(Adopted),
    /// A recording has become known, or is known again after it had vanished without a name.
    Learned(Learned),
    /// A recording has got its name.
    Published(Published),
    /// No facts came in time, and the source's rule makes that an orphan.
    Orphaned(Subject),
    /// The media of a recording without a name has vanished from its source. Its uid stays its own, should it come back.
    Vanished(Subject),
    /// The media of a published recording has vanished from its source.
    Missing(Subject),
    /// It is there again, or as it was: the version that was published.
    Returned(Subject),
    /// The media of a published recording has changed.
    Corrupt(Subject),
    /// The personal values of a recording's facts were erased.
    FactsErased(FactsErased),
}

/// A tenant is served for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The tenant's id.
    pub tenant: u32,
    /// Its names are shown in the short form, for ever.
    pub short_names: bool,
    /// The local day, days since 1970-01-01: from it on, each day has an index, with or without recordings.
    pub first_day: i32,
}

/// A recording has become known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The tenant's id.
    pub tenant: u32,
    /// The recording's uid, from now on.
    pub uid: uuid::Uuid,
    /// The source's id.
    pub source: u32,
    /// The media's id in the source.
    pub media: String,
    /// The media's version then.
    pub version: String,
}

/// A recording has got its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The tenant's id.
    pub tenant: u32,
    /// The recording.
    pub uid: uuid::Uuid,
    /// The source's id.
    pub source: u32,
    /// The media's id in the source.
    pub media: String,
    /// The version that is served.
    pub version: String,
    /// Start, Unix milliseconds UTC.
    pub start_ms: i64,
    /// Stop, Unix milliseconds UTC.
    pub stop_ms: i64,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// UTC day of the name and the folder, days since 1970-01-01.
    pub day: i32,
    /// Second of that day.
    pub second: u32,
    /// Sequence within the second.
    pub sequence: u32,
    /// Extension of the name.
    pub extension: String,
    /// Local day, days since 1970-01-01.
    pub local_day: i32,
    /// Number in the tenant's order of publication.
    pub publication: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time that clients see, Unix seconds UTC.
    pub modified: i64,
    /// Bytes served in place of the first ones stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_bytes")]
    pub header_patch: Vec<u8>,
}

/// A recording that something happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The tenant's id.
    pub tenant: u32,
    /// The recording.
    pub uid: uuid::Uuid,
    /// The source's id.
    pub source: u32,
    /// The media's id in the source.
    pub media: String,
}

/// The personal values of a recording's facts were erased, and stay so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsErased {
    /// The recording.
    #[serde(flatten)]
    pub subject: Subject,
    /// Ids of the facts, in the source, that were told about this recording and no other that isn't erased.
    pub facts: Vec<String>,
    /// Who did it.
    pub by: Actor,
    /// The note that says why. It lies outside the journal, because what people write may be personal, too.
    pub note: Option<uuid::Uuid>,
}

/// Who has done something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A user of the gateway's machine, by the number that the kernel tells.
    LocalUser(u32),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LocalUser(0) => f.write_str("root on the gateway's machine"),
            Self::LocalUser(uid) => write!(f, "user {uid} of the gateway's machine"),
        }
    }
}

impl Entry {
    /// The form that the journal takes.
    pub fn to_journal(&self) -> Result<NewEntry, CatalogError> {
        let kind = Cow::Borrowed(self.kind());
        let entry = match self {
            Self::Adopted(data) => NewEntry::new(kind, data),
            Self::Learned(data) => NewEntry::new(kind, data),
            Self::Published(data) => NewEntry::new(kind, data),
            Self::Orphaned(data)
            | Self::Missing(data)
            | Self::Returned(data)
            | Self::Corrupt(data)
            | Self::Vanished(data) => NewEntry::new(kind, data),
            Self::FactsErased(data) => NewEntry::new(kind, data),
        };
        entry.map_err(|error| CatalogError::Row(error.to_string()))
    }

    /// Reads an entry; `None` when it is of a kind that isn't the catalog's.
    pub fn from_journal(kind: &str, data: &serde_json::Value) -> Result<Option<Self>, CatalogError> {
        if !Self::KINDS.contains(&kind) {
            return Ok(None);
        }
        serde_json::from_value(serde_json::json!({ "kind": kind, "data": data }))
            .map(Some)
            .map_err(|error| CatalogError::Row(format!("a journal entry of kind {kind}: {error}")))
    }

    const KINDS: [&'static str; 9] = [
        "adopted",
        "learned",
        "published",
        "orphaned",
        "vanished",
        "missing",
        "returned",
        "corrupt",
        "facts_erased",
    ];

    fn kind(&self) -> &'static str {
        match self {
            Self::Adopted(_) => "adopted",
            Self::Learned(_) => "learned",
            Self::Published(_) => "published",
            Self::Orphaned(_) => "orphaned",
            Self::Vanished(_) => "vanished",
            Self::Missing(_) => "missing",
            Self::Returned(_) => "returned",
            Self::Corrupt(_) => "corrupt",
            Self::FactsErased(_) => "facts_erased",
        }
    }
}

mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The format of the first release. A journal lives for decades: this text must always be readable.
    const FIRST_RELEASE: &str = r#"{"tenant":1,"uid":"0196a5c2-2a50-7c31-8d2b-0f3a5f0f9a10","source":2,"media":"a.wav","version":"5-6","start_ms":1465171277000,"stop_ms":1465171280500,"duration_ms":3500,"day":16958,"second":77,"sequence":0,"extension":"wav","local_day":16957,"publication":3,"size":56044,"modified":1465171280,"header_patch":"UklGRg=="}"#;

    #[test]
    fn the_first_releases_entries_are_read() {
        let data = serde_json::from_str(FIRST_RELEASE).unwrap();
        let Some(Entry::Published(published)) = Entry::from_journal("published", &data).unwrap() else {
            unreachable!("the fixture is a published entry")
        };
        assert_eq!(published.header_patch, b"RIFF");
        let again = Entry::Published(published).to_journal().unwrap();
        assert_eq!(again.kind, "published");
        assert_eq!(again.data(), FIRST_RELEASE);
    }

    #[test]
    fn an_erasure_is_read_as_it_was_first_written() {
        let text = r#"{"tenant":1,"uid":"0196a5c2-2a50-7c31-8d2b-0f3a5f0f9a10","source":2,"media":"a.wav","facts":["cdr-1"],"by":{"local_user":0},"note":"0196a5c2-2a50-7c31-8d2b-0f3a5f0f9a11"}"#;
        let data = serde_json::from_str(text).unwrap();
        let Some(Entry::FactsErased(erased)) = Entry::from_journal("facts_erased", &data).unwrap() else {
            unreachable!("the fixture is an erasure")
        };
        assert_eq!((erased.subject.media.as_str(), erased.by), ("a.wav", Actor::LocalUser(0)));
        let again = Entry::FactsErased(erased).to_journal().unwrap();
        assert_eq!((again.kind.as_ref(), again.data()), ("facts_erased", text));
    }

    #[test]
    fn other_kinds_are_somebody_elses() {
        assert_eq!(Entry::from_journal("hold_placed", &serde_json::json!({})).unwrap(), None);
        assert!(Entry::from_journal("learned", &serde_json::json!({})).is_err());
    }
}

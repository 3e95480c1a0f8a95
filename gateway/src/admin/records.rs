//! Recordings and indexes in the admin API.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/recordings/search` with a [`SearchRequest`] | a [`SearchAnswer`] |
//! | `POST /v1/recordings/show` with a [`ShowRequest`] | a [`RecordingReport`] |
//! | `POST /v1/recordings/erase-facts` with an [`EraseRequest`] | an [`EraseReport`] |
//! | `POST /v1/indexes/list` with an [`IndexListRequest`] | an [`IndexListAnswer`] |
//! | `POST /v1/indexes/show` with an [`IndexShowRequest`] | the CSV that clients see |
//! | `POST /v1/indexes/republish` with a [`RepublishRequest`] | a [`RepublishReport`] |
//!
//! Names and numbers of people stand in bodies, never in a URL that somebody logs. An answer has a bounded number of
//! rows; `after` of an answer is the `after` of the request for the next page, and says nothing to anybody else.

use std::{collections::BTreeMap, fs::File};

use async_trait::async_trait;
use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalog::{Actor, State};

/// Rows of an answer at most, and where the request says nothing.
pub const MOST_ROWS: u32 = 1000;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// A field of the request is wrong: 400.
    #[error("{field}: {reason}")]
    Invalid {
        /// Its name in the request.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// What the request names isn't there: 404.
    #[error("{0}")]
    NotFound(String),
    /// The gateway's own trouble: 500.
    #[error("{0}")]
    Failed(String),
}

/// What the admin API can ask about recordings and indexes.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Finds recordings.
    ///
    /// # Errors
    /// See [`OperationError`], here and below.
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer, OperationError>;

    /// Tells all about a recording.
    async fn show(&self, request: ShowRequest) -> Result<RecordingReport, OperationError>;

    /// Erases the personal values of a recording's facts, for good.
    async fn erase_facts(&self, request: EraseRequest, by: Actor) -> Result<EraseReport, OperationError>;

    /// Lists root indexes.
    async fn indexes(&self, request: IndexListRequest) -> Result<IndexListAnswer, OperationError>;

    /// Opens an index.
    async fn open_index(&self, request: IndexShowRequest) -> Result<IndexContent, OperationError>;

    /// Has indexes written anew at once, and says what is done.
    async fn republish(&self, request: RepublishRequest) -> Result<RepublishReport, OperationError>;
}

/// What is searched for; everything that is given has to be so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchRequest {
    /// The tenant's name; without one, all tenants.
    pub tenant: Option<String>,
    /// Starts from here on: an instant (RFC 3339) or a date, which is one of the tenant's zone.
    pub from: Option<String>,
    /// Starts before this instant, or until the end of this date.
    pub until: Option<String>,
    /// Dates are those of UTC, and times are told in UTC.
    pub utc: bool,
    /// The file name, with or without its folder.
    pub name: Option<String>,
    /// A key that the source gives its recordings: of the recording, the object, the contact or the conversation.
    pub contact: Option<String>,
    /// A part of the agent's name.
    pub agent: Option<String>,
    /// Digits of the customer's or the called number.
    pub number: Option<String>,
    /// A part of the queue's name.
    pub queue: Option<String>,
    /// The source's id of the call.
    pub transaction: Option<String>,
    /// The state; without one, those with a name, or with `contact` all.
    pub state: Option<State>,
    /// The source's name or number.
    pub source: Option<String>,
    /// Rows of the answer: 1 to 1000.
    pub limit: Option<u32>,
    /// Goes on after an earlier answer.
    pub after: Option<String>,
}

/// A page of what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchAnswer {
    /// The recordings, maybe none although there are more.
    pub recordings: Vec<RecordingRow>,
    /// For the next request; `None` where nothing follows.
    pub after: Option<String>,
    /// Rows of the catalog that were looked at.
    pub examined: u64,
}

/// A recording in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingRow {
    /// The tenant's name.
    pub tenant: String,
    /// Its immutable id.
    pub uid: Uuid,
    /// What has become of it.
    pub state: State,
    /// Its folder; `None` without a name.
    pub folder: Option<String>,
    /// Its file name.
    pub name: Option<String>,
    /// Its start, in the tenant's zone or in UTC.
    pub start: DateTime<FixedOffset>,
    /// Its stop.
    pub stop: DateTime<FixedOffset>,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// The source's name; its number where it isn't configured any more.
    pub source: String,
    /// The media's id in the source.
    pub media: String,
    /// `inbound`, `outbound`, `direct_agent_access`.
    pub call_type: Option<String>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// The customer's number.
    pub customer_number: Option<String>,
    /// The number that was dialled.
    pub called_number: Option<String>,
    /// The queue's name.
    pub queue_name: Option<String>,
    /// The source's id of the call.
    pub transaction_id: Option<String>,
}

/// Which recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its uid, or its file name with or without its folder.
    pub recording: String,
    /// The tenant's name, where several have a recording of that name.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Times are told in UTC.
    #[serde(default)]
    pub utc: bool,
}

/// All that is known about a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingReport {
    /// As in a list.
    #[serde(flatten)]
    pub row: RecordingRow,
    /// What was fixed when it got its name; `None` without one.
    pub published: Option<PublishedReport>,
    /// What its source told of the medium last; `None` until it has, after the catalog was rebuilt.
    pub told: Option<ToldReport>,
    /// Until when facts are waited for.
    pub waits_until: Option<DateTime<FixedOffset>>,
    /// What facts say about it, by key.
    pub values: BTreeMap<String, ValueReport>,
    /// The facts that belong to it, the winning ones first.
    pub facts: Vec<FactsReport>,
    /// That its personal values were erased.
    pub erased: Option<ErasedReport>,
}

/// What was fixed at publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedReport {
    /// The root index that lists it.
    pub root_index: String,
    /// Its number in the tenant's order of publication.
    pub publication: u64,
    /// The modification time that clients see.
    pub modified: DateTime<FixedOffset>,
    /// The media's version that is served.
    pub version: String,
    /// Bytes at its beginning that are served in place of the stored ones.
    pub patched_bytes: u64,
}

/// What a source told of a medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldReport {
    /// Its version.
    pub version: String,
    /// Bytes.
    pub size: u64,
    /// IANA media type.
    pub media_type: String,
    /// `available`, `growing`, `uploading`, `archived`, `failed`.
    pub state: String,
    /// Start, as far as the medium alone tells one.
    pub start: Option<DateTime<FixedOffset>>,
    /// Last change of the content.
    pub changed: Option<DateTime<FixedOffset>>,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// The keys that join it to facts.
    pub keys: Vec<KeyReport>,
}

/// A key that media and facts have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// `recording_uuid`, `object_key`, `contact_id`, `conversation_id`.
    pub kind: String,
    /// The value.
    pub value: String,
}

/// What facts say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueReport {
    /// The value.
    pub value: String,
    /// The id of the facts that it comes from; `None` where the source has taken it back since.
    pub from: Option<String>,
}

/// Facts as a source told them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsReport {
    /// Their id in the source.
    pub id: String,
    /// The greater one wins.
    pub revision: u64,
    /// The source has withdrawn them.
    pub gone: bool,
    /// The keys that join them to media.
    pub keys: Vec<KeyReport>,
    /// Key and value.
    pub values: BTreeMap<String, String>,
}

/// That something was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedReport {
    /// When.
    pub at: DateTime<FixedOffset>,
    /// By whom.
    pub by: String,
    /// Why, in the words of who did it.
    pub reason: Option<String>,
}

/// What is to be erased, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// See [`ShowRequest::recording`].
    pub recording: String,
    /// See [`ShowRequest::tenant`].
    #[serde(default)]
    pub tenant: Option<String>,
    /// Why: 1 to 1000 characters. Not needed for a dry run.
    #[serde(default)]
    pub reason: String,
    /// Only tell what would be erased.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was erased, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraseReport {
    /// The tenant's name.
    pub tenant: String,
    /// The recording.
    pub uid: Uuid,
    /// Folder and name; `None` without a name.
    pub path: Option<String>,
    /// Nothing was changed.
    pub dry_run: bool,
    /// The erasure before this one.
    pub before: Option<ErasedReport>,
    /// There was something to erase.
    pub needed: bool,
    /// Keys of the values that are erased.
    pub values: Vec<String>,
    /// Ids of the facts that are erased, now and whenever they are told again.
    pub facts: Vec<String>,
    /// Facts that stay for other recordings; those aren't erased.
    pub shared: Vec<SharedReport>,
    /// Index files that are written anew.
    pub indexes: Vec<String>,
    /// They aren't yet. The gateway goes on with it, also after a restart.
    pub owed: bool,
}

/// Facts that several recordings have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedReport {
    /// Their id.
    pub facts: String,
    /// The other recordings that aren't erased.
    pub recordings: Vec<Uuid>,
}

/// Which root indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexListRequest {
    /// The tenant's name; without one, all tenants.
    pub tenant: Option<String>,
    /// The first date.
    pub from: Option<String>,
    /// The last date.
    pub until: Option<String>,
    /// Rows of the answer: 1 to 1000.
    pub limit: Option<u32>,
    /// Goes on after an earlier answer.
    pub after: Option<String>,
}

/// A page of root indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexListAnswer {
    /// The indexes.
    pub indexes: Vec<IndexReport>,
    /// For the next request; `None` where nothing follows.
    pub after: Option<String>,
}

/// A root index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexReport {
    /// The tenant's name.
    pub tenant: String,
    /// The date in the tenant's zone.
    pub day: NaiveDate,
    /// Recordings in it.
    pub rows: u64,
    /// The generation that clients see; `None` where none is published yet.
    pub generation: Option<u64>,
    /// Its bytes.
    pub length: u64,
    /// Its time.
    pub modified: Option<DateTime<Utc>>,
    /// Published when every source had told all of the day.
    pub complete: bool,
    /// Whether it is shown while its day runs (`live_index`); then it isn't complete.
    #[serde(default)]
    pub running: bool,
    /// Since when it is behind what is known.
    pub changed: Option<DateTime<Utc>>,
    /// When it is to be published at the latest, or anew; `None` where nothing is owed.
    pub due: Option<DateTime<Utc>>,
    /// That time is over.
    pub overdue: bool,
}

/// Which index file of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexFileKind {
    /// `Index/I20160606.csv`
    #[default]
    Root,
    /// `S20160606/I20160606.csv`
    Brief,
    /// `S20160606/I20160606_version2.csv`
    Full,
    /// `S20160606/M20160606.csv`
    Media,
}

/// Which index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexShowRequest {
    /// The tenant's name, where there are several.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The date: of the tenant's zone for the root index, of UTC for a folder's.
    pub day: String,
    /// Which file.
    #[serde(default)]
    pub file: IndexFileKind,
}

/// An index that was opened: a generation that stays as it is, whatever is published meanwhile.
#[derive(Debug)]
pub struct IndexContent {
    /// The file. It may be longer than what counts.
    pub file: File,
    /// Bytes that count.
    pub length: u64,
}

/// Which indexes are to be written anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepublishRequest {
    /// The tenant's name, where there are several.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The first date, of the tenant's zone.
    pub from: String,
    /// The last date; without one, the first.
    #[serde(default)]
    pub until: Option<String>,
}

/// What was written anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepublishReport {
    /// The tenant's name.
    pub tenant: String,
    /// Index files and folders that are written.
    pub written: Vec<String>,
    /// Those that aren't yet. The gateway goes on with them, also after a restart.
    pub owed: Vec<String>,
    /// Root indexes that were never published: they come when their day is over and its sources have told it.
    pub unpublished: Vec<String>,
}

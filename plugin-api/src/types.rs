//! What a plugin tells the gateway, as safe Rust types. Their C forms are in [`crate::abi`].

use std::fmt;

/// One medium (an audio or video file, a transcript) as the storage has it now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// The medium's id in its source: stable, unique there in one spelling, 1 to 1024 bytes of UTF-8 without control
    /// characters. A medium that comes back under its old id is the same recording, with its old name.
    pub id: String,
    /// Which content this is: an etag, a version id, or modification time in nanoseconds and size.
    /// Two reads of the same id and version return the same bytes. A recording that is published keeps to its version:
    /// told with another one, it is served no longer.
    pub version: String,
    /// Bytes as stored, which are as many as are served.
    pub size: u64,
    /// IANA media type, for example `audio/wav`.
    pub media_type: String,
    /// Start of the recording, Unix milliseconds UTC, as far as the storage knows it.
    pub start_ms: Option<i64>,
    /// How exact `start_ms` is.
    pub start_precision: Precision,
    /// End of the recording, Unix milliseconds UTC.
    pub stop_ms: Option<i64>,
    /// Length of the audio in milliseconds, counted from its samples.
    pub duration_ms: Option<u64>,
    /// When the content last changed, Unix milliseconds UTC. The wait for facts begins here.
    pub changed_ms: i64,
    /// Whether it can be read now.
    pub state: MediaState,
    /// Why, where `state` is [`MediaState::Failed`]; empty otherwise.
    pub state_reason: String,
    /// The gateway's uid, where the storage keeps one (16 bytes, UUIDv7).
    pub uid: Option<[u8; 16]>,
    /// The name that the medium had in an earlier archive, `R201606060001170000.wav` or `R20160606000117.wav`. It is
    /// kept where no recording of the tenant has had it, if it tells the second (UTC) of `start_ms`, exact to the
    /// second, or of [`fact::STARTED_AT`]. With such a `start_ms` the medium is published under it without facts, after
    /// the wait for them. Once it has a name, this is not looked at any more.
    pub preferred_name: Option<String>,
    /// Bytes that are served in place of the first ones that are stored (a corrected WAV header).
    /// Never changes the length; at most 4096 bytes; empty where the stored bytes are served as they are.
    pub header_patch: Vec<u8>,
    /// Keys by which facts find this medium.
    pub keys: Vec<JoinKey>,
}

/// How exact a start time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
#[repr(u32)]
pub enum Precision {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// To the day.
    Day = 1,
    /// To the minute.
    Minute = 2,
    /// To the second or better: exact enough for a name.
    Second = 3,
}

/// Whether a medium can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum MediaState {
    /// Complete and readable.
    #[default]
    Available = 0,
    /// Still being written.
    Growing = 1,
    /// On its way into the storage.
    Uploading = 2,
    /// In colder storage; it has to be restored before it can be read.
    Archived = 3,
    /// Its processing failed; `state_reason` says why.
    Failed = 4,
}

/// The kind of a join key, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum JoinKind {
    /// The recording's own uuid.
    RecordingUuid = 1,
    /// The object's key or path in the storage.
    ObjectKey = 2,
    /// The contact that was recorded; several media may share it.
    ContactId = 3,
    /// The conversation that was recorded; several media may share it.
    ConversationId = 4,
}

/// A key that media and facts have in common.
///
/// Facts belong to every medium of the same source that has one of their keys, the same kind and the same value;
/// neither has to come first, and keys may change. Where several facts belong to a medium, each value is taken from
/// those that have it and are joined by the strongest kind; among these, from the greatest revision. At most 64 media
/// and 64 facts share one key: what is more is left out and reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JoinKey {
    /// What the value identifies.
    pub kind: JoinKind,
    /// The value, compared byte for byte.
    pub value: String,
}

/// What is known about a recording, apart from its medium. Told before the medium, after it, or again.
///
/// A correction is told with the same id and a revision that isn't smaller, and replaces all keys and values. Facts
/// that a scan doesn't tell any more stay as they were: what the source takes back is told with `gone`, the same id and
/// again a revision that isn't smaller. None of that changes the name of a recording that is published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Stable and unique in the source, 1 to 1024 bytes of UTF-8 without control characters.
    pub id: String,
    /// The greater one wins among facts of one id, whenever it comes; of the same one, the last that is told, and that
    /// two differ is reported. A counter or a time of the source; 0 where it has neither.
    pub revision: u64,
    /// The source has withdrawn these facts: their values don't count.
    pub gone: bool,
    /// Which media they belong to.
    pub keys: Vec<JoinKey>,
    /// Key and value; the keys that the gateway uses are in [`fact`], others are kept and shown.
    pub values: Vec<(String, String)>,
}

/// Keys of [`Facts::values`] that the gateway uses.
pub mod fact {
    /// Start of the recording: Unix milliseconds UTC, decimal. Exact: the name is made of it, and a medium that is
    /// available is published as soon as its facts have it.
    pub const STARTED_AT: &str = "started_at";
    /// End of the recording: Unix milliseconds UTC, decimal.
    pub const STOPPED_AT: &str = "stopped_at";
    /// Length in milliseconds, decimal; used where the medium doesn't tell its own.
    pub const DURATION_MS: &str = "duration_ms";
    /// `inbound`, `outbound` or `direct_agent_access`.
    pub const CALL_TYPE: &str = "call_type";
    /// Full name of the agent.
    pub const AGENT_NAME: &str = "agent_name";
    /// The customer's telephone number.
    pub const CUSTOMER_NUMBER: &str = "customer_number";
    /// The number or trunk over which the call came in.
    pub const PHONE_CHANNEL: &str = "phone_channel";
    /// The number that was dialled, on outbound calls.
    pub const CALLED_NUMBER: &str = "called_number";
    /// The case, digits only.
    pub const CASE_ID: &str = "case_id";
    /// The customer's account.
    pub const ACCOUNT: &str = "account";
    /// `inbound` or `outbound`, for calls that went through a queue.
    pub const QUEUE_TYPE: &str = "queue_type";
    /// Name of the queue.
    pub const QUEUE_NAME: &str = "queue_name";
    /// The call's id at its source.
    pub const TRANSACTION_ID: &str = "transaction_id";
    /// First free column.
    pub const EXTERNAL_VARIABLE_1: &str = "external_variable_1";
    /// Second free column.
    pub const EXTERNAL_VARIABLE_2: &str = "external_variable_2";
    /// Code that the agent chose before an outbound call.
    pub const OUTDIAL_CODE: &str = "outdial_code";
    /// Code that the agent chose after the call.
    pub const WRAP_UP_CODE: &str = "wrap_up_code";
}

/// One thing that a scan tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A medium is there, as described.
    Media(Media),
    /// The medium of this id is gone: a hint, the host asks [`Source::stat`](crate::Source::stat) before it believes
    /// it.
    MediaGone(String),
    /// Facts, or with `gone` their withdrawal.
    Facts(Facts),
}

/// Where a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanFrom<'a> {
    /// Tell everything.
    Full,
    /// Tell at least what has changed since this cursor, or go on with a scan that returned MORE.
    Since(&'a [u8]),
}

/// How a call of scan ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanEnd {
    /// Opaque, at most 4096 bytes, survives restarts of the gateway and the plugin.
    pub cursor: Vec<u8>,
    /// Whether all was told; otherwise the host calls again with `cursor`.
    pub complete: bool,
    /// No medium or fact of a recording that started before this (Unix milliseconds UTC) is still
    /// untold. `i64::MIN` where the plugin can't tell. The index of a day waits for it to pass the day's end, and is
    /// published incomplete without it.
    pub watermark_ms: i64,
}

/// What an instance can do, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Scans tell facts, not only media.
    pub facts: bool,
    /// How many calls may run at once; 0 leaves it to the host.
    pub max_concurrent_calls: u32,
    /// The size in bytes of reads that suits the storage best; 0 leaves it to the host.
    pub preferred_read_size: u32,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether the storage answers.
    pub reachable: bool,
    /// What is wrong and what to do about it; empty where nothing is.
    pub message: String,
    /// The storage's clock, Unix milliseconds UTC, where it has one of its own.
    pub storage_time_ms: Option<i64>,
}

/// What went wrong. The set is fixed by the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ErrorCode {
    /// There is no such medium.
    NotFound = 1,
    /// The storage refuses access.
    Permission = 2,
    /// Under retention at the storage.
    LockedRetention = 3,
    /// Under legal hold at the storage.
    LockedHold = 4,
    /// The medium has another version by now.
    Precondition = 5,
    /// An offset beyond the end.
    Range = 6,
    /// A bad argument or configuration.
    Invalid = 7,
    /// The plugin or its storage can't do this.
    Unsupported = 8,
    /// Larger than the storage takes.
    TooLarge = 9,
    /// The storage is full.
    NoSpace = 10,
    /// In use by somebody else; may be retried.
    Busy = 11,
    /// Asked too often; may be retried after the given time.
    RateLimited = 12,
    /// The storage can't be reached; may be retried.
    Unavailable = 13,
    /// Took too long; may be retried.
    Timeout = 14,
    /// The host cancelled the call.
    Cancelled = 15,
    /// The stored bytes are damaged.
    Corrupt = 16,
    /// In colder storage.
    Archived = 17,
    /// A defect of the plugin.
    Internal = 18,
    /// The plugin panicked.
    Panic = 19,
}

impl ErrorCode {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::RateLimited | Self::Unavailable | Self::Timeout)
    }

    /// The code that the ABI gives this number; `None` where it gives none.
    pub fn from_raw(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as i32 == code)
    }

    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::NotFound,
        Self::Permission,
        Self::LockedRetention,
        Self::LockedHold,
        Self::Precondition,
        Self::Range,
        Self::Invalid,
        Self::Unsupported,
        Self::TooLarge,
        Self::NoSpace,
        Self::Busy,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::Cancelled,
        Self::Corrupt,
        Self::Archived,
        Self::Internal,
        Self::Panic,
    ];
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// For the operator: what was wrong, where, and what to do. No secrets. Cut at 1000 bytes.
    pub message: String,
    /// Milliseconds after which a retry makes sense; 0 where unknown.
    pub retry_after_ms: u64,
}

impl Error {
    /// An error with a message for the operator.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

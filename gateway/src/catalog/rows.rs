//! Rows of the catalog's store. Each value begins with a format byte; a release that changes a format
//! reads the old one too.

use std::collections::BTreeMap;

use recgate_plugin_api::{JoinKey, Media, MediaState, Precision};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{CatalogError, keys::Place};

/// What is written. Formats differ in what stands at the end of rows: the second has [`Told::preferred_name`], the third
/// [`RootIndexRow::running`] and [`FactsRow::unmatched_since`].
const FORMAT: u8 = 3;
/// The formats before it.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

/// Encodes a row.
pub fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, CatalogError> {
    // Most rows are short. Growing and shrinking a heap block for each costs more than the rest.
    let mut short = [FORMAT; 1024];
    let tail = short.get_mut(1..).unwrap_or_default();
    match postcard::to_slice(row, tail).map(|body| body.len()) {
        Ok(length) => Ok(short.get(..=length).unwrap_or_default().to_vec()),
        Err(postcard::Error::SerializeBufferFull) => {
            postcard::to_extend(row, vec![FORMAT]).map_err(|error| CatalogError::Row(error.to_string()))
        }
        Err(error) => Err(CatalogError::Row(error.to_string())),
    }
}

/// Decodes a row.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CatalogError> {
    let body = body(bytes)?;
    let row = match bytes.first() {
        // What a later format has appended is absent: a zero byte, which rows without it leave unread.
        Some(&(FIRST | SECOND)) => postcard::from_bytes(&[body, &[0]].concat()),
        _ => postcard::from_bytes(body),
    };
    row.map_err(|error| CatalogError::Row(error.to_string()))
}

fn body(bytes: &[u8]) -> Result<&[u8], CatalogError> {
    match bytes.split_first() {
        Some((&(FIRST | SECOND | FORMAT), rest)) => Ok(rest),
        Some((other, _)) => Err(CatalogError::Row(format!("format {other}, which this release can't read"))),
        None => Err(CatalogError::Row("an empty value".into())),
    }
}

/// Whether a published recording can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// As published.
    Sound,
    /// Its media has vanished from the source.
    Missing,
    /// Its media has changed since it was published.
    Corrupt,
}

/// What listings need of a published recording; stands first in the row, so that they decode no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Whether it can be read.
    pub condition: Condition,
    /// Bytes that are served.
    pub size: u64,
    /// Stop time as it was at publication, Unix seconds UTC.
    pub modified: i64,
    /// Of its name.
    pub extension: String,
}

/// A published recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// See [`Listed`].
    pub listed: Listed,
    /// What was frozen at publication, besides size, modification time and name.
    pub frozen: Frozen,
    /// What facts may still change.
    pub details: Details,
}

impl Recording {
    /// The first part of an encoded [`Recording`].
    pub fn decode_listed(bytes: &[u8]) -> Result<Listed, CatalogError> {
        postcard::take_from_bytes(body(bytes)?)
            .map(|(listed, _)| listed)
            .map_err(|error| CatalogError::Row(error.to_string()))
    }
}

/// Fixed at publication for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The recording's immutable id.
    pub uid: [u8; 16],
    /// The local day whose root index lists it, days since 1970-01-01.
    pub local_day: i32,
    /// Its number in the tenant's order of publication.
    pub publication: u64,
    /// Where the media lies. Can change, the uid can't.
    pub source: u32,
    /// The media's id there.
    pub media: String,
    /// The version that is served under this name, and no other.
    pub version: String,
    /// Bytes served in place of the first ones stored.
    pub header_patch: Vec<u8>,
}

/// The cells of the index that facts fill.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Details {
    /// Start, Unix milliseconds UTC.
    pub start_ms: i64,
    /// Stop, Unix milliseconds UTC.
    pub stop_ms: i64,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// Facts by their keys (`recgate_plugin_api::fact`).
    pub values: BTreeMap<String, String>,
}

/// A medium as its source told it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRow {
    /// The recording's immutable id.
    pub uid: [u8; 16],
    /// Where the published recording stands; `None` while it has no name.
    pub place: Option<Place>,
    /// Until when facts are waited for, Unix milliseconds; `None` when nothing is waited for any more.
    pub due_ms: Option<i64>,
    /// Facts didn't come in time, and the source's rule makes that an orphan.
    pub orphan: bool,
    /// What the source told. Last, because it is what formats have added to.
    pub told: Told,
}

/// The part of [`Media`] that the catalog keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// See [`Media::version`]; empty until a source has told the medium (after a rebuild).
    pub version: String,
    /// Bytes.
    pub size: u64,
    /// IANA media type.
    pub media_type: String,
    /// Start, Unix milliseconds UTC, and how exact it is (`Precision` as number).
    pub start_ms: Option<i64>,
    /// `Precision` as number.
    pub start_precision: u32,
    /// Stop, Unix milliseconds UTC.
    pub stop_ms: Option<i64>,
    /// Length of the audio, milliseconds.
    pub duration_ms: Option<u64>,
    /// Last change of the content, Unix milliseconds UTC.
    pub changed_ms: i64,
    /// `MediaState` as number.
    pub state: u32,
    /// See [`Media::header_patch`].
    pub header_patch: Vec<u8>,
    /// Kind (as number) and value.
    pub keys: Vec<(u32, String)>,
    /// See [`Media::preferred_name`]. The first format ends before it.
    pub preferred_name: Option<String>,
}

impl Told {
    /// What the catalog keeps of a medium.
    pub fn new(media: &Media) -> Self {
        Self {
            version: media.version.clone(),
            size: media.size,
            media_type: media.media_type.clone(),
            start_ms: media.start_ms,
            start_precision: media.start_precision as u32,
            stop_ms: media.stop_ms,
            duration_ms: media.duration_ms,
            changed_ms: media.changed_ms,
            state: media.state as u32,
            header_patch: media.header_patch.clone(),
            keys: numbered(&media.keys),
            preferred_name: media.preferred_name.clone(),
        }
    }

    /// Whether it can be published: complete, wherever it lies.
    pub fn is_publishable(&self) -> bool {
        self.state == MediaState::Available as u32 || self.state == MediaState::Archived as u32
    }

    /// Whether its content is still on its way, so that no version of it says anything yet.
    pub fn is_unfinished(&self) -> bool {
        self.state == MediaState::Growing as u32 || self.state == MediaState::Uploading as u32
    }

    /// The start, if the medium alone tells the second of it.
    pub fn exact_start_ms(&self) -> Option<i64> {
        if self.start_precision == Precision::Second as u32 { self.start_ms } else { None }
    }

    /// The start, if the medium alone tells one.
    pub fn known_start_ms(&self) -> Option<i64> {
        if self.start_precision == Precision::Unknown as u32 { None } else { self.start_ms }
    }
}

/// Join keys as rows hold them.
pub fn numbered(keys: &[JoinKey]) -> Vec<(u32, String)> {
    keys.iter().map(|key| (key.kind as u32, key.value.clone())).collect()
}

/// Facts as the source told them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsRow {
    /// The greater one wins.
    pub revision: u64,
    /// Withdrawn by the source.
    pub gone: bool,
    /// Kind (as number) and value.
    pub keys: Vec<(u32, String)>,
    /// Key and value.
    pub values: Vec<(String, String)>,
    /// Where they have joined no medium yet: the time by which the oldest are told from the newest, Unix milliseconds UTC.
    pub unmatched_since: Option<i64>,
}

/// Who shares a join key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinRow {
    /// Ids of media.
    pub media: Vec<String>,
    /// Ids of facts.
    pub facts: Vec<String>,
}

/// A medium that waits for facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueRow {
    /// The source's id.
    pub source: u32,
    /// The media's id there.
    pub media: String,
}

/// A file of index rows that readers may see up to its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexFile {
    /// Part of the file's name; 0 where there is none yet. Greater than every earlier one.
    pub generation: u64,
    /// Bytes that are complete.
    pub length: u64,
    /// When this state was made, Unix seconds UTC.
    pub modified: i64,
}

/// A day folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FolderRow {
    /// Newest modification time of its recordings, Unix seconds UTC.
    pub newest: i64,
    /// WAVs, the brief columns.
    pub brief: IndexFile,
    /// WAVs, all columns.
    pub full: IndexFile,
    /// Other media, all columns; none while there are none.
    pub media: IndexFile,
    /// Rows have changed in place since the files were written (Unix milliseconds of the first change).
    pub dirty_since_ms: Option<i64>,
}

/// The root index of a local day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootIndexRow {
    /// The published generation.
    pub file: IndexFile,
    /// Rows in it.
    pub rows: u64,
    /// What has been published or changed since (Unix milliseconds of the first).
    pub dirty_since_ms: Option<i64>,
    /// Published before every source had passed the day's end.
    pub incomplete: bool,
    /// Published while its day was running, and not yet as that of a day that is over. Additions are appended at once.
    pub running: bool,
}

/// What is remembered of a source's scans.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceRow {
    /// Nothing that started before this is still untold, Unix milliseconds UTC.
    pub watermark_ms: i64,
    /// End of the last complete full scan, Unix milliseconds UTC.
    pub scanned_ms: i64,
    /// Media that it told.
    pub media: u64,
}

/// A tenant's counters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantRow {
    /// The next publication's number.
    pub next_publication: u64,
    /// The local day (days since 1970-01-01) up to which every day, with or without a recording, has a row for
    /// its root index. It begins with the day on which the tenant was first served.
    pub owed_until: i32,
    /// How many recordings there are.
    pub counts: Counts,
    /// The form of its names, fixed when the tenant was first served.
    pub short_names: Option<bool>,
}

/// How many recordings a tenant has, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Without a name, orphans included.
    pub learned: u64,
    /// With a name, whatever has become of their media.
    pub published: u64,
    /// Without a name, because no facts came in time.
    pub orphans: u64,
    /// Published, and their media has vanished.
    pub missing: u64,
    /// Published, and their media has changed.
    pub corrupt: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    /// A medium's row as the first release wrote it, and as it is written now. Catalogs live for decades: both must
    /// always be readable.
    const FIRST_RELEASE: &str = "013031323334353637383961626364656601fc88024da8460190d39bb0a4550003352d36ecb5030961756469\
        6f2f7761760190d39bb0a455030001ac1b010004524946460102215332303136303630362f52323031363036\
        3036303030313137393030302e776176";
    const SECOND_FORMAT: &str = "023031323334353637383961626364656601fc88024da8460190d39bb0a4550003352d36ecb5030961756469\
        6f2f7761760190d39bb0a455030001ac1b010004524946460102215332303136303630362f52323031363036\
        3036303030313137393030302e7761760117523230313630363036303030313137393030302e776176";

    fn row() -> MediaRow {
        MediaRow {
            uid: *b"0123456789abcdef",
            place: Some(Place { day: 16_958, second: 77, sequence: 9000 }),
            due_ms: Some(1_465_171_277_000),
            orphan: false,
            told: Told {
                version: "5-6".into(),
                size: 56_044,
                media_type: "audio/wav".into(),
                start_ms: Some(1_465_171_277_000),
                start_precision: 3,
                stop_ms: None,
                duration_ms: Some(3500),
                changed_ms: -1,
                state: 0,
                header_patch: b"RIFF".to_vec(),
                keys: vec![(2, "S20160606/R201606060001179000.wav".into())],
                preferred_name: Some("R201606060001179000.wav".into()),
            },
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn media_of_each_format_are_read() {
        let mut first = row();
        first.told.preferred_name = None;
        assert_eq!(decode::<MediaRow>(&bytes(FIRST_RELEASE)).unwrap(), first);
        assert_eq!(decode::<MediaRow>(&bytes(SECOND_FORMAT)).unwrap(), row());
        let mut third = bytes(SECOND_FORMAT);
        third[0] = FORMAT;
        assert_eq!(encode(&row()).unwrap(), third);
    }

    /// Rows that the third format has added something to.
    #[test]
    fn what_an_older_format_does_not_have_is_absent() {
        let index = RootIndexRow { rows: 3, incomplete: true, ..RootIndexRow::default() };
        let facts = FactsRow {
            revision: 2,
            gone: false,
            keys: vec![(1, "k".into())],
            values: Vec::new(),
            unmatched_since: None,
        };
        for format in [FIRST, SECOND] {
            let older = |mut bytes: Vec<u8>| {
                assert_eq!(bytes.pop(), Some(0));
                bytes[0] = format;
                bytes
            };
            assert_eq!(decode::<RootIndexRow>(&older(encode(&index).unwrap())).unwrap(), index);
            assert_eq!(decode::<FactsRow>(&older(encode(&facts).unwrap())).unwrap(), facts);
        }
    }

    #[test]
    fn other_rows_are_alike_in_all_formats() {
        let folder = FolderRow { newest: 7, dirty_since_ms: Some(5), ..FolderRow::default() };
        let mut bytes = encode(&folder).unwrap();
        assert_eq!(decode::<FolderRow>(&bytes).unwrap(), folder);
        *bytes.first_mut().unwrap() = FIRST;
        assert_eq!(decode::<FolderRow>(&bytes).unwrap(), folder);
        for format in [SECOND, FORMAT] {
            *bytes.first_mut().unwrap() = format;
            assert_eq!(decode::<FolderRow>(&bytes).unwrap(), folder);
        }
        for other in [0, FORMAT + 1] {
            *bytes.first_mut().unwrap() = other;
            assert!(decode::<FolderRow>(&bytes).is_err(), "{other}");
        }
        assert!(decode::<FolderRow>(&[]).is_err());
    }
}

//! What a file in a day folder is told as.
//!
//! | the file | is told as |
//! | --- | --- |
//! | changed less than `growing_after` ago | growing |
//! | a WAV whose header says more than there is, or is incomplete, and changed less than an hour ago | growing: it is being copied |
//! | the same, quiet for longer | available, with a header patch |
//! | a right header, and whatever isn't WAV | available |
//! | called WAV, but not one, and quiet | failed, with the reason |
//! | a name whose time can't be | the same, with the day of its folder as start, and no name to keep |

use std::io;
use std::os::unix::fs::FileExt;

use recgate_plugin_api::{JoinKey, JoinKind, Media, MediaState, Precision};
use recgate_plugin_common::clock::Clock;
use recgate_plugin_common::folder::{Regular, Stamp};
use recgate_plugin_common::wav::{self, Header, Unreadable};

use crate::names::{self, FolderName, Id};

/// How long a WAV whose header was not finished may be quiet before that is how it was archived. Nothing waits for
/// such a file, and a copy over a slow network may be interrupted for a while.
const UNFINISHED_MS: i64 = 60 * 60 * 1000;

/// A medium as it was found.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) media: Media,
    /// For a medium that is growing: when its recording began, as far as that is known, Unix milliseconds.
    pub(crate) growing_since_ms: Option<i64>,
}

/// Reads the header of an open file and says what it is.
///
/// # Errors
/// Those of reading; a file whose content is bad is a medium in state `Failed`.
pub(crate) fn examine(path: &str, id: &Id<'_>, regular: &Regular, clock: Clock) -> io::Result<Seen> {
    let header = match id.medium.media_type {
        "audio/wav" => header(regular)?,
        _ => Ok(None),
    };
    // What was read counts only if the file stood still meanwhile.
    let stamp = Stamp::of(&regular.file.metadata()?);
    let moved = stamp.version() != regular.stamp.version();

    let changed_ms = stamp.changed_ms();
    let unfinished = match &header {
        Ok(header) => header.as_ref().is_some_and(|header| header.unfinished),
        Err((_, unfinished)) => *unfinished,
    };
    let growing = moved
        || clock.is_young(changed_ms)
        || (unfinished && clock.is_within(changed_ms, UNFINISHED_MS.max(clock.growing_after_ms)));
    let duration_ms = header.as_ref().ok().and_then(|header| Some(header.as_ref()?.duration_ms));

    let (start_ms, start_precision) = match (id.medium.start_ms, id.place) {
        (Some(start_ms), _) => (Some(start_ms), Precision::Second),
        (None, FolderName::Day(day)) if day.date().is_some() => (day.start_ms(), Precision::Day),
        (None, _) => (None, Precision::Unknown),
    };
    let stop_ms = match (id.medium.start_ms, duration_ms.map(i64::try_from)) {
        (Some(start_ms), Some(Ok(length))) => start_ms.checked_add(length),
        _ => None,
    };
    let keeps_name = start_precision == Precision::Second && id.medium.is_canonical && !id.medium.is_orphan;
    let folder = match id.place {
        FolderName::Day(day) => day.folder(),
        _ => id.folder.to_owned(),
    };
    let key = names::path(id.base, &folder, &id.medium.key);

    let mut media = Media {
        id: path.to_owned(),
        version: stamp.version(),
        size: stamp.size,
        media_type: id.medium.media_type.to_owned(),
        start_ms,
        start_precision,
        stop_ms,
        duration_ms,
        changed_ms,
        preferred_name: keeps_name.then(|| id.medium.key.clone()),
        keys: vec![JoinKey { kind: JoinKind::ObjectKey, value: key }],
        ..Media::default()
    };
    match header {
        _ if growing => media.state = MediaState::Growing,
        Ok(header) => media.header_patch = header.map(|header| header.patch).unwrap_or_default(),
        Err((reason, _)) => {
            media.state = MediaState::Failed;
            media.state_reason = reason;
        }
    }
    Ok(Seen { media, growing_since_ms: growing.then(|| start_ms.unwrap_or(changed_ms)) })
}

/// The header of a WAV, or why it has none, and whether that may still be written.
fn header(regular: &Regular) -> io::Result<Result<Option<Header>, (String, bool)>> {
    let read = |offset, buf: &mut [u8]| regular.file.read_at(buf, offset);
    match wav::examine(regular.stamp.size, &read) {
        Ok(header) => Ok(Ok(Some(header))),
        Err(Unreadable::Io(error)) => Err(error),
        Err(Unreadable::Content { reason, unfinished }) => Ok(Err((reason, unfinished))),
    }
}

//! What a file in the monitor folder is told as.
//!
//! | the file | is told as |
//! | --- | --- |
//! | changed less than `growing_after` ago | growing, unless its writer was seen to close it with a right header |
//! | sizes in its header wrong, or its header incomplete, and changed less than 5 minutes ago | growing |
//! | sizes wrong, quiet for longer (the PBX crashed, or a copy broke off) | available, with a header patch |
//! | a right header, also one with no samples (hung up at once) | available |
//! | no header, or not a WAV, and quiet | failed, with the reason |

use std::io;
use std::os::unix::fs::FileExt;

use recgate_plugin_api::{JoinKey, JoinKind, Media, MediaState, Precision};

use crate::folder::{Regular, Stamp};
use crate::names::Name;
use crate::wav::{self, Unreadable};

pub(crate) use recgate_plugin_common::clock::Clock;

/// How long a file whose header was not finished may be quiet before that is taken for a crash. Asterisk writes the
/// sizes when it closes the file and the header itself with the first full buffer, so they are wrong while it records.
const UNFINISHED_MS: i64 = 5 * 60 * 1000;

/// A medium as it was found.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) media: Media,
    /// For a medium that is growing: when its recording began at the latest, Unix milliseconds.
    pub(crate) running_since_ms: Option<i64>,
    /// For a medium that is growing: when it is complete unless it changes, Unix milliseconds.
    pub(crate) complete_ms: Option<i64>,
}

/// Reads the header of an open file and says what it is. `closed`: its writer was seen to close it as it is.
///
/// # Errors
/// Those of reading; a file whose content is bad is a medium in state `Failed`.
pub(crate) fn examine(
    id: &str,
    name: &Name,
    regular: &Regular,
    closed: bool,
    clock: Clock,
) -> io::Result<Seen> {
    let read = |offset, buf: &mut [u8]| regular.file.read_at(buf, offset);
    let header = match wav::examine(regular.stamp.size, &read) {
        Ok(header) => Ok(header),
        Err(Unreadable::Io(error)) => return Err(error),
        Err(Unreadable::Content { reason, unfinished }) => Err((reason, unfinished)),
    };
    // What was read counts only if the file stood still meanwhile.
    let stamp = Stamp::of(&regular.file.metadata()?);
    let moved = stamp.version() != regular.stamp.version();

    let changed_ms = stamp.changed_ms();
    let unfinished = match &header {
        Ok(header) => header.unfinished,
        Err((_, unfinished)) => *unfinished,
    };
    let finished = closed && header.is_ok() && !unfinished;
    let unfinished_for_ms = UNFINISHED_MS.max(clock.growing_after_ms);
    let growing = moved
        || (clock.is_young(changed_ms) && !finished)
        || (unfinished && clock.is_within(changed_ms, unfinished_for_ms));
    let complete_after_ms = if unfinished { unfinished_for_ms } else { clock.growing_after_ms };
    let complete_ms = growing.then(|| changed_ms.saturating_add(complete_after_ms));
    let duration_ms = header.as_ref().ok().map(|header| header.duration_ms);
    let began_ms = changed_ms.saturating_sub(signed(duration_ms.unwrap_or(0)));

    let mut media = Media {
        id: id.to_owned(),
        version: stamp.version(),
        size: stamp.size,
        media_type: "audio/wav".to_owned(),
        duration_ms,
        changed_ms,
        keys: keys(id, name),
        ..Media::default()
    };
    match name {
        // The record says when it started.
        Name::Recording { .. } => {}
        Name::Download { start_ms, .. } => {
            media.start_ms = Some(*start_ms);
            media.start_precision = Precision::Second;
        }
        // No record will ever come, so an estimate is told: the last write less the length. A pause or a copy
        // that didn't keep times makes it wrong, so it is never exact enough for a name.
        Name::Conference => {
            if duration_ms.is_some() {
                media.start_ms = Some(began_ms);
                media.start_precision = Precision::Minute;
            }
        }
    }
    match header {
        _ if growing => media.state = MediaState::Growing,
        Ok(header) => media.header_patch = header.patch,
        Err((reason, _)) => {
            media.state = MediaState::Failed;
            media.state_reason = reason;
        }
    }
    let running_since_ms = growing.then(|| stamp.born_ms.map_or(began_ms, |born| born.min(began_ms)));
    Ok(Seen { media, running_since_ms, complete_ms })
}

fn keys(id: &str, name: &Name) -> Vec<JoinKey> {
    let path = JoinKey { kind: JoinKind::ObjectKey, value: id.to_owned() };
    match name {
        Name::Recording { uuid } | Name::Download { uuid, .. } => {
            vec![JoinKey { kind: JoinKind::RecordingUuid, value: uuid.clone() }, path]
        }
        Name::Conference => vec![path],
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

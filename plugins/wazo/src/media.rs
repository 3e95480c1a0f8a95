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

/// How long a file whose header was not finished may be quiet before that is taken for a crash. Asterisk writes the
/// sizes when it closes the file and the header itself with the first full buffer, so they are wrong while it records.
const UNFINISHED_MS: i64 = 5 * 60 * 1000;
/// A last change further ahead of the gateway's clock than this says nothing about the file. Up to it, the storage's
/// clock is taken to run ahead, and the file to be growing until the gateway's clock has caught up.
const BELIEVABLE_SKEW_MS: i64 = 24 * 60 * 60 * 1000;

/// What decides whether a file is still being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Now, Unix milliseconds.
    pub(crate) now_ms: i64,
    /// Milliseconds without a change after which a file counts as complete.
    pub(crate) growing_after_ms: i64,
}

impl Clock {
    /// Whether something that last changed then may still be being written.
    pub(crate) fn is_young(self, changed_ms: i64) -> bool {
        self.is_within(changed_ms, self.growing_after_ms)
    }

    fn is_within(self, changed_ms: i64, limit_ms: i64) -> bool {
        let age = self.now_ms.saturating_sub(changed_ms);
        age >= -BELIEVABLE_SKEW_MS && age < limit_ms
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_never_keeps_a_file_growing_for_ever() {
        let clock = Clock { now_ms: 1_700_000_000_000, growing_after_ms: 10_000 };
        assert!(clock.is_young(clock.now_ms));
        assert!(clock.is_young(clock.now_ms - 9_999));
        assert!(!clock.is_young(clock.now_ms - 10_000));
        assert!(clock.is_young(clock.now_ms + 3_600_000), "the storage's clock is an hour ahead");
        assert!(!clock.is_young(clock.now_ms + BELIEVABLE_SKEW_MS + 1));
        assert!(!clock.is_young(i64::MAX));
        assert!(!clock.is_young(i64::MIN));
    }
}

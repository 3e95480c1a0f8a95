//! The names of files in a monitor folder.
//!
//! Three forms are recordings: `<recording uuid>.wav` (what MixMonitor writes), the name that the API gives a
//! download (`<start>UTC-<cdr id>-<recording uuid>.wav`), as archives keep it, and `conference-<id>.wav` (ConfBridge).
//! Case counts: `.WAV` is what Asterisk calls its GSM files.

use chrono::NaiveDateTime;

/// Characters of a uuid with its hyphens.
const UUID_LENGTH: usize = 36;
/// The stamp of a long name, UTC, truncated to the second (wazo-call-logd `database/models.py`).
const STAMP: &str = "%Y-%m-%dT%H_%M_%S";

/// A file name that is a recording's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// `<recording uuid>.wav`
    Recording {
        /// The recording's uuid, lower case.
        uuid: String,
    },
    /// `2021-05-14T17_47_16UTC-2060-5ea37d0b-0823-4d2b-a18c-b9082e551b50.wav`
    Download {
        /// The recording's uuid, lower case.
        uuid: String,
        /// Start, Unix milliseconds UTC, exact to the second.
        start_ms: i64,
    },
    /// `conference-<id>.wav`: it has no uuid, and no record ever names it.
    Conference,
}

impl Name {
    /// Reads a file name. `None` where it is no recording's, which includes everything that is not one component
    /// of a path.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name.contains(|c: char| c == '/' || c.is_control()) {
            return None;
        }
        let stem = name.strip_suffix(".wav")?;
        if let Some(id) = stem.strip_prefix("conference-") {
            return (!id.is_empty()).then_some(Self::Conference);
        }
        let (prefix, uuid) = stem.split_at_checked(stem.len().checked_sub(UUID_LENGTH)?)?;
        let uuid = recording_uuid(uuid)?;
        if prefix.is_empty() {
            return Some(Self::Recording { uuid });
        }
        let (stamp, cdr_id) = prefix.strip_suffix('-')?.split_once("UTC-")?;
        if cdr_id.is_empty() || !cdr_id.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let start = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
        // The parser takes signs and missing zeros; the writer never makes them.
        if start.format(STAMP).to_string() != stamp {
            return None;
        }
        Some(Self::Download { uuid, start_ms: start.and_utc().timestamp_millis() })
    }
}

/// Reads a uuid in its hyphenated form and puts it in lower case.
pub(crate) fn recording_uuid(text: &str) -> Option<String> {
    let well_formed = text.len() == UUID_LENGTH
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    well_formed.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "5ea37d0b-0823-4d2b-a18c-b9082e551b50";

    #[test]
    fn the_three_forms_are_read() {
        assert_eq!(
            Name::parse("5EA37d0b-0823-4d2b-a18c-b9082e551b50.wav"),
            Some(Name::Recording { uuid: UUID.to_owned() })
        );
        assert_eq!(
            Name::parse(&format!("2021-05-14T17_47_16UTC-2060-{UUID}.wav")),
            Some(Name::Download { uuid: UUID.to_owned(), start_ms: 1_621_014_436_000 })
        );
        assert_eq!(Name::parse("conference-3001-x.wav"), Some(Name::Conference));
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            String::new(),
            ".wav".to_owned(),
            "conference-.wav".to_owned(),
            "conference-../x.wav".to_owned(),
            "conference-a\nb.wav".to_owned(),
            format!("{UUID}.WAV"),
            format!("{UUID}.wav.tmp"),
            format!("{UUID}x.wav"),
            format!("../{UUID}.wav"),
            format!("/{UUID}.wav"),
            UUID.replace('-', "") + ".wav",
            format!("x{UUID}.wav"),
            format!("2021-05-14T17_47_16UTC-{UUID}.wav"),
            format!("2021-05-14T17_47_16UTC--{UUID}.wav"),
            format!("2021-05-14T17_47_16UTC-20x0-{UUID}.wav"),
            format!("2021-13-14T17_47_16UTC-2060-{UUID}.wav"),
            format!("2021-5-14T17_47_16UTC-2060-{UUID}.wav"),
            format!("+021-05-14T17_47_16UTC-2060-{UUID}.wav"),
            "ééééééééééééééééééééé.wav".to_owned(),
        ] {
            assert_eq!(Name::parse(&name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_panics_and_none_that_is_read_leaves_its_folder(name in "(?s).{0,80}(\\.wav)?") {
            if Name::parse(&name).is_some() {
                prop_assert!(!name.contains('/') && name != "." && name != "..");
            }
        }
    }
}

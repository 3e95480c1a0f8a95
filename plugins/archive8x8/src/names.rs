//! The names of files and folders in an archive.
//!
//! | name | what |
//! | --- | --- |
//! | `S20160606` | the recordings of a UTC day |
//! | `R201606060001170000.wav` | a recording: UTC start, and a sequence that tells apart those of one second |
//! | `R20160606000117.wav` | the same without a sequence |
//! | `O201606060001170000.wav` | a recording that an earlier gateway could not place |
//! | `I20160606.csv`, `I20160606_version2.csv` | rows about recordings; `M20160606.csv` about those that are not WAV |
//!
//! Copies by way of other systems change the case of letters. What a name says doesn't depend on it; a medium's id is
//! spelled as its file is.

use chrono::{Days, NaiveDate};

/// Digits of a name's start.
const STAMP_DIGITS: usize = 14;
/// The folder of an earlier gateway's orphans.
const ORPHANS: &str = "Orphans";
/// The folder of the root indexes.
const INDEX: &str = "Index";

/// Extensions of media, with their media types.
const MEDIA_TYPES: [(&str, &str); 15] = [
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/opus"),
    ("webm", "video/webm"),
    ("mp4", "video/mp4"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("flac", "audio/flac"),
    ("wma", "audio/x-ms-wma"),
    ("amr", "audio/amr"),
    ("gsm", "audio/x-gsm"),
    ("mkv", "video/x-matroska"),
    ("json", "application/json"),
];

/// What the name of a file in a day folder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A recording.
    Medium(Medium),
    /// A file with rows about recordings.
    Index(IndexKind),
    /// A recording's name but for the extension, which no medium has.
    UnknownExtension,
    /// Something else.
    Other,
}

/// The name of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Medium {
    /// The name in its usual case, by which rows and files find each other.
    pub(crate) key: String,
    /// Start in Unix milliseconds UTC, exact to the second; `None` where the digits are no time of the years 1970
    /// to 9999.
    pub(crate) start_ms: Option<i64>,
    /// The sequence is spelled as the layout spells it, so the name can be kept.
    pub(crate) is_canonical: bool,
    /// `O`: an orphan of an earlier gateway, whose name was never one of a recording.
    pub(crate) is_orphan: bool,
    /// IANA media type, by the extension.
    pub(crate) media_type: &'static str,
}

impl Medium {
    /// The day that its digits name.
    pub(crate) fn day(&self) -> Option<Digits> {
        self.key.get(1..9).and_then(Digits::parse)
    }
}

/// A kind of index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexKind {
    /// `I20160606.csv`: in a day folder the first columns only, in `Index` all.
    Plain,
    /// `I20160606_version2.csv`, `M20160606.csv`: all columns.
    Full,
}

/// A UTC day or a date as the eight digits of a name: 20160606. Any digits, so that a folder whose date doesn't exist
/// has one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digits(pub(crate) u32);

impl Digits {
    fn parse(text: &str) -> Option<Self> {
        (text.len() == 8 && is_digits(text)).then(|| text.parse().ok().map(Self)).flatten()
    }

    /// The date in the years 1970 to 9999.
    pub(crate) fn date(self) -> Option<NaiveDate> {
        let year = i32::try_from(self.0 / 10_000).ok().filter(|year| *year >= 1970)?;
        NaiveDate::from_ymd_opt(year, self.0 / 100 % 100, self.0 % 100)
    }

    /// The first millisecond of the UTC day.
    pub(crate) fn start_ms(self) -> Option<i64> {
        Some(self.date()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
    }

    /// The digits so many days later, or, where these are no date, as many numbers later.
    pub(crate) fn plus(self, days: u32) -> Self {
        let later = self.date().and_then(|date| date.checked_add_days(Days::new(u64::from(days))));
        let digits = later.and_then(|date| date.format("%Y%m%d").to_string().parse().ok());
        Self(digits.unwrap_or_else(|| self.0.saturating_add(days)))
    }

    /// The name of this day's folder.
    pub(crate) fn folder(self) -> String {
        format!("S{:08}", self.0)
    }
}

/// What a folder is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderName {
    /// `S20160606`
    Day(Digits),
    /// `Index`
    Index,
    /// `Orphans`
    Orphans,
    /// Something else, which may hold an archive.
    Other,
}

impl FolderName {
    pub(crate) fn parse(name: &str) -> Self {
        if let Some(digits) = name.strip_prefix(['S', 's']).and_then(Digits::parse) {
            Self::Day(digits)
        } else if name.eq_ignore_ascii_case(INDEX) {
            Self::Index
        } else if name.eq_ignore_ascii_case(ORPHANS) {
            Self::Orphans
        } else {
            Self::Other
        }
    }
}

impl FileName {
    /// Reads a file's name.
    pub(crate) fn parse(name: &str) -> Self {
        if let Some((_, kind)) = parse_index(name) {
            return Self::Index(kind);
        }
        let Some((stem, extension)) = name.split_once('.') else { return Self::Other };
        let Some((letter, digits)) = split_letter(stem) else { return Self::Other };
        if !matches!(letter, 'R' | 'O') || digits.len() < STAMP_DIGITS || !is_digits(digits) {
            return Self::Other;
        }
        let extension = extension.to_ascii_lowercase();
        let Some((_, media_type)) = MEDIA_TYPES.iter().find(|(known, _)| *known == extension) else {
            return Self::UnknownExtension;
        };
        Self::Medium(Medium {
            key: format!("{letter}{digits}.{extension}"),
            start_ms: digits.get(..STAMP_DIGITS).and_then(start_ms),
            is_canonical: digits.get(STAMP_DIGITS..).is_some_and(is_canonical_sequence),
            is_orphan: letter == 'O',
            media_type,
        })
    }

    /// Reads the name of a recording.
    pub(crate) fn medium(name: &str) -> Option<Medium> {
        match Self::parse(name) {
            Self::Medium(medium) => Some(medium),
            _ => None,
        }
    }
}

/// The date and kind of an index file.
pub(crate) fn parse_index(name: &str) -> Option<(Digits, IndexKind)> {
    let (stem, extension) = name.split_once('.')?;
    if !extension.eq_ignore_ascii_case("csv") {
        return None;
    }
    let (letter, rest) = split_letter(stem)?;
    let (digits, rest) = rest.split_at_checked(8)?;
    let kind = match (letter, rest) {
        ('I', "") => IndexKind::Plain,
        ('I', rest) if rest.eq_ignore_ascii_case("_version2") => IndexKind::Full,
        ('M', "") => IndexKind::Full,
        _ => return None,
    };
    Some((Digits::parse(digits)?, kind))
}

/// The parts of a medium's id, which is its path: `S20160606/R….wav`, with the archive's own folder before it where
/// that isn't the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    pub(crate) base: Option<&'a str>,
    pub(crate) folder: &'a str,
    pub(crate) file: &'a str,
    pub(crate) medium: Medium,
    pub(crate) place: FolderName,
}

impl<'a> Id<'a> {
    /// Reads an id. `None` where no scan tells such a one.
    pub(crate) fn parse(id: &'a str) -> Option<Self> {
        let mut parts = id.rsplitn(3, '/');
        let (file, folder, base) = (parts.next()?, parts.next()?, parts.next());
        if base.is_some_and(|base| !is_base(base)) {
            return None;
        }
        let place = FolderName::parse(folder);
        if !matches!(place, FolderName::Day(_) | FolderName::Orphans) {
            return None;
        }
        Some(Self { base, folder, file, medium: FileName::medium(file)?, place })
    }
}

/// Whether a folder of the root may hold an archive: it has an ordinary name and no meaning of its own.
pub(crate) fn is_base(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name != "lost+found"
        && FolderName::parse(name) == FolderName::Other
        && !name.contains(|c: char| c == '/' || is_unprintable(c))
}

/// What ids and join keys must not hold.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path of an archive: its folder in the root, if any, and what lies there.
pub(crate) fn path(base: Option<&str>, folder: &str, file: &str) -> String {
    match base {
        Some(base) => format!("{base}/{folder}/{file}"),
        None => format!("{folder}/{file}"),
    }
}

fn split_letter(stem: &str) -> Option<(char, &str)> {
    let mut chars = stem.chars();
    let letter = chars.next()?.to_ascii_uppercase();
    Some((letter, chars.as_str()))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Unix milliseconds of `yyyymmddHHMMSS`.
fn start_ms(stamp: &str) -> Option<i64> {
    let (day, time) = stamp.split_at_checked(8)?;
    let part = |range| time.get(range).and_then(|part: &str| part.parse::<u32>().ok());
    // From 60 on there are no seconds: Unix time knows no leap seconds, and chrono would take one.
    let seconds = part(4..6).filter(|seconds| *seconds < 60)?;
    let at = Digits::parse(day)?.date()?.and_hms_opt(part(0..2)?, part(2..4)?, seconds)?;
    Some(at.and_utc().timestamp_millis())
}

/// Four digits, more without a leading zero, or none; what the gateway can count.
fn is_canonical_sequence(digits: &str) -> bool {
    match digits.len() {
        0 | 4 => true,
        5.. => !digits.starts_with('0') && digits.parse::<u32>().is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn medium(name: &str) -> Medium {
        FileName::medium(name).unwrap_or_else(|| panic!("{name}: {:?}", FileName::parse(name)))
    }

    #[test]
    fn names_of_recordings_are_read_in_every_form() {
        for (name, key, start_ms) in [
            ("R202103101740420023.wav", "R202103101740420023.wav", Some(1_615_398_042_000)),
            ("R201606060001170000.wav", "R201606060001170000.wav", Some(1_465_171_277_000)),
            ("R20160606000117.wav", "R20160606000117.wav", Some(1_465_171_277_000)),
            ("r201606060001170001.WAV", "R201606060001170001.wav", Some(1_465_171_277_000)),
            ("R2016060600011710000.mp3", "R2016060600011710000.mp3", Some(1_465_171_277_000)),
            ("R197001010000000000.wav", "R197001010000000000.wav", Some(0)),
        ] {
            let medium = medium(name);
            assert_eq!((medium.key.as_str(), medium.start_ms), (key, start_ms), "{name}");
            assert!(medium.is_canonical && !medium.is_orphan, "{name}");
        }
        let orphan = medium("O201606061203000000.wav");
        assert!(orphan.is_orphan && orphan.start_ms.is_some());
        assert_eq!(medium("R201606060001170000.opus").media_type, "audio/opus");
    }

    #[test]
    fn names_that_lie_are_told_as_far_as_they_can_be() {
        for name in [
            "R201613400001170000.wav",
            "R201606062401170000.wav",
            "R201606060060170000.wav",
            "R201606062359600000.wav",
            "R201602300001170000.wav",
            "R196912312359590000.wav",
        ] {
            assert_eq!(medium(name).start_ms, None, "{name}");
        }
        for name in [
            "R201606060001171.wav",
            "R2016060600011700000.wav",
            "R20160606000117012.wav",
            "R201606060001174294967296.wav",
        ] {
            let medium = medium(name);
            assert!(!medium.is_canonical && medium.start_ms.is_some(), "{name}");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        for name in [
            "",
            ".",
            "R.wav",
            "R2016060600011.wav",
            "notes.txt",
            "R20160606000117",
            ".R201606060001170000.wav",
            "XR201606060001170000.wav",
            "R20160606 00117.wav",
            "R２0160606000117.wav",
            "I2016060.csv",
            "I20160606_version3.csv",
            "M20160606_version2.csv",
            "éR20160606000117.wav",
        ] {
            assert_eq!(FileName::parse(name), FileName::Other, "{name:?}");
        }
        for name in ["R201606060001170000.wav.part", "R201606060001170000.", "R201606060001170000.csv"] {
            assert_eq!(FileName::parse(name), FileName::UnknownExtension, "{name:?}");
        }
        assert_eq!(FileName::parse("I20160606.csv"), FileName::Index(IndexKind::Plain));
        assert_eq!(FileName::parse("i20160606_Version2.CSV"), FileName::Index(IndexKind::Full));
        assert_eq!(FileName::parse("M20160606.csv"), FileName::Index(IndexKind::Full));
    }

    #[test]
    fn folders_are_told_apart() {
        assert_eq!(FolderName::parse("S20160606"), FolderName::Day(Digits(20_160_606)));
        assert_eq!(FolderName::parse("s20161340"), FolderName::Day(Digits(20_161_340)));
        assert_eq!(FolderName::parse("INDEX"), FolderName::Index);
        assert_eq!(FolderName::parse("Orphans"), FolderName::Orphans);
        for name in ["S2016060", "S201606060", "2016", "S2016-6-6", "Sé160606", ""] {
            assert_eq!(FolderName::parse(name), FolderName::Other, "{name:?}");
        }
        assert_eq!(Digits(20_161_340).date(), None);
        assert_eq!(Digits(20_161_231).plus(1), Digits(20_170_101));
        assert_eq!(Digits(20_161_399).plus(2), Digits(20_161_401));
        assert_eq!(Digits(10_101).folder(), "S00010101");
    }

    #[test]
    fn an_id_is_a_path_within_the_archive() {
        let id = Id::parse("2016/S20160606/R201606060001170000.wav").unwrap();
        assert_eq!((id.base, id.folder), (Some("2016"), "S20160606"));
        assert!(Id::parse("Orphans/O201606060001170000.wav").is_some());
        for id in [
            "",
            "R201606060001170000.wav",
            "/R201606060001170000.wav",
            "S20160606/notes.txt",
            "S20160606/I20160606.csv",
            "Index/R201606060001170000.wav",
            "../S20160606/R201606060001170000.wav",
            "/S20160606/R201606060001170000.wav",
            "a/b/S20160606/R201606060001170000.wav",
            "S20160605/S20160606/R201606060001170000.wav",
            "S20160606/../R201606060001170000.wav",
        ] {
            assert_eq!(Id::parse(id), None, "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_has_a_verdict(name in "(?s)[RrOoIiMmSs]?[0-9]{0,26}.{0,12}(\\.[a-zA-Z0-9]{0,5})?") {
            FolderName::parse(&name);
            if let FileName::Medium(medium) = FileName::parse(&name) {
                prop_assert!(!name.contains('/'));
                let again = FileName::medium(&medium.key).unwrap();
                prop_assert_eq!(&again, &medium, "the key says what the name says");
                if let Some(ms) = medium.start_ms {
                    let at = chrono::DateTime::from_timestamp_millis(ms).unwrap();
                    prop_assert_eq!(at.format("%Y%m%d%H%M%S").to_string(), &medium.key[1..15]);
                }
            }
        }

        #[test]
        fn no_id_leaves_the_archive(id in "([a.]{0,3}/)?(S20160606|Orphans|\\.\\.)?/?[R.]{1,2}[0-9]{14}\\.wav") {
            if let Some(parsed) = Id::parse(&id) {
                for part in [parsed.base.unwrap_or("x"), parsed.folder, parsed.file] {
                    prop_assert!(!part.is_empty() && part != "." && part != ".." && !part.contains('/'));
                }
            }
        }
    }
}

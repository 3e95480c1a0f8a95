//! The canonical file names of recordings.
//!
//! `R` + `yyyymmdd` + `HHMMSS` + sequence + `.` + extension, in UTC, as 8x8 Contact Center names its files (the
//! sample `R202103101740420023.wav` of its storage documentation). The sequence has four digits; past 9999 it has
//! as many as it needs.

use std::{fmt, str};

use serde::{Deserialize, Serialize};

use super::day::{UtcDay, UtcSecond};

/// How a tenant's names are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameForm {
    /// Always with the sequence: `R201606060001170000.wav`.
    #[default]
    Long,
    /// Sequence 0000 without its digits: `R20160606000117.wav`.
    Short,
}

/// What a recording's file name says.
///
/// The sequence is unique per tenant and second, whatever the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordingName {
    /// The recording's start.
    pub second: UtcSecond,
    /// What tells apart recordings of the same second, from 0.
    pub sequence: u32,
    /// What kind of media it is.
    pub extension: Extension,
}

impl RecordingName {
    /// The name as a tenant with this form sees it.
    pub fn text(&self, form: NameForm) -> String {
        let day = self.second.day();
        let second = self.second.second_of_day();
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let extension = self.extension;
        match (form, self.sequence) {
            (NameForm::Short, 0) => format!("R{day}{hour:02}{minute:02}{second:02}.{extension}"),
            (_, sequence) => format!("R{day}{hour:02}{minute:02}{second:02}{sequence:04}.{extension}"),
        }
    }

    /// What a name says; `None` for anything that isn't the name of a recording.
    ///
    /// Both spellings of sequence 0 are accepted whatever the tenant's form is, so that scripts made for one form
    /// work with the other; only [`Self::text`] of the tenant's own form is listed. No other second spelling of a
    /// name is accepted: no upper case, no zeros before a sequence of more than four digits.
    pub fn parse(name: &str, form: NameForm) -> Option<Self> {
        // A third form must decide here what it accepts.
        let (NameForm::Long | NameForm::Short) = form;
        let (digits, extension) = name.strip_prefix('R')?.split_once('.')?;
        let extension = Extension::parse(extension).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let day = UtcDay::parse_digits(digits.get(..8)?)?;
        let second = UtcSecond::from_parts(day, parse_time(digits.get(8..14)?)?)?;
        let sequence = parse_sequence(digits.get(14..)?)?;
        Some(Self { second, sequence, extension })
    }
}

/// The second of the day of `HHMMSS`; 23:59:60 is none, Unix time knows no leap seconds.
fn parse_time(digits: &str) -> Option<u32> {
    let part = |range| digits.get(range).and_then(|part: &str| part.parse::<u32>().ok());
    let (hour, minute, second) = (part(0..2)?, part(2..4)?, part(4..6)?);
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

fn parse_sequence(digits: &str) -> Option<u32> {
    match digits.len() {
        0 => Some(0),
        4 => digits.parse().ok(),
        5.. if !digits.starts_with('0') => digits.parse().ok(),
        _ => None,
    }
}

/// A file name's extension: one to eight of `a` to `z` and `0` to `9`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Extension([u8; Self::LONGEST]);

impl Extension {
    /// RIFF WAVE, the one kind that day indexes list.
    pub const WAV: Self = Self(*b"wav\0\0\0\0\0");
    const LONGEST: usize = 8;

    /// Checks an extension, given without its dot.
    ///
    /// # Errors
    ///
    /// The text is empty, longer than eight characters, or has others than `a` to `z` and `0` to `9`.
    pub fn parse(text: &str) -> Result<Self, ExtensionError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = [0; Self::LONGEST];
        match bytes.get_mut(..text.len()) {
            Some(target) if !text.is_empty() && text.bytes().all(allowed) => {
                target.copy_from_slice(text.as_bytes());
                Ok(Self(bytes))
            }
            _ => Err(ExtensionError),
        }
    }

    /// The usual extension of a media type (RFC 6838), whose parameters and case are ignored; `None` for a type that
    /// isn't known here.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let text = match essence.as_str() {
            "audio/wav" | "audio/wave" | "audio/x-wav" | "audio/vnd.wave" => return Some(Self::WAV),
            "audio/webm" | "video/webm" => "webm",
            "audio/mp4" | "video/mp4" => "mp4",
            "audio/ogg" | "video/ogg" | "application/ogg" | "audio/opus" => "ogg",
            "audio/mpeg" | "audio/mp3" => "mp3",
            "application/json" => "json",
            _ => return None,
        };
        Self::parse(text).ok()
    }

    /// The extension without its dot.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::LONGEST);
        // ASCII by construction.
        self.0.get(..length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Whether the media is WAV: the kind that day indexes list.
    pub fn is_wav(&self) -> bool {
        *self == Self::WAV
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extension({self})")
    }
}

impl str::FromStr for Extension {
    type Err = ExtensionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Extension {
    type Error = ExtensionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Extension> for String {
    fn from(extension: Extension) -> Self {
        extension.as_str().to_owned()
    }
}

/// A text that can't be a file name's extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file name's extension must be one to eight of a to z and 0 to 9")]
pub struct ExtensionError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use NameForm::{Long, Short};

    fn name(sequence: u32) -> RecordingName {
        // 2016-06-06T00:01:17Z
        let second = UtcSecond::from_unix_s(1_465_171_277).unwrap();
        RecordingName { second, sequence, extension: Extension::WAV }
    }

    #[test]
    fn the_sequence_grows_past_four_digits() {
        for (sequence, text) in [
            (0, "R201606060001170000.wav"),
            (1, "R201606060001170001.wav"),
            (9_999, "R201606060001179999.wav"),
            (10_000, "R2016060600011710000.wav"),
            (u32::MAX, "R201606060001174294967295.wav"),
        ] {
            assert_eq!(name(sequence).text(Long), text);
            for form in [Long, Short] {
                assert_eq!(RecordingName::parse(text, form), Some(name(sequence)), "{text}");
            }
        }
    }

    #[test]
    fn the_short_form_leaves_out_sequence_zero_alone() {
        assert_eq!(name(0).text(Short), "R20160606000117.wav");
        assert_eq!(name(1).text(Short), "R201606060001170001.wav");
        for form in [Long, Short] {
            assert_eq!(RecordingName::parse("R20160606000117.wav", form), Some(name(0)));
        }
    }

    #[test]
    fn other_spellings_are_no_names() {
        for text in [
            "",
            "R",
            "R.wav",
            ".wav",
            "R20160606000117",
            "R20160606000117.",
            "R20160606000117.WAV",
            "r20160606000117.wav",
            "O20160606000117.wav",
            "R2016060600011.wav",
            "R201606060001170.wav",
            "R2016060600011700.wav",
            "R20160606000117000.wav",
            "R2016060600011700000.wav",
            "R2016060600011700001.wav",
            "R201606060001174294967296.wav",
            "R2016060600011799999999999999999999.wav",
            "R20160606240000.wav",
            "R20160606006000.wav",
            "R20160606235960.wav",
            "R20160631000000.wav",
            "R19691231235959.wav",
            "R20160606000117.wav.wav",
            "R20160606000117..wav",
            "R20160606000117.wav ",
            "R20160606000117+001.wav",
            "R20160606 00117.wav",
            "R2016060600011７.wav",
            "R20160606000117.w/v",
            "R20160606000117.abcdefghi",
            "R20160606+0+0+1.wav",
            "RR20160606000117.wav",
            "R2016060600011é.wav",
        ] {
            for form in [Long, Short] {
                assert_eq!(RecordingName::parse(text, form), None, "{text:?}");
            }
        }
    }

    #[test]
    fn media_types_have_extensions() {
        for (media_type, extension) in [
            ("audio/wav", "wav"),
            ("audio/x-wav", "wav"),
            ("audio/wave", "wav"),
            ("audio/vnd.wave; codec=1", "wav"),
            ("Audio/WAV ;charset=x", "wav"),
            ("video/webm", "webm"),
            ("audio/webm;codecs=opus", "webm"),
            ("video/mp4", "mp4"),
            ("audio/mp4", "mp4"),
            ("audio/ogg", "ogg"),
            ("audio/opus", "ogg"),
            ("audio/mpeg", "mp3"),
            ("application/json", "json"),
        ] {
            assert_eq!(Extension::from_media_type(media_type).unwrap().as_str(), extension, "{media_type}");
        }
        for unknown in ["", ";", "audio", "audio/", "audio/wavx", "text/html", "application/octet-stream"] {
            assert_eq!(Extension::from_media_type(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn extensions_are_checked() {
        assert_eq!(Extension::parse("wav"), Ok(Extension::WAV));
        assert!(Extension::WAV.is_wav() && !Extension::parse("wav1").unwrap().is_wav());
        assert_eq!(Extension::parse("abcdefg8").unwrap().as_str(), "abcdefg8");
        for text in ["", "WAV", ".wav", "abcdefghi", "w v", "w\0", "é", "../x"] {
            assert_eq!(Extension::parse(text), Err(ExtensionError), "{text:?}");
            assert!(serde_json::from_str::<Extension>(&serde_json::to_string(text).unwrap()).is_err());
        }
        assert_eq!(serde_json::to_string(&Extension::WAV).unwrap(), "\"wav\"");
        assert_eq!(serde_json::from_str::<Extension>("\"wav\"").unwrap(), Extension::WAV);
    }

    fn any_name() -> impl Strategy<Value = RecordingName> {
        let sequence = prop_oneof![0..3_u32, 9_990..10_010_u32, any::<u32>()];
        (0..253_402_300_800_i64, sequence, "[a-z0-9]{1,8}").prop_map(|(unix_s, sequence, extension)| {
            RecordingName {
                second: UtcSecond::from_unix_s(unix_s).unwrap(),
                sequence,
                extension: Extension::parse(&extension).unwrap(),
            }
        })
    }

    fn any_form() -> impl Strategy<Value = NameForm> {
        prop_oneof![Just(Long), Just(Short)]
    }

    proptest! {
        #[test]
        fn a_name_reads_back_in_every_form(name in any_name(), shown in any_form(), read in any_form()) {
            prop_assert_eq!(RecordingName::parse(&name.text(shown), read), Some(name));
        }

        #[test]
        fn names_that_differ_are_spelled_apart(one in any_name(), other in any_name(), form in any_form()) {
            prop_assert_eq!(one == other, one.text(form) == other.text(form));
        }

        #[test]
        fn what_parses_is_spelled_alike(text in "R?(1[0-9]|20)[0-9]{2}[01][0-9]{9}[0-9]{0,12}\\.[a-zA-Z0-9]{1,9}") {
            if let Some(name) = RecordingName::parse(&text, Long) {
                prop_assert!(name.text(Long) == text || (name.sequence == 0 && name.text(Short) == text));
            }
        }

        #[test]
        fn any_text_has_a_verdict(text in "\\PC*", form in any_form()) {
            RecordingName::parse(&text, form);
            Extension::from_media_type(&text);
        }
    }
}

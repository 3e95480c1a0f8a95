//! UTC days and seconds, and a tenant's calendar dates.

use std::fmt;

use chrono::{Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

/// Seconds of a UTC day; Unix time knows no leap seconds.
const SECONDS_PER_DAY: i64 = 86_400;
/// 9999-12-31, the last date that eight digits can name, in days since 1970-01-01.
const LAST_DAY: i32 = 2_932_896;
/// 1969-12-31: the first instants of 1970 carry it in zones west of Greenwich.
const FIRST_LOCAL_DAY: i32 = -1;
/// The first Unix second after the year 9999.
pub(super) const END_UNIX_S: i64 = (LAST_DAY as i64 + 1) * SECONDS_PER_DAY;

/// A day in UTC, from 1970-01-01 to 9999-12-31: the day of an `S` folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct UtcDay(i32);

impl UtcDay {
    /// The day of an instant in Unix milliseconds; `None` outside the years 1970 to 9999.
    pub fn from_unix_ms(unix_ms: i64) -> Option<Self> {
        UtcSecond::from_unix_ms(unix_ms).map(UtcSecond::day)
    }

    /// The day with this number of days since 1970-01-01; `None` outside the years 1970 to 9999.
    pub fn from_number(number: i32) -> Option<Self> {
        (0..=LAST_DAY).contains(&number).then_some(Self(number))
    }

    /// Days since 1970-01-01.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The calendar date.
    pub fn date(self) -> NaiveDate {
        date(self.0)
    }

    /// The name of the day's folder: `S20160606`.
    pub fn folder_name(self) -> String {
        format!("S{self}")
    }

    /// The day of a folder's name, in exactly the spelling of [`Self::folder_name`].
    pub fn parse_folder(name: &str) -> Option<Self> {
        Self::parse_digits(name.strip_prefix('S')?)
    }

    /// The name of the folder's index with the brief columns: `I20160606.csv`.
    pub fn brief_index_name(self) -> String {
        format!("I{self}.csv")
    }

    /// The name of the folder's index with all columns: `I20160606_version2.csv`.
    pub fn full_index_name(self) -> String {
        format!("I{self}_version2.csv")
    }

    /// The name of the folder's index of media that is not WAV: `M20160606.csv`.
    pub fn media_index_name(self) -> String {
        format!("M{self}.csv")
    }

    /// The day's first instant in Unix seconds.
    pub fn start_unix_s(self) -> i64 {
        i64::from(self.0) * SECONDS_PER_DAY
    }

    /// The day of `yyyymmdd`.
    pub(super) fn parse_digits(digits: &str) -> Option<Self> {
        parse_date(digits).and_then(Self::from_number)
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_date(f, self.0)
    }
}

impl From<UtcDay> for i32 {
    fn from(day: UtcDay) -> Self {
        day.0
    }
}

impl TryFrom<i32> for UtcDay {
    type Error = &'static str;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        Self::from_number(number).ok_or("a UTC day must lie in the years 1970 to 9999")
    }
}

/// A calendar date in a tenant's zone: the date of a root index.
///
/// From 1969-12-31, which the first instants of 1970 carry west of Greenwich, to 9999-12-31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct LocalDay(i32);

impl LocalDay {
    /// The date with this number of days since 1970-01-01; `None` outside 1969-12-31 to 9999-12-31.
    pub fn from_number(number: i32) -> Option<Self> {
        (FIRST_LOCAL_DAY..=LAST_DAY).contains(&number).then_some(Self(number))
    }

    /// The calendar date as this type; `None` outside 1969-12-31 to 9999-12-31.
    pub fn from_date(date: NaiveDate) -> Option<Self> {
        Self::from_number(date.to_epoch_days())
    }

    /// Days since 1970-01-01; -1 for 1969-12-31.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The calendar date.
    pub fn date(self) -> NaiveDate {
        date(self.0)
    }

    /// The next date of the calendar, which the tenant's zone may skip.
    pub fn next(self) -> Option<Self> {
        Self::from_number(self.0 + 1)
    }

    /// The name of the date's root index: `I20160606.csv`.
    pub fn index_name(self) -> String {
        format!("I{self}.csv")
    }

    /// The date of a root index's name, in exactly the spelling of [`Self::index_name`].
    pub fn parse_index_name(name: &str) -> Option<Self> {
        parse_date(name.strip_prefix('I')?.strip_suffix(".csv")?).and_then(Self::from_number)
    }
}

impl fmt::Display for LocalDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_date(f, self.0)
    }
}

impl From<LocalDay> for i32 {
    fn from(day: LocalDay) -> Self {
        day.0
    }
}

impl TryFrom<i32> for LocalDay {
    type Error = &'static str;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        Self::from_number(number).ok_or("a local day must lie between 1969-12-31 and 9999-12-31")
    }
}

/// A whole second in UTC, in the years 1970 to 9999: the time that a recording's name carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct UtcSecond(i64);

impl UtcSecond {
    /// The second that an instant in Unix milliseconds lies in. Truncates, never rounds. `None` outside the years
    /// 1970 to 9999.
    pub fn from_unix_ms(unix_ms: i64) -> Option<Self> {
        Self::from_unix_s(unix_ms.div_euclid(1000))
    }

    /// The second with this Unix time; `None` outside the years 1970 to 9999.
    pub fn from_unix_s(unix_s: i64) -> Option<Self> {
        (0..END_UNIX_S).contains(&unix_s).then_some(Self(unix_s))
    }

    /// The second of a day; `None` from 86400 on.
    pub fn from_parts(day: UtcDay, second_of_day: u32) -> Option<Self> {
        let second = i64::from(second_of_day);
        (second < SECONDS_PER_DAY).then(|| Self(day.start_unix_s() + second))
    }

    /// Unix seconds.
    pub fn unix_s(self) -> i64 {
        self.0
    }

    /// The UTC day that the second lies in.
    pub fn day(self) -> UtcDay {
        // In range: the second lies in the years 1970 to 9999.
        UtcDay(i32::try_from(self.0 / SECONDS_PER_DAY).unwrap_or(LAST_DAY))
    }

    /// Seconds since the day's start, 0 to 86399.
    pub fn second_of_day(self) -> u32 {
        // In range: a remainder of a number that isn't negative.
        u32::try_from(self.0 % SECONDS_PER_DAY).unwrap_or(0)
    }
}

impl From<UtcSecond> for i64 {
    fn from(second: UtcSecond) -> Self {
        second.0
    }
}

impl TryFrom<i64> for UtcSecond {
    type Error = &'static str;

    fn try_from(unix_s: i64) -> Result<Self, Self::Error> {
        Self::from_unix_s(unix_s).ok_or("a UTC second must lie in the years 1970 to 9999")
    }
}

/// The date of a number that one of the types above has checked.
fn date(number: i32) -> NaiveDate {
    NaiveDate::from_epoch_days(number).unwrap_or_default()
}

fn write_date(f: &mut fmt::Formatter<'_>, number: i32) -> fmt::Result {
    let date = date(number);
    write!(f, "{:04}{:02}{:02}", date.year(), date.month(), date.day())
}

/// The number of days of exactly eight ASCII digits that name a date of the calendar.
fn parse_date(digits: &str) -> Option<i32> {
    if digits.len() != 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let year = digits.get(..4)?.parse().ok()?;
    let month = digits.get(4..6)?.parse().ok()?;
    let day = digits.get(6..)?.parse().ok()?;
    NaiveDate::from_ymd_opt(year, month, day).map(|date| date.to_epoch_days())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bounds_are_the_years_1970_to_9999() {
        let last = UtcDay::from_number(LAST_DAY).unwrap();
        assert_eq!(last.folder_name(), "S99991231");
        assert_eq!(UtcDay::parse_folder("S99991231"), Some(last));
        assert_eq!(UtcDay::default().folder_name(), "S19700101");
        assert_eq!(UtcDay::from_number(LAST_DAY + 1), None);
        assert_eq!(UtcDay::from_number(-1), None);
        assert_eq!(UtcDay::parse_folder("S19691231"), None);
        assert_eq!(UtcDay::from_unix_ms(-1), None);
        assert_eq!(UtcDay::from_unix_ms(END_UNIX_S * 1000 - 1), Some(last));
        assert_eq!(UtcDay::from_unix_ms(END_UNIX_S * 1000), None);
        assert_eq!(UtcSecond::from_unix_ms(i64::MIN), None);
        assert_eq!(UtcSecond::from_unix_ms(i64::MAX), None);
        assert_eq!(LocalDay::from_number(-1).unwrap().index_name(), "I19691231.csv");
        assert_eq!(LocalDay::parse_index_name("I19691231.csv"), LocalDay::from_number(-1));
        assert_eq!(LocalDay::from_number(-2), None);
        assert_eq!(LocalDay::from_number(LAST_DAY).unwrap().next(), None);
        assert_eq!(LocalDay::from_date(NaiveDate::MAX), None);
    }

    #[test]
    fn a_folder_has_three_indexes() {
        let day = UtcDay::parse_folder("S20160606").unwrap();
        assert_eq!(day.brief_index_name(), "I20160606.csv");
        assert_eq!(day.full_index_name(), "I20160606_version2.csv");
        assert_eq!(day.media_index_name(), "M20160606.csv");
        assert_eq!(day.start_unix_s(), 1_465_171_200);
    }

    #[test]
    fn other_spellings_are_no_days() {
        for name in [
            "",
            "S",
            "20160606",
            "s20160606",
            "S2016066",
            "S020160606",
            "S20160606 ",
            " S20160606",
            "S20160631",
            "S20160600",
            "S20161306",
            "S20160006",
            "S20150229",
            "S00000101",
            "S+2016606",
            "S2016-6-6",
            "S2016+606",
            "S201606+6",
            "S２0160606",
            "S２０１６",
            "I20160606",
            "S20160606/",
            "S20160606\0",
        ] {
            assert_eq!(UtcDay::parse_folder(name), None, "{name:?}");
        }
        for name in
            ["I20160606", "I20160606.CSV", "I20160606_version2.csv", "M20160606.csv", "I2016060.csv", "I.csv"]
        {
            assert_eq!(LocalDay::parse_index_name(name), None, "{name:?}");
        }
        assert!(UtcDay::parse_folder("S20160229").is_some());
    }

    #[test]
    fn seconds_are_truncated() {
        let second = UtcSecond::from_unix_ms(1_621_014_436_999).unwrap();
        assert_eq!(second.unix_s(), 1_621_014_436);
        assert_eq!(UtcSecond::from_parts(second.day(), second.second_of_day()), Some(second));
        assert_eq!(UtcSecond::from_parts(second.day(), 86_400), None);
    }

    #[test]
    fn stored_numbers_are_checked() {
        let day = UtcDay::from_number(16_958).unwrap();
        assert_eq!(serde_json::to_string(&day).unwrap(), "16958");
        assert_eq!(serde_json::from_str::<UtcDay>("16958").unwrap(), day);
        assert!(serde_json::from_str::<UtcDay>("-1").is_err());
        assert!(serde_json::from_str::<LocalDay>("-2").is_err());
        assert!(serde_json::from_str::<UtcSecond>("253402300800").is_err());
    }

    proptest! {
        #[test]
        fn days_and_names_are_one_to_one(number in -1..=LAST_DAY) {
            let local = LocalDay::from_number(number).unwrap();
            prop_assert_eq!(LocalDay::parse_index_name(&local.index_name()), Some(local));
            prop_assert_eq!(LocalDay::from_date(local.date()), Some(local));
            if let Some(day) = UtcDay::from_number(number) {
                prop_assert_eq!(UtcDay::parse_folder(&day.folder_name()), Some(day));
                prop_assert_eq!(UtcDay::from_unix_ms(day.start_unix_s() * 1000), Some(day));
                prop_assert_eq!(day.to_string(), local.to_string());
            }
        }

        #[test]
        fn what_parses_is_spelled_alike(name in "[SI]?[0-9+ ]{6,10}(\\.csv)?") {
            if let Some(day) = UtcDay::parse_folder(&name) {
                prop_assert_eq!(day.folder_name(), name.clone());
            }
            if let Some(day) = LocalDay::parse_index_name(&name) {
                prop_assert_eq!(day.index_name(), name);
            }
        }

        #[test]
        fn a_second_has_one_day(unix_s in 0..END_UNIX_S) {
            let second = UtcSecond::from_unix_s(unix_s).unwrap();
            prop_assert_eq!(second.day().start_unix_s() + i64::from(second.second_of_day()), unix_s);
            prop_assert_eq!(UtcSecond::from_parts(second.day(), second.second_of_day()), Some(second));
        }
    }
}

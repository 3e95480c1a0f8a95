//! Times in index files.
//!
//! Nobody has published a row, so everything is read that is not ambiguous: dates as `2016-06-06` or, month first,
//! `6/6/2016` (the two forms that the known consumer can cast), with `T` or a space before the time; seconds with or
//! without a fraction, or none (as spreadsheets save them); `AM` and `PM`; an offset, `Z`, `UTC` or `GMT` at the end.

use chrono::{FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// The last millisecond of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// A time as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) at: NaiveDateTime,
    /// Minutes east of UTC, where it says so.
    offset: Option<FixedOffset>,
    /// It says seconds.
    pub(crate) has_seconds: bool,
}

impl Written {
    /// Reads a cell.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.trim().split_once([' ', 'T', 't'])?;
        let date = parse_date(date)?;
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | ':' | '.')).unwrap_or(rest.len());
        let (clock, suffix) = rest.split_at_checked(end)?;
        let suffix = suffix.trim().to_ascii_uppercase();
        let (half, suffix) = match suffix.strip_prefix("AM") {
            Some(rest) => (Some(Half::Am), rest),
            None => match suffix.strip_prefix("PM") {
                Some(rest) => (Some(Half::Pm), rest),
                None => (None, suffix.as_str()),
            },
        };
        let (time, has_seconds) = parse_clock(clock, half)?;
        Some(Self { at: date.and_time(time), offset: parse_offset(suffix.trim())?, has_seconds })
    }

    /// The instant, in Unix milliseconds, of a time in UTC.
    pub(crate) fn utc_ms(&self) -> Option<i64> {
        let east = self.offset.map_or(0, |offset| i64::from(offset.local_minus_utc()) * 1000);
        in_range(self.at.and_utc().timestamp_millis().checked_sub(east)?)
    }

    /// The instants, in Unix milliseconds, that a clock in this zone showed as this time: none where clocks were put
    /// forward, two where they were put back.
    pub(crate) fn local_ms(&self, zone: Tz) -> [Option<i64>; 2] {
        if self.offset.is_some() {
            return [self.utc_ms(), None];
        }
        let ms = |at: chrono::DateTime<Tz>| in_range(at.with_timezone(&Utc).timestamp_millis());
        match zone.from_local_datetime(&self.at) {
            MappedLocalTime::Single(at) => [ms(at), None],
            MappedLocalTime::Ambiguous(early, late) => [ms(early), ms(late)],
            MappedLocalTime::None => [None, None],
        }
    }

    /// Milliseconds from another time of the same clock to this one.
    pub(crate) fn since(&self, other: &Self) -> i64 {
        self.at.signed_duration_since(other.at).num_milliseconds()
    }
}

/// Milliseconds of a length: seconds, or `minutes:seconds`, or `hours:minutes:seconds`.
pub(crate) fn parse_length_ms(text: &str) -> Option<u64> {
    let mut seconds = 0_u64;
    for (at, part) in text.split(':').enumerate() {
        let number = digits(part, 12)?;
        if at > 2 || at > 0 && number >= 60 {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(number)?;
    }
    seconds.checked_mul(1000).filter(|ms| i64::try_from(*ms).is_ok())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Am,
    Pm,
}

fn in_range(ms: i64) -> Option<i64> {
    (0..=LAST_MS).contains(&ms).then_some(ms)
}

/// A number of at most so many digits, and nothing else.
fn digits(text: &str, most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.split(['-', '/']);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let number = |text, most| u32::try_from(digits(text, most)?).ok();
    let (year, month, day) = if first.len() == 4 {
        (first, number(second, 2)?, number(third, 2)?)
    } else if text.contains('/') && third.len() == 4 {
        (third, number(first, 2)?, number(second, 2)?)
    } else {
        return None;
    };
    NaiveDate::from_ymd_opt(i32::try_from(digits(year, 4)?).ok()?, month, day)
}

/// The time, and whether it has seconds.
fn parse_clock(text: &str, half: Option<Half>) -> Option<(NaiveTime, bool)> {
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next());
    if parts.next().is_some() {
        return None;
    }
    let number = |text, most| u32::try_from(digits(text, most)?).ok();
    let hour = match (half, number(hour, 2)?) {
        (None, hour) => hour,
        (Some(Half::Am), 12) => 0,
        (Some(Half::Pm), 12) => 12,
        (Some(Half::Am), hour @ 1..=11) => hour,
        (Some(Half::Pm), hour @ 1..=11) => hour.saturating_add(12),
        _ => return None,
    };
    let minute = number(minute, 2)?;
    let Some(second) = second else { return Some((NaiveTime::from_hms_opt(hour, minute, 0)?, false)) };
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    // Finer than milliseconds is cut off, as names cut off what is finer than a second.
    let millis = format!("{:0<3}", digits(fraction, 9).and(fraction.get(..fraction.len().min(3)))?);
    let time = NaiveTime::from_hms_milli_opt(hour, minute, number(second, 2)?, number(&millis, 3)?)?;
    Some((time, true))
}

/// `None` for what is no offset, `Some(None)` where there is none.
fn parse_offset(text: &str) -> Option<Option<FixedOffset>> {
    if text.is_empty() {
        return Some(None);
    }
    if matches!(text, "Z" | "UTC" | "GMT") {
        return Some(FixedOffset::east_opt(0));
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let rest = rest.replace(':', "");
    let (hours, minutes) = match rest.len() {
        2 => (rest.as_str(), "0"),
        4 => rest.split_at_checked(2)?,
        _ => return None,
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2).filter(|minutes| *minutes < 60)?);
    let seconds = i32::try_from(hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?).ok()?;
    Some(Some(FixedOffset::east_opt(sign * seconds)?))
}

/// The instant nearest to another, among those not before `from_ms`.
pub(crate) fn nearest(candidates: [Option<i64>; 2], to_ms: i64, from_ms: Option<i64>) -> Option<i64> {
    let candidates = candidates.into_iter().flatten();
    candidates.filter(|ms| from_ms.is_none_or(|from| *ms >= from)).min_by_key(|ms| ms.abs_diff(to_ms))
}

/// Whether two instants are at most so far apart.
pub(crate) fn are_near(one_ms: i64, other_ms: i64, apart: TimeDelta) -> bool {
    i64::try_from(one_ms.abs_diff(other_ms)).is_ok_and(|ms| ms <= apart.num_milliseconds())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn utc_ms(text: &str) -> Option<i64> {
        Written::parse(text)?.utc_ms()
    }

    #[test]
    fn times_are_read_as_they_are_written_in_the_field() {
        // 2016-06-06T17:01:05Z
        const AT: i64 = 1_465_232_465_000;
        for (text, ms) in [
            ("2016-06-06 17:01:05", AT),
            ("2016-06-06T17:01:05", AT),
            ("2016-06-06T17:01:05Z", AT),
            ("2016-06-06 17:01:05 UTC", AT),
            ("2016-06-06 17:01:05 +00:00", AT),
            ("2016-06-06 10:01:05-0700", AT),
            ("2016-06-06 22:31:05+05:30", AT),
            ("06/06/2016 17:01:05", AT),
            ("6/6/2016 5:01:05 PM", AT),
            ("06/06/2016 05:01:05PM", AT),
            ("2016/06/06 17:01:05", AT),
            (" 2016-06-06  17:01:05 ", AT),
            ("2016-06-06 17:01:05.234", AT + 234),
            ("2016-06-06 17:01:05.2", AT + 200),
            ("2016-06-06 17:01:05.234999", AT + 234),
            ("6/6/2016 17:01", AT - 5000),
            ("12/31/2016 12:00:00 AM", 1_483_142_400_000),
            ("12/31/2016 12:00:00 PM", 1_483_185_600_000),
        ] {
            assert_eq!(utc_ms(text), Some(ms), "{text}");
        }
        assert!(!Written::parse("6/6/2016 17:01").unwrap().has_seconds);
        assert!(Written::parse("6/6/2016 17:01:00").unwrap().has_seconds);
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            " ",
            "N/A",
            "2016-06-06",
            "17:01:05",
            "31/12/2016 17:01:05",
            "2016-13-06 17:01:05",
            "2016-02-30 17:01:05",
            "2016-06-06 24:01:05",
            "2016-06-06 17:60:05",
            "2016-06-06 17:01:60",
            "2016-06-06 17:01:05 PDT",
            "2016-06-06 17:01:05 PM",
            "2016-06-06 0:01:05 AM",
            "2016-06-06 17",
            "2016-06-06 17:01:05:00",
            "2016-06-06 17:01:05.",
            "2016-06-06 17:01:05 +1",
            "2016-06-06 17:01:05 +99:00",
            "2016-06-06-06 17:01:05",
            "6-6-2016 17:01:05",
            "06/06/16 17:01:05",
            "+016-06-06 17:01:05",
            "1969-12-31 23:59:59",
        ] {
            assert_eq!(utc_ms(text), None, "{text:?}");
        }
        assert_eq!(utc_ms("1970-01-01 00:00:00"), Some(0));
        assert_eq!(utc_ms("9999-12-31 23:59:59"), Some(LAST_MS - 999));
    }

    #[test]
    fn local_times_that_are_shown_twice_have_two_instants() {
        let zone = Tz::America__Los_Angeles;
        let local = |text: &str| Written::parse(text).unwrap().local_ms(zone);
        assert_eq!(local("2016-06-06 17:30:00"), [Some(1_465_259_400_000), None]);
        // 2016-11-06: 01:59:59 PDT is 08:59:59Z, 01:59:59 PST is 09:59:59Z.
        assert_eq!(local("2016-11-06 01:59:59"), [Some(1_478_422_799_000), Some(1_478_426_399_000)]);
        assert_eq!(local("2016-03-13 02:30:00"), [None, None]);
        assert_eq!(local("2016-06-06 17:30:00Z"), [Some(1_465_234_200_000), None]);
        let both = local("2016-11-06 01:30:00");
        assert_eq!(nearest(both, 0, None), both[0]);
        assert_eq!(nearest(both, i64::MAX, None), both[1]);
        assert_eq!(nearest(both, 0, both[1]), both[1]);
        assert_eq!(nearest([None, None], 0, None), None);
    }

    #[test]
    fn lengths_are_seconds_or_clock_like() {
        for (text, ms) in [("0", 0), ("61", 61_000), ("1:01", 61_000), ("01:00:01", 3_601_000)] {
            assert_eq!(parse_length_ms(text), Some(ms), "{text}");
        }
        for text in ["", "-1", "61.5", "1:60", "1:1:1:1", ":1", "1:", "x", "99999999999999999999"] {
            assert_eq!(parse_length_ms(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_verdict(text in "[0-9]{0,4}[-/]?[0-9]{0,2}[-/]?[0-9]{0,4}[ T]?[0-9:.]{0,12} ?(\\PC{0,6})") {
            if let Some(written) = Written::parse(&text) {
                written.utc_ms();
                written.local_ms(Tz::America__Los_Angeles);
            }
            parse_length_ms(&text);
        }

        #[test]
        fn an_instant_is_found_again_in_its_zone(second in 0..4_000_000_000_i64) {
            let zone = Tz::America__Los_Angeles;
            let at = chrono::DateTime::from_timestamp(second, 0).unwrap();
            let text = at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string();
            let candidates = Written::parse(&text).unwrap().local_ms(zone);
            prop_assert_eq!(nearest(candidates, second * 1000, None), Some(second * 1000));
            let text = at.format("%m/%d/%Y %I:%M:%S %p").to_string();
            prop_assert_eq!(utc_ms(&text), Some(second * 1000));
        }
    }
}

//! A tenant's time zone, and which local date an instant belongs to.
//!
//! The rule: an instant belongs to the local date that it has in the tenant's zone; a date ends with the last
//! instant that carries it; a date that the zone skips has no instants and no end. Nothing here adds 24 hours to
//! anything. Days of 22 to 26 hours exist, a zone may skip a date (Samoa had no 30 December 2011), and one that
//! turns its clocks back over midnight enters a date twice.
//!
//! The approach: a zone is a list of pieces, in each of which the offset from UTC is constant. In a piece, the
//! instants of a date are one interval, known by subtraction; a date's end is the end of its last such interval.
//! So an end is computed, never searched for. chrono-tz doesn't show its pieces, so they are found once, when the
//! zone is made: the offset is read at each [`STEP`], and where it differs from the one before, the change
//! between is found by bisection. That finds each change as long as no two of them lie within one step; in the
//! tz database the closest pair since 1970 is 167 hours apart (a summer time of one week on Noronha, in October 2000).

use std::{fmt, sync::Arc};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::day::{END_UNIX_S, LocalDay};

/// How far apart the offset is read, in seconds: far below the shortest time between two changes.
const STEP: i64 = 86_400;
/// 2101-01-01T00:00:00Z: chrono-tz knows changes up to the end of 2100 and keeps the last offset from then on.
const LAST_CHANGE: i64 = 4_133_980_800;
const SECONDS_PER_DAY: i64 = 86_400;

/// A tenant's time zone with its dated changes.
#[derive(Clone)]
pub struct TenantZone {
    first: Tz,
    changes: Arc<[Change]>,
    /// In order; the first begins with the first instant.
    pieces: Arc<[Piece]>,
}

/// A zone that holds from a date on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    date: LocalDay,
    /// The first instant of the zone, in Unix seconds.
    from: i64,
    zone: Tz,
}

/// Instants with the same offset, up to the next piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// The first instant in Unix seconds.
    from: i64,
    /// What local time is ahead of UTC, in seconds.
    offset: i64,
}

/// What a tenant's clock and calendar show at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTime {
    /// Date and time of day, to the millisecond.
    pub date_time: NaiveDateTime,
    /// The date, which says what root index the instant belongs to.
    pub day: LocalDay,
}

/// A zone's history that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// A change's date isn't one of the calendar of 1970 to 9999 in its zone.
    #[error("the change to {zone} on {date} lies outside the years 1970 to 9999; correct its date")]
    OutOfRange {
        /// The change's date.
        date: NaiveDate,
        /// The zone that it changes to.
        zone: Tz,
    },
    /// A change doesn't come after the one before it.
    #[error(
        "the change to {zone} on {date} doesn't begin after the one before it; \
         sort the changes by date and keep them some days apart"
    )]
    NotAscending {
        /// The change's date.
        date: NaiveDate,
        /// The zone that it changes to.
        zone: Tz,
    },
    /// The zones together turn the calendar back to a date and then leave out one that already had begun, so that
    /// a later date would end before an earlier one.
    #[error(
        "with these changes {date} would end before a date that precedes it; keep changes of zone some days apart"
    )]
    DatesOutOfOrder {
        /// The date that would end too early.
        date: NaiveDate,
    },
}

impl TenantZone {
    /// A zone, and the zones that a tenant changed to later, each with the date from which it holds, ascending.
    ///
    /// A change takes effect at the first instant that has its date (or, where the new zone skips that date, the
    /// next one) in the NEW zone: local midnight there. Local time jumps at that instant like at any other change
    /// of offset. Going west, the change's date has begun before in the old zone and simply grows longer; going
    /// east, the date before it is cut short, or skipped.
    ///
    /// # Errors
    ///
    /// Changes that are not ascending, outside the years 1970 to 9999, or so close together that dates would not
    /// end in order.
    pub fn new(first: Tz, changes: Vec<(NaiveDate, Tz)>) -> Result<Self, ZoneError> {
        let mut pieces = pieces_of(first);
        let mut dated: Vec<Change> = Vec::with_capacity(changes.len());
        for (date, zone) in changes {
            let of_zone = pieces_of(zone);
            let out_of_range = ZoneError::OutOfRange { date, zone };
            let day =
                LocalDay::from_date(date).filter(|day| day.number() >= 0).ok_or(out_of_range.clone())?;
            let from = first_from(&of_zone, day).ok_or(out_of_range)?;
            if dated.last().map_or(0, |before| before.from) >= from
                || dated.last().is_some_and(|before| before.date >= day)
            {
                return Err(ZoneError::NotAscending { date, zone });
            }
            let offset = piece_at(&of_zone, from).offset;
            pieces.retain(|piece| piece.from < from);
            pieces.push(Piece { from, offset });
            pieces.extend(of_zone.iter().filter(|piece| piece.from > from));
            dated.push(Change { date: day, from, zone });
        }
        check_order(&pieces)?;
        Ok(Self { first, changes: dated.into(), pieces: pieces.into() })
    }

    /// What the tenant's clock shows at an instant in Unix milliseconds. `None` for an instant outside the years
    /// 1970 to 9999 in UTC, and for the last hours of 9999 in zones east of Greenwich, which have the year 10000.
    pub fn local(&self, unix_ms: i64) -> Option<LocalTime> {
        let unix_s = unix_ms.div_euclid(1000);
        if !(0..END_UNIX_S).contains(&unix_s) {
            return None;
        }
        let local_ms = unix_ms + piece_at(&self.pieces, unix_s).offset * 1000;
        let date_time = DateTime::from_timestamp_millis(local_ms)?.naive_utc();
        let day = LocalDay::from_date(date_time.date())?;
        Some(LocalTime { date_time, day })
    }

    /// The local date that an instant in Unix milliseconds belongs to; `None` where [`Self::local`] has none.
    pub fn day_of(&self, unix_ms: i64) -> Option<LocalDay> {
        self.local(unix_ms).map(|local| local.day)
    }

    /// The first instant that carries the date, in Unix milliseconds; `None` for a date that the zone skips.
    ///
    /// A date that the zone enters twice has instants of the date before it between its start and its end.
    pub fn start_of(&self, day: LocalDay) -> Option<i64> {
        start_of(&self.pieces, day).map(|unix_s| unix_s * 1000)
    }

    /// The first instant after the last one that carries the date, in Unix milliseconds; `None` for a date that
    /// the zone skips.
    pub fn end_of(&self, day: LocalDay) -> Option<i64> {
        intervals(&self.pieces, day).last().map(|(_, end)| end * 1000)
    }

    /// The zone that holds at an instant in Unix milliseconds; its name is for people to read.
    pub fn zone_at(&self, unix_ms: i64) -> Tz {
        let unix_s = unix_ms.div_euclid(1000);
        let change = self.changes.iter().rev().find(|change| change.from <= unix_s);
        change.map_or(self.first, |change| change.zone)
    }
}

impl PartialEq for TenantZone {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first && self.changes == other.changes
    }
}

impl Eq for TenantZone {}

impl fmt::Debug for TenantZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantZone").field("first", &self.first).field("changes", &self.changes).finish()
    }
}

/// The pieces of one zone, from the first instant of 1970 on.
fn pieces_of(zone: Tz) -> Vec<Piece> {
    let mut piece = Piece { from: 0, offset: offset_at(zone, 0) };
    let mut pieces = vec![piece];
    let mut before = 0;
    while before < LAST_CHANGE {
        let after = before + STEP;
        let offset = offset_at(zone, after);
        if offset != piece.offset {
            // `low` has the old offset, `high` the new one.
            let (mut low, mut high) = (before, after);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if offset_at(zone, middle) == piece.offset { low = middle } else { high = middle }
            }
            piece = Piece { from: high, offset };
            pieces.push(piece);
        }
        before = after;
    }
    pieces
}

fn offset_at(zone: Tz, unix_s: i64) -> i64 {
    // In range: only called between 1970 and 2101.
    let utc = DateTime::from_timestamp(unix_s, 0).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// The piece that an instant lies in.
fn piece_at(pieces: &[Piece], unix_s: i64) -> Piece {
    let after = pieces.partition_point(|piece| piece.from <= unix_s);
    // The first piece begins with the first instant; earlier ones are told its offset.
    let piece = pieces.get(after.saturating_sub(1)).or(pieces.first());
    piece.copied().unwrap_or(Piece { from: 0, offset: 0 })
}

/// The intervals of instants that carry a date, each as first instant and end, in order; adjacent ones are not joined.
fn intervals(pieces: &[Piece], day: LocalDay) -> impl Iterator<Item = (i64, i64)> {
    let midnight = i64::from(day.number()) * SECONDS_PER_DAY;
    // An offset is below 24 hours (chrono's FixedOffset), so nothing further away carries the date.
    let (earliest, latest) = (midnight - SECONDS_PER_DAY, midnight + 2 * SECONDS_PER_DAY);
    let begin = pieces.partition_point(|piece| piece.from <= earliest).saturating_sub(1);
    let ends = pieces.iter().skip(begin + 1).map(|piece| piece.from).chain([END_UNIX_S]);
    pieces.iter().skip(begin).zip(ends).take_while(move |(piece, _)| piece.from < latest).filter_map(
        move |(piece, piece_end)| {
            let start = (midnight - piece.offset).max(piece.from);
            let end = (midnight - piece.offset + SECONDS_PER_DAY).min(piece_end);
            (start < end).then_some((start, end))
        },
    )
}

fn start_of(pieces: &[Piece], day: LocalDay) -> Option<i64> {
    intervals(pieces, day).next().map(|(start, _)| start)
}

/// The first instant that carries the date, or the next date that isn't skipped.
fn first_from(pieces: &[Piece], day: LocalDay) -> Option<i64> {
    // No zone skips two dates in a row.
    start_of(pieces, day).or_else(|| start_of(pieces, day.next()?))
}

/// Checks that dates end in order.
///
/// Local time only ever falls back at a change of offset. A date can end before one that precedes it only where
/// local time fell back from it, and then jumped forward over the whole of it. So it is enough to look at what
/// each jump skips.
fn check_order(pieces: &[Piece]) -> Result<(), ZoneError> {
    let date_at = |unix_s: i64, offset: i64| (unix_s + offset).div_euclid(SECONDS_PER_DAY);
    let mut latest = i64::MIN;
    for (before, after) in pieces.iter().zip(pieces.iter().skip(1)) {
        let left = date_at(after.from - 1, before.offset);
        let entered = date_at(after.from, after.offset);
        latest = latest.max(left);
        if entered > left + 1 && latest > left {
            let number = i32::try_from(left + 1).unwrap_or_default();
            return Err(ZoneError::DatesOutOfOrder {
                date: NaiveDate::from_epoch_days(number).unwrap_or_default(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::collections::HashSet;

    use chrono::Datelike;
    use chrono_tz::TZ_VARIANTS;
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn day(year: i32, month: u32, day: u32) -> LocalDay {
        LocalDay::from_date(date(year, month, day)).unwrap()
    }

    fn date(year: i32, month: u32, day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(year, month, day).unwrap()
    }

    fn ms(utc: &str) -> i64 {
        DateTime::parse_from_rfc3339(utc).unwrap().timestamp_millis()
    }

    fn single(zone: Tz) -> TenantZone {
        TenantZone::new(zone, vec![]).unwrap()
    }

    /// The date by chrono-tz alone.
    fn date_by_chrono(zone: Tz, unix_ms: i64) -> NaiveDate {
        DateTime::from_timestamp_millis(unix_ms).unwrap().with_timezone(&zone).date_naive()
    }

    /// Hours that carry the date.
    fn hours(zone: &TenantZone, day: LocalDay) -> f64 {
        intervals(&zone.pieces, day).map(|(start, end)| (end - start) as f64 / 3600.0).sum()
    }

    #[test]
    fn pieces_agree_with_chrono_in_every_zone() {
        // Not a divisor of a day, so that all times of the day are met.
        const SAMPLE: i64 = 19_997;
        let (begin, end) = (ms("1990-01-01T00:00:00Z") / 1000, ms("2041-01-01T00:00:00Z") / 1000);
        for zone in TZ_VARIANTS {
            let pieces = pieces_of(zone);
            for pair in pieces.windows(2) {
                // Far enough apart that no reading can miss two of them at once.
                assert!(pair[1].from - pair[0].from > 5 * STEP, "{zone} {pair:?}");
                assert_eq!(offset_at(zone, pair[1].from - 1), pair[0].offset, "{zone} {pair:?}");
                assert_eq!(offset_at(zone, pair[1].from), pair[1].offset, "{zone} {pair:?}");
            }
            let (mut at, mut index) = (begin, 0);
            while at < end {
                while pieces.get(index + 1).is_some_and(|next| next.from <= at) {
                    index += 1;
                }
                assert_eq!(offset_at(zone, at), pieces[index].offset, "{zone} {at}");
                at += SAMPLE;
            }
        }
    }

    #[test]
    fn no_zone_changes_after_the_last_reading() {
        for zone in TZ_VARIANTS {
            let last = offset_at(zone, LAST_CHANGE);
            for month in 0..12 * 200 {
                assert_eq!(offset_at(zone, LAST_CHANGE + month * 30 * 86_400), last, "{zone}");
            }
        }
    }

    #[test]
    fn every_instant_of_every_zone_has_one_date_and_dates_end_in_order() {
        let days = day(1990, 1, 1).number()..=day(2040, 12, 31).number();
        let mut seen = HashSet::new();
        for tz in TZ_VARIANTS {
            let zone = single(tz);
            // Many names stand for one zone: what was checked once is not checked again.
            if !seen.insert(zone.pieces.iter().map(|piece| (piece.from, piece.offset)).collect::<Vec<_>>()) {
                continue;
            }
            let mut carried = Vec::with_capacity(20_000);
            let mut last_end = i64::MIN;
            for number in days.clone() {
                let day = LocalDay::from_number(number).unwrap();
                let before = carried.len();
                carried.extend(intervals(&zone.pieces, day).map(|(start, end)| (start, end, day)));
                let of_day = &carried[before..];
                match zone.end_of(day) {
                    None => assert!(of_day.is_empty() && zone.start_of(day).is_none(), "{tz} {day}"),
                    Some(end) => {
                        assert!(end > last_end, "{tz} {day} ends before the date before it");
                        last_end = end;
                        assert_eq!(of_day.last().unwrap().1 * 1000, end, "{tz} {day}");
                        assert_eq!(of_day[0].0 * 1000, zone.start_of(day).unwrap(), "{tz} {day}");
                    }
                }
            }
            carried.sort_unstable();
            // The intervals of all dates lie edge to edge: every instant is in exactly one, none in a skipped date.
            for pair in carried.windows(2) {
                assert_eq!(pair[0].1, pair[1].0, "{tz} {pair:?}");
            }
            for (start, end, day) in carried {
                let date = day.date();
                assert_eq!(date_by_chrono(tz, start * 1000), date, "{tz} {day}");
                assert_eq!(date_by_chrono(tz, end * 1000 - 1), date, "{tz} {day}");
            }
        }
        assert!(seen.len() > 300, "{}", seen.len());
    }

    #[test]
    fn ends_are_exact_around_every_change_of_every_zone() {
        let (begin, end) = (ms("1990-01-01T00:00:00Z") / 1000, ms("2041-01-01T00:00:00Z") / 1000);
        for tz in TZ_VARIANTS {
            let zone = single(tz);
            for change in zone.pieces.iter().filter(|piece| (begin..end).contains(&piece.from)) {
                for hours in -26..=26 {
                    for unix_ms in
                        [change.from * 1000 + hours * HOUR_MS, change.from * 1000 + hours * HOUR_MS - 1]
                    {
                        let day = zone.day_of(unix_ms).unwrap();
                        assert_eq!(day.date(), date_by_chrono(tz, unix_ms), "{tz} {unix_ms}");
                        let (start, end) = (zone.start_of(day).unwrap(), zone.end_of(day).unwrap());
                        assert!(start <= unix_ms && unix_ms < end, "{tz} {day} {unix_ms}");
                        assert_eq!(zone.day_of(start), Some(day), "{tz} {day}");
                        assert_eq!(zone.day_of(end - 1), Some(day), "{tz} {day}");
                        assert_ne!(zone.day_of(start - 1), Some(day), "{tz} {day}");
                        assert_ne!(zone.day_of(end), Some(day), "{tz} {day}");
                    }
                }
            }
        }
    }

    #[test]
    fn skipped_dates_have_no_index() {
        for (tz, skipped) in [
            (Tz::Pacific__Apia, day(2011, 12, 30)),
            (Tz::Pacific__Fakaofo, day(2011, 12, 30)),
            (Tz::Pacific__Kwajalein, day(1993, 8, 21)),
            (Tz::Pacific__Kiritimati, day(1994, 12, 31)),
        ] {
            let zone = single(tz);
            assert_eq!((zone.start_of(skipped), zone.end_of(skipped)), (None, None), "{tz}");
            let before = LocalDay::from_number(skipped.number() - 1).unwrap();
            let end = zone.end_of(before).unwrap();
            assert_eq!(zone.day_of(end - 1), Some(before));
            assert_eq!(zone.day_of(end), skipped.next());
        }
    }

    #[test]
    fn days_last_from_22_to_26_hours() {
        let lord_howe = single(Tz::Australia__Lord_Howe);
        assert_eq!(hours(&lord_howe, day(2024, 4, 7)), 24.5);
        assert_eq!(hours(&lord_howe, day(2024, 10, 6)), 23.5);
        let troll = single(Tz::Antarctica__Troll);
        assert_eq!(hours(&troll, day(2024, 3, 31)), 22.0);
        assert_eq!(hours(&troll, day(2024, 10, 27)), 26.0);
    }

    #[test]
    fn a_date_that_is_entered_twice_ends_the_second_time() {
        // At 00:01 of the 7th the clocks went back to 23:01 of the 6th.
        let zone = single(Tz::America__St_Johns);
        let (sixth, seventh) = (day(2010, 11, 6), day(2010, 11, 7));
        assert_eq!(zone.start_of(seventh), Some(ms("2010-11-07T02:30:00Z")));
        assert_eq!(zone.day_of(ms("2010-11-07T02:30:59.999Z")), Some(seventh));
        assert_eq!(zone.day_of(ms("2010-11-07T02:31:00Z")), Some(sixth));
        assert_eq!(zone.end_of(sixth), Some(ms("2010-11-07T03:30:00Z")));
        assert_eq!(zone.end_of(seventh), Some(ms("2010-11-08T03:30:00Z")));
    }

    #[test]
    fn covers_the_years_1970_to_9999_and_no_more() {
        let utc = single(Tz::UTC);
        assert_eq!(utc.local(-1), None);
        assert_eq!(utc.day_of(0), LocalDay::from_number(0));
        assert_eq!(utc.end_of(LocalDay::from_number(-1).unwrap()), None);
        let last = day(9999, 12, 31);
        assert_eq!(utc.day_of(END_UNIX_S * 1000 - 1), Some(last));
        assert_eq!(utc.end_of(last), Some(END_UNIX_S * 1000));
        for outside in [END_UNIX_S * 1000, i64::MAX, i64::MIN] {
            assert_eq!(utc.local(outside), None);
            assert_eq!(utc.zone_at(outside), Tz::UTC);
        }
        let west = single(Tz::America__Los_Angeles);
        assert_eq!(west.day_of(0), Some(day(1969, 12, 31)));
        assert_eq!(west.start_of(day(1969, 12, 31)), Some(0));
        let east = single(Tz::Asia__Tokyo);
        assert_eq!(east.day_of(END_UNIX_S * 1000 - 1), None);
        assert_eq!(east.end_of(last), Some((END_UNIX_S - 9 * 3600) * 1000));
    }

    #[test]
    fn local_time_keeps_milliseconds() {
        let local = single(Tz::Asia__Kolkata).local(ms("2024-01-14T18:30:00.987Z")).unwrap();
        assert_eq!(local.date_time.to_string(), "2024-01-15 00:00:00.987");
        assert_eq!(local.day, day(2024, 1, 15));
    }

    #[test]
    fn a_change_of_zone_holds_from_midnight_in_the_new_zone() {
        let (los_angeles, new_york) = (Tz::America__Los_Angeles, Tz::America__New_York);
        let east = TenantZone::new(los_angeles, vec![(date(2024, 7, 1), new_york)]).unwrap();
        let change = ms("2024-07-01T04:00:00Z");
        assert_eq!((east.zone_at(change - 1), east.zone_at(change)), (los_angeles, new_york));
        assert_eq!(east.end_of(day(2024, 6, 30)), Some(change));
        assert_eq!(hours(&east, day(2024, 6, 30)), 21.0);
        assert_eq!(hours(&east, day(2024, 7, 1)), 24.0);
        // Midnight in the new zone is 03:00 in the old one: the 1st has begun and begins again.
        let west = TenantZone::new(new_york, vec![(date(2024, 7, 1), los_angeles)]).unwrap();
        assert_eq!(
            west.local(ms("2024-07-01T07:00:00Z")).unwrap().date_time.to_string(),
            "2024-07-01 00:00:00"
        );
        assert_eq!(hours(&west, day(2024, 7, 1)), 27.0);
        assert_eq!(west.end_of(day(2024, 7, 1)), Some(ms("2024-07-02T07:00:00Z")));
        // New York's rules hold on after the change: the 3rd of November has 25 hours.
        assert_eq!(hours(&east, day(2024, 11, 3)), 25.0);
    }

    #[test]
    fn a_change_over_the_date_line_enters_a_date_twice_or_skips_one() {
        let (kiritimati, midway) = (Tz::Pacific__Kiritimati, Tz::Pacific__Midway);
        let west = TenantZone::new(kiritimati, vec![(date(2024, 7, 10), midway)]).unwrap();
        // 00:00 of the 10th on Midway is 01:00 of the 11th on Kiritimati.
        assert_eq!(west.start_of(day(2024, 7, 11)), Some(ms("2024-07-10T10:00:00Z")));
        assert_eq!(west.end_of(day(2024, 7, 10)), Some(ms("2024-07-11T11:00:00Z")));
        assert_eq!(hours(&west, day(2024, 7, 11)), 25.0);
        let east = TenantZone::new(midway, vec![(date(2024, 7, 10), kiritimati)]).unwrap();
        assert_eq!(east.end_of(day(2024, 7, 9)), None);
        assert_eq!(east.end_of(day(2024, 7, 8)), east.start_of(day(2024, 7, 10)));
        // A change on a date that the new zone skips takes effect with the next.
        let apia =
            TenantZone::new(Tz::Pacific__Auckland, vec![(date(2011, 12, 30), Tz::Pacific__Apia)]).unwrap();
        assert_eq!(apia.zone_at(ms("2011-12-30T10:00:00Z")), Tz::Pacific__Apia);
        assert_eq!(apia.zone_at(ms("2011-12-30T09:59:59Z")), Tz::Pacific__Auckland);
    }

    #[test]
    fn changes_that_make_no_calendar_are_refused() {
        let (kiritimati, midway) = (Tz::Pacific__Kiritimati, Tz::Pacific__Midway);
        let tenth = date(2024, 7, 10);
        let back_at_once =
            TenantZone::new(kiritimati, vec![(tenth, midway), (date(2024, 7, 11), kiritimati)]);
        assert!(matches!(back_at_once, Err(ZoneError::NotAscending { .. })), "{back_at_once:?}");
        // The 11th ends after an hour, before the 10th, and never comes back.
        let skips_the_past =
            TenantZone::new(kiritimati, vec![(tenth, midway), (date(2024, 7, 12), kiritimati)]);
        assert_eq!(skips_the_past, Err(ZoneError::DatesOutOfOrder { date: date(2024, 7, 11) }));
        let unsorted = TenantZone::new(Tz::UTC, vec![(tenth, midway), (date(2024, 6, 10), midway)]);
        assert_eq!(unsorted, Err(ZoneError::NotAscending { date: date(2024, 6, 10), zone: midway }));
        for outside in [date(1969, 12, 31), NaiveDate::MIN, NaiveDate::MAX, date(10_000, 1, 1)] {
            let refused = TenantZone::new(Tz::UTC, vec![(outside, midway)]);
            assert_eq!(refused, Err(ZoneError::OutOfRange { date: outside, zone: midway }));
        }
    }

    #[test]
    fn equal_settings_are_equal_zones() {
        let changes = vec![(date(2024, 7, 1), Tz::Asia__Tokyo)];
        assert_eq!(single(Tz::UTC), single(Tz::UTC));
        assert_ne!(single(Tz::UTC), single(Tz::Etc__UTC));
        assert_ne!(single(Tz::UTC), TenantZone::new(Tz::UTC, changes.clone()).unwrap());
        assert_eq!(TenantZone::new(Tz::UTC, changes.clone()), TenantZone::new(Tz::UTC, changes));
        assert_eq!(format!("{:?}", single(Tz::UTC)), "TenantZone { first: UTC, changes: [] }");
    }

    fn any_zone() -> impl Strategy<Value = Tz> {
        proptest::sample::select(TZ_VARIANTS.as_slice())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn dates_stay_in_order_over_changes_of_zone(
            first in any_zone(),
            begin in 7_305..25_567_i32, // 1990 to 2039
            changes in proptest::collection::vec((1..40_i32, any_zone()), 1..4),
        ) {
            let far_apart = changes.iter().all(|(after, _)| *after >= 7);
            let mut number = begin;
            let dated: Vec<_> = changes
                .into_iter()
                .map(|(after, zone)| {
                    number += after;
                    (NaiveDate::from_epoch_days(number).unwrap(), zone)
                })
                .collect();
            let zone = match TenantZone::new(first, dated.clone()) {
                Ok(zone) => zone,
                Err(error) => {
                    prop_assert!(!far_apart, "{error}");
                    return Ok(());
                }
            };
            let mut carried = Vec::new();
            let mut last_end = i64::MIN;
            for number in begin - 5..number + 5 {
                let day = LocalDay::from_number(number).unwrap();
                carried.extend(intervals(&zone.pieces, day));
                if let Some(end) = zone.end_of(day) {
                    prop_assert!(end > last_end, "{day}");
                    last_end = end;
                    prop_assert_eq!(zone.day_of(end - 1), Some(day));
                    prop_assert_ne!(zone.day_of(end), Some(day));
                    let tz = zone.zone_at(end - 1);
                    prop_assert_eq!(date_by_chrono(tz, end - 1), day.date());
                }
            }
            carried.sort_unstable();
            for pair in carried.windows(2) {
                prop_assert_eq!(pair[0].1, pair[1].0);
            }
            for (date, tz) in dated {
                let change = zone.changes.iter().find(|change| change.date.date() == date).unwrap();
                prop_assert_eq!(zone.zone_at(change.from * 1000), tz);
                let entered = zone.local(change.from * 1000).unwrap();
                prop_assert!(entered.day.date() >= date && entered.day.date().year() >= 1990);
            }
        }

        #[test]
        fn any_number_has_an_answer(tz in any_zone(), unix_ms in any::<i64>(), in_range in 0..END_UNIX_S * 1000) {
            let zone = single(tz);
            zone.local(unix_ms);
            if let Some(day) = zone.day_of(in_range) {
                prop_assert!(zone.start_of(day).unwrap() <= in_range);
                prop_assert!(in_range < zone.end_of(day).unwrap());
            }
        }
    }
}

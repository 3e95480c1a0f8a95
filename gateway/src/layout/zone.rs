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
//! tz database the closest pair since 1970 is 167 hours apart (Hebron and others, in Ramadan).

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
    /// A change takes effect at the first instant that has its date (or, where the new zone skips that date, a later
    /// one) in the NEW zone: local midnight there. Local time jumps at that instant like at any other change of offset. Going
    /// west, the change's date has begun before in the old zone and simply grows longer; going east, the date before it is cut
    /// short, or skipped.
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
            // The first date follows nothing, but must leave the first zone its instants.
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
/// local time fell back from it, and then jumped forward over the whole of it. So it is enough to look at what each jump skips.
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

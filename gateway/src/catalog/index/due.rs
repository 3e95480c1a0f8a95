//! When a root index is to be published, or published anew.

use crate::{
    catalog::{apply::AT_ONCE, rows::RootIndexRow},
    config::Tenant,
    layout::LocalDay,
};

/// A root index is published at the latest this long after its day's end, as at 8x8 (between 00:00 and 01:00).
pub(super) const LATEST_MS: i64 = 55 * 60 * 1000;

/// A root index that has changed is published again at most this often.
pub(super) const REPUBLISH_MS: i64 = 5 * 60 * 1000;

/// A root index that is late already when the gateway starts waits this long for its sources to be heard, no longer.
pub(super) const FIRST_SCAN_MS: i64 = 5 * 60 * 1000;

/// Whether a root index has waited for sources that are to be heard as long as it may.
pub(in crate::catalog) fn has_waited(row: &RootIndexRow, end: i64, unheard_since: i64, now_ms: i64) -> bool {
    let since = believable(row, end, now_ms).dirty_since_ms.unwrap_or(end).max(end);
    let first_scan = if unheard_since > now_ms { i64::MIN } else { unheard_since };
    now_ms >= since.saturating_add(LATEST_MS).max(first_scan.saturating_add(FIRST_SCAN_MS))
}

/// Somebody wants a published index written anew at once.
pub(in crate::catalog) fn is_wanted_at_once(row: &RootIndexRow) -> bool {
    row.file.generation != 0 && row.dirty_since_ms == Some(AT_ONCE)
}

/// From when to when a local day is, Unix milliseconds UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Span {
    /// `None` for a date that the zone skips.
    pub(super) fn of(tenant: &Tenant, day: LocalDay) -> Option<Self> {
        Some(Self { start: tenant.zone.start_of(day)?, end: tenant.zone.end_of(day)? })
    }

    /// Whether its root index is published as that of a day that is over: when its sources have told all of it, at the
    /// latest some time after its end.
    pub(super) fn is_settled(self, incomplete: bool, now_ms: i64) -> bool {
        now_ms >= self.end && (!incomplete || now_ms >= self.end.saturating_add(LATEST_MS))
    }
}

pub(in crate::catalog) fn is_due(
    row: &RootIndexRow,
    day: Span,
    live: bool,
    watermark: i64,
    now_ms: i64,
) -> bool {
    if is_wanted_at_once(row) {
        return true;
    }
    let complete = watermark >= day.end;
    let settled = day.is_settled(!complete, now_ms);
    // A time in the future is that of a clock that was set back.
    let rested = |since: i64| now_ms.saturating_sub(since) >= REPUBLISH_MS || now_ms < since;
    if row.running && settled {
        return true;
    }
    if row.running || now_ms < day.end {
        // The file's time is that of the last addition, so what rests is the change.
        // One that isn't known to be running (a lost catalog has been made anew) is taken up again at once.
        let changed = !row.running || row.file.generation == 0 || row.dirty_since_ms.is_some_and(rested);
        return live && now_ms >= day.start && changed;
    }
    if row.file.generation == 0 {
        return settled;
    }
    let stamp = row.file.modified.saturating_mul(1000);
    let rested = if now_ms < stamp {
        // Written by a clock that was ahead, maybe before the day was over: it counts as none.
        complete || now_ms >= day.end.saturating_add(LATEST_MS)
    } else {
        rested(stamp)
    };
    row.dirty_since_ms.is_some() && rested || row.incomplete && complete
}

/// When a root index is due at the latest; `None` where nothing is owed. What came late is due when it came.
pub(in crate::catalog) fn latest(row: &RootIndexRow, end: i64, live: bool) -> Option<i64> {
    if row.running {
        let changed = row.dirty_since_ms.filter(|_| live).map(|since| since.saturating_add(REPUBLISH_MS));
        return Some(changed.unwrap_or(i64::MAX).min(end.saturating_add(LATEST_MS)));
    }
    let since = row.dirty_since_ms?;
    let stamp = row.file.modified.saturating_mul(1000);
    // A file that is newer than what it lacks was written by a clock that was ahead.
    let is_ahead = since != AT_ONCE && stamp > since;
    let at_the_latest = match row.file.generation {
        0 => end.saturating_add(LATEST_MS),
        _ if is_ahead => end.saturating_add(LATEST_MS),
        _ => stamp.saturating_add(REPUBLISH_MS),
    };
    Some(since.max(at_the_latest))
}

/// The row, with a mark from the future as if it had been made at the day's end: the clock was set back since.
pub(in crate::catalog) fn believable(row: &RootIndexRow, end: i64, now_ms: i64) -> RootIndexRow {
    let dirty_since_ms = row.dirty_since_ms.map(|since| if since > now_ms { since.min(end) } else { since });
    RootIndexRow { dirty_since_ms, ..row.clone() }
}

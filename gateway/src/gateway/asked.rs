//! What requests about recordings and indexes mean: every field is checked here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::{
    admin::records::{MOST_ROWS, OperationError, SearchRequest},
    catalog::{Position, Search},
    config::Tenant,
    layout::{LocalDay, RecordingName, TenantZone, UtcDay},
};

pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> OperationError {
    OperationError::Invalid { field, reason: reason.into() }
}

pub(super) fn failed(error: impl std::fmt::Display) -> OperationError {
    OperationError::Failed(error.to_string())
}

/// Where a request goes on. What it says is checked like any other part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub tenant: u32,
    /// `None`: with the tenant's first.
    pub position: Option<Position>,
}

impl Cursor {
    pub fn text(&self) -> Result<String, OperationError> {
        Ok(URL_SAFE_NO_PAD.encode(postcard::to_stdvec(self).map_err(failed)?))
    }

    pub fn parse(text: &str) -> Result<Self, OperationError> {
        let wrong = || invalid("after", "this is no cursor that an answer told");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        postcard::from_bytes(&bytes).map_err(|_| wrong())
    }

    pub fn day(&self) -> Option<LocalDay> {
        match self.position {
            Some(Position::Named(place)) => LocalDay::from_number(place.day),
            _ => None,
        }
    }
}

pub(super) fn rows_of(limit: Option<u32>) -> Result<usize, OperationError> {
    match limit.unwrap_or(MOST_ROWS) {
        limit @ 1..=MOST_ROWS => Ok(limit as usize),
        _ => Err(invalid("limit", format!("1 to {MOST_ROWS} rows"))),
    }
}

pub(super) fn source_named(tenant: &Tenant, text: &str) -> Option<u32> {
    let named = tenant.sources.iter().find(|source| source.name == text).map(|source| source.id);
    // A source that isn't configured any more has only its number left.
    named.or_else(|| text.parse().ok())
}

/// A name with or without its folder.
pub(super) fn recording_name(text: &str, tenant: &Tenant) -> Option<RecordingName> {
    let text = text.strip_prefix('/').unwrap_or(text);
    let (folder, name) = match text.split_once('/') {
        Some((folder, name)) => (Some(UtcDay::parse_folder(folder)?), name),
        None => (None, text),
    };
    let name = RecordingName::parse(name, tenant.name_form)?;
    folder.is_none_or(|folder| folder == name.second.day()).then_some(name)
}

/// What a request asks of a tenant; `None` where the tenant doesn't have the source.
pub(super) fn search_of(tenant: &Tenant, request: &SearchRequest) -> Result<Option<Search>, OperationError> {
    if let Some(number) = &request.number
        && number.bytes().filter(u8::is_ascii_digit).count() < 3
    {
        return Err(invalid("number", "at least three digits"));
    }
    for (field, text) in [
        ("agent", &request.agent),
        ("queue", &request.queue),
        ("transaction", &request.transaction),
        ("contact", &request.contact),
    ] {
        if text.as_ref().is_some_and(String::is_empty) {
            return Err(invalid(field, "it is empty"));
        }
    }
    let time = |field, text: &Option<String>, end| {
        text.as_deref().map(|text| instant(field, text, request.utc, &tenant.zone, end)).transpose()
    };
    let source = match &request.source {
        Some(text) => match source_named(tenant, text) {
            Some(source) => Some(source),
            None => return Ok(None),
        },
        None => None,
    };
    Ok(Some(Search {
        from_ms: time("from", &request.from, false)?,
        until_ms: time("until", &request.until, true)?,
        state: request.state,
        any_state: request.contact.is_some() && request.state.is_none(),
        source,
        agent: request.agent.clone(),
        number: request.number.clone(),
        queue: request.queue.clone(),
        transaction: request.transaction.clone(),
    }))
}

fn date(text: &str) -> Option<NaiveDate> {
    ["%Y-%m-%d", "%Y%m%d"].iter().find_map(|form| NaiveDate::parse_from_str(text, form).ok())
}

pub(super) fn local_day(field: &'static str, text: &str) -> Result<LocalDay, OperationError> {
    date(text)
        .and_then(LocalDay::from_date)
        .ok_or_else(|| invalid(field, format!("{text:?} is no date from 1970 to 9999, such as 2016-06-06")))
}

/// An instant, or the beginning of a date, or its end.
fn instant(
    field: &'static str,
    text: &str,
    utc: bool,
    zone: &TenantZone,
    end: bool,
) -> Result<i64, OperationError> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Ok(instant.timestamp_millis());
    }
    let wrong = || {
        invalid(
            field,
            format!(
                "{text:?} is neither a date, such as 2016-06-06, nor an instant with its offset, such as 2016-06-06T17:30:00-07:00"
            ),
        )
    };
    let date = date(text).ok_or_else(wrong)?;
    let day = LocalDay::from_date(date).ok_or_else(wrong)?;
    if utc {
        let days = i64::from(day.number()).saturating_add(i64::from(end));
        return Ok(days.saturating_mul(86_400_000));
    }
    let found = if end { zone.end_of(day) } else { zone.start_of(day) };
    found.ok_or_else(|| invalid(field, format!("the tenant's zone skips the date {date}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::{catalog::Place, config, gateway::report::zoned};

    fn tenant(zone: &str) -> Tenant {
        let text = format!(
            "data_dir = \"data\"\n[ssh]\nlisten = [\"127.0.0.1:0\"]\n[[tenant]]\nid = 1\nname = \"acme\"\nzone = \"{zone}\"\n"
        );
        let config = config::parse(std::path::Path::new("recgate.toml"), &text, std::path::Path::new("/"))
            .unwrap_or_else(|problems| panic!("{problems}"));
        config.tenants.into_iter().next().unwrap()
    }

    #[test]
    fn times_are_instants_or_dates_of_the_tenant() {
        let tenant = tenant("America/Los_Angeles");
        let at = |text: &str, utc, end| instant("from", text, utc, &tenant.zone, end).unwrap();
        const DAY: i64 = 86_400_000;
        // 2016-06-06T00:00:00Z
        const SIXTH: i64 = 1_465_171_200_000;
        assert_eq!(at("2016-06-06", true, false), SIXTH);
        assert_eq!(at("20160606", true, true), SIXTH + DAY);
        assert_eq!(at("2016-06-06", false, false), SIXTH + 7 * 3_600_000);
        assert_eq!(at("2016-06-06", false, true), SIXTH + DAY + 7 * 3_600_000);
        assert_eq!(at("2016-06-06T02:00:00.250+02:00", false, true), SIXTH + 250);
        // The clocks went back on this date.
        assert_eq!(at("2016-11-06", false, true) - at("2016-11-06", false, false), 25 * 3_600_000);
        for wrong in ["", "x", "2016-13-01", "2016-06-06T00:00:00", "1900-01-01", "10000-01-01"] {
            let error = instant("until", wrong, false, &tenant.zone, false).unwrap_err();
            assert!(error.to_string().starts_with("until: "), "{error}");
        }
        let skipped = self::tenant("Pacific/Apia");
        let error = instant("from", "2011-12-30", false, &skipped.zone, false).unwrap_err();
        assert_eq!(error.to_string(), "from: the tenant's zone skips the date 2011-12-30");
    }

    #[test]
    fn names_may_have_their_folder() {
        let tenant = tenant("UTC");
        let name = recording_name("R201606060001170000.wav", &tenant);
        assert!(name.is_some());
        assert_eq!(recording_name("/S20160606/R201606060001170000.wav", &tenant), name);
        assert_eq!(recording_name("S20160606/R20160606000117.wav", &tenant), name, "the short form");
        for wrong in ["S20160607/R201606060001170000.wav", "Index/R201606060001170000.wav", "R1.wav", "", "/"]
        {
            assert_eq!(recording_name(wrong, &tenant), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_told_in_the_tenants_zone_and_never_fail() {
        let zone = tenant("Asia/Kolkata").zone;
        assert_eq!(zoned(1_465_171_200_250, &zone, false).to_rfc3339(), "2016-06-06T05:30:00.250+05:30");
        assert_eq!(zoned(1_465_171_200_250, &zone, true).to_rfc3339(), "2016-06-06T00:00:00.250+00:00");
        for nonsense in [i64::MIN, -1, i64::MAX] {
            let _ = zoned(nonsense, &zone, false).to_rfc3339();
        }
    }

    proptest! {
        #[test]
        fn cursors_come_back_as_they_were_told(tenant: u32, day: i32, second: u32, id in ".{0,40}", uid: [u8; 16]) {
            for position in [
                None,
                Some(Position::Named(Place { day, second, sequence: 7 })),
                Some(Position::Media(second, id)),
                Some(Position::Orphan(uid)),
            ] {
                let cursor = Cursor { tenant, position };
                prop_assert_eq!(Cursor::parse(&cursor.text().unwrap()).unwrap(), cursor);
            }
        }

        #[test]
        fn what_is_no_cursor_is_refused_or_harmless(text in "[A-Za-z0-9_-]{0,40}") {
            if let Err(error) = Cursor::parse(&text) {
                prop_assert!(error.to_string().starts_with("after: "));
            }
        }
    }
}

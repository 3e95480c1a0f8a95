//! From a row of an index to facts.
//!
//! Rows and files find each other by their path: DIRECTORY and FILENAME. All rows about one file have the same id, so
//! that the gateway keeps one of them: that of the fuller index, of the newer file of these, of the later line.
//!
//! The name of the file decides where a recording stands, for it is UTC and exact; START TIME is when the agent
//! answered, which may be another second. It is believed as long as it is near. Texts that can't be used as what their
//! column says are kept under a key of their own, as are columns that the gateway doesn't know.

use chrono::TimeDelta;
use chrono_tz::Tz;
use recgate_plugin_api::{Facts, JoinKey, JoinKind, fact};

use crate::columns::{self, Column, Row};
use crate::names::Medium;
use crate::text;
use crate::times::{Written, are_near, nearest, parse_length_ms};

/// The greatest case that readers of the index can take (they read it as a 32-bit integer).
const CASE_MAX: u64 = 2_147_483_647;
/// Bytes of a value that the gateway takes.
const VALUE_MAX: usize = 8192;
/// A time in UTC that differs more from that in the name is not believed: it is some other call's, or none.
const UTC_APART: TimeDelta = TimeDelta::hours(24);
/// The same for a local time: its zone, as configured, is not the one that it was written in.
const LOCAL_APART: TimeDelta = TimeDelta::minutes(29);

/// A call that is longer than this did not stop then.
const LENGTH_MAX: TimeDelta = TimeDelta::days(7);

/// What there is to know about a row besides its cells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The path of the file that the row is about, by which both find each other.
    pub(crate) path: &'a str,
    /// What the file's name says.
    pub(crate) medium: &'a Medium,
    /// See [`revision`].
    pub(crate) revision: u64,
    /// The zone of local times, where it is known.
    pub(crate) zone: Option<Tz>,
}

/// How much an index is believed beside others about the same recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The brief index of a day folder: the first twelve columns.
    Brief = 1,
    /// A root index.
    Root = 2,
    /// A root index that says it has all columns.
    RootFull = 3,
    /// The full index of a day folder.
    Full = 4,
}

/// The revision of a row's facts: by the index's rank, then its modification time, then the line.
pub(crate) fn revision(rank: Rank, modified_ns: i128, line: u64) -> u64 {
    const LINE_BITS: u32 = 26;
    const SECOND_BITS: u32 = 34;
    let seconds = u64::try_from(modified_ns.div_euclid(1_000_000_000)).unwrap_or(0);
    let seconds = seconds.min((1 << SECOND_BITS) - 1);
    let line = line.min((1 << LINE_BITS) - 1);
    (rank as u64) << (SECOND_BITS + LINE_BITS) | seconds << LINE_BITS | line
}

/// The facts of a row; `report` is told of what is wrong, and what is right goes on.
pub(crate) fn of(row: &Row<'_>, origin: Origin<'_>, report: &mut dyn FnMut(&str)) -> Facts {
    if row.is_too_long() {
        report("the row has more cells than the header; is a comma not quoted?");
    }
    let mut values = Values { row, values: Vec::new(), report };
    times(&mut values, origin);

    let call_type = row.cell(Column::CallType);
    match call_type.as_deref().map(letters).as_deref() {
        Some("inbound") => values.put(fact::CALL_TYPE, "inbound"),
        Some("outbound") => values.put(fact::CALL_TYPE, "outbound"),
        Some("directagentaccess" | "directagentaccesscall") => {
            values.put(fact::CALL_TYPE, "direct_agent_access");
        }
        _ => values.copy(fact::CALL_TYPE, Column::CallType),
    }
    match row.cell(Column::CaseId) {
        Some(case) if is_case(&case) => values.put(fact::CASE_ID, &case),
        Some(_) => values.keep(Column::CaseId),
        None => {}
    }
    match row.cell(Column::Queue).as_deref().map(letters).as_deref() {
        Some(way @ ("inbound" | "outbound")) => values.put(fact::QUEUE_TYPE, way),
        _ => values.copy(fact::QUEUE_TYPE, Column::Queue),
    }
    for (key, column) in [
        (fact::AGENT_NAME, Column::AgentName),
        (fact::CUSTOMER_NUMBER, Column::CustomerNumber),
        (fact::PHONE_CHANNEL, Column::PhoneChannel),
        (fact::CALLED_NUMBER, Column::CalledNumber),
        (fact::ACCOUNT, Column::Account),
        (fact::QUEUE_NAME, Column::QueueName),
        (fact::TRANSACTION_ID, Column::TransactionId),
        (fact::EXTERNAL_VARIABLE_1, Column::ExternalVariable1),
        (fact::EXTERNAL_VARIABLE_2, Column::ExternalVariable2),
        (fact::OUTDIAL_CODE, Column::OutdialCode),
        (fact::WRAP_UP_CODE, Column::WrapUpCode),
    ] {
        values.copy(key, column);
    }
    for (key, text) in row.unknown() {
        values.put(key, &text);
    }
    Facts {
        id: format!("row {}", origin.path),
        revision: origin.revision,
        gone: false,
        keys: vec![JoinKey { kind: JoinKind::ObjectKey, value: origin.path.to_owned() }],
        values: values.values,
    }
}

/// Values in the making.
struct Values<'r> {
    row: &'r Row<'r>,
    /// Key and value, in the order in which they are shown.
    values: Vec<(String, String)>,
    report: &'r mut dyn FnMut(&str),
}

impl Values<'_> {
    fn put(&mut self, key: &str, value: &str) {
        if value.len() > VALUE_MAX {
            (self.report)(&format!("{key} has {} bytes, it is cut to {VALUE_MAX}", value.len()));
        }
        self.values.push((key.to_owned(), text::cut(value, VALUE_MAX).to_owned()));
    }

    fn copy(&mut self, key: &str, column: Column) {
        if let Some(text) = self.row.cell(column) {
            self.put(key, &text);
        }
    }

    /// Keeps a text that can't be used as what it should be.
    fn keep(&mut self, column: Column) {
        self.copy(&columns::key(header(column)), column);
    }

    /// A time; one that can't be read is reported and kept.
    fn time(&mut self, column: Column) -> Option<Written> {
        let text = self.row.cell(column)?;
        let written = Written::parse(&text);
        if written.is_none() {
            // Never the text itself: where a comma isn't quoted it is a name or a number, which no log may have.
            (self.report)(&format!("{} is not a time such as 2016-06-06 17:30:00", header(column)));
            self.keep(column);
        }
        written
    }
}

/// `started_at`, `stopped_at` and `duration_ms`.
fn times(values: &mut Values<'_>, origin: Origin<'_>) {
    let named_ms = origin.medium.start_ms;
    let duration_ms = values.row.cell(Column::Duration).and_then(|text| {
        let ms = parse_length_ms(&text);
        if ms.is_none() {
            values.keep(Column::Duration);
        }
        ms
    });
    let length = duration_ms.and_then(|ms| i64::try_from(ms).ok());

    let utc = (values.time(Column::StartTimeUtc), values.time(Column::StopTimeUtc));
    let local = (values.time(Column::StartTime), values.time(Column::StopTime));
    let started = start(values, utc.0, local.0, origin);
    // From its start on, the call is as long as each of the two clocks says.
    let since = |(from, to): (Option<Written>, Option<Written>), started: i64| {
        let length = to?.since(&from?);
        started.checked_add(length)
    };
    let stopped = match started {
        Start::At(started) => {
            let by_utc = utc.1.and_then(|to| to.utc_ms());
            let by_zone = || {
                let near = started.saturating_add(length.unwrap_or(0));
                nearest(local.1?.local_ms(origin.zone?), near, Some(started))
            };
            by_utc.or_else(by_zone).or_else(|| since(local, started))
        }
        Start::Named(named) => since(utc, named).or_else(|| since(local, named)),
        Start::Unknown => utc.1.and_then(|to| to.utc_ms()),
    };
    let started = match started {
        Start::At(ms) | Start::Named(ms) => Some(ms),
        Start::Unknown => None,
    };
    let stopped = stopped.filter(|stopped| {
        let can_be = started
            .or(named_ms)
            .is_none_or(|started| *stopped >= started && are_near(*stopped, started, LENGTH_MAX));
        if !can_be {
            (values.report)("its stop is before its start, or more than a week after it, and is not used");
        }
        can_be
    });
    for (key, ms) in [(fact::STARTED_AT, started), (fact::STOPPED_AT, stopped)] {
        if let Some(ms) = ms {
            values.put(key, &ms.to_string());
        }
    }
    if let Some(ms) = duration_ms {
        values.put(fact::DURATION_MS, &ms.to_string());
    }
}

/// What is known about a start, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// The row says it, or the name, where the row says nothing.
    At(i64),
    /// The name says it, and the row something that can't be.
    Named(i64),
    /// Neither does.
    Unknown,
}

fn start(values: &mut Values<'_>, utc: Option<Written>, local: Option<Written>, origin: Origin<'_>) -> Start {
    let Some(named_ms) = origin.medium.start_ms else {
        let by_zone = || local?.local_ms(origin.zone?).into_iter().flatten().next();
        return utc.and_then(|at| at.utc_ms()).or_else(by_zone).map_or(Start::Unknown, Start::At);
    };
    // A time without seconds is that in the name where it is the same minute.
    let exact = |ms: i64, written: &Written| {
        let same_minute = ms.div_euclid(60_000) == named_ms.div_euclid(60_000);
        if !written.has_seconds && same_minute { named_ms } else { ms }
    };
    if let Some((written, ms)) = utc.and_then(|written| Some((written, written.utc_ms()?))) {
        if are_near(ms, named_ms, UTC_APART) {
            return Start::At(exact(ms, &written));
        }
        (values.report)("START TIME UTC is more than a day from the time in the name, which counts");
        values.keep(Column::StartTimeUtc);
        return Start::Named(named_ms);
    }
    // Nothing contradicts the name, so nothing speaks against the row's stop.
    let Some((written, zone)) = local.zip(origin.zone) else { return Start::At(named_ms) };
    match nearest(written.local_ms(zone), named_ms, None) {
        Some(ms) if are_near(ms, named_ms, LOCAL_APART) => Start::At(exact(ms, &written)),
        _ => {
            (values.report)(&format!(
                "START TIME is not the time in the name, which is UTC, in {zone}; the name counts. Is time_zone right?"
            ));
            values.keep(Column::StartTime);
            Start::Named(named_ms)
        }
    }
}

/// How the columns are called whose texts may not be what they should be.
fn header(column: Column) -> &'static str {
    match column {
        Column::CaseId => "CASEID",
        Column::Duration => "DURATION",
        Column::StartTime => "START TIME",
        Column::StopTime => "STOP TIME",
        Column::StartTimeUtc => "START TIME UTC",
        _ => "STOP TIME UTC",
    }
}

/// Its letters, small.
fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_case(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok_and(|case| case <= CASE_MAX)
}

#[cfg(test)]
mod tests;

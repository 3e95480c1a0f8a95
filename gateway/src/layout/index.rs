//! The rows of the index files: CSV after RFC 4180, UTF-8 without BOM, CRLF.
//!
//! Every row is one line, whatever a fact holds: control characters and the Unicode line separators become spaces,
//! so that readers that split lines before they look at quotes read them too. Commas and quotes are quoted, a
//! semicolon is text.
//!
//! These files are opened in spreadsheets, and facts come from callers. A cell that a spreadsheet would take for a
//! formula gets a leading `'`; a telephone number (`+` and up to 15 digits, ITU-T E.164) stays as it is.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime};

use super::{
    day::{END_UNIX_S, UtcDay},
    zone::TenantZone,
};

/// Which of the index files a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// `Index/I20160606.csv`: all media of a local date, all columns.
    Root,
    /// `S20160606/I20160606.csv`: the folder's WAVs, the first twelve columns.
    Brief,
    /// `S20160606/I20160606_version2.csv`: the folder's WAVs, all columns.
    Full,
    /// `S20160606/M20160606.csv`: the folder's other media, all columns.
    Media,
}

impl IndexKind {
    /// How many of the columns the file has.
    fn columns(self) -> usize {
        match self {
            Self::Brief => 12,
            Self::Root | Self::Full | Self::Media => COLUMNS.len(),
        }
    }
}

/// What an index says of a recording. An empty text is an empty cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexRow {
    /// `inbound`, `outbound` or `direct_agent_access`, which are spelled as 8x8 does; other text stays.
    pub call_type: String,
    /// Start of the recording in Unix seconds; outside the years 1970 to 9999 the nearest second inside is written.
    pub start_utc_s: i64,
    /// Stop of the recording in Unix seconds; outside the years 1970 to 9999 the nearest second inside is written.
    pub stop_utc_s: i64,
    /// The agent's name.
    pub agent_name: String,
    /// The customer's telephone number.
    pub customer_number: String,
    /// The number or trunk that the call came in by.
    pub phone_channel: String,
    /// The number that was dialled, of an outbound call.
    pub called_number: String,
    /// The case's number; what isn't all digits is written as nothing, because known readers cast it to an integer.
    pub case_id: String,
    /// Length of the recording in seconds.
    pub duration_s: Option<u64>,
    /// The recording's file name in the tenant's form.
    pub file_name: String,
    /// The folder that the file lies in.
    pub folder: UtcDay,
    /// The customer's account.
    pub account: String,
    /// The queue's type.
    pub queue: String,
    /// The queue's name.
    pub queue_name: String,
    /// The source's id of the call.
    pub transaction_id: String,
    /// A value of the tenant's own.
    pub external_variable_1: String,
    /// A value of the tenant's own.
    pub external_variable_2: String,
    /// The agent's code for an outbound call.
    pub outdial_code: String,
    /// The agent's code for the outcome.
    pub wrap_up_code: String,
}

/// The columns: as 8x8's help spells them, then as its `_version2` files do.
const COLUMNS: [(&str, &str); 21] = [
    ("CALL TYPE", "CALL TYPE"),
    ("START TIME", "START TIME"),
    ("STOP TIME", "STOP TIME"),
    ("AGENT NAME", "AGENT NAME"),
    ("CUSTOMER NUMBER", "CUSTOMER NUMBER"),
    ("PHONE CHANNEL", "PHONE CHANNEL"),
    ("CALLED NUMBER", "CALLED NUMBER"),
    ("CASEID", "CASEID"),
    ("DURATION", "DURATION"),
    ("FILENAME", "FILENAME"),
    ("DIRECTORY", "DIRECTORY"),
    ("ACCOUNT", "ACCOUNT NUMBER"),
    ("START TIME UTC", "START TIME UTC"),
    ("STOP TIME UTC", "STOP TIME UTC"),
    ("QUEUE", "QUEUE"),
    ("QUEUE NAME", "QUEUE NAME"),
    ("TRANSACTION ID", "TRANS ID"),
    ("EXTERNAL VARIABLE 1", "EXT VAR1"),
    ("EXTERNAL VARIABLE 2", "EXT VAR2"),
    ("OUTDIAL CODE", "OUT DIAL CODE"),
    ("WRAP UP CODE", "WRAP UP CODE"),
];

/// The file's first line with its line end.
pub fn header(kind: IndexKind) -> Vec<u8> {
    let mut line = Vec::with_capacity(300);
    let cells = COLUMNS.iter().map(|(help, version2)| match kind {
        IndexKind::Root | IndexKind::Brief => Cow::Borrowed(*help),
        IndexKind::Full | IndexKind::Media => Cow::Borrowed(*version2),
    });
    append_line(cells.take(kind.columns()), &mut line);
    line
}

/// Appends a row with its line end. START TIME and STOP TIME are written in the tenant's zone, the UTC columns without
/// a suffix (a known reader would shift a time that has one).
pub fn append_row(kind: IndexKind, row: &IndexRow, zone: &TenantZone, out: &mut Vec<u8>) {
    let cells: [Cow<'_, str>; COLUMNS.len()] = [
        text_cell(call_type(&row.call_type)),
        local_time(row.start_utc_s, zone).into(),
        local_time(row.stop_utc_s, zone).into(),
        text_cell(&row.agent_name),
        text_cell(&row.customer_number),
        text_cell(&row.phone_channel),
        text_cell(&row.called_number),
        digits_cell(&row.case_id),
        row.duration_s.map(|seconds| seconds.to_string()).unwrap_or_default().into(),
        text_cell(&row.file_name),
        row.folder.folder_name().into(),
        text_cell(&row.account),
        utc_time(row.start_utc_s).into(),
        utc_time(row.stop_utc_s).into(),
        text_cell(&row.queue),
        text_cell(&row.queue_name),
        text_cell(&row.transaction_id),
        text_cell(&row.external_variable_1),
        text_cell(&row.external_variable_2),
        text_cell(&row.outdial_code),
        text_cell(&row.wrap_up_code),
    ];
    append_line(cells.into_iter().take(kind.columns()), out);
}

fn append_line<'a>(cells: impl Iterator<Item = Cow<'a, str>>, out: &mut Vec<u8>) {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).buffer_capacity(512).from_writer(out);
    #[expect(clippy::expect_used, reason = "the writer fails when its target does, and a Vec doesn't")]
    writer
        .write_record(cells.map(Cow::into_owned).map(String::into_bytes))
        .and_then(|()| writer.flush().map_err(csv::Error::from))
        .expect("a Vec takes what is written to it");
}

/// 8x8's spelling of the three types that facts name.
fn call_type(fact: &str) -> &str {
    match fact {
        "inbound" => "Inbound",
        "outbound" => "Outbound",
        "direct_agent_access" => "Direct Agent Access",
        other => other,
    }
}

/// A text on one line that no spreadsheet takes for a formula.
fn text_cell(text: &str) -> Cow<'_, str> {
    let breaks_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    // Looked at before control characters are replaced: a tab at the start counts.
    let guarded = text.starts_with(|c: char| matches!(c, '=' | '+' | '-' | '@') || breaks_line(c))
        && !is_telephone_number(text);
    if !guarded && !text.contains(breaks_line) {
        return Cow::Borrowed(text);
    }
    let line = text.chars().map(|c| if breaks_line(c) { ' ' } else { c });
    guarded.then_some('\'').into_iter().chain(line).collect::<String>().into()
}

fn is_telephone_number(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| digits.len() <= 15 && is_digits(digits))
}

/// The text if it is all digits, else nothing.
fn digits_cell(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(if is_digits(text) { text } else { "" })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn local_time(unix_s: i64, zone: &TenantZone) -> String {
    let unix_s = within_range(unix_s);
    match zone.local(unix_s * 1000) {
        Some(local) => time(local.date_time),
        // The last hours of 9999 have the year 10000 in the east, which no reader could read.
        None => time(utc(END_UNIX_S - 1)),
    }
}

fn utc_time(unix_s: i64) -> String {
    time(utc(within_range(unix_s)))
}

fn within_range(unix_s: i64) -> i64 {
    unix_s.clamp(0, END_UNIX_S - 1)
}

fn utc(unix_s: i64) -> NaiveDateTime {
    // In range: both callers have checked it.
    DateTime::from_timestamp(unix_s, 0).unwrap_or_default().naive_utc()
}

fn time(time: NaiveDateTime) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

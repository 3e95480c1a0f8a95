//! The rows of the index files: CSV after RFC 4180, UTF-8 without BOM, CRLF.
//!
//! Every row is one line, whatever a fact holds: control characters and the Unicode line separators become spaces,
//! so that readers that split lines before they look at quotes read them too. Commas and quotes are quoted, a
//! semicolon is text.
//!
//! These files are opened in spreadsheets, and facts come from callers. A cell that a spreadsheet would take for a
//! formula gets a leading `'`; a telephone number (`+` and up to 15 digits, ITU-T E.164) stays as it is.

use std::borrow::Cow;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};

use super::{
    day::{END_UNIX_S, UtcDay},
    name::{NameForm, RecordingName},
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

impl IndexRow {
    /// Whether both are written alike.
    pub fn reads_like(&self, other: &Self) -> bool {
        self == other || cells(self, |_| String::new()) == cells(other, |_| String::new())
    }
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

/// How times are written.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

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
    append_line(cells(row, |unix_s| local_time(unix_s, zone)).into_iter().take(kind.columns()), out);
}

fn cells(row: &IndexRow, local: impl Fn(i64) -> String) -> [Cow<'_, str>; COLUMNS.len()] {
    [
        text_cell(call_type(&row.call_type)),
        local(row.start_utc_s).into(),
        local(row.stop_utc_s).into(),
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
    ]
}

/// Columns in the tenant's zone.
const LOCAL_TIMES: std::ops::RangeInclusive<usize> = 1..=2;

/// A line of an index file that was written before.
#[derive(Debug)]
pub struct IndexLine(Vec<String>);

impl IndexLine {
    /// Reads a whole line, its end included; `None` where it isn't one that [`append_row`] writes for this kind.
    pub fn read(kind: IndexKind, line: &[u8]) -> Option<Self> {
        let text = line.strip_suffix(b"\r\n")?;
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(text.len().clamp(1, 1 << 16))
            .from_reader(text);
        let mut records = reader.records();
        let record = records.next()?.ok()?;
        (record.len() == kind.columns() && records.next().is_none())
            .then(|| Self(record.iter().map(str::to_owned).collect()))
    }

    /// The recording that it is about, if DIRECTORY is where a recording of that name lies.
    pub fn name(&self, form: NameForm) -> Option<RecordingName> {
        let name = RecordingName::parse(self.cell(9), form)?;
        (UtcDay::parse_folder(self.cell(10))? == name.second.day()).then_some(name)
    }

    /// Whether it is what [`append_row`] would write for this row now, in whatever zone its local times were written.
    pub fn says(&self, row: &IndexRow) -> bool {
        let told = self.0.iter().zip(cells(row, |_| String::new())).enumerate();
        told.into_iter().all(|(column, (cell, expected))| LOCAL_TIMES.contains(&column) || *cell == *expected)
    }

    /// What it says; `None` where it lacks columns or has times that [`append_row`] doesn't write. Texts are such that
    /// they are written as they stand here, though they may have been longer once.
    pub fn row(&self) -> Option<IndexRow> {
        if self.0.len() != COLUMNS.len() {
            return None;
        }
        let text = |column| text_of_cell(self.cell(column)).to_owned();
        let duration = self.cell(8);
        Some(IndexRow {
            call_type: call_type_fact(&text(0)).to_owned(),
            start_utc_s: read_time(self.cell(12))?,
            stop_utc_s: read_time(self.cell(13))?,
            agent_name: text(3),
            customer_number: text(4),
            phone_channel: text(5),
            called_number: text(6),
            case_id: self.cell(7).to_owned(),
            duration_s: if duration.is_empty() { None } else { Some(duration.parse().ok()?) },
            file_name: text(9),
            folder: UtcDay::parse_folder(self.cell(10))?,
            account: text(11),
            queue: text(14),
            queue_name: text(15),
            transaction_id: text(16),
            external_variable_1: text(17),
            external_variable_2: text(18),
            outdial_code: text(19),
            wrap_up_code: text(20),
        })
    }

    fn cell(&self, column: usize) -> &str {
        self.0.get(column).map(String::as_str).unwrap_or_default()
    }
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

/// The fact that is spelled so in the file.
fn call_type_fact(cell: &str) -> &str {
    match cell {
        "Inbound" => "inbound",
        "Outbound" => "outbound",
        "Direct Agent Access" => "direct_agent_access",
        other => other,
    }
}

/// The text that a cell was written for: without the guard against spreadsheets, if it has one.
fn text_of_cell(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if text_cell(rest) == cell => rest,
        _ => cell,
    }
}

/// A text on one line that no spreadsheet takes for a formula.
pub fn text_cell(text: &str) -> Cow<'_, str> {
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

/// `yyyy-MM-dd HH:mm:ss`; by hand, because chrono reads its pattern anew for each of four cells a row.
fn time(time: NaiveDateTime) -> String {
    let mut text = String::with_capacity(19);
    let mut push = |number: u32, width: u32, behind: &str| {
        for place in (0..width).rev() {
            let digit = number / 10_u32.pow(place) % 10;
            text.push(char::from_digit(digit, 10).unwrap_or('0'));
        }
        text.push_str(behind);
    };
    push(u32::try_from(time.year()).unwrap_or(0), 4, "-");
    push(time.month(), 2, "-");
    push(time.day(), 2, " ");
    push(time.hour(), 2, ":");
    push(time.minute(), 2, ":");
    push(time.second(), 2, "");
    text
}

fn read_time(cell: &str) -> Option<i64> {
    Some(NaiveDateTime::parse_from_str(cell, TIME).ok()?.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;

    const KINDS: [IndexKind; 4] = [IndexKind::Root, IndexKind::Brief, IndexKind::Full, IndexKind::Media];

    fn los_angeles() -> TenantZone {
        TenantZone::new(Tz::America__Los_Angeles, vec![]).unwrap()
    }

    fn written(kind: IndexKind, row: &IndexRow) -> Vec<u8> {
        let mut out = Vec::new();
        append_row(kind, row, &los_angeles(), &mut out);
        out
    }

    /// The cells of the only row, as a CSV reader sees them.
    fn read(bytes: &[u8]) -> Vec<String> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
        let rows: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].iter().map(str::to_owned).collect()
    }

    fn sample() -> IndexRow {
        IndexRow {
            call_type: "direct_agent_access".into(),
            start_utc_s: 1_465_259_400,
            stop_utc_s: 1_465_259_461,
            agent_name: "Doe, \"Jo\"".into(),
            customer_number: "+12025553989".into(),
            phone_channel: "12025550100".into(),
            called_number: "12025550101".into(),
            case_id: "4711".into(),
            duration_s: Some(61),
            file_name: "R201606070030000000.wav".into(),
            folder: UtcDay::parse_folder("S20160607").unwrap(),
            account: "A1".into(),
            queue: "inbound".into(),
            queue_name: "Sales".into(),
            transaction_id: "10733".into(),
            external_variable_1: "one".into(),
            external_variable_2: "a;b".into(),
            outdial_code: "out".into(),
            wrap_up_code: "done".into(),
        }
    }

    #[test]
    fn headers_are_spelled_as_their_readers_expect() {
        let text = |kind| String::from_utf8(header(kind)).unwrap();
        assert_eq!(
            text(IndexKind::Root),
            "CALL TYPE,START TIME,STOP TIME,AGENT NAME,CUSTOMER NUMBER,PHONE CHANNEL,CALLED NUMBER,CASEID,DURATION,\
             FILENAME,DIRECTORY,ACCOUNT,START TIME UTC,STOP TIME UTC,QUEUE,QUEUE NAME,TRANSACTION ID,\
             EXTERNAL VARIABLE 1,EXTERNAL VARIABLE 2,OUTDIAL CODE,WRAP UP CODE\r\n"
        );
        assert_eq!(
            text(IndexKind::Brief),
            "CALL TYPE,START TIME,STOP TIME,AGENT NAME,CUSTOMER NUMBER,PHONE CHANNEL,CALLED NUMBER,CASEID,DURATION,\
             FILENAME,DIRECTORY,ACCOUNT\r\n"
        );
        assert_eq!(
            text(IndexKind::Full),
            "CALL TYPE,START TIME,STOP TIME,AGENT NAME,CUSTOMER NUMBER,PHONE CHANNEL,CALLED NUMBER,CASEID,DURATION,\
             FILENAME,DIRECTORY,ACCOUNT NUMBER,START TIME UTC,STOP TIME UTC,QUEUE,QUEUE NAME,TRANS ID,EXT VAR1,\
             EXT VAR2,OUT DIAL CODE,WRAP UP CODE\r\n"
        );
        assert_eq!(text(IndexKind::Media), text(IndexKind::Full));
    }

    #[test]
    fn a_row_has_every_column() {
        let line = "Direct Agent Access,2016-06-06 17:30:00,2016-06-06 17:31:01,\"Doe, \"\"Jo\"\"\",+12025553989,\
                    12025550100,12025550101,4711,61,R201606070030000000.wav,S20160607,A1";
        let rest = ",2016-06-07 00:30:00,2016-06-07 00:31:01,inbound,Sales,10733,one,a;b,out,done";
        assert_eq!(written(IndexKind::Brief, &sample()), format!("{line}\r\n").into_bytes());
        for kind in [IndexKind::Root, IndexKind::Full, IndexKind::Media] {
            assert_eq!(written(kind, &sample()), format!("{line}{rest}\r\n").into_bytes());
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut row = sample();
        row.agent_name = "=cmd|' /C calc'!A0, \"x\"".into();
        row.customer_number = "+1 202".into();
        for kind in KINDS {
            let line = IndexLine::read(kind, &written(kind, &row)).unwrap();
            assert_eq!(line.name(NameForm::Long).unwrap().text(NameForm::Long), row.file_name);
            assert!(line.says(&row));
            assert!(!line.says(&IndexRow { account: "A2".into(), ..row.clone() }));
            assert_eq!(line.row(), (kind != IndexKind::Brief).then(|| row.clone()), "{kind:?}");
        }
        let line = written(IndexKind::Root, &row);
        for torn in [0, 1, line.len() / 2, line.len() - 2, line.len() - 1] {
            assert!(IndexLine::read(IndexKind::Root, &line[..torn]).is_none(), "{torn}");
        }
        assert!(IndexLine::read(IndexKind::Brief, &line).is_none());
        assert!(IndexLine::read(IndexKind::Root, &line.repeat(2)).is_none());
        row.folder = UtcDay::parse_folder("S20160608").unwrap();
        let elsewhere = IndexLine::read(IndexKind::Full, &written(IndexKind::Full, &row)).unwrap();
        assert_eq!(elsewhere.name(NameForm::Long), None);
    }

    #[test]
    fn rows_are_appended() {
        let mut out = header(IndexKind::Root);
        append_row(IndexKind::Root, &sample(), &los_angeles(), &mut out);
        append_row(IndexKind::Root, &sample(), &los_angeles(), &mut out);
        assert_eq!(out, [header(IndexKind::Root), written(IndexKind::Root, &sample()).repeat(2)].concat());
    }

    #[test]
    fn call_types_are_spelled_as_8x8_does() {
        for (fact, cell) in [
            ("inbound", "Inbound"),
            ("outbound", "Outbound"),
            ("", ""),
            ("Monitor", "Monitor"),
            ("INBOUND", "INBOUND"),
        ] {
            let row = IndexRow { call_type: fact.into(), ..IndexRow::default() };
            assert_eq!(read(&written(IndexKind::Brief, &row))[0], cell);
        }
    }

    #[test]
    fn times_are_never_empty() {
        for (start, utc, local) in [
            (0, "1970-01-01 00:00:00", "1969-12-31 16:00:00"),
            (i64::MIN, "1970-01-01 00:00:00", "1969-12-31 16:00:00"),
            (i64::MAX, "9999-12-31 23:59:59", "9999-12-31 15:59:59"),
        ] {
            let row = IndexRow { start_utc_s: start, ..IndexRow::default() };
            let cells = read(&written(IndexKind::Full, &row));
            assert_eq!((cells[12].as_str(), cells[1].as_str()), (utc, local));
        }
        let mut out = Vec::new();
        let tokyo = TenantZone::new(Tz::Asia__Tokyo, vec![]).unwrap();
        let row = IndexRow { start_utc_s: i64::MAX, ..IndexRow::default() };
        append_row(IndexKind::Full, &row, &tokyo, &mut out);
        assert_eq!(read(&out)[1], "9999-12-31 23:59:59");
    }

    #[test]
    fn integers_are_digits_or_empty() {
        for (case_id, cell) in [
            ("0042", "0042"),
            ("", ""),
            ("+1", ""),
            ("4 2", ""),
            ("-1", ""),
            ("1e3", ""),
            ("٤", ""),
            ("12a", ""),
        ] {
            let row = IndexRow { case_id: case_id.into(), ..IndexRow::default() };
            let cells = read(&written(IndexKind::Full, &row));
            assert_eq!((cells[7].as_str(), cells[8].as_str()), (cell, ""), "{case_id:?}");
        }
        let row = IndexRow { duration_s: Some(0), ..IndexRow::default() };
        assert_eq!(read(&written(IndexKind::Full, &row))[8], "0");
    }

    #[test]
    fn formulas_are_guarded_and_telephone_numbers_stay() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+1+1", "'+1+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "' =1"),
            ("\r=1", "' =1"),
            ("\n=1", "' =1"),
            ("+12025553989", "+12025553989"),
            ("+123456789012345", "+123456789012345"),
            ("+1234567890123456", "'+1234567890123456"),
            ("+", "'+"),
            ("+1 202", "'+1 202"),
            ("+１", "'+１"),
            ("'=1", "'=1"),
            ("a=1", "a=1"),
            (" =1", " =1"),
            ("one\ntwo\u{2028}\u{0}\u{85}.", "one two   ."),
            ("Zoë 東京 🎧", "Zoë 東京 🎧"),
        ] {
            let row = IndexRow { agent_name: text.into(), ..IndexRow::default() };
            assert_eq!(read(&written(IndexKind::Brief, &row))[3], cell, "{text:?}");
        }
    }

    /// Texts full of what is special to CSV readers and spreadsheets.
    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof!["[=+@,;\"'\t\r\n\u{0}\u{2028}a1 -]{0,8}", "\\+[0-9]{0,17}", any::<String>()]
    }

    /// What a cell must read as, by its rules one after the other.
    fn expected(text: &str) -> String {
        let telephone = text.len() >= 2
            && text.len() <= 16
            && text.starts_with('+')
            && text[1..].chars().all(|c| c.is_ascii_digit());
        let starts = |set: &[char]| text.starts_with(set);
        let guarded = (starts(&['=', '+', '-', '@'])
            || text.starts_with(char::is_control)
            || starts(&['\u{2028}', '\u{2029}']))
            && !telephone;
        let line: String = text
            .chars()
            .map(|c| if c.is_control() || "\u{2028}\u{2029}".contains(c) { ' ' } else { c })
            .collect();
        if guarded { format!("'{line}") } else { line }
    }

    proptest! {
        #[test]
        fn a_row_reads_back_as_it_was_given(
            texts in proptest::collection::vec(any_text(), 14),
            times in (0..253_402_214_400_i64, 0..253_402_214_400_i64),
            duration_s in any::<Option<u64>>(),
            kind in proptest::sample::select(KINDS.as_slice()),
        ) {
            let row = IndexRow {
                call_type: texts[0].clone(),
                start_utc_s: times.0,
                stop_utc_s: times.1,
                agent_name: texts[1].clone(),
                customer_number: texts[2].clone(),
                phone_channel: texts[3].clone(),
                called_number: texts[4].clone(),
                case_id: texts[5].clone(),
                duration_s,
                file_name: "R20160606000117.wav".into(),
                folder: UtcDay::default(),
                account: texts[6].clone(),
                queue: texts[7].clone(),
                queue_name: texts[8].clone(),
                transaction_id: texts[9].clone(),
                external_variable_1: texts[10].clone(),
                external_variable_2: texts[11].clone(),
                outdial_code: texts[12].clone(),
                wrap_up_code: texts[13].clone(),
            };
            let bytes = written(kind, &row);
            // One line, whatever splits it.
            let line = std::str::from_utf8(&bytes).unwrap().strip_suffix("\r\n").unwrap();
            let splits = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            prop_assert!(!line.contains(splits));

            let cells = read(&bytes);
            prop_assert_eq!(cells.len(), if kind == IndexKind::Brief { 12 } else { 21 });
            let written = [(0, 0), (3, 1), (4, 2), (5, 3), (6, 4), (11, 6), (14, 7), (15, 8), (16, 9), (17, 10),
                (18, 11), (19, 12), (20, 13)];
            for (column, text) in written {
                if let Some(cell) = cells.get(column) {
                    prop_assert_eq!(cell, &expected(&texts[text]), "column {}", column);
                    let spared = cell.strip_prefix('+').is_some_and(|digits| is_digits(digits) && digits.len() <= 15);
                    prop_assert!(spared || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']));
                }
            }
            prop_assert!(cells[7].is_empty() || cells[7] == texts[5]);
            prop_assert!(cells[7].bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(cells[8].parse::<u64>().ok(), duration_s);
            prop_assert_eq!(cells[9].as_str(), "R20160606000117.wav");
            prop_assert_eq!(cells[10].as_str(), "S19700101");
            // Whatever was written, what is read from it is written the same.
            let line = IndexLine::read(kind, &bytes).unwrap();
            prop_assert!(line.says(&row));
            if let Some(read) = line.row() {
                prop_assert_eq!(self::written(kind, &read), &bytes[..]);
            }
            if kind != IndexKind::Brief {
                for (column, unix_s) in [(12, times.0), (13, times.1)] {
                    let read = NaiveDateTime::parse_from_str(&cells[column], "%Y-%m-%d %H:%M:%S").unwrap();
                    prop_assert_eq!(read.and_utc().timestamp(), unix_s);
                }
            }
        }
    }
}

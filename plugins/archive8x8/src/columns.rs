//! The columns of index files, by their headers.
//!
//! Two spellings are known: that of the vendor's manual and that of the files in the field. Letters and digits decide,
//! in any order of columns; what isn't known is kept under a key of its own.

use std::borrow::Cow;

use csv::ByteRecord;

use crate::text;

/// A column that means something to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    CallType,
    StartTime,
    StopTime,
    AgentName,
    CustomerNumber,
    PhoneChannel,
    CalledNumber,
    CaseId,
    Duration,
    FileName,
    Directory,
    Account,
    StartTimeUtc,
    StopTimeUtc,
    Queue,
    QueueName,
    TransactionId,
    ExternalVariable1,
    ExternalVariable2,
    OutdialCode,
    WrapUpCode,
}

/// Spellings without spaces, and what they mean.
const SPELLINGS: [(&str, Column); 30] = [
    ("CALLTYPE", Column::CallType),
    ("STARTTIME", Column::StartTime),
    ("STOPTIME", Column::StopTime),
    ("AGENTNAME", Column::AgentName),
    ("CUSTOMERNUMBER", Column::CustomerNumber),
    ("PHONECHANNEL", Column::PhoneChannel),
    ("CALLEDNUMBER", Column::CalledNumber),
    ("CASEID", Column::CaseId),
    ("DURATION", Column::Duration),
    ("FILENAME", Column::FileName),
    ("DIRECTORY", Column::Directory),
    ("ACCOUNT", Column::Account),
    ("ACCOUNTNUMBER", Column::Account),
    ("STARTTIMEUTC", Column::StartTimeUtc),
    ("STOPTIMEUTC", Column::StopTimeUtc),
    ("QUEUE", Column::Queue),
    ("QUEUENAME", Column::QueueName),
    ("TRANSACTIONID", Column::TransactionId),
    ("TRANSID", Column::TransactionId),
    ("EXTERNALVARIABLE1", Column::ExternalVariable1),
    ("EXTVAR1", Column::ExternalVariable1),
    ("EXTVARIABLE1", Column::ExternalVariable1),
    ("EXTERNALVAR1", Column::ExternalVariable1),
    ("EXTERNALVARIABLE2", Column::ExternalVariable2),
    ("EXTVAR2", Column::ExternalVariable2),
    ("EXTVARIABLE2", Column::ExternalVariable2),
    ("EXTERNALVAR2", Column::ExternalVariable2),
    ("OUTDIALCODE", Column::OutdialCode),
    ("WRAPUPCODE", Column::WrapUpCode),
    ("WRAPUP", Column::WrapUpCode),
];

/// Unknown columns that are kept; the gateway takes 256 values in all.
const UNKNOWN_MAX: usize = 128;
/// Bytes of a key; the gateway takes 128.
const KEY_MAX: usize = 100;

/// Which cell of a row is what.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    known: Vec<(Column, usize)>,
    /// Key and place of what isn't known.
    unknown: Vec<(String, usize)>,
    /// How many cells a row has.
    width: usize,
    /// Headers that came twice, of which the first counts, or were too many.
    pub(crate) ignored: Vec<String>,
}

impl Columns {
    /// Reads a header line.
    pub(crate) fn parse(header: &ByteRecord) -> Self {
        let mut columns = Self { width: header.len(), ..Self::default() };
        for (at, cell) in header.iter().enumerate() {
            let decoded = text::decode(cell);
            let header = decoded.trim_start_matches('\u{feff}').trim();
            let key = key(header);
            match known(header) {
                Some(column) if columns.place(column).is_none() => columns.known.push((column, at)),
                // A column without a header: a comma at the end of the line.
                None if header.is_empty() => {}
                None if columns.unknown.len() < UNKNOWN_MAX
                    && columns.unknown.iter().all(|(known, _)| *known != key) =>
                {
                    columns.unknown.push((key, at));
                }
                _ if columns.ignored.len() < 3 => columns.ignored.push(text::cut(header, KEY_MAX).to_owned()),
                _ => {}
            }
        }
        columns
    }

    /// Whether the file has this column.
    pub(crate) fn has(&self, column: Column) -> bool {
        self.place(column).is_some()
    }

    fn place(&self, column: Column) -> Option<usize> {
        self.known.iter().find(|(known, _)| *known == column).map(|(_, at)| *at)
    }
}

/// A row of an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'r> {
    pub(crate) columns: &'r Columns,
    pub(crate) record: &'r ByteRecord,
}

impl<'r> Row<'r> {
    /// What stands in a column; `None` where the file doesn't have it or the cell is empty.
    pub(crate) fn cell(&self, column: Column) -> Option<Cow<'r, str>> {
        self.text(self.columns.place(column)?)
    }

    /// Key and text of the cells that the gateway doesn't know and that aren't empty.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = (&'r str, Cow<'r, str>)> {
        let row = *self;
        self.columns.unknown.iter().filter_map(move |(key, at)| Some((key.as_str(), row.text(*at)?)))
    }

    /// The row has more cells than the header: something in it is not quoted as it should be.
    pub(crate) fn is_too_long(&self) -> bool {
        let beyond = self.record.iter().skip(self.columns.width);
        beyond.into_iter().any(|cell| !cell.is_empty())
    }

    fn text(&self, at: usize) -> Option<Cow<'r, str>> {
        let text = match text::decode(self.record.get(at)?) {
            Cow::Borrowed(text) => Cow::Borrowed(text::unguarded(text)),
            Cow::Owned(text) => Cow::Owned(text::unguarded(&text).to_owned()),
        };
        (!text.is_empty()).then_some(text)
    }
}

/// The key under which a column's text is kept: `index_` and its words in small letters.
pub(crate) fn key(header: &str) -> String {
    let mut key = "index".to_owned();
    for word in header.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        key.push('_');
        key.push_str(&word.to_lowercase());
    }
    text::cut(&key, KEY_MAX).to_owned()
}

fn known(header: &str) -> Option<Column> {
    let letters: String =
        header.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_uppercase()).collect();
    SPELLINGS.iter().find(|(spelling, _)| *spelling == letters).map(|(_, column)| *column)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const MANUAL: &str = "CALL TYPE,START TIME,STOP TIME,AGENT NAME,CUSTOMER NUMBER,PHONE CHANNEL,CALLED NUMBER,\
        CASEID,DURATION,FILENAME,DIRECTORY,ACCOUNT,START TIME UTC,STOP TIME UTC,QUEUE,QUEUE NAME,TRANSACTION ID,\
        EXTERNAL VARIABLE 1,EXTERNAL VARIABLE 2,OUTDIAL CODE,WRAP UP CODE";
    const FIELD: &str = "CALL TYPE,START TIME,STOP TIME,AGENT NAME,CUSTOMER NUMBER,PHONE CHANNEL,CALLED NUMBER,\
        CASEID,DURATION,FILENAME,DIRECTORY,ACCOUNT NUMBER,START TIME UTC,STOP TIME UTC,QUEUE,QUEUE NAME,TRANS ID,\
        EXT VAR1,EXT VAR2,OUT DIAL CODE,WRAP UP CODE";

    fn record(line: &str) -> ByteRecord {
        ByteRecord::from(line.split(',').collect::<Vec<_>>())
    }

    #[test]
    fn both_spellings_mean_the_same() {
        for line in [MANUAL, FIELD, &FIELD.to_lowercase(), &FIELD.replace(' ', "_"), &FIELD.replace(' ', "")]
        {
            let columns = Columns::parse(&record(line));
            let found: Vec<Column> = columns.known.iter().map(|(column, _)| *column).collect();
            assert_eq!(found.len(), 21, "{line}");
            assert_eq!(
                (found[0], found[11], found[20]),
                (Column::CallType, Column::Account, Column::WrapUpCode)
            );
            assert!(columns.unknown.is_empty() && columns.ignored.is_empty());
        }
    }

    #[test]
    fn columns_come_in_any_order_and_unknown_ones_are_kept() {
        let columns =
            Columns::parse(&record("\u{feff}FILENAME, Case Id ,Skill / Level,FILENAME,Skill-Level,"));
        let record = record("a.wav,'+1,gold,b.wav,silver,");
        let row = Row { columns: &columns, record: &record };
        assert_eq!(row.cell(Column::FileName).unwrap(), "a.wav");
        assert_eq!(row.cell(Column::CaseId).unwrap(), "+1");
        assert_eq!(row.cell(Column::Account), None);
        assert_eq!(row.unknown().collect::<Vec<_>>(), [("index_skill_level", Cow::Borrowed("gold"))]);
        assert_eq!(columns.ignored, ["FILENAME", "Skill-Level"]);
        assert!(!row.is_too_long());
    }

    #[test]
    fn rows_may_be_shorter_than_their_header_and_longer() {
        let columns = Columns::parse(&record("FILENAME,ACCOUNT"));
        let short = record("a.wav");
        assert_eq!(Row { columns: &columns, record: &short }.cell(Column::Account), None);
        let empty = record("a.wav,1,,");
        assert!(!Row { columns: &columns, record: &empty }.is_too_long());
        let long = record("a.wav,1,2");
        assert!(Row { columns: &columns, record: &long }.is_too_long());
    }

    #[test]
    fn a_header_line_can_be_anything() {
        let wide: Vec<String> = (0..1000).map(|n| format!("column {n}")).collect();
        let columns = Columns::parse(&ByteRecord::from(wide));
        assert_eq!((columns.unknown.len(), columns.ignored.len()), (UNKNOWN_MAX, 3));
        assert_eq!(key(&"é".repeat(200)).len(), KEY_MAX);
        assert_eq!(key("\u{202e}\n"), "index");
        let columns = Columns::parse(&ByteRecord::from(vec![&b"D\xe9partement"[..]]));
        assert_eq!(columns.unknown, [("index_département".to_owned(), 0)]);
    }
}

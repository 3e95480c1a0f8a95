#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use chrono::DateTime;
use clap::Parser;
use uuid::Uuid;

use super::*;
use crate::admin::records::{
    ErasedReport, FactsReport, KeyReport, PublishedReport, SharedReport, ToldReport, ValueReport,
};

fn time(text: &str) -> DateTime<chrono::FixedOffset> {
    DateTime::parse_from_rfc3339(text).unwrap()
}

fn row() -> RecordingRow {
    RecordingRow {
        tenant: "acme".to_owned(),
        uid: Uuid::from_u128(7),
        state: State::Published,
        folder: Some("S20160607".to_owned()),
        name: Some("R201606070030000000.wav".to_owned()),
        start: time("2016-06-06T17:30:00.250-07:00"),
        stop: time("2016-06-06T17:31:00-07:00"),
        duration_ms: Some(3_659_750),
        size: 44,
        source: "pbx".to_owned(),
        media: "a,\"b\".wav".to_owned(),
        call_type: Some("inbound".to_owned()),
        agent_name: Some("=Björn\u{1b}[2J".to_owned()),
        customer_number: Some("+12025550143".to_owned()),
        called_number: None,
        queue_name: Some("Support".to_owned()),
        transaction_id: Some("7".to_owned()),
    }
}

fn orphan() -> RecordingRow {
    RecordingRow {
        state: State::Orphan,
        folder: None,
        name: None,
        duration_ms: None,
        agent_name: None,
        customer_number: None,
        queue_name: None,
        ..row()
    }
}

fn printed(mut printer: Printer, pages: &[Vec<RecordingRow>]) -> String {
    let mut bytes = Vec::new();
    let mut output = Output::new(&mut bytes);
    for page in pages {
        printer.print(page, &mut output).unwrap();
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_table_has_a_line_a_recording() {
    let table = Printer::Table(Table::new(&TITLES, None));
    let text = printed(table, &[vec![row(), orphan()], Vec::new(), vec![row()]]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("START                LENGTH   STATE"), "{text}");
    assert_eq!(
        lines[1].split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>(),
        [
            "2016-06-06 17:30:00",
            "1:01:00",
            "published",
            "R201606070030000000.wav",
            "=Björn\u{FFFD}[2J",
            "+12025550143",
            "Support",
            "acme/pbx"
        ]
    );
    assert!(lines[2].contains("orphan") && lines[2].contains(&Uuid::from_u128(7).to_string()), "{text}");
    for width in [80, 100] {
        let text = printed(Printer::Table(Table::new(&TITLES, Some(width))), &[vec![row()]]);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        assert!(text.contains("R201606070030000000.wav"), "the name stays whole: {text}");
    }
}

#[test]
fn csv_is_for_spreadsheets_and_json_for_programs() {
    let text = printed(Printer::Csv { begun: false }, &[vec![row()], vec![orphan()]]);
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap().len(), CSV_TITLES.len());
    let rows: Vec<_> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 2);
    let cell =
        |at: usize, title: &str| &rows[at][CSV_TITLES.iter().position(|known| *known == title).unwrap()];
    assert_eq!(cell(0, "MEDIA"), "a,\"b\".wav");
    assert_eq!(cell(0, "AGENT NAME"), "'=Björn [2J", "no spreadsheet takes it for a formula");
    assert_eq!(cell(0, "CUSTOMER NUMBER"), "+12025550143");
    assert_eq!(cell(0, "PATH"), "S20160607/R201606070030000000.wav");
    assert_eq!(cell(0, "START"), "2016-06-06T17:30:00.250-07:00");
    assert_eq!((cell(1, "STATE"), cell(1, "NAME")), ("orphan", ""));
    let header = printed(Printer::Csv { begun: false }, &[Vec::new()]);
    assert_eq!(header.lines().count(), 1, "the titles come without a row");

    let text = printed(Printer::Json, &[vec![row()], vec![orphan()]]);
    let rows: Vec<RecordingRow> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, [row(), orphan()]);
    let mut bytes = Vec::new();
    Printer::Json.end(Some("x".to_owned()), &mut Output::new(&mut bytes)).unwrap();
    assert_eq!(bytes, b"{\"after\":\"x\"}\n");
}

#[test]
fn lengths_are_told_in_minutes() {
    for (ms, text) in [(0, "0:00"), (59_499, "0:59"), (59_500, "1:00"), (3_600_000, "1:00:00")] {
        assert_eq!(length(ms), text);
    }
}

#[test]
fn a_report_says_where_each_value_comes_from() {
    let key = KeyReport { kind: "contact_id".to_owned(), value: "c".to_owned() };
    let report = RecordingReport {
        row: row(),
        published: Some(PublishedReport {
            root_index: "Index/I20160606.csv".to_owned(),
            publication: 3,
            modified: time("2016-06-06T17:31:00-07:00"),
            version: "v1".to_owned(),
            patched_bytes: 44,
        }),
        told: Some(ToldReport {
            version: "v1".to_owned(),
            size: 44,
            media_type: "audio/wav".to_owned(),
            state: "available".to_owned(),
            start: None,
            changed: None,
            duration_ms: None,
            keys: vec![key.clone()],
        }),
        waits_until: None,
        values: [
            (
                "agent_name".to_owned(),
                ValueReport { value: "Björn".to_owned(), from: Some("cdr-7".to_owned()) },
            ),
            ("queue_name".to_owned(), ValueReport { value: "Support".to_owned(), from: None }),
        ]
        .into(),
        facts: vec![FactsReport {
            id: "cdr-7".to_owned(),
            revision: 2,
            gone: true,
            keys: vec![key],
            values: [].into(),
        }],
        erased: Some(ErasedReport { at: time("2020-01-01T00:00:00Z"), by: "root".to_owned(), reason: None }),
    };
    let text = report_lines(&report).join("\n");
    for line in [
        "recording 00000000-0000-0000-0000-000000000007 of acme",
        "name: S20160607/R201606070030000000.wav",
        "root index: Index/I20160606.csv",
        "header: its first 44 bytes are corrected",
        "key: contact_id c",
        "agent_name: Björn (from cdr-7)",
        "queue_name: Support (no longer told)",
        "facts cdr-7: revision 2, withdrawn, by contact_id c",
        "personal values erased at 2020-01-01T00:00:00+00:00 by root: the reason was erased",
    ] {
        assert!(text.lines().any(|known| known == line), "{line:?} in {text}");
    }
}

#[test]
fn an_erasure_says_what_it_does_and_what_stays() {
    let report = EraseReport {
        tenant: "acme".to_owned(),
        path: Some("S1/R1.wav".to_owned()),
        dry_run: true,
        needed: true,
        values: vec!["agent_name".to_owned()],
        facts: vec!["cdr-1".to_owned()],
        shared: vec![SharedReport { facts: "call".to_owned(), recordings: vec![Uuid::from_u128(8)] }],
        indexes: vec!["Index/I1.csv".to_owned(), "S1".to_owned()],
        ..EraseReport::default()
    };
    let text = erase_lines(&report).join("\n");
    assert!(text.starts_with("S1/R1.wav of acme: would be erased: agent_name\n"), "{text}");
    assert!(text.contains("facts call stay for 1 other recording: 00000000-"), "{text}");
    assert!(text.ends_with("indexes of Index/I1.csv, S1: would be written anew"), "{text}");
    let done = EraseReport { dry_run: false, shared: Vec::new(), ..report };
    assert!(erase_lines(&done).join("\n").ends_with("written anew, older generations removed"));
    let before = ErasedReport { at: time("2020-01-01T00:00:00Z"), by: "root".to_owned(), reason: None };
    let again = EraseReport {
        needed: false,
        before: Some(before),
        values: Vec::new(),
        facts: Vec::new(),
        indexes: Vec::new(),
        ..done
    };
    assert!(erase_lines(&again)[0].ends_with("by root; nothing has come since"));
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Subcommands,
}

#[test]
fn the_command_line_is_checked_before_anybody_is_asked() {
    let parse = |words: &[&str]| Line::try_parse_from([&["recording"], words].concat());
    parse(&["list", "--state", "orphan", "--from", "2016-06-06", "--limit", "5", "--csv"]).unwrap();
    for wrong in [
        &["list", "--state", "lost"][..],
        &["list", "--limit", "0"],
        &["list", "--json", "--csv"],
        &["show"],
        &["erase-facts", "x"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    parse(&["erase-facts", "x", "--dry-run"]).unwrap();
    let help = parse(&["erase-facts", "--help"]).unwrap_err().to_string();
    for key in KEPT_FACTS {
        assert!(help.contains(key), "{help}");
    }
}

//! The conversions that vendors' samples and documents show, end to end.
#![allow(clippy::unwrap_used)]

use chrono::DateTime;
use chrono_tz::Tz;

use super::{
    Extension, IndexKind, IndexRow, LocalDay, NameForm, RecordingName, TenantZone, UtcDay, UtcSecond,
    append_row,
};

fn ms(utc: &str) -> i64 {
    DateTime::parse_from_rfc3339(utc).unwrap().timestamp_millis()
}

/// Folder and file name of a WAV, in the long form.
fn path(start: &str, sequence: u32) -> String {
    let second = UtcSecond::from_unix_ms(ms(start)).unwrap();
    let name = RecordingName { second, sequence, extension: Extension::WAV };
    format!("{}/{}", second.day().folder_name(), name.text(NameForm::Long))
}

fn zone(zone: Tz) -> TenantZone {
    TenantZone::new(zone, vec![]).unwrap()
}

fn day(index_name: &str) -> LocalDay {
    LocalDay::parse_index_name(index_name).unwrap()
}

/// START TIME and START TIME UTC of a root index's row.
fn start_cells(zone: &TenantZone, start: &str) -> (String, String) {
    let row = IndexRow { start_utc_s: ms(start) / 1000, ..IndexRow::default() };
    let mut line = Vec::new();
    append_row(IndexKind::Root, &row, zone, &mut line);
    let line = String::from_utf8(line).unwrap();
    let cell = |column| line.split(',').nth(column).unwrap().to_owned();
    (cell(1), cell(12))
}

/// Start and end of a date.
fn span(zone: &TenantZone, day: LocalDay) -> (i64, i64) {
    (zone.start_of(day).unwrap(), zone.end_of(day).unwrap())
}

#[test]
fn the_8x8_sample() {
    assert_eq!(ms("2021-03-10T17:40:42.234Z"), 1_615_398_042_234);
    assert_eq!(path("2021-03-10T17:40:42.234Z", 23), "S20210310/R202103101740420023.wav");
}

#[test]
fn a_wazo_start_is_truncated() {
    assert_eq!(path("2021-05-14T17:47:16.701984Z", 0), "S20210514/R202105141747160000.wav");
    assert_eq!(path("2021-05-14T17:47:16.999999Z", 0), "S20210514/R202105141747160000.wav");
}

#[test]
fn connect_contact_records() {
    assert_eq!(path("2019-08-13T18:15:23Z", 0), "S20190813/R201908131815230000.wav");
    assert_eq!(path("2020-03-31T16:20:16Z", 0), "S20200331/R202003311620160000.wav");
}

#[test]
fn a_connect_key_without_a_contact_record() {
    assert_eq!(path("2022-04-07T13:14:00Z", 0), "S20220407/R202204071314000000.wav");
}

#[test]
fn a_call_of_the_evening_in_los_angeles_lies_in_the_next_utc_folder() {
    let zone = zone(Tz::America__Los_Angeles);
    let start = "2016-06-07T00:30:00Z";
    assert_eq!(path(start, 0), "S20160607/R201606070030000000.wav");
    assert_eq!(zone.day_of(ms(start)).unwrap().index_name(), "I20160606.csv");
    assert_eq!(start_cells(&zone, start), ("2016-06-06 17:30:00".into(), "2016-06-07 00:30:00".into()));
    // The whole local day lies in two folders.
    let (start, end) = span(&zone, day("I20160606.csv"));
    assert_eq!(UtcDay::from_unix_ms(start), UtcDay::parse_folder("S20160606"));
    assert_eq!(UtcDay::from_unix_ms(end - 1), UtcDay::parse_folder("S20160607"));
}

#[test]
fn an_hour_repeats_in_local_time_and_not_in_utc() {
    let zone = zone(Tz::America__Los_Angeles);
    let summer = start_cells(&zone, "2016-11-06T08:59:59Z");
    let winter = start_cells(&zone, "2016-11-06T09:00:00Z");
    assert_eq!(summer, ("2016-11-06 01:59:59".into(), "2016-11-06 08:59:59".into()));
    assert_eq!(winter, ("2016-11-06 01:00:00".into(), "2016-11-06 09:00:00".into()));
}

#[test]
fn days_of_23_and_25_hours() {
    let zone = zone(Tz::America__Los_Angeles);
    let spring = (ms("2016-03-13T08:00:00Z"), ms("2016-03-14T07:00:00Z"));
    assert_eq!(span(&zone, day("I20160313.csv")), spring);
    let autumn = (ms("2016-11-06T07:00:00Z"), ms("2016-11-07T08:00:00Z"));
    assert_eq!(span(&zone, day("I20161106.csv")), autumn);
}

#[test]
fn a_tenant_in_utc_has_the_same_rows_in_both_indexes() {
    let zone = zone(Tz::UTC);
    for folder in ["S19700101", "S20160229", "S20161231", "S99991231"] {
        let utc = UtcDay::parse_folder(folder).unwrap();
        let local = LocalDay::from_number(utc.number()).unwrap();
        assert_eq!(local.index_name(), utc.brief_index_name());
        let start = utc.start_unix_s() * 1000;
        assert_eq!(span(&zone, local), (start, start + 86_400_000));
    }
    let (local, utc) = start_cells(&zone, "2016-06-06T12:34:56Z");
    assert_eq!(local, utc);
}

#[test]
fn a_day_in_kolkata_lies_in_two_folders() {
    let span = span(&zone(Tz::Asia__Kolkata), day("I20240115.csv"));
    assert_eq!(span, (ms("2024-01-14T18:30:00Z"), ms("2024-01-15T18:30:00Z")));
    assert_eq!(UtcDay::from_unix_ms(span.0), UtcDay::parse_folder("S20240114"));
    assert_eq!(UtcDay::from_unix_ms(span.1 - 1), UtcDay::parse_folder("S20240115"));
}

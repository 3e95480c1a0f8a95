#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use csv::ByteRecord;
use proptest::prelude::*;

use super::*;
use crate::columns::Columns;
use crate::names::FileName;

const PATH: &str = "S20160606/R201606061730050000.wav";
/// 2016-06-06T17:30:05Z, 10:30:05 in Los Angeles.
const NAMED: i64 = 1_465_234_205_000;

/// The values of a row, and what was reported.
fn facts_in(zone: Option<Tz>, name: &str, cells: &[(&str, &str)]) -> (BTreeMap<String, String>, Vec<String>) {
    let header = ByteRecord::from(cells.iter().map(|(header, _)| *header).collect::<Vec<_>>());
    let record = ByteRecord::from(cells.iter().map(|(_, cell)| *cell).collect::<Vec<_>>());
    let columns = Columns::parse(&header);
    let medium = FileName::medium(name).unwrap();
    let origin = Origin { path: PATH, medium: &medium, revision: 7, zone };
    let mut reports = Vec::new();
    let facts = of(&Row { columns: &columns, record: &record }, origin, &mut |report| {
        reports.push(report.to_owned());
    });
    assert_eq!((facts.id, facts.revision, facts.gone), (format!("row {PATH}"), 7, false));
    assert_eq!(facts.keys, [JoinKey { kind: JoinKind::ObjectKey, value: PATH.to_owned() }]);
    let count = facts.values.len();
    let values: BTreeMap<_, _> = facts.values.into_iter().collect();
    assert_eq!(values.len(), count, "a key came twice");
    (values, reports)
}

fn facts(cells: &[(&str, &str)]) -> (BTreeMap<String, String>, Vec<String>) {
    facts_in(Some(Tz::America__Los_Angeles), "R201606061730050000.wav", cells)
}

fn ms(values: &BTreeMap<String, String>, key: &str) -> Option<i64> {
    values.get(key).map(|text| text.parse().unwrap())
}

/// Start and stop after the start in the name.
fn span(values: &BTreeMap<String, String>) -> (Option<i64>, Option<i64>) {
    let after = |key| ms(values, key).map(|at| at - NAMED);
    (after(fact::STARTED_AT), after(fact::STOPPED_AT))
}

#[test]
fn a_full_row_becomes_facts() {
    let (values, reports) = facts(&[
        ("CALL TYPE", "Direct Agent Access call"),
        ("START TIME", "2016-06-06 10:30:05"),
        ("STOP TIME", "2016-06-06 10:31:06"),
        ("AGENT NAME", "Björn Ågren"),
        ("CUSTOMER NUMBER", "'+1 202 555 0143"),
        ("PHONE CHANNEL", "18005550100"),
        ("CALLED NUMBER", "912025550143"),
        ("CASEID", "4711"),
        ("DURATION", "61"),
        ("FILENAME", "R201606061730050000.wav"),
        ("DIRECTORY", "S20160606"),
        ("ACCOUNT NUMBER", "A1"),
        ("START TIME UTC", "2016-06-06 17:30:05"),
        ("STOP TIME UTC", "2016-06-06 17:31:06"),
        ("QUEUE", "Inbound"),
        ("QUEUE NAME", "Sales"),
        ("TRANS ID", "10733"),
        ("EXT VAR1", "one"),
        ("EXT VAR2", "two"),
        ("OUT DIAL CODE", "out"),
        ("WRAP UP CODE", "done"),
        ("SKILL", "gold"),
    ]);
    assert_eq!(reports, [""; 0]);
    let expected = [
        (fact::CALL_TYPE, "direct_agent_access"),
        (fact::STARTED_AT, "1465234205000"),
        (fact::STOPPED_AT, "1465234266000"),
        (fact::DURATION_MS, "61000"),
        (fact::AGENT_NAME, "Björn Ågren"),
        (fact::CUSTOMER_NUMBER, "+1 202 555 0143"),
        (fact::PHONE_CHANNEL, "18005550100"),
        (fact::CALLED_NUMBER, "912025550143"),
        (fact::CASE_ID, "4711"),
        (fact::ACCOUNT, "A1"),
        (fact::QUEUE_TYPE, "inbound"),
        (fact::QUEUE_NAME, "Sales"),
        (fact::TRANSACTION_ID, "10733"),
        (fact::EXTERNAL_VARIABLE_1, "one"),
        (fact::EXTERNAL_VARIABLE_2, "two"),
        (fact::OUTDIAL_CODE, "out"),
        (fact::WRAP_UP_CODE, "done"),
        ("index_skill", "gold"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(values, BTreeMap::from(expected));
}

#[test]
fn utc_counts_before_local_time() {
    let (values, reports) = facts(&[
        ("START TIME UTC", "2016-06-06 17:30:07"),
        ("START TIME", "2016-06-06 01:00:00"),
        ("STOP TIME UTC", "2016-06-06 17:31:00"),
        ("STOP TIME", "2016-06-06 02:00:00"),
    ]);
    assert_eq!((span(&values), reports.len()), ((Some(2000), Some(55_000)), 0));
}

#[test]
fn local_times_need_a_zone_and_the_name_helps() {
    let local = [("START TIME", "6/6/2016 10:30:07 AM"), ("STOP TIME", "6/6/2016 10:31:05 AM")];
    let (values, reports) = facts(&local);
    assert_eq!((span(&values), reports.len()), ((Some(2000), Some(60_000)), 0));
    // Without a zone the name says the start, and both times how long it took.
    let (values, reports) = facts_in(None, "R201606061730050000.wav", &local);
    assert_eq!((span(&values), reports.len()), ((Some(0), Some(58_000)), 0));
    // With a wrong one too, and it is said.
    let (values, reports) = facts_in(Some(Tz::Asia__Kolkata), "R201606061730050000.wav", &local);
    assert_eq!(span(&values), (Some(0), Some(58_000)));
    assert_eq!(values["index_start_time"], "6/6/2016 10:30:07 AM");
    assert!(reports.len() == 1 && reports[0].contains("time_zone"), "{reports:?}");
    // Without seconds it is the name's second.
    let (values, _) = facts(&[("START TIME", "6/6/2016 10:30"), ("DURATION", "1:00")]);
    assert_eq!((span(&values), ms(&values, fact::DURATION_MS)), ((Some(0), None), Some(60_000)));
    let (values, _) = facts(&[("START TIME UTC", "6/6/2016 17:31")]);
    assert_eq!(span(&values), (Some(55_000), None), "another minute than the name's");
}

#[test]
fn an_hour_that_comes_twice_is_told_apart_by_the_name() {
    let los_angeles = Some(Tz::America__Los_Angeles);
    let cells =
        [("START TIME", "2016-11-06 01:59:30"), ("STOP TIME", "2016-11-06 01:00:30"), ("DURATION", "60")];
    // 01:59:30 PDT to 01:00:30 PST.
    let (values, reports) = facts_in(los_angeles, "R201611060859300000.wav", &cells);
    assert_eq!(reports, [""; 0]);
    assert_eq!(ms(&values, fact::STARTED_AT), Some(1_478_422_770_000));
    assert_eq!(ms(&values, fact::STOPPED_AT), Some(1_478_422_830_000));
    // 01:10 to 01:20, both PST.
    let cells = [("START TIME", "2016-11-06 01:10:00"), ("STOP TIME", "2016-11-06 01:20:00")];
    for (name, started) in
        [("R201611060910000000.wav", 1_478_423_400_000_i64), ("R201611060810000000.wav", 1_478_419_800_000)]
    {
        let (values, _) = facts_in(los_angeles, name, &cells);
        assert_eq!(ms(&values, fact::STARTED_AT), Some(started), "{name}");
        assert_eq!(ms(&values, fact::STOPPED_AT), Some(started + 600_000), "{name}");
    }
    // An hour that is skipped is no time there: the name counts.
    let cells = [("START TIME", "2016-03-13 02:30:00")];
    let (values, reports) = facts_in(los_angeles, "R201603131030000000.wav", &cells);
    assert_eq!((ms(&values, fact::STARTED_AT), reports.len()), (Some(1_457_865_000_000), 1));
}

#[test]
fn what_cannot_be_is_reported_and_kept() {
    let (values, reports) = facts(&[
        ("START TIME UTC", "2017-06-06 17:30:05"),
        ("STOP TIME UTC", "2017-06-06 17:31:05"),
        ("DURATION", "about a minute"),
        ("CASEID", "ACME-7"),
        ("CALL TYPE", "Monitor"),
        ("QUEUE", "Chat"),
    ]);
    assert_eq!(span(&values), (Some(0), Some(60_000)), "the name counts, and the length of the row");
    assert_eq!(reports.len(), 1, "{reports:?}");
    for (key, text) in [
        ("index_start_time_utc", "2017-06-06 17:30:05"),
        ("index_duration", "about a minute"),
        ("index_caseid", "ACME-7"),
        (fact::CALL_TYPE, "Monitor"),
        (fact::QUEUE_TYPE, "Chat"),
    ] {
        assert_eq!(values[key], text);
    }
    assert!(!values.contains_key(fact::CASE_ID) && !values.contains_key(fact::DURATION_MS));

    let (values, reports) = facts(&[
        ("START TIME UTC", "soon"),
        ("STOP TIME UTC", "2016-06-06 17:30:04"),
        ("CASEID", "2147483648"),
    ]);
    assert_eq!(span(&values), (Some(0), None));
    assert_eq!(values["index_start_time_utc"], "soon");
    assert_eq!(reports.len(), 2, "{reports:?}");

    let long = "é".repeat(VALUE_MAX);
    let (values, reports) = facts(&[("AGENT NAME", &long)]);
    assert_eq!((values[fact::AGENT_NAME].len(), reports.len()), (VALUE_MAX, 1));
}

#[test]
fn a_name_that_lies_leaves_it_to_the_row() {
    let name = "R201613400000000000.wav";
    let (values, _) = facts_in(None, name, &[("START TIME UTC", "2016-06-06 17:30:05"), ("DURATION", "5")]);
    assert_eq!(span(&values), (Some(0), None));
    let (values, _) = facts_in(None, name, &[("START TIME", "2016-06-06 10:30:05")]);
    assert_eq!(span(&values), (None, None));
    let zone = Some(Tz::America__Los_Angeles);
    let (values, _) = facts_in(zone, name, &[("START TIME", "2016-06-06 10:30:05")]);
    assert_eq!(span(&values), (Some(0), None));
}

#[test]
fn fuller_newer_and_later_rows_win_in_this_order() {
    let second = 1_000_000_000;
    let ascending = [
        revision(Rank::Brief, i128::MAX, u64::MAX),
        revision(Rank::Root, -second, 0),
        revision(Rank::Root, 0, 1),
        revision(Rank::Root, second, 0),
        revision(Rank::RootFull, 0, 0),
        revision(Rank::Full, 1_465_234_205 * second, 1),
        revision(Rank::Full, 1_465_234_205 * second, 100_000),
        revision(Rank::Full, 1_465_234_206 * second, 1),
    ];
    assert!(ascending.windows(2).all(|two| two[0] < two[1]), "{ascending:?}");
}

proptest! {
    #[test]
    fn any_row_gives_facts_that_the_gateway_takes(
        cells in prop::collection::vec(
            (prop::sample::select(vec![
                "CALL TYPE", "START TIME", "STOP TIME", "START TIME UTC", "STOP TIME UTC", "DURATION", "CASEID",
                "QUEUE", "AGENT NAME", "Other", "Möre", "",
            ]), prop_oneof!["\\PC{0,12}", "201[67]-0?[0-9]-[0-3][0-9] [0-2]?[0-9]:[0-5][0-9](:[0-6][0-9])?", "[0-9]{1,12}"]),
            0..14,
        ),
        zone in prop::sample::select(vec![None, Some(Tz::America__Los_Angeles), Some(Tz::Asia__Kolkata)]),
        lies in any::<bool>(),
    ) {
        let name = if lies { "R201613400000000000.wav" } else { "R201606061730050000.wav" };
        let cells: Vec<(&str, &str)> = cells.iter().map(|(header, cell)| (*header, cell.as_str())).collect();
        let (values, _) = facts_in(zone, name, &cells);
        for (key, value) in &values {
            prop_assert!(!key.is_empty() && key.len() <= 128 && !key.contains(char::is_control), "{key:?}");
            prop_assert!(!value.is_empty() && value.len() <= 8192);
        }
        let (started, stopped) = (ms(&values, fact::STARTED_AT), ms(&values, fact::STOPPED_AT));
        if let (Some(started), Some(stopped)) = (started, stopped) {
            prop_assert!(started <= stopped);
        }
        if !lies {
            prop_assert!(started.is_some_and(|at| at.abs_diff(NAMED) <= 86_400_000));
        }
    }
}

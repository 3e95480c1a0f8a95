//! Index files, as those who read them find them.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use recgate_e2e::{ACME, FIELD_HEADER, Fixture, Row, read_index, wait_for};

const LONG: Duration = Duration::from_secs(60);

const BRIEF: [&str; 12] = [
    "CALL TYPE",
    "START TIME",
    "STOP TIME",
    "AGENT NAME",
    "CUSTOMER NUMBER",
    "PHONE CHANNEL",
    "CALLED NUMBER",
    "CASEID",
    "DURATION",
    "FILENAME",
    "DIRECTORY",
    "ACCOUNT",
];

#[test]
fn los_angeles_finds_its_sixth_of_june_in_two_folders_and_one_index() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let mut raw = fixture.login("acme").raw();
    let index = fixture.wait_root_index("acme", "20160606", 7);
    let (header, rows) = read_index(&index);
    assert_eq!(header[..12], BRIEF);
    assert_eq!(header.len(), 21);
    assert_eq!(&header[12..14], ["START TIME UTC", "STOP TIME UTC"]);
    let folders: BTreeSet<&str> = rows.iter().map(|row| row["DIRECTORY"].as_str()).collect();
    assert_eq!(folders, BTreeSet::from(["S20160606", "S20160607"]));

    let mut found = Vec::new();
    for row in &rows {
        let path = format!("/{}/{}", row["DIRECTORY"], row["FILENAME"]);
        found.push(raw.file(&path).unwrap_or_else(|status| panic!("{path}: {status:?}")));
        assert!(row["START TIME"].starts_with("2016-06-06 "), "{row:?}");
        check_row(row);
    }
    let mut sixth: Vec<Vec<u8>> = calls["acme"][1..8].iter().map(|call| call.bytes.clone()).collect();
    found.sort();
    sixth.sort();
    assert!(found == sixth, "the rows' files are not the calls of the day");

    let evening = rows.iter().find(|row| row["FILENAME"] == "R201606070030000000.wav").unwrap();
    assert_eq!(evening["START TIME"], "2016-06-06 17:30:00");
    assert_eq!(evening["START TIME UTC"], "2016-06-07 00:30:00");
    assert_eq!(evening["DIRECTORY"], "S20160607");
    for (date, count) in [("20160605", 1), ("20160607", 1)] {
        fixture.wait_root_index("acme", date, count);
    }
    assert_eq!(
        raw.list("/Index").unwrap().iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["I20160605.csv", "I20160606.csv", "I20160607.csv"]
    );
}

#[test]
fn another_zone_has_other_days() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("globex", &calls["globex"]);
    let (_, rows) = read_index(&fixture.wait_root_index("globex", "20160606", 1));
    assert_eq!(rows[0]["START TIME"], "2016-06-06 23:00:00");
    let (_, rows) = read_index(&fixture.wait_root_index("globex", "20160607", 1));
    assert_eq!(rows[0]["START TIME"], "2016-06-07 00:00:00");
    assert_eq!(rows[0]["DIRECTORY"], "S20160606");
}

#[test]
fn a_folders_indexes_list_exactly_its_wavs() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    for tenant in ["acme", "globex"] {
        fixture.wait_published(tenant, &calls[tenant]);
        let mut raw = fixture.login(tenant).raw();
        for folder in raw.list("/").unwrap() {
            let Some(day) = folder.name.strip_prefix('S') else { continue };
            let entries = raw.list(&format!("/{}", folder.name)).unwrap();
            let wavs: BTreeSet<String> = entries
                .iter()
                .filter(|entry| entry.name.ends_with(".wav"))
                .map(|entry| entry.name.clone())
                .collect();
            let (brief, brief_rows) = read_index(&raw.file(&format!("/S{day}/I{day}.csv")).unwrap());
            let (all, all_rows) = read_index(&raw.file(&format!("/S{day}/I{day}_version2.csv")).unwrap());
            assert_eq!(brief, BRIEF);
            assert_eq!(all, FIELD_HEADER);
            for rows in [&brief_rows, &all_rows] {
                assert_eq!(rows.len(), wavs.len());
                assert_eq!(rows.iter().map(|row| row["FILENAME"].clone()).collect::<BTreeSet<_>>(), wavs);
                assert!(rows.iter().all(|row| row["DIRECTORY"] == folder.name));
            }
            // The newest of its children gives the folder its time.
            let newest = entries.iter().map(|entry| entry.stat.modified).max().unwrap();
            assert_eq!(folder.stat.modified, newest, "{}", folder.name);
        }
    }
}

#[test]
fn the_running_day_is_shown_and_grows_where_that_is_configured() {
    let mut fixture = Fixture::with(vec![ACME]);
    let config = fixture.config();
    let live = config.replace("zone = \"America/Los_Angeles\"\n", "zone = \"UTC\"\nlive_index = true\n");
    assert_ne!(config, live);
    fixture.write_config(&live);
    fixture.start();
    let mut raw = fixture.login("acme").raw();
    let list = |fixture: &Fixture| {
        let printed = fixture.recgate(&["index", "list"]).success().stdout;
        printed.lines().rfind(|line| line.contains("running")).map(str::to_owned)
    };
    wait_for("an index that is running", LONG, || list(&fixture));
    let day = |now: DateTime<Utc>| now.format("/Index/I%Y%m%d.csv").to_string();
    let (mut before, mut shown) = (String::new(), 0);
    for sound in 40..43 {
        // No two begin in one second.
        let start = Utc::now() - TimeDelta::seconds(600 - 10 * i64::try_from(sound).unwrap());
        let call = fixture.wazo.get_mut("acme").unwrap().add(start, sound);
        let path = day(start);
        let text = wait_for("the call's row", LONG, || {
            let text = String::from_utf8(raw.file(&path).ok()?).unwrap();
            text.contains(&format!("{},{}", call.name(), call.folder())).then_some(text)
        });
        // At midnight another day begins.
        shown = if text.starts_with(&before) { shown + 1 } else { 1 };
        assert_eq!(read_index(text.as_bytes()).1.len(), shown, "{text}");
        assert_eq!(raw.stat(path.as_bytes()).unwrap().size, u64::try_from(text.len()).unwrap());
        before = text;
    }
    // Asked to forget it, the gateway keeps what it has shown, and shows no more.
    fixture.write_config(&config.replace("zone = \"America/Los_Angeles\"\n", "zone = \"UTC\"\n"));
    fixture.gateway.as_ref().unwrap().signal(rustix::process::Signal::HUP);
    fixture.gateway.as_ref().unwrap().wait_for_log(&["the new configuration is taken"]);
    let start = Utc::now() - TimeDelta::seconds(100);
    let call = fixture.wazo.get_mut("acme").unwrap().add(start, 44);
    wait_for("the call", LONG, || raw.stat(format!("/{}", call.path()).as_bytes()).ok());
    assert!(
        raw.file(&day(start)).is_ok_and(|bytes| bytes == before.as_bytes()) || day(start) != day(Utc::now())
    );
}

/// What those who read indexes choke on.
fn check_row(row: &Row) {
    for column in ["START TIME", "STOP TIME", "START TIME UTC", "STOP TIME UTC"] {
        let parsed = chrono::NaiveDateTime::parse_from_str(&row[column], "%Y-%m-%d %H:%M:%S");
        assert!(parsed.is_ok(), "{column}: {row:?}");
    }
    for column in ["CASEID", "DURATION"] {
        assert!(row[column].bytes().all(|byte| byte.is_ascii_digit()), "{column}: {row:?}");
    }
    for (column, cell) in row {
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        let telephone = cell.strip_prefix('+').is_some_and(|rest| {
            (1..=15).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit())
        });
        assert!(!formula || telephone, "{column} would be a formula: {row:?}");
    }
    assert_eq!(row["AGENT NAME"], "Björn Ågren");
    assert_eq!(row["QUEUE NAME"], "Support, \"first\" line");
}

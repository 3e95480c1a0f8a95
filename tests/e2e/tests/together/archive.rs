//! An archive that somebody has brought along from 8x8.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::TimeDelta;
use recgate_e2e::{ACME, Archive, Archived, Fixture, Row, files_below, read_index, utc, wait_for};

/// A fixture whose tenant `acme` has the archive as a second source.
fn fixture() -> (Fixture, Archive) {
    let fixture = Fixture::with(vec![ACME]);
    let archive = Archive::new(&fixture.path().join("archive"));
    let root = archive.root.to_str().unwrap();
    let config = fixture.config()
        + &format!(
            "[[tenant.source]]\nid = 2\nname = \"archive\"\nplugin = \"archive8x8\"\nmetadata_wait = \"0s\"\n\
             unmatched = \"publish\"\nscan_interval = \"500ms\"\n[tenant.source.settings]\nroot = {root:?}\n\
             growing_after = 1\n"
        );
    fixture.write_config(&config);
    (fixture, archive)
}

/// Some hundred recordings over four UTC days: several in a second, with gaps, in the short form, without a row.
fn fill(archive: &mut Archive) {
    let begin = utc("2016-06-05 22:00:00");
    for n in 0..240_i64 {
        let start = begin + TimeDelta::seconds(n * 997);
        archive.add(start, "0000", 1 + u32::try_from(n % 3).unwrap());
        if n % 10 == 0 {
            archive.add(start, "0023", 1);
            archive.add(start, "9000", 1);
        }
        if n % 15 == 0 {
            // Nobody's row.
            archive.add(start + TimeDelta::seconds(7), "0002", 1).row = None;
        }
        if n % 20 == 0 {
            let short = archive.add(start + TimeDelta::seconds(11), "", 1);
            // It is listed with its sequence, as the tenant's names are.
            assert!(short.name.len() == "R20160605220011.wav".len());
        }
    }
    archive.write();
}

/// The name under which a tenant with long names sees it.
fn shown(recording: &Archived) -> String {
    let stem = recording.name.strip_suffix(".wav").unwrap();
    let sequence = if stem.len() == "R20160605220011".len() { "0000" } else { "" };
    format!("{}/{stem}{sequence}.wav", recording.folder())
}

fn wait_for_names(fixture: &Fixture, archive: &Archive) -> BTreeSet<String> {
    let expected: BTreeSet<String> = archive.recordings.iter().map(shown).collect();
    wait_for("the archive's names", Duration::from_secs(120), || {
        let tree = fixture.login("acme").raw().tree();
        let names: BTreeSet<String> = tree
            .into_keys()
            .filter(|path| path.ends_with(".wav"))
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        (names.len() >= expected.len()).then_some(names)
    })
}

/// The cells of a row, as the header of the field calls them.
fn in_field_spelling(row: &Row) -> Row {
    let spelling = |header: &str| match header {
        "ACCOUNT" => "ACCOUNT NUMBER".to_owned(),
        "TRANSACTION ID" => "TRANS ID".to_owned(),
        "EXTERNAL VARIABLE 1" => "EXT VAR1".to_owned(),
        "EXTERNAL VARIABLE 2" => "EXT VAR2".to_owned(),
        "OUTDIAL CODE" => "OUT DIAL CODE".to_owned(),
        other => other.to_owned(),
    };
    row.iter().map(|(header, cell)| (spelling(header), cell.clone())).collect()
}

/// What a row has to say of a recording.
fn expected_row(recording: &Archived) -> Row {
    let mut row = recording.row.clone().unwrap_or_default();
    row.insert("FILENAME".into(), shown(recording).rsplit('/').next().unwrap().to_owned());
    for cell in row.values_mut() {
        *cell = cell.replace('\t', " ");
        if cell.starts_with('=') {
            cell.insert(0, '\'');
        }
    }
    row
}

/// Each row of an index says what the archive's row said.
#[track_caller]
fn assert_rows(bytes: &[u8], recordings: &[&Archived], what: &str) {
    let (header, rows) = read_index(bytes);
    let by_name: BTreeMap<String, Row> =
        rows.iter().map(|row| (row["FILENAME"].clone(), in_field_spelling(row))).collect();
    assert_eq!((rows.len(), by_name.len()), (recordings.len(), recordings.len()), "{what}");
    for recording in recordings {
        let expected = expected_row(recording);
        let found = &by_name[&expected["FILENAME"]];
        assert_eq!(found["DIRECTORY"], recording.folder(), "{what}");
        if header.len() == 21 {
            let start = recording.start.format("%Y-%m-%d %H:%M:%S").to_string();
            assert_eq!(found["START TIME UTC"], start, "{what}, {}", recording.name);
        }
        for (column, cell) in expected {
            if let Some(found) = found.get(&column) {
                assert_eq!(*found, cell, "{what}, {}, {column}", recording.name);
            }
        }
    }
}

#[test]
fn an_archive_is_served_under_its_own_names_with_its_own_rows() {
    let (mut fixture, mut archive) = fixture();
    fill(&mut archive);
    archive.put("S20160606/notes.txt", b"not a recording");
    assert!(archive.recordings.len() > 300);
    fixture.start();
    let names = wait_for_names(&fixture, &archive);
    let expected: BTreeSet<String> = archive.recordings.iter().map(shown).collect();
    assert_eq!(names, expected);

    // The indexes of each folder, and of each local date.
    let mut folders: BTreeMap<String, Vec<&Archived>> = BTreeMap::new();
    let mut dates: BTreeMap<String, Vec<&Archived>> = BTreeMap::new();
    for recording in &archive.recordings {
        folders.entry(recording.folder()).or_default().push(recording);
        let date = (recording.start - TimeDelta::hours(7)).format("%Y%m%d").to_string();
        dates.entry(date).or_default().push(recording);
    }
    assert!(folders.len() == 4 && dates.len() == 4, "{folders:?}");
    let mut raw = fixture.login("acme").raw();
    for (folder, recordings) in &folders {
        for suffix in ["", "_version2"] {
            let path = format!("/{folder}/I{}{suffix}.csv", &folder[1..]);
            assert_rows(&raw.file(&path).unwrap(), recordings, &path);
        }
    }
    for (date, recordings) in &dates {
        let bytes = fixture.wait_root_index("acme", date, recordings.len());
        assert_rows(&bytes, recordings, date);
    }

    // All of it, byte for byte.
    let mirror = fixture.new_folder("mirror");
    let command = format!("mirror --parallel=4 / {}", mirror.display());
    fixture.login("acme").lftp(&command).success();
    let mut mirrored = files_below(&mirror);
    mirrored.retain(|path, _| path.ends_with(".wav"));
    assert_eq!(mirrored.len(), archive.recordings.len());
    for recording in &archive.recordings {
        assert!(mirrored[&shown(recording)] == recording.bytes, "{}", recording.path());
    }

    // The same tree after rescans and a restart.
    let tree = fixture.login("acme").raw().tree();
    fixture.restart();
    wait_for_names(&fixture, &archive);
    assert_eq!(fixture.login("acme").raw().tree(), tree);
}

#[test]
fn a_name_that_the_pbx_has_taken_stays_the_pbxs() {
    let (mut fixture, mut archive) = fixture();
    let start = utc("2016-06-06 17:30:05");
    let call = fixture.wazo.get_mut("acme").unwrap().add(start, 42);
    fixture.start();
    fixture.wait_published("acme", std::slice::from_ref(&call));
    archive.add(start, "0000", 1);
    archive.add(start, "0007", 1);
    archive.write();
    let names = wait_for("three recordings of a second", Duration::from_secs(60), || {
        let entries = fixture.login("acme").raw().list("/S20160606").ok()?;
        let names: Vec<String> =
            entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".wav")).collect();
        (names.len() == 3).then_some(names)
    });
    let names: BTreeSet<_> = names.iter().map(String::as_str).collect();
    let expected = ["R201606061730050000.wav", "R201606061730050001.wav", "R201606061730050007.wav"];
    assert_eq!(names, BTreeSet::from(expected));
    let mut raw = fixture.login("acme").raw();
    assert!(raw.file("/S20160606/R201606061730050000.wav").unwrap() == call.bytes);
    for (name, recording) in [("0001", &archive.recordings[0]), ("0007", &archive.recordings[1])] {
        let path = format!("/S20160606/R20160606173005{name}.wav");
        assert!(raw.file(&path).unwrap() == recording.bytes, "{path}");
    }
}

#[test]
fn a_configuration_with_an_archive_is_checked() {
    let (fixture, archive) = fixture();
    fixture.recgate(&["check"]).success();
    let config = fixture.config();
    let source = |settings: &str| {
        format!(
            "{config}[[tenant.source]]\nid = 2\nname = \"archive\"\nplugin = \"archive8x8\"\n{settings}\n"
        )
    };
    let root = archive.root.to_str().unwrap();
    for (settings, says) in [
        ("[tenant.source.settings]\nrot = \"/srv\"".to_owned(), "rot"),
        (format!("[tenant.source.settings]\nroot = {root:?}\ntime_zone = \"Mars/Olympus\""), "time_zone"),
        (format!("[tenant.source.settings]\nroot = \"{root}/away\""), "can't be opened"),
    ] {
        fixture.write_config(&source(&settings));
        let checked = fixture.recgate(&["check"]);
        assert!(checked.text().contains(says), "{says}: {checked}");
    }
}

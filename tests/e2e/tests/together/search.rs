//! Asking the catalog from the command line, and erasing from it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use recgate_e2e::{ACME, Call, Fixture, GLOBEX, Row, files_below, read_index, utc, wait_for};
use serde_json::Value;

/// A gateway with the calls of [`Fixture::fill`], and a file in acme's folder that no record ever names.
fn filled() -> (Fixture, BTreeMap<&'static str, Vec<Call>>) {
    let mut fixture = Fixture::with(vec![ACME, GLOBEX]);
    let calls = fixture.fill();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let nobodys = acme.plan(utc("2016-06-06 12:00:00"), 48);
    acme.write_media(&nobodys);
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    fixture.wait_published("globex", &calls["globex"]);
    wait_for("the orphan", Duration::from_secs(60), || {
        (lines(&fixture, &["--state", "orphan"]).len() == 1).then_some(())
    });
    (fixture, calls)
}

/// What `recgate recording list --json` prints, by line.
fn lines(fixture: &Fixture, more: &[&str]) -> Vec<Value> {
    let words = [&["recording", "list", "--json"], more].concat();
    let printed = fixture.recgate(&words).success();
    printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn recordings_are_found_by_what_is_known_of_them() {
    let (fixture, calls) = filled();
    let acme = ["--tenant", "acme"];
    let with = |more: &[&'static str]| lines(&fixture, &[&acme, more].concat());

    let all = with(&[]);
    assert_eq!(all.len(), calls["acme"].len());
    assert!(all.windows(2).all(|two| two[0]["start"].as_str() <= two[1]["start"].as_str()), "{all:?}");
    assert_eq!(all[0]["start"], "2016-06-05T23:59:59-07:00");
    assert_eq!(all[0]["folder"], "S20160606");
    assert_eq!(lines(&fixture, &[]).len(), calls["acme"].len() + calls["globex"].len());

    // The tenant's own 6 June is another than that of UTC.
    assert_eq!(with(&["--from", "2016-06-06", "--until", "2016-06-06"]).len(), 7);
    assert_eq!(with(&["--from", "2016-06-06", "--until", "2016-06-06", "--utc"]).len(), 6);
    let range = with(&["--from", "2016-06-06T17:30:00Z", "--until", "2016-06-06T17:30:05Z"]);
    assert_eq!(names(&range), ["R201606061730000000.wav"]);

    // Records have an agent, numbers and a queue; which is which depends on the call's direction.
    assert_eq!(with(&["--agent", "björn"]).len(), calls["acme"].len());
    assert_eq!(with(&["--number", "+1 202 555-0143"]).len(), calls["acme"].len());
    assert_eq!(with(&["--agent", "nobody"]).len(), 0);
    assert_eq!(with(&["--number", "999999"]).len(), 0);
    let call = &calls["acme"][3];
    let found = lines(&fixture, &["--transaction", &call.id.to_string()]);
    assert_eq!((found.len(), &found[0]["media"]), (1, &Value::from(format!("{}.wav", call.uuid))));
    assert_eq!(lines(&fixture, &["--contact", &call.uuid]), found);
    let found = lines(&fixture, &["--name", "S20160606/R201606061730050001.wav"]);
    assert_eq!(names(&found), ["R201606061730050001.wav"]);
    assert_eq!(lines(&fixture, &["--name", "R201606061730000000.wav"]).len(), 2, "both tenants have one");
    assert_eq!(with(&["--source", "pbx", "--state", "published"]).len(), calls["acme"].len());
    assert_eq!(with(&["--state", "missing"]).len(), 0);

    let orphans = lines(&fixture, &["--state", "orphan"]);
    assert_eq!((orphans.len(), &orphans[0]["name"]), (1, &Value::Null));
    assert_eq!(orphans[0]["tenant"], "acme");
    let printed = fixture.recgate(&["recording", "list", "--state", "orphan"]).success();
    assert!(printed.stdout.contains(orphans[0]["uid"].as_str().unwrap()), "{printed}");

    // Pages, over both tenants.
    let (mut paged, mut after) = (Vec::new(), None::<String>);
    loop {
        let more: Vec<&str> = after.iter().flat_map(|after| ["--after", after.as_str()]).collect();
        let mut page = lines(&fixture, &[&["--limit", "5"], more.as_slice()].concat());
        let next = page.last().and_then(|line| line["after"].as_str()).map(str::to_owned);
        page.truncate(page.len() - usize::from(next.is_some()));
        assert!(page.len() <= 5);
        paged.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(paged, lines(&fixture, &[]));
    let printed = fixture.recgate(&["recording", "list", "--limit", "2"]).success();
    assert_eq!(printed.stdout.lines().count(), 3, "{printed}");
    assert!(printed.stderr.starts_with("there are more: --after "), "{printed}");

    let printed = fixture.recgate(&["recording", "list", "--csv", "--tenant", "globex"]).success();
    let mut reader = csv::ReaderBuilder::new().from_reader(printed.stdout.as_bytes());
    assert_eq!(reader.records().map(Result::unwrap).count(), calls["globex"].len());

    for (words, code, text) in [
        (&["--from", "yesterday"][..], 1, "the gateway refuses: from: \"yesterday\" is neither a date"),
        (&["--tenant", "nobody"], 1, "tenant: there is no tenant \"nobody\"; there is acme and globex"),
        (&["--source", "nobody"], 1, "source: there is no source \"nobody\""),
        (&["--number", "12"], 1, "number: at least three digits"),
        (&["--name", "x.wav"], 1, "name: \"x.wav\" is no name of a recording"),
        (&["--after", "x"], 1, "after: this is no cursor"),
        (&["--state", "lost"], 2, "lost"),
    ] {
        let refused = fixture.recgate(&[&["recording", "list"], words].concat()).code(code);
        assert!(refused.stderr.contains(text), "{words:?}: {refused}");
        assert!(code != 1 || refused.stderr.lines().count() == 1, "one line: {refused}");
    }
}

#[test]
fn all_that_is_known_of_a_recording_is_shown() {
    let (fixture, calls) = filled();
    let name = "R201606061730000000.wav";
    let refused = fixture.recgate(&["recording", "show", name]).code(1);
    assert!(refused.stderr.contains("tenant: acme and globex have a recording"), "{refused}");
    let printed = fixture.recgate(&["recording", "show", name, "--tenant", "acme", "--json"]).success();
    let report: Value = serde_json::from_str(&printed.stdout).unwrap();
    let call = &calls["acme"][2];
    assert_eq!(report["media"], format!("{}.wav", call.uuid), "{report}");
    assert_eq!(report["published"]["root_index"], "Index/I20160606.csv");
    assert_eq!(report["told"]["state"], "available");
    let facts = report["facts"].as_array().unwrap();
    assert_eq!(facts.len(), 1, "{report}");
    assert_eq!(report["values"]["transaction_id"]["value"], call.id.to_string());
    assert_eq!(report["values"]["transaction_id"]["from"], facts[0]["id"]);
    let by_uid = fixture.recgate(&["recording", "show", report["uid"].as_str().unwrap(), "--json"]).success();
    assert_eq!(serde_json::from_str::<Value>(&by_uid.stdout).unwrap(), report);
    let text = fixture.recgate(&["recording", "show", name, "--tenant", "globex"]).success();
    assert!(text.stdout.contains("of globex") && text.stdout.contains("S20160606/R201606061730000000.wav"));

    let orphan = lines(&fixture, &["--state", "orphan"])[0]["uid"].as_str().unwrap().to_owned();
    let text = fixture.recgate(&["recording", "show", &orphan]).success();
    assert!(text.stdout.contains("state: orphan"), "{text}");
    let refused = fixture.recgate(&["recording", "show", "0196a5c2-2a50-7c31-8d2b-0f3a5f0f9a10"]).code(1);
    assert!(refused.stderr.contains("there is no recording"), "{refused}");
    let refused = fixture.recgate(&["recording", "show", "x"]).code(1);
    assert!(refused.stderr.contains("neither a uid nor a recording's name"), "{refused}");
}

#[test]
fn indexes_are_listed_shown_and_written_anew() {
    let (fixture, _) = filled();
    let list = || {
        let printed = fixture.recgate(&["index", "list", "--json", "--tenant", "acme"]).success();
        let indexes: Vec<Value> =
            printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        indexes.into_iter().find(|index| index["day"] == "2016-06-06").unwrap()
    };
    let before = list();
    assert_eq!((&before["rows"], &before["complete"]), (&Value::from(7), &Value::from(true)), "{before}");
    let printed =
        fixture.recgate(&["index", "list", "--from", "2016-06-05", "--until", "2016-06-07"]).success();
    assert!(printed.stdout.contains("2016-06-06") && printed.stdout.contains("globex"), "{printed}");

    let mut raw = fixture.login("acme").raw();
    for (flag, path) in [
        (None, "/Index/I20160606.csv"),
        (Some("--brief"), "/S20160606/I20160606.csv"),
        (Some("--full"), "/S20160606/I20160606_version2.csv"),
    ] {
        let words = ["index", "show", "2016-06-06", "--tenant", "acme"];
        let words: Vec<&str> = words.into_iter().chain(flag).collect();
        let shown = fixture.recgate(&words).success();
        assert_eq!(shown.stdout.as_bytes(), raw.file(path).unwrap(), "{path}");
    }
    let refused = fixture.recgate(&["index", "show", "2016-06-06"]).code(1);
    assert!(refused.stderr.contains("tenant: say which: acme and globex"), "{refused}");
    let refused = fixture.recgate(&["index", "show", "2015-06-06", "--tenant", "acme"]).code(1);
    assert!(refused.stderr.contains("has no such index"), "{refused}");

    let bytes = raw.file("/Index/I20160606.csv").unwrap();
    let printed = fixture.recgate(&["index", "republish", "2016-06-06", "--tenant", "acme"]).success();
    assert!(printed.stdout.contains("Index/I20160606.csv: written anew"), "{printed}");
    assert!(printed.stdout.contains("S20160606: written anew"), "{printed}");
    assert!(printed.stdout.contains("S20160607: written anew"), "{printed}");
    assert!(list()["generation"].as_u64().unwrap() > before["generation"].as_u64().unwrap());
    assert_eq!(raw.file("/Index/I20160606.csv").unwrap(), bytes);
    let words = [
        "index",
        "republish",
        "--from",
        "2016-06-05",
        "--until",
        "2016-06-07",
        "--tenant",
        "globex",
        "--json",
    ];
    let report: Value = serde_json::from_str(&fixture.recgate(&words).success().stdout).unwrap();
    assert_eq!(report["owed"], Value::Array(Vec::new()), "{report}");
    assert!(report["written"].as_array().unwrap().len() >= 3, "{report}");
}

#[test]
fn what_was_erased_stays_erased() {
    let (mut fixture, calls) = filled();
    let call = calls["acme"][6].clone();
    let (name, index) = ("R201606070030000000.wav", "/Index/I20160606.csv");
    let row = |fixture: &Fixture| -> Row {
        let bytes = fixture.login("acme").raw().file(index).unwrap();
        read_index(&bytes).1.into_iter().find(|row| row["FILENAME"] == name).unwrap()
    };
    let before = row(&fixture);
    assert_eq!(before["TRANSACTION ID"], call.id.to_string());

    let refused = fixture.recgate(&["recording", "erase-facts", name]).code(2);
    assert!(refused.stderr.contains("--reason"), "{refused}");
    let reason = ["--reason", "asked for by letter 4711 of Jane Doe"];
    let erase = [&["recording", "erase-facts", name], &reason[..]].concat();
    let refused = fixture.recgate(&erase).code(2);
    assert!(refused.stderr.contains("--yes"), "{refused}");
    let plan = fixture.recgate(&["recording", "erase-facts", name, "--dry-run"]).success();
    assert!(plan.stdout.contains("would be erased:") && plan.stdout.contains("transaction_id"), "{plan}");
    assert_eq!(row(&fixture), before);

    let done = fixture.recgate(&[&erase[..], &["--yes"]].concat()).success();
    assert!(done.stdout.contains("written anew, older generations removed"), "{done}");
    let assert_erased = |fixture: &Fixture| {
        let after = row(fixture);
        for (column, cell) in &after {
            let kept = [
                "CALL TYPE",
                "START TIME",
                "STOP TIME",
                "START TIME UTC",
                "STOP TIME UTC",
                "DURATION",
                "FILENAME",
                "DIRECTORY",
                "QUEUE",
                "QUEUE NAME",
            ];
            let expected = if kept.contains(&column.as_str()) { before[column].as_str() } else { "" };
            assert_eq!(cell, expected, "{column}");
        }
        let found = lines(fixture, &["--name", name, "--tenant", "acme"]);
        assert_eq!(
            (found.len(), &found[0]["agent_name"], &found[0]["transaction_id"]),
            (1, &Value::Null, &Value::Null)
        );
        assert_nowhere(&fixture.data_dir().join("index"), &format!(",{},", call.id));
    };
    assert_erased(&fixture);
    // Others have what they had.
    let other = lines(&fixture, &["--transaction", &calls["acme"][7].id.to_string()]);
    assert_eq!(other.len(), 1);

    let again = fixture.recgate(&[&erase[..], &["--yes"]].concat()).success();
    assert!(again.stdout.contains("nothing has come since"), "{again}");
    let shown = fixture.recgate(&["recording", "show", name]).success();
    assert!(
        shown.stdout.contains("personal values erased at") && shown.stdout.contains(reason[1]),
        "{shown}"
    );
    // The reason may be personal, too: it isn't in the journal, which points to it.
    assert_nowhere(&fixture.data_dir().join("journal"), "Jane Doe");
    let journal = files_below(&fixture.data_dir().join("journal"));
    assert!(journal.values().any(|bytes| String::from_utf8_lossy(bytes).contains("facts_erased")));

    // A backup has it as well.
    let backup = fixture.path().join("backup");
    fixture.recgate(&["state", "backup", backup.to_str().unwrap()]).success();
    let notes = files_below(&backup.join("notes"));
    assert_eq!(notes.values().map(Vec::as_slice).collect::<Vec<_>>(), [reason[1].as_bytes()]);

    // Told again, after a restart, and after the catalog was lost.
    fixture.wazo["acme"].write_record(&call);
    fixture.restart();
    fixture.wait_published("acme", &calls["acme"]);
    assert_erased(&fixture);
    fixture.gateway.take().unwrap().kill();
    fs::remove_file(fixture.data_dir().join("catalog.redb")).unwrap();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    wait_for("the other facts", Duration::from_secs(60), || {
        let id = calls["acme"][7].id.to_string();
        (lines(&fixture, &["--transaction", &id]).len() == 1).then_some(())
    });
    fixture.recgate(&["index", "republish", "2016-06-06", "--tenant", "acme"]).success();
    assert_erased(&fixture);
    let shown = fixture.recgate(&["recording", "show", name]).success();
    assert!(shown.stdout.contains(reason[1]), "the reason outlives the catalog: {shown}");
}

#[track_caller]
fn assert_nowhere(folder: &Path, text: &str) {
    for (path, bytes) in files_below(folder) {
        assert!(!String::from_utf8_lossy(&bytes).contains(text), "{text:?} is in {path}");
    }
}

//! Plugins that misbehave: they are refused or contained, and other sources go on.

use std::{fs, process::Command, time::Duration};

use recgate_e2e::{ACME, Fixture, TenantSpec, broken_source, recgate, run, test_plugins, utc, wait_for};

const BROKEN: &str = "/S20160606/R201606060001170000.wav";

fn misbehaving(misbehave: &str) -> String {
    let settings = format!("misbehave = \"{misbehave}\"\nmedia = [{{ id = \"a\", size = 100000 }}]");
    broken_source("broken-one", "1s", &settings)
}

/// A gateway with a good source and a broken-one; the good one's recording is there.
fn beside_a_good_source(misbehave: &str) -> (Fixture, Vec<u8>) {
    let mut fixture = Fixture::with(vec![TenantSpec { more: misbehaving(misbehave), ..ACME }]);
    let call = fixture.wazo.get_mut("acme").unwrap().add(utc("2016-06-06 10:00:00"), 40);
    fixture.start();
    let mut raw = fixture.login("acme").raw();
    let path = format!("/{}", call.path());
    let bytes = wait_for("the good source's recording", Duration::from_secs(60), || raw.file(&path).ok());
    assert!(bytes == call.bytes, "{misbehave}");
    (fixture, bytes)
}

#[test]
fn reads_that_fail_or_lie_are_refused_and_nobody_else_notices() {
    for misbehave in ["panic-in-read", "panic-in-open", "hang-in-read", "read-too-many", "read-short"] {
        let (fixture, good) = beside_a_good_source(misbehave);
        let mut raw = fixture.login("acme").raw();
        wait_for("the broken source's recording", Duration::from_secs(60), || {
            raw.stat(BROKEN.as_bytes()).ok()
        });
        let refused = raw.file(BROKEN).expect_err(misbehave);
        assert!(
            !refused.message.is_empty() && !refused.message.contains("panicked"),
            "{misbehave}: {refused:?}"
        );
        fixture.gateway.as_ref().unwrap().wait_for_log(&["broken-one"]);
        assert!(raw.file("/S20160606/R201606061000000000.wav").unwrap() == good, "{misbehave}");
    }
}

#[test]
fn scans_that_fail_hang_or_lie_leave_other_sources_untouched() {
    for misbehave in [
        "panic-in-scan",
        "hang-in-scan",
        "negative-size",
        "year-10000",
        "empty-id",
        "bad-utf8",
        "endless-scan",
    ] {
        let (fixture, good) = beside_a_good_source(misbehave);
        fixture.gateway.as_ref().unwrap().wait_for_log(&["broken-one"]);
        // A file that comes afterwards is found: scans of the good source go on.
        let (mut fixture, mut raw) = (fixture, None);
        let later = fixture.wazo.get_mut("acme").unwrap().add(utc("2016-06-07 10:00:00"), 41);
        let path = format!("/{}", later.path());
        let bytes = wait_for("a later recording", Duration::from_secs(60), || {
            raw.get_or_insert_with(|| fixture.login("acme").raw()).file(&path).ok()
        });
        assert!(bytes == later.bytes, "{misbehave}");
        assert!(raw.unwrap().file("/S20160606/R201606061000000000.wav").unwrap() == good, "{misbehave}");
    }
}

#[test]
fn watches_that_fail_hang_flood_or_lie_leave_scans_and_other_sources_untouched() {
    for misbehave in [
        "panic-in-watch",
        "return-in-watch",
        "hang-in-watch",
        "flood-in-watch",
        "nonsense-in-watch",
        "deaf-in-watch",
    ] {
        let (mut fixture, good) = beside_a_good_source(misbehave);
        let mut raw = fixture.login("acme").raw();
        let bytes =
            wait_for("the broken source's recording", Duration::from_secs(60), || raw.file(BROKEN).ok());
        assert_eq!(bytes.len(), 100_000, "{misbehave}");
        let later = fixture.wazo.get_mut("acme").unwrap().add(utc("2016-06-07 10:00:00"), 41);
        let path = format!("/{}", later.path());
        let bytes = wait_for("a later recording", Duration::from_secs(60), || raw.file(&path).ok());
        assert!(bytes == later.bytes, "{misbehave}");
        assert!(raw.file("/S20160606/R201606061000000000.wav").unwrap() == good, "{misbehave}");
        // One that never returns costs its thread, and doesn't hold up the end.
        fixture.gateway.take().unwrap().stop();
    }
}

#[test]
fn a_plugin_of_another_major_or_no_plugin_is_refused_with_a_reason() {
    let folder = tempfile::TempDir::new().unwrap();
    let inspect = |path: &std::path::Path| {
        let mut command = Command::new(recgate());
        command.args(["plugin", "inspect"]).arg(path);
        run(&mut command, b"", Duration::from_secs(60))
    };
    let built = test_plugins().join("librecgate_wrong_major.so");
    let refused = inspect(&built);
    assert!(!refused.status.success() && refused.text().contains("4711"), "{refused}");

    let text = folder.path().join("librecgate_text.so");
    fs::write(&text, "no library").unwrap();
    let refused = inspect(&text);
    assert!(!refused.status.success() && refused.text().contains("librecgate_text.so"), "{refused}");

    let good = inspect(&recgate().with_file_name("librecgate_wazo.so")).success();
    assert!(good.stdout.contains("wazo") && good.stdout.contains("cdr_dir"), "{good}");
}

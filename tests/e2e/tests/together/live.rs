//! What a PBX finishes is there at once, though the next scan is an hour away.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use recgate_e2e::{ACME, Call, Fixture, Raw, utc, wait_for};

/// What a finished recording may take; the rest is for machines that have much to do. That no scan is on its way shows
/// here, for there is none for an hour; that no timer is, where the plugin's are declared.
const PROMISED: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(8);

/// A gateway that scans once an hour and takes nothing for complete because it is quiet; what was there is published.
fn watched(calls: usize) -> (Fixture, Vec<Call>) {
    let mut fixture = Fixture::with(vec![ACME]);
    let config = fixture.config();
    let hourly = config
        .replace("scan_interval = \"500ms\"", "scan_interval = \"1h\"")
        .replace("growing_after = 1\n", "growing_after = 3600\n");
    assert_ne!(config, hourly);
    fixture.write_config(&hourly);
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let start = |n: usize| utc("2016-06-06 10:00:00") + TimeDelta::seconds(i64::try_from(n).unwrap());
    let calls: Vec<Call> = (0..calls).map(|n| acme.add(start(n), 40 + n % 20)).collect();
    fixture.start();
    fixture.wait_published("acme", &calls);
    wait_for("a source that is watched", Duration::from_secs(30), || {
        (source(&fixture)["watched"] == true).then_some(())
    });
    (fixture, calls)
}

fn source(fixture: &Fixture) -> serde_json::Value {
    let status = fixture.recgate(&["status", "--json"]).success();
    serde_json::from_str::<serde_json::Value>(&status.stdout).unwrap()["tenants"][0]["sources"][0].clone()
}

/// What the PBX leaves of a recording that is paused after so many bytes.
fn paused_at(call: &Call, bytes: usize) -> Vec<u8> {
    let mut first = call.bytes[..bytes].to_vec();
    first[4..8].copy_from_slice(&u32::try_from(bytes - 8).unwrap().to_le_bytes());
    first[40..44].copy_from_slice(&u32::try_from(bytes - 44).unwrap().to_le_bytes());
    first
}

/// Waits until a recording is served, which has been complete since then.
fn served(raw: &mut Raw, call: &Call, since: Instant) {
    let path = format!("/{}", call.path());
    wait_for(&path, 2 * PATIENCE, || raw.stat(path.as_bytes()).ok());
    assert!(since.elapsed() < PROMISED + PATIENCE, "{path} was there after {:?}", since.elapsed());
    assert!(raw.file(&path).unwrap() == call.bytes, "{path}");
}

#[test]
fn a_finished_recording_is_listed_at_once() {
    let (mut fixture, _) = watched(20);
    let mut raw = fixture.login("acme").raw();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let path_of = |call: &Call| format!("/{}", call.path());

    // As a PBX does it: the file grows, is closed, and the record comes afterwards.
    let call = acme.plan(utc("2016-06-07 10:00:00"), 45);
    let mut file = File::create(acme.media_path(&call)).unwrap();
    file.write_all(&[&call.bytes[..4], &[0; 4], &call.bytes[8..40], &[0; 4], &call.bytes[44..]].concat())
        .unwrap();
    file.write_all_at(&call.bytes[..44], 0).unwrap();
    drop(file);
    assert!(raw.stat(path_of(&call).as_bytes()).is_err(), "without a record");
    let since = Instant::now();
    acme.write_record(&call);
    served(&mut raw, &call, since);

    // The record before the file, which is moved into place.
    let call = acme.plan(utc("2016-06-07 10:00:01"), 46);
    acme.write_record(&call);
    let since = Instant::now();
    acme.write_media(&call);
    served(&mut raw, &call, since);

    // Paused, resumed, and ended after its record has come.
    let call = acme.plan(utc("2016-06-07 10:00:02"), 47);
    let paused = call.bytes.len() / 4 * 2;
    fs::write(acme.media_path(&call), paused_at(&call, paused)).unwrap();
    let file = File::options().write(true).open(acme.media_path(&call)).unwrap();
    file.write_all_at(&call.bytes[paused..paused + 100], u64::try_from(paused).unwrap()).unwrap();
    acme.write_record(&call);
    let other = acme.add(utc("2016-06-07 10:00:03"), 48);
    served(&mut raw, &other, Instant::now());
    assert!(raw.stat(path_of(&call).as_bytes()).is_err(), "it isn't over");
    file.write_all_at(&call.bytes[paused..], u64::try_from(paused).unwrap()).unwrap();
    file.write_all_at(&call.bytes[..44], 0).unwrap();
    let since = Instant::now();
    drop(file);
    served(&mut raw, &call, since);
    let report = source(&fixture);
    assert_eq!(report["problem"], serde_json::Value::Null, "{report}");
}

#[test]
fn a_recording_that_went_on_while_nobody_watched_is_served_whole() {
    // So many that a scan tells its recording and its record far apart.
    let (mut fixture, _) = watched(700);
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let call = acme.plan(utc("2016-06-07 10:00:00"), 45);
    fs::write(acme.media_path(&call), paused_at(&call, call.bytes.len() / 4 * 2)).unwrap();
    // Written and closed later than that one: once it is there, the other is taken for complete, too.
    let other = acme.plan(utc("2016-06-07 10:00:01"), 46);
    acme.write_record(&other);
    fs::write(acme.media_path(&other), &other.bytes).unwrap();
    served(&mut fixture.login("acme").raw(), &other, Instant::now());
    fixture.gateway.take().unwrap().stop();
    let acme = &fixture.wazo["acme"];
    fs::write(acme.media_path(&call), &call.bytes).unwrap();
    File::open(acme.media_path(&call)).unwrap().set_modified(call.stop.into()).unwrap();
    acme.write_record(&call);
    fixture.start();
    served(&mut fixture.login("acme").raw(), &call, Instant::now());
    let report = source(&fixture);
    assert_eq!(report["problem"], serde_json::Value::Null, "{report}");
    // Whatever is confirmed after a scan has been.
    wait_for("the end of a scan", Duration::from_secs(30), || {
        let report = source(&fixture);
        (report["scanning"] == false && report["last_scan"].is_string()).then_some(())
    });
    assert!(fixture.login("acme").raw().file(&format!("/{}", call.path())).unwrap() == call.bytes);
}

#[test]
fn a_recording_that_is_deleted_leaves_its_folder_soon() {
    let (fixture, calls) = watched(20);
    let mut raw = fixture.login("acme").raw();
    fs::remove_file(fixture.wazo["acme"].media_path(&calls[3])).unwrap();
    let path = format!("/{}", calls[3].path());
    wait_for("its end", Duration::from_secs(60), || raw.stat(path.as_bytes()).is_err().then_some(()));
    for call in calls.iter().filter(|call| call.id != calls[3].id) {
        raw.stat(format!("/{}", call.path()).as_bytes()).unwrap();
    }
}

#[test]
fn a_folder_that_is_replaced_is_watched_again() {
    let (mut fixture, calls) = watched(20);
    let mut raw = fixture.login("acme").raw();
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let away = acme.monitor.with_extension("away");
    fs::rename(&acme.monitor, &away).unwrap();
    wait_for("a source that isn't watched", Duration::from_secs(30), || {
        (source(&fixture)["watched"] == false).then_some(())
    });
    let report = fixture.recgate(&["status"]).success();
    assert!(report.stdout.contains("not watched live: "), "{report}");
    let acme = fixture.wazo.get_mut("acme").unwrap();
    fs::rename(&away, &acme.monitor).unwrap();
    // The pauses between its attempts have grown meanwhile.
    wait_for("a source that is watched again", Duration::from_secs(60), || {
        (source(&fixture)["watched"] == true).then_some(())
    });
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let since = Instant::now();
    let call = acme.add(utc("2016-06-08 10:00:00"), 45);
    served(&mut raw, &call, since);
    raw.stat(format!("/{}", calls[0].path()).as_bytes()).unwrap();
}

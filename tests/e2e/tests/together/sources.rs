//! Sources that fail: what is wrong is told, nothing is lost, and they are well again without a restart.

use std::{fs, path::Path, process::Command, time::Duration};

use chrono::TimeDelta;
use recgate_e2e::{ACME, Call, Fixture, OpenMetrics, TenantSpec, broken_source, run, utc, wait_for};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
const LISTEN: &str = "\n[metrics]\nlisten = \"127.0.0.1:0\"\n";

/// A source of the plugin that misbehaves, besides the PBX.
fn broken(settings: &str) -> String {
    broken_source("other", "1s", &format!("media = [{{ id = \"a\", size = 1000 }}]\n{settings}"))
}

fn started(tenant: TenantSpec, calls: usize) -> (Fixture, Vec<Call>) {
    let mut fixture = Fixture::with(vec![tenant]);
    fixture.write_config(&(fixture.config() + LISTEN));
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let start = |n: usize| utc("2016-06-06 10:00:00") + TimeDelta::seconds(i64::try_from(n).unwrap());
    let calls = (0..calls).map(|n| acme.add(start(n), 40 + n % 20)).collect();
    fixture.start();
    (fixture, calls)
}

fn status(fixture: &Fixture) -> Value {
    let printed = fixture.recgate(&["status", "--json"]).success();
    serde_json::from_str::<Value>(&printed.stdout).unwrap()["tenants"][0].clone()
}

fn source(fixture: &Fixture, name: &str) -> Value {
    let status = status(fixture);
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == name).unwrap().clone()
}

fn metrics(fixture: &Fixture) -> OpenMetrics {
    let address = fixture.gateway.as_ref().unwrap().ready.json["metrics"].as_str().unwrap().to_owned();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "20"]);
    curl.arg(format!("http://{address}/metrics"));
    OpenMetrics::read(&run(&mut curl, b"", Duration::from_secs(30)).success().stdout)
}

/// Waits for a metric of a source.
fn wait_metric(fixture: &Fixture, name: &str, source: &str, is: impl Fn(f64) -> bool) {
    wait_for(&format!("{name} of {source}"), LONG, || {
        metrics(fixture).get(name, &[("tenant", "acme"), ("source", source)]).filter(|value| is(*value))
    });
}

fn away(folder: &Path) -> std::path::PathBuf {
    folder.with_extension("away")
}

#[test]
fn a_pbx_that_is_away_empty_or_halved_loses_nothing_and_is_well_again() {
    let (mut fixture, calls) = started(ACME, 20);
    fixture.wait_published("acme", &calls);
    let monitor = fixture.wazo["acme"].monitor.clone();
    let halves = |from: &Path, to: &Path| {
        for call in calls.iter().step_by(2) {
            let name = format!("{}.wav", call.uuid);
            fs::rename(from.join(&name), to.join(&name)).unwrap();
        }
    };
    let mut all = calls.clone();
    for (at, what) in ["down", "unmounted", "partly unmounted"].into_iter().enumerate() {
        match what {
            "down" => fs::rename(&monitor, away(&monitor)).unwrap(),
            "unmounted" => {
                fs::rename(&monitor, away(&monitor)).unwrap();
                fs::create_dir(&monitor).unwrap();
            }
            _ => {
                fs::create_dir(away(&monitor)).unwrap();
                halves(&monitor, &away(&monitor));
            }
        }
        let report = wait_for(&format!("{what}: a problem"), LONG, || {
            Some(source(&fixture, "pbx")).filter(|report| report["problem"].is_string())
        });
        let words = if what == "down" { "no folder" } else { "vanished at once" };
        let problem = report["problem"].as_str().unwrap();
        assert!(problem.contains(words) || what == "down" && problem.contains("root"), "{what}: {problem}");
        assert!(report["lag_seconds"].is_u64(), "{what}: {report}");
        wait_metric(&fixture, "recgate_source_problem", "pbx", |problem| problem == 1.0);
        wait_metric(&fixture, "recgate_source_lag_seconds", "pbx", |lag| lag >= 0.0);
        let counts = &status(&fixture)["recordings"];
        assert_eq!((&counts["missing"], &counts["corrupt"]), (&0.into(), &0.into()), "{what}");
        let mut raw = fixture.login("acme").raw();
        for call in &all {
            raw.stat(format!("/{}", call.path()).as_bytes()).unwrap();
        }

        match what {
            "down" => fs::rename(away(&monitor), &monitor).unwrap(),
            "unmounted" => {
                fs::remove_dir(&monitor).unwrap();
                fs::rename(away(&monitor), &monitor).unwrap();
            }
            _ => halves(&away(&monitor), &monitor),
        }
        let later = utc("2016-06-06 11:00:00") + TimeDelta::minutes(i64::try_from(at).unwrap());
        all.push(fixture.wazo.get_mut("acme").unwrap().add(later, 40));
        fixture.wait_published("acme", &all);
        wait_for(&format!("{what}: a source that is well"), LONG, || {
            source(&fixture, "pbx")["problem"].is_null().then_some(())
        });
        wait_metric(&fixture, "recgate_source_problem", "pbx", |problem| problem == 0.0);
        assert!(raw.file(&format!("/{}", calls[0].path())).unwrap() == calls[0].bytes, "{what}");
    }
}

#[test]
fn what_an_operator_removed_on_purpose_is_accepted_with_a_word() {
    let mut fixture = Fixture::with(vec![ACME]);
    // Only what is heard or asked for makes it scan.
    fixture.write_config(&fixture.config().replace("scan_interval = \"500ms\"", "scan_interval = \"12h\""));
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let calls: Vec<Call> =
        (0..20).map(|n| acme.add(utc("2016-06-06 10:00:00") + TimeDelta::seconds(n), 40)).collect();
    fixture.start();
    fixture.wait_published("acme", &calls);
    let list = || fixture.recgate(&["source", "list"]).success().stdout;
    let well = list();
    let lines: Vec<&str> = well.lines().collect();
    assert!(lines[0].starts_with("SOURCE") && lines[0].ends_with("PROBLEM"), "{well}");
    assert!(
        lines.len() == 2 && lines[1].starts_with("acme/pbx  wazo") && lines[1].contains(" 20 "),
        "{well}"
    );
    let accept = |source: &str| fixture.recgate(&["source", "accept-loss", source]);
    let refused = accept("acme/pbx").code(1);
    assert!(refused.stderr.contains("missed nothing that has to be accepted"), "{refused}");
    let refused = accept("acme/pxb").code(1);
    assert!(refused.stderr.contains("there is no source \"acme/pxb\"; there is acme/pbx"), "{refused}");

    for call in &calls[..4] {
        fs::remove_file(fixture.wazo["acme"].media_path(call)).unwrap();
    }
    let ill =
        wait_for("a problem in the list", LONG, || Some(list()).filter(|list| list.contains("4 of 20")));
    assert!(ill.contains("recgate source accept-loss acme/pbx"), "it says what to do: {ill}");
    let json = fixture.recgate(&["source", "list", "--json"]).success().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["tenant"] == "acme" && json["source"]["problem"].is_string(), "{json}");

    let accepted = accept("acme/pbx").success().stdout;
    assert!(accepted.starts_with("acme/pbx: 4 media are accepted as lost"), "{accepted}");
    wait_for("four that are missing", LONG, || {
        (status(&fixture)["recordings"]["missing"] == 4).then_some(())
    });
    assert!(source(&fixture, "pbx")["problem"].is_null(), "{}", list());
    let missing = fixture.recgate(&["recording", "list", "--state", "missing", "--json"]).success().stdout;
    assert_eq!(missing.lines().count(), 4, "{missing}");
    let mut raw = fixture.login("acme").raw();
    let listed = raw.list("/S20160606").unwrap();
    assert_eq!(listed.iter().filter(|entry| entry.name.ends_with(".wav")).count(), 16);
}

#[test]
fn a_source_that_hangs_says_so_and_goes_on() {
    let release = tempfile::TempDir::new().unwrap();
    let file = release.path().join("go-on");
    let more = broken(&format!("misbehave = \"hang-in-scan\"\nrelease = {:?}", file.to_str().unwrap()));
    let (fixture, _) = started(TenantSpec { more, ..ACME }, 0);
    let problem =
        wait_for("a problem", LONG, || source(&fixture, "other")["problem"].as_str().map(str::to_owned));
    assert!(problem.contains("made no progress"), "{problem}");
    assert!(source(&fixture, "other")["lag_seconds"].is_null(), "it has told nothing yet");
    wait_metric(&fixture, "recgate_source_problem", "other", |problem| problem == 1.0);
    fs::write(&file, "").unwrap();
    let mut raw = fixture.login("acme").raw();
    wait_for("its recording", LONG, || raw.stat(b"/S20160606/R201606060001170000.wav").ok());
    wait_for("a source that is well", LONG, || source(&fixture, "other")["problem"].is_null().then_some(()));
}

#[test]
fn one_id_that_is_told_twice_and_facts_of_nothing_are_reported() {
    let lone = "{ id = \"lone\", keys = [{ kind = \"object_key\", value = \"nobody's\" }] }";
    let more = broken(&format!("misbehave = \"duplicate-id\"\ntold_facts = [{lone}]"));
    let (fixture, _) = started(TenantSpec { more, ..ACME }, 0);
    let mut raw = fixture.login("acme").raw();
    wait_for("its recording", LONG, || raw.file("/S20160606/R201606060001170000.wav").ok());
    let report = wait_for("a complaint", LONG, || {
        Some(source(&fixture, "other")).filter(|report| report["complaints"].as_u64() > Some(0))
    });
    assert_eq!(report["complaint"], "the id \"a\" was told twice in one batch");
    assert_eq!((&report["problem"], &report["unmatched_facts"]), (&Value::Null, &1.into()), "{report}");
    let printed = fixture.recgate(&["status"]).success().stdout;
    assert!(printed.contains("acme/other: has told what it must not, "), "{printed}");
    assert!(printed.contains("acme/other: 1 set of facts joins no recording"), "{printed}");
    wait_metric(&fixture, "recgate_source_complaints_total", "other", |count| count > 0.0);
    wait_metric(&fixture, "recgate_source_unmatched_facts", "other", |count| count == 1.0);
    wait_metric(&fixture, "recgate_source_unmatched_facts", "pbx", |count| count == 0.0);
    assert_eq!(status(&fixture)["recordings"]["corrupt"], 0);
}

#[test]
fn a_source_whose_clock_is_far_ahead_is_believed_until_now() {
    let (fixture, _) = started(TenantSpec { more: broken("misbehave = \"bad-watermark\""), ..ACME }, 0);
    let report = wait_for("a scan", LONG, || {
        Some(source(&fixture, "other"))
            .filter(|report| report["last_scan"].is_string() || report["problem"].is_string())
    });
    // Refused, or taken for now: never for a time to come.
    assert!(report["problem"].is_string() || report["lag_seconds"].as_u64() < Some(600), "{report}");
    assert_eq!(status(&fixture)["recordings"]["missing"], 0);
}

#[test]
fn an_id_that_changes_case_is_told_with_both_spellings() {
    let (fixture, calls) = started(ACME, 20);
    fixture.wait_published("acme", &calls);
    let wazo = &fixture.wazo["acme"];
    // A uuid with letters in it.
    let call = calls.iter().find(|call| call.uuid != call.uuid.to_uppercase()).unwrap();
    let (old, new) = (format!("{}.wav", call.uuid), format!("{}.wav", call.uuid.to_uppercase()));
    fs::rename(wazo.monitor.join(&old), wazo.monitor.join(&new)).unwrap();
    let complaint =
        wait_for("a complaint", LONG, || source(&fixture, "pbx")["complaint"].as_str().map(str::to_owned));
    assert!(complaint.contains(&old) && complaint.contains(&new), "{complaint}");
    // This storage tells cases apart: it has confirmed that the old one is gone.
    fixture.gateway.as_ref().unwrap().wait_for_log(&[&old, "the other one is a new recording"]);
    wait_for("one recording more", LONG, || {
        let counts = &status(&fixture)["recordings"];
        (counts["published"] == 21 && counts["missing"] == 1).then_some(())
    });
    let mut raw = fixture.login("acme").raw();
    for other in calls.iter().filter(|other| other.id != call.id) {
        raw.stat(format!("/{}", other.path()).as_bytes()).unwrap();
    }
}

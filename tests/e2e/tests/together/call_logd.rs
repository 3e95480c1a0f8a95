//! Call data records that come from wazo-call-logd's HTTP API.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use recgate_e2e::{ACME, Call, Fixture, OpenMetrics, WAZO_TENANT, read_index, run, utc, wait_for};
use recgate_wazo_stub::{FaultKind, PASSWORD, USER, WazoStub};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// A gateway's fixture whose records a stub has.
struct Pbx {
    fixture: Fixture,
    stub: WazoStub,
    calls: Vec<Call>,
}

impl Pbx {
    /// Three calls on 6 June 2016; nothing runs yet.
    fn new(stub: WazoStub, more: &str) -> Self {
        let mut fixture = Fixture::with(vec![ACME]);
        stub.state().tenants = vec![WAZO_TENANT.to_owned()];
        let secret = fixture.path().join("pbx-password");
        fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let wazo = fixture.wazo.get_mut("acme").unwrap();
        let calls: Vec<Call> = ["2016-06-06 17:30:00", "2016-06-06 17:40:00", "2016-06-06 17:50:00"]
            .iter()
            .enumerate()
            .map(|(at, start)| wazo.plan(utc(start), 40 + at))
            .collect();
        for call in &calls {
            wazo.write_media(call);
            stub.put(call.record());
        }
        let (config, from_files) = (fixture.config(), format!("cdr_dir = {}", quoted(&wazo_cdr(&fixture))));
        let over_http = format!(
            "[tenant.source.settings.call_logd]\nurl = \"{}\"\nauth_url = \"{}\"\ntenant_uuid = \"{WAZO_TENANT}\"\n\
             user = \"{USER}\"\npassword_file = {}\npoll_interval = 1\ntimeout = 5\n{more}\n",
            stub.url(),
            stub.auth_url(),
            quoted(&secret),
        );
        assert!(config.contains(&from_files) && config.contains("growing_after = 1\n"));
        let config = config
            .replace(&from_files, "")
            .replace("growing_after = 1\n", &format!("growing_after = 1\n{over_http}"));
        fixture.write_config(&format!("{config}\n[metrics]\nlisten = \"127.0.0.1:0\"\n"));
        Self { fixture, stub, calls }
    }

    /// What `recgate status` says of the source.
    fn source(&self) -> Value {
        let printed = self.fixture.recgate(&["status", "--json"]).success();
        let status: Value = serde_json::from_str(&printed.stdout).unwrap();
        status["tenants"][0]["sources"][0].clone()
    }

    fn wait_problem(&self, words: &[&str]) -> String {
        wait_for(&format!("a problem with {words:?}"), LONG, || {
            let problem = self.source()["problem"].as_str()?.to_owned();
            words.iter().all(|word| problem.contains(word)).then_some(problem)
        })
    }

    fn wait_well(&self) {
        wait_for("a source without a problem", LONG, || {
            let source = self.source();
            (source["problem"].is_null() && !source["last_scan"].is_null()).then_some(())
        });
    }

    /// A call that ends while the gateway runs.
    fn call(&mut self, start: &str) {
        let wazo = self.fixture.wazo.get_mut("acme").unwrap();
        let call = wazo.plan(utc(start), 50);
        wazo.write_media(&call);
        self.stub.put(call.record());
        self.calls.push(call);
    }

    /// A gauge or counter of the source.
    fn metric(&self, name: &str) -> f64 {
        let gateway = self.fixture.gateway.as_ref().unwrap();
        let address = gateway.ready.json["metrics"].as_str().unwrap();
        let url = format!("http://{address}/metrics");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", &url]);
        let text = run(&mut command, b"", Duration::from_secs(30)).success().stdout;
        OpenMetrics::read(&text).value(name, &[("tenant", "acme"), ("source", "pbx")])
    }

    /// No secret of the PBX is in the log or in what commands print.
    fn assert_secrets_are_kept(&self) {
        let status = self.fixture.recgate(&["status"]).success();
        let log = self.fixture.gateway.as_ref().unwrap().log();
        for text in [log.as_str(), status.stdout.as_str(), status.stderr.as_str()] {
            for secret in [PASSWORD, "00000000-0000-4000-8000", "Basic "] {
                assert!(!text.contains(secret), "{secret:?} is shown in {text}");
            }
        }
    }
}

fn wazo_cdr(fixture: &Fixture) -> std::path::PathBuf {
    fixture.wazo["acme"].cdr.clone()
}

fn quoted(path: &Path) -> String {
    serde_json::to_string(path.to_str().unwrap()).unwrap()
}

#[test]
fn records_over_http_publish_recordings_and_corrections_change_their_rows() {
    let mut pbx = Pbx::new(WazoStub::start(), "page_size = 2\nsweep_interval = 1");
    pbx.fixture.start();
    pbx.fixture.wait_published("acme", &pbx.calls);
    pbx.wait_well();
    let mut raw = pbx.fixture.login("acme").raw();
    let first = pbx.calls[0].clone();
    assert!(raw.file(&format!("/{}", first.path())).unwrap() == first.bytes);

    // The calls are from 2016: only the sweep of everything sees a correction of these.
    let mut record = first.record();
    for name in ["destination_name", "source_name"] {
        record[name] = json!("Tatiana Romanov");
    }
    pbx.stub.put(record);
    let path = format!("/{}/I20160606_version2.csv", first.folder());
    wait_for("the corrected name in the folder's index", Duration::from_secs(120), || {
        let rows = read_index(&raw.file(&path).ok()?).1;
        assert_eq!(rows.len(), 3);
        let row = rows.iter().find(|row| row["FILENAME"] == first.name()).unwrap();
        (row["AGENT NAME"] == "Tatiana Romanov").then_some(())
    });
    pbx.assert_secrets_are_kept();
}

#[test]
fn new_media_are_learned_and_wait_while_the_service_is_down() {
    let mut pbx = Pbx::new(WazoStub::start(), "");
    pbx.stub.go_down();
    pbx.fixture.start();
    pbx.wait_problem(&["call_logd.auth_url", "no answer"]);
    let source = pbx.source();
    assert_eq!((&source["lag_seconds"], &source["last_scan"]), (&Value::Null, &Value::Null), "{source}");
    assert_eq!(pbx.metric("recgate_source_problem"), 1.0);
    let status: Value =
        serde_json::from_str(&pbx.fixture.recgate(&["status", "--json"]).success().stdout).unwrap();
    let recordings = &status["tenants"][0]["recordings"];
    assert_eq!((&recordings["learned"], &recordings["orphans"]), (&json!(3), &json!(0)), "{status}");
    let checked = pbx.fixture.recgate(&["check"]);
    assert!(checked.text().contains("call_logd"), "{checked}");

    pbx.stub.come_up();
    pbx.fixture.wait_published("acme", &pbx.calls);
    pbx.wait_well();
    assert_eq!(pbx.metric("recgate_source_problem"), 0.0);

    // Down again: what is there stays, and what comes waits.
    pbx.stub.go_down();
    pbx.call("2016-06-07 08:00:00");
    pbx.wait_problem(&["call_logd"]);
    pbx.fixture.wait_published("acme", &pbx.calls[..3]);
    pbx.stub.come_up();
    pbx.fixture.wait_published("acme", &pbx.calls);
    pbx.wait_well();
    pbx.assert_secrets_are_kept();
}

#[test]
fn tokens_that_end_in_the_middle_and_services_that_stutter_are_survived() {
    let mut pbx = Pbx::new(WazoStub::start(), "page_size = 1");
    pbx.stub.state().cdr_fault = FaultKind::Cut(40).once_after(2);
    pbx.fixture.start();
    pbx.fixture.wait_published("acme", &pbx.calls);
    for start in ["2016-06-07 08:00:00", "2016-06-07 09:00:00", "2016-06-07 10:00:00"] {
        pbx.stub.expire_tokens();
        pbx.call(start);
        pbx.fixture.wait_published("acme", &pbx.calls);
    }
    pbx.wait_well();
    let asked = pbx.stub.asked();
    assert!(asked.iter().any(|asked| asked.status == 401), "no token had ended");
    assert!(asked.iter().filter(|asked| asked.method == "POST").count() > 3);
    pbx.assert_secrets_are_kept();
    pbx.fixture.gateway.take().unwrap().stop();
    let last = pbx.stub.asked();
    assert!(last.iter().any(|asked| asked.method == "DELETE"), "the token was not given back: {last:?}");
}

#[test]
fn a_recording_that_the_pbx_deleted_goes_and_its_row_stays() {
    let mut pbx = Pbx::new(WazoStub::start(), "");
    pbx.fixture.start();
    pbx.fixture.wait_published("acme", &pbx.calls);
    let gone = pbx.calls[1].clone();
    pbx.stub.delete_recording(gone.id, &gone.uuid);
    fs::remove_file(pbx.fixture.wazo["acme"].media_path(&gone)).unwrap();
    let mut raw = pbx.fixture.login("acme").raw();
    wait_for("the end of the deleted recording", LONG, || {
        raw.stat(format!("/{}", gone.path()).as_bytes()).err()
    });
    pbx.fixture.restart();
    pbx.wait_well();
    let rows = read_index(&pbx.fixture.wait_root_index("acme", "20160606", 3)).1;
    assert!(rows.iter().any(|row| row["FILENAME"] == gone.name()));
    let mut raw = pbx.fixture.login("acme").raw();
    assert!(raw.stat(format!("/{}", gone.path()).as_bytes()).is_err());
    assert!(raw.file(&format!("/{}", pbx.calls[0].path())).unwrap() == pbx.calls[0].bytes);
}

#[test]
fn a_timeout_that_outlasts_the_call_is_refused() {
    let pbx = Pbx::new(WazoStub::start(), "");
    let config = fs::read_to_string(pbx.fixture.config_path()).unwrap();
    pbx.fixture.recgate(&["check"]).success();
    pbx.fixture.write_config(&config.replace("\ntimeout = 5\n", "\ntimeout = 15\n"));
    let refused = pbx.fixture.recgate(&["check"]).code(3);
    let text = refused.text();
    assert!(
        text.contains("/call_logd/timeout: 2 times 15 s") && text.contains("call_timeout is 30s"),
        "{text}"
    );
}

#[test]
fn a_wrong_password_is_told_in_plain_words_and_never_shown() {
    let mut pbx = Pbx::new(WazoStub::start(), "");
    pbx.stub.state().password = "another".to_owned();
    pbx.fixture.start();
    let problem =
        pbx.wait_problem(&["wazo-auth refused user \"recgate\"", "pbx-password", "Authentication Failed"]);
    let printed = pbx.fixture.recgate(&["status"]).success();
    assert!(printed.stdout.contains("wazo-auth refused user"), "{printed}");
    assert!(!problem.contains(PASSWORD));
    pbx.assert_secrets_are_kept();

    // The right one counts without a restart.
    pbx.stub.state().password = PASSWORD.to_owned();
    pbx.fixture.wait_published("acme", &pbx.calls);
    pbx.wait_well();
}

#[test]
fn tls_with_an_authority_of_the_operators_own() {
    let stub = WazoStub::start_tls();
    let folder = tempfile::TempDir::new().unwrap();
    let authority = folder.path().join("ca.pem");
    fs::write(&authority, stub.authority_pem()).unwrap();
    let mut pbx = Pbx::new(stub, &format!("ca_file = {}", quoted(&authority)));
    pbx.fixture.start();
    pbx.fixture.wait_published("acme", &pbx.calls);
    pbx.wait_well();
}

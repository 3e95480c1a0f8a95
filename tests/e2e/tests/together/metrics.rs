//! Metrics and probes, as Prometheus and a supervisor ask for them.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use recgate_e2e::{
    ACME, Finished, Fixture, Gateway, Login, OpenMetrics, TenantSpec, broken_source, run, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

const LISTEN: &str = "\n[metrics]\nlisten = \"127.0.0.1:0\"\n";

/// A source of the plugin that misbehaves.
fn source(misbehave: &str, size: u64, delay_ms: u64) -> String {
    let media = format!("media = [{{ id = \"slow\", size = {size} }}]");
    broken_source("other", "30s", &format!("delay_ms = {delay_ms}\n{misbehave}\n{media}"))
}

const SLOW: &str = "/S20160606/R201606060001170000.wav";

fn start(fixture: &mut Fixture) {
    fixture.write_config(&(fixture.config() + LISTEN));
    fixture.start();
}

/// Where the gateway's metrics are.
fn url(gateway: &Gateway, path: &str) -> String {
    let address = gateway.ready.json["metrics"].as_str().expect("the ready file says where metrics are");
    format!("http://{address}{path}")
}

fn curl(arguments: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]).args(arguments);
    run(&mut command, b"", Duration::from_secs(30)).success()
}

/// Status and body.
fn get(gateway: &Gateway, path: &str) -> (String, String) {
    let answer = curl(&["--write-out", "%{http_code}", &url(gateway, path)]).stdout;
    let (body, status) = answer.split_at(answer.len() - 3);
    (status.to_owned(), body.to_owned())
}

fn scrape(gateway: &Gateway) -> OpenMetrics {
    let (status, text) = get(gateway, "/metrics");
    assert_eq!(status, "200", "{text}");
    OpenMetrics::read(&text)
}

fn sftp<'l>(more: &[(&'l str, &'l str)]) -> Vec<(&'l str, &'l str)> {
    let mut labels = vec![("door", "sftp")];
    labels.extend(more);
    labels
}

#[test]
fn what_clients_do_is_counted() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    start(&mut fixture);
    fixture.wait_published("acme", &calls["acme"]);
    let gateway = fixture.gateway.as_ref().unwrap();
    let sessions = |metrics: &OpenMetrics| metrics.sum("recgate_open_connections");
    let quiet = || {
        wait_for("the sessions' ends", Duration::from_secs(30), || {
            Some(scrape(gateway)).filter(|metrics| sessions(metrics) == 0.0)
        })
    };
    let before = quiet();

    // A large one, which is opened by one call of the plugin and read by others.
    let call = &calls["acme"][2];
    let copy = fixture.path().join("copy.wav");
    let login = fixture.login("acme/manager");
    login.sftp(&format!("get /{} {}\n-rm /{}\n", call.path(), copy.display(), call.path())).success();
    assert!(fs::read(&copy).unwrap() == call.bytes);
    let wrong = Login { password: "not the password".into(), ..login };
    // Otherwise it would be tried a second time, as the answer to a question.
    wrong.sftp_with(&["-o", "PreferredAuthentications=password"], b"ls\n").code(255);
    let mut raw = fixture.login("acme").raw();
    raw.list("/").unwrap();
    let open = scrape(gateway);
    assert_eq!(open.value("recgate_open_connections", &sftp(&[])), 1.0);
    assert_eq!(open.value("recgate_open_sessions", &sftp(&[("tenant", "acme")])), 1.0);
    drop(raw);
    let after = quiet();

    let grown = |name: &str, labels: &[(&str, &str)]| {
        after.value(name, labels) - before.get(name, labels).unwrap_or_default()
    };
    let tried = |result| grown("recgate_logins_total", &sftp(&[("method", "password"), ("result", result)]));
    assert_eq!((tried("ok"), tried("wrong"), tried("busy")), (2.0, 1.0, 0.0));
    assert_eq!(grown("recgate_connections_total", &sftp(&[])), 3.0);
    assert_eq!(grown("recgate_session_duration_seconds_count", &sftp(&[])), 2.0);
    let acme = sftp(&[("tenant", "acme")]);
    assert_eq!(grown("recgate_sent_bytes_total", &acme), call.bytes.len() as f64);
    let transfers =
        |complete| grown("recgate_transfers_total", &sftp(&[("tenant", "acme"), ("complete", complete)]));
    assert_eq!((transfers("true"), transfers("false")), (1.0, 0.0));
    assert_eq!(after.get("recgate_sent_bytes_total", &sftp(&[("tenant", "globex")])), None);
    let refused = |kind| grown("recgate_refusals_total", &sftp(&[("kind", kind)]));
    assert_eq!((refused("forbidden"), refused("locked"), refused("internal")), (1.0, 0.0, 0.0));
    let asked = |kind| grown("recgate_sftp_requests_total", &[("type", kind)]);
    assert_eq!((asked("remove"), asked("open"), asked("opendir"), asked("unknown")), (1.0, 1.0, 1.0, 0.0));
    assert!(asked("read") >= 1.0 && asked("readdir") >= 2.0 && asked("close") >= 2.0);
    let waited = |kind| grown("recgate_sftp_request_duration_seconds_count", &[("type", kind)]);
    assert_eq!((waited("open"), waited("opendir")), (1.0, 1.0));
    assert!(waited("readdir") >= 2.0 && waited("stat") >= 1.0);

    // The state, and the plugin's calls.
    for (state, count) in
        [("published", 9.0), ("learned", 0.0), ("orphan", 0.0), ("missing", 0.0), ("corrupt", 0.0)]
    {
        assert_eq!(
            after.value("recgate_recordings", &[("tenant", "acme"), ("state", state)]),
            count,
            "{state}"
        );
    }
    for tenant in ["acme", "globex"] {
        let source = [("tenant", tenant), ("source", "pbx")];
        let value = |name| after.value(name, &source);
        assert_eq!((value("recgate_source_problem"), value("recgate_source_available")), (0.0, 1.0));
        assert!(
            value("recgate_source_lag_seconds") < 600.0 && value("recgate_source_scan_age_seconds") < 60.0
        );
        assert_eq!(value("recgate_plugin_abandoned_calls"), 0.0);
        assert_eq!(after.value("recgate_index_overdue", &[("tenant", tenant)]), 0.0);
        assert_eq!(after.value("recgate_index_lag_seconds", &[("tenant", tenant)]), 0.0);
    }
    let of_plugin = |call| {
        after.value(
            "recgate_plugin_calls_total",
            &[("tenant", "acme"), ("source", "pbx"), ("call", call), ("result", "ok")],
        )
    };
    assert!(of_plugin("scan") >= 1.0 && of_plugin("open") >= 1.0 && of_plugin("read_at") >= 1.0);
    let read = after.value("recgate_plugin_read_bytes_total", &[("tenant", "acme"), ("source", "pbx")]);
    assert!(read >= call.bytes.len() as f64, "{read}");
    assert!(after.value("recgate_journal_entries_total", &[("chain", "governance")]) > 20.0);
    assert_eq!(after.value("recgate_draining", &[]), 0.0);
    assert!(
        after.value("recgate_read_ahead_bytes", &[]) <= after.value("recgate_read_ahead_budget_bytes", &[])
    );
    assert!(after.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(after.value("process_cpu_seconds_total", &[]) > 0.0);

    // Labels are few, and none names a path, an address or a recording.
    assert_eq!(
        after.labels().into_iter().collect::<Vec<_>>(),
        [
            "call",
            "chain",
            "complete",
            "door",
            "kind",
            "le",
            "method",
            "plugin_abi",
            "reason",
            "result",
            "source",
            "state",
            "tenant",
            "type",
            "version"
        ]
    );
    assert_eq!(after.label_values("tenant").into_iter().collect::<Vec<_>>(), ["acme", "globex"]);
    let (_, text) = get(gateway, "/metrics");
    for private in ["127.0.0.1", ".wav", "S2016", "manager", fixture.path().to_str().unwrap()] {
        assert!(!text.contains(private), "{private}\n{text}");
    }
}

#[test]
fn http_says_what_it_is_and_where() {
    let mut fixture = Fixture::with(vec![ACME]);
    start(&mut fixture);
    let gateway = fixture.gateway.as_ref().unwrap();
    assert_eq!(get(gateway, "/livez"), ("200".to_owned(), "ok\n".to_owned()));
    assert_eq!(get(gateway, "/readyz"), ("200".to_owned(), "ok\n".to_owned()));
    assert_eq!(get(gateway, "/v1/status").0, "404");
    let head = curl(&["--head", &url(gateway, "/metrics")]).stdout.to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let told = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(head.contains(told), "{head}");

    let address = gateway.ready.json["metrics"].as_str().unwrap();
    let printed = fixture.recgate(&["status", "--json"]).success();
    let status: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(status["metrics"], address);
    let printed = fixture.recgate(&["status"]).success();
    assert!(printed.stdout.contains(&format!("metrics on http://{address}/metrics")), "{printed}");
    assert_eq!(status["doors"].as_array().unwrap().len(), 1, "metrics are no door: {status}");
}

#[test]
fn a_source_that_is_down_is_told_and_leaves_the_gateway_ready() {
    let more = source("misbehave = \"panic-in-scan\"", 1000, 0);
    let mut fixture = Fixture::with(vec![TenantSpec { more, ..ACME }]);
    start(&mut fixture);
    let gateway = fixture.gateway.as_ref().unwrap();
    let other = [("tenant", "acme"), ("source", "other")];
    let metrics = wait_for("the source's problem", Duration::from_secs(60), || {
        Some(scrape(gateway)).filter(|metrics| metrics.get("recgate_source_problem", &other) == Some(1.0))
    });
    assert_eq!(metrics.value("recgate_source_problem", &[("tenant", "acme"), ("source", "pbx")]), 0.0);
    assert_eq!(metrics.get("recgate_source_scan_age_seconds", &other), None);
    let panics = [("tenant", "acme"), ("source", "other"), ("call", "scan"), ("result", "panic")];
    assert!(metrics.value("recgate_plugin_calls_total", &panics) >= 1.0);
    assert_eq!(metrics.value("recgate_panics_total", &[]), 0.0, "it isn't the gateway's");
    assert_eq!(get(gateway, "/readyz"), ("200".to_owned(), "ok\n".to_owned()));
    wait_for("the remark", Duration::from_secs(60), || {
        let (status, text) = get(gateway, "/readyz?verbose");
        assert_eq!(status, "200");
        (text == "ok\nsource acme/other: failing; `recgate status` says why\n").then_some(())
    });
    assert_eq!(get(gateway, "/livez").0, "200");
}

#[test]
fn a_gateway_that_is_being_stopped_is_alive_and_not_ready() {
    const SIZE: u64 = 40 << 20;
    let mut fixture = Fixture::with(vec![TenantSpec { more: source("", SIZE, 1500), ..ACME }]);
    start(&mut fixture);
    let mut raw = fixture.login("acme").raw();
    wait_for("the slow recording", Duration::from_secs(60), || raw.stat(SLOW.as_bytes()).ok());
    drop(raw);
    let target = fixture.path().join("slow.wav");
    let mut transfer = fixture.login("acme").begin_download(&[], SLOW, &target);
    let gateway = fixture.gateway.take().unwrap();
    assert_eq!(get(&gateway, "/readyz").0, "200");
    gateway.signal(Signal::TERM);
    gateway.wait_for_log(&["SIGTERM"]);
    wait_for("that it isn't ready", Duration::from_secs(10), || {
        let (status, text) = get(&gateway, "/readyz");
        (status == "503").then(|| assert_eq!(text, "draining\n"))
    });
    assert_eq!(get(&gateway, "/livez").0, "200");
    // Bytes are counted while they go, not when the file is closed.
    let metrics = wait_for("the state of the stopping gateway", Duration::from_secs(10), || {
        Some(scrape(&gateway)).filter(|metrics| metrics.get("recgate_draining", &[]) == Some(1.0))
    });
    assert!(transfer.try_wait().unwrap().is_none(), "the transfer was over before it was tested");
    let sent = metrics.value("recgate_sent_bytes_total", &sftp(&[("tenant", "acme")]));
    assert!(sent > 0.0 && sent < SIZE as f64, "{sent}");
    let status = wait_for("the transfer's end", Duration::from_secs(60), || transfer.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let status = gateway.wait(Duration::from_secs(60));
    assert!(status.success(), "{status}");
}

#[test]
fn an_address_that_cannot_be_had_is_told() {
    let fixture = Fixture::with(vec![ACME]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    fixture.write_config(&(fixture.config() + &LISTEN.replace("127.0.0.1:0", &address.to_string())));
    fixture.recgate(&["check"]).success();
    let refused = fixture.recgate(&["serve"]).code(1);
    assert!(refused.stderr.contains(&format!("can't listen for metrics on {address}: ")), "{refused}");

    fixture.write_config(&(fixture.config() + &LISTEN.replace("127.0.0.1:0", "0.0.0.0:9464")));
    let refused = fixture.recgate(&["check"]).code(3);
    assert!(refused.text().contains("metrics.listen: others could reach 0.0.0.0:9464"), "{refused}");
}

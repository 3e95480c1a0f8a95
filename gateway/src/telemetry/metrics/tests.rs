#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, time::Duration};

use recgate_plugin_api::ErrorCode;

use super::*;

/// The lines that begin with one of these.
fn lines(text: &str, beginnings: &[&str]) -> Vec<String> {
    let chosen = |line: &&str| beginnings.iter().any(|beginning| line.starts_with(beginning));
    text.lines().filter(chosen).map(str::to_owned).collect()
}

fn snapshot() -> Snapshot {
    let calls = Arc::new(SourceCalls::default());
    calls.start(SourceCall::Stat).unwrap().ended(Ok(()));
    calls.start(SourceCall::ReadAt).unwrap().ended(Err(ErrorCode::Timeout));
    drop(calls.start(SourceCall::ReadAt));
    calls.read(77);
    let source = SourceState {
        name: "pbx".to_owned(),
        problem: true,
        available: true,
        watched: true,
        partial: true,
        complaints: 4,
        unmatched_facts: Some(8),
        facts_left_out: 9,
        media: 5,
        scan_age_seconds: Some(61.5),
        abandoned_calls: 2,
        calls,
        ..SourceState::default()
    };
    let tenant = TenantState {
        name: "acme".to_owned(),
        recordings: Some(RecordingStates { learned: 1, orphan: 2, published: 3, missing: 4, corrupt: 5 }),
        index: Some(IndexState { overdue: 1, lag_seconds: 90.0, incomplete: 3 }),
        sources: vec![source],
    };
    Snapshot {
        draining: true,
        entrance: EntranceState { running_checks: 2, waiting_checks: 5, refused: 3, spared: 9 },
        read_ahead: ReadAheadState { in_use: 1024, budget: 4096, files: 1 },
        journals: vec![("governance", 12), ("access", 0)],
        tenants: vec![tenant, TenantState { name: "globex".to_owned(), ..TenantState::default() }],
    }
}

#[test]
fn what_happens_is_counted() {
    let metrics = Metrics::new();
    metrics.open_door("sftp", &["password"], &["ok", "wrong"], &["locked"], &["pace"]);
    metrics.login("sftp", "password", "ok");
    metrics.refused("sftp", "read_only");
    metrics.turned_away("sftp", "max_connections");
    metrics.panicked();
    metrics.sftp().count(SftpRequest::Read);
    metrics.sftp().count(SftpRequest::Read);
    let connection = metrics.connection("sftp");
    let session = metrics.session("sftp", "acme");
    session.sent(10);
    session.sent(5);
    session.transferred(true);
    let text = metrics.text(None).unwrap();
    assert_eq!(
        lines(
            &text,
            &["recgate_open_", "recgate_sent", "recgate_transfers", "recgate_session_duration_seconds_c"]
        ),
        [
            "recgate_open_connections{door=\"sftp\"} 1",
            "recgate_open_sessions{door=\"sftp\",tenant=\"acme\"} 1",
            "recgate_session_duration_seconds_count{door=\"sftp\"} 0",
            "recgate_sent_bytes_total{door=\"sftp\",tenant=\"acme\"} 15",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(lines(&text, &["recgate_transfers"]))
        .collect::<Vec<_>>()
    );
    let unordered: BTreeSet<String> =
        lines(&text, &["recgate_transfers", "recgate_logins", "recgate_refusals"]).into_iter().collect();
    assert_eq!(
        unordered.iter().map(String::as_str).collect::<Vec<_>>(),
        [
            "recgate_logins_total{door=\"sftp\",method=\"password\",result=\"ok\"} 1",
            "recgate_logins_total{door=\"sftp\",method=\"password\",result=\"wrong\"} 0",
            "recgate_refusals_total{door=\"sftp\",kind=\"locked\"} 0",
            "recgate_refusals_total{door=\"sftp\",kind=\"read_only\"} 1",
            "recgate_transfers_total{door=\"sftp\",tenant=\"acme\",complete=\"false\"} 0",
            "recgate_transfers_total{door=\"sftp\",tenant=\"acme\",complete=\"true\"} 1",
        ]
    );
    for line in [
        "recgate_sftp_requests_total{type=\"read\"} 2",
        "recgate_sftp_requests_total{type=\"stat\"} 0",
        "recgate_connections_total{door=\"sftp\"} 1",
        "recgate_connections_turned_away_total{door=\"sftp\",reason=\"max_connections\"} 1",
        "recgate_connections_turned_away_total{door=\"sftp\",reason=\"pace\"} 0",
        "recgate_panics_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    drop((session, connection));
    let text = metrics.text(None).unwrap();
    for line in [
        "recgate_open_connections{door=\"sftp\"} 0",
        "recgate_open_sessions{door=\"sftp\",tenant=\"acme\"} 0",
        "recgate_session_duration_seconds_count{door=\"sftp\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn a_state_becomes_gauges() {
    let text = Metrics::new().text(Some(Arc::new(snapshot()))).unwrap();
    for line in [
        "recgate_draining 1",
        "# TYPE recgate_read_ahead_bytes gauge",
        "# UNIT recgate_read_ahead_bytes bytes",
        "recgate_read_ahead_bytes 1024",
        "recgate_read_ahead_budget_bytes 4096",
        "recgate_password_checks{state=\"running\"} 2",
        "recgate_password_checks{state=\"waiting\"} 5",
        "recgate_throttle_addresses{state=\"refused\"} 3",
        "recgate_throttle_addresses{state=\"spared\"} 9",
        "recgate_journal_entries_total{chain=\"governance\"} 12",
        "recgate_recordings{tenant=\"acme\",state=\"corrupt\"} 5",
        "recgate_index_overdue{tenant=\"acme\"} 1",
        "recgate_index_lag_seconds{tenant=\"acme\"} 90.0",
        "recgate_index_incomplete{tenant=\"acme\"} 3",
        "recgate_source_problem{tenant=\"acme\",source=\"pbx\"} 1",
        "recgate_source_watched{tenant=\"acme\",source=\"pbx\"} 1",
        "recgate_source_partial{tenant=\"acme\",source=\"pbx\"} 1",
        "recgate_source_complaints_total{tenant=\"acme\",source=\"pbx\"} 4",
        "recgate_source_unmatched_facts{tenant=\"acme\",source=\"pbx\"} 8",
        "recgate_source_left_out_facts{tenant=\"acme\",source=\"pbx\"} 9",
        "recgate_source_scan_age_seconds{tenant=\"acme\",source=\"pbx\"} 61.5",
        "recgate_plugin_abandoned_calls{tenant=\"acme\",source=\"pbx\"} 2",
        "recgate_plugin_calls_total{tenant=\"acme\",source=\"pbx\",call=\"stat\",result=\"ok\"} 1",
        "recgate_plugin_calls_total{tenant=\"acme\",source=\"pbx\",call=\"scan\",result=\"ok\"} 0",
        "recgate_plugin_calls_total{tenant=\"acme\",source=\"pbx\",call=\"read_at\",result=\"timeout\"} 1",
        "recgate_plugin_calls_total{tenant=\"acme\",source=\"pbx\",call=\"read_at\",result=\"cancelled\"} 1",
        "recgate_plugin_call_duration_seconds_count{tenant=\"acme\",source=\"pbx\",call=\"read_at\"} 2",
        "recgate_plugin_read_bytes_total{tenant=\"acme\",source=\"pbx\"} 77",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // What isn't known has no series.
    for beginning in
        ["recgate_source_lag_seconds{", "recgate_recordings{tenant=\"globex\"", "call=\"health\",le="]
    {
        assert!(!text.contains(beginning), "{beginning}");
    }
}

#[test]
fn the_process_is_told_under_the_names_that_everybody_knows() {
    let text = Metrics::new().text(None).unwrap();
    for (name, least) in [
        ("process_cpu_seconds_total", 0.0),
        ("process_start_time_seconds", 1.7e9),
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 3.0),
        ("process_max_fds", 3.0),
        ("process_threads", 1.0),
    ] {
        let line = lines(&text, &[&format!("{name} ")]).pop().unwrap_or_else(|| panic!("{name}\n{text}"));
        let value: f64 = line.split(' ').next_back().unwrap().parse().unwrap();
        assert!(value >= least, "{line}");
    }
    assert!(
        text.contains(&format!("recgate_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    assert!(text.ends_with("\n# EOF\n"));
}

#[test]
fn a_time_goes_into_the_first_bucket_that_holds_it() {
    let histogram = Histogram::new(&[0.5, 1.0]);
    for ms in [1, 500, 501, 1000, 1001] {
        histogram.observe(Duration::from_millis(ms));
    }
    drop(histogram.start());
    assert_eq!(histogram.count(), 6);
    let mut registry = Registry::default();
    registry.register("x", "x", histogram);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    assert_eq!(
        lines(&text, &["x_bucket", "x_count"]),
        ["x_count 6", "x_bucket{le=\"0.5\"} 3", "x_bucket{le=\"1.0\"} 5", "x_bucket{le=\"+Inf\"} 6",]
    );
    assert!(text.contains("\nx_sum 3.003"), "{text}");
}

#[test]
fn labels_stand_at_their_numbers() {
    for (number, request) in SftpRequest::ALL.into_iter().enumerate() {
        assert_eq!(request as usize, number);
    }
    for (number, call) in SourceCall::ALL.into_iter().enumerate() {
        assert_eq!(call as usize, number);
    }
    for (number, work) in SftpWork::ALL.into_iter().enumerate() {
        assert_eq!(work as usize, number);
    }
}

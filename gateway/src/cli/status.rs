//! `recgate status`: how the running gateway is.

use chrono::{DateTime, Utc};

use super::{
    Exit, Failure, GatewayArgument, Output, block_on,
    output::{columns, counted, size, time},
};
use crate::admin::{
    SessionCounts, SettingsReport, SourceReport, Status, ThrottleReport,
    client::{Client, ClientError},
};

/// Say how the running gateway is.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: GatewayArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let client = Client::new(&arguments.gateway.data_dir()?);
    let status = block_on(client.status())?.map_err(|error| failure(&error))?;
    if arguments.json {
        return output.json(&status);
    }
    for line in lines(&status, Utc::now()) {
        output.line(line)?;
    }
    Ok(())
}

/// A client's error with its exit code.
pub(super) fn failure(error: &ClientError) -> Failure {
    let exit = match error {
        ClientError::Refused(_) => Exit::Failed,
        _ => Exit::NotRunning,
    };
    Failure::new(exit, error)
}

fn lines(status: &Status, now: DateTime<Utc>) -> Vec<String> {
    let mut lines = vec![format!(
        "recgate {}, process {}, since {} ({}){}",
        status.version,
        status.pid,
        status.started.format("%Y-%m-%dT%H:%M:%SZ"),
        span(u64::try_from((now - status.started).num_seconds()).unwrap_or(0)),
        if status.draining { ", stopping" } else { "" },
    )];
    lines.push(format!("data folder {}", status.data_dir.display()));
    for door in &status.doors {
        lines.push(format!("{} on {}, host keys {}", door.door, door.address, door.host_keys.join(" ")));
    }
    if let Some(address) = &status.metrics {
        lines.push(format!("metrics on http://{address}/metrics, probes on /livez and /readyz"));
    }
    lines.extend(connections(&status.sessions));
    lines.extend(throttle(&status.throttle));
    if let Some(checks) = &status.password_checks {
        lines.push(format!("password checks: {} running, {} waiting", checks.running, checks.waiting));
    }
    lines.extend(status.settings.iter().flat_map(settings));
    for head in &status.journals {
        lines.push(format!("journal {}: entry {}, sha256 {}", head.chain, head.sequence, head.sha256));
    }
    lines.push(String::new());
    let mut rows = vec![
        ["TENANT", "SESSIONS", "BANDWIDTH", "PUBLISHED", "LEARNED", "ORPHANS", "MISSING", "CORRUPT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for tenant in &status.tenants {
        let counts = &tenant.recordings;
        let counts = [counts.published, counts.learned, counts.orphans, counts.missing, counts.corrupt];
        let sessions = match tenant.max_sessions {
            Some(most) => format!("{} of {most}", tenant.sessions),
            None => tenant.sessions.to_string(),
        };
        let bandwidth =
            tenant.bandwidth.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{}/s", size(bytes)));
        let mut row = vec![format!("{} ({})", tenant.name, tenant.id), sessions, bandwidth];
        row.extend(counts.iter().map(u64::to_string));
        rows.push(row);
    }
    lines.extend(columns(&rows));
    lines.push(String::new());
    let mut rows = vec![
        ["SOURCE", "PLUGIN", "STATE", "LIVE", "MEDIA", "LAST SCAN", "BEHIND"].map(str::to_owned).to_vec(),
    ];
    let mut errors = Vec::new();
    for tenant in &status.tenants {
        for source in &tenant.sources {
            let name = format!("{}/{}", tenant.name, source.name);
            let ago =
                |scan: DateTime<Utc>| span(u64::try_from((now - scan).num_seconds()).unwrap_or(0)) + " ago";
            rows.push(vec![
                name.clone(),
                source.plugin.clone(),
                state(source).to_owned(),
                if source.watched { "yes" } else { "no" }.to_owned(),
                source.media.to_string(),
                source.last_scan.map_or_else(|| "none yet".to_owned(), ago),
                source.lag_seconds.map_or_else(|| "unknown".to_owned(), span),
            ]);
            match (&source.problem, &source.plugin_status.last_error) {
                (Some(problem), _) => errors.push(format!("{name}: {problem}")),
                (None, Some(error)) => errors.push(format!("{name}: last error: {error}")),
                (None, None) => {}
            }
            errors.extend(remarks(source).into_iter().map(|remark| format!("{name}: {remark}")));
            errors.extend(source.watch_problem.iter().map(|why| format!("{name}: not watched live: {why}")));
        }
    }
    lines.extend(columns(&rows));
    lines.extend(errors);
    lines
}

/// Connections by kind, against their caps.
fn connections(counts: &SessionCounts) -> [String; 2] {
    [
        format!(
            "{} of at most {}: {} logged in; {} of at most {} not yet",
            counted(counts.connections, "connection"),
            counts.max_connections,
            counts.sessions,
            counts.unauthenticated,
            counts.max_unauthenticated
        ),
        format!(
            "at most {} of one address, {} to a tenant; {} of an address now, {} turned away since the start",
            counts.max_connections_per_address,
            counts.max_connections_per_tenant,
            counts.most_of_an_address,
            counts.turned_away
        ),
    ]
}

/// Who is refused, and who fails most.
fn throttle(report: &ThrottleReport) -> Vec<String> {
    let verb = if report.refused == 1 { "is" } else { "are" };
    let addresses = if report.refused == 1 { "address" } else { "addresses" };
    let mut lines = vec![format!(
        "{} {addresses} {verb} refused for failed logins, {} remembered, {} spared",
        report.refused, report.tracked, report.spared
    )];
    lines.extend(report.worst.iter().map(|worst| {
        let mut facts = Vec::new();
        if worst.refused_seconds > 0 {
            facts.push(format!("refused for {} more", span(worst.refused_seconds)));
        }
        if worst.failures > 0 {
            facts.push(counted(worst.failures.into(), "failed login"));
        }
        if worst.refusals > 0 {
            facts.push(format!("{} in a row", counted(worst.refusals.into(), "refusal")));
        }
        format!("  {}: {}", worst.address, facts.join(", "))
    }));
    lines
}

/// The settings in force, as they are written.
fn settings(settings: &SettingsReport) -> [String; 2] {
    let throttle = &settings.throttle;
    [
        format!(
            "settings: login_grace {}, idle_timeout {}, keep_alive {}, rekey_bytes {}, rekey_interval {}",
            time(settings.login_grace_ms),
            time(settings.idle_timeout_ms),
            time(settings.keep_alive_ms),
            size(settings.rekey_bytes),
            time(settings.rekey_interval_ms),
        ),
        format!(
            "throttle: connection_burst {}, connections_per_second {}, delay_at_most {}, refuse_after {}, \
             failure_window {}, refuse_for {}, refuse_at_most {}, spare_for {}",
            throttle.connection_burst,
            throttle.connections_per_second,
            time(throttle.delay_at_most_ms),
            throttle.refuse_after,
            time(throttle.failure_window_ms),
            time(throttle.refuse_for_ms),
            time(throttle.refuse_at_most_ms),
            time(throttle.spare_for_ms),
        ),
    ]
}

/// What else is to be known of a source, none of which keeps it from being followed.
fn remarks(source: &SourceReport) -> Vec<String> {
    let mut remarks = Vec::new();
    if source.partial {
        remarks.push(
            "not all of it can be read, and what is new there isn't known; the log says why".to_owned(),
        );
    }
    if let Some(last) = &source.complaint {
        let times = counted(source.complaints, "time");
        remarks.push(format!("has told what it must not, {times}; last: {last}"));
    }
    if source.unmatched_facts > 0 || source.facts_left_out > 0 {
        let sets = counted(source.unmatched_facts, "set");
        let verb = if source.unmatched_facts == 1 { "joins" } else { "join" };
        let left_out = match source.facts_left_out {
            0 => String::new(),
            more => format!("; {more} more, of older calls, are not kept"),
        };
        remarks.push(format!("{sets} of facts {verb} no recording{left_out}"));
    }
    remarks
}

/// A source in one word.
fn state(source: &SourceReport) -> &'static str {
    match (&source.problem, source.last_scan, source.plugin_status.available) {
        (Some(_), _, _) => "failing",
        (None, None, _) => "starting",
        (None, Some(_), true) => "available",
        (None, Some(_), false) => "unavailable",
    }
}

/// A length of time in its two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::path::PathBuf;

    use super::*;
    use crate::{
        admin::{PasswordChecks, PluginStatus, RecordingCounts, TenantStatus, WorstAddressReport},
        config::Throttle,
    };

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_status_is_told_in_lines() {
        let started = DateTime::UNIX_EPOCH;
        let source = SourceReport {
            id: 1,
            name: "pbx".to_owned(),
            plugin: "wazo".to_owned(),
            scanning: false,
            watched: true,
            watch_problem: Some("UNSUPPORTED".to_owned()),
            partial: true,
            complaints: 3,
            complaint: Some("the id \"a\" was told twice in one batch".to_owned()),
            unmatched_facts: 1,
            facts_left_out: 12,
            media: 7,
            last_scan: Some(started),
            lag_seconds: None,
            problem: None,
            plugin_status: PluginStatus { last_error: Some("gone".to_owned()), ..PluginStatus::default() },
        };
        let mut other = source.clone();
        assert_eq!(state(&other), "unavailable");
        other.plugin_status.available = true;
        assert_eq!(state(&other), "available");
        other.last_scan = None;
        assert_eq!(state(&other), "starting");
        other.problem = Some("root: no such folder".to_owned());
        assert_eq!(state(&other), "failing");
        let tenant = TenantStatus {
            id: 1,
            name: "acme".to_owned(),
            sessions: 3,
            max_sessions: Some(10),
            bandwidth: Some(20 << 20),
            recordings: RecordingCounts { published: 12_345, ..RecordingCounts::default() },
            sources: vec![source],
        };
        let status = Status {
            version: "0.1.0".to_owned(),
            started,
            pid: 7,
            data_dir: PathBuf::from("/data"),
            draining: false,
            doors: Vec::new(),
            metrics: Some("127.0.0.1:9464".to_owned()),
            sessions: SessionCounts {
                connections: 3,
                max_connections: 1000,
                sessions: 2,
                unauthenticated: 1,
                max_unauthenticated: 100,
                most_of_an_address: 2,
                max_connections_per_address: 750,
                max_connections_per_tenant: 700,
                turned_away: 4,
            },
            throttle: ThrottleReport {
                tracked: 12,
                refused: 1,
                spared: 5,
                worst: vec![
                    WorstAddressReport {
                        address: "192.0.2.1".to_owned(),
                        failures: 0,
                        refusals: 2,
                        refused_seconds: 61,
                    },
                    WorstAddressReport {
                        address: "2001:db8::/64".to_owned(),
                        failures: 1,
                        refusals: 0,
                        refused_seconds: 0,
                    },
                ],
            },
            password_checks: Some(PasswordChecks { running: 2, waiting: 5 }),
            settings: Some(SettingsReport {
                login_grace_ms: 120_000,
                idle_timeout_ms: 900_000,
                keep_alive_ms: 60_000,
                rekey_bytes: 1 << 30,
                rekey_interval_ms: 3_600_000,
                throttle: (&Throttle::default()).into(),
            }),
            tenants: vec![tenant],
            journals: Vec::new(),
        };
        let text = lines(&status, started + chrono::Duration::seconds(65)).join("\n");
        assert_eq!(
            text,
            "recgate 0.1.0, process 7, since 1970-01-01T00:00:00Z (1m 5s)\n\
             data folder /data\n\
             metrics on http://127.0.0.1:9464/metrics, probes on /livez and /readyz\n\
             3 connections of at most 1000: 2 logged in; 1 of at most 100 not yet\n\
             at most 750 of one address, 700 to a tenant; 2 of an address now, 4 turned away since the start\n\
             1 address is refused for failed logins, 12 remembered, 5 spared\n  \
             192.0.2.1: refused for 1m 1s more, 2 refusals in a row\n  \
             2001:db8::/64: 1 failed login\n\
             password checks: 2 running, 5 waiting\n\
             settings: login_grace 2m, idle_timeout 15m, keep_alive 1m, rekey_bytes 1GiB, rekey_interval 1h\n\
             throttle: connection_burst 20, connections_per_second 4, delay_at_most 10s, refuse_after 10, \
             failure_window 10m, refuse_for 1m, refuse_at_most 1h, spare_for 1d\n\
             \n\
             TENANT    SESSIONS  BANDWIDTH  PUBLISHED  LEARNED  ORPHANS  MISSING  CORRUPT\n\
             acme (1)  3 of 10   20MiB/s    12345      0        0        0        0\n\
             \n\
             SOURCE    PLUGIN  STATE        LIVE  MEDIA  LAST SCAN  BEHIND\n\
             acme/pbx  wazo    unavailable  yes   7      1m 5s ago  unknown\n\
             acme/pbx: last error: gone\n\
             acme/pbx: not all of it can be read, and what is new there isn't known; the log says why\n\
             acme/pbx: has told what it must not, 3 times; last: the id \"a\" was told twice in one batch\n\
             acme/pbx: 1 set of facts joins no recording; 12 more, of older calls, are not kept\n\
             acme/pbx: not watched live: UNSUPPORTED"
        );
    }
}

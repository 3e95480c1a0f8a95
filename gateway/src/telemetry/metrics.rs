//! Metrics: counters that the whole process shares, as tracing's log is shared, and gauges that are made from the
//! gateway's state when somebody asks.
//!
//! A label is never a path, an address or a recording. Its values come from the code, or are names of tenants and
//! sources in the configuration; so their number is bounded. What happens with each request of a client is an atomic
//! add to a counter that was found before.

use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

mod histogram;
mod process;
mod sftp;
mod snapshot;
mod source;

#[cfg(test)]
mod tests;

pub use histogram::{Histogram, Timer};
pub use sftp::{SftpMetrics, SftpRequest, SftpWork};
pub use snapshot::{
    EntranceState, IndexState, ReadAheadState, RecordingStates, Snapshot, SourceState, TenantState,
};
pub use source::{RunningCall, SourceCall, SourceCalls};

/// The format's name for `Content-Type`: Prometheus asks for it first since 2.5.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds: from a short look into an index to a working day.
const SESSION_BOUNDS: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];

/// The metrics of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: std::time::SystemTime,
    logins: Family<LoginLabels, Counter>,
    connections: Family<DoorLabels, Counter>,
    turned_away: Family<ReasonLabels, Counter>,
    open_connections: Family<DoorLabels, Gauge>,
    open_sessions: Family<TenantLabels, Gauge>,
    session_durations: Family<DoorLabels, Histogram>,
    sent: Family<TenantLabels, Counter>,
    transfers: Family<TransferLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    panics: Counter,
    sftp: SftpMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    door: &'static str,
    method: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    door: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    door: &'static str,
    tenant: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransferLabels {
    door: &'static str,
    tenant: Arc<str>,
    complete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    door: &'static str,
    kind: &'static str,
}

impl Metrics {
    /// All at zero. The process has one of its own: [`metrics`].
    pub fn new() -> Self {
        let mut root = Registry::default();
        let registry = root.sub_registry_with_prefix("recgate");
        registry.register(
            "build",
            "Which build runs",
            Info::new([("version", env!("CARGO_PKG_VERSION").to_owned()), ("plugin_abi", plugin_abi())]),
        );
        let logins = Family::default();
        registry.register("logins", "Logins by how they were tried and how they ended", logins.clone());
        let connections = Family::default();
        registry.register("connections", "Connections that were taken", connections.clone());
        let turned_away = Family::default();
        registry.register(
            "connections_turned_away",
            "Connections that were closed unheard, or before they had logged in to make room, by the reason",
            turned_away.clone(),
        );
        let open_connections = Family::default();
        registry.register("open_connections", "Connections now, logged in or not", open_connections.clone());
        let open_sessions = Family::default();
        registry.register("open_sessions", "Connections now that have logged in", open_sessions.clone());
        let session_durations =
            Family::new_with_constructor((|| Histogram::new(SESSION_BOUNDS)) as fn() -> Histogram);
        registry.register_with_unit(
            "session_duration",
            "From login to the session's end",
            Unit::Seconds,
            session_durations.clone(),
        );
        let sent = Family::default();
        registry.register_with_unit(
            "sent",
            "Content of files that was read by clients",
            Unit::Bytes,
            sent.clone(),
        );
        let transfers = Family::default();
        registry.register(
            "transfers",
            "Files that were read and closed, whole (from where the client began) or in part",
            transfers.clone(),
        );
        let refusals = Family::default();
        registry.register("refusals", "What was refused to clients, by kind", refusals.clone());
        let panics = Counter::default();
        registry.register(
            "panics",
            "Panics of the gateway's own code, each a defect that the log tells of",
            panics.clone(),
        );
        let sftp = SftpMetrics::register(registry);
        Self {
            registry: root,
            started: std::time::SystemTime::now(),
            logins,
            connections,
            turned_away,
            open_connections,
            open_sessions,
            session_durations,
            sent,
            transfers,
            refusals,
            panics,
            sftp,
        }
    }

    /// Makes the series of a door, so that their first increment shows as one. Others are made when they occur.
    pub fn open_door(
        &self,
        door: &'static str,
        methods: &[&'static str],
        results: &[&'static str],
        refusals: &[&'static str],
        turned_away: &[&'static str],
    ) {
        for &method in methods {
            for &result in results {
                self.logins.get_or_create_owned(&LoginLabels { door, method, result });
            }
        }
        for &kind in refusals {
            self.refusals.get_or_create_owned(&RefusalLabels { door, kind });
        }
        for &reason in turned_away {
            self.turned_away.get_or_create_owned(&ReasonLabels { door, reason });
        }
        self.connections.get_or_create_owned(&DoorLabels { door });
        self.open_connections.get_or_create_owned(&DoorLabels { door });
        self.session_durations.get_or_create_owned(&DoorLabels { door });
    }

    /// A login was tried through a door, by this method, and ended so.
    pub fn login(&self, door: &'static str, method: &'static str, result: &'static str) {
        self.logins.get_or_create_owned(&LoginLabels { door, method, result }).inc();
    }

    /// A connection is open until what this returns is dropped.
    pub fn connection(&self, door: &'static str) -> OpenConnection {
        let labels = DoorLabels { door };
        self.connections.get_or_create_owned(&labels).inc();
        OpenConnection { _open: Open::new(self.open_connections.get_or_create_owned(&labels)) }
    }

    /// A connection was closed unheard, or before its login.
    pub fn turned_away(&self, door: &'static str, reason: &'static str) {
        self.turned_away.get_or_create_owned(&ReasonLabels { door, reason }).inc();
    }

    /// A session of a configured tenant is open until what this returns is dropped.
    pub fn session(&self, door: &'static str, tenant: &str) -> OpenSession {
        let tenant: Arc<str> = tenant.into();
        let transfers = |complete| {
            let labels = TransferLabels { door, tenant: Arc::clone(&tenant), complete };
            self.transfers.get_or_create_owned(&labels)
        };
        let labels = TenantLabels { door, tenant: Arc::clone(&tenant) };
        OpenSession {
            sent: self.sent.get_or_create_owned(&labels),
            complete: transfers(true),
            partial: transfers(false),
            duration: self.session_durations.get_or_create_owned(&DoorLabels { door }),
            opened: Instant::now(),
            _open: Open::new(self.open_sessions.get_or_create_owned(&labels)),
        }
    }

    /// Something was refused.
    pub fn refused(&self, door: &'static str, kind: &'static str) {
        self.refusals.get_or_create_owned(&RefusalLabels { door, kind }).inc();
    }

    /// A thread panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// What the SFTP door counts for each request.
    pub fn sftp(&self) -> &SftpMetrics {
        &self.sftp
    }

    /// All metrics in OpenMetrics' text, see [`CONTENT_TYPE`]. Without a snapshot, those of the state are left out.
    ///
    /// # Errors
    /// A defect.
    pub fn text(&self, snapshot: Option<Arc<Snapshot>>) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)?;
        let mut now = Registry::with_prefix("recgate");
        if let Some(snapshot) = snapshot {
            now.register_collector(Box::new(snapshot));
        }
        text::encode_registry(&mut out, &now)?;
        let mut process = Registry::with_prefix("process");
        process.register_collector(Box::new(process::Process::read(self.started)));
        text::encode_registry(&mut out, &process)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn plugin_abi() -> String {
    use recgate_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
    format!("{ABI_MAJOR}.{ABI_MINOR}")
}

/// A connection that is open.
#[derive(Debug)]
pub struct OpenConnection {
    _open: Open,
}

/// A session that is open, with its tenant's counters.
#[derive(Debug)]
pub struct OpenSession {
    sent: Counter,
    complete: Counter,
    partial: Counter,
    duration: Histogram,
    opened: Instant,
    _open: Open,
}

impl OpenSession {
    /// Content of a file goes to the client.
    pub fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// A file was read and closed.
    pub fn transferred(&self, complete: bool) {
        if complete { &self.complete } else { &self.partial }.inc();
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.duration.observe(self.opened.elapsed());
    }
}

/// One more in a gauge until it is dropped.
#[derive(Debug)]
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

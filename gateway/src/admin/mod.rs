//! The admin API: HTTP with JSON, on a Unix socket in the data folder.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | a [`Status`] |
//! | `POST /v1/sources/accept-loss` with `{"source": "tenant/source"}` | an [`AcceptLossReport`] |
//! | `POST /v1/state/backup` with `{"directory": "/…"}` | a [`BackupReport`] |
//!
//! and what [`records`] lists.
//!
//! What fails answers `{"error": "…"}` with a status of 4xx or 5xx. Who may connect: root, and the user that the
//! gateway runs as; the kernel says who it is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub mod client;
pub mod ready;
pub mod records;

mod records_server;
mod server;
mod socket;

pub use server::{AdminServer, router};
pub use socket::SocketError;

use records::OperationError;

use crate::{
    catalog::Actor,
    config::{Config, Throttle},
    identity::{
        admission::{AdmissionStatus, Caps},
        throttle::ThrottleStatus,
    },
    sources::SourceStatus,
};

/// What the admin API can ask of a running gateway.
#[async_trait]
pub trait Operations: records::Records {
    /// How the gateway is.
    async fn status(&self) -> Status;

    /// Takes an administrator's word that what a source's last scan missed was removed on purpose: the next full scan
    /// believes it.
    ///
    /// # Errors
    /// There is no such source, or it misses nothing.
    async fn accept_loss(
        &self,
        request: AcceptLossRequest,
        by: Actor,
    ) -> Result<AcceptLossReport, OperationError>;

    /// Writes a consistent copy of the state into a folder that is empty or not there yet. The path is absolute.
    ///
    /// # Errors
    /// What was wrong, for the operator.
    async fn backup(&self, directory: PathBuf) -> Result<BackupReport, String>;
}

/// Which source's loss is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptLossRequest {
    /// The names of the tenant and the source, with a slash between them.
    pub source: String,
}

/// What is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptLossReport {
    /// The names of the tenant and the source.
    pub source: String,
    /// Media that the last scan missed.
    pub media: u64,
}

/// How a gateway is. Whoever asks may be newer than the gateway: what an older one doesn't tell has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// When it started.
    pub started: DateTime<Utc>,
    /// Its process id.
    pub pid: u32,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Whether it takes no new sessions because it is being stopped.
    pub draining: bool,
    /// Where it listens.
    pub doors: Vec<DoorStatus>,
    /// The address and port of metrics and probes; `None` where they aren't configured.
    #[serde(default)]
    pub metrics: Option<String>,
    /// Who is connected.
    #[serde(default)]
    pub sessions: SessionCounts,
    /// Who is slowed down or refused.
    #[serde(default)]
    pub throttle: ThrottleReport,
    /// Password checks now; `None` where the gateway doesn't tell.
    #[serde(default)]
    pub password_checks: Option<PasswordChecks>,
    /// The settings in force; `None` where the gateway doesn't tell.
    #[serde(default)]
    pub settings: Option<SettingsReport>,
    /// Its tenants.
    pub tenants: Vec<TenantStatus>,
    /// The ends of the journal's chains.
    pub journals: Vec<JournalHead>,
}

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    /// `sftp`.
    pub door: String,
    /// The address and port.
    pub address: String,
    /// Fingerprints of the host keys (`SHA256:…`).
    pub host_keys: Vec<String>,
}

/// Connections by kind, with the caps on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionCounts {
    /// All connections.
    pub connections: u64,
    /// Of at most these.
    pub max_connections: u64,
    /// Those that have logged in.
    pub sessions: u64,
    /// Those that haven't.
    pub unauthenticated: u64,
    /// Of at most these.
    pub max_unauthenticated: u64,
    /// Connections of the address that has most.
    pub most_of_an_address: u64,
    /// Of at most these.
    pub max_connections_per_address: u64,
    /// Sessions that one tenant may have at most; see [`TenantStatus::sessions`].
    pub max_connections_per_tenant: u64,
    /// Connections that were turned away or pushed out since the start.
    pub turned_away: u64,
}

impl SessionCounts {
    /// Counts and caps as the entrance tells them.
    pub fn new(now: &AdmissionStatus, caps: Caps) -> Self {
        Self {
            connections: count(now.unauthenticated.saturating_add(now.logged_in)),
            max_connections: count(caps.connections),
            sessions: count(now.logged_in),
            unauthenticated: count(now.unauthenticated),
            max_unauthenticated: count(caps.unauthenticated),
            most_of_an_address: count(now.most_of_an_address),
            max_connections_per_address: count(caps.per_address),
            max_connections_per_tenant: count(caps.per_tenant),
            turned_away: now.turned_away,
        }
    }
}

/// Addresses that are slowed down or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleReport {
    /// Addresses that something is held against, be it only that they just connected.
    pub tracked: u64,
    /// Those that are refused now for their failed logins.
    pub refused: u64,
    /// Addresses that aren't refused, because somebody logged in from them lately.
    pub spared: u64,
    /// Those with most failures, the worst first; five at most.
    pub worst: Vec<WorstAddressReport>,
}

/// An address with failed logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstAddressReport {
    /// An IPv4 address, or a network of IPv6.
    pub address: String,
    /// Failed logins that aren't forgotten; those that led to a refusal no longer count.
    pub failures: u32,
    /// How often in a row it was refused.
    pub refusals: u32,
    /// For how many more seconds it is refused; 0 where it isn't.
    pub refused_seconds: u64,
}

impl From<ThrottleStatus> for ThrottleReport {
    fn from(status: ThrottleStatus) -> Self {
        let worst = status.worst.into_iter().map(|it| WorstAddressReport {
            address: it.origin.to_string(),
            failures: it.failures,
            refusals: it.refusals,
            // One that is refused for half a second is refused.
            refused_seconds: u64::try_from(it.refused_for.as_millis().div_ceil(1000)).unwrap_or(u64::MAX),
        });
        Self {
            tracked: count(status.tracked),
            refused: count(status.refused),
            spared: count(status.spared),
            worst: worst.collect(),
        }
    }
}

/// Password checks now. They have a bounded queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PasswordChecks {
    /// Those that run.
    pub running: u64,
    /// Those that wait for their turn.
    pub waiting: u64,
}

impl PasswordChecks {
    /// From those that run and those that wait.
    pub fn new((running, waiting): (usize, usize)) -> Self {
        Self { running: count(running), waiting: count(waiting) }
    }
}

/// The settings in force, by their keys in the configuration. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsReport {
    /// `limits.login_grace`
    pub login_grace_ms: u64,
    /// `limits.idle_timeout`
    pub idle_timeout_ms: u64,
    /// `ssh.keep_alive`
    pub keep_alive_ms: u64,
    /// `ssh.rekey_bytes`
    pub rekey_bytes: u64,
    /// `ssh.rekey_interval`
    pub rekey_interval_ms: u64,
    /// `throttle`
    pub throttle: ThrottleSettings,
}

/// The settings of the throttle, by their keys in the configuration. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleSettings {
    /// `connection_burst`
    pub connection_burst: u32,
    /// `connections_per_second`
    pub connections_per_second: u32,
    /// `delay_at_most`
    pub delay_at_most_ms: u64,
    /// `refuse_after`
    pub refuse_after: u32,
    /// `failure_window`
    pub failure_window_ms: u64,
    /// `refuse_for`
    pub refuse_for_ms: u64,
    /// `refuse_at_most`
    pub refuse_at_most_ms: u64,
    /// `spare_for`
    pub spare_for_ms: u64,
}

impl From<&Config> for SettingsReport {
    fn from(config: &Config) -> Self {
        Self {
            login_grace_ms: milliseconds(config.limits.login_grace),
            idle_timeout_ms: milliseconds(config.limits.idle_timeout),
            keep_alive_ms: milliseconds(config.ssh.keep_alive),
            rekey_bytes: config.ssh.rekey_bytes,
            rekey_interval_ms: milliseconds(config.ssh.rekey_interval),
            throttle: (&config.throttle).into(),
        }
    }
}

impl From<&Throttle> for ThrottleSettings {
    fn from(throttle: &Throttle) -> Self {
        Self {
            connection_burst: throttle.connection_burst,
            connections_per_second: throttle.connections_per_second,
            delay_at_most_ms: milliseconds(throttle.delay_at_most),
            refuse_after: throttle.refuse_after,
            failure_window_ms: milliseconds(throttle.failure_window),
            refuse_for_ms: milliseconds(throttle.refuse_for),
            refuse_at_most_ms: milliseconds(throttle.refuse_at_most),
            spare_for_ms: milliseconds(throttle.spare_for),
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantStatus {
    /// Its immutable id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Who is logged in now.
    #[serde(default)]
    pub sessions: u64,
    /// How many may be; `None` is no limit.
    #[serde(default)]
    pub max_sessions: Option<u64>,
    /// Bytes of recordings a second that they may take together; `None` is no limit.
    #[serde(default)]
    pub bandwidth: Option<u64>,
    /// Its recordings by state.
    pub recordings: RecordingCounts,
    /// Its sources.
    pub sources: Vec<SourceReport>,
}

/// Recordings by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingCounts {
    /// Known, not yet named.
    pub learned: u64,
    /// In the tree.
    pub published: u64,
    /// Not placed.
    pub orphans: u64,
    /// In the catalog, and their media has vanished.
    pub missing: u64,
    /// In the tree, and refused, because their media has changed.
    pub corrupt: u64,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Its id in the tenant.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its plugin.
    pub plugin: String,
    /// Whether it is being scanned now.
    pub scanning: bool,
    /// Whether its plugin tells what happens as it happens.
    #[serde(default)]
    pub watched: bool,
    /// Why it isn't watched although its plugin can watch.
    #[serde(default)]
    pub watch_problem: Option<String>,
    /// Whether its last complete scan couldn't read everything, so that what is new there isn't known.
    #[serde(default)]
    pub partial: bool,
    /// How often it has told what it must not, since it is followed.
    #[serde(default)]
    pub complaints: u64,
    /// What that was the last time.
    #[serde(default)]
    pub complaint: Option<String>,
    /// Sets of facts that are kept and join no recording.
    #[serde(default)]
    pub unmatched_facts: u64,
    /// Sets of facts that its last complete scan told and that aren't kept, because too many join no recording.
    #[serde(default)]
    pub facts_left_out: u64,
    /// Media that the last complete scan told.
    pub media: u64,
    /// When the last complete scan began; `None` before the first since the gateway started.
    pub last_scan: Option<DateTime<Utc>>,
    /// Seconds by which its watermark is behind the clock; `None` while it can't tell.
    pub lag_seconds: Option<u64>,
    /// What is wrong with it now; `None` where its last scan was complete and believed.
    pub problem: Option<String>,
    /// How its plugin is, and what was wrong last.
    #[serde(flatten)]
    pub plugin_status: PluginStatus,
}

/// The serialised form of [`SourceStatus`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// See [`SourceStatus::available`].
    pub available: bool,
    /// See [`SourceStatus::running_calls`].
    pub running_calls: u64,
    /// See [`SourceStatus::abandoned_calls`].
    pub abandoned_calls: u64,
    /// See [`SourceStatus::last_error`].
    pub last_error: Option<String>,
}

impl From<SourceStatus> for PluginStatus {
    fn from(status: SourceStatus) -> Self {
        Self {
            available: status.available,
            running_calls: count(status.running_calls),
            abandoned_calls: count(status.abandoned_calls),
            last_error: status.last_error,
        }
    }
}

/// The end of a chain of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHead {
    /// `governance` or `access`.
    pub chain: String,
    /// Number of the last entry; 0 for an empty chain.
    pub sequence: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What a backup has written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The folder.
    pub directory: PathBuf,
    /// Files in it.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Up to where it reaches.
    pub journals: Vec<JournalHead>,
}

/// The body of a request for a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    directory: PathBuf,
}

/// What is answered where something fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ErrorBody {
    error: String,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

type SharedOperations = Arc<dyn Operations>;

#[cfg(test)]
mod records_tests;
#[cfg(test)]
mod tests;

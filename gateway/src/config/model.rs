//! The configuration after all checks: what is here is right.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    identity::{Method, Role},
    layout::{NameForm, TenantZone},
};

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the gateway keeps its state, its host keys, its admin socket.
    pub data_dir: PathBuf,
    /// Folders with plugins, besides the one of the executable.
    pub plugin_dirs: Vec<PathBuf>,
    /// How logs are written.
    pub log: Log,
    /// The SSH door.
    pub ssh: Ssh,
    /// Limits that all doors share.
    pub limits: Limits,
    /// What strangers may do.
    pub throttle: Throttle,
    /// Who watches over the gateway.
    pub metrics: Metrics,
    /// The tenants, by ascending id.
    pub tenants: Vec<Tenant>,
}

/// How logs are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, instead of text.
    pub json: bool,
    /// A filter in tracing's syntax, for example `info` or `recgate=debug`.
    pub filter: String,
}

/// The SSH door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Private host keys in OpenSSH's format. Empty: an ed25519 and an RSA key are made in the data folder at first start.
    pub host_keys: Vec<PathBuf>,
    /// Whether algorithms that only old devices need are offered too.
    pub legacy_algorithms: bool,
    /// Between two questions whether the client is still there.
    pub keep_alive: Duration,
    /// Bytes in one direction after which new keys are made.
    pub rekey_bytes: u64,
    /// Time after which new keys are made.
    pub rekey_interval: Duration,
    /// Load balancers whose connections begin with a PROXY header. Empty: none, and no connection is looked at for one.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// Limits that all doors share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of read-ahead for all open files together.
    pub read_ahead_budget: u64,
    /// Bytes of read-ahead for one open file.
    pub read_ahead_per_file: u64,
    /// How long running transfers may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// From the connection until the login succeeds; longer than [`Throttle::delay_at_most`].
    pub login_grace: Duration,
    /// A connection without a request for this long is closed.
    pub idle_timeout: Duration,
    /// Connections in all, at once.
    pub max_connections: usize,
    /// Those that haven't logged in yet.
    pub max_unauthenticated: usize,
    /// Those of one address (IPv6: a network of 64 bits), logged in or not.
    pub max_connections_per_address: usize,
    /// Those that have logged in to one tenant.
    pub max_connections_per_tenant: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read_ahead_budget: 256 << 20,
            read_ahead_per_file: 8 << 20,
            shutdown_grace: Duration::from_secs(30),
            // As OpenSSH's: people are asked about the host key, then for a password, and type.
            login_grace: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(900),
            max_connections: 1000,
            max_unauthenticated: 100,
            // Three quarters: no address and no tenant takes all.
            max_connections_per_address: 750,
            max_connections_per_tenant: 750,
        }
    }
}

/// How addresses are slowed down and refused; see [`Throttle`](crate::identity::throttle::Throttle) for how the parts
/// work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// Connections that an address may open at once before it has logged in.
    pub connection_burst: u32,
    /// Connections a second that it may open after those.
    pub connections_per_second: u32,
    /// The longest wait before a failed login is answered; shorter than [`Limits::login_grace`].
    pub delay_at_most: Duration,
    /// Failed logins, not forgotten yet, with which an address is refused.
    pub refuse_after: u32,
    /// The time in which so many are forgotten, one after another.
    pub failure_window: Duration,
    /// How long an address is refused the first time; each further time is twice as long.
    pub refuse_for: Duration,
    /// The longest time.
    pub refuse_at_most: Duration,
    /// How long an address isn't refused after somebody logged in from it.
    pub spare_for: Duration,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            // 26 in 1.5 seconds. `ssh-audit` 3.9.0 complains when it gets more than 30 (20 a second) in that time.
            connection_burst: 20,
            connections_per_second: 4,
            delay_at_most: Duration::from_secs(10),
            refuse_after: 10,
            failure_window: Duration::from_secs(600),
            refuse_for: Duration::from_secs(60),
            refuse_at_most: Duration::from_secs(3600),
            spare_for: Duration::from_secs(86_400),
        }
    }
}

/// Metrics and probes over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// A loopback address; `None`: nothing listens.
    pub listen: Option<SocketAddr>,
}

/// One contact centre.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Immutable, greater than 0, unique.
    pub id: u32,
    /// The login of its default user.
    pub name: String,
    /// Its time zone, with dated changes.
    pub zone: TenantZone,
    /// How names are shown.
    pub name_form: NameForm,
    /// The root index of the running day is shown, too.
    pub live_index: bool,
    /// Lines as of OpenSSH's .pub files: authorities whose certificates log the tenant's users in.
    pub user_ca_keys: Vec<String>,
    /// The same: keys that log nobody in, neither by themselves nor in a certificate.
    pub revoked_keys: Vec<String>,
    /// What its users may take, all of them together.
    pub quota: Quota,
    /// Its users, by ascending id.
    pub users: Vec<User>,
    /// Its sources, by ascending id.
    pub sources: Vec<Source>,
}

/// One user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Immutable, greater than 0, unique in the tenant.
    pub id: u32,
    /// `None` is the tenant's default user.
    pub name: Option<String>,
    /// What the user may do.
    pub role: Role,
    /// A PHC string of argon2id.
    pub password_hash: Option<String>,
    /// Lines of OpenSSH's authorized_keys, without options.
    pub authorized_keys: Vec<String>,
    /// What has to be shown at a login, all of it in this order. Empty: any one thing that the user has.
    pub require: Vec<Method>,
    /// From where the user may log in. Empty: from anywhere.
    pub allowed_networks: Vec<IpNet>,
    /// What the user may take, in all sessions together.
    pub quota: Quota,
}

/// What sessions may take. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of recordings a second.
    pub bandwidth: Option<NonZeroU64>,
    /// Sessions that are logged in at once, at least 1.
    pub max_sessions: Option<usize>,
}

/// One configured instance of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Immutable, greater than 0, unique in the tenant.
    pub id: u32,
    /// For people; may change.
    pub name: String,
    /// The plugin's name (`wazo`), or an absolute path of a `.so` in a plugin folder.
    pub plugin: String,
    /// Run it in the gateway's process although it isn't one of the gateway's own.
    pub in_process: bool,
    /// SHA-256 that the plugin's file must have.
    pub sha256: Option<[u8; 32]>,
    /// How long facts are waited for, since the media last changed.
    pub metadata_wait: Duration,
    /// What becomes of media without facts after that.
    pub unmatched: Unmatched,
    /// Between the end of a full scan and the start of the next.
    pub scan_interval: Duration,
    /// Deadline of a call of the plugin.
    pub call_timeout: Duration,
    /// What the plugin gets; checked against its schema.
    pub settings: serde_json::Value,
}

/// What becomes of media for which no facts came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// It is published with what the media alone tells.
    Publish,
    /// It is an orphan.
    Orphan,
}

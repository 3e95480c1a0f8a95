//! From the document to the model. Each function notes what is wrong and goes on with a stand-in value,
//! which nobody sees: a document with a mistake yields no configuration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Config, Limits, Log, Metrics, Ssh, Throttle,
    files::{self, Privacy},
    inspect::SourceDraft,
    problems::Mistake,
    tenants, values,
    walk::{Field, Section},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads the whole document. `base` is the folder that relative paths begin from; `drafts` takes every source.
pub(super) fn config(mut root: Section<'_>, base: &Path, drafts: &mut Vec<SourceDraft>) -> Config {
    let data_dir = data_dir(&mut root, base);
    let plugin_dirs = plugin_dirs(&mut root, base);
    let log = log(root.section("log"));
    let ssh = ssh(root.section("ssh"), base);
    let limits = limits(root.section("limits"));
    let throttle = throttle(root.section("throttle"), limits.login_grace);
    let metrics = metrics(root.section("metrics"));
    let tenants = tenants::tenants(&mut root, base, drafts);
    root.finish();
    Config { data_dir, plugin_dirs, log, ssh, limits, throttle, metrics, tenants }
}

fn data_dir(root: &mut Section<'_>, base: &Path) -> PathBuf {
    const EXAMPLE: &str = "data_dir = \"/var/lib/recgate\"";
    let Some(field) = root.required("data_dir", &format!("Write for example {EXAMPLE}.")) else {
        return PathBuf::new();
    };
    let path = path(&field, EXAMPLE, base);
    // It needn't be there yet: the first start makes it.
    if let Some(path) = path.as_deref().filter(|path| path.exists())
        && let Err(mistake) = files::folder(path)
    {
        field.report(mistake);
    }
    path.unwrap_or_default()
}

fn plugin_dirs(root: &mut Section<'_>, base: &Path) -> Vec<PathBuf> {
    const EXAMPLE: &str = "plugin_dirs = [\"/usr/lib/recgate/plugins\"]";
    let Some(field) = root.field("plugin_dirs") else { return Vec::new() };
    let mut dirs = Vec::new();
    for element in field.elements(EXAMPLE) {
        let Some(path) = path(&element, EXAMPLE, base) else { continue };
        match files::folder(&path) {
            Ok(()) => dirs.push(path),
            Err(mistake) => element.report(mistake),
        }
    }
    dirs
}

fn log(mut section: Section<'_>) -> Log {
    const EXAMPLE: &str = "filter = \"info\"";
    let json = section
        .field("format")
        .and_then(|field| {
            let formats = [("text", false), ("json", true)];
            field.parsed("format = \"text\"", |text| values::choice(text, &formats))
        })
        .unwrap_or(false);
    let filter = section.field("filter").and_then(|field| {
        field.parsed(EXAMPLE, |text| match text.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
            _ => Err(Mistake::new(
                format!("\"{}\" is no log filter", values::shortened(text)),
                "Write error, warn, info, debug or trace, or parts as in \"info,recgate::doors=debug\".",
            )),
        })
    });
    section.finish();
    Log { json, filter: filter.unwrap_or_else(|| "info".to_owned()) }
}

fn ssh(mut section: Section<'_>, base: &Path) -> Ssh {
    const LISTEN: &str = "listen = [\"0.0.0.0:2022\"]";
    const HOST_KEYS: &str = "host_keys = [\"ssh_host_ed25519_key\"]";
    const PROXIES: &str = "proxy_protocol_from = [\"10.0.0.0/8\"]";
    let mut listen = Vec::new();
    match section.field("listen") {
        None => listen.push(std::net::SocketAddr::from(([0, 0, 0, 0], 2022))),
        Some(field) => {
            let mut seen = Unique::default();
            let elements = field.elements(LISTEN);
            if elements.is_empty() && field.value().is_array() {
                field.report(Mistake::new("the gateway would listen nowhere", format!("Write {LISTEN}.")));
            }
            for element in elements {
                let Some(address) = element.parsed(LISTEN, values::socket_address) else { continue };
                // Port 0 asks for any free port, which may be done twice.
                if address.port() == 0 || seen.check(&element, address, "the address") {
                    listen.push(address);
                }
            }
        }
    }
    let mut host_keys = Vec::new();
    for element in section.field("host_keys").map(|field| field.elements(HOST_KEYS)).unwrap_or_default() {
        let Some(path) = path(&element, HOST_KEYS, base) else { continue };
        match host_key(&path) {
            Ok(()) => host_keys.push(path),
            Err(mistake) => element.report(mistake),
        }
    }
    let legacy_algorithms = section
        .field("legacy_algorithms")
        .and_then(|field| field.boolean("legacy_algorithms = false"))
        .unwrap_or(false);
    let keep_alive = duration(&mut section, "keep_alive", 60 * SECOND, (SECOND, 3600 * SECOND));
    let rekey_bytes = size(&mut section, "rekey_bytes", 1 << 30, (1 << 20, 1 << 36));
    let rekey_interval = duration(&mut section, "rekey_interval", 3600 * SECOND, (60 * SECOND, DAY));
    let proxy_protocol_from = section
        .field("proxy_protocol_from")
        .map(|field| field.elements(PROXIES))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|element| element.parsed(PROXIES, load_balancers))
        .collect();
    section.finish();
    Ssh { listen, host_keys, legacy_algorithms, keep_alive, rekey_bytes, rekey_interval, proxy_protocol_from }
}

/// A network whose word is taken for where a client is.
fn load_balancers(text: &str) -> Result<IpNet, Mistake> {
    let network = values::network(text)?;
    if network.prefix_len() == 0 {
        return Err(Mistake::new(
            "everybody could say that they are anywhere",
            "Write the networks of your load balancers.",
        ));
    }
    Ok(network)
}

fn host_key(path: &Path) -> Result<(), Mistake> {
    use russh::keys::ssh_key::PrivateKey;

    let text = files::read(path, 64 << 10, Privacy::Secret)?;
    let shown = path.display();
    let key = PrivateKey::from_openssh(&text).map_err(|_| {
        Mistake::new(
            format!("{shown} is no private key in OpenSSH's format"),
            format!("Make one with `ssh-keygen -t ed25519 -N '' -f {shown}`."),
        )
    })?;
    if key.is_encrypted() {
        return Err(Mistake::new(
            format!("{shown} is locked with a passphrase, which nobody would type at start"),
            format!("Remove it with `ssh-keygen -p -N '' -f {shown}`."),
        ));
    }
    Ok(())
}

fn limits(mut section: Section<'_>) -> Limits {
    let mut bytes = |key, default: u64| {
        let field = section.field(key);
        let size = field.as_ref().and_then(|field| {
            field.parsed(&format!("{key} = \"{}MiB\"", default >> 20), |text| {
                values::size(text, 64 << 10, 1 << 40)
            })
        });
        (size.unwrap_or(default), field)
    };
    let (read_ahead_budget, _) = bytes("read_ahead_budget", 256 << 20);
    let (mut read_ahead_per_file, per_file) = bytes("read_ahead_per_file", 8 << 20);
    match per_file {
        None => read_ahead_per_file = read_ahead_per_file.min(read_ahead_budget),
        Some(field) if read_ahead_per_file > read_ahead_budget => field.report(Mistake::new(
            "one file would get more than read_ahead_budget, which is for all files together",
            "Lower it, or raise read_ahead_budget.",
        )),
        Some(_) => {}
    }
    let shutdown_grace =
        duration(&mut section, "shutdown_grace", 30 * SECOND, (Duration::ZERO, 3600 * SECOND));
    let default = Limits::default();
    let login_grace = duration(&mut section, "login_grace", default.login_grace, (SECOND, 600 * SECOND));
    let idle_timeout = duration(&mut section, "idle_timeout", default.idle_timeout, (SECOND, DAY));
    let max_connections =
        integer(&mut section, "max_connections", default.max_connections as u64, (1, 1_000_000));
    let mut part = |key, default| part_of_connections(&mut section, key, default, max_connections);
    let max_unauthenticated = part("max_unauthenticated", default.max_unauthenticated);
    let most = max_connections.div_ceil(4).saturating_mul(3).min(max_connections);
    let max_connections_per_address = part("max_connections_per_address", most);
    let max_connections_per_tenant = part("max_connections_per_tenant", most);
    section.finish();
    Limits {
        read_ahead_budget,
        read_ahead_per_file,
        shutdown_grace,
        login_grace,
        idle_timeout,
        max_connections,
        max_unauthenticated,
        max_connections_per_address,
        max_connections_per_tenant,
    }
}

/// A number of connections that is a part of all of them.
fn part_of_connections(section: &mut Section<'_>, key: &'static str, default: usize, all: usize) -> usize {
    let Some(field) = section.field(key) else { return default.min(all) };
    let part = field.integer(&format!("{key} = {default}"), 1, 1_000_000).map_or(1, saturated);
    if part > all {
        field.report(Mistake::new(
            format!("{part} is more than max_connections, which is {all}"),
            "Lower it, or raise max_connections.",
        ));
    }
    part
}

/// `login_grace` is what connections have to log in, answers to failed logins included.
fn throttle(mut section: Section<'_>, login_grace: Duration) -> Throttle {
    let default = Throttle::default();
    let mut number = |key, default: u32, bounds| {
        u32::try_from(integer(&mut section, key, default.into(), bounds)).unwrap_or(default)
    };
    let connection_burst = number("connection_burst", default.connection_burst, (1, 100_000));
    let connections_per_second =
        number("connections_per_second", default.connections_per_second, (1, 100_000));
    let refuse_after = number("refuse_after", default.refuse_after, (2, 1000));
    let mut time = |key, default, bounds| duration(&mut section, key, default, bounds);
    let failure_window = time("failure_window", default.failure_window, (SECOND, DAY));
    let refuse_for = time("refuse_for", default.refuse_for, (SECOND, 7 * DAY));
    let spare_for = time("spare_for", default.spare_for, (Duration::ZERO, 90 * DAY));
    let longest = section.field("refuse_at_most");
    let refuse_at_most = match &longest {
        None => default.refuse_at_most.max(refuse_for),
        Some(field) => field
            .parsed("refuse_at_most = \"1h\"", |text| values::duration(text, SECOND, 7 * DAY))
            .unwrap_or(7 * DAY),
    };
    if let Some(field) = longest.filter(|_| refuse_at_most < refuse_for) {
        field.report(Mistake::new(
            "the longest refusal would be shorter than refuse_for, which is the first",
            "Raise it, or lower refuse_for.",
        ));
    }
    let longest = section.field("delay_at_most");
    let delay_at_most = match &longest {
        None => default.delay_at_most.min(login_grace / 2),
        Some(field) => field
            .parsed("delay_at_most = \"10s\"", |text| values::duration(text, Duration::ZERO, 60 * SECOND))
            .unwrap_or_default(),
    };
    if let Some(field) = longest.filter(|_| delay_at_most >= login_grace) {
        field.report(Mistake::new(
            format!(
                "a failed login would be answered only when limits.login_grace, {login_grace:?}, has ended the \
                 connection"
            ),
            "Write less than that, or raise login_grace.",
        ));
    }
    section.finish();
    Throttle {
        connection_burst,
        connections_per_second,
        delay_at_most,
        refuse_after,
        failure_window,
        refuse_for,
        refuse_at_most,
        spare_for,
    }
}

fn metrics(mut section: Section<'_>) -> Metrics {
    let field = section.field("listen");
    let listen =
        field.and_then(|field| field.parsed("listen = \"127.0.0.1:9464\"", values::loopback_address));
    section.finish();
    Metrics { listen }
}

/// A path, relative ones from `base`.
pub(super) fn path(field: &Field<'_>, example: &str, base: &Path) -> Option<PathBuf> {
    field.parsed(example, |text| {
        if text.is_empty() || text.contains('\0') {
            return Err(Mistake::new("this is no path", format!("Write for example {example}.")));
        }
        Ok(base.join(text))
    })
}

/// A length of time with its default and bounds.
pub(super) fn duration(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Duration {
    let example = format!("{key} = \"{}s\"", default.as_secs());
    let field = section.field(key);
    field
        .and_then(|field| field.parsed(&example, |text| values::duration(text, least, most)))
        .unwrap_or(default)
}

/// A number of bytes with its default and bounds.
pub(super) fn size(
    section: &mut Section<'_>,
    key: &'static str,
    default: u64,
    (least, most): (u64, u64),
) -> u64 {
    let example = format!("{key} = \"{}MiB\"", default >> 20);
    let field = section.field(key);
    field.and_then(|field| field.parsed(&example, |text| values::size(text, least, most))).unwrap_or(default)
}

fn integer(section: &mut Section<'_>, key: &'static str, default: u64, (least, most): (u64, u64)) -> usize {
    let field = section.field(key);
    saturated(
        field.and_then(|field| field.integer(&format!("{key} = {default}"), least, most)).unwrap_or(default),
    )
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Finds values that may stand only once.
pub(super) struct Unique<K> {
    lines: BTreeMap<K, usize>,
}

impl<K> Default for Unique<K> {
    fn default() -> Self {
        Self { lines: BTreeMap::new() }
    }
}

impl<K: Ord> Unique<K> {
    /// Whether the value is new; notes the mistake where it isn't. `what` names it, for example "the id".
    pub fn check(&mut self, field: &Field<'_>, value: K, what: &str) -> bool {
        if let Some(line) = self.lines.get(&value) {
            field.report(Mistake::new(
                format!("{what} is already taken on line {line}"),
                "Choose another one.",
            ));
            return false;
        }
        self.lines.insert(value, field.line());
        true
    }
}

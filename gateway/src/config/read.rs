//! From the document to the model. Each function notes what is wrong and goes on with a stand-in value,
//! which nobody sees: a document with a mistake yields no configuration.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Config, Limits, Log, Metrics, Ssh,
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
    let metrics = metrics(root.section("metrics"));
    let tenants = tenants::tenants(&mut root, base, drafts);
    root.finish();
    Config { data_dir, plugin_dirs, log, ssh, limits, metrics, tenants }
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
    let login_grace = duration(&mut section, "login_grace", 30 * SECOND, (SECOND, 600 * SECOND));
    let idle_timeout = duration(&mut section, "idle_timeout", 900 * SECOND, (SECOND, DAY));
    let max_connections = integer(&mut section, "max_connections", 1000, (1, 1_000_000));
    let unauthenticated = section.field("max_unauthenticated");
    let max_unauthenticated = match &unauthenticated {
        None => max_connections.min(100),
        Some(field) => field.integer("max_unauthenticated = 100", 1, 1_000_000).map_or(1, saturated),
    };
    if let Some(field) = unauthenticated.filter(|_| max_unauthenticated > max_connections) {
        field.report(Mistake::new(
            format!("{max_unauthenticated} is more than max_connections, which is {max_connections}"),
            "Lower it, or raise max_connections.",
        ));
    }
    section.finish();
    Ssh {
        listen,
        host_keys,
        legacy_algorithms,
        keep_alive,
        rekey_bytes,
        rekey_interval,
        proxy_protocol_from,
        login_grace,
        idle_timeout,
        max_unauthenticated,
        max_connections,
    }
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
    section.finish();
    Limits { read_ahead_budget, read_ahead_per_file, shutdown_grace }
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

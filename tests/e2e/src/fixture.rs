//! A gateway with two tenants over two PBXs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use tempfile::TempDir;

use crate::{
    clients::Login,
    command::{run, wait_for},
    gateway::{Gateway, recgate, test_plugins},
    raw::{Kind, Raw, Stat},
    wazo::{Call, WazoTree, utc},
};

/// A tenant of a fixture. Its users are itself (a downloader) and `NAME/manager`.
#[derive(Debug, Clone)]
pub struct TenantSpec {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: &'static str,
    /// Its time zone.
    pub zone: &'static str,
    /// `orphan` or `publish`.
    pub unmatched: &'static str,
    /// How long facts are waited for.
    pub metadata_wait: &'static str,
    /// TOML of more sources, which may be of the plugins that misbehave.
    pub more: String,
}

/// TOML of a source of the plugin that misbehaves, for [`TenantSpec::more`]. `settings` are what it is to tell and do.
pub fn broken_source(name: &str, call_timeout: &str, settings: &str) -> String {
    format!(
        r#"
[[tenant.source]]
id = 9
name = "{name}"
plugin = "broken"
isolation = "in-process"
metadata_wait = "0s"
unmatched = "publish"
scan_interval = "500ms"
call_timeout = "{call_timeout}"
[tenant.source.settings]
facts = true
{settings}
"#
    )
}

/// The first tenant of a fixture: America/Los_Angeles.
pub const ACME: TenantSpec = TenantSpec {
    id: 1,
    name: "acme",
    zone: "America/Los_Angeles",
    unmatched: "orphan",
    metadata_wait: "24h",
    more: String::new(),
};

/// The second one: Asia/Kolkata.
pub const GLOBEX: TenantSpec = TenantSpec {
    id: 2,
    name: "globex",
    zone: "Asia/Kolkata",
    unmatched: "orphan",
    metadata_wait: "24h",
    more: String::new(),
};

/// A folder with PBXs, a configuration and, once started, a gateway.
#[derive(Debug)]
pub struct Fixture {
    /// The gateway, while it runs.
    pub gateway: Option<Gateway>,
    /// The PBX of each tenant, by its name.
    pub wazo: BTreeMap<&'static str, WazoTree>,
    tenants: Vec<TenantSpec>,
    // Last, so that the gateway has ended when the folder goes.
    folder: TempDir,
}

impl Fixture {
    /// Two tenants, [`ACME`] and [`GLOBEX`], without recordings; nothing runs yet.
    pub fn new() -> Self {
        Self::with(vec![ACME, GLOBEX])
    }

    /// These tenants, without recordings; nothing runs yet.
    pub fn with(tenants: Vec<TenantSpec>) -> Self {
        Self::within(TempDir::new().unwrap(), tenants)
    }

    /// The same in memory, where that has the room: for tests of which a busy disk would make minutes.
    pub fn in_memory(tenants: Vec<TenantSpec>) -> Self {
        const MEMORY: &str = "/dev/shm";
        const ENOUGH: u64 = 2 << 30;
        let room = rustix::fs::statvfs(MEMORY).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
        let folder = if room >= ENOUGH { TempDir::new_in(MEMORY) } else { TempDir::new() };
        Self::within(folder.unwrap(), tenants)
    }

    fn within(folder: TempDir, tenants: Vec<TenantSpec>) -> Self {
        let wazo = tenants
            .iter()
            .map(|tenant| {
                (tenant.name, WazoTree::new(&folder.path().join("pbx").join(tenant.name), tenant.id))
            })
            .collect();
        let fixture = Self { gateway: None, wazo, tenants, folder };
        fixture.write_config(&fixture.config());
        fixture
    }

    /// Some calls for [`ACME`] and [`GLOBEX`], by tenant: around both midnights of 6 June 2016, small and large, two in
    /// one second.
    pub fn fill(&mut self) -> BTreeMap<&'static str, Vec<Call>> {
        let acme = self.wazo.get_mut("acme").unwrap();
        let acme_calls = vec![
            acme.add(utc("2016-06-06 06:59:59"), 40), // 23:59:59 on the 5th
            acme.add(utc("2016-06-06 07:00:00"), 41),
            acme.add(utc("2016-06-06 17:30:00"), 0), // some MiB
            acme.add(utc("2016-06-06 17:30:05"), 42),
            acme.add(utc("2016-06-06 17:30:05"), 43),
            acme.add(utc("2016-06-06 23:59:59"), 44),
            acme.add(utc("2016-06-07 00:30:00"), 45),
            acme.add(utc("2016-06-07 06:59:59"), 46),
            acme.add(utc("2016-06-07 07:00:00"), 47), // 00:00 on the 7th
        ];
        let globex = self.wazo.get_mut("globex").unwrap();
        let globex_calls = vec![
            globex.add(utc("2016-06-06 17:30:00"), 50),
            globex.add(utc("2016-06-06 18:30:00"), 51), // 00:00 on the 7th
            globex.add(utc("2016-06-08 01:02:03"), 1),
        ];
        BTreeMap::from([("acme", acme_calls), ("globex", globex_calls)])
    }

    /// The fixture's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new, empty folder within it.
    pub fn new_folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// Where the configuration lies.
    pub fn config_path(&self) -> PathBuf {
        self.path().join("recgate.toml")
    }

    /// The gateway's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes the configuration.
    pub fn write_config(&self, text: &str) {
        fs::write(self.config_path(), text).unwrap();
    }

    /// The configuration that describes the fixture.
    pub fn config(&self) -> String {
        let mut text = format!("data_dir = {}\n", quoted(&self.data_dir()));
        if self.tenants.iter().any(|tenant| !tenant.more.is_empty()) {
            writeln!(text, "plugin_dirs = [{}]", quoted(&test_plugins())).unwrap();
        }
        text.push_str("[log]\nfilter = \"info,recgate=debug\"\n[ssh]\nlisten = [\"127.0.0.1:0\"]\n");
        // Tests that show something else don't wait for the answers to failed logins.
        text.push_str("[throttle]\ndelay_at_most = \"50ms\"\n");
        for tenant in &self.tenants {
            let wazo = &self.wazo[tenant.name];
            let hash = password_hash(&password(tenant.name));
            let TenantSpec { id, name, zone, unmatched, metadata_wait, more } = tenant;
            write!(
                text,
                r#"
[[tenant]]
id = {id}
name = "{name}"
zone = "{zone}"

[[tenant.user]]
id = 1
role = "downloader"
password_hash = "{hash}"

[[tenant.user]]
id = 2
name = "manager"
role = "manager"
password_hash = "{hash}"

[[tenant.source]]
id = 1
name = "pbx"
plugin = "wazo"
metadata_wait = "{metadata_wait}"
unmatched = "{unmatched}"
scan_interval = "500ms"
call_timeout = "30s"

[tenant.source.settings]
root = {root}
cdr_dir = {cdr}
growing_after = 1
{more}
"#,
                root = quoted(&wazo.monitor),
                cdr = quoted(&wazo.cdr),
            )
            .unwrap();
        }
        text
    }

    /// Starts the gateway.
    pub fn start(&mut self) -> &Gateway {
        self.start_through(&[])
    }

    /// The same through programs that become the gateway, as `taskset -c 1` does.
    pub fn start_through(&mut self, through: &[&str]) -> &Gateway {
        assert!(self.gateway.is_none(), "the gateway runs already");
        let config = self.config_path();
        let args = ["serve", "--config", config.to_str().unwrap()];
        self.gateway = Some(Gateway::start_through(through, self.path(), &args));
        self.gateway.as_ref().unwrap()
    }

    /// Stops the gateway as an operator does, and starts it anew.
    pub fn restart(&mut self) {
        self.gateway.take().unwrap().stop();
        self.start();
    }

    /// Runs another of recgate's commands with `--config`, to its end.
    pub fn recgate(&self, arguments: &[&str]) -> crate::Finished {
        let mut command = Command::new(recgate());
        command.args(arguments).arg("--config").arg(self.config_path()).current_dir(self.path());
        run(&mut command, b"", Duration::from_secs(60))
    }

    /// A login of the running gateway, with the tenant's password.
    pub fn login(&self, user: &str) -> Login {
        let tenant = user.split('/').next().unwrap();
        Login::new(self.path(), self.gateway.as_ref().unwrap().ready.port, user, &password(tenant))
    }

    /// Waits until the tenant's folders hold exactly the files of these calls, and there is a root index of each of
    /// their local dates and of no other.
    pub fn wait_published(&self, tenant: &str, calls: &[Call]) {
        let zone = self.tenants.iter().find(|spec| spec.name == tenant).unwrap().zone;
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        let mut dates = BTreeSet::new();
        for call in calls {
            *expected.entry(call.folder()).or_default() += 1;
            let local = call.start + TimeDelta::minutes(offset_in_june(zone));
            dates.insert(local.format("I%Y%m%d.csv").to_string());
        }
        let mut raw = self.login(tenant).raw();
        let begin = Instant::now();
        loop {
            let now = published(&mut raw);
            // A test that runs over the tenant's midnight finds one more, of the day on which it began.
            let names = raw.list("/Index").unwrap_or_default().into_iter().map(|entry| entry.name);
            let indexes: BTreeSet<String> = names.filter(|name| name.starts_with("I2016")).collect();
            if now == expected && indexes == dates {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{tenant}: WAVs by folder are {now:?}, not {expected:?}; root indexes are {indexes:?}, not {dates:?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the root index of a date is there and has this many rows.
    pub fn wait_root_index(&self, tenant: &str, date: &str, rows: usize) -> Vec<u8> {
        let mut raw = self.login(tenant).raw();
        wait_for(&format!("{rows} rows in Index/I{date}.csv"), Duration::from_secs(60), || {
            let bytes = raw.file(&format!("/Index/I{date}.csv")).ok()?;
            (crate::read_index(&bytes).1.len() == rows).then_some(bytes)
        })
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw {
    /// What the whole tree looks like: each path with what stat and listing say of it.
    pub fn tree(&mut self) -> BTreeMap<String, Stat> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let listed = if folder.is_empty() { "/" } else { &folder };
            for entry in self.list(listed).unwrap() {
                let path = format!("{folder}/{}", entry.name);
                if entry.stat.kind == Kind::Folder {
                    folders.push(path.clone());
                }
                tree.insert(path, entry.stat);
            }
        }
        tree
    }
}

/// Minutes east of UTC, in June 2016, when all calls of the tests are.
fn offset_in_june(zone: &str) -> i64 {
    match zone {
        "America/Los_Angeles" => -7 * 60,
        "Asia/Kolkata" => 5 * 60 + 30,
        other => panic!("the harness doesn't know {other}"),
    }
}

/// The number of WAVs in each `S` folder that has any.
fn published(raw: &mut Raw) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for folder in raw.list("/").unwrap() {
        if folder.name.starts_with('S') {
            let entries = raw.list(&format!("/{}", folder.name)).unwrap();
            let count = entries.iter().filter(|entry| entry.name.ends_with(".wav")).count();
            if count > 0 {
                found.insert(folder.name, count);
            }
        }
    }
    found
}

/// The password of every user of a tenant.
pub fn password(tenant: &str) -> String {
    format!("correct horse, battery staple of {tenant}")
}

/// What `recgate hash-password` makes of a password: once, because hashing is slow on purpose.
pub fn password_hash(password: &str) -> String {
    static HASHES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    // Whoever panicked while holding it has not changed it.
    let mut hashes = HASHES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hash) = hashes.get(password) {
        return hash.clone();
    }
    let input = format!("{password}\n");
    let made = run(Command::new(recgate()).arg("hash-password"), input.as_bytes(), Duration::from_secs(60));
    let made = made.success();
    let hash = made.stdout.lines().find(|line| line.starts_with("$argon2id$"));
    let hash = hash.unwrap_or_else(|| panic!("no hash: {made}")).trim().to_owned();
    hashes.insert(password.to_owned(), hash.clone());
    hash
}

/// A path as a TOML string.
fn quoted(path: &Path) -> String {
    serde_json::to_string(path.to_str().unwrap()).unwrap()
}

//! Gateways to be measured: a fixture with a key for every client, the limits at their defaults, and one scan.

use std::{fs, time::Duration};

use recgate_e2e::{ACME, Fixture, Raw, TenantSpec, test_plugins, wait_for};

use crate::{Bench, measure, peers::Server};

/// The tenant, and the login of its downloader.
pub const TENANT: &str = "acme";

/// Synthetic media of the plugin `broken`, which behaves unless it is asked not to.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic {
    /// The source's id; ids of media contain it.
    pub id: u32,
    pub count: u64,
    pub size: u64,
    /// Of each read, in milliseconds.
    pub delay_ms: u64,
    /// Start of the first, in Unix milliseconds.
    pub start_ms: i64,
    /// Between two starts.
    pub step_ms: u64,
}

/// 2016-06-06 00:00:00 UTC.
pub const DAY_ONE_MS: i64 = 1_465_171_200_000;
pub const DAY_MS: i64 = 86_400_000;

impl Synthetic {
    /// The source in TOML.
    pub fn toml(&self) -> String {
        let Self { id, count, size, delay_ms, start_ms, step_ms } = self;
        // By its path: after a build of the whole workspace there is another one beside the gateway.
        let plugin = test_plugins().join("librecgate_broken.so");
        format!(
            r#"
[[tenant.source]]
id = {id}
name = "synthetic-{id}"
plugin = {plugin:?}
isolation = "in-process"
metadata_wait = "0s"
unmatched = "publish"
scan_interval = "1h"
call_timeout = "60s"
[tenant.source.settings]
count = {count}
size = {size}
delay_ms = {delay_ms}
start_ms = {start_ms}
step_ms = {step_ms}
"#
        )
    }

    /// The path of a medium, where no two start in the same second.
    pub fn path(&self, index: u64) -> String {
        let start_ms = self.start_ms + i64::try_from(index * self.step_ms).unwrap();
        let start = chrono::DateTime::from_timestamp_millis(start_ms).unwrap();
        start.format("/S%Y%m%d/R%Y%m%d%H%M%S0000.wav").to_string()
    }

    /// The eight bytes at an offset that is a multiple of eight.
    pub fn word(index: u64, offset: u64) -> [u8; 8] {
        let seed = format!("medium-{index}").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        ((offset / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed).to_le_bytes()
    }
}

/// A gateway that isn't started yet, with a PBX and these sources.
pub fn prepare(bench: &Bench, sources: &[Synthetic]) -> Fixture {
    let more = sources.iter().map(Synthetic::toml).collect();
    let fixture = Fixture::with(vec![TenantSpec { more, ..ACME }]);
    let public = fs::read_to_string(bench.key().with_extension("pub")).unwrap();
    let key = format!("role = \"downloader\"\nauthorized_keys = [{:?}]", public.trim());
    let config = fixture
        .config()
        // Nothing is scanned again while it is measured.
        .replace("scan_interval = \"500ms\"", "scan_interval = \"1h\"")
        .replace("info,recgate=debug", "info")
        .replacen("role = \"downloader\"", &key, 1);
    fixture.write_config(&config);
    fixture
}

/// Starts the gateway on the servers' core, and waits until each folder has as many recordings and all is done.
pub fn start(bench: &Bench, fixture: &mut Fixture, folders: &[(&str, u64)]) -> Server {
    let launcher = bench.cores.launcher();
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    fixture.start_through(&launcher);
    let server = Server::recgate(bench, fixture, TENANT);
    let mut raw = fixture.login(TENANT).raw();
    for (folder, count) in folders {
        wait_for(&format!("{count} recordings in {folder}"), Duration::from_secs(300), || {
            let log = fixture.gateway.as_ref().unwrap().log();
            let error = log.lines().find(|line| line.contains(" ERROR "));
            assert!(error.is_none(), "the gateway logged: {}", error.unwrap_or_default());
            (recordings(&mut raw, folder).len() as u64 == *count).then_some(())
        });
    }
    drop(raw);
    measure::wait_for_rest(server.pid, Duration::from_secs(120));
    server
}

/// The names of a folder's recordings.
pub fn recordings(raw: &mut Raw, folder: &str) -> Vec<String> {
    let entries = raw.list(folder).unwrap_or_default();
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(".wav")).collect()
}

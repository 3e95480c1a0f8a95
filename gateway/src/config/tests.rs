#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{identity::Role, layout::NameForm};

const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$6wjP+SsiOY/dHb9Dn6KwuA$lPQBaZKFLWCWRjrMKgYtKMTMFnfzuQ+GljyGQXDIhg4";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHK4QzRtqMHZHhHQ/9AurhQEnJtJqktT5Q3nOkgEw5tY jane";

/// The smallest configuration that serves, 14 lines.
const MINIMAL: &str = r#"data_dir = "data"
[[tenant]]
id = 1
name = "acme"
zone = "Europe/Berlin"
[[tenant.user]]
id = 1
role = "downloader"
password_hash = "HASH"
[[tenant.source]]
id = 1
name = "pbx"
plugin = "wazo"
settings = { root = "/srv" }
"#;

pub(super) fn minimal() -> String {
    MINIMAL.replace("HASH", HASH)
}

pub(super) fn read(text: &str) -> Result<Config, Problems> {
    parse(Path::new("recgate.toml"), text, Path::new("/nowhere"))
}

/// The mistakes of a text, each as it is shown.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    read(text).expect_err("the configuration is wrong").iter().map(ToString::to_string).collect()
}

/// Replaces one line of the minimal configuration and expects exactly this mistake.
fn expect_mistake(from: &str, to: &str, mistake: &str) {
    let text = minimal();
    assert!(text.contains(from), "{from}");
    assert_eq!(mistakes(&text.replacen(from, to, 1)), [mistake], "{to}");
}

#[test]
fn the_example_file_is_right() {
    let text = include_str!("../../../config/recgate.example.toml");
    let config = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    // It shows every default, so that reading it tells what happens without a line.
    let bare = read(&minimal()).unwrap();
    assert_eq!((&config.log, &config.ssh, &config.limits), (&bare.log, &bare.ssh, &bare.limits));
    assert_eq!((&config.limits, &config.throttle), (&Limits::default(), &Throttle::default()));
    assert_eq!(config.throttle, bare.throttle);
    assert_eq!(config.metrics, bare.metrics);
    let (mut shown, mut source) = (config.tenants[0].sources[0].clone(), bare.tenants[0].sources[0].clone());
    assert_eq!(shown.metadata_wait, Duration::from_secs(86_400));
    shown.settings = source.settings.take();
    source.settings = shown.settings.clone();
    assert_eq!(shown, source);
}

#[test]
fn a_whole_configuration_is_read() {
    let text = minimal()
        + r#"sha256 = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff"
isolation = "in-process"
unmatched = "publish"
metadata_wait = "15m"
[[tenant]]
id = 7
name = "globex"
zone = "America/Los_Angeles"
zone_changes = [{ from = 2025-03-01, zone = "America/New_York" }, { from = 2026-01-01, zone = "UTC" }]
name_form = "short"
live_index = true
[[tenant.user]]
id = 9
name = "qa.lead"
role = "auditor"
authorized_keys = ["KEY"]
[ssh]
listen = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:2022"]
[limits]
max_connections = 10
read_ahead_budget = "4MiB"
[metrics]
listen = "[::1]:0"
"#;
    let config = read(&text.replace("KEY", KEY)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.data_dir, PathBuf::from("/nowhere/data"));
    assert_eq!(config.ssh.listen.len(), 3);
    assert_eq!(config.limits.max_unauthenticated, 10, "a default never exceeds what it is a part of");
    assert_eq!((config.limits.max_connections_per_address, config.limits.max_connections_per_tenant), (9, 9));
    assert_eq!(config.limits.read_ahead_per_file, 4 << 20);
    assert_eq!(config.metrics.listen, Some("[::1]:0".parse().unwrap()));
    let source = &config.tenants[0].sources[0];
    assert_eq!(source.sha256.unwrap()[..2], [0, 255]);
    assert!(source.in_process);
    assert_eq!(source.unmatched, Unmatched::Publish);
    assert_eq!(source.metadata_wait, Duration::from_secs(900));
    let globex = &config.tenants[1];
    assert_eq!((globex.id, globex.name_form, globex.live_index), (7, NameForm::Short, true));
    assert!(!config.tenants[0].live_index);
    assert_eq!(globex.users[0].name.as_deref(), Some("qa.lead"));
    assert_eq!(globex.users[0].role, Role::Auditor);
    assert_eq!(globex.users[0].authorized_keys, [KEY]);
}

#[test]
fn settings_become_json() {
    let text = minimal().replace(
        "{ root = \"/srv\" }",
        "{ a = 0xff, b = -1_000, c = 1.5, d = true, e = 2025-01-02T03:04:05Z, f = [1, { g = 'x' }] }",
    );
    let expected = serde_json::json!({
        "a": 255, "b": -1000, "c": 1.5, "d": true, "e": "2025-01-02T03:04:05Z", "f": [1, { "g": "x" }],
    });
    assert_eq!(read(&text).unwrap().tenants[0].sources[0].settings, expected);
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = minimal()
        .replace("data_dir", "data_dri")
        .replace("Europe/Berlin", "Europe/Bärlin")
        .replace("downloader", "boss")
        .replace("plugin =", "plugn =");
    assert_eq!(
        mistakes(&text),
        [
            "recgate.toml:1:1: data_dir is missing. Write for example data_dir = \"/var/lib/recgate\".",
            "recgate.toml:1:1: data_dri: there is no such key. Did you mean data_dir?",
            "recgate.toml:5:8: tenant[0].zone: \"Europe/Bärlin\" is no time zone. Did you mean \"Europe/Berlin\"?",
            "recgate.toml:8:8: tenant[0].user[0].role: \"boss\" is not known here. Write one of \"downloader\", \
             \"manager\", \"administrator\", \"auditor\".",
            "recgate.toml:10:1: tenant[0].source[0]: plugin is missing. Write the plugin's name, for example \
             plugin = \"wazo\".",
            "recgate.toml:13:1: tenant[0].source[0].plugn: there is no such key. Did you mean plugin?",
        ]
    );
}

#[test]
fn syntax_errors_are_all_told_and_hide_nothing_else() {
    let found = mistakes("data_dir = \"x\nid == 1\na = 1\na = 2\n");
    assert!(found.len() >= 3, "{found:?}");
    assert!(found[0].starts_with("recgate.toml:1:"), "{found:?}");
    assert!(
        found.iter().any(|mistake| mistake.starts_with("recgate.toml:4:1: this is not TOML: duplicate key"))
    );
}

#[test]
fn bad_values_at_the_root() {
    expect_mistake(
        "data_dir = \"data\"",
        "data_dir = 7",
        "recgate.toml:1:12: data_dir: expected a string, found a whole number. Write for example data_dir = \
         \"/var/lib/recgate\".",
    );
    expect_mistake(
        "data_dir = \"data\"",
        "data_dir = \"\"",
        "recgate.toml:1:12: data_dir: this is no path. Write for example data_dir = \"/var/lib/recgate\".",
    );
    expect_mistake(
        "data_dir = \"data\"",
        "data_dir = \"/etc/passwd\"",
        "recgate.toml:1:12: data_dir: /etc/passwd is no folder. Name a folder.",
    );
    expect_mistake(
        "data_dir = \"data\"",
        "data_dir = \"data\"\nplugin_dirs = \"/usr\"",
        "recgate.toml:2:15: plugin_dirs: expected an array, found a string. Write for example plugin_dirs = \
         [\"/usr/lib/recgate/plugins\"].",
    );
    expect_mistake(
        "data_dir = \"data\"",
        "data_dir = \"data\"\nplugin_dirs = [\"/usr\", \"none\"]",
        "recgate.toml:2:24: plugin_dirs[1]: /nowhere/none can't be looked into: No such file or directory (os \
         error 2). Make the folder, or correct the path, which is relative to the configuration file's folder.",
    );
    assert_eq!(
        mistakes("data_dir = \"data\""),
        ["recgate.toml:1:1: tenant is missing. Add a [[tenant]] with its id, name and zone."]
    );
    assert_eq!(
        mistakes("data_dir = \"data\"\n[tenant]\nid = 1"),
        [
            "recgate.toml:2:1: tenant: expected tables that begin with [[tenant]], found a table. Write [[tenant]] \
          on a line of its own, then the keys."
        ]
    );
}

#[test]
fn bad_values_of_the_doors_and_limits() {
    for (section, mistake) in [
        (
            "log]\nformat = \"xml\"",
            "3:10: log.format: \"xml\" is not known here. Write one of \"text\", \"json\".",
        ),
        (
            "log]\nfilter = \"recgate=loud\"",
            "3:10: log.filter: \"recgate=loud\" is no log filter. Write error, warn, info, debug or trace, or parts \
             as in \"info,recgate::doors=debug\".",
        ),
        (
            "ssh]\nlisten = [\"2022\"]",
            "3:11: ssh.listen[0]: \"2022\" is no address with a port. Write an IP address and a port, for example \
             \"0.0.0.0:2022\" or \"[::]:2022\".",
        ),
        (
            "ssh]\nlisten = []",
            "3:10: ssh.listen: the gateway would listen nowhere. Write listen = [\"0.0.0.0:2022\"].",
        ),
        (
            "ssh]\nlisten = [\"127.0.0.1:1\",\n\"127.0.0.1:1\"]",
            "4:1: ssh.listen[1]: the address is already taken on line 3. Choose another one.",
        ),
        (
            "ssh]\nhost_keys = [\"none\"]",
            "3:14: ssh.host_keys[0]: /nowhere/none can't be read: No such file or directory (os error 2). Correct \
             the path, which is relative to the configuration file's folder.",
        ),
        (
            "ssh]\nlegacy_algorithms = \"yes\"",
            "3:21: ssh.legacy_algorithms: expected true or false, found a string. Write for example \
             legacy_algorithms = false.",
        ),
        (
            "ssh]\nkeep_alive = \"0s\"",
            "3:14: ssh.keep_alive: 0s is out of range. Write a time from 1s to 1h.",
        ),
        (
            "ssh]\nrekey_bytes = \"1KiB\"",
            "3:15: ssh.rekey_bytes: 1KiB is out of range. Write a size from 1MiB to 64GiB.",
        ),
        (
            "ssh]\nrekey_interval = \"1s\"",
            "3:18: ssh.rekey_interval: 1s is out of range. Write a time from 1m to 1d.",
        ),
        (
            "ssh]\nproxy_protocol_from = [\"10.0.0.0/8\", \"lb.example\"]",
            "3:38: ssh.proxy_protocol_from[1]: \"lb.example\" is no network. Write an address with the bits that \
             count, for example \"10.1.0.0/16\", or a single address.",
        ),
        (
            "ssh]\nproxy_protocol_from = [\"::/0\"]",
            "3:24: ssh.proxy_protocol_from[0]: everybody could say that they are anywhere. Write the networks of \
             your load balancers.",
        ),
        (
            "ssh]\nproxy_protocol_from = \"10.0.0.0/8\"",
            "3:23: ssh.proxy_protocol_from: expected an array, found a string. Write for example \
             proxy_protocol_from = [\"10.0.0.0/8\"].",
        ),
        (
            "limits]\nlogin_grace = \"1h\"",
            "3:15: limits.login_grace: 1h is out of range. Write a time from 1s to 10m.",
        ),
        (
            "limits]\nidle_timeout = 15",
            "3:16: limits.idle_timeout: expected a string, found a whole number. Write for example idle_timeout = \
             \"900s\".",
        ),
        (
            "limits]\nmax_connections = 0",
            "3:19: limits.max_connections: 0 is out of range. Write a number from 1 to 1000000.",
        ),
        (
            "limits]\nmax_connections = -99999999999999999999",
            "3:19: limits.max_connections: -99999999999999999999 is out of range. Write a number from 1 to 1000000.",
        ),
        (
            "limits]\nmax_connections = 5\nmax_unauthenticated = 6",
            "4:23: limits.max_unauthenticated: 6 is more than max_connections, which is 5. Lower it, or raise \
             max_connections.",
        ),
        (
            "limits]\nmax_connections_per_address = 1001",
            "3:31: limits.max_connections_per_address: 1001 is more than max_connections, which is 1000. Lower it, or \
             raise max_connections.",
        ),
        (
            "limits]\nmax_connections_per_tenant = \"all\"",
            "3:30: limits.max_connections_per_tenant: expected a whole number, found a string. Write for example \
             max_connections_per_tenant = 750.",
        ),
        (
            "throttle]\nconnection_burst = 0",
            "3:20: throttle.connection_burst: 0 is out of range. Write a number from 1 to 100000.",
        ),
        (
            "throttle]\nconnections_per_second = 0.5",
            "3:26: throttle.connections_per_second: expected a whole number, found a number with a point. Write for \
             example connections_per_second = 4.",
        ),
        (
            "throttle]\nrefuse_after = 1",
            "3:16: throttle.refuse_after: 1 is out of range. Write a number from 2 to 1000.",
        ),
        (
            "throttle]\ndelay_at_most = \"2m\"",
            "3:17: throttle.delay_at_most: 2m is out of range. Write a time from 0s to 1m.",
        ),
        (
            "throttle]\ndelay_at_most = \"20s\"\n[limits]\nlogin_grace = \"20s\"",
            "3:17: throttle.delay_at_most: a failed login would be answered only when limits.login_grace, 20s, has ended \
             the connection. Write less than that, or raise login_grace.",
        ),
        (
            "throttle]\nfailure_window = \"1 week\"",
            "3:18: throttle.failure_window: \"1 week\" is no length of time. Write a whole number and one of ms, s, \
             m, h, d, for example \"90s\".",
        ),
        (
            "throttle]\nrefuse_for = \"0s\"",
            "3:14: throttle.refuse_for: 0s is out of range. Write a time from 1s to 7d.",
        ),
        (
            "throttle]\nrefuse_for = \"2m\"\nrefuse_at_most = \"1m\"",
            "4:18: throttle.refuse_at_most: the longest refusal would be shorter than refuse_for, which is the \
             first. Raise it, or lower refuse_for.",
        ),
        (
            "throttle]\nspare_for = \"100d\"",
            "3:13: throttle.spare_for: 100d is out of range. Write a time from 0s to 90d.",
        ),
        (
            "throttle]\nspared_for = \"1h\"",
            "3:1: throttle.spared_for: there is no such key. Did you mean spare_for?",
        ),
        (
            "ssh]\nport = 22",
            "3:1: ssh.port: there is no such key. Remove it, or take one of: listen, host_keys, legacy_algorithms, keep_alive, \
             rekey_bytes, rekey_interval, proxy_protocol_from.",
        ),
        (
            "limits]\nread_ahead_budget = \"256MB\"",
            "3:21: limits.read_ahead_budget: \"256MB\" is no size. Write a whole number and one of B, KiB, MiB, GiB, \
             TiB, for example \"256MiB\".",
        ),
        (
            "limits]\nread_ahead_per_file = \"1GiB\"",
            "3:23: limits.read_ahead_per_file: one file would get more than read_ahead_budget, which is for all \
             files together. Lower it, or raise read_ahead_budget.",
        ),
        (
            "metrics]\nlisten = \"0.0.0.0:9464\"",
            "3:10: metrics.listen: others could reach 0.0.0.0:9464, and there is neither a login nor encryption. \
             Write a loopback address, for example \"127.0.0.1:9464\" or \"[::1]:9464\". For other machines, put a \
             proxy before it that asks who they are.",
        ),
        (
            "metrics]\nlisten = \"localhost:9464\"",
            "3:10: metrics.listen: \"localhost:9464\" is no address with a port. Write a loopback address, for \
             example \"127.0.0.1:9464\" or \"[::1]:9464\".",
        ),
        (
            "metrics]\nlisten = [\"127.0.0.1:9464\"]",
            "3:10: metrics.listen: expected a string, found an array. Write for example listen = \
             \"127.0.0.1:9464\".",
        ),
        (
            "limits]\nshutdown_grace = \"forever\"",
            "3:18: limits.shutdown_grace: \"forever\" is no length of time. Write a whole number and one of ms, s, \
             m, h, d, for example \"90s\".",
        ),
    ] {
        let from = "[[tenant]]";
        expect_mistake(from, &format!("[{section}\n{from}"), &format!("recgate.toml:{mistake}"));
    }
    expect_mistake(
        "[[tenant]]",
        "ssh = 22\n[[tenant]]",
        "recgate.toml:2:7: ssh: expected a table, found a whole number. Write for example [ssh].",
    );
}

#[test]
fn bad_values_of_a_tenant() {
    for (from, to, mistake) in [
        (
            "id = 1",
            "",
            "2:1: tenant[0]: id is missing. Write a number that nothing else here has; it must never change.",
        ),
        ("id = 1", "id = 0", "3:6: tenant[0].id: 0 is out of range. Write a number from 1 to 4294967295."),
        (
            "id = 1",
            "id = \"1\"",
            "3:6: tenant[0].id: expected a whole number, found a string. Write for example id = 1.",
        ),
        (
            "name = \"acme\"",
            "name = \"acme/x\"",
            "4:8: tenant[0].name: \"acme/x\" can't be a name. Write 1 to 63 of a-z, 0-9, '.', '_', '-', beginning \
             with a letter or digit.",
        ),
        (
            "name = \"acme\"",
            "name = \".\"",
            "4:8: tenant[0].name: \".\" can't be a name. Write 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a \
             letter or digit.",
        ),
        (
            "name = \"acme\"",
            "name = \"acme\"\nname_form = \"brief\"",
            "5:13: tenant[0].name_form: \"brief\" is not known here. Write one of \"long\", \"short\".",
        ),
        (
            "zone = \"Europe/Berlin\"",
            "",
            "2:1: tenant[0]: zone is missing. Write the tenant's time zone, for example zone = \
             \"America/Los_Angeles\".",
        ),
        (
            "zone = \"Europe/Berlin\"",
            "zone = \"UTC\"\nzone_changes = [{ from = \"2025-03-01\", zone = \"UTC\" }]",
            "6:26: tenant[0].zone_changes[0].from: expected a date, found a string. Write the local date from which \
             the zone holds, without quotes: 2025-03-01.",
        ),
        (
            "zone = \"Europe/Berlin\"",
            "zone = \"UTC\"\nzone_changes = [{ from = 2025-03-01T00:00:00Z, zone = \"UTC\" }]",
            "6:26: tenant[0].zone_changes[0].from: expected a date, found a time. Write the local date from which \
             the zone holds, without quotes: 2025-03-01.",
        ),
        (
            "zone = \"Europe/Berlin\"",
            "zone = \"UTC\"\nzone_changes = [{ from = 2025-03-01 }]",
            "6:17: tenant[0].zone_changes[0]: zone is missing. Write the time zone that holds from then on.",
        ),
    ] {
        expect_mistake(from, to, &format!("recgate.toml:{mistake}"));
    }
    let disordered = minimal().replace(
        "zone = \"Europe/Berlin\"",
        "zone = \"UTC\"\nzone_changes = [{ from = 2026-03-01, zone = \"UTC\" }, { from = 2025-03-01, zone = \"UTC\" }]",
    );
    let found = mistakes(&disordered);
    assert!(
        found[0].starts_with("recgate.toml:6:16: tenant[0].zone_changes: the change to UTC on 2025-03-01")
    );
    assert_eq!(
        mistakes(&(minimal() + "[[tenant]]\nid = 1\nname = \"acme\"\nzone = \"UTC\"\n")),
        [
            "recgate.toml:16:6: tenant[1].id: the id 1 is already taken on line 3. Choose another one.",
            "recgate.toml:17:8: tenant[1].name: the name acme is already taken on line 4. Choose another one.",
        ]
    );
}

#[test]
fn bad_values_of_a_user() {
    let hash = format!("password_hash = \"{HASH}\"");
    for (from, to, mistake) in [
        (
            "role = \"downloader\"",
            "",
            "6:1: tenant[0].user[0]: role is missing. Write role = \"downloader\", \
          \"manager\", \"administrator\" or \"auditor\".",
        ),
        (
            &hash,
            "",
            "6:1: tenant[0].user[0]: the user can't log in, having neither a password nor a key. Add \
          password_hash (from `recgate hash-password`) or authorized_keys.",
        ),
        (
            &hash,
            "password_hash = \"hunter2\"",
            "9:17: tenant[0].user[0].password_hash: this is no password hash in \
          the PHC string format (password hash string missing field). Write what `recgate hash-password` prints.",
        ),
        (
            &hash,
            "password = \"hunter2\"",
            "6:1: tenant[0].user[0]: the user can't log in, having neither a password \
          nor a key. Add password_hash (from `recgate hash-password`) or authorized_keys.",
        ),
        (
            "role =",
            "require = [\"publickey\"]\nrole =",
            "8:12: tenant[0].user[0].require[0]: the user has no key. Remove it, or add what is missing.",
        ),
        (
            "role =",
            "require = [\"password\", \"password\"]\nrole =",
            "8:24: tenant[0].user[0].require[1]: this is required already. Remove it, or add what is missing.",
        ),
        (
            "role =",
            "require = []\nrole =",
            "8:11: tenant[0].user[0].require: nothing is required. Write require = [\"publickey\", \"password\"], or \
             remove it.",
        ),
        (
            "role =",
            "allowed_networks = [\"office\"]\nrole =",
            "8:21: tenant[0].user[0].allowed_networks[0]: \"office\" is no network. Write an address with the bits that \
             count, for example \"10.1.0.0/16\", or a single address.",
        ),
        (
            "role =",
            "allowed_networks = [\"10.1.2.3/16\"]\nrole =",
            "8:21: tenant[0].user[0].allowed_networks[0]: \"10.1.2.3/16\" has bits beyond its prefix. Write \
             \"10.1.0.0/16\" if the whole network is meant.",
        ),
        (
            "role =",
            "allowed_networks = []\nrole =",
            "8:20: tenant[0].user[0].allowed_networks: the user could log in from nowhere. Write allowed_networks = \
             [\"10.1.0.0/16\"].",
        ),
        (
            &hash,
            "authorized_keys = [\"ssh-rsa AAAA\"]",
            "9:20: tenant[0].user[0].authorized_keys[0]: \"ssh-rsa AAAA\" \
          is no public key. Write a line of an OpenSSH .pub file, without options before the key type.",
        ),
    ] {
        let found = mistakes(&minimal().replacen(from, to, 1));
        assert_eq!(found[0], format!("recgate.toml:{mistake}"), "{to}");
        assert!(!found.iter().any(|mistake| mistake.contains("hunter2")), "a secret is shown: {found:?}");
    }
    let both = minimal().replace("role =", "password_hash_file = \"x\"\nrole =");
    assert_eq!(
        mistakes(&both),
        [
            "recgate.toml:8:22: tenant[0].user[0].password_hash_file: the user has password_hash as well. Remove one \
          of the two."
        ]
    );
    let second = format!("[[tenant.user]]\nid = 2\nrole = \"auditor\"\n{hash}\n[[tenant.source]]");
    expect_mistake(
        "[[tenant.source]]",
        &second,
        "recgate.toml:11:6: tenant[0].user[1].id: without a name this is the tenant's default user, whose place is \
         already taken on line 7. Choose another one.",
    );
}

#[test]
fn bad_values_of_a_source() {
    let more = |line: &str| format!("plugin = \"wazo\"\n{line}");
    for (to, mistake) in [
        (
            "plugin = \"../evil.so\"".to_owned(),
            "13:10: tenant[0].source[0].plugin: \"../evil.so\" is no plugin. Write its name (a-z, 0-9, '_', '-'), or \
             the absolute path of a .so in a plugin folder.",
        ),
        (
            more("isolation = \"process\""),
            "14:13: tenant[0].source[0].isolation: plugins can't run in a process of their own yet. Write \
             \"in-process\" if you trust the plugin as you trust the gateway.",
        ),
        (
            more("isolation = \"none\""),
            "14:13: tenant[0].source[0].isolation: \"none\" is not known here. Write one of \"in-process\".",
        ),
        (
            more("sha256 = \"12\""),
            "14:10: tenant[0].source[0].sha256: \"12\" is no SHA-256. Write the 64 hexadecimal digits that \
             `sha256sum` prints.",
        ),
        (
            more("unmatched = true"),
            "14:13: tenant[0].source[0].unmatched: expected a string, found true or false. Write for example \
             unmatched = \"orphan\".",
        ),
        (
            more("unmatched = \"hide\""),
            "14:13: tenant[0].source[0].unmatched: \"hide\" is not known here. Write one of \"orphan\", \"publish\".",
        ),
        (
            more("metadata_wait = \"1y\""),
            "14:17: tenant[0].source[0].metadata_wait: \"1y\" is no length of time. Write a whole number and one of \
             ms, s, m, h, d, for example \"90s\".",
        ),
        (
            more("scan_interval = \"0s\""),
            "14:17: tenant[0].source[0].scan_interval: 0s is out of range. Write a time from 100ms to 7d.",
        ),
        (
            more("call_timeout = \"2h\""),
            "14:16: tenant[0].source[0].call_timeout: 2h is out of range. Write a time from 100ms to 1h.",
        ),
    ] {
        expect_mistake("plugin = \"wazo\"", &to, &format!("recgate.toml:{mistake}"));
    }
    expect_mistake(
        "settings = { root = \"/srv\" }",
        "settings = []",
        "recgate.toml:14:12: tenant[0].source[0].settings: expected a table, found an array. Write for example \
         [tenant[0].source[0].settings].",
    );
    expect_mistake(
        "{ root = \"/srv\" }",
        "{ root = nan }",
        "recgate.toml:14:12: tenant[0].source[0].settings: the number is not finite. Write a finite number.",
    );
}

#[test]
fn secrets_in_files_are_kept_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        minimal().replace(&format!("password_hash = \"{HASH}\""), "password_hash_file = \"acme.hash\"");
    let config = dir.path().join("recgate.toml");
    let secret = dir.path().join("acme.hash");
    fs::write(&config, text).unwrap();
    fs::write(&secret, format!("{HASH}\n")).unwrap();

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    let loaded = load(&config).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.tenants[0].users[0].password_hash.as_deref(), Some(HASH));
    assert_eq!(loaded.data_dir, dir.path().join("data"));

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let problems = load(&config).unwrap_err();
    assert_eq!(problems.0[0].line, Some(9));
    assert!(problems.0[0].wrong.ends_with("acme.hash is a secret that others may read (mode 0644)"));

    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong == "may be changed by everybody (mode 0666)", "{problems}");

    let missing = load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.ends_with("Make it, or name another with --config or RECGATE_CONFIG."), "{missing}");
    assert!(missing.contains("none.toml: can't be read: No such file or directory"), "{missing}");
}

#[test]
fn keys_may_stand_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = minimal().replace(&format!("password_hash = \"{HASH}\""), "authorized_keys_file = \"keys\"");
    let config = dir.path().join("recgate.toml");
    let keys = dir.path().join("keys");
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();

    fs::write(&keys, format!("# people\n\n{KEY}\n")).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(load(&config).unwrap().tenants[0].users[0].authorized_keys, [KEY]);

    fs::write(&keys, format!("{KEY}\ncommand=\"x\" {KEY}\n")).unwrap();
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong.contains("keys, line 2: \"command="), "{problems}");

    fs::write(&keys, "# nobody\n").unwrap();
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong.ends_with("keys holds no usable key"), "{problems}");
}

#[test]
fn a_list_of_revoked_keys_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("recgate.toml");
    let list = dir.path().join("revoked.pub");
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let with = |line: &str| minimal().replace("name = \"acme\"", &format!("name = \"acme\"\n{line}"));
    write(&config, &with("revoked_keys_file = \"revoked.pub\""));
    for text in ["", "# nobody has lost one yet\n\n"] {
        write(&list, text);
        let loaded = load(&config).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.tenants[0].revoked_keys.is_empty());
    }
    write(&list, "nonsense\n");
    let problems = load(&config).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert!(problems.0[0].wrong.contains("revoked.pub, line 1: "), "{problems}");
    // An authority that isn't there is a mistake.
    write(&config, &with("user_ca_keys_file = \"revoked.pub\""));
    write(&list, "# nobody\n");
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong.ends_with("revoked.pub holds no usable key"), "{problems}");
}

#[test]
fn a_pipe_in_place_of_a_file_is_told_and_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let dir = tempfile::tempdir().unwrap();
    let text =
        minimal().replace(&format!("password_hash = \"{HASH}\""), "password_hash_file = \"acme.hash\"");
    let config = dir.path().join("recgate.toml");
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let pipe = dir.path().join("acme.hash");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong.ends_with("acme.hash is no file"), "{problems}");
    // Nor is the configuration itself.
    let problems = load(&pipe).unwrap_err();
    assert!(problems.0[0].wrong.ends_with("is no file"), "{problems}");
}

#[test]
fn host_keys_must_be_usable() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("recgate.toml");
    fs::write(&config, minimal() + "[ssh]\nhost_keys = [\"key\"]\n").unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "-----BEGIN NONSENSE-----\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let problems = load(&config).unwrap_err();
    assert!(problems.0[0].wrong.ends_with("key is no private key in OpenSSH's format"), "{problems}");
    assert_eq!(problems.0[0].line, Some(16));
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let text: String = (0..5000).map(|number| format!("x{number} = 1\n")).collect();
    let problems = read(&(text + &minimal())).unwrap_err();
    assert_eq!(problems.0.len(), 201);
    assert_eq!(problems.0[200].wrong, "there are 4800 more mistakes");
}

#[test]
fn a_reload_refuses_what_cannot_change() {
    let old = read(&minimal()).unwrap();
    let file = Path::new("recgate.toml");
    assert!(check_reload(file, &old, &old).is_ok());

    let renamed = read(&minimal().replace("acme", "apex").replace("downloader", "auditor")).unwrap();
    assert!(check_reload(file, &old, &renamed).is_ok());

    let text = minimal()
        .replace("name = \"acme\"", "name = \"acme\"\nname_form = \"short\"")
        .replace("\"data\"", "\"other\"")
        .replace("\"wazo\"", "\"s3\"")
        + "[metrics]\nlisten = \"127.0.0.1:9464\"\n[limits]\nread_ahead_budget = \"2MiB\"\n";
    let problems = check_reload(file, &old, &read(&text).unwrap()).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "recgate.toml: data_dir: this can't change while the gateway runs. Put it back, or restart the gateway.\n\
         recgate.toml: limits.read_ahead_budget: this can't change while the gateway runs. Put it back, or restart the \
         gateway.\n\
         recgate.toml: limits.read_ahead_per_file: this can't change while the gateway runs. Put it back, or restart the \
         gateway.\n\
         recgate.toml: metrics.listen: this can't change while the gateway runs. Put it back, or restart the \
         gateway.\n\
         recgate.toml: tenant[0].name_form: the form of acme's names was fixed when the tenant was made. Put it \
         back: clients know the recordings by their names.\n\
         recgate.toml: tenant[0].source 1.plugin: source 1 of acme has recordings of another plugin. Give the new \
         source an id of its own."
    );
}

proptest! {
    /// Whatever is in the file: an answer, and each mistake lies in it.
    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,200}") {
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    /// A configuration with some bytes replaced: no panic, and places that exist.
    #[test]
    fn any_slip_gets_an_answer(at in 0..MINIMAL.len(), put in "[\\x00-\\x7f]{0,3}") {
        let mut text = minimal();
        text.replace_range(at..=at, &put);
        if let Err(problems) = read(&text) {
            for problem in problems.iter() {
                prop_assert!(problem.line.unwrap_or(1) <= text.lines().count() + 1);
            }
        }
    }
}

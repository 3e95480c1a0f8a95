//! What an operator does to a running gateway.

use std::{fs, time::Duration};

use recgate_e2e::{ACME, Fixture, TenantSpec, broken_source, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// A source of the plugin that misbehaves on request, here only slow: each read takes `delay_ms`.
fn slow_source(size: u64, delay_ms: u64) -> String {
    let media = format!("media = [{{ id = \"slow\", size = {size} }}]");
    broken_source("slow", "30s", &format!("delay_ms = {delay_ms}\n{media}"))
}

/// Byte `at` of a medium of that plugin.
fn synthetic(id: &str, size: usize) -> Vec<u8> {
    let seed = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let words = u64::try_from(size.div_ceil(8)).unwrap();
    let mut bytes: Vec<u8> =
        (0..words).flat_map(|word| (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed).to_le_bytes()).collect();
    bytes.truncate(size);
    bytes
}

const SLOW: &str = "/S20160606/R201606060001170000.wav";

#[test]
fn sigterm_lets_a_running_transfer_finish_and_takes_no_new_one() {
    const SIZE: u64 = 40 << 20;
    let mut fixture = Fixture::with(vec![TenantSpec { more: slow_source(SIZE, 1500), ..ACME }]);
    fixture.start();
    let mut raw = fixture.login("acme").raw();
    wait_for("the slow recording", Duration::from_secs(60), || raw.stat(SLOW.as_bytes()).ok());
    drop(raw);
    let target = fixture.path().join("slow.wav");
    let login = fixture.login("acme");
    let mut transfer = login.begin_download(&[], SLOW, &target);
    let gateway = fixture.gateway.take().unwrap();
    gateway.signal(Signal::TERM);
    gateway.wait_for_log(&["SIGTERM"]);
    let refused = login.sftp("ls\n");
    assert!(!refused.status.success(), "a new session was taken: {refused}");
    assert!(transfer.try_wait().unwrap().is_none(), "the transfer was over before it was tested");
    let status = wait_for("the transfer's end", Duration::from_secs(60), || transfer.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert!(fs::read(&target).unwrap() == synthetic("slow", usize::try_from(SIZE).unwrap()));
    let status = gateway.wait(Duration::from_secs(60));
    assert!(status.success(), "{status}");
}

#[test]
fn a_reload_of_a_wrong_file_keeps_the_old_one_and_tells_every_mistake() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let good = fixture.config();
    let wrong = good.replacen("zone = \"Asia/Kolkata\"", "zone = \"Asia/Nowhere\"", 1).replacen(
        "role = \"manager\"",
        "role = \"emperor\"",
        1,
    );
    fixture.write_config(&wrong);
    let checked = fixture.recgate(&["check"]);
    assert!(!checked.status.success());
    for mistake in ["Asia/Nowhere", "emperor"] {
        assert!(checked.text().contains(mistake), "{checked}");
    }
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(&["Asia/Nowhere"]);
    gateway.wait_for_log(&["emperor"]);
    fixture.wait_published("acme", &calls["acme"]);

    // A right one: the second user is gone, the first stays.
    let mut manager = fixture.login("acme/manager").raw();
    manager.list("/").unwrap();
    let (head, rest) = good.split_once("[[tenant.user]]\nid = 2").unwrap();
    let rest = rest.split_once("[[tenant.source]]").unwrap().1;
    fixture.write_config(&format!("{head}[[tenant.source]]{rest}"));
    fixture.recgate(&["check"]).success();
    fixture.gateway.as_ref().unwrap().signal(Signal::HUP);
    wait_for("the end of the removed user's logins", Duration::from_secs(60), || {
        let login = fixture.login("acme/manager").sftp("ls\n");
        (!login.status.success()).then_some(())
    });
    fixture.login("acme").sftp("ls\n").success();
    fixture.login("globex/manager").sftp("ls\n").success();
}

#[test]
fn status_tells_how_the_gateway_is() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.recgate(&["status", "--json"]).status.success().then(|| panic!("nothing runs yet"));
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let printed = fixture.recgate(&["status", "--json"]).success();
    let status: Value = serde_json::from_str(&printed.stdout).unwrap();
    let gateway = fixture.gateway.as_ref().unwrap();
    assert_eq!(status["pid"], gateway.pid());
    assert_eq!(status["draining"], false);
    let port = gateway.ready.port.to_string();
    assert!(status["doors"][0]["address"].as_str().unwrap().ends_with(&port), "{status}");
    assert_eq!(status["tenants"].as_array().unwrap().len(), 2, "{status}");
    let printed = fixture.recgate(&["status"]).success();
    assert!(printed.stdout.contains("acme") && printed.stdout.contains("globex"), "{printed}");
    // A second gateway on the same state is refused.
    let second = fixture.recgate(&["serve"]);
    assert!(!second.status.success(), "{second}");
}

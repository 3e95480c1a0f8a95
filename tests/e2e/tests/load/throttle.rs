//! Who guesses passwords is refused, and nobody else; who may connect how often.

use std::time::Duration;

use recgate_e2e::{Finished, Fixture, Login, turn, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// As if from another machine.
const ELSEWHERE: &[&str] = &["-o", "BindAddress=127.0.0.2"];

fn started(throttle: &str) -> Fixture {
    let mut fixture = Fixture::new();
    configure(&fixture, throttle, "");
    fixture.start();
    fixture
}

/// Writes the configuration with these keys in `[throttle]` and `[limits]`.
fn configure(fixture: &Fixture, throttle: &str, limits: &str) {
    let config = fixture.config().replacen("[throttle]\n", &format!("[throttle]\n{throttle}\n"), 1);
    fixture.write_config(&format!("{config}\n[limits]\n{limits}\n"));
}

fn status(fixture: &Fixture) -> Value {
    serde_json::from_str(&fixture.recgate(&["status", "--json"]).success().stdout).unwrap()
}

fn with(login: &Login, password: &str, options: &[&str]) -> Finished {
    Login { password: password.to_owned(), ..login.clone() }.sftp_with(options, b"ls\n")
}

#[test]
fn an_address_is_refused_for_its_failures_and_shown() {
    let _turn = turn();
    let mut fixture = started("refuse_after = 2");
    let login = fixture.login("acme");
    let right = login.password.clone();
    for _ in 0..2 {
        with(&login, "guess", ELSEWHERE).code(255);
    }
    // Now the right one doesn't help either.
    let refused = with(&login, &right, ELSEWHERE).code(255);
    assert!(!refused.stderr.contains("Permission denied"), "{refused}");
    let told = status(&fixture);
    assert_eq!(
        (&told["throttle"]["refused"], &told["throttle"]["worst"][0]["address"]),
        (&1.into(), &"127.0.0.2".into())
    );
    let shown = fixture.recgate(&["status"]).success().stdout;
    assert!(
        shown.contains("1 address is refused for failed logins") && shown.contains("127.0.0.2: refused for "),
        "{shown}"
    );
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.wait_for_log(&["an address is refused for its failed logins", "127.0.0.2"]);
    gateway.wait_for_log(&["a connection is turned away", "127.0.0.2"]);
    // The tenant is not locked: the same user logs in from another address, which is spared from then on.
    with(&login, &right, &[]).success();
    for _ in 0..3 {
        with(&login, "guess", &[]).code(255);
    }
    with(&login, &right, &[]).success();
    assert_eq!(status(&fixture)["throttle"]["spared"], 1);
    // What is remembered is forgotten with the process.
    fixture.restart();
    with(&fixture.login("acme"), &right, ELSEWHERE).success();
}

#[test]
fn a_reload_takes_limits_and_throttle() {
    let _turn = turn();
    let fixture = started("");
    let login = fixture.login("acme");
    let mut session = login.raw();
    session.list("/").unwrap();
    configure(&fixture, "refuse_after = 2", "max_connections = 20\nmax_connections_per_tenant = 1");
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.signal(Signal::HUP);
    wait_for("the reload", Duration::from_secs(60), || {
        let sessions = &status(&fixture)["sessions"];
        (sessions["max_connections"] == 20 && sessions["max_connections_per_tenant"] == 1).then_some(())
    });
    assert_eq!(status(&fixture)["tenants"][0]["sessions"], 1);
    let refused = login.sftp("ls\n").code(255);
    assert!(refused.stderr.contains("this tenant has too many connections at this time"), "{refused}");
    fixture.login("globex").sftp("ls\n").success();
    session.list("/").unwrap();
    drop(session);
    wait_for("room for a session", Duration::from_secs(60), || {
        login.sftp("ls\n").status.success().then_some(())
    });
    for _ in 0..2 {
        with(&login, "guess", ELSEWHERE).code(255);
    }
    assert_eq!(status(&fixture)["throttle"]["refused"], 1);
}

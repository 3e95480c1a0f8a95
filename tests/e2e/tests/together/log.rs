//! The log as other programs read it.

use recgate_e2e::{Fixture, password};
use serde_json::Value;

/// The lines of the log, each of which must be JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| {
            let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "message"] {
                assert!(parsed[field].is_string(), "no {field}: {line}");
            }
            parsed
        })
        .collect()
}

#[test]
fn json_tells_sessions_transfers_and_refusals_and_no_secret() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    // At its most talkative: a secret must not be in it at any level.
    let config = fixture.config().replacen("[log]\n", "[log]\nformat = \"json\"\n", 1).replacen(
        "info,recgate=debug",
        "trace",
        1,
    );
    assert!(config.contains("format = \"json\"") && config.contains("filter = \"trace\""));
    fixture.write_config(&config);
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);

    let call = &calls["acme"][1];
    let copy = fixture.path().join("copy.wav");
    let mut login = fixture.login("acme/manager");
    login.sftp(&format!("get /{} {}\n-rm /{}\n", call.path(), copy.display(), call.path())).success();
    login.password = "tr0ub4dor&3".into();
    let refused = login.sftp("ls\n");
    assert!(!refused.status.success(), "{refused}");
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.wait_for_log(&["session closed", "acme/manager"]);
    gateway.wait_for_log(&["login failed"]);
    // A wrong file is told about too, and a reload passes all hashes.
    fixture.write_config(&config.replacen("zone = \"Asia/Kolkata\"", "zone = \"Asia/Nowhere\"", 1));
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait_for_log(&["Asia/Nowhere"]);

    let log = gateway.log();
    let lines = lines(&log);
    let one = |message: &str, is_it: &dyn Fn(&Value) -> bool| -> Value {
        let mut found = lines.iter().filter(|line| line["message"] == message && is_it(line));
        let first = found.next().unwrap_or_else(|| panic!("no line {message:?} that fits: {log}"));
        assert_eq!(found.next(), None, "a second line {message:?}");
        first.clone()
    };
    let managers = |line: &Value| line["login"] == "acme/manager";
    let opened = one("session opened", &managers);
    assert_eq!(opened["with"], "password", "{opened}");
    assert!(opened["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{opened}");
    let session = &opened["session"];
    assert!(session.is_u64(), "{opened}");
    let in_session = |line: &Value| line["session"] == *session;

    let path = format!("/{}", call.path());
    let transfer = one("transfer", &in_session);
    assert_eq!(transfer["path"], path.as_str(), "{transfer}");
    assert_eq!(transfer["bytes"], call.bytes.len(), "{transfer}");
    assert_eq!(transfer["complete"], true, "{transfer}");
    assert_eq!(transfer["login"], "acme/manager", "{transfer}");

    let refusal = one("refused", &|line| in_session(line) && line["path"] == path.as_str());
    assert_eq!(refusal["level"], "INFO", "{refusal}");
    assert!(!refusal["reason"].as_str().unwrap().is_empty(), "{refusal}");

    let closed = one("session closed", &in_session);
    assert_eq!(closed["bytes"], call.bytes.len(), "{closed}");
    let failed = one("login failed", &|_| true);
    assert_eq!(failed["level"], "WARN", "{failed}");

    for secret in [&password("acme"), &password("globex"), "tr0ub4dor", "$argon2"] {
        assert!(!log.contains(secret), "the log holds {secret:?}");
    }
    for line in fixture.config().lines().filter(|line| line.contains("$argon2")) {
        let hash = line.rsplit('$').next().unwrap().trim_end_matches('"');
        assert!(hash.len() > 20 && !log.contains(hash), "the log holds a hash");
    }
    // The ready file and the log are all that a gateway says.
    assert_eq!(fixture.gateway.as_ref().unwrap().stdout(), "");
}

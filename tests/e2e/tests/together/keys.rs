//! Logins with a key, and with what isn't one's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use recgate_e2e::{Finished, Fixture, Login, files_below, password, password_hash, run, wait_for};
use rustix::process::Signal;

/// A new pair of keys without a passphrase: where the private one lies.
fn make_key(folder: &Path, kind: &[&str]) -> PathBuf {
    let path = folder.join(format!("key-{}-{}", kind.join("-"), fs::read_dir(folder).unwrap().count()));
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "archive@example.com", "-t"]).args(kind).arg("-f").arg(&path);
    run(&mut command, b"", Duration::from_secs(60)).success();
    path
}

fn public(key: &Path) -> String {
    fs::read_to_string(format!("{}.pub", key.display())).unwrap().trim().to_owned()
}

/// `SHA256:…`, as ssh-keygen tells it.
fn fingerprint(key: &Path) -> String {
    let printed = run(Command::new("ssh-keygen").arg("-lf").arg(key), b"", Duration::from_secs(60)).success();
    printed.stdout.split(' ').nth(1).unwrap().to_owned()
}

/// `sftp` as somebody who has this key and knows no password.
fn with_key(login: &Login, key: &Path, batch: &str) -> Finished {
    let identity = format!("IdentityFile={}", key.display());
    // The first of two settings counts: the login's own options ask for a password.
    let options = [
        "-o",
        "PubkeyAuthentication=yes",
        "-o",
        "PasswordAuthentication=no",
        "-o",
        "KbdInteractiveAuthentication=no",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        &identity,
    ];
    login.sftp_with(&options, batch.as_bytes())
}

/// Adds `acme/archive`, who has these keys and a password of their own.
fn add_archive(fixture: &Fixture, keys: &[&Path], own_password: &str) {
    let keys: Vec<String> = keys.iter().map(|key| public(key)).collect();
    let user = format!(
        "[[tenant.user]]\nid = 3\nname = \"archive\"\nrole = \"downloader\"\nauthorized_keys = {keys:?}\n\
         password_hash = \"{}\"\n\n[[tenant.source]]",
        password_hash(own_password)
    );
    // acme is the first tenant.
    fixture.write_config(&fixture.config().replacen("[[tenant.source]]", &user, 1));
}

#[track_caller]
fn assert_refused(finished: &Finished) {
    assert!(!finished.status.success(), "{finished}");
    assert!(finished.stderr.contains("Permission denied"), "not refused, but failed: {finished}");
}

#[test]
fn a_key_of_either_kind_mirrors_and_a_wrong_one_is_refused() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    let keys = fixture.new_folder("keys");
    let ed25519 = make_key(&keys, &["ed25519"]);
    let rsa = make_key(&keys, &["rsa", "-b", "2048"]);
    let wrong = [make_key(&keys, &["ed25519"]), make_key(&keys, &["rsa", "-b", "2048"])];
    add_archive(&fixture, &[&ed25519, &rsa], "hunter2 of archive");
    fixture.recgate(&["check"]).success();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let archive = fixture.login("acme/archive");
    for key in [&ed25519, &rsa] {
        let mirror = fixture.new_folder(&format!("mirror-{}", key.file_name().unwrap().display()));
        with_key(&archive, key, &format!("get -r /* {}\n", mirror.display())).success();
        let files = files_below(&mirror);
        let mut found: Vec<&Vec<u8>> =
            files.iter().filter(|(path, _)| path.ends_with(".wav")).map(|(_, bytes)| bytes).collect();
        let mut expected: Vec<&Vec<u8>> = calls["acme"].iter().map(|call| &call.bytes).collect();
        found.sort();
        expected.sort();
        assert!(found == expected, "{}: the mirror differs", key.display());
        // Which of the keys it was is told.
        fixture.gateway.as_ref().unwrap().wait_for_log(&[
            "session opened",
            "acme/archive",
            &fingerprint(key),
        ]);
    }
    for key in &wrong {
        assert_refused(&with_key(&archive, key, "ls\n"));
    }
    // The right key of the wrong user, of the tenant or of another.
    for user in
        ["acme", "acme/manager", "globex", "globex/manager", "globex/archive", "archive", "ACME/archive"]
    {
        assert_refused(&with_key(&fixture.login(user), &ed25519, "ls\n"));
    }
}

#[test]
fn a_password_opens_its_own_login_only() {
    const ARCHIVE: &str = "hunter2 of archive";
    let mut fixture = Fixture::new();
    add_archive(&fixture, &[&make_key(fixture.path(), &["ed25519"])], ARCHIVE);
    fixture.start();
    let (acme, globex) = (password("acme"), password("globex"));
    let with = |user: &str, password: &str| {
        let mut login = fixture.login(user);
        login.password = password.to_owned();
        login.sftp("ls\n")
    };
    for (user, right, wrong) in [
        ("acme", acme.as_str(), [globex.as_str(), ARCHIVE, ""]),
        ("acme/archive", ARCHIVE, [&acme, &globex, ""]),
        ("globex", &globex, [&acme, ARCHIVE, ""]),
    ] {
        for password in wrong {
            assert_refused(&with(user, password));
        }
        with(user, right).success();
    }
    assert_refused(&with("nobody", &acme));
    assert_refused(&with("acme/nobody", &acme));
}

/// Signs a key as `ssh-keygen -s` does; the certificate lies beside the key.
fn certify(ca: &Path, key: &Path, more: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-I", "archive's laptop", "-s"]).arg(ca).args(more);
    run(command.arg(format!("{}.pub", key.display())), b"", Duration::from_secs(60)).success();
}

#[test]
fn a_certificate_of_the_tenants_authority_logs_in() {
    let mut fixture = Fixture::new();
    let keys = fixture.new_folder("keys");
    let (ca, stranger) = (make_key(&keys, &["ed25519"]), make_key(&keys, &["ed25519"]));
    let text = fixture.config();
    let zone = "zone = \"America/Los_Angeles\"\n";
    assert!(text.contains(zone));
    let authority = format!("{zone}user_ca_keys = [{:?}]\n", public(&ca));
    fixture.write_config(&text.replacen(zone, &authority, 1));
    fixture.recgate(&["check"]).success();
    fixture.start();
    for kind in [&["ed25519"][..], &["rsa", "-b", "2048"], &["ecdsa", "-b", "384"]] {
        let key = make_key(&keys, kind);
        certify(&ca, &key, &["-n", "acme,acme/manager"]);
        // The certificate is found beside the key.
        for user in ["acme", "acme/manager"] {
            with_key(&fixture.login(user), &key, "ls\n").success();
            fixture.gateway.as_ref().unwrap().wait_for_log(&["session opened", "archive's laptop", user]);
        }
        // Another tenant doesn't know the authority; the key alone is nobody's.
        assert_refused(&with_key(&fixture.login("globex"), &key, "ls\n"));
        fs::remove_file(format!("{}-cert.pub", key.display())).unwrap();
        assert_refused(&with_key(&fixture.login("acme"), &key, "ls\n"));
    }
    for (by, more, why) in [
        (&stranger, &["-n", "acme"][..], "user_ca_keys"),
        (&ca, &["-n", "acme/manager"], "principals"),
        (&ca, &[], "principals"),
        (&ca, &["-n", "acme", "-O", "source-address=10.0.0.0/8"], "10.0.0.0/8"),
        (&ca, &["-n", "acme", "-O", "force-command=/bin/sh"], "force-command"),
    ] {
        let key = make_key(&keys, &["ed25519"]);
        certify(by, &key, more);
        assert_refused(&with_key(&fixture.login("acme"), &key, "ls\n"));
        fixture.gateway.as_ref().unwrap().wait_for_log(&["login failed", "certificate", why]);
    }
    let expired = make_key(&keys, &["ed25519"]);
    certify(&ca, &expired, &["-n", "acme", "-V", "20200101:20200102"]);
    assert_refused(&with_key(&fixture.login("acme"), &expired, "ls\n"));
}

#[test]
fn key_and_password_together_where_both_are_required() {
    const ARCHIVE: &str = "hunter2 of archive";
    let mut fixture = Fixture::new();
    let (own, other) = (make_key(fixture.path(), &["ed25519"]), make_key(fixture.path(), &["ed25519"]));
    add_archive(&fixture, &[&own], ARCHIVE);
    let config = fs::read_to_string(fixture.config_path()).unwrap();
    let required = "name = \"archive\"\nrequire = [\"publickey\", \"password\"]";
    fixture.write_config(&config.replacen("name = \"archive\"", required, 1));
    fixture.start();
    let with = |key: &Path, password: &str| {
        let mut login = fixture.login("acme/archive");
        login.password = password.to_owned();
        let identity = format!("IdentityFile={}", key.display());
        let options = ["-o", "PubkeyAuthentication=yes", "-o", "IdentitiesOnly=yes", "-o", &identity];
        login.sftp_with(&options, b"ls\n")
    };
    with(&own, ARCHIVE).success();
    fixture.gateway.as_ref().unwrap().wait_for_log(&["session opened", "acme/archive", " and password"]);
    assert_refused(&with(&own, "wrong"));
    assert_refused(&with(&other, ARCHIVE));
    let mut alone = fixture.login("acme/archive");
    alone.password = ARCHIVE.to_owned();
    assert_refused(&alone.sftp("ls\n"));
    assert_refused(&with_key(&alone, &own, "ls\n"));
}

#[test]
fn who_may_log_in_from_elsewhere_only_may_not_from_here() {
    let mut fixture = Fixture::new();
    let text = fixture.config();
    let user = "id = 2\nname = \"manager\"\n";
    assert!(text.contains(user));
    let with = |networks: &str| text.replacen(user, &format!("{user}allowed_networks = [{networks}]\n"), 1);
    fixture.write_config(&with("\"192.0.2.0/24\""));
    fixture.start();
    let manager = fixture.login("acme/manager");
    assert_refused(&manager.sftp("ls\n"));
    fixture.gateway.as_ref().unwrap().wait_for_log(&["login failed", "acme/manager", "allowed_networks"]);
    fixture.login("acme").sftp("ls\n").success();
    fixture.write_config(&with("\"192.0.2.0/24\", \"127.0.0.1\""));
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.signal(Signal::HUP);
    wait_for("a login from an address that is allowed now", Duration::from_secs(60), || {
        manager.sftp("ls\n").status.success().then_some(())
    });
}

#[test]
fn a_client_that_only_answers_questions_logs_in() {
    let mut fixture = Fixture::new();
    fixture.start();
    let questions = ["-o", "PreferredAuthentications=keyboard-interactive"];
    let login = fixture.login("acme");
    login.sftp_with(&questions, b"ls\n").success();
    let mut wrong = login;
    wrong.password = "wrong".to_owned();
    assert_refused(&wrong.sftp_with(&questions, b"ls\n"));
}

#[test]
fn old_algorithms_are_for_those_who_switch_them_on() {
    let mut fixture = Fixture::new();
    fixture.start();
    let old: [&[&str]; 4] = [
        &["-o", "KexAlgorithms=diffie-hellman-group14-sha1"],
        &["-o", "Ciphers=aes256-cbc"],
        &["-o", "Ciphers=aes128-ctr", "-o", "MACs=hmac-sha1"],
        &["-o", "HostKeyAlgorithms=ssh-rsa"],
    ];
    let with = |fixture: &Fixture, options: &[&str]| {
        // ssh tells at this level what it found nothing in common with.
        let options = [&["-o", "LogLevel=INFO", "-o", "UserKnownHostsFile=/dev/null"], options].concat();
        fixture.login("acme").sftp_with(&options, b"ls\n")
    };
    for options in old {
        let refused = with(&fixture, options);
        assert!(refused.stderr.contains("no matching"), "{options:?}: {refused}");
    }
    fixture.gateway.as_ref().unwrap().wait_for_log(&["old client", "legacy_algorithms = true"]);
    drop(fixture.gateway.take());
    let text = fixture.config().replace("[ssh]\n", "[ssh]\nlegacy_algorithms = true\n");
    fixture.write_config(&text);
    fixture.start();
    for options in old {
        with(&fixture, options).success();
    }
}

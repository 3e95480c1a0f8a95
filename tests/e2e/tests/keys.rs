//! Logins with a key, and with what isn't one's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use recgate_e2e::{Finished, Fixture, Login, files_below, password, password_hash, run};

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

//! What is refused, and what the client is told.

use std::{fs, process::Command, time::Duration};

use recgate_e2e::{Fixture, Login, run};

#[test]
fn every_change_is_refused_with_the_reason() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let before = fixture.login("acme").raw().tree();
    let file = format!("/{}", calls["acme"][0].path());
    let mine = fixture.path().join("mine.wav");
    fs::write(&mine, "mine").unwrap();
    let mine = mine.display();
    for user in ["acme", "acme/manager"] {
        let login = fixture.login(user);
        for command in [
            format!("put {mine} /mine.wav"),
            format!("put {mine} /S20160606/mine.wav"),
            format!("put {mine} {file}"),
            "mkdir /new".into(),
            "mkdir /S20160606/new".into(),
            format!("rename {file} /S20160606/other.wav"),
            "rename /S20160606 /S20160608".into(),
            format!("chmod 600 {file}"),
            format!("ln {file} /other.wav"),
            format!("symlink {file} /other.wav"),
        ] {
            let refused = login.sftp(&command).code(1);
            assert!(refused.stderr.contains("read-only"), "{user}: {command}: {refused}");
        }
        // Deleting is refused too, whatever the reason is called.
        for command in [format!("rm {file}"), "rm /Index/I20160606.csv".into(), "rmdir /S20160606".into()] {
            let refused = login.sftp(&command).code(1);
            assert!(!refused.stderr.is_empty(), "{user}: {command}: {refused}");
        }
        let refused = login.lftp(&format!("put {mine} -o /mine.wav"));
        assert!(!refused.status.success() && refused.text().contains("read-only"), "{refused}");
    }
    assert_eq!(fixture.login("acme").raw().tree(), before);
}

#[test]
fn opening_for_writing_is_refused_whatever_the_flags() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let mut raw = fixture.login("acme").raw();
    let file = format!("/{}", calls["acme"][0].path());
    // SSH_FXF: 1 read, 2 write, 4 append, 8 create, 16 truncate, 32 exclusive.
    for flags in 2..64 {
        if flags & (2 | 4 | 8 | 16) != 0 {
            for path in [file.as_str(), "/new.wav", "/S20160606/new.wav"] {
                let refused = raw.open_with(path.as_bytes(), flags).expect_err(path);
                assert!(refused.message.contains("read-only"), "{path} {flags}: {refused:?}");
            }
        }
    }
    assert!(raw.file(&file).unwrap() == calls["acme"][0].bytes);
}

#[test]
fn who_may_not_log_in_learns_nothing() {
    let mut fixture = Fixture::new();
    fixture.start();
    let port = fixture.gateway.as_ref().unwrap().ready.port;
    fixture.login("acme").sftp("ls\n").success();
    fixture.login("acme/manager").sftp("ls\n").success();
    let mut said = Vec::new();
    for user in ["acme", "nobody", "acme/nobody", "acme/", "/manager", "globex/acme", "acme/manager/x", ""] {
        let login = Login::new(fixture.path(), port, user, "a wrong password 7391");
        let user = if user.is_empty() { " " } else { user };
        let refused = Login { user: user.into(), ..login }.sftp("ls\n").code(255);
        said.push(refused.stderr.replace(user, "USER").trim().to_owned());
    }
    assert!(said[0].contains("Permission denied"), "{said:?}");
    assert_eq!(said[0], said[1], "whether a user exists is not told");
    let log = fixture.gateway.as_ref().unwrap().log();
    assert!(!log.contains("7391"), "a password is in the log");
}

#[test]
fn the_host_key_is_the_one_of_the_ready_file_and_stays() {
    let mut fixture = Fixture::new();
    fixture.start();
    let told = fixture.gateway.as_ref().unwrap().ready.host_key_sha256.clone();
    let login = fixture.login("acme");
    login.sftp("ls\n").success();
    let mut list = Command::new("ssh-keygen");
    list.arg("-l").arg("-f").arg(login.home.join("known_hosts"));
    let listed = run(&mut list, b"", Duration::from_secs(20)).success();
    assert!(listed.stdout.contains(&told), "{told}: {listed}");
    fixture.restart();
    assert_eq!(fixture.gateway.as_ref().unwrap().ready.host_key_sha256, told);
}

//! rclone's sftp backend.

use std::fs;

use chrono::DateTime;
use recgate_e2e::{Served, assert_mirrors, assert_same_times, untouched};

#[test]
fn copies_checks_and_copies_nothing_the_second_time() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        let to = mirror.to_str().unwrap();
        login.rclone(&["copy", "gateway:/", to]).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        let before = untouched(&mirror);
        let second = login.rclone(&["copy", "-v", "gateway:/", to]).success();
        assert!(second.stderr.contains("There was nothing to transfer"), "{second}");
        assert_eq!(untouched(&mirror), before);
        // By size alone, as there is no shell to hash with; then by every byte.
        let checked = login.rclone(&["check", "gateway:/", to]).success();
        assert!(checked.stderr.contains("0 differences found"), "{checked}");
        let checked = login.rclone(&["check", "--download", "gateway:/", to]).success();
        assert!(checked.stderr.contains(&format!("{} matching files", originals.len())), "{checked}");
    }
}

#[test]
fn lists_exact_sizes_and_times() {
    let served = Served::new();
    let login = served.fixture.login("globex");
    let listed = login.rclone(&["lsl", "gateway:/"]).success();
    let originals = served.originals_of(&login);
    assert_eq!(listed.stdout.lines().count(), originals.len(), "{listed}");
    for (path, original) in originals {
        let line = listed.stdout.lines().find(|line| line.ends_with(&format!(" {path}")));
        let fields: Vec<&str> =
            line.unwrap_or_else(|| panic!("{path}: {listed}")).split_whitespace().collect();
        assert_eq!(fields[0], original.bytes.len().to_string(), "{path}");
        let modified = DateTime::from_timestamp(i64::from(original.modified), 0).unwrap();
        assert_eq!(format!("{} {}", fields[1], fields[2]), modified.format("%F %T.000000000").to_string());
    }
}

#[test]
fn reads_parts_of_a_file() {
    let served = Served::new();
    let login = served.by_key("acme/manager");
    let originals = served.originals_of(&login);
    let index = &originals["Index/I20160606.csv"].bytes;
    let whole = login.rclone(&["cat", "gateway:/Index/I20160606.csv"]).success();
    assert_eq!(whole.stdout.as_bytes(), index);
    for (offset, count) in [(0, 10), (10, 20), (100, 1), (index.len() - 5, 100)] {
        let (offset, end) = (offset, (offset + count).min(index.len()));
        let options = [format!("--offset={offset}"), format!("--count={count}")];
        let part = login.rclone(&["cat", &options[0], &options[1], "gateway:/Index/I20160606.csv"]).success();
        assert_eq!(part.stdout.as_bytes(), &index[offset..end], "{options:?}");
    }
    // Several streams of one file.
    let (path, large) = served.large();
    let copy = served.fixture.path().join("copy.wav");
    let streams =
        ["--multi-thread-streams=4", "--multi-thread-cutoff=256k", "--multi-thread-chunk-size=512k"];
    let from = format!("gateway:/{path}");
    login.rclone(&[&["copyto", &from, copy.to_str().unwrap()][..], &streams].concat()).success();
    assert!(fs::read(&copy).unwrap() == large.bytes);
}

#[test]
fn refusals_end_with_failure() {
    let served = Served::new();
    let login = served.fixture.login("acme/manager");
    let mine = served.fixture.path().join("mine.wav");
    fs::write(&mine, "mine").unwrap();
    let recording = format!("gateway:/{}", served.calls["acme"][0].path());
    // It shows the protocol's code, not the gateway's sentence.
    for (arguments, code, said) in [
        (vec!["copy", mine.to_str().unwrap(), "gateway:/S20160606"], 1, "permission denied"),
        (vec!["mkdir", "gateway:/new"], 1, "permission denied"),
        (vec!["deletefile", &recording], 1, "permission denied"),
        (vec!["copyto", "gateway:/nothing.wav", "/dev/null"], 3, "directory not found"),
        (vec!["lsl", "gateway:/nothing"], 3, "directory not found"),
    ] {
        let refused = login.rclone(&[&["--retries=1"], &arguments[..]].concat()).code(code);
        assert!(refused.stderr.contains(said), "{arguments:?}: {refused}");
    }
    let mut stranger = login;
    stranger.password = "a wrong password 7391".into();
    let refused = stranger.rclone(&["--retries=1", "lsl", "gateway:/"]).code(1);
    assert!(refused.stderr.contains("unable to authenticate"), "{refused}");
}

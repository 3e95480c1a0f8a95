//! curl, which speaks SFTP with libssh2.

use std::{fs, path::Path};

use recgate_e2e::{Originals, Served, assert_mirrors, assert_same_times, untouched};

/// Arguments that download these files of the tree to a folder, with one connection for all, but for the first path,
/// which stands alone at the end.
fn downloads(paths: &[&String], port: u16, mirror: &Path) -> Vec<String> {
    let output = |path: &str| ["--output".to_owned(), mirror.join(path).display().to_string()];
    let mut arguments: Vec<String> = ["--create-dirs", "--remote-time"].map(str::to_owned).to_vec();
    for path in &paths[1..] {
        arguments.extend(output(path));
        arguments.push(format!("sftp://127.0.0.1:{port}/{path}"));
    }
    arguments.extend(output(paths[0]));
    arguments
}

/// Folders and files below `/`, found by listings as curl shows them.
fn walk(login: &recgate_e2e::Login) -> Vec<String> {
    let names = |path: &str| -> Vec<String> {
        let listed = login.curl(&["--list-only"], path).success();
        listed.stdout.lines().filter(|name| !name.starts_with('.')).map(str::to_owned).collect()
    };
    let below = |folder: String| {
        let files = names(&format!("/{folder}/"));
        files.into_iter().map(move |name| format!("{folder}/{name}"))
    };
    let mut found: Vec<String> = names("/").into_iter().flat_map(below).collect();
    found.sort();
    found
}

#[test]
fn mirrors_what_its_listings_show() {
    let served = Served::new();
    for login in served.logins() {
        let originals: &Originals = served.originals_of(&login);
        let found = walk(&login);
        assert_eq!(found, originals.keys().cloned().collect::<Vec<_>>());
        let mirror = served.folder_for(&login);
        let paths: Vec<&String> = found.iter().collect();
        let arguments = downloads(&paths, login.port, &mirror);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        login.curl(&arguments, &format!("/{}", paths[0])).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        // The long form of a listing has exact sizes.
        let listed = login.curl(&[], "/S20160606/").success();
        for (path, original) in originals {
            let Some(name) = path.strip_prefix("S20160606/") else { continue };
            let line = listed.stdout.lines().find(|line| line.ends_with(name));
            let line = line.unwrap_or_else(|| panic!("{path}: {listed}"));
            let size = line.split_whitespace().nth(4);
            assert_eq!(size, Some(original.bytes.len().to_string().as_str()), "{line}");
        }
    }
}

#[test]
fn resumes_and_reads_ranges() {
    let served = Served::new();
    let login = served.by_key("acme");
    let (path, large) = served.large();
    let (remote, folder) = (format!("/{path}"), served.folder_for(&login));
    for kept in [1, 700_001, large.bytes.len() - 1, large.bytes.len()] {
        let partial = folder.join(format!("{kept}.wav"));
        // What was downloaded is not fetched again: a changed first byte stays.
        let mut begun = large.bytes[..kept].to_vec();
        begun[0] ^= 0xff;
        fs::write(&partial, &begun).unwrap();
        let before = untouched(&folder);
        login.curl(&["--continue-at", "-", "--output", partial.to_str().unwrap()], &remote).success();
        let mut resumed = fs::read(&partial).unwrap();
        resumed[0] ^= 0xff;
        assert!(resumed == large.bytes, "from {kept}");
        if kept == large.bytes.len() {
            assert_eq!(untouched(&folder), before, "what is complete is written again");
        }
    }
    let end = large.bytes.len();
    for (range, expected) in [
        ("0-0", &large.bytes[..1]),
        ("1000000-1234567", &large.bytes[1_000_000..=1_234_567]),
        ("-1000", &large.bytes[end - 1000..]),
        ("3000000-", &large.bytes[3_000_000..]),
    ] {
        let part = folder.join("part.wav");
        login.curl(&["--range", range, "--output", part.to_str().unwrap()], &remote).success();
        assert!(fs::read(&part).unwrap() == expected, "{range}");
    }
}

#[test]
fn refusals_have_codes_of_their_own() {
    let served = Served::new();
    let login = served.fixture.login("globex/manager");
    let mine = served.fixture.path().join("mine.wav");
    fs::write(&mine, "mine").unwrap();
    // It shows the protocol's code, not the gateway's sentence.
    let missing = login.curl(&[], "/S20160606/R201606069999990000.wav").code(78);
    assert!(missing.stderr.contains("No such file"), "{missing}");
    let refused = login.curl(&["--upload-file", mine.to_str().unwrap()], "/S20160606/mine.wav").code(9);
    assert!(refused.stderr.contains("Permission denied"), "{refused}");
    let recording = served.calls["globex"][0].path();
    for command in [format!("rm /{recording}"), "mkdir /new".into(), "rename /Index /Other".into()] {
        let refused = login.curl(&["--quote", &command], "/Index/").code(21);
        assert!(refused.stderr.contains("Permission denied"), "{command}: {refused}");
    }
    let mut stranger = login;
    stranger.password = "a wrong password 7391".into();
    let refused = stranger.curl(&[], "/").code(67);
    assert!(refused.stderr.contains("Authentication failure"), "{refused}");
}

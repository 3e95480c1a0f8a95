//! OpenSSH's `sftp`, and `scp` as it is since 9.0: over SFTP.

use std::{collections::BTreeSet, fs, path::Path};

use chrono::{DateTime, Datelike, Utc};
use recgate_e2e::{
    NO_DELETING, NO_FOLDERS, NO_WRITING, Originals, Served, assert_mirrors, assert_same_times, files_below,
    untouched,
};

/// The tree's files that a pattern of `FOLDER/START*END` names.
fn matching<'a>(originals: &'a Originals, start: &str, end: &str) -> BTreeSet<&'a str> {
    let paths = originals.keys().map(String::as_str);
    let found: BTreeSet<&str> = paths.filter(|path| path.starts_with(start) && path.ends_with(end)).collect();
    assert!(found.len() > 1, "{start}*{end} names {found:?}");
    found
}

/// Checks that a folder holds exactly these files of the tree, without their folders.
#[track_caller]
fn assert_holds(folder: &Path, paths: &BTreeSet<&str>, originals: &Originals) {
    let found = files_below(folder);
    let expected: BTreeSet<&str> = paths.iter().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    for path in paths {
        assert!(found[path.rsplit('/').next().unwrap()] == originals[*path].bytes, "{path} differs");
    }
}

#[test]
fn sftp_mirrors_as_it_is_and_with_large_requests() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        login.sftp(&format!("get -r -p /* {}\n", mirror.display())).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        // The most that one answer holds, and many requests at once.
        let mirror = served.fixture.new_folder(&format!("large-{}", login.user.replace('/', "-")));
        let batch = format!("get -r /* {}\n", mirror.display());
        login.sftp_with(&["-B", "261120", "-R", "512"], batch.as_bytes()).success();
        assert_mirrors(&mirror, originals);
    }
}

#[test]
fn sftp_meets_the_gateway_for_the_first_time() {
    let served = Served::new();
    let login = served.fixture.login("acme");
    let (path, large) = served.large();
    // With a file of known hosts that isn't ssh's own, the default of UpdateHostKeys is not to; the second is the
    // default where it is, and both at once ask for the keys of every kind.
    for (number, options) in [&[][..], &["-o", "UpdateHostKeys=yes"]].into_iter().enumerate() {
        let known = served.fixture.path().join(format!("known-hosts-{number}"));
        fs::write(&known, "").unwrap();
        // The second time the host isn't new any more.
        for again in [false, true] {
            let to = served.fixture.path().join(format!("{number}-{again}.wav"));
            let checked: &[&str] = if again { &["-o", "StrictHostKeyChecking=yes"] } else { &[] };
            let batch = format!("get /{path} {}\n", to.display());
            let ran = login.plain_sftp(&known, &[options, checked].concat(), &batch).success();
            assert!(fs::read(&to).unwrap() == large.bytes, "{options:?}");
            for wrong in ["error", "fail", "revoked", "changed"] {
                assert!(!ran.stderr.to_lowercase().contains(wrong), "{options:?}: {ran}");
            }
        }
        let known = fs::read_to_string(&known).unwrap();
        assert!(known.contains(" ssh-ed25519 "), "{known}");
    }
}

#[test]
fn sftp_finds_by_patterns_and_resumes_what_is_complete() {
    let served = Served::new();
    let login = served.by_key("acme");
    let originals = served.originals_of(&login);
    for (pattern, start, end) in [
        ("/S20160606/*.wav", "S20160606/", ".wav"),
        ("/S2016060?/I*_version2.csv", "S2016060", "_version2.csv"),
        ("/Index/I2016060[5-7].csv", "Index/I2016060", ".csv"),
        ("/*/R20160606*", "S20160606/R", ".wav"),
    ] {
        let folder = served.fixture.new_folder(&format!("of-{}", pattern.replace('/', "-")));
        login.sftp(&format!("get -p {pattern} {}\n", folder.display())).success();
        let paths = matching(originals, start, end);
        assert_holds(&folder, &paths, originals);
        // Nothing is left to be resumed, so nothing is written.
        let before = untouched(&folder);
        login.sftp(&format!("reget {pattern} {}\n", folder.display())).success();
        assert_eq!(untouched(&folder), before, "{pattern}");
    }
    let nothing = login.sftp("get /S20160606/*.mp3 /tmp\n").code(1);
    assert!(nothing.stderr.contains("not found"), "{nothing}");
    let nothing = login.sftp("get /S20160606/R201606069999990000.wav /tmp\n").code(1);
    assert!(nothing.stderr.contains("not found"), "{nothing}");
}

#[test]
fn sftp_lists_with_exact_sizes_and_times() {
    let served = Served::new();
    let login = served.fixture.login("globex");
    for (folder, long) in [("/S20160606", "ls -l"), ("/S20160606", "ls -ln"), ("/Index", "ls -l")] {
        let listed = login.sftp(&format!("cd {folder}\n{long}\n")).success();
        let mut files = 0;
        for (path, original) in served.originals_of(&login) {
            let Some(name) = path.strip_prefix(&format!("{}/", &folder[1..])) else { continue };
            let line = listed.stdout.lines().find(|line| line.ends_with(name));
            let line = line.unwrap_or_else(|| panic!("{long} {folder} lacks {name}: {listed}"));
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert!(fields[0].starts_with("-r--r-----"), "{line}");
            assert_eq!(fields[4], original.bytes.len().to_string(), "{line}");
            let modified = DateTime::<Utc>::from_timestamp(i64::from(original.modified), 0).unwrap();
            assert_eq!(fields[5], modified.format("%b").to_string(), "{line}");
            assert_eq!(fields[6], modified.day().to_string(), "{line}");
            // A file of the last half year shows its time of day in place of its year.
            let last = [modified.format("%Y").to_string(), modified.format("%H:%M").to_string()];
            assert!(last.iter().any(|last| last == fields[7]), "{line}: {last:?}");
            files += 1;
        }
        assert!(files > 1, "{folder}");
    }
}

#[test]
fn scp_copies_by_patterns_and_whole_trees() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        let to = mirror.to_str().unwrap();
        login.scp(&["-r", "-p", "127.0.0.1:/*", to]).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        let whole = served.fixture.new_folder(&format!("whole-{}", login.user.replace('/', "-")));
        login.scp(&["-r", "127.0.0.1:/", whole.to_str().unwrap()]).success();
        assert_mirrors(&whole, originals);
        if login.user.starts_with("acme") {
            let some = served.fixture.new_folder(&format!("some-{}", login.user.replace('/', "-")));
            login.scp(&["127.0.0.1:/S20160606/R*.wav", some.to_str().unwrap()]).success();
            assert_holds(&some, &matching(originals, "S20160606/R", ".wav"), originals);
        }
    }
}

/// `scp` of OpenSSH 9.2 cuts a file short where the answers to its reads were out of order, and ends with success:
/// it takes the end of the first stretch that came in order for the file's end.
#[test]
fn answers_to_the_reads_of_a_file_come_in_their_order() {
    let served = Served::new();
    let (path, large) = served.large();
    let mut raw = served.fixture.login("acme").raw();
    let length = 32 << 10;
    let reads: Vec<(u64, u32)> = (0..64).map(|number| (u64::from(number * length), length)).collect();
    for _ in 0..20 {
        let handle = raw.open(format!("/{path}").as_bytes()).unwrap();
        for (place, (read, bytes)) in raw.read_at_once(&handle, &reads).into_iter().enumerate() {
            assert_eq!(read, place, "an answer has overtaken another");
            let (begin, length) = (place * bytes.len(), bytes.len());
            assert!(length == 32 << 10 && bytes == large.bytes[begin..begin + length]);
        }
        raw.close(&handle);
    }
    let login = served.by_key("acme");
    for number in 0..10 {
        let copy = served.fixture.path().join(format!("copy-{number}.wav"));
        login.scp(&[&format!("127.0.0.1:/{path}"), copy.to_str().unwrap()]).success();
        let copied = fs::read(&copy).unwrap();
        assert!(copied == large.bytes, "{} bytes of {}", copied.len(), large.bytes.len());
    }
}

#[test]
fn scp_tells_what_is_missing_or_refused() {
    let served = Served::new();
    let login = served.fixture.login("acme/manager");
    let folder = served.folder_for(&login);
    let to = folder.to_str().unwrap();
    for missing in ["/S20160606/R201606069999990000.wav", "/S20160606/X*.wav", "/nothing"] {
        let failed = login.scp(&[&format!("127.0.0.1:{missing}"), to]).code(1);
        assert!(failed.stderr.contains("No such file or directory"), "{missing}: {failed}");
    }
    // One that is missing doesn't hide one that is there, nor the other way round.
    let failed = login.scp(&["127.0.0.1:/nothing", "127.0.0.1:/Index/I20160606.csv", to]).code(1);
    assert!(folder.join("I20160606.csv").exists(), "{failed}");
    let failed = login.scp(&["127.0.0.1:/Index", to]).code(1);
    assert!(failed.stderr.contains("not a regular file"), "{failed}");
    let mine = served.fixture.new_folder("mine");
    fs::write(mine.join("mine.wav"), "mine").unwrap();
    let file = mine.join("mine.wav");
    let refused = login.scp(&[file.to_str().unwrap(), "127.0.0.1:/S20160606/"]).code(1);
    assert!(refused.stderr.contains(NO_WRITING), "{refused}");
    let refused = login.scp(&["-r", mine.to_str().unwrap(), "127.0.0.1:/"]).code(1);
    assert!(refused.stderr.contains(NO_FOLDERS), "{refused}");
    // The protocol of scp before 9.0 is another.
    let refused = login.scp(&["-O", "127.0.0.1:/Index/I20160606.csv", to]);
    assert!(!refused.status.success() && refused.stderr.contains("SFTP only"), "{refused}");
}

#[test]
fn sftp_is_told_why_it_may_not() {
    let served = Served::new();
    let login = served.by_key("globex/manager");
    let recording = format!("/{}", served.calls["globex"][0].path());
    let mine = served.fixture.path().join("mine.wav");
    fs::write(&mine, "mine").unwrap();
    for (command, sentence) in [
        (format!("put {} /S20160606/mine.wav", mine.display()), NO_WRITING),
        ("mkdir /new".into(), NO_FOLDERS),
        (format!("rm {recording}"), NO_DELETING),
    ] {
        let refused = login.sftp(&command).code(1);
        assert!(refused.stderr.contains(sentence), "{command}: {refused}");
    }
}

//! lftp.

use std::fs;

use recgate_e2e::{
    NO_DELETING, NO_FOLDERS, NO_WRITING, Served, assert_mirrors, assert_same_times, untouched,
};

#[test]
fn mirrors_in_parallel_and_the_second_run_transfers_nothing() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        let command = format!("mirror --verbose=3 --parallel=4 / {}", mirror.display());
        let first = login.lftp(&command).success();
        assert!(first.text().contains("Transferring file"), "{first}");
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        let before = untouched(&mirror);
        let second = login.lftp(&command).success();
        assert!(!second.text().contains("Transferring file"), "{second}");
        assert_eq!(untouched(&mirror), before);
    }
}

#[test]
fn mirrors_one_at_a_time_and_continues_what_is_half_there() {
    let served = Served::new();
    let login = served.by_key("acme");
    let originals = served.originals_of(&login);
    let mirror = served.folder_for(&login);
    let (path, large) = served.large();
    // Half of it is there, and isn't fetched again: a changed first byte stays.
    let mut begun = large.bytes[..large.bytes.len() / 2].to_vec();
    begun[0] ^= 0xff;
    let partial = mirror.join(path);
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, begun).unwrap();
    login.lftp(&format!("mirror --continue / {}", mirror.display())).success();
    let mut resumed = fs::read(&partial).unwrap();
    resumed[0] ^= 0xff;
    assert!(resumed == large.bytes, "{path} differs");
    fs::write(&partial, resumed).unwrap();
    assert_mirrors(&mirror, originals);
}

#[test]
fn gets_one_file_in_pieces() {
    let served = Served::new();
    let (path, large) = served.large();
    for login in [served.fixture.login("acme"), served.by_key("acme/manager")] {
        for pieces in [2, 5] {
            let copy = served.fixture.path().join(format!("{}-{pieces}.wav", login.user.replace('/', "-")));
            let smallest = "set pget:min-chunk-size 64k";
            login.lftp(&format!("{smallest}\npget -n {pieces} /{path} -o {}", copy.display())).success();
            assert!(fs::read(&copy).unwrap() == large.bytes, "{} in {pieces} pieces", login.user);
        }
    }
}

#[test]
fn lists_with_exact_sizes_and_tells_refusals() {
    let served = Served::new();
    let login = served.fixture.login("globex/manager");
    let listed = login.lftp("cls --size --block-size=1 /S20160606/ /Index/").success();
    for (path, original) in served.originals_of(&login) {
        if path.starts_with("S20160606") || path.starts_with("Index") {
            let size = original.bytes.len().to_string();
            let line = listed.stdout.lines().find(|line| line.ends_with(path));
            let line = line.unwrap_or_else(|| panic!("{path}: {listed}"));
            assert_eq!(line.split_whitespace().next(), Some(size.as_str()), "{line}");
        }
    }
    let found = login.lftp("find /").success();
    for path in served.originals_of(&login).keys() {
        assert!(found.stdout.lines().any(|line| line == format!("/{path}")), "{path}: {found}");
    }
    let mine = served.fixture.path().join("mine.wav");
    fs::write(&mine, "mine").unwrap();
    let recording = served.calls["globex"][0].path();
    for (command, sentence) in [
        (format!("put {} -o /S20160606/mine.wav", mine.display()), NO_WRITING),
        ("mkdir /new".into(), NO_FOLDERS),
        (format!("rm /{recording}"), NO_DELETING),
        ("get /nothing.wav".into(), "no such file or folder"),
    ] {
        let refused = login.lftp(&command).code(1);
        assert!(refused.text().contains(sentence), "{command}: {refused}");
    }
}

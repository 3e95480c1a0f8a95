//! Whole trees, downloaded with the clients that people use.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, time::UNIX_EPOCH};

use recgate_e2e::{Call, Fixture, files_below, read_index};

/// What has to be there of these calls: folder and second, with the bytes of each recording that began then.
fn expected(calls: &[Call]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for call in calls {
        let second = format!("{}/{}", call.folder(), call.start.format("R%Y%m%d%H%M%S"));
        expected.entry(second).or_default().push(call.bytes.clone());
    }
    expected.values_mut().for_each(|all| all.sort());
    expected
}

/// Checks a mirror against what the PBX has: each recording byte for byte, under a name of its second; nothing besides
/// recordings and indexes.
#[track_caller]
fn assert_mirrors(mirror: &Path, calls: &[Call]) {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, bytes) in files_below(mirror) {
        if path.ends_with(".csv") {
            assert!(!read_index(&bytes).1.is_empty(), "{path} has no rows");
            continue;
        }
        let stem = path.strip_suffix(".wav").unwrap_or_else(|| panic!("{path} is neither WAV nor index"));
        let (second, sequence) = stem.split_at(stem.len() - 4);
        assert!(sequence.bytes().all(|byte| byte.is_ascii_digit()), "{path}");
        found.entry(second.to_owned()).or_default().push(bytes);
    }
    found.values_mut().for_each(|all| all.sort());
    let expected = expected(calls);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    // Not assert_eq: megabytes would be printed.
    assert!(found == expected, "a recording differs from what the PBX has");
}

#[test]
fn sftp_mirrors_each_tenant_byte_for_byte_with_its_times() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    for tenant in ["acme", "globex"] {
        fixture.wait_published(tenant, &calls[tenant]);
        let mirror = fixture.new_folder(&format!("mirror-{tenant}"));
        fixture.login(tenant).sftp(&format!("get -r -p /* {}\n", mirror.display())).success();
        assert_mirrors(&mirror, &calls[tenant]);
        for call in calls[tenant].iter().filter(|call| call.start.timestamp() % 60 == 0) {
            let modified = fs::metadata(mirror.join(call.path())).unwrap().modified().unwrap();
            let seconds = modified.duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(seconds, u64::try_from(call.stop.timestamp()).unwrap(), "{}", call.path());
        }
    }
}

#[test]
fn the_second_lftp_mirror_transfers_nothing() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let mirror = fixture.new_folder("mirror");
    let login = fixture.login("acme");
    let command = format!("mirror --verbose=3 --parallel=4 / {}", mirror.display());
    let first = login.lftp(&command).success();
    assert!(first.text().contains("Transferring file"), "{first}");
    assert_mirrors(&mirror, &calls["acme"]);
    let state = |path: &str| {
        let metadata = fs::metadata(mirror.join(path)).unwrap();
        (
            metadata.ino(),
            metadata.len(),
            metadata.modified().unwrap(),
            (metadata.ctime(), metadata.ctime_nsec()),
        )
    };
    let before: BTreeMap<_, _> =
        files_below(&mirror).into_keys().map(|path| (path.clone(), state(&path))).collect();
    // The same after a restart: what was frozen stays.
    fixture.restart();
    let second = fixture.login("acme").lftp(&command).success();
    assert!(!second.text().contains("Transferring file"), "{second}");
    let after: BTreeMap<_, _> =
        files_below(&mirror).into_keys().map(|path| (path.clone(), state(&path))).collect();
    assert_eq!(before, after);
}

#[test]
fn a_download_that_was_cut_is_resumed() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let large = calls["acme"].iter().max_by_key(|call| call.bytes.len()).unwrap();
    assert!(large.bytes.len() > 1_000_000);
    let login = fixture.login("acme");
    for kept in [1, 32 << 10, 700_001, large.bytes.len() - 1, large.bytes.len()] {
        let partial = fixture.path().join(format!("sftp-{kept}.wav"));
        // What was downloaded is not fetched again: a changed first byte stays.
        let mut begun = large.bytes[..kept].to_vec();
        begun[0] ^= 0xff;
        fs::write(&partial, &begun).unwrap();
        login.sftp(&format!("reget /{} {}\n", large.path(), partial.display())).success();
        let mut resumed = fs::read(&partial).unwrap();
        resumed[0] ^= 0xff;
        assert!(resumed == large.bytes, "sftp from {kept}");

        let partial = fixture.path().join(format!("lftp-{kept}.wav"));
        fs::write(&partial, &begun).unwrap();
        login.lftp(&format!("get -c /{} -o {}", large.path(), partial.display())).success();
        let mut resumed = fs::read(&partial).unwrap();
        resumed[0] ^= 0xff;
        assert!(resumed == large.bytes, "lftp from {kept}");
    }
}

#[test]
fn a_slow_reader_gets_all_while_a_fast_one_is_served() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let small = &calls["acme"][3];
    let mut slow = fixture.login("acme").raw();
    let handle = slow.open(format!("/{}", calls["acme"][2].path()).as_bytes()).unwrap();
    let first = slow.read(&handle, 0, 1000).unwrap().unwrap();
    for _ in 0..5 {
        let mut fast = fixture.login("acme").raw();
        let bytes = fast.list(&format!("/{}", small.folder())).unwrap();
        assert!(!bytes.is_empty());
    }
    let rest = slow.read(&handle, 1000, 200_000).unwrap().unwrap();
    let both = [first, rest].concat();
    assert!(both[..] == calls["acme"][2].bytes[..both.len()]);
    assert_eq!(both.len(), 201_000, "a read is short only at the end");
}

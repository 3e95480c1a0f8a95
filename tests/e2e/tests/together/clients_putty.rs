//! PuTTY's `psftp` and `pscp`.

use std::{collections::BTreeMap, fs};

use recgate_e2e::{NO_DELETING, NO_FOLDERS, NO_WRITING, Served, assert_mirrors, assert_same_times};

#[test]
fn psftp_mirrors_and_lists() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        login.psftp(&format!("lcd {}\nmget -r /*\n", mirror.display())).success();
        assert_mirrors(&mirror, originals);
        for (command, folder) in [("ls /S20160606\n", "S20160606/"), ("ls /Index/*.csv\n", "Index/")] {
            let listed = login.psftp(command).success();
            for (path, original) in originals {
                let Some(name) = path.strip_prefix(folder) else { continue };
                let line = listed.stdout.lines().find(|line| line.trim().ends_with(name));
                let line = line.unwrap_or_else(|| panic!("{path}: {listed}"));
                let size = line.split_whitespace().nth(4);
                assert_eq!(size, Some(original.bytes.len().to_string().as_str()), "{line}");
            }
        }
    }
}

#[test]
fn psftp_resumes_and_finds_by_patterns() {
    let served = Served::new();
    let login = served.by_key("acme");
    let (path, large) = served.large();
    for kept in [1, 700_001, large.bytes.len() - 1, large.bytes.len()] {
        let partial = served.fixture.path().join(format!("psftp-{kept}.wav"));
        // What was downloaded is not fetched again: a changed first byte stays.
        let mut begun = large.bytes[..kept].to_vec();
        begun[0] ^= 0xff;
        fs::write(&partial, &begun).unwrap();
        login.psftp(&format!("reget /{path} {}\n", partial.display())).success();
        let mut resumed = fs::read(&partial).unwrap();
        resumed[0] ^= 0xff;
        assert!(resumed == large.bytes, "from {kept}");
    }
    let folder = served.fixture.new_folder("some");
    login.psftp(&format!("lcd {}\ncd S20160606\nmget R*0001.wav I*\n", folder.display())).success();
    let originals = served.originals_of(&login);
    let some: BTreeMap<_, _> = originals
        .iter()
        .filter_map(|(path, original)| Some((path.strip_prefix("S20160606/")?.to_owned(), original.clone())))
        .filter(|(name, _)| name.starts_with('I') || name.ends_with("0001.wav"))
        .collect();
    assert_eq!(some.len(), 3, "{:?}", some.keys());
    assert_mirrors(&folder, &some);
}

#[test]
fn pscp_copies_by_patterns_and_whole_trees() {
    let served = Served::new();
    for login in served.logins() {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        login.pscp(&["-q", "-r", "-p", "127.0.0.1:/*", mirror.to_str().unwrap()]).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        let listed = login.pscp(&["-ls", "127.0.0.1:/S20160606"]).success();
        assert!(listed.stdout.contains("I20160606_version2.csv"), "{listed}");
    }
}

#[test]
fn refusals_say_why_and_end_with_failure() {
    let served = Served::new();
    let login = served.fixture.login("acme/manager");
    let folder = served.folder_for(&login);
    let (to, mine) = (folder.to_str().unwrap(), served.fixture.path().join("mine.wav"));
    fs::write(&mine, "mine").unwrap();
    let recording = served.calls["acme"][0].path();
    for (batch, sentence) in [
        (format!("put {} /S20160606/mine.wav", mine.display()), NO_WRITING),
        ("mkdir /new".into(), NO_FOLDERS),
        (format!("rm /{recording}"), NO_DELETING),
        (format!("mv /{recording} /S20160606/other.wav"), "renaming is refused"),
        ("get /nothing.wav".into(), "no such file or directory"),
        ("cd /nothing".into(), "no such file or directory"),
    ] {
        let refused = login.psftp(&format!("{batch}\n"));
        assert!(!refused.status.success(), "{batch}: {refused}");
        assert!(refused.text().contains(sentence), "{batch}: {refused}");
    }
    let refused = login.pscp(&[mine.to_str().unwrap(), "127.0.0.1:/S20160606/"]).code(1);
    assert!(refused.text().contains(NO_WRITING), "{refused}");
    let missing = login.pscp(&["127.0.0.1:/nothing.wav", to]).code(1);
    assert!(missing.stderr.contains("no such file or directory"), "{missing}");
    // The protocol of scp before SFTP is another.
    let refused = login.pscp(&["-scp", "127.0.0.1:/Index/I20160606.csv", to]);
    assert!(!refused.status.success() && refused.text().contains("SFTP only"), "{refused}");
}

//! Python's SSH libraries: paramiko and asyncssh.

use recgate_e2e::{
    Finished, Login, NO_DELETING, NO_FOLDERS, NO_WRITING, Served, assert_mirrors, assert_same_times,
};
use serde_json::Value;

/// A recording of the login's tenant that has some MiB.
fn large_of(served: &Served, login: &Login) -> String {
    let originals = served.originals_of(login);
    let (path, large) = originals.iter().max_by_key(|(_, original)| original.bytes.len()).unwrap();
    assert!(large.bytes.len() > 1_500_000, "{path}");
    format!("/{path}")
}

/// Checks what a script printed of the refusals: the exception, and the gateway's own sentence.
#[track_caller]
fn assert_refusals(printed: &Finished, denied: &str, missing: &str) {
    let refusals: Value = serde_json::from_str(&printed.stdout).unwrap();
    for (act, exception, sentence) in [
        ("put", denied, NO_WRITING),
        ("mkdir", denied, NO_FOLDERS),
        ("remove", denied, NO_DELETING),
        ("rename", denied, "renaming is refused"),
        ("missing", missing, "no such file or folder"),
    ] {
        let told = &refusals[act];
        assert_eq!(told[0], exception, "{act}: {refusals}");
        assert!(told[1].as_str().unwrap().contains(sentence), "{act}: {refusals}");
    }
}

#[test]
fn paramiko_mirrors_with_and_without_prefetching() {
    let served = Served::new();
    for login in served.logins() {
        let mirror = served.folder_for(&login);
        let large = large_of(&served, &login);
        let ran = login.python("paramiko_client.py", &[mirror.to_str().unwrap(), &large]).success();
        assert_mirrors(&mirror, served.originals_of(&login));
        assert_same_times(&mirror, served.originals_of(&login));
        assert_refusals(&ran, "PermissionError", "FileNotFoundError");
    }
}

#[test]
fn asyncssh_mirrors_with_three_sessions_at_once() {
    let served = Served::new();
    for login in served.logins() {
        let user = login.user.replace('/', "-");
        let mirrors =
            ["whole", "patterns", "files"].map(|way| served.fixture.new_folder(&format!("{way}-{user}")));
        let [whole, patterns, files] = mirrors.each_ref().map(|mirror| mirror.to_str().unwrap());
        let large = large_of(&served, &login);
        let ran = login.python("asyncssh_client.py", &[whole, patterns, files, &large]).success();
        for mirror in &mirrors {
            assert_mirrors(mirror, served.originals_of(&login));
            assert_same_times(mirror, served.originals_of(&login));
        }
        assert_refusals(&ran, "SFTPPermissionDenied", "SFTPNoSuchFile");
    }
}

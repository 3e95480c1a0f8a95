//! The demo, as a newcomer meets it.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use recgate_e2e::{Gateway, Kind, Login, files_below, read_index, run, wait_for};
use tempfile::TempDir;

#[test]
fn the_demo_serves_what_its_users_can_mirror() {
    let folder = TempDir::new().unwrap();
    let demo = folder.path().join("demo");
    let gateway =
        Gateway::start(folder.path(), &["demo", "--dir", demo.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let users = gateway.ready.users.clone();
    let tenants: Vec<&String> = users.keys().filter(|login| !login.contains('/')).collect();
    assert_eq!(tenants.len(), 2, "{users:?}");
    for (user, password) in &users {
        let login = Login::new(folder.path(), gateway.ready.port, user, password);
        let mut raw = login.raw();
        // The root index comes last.
        wait_for("the demo's indexes", Duration::from_secs(90), || {
            raw.list("/Index").ok().filter(|indexes| indexes.len() > 7)
        });
        let tree = raw.tree();
        let wavs: Vec<&String> =
            tree.keys().filter(|path| path.starts_with("/S") && path.ends_with(".wav")).collect();
        assert!(wavs.len() > 20, "{user} sees {} recordings", wavs.len());
        let mirror = folder.path().join(format!("mirror-{}", user.replace('/', "-")));
        fs::create_dir(&mirror).unwrap();
        login.sftp(&format!("get -r /* {}\n", mirror.display())).success();
        let files = files_below(&mirror);
        // More may have been published meanwhile.
        for (path, _) in tree.iter().filter(|(_, stat)| stat.kind == Kind::File) {
            assert!(files.contains_key(path.trim_start_matches('/')), "{path} isn't in the mirror");
        }
        for (path, bytes) in &files {
            if path.ends_with(".csv") {
                assert!(!read_index(bytes).1.is_empty(), "{path}");
            } else {
                let wav = hound::WavReader::new(&bytes[..]).unwrap_or_else(|error| panic!("{path}: {error}"));
                assert!(wav.duration() > 0, "{path}");
            }
        }
    }
    // It says what to paste.
    let printed = gateway.stdout();
    for client in ["sftp ", "lftp ", "sshfs ", "FileZilla"] {
        assert!(printed.contains(client), "{client}: {printed}");
    }
    // What is to be pasted for lftp works as it stands, and mirrors the same.
    let pasted = lines_to_paste(&printed, "lftp ");
    assert!(!pasted.is_empty(), "{printed}");
    for line in pasted {
        let user = tenants.iter().find(|login| line.contains(&format!("-u {login},"))).unwrap();
        let login = Login::new(folder.path(), gateway.ready.port, user, &users[*user]);
        let sftp_mirrors = || {
            let mirror = TempDir::new_in(folder.path()).unwrap();
            login.sftp(&format!("get -r /* {}\n", mirror.path().display())).success();
            files_below(mirror.path())
        };
        // As long as recordings are published, two mirrors needn't be the same.
        wait_for("a tree that stays", Duration::from_secs(120), || {
            let (before, copy, after) = (sftp_mirrors(), paste(&folder, &line, user), sftp_mirrors());
            (before == after).then(|| assert!(copy == after, "{line}: differs from what sftp mirrors"))
        });
    }
    // What is to be pasted for curl works, too.
    let pasted = lines_to_paste(&printed, "curl ");
    assert_eq!(pasted.len(), 2, "{printed}");
    for line in pasted {
        let mut shell = Command::new("sh");
        shell.args(["-c", &line.replace("curl ", "curl --silent --fail --noproxy '*' --max-time 20 ")]);
        let answer = run(&mut shell, b"", Duration::from_secs(30)).success();
        assert!(answer.stdout.starts_with("ok\n") || answer.stdout.ends_with("# EOF\n"), "{line}: {answer}");
    }
    gateway.stop();
}

#[test]
fn a_large_archive_is_computed_on_demand() {
    let folder = TempDir::new().unwrap();
    let demo = folder.path().join("demo");
    let arguments =
        ["demo", "--dir", demo.to_str().unwrap(), "--listen", "127.0.0.1:0", "--recordings", "3000"];
    let gateway = Gateway::start(folder.path(), &arguments);
    assert!(gateway.stdout().contains("3000 more recordings"), "{}", gateway.stdout());
    let login = Login::new(folder.path(), gateway.ready.port, "archive", &gateway.ready.users["archive"]);
    let mut raw = login.raw();
    let mut wavs = Vec::new();
    wait_for("all names of the archive", Duration::from_secs(90), || {
        let tree = raw.tree();
        wavs =
            tree.into_iter().filter(|(path, _)| path.starts_with("/S") && path.ends_with(".wav")).collect();
        (wavs.len() == 3000).then_some(())
    });
    for (path, stat) in [wavs.first().unwrap(), wavs.last().unwrap()] {
        let bytes = raw.file(path).unwrap();
        assert_eq!(bytes.len() as u64, stat.size, "{path}");
        let wav = hound::WavReader::new(&bytes[..]).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(wav.duration() > 0, "{path}");
    }
    gateway.stop();
}

/// What lftp has copied when it ends.
fn paste(folder: &TempDir, line: &str, user: &str) -> BTreeMap<String, Vec<u8>> {
    let terminal = TempDir::new_in(folder.path()).unwrap();
    let mut shell = Command::new("sh");
    // A newcomer has neither settings nor known hosts of their own.
    shell.args(["-c", line]).current_dir(&terminal);
    shell.env("HOME", terminal.path()).env("LFTP_HOME", terminal.path());
    shell.env_remove("SSH_AUTH_SOCK").env_remove("SSH_ASKPASS").env_remove("DISPLAY");
    let done = run(&mut shell, b"", Duration::from_secs(120)).success();
    let copy = terminal.path().join(format!("{user}-recordings"));
    assert!(copy.is_dir(), "{line}: {done}");
    files_below(&copy)
}

/// The commands of a client among what the demo has printed, continued lines joined.
fn lines_to_paste(printed: &str, client: &str) -> Vec<String> {
    let joined = printed.replace("\\\n", " ");
    // The heading of a client begins a line, its command is indented.
    let commands = joined.lines().filter(|line| line.starts_with(' ')).map(str::trim);
    commands.filter(|line| line.starts_with(client)).map(str::to_owned).collect()
}

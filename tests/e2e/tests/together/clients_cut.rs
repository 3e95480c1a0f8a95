//! Connections that break in the midst of a file, and clients that go on from there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use recgate_e2e::{Cutter, Existing, Finished, Login, Served, assert_mirrors, assert_same_times, run};

/// After how many bytes the first connections are cut: each time within the same file, further on.
const CUTS: [usize; 2] = [1_500_000, 900_000];

/// How lftp is told to try again, soon and often.
const PATIENCE: &str = "set net:max-retries 9\nset net:reconnect-interval-base 1";

/// A login by way of a line that is cut so, and the line.
fn through_cuts(login: &Login, cuts: &[usize]) -> (Login, Cutter) {
    let cutter = Cutter::new(login.gateway_port, cuts);
    (login.through(cutter.port), cutter)
}

/// Checks that no more came than these bytes and some that were lost on the way: a client that had begun anew, even
/// once, would have taken at least the first of [`CUTS`] a second time.
#[track_caller]
fn assert_resumed(cutter: &Cutter, bytes: usize, lost: usize) {
    let passed = cutter.passed();
    assert!(passed < bytes + lost, "{passed} bytes were sent for {bytes}");
}

/// Runs a client that begins and one that goes on, again and again, until one succeeds. Whatever lies there after a cut
/// has to be a beginning of the file, or a client that goes on from its size would keep a hole.
fn until_complete(
    cutter: &Cutter,
    to: &Path,
    whole: &[u8],
    begin: impl FnOnce() -> Finished,
    go_on: impl Fn() -> Finished,
) {
    let mut ran = begin();
    let mut had = 0;
    for cut in 1..=CUTS.len() {
        assert!(!ran.status.success(), "cut {cut} wasn't noticed: {ran}");
        assert_eq!(cutter.cuts(), cut, "{ran}");
        let partial = fs::read(to).unwrap_or_default();
        assert!(partial.len() < whole.len(), "all is there after cut {cut}");
        assert!(partial.len() > had, "{had} bytes, then {} after cut {cut}: {ran}", partial.len());
        assert!(whole.starts_with(&partial), "no beginning of the file lies there after cut {cut}: {ran}");
        had = partial.len();
        ran = go_on();
    }
    ran.success();
    assert!(fs::read(to).unwrap() == whole, "{} differs", to.display());
    assert_eq!(cutter.connections(), CUTS.len() + 1);
    // Here each piece has been seen to follow the one before; what has come and wasn't written may be much.
    assert_resumed(cutter, whole.len(), whole.len() / 2);
}

/// The same with a password and with a key. A client gets the login, the path of a recording, and where it goes.
fn goes_on(
    cut: impl Fn(u16, &[usize]) -> Cutter,
    begin: impl Fn(&Login, &str, &Path) -> Finished,
    go_on: impl Fn(&Login, &str, &Path) -> Finished,
) {
    let served = Served::new();
    let (path, large) = served.large();
    let path = format!("/{path}");
    for (number, login) in [served.fixture.login("acme"), served.by_key("acme/manager")].iter().enumerate() {
        let cutter = cut(login.gateway_port, &CUTS);
        let login = login.through(cutter.port);
        let to = copy_at(&served, &format!("{number}.wav"));
        until_complete(
            &cutter,
            &to,
            &large.bytes,
            || begin(&login, &path, &to),
            || go_on(&login, &path, &to),
        );
    }
}

fn copy_at(served: &Served, name: &str) -> PathBuf {
    served.fixture.path().join(name)
}

#[test]
fn sftp_goes_on() {
    let with = |command: &'static str| {
        move |login: &Login, path: &str, to: &Path| {
            login.sftp(&format!("{command} {path} {}\n", to.display()))
        }
    };
    goes_on(Cutter::new, with("get"), with("reget"));
}

#[test]
fn psftp_goes_on() {
    let with = |command: &'static str| {
        move |login: &Login, path: &str, to: &Path| {
            login.psftp_for_a_while(&format!("{command} {path} {}\n", to.display()))
        }
    };
    // psftp 0.78 has been seen to wait for ever after an end of file in mid-transfer, and seldom after a reset.
    goes_on(Cutter::abrupt, with("get"), with("reget"));
}

#[test]
fn curl_goes_on() {
    let get = |login: &Login, path: &str, to: &Path| {
        login.curl(&["--continue-at", "-", "--output", to.to_str().unwrap()], path)
    };
    goes_on(Cutter::new, get, get);
}

#[test]
fn python_goes_on() {
    for script in ["paramiko_resume.py", "asyncssh_resume.py"] {
        let with = |how: &'static str| {
            move |login: &Login, path: &str, to: &Path| {
                login.python(script, &[how, path, to.to_str().unwrap()])
            }
        };
        goes_on(Cutter::new, with("begin"), with("go on"));
    }
}

#[test]
fn lftp_connects_anew_and_goes_on() {
    let served = Served::new();
    let (path, large) = served.large();
    let direct = served.by_key("acme");

    let (login, cutter) = through_cuts(&direct, &CUTS);
    let to = copy_at(&served, "get.wav");
    login.lftp(&format!("{PATIENCE}\nget -c /{path} -o {}", to.display())).success();
    assert!(fs::read(&to).unwrap() == large.bytes, "get -c");
    assert_eq!(cutter.cuts(), CUTS.len());
    assert_resumed(&cutter, large.bytes.len(), CUTS[0]);

    let (login, cutter) = through_cuts(&direct, &[600_000, 700_000, 500_000]);
    let to = copy_at(&served, "pget.wav");
    let pieces = "set pget:min-chunk-size 64k";
    login.lftp(&format!("{PATIENCE}\n{pieces}\npget -n 3 /{path} -o {}", to.display())).success();
    assert!(fs::read(&to).unwrap() == large.bytes, "pget");
    assert_eq!(cutter.cuts(), 3);
    // Each piece is read ahead beyond its end, so that less can be said.
    assert_resumed(&cutter, large.bytes.len(), large.bytes.len());
}

#[test]
fn lftp_mirrors_over_cuts() {
    let served = Served::new();
    let direct = served.fixture.login("acme/manager");
    let mirror = served.folder_for(&direct);
    let (login, cutter) = through_cuts(&direct, &CUTS);
    login.lftp(&format!("{PATIENCE}\nmirror --continue / {}", mirror.display())).success();
    assert_eq!(cutter.cuts(), CUTS.len());
    assert_mirrors(&mirror, served.originals_of(&direct));
    assert_same_times(&mirror, served.originals_of(&direct));
    let bytes = served.originals_of(&direct).values().map(|original| original.bytes.len()).sum();
    assert_resumed(&cutter, bytes, CUTS[0]);
}

#[test]
fn rclone_tries_again() {
    let served = Served::new();
    let (path, large) = served.large();
    let (from, to) = (format!("gateway:/{path}"), copy_at(&served, "copy.wav"));
    for direct in [served.fixture.login("acme"), served.by_key("acme/manager")] {
        let (login, cutter) = through_cuts(&direct, &CUTS);
        login.rclone(&["copyto", &from, to.to_str().unwrap()]).success();
        assert!(fs::read(&to).unwrap() == large.bytes);
        assert_eq!(cutter.cuts(), CUTS.len());
        fs::remove_file(&to).unwrap();
        // Four files at a time, each with a connection of its own.
        let mirror = served.folder_for(&direct);
        let (login, cutter) = through_cuts(&direct, &CUTS);
        login.rclone(&["copy", "gateway:/", mirror.to_str().unwrap()]).success();
        assert_mirrors(&mirror, served.originals_of(&direct));
        assert!(cutter.cuts() > 0);
    }
}

#[test]
fn sshfs_connects_anew() {
    let served = Served::new();
    for direct in [served.fixture.login("acme"), served.by_key("acme/manager")] {
        let user = direct.user.replace('/', "-");
        let folder = served.fixture.new_folder(&format!("mount-{user}"));
        let mirror = served.folder_for(&direct);
        let (login, cutter) = through_cuts(&direct, &CUTS);
        let mount = login.mount(&folder, &["reconnect"]);
        // What is open when the connection breaks gets an error; what is opened then gets the new connection.
        let script = format!(
            "for run in $(seq 9); do rsync --archive --partial mount-{user}/ {}/ && exit; done; exit 1",
            mirror.display()
        );
        let mut command = Command::new("bash");
        command.args(["-uc", &script]).current_dir(served.fixture.path());
        run(&mut command, b"", Duration::from_secs(60)).success();
        assert_mirrors(&mirror, served.originals_of(&direct));
        assert_same_times(&mirror, served.originals_of(&direct));
        assert_eq!(cutter.cuts(), CUTS.len());
        assert_eq!(cutter.connections(), CUTS.len() + 1);
        mount.unmount();
    }
}

#[test]
fn filezilla_connects_anew_and_goes_on() {
    let served = Served::new();
    let direct = served.fixture.login("acme");
    let (path, large) = served.large();
    let (folder, name) = path.rsplit_once('/').unwrap();
    let mirror = served.folder_for(&direct);
    // The first connection lists, the next ones download.
    let (login, cutter) = through_cuts(&direct, &[usize::MAX, CUTS[0], CUTS[0]]);
    let client = login.filezilla(&mirror, &format!("/{folder}"), Existing::Resume);
    client.download_all();
    let files: Vec<usize> = served
        .originals_of(&direct)
        .iter()
        .filter(|(path, _)| path.starts_with(folder))
        .map(|(_, original)| original.bytes.len())
        .collect();
    client.wait_for_log(files.len(), "File transfer successful");
    client.screenshot("filezilla-after-cuts");
    assert!(fs::read(mirror.join(name)).unwrap() == large.bytes);
    assert!(cutter.cuts() > 0);
    assert!(client.log().contains("reget "), "nothing was resumed: {}", client.log());
    assert_resumed(&cutter, files.iter().sum(), CUTS[0]);
}

#[test]
fn clients_that_cannot_go_on_tell_of_the_cut() {
    let served = Served::new();
    let (path, _) = served.large();
    let direct = served.fixture.login("acme");
    let from = format!("127.0.0.1:/{path}");
    let to = copy_at(&served, "copy.wav");
    let to = to.to_str().unwrap();
    let (login, cutter) = through_cuts(&direct, &[CUTS[0]]);
    let ran = login.scp(&[&from, to]);
    assert!(!ran.status.success() && cutter.cuts() == 1, "{ran}");
    let cutter = Cutter::abrupt(direct.gateway_port, &[CUTS[0]]);
    let ran = direct.through(cutter.port).pscp(&["-q", &from, to]);
    assert!(!ran.status.success() && cutter.cuts() == 1, "{ran}");
    // The gateway is none the worse for it.
    direct.sftp(&format!("get /{path} {to}\n")).success();
}

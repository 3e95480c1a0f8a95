//! Connections that break in the midst of a file, and clients that go on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

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
    for cut in 1..=CUTS.len() {
        assert!(!ran.status.success(), "cut {cut} wasn't noticed: {ran}");
        assert_eq!(cutter.cuts(), cut, "{ran}");
        let partial = fs::read(to).unwrap_or_default();
        assert!(partial.len() < whole.len(), "all is there after cut {cut}");
        assert!(whole.starts_with(&partial), "no beginning of the file lies there after cut {cut}: {ran}");
        ran = go_on();
    }
    ran.success();
    assert!(fs::read(to).unwrap() == whole, "{} differs", to.display());
    assert_eq!(cutter.connections(), CUTS.len() + 1);
}

fn copy_at(served: &Served, name: &str) -> PathBuf {
    served.fixture.path().join(name)
}

#[test]
fn sftp_goes_on() {
    let served = Served::new();
    let (path, large) = served.large();
    for (number, login) in [served.fixture.login("acme"), served.by_key("acme/manager")].iter().enumerate() {
        let (login, cutter) = through_cuts(login, &CUTS);
        let to = copy_at(&served, &format!("{number}.wav"));
        let batch = |command: &str| format!("{command} /{path} {}\n", to.display());
        let [begin, go_on] = [batch("get"), batch("reget")];
        until_complete(&cutter, &to, &large.bytes, || login.sftp(&begin), || login.sftp(&go_on));
    }
}

#[test]
fn psftp_goes_on() {
    let served = Served::new();
    let (path, large) = served.large();
    for (number, login) in [served.fixture.login("acme"), served.by_key("acme/manager")].iter().enumerate() {
        let (login, cutter) = through_cuts(login, &CUTS);
        let to = copy_at(&served, &format!("{number}.wav"));
        let batch = |command: &str| format!("{command} /{path} {}\n", to.display());
        let [begin, go_on] = [batch("get"), batch("reget")];
        until_complete(&cutter, &to, &large.bytes, || login.psftp(&begin), || login.psftp(&go_on));
    }
}

#[test]
fn curl_goes_on() {
    let served = Served::new();
    let (path, large) = served.large();
    for (number, login) in [served.fixture.login("acme"), served.by_key("acme/manager")].iter().enumerate() {
        let (login, cutter) = through_cuts(login, &CUTS);
        let to = copy_at(&served, &format!("{number}.wav"));
        let get =
            || login.curl(&["--continue-at", "-", "--output", to.to_str().unwrap()], &format!("/{path}"));
        until_complete(&cutter, &to, &large.bytes, get, get);
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

    let (login, cutter) = through_cuts(&direct, &[600_000, 700_000, 500_000]);
    let to = copy_at(&served, "pget.wav");
    let pieces = "set pget:min-chunk-size 64k";
    login.lftp(&format!("{PATIENCE}\n{pieces}\npget -n 3 /{path} -o {}", to.display())).success();
    assert!(fs::read(&to).unwrap() == large.bytes, "pget");
    assert_eq!(cutter.cuts(), 3);
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
    let files = served.originals_of(&direct).keys().filter(|path| path.starts_with(folder)).count();
    client.wait_for_log(files, "File transfer successful");
    client.screenshot("filezilla-after-cuts");
    assert!(fs::read(mirror.join(name)).unwrap() == large.bytes);
    assert!(cutter.cuts() > 0);
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
    let (login, cutter) = through_cuts(&direct, &[CUTS[0]]);
    let ran = login.pscp(&["-q", &from, to]);
    assert!(!ran.status.success() && cutter.cuts() == 1, "{ran}");
    // The gateway is none the worse for it.
    direct.sftp(&format!("get /{path} {to}\n")).success();
}

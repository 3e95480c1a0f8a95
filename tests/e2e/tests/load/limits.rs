//! What users and tenants may take: bytes a second, and sessions at once.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use recgate_e2e::{Call, Fixture, turn, utc, wait_for};
use rustix::process::Signal;

const RATE: u64 = 1 << 20;
/// A tenth of a second, and a quantum that a session may have of its own.
const BURST: u64 = RATE / 10 + 32 * 1024;
const DEADLINE: Duration = Duration::from_secs(60);

/// The fixture's configuration with these lines in acme, and these in its default user.
fn config(fixture: &Fixture, tenants: &str, users: &str) -> String {
    let text = fixture.config().replacen("name = \"acme\"\n", &format!("name = \"acme\"\n{tenants}\n"), 1);
    text.replacen("role = \"downloader\"\n", &format!("role = \"downloader\"\n{users}\n"), 1)
}

/// A gateway with this configuration of acme and one recording of this size, published.
fn with_recording(tenants: &str, users: &str, size: usize) -> (Fixture, Call) {
    let mut fixture = Fixture::new();
    fixture.write_config(&config(&fixture, tenants, users));
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let mut call = acme.plan(utc("2016-06-06 17:30:00"), 0);
    call.bytes = wav(size);
    acme.write_record(&call);
    acme.write_media(&call);
    fixture.start();
    fixture.wait_published("acme", std::slice::from_ref(&call));
    (fixture, call)
}

/// A recording in Asterisk's form, of so many bytes.
fn wav(size: usize) -> Vec<u8> {
    let data = u32::try_from(size - 44).unwrap();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend(b"RIFF");
    bytes.extend((data + 36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    bytes.extend(data.to_le_bytes());
    bytes.extend((0..data).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()));
    bytes
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

#[test]
fn a_download_is_no_faster_than_its_limit() {
    let _turn = turn();
    const SIZE: u64 = 1 << 20;
    let (fixture, call) = with_recording("bandwidth = \"1MiB/s\"", "", usize::try_from(SIZE).unwrap());
    let copy = fixture.path().join("copy.wav");
    let begin = Instant::now();
    fixture.login("acme/manager").sftp(&format!("get /{} {}\n", call.path(), copy.display())).success();
    let (took, least) = (begin.elapsed(), Duration::from_millis((SIZE - BURST) * 1000 / RATE));
    assert!(took >= least, "{took:?}, less than {least:?}");
    assert!(fs::read(&copy).unwrap() == call.bytes, "other bytes");

    // A limit that comes with a reload holds for a session that runs.
    let gateway = fixture.gateway.as_ref().unwrap();
    let mut raw = fixture.login("acme").raw();
    fixture.write_config(&config(&fixture, "", "bandwidth = \"512KiB/s\"\nmax_sessions = 2"));
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(&["the new configuration is taken"]);
    let begin = Instant::now();
    assert!(raw.file(&format!("/{}", call.path())).unwrap() == call.bytes, "other bytes");
    let least = Duration::from_millis((SIZE - BURST) * 1000 / (RATE / 2));
    assert!(begin.elapsed() >= least, "{:?}, less than {least:?}", begin.elapsed());
    let status = fixture.recgate(&["status"]).success().stdout;
    assert!(status.contains("acme (1)    1 "), "{status}");
}

#[test]
fn large_reads_get_no_more_than_small_ones() {
    let _turn = turn();
    let (fixture, call) = with_recording("", "bandwidth = \"1MiB/s\"", 8 << 20);
    let login = fixture.login("acme");
    let (large, small) = (fixture.path().join("large.wav"), fixture.path().join("small.wav"));
    // The one with small reads comes last and asks for 64 KiB at once, the other for 16 MiB.
    let path = format!("/{}", call.path());
    let mut greedy = login.begin_download(&["-B", "261120", "-R", "64"], &path, &large);
    let mut modest = login.begin_download(&["-B", "4096", "-R", "16"], &path, &small);
    let before = [size(&large), size(&small)];
    let grown = || [size(&large) - before[0], size(&small) - before[1]];
    wait_for("half a MiB for the greedy one", DEADLINE, || (grown()[0] >= 1 << 19).then_some(()));
    let [large, small] = grown();
    for client in [&mut greedy, &mut modest] {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // Twice as much is allowed for a busy machine; without turns it would be eight times, or sixty-four.
    assert!(small * 2 >= large, "large reads got {large} bytes, small ones {small}");
}

#[test]
fn a_session_too_many_is_told_so() {
    let _turn = turn();
    let mut fixture = Fixture::new();
    fixture.write_config(&config(&fixture, "max_sessions = 2", "max_sessions = 1"));
    fixture.start();
    let gateway = fixture.gateway.as_ref().unwrap();
    let first = fixture.login("acme").raw();
    let refused = fixture.login("acme").sftp("ls\n");
    assert!(!refused.status.success(), "{refused}");
    assert!(refused.stderr.contains("too many sessions of this user: at most 1 at once"), "{refused}");
    // Whoever isn't let in isn't told.
    let mut stranger = fixture.login("acme");
    stranger.password = "guess".into();
    let refused = stranger.sftp("ls\n");
    assert!(!refused.status.success() && !refused.stderr.contains("too many sessions"), "{refused}");

    let second = fixture.login("acme/manager").raw();
    let refused = fixture.login("acme/manager").sftp("ls\n");
    assert!(refused.stderr.contains("too many sessions of this tenant: at most 2 at once"), "{refused}");
    fixture.login("globex").sftp("ls\n").success();
    let status = fixture.recgate(&["status"]).success().stdout;
    assert!(status.contains("acme (1)    2 of 2 "), "{status}");
    let log = gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("session refused")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("too many sessions of this user") && told[0].contains("login=acme"), "{told:?}");

    drop((first, second));
    wait_for("a free place", DEADLINE, || fixture.login("acme").sftp("ls\n").status.success().then_some(()));
}

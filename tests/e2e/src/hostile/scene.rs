//! Where hostile peers meet a gateway: what must be as before when they have gone.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Answer, KeyPair, PATIENCE, Sftp, Ssh};
use crate::{Call, Fixture, Gateway, wait_for};

/// Who logs in with which key.
static HOSTILE: LazyLock<(&str, KeyPair)> = LazyLock::new(|| ("acme/hostile", KeyPair::of(9)));

/// A gateway with recordings, and what they are.
#[derive(Debug)]
pub struct Scene {
    /// The fixture.
    pub fixture: Fixture,
    /// The gateway's port.
    pub port: u16,
    /// acme's recordings; the third has some MiB.
    pub calls: Vec<Call>,
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

impl Scene {
    /// One with the fixture's own configuration.
    pub fn new() -> Self {
        Self::with(|config| config)
    }

    /// One with these keys in the `[limits]` section.
    pub fn with_limits(keys: &str) -> Self {
        Self::with(|config| format!("{config}\n[limits]\n{keys}\n"))
    }

    /// One with this change to the configuration.
    pub fn with(change: impl FnOnce(String) -> String) -> Self {
        let mut fixture = Fixture::new();
        let mut calls = fixture.fill();
        let user = format!(
            "[[tenant.user]]\nid = 9\nname = \"hostile\"\nrole = \"downloader\"\nauthorized_keys = [\"{}\"]\n\n\
             [[tenant.source]]",
            HOSTILE.1.line()
        );
        // acme is the first tenant.
        fixture.write_config(&change(fixture.config().replacen("[[tenant.source]]", &user, 1)));
        fixture.start();
        let calls = calls.remove("acme").unwrap();
        fixture.wait_published("acme", &calls);
        let port = fixture.gateway.as_ref().unwrap().ready.port;
        Self { fixture, port, calls }
    }

    /// The gateway.
    pub fn gateway(&self) -> &Gateway {
        self.fixture.gateway.as_ref().unwrap()
    }

    /// A recording of some MiB: its path and its bytes.
    pub fn large(&self) -> (String, Vec<u8>) {
        (format!("/{}", self.calls[2].path()), self.calls[2].bytes.clone())
    }

    /// A small one.
    pub fn small(&self) -> (String, Vec<u8>) {
        (format!("/{}", self.calls[0].path()), self.calls[0].bytes.clone())
    }

    /// A hostile peer's connection, logged in: by a key, which costs neither side anything to speak of.
    pub fn ssh(&self) -> Ssh {
        ssh(self.port)
    }

    /// A hostile peer's SFTP session.
    pub fn sftp(&self) -> Sftp {
        Sftp::ready(self.ssh())
    }

    /// Somebody honest who works on meanwhile.
    pub fn bystander(&self) -> Bystander {
        Bystander::start(self.port, self.large())
    }

    /// Nothing has changed for others: an honest client logs in, lists and downloads; nothing in the gateway has
    /// panicked.
    pub fn unharmed(&self) {
        let (path, bytes) = self.large();
        let target = self.fixture.path().join("unharmed.wav");
        let listed =
            self.fixture.login("acme").sftp(&format!("ls /S20160606\nget {path} {}\n", target.display()));
        assert!(listed.success().stdout.contains(&self.calls[0].name()));
        assert!(fs::read(&target).unwrap() == bytes, "another recording than before");
        let log = self.gateway().log();
        let defects: Vec<&str> =
            log.lines().filter(|line| line.contains("panic") || line.contains("defect")).collect();
        assert!(defects.is_empty(), "{defects:#?}");
    }

    /// Waits until the gateway's memory is below this many bytes; returns it.
    pub fn settles_below(&self, most: u64) -> u64 {
        let pid = self.gateway().pid();
        let mut least = u64::MAX;
        let settled = wait_while(PATIENCE, || {
            let now = resident(pid);
            least = least.min(now);
            (now < most).then_some(now)
        });
        settled.unwrap_or_else(|| panic!("{least} bytes of memory stay, {most} would be all right"))
    }
}

/// Somebody who lists and downloads, round after round, in a thread of their own.
#[derive(Debug)]
pub struct Bystander {
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bystander {
    fn start(port: u16, (path, bytes): (String, Vec<u8>)) -> Self {
        let (rounds, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, told) = (Arc::clone(&rounds), Arc::clone(&stop));
        let mut sftp = Sftp::ready(ssh(port));
        let folder = Path::new(&path).parent().unwrap().to_str().unwrap().to_owned();
        let names = sftp.list(&folder);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                assert_eq!(sftp.list(&folder), names);
                assert!(sftp.download(&path, bytes.len(), 16, 32 << 10) == bytes, "wrong bytes");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { rounds, stop, thread: Some(thread) }
    }

    /// Waits until some rounds that began from now on have ended well.
    pub fn works_on(&self) {
        // The one that is under way may have passed the worst already.
        let enough = self.rounds.load(Ordering::Relaxed) + 3;
        wait_for("another session's work", PATIENCE, || {
            let thread = self.thread.as_ref().unwrap();
            assert!(!thread.is_finished(), "another session was disturbed");
            (self.rounds.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// Works on to the end of the scene, and was never disturbed.
    pub fn leave(mut self) {
        self.works_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("another session was disturbed");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A connection with somebody of acme's logged in.
fn ssh(port: u16) -> Ssh {
    let mut ssh = Ssh::encrypted(port);
    ssh.userauth();
    assert_eq!(ssh.key(HOSTILE.0, &HOSTILE.1), Answer::Success);
    ssh
}

/// Asks until there is an answer, or the deadline has come.
fn wait_while<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > end {
            return answer;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Bytes of memory that a process has now.
pub fn resident(pid: u32) -> u64 {
    status_field(pid, "VmRSS") << 10
}

/// A number in `/proc/PID/status`, in its own unit.
pub fn status_field(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

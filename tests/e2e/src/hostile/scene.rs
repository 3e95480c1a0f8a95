//! Where hostile peers meet a gateway: what must be as before when they have gone.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Answer, KeyPair, Sftp, Ssh, connect, connect_from};
use crate::{Call, Fixture, Gateway, Turn, turn};

/// How soon [`ROUNDS`] of somebody honest must be done, whatever others do. Undisturbed, each takes a fraction of a
/// second: what takes longer than this stands still.
const UNDISTURBED: Duration = Duration::from_secs(10);
/// Rounds that show that a session goes on: the first may have passed the worst already.
const ROUNDS: usize = 3;

/// Who logs in with which key.
static HOSTILE: LazyLock<(&str, KeyPair)> = LazyLock::new(|| ("acme/hostile", KeyPair::of(9)));

/// A gateway with recordings, and what they are. It has a test's turn: peers of two scenes in one test would wait for
/// each other.
#[derive(Debug)]
pub struct Scene {
    /// The fixture.
    pub fixture: Fixture,
    /// The gateway's port.
    pub port: u16,
    /// acme's recordings; the third has some MiB.
    pub calls: Vec<Call>,
    // Last, so that the gateway has ended when the next one has its turn.
    _turn: Turn,
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
        let turn = turn();
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
        Self { fixture, port, calls, _turn: turn }
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
        ssh(connect(self.port))
    }

    /// The same from this address.
    pub fn ssh_from(&self, address: Ipv4Addr) -> Ssh {
        ssh(connect_from(address, self.port))
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

    /// Measures the gateway's memory from now on.
    pub fn memory(&self) -> Memory {
        Memory::of(self.gateway().pid())
    }
}

/// The memory of a process since some moment, by its peak: what was taken and given back counts too.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        // The peak begins anew from what is resident now (proc(5), `clear_refs`).
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before: status_field(pid, "VmHWM") << 10 }
    }

    /// Checks that it was never more than this many bytes above what it was at the beginning.
    #[track_caller]
    pub fn grew_at_most(&self, bytes: u64) {
        let peak = status_field(self.pid, "VmHWM") << 10;
        let grown = peak.saturating_sub(self.before);
        assert!(
            grown <= bytes,
            "the gateway's memory grew by {grown} bytes from {}, at most {bytes} are right",
            self.before
        );
    }
}

/// Somebody who lists and downloads, round after round, in a thread of their own.
#[derive(Debug)]
pub struct Bystander {
    rounds: Arc<AtomicUsize>,
    /// Milliseconds of the longest round.
    slowest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bystander {
    fn start(port: u16, (path, bytes): (String, Vec<u8>)) -> Self {
        let (rounds, slowest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, measured, told) = (Arc::clone(&rounds), Arc::clone(&slowest), Arc::clone(&stop));
        let mut sftp = Sftp::ready(ssh(connect(port)));
        let folder = Path::new(&path).parent().unwrap().to_str().unwrap().to_owned();
        let names = sftp.list(&folder);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let begin = Instant::now();
                assert_eq!(sftp.list(&folder), names);
                assert!(sftp.download(&path, bytes.len(), 16, 32 << 10) == bytes, "wrong bytes");
                let took = u64::try_from(begin.elapsed().as_millis()).unwrap();
                measured.fetch_max(took, Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { rounds, slowest, stop, thread: Some(thread) }
    }

    /// Waits until some rounds that began from now on have ended well, which must be soon.
    #[track_caller]
    pub fn works_on(&self) {
        let begun = self.rounds.load(Ordering::Relaxed);
        let end = Instant::now() + UNDISTURBED;
        loop {
            let thread = self.thread.as_ref().unwrap();
            assert!(!thread.is_finished(), "another session was disturbed");
            let done = self.rounds.load(Ordering::Relaxed) - begun;
            if done >= ROUNDS {
                return;
            }
            assert!(
                Instant::now() < end,
                "another session did {done} of {ROUNDS} rounds in {UNDISTURBED:?}; until now its slowest took {:?}",
                self.slowest()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Works on, again and again, while this goes on.
    #[track_caller]
    pub fn works_on_during(&self, attack: impl FnOnce() + Send) {
        let attacked = thread::scope(|scope| {
            let attack = scope.spawn(attack);
            loop {
                self.works_on();
                if attack.is_finished() {
                    return attack.join();
                }
            }
        });
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
    }

    /// Works on to the end of the scene, and was never disturbed.
    #[track_caller]
    pub fn leave(mut self) {
        self.works_on();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("another session was disturbed");
        // Those rounds too that nobody waited for.
        let slowest = self.slowest();
        assert!(slowest < UNDISTURBED, "a round of another session took {slowest:?}");
    }

    /// How long the slowest round took that has ended.
    fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest.load(Ordering::Relaxed))
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A connection with somebody of acme's logged in.
fn ssh(stream: TcpStream) -> Ssh {
    let mut ssh = Ssh::encrypted_on(stream);
    ssh.userauth();
    assert_eq!(ssh.key(HOSTILE.0, &HOSTILE.1), Answer::Success);
    ssh
}

/// A number in `/proc/PID/status`, in its own unit.
fn status_field(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

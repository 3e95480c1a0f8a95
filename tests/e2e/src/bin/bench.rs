//! Measures recgate's SFTP door beside OpenSSH's: the same machine, client and file, in turn.
//!
//! `cargo xtask bench [--pairs N] [--size MIB]`. Both serve one large WAV from the page cache: recgate through its
//! whole path (door, vfs, media reader, plugin), sshd with `internal-sftp`. Client and server have a core each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement stops at the first thing that is wrong, and prints its result"
)]

use std::{
    collections::HashMap,
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use recgate_e2e::{ACME, Fixture, TenantSpec, run, utc, wait_for};
use sha2::{Digest, Sha256};

/// One row of the table: the cipher, and what `targets` asks for: speed at least, server CPU at most, OpenSSH = 1.
struct Row {
    name: &'static str,
    cipher: &'static str,
    speed: f64,
    cpu: f64,
}

const ROWS: [Row; 3] = [
    Row { name: "aes256-gcm", cipher: "aes256-gcm@openssh.com", speed: 1.8, cpu: 0.40 },
    Row { name: "aes128-gcm", cipher: "aes128-gcm@openssh.com", speed: 2.2, cpu: 0.38 },
    Row { name: "chacha20", cipher: "chacha20-poly1305@openssh.com", speed: 1.3, cpu: 0.42 },
];

/// Slack for noise on the CPU ratio.
const SLACK: f64 = 1.15;
/// Clock ticks a second in `/proc/PID/stat`: fixed by Linux's interface.
const TICKS: f64 = 100.0;
const DEADLINE: Duration = Duration::from_secs(600);

fn main() {
    let (pairs, mebibytes) = arguments();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        println!("Only one core: client and server share it, and the speeds say little.");
    }
    let pin = cores >= 2;

    // A source that isn't scanned again while it is measured.
    let mut fixture = Fixture::with(vec![TenantSpec { ..ACME }]);
    let key = make_key(&fixture.path().join("client_key"));
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let config = fixture
        .config()
        .replace("scan_interval = \"500ms\"", "scan_interval = \"1h\"")
        .replace("info,recgate=debug", "info")
        .replacen(
            "role = \"downloader\"",
            &format!("role = \"downloader\"\nauthorized_keys = [{:?}]", public.trim()),
            1,
        );
    fixture.write_config(&config);
    let wazo = fixture.wazo.get_mut("acme").unwrap();
    let mut call = wazo.plan(utc("2016-06-06 00:01:17"), 0);
    call.bytes = large_wav(mebibytes);
    wazo.write_record(&call);
    wazo.write_media(&call);
    let stored = wazo.media_path(&call);
    let digest = Sha256::digest(&call.bytes);
    let remote = format!("/{}", call.path());
    call.bytes = Vec::new();

    fixture.start();
    fixture.wait_published("acme", std::slice::from_ref(&call));
    let gateway = fixture.gateway.as_ref().unwrap();
    if pin {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-c", "-p", "1"]).arg(gateway.pid().to_string());
        run(&mut taskset, b"", DEADLINE).success();
    }
    let sshd = Sshd::start(fixture.path(), &public, pin);
    let home = fixture.new_folder("home");
    let sides = [
        Side { port: gateway.ready.port, user: "acme".into(), path: remote, server: gateway.pid() },
        Side {
            port: sshd.port,
            user: env::var("USER").unwrap_or_else(|_| "root".into()),
            path: stored.to_str().unwrap().into(),
            server: sshd.child.id(),
        },
    ];

    for side in &sides {
        let copy = fixture.path().join("copy.wav");
        get(side, ROWS[0].cipher, &key, &home, &copy, pin);
        assert!(
            digest_of(&copy) == digest[..],
            "port {}: what was downloaded isn't what is stored",
            side.port
        );
        fs::remove_file(&copy).unwrap();
    }

    println!("get {mebibytes} MiB, {pairs} pairs, OpenSSH = 1.00; median (quartiles)\n");
    println!("| SFTP | recgate s | OpenSSH s | speed | target | server CPU | target |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in &ROWS {
        let mut times = [Vec::new(), Vec::new()];
        let (mut speeds, mut cpus) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            let mut measured = [(0.0, 0.0); 2];
            // A B B A …
            let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                measured[which] = get(&sides[which], row.cipher, &key, &home, Path::new("/dev/null"), pin);
                times[which].push(measured[which].0);
            }
            speeds.push(measured[1].0 / measured[0].0);
            cpus.push(measured[0].1 / measured[1].1);
        }
        let (speed, cpu) = (quartiles(&mut speeds), quartiles(&mut cpus));
        let verdict = |reached: bool| if reached { "reached" } else { "missed" };
        println!(
            "| get {mebibytes} MiB, {} | {:.2} | {:.2} | {} | ≥ {} {} | {} | ≤ {} {} |",
            row.name,
            quartiles(&mut times[0])[1],
            quartiles(&mut times[1])[1],
            shown(speed),
            row.speed,
            verdict(speed[1] >= row.speed),
            shown(cpu),
            row.cpu,
            verdict(cpu[1] <= row.cpu * SLACK),
        );
    }
}

/// One of the two that are compared.
struct Side {
    port: u16,
    user: String,
    path: String,
    /// The first process of the server.
    server: u32,
}

/// Downloads the file once: seconds on the clock, and seconds of CPU of the server.
fn get(side: &Side, cipher: &str, key: &Path, home: &Path, target: &Path, pin: bool) -> (f64, f64) {
    let mut command = if pin {
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", "0", "sftp"]);
        taskset
    } else {
        Command::new("sftp")
    };
    command.args(["-q", "-F", "/dev/null", "-b", "-", "-P"]).arg(side.port.to_string());
    for option in [
        format!("User={}", side.user),
        format!("IdentityFile={}", key.display()),
        format!("Ciphers={cipher}"),
        format!("UserKnownHostsFile={}", home.join("known_hosts").display()),
    ] {
        command.arg("-o").arg(option);
    }
    command.args(["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new", "127.0.0.1"]);
    command.env("HOME", home).env_remove("SSH_AUTH_SOCK");
    let before = cpu_of_tree(side.server);
    let begin = Instant::now();
    run(&mut command, format!("get {} {}\n", side.path, target.display()).as_bytes(), DEADLINE).success();
    let seconds = begin.elapsed().as_secs_f64();
    (seconds, settled_cpu(side.server) - before)
}

/// An OpenSSH server of our own.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    fn start(folder: &Path, public: &str, pin: bool) -> Self {
        let folder = folder.join("sshd");
        fs::create_dir(&folder).unwrap();
        // Compiled into Debian's sshd.
        if !Path::new("/run/sshd").is_dir() {
            fs::create_dir("/run/sshd")
                .unwrap_or_else(|error| panic!("/run/sshd, which sshd needs: {error}"));
        }
        let host_key = make_key(&folder.join("host_key"));
        let authorized = folder.join("authorized_keys");
        fs::write(&authorized, public).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("sshd_config");
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nSubsystem sftp internal-sftp\n\
             UsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
            host_key.display(),
            authorized.display()
        );
        fs::write(&config, text).unwrap();
        let program = ["/usr/sbin/sshd", "/sbin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("there is no sshd; `cargo xtask bench` installs it (openssh-server)");
        let mut command = Command::new(if pin { "taskset" } else { program });
        if pin {
            command.args(["-c", "1", program]);
        }
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let sshd = Self { child, port };
        wait_for("sshd", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).ok());
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn make_key(path: &Path) -> PathBuf {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(path);
    run(&mut keygen, b"", DEADLINE).success();
    path.to_owned()
}

/// A WAV as Asterisk writes it, of this size.
fn large_wav(mebibytes: u32) -> Vec<u8> {
    let size = mebibytes.checked_mul(1 << 20).expect("a WAV has at most 4095 MiB");
    let mut wav = Vec::with_capacity(size as usize);
    wav.write_all(b"RIFF").unwrap();
    wav.write_all(&(size - 8).to_le_bytes()).unwrap();
    wav.write_all(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data").unwrap();
    wav.write_all(&(size - 44).to_le_bytes()).unwrap();
    // Sound that no compression or deduplication makes smaller.
    let mut state = 0x1234_5678_9abc_def1_u64;
    while wav.len() < size as usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        wav.extend_from_slice(&state.to_le_bytes());
    }
    wav.truncate(size as usize);
    wav
}

fn digest_of(path: &Path) -> Vec<u8> {
    let mut file = fs::File::open(path).unwrap();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hasher.finalize().to_vec();
        }
        hasher.update(&buffer[..read]);
    }
}

/// CPU seconds of a process and all below it, once the session's own processes have ended.
fn settled_cpu(server: u32) -> f64 {
    wait_for("the end of the server's session", Duration::from_secs(20), || {
        (below(server, &processes()).len() == 1).then_some(())
    });
    cpu_of_tree(server)
}

/// CPU seconds of a process, those that it waited for, and all that live below it.
fn cpu_of_tree(server: u32) -> f64 {
    let processes = processes();
    let ticks: u64 = below(server, &processes).iter().map(|pid| processes[pid].ticks).sum();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let ticks = ticks as f64;
    ticks / TICKS
}

struct Process {
    parent: u32,
    ticks: u64,
}

/// All processes, from `/proc/PID/stat` (proc(5)): parent is field 4; utime, stime, cutime and cstime are 14 to 17.
fn processes() -> HashMap<u32, Process> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in parentheses, may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        if fields[0] != "Z" {
            let ticks = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
            found.insert(pid, Process { parent: fields[1].parse().unwrap(), ticks });
        }
    }
    found
}

fn below(server: u32, processes: &HashMap<u32, Process>) -> Vec<u32> {
    let mut tree = vec![server];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(processes.iter().filter(|(_, process)| process.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// First quartile, median, third quartile.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let at = (values.len() - 1) * quarter;
        let (low, rest) = (at / 4, at % 4);
        let high = values[(low + 1).min(values.len() - 1)];
        values[low] + (high - values[low]) * [0.0, 0.25, 0.5, 0.75][rest]
    })
}

fn shown([low, middle, high]: [f64; 3]) -> String {
    format!("{middle:.2} ({low:.2}–{high:.2})")
}

fn arguments() -> (usize, u32) {
    let (mut pairs, mut size) = (7, 1024);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
        match (argument.as_str(), value) {
            ("--pairs", Some(value)) => pairs = value as usize,
            ("--size", Some(value)) => size = value,
            _ => {
                eprintln!("Usage: bench [--pairs N] [--size MIB]");
                std::process::exit(2);
            }
        }
    }
    (pairs, size)
}

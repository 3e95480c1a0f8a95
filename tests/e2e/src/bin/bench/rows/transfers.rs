//! Transfers and listings beside the peers, over the same files.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use recgate_e2e::{Call, Fixture, WazoTree, files_below, utc};
use tempfile::TempDir;

use crate::{
    Bench,
    gateway::{self, DAY_ONE_MS, Synthetic, TENANT},
    measure::{self, Cost},
    peers::{self, Server},
    report::{Report, Target},
};

/// A cipher and what is asked for with it.
struct Cipher {
    row: &'static str,
    name: &'static str,
    target: Target,
    /// Servers that don't have it.
    unknown_to: &'static [&'static str],
}

const CIPHERS: [Cipher; 3] = [
    Cipher {
        row: "aes256-gcm",
        name: "aes256-gcm@openssh.com",
        target: Target { speed: 1.8, cpu: 0.40 },
        unknown_to: &[],
    },
    Cipher {
        row: "aes128-gcm",
        name: "aes128-gcm@openssh.com",
        target: Target { speed: 2.2, cpu: 0.38 },
        unknown_to: &[],
    },
    Cipher {
        row: "chacha20",
        name: "chacha20-poly1305@openssh.com",
        target: Target { speed: 1.3, cpu: 0.42 },
        unknown_to: &["proftpd"],
    },
];
const LIST: Target = Target { speed: 2.5, cpu: 0.20 };
const MANY_FILES: Target = Target { speed: 1.8, cpu: 0.42 };

/// Listings in one session: with one alone, its CPU would be a few ticks of the clock and the login half of it.
const LISTINGS: u32 = 4;
/// Bytes of each of the many files.
const SMALL: usize = 64 << 10;

/// One large file, by each cipher.
pub fn get(bench: &Bench, asked: &[&str], report: &mut Report) {
    let mut fixture = gateway::prepare(bench, &[]);
    let start = utc("2016-06-06 00:01:17");
    let wav = sound(usize::try_from(bench.large()).unwrap(), 1);
    let calls = record(fixture.wazo.get_mut(TENANT).unwrap(), [(start, wav)]);
    let root = bench.new_folder("root");
    link(&fixture, &root, &calls);
    rustix::fs::sync();
    let servers = serve(bench, &mut fixture, &root, &[("/S20160606", 1)]);
    let path = format!("/{}", calls[0].path());

    let scratch = scratch();
    for server in &servers {
        let copy = scratch.path().join("copy.wav");
        let batch = format!("get {} {}\n", server.path(&path), copy.display());
        server.sftp(bench, &["-o", &format!("Ciphers={}", CIPHERS[0].name)], &batch);
        assert_same(server, &copy, &root.join(calls[0].path()));
        fs::remove_file(&copy).unwrap();
    }
    for cipher in CIPHERS.iter().filter(|cipher| asked.contains(&cipher.row)) {
        let able: Vec<&Server> =
            servers.iter().filter(|server| !cipher.unknown_to.contains(&server.name)).collect();
        let option = format!("Ciphers={}", cipher.name);
        let row = format!("get {} MiB, {}", bench.options.mebibytes, cipher.row);
        compare(bench, report, row, cipher.target, &able, |server| {
            let batch = format!("get {} /dev/null\n", server.path(&path));
            server.sftp(bench, &["-o", &option], &batch).0
        });
    }
}

/// The names of one large folder.
pub fn list(bench: &Bench, _: &[&str], report: &mut Report) {
    let count = bench.count(100_000, 1000);
    // Two in some seconds; all within the day.
    let source = Synthetic { id: 2, count, size: 4096, delay_ms: 0, start_ms: DAY_ONE_MS, step_ms: 800 };
    let mut fixture = gateway::prepare(bench, &[source]);
    let folder = "/S20160606";
    let recgate = gateway::start(bench, &mut fixture, &[(folder, count)]);
    let root = bench.new_folder("root");
    let entries = fixture.login(TENANT).raw().list(folder).unwrap();
    fs::create_dir(root.join(&folder[1..])).unwrap();
    for entry in &entries {
        let file = fs::File::create(root.join(&folder[1..]).join(&entry.name)).unwrap();
        file.set_len(entry.stat.size).unwrap();
    }
    rustix::fs::sync();
    let mut servers = peers::start(bench, &root);
    servers.push(recgate);

    let run = |server: &Server| {
        let batch = format!("ls -1 {}\n", server.path(folder)).repeat(LISTINGS as usize);
        let (cost, printed) = server.sftp(bench, &[], &batch);
        let names = printed.lines().filter(|line| line.ends_with(".wav")).count();
        assert_eq!(names as u64, count * u64::from(LISTINGS), "{}: names in its listings", server.name);
        let listings = f64::from(LISTINGS);
        Cost { seconds: cost.seconds / listings, cpu: cost.cpu / listings }
    };
    let all: Vec<&Server> = servers.iter().collect();
    for server in &all {
        run(server);
    }
    compare(bench, report, format!("list {count} entries"), LIST, &all, run);
}

/// A folder with many small files.
pub fn many_files(bench: &Bench, _: &[&str], report: &mut Report) {
    let count = bench.count(5000, 50);
    let mut fixture = gateway::prepare(bench, &[]);
    let first = utc("2016-06-06 00:00:00");
    let files = (0..count).map(|number| {
        let start = first + chrono::TimeDelta::seconds(10 * i64::try_from(number).unwrap());
        (start, sound(SMALL, number + 1))
    });
    let calls = record(fixture.wazo.get_mut(TENANT).unwrap(), files);
    let root = bench.new_folder("root");
    link(&fixture, &root, &calls);
    rustix::fs::sync();
    let folder = "/S20160606";
    let servers = serve(bench, &mut fixture, &root, &[(folder, count)]);

    // The folder's own indexes come with it: every server has the same.
    let mut raw = fixture.login(TENANT).raw();
    for entry in raw.list(folder).unwrap() {
        if !entry.name.ends_with(".wav") {
            let bytes = raw.file(&format!("{folder}/{}", entry.name)).unwrap();
            fs::write(root.join(&folder[1..]).join(&entry.name), bytes).unwrap();
        }
    }
    drop(raw);
    let expected = files_below(&root.join(&folder[1..]));
    assert!(expected.len() as u64 >= count);
    let scratch = scratch();
    let run = |server: &Server, check: bool| {
        let copy = scratch.path().join("copy");
        let batch = format!("get -r {} {}\n", server.path(folder), copy.display());
        let cost = server.sftp(bench, &[], &batch).0;
        if check {
            assert!(files_below(&copy) == expected, "{}: not what is stored", server.name);
        }
        fs::remove_dir_all(&copy).unwrap();
        cost
    };
    let all: Vec<&Server> = servers.iter().collect();
    for server in &all {
        run(server, true);
    }
    let row = format!("`get -r` of {count} × {} KiB", SMALL >> 10);
    compare(bench, report, row, MANY_FILES, &all, |server| run(server, false));
}

/// Measures each server in turn, so many times.
fn compare(
    bench: &Bench,
    report: &mut Report,
    row: String,
    target: Target,
    servers: &[&Server],
    run: impl Fn(&Server) -> Cost,
) {
    let costs = measure::in_turn(servers.len(), bench.pairs(), |which| run(servers[which]));
    report.beside_others(row, target, servers.iter().map(|server| server.name).zip(costs).collect());
}

/// The peers and, last, recgate.
fn serve(bench: &Bench, fixture: &mut Fixture, root: &Path, folders: &[(&str, u64)]) -> Vec<Server> {
    let recgate = gateway::start(bench, fixture, folders);
    let mut servers = peers::start(bench, root);
    servers.push(recgate);
    servers
}

/// Calls with these bytes on the PBX.
fn record(
    wazo: &mut WazoTree,
    files: impl IntoIterator<Item = (chrono::DateTime<chrono::Utc>, Vec<u8>)>,
) -> Vec<Call> {
    let numbered = (1_u64..).zip(files);
    numbered
        .map(|(id, (start, bytes))| {
            let stop = start + chrono::TimeDelta::seconds(9);
            let mut call =
                Call { uuid: format!("{id:08x}-0000-4000-8000-{id:012x}"), id, start, stop, bytes };
            wazo.write_record(&call);
            wazo.write_media(&call);
            // It is on the disk.
            call.bytes = Vec::new();
            call
        })
        .collect()
}

/// The tree that the peers serve: the same files under the gateway's names, and so the same page cache.
fn link(fixture: &Fixture, root: &Path, calls: &[Call]) {
    let wazo = &fixture.wazo[TENANT];
    for call in calls {
        let path = root.join(call.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::hard_link(wazo.media_path(call), path).unwrap();
    }
}

/// Where clients write: in memory, if there is such a folder.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| TempDir::new_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| TempDir::new().unwrap())
}

fn assert_same(server: &Server, copy: &PathBuf, stored: &PathBuf) {
    let (mut copy, mut stored) = (fs::File::open(copy).unwrap(), fs::File::open(stored).unwrap());
    let (copied, size) = (copy.metadata().unwrap().len(), stored.metadata().unwrap().len());
    assert_eq!(copied, size, "{}: bytes of the copy", server.name);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..size).step_by(1 << 20) {
        let part = usize::try_from((size - offset).min(1 << 20)).unwrap();
        copy.read_exact(&mut left[..part]).unwrap();
        stored.read_exact(&mut right[..part]).unwrap();
        assert!(left[..part] == right[..part], "{}: the MiB at {offset} differs", server.name);
    }
}

/// A WAV as Asterisk writes it, of so many bytes.
fn sound(bytes: usize, seed: u64) -> Vec<u8> {
    let size = u32::try_from(bytes).unwrap();
    let mut wav = Vec::with_capacity(bytes + 8);
    wav.write_all(b"RIFF").unwrap();
    wav.write_all(&(size - 8).to_le_bytes()).unwrap();
    wav.write_all(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data").unwrap();
    wav.write_all(&(size - 44).to_le_bytes()).unwrap();
    // Sound that no compression or deduplication makes smaller.
    let mut state = 0x1234_5678_9abc_def1_u64.wrapping_mul(seed | 1);
    while wav.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        wav.extend_from_slice(&state.to_le_bytes());
    }
    wav.truncate(bytes);
    wav
}

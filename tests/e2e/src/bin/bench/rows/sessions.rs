//! Many sessions at once, idle ones, slow ones, and one that asks for everything in advance.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use recgate_e2e::{python_program, run, wait_for};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    Bench, DEADLINE,
    gateway::{self, DAY_MS, DAY_ONE_MS, Synthetic},
    light::{Crowd, Light},
    measure::{self, Spread},
    peers::Server,
    report::Report,
};

const MIB: u64 = 1 << 20;
/// KiB of an idle session, at most.
const IDLE: f64 = 128.0;
/// Bytes a second of a slow reader.
const SLOW: u64 = 64 << 10;
/// Of its fair share, what a fast reader has to get beside slow ones.
const SHARE: f64 = 0.9;
/// Of their pace, what the slow ones have to get meanwhile: a share that is taken from them is no fair one.
const PACE: f64 = 0.9;
/// MiB that the gateway may take beyond what it takes at rest (README.md, "How much memory it takes"): read_ahead_budget
/// at its default, and for each session a connection with one channel.
const FORMULA: (f64, f64) = (256.0, 5.0);
/// KiB that a client which asks for a whole file at once may cost.
const PREFETCH: u64 = 16 << 10;

/// All log in, as many at a time as the defaults let in, then all download at once: from memory, then from storage that takes 20 ms for a read.
pub fn many(bench: &Bench, _: &[&str], report: &mut Report) {
    let count = bench.count(500, 20);
    let size = 4 * MIB;
    let source = |id, delay_ms, day: i64| Synthetic {
        id,
        count,
        size,
        delay_ms,
        start_ms: DAY_ONE_MS + day * DAY_MS,
        step_ms: 1000,
    };
    let sources = [source(2, 0, 0), source(3, 20, 1)];
    let mut fixture = gateway::prepare(bench, &sources);
    let server = gateway::start(bench, &mut fixture, &[("/S20160606", count), ("/S20160607", count)]);
    // What is kept after the first round counts as grown in the second.
    let at_rest = measure::settled(|| measure::resident(server.pid));
    for source in sources {
        let crowd = Crowd::new(bench, &server);
        let before = measure::settled(|| measure::resident(server.pid));
        measure::forget_peak(server.pid);
        let begin = Instant::now();
        let (clients, mut failed) = crowd.connect(count, false);
        let logins = begin.elapsed();
        let logged_in = measure::resident(server.pid);
        let begin = Instant::now();
        let downloads = (0..).zip(clients).map(|(index, mut client)| async move {
            let handle = client.open(&source.path(index)).await.map_err(|why| format!("OPEN: {why}"))?;
            client.read(&handle, index, size, None, |_| {}).await?;
            client.close(&handle).await?;
            Ok(client)
        });
        let (clients, failures) = crowd.all(downloads.collect());
        let seconds = begin.elapsed().as_secs_f64();
        failed.extend(failures);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let rate = (clients.len() as u64 * size / MIB) as f64 / seconds;
        let storage = if source.delay_ms == 0 { "memory".into() } else { format!("{} ms", source.delay_ms) };
        let row = format!("{count} sessions at once, {} MiB each, {storage}", size / MIB);
        report.alone(
            &row,
            format!(
                "{} failed{}; limits at their defaults; logins {:.1} s, downloads {seconds:.1} s, {rate:.0} MiB/s",
                failed.len(),
                counted(&failed),
                logins.as_secs_f64()
            ),
            "nothing fails",
            failed.is_empty(),
        );
        let peak = measure::peak(server.pid);
        crowd.leave(clients);
        measure::wait_for_rest(server.pid, Duration::from_secs(60));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (grown, most) =
            (peak.saturating_sub(at_rest) as f64 / 1024.0, FORMULA.0 + count as f64 * FORMULA.1);
        report.alone(
            format!("{row}: resident memory"),
            format!(
                "{} before, {} logged in, {} at the peak, {} after",
                mebibytes(before),
                mebibytes(logged_in),
                mebibytes(peak),
                mebibytes(measure::resident(server.pid))
            ),
            &format!("grows by ≤ {most:.0} MiB ({} MiB + {count} × {} MiB)", FORMULA.0, FORMULA.1),
            grown <= most,
        );
    }
}

/// What a session costs that has listed and read, and does nothing now.
pub fn idle(bench: &Bench, _: &[&str], report: &mut Report) {
    let count = bench.count(200, 10);
    let listed = 1000;
    let source =
        Synthetic { id: 2, count: listed, size: MIB, delay_ms: 0, start_ms: DAY_ONE_MS, step_ms: 1000 };
    let mut fixture = gateway::prepare(bench, &[source]);
    let server = gateway::start(bench, &mut fixture, &[("/S20160606", listed)]);
    let crowd = Crowd::new(bench, &server);
    let use_all = |clients: Vec<Light>| {
        let work = (0..).zip(clients).map(|(index, mut client)| async move {
            let names = client.list("/S20160606").await?;
            if (names as u64) < listed {
                return Err(format!("{names} names instead of {listed}"));
            }
            let handle = client.open(&source.path(index)).await?;
            client.read(&handle, index, MIB, None, |_| {}).await?;
            client.close(&handle).await?;
            Ok(client)
        });
        let (clients, failed) = crowd.all(work.collect());
        assert!(failed.is_empty(), "{}", counted(&failed));
        clients
    };
    let connect = |count| {
        let (clients, failed) = crowd.connect(count, false);
        assert!(failed.is_empty(), "{}", counted(&failed));
        clients
    };
    let resident = || {
        measure::wait_for_rest(server.pid, Duration::from_secs(60));
        measure::settled(|| measure::resident(server.pid))
    };
    // The first session makes what all share.
    crowd.leave(use_all(connect(1)));
    let before = resident();
    let clients = connect(count);
    let logged_in = resident();
    let clients = use_all(clients);
    let after = resident();
    crowd.leave(clients);
    let left = resident();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = |kibibytes: u64| kibibytes.saturating_sub(before) as f64 / count as f64;
    report.alone(
        format!("an idle session of {count}, after a listing of {listed} and a read of 1 MiB"),
        format!("{:.0} KiB ({:.0} KiB after the login)", each(after), each(logged_in)),
        &format!("≤ {IDLE} KiB"),
        each(after) <= IDLE,
    );
    report.note(
        format!("resident memory, {count} idle sessions"),
        format!(
            "{} before, {} with them, {} after they left",
            mebibytes(before),
            mebibytes(after),
            mebibytes(left)
        ),
    );
}

/// A fast download alone, and beside many that keep asking and take little.
pub fn slow_readers(bench: &Bench, _: &[&str], report: &mut Report) {
    let count = bench.count(200, 10);
    let sources = [
        Synthetic { id: 2, count, size: 256 * MIB, delay_ms: 0, start_ms: DAY_ONE_MS, step_ms: 1000 },
        Synthetic {
            id: 3,
            count: 1,
            size: bench.large(),
            delay_ms: 0,
            start_ms: DAY_ONE_MS + DAY_MS,
            step_ms: 1000,
        },
    ];
    let [slow, fast] = sources;
    let mut fixture = gateway::prepare(bench, &sources);
    let server = gateway::start(bench, &mut fixture, &[("/S20160606", count), ("/S20160607", 1)]);
    let batch = format!("get {} /dev/null\n", fast.path(0));
    let download = || server.sftp(bench, &[], &batch).0.seconds;
    download();

    let (mut shares, mut rates, mut clients_cpu) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
    let mut slow_rates = Vec::new();
    let mut peak = 0;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    for round in 0..bench.pairs() {
        let beside = || {
            measure::forget_peak(server.pid);
            let mut readers = SlowReaders::start(bench, &server, slow);
            let (taken, cpu, begin) = (readers.taken(), own_cpu(), Instant::now());
            let seconds = download();
            let elapsed = begin.elapsed().as_secs_f64();
            let slow_rate = (readers.taken() - taken) as f64 / elapsed;
            let cpu = (own_cpu() - cpu).as_secs_f64() / elapsed;
            let failed = readers.stop();
            assert!(failed.is_empty(), "{} of {count} slow readers ended{}", failed.len(), counted(&failed));
            (seconds, slow_rate, cpu, measure::peak(server.pid))
        };
        let (alone, (seconds, slow_rate, cpu, resident)) = if round % 2 == 0 {
            let alone = download();
            (alone, beside())
        } else {
            let beside = beside();
            (download(), beside)
        };
        let rate = |seconds: f64| bench.large() as f64 / seconds;
        let fair = rate(alone) - (count * SLOW) as f64;
        shares.push(rate(seconds) / fair);
        rates[0].push(rate(alone) / MIB as f64);
        rates[1].push(rate(seconds) / MIB as f64);
        slow_rates.push(slow_rate / (count * SLOW) as f64);
        clients_cpu.push(cpu * 100.0);
        peak = peak.max(resident);
    }
    let share = Spread::of(shares);
    let row = format!("a fast reader beside {count} slow ones ({} KiB/s)", SLOW >> 10);
    let [alone, beside] = rates.map(Spread::of);
    report.alone(
        &row,
        format!(
            "{} of its fair share ({} MiB/s alone, {} beside them)",
            share.shown(2),
            alone.shown(0),
            beside.shown(0)
        ),
        &format!("≥ {SHARE}"),
        share.middle >= SHARE,
    );
    let pace = Spread::of(slow_rates);
    report.alone(
        format!("{row}: the slow ones"),
        format!(
            "{} of their pace; their client takes {:.0} % of the core that the fast one needs, too; resident memory of \
             recgate at most {}",
            pace.shown(2),
            Spread::of(clients_cpu).middle,
            mebibytes(peak)
        ),
        &format!("≥ {PACE}"),
        pace.middle >= PACE,
    );
}

/// paramiko's `prefetch`, which asks for a whole file before it reads any of it.
pub fn prefetch(bench: &Bench, _: &[&str], report: &mut Report) {
    let size = bench.large();
    let source = Synthetic { id: 2, count: 1, size, delay_ms: 0, start_ms: DAY_ONE_MS, step_ms: 1000 };
    let mut fixture = gateway::prepare(bench, &[source]);
    let server = gateway::start(bench, &mut fixture, &[("/S20160606", 1)]);
    let fetch = |bytes: u64| {
        let mut command = Command::new(python_program("python"));
        command.args(["-c", PREFETCHER, &server.port.to_string(), &server.user]);
        command.arg(bench.key()).args([&source.path(0), &bytes.to_string()]);
        let begin = Instant::now();
        let finished = run(&mut command, b"", DEADLINE).success();
        assert_eq!(finished.stdout.trim(), bytes.to_string(), "{finished}");
        begin.elapsed().as_secs_f64()
    };
    fetch(MIB);
    measure::wait_for_rest(server.pid, Duration::from_secs(60));
    let before = measure::settled(|| measure::resident(server.pid));
    measure::forget_peak(server.pid);
    let seconds = fetch(size);
    let growth = measure::peak(server.pid).saturating_sub(before);
    report.alone(
        format!("paramiko's prefetch of {} MiB", size / MIB),
        format!("memory grows by {} from {}; {seconds:.1} s", mebibytes(growth), mebibytes(before)),
        "< 16 MiB",
        growth < PREFETCH,
    );
}

const PREFETCHER: &str = r#"
import sys
import paramiko
port, user, key, path, size = sys.argv[1:]
transport = paramiko.Transport(("127.0.0.1", int(port)))
transport.connect(username=user, pkey=paramiko.Ed25519Key.from_private_key_file(key))
sftp = paramiko.SFTPClient.from_transport(transport)
with sftp.open(path) as file:
    file.prefetch(int(size))
    got = 0
    while got < int(size):
        got += len(file.read(min(1 << 20, int(size) - got)))
print(got)
transport.close()
"#;

/// Clients that keep many requests under way and take their answers slowly.
struct SlowReaders {
    crowd: Crowd,
    taken: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

impl SlowReaders {
    /// Starts them and waits until each has read.
    fn start(bench: &Bench, server: &Server, source: Synthetic) -> Self {
        let crowd = Crowd::new(bench, server);
        let (clients, failed) = crowd.connect(source.count, true);
        assert!(failed.is_empty(), "{}", counted(&failed));
        let taken = Arc::new(AtomicU64::new(0));
        let began = Arc::new(AtomicU64::new(0));
        let tasks = (0..).zip(clients).map(|(index, mut client)| {
            let (taken, began) = (Arc::clone(&taken), Arc::clone(&began));
            crowd.spawn(async move {
                let handle = client.open(&source.path(index)).await?;
                let mut first = true;
                let progress = |bytes| {
                    taken.fetch_add(bytes, Ordering::Relaxed);
                    if std::mem::take(&mut first) {
                        began.fetch_add(1, Ordering::Relaxed);
                    }
                };
                client.read(&handle, index, source.size, Some(SLOW), progress).await
            })
        });
        let mut readers = Self { tasks: tasks.collect(), crowd, taken };
        wait_for("every slow reader to read", Duration::from_secs(60), || {
            assert!(!readers.has_lost_one(), "slow readers ended{}", counted(&readers.stop()));
            (began.load(Ordering::Relaxed) == source.count).then_some(())
        });
        readers
    }

    fn has_lost_one(&self) -> bool {
        self.tasks.iter().any(tokio::task::JoinHandle::is_finished)
    }

    /// Bytes that all of them took.
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Ends them; says why some had ended before.
    fn stop(&mut self) -> Vec<String> {
        let (ended, running): (Vec<_>, Vec<_>) =
            self.tasks.drain(..).partition(tokio::task::JoinHandle::is_finished);
        for task in &running {
            task.abort();
        }
        let ended = ended.into_iter().map(|task| async { task.await.unwrap() });
        let (whole, failed) = self.crowd.all(ended.collect());
        assert!(whole.is_empty(), "a slow reader read its whole file: it wasn't slow");
        failed
    }
}

/// CPU that this process alone has taken: as a client.
fn own_cpu() -> Duration {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(taken.tv_sec).unwrap(), u32::try_from(taken.tv_nsec).unwrap())
}

/// Why things failed: the most frequent reasons, each with how often. Numbers in them, such as offsets, don't tell
/// reasons apart.
fn counted(failed: &[String]) -> String {
    let mut reasons: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for why in failed {
        let alike = why.chars().filter(|char| !char.is_ascii_digit()).collect();
        reasons.entry(alike).or_insert((0, why)).0 += 1;
    }
    let mut reasons: Vec<(usize, &str)> = reasons.into_values().collect();
    reasons.sort_unstable_by(|left, right| right.cmp(left));
    reasons.iter().take(3).map(|(count, why)| format!(", {count} × {why:?}")).collect()
}

fn mebibytes(kibibytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mebibytes = kibibytes as f64 / 1024.0;
    format!("{mebibytes:.1} MiB")
}

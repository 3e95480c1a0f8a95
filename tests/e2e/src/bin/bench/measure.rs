//! What is measured, and how: time on the clock, CPU of whole process trees, resident memory; pairs in turn, medians.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use recgate_e2e::wait_for;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Clock ticks a second in `/proc/PID/stat`: fixed by Linux's interface.
const TICKS: f64 = 100.0;
/// A server has come to rest when it took no CPU for so long.
const REST: Duration = Duration::from_millis(500);

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds on the clock.
    pub seconds: f64,
    /// Seconds of CPU of the server's whole process tree.
    pub cpu: f64,
}

/// First quartile, median, third quartile.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

impl Spread {
    /// Of some values; there must be one.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let [low, middle, high] = [1, 2, 3].map(|quarter| {
            let at = (values.len() - 1) * quarter;
            let (low, rest) = (at / 4, at % 4);
            let high = values[(low + 1).min(values.len() - 1)];
            values[low] + (high - values[low]) * [0.0, 0.25, 0.5, 0.75][rest]
        });
        Self { low, middle, high }
    }

    /// With so many digits after the point.
    pub fn shown(self, digits: usize) -> String {
        let Self { low, middle, high } = self;
        if low.to_bits() == high.to_bits() {
            return format!("{middle:.digits$}");
        }
        format!("{middle:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// The cores of clients and servers: apart, if there are two.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// How many there are.
    pub count: usize,
    /// That of the servers, where it isn't the clients'.
    pub server: Option<usize>,
}

impl Cores {
    /// Puts this process, and so each client that it will start, on the first core that it may use; servers get the
    /// second.
    pub fn part() -> Self {
        let allowed = sched_getaffinity(None).unwrap();
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (client, server) = (cores.next().unwrap(), cores.next());
        if server.is_some() {
            let mut own = CpuSet::new();
            own.set(client);
            sched_setaffinity(None, &own).unwrap();
        }
        let count = usize::try_from(allowed.count()).unwrap();
        Self { count, server }
    }

    /// What becomes a server, on its core. It is killed when this process ends, however that comes about.
    pub fn launcher(self) -> Vec<String> {
        let mut words: Vec<String> = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        if let Some(core) = self.server {
            words.extend(["taskset".into(), "-c".into(), core.to_string()]);
        }
        words
    }
}

/// Runs each of `count` things in turn, A B … B A, so often; what each run cost, by thing.
pub fn in_turn(count: usize, rounds: usize, mut run: impl FnMut(usize) -> Cost) -> Vec<Vec<Cost>> {
    let mut costs = vec![Vec::new(); count];
    for round in 0..rounds {
        for step in 0..count {
            let which = if round % 2 == 0 { step } else { count - 1 - step };
            costs[which].push(run(which));
        }
    }
    costs
}

/// What `work` costs the server whose first process is this one, and which has so many processes at rest.
pub fn cost(server: u32, at_rest: usize, work: impl FnOnce()) -> Cost {
    let before = cpu_of_tree(server);
    let begin = Instant::now();
    work();
    let seconds = begin.elapsed().as_secs_f64();
    // The session's own processes have to end: only then their parent has their CPU.
    wait_for("the end of the server's session", Duration::from_secs(20), || {
        (processes_of(server) <= at_rest).then_some(())
    });
    Cost { seconds, cpu: cpu_of_tree(server) - before }
}

/// Waits until the process tree takes no CPU.
pub fn wait_for_rest(server: u32, deadline: Duration) {
    let mut last = (cpu_of_tree(server), Instant::now());
    wait_for("the server to come to rest", deadline, || {
        let now = cpu_of_tree(server);
        // A tick now and then is no work.
        if now - last.0 > 1.5 / TICKS {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > REST).then_some(())
    });
}

/// How many processes a server has.
pub fn processes_of(server: u32) -> usize {
    below(server, &processes()).len()
}

/// CPU seconds of a process, those that it waited for, and all that live below it.
pub fn cpu_of_tree(server: u32) -> f64 {
    let processes = processes();
    let ticks: u64 = below(server, &processes).iter().map(|pid| processes[pid].ticks).sum();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let ticks = ticks as f64;
    ticks / TICKS
}

/// Resident memory of a process now, in KiB.
pub fn resident(pid: u32) -> u64 {
    of_status(pid, "VmRSS:")
}

/// The most resident memory that a process had since [`forget_peak`], in KiB.
pub fn peak(pid: u32) -> u64 {
    of_status(pid, "VmHWM:")
}

/// Lets the peak begin anew from what is resident now (proc(5), `clear_refs`).
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// A median of a few readings of something that jitters.
pub fn settled(mut read: impl FnMut() -> u64) -> u64 {
    let mut readings: Vec<u64> = (0..5)
        .map(|_| {
            thread::sleep(Duration::from_millis(100));
            read()
        })
        .collect();
    readings.sort_unstable();
    readings[2]
}

fn of_status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status"));
    let text = text.unwrap_or_else(|error| panic!("the server, process {pid}, has ended: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
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
    assert!(processes.contains_key(&server), "the server, process {server}, has ended");
    let mut tree = vec![server];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(processes.iter().filter(|(_, process)| process.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

//! The tables.

use std::fs;

use crate::measure::{Cores, Cost, Spread};

/// Slack for noise on the CPU ratio.
const SLACK: f64 = 1.15;

/// What a row asks for, OpenSSH = 1.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Speed at least.
    pub speed: f64,
    /// Server CPU at most.
    pub cpu: f64,
}

/// All that was measured so far.
#[derive(Debug, Default)]
pub struct Report {
    beside_others: Vec<BesideOthers>,
    alone: Vec<Alone>,
    failures: Vec<(String, String)>,
}

#[derive(Debug)]
struct BesideOthers {
    row: String,
    target: Target,
    servers: Vec<(&'static str, Vec<Cost>)>,
}

#[derive(Debug)]
struct Alone {
    row: String,
    measured: String,
    /// What is asked for, and whether it is so; without one the row only informs.
    target: Option<(String, bool)>,
}

impl Report {
    /// A row in which servers stand beside one another; `openssh` is the measure, and `recgate` has the target.
    pub fn beside_others(&mut self, row: String, target: Target, servers: Vec<(&'static str, Vec<Cost>)>) {
        let row = BesideOthers { row, target, servers };
        eprintln!("{}", row.times());
        self.beside_others.push(row);
    }

    /// A row about recgate by itself.
    pub fn alone(
        &mut self,
        row: impl Into<String>,
        measured: impl Into<String>,
        target: &str,
        reached: bool,
    ) {
        let target = Some((target.to_owned(), reached));
        self.push(Alone { row: row.into(), measured: measured.into(), target });
    }

    /// Something that is good to know beside a row.
    pub fn note(&mut self, row: impl Into<String>, measured: impl Into<String>) {
        self.push(Alone { row: row.into(), measured: measured.into(), target: None });
    }

    /// A row that couldn't be measured.
    pub fn failed(&mut self, row: &str, why: String) {
        self.failures.push((row.to_owned(), why));
    }

    /// Whether each row could be measured.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }

    fn push(&mut self, row: Alone) {
        eprintln!("{}", row.shown());
        self.alone.push(row);
    }

    /// Prints all of it.
    pub fn print(&self, cores: Cores, how: &str) {
        println!("\n{}\n{how}\n", machine(cores));
        if !self.beside_others.is_empty() {
            println!(
                "Speed / CPU of the server, OpenSSH = 1.00. The quartiles are those of the rounds; a CPU ratio may \
                 exceed its target by {:.0} % for noise.\n",
                (SLACK - 1.0) * 100.0
            );
            println!("| SFTP | rclone | ProFTPD | recgate | target | verdict |");
            println!("| --- | --- | --- | --- | --- | --- |");
            for row in &self.beside_others {
                println!("{}", row.ratios());
            }
            println!("\nSeconds, and seconds of CPU of the server.\n");
            println!("| SFTP | OpenSSH | rclone | ProFTPD | recgate |");
            println!("| --- | --- | --- | --- | --- |");
            for row in &self.beside_others {
                println!("{}", row.times());
            }
        }
        if !self.alone.is_empty() {
            println!("\n| recgate | measured | target | verdict |");
            println!("| --- | --- | --- | --- |");
            for row in &self.alone {
                println!("{}", row.shown());
            }
        }
        for (row, why) in &self.failures {
            println!("\n{row} FAILED: {why}");
        }
    }
}

impl BesideOthers {
    fn costs(&self, name: &str) -> Option<&[Cost]> {
        self.servers.iter().find(|(server, _)| *server == name).map(|(_, costs)| costs.as_slice())
    }

    /// Speed and CPU, OpenSSH = 1, round by round.
    fn ratio(&self, name: &str) -> Option<(Spread, Spread)> {
        let (openssh, own) = (self.costs("openssh")?, self.costs(name)?);
        let rounds = || openssh.iter().zip(own);
        let speed = Spread::of(rounds().map(|(openssh, own)| openssh.seconds / own.seconds));
        Some((speed, Spread::of(rounds().map(|(openssh, own)| own.cpu / openssh.cpu))))
    }

    fn ratios(&self) -> String {
        let peer = |name| {
            let ratio = self.ratio(name);
            ratio.map_or("–".to_owned(), |(speed, cpu)| format!("{:.2} / {:.2}", speed.middle, cpu.middle))
        };
        let Target { speed: fast, cpu: frugal } = self.target;
        let (own, verdict) = match self.ratio("recgate") {
            Some((speed, cpu)) => {
                let verdict = match (speed.middle >= fast, cpu.middle <= frugal * SLACK) {
                    (true, true) => "reached",
                    (false, true) => "speed missed",
                    (true, false) => "CPU missed",
                    (false, false) => "missed",
                };
                (format!("{} / {}", speed.shown(2), cpu.shown(2)), verdict)
            }
            None => ("–".to_owned(), "not measured"),
        };
        format!(
            "| {} | {} | {} | {own} | ≥ {fast} / ≤ {frugal:.2} | {verdict} |",
            self.row,
            peer("rclone"),
            peer("proftpd")
        )
    }

    fn times(&self) -> String {
        let cells = ["openssh", "rclone", "proftpd", "recgate"].map(|name| match self.costs(name) {
            Some(costs) => {
                let seconds = Spread::of(costs.iter().map(|cost| cost.seconds));
                let cpu = Spread::of(costs.iter().map(|cost| cost.cpu));
                format!("{} / {:.2}", seconds.shown(2), cpu.middle)
            }
            None => "–".to_owned(),
        });
        format!("| {} | {} |", self.row, cells.join(" | "))
    }
}

impl Alone {
    fn shown(&self) -> String {
        let (target, verdict) = match &self.target {
            Some((target, reached)) => (target.as_str(), if *reached { "reached" } else { "missed" }),
            None => ("", ""),
        };
        format!("| {} | {} | {target} | {verdict} |", self.row, self.measured)
    }
}

/// The machine in a sentence.
fn machine(cores: Cores) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: u64 =
        memory.lines().next().and_then(|line| line.split_whitespace().nth(1)).unwrap().parse().unwrap();
    let apart = match cores.server {
        Some(core) => format!("servers on core {core}, clients on another"),
        None => "servers and clients share the only core, so the speeds say little".to_owned(),
    };
    format!(
        "{}, {} cores, {} GiB, Linux {}; {apart}.",
        model.map_or("a CPU without a name", |(_, name)| name),
        cores.count,
        kibibytes.div_ceil(1 << 20),
        kernel.trim(),
    )
}

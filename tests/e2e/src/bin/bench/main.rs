//! Measures recgate's SFTP door beside other servers: the same machine, clients and files, in turn.
//!
//! `cargo xtask bench [--rows A,B] [--pairs N] [--size MIB] [--quick] [--without NAME]`. Every server reads from the page
//! cache or from memory; recgate through its whole path (door, vfs, media reader, plugin). Clients and servers have a
//! core each. Servers are killed when this program ends, however that comes about.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement stops at the first thing that is wrong, and prints its result"
)]

mod gateway;
mod light;
mod measure;
mod peers;
mod report;
mod rows;

use std::{
    cell::Cell,
    env,
    ffi::OsStr,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use tempfile::TempDir;

use crate::{measure::Cores, report::Report};

/// Longer than any one program runs.
const DEADLINE: Duration = Duration::from_secs(600);

const HELP: &str = "\
Usage: cargo xtask bench [OPTION…]

Measures recgate's SFTP door beside OpenSSH, ProFTPD and rclone. Installs what is missing, with root or sudo: Debian's
openssh-client, openssh-server, proftpd-core and proftpd-mod-crypto, whose daemons aren't started (but may be enabled, for
the next start of the machine), and a Python environment with rclone in target/python.

  --rows A,B      Only these rows
  --pairs N       How often each server is measured in a row (7)
  --size MIB      Size of the large file (1024)
  --without NAME  Leave out proftpd or rclone
  --quick         Small sizes and one pair: shows that the benchmark itself works

Rows: ";

/// What all rows share.
struct Bench {
    options: Options,
    cores: Cores,
    folder: TempDir,
    key: PathBuf,
    next: Cell<u32>,
}

struct Options {
    rows: Vec<String>,
    pairs: usize,
    mebibytes: u32,
    without: Vec<String>,
    quick: bool,
}

fn main() -> ExitCode {
    if env::args_os().any(|argument| argument == "--help" || argument == "-h") {
        println!("{HELP}{}", rows::names().join(", "));
        return ExitCode::SUCCESS;
    }
    let options = match arguments() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n\n{HELP}{}", rows::names().join(", "));
            return ExitCode::from(2);
        }
    };
    let cores = Cores::part();
    let folder = TempDir::new().unwrap();
    let key = peers::make_key(&folder.path().join("client_key"));
    let bench = Bench { options, cores, folder, key, next: Cell::new(0) };
    let mut report = Report::default();
    for group in rows::GROUPS {
        let asked: Vec<&str> = group.rows.iter().copied().filter(|row| bench.asks_for(row)).collect();
        if asked.is_empty() {
            continue;
        }
        eprintln!("--- {}", asked.join(", "));
        // What fails spoils its own rows only; servers end as the stack unwinds.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (group.measure)(&bench, &asked, &mut report))) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
            report.failed(&asked.join(", "), text.to_owned());
        }
    }
    let Options { pairs, mebibytes, quick, .. } = bench.options;
    let quickly =
        if quick { " Small sizes, for a test of the benchmark: these figures say nothing." } else { "" };
    report.print(cores, &format!("{pairs} rounds in turn, the large file has {mebibytes} MiB.{quickly}"));
    if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Bench {
    /// Its folder.
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path within it that nothing else has.
    fn new_path(&self, name: &str) -> PathBuf {
        let number = self.next.get();
        self.next.set(number + 1);
        self.path().join(format!("{name}-{number}"))
    }

    fn new_folder(&self, name: &str) -> PathBuf {
        let folder = self.new_path(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// The private key of every client; the public one lies beside it.
    fn key(&self) -> &Path {
        &self.key
    }

    /// A server that is to run on the servers' core.
    fn launch(&self, program: &Path) -> Command {
        let words = self.cores.launcher();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    fn asks_for(&self, row: &str) -> bool {
        let rows = &self.options.rows;
        rows.is_empty() || rows.iter().any(|asked| asked == row)
    }

    fn has(&self, server: &str) -> bool {
        !self.options.without.iter().any(|without| without == server)
    }

    fn pairs(&self) -> usize {
        self.options.pairs
    }

    /// Bytes of the large file.
    fn large(&self) -> u64 {
        u64::from(self.options.mebibytes) << 20
    }

    /// `full`, or less where it is quick.
    fn count(&self, full: u64, quick: u64) -> u64 {
        if self.options.quick { quick } else { full }
    }
}

fn arguments() -> Result<Options, String> {
    let mut options =
        Options { rows: Vec::new(), pairs: 7, mebibytes: 1024, without: Vec::new(), quick: false };
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let argument = argument.to_str().ok_or("an argument isn't text")?;
        if argument == "--quick" {
            options = Options { quick: true, pairs: 1, mebibytes: 16, ..options };
            continue;
        }
        let value = arguments.next();
        let value = value.as_deref().and_then(OsStr::to_str).ok_or(format!("{argument}: what?"))?;
        let number = || match value.parse::<u32>() {
            // A WAV has at most 4095 MiB.
            Ok(number @ 1..=4095) => Ok(number),
            _ => Err(format!("{argument} {value}: a number from 1 to 4095 is needed")),
        };
        let among = |known: &[&str]| {
            let names: Vec<String> = value.split(',').map(str::to_owned).collect();
            match names.iter().find(|name| !known.contains(&name.as_str())) {
                None => Ok(names),
                Some(name) => {
                    Err(format!("{argument} {name}: there is no such one, but {}", known.join(", ")))
                }
            }
        };
        match argument {
            "--rows" => options.rows.extend(among(&rows::names())?),
            "--without" => options.without.extend(among(&["proftpd", "rclone"])?),
            "--pairs" => options.pairs = number()? as usize,
            "--size" => options.mebibytes = number()?,
            _ => return Err(format!("{argument}: there is no such option")),
        }
    }
    Ok(options)
}

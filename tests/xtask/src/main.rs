//! What is done to the workspace: `cargo xtask demo | test | bench | fuzz`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

mod fuzz;
mod machine;
mod python;

use std::{
    env,
    ffi::OsString,
    num::NonZero,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

const HELP: &str = "\
Usage: cargo xtask COMMAND

Commands:
  demo [ARG…]   Build the release, then run `recgate demo ARG…`: two tenants with recordings, served over SFTP
  test [ARG…]   Install what the tests need, build the release, run every test and a little of each fuzz target.
                With ARG…, which goes to `cargo test`, no fuzz target
  bench [ARG…]  Install what is measured, measure the SFTP door beside other servers (--help says more)
  fuzz SECONDS [TARGET]
                Run each fuzz target (or one) so long, from where it left off; see tests/fuzz/README.md

What is missing is installed from Debian's packages, with root or sudo: for test clients, a display without a screen, a
C++ compiler and recordings; for bench openssh-client, openssh-server, proftpd-core and proftpd-mod-crypto; for fuzz
g++. No daemon is started by that; those of bench may be enabled, and then start with the machine the next time. test
and bench also make a Python environment in target/python, whose packages come from the network.

Environment:
  RECGATE_BIN           Drive this executable in tests and benchmarks; its folder holds its plugins. It isn't built then
  RECGATE_TEST_PLUGINS  The folder of the plugins that misbehave in tests. They aren't built then
  RECGATE_PYTHON        The Python environment with what tests/e2e/python/requirements.txt lists. It isn't made then
  RUST_TEST_THREADS     Run so many tests side by side, instead of two for each processor";

/// What the tests run besides Rust: an executable or a file, and the Debian package that has it.
const TEST_NEEDS: &[machine::Need] = &[
    machine::Need::program("sftp", "openssh-client"),
    machine::Need::program("ssh-keygen", "openssh-client"),
    machine::Need::program("ssh-keyscan", "openssh-client"),
    machine::Need::program("scp", "openssh-client"),
    machine::Need::program("lftp", "lftp"),
    machine::Need::program("sshfs", "sshfs"),
    machine::Need::program("fusermount3", "fuse3"),
    machine::Need::program("rsync", "rsync"),
    machine::Need::program("psftp", "putty-tools"),
    machine::Need::program("pscp", "putty-tools"),
    machine::Need::program("puttygen", "putty-tools"),
    machine::Need::program("curl", "curl"),
    machine::Need::program("filezilla", "filezilla"),
    machine::Need::program("Xvfb", "xvfb"),
    machine::Need::program("xdotool", "xdotool"),
    machine::Need::program("import", "imagemagick"),
    machine::Need::program("taskset", "util-linux"),
    machine::Need::program("setpriv", "util-linux"),
    machine::Need::python("ensurepip", "python3-venv"),
    FUZZ_NEED,
    machine::Need::folder("/usr/share/asterisk/sounds/en_US_f_Allison", "asterisk-core-sounds-en-wav"),
    machine::Need::folder("/usr/share/asterisk/moh", "asterisk-moh-opsound-wav"),
];

/// How many tests run side by side, for each processor.
const TESTS_PER_PROCESSOR: usize = 2;

/// Compiles libFuzzer.
const FUZZ_NEED: machine::Need = machine::Need::program("c++", "g++");

/// What the benchmark runs besides Rust.
const BENCH_NEEDS: &[machine::Need] = &[
    machine::Need::program("sftp", "openssh-client"),
    machine::Need::program("ssh-keygen", "openssh-client"),
    machine::Need::program("sshd", "openssh-server"),
    machine::Need::program("taskset", "util-linux"),
    machine::Need::program("setpriv", "util-linux"),
    machine::Need::python("ensurepip", "python3-venv"),
];

/// One of the servers that recgate is measured beside.
const PROFTPD_NEEDS: &[machine::Need] = &[
    machine::Need::program("proftpd", "proftpd-core"),
    machine::Need::file("/usr/lib/proftpd/mod_sftp.so", "proftpd-mod-crypto"),
];

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let done = match command.to_str() {
        Some("demo") => demo(&rest),
        Some("test") => test(&rest),
        Some("bench") => bench(&rest),
        Some("fuzz") => fuzz(&rest),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{HELP}");
            Ok(ExitCode::from(2))
        }
    };
    done.unwrap_or_else(|message| {
        eprintln!("xtask: {message}");
        ExitCode::FAILURE
    })
}

/// Replaces itself with the demo, so that signals and the exit code are the demo's own.
fn demo(args: &[OsString]) -> Result<ExitCode, String> {
    run(cargo().args(["build", "--release"]))?;
    let recgate = target_folder().join("release/recgate");
    let error = Command::new(&recgate).arg("demo").args(args).exec();
    Err(format!("{}: {error}", recgate.display()))
}

fn test(args: &[OsString]) -> Result<ExitCode, String> {
    machine::provide(TEST_NEEDS)?;
    let recgate = release()?;
    let plugins = test_plugins()?;
    let python = python()?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(args);
    test.env("RECGATE_BIN", recgate).env("RECGATE_TEST_PLUGINS", plugins).env("RECGATE_PYTHON", python);
    // Most tests wait for others' programs: a thread for each processor would leave the machine idle.
    if env::var_os("RUST_TEST_THREADS").is_none() {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        test.env("RUST_TEST_THREADS", processors.saturating_mul(TESTS_PER_PROCESSOR).to_string());
    }
    run(&mut test)?;
    if args.is_empty() {
        fuzz::run(cargo(), root(), &target_folder(), None, &fuzz::Length::Smoke)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fuzz(args: &[OsString]) -> Result<ExitCode, String> {
    machine::provide(&[FUZZ_NEED])?;
    let text = |at: usize| args.get(at).and_then(|arg| arg.to_str());
    // 0 is for ever to libFuzzer.
    let seconds = text(0).and_then(|seconds| seconds.parse().ok());
    let seconds = seconds.ok_or("how many seconds for each target? At least 1")?;
    fuzz::run(cargo(), root(), &target_folder(), text(1), &fuzz::Length::Seconds(seconds))?;
    Ok(ExitCode::SUCCESS)
}

fn bench(args: &[OsString]) -> Result<ExitCode, String> {
    machine::provide(BENCH_NEEDS)?;
    let without = args.windows(2).filter(|pair| matches!(pair, [option, _] if option == "--without"));
    if !without.flatten().any(|names| names.to_string_lossy().split(',').any(|name| name == "proftpd")) {
        machine::provide(PROFTPD_NEEDS)?;
    }
    let recgate = release()?;
    let plugins = test_plugins()?;
    let python = python()?;
    // It starts the programs that are measured and is at most a client of theirs: its own speed hardly matters.
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--package", "recgate-e2e", "--bin", "bench", "--"]);
    bench.env("RECGATE_BIN", recgate).env("RECGATE_TEST_PLUGINS", plugins).env("RECGATE_PYTHON", python);
    run(bench.args(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds what is installed: the daemon and its plugins. Says where the daemon is.
fn release() -> Result<PathBuf, String> {
    if let Some(recgate) = given("RECGATE_BIN")? {
        return Ok(recgate);
    }
    run(cargo().args(["build", "--release"]))?;
    Ok(target_folder().join("release/recgate"))
}

/// Builds the plugins that misbehave. Says in which folder they are: one of their own, because what lies beside the
/// daemon passes for the gateway's own.
fn test_plugins() -> Result<PathBuf, String> {
    if let Some(folder) = given("RECGATE_TEST_PLUGINS")? {
        return Ok(folder);
    }
    let target = target_folder().join("conformance");
    let packages = ["--package", "recgate-broken-plugin", "--package", "recgate-wrong-major"];
    run(cargo().args(["build", "--release"]).args(packages).arg("--target-dir").arg(&target))?;
    Ok(target.join("release"))
}

/// Makes the Python environment with the clients and tools that are Python packages. Says where it is.
fn python() -> Result<PathBuf, String> {
    if let Some(folder) = given("RECGATE_PYTHON")? {
        return Ok(folder);
    }
    python::provide(&target_folder().join("python"), &root().join("tests/e2e/python/requirements.txt"))
}

/// The path in a variable of the environment, which must exist.
fn given(variable: &str) -> Result<Option<PathBuf>, String> {
    let Some(given) = env::var_os(variable).map(PathBuf::from) else { return Ok(None) };
    given.canonicalize().map(Some).map_err(|error| format!("{variable}, {}: {error}", given.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    println!("xtask: {}", machine::shown(command));
    let status = command.status().map_err(|error| format!("{}: {error}", machine::shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", machine::shown(command))) }
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

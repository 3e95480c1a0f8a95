//! The fuzz targets of `tests/fuzz`, with libFuzzer and stable Rust.

use std::{
    fs::{self, File},
    num::NonZeroU32,
    path::Path,
    process::{Command, Stdio},
};

use crate::machine::shown;

/// A target, and how many inputs the smoke run tries: a few seconds' worth.
const TARGETS: &[(&str, u32)] = &[
    ("sftp_packets", 300_000),
    ("greeting", 100_000),
    ("proxy", 100_000),
    ("paths", 100_000),
    ("config", 40_000),
    ("wav_header", 100_000),
    ("archive_index", 100_000),
];

/// The packages that the targets exercise: without optimisation they would take a minute each. The profile for tests has
/// the others optimised anyway.
const OPTIMISED: [&str; 6] = [
    "recgate",
    "recgate-fuzz",
    "recgate-plugin-api",
    "recgate-plugin-archive8x8",
    "recgate-plugin-common",
    "recgate-plugin-wazo",
];

/// More than any input takes, in seconds.
const TIMEOUT: u32 = 10;
/// More than any target takes, in MiB.
const MEMORY: u32 = 512;

/// How long targets run.
pub enum Length {
    /// A fixed number of inputs, the same ones each time.
    Smoke,
    /// So many seconds each, beginning from what earlier runs have found.
    Seconds(NonZeroU32),
}

/// Builds the targets and runs each; of one name alone where it is given.
///
/// # Errors
/// Says which target failed and where its input lies.
pub fn run(
    cargo: Command,
    root: &Path,
    target: &Path,
    only: Option<&str>,
    length: &Length,
) -> Result<(), String> {
    if let Some(unknown) = only.filter(|name| TARGETS.iter().all(|(target, _)| target != name)) {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no fuzz target {unknown}; there are {}", names.join(", ")));
    }
    build(cargo, root)?;
    for (name, runs) in TARGETS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        one(root, target, name, *runs, length)?;
    }
    Ok(())
}

/// Only the workspace's packages are compiled for it, see `tests/fuzz/rustc`: it takes a minute, not ten.
fn build(mut cargo: Command, root: &Path) -> Result<(), String> {
    cargo.args(["build", "--package", "recgate-fuzz", "--bins"]);
    for package in OPTIMISED {
        cargo.args(["--config", &format!("profile.dev.package.{package}.opt-level=1")]);
    }
    crate::run(cargo.env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/fuzz/rustc")))
}

fn one(root: &Path, target: &Path, name: &str, runs: u32, length: &Length) -> Result<(), String> {
    let folder = target.join("fuzz");
    let artifacts = folder.join("artifacts").join(name);
    // libFuzzer adds what it finds to the first corpus that it is given: never to the one that is checked in.
    let found = match length {
        Length::Smoke => folder.join("smoke").join(name),
        Length::Seconds(_) => folder.join("corpus").join(name),
    };
    if matches!(length, Length::Smoke) && found.exists() {
        fs::remove_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    }
    for folder in [&artifacts, &found] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut command = Command::new(target.join("debug").join(name));
    command.arg(&found).arg(root.join("tests/fuzz/corpus").join(name));
    if name == "config" {
        command.arg(root.join("config"));
    }
    match length {
        Length::Smoke => command.arg(format!("-runs={runs}")).arg("-seed=1"),
        Length::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
    };
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    println!("xtask: {}", shown(&command));

    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status();
    let status = status.map_err(|error| format!("{}: {error}", shown(&command)))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
    let program = command.get_program().to_string_lossy();
    let again: Vec<String> = written(&text).map(|input| format!("{program} {input}")).collect();
    Err(format!("the fuzz target {name} failed ({status}):\n{end}\nTo see it again: {}", again.join("; ")))
}

/// The inputs that libFuzzer kept because they failed. Their names are hashes: one that fails again is there before.
fn written(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_failed_before_is_told_again() {
        let log = "==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='/t/artifacts/paths/'; \
                   Test unit written to /t/artifacts/paths/crash-da39\nBase64: AA==\n";
        assert_eq!(written(log).collect::<Vec<_>>(), ["/t/artifacts/paths/crash-da39"]);
        assert_eq!(written("").count(), 0);
    }
}

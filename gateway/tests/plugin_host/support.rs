//! Libraries to load, and a way to wait.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use recgate::sources::{CallLimits, Instance, Plugin, Plugins, SourceError, Trust};
use serde_json::Value;
use tempfile::TempDir;

/// The folder that cargo puts this build's libraries into.
fn build_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // …/target/<profile>/deps/plugin_host-…
        let program = std::env::current_exe().unwrap();
        let folder = program.parent().unwrap().parent().unwrap().to_owned();
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--profile", profile])
            .args(["-p", "recgate-broken-plugin", "-p", "recgate-wrong-major", "--target-dir"])
            .arg(folder.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    })
}

/// A copy of a library that cargo built, alone in a folder with safe permissions.
pub fn folder_with(library: &str) -> TempDir {
    let folder = safe_folder();
    fs::copy(build_folder().join(library), folder.path().join(library)).unwrap();
    folder
}

pub fn safe_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub const BROKEN: &str = "librecgate_broken.so";
pub const WRONG_MAJOR: &str = "librecgate_wrong_major.so";

/// Compiles the example in C, with some of its text replaced, into a folder.
pub fn compile_c(folder: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = fs::read_to_string(root.join("plugins/examples/minimal-c/minimal.c")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} isn't in the example");
        text = text.replace(from, to);
    }
    let source = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
    fs::write(&source, text).unwrap();
    let library = folder.join(name);
    let output = Command::new("cc")
        .args(["-std=c11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wpedantic", "-I"])
        .arg(root.join("plugin-api/include"))
        .arg("-o")
        .args([&library, source.path()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

pub const TRUSTED: Trust = Trust { in_process: true, sha256: None };

/// The plugin that misbehaves.
pub fn broken() -> Arc<Plugin> {
    static PLUGIN: OnceLock<Arc<Plugin>> = OnceLock::new();
    let load = || {
        let folder = folder_with(BROKEN);
        Plugins::new(None, vec![folder.path().to_owned()]).load("broken", TRUSTED).unwrap()
    };
    Arc::clone(PLUGIN.get_or_init(load))
}

/// A deadline that a machine under load keeps.
pub const PATIENT: CallLimits = CallLimits { timeout: Duration::from_secs(60), max_calls: 0 };
/// A deadline for calls that are meant to miss it.
pub const HASTY: CallLimits = CallLimits { timeout: Duration::from_millis(400), max_calls: 0 };

pub fn try_source(name: &str, settings: Value, limits: CallLimits) -> Result<Arc<Instance>, SourceError> {
    broken().create(name, &settings, limits)
}

pub fn source(name: &str, settings: Value, limits: CallLimits) -> Arc<Instance> {
    try_source(name, settings, limits).unwrap()
}

/// What the plugin's documentation says about its bytes.
pub fn content(id: &str, offset: u64, length: usize) -> Vec<u8> {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let seed = id.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let byte = |o: u64| ((o / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed).to_le_bytes()[(o % 8) as usize];
    (offset..offset + length as u64).map(byte).collect()
}

/// Waits until something is so; panics with `what` after a minute.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Threads of this process with this name.
pub fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == name)
        .count()
}

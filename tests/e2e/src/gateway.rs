//! A running gateway.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::wait_for;

/// The release build that is driven: `RECGATE_BIN`, or where `cargo build --release` puts it.
pub fn recgate() -> PathBuf {
    let path = given("RECGATE_BIN", "target/release/recgate");
    assert!(
        path.is_file(),
        "there is no {}: these tests drive a release build. Run `cargo xtask test`, which makes it; or build it with \
         `cargo build --release`; or set RECGATE_BIN to another",
        path.display()
    );
    path
}

/// The folder of the plugins that misbehave: `RECGATE_TEST_PLUGINS`, or where `cargo xtask test` puts them.
pub fn test_plugins() -> PathBuf {
    let folder = given("RECGATE_TEST_PLUGINS", "target/conformance/release");
    for plugin in ["librecgate_broken.so", "librecgate_wrong_major.so"] {
        assert!(
            folder.join(plugin).is_file(),
            "there is no {plugin} in {}: these tests load plugins that misbehave. Run `cargo xtask test`, which makes \
             them; or build them with `cargo build --release -p recgate-broken-plugin -p recgate-wrong-major \
             --target-dir target/conformance`; or set RECGATE_TEST_PLUGINS to their folder",
            folder.display()
        );
    }
    folder
}

/// A program of the tests' Python environment, such as `python` or `rclone`: the environment lies at `RECGATE_PYTHON`,
/// or where `cargo xtask test` puts it.
pub fn python_program(name: &str) -> PathBuf {
    let program = given("RECGATE_PYTHON", "target/python").join("bin").join(name);
    assert!(
        program.is_file(),
        "there is no {}: it comes as a Python package. Run `cargo xtask test`, which makes the environment; or make it \
         with `python3 -m venv` and `pip install -r tests/e2e/python/requirements.txt`; or set RECGATE_PYTHON to \
         another",
        program.display()
    );
    program
}

/// The folder of what is kept of a test run for people to look at: `RECGATE_ARTEFACTS`, or `target/e2e-artefacts`.
pub fn artefacts() -> PathBuf {
    let folder = given("RECGATE_ARTEFACTS", "target/e2e-artefacts");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The path in a variable of the environment, or else this one below the workspace's root.
fn given(variable: &str, built: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    env::var_os(variable).map_or_else(|| root.join(built), PathBuf::from)
}

/// What the ready file says.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The SFTP door's port on 127.0.0.1.
    pub port: u16,
    /// `SHA256:…` of its host key.
    pub host_key_sha256: String,
    /// Login and password of each user that a demo made.
    pub users: BTreeMap<String, String>,
    /// All of it.
    pub json: Value,
}

/// A gateway process; dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    log: PathBuf,
    stdout: PathBuf,
    /// Where it listens.
    pub ready: Ready,
}

impl Gateway {
    /// Starts `recgate ARGS… --ready-file …` and waits until it listens. Its log (standard error) goes on in
    /// `folder/gateway.log`.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_through(&[], folder, args)
    }

    /// The same through programs that become the gateway, as `taskset -c 1` does.
    pub fn start_through(through: &[&str], folder: &Path, args: &[&str]) -> Self {
        let log = folder.join("gateway.log");
        let ready_file = folder.join("ready.json");
        drop(fs::remove_file(&ready_file));
        let stdout = folder.join("gateway.stdout");
        let append = |path| File::options().create(true).append(true).open(path).unwrap();
        let gateway = recgate();
        let mut words = through.iter().map(OsStr::new).chain([gateway.as_os_str()]);
        let child = Command::new(words.next().unwrap())
            .args(words)
            .args(args)
            .arg("--ready-file")
            .arg(&ready_file)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .stderr(append(&log))
            .spawn()
            .unwrap();
        let mut starting = Starting { child: Some(child), log: log.clone() };
        let ready = wait_for("the gateway's ready file", Duration::from_secs(60), || {
            if let Some(status) = starting.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the gateway ended while it started: {status}");
            }
            let text = fs::read_to_string(&ready_file).ok()?;
            Some(read_ready(&serde_json::from_str(&text).ok()?))
        });
        Self { child: starting.child.take().unwrap(), log, stdout, ready }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self, deadline: Duration) -> ExitStatus {
        wait_for("the gateway's end", deadline, || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and the wait for its end, which must be a good one.
    pub fn stop(self) {
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(60));
        assert!(status.success(), "the gateway ended with {status}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All that it has logged, also before a restart.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// All that it has printed to standard output, also before a restart.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// Waits until the log holds all of these words in one line.
    pub fn wait_for_log(&self, words: &[&str]) {
        wait_for(&format!("a line of the log with {words:?}"), Duration::from_secs(30), || {
            self.log().lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        show_log(&self.log);
    }
}

/// A gateway that doesn't listen yet: killed when its start takes too long.
struct Starting {
    child: Option<Child>,
    log: PathBuf,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
            show_log(&self.log);
        }
    }
}

fn show_log(log: &Path) {
    if thread::panicking() {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- the gateway's log\n{}", lines[lines.len().saturating_sub(200)..].join("\n"));
    }
}

fn read_ready(json: &Value) -> Ready {
    let door = &json["doors"]["sftp"];
    let address: std::net::SocketAddr = door["address"].as_str().unwrap().parse().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let users = json["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ready {
        port: address.port(),
        host_key_sha256: text(&door["host_key_sha256"]),
        users: users.iter().map(|user| (text(&user["login"]), text(&user["password"]))).collect(),
        json: json.clone(),
    }
}

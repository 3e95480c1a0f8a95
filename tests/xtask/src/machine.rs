//! Programs and data that tests need of the machine, from Debian's packages.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

/// One thing that has to be there.
pub struct Need {
    what: What,
    package: &'static str,
}

enum What {
    Program(&'static str),
    Folder(&'static str),
    File(&'static str),
    PythonModule(&'static str),
}

impl Need {
    /// A program in the search path.
    pub const fn program(name: &'static str, package: &'static str) -> Self {
        Self { what: What::Program(name), package }
    }

    /// A folder with data.
    pub const fn folder(path: &'static str, package: &'static str) -> Self {
        Self { what: What::Folder(path), package }
    }

    /// A file.
    pub const fn file(path: &'static str, package: &'static str) -> Self {
        Self { what: What::File(path), package }
    }

    /// A module of the `python3` in the search path.
    pub const fn python(module: &'static str, package: &'static str) -> Self {
        Self { what: What::PythonModule(module), package }
    }

    fn is_there(&self) -> bool {
        match self.what {
            What::Program(name) => find(name),
            What::Folder(path) => Path::new(path).is_dir(),
            What::File(path) => Path::new(path).is_file(),
            What::PythonModule(name) => imports(name),
        }
    }

    fn name(&self) -> String {
        match self.what {
            What::Program(name) | What::Folder(name) | What::File(name) => name.to_owned(),
            What::PythonModule(name) => format!("Python's module {name}"),
        }
    }
}

/// Installs what is missing. Daemons among it aren't started.
///
/// # Errors
/// Names each thing that is still missing, with its package: nothing is ever skipped for want of a tool.
pub fn provide(needs: &[Need]) -> Result<(), String> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    println!("xtask: installing {}", packages.join(" "));
    let installed = install(&packages);
    let still: Vec<String> = self::missing(needs)
        .iter()
        .map(|need| format!("{} (Debian package {})", need.name(), need.package))
        .collect();
    match (still.is_empty(), installed) {
        (true, _) => Ok(()),
        (false, Ok(())) => Err(format!("installed, but still missing: {}", still.join(", "))),
        (false, Err(error)) => {
            Err(format!("missing: {}. {error}. Install them and run this again", still.join(", ")))
        }
    }
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn missing(needs: &[Need]) -> Vec<&Need> {
    needs.iter().filter(|need| !need.is_there()).collect()
}

/// What installs packages without starting the daemons that some of them have: for invoke-rc.d and deb-systemd-invoke a
/// policy-rc.d that answers 101 forbids it. One that is there already is somebody's decision, as in a container.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
"#;

fn install(packages: &[&str]) -> Result<(), String> {
    if !find("apt-get") {
        return Err("there is no apt-get here to install them with".into());
    }
    let is_root = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?,
    ) == 0;
    let mut command = if is_root {
        Command::new("sh")
    } else if find("sudo") {
        let mut sudo = Command::new("sudo");
        // Never asks for a password: nobody may be there to type it.
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        return Err("apt-get needs root, and there is no sudo".into());
    };
    command.args(["-c", INSTALL, "sh"]).args(packages).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|error| format!("apt-get: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get failed ({status})")) }
}

/// Whether a program is in the search path or where Debian puts daemons.
fn find(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}

fn imports(module: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("import {module}")]);
    let ran = python.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

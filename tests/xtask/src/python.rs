//! A Python of the tests' own, with the clients and tools that come as Python packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::machine::shown;

/// Makes the environment in `folder` with what `requirements` lists, unless it is there already and of these
/// requirements.
///
/// # Errors
/// Says which command failed. A half-made environment is made anew by the next call.
pub fn provide(folder: &Path, requirements: &Path) -> Result<PathBuf, String> {
    let wanted = wanted(requirements)?;
    let stamp = folder.join("requirements-stamp");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) && runs(folder) {
        return Ok(folder.to_owned());
    }
    println!("xtask: making {} of {}", folder.display(), requirements.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    quietly(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut install = Command::new(folder.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    quietly(install.arg(requirements))?;
    // Last: without it, the folder counts as half made.
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(folder.to_owned())
}

/// What the stamp of an environment has to say: its requirements, and the Python that it was made with.
fn wanted(requirements: &Path) -> Result<String, String> {
    let listed =
        fs::read_to_string(requirements).map_err(|error| format!("{}: {error}", requirements.display()))?;
    let mut ask = Command::new("python3");
    ask.args(["-c", "import sys; print(sys.version, sys.base_prefix)"]).stdin(Stdio::null());
    let python = ask.output().map_err(|error| format!("{}: {error}", shown(&ask)))?;
    Ok(format!("{}{listed}", String::from_utf8_lossy(&python.stdout)))
}

/// Whether its Python starts: the one that it was made with may be gone.
fn runs(folder: &Path) -> bool {
    quietly(Command::new(folder.join("bin/python")).args(["-c", ""])).is_ok()
}

fn quietly(command: &mut Command) -> Result<(), String> {
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = ran.map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", shown(command))) }
}

//! Python's SSH libraries, driven by the scripts in `tests/e2e/python`.

use std::{path::Path, process::Command};

use super::{DEADLINE, Login};
use crate::{
    command::{Finished, run},
    gateway::python_program,
};

impl Login {
    /// Runs a script of `tests/e2e/python` with these arguments. It learns the login from its environment.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new(python_program("python"));
        self.settle(&mut command);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script)).args(arguments);
        command
            .env("E2E_PORT", self.port.to_string())
            .env("E2E_USER", &self.user)
            .env("E2E_KNOWN_HOSTS", self.known_hosts())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        match &self.key {
            Some(key) => command.env("E2E_KEY", key),
            None => command.env("E2E_PASSWORD", &self.password),
        };
        run(&mut command, b"", DEADLINE)
    }
}

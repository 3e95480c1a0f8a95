//! curl, which speaks SFTP with libssh2.

use std::process::Command;

use super::{DEADLINE, Login};
use crate::command::{Finished, run};

impl Login {
    /// Runs `curl` with these arguments on a path of the tree, which begins with `/`.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Finished {
        // It reads ~/.ssh/known_hosts and accepts no other host.
        self.known_hosts();
        let mut command = Command::new("curl");
        self.settle(&mut command);
        command.args(["--disable", "--silent", "--show-error", "--user"]);
        match &self.key {
            Some(key) => {
                command.arg(format!("{}:", self.user)).arg("--key").arg(key);
                command.arg("--pubkey").arg(format!("{}.pub", key.display()));
            }
            None => {
                command.arg(format!("{}:{}", self.user, self.password));
            }
        }
        command.args(arguments).arg(format!("sftp://127.0.0.1:{}{path}", self.port));
        run(&mut command, b"", DEADLINE)
    }
}

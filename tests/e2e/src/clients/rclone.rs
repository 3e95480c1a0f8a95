//! rclone's sftp backend.

use std::{fs, process::Command};

use super::{DEADLINE, Login};
use crate::{
    command::{Finished, run},
    gateway::python_program,
};

impl Login {
    /// Runs `rclone` with these arguments. The gateway is the remote `gateway:`.
    pub fn rclone(&self, arguments: &[&str]) -> Finished {
        let rclone = python_program("rclone");
        let secret = match &self.key {
            Some(key) => format!("key_file = {}", key.display()),
            None => {
                let hidden = run(Command::new(&rclone).args(["obscure", &self.password]), b"", DEADLINE);
                format!("pass = {}", hidden.success().stdout.trim())
            }
        };
        let config = self.home.join("rclone.conf");
        let text = format!(
            "[gateway]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {}\n{secret}\nknown_hosts_file = {}\n",
            self.port,
            self.user,
            self.known_hosts().display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(rclone);
        self.settle(&mut command);
        run(command.arg("--config").arg(&config).args(arguments), b"", DEADLINE)
    }
}

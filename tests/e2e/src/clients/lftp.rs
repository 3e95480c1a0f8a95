//! lftp, which speaks SFTP over OpenSSH's `ssh`.

use std::{fs, process::Command};

use super::{DEADLINE, Login};
use crate::command::{Finished, run};

impl Login {
    /// Runs `lftp` with these commands on an open connection.
    pub fn lftp(&self, commands: &str) -> Finished {
        let options = self.ssh_options().join(" ");
        let Self { port, user, password, .. } = self;
        let script = format!(
            "set sftp:connect-program \"ssh -a -x -F /dev/null {options}\"\n\
             set net:max-retries 2\nset net:timeout 30\nset cmd:fail-exit yes\nset xfer:clobber yes\n\
             open -p {port} -u \"{user},{password}\" sftp://127.0.0.1\n{commands}\n"
        );
        let file = self.home.join("script.lftp");
        fs::write(&file, script).unwrap();
        let mut command = Command::new("lftp");
        self.settle(&mut command);
        command.arg("--norc").arg("-f").arg(&file).env("LFTP_HOME", &self.home);
        run(&mut command, b"", DEADLINE)
    }
}

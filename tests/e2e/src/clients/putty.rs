//! PuTTY's `psftp` and `pscp`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{DEADLINE, Login};
use crate::command::{Finished, run};

impl Login {
    /// Runs `psftp` with these commands: it ends at the first that fails.
    pub fn psftp(&self, batch: &str) -> Finished {
        run(&mut self.psftp_with(batch), b"", DEADLINE)
    }

    /// The same over a line that breaks. psftp 0.78 may wait for ever then, and is ended after half a minute, as somebody
    /// would who waits for it.
    pub fn psftp_for_a_while(&self, batch: &str) -> Finished {
        let psftp = self.psftp_with(batch);
        let mut command = Command::new("timeout");
        self.settle(&mut command);
        command.args(["--kill-after=5", "30"]).arg(psftp.get_program()).args(psftp.get_args());
        run(&mut command, b"", DEADLINE)
    }

    fn psftp_with(&self, batch: &str) -> Command {
        let file = self.home.join("batch.psftp");
        fs::write(&file, batch).unwrap();
        let mut command = self.putty("psftp");
        command.arg("-b").arg(&file).arg("127.0.0.1");
        command
    }

    /// Runs `pscp` with these arguments. The host is `127.0.0.1`.
    pub fn pscp(&self, arguments: &[&str]) -> Finished {
        run(self.putty("pscp").args(arguments), b"", DEADLINE)
    }

    fn putty(&self, program: &str) -> Command {
        self.putty_trust();
        let mut command = Command::new(program);
        self.settle(&mut command);
        command.args(["-batch", "-noagent", "-P"]).arg(self.port.to_string()).args(["-l", &self.user]);
        match &self.key {
            Some(key) => command.arg("-i").arg(self.putty_key(key)),
            None => command.args(["-pw", &self.password]),
        };
        command
    }

    /// `~/.putty/sshhostkeys` with the gateway's key, which FileZilla reads too.
    pub(super) fn putty_trust(&self) {
        let cache = self.home.join(".putty/sshhostkeys");
        let known = fs::read_to_string(&cache).unwrap_or_default();
        let (direct, wanted) =
            (format!("@{}:127.0.0.1 ", self.gateway_port), format!("@{}:127.0.0.1 ", self.port));
        if known.contains(&wanted) {
            return;
        }
        // Without it PuTTY would look for the home of the machine's user.
        fs::create_dir_all(cache.parent().unwrap()).unwrap();
        if !known.contains(&direct) {
            let mut ask = Command::new("psftp");
            self.settle(&mut ask);
            // Nobody logs in: without a password it ends after the question about the host key.
            ask.args(["-noagent", "-P"]).arg(self.gateway_port.to_string()).args(["-l", &self.user]);
            let asked = run(ask.arg("127.0.0.1"), b"y\n", DEADLINE);
            assert!(
                fs::read_to_string(&cache).unwrap_or_default().contains(&direct),
                "psftp hasn't stored the host key: {asked}"
            );
        }
        let known = fs::read_to_string(&cache).unwrap();
        if !known.contains(&wanted) {
            let line = known.lines().find(|line| line.contains(&direct)).unwrap().replace(&direct, &wanted);
            fs::write(&cache, format!("{known}{line}\n")).unwrap();
        }
    }

    /// A private key in PuTTY's form, beside the one in OpenSSH's.
    pub(super) fn putty_key(&self, key: &Path) -> PathBuf {
        let converted = key.with_extension("ppk");
        if !converted.exists() {
            let mut convert = Command::new("puttygen");
            self.settle(&mut convert);
            convert.arg(key).args(["-O", "private", "-o"]).arg(&converted);
            run(&mut convert, b"", DEADLINE).success();
        }
        converted
    }
}

//! OpenSSH: `sftp`, and `scp` as it is since 9.0, over SFTP.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{DEADLINE, Login};
use crate::command::{Finished, run, wait_for};

impl Login {
    /// Runs `sftp` with these commands, as a script would: it ends at the first that fails, unless that begins with `-`.
    pub fn sftp(&self, batch: &str) -> Finished {
        self.sftp_with(&[], batch.as_bytes())
    }

    /// The same with more options and any bytes.
    pub fn sftp_with(&self, options: &[&str], batch: &[u8]) -> Finished {
        run(self.sftp_command(options).arg("127.0.0.1"), batch, DEADLINE)
    }

    /// `sftp` with all but the host, reading commands from its standard input.
    pub fn sftp_command(&self, options: &[&str]) -> Command {
        let mut command = Command::new("sftp");
        command.args(["-F", "/dev/null", "-P"]).arg(self.port.to_string());
        // The first of two settings counts: -b would switch the question for the password off.
        command.args(["-o", "BatchMode=no", "-b", "-"]).args(options);
        command.args(self.ssh_options());
        askpass(&mut command, &self.home, &self.password);
        command
    }

    /// Starts an `sftp` that downloads this path of the tree, which begins with `/`; returns when its first bytes have
    /// come.
    pub fn begin_download(&self, options: &[&str], from: &str, to: &Path) -> Child {
        let mut command = self.sftp_command(options);
        command.arg("127.0.0.1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "get {from} {}", to.display()).unwrap();
        wait_for("the download's first bytes", DEADLINE, || {
            fs::metadata(to).ok().filter(|file| file.len() > 0)
        });
        child
    }

    /// Runs `sftp` as somebody does who has set nothing but the file of known hosts, and agrees to each new one.
    pub fn plain_sftp(&self, known_hosts: &Path, options: &[&str], batch: &str) -> Finished {
        let mut command = Command::new("sftp");
        command.args(["-F", "/dev/null", "-P"]).arg(self.port.to_string());
        command.args(["-o", "BatchMode=no", "-b", "-"]).args(options);
        command.args(["-o", "StrictHostKeyChecking=accept-new", "-o", "GlobalKnownHostsFile=/dev/null"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        askpass(&mut command, &self.home, &self.password);
        run(command.arg(format!("{}@127.0.0.1", self.user)), batch.as_bytes(), DEADLINE)
    }

    /// Runs `scp` with these arguments. The host is `127.0.0.1`.
    pub fn scp(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new("scp");
        command.args(["-F", "/dev/null", "-P"]).arg(self.port.to_string());
        command.args(self.ssh_options()).args(arguments);
        askpass(&mut command, &self.home, &self.password);
        run(&mut command, b"", DEADLINE)
    }

    /// Options of ssh for this login to a host that wasn't met before.
    pub(super) fn ssh_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(key) = &self.key {
            let identity = format!("IdentityFile={}", key.display());
            // The first of two settings counts.
            for option in [
                "PubkeyAuthentication=yes",
                "PasswordAuthentication=no",
                "KbdInteractiveAuthentication=no",
                "IdentitiesOnly=yes",
                &identity,
            ] {
                options.extend(["-o".to_owned(), option.to_owned()]);
            }
        }
        options.extend(ssh_options(&self.home, &self.user));
        options
    }
}

/// Options of ssh for a login with a password to a host that wasn't met before.
pub fn ssh_options(home: &Path, user: &str) -> Vec<String> {
    [
        format!("User={user}"),
        format!("UserKnownHostsFile={}", home.join("known_hosts").display()),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=accept-new".into(),
        "HostKeyAlgorithms=ssh-ed25519".into(),
        "PubkeyAuthentication=no".into(),
        "NumberOfPasswordPrompts=1".into(),
        "ConnectTimeout=20".into(),
        "LogLevel=ERROR".into(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect()
}

/// Lets ssh take the password from a program instead of a terminal.
pub fn askpass(command: &mut Command, home: &Path, password: &str) {
    let program = home.join("askpass");
    if !program.exists() {
        // Under another name first: a second client of the same home may be running it already.
        let unfinished = home.join(format!("askpass.{:?}", std::thread::current().id()));
        fs::write(&unfinished, "#!/bin/sh\nprintf '%s\\n' \"$E2E_PASSWORD\"\n").unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&unfinished, &program).unwrap();
    }
    command.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force");
    command
        .env("E2E_PASSWORD", password)
        .env("HOME", home)
        .env_remove("SSH_AUTH_SOCK")
        .env("LC_ALL", "C.UTF-8");
}

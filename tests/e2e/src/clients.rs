//! The clients that people use: OpenSSH's sftp, and lftp.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    command::{Finished, run},
    raw::Raw,
};

/// Longer than any client's work takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Somebody who logs in, with a home of their own.
#[derive(Debug, Clone)]
pub struct Login {
    /// The gateway's port on 127.0.0.1.
    pub port: u16,
    /// `tenant` or `tenant/user`.
    pub user: String,
    /// What is typed when a password is asked for.
    pub password: String,
    /// A folder for known hosts and settings.
    pub home: PathBuf,
}

impl Login {
    /// A login whose home lies in `folder`.
    pub fn new(folder: &Path, port: u16, user: &str, password: &str) -> Self {
        let home = folder.join(format!("home-{}", user.replace('/', "-")));
        fs::create_dir_all(&home).unwrap();
        Self { port, user: user.into(), password: password.into(), home }
    }

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
        command.args(ssh_options(&self.home, &self.user));
        askpass(&mut command, &self.home, &self.password);
        command
    }

    /// Runs `lftp` with these commands on an open connection.
    pub fn lftp(&self, commands: &str) -> Finished {
        let options = ssh_options(&self.home, &self.user).join(" ");
        let Self { port, user, password, .. } = self;
        let script = format!(
            "set sftp:connect-program \"ssh -a -x -F /dev/null {options}\"\n\
             set net:max-retries 2\nset net:timeout 30\nset cmd:fail-exit yes\nset xfer:clobber yes\n\
             open -p {port} -u \"{user},{password}\" sftp://127.0.0.1\n{commands}\n"
        );
        let file = self.home.join("script.lftp");
        fs::write(&file, script).unwrap();
        let mut command = Command::new("lftp");
        command.arg("--norc").arg("-f").arg(&file).env("HOME", &self.home).env("LFTP_HOME", &self.home);
        run(&mut command, b"", DEADLINE)
    }

    /// A connection that speaks SFTP itself.
    pub fn raw(&self) -> Raw {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-p"]).arg(self.port.to_string());
        command.args(ssh_options(&self.home, &self.user)).args(["-s", "127.0.0.1", "sftp"]);
        askpass(&mut command, &self.home, &self.password);
        Raw::start(command)
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

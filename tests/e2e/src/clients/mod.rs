//! The clients that people use, each as somebody runs it who has changed none of its settings.

mod curl;
mod filezilla;
mod lftp;
mod openssh;
mod putty;
mod python;
mod rclone;
mod sshfs;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{command::run, raw::Raw};

pub use filezilla::{Existing, FileZilla};
pub use openssh::{askpass, ssh_options};
pub use sshfs::Mount;

/// Longer than any client's work takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Somebody who logs in, with a home of their own.
#[derive(Debug, Clone)]
pub struct Login {
    /// The port on 127.0.0.1 that is connected to: the gateway's, or that of something in between.
    pub port: u16,
    /// The gateway's own port.
    pub gateway_port: u16,
    /// `tenant` or `tenant/user`.
    pub user: String,
    /// What is typed when a password is asked for.
    pub password: String,
    /// The private key, in OpenSSH's form, of somebody who knows no password.
    pub key: Option<PathBuf>,
    /// A folder for known hosts and settings.
    pub home: PathBuf,
}

impl Login {
    /// A login whose home lies in `folder`.
    pub fn new(folder: &Path, port: u16, user: &str, password: &str) -> Self {
        let home = folder.join(format!("home-{}", user.replace('/', "-")));
        fs::create_dir_all(&home).unwrap();
        Self { port, gateway_port: port, user: user.into(), password: password.into(), key: None, home }
    }

    /// The same user, with this private key and without the password.
    pub fn with_key(&self, key: &Path) -> Self {
        Self { key: Some(key.to_owned()), password: "not known".into(), ..self.clone() }
    }

    /// The same login by way of another port, which leads to the gateway's.
    pub fn through(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// A connection that speaks SFTP itself.
    pub fn raw(&self) -> Raw {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-p"]).arg(self.port.to_string());
        command.args(self.ssh_options()).args(["-s", "127.0.0.1", "sftp"]);
        askpass(&mut command, &self.home, &self.password);
        Raw::start(command)
    }

    /// `~/.ssh/known_hosts` with the gateway's keys, for clients that can't be told to accept a new host.
    fn known_hosts(&self) -> PathBuf {
        let file = self.home.join(".ssh/known_hosts");
        let known = fs::read_to_string(&file).unwrap_or_default();
        let host = format!("[127.0.0.1]:{} ", self.port);
        if !known.contains(&host) {
            fs::create_dir_all(self.home.join(".ssh")).unwrap();
            let mut append = fs::File::options().create(true).append(true).open(&file).unwrap();
            for key in self.host_keys() {
                writeln!(append, "{host}{key}").unwrap();
            }
        }
        file
    }

    /// The gateway's host keys: kind and key, as in known_hosts.
    fn host_keys(&self) -> Vec<String> {
        let kept = self.home.join("host-keys");
        if !kept.exists() {
            let mut scan = Command::new("ssh-keyscan");
            scan.args(["-T", "20", "-p"]).arg(self.gateway_port.to_string()).arg("127.0.0.1");
            let scanned = run(&mut scan, b"", DEADLINE).success();
            let lines = scanned.stdout.lines().filter(|line| !line.starts_with('#'));
            let mut keys: Vec<&str> = lines.map(|line| line.split_once(' ').unwrap().1).collect();
            assert!(!keys.is_empty(), "{scanned}");
            // As in a file that OpenSSH began: curl insists on the kind that it finds first.
            keys.sort_by_key(|key| !key.starts_with("ssh-ed25519"));
            fs::write(&kept, keys.join("\n")).unwrap();
        }
        fs::read_to_string(&kept).unwrap().lines().map(str::to_owned).collect()
    }

    /// Settles what the client learns of its surroundings: this home, this language, nobody's agent.
    fn settle(&self, command: &mut Command) {
        command
            .env("HOME", &self.home)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("SSH_ASKPASS")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DISPLAY");
    }
}

//! The servers that are measured: recgate with its whole path, and its peers over the same files.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use recgate_e2e::{Fixture, python_program, run, wait_for};

use crate::{Bench, DEADLINE, measure};

/// A running server. Dropping it ends it; recgate belongs to its fixture.
#[derive(Debug)]
pub struct Server {
    /// As in the tables and in `--without`.
    pub name: &'static str,
    pub port: u16,
    pub user: String,
    /// Its first process.
    pub pid: u32,
    /// Processes without a session.
    pub at_rest: usize,
    /// What stands before a path in the tree.
    root: String,
    child: Option<Child>,
    known_hosts: PathBuf,
    /// What a peer writes instead of answering.
    logs: Vec<PathBuf>,
}

impl Server {
    /// The running gateway.
    pub fn recgate(bench: &Bench, fixture: &Fixture, user: &str) -> Self {
        let gateway = fixture.gateway.as_ref().unwrap();
        let pid = gateway.pid();
        Self {
            name: "recgate",
            port: gateway.ready.port,
            user: user.into(),
            pid,
            at_rest: measure::processes_of(pid),
            root: String::new(),
            child: None,
            known_hosts: bench.new_path("known_hosts"),
            // The gateway's log is shown by its fixture.
            logs: Vec::new(),
        }
    }

    /// A path as this server's clients name it, from one that begins with `/`.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// Options of OpenSSH's programs for a login.
    pub fn ssh_options(&self, bench: &Bench) -> Vec<String> {
        [
            format!("User={}", self.user),
            format!("IdentityFile={}", bench.key().display()),
            "IdentitiesOnly=yes".into(),
            format!("UserKnownHostsFile={}", self.known_hosts.display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=accept-new".into(),
            "LogLevel=ERROR".into(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }

    /// The end of its logs.
    fn said(&self) -> String {
        let logs = self.logs.iter().filter_map(|path| fs::read_to_string(path).ok());
        logs.map(|log| {
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {}'s log\n{}\n", self.name, lines[lines.len().saturating_sub(20)..].join("\n"))
        })
        .collect()
    }

    /// What one run of OpenSSH's `sftp` with these commands costs the server, and what it printed.
    pub fn sftp(&self, bench: &Bench, options: &[&str], batch: &str) -> (measure::Cost, String) {
        let mut command = Command::new("sftp");
        command.args(["-q", "-F", "/dev/null", "-b", "-", "-P"]).arg(self.port.to_string());
        command.args(self.ssh_options(bench)).args(options).arg("127.0.0.1");
        command.env("HOME", bench.path()).env("LC_ALL", "C.UTF-8").env_remove("SSH_AUTH_SOCK");
        let mut printed = String::new();
        let cost = measure::cost(self.pid, self.at_rest, || {
            let finished = run(&mut command, batch.as_bytes(), DEADLINE);
            assert!(finished.status.success(), "{}: {finished}{}", self.name, self.said());
            printed = finished.stdout;
        });
        (cost, printed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The peers over `root`, but for those that are left out. The first is OpenSSH.
pub fn start(bench: &Bench, root: &Path) -> Vec<Server> {
    let mut servers = vec![openssh(bench, root)];
    if bench.has("rclone") {
        servers.push(rclone(bench, root));
    }
    if bench.has("proftpd") {
        servers.push(proftpd(bench, root));
    }
    for server in &mut servers {
        server.at_rest = measure::processes_of(server.pid);
    }
    servers
}

/// `sshd` with `internal-sftp`.
fn openssh(bench: &Bench, root: &Path) -> Server {
    // Compiled into Debian's sshd.
    if !Path::new("/run/sshd").is_dir() {
        fs::create_dir("/run/sshd").unwrap_or_else(|error| panic!("/run/sshd, which sshd needs: {error}"));
    }
    let folder = bench.new_folder("sshd");
    let port = free_port();
    let text = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nSubsystem sftp internal-sftp\n\
         UsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
        host_key(&folder).display(),
        bench.key().with_extension("pub").display()
    );
    let config = written(&folder.join("sshd_config"), &text);
    let mut command = bench.launch(&daemon("sshd", "openssh-server"));
    command.args(["-D", "-e", "-f"]).arg(config);
    served(bench, "openssh", command, &folder, port, user_name(), root.to_str().unwrap())
}

/// ProFTPD's `mod_sftp`, as the user of this process.
fn proftpd(bench: &Bench, root: &Path) -> Server {
    let program = daemon("proftpd", "proftpd-core");
    let modules = Path::new("/usr/lib/proftpd");
    assert!(
        modules.join("mod_sftp.so").is_file(),
        "there is no mod_sftp.so in {}; `cargo xtask bench` installs it (proftpd-mod-crypto), or leave ProFTPD out: \
         --without proftpd",
        modules.display()
    );
    let folder = bench.new_folder("proftpd");
    let port = free_port();
    let (user, group) = (user_name(), id("-gn"));
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // Nobody logs in with a password: no hash is `*`.
    let users =
        written(&folder.join("passwd"), &format!("{user}:*:{uid}:{gid}::{}:/bin/sh\n", root.display()));
    let groups = written(&folder.join("group"), &format!("{group}:x:{gid}:\n"));
    let mut convert = Command::new("ssh-keygen");
    convert.args(["-e", "-m", "RFC4716", "-f"]).arg(bench.key().with_extension("pub"));
    let keys = written(&folder.join("keys"), &run(&mut convert, b"", DEADLINE).success().stdout);
    let text = format!(
        "ModulePath {}\nLoadModule mod_sftp.c\nServerType standalone\nDefaultAddress 127.0.0.1\nPort {port}\n\
         User {user}\nGroup {group}\nRootLogin on\nUseFtpUsers off\nRequireValidShell off\nPidFile {folder}/pid\nScoreboardFile none\n\
         DelayEngine off\nUseIPv6 off\nUseReverseDNS off\nWtmpLog off\nTransferLog none\nSystemLog {folder}/log\n\
         AuthOrder mod_auth_file.c\nAuthUserFile {}\nAuthGroupFile {}\nDefaultRoot {}\n\
         SFTPEngine on\nSFTPHostKey {}\nSFTPAuthMethods publickey\nSFTPAuthorizedUserKeys file:{}\n",
        modules.display(),
        users.display(),
        groups.display(),
        root.display(),
        host_key(&folder).display(),
        keys.display(),
        folder = folder.display(),
    );
    let config = written(&folder.join("proftpd.conf"), &text);
    let mut command = bench.launch(&program);
    command.args(["-n", "-q", "-c"]).arg(config);
    served(bench, "proftpd", command, &folder, port, user, "")
}

/// `rclone serve sftp` at its defaults.
fn rclone(bench: &Bench, root: &Path) -> Server {
    let program = python_program("rclone");
    let folder = bench.new_folder("rclone");
    let port = free_port();
    let mut command = bench.launch(&program);
    command.args(["serve", "sftp"]).arg(root).args(["--config", "/dev/null", "--addr"]);
    command.arg(format!("127.0.0.1:{port}"));
    command.arg("--key").arg(host_key(&folder)).arg("--authorized-keys");
    command.arg(bench.key().with_extension("pub"));
    served(bench, "rclone", command, &folder, port, user_name(), "")
}

/// Starts a peer and waits until it listens.
fn served(
    bench: &Bench,
    name: &'static str,
    mut command: Command,
    folder: &Path,
    port: u16,
    user: String,
    root: &str,
) -> Server {
    let output = folder.join("output");
    let log = File::create(&output).unwrap();
    command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().unwrap_or_else(|error| panic!("{name}, {command:?}: {error}"));
    let mut server = Server {
        name,
        port,
        user,
        pid: child.id(),
        at_rest: 1,
        root: root.into(),
        child: Some(child),
        known_hosts: bench.new_path("known_hosts"),
        logs: vec![output.clone(), folder.join("log")],
    };
    wait_for(name, Duration::from_secs(20), || {
        if let Some(status) = server.child.as_mut().unwrap().try_wait().unwrap() {
            panic!("{name} ended at its start, {status}: {}", fs::read_to_string(&output).unwrap());
        }
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    // What the knock on its door has started must have ended before its processes are counted.
    wait_for(name, Duration::from_secs(20), || (measure::processes_of(server.pid) == 1).then_some(()));
    server
}

fn daemon(name: &str, package: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin"];
    let found = folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}; `cargo xtask bench` installs it ({package})"))
}

fn host_key(folder: &Path) -> PathBuf {
    make_key(&folder.join("host_key"))
}

/// A new ed25519 key without a passphrase.
pub fn make_key(path: &Path) -> PathBuf {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(path);
    run(&mut keygen, b"", DEADLINE).success();
    path.to_owned()
}

fn user_name() -> String {
    id("-un")
}

fn id(what: &str) -> String {
    let mut id = Command::new("id");
    run(id.arg(what), b"", DEADLINE).success().stdout.trim().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes a file that nobody else may read, which ProFTPD asks for.
fn written(path: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path.to_owned()
}

//! `recgate demo`: two invented contact centres to try the gateway with.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use chrono::Utc;

use super::{Exit, Failure, Output, output::columns, serve::Service};
use crate::{admin::ready::Ready, config, telemetry};

mod calls;
mod known_hosts;
mod random;
mod setup;
mod sound;
mod tree;

/// Make two invented contact centres with recordings, serve them, and say how to look at them.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Keep the demo in this folder, and take it up again next time [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write this file, as JSON, once everything listens: addresses, host keys, logins with their passwords
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:2022, or another port where that one is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Also serve an archive with this many recordings, up to 10,000,000. They are computed, not stored; what they take
    /// on the disk is their catalog, some 1.5 GB for a million
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    recordings: Option<u64>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let temporary;
    let dir = match &arguments.dir {
        Some(dir) => std::path::absolute(dir).map_err(Failure::failed)?,
        None => {
            temporary = Temporary::new()?;
            temporary.0.clone()
        }
    };
    let listen = match arguments.listen {
        Some(address) => address,
        None => free_address()?,
    };
    let demo = setup::set_up(&dir, listen, arguments.recordings, Utc::now())?;
    let config =
        config::load(&demo.config).map_err(|problems| Failure::new(Exit::Configuration, problems))?;
    telemetry::init(&config.log).map_err(Failure::failed)?;
    let service = Service {
        path: demo.config.clone(),
        config,
        ready_file: arguments.ready_file,
        demo_users: demo.users,
    };
    service.run(|ready| {
        if let Some(address) = address(ready) {
            known_hosts::write(&dir, address).map_err(|error| {
                Failure::failed(format!("{} can't be written: {error}", known_hosts::path(&dir).display()))
            })?;
        }
        output.line(instructions(ready, &dir, demo.recordings, demo.computed))?;
        output.flush()
    })
}

/// A folder that is removed when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let mut bytes = [0_u8; 8];
        getrandom::fill(&mut bytes).map_err(Failure::failed)?;
        let name = format!("recgate-demo-{:016x}", u64::from_ne_bytes(bytes));
        let dir = std::path::absolute(std::env::temp_dir().join(name)).map_err(Failure::failed)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| Failure::failed(format!("{} can't be made: {error}", dir.display())))?;
        Ok(Self(dir))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "the demo's folder can't be removed");
        }
    }
}

/// Port 2022, or any free one. It is the gateway that takes it, a moment later: written into the
/// configuration, it can be served again.
fn free_address() -> Result<SocketAddr, Failure> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 2022));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(usual).or_else(|_| TcpListener::bind(any)).map_err(Failure::failed)?;
    listener.local_addr().map_err(Failure::failed)
}

/// Where the SFTP door listens.
fn address(ready: &Ready) -> Option<SocketAddr> {
    ready.doors.get("sftp")?.address.parse().ok()
}

/// What to paste where.
fn instructions(ready: &Ready, dir: &Path, recordings: usize, computed: u64) -> String {
    let Some(door) = ready.doors.get("sftp") else { return "the demo has no SFTP door".to_owned() };
    let Some(address) = address(ready) else { return format!("serving on {}", door.address) };
    let (host, port) = (address.ip(), address.port());
    let url_host = if address.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let known = shell_quoted(&known_hosts::option(dir));
    let mut rows = vec![["LOGIN", "PASSWORD", "ROLE"].map(str::to_owned).to_vec()];
    for user in &ready.users {
        rows.push(vec![user.login.clone(), user.password.clone(), format!("{:?}", user.role).to_lowercase()]);
    }
    let table = columns(&rows).join("\n  ");
    let mut text = format!(
        "recgate serves two invented contact centres with {recordings} recordings, over SFTP on {address}.\n\
         Host keys: {}\n\n  {table}\n\n",
        door.host_keys.join(" "),
    );
    if let Some(user) = ready.users.first() {
        let (login, password) = (&user.login, &user.password);
        let url_login = login.replace('/', "%2F");
        // A word of a shell in a string of lftp, and that in a word of a shell.
        let ssh = format!("ssh -a -x -o {known}").replace('\\', "\\\\").replace('"', "\\\"");
        let lftp =
            shell_quoted(&format!("set sftp:connect-program \"{ssh}\"; mirror / {login}-recordings; quit"));
        text.push_str(&format!(
            "sftp (asks for the password; for acme/manager write -o User=acme/manager instead of {login}@)\n  \
             sftp -o {known} -P {port} {login}@{url_host}\n\
             lftp (copies everything; again, and nothing is left to copy)\n  \
             lftp -e {lftp} -u {login},{password} sftp://{url_host}:{port}\n\
             FileZilla (paste into \"Host\", then Quickconnect)\n  \
             sftp://{url_login}:{password}@{url_host}:{port}\n\
             sshfs\n  \
             mkdir -p {login} && sshfs -o {known} -p {port} {login}@{url_host}:/ {login}\n\n"
        ));
    }
    if computed > 0 {
        text.push_str(&format!(
            "The archive has {computed} more recordings, which are computed. They get their names now; `recgate status`\n\
             says how many have theirs.\n\n"
        ));
    }
    text.push_str(&format!(
        "Index/ has a CSV file for each finished day of the tenant's clock; it opens in any spreadsheet. A row's DIRECTORY\n\
         and FILENAME say where its recording is. In sftp: `ls`, `get -r Index`, and `get -r` of any\n\
         folder. `recgate status --data-dir {}` says how the gateway is.\n",
        shell_quoted(&dir.join("data").display().to_string())
    ));
    if let Some(address) = &ready.metrics {
        text.push_str(&format!(
            "Metrics for Prometheus, and whether it is ready:\n  \
             curl http://{address}/metrics\n  \
             curl 'http://{address}/readyz?verbose'\n"
        ));
    }
    text.push_str(&format!("The demo lies in {}. Ctrl-C ends it.", dir.display()));
    text
}

/// A word for a shell.
fn shell_quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"=/._-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::{
        admin::ready::{ReadyDoor, ReadyUser},
        identity::Role,
    };

    #[test]
    fn the_instructions_can_be_pasted() {
        let door = ReadyDoor {
            address: "127.0.0.1:2022".to_owned(),
            host_key_sha256: "SHA256:abc".to_owned(),
            host_keys: vec!["SHA256:abc".to_owned(), "SHA256:def".to_owned()],
        };
        let user = ReadyUser {
            tenant: "acme".to_owned(),
            user: None,
            login: "acme".to_owned(),
            password: "pass-word".to_owned(),
            role: Role::Downloader,
        };
        let ready = Ready {
            doors: [("sftp".to_owned(), door)].into(),
            metrics: Some("127.0.0.1:9464".to_owned()),
            users: vec![user],
        };
        let text = instructions(&ready, Path::new("/tmp/my demo"), 7, 5_000_000);
        for line in [
            "with 7 recordings, over SFTP on 127.0.0.1:2022.",
            "Host keys: SHA256:abc SHA256:def",
            "acme   pass-word  downloader",
            "sftp -o 'UserKnownHostsFile=\"/tmp/my demo/known_hosts\"' -P 2022 acme@127.0.0.1\n",
            "  lftp -e 'set sftp:connect-program \"ssh -a -x -o '\\''UserKnownHostsFile=\\\"/tmp/my demo/known_hosts\\\"'\\''\"; mirror / acme-recordings; quit' ",
            "-u acme,pass-word sftp://127.0.0.1:2022\n",
            "  sftp://acme:pass-word@127.0.0.1:2022\n",
            "-p 2022 acme@127.0.0.1:/ acme\n",
            "  curl http://127.0.0.1:9464/metrics\n",
            "The archive has 5000000 more recordings",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_temporary_folder_goes_when_it_is_done_with() {
        let temporary = Temporary::new().unwrap();
        let dir = temporary.0.clone();
        fs::write(dir.join("x"), "x").unwrap();
        drop(temporary);
        assert!(!dir.exists());
    }
}

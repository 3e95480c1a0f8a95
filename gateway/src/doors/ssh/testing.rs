//! A tree in memory, and a door in front of it for real clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use russh::keys::{Algorithm, PrivateKey, key::safe_rng, ssh_key::LineEnding};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
};

use super::{SshDoor, serve};
use crate::{
    config,
    doors::common::Drain,
    identity::{Account, Identity, hash_password, tests::tenant, tests::user},
    vfs::{Attributes, Entry, FileSystem, Listing, OpenFile, Refusal, RefusalKind, VPath},
};

/// The mtime of everything: 2016-06-06 00:01:17 UTC.
pub(super) const MTIME: i64 = 1_465_171_277;

/// The byte of every file at an offset. Its period is prime, so that misplaced parts show.
pub(super) fn byte_at(offset: u64) -> u8 {
    let place = offset % 1_048_573;
    (place.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// How a file answers.
#[derive(Clone)]
pub(super) enum Pace {
    /// All in memory.
    Hot,
    /// Waits up to so many milliseconds for each read, differently for each offset.
    Cold(u64),
    /// Each read waits for a permit.
    Gated(Arc<Semaphore>),
    /// Fails.
    Down,
    /// Gives a byte less than asked.
    Short,
    /// Has a defect.
    Panics,
}

/// A tree: files by path, and folders with that many files of no content.
pub(super) struct Memory {
    pub(super) files: BTreeMap<String, (u64, Pace)>,
    pub(super) folders: BTreeMap<String, usize>,
    removed: Mutex<HashSet<String>>,
    /// Bytes that files have given.
    pub(super) served: Arc<AtomicU64>,
    block: Arc<Vec<u8>>,
}

impl Memory {
    pub(super) fn new(files: &[(&str, u64, Pace)]) -> Self {
        let files =
            files.iter().map(|(path, size, pace)| ((*path).to_owned(), (*size, pace.clone()))).collect();
        let folders = [("/".to_owned(), 0)].into();
        let block = Arc::new((0..1_048_573).map(byte_at).collect());
        Self { files, folders, removed: Mutex::default(), served: Arc::default(), block }
    }

    fn file(&self, path: &VPath) -> Option<&(u64, Pace)> {
        let path = path.to_string();
        self.files.get(&path).filter(|_| !self.removed.lock().unwrap().contains(&path))
    }

    fn attributes(size: Option<u64>) -> Attributes {
        Attributes { is_folder: size.is_none(), size: size.unwrap_or(0), modified: MTIME }
    }
}

fn not_found() -> Refusal {
    Refusal::new(RefusalKind::NotFound, "no such file or folder")
}

#[async_trait]
impl FileSystem for Memory {
    async fn stat(&self, _account: &Account, path: &VPath) -> Result<Attributes, Refusal> {
        if self.folders.contains_key(&path.to_string()) {
            return Ok(Self::attributes(None));
        }
        self.file(path).map(|(size, _)| Self::attributes(Some(*size))).ok_or_else(not_found)
    }

    async fn list(&self, _account: &Account, path: &VPath) -> Result<Box<dyn Listing>, Refusal> {
        let name = path.to_string();
        let Some(count) = self.folders.get(&name) else {
            let kind =
                if self.file(path).is_some() { RefusalKind::NotAFolder } else { RefusalKind::NotFound };
            return Err(Refusal::new(kind, "not a folder"));
        };
        let mut entries: Vec<Entry> = Vec::new();
        if path.segments().is_empty() {
            entries.extend(
                self.folders
                    .keys()
                    .filter(|path| path.len() > 1)
                    .map(|path| Entry { name: path[1..].to_owned(), attributes: Self::attributes(None) }),
            );
            let removed = self.removed.lock().unwrap();
            entries.extend(self.files.iter().filter(|(path, _)| !removed.contains(*path)).map(
                |(path, (size, _))| Entry {
                    name: path[1..].to_owned(),
                    attributes: Self::attributes(Some(*size)),
                },
            ));
        }
        entries.extend(
            (0..*count).map(|n| Entry {
                name: format!("R{n:08}.wav"),
                attributes: Self::attributes(Some(n as u64)),
            }),
        );
        Ok(Box::new(MemoryListing(entries.into_iter())))
    }

    async fn open(&self, _account: &Account, path: &VPath) -> Result<Arc<dyn OpenFile>, Refusal> {
        if self.folders.contains_key(&path.to_string()) {
            return Err(Refusal::new(RefusalKind::IsAFolder, "this is a folder"));
        }
        let (size, pace) = self.file(path).ok_or_else(not_found)?.clone();
        let (served, block) = (Arc::clone(&self.served), Arc::clone(&self.block));
        Ok(Arc::new(MemoryFile { size, pace, served, block }))
    }

    async fn remove(&self, account: &Account, path: &VPath) -> Result<(), Refusal> {
        self.file(path).ok_or_else(not_found)?;
        if path.to_string() == "/held.wav" {
            return Err(Refusal::new(RefusalKind::Locked, "under legal hold (case 4711)"));
        }
        if account.role != crate::identity::Role::Administrator {
            return Err(Refusal::new(RefusalKind::Forbidden, "only administrators delete"));
        }
        self.removed.lock().unwrap().insert(path.to_string());
        Ok(())
    }
}

struct MemoryListing(std::vec::IntoIter<Entry>);

#[async_trait]
impl Listing for MemoryListing {
    async fn next_page(&mut self) -> Result<Vec<Entry>, Refusal> {
        Ok(self.0.by_ref().take(300).collect())
    }
}

struct MemoryFile {
    size: u64,
    pace: Pace,
    served: Arc<AtomicU64>,
    block: Arc<Vec<u8>>,
}

impl MemoryFile {
    fn copy(&self, mut offset: u64, len: usize, out: &mut BytesMut) {
        let mut left = len.min(usize::try_from(self.size.saturating_sub(offset)).unwrap());
        self.served.fetch_add(left as u64, Ordering::Relaxed);
        while left > 0 {
            let start = usize::try_from(offset % self.block.len() as u64).unwrap();
            let part = left.min(self.block.len() - start);
            out.extend_from_slice(&self.block[start..start + part]);
            offset += part as u64;
            left -= part;
        }
    }
}

#[async_trait]
impl OpenFile for MemoryFile {
    fn attributes(&self) -> Attributes {
        Memory::attributes(Some(self.size))
    }

    fn read_now(&self, offset: u64, len: usize, out: &mut BytesMut) -> bool {
        let hot = matches!(self.pace, Pace::Hot);
        if hot {
            self.copy(offset, len, out);
        }
        hot
    }

    async fn read(&self, offset: u64, len: usize, out: &mut BytesMut) -> Result<(), Refusal> {
        match &self.pace {
            Pace::Hot => {}
            Pace::Cold(most) => tokio::time::sleep(Duration::from_millis(offset / 1000 * 7919 % most)).await,
            Pace::Gated(gate) => gate.acquire().await.unwrap().forget(),
            Pace::Down => return Err(Refusal::new(RefusalKind::Unavailable, "the source can't be reached")),
            Pace::Short => {
                self.copy(offset, len - 1, out);
                return Ok(());
            }
            Pace::Panics => std::panic::resume_unwind(Box::new("a defect in a test")),
        }
        self.copy(offset, len, out);
        Ok(())
    }

    /// Known of files that are in memory.
    fn sha256(&self) -> Option<[u8; 32]> {
        matches!(self.pace, Pace::Hot).then_some([0xa5; 32])
    }
}

/// A door on a free port with the users `acme` (password `secret`, key) and `acme/anna` (key, administrator).
pub(super) struct TestDoor {
    pub(super) address: SocketAddr,
    pub(super) fingerprint: String,
    pub(super) identity: Arc<Identity>,
    pub(super) tenants: Vec<config::Tenant>,
    pub(super) drain: Drain,
    pub(super) folder: TempDir,
    key: PathBuf,
}

pub(super) fn config() -> config::Ssh {
    config::Ssh {
        legacy_algorithms: false,
        keep_alive: Duration::from_secs(60),
        rekey_bytes: 1 << 30,
        rekey_interval: Duration::from_secs(3600),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        host_keys: Vec::new(),
        proxy_protocol_from: Vec::new(),
    }
}

pub(super) fn limits() -> config::Limits {
    config::Limits {
        login_grace: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(600),
        ..config::Limits::default()
    }
}

/// As by default, but nobody has to wait after a failed login.
pub(super) fn throttle() -> config::Throttle {
    config::Throttle { delay_at_most: Duration::from_millis(10), ..config::Throttle::default() }
}

fn new_key(path: &std::path::Path) -> PrivateKey {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    fs::write(path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    key
}

impl TestDoor {
    pub(super) async fn open(memory: Memory) -> Self {
        Self::open_with(memory, config()).await
    }

    pub(super) async fn open_with(memory: Memory, config: config::Ssh) -> Self {
        Self::open_limited(memory, config, limits(), throttle()).await
    }

    pub(super) async fn open_limited(
        memory: Memory,
        mut config: config::Ssh,
        limits: config::Limits,
        throttle: config::Throttle,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (host, key) = (folder.path().join("host"), folder.path().join("user"));
        new_key(&host);
        config.host_keys = vec![host];
        let public = new_key(&key).public_key().to_openssh().unwrap();
        let (mut default, mut anna) = (user(1, None), user(2, Some("anna")));
        default.password_hash = Some(hash_password("secret").unwrap());
        default.authorized_keys = vec![public.clone()];
        anna.role = crate::identity::Role::Administrator;
        anna.authorized_keys = vec![public];
        let tenants = vec![tenant(vec![default, anna])];
        let identity = Arc::new(Identity::new(&tenants, &limits, &throttle).unwrap());
        let (drain, memory) = (Drain::new(), Arc::new(memory));
        let serving = serve(&config, &limits, folder.path(), memory, Arc::clone(&identity), drain.clone());
        let door: SshDoor = serving.await.unwrap();
        let address = door.addresses[0];
        Self { address, fingerprint: door.host_key_sha256, identity, tenants, drain, folder, key }
    }

    /// Limits the users' tenant, as a reload does.
    pub(super) fn limit(&mut self, quota: config::Quota) {
        self.tenants[0].quota = quota;
        self.identity.replace(&self.tenants).unwrap();
    }

    fn options(&self, command: &mut Command, login: &str) {
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
            &format!("Port={}", self.address.port()),
            &format!("User={login}"),
        ];
        command.args(["-F", "none"]).kill_on_drop(true);
        for option in options {
            command.args(["-o", option]);
        }
        command
            .current_dir(self.folder.path())
            .env_remove("SSH_AUTH_SOCK")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
    }

    fn with_key(&self, program: &str, login: &str) -> Command {
        let mut command = Command::new(program);
        self.options(&mut command, login);
        command.args(["-o", "BatchMode=yes", "-i"]).arg(&self.key);
        command
    }

    /// Runs OpenSSH's `sftp` with commands; relative local paths are in the door's folder.
    pub(super) async fn sftp(&self, login: &str, commands: &str) -> Output {
        self.sftp_with(login, &[], commands).await
    }

    pub(super) async fn sftp_with(&self, login: &str, arguments: &[&str], commands: &str) -> Output {
        self.run_sftp(self.with_key("sftp", login), arguments, commands).await
    }

    /// Makes a key that nobody may log in with.
    pub(super) fn other_key(&self, name: &str) -> String {
        new_key(&self.folder.path().join(name));
        name.to_owned()
    }

    /// The same as [`TestDoor::sftp_with`] with those keys alone that the arguments name.
    pub(super) async fn sftp_without_key(&self, login: &str, arguments: &[&str], commands: &str) -> Output {
        let mut command = Command::new("sftp");
        self.options(&mut command, login);
        command.args(["-o", "BatchMode=yes"]);
        self.run_sftp(command, arguments, commands).await
    }

    async fn run_sftp(&self, mut command: Command, arguments: &[&str], commands: &str) -> Output {
        command.args(arguments).args(["-b", "-", "127.0.0.1"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have ended already.
        stdin.write_all(commands.as_bytes()).await.unwrap_or_default();
        drop(stdin);
        deadline(child.wait_with_output()).await.unwrap()
    }

    /// Runs OpenSSH's `ssh` with the key.
    pub(super) async fn ssh(&self, arguments: &[&str]) -> Output {
        let mut command = self.with_key("ssh", "acme");
        command.args(arguments).stdin(Stdio::null());
        deadline(command.output()).await.unwrap()
    }

    /// Runs `sftp` with a password.
    pub(super) async fn sftp_with_password(&self, login: &str, password: &str) -> Output {
        self.sftp_with_password_and(&[], login, password).await
    }

    pub(super) async fn sftp_with_password_and(
        &self,
        arguments: &[&str],
        login: &str,
        password: &str,
    ) -> Output {
        let asker = self.folder.path().join(format!("ask-{password}"));
        fs::write(&asker, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        fs::set_permissions(&asker, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("sftp");
        self.options(&mut command, login);
        command.args(["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=20"]);
        command.args(arguments).arg("127.0.0.1");
        command.env("SSH_ASKPASS", &asker).env("SSH_ASKPASS_REQUIRE", "force").stdin(Stdio::null());
        deadline(command.output()).await.unwrap()
    }

    /// A raw SFTP stream through OpenSSH's `ssh`, after INIT.
    pub(super) async fn raw(&self) -> Raw {
        let mut raw = self.raw_without_init().await;
        raw.send(&[1, 0, 0, 0, 3]).await;
        let version = raw.receive().await.unwrap();
        assert_eq!(version[..5], [2, 0, 0, 0, 3]);
        raw
    }

    pub(super) async fn raw_without_init(&self) -> Raw {
        let mut command = self.with_key("ssh", "acme");
        command.args(["-s", "127.0.0.1", "sftp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Raw { child, stdin, stdout, id: 100 }
    }
}

/// Hand-made packets on a session.
pub(super) struct Raw {
    pub(super) child: Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    id: u32,
}

/// A string field.
pub(super) fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// The body of a READ.
pub(super) fn read_body(handle: &[u8], offset: u64, len: u32) -> Vec<u8> {
    [&string(handle)[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
}

impl Raw {
    pub(super) async fn bytes(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).await.unwrap();
        self.stdin.as_mut().unwrap().flush().await.unwrap();
    }

    pub(super) async fn send(&mut self, packet: &[u8]) {
        self.bytes(&string(packet)).await;
    }

    /// Encodes a request with a new id.
    pub(super) fn encode(&mut self, kind: u8, body: &[u8]) -> (u32, Vec<u8>) {
        self.id += 1;
        (self.id, string(&[&[kind][..], &self.id.to_be_bytes(), body].concat()))
    }

    pub(super) async fn request(&mut self, kind: u8, body: &[u8]) -> u32 {
        let (id, packet) = self.encode(kind, body);
        self.bytes(&packet).await;
        id
    }

    /// The next packet without its length; `None` at the end.
    pub(super) async fn receive(&mut self) -> Option<Vec<u8>> {
        deadline(async {
            let len = self.stdout.read_u32().await.ok()?;
            let mut packet = vec![0; len as usize];
            self.stdout.read_exact(&mut packet).await.ok()?;
            Some(packet)
        })
        .await
    }

    /// Asks and takes the answer, without others under way: type, then what follows the id.
    pub(super) async fn ask(&mut self, kind: u8, body: &[u8]) -> (u8, Vec<u8>) {
        let id = self.request(kind, body).await;
        let answer = self.receive().await.expect("an answer");
        assert_eq!(answer[1..5], id.to_be_bytes());
        (answer[0], answer[5..].to_vec())
    }

    /// Asks for what gives a status: its code and sentence.
    pub(super) async fn status(&mut self, kind: u8, body: &[u8]) -> (u32, String) {
        let (kind, answer) = self.ask(kind, body).await;
        assert_eq!(kind, 101, "a status is due");
        let len = u32::from_be_bytes(answer[4..8].try_into().unwrap()) as usize;
        let text = String::from_utf8(answer[8..8 + len].to_vec()).unwrap();
        (u32::from_be_bytes(answer[..4].try_into().unwrap()), text)
    }

    /// Opens a file (3) or folder (11).
    pub(super) async fn open(&mut self, kind: u8, path: &str) -> Vec<u8> {
        let mut body = string(path.as_bytes());
        if kind == 3 {
            body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        }
        let (kind, answer) = self.ask(kind, &body).await;
        assert_eq!(kind, 102, "{path} opens: {}", String::from_utf8_lossy(&answer));
        answer[4..].to_vec()
    }

    /// Closes the client's side and waits for the end: exit code, standard error.
    pub(super) async fn finish(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        drop(self.stdout);
        let output = deadline(self.child.wait_with_output()).await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Nothing here takes this long.
pub(super) async fn deadline<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes too long")
}

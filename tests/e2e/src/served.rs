//! A gateway whose recordings are all published, and what its users have to see.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    Call, Fixture, Kind, Login, Raw,
    command::{run, wait_for},
    indexes::{files_below, read_index},
};

/// What a client is told that writes.
pub const NO_WRITING: &str = "this tree is read-only: writing is refused";
/// What a client is told that makes a folder.
pub const NO_FOLDERS: &str = "this tree is read-only: making a folder is refused";
/// What a client is told that removes a recording.
pub const NO_DELETING: &str = "only an administrator may delete recordings";

/// What the tree has of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its modification time in seconds since 1970.
    pub modified: u32,
}

/// The files of a tree: path, without the `/` that it begins with, to content and time.
pub type Originals = BTreeMap<String, Original>;

/// A running gateway with [`Fixture::fill`]'s calls, all published.
#[derive(Debug)]
pub struct Served {
    /// What runs.
    pub fixture: Fixture,
    /// The calls of each tenant.
    pub calls: BTreeMap<&'static str, Vec<Call>>,
    /// The tree of each tenant.
    pub originals: BTreeMap<&'static str, Originals>,
}

impl Served {
    /// Starts it and waits until everything is in its place. All users of a tenant may log in with [`Self::key`] too.
    pub fn new() -> Self {
        let mut fixture = Fixture::new();
        let calls = fixture.fill();
        let tenants: Vec<&str> = calls.keys().copied().collect();
        let mut config = fixture.config();
        for tenant in tenants {
            let public = make_key(&key_of(&fixture, tenant));
            let (before, own) = config.split_once(&format!("name = \"{tenant}\"\nzone")).unwrap();
            let (own, after) = own.split_once("[[tenant.source]]").unwrap();
            let own =
                own.replace("password_hash", &format!("authorized_keys = [\"{public}\"]\npassword_hash"));
            config = format!("{before}name = \"{tenant}\"\nzone{own}[[tenant.source]]{after}");
        }
        fixture.write_config(&config);
        fixture.start();
        let mut originals = BTreeMap::new();
        for (&tenant, calls) in &calls {
            fixture.wait_published(tenant, calls);
            let mut raw = fixture.login(tenant).raw();
            let settled = wait_for("the indexes' last rows", Duration::from_secs(60), || {
                let read = raw.originals();
                rows_are_there(&read, calls.len()).then_some(read)
            });
            for call in calls {
                let copies = settled.values().filter(|original| original.bytes == call.bytes).count();
                let same = calls.iter().filter(|other| other.bytes == call.bytes).count();
                assert_eq!(copies, same, "{} isn't served as the PBX has it", call.path());
            }
            originals.insert(tenant, settled);
        }
        Self { fixture, calls, originals }
    }

    /// `acme` and `globex` with their passwords, `acme/manager` and `globex/manager` with their keys.
    pub fn logins(&self) -> Vec<Login> {
        let password = ["acme", "globex"].map(|user| self.fixture.login(user));
        let key = ["acme/manager", "globex/manager"].map(|user| self.by_key(user));
        password.into_iter().chain(key).collect()
    }

    /// A login with the key of the user's tenant.
    pub fn by_key(&self, user: &str) -> Login {
        let login = self.fixture.login(user);
        let key = key_of(&self.fixture, tenant_of(&login));
        login.with_key(&key)
    }

    /// What this login sees.
    pub fn originals_of(&self, login: &Login) -> &Originals {
        &self.originals[tenant_of(login)]
    }

    /// An empty folder for what this login downloads.
    pub fn folder_for(&self, login: &Login) -> PathBuf {
        self.fixture.new_folder(&format!("mirror-{}", login.user.replace('/', "-")))
    }

    /// The path, size of some MiB, of a recording of `acme`.
    pub fn large(&self) -> (&str, &Original) {
        let (path, large) = self.originals["acme"].iter().max_by_key(|(_, it)| it.bytes.len()).unwrap();
        assert!(large.bytes.len() > 1_000_000, "{path} has {} bytes", large.bytes.len());
        (path, large)
    }
}

impl Default for Served {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw {
    /// Every file of the tree, read by plain requests in turn.
    pub fn originals(&mut self) -> Originals {
        let files = self.tree().into_iter().filter(|(_, stat)| stat.kind == Kind::File);
        files
            .map(|(path, stat)| {
                let bytes = self.file(&path).unwrap();
                assert_eq!(u64::try_from(bytes.len()).unwrap(), stat.size, "{path}");
                (path[1..].to_owned(), Original { bytes, modified: stat.modified })
            })
            .collect()
    }
}

/// Checks that a folder holds the files of the tree, each byte for byte, and nothing else.
#[track_caller]
pub fn assert_mirrors(mirror: &Path, originals: &Originals) {
    let found = files_below(mirror);
    assert_eq!(found.keys().collect::<Vec<_>>(), originals.keys().collect::<Vec<_>>());
    for (path, bytes) in &found {
        let original = &originals[path].bytes;
        if bytes != original {
            // Not assert_eq: megabytes would be printed.
            let first = bytes.iter().zip(original).position(|(ours, theirs)| ours != theirs);
            panic!("{path} differs from byte {first:?}: it has {} bytes of {}", bytes.len(), original.len());
        }
    }
}

/// Checks that its files have the times of the tree's.
#[track_caller]
pub fn assert_same_times(mirror: &Path, originals: &Originals) {
    for (path, original) in originals {
        let modified = fs::metadata(mirror.join(path)).unwrap().modified().unwrap();
        let seconds = modified.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds, u64::from(original.modified), "{path}");
    }
}

/// What tells that a file was written anew: its inode and the time of its last change, for each path.
pub fn untouched(mirror: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let files = files_below(mirror).into_keys();
    files
        .map(|path| {
            let metadata = fs::metadata(mirror.join(&path)).unwrap();
            (path, (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
        })
        .collect()
}

/// Whether the root indexes have a row for each of the calls, and each folder's index one for each of its WAVs.
fn rows_are_there(originals: &Originals, calls: usize) -> bool {
    let rows = |path: &str| read_index(&originals[path].bytes).1.len();
    let indexes = || originals.keys().filter(|path| path.ends_with(".csv"));
    let wavs = |folder: &str| {
        originals.keys().filter(|path| path.starts_with(folder) && path.ends_with(".wav")).count()
    };
    let listed: usize = indexes().filter(|path| path.starts_with("Index/I2016")).map(|path| rows(path)).sum();
    listed == calls
        && indexes()
            .filter(|path| path.starts_with('S'))
            .all(|path| rows(path) == wavs(path.split('/').next().unwrap()))
}

fn tenant_of(login: &Login) -> &str {
    login.user.split('/').next().unwrap()
}

fn key_of(fixture: &Fixture, tenant: &str) -> PathBuf {
    fixture.path().join(format!("key-of-{tenant}"))
}

/// Makes a pair of keys without a passphrase and tells the public one.
fn make_key(path: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", "archive@example.com", "-t", "ed25519", "-f"]).arg(path);
    run(&mut command, b"", Duration::from_secs(60)).success();
    fs::read_to_string(format!("{}.pub", path.display())).unwrap().trim().to_owned()
}

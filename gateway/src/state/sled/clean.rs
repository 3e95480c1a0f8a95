//! The marker of a clean stop, and setting a folder aside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::state::files::{durable_write, parent, sync_folder};

/// Folders set aside that are kept; older ones go.
const KEPT: usize = 3;
/// The largest marker that is read: sled has a file for the log, one for its settings, some snapshots, and
/// one for each value above its segment size.
const MAX_MARKER_BYTES: u64 = 16 << 20;
/// How deep folders are looked into, and how many files; sled's have one level.
const MAX_LEVELS: usize = 3;
const MAX_FILES: usize = 100_000;
/// sled's log, which it locks.
const LOG: &str = "db";

/// What a store was when it was stopped.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    /// 1, the only format so far.
    format: u32,
    pub rows: u64,
    pub version: u64,
    pub files: BTreeMap<String, FileDigest>,
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileDigest {
    pub bytes: u64,
    sha256: [u8; 32],
}

impl Marker {
    /// Reads the marker and removes it durably. The inner error says why the folder can't be relied on.
    pub(super) fn take(dir: &Path) -> io::Result<Result<Self, String>> {
        let path = beside(dir, ".clean")?;
        let read = File::open(&path).and_then(|file| {
            let mut content = Vec::new();
            file.take(MAX_MARKER_BYTES).read_to_end(&mut content)?;
            Ok(content)
        });
        let content = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err("it wasn't stopped cleanly".into()));
            }
            other => other?,
        };
        std::fs::remove_file(&path)?;
        sync_folder(parent(&path))?;
        Ok(match serde_json::from_slice::<Self>(&content) {
            Ok(marker) if marker.format == 1 => Ok(marker),
            Ok(marker) => Err(format!("its marker has the unknown format {}", marker.format)),
            Err(error) => Err(format!("its marker of a clean stop is damaged: {error}")),
        })
    }

    /// Makes a folder's files durable and vouches for them. sled's last handle must have been dropped.
    pub(super) fn write(dir: &Path, rows: u64, version: u64) -> io::Result<()> {
        sync_all(dir, MAX_LEVELS)?;
        sync_folder(parent(dir))?;
        let marker = Self { format: 1, rows, version, files: files(dir)? };
        durable_write(&beside(dir, ".clean")?, &serde_json::to_vec(&marker)?)
    }
}

/// Waits until nobody has sled's log open, or for `limit`; says whether that came.
pub(super) fn is_released(dir: &Path, limit: Duration) -> io::Result<bool> {
    let begin = Instant::now();
    while is_locked(dir)? {
        if begin.elapsed() >= limit {
            return Ok(false);
        }
        // sled has no way to wait for its threads.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

fn is_locked(dir: &Path) -> io::Result<bool> {
    let file = match File::open(dir.join(LOG)) {
        // No folder, no log, or something else in its place: nobody can have it open as a log.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        other => other?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Every file below a folder with its content's digest.
pub(super) fn files(dir: &Path) -> io::Result<BTreeMap<String, FileDigest>> {
    let mut found = BTreeMap::new();
    collect(dir, "", MAX_LEVELS, &mut found)?;
    Ok(found)
}

fn collect(
    dir: &Path,
    below: &str,
    levels: usize,
    found: &mut BTreeMap<String, FileDigest>,
) -> io::Result<()> {
    let strange = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let Some(levels) = levels.checked_sub(1) else { return strange(format!("{below} is nested too deep")) };
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{name}/"), levels, found)?;
        } else if kind.is_file() && found.len() < MAX_FILES {
            found.insert(name, digest(&entry.path())?);
        } else {
            return strange(format!("{name} is no file, or one too many"));
        }
    }
    Ok(())
}

fn digest(path: &Path) -> io::Result<FileDigest> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut bytes = 0_u64;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hash.update(part);
        bytes = bytes.saturating_add(read as u64);
    }
    Ok(FileDigest { bytes, sha256: hash.finalize().into() })
}

fn sync_all(dir: &Path, levels: usize) -> io::Result<()> {
    let Some(levels) = levels.checked_sub(1) else { return Ok(()) };
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path(), levels)?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(dir)
}

/// Moves a folder to `<name>.set-aside-<n>`, durably, and removes the oldest of its kind.
pub(super) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let mut numbers = Vec::new();
    let stem = beside(dir, ".set-aside-")?;
    let stem = stem.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in std::fs::read_dir(parent(dir))? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&stem)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last.saturating_add(1));
    let target = beside(dir, &format!(".set-aside-{next}"))?;
    std::fs::rename(dir, &target)?;
    sync_folder(parent(dir))?;
    let surplus = numbers.len().saturating_add(1).saturating_sub(KEPT);
    for number in numbers.into_iter().take(surplus) {
        let old = beside(dir, &format!(".set-aside-{number}"))?;
        let removed = if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
        if let Err(error) = removed {
            // It takes room, no more; the next time tries again.
            tracing::warn!(folder = %old.display(), %error, "a store that was set aside can't be removed");
        }
    }
    Ok(target)
}

/// The path with something added to its last name.
fn beside(dir: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = dir
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the store's path names no folder"))?;
    let mut name = name.to_os_string();
    name.push(suffix);
    Ok(dir.with_file_name(name))
}

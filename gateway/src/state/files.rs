//! Small files that must survive a power loss, and the lock on the data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

/// Turns of those who write the same path; paths share one by their hash.
static WRITERS: [Mutex<()>; 16] = [const { Mutex::new(()) }; 16];

/// Replaces a file's content so that after a power loss it has the old content or the new, never a part.
///
/// Writes a temporary file beside it, syncs that, renames it, and syncs the folder. The file
/// is its owner's alone (mode 0600). Callers for one path come one after the other,
/// within this process. Blocking.
///
/// # Errors
///
/// What the operating system said; the file then has its old content.
pub fn durable_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    // Two who write one path at once would write into one temporary file and rename it half done.
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let stripe = usize::try_from(hasher.finish() % WRITERS.len() as u64).unwrap_or_default();
    let _turn = WRITERS.get(stripe).map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
    let mut temporary_name = name.to_os_string();
    temporary_name.push(".tmp");
    let temporary = path.with_file_name(temporary_name);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // What is left of it would only take room; the next attempt overwrites it anyway.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(parent(path))
}

/// Makes the creation, renaming and removal of files in a folder durable. Blocking.
///
/// # Errors
///
/// What the operating system said.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that holds `path`, `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The gateway's id: read from `gateway-id` in the data directory, made on the first start. Blocking.
///
/// # Errors
///
/// The file can't be read or written, or holds no UUID.
pub fn gateway_id(dir: &Path) -> io::Result<Uuid> {
    let path = dir.join("gateway-id");
    match std::fs::read(&path) {
        Ok(bytes) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| Uuid::try_parse(text.trim()).ok())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} holds no UUID; take it from a backup, or from the `gateway` field of the journal's last entry",
                        path.display()
                    ),
                )
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            durable_write(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// Why the data directory can't be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another gateway has it.
    #[error("{dir} is in use by another gateway{}; stop that one first", holder.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    InUse {
        /// The data directory.
        dir: String,
        /// The other's process id, where it could be read.
        holder: Option<u32>,
    },
    /// The lock file can't be opened or written.
    #[error("{path}: {source}")]
    Io {
        /// The lock file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Keeps two gateways from opening one data directory; released when dropped or when the process ends.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
    dir: PathBuf,
}

impl DataDirLock {
    /// The lock file's name in the data directory.
    pub const FILE: &str = "lock";

    /// Takes the lock (flock) or says who has it, and makes the directory (mode 0700) where there is none. Never
    /// waits.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { path: dir.display().to_string(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
        Self::acquire_existing(dir)
    }

    /// As [`DataDirLock::acquire`], of a directory that must be there.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn acquire_existing(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(Self::FILE);
        let io_error = |source| LockError::Io { path: path.display().to_string(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Reading is a courtesy: whoever has the lock may be about to write its id.
                let _ = (&file).take(32).read_to_string(&mut text);
                return Err(LockError::InUse {
                    dir: dir.display().to_string(),
                    holder: text.trim().parse().ok(),
                });
            }
            Err(errno) => return Err(io_error(errno.into())),
        }
        file.set_len(0).map_err(io_error)?;
        file.rewind().map_err(io_error)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io_error)?;
        Ok(Self { file, dir: dir.to_owned() })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        // Closing alone isn't enough: a child process that is just being started still has the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_durable_write_replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        durable_write(&path, b"one").unwrap();
        durable_write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_of_one_path_dont_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        durable_write(&path, &[0; 1000]).unwrap();
        std::thread::scope(|scope| {
            for writer in 1..5_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        durable_write(path, &[writer; 1000]).unwrap();
                        let content = std::fs::read(path).unwrap();
                        assert!(content.len() == 1000 && content.windows(2).all(|pair| pair[0] == pair[1]));
                    }
                });
            }
        });
    }

    #[test]
    fn a_failed_durable_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        assert!(durable_write(&path, b"x").is_err());
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_gateway_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = gateway_id(dir.path()).unwrap();
        assert_eq!(gateway_id(dir.path()).unwrap(), first);
    }

    #[test]
    fn a_damaged_gateway_id_is_an_error_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway-id");
        for content in [&b""[..], b"no uuid", b"\xff\xfe"] {
            std::fs::write(&path, content).unwrap();
            let error = gateway_id(dir.path()).unwrap_err();
            assert!(error.to_string().contains("holds no UUID"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn one_directory_has_one_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DataDirLock::acquire(dir.path()).unwrap();
        // flock counts per open file, so a second open in this process stands for another gateway.
        let error = DataDirLock::acquire(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        DataDirLock::acquire(dir.path()).unwrap();
    }
}

//! One process at a time works on a data folder.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// The exclusive right to a data folder, held until it is dropped or the process ends, however it ends.
///
/// The kernel keeps it (flock), so there is nothing stale to clean up.
#[derive(Debug)]
pub struct DataDirLock {
    dir: PathBuf,
    _file: File,
}

/// Why the right can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("a gateway, or another command, is working on the data folder {}; stop it first", .0.display())]
    Taken(PathBuf),
    /// The folder can't be made or written.
    #[error("the data folder {} can't be used: {source}; give it to the gateway's user", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl DataDirLock {
    /// Takes the right, and makes the folder (mode 0700) where it isn't there yet. Doesn't wait.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let failed = |source: io::Error| LockError::Io { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        Self::acquire_existing(dir)
    }

    /// Takes the right to a folder that must be there.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire_existing(dir: &Path) -> Result<Self, LockError> {
        let failed = |source: io::Error| LockError::Io { dir: dir.to_owned(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join(Self::FILE))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Taken(dir.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The file that carries the lock; it stays, and is no state.
    pub const FILE: &str = "gateway.lock";

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

//! The file operations that the journal needs, so that tests can run it on a disk that loses power.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::state::files::{durable_write, parent, sync_folder};

/// One folder of files.
pub(in crate::state) trait Storage: Debug + Send + Sync {
    /// For messages.
    fn describe(&self, name: &str) -> String;

    /// Names of the files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and, unless the storage is read-only, writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Creates an empty file, or empties the one that is there. Durable only after [`Storage::sync_folder`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Makes creations durable.
    fn sync_folder(&self) -> io::Result<()>;

    /// Replaces a small file's content durably, whole or not at all.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
}

/// An open file.
pub(in crate::state) trait LogFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads at most `out.len()` bytes; 0 at the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable, the length included.
    fn sync(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// A folder of the file system.
#[derive(Debug)]
pub(in crate::state) struct Folder {
    path: PathBuf,
    writable: bool,
}

impl Folder {
    /// Makes the folder durably where it isn't there.
    pub(in crate::state) fn create(path: &Path) -> io::Result<Self> {
        create_folders(path)?;
        Ok(Self { path: path.to_owned(), writable: true })
    }

    /// A folder to read from; one that isn't there is an error of [`Storage::list`].
    pub(in crate::state) fn existing(path: &Path) -> Self {
        Self { path: path.to_owned(), writable: false }
    }
}

/// Creates missing folders from the top, each durable in the one above it.
fn create_folders(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => sync_folder(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent(path) != path => {
            create_folders(parent(path))?;
            std::fs::create_dir(path)?;
            sync_folder(parent(path))
        }
        Err(error) => Err(error),
    }
}

impl Storage for Folder {
    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that isn't UTF-8 is none of the journal's.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(self.writable).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        durable_write(&self.path.join(name), content)
    }
}

impl LogFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: it writes a changed length too, and leaves out only the times.
        self.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

//! What people wrote when they changed something governed: the side table that entries of the journal point to.
//!
//! A reason may name somebody, so it doesn't stand in a chain that can never be changed. Each note is a small file of
//! its own, on the disk before the entry that points to it; a note that was erased leaves the chain whole.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::durable_write;

/// Bytes that a note may have.
const LONGEST: u64 = 64 << 10;

/// The notes of a data folder.
#[derive(Debug, Clone)]
pub struct Notes {
    dir: PathBuf,
}

impl Notes {
    /// The folder's name in the data folder.
    pub const FOLDER: &'static str = "notes";

    /// The notes of this data folder; the folder is made with the first one.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join(Self::FOLDER) }
    }

    /// Keeps a text, on the disk when this returns. Blocking.
    ///
    /// # Errors
    /// What the operating system said, or the text is longer than 64 KiB.
    pub fn write(&self, text: &str) -> io::Result<Uuid> {
        if text.len() as u64 > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a note has at most 64 KiB"));
        }
        if !self.dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            self.dir.parent().map_or(Ok(()), super::sync_folder)?;
        }
        let id = Uuid::now_v7();
        durable_write(&self.path(id), text.as_bytes())?;
        Ok(id)
    }

    /// A text that was kept; `None` where it was erased. Blocking.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn read(&self, id: Uuid) -> io::Result<Option<String>> {
        use io::Read;
        let file = match std::fs::File::open(self.path(id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Erases a text, for good when this returns; one that isn't there is no error. Blocking.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn erase(&self, id: Uuid) -> io::Result<()> {
        match std::fs::remove_file(self.path(id)) {
            Ok(()) => super::sync_folder(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.dir.join(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn notes_are_kept_until_they_are_erased() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::new(dir.path());
        assert_eq!(notes.read(Uuid::nil()).unwrap(), None);
        let first = notes.write("Jane asked for it").unwrap();
        let second = notes.write("so did Zoë").unwrap();
        assert_eq!(Notes::new(dir.path()).read(first).unwrap().as_deref(), Some("Jane asked for it"));
        notes.erase(first).unwrap();
        notes.erase(first).unwrap();
        assert_eq!(notes.read(first).unwrap(), None);
        assert_eq!(notes.read(second).unwrap().as_deref(), Some("so did Zoë"));
        assert!(notes.write(&"x".repeat(65_537)).is_err());
    }
}

//! The journal: two hash chains of what happened, from which names and governance can be rebuilt.
//!
//! A chain is a folder `journal/<chain>/` of segment files named by their first sequence number, JSON lines:
//!
//! ```text
//! {"seq":1,"prev":"<hash>","gateway":"<uuid>","at":<unix ms>,"batch":1,"kind":"…","data":{…}}
//! ```
//!
//! An entry's hash is the SHA-256 of its line without the newline; `prev` is that of the entry before, zeros
//! for the first. `batch` is the sequence number of the first entry written since the last fsync had
//! returned: an entry with `batch` b proves that everything before b was on the disk. Recovery needs that to
//! tell what a power loss may have torn from what was damaged later; see `recovery`.
//!
//! Beside the segments stand `checkpoint.json`, from which the next start verifies, and `synced`, a mark that
//! says how far the chain was on the disk, with the hash of the entry there (it may lag behind after a power
//! loss, and is never ahead).

mod format;
mod reader;
mod recovery;
pub(super) mod storage;
#[cfg(test)]
mod tests;
mod writer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use format::{Entry, MAX_DEPTH, MAX_ENTRY_BYTES};
pub use reader::JournalReader;
pub use recovery::{Cut, Recovery, Report};
pub use writer::MAX_APPEND_BYTES;

use storage::{Folder, Storage};
use writer::Writer;

/// Which of the two chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// Every change of names, locks, holds, orphans, deletions, settings: on the disk before it is acknowledged.
    Governance,
    /// Logins, refusals, downloads: on the disk within [`JournalOptions::sync_every`].
    Access,
}

impl Chain {
    /// The name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Access => "access",
        }
    }

    /// Its folder below a data directory.
    pub fn folder(self, dir: &Path) -> PathBuf {
        dir.join("journal").join(self.name())
    }
}

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// Verify the whole chain at open, not only from the checkpoint.
    pub verify_all: bool,
    /// How long an entry of the access chain may wait for its fsync.
    pub sync_every: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, verify_all: false, sync_every: Duration::from_secs(1) }
    }
}

/// What is to be written.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// What happened, as one word of the writer's vocabulary.
    pub kind: Cow<'static, str>,
    /// The particulars as JSON, on one line.
    data: String,
}

impl NewEntry {
    /// An entry with these particulars; no personal values, see the design's "State".
    ///
    /// # Errors
    ///
    /// They can't be written as JSON.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        data: &impl serde::Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self { kind: kind.into(), data: serde_json::to_string(data)? })
    }

    /// The particulars as JSON.
    pub fn data(&self) -> &str {
        &self.data
    }
}

/// The sequence numbers that an append got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Of its first entry.
    pub first: u64,
    /// Of its last entry.
    pub last: u64,
}

/// A point of the chain. Sequence 0 with a hash of zeros is the empty chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last entry's sequence number.
    pub sequence: u64,
    /// The last entry's hash (SHA-256).
    pub hash: [u8; 32],
}

/// One segment file, as far as its content is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file.
    pub path: PathBuf,
    /// The sequence number of its first entry.
    pub first: u64,
    /// Bytes from its start that hold whole entries.
    pub bytes: u64,
}

/// Why the journal failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The chain isn't what was written.
    #[error(
        "the journal is broken at entry {sequence} ({file}, line {line}, byte {offset}): {detail}; restore a backup, or put the folder aside and ask for help: names hang on it"
    )]
    Broken {
        /// The segment file.
        file: String,
        /// The line in the file, from 1.
        line: u64,
        /// Where the line begins, in bytes.
        offset: u64,
        /// The sequence number that stands or should stand there.
        sequence: u64,
        /// What is wrong.
        detail: String,
    },
    /// The chain ends before something that is known to have been in it.
    #[error(
        "the journal {folder} ends at entry {head}, but {by} has seen entry {known}; restore a backup of the journal, or of the whole data directory"
    )]
    Short {
        /// The chain's folder.
        folder: String,
        /// The last entry that is there.
        head: u64,
        /// Who knows of a later one.
        by: String,
        /// The later one.
        known: u64,
    },
    /// A file beside the segments is not what was written.
    #[error("{file} is damaged: {detail}; remove it to have the whole chain verified at the next start")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// An entry is larger, or deeper nested, than the format allows.
    #[error("a journal entry of kind {kind} is refused: {detail}")]
    Refused {
        /// The entry's kind.
        kind: String,
        /// What is wrong.
        detail: String,
    },
    /// An earlier write or fsync failed, so what is on the disk isn't known; nothing is taken until a restart.
    #[error("the journal takes nothing more since a write failed ({reason}); mend the storage and restart")]
    Poisoned {
        /// What failed first.
        reason: String,
    },
    /// An operation on a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An argument can't be right (a sequence number past the end).
    #[error("{0}")]
    Argument(String),
}

/// One chain, open for appending. Closed when dropped, after what waits is written.
#[derive(Debug)]
pub struct Journal {
    storage: Arc<dyn Storage>,
    writer: Writer,
}

impl Journal {
    /// Opens or begins the chain in the data directory `dir`, and verifies it from the last checkpoint. Blocking.
    ///
    /// `applied` names each store that applies this chain, with the number of the last entry that it has applied.
    /// `gateway` is written into each new entry.
    ///
    /// # Errors
    ///
    /// [`JournalError::Broken`] and [`JournalError::Short`] say where the chain is damaged; an incomplete last write
    /// that nobody can rely on is no error but stands in [`Recovery::cut`].
    pub fn open(
        dir: &Path,
        chain: Chain,
        gateway: Uuid,
        options: JournalOptions,
        applied: &[(&str, u64)],
    ) -> Result<(Self, Recovery), JournalError> {
        let folder = chain.folder(dir);
        let storage = Folder::create(&folder)
            .map_err(|source| JournalError::Io { path: folder.display().to_string(), source })?;
        Self::open_on(Arc::new(storage), chain, gateway, options, applied)
    }

    /// As [`Journal::open`], on any storage.
    pub(super) fn open_on(
        storage: Arc<dyn Storage>,
        chain: Chain,
        gateway: Uuid,
        options: JournalOptions,
        applied: &[(&str, u64)],
    ) -> Result<(Self, Recovery), JournalError> {
        let (recovery, position) = recovery::recover(storage.as_ref(), options.verify_all, applied)?;
        let writer = Writer::start(Arc::clone(&storage), chain, gateway, options, position)?;
        Ok((Self { storage, writer }, recovery))
    }

    /// Writes entries, in their order and with nothing between them.
    ///
    /// Returns when they are on the disk (governance), or written and to be on the disk within
    /// [`JournalOptions::sync_every`] (access). An entry is there whole or not at all; of several, a power
    /// loss before the return may leave the first ones. A future that is dropped may still have its entries
    /// written.
    ///
    /// # Errors
    ///
    /// [`JournalError::Refused`] leaves the journal as it is. After any other error it takes nothing more.
    pub async fn append(&self, entries: Vec<NewEntry>) -> Result<Appended, JournalError> {
        self.writer.append(entries).await
    }

    /// Returns when everything that was appended before is on the disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Poisoned`], [`JournalError::Io`].
    pub async fn sync(&self) -> Result<(), JournalError> {
        self.writer.sync().await
    }

    /// The last entry that was acknowledged.
    pub fn head(&self) -> Head {
        self.writer.published().head
    }

    /// Entries from `sequence` (at least 1) to the head of this moment; appending goes on beside it.
    /// Blocking, and so is the iterator. One past the head gives an empty iterator.
    ///
    /// # Errors
    ///
    /// [`JournalError::Argument`] for a number beyond that; an entry that can't be read is an error of the iterator.
    pub fn read_from(&self, sequence: u64) -> Result<JournalReader, JournalError> {
        JournalReader::new(Arc::clone(&self.storage), self.writer.published(), sequence)
    }

    /// Makes the next start verify from this entry on, which all stores must have applied by then: a later
    /// end of the chain below it is an error. Returns the checkpoint.
    ///
    /// # Errors
    ///
    /// [`JournalError::Argument`] for a number past the head or 0, or what writing the file reports.
    pub async fn write_checkpoint(&self, sequence: u64) -> Result<Head, JournalError> {
        self.sync().await?;
        let published = self.writer.published();
        let recent = self.writer.recent(sequence);
        let storage = Arc::clone(&self.storage);
        blocking(move || recovery::write_checkpoint(&storage, published, recent, sequence)).await
    }

    /// The segments with the bytes that hold acknowledged entries: a consistent prefix of the chain to copy.
    ///
    /// # Errors
    ///
    /// The folder can't be listed.
    pub fn segments(&self) -> Result<Vec<Segment>, JournalError> {
        reader::segments(self.storage.as_ref(), self.writer.published())
    }

    /// Copies the chain up to the head of this moment into `journal/<chain>/` below another directory, which
    /// must hold no such chain yet, and syncs it. Returns how far the copy goes.
    ///
    /// # Errors
    ///
    /// Reading or writing failed, or the target has segments already.
    pub async fn copy_to(&self, dir: &Path) -> Result<Head, JournalError> {
        self.sync().await?;
        let published = self.writer.published();
        let storage = Arc::clone(&self.storage);
        let target = self.writer.chain().folder(dir);
        blocking(move || reader::copy(storage.as_ref(), published, &target)).await
    }

    /// Verifies a whole chain without changing it. Blocking; on a chain that a gateway has open, the last
    /// entries may look incomplete.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its place.
    pub fn verify(dir: &Path, chain: Chain) -> Result<Report, JournalError> {
        let storage = Folder::existing(&chain.folder(dir));
        recovery::verify(&storage)
    }
}

impl JournalReader {
    /// The next entries, at most a thousand, and the reader for those behind them; none at the end. Doesn't block the
    /// runtime.
    ///
    /// # Errors
    ///
    /// An entry can't be read.
    pub async fn page(mut self) -> Result<(Vec<Entry>, Self), JournalError> {
        blocking(move || {
            let page = self.by_ref().take(1000).collect::<Result<Vec<_>, _>>()?;
            Ok((page, self))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| JournalError::Argument("the runtime is shutting down".into()))?
}

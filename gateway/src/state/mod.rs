//! State that survives a restart: ordered key-value stores and the journal.
//!
//! Everything above is written on [`Store`]; its engines are held to one shared suite of tests.

use async_trait::async_trait;
use bytes::Bytes;

/// A value with the version that its last commit gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// From one counter a store; never used again.
    pub version: u64,
}

/// One row of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The whole key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// See [`Versioned::version`].
    pub version: u64,
}

/// A page of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Rows in the order of their keys.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Vec<u8>>,
}

/// What must be true of a key for a batch to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The key is not there.
    Absent,
    /// The key is there with this version.
    At(u64),
}

/// Changes that apply whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Key and new value; `None` deletes. A key that appears twice takes the last one.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Checked against the state before the batch.
    pub conditions: Vec<(Vec<u8>, Condition)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a key; one that isn't there is no error.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push((key.into(), None));
        self
    }

    /// Makes the whole batch depend on a condition.
    pub fn require(&mut self, key: impl Into<Vec<u8>>, condition: Condition) -> &mut Self {
        self.conditions.push((key.into(), condition));
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conditions.is_empty()
    }
}

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A condition of the batch did not hold; nothing was changed.
    #[error("the state has changed meanwhile")]
    Conflict {
        /// The key whose condition failed.
        key: Vec<u8>,
    },
    /// What is on disk can't be read as what was written.
    #[error("{store} is damaged: {detail}")]
    Corrupt {
        /// The file or folder.
        store: String,
        /// What the engine said.
        detail: String,
    },
    /// Reading or writing failed (a full disk, no permission).
    #[error("{store}: {source}")]
    Io {
        /// The file or folder.
        store: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Anything else that the engine reports.
    #[error("{store}: {detail}")]
    Engine {
        /// The file or folder.
        store: String,
        /// What the engine said.
        detail: String,
    },
}

/// An ordered map from bytes to bytes.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The values of several keys of one moment, in their order.
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError>;

    /// Rows whose key begins with `prefix` and isn't below `from`, ascending, at most `limit`.
    async fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError>;

    /// Applies a batch whole or not at all and returns the version that its puts got.
    async fn commit(&self, batch: Batch) -> Result<u64, StoreError>;

    /// The value of one key.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(self.get_many(&[key.to_vec()]).await?.pop().flatten())
    }
}

//! The store trait and what goes in and out of it.

use std::{collections::HashMap, sync::Arc};

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

impl Condition {
    /// Whether it holds for a key with this version, `None` for a key that isn't there.
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::At(expected) => version == Some(expected),
        }
    }
}

/// Rows by their keys as they will be; `None` deletes.
pub type Changes = HashMap<Vec<u8>, Option<Bytes>, foldhash::fast::RandomState>;

/// Changes that apply whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What is written first. Shared, so that who has prepared a large batch can go on reading it.
    pub prepared: Arc<Changes>,
    /// What is written over that: key and new value; `None` deletes. A key that appears twice takes the last one.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Checked against the state before the batch.
    pub conditions: Vec<(Vec<u8>, Condition)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch of what was prepared.
    pub fn of(prepared: Arc<Changes>) -> Self {
        Self { prepared, ..Self::default() }
    }

    /// Everything that is written, in the order in which it counts: of a key that comes twice the last. What was prepared
    /// is sorted, as stores like it.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut prepared: Vec<_> =
            self.prepared.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        prepared.sort_unstable_by_key(|(key, _)| *key);
        prepared.into_iter().chain(self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))
    }

    /// Bytes of all keys and values that are written.
    pub fn bytes(&self) -> usize {
        let length = |key: usize, value: Option<usize>| key.saturating_add(value.unwrap_or(0));
        let prepared =
            self.prepared.iter().map(|(key, value)| length(key.len(), value.as_ref().map(Bytes::len)));
        let others = self.changes.iter().map(|(key, value)| length(key.len(), value.as_ref().map(Vec::len)));
        prepared.chain(others).fold(0, usize::saturating_add)
    }

    /// Writes a value. What is said last of a key counts.
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
        self.prepared.is_empty() && self.changes.is_empty() && self.conditions.is_empty()
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

impl StoreError {
    /// The same error once more, for several who waited for one failed write.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Conflict { key } => Self::Conflict { key: key.clone() },
            Self::Corrupt { store, detail } => Self::Corrupt { store: store.clone(), detail: detail.clone() },
            Self::Io { store, source } => Self::Io {
                store: store.clone(),
                source: match source.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                },
            },
            Self::Engine { store, detail } => Self::Engine { store: store.clone(), detail: detail.clone() },
        }
    }
}

/// Collects one page: bounded by rows and by bytes.
#[derive(Debug)]
pub(super) struct PageBuilder {
    rows: Vec<Row>,
    limit: usize,
    bytes: usize,
}

impl PageBuilder {
    /// Bytes of keys and values after which a page ends early, so that large values can't fill the memory.
    const MAX_BYTES: usize = 8 << 20;

    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, MAX_PAGE);
        Self { rows: Vec::with_capacity(limit.min(256)), limit, bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.bytes >= Self::MAX_BYTES
    }

    pub(super) fn push(&mut self, row: Row) {
        self.bytes = self.bytes.saturating_add(row.key.len()).saturating_add(row.value.len());
        self.rows.push(row);
    }

    /// The page when there is more, beginning with `key`.
    pub(super) fn continued_at(self, key: &[u8]) -> Page {
        Page { rows: self.rows, next: Some(key.to_vec()) }
    }

    /// The page when nothing follows.
    pub(super) fn last(self) -> Page {
        Page { rows: self.rows, next: None }
    }
}

/// The most rows of a page, whatever limit is asked for.
pub const MAX_PAGE: usize = 4096;

/// An ordered map from bytes to bytes.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The values of several keys of one moment, in their order.
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError>;

    /// Rows whose key begins with `prefix` and isn't below `from`, ascending, at most `limit`.
    ///
    /// A page has at least one row if there is one, at most [`MAX_PAGE`], and ends early at 8 MiB; its
    /// [`Page::next`] is the `from` of the next one.
    async fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError>;

    /// Applies a batch whole or not at all and returns the version that its puts got.
    async fn commit(&self, batch: Batch) -> Result<u64, StoreError>;

    /// The value of one key.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(self.get_many(&[key.to_vec()]).await?.pop().flatten())
    }
}

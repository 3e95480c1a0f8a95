//! The virtual tree: resolves paths, lists folders as streams, reads files, removes them.
//!
//! There is one tree for all doors. A door holds an `Arc<dyn FileSystem>` and a
//! [`Account`](crate::identity::Account) and knows nothing of recordings.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use bytes::BytesMut;

use crate::identity::Account;

mod path;
mod reader;
mod refusals;
mod tree;

pub use path::{PathError, VPath};
pub use reader::{MediaReader, Medium};
pub use refusals::read_refusal;
pub use tree::{Mounted, Vfs};

/// What a client may know of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// A folder, or a file.
    pub is_folder: bool,
    /// Bytes; 0 for a folder.
    pub size: u64,
    /// Last modification, Unix seconds UTC.
    pub modified: i64,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name within its folder; never empty, `.`, `..` or with a slash.
    pub name: String,
    /// What stat would say.
    pub attributes: Attributes,
}

/// An open folder: entries in pages, in the order of their names.
#[async_trait]
pub trait Listing: Send {
    /// The next page, at most a few hundred entries; empty at the end.
    async fn next_page(&mut self) -> Result<Vec<Entry>, Refusal>;
}

/// An open file. Its size and bytes stay the same while it is open.
#[async_trait]
pub trait OpenFile: Send + Sync {
    /// What stat said when it was opened.
    fn attributes(&self) -> Attributes;
    /// Appends `len` bytes from `offset`, fewer only at the end, if all of them are in memory already;
    /// otherwise appends nothing and returns false. Never waits.
    fn read_now(&self, offset: u64, len: usize, out: &mut BytesMut) -> bool;
    /// Appends `len` bytes from `offset`, fewer only at the end, nothing beyond it.
    async fn read(&self, offset: u64, len: usize, out: &mut BytesMut) -> Result<(), Refusal>;
    /// SHA-256 of the whole file, where it is known without reading it.
    fn sha256(&self) -> Option<[u8; 32]>;
}

/// What doors ask of the tree.
#[async_trait]
pub trait FileSystem: Send + Sync {
    /// What a path is.
    async fn stat(&self, account: &Account, path: &VPath) -> Result<Attributes, Refusal>;
    /// Opens a folder.
    async fn list(&self, account: &Account, path: &VPath) -> Result<Box<dyn Listing>, Refusal>;
    /// Opens a file for reading.
    async fn open(&self, account: &Account, path: &VPath) -> Result<Arc<dyn OpenFile>, Refusal>;
    /// Removes a file; a lock, a role or the tree's nature may refuse it.
    async fn remove(&self, account: &Account, path: &VPath) -> Result<(), Refusal>;
}

/// Why something was refused or failed. Each door has one table from the kind to its own status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What class of refusal.
    pub kind: RefusalKind,
    /// One short sentence for the client. Nothing internal.
    pub client: Cow<'static, str>,
    /// What the log gets besides; empty where there is nothing more to say.
    pub detail: String,
}

/// The class of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// There is no such path (or the account may not know of it).
    NotFound,
    /// A folder was meant, a file found.
    NotAFolder,
    /// A file was meant, a folder found.
    IsAFolder,
    /// The tree is read-only.
    ReadOnly,
    /// The account's role doesn't allow it.
    Forbidden,
    /// A retention or hold forbids it.
    Locked,
    /// The media's source can't be reached now.
    Unavailable,
    /// The media is in colder storage.
    Archived,
    /// The stored bytes aren't those that were published.
    Corrupt,
    /// Too many open at once.
    Busy,
    /// A defect; the log has the details.
    Internal,
}

impl Refusal {
    /// A refusal that the log needs no more about.
    pub fn new(kind: RefusalKind, client: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, client: client.into(), detail: String::new() }
    }

    /// The same with details for the log.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.client)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Refusal {}

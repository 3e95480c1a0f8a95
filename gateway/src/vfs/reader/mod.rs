//! The media reader: turns ranged reads of a source into a fast sequential stream.
//!
//! Storage answers a read after 20 or 100 ms; a client asks for 32 KiB at a time. So an open file fetches ahead of
//! the client, several blocks at once. What it costs is memory, and memory is bounded twice: per open file, and by
//! one budget for all of them.
//!
//! Nothing waits for a block while it holds one, and the budget takes back blocks that nobody is copying as soon as a
//! read has to wait: whatever the budget, each read gets its turn, in the order of asking. Read-ahead never
//! waits; it happens where memory is free. Of one source only a part of the budget may be on its way, so that one that
//! hangs holds up none but its own. A file's share of the budget shrinks as others become active and
//! take theirs, so that blocks are rarely taken back at all.
//!
//! Clients pipeline their requests and doors answer them in any order. So sequential access is told by the
//! progress of the requests as a whole (`run`), not by each following the one before.

mod block;
mod budget;
mod file;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use self::{budget::Budget, file::ReadAheadFile};
use super::{Attributes, OpenFile};
use crate::sources::OpenMedia;

/// Bytes of the first block of a file, and the largest file that is fetched at its opening.
const FIRST_BLOCK: u64 = 256 * 1024;
/// Bytes of the largest block: one read of a plugin.
const LARGEST_BLOCK: u64 = 1024 * 1024;
/// Bytes of the smallest block of read-ahead: what an SFTP client usually asks for at once.
const SMALLEST_BLOCK: u64 = 32 * 1024;

/// Where the bytes of a file come from.
pub struct Medium {
    /// The media.
    pub media: Arc<dyn OpenMedia>,
    /// Its [first](MediaReader::first) bytes, where they came with it.
    pub first: Option<Bytes>,
    /// Of which tenant and source it is, by their ids.
    pub source: (u32, u32),
    /// Names the recording in the log.
    pub describe: String,
}

/// Opens media for reading, with one budget of memory for all that it has opened.
#[derive(Debug)]
pub struct MediaReader {
    budget: Arc<Budget>,
    per_file: u64,
}

impl MediaReader {
    /// A reader whose blocks take at most `budget_bytes` (at least 1 MiB) in all, and whose read-ahead takes at most
    /// `per_file_bytes` for one open file.
    pub fn new(budget_bytes: u64, per_file_bytes: u64) -> Arc<Self> {
        let budget = Budget::new(budget_bytes.max(LARGEST_BLOCK));
        Arc::new(Self { budget: Arc::new(budget), per_file: per_file_bytes.max(SMALLEST_BLOCK) })
    }

    /// How many bytes a file of this size wants with its opening: all, or none.
    pub fn first(size: u64) -> usize {
        if size <= FIRST_BLOCK { usize::try_from(size).unwrap_or(0) } else { 0 }
    }

    /// A file over `medium`, of `size` bytes, the first of which are replaced by `header_patch`.
    ///
    /// `sha256` is that of the served bytes. A file of at most 256 KiB is fetched at once. Dropping the file ends its fetches and frees its blocks. To be called within a tokio runtime.
    pub fn open(
        &self,
        medium: Medium,
        size: u64,
        header_patch: Bytes,
        attributes: Attributes,
        sha256: Option<[u8; 32]>,
    ) -> Arc<dyn OpenFile> {
        let patch_len = usize::try_from(size).unwrap_or(usize::MAX).min(header_patch.len());
        let served = file::Served {
            medium,
            size,
            header_patch: header_patch.slice(..patch_len),
            attributes: Attributes { size, ..attributes },
            sha256,
        };
        Arc::new(ReadAheadFile::new(served, Arc::clone(&self.budget), self.per_file))
    }

    /// Bytes that blocks take now, fetched or being fetched.
    pub fn bytes_in_use(&self) -> u64 {
        self.budget.in_use()
    }

    /// Bytes that blocks may take in all.
    pub fn budget_bytes(&self) -> u64 {
        self.budget.total()
    }

    /// Open files that hold blocks now.
    pub fn active_files(&self) -> usize {
        self.budget.active_files()
    }
}

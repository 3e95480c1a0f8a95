//! Blocks of one open file: stretches of bytes that are in memory or on their way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::{sync::watch, task::AbortHandle};

use super::{super::Refusal, budget::Grant};

/// Bytes with the memory that was given out for them: whoever still copies keeps both.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) bytes: Bytes,
    pub(super) _grant: Grant,
}

/// How a fetch ended; `None` while it runs.
pub(super) type Outcome = Option<Result<Arc<Loaded>, Refusal>>;

/// One stretch of bytes.
#[derive(Debug)]
pub(super) struct Block {
    /// Which of the blocks that ever began here.
    pub(super) serial: u64,
    pub(super) len: u64,
    /// Bytes that were copied out of it.
    pub(super) served: u64,
    pub(super) outcome: watch::Receiver<Outcome>,
    /// `None` where it came with the opening.
    pub(super) fetch: Option<AbortHandle>,
}

impl Block {
    /// The bytes, if they are in memory.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        match &*self.outcome.borrow() {
            Some(Ok(loaded)) => Some(Arc::clone(loaded)),
            _ => None,
        }
    }

    fn end(&self) {
        if let Some(fetch) = &self.fetch {
            fetch.abort();
        }
    }

    fn is_loaded(&self) -> bool {
        matches!(&*self.outcome.borrow(), Some(Ok(_)))
    }
}

/// The blocks of one file, by where they begin. They never overlap.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    map: BTreeMap<u64, Block>,
    held: u64,
}

impl Blocks {
    /// Bytes of all blocks.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The block that holds the byte at `offset`, and where it begins.
    pub(super) fn at(&self, offset: u64) -> Option<(u64, &Block)> {
        let (start, block) = self.map.range(..=offset).next_back()?;
        (offset < start.saturating_add(block.len)).then_some((*start, block))
    }

    /// The first byte of `offset..end` for which there is no block.
    pub(super) fn first_gap(&self, offset: u64, end: u64) -> Option<u64> {
        let mut position = offset;
        while position < end {
            let Some((start, block)) = self.at(position) else { return Some(position) };
            position = start.saturating_add(block.len);
        }
        None
    }

    /// Whether all of `offset..end` is in memory.
    pub(super) fn all_loaded(&self, offset: u64, end: u64) -> bool {
        let mut position = offset;
        while position < end {
            match self.at(position) {
                Some((start, block)) if block.is_loaded() => position = start.saturating_add(block.len),
                _ => return false,
            }
        }
        true
    }

    /// Where the first block after `offset` begins.
    pub(super) fn next_start(&self, offset: u64) -> Option<u64> {
        self.map.range(offset..).next().map(|(start, _)| *start)
    }

    pub(super) fn insert(&mut self, start: u64, block: Block) {
        self.held = self.held.saturating_add(block.len);
        if let Some(old) = self.map.insert(start, block) {
            old.end();
            self.held = self.held.saturating_sub(old.len);
        }
    }

    /// Counts bytes that were copied; a block of which all were is dropped.
    pub(super) fn served(&mut self, start: u64, serial: u64, bytes: u64) {
        let Some(block) = self.map.get_mut(&start).filter(|block| block.serial == serial) else { return };
        block.served = block.served.saturating_add(bytes);
        if block.served >= block.len {
            self.remove(start, serial);
        }
    }

    pub(super) fn remove(&mut self, start: u64, serial: u64) {
        if self.map.get(&start).is_some_and(|block| block.serial == serial)
            && let Some(block) = self.map.remove(&start)
        {
            self.held = self.held.saturating_sub(block.len);
        }
    }

    /// Drops loaded blocks that `unwanted` names by their first and end offset.
    pub(super) fn drop_loaded(&mut self, unwanted: impl Fn(u64, u64) -> bool) {
        let held = &mut self.held;
        self.map.retain(|start, block| {
            let drop = block.is_loaded() && unwanted(*start, start.saturating_add(block.len));
            if drop {
                *held = held.saturating_sub(block.len);
            }
            !drop
        });
    }

    /// Drops loaded blocks, the furthest first, until `bytes` are freed; says how many bytes were.
    pub(super) fn drop_furthest(&mut self, bytes: u64) -> u64 {
        let mut victims = Vec::new();
        let mut freed = 0_u64;
        for (start, block) in self.map.iter().rev() {
            if freed >= bytes {
                break;
            }
            if block.is_loaded() {
                victims.push((*start, block.serial));
                freed = freed.saturating_add(block.len);
            }
        }
        for (start, serial) in victims {
            self.remove(start, serial);
        }
        freed
    }

    /// Drops all blocks and ends their fetches.
    pub(super) fn clear(&mut self) {
        for block in self.map.values() {
            block.end();
        }
        self.map.clear();
        self.held = 0;
    }
}

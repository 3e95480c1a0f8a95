//! One open file: its blocks, what is fetched next, and reads out of it.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use recgate_plugin_api::ErrorCode;
use tokio::{runtime::Handle, sync::watch};

use super::{
    super::{
        Attributes, OpenFile, Refusal, RefusalKind,
        refusals::{ends_early, read_refusal, too_many_bytes},
    },
    FIRST_BLOCK, LARGEST_BLOCK, Medium, SMALLEST_BLOCK,
    block::{Block, Blocks, Loaded, Outcome},
    budget::{Budget, Flight, Flights, Grant, Holder},
    run::Run,
};
use crate::sources::SourceError;

/// How often a read that failed for a passing reason is made again.
const RETRIES: u32 = 2;
/// Before the first retry; doubled for the next, unless the source asks for longer.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// However long a source asks for: a client waits meanwhile.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// What is served: the media and what the catalog knows of it.
pub(super) struct Served {
    pub(super) medium: Medium,
    pub(super) size: u64,
    /// Not longer than the file.
    pub(super) header_patch: Bytes,
    pub(super) attributes: Attributes,
    pub(super) sha256: Option<[u8; 32]>,
}

/// An open file that fetches ahead. Dropping it ends its fetches and frees its blocks.
pub(super) struct ReadAheadFile {
    inner: Arc<Inner>,
}

impl ReadAheadFile {
    pub(super) fn new(mut served: Served, budget: Arc<Budget>, per_file: u64) -> Self {
        let first = served.medium.first.take();
        let number = budget.next_file();
        let flights = budget.flights(served.medium.source);
        let inner = Arc::new_cyclic(|me: &Weak<Inner>| Inner {
            served,
            budget,
            flights,
            per_file,
            number,
            me: Weak::clone(me),
            state: Mutex::default(),
        });
        if inner.served.size <= FIRST_BLOCK {
            inner.with_state(|state| match first.and_then(|first| inner.take_in(first)) {
                Some(block) => {
                    state.blocks.insert(0, block);
                    state.run.fetched = inner.served.size;
                }
                None => {
                    inner.fill(state, 0, inner.served.size, FIRST_BLOCK);
                }
            });
        }
        Self { inner }
    }
}

impl Drop for ReadAheadFile {
    fn drop(&mut self) {
        self.inner.with_state(|state| state.blocks.clear());
    }
}

#[async_trait]
impl OpenFile for ReadAheadFile {
    fn attributes(&self) -> Attributes {
        self.inner.served.attributes
    }

    fn read_now(&self, offset: u64, len: usize, out: &mut BytesMut) -> bool {
        let inner = &self.inner;
        let end = inner.end_of(offset, len);
        if end <= offset {
            return true;
        }
        let answered = inner.with_state(|state| {
            inner.note(state, offset, end);
            let gap = state.blocks.first_gap(offset, end);
            let answered = gap.is_none() && state.blocks.all_loaded(offset, end);
            if answered {
                inner.copy_all(state, offset, end, out);
            } else if let Some(gap) = gap {
                inner.demand(state, gap, end);
            }
            inner.fetch_ahead(state, if answered { end } else { offset });
            answered
        });
        inner.budget.block_became_idle();
        answered
    }

    async fn read(&self, offset: u64, len: usize, out: &mut BytesMut) -> Result<(), Refusal> {
        let inner = &self.inner;
        let end = inner.end_of(offset, len);
        if end > offset {
            inner.with_state(|state| inner.note(state, offset, end));
        }
        let before = out.len();
        let mut position = offset;
        while position < end {
            match inner.read_piece(position, end, out).await {
                Ok(bytes) => position = position.saturating_add(bytes),
                Err(refusal) => {
                    out.truncate(before);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        self.inner.served.sha256
    }
}

/// Bytes on their way and the memory for them.
type Room = (Flight, Grant);

struct Inner {
    served: Served,
    budget: Arc<Budget>,
    flights: Flights,
    per_file: u64,
    /// Among the files of the budget.
    number: u64,
    me: Weak<Inner>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: Blocks,
    run: Run,
    next_serial: u64,
    /// A fetch failed; nothing is fetched ahead until a read has succeeded.
    failing: bool,
    /// The budget counts this file as active.
    active: bool,
}

impl Inner {
    /// Copies what it can from the block at `position`, waiting for it if need be; says how many bytes (not 0).
    async fn read_piece(&self, position: u64, end: u64, out: &mut BytesMut) -> Result<u64, Refusal> {
        let found = self.with_state(|state| {
            if state.blocks.at(position).is_none() {
                self.demand(state, position, end);
            }
            let found = state.blocks.at(position);
            let found = found.map(|(start, block)| (start, block.serial, block.outcome.clone()));
            self.fetch_ahead(state, position);
            found
        });
        let Some((start, serial, mut outcome)) = found else {
            return Err(self.internal("no fetch could be started"));
        };
        let ended = match outcome.wait_for(Option::is_some).await {
            Ok(ended) => Outcome::clone(&ended),
            Err(_) => None,
        };
        // The channel holds the bytes too: without it they are freed as soon as nobody needs them.
        drop(outcome);
        let loaded = match ended {
            Some(Ok(loaded)) => loaded,
            Some(Err(refusal)) => return Err(refusal),
            None => {
                self.with_state(|state| state.blocks.remove(start, serial));
                return Err(self.internal("a fetch ended without an answer"));
            }
        };
        let copied = self.copy(&loaded, start, position, end, out);
        drop(loaded);
        self.with_state(|state| {
            state.failing = false;
            state.blocks.served(start, serial, copied);
        });
        self.budget.block_became_idle();
        if copied == 0 {
            Err(self.internal("a block ends before the byte it was made for"))
        } else {
            Ok(copied)
        }
    }

    /// Copies `offset..end`, all of which is loaded.
    fn copy_all(&self, state: &mut State, offset: u64, end: u64, out: &mut BytesMut) {
        let mut position = offset;
        while position < end {
            let Some((start, block)) = state.blocks.at(position) else { return };
            let serial = block.serial;
            let Some(loaded) = block.loaded() else { return };
            let copied = self.copy(&loaded, start, position, end, out);
            if copied == 0 {
                return;
            }
            state.blocks.served(start, serial, copied);
            position = position.saturating_add(copied);
        }
    }

    /// Copies from `position` up to `end` or the end of the block that begins at `start`; says how many bytes.
    fn copy(&self, loaded: &Loaded, start: u64, position: u64, end: u64, out: &mut BytesMut) -> u64 {
        let from = usize::try_from(position.saturating_sub(start)).unwrap_or(usize::MAX);
        let to = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(loaded.bytes.len());
        let Some(bytes) = loaded.bytes.get(from..to) else { return 0 };
        let at = out.len();
        out.extend_from_slice(bytes);
        let patch = usize::try_from(position).ok().and_then(|skip| self.served.header_patch.get(skip..));
        if let (Some(patch), Some(copied)) = (patch, out.get_mut(at..)) {
            for (byte, patched) in copied.iter_mut().zip(patch) {
                *byte = *patched;
            }
        }
        u64::try_from(bytes.len()).unwrap_or(0)
    }

    fn note(&self, state: &mut State, offset: u64, end: u64) {
        let present = state.blocks.at(offset).is_some();
        if state.run.note(offset, end.saturating_sub(offset), present) {
            let far = end.saturating_add(self.cap());
            state.blocks.drop_loaded(|first, last| last <= offset || first >= far);
        }
    }

    /// Fetches what a read needs at `position`, where there is no block: exactly that in random access, a whole block
    /// in sequential access.
    fn demand(&self, state: &mut State, position: u64, end: u64) {
        let cap = self.cap();
        let block = state.run.block(cap);
        let mut position = position;
        if state.run.window(cap) > 0 && position > state.run.fetched && !state.failing {
            // A request has overtaken others: theirs is fetched with it.
            let filled = self.fill(state, state.run.fetched, position, block);
            position = position.max(filled);
            if position >= end {
                return;
            }
        }
        let room = state.blocks.next_start(position).unwrap_or(self.served.size).min(self.served.size);
        let room = room.saturating_sub(position);
        let exact = end.saturating_sub(position).min(LARGEST_BLOCK).min(room);
        let mut len = exact;
        if state.run.continues_at(position) {
            len = exact.max(block).min(room);
        }
        if state.blocks.held().saturating_add(len) > cap {
            let low_water = state.run.high.saturating_sub(cap / 2);
            state.blocks.drop_loaded(|_, last| last <= low_water);
        }
        if state.blocks.held().saturating_add(len) > cap {
            state.blocks.drop_loaded(|_, last| last <= position);
        }
        if state.blocks.held().saturating_add(len) > cap {
            len = exact;
        }
        let mut room = self.try_room(len);
        if room.is_none() && len > exact {
            len = exact;
            room = self.try_room(len);
        }
        self.start(state, position, len, room);
    }

    /// Fetches ahead of a sequential run as far as its window and free memory allow. Blocks with bytes from `needed` on
    /// stay: a read is about to take them.
    fn fetch_ahead(&self, state: &mut State, needed: u64) {
        let cap = self.cap();
        let window = state.run.window(cap);
        if window == 0 || state.failing {
            return;
        }
        let block = state.run.block(cap);
        let target = state.run.high.saturating_add(window).min(self.served.size);
        let from = state.run.fetched;
        // Whole blocks only, but for the last one.
        if from >= target || (target < self.served.size && target.saturating_sub(from) < block) {
            return;
        }
        if state.blocks.held().saturating_add(block) > cap {
            let low_water = state.run.high.saturating_sub(cap / 2).min(needed);
            state.blocks.drop_loaded(|_, last| last <= low_water);
        }
        let to =
            if target < self.served.size { target.saturating_sub(block).saturating_add(1) } else { target };
        self.fill(state, from, to, block);
    }

    /// Starts fetches of `block` bytes for all gaps that begin within `from..to`, as far as memory is free. Returns
    /// the end of what is covered without a gap.
    fn fill(&self, state: &mut State, from: u64, to: u64, block: u64) -> u64 {
        let cap = self.cap();
        let mut position = from;
        while position < to {
            if let Some((start, present)) = state.blocks.at(position) {
                position = start.saturating_add(present.len);
                continue;
            }
            let room = state.blocks.next_start(position).unwrap_or(self.served.size).min(self.served.size);
            let len = block.min(room.saturating_sub(position));
            // A file may always have one block.
            let fits = state.blocks.is_empty() || state.blocks.held().saturating_add(len) <= cap;
            if len == 0 || !fits {
                break;
            }
            let Some(room) = self.try_room(len) else { break };
            if !self.start(state, position, len, Some(room)) {
                break;
            }
            position = position.saturating_add(len);
        }
        state.run.fetched = state.run.fetched.max(position);
        position
    }

    /// A block of the whole file, which came with the opening; `None` where there is no memory for it.
    fn take_in(&self, bytes: Bytes) -> Option<Block> {
        let len = u64::try_from(bytes.len()).ok().filter(|len| *len == self.served.size && *len > 0)?;
        let loaded = Loaded { bytes, _grant: self.budget.try_take(len)? };
        let (_, outcome) = watch::channel(Some(Ok(Arc::new(loaded))));
        Some(Block { serial: u64::MAX, len, served: 0, outcome, fetch: None })
    }

    /// Room on the way from the source, and memory, both at once.
    fn try_room(&self, len: u64) -> Option<Room> {
        Some((self.flights.try_take(len)?, self.budget.try_take(len)?))
    }

    /// Starts the fetch of a block; without room it waits for that first.
    fn start(&self, state: &mut State, start: u64, len: u64, room: Option<Room>) -> bool {
        let (Some(me), Ok(runtime)) = (self.me.upgrade(), Handle::try_current()) else { return false };
        if len == 0 {
            return false;
        }
        let serial = state.next_serial;
        state.next_serial = serial.wrapping_add(1);
        let (sender, outcome) = watch::channel(None);
        let fetch = Some(runtime.spawn(me.fetch(start, len, serial, room, sender)).abort_handle());
        state.blocks.insert(start, Block { serial, len, served: 0, outcome, fetch });
        state.run.fetched = state.run.fetched.max(start.saturating_add(len));
        true
    }

    /// The task of one block.
    async fn fetch(
        self: Arc<Self>,
        start: u64,
        len: u64,
        serial: u64,
        room: Option<Room>,
        outcome: watch::Sender<Outcome>,
    ) {
        let (flight, grant) = match room {
            Some(room) => room,
            None => {
                // In this order: who waits for the source holds no memory.
                let Some(flight) = self.flights.take(len).await else { return };
                let Some(grant) = self.budget.take(len).await else { return };
                (flight, grant)
            }
        };
        let loaded = self.load(start, len).await;
        drop(flight);
        match loaded {
            Ok(bytes) => {
                outcome.send_replace(Some(Ok(Arc::new(Loaded { bytes, _grant: grant }))));
            }
            Err(refusal) => {
                drop(grant);
                if outcome.receiver_count() <= 1 {
                    tracing::debug!(%refusal, "read-ahead failed");
                }
                // Not kept: the next read tries again.
                self.with_state(|state| {
                    state.failing = true;
                    state.run.fetched = state.run.fetched.min(start);
                    state.blocks.remove(start, serial);
                });
                outcome.send_replace(Some(Err(refusal)));
            }
        }
        drop(outcome);
        self.budget.block_became_idle();
    }

    /// Reads exactly `len` bytes from the source, again where that may help.
    async fn load(&self, start: u64, len: u64) -> Result<Bytes, Refusal> {
        let Medium { media, describe, .. } = &self.served.medium;
        let asked = usize::try_from(len).unwrap_or(usize::MAX);
        let mut attempt = 0;
        loop {
            match media.read_at(start, asked).await {
                Ok(bytes) if bytes.len() == asked => return Ok(bytes),
                Ok(bytes) if bytes.len() < asked => {
                    return Err(ends_early(describe, start, asked, bytes.len()));
                }
                Ok(bytes) => return Err(too_many_bytes(describe, start, asked, bytes.len())),
                Err(error) => {
                    let Some(delay) = backoff(&error, attempt) else {
                        return Err(read_refusal(&error, describe));
                    };
                    tracing::debug!(%error, describe, offset = start, attempt, "read failed, will be retried");
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
            }
        }
    }

    /// Runs `change` under the lock and tells the budget whether this file holds blocks after it.
    fn with_state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        let active = !state.blocks.is_empty();
        if active != state.active {
            state.active = active;
            if active {
                let me: Weak<dyn Holder> = Weak::<Self>::clone(&self.me);
                self.budget.activate(self.number, me);
            } else {
                self.budget.deactivate(self.number);
            }
        }
        result
    }

    /// Bytes of blocks that this file may hold for read-ahead now.
    fn cap(&self) -> u64 {
        self.per_file.min(self.budget.allowance().max(SMALLEST_BLOCK))
    }

    fn end_of(&self, offset: u64, len: usize) -> u64 {
        offset.saturating_add(u64::try_from(len).unwrap_or(u64::MAX)).min(self.served.size)
    }

    fn internal(&self, what: &str) -> Refusal {
        Refusal::new(RefusalKind::Internal, "reading this recording failed; the log says why")
            .with_detail(format!("{}: {what}", self.served.medium.describe))
    }
}

impl Holder for Inner {
    fn held(&self) -> u64 {
        self.with_state(|state| state.blocks.held())
    }

    fn give_back(&self, bytes: u64) -> u64 {
        self.with_state(|state| {
            let freed = state.blocks.drop_furthest(bytes);
            if freed > 0 {
                // What was fetched ahead and taken back is fetched again when its turn comes.
                state.run.fetched = state.run.fetched.min(state.run.high);
            }
            freed
        })
    }
}

/// How long to wait before a retry; `None` where it can't help. A timeout isn't retried: the client has
/// waited for a whole deadline by then.
fn backoff(error: &SourceError, attempt: u32) -> Option<Duration> {
    let passing =
        matches!(error.error.code, ErrorCode::Busy | ErrorCode::RateLimited | ErrorCode::Unavailable);
    if !passing || attempt >= RETRIES {
        return None;
    }
    let own = FIRST_BACKOFF.saturating_mul(1 << attempt.min(8));
    Some(own.max(Duration::from_millis(error.error.retry_after_ms)).min(LONGEST_BACKOFF))
}

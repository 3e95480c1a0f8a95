//! The thread that writes a chain.
//!
//! Appends wait in a queue that is bounded in bytes. The thread takes what waits, writes it in one piece,
//! and, for the governance chain, answers after one fsync for all; for the access chain it answers after the
//! write and syncs in time. After a write or fsync that failed nobody knows what is on the disk (a second
//! fsync may report success for pages that were dropped), so the thread cuts back what it can and refuses
//! everything until a restart.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use super::format::{Body, from_hex, hash, hex, segment_name};
use super::reader::read_error;
use super::recovery::Position;
use super::storage::{LogFile, Storage};
use super::{Appended, Chain, Head, JournalError, JournalOptions, NewEntry};

/// Most bytes that one append may have.
pub const MAX_APPEND_BYTES: usize = 512 << 10;
/// Most bytes that are written and not yet synced: what a power loss can tear.
pub(super) const MAX_UNSYNCED_BYTES: u64 = 1 << 20;
/// Most KiB that wait in the queue.
const QUEUE_KIB: usize = 4096;
/// The file of the [`Mark`].
pub(super) const MARK: &str = "synced";

/// How many ends of appends are remembered, the newest: a checkpoint is at one of them, and needn't be looked for then.
const RECENT: usize = 4096;

/// How far a chain is settled: acknowledged, and readable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub head: Head,
    /// The segment that holds the head, and its bytes up to there.
    pub segment_first: u64,
    pub segment_bytes: u64,
}

/// How far the chain was on the disk. Written after an fsync, so never ahead; itself not synced, so perhaps
/// behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub head: Head,
    pub segment: u64,
    pub bytes: u64,
}

impl Mark {
    /// Its length in the file: three numbers, a hash, a checksum, what parts them, and some room.
    pub(super) const MAX_BYTES: u64 = 256;

    fn text(self) -> String {
        let body = format!(
            "{:020} {:020} {:020} {}",
            self.head.sequence,
            self.segment,
            self.bytes,
            hex(&self.head.hash)
        );
        let check: String = hex(&hash(body.as_bytes())).chars().take(16).collect();
        format!("{body} {check}\n")
    }

    /// `None` for anything that isn't a whole mark: it is a hint, and may be torn.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (sequence, segment, bytes) = (number()?, number()?, number()?);
        let hash = from_hex(words.next()?)?;
        let mark = Self { head: Head { sequence, hash }, segment, bytes };
        (mark.text() == text).then_some(mark)
    }
}

/// The handle to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    chain: Chain,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    published: Mutex<Published>,
    /// Where the last appends ended.
    recent: Mutex<VecDeque<Head>>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
enum Job {
    Append {
        bodies: Vec<Body>,
        bytes: usize,
        answer: oneshot::Sender<Result<Appended, JournalError>>,
        _room: OwnedSemaphorePermit,
    },
    Sync {
        answer: oneshot::Sender<Result<(), JournalError>>,
        _room: OwnedSemaphorePermit,
    },
}

impl Writer {
    pub(super) fn start(
        storage: Arc<dyn Storage>,
        chain: Chain,
        gateway: Uuid,
        options: JournalOptions,
        position: Position,
    ) -> Result<Self, JournalError> {
        let mark = match storage.open(MARK) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create(MARK),
            other => other,
        }
        .map_err(|source| read_error(storage.as_ref(), MARK, source))?;
        let (segment_first, segment_bytes) =
            position.segment.as_ref().map_or((1, 0), |(first, _, bytes)| (*first, *bytes));
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            published: Mutex::new(Published { head: position.head, segment_first, segment_bytes }),
            recent: Mutex::default(),
        });
        let worker = Worker {
            storage: Arc::clone(&storage),
            shared: Arc::clone(&shared),
            chain,
            gateway,
            options,
            mark,
            head: position.head,
            segment: position.segment.map(|(first, file, bytes)| OpenSegment { first, file, bytes }),
            unsynced: None,
            poisoned: None,
        };
        // Recovery has synced everything.
        worker.write_mark();
        let thread = std::thread::Builder::new()
            .name(format!("journal-{}", chain.name()))
            .spawn(move || worker.run())
            .map_err(|source| read_error(storage.as_ref(), "", source))?;
        Ok(Self { shared, room: Arc::new(Semaphore::new(QUEUE_KIB)), chain, thread: Some(thread) })
    }

    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    pub(super) fn published(&self) -> Published {
        *lock(&self.shared.published)
    }

    /// The hash of an acknowledged entry, if an append ended with it lately.
    pub(super) fn recent(&self, sequence: u64) -> Option<Head> {
        let recent = lock(&self.shared.recent);
        let at = recent.binary_search_by_key(&sequence, |head| head.sequence).ok()?;
        recent.get(at).copied().filter(|head| head.sequence <= self.published().head.sequence)
    }

    pub(super) async fn append(&self, entries: Vec<NewEntry>) -> Result<Appended, JournalError> {
        let bodies = entries.iter().map(Body::new).collect::<Result<Vec<_>, _>>()?;
        let bytes = bodies.iter().map(Body::line_bytes).sum::<usize>();
        if bodies.is_empty() {
            return Err(JournalError::Argument("there is nothing to append".into()));
        }
        if bytes > MAX_APPEND_BYTES {
            let detail = format!("together its append has {bytes} bytes of {MAX_APPEND_BYTES} allowed");
            let kind = entries.first().map(|entry| entry.kind.to_string()).unwrap_or_default();
            return Err(JournalError::Refused { kind, detail });
        }
        let room = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| ended())?;
        let (answer, result) = oneshot::channel();
        self.push(Job::Append { bodies, bytes, answer, _room: room });
        result.await.map_err(|_| ended())?
    }

    pub(super) async fn sync(&self) -> Result<(), JournalError> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| ended())?;
        let (answer, result) = oneshot::channel();
        self.push(Job::Sync { answer, _room: room });
        result.await.map_err(|_| ended())?
    }

    fn push(&self, job: Job) {
        lock(&self.shared.queue).jobs.push_back(job);
        self.shared.wake.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ended() -> JournalError {
    JournalError::Poisoned { reason: "its thread has ended".into() }
}

/// The data is plain values that are whole at any moment, so a panic elsewhere doesn't spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct OpenSegment {
    first: u64,
    file: Arc<dyn LogFile>,
    bytes: u64,
}

/// What has been written since the last fsync.
#[derive(Debug, Clone, Copy)]
struct Unsynced {
    /// The number of its first entry.
    first: u64,
    bytes: u64,
    since: Instant,
}

struct Worker {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    chain: Chain,
    gateway: Uuid,
    options: JournalOptions,
    mark: Arc<dyn LogFile>,
    /// The last entry that was written.
    head: Head,
    segment: Option<OpenSegment>,
    unsynced: Option<Unsynced>,
    poisoned: Option<String>,
}

/// What the thread woke up for.
enum Work {
    Jobs(Vec<Job>),
    Deadline,
    Close,
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.wait() {
                Work::Jobs(jobs) => self.handle(jobs),
                Work::Deadline => {
                    let _ = self.sync();
                }
                Work::Close => {
                    if self.sync().is_ok() && self.poisoned.is_none() {
                        // The mark only helps to see damage; without its fsync it may be older.
                        let _ = self.mark.sync();
                    }
                    return;
                }
            }
        }
    }

    fn wait(&self) -> Work {
        let mut queue = lock(&self.shared.queue);
        loop {
            if !queue.jobs.is_empty() {
                return Work::Jobs(take(&mut queue.jobs));
            }
            if queue.closed {
                return Work::Close;
            }
            let due = self.unsynced.filter(|_| self.poisoned.is_none());
            queue = match due {
                Some(unsynced) => {
                    let left = self.options.sync_every.saturating_sub(unsynced.since.elapsed());
                    if left.is_zero() {
                        return Work::Deadline;
                    }
                    self.shared.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes a group and answers everybody in it.
    fn handle(&mut self, jobs: Vec<Job>) {
        let before = self.head;
        let written = self.write(&jobs);
        let wants_sync = jobs.iter().any(|job| matches!(job, Job::Sync { .. })) || self.overdue();
        let settled = match written {
            Ok(()) if wants_sync || self.chain == Chain::Governance => self.sync(),
            other => other,
        };
        if settled.is_ok() {
            self.publish();
        }
        let mut next = before.sequence.saturating_add(1);
        for job in jobs {
            let outcome = settled.map_err(|()| self.poison_error());
            // Who asked may have gone; what was written stays.
            match job {
                Job::Append { bodies, answer, .. } => {
                    let first = next;
                    next = next.saturating_add(bodies.len() as u64);
                    let _ = answer.send(outcome.map(|()| Appended { first, last: next.saturating_sub(1) }));
                }
                Job::Sync { answer, .. } => {
                    let _ = answer.send(outcome);
                }
            }
        }
    }

    fn overdue(&self) -> bool {
        self.unsynced.is_some_and(|unsynced| unsynced.since.elapsed() >= self.options.sync_every)
    }

    /// Writes the entries of a group in one piece.
    fn write(&mut self, jobs: &[Job]) -> Result<(), ()> {
        if self.poisoned.is_some() {
            return Err(());
        }
        let appends = || {
            jobs.iter().filter_map(|job| match job {
                Job::Append { bodies, .. } => Some(bodies.as_slice()),
                Job::Sync { .. } => None,
            })
        };
        let room = appends().flatten().map(Body::line_bytes).sum::<usize>();
        if room == 0 {
            return Ok(());
        }
        if self.unsynced.is_some_and(|u| u.bytes.saturating_add(room as u64) > MAX_UNSYNCED_BYTES) {
            self.sync()?;
        }
        self.roll()?;
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let batch = self.unsynced.map_or(self.head.sequence.saturating_add(1), |unsynced| unsynced.first);
        let mut bytes = Vec::with_capacity(room);
        let mut head = self.head;
        let mut ends = Vec::new();
        for bodies in appends() {
            for body in bodies {
                head = body.write(&mut bytes, head, self.gateway, at_ms, batch);
            }
            ends.push(head);
        }
        let Some(segment) = self.segment.as_mut() else { return Err(()) };
        let length = bytes.len() as u64;
        // Noted before the write, so that a failure knows what to cut.
        let unsynced =
            self.unsynced.get_or_insert(Unsynced { first: batch, bytes: 0, since: Instant::now() });
        unsynced.bytes = unsynced.bytes.saturating_add(length);
        if let Err(error) = segment.file.write_at(segment.bytes, &bytes) {
            self.poison("writing", &error);
            return Err(());
        }
        segment.bytes = segment.bytes.saturating_add(length);
        self.head = head;
        let mut recent = lock(&self.shared.recent);
        recent.extend(ends);
        let excess = recent.len().saturating_sub(RECENT);
        recent.drain(..excess);
        Ok(())
    }

    /// Begins a new segment when there is none or the last one is full.
    fn roll(&mut self) -> Result<(), ()> {
        if self.segment.as_ref().is_some_and(|segment| segment.bytes < self.options.segment_bytes.max(1)) {
            return Ok(());
        }
        self.sync()?;
        let first = self.head.sequence.saturating_add(1);
        let created = self
            .storage
            .create(&segment_name(first))
            .and_then(|file| self.storage.sync_folder().map(|()| file));
        match created {
            Ok(file) => {
                self.segment = Some(OpenSegment { first, file, bytes: 0 });
                Ok(())
            }
            Err(error) => {
                self.poison("beginning a segment", &error);
                Err(())
            }
        }
    }

    fn sync(&mut self) -> Result<(), ()> {
        if self.poisoned.is_some() {
            return Err(());
        }
        if self.unsynced.is_none() {
            return Ok(());
        }
        let Some(segment) = &self.segment else { return Err(()) };
        if let Err(error) = segment.file.sync() {
            self.poison("fsync", &error);
            return Err(());
        }
        self.unsynced = None;
        self.write_mark();
        Ok(())
    }

    fn write_mark(&self) {
        let Some(segment) = &self.segment else { return };
        let mark = Mark { head: self.head, segment: segment.first, bytes: segment.bytes };
        if let Err(error) = self.mark.write_at(0, mark.text().as_bytes()) {
            // An old mark is as good as none: the chain itself is on the disk.
            tracing::warn!(chain = self.chain.name(), %error, "the mark of the last fsync can't be written");
        }
    }

    fn publish(&self) {
        if let Some(segment) = &self.segment {
            *lock(&self.shared.published) =
                Published { head: self.head, segment_first: segment.first, segment_bytes: segment.bytes };
        }
    }

    /// From here on everything is refused. What nobody was told of is cut off where that still works, so that
    /// the file ends with a whole entry; where not, the next start does it.
    fn poison(&mut self, what: &str, error: &io::Error) {
        let reason = format!("{what}: {error}");
        tracing::error!(chain = self.chain.name(), %reason, "the journal takes nothing more until a restart");
        self.poisoned = Some(reason);
        let published = *lock(&self.shared.published);
        if let Some(segment) = &self.segment {
            let settled = if segment.first == published.segment_first { published.segment_bytes } else { 0 };
            let _ = segment.file.set_length(settled).and_then(|()| segment.file.sync());
        }
    }

    fn poison_error(&self) -> JournalError {
        JournalError::Poisoned { reason: self.poisoned.clone().unwrap_or_else(|| "unknown".into()) }
    }
}

/// As many jobs as fit under one fsync.
fn take(jobs: &mut VecDeque<Job>) -> Vec<Job> {
    let mut group = Vec::new();
    let mut total = 0_usize;
    while let Some(job) = jobs.front() {
        let bytes = match job {
            Job::Append { bytes, .. } => *bytes,
            Job::Sync { .. } => 0,
        };
        total = total.saturating_add(bytes);
        if !group.is_empty() && total as u64 > MAX_UNSYNCED_BYTES {
            break;
        }
        group.extend(jobs.pop_front());
    }
    group
}

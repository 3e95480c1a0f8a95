//! The catalog's store: redb, one file.
//!
//! redb has one writer at a time and a durable commit costs an fsync, so commits go through a thread that
//! takes all the batches that wait and applies them in one transaction. A batch whose condition fails changes
//! nothing and doesn't disturb its neighbours. Reads run beside it, each on one snapshot.
//!
//! A fresh file is built under another name and renamed when its tables are durable. So a file under the
//! right name that is empty or lacks them was damaged, and is never taken for a new one.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable,
    StorageBackend, StorageError, Table, TableDefinition, TableError, TransactionError,
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::files::{parent, sync_folder};
use super::store::{Batch, Page, PageBuilder, Row, Store, StoreError, Versioned};

/// Key to version (8 bytes, big-endian) and value.
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// What the store knows about itself.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// In [`META`]: the version of the last commit.
const VERSION: &str = "version";
/// In [`META`]: the format of the file.
const FORMAT: &str = "format";
/// The only format so far.
const FORMAT_NUMBER: u64 = 1;

/// redb's page cache. Half of it can be taken by pages that wait to be written.
const CACHE_BYTES: usize = 64 << 20;
/// Commits that may wait; more wait outside.
const QUEUE: usize = 512;
/// Most batches and bytes under one fsync: bounds how long the first of them waits.
const GROUP_BATCHES: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
/// Reads that may occupy a thread at once.
const READERS: usize = 32;
/// So few rows are read on the caller's own thread, which costs a tenth of going to another and back: they are in memory
/// as a rule, and take microseconds.
const FEW: usize = 4;
/// Rows that take this long came from a disk that makes others wait; then rows are read on threads of their own for some
/// time.
const SLOW: Duration = Duration::from_millis(1);
const SLOW_FOR_MS: u64 = 1000;

/// A [`Store`] in a redb file. A commit is on the disk when it returns.
#[derive(Debug)]
pub struct RedbStore {
    engine: Arc<Engine>,
    readers: Arc<Semaphore>,
    commits: Option<mpsc::Sender<Waiting>>,
    writer: Option<JoinHandle<()>>,
    opened: Instant,
    /// Until when no rows are read on the caller's thread, milliseconds since `opened`.
    slow_until: AtomicU64,
}

#[derive(Debug)]
struct Engine {
    name: String,
    database: Database,
}

/// A batch and who waits for it.
struct Waiting {
    batch: Batch,
    answer: oneshot::Sender<Result<u64, StoreError>>,
}

impl RedbStore {
    /// Opens a file, or makes it where there is none. Blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] when the file is empty, something else, or damaged: set it aside and rebuild.
    /// [`StoreError::Engine`] when another process has it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() == 0 => {
                Err(StoreError::Corrupt { store: name, detail: "the file is empty".into() })
            }
            Ok(_) => {
                let database = guarded(&name, || builder().open(path).map_err(|e| database_error(&name, e)))?;
                Self::start(Engine { name, database })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let database = create_at(&name, path)?;
                Self::start(Engine { name, database })
            }
            Err(source) => Err(StoreError::Io { store: name, source }),
        }
    }

    /// Opens a store on another kind of storage; an empty one becomes a new store. `name` stands in errors.
    ///
    /// # Errors
    ///
    /// As for [`RedbStore::open`].
    pub fn with_backend(name: &str, backend: impl StorageBackend) -> Result<Self, StoreError> {
        let name = name.to_owned();
        let fresh = backend.len().map_err(|source| StoreError::Io { store: name.clone(), source })? == 0;
        let database =
            guarded(&name, || builder().create_with_backend(backend).map_err(|e| database_error(&name, e)))?;
        if fresh {
            guarded(&name, || initialise(&name, &database))?;
        }
        Self::start(Engine { name, database })
    }

    /// Reads a file through and compares its checksums. Blocking and slow; for a stopped gateway.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] when anything in it isn't as it was written.
    pub fn verify_file(path: &Path) -> Result<(), StoreError> {
        let name = path.display().to_string();
        guarded(&name, || {
            let mut database = builder().open(path).map_err(|e| database_error(&name, e))?;
            match database.check_integrity() {
                Ok(true) => check_format(&Engine { name: name.clone(), database }),
                Ok(false) => {
                    Err(StoreError::Corrupt { store: name.clone(), detail: "checksums don't agree".into() })
                }
                Err(error) => Err(database_error(&name, error)),
            }
        })
    }

    /// Writes a copy of one moment into a new file while the store goes on; versions and their counter are kept.
    ///
    /// # Errors
    ///
    /// `path` exists already, or reading or writing failed; then no file is left there.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_owned();
        self.read(move |engine| copy(engine, &path)).await
    }

    fn start(engine: Engine) -> Result<Self, StoreError> {
        let name = engine.name.clone();
        let engine = guarded(&name, move || {
            check_format(&engine)?;
            Ok(Arc::new(engine))
        })?;
        let (commits, waiting) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("redb-commit".into())
            .spawn({
                let engine = Arc::clone(&engine);
                move || write_groups(&engine, waiting)
            })
            .map_err(|source| StoreError::Io { store: engine.name.clone(), source })?;
        Ok(Self {
            engine,
            readers: Arc::new(Semaphore::new(READERS)),
            commits: Some(commits),
            writer: Some(writer),
            opened: Instant::now(),
            slow_until: AtomicU64::new(0),
        })
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_slow(&self) -> bool {
        self.elapsed_ms() < self.slow_until.load(Ordering::Relaxed)
    }

    /// Reads a few rows on the caller's own thread.
    fn read_here<T>(&self, work: impl FnOnce(&Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let begin = Instant::now();
        let rows = guarded(&self.engine.name, || work(&self.engine));
        if begin.elapsed() >= SLOW {
            self.slow_until.store(self.elapsed_ms().saturating_add(SLOW_FOR_MS), Ordering::Relaxed);
        }
        rows
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.readers)
            .acquire_owned()
            .await
            .map_err(|_| self.engine.failed("the store is closed"))?;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || {
            let result = guarded(&engine.name, || work(&engine));
            drop(engine);
            // Held by the work itself: whoever asked may have gone.
            drop(permit);
            result
        })
        .await
        .map_err(|_| self.engine.failed("the runtime is shutting down"))?
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError> {
        if keys.len() <= FEW && !self.is_slow() {
            return self.read_here(|engine| get_rows(engine, keys));
        }
        let keys = keys.to_vec();
        self.read(move |engine| get_rows(engine, &keys)).await
    }

    async fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        if limit <= FEW && !self.is_slow() {
            return self.read_here(|engine| scan_rows(engine, prefix, from, limit));
        }
        let (prefix, from) = (prefix.to_vec(), from.to_vec());
        self.read(move |engine| scan_rows(engine, &prefix, &from, limit)).await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let (answer, result) = oneshot::channel();
        let commits = self.commits.as_ref().ok_or_else(|| self.engine.failed("the store is closed"))?;
        commits
            .send(Waiting { batch, answer })
            .await
            .map_err(|_| self.engine.failed("the store has stopped after an earlier failure; restart"))?;
        result.await.map_err(|_| self.engine.failed("the store stopped before the commit was durable"))?
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // What waits is still written; then the file is closed cleanly.
        drop(self.commits.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn get_rows(engine: &Engine, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError> {
    let transaction = engine.database.begin_read().map_err(|e| engine.transaction(e))?;
    let rows = transaction.open_table(ROWS).map_err(|e| engine.table(e))?;
    keys.iter()
        .map(|key| match rows.get(key.as_slice()).map_err(|e| engine.storage(e))? {
            Some(stored) => engine
                .split(stored.value())
                .map(|(version, value)| Some(Versioned { value: Bytes::copy_from_slice(value), version })),
            None => Ok(None),
        })
        .collect()
}

fn scan_rows(engine: &Engine, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
    let transaction = engine.database.begin_read().map_err(|e| engine.transaction(e))?;
    let rows = transaction.open_table(ROWS).map_err(|e| engine.table(e))?;
    let start = from.max(prefix);
    let mut page = PageBuilder::new(limit);
    for row in rows.range(start..).map_err(|e| engine.storage(e))? {
        let (key, stored) = row.map_err(|e| engine.storage(e))?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        if page.is_full() {
            return Ok(page.continued_at(key));
        }
        let (version, value) = engine.split(stored.value())?;
        page.push(Row { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value), version });
    }
    Ok(page.last())
}

/// The writer thread: until the store is dropped, or a panic leaves redb in an unknown state.
fn write_groups(engine: &Engine, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut bytes = first.batch.bytes();
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes = bytes.saturating_add(next.batch.bytes());
            group.push(next);
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.batch, w.answer)).unzip();
        match catch_unwind(AssertUnwindSafe(|| apply_group(engine, &batches))) {
            Ok(Ok(results)) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    // Who asked may have gone; the batch is applied all the same.
                    let _ = answer.send(result);
                }
            }
            Ok(Err(error)) => {
                for answer in answers {
                    let _ = answer.send(Err(error.again()));
                }
            }
            Err(panic) => {
                let detail = format!("a commit panicked: {}", panic_text(panic.as_ref()));
                tracing::error!(store = %engine.name, %detail, "the store takes no more commits");
                for answer in answers {
                    let _ = answer.send(Err(StoreError::Corrupt {
                        store: engine.name.clone(),
                        detail: detail.clone(),
                    }));
                }
                return;
            }
        }
    }
}

/// One transaction, one fsync. The outer error is everybody's, the inner ones each batch's own.
fn apply_group(engine: &Engine, batches: &[Batch]) -> Result<Vec<Result<u64, StoreError>>, StoreError> {
    let mut transaction = engine.database.begin_write().map_err(|e| engine.transaction(e))?;
    transaction.set_durability(Durability::Immediate).map_err(|e| engine.failed(&e.to_string()))?;
    // After a kill the file is opened as it is, instead of being read through. Costs a second fsync, and the writing of
    // which pages are in use: some 100 KB a GB.
    transaction.set_quick_repair(true);
    let mut results = Vec::with_capacity(batches.len());
    let mut changed = false;
    {
        let mut meta = transaction.open_table(META).map_err(|e| engine.table(e))?;
        let mut rows = transaction.open_table(ROWS).map_err(|e| engine.table(e))?;
        let mut version = match meta.get(VERSION).map_err(|e| engine.storage(e))? {
            Some(stored) => stored.value(),
            None => return Err(engine.corrupt("it has no version counter")),
        };
        for batch in batches {
            if let Some(key) = failed_condition(engine, &rows, batch)? {
                results.push(Err(StoreError::Conflict { key }));
                continue;
            }
            version =
                version.checked_add(1).ok_or_else(|| engine.failed("the version counter is used up"))?;
            changed = true;
            let mut stored = Vec::new();
            for (key, value) in batch.writes() {
                match value {
                    Some(value) => {
                        stored.clear();
                        stored.extend_from_slice(&version.to_be_bytes());
                        stored.extend_from_slice(value);
                        rows.insert(key, stored.as_slice()).map_err(|e| engine.storage(e))?;
                    }
                    None => {
                        rows.remove(key).map_err(|e| engine.storage(e))?;
                    }
                }
            }
            results.push(Ok(version));
        }
        if changed {
            meta.insert(VERSION, version).map_err(|e| engine.storage(e))?;
        }
    }
    if changed {
        transaction.commit().map_err(|e| engine.commit(e))?;
    } else {
        transaction.abort().map_err(|e| engine.storage(e))?;
    }
    Ok(results)
}

/// The key of the first condition that doesn't hold.
fn failed_condition(
    engine: &Engine,
    rows: &Table<'_, &'static [u8], &'static [u8]>,
    batch: &Batch,
) -> Result<Option<Vec<u8>>, StoreError> {
    for (key, condition) in &batch.conditions {
        let version = match rows.get(key.as_slice()).map_err(|e| engine.storage(e))? {
            Some(stored) => Some(engine.split(stored.value())?.0),
            None => None,
        };
        if !condition.holds(version) {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A new database that appears under `path` only once its tables are durable.
fn create_at(name: &str, path: &Path) -> Result<Database, StoreError> {
    let io_error = |source| StoreError::Io { store: name.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let database = guarded(name, || {
        let database = builder().create(temporary).map_err(|e| database_error(name, e))?;
        initialise(name, &database)?;
        Ok(database)
    })?;
    std::fs::rename(temporary, path).map_err(io_error)?;
    sync_folder(parent(path)).map_err(io_error)?;
    Ok(database)
}

fn initialise(name: &str, database: &Database) -> Result<(), StoreError> {
    put_meta(name, database, first_version())
}

/// Creates the tables of a fresh database.
fn put_meta(name: &str, database: &Database, version: u64) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(|e| engine_error(name, e))?;
    {
        transaction.open_table(ROWS).map_err(|e| engine_error(name, e))?;
        let mut meta = transaction.open_table(META).map_err(|e| engine_error(name, e))?;
        meta.insert(FORMAT, FORMAT_NUMBER).map_err(|e| engine_error(name, e))?;
        meta.insert(VERSION, version).map_err(|e| engine_error(name, e))?;
    }
    transaction.commit().map_err(|e| engine_error(name, e))
}

/// Where a fresh store's counter starts: above what a store that it replaces can have reached with less than a
/// million commits a second, so that versions aren't used again after a rebuild either.
pub(super) fn first_version() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or_default().saturating_mul(1 << 10)
}

fn check_format(engine: &Engine) -> Result<(), StoreError> {
    let transaction = engine.database.begin_read().map_err(|e| engine.transaction(e))?;
    let meta = transaction.open_table(META).map_err(|e| engine.table(e))?;
    transaction.open_table(ROWS).map_err(|e| engine.table(e))?;
    match meta.get(FORMAT).map_err(|e| engine.storage(e))?.map(|stored| stored.value()) {
        Some(FORMAT_NUMBER) => {}
        Some(other) => {
            return Err(engine.failed(&format!("format {other} is not known; a newer release wrote it")));
        }
        None => return Err(engine.corrupt("it has no format number")),
    }
    match meta.get(VERSION).map_err(|e| engine.storage(e))? {
        Some(_) => Ok(()),
        None => Err(engine.corrupt("it has no version counter")),
    }
}

fn copy(engine: &Engine, path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    if path.exists() {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "the file exists already");
        return Err(StoreError::Io { store: name, source });
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = Path::new(&partial);
    let copied = copy_rows(engine, &name, partial).and_then(|()| {
        std::fs::rename(partial, path)
            .and_then(|()| sync_folder(parent(path)))
            .map_err(|source| StoreError::Io { store: name, source })
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(partial);
    }
    copied
}

fn copy_rows(engine: &Engine, name: &str, path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::Io { store: name.to_owned(), source });
        }
        _ => {}
    }
    let source = engine.database.begin_read().map_err(|e| engine.transaction(e))?;
    let rows = source.open_table(ROWS).map_err(|e| engine.table(e))?;
    let meta = source.open_table(META).map_err(|e| engine.table(e))?;
    let version = meta
        .get(VERSION)
        .map_err(|e| engine.storage(e))?
        .ok_or_else(|| engine.corrupt("it has no version counter"))?
        .value();
    let target = builder().create(path).map_err(|e| database_error(name, e))?;
    put_meta(name, &target, version)?;
    let transaction = target.begin_write().map_err(|e| engine_error(name, e))?;
    {
        let mut copies = transaction.open_table(ROWS).map_err(|e| engine_error(name, e))?;
        for row in rows.iter().map_err(|e| engine.storage(e))? {
            let (key, stored) = row.map_err(|e| engine.storage(e))?;
            copies.insert(key.value(), stored.value()).map_err(|e| engine_error(name, e))?;
        }
    }
    transaction.commit().map_err(|e| engine_error(name, e))
}

impl Engine {
    fn split<'a>(&self, stored: &'a [u8]) -> Result<(u64, &'a [u8]), StoreError> {
        match stored.split_first_chunk::<8>() {
            Some((version, value)) => Ok((u64::from_be_bytes(*version), value)),
            None => Err(self.corrupt("a row is shorter than its version")),
        }
    }

    fn corrupt(&self, detail: &str) -> StoreError {
        StoreError::Corrupt { store: self.name.clone(), detail: detail.to_owned() }
    }

    fn failed(&self, detail: &str) -> StoreError {
        StoreError::Engine { store: self.name.clone(), detail: detail.to_owned() }
    }

    fn storage(&self, error: StorageError) -> StoreError {
        engine_error(&self.name, error)
    }

    fn table(&self, error: TableError) -> StoreError {
        engine_error(&self.name, error)
    }

    fn transaction(&self, error: TransactionError) -> StoreError {
        engine_error(&self.name, error)
    }

    fn commit(&self, error: CommitError) -> StoreError {
        engine_error(&self.name, error)
    }
}

/// Runs redb so that a panic about a damaged file becomes an error.
fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(StoreError::Corrupt {
            store: name.to_owned(),
            detail: format!("reading it panicked: {}", panic_text(panic.as_ref())),
        })
    })
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

fn database_error(name: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Engine { store: name.to_owned(), detail: "another process has it open".into() }
        }
        DatabaseError::UpgradeRequired(version) => StoreError::Corrupt {
            store: name.to_owned(),
            detail: format!("its header names redb file format {version}, which was never written here"),
        },
        other => engine_error(name, other),
    }
}

fn engine_error(name: &str, error: impl Into<::redb::Error>) -> StoreError {
    use ::redb::Error;
    let store = name.to_owned();
    match error.into() {
        // redb reports a bad magic number or a read past the end as I/O; both mean that the content isn't right.
        Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Corrupt { store, detail: source.to_string() }
        }
        Error::Io(source) => StoreError::Io { store, source },
        error @ (Error::Corrupted(_)
        | Error::TableDoesNotExist(_)
        | Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TypeDefinitionChanged { .. }) => StoreError::Corrupt { store, detail: error.to_string() },
        other => StoreError::Engine { store, detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests;

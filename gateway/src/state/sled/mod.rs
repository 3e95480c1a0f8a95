//! The governance store: sled 0.34.7, one folder.
//!
//! sled is trusted for one thing: to keep a small map in memory and in its files while the process runs. It
//! isn't trusted to come back from anything but a clean stop: its flush is no fsync, a truncated tail can
//! lose rows silently, and damaged files can make it panic or allocate without bounds. The journal has
//! everything that a store has applied, so whenever there is doubt, the folder is set aside and the caller
//! told to rebuild.
//!
//! What takes the doubt away is a marker beside the folder. [`SledStore::close`] syncs every file and then
//! writes it durably, with each file's length and SHA-256 and the number of rows; opening removes it durably
//! first. So a marker means: these very bytes, from a clean stop. Only then does sled get to read them.

mod clean;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ::sled::{Db, IVec};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::files::parent;
use super::redb::{first_version, panic_text};
use super::store::{Batch, Page, PageBuilder, Row, Store, StoreError, Versioned};
use clean::Marker;

/// The first byte of the keys of rows; the rest is the caller's key.
const ROW: u8 = 1;
/// The key of the counter: the version of the last commit, 8 bytes, big-endian.
const VERSION: &[u8] = &[0, b'v'];

/// sled's cache. It doesn't bound its memory (see the module's words), so it is kept small.
const CACHE_BYTES: u64 = 16 << 20;
/// How long opening may take. sled may spin on files that it doesn't understand.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// How long sled's threads may take to let go of the files after the last handle is dropped.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
/// Operations that may occupy a thread at once.
const WORKERS: usize = 32;

/// A [`Store`] in a sled folder. A commit is atomic and survives the end of the process when it returns, but
/// not a power loss: write it to the journal first.
#[derive(Debug)]
pub struct SledStore {
    inner: Arc<Inner>,
    workers: Arc<Semaphore>,
}

/// A store and whether its content can be relied on.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: SledStore,
    /// What is in it.
    pub state: OpenState,
}

/// What an opened store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenState {
    /// What it held when it was closed.
    Clean,
    /// Nothing: it is to be rebuilt from the last checkpoint and the journal. Closing it before that is done
    /// would make it look whole, so drop it then.
    Rebuild {
        /// Where the folder that can't be relied on is now; `None` when there was none.
        set_aside: Option<PathBuf>,
        /// Why, for the log.
        reason: String,
    },
}

#[derive(Debug)]
struct Inner {
    name: String,
    dir: PathBuf,
    /// Commits hold it for writing, so that what reads sees no half of one.
    state: RwLock<State>,
}

#[derive(Debug)]
enum State {
    Open {
        database: Db,
        version: u64,
    },
    /// A commit failed in the middle, so what is there isn't known.
    Failed(String),
    Closed,
}

impl SledStore {
    /// Opens a folder that was closed cleanly, or begins a new one after setting aside what is there. Blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::Engine`] when another process has it open, [`StoreError::Io`] when the folder can't be moved,
    /// made or read. Damage is no error but [`OpenState::Rebuild`].
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        open_with_limit(dir, RELEASE_LIMIT)
    }

    /// Whether a folder is as a clean stop left it; the inner error says why not. Changes nothing. Blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when it can't be read.
    pub fn verify(dir: &Path) -> Result<Result<(), String>, StoreError> {
        let io_error = |source| StoreError::Io { store: dir.display().to_string(), source };
        if dir.symlink_metadata().is_err() {
            return Ok(Err("it is not there".into()));
        }
        let marker = match Marker::read(dir).map_err(io_error)? {
            Ok(marker) => marker,
            Err(doubt) => return Ok(Err(doubt)),
        };
        let same = clean::files(dir).map_err(io_error)? == marker.files;
        Ok(if same { Ok(()) } else { Err("its files aren't those of the clean stop".into()) })
    }

    /// Writes everything to the disk and notes that the store was stopped cleanly. Later operations fail.
    ///
    /// # Errors
    ///
    /// Writing failed, or an earlier commit did; the next open then asks for a rebuild.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.work(Inner::close).await
    }

    fn opened(name: String, dir: &Path, state: State, open_state: OpenState) -> Opened {
        let inner = Inner { name, dir: dir.to_owned(), state: RwLock::new(state) };
        let store = Self { inner: Arc::new(inner), workers: Arc::new(Semaphore::new(WORKERS)) };
        Opened { store, state: open_state }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.workers)
            .acquire_owned()
            .await
            .map_err(|_| self.inner.failed("the store is closed"))?;
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let result = catch_unwind(AssertUnwindSafe(|| work(&inner))).unwrap_or_else(|panic| {
                let detail = format!("sled panicked: {}", panic_text(panic.as_ref()));
                Err(StoreError::Corrupt { store: inner.name.clone(), detail })
            });
            drop(inner);
            // Held by the work itself: whoever asked may have gone.
            drop(permit);
            result
        })
        .await
        .map_err(|_| self.inner.failed("the runtime is shutting down"))?
    }
}

#[async_trait]
impl Store for SledStore {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let keys = keys.to_vec();
        self.work(move |inner| {
            let state = inner.read();
            let (database, _) = inner.open(&state)?;
            keys.iter()
                .map(|key| match database.get(row_key(key)).map_err(|e| inner.engine(e))? {
                    Some(stored) => {
                        let (version, value) = inner.split(&stored)?;
                        Ok(Some(Versioned { value: Bytes::copy_from_slice(value), version }))
                    }
                    None => Ok(None),
                })
                .collect()
        })
        .await
    }

    async fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Page, StoreError> {
        let (prefix, from) = (row_key(prefix), row_key(from));
        self.work(move |inner| {
            let state = inner.read();
            let (database, _) = inner.open(&state)?;
            let mut page = PageBuilder::new(limit);
            for row in database.range(from.max(prefix.clone())..) {
                let (key, stored) = row.map_err(|e| inner.engine(e))?;
                let Some(key) = key.strip_prefix(&[ROW]).filter(|_| key.starts_with(&prefix)) else { break };
                if page.is_full() {
                    return Ok(page.continued_at(key));
                }
                let (version, value) = inner.split(&stored)?;
                page.push(Row {
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                    version,
                });
            }
            Ok(page.last())
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        self.work(move |inner| inner.commit(&batch)).await
    }
}

fn open_with_limit(dir: &Path, limit: Duration) -> Result<Opened, StoreError> {
    let name = dir.display().to_string();
    let io_error = |source| StoreError::Io { store: name.clone(), source };
    if !clean::is_released(dir, limit).map_err(io_error)? {
        return Err(StoreError::Engine { store: name, detail: "another process has it open".into() });
    }
    let marker = Marker::take(dir).map_err(io_error)?;
    let there = dir.symlink_metadata().is_ok();
    let doubt = match marker {
        _ if !there => "there is no store yet".to_owned(),
        Err(doubt) => doubt,
        Ok(marker) => match open_clean(&name, dir, &marker)? {
            Ok(state) => return Ok(SledStore::opened(name, dir, state, OpenState::Clean)),
            Err(doubt) => doubt,
        },
    };
    let set_aside = if there { Some(clean::set_aside(dir).map_err(io_error)?) } else { None };
    std::fs::create_dir_all(parent(dir)).map_err(io_error)?;
    let database = match open_guarded(dir)? {
        Ok(database) => database,
        Err(detail) => return Err(StoreError::Engine { store: name, detail }),
    };
    let state = State::Open { database, version: first_version() };
    Ok(SledStore::opened(name, dir, state, OpenState::Rebuild { set_aside, reason: doubt }))
}

impl Inner {
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let mut state = self.write();
        let (database, version) = self.open(&state)?;
        for (key, condition) in &batch.conditions {
            let stored = database.get(row_key(key)).map_err(|e| self.engine(e))?;
            let version = match &stored {
                Some(stored) => Some(self.split(stored)?.0),
                None => None,
            };
            if !condition.holds(version) {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        let next = version.checked_add(1).ok_or_else(|| self.failed("the version counter is used up"))?;
        let mut writes = ::sled::Batch::default();
        writes.insert(VERSION, &next.to_be_bytes());
        for (key, value) in batch.writes() {
            match value {
                Some(value) => writes.insert(row_key(key), [&next.to_be_bytes(), value].concat()),
                None => writes.remove(row_key(key)),
            }
        }
        let database = database.clone();
        // A panic on the way leaves the state as failed, like an error does.
        let opened = std::mem::replace(&mut *state, State::Failed("a commit panicked".into()));
        if let Err(error) = database.apply_batch(writes) {
            *state = State::Failed(error.to_string());
            return Err(self.engine(error));
        }
        *state = opened;
        if let State::Open { version, .. } = &mut *state {
            *version = next;
        }
        drop(state);
        // Outside of the lock, so that those who wait share a flush.
        if let Err(error) = database.flush() {
            drop(database);
            *self.write() = State::Failed(error.to_string());
            return Err(self.engine(error));
        }
        Ok(next)
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut state = self.write();
        self.open(&state)?;
        let State::Open { database, version } = std::mem::replace(&mut *state, State::Closed) else {
            return Ok(());
        };
        let rows = count(&database).map_err(|e| self.engine(e))?;
        database.flush().map_err(|e| self.engine(e))?;
        drop(database);
        let io_error = |source| StoreError::Io { store: self.name.clone(), source };
        if !clean::is_released(&self.dir, RELEASE_LIMIT).map_err(io_error)? {
            return Err(self.failed("sled doesn't let go of its files"));
        }
        Marker::write(&self.dir, rows, version).map_err(io_error)
    }

    fn open<'a>(&self, state: &'a State) -> Result<(&'a Db, u64), StoreError> {
        match state {
            State::Open { database, version } => Ok((database, *version)),
            State::Failed(reason) => {
                Err(self.failed(&format!("it takes nothing more since a commit failed ({reason}); restart")))
            }
            State::Closed => Err(self.failed("the store is closed")),
        }
    }

    fn split<'a>(&self, stored: &'a [u8]) -> Result<(u64, &'a [u8]), StoreError> {
        match stored.split_first_chunk::<8>() {
            Some((version, value)) => Ok((u64::from_be_bytes(*version), value)),
            None => Err(StoreError::Corrupt {
                store: self.name.clone(),
                detail: "a row is shorter than its version".into(),
            }),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A commit that panics has left `State::Failed` behind.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, detail: &str) -> StoreError {
        StoreError::Engine { store: self.name.clone(), detail: detail.to_owned() }
    }

    fn engine(&self, error: ::sled::Error) -> StoreError {
        let store = self.name.clone();
        match error {
            ::sled::Error::Io(source) => StoreError::Io { store, source },
            ::sled::Error::Corruption { .. } | ::sled::Error::ReportableBug(_) => {
                StoreError::Corrupt { store, detail: error.to_string() }
            }
            other => StoreError::Engine { store, detail: other.to_string() },
        }
    }
}

fn row_key(key: &[u8]) -> Vec<u8> {
    [&[ROW], key].concat()
}

fn count(database: &Db) -> ::sled::Result<u64> {
    let mut rows = 0_u64;
    for key in database.range([ROW]..).keys() {
        key?;
        rows = rows.saturating_add(1);
    }
    Ok(rows)
}

/// Opens what a marker vouches for. The inner error is a doubt: the folder is to be set aside.
fn open_clean(name: &str, dir: &Path, marker: &Marker) -> Result<Result<State, String>, StoreError> {
    match clean::files(dir) {
        Ok(files) => {
            if let Some(difference) = difference(&marker.files, &files) {
                return Ok(Err(difference));
            }
        }
        Err(error) => return Ok(Err(format!("its files can't be read: {error}"))),
    }
    let database = match open_guarded(dir)? {
        Ok(database) => database,
        Err(doubt) => return Ok(Err(doubt)),
    };
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let rows = count(&database).map_err(|e| e.to_string())?;
        if rows != marker.rows {
            return Err(format!("it has {rows} rows where {} were", marker.rows));
        }
        let version = match database.get(VERSION).map_err(|e| e.to_string())? {
            Some(stored) => version_of(&stored).ok_or("its version counter is damaged")?,
            // Nothing has ever been committed.
            None => marker.version,
        };
        if version != marker.version {
            return Err(format!("its version counter is {version} where {} was", marker.version));
        }
        Ok(version)
    }));
    match checked {
        Ok(Ok(version)) => Ok(Ok(State::Open { database, version })),
        Ok(Err(doubt)) => {
            drop(database);
            Ok(Err(doubt))
        }
        Err(panic) => {
            tracing::debug!(store = name, "sled panicked while its rows were counted");
            Ok(Err(format!("sled panicked: {}", panic_text(panic.as_ref()))))
        }
    }
}

fn version_of(stored: &IVec) -> Option<u64> {
    Some(u64::from_be_bytes(stored.as_ref().try_into().ok()?))
}

/// The first file that isn't as it was.
fn difference(
    before: &BTreeMap<String, clean::FileDigest>,
    now: &BTreeMap<String, clean::FileDigest>,
) -> Option<String> {
    for (name, digest) in before {
        match now.get(name) {
            None => return Some(format!("its file {name} is missing")),
            Some(other) if other.bytes != digest.bytes => {
                return Some(format!("its file {name} has {} bytes, it had {}", other.bytes, digest.bytes));
            }
            Some(other) if other != digest => return Some(format!("its file {name} has changed")),
            Some(_) => {}
        }
    }
    now.keys().find(|name| !before.contains_key(*name)).map(|name| format!("the file {name} is new in it"))
}

/// Lets sled open a folder, in a thread that may panic or hang. The outer error is the environment's fault, the
/// inner one the folder's.
fn open_guarded(dir: &Path) -> Result<Result<Db, String>, StoreError> {
    let io_error = |source| StoreError::Io { store: dir.display().to_string(), source };
    let (sender, receiver) = sync_channel(1);
    let path = dir.to_owned();
    std::thread::Builder::new()
        .name("sled-open".into())
        .spawn(move || {
            let opened =
                catch_unwind(|| ::sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).open());
            // Nobody listens any more when it took too long; the database is then dropped here.
            let _ = sender.send(opened);
        })
        .map_err(io_error)?;
    match receiver.recv_timeout(OPEN_LIMIT) {
        Ok(Ok(Ok(database))) => Ok(Ok(database)),
        Ok(Ok(Err(::sled::Error::Io(source)))) if is_environment(&source) => Err(io_error(source)),
        Ok(Ok(Err(error))) => Ok(Err(format!("sled can't open it: {error}"))),
        Ok(Err(panic)) => Ok(Err(format!("sled panicked: {}", panic_text(panic.as_ref())))),
        Err(RecvTimeoutError::Timeout) => {
            Ok(Err(format!("sled hasn't opened it within {} seconds", OPEN_LIMIT.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => Ok(Err("sled's thread ended".into())),
    }
}

/// Whether an error says something about the machine rather than about the files.
fn is_environment(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    /// EMFILE and ENFILE: no more open files.
    const TOO_MANY_FILES: [i32; 2] = [24, 23];
    matches!(error.kind(), PermissionDenied | StorageFull | ReadOnlyFilesystem | OutOfMemory | QuotaExceeded)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

#[cfg(test)]
mod tests;

//! The memory that blocks of all open files share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit: small enough that rounding up costs nothing, large enough that counts fit.
const UNIT: u64 = 1024;

/// Gives out memory in the order of asking, and takes it back from who isn't using it.
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    total_units: u64,
    /// Units that reads are waiting for.
    wanted: AtomicU64,
    /// Files that hold blocks, by their number.
    active: Mutex<BTreeMap<u64, Weak<dyn Holder>>>,
    active_count: AtomicUsize,
    next_file: AtomicU64,
    /// By source: what may be on its way from it.
    flights: Mutex<HashMap<SourceKey, Weak<Semaphore>>>,
    /// The file whose blocks were taken back last, so that the next one pays next time.
    last_victim: AtomicU64,
}

/// Who holds blocks and can give some back.
pub(super) trait Holder: Send + Sync {
    /// Bytes that it holds.
    fn held(&self) -> u64;
    /// Gives back blocks that nobody is copying, at least `bytes` if it has as many; says how many bytes.
    fn give_back(&self, bytes: u64) -> u64;
}

/// Of what is free, the part that one file may take beyond its share.
const FREE_PART: u64 = 8;

/// Tenant and source.
pub(super) type SourceKey = (u32, u32);

/// Of the budget, the part that may be on its way from one source. What is on its way can't be taken back: a source that
/// hangs must not hold what the others need.
const FLIGHT_PART: u64 = 4;
/// So much may be on its way however small the budget is: units.
const LEAST_FLIGHT: u64 = 4 * 1024;

/// What may be on its way from one source, for all files of it.
#[derive(Debug, Clone)]
pub(super) struct Flights {
    permits: Arc<Semaphore>,
    total_units: u64,
}

/// Bytes that are on their way; dropped when they have come.
#[derive(Debug)]
pub(super) struct Flight {
    _permit: OwnedSemaphorePermit,
}

impl Flights {
    /// Room at once, or none. Never overtakes a waiting read.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Flight> {
        let units = units(bytes, self.total_units);
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(units).ok()?;
        Some(Flight { _permit: permit })
    }

    /// Room, after a wait if need be. `None` never happens.
    pub(super) async fn take(&self, bytes: u64) -> Option<Flight> {
        let units = units(bytes, self.total_units);
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await.ok()?;
        Some(Flight { _permit: permit })
    }
}

/// Memory that was given out; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Grant {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        let total_units = (bytes / UNIT).clamp(1, u64::from(u32::MAX));
        Self {
            permits: Arc::new(Semaphore::new(usize::try_from(total_units).unwrap_or(usize::MAX >> 3))),
            total_units,
            wanted: AtomicU64::new(0),
            active: Mutex::new(BTreeMap::new()),
            active_count: AtomicUsize::new(0),
            next_file: AtomicU64::new(0),
            flights: Mutex::default(),
            last_victim: AtomicU64::new(0),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total_units.saturating_mul(UNIT)
    }

    pub(super) fn in_use(&self) -> u64 {
        let free = u64::try_from(self.permits.available_permits()).unwrap_or(u64::MAX);
        self.total_units.saturating_sub(free).saturating_mul(UNIT)
    }

    pub(super) fn active_files(&self) -> usize {
        self.active_count.load(Ordering::Relaxed)
    }

    /// Bytes that each active file may hold, were all to hold the same.
    pub(super) fn share(&self) -> u64 {
        let files = u64::try_from(self.active_files().max(1)).unwrap_or(u64::MAX);
        self.total() / files
    }

    /// Bytes that an active file may hold now: its share, and more where others leave theirs unused.
    pub(super) fn allowance(&self) -> u64 {
        let free = self.total().saturating_sub(self.in_use());
        self.share().max(free / FREE_PART)
    }

    /// What may be on its way from a source. It is the same for all of its files that are open.
    pub(super) fn flights(&self, source: SourceKey) -> Flights {
        let total_units = (self.total_units / FLIGHT_PART).max(LEAST_FLIGHT).min(self.total_units);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = flights.get(&source).and_then(Weak::upgrade).unwrap_or_else(|| {
            flights.retain(|_, permits| permits.strong_count() > 0);
            let permits = Arc::new(Semaphore::new(usize::try_from(total_units).unwrap_or(usize::MAX >> 3)));
            flights.insert(source, Arc::downgrade(&permits));
            permits
        });
        Flights { permits, total_units }
    }

    /// A number for a new file.
    pub(super) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Memory at once, or none: for read-ahead. Never overtakes a waiting read.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Grant> {
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Grant { _permit: permit })
    }

    /// Memory, after a wait if need be: for a read. `None` never happens while the budget lives.
    pub(super) async fn take(&self, bytes: u64) -> Option<Grant> {
        if let Some(grant) = self.try_take(bytes) {
            return Some(grant);
        }
        let units = self.units(bytes);
        let _waiting = Waiting::new(&self.wanted, u64::from(units));
        self.reclaim();
        let permit = Arc::clone(&self.permits).acquire_many_owned(units).await.ok()?;
        Some(Grant { _permit: permit })
    }

    /// To be called when a block may have become idle: a waiting read gets its memory.
    pub(super) fn block_became_idle(&self) {
        if self.wanted.load(Ordering::SeqCst) > 0 {
            self.reclaim();
        }
    }

    /// Counts a file among those that hold blocks.
    pub(super) fn activate(&self, file: u64, holder: Weak<dyn Holder>) {
        let mut active = self.active();
        active.insert(file, holder);
        self.active_count.store(active.len(), Ordering::Relaxed);
    }

    /// The file holds no block any more.
    pub(super) fn deactivate(&self, file: u64) {
        let mut active = self.active();
        active.remove(&file);
        self.active_count.store(active.len(), Ordering::Relaxed);
    }

    /// Takes idle blocks back until the waiting reads could go on: first from those that hold more than
    /// their share, then from anybody, each time beginning after the last one that paid.
    fn reclaim(&self) {
        let wanted = self.wanted.load(Ordering::SeqCst).saturating_mul(UNIT);
        let share = self.share();
        // A holder has its own lock, under which it calls `activate`: so that of the table must not be held here.
        let last = self.last_victim.load(Ordering::Relaxed);
        let holders: Vec<(u64, Weak<dyn Holder>)> = {
            let active = self.active();
            let after = active.range(last.saturating_add(1)..);
            let before = active.range(..=last);
            after.chain(before).map(|(file, holder)| (*file, Weak::clone(holder))).collect()
        };
        let mut freed = 0_u64;
        for only_above_share in [true, false] {
            for (file, holder) in &holders {
                if freed >= wanted {
                    return;
                }
                let Some(holder) = holder.upgrade() else { continue };
                if only_above_share && holder.held() <= share {
                    continue;
                }
                let got = holder.give_back(wanted.saturating_sub(freed));
                if got > 0 {
                    self.last_victim.store(*file, Ordering::Relaxed);
                    freed = freed.saturating_add(got);
                }
            }
        }
    }

    fn units(&self, bytes: u64) -> u32 {
        units(bytes, self.total_units)
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<dyn Holder>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most all that there is.
fn units(bytes: u64, total: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).clamp(1, total.max(1))).unwrap_or(u32::MAX)
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("total", &self.total())
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

/// Counts a waiting read, also one that gives up.
struct Waiting<'a> {
    wanted: &'a AtomicU64,
    units: u64,
}

impl<'a> Waiting<'a> {
    fn new(wanted: &'a AtomicU64, units: u64) -> Self {
        wanted.fetch_add(units, Ordering::SeqCst);
        Self { wanted, units }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.wanted.fetch_sub(self.units, Ordering::SeqCst);
    }
}

//! A bucket that fills with credit at a rate, and the line of those who draw from it.

use std::{
    num::NonZeroU64,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The least that a session draws at once.
const LEAST_QUANTUM: u64 = 32 * 1024;
/// Quanta a second, where that makes them larger than the least. Timers tick in milliseconds: with several quanta in a
/// tick, whoever comes back to the line first would get those of others who are about to.
const QUANTA: u64 = 250;
/// A bucket holds what comes in this part of a second, but at least a quantum.
const PART_OF_A_SECOND: u64 = 10;
/// Credit is counted in bytes times this: a rate times nanoseconds has no remainder, so nothing is lost by rounding.
const UNIT: u128 = 1_000_000_000;

/// A bucket, or none where there is no limit.
#[derive(Debug)]
pub(super) struct Bucket {
    /// In bytes a second; 0 is no limit. For a look without the lock.
    rate: AtomicU64,
    /// Whoever holds it draws next. It is given in the order in which it was asked for.
    line: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// There is more credit, or it comes faster or slower, than whoever waits has reckoned.
    changed: Notify,
}

impl Bucket {
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        let bucket = Self {
            rate: AtomicU64::new(0),
            line: tokio::sync::Mutex::default(),
            state: Mutex::new(State { rate: None, credit: 0, updated: Instant::now() }),
            changed: Notify::new(),
        };
        bucket.set_rate(rate);
        bucket
    }

    /// Changes the rate, in bytes a second, for whoever waits too.
    pub(super) fn set_rate(&self, rate: Option<NonZeroU64>) {
        self.state().set_rate(rate, Instant::now());
        self.rate.store(rate.map_or(0, NonZeroU64::get), Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn is_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != 0
    }

    /// What a session draws at once; `None` where there is no limit.
    pub(super) fn quantum(&self) -> Option<u64> {
        NonZeroU64::new(self.rate.load(Ordering::Relaxed)).map(quantum)
    }

    /// Waits for its turn, then for the credit. Dropping the future gives up the place in the line.
    pub(super) async fn draw(&self, bytes: u64) -> Drawn<'_> {
        if !self.is_limited() {
            return self.drawn(0);
        }
        let _turn = self.line.lock().await;
        // Nobody wanted what came before. From here on all that comes counts, however late the timer: else a rate
        // would fall short by what timers are late.
        self.state().settle(Instant::now());
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let wait = match self.state().take(bytes, Instant::now()) {
                Ok(debited) => return self.drawn(debited),
                Err(wait) => wait,
            };
            // Either way it is looked again.
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// Draws if the credit is there and nobody waits for it.
    pub(super) fn try_draw(&self, bytes: u64) -> Option<Drawn<'_>> {
        if !self.is_limited() {
            return Some(self.drawn(0));
        }
        let _turn = self.line.try_lock().ok()?;
        let mut state = self.state();
        let now = Instant::now();
        state.settle(now);
        state.take(bytes, now).ok().map(|debited| self.drawn(debited))
    }

    /// Takes back what was drawn and not used.
    pub(super) fn give_back(&self, bytes: u64) {
        self.state().credit += u128::from(bytes) * UNIT;
        self.changed.notify_waiters();
    }

    fn drawn(&self, bytes: u64) -> Drawn<'_> {
        Drawn { bucket: self, bytes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Credit that was drawn; it goes back unless it is kept.
#[derive(Debug)]
pub(super) struct Drawn<'b> {
    bucket: &'b Bucket,
    bytes: u64,
}

impl Drawn<'_> {
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Drawn<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.bucket.give_back(self.bytes);
        }
    }
}

#[derive(Debug)]
struct State {
    rate: Option<NonZeroU64>,
    /// In bytes times [`UNIT`].
    credit: u128,
    /// Up to when `credit` counts what came.
    updated: Instant,
}

impl State {
    fn set_rate(&mut self, rate: Option<NonZeroU64>, now: Instant) {
        self.refill(now);
        self.credit = match (self.rate, rate) {
            (_, None) => 0,
            (None, Some(rate)) => most(rate),
            (Some(_), Some(rate)) => self.credit.min(most(rate)),
        };
        self.rate = rate;
    }

    /// Takes what has come, up to what the bucket holds.
    fn settle(&mut self, now: Instant) {
        self.refill(now);
        if let Some(rate) = self.rate {
            self.credit = self.credit.min(most(rate));
        }
    }

    fn refill(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            let nanoseconds = now.saturating_duration_since(self.updated).as_nanos();
            self.credit = self.credit.saturating_add(nanoseconds.saturating_mul(u128::from(rate.get())));
        }
        self.updated = now;
    }

    /// Debits; what was debited, or for how long the credit is still to come.
    fn take(&mut self, bytes: u64, now: Instant) -> Result<u64, Duration> {
        self.refill(now);
        let Some(rate) = self.rate else { return Ok(0) };
        let wanted = u128::from(bytes) * UNIT;
        match self.credit.checked_sub(wanted) {
            Some(left) => {
                self.credit = left;
                Ok(bytes)
            }
            None => {
                let nanoseconds = (wanted - self.credit).div_ceil(u128::from(rate.get()));
                Err(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
            }
        }
    }
}

pub(super) fn quantum(rate: NonZeroU64) -> u64 {
    (rate.get() / QUANTA).max(LEAST_QUANTUM)
}

/// What a bucket holds.
fn most(rate: NonZeroU64) -> u128 {
    u128::from((rate.get() / PART_OF_A_SECOND).max(quantum(rate))) * UNIT
}

//! A host, a call and a watcher for the unit tests of plugins.
//!
//! ```
//! use recgate_plugin_api::{Call, Host, Level, testing};
//!
//! let host = testing::host();
//! host.set_now_ms(1_465_171_277_000);
//! host.log(Level::Info, "mine", "scanned");
//! assert_eq!(host.lines(), [(Level::Info, "mine".to_owned(), "scanned".to_owned())]);
//!
//! let call = testing::call();
//! call.cancel();
//! assert!(call.is_cancelled());
//! ```

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    sdk::{Call, Host, Level, Watcher},
    types::{Error, ErrorCode, Item},
};

/// A host that keeps what it is told. Its clock stands at 0 until it is set.
pub fn host() -> Arc<TestHost> {
    Arc::new(TestHost {
        lines: Mutex::new(Vec::new()),
        runs: AtomicBool::new(false),
        now_ms: AtomicI64::new(0),
    })
}

/// A call that isn't cancelled.
pub fn call() -> TestCall {
    cancelled_after(u64::MAX)
}

/// A call that is cancelled after the plugin has looked so many times whether it is.
pub fn cancelled_after(looks: u64) -> TestCall {
    TestCall { looks: AtomicU64::new(looks) }
}

/// A watcher, and where what it is told arrives. Once that is dropped, the watcher says that the watch is cancelled.
pub fn watcher() -> (TestWatcher, Receiver<Told>) {
    let (sender, told) = channel();
    (TestWatcher { sender }, told)
}

/// See [`host`].
#[derive(Debug)]
pub struct TestHost {
    lines: Mutex<Vec<(Level, String, String)>>,
    /// The clock runs; then `now_ms` is how much it is ahead of the machine's.
    runs: AtomicBool,
    now_ms: AtomicI64,
}

impl TestHost {
    /// What was logged: level, target, message.
    pub fn lines(&self) -> Vec<(Level, String, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines of a level have this in their message.
    pub fn said(&self, level: Level, part: &str) -> usize {
        self.lines().iter().filter(|(at, _, message)| *at == level && message.contains(part)).count()
    }

    /// Sets the clock, Unix milliseconds UTC, and stops it.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.runs.store(false, Ordering::Relaxed);
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Lets the clock run, so many milliseconds ahead of the machine's.
    pub fn run_ahead(&self, ahead_ms: i64) {
        self.now_ms.store(ahead_ms, Ordering::Relaxed);
        self.runs.store(true, Ordering::Relaxed);
    }
}

impl Host for TestHost {
    fn log(&self, level: Level, target: &str, message: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((level, target.to_owned(), message.to_owned()));
    }

    fn now_ms(&self) -> i64 {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        if !self.runs.load(Ordering::Relaxed) {
            return now_ms;
        }
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        i64::try_from(machine).unwrap_or(i64::MAX).saturating_add(now_ms)
    }
}

/// See [`call`].
#[derive(Debug)]
pub struct TestCall {
    /// So many more times it isn't cancelled.
    looks: AtomicU64,
}

impl TestCall {
    /// From now on the call is cancelled.
    pub fn cancel(&self) {
        self.looks.store(0, Ordering::Relaxed);
    }
}

impl Call for TestCall {
    fn is_cancelled(&self) -> bool {
        let one_less = |looks: u64| looks.checked_sub(1);
        self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }
}

/// What a watch has told.
#[expect(clippy::large_enum_variant, reason = "nearly all are items")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// [`Watcher::listening`]
    Listening,
    /// [`Watcher::tell`]
    Item(Item),
}

/// See [`watcher`].
#[derive(Debug)]
pub struct TestWatcher {
    sender: Sender<Told>,
}

impl TestWatcher {
    fn send(&self, told: Told) -> Result<(), Error> {
        self.sender.send(told).map_err(|_| Error::new(ErrorCode::Cancelled, "nobody listens to the watch"))
    }
}

impl Watcher for TestWatcher {
    fn listening(&mut self) -> Result<(), Error> {
        self.send(Told::Listening)
    }

    fn tell(&mut self, item: Item) -> Result<(), Error> {
        self.send(Told::Item(item))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_clock_that_runs_can_be_stopped() {
        let host = host();
        host.run_ahead(1_000_000);
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(u128::try_from(host.now_ms()).unwrap() >= machine + 999_000);
        host.set_now_ms(7);
        assert_eq!(host.now_ms(), 7);
    }

    #[test]
    fn a_call_is_cancelled_for_good() {
        let call = cancelled_after(2);
        assert_eq!([(); 4].map(|()| call.is_cancelled()), [false, false, true, true]);
    }

    #[test]
    fn a_watcher_that_nobody_listens_to_ends_the_watch() {
        let (mut watcher, told) = watcher();
        watcher.listening().unwrap();
        watcher.tell(Item::MediaGone("1".to_owned())).unwrap();
        assert_eq!(told.recv(), Ok(Told::Listening));
        assert_eq!(told.recv(), Ok(Told::Item(Item::MediaGone("1".to_owned()))));
        drop(told);
        assert_eq!(watcher.listening().unwrap_err().code, ErrorCode::Cancelled);
    }
}

//! A host and a call for the unit tests of plugins.
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

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use crate::sdk::{Call, Host, Level};

/// A host that keeps what it is told. Its clock stands at 0 until it is set.
pub fn host() -> Arc<TestHost> {
    Arc::new(TestHost { lines: Mutex::new(Vec::new()), now_ms: AtomicI64::new(0) })
}

/// A call that isn't cancelled.
pub fn call() -> TestCall {
    TestCall { cancelled: AtomicBool::new(false) }
}

/// See [`host`].
#[derive(Debug)]
pub struct TestHost {
    lines: Mutex<Vec<(Level, String, String)>>,
    now_ms: AtomicI64,
}

impl TestHost {
    /// What was logged: level, target, message.
    pub fn lines(&self) -> Vec<(Level, String, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the clock, Unix milliseconds UTC.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Host for TestHost {
    fn log(&self, level: Level, target: &str, message: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((level, target.to_owned(), message.to_owned()));
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

/// See [`call`].
#[derive(Debug)]
pub struct TestCall {
    cancelled: AtomicBool,
}

impl TestCall {
    /// From now on the call is cancelled.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Call for TestCall {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

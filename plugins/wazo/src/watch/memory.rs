//! What a watch remembers of files: which of them it has to look at again, and which their writers have closed.
//!
//! Scans share it. A file that a scan finds growing is looked at again by the watch once it may be complete, and one that
//! the watch saw closed isn't told as growing by a scan that comes by in the next seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Files that are remembered of each kind, some 200 bytes each. What is more is left to scans.
const FILES_MAX: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Watches that run: one, or more where some were given up.
    watches: usize,
    /// Recordings that are growing, as far as the gateway was told.
    growing: HashMap<String, Wait>,
    /// The version that was closed, and until when that matters.
    closed: HashMap<String, (String, Instant)>,
}

/// When to look at a file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) at: Instant,
    /// Its writer has closed it, and nothing was written since.
    pub(super) closed: bool,
}

/// A watch that runs; dropped, it is over.
pub(super) struct Watching<'a>(&'a Memory);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.watches = state.watches.saturating_sub(1);
        if state.watches == 0 {
            *state = State::default();
        }
    }
}

impl Memory {
    /// A watch begins. Without one, nothing is remembered.
    pub(super) fn begin(&self) -> Watching<'_> {
        let mut state = self.lock();
        state.watches = state.watches.saturating_add(1);
        Watching(self)
    }

    /// A recording was found growing; it may be complete after this delay.
    pub(crate) fn await_completion(&self, id: &str, delay: Duration) {
        let mut state = self.lock();
        if state.watches > 0 && !state.growing.contains_key(id) {
            state.wait(id, Wait { at: Instant::now() + delay, closed: false });
        }
    }

    /// Whether the writer of a recording was seen to close it in this version.
    pub(crate) fn was_closed(&self, id: &str, version: &str) -> bool {
        self.lock().closed.get(id).is_some_and(|(closed, _)| closed == version)
    }

    /// Looks at a recording again then. Says whether there was room to remember that.
    pub(super) fn wait(&self, id: &str, wait: Wait) -> bool {
        self.lock().wait(id, wait)
    }

    /// Changes when a recording is looked at again. Says whether it was waiting.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Wait)) -> bool {
        match self.lock().growing.get_mut(id) {
            Some(wait) => {
                change(wait);
                true
            }
            None => false,
        }
    }

    /// A recording is gone.
    pub(super) fn forget(&self, id: &str) {
        let mut state = self.lock();
        state.growing.remove(id);
        state.closed.remove(id);
    }

    /// The writer has closed a recording in this version. Says whether there was room to remember that.
    pub(super) fn close(&self, id: &str, version: &str, keep: Duration) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed.len() >= FILES_MAX {
            state.closed.retain(|_, (_, until)| *until > now);
        }
        if state.closed.len() >= FILES_MAX {
            return false;
        }
        state.closed.insert(id.to_owned(), (version.to_owned(), now + keep));
        true
    }

    /// When a recording is looked at again, if it waits for that.
    pub(super) fn waiting(&self, id: &str) -> Option<Wait> {
        self.lock().growing.get(id).copied()
    }

    /// A recording needn't be looked at again; that it was closed still counts.
    pub(super) fn stop_waiting(&self, id: &str) {
        self.lock().growing.remove(id);
    }

    /// Recordings whose time has come.
    pub(super) fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.lock();
        state.growing.iter().filter(|(_, wait)| wait.at <= now).map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, id: &str, wait: Wait) -> bool {
        if self.growing.len() >= FILES_MAX && !self.growing.contains_key(id) {
            return false;
        }
        self.growing.insert(id.to_owned(), wait);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn without_a_watch_nothing_is_remembered() {
        let memory = Memory::default();
        memory.await_completion("a", NOW);
        assert!(memory.due().is_empty());
        let watching = memory.begin();
        memory.await_completion("a", NOW);
        assert!(memory.close("b", "1", Duration::from_secs(9)));
        assert!(memory.was_closed("b", "1") && !memory.was_closed("b", "2") && !memory.was_closed("a", "1"));
        assert_eq!(memory.due().len(), 1);
        drop(watching);
        assert!(memory.due().is_empty() && !memory.was_closed("b", "1"));
    }

    #[test]
    fn a_scan_does_not_put_off_what_the_watch_waits_for() {
        let memory = Memory::default();
        let _watching = memory.begin();
        memory.wait("a", Wait { at: Instant::now(), closed: true });
        memory.await_completion("a", Duration::from_secs(600));
        assert!(memory.due() == ["a"] && memory.waiting("a").unwrap().closed);
        assert!(memory.change("a", |wait| wait.at += Duration::from_secs(600)) && memory.due().is_empty());
        memory.stop_waiting("a");
        assert!(!memory.change("a", |_| ()));
    }

    #[test]
    fn it_is_bounded() {
        let memory = Memory::default();
        let _watching = memory.begin();
        let wait = Wait { at: Instant::now(), closed: false };
        assert!((0..FILES_MAX).all(|n| memory.wait(&n.to_string(), wait)));
        assert!(!memory.wait("more", wait) && memory.wait("7", wait));
        assert!((0..FILES_MAX).all(|n| memory.close(&n.to_string(), "1", NOW)));
        assert!(memory.close("more", "1", Duration::from_secs(9)), "those before have expired");
        assert!(!memory.was_closed("7", "1") && memory.was_closed("more", "1"));
    }
}

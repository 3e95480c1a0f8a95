//! What an instance remembers between scans; a restart forgets it, and then everything is asked for anew.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use recgate_plugin_api::{Error, ErrorCode, Facts, ScanEnd};

/// Records whose content is remembered: some 13 MiB. Those beyond it get a new revision each time they are told,
/// which costs the catalog a row that says the same.
const REMEMBERED_MAX: usize = 400_000;

/// All that is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How far the questions are.
    pub(super) progress: Progress,
    /// How far they were when the gateway last had taken all that it was told.
    confirmed: Progress,
    /// How the scan ended whose items the gateway may not have taken yet.
    pending: Option<Result<ScanEnd, Error>>,
    pub(super) told: Told,
    hold_off: Option<(Instant, Error)>,
}

/// How far the questions are, by the gateway's clock in Unix milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    /// The greatest id seen; new records have greater ones.
    pub(super) highest: u64,
    /// Beginning of the last poll for new records that succeeded.
    pub(super) polled_ms: Option<i64>,
    /// Beginning of the last look at recent records that succeeded.
    pub(super) rechecked_ms: Option<i64>,
    /// Beginning of the last sweep of everything that came to its end.
    pub(super) swept_ms: Option<i64>,
    /// The sweep of everything that is under way.
    pub(super) sweep: Option<Sweep>,
}

/// A sweep of everything under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
    /// The id from which it goes on.
    pub(super) at: u64,
    pub(super) began_ms: i64,
}

impl Memory {
    /// A scan begins. What the one before told and nobody confirmed is told again.
    pub(super) fn begin(&mut self) {
        self.pending = None;
        self.progress = self.confirmed;
    }

    /// A scan has told everything, and ends so once that was taken.
    pub(super) fn hold(&mut self, end: Result<ScanEnd, Error>) {
        self.pending = Some(end);
    }

    /// The gateway has taken what it was told; `None` where it was told nothing.
    pub(super) fn confirm(&mut self) -> Option<Result<ScanEnd, Error>> {
        let end = self.pending.take()?;
        self.confirmed = self.progress;
        Some(end)
    }

    /// The error with which the service asked for a pause that isn't over.
    pub(super) fn held_off(&mut self) -> Option<Error> {
        let (until, error) = self.hold_off.as_ref()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.hold_off = None;
            return None;
        }
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Some(Error { retry_after_ms: left_ms, ..error.clone() })
    }

    /// Remembers the pause that an error asks for.
    pub(super) fn note(&mut self, error: &Error) {
        let asks = matches!(error.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
        if asks && error.retry_after_ms > 0 {
            let until = Instant::now().checked_add(Duration::from_millis(error.retry_after_ms));
            self.hold_off = until.map(|until| (until, error.clone()));
        }
    }
}

/// Whether an interval has passed since then. A clock that was set back doesn't make it longer.
pub(super) fn is_due(last_ms: Option<i64>, interval_ms: i64, now_ms: i64) -> bool {
    last_ms.is_none_or(|last| now_ms < last || now_ms.saturating_sub(last) >= interval_ms)
}

/// What was told of each record, and when.
///
/// A record has no revision of its own, so the time when a content was first fetched is its revision, in nanoseconds
/// like the modification times of the files in `cdr_dir`. The same content keeps its revision; another one gets a
/// greater, whatever the clock does, and over a restart as long as the clock isn't set back.
#[derive(Debug, Default)]
pub(super) struct Told {
    contents: HashMap<u64, Content>,
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Content {
    digest: u64,
    revision: u64,
}

impl Told {
    /// The revision of a record's facts, as they are now.
    pub(super) fn revision(&mut self, id: u64, facts: &[Facts], now_ms: i64) -> u64 {
        let digest = digest(facts);
        if let Some(known) = self.contents.get(&id).filter(|known| known.digest == digest) {
            return known.revision;
        }
        let now_ns = u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000);
        let revision = now_ns.max(self.last.saturating_add(1));
        self.last = revision;
        if self.contents.len() < REMEMBERED_MAX || self.contents.contains_key(&id) {
            self.contents.insert(id, Content { digest, revision });
        }
        revision
    }
}

fn digest(facts: &[Facts]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for Facts { id, gone, keys, values, .. } in facts {
        (id, gone, keys, values).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn facts(value: &str) -> Vec<Facts> {
        let values = vec![("agent_name".to_owned(), value.to_owned())];
        vec![Facts { id: "cdr-1-x".to_owned(), values, ..Facts::default() }]
    }

    #[test]
    fn another_content_has_a_greater_revision_whatever_the_clock_does() {
        let mut told = Told::default();
        let first = told.revision(1, &facts("a"), 1_000);
        assert_eq!(first, 1_000_000_000);
        assert_eq!(told.revision(1, &facts("a"), 2_000), first, "the same content");
        let second = told.revision(1, &facts("b"), 500);
        assert!(second > first, "the clock was set back");
        let third = told.revision(1, &facts("a"), 500);
        assert!(third > second, "back to what it was");
        assert!(told.revision(2, &facts("a"), 500) > third);
        assert_eq!(told.revision(1, &facts("a"), 9_000), third);
        assert!(told.revision(1, &facts("c"), -5) > third);
    }

    #[test]
    fn an_interval_is_over_when_it_is_or_when_the_clock_went_back() {
        assert!(is_due(None, 1000, 0));
        assert!(!is_due(Some(1000), 1000, 1999));
        assert!(is_due(Some(1000), 1000, 2000));
        assert!(is_due(Some(1000), 1000, 999));
    }
}

//! What is counted of a source's calls. It belongs to the source, not to the registry: so it has the names that the
//! configuration gives the source now, and goes with it.

use std::sync::atomic::{AtomicU64, Ordering};

use recgate_plugin_api::ErrorCode;

use super::histogram::{Histogram, Timer};

/// Seconds: from a read on the same machine to a scan of a large archive.
const BOUNDS: &[f64] = &[
    0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
    3600.0,
];

/// A call of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the interface")]
pub enum SourceCall {
    Health,
    Scan,
    Watch,
    Stat,
    Open,
    ReadAt,
}

impl SourceCall {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Health, Self::Scan, Self::Watch, Self::Stat, Self::Open, Self::ReadAt];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Scan => "scan",
            Self::Watch => "watch",
            Self::Stat => "stat",
            Self::Open => "open",
            Self::ReadAt => "read_at",
        }
    }
}

/// The calls of one source.
#[derive(Debug, Default)]
pub struct SourceCalls {
    calls: [Outcomes; SourceCall::ALL.len()],
    read_bytes: AtomicU64,
}

#[derive(Debug)]
struct Outcomes {
    duration: Histogram,
    ok: AtomicU64,
    failed: [AtomicU64; ErrorCode::ALL.len()],
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { duration: Histogram::new(BOUNDS), ok: AtomicU64::default(), failed: Default::default() }
    }
}

impl SourceCalls {
    /// A call begins. Dropped before it has [ended](RunningCall::ended), it was given up by its caller.
    pub fn start(&self, call: SourceCall) -> Option<RunningCall<'_>> {
        let outcomes = self.calls.get(call as usize)?;
        Some(RunningCall { outcomes, _timer: outcomes.duration.start(), result: Err(ErrorCode::Cancelled) })
    }

    /// A read has brought this much.
    pub fn read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that reads have brought.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// How long calls took, of each kind that was made.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        let all = SourceCall::ALL.into_iter().zip(&self.calls);
        all.map(|(call, outcomes)| (call.name(), &outcomes.duration))
            .filter(|(_, duration)| duration.count() > 0)
    }

    /// How often each call has ended with each result. Results that have never been are left out, but for "ok".
    pub(super) fn results(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        SourceCall::ALL.into_iter().zip(&self.calls).flat_map(|(call, outcomes)| {
            let ok = (call.name(), "ok", outcomes.ok.load(Ordering::Relaxed));
            let failed = ErrorCode::ALL.into_iter().zip(&outcomes.failed);
            let failed =
                failed.map(move |(code, count)| (call.name(), label(code), count.load(Ordering::Relaxed)));
            std::iter::once(ok).chain(failed.filter(|(_, _, count)| *count > 0))
        })
    }
}

/// A call that runs.
#[derive(Debug)]
pub struct RunningCall<'s> {
    outcomes: &'s Outcomes,
    _timer: Timer<'s>,
    result: Result<(), ErrorCode>,
}

impl RunningCall<'_> {
    /// How it has ended.
    pub fn ended(mut self, result: Result<(), ErrorCode>) {
        self.result = result;
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        let count = match self.result {
            Ok(()) => Some(&self.outcomes.ok),
            Err(code) => {
                let place = ErrorCode::ALL.iter().position(|known| *known == code);
                place.and_then(|place| self.outcomes.failed.get(place))
            }
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn label(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NotFound => "not_found",
        ErrorCode::Permission => "permission",
        ErrorCode::LockedRetention => "locked_retention",
        ErrorCode::LockedHold => "locked_hold",
        ErrorCode::Precondition => "precondition",
        ErrorCode::Range => "range",
        ErrorCode::Invalid => "invalid",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::TooLarge => "too_large",
        ErrorCode::NoSpace => "no_space",
        ErrorCode::Busy => "busy",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Cancelled => "cancelled",
        ErrorCode::Corrupt => "corrupt",
        ErrorCode::Archived => "archived",
        ErrorCode::Internal => "internal",
        ErrorCode::Panic => "panic",
    }
}

//! Whether a file is still being written, as far as times tell.

/// A last change further ahead of the gateway's clock than this says nothing about the file. Up to it, the storage's
/// clock is taken to run ahead, and the file to be growing until the gateway's clock has caught up.
const BELIEVABLE_SKEW_MS: i64 = 24 * 60 * 60 * 1000;

/// What decides whether a file is still being written.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Now, Unix milliseconds.
    pub now_ms: i64,
    /// Milliseconds without a change after which a file counts as complete.
    pub growing_after_ms: i64,
}

impl Clock {
    /// Whether something that last changed then may still be being written.
    pub fn is_young(self, changed_ms: i64) -> bool {
        self.is_within(changed_ms, self.growing_after_ms)
    }

    /// Whether something that last changed then did so less than `limit_ms` ago.
    pub fn is_within(self, changed_ms: i64, limit_ms: i64) -> bool {
        let age = self.now_ms.saturating_sub(changed_ms);
        age >= -BELIEVABLE_SKEW_MS && age < limit_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_never_keeps_a_file_growing_for_ever() {
        let clock = Clock { now_ms: 1_700_000_000_000, growing_after_ms: 10_000 };
        assert!(clock.is_young(clock.now_ms));
        assert!(clock.is_young(clock.now_ms - 9_999));
        assert!(!clock.is_young(clock.now_ms - 10_000));
        assert!(clock.is_young(clock.now_ms + 3_600_000), "the storage's clock is an hour ahead");
        assert!(!clock.is_young(clock.now_ms + BELIEVABLE_SKEW_MS + 1));
        assert!(!clock.is_young(i64::MAX));
        assert!(!clock.is_young(i64::MIN));
    }
}

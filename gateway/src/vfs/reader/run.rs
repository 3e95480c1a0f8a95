//! Tells sequential access from random access by the progress of the requests as a whole.

use super::{FIRST_BLOCK, LARGEST_BLOCK, SMALLEST_BLOCK};

/// How far behind the furthest request another may lie and still belong to the same run: what clients
/// keep outstanding (OpenSSH: 64 requests of at most 255 KiB).
const FURTHEST_BEHIND: u64 = 16 * 1024 * 1024;
/// How far a request may jump ahead in a long run.
const FURTHEST_JUMP: u64 = 4 * 1024 * 1024;

/// A stretch of requests that go on from one another, in about the order of their offsets.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Where it began.
    start: u64,
    /// The end of its furthest request.
    pub(super) high: u64,
    /// Up to where blocks were made for it.
    pub(super) fetched: u64,
    /// How often `high` has advanced.
    steps: u64,
}

impl Run {
    /// Takes note of a request of `len` bytes at `offset`; `present` says whether there is a block for it.
    /// Returns whether it begins a new run.
    pub(super) fn note(&mut self, offset: u64, len: u64, present: bool) -> bool {
        let end = offset.saturating_add(len);
        if self.belongs(offset, len, present) {
            if end > self.high {
                self.high = end;
                self.steps = self.steps.saturating_add(1);
            }
            return false;
        }
        *self = Self { start: offset, high: end, fetched: offset, steps: 1 };
        true
    }

    /// Bytes to be fetched beyond `high`, at most `cap`; 0 while the access isn't known to be sequential.
    pub(super) fn window(&self, cap: u64) -> u64 {
        if self.steps < 2 { 0 } else { self.advance().saturating_mul(2).max(FIRST_BLOCK).min(cap) }
    }

    /// Bytes of the next block at the end of what was fetched, where a file may hold `cap`.
    pub(super) fn block(&self, cap: u64) -> u64 {
        let ideal = (self.window(cap) / 4).clamp(FIRST_BLOCK, LARGEST_BLOCK);
        ideal.min(cap / 2).max(SMALLEST_BLOCK)
    }

    /// Whether a request at `offset`, for which there is no block, continues the run beyond what was fetched.
    pub(super) fn continues_at(&self, offset: u64) -> bool {
        offset >= self.fetched && (self.steps >= 2 || offset == 0)
    }

    fn belongs(&self, offset: u64, len: u64, present: bool) -> bool {
        if self.high == 0 {
            return offset == 0;
        }
        if offset == 0 && !present {
            return false; // the file is read once more from its beginning
        }
        let slack = len.saturating_mul(4).max(self.advance().min(FURTHEST_JUMP));
        if offset >= self.high {
            offset.saturating_sub(self.high) <= slack
        } else {
            offset >= self.start.saturating_sub(slack) && self.high.saturating_sub(offset) <= FURTHEST_BEHIND
        }
    }

    fn advance(&self) -> u64 {
        self.high.saturating_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: u64 = 8 << 20;
    const K32: u64 = 32 << 10;

    #[test]
    fn a_window_opens_with_the_second_request_and_grows_with_progress() {
        let mut run = Run::default();
        assert!(!run.note(0, K32, false));
        assert_eq!(run.window(CAP), 0);
        assert!(!run.note(K32, K32, true));
        assert_eq!(run.window(CAP), FIRST_BLOCK);
        for i in 2..1024 {
            assert!(!run.note(i * K32, K32, true));
        }
        assert_eq!(run.window(CAP), CAP);
        assert_eq!(run.block(CAP), LARGEST_BLOCK);
    }

    #[test]
    fn pipelined_requests_out_of_order_are_one_run() {
        let mut run = Run::default();
        run.note(0, K32, false);
        for chunk in 0..64 {
            for i in [3, 1, 4, 2] {
                let offset = (chunk * 4 + i) * K32;
                assert!(!run.note(offset, K32, false), "{offset}");
            }
        }
        assert_eq!(run.window(CAP), CAP);
    }

    #[test]
    fn asking_twice_for_the_same_is_no_progress() {
        let mut run = Run::default();
        run.note(1 << 30, K32, false);
        run.note(1 << 30, K32, true);
        assert_eq!(run.window(CAP), 0);
        assert!(!run.continues_at(1 << 30));
    }

    #[test]
    fn jumps_and_returns_begin_anew() {
        let mut run = Run::default();
        run.note(0, K32, false);
        assert!(run.note(1 << 30, K32, false));
        assert!(run.note(5 << 20, K32, false));
        assert_eq!(run.window(CAP), 0);
        assert!(!run.note((5 << 20) + K32, K32, false));
        assert!(run.window(CAP) > 0);
        assert!(run.note(0, K32, false), "read again from the beginning");
    }
}

//! Signs of life of work that must go on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A beat that somebody gives again and again, and that somebody else misses when it stays away.
#[derive(Debug)]
pub struct Pulse {
    what: &'static str,
    limit: Duration,
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
}

impl Pulse {
    /// The pulse of `what`, which hangs when there is no beat for longer than `limit`. Now is the first beat.
    pub fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, began: Instant::now(), last: AtomicU64::new(0) }
    }

    /// It goes on.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// That it hangs, in words; `None` while it doesn't.
    pub fn stuck(&self) -> Option<String> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Option<String> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let silent = now.saturating_duration_since(self.began).saturating_sub(last);
        (silent > self.limit)
            .then(|| format!("{} gave no sign of life for {} seconds", self.what, silent.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_beyond_the_limit_is_told() {
        let pulse = Pulse::new("the clockwork", Duration::from_secs(120));
        pulse.beat();
        let after = |seconds| pulse.stuck_at(Instant::now() + Duration::from_secs(seconds));
        assert_eq!(pulse.stuck(), None);
        assert_eq!(after(119), None);
        let told = after(200).unwrap_or_default();
        assert!(told.starts_with("the clockwork gave no sign of life for "), "{told}");
    }
}

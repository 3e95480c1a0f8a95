//! Shutting down: no new sessions, running transfers finish within the grace time, then the rest is cut.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The gateway's wish to stop, and the sessions that still run. Clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    cut: CancellationToken,
    sessions: TaskTracker,
}

/// How long sessions that were cut may take to end.
const AFTER_CUT: Duration = Duration::from_secs(2);

impl Drain {
    /// One that hasn't begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops accepting, ends idle sessions, waits for running transfers at most `grace`, then cuts them. Returns how
    /// many sessions were cut.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.begun.cancel();
        self.sessions.close();
        if tokio::time::timeout(grace, self.sessions.wait()).await.is_ok() {
            return 0;
        }
        let left = self.sessions.len();
        self.cut.cancel();
        if tokio::time::timeout(AFTER_CUT, self.sessions.wait()).await.is_err() {
            tracing::warn!(sessions = self.sessions.len(), "sessions didn't end when they were cut");
        }
        left
    }

    /// Whether the gateway is stopping.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Returns when the gateway begins to stop.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Returns when the grace time is over.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Runs a session (or an accept loop) that the gateway waits for when it stops.
    pub fn spawn<F>(&self, session: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The handle isn't needed: the tracker waits for the task.
        drop(self.sessions.spawn(session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_what_ends_and_cuts_what_does_not() {
        let drain = Drain::new();
        let polite = drain.clone();
        drain.spawn(async move { polite.begun().await });
        assert_eq!(drain.finish(Duration::from_secs(60)).await, 0);

        let drain = Drain::new();
        let stubborn = drain.clone();
        drain.spawn(async move { stubborn.cut().await });
        assert_eq!(drain.finish(Duration::from_millis(1)).await, 1);
        assert!(drain.has_begun());
    }
}

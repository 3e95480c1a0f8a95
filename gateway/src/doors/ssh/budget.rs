//! What one connection may have in hand: requests that are being worked on, and bytes on their way to the client.
//!
//! russh's output queue has no limit of its own, so each request takes a [`Charge`] for the largest reply that it can
//! cause before it is taken from the input, and the reply carries the charge along as its buffer's owner. russh drops
//! that buffer when the bytes are encrypted into its output; the charge then waits until the output has been handed to
//! the socket, and only then there is room for the next request. So the sum of what is being read, waits in queues,
//! waits for the client's window, or waits for the socket stays below [`Budget::BYTES`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// The limits of one connection and what is used of them.
#[derive(Debug, Default)]
pub(super) struct Budget {
    used: Mutex<Used>,
    freed: Notify,
    /// Pieces have been handed to the socket.
    passed: Notify,
    /// Whether bytes wait for [`Budget::flushed`]; spares the lock on the hot path.
    encrypted: AtomicBool,
}

#[derive(Debug, Default)]
struct Used {
    requests: usize,
    bytes: usize,
    /// The part of `bytes` that is in russh's output.
    in_output: usize,
    /// Bytes of [pieces](Budget::pass) between russh's queue and the socket, and those of them that are in its output.
    passing: usize,
    passed: usize,
    /// Bytes of replies that were sent in all.
    sent: u64,
    /// Somebody failed to get a charge since `generation` last rose.
    wanted: bool,
    generation: u64,
}

impl Used {
    fn at_once(&self) -> usize {
        if self.sent < Budget::MUCH { Budget::AT_ONCE } else { Budget::MUCH_AT_ONCE }
    }
}

impl Budget {
    /// Bytes of replies on their way.
    pub(super) const BYTES: usize = 4 * 1024 * 1024;
    /// Requests in work.
    pub(super) const REQUESTS: usize = 256;
    /// Bytes that russh gets at once: two replies to OpenSSH's reads, so that one is encrypted while the other is on its
    /// way here. russh's output buffer grows to what it gets, and stays.
    const AT_ONCE: usize = 64 * 1024;
    /// The same in a connection that has downloaded much, and will download more: fewer wakes and system calls.
    const MUCH_AT_ONCE: usize = 256 * 1024;
    /// How many bytes are much.
    const MUCH: u64 = 16 * 1024 * 1024;
    /// What replies have beside what was asked for.
    const HEADERS: usize = 8 * 1024;

    /// How many bytes russh may get at once.
    pub(super) fn at_once(&self) -> usize {
        self.lock().at_once()
    }

    /// Takes a piece of a reply, and waits until it may go into russh's queue; it is counted until the socket has it.
    pub(super) async fn pass(self: &Arc<Self>, reply: &mut Bytes) -> Bytes {
        let piece = reply.split_to(reply.len().min(self.at_once()));
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            {
                let mut used = self.lock();
                let total = used.passing.saturating_add(piece.len());
                if total <= used.at_once().saturating_add(Self::HEADERS) || used.passing == 0 {
                    used.passing = total;
                    break;
                }
            }
            passed.await;
        }
        Bytes::from_owner(Piece { bytes: piece, budget: Arc::clone(self) })
    }

    /// Takes room for a request whose reply has at most `bytes` (at most [`Budget::BYTES`]).
    ///
    /// # Errors
    /// There is no room now; [`Budget::room`] waits for more than this moment's.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Full> {
        let mut used = self.lock();
        let total = used.bytes.saturating_add(bytes);
        if used.requests >= Self::REQUESTS || (total > Self::BYTES && used.bytes > 0) {
            used.wanted = true;
            return Err(Full(used.generation));
        }
        used.bytes = total;
        used.requests += 1;
        Ok(Charge { budget: Arc::clone(self), bytes, replied: false })
    }

    /// Returns when something has been freed since `full`.
    pub(super) async fn room(&self, full: Full) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.lock().generation != full.0 {
                return;
            }
            freed.await;
        }
    }

    /// The connection's output has been handed to the socket.
    pub(super) fn flushed(&self) {
        if self.encrypted.swap(false, Ordering::AcqRel) {
            let mut used = self.lock();
            used.bytes -= used.in_output;
            used.sent = used.sent.saturating_add(u64::try_from(used.in_output).unwrap_or(u64::MAX));
            used.in_output = 0;
            let passed = std::mem::take(&mut used.passed);
            used.passing = used.passing.saturating_sub(passed);
            self.notify(used);
            if passed > 0 {
                self.passed.notify_waiters();
            }
        }
    }

    /// Whether bytes of a reply are on their way to the socket.
    pub(super) fn is_leaving(&self) -> bool {
        self.encrypted.load(Ordering::Acquire)
    }

    /// Requests in work, and bytes on their way.
    pub(super) fn in_hand(&self) -> (usize, usize) {
        let used = self.lock();
        (used.requests, used.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, mut used: MutexGuard<'_, Used>) {
        if std::mem::take(&mut used.wanted) {
            used.generation += 1;
            drop(used);
            self.freed.notify_waiters();
        }
    }
}

/// There was no room; which moment's that was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full(u64);

/// Room that a request has taken. Dropping it gives the room back.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
    replied: bool,
}

impl Charge {
    /// Makes the reply's buffer hold the charge until russh has sent it. What was charged beyond the reply's length
    /// is given back at once.
    pub(super) fn reply(mut self, reply: BytesMut) -> Bytes {
        let surplus = self.bytes.saturating_sub(reply.len());
        if surplus > 0 {
            self.bytes -= surplus;
            let mut used = self.budget.lock();
            used.bytes -= surplus;
            self.budget.notify(used);
        }
        self.replied = true;
        Bytes::from_owner(Charged { reply, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.budget.lock();
        used.requests -= 1;
        if self.replied {
            used.in_output += self.bytes;
            self.budget.encrypted.store(true, Ordering::Release);
        } else {
            used.bytes -= self.bytes;
        }
        self.budget.notify(used);
    }
}

/// A piece of a reply. russh drops it when it is encrypted.
struct Piece {
    bytes: Bytes,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.budget.lock().passed += self.bytes.len();
        self.budget.encrypted.store(true, Ordering::Release);
    }
}

struct Charged {
    reply: BytesMut,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

/// How long the socket isn't read while a client's requests are held back. Its window grants trickle then, and
/// without a pause each trickle would cost a round of the loop.
pub(super) const HELD_BACK_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_reply_is_charged_until_it_was_flushed() {
        let budget = Arc::new(Budget::default());
        let charge = budget.charge(Budget::BYTES).unwrap();
        let full = budget.charge(1).unwrap_err();
        let reply = charge.reply(BytesMut::zeroed(Budget::BYTES));
        assert_eq!(budget.in_hand(), (1, Budget::BYTES));
        drop(reply);
        assert_eq!(budget.in_hand(), (0, Budget::BYTES));
        assert!(budget.charge(1).is_err(), "encrypted, but not with the socket yet");
        budget.flushed();
        budget.room(full).await;
        assert_eq!(budget.in_hand(), (0, 0));
    }

    #[tokio::test]
    async fn few_pieces_are_on_their_way_at_once() {
        let budget = Arc::new(Budget::default());
        let reply = |len| Bytes::from(vec![0; len]);
        let mut whole = reply(3 * Budget::AT_ONCE / 2);
        let first = budget.pass(&mut whole).await;
        assert_eq!((first.len(), whole.len()), (Budget::AT_ONCE, Budget::AT_ONCE / 2));
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { drop(budget.pass(&mut whole).await) }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "encrypted, but not with the socket yet");
        budget.flushed();
        waiting.await.unwrap();
        budget.flushed();
        assert_eq!(budget.lock().passing, 0);
        let two = [budget.pass(&mut reply(32_800)).await, budget.pass(&mut reply(32_800)).await];
        assert_eq!(budget.lock().passing, 65_600);
        drop(two);
    }

    #[tokio::test]
    async fn who_downloads_much_gets_more_at_once() {
        let budget = Arc::new(Budget::default());
        let mut sent = 0;
        while sent < Budget::MUCH {
            assert_eq!(budget.at_once(), Budget::AT_ONCE);
            let charge = budget.charge(1 << 20).unwrap();
            drop(charge.reply(BytesMut::zeroed(1 << 20)));
            budget.flushed();
            sent += 1 << 20;
        }
        let mut reply = Bytes::from(vec![0; 2 * Budget::MUCH_AT_ONCE]);
        assert_eq!(budget.pass(&mut reply).await.len(), Budget::MUCH_AT_ONCE);
    }

    #[tokio::test]
    async fn what_was_not_answered_is_free_at_once_and_wakes() {
        let budget = Arc::new(Budget::default());
        let charges: Vec<_> = (0..Budget::REQUESTS).map(|_| budget.charge(10).unwrap()).collect();
        let full = budget.charge(10).unwrap_err();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.room(full).await }
        });
        drop(charges);
        waiting.await.unwrap();
        assert_eq!(budget.in_hand(), (0, 0));
        let short = budget.charge(1000).unwrap().reply(BytesMut::zeroed(10));
        assert_eq!(budget.in_hand(), (1, 10));
        drop(short);
    }
}

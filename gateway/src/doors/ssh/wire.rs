//! The socket below russh, with what russh doesn't offer: a way to cut the connection, the moment when the output has
//! left, progress for the idle timeout, and a pause in reading while requests are held back.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::budget::{Budget, HELD_BACK_PAUSE};

/// What is still read of a client that was told to go, so that its own end is seen. russh would read on for as long as the
/// client sends.
const FAREWELL_BYTES: usize = 256 * 1024;

/// What is known of a connection at its socket.
#[derive(Debug)]
pub(super) struct Link {
    /// Cuts the connection.
    pub(super) cut: CancellationToken,
    /// What the connection has in hand.
    pub(super) budget: Arc<Budget>,
    /// The client's requests are held back, see [`HELD_BACK_PAUSE`].
    pub(super) held_back: AtomicBool,
    /// The client was told to go: little more is read of it.
    pub(super) dismissed: CancellationToken,
    opened: Instant,
    active: AtomicU64,
}

impl Link {
    /// `cut` cuts it.
    pub(super) fn new(cut: CancellationToken) -> Self {
        Self {
            cut,
            budget: Arc::default(),
            held_back: AtomicBool::new(false),
            dismissed: CancellationToken::new(),
            opened: Instant::now(),
            active: AtomicU64::new(0),
        }
    }

    /// The client asked for something, or took bytes that it had asked for.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(now, Ordering::Relaxed);
    }

    /// Since when nothing has happened.
    pub(super) fn last_active(&self) -> Instant {
        self.opened + Duration::from_millis(self.active.load(Ordering::Relaxed))
    }
}

/// The socket as russh sees it, from after the [greeting](super::greeting) on.
pub(super) struct Wire<S> {
    socket: S,
    /// What the greeting has read, which russh reads again.
    read_before: BytesMut,
    /// Bytes that russh says and the greeting has said already.
    said_before: usize,
    link: Arc<Link>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// What is left of [`FAREWELL_BYTES`].
    farewell: usize,
}

impl<S> Wire<S> {
    /// `read` is what the greeting has taken from the socket; `said` how many bytes it has sent.
    pub(super) fn new(socket: S, link: Arc<Link>, read: BytesMut, said: usize) -> Self {
        let cut = Box::pin(link.cut.clone().cancelled_owned());
        Self {
            socket,
            read_before: read,
            said_before: said,
            link,
            cut,
            pause: None,
            farewell: FAREWELL_BYTES,
        }
    }

    /// russh reads and writes in one task, so the one waker that this future keeps is the right one.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        if !this.read_before.is_empty() {
            let len = this.read_before.len().min(buffer.remaining());
            buffer.put_slice(&this.read_before.split_to(len));
            return Poll::Ready(Ok(()));
        }
        // russh reads when its output has left.
        this.link.budget.flushed();
        if this.link.dismissed.is_cancelled() {
            if this.farewell == 0 {
                // Until it is cut.
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
            this.farewell = this.farewell.saturating_sub(buffer.filled().len().saturating_sub(before));
            return Poll::Ready(Ok(()));
        }
        if this.link.held_back.load(Ordering::Relaxed) || this.pause.is_some() {
            let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(HELD_BACK_PAUSE)));
            ready!(pause.as_mut().poll(context));
        }
        ready!(Pin::new(&mut this.socket).poll_read(context, buffer))?;
        this.pause = None;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(context)?;
        if this.said_before > 0 {
            let len = bytes.len().min(this.said_before);
            this.said_before -= len;
            return Poll::Ready(Ok(len));
        }
        let written = ready!(Pin::new(&mut this.socket).poll_write(context, bytes))?;
        // Keep-alives aren't progress: they go out without a reply, also where replies wait for the client's window.
        if this.link.budget.is_leaving() {
            this.link.touch();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        ready!(Pin::new(&mut this.socket).poll_flush(context))?;
        this.link.budget.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(context)?;
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}

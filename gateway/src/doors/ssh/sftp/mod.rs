//! One SFTP session on one channel.
//!
//! Bytes from the client are appended to an inbox and taken from it a frame at a time. A frame is taken only when the
//! connection's [budget](super::budget) has room for its reply; otherwise it stays in the inbox, raw, which is its
//! smallest form, and the client's window grants trickle until there is room again ([`Sftp::backlog`]).
//!
//! Two drive the inbox. russh's handler does when bytes arrive: what can be answered at once is answered there,
//! without a change of task. When the budget is full, or a reply is large, a task of the channel, the pump, goes on,
//! since russh calls its handler only for packets. What has to wait (opening, listing, reading what isn't in memory)
//! runs in tasks of its own and is answered in any order, but for the READs of one file, which are answered in theirs
//! ([`handles::Turn`]).
//!
//! russh keeps its output buffer at the largest size that it ever had, and takes all that is in its queue before it
//! flushes. So it gets little at once ([`Budget::at_once`](super::budget::Budget)), at a packet from the client, and through
//! its queue in pieces, one reply after another, of which few are between here and the socket.
//! While any are under way nothing is answered past them.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use russh::{
    ChannelId,
    server::{Handle, Session},
};
use russh_sftp::protocol::StatusCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) use self::dispatch::lossy;
use self::{
    handles::{Handles, Turn},
    packet::{FrameError, Packet},
};
use super::{
    budget::{Charge, Full},
    connection::Connection,
};
use crate::vfs::Refusal;

mod dispatch;
mod extensions;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod handles;
mod listing;
mod packet;
mod status;

/// Refusals that are also explained on standard error, for each channel. A client that doesn't read that stream loses
/// window by it.
const EXPLANATIONS: u32 = 16;

/// An SFTP session.
pub(super) struct Sftp {
    connection: Arc<Connection>,
    handle: Handle,
    channel: ChannelId,
    state: Mutex<State>,
    /// Wakes the pump.
    kick: Notify,
    /// The channel is closed: tasks stop.
    ended: CancellationToken,
    /// Tasks that owe a reply.
    owing: AtomicUsize,
    explained: AtomicU32,
    /// Held while a reply goes into russh's queue, so that its pieces stay together.
    sending: tokio::sync::Mutex<()>,
    /// Replies in russh's queue: what is sent past the queue would overtake them.
    queued: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    inbox: BytesMut,
    handles: Handles,
    /// INIT has come.
    greeted: bool,
    /// The client sends no more.
    eof: bool,
    /// The stream is out of step: nothing more is read, the pump closes the channel.
    broken: Option<FrameError>,
    /// The pump drives the inbox, the handler only fills it.
    pumping: bool,
    /// What the handler left for the pump to send.
    outbox: Vec<Out>,
}

/// What goes to the client.
enum Out {
    Reply(Bytes),
    StandardError(String),
}

/// A reply that goes through russh's queue, in pieces, until russh has taken all of them.
struct Queued {
    reply: Bytes,
    queued: Arc<AtomicUsize>,
}

/// What became of the first frame of the inbox.
enum Step {
    /// It was taken; what goes out at once.
    Taken(Vec<Out>),
    /// There is none.
    Nothing,
    /// It waits for room.
    Blocked(Full),
    /// The stream is out of step.
    Broken(FrameError),
}

impl Sftp {
    /// Starts a session on a channel; nothing is sent before the client's INIT.
    pub(super) fn start(connection: Arc<Connection>, handle: Handle, channel: ChannelId) -> Arc<Self> {
        let sftp = Arc::new(Self {
            connection,
            handle,
            channel,
            state: Mutex::default(),
            kick: Notify::new(),
            ended: CancellationToken::new(),
            owing: AtomicUsize::new(0),
            explained: AtomicU32::new(0),
            sending: tokio::sync::Mutex::default(),
            queued: Arc::default(),
        });
        tokio::spawn(Arc::clone(&sftp).pump());
        sftp
    }

    /// Bytes from the client. Never waits.
    pub(super) fn data(self: &Arc<Self>, bytes: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        self.connection.link.touch();
        {
            let mut state = self.state();
            if state.broken.is_some() {
                return Ok(());
            }
            state.inbox.extend_from_slice(bytes);
            if state.pumping {
                return Ok(());
            }
        }
        let mut room = self.connection.link.budget.at_once();
        loop {
            match self.step() {
                Step::Taken(outs) => {
                    let size: usize = outs.iter().map(Out::len).sum();
                    if size > room || self.queued.load(Ordering::Acquire) > 0 {
                        let mut state = self.state();
                        state.outbox.extend(outs);
                        state.pumping = true;
                        break;
                    }
                    room -= size;
                    for out in outs {
                        match out {
                            Out::Reply(reply) => session.data(self.channel, reply)?,
                            Out::StandardError(line) => {
                                session.extended_data(self.channel, 1, line.into_bytes())?
                            }
                        }
                    }
                }
                Step::Nothing => return Ok(()),
                Step::Blocked(_) | Step::Broken(_) => break,
            }
        }
        self.kick.notify_one();
        Ok(())
    }

    /// The client sends no more; the channel closes when all is answered.
    pub(super) fn eof(&self) {
        self.state().eof = true;
        self.kick.notify_one();
    }

    /// The channel is gone.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.state().handles.clear();
    }

    /// Whether the session closed its channel itself.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Bytes of requests that wait for room.
    pub(super) fn backlog(&self) -> usize {
        let state = self.state();
        if state.pumping { state.inbox.len() } else { 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on where the handler couldn't, and closes the channel when its time has come.
    async fn pump(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                () = self.kick.notified() => {}
            }
            if self.ended.run_until_cancelled(self.pump_all()).await == Some(Next::Wait) {
                continue;
            }
            self.end();
            return;
        }
    }

    async fn pump_all(self: &Arc<Self>) -> Next {
        loop {
            let outbox = std::mem::take(&mut self.state().outbox);
            for out in outbox {
                self.send(out).await;
            }
            match self.step() {
                Step::Taken(outs) => {
                    for out in outs {
                        self.send(out).await;
                    }
                }
                Step::Blocked(full) => self.connection.link.budget.room(full).await,
                Step::Broken(error) => {
                    let session = self.connection.log.number();
                    tracing::info!(session, %error, "the SFTP stream is out of step, its channel is closed");
                    self.close(1).await;
                    return Next::Over;
                }
                Step::Nothing => match self.rest() {
                    Rest::GoOn => {}
                    Rest::Wait => return Next::Wait,
                    Rest::Close => {
                        self.close(0).await;
                        return Next::Over;
                    }
                },
            }
        }
    }

    /// Whether the pump may rest, decided in one moment with giving the inbox back to the handler.
    fn rest(&self) -> Rest {
        let mut state = self.state();
        if !state.outbox.is_empty() || packet::frame(&state.inbox) != Ok(None) {
            return Rest::GoOn;
        }
        state.pumping = false;
        // A reply that is owed comes first; its task kicks again.
        if state.eof && self.owing.load(Ordering::Acquire) == 0 { Rest::Close } else { Rest::Wait }
    }

    /// Takes one frame from the inbox, if there is one and room for its reply.
    fn step(self: &Arc<Self>) -> Step {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(error) = state.broken {
            return Step::Broken(error);
        }
        let frame = match packet::frame(&state.inbox) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if state.inbox.is_empty() {
                    // An idle session keeps no buffer.
                    state.inbox = BytesMut::new();
                }
                return Step::Nothing;
            }
            Err(error) => {
                state.broken = Some(error);
                state.inbox = BytesMut::new();
                return Step::Broken(error);
            }
        };
        let taken = 4 + frame.len();
        let outs = match packet::parse(frame) {
            Some(Packet::Init) if !state.greeted => {
                state.greeted = true;
                vec![Out::Reply(packet::version().freeze())]
            }
            Some(Packet::Request { id, request }) if state.greeted => {
                let charge = match self.connection.link.budget.charge(dispatch::cost(&request)) {
                    Ok(charge) => charge,
                    Err(full) => {
                        state.pumping = true;
                        return Step::Blocked(full);
                    }
                };
                self.dispatch(&mut state.handles, id, request, charge)
            }
            // Requests before INIT, or a second INIT: this isn't SFTP.
            Some(_) | None => {
                let error = FrameError::Unexpected(u32::try_from(frame.len()).unwrap_or(u32::MAX));
                state.broken = Some(error);
                state.inbox = BytesMut::new();
                return Step::Broken(error);
            }
        };
        state.inbox.advance(taken);
        Step::Taken(outs)
    }

    /// Works on a request in a task of its own and answers it. A panic is a defect and is answered too.
    fn spawn<F>(self: &Arc<Self>, id: u32, charge: Charge, work: F)
    where
        F: Future<Output = (BytesMut, Option<String>)> + Send + 'static,
    {
        let owed = Owed::new(self);
        tokio::spawn(async move { owed.0.work(id, charge, work).await });
    }

    /// The same for work that seldom has to wait: what it needn't wait for is answered at once, without a task. The
    /// work must not use this channel's state.
    fn at_once_or_spawn<F>(self: &Arc<Self>, id: u32, charge: Charge, work: F) -> Vec<Out>
    where
        F: Future<Output = (BytesMut, Option<String>)> + Send + 'static,
    {
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        if let Some(done) = work.as_mut().now_or_never() {
            return dispatch::outs(self.survived(id, done), charge);
        }
        let owed = Owed::new(self);
        tokio::spawn(async move {
            let Some(done) = owed.0.ended.run_until_cancelled(work).await else { return };
            owed.0.reply(charge, owed.0.survived(id, done)).await;
        });
        Vec::new()
    }

    /// The same, answered after the READs of the file that came before.
    fn spawn_in_turn<F>(self: &Arc<Self>, id: u32, charge: Charge, mut turn: Turn, work: F)
    where
        F: Future<Output = (BytesMut, Option<String>)> + Send + 'static,
    {
        let owed = Owed::new(self);
        tokio::spawn(async move {
            let Some(done) = owed.0.done(id, work).await else { return };
            let Some(()) = owed.0.ended.run_until_cancelled(turn.comes()).await else { return };
            owed.0.reply(charge, done).await;
        });
    }

    /// Waits for the work and sends what came of it. Nothing is sent on a channel that has ended.
    async fn work<F>(&self, id: u32, charge: Charge, work: F)
    where
        F: Future<Output = (BytesMut, Option<String>)> + Send,
    {
        if let Some(done) = self.done(id, work).await {
            self.reply(charge, done).await;
        }
    }

    /// What came of the work; `None` on a channel that has ended.
    async fn done<F>(&self, id: u32, work: F) -> Option<(BytesMut, Option<String>)>
    where
        F: Future<Output = (BytesMut, Option<String>)> + Send,
    {
        let work = AssertUnwindSafe(work).catch_unwind();
        Some(self.survived(id, self.ended.run_until_cancelled(work).await?))
    }

    /// The answer of work that may have panicked.
    fn survived(
        &self,
        id: u32,
        done: std::thread::Result<(BytesMut, Option<String>)>,
    ) -> (BytesMut, Option<String>) {
        done.unwrap_or_else(|_| {
            tracing::error!(
                session = self.connection.log.number(),
                "an SFTP request panicked; this is a defect"
            );
            (packet::status(id, StatusCode::Failure, "internal error"), None)
        })
    }

    async fn reply(&self, charge: Charge, (reply, explanation): (BytesMut, Option<String>)) {
        if let Some(line) = explanation {
            self.send(Out::StandardError(line)).await;
        }
        self.send(Out::Reply(charge.reply(reply))).await;
    }

    /// Waits while russh's queue is full.
    async fn send(&self, out: Out) {
        let _turn = self.sending.lock().await;
        // An error says that the connection is gone; then nobody waits for the reply.
        match out {
            Out::Reply(reply) => {
                let mut rest = Queued::of(reply, &self.queued);
                while !rest.is_empty() {
                    let piece = self.connection.link.budget.pass(&mut rest).await;
                    if self.handle.data(self.channel, piece).await.is_err() {
                        return;
                    }
                }
            }
            Out::StandardError(line) => {
                let _ = self.handle.extended_data(self.channel, 1, line.into_bytes()).await;
            }
        }
    }

    /// Exit status, EOF, close: without the status `scp` and scripts see a failure.
    async fn close(&self, exit_status: u32) {
        let _ = self.handle.exit_status_request(self.channel, exit_status).await;
        let _ = self.handle.eof(self.channel).await;
        let _ = self.handle.close(self.channel).await;
    }

    /// The status for a refusal, a line of log, and a line for the client's standard error where the status alone
    /// wouldn't say why.
    fn refuse(
        &self,
        id: u32,
        operation: &str,
        path: &dyn std::fmt::Display,
        refusal: &Refusal,
    ) -> (BytesMut, Option<String>) {
        self.connection.log.refused(operation, path, refusal);
        let explain = status::needs_explaining(refusal.kind)
            && self
                .explained
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < EXPLANATIONS).then_some(n + 1))
                .is_ok();
        let explanation = explain.then(|| format!("{path}: {}\r\n", refusal.client));
        (packet::status(id, status::code(refusal.kind), &refusal.client), explanation)
    }
}

impl Out {
    fn len(&self) -> usize {
        match self {
            Out::Reply(reply) => reply.len(),
            Out::StandardError(line) => line.len(),
        }
    }
}

impl Queued {
    fn of(reply: Bytes, queued: &Arc<AtomicUsize>) -> Bytes {
        queued.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Self { reply, queued: Arc::clone(queued) })
    }
}

impl AsRef<[u8]> for Queued {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

enum Rest {
    GoOn,
    Wait,
    Close,
}

#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Over,
}

/// A reply that a task owes. When it is gone the channel may close.
struct Owed(Arc<Sftp>);

impl Owed {
    fn new(sftp: &Arc<Sftp>) -> Self {
        sftp.owing.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(sftp))
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.0.owing.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.state().eof {
            self.0.kick.notify_one();
        }
    }
}

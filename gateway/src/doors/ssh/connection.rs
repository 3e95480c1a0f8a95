//! One SSH connection: what its channels share, and who watches over its time.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use russh::{Disconnect, server::Handle};
use tokio::{io::BufReader, net::TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Transport,
    algorithms::{self, Offer},
    greeting::{Greeting, IDENTIFICATION, greet},
    handler::SshHandler,
    wire::{Link, Wire},
};
use crate::{
    config,
    doors::common::{Drain, SessionLog},
    identity::{
        Account, Identity, Login, LoginEnded, OpenFilePermit, Pace, SessionPermit, TooManySessions,
        admission::Full, entrance::Admitted,
    },
    telemetry::metrics,
    vfs::{FileSystem, Refusal, RefusalKind},
};

/// Bytes that are read from the socket at once. Requests come in, some dozens of bytes each.
const SOCKET_BUFFER: usize = 16 * 1024;
/// An open file in a session that was active this lately counts as a running transfer when the gateway stops.
const RECENTLY: Duration = Duration::from_secs(5);
/// How often a stopping gateway looks whether a transfer has ended.
const DRAIN_TICK: Duration = Duration::from_millis(100);
/// Files and folders that a connection may have open, over all of its channels. More or less: files count when their
/// opens are done.
const MAX_OPEN: usize = 1024;
/// How long a client that was told to go may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the channels of a connection share.
pub(super) struct Connection {
    pub(super) log: SessionLog,
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) identity: Arc<Identity>,
    pub(super) drain: Drain,
    pub(super) link: Arc<Link>,
    /// Algorithms that only old devices need are taken.
    pub(super) legacy: bool,
    /// russh's session, once it runs.
    pub(super) handle: OnceLock<Handle>,
    login: OnceLock<Login>,
    /// While the session runs.
    permit: Mutex<Option<SessionPermit>>,
    /// From the login on.
    pace: OnceLock<Pace>,
    /// Replies that wait for their share of the bandwidth.
    paced: AtomicUsize,
    logged_in: CancellationToken,
    files: AtomicUsize,
    folders: AtomicUsize,
}

impl Connection {
    pub(super) fn new(
        peer: SocketAddr,
        cut: CancellationToken,
        fs: Arc<dyn FileSystem>,
        identity: Arc<Identity>,
        drain: Drain,
        legacy: bool,
    ) -> Self {
        Self {
            log: SessionLog::new(super::DOOR, peer),
            fs,
            identity,
            drain,
            link: Arc::new(Link::new(cut)),
            legacy,
            handle: OnceLock::new(),
            login: OnceLock::new(),
            permit: Mutex::default(),
            pace: OnceLock::new(),
            paced: AtomicUsize::new(0),
            logged_in: CancellationToken::new(),
            files: AtomicUsize::new(0),
            folders: AtomicUsize::new(0),
        }
    }

    /// The account with its present role.
    pub(super) fn account(&self) -> Result<Account, LoginEnded> {
        self.login.get().ok_or(LoginEnded)?.account()
    }

    /// What was typed.
    pub(super) fn login_name(&self) -> &str {
        self.login.get().map_or("", |login| login.name())
    }

    /// Somebody logged in.
    ///
    /// # Errors
    /// There is no room for the session; the connection has to end.
    pub(super) fn log_in(&self, place: &mut Admitted, login: Login, client: &str) -> Result<(), NoRoom> {
        self.enter(place, &login).inspect_err(|refused| {
            self.log.turned_away(login.name(), login.method(), &login.credential(), client, refused);
        })?;
        self.log.logged_in(login.name(), login.method(), &login.credential(), client);
        // Only the first login counts; russh takes no second one.
        let _ = self.login.set(login);
        self.link.touch();
        self.logged_in.cancel();
        Ok(())
    }

    /// Counts the session.
    fn enter(&self, place: &mut Admitted, login: &Login) -> Result<(), NoRoom> {
        place
            .log_in(login.tenant())
            .inspect_err(|full| metrics().turned_away(super::DOOR, full.label()))
            .map_err(NoRoom::Connections)?;
        let permit = self.identity.start_session(login).map_err(NoRoom::Sessions)?;
        let _ = self.pace.set(permit.pace().clone());
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        Ok(())
    }

    /// The session counts no more, although tasks of it may hold the connection yet.
    fn leave(&self) {
        drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether so many bytes of recordings may go out now; they are taken then. Otherwise [`Connection::paced`] waits
    /// for them.
    pub(super) fn may_send(&self, bytes: usize) -> bool {
        self.pace.get().is_none_or(|pace| pace.try_take(bytes))
    }

    /// Gets in line for the session's share of the bandwidth; the future waits for it. The session isn't idle meanwhile.
    pub(super) fn paced(self: &Arc<Self>, bytes: usize) -> impl Future<Output = ()> + Send + use<> {
        let waits = Waits::of(self);
        let share = self.pace.get().map(|pace| pace.line_up(bytes));
        async move {
            if let Some(share) = share {
                share.await;
            }
            waits.0.link.touch();
        }
    }

    /// Takes room for one more open file, of what this connection and its tenant may have.
    pub(super) fn open_file(&self, account: &Account) -> Result<OpenFilePermit, Refusal> {
        self.has_room()?;
        self.identity.open_file(account).map_err(|full| Refusal::new(RefusalKind::Busy, full.to_string()))
    }

    /// Takes room for one more open folder.
    pub(super) fn open_folder(self: &Arc<Self>) -> Result<OpenFolder, Refusal> {
        self.has_room()?;
        self.folders.fetch_add(1, Ordering::Relaxed);
        Ok(OpenFolder(Arc::clone(self)))
    }

    fn has_room(&self) -> Result<(), Refusal> {
        if self.files.load(Ordering::Relaxed) + self.folders.load(Ordering::Relaxed) < MAX_OPEN {
            return Ok(());
        }
        let message = format!("{MAX_OPEN} files and folders are open over this connection, close some");
        Err(Refusal::new(RefusalKind::Busy, message))
    }

    pub(super) fn file_opened(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn file_closed(&self) {
        self.files.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells the client why, gives it a moment to go.
    pub(super) async fn disconnect(&self, reason: Disconnect, why: &str) {
        if let Some(handle) = self.handle.get() {
            let told = handle.disconnect(reason, why.to_owned(), "en".to_owned());
            // A full queue or a client that doesn't read must not keep the session.
            let _ = tokio::time::timeout(FAREWELL, told).await;
        }
        self.link.dismissed.cancel();
    }
}

/// An open folder; counted until it is dropped.
pub(super) struct OpenFolder(Arc<Connection>);

impl Drop for OpenFolder {
    fn drop(&mut self) {
        self.0.folders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why somebody who logged in can't stay.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    /// A cap on connections.
    #[error("this tenant has too many connections at this time")]
    Connections(#[source] Full),
    /// The configured limit on the tenant's or the user's sessions.
    #[error(transparent)]
    Sessions(TooManySessions),
}

/// One that waits; counted until it is dropped.
struct Waits(Arc<Connection>);

impl Waits {
    fn of(connection: &Arc<Connection>) -> Self {
        connection.paced.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.paced.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The times of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) login_grace: Duration,
    pub(super) idle: Duration,
}

impl From<&config::Limits> for Times {
    fn from(limits: &config::Limits) -> Self {
        Self { login_grace: limits.login_grace, idle: limits.idle_timeout }
    }
}

/// Runs a connection to its end.
pub(super) async fn run(
    connection: Arc<Connection>,
    transport: Arc<Transport>,
    socket: TcpStream,
    times: Times,
    place: Admitted,
) {
    let reason = watch(&connection, &transport, socket, times, place).await;
    connection.link.cut.cancel();
    connection.leave();
    connection.log.closed(&reason);
}

async fn watch(
    connection: &Arc<Connection>,
    transport: &Transport,
    mut socket: TcpStream,
    times: Times,
    place: Admitted,
) -> String {
    let mut deadline = pin!(tokio::time::sleep(times.login_grace));
    let greeting = tokio::select! {
        greeting = greet(&mut socket) => greeting,
        () = &mut deadline => return "no login in time".to_owned(),
        () = connection.drain.begun() => return "shutdown".to_owned(),
        () = connection.link.cut.cancelled() => return closed_for(Full::PushedOut),
    };
    let Greeting { identification, read } = match greeting {
        Ok(greeting) => greeting,
        Err(error) => return error.to_string(),
    };
    let address = connection.log.peer().ip();
    let offer = Offer::to(&identification, transport.legacy, transport.lenience.has(address));
    let ending =
        |ended: Result<(), russh::Error>| ending(ended, connection, transport, offer, &identification);
    let wire = Wire::new(socket, Arc::clone(&connection.link), read, IDENTIFICATION.len() + 2);
    let wire = BufReader::with_capacity(SOCKET_BUFFER, wire);
    let config = transport.russh.of(offer);
    let start = russh::server::run_stream(config, wire, SshHandler::new(Arc::clone(connection), place));
    let started = tokio::select! {
        started = start => started,
        () = &mut deadline => return "no login in time".to_owned(),
        () = connection.drain.begun() => return "shutdown".to_owned(),
        () = connection.link.cut.cancelled() => return closed_for(Full::PushedOut),
    };
    let mut session = match started {
        Ok(session) => pin!(session),
        Err(error) => return error.to_string(),
    };
    // Nobody else sets it.
    let _ = connection.handle.set(session.handle());

    tokio::select! {
        ended = &mut session => return ending(ended),
        () = connection.logged_in.cancelled() => {}
        () = &mut deadline => {
            connection.disconnect(Disconnect::ByApplication, "no login in time").await;
            // As below.
            let _ = tokio::time::timeout(FAREWELL, session).await;
            return "no login in time".to_owned();
        }
        () = connection.link.dismissed.cancelled() => return farewell(session, ending).await,
        () = connection.drain.begun() => return "shutdown".to_owned(),
        () = connection.link.cut.cancelled() => return closed_for(Full::PushedOut),
    }

    let Some(login) = connection.login.get() else { return "no login".to_owned() };
    let why = tokio::select! {
        ended = &mut session => return ending(ended),
        () = login.ended() => "this login has been removed",
        () = idle(connection, times.idle) => "idle for too long",
        () = drained(connection) => "the gateway is shutting down",
        () = connection.link.dismissed.cancelled() => return farewell(session, ending).await,
        () = connection.link.cut.cancelled() => return "cut".to_owned(),
    };
    connection.disconnect(Disconnect::ByApplication, why).await;
    // russh waits for the client to close; `cut` then takes what is left.
    let _ = tokio::time::timeout(FAREWELL, session).await;
    why.to_owned()
}

/// How a session ends whose client was told to go.
async fn farewell(
    session: impl Future<Output = Result<(), russh::Error>>,
    ending: impl FnOnce(Result<(), russh::Error>) -> String,
) -> String {
    match tokio::time::timeout(FAREWELL, session).await {
        Ok(ended) => ending(ended),
        Err(_) => "told to go".to_owned(),
    }
}

/// A cap cost the connection its life.
fn closed_for(full: Full) -> String {
    metrics().turned_away(super::DOOR, full.label());
    full.to_string()
}

/// Why a session ended. Where the client was offered nothing that it knows, says what would help.
fn ending(
    ended: Result<(), russh::Error>,
    connection: &Connection,
    transport: &Transport,
    offer: Offer,
    client: &str,
) -> String {
    let error = match ended {
        Ok(()) => return "closed by the client".to_owned(),
        Err(error) => error,
    };
    if let russh::Error::NoCommonAlgo { kind, theirs, .. } = &error {
        let peer = connection.log.peer();
        let helped = algorithms::legacy_would_help(kind, theirs);
        let theirs: String = theirs.join(",").chars().filter(char::is_ascii_graphic).take(500).collect();
        if offer == Offer::PostQuantum {
            transport.lenience.remember(peer.ip());
            tracing::info!(%peer, client, ?kind, theirs,
                "the client was set up not to use what it was offered; its next connection is offered more");
        } else if offer == Offer::Sound && helped {
            tracing::warn!(%peer, client, ?kind, theirs,
                "an old client was turned away; legacy_algorithms = true in [ssh] would let it in");
        } else {
            tracing::info!(%peer, client, ?kind, theirs, "client and gateway have no algorithm in common");
        }
    }
    error.to_string()
}

/// Returns when nothing was asked, and nothing that was asked moved, for `limit`.
async fn idle(connection: &Connection, limit: Duration) {
    loop {
        let due = connection.link.last_active() + limit;
        if Instant::now() >= due {
            if connection.paced.load(Ordering::Relaxed) == 0 {
                return;
            }
            // It is kept waiting, it doesn't idle.
            connection.link.touch();
            continue;
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Returns when the gateway stops and this connection has no transfer running, or the grace time is over.
async fn drained(connection: &Connection) {
    connection.drain.begun().await;
    let transfers = async {
        loop {
            let busy =
                connection.files.load(Ordering::Relaxed) > 0 || connection.link.budget.in_hand() != (0, 0);
            // A client that doesn't take what it asked for keeps nobody waiting.
            if !busy || connection.link.last_active().elapsed() >= RECENTLY {
                return;
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
    };
    tokio::select! {
        () = transfers => {}
        () = connection.drain.cut() => {}
    }
}

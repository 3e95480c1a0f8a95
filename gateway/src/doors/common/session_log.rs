//! What a session writes to the log: a line when it logs in and when it closes, one a transfer, one a refusal. The
//! metrics of sessions are counted at the same places.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    identity::{LoginRefused, admission::Full},
    telemetry::{OpenConnection, OpenSession, metrics},
    vfs::{Refusal, RefusalKind, VPath},
};

/// How the metrics call a login for which there was no room.
/// Refusals of a session that are logged at `info`; those after them at `debug`. Their number is told when it closes.
const REFUSALS_TOLD: u64 = 1000;
const TOO_MANY_SESSIONS: &str = "too_many_sessions";

/// A session's identity in the log, and its totals.
#[derive(Debug)]
pub struct SessionLog {
    door: &'static str,
    number: u64,
    peer: SocketAddr,
    opened: Instant,
    login: OnceLock<Arc<str>>,
    files: AtomicU64,
    bytes: AtomicU64,
    refusals: AtomicU64,
    /// Once somebody has logged in.
    session: OnceLock<OpenSession>,
    _connection: OpenConnection,
}

/// A file that was read, or a part of it.
#[derive(Debug, Clone)]
pub struct Transfer<'a> {
    /// What was read.
    pub path: &'a VPath,
    /// The lowest offset that was read.
    pub from: u64,
    /// Bytes that were sent.
    pub bytes: u64,
    /// Whether the whole file was sent (from `from` on).
    pub complete: bool,
    /// From open to close.
    pub duration: Duration,
}

impl SessionLog {
    /// A connection from `peer` through `door`. Nothing is logged before the login: a port scan makes no noise.
    pub fn new(door: &'static str, peer: SocketAddr) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self {
            door,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            peer,
            opened: Instant::now(),
            login: OnceLock::new(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            session: OnceLock::new(),
            _connection: metrics().connection(door),
        }
    }

    /// Distinguishes the sessions of one run of the gateway.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the client is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Somebody logged in by a method (as the metrics call it), `with` a password or a certain key.
    pub fn logged_in(&self, login: &Arc<str>, method: &'static str, with: &str, client: &str) {
        metrics().login(self.door, method, "ok");
        // A session has one login; a second call can't be.
        let _ = self.login.set(Arc::clone(login));
        // Who has logged in is in the configuration, and so is the tenant.
        let tenant = login.split('/').next().unwrap_or_default();
        let _ = self.session.set(metrics().session(self.door, tenant));
        tracing::info!(door = self.door, session = self.number, peer = %self.peer, %login, with, client, "session opened");
    }

    /// Somebody showed by a method who they are, and there was no room for one more session.
    pub fn turned_away(
        &self,
        login: &str,
        method: &'static str,
        with: &str,
        client: &str,
        refused: &dyn std::fmt::Display,
    ) {
        metrics().login(self.door, method, TOO_MANY_SESSIONS);
        let reason = refused.to_string();
        tracing::warn!(
            door = self.door, session = self.number, peer = %self.peer, %login, with, client, reason, "session refused"
        );
    }

    /// A login by a method failed. `login` is what was typed.
    pub fn login_failed(&self, login: &str, method: &'static str, refused: &LoginRefused) {
        metrics().login(self.door, method, refused.label());
        let reason = refused.to_string();
        let login: String = login.chars().take(80).collect();
        tracing::warn!(door = self.door, session = self.number, peer = %self.peer, ?login, reason, "login failed");
    }

    /// Content of a file goes to the client.
    pub fn sent(&self, bytes: u64) {
        if let Some(session) = self.session.get() {
            session.sent(bytes);
        }
    }

    /// A file was read and closed.
    pub fn transferred(&self, transfer: &Transfer<'_>) {
        self.bytes.fetch_add(transfer.bytes, Ordering::Relaxed);
        if transfer.bytes == 0 && !transfer.complete {
            return;
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        if let Some(session) = self.session.get() {
            session.transferred(transfer.complete);
        }
        tracing::info!(
            door = self.door, session = self.number, login = self.login(), path = %transfer.path,
            from = transfer.from, bytes = transfer.bytes, complete = transfer.complete,
            seconds = transfer.duration.as_secs_f64(), "transfer"
        );
    }

    /// Something was refused. A path that isn't there is no news: it is logged at `debug`.
    pub fn refused(&self, operation: &str, path: &dyn std::fmt::Display, refusal: &Refusal) {
        let before = self.refusals.fetch_add(1, Ordering::Relaxed);
        metrics().refused(self.door, kind_label(refusal.kind));
        let (session, login, path, kind) = (self.number, self.login(), path.to_string(), refusal.kind);
        let (reason, detail) = (&*refusal.client, &refusal.detail);
        match kind {
            // A client that goes on and on doesn't fill the log.
            kind if kind == RefusalKind::NotFound
                || (kind != RefusalKind::Internal && before >= REFUSALS_TOLD) =>
            {
                tracing::debug!(
                    door = self.door,
                    session,
                    login,
                    operation,
                    path,
                    ?kind,
                    reason,
                    detail,
                    "refused"
                );
            }
            RefusalKind::Internal => {
                tracing::error!(
                    door = self.door,
                    session,
                    login,
                    operation,
                    path,
                    ?kind,
                    reason,
                    detail,
                    "refused"
                );
            }
            _ => tracing::info!(
                door = self.door,
                session,
                login,
                operation,
                path,
                ?kind,
                reason,
                detail,
                "refused"
            ),
        }
    }

    /// The session is over.
    pub fn closed(&self, reason: &str) {
        let (session, peer, login) = (self.number, self.peer, self.login());
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let (refusals, seconds) =
            (self.refusals.load(Ordering::Relaxed), self.opened.elapsed().as_secs_f64());
        if self.login.get().is_some() {
            tracing::info!(
                door = self.door, session, %peer, login, files, bytes, refusals, seconds, reason, "session closed"
            );
        } else {
            tracing::debug!(door = self.door, session, %peer, seconds, reason, "connection closed without a login");
        }
    }

    fn login(&self) -> &str {
        self.login.get().map_or("", |login| login)
    }
}

/// Makes a door's series in the metrics, so that the first of each counts.
pub fn announce_door(door: &'static str, methods: &[&'static str]) {
    const KINDS: [RefusalKind; 11] = [
        RefusalKind::NotFound,
        RefusalKind::NotAFolder,
        RefusalKind::IsAFolder,
        RefusalKind::ReadOnly,
        RefusalKind::Forbidden,
        RefusalKind::Locked,
        RefusalKind::Unavailable,
        RefusalKind::Archived,
        RefusalKind::Corrupt,
        RefusalKind::Busy,
        RefusalKind::Internal,
    ];
    let mut results = vec!["ok"];
    results.push(TOO_MANY_SESSIONS);
    results.extend(LoginRefused::LABELS);
    // By the throttle and by a header that can't be read, then by the caps.
    let mut turned_away = vec!["failed_logins", "pace", "proxy_header"];
    turned_away.extend(
        [Full::Connections, Full::Unauthenticated, Full::Address, Full::Tenant, Full::PushedOut]
            .map(Full::label),
    );
    metrics().open_door(door, methods, &results, &KINDS.map(kind_label), &turned_away);
}

fn kind_label(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::NotFound => "not_found",
        RefusalKind::NotAFolder => "not_a_folder",
        RefusalKind::IsAFolder => "is_a_folder",
        RefusalKind::ReadOnly => "read_only",
        RefusalKind::Forbidden => "forbidden",
        RefusalKind::Locked => "locked",
        RefusalKind::Unavailable => "unavailable",
        RefusalKind::Archived => "archived",
        RefusalKind::Corrupt => "corrupt",
        RefusalKind::Busy => "busy",
        RefusalKind::Internal => "internal",
    }
}

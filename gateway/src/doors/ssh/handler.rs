//! russh's callbacks: logging in, and what a channel may ask for. None of them waits but for a password's check.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::SystemTime};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty,
    keys::{Algorithm, Certificate},
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};

use super::{
    MAX_LOGIN_FAILURES, MAX_REJECTIONS, WINDOW,
    connection::Connection,
    login_methods,
    sftp::{Sftp, lossy},
};
use crate::identity::{Login, LoginRefused, Method, Proofs, Step, entrance::Admitted};

/// Channels that a connection may have at once, as many as OpenSSH allows.
const CHANNELS: usize = 10;
/// Channels that a connection may open in its life; russh keeps a little of each that we close first.
const CHANNELS_EVER: usize = 10_000;
/// The least that a client has to take in one packet and to begin with; RFC 4253 (6.1) has everybody take 32 KiB.
const SMALLEST_PACKET: usize = 4096;
/// SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1).
const PROHIBITED: u32 = 1;
/// Bytes of waiting requests above which a client's window grants trickle.
const HOLD_BACK: usize = 128 * 1024;
/// Bytes of waiting requests with which a connection is closed: the client sends on and on without reading.
const TOO_MANY: usize = 4 * 1024 * 1024;
/// The least that russh's window arithmetic goes on with: it grants when less than half is left.
const TRICKLE: u32 = 2;
/// As a shell says that it has no such command.
const NO_SUCH_COMMAND: u32 = 127;
/// How a password is called in the log and the metrics, whichever way it came.
const PASSWORD: &str = "password";
const SFTP_ONLY: &str = "This service offers SFTP only.";

/// One connection's callbacks.
pub(super) struct SshHandler {
    connection: Arc<Connection>,
    /// Kept for as long as russh's task keeps the socket.
    place: Admitted,
    /// What the client has shown so far.
    proofs: Proofs,
    login: Option<Login>,
    failures: usize,
    /// Keys that were offered.
    offers: usize,
    told_of_sha1: bool,
    /// How the client shows passwords, once it has.
    password_by: Option<MethodKind>,
    /// `None` until the subsystem is asked for.
    channels: HashMap<ChannelId, Option<Arc<Sftp>>>,
    opened: usize,
}

impl SshHandler {
    pub(super) fn new(connection: Arc<Connection>, place: Admitted) -> Self {
        Self {
            connection,
            place,
            proofs: Proofs::default(),
            login: None,
            failures: 0,
            offers: 0,
            told_of_sha1: false,
            password_by: None,
            channels: HashMap::new(),
            opened: 0,
        }
    }

    /// What russh is told after something was shown.
    async fn answer(&mut self, login: &str, method: &'static str, step: Result<Step, LoginRefused>) -> Auth {
        match step {
            Ok(Step::LoggedIn(login)) => {
                self.login = Some(login);
                Auth::Accept
            }
            Ok(Step::Next(method)) => {
                Auth::Reject { proceed_with_methods: Some(methods_of(method)), partial_success: true }
            }
            Err(refused) => self.rejected(login, method, &refused).await,
        }
    }

    /// Every failure looks the same to the client.
    async fn rejected(&mut self, login: &str, method: &'static str, refused: &LoginRefused) -> Auth {
        self.connection.log.login_failed(login, method, refused);
        // Clients show all keys and certificates that they have, and nobody guesses one; russh counts them.
        if method != PASSWORD {
            return self.reject();
        }
        self.failures += 1;
        // The probe that clients begin with (`none`) and keys that are only offered don't come here.
        let delay = self.connection.identity.login_failed(self.connection.log.peer().ip(), login, refused);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // russh's task owns the socket, and ends no sooner than this.
            () = self.connection.link.cut.cancelled() => {}
        }
        if self.failures >= MAX_LOGIN_FAILURES {
            self.connection
                .disconnect(Disconnect::NoMoreAuthMethodsAvailable, "Too many authentication failures")
                .await;
        }
        self.reject()
    }

    /// A refusal after which the client may try each method again; russh by itself takes a method away that has failed.
    fn reject(&self) -> Auth {
        let mut methods = login_methods();
        // A password that was wrong in one way of asking isn't to be tried in the other, and counted twice.
        match self.password_by {
            Some(MethodKind::Password) => methods.remove(MethodKind::KeyboardInteractive),
            Some(MethodKind::KeyboardInteractive) => methods.remove(MethodKind::Password),
            _ => {}
        }
        Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
    }

    async fn password(&mut self, by: MethodKind, user: &str, password: &str) -> Auth {
        self.password_by = Some(by);
        let from = self.connection.log.peer().ip();
        let identity = Arc::clone(&self.connection.identity);
        let step = identity.check_password(&mut self.proofs, from, user, password).await;
        self.answer(user, PASSWORD, step).await
    }

    /// Tells the client to go.
    fn dismiss(&self, session: &mut Session, reason: Disconnect, why: &str) -> Result<(), russh::Error> {
        session.disconnect(reason, why, "en")?;
        self.connection.link.dismissed.cancel();
        Ok(())
    }

    /// Whether some channel's requests wait in such numbers that the client has to slow down.
    fn hold_back(&self) -> bool {
        let holds = self.backlog() > HOLD_BACK;
        self.connection.link.held_back.store(holds, std::sync::atomic::Ordering::Relaxed);
        holds
    }

    /// Bytes of requests that wait on all channels.
    fn backlog(&self) -> usize {
        self.sftps().map(|sftp| sftp.backlog()).sum()
    }

    fn sftps(&self) -> impl Iterator<Item = &Arc<Sftp>> {
        self.channels.values().flatten()
    }

    /// One line on standard error, and the exit status of a command that isn't there.
    fn refuse_command(
        &self,
        channel: ChannelId,
        what: &str,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refused(what, command);
        session.channel_success(channel)?;
        session.extended_data(channel, 1, format!("{SFTP_ONLY}\r\n").into_bytes())?;
        session.exit_status_request(channel, NO_SUCH_COMMAND)?;
        session.eof(channel)?;
        session.close(channel)
    }

    fn refused(&self, what: &str, asked: &[u8]) {
        let refusal = crate::vfs::Refusal::new(crate::vfs::RefusalKind::Forbidden, SFTP_ONLY);
        self.connection.log.refused(what, &lossy(asked), &refusal);
    }
}

impl Drop for SshHandler {
    fn drop(&mut self) {
        for sftp in self.sftps() {
            sftp.end();
        }
    }
}

impl Handler for SshHandler {
    type Error = russh::Error;

    /// What clients begin with, to learn what there is.
    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.proofs.begin(user);
        Ok(self.reject())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(self.password(MethodKind::Password, user, password).await)
    }

    /// Asks for the password in the way of clients that know no other (RFC 4256): one question, one answer.
    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut answers) = response else {
            self.proofs.begin(user);
            return Ok(Auth::Partial {
                name: Cow::Borrowed(""),
                instructions: Cow::Borrowed(""),
                prompts: Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)]),
            });
        };
        let answer = answers.next().unwrap_or_default();
        // What isn't UTF-8 is no password; its check costs as much as any.
        let password = String::from_utf8(answer.to_vec()).unwrap_or_default();
        Ok(self.password(MethodKind::KeyboardInteractive, user, &password).await)
    }

    /// A key that is only offered changes nothing and counts for nothing.
    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.proofs.begin(user);
        self.offers += 1;
        if self.offers > MAX_REJECTIONS {
            // russh counts those that were worth a signature not at all.
            self.connection
                .disconnect(Disconnect::NoMoreAuthMethodsAvailable, "Too many authentication failures")
                .await;
            return Ok(self.reject());
        }
        // `ssh-rsa` is RSA with SHA-1.
        let sha1 = *offer.algorithm == Algorithm::Rsa { hash: None };
        let wanted = self.connection.identity.wants_key(user, offer.public_key);
        if sha1
            && !self.connection.legacy
            && self.connection.identity.has_key(user, offer.public_key)
            && !std::mem::replace(&mut self.told_of_sha1, true)
        {
            tracing::warn!(peer = %self.connection.log.peer(),
                "a key was offered with SHA-1 (ssh-rsa) only; legacy_algorithms = true in [ssh] would take it");
        }
        Ok(if wanted && (!sha1 || self.connection.legacy) { Auth::Accept } else { self.reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let from = self.connection.log.peer().ip();
        let step = self.connection.identity.check_key(&mut self.proofs, from, user, key.public_key);
        Ok(self.answer(user, "key", step).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let from = self.connection.log.peer().ip();
        let (identity, now) = (&self.connection.identity, SystemTime::now());
        let step = identity.check_certificate(&mut self.proofs, from, user, certificate, now);
        Ok(self.answer(user, "certificate", step).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let login = self.login.take().ok_or(russh::Error::NotAuthenticated)?;
        let client: String = String::from_utf8_lossy(session.remote_sshid()).chars().take(100).collect();
        if let Err(refused) = self.connection.log_in(&mut self.place, login, &client) {
            self.dismiss(session, Disconnect::TooManyConnections, &refused.to_string())?;
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // A channel that we closed has no callback of its own.
        self.channels.retain(|_, sftp| !sftp.as_ref().is_some_and(|sftp| sftp.has_ended()));
        self.opened += 1;
        if self.opened > CHANNELS_EVER {
            // Whoever keeps a connection for all that they do connects anew for the next.
            tracing::info!(
                session = self.connection.log.number(),
                channels = self.opened,
                "a connection is worn out"
            );
            self.dismiss(session, Disconnect::ByApplication, "too many channels, connect again")?;
            return Ok(());
        }
        // russh makes a packet for each so many bytes. A window that begins smaller hides how small they are.
        if channel.writable_packet_size().await < SMALLEST_PACKET {
            let reason = format!("a window and packets of {SMALLEST_PACKET} bytes are the least here");
            reply.reject(ChannelOpenFailure::Other { code: PROHIBITED, reason }).await;
            return Ok(());
        }
        if self.channels.len() >= CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // The channel itself is dropped: its queue would fill, since all is done in these callbacks.
        self.channels.insert(channel.id(), None);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refused("x11", b"");
        reply.reject(prohibited()).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refused("forwarding", b"");
        reply.reject(prohibited()).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refused("forwarding", b"");
        reply.reject(prohibited()).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refused("forwarding", b"");
        reply.reject(prohibited()).await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&channel) {
            Some(place @ None) if name == "sftp" => {
                *place = Some(Sftp::start(Arc::clone(&self.connection), session.handle(), channel));
                session.channel_success(channel)
            }
            _ => {
                self.refused("subsystem", name.as_bytes());
                session.channel_failure(channel)
            }
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.refuse_command_on(channel, "shell", b"", session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse_command_on(channel, "exec", data, session)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    /// Variables are ignored; clients send their language without being asked.
    async fn env_request(
        &mut self,
        channel: ChannelId,
        _variable_name: &str,
        _variable_value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn agent_request(
        &mut self,
        _channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(false)
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.refused("forwarding", b"");
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        _socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.refused("forwarding", b"");
        Ok(false)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(Some(sftp)) = self.channels.get(&channel) else { return Ok(()) };
        sftp.data(data, session)?;
        if self.backlog() > TOO_MANY {
            let why = "too many requests without reading the replies";
            self.dismiss(session, Disconnect::ByApplication, why)?;
        }
        self.hold_back();
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        // russh has granted already; what is returned here is the size of the next grant.
        if self.hold_back() { TRICKLE } else { WINDOW }
    }

    async fn window_adjusted(
        &mut self,
        _channel: ChannelId,
        _new_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // The client has taken something.
        self.connection.link.touch();
        self.hold_back();
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.get(&channel) {
            Some(Some(sftp)) => sftp.eof(),
            Some(None) => {
                self.channels.remove(&channel);
                session.close(channel)?;
            }
            None => {}
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(Some(sftp)) = self.channels.remove(&channel) {
            sftp.end();
        }
        Ok(())
    }
}

impl SshHandler {
    /// A shell or a command on a channel that runs nothing yet.
    fn refuse_command_on(
        &mut self,
        channel: ChannelId,
        what: &str,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.channels.get(&channel) {
            Some(None) => {
                self.channels.remove(&channel);
                self.refuse_command(channel, what, command, session)
            }
            _ => session.channel_failure(channel),
        }
    }
}

/// How the SSH protocol calls what is still to be shown.
fn methods_of(method: Method) -> MethodSet {
    MethodSet::from(match method {
        Method::PublicKey => &[MethodKind::PublicKey][..],
        Method::Password => &[MethodKind::Password, MethodKind::KeyboardInteractive][..],
    })
}

fn prohibited() -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: PROHIBITED, reason: SFTP_ONLY.to_owned() }
}

//! The SSH door: SFTP version 3 over russh.
//!
//! russh does the transport; the loop that accepts, the socket below it (`wire`), the flow of requests and replies
//! (`sftp`) and their bounds (`budget`) are here, since russh's own channel queues neither bound memory nor let requests
//! be answered in any order. Memory of a connection: at most 4 MiB of replies on their way, whether being read, queued
//! or in russh's output; two windows of requests of 256 KiB, and a read buffer of 16 KiB.
//!
//! russh stops taking queued replies while one channel of a connection waits for its client's window. So channels of
//! one connection can slow each other down; connections can't.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use ipnet::IpNet;
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use self::{
    algorithms::{Lenience, Offer},
    connection::{Connection, Times},
    greeting::IDENTIFICATION,
};
use super::common::{Accepting, Drain, Headers, Listening, announce_door};
use crate::{
    config,
    identity::{
        Identity,
        admission::Arrival,
        entrance::{Entrance, TurnedAway},
    },
    telemetry::metrics,
    vfs::FileSystem,
};

mod algorithms;
mod budget;
mod connection;
mod greeting;
mod handler;
mod host_keys;
mod sftp;
mod wire;

pub use host_keys::HostKeyError;
#[cfg(fuzzing)]
pub(crate) use {greeting::fuzz as fuzz_greeting, sftp::fuzz::packets as fuzz_packets};

/// The door's name in log and metrics.
const DOOR: &str = "sftp";
/// Bytes of requests that a client may send ahead. Uploads are refused, so requests are all that comes.
const WINDOW: u32 = 256 * 1024;
/// Failed logins with which a connection ends.
const MAX_LOGIN_FAILURES: usize = 6;
/// Rejections, keys that were only offered among them, with which a connection ends.
const MAX_REJECTIONS: usize = 100;
const BACKLOG: u32 = 1024;

/// A door that listens.
pub struct SshDoor {
    /// Where it listens, with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// The ed25519 host key's fingerprint, `SHA256:…` (another's where there is no such key).
    pub host_key_sha256: String,
    /// The fingerprints of all host keys.
    pub host_keys: Vec<String>,
    listening: Vec<Listening>,
    door: Arc<Door>,
}

impl SshDoor {
    /// Why connections aren't taken, a line for each listener that takes none.
    pub fn troubles(&self) -> Vec<String> {
        self.listening.iter().filter_map(Listening::trouble).collect()
    }

    /// Takes the times of a reloaded configuration, for connections that come from now on.
    pub fn configure(&self, limits: &config::Limits) {
        *self.door.times.lock().unwrap_or_else(PoisonError::into_inner) = limits.into();
    }

    /// Takes other load balancers, for connections that come from now on.
    pub fn trust_proxies(&self, networks: &[IpNet]) {
        *self.door.proxies.write().unwrap_or_else(PoisonError::into_inner) = networks.into();
    }
}

/// Why the door can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SshDoorError {
    /// A host key.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// An address.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// A defect.
    #[error("the host keys could not be loaded: {0}")]
    Internal(String),
}

/// Opens the door: loads or makes the host keys (in `<data_dir>/ssh`), listens, and accepts until `drain` begins.
/// Sessions run in `drain`.
///
/// # Errors
/// [`SshDoorError`]; then nothing listens.
pub async fn serve(
    config: &config::Ssh,
    limits: &config::Limits,
    data_dir: &Path,
    fs: Arc<dyn FileSystem>,
    identity: Arc<Identity>,
    drain: Drain,
) -> Result<SshDoor, SshDoorError> {
    let (configured, folder) = (config.host_keys.clone(), data_dir.join("ssh"));
    let keys = tokio::task::spawn_blocking(move || host_keys::load_or_create(&configured, &folder))
        .await
        .map_err(|error| SshDoorError::Internal(error.to_string()))??;
    let (host_key_sha256, host_keys) = (host_keys::fingerprint(&keys), host_keys::fingerprints(&keys));

    announce_door(DOOR, &["password", "key", "certificate", "several"]);
    let listeners = config.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|(_, address)| *address).collect();
    let mut listening = Vec::new();
    let door = Arc::new(Door {
        transport: Arc::new(Transport {
            russh: RusshConfigs::new(config, &keys),
            legacy: config.legacy_algorithms,
            lenience: Lenience::default(),
        }),
        times: Mutex::new(limits.into()),
        fs,
        identity,
        drain: drain.clone(),
        proxies: RwLock::new(config.proxy_protocol_from.as_slice().into()),
        headers: Headers::default(),
    });
    for (listener, address) in listeners {
        let (seen, accepting) = Listening::new(DOOR, address);
        listening.push(seen);
        drain.spawn(Arc::clone(&door).accept(listener, accepting));
    }
    Ok(SshDoor { addresses, host_key_sha256, host_keys, listening, door })
}

struct Door {
    transport: Arc<Transport>,
    times: Mutex<Times>,
    fs: Arc<dyn FileSystem>,
    identity: Arc<Identity>,
    drain: Drain,
    /// Who tells where clients are.
    proxies: RwLock<Arc<[IpNet]>>,
    headers: Headers,
}

/// What SSH's transport layer is given.
struct Transport {
    russh: RusshConfigs,
    legacy: bool,
    lenience: Lenience,
}

impl Door {
    async fn accept(self: Arc<Self>, listener: TcpListener, mut accepting: Accepting) {
        loop {
            let (arrival, socket, peer) = tokio::select! {
                () = self.drain.begun() => return,
                accepted = accepting.next(|| accept(self.identity.entrance(), &listener)) => accepted,
            };
            self.drain.spawn(Arc::clone(&self).receive(arrival, socket, peer));
        }
    }

    /// A connection from its socket to its end. Until it is admitted it costs a socket and this task.
    async fn receive(self: Arc<Self>, arrival: Arrival, mut socket: TcpStream, peer: SocketAddr) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY can't be set");
        }
        let Some(peer) = self.client(&mut socket, peer).await else { return };
        let cut = CancellationToken::new();
        let admitted = tokio::select! {
            () = self.drain.begun() => return,
            admitted = self.identity.entrance().admit(arrival, peer.ip(), &cut) => admitted,
        };
        let place = match admitted {
            Ok(place) => place,
            Err(turned_away) => return turn_away(socket, turned_away),
        };
        let connection = Connection::new(
            peer,
            cut,
            Arc::clone(&self.fs),
            Arc::clone(&self.identity),
            self.drain.clone(),
            self.transport.legacy,
        );
        let times = *self.times.lock().unwrap_or_else(PoisonError::into_inner);
        // In a box of its own, so that who is turned away doesn't pay for it.
        Box::pin(connection::run(Arc::new(connection), Arc::clone(&self.transport), socket, times, place))
            .await;
    }

    /// Where the client is, behind a load balancer too. `None` where the connection has to end.
    async fn client(&self, socket: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        let proxies = Arc::clone(&self.proxies.read().unwrap_or_else(PoisonError::into_inner));
        let client = tokio::select! {
            client = self.headers.real_peer(socket, peer, &proxies) => client,
            () = self.drain.begun() => return None,
        };
        match client {
            Ok(client) => Some(client),
            Err(error) if error.is_health_check() => {
                tracing::debug!(%peer, "a load balancer connected and closed");
                None
            }
            Err(error) => {
                metrics().turned_away(DOOR, "proxy_header");
                self.identity.entrance().no_header(peer.ip(), &error);
                None
            }
        }
    }
}

/// Takes a socket when there may be one more.
async fn accept(entrance: &Entrance, listener: &TcpListener) -> io::Result<(Arrival, TcpStream, SocketAddr)> {
    let arrival = entrance.admission().arrive().await;
    let (socket, peer) = listener.accept().await?;
    // A socket for both versions of IP tells IPv4 addresses mapped; they are shown and compared as what they are.
    Ok((arrival, socket, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
}

/// Closes a connection, with a line that says why: a server may send lines before its identification (RFC 4253, 4.2),
/// and clients show them when asked for details. It costs one packet, and no wait: what can't be said is left.
fn turn_away(socket: TcpStream, why: TurnedAway) {
    metrics().turned_away(DOOR, why.label());
    let Ok(mut socket) = socket.into_std() else { return };
    let _ = socket.write(format!("{}\r\n", why.to_client()).as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
    // Bytes that nobody has read would turn the end into a reset, which takes the line along.
    let _ = socket.read(&mut [0; 512]);
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SshDoorError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let real = listener.local_addr()?;
        Ok((listener, real))
    };
    listen().map_err(|error| SshDoorError::Listen { address, error })
}

/// russh's settings for what a client may be offered.
struct RusshConfigs {
    post_quantum: Arc<russh::server::Config>,
    sound: Arc<russh::server::Config>,
    legacy: Arc<russh::server::Config>,
}

impl RusshConfigs {
    fn new(config: &config::Ssh, keys: &[russh::keys::PrivateKey]) -> Self {
        let of = |offer| Arc::new(russh_config(config, keys.to_vec(), offer));
        Self { post_quantum: of(Offer::PostQuantum), sound: of(Offer::Sound), legacy: of(Offer::Legacy) }
    }

    fn of(&self, offer: Offer) -> Arc<russh::server::Config> {
        Arc::clone(match offer {
            Offer::PostQuantum => &self.post_quantum,
            Offer::Sound => &self.sound,
            Offer::Legacy => &self.legacy,
        })
    }
}

fn russh_config(
    config: &config::Ssh,
    keys: Vec<russh::keys::PrivateKey>,
    offer: Offer,
) -> russh::server::Config {
    let rekey_bytes = usize::try_from(config.rekey_bytes).unwrap_or(usize::MAX);
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: login_methods(),
        // The handler has a delay of its own, from the second failure on.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: MAX_REJECTIONS,
        keys,
        window_size: WINDOW,
        limits: russh::Limits {
            rekey_write_limit: rekey_bytes,
            rekey_read_limit: rekey_bytes,
            rekey_time_limit: config.rekey_interval,
        },
        preferred: offer.preferred(),
        // The connection's watch knows what is idle; russh would also cut a slow reader.
        inactivity_timeout: None,
        // A client that doesn't answer is left to the idle timeout.
        keepalive_interval: Some(config.keep_alive),
        keepalive_max: 0,
        nodelay: true,
        // russh takes all that is queued before it flushes, and its output buffer never shrinks.
        event_buffer_size: 1,
        ..russh::server::Config::default()
    }
}

fn login_methods() -> MethodSet {
    MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive][..])
}

#[cfg(test)]
mod entrance_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

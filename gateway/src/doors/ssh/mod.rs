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
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ipnet::IpNet;
use russh::{
    MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg},
    mac,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

use self::connection::{Connection, Times, Waiting};
use super::common::{Drain, real_peer};
use crate::{config, identity::Identity, vfs::FileSystem};

mod budget;
mod connection;
mod handler;
mod host_keys;
mod sftp;
mod wire;

pub use host_keys::HostKeyError;

/// Bytes of requests that a client may send ahead. Uploads are refused, so requests are all that comes.
const WINDOW: u32 = 256 * 1024;
/// Failed logins with which a connection ends.
const MAX_LOGIN_FAILURES: usize = 6;
/// Rejections, keys that were only offered among them, with which a connection ends.
const MAX_REJECTIONS: usize = 100;
/// Keeps NAT tables alive. A client that doesn't answer is left to the idle timeout.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// After a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: u32 = 1024;

/// A door that listens.
pub struct SshDoor {
    /// Where it listens, with the real ports.
    pub addresses: Vec<SocketAddr>,
    /// The ed25519 host key's fingerprint, `SHA256:…` (another's where there is no such key).
    pub host_key_sha256: String,
    door: Arc<Door>,
}

impl SshDoor {
    /// Connections now: all of them, and those that have logged in.
    pub fn connections(&self) -> (u64, u64) {
        let all = self.door.limit.saturating_sub(self.door.connections.available_permits());
        (all as u64, all.saturating_sub(self.door.waiting.len()) as u64)
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
    data_dir: &Path,
    fs: Arc<dyn FileSystem>,
    identity: Arc<Identity>,
    drain: Drain,
) -> Result<SshDoor, SshDoorError> {
    let (configured, folder) = (config.host_keys.clone(), data_dir.join("ssh"));
    let keys = tokio::task::spawn_blocking(move || host_keys::load_or_create(&configured, &folder))
        .await
        .map_err(|error| SshDoorError::Internal(error.to_string()))??;
    let host_key_sha256 = host_keys::fingerprint(&keys);

    let listeners = config.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|(_, address)| *address).collect();
    let limit = config.max_connections.min(Semaphore::MAX_PERMITS);
    let door = Arc::new(Door {
        russh: Arc::new(russh_config(keys)),
        connections: Arc::new(Semaphore::new(limit)),
        limit,
        waiting: Waiting::new(config.max_unauthenticated),
        times: Times { login_grace: config.login_grace, idle: config.idle_timeout },
        fs,
        identity,
        drain: drain.clone(),
        proxies: RwLock::new(config.proxy_protocol_from.as_slice().into()),
    });
    for (listener, address) in listeners {
        drain.spawn(Arc::clone(&door).accept(listener, address));
    }
    Ok(SshDoor { addresses, host_key_sha256, door })
}

struct Door {
    russh: Arc<russh::server::Config>,
    connections: Arc<Semaphore>,
    /// Permits of `connections` when nobody is connected.
    limit: usize,
    waiting: Waiting,
    times: Times,
    fs: Arc<dyn FileSystem>,
    identity: Arc<Identity>,
    drain: Drain,
    /// Who tells where clients are.
    proxies: RwLock<Arc<[IpNet]>>,
}

impl Door {
    async fn accept(self: Arc<Self>, listener: TcpListener, address: SocketAddr) {
        // Each trouble is logged when it begins, not for each connection.
        let (mut full, mut failing) = (false, false);
        loop {
            let accepted = tokio::select! {
                () = self.drain.begun() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Without descriptors or memory the next attempt fails as well, and at once.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%address, %error, "connections can't be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failing = false;
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!(%address, %peer, "max_connections is reached, connections are turned away");
                }
                continue;
            };
            full = false;
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%peer, %error, "TCP_NODELAY can't be set");
            }
            let door = Arc::clone(&self);
            self.drain.spawn(async move {
                door.serve(socket, peer).await;
                drop(permit);
            });
        }
    }

    async fn serve(&self, mut socket: TcpStream, peer: SocketAddr) {
        let Some(peer) = self.client(&mut socket, peer).await else { return };
        let connection =
            Connection::new(peer, Arc::clone(&self.fs), Arc::clone(&self.identity), self.drain.clone());
        let place = self.waiting.enter(&connection);
        connection::run(Arc::new(connection), Arc::clone(&self.russh), socket, self.times, place).await;
    }

    /// Where the client is, behind a load balancer too. `None` where the connection has to end.
    async fn client(&self, socket: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        let proxies = Arc::clone(&self.proxies.read().unwrap_or_else(PoisonError::into_inner));
        let client = tokio::select! {
            client = real_peer(socket, peer, &proxies) => client,
            () = self.drain.begun() => return None,
        };
        match client {
            Ok(client) => Some(client),
            Err(error) if error.is_health_check() => {
                tracing::debug!(%peer, "a load balancer connected and closed");
                None
            }
            Err(error) => {
                tracing::warn!(%peer, reason = %error, "a connection from a load balancer is closed");
                None
            }
        }
    }
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

fn russh_config(keys: Vec<russh::keys::PrivateKey>) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-recgate")),
        methods: login_methods(),
        // The handler has a delay of its own, from the second failure on.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: MAX_REJECTIONS,
        keys,
        window_size: WINDOW,
        preferred: preferred(),
        // The connection's watch knows what is idle; russh would also cut a slow reader.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 0,
        nodelay: true,
        // russh takes all that is queued before it flushes, and its output buffer never shrinks.
        event_buffer_size: 1,
        ..russh::server::Config::default()
    }
}

fn login_methods() -> MethodSet {
    MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..])
}

/// Nothing with SHA-1, CBC, or encrypt-and-MAC; no compression, recordings don't shrink.
fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::DH_G16_SHA512,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        // Host keys, and what users' keys may sign with.
        key: Cow::Borrowed(&[
            Algorithm::Ed25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ]),
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

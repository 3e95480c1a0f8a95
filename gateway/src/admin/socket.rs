//! The socket: private from its first moment, and open to two users only.

use std::{
    fs::{self, DirBuilder, Permissions},
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::state::DataDirLock;

/// The socket's name in the data folder.
pub const NAME: &str = "admin.sock";
/// Connections at once. Administrators come one by one; more wait.
const MOST_CONNECTIONS: usize = 32;
/// `sun_path` of Linux without its final NUL (unix(7)).
const LONGEST_PATH: usize = 107;

/// Why the socket can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The kernel takes paths of 107 bytes only.
    #[error(
        "the admin socket's path {} has more than {LONGEST_PATH} bytes; choose a data_dir with a shorter path",
        .0.display()
    )]
    PathTooLong(PathBuf),
    /// Something else answers there.
    #[error("another gateway answers at {}; stop it first", .0.display())]
    Answered(PathBuf),
    /// The operating system refused.
    #[error("the admin socket {} can't be opened: {source}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Opens the socket in place of one that nobody serves any more.
///
/// It is bound in a folder of its own that nobody else may enter, gets its mode there, and is then moved to its
/// place: at no moment could another user connect, and the umask, which belongs to the whole process, is left alone.
pub(super) fn bind(lock: &DataDirLock) -> Result<(UnixListener, PathBuf), SocketError> {
    let path = lock.dir().join(NAME);
    let failed = |source: io::Error| SocketError::Io { path: path.clone(), source };
    let nursery = lock.dir().join(format!(".admin-{}", std::process::id()));
    // The longer of the two paths that are bound or connected to.
    let newborn = nursery.join("s");
    if path.as_os_str().len().max(newborn.as_os_str().len()) > LONGEST_PATH {
        return Err(SocketError::PathTooLong(path));
    }
    // The lock says that no gateway of this data folder runs. If something answers all the same, it isn't ours to remove.
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(SocketError::Answered(path));
    }
    let _ = fs::remove_dir_all(&nursery);
    DirBuilder::new().mode(0o700).create(&nursery).map_err(failed)?;
    let bound = UnixListener::bind(&newborn).and_then(|listener| {
        fs::set_permissions(&newborn, Permissions::from_mode(0o600))?;
        fs::rename(&newborn, &path)?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&nursery);
    Ok((bound.map_err(failed)?, path))
}

/// Lets in root and the gateway's own user, a bounded number at once.
pub(super) struct AdminListener {
    listener: UnixListener,
    places: Arc<Semaphore>,
    own_uid: u32,
}

impl AdminListener {
    pub fn new(listener: UnixListener) -> Self {
        let own_uid = rustix::process::geteuid().as_raw();
        Self { listener, places: Arc::new(Semaphore::new(MOST_CONNECTIONS)), own_uid }
    }

    async fn next(&self) -> io::Result<Option<AdminStream>> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        if !may_enter(peer.uid(), self.own_uid) {
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "refused a connection to the admin socket");
            return Ok(None);
        }
        Ok(Some(AdminStream { stream, uid: peer.uid(), _place: place }))
    }
}

/// Whether a user is an administrator of the gateway.
fn may_enter(uid: u32, own_uid: u32) -> bool {
    uid == 0 || uid == own_uid
}

impl axum::serve::Listener for AdminListener {
    type Io = AdminStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.next().await {
                Ok(Some(stream)) => return (stream, ()),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the admin socket can't take a connection");
                    // Out of descriptors, most likely: that passes, and until then a tight loop helps nobody.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

/// A connection that gives its place back when it ends.
pub(super) struct AdminStream {
    stream: UnixStream,
    /// Whose it is.
    uid: u32,
    _place: OwnedSemaphorePermit,
}

/// Who asks, as the kernel tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub uid: u32,
}

impl Connected<IncomingStream<'_, AdminListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, AdminListener>) -> Self {
        Self { uid: stream.io().uid }
    }
}

impl AsyncRead for AdminStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for AdminStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where the socket of a data folder is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Runs something until it is done or the time is over.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::may_enter;

    #[test]
    fn root_and_the_own_user_may_enter() {
        assert!(may_enter(0, 1000));
        assert!(may_enter(1000, 1000));
        assert!(!may_enter(1001, 1000));
        assert!(!may_enter(65_534, 0));
    }
}

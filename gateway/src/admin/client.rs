//! The command line's side of the admin API.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{BackupReport, BackupRequest, ErrorBody, Status, socket};

/// Bytes of an answer that are taken at most.
const LONGEST_ANSWER: usize = 64 << 20;
/// A status is counted, not waited for.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);
/// A backup copies the whole state.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error("no gateway is running with this data folder ({})", .0.display())]
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    #[error("only root and the gateway's own user may talk to it ({})", .0.display())]
    NoPermission(PathBuf),
    /// No answer in time.
    #[error("the gateway has not answered within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The gateway says what was wrong.
    #[error("the gateway refuses: {0}")]
    Refused(String),
    /// The connection broke, or the answer isn't one.
    #[error("talking to the gateway at {} failed: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// Talks to the gateway of one data folder.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the gateway that has this data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: socket::path(data_dir) }
    }

    /// How the gateway is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.request::<(), _>(Method::GET, "/v1/status", None, STATUS_TIMEOUT).await
    }

    /// Has the gateway write a copy of its state into a folder, an absolute path on the gateway's machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backup(&self, directory: &Path) -> Result<BackupReport, ClientError> {
        let request = BackupRequest { directory: directory.to_owned() };
        self.request(Method::POST, "/v1/state/backup", Some(&request), BACKUP_TIMEOUT).await
    }

    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Option<&B>,
        time: Duration,
    ) -> Result<T, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.broken(error))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, "recgate")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))?;
        socket::within(time, self.exchange(request)).await.unwrap_or(Err(ClientError::Timeout(time)))
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(self.path.clone()),
            ErrorKind::PermissionDenied => ClientError::NoPermission(self.path.clone()),
            _ => self.broken(error),
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            if !status.is_success() {
                let error = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error);
                return Err(ClientError::Refused(error.unwrap_or_else(|_| status.to_string())));
            }
            serde_json::from_slice(&body).map_err(|error| self.broken(error))
        };
        // The connection only moves bytes; how it ends is seen in the answer.
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn broken(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { path: self.path.clone(), reason: error.to_string() }
    }
}

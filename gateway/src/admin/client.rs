//! The command line's side of the admin API.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{
    AcceptLossReport, AcceptLossRequest, BackupReport, BackupRequest, ErrorBody, Status,
    records::{
        EraseReport, EraseRequest, IndexListAnswer, IndexListRequest, IndexShowRequest, RecordingReport,
        RepublishReport, RepublishRequest, SearchAnswer, SearchRequest, ShowRequest,
    },
    socket,
};

/// Bytes of an answer that are taken at most.
const LONGEST_ANSWER: usize = 64 << 20;
/// A status is counted, not waited for.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);
/// A page is a bounded number of rows.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The gateway says after 30 seconds what it still owes.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// Without another piece of an index for this long.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
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

    /// Says that what a source's last scan missed was removed on purpose.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn accept_loss(&self, request: &AcceptLossRequest) -> Result<AcceptLossReport, ClientError> {
        self.request(Method::POST, "/v1/sources/accept-loss", Some(request), CHANGE_TIMEOUT).await
    }

    /// Has the gateway write a copy of its state into a folder, an absolute path on the gateway's machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn backup(&self, directory: &Path) -> Result<BackupReport, ClientError> {
        let request = BackupRequest { directory: directory.to_owned() };
        self.request(Method::POST, "/v1/state/backup", Some(&request), BACKUP_TIMEOUT).await
    }

    /// Finds recordings, a page of them.
    ///
    /// # Errors
    /// See [`ClientError`], here and below.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchAnswer, ClientError> {
        self.request(Method::POST, "/v1/recordings/search", Some(request), PAGE_TIMEOUT).await
    }

    /// Tells all about a recording.
    pub async fn show(&self, request: &ShowRequest) -> Result<RecordingReport, ClientError> {
        self.request(Method::POST, "/v1/recordings/show", Some(request), PAGE_TIMEOUT).await
    }

    /// Erases the personal values of a recording's facts.
    pub async fn erase_facts(&self, request: &EraseRequest) -> Result<EraseReport, ClientError> {
        self.request(Method::POST, "/v1/recordings/erase-facts", Some(request), CHANGE_TIMEOUT).await
    }

    /// Lists root indexes, a page of them.
    pub async fn indexes(&self, request: &IndexListRequest) -> Result<IndexListAnswer, ClientError> {
        self.request(Method::POST, "/v1/indexes/list", Some(request), PAGE_TIMEOUT).await
    }

    /// Has indexes written anew.
    pub async fn republish(&self, request: &RepublishRequest) -> Result<RepublishReport, ClientError> {
        self.request(Method::POST, "/v1/indexes/republish", Some(request), CHANGE_TIMEOUT).await
    }

    /// Hands over an index, piece by piece, until `take` fails.
    pub async fn index<E: From<ClientError>>(
        &self,
        request: &IndexShowRequest,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let request = self.prepare(Method::POST, "/v1/indexes/show", Some(request))?;
        let (mut sender, connection) = self.connect().await?;
        let transfer = async move {
            let broken = |error: hyper::Error| E::from(self.broken(error));
            let late = || E::from(ClientError::Timeout(PIECE_TIMEOUT));
            let response = socket::within(PIECE_TIMEOUT, sender.send_request(request)).await;
            let response = response.ok_or_else(late)?.map_err(broken)?;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let body = Limited::new(body, LONGEST_ANSWER).collect().await;
                let body = body.map_err(|error| self.broken(error))?.to_bytes();
                return Err(refused(status, &body).into());
            }
            while let Some(frame) = socket::within(PIECE_TIMEOUT, body.frame()).await.ok_or_else(late)? {
                if let Ok(piece) = frame.map_err(broken)?.into_data() {
                    take(&piece)?;
                }
            }
            Ok(())
        };
        tokio::pin!(transfer);
        tokio::select! {
            end = &mut transfer => end,
            _ = connection => transfer.await,
        }
    }

    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Option<&B>,
        time: Duration,
    ) -> Result<T, ClientError> {
        let request = self.prepare(method, uri, body)?;
        socket::within(time, self.exchange(request)).await.unwrap_or(Err(ClientError::Timeout(time)))
    }

    fn prepare<B: Serialize>(
        &self,
        method: Method,
        uri: &str,
        body: Option<&B>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| self.broken(error))?,
            None => Vec::new(),
        };
        Request::builder()
            .method(method)
            .uri(uri)
            .header(header::HOST, "recgate")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))
    }

    async fn connect(&self) -> Result<(Sender, Connection), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(self.path.clone()),
            ErrorKind::PermissionDenied => ClientError::NoPermission(self.path.clone()),
            _ => self.broken(error),
        })?;
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T, ClientError> {
        let (mut sender, connection) = self.connect().await?;
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| self.broken(error))?.to_bytes();
            if !status.is_success() {
                return Err(refused(status, &body));
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

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// What the gateway says was wrong.
fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error);
    ClientError::Refused(error.unwrap_or_else(|_| status.to_string()))
}

//! The API behind the socket.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{catalog::Actor, state::DataDirLock};

use super::{
    AcceptLossRequest, BackupRequest, ErrorBody, Operations, SharedOperations, SocketError,
    records_server::{self, Asked, answer},
    socket::{self, AdminListener, Peer, within},
};

/// Bytes that a request's body may have.
const LONGEST_BODY: usize = 64 << 10;
/// How long requests may go on once the server is to stop.
const GRACE: Duration = Duration::from_secs(2);

/// The running admin API.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Opens the socket in the locked data folder and serves there until [`stop`](Self::stop).
    ///
    /// # Errors
    /// The socket can't be opened.
    pub fn start(lock: &DataDirLock, operations: Arc<dyn Operations>) -> Result<Self, SocketError> {
        let (listener, path) = socket::bind(lock)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let service = router(operations).into_make_service_with_connect_info::<Peer>();
            let serve = axum::serve(AdminListener::new(listener), service)
                .with_graceful_shutdown(stopped.clone().cancelled_owned());
            let ended = async {
                stopped.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                result = serve => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the admin socket has ended");
                    }
                }
                () = ended => tracing::warn!("a request to the admin socket was cut off at the stop"),
            }
        });
        Ok(Self { path, stop, task })
    }

    /// Takes no more requests, lets running ones end within 2 seconds, and removes the socket.
    pub async fn stop(self) {
        self.stop.cancel();
        if within(GRACE * 2, self.task).await.is_none() {
            tracing::warn!("the admin socket didn't end in time");
        }
        if let Err(error) = tokio::fs::remove_file(&self.path).await {
            tracing::warn!(%error, path = %self.path.display(), "the admin socket can't be removed");
        }
    }
}

/// The API as a router, for the socket and for whatever door shows it later.
pub fn router(operations: Arc<dyn Operations>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/sources/accept-loss", post(accept_loss))
        .route("/v1/state/backup", post(backup))
        .merge(records_server::routes())
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such resource") })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, "this resource doesn't know that method")
        })
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(operations)
}

async fn status(State(operations): State<SharedOperations>) -> Response {
    Json(operations.status().await).into_response()
}

async fn accept_loss(
    State(operations): State<SharedOperations>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    asked: Asked<AcceptLossRequest>,
) -> Response {
    answer(asked, |request| operations.accept_loss(request, Actor::LocalUser(peer.uid))).await
}

async fn backup(
    State(operations): State<SharedOperations>,
    request: Result<Json<BackupRequest>, JsonRejection>,
) -> Response {
    let directory = match request {
        Ok(Json(request)) => request.directory,
        Err(rejection) => return failure(rejection.status(), rejection.body_text()),
    };
    if !directory.is_absolute() {
        return failure(StatusCode::BAD_REQUEST, "\"directory\" must be an absolute path");
    }
    tracing::info!(directory = %directory.display(), "a backup was asked for");
    match operations.backup(directory).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => {
            tracing::warn!(error, "the backup failed");
            failure(StatusCode::INTERNAL_SERVER_ERROR, error)
        }
    }
}

pub(super) fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(ErrorBody { error: error.into() })).into_response()
}

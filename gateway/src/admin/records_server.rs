//! The routes of [`super::records`].

use std::{fs::File, future::Future, io, os::unix::fs::FileExt, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::stream;
use serde::Serialize;

use super::{
    SharedOperations,
    records::{
        EraseRequest, IndexContent, IndexListRequest, IndexShowRequest, OperationError, RepublishRequest,
        SearchRequest, ShowRequest,
    },
    server::failure,
    socket::Peer,
};
use crate::catalog::Actor;

/// Bytes of an index that are read at once.
const PIECE: u64 = 256 << 10;

/// A request's body, or why it isn't one.
pub(super) type Asked<T> = Result<Json<T>, JsonRejection>;

pub(super) fn routes() -> Router<SharedOperations> {
    Router::new()
        .route("/v1/recordings/search", post(search))
        .route("/v1/recordings/show", post(show))
        .route("/v1/recordings/erase-facts", post(erase_facts))
        .route("/v1/indexes/list", post(indexes))
        .route("/v1/indexes/show", post(index))
        .route("/v1/indexes/republish", post(republish))
}

async fn search(State(operations): State<SharedOperations>, asked: Asked<SearchRequest>) -> Response {
    answer(asked, |request| operations.search(request)).await
}

async fn show(State(operations): State<SharedOperations>, asked: Asked<ShowRequest>) -> Response {
    answer(asked, |request| operations.show(request)).await
}

async fn erase_facts(
    State(operations): State<SharedOperations>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    asked: Asked<EraseRequest>,
) -> Response {
    answer(asked, |request| operations.erase_facts(request, Actor::LocalUser(peer.uid))).await
}

async fn indexes(State(operations): State<SharedOperations>, asked: Asked<IndexListRequest>) -> Response {
    answer(asked, |request| operations.indexes(request)).await
}

async fn republish(State(operations): State<SharedOperations>, asked: Asked<RepublishRequest>) -> Response {
    answer(asked, |request| operations.republish(request)).await
}

async fn index(State(operations): State<SharedOperations>, asked: Asked<IndexShowRequest>) -> Response {
    let request = match asked {
        Ok(Json(request)) => request,
        Err(rejection) => return failure(rejection.status(), rejection.body_text()),
    };
    match operations.open_index(request).await {
        Ok(content) => {
            let headers = [
                (header::CONTENT_TYPE, "text/csv".to_owned()),
                (header::CONTENT_LENGTH, content.length.to_string()),
            ];
            (headers, pieces(content)).into_response()
        }
        Err(error) => refused(&error),
    }
}

pub(super) async fn answer<T, R: Serialize, F: Future<Output = Result<R, OperationError>> + Send>(
    asked: Asked<T>,
    operation: impl FnOnce(T) -> F,
) -> Response {
    let request = match asked {
        Ok(Json(request)) => request,
        Err(rejection) => return failure(rejection.status(), rejection.body_text()),
    };
    match operation(request).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => refused(&error),
    }
}

fn refused(error: &OperationError) -> Response {
    let status = match error {
        OperationError::Invalid { .. } => StatusCode::BAD_REQUEST,
        OperationError::NotFound(_) => StatusCode::NOT_FOUND,
        OperationError::Failed(reason) => {
            tracing::warn!(%reason, "an operation failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    failure(status, error.to_string())
}

/// The part of a file that counts, piece by piece as it is taken.
fn pieces(content: IndexContent) -> Body {
    let IndexContent { file, length } = content;
    let file = Arc::new(file);
    Body::from_stream(stream::try_unfold(0, move |offset: u64| {
        let file = Arc::clone(&file);
        async move {
            let wanted = length.saturating_sub(offset).min(PIECE);
            if wanted == 0 {
                return Ok(None);
            }
            let piece = read_piece(file, offset, wanted).await?;
            Ok::<_, io::Error>(Some((piece, offset.saturating_add(wanted))))
        }
    }))
}

fn read_piece(file: Arc<File>, offset: u64, wanted: u64) -> impl Future<Output = io::Result<Bytes>> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    });
    async move { read.await.map_err(io::Error::other)? }
}

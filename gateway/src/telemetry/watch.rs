//! Metrics and probes over HTTP, for those who watch over the gateway from the same machine.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /metrics` | all metrics, as OpenMetrics text |
//! | `GET /livez` | 200 while the gateway lives; 503 with what hangs: it should be restarted |
//! | `GET /readyz` | 200 while new sessions are served; 503 with the reasons why not, a line each |
//! | `GET /readyz?verbose` | the same, and what is wrong without making it unready |
//!
//! There is no login and no encryption, so it listens on loopback only; what it tells may be known to everybody on the
//! machine. It opens before the state is opened, which may take its time. Each connection is for one request and has a
//! few seconds for it; there are few at once.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CONTENT_TYPE, Snapshot, metrics};

/// Connections at once; more wait.
const MOST_CONNECTIONS: usize = 16;
/// Until a request's header is there.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// A connection in all.
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Until the state must have told how it is.
const STATE_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request's header, at most.
const LONGEST_HEADER: usize = 16 << 10;
/// So long a snapshot serves everybody who asks.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);
/// How long answers may take once there are to be no more.
const GRACE: Duration = Duration::from_secs(2);
/// After a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What is watched.
#[async_trait]
pub trait Watched: Send + Sync + 'static {
    /// How it is. Costs no more than `recgate status`; asked at most once a second.
    async fn snapshot(&self) -> Snapshot;

    /// What hangs, so that only a restart helps: a line each.
    fn stuck(&self) -> Vec<String>;

    /// Why new sessions should go elsewhere: a line each. A source that is down is no reason.
    async fn unready(&self) -> Vec<String>;
}

/// A listener for those who watch. Dropping it closes it.
#[derive(Debug)]
pub struct Watch {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Where the listener can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen for metrics on {address}: {error}; free it, or change metrics.listen")]
pub struct WatchError {
    /// As configured.
    address: SocketAddr,
    /// What the operating system said.
    error: io::Error,
}

impl Watch {
    /// Listens on an address. Until there is something [to watch](Self::begin), the gateway isn't ready.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn open(address: SocketAddr) -> Result<Self, WatchError> {
        let listen = async {
            let listener = TcpListener::bind(address).await?;
            let real = listener.local_addr()?;
            Ok((listener, real))
        };
        let (listener, address) = listen.await.map_err(|error| WatchError { address, error })?;
        let watch = Self {
            address,
            shared: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let serve = serve(listener, Arc::clone(&watch.shared), watch.tasks.clone());
        drop(watch.tasks.spawn(watch.stop.clone().run_until_cancelled_owned(serve)));
        Ok(watch)
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// This is watched from now on.
    pub fn begin(&self, watched: Arc<dyn Watched>) {
        // It is called once; a second call would change nothing.
        let _ = self.shared.watched.set(watched);
    }

    /// Closes it, and lets go of what was watched.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        // Connections end by themselves, each within its time; whoever is slow isn't waited for.
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            self.shared.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.cut.cancel();
    }
}

#[derive(Default)]
struct Shared {
    watched: OnceLock<Arc<dyn Watched>>,
    snapshot: Mutex<Option<(Instant, Arc<Snapshot>)>>,
    cut: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The state, at most a second old; `None` while there is none yet.
    async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let watched = self.watched.get()?;
        // Who asks meanwhile waits here, and gets the same.
        let mut cached = self.snapshot.lock().await;
        match &*cached {
            Some((made, snapshot)) if made.elapsed() < SNAPSHOT_AGE => Some(Arc::clone(snapshot)),
            _ => {
                let snapshot = Arc::new(watched.snapshot().await);
                *cached = Some((Instant::now(), Arc::clone(&snapshot)));
                Some(snapshot)
            }
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let router = router(Arc::clone(&shared));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone());
                let cut = shared.cut.clone();
                drop(tasks.spawn(async move {
                    let _ = cut.run_until_cancelled(connection).await;
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One request and its answer.
async fn connection(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_header_size(LONGEST_HEADER)
        .keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How it ends is the client's business.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .fallback(|| async { text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz") })
        .with_state(shared)
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(snapshot) = tokio::time::timeout(STATE_TIME, shared.snapshot()).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the state doesn't answer");
    };
    match metrics().text(snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written; this is a defect");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written")
        }
    }
}

async fn live(State(shared): State<Arc<Shared>>) -> Response {
    match shared.watched.get().map(|watched| watched.stuck()).unwrap_or_default() {
        stuck if stuck.is_empty() => text(StatusCode::OK, "ok"),
        stuck => text(StatusCode::SERVICE_UNAVAILABLE, &stuck.join("\n")),
    }
}

async fn ready(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let unready = match shared.watched.get() {
        None => vec!["starting".to_owned()],
        Some(watched) => tokio::time::timeout(STATE_TIME, watched.unready())
            .await
            .unwrap_or_else(|_| vec!["the state doesn't answer".to_owned()]),
    };
    let (status, mut lines) = match unready {
        unready if unready.is_empty() => (StatusCode::OK, vec!["ok".to_owned()]),
        unready => (StatusCode::SERVICE_UNAVAILABLE, unready),
    };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    if verbose && let Ok(Some(snapshot)) = tokio::time::timeout(STATE_TIME, shared.snapshot()).await {
        lines.extend(remarks(&snapshot));
    }
    text(status, &lines.join("\n"))
}

/// What is wrong, and doesn't make the gateway unready. The reasons may name what others on the machine needn't know.
fn remarks(snapshot: &Snapshot) -> Vec<String> {
    let mut remarks = Vec::new();
    for tenant in &snapshot.tenants {
        for source in &tenant.sources {
            let name = format!("source {}/{}", tenant.name, source.name);
            if source.problem || !source.available {
                remarks.push(format!("{name}: failing; `recgate status` says why"));
            } else if source.scan_age_seconds.is_none() {
                remarks.push(format!("{name}: not scanned yet"));
            }
        }
        if let Some(index) = tenant.index.filter(|index| index.overdue > 0) {
            remarks.push(format!("tenant {}: {} root indexes are overdue", tenant.name, index.overdue));
        }
    }
    remarks
}

fn text(status: StatusCode, lines: &str) -> Response {
    (status, format!("{lines}\n")).into_response()
}

#[cfg(test)]
mod tests;

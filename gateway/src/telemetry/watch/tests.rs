#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::telemetry::{IndexState, SourceState, TenantState};

#[derive(Default)]
struct Fake {
    asked: AtomicUsize,
    stuck: Vec<String>,
    unready: Vec<String>,
    hangs: bool,
}

#[async_trait]
impl Watched for Fake {
    async fn snapshot(&self) -> Snapshot {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let source = |name: &str, problem| SourceState {
            name: name.to_owned(),
            problem,
            available: true,
            scan_age_seconds: (name != "new").then_some(1.0),
            ..SourceState::default()
        };
        let sources = vec![source("pbx", true), source("new", false), source("well", false)];
        let index = Some(IndexState { overdue: 2, lag_seconds: 5.0, incomplete: 0 });
        Snapshot {
            tenants: vec![TenantState { name: "acme".to_owned(), sources, index, recordings: None }],
            ..Snapshot::default()
        }
    }

    fn stuck(&self) -> Vec<String> {
        self.stuck.clone()
    }

    async fn unready(&self) -> Vec<String> {
        self.unready.clone()
    }
}

async fn opened() -> Watch {
    Watch::open("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

/// What is sent back for these bytes, until the connection ends.
async fn answer(watch: &Watch, request: &str) -> String {
    let mut stream = TcpStream::connect(watch.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A connection that is reset after the answer is an answer too.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

/// Status and body.
async fn get(watch: &Watch, path: &str) -> (u16, String) {
    let answer = answer(watch, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_gateway_that_starts_is_alive_and_not_ready() {
    let watch = opened().await;
    assert_eq!(get(&watch, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&watch, "/readyz").await, (503, "starting\n".to_owned()));
    let (status, text) = get(&watch, "/metrics").await;
    assert!(
        status == 200 && text.contains("process_start_time_seconds ") && text.ends_with("# EOF\n"),
        "{text}"
    );
    watch.begin(Arc::new(Fake::default()));
    assert_eq!(get(&watch, "/readyz").await, (200, "ok\n".to_owned()));
    watch.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_where_it_counts() {
    let watch = opened().await;
    watch.begin(Arc::new(Fake {
        stuck: vec!["a hangs".to_owned(), "b hangs".to_owned()],
        unready: vec!["draining".to_owned(), "another".to_owned()],
        ..Fake::default()
    }));
    assert_eq!(get(&watch, "/livez").await, (503, "a hangs\nb hangs\n".to_owned()));
    assert_eq!(get(&watch, "/readyz").await, (503, "draining\nanother\n".to_owned()));

    let watch = opened().await;
    watch.begin(Arc::new(Fake::default()));
    assert_eq!(
        get(&watch, "/readyz").await,
        (200, "ok\n".to_owned()),
        "a source that is down leaves it ready"
    );
    let remarks = "ok\nsource acme/pbx: failing; `recgate status` says why\nsource acme/new: not scanned yet\n\
                   tenant acme: 2 root indexes are overdue\n";
    for query in ["?verbose", "?verbose=1", "?a=b&verbose"] {
        assert_eq!(get(&watch, &format!("/readyz{query}")).await, (200, remarks.to_owned()));
    }
}

#[tokio::test]
async fn http_is_spoken_as_it_should_be() {
    let watch = opened().await;
    watch.begin(Arc::new(Fake::default()));
    let scrape = answer(&watch, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.to_lowercase();
    assert!(scrape.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{scrape}");
    assert!(scrape.contains("connection: close\r\n"), "{scrape}");
    for path in ["/metrics", "/livez", "/readyz"] {
        let head = answer(&watch, &format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{path}: {head}");
        let post =
            answer(&watch, &format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")).await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{path}: {post}");
    }
    for path in ["/", "/metrics/", "/v1/status", "/../metrics"] {
        assert_eq!(get(&watch, path).await.0, 404, "{path}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert!(answer(&watch, &long).await.starts_with("HTTP/1.1 431 "));
    assert!(answer(&watch, "SSH-2.0-x\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn scrapes_at_once_cost_one_look_at_the_state() {
    let watch = opened().await;
    let fake = Arc::new(Fake::default());
    watch.begin(Arc::clone(&fake) as _);
    let begun = Instant::now();
    let scrapes = (0..50).map(|_| get(&watch, "/metrics"));
    for (status, text) in futures_util::future::join_all(scrapes).await {
        assert!(status == 200 && text.contains("recgate_source_problem{tenant=\"acme\",source=\"pbx\"} 1"));
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(fake.asked.load(Ordering::SeqCst) <= 1 + seconds);
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_a_place_for_long() {
    let watch = opened().await;
    watch.begin(Arc::new(Fake { hangs: true, ..Fake::default() }));
    let mut silent = Vec::new();
    for _ in 0..MOST_CONNECTIONS * 3 {
        let mut stream = TcpStream::connect(watch.address()).await.unwrap();
        stream.write_all(b"GET /livez HT").await.unwrap();
        silent.push(stream);
    }
    // All of them are ahead in the queue, and each is given up in its turn.
    assert_eq!(get(&watch, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&watch, "/metrics").await, (503, "the state doesn't answer\n".to_owned()));
    assert_eq!(get(&watch, "/readyz?verbose").await, (200, "ok\n".to_owned()));
    drop(silent);
}

#[tokio::test]
async fn what_was_watched_is_let_go_at_the_stop() {
    let watch = opened().await;
    let address = watch.address();
    let fake = Arc::new(Fake { hangs: true, ..Fake::default() });
    watch.begin(Arc::clone(&fake) as _);
    let mut scrape = TcpStream::connect(address).await.unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    while fake.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    watch.stop().await;
    assert_eq!(Arc::strong_count(&fake), 1);
    assert!(TcpStream::connect(address).await.is_err());
    drop(scrape);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let watch = opened().await;
    let error = Watch::open(watch.address()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("can't listen for metrics on {}: ", watch.address())), "{error}");
    assert!(error.ends_with("; free it, or change metrics.listen"), "{error}");
}

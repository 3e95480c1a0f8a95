//! Deadlines, cancellation, abandoned calls, threads.

use std::{fs, sync::Arc, time::Duration};

use recgate::sources::{CallLimits, Instance, MediaSource, ScanStart};
use recgate_plugin_api::{ErrorCode, Item};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::{HASTY, PATIENT, content, source, threads_named, try_source, until};

/// A source whose calls hang until the file `go` is there.
fn hanging(name: &str, what: &str, limits: CallLimits) -> (Arc<Instance>, TempDir, impl Fn()) {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let settings = json!({"misbehave": what, "release": go, "count": 2, "max_concurrent_calls": 4});
    (source(name, settings, limits), folder, move || fs::write(&go, "").unwrap())
}

fn bounded(timeout: Duration, max_calls: usize) -> CallLimits {
    CallLimits { timeout, max_calls }
}

fn gone(name: &str) -> impl FnMut() -> bool {
    let name = format!("rg-{name}");
    move || threads_named(&name) == 0
}

#[tokio::test]
async fn eight_abandoned_calls_make_a_source_unavailable_until_they_return() {
    let other = source("other", json!({"count": 1}), PATIENT);
    let (source, _folder, release) = hanging("eight", "hang-in-stat", HASTY);
    for already in 0..8 {
        let status = source.status();
        assert!(status.available);
        assert_eq!(status.abandoned_calls, already);
        let error = source.stat("medium-0", None).await.unwrap_err().error;
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(error.message.contains("abandoned"), "{error}");
    }
    let status = source.status();
    assert_eq!((status.available, status.abandoned_calls, status.running_calls), (false, 8, 0));
    assert!(status.last_error.unwrap().contains("stat"));
    let error = source.health().await.unwrap_err().error;
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.message.contains("8 calls are past their deadline"), "{error}");
    // Nobody else is touched.
    assert!(other.health().await.unwrap().reachable);

    release();
    until("the abandoned calls return", || source.status().abandoned_calls == 0).await;
    assert!(source.status().available);
    assert!(source.health().await.unwrap().reachable);
    source.stat("medium-0", None).await.unwrap();
    drop(source);
    until("all threads end", gone("eight")).await;
}

/// The abandoned read's buffer and handle stay its own; the handle is closed and the instance destroyed after it.
#[tokio::test]
async fn an_abandoned_read_keeps_what_it_uses() {
    let (source, _folder, release) = hanging("read", "hang-in-read", HASTY);
    let open = source.open("medium-0", "1").await.unwrap();
    assert_eq!(open.read_at(0, 1 << 20).await.unwrap_err().error.code, ErrorCode::Timeout);
    drop(open);
    drop(source);
    assert!(threads_named("rg-read") > 0, "the call goes on");
    release();
    until("the read returns and everything is closed", gone("read")).await;
}

/// With one thread, those in the queue get theirs as soon as the one that hangs is abandoned.
#[tokio::test]
async fn a_thread_that_hangs_is_replaced() {
    let (source, _folder, release) = hanging("replaced", "hang-in-stat", bounded(HASTY.timeout, 1));
    let (hung, healthy) = tokio::join!(source.stat("medium-0", None), async {
        tokio::task::yield_now().await;
        source.health().await
    });
    assert_eq!(hung.unwrap_err().error.code, ErrorCode::Timeout);
    assert!(healthy.unwrap().reachable);
    release();
    drop(source);
    until("all threads end", gone("replaced")).await;
}

#[tokio::test]
async fn threads_and_queue_are_bounded() {
    let (source, _folder, release) = hanging("bounded", "hang-in-stat", bounded(PATIENT.timeout, 3));
    let mut calls = tokio::task::JoinSet::new();
    let mut spawn = |count| {
        for _ in 0..count {
            let source = Arc::clone(&source);
            calls.spawn(async move { source.stat("medium-0", None).await.map(drop) });
        }
    };
    spawn(3);
    until("three calls run", || source.status().running_calls == 3).await;
    // 4096 more wait, the rest is refused at once.
    spawn(4096 + 41);
    for _ in 0..41 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err().error;
        assert_eq!(error.code, ErrorCode::Busy, "{error}");
    }
    assert_eq!(threads_named("rg-bounded"), 3);
    release();
    while let Some(result) = calls.join_next().await {
        result.unwrap().unwrap();
    }
    drop(source);
    until("all threads end", gone("bounded")).await;
}

#[tokio::test]
async fn who_leaves_cancels() {
    let source = source("leave", json!({"misbehave": "wait-in-read", "count": 1}), PATIENT);
    let open = source.open("medium-0", "1").await.unwrap();
    let read = tokio::spawn(async move { open.read_at(0, 10).await });
    until("the read runs", || source.status().running_calls == 1).await;
    read.abort();
    until("the plugin saw it", || source.status().running_calls == 0).await;
    assert_eq!(source.status().abandoned_calls, 0);
    drop(source);
    until("all threads end", gone("leave")).await;
}

/// Futures that are dropped before they ever run, or while they wait, leave nothing behind.
#[tokio::test]
async fn who_leaves_early_leaves_nothing() {
    let (source, _folder, release) = hanging("early", "hang-in-stat", bounded(PATIENT.timeout, 1));
    drop(source.stat("medium-0", None));
    let first = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.stat("medium-0", None).await.map(drop) }
    });
    until("one runs", || source.status().running_calls == 1).await;
    for _ in 0..1000 {
        // More than the queue holds, but each leaves again.
        let waited = tokio::time::timeout(Duration::ZERO, source.open("medium-0", "1")).await;
        assert!(waited.is_err());
    }
    release();
    first.await.unwrap().unwrap();
    assert!(source.health().await.unwrap().reachable);
    drop(source);
    until("all threads end", gone("early")).await;
}

/// What a call opened after its caller had gone is closed: nothing keeps the instance.
#[tokio::test]
async fn a_handle_that_comes_too_late_is_closed() {
    let (source, _folder, release) = hanging("late", "hang-in-open", HASTY);
    assert_eq!(source.open("medium-0", "1").await.err().unwrap().error.code, ErrorCode::Timeout);
    drop(source);
    release();
    until("all threads end", gone("late")).await;
}

#[tokio::test]
async fn open_media_outlive_their_source() {
    let source = source("outlive", json!({"count": 1, "size": 100}), PATIENT);
    let open = source.open("medium-0", "1").await.unwrap();
    drop(source);
    assert_eq!(open.read_at(0, 100).await.unwrap(), content("medium-0", 0, 100));
    drop(open);
    until("all threads end", gone("outlive")).await;
}

#[tokio::test]
async fn a_closed_source_refuses() {
    let source = source("closed", json!({"count": 1}), PATIENT);
    let open = source.open("medium-0", "1").await.unwrap();
    source.close();
    assert!(!source.status().available);
    assert_eq!(source.health().await.unwrap_err().error.code, ErrorCode::Unavailable);
    assert_eq!(open.read_at(0, 1).await.unwrap_err().error.code, ErrorCode::Unavailable);
    drop((source, open));
    until("all threads end", gone("closed")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_read_one_handle() {
    let source = source("many", json!({"count": 1, "size": 1 << 20, "delay_ms": 1}), PATIENT);
    let open = source.open("medium-0", "1").await.unwrap();
    let mut reads = tokio::task::JoinSet::new();
    for part in 0..128_u64 {
        let open = Arc::clone(&open);
        reads.spawn(async move {
            let (offset, length) = (part * 8192 + part % 7, 8192);
            let got = open.read_at(offset, length).await.unwrap();
            let expected = length.min((1 << 20) - offset as usize);
            assert_eq!(got, content("medium-0", offset, expected));
        });
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }
    assert!(threads_named("rg-many") <= 8);
}

#[tokio::test]
async fn create_has_a_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let settings = json!({"misbehave": "hang-in-create", "release": go});
    let late = try_source("create", settings, HASTY).unwrap_err();
    assert_eq!(late.error.code, ErrorCode::Timeout);
    fs::write(&go, "").unwrap();
    until("the instance that came too late is destroyed", gone("create")).await;
}

fn full_scan(
    source: &Arc<Instance>,
    room: usize,
) -> (mpsc::Receiver<Vec<Item>>, tokio::task::JoinHandle<ErrorCode>) {
    let (sender, receiver) = mpsc::channel(room);
    let source = Arc::clone(source);
    let scan =
        tokio::spawn(async move { source.scan(ScanStart::Full, sender).await.unwrap_err().error.code });
    (receiver, scan)
}

fn misbehaving(name: &str, what: &str, limits: CallLimits) -> Arc<Instance> {
    let settings: Value = json!({"misbehave": what, "count": 1});
    source(name, settings, limits)
}

#[tokio::test]
async fn an_endless_scan_ends_when_nobody_listens() {
    let source = misbehaving("endless", "endless-scan", HASTY);
    let (mut receiver, scan) = full_scan(&source, 1);
    // It goes on for as long as it tells something, and a listener who is slow counts for nothing.
    for _ in 0..3 {
        assert!(!receiver.recv().await.unwrap().is_empty());
        tokio::time::sleep(HASTY.timeout * 2).await;
        assert_eq!(source.status().abandoned_calls, 0);
    }
    assert_eq!(source.status().abandoned_calls, 0);
    drop(receiver);
    assert_eq!(scan.await.unwrap(), ErrorCode::Cancelled);
    // Reads had their threads all the time.
    assert!(source.health().await.unwrap().reachable);
}

/// The one who waits for the scan leaves, while the channel is full and its receiver still there.
#[tokio::test]
async fn a_scan_that_waits_for_its_listener_can_be_cancelled() {
    let source = misbehaving("full", "endless-scan", PATIENT);
    let (receiver, scan) = full_scan(&source, 1);
    until("the channel is full", || receiver.len() == 1).await;
    scan.abort();
    until("the scan ends", || source.status().running_calls == 0).await;
    assert_eq!(source.status().abandoned_calls, 0);
    drop((source, receiver));
    until("all threads end", gone("full")).await;
}

#[tokio::test]
async fn a_scan_that_tells_nothing_is_abandoned() {
    let (source, _folder, release) = hanging("scan", "hang-in-scan", HASTY);
    let (_receiver, scan) = full_scan(&source, 1);
    assert_eq!(scan.await.unwrap(), ErrorCode::Timeout);
    assert_eq!(source.status().abandoned_calls, 1);
    assert!(source.health().await.unwrap().reachable);
    release();
    until("it returns", || source.status().abandoned_calls == 0).await;
    drop(source);
    until("all threads end", gone("scan")).await;
}

#[tokio::test]
async fn a_scan_is_told_that_it_is_late() {
    let source = misbehaving("waiting", "wait-in-scan", HASTY);
    let (_receiver, scan) = full_scan(&source, 1);
    let code = scan.await.unwrap();
    assert!(matches!(code, ErrorCode::Timeout | ErrorCode::Cancelled), "{code:?}");
    until("it returned", || {
        let status = source.status();
        status.abandoned_calls + status.running_calls == 0
    })
    .await;
}

/// Handles whose close hangs keep threads, but never more than the bound, and all is closed in the end.
#[tokio::test]
async fn closes_that_hang_are_bounded() {
    let (source, _folder, release) = hanging("closing", "hang-in-close", HASTY);
    for _ in 0..100 {
        // Threads that hang are replaced; at some time there are none left.
        match source.open("medium-0", "1").await {
            Err(refused) if refused.error.code == ErrorCode::Unavailable => break,
            _ => {}
        }
    }
    assert!(!source.status().available);
    assert!(threads_named("rg-closing") <= 4 + 1 + 8);
    release();
    until("it is available", || source.status().available).await;
    drop(source);
    until("all threads end", gone("closing")).await;
}

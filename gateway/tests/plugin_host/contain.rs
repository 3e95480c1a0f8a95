//! A plugin that lies, panics or answers nonsense is reported and contained.

use std::sync::Arc;

use recgate::sources::{Instance, MediaSource, ScanStart, SourceError};
use recgate_plugin_api::{ErrorCode, Item, ScanEnd};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{PATIENT, content, source, try_source};

/// Everything that a scan tells.
async fn scan(source: &Arc<Instance>) -> (Vec<Item>, Result<ScanEnd, SourceError>) {
    let (sender, mut receiver) = mpsc::channel::<Vec<Item>>(1);
    let collect = async {
        let mut items = Vec::new();
        while let Some(batch) = receiver.recv().await {
            assert!((1..=256).contains(&batch.len()));
            items.extend(batch);
        }
        items
    };
    tokio::join!(collect, source.scan(ScanStart::Full, sender))
}

fn misbehaving(what: &str) -> Arc<Instance> {
    source(what, json!({"misbehave": what, "count": 3, "facts": true}), PATIENT)
}

#[tokio::test]
async fn a_plugin_that_behaves() {
    let source = source("good", json!({"count": 600, "size": 1000, "facts": true}), PATIENT);
    let (items, end) = scan(&source).await;
    assert_eq!(items.len(), 1200);
    assert!(end.unwrap().complete);
    let media = source.stat("medium-7", Some("1")).await.unwrap();
    assert!(items.contains(&Item::Media(media)));
    let open = source.open("medium-7", "1").await.unwrap();
    for (offset, length) in [(0, 1000), (1, 17), (13, 3), (992, 8), (999, 1)] {
        assert_eq!(open.read_at(offset, length).await.unwrap(), content("medium-7", offset, length));
    }
    assert_eq!(open.read_at(990, 100).await.unwrap().len(), 10);
    assert!(source.capabilities().facts && source.status().available);
    assert_eq!(source.status().last_error, None);
    assert_eq!(source.stat("absent", None).await.unwrap_err().error.code, ErrorCode::NotFound);
    assert_eq!(source.stat("medium-7", Some("2")).await.unwrap_err().error.code, ErrorCode::Precondition);
    assert_eq!(source.stat("", None).await.unwrap_err().error.code, ErrorCode::Invalid);
    assert_eq!(source.status().last_error, None, "what one medium lacks is not the source's fault");
}

/// One bad item is dropped and named; the others pass, and other sources don't notice.
#[tokio::test]
async fn bad_items_are_dropped_and_named() {
    let other = source("other", json!({"count": 1}), PATIENT);
    let cases = [
        ("negative-size", "\"bad\": size is 18446744073709551615, as a signed number -1"),
        ("year-10000", "\"bad\": start_ms is 253402300800000"),
        ("empty-id", "\"\": id is empty"),
        ("long-id", "id has 1025 bytes, more than 1024"),
        ("control-id", "\"bad\\\\nid\": id has control characters"),
        ("too-many-keys", "\"bad\": keys: 65 of them, more than 64"),
        ("too-many-values", "\"bad\": values: 257 of them, more than 256"),
        ("huge-values", "\"bad\": a fact has 8193 bytes, more than 8192"),
        ("long-patch", "\"bad\": header_patch has 4097 bytes, more than 4096"),
        ("slash-in-name", "\"bad\": preferred_name \"../x\" is no file name"),
        ("bad-utf8", "\"bad\": media_type isn't UTF-8"),
        ("null-text", "\"bad\": version is NULL with a length of 7"),
        ("null-media", "\"\": rg_media is a NULL pointer"),
        ("unknown-state", "\"bad\": 99 is no state"),
        ("unknown-precision", "\"bad\": 99 is no precision"),
        ("unknown-key-kind", "\"bad\": 99 is no kind of join key"),
        ("unknown-item", "\"\": 99 is no kind of item"),
        ("small-struct", "\"\": rg_media is a struct_size of 8, where at least 184 is needed"),
        ("absurd-length", "\"bad\": version has 18446744073709551615 bytes, more than 1024"),
    ];
    for (what, expected) in cases {
        let source = misbehaving(what);
        let (items, end) = scan(&source).await;
        assert_eq!(items.len(), 6, "{what}");
        assert!(end.unwrap().complete, "{what}");
        let reported = source.status().last_error.unwrap();
        assert!(reported.contains(expected), "{what}: {reported}");
        assert!(reported.starts_with("scan: 1 of 7 items were dropped"), "{what}: {reported}");
    }
    assert_eq!(scan(&other).await.0.len(), 1);
    assert_eq!(other.status().last_error, None);
}

/// Which of two counts is for those to decide who keep them.
#[tokio::test]
async fn a_duplicate_id_passes() {
    let (items, end) = scan(&misbehaving("duplicate-id")).await;
    assert_eq!(items.len(), 7);
    assert!(end.unwrap().complete);
}

#[tokio::test]
async fn panics_are_errors() {
    let failed = try_source("p", json!({"misbehave": "panic-in-create"}), PATIENT).unwrap_err();
    assert_eq!(failed.to_string(), "source p: Panic: panic in create, as configured");

    let is_panic = |error: SourceError, what: &str| {
        assert_eq!(error.error.code, ErrorCode::Panic);
        assert_eq!(error.error.message, format!("panic in {what}, as configured"));
    };
    is_panic(misbehaving("panic-in-health").health().await.unwrap_err(), "health");
    is_panic(misbehaving("panic-in-stat").stat("medium-1", None).await.unwrap_err(), "stat");
    is_panic(misbehaving("panic-in-open").open("medium-1", "1").await.err().unwrap(), "open");
    is_panic(scan(&misbehaving("panic-in-scan")).await.1.unwrap_err(), "scan");
    let source = misbehaving("panic-in-read");
    let open = source.open("medium-1", "1").await.unwrap();
    is_panic(open.read_at(0, 10).await.unwrap_err(), "read");
    assert!(source.status().last_error.unwrap().contains("panic in read"));
    // The instance goes on.
    assert!(source.health().await.unwrap().reachable);

    let source = misbehaving("panic-in-close");
    drop(source.open("medium-1", "1").await.unwrap());
    assert!(source.health().await.unwrap().reachable);
}

#[tokio::test]
async fn reads_that_lie() {
    let source = misbehaving("read-too-many");
    let open = source.open("medium-1", "1").await.unwrap();
    let error = open.read_at(0, 100).await.unwrap_err().error;
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("put 101 bytes into a buffer of 100"), "{error}");

    let source = misbehaving("read-short");
    let open = source.open("medium-1", "1").await.unwrap();
    let got = open.read_at(0, 100).await.unwrap();
    assert_eq!(got.len(), 50, "only the caller knows that there should be more");
    let error = SourceError::short_read("s", "medium-1", 0, 100, got.len());
    assert_eq!(error.error.code, ErrorCode::Corrupt);

    let refused = open.read_at(0, usize::MAX).await.unwrap_err().error;
    assert_eq!(refused.code, ErrorCode::Invalid);
    let refused = open.read_at(u64::MAX, 2).await.unwrap_err().error;
    assert_eq!(refused.code, ErrorCode::Invalid);
}

#[tokio::test]
async fn answers_that_lie() {
    let lies = |error: SourceError, part: &str| {
        assert_eq!(error.error.code, ErrorCode::Internal, "{error}");
        assert!(error.error.message.contains(part), "{error}");
    };
    lies(
        misbehaving("stat-another").stat("medium-1", None).await.unwrap_err(),
        "told the medium \"another\"",
    );
    lies(misbehaving("stat-nothing").stat("medium-1", None).await.unwrap_err(), "told nothing");
    lies(misbehaving("unknown-error").health().await.unwrap_err(), "returned 4711");
    lies(scan(&misbehaving("bad-watermark")).await.1.unwrap_err(), "watermark_ms is 9223372036854775807");
    let failed = try_source("c", json!({"misbehave": "unknown-capability"}), PATIENT).unwrap_err();
    assert_eq!(failed.error.code, ErrorCode::Unsupported);
    assert!(failed.error.message.contains("capabilities (0x10000000000)"), "{failed}");

    let stuck = misbehaving("stuck-cursor");
    let (sender, _receiver) = mpsc::channel(1);
    let end = stuck.scan(ScanStart::Full, sender.clone()).await.unwrap();
    assert!(!end.complete);
    lies(stuck.scan(ScanStart::Since(end.cursor), sender.clone()).await.unwrap_err(), "stays where it is");
    let long = stuck.scan(ScanStart::Since(vec![0; 4097]), sender).await.unwrap_err();
    assert_eq!(long.error.code, ErrorCode::Invalid);
}

#[tokio::test]
async fn a_flood_of_log_lines_passes_by() {
    assert!(misbehaving("chatty").health().await.unwrap().reachable);
}

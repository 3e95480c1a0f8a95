//! Watches: what they tell, how they end, and what they do wrong.

use std::{fs, sync::Arc, time::Duration};

use recgate::sources::{Instance, Live, LoadError, MediaSource, Plugins, SourceError};
use recgate_plugin_api::{ErrorCode, Item};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::support::{HASTY, PATIENT, TRUSTED, compile_c, safe_folder, source, threads_named, until};

fn watching(
    source: &Arc<Instance>,
    room: usize,
) -> (mpsc::Receiver<Live>, JoinHandle<Result<(), SourceError>>) {
    let (sender, receiver) = mpsc::channel(room);
    let source = Arc::clone(source);
    (receiver, tokio::spawn(async move { source.watch(sender).await }))
}

fn misbehaving(name: &str, what: &str) -> Arc<Instance> {
    let settings: Value = json!({"misbehave": what, "count": 3});
    source(name, settings, HASTY)
}

fn gone(name: &str) -> impl FnMut() -> bool {
    let name = format!("rg-{name}");
    move || threads_named(&name) == 0
}

async fn next(receiver: &mut mpsc::Receiver<Live>) -> Live {
    let next = tokio::time::timeout(Duration::from_secs(60), receiver.recv()).await;
    next.expect("told in time").expect("the watch goes on")
}

#[tokio::test]
async fn a_watch_goes_on_until_it_is_cancelled() {
    let source = misbehaving("watch", "wait-in-watch");
    assert!(source.watches());
    let (mut receiver, watch) = watching(&source, 64);
    assert_eq!(next(&mut receiver).await, Live::Listening);
    let scanned = source.stat("medium-0", None).await.unwrap();
    assert_eq!(next(&mut receiver).await, Live::Item(Item::Media(scanned)));
    assert!(matches!(next(&mut receiver).await, Live::Item(Item::Facts(_))));
    for _ in 2..6 {
        next(&mut receiver).await;
    }
    // It has no deadline, isn't taken for a call that runs, and keeps nobody waiting.
    tokio::time::sleep(HASTY.timeout * 3).await;
    let status = source.status();
    assert_eq!((status.available, status.running_calls, status.abandoned_calls), (true, 0, 0));
    assert!(source.health().await.unwrap().reachable);
    assert!(!watch.is_finished());

    watch.abort();
    until("the plugin saw it", || receiver.is_closed()).await;
    assert_eq!(source.status().abandoned_calls, 0);
    // And again, on the same instance.
    let (mut receiver, watch) = watching(&source, 64);
    assert_eq!(next(&mut receiver).await, Live::Listening);
    watch.abort();
    drop(source);
    until("all threads end", gone("watch")).await;
}

#[tokio::test]
async fn a_watch_that_is_not_there_stays_away() {
    let source = source("never", json!({"count": 1}), PATIENT);
    let (_receiver, watch) = watching(&source, 1);
    let error = watch.await.unwrap().unwrap_err().error;
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Unsupported, "not configured to watch"));
    assert_eq!(source.status().last_error, None, "that is no fault");
}

#[tokio::test]
async fn a_watch_that_returns_or_panics_says_so() {
    let (_receiver, watch) = watching(&misbehaving("returns", "return-in-watch"), 1);
    watch.await.unwrap().unwrap();
    let source = misbehaving("panics", "panic-in-watch");
    for _ in 0..20 {
        let (_receiver, watch) = watching(&source, 1);
        let error = watch.await.unwrap().unwrap_err().error;
        assert_eq!(error.code, ErrorCode::Panic);
        assert_eq!(error.message, "panic in watch, as configured");
    }
    assert!(source.status().last_error.unwrap().contains("panic in watch"));
    assert!(source.health().await.unwrap().reachable);
}

#[tokio::test]
async fn a_watch_that_never_returns_is_abandoned_once_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let settings = json!({"misbehave": "hang-in-watch", "release": go, "count": 1});
    let source = source("hangs", settings, HASTY);
    let (mut receiver, watch) = watching(&source, 1);
    assert_eq!(next(&mut receiver).await, Live::Listening);
    watch.abort();
    until("it is abandoned", || source.status().abandoned_calls == 1).await;
    assert!(source.status().available);
    assert!(source.health().await.unwrap().reachable);
    // Another takes its place, and so on, but not without end.
    for abandoned in 2..=8 {
        let (mut receiver, watch) = watching(&source, 1);
        assert_eq!(next(&mut receiver).await, Live::Listening);
        watch.abort();
        until("it counts", || source.status().abandoned_calls == abandoned).await;
    }
    assert!(!source.status().available);
    let (_receiver, watch) = watching(&source, 1);
    assert_eq!(watch.await.unwrap().unwrap_err().error.code, ErrorCode::Unavailable);
    assert_eq!(source.status().abandoned_calls, 8);
    fs::write(&go, "").unwrap();
    until("all return", || source.status().abandoned_calls == 0).await;
    drop((source, receiver));
    until("all threads end", gone("hangs")).await;
}

#[tokio::test]
async fn a_flood_waits_for_its_listener() {
    let source = misbehaving("flood", "flood-in-watch");
    let (mut receiver, watch) = watching(&source, 2);
    for _ in 0..10 {
        next(&mut receiver).await;
    }
    until("the channel is full", || receiver.len() == 2).await;
    tokio::time::sleep(HASTY.timeout * 2).await;
    assert_eq!((receiver.len(), source.status().abandoned_calls), (2, 0));
    assert!(source.health().await.unwrap().reachable);
    // It ends although nobody takes what it tells.
    watch.abort();
    drop(source);
    until("all threads end", gone("flood")).await;
    drop(receiver);

    let source = misbehaving("deserted", "flood-in-watch");
    let (receiver, watch) = watching(&source, 1);
    drop(receiver);
    assert_eq!(watch.await.unwrap().unwrap_err().error.code, ErrorCode::Cancelled);
}

#[tokio::test]
async fn nonsense_is_dropped_and_reported() {
    let source = misbehaving("lies", "nonsense-in-watch");
    let (mut receiver, watch) = watching(&source, 1);
    assert_eq!(next(&mut receiver).await, Live::Listening);
    for _ in 0..3 {
        let Live::Item(Item::Media(media)) = next(&mut receiver).await else { panic!("media first") };
        assert!(media.id.starts_with("medium-"), "{media:?}");
        assert!(matches!(next(&mut receiver).await, Live::Item(Item::Facts(_))));
    }
    let reported = source.status().last_error.unwrap();
    assert!(reported.starts_with("watch: 64 of 65 items were dropped as nonsense"), "{reported}");
    assert!(reported.contains("id is empty"), "{reported}");
    watch.abort();
}

#[tokio::test]
async fn who_closes_the_source_ends_its_watch() {
    let source = misbehaving("closing", "wait-in-watch");
    let (mut receiver, watch) = watching(&source, 64);
    next(&mut receiver).await;
    source.close();
    assert_eq!(watch.await.unwrap().unwrap_err().error.code, ErrorCode::Cancelled);
}

const NO_CAPABILITIES: &str = "    (void)out; /* zeroed: no capabilities, limits left to the host */\n";
const WATCHES: &str = "    out->bits = RG_CAP_WATCH;\n";

fn load(changes: &[(&str, &str)]) -> Result<Arc<Instance>, String> {
    let folder = safe_folder();
    let library = compile_c(folder.path(), "libwatching.so", changes);
    let plugins = Plugins::new(None, vec![folder.path().to_owned()]);
    let plugin = plugins.load(library.to_str().unwrap(), TRUSTED).map_err(|e: LoadError| e.to_string())?;
    plugin.create("c", &json!({}), PATIENT).map_err(|e| e.to_string())
}

#[test]
fn a_bit_without_its_function_is_refused() {
    let refused = load(&[(NO_CAPABILITIES, WATCHES)]).unwrap_err();
    assert!(refused.contains("declares RG_CAP_WATCH, and its table has no `watch`"), "{refused}");
    // Of the two minors the smaller one counts, and 0.1 had no such bit.
    let refused =
        load(&[(NO_CAPABILITIES, WATCHES), (".abi_minor = RG_ABI_MINOR", ".abi_minor = 1")]).unwrap_err();
    assert!(
        refused.contains("declares capabilities (0x2) for which plugin ABI 0.1 has no functions"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_plugin_in_c_watches() {
    const DESCRIPTOR: &str = "RG_EXPORT const rg_descriptor";
    let function = format!(
        r#"
static int32_t watch_all(rg_instance *instance, const rg_call *call, rg_emit_item emit, void *emit_ctx,
                         rg_error *error) {{
    (void)error;
    const rg_item listening = {{.struct_size = sizeof listening, .kind = RG_ITEM_LISTENING}};
    int32_t stopped = emit(emit_ctx, &listening);
    while (stopped == RG_OK && !call->is_cancelled(call->ctx)) {{
        stopped = tell(instance, emit, emit_ctx);
    }}
    return stopped == RG_OK ? RG_E_CANCELLED : stopped;
}}

{DESCRIPTOR}"#
    );
    let source = load(&[
        (NO_CAPABILITIES, WATCHES),
        (DESCRIPTOR, &function),
        ("        .close = close_medium,\n", "        .close = close_medium,\n        .watch = watch_all,\n"),
    ])
    .unwrap();
    let (mut receiver, watch) = watching(&source, 1);
    assert_eq!(next(&mut receiver).await, Live::Listening);
    for _ in 0..3 {
        let Live::Item(Item::Media(media)) = next(&mut receiver).await else { panic!("a medium") };
        assert_eq!(media.id, "hello.txt");
    }
    watch.abort();
    drop(source);
    until("all threads end", gone("c")).await;
}

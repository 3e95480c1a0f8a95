//! The entry points as a host calls them: through the table, with C structs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::result_large_err)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every pointer here is to a local of the test")]

use std::{
    ffi::c_void,
    mem::offset_of,
    ptr, slice, str,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;
use crate::{
    abi::{Prefixed, RgItem, RgMedia},
    sdk::{Call, Emit, Watcher},
    types::{
        Capabilities, Facts, Health, JoinKey, JoinKind, Media, MediaState, Precision, ScanEnd, ScanFrom,
    },
};

/// Does what its configuration says.
struct Fake {
    mode: String,
    host: Arc<dyn Host>,
}

struct FakeHandle {
    panics: bool,
}

impl Drop for FakeHandle {
    fn drop(&mut self) {
        assert!(!self.panics, "the handle's drop panics");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        assert!(self.mode != "panic-in-drop", "the instance's drop panics");
    }
}

fn medium() -> Media {
    Media {
        id: "a/ü.wav".into(),
        version: "v1".into(),
        size: 4000,
        media_type: "audio/wav".into(),
        start_ms: Some(1_465_171_277_000),
        start_precision: Precision::Second,
        duration_ms: Some(500),
        changed_ms: 1_465_171_300_000,
        state: MediaState::Failed,
        state_reason: "why".into(),
        header_patch: vec![1, 2, 3],
        keys: vec![
            JoinKey { kind: JoinKind::ObjectKey, value: "a".into() },
            JoinKey { kind: JoinKind::RecordingUuid, value: "b".into() },
        ],
        ..Media::default()
    }
}

impl Source for Fake {
    type Handle = FakeHandle;
    const NAME: &'static str = "fake";
    const VERSION: &'static str = "1.2.3";
    const LICENCE: &'static str = "Apache-2.0";
    const WATCHES: bool = true;

    fn config_schema() -> String {
        "{}".to_owned()
    }

    fn create(config_json: &str, host: Arc<dyn Host>) -> Result<Self, Error> {
        host.log(Level::Info, "fake", config_json);
        match config_json {
            "panic" => panic!("create panics with {}", 7),
            "panic-any" => std::panic::panic_any(7_u8),
            "refuse" => {
                Err(Error { retry_after_ms: 9, ..Error::new(ErrorCode::Permission, "ä".repeat(999)) })
            }
            mode => Ok(Self { mode: mode.to_owned(), host }),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { facts: true, max_concurrent_calls: 3, preferred_read_size: 4 }
    }

    fn health(&self, call: &dyn Call) -> Result<Health, Error> {
        if call.is_cancelled() {
            return Err(Error::new(ErrorCode::Cancelled, "cancelled"));
        }
        Ok(Health { reachable: true, message: "x".repeat(2000), storage_time_ms: Some(self.host.now_ms()) })
    }

    fn scan(&self, _: &dyn Call, from: ScanFrom<'_>, emit: Emit<'_>) -> Result<ScanEnd, Error> {
        match self.mode.as_str() {
            "deaf" => {
                let _ = emit(Item::Media(medium()));
                let _ = emit(Item::Media(medium()));
            }
            "long-cursor" => {
                return Ok(ScanEnd { cursor: vec![0; 5000], ..ScanEnd::default() });
            }
            _ => {
                emit(Item::Media(medium()))?;
                emit(Item::MediaGone("gone".into()))?;
                let values = vec![("k".to_owned(), "v".to_owned()), (String::new(), "w".to_owned())];
                emit(Item::Facts(Facts { id: "f".into(), revision: 8, gone: true, values, keys: vec![] }))?;
            }
        }
        let cursor = match from {
            ScanFrom::Full => b"full".to_vec(),
            ScanFrom::Since(cursor) => cursor.to_vec(),
        };
        Ok(ScanEnd { cursor, complete: true, watermark_ms: -5 })
    }

    fn stat(&self, _: &dyn Call, id: &str, version: Option<&str>) -> Result<Media, Error> {
        assert_ne!(id, "panic", "stat panics");
        Ok(Media { id: id.to_owned(), version: version.unwrap_or("none").to_owned(), ..medium() })
    }

    fn open(&self, _: &dyn Call, id: &str, _: &str) -> Result<FakeHandle, Error> {
        Ok(FakeHandle { panics: id == "panic-in-drop" })
    }

    fn read_at(&self, _: &dyn Call, _: &FakeHandle, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        buf.fill(offset as u8);
        Ok(buf.len())
    }

    fn watch(&self, call: &dyn Call, to: &mut dyn Watcher) -> Result<(), Error> {
        assert_ne!(self.mode, "panic-in-watch", "watch panics");
        if self.mode == "deaf" {
            let _ = to.tell(Item::MediaGone("first".into()));
            let _ = to.listening();
            return Ok(());
        }
        to.listening()?;
        to.tell(Item::MediaGone("gone".into()))?;
        let values = vec![("k".to_owned(), "v".to_owned())];
        to.tell(Item::Facts(Facts { id: "f".into(), revision: 9, values, ..Facts::default() }))?;
        match call.is_cancelled() {
            true => Err(Error::new(ErrorCode::Cancelled, "cancelled")),
            false => Ok(()),
        }
    }
}

/// A source that leaves out what it may.
struct Plain;

impl Source for Plain {
    type Handle = ();
    const NAME: &'static str = "plain";
    const VERSION: &'static str = "1";
    const LICENCE: &'static str = "Apache-2.0";

    fn config_schema() -> String {
        "{}".to_owned()
    }
    fn create(_: &str, _: Arc<dyn Host>) -> Result<Self, Error> {
        Ok(Self)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn health(&self, _: &dyn Call) -> Result<Health, Error> {
        Ok(Health::default())
    }
    fn scan(&self, _: &dyn Call, _: ScanFrom<'_>, _: Emit<'_>) -> Result<ScanEnd, Error> {
        Ok(ScanEnd::default())
    }
    fn stat(&self, _: &dyn Call, _: &str, _: Option<&str>) -> Result<Media, Error> {
        Ok(medium())
    }
    fn open(&self, _: &dyn Call, _: &str, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn read_at(&self, _: &dyn Call, (): &(), _: u64, _: &mut [u8]) -> Result<usize, Error> {
        Ok(0)
    }
}

/// Lines that the fake host was told; the tests share the library's one host.
static LINES: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

unsafe extern "C" fn host_log(_: *mut c_void, level: u32, target: RgStr, message: RgStr) {
    let line = unsafe { format!("{}: {}", owned(target), owned(message)) };
    LINES.lock().unwrap().push((level, line));
}

unsafe extern "C" fn host_now(_: *mut c_void) -> i64 {
    42
}

unsafe extern "C" fn flag(ctx: *mut c_void) -> u32 {
    unsafe { &*ctx.cast::<AtomicU32>() }.load(Ordering::Relaxed)
}

unsafe fn owned(text: RgStr) -> String {
    if text.len == 0 {
        return String::new();
    }
    unsafe { str::from_utf8(slice::from_raw_parts(text.ptr.cast(), text.len as usize)).unwrap().to_owned() }
}

fn table() -> RgPlugin {
    let host =
        RgHost { abi_minor: ABI_MINOR, log: Some(host_log), now_ms: Some(host_now), ..Prefixed::empty() };
    let mut table: RgPlugin = Prefixed::empty();
    let mut error: RgError = Prefixed::empty();
    let host = Box::leak(Box::new(host));
    assert_eq!(unsafe { init::<Fake>(host, &mut table, &mut error) }, abi::OK, "{}", message(&error));
    table
}

fn message(error: &RgError) -> &str {
    str::from_utf8(&error.message[..error.message_len as usize]).unwrap()
}

fn create_fake(config: &str) -> Result<*mut RgInstance, (i32, RgError)> {
    let mut instance = ptr::null_mut();
    let mut error: RgError = Prefixed::empty();
    match unsafe { table().create.unwrap()(RgStr::new(config), &mut instance, &mut error) } {
        abi::OK => Ok(instance),
        code => {
            assert!(instance.is_null());
            assert_eq!(code, error.code);
            Err((code, error))
        }
    }
}

fn free_call() -> RgCall {
    Prefixed::empty()
}

unsafe extern "C" fn collect(ctx: *mut c_void, item: *const RgItem) -> i32 {
    let told = unsafe { &mut *ctx.cast::<Vec<String>>() };
    let item = unsafe { abi::read_prefix(item) }.unwrap();
    told.push(match item.kind {
        abi::ITEM_MEDIA => unsafe {
            let m: RgMedia = abi::read_prefix(item.media).unwrap();
            let keys: Vec<_> = slice::from_raw_parts(m.keys, m.key_count as usize)
                .iter()
                .map(|k| format!("{}={}", k.kind, owned(k.value)))
                .collect();
            let patch = slice::from_raw_parts(m.header_patch.ptr, m.header_patch.len as usize);
            format!(
                "{} {} {} {} start {} has {} state {} {} precision {} {patch:?} {keys:?}",
                owned(m.id),
                owned(m.version),
                m.size,
                owned(m.media_type),
                m.start_ms,
                m.present,
                m.state,
                owned(m.state_reason),
                m.start_precision,
            )
        },
        abi::ITEM_MEDIA_GONE => unsafe { format!("gone {}", owned(item.gone_id)) },
        abi::ITEM_LISTENING => "listening".to_owned(),
        _ => unsafe {
            let f = abi::read_prefix(item.facts).unwrap();
            let values: Vec<_> = slice::from_raw_parts(f.values, f.value_count as usize)
                .iter()
                .map(|p| format!("{}={}", owned(p.key), owned(p.value)))
                .collect();
            format!("facts {} {} gone {} {values:?} keys {}", owned(f.id), f.revision, f.gone, f.key_count)
        },
    });
    abi::OK
}

unsafe extern "C" fn refuse(ctx: *mut c_void, _: *const RgItem) -> i32 {
    unsafe { *ctx.cast::<u32>() += 1 };
    ErrorCode::Busy as i32
}

fn run_scan(
    instance: *mut RgInstance,
    from: &RgScanFrom,
    emit: RgEmitItem,
    ctx: *mut c_void,
) -> (i32, RgScanEnd, RgError) {
    let mut end: RgScanEnd = Prefixed::empty();
    let mut error: RgError = Prefixed::empty();
    let code =
        unsafe { table().scan.unwrap()(instance, &free_call(), from, emit, ctx, &mut end, &mut error) };
    (code, end, error)
}

#[test]
fn descriptor_names_the_plugin() {
    const DESCRIPTOR: RgDescriptor = descriptor::<Fake>();
    assert_eq!(DESCRIPTOR.magic.to_le_bytes(), *b"RECGATE\0");
    assert_eq!(&DESCRIPTOR.name[..5], b"fake\0");
    assert_eq!((DESCRIPTOR.abi_major, DESCRIPTOR.abi_minor), (ABI_MAJOR, ABI_MINOR));
}

#[test]
fn panics_become_errors_with_their_message() {
    let (code, error) = create_fake("panic").unwrap_err();
    assert_eq!((code, message(&error)), (ErrorCode::Panic as i32, "create panics with 7"));
    let (code, error) = create_fake("panic-any").unwrap_err();
    assert_eq!((code, message(&error)), (ErrorCode::Panic as i32, "a panic without a message"));
}

#[test]
fn panics_in_close_and_destroy_are_logged() {
    let instance = create_fake("panic-in-drop").unwrap();
    let mut handle = ptr::null_mut();
    let mut error: RgError = Prefixed::empty();
    let table = table();
    let opened = unsafe {
        let id = RgStr::new("panic-in-drop");
        table.open.unwrap()(instance, &free_call(), id, RgStr::EMPTY, &mut handle, &mut error)
    };
    assert_eq!(opened, abi::OK);
    unsafe { table.close.unwrap()(instance, handle) };
    unsafe { table.destroy.unwrap()(instance) };
    let lines = LINES.lock().unwrap();
    let has = |text: &str| lines.iter().any(|(level, line)| *level == 1 && line.contains(text));
    assert!(has("panic in close: the handle's drop panics"), "{lines:?}");
    assert!(has("panic in destroy: the instance's drop panics"), "{lines:?}");
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let (code, error) = create_fake("refuse").unwrap_err();
    assert_eq!((code, error.retry_after_ms), (ErrorCode::Permission as i32, 9));
    assert_eq!(message(&error), "ä".repeat(500));
}

#[test]
fn text_of_the_host_is_checked() {
    let mut instance = ptr::null_mut();
    let mut error: RgError = Prefixed::empty();
    let bad = [
        RgStr { ptr: b"\xff".as_ptr().cast(), len: 1 },
        RgStr { ptr: ptr::null(), len: 1 },
        RgStr { ptr: b"x".as_ptr().cast(), len: u64::MAX },
    ];
    for config in bad {
        let code = unsafe { table().create.unwrap()(config, &mut instance, &mut error) };
        assert_eq!(code, ErrorCode::Invalid as i32);
        assert!(message(&error).contains("config_json"), "{}", message(&error));
    }
}

#[test]
fn scan_tells_all_kinds_of_items() {
    let instance = create_fake("").unwrap();
    let mut told: Vec<String> = Vec::new();
    let from = RgScanFrom { kind: abi::SCAN_SINCE, cursor: abi::RgBytes::new(b"here"), ..Prefixed::empty() };
    let (code, end, error) = run_scan(instance, &from, collect, ptr::from_mut(&mut told).cast());
    assert_eq!(code, abi::OK, "{}", message(&error));
    assert_eq!(
        told,
        [
            "a/ü.wav v1 4000 audio/wav start 1465171277000 has 5 state 4 why precision 3 [1, 2, 3] [\"2=a\", \"1=b\"]",
            "gone gone",
            "facts f 8 gone 1 [\"k=v\", \"=w\"] keys 0",
        ]
    );
    assert_eq!((end.complete, end.watermark_ms, end.cursor_len), (1, -5, 4));
    assert_eq!(&end.cursor[..4], b"here");
    unsafe { table().destroy.unwrap()(instance) };
}

#[test]
fn a_host_that_says_stop_is_obeyed() {
    for mode in ["", "deaf"] {
        let instance = create_fake(mode).unwrap();
        let mut asked = 0_u32;
        let from = RgScanFrom { kind: abi::SCAN_FULL, ..Prefixed::empty() };
        let (code, _, _) = run_scan(instance, &from, refuse, ptr::from_mut(&mut asked).cast());
        assert_eq!((code, asked), (ErrorCode::Busy as i32, 1), "mode {mode:?}");
        unsafe { table().destroy.unwrap()(instance) };
    }
}

#[test]
fn a_cursor_that_is_too_long_is_the_plugins_defect() {
    let instance = create_fake("long-cursor").unwrap();
    let mut told: Vec<String> = Vec::new();
    let from = RgScanFrom { kind: abi::SCAN_FULL, ..Prefixed::empty() };
    let (code, _, error) = run_scan(instance, &from, collect, ptr::from_mut(&mut told).cast());
    assert_eq!(code, ErrorCode::Internal as i32);
    assert!(message(&error).contains("5000"));
    let from = RgScanFrom { kind: 77, ..Prefixed::empty() };
    let (code, _, _) = run_scan(instance, &from, collect, ptr::from_mut(&mut told).cast());
    assert_eq!(code, ErrorCode::Invalid as i32);
    unsafe { table().destroy.unwrap()(instance) };
}

fn run_watch(mode: &str, emit: RgEmitItem, ctx: *mut c_void, cancelled: u32) -> (i32, RgError) {
    let instance = create_fake(mode).unwrap();
    let cancelled = AtomicU32::new(cancelled);
    let call = RgCall {
        ctx: ptr::from_ref(&cancelled).cast_mut().cast(),
        is_cancelled: Some(flag),
        ..Prefixed::empty()
    };
    let mut error: RgError = Prefixed::empty();
    let code = unsafe { table().watch.unwrap()(instance, &call, emit, ctx, &mut error) };
    unsafe { table().destroy.unwrap()(instance) };
    (code, error)
}

#[test]
fn watch_tells_that_it_listens_and_what_happens() {
    let mut told: Vec<String> = Vec::new();
    let ctx: *mut c_void = ptr::from_mut(&mut told).cast();
    assert_eq!(run_watch("", collect, ctx, 0).0, abi::OK);
    assert_eq!(run_watch("", collect, ctx, 1).0, ErrorCode::Cancelled as i32);
    let once = ["listening", "gone gone", "facts f 9 gone 0 [\"k=v\"] keys 0"];
    assert_eq!(told, [once, once].concat());

    for mode in ["", "deaf"] {
        let mut asked = 0_u32;
        let (code, _) = run_watch(mode, refuse, ptr::from_mut(&mut asked).cast(), 0);
        assert_eq!((code, asked), (ErrorCode::Busy as i32, 1), "mode {mode:?}");
    }
    let (code, error) = run_watch("panic-in-watch", collect, ctx, 0);
    assert_eq!(code, ErrorCode::Panic as i32);
    assert!(message(&error).contains("watch panics"), "{}", message(&error));
}

#[test]
fn a_source_that_does_not_watch_has_neither_function_nor_bit() {
    let host = Box::leak(Box::new(RgHost { abi_minor: ABI_MINOR, ..Prefixed::empty() }));
    let mut plain: RgPlugin = Prefixed::empty();
    let mut error: RgError = Prefixed::empty();
    assert_eq!(unsafe { init::<Plain>(host, &mut plain, &mut error) }, abi::OK);
    assert!(plain.watch.is_none() && table().watch.is_some());
    assert_eq!(bits::<Plain>(Plain, ABI_MINOR), 0);
    let fake = || Fake { mode: String::new(), host: Arc::new(AbiHost::of_minor(ABI_MINOR)) };
    assert_eq!(bits(fake(), ABI_MINOR), abi::CAP_FACTS | abi::CAP_WATCH);
    assert_eq!(bits(fake(), 99), abi::CAP_FACTS | abi::CAP_WATCH);
    // A host of the minor before refuses bits that it doesn't know.
    assert_eq!(bits(fake(), 1), abi::CAP_FACTS);
}

/// The capabilities that a host of this minor is told.
fn bits<S: Source>(source: S, host_minor: u32) -> u64 {
    let mut instance = Instance { source, host: Arc::new(AbiHost::of_minor(host_minor)) };
    let mut out: RgCapabilities = Prefixed::empty();
    let mut error: RgError = Prefixed::empty();
    let instance = ptr::from_mut(&mut instance).cast();
    assert_eq!(unsafe { capabilities::<S>(instance, &mut out, &mut error) }, abi::OK);
    out.bits
}

#[test]
fn calls_see_cancellation_and_the_clock() {
    let instance = create_fake("").unwrap();
    let cancelled = AtomicU32::new(0);
    let call = RgCall {
        ctx: ptr::from_ref(&cancelled).cast_mut().cast(),
        is_cancelled: Some(flag),
        ..Prefixed::empty()
    };
    let mut health: RgHealth = Prefixed::empty();
    let mut error: RgError = Prefixed::empty();
    let function = table().health.unwrap();
    assert_eq!(unsafe { function(instance, &call, &mut health, &mut error) }, abi::OK);
    assert_eq!((health.reachable, health.present, health.storage_time_ms), (1, 1, 42));
    assert_eq!(health.message_len, 1000);
    cancelled.store(1, Ordering::Relaxed);
    let code = unsafe { function(instance, &call, &mut health, &mut error) };
    assert_eq!(code, ErrorCode::Cancelled as i32);
    unsafe { table().destroy.unwrap()(instance) };
}

#[test]
fn stat_and_read_work_and_contain_nonsense() {
    let instance = create_fake("").unwrap();
    let table = table();
    let mut error: RgError = Prefixed::empty();
    let mut told: Vec<String> = Vec::new();
    let ctx = ptr::from_mut(&mut told).cast();
    let stat = |id, version, error: &mut RgError| unsafe {
        table.stat.unwrap()(instance, &free_call(), RgStr::new(id), version, collect, ctx, error)
    };
    assert_eq!(stat("i", RgStr::EMPTY, &mut error), abi::OK);
    assert_eq!(stat("i", RgStr::new("7"), &mut error), abi::OK);
    assert!(told[0].starts_with("i none") && told[1].starts_with("i 7"), "{told:?}");
    assert_eq!(stat("panic", RgStr::EMPTY, &mut error), ErrorCode::Panic as i32);
    assert!(message(&error).contains("stat panics"));

    let mut handle = ptr::null_mut();
    let id = RgStr::new("i");
    unsafe {
        table.open.unwrap()(instance, &free_call(), id, RgStr::EMPTY, &mut handle, &mut error);
        let read = table.read_at.unwrap();
        let mut buf = [0_u8; 8];
        let mut got = 0;
        assert_eq!(
            read(instance, &free_call(), handle, 3, buf.as_mut_ptr(), 8, &mut got, &mut error),
            abi::OK
        );
        assert_eq!((buf, got), ([3; 8], 8));
        let code = read(instance, &free_call(), handle, 0, ptr::null_mut(), 8, &mut got, &mut error);
        assert_eq!(code, ErrorCode::Invalid as i32);
        let code =
            read(instance, &free_call(), ptr::null_mut(), 0, buf.as_mut_ptr(), 8, &mut got, &mut error);
        assert_eq!(code, ErrorCode::Invalid as i32);
        table.close.unwrap()(instance, handle);
        let code = table.capabilities.unwrap()(ptr::null_mut(), ptr::null_mut(), &mut error);
        assert_eq!(code, ErrorCode::Invalid as i32);
        table.destroy.unwrap()(instance);
    }
}

/// A later host with a longer struct, and one with a struct that is too short.
#[test]
fn sizes_decide_what_is_read_and_written() {
    #[repr(C)]
    struct Later {
        known: RgCapabilities,
        appended: u64,
    }
    let instance = create_fake("").unwrap();
    let mut later = Later { known: Prefixed::empty(), appended: 77 };
    later.known.struct_size = size_of::<Later>() as u32;
    let mut error: RgError = Prefixed::empty();
    let function = table().capabilities.unwrap();
    // The pointer is to the whole of `later`.
    let out = ptr::from_mut(&mut later).cast::<RgCapabilities>();
    assert_eq!(unsafe { function(instance, out, &mut error) }, abi::OK);
    assert_eq!((later.known.max_concurrent_calls, later.known.bits), (3, abi::CAP_FACTS | abi::CAP_WATCH));
    assert_eq!(later.known.struct_size as usize, size_of::<RgCapabilities>());
    assert_eq!(later.appended, 77);

    let mut short: RgCapabilities = Prefixed::empty();
    short.struct_size = 16;
    let code = unsafe { function(instance, &mut short, &mut error) };
    assert_eq!(code, ErrorCode::Invalid as i32);
    assert!(message(&error).contains("struct_size of 16"), "{}", message(&error));
    unsafe { table().destroy.unwrap()(instance) };
}

/// What is beyond the struct_size of the other side isn't looked at.
#[test]
fn a_prefix_leaves_the_rest_zero() {
    let mut media: RgMedia = Prefixed::empty();
    media.size = 5;
    media.key_count = 9;
    assert_eq!(RgMedia::SIZE_0_1 as usize, offset_of!(RgMedia, key_count) + 8);
    let read = unsafe { abi::read_prefix(&media) }.unwrap();
    assert_eq!((read.size, read.key_count), (5, 9));
    media.struct_size = RgMedia::SIZE_0_1 - 1;
    let too_small = abi::PrefixError::TooSmall { given: 183, least: 184 };
    assert_eq!(unsafe { abi::read_prefix(&media) }.unwrap_err(), too_small);
    assert_eq!(unsafe { abi::read_prefix(ptr::null::<RgMedia>()) }.unwrap_err(), abi::PrefixError::Null);
    let unaligned = ptr::from_ref(&media).wrapping_byte_add(1);
    assert_eq!(unsafe { abi::read_prefix(unaligned) }.unwrap_err(), abi::PrefixError::Unaligned);
}

//! The C entry points of a [`Source`]. Not for use by hand: [`crate::export!`] is the way.
//!
//! Every entry point does three things in this order: turn the C arguments into Rust with all checks, run the plugin's
//! method inside `catch_unwind`, turn the outcome into C. Nothing that can panic runs outside `catch_unwind`.

#![expect(unsafe_code, reason = "the C side of the ABI")]

mod convert;
mod host;

use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::Arc,
};

use self::{
    convert::{ItemBuffers, message_into, scan_from, text, write_out},
    host::{AbiCall, AbiHost},
};
use crate::{
    abi::{
        self, ABI_MAJOR, ABI_MINOR, DESCRIPTOR_MAGIC, RgCall, RgCapabilities, RgDescriptor, RgEmitItem,
        RgEmitText, RgError, RgHandle, RgHealth, RgHost, RgInstance, RgItem, RgPlugin, RgScanEnd, RgScanFrom,
        RgStr,
    },
    sdk::{Host, Level, Source, Watcher},
    types::{Error, ErrorCode, Item},
};

/// Exports a [`Source`] from a `cdylib`: once in a crate.
#[macro_export]
macro_rules! export {
    ($source:ty) => {
        const _: () = {
            #[allow(unsafe_code, non_upper_case_globals)]
            // SAFETY: the name belongs to the ABI, and no other crate in a plugin exports it.
            #[unsafe(no_mangle)]
            pub static rg_plugin_descriptor: $crate::abi::RgDescriptor =
                $crate::export::descriptor::<$source>();

            #[allow(unsafe_code)]
            // SAFETY: the name belongs to the ABI, and no other crate in a plugin exports it.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rg_plugin_init(
                host: *const $crate::abi::RgHost,
                out: *mut $crate::abi::RgPlugin,
                error: *mut $crate::abi::RgError,
            ) -> i32 {
                // A panic reaches the host as an error with its message; the standard streams aren't the plugin's.
                // The hook is that of the plugin's own copy of std. Unit tests keep theirs.
                if !cfg!(test) {
                    ::std::panic::set_hook(::std::boxed::Box::new(|_| {}));
                }
                // SAFETY: the arguments are handed on as the host gave them.
                unsafe { $crate::export::init::<$source>(host, out, error) }
            }
        };
    };
}

/// The descriptor of a source. Evaluated when the plugin is compiled: a name that is too long doesn't compile.
pub const fn descriptor<S: Source>() -> RgDescriptor {
    RgDescriptor {
        magic: DESCRIPTOR_MAGIC,
        struct_size: size_of::<RgDescriptor>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        reserved: 0,
        name: padded(S::NAME),
        version: padded(S::VERSION),
        licence: padded(S::LICENCE),
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time only, by `descriptor`")]
const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let bytes = text.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= N, "NAME, VERSION or LICENCE is empty or too long");
    let mut padded = [0; N];
    let mut i = 0;
    while i < bytes.len() {
        padded[i] = bytes[i];
        i += 1;
    }
    padded
}

/// `rg_plugin_init` for a source.
///
/// # Safety
///
/// As the header demands of `rg_plugin_init`: valid pointers, `host` for ever.
pub unsafe fn init<S: Source>(host: *const RgHost, out: *mut RgPlugin, error: *mut RgError) -> i32 {
    // SAFETY: `error` as the caller promised.
    unsafe {
        guard(error, || {
            host::remember(host)?;
            let table = RgPlugin {
                config_schema: Some(config_schema::<S>),
                create: Some(create::<S>),
                destroy: Some(destroy::<S>),
                capabilities: Some(capabilities::<S>),
                health: Some(health::<S>),
                scan: Some(scan::<S>),
                stat: Some(stat::<S>),
                open: Some(open::<S>),
                read_at: Some(read_at::<S>),
                close: Some(close::<S>),
                watch: S::WATCHES.then_some(watch::<S>),
                ..abi::Prefixed::empty()
            };
            write_out(out, table, "rg_plugin_init: out")
        })
    }
}

/// What stands behind an `rg_instance`.
struct Instance<S> {
    source: S,
    host: Arc<AbiHost>,
}

unsafe extern "C" fn config_schema<S: Source>(
    emit: RgEmitText,
    emit_ctx: *mut c_void,
    error: *mut RgError,
) -> i32 {
    // SAFETY: `error`, `emit` and its argument are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let schema = S::config_schema();
            stopped(emit(emit_ctx, RgStr::new(&schema)))
        })
    }
}

unsafe extern "C" fn create<S: Source>(
    config_json: RgStr,
    out: *mut *mut RgInstance,
    error: *mut RgError,
) -> i32 {
    // SAFETY: text, `out` and `error` are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let config = text(&config_json, "create: config_json")?;
            if out.is_null() {
                return Err(Error::new(ErrorCode::Invalid, "create: out is NULL"));
            }
            let host = host::remembered()?;
            let source = S::create(config, Arc::clone(&host) as Arc<dyn Host>)?;
            out.write(Box::into_raw(Box::new(Instance { source, host })).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn destroy<S: Source>(instance: *mut RgInstance) {
    if instance.is_null() {
        return;
    }
    // SAFETY: made by `create::<S>`, and by the host's promise neither used nor destroyed elsewhere.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance<S>>()) };
    let host = Arc::clone(&instance.host);
    contained(&host, "destroy", move || drop(instance));
}

unsafe extern "C" fn capabilities<S: Source>(
    instance: *mut RgInstance,
    out: *mut RgCapabilities,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let instance = this::<S>(instance)?;
            let told = instance.source.capabilities();
            // A host of an earlier minor refuses a bit that it doesn't know.
            let watches = S::WATCHES && instance.host.abi_minor() >= abi::WATCH_SINCE;
            let c = RgCapabilities {
                max_concurrent_calls: told.max_concurrent_calls,
                bits: if told.facts { abi::CAP_FACTS } else { 0 } | if watches { abi::CAP_WATCH } else { 0 },
                preferred_read_size: told.preferred_read_size,
                ..abi::Prefixed::empty()
            };
            write_out(out, c, "capabilities: out")
        })
    }
}

unsafe extern "C" fn health<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    out: *mut RgHealth,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let told = this::<S>(instance)?.source.health(&AbiCall::new(call)?)?;
            let mut c: RgHealth = abi::Prefixed::empty();
            c.reachable = told.reachable.into();
            if let Some(time) = told.storage_time_ms {
                c.present |= abi::HEALTH_HAS_STORAGE_TIME;
                c.storage_time_ms = time;
            }
            c.message_len = message_into(&mut c.message, &told.message);
            write_out(out, c, "health: out")
        })
    }
}

unsafe extern "C" fn scan<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    from: *const RgScanFrom,
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    out: *mut RgScanEnd,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let from = abi::read_prefix(from).map_err(|e| invalid("scan: from", &e))?;
            let from = scan_from(&from)?;
            let mut emitter = Emitter { emit, emit_ctx, buffers: ItemBuffers::default(), stopped: None };
            let instance = this::<S>(instance)?;
            let result = instance.source.scan(&AbiCall::new(call)?, from, &mut |item| emitter.tell(&item));
            if let Some(stop) = emitter.stopped {
                return Err(stop);
            }
            let end = result?;
            let mut c: RgScanEnd = abi::Prefixed::empty();
            let Some(room) = c.cursor.get_mut(..end.cursor.len()) else {
                let message =
                    format!("the cursor has {} bytes, more than {}", end.cursor.len(), abi::CURSOR_MAX);
                return Err(Error::new(ErrorCode::Internal, message));
            };
            room.copy_from_slice(&end.cursor);
            c.cursor_len = end.cursor.len() as u32;
            c.complete = if end.complete { abi::SCAN_COMPLETE } else { abi::SCAN_MORE };
            c.watermark_ms = end.watermark_ms;
            write_out(out, c, "scan: out")
        })
    }
}

unsafe extern "C" fn watch<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let mut emitter = Emitter { emit, emit_ctx, buffers: ItemBuffers::default(), stopped: None };
            let result = this::<S>(instance)?.source.watch(&AbiCall::new(call)?, &mut emitter);
            emitter.stopped.map_or(result, Err)
        })
    }
}

unsafe extern "C" fn stat<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    id: RgStr,
    version: RgStr,
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers and texts are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let id = text(&id, "stat: id")?;
            let version = text(&version, "stat: version")?;
            let version = (!version.is_empty()).then_some(version);
            let media = this::<S>(instance)?.source.stat(&AbiCall::new(call)?, id, version)?;
            let mut emitter = Emitter { emit, emit_ctx, buffers: ItemBuffers::default(), stopped: None };
            emitter.tell(&Item::Media(media))
        })
    }
}

unsafe extern "C" fn open<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    id: RgStr,
    version: RgStr,
    out: *mut *mut RgHandle,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers and texts are valid for this call, as the host promises in the header.
    unsafe {
        guard(error, || {
            let id = text(&id, "open: id")?;
            let version = text(&version, "open: version")?;
            if out.is_null() {
                return Err(Error::new(ErrorCode::Invalid, "open: out is NULL"));
            }
            let handle = this::<S>(instance)?.source.open(&AbiCall::new(call)?, id, version)?;
            out.write(into_handle::<S>(handle));
            Ok(())
        })
    }
}

unsafe extern "C" fn read_at<S: Source>(
    instance: *mut RgInstance,
    call: *const RgCall,
    handle: *mut RgHandle,
    offset: u64,
    buf: *mut u8,
    len: u64,
    got: *mut u64,
    error: *mut RgError,
) -> i32 {
    // SAFETY: pointers are valid for this call, `buf` has `len` initialised bytes that nobody else uses, `handle` was
    // made by `open::<S>`, as the host promises in the header.
    unsafe {
        guard(error, || {
            let Some(handle) = handle.cast::<Held<S::Handle>>().as_ref() else {
                return Err(Error::new(ErrorCode::Invalid, "read_at: handle is NULL"));
            };
            let fits = isize::try_from(len).is_ok();
            if got.is_null() || !fits || (buf.is_null() && len > 0) {
                return Err(Error::new(ErrorCode::Invalid, "read_at: a NULL pointer or a senseless length"));
            }
            let buf = if len == 0 { &mut [][..] } else { slice::from_raw_parts_mut(buf, len as usize) };
            let source = &this::<S>(instance)?.source;
            let filled = source.read_at(&AbiCall::new(call)?, &handle.0, offset, buf)?;
            got.write(filled as u64);
            Ok(())
        })
    }
}

unsafe extern "C" fn close<S: Source>(instance: *mut RgInstance, handle: *mut RgHandle) {
    if handle.is_null() {
        return;
    }
    // SAFETY: made by `open::<S>`, and by the host's promise neither used nor closed elsewhere.
    let handle = unsafe { Box::from_raw(handle.cast::<Held<S::Handle>>()) };
    // SAFETY: made by `create::<S>` and not destroyed, by the host's promise.
    let instance = unsafe { this::<S>(instance) };
    match instance {
        Ok(instance) => contained(&instance.host, "close", move || drop(handle)),
        Err(_) => {
            let _ = catch_unwind(AssertUnwindSafe(move || drop(handle)));
        }
    }
}

/// What stands behind an `rg_handle`. The byte gives handles of no size an address of their own.
struct Held<H>(H, #[expect(dead_code, reason = "an address of its own")] u8);

fn into_handle<S: Source>(handle: S::Handle) -> *mut RgHandle {
    Box::into_raw(Box::new(Held(handle, 0))).cast()
}

/// # Safety
///
/// `instance` is NULL or was made by `create::<S>` and isn't destroyed while the reference lives.
unsafe fn this<'a, S: Source>(instance: *mut RgInstance) -> Result<&'a Instance<S>, Error> {
    // SAFETY: the caller's promise; only shared references are ever made of it.
    unsafe { instance.cast::<Instance<S>>().as_ref() }
        .ok_or_else(|| Error::new(ErrorCode::Invalid, "the instance is NULL"))
}

/// Tells items to the host, and remembers when it said stop: a plugin that goes on all the same tells nobody.
struct Emitter {
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    buffers: ItemBuffers,
    stopped: Option<Error>,
}

impl Emitter {
    fn tell(&mut self, item: &Item) -> Result<(), Error> {
        let (emit, emit_ctx) = (self.emit, self.emit_ctx);
        self.unless_stopped(|buffers| {
            // SAFETY: both belong together and are valid for this call, as the host promises in the header; the item
            // lives until `with` returns.
            buffers.with(item, |c| stopped(unsafe { emit(emit_ctx, c) }))
        })
    }

    fn unless_stopped(
        &mut self,
        tell: impl FnOnce(&mut ItemBuffers) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        let result = tell(&mut self.buffers);
        if let Err(stop) = &result {
            self.stopped = Some(stop.clone());
        }
        result
    }
}

impl Watcher for Emitter {
    fn listening(&mut self) -> Result<(), Error> {
        let (emit, emit_ctx) = (self.emit, self.emit_ctx);
        let item = RgItem { kind: abi::ITEM_LISTENING, ..abi::Prefixed::empty() };
        // SAFETY: as in `tell`; the item is a local.
        self.unless_stopped(|_| stopped(unsafe { emit(emit_ctx, &raw const item) }))
    }

    fn tell(&mut self, item: Item) -> Result<(), Error> {
        Self::tell(self, &item)
    }
}

/// What an emit callback returned.
fn stopped(code: i32) -> Result<(), Error> {
    match code {
        abi::OK => Ok(()),
        code => {
            let code = ErrorCode::from_raw(code).unwrap_or(ErrorCode::Cancelled);
            Err(Error::new(code, "the host takes no more"))
        }
    }
}

fn invalid(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::Invalid, format!("{what}: {why}"))
}

/// Runs an entry point's body, contains its panic, and turns its outcome into C.
///
/// # Safety
///
/// `error` is NULL or points to an `RgError` as the header demands.
unsafe fn guard(error: *mut RgError, body: impl FnOnce() -> Result<(), Error>) -> i32 {
    let failed = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return abi::OK,
        Ok(Err(failed)) => failed,
        Err(payload) => Error::new(ErrorCode::Panic, panic_message(payload)),
    };
    let mut c: RgError = abi::Prefixed::empty();
    c.code = failed.code as i32;
    c.retry_after_ms = failed.retry_after_ms;
    c.message_len = message_into(&mut c.message, &failed.message);
    // A host that gave no room for the message still gets the code.
    // SAFETY: the caller's promise.
    let _ = unsafe { abi::write_prefix(error, c) };
    failed.code as i32
}

/// For entry points that can't fail: a panic is logged.
fn contained(host: &AbiHost, what: &str, body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        host.log(Level::Error, "sdk", &format!("panic in {what}: {}", panic_message(payload)));
    }
}

fn panic_message(payload: Box<dyn Any + Send>) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        return (*message).to_owned();
    }
    if let Some(message) = payload.downcast_ref::<String>() {
        return message.clone();
    }
    // The drop of an unknown payload might panic in its turn, so it is leaked.
    std::mem::forget(payload);
    "a panic without a message".to_owned()
}

#[cfg(test)]
mod tests;

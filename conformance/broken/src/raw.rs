//! What the SDK makes impossible: the plugin's own table stands before the SDK's, and spoils what passes.
//!
//! The safe side marks what is to be spoilt: a medium whose state reason begins with [`MARK`] is changed on its way to
//! the host.

#![expect(unsafe_code, reason = "breaks the rules of the ABI on purpose, behind the SDK's back")]

use std::{ffi::c_void, ptr, slice, sync::OnceLock};

use recgate_plugin_api::{
    abi::{
        self, Prefixed, RgCall, RgCapabilities, RgDescriptor, RgEmitItem, RgError, RgHealth, RgHost,
        RgInstance, RgItem, RgKey, RgMedia, RgPlugin, RgScanEnd, RgScanFrom, RgStr,
    },
    export,
};

use crate::Broken;

/// Told as the preferred read size, it makes the host see a capability that no version of the ABI has.
pub(crate) const UNKNOWN_CAPABILITY: u32 = u32::MAX;
/// Told as the message of an error of `health`, it makes the host see an error code that the ABI doesn't have.
pub(crate) const UNKNOWN_ERROR: &str = "an unknown code, as configured";

const MARK: &str = "tamper:";

/// The state reason that makes a medium be spoilt in this way.
pub(crate) fn tamper(how: &str) -> String {
    format!("{MARK}{how}")
}

#[allow(non_upper_case_globals)]
// SAFETY: the name belongs to the ABI, and nothing else in this library exports it.
#[unsafe(no_mangle)]
pub static rg_plugin_descriptor: RgDescriptor = export::descriptor::<Broken>();

/// The SDK's table.
static SDK: OnceLock<RgPlugin> = OnceLock::new();

/// # Safety
///
/// As the header demands.
// SAFETY: the name belongs to the ABI, and nothing else in this library exports it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rg_plugin_init(host: *const RgHost, out: *mut RgPlugin, error: *mut RgError) -> i32 {
    let mut table: RgPlugin = Prefixed::empty();
    // SAFETY: the host's pointers as they came, and a table of our own.
    let code = unsafe { export::init::<Broken>(host, &mut table, error) };
    if code == abi::OK {
        let sdk = *SDK.get_or_init(|| table);
        let spoilt = RgPlugin {
            capabilities: Some(capabilities),
            health: Some(health),
            scan: Some(scan),
            stat: Some(stat),
            ..sdk
        };
        // SAFETY: `out` as the host promises.
        let _ = unsafe { abi::write_prefix(out, spoilt) };
    }
    code
}

fn sdk() -> RgPlugin {
    SDK.get().copied().unwrap_or_else(Prefixed::empty)
}

unsafe extern "C" fn capabilities(
    instance: *mut RgInstance,
    out: *mut RgCapabilities,
    error: *mut RgError,
) -> i32 {
    // SAFETY: handed on as it came; `out` is valid as the host promises.
    unsafe {
        let code = sdk().capabilities.map_or(-1, |function| function(instance, out, error));
        if code == abi::OK && (*out).preferred_read_size == UNKNOWN_CAPABILITY {
            (*out).bits |= 1 << 40;
        }
        code
    }
}

unsafe extern "C" fn health(
    instance: *mut RgInstance,
    call: *const RgCall,
    out: *mut RgHealth,
    error: *mut RgError,
) -> i32 {
    // SAFETY: handed on as it came; `error` is valid as the host promises.
    unsafe {
        let code = sdk().health.map_or(-1, |function| function(instance, call, out, error));
        let message = (*error).message.get(..(*error).message_len as usize).unwrap_or_default();
        if message == UNKNOWN_ERROR.as_bytes() { 4711 } else { code }
    }
}

unsafe extern "C" fn scan(
    instance: *mut RgInstance,
    call: *const RgCall,
    from: *const RgScanFrom,
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    out: *mut RgScanEnd,
    error: *mut RgError,
) -> i32 {
    let mut next = Next { emit, emit_ctx };
    let ctx = ptr::from_mut(&mut next).cast();
    // SAFETY: handed on as it came, but for emit, whose context lives on this stack.
    unsafe { sdk().scan.map_or(-1, |function| function(instance, call, from, spoil, ctx, out, error)) }
}

unsafe extern "C" fn stat(
    instance: *mut RgInstance,
    call: *const RgCall,
    id: RgStr,
    version: RgStr,
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
    error: *mut RgError,
) -> i32 {
    let mut next = Next { emit, emit_ctx };
    let ctx = ptr::from_mut(&mut next).cast();
    // SAFETY: handed on as it came, but for emit, whose context lives on this stack.
    unsafe { sdk().stat.map_or(-1, |function| function(instance, call, id, version, spoil, ctx, error)) }
}

/// The host's emit.
struct Next {
    emit: RgEmitItem,
    emit_ctx: *mut c_void,
}

unsafe extern "C" fn spoil(ctx: *mut c_void, item: *const RgItem) -> i32 {
    // SAFETY: made by `scan` or `stat` above, which still run; the item comes from the SDK.
    let (next, mut item) = unsafe { (&*ctx.cast::<Next>(), *item) };
    if item.kind != abi::ITEM_MEDIA {
        // SAFETY: the host's emit with its own context.
        return unsafe { (next.emit)(next.emit_ctx, &raw const item) };
    }
    // SAFETY: an item of this kind has a medium.
    let mut media: RgMedia = unsafe { *item.media };
    // SAFETY: the SDK made it of a str.
    let reason = unsafe {
        slice::from_raw_parts(media.state_reason.ptr.cast::<u8>(), media.state_reason.len as usize)
    };
    let how = reason.strip_prefix(MARK.as_bytes());
    let key = RgKey { kind: 99, reserved: 0, value: RgStr::new("k") };
    if how.is_some() {
        media.state_reason = RgStr::EMPTY;
    }
    let not_utf8 = [0xff_u8, 0xfe];
    match how {
        Some(b"bad-utf8") => media.media_type = RgStr { ptr: not_utf8.as_ptr().cast(), len: 2 },
        Some(b"null-text") => media.version = RgStr { ptr: ptr::null(), len: 7 },
        Some(b"unknown-state") => media.state = 99,
        Some(b"unknown-precision") => media.start_precision = 99,
        Some(b"unknown-key-kind") => media.keys = &raw const key,
        Some(b"unknown-item") => item.kind = 99,
        Some(b"small-struct") => media.struct_size = 8,
        Some(b"absurd-length") => media.version.len = u64::MAX,
        Some(b"swallow") => return abi::OK,
        _ => {}
    }
    item.media = if how == Some(b"null-media") { ptr::null() } else { &raw const media };
    // SAFETY: the host's emit with its own context; what is wrong is what it is to contain.
    unsafe { (next.emit)(next.emit_ctx, &raw const item) }
}

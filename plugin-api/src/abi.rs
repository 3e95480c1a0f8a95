//! The C layout of the ABI: `include/recgate_plugin.h` in Rust. The header says what each field means;
//! a test compiles it and compares every size, offset and constant with what stands here.

#![expect(unsafe_code, reason = "copies structs of which only a prefix may be there")]

use std::{
    ffi::{c_char, c_void},
    fmt, mem, ptr,
};

/// Must be the same on both sides.
pub const ABI_MAJOR: u32 = 0;
/// The smaller of the two counts.
pub const ABI_MINOR: u32 = 2;
/// The first minor with [`RgPlugin::watch`], [`CAP_WATCH`] and [`ITEM_LISTENING`].
pub const WATCH_SINCE: u32 = 2;
/// `RECGATE\0` on a little-endian machine.
pub const DESCRIPTOR_MAGIC: u64 = 0x0045_5441_4743_4552;

/// Bytes of [`RgError::message`].
pub const ERROR_MESSAGE_MAX: usize = 1000;
/// Bytes of [`RgHealth::message`].
pub const HEALTH_MESSAGE_MAX: usize = 1000;
/// Bytes of [`RgDescriptor::name`].
pub const NAME_MAX: usize = 32;
/// Bytes of [`RgDescriptor::version`].
pub const VERSION_MAX: usize = 32;
/// Bytes of [`RgDescriptor::licence`].
pub const LICENCE_MAX: usize = 64;
/// Bytes of an id, a version, the value of a join key.
pub const ID_MAX: usize = 1024;
/// Bytes of a preferred name.
pub const PREFERRED_NAME_MAX: usize = 255;
/// Bytes of a header patch.
pub const HEADER_PATCH_MAX: usize = 4096;
/// Join keys of one item.
pub const KEYS_MAX: usize = 64;
/// Facts of one item.
pub const VALUES_MAX: usize = 256;
/// Bytes of the key of a fact.
pub const VALUE_KEY_MAX: usize = 128;
/// Bytes of the value of a fact.
pub const VALUE_MAX: usize = 8192;
/// Bytes of a cursor.
pub const CURSOR_MAX: usize = 4096;

/// `RG_MEDIA_HAS_START`
pub const MEDIA_HAS_START: u32 = 0x01;
/// `RG_MEDIA_HAS_STOP`
pub const MEDIA_HAS_STOP: u32 = 0x02;
/// `RG_MEDIA_HAS_DURATION`
pub const MEDIA_HAS_DURATION: u32 = 0x04;
/// `RG_MEDIA_HAS_UID`
pub const MEDIA_HAS_UID: u32 = 0x08;
/// `RG_MEDIA_HAS_PREFERRED_NAME`
pub const MEDIA_HAS_PREFERRED_NAME: u32 = 0x10;
/// `RG_ITEM_MEDIA`
pub const ITEM_MEDIA: u32 = 1;
/// `RG_ITEM_MEDIA_GONE`
pub const ITEM_MEDIA_GONE: u32 = 2;
/// `RG_ITEM_FACTS`
pub const ITEM_FACTS: u32 = 3;
/// `RG_ITEM_LISTENING`
pub const ITEM_LISTENING: u32 = 4;
/// `RG_SCAN_FULL`
pub const SCAN_FULL: u32 = 1;
/// `RG_SCAN_SINCE`
pub const SCAN_SINCE: u32 = 2;
/// `RG_SCAN_MORE`
pub const SCAN_MORE: u32 = 0;
/// `RG_SCAN_COMPLETE`
pub const SCAN_COMPLETE: u32 = 1;
/// `RG_WATERMARK_UNKNOWN`
pub const WATERMARK_UNKNOWN: i64 = i64::MIN;
/// `RG_CAP_FACTS`
pub const CAP_FACTS: u64 = 0x01;
/// `RG_CAP_WATCH`
pub const CAP_WATCH: u64 = 0x02;
/// `RG_HEALTH_HAS_STORAGE_TIME`
pub const HEALTH_HAS_STORAGE_TIME: u32 = 0x01;
/// `RG_OK`
pub const OK: i32 = 0;

/// Text: UTF-8, `len` bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RgStr {
    /// First byte; may be NULL where `len` is 0.
    pub ptr: *const c_char,
    /// Bytes.
    pub len: u64,
}

/// Bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RgBytes {
    /// First byte; may be NULL where `len` is 0.
    pub ptr: *const u8,
    /// Bytes.
    pub len: u64,
}

/// A join key.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgKey {
    pub kind: u32,
    pub reserved: u32,
    pub value: RgStr,
}

/// A fact.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgPair {
    pub key: RgStr,
    pub value: RgStr,
}

/// What went wrong.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgError {
    pub struct_size: u32,
    pub code: i32,
    pub retry_after_ms: u64,
    pub message_len: u32,
    pub reserved: u32,
    pub message: [u8; ERROR_MESSAGE_MAX],
}

/// What the plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgDescriptor {
    pub magic: u64,
    pub struct_size: u32,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub reserved: u32,
    pub name: [u8; NAME_MAX],
    pub version: [u8; VERSION_MAX],
    pub licence: [u8; LICENCE_MAX],
}

/// What the gateway offers.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgHost {
    pub struct_size: u32,
    pub abi_minor: u32,
    pub ctx: *mut c_void,
    pub log: Option<unsafe extern "C" fn(ctx: *mut c_void, level: u32, target: RgStr, message: RgStr)>,
    pub now_ms: Option<unsafe extern "C" fn(ctx: *mut c_void) -> i64>,
}

/// What the gateway offers for one call.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgCall {
    pub struct_size: u32,
    pub reserved: u32,
    pub ctx: *mut c_void,
    pub is_cancelled: Option<unsafe extern "C" fn(ctx: *mut c_void) -> u32>,
}

/// One medium.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgMedia {
    pub struct_size: u32,
    pub state: u32,
    pub id: RgStr,
    pub version: RgStr,
    pub size: u64,
    pub media_type: RgStr,
    pub start_ms: i64,
    pub stop_ms: i64,
    pub changed_ms: i64,
    pub duration_ms: u64,
    pub start_precision: u32,
    pub present: u32,
    pub state_reason: RgStr,
    pub uid: [u8; 16],
    pub preferred_name: RgStr,
    pub header_patch: RgBytes,
    pub keys: *const RgKey,
    pub key_count: u64,
}

/// What is known about a recording.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgFacts {
    pub struct_size: u32,
    pub gone: u32,
    pub id: RgStr,
    pub revision: u64,
    pub keys: *const RgKey,
    pub key_count: u64,
    pub values: *const RgPair,
    pub value_count: u64,
}

/// One thing that a plugin tells.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgItem {
    pub struct_size: u32,
    pub kind: u32,
    pub media: *const RgMedia,
    pub gone_id: RgStr,
    pub facts: *const RgFacts,
}

/// Takes one item.
pub type RgEmitItem = unsafe extern "C" fn(emit_ctx: *mut c_void, item: *const RgItem) -> i32;
/// Takes a text, whole, once.
pub type RgEmitText = unsafe extern "C" fn(emit_ctx: *mut c_void, text: RgStr) -> i32;

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgScanFrom {
    pub struct_size: u32,
    pub kind: u32,
    pub cursor: RgBytes,
}

/// How a call of scan ended.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgScanEnd {
    pub struct_size: u32,
    pub complete: u32,
    pub watermark_ms: i64,
    pub cursor_len: u32,
    pub reserved: u32,
    pub cursor: [u8; CURSOR_MAX],
}

/// What an instance can do.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgCapabilities {
    pub struct_size: u32,
    pub max_concurrent_calls: u32,
    pub bits: u64,
    pub preferred_read_size: u32,
    pub reserved: u32,
}

/// How an instance is.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgHealth {
    pub struct_size: u32,
    pub reachable: u32,
    pub present: u32,
    pub message_len: u32,
    pub storage_time_ms: i64,
    pub message: [u8; HEALTH_MESSAGE_MAX],
}

/// One configured source: the plugin's own type.
#[derive(Debug)]
#[repr(C)]
pub struct RgInstance {
    _opaque: [u8; 0],
}

/// One open medium: the plugin's own type.
#[derive(Debug)]
#[repr(C)]
pub struct RgHandle {
    _opaque: [u8; 0],
}

/// The plugin's functions. `None` is NULL.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented in the header")]
pub struct RgPlugin {
    pub struct_size: u32,
    pub reserved: u32,
    pub config_schema:
        Option<unsafe extern "C" fn(emit: RgEmitText, emit_ctx: *mut c_void, error: *mut RgError) -> i32>,
    pub create: Option<
        unsafe extern "C" fn(config_json: RgStr, out: *mut *mut RgInstance, error: *mut RgError) -> i32,
    >,
    pub destroy: Option<unsafe extern "C" fn(instance: *mut RgInstance)>,
    pub capabilities: Option<
        unsafe extern "C" fn(instance: *mut RgInstance, out: *mut RgCapabilities, error: *mut RgError) -> i32,
    >,
    pub health: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            out: *mut RgHealth,
            error: *mut RgError,
        ) -> i32,
    >,
    pub scan: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            from: *const RgScanFrom,
            emit: RgEmitItem,
            emit_ctx: *mut c_void,
            out: *mut RgScanEnd,
            error: *mut RgError,
        ) -> i32,
    >,
    pub stat: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            id: RgStr,
            version: RgStr,
            emit: RgEmitItem,
            emit_ctx: *mut c_void,
            error: *mut RgError,
        ) -> i32,
    >,
    pub open: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            id: RgStr,
            version: RgStr,
            out: *mut *mut RgHandle,
            error: *mut RgError,
        ) -> i32,
    >,
    pub read_at: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            handle: *mut RgHandle,
            offset: u64,
            buf: *mut u8,
            len: u64,
            got: *mut u64,
            error: *mut RgError,
        ) -> i32,
    >,
    pub close: Option<unsafe extern "C" fn(instance: *mut RgInstance, handle: *mut RgHandle)>,
    pub watch: Option<
        unsafe extern "C" fn(
            instance: *mut RgInstance,
            call: *const RgCall,
            emit: RgEmitItem,
            emit_ctx: *mut c_void,
            error: *mut RgError,
        ) -> i32,
    >,
}

/// The type of `rg_plugin_init`.
pub type RgPluginInit =
    unsafe extern "C" fn(host: *const RgHost, out: *mut RgPlugin, error: *mut RgError) -> i32;

impl RgStr {
    /// No text.
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0 };

    /// Points to `text`, which must outlive what this is given to.
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr().cast(), len: text.len() as u64 }
    }
}

impl RgBytes {
    /// No bytes.
    pub const EMPTY: Self = Self { ptr: ptr::null(), len: 0 };

    /// Points to `bytes`, which must outlive what this is given to.
    pub const fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() as u64 }
    }
}

/// A struct of the ABI that grows: it begins with its `struct_size`.
///
/// # Safety
///
/// The type is `repr(C)`, begins with a `u32` that is its `struct_size`, is valid for any bytes in its integer fields,
/// and is valid when all its bytes are zero.
pub unsafe trait Prefixed: Copy {
    /// Its size in version 0.1, the least that is accepted.
    const SIZE_0_1: u32;

    /// All zero but for its `struct_size`, which is that of this version.
    fn empty() -> Self {
        // SAFETY: the trait's contract: all zero is valid.
        let mut value: Self = unsafe { mem::zeroed() };
        // SAFETY: the trait's contract: the type begins with a u32.
        unsafe { ptr::from_mut(&mut value).cast::<u32>().write(size_of::<Self>() as u32) };
        value
    }
}

macro_rules! prefixed {
    ($($name:ident = $size:literal),* $(,)?) => {
        $(
            // SAFETY: repr(C), begins with `struct_size: u32`; integers, arrays of them, raw pointers and optional
            // functions, which all may be zero.
            unsafe impl Prefixed for $name {
                const SIZE_0_1: u32 = $size;
            }
            // A struct never gets smaller.
            const _: () = assert!(size_of::<$name>() >= $size);
        )*
    };
}

prefixed! {
    RgError = 1024,
    RgHost = 32,
    RgCall = 24,
    RgMedia = 184,
    RgFacts = 64,
    RgItem = 40,
    RgScanFrom = 24,
    RgScanEnd = 4120,
    RgCapabilities = 24,
    RgHealth = 1024,
    RgPlugin = 88,
}

/// Why a struct of the other side can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixError {
    /// The pointer is NULL.
    Null,
    /// The pointer isn't aligned.
    Unaligned,
    /// `struct_size` is smaller than it was in version 0.1.
    TooSmall {
        /// What it says.
        given: u32,
        /// What it must be at least.
        least: u32,
    },
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "a NULL pointer"),
            Self::Unaligned => write!(f, "a pointer that isn't aligned"),
            Self::TooSmall { given, least } => {
                write!(f, "a struct_size of {given}, where at least {least} is needed")
            }
        }
    }
}

impl std::error::Error for PrefixError {}

/// Copies what is there of a struct; fields beyond its `struct_size` are zero.
///
/// # Errors
///
/// A NULL or unaligned pointer, or a `struct_size` below that of version 0.1.
///
/// # Safety
///
/// `source` is NULL or points to `struct_size` readable bytes, and to at least four.
pub unsafe fn read_prefix<T: Prefixed>(source: *const T) -> Result<T, PrefixError> {
    // SAFETY: the caller's promise.
    let given = unsafe { prefix_size(source) }?;
    let mut value = T::empty();
    let size = (given as usize).min(size_of::<T>());
    // SAFETY: `size` bytes are readable by the caller's promise and writable as they fit into `value`.
    unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), ptr::from_mut(&mut value).cast::<u8>(), size) };
    Ok(value)
}

/// Fills a struct of the other side with as much of `value` as fits into it, and says in `struct_size` how much.
///
/// # Errors
///
/// A NULL or unaligned pointer, or a `struct_size` below that of version 0.1.
///
/// # Safety
///
/// `target` is NULL or points to `struct_size` writable bytes, and to at least four readable ones.
pub unsafe fn write_prefix<T: Prefixed>(target: *mut T, mut value: T) -> Result<(), PrefixError> {
    // SAFETY: the caller's promise.
    let given = unsafe { prefix_size(target) }?;
    let size = given.min(size_of::<T>() as u32);
    // SAFETY: the trait's contract: the type begins with a u32.
    unsafe { ptr::from_mut(&mut value).cast::<u32>().write(size) };
    // SAFETY: `size` bytes are writable by the caller's promise and readable as `value` has as many.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(&value).cast::<u8>(), target.cast::<u8>(), size as usize);
    };
    Ok(())
}

/// # Safety
///
/// `source` is NULL or points to at least four readable bytes.
unsafe fn prefix_size<T: Prefixed>(source: *const T) -> Result<u32, PrefixError> {
    if source.is_null() {
        return Err(PrefixError::Null);
    }
    if !source.is_aligned() {
        return Err(PrefixError::Unaligned);
    }
    // SAFETY: not NULL, so four bytes are readable by the caller's promise; aligned for T, hence for its first field.
    let given = unsafe { source.cast::<u32>().read() };
    if given < T::SIZE_0_1 {
        return Err(PrefixError::TooSmall { given, least: T::SIZE_0_1 });
    }
    Ok(given)
}

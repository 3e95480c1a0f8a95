//! Between the C structs and the SDK's types, plugin's side.

use std::{ptr, slice, str};

use super::invalid;
use crate::{
    abi::{
        self, Prefixed, RgBytes, RgFacts, RgItem, RgKey, RgMedia, RgPair, RgScanFrom, RgStr, write_prefix,
    },
    types::{Error, ErrorCode, Facts, Item, JoinKey, Media, ScanFrom},
};

/// A text of the host's.
///
/// # Safety
///
/// `text` points to `len` readable bytes for as long as it is borrowed, or is NULL.
pub(super) unsafe fn text<'a>(text: &'a RgStr, what: &str) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { raw_bytes(text.ptr.cast(), text.len, what) }?;
    str::from_utf8(bytes).map_err(|e| invalid(what, &e))
}

/// # Safety
///
/// `ptr` is NULL or points to `len` readable bytes for as long as the slice lives.
unsafe fn raw_bytes<'a>(ptr: *const u8, len: u64, what: &str) -> Result<&'a [u8], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    let fits = isize::try_from(len).is_ok();
    if ptr.is_null() || !fits {
        return Err(Error::new(ErrorCode::Invalid, format!("{what}: NULL, or a senseless length of {len}")));
    }
    // SAFETY: not NULL, below isize::MAX, readable by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(ptr, len as usize) })
}

/// # Safety
///
/// The cursor points to readable bytes for as long as `from` is borrowed.
pub(super) unsafe fn scan_from(from: &RgScanFrom) -> Result<ScanFrom<'_>, Error> {
    match from.kind {
        abi::SCAN_FULL => Ok(ScanFrom::Full),
        abi::SCAN_SINCE => {
            // SAFETY: the caller's promise.
            Ok(ScanFrom::Since(unsafe { raw_bytes(from.cursor.ptr, from.cursor.len, "scan: cursor") }?))
        }
        kind => Err(Error::new(ErrorCode::Invalid, format!("scan: {kind} is no kind of start"))),
    }
}

/// Fills an out struct of the host's.
///
/// # Safety
///
/// `out` is NULL or as the header demands.
pub(super) unsafe fn write_out<T: Prefixed>(out: *mut T, value: T, what: &str) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    unsafe { write_prefix(out, value) }.map_err(|e| invalid(what, &e))
}

/// Copies as much of a message as fits, whole characters only; returns the bytes used.
pub(super) fn message_into(room: &mut [u8], message: &str) -> u32 {
    let cut = message.floor_char_boundary(room.len());
    for (to, from) in room.iter_mut().zip(message.as_bytes().iter().take(cut)) {
        *to = *from;
    }
    cut as u32
}

/// Reused from item to item.
#[derive(Default)]
pub(super) struct ItemBuffers {
    keys: Vec<RgKey>,
    values: Vec<RgPair>,
}

impl ItemBuffers {
    /// Runs `tell` with the C form of an item, which points into the item and lives until `tell` returns.
    pub(super) fn with<R>(&mut self, item: &Item, tell: impl FnOnce(*const RgItem) -> R) -> R {
        let mut c: RgItem = Prefixed::empty();
        let media;
        let facts;
        match item {
            Item::Media(told) => {
                media = self.media(told);
                c.kind = abi::ITEM_MEDIA;
                c.media = &raw const media;
            }
            Item::MediaGone(id) => {
                c.kind = abi::ITEM_MEDIA_GONE;
                c.gone_id = RgStr::new(id);
            }
            Item::Facts(told) => {
                facts = self.facts(told);
                c.kind = abi::ITEM_FACTS;
                c.facts = &raw const facts;
            }
        }
        let result = tell(&raw const c);
        self.keys.clear();
        self.values.clear();
        result
    }

    fn media(&mut self, told: &Media) -> RgMedia {
        let mut present = 0;
        let mut flag = |bit, is| present |= if is { bit } else { 0 };
        flag(abi::MEDIA_HAS_START, told.start_ms.is_some());
        flag(abi::MEDIA_HAS_STOP, told.stop_ms.is_some());
        flag(abi::MEDIA_HAS_DURATION, told.duration_ms.is_some());
        flag(abi::MEDIA_HAS_UID, told.uid.is_some());
        flag(abi::MEDIA_HAS_PREFERRED_NAME, told.preferred_name.is_some());
        let (keys, key_count) = self.keys(&told.keys);
        RgMedia {
            state: told.state as u32,
            id: RgStr::new(&told.id),
            version: RgStr::new(&told.version),
            size: told.size,
            media_type: RgStr::new(&told.media_type),
            start_ms: told.start_ms.unwrap_or(0),
            stop_ms: told.stop_ms.unwrap_or(0),
            changed_ms: told.changed_ms,
            duration_ms: told.duration_ms.unwrap_or(0),
            start_precision: told.start_precision as u32,
            present,
            state_reason: RgStr::new(&told.state_reason),
            uid: told.uid.unwrap_or_default(),
            preferred_name: told.preferred_name.as_deref().map_or(RgStr::EMPTY, RgStr::new),
            header_patch: RgBytes::new(&told.header_patch),
            keys,
            key_count,
            ..Prefixed::empty()
        }
    }

    fn facts(&mut self, told: &Facts) -> RgFacts {
        let (keys, key_count) = self.keys(&told.keys);
        self.values.clear();
        let pair =
            |(key, value): &(String, String)| RgPair { key: RgStr::new(key), value: RgStr::new(value) };
        self.values.extend(told.values.iter().map(pair));
        RgFacts {
            gone: told.gone.into(),
            id: RgStr::new(&told.id),
            revision: told.revision,
            keys,
            key_count,
            values: if self.values.is_empty() { ptr::null() } else { self.values.as_ptr() },
            value_count: self.values.len() as u64,
            ..Prefixed::empty()
        }
    }

    fn keys(&mut self, told: &[JoinKey]) -> (*const RgKey, u64) {
        self.keys.clear();
        let key = |key: &JoinKey| RgKey { kind: key.kind as u32, reserved: 0, value: RgStr::new(&key.value) };
        self.keys.extend(told.iter().map(key));
        let first = if self.keys.is_empty() { ptr::null() } else { self.keys.as_ptr() };
        (first, self.keys.len() as u64)
    }
}

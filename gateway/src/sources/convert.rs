//! From a plugin's C structs to Rust, with all checks. Nothing that a plugin says is believed here.

#![expect(unsafe_code, reason = "reads what plugins point to")]

use std::{fmt::Write as _, slice, str};

use recgate_plugin_api::{
    Capabilities, Error, ErrorCode, Facts, Health, Item, JoinKey, JoinKind, Media, MediaState, Precision,
    ScanEnd,
    abi::{
        self, CURSOR_MAX, HEADER_PATCH_MAX, ID_MAX, KEYS_MAX, PREFERRED_NAME_MAX, RgBytes, RgCapabilities,
        RgError, RgFacts, RgHealth, RgItem, RgKey, RgMedia, RgScanEnd, RgStr, VALUE_KEY_MAX, VALUE_MAX,
        VALUES_MAX, read_prefix,
    },
};

use super::Live;

/// Bytes of a media type, and of a state's reason.
const MEDIA_TYPE_MAX: usize = 255;
const REASON_MAX: usize = 1000;
/// The end of the year 9999, Unix milliseconds UTC.
const YEAR_9999_END_MS: i64 = 253_402_300_799_999;
/// Bytes of an id that are shown in messages.
const SHOWN_MAX: usize = 80;

/// An item that can't be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nonsense {
    /// The item's id, as far as it has one, escaped.
    pub(super) id: String,
    /// What is wrong with it, for the plugin's author.
    pub(super) what: String,
}

/// # Safety
///
/// `item` and what it points to is as the header demands, for as long as this runs. (Pointers may be NULL, sizes may be
/// too small, text may be no UTF-8, numbers may be anything: that is what is checked.)
pub(super) unsafe fn item(item: *const RgItem) -> Result<Item, Nonsense> {
    let mut id = String::new();
    // SAFETY: the caller's promise.
    unsafe { item_with_id(item, &mut id) }.map_err(|what| Nonsense { id, what })
}

/// What a watch tells.
///
/// # Safety
///
/// As of [`item`].
pub(super) unsafe fn live(told: *const RgItem) -> Result<Live, Nonsense> {
    // SAFETY: the caller's promise, here and below.
    match unsafe { read_prefix(told) } {
        Ok(RgItem { kind: abi::ITEM_LISTENING, .. }) => Ok(Live::Listening),
        // SAFETY: as above.
        _ => unsafe { item(told) }.map(Live::Item),
    }
}

/// # Safety
///
/// As of [`item`].
unsafe fn item_with_id(item: *const RgItem, shown: &mut String) -> Result<Item, String> {
    // SAFETY: the caller's promise, here and below.
    let item = unsafe { read_prefix(item) }.map_err(|e| format!("rg_item is {e}"))?;
    match item.kind {
        abi::ITEM_MEDIA => {
            // SAFETY: as above.
            let media = unsafe { read_prefix(item.media) }.map_err(|e| format!("rg_media is {e}"))?;
            // SAFETY: as above.
            *shown = unsafe { text_lossy(media.id, SHOWN_MAX) };
            // SAFETY: as above.
            Ok(Item::Media(unsafe { self::media(&media) }?))
        }
        abi::ITEM_MEDIA_GONE => {
            // SAFETY: as above.
            *shown = unsafe { text_lossy(item.gone_id, SHOWN_MAX) };
            // SAFETY: as above.
            Ok(Item::MediaGone(unsafe { identifier(item.gone_id, "gone_id") }?))
        }
        abi::ITEM_FACTS => {
            // SAFETY: as above.
            let facts = unsafe { read_prefix(item.facts) }.map_err(|e| format!("rg_facts is {e}"))?;
            // SAFETY: as above.
            *shown = unsafe { text_lossy(facts.id, SHOWN_MAX) };
            // SAFETY: as above.
            Ok(Item::Facts(unsafe { self::facts(&facts) }?))
        }
        kind => Err(format!("{kind} is no kind of item (RG_ITEM_*)")),
    }
}

/// # Safety
///
/// What `told` points to is readable.
unsafe fn media(told: &RgMedia) -> Result<Media, String> {
    let known = abi::MEDIA_HAS_START
        | abi::MEDIA_HAS_STOP
        | abi::MEDIA_HAS_DURATION
        | abi::MEDIA_HAS_UID
        | abi::MEDIA_HAS_PREFERRED_NAME;
    if told.present & !known != 0 {
        return Err(format!("present has unknown bits ({:#x})", told.present));
    }
    let has = |bit: u32| told.present & bit != 0;
    let time = |bit, ms, field| has(bit).then(|| check_time(ms, field)).transpose();
    if i64::try_from(told.size).is_err() {
        return Err(format!("size is {}, as a signed number {}", told.size, told.size.cast_signed()));
    }
    if has(abi::MEDIA_HAS_DURATION) && i64::try_from(told.duration_ms).is_err() {
        return Err(format!("duration_ms is {}", told.duration_ms));
    }
    // SAFETY: the caller's promise, here and below.
    let patch = unsafe { bytes(told.header_patch, HEADER_PATCH_MAX, "header_patch") }?;
    if patch.len() as u64 > told.size {
        return Err(format!("header_patch has {} bytes, more than the medium ({})", patch.len(), told.size));
    }
    // SAFETY: as above.
    let preferred_name =
        has(abi::MEDIA_HAS_PREFERRED_NAME).then(|| unsafe { file_name(told.preferred_name) }).transpose()?;
    // SAFETY: as above.
    unsafe {
        Ok(Media {
            id: identifier(told.id, "id")?,
            version: identifier(told.version, "version")?,
            size: told.size,
            media_type: plain(told.media_type, MEDIA_TYPE_MAX, "media_type")?,
            start_ms: time(abi::MEDIA_HAS_START, told.start_ms, "start_ms")?,
            start_precision: precision(told.start_precision)?,
            stop_ms: time(abi::MEDIA_HAS_STOP, told.stop_ms, "stop_ms")?,
            duration_ms: has(abi::MEDIA_HAS_DURATION).then_some(told.duration_ms),
            changed_ms: check_time(told.changed_ms, "changed_ms")?,
            state: state(told.state)?,
            state_reason: text(told.state_reason, REASON_MAX, "state_reason")?,
            uid: has(abi::MEDIA_HAS_UID).then(|| uid(told.uid)).transpose()?,
            preferred_name,
            header_patch: patch.to_vec(),
            keys: keys(told.keys, told.key_count)?,
        })
    }
}

/// # Safety
///
/// What `told` points to is readable.
unsafe fn facts(told: &RgFacts) -> Result<Facts, String> {
    // SAFETY: the caller's promise.
    let pairs = unsafe { array(told.values, told.value_count, VALUES_MAX, "values") }?;
    let mut values = Vec::with_capacity(pairs.len());
    for pair in pairs {
        // SAFETY: the caller's promise.
        let (key, value) = unsafe {
            (plain(pair.key, VALUE_KEY_MAX, "the key of a fact")?, text(pair.value, VALUE_MAX, "a fact")?)
        };
        if key.is_empty() {
            return Err("the key of a fact is empty".to_owned());
        }
        values.push((key, value));
    }
    // SAFETY: the caller's promise.
    unsafe {
        Ok(Facts {
            id: identifier(told.id, "id")?,
            revision: told.revision,
            gone: flag(told.gone, "gone")?,
            keys: keys(told.keys, told.key_count)?,
            values,
        })
    }
}

/// # Safety
///
/// `first` is NULL or points to `count` readable keys.
unsafe fn keys(first: *const RgKey, count: u64) -> Result<Vec<JoinKey>, String> {
    // SAFETY: the caller's promise.
    let told = unsafe { array(first, count, KEYS_MAX, "keys") }?;
    told.iter()
        .map(|key| {
            let kind = match key.kind {
                1 => JoinKind::RecordingUuid,
                2 => JoinKind::ObjectKey,
                3 => JoinKind::ContactId,
                4 => JoinKind::ConversationId,
                kind => return Err(format!("{kind} is no kind of join key (RG_KEY_*)")),
            };
            // SAFETY: the caller's promise.
            Ok(JoinKey { kind, value: unsafe { identifier(key.value, "the value of a join key") }? })
        })
        .collect()
}

/// How a scan ended.
pub(super) fn scan_end(told: &RgScanEnd) -> Result<ScanEnd, String> {
    let cursor = told.cursor.get(..told.cursor_len as usize);
    let cursor =
        cursor.ok_or_else(|| format!("cursor_len is {}, more than {CURSOR_MAX}", told.cursor_len))?;
    let complete = flag(told.complete, "complete")?;
    if !complete && cursor.is_empty() {
        return Err("it says RG_SCAN_MORE without a cursor to go on from".to_owned());
    }
    if told.watermark_ms != abi::WATERMARK_UNKNOWN {
        check_time(told.watermark_ms, "watermark_ms")?;
    }
    Ok(ScanEnd { cursor: cursor.to_vec(), complete, watermark_ms: told.watermark_ms })
}

/// How an instance is.
pub(super) fn health(told: &RgHealth) -> Result<Health, String> {
    if told.present & !abi::HEALTH_HAS_STORAGE_TIME != 0 {
        return Err(format!("present has unknown bits ({:#x})", told.present));
    }
    let message = told.message.get(..told.message_len as usize);
    let message = message.ok_or_else(|| format!("message_len is {}", told.message_len))?;
    let has_time = told.present & abi::HEALTH_HAS_STORAGE_TIME != 0;
    Ok(Health {
        reachable: flag(told.reachable, "reachable")?,
        message: escaped(&String::from_utf8_lossy(message)),
        storage_time_ms: has_time.then(|| check_time(told.storage_time_ms, "storage_time_ms")).transpose()?,
    })
}

/// What an instance can do. A bit that the effective minor doesn't know stands for functions that it doesn't have.
pub(super) fn capabilities(told: &RgCapabilities, abi_minor: u32) -> Result<Capabilities, String> {
    let known = if abi_minor < abi::WATCH_SINCE { abi::CAP_FACTS } else { abi::CAP_FACTS | abi::CAP_WATCH };
    let unknown = told.bits & !known;
    if unknown != 0 {
        return Err(format!(
            "it declares capabilities ({unknown:#x}) for which plugin ABI {}.{abi_minor} has no functions",
            abi::ABI_MAJOR,
        ));
    }
    Ok(Capabilities {
        facts: told.bits & abi::CAP_FACTS != 0,
        max_concurrent_calls: told.max_concurrent_calls,
        preferred_read_size: told.preferred_read_size,
    })
}

/// The error that a call returned.
pub(super) fn error(code: i32, told: &RgError) -> Error {
    let message = told.message.get(..told.message_len as usize).unwrap_or(&told.message);
    let message = escaped(&String::from_utf8_lossy(message));
    match ErrorCode::from_raw(code) {
        Some(code) => Error { code, message, retry_after_ms: told.retry_after_ms },
        None => internal(format!("the plugin returned {code}, which is no result (RG_E_*): {message}")),
    }
}

/// An error that the host reports on a plugin's behalf.
pub(super) fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Internal, message)
}

/// A text for a message: cut, and with what a terminal or a log would stumble over escaped. NULL is empty.
///
/// # Safety
///
/// `text` points to `len` readable bytes, or is NULL.
pub(super) unsafe fn text_lossy(text: RgStr, most: usize) -> String {
    let length = text.len.min(most as u64) as usize;
    if text.ptr.is_null() || length == 0 {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice::from_raw_parts(text.ptr.cast::<u8>(), length) };
    escaped(&String::from_utf8_lossy(bytes))
}

/// Escapes control characters, and what changes the direction of text.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_control(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// # Safety
///
/// `first` is NULL or points to `count` readable elements, for as long as they are used.
unsafe fn array<'a, T>(first: *const T, count: u64, most: usize, field: &str) -> Result<&'a [T], String> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > most as u64 {
        return Err(format!("{field}: {count} of them, more than {most}"));
    }
    if first.is_null() || !first.is_aligned() {
        return Err(format!("{field}: {count} of them at a pointer that is NULL or not aligned"));
    }
    // SAFETY: not NULL, aligned, few, readable by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(first, count as usize) })
}

/// # Safety
///
/// `told` points to `len` readable bytes, or is NULL.
unsafe fn bytes<'a>(told: RgBytes, most: usize, field: &str) -> Result<&'a [u8], String> {
    if told.len > most as u64 {
        return Err(format!("{field} has {} bytes, more than {most}", told.len));
    }
    if told.len > 0 && told.ptr.is_null() {
        return Err(format!("{field} is NULL with a length of {}", told.len));
    }
    // SAFETY: the caller's promise.
    unsafe { array(told.ptr, told.len, most, field) }
}

/// # Safety
///
/// `told` points to `len` readable bytes, or is NULL.
unsafe fn text(told: RgStr, most: usize, field: &str) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(RgBytes { ptr: told.ptr.cast(), len: told.len }, most, field) }?;
    str::from_utf8(bytes).map(str::to_owned).map_err(|e| format!("{field} isn't UTF-8: {e}"))
}

/// Text of one line.
///
/// # Safety
///
/// As of [`text`].
unsafe fn plain(told: RgStr, most: usize, field: &str) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let text = unsafe { text(told, most, field) }?;
    if text.chars().any(is_control) {
        return Err(format!("{field} has control characters"));
    }
    Ok(text)
}

/// # Safety
///
/// As of [`text`].
unsafe fn identifier(told: RgStr, field: &str) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let id = unsafe { plain(told, ID_MAX, field) }?;
    if id.is_empty() {
        return Err(format!("{field} is empty"));
    }
    Ok(id)
}

/// # Safety
///
/// As of [`text`].
unsafe fn file_name(told: RgStr) -> Result<String, String> {
    // SAFETY: the caller's promise.
    let name = unsafe { plain(told, PREFERRED_NAME_MAX, "preferred_name") }?;
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(format!("preferred_name {name:?} is no file name"));
    }
    Ok(name)
}

fn check_time(ms: i64, field: &str) -> Result<i64, String> {
    if (0..=YEAR_9999_END_MS).contains(&ms) {
        return Ok(ms);
    }
    Err(format!("{field} is {ms}, which isn't in the years 1970 to 9999 (Unix milliseconds)"))
}

fn flag(value: u32, field: &str) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{field} is {other}, neither 0 nor 1")),
    }
}

fn precision(value: u32) -> Result<Precision, String> {
    match value {
        0 => Ok(Precision::Unknown),
        1 => Ok(Precision::Day),
        2 => Ok(Precision::Minute),
        3 => Ok(Precision::Second),
        other => Err(format!("{other} is no precision (RG_PRECISION_*)")),
    }
}

fn state(value: u32) -> Result<MediaState, String> {
    match value {
        0 => Ok(MediaState::Available),
        1 => Ok(MediaState::Growing),
        2 => Ok(MediaState::Uploading),
        3 => Ok(MediaState::Archived),
        4 => Ok(MediaState::Failed),
        other => Err(format!("{other} is no state (RG_STATE_*)")),
    }
}

fn uid(bytes: [u8; 16]) -> Result<[u8; 16], String> {
    let uuid = uuid::Uuid::from_bytes(bytes);
    if uuid.get_version_num() != 7 || uuid.get_variant() != uuid::Variant::RFC4122 {
        return Err(format!("uid {uuid} isn't a UUIDv7"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

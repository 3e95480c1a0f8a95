#![allow(clippy::unwrap_used, clippy::panic)]

use std::ptr;

use proptest::prelude::*;
use recgate_plugin_api::abi::{Prefixed, RgPair};

use super::*;

fn good_media() -> RgMedia {
    RgMedia {
        id: RgStr::new("id"),
        version: RgStr::new("v"),
        size: 10,
        media_type: RgStr::new("audio/wav"),
        ..Prefixed::empty()
    }
}

fn judge(media: &RgMedia) -> Result<Item, Nonsense> {
    let told = RgItem { kind: abi::ITEM_MEDIA, media, ..Prefixed::empty() };
    // SAFETY: what it points to lives.
    unsafe { item(&told) }
}

fn refused(media: &RgMedia) -> String {
    judge(media).unwrap_err().what
}

#[test]
fn good_media_pass_whole() {
    let key = RgKey { kind: 3, reserved: 0, value: RgStr::new("c") };
    let uid = *uuid::Uuid::now_v7().as_bytes();
    let told = RgMedia {
        start_ms: 1,
        start_precision: 3,
        stop_ms: 2,
        duration_ms: 3,
        changed_ms: 4,
        present: 0x1f,
        state: 4,
        state_reason: RgStr::new("two\nlines"),
        uid,
        preferred_name: RgStr::new("a.wav"),
        header_patch: RgBytes::new(&[7; 10]),
        keys: &key,
        key_count: 1,
        ..good_media()
    };
    let expected = Media {
        id: "id".into(),
        version: "v".into(),
        size: 10,
        media_type: "audio/wav".into(),
        start_ms: Some(1),
        start_precision: Precision::Second,
        stop_ms: Some(2),
        duration_ms: Some(3),
        changed_ms: 4,
        state: MediaState::Failed,
        state_reason: "two\nlines".into(),
        uid: Some(uid),
        preferred_name: Some("a.wav".into()),
        header_patch: vec![7; 10],
        keys: vec![JoinKey { kind: JoinKind::ContactId, value: "c".into() }],
    };
    assert_eq!(judge(&told).unwrap(), Item::Media(expected));
    // What isn't marked as present isn't looked at.
    let told = RgMedia { start_ms: i64::MIN, duration_ms: u64::MAX, uid: [9; 16], ..good_media() };
    let Item::Media(media) = judge(&told).unwrap() else { panic!() };
    assert_eq!((media.start_ms, media.duration_ms, media.uid), (None, None, None));
}

#[test]
fn bad_media_are_refused_with_their_id() {
    let start = |ms| RgMedia { present: abi::MEDIA_HAS_START, start_ms: ms, ..good_media() };
    judge(&start(YEAR_9999_END_MS)).unwrap();
    assert!(refused(&start(YEAR_9999_END_MS + 1)).contains("start_ms is 253402300800000"));
    assert!(refused(&start(-1)).contains("years 1970 to 9999"));
    assert!(refused(&RgMedia { size: u64::MAX, ..good_media() }).contains("as a signed number -1"));
    let long = RgMedia { present: abi::MEDIA_HAS_DURATION, duration_ms: u64::MAX, ..good_media() };
    assert!(refused(&long).contains("duration_ms"));
    assert!(refused(&RgMedia { present: 0x20, ..good_media() }).contains("unknown bits"));
    let unnamed = RgMedia { present: abi::MEDIA_HAS_PREFERRED_NAME, ..good_media() };
    assert!(refused(&unnamed).contains("is no file name"));
    let no_uid = RgMedia { present: abi::MEDIA_HAS_UID, ..good_media() };
    assert!(refused(&no_uid).contains("UUIDv7"));
    let patch = RgMedia { header_patch: RgBytes::new(&[0; 11]), ..good_media() };
    assert!(refused(&patch).contains("more than the medium"));
    let key = ptr::null::<RgKey>();
    assert!(refused(&RgMedia { keys: key, key_count: 2, ..good_media() }).contains("keys: 2 of them"));
    assert!(refused(&RgMedia { key_count: u64::MAX, ..good_media() }).contains("more than 64"));
    let unversioned = RgMedia { version: RgStr::EMPTY, ..good_media() };
    assert!(refused(&unversioned).contains("version is empty"));
    let nonsense = judge(&RgMedia { id: RgStr::new("a\nb"), ..good_media() }).unwrap_err();
    assert_eq!((nonsense.id.as_str(), nonsense.what.as_str()), ("a\\nb", "id has control characters"));
}

#[test]
fn facts_are_checked() {
    let judge = |values: &[RgPair], gone| {
        let id = RgStr::new("f");
        let (values, value_count) = (values.as_ptr(), values.len() as u64);
        let facts = RgFacts { id, gone, values, value_count, ..Prefixed::empty() };
        let told = RgItem { kind: abi::ITEM_FACTS, facts: &facts, ..Prefixed::empty() };
        // SAFETY: what it points to lives.
        unsafe { item(&told) }.map_err(|nonsense| nonsense.what)
    };
    let pair = |key, value| RgPair { key: RgStr::new(key), value: RgStr::new(value) };
    let Item::Facts(facts) = judge(&[pair("a", "1\r\n2"), pair("b", "")], 1).unwrap() else { panic!() };
    assert!(facts.gone);
    assert_eq!(facts.values, [("a".into(), "1\r\n2".into()), ("b".into(), String::new())]);
    assert!(judge(&[pair("", "1")], 0).unwrap_err().contains("is empty"));
    assert!(judge(&[pair("a\n", "1")], 0).unwrap_err().contains("control characters"));
    assert!(judge(&[pair("a", &"x".repeat(8193))], 0).unwrap_err().contains("8193 bytes, more than 8192"));
    assert!(judge(&[], 2).unwrap_err().contains("gone is 2"));
}

#[test]
fn ends_of_scans_are_checked() {
    let good = RgScanEnd { complete: 1, watermark_ms: i64::MIN, ..Prefixed::empty() };
    assert_eq!(scan_end(&good).unwrap().watermark_ms, i64::MIN);
    assert!(scan_end(&RgScanEnd { cursor_len: 4097, ..good }).unwrap_err().contains("4097"));
    assert!(scan_end(&RgScanEnd { complete: 0, ..good }).unwrap_err().contains("without a cursor"));
    assert!(scan_end(&RgScanEnd { complete: 2, ..good }).unwrap_err().contains("complete is 2"));
    assert!(scan_end(&RgScanEnd { watermark_ms: i64::MAX, ..good }).unwrap_err().contains("watermark_ms"));
}

#[test]
fn errors_with_lies_in_them_are_errors_all_the_same() {
    let mut told = RgError { message_len: u32::MAX, ..Prefixed::empty() };
    told.message.fill(0xff);
    assert_eq!(error(13, &told).code, ErrorCode::Unavailable);
    let unknown = error(-7, &told);
    assert_eq!(unknown.code, ErrorCode::Internal);
    assert!(unknown.message.contains("returned -7"));
}

proptest! {
    /// Whatever numbers a plugin writes into its structs, there is a verdict, and what passes is within bounds.
    #[test]
    fn numbers_get_a_verdict(
        struct_size in prop_oneof![Just(184_u32), any::<u32>()],
        state in 0_u32..6, precision in 0_u32..5, present in 0_u32..64,
        size: u64, start: i64, duration: u64, changed in -5_i64..1 << 50, uid: [u8; 16],
        text in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        // Sizes beyond the struct would be a promise that this test can't keep.
        let struct_size = struct_size.min(184);
        let bytes = RgStr { ptr: text.as_ptr().cast(), len: text.len() as u64 };
        let told = RgMedia {
            struct_size, state, start_precision: precision, present, size, start_ms: start,
            duration_ms: duration, changed_ms: changed, uid, id: bytes, preferred_name: bytes,
            ..good_media()
        };
        if let Ok(Item::Media(media)) = judge(&told) {
            prop_assert!(i64::try_from(media.size).is_ok());
            prop_assert!(media.start_ms.is_none_or(|ms| (0..=YEAR_9999_END_MS).contains(&ms)));
            prop_assert!(!media.id.is_empty() && !media.id.chars().any(char::is_control));
        }
    }
}

//! The C header and its Rust mirror say the same: a C program made of the header prints every size, offset and
//! constant, and is compared with what Rust knows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

use std::{fmt::Write as _, fs, path::Path, process::Command};

use recgate_plugin_api::{ErrorCode, JoinKind, Level, MediaState, Precision, abi};

/// Adds what Rust knows to `$rust` and the statements that print the same to `$c`. The pattern has no `..`, so a
/// field that is missing in the list doesn't compile.
macro_rules! layout {
    ($rust:ident, $c:ident; $($c_name:literal = $name:ident { $($field:ident),* $(,)? })*) => {
        $(
            writeln!($rust, concat!($c_name, " {} {}"), size_of::<abi::$name>(), align_of::<abi::$name>()).unwrap();
            writeln!($c, concat!(
                "printf(\"", $c_name, " %zu %zu\\n\", sizeof(", $c_name, "), _Alignof(", $c_name, "));"
            )).unwrap();
            const _: fn(abi::$name) = |value| { let abi::$name { $($field: _),* } = value; };
            // SAFETY: integers, arrays, raw pointers and optional functions may all be zero.
            let zero: abi::$name = unsafe { std::mem::zeroed() };
            $(
                writeln!(
                    $rust,
                    concat!($c_name, ".", stringify!($field), " {} {}"),
                    std::mem::offset_of!(abi::$name, $field),
                    size_of_val(&zero.$field),
                ).unwrap();
                writeln!($c, concat!(
                    "printf(\"", $c_name, ".", stringify!($field), " %zu %zu\\n\", offsetof(", $c_name, ", ",
                    stringify!($field), "), sizeof(((", $c_name, " *)0)->", stringify!($field), "));"
                )).unwrap();
            )*
        )*
    };
}

#[test]
fn header_and_rust_agree() {
    let mut rust = String::new();
    let mut c = String::new();
    layout! { rust, c;
        "rg_str" = RgStr { ptr, len }
        "rg_bytes" = RgBytes { ptr, len }
        "rg_key" = RgKey { kind, reserved, value }
        "rg_pair" = RgPair { key, value }
        "rg_error" = RgError { struct_size, code, retry_after_ms, message_len, reserved, message }
        "rg_descriptor" = RgDescriptor {
            magic, struct_size, abi_major, abi_minor, reserved, name, version, licence
        }
        "rg_host" = RgHost { struct_size, abi_minor, ctx, log, now_ms }
        "rg_call" = RgCall { struct_size, reserved, ctx, is_cancelled }
        "rg_media" = RgMedia {
            struct_size, state, id, version, size, media_type, start_ms, stop_ms, changed_ms, duration_ms,
            start_precision, present, state_reason, uid, preferred_name, header_patch, keys, key_count
        }
        "rg_facts" = RgFacts { struct_size, gone, id, revision, keys, key_count, values, value_count }
        "rg_item" = RgItem { struct_size, kind, media, gone_id, facts }
        "rg_scan_from" = RgScanFrom { struct_size, kind, cursor }
        "rg_scan_end" = RgScanEnd { struct_size, complete, watermark_ms, cursor_len, reserved, cursor }
        "rg_capabilities" = RgCapabilities {
            struct_size, max_concurrent_calls, bits, preferred_read_size, reserved
        }
        "rg_health" = RgHealth { struct_size, reachable, present, message_len, storage_time_ms, message }
        "rg_plugin" = RgPlugin {
            struct_size, reserved, config_schema, create, destroy, capabilities, health, scan, stat, open, read_at,
            close, watch
        }
    }
    for (name, value) in constants() {
        writeln!(rust, "{name} {value}").unwrap();
        writeln!(c, "printf(\"{name} %lld\\n\", (long long)({name}));").unwrap();
    }

    let folder = tempfile_folder("layout");
    let source = folder.join("layout.c");
    let program = folder.join("layout");
    let text =
        format!("#include <stdio.h>\n#include \"recgate_plugin.h\"\nint main(void) {{\n{c}return 0;\n}}\n");
    fs::write(&source, text).unwrap();
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include_folder())
        .arg("-o")
        .args([&program, &source])
        .output()
        .expect("cc runs: Rust needs it as its linker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    for (ours, theirs) in rust.lines().zip(printed.lines()) {
        assert_eq!(ours, theirs, "Rust (left) and the header (right) differ");
    }
    assert_eq!(rust.lines().count(), printed.lines().count());
}

#[test]
fn header_stands_alone_in_c_and_in_cpp() {
    let header = include_folder().join("recgate_plugin.h");
    for language in [&["-x", "c", "-std=c11"], &["-x", "c++", "-std=c++11"]] {
        if language.contains(&"c++") && !has_cpp() {
            continue;
        }
        let output = Command::new("cc")
            .args(language)
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .arg(&header)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Whether `cc` has a C++ compiler beside it; a machine that only builds Rust has none.
fn has_cpp() -> bool {
    let output = Command::new("cc").arg("-print-prog-name=cc1plus").output().unwrap();
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute()
}

fn constants() -> Vec<(&'static str, i64)> {
    let mut all: Vec<(&str, i64)> = vec![
        ("RG_ABI_MAJOR", abi::ABI_MAJOR.into()),
        ("RG_ABI_MINOR", abi::ABI_MINOR.into()),
        ("RG_DESCRIPTOR_MAGIC", abi::DESCRIPTOR_MAGIC as i64),
        ("RG_OK", abi::OK.into()),
        ("RG_ERROR_MESSAGE_MAX", abi::ERROR_MESSAGE_MAX as i64),
        ("RG_HEALTH_MESSAGE_MAX", abi::HEALTH_MESSAGE_MAX as i64),
        ("RG_NAME_MAX", abi::NAME_MAX as i64),
        ("RG_VERSION_MAX", abi::VERSION_MAX as i64),
        ("RG_LICENCE_MAX", abi::LICENCE_MAX as i64),
        ("RG_ID_MAX", abi::ID_MAX as i64),
        ("RG_PREFERRED_NAME_MAX", abi::PREFERRED_NAME_MAX as i64),
        ("RG_HEADER_PATCH_MAX", abi::HEADER_PATCH_MAX as i64),
        ("RG_KEYS_MAX", abi::KEYS_MAX as i64),
        ("RG_VALUES_MAX", abi::VALUES_MAX as i64),
        ("RG_VALUE_KEY_MAX", abi::VALUE_KEY_MAX as i64),
        ("RG_VALUE_MAX", abi::VALUE_MAX as i64),
        ("RG_CURSOR_MAX", abi::CURSOR_MAX as i64),
        ("RG_MEDIA_HAS_START", abi::MEDIA_HAS_START.into()),
        ("RG_MEDIA_HAS_STOP", abi::MEDIA_HAS_STOP.into()),
        ("RG_MEDIA_HAS_DURATION", abi::MEDIA_HAS_DURATION.into()),
        ("RG_MEDIA_HAS_UID", abi::MEDIA_HAS_UID.into()),
        ("RG_MEDIA_HAS_PREFERRED_NAME", abi::MEDIA_HAS_PREFERRED_NAME.into()),
        ("RG_ITEM_MEDIA", abi::ITEM_MEDIA.into()),
        ("RG_ITEM_MEDIA_GONE", abi::ITEM_MEDIA_GONE.into()),
        ("RG_ITEM_FACTS", abi::ITEM_FACTS.into()),
        ("RG_ITEM_LISTENING", abi::ITEM_LISTENING.into()),
        ("RG_SCAN_FULL", abi::SCAN_FULL.into()),
        ("RG_SCAN_SINCE", abi::SCAN_SINCE.into()),
        ("RG_SCAN_MORE", abi::SCAN_MORE.into()),
        ("RG_SCAN_COMPLETE", abi::SCAN_COMPLETE.into()),
        ("RG_WATERMARK_UNKNOWN", abi::WATERMARK_UNKNOWN),
        ("RG_CAP_FACTS", abi::CAP_FACTS as i64),
        ("RG_CAP_WATCH", abi::CAP_WATCH as i64),
        ("RG_HEALTH_HAS_STORAGE_TIME", abi::HEALTH_HAS_STORAGE_TIME.into()),
        ("RG_LOG_ERROR", Level::Error as i64),
        ("RG_LOG_WARN", Level::Warn as i64),
        ("RG_LOG_INFO", Level::Info as i64),
        ("RG_LOG_DEBUG", Level::Debug as i64),
        ("RG_LOG_TRACE", Level::Trace as i64),
        ("RG_PRECISION_UNKNOWN", Precision::Unknown as i64),
        ("RG_PRECISION_DAY", Precision::Day as i64),
        ("RG_PRECISION_MINUTE", Precision::Minute as i64),
        ("RG_PRECISION_SECOND", Precision::Second as i64),
        ("RG_STATE_AVAILABLE", MediaState::Available as i64),
        ("RG_STATE_GROWING", MediaState::Growing as i64),
        ("RG_STATE_UPLOADING", MediaState::Uploading as i64),
        ("RG_STATE_ARCHIVED", MediaState::Archived as i64),
        ("RG_STATE_FAILED", MediaState::Failed as i64),
        ("RG_KEY_RECORDING_UUID", JoinKind::RecordingUuid as i64),
        ("RG_KEY_OBJECT_KEY", JoinKind::ObjectKey as i64),
        ("RG_KEY_CONTACT_ID", JoinKind::ContactId as i64),
        ("RG_KEY_CONVERSATION_ID", JoinKind::ConversationId as i64),
    ];
    let codes = [
        "RG_E_NOT_FOUND",
        "RG_E_PERMISSION",
        "RG_E_LOCKED_RETENTION",
        "RG_E_LOCKED_HOLD",
        "RG_E_PRECONDITION",
        "RG_E_RANGE",
        "RG_E_INVALID",
        "RG_E_UNSUPPORTED",
        "RG_E_TOO_LARGE",
        "RG_E_NO_SPACE",
        "RG_E_BUSY",
        "RG_E_RATE_LIMITED",
        "RG_E_UNAVAILABLE",
        "RG_E_TIMEOUT",
        "RG_E_CANCELLED",
        "RG_E_CORRUPT",
        "RG_E_ARCHIVED",
        "RG_E_INTERNAL",
        "RG_E_PANIC",
    ];
    assert_eq!(codes.len(), ErrorCode::ALL.len());
    all.extend(codes.into_iter().zip(ErrorCode::ALL.map(|code| code as i64)));
    all
}

fn include_folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// A folder of this test's own, below the build's.
fn tempfile_folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

//! Finding, checking and loading: every refusal says which check failed.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use recgate::sources::{LoadError, MediaSource as _, Plugins, ScanStart, Trust};
use recgate_plugin_api::{Item, Precision};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{BROKEN, PATIENT, TRUSTED, WRONG_MAJOR, broken, compile_c, folder_with, safe_folder};

fn plugins(folder: &Path) -> Plugins {
    Plugins::new(None, vec![folder.to_owned()])
}

/// Compiles a changed example and loads it by its path.
fn load_changed(changes: &[(&str, &str)]) -> Result<(), LoadError> {
    let folder = safe_folder();
    let library = compile_c(folder.path(), "libchanged.so", changes);
    plugins(folder.path()).load(library.to_str().unwrap(), TRUSTED).map(drop)
}

fn message(changes: &[(&str, &str)]) -> String {
    load_changed(changes).unwrap_err().to_string()
}

#[tokio::test]
async fn a_plugin_in_c_loads_scans_and_reads() {
    let folder = safe_folder();
    compile_c(folder.path(), "libminimal.so", &[]);
    let plugin = plugins(folder.path()).load("minimal", TRUSTED).unwrap();
    assert_eq!((plugin.name(), plugin.info().abi), ("minimal", (0, 2)));
    let source = plugin.create("c", &json!({}), PATIENT).unwrap();

    let (sender, mut receiver) = mpsc::channel(4);
    let end = source.scan(ScanStart::Full, sender).await.unwrap();
    assert!(end.complete && end.watermark_ms > 1_600_000_000_000);
    let items = receiver.recv().await.unwrap();
    let [Item::Media(media)] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((media.id.as_str(), media.size), ("hello.txt", 25));
    assert_eq!((media.start_ms, media.start_precision), (Some(1_465_171_277_000), Precision::Second));

    assert_eq!(source.stat("hello.txt", None).await.unwrap(), *media);
    assert!(source.health().await.unwrap().reachable);
    let open = source.open("hello.txt", "1").await.unwrap();
    assert_eq!(&open.read_at(6, 4).await.unwrap()[..], b"from");
    assert_eq!(&open.read_at(20, 100).await.unwrap()[..], b"in C.");
    assert!(open.read_at(25, 1).await.unwrap().is_empty());
    let refused = source.open("hello.txt", "2").await.err().unwrap();
    assert_eq!(refused.to_string(), "source c: Precondition: the version is 1");
}

#[test]
fn a_library_is_loaded_once() {
    let folder = safe_folder();
    let library = compile_c(folder.path(), "libonce.so", &[("\"minimal\",", "\"once\",")]);
    let plugins = plugins(folder.path());
    let first = plugins.load("once", TRUSTED).unwrap();
    let second = plugins.load(library.to_str().unwrap(), TRUSTED).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    // Another file under the name of one that is loaded.
    fs::remove_file(&library).unwrap();
    compile_c(folder.path(), "libonce.so", &[("\"minimal\",", "\"once\","), ("Hello", "Hallo")]);
    let refused = plugins.load("once", TRUSTED).unwrap_err();
    assert!(matches!(refused, LoadError::Changed(_)), "{refused}");
    assert!(refused.to_string().contains("restart the gateway"));
}

#[test]
fn another_major_is_refused_before_it_runs() {
    let folder = folder_with(WRONG_MAJOR);
    let refused = plugins(folder.path()).load(folder.path().join(WRONG_MAJOR).to_str().unwrap(), TRUSTED);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("built for plugin ABI 4711.2, and this gateway speaks 0.2"), "{refused}");
    let refused = plugins(folder.path()).load("wrong-major", TRUSTED).unwrap_err().to_string();
    assert!(refused.contains("there is no plugin \"wrong-major\""), "{refused}");
    assert!(refused.contains("ABI 4711.2"), "the reason stands beside: {refused}");
}

#[test]
fn a_later_minor_is_taken_for_what_both_know() {
    load_changed(&[(".abi_minor = RG_ABI_MINOR", ".abi_minor = 99")]).unwrap();
}

#[test]
fn wrong_descriptors_are_refused() {
    let refused = message(&[(".magic = RG_DESCRIPTOR_MAGIC", ".magic = 7")]);
    assert!(refused.contains("its magic is 0x0000000000000007"), "{refused}");
    let refused = message(&[(".struct_size = sizeof(rg_descriptor)", ".struct_size = 24")]);
    assert!(refused.contains("its struct_size is 24"), "{refused}");
    let refused = message(&[(".name = \"minimal\"", ".name = \"Minimal!\"")]);
    assert!(refused.contains("\"Minimal!\" isn't [a-z]"), "{refused}");
    let refused = message(&[(".version = \"0.1.0\"", ".version = \"\\x1b[2J\"")]);
    assert!(refused.contains("its version is empty or isn't printable"), "{refused}");
    let refused = message(&[("const rg_descriptor rg_plugin_descriptor", "const rg_descriptor other")]);
    assert!(refused.contains("doesn't export `rg_plugin_descriptor`"), "{refused}");
    let refused = message(&[("int32_t rg_plugin_init(", "int32_t other_init(")]);
    assert!(refused.contains("doesn't export `rg_plugin_init`"), "{refused}");
}

#[test]
fn wrong_tables_and_refused_starts_are_refused() {
    let refused = message(&[("    host = given;", "    return fail(error, RG_E_INVALID, \"not today\");")]);
    assert!(refused.contains("refuses to start: Invalid: not today"), "{refused}");
    let refused = message(&[("    host = given;", "    return 4711;")]);
    assert!(refused.contains("returned 4711, which is no result"), "{refused}");
    let refused = message(&[("    out->struct_size = room;", "    out->struct_size = 8;")]);
    assert!(refused.contains("a struct_size of 8, where at least 88 is needed"), "{refused}");
    for function in ["config_schema", "create", "destroy", "capabilities", "health", "scan"] {
        let line = format!("        .{function} = {function},\n");
        let refused =
            message(&[(&line, &format!("        .{function} = {function} == NULL ? {function} : NULL,\n"))]);
        assert!(refused.contains(&format!("its table lacks `{function}`")), "{refused}");
    }
    for (function, value) in [("stat", "stat_medium"), ("open", "open_medium"), ("close", "close_medium")] {
        let line = format!("        .{function} = {value},\n");
        let refused =
            message(&[(&line, &format!("        .{function} = {value} == NULL ? {value} : NULL,\n"))]);
        assert!(refused.contains(&format!("its table lacks `{function}`")), "{refused}");
    }
}

#[test]
fn wrong_schemas_are_refused() {
    let schema = r#"{\"type\":\"object\",\"additionalProperties\":false}"#;
    let refused = message(&[(schema, "nonsense")]);
    assert!(refused.contains("its configuration schema is wrong: it is no JSON"), "{refused}");
    let refused = message(&[(schema, r#"{\"type\":\"nonsense\"}"#)]);
    assert!(refused.contains("no JSON Schema"), "{refused}");
    let refused = message(&[(schema, "\\xff")]);
    assert!(refused.contains("UTF-8"), "{refused}");
}

#[test]
fn files_that_are_no_plugins_are_refused() {
    let folder = safe_folder();
    let text = folder.path().join("libtext.so");
    fs::write(&text, "no library at all, but long enough to hold the header of one: ".repeat(3)).unwrap();
    let refused = plugins(folder.path()).load(text.to_str().unwrap(), TRUSTED).unwrap_err().to_string();
    assert!(refused.contains("it is no ELF file"), "{refused}");
    // In a folder of the configuration it is reported, beside the executable it is nobody's.
    assert_eq!(plugins(folder.path()).list().len(), 1);
    assert!(Plugins::new(Some(folder.path().to_owned()), vec![]).list().is_empty());

    let directory = folder.path().join("libfolder.so");
    fs::create_dir(&directory).unwrap();
    let refused = plugins(folder.path()).load(directory.to_str().unwrap(), TRUSTED).unwrap_err();
    assert!(matches!(refused, LoadError::NotAFile(_)), "{refused}");

    let refused = plugins(folder.path()).load("/nonexistent/lib.so", TRUSTED).unwrap_err().to_string();
    assert!(refused.starts_with("/nonexistent/lib.so: "), "{refused}");
    let refused = plugins(folder.path()).load("./libtext.so", TRUSTED).unwrap_err();
    assert!(matches!(refused, LoadError::Relative(_)), "{refused}");
    let refused = plugins(folder.path()).load("absent", TRUSTED).unwrap_err().to_string();
    assert!(refused.contains("there is no plugin \"absent\""), "{refused}");
    let missing = Plugins::new(None, vec!["/nonexistent".into()]).list();
    assert!(matches!(missing[0].result, Err(LoadError::Io { .. })));
}

#[test]
fn permissions_are_checked() {
    let folder = folder_with(BROKEN);
    let library = folder.path().join(BROKEN);
    let load = || plugins(folder.path()).load(library.to_str().unwrap(), TRUSTED).map(drop);
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(&library, 0o757);
    let refused = load().unwrap_err().to_string();
    assert!(refused.contains(BROKEN) && refused.contains("(mode 0757); run `chmod o-w`"), "{refused}");
    set(&library, 0o755);
    set(folder.path(), 0o777);
    let refused = load().unwrap_err();
    assert!(
        matches!(&refused, LoadError::Writable { path, mode: 0o777 } if *path == folder.path().canonicalize().unwrap()),
        "{refused}"
    );
    set(folder.path(), 0o755);
    load().unwrap();
}

/// Only root can give files away; whoever else runs the tests sees the refusal through files of others.
#[test]
fn the_owner_is_checked() {
    let folder = folder_with(BROKEN);
    let library = folder.path().join(BROKEN);
    let given = std::os::unix::fs::chown(&library, Some(12345), None).is_ok();
    let result = plugins(folder.path()).load(library.to_str().unwrap(), TRUSTED);
    match result {
        Err(refused) => assert!(refused.to_string().contains("belongs to user 12345"), "{refused}"),
        Ok(_) => assert!(!given, "a foreign file was loaded"),
    }
}

#[test]
fn plugins_lie_in_their_folders() {
    let folder = folder_with(BROKEN);
    let elsewhere = safe_folder();
    let library = folder.path().join(BROKEN);
    let refused = plugins(elsewhere.path()).load(library.to_str().unwrap(), TRUSTED).unwrap_err();
    assert!(matches!(refused, LoadError::Outside { .. }), "{refused}");
    // A link in the right folder doesn't help.
    let link = elsewhere.path().join("liblink.so");
    std::os::unix::fs::symlink(&library, &link).unwrap();
    let refused = plugins(elsewhere.path()).load(link.to_str().unwrap(), TRUSTED).unwrap_err().to_string();
    assert!(refused.contains("lies in none of the folders for plugins"), "{refused}");
    // Below isn't in.
    let below = folder.path().join("deps");
    fs::create_dir(&below).unwrap();
    fs::copy(&library, below.join("libdeep.so")).unwrap();
    assert_eq!(plugins(folder.path()).list().len(), 1);
    // Whoever asks what a file is need not have installed it.
    let info = plugins(elsewhere.path()).inspect(&library).unwrap();
    assert_eq!(info.name, "broken");
    assert_eq!(info.schema.unwrap()["type"], "object");
}

#[test]
fn the_pin_and_the_isolation_are_checked() {
    let folder = folder_with(BROKEN);
    let plugins = plugins(folder.path());
    let trust = |in_process, sha256| Trust { in_process, sha256 };
    let refused = plugins.load("broken", trust(false, None)).unwrap_err().to_string();
    assert!(refused.contains("isolation = \"in-process\""), "{refused}");
    let refused = plugins.load("broken", trust(true, Some([0xab; 32]))).unwrap_err().to_string();
    assert!(refused.contains(&format!("pins {}", "ab".repeat(32))), "{refused}");
    let listed = plugins.list();
    let info = listed[0].result.as_ref().unwrap();
    assert!(!listed[0].own && info.schema.is_none() && info.size > 10_000);
    plugins.load("broken", trust(true, Some(info.sha256))).unwrap();
    // Beside the executable no word of trust is needed.
    let own = Plugins::new(Some(folder.path().to_owned()), vec![]);
    assert!(own.list()[0].own);
    own.load("broken", Trust::default()).unwrap();
}

#[test]
fn two_of_one_name_are_refused() {
    let folder = folder_with(BROKEN);
    fs::copy(folder.path().join(BROKEN), folder.path().join("libother.so")).unwrap();
    let plugins = plugins(folder.path());
    let refused = plugins.load("broken", TRUSTED).unwrap_err().to_string();
    assert!(refused.contains(BROKEN) && refused.contains("libother.so"), "{refused}");
    assert!(plugins.list().iter().all(|found| found.result.is_err()));
    plugins.load(folder.path().join("libother.so").to_str().unwrap(), TRUSTED).unwrap();
}

#[test]
fn settings_are_checked_against_the_schema() {
    let plugin = broken();
    assert!(plugin.check_settings(&json!({"count": 3})).is_empty());
    let problems = plugin.check_settings(&json!({"count": "secret", "media": [{"size": 1}], "cuont": 3}));
    let has = |part: &str| problems.iter().any(|problem| problem.to_string().contains(part));
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(has("/count: the value is not of type") && has("/media/0: ") && has("cuont"), "{problems:?}");
    assert!(!has("secret"), "{problems:?}");
    let refused = plugin.create("s", &json!({"count": -1}), PATIENT).unwrap_err();
    assert_eq!(refused.error.code, recgate_plugin_api::ErrorCode::Invalid);
}

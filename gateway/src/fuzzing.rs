//! What the fuzz targets in `tests/fuzz` call: parsers with what must hold of whatever they return.
//!
//! This module exists with `--cfg fuzzing` alone, so that nothing else becomes public for its sake.

use std::path::Path;

use crate::{
    config,
    layout::{LocalDay, NameForm, RecordingName, UtcDay},
    vfs::VPath,
};

/// Takes these bytes from an SFTP channel: frames, requests, their fields, extensions.
pub fn sftp_packets(input: &[u8]) {
    crate::doors::ssh::fuzz_packets(input);
}

/// Takes these bytes as the first of an SSH client: its identification.
pub fn greeting(input: &[u8]) {
    crate::doors::ssh::fuzz_greeting(input);
}

/// Takes these bytes from a load balancer: a header of the PROXY protocol.
pub fn proxy(input: &[u8]) {
    crate::doors::common::fuzz_proxy(input);
}

/// Parses the bytes after the first NUL as a path that begins from the one before it (or from the root), and each of
/// its names as the name of a recording, folder or index.
pub fn paths(input: &[u8]) {
    let nul = input.iter().position(|byte| *byte == 0);
    let (base, text) = nul
        .and_then(|at| input.split_at_checked(at))
        .map_or((&b""[..], input), |(base, text)| (base, text.get(1..).unwrap_or_default()));
    let base = VPath::parse(&VPath::root(), base).unwrap_or_default();
    let Ok(path) = VPath::parse(&base, text) else { return };
    let shown = path.to_string();
    assert!(shown.starts_with('/') && shown.len() <= 2 * VPath::MAX_BYTES + 1, "{shown:?}");
    // Its own spelling means the same from anywhere (unless the first slash has made it too long).
    if let Ok(again) = VPath::parse(&base, shown.as_bytes()) {
        assert_eq!(again, path);
    }
    for name in path.segments() {
        assert!(
            !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']),
            "{name:?} in {shown:?}"
        );
        names(name);
    }
}

/// A name that is understood is spelled in one way, but for the sequence 0.
fn names(name: &str) {
    for form in [NameForm::Long, NameForm::Short] {
        if let Some(parsed) = RecordingName::parse(name, form) {
            let spellings = [parsed.text(NameForm::Long), parsed.text(NameForm::Short)];
            assert!(spellings.iter().any(|spelling| spelling == name), "{name:?} is {spellings:?}");
        }
    }
    if let Some(day) = UtcDay::parse_folder(name) {
        assert_eq!(day.folder_name(), name);
    }
    if let Some(day) = LocalDay::parse_index_name(name) {
        assert_eq!(day.index_name(), name);
    }
}

/// Reads a configuration. Files that it names aren't opened: see `config::files`.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (file, base) = (Path::new("/fuzz/recgate.toml"), Path::new("/fuzz"));
    match config::parse(file, text, base) {
        Ok(config) => {
            assert!(!config.ssh.listen.is_empty(), "listens nowhere");
            assert!(config.limits.max_unauthenticated <= config.limits.max_connections);
            assert!(config.limits.read_ahead_per_file <= config.limits.read_ahead_budget);
            assert!(config.tenants.is_sorted_by(|a, b| a.id < b.id), "ids of tenants");
            // What was accepted once is accepted by a reload.
            assert_eq!(config::check_reload(file, &config, &config).err(), None);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let lines = text.lines().count().max(1) + 1;
            for problem in problems.iter() {
                assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
                assert!(!problem.wrong.is_empty() && !problem.remedy.is_empty(), "{problem}");
            }
        }
    }
}

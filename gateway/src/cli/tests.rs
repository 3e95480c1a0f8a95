#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use clap::CommandFactory;

use super::*;
use crate::state::DataDirLock;

const HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$6wjP+SsiOY/dHb9Dn6KwuA$lPQBaZKFLWCWRjrMKgYtKMTMFnfzuQ+GljyGQXDIhg4";

/// Runs a command as a shell would, without its own process: what it prints, and how it ends.
fn recgate(arguments: &[&str]) -> (String, Result<(), Failure>) {
    let line = CommandLine::try_parse_from([&["recgate"], arguments].concat()).unwrap();
    let mut printed = Vec::new();
    let result = run(line.command, &mut Output::new(&mut printed));
    (String::from_utf8(printed).unwrap(), result)
}

fn config_in(dir: &Path, role: &str) -> PathBuf {
    let path = dir.join("recgate.toml");
    let text = format!(
        "data_dir = \"data\"\n[[tenant]]\nid = 1\nname = \"acme\"\nzone = \"UTC\"\n[[tenant.user]]\nid = 1\n\
         role = \"{role}\"\npassword_hash = \"{HASH}\"\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn the_definition_holds_together() {
    CommandLine::command().debug_assert();
}

#[test]
fn help_documents_every_exit_code() {
    let help = CommandLine::command().render_help().to_string();
    for (exit, meaning) in Exit::ALL {
        assert!(help.contains(&format!("{}  {meaning}", exit.code())), "{exit:?}: {help}");
    }
    for (number, (exit, _)) in Exit::ALL.iter().enumerate() {
        assert_eq!(usize::from(exit.code()), number, "the table is in order and has no gap");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let code = |arguments: &[&str]| main(arguments.iter().map(OsString::from));
    assert_eq!(format!("{:?}", code(&["recgate", "sevre"])), format!("{:?}", ExitCode::from(2)));
    assert_eq!(format!("{:?}", code(&["recgate", "--help"])), format!("{:?}", ExitCode::from(0)));
}

#[test]
fn check_tells_all_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let path = config_in(dir.path(), "downloader");
    let file = path.to_str().unwrap();
    let (printed, result) = recgate(&["check", "--config", file]);
    result.unwrap();
    assert_eq!(printed, format!("{file}: right, with 1 tenant\n"));

    config_in(dir.path(), "boss");
    let (printed, result) = recgate(&["check", "--config", file]);
    let failure = result.unwrap_err();
    assert_eq!((printed.as_str(), failure.exit), ("", Exit::Configuration));
    assert!(failure.message.starts_with(&format!("{file}:8:8: tenant[0].user[0].role: ")), "{failure:?}");

    let (printed, result) = recgate(&["check", "--json", "--config", file]);
    assert_eq!(result.unwrap_err().exit, Exit::Configuration);
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["line"], 8);
    assert_eq!(report["problems"][0]["key"], "tenant[0].user[0].role");
}

#[test]
fn status_without_a_gateway_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = config_in(dir.path(), "downloader");
    for arguments in [
        ["status", "--config", path.to_str().unwrap()],
        ["status", "--data-dir", dir.path().join("data").to_str().unwrap()],
    ] {
        let failure = recgate(&arguments).1.unwrap_err();
        assert_eq!(failure.exit, Exit::NotRunning);
        assert_eq!(
            failure.message,
            format!("no gateway is running with this data folder ({}/data/admin.sock)", dir.path().display())
        );
    }
}

#[test]
fn state_needs_a_stopped_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let lock = DataDirLock::acquire(dir.path()).unwrap();
    for command in ["verify", "rebuild"] {
        let failure = recgate(&["state", command, "--data-dir", data]).1.unwrap_err();
        assert_eq!(failure.exit, Exit::Running, "{failure:?}");
    }
    let failure = recgate(&["state", "restore", "/backup", "--data-dir", data]).1.unwrap_err();
    assert_eq!(failure.exit, Exit::Running);
    drop(lock);

    fs::write(dir.path().join("journal"), "x").unwrap();
    let failure = recgate(&["state", "restore", "/backup", "--data-dir", data]).1.unwrap_err();
    assert!(failure.message.contains("is not empty"), "{failure:?}");

    fs::remove_file(dir.path().join("journal")).unwrap();
    let failure = recgate(&["state", "restore", "/backup", "--data-dir", data]).1.unwrap_err();
    assert!(failure.message.starts_with("/backup is not a backup"), "{failure:?}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failure = Output::new(&mut Closed).line("x").unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Done, ""));
}

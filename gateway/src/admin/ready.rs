//! The ready file: tells scripts and tests that everything listens, and where.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::identity::Role;

/// What is in the file, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The doors by protocol (`sftp`).
    pub doors: BTreeMap<String, ReadyDoor>,
    /// The address and port of metrics and probes, over HTTP; left out where they aren't configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Logins that were made for a demo; empty otherwise.
    pub users: Vec<ReadyUser>,
}

/// A door that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyDoor {
    /// The first address that it listens on, with the real port.
    pub address: String,
    /// The fingerprint of its ed25519 host key, or of its first one: `SHA256:…`.
    pub host_key_sha256: String,
    /// The fingerprints of all its host keys.
    #[serde(default)]
    pub host_keys: Vec<String>,
}

/// A login of a demo.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyUser {
    /// The tenant's name.
    pub tenant: String,
    /// The user's name; `None` is the default user.
    pub user: Option<String>,
    /// What is typed: `tenant` or `tenant/user`.
    pub login: String,
    /// The password.
    pub password: String,
    /// What the user may do.
    pub role: Role,
}

// By hand, because a password has no place in a log.
impl std::fmt::Debug for ReadyUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyUser")
            .field("login", &self.login)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Ready {
    /// Writes the file whole or not at all, readable by the own user only: it may hold passwords.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut json = serde_json::to_vec(self).map_err(io::Error::other)?;
        json.push(b'\n');
        write_private(path, &json)
    }
}

/// Writes a file of mode 0600 whole or not at all.
///
/// # Errors
/// What the operating system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut newborn_name = std::ffi::OsString::from(".");
    newborn_name.push(name);
    newborn_name.push(format!(".{}", std::process::id()));
    let newborn: PathBuf = path.with_file_name(newborn_name);
    // What a killed process of the same number left behind would keep its old mode.
    let _ = fs::remove_file(&newborn);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&newborn)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&newborn, path));
    if written.is_err() {
        let _ = fs::remove_file(&newborn);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_has_the_documented_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        let door = ReadyDoor {
            address: "127.0.0.1:2022".to_owned(),
            host_key_sha256: "SHA256:abc".to_owned(),
            host_keys: vec!["SHA256:abc".to_owned(), "SHA256:def".to_owned()],
        };
        let user = ReadyUser {
            tenant: "acme".to_owned(),
            user: Some("manager".to_owned()),
            login: "acme/manager".to_owned(),
            password: "secret".to_owned(),
            role: Role::Manager,
        };
        assert!(!format!("{user:?}").contains("secret"));
        let metrics = Some("127.0.0.1:9464".to_owned());
        let ready = Ready { doors: [("sftp".to_owned(), door)].into(), metrics, users: vec![user] };
        ready.write(&path).unwrap();
        ready.write(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"doors\":{\"sftp\":{\"address\":\"127.0.0.1:2022\",\"host_key_sha256\":\"SHA256:abc\",\
             \"host_keys\":[\"SHA256:abc\",\"SHA256:def\"]}},\
             \"metrics\":\"127.0.0.1:9464\",\
             \"users\":[{\"tenant\":\"acme\",\"user\":\"manager\",\"login\":\"acme/manager\",\
             \"password\":\"secret\",\"role\":\"manager\"}]}\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

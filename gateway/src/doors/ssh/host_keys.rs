//! The keys by which clients know the gateway again. They are made once, durably, and never replaced by the gateway.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use russh::keys::{
    Algorithm, HashAlg, PrivateKey,
    key::safe_rng,
    ssh_key::{LineEnding, private::RsaKeypair},
};

/// Bits of an RSA key that is made.
const RSA_BITS: usize = 3072;
/// Bits of the weakest RSA key that is taken.
const RSA_LEAST_BITS: usize = 2048;
/// The longest key file in bytes.
const LONGEST: u64 = 64 * 1024;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// It can't be read or written.
    #[error("host key {}: {problem}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        problem: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
    /// Others than its owner can get at it.
    #[error("host key {}: its mode is {mode:04o}, others can reach it; run: chmod 600 {}", path.display(), path.display())]
    Mode {
        /// Which.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// It is no key that can be used.
    #[error("host key {}: {problem}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// Loads the configured keys, or those in `folder`, which are made if they aren't there. Takes a second then.
///
/// # Errors
/// [`HostKeyError`], with its remedy.
pub(super) fn load_or_create(configured: &[PathBuf], folder: &Path) -> Result<Vec<PrivateKey>, HostKeyError> {
    if !configured.is_empty() {
        return configured.iter().map(|path| load(path)).collect();
    }
    let ed25519 = folder.join("ssh_host_ed25519_key");
    let rsa = folder.join("ssh_host_rsa_key");
    create_folder(folder)?;
    Ok(vec![
        load_or_make(&ed25519, || PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519))?,
        load_or_make(&rsa, || RsaKeypair::random(&mut safe_rng(), RSA_BITS).map(PrivateKey::from))?,
    ])
}

/// `SHA256:…` of the ed25519 key, or of the first where there is none.
pub(super) fn fingerprint(keys: &[PrivateKey]) -> String {
    let key = keys.iter().find(|key| key.algorithm() == Algorithm::Ed25519).or(keys.first());
    key.map(|key| key.fingerprint(HashAlg::Sha256).to_string()).unwrap_or_default()
}

/// `SHA256:…` of each: clients show the fingerprint of the one that they have chosen.
pub(super) fn fingerprints(keys: &[PrivateKey]) -> Vec<String> {
    keys.iter().map(|key| key.fingerprint(HashAlg::Sha256).to_string()).collect()
}

fn load_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<PrivateKey, russh::keys::ssh_key::Error>,
) -> Result<PrivateKey, HostKeyError> {
    if !path.try_exists().map_err(|error| io_error(path, "can't be looked for", error))? {
        let unusable = |error: russh::keys::ssh_key::Error| HostKeyError::Unusable {
            path: path.to_owned(),
            problem: format!("can't be made: {error}"),
        };
        let key = make().map_err(unusable)?;
        let text = key.to_openssh(LineEnding::LF).map_err(unusable)?;
        write(path, text.as_bytes())?;
        tracing::info!(path = %path.display(), fingerprint = %key.fingerprint(HashAlg::Sha256), "host key made");
    }
    load(path)
}

fn load(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let file = File::open(path).map_err(|error| io_error(path, "can't be opened", error))?;
    let metadata = file.metadata().map_err(|error| io_error(path, "can't be looked at", error))?;
    let unusable = |problem: String| HostKeyError::Unusable { path: path.to_owned(), problem };
    if !metadata.is_file() {
        return Err(unusable("not a file".to_owned()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HostKeyError::Mode { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(|error| io_error(path, "can't be read", error))?;
    let key = PrivateKey::from_openssh(&text).map_err(|error| {
        unusable(format!(
            "not a private key in OpenSSH's format ({error}); make one with: ssh-keygen -t ed25519 -N ''"
        ))
    })?;
    if key.is_encrypted() {
        return Err(unusable("it has a passphrase; take it off with: ssh-keygen -p -N ''".to_owned()));
    }
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        Algorithm::Rsa { .. } if rsa_bits(&key) >= RSA_LEAST_BITS => Ok(key),
        Algorithm::Rsa { .. } => Err(unusable(format!(
            "an RSA key of {} bits; at least {RSA_LEAST_BITS} are needed",
            rsa_bits(&key)
        ))),
        other => Err(unusable(format!("keys of type {other} aren't taken; use ed25519, ecdsa or rsa"))),
    }
}

fn rsa_bits(key: &PrivateKey) -> usize {
    // The modulus without the zero byte that keeps it positive.
    key.public_key().key_data().rsa().map_or(0, |rsa| {
        let bytes = rsa.n().as_bytes();
        8 * bytes.iter().skip_while(|byte| **byte == 0).count()
    })
}

fn create_folder(folder: &Path) -> Result<(), HostKeyError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| io_error(folder, "its folder can't be made", error))
}

/// Whole or not at all, on disk when it returns, never over a key that is there.
fn write(path: &Path, text: &[u8]) -> Result<(), HostKeyError> {
    let draft = path.with_extension("new");
    let written = (|| {
        // What a crash left behind.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::hard_link(&draft, path)?;
        fs::remove_file(&draft)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|error| io_error(path, "can't be written", error))
}

fn io_error(path: &Path, problem: &'static str, error: io::Error) -> HostKeyError {
    HostKeyError::Io { path: path.to_owned(), problem, error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_made_once_with_mode_600() {
        let folder = tempfile::tempdir().unwrap();
        let ssh = folder.path().join("ssh");
        let first = load_or_create(&[], &ssh).unwrap();
        for name in ["ssh_host_ed25519_key", "ssh_host_rsa_key"] {
            let mode = fs::metadata(ssh.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&ssh).unwrap().count(), 2, "no draft is left");
        let again = load_or_create(&[], &ssh).unwrap();
        assert_eq!(fingerprint(&first), fingerprint(&again));
        assert!(fingerprint(&first).starts_with("SHA256:"));
        let all = fingerprints(&first);
        assert!(all.len() == 2 && all.contains(&fingerprint(&first)), "{all:?}");
        assert_eq!(rsa_bits(again.get(1).unwrap()), RSA_BITS);
    }

    #[test]
    fn an_open_or_broken_key_is_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "no key").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load_or_create(std::slice::from_ref(&path), folder.path()).unwrap_err().to_string();
        assert!(error.contains("mode is 0644") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = load_or_create(std::slice::from_ref(&path), folder.path()).unwrap_err().to_string();
        assert!(error.contains("not a private key in OpenSSH's format"), "{error}");
        let error = load_or_create(&[folder.path().join("none")], folder.path()).unwrap_err().to_string();
        assert!(error.contains("can't be opened"), "{error}");
    }
}

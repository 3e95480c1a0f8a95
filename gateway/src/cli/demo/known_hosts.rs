//! The demo's own file of known hosts, so that no printed command asks about the host key: each temporary demo has
//! keys of its own, and a client that remembers another demo's on the same port would refuse them.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use russh::keys::PrivateKey;

use crate::admin::ready::write_private;

/// Those that the gateway makes in its data folder.
const HOST_KEYS: [&str; 2] = ["ssh_host_ed25519_key", "ssh_host_rsa_key"];

/// Where the file lies.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("known_hosts")
}

/// Writes the host keys that the gateway has made as those of its address (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
pub(super) fn write(dir: &Path, address: SocketAddr) -> io::Result<()> {
    let host = match address.port() {
        22 => address.ip().to_string(),
        port => format!("[{}]:{port}", address.ip()),
    };
    let mut text = String::new();
    for name in HOST_KEYS {
        let key = PrivateKey::from_openssh(fs::read(dir.join("data/ssh").join(name))?);
        let key = key.and_then(|key| key.public_key().to_openssh()).map_err(io::Error::other)?;
        text.push_str(&format!("{host} {key}\n"));
    }
    write_private(&path(dir), text.as_bytes())
}

/// The option of ssh that names the file, in ssh_config(5)'s syntax.
pub(super) fn option(dir: &Path) -> String {
    let path = path(dir).display().to_string().replace('%', "%%");
    if path.contains(char::is_whitespace) || path.contains(['"', '\'', '\\', '#']) {
        let path = path.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("UserKnownHostsFile=\"{path}\"");
    }
    format!("UserKnownHostsFile={path}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use russh::keys::{Algorithm, check_known_hosts_path, key::safe_rng, ssh_key::LineEnding};

    use super::*;

    #[test]
    fn a_client_knows_the_keys_of_the_newest_demo() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("data/ssh");
        fs::create_dir_all(&keys).unwrap();
        let address = "127.0.0.1:2022".parse().unwrap();
        let mut before = None;
        for _ in 0..2 {
            let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
            for name in HOST_KEYS {
                fs::write(keys.join(name), key.to_openssh(LineEnding::LF).unwrap()).unwrap();
            }
            write(dir.path(), address).unwrap();
            let known = |key: &PrivateKey, port| {
                check_known_hosts_path("127.0.0.1", port, key.public_key(), path(dir.path()))
            };
            assert!(known(&key, 2022).unwrap());
            assert!(!known(&key, 2023).unwrap());
            if let Some(before) = before.replace(key) {
                assert!(!known(&before, 2022).unwrap_or(false));
            }
        }
    }

    #[test]
    fn an_odd_path_stays_one_file() {
        assert_eq!(option(Path::new("/tmp/x")), "UserKnownHostsFile=/tmp/x/known_hosts");
        assert_eq!(option(Path::new("/a b/5%")), "UserKnownHostsFile=\"/a b/5%%/known_hosts\"");
    }
}

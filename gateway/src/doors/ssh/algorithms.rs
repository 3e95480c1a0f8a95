//! Which algorithms a client is offered.
//!
//! What is offered depends on the client's identification, as OpenSSH's own server does it for clients with known
//! bugs: so nobody's client has to be configured, and a client that can do better isn't offered less.
//!
//! - OpenSSH since 9.9 has an exchange that is safe from quantum computers, and gets no other.
//! - Any other client also gets the classic exchanges, and the MACs that libssh2 (curl) needs before 1.11. All of that
//!   is sound. An OpenSSH that was configured to use something else gets it at its second attempt ([`Lenience`]).
//! - With `legacy_algorithms`, also what is broken in theory (SHA-1, CBC) and the only thing that old devices have.

use std::{
    borrow::Cow,
    collections::VecDeque,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use russh::{
    AlgorithmKind, Preferred, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg},
    mac,
};

/// Addresses that [`Lenience`] remembers.
const REMEMBERED: usize = 256;

const EXTENSIONS: [kex::Name; 2] =
    [kex::EXTENSION_SUPPORT_AS_SERVER, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER];
const CLASSIC_KEX: [kex::Name; 6] = [
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::DH_G16_SHA512,
    kex::DH_G14_SHA256,
];
/// Encrypt-and-MAC: sound with these ciphers, only not the first choice.
const CLASSIC_MAC: [mac::Name; 2] = [mac::HMAC_SHA256, mac::HMAC_SHA512];
const LEGACY_KEX: [kex::Name; 1] = [kex::DH_G14_SHA1];
const LEGACY_CIPHER: [cipher::Name; 3] = [cipher::AES_256_CBC, cipher::AES_192_CBC, cipher::AES_128_CBC];
const LEGACY_MAC: [mac::Name; 2] = [mac::HMAC_SHA1_ETM, mac::HMAC_SHA1];
/// RSA with SHA-1.
const LEGACY_KEY: Algorithm = Algorithm::Rsa { hash: None };

/// How much is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Only what resists quantum computers.
    PostQuantum,
    /// All that is sound.
    Sound,
    /// Also what old devices need.
    Legacy,
}

impl Offer {
    /// What a client gets that calls itself so (RFC 4253, 4.2).
    pub(super) fn to(identification: &str, legacy: bool, lenient: bool) -> Self {
        if legacy {
            Self::Legacy
        } else if !lenient && has_post_quantum_exchange(identification) {
            Self::PostQuantum
        } else {
            Self::Sound
        }
    }

    /// The lists for russh.
    pub(super) fn preferred(self) -> Preferred {
        let sound = self != Self::PostQuantum;
        let legacy = self == Self::Legacy;
        let mut kex = vec![kex::MLKEM768X25519_SHA256];
        kex.extend(CLASSIC_KEX.into_iter().filter(|_| sound));
        kex.extend(LEGACY_KEX.into_iter().filter(|_| legacy));
        kex.extend(EXTENSIONS);
        // Host keys, and what users' keys may sign with.
        let mut key = vec![
            Algorithm::Ed25519,
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ];
        key.extend(legacy.then_some(LEGACY_KEY));
        let mut cipher = vec![
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_128_CTR,
        ];
        cipher.extend(LEGACY_CIPHER.into_iter().filter(|_| legacy));
        let mut mac = vec![mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
        mac.extend(CLASSIC_MAC.into_iter().filter(|_| sound));
        mac.extend(LEGACY_MAC.into_iter().filter(|_| legacy));
        Preferred {
            kex: Cow::Owned(kex),
            key: Cow::Owned(key),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Owned(cipher),
            mac: Cow::Owned(mac),
            // Recordings don't shrink.
            compression: Cow::Borrowed(&[compression::NONE]),
        }
    }
}

/// Whether `legacy_algorithms` would have given a client one of these in common.
pub(super) fn legacy_would_help(kind: &AlgorithmKind, theirs: &[String]) -> bool {
    let has = |name: &str| theirs.iter().any(|their| their == name);
    match kind {
        AlgorithmKind::Kex => LEGACY_KEX.iter().any(|name| has(name.as_ref())),
        AlgorithmKind::Key => has(LEGACY_KEY.as_str()),
        AlgorithmKind::Cipher => LEGACY_CIPHER.iter().any(|name| has(name.as_ref())),
        AlgorithmKind::Mac => LEGACY_MAC.iter().any(|name| has(name.as_ref())),
        AlgorithmKind::Compression => false,
    }
}

/// OpenSSH has mlkem768x25519-sha256 since 9.9.
fn has_post_quantum_exchange(identification: &str) -> bool {
    let Some(version) = identification.strip_prefix("SSH-2.0-OpenSSH_") else { return false };
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (9, 9),
        _ => false,
    }
}

/// Addresses whose client found nothing in common with what it was offered, and gets more the next time.
#[derive(Debug, Default)]
pub(super) struct Lenience(Mutex<VecDeque<IpAddr>>);

impl Lenience {
    pub(super) fn remember(&self, address: IpAddr) {
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.contains(&address) {
            if addresses.len() >= REMEMBERED {
                addresses.pop_front();
            }
            addresses.push_back(address);
        }
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn who_can_do_better_is_offered_no_less() {
        for (identification, offer) in [
            ("SSH-2.0-OpenSSH_9.9", Offer::PostQuantum),
            ("SSH-2.0-OpenSSH_9.9p1 Ubuntu-3ubuntu3", Offer::PostQuantum),
            ("SSH-2.0-OpenSSH_10.3", Offer::PostQuantum),
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7", Offer::Sound),
            ("SSH-2.0-OpenSSH_9", Offer::Sound),
            ("SSH-2.0-OpenSSH_for_Windows_8.1", Offer::Sound),
            ("SSH-2.0-OpenSSH_99999999999.1", Offer::Sound),
            ("SSH-2.0-libssh2_1.10.0", Offer::Sound),
            ("", Offer::Sound),
        ] {
            assert_eq!(Offer::to(identification, false, false), offer, "{identification}");
            assert_eq!(Offer::to(identification, false, true), Offer::Sound, "{identification}");
            assert_eq!(Offer::to(identification, true, false), Offer::Legacy, "{identification}");
        }
    }

    #[test]
    fn sha1_and_cbc_are_for_legacy_alone() {
        let names = |offer: Offer| {
            let lists = offer.preferred();
            let mut names: Vec<String> = lists.kex.iter().map(|name| name.as_ref().to_owned()).collect();
            names.extend(lists.cipher.iter().map(|name| name.as_ref().to_owned()));
            names.extend(lists.mac.iter().map(|name| name.as_ref().to_owned()));
            names.extend(lists.key.iter().map(|name| name.as_str().to_owned()));
            names
        };
        let old = |name: &String| name.contains("sha1") || name.contains("cbc") || name == "ssh-rsa";
        for offer in [Offer::PostQuantum, Offer::Sound] {
            assert_eq!(names(offer).into_iter().find(old), None, "{offer:?}");
        }
        assert_eq!(names(Offer::Legacy).iter().filter(|name| old(name)).count(), 7);
        let strict = names(Offer::PostQuantum);
        assert!(!strict.iter().any(|name| name.contains("curve") || name == "hmac-sha2-256"), "{strict:?}");
    }

    #[test]
    fn lenience_forgets_the_oldest() {
        let lenience = Lenience::default();
        for number in 0..=REMEMBERED {
            lenience.remember(IpAddr::from(u32::try_from(number).unwrap().to_be_bytes()));
        }
        assert!(!lenience.has(IpAddr::from([0, 0, 0, 0])));
        assert!(lenience.has(IpAddr::from([0, 0, 0, 1])) && lenience.has(IpAddr::from([0, 0, 1, 0])));
    }
}

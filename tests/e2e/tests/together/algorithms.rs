//! What an auditor says of the algorithms and of the pace of connections, with the configuration as it comes.

use std::{process::Command, time::Duration};

use recgate_e2e::{
    Fixture,
    hostile::{Kexinit, Ssh, connect, msg},
    python_program, run,
};

/// Safe from quantum computers: OpenSSH has it since 9.9 and complains of others since 10.1.
const POST_QUANTUM: [&str; 1] = ["mlkem768x25519-sha256"];
const CLASSIC_KEX: [&str; 6] = [
    // OpenSSH up to 9.8, PuTTY, FileZilla, libssh2 since 1.9, paramiko, asyncssh, rclone; those of before 2018 know the
    // second name only.
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    // Machines in FIPS mode, whose OpenSSH and libssh2 do without Curve25519.
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    // Clients without elliptic curves, as libssh2 (curl) with libgcrypt.
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
];
/// The gateway makes a key of each kind.
const HOST_KEYS: [&str; 3] = [
    // OpenSSH since 6.5, and all that are maintained.
    "ssh-ed25519",
    // Machines in FIPS mode, and clients from before Ed25519 that know RSA with SHA-2.
    "rsa-sha2-512",
    "rsa-sha2-256",
];
/// No exchanges, but marks: the server tells of its signatures (RFC 8308) and counts packets strictly.
const MARKS: [&str; 2] = ["ext-info-s", "kex-strict-s-v00@openssh.com"];
const CIPHERS: [&str; 5] = [
    // OpenSSH, rclone and whoever else has AES in hardware; libssh2 since 1.11.
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    // OpenSSH's own first choice up to 10.0, PuTTY's where AES isn't in hardware.
    "chacha20-poly1305@openssh.com",
    // libssh2 before 1.11, and old clients of any kind.
    "aes256-ctr",
    "aes128-ctr",
];
/// With the CTR ciphers: OpenSSH, PuTTY, FileZilla, paramiko, libssh2 since 1.11.
const ETM: [&str; 2] = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"];
/// libssh2 before 1.11 has no other of these.
const CLASSIC_MAC: [&str; 2] = ["hmac-sha2-256", "hmac-sha2-512"];

/// What whoever calls itself so is offered.
fn offered(port: u16, client: &str) -> Kexinit {
    Kexinit::of(&Ssh::greet_as(connect(port), client).expect(msg::KEXINIT))
}

#[test]
fn each_client_is_offered_what_it_needs_and_nothing_else() {
    let mut fixture = Fixture::new();
    fixture.start();
    let port = fixture.gateway.as_ref().unwrap().ready.port;
    let joined = |families: &[&[&str]]| families.concat().join(",");
    let expected = |kex: &[&[&str]], macs: &[&[&str]]| {
        let (cipher, mac) = (joined(&[&CIPHERS]), joined(macs));
        let (kex, key) = (joined(&[&kex.concat(), &MARKS]), joined(&[&HOST_KEYS]));
        let [none, empty] = ["none", ""].map(str::to_owned);
        [kex, key, cipher.clone(), cipher, mac.clone(), mac, none.clone(), none, empty.clone(), empty]
    };
    let strict = expected(&[&POST_QUANTUM], &[&ETM]);
    for client in ["SSH-2.0-OpenSSH_9.9", "SSH-2.0-OpenSSH_10.3"] {
        let kexinit = offered(port, client);
        assert_eq!((kexinit.lists, kexinit.guesses), (strict.clone(), false), "{client}");
    }
    let sound = expected(&[&POST_QUANTUM, &CLASSIC_KEX], &[&ETM, &CLASSIC_MAC]);
    for client in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7",
        "SSH-2.0-libssh2_1.10.0",
        "SSH-2.0-PuTTY_Release_0.78",
        "SSH-2.0-paramiko_5.1.0",
        "SSH-2.0-AsyncSSH_2.24.1",
        "SSH-2.0-Go",
    ] {
        let kexinit = offered(port, client);
        assert_eq!((kexinit.lists, kexinit.guesses), (sound.clone(), false), "{client}");
    }
}

/// The auditor calls itself a new OpenSSH, so that this is the shorter of the two offers.
#[test]
fn ssh_audit_has_nothing_to_warn_of() {
    let mut fixture = Fixture::new();
    fixture.start();
    let port = fixture.gateway.as_ref().unwrap().ready.port.to_string();
    let mut audit = Command::new(python_program("ssh-audit"));
    audit.args(["--no-colors", "-p", &port, "127.0.0.1"]);
    // Its exit code is 2 where there are warnings, 3 where there is worse.
    let audited = run(&mut audit, b"", Duration::from_secs(120)).success();
    for found in ["[warn]", "[fail]"] {
        assert!(!audited.stdout.contains(found), "{audited}");
    }
    // It has seen what there is.
    for seen in ["(kex) mlkem768x25519-sha256", "(key) ssh-ed25519", "(enc) aes256-gcm@openssh.com", "(mac) "]
    {
        assert!(audited.stdout.contains(seen), "no {seen}: {audited}");
    }
}

//! Peers that don't keep to the transport: identification, packets, key exchange. None gets past it, none costs more
//! than its connection, and none is waited for longer than a login may take.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use recgate_e2e::{
    hostile::{Answer, Kexinit, Message, Scene, Ssh, connect, msg, number},
    password,
};

/// So that a test needn't wait for the default's two minutes.
const SHORT_GRACE: &str = "login_grace = \"3s\"";
/// What a few connections before their login may take of the gateway's memory: buffers and packets of some 256 KiB each,
/// while a length may say 4 GiB.
const A_FEW_CONNECTIONS: u64 = 32 << 20;

/// Sends the same bytes until the server has closed; fails when it has taken this many without closing.
fn flood(stream: &mut TcpStream, bytes: &[u8], most: usize) {
    let mut sent = 0;
    while stream.write_all(bytes).is_ok() {
        sent += bytes.len();
        assert!(sent < most, "the server has taken {sent} bytes and goes on");
    }
}

/// Waits for the server to close; it may say something before.
fn ends(stream: &mut TcpStream) {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the server doesn't close")
        }
        _ => {}
    }
}

#[test]
fn identifications_that_never_end() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    bystander.works_on_during(|| {
        for bytes in
            [b"A".repeat(1 << 16), b"hello\r\n".repeat(1 << 13), b"\r\n".repeat(1 << 15), vec![0; 1 << 16]]
        {
            let mut stream = connect(scene.port);
            // What the sockets' buffers take without anybody reading is some MiB.
            flood(&mut stream, &bytes, 64 << 20);
        }
    });
    memory.grew_at_most(A_FEW_CONNECTIONS);
    for begun in ["", "S", "SSH-2.0-", "SSH-2.0-hostile\r"] {
        let mut stream = connect(scene.port);
        stream.write_all(begun.as_bytes()).unwrap();
        ends(&mut stream);
    }
    // Half of the connection is gone: nothing will ever come.
    let mut stream = connect(scene.port);
    stream.shutdown(Shutdown::Write).unwrap();
    ends(&mut stream);
    for wrong in ["GET / HTTP/1.1\r\n", "SSH-1.5-old\r\n", "SSH-2.0-\u{0}\r\n\r\n", "EHLO example.com\r\n"] {
        let mut stream = connect(scene.port);
        stream.write_all(wrong.as_bytes()).unwrap();
        ends(&mut stream);
    }
    bystander.leave();
    scene.unharmed();
}

#[test]
fn a_peer_that_sends_a_byte_now_and_then_is_cut_by_the_login_grace() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let mut ssh = Ssh::greet(scene.port);
    let bytes = ssh.packed(&Kexinit::default().message());
    let mut dripping = [
        (connect(scene.port), b"SSH-2.0-".iter().chain(std::iter::repeat_n(&b'a', 2000))),
        (ssh.stream, bytes.iter().chain(std::iter::repeat_n(&0, 2000))),
    ];
    for (stream, bytes) in &mut dripping {
        // Waiting for the server's words is the pause between two bytes.
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut said = [0; 4096];
        let closed = bytes.any(|byte| match stream.read(&mut said) {
            Ok(0) => true,
            Ok(_) => stream.write_all(&[*byte]).is_err(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stream.write_all(&[*byte]).is_err()
            }
            Err(_) => true,
        });
        assert!(closed, "dripping goes on for as long as one likes");
    }
    scene.unharmed();
}

#[test]
fn peers_that_stop_in_the_middle_of_the_key_exchange() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let kexinit = Kexinit::default().message();
    let init = Message::new(msg::KEX_ECDH_INIT).string([9; 32]).0;
    let mut waiting: Vec<Ssh> = Vec::new();
    for stage in 0..5 {
        let mut ssh = Ssh::greet(scene.port);
        match stage {
            0 => {}
            1 => {
                let packet = ssh.packed(&kexinit);
                ssh.stream.write_all(&packet[..packet.len() / 2]).unwrap();
            }
            2 => ssh.send(&kexinit),
            3 => {
                ssh.send(&kexinit);
                ssh.send(&init);
            }
            _ => ssh.rekey(),
        }
        waiting.push(ssh);
    }
    for mut ssh in waiting {
        ends(&mut ssh.stream);
    }
    scene.unharmed();
}

#[test]
fn lengths_that_lie() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    bystander.works_on_during(|| {
        let lengths = [0, 1, 3, 4, 5, 12, 300_000, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3, u32::MAX];
        for length in lengths {
            let mut ssh = Ssh::greet(scene.port);
            ssh.stream.write_all(&length.to_be_bytes()).unwrap();
            // Whoever believes the length waits for more.
            drop(ssh.stream.write_all(&[0; 4096]));
            ends(&mut ssh.stream);

            let mut ssh = Ssh::encrypted(scene.port);
            ssh.stream.write_all(&length.to_be_bytes()).unwrap();
            drop(ssh.stream.write_all(&[0; 4096]));
            ends(&mut ssh.stream);
        }
        // More padding than packet.
        for padding in [0, 3, 11, 12, 200, 255] {
            let mut ssh = Ssh::greet(scene.port);
            let body = Message(Vec::new()).u32(12).byte(padding).raw([msg::KEXINIT; 11]);
            ssh.stream.write_all(&body.0).unwrap();
            ends(&mut ssh.stream);
        }
    });
    memory.grew_at_most(A_FEW_CONNECTIONS);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn a_length_of_4_gib_is_refused_before_its_bytes_come() {
    // With ten minutes of grace, and without more bytes: only the length itself can be the reason.
    let scene = Scene::with_limits("login_grace = \"600s\"");
    for mut ssh in [Ssh::greet(scene.port), Ssh::encrypted(scene.port)] {
        // The cipher's first block is read before the length is looked at.
        ssh.stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
        ssh.stream.write_all(&[0; 12]).unwrap();
        ends(&mut ssh.stream);
    }
    scene.unharmed();
}

#[test]
fn key_exchanges_that_offer_nothing_or_too_much() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let with = |at: usize, list: String| {
        let mut kexinit = Kexinit::default();
        kexinit.lists[at] = list;
        kexinit
    };
    let mut refused = vec![Kexinit { lists: Default::default(), guesses: false }];
    // The AEAD cipher needs no MAC, so that those lists may be empty.
    refused.extend([0, 1, 2, 6].map(|at| with(at, String::new())));
    for (at, name) in [
        (0, "diffie-hellman-group1-sha1"),
        (0, "diffie-hellman-group14-sha1"),
        (0, "diffie-hellman-group-exchange-sha1"),
        (0, "kex-strict-c-v00@openssh.com"),
        (0, "none"),
        (1, "ssh-rsa"),
        (1, "ssh-dss"),
        (1, "none"),
        (2, "none"),
        (2, "3des-cbc"),
        (2, "aes128-cbc"),
        (6, "zlib"),
        (6, "zlib@openssh.com"),
    ] {
        refused.push(with(at, name.to_owned()));
    }
    for kexinit in refused {
        let mut ssh = Ssh::greet(scene.port);
        ssh.send(kexinit.message());
        ssh.expect(msg::KEXINIT);
        drop(ssh.try_send(Message::new(msg::KEX_ECDH_INIT).string([9; 32])));
        assert_never(&mut ssh, msg::NEWKEYS, &format!("{kexinit:?}"));
    }
    // russh takes the lists of the one direction for both. So the other's may hold what they like: it changes nothing.
    for (at, name) in [(3, ""), (3, "none"), (3, "arcfour"), (3, "aes128-cbc"), (7, ""), (7, "zlib")] {
        let mut ssh = Ssh::greet(scene.port);
        if ssh.try_rekey_with(&with(at, name.to_owned())).is_some() {
            ssh.userauth();
        }
    }
    let memory = scene.memory();
    for names in [20_000, 100_000] {
        for at in 0..10 {
            let many: Vec<String> = (0..names).map(|number| format!("n{number}")).collect();
            let mut ssh = Ssh::greet(scene.port);
            drop(ssh.try_send(with(at, many.join(",")).message()));
            drop(ssh.try_send(Message::new(msg::KEX_ECDH_INIT).string([9; 32])));
            ends(&mut ssh.stream);
        }
    }
    // A message that ends within its lists, and one whose list is longer than the message.
    let whole = Kexinit::default().message();
    for bytes in [&whole[..1], &whole[..17], &whole[..40], &[&whole[..17], &[0xff; 40]].concat()] {
        let mut ssh = Ssh::greet(scene.port);
        ssh.send(bytes);
        ends(&mut ssh.stream);
    }
    memory.grew_at_most(A_FEW_CONNECTIONS);
    scene.unharmed();
}

#[test]
fn public_keys_that_are_none() {
    let scene = Scene::with_limits(SHORT_GRACE);
    // Too short, too long, and points that make the secret zero whatever the server's key is.
    let mut low_order = [0; 32];
    low_order[0] = 1;
    let keys: [&[u8]; 6] = [b"", &[1; 31], &[1; 33], &[1; 200_000], &[0; 32], &low_order];
    let sent = |key: &[u8]| {
        let mut ssh = Ssh::greet(scene.port);
        ssh.send(Kexinit::default().message());
        ssh.expect(msg::KEXINIT);
        ssh.send(Message::new(msg::KEX_ECDH_INIT).string(key));
        ssh
    };
    for key in keys {
        let mut ssh = sent(key);
        assert_never(&mut ssh, msg::NEWKEYS, &format!("a key of {} bytes: {:?}", key.len(), key.first()));
    }
    // Only the key is the reason: one that is beyond the field's prime is one all the same (RFC 7748, 5).
    let mut ssh = sent(&[0xff; 32]);
    ssh.expect(msg::KEX_ECDH_REPLY);
    ssh.expect(msg::NEWKEYS);
    scene.unharmed();
}

#[test]
fn messages_that_come_too_early() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let service = Message::new(msg::SERVICE_REQUEST).string("ssh-userauth").0;
    let login = Ssh::request("acme", "password").byte(0).string(password("acme")).0;
    let open = Message::new(msg::CHANNEL_OPEN).string("session").u32(0).u32(1 << 20).u32(1 << 15).0;
    for early in [vec![msg::NEWKEYS], vec![msg::KEX_ECDH_INIT], service.clone(), login.clone(), open] {
        // Instead of the key exchange, in its middle, and before its NEWKEYS.
        for before in 0..3 {
            let mut ssh = Ssh::greet(scene.port);
            if before > 0 {
                ssh.send(Kexinit::default().message());
                ssh.expect(msg::KEXINIT);
            }
            if before > 1 {
                ssh.send(Message::new(msg::KEX_ECDH_INIT).string([9; 32]));
                ssh.expect(msg::KEX_ECDH_REPLY);
                ssh.expect(msg::NEWKEYS);
                if early == [msg::NEWKEYS] {
                    continue;
                }
            }
            drop(ssh.try_send(&early));
            drop(ssh.try_send(&service));
            drop(ssh.try_send(&login));
            let answers = everything(&mut ssh);
            for answer in [msg::SERVICE_ACCEPT, msg::USERAUTH_SUCCESS, msg::USERAUTH_FAILURE] {
                assert!(!answers.contains(&answer), "{answer} after {early:?} came at {before}");
            }
        }
    }
    scene.unharmed();
}

#[test]
fn a_strict_key_exchange_takes_nothing_else() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let mut strict = Kexinit::default();
    strict.lists[0].push_str(",kex-strict-c-v00@openssh.com");
    for slipped in [vec![msg::IGNORE, 0, 0, 0, 0], vec![msg::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        for before in [true, false] {
            let mut ssh = Ssh::greet(scene.port);
            if before {
                ssh.send(&slipped);
            }
            ssh.send(strict.message());
            ssh.expect(msg::KEXINIT);
            if !before {
                ssh.send(&slipped);
            }
            drop(ssh.try_send(Message::new(msg::KEX_ECDH_INIT).string([9; 32])));
            assert_never(&mut ssh, msg::NEWKEYS, "a message slipped into a strict key exchange");
        }
    }
    scene.unharmed();
}

#[test]
fn garbage_after_newkeys() {
    let scene = Scene::with_limits("login_grace = \"600s\"");
    let mut bytes = [0_u8; 4096];
    let mut state = 1_u32;
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    // A length that is fine, then nonsense; and a packet with one bit turned.
    let mut ssh = Ssh::encrypted(scene.port);
    ssh.stream.write_all(&32_u32.to_be_bytes()).unwrap();
    ssh.stream.write_all(&bytes).unwrap();
    ends(&mut ssh.stream);
    let length = Ssh::encrypted(scene.port).packed(&service()).len();
    for at in 4..length {
        let mut ssh = Ssh::encrypted(scene.port);
        let mut packet = ssh.packed(&service());
        packet[at] ^= 1;
        ssh.stream.write_all(&packet).unwrap();
        assert_never(&mut ssh, msg::SERVICE_ACCEPT, "a packet that was changed on its way was taken");
    }
    // The same packet twice.
    let mut ssh = Ssh::encrypted(scene.port);
    let packet = ssh.packed(&service());
    ssh.stream.write_all(&packet).unwrap();
    ssh.expect(msg::SERVICE_ACCEPT);
    ssh.stream.write_all(&packet).unwrap();
    ends(&mut ssh.stream);
    scene.unharmed();
}

#[test]
fn compression_is_never_used() {
    let scene = Scene::new();
    let mut ssh = Ssh::greet(scene.port);
    let theirs = ssh.expect(msg::KEXINIT);
    let text = String::from_utf8_lossy(&theirs).into_owned();
    assert!(!text.contains("zlib"), "{text}");
    scene.unharmed();
}

#[test]
fn key_exchanges_without_end_end_with_the_login_grace() {
    let scene = Scene::with_limits(SHORT_GRACE);
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    bystander.works_on_during(|| {
        let mut ssh = Ssh::encrypted(scene.port);
        // Each costs the server a signature: this must not go on for ever.
        let mut count = 0_usize;
        while ssh.try_rekey().is_some() {
            count += 1;
            assert!(count < 1_000_000, "one may exchange keys for ever");
        }
        assert!(count > 0, "not even one more exchange before the login");
    });
    memory.grew_at_most(A_FEW_CONNECTIONS);
    bystander.leave();
    scene.unharmed();
}

fn service() -> Vec<u8> {
    Message::new(msg::SERVICE_REQUEST).string("ssh-userauth").0
}

/// Everything that the server says until it closes, by number.
fn everything(ssh: &mut Ssh) -> Vec<u8> {
    std::iter::from_fn(|| ssh.receive()).map(|message| number(&message)).collect()
}

/// The server closes without having sent this.
#[track_caller]
fn assert_never(ssh: &mut Ssh, unwanted: u8, why: &str) {
    let said = everything(ssh);
    assert!(!said.contains(&unwanted), "{why}: {said:?}");
}

#[test]
fn the_tests_own_client_can_log_in() {
    // What the others refuse must not be the client's own mistakes.
    let scene = Scene::new();
    let mut ssh = Ssh::encrypted(scene.port);
    ssh.userauth();
    assert_eq!(ssh.password("acme", &password("acme")), Answer::Success);
    ssh.rekey();
    scene.unharmed();
}

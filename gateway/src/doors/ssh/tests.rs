//! The door in front of a tree in memory, driven by OpenSSH's clients and by hand-made packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::HashMap, fs, sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

use super::{
    budget::Budget,
    testing::{Memory, Pace, TestDoor, byte_at, config, deadline, limits, read_body, string, throttle},
};
use crate::{
    config::Limits,
    identity::tests::{tenant, user},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_content(content: &[u8], from: u64) {
    let wrong = content.iter().zip(from..).position(|(byte, offset)| *byte != byte_at(offset));
    assert_eq!(wrong, None, "the first wrong byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sftp_lists_and_downloads() {
    let mut memory =
        Memory::new(&[("/hot.wav", 3_000_001, Pace::Hot), ("/cold.wav", 3_000_001, Pace::Cold(20))]);
    memory.folders.insert("/Index".to_owned(), 0);
    let door = TestDoor::open(memory).await;
    let output = door.sftp("acme", "ls -la\npwd\nget hot.wav\nget cold.wav\n").await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("-r--r-----"), "{out}");
    assert!(out.contains("3000001 Jun  6  2016 hot.wav"), "{out}");
    assert!(out.contains("dr-xr-x---"), "{out}");
    assert!(out.contains("Remote working directory: /"), "{out}");
    for name in ["hot.wav", "cold.wav"] {
        let content = fs::read(door.folder.path().join(name)).unwrap();
        assert_eq!(content.len(), 3_000_001);
        assert_content(&content, 0);
    }
    // A download that was cut off goes on where it stopped.
    fs::OpenOptions::new()
        .write(true)
        .open(door.folder.path().join("hot.wav"))
        .unwrap()
        .set_len(1_000_000)
        .unwrap();
    assert!(door.sftp("acme", "reget hot.wav\n").await.status.success());
    assert_content(&fs::read(door.folder.path().join("hot.wav")).unwrap(), 0);
    assert!(door.fingerprint.starts_with("SHA256:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cipher_works() {
    let door = TestDoor::open(Memory::new(&[("/a.wav", 300_000, Pace::Hot)])).await;
    for cipher in [
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
        "aes128-ctr",
    ] {
        let output = door.sftp_with("acme", &["-o", &format!("Ciphers={cipher}")], "get a.wav\n").await;
        assert!(output.status.success(), "{cipher}: {}", text(&output.stderr));
        assert_content(&fs::read(door.folder.path().join("a.wav")).unwrap(), 0);
    }
    for (option, value) in
        [("Ciphers", "aes128-cbc"), ("MACs", "hmac-sha1"), ("KexAlgorithms", "diffie-hellman-group14-sha1")]
    {
        let mut options = vec!["-o".to_owned(), format!("{option}={value}")];
        if option == "MACs" {
            options.extend(["-o".to_owned(), "Ciphers=aes128-ctr".to_owned()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let output = door.sftp_with("acme", &options, "ls\n").await;
        assert!(!output.status.success(), "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_refused_with_the_reason() {
    let door =
        TestDoor::open(Memory::new(&[("/held.wav", 10, Pace::Hot), ("/free.wav", 10, Pace::Hot)])).await;
    fs::write(door.folder.path().join("mine"), "x").unwrap();
    for command in [
        "put mine",
        "mkdir new",
        "rename free.wav other",
        "ln free.wav other",
        "symlink free.wav other",
        "chmod 600 free.wav",
    ] {
        let output = door.sftp("acme", command).await;
        let err = text(&output.stderr);
        assert!(!output.status.success(), "{command}");
        assert!(err.contains("ermission denied"), "{command}: {err}");
        assert!(err.contains("this tree is read-only"), "{command}: {err}");
    }
    let err = text(&door.sftp("acme/anna", "rm held.wav").await.stderr);
    assert!(err.contains("under legal hold (case 4711)"), "{err}");
    let err = text(&door.sftp("acme", "rm free.wav").await.stderr);
    assert!(err.contains("only administrators delete"), "{err}");
    assert!(door.sftp("acme/anna", "rm free.wav").await.status.success());
    let output = door.sftp("acme", "ls").await;
    assert_eq!(text(&output.stdout).matches(".wav").count(), 1, "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_log_in_and_failures_look_alike() {
    let door = TestDoor::open(Memory::new(&[])).await;
    let output = door.sftp_with_password("acme", "secret").await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    for login in ["acme", "nobody", "acme/anna"] {
        let output = door.sftp_with_password(login, "guess").await;
        assert!(!output.status.success());
        let err = text(&output.stderr);
        assert!(err.contains("Too many authentication failures"), "{login}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offered_keys_do_not_count_as_failures() {
    let door = TestDoor::open(Memory::new(&[])).await;
    let keys: Vec<String> = (0..12).map(|n| door.other_key(&format!("other{n}"))).collect();
    let mut options: Vec<&str> = keys.iter().flat_map(|key| ["-i", key]).collect();
    let stranger = door.sftp_without_key("acme", &options, "ls\n").await;
    assert!(text(&stranger.stderr).contains("Permission denied"), "{}", text(&stranger.stderr));
    options.extend(["-i", "user"]);
    let output = door.sftp_without_key("acme", &options, "ls\n").await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_entries_are_listed() {
    let mut memory = Memory::new(&[]);
    memory.folders.insert("/S20160606".to_owned(), 100_000);
    let door = TestDoor::open(memory).await;
    let output = door.sftp("acme", "ls -1 S20160606\n").await;
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(".wav")).count(), 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_answered_in_any_order_and_never_short() {
    let door = TestDoor::open(Memory::new(&[("/cold.wav", 5_000_000, Pace::Cold(30))])).await;
    let mut raw = door.raw().await;
    let handle = raw.open(3, "/cold.wav").await;
    let mut asked = HashMap::new();
    let mut order = Vec::new();
    // Longer than max-read, at the end, beyond the end, at the far end of the numbers.
    let reads = (0..40u64).map(|n| (n * 100_000, 32_768)).chain([
        (0, 1_000_000),
        (4_999_990, 100),
        (5_000_000, 1),
        (u64::MAX, u32::MAX),
        (7, 0),
    ]);
    for (offset, len) in reads {
        let id = raw.request(5, &read_body(&handle, offset, len)).await;
        asked.insert(id, (offset, len));
        order.push(id);
    }
    let mut came = Vec::new();
    for _ in 0..order.len() {
        let answer = raw.receive().await.unwrap();
        let id = u32::from_be_bytes(answer[1..5].try_into().unwrap());
        let (offset, len) = asked.remove(&id).expect("an id that was asked, once");
        came.push(id);
        let due = u64::from(len).min(261_120).min(5_000_000u64.saturating_sub(offset));
        if due == 0 {
            assert_eq!((answer[0], &answer[5..9]), (101, &[0, 0, 0, 1][..]), "EOF");
        } else {
            assert_eq!(answer[0], 103);
            assert_eq!(answer.len() as u64, 9 + due, "offset {offset}, length {len}");
            assert_content(&answer[9..], offset);
        }
    }
    assert_ne!(came, order, "slow reads don't hold up fast ones");
    assert_eq!(raw.finish().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_small_replies_do_not_mix() {
    let door = TestDoor::open(Memory::new(&[("/cold.wav", 9_000_000, Pace::Cold(1))])).await;
    let mut raw = door.raw().await;
    let handle = raw.open(3, "/cold.wav").await;
    let mut asked = HashMap::new();
    let mut packets = Vec::new();
    for n in 0..500u64 {
        let (read, packet) = raw.encode(5, &read_body(&handle, n * 10_000, 261_120));
        asked.insert(read, Some(n * 10_000));
        packets.push(packet);
        for _ in 0..8 {
            let (id, packet) = raw.encode(16, &string(b"/x"));
            asked.insert(id, None);
            packets.push(packet);
        }
    }
    // Never so much at once that the door holds requests back: small ones are to come while large replies are under
    // way, and to be answered at once.
    let under_way = Arc::new(Semaphore::new(20));
    let mut stdin = raw.stdin.take().unwrap();
    let sender = tokio::spawn({
        let under_way = Arc::clone(&under_way);
        async move {
            for packet in packets {
                under_way.acquire().await.unwrap().forget();
                stdin.write_all(&packet).await.unwrap();
                tokio::task::yield_now().await;
            }
            stdin
        }
    });
    for _ in 0..asked.len() {
        let answer = raw.receive().await.unwrap();
        under_way.add_permits(1);
        let id = u32::from_be_bytes(answer[1..5].try_into().unwrap());
        match asked.remove(&id).expect("an id that was asked, once") {
            Some(offset) => {
                assert_eq!((answer[0], answer.len()), (103, 9 + 261_120));
                assert_content(&answer[9..], offset);
            }
            None => assert_eq!(answer[0], 104),
        }
    }
    raw.stdin = Some(sender.await.unwrap());
    assert_eq!(raw.finish().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_without_reading_is_held_back_and_served_later() {
    // Far more requests than are held: 16,000 are near 0.5 MB.
    for (name, len, count) in [("/hot.wav", 16_384, 16_000), ("/cold.wav", 261_120, 1_000)] {
        let memory = Memory::new(&[
            ("/hot.wav", 100_000_000, Pace::Hot),
            ("/cold.wav", 100_000_000, Pace::Cold(2)),
            ("/other.wav", 5_000_000, Pace::Hot),
        ]);
        let served = Arc::clone(&memory.served);
        let door = TestDoor::open(memory).await;
        let mut raw = door.raw().await;
        let handle = raw.open(3, name).await;
        let requests: Vec<u8> = (0..count)
            .flat_map(|n| raw.encode(5, &read_body(&handle, n % 300 * u64::from(len), len)).1)
            .collect();
        let mut stdin = raw.stdin.take().unwrap();
        let sender = tokio::spawn(async move {
            stdin.write_all(&requests).await.unwrap();
            stdin
        });
        // It stalls: what is served no longer grows.
        let mut before = u64::MAX;
        deadline(async {
            while before != served.load(Ordering::Relaxed) || before == 0 {
                before = served.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
        .await;
        // OpenSSH's window is 2 MiB; some more is in its buffers and pipes.
        let bound = Budget::BYTES as u64 + 3 * 1024 * 1024;
        assert!(before <= bound, "{name}: {before} bytes were made for a client that doesn't read");
        // Others aren't held up.
        let output = door.sftp("acme", "get other.wav\n").await;
        assert!(output.status.success());
        // Once it reads, everything comes.
        for _ in 0..count {
            let answer = raw.receive().await.expect("a reply for each");
            assert_eq!((answer[0], answer.len()), (103, 9 + len as usize));
        }
        raw.stdin = Some(deadline(sender).await.unwrap());
        assert_eq!(raw.finish().await.0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_out_of_step_are_closed() {
    let door = TestDoor::open(Memory::new(&[])).await;
    for garbage in
        [&b"\xff\xff\xff\xff\x05hello"[..], b"\0\0\0\0", b"\0\0\0\x01\x05", b"GET / HTTP/1.0\r\n\r\n"]
    {
        let mut raw = door.raw().await;
        raw.bytes(garbage).await;
        assert_eq!(raw.receive().await, None, "{garbage:?}");
        assert_eq!(raw.finish().await.0, Some(1), "{garbage:?}");
    }
    // A request before INIT, and a second INIT.
    let mut raw = door.raw_without_init().await;
    raw.request(16, &string(b".")).await;
    assert_eq!(raw.receive().await, None);
    let mut raw = door.raw().await;
    raw.send(&[1, 0, 0, 0, 3]).await;
    assert_eq!(raw.receive().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_get_clear_answers_and_the_session_goes_on() {
    let door = TestDoor::open(Memory::new(&[
        ("/a.wav", 10, Pace::Hot),
        ("/down.wav", 10, Pace::Down),
        ("/short.wav", 10, Pace::Short),
        ("/panics.wav", 10, Pace::Panics),
    ]))
    .await;
    let mut raw = door.raw().await;
    let path = string(b"/a.wav");
    assert_eq!(raw.status(77, b"").await, (8, "requests of type 77 are not supported".to_owned()));
    assert_eq!(raw.status(200, &string(b"nobody@example.com")).await.0, 8);
    assert_eq!(
        raw.status(5, b"\0\0").await,
        (5, "the packet of type 5 is shorter than its fields".to_owned())
    );
    assert_eq!(raw.status(200, &string(b"fsync@openssh.com")).await.0, 5);
    for handle in [&b"x"[..], b"9", b"\xff", &9u64.to_be_bytes(), b""] {
        assert_eq!(raw.status(4, &string(handle)).await, (4, "no such handle".to_owned()));
        assert_eq!(raw.status(5, &read_body(handle, 0, 1)).await.0, 4);
        assert_eq!(raw.status(12, &string(handle)).await.0, 4);
    }
    assert_eq!(raw.status(19, &path).await, (4, "not a link".to_owned()));
    assert_eq!(raw.status(11, &path).await.0, 4, "a file is no folder");
    assert_eq!(raw.status(3, &[&string(b"/")[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat()).await.0, 4);
    assert_eq!(raw.status(3, &[&path[..], &[0; 8]].concat()).await.0, 5, "neither to read nor to write");
    assert_eq!(raw.status(6, &[&string(b"x")[..], &[0; 8], &string(b"data")].concat()).await.0, 3);
    assert_eq!(raw.status(17, &string(b"/\xff")).await, (2, "the path is not UTF-8".to_owned()));
    for (kind, code) in [(7, 2), (11, 2), (13, 2), (16, 2), (19, 2), (15, 3)] {
        assert_eq!(raw.status(kind, &string(b"/\xff")).await.0, code, "type {kind}");
    }
    assert_eq!(raw.status(16, &string(&[b'a'; 5000])).await.0, 2);
    for (path, code) in
        [("/down.wav", "can't be reached"), ("/short.wav", "could not be read"), ("/panics.wav", "internal")]
    {
        let handle = raw.open(3, path).await;
        let (status, message) = raw.status(5, &read_body(&handle, 0, 10)).await;
        assert!(status == 4 && message.contains(code), "{path}: {message}");
    }
    // limits@openssh.com, and what it says of handles.
    let (kind, limits) = raw.ask(200, &string(b"limits@openssh.com")).await;
    assert_eq!((kind, limits.len()), (201, 32));
    assert_eq!(limits[8..16], 261_120u64.to_be_bytes());
    for _ in 3..1024 {
        raw.open(3, "/a.wav").await;
    }
    let (status, message) = raw.status(3, &[&path[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat()).await;
    assert!(status == 4 && message.contains("1024 files and folders are open"), "{message}");
    assert_eq!(raw.status(4, &string(b"1")).await.0, 0);
    let handle = raw.open(3, "/a.wav").await;
    assert_eq!(handle, b"1025", "numbers aren't used again");
    assert_eq!(raw.finish().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_hash_is_told_and_none_is_computed() {
    let files = [("/a.wav", 1000, Pace::Hot), ("/cold.wav", 1000, Pace::Cold(1))];
    let door = TestDoor::open(Memory::new(&files)).await;
    let mut raw = door.raw().await;
    let handle = raw.open(3, "/a.wav").await;
    let ask = |name: &[u8], file: &[u8], algorithms: &[u8], from: u64, length: u64, block: u32| {
        [
            string(name),
            string(file),
            string(algorithms),
            from.to_be_bytes().to_vec(),
            length.to_be_bytes().to_vec(),
            block.to_be_bytes().to_vec(),
        ]
        .concat()
    };
    let digest = [&string(b"sha256")[..], &[0xa5; 32]].concat();
    for (name, file) in [(&b"check-file-name"[..], &b"/a.wav"[..]), (b"check-file-handle", &handle)] {
        for (from, length, block) in [(0, 0, 0), (0, 1000, 0), (0, u64::MAX, 1000)] {
            let (kind, answer) = raw.ask(200, &ask(name, file, b"md5,sha256", from, length, block)).await;
            assert_eq!((kind, answer), (201, digest.clone()));
        }
        for (from, length, block) in [(1, 0, 0), (0, 999, 0), (0, 0, 256)] {
            assert_eq!(raw.status(200, &ask(name, file, b"sha256", from, length, block)).await.0, 8);
        }
        assert_eq!(raw.status(200, &ask(name, file, b"md5,sha1", 0, 0, 0)).await.0, 8);
        let short = ask(name, file, b"sha256", 0, 0, 0);
        assert_eq!(raw.status(200, &short[..short.len() - 1]).await.0, 5);
    }
    // paramiko's form.
    let (_, answer) = raw.ask(200, &ask(b"check-file", &handle, b"sha256", 0, 0, 0)).await;
    assert_eq!(answer, [string(b"check-file"), digest].concat());
    let unknown = raw.status(200, &ask(b"check-file-name", b"/cold.wav", b"sha256", 0, 0, 0)).await;
    assert_eq!(unknown, (4, "no hash of this file is stored yet".to_owned()));
    assert_eq!(raw.status(200, &ask(b"check-file-name", b"/none.wav", b"sha256", 0, 0, 0)).await.0, 2);
    assert_eq!(raw.status(200, &ask(b"check-file-handle", b"99", b"sha256", 0, 0, 0)).await.0, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_get_one_verdict_and_never_leave_the_root() {
    let mut memory = Memory::new(&[("/a.wav", 10, Pace::Hot)]);
    memory.folders.insert("/Index".to_owned(), 0);
    let door = TestDoor::open(memory).await;
    let mut raw = door.raw().await;
    for (path, normal, is_file, is_folder) in [
        ("", "/", false, true),
        (".", "/", false, true),
        ("../../..", "/", false, true),
        ("/Index/../a.wav", "/a.wav", true, false),
        ("//a.wav/", "/a.wav", true, false),
        ("../Index/.", "/Index", false, true),
        ("../../etc/passwd", "/etc/passwd", false, false),
        ("/acme2/../../other/x", "/other/x", false, false),
    ] {
        let field = string(path.as_bytes());
        let (kind, answer) = raw.ask(16, &field).await;
        assert_eq!(kind, 104);
        assert_eq!(answer[4..8 + normal.len()], string(normal.as_bytes()), "{path}");
        for stat in [7, 17] {
            assert_eq!(raw.ask(stat, &field).await.0 == 105, is_file || is_folder, "stat {path}");
        }
        let open = [&field[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
        assert_eq!(raw.ask(3, &open).await.0 == 102, is_file, "open {path}");
        assert_eq!(raw.ask(11, &field).await.0 == 102, is_folder, "opendir {path}");
    }
    let (_, home) = raw.ask(200, &[string(b"home-directory"), string(b"acme")].concat()).await;
    assert_eq!(home[4..9], string(b"/"));
    let (_, expanded) =
        raw.ask(200, &[string(b"expand-path@openssh.com"), string(b"~/a/../b")].concat()).await;
    assert_eq!(expanded[4..10], string(b"/b"));
    assert_eq!(raw.ask(200, &[string(b"statvfs@openssh.com"), string(b"/")].concat()).await.0, 201);
    let ids = [string(b"users-groups-by-id@openssh.com"), string(&[0; 4]), string(&[0, 0, 0, 9])].concat();
    let (_, names) = raw.ask(200, &ids).await;
    assert_eq!(names, [string(&string(b"acme")), string(&string(b""))].concat());
    assert_eq!(raw.finish().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readdirs_sent_at_once_are_answered_in_order() {
    let mut memory = Memory::new(&[]);
    memory.folders.insert("/S20160606".to_owned(), 3000);
    let door = TestDoor::open(memory).await;
    let mut raw = door.raw().await;
    let handle = string(&raw.open(11, "/S20160606").await);
    let mut ids = Vec::new();
    let mut burst = Vec::new();
    for _ in 0..50 {
        let (id, packet) = raw.encode(12, &handle);
        ids.push(id);
        burst.extend(packet);
    }
    raw.bytes(&burst).await;
    let mut entries = 0;
    for id in ids {
        let answer = raw.receive().await.unwrap();
        assert_eq!(answer[1..5], id.to_be_bytes());
        assert!(answer.len() < 200_100);
        match answer[0] {
            104 => entries += u32::from_be_bytes(answer[5..9].try_into().unwrap()),
            kind => assert_eq!((kind, &answer[5..9]), (101, &[0, 0, 0, 1][..])),
        }
    }
    assert_eq!(entries, 3002, "with . and ..");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_is_sent_before_the_channel_closes() {
    let gate = Arc::new(Semaphore::new(0));
    let door = TestDoor::open(Memory::new(&[("/a.wav", 1000, Pace::Gated(Arc::clone(&gate)))])).await;
    let mut raw = door.raw().await;
    let handle = raw.open(3, "/a.wav").await;
    for _ in 0..5 {
        raw.request(5, &read_body(&handle, 0, 1000)).await;
    }
    drop(raw.stdin.take());
    gate.add_permits(5);
    for _ in 0..5 {
        assert_eq!(raw.receive().await.unwrap().len(), 1009);
    }
    assert_eq!(raw.receive().await, None);
    assert_eq!(raw.finish().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_but_sftp_is_refused() {
    let door = TestDoor::open(Memory::new(&[])).await;
    for arguments in [&["127.0.0.1", "id"][..], &["-T", "127.0.0.1"]] {
        let output = door.ssh(arguments).await;
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(127), "{arguments:?}: {shown}");
        assert!(shown.contains("This service offers SFTP only."), "{arguments:?}: {shown}");
    }
    let output = door.ssh(&["-tt", "127.0.0.1"]).await;
    assert!(text(&output.stderr).contains("PTY allocation request failed"), "{}", text(&output.stderr));
    let output = door.ssh(&["-W", "127.0.0.1:22", "127.0.0.1"]).await;
    assert!(text(&output.stderr).contains("stdio forwarding failed"), "{}", text(&output.stderr));
    let output = door.ssh(&["-s", "127.0.0.1", "netconf"]).await;
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_log_in_is_cut_off() {
    let limits = Limits { login_grace: Duration::from_millis(200), ..limits() };
    let door = TestDoor::open_limited(Memory::new(&[]), config(), limits, throttle()).await;
    for hello in [&b""[..], b"SSH-2.0-x\r\n", b"GET / HTTP/1.0\r\n\r\n"] {
        let mut socket = TcpStream::connect(door.address).await.unwrap();
        socket.write_all(hello).await.unwrap();
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = deadline(socket.read_to_end(&mut all)).await;
        assert!(all.starts_with(b"SSH-2.0-recgate\r\n"), "{}", text(&all));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_user() {
    let door = TestDoor::open(Memory::new(&[])).await;
    let mut raw = door.raw().await;
    assert_eq!(raw.ask(17, &string(b"/")).await.0, 105);
    door.identity.replace(&[tenant(vec![user(7, Some("other"))])]).unwrap();
    assert_eq!(raw.receive().await, None);
    let (code, err) = raw.finish().await;
    assert_eq!(code, Some(255), "{err}");
    assert!(!door.sftp("acme", "ls\n").await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_ends() {
    let limits = Limits { idle_timeout: Duration::from_millis(400), ..limits() };
    let door = TestDoor::open_limited(Memory::new(&[]), config(), limits, throttle()).await;
    let mut raw = door.raw().await;
    assert_eq!(raw.receive().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_idle_sessions_and_lets_transfers_finish() {
    let gate = Arc::new(Semaphore::new(0));
    let door = TestDoor::open(Memory::new(&[("/a.wav", 1000, Pace::Gated(Arc::clone(&gate)))])).await;
    let mut idle = door.raw().await;
    let mut busy = door.raw().await;
    let handle = busy.open(3, "/a.wav").await;
    let read = busy.request(5, &read_body(&handle, 0, 1000)).await;
    let drain = door.drain.clone();
    let stop = tokio::spawn(async move { drain.finish(Duration::from_secs(50)).await });
    assert_eq!(idle.receive().await, None, "the idle session ends");
    let open = [&string(b"/a.wav")[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    assert_eq!(busy.status(3, &open).await, (4, "the gateway is shutting down".to_owned()));
    gate.add_permits(1);
    let answer = busy.receive().await.unwrap();
    assert_eq!((answer[0], &answer[1..5]), (103, &read.to_be_bytes()[..]));
    assert_eq!(busy.status(4, &string(&handle)).await.0, 0);
    assert_eq!(deadline(stop).await.unwrap(), 0, "no session was cut");
    assert!(TcpStream::connect(door.address).await.is_err(), "nothing listens any more");
}

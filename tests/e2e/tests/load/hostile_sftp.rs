//! Clients that have logged in and send packets that nobody honest sends.

use std::collections::BTreeSet;

use recgate_e2e::hostile::{
    Message, Parts, Reply, Scene, Sftp, Ssh, attributes, msg, open_fields, packet, read_fields,
};

const OK: u32 = 0;
const END: u32 = 1;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// The longest packet that is taken, after its length: a WRITE of 256 KiB and its header.
const MAX_PACKET: u32 = 256 * 1024 + 1024;

/// What one connection may hold of the gateway's memory: 4 MiB of replies, its requests, its file's read-ahead, and
/// what the allocator makes of it. Without bounds it would be the 2.5 GiB that some of these ask for.
const A_CONNECTION: u64 = 16 << 20;

fn empty() -> Message {
    Message(Vec::new())
}

/// One request of each type with its fields, all of them right; `file` and `folder` are handles.
fn requests(path: &str, file: &[u8], folder: &[u8]) -> Vec<(u8, Message)> {
    let (path, file, folder) = (empty().string(path), empty().string(file), empty().string(folder));
    let sized = empty().u32(1).u64(9).0;
    vec![
        (3, path.clone().u32(1).raw(attributes())),
        (3, path.clone().u32(2).raw(&sized)),
        (5, file.clone().u64(3).u32(1000)),
        (6, file.clone().u64(0).string("data")),
        (7, path.clone()),
        (8, file.clone()),
        (9, path.clone().raw(&sized)),
        (10, file.clone().raw(&sized)),
        (11, empty().string("/")),
        (13, path.clone()),
        (14, path.clone().raw(attributes())),
        (15, path.clone()),
        (16, empty().string("a/../b")),
        (17, path.clone()),
        (18, path.clone().string("/x")),
        (19, path.clone()),
        (20, empty().string("/x").string("/y")),
        (200, empty().string("limits@openssh.com")),
        (200, empty().string("statvfs@openssh.com").string("/")),
        (200, empty().string("fstatvfs@openssh.com").raw(&file)),
        (200, empty().string("posix-rename@openssh.com").raw(&path).string("/x")),
        (200, empty().string("hardlink@openssh.com").raw(&path).string("/x")),
        (200, empty().string("fsync@openssh.com").raw(&file)),
        (200, empty().string("expand-path@openssh.com").string("~/x")),
        (200, empty().string("home-directory").string("")),
        (200, empty().string("users-groups-by-id@openssh.com").string([0; 8]).string([0; 4])),
        (200, empty().string("nobody@example.com").raw([9; 50])),
        // What changes the handle comes last.
        (12, folder.clone()),
        (4, folder),
    ]
}

/// A reply without what may differ between two times.
fn comparable(reply: &Reply) -> (u8, Vec<u8>) {
    // Each open gets a handle of its own.
    (reply.kind, if reply.kind == 102 { Vec::new() } else { reply.fields.clone() })
}

/// Sends these pieces, each as a message of its own, and takes the reply.
fn pieces(sftp: &mut Sftp, pieces: &[&[u8]]) -> Reply {
    for piece in pieces {
        if !piece.is_empty() {
            sftp.send(piece);
        }
    }
    let reply = sftp.reply();
    if reply.kind == 102 {
        let closed = sftp.ask(4, empty().string(reply.bytes()));
        assert_eq!(closed.status().0, OK);
    }
    reply
}

#[test]
fn requests_that_come_in_pieces_mean_the_same() {
    let scene = Scene::new();
    let (path, _) = scene.small();
    let mut sftp = scene.sftp();
    let count = requests(&path, b"", b"").len();
    for at in 0..count {
        let mut again = |cut: usize| {
            let (file, folder) = (sftp.open(3, &path), sftp.open(11, "/S20160606"));
            let (kind, fields) = &requests(&path, &file, &folder)[at];
            let whole = packet(*kind, 77, fields);
            let reply = match cut {
                0 => pieces(&mut sftp, &[&whole]),
                usize::MAX => pieces(&mut sftp, &whole.chunks(1).collect::<Vec<_>>()),
                cut => pieces(&mut sftp, &[&whole[..cut], &whole[cut..]]),
            };
            assert_eq!(reply.id, 77);
            for handle in [file, folder] {
                sftp.ask(4, empty().string(handle));
            }
            (comparable(&reply), whole.len())
        };
        let (expected, length) = again(0);
        for cut in (1..length).chain([usize::MAX]) {
            assert_eq!(again(cut).0, expected, "request {at} cut at {cut}");
        }
    }
    // Several in one message, the last one cut.
    let many: Vec<u8> = (0..100).flat_map(|id| packet(17, id, empty().string("/Index"))).collect();
    for cut in [1, 4, 5, 9, many.len() - 1] {
        sftp.send(&many[..many.len() - cut]);
        sftp.send(&many[many.len() - cut..]);
        let ids: BTreeSet<u32> = (0..100).map(|_| sftp.reply().id).collect();
        assert_eq!(ids.len(), 100);
    }
    scene.unharmed();
}

#[test]
fn a_body_that_is_shorter_than_its_fields_is_refused_and_the_next_is_answered() {
    let scene = Scene::new();
    let memory = scene.memory();
    let (path, _) = scene.small();
    let mut sftp = scene.sftp();
    let (file, folder) = (sftp.open(3, &path), sftp.open(11, "/S20160606"));
    for (kind, fields) in requests(&path, &file, &folder) {
        // What comes after the last field is ignored: so it can't be missed.
        let needed = match kind {
            // Attributes may be left out; what follows an extension's name is the extension's.
            3 => fields.0.len() - if fields.0.ends_with(&attributes()) { 4 } else { 12 },
            9 | 10 => fields.0.len() - 12,
            14 => fields.0.len() - 4,
            200 => 4 + usize::try_from(u32::from_be_bytes(fields.0[..4].try_into().unwrap())).unwrap(),
            _ => fields.0.len(),
        };
        for length in 0..needed {
            let reply = sftp.ask(kind, &fields.0[..length]);
            assert_eq!(reply.status().0, BAD_MESSAGE, "type {kind}, {length} of {needed} bytes: {reply:?}");
        }
        // The same with lengths of 2^32-1 and others in their places.
        for at in (0..fields.0.len().saturating_sub(3)).step_by(4) {
            for lie in [u32::MAX, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3] {
                let mut lying = fields.0.clone();
                lying[at..at + 4].copy_from_slice(&lie.to_be_bytes());
                let reply = sftp.ask(kind, &lying);
                if reply.kind == 102 {
                    sftp.ask(4, empty().string(reply.bytes()));
                }
            }
        }
    }
    // The stream is in step as ever.
    assert_eq!(sftp.ask(17, empty().string("/")).kind, 105);
    memory.grew_at_most(A_CONNECTION);
    scene.unharmed();
}

/// Sends these bytes on a new channel of a connection, after INIT where `greeted`: the channel ends with status 1, and
/// another of the same connection works.
#[track_caller]
fn ends_its_channel(scene: &Scene, greeted: bool, bytes: &[u8]) {
    let mut sftp = Sftp::start(scene.ssh());
    if greeted {
        sftp.init();
    }
    sftp.send(bytes);
    while sftp.step() {}
    assert_eq!(sftp.closed, Some(Some(1)), "{:?} {}", &bytes[..bytes.len().min(40)], sftp.explained);
    // What comes after is for nobody.
    drop(sftp.ssh.try_send(Ssh::on_channel(msg::CHANNEL_DATA, sftp.channel).string(bytes)));
    let mut other = Sftp::ready(sftp.ssh);
    assert!(other.list("/").contains(&"Index".to_owned()));
}

#[test]
fn a_stream_that_is_out_of_step_ends_its_channel_alone() {
    let scene = Scene::new();
    let memory = scene.memory();
    for length in [0, 1, 4, MAX_PACKET + 1, 1 << 24, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3, u32::MAX] {
        for greeted in [true, false] {
            let bytes = empty().u32(length).raw([5; 300]).0;
            ends_its_channel(&scene, greeted, &bytes);
        }
    }
    // The longest packet is taken: nothing but its type is wrong.
    let mut sftp = scene.sftp();
    let longest = vec![0; usize::try_from(MAX_PACKET).unwrap() - 5];
    assert_eq!(sftp.ask(99, &longest).status().0, UNSUPPORTED);
    let mut write = empty().string("7").u64(0).string(vec![0; 256 << 10]);
    write.0.truncate(longest.len());
    assert_eq!(sftp.ask(6, &write).status().0, 3);
    // Another frame of that size that never ends doesn't keep the session's bytes for ever.
    sftp.send(&MAX_PACKET.to_be_bytes());
    sftp.send(&longest[..1000]);
    drop(sftp);
    memory.grew_at_most(A_CONNECTION);
    scene.unharmed();
}

#[test]
fn init_comes_first_and_once() {
    let scene = Scene::new();
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    let (path, _) = scene.small();
    for (kind, fields) in requests(&path, b"1", b"2") {
        ends_its_channel(&scene, false, &packet(kind, 0, &fields));
    }
    for kind in [0, 2, 101, 105, 201, 255] {
        ends_its_channel(&scene, false, &packet(kind, 0, [0; 10]));
    }
    ends_its_channel(&scene, true, &init);
    // Any version is answered with 3, and a list of extensions that isn't one is no matter.
    for version in [0, 1, 2, 4, 6, u32::MAX] {
        let mut sftp = Sftp::start(scene.ssh());
        let extensions = empty().u32(version).u32(u32::MAX).raw([1; 1000]);
        let frame = empty().u32(u32::try_from(1 + extensions.0.len()).unwrap()).byte(1).raw(extensions);
        sftp.send(&frame.0);
        assert_eq!(sftp.packet().unwrap()[..5], [2, 0, 0, 0, 3]);
    }
    scene.unharmed();
}

#[test]
fn types_that_are_no_requests_are_refused_by_their_ids() {
    let scene = Scene::new();
    let mut sftp = scene.sftp();
    let known: BTreeSet<u8> = (3..=20).chain([1, 200]).collect();
    for kind in (0..=255).filter(|kind| !known.contains(kind)) {
        for fields in [Vec::new(), vec![0xff; 40], empty().string("/").0] {
            assert_eq!(sftp.ask(kind, fields).status().0, UNSUPPORTED, "type {kind}");
        }
    }
    assert_eq!(sftp.ask(17, empty().string("/")).kind, 105);
    scene.unharmed();
}

#[test]
fn handles_that_were_never_given_or_are_closed_name_nothing() {
    let scene = Scene::new();
    let (path, _) = scene.large();
    let mut sftp = scene.sftp();
    let closed = sftp.open(3, &path);
    assert_eq!(sftp.ask(4, empty().string(&closed)).status().0, OK);
    let open = sftp.open(3, &path);
    // Another session has this handle: it isn't ours. (Numbers are per channel, so it takes one that is higher.)
    let mut other = scene.sftp();
    let theirs = (0..20).map(|_| other.open(3, &path)).next_back().unwrap();
    let mut wrong: Vec<Vec<u8>> = [
        &b""[..],
        b"0",
        b"-1",
        b"+1",
        b" 1",
        b"1 ",
        b"0x1",
        b"999999",
        b"18446744073709551615",
        b"18446744073709551616",
        b"\0\0\0\0",
        b"\0\0\0\x01",
        b"\xff\xff\xff\xff",
        b"/",
        path.as_bytes(),
    ]
    .iter()
    .map(|handle| handle.to_vec())
    .collect();
    wrong.extend([closed, theirs, vec![b'1'; 256], vec![b'1'; 200_000]]);
    for handle in wrong {
        let named = empty().string(&handle);
        for (kind, fields) in [
            (4, named.clone()),
            (5, named.clone().u64(0).u32(100)),
            (8, named.clone()),
            (12, named.clone()),
            (200, empty().string("fstatvfs@openssh.com").raw(&named)),
            (200, empty().string("fsync@openssh.com").raw(&named)),
        ] {
            let shown = String::from_utf8_lossy(&handle[..handle.len().min(30)]).into_owned();
            assert_eq!(sftp.ask(kind, fields).status().0, FAILURE, "type {kind} of handle {shown:?}");
        }
    }
    assert_eq!(sftp.ask(5, read_fields(&open, 0, 4)).bytes(), b"RIFF");
    // On another channel of the same connection it names nothing either.
    let mut second = Sftp::ready(sftp.ssh);
    for kind in [4, 8, 12] {
        assert_eq!(second.ask(kind, empty().string(&open)).status().0, FAILURE);
    }
    scene.unharmed();
}

#[test]
fn reads_beyond_reason() {
    let scene = Scene::new();
    let (path, bytes) = scene.large();
    let size = bytes.len() as u64;
    let mut sftp = scene.sftp();
    let (file, folder) = (sftp.open(3, &path), sftp.open(11, "/S20160606"));
    for length in [261_120, 261_121, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let read = sftp.ask(5, read_fields(&file, 0, length)).bytes();
        assert_eq!(read, bytes[..read.len()]);
        assert_eq!(read.len(), 261_120, "as limits@openssh.com says");
    }
    for offset in [size, size + 1, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX] {
        for length in [1, 4096, u32::MAX] {
            let reply = sftp.ask(5, read_fields(&file, offset, length));
            assert_eq!(reply.status().0, END, "{length} bytes at {offset}");
        }
    }
    assert_eq!(sftp.ask(5, read_fields(&file, size - 1, u32::MAX)).bytes(), bytes[bytes.len() - 1..]);
    // Nothing asked, nothing got, in whatever way; but an answer.
    let nothing = sftp.ask(5, read_fields(&file, 0, 0));
    assert!(nothing.kind == 101 || nothing.bytes().is_empty(), "{nothing:?}");
    // A folder isn't read, a file isn't listed.
    assert_eq!(sftp.ask(5, read_fields(&folder, 0, 100)).status().0, FAILURE);
    assert_eq!(sftp.ask(12, empty().string(&file)).status().0, FAILURE);
    assert_eq!(sftp.ask(11, empty().string(&path)).status().0, FAILURE);
    assert_eq!(sftp.ask(3, open_fields(3, "/S20160606")).status().0, FAILURE);
    scene.unharmed();
}

#[test]
fn a_thousand_readdirs_at_once_tell_each_entry_once() {
    let scene = Scene::new();
    let mut sftp = scene.sftp();
    let names = sftp.list("/S20160606");
    let folder = sftp.open(11, "/S20160606");
    let asked: Vec<u32> = (0..1000).map(|_| sftp.request(12, empty().string(&folder))).collect();
    let close = sftp.request(4, empty().string(&folder));
    let mut found = Vec::new();
    let (mut answered, mut ends) = (BTreeSet::new(), 0);
    for _ in 0..=asked.len() {
        let reply = sftp.reply();
        assert!(answered.insert(reply.id), "answered twice");
        if reply.id == close {
            assert_eq!(reply.status().0, OK);
        } else if reply.kind == 104 {
            let mut parts = Parts(&reply.fields);
            for _ in 0..parts.u32() {
                found.push(parts.text());
                parts.text();
                parts.take(32);
            }
        } else {
            // Those that come to their turn after the close may find no folder any more.
            assert!(matches!(reply.status().0, END | FAILURE), "{reply:?}");
            ends += 1;
        }
    }
    assert_eq!(found, names);
    assert!(ends >= 900);
    scene.unharmed();
}

#[test]
fn sixty_five_thousand_opens() {
    let scene = Scene::new();
    let (path, bytes) = scene.large();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let mut sftp = scene.sftp();
    let limits = sftp.ask(200, empty().string("limits@openssh.com"));
    let most = usize::try_from(u64::from_be_bytes(limits.fields[24..32].try_into().unwrap())).unwrap();
    let mut open = Vec::new();
    let mut refused = 0;
    for batch in 0..64 {
        let (kind, name) = if batch % 2 == 0 { (3, path.as_str()) } else { (11, "/S20160606") };
        for _ in 0..1024 {
            sftp.request(kind, open_fields(kind, name));
        }
        for _ in 0..1024 {
            let reply = sftp.reply();
            if reply.kind == 102 {
                open.push(reply.bytes());
            } else {
                let (code, sentence) = reply.status();
                assert_eq!(code, FAILURE, "{sentence}");
                assert!(sentence.contains("close some"), "{sentence}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (most, 65_536 - most), "as limits@openssh.com says");
    assert_eq!(open.iter().collect::<BTreeSet<_>>().len(), most, "two opens with one handle");
    // On the first of them a read goes on as ever, and others don't notice.
    assert_eq!(sftp.ask(5, read_fields(&open[0], 0, 4)).bytes(), b"RIFF");
    bystander.works_on();
    memory.grew_at_most(2 * A_CONNECTION);
    for handle in &open {
        sftp.request(4, empty().string(handle));
    }
    for _ in &open {
        assert_eq!(sftp.reply().status().0, OK);
    }
    assert!(sftp.download(&path, bytes.len(), 8, 32 << 10) == bytes);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn a_reader_that_never_drains_holds_its_own_bytes_only() {
    const READERS: u64 = 8;
    let scene = Scene::with_limits("idle_timeout = \"20s\"");
    let (path, _) = scene.large();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let mut readers: Vec<Sftp> = (0..READERS)
        .map(|_| {
            let mut ssh = scene.ssh();
            // A window without end: only its not reading stops the server.
            let channel = ssh.open("session", u32::MAX, b"").unwrap();
            assert!(ssh.channel_request(channel, "subsystem", &empty().string("sftp").0));
            let mut sftp = Sftp::on(ssh, channel);
            sftp.init();
            let file = sftp.open(3, &path);
            let reads: Vec<u8> =
                (0..10_000).flat_map(|id| packet(5, id, read_fields(&file, 0, 261_120))).collect();
            // As much as the server's window has room for, then what it hasn't.
            let room = usize::try_from(sftp.room).unwrap().min(reads.len());
            sftp.send(&reads[..room]);
            let rest = Ssh::on_channel(msg::CHANNEL_DATA, channel).string(&reads[room..]);
            if room < reads.len() {
                drop(sftp.ssh.try_send(rest));
            }
            sftp
        })
        .collect();
    bystander.works_on();
    bystander.works_on();
    memory.grew_at_most(READERS * A_CONNECTION);

    // One begins to read after all: its bytes are right.
    let mut late = readers.pop().unwrap();
    for _ in 0..100 {
        let Some(packet) = late.packet() else { break };
        assert_eq!((packet[0], &packet[9..13]), (103, &b"RIFF"[..]));
    }
    // Who doesn't go is made to go.
    scene.gateway().wait_for_log(&["session closed", "idle for too long"]);
    drop(readers);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn who_sends_on_and_on_without_reading_is_sent_away() {
    let scene = Scene::new();
    let (path, _) = scene.large();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    // Replies wait for the socket, or for a window that is soon used up: then the gateway reads on for some time.
    for window in [1 << 30, 4096] {
        let mut ssh = scene.ssh();
        let channel = ssh.try_open("session", window, 1 << 15, b"").unwrap().unwrap();
        assert!(ssh.channel_request(channel, "subsystem", &empty().string("sftp").0));
        let mut asked = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
        asked.extend(packet(3, 0, open_fields(3, &path)));
        ssh.send(Ssh::on_channel(msg::CHANNEL_DATA, channel).string(&asked));
        let reads: Vec<u8> = (0..1000).flat_map(|id| packet(5, id, read_fields(b"1", 0, 261_120))).collect();
        // Windows mean nothing to this client.
        let message = Ssh::on_channel(msg::CHANNEL_DATA, channel).string(&reads);
        ssh.stream.set_write_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut sent = 0_usize;
        while sent < 256 << 20 && ssh.try_send(&message).is_ok() {
            sent += reads.len();
        }
        assert!(sent < 64 << 20, "{window}: {sent} bytes of requests were taken without a reply being read");
    }
    memory.grew_at_most(2 * A_CONNECTION);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn sessions_that_vanish_leave_nothing() {
    let scene = Scene::new();
    let (path, _) = scene.large();
    let bystander = scene.bystander();
    for round in 0..50 {
        let mut sftp = scene.sftp();
        let file = sftp.open(3, &path);
        for at in 0..200 {
            sftp.request(5, read_fields(&file, at * 1000, 100_000));
        }
        match round % 4 {
            0 => {}
            1 => drop(sftp.ssh.try_send(Ssh::on_channel(msg::CHANNEL_CLOSE, sftp.channel))),
            2 => drop(sftp.ssh.try_send(Ssh::on_channel(msg::CHANNEL_EOF, sftp.channel))),
            _ => drop(sftp.ssh.try_send(Message::new(msg::DISCONNECT).u32(11).string("").string(""))),
        }
    }
    // After an end of file all that was asked is answered, then the channel closes.
    let mut sftp = scene.sftp();
    let file = sftp.open(3, &path);
    for _ in 0..100 {
        sftp.request(5, read_fields(&file, 0, 100_000));
    }
    sftp.ssh.send(Ssh::on_channel(msg::CHANNEL_EOF, sftp.channel));
    for _ in 0..100 {
        assert_eq!(sftp.reply().bytes().len(), 100_000);
    }
    while sftp.step() {}
    assert_eq!(sftp.closed, Some(Some(0)));
    bystander.leave();
    scene.unharmed();
}

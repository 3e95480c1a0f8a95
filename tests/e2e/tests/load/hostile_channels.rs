//! Clients that have logged in and misuse channels, windows and key exchanges.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use recgate_e2e::{
    Finished, askpass,
    hostile::{
        Kexinit, Message, Opened, PATIENCE, Parts, Scene, Sftp, Ssh, msg, number, open_fields, packet,
        read_fields,
    },
    run, ssh_options,
};

/// Refusals of channels (RFC 4254, 5.1).
const PROHIBITED: u32 = 1;
const UNKNOWN_TYPE: u32 = 3;
const SHORTAGE: u32 = 4;
/// What OpenSSH allows, and the gateway.
const CHANNELS: usize = 10;
/// What one connection may take of the gateway's memory, whatever it does.
const A_CONNECTION: u64 = 16 << 20;

fn empty() -> Message {
    Message(Vec::new())
}

fn subsystem(ssh: &mut Ssh, channel: Opened, name: &str) -> bool {
    ssh.channel_request(channel, "subsystem", &empty().string(name).0)
}

/// The connection either goes on as if nothing had been, or is closed: it doesn't hang.
#[track_caller]
fn lives_or_closes(mut ssh: Ssh) {
    // Whatever is under way is answered before this.
    let marker = "nobody@example.com";
    if ssh.try_send(Message::new(msg::GLOBAL_REQUEST).string(marker).byte(1)).is_err() {
        return;
    }
    while let Some(message) = ssh.receive() {
        match number(&message) {
            msg::REQUEST_FAILURE => {
                let sftp = Sftp::ready(ssh).list("/");
                assert!(sftp.contains(&"Index".to_owned()));
                return;
            }
            msg::DISCONNECT => return,
            _ => {}
        }
    }
}

#[test]
fn new_keys_while_512_reads_are_outstanding() {
    let scene = Scene::new();
    let (path, bytes) = scene.large();
    let bystander = scene.bystander();
    let mut sftp = scene.sftp();
    for round in 0..3 {
        let file = sftp.open(3, &path);
        let mut expected = BTreeMap::new();
        for at in 0..512_u64 {
            let offset = (at * 7919) % (bytes.len() as u64 - 32_768);
            expected.insert(sftp.request(5, read_fields(&file, offset, 32_768)), offset);
            if at % 64 == round {
                sftp.ssh.rekey();
            }
        }
        while !expected.is_empty() {
            let reply = sftp.reply();
            let offset = usize::try_from(expected.remove(&reply.id).unwrap()).unwrap();
            assert!(reply.bytes() == bytes[offset..offset + 32_768], "wrong bytes at {offset}");
            if expected.len() % 64 == 0 {
                sftp.ssh.rekey();
            }
        }
        assert_eq!(sftp.ask(4, empty().string(file)).status().0, 0);
    }
    bystander.leave();
    scene.unharmed();
}

/// Downloads the large recording so many times over one connection, with each cipher, and these options of `sftp`; each
/// time it is whole. Returns what each run said, by cipher.
fn download_with_each_cipher(scene: &Scene, option: &str, times: usize) -> Vec<(&'static str, Finished)> {
    let (path, bytes) = scene.large();
    let login = scene.fixture.login("acme");
    let target = scene.fixture.new_folder("rekeyed");
    let ciphers =
        ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr"];
    let download = |cipher| {
        let copy = |number: usize| target.join(format!("{cipher}-{number}"));
        let get = |number: usize| format!("get {path} {}\n", copy(number).display());
        let batch: String = (0..times).map(get).collect();
        let ciphers = format!("Ciphers={cipher}");
        let options = ["-o", option, "-o", &ciphers, "-R", "512", "-B", "32768"];
        let ran = login.sftp_with(&options, batch.as_bytes()).success();
        for number in 0..times {
            assert!(fs::read(copy(number)).unwrap() == bytes, "{cipher}");
        }
        (cipher, ran)
    };
    ciphers.into_iter().map(download).collect()
}

#[test]
fn openssh_renews_its_keys_with_every_mib() {
    let scene = Scene::new();
    download_with_each_cipher(&scene, "RekeyLimit=1M", 5);
    scene.unharmed();
}

/// A scene whose gateway itself asks for new keys with every MiB.
fn with_new_keys_for_each_mib() -> Scene {
    Scene::with(|config| config.replacen("[ssh]\n", "[ssh]\nrekey_bytes = \"1MiB\"\n", 1))
}

#[test]
fn the_gateway_renews_keys_while_512_reads_are_outstanding() {
    let scene = with_new_keys_for_each_mib();
    let (path, bytes) = scene.large();
    let bystander = scene.bystander();
    let mut sftp = scene.sftp();
    for _ in 0..3 {
        let before = sftp.ssh.exchanges;
        let file = sftp.open(3, &path);
        let mut expected = BTreeMap::new();
        for at in 0..512_u64 {
            let offset = (at * 7919) % (bytes.len() as u64 - 32_768);
            expected.insert(sftp.request(5, read_fields(&file, offset, 32_768)), offset);
        }
        while !expected.is_empty() {
            let reply = sftp.reply();
            let offset = usize::try_from(expected.remove(&reply.id).unwrap()).unwrap();
            assert!(reply.bytes() == bytes[offset..offset + 32_768], "wrong bytes at {offset}");
        }
        assert_eq!(sftp.ask(4, empty().string(file)).status().0, 0);
        // These are 16 MiB. What is on its way when an exchange begins isn't counted.
        let exchanges = sftp.ssh.exchanges - before;
        assert!(exchanges >= 4, "{exchanges} key exchanges");
    }
    bystander.leave();
    scene.unharmed();
}

#[test]
fn openssh_goes_along_when_the_gateway_renews_keys() {
    let scene = with_new_keys_for_each_mib();
    // The exchanges are told at this level; the first of two settings counts.
    for (cipher, ran) in download_with_each_cipher(&scene, "LogLevel=DEBUG1", 3) {
        let exchanges = ran.stderr.lines().filter(|line| line.contains("SSH2_MSG_KEXINIT received")).count();
        assert!(exchanges >= 4, "{exchanges} key exchanges with {cipher}");
    }
    scene.unharmed();
}

/// Keep-alives keep a path through routers open and find a client whose machine is gone; who only doesn't answer them is
/// left to the idle timeout, which their answers don't put off.
#[test]
fn a_client_that_answers_nothing_is_cut_and_one_that_works_now_and_then_stays() {
    let scene = Scene::with(|config| {
        let config = config.replacen("[ssh]\n", "[ssh]\nkeep_alive = \"1s\"\n", 1);
        format!("{config}\n[limits]\nidle_timeout = \"8s\"\n")
    });
    let mut honest = scene.fixture.login("acme").raw();
    let bystander = scene.bystander();
    let mut silent = scene.ssh();
    let (mut asked, mut words) = (0, None);
    while let Some(message) = silent.receive_raw() {
        match number(&message) {
            msg::GLOBAL_REQUEST => {
                assert_eq!(Parts::after_number(&message).text(), "keepalive@openssh.com");
                asked += 1;
                // It isn't the keep-alives that this one lives by, but it answers them.
                if asked % 3 == 0 {
                    honest.list("/").unwrap();
                }
            }
            msg::DISCONNECT => {
                let mut parts = Parts::after_number(&message);
                parts.u32();
                words = Some(parts.text());
            }
            _ => {}
        }
    }
    assert!(asked >= 3, "{asked} keep-alives");
    assert_eq!(words.as_deref(), Some("idle for too long"));
    assert!(honest.list("/").unwrap().iter().any(|entry| entry.name == "Index"));
    bystander.leave();
    scene.unharmed();
}

#[test]
fn key_exchanges_that_are_begun_and_left() {
    let scene = Scene::with_limits("idle_timeout = \"5s\"");
    let (path, bytes) = scene.large();
    let bystander = scene.bystander();
    // Reads are outstanding, and the exchange never goes on: the replies stay bounded, the connection is cut as idle.
    let mut sftp = scene.sftp();
    let file = sftp.open(3, &path);
    for _ in 0..512 {
        sftp.request(5, read_fields(&file, 0, 261_120));
    }
    sftp.ssh.send(Kexinit::default().message());
    let mut left = vec![sftp.ssh];
    // Nothing but key exchange is taken after a KEXINIT.
    let mut sftp = scene.sftp();
    sftp.ssh.send(Kexinit::default().message());
    let request = packet(17, 9, empty().string("/"));
    drop(sftp.ssh.try_send(Ssh::on_channel(msg::CHANNEL_DATA, sftp.channel).string(&request)));
    left.push(sftp.ssh);
    // A second KEXINIT in the middle, and one that offers nothing.
    let mut ssh = scene.ssh();
    ssh.send(Kexinit::default().message());
    drop(ssh.try_send(Kexinit::default().message()));
    left.push(ssh);
    let mut ssh = scene.ssh();
    ssh.send(Kexinit { lists: Default::default(), guesses: true }.message());
    left.push(ssh);
    bystander.works_on();
    for mut ssh in left {
        while ssh.receive_raw().is_some() {}
    }
    // After a hundred exchanges in a row the session is the same.
    let mut sftp = scene.sftp();
    for _ in 0..100 {
        sftp.ssh.rekey();
    }
    assert!(sftp.download(&path, bytes.len(), 64, 32 << 10) == bytes);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn eleven_channels_and_many_one_after_another() {
    let scene = Scene::new();
    let bystander = scene.bystander();
    let mut ssh = scene.ssh();
    let mut channels: Vec<Opened> = (0..CHANNELS).map(|_| ssh.session()).collect();
    for _ in 0..3 {
        assert_eq!(ssh.open("session", 1 << 20, b"").unwrap_err().0, SHORTAGE);
    }
    // One that has the subsystem and one that hasn't: each place that is left can be taken.
    assert!(subsystem(&mut ssh, channels[0], "sftp"));
    for _ in 0..2 {
        let channel = channels.remove(0);
        ssh.send(Ssh::on_channel(msg::CHANNEL_CLOSE, channel));
        ssh.expect(msg::CHANNEL_CLOSE);
        channels.push(ssh.session());
        assert_eq!(ssh.open("session", 1 << 20, b"").unwrap_err().0, SHORTAGE);
    }
    let mut sftp = {
        assert!(subsystem(&mut ssh, channels[0], "sftp"));
        Sftp::on(ssh, channels[0])
    };
    sftp.init();
    assert!(sftp.list("/").contains(&"Index".to_owned()));
    drop(sftp);

    // One after another: memory stays, and there is an end to it.
    let mut ssh = scene.ssh();
    bystander.works_on();
    let mut memory = scene.memory();
    let mut opened = 0;
    // The end is the connection's, so that a client connects anew.
    while let Some(channel) = ssh.try_open("session", 1 << 20, 1 << 15, b"") {
        let channel = channel.unwrap();
        opened += 1;
        if opened % 3 == 0 {
            assert!(subsystem(&mut ssh, channel, "sftp"));
        }
        ssh.send(Ssh::on_channel(msg::CHANNEL_CLOSE, channel));
        ssh.expect(msg::CHANNEL_CLOSE);
        if opened == 1000 {
            // This one's, and what the bystander's came to meanwhile.
            memory.grew_at_most(2 * A_CONNECTION);
            memory = scene.memory();
        }
        assert!(opened < 100_000, "channels may be opened for ever");
    }
    memory.grew_at_most(A_CONNECTION);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn messages_on_channels_that_are_closed_or_never_were() {
    let scene = Scene::new();
    let bystander = scene.bystander();
    let on = |number: u8, theirs: u32| Message::new(number).u32(theirs);
    for theirs in [None, Some(0), Some(7), Some(99), Some(u32::MAX)] {
        for which in 0..9 {
            let mut ssh = scene.ssh();
            let channel = ssh.session();
            if theirs.is_none() {
                if which % 2 == 0 {
                    assert!(subsystem(&mut ssh, channel, "sftp"));
                }
                ssh.send(Ssh::on_channel(msg::CHANNEL_CLOSE, channel));
                ssh.expect(msg::CHANNEL_CLOSE);
            }
            let theirs = theirs.unwrap_or(channel.theirs);
            let message = match which {
                0 => on(msg::CHANNEL_DATA, theirs).string([0, 0, 0, 5, 1, 0, 0, 0, 3]),
                1 => on(msg::CHANNEL_EXTENDED_DATA, theirs).u32(1).string("x"),
                2 => on(msg::CHANNEL_WINDOW_ADJUST, theirs).u32(100),
                3 => on(msg::CHANNEL_EOF, theirs),
                4 => on(msg::CHANNEL_CLOSE, theirs),
                5 => on(msg::CHANNEL_REQUEST, theirs).string("subsystem").byte(1).string("sftp"),
                6 => on(msg::CHANNEL_SUCCESS, theirs),
                7 => on(msg::CHANNEL_OPEN_CONFIRMATION, theirs).u32(0).u32(1 << 20).u32(1 << 15),
                _ => on(msg::CHANNEL_OPEN_FAILURE, theirs).u32(1).string("").string(""),
            };
            drop(ssh.try_send(&message));
            drop(ssh.try_send(&message));
            lives_or_closes(ssh);
        }
    }
    // The same number for two channels of the client's, and messages that no client sends or nobody knows.
    let mut ssh = scene.ssh();
    let open = Message::new(msg::CHANNEL_OPEN).string("session").u32(5).u32(1 << 20).u32(1 << 15);
    ssh.send(&open);
    ssh.send(&open);
    lives_or_closes(ssh);
    for number in
        [0, 3, 6, 8, 21, 30, 31, 40, 51, 52, 60, 79, 81, 82, 83, 89, 91, 92, 101, 127, 128, 192, 255]
    {
        for fields in [&b""[..], &[0; 40], &[0xff; 40]] {
            let mut ssh = scene.ssh();
            drop(ssh.try_send(Message::new(number).raw(fields)));
            lives_or_closes(ssh);
        }
    }
    bystander.leave();
    scene.unharmed();
}

#[test]
fn windows_of_nothing_and_without_end() {
    let scene = Scene::with_limits("idle_timeout = \"10s\"");
    let (path, _) = scene.large();
    let bystander = scene.bystander();
    let ask = |ssh: &mut Ssh, channel: Opened| {
        let mut asked = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
        asked.extend(packet(3, 0, open_fields(3, &path)));
        asked.extend((1..100).flat_map(|id| packet(5, id, read_fields(b"1", 0, 261_120))));
        asked.extend(packet(11, 100, empty().string("/S20160606")));
        ssh.send(Ssh::on_channel(msg::CHANNEL_DATA, channel).string(&asked));
    };
    let mut waiting = Vec::new();
    // Each byte of a reply would be a packet of its own.
    let mut ssh = scene.ssh();
    for (window, most) in [(0, 1 << 15), (4095, 1 << 15), (1, 1), (1 << 20, 1), (1 << 20, 4095)] {
        let (code, reason) = ssh.try_open("session", window, most, b"").unwrap().unwrap_err();
        assert_eq!((code, reason.contains("4096 bytes")), (PROHIBITED, true), "{reason}");
    }
    // Packets of nothing end the connection.
    assert!(ssh.try_open("session", u32::MAX, 0, b"").is_none_or(|answer| answer.is_err()));
    // The smallest window, the smallest packets, and packets of any size. A worker that turned on such a channel
    // without end would be missed: there are more of these than the machine has processors.
    for (window, most) in [(4096, 1 << 15), (u32::MAX, 4096), (4096, 4096), (u32::MAX, u32::MAX)] {
        for _ in 0..4 {
            let mut ssh = scene.ssh();
            let channel = ssh.try_open("session", window, most, b"").unwrap().unwrap();
            assert!(subsystem(&mut ssh, channel, "sftp"));
            ask(&mut ssh, channel);
            waiting.push(ssh);
        }
    }
    bystander.works_on();
    // Windows that grow beyond what 32 bits count.
    for first in [4096, u32::MAX] {
        let mut ssh = scene.ssh();
        let channel = ssh.open("session", first, b"").unwrap();
        for _ in 0..5 {
            drop(ssh.try_send(Ssh::on_channel(msg::CHANNEL_WINDOW_ADJUST, channel).u32(u32::MAX)));
        }
        drop(ssh.try_send(Ssh::on_channel(msg::CHANNEL_WINDOW_ADJUST, channel).u32(0)));
        lives_or_closes(ssh);
    }
    // A flood of adjustments, byte by byte.
    let mut ssh = scene.ssh();
    let channel = ssh.open("session", 4096, b"").unwrap();
    assert!(subsystem(&mut ssh, channel, "sftp"));
    ask(&mut ssh, channel);
    for _ in 0..20_000 {
        drop(ssh.try_send(Ssh::on_channel(msg::CHANNEL_WINDOW_ADJUST, channel).u32(1)));
    }
    waiting.push(ssh);
    bystander.works_on();
    // Who waits for ever is idle.
    for mut ssh in waiting.drain(..) {
        while ssh.receive_raw().is_some() {}
    }
    scene.gateway().wait_for_log(&["session closed", "idle for too long"]);
    bystander.leave();
    scene.unharmed();
}

/// Reads a channel to its end: what was on standard output and error, and the exit status.
#[track_caller]
fn ending(ssh: &mut Ssh) -> (Vec<u8>, String, Option<u32>) {
    let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), None);
    loop {
        let message = ssh.receive().expect("closed before the channel's end");
        let mut parts = Parts::after_number(&message);
        parts.u32();
        match number(&message) {
            msg::CHANNEL_DATA => stdout.extend(parts.string()),
            msg::CHANNEL_EXTENDED_DATA => {
                parts.u32();
                stderr.extend(parts.string());
            }
            msg::CHANNEL_REQUEST => {
                assert_eq!(parts.text(), "exit-status");
                parts.byte();
                status = Some(parts.u32());
            }
            msg::CHANNEL_CLOSE => return (stdout, String::from_utf8(stderr).unwrap(), status),
            _ => {}
        }
    }
}

#[test]
fn commands_and_shells_get_one_line_and_status_127() {
    let scene = Scene::new();
    for (kind, fields) in [
        ("shell", empty()),
        ("exec", empty().string("id")),
        ("exec", empty().string("")),
        ("exec", empty().string("x".repeat(200_000))),
        ("exec", empty().string([0xff, 0, b'\n'])),
        ("exec", empty().string("sh -c 'cat /etc/passwd'")),
        ("exec", empty().string("/usr/lib/openssh/sftp-server")),
    ] {
        for wanted in [true, false] {
            let mut ssh = scene.ssh();
            let channel = ssh.session();
            let request = Message::new(msg::CHANNEL_REQUEST).u32(channel.theirs).string(kind);
            ssh.send(request.byte(u8::from(wanted)).raw(&fields));
            let (stdout, stderr, status) = ending(&mut ssh);
            assert_eq!((stdout, status), (Vec::new(), Some(127)), "{kind} {stderr}");
            assert!(stderr.ends_with('\n') && stderr.lines().count() == 1, "{kind}: {stderr:?}");
            ssh.send(Ssh::on_channel(msg::CHANNEL_CLOSE, channel));
            lives_or_closes(ssh);
        }
    }
    // The same with ssh itself.
    let login = scene.fixture.login("acme");
    for words in [&["id"][..], &[], &["-T"], &["-tt"], &["-A", "-X", "id"]] {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-p"]).arg(scene.port.to_string());
        command.args(ssh_options(&login.home, "acme"));
        let (options, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
        command.args(options).arg("127.0.0.1").args(&words);
        askpass(&mut command, &login.home, &login.password);
        let ended = run(&mut command, b"", PATIENCE);
        // Who insists on a terminal gives up for want of one, before the shell's answer.
        let terminal =
            ended.status.code() == Some(255) && ended.text().contains("PTY allocation request failed");
        let told = ended.status.code() == Some(127) && ended.text().contains("SFTP only");
        assert!(told || terminal, "{words:?}: {ended}");
    }
    scene.unharmed();
}

#[test]
fn what_else_a_shell_would_offer_is_refused() {
    let scene = Scene::new();
    let mut ssh = scene.ssh();
    let channel = ssh.session();
    let size = empty().u32(80).u32(24).u32(0).u32(0);
    for (kind, fields) in [
        ("pty-req", empty().string("xterm").raw(&size).string([1, 0, 0, 0, 9, 0])),
        ("x11-req", empty().byte(0).string("MIT-MAGIC-COOKIE-1").string("00").u32(0)),
        ("auth-agent-req@openssh.com", empty()),
        ("env", empty().string("LD_PRELOAD").string("/tmp/x.so")),
        ("subsystem", empty().string("shell")),
        ("subsystem", empty().string("")),
        ("subsystem", empty().string("x".repeat(100_000))),
        ("subsystem", empty().string([0xff])),
        ("nobody@example.com", empty()),
    ] {
        // Refused, or, where the fields make no sense, the connection is closed.
        ssh.send(Message::new(msg::CHANNEL_REQUEST).u32(channel.theirs).string(kind).byte(1).raw(&fields));
        match ssh.receive() {
            Some(reply) => assert_eq!(number(&reply), msg::CHANNEL_FAILURE, "{kind}"),
            None => {
                assert!(fields.0.contains(&0xff), "{kind} closed the connection");
                ssh = scene.ssh();
                ssh.session();
            }
        }
    }
    let mut ssh = scene.ssh();
    let channel = ssh.session();
    // Those that have no answer don't count as one.
    for kind in ["window-change", "signal", "break", "exit-status", "eow@openssh.com"] {
        let fields = match kind {
            "window-change" => size.clone(),
            "signal" => empty().string("KILL"),
            _ => empty().u32(1),
        };
        ssh.send(Message::new(msg::CHANNEL_REQUEST).u32(channel.theirs).string(kind).byte(0).raw(&fields));
    }
    for (kind, fields, code) in [
        ("direct-tcpip", empty().string("127.0.0.1").u32(22).string("127.0.0.1").u32(1), PROHIBITED),
        ("forwarded-tcpip", empty().string("127.0.0.1").u32(22).string("127.0.0.1").u32(1), PROHIBITED),
        ("x11", empty().string("127.0.0.1").u32(6000), PROHIBITED),
        ("direct-streamlocal@openssh.com", empty().string("/run/x").string("").u32(0), PROHIBITED),
    ] {
        assert_eq!(ssh.open(kind, 1 << 20, &fields.0).unwrap_err().0, code, "{kind}");
    }
    for kind in ["tun@openssh.com", "auth-agent@openssh.com", "nobody@example.com", ""] {
        let mut ssh = scene.ssh();
        match ssh.try_open(kind, 1 << 20, 1 << 15, &[]) {
            Some(answer) => assert!([PROHIBITED, UNKNOWN_TYPE].contains(&answer.unwrap_err().0), "{kind}"),
            None => continue,
        }
        // russh refuses these twice, the second time as prohibited.
        lives_or_closes(ssh);
    }
    for (kind, fields) in [
        ("tcpip-forward", empty().string("0.0.0.0").u32(0)),
        ("tcpip-forward", empty().string("").u32(2222)),
        ("cancel-tcpip-forward", empty().string("0.0.0.0").u32(2222)),
        ("streamlocal-forward@openssh.com", empty().string("/tmp/x")),
        ("keepalive@openssh.com", empty()),
        ("no-more-sessions@openssh.com", empty()),
        ("hostkeys-prove-00@openssh.com", empty().string("x")),
        ("nobody@example.com", empty().raw([7; 100])),
    ] {
        assert!(!ssh.global_request(kind, &fields.0), "{kind} was granted");
    }
    // A thousand at once are answered in their order, none is left out.
    for _ in 0..1000 {
        ssh.send(Message::new(msg::GLOBAL_REQUEST).string("nobody@example.com").byte(1));
    }
    for _ in 0..1000 {
        ssh.expect(msg::REQUEST_FAILURE);
    }
    assert!(subsystem(&mut ssh, channel, "sftp"));
    // What has its subsystem takes no other, and no command.
    assert!(!subsystem(&mut ssh, channel, "sftp"));
    assert!(!ssh.channel_request(channel, "exec", &empty().string("id").0));
    assert!(!ssh.channel_request(channel, "shell", b""));
    let mut sftp = Sftp::on(ssh, channel);
    sftp.init();
    assert!(sftp.list("/").contains(&"Index".to_owned()));
    scene.unharmed();
}

#[test]
fn requests_with_lengths_that_lie() {
    let scene = Scene::new();
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let whole = |kind: u8| match kind {
        0 => Message::new(msg::CHANNEL_OPEN).string("session").u32(3).u32(1 << 20).u32(1 << 15),
        1 => Message::new(msg::CHANNEL_REQUEST).u32(0).string("subsystem").byte(1).string("sftp"),
        2 => Message::new(msg::CHANNEL_REQUEST).u32(0).string("exec").byte(1).string("id"),
        3 => Message::new(msg::CHANNEL_DATA).u32(0).string("12345678"),
        4 => Message::new(msg::CHANNEL_EXTENDED_DATA).u32(0).u32(1).string("12345678"),
        5 => Message::new(msg::GLOBAL_REQUEST).string("tcpip-forward").byte(1).string("0.0.0.0").u32(0),
        _ => Message::new(msg::CHANNEL_REQUEST).u32(0).string("pty-req").byte(1).string("xterm").raw([0; 20]),
    };
    for kind in 0..7 {
        let message = whole(kind).0;
        let lies = (1..message.len().saturating_sub(4)).step_by(4).map(|at| {
            let mut lying = message.clone();
            lying[at..at + 4].fill(0xff);
            lying
        });
        let cuts = (1..message.len()).step_by(3).map(|cut| message[..cut].to_vec());
        for wrong in lies.chain(cuts) {
            let mut ssh = scene.ssh();
            ssh.session();
            drop(ssh.try_send(&wrong));
            lives_or_closes(ssh);
        }
    }
    memory.grew_at_most(A_CONNECTION);
    bystander.leave();
    scene.unharmed();
}

#[test]
fn forwarding_is_refused_to_ssh_itself() {
    let scene = Scene::new();
    let login = scene.fixture.login("acme");
    let target = format!("127.0.0.1:{}", scene.port);
    for options in
        [&["-W", target.as_str()][..], &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"]]
    {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-p"]).arg(scene.port.to_string());
        command.args(ssh_options(&login.home, "acme")).args(options).arg("127.0.0.1");
        askpass(&mut command, &login.home, &login.password);
        run(&mut command, b"", Duration::from_secs(60)).code(255);
    }
    scene.unharmed();
}

//! Clients behind a load balancer that speaks the PROXY protocol.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use recgate_e2e::{Fixture, Gateway, Login};
use rustix::process::Signal;

/// Forwards every connection to a port of 127.0.0.1, each with this header before the client's bytes.
fn forwarder(port: u16, header: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            // In one packet with the client's first bytes, if they come soon: that is how a load balancer does it.
            let header = header.clone();
            let mut from_client = client.try_clone().unwrap();
            let mut to_server = server.try_clone().unwrap();
            thread::spawn(move || {
                let mut first = header;
                let mut buffer = [0; 4096];
                let read = from_client.read(&mut buffer).unwrap_or(0);
                first.extend(&buffer[..read]);
                // Whoever is cut off shows it to the other side.
                if to_server.write_all(&first).is_ok() {
                    drop(io::copy(&mut from_client, &mut to_server));
                }
                drop(to_server.shutdown(Shutdown::Write));
            });
            thread::spawn(move || {
                let mut to_client = client;
                drop(io::copy(&mut server, &mut to_client));
                drop(to_client.shutdown(Shutdown::Both));
            });
        }
    });
    own
}

/// A header of version 2 from 203.0.113.9:4242, with a value of another kind after the addresses.
fn version_2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
    header.extend([203, 0, 113, 9, 127, 0, 0, 1, 0x10, 0x92, 0x07, 0xe6, 4, 0, 4, 0, 0, 0, 0]);
    header
}

fn through(fixture: &Fixture, port: u16) -> Login {
    Login { port, ..fixture.login("acme") }
}

/// The peers of the sessions that were opened.
fn peers(gateway: &Gateway) -> Vec<String> {
    let peer = |line: &str| line.split("peer=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    gateway.log().lines().filter(|line| line.contains("session opened")).map(peer).collect()
}

#[test]
fn the_log_has_the_address_from_the_header() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let behind = fixture.config().replacen(
        "[ssh]\n",
        "[ssh]\nproxy_protocol_from = [\"192.0.2.0/24\", \"127.0.0.1\"]\n",
        1,
    );
    fixture.write_config(&behind);
    let gateway = fixture.gateway.as_ref().unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_log(&["the new configuration is taken"]);
    let before = peers(gateway).len();

    let port = gateway.ready.port;
    let call = &calls["acme"][2];
    let copy = fixture.path().join("copy.wav");
    let get = format!("get /{} {}\n", call.path(), copy.display());
    for header in [
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 2022\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::1 4712 2022\r\n".to_vec(),
        version_2(),
    ] {
        through(&fixture, forwarder(port, header)).sftp(&get).success();
        assert!(fs::read(&copy).unwrap() == call.bytes, "other bytes");
    }
    assert_eq!(peers(gateway)[before..], ["203.0.113.7:4711", "[2001:db8::7]:4712", "203.0.113.9:4242"]);

    // A health check that speaks for itself, and clients of which the load balancer tells nothing.
    for header in [b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\0".to_vec(), b"PROXY UNKNOWN\r\n".to_vec()] {
        through(&fixture, forwarder(port, header)).sftp("ls\n").success();
        assert!(peers(gateway).last().unwrap().starts_with("127.0.0.1:"), "{:?}", peers(gateway));
    }
}

#[test]
fn a_load_balancer_has_to_send_a_header() {
    let mut fixture = Fixture::new();
    let text = fixture.config();
    fixture.write_config(&text.replacen("[ssh]\n", "[ssh]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n", 1));
    fixture.start();
    let gateway = fixture.gateway.as_ref().unwrap();
    let port = gateway.ready.port;
    let login = |header: &[u8]| through(&fixture, forwarder(port, header.to_vec()));

    // As a health check does it: nothing of it is in the log but for debugging.
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    gateway.wait_for_log(&["DEBUG", "a load balancer connected and closed"]);
    let noise: Vec<String> =
        gateway.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert!(noise.is_empty(), "{noise:?}");

    let direct = fixture.login("acme").sftp("ls\n");
    assert!(!direct.status.success(), "{direct}");
    gateway.wait_for_log(&["WARN", "closed", "SSH-2.0-Open", "which is no PROXY header"]);
    assert!(!login(b"PROXY TCP4 nobody 127.0.0.1 1 2\r\n").sftp("ls\n").status.success());
    // Only the first is a warning within a minute.
    gateway.wait_for_log(&["DEBUG", "an address isn't of its family"]);
    // A length that no header has, and then nothing.
    let mut endless = TcpStream::connect(("127.0.0.1", port)).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    endless.write_all(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff").unwrap();
    assert!(endless.read(&mut [0; 100]).is_ok_and(|read| read == 0), "it is closed");
    gateway.wait_for_log(&["DEBUG", "longer than 4096 bytes"]);
    login(b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n").sftp("ls\n").success();
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use proptest::prelude::*;
use tokio::{
    io::{AsyncWriteExt, ReadBuf},
    net::TcpListener,
};

use super::*;

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n";
const V1_LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 2022\r\n";

/// What a peer sends, in the pieces that a read sees; then it closes.
struct Peer(VecDeque<Vec<u8>>);

impl Peer {
    fn of(pieces: &[&[u8]]) -> Self {
        Self(pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect())
    }

    fn rest(&self) -> Vec<u8> {
        self.0.iter().flatten().copied().collect()
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.front_mut() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(piece);
            *piece = rest;
            if piece.is_empty() {
                self.0.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads to the end of the header; what was left for the door. None of it ever waits.
fn read(pieces: &[&[u8]]) -> (Result<Option<SocketAddr>, ProxyError>, Vec<u8>) {
    let mut peer = Peer::of(pieces);
    let result = futures_util::FutureExt::now_or_never(header(&mut peer)).unwrap();
    (result, peer.rest())
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&V2[..], &[0x20 | command, family], &len, body].concat()
}

fn v2_ipv4() -> Vec<u8> {
    v2(1, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 0x07, 0xe6])
}

fn v2_ipv6() -> Vec<u8> {
    let source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    let destination = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
    v2(1, 0x21, &[&source[..], &destination, &[0x12, 0x67, 0x07, 0xe6]].concat())
}

/// Headers that are right, and whom they tell of.
fn right() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
    let (four, six) = ("203.0.113.7:4711".parse().ok(), "[2001:db8::7]:4711".parse().ok());
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let unknown = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(unknown.len(), V1_LONGEST);
    let with_tlvs = v2(1, 0x11, &[&v2_ipv4()[V2_FIXED..], &[3, 0, 4, 1, 2, 3, 4, 4, 0, 1, 0]].concat());
    vec![
        (V1_LINE.to_vec(), four),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 2022\r\n".to_vec(), six),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 0\r\n".to_vec(), four),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), "0.0.0.0:0".parse().ok()),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (unknown.into_bytes(), None),
        (b"PROXY UNKNOWN what ever is here is of no interest\r\n".to_vec(), None),
        (v2_ipv4(), four),
        (v2_ipv6(), six),
        (with_tlvs, four),
        (v2(1, 0x11, &[&v2_ipv4()[V2_FIXED..], &vec![0; V2_LONGEST - 28]].concat()), four),
        (v2(1, 0x00, &[]), None),
        (v2(1, 0x00, &[7; 300]), None),
        (v2(1, 0x31, &[0; 216]), None),
        (v2(0, 0x00, &[]), None),
        // Whatever the family of LOCAL, and however little comes with it.
        (v2(0, 0x11, &[]), None),
        (v2(0, 0x11, &[0; 12]), None),
        (v2(0, 0x99, &[0; 3]), None),
    ]
}

#[test]
fn right_headers_are_read_to_their_end_in_whatever_pieces() {
    for (header, client) in right() {
        let all = [&header[..], BANNER].concat();
        let (read_at_once, rest) = read(&[&all]);
        assert_eq!((read_at_once.unwrap(), &rest[..]), (client, BANNER), "{header:?}");
        for cut in 1..all.len() {
            let (read_in_two, rest) = read(&[&all[..cut], &all[cut..]]);
            assert_eq!((read_in_two.unwrap(), &rest[..]), (client, BANNER), "{header:?} at {cut}");
        }
        let bytes: Vec<_> = all.chunks(1).collect();
        assert_eq!(read(&bytes).0.unwrap(), client, "{header:?} byte by byte");
    }
}

#[test]
fn every_truncation_is_told() {
    for (header, _) in right() {
        for len in 1..header.len() {
            let (result, rest) = read(&[&header[..len]]);
            assert!(matches!(result, Err(ProxyError::Truncated)), "{header:?} at {len}: {result:?}");
            assert!(rest.is_empty());
        }
    }
    let (result, _) = read(&[]);
    let error = result.unwrap_err();
    assert!(error.is_health_check(), "{error}");
}

#[test]
fn wrong_headers_are_told() {
    let line = |text: &str| text.as_bytes().to_vec();
    for (bytes, told) in [
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711 2022 5\r\n"), "goes on after the ports"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n"), "a port is no number"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711 \r\n"), "a port is no number"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 65536 2022\r\n"), "a port is no number"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 +80 2022\r\n"), "a port is no number"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 080 2022\r\n"), "a port is no number"),
        (line("PROXY TCP4  203.0.113.7 192.0.2.1 80 2022\r\n"), "an address isn't of its family"),
        (line("PROXY TCP4 2001:db8::7 192.0.2.1 80 2022\r\n"), "an address isn't of its family"),
        (line("PROXY TCP6 203.0.113.7 192.0.2.1 80 2022\r\n"), "an address isn't of its family"),
        (line("PROXY TCP4 lb.example 192.0.2.1 80 2022\r\n"), "an address isn't of its family"),
        (line("PROXY UDP4 203.0.113.7 192.0.2.1 80 2022\r\n"), "its protocol is none of"),
        (line("PROXY UNKNOWNS\r\n"), "its protocol is none of"),
        (line("PROXY unknown\r\n"), "its protocol is none of"),
        (line("PROXY \r\n\r\n\r\n\r\n"), "doesn't end in CR LF"),
        (line("PROXY TCP4 203.0.113.7 192.0.2.1 4711 2022\n\n"), "doesn't end in CR LF"),
        (line("PROXY UNKNOWN \u{fc}\r\n"), ""),
        (b"PROXY TCP4 \xff\xfe\r\n".to_vec(), "isn't ASCII"),
        (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_LONGEST - 15))), "longer than 107 bytes"),
        (line(&format!("PROXY {}", "x".repeat(1 << 16))), "longer than 107 bytes"),
        (line(&format!("PROXY {}", "\r".repeat(1 << 16))), "longer than 107 bytes"),
        (line("PROXYTCP4 203.0.113.7 192.0.2.1 4711 2022\r\n"), "begins with \"PROXYTCP4 20\""),
        (BANNER.to_vec(), "begins with \"SSH-2.0-Open\", which is no PROXY header; let the load balancer"),
        (b"\x16\x03\x01".to_vec(), "begins with \"\\u{16}\\u{3}\\u{1}\""),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "begins with"),
        ([&V2[..], &[0x21, 0x11, 0xff, 0xff], &[0; 1 << 16]].concat(), "longer than 4096 bytes"),
        ([&V2[..], &[0x20, 0x00, 0xff, 0xff]].concat(), "longer than 4096 bytes"),
        (v2(1, 0x00, &vec![0; V2_LONGEST - V2_FIXED + 1]), "longer than 4096 bytes"),
        (v2(1, 0x11, &[0; 11]), "too short for its addresses"),
        (v2(1, 0x21, &[0; 35]), "too short for its addresses"),
        (v2(1, 0x12, &[0; 12]), "no datagram"),
        (v2(1, 0x41, &[0; 12]), "family or transport"),
        (v2(1, 0x13, &[0; 12]), "family or transport"),
        (v2(2, 0x11, &[0; 12]), "command"),
        ([&V2[..], &[0x11, 0x11, 0, 12], &[0; 12]].concat(), "version"),
    ] {
        let (result, rest) = read(&[&bytes, BANNER]);
        match result {
            Ok(client) => assert_eq!((client, told), (None, ""), "{bytes:?}"),
            Err(error) => assert!(!told.is_empty() && error.to_string().contains(told), "{error}: {bytes:?}"),
        }
        assert!(bytes.len() + BANNER.len() - rest.len() <= V2_LONGEST, "too much was read");
    }
}

/// A connection: the client's end, the server's, and where the server sees the client.
async fn connected(listen: &str) -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    (client, server, peer)
}

fn loopback() -> Vec<IpNet> {
    vec!["192.0.2.0/24".parse().unwrap(), "127.0.0.0/8".parse().unwrap()]
}

#[tokio::test]
async fn only_trusted_networks_are_asked() {
    let (mut client, mut server, peer) = connected("127.0.0.1:0").await;
    client.write_all(&[V1_LINE, BANNER].concat()).await.unwrap();
    // Not a byte is taken from others, whatever they send.
    for trusted in [&[][..], &["10.0.0.0/8".parse().unwrap(), "::/64".parse().unwrap()]] {
        assert_eq!(Headers::default().real_peer(&mut server, peer, trusted).await.unwrap(), peer);
    }
    let real = Headers::default().real_peer(&mut server, peer, &loopback()).await.unwrap();
    assert_eq!(real, "203.0.113.7:4711".parse().unwrap());
    let mut rest = vec![0; BANNER.len()];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, BANNER);

    // LOCAL and UNKNOWN: the load balancer itself.
    let (mut client, mut server, peer) = connected("127.0.0.1:0").await;
    client.write_all(&v2(0, 0, &[])).await.unwrap();
    assert_eq!(Headers::default().real_peer(&mut server, peer, &loopback()).await.unwrap(), peer);

    // As a socket for both versions of IP sees an IPv4 load balancer.
    let mapped = "[::ffff:127.0.0.1]:1".parse().unwrap();
    let (mut client, mut server, _) = connected("127.0.0.1:0").await;
    client.write_all(V1_LINE).await.unwrap();
    let real = Headers::default().real_peer(&mut server, mapped, &loopback()).await.unwrap();
    assert_eq!(real, "203.0.113.7:4711".parse().unwrap());
}

#[tokio::test]
async fn a_connection_that_closes_at_once_is_no_news() {
    for reset in [false, true] {
        let (client, mut server, peer) = connected("127.0.0.1:0").await;
        if reset {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        let error = Headers::default().real_peer(&mut server, peer, &loopback()).await.unwrap_err();
        assert!(error.is_health_check(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_has_to_come_in_time() {
    for begun in [0, 1, 12, V1_LINE.len() - 1] {
        let (mut client, mut server, peer) = connected("127.0.0.1:0").await;
        client.write_all(&V1_LINE[..begun]).await.unwrap();
        // Nothing else can happen, so that virtual time goes on to the deadline.
        let error = Headers::default().real_peer(&mut server, peer, &loopback()).await.unwrap_err();
        assert_eq!(error.to_string(), "no PROXY header came within 5 seconds");
    }
}

#[tokio::test]
async fn where_many_wait_the_oldest_makes_room() {
    let headers = std::sync::Arc::new(Headers::default());
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..MOST_WAITING + 3 {
        let (client, mut server, peer) = connected("127.0.0.1:0").await;
        let headers = std::sync::Arc::clone(&headers);
        let waits = async move { headers.real_peer(&mut server, peer, &loopback()).await };
        let mut waits = Box::pin(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        waiting.push_back((client, waits));
    }
    for _ in 0..3 {
        let (_client, waits) = waiting.pop_front().unwrap();
        assert_eq!(waits.await.unwrap_err().to_string(), "newer connections came before its PROXY header");
    }
    // A header that has come counts, however many wait.
    let (mut client, waits) = waiting.pop_back().unwrap();
    client.write_all(V1_LINE).await.unwrap();
    assert_eq!(waits.await.unwrap(), "203.0.113.7:4711".parse().unwrap());
    drop(waiting);
    assert!(headers.waiting().connections.is_empty());
}

/// A right header with some bytes replaced, or something that only begins like one.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let headers: Vec<_> = right().into_iter().map(|(header, _)| header).collect();
    let changed = (prop::sample::select(headers), any::<prop::sample::Index>(), any::<Vec<u8>>()).prop_map(
        |(mut header, at, put)| {
            let (at, len) = (at.index(header.len()), header.len());
            header.splice(at..len.min(at + put.len().min(3)), put.iter().take(3).copied());
            header
        },
    );
    let begun = (prop::sample::select(vec![V1, &V2[..], &[]]), any::<Vec<u8>>())
        .prop_map(|(begin, rest)| [begin, &rest].concat());
    prop_oneof![changed, begun]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever comes in whatever pieces: an answer, the same for all pieces, and no byte beyond a right header is read.
    #[test]
    fn any_bytes_get_an_answer(bytes in nearly(), pieces in prop::collection::vec(1..40_usize, 0..8)) {
        let all = [&bytes[..], BANNER].concat();
        let (at_once, rest) = read(&[&all]);
        let mut left = &all[..];
        let mut cut = Vec::new();
        for piece in pieces {
            let (piece, more) = left.split_at(piece.min(left.len()));
            cut.push(piece);
            left = more;
        }
        cut.push(left);
        let (in_pieces, same_rest) = read(&cut);
        prop_assert_eq!(at_once.as_ref().ok(), in_pieces.as_ref().ok());
        let taken = all.len() - rest.len();
        prop_assert!(taken <= V2_LONGEST);
        if let Ok(client) = at_once {
            prop_assert_eq!(&rest, &same_rest);
            // The header was complete with just these bytes, not earlier.
            prop_assert_eq!(read(&[&all[..taken]]).0.unwrap(), client);
            prop_assert!(read(&[&all[..taken - 1]]).0.is_err());
            // Another parser sees the same client.
            if let Some(client) = client {
                prop_assert_eq!(client_by_ppp(&all[..taken]), Some(client));
            }
        }
    }

    /// What another implementation writes is read.
    #[test]
    fn headers_of_others_are_read(source: SocketAddr, destination: SocketAddr, tlv in prop::collection::vec(0..=255_u8, 0..300)) {
        let expected = SocketAddr::new(source.ip().to_canonical(), source.port());
        let same_family = source.is_ipv4() == destination.is_ipv4();
        let expected = same_family.then_some(expected);
        let line = ppp::v1::Addresses::from((source, destination)).to_string();
        prop_assert_eq!(read(&[line.as_bytes()]).0.unwrap(), expected);
        let version_and_command = ppp::v2::Version::Two | ppp::v2::Command::Proxy;
        let header = match same_family {
            true => ppp::v2::Builder::with_addresses(version_and_command, ppp::v2::Protocol::Stream, (source, destination)),
            false => ppp::v2::Builder::new(version_and_command, 0),
        };
        let header = header.write_tlv(ppp::v2::Type::UniqueId, &tlv).unwrap().build().unwrap();
        prop_assert_eq!(read(&[&header]).0.unwrap(), expected);
    }
}

/// What the crate ppp makes of a header.
fn client_by_ppp(header: &[u8]) -> Option<SocketAddr> {
    let (address, port): (IpAddr, u16) = match ppp::HeaderResult::parse(header) {
        ppp::HeaderResult::V1(header) => match header.ok()?.addresses {
            ppp::v1::Addresses::Tcp4(told) => (told.source_address.into(), told.source_port),
            ppp::v1::Addresses::Tcp6(told) => (told.source_address.into(), told.source_port),
            ppp::v1::Addresses::Unknown => return None,
        },
        ppp::HeaderResult::V2(header) => match header.ok()?.addresses {
            ppp::v2::Addresses::IPv4(told) => (told.source_address.into(), told.source_port),
            ppp::v2::Addresses::IPv6(told) => (told.source_address.into(), told.source_port),
            _ => return None,
        },
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

//! What must hold of a header, whatever bytes come.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, ReadBuf};

use super::{ProxyError, V1_LONGEST, V2_LONGEST, header};

/// A load balancer that sends these bytes, at most so many at once, and closes.
struct Peer<'a> {
    bytes: &'a [u8],
    at_once: usize,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.bytes.len().min(self.at_once).min(buffer.remaining());
        let (piece, rest) = self.bytes.split_at_checked(len).unwrap_or_default();
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// Takes these bytes from a load balancer, in pieces of several sizes.
#[expect(clippy::panic, reason = "a finding")]
pub(crate) fn bytes(input: &[u8]) {
    let (whole, taken) = read(input, usize::MAX);
    for at_once in [1, 3, 12, 17] {
        let (pieces, taken_of_pieces) = read(input, at_once);
        match (&whole, &pieces) {
            (Ok(whole), Ok(pieces)) => {
                assert_eq!((whole, taken), (pieces, taken_of_pieces), "pieces of {at_once}");
            }
            // Of what is no header, as much is told as came.
            (Err(whole), Err(pieces)) => {
                let (whole, pieces) = (std::mem::discriminant(whole), std::mem::discriminant(pieces));
                assert_eq!(whole, pieces, "pieces of {at_once}");
            }
            other => panic!("{other:?} in pieces of {at_once}"),
        }
    }
    assert!(taken <= V2_LONGEST, "{taken} bytes were taken");
    let Ok(client) = whole else { return };
    let begin = input.get(..taken).unwrap_or_default();
    assert!(!begin.starts_with(b"PROXY ") || taken <= V1_LONGEST && begin.ends_with(b"\r\n"), "{begin:?}");
    // What follows is the door's: it changes nothing, and all of the header is needed.
    assert_eq!(read(begin, usize::MAX).0.ok(), Some(client));
    for len in [0, 1, taken / 2, taken.saturating_sub(1)] {
        let error = read(begin.get(..len).unwrap_or_default(), usize::MAX).0.err();
        assert!(matches!(error, Some(ProxyError::Closed | ProxyError::Truncated)), "{error:?} after {len}");
    }
    if let Some(client) = client {
        assert_eq!(client.ip(), client.ip().to_canonical(), "networks are of IPv4 or IPv6");
    }
}

/// What is told, and how many bytes were taken for it.
#[expect(clippy::expect_used, reason = "this peer never waits")]
fn read(bytes: &[u8], at_once: usize) -> (Result<Option<SocketAddr>, ProxyError>, usize) {
    let mut peer = Peer { bytes, at_once };
    let told = header(&mut peer).now_or_never().expect("the header waits for a peer that has closed");
    (told, bytes.len() - peer.bytes.len())
}

//! The exchange of identifications (RFC 4253, 4.2), before russh takes over.
//!
//! The gateway greets and listens itself, so that a client's identification can decide what it is offered, and a
//! connection that never says anything costs some hundred bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the gateway calls itself.
pub(super) const IDENTIFICATION: &str = "SSH-2.0-recgate";
/// The longest identification with its end of line (RFC 4253, 4.2).
const LONGEST: usize = 255;
/// Bytes that are taken from the socket at once: the line, and often the client's first packet.
const BUFFER: usize = 2048;

/// What a client said first.
#[derive(Debug)]
pub(super) struct Greeting {
    /// Its identification, without the end of the line; what isn't ASCII is replaced.
    pub(super) identification: String,
    /// All that has been read: the line, and what came after it.
    pub(super) read: BytesMut,
}

/// Why a connection ended before it was one of SSH.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGreeting {
    #[error("closed before it said what it is")]
    Closed,
    #[error("no SSH 2.0: it began with {0:?}")]
    NotSsh(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sends the gateway's identification and reads the client's. Bounded in bytes, not in time.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) -> Result<Greeting, NoGreeting> {
    socket.write_all(format!("{IDENTIFICATION}\r\n").as_bytes()).await?;
    let mut read = BytesMut::new();
    loop {
        if let Some(identification) = identification(&read)? {
            return Ok(Greeting { identification, read });
        }
        read.reserve(BUFFER - read.len());
        if socket.read_buf(&mut read).await? == 0 {
            return Err(NoGreeting::Closed);
        }
    }
}

/// A client's identification, without what isn't ASCII; `None` while its line isn't complete.
fn identification(read: &[u8]) -> Result<Option<String>, NoGreeting> {
    if let Some(end) = read.iter().position(|byte| *byte == b'\n').filter(|end| *end < LONGEST) {
        let line = read.get(..end).unwrap_or_default();
        let identification: String = String::from_utf8_lossy(line.trim_ascii_end())
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        if !identification.starts_with("SSH-2.0-") && !identification.starts_with("SSH-1.99-") {
            return Err(NoGreeting::NotSsh(identification.chars().take(40).collect()));
        }
        return Ok(Some(identification));
    }
    if read.len() >= LONGEST {
        return Err(NoGreeting::NotSsh(String::from_utf8_lossy(read).chars().take(40).collect()));
    }
    Ok(None)
}

/// Takes these bytes for the first of a client, however they come in pieces.
#[cfg(fuzzing)]
#[expect(clippy::panic, reason = "a finding")]
pub(crate) fn fuzz(input: &[u8]) {
    use super::algorithms::Offer;

    let whole = identification(input);
    let first = (0..input.len()).find_map(|len| match identification(input.get(..len)?) {
        Ok(None) => None,
        decided => Some((len, decided)),
    });
    match (&whole, &first) {
        (Ok(None), None) => assert!(input.len() < LONGEST, "it waits for more than there may be"),
        (Ok(Some(_)) | Err(_), None) => {}
        (Ok(Some(whole)), Some((_, Ok(Some(first))))) => assert_eq!(whole, first),
        (Err(_), Some((len, Err(_)))) => assert!(*len <= LONGEST, "it was read for too long"),
        other => panic!("it depends on the pieces: {other:?}"),
    }
    let Ok(Some(identification)) = whole else { return };
    assert!(identification.len() <= LONGEST, "{identification:?}");
    assert!(identification.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{identification:?}");
    // It is decided by it what a client is offered.
    assert_eq!(Offer::to(&identification, true, false), Offer::Legacy);
    assert_eq!(Offer::to(&identification, false, true), Offer::Sound);
    if Offer::to(&identification, false, false) == Offer::PostQuantum {
        assert!(identification.starts_with("SSH-2.0-OpenSSH_"), "{identification:?}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn greeted(pieces: &[&[u8]]) -> Result<Greeting, NoGreeting> {
        let (mut client, mut server) = tokio::io::duplex(10_000);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        client.shutdown().await.unwrap();
        greet(&mut server).await
    }

    #[tokio::test]
    async fn what_follows_the_line_is_kept() {
        let greeting = greeted(&[b"SSH-2.0-Open", b"SSH_9.2 x\r\nkexinit"]).await.unwrap();
        assert_eq!(greeting.identification, "SSH-2.0-OpenSSH_9.2 x");
        assert_eq!(&greeting.read[..], b"SSH-2.0-OpenSSH_9.2 x\r\nkexinit");
        assert_eq!(greeted(&[b"SSH-2.0-\x1b[2J\n"]).await.unwrap().identification, "SSH-2.0-?[2J");
    }

    #[tokio::test]
    async fn what_is_not_ssh_is_told_early() {
        assert!(matches!(greeted(&[]).await, Err(NoGreeting::Closed)));
        assert!(matches!(greeted(&[b"SSH-2.0-x"]).await, Err(NoGreeting::Closed)));
        let error = greeted(&[b"GET / HTTP/1.1\r\nHost: x\r\n"]).await.unwrap_err();
        assert_eq!(error.to_string(), "no SSH 2.0: it began with \"GET / HTTP/1.1\"");
        assert!(matches!(greeted(&[b"SSH-1.5-old\r\n"]).await, Err(NoGreeting::NotSsh(_))));
        for len in [254, 255, 5000] {
            let line = [&b"SSH-2.0-"[..], &vec![b'x'; len - 8], b"\n"].concat();
            assert_eq!(greeted(&[&line]).await.is_ok(), len == 254, "{len}");
        }
        assert!(matches!(greeted(&[&[b'x'; 9000]]).await, Err(NoGreeting::NotSsh(_))));
    }
}

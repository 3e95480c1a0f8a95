//! The PROXY protocol, versions 1 and 2: a load balancer tells where its client really is.
//!
//! A header comes from a configured network and nowhere else: whoever sends one chooses the address that throttling,
//! allowed networks and the log go by. From such a network it must come; a connection without one would pass for the
//! load balancer's own.
//!
//! It is read to its last byte and no further, since what follows is the door's (a client's greeting often comes in the
//! same packet). So nothing is read that the header can't still contain: of version 2 what its length says, of version 1
//! two bytes at a time, because its end has two. That is some forty reads of a connection, from the kernel's buffer.
//!
//! The parser is our own. The crate ppp refuses LOCAL headers of a family that it doesn't know or that lack addresses,
//! which have to be taken (2.2: the family is ignored), takes addresses of datagrams and at most four words after
//! UNKNOWN (2.1: whatever is there is ignored), and calls a line broken that only ends too early for a read. What would
//! be left for it to do is smaller than the work-arounds. The tests hold this parser against it.
//!
//! Specification: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::identity::admission::SLACK;

/// From the connection until its header has come. A load balancer sends it first and at once.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections that wait for their header at once. Fewer than may be on their way in: others have to pass.
const MOST_WAITING: usize = SLACK / 2;
/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included (2.1).
const V1_LONGEST: usize = 107;
/// What version 2 begins with.
const V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses.
const V2_FIXED: usize = 16;
/// The longest header of version 2 that is taken. Certificates and the like make some hundred bytes of it.
const V2_LONGEST: usize = 4096;

/// Why a connection that has to begin with a header is closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It was closed without a byte.
    #[error("it was closed without a byte")]
    Closed,
    /// It begins with something else.
    #[error(
        "it begins with {0:?}, which is no PROXY header; let the load balancer send one, or take its network out of \
         proxy_protocol_from"
    )]
    NoHeader(String),
    /// It was closed within the header.
    #[error("it was closed within the PROXY header")]
    Truncated,
    /// The header is longer than any that is taken.
    #[error("the PROXY header is longer than {0} bytes")]
    TooLong(usize),
    /// The header isn't what the protocol prescribes.
    #[error("the PROXY header is wrong: {0}")]
    Malformed(&'static str),
    /// The header didn't come in time.
    #[error("no PROXY header came within {} seconds", DEADLINE.as_secs())]
    Late,
    /// So many wait for their headers that the one that has waited longest goes.
    #[error("newer connections came before its PROXY header")]
    PushedOut,
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProxyError {
    /// Load balancers look whether a server lives by connecting and closing: that is no news.
    pub fn is_health_check(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

/// The connections of a door whose headers haven't come yet.
///
/// A load balancer's comes at once. So where many wait, they are somebody else's, and the oldest makes room.
#[derive(Debug, Default)]
pub struct Headers(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order of their arrival.
    connections: BTreeMap<u64, CancellationToken>,
}

impl Headers {
    /// Where the client is: what the header says, if `peer` is in a network that is trusted to send one, otherwise
    /// `peer`. Waits at most five seconds. Of the socket just the header is read, and nothing where none is due.
    ///
    /// # Errors
    /// [`ProxyError`]; the connection is to be closed.
    pub async fn real_peer(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
        trusted: &[IpNet],
    ) -> Result<SocketAddr, ProxyError> {
        // A socket for both versions of IP tells IPv4 addresses mapped.
        let sender = peer.ip().to_canonical();
        if !trusted.iter().any(|network| network.contains(&sender)) {
            return Ok(peer);
        }
        let (number, pushed_out) = self.enter();
        let _place = Place { headers: self, number };
        tokio::select! {
            // One whose header is there is taken, whoever came after it.
            biased;
            header = tokio::time::timeout(DEADLINE, header(socket)) => match header {
                Ok(client) => Ok(client?.unwrap_or(peer)),
                Err(_) => Err(ProxyError::Late),
            },
            () = pushed_out.cancelled() => Err(ProxyError::PushedOut),
        }
    }

    fn enter(&self) -> (u64, CancellationToken) {
        let mut waiting = self.waiting();
        let (number, pushed_out) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.connections.insert(number, pushed_out.clone());
        if waiting.connections.len() > MOST_WAITING
            && let Some((_, oldest)) = waiting.connections.pop_first()
        {
            oldest.cancel();
        }
        (number, pushed_out)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Place<'a> {
    headers: &'a Headers,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.headers.waiting().connections.remove(&self.number);
    }
}

/// Reads a header: the client's address, or `None` where it tells of none.
async fn header<R: AsyncRead + Unpin>(socket: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
    // Every header is longer.
    let mut begin = [0; V2.len()];
    let mut len = 0;
    while len < begin.len() {
        let place = begin.get_mut(len..).unwrap_or_default();
        len += match socket.read(place).await {
            Ok(0) | Err(_) if len == 0 => return Err(ProxyError::Closed),
            Ok(0) => return Err(ProxyError::Truncated),
            Ok(read) => read,
            Err(error) => return Err(error.into()),
        };
        let read = begin.get(..len).unwrap_or_default();
        if !read.iter().zip(V1).all(|(a, b)| a == b) && !V2.starts_with(read) {
            return Err(ProxyError::NoHeader(String::from_utf8_lossy(read).into_owned()));
        }
    }
    if begin == V2 { v2(socket).await } else { v1(socket, &begin).await }
}

/// Reads the rest of a line.
async fn v1<R: AsyncRead + Unpin>(socket: &mut R, begin: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let mut line = Vec::with_capacity(V1_LONGEST + 1);
    line.extend_from_slice(begin);
    loop {
        if line.len() > V1_LONGEST {
            return Err(ProxyError::TooLong(V1_LONGEST));
        }
        match (line.iter().position(|byte| *byte == b'\n'), line.strip_suffix(b"\r\n")) {
            (Some(end), Some(text)) if end == text.len() + 1 => return v1_line(text),
            (Some(_), _) => return Err(ProxyError::Malformed("its line doesn't end in CR LF")),
            (None, _) => {}
        }
        let mut next = [0; 2];
        let least = if line.ends_with(b"\r") { 1 } else { next.len() };
        let next = next.get_mut(..least).unwrap_or_default();
        exactly(socket, next).await?;
        line.extend_from_slice(next);
    }
}

fn v1_line(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("its line isn't ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever follows is ignored (2.1).
        return Ok(None);
    }
    let mut next = || words.next().unwrap_or_default();
    let (source, destination) = (next(), next());
    let (port, destination_port) = (v1_port(next()), v1_port(next()));
    let addresses = match family {
        "TCP4" => v1_address::<Ipv4Addr>(source).zip(v1_address::<Ipv4Addr>(destination)),
        "TCP6" => v1_address::<Ipv6Addr>(source).zip(v1_address::<Ipv6Addr>(destination)),
        _ => return Err(ProxyError::Malformed("its protocol is none of TCP4, TCP6, UNKNOWN")),
    };
    let Some((client, _)) = addresses else {
        return Err(ProxyError::Malformed("an address isn't of its family"));
    };
    match (port, destination_port, words.next()) {
        (Some(port), Some(_), None) => Ok(Some(SocketAddr::new(client, port))),
        (_, _, Some(_)) => Err(ProxyError::Malformed("its line goes on after the ports")),
        _ => Err(ProxyError::Malformed("a port is no number from 0 to 65535")),
    }
}

fn v1_address<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    Some(text.parse::<A>().ok()?.into().to_canonical())
}

fn v1_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

/// Reads what follows the signature.
async fn v2<R: AsyncRead + Unpin>(socket: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
    let mut fixed = [0; V2_FIXED - V2.len()];
    exactly(socket, &mut fixed).await?;
    let [version_and_command, family, len @ ..] = fixed;
    let len = usize::from(u16::from_be_bytes(len));
    if len > V2_LONGEST - V2_FIXED {
        return Err(ProxyError::TooLong(V2_LONGEST));
    }
    let told = match (version_and_command, family) {
        // LOCAL: the load balancer speaks for itself; whatever else the header says is ignored.
        (0x20, _) => Told::Nothing,
        (0x21, 0x11) => Told::V4,
        (0x21, 0x21) => Told::V6,
        // Of no family that is known, or over a Unix socket.
        (0x21, 0x00 | 0x31) => Told::Nothing,
        (0x21, 0x12 | 0x22 | 0x32) => return Err(ProxyError::Malformed("this connection is no datagram")),
        (0x21, _) => return Err(ProxyError::Malformed("its family or transport isn't known")),
        _ => return Err(ProxyError::Malformed("its version isn't 2, or its command isn't known")),
    };
    if len < told.len() {
        return Err(ProxyError::Malformed("it is too short for its addresses"));
    }
    let client = told.read(socket).await?;
    skip(socket, len - told.len()).await?;
    Ok(client)
}

/// What a header of version 2 tells: source, destination, their ports.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    V4,
    V6,
}

impl Told {
    fn len(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::V4 => 2 * (4 + 2),
            Self::V6 => 2 * (16 + 2),
        }
    }

    async fn read<R: AsyncRead + Unpin>(self, socket: &mut R) -> Result<Option<SocketAddr>, ProxyError> {
        Ok(match self {
            Self::Nothing => None,
            Self::V4 => Some(Self::addresses::<4, _>(socket).await?),
            Self::V6 => Some(Self::addresses::<16, _>(socket).await?),
        })
    }

    async fn addresses<const N: usize, R: AsyncRead + Unpin>(socket: &mut R) -> Result<SocketAddr, ProxyError>
    where
        IpAddr: From<[u8; N]>,
    {
        let (mut source, mut destination, mut ports) = ([0; N], [0; N], [0; 4]);
        exactly(socket, &mut source).await?;
        exactly(socket, &mut destination).await?;
        exactly(socket, &mut ports).await?;
        let [high, low, ..] = ports;
        Ok(SocketAddr::new(IpAddr::from(source).to_canonical(), u16::from_be_bytes([high, low])))
    }
}

async fn skip<R: AsyncRead + Unpin>(socket: &mut R, mut left: usize) -> Result<(), ProxyError> {
    let mut nobody_wants = [0; 256];
    while left > 0 {
        let piece = nobody_wants.len().min(left);
        exactly(socket, nobody_wants.get_mut(..piece).unwrap_or_default()).await?;
        left -= piece;
    }
    Ok(())
}

async fn exactly<R: AsyncRead + Unpin>(socket: &mut R, bytes: &mut [u8]) -> Result<(), ProxyError> {
    match socket.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ProxyError::Truncated),
        Err(error) => Err(error.into()),
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

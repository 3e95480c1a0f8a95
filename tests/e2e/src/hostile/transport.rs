//! Identification, binary packets, key exchange (RFC 4253, 8731, 5647).

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
};
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use super::{Message, PATIENCE, Parts, msg, number};

const IDENTIFICATION: &str = "SSH-2.0-hostile";
const TAG: usize = 16;

/// Connects from an address of 127.0.0.0/8 that no test has used, so that what the gateway thinks of one hostile peer
/// is no matter of the next.
pub fn connect(port: u16) -> TcpStream {
    connect_from(from_strangers(), port)
}

/// The next address that no test of this process has used: 127.64.0.1 and on.
pub fn from_strangers() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 1).to_bits() + next)
}

/// Connects to the gateway from this address.
pub fn connect_from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// The lists of a KEXINIT, in their order on the wire (RFC 4253, 7.1).
#[derive(Debug, Clone)]
pub struct Kexinit {
    /// The ten of them.
    pub lists: [String; 10],
    /// `first_kex_packet_follows`
    pub guesses: bool,
}

impl Default for Kexinit {
    fn default() -> Self {
        let (cipher, mac) = ("aes128-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com");
        let lists = ["curve25519-sha256", "ssh-ed25519", cipher, cipher, mac, mac, "none", "none", "", ""];
        Self { lists: lists.map(str::to_owned), guesses: false }
    }
}

impl Kexinit {
    /// What a message says.
    #[track_caller]
    pub fn of(message: &[u8]) -> Self {
        let mut parts = Parts::after_number(message);
        parts.take(16);
        Self { lists: std::array::from_fn(|_| parts.text()), guesses: parts.byte() != 0 }
    }

    /// The message.
    pub fn message(&self) -> Vec<u8> {
        let start = Message::new(msg::KEXINIT).raw([7; 16]);
        let lists = self.lists.iter().fold(start, Message::string);
        lists.byte(u8::from(self.guesses)).u32(0).0
    }
}

/// A connection at any point of its life.
#[derive(Debug)]
pub struct Ssh {
    /// The socket, for bytes that are no packets.
    pub stream: TcpStream,
    /// The client's identification line.
    client: String,
    /// The server's.
    pub server: String,
    /// The exchange hash of the first key exchange.
    pub session_id: Vec<u8>,
    /// How many key exchanges there were.
    pub exchanges: usize,
    sealing: Option<Direction>,
    opening: Option<Direction>,
    /// Came while something else was waited for.
    aside: VecDeque<Vec<u8>>,
    pub(super) channels: u32,
}

impl Ssh {
    /// Exchanges identification lines, no more.
    pub fn greet(port: u16) -> Self {
        Self::greet_on(connect(port))
    }

    /// The same on a connection that is there.
    pub fn greet_on(stream: TcpStream) -> Self {
        Self::greet_as(stream, IDENTIFICATION)
    }

    /// The same as a client that calls itself so.
    pub fn greet_as(mut stream: TcpStream, client: &str) -> Self {
        stream.write_all(format!("{client}\r\n").as_bytes()).unwrap();
        let server = line(&mut stream).expect("no identification from the server");
        Self {
            stream,
            client: client.to_owned(),
            server,
            session_id: Vec::new(),
            exchanges: 0,
            sealing: None,
            opening: None,
            aside: VecDeque::new(),
            channels: 0,
        }
    }

    /// A connection with its first keys, before the login.
    pub fn encrypted(port: u16) -> Self {
        Self::encrypted_on(connect(port))
    }

    /// The same on a connection that is there.
    pub fn encrypted_on(stream: TcpStream) -> Self {
        let mut ssh = Self::greet_on(stream);
        ssh.rekey();
        ssh
    }

    /// A key exchange, the first or another. What comes meanwhile is put aside for [`Ssh::receive`].
    #[track_caller]
    pub fn rekey(&mut self) {
        self.try_rekey().expect("closed in a key exchange");
    }

    /// The same; `None` where the server has closed.
    #[track_caller]
    pub fn try_rekey(&mut self) -> Option<()> {
        self.try_rekey_with(&Kexinit::default())
    }

    /// The same with these lists. Whatever they ask for, what the server then encrypts with is aes128-gcm, or the test
    /// fails.
    #[track_caller]
    pub fn try_rekey_with(&mut self, kexinit: &Kexinit) -> Option<()> {
        let ours = kexinit.message();
        self.try_send(&ours).ok()?;
        let theirs = self.wait_aside(msg::KEXINIT)?;
        self.exchange(&ours, &theirs)
    }

    /// What follows the two KEXINITs.
    #[track_caller]
    fn exchange(&mut self, ours: &[u8], theirs: &[u8]) -> Option<()> {
        let mine = PrivateKey::generate(&X25519).unwrap();
        let public = mine.compute_public_key().unwrap();
        self.try_send(Message::new(msg::KEX_ECDH_INIT).string(&public)).ok()?;
        let reply = self.wait_aside(msg::KEX_ECDH_REPLY)?;
        let mut parts = Parts::after_number(&reply);
        let (host_key, their_public, _signature) = (parts.string(), parts.string(), parts.string());
        let peer = UnparsedPublicKey::new(&X25519, their_public);
        let secret = agree(&mine, peer, (), |secret| Ok(secret.to_vec())).unwrap();
        let hashed = Message(Vec::new())
            .string(&self.client)
            .string(&self.server)
            .string(ours)
            .string(theirs)
            .string(host_key)
            .string(&public)
            .string(their_public)
            .mpint(&secret);
        let hash = Sha256::digest(&hashed).to_vec();
        if self.session_id.is_empty() {
            self.session_id.clone_from(&hash);
        }
        let derive = |letter: u8| {
            let input = Message(Vec::new()).mpint(&secret).raw(&hash).byte(letter).raw(&self.session_id);
            Sha256::digest(&input).to_vec()
        };
        let (to_server, to_client) =
            (Direction::new(&derive(b'A'), &derive(b'C')), Direction::new(&derive(b'B'), &derive(b'D')));
        self.try_send([msg::NEWKEYS]).ok()?;
        self.sealing = Some(to_server);
        self.wait_aside(msg::NEWKEYS)?;
        self.opening = Some(to_client);
        self.exchanges += 1;
        Some(())
    }

    /// Sends one packet; the test fails where the server has closed.
    #[track_caller]
    pub fn send(&mut self, payload: impl AsRef<[u8]>) {
        self.try_send(payload).expect("the server has closed, or doesn't read");
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn try_send(&mut self, payload: impl AsRef<[u8]>) -> io::Result<()> {
        let packet = self.packed(payload.as_ref());
        self.stream.write_all(&packet)
    }

    /// A packet as it goes over the wire; it must be the next one that does.
    pub fn packed(&mut self, payload: &[u8]) -> Vec<u8> {
        let (block, counted) = if self.sealing.is_some() { (16, 1) } else { (8, 5) };
        let padding = 4 + (block - (counted + payload.len() + 4) % block) % block;
        let length = u32::try_from(1 + payload.len() + padding).unwrap();
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend(payload);
        body.resize(body.len() + padding, 0);
        if let Some(sealing) = &mut self.sealing {
            sealing.seal(length, &mut body);
        }
        [&length.to_be_bytes()[..], &body].concat()
    }

    /// The next message, `None` when the server has closed. What has no meaning for a test is left out: IGNORE, DEBUG,
    /// EXT_INFO. Keep-alives are answered, and the server's wish for new keys.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        if let Some(message) = self.aside.pop_front() {
            return Some(message);
        }
        loop {
            let message = self.receive_any()?;
            match number(&message) {
                msg::IGNORE | msg::DEBUG | msg::EXT_INFO => {}
                msg::GLOBAL_REQUEST => drop(self.try_send([msg::REQUEST_FAILURE])),
                // The server wants new keys.
                msg::KEXINIT if self.opening.is_some() => {
                    let ours = Kexinit::default().message();
                    self.try_send(&ours).ok()?;
                    self.exchange(&ours, &message)?;
                }
                _ => return Some(message),
            }
        }
    }

    /// Whatever comes next, key exchanges and all; `None` when the server has closed.
    #[track_caller]
    pub fn receive_raw(&mut self) -> Option<Vec<u8>> {
        let message = self.receive_any()?;
        if number(&message) == msg::DISCONNECT {
            drop(self.stream.shutdown(std::net::Shutdown::Write));
        }
        Some(message)
    }

    /// The next message, which must be this one.
    #[track_caller]
    pub fn expect(&mut self, wanted: u8) -> Vec<u8> {
        let message = self.receive().unwrap_or_else(|| panic!("closed instead of message {wanted}"));
        assert_eq!(number(&message), wanted, "{:?}", String::from_utf8_lossy(&message));
        message
    }

    /// Waits for the end of the connection, whatever comes before it. Returns the last words, if there were any.
    #[track_caller]
    pub fn closed(&mut self) -> Option<String> {
        let mut words = None;
        while let Some(message) = self.receive() {
            if number(&message) == msg::DISCONNECT {
                let mut parts = Parts::after_number(&message);
                parts.u32();
                words = Some(parts.text());
                // The server waits for the client to hang up.
                drop(self.stream.shutdown(std::net::Shutdown::Write));
            }
        }
        words
    }

    /// What the server says before it closes, for a peer whose packets have made nonsense of the stream: nothing here
    /// needs to be a packet.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if is_timeout(&error) => panic!("the server neither answers nor closes"),
            _ => rest,
        }
    }

    /// Waits for a message and puts others aside; `None` where the server has closed.
    #[track_caller]
    fn wait_aside(&mut self, wanted: u8) -> Option<Vec<u8>> {
        loop {
            let message = self.receive_any()?;
            match number(&message) {
                found if found == wanted => return Some(message),
                msg::IGNORE | msg::DEBUG | msg::EXT_INFO | msg::GLOBAL_REQUEST => {}
                msg::DISCONNECT => {
                    drop(self.stream.shutdown(std::net::Shutdown::Write));
                    return None;
                }
                _ => self.aside.push_back(message),
            }
        }
    }

    #[track_caller]
    fn receive_any(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        read(&mut self.stream, &mut length)?;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap();
        assert!((2..=300_000).contains(&size), "a packet of {size} bytes from the server");
        let tag = if self.opening.is_some() { TAG } else { 0 };
        let mut body = vec![0; size + tag];
        read(&mut self.stream, &mut body)?;
        if let Some(opening) = &mut self.opening {
            opening.open(length, &mut body);
        }
        let padding = usize::from(body[0]);
        Some(body[1..size - padding].to_vec())
    }
}

/// A line without its end; `None` when the peer has closed.
fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        read(stream, &mut byte)?;
        line.push(byte[0]);
    }
    Some(String::from_utf8(line).unwrap().trim_end().to_owned())
}

/// Fills the buffer; `None` when the peer has closed, however it did.
#[track_caller]
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<()> {
    match stream.read_exact(buffer) {
        Ok(()) => Some(()),
        Err(error) if is_timeout(&error) => panic!("the server neither answers nor closes"),
        Err(_) => None,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// One direction's key and its counter (RFC 5647, 7.1).
struct Direction {
    key: LessSafeKey,
    fixed: [u8; 4],
    count: u64,
}

impl std::fmt::Debug for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Direction({})", self.count)
    }
}

impl Direction {
    fn new(iv: &[u8], key: &[u8]) -> Self {
        Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key[..16]).unwrap()),
            fixed: iv[..4].try_into().unwrap(),
            count: u64::from_be_bytes(iv[4..12].try_into().unwrap()),
        }
    }

    fn nonce(&mut self) -> Nonce {
        let count = self.count.to_be_bytes();
        self.count = self.count.wrapping_add(1);
        Nonce::try_assume_unique_for_key(&[&self.fixed[..], &count].concat()).unwrap()
    }

    fn seal(&mut self, length: u32, body: &mut Vec<u8>) {
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(length.to_be_bytes()), body).unwrap();
    }

    fn open(&mut self, length: [u8; 4], body: &mut [u8]) {
        let nonce = self.nonce();
        self.key.open_in_place(nonce, Aad::from(length), body).expect("a packet that doesn't decrypt");
    }
}

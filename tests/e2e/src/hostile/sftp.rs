//! SFTP packets by hand, on a channel whose windows are the test's (draft-ietf-secsh-filexfer-02).

use super::{Message, Opened, Parts, Ssh, WINDOW, msg, number};

/// A packet with its frame.
pub fn packet(kind: u8, id: u32, fields: impl AsRef<[u8]>) -> Vec<u8> {
    let fields = fields.as_ref();
    let length = u32::try_from(5 + fields.len()).unwrap();
    Message(Vec::new()).u32(length).byte(kind).u32(id).raw(fields).0
}

/// Attributes that say nothing.
pub fn attributes() -> [u8; 4] {
    [0; 4]
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 101 status, 102 handle, 103 data, 104 names, 105 attributes, 201 extended.
    pub kind: u8,
    /// The request's.
    pub id: u32,
    /// What follows the id.
    pub fields: Vec<u8>,
}

impl Reply {
    /// The status' code and sentence.
    #[track_caller]
    pub fn status(&self) -> (u32, String) {
        assert_eq!(self.kind, 101, "{self:?}");
        let mut parts = Parts(&self.fields);
        (parts.u32(), parts.text())
    }

    /// The handle, or the data.
    #[track_caller]
    pub fn bytes(&self) -> Vec<u8> {
        assert!(matches!(self.kind, 102 | 103), "{self:?}");
        Parts(&self.fields).string().to_vec()
    }
}

/// An SFTP session.
#[derive(Debug)]
pub struct Sftp {
    /// The connection. Who reads from it loses what is in flight.
    pub ssh: Ssh,
    /// The channel.
    pub channel: Opened,
    /// Bytes that the server takes before it grants more.
    pub room: u32,
    /// How the channel has ended: its exit status, once it is closed.
    pub closed: Option<Option<u32>>,
    /// What came on standard error.
    pub explained: String,
    exit_status: Option<u32>,
    granted: u32,
    inbox: Vec<u8>,
    next_id: u32,
}

impl Sftp {
    /// Starts the subsystem; nothing is sent on it.
    #[track_caller]
    pub fn start(mut ssh: Ssh) -> Self {
        let channel = ssh.session();
        assert!(ssh.channel_request(channel, "subsystem", &Message(Vec::new()).string("sftp").0));
        Self::on(ssh, channel)
    }

    /// On a channel that has the subsystem.
    pub fn on(ssh: Ssh, channel: Opened) -> Self {
        Self {
            ssh,
            channel,
            room: channel.window,
            closed: None,
            explained: String::new(),
            exit_status: None,
            granted: WINDOW,
            inbox: Vec::new(),
            next_id: 0,
        }
    }

    /// The same, and exchanges versions.
    #[track_caller]
    pub fn ready(ssh: Ssh) -> Self {
        let mut sftp = Self::start(ssh);
        sftp.init();
        sftp
    }

    /// Exchanges versions.
    #[track_caller]
    pub fn init(&mut self) {
        self.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let version = self.packet().expect("closed instead of a version");
        assert_eq!(version[..5], [2, 0, 0, 0, 3]);
    }

    /// Sends bytes, within the server's window.
    #[track_caller]
    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            while self.room == 0 {
                assert!(self.step(), "closed while a window is waited for");
            }
            let most = self.room.min(self.channel.max_packet).min(32 << 10);
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(most).unwrap()));
            self.ssh.send(Ssh::on_channel(msg::CHANNEL_DATA, self.channel).string(now));
            self.room -= u32::try_from(now.len()).unwrap();
            bytes = later;
        }
    }

    /// Sends a request and returns its id.
    #[track_caller]
    pub fn request(&mut self, kind: u8, fields: impl AsRef<[u8]>) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&packet(kind, id, fields));
        id
    }

    /// A request and its reply, with nothing else outstanding.
    #[track_caller]
    pub fn ask(&mut self, kind: u8, fields: impl AsRef<[u8]>) -> Reply {
        let id = self.request(kind, fields);
        let reply = self.reply();
        assert_eq!(reply.id, id, "{reply:?}");
        reply
    }

    /// The next reply, which must come.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        let packet = self.packet().expect("closed instead of a reply");
        let mut parts = Parts(&packet);
        Reply { kind: parts.byte(), id: parts.u32(), fields: parts.0.to_vec() }
    }

    /// The next packet without its length; `None` when the channel or the connection has ended.
    #[track_caller]
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) = self.inbox.split_first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
                assert!(length <= 300_000, "a packet of {length} bytes");
                if rest.len() >= length {
                    let packet = rest[..length].to_vec();
                    self.inbox.drain(..4 + length);
                    return Some(packet);
                }
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// Opens a file (3) or a folder (11).
    #[track_caller]
    pub fn open(&mut self, kind: u8, path: &str) -> Vec<u8> {
        self.ask(kind, open_fields(kind, path)).bytes()
    }

    /// A whole file, with this many requests of this size outstanding.
    #[track_caller]
    pub fn download(&mut self, path: &str, size: usize, outstanding: usize, each: usize) -> Vec<u8> {
        let handle = self.open(3, path);
        let mut whole = vec![0; size];
        let mut offsets = std::collections::BTreeMap::new();
        let mut next = 0;
        while next < size || !offsets.is_empty() {
            while next < size && offsets.len() < outstanding {
                let length = each.min(size - next);
                let fields = read_fields(&handle, next as u64, u32::try_from(length).unwrap());
                offsets.insert(self.request(5, fields), (next, length));
                next += length;
            }
            let reply = self.reply();
            let (offset, length) = offsets.remove(&reply.id).expect("a reply to nothing");
            let bytes = reply.bytes();
            assert_eq!(bytes.len(), length, "at {offset}");
            whole[offset..offset + length].copy_from_slice(&bytes);
        }
        assert_eq!(self.ask(4, Message(Vec::new()).string(handle)).status().0, 0);
        whole
    }

    /// The names in a folder.
    #[track_caller]
    pub fn list(&mut self, path: &str) -> Vec<String> {
        let handle = self.open(11, path);
        let mut names = Vec::new();
        loop {
            let reply = self.ask(12, Message(Vec::new()).string(&handle));
            if reply.kind == 101 {
                assert_eq!(reply.status().0, 1, "{reply:?}");
                break;
            }
            let mut parts = Parts(&reply.fields);
            for _ in 0..parts.u32() {
                names.push(parts.text());
                parts.text();
                parts.take(32);
            }
        }
        assert_eq!(self.ask(4, Message(Vec::new()).string(handle)).status().0, 0);
        names
    }

    /// Takes one message of the connection; false when the channel or the connection has ended.
    #[track_caller]
    pub fn step(&mut self) -> bool {
        if self.closed.is_some() {
            return false;
        }
        let Some(message) = self.ssh.receive() else { return false };
        let mut parts = Parts::after_number(&message);
        if number(&message) != msg::DISCONNECT {
            assert_eq!(parts.u32(), self.channel.mine, "{message:?}");
        }
        match number(&message) {
            msg::CHANNEL_DATA => {
                let bytes = parts.string();
                self.inbox.extend(bytes);
                self.took(bytes.len());
            }
            msg::CHANNEL_EXTENDED_DATA => {
                parts.u32();
                let bytes = parts.string();
                self.explained.push_str(&String::from_utf8_lossy(bytes));
                self.took(bytes.len());
            }
            msg::CHANNEL_WINDOW_ADJUST => self.room = self.room.checked_add(parts.u32()).unwrap(),
            msg::CHANNEL_REQUEST => {
                assert_eq!(parts.text(), "exit-status");
                parts.byte();
                self.exit_status = Some(parts.u32());
            }
            msg::CHANNEL_EOF => {}
            msg::CHANNEL_CLOSE => {
                self.closed = Some(self.exit_status);
                drop(self.ssh.try_send(Ssh::on_channel(msg::CHANNEL_CLOSE, self.channel)));
            }
            msg::DISCONNECT => return false,
            other => panic!("message {other} on a channel"),
        }
        true
    }

    /// Grants the server what it has used of the window.
    fn took(&mut self, bytes: usize) {
        self.granted =
            self.granted.checked_sub(u32::try_from(bytes).unwrap()).expect("the window is overrun");
        if self.granted < WINDOW / 2 {
            let more = WINDOW - self.granted;
            drop(self.ssh.try_send(Ssh::on_channel(msg::CHANNEL_WINDOW_ADJUST, self.channel).u32(more)));
            self.granted = WINDOW;
        }
    }
}

/// The fields of OPEN (3) for reading, or of OPENDIR (11).
pub fn open_fields(kind: u8, path: &str) -> Message {
    let fields = Message(Vec::new()).string(path);
    if kind == 3 { fields.u32(1).raw(attributes()) } else { fields }
}

/// The fields of READ.
pub fn read_fields(handle: &[u8], offset: u64, length: u32) -> Message {
    Message(Vec::new()).string(handle).u64(offset).u32(length)
}

//! Channels by hand (RFC 4254).

use super::{Message, Parts, Ssh, msg, number};

/// The window that a channel of [`Ssh::session`] gives the server.
pub const WINDOW: u32 = 4 << 20;
const MAX_PACKET: u32 = 32 << 10;

/// An open channel.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The client's number of it.
    pub mine: u32,
    /// The server's number of it.
    pub theirs: u32,
    /// Bytes that the server takes.
    pub window: u32,
    /// Bytes that it takes at once.
    pub max_packet: u32,
}

impl Ssh {
    /// Opens a session's channel.
    #[track_caller]
    pub fn session(&mut self) -> Opened {
        self.open("session", WINDOW, b"").expect("a channel is refused")
    }

    /// Opens a channel of any kind. The refusal is its code and sentence.
    #[track_caller]
    pub fn open(&mut self, kind: &str, window: u32, fields: &[u8]) -> Result<Opened, (u32, String)> {
        self.try_open(kind, window, MAX_PACKET, fields).expect("closed instead of an answer about a channel")
    }

    /// The same with the most bytes that the server may send at once; `None` where it closes the connection.
    #[track_caller]
    pub fn try_open(
        &mut self,
        kind: &str,
        window: u32,
        max_packet: u32,
        fields: &[u8],
    ) -> Option<Result<Opened, (u32, String)>> {
        let mine = self.channels;
        self.channels += 1;
        let open = Message::new(msg::CHANNEL_OPEN).string(kind).u32(mine).u32(window).u32(max_packet);
        self.send(open.raw(fields));
        let reply = self.receive().filter(|reply| number(reply) != msg::DISCONNECT)?;
        let mut parts = Parts::after_number(&reply);
        assert_eq!(parts.u32(), mine, "{reply:?}");
        match number(&reply) {
            msg::CHANNEL_OPEN_CONFIRMATION => {
                Some(Ok(Opened { mine, theirs: parts.u32(), window: parts.u32(), max_packet: parts.u32() }))
            }
            msg::CHANNEL_OPEN_FAILURE => Some(Err((parts.u32(), parts.text()))),
            other => panic!("message {other} instead of an answer about a channel"),
        }
    }

    /// A request on a channel, and whether it was granted.
    #[track_caller]
    pub fn channel_request(&mut self, channel: Opened, kind: &str, fields: &[u8]) -> bool {
        self.send(Message::new(msg::CHANNEL_REQUEST).u32(channel.theirs).string(kind).byte(1).raw(fields));
        let reply = self.receive().expect("closed instead of an answer to a request");
        assert_eq!(Parts::after_number(&reply).u32(), channel.mine, "{reply:?}");
        match number(&reply) {
            msg::CHANNEL_SUCCESS => true,
            msg::CHANNEL_FAILURE => false,
            other => panic!("message {other} instead of an answer to {kind}"),
        }
    }

    /// A global request, and whether it was granted.
    #[track_caller]
    pub fn global_request(&mut self, kind: &str, fields: &[u8]) -> bool {
        self.send(Message::new(msg::GLOBAL_REQUEST).string(kind).byte(1).raw(fields));
        match self.receive().as_deref().map(number) {
            Some(msg::REQUEST_SUCCESS) => true,
            Some(msg::REQUEST_FAILURE) => false,
            other => panic!("message {other:?} instead of an answer to {kind}"),
        }
    }

    /// A message that has a channel's number as its first field.
    pub fn on_channel(number: u8, channel: Opened) -> Message {
        Message::new(number).u32(channel.theirs)
    }
}

//! Authentication by hand (RFC 4252).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Message, Parts, Ssh, msg, number};

const CONNECTION: &str = "ssh-connection";
const ED25519: &str = "ssh-ed25519";

/// What came of an attempt to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// SUCCESS
    Success,
    /// FAILURE: the methods that can continue, and whether this one was a part of what is needed.
    Failure(String, bool),
    /// PK_OK: the key may be used.
    KeyIsFine,
    /// The connection was ended, with these words.
    Closed(Option<String>),
    /// Another message.
    Other(Vec<u8>),
}

/// An Ed25519 key.
#[derive(Debug)]
pub struct KeyPair(Ed25519KeyPair);

impl KeyPair {
    /// A key that is made of one number.
    pub fn of(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    /// As it goes over the wire.
    pub fn blob(&self) -> Vec<u8> {
        Message(Vec::new()).string(ED25519).string(self.0.public_key().as_ref()).0
    }

    /// A line of authorized_keys.
    pub fn line(&self) -> String {
        format!("{ED25519} {} hostile", STANDARD.encode(self.blob()))
    }

    /// A signature, as it goes over the wire.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        Message(Vec::new()).string(ED25519).string(self.0.sign(bytes).as_ref()).0
    }
}

impl Ssh {
    /// Asks for the service that logs in.
    #[track_caller]
    pub fn userauth(&mut self) {
        self.send(Message::new(msg::SERVICE_REQUEST).string("ssh-userauth"));
        self.expect(msg::SERVICE_ACCEPT);
    }

    /// The start of a request.
    pub fn request(user: &str, method: &str) -> Message {
        Message::new(msg::USERAUTH_REQUEST).string(user).string(CONNECTION).string(method)
    }

    /// Tries a password.
    pub fn password(&mut self, user: &str, password: &str) -> Answer {
        self.try_login(&Self::request(user, "password").byte(0).string(password))
    }

    /// Offers a key without a signature.
    pub fn offer(&mut self, user: &str, key: &KeyPair) -> Answer {
        self.try_login(&Self::request(user, "publickey").byte(0).string(ED25519).string(key.blob()))
    }

    /// A request with this key, before its signature.
    pub fn key_request(user: &str, key: &KeyPair) -> Message {
        Self::request(user, "publickey").byte(1).string(ED25519).string(key.blob())
    }

    /// What a request's signature signs, in a session with this id.
    pub fn signed(session_id: &[u8], request: &Message) -> Vec<u8> {
        Message(Vec::new()).string(session_id).raw(request).0
    }

    /// Logs in with a key.
    pub fn key(&mut self, user: &str, key: &KeyPair) -> Answer {
        let request = Self::key_request(user, key);
        let signature = key.sign(&Self::signed(&self.session_id, &request));
        self.try_login(&request.string(signature))
    }

    /// Sends a request and waits for its answer.
    pub fn try_login(&mut self, request: &Message) -> Answer {
        if self.try_send(request).is_err() {
            return Answer::Closed(self.closed());
        }
        self.answer()
    }

    /// The answer to a request.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let Some(message) = self.receive() else { return Answer::Closed(None) };
        let mut parts = Parts::after_number(&message);
        match number(&message) {
            msg::USERAUTH_SUCCESS => Answer::Success,
            msg::USERAUTH_FAILURE => Answer::Failure(parts.text(), parts.byte() != 0),
            msg::USERAUTH_PK_OK if parts.0.starts_with(&11_u32.to_be_bytes()) => Answer::KeyIsFine,
            msg::DISCONNECT => {
                parts.u32();
                let words = parts.text();
                drop(self.stream.shutdown(std::net::Shutdown::Write));
                self.closed();
                Answer::Closed(Some(words))
            }
            _ => Answer::Other(message),
        }
    }

    /// A connection with somebody logged in.
    #[track_caller]
    pub fn logged_in(port: u16, user: &str, password: &str) -> Self {
        let mut ssh = Self::encrypted(port);
        ssh.userauth();
        assert_eq!(ssh.password(user, password), Answer::Success);
        ssh
    }
}

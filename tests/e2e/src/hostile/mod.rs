//! An SSH client that does what no honest one would: every message is made by the test.
//!
//! It blocks, has one thread, and speaks one algorithm of each kind (curve25519-sha256, ssh-ed25519 host keys that it
//! doesn't check, aes128-gcm), so that a test says exactly which bytes go out and when. Nothing waits longer than
//! [`PATIENCE`]: a server that neither answers nor closes fails the test.

mod channel;
mod login;
mod message;
mod scene;
mod sftp;
mod transport;

pub use channel::{Opened, WINDOW};
pub use login::{Answer, KeyPair};
pub use message::{Message, Parts, number};
pub use scene::{Bystander, Memory, Scene};
pub use sftp::{Reply, Sftp, attributes, open_fields, packet, read_fields};
pub use transport::{Kexinit, Ssh, connect, connect_from, from_strangers};

use std::time::Duration;

/// Longer than any answer takes, and than the server's own deadlines in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The messages of RFC 4250 to 4254 that the tests send or expect.
pub mod msg {
    #![allow(missing_docs, reason = "the names are the RFCs'")]

    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    /// Also USERAUTH_INFO_REQUEST.
    pub const USERAUTH_PK_OK: u8 = 60;
    pub const USERAUTH_INFO_RESPONSE: u8 = 61;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
}

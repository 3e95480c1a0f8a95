//! SFTP version 3 packets (draft-ietf-secsh-filexfer-02).
//!
//! A frame is a length (u32, big-endian), a type byte and a body; all but INIT and VERSION begin their body with the
//! request's id. What comes after the fields that a type has is ignored, as OpenSSH does.
//!
//! The packets and their coding are russh-sftp's, behind [`decode`] and [`encode`]. By hand are the frames with their
//! limits, and those packets of which a download or a long folder has many: READ is parsed without allocating, DATA
//! is filled in place, and the NAME of a READDIR is written an entry at a time up to a size.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use russh_sftp::{
    extensions,
    protocol::{self, Attrs, ExtendedReply, FileAttributes, Name, Status, StatusCode, Version},
    ser,
};
use serde::Serialize;

use crate::{telemetry::SftpRequest, vfs::Attributes};

/// The longest frame after its length field: a WRITE of 256 KiB and its header.
pub(crate) const MAX_PACKET: usize = 256 * 1024 + 1024;
/// The most bytes that one READ gets; advertised through limits@openssh.com.
pub(crate) const MAX_READ: usize = 261_120;
/// A DATA packet without its data: length, type, id, length of the data.
pub(crate) const DATA_HEADER: usize = 13;

// The types that are told apart before, or without, decoding; russh-sftp keeps its own numbers to itself.
const INIT: u8 = 1;
pub(crate) const READ: u8 = 5;
pub(crate) const READDIR: u8 = 12;
pub(crate) const REALPATH: u8 = 16;
pub(crate) const EXTENDED: u8 = 200;
const DATA: u8 = 103;
const NAME: u8 = 104;

/// What a client asks, as far as it is known before [`decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// READ.
    Read { handle: Option<u64>, offset: u64, len: u32 },
    /// A READ whose body is too short.
    MalformedRead,
    /// Any other type, for [`decode`].
    Other { kind: u8, frame: &'a [u8] },
}

impl Request<'_> {
    /// What the metrics call it.
    pub(crate) fn label(&self) -> SftpRequest {
        let Request::Other { kind, .. } = self else { return SftpRequest::Read };
        match kind {
            3 => SftpRequest::Open,
            4 => SftpRequest::Close,
            6 => SftpRequest::Write,
            7 => SftpRequest::Lstat,
            8 => SftpRequest::Fstat,
            9 => SftpRequest::Setstat,
            10 => SftpRequest::Fsetstat,
            11 => SftpRequest::Opendir,
            &READDIR => SftpRequest::Readdir,
            13 => SftpRequest::Remove,
            14 => SftpRequest::Mkdir,
            15 => SftpRequest::Rmdir,
            &REALPATH => SftpRequest::Realpath,
            17 => SftpRequest::Stat,
            18 => SftpRequest::Rename,
            19 => SftpRequest::Readlink,
            20 => SftpRequest::Symlink,
            &EXTENDED => SftpRequest::Extended,
            _ => SftpRequest::Unknown,
        }
    }
}

/// A frame's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The first packet of a client. Whatever version it has, the answer is 3. Its extensions mean nothing to this
    /// server and aren't decoded: russh-sftp would make a map of as many as the packet holds.
    Init,
    /// A request with its id.
    Request { id: u32, request: Request<'a> },
}

/// A request that [`decode`] understood.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Its fields.
    pub(crate) packet: protocol::Packet,
    /// Whether the first text (a path, a handle, an extension's name) is as the client sent it. Otherwise it wasn't
    /// UTF-8, and what `packet` has in its place could name something else.
    pub(crate) is_utf8: bool,
}

/// A request can't be decoded; the ones after it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// No request of version 3.
    Unknown,
    /// The body is shorter than its fields.
    Malformed,
}

/// The stream can't be understood any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a packet of {0} bytes; at most {MAX_PACKET} are taken")]
    TooLong(u32),
    #[error("a packet of {0} bytes, too short for a type and an id")]
    TooShort(u32),
    #[error("a packet of {0} bytes where INIT was due, or a second INIT")]
    Unexpected(u32),
}

/// The first frame of `input` without its length field; `None` while it isn't complete.
pub(crate) fn frame(input: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if len > MAX_PACKET {
        return Err(FrameError::TooLong(length));
    }
    // The shortest packets are INIT and those with an id alone.
    if len < 5 {
        return Err(FrameError::TooShort(length));
    }
    Ok(rest.get(..len))
}

/// Looks at a frame, at least 5 bytes. Allocates nothing, so that a frame may be looked at again and again while it
/// waits for room.
pub(crate) fn parse(frame: &[u8]) -> Option<Packet<'_>> {
    let (&kind, body) = frame.split_first()?;
    let mut body = Reader(body);
    let id = body.u32()?;
    Some(match kind {
        INIT => Packet::Init,
        READ => Packet::Request { id, request: read(body).unwrap_or(Request::MalformedRead) },
        kind => Packet::Request { id, request: Request::Other { kind, frame } },
    })
}

fn read(mut body: Reader<'_>) -> Option<Request<'_>> {
    Some(Request::Read { handle: body.handle()?, offset: body.u64()?, len: body.u32()? })
}

/// Decodes a request other than READ.
///
/// russh-sftp's decoder doesn't panic, and ignores what follows a packet's fields. Two things are kept from it:
/// - The replies' types, which no client has any business to send. A NAME makes it allocate for a count of entries
///   that the packet needn't hold, a VERSION for a map. A request's memory is bounded by the frame: texts are taken
///   after a look at what is left.
/// - Trust in its texts: where bytes aren't UTF-8 it puts U+FFFD, which may be a part of another name.
pub(crate) fn decode(frame: &[u8]) -> Result<Decoded, Undecodable> {
    let (&kind, body) = frame.split_first().ok_or(Undecodable::Malformed)?;
    if !matches!(kind, 3..=20 | EXTENDED) {
        return Err(Undecodable::Unknown);
    }
    let mut fields = Reader(body);
    let text = fields.u32().and_then(|_id| fields.string()).ok_or(Undecodable::Malformed)?;
    let is_utf8 = std::str::from_utf8(text).is_ok();
    let mut bytes = Bytes::copy_from_slice(frame);
    let packet = protocol::Packet::try_from(&mut bytes).map_err(|_short| Undecodable::Malformed)?;
    Ok(Decoded { packet, is_utf8 })
}

/// Takes fields from a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*value))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*value))
    }

    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (value, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(value)
    }

    /// `Some(None)` is a well-formed string that no handle of this server looks like.
    pub(crate) fn handle(&mut self) -> Option<Option<u64>> {
        self.string().map(number)
    }
}

/// The number in a handle. Handles are decimal digits, since russh-sftp's are text.
pub(crate) fn number(handle: impl AsRef<[u8]>) -> Option<u64> {
    std::str::from_utf8(handle.as_ref()).ok()?.parse().ok()
}

/// Encodes a reply with its frame.
#[expect(clippy::expect_used, reason = "fails only for 4 GiB; every reply is bounded by its request's cost")]
pub(crate) fn encode(reply: impl Into<protocol::Packet>) -> BytesMut {
    Bytes::try_from(reply.into()).expect("a reply has less than 4 GiB").into()
}

/// VERSION 3 with the extensions that [`super::dispatch`] answers.
pub(crate) fn version() -> BytesMut {
    let extensions = [
        (extensions::LIMITS, "1"),
        (extensions::STATVFS, "2"),
        ("fstatvfs@openssh.com", "2"),
        (extensions::FSYNC, "1"),
        (extensions::EXPAND_PATH, "1"),
        ("home-directory", "1"),
        ("users-groups-by-id@openssh.com", "1"),
        // draft-ietf-secsh-filexfer-extensions-00, 3; paramiko's own name for it is the second.
        ("check-file-name", "sha256"),
        ("check-file", "sha256"),
        // Refused, with the reason: a client that doesn't see them refuses on its own, without one.
        ("posix-rename@openssh.com", "1"),
        (extensions::HARDLINK, "1"),
    ];
    let extensions: HashMap<String, String> =
        extensions.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    encode(Version { version: protocol::VERSION, extensions })
}

/// STATUS with a sentence for the client.
pub(crate) fn status(id: u32, status_code: StatusCode, message: &str) -> BytesMut {
    let message = message.get(..MAX_MESSAGE).unwrap_or(message);
    encode(Status { id, status_code, error_message: message.to_owned(), language_tag: "en".to_owned() })
}

/// The longest sentence that a client gets, in bytes.
const MAX_MESSAGE: usize = 500;

/// HANDLE.
pub(crate) fn handle(id: u32, handle: u64) -> BytesMut {
    encode(protocol::Handle { id, handle: handle.to_string() })
}

/// ATTRS.
pub(crate) fn attrs(id: u32, attributes: &Attributes) -> BytesMut {
    let attrs = FileAttributes {
        size: Some(attributes.size),
        uid: Some(0),
        gid: Some(0),
        permissions: Some(permissions(attributes)),
        atime: Some(modified(attributes)),
        mtime: Some(modified(attributes)),
        ..FileAttributes::empty()
    };
    encode(Attrs { id, attrs })
}

/// NAME with one path and no attributes, as REALPATH answers.
pub(crate) fn path(id: u32, path: &str) -> BytesMut {
    let (filename, longname) = (path.to_owned(), path.to_owned());
    encode(Name { id, files: vec![protocol::File { filename, longname, attrs: FileAttributes::empty() }] })
}

/// EXTENDED_REPLY with the fields of one of russh-sftp's extensions.
#[expect(
    clippy::expect_used,
    reason = "fails only for types that SFTP doesn't have; these have numbers alone"
)]
pub(crate) fn extended<T: Serialize>(id: u32, fields: &T) -> BytesMut {
    encode(ExtendedReply { id, data: ser::to_bytes(fields).expect("numbers").into() })
}

/// EXTENDED_REPLY of check-file-name and check-file-handle (draft-ietf-secsh-filexfer-extensions-00, 3): the algorithm
/// as a string, the digest as bare bytes. paramiko asks for `check-file` and wants that word before them.
pub(crate) fn file_sha256(id: u32, sha256: &[u8; 32], for_paramiko: bool) -> BytesMut {
    let mut data = Vec::new();
    if for_paramiko {
        put_string(&mut data, b"check-file");
    }
    put_string(&mut data, b"sha256");
    data.extend_from_slice(sha256);
    encode(ExtendedReply { id, data })
}

/// EXTENDED_REPLY with lists of names, as users-groups-by-id@openssh.com answers: a string for each list that holds
/// a string for each name.
pub(crate) fn name_lists(id: u32, lists: [&[&str]; 2]) -> BytesMut {
    let mut data = Vec::new();
    for names in lists {
        let mut list = Vec::new();
        for name in names {
            put_string(&mut list, name.as_bytes());
        }
        put_string(&mut data, &list);
    }
    encode(ExtendedReply { id, data })
}

/// A NAME packet that gets entries before [`finish_names`].
pub(crate) fn begin_names(id: u32, capacity: usize) -> BytesMut {
    let mut out = begin(NAME, id, capacity);
    out.put_u32(0);
    out
}

/// One entry.
pub(crate) fn put_name(out: &mut BytesMut, name: &str, longname: &str, attributes: &Attributes) {
    put_string(out, name.as_bytes());
    put_string(out, longname.as_bytes());
    put_attributes(out, attributes);
}

/// Fills in the count of entries.
pub(crate) fn finish_names(mut out: BytesMut, count: u32) -> BytesMut {
    if let Some(field) = out.get_mut(9..13) {
        field.copy_from_slice(&count.to_be_bytes());
    }
    finish(out)
}

/// A DATA packet with room for `len` bytes of data that are appended before [`finish_data`].
pub(crate) fn begin_data(id: u32, len: usize) -> BytesMut {
    let mut out = begin(DATA, id, len + 4);
    out.put_u32(0);
    out
}

/// Fills in the length of the data.
pub(crate) fn finish_data(mut out: BytesMut) -> BytesMut {
    let len = u32::try_from(out.len().saturating_sub(DATA_HEADER)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(9..13) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    finish(out)
}

fn begin(kind: u8, id: u32, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(9 + capacity);
    out.put_u32(0);
    out.put_u8(kind);
    out.put_u32(id);
    out
}

fn finish(mut out: BytesMut) -> BytesMut {
    let len = u32::try_from(out.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(..4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    out
}

fn put_string(out: &mut impl BufMut, text: &[u8]) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text);
}

/// Size, owner, permissions and times: flags 0x1 | 0x2 | 0x4 | 0x8. The same as [`attrs`] has.
fn put_attributes(out: &mut BytesMut, attributes: &Attributes) {
    let modified = modified(attributes);
    out.put_u32(0xf);
    out.put_u64(attributes.size);
    out.put_u32(0);
    out.put_u32(0);
    out.put_u32(permissions(attributes));
    out.put_u32(modified);
    out.put_u32(modified);
}

/// Version 3 has 32 bits for Unix seconds: 1970 to 2106.
fn modified(attributes: &Attributes) -> u32 {
    u32::try_from(attributes.modified.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX)
}

/// Readable by owner and group, writable by nobody: the tree is read-only.
fn permissions(attributes: &Attributes) -> u32 {
    if attributes.is_folder { 0o040_550 } else { 0o100_440 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(text);
        out
    }

    /// One well-formed packet of each type.
    fn samples() -> Vec<Vec<u8>> {
        let handle = string(b"7");
        let path = string(b"/Index");
        let (offset, word) = (9u64.to_be_bytes(), 5u32.to_be_bytes());
        // Flags for size and permissions, and the two.
        let attributes = [&word[..], &offset, &word].concat();
        let bodies: Vec<(u8, Vec<&[u8]>)> = vec![
            (3, vec![&path, &word, &attributes]),
            (4, vec![&handle]),
            (5, vec![&handle, &offset, &word]),
            (6, vec![&handle, &offset, &path]),
            (7, vec![&path]),
            (8, vec![&handle]),
            (9, vec![&path, &attributes]),
            (10, vec![&handle, &attributes]),
            (11, vec![&path]),
            (12, vec![&handle]),
            (13, vec![&path]),
            (14, vec![&path, &attributes]),
            (15, vec![&path]),
            (16, vec![&path]),
            (17, vec![&path]),
            (18, vec![&path, &path]),
            (19, vec![&path]),
            (20, vec![&path, &path]),
            (200, vec![&path, &word]),
        ];
        bodies
            .into_iter()
            .map(|(kind, fields)| {
                let mut packet = vec![kind];
                packet.extend_from_slice(&77u32.to_be_bytes());
                packet.extend(fields.concat());
                packet
            })
            .collect()
    }

    /// Both steps of taking a frame: whether it is a request that can be answered.
    fn understand(frame: &[u8]) -> Option<Result<(), Undecodable>> {
        let Packet::Request { id, request } = parse(frame)? else { panic!("no INIT here") };
        assert_eq!(id, 77);
        Some(match request {
            Request::Read { handle: Some(7), offset: 9, len: 5 } => Ok(()),
            Request::Read { .. } => panic!("{request:?}"),
            Request::MalformedRead => Err(Undecodable::Malformed),
            Request::Other { kind, frame: whole } => {
                assert_eq!((kind, whole), (frame[0], frame));
                decode(frame).map(|decoded| assert_eq!(decoded.packet.get_request_id(), 77))
            }
        })
    }

    #[test]
    fn every_type_is_understood_and_every_truncation_is_malformed() {
        for packet in samples() {
            let kind = packet[0];
            assert_eq!(understand(&packet), Some(Ok(())), "type {kind}");
            assert_eq!(understand(&[&packet[..], b"more"].concat()), Some(Ok(())), "type {kind} and more");
            // Attributes may be left out as a whole; an extension's own body isn't looked at here.
            let whole_at = match kind {
                3 | 9 | 10 | 14 => packet.len() - 16,
                200 => packet.len() - 4,
                _ => packet.len(),
            };
            for len in 0..packet.len() {
                let expected = match len {
                    0..5 => None,
                    _ if len == whole_at || (kind == 200 && len > whole_at) => Some(Ok(())),
                    _ => Some(Err(Undecodable::Malformed)),
                };
                assert_eq!(understand(&packet[..len]), expected, "type {kind} at {len}");
            }
        }
    }

    #[test]
    fn replies_and_unknown_types_are_not_decoded() {
        let claims = [&77u32.to_be_bytes()[..], &[0xff; 4]].concat();
        for kind in (0..=u8::MAX).filter(|kind| !matches!(kind, 1 | 3..=20 | 200)) {
            let frame = [&[kind][..], &claims].concat();
            assert_eq!(understand(&frame), Some(Err(Undecodable::Unknown)), "type {kind}");
        }
    }

    #[test]
    fn texts_that_are_not_utf8_are_told() {
        let stat = |path: &[u8]| decode(&[&[17, 0, 0, 0, 77], &string(path)[..]].concat()).unwrap().is_utf8;
        assert!(stat("/\u{fffd}".as_bytes()));
        assert!(!stat(b"/\xff"));
    }

    #[test]
    fn handles_are_decimal() {
        assert_eq!(number("1025"), Some(1025));
        for other in [&b""[..], b"x", b"-1", b"\xff", b"99999999999999999999999"] {
            assert_eq!(number(other), None);
        }
    }

    #[test]
    fn attributes_are_the_same_in_attrs_and_in_names() {
        for (size, modified) in [(0, -5), (1 << 40, 1_465_171_277), (7, i64::MAX)] {
            let attributes = Attributes { is_folder: size == 0, size, modified };
            let mut names = begin_names(4, 0);
            put_name(&mut names, "", "", &attributes);
            assert_eq!(attrs(4, &attributes)[9..], finish_names(names, 1)[21..]);
        }
    }

    #[test]
    fn frames_have_bounds() {
        assert_eq!(frame(&[0, 0, 0]), Ok(None));
        assert_eq!(frame(&[0, 0, 0, 5, 1]), Ok(None));
        assert_eq!(frame(&[0, 0, 0, 5, 1, 0, 0, 0, 3, 9]), Ok(Some(&[1, 0, 0, 0, 3][..])));
        assert_eq!(frame(&[0xff; 4]), Err(FrameError::TooLong(u32::MAX)));
        for len in 0..5u32 {
            assert_eq!(frame(&len.to_be_bytes()), Err(FrameError::TooShort(len)));
        }
        assert_eq!(parse(&[1, 0, 0, 0, 3]), Some(Packet::Init));
    }

    #[test]
    fn replies_are_framed() {
        let folder = Attributes { is_folder: true, size: 0, modified: -5 };
        let mut names = begin_names(4, 10);
        put_name(&mut names, "a", "long a", &folder);
        let mut data = begin_data(4, 3);
        data.extend_from_slice(b"abc");
        for reply in [
            version(),
            status(4, StatusCode::Failure, "no"),
            handle(4, 1),
            attrs(4, &folder),
            path(4, "/"),
            finish_names(names, 1),
            finish_data(data),
            extended(4, &(1u64, 2u64)),
            name_lists(4, [&["acme"], &[]]),
        ] {
            assert_eq!(frame(&reply).unwrap().unwrap().len() + 4, reply.len());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..=210) {
            if let Ok(Some(body)) = frame(&bytes) {
                let _ = parse(body);
                let _ = decode(body);
            }
            let mut packet = vec![kind];
            packet.extend_from_slice(&bytes);
            let _ = parse(&packet);
            let _ = decode(&packet);
        }
    }
}

//! SFTP version 3 packets (draft-ietf-secsh-filexfer-02), parsed from and encoded to bytes by hand.
//!
//! A frame is a length (u32, big-endian), a type byte and a body; all but INIT and VERSION begin their body with the
//! request's id. What comes after the fields that a type has is ignored, as OpenSSH does.

use bytes::{BufMut, BytesMut};

use crate::vfs::Attributes;

/// The longest frame after its length field: a WRITE of 256 KiB and its header.
pub(crate) const MAX_PACKET: usize = 256 * 1024 + 1024;
/// The most bytes that one READ gets; advertised through limits@openssh.com.
pub(crate) const MAX_READ: usize = 261_120;
/// A DATA packet without its data: length, type, id, length of the data.
pub(crate) const DATA_HEADER: usize = 13;

pub(crate) const PFLAG_READ: u32 = 0x01;

const INIT: u8 = 1;
const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// Status codes of version 3 that this server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

/// What a client asks. Paths are as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Open { path: &'a [u8], flags: u32 },
    Close { handle: Option<u64> },
    Read { handle: Option<u64>, offset: u64, len: u32 },
    Write,
    Stat { path: &'a [u8] },
    Fstat { handle: Option<u64> },
    Setstat { path: &'a [u8] },
    Fsetstat,
    Opendir { path: &'a [u8] },
    Readdir { handle: Option<u64> },
    Remove { path: &'a [u8] },
    Mkdir { path: &'a [u8] },
    Rmdir { path: &'a [u8] },
    Realpath { path: &'a [u8] },
    Rename { path: &'a [u8] },
    Readlink { path: &'a [u8] },
    Symlink { path: &'a [u8] },
    Extended { name: &'a [u8], body: &'a [u8] },
    Unknown { kind: u8 },
}

/// A frame's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The first packet of a client, with its version.
    Init { version: u32 },
    /// A request with its id.
    Request { id: u32, request: Request<'a> },
    /// A known type whose body is too short.
    Malformed { id: u32, kind: u8 },
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

/// Parses a frame, at least 5 bytes.
pub(crate) fn parse(frame: &[u8]) -> Option<Packet<'_>> {
    let (&kind, body) = frame.split_first()?;
    let mut body = Reader(body);
    let id = body.u32()?;
    if kind == INIT {
        return Some(Packet::Init { version: id });
    }
    Some(match request(kind, body) {
        Some(request) => Packet::Request { id, request },
        None => Packet::Malformed { id, kind },
    })
}

fn request(kind: u8, mut body: Reader<'_>) -> Option<Request<'_>> {
    Some(match kind {
        3 => Request::Open { path: body.string()?, flags: body.u32()? },
        4 => Request::Close { handle: body.handle()? },
        5 => Request::Read { handle: body.handle()?, offset: body.u64()?, len: body.u32()? },
        6 => {
            body.handle()?;
            body.u64()?;
            body.string()?;
            Request::Write
        }
        7 | 17 => Request::Stat { path: body.string()? },
        8 => Request::Fstat { handle: body.handle()? },
        9 => Request::Setstat { path: body.string()? },
        10 => {
            body.handle()?;
            Request::Fsetstat
        }
        11 => Request::Opendir { path: body.string()? },
        12 => Request::Readdir { handle: body.handle()? },
        13 => Request::Remove { path: body.string()? },
        14 => Request::Mkdir { path: body.string()? },
        15 => Request::Rmdir { path: body.string()? },
        16 => Request::Realpath { path: body.string()? },
        18 => {
            let path = body.string()?;
            body.string()?;
            Request::Rename { path }
        }
        19 => Request::Readlink { path: body.string()? },
        20 => {
            // OpenSSH sends the target first, against the draft; the link is the second either way it matters here.
            body.string()?;
            Request::Symlink { path: body.string()? }
        }
        200 => Request::Extended { name: body.string()?, body: body.0 },
        kind => Request::Unknown { kind },
    })
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

    fn u64(&mut self) -> Option<u64> {
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
        let text = self.string()?;
        Some(<[u8; 8]>::try_from(text).ok().map(u64::from_be_bytes))
    }
}

/// VERSION 3 with the extensions that [`super::dispatch`] answers.
pub(crate) fn version() -> BytesMut {
    let mut out = begin(VERSION, 3, 512);
    for (name, version) in [
        ("limits@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("fsync@openssh.com", "1"),
        ("expand-path@openssh.com", "1"),
        ("home-directory", "1"),
        ("users-groups-by-id@openssh.com", "1"),
        // Refused, with the reason: a client that doesn't see them refuses on its own, without one.
        ("posix-rename@openssh.com", "1"),
        ("hardlink@openssh.com", "1"),
    ] {
        put_string(&mut out, name.as_bytes());
        put_string(&mut out, version.as_bytes());
    }
    finish(out)
}

/// STATUS with a sentence for the client.
pub(crate) fn status(id: u32, code: Code, message: &str) -> BytesMut {
    let message = message.get(..MAX_MESSAGE).unwrap_or(message);
    let mut out = begin(STATUS, id, 16 + message.len());
    out.put_u32(code as u32);
    put_string(&mut out, message.as_bytes());
    put_string(&mut out, b"en");
    finish(out)
}

/// The longest sentence that a client gets, in bytes.
const MAX_MESSAGE: usize = 500;

/// HANDLE.
pub(crate) fn handle(id: u32, handle: u64) -> BytesMut {
    let mut out = begin(HANDLE, id, 12);
    put_string(&mut out, &handle.to_be_bytes());
    finish(out)
}

/// ATTRS.
pub(crate) fn attrs(id: u32, attributes: &Attributes) -> BytesMut {
    let mut out = begin(ATTRS, id, 32);
    put_attributes(&mut out, attributes);
    finish(out)
}

/// NAME with one path and no attributes, as REALPATH answers.
pub(crate) fn path(id: u32, path: &str) -> BytesMut {
    let mut out = begin(NAME, id, 16 + 2 * path.len());
    out.put_u32(1);
    put_string(&mut out, path.as_bytes());
    put_string(&mut out, path.as_bytes());
    out.put_u32(0);
    finish(out)
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

/// EXTENDED_REPLY with numbers, as limits@openssh.com and statvfs@openssh.com answer.
pub(crate) fn numbers(id: u32, numbers: &[u64]) -> BytesMut {
    let mut out = begin(EXTENDED_REPLY, id, 8 * numbers.len());
    for number in numbers {
        out.put_u64(*number);
    }
    finish(out)
}

/// EXTENDED_REPLY with lists of names, as users-groups-by-id@openssh.com answers: a string for each list that holds
/// a string for each name.
pub(crate) fn name_lists(id: u32, lists: [&[&str]; 2]) -> BytesMut {
    let mut out = begin(EXTENDED_REPLY, id, 64);
    for names in lists {
        let len: usize = names.iter().map(|name| 4 + name.len()).sum();
        out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        for name in names {
            put_string(&mut out, name.as_bytes());
        }
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

fn put_string(out: &mut BytesMut, text: &[u8]) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text);
}

/// Size, owner, permissions and times: flags 0x1 | 0x2 | 0x4 | 0x8.
fn put_attributes(out: &mut BytesMut, attributes: &Attributes) {
    // Version 3 has 32 bits for Unix seconds: 1970 to 2106.
    let modified = u32::try_from(attributes.modified.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX);
    out.put_u32(0xf);
    out.put_u64(attributes.size);
    out.put_u32(0);
    out.put_u32(0);
    out.put_u32(permissions(attributes));
    out.put_u32(modified);
    out.put_u32(modified);
}

/// Readable by owner and group, writable by nobody: the tree is read-only.
pub(crate) fn permissions(attributes: &Attributes) -> u32 {
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
        let handle = string(&7u64.to_be_bytes());
        let path = string(b"/Index");
        let (offset, word) = (9u64.to_be_bytes(), 5u32.to_be_bytes());
        let bodies: Vec<(u8, Vec<&[u8]>)> = vec![
            (3, vec![&path, &word, &word]),
            (4, vec![&handle]),
            (5, vec![&handle, &offset, &word]),
            (6, vec![&handle, &offset, &path]),
            (7, vec![&path]),
            (8, vec![&handle]),
            (9, vec![&path, &word]),
            (10, vec![&handle, &word]),
            (11, vec![&path]),
            (12, vec![&handle]),
            (13, vec![&path]),
            (14, vec![&path, &word]),
            (15, vec![&path]),
            (16, vec![&path]),
            (17, vec![&path]),
            (18, vec![&path, &path]),
            (19, vec![&path]),
            (20, vec![&path, &path]),
            (200, vec![&path, &word]),
            (99, vec![]),
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

    #[test]
    fn every_type_is_parsed_and_every_truncation_is_malformed() {
        for packet in samples() {
            let Some(Packet::Request { id: 77, request }) = parse(&packet) else {
                panic!("type {} isn't parsed", packet[0]);
            };
            for len in 0..packet.len() {
                match parse(&packet[..len]) {
                    None => assert!(len < 5),
                    Some(Packet::Malformed { id, kind }) => assert_eq!((id, kind), (77, packet[0])),
                    // Attributes after the last field that is read, or an extension's own body.
                    Some(Packet::Request { request: shorter, .. }) => {
                        let tail_unread = matches!(packet[0], 3 | 9 | 10 | 14 | 200);
                        assert!(
                            tail_unread && len >= 11,
                            "type {} at {len}: {shorter:?} of {request:?}",
                            packet[0]
                        );
                    }
                    Some(Packet::Init { .. }) => panic!("no INIT here"),
                }
            }
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
        assert_eq!(parse(&[1, 0, 0, 0, 3]), Some(Packet::Init { version: 3 }));
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
            status(4, Code::Failure, "no"),
            handle(4, 1),
            attrs(4, &folder),
            path(4, "/"),
            finish_names(names, 1),
            finish_data(data),
            numbers(4, &[1, 2]),
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
            }
            let mut packet = vec![kind];
            packet.extend_from_slice(&bytes);
            let _ = parse(&packet);
        }
    }
}

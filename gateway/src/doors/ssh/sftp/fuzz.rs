//! The session's way with a client's bytes, without a session: what must hold of any.

use russh_sftp::protocol;

use super::{
    super::budget::Budget,
    dispatch,
    extensions::{Extension, names_by_id},
    packet::{self, Decoded, MAX_PACKET, Packet, Request},
};
use crate::vfs::VPath;

/// Takes frames until the bytes end or are no frames.
pub(crate) fn packets(mut input: &[u8]) {
    while let Ok(Some(body)) = framed(input) {
        one(body);
        input = input.get(4 + body.len()..).unwrap_or_default();
    }
}

/// The first frame, which doesn't depend on how much of the rest has come.
fn framed(input: &[u8]) -> Result<Option<&[u8]>, packet::FrameError> {
    let whole = packet::frame(input);
    if let Ok(Some(body)) = whole {
        assert!((5..=MAX_PACKET).contains(&body.len()));
    }
    for cut in [3, 4, 8, 9, input.len() / 2, input.len().saturating_sub(1)] {
        let Some(part) = input.get(..cut) else { continue };
        match packet::frame(part) {
            Ok(None) => {}
            other => assert_eq!(other, whole, "cut after {cut}"),
        }
    }
    whole
}

fn one(body: &[u8]) {
    let sent_id = body.get(1..5).and_then(|id| id.first_chunk()).map(|id| u32::from_be_bytes(*id));
    match packet::parse(body) {
        None => assert!(sent_id.is_none(), "a frame with an id wasn't looked at"),
        Some(Packet::Init) => assert_eq!(body.first(), Some(&1)),
        Some(Packet::Request { id, request }) => {
            assert_eq!(Some(id), sent_id);
            let cost = dispatch::cost(&request);
            assert!(cost <= Budget::BYTES, "no room would ever be enough");
            if let Request::Other { frame, .. } = request
                && let Ok(decoded) = packet::decode(frame)
            {
                assert_eq!(decoded.packet.get_request_id(), id);
                names_what_was_sent(&decoded, body);
                if let protocol::Packet::Extended(extended) = &decoded.packet {
                    extension(id, &extended.request, &extended.data, cost);
                }
            }
        }
    }
}

/// What an extension asks about is what was sent, and its answer has room.
fn extension(id: u32, name: &str, body: &[u8], cost: usize) {
    let Some(extension) = Extension::read(name, body) else { return };
    let answer = match extension {
        Extension::ExpandPath(path) => match VPath::parse(&VPath::root(), path) {
            Ok(path) => packet::path(id, &path.to_string()),
            Err(_) => return,
        },
        Extension::NamesById { users, groups } => {
            assert!(users.len() + groups.len() + 8 <= body.len());
            names_by_id(id, "a-tenant-whose-name-is-as-long-as-names-are-allowed-to-be-in-all", users, groups)
        }
        Extension::Statvfs(path) | Extension::CheckFile(path, _) | Extension::Change { path, .. } => {
            assert_eq!(body.get(4..4 + path.len()), Some(path), "{name}");
            // What is no path is shown to people.
            let shown = dispatch::lossy(path);
            assert!(shown.len() <= 3 * 200 && !shown.contains(char::is_control), "{shown:?}");
            return;
        }
        _ => return,
    };
    assert!(answer.len() <= cost, "{name}: {} bytes were charged as {cost}", answer.len());
}

/// A path that is used is the one that was sent.
fn names_what_was_sent(Decoded { packet, is_utf8 }: &Decoded, body: &[u8]) {
    let named = match packet {
        protocol::Packet::Open(open) => &open.filename,
        protocol::Packet::OpenDir(open) => &open.path,
        protocol::Packet::Stat(stat) => &stat.path,
        protocol::Packet::Lstat(stat) => &stat.path,
        protocol::Packet::Remove(remove) => &remove.filename,
        protocol::Packet::RealPath(real) => &real.path,
        protocol::Packet::ReadLink(link) => &link.path,
        _ => return,
    };
    let sent = body.get(9..).unwrap_or_default();
    assert!(!is_utf8 || sent.starts_with(named.as_bytes()), "{named:?} instead of {sent:?}");
}

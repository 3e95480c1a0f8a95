//! Requests of type EXTENDED: OpenSSH's extensions, and those of drafts.

use std::sync::Arc;

use bytes::BytesMut;
use russh_sftp::{
    extensions::{self, LimitsExtension, Statvfs},
    protocol::StatusCode,
};

use super::{
    super::budget::Charge,
    Out, Sftp,
    dispatch::{Answer, bad_handle, lossy},
    handles::{Handles, MAX_HANDLES, Node},
    packet::{self, MAX_READ, Reader},
    status::read_only,
};
use crate::vfs::{OpenFile, VPath};

/// The longest packet that a client may send, as limits@openssh.com says it.
const MAX_PACKET: u64 = 256 * 1024;
/// SSH_FXE_STATVFS_ST_RDONLY of statvfs@openssh.com.
const READ_ONLY: u64 = 1;
/// Ids that one users-groups-by-id@openssh.com may ask about.
const MAX_IDS: usize = 512;
/// Bytes of a name that it is answered with, at most.
const MAX_OWNER: usize = 32;
/// Bytes of the names in its answer, each with its length.
pub(super) const MAX_NAMES_BY_ID: usize = MAX_IDS * (4 + MAX_OWNER);

impl Sftp {
    pub(super) fn extended(&self, handles: &Handles, id: u32, name: &str, body: &[u8]) -> Extended {
        Extended::Now(match Extension::read(name, body) {
            Some(Extension::Limits) => {
                let limits = LimitsExtension {
                    max_packet_len: MAX_PACKET,
                    max_read_len: MAX_READ as u64,
                    max_write_len: MAX_READ as u64,
                    max_open_handles: MAX_HANDLES as u64,
                };
                (packet::extended(id, &limits), None)
            }
            Some(Extension::HomeDirectory) => (packet::path(id, "/"), None),
            Some(Extension::ExpandPath(path)) => self.realpath(id, path, self.path(path)),
            Some(Extension::Fsync(handle)) => match handles.file(handle) {
                Some(_) => (packet::status(id, StatusCode::Ok, ""), None),
                None => (bad_handle(id), None),
            },
            Some(Extension::Statvfs(path)) => match self.path(path) {
                Ok(path) => return Extended::Statvfs(path),
                Err(refusal) => self.refuse(id, "statvfs", &lossy(path), &refusal),
            },
            Some(Extension::FileStatvfs(handle)) => match handles.find(handle) {
                Some(Node::File(file)) => return Extended::Statvfs(file.path.clone()),
                Some(Node::Folder(folder)) => return Extended::Statvfs(folder.path.clone()),
                None => (bad_handle(id), None),
            },
            Some(Extension::CheckFile(path, wanted)) => match self.path(path) {
                Ok(path) => return Extended::CheckFile(path, wanted),
                Err(refusal) => self.refuse(id, "check-file", &lossy(path), &refusal),
            },
            Some(Extension::CheckOpenFile(handle, wanted)) => match handles.file(handle) {
                Some(file) => (wanted.answer(id, &*file.file), None),
                None => (bad_handle(id), None),
            },
            Some(Extension::NamesById { users, groups }) => {
                (names_by_id(id, &self.owner(), users, groups), None)
            }
            Some(Extension::Change { operation, what, path }) => {
                self.refuse(id, operation, &lossy(path), &read_only(what))
            }
            Some(Extension::Unknown) => {
                (packet::status(id, StatusCode::OpUnsupported, "this extension is not supported"), None)
            }
            None => {
                let message = "the extension's packet is shorter than its fields";
                (packet::status(id, StatusCode::BadMessage, message), None)
            }
        })
    }

    /// A full file system, read-only, whose names have at most 255 bytes. What it holds isn't counted: one block
    /// stands for all of it, since `df` can't show a file system without any.
    pub(super) fn statvfs(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "statvfs", path, charge, move |this, account, path| async move {
            this.connection.fs.stat(&account, &path).await?;
            let statvfs = Statvfs {
                block_size: 4096,
                fragment_size: 4096,
                blocks: 1,
                blocks_free: 0,
                blocks_avail: 0,
                inodes: 0,
                inodes_free: 0,
                inodes_avail: 0,
                fs_id: 0,
                flags: READ_ONLY,
                name_max: 255,
            };
            Ok(packet::extended(id, &statvfs))
        })
    }

    /// The stored hash of a whole file. None is computed for it: a client that wants another part, or another
    /// algorithm, can compute it from the bytes as well as the gateway.
    pub(super) fn check_file(
        self: &Arc<Self>,
        id: u32,
        path: VPath,
        wanted: Wanted,
        charge: Charge,
    ) -> Vec<Out> {
        self.ask(id, "check-file", path, charge, move |this, account, path| async move {
            let _permit = this.connection.open_file(&account)?;
            let file = this.connection.fs.open(&account, &path).await?;
            Ok(wanted.answer(id, &*file))
        })
    }
}

/// An extension's fields.
#[derive(Debug, Clone, Copy)]
pub(super) enum Extension<'a> {
    Limits,
    HomeDirectory,
    /// Without its `~`.
    ExpandPath(&'a [u8]),
    Fsync(Option<u64>),
    Statvfs(&'a [u8]),
    FileStatvfs(Option<u64>),
    CheckFile(&'a [u8], Wanted),
    CheckOpenFile(Option<u64>, Wanted),
    /// Numbers of 32 bits one after another.
    NamesById {
        users: &'a [u8],
        groups: &'a [u8],
    },
    /// What isn't done, and the word for it.
    Change {
        operation: &'static str,
        what: &'static str,
        path: &'a [u8],
    },
    Unknown,
}

impl<'a> Extension<'a> {
    /// `None` where the body is shorter than the fields of its extension.
    pub(super) fn read(name: &str, body: &'a [u8]) -> Option<Self> {
        let mut body = Reader(body);
        Some(match name {
            extensions::LIMITS => Self::Limits,
            "home-directory" => {
                body.string()?;
                Self::HomeDirectory
            }
            extensions::EXPAND_PATH => Self::ExpandPath(expand(body.string()?)),
            extensions::FSYNC => Self::Fsync(body.handle()?),
            extensions::STATVFS => Self::Statvfs(body.string()?),
            "fstatvfs@openssh.com" => Self::FileStatvfs(body.handle()?),
            "check-file-name" => Self::CheckFile(body.string()?, Wanted::read(&mut body, false)?),
            "check-file-handle" | "check-file" => {
                Self::CheckOpenFile(body.handle()?, Wanted::read(&mut body, name == "check-file")?)
            }
            "users-groups-by-id@openssh.com" => {
                Self::NamesById { users: body.string()?, groups: body.string()? }
            }
            "posix-rename@openssh.com" => {
                Self::Change { operation: "rename", what: "renaming", path: body.string()? }
            }
            extensions::HARDLINK => {
                Self::Change { operation: "link", what: "making a link", path: body.string()? }
            }
            "lsetstat@openssh.com" => {
                Self::Change { operation: "setstat", what: "changing attributes", path: body.string()? }
            }
            _ => Self::Unknown,
        })
    }
}

/// Everything belongs to user and group 0, which have the tenant's name.
pub(super) fn names_by_id(id: u32, owner: &str, users: &[u8], groups: &[u8]) -> BytesMut {
    if users.len() + groups.len() > 4 * MAX_IDS {
        let message = format!("at most {MAX_IDS} ids are looked up at once");
        return packet::status(id, StatusCode::Failure, &message);
    }
    let owner = owner.get(..owner.floor_char_boundary(MAX_OWNER)).unwrap_or_default();
    let names = |ids: &[u8]| -> Vec<&str> {
        ids.chunks_exact(4).map(|id| if id == [0; 4] { owner } else { "" }).collect()
    };
    packet::name_lists(id, [&names(users), &names(groups)])
}

/// What an extension asks for.
pub(super) enum Extended {
    /// Answered.
    Now(Answer),
    Statvfs(VPath),
    CheckFile(VPath, Wanted),
}

/// What a client wants to know of a file's bytes (draft-ietf-secsh-filexfer-extensions-00, 3).
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    sha256: bool,
    offset: u64,
    /// 0 is up to the end.
    length: u64,
    /// 0 is one digest for all.
    block: u32,
    for_paramiko: bool,
}

impl Wanted {
    /// The fields after the file's name or handle.
    fn read(body: &mut Reader<'_>, for_paramiko: bool) -> Option<Self> {
        let algorithms = body.string()?;
        let sha256 = algorithms.split(|byte| *byte == b',').any(|name| name == b"sha256");
        Some(Self { sha256, offset: body.u64()?, length: body.u64()?, block: body.u32()?, for_paramiko })
    }

    /// What is stored of the file answers it, or nothing does.
    fn answer(self, id: u32, file: &dyn OpenFile) -> BytesMut {
        let size = file.attributes().size;
        let whole = self.offset == 0
            && (self.length == 0 || self.length >= size)
            && (self.block == 0 || u64::from(self.block) >= size);
        match file.sha256() {
            _ if !self.sha256 || !whole => {
                let message = "only the SHA-256 of a whole file is known, in one block";
                packet::status(id, StatusCode::OpUnsupported, message)
            }
            Some(sha256) => packet::file_sha256(id, &sha256, self.for_paramiko),
            None => packet::status(id, StatusCode::Failure, "no hash of this file is stored yet"),
        }
    }
}

/// `~` and `~user` are the root, as home-directory says.
fn expand(path: &[u8]) -> &[u8] {
    match path.split_first() {
        Some((b'~', rest)) => {
            let user = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            rest.split_at_checked(user).map_or(b"/", |(_, rest)| rest)
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::dispatch, *};
    use crate::doors::ssh::sftp::packet::{EXTENDED, Request};

    #[test]
    fn the_names_of_all_ids_that_are_taken_have_room_in_what_the_request_costs() {
        let owner = "ö".repeat(MAX_OWNER);
        let names = names_by_id(7, &owner, &[0; 2 * MAX_IDS], &[0; 2 * MAX_IDS]);
        assert!(names.len() > MAX_NAMES_BY_ID);
        assert!(names.len() <= dispatch::cost(&Request::Other { kind: EXTENDED, frame: &[] }));
        let too_many = names_by_id(7, &owner, &[0; 4 * MAX_IDS], &[0; 4]);
        assert!(String::from_utf8_lossy(&too_many).contains("at most 512 ids"));
    }

    #[test]
    fn a_home_is_the_root() {
        for (path, expanded) in
            [("~", "/"), ("~/x", "/x"), ("~jane", "/"), ("~jane/x", "/x"), ("x~", "/x~"), ("", "/")]
        {
            let path = VPath::parse(&VPath::root(), expand(path.as_bytes())).unwrap();
            assert_eq!(path.to_string(), expanded);
        }
    }
}

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
const MAX_IDS: usize = 256;

impl Sftp {
    pub(super) fn extended(&self, handles: &Handles, id: u32, name: &str, body: &[u8]) -> Extended {
        let mut body = Reader(body);
        let answer = match name {
            extensions::LIMITS => {
                let limits = LimitsExtension {
                    max_packet_len: MAX_PACKET,
                    max_read_len: MAX_READ as u64,
                    max_write_len: MAX_READ as u64,
                    max_open_handles: MAX_HANDLES as u64,
                };
                Some((packet::extended(id, &limits), None))
            }
            "home-directory" => body.string().map(|_| (packet::path(id, "/"), None)),
            extensions::EXPAND_PATH => body.string().map(|path| {
                let path = expand(path);
                self.realpath(id, path, self.path(path))
            }),
            extensions::FSYNC => body.handle().map(|handle| match handles.file(handle) {
                Some(_) => (packet::status(id, StatusCode::Ok, ""), None),
                None => (bad_handle(id), None),
            }),
            extensions::STATVFS => match body.string().map(|path| (self.path(path), path)) {
                Some((Ok(path), _)) => return Extended::Statvfs(path),
                Some((Err(refusal), path)) => Some(self.refuse(id, "statvfs", &lossy(path), &refusal)),
                None => None,
            },
            "fstatvfs@openssh.com" => match body.handle().map(|handle| handles.find(handle)) {
                Some(Some(Node::File(file))) => return Extended::Statvfs(file.path.clone()),
                Some(Some(Node::Folder(folder))) => return Extended::Statvfs(folder.path.clone()),
                Some(None) => Some((bad_handle(id), None)),
                None => None,
            },
            "check-file-name" => {
                match body.string().and_then(|path| Some((path, Wanted::read(&mut body, false)?))) {
                    Some((path, wanted)) => match self.path(path) {
                        Ok(path) => return Extended::CheckFile(path, wanted),
                        Err(refusal) => Some(self.refuse(id, "check-file", &lossy(path), &refusal)),
                    },
                    None => None,
                }
            }
            "check-file-handle" | "check-file" => {
                match body
                    .handle()
                    .and_then(|handle| Some((handle, Wanted::read(&mut body, name == "check-file")?)))
                {
                    Some((handle, wanted)) => match handles.file(handle) {
                        Some(file) => Some((wanted.answer(id, &*file.file), None)),
                        None => Some((bad_handle(id), None)),
                    },
                    None => None,
                }
            }
            "users-groups-by-id@openssh.com" => {
                body.string().zip(body.string()).map(|(users, groups)| self.names_by_id(id, users, groups))
            }
            "posix-rename@openssh.com" => {
                body.string().map(|path| self.refuse(id, "rename", &lossy(path), &read_only("renaming")))
            }
            extensions::HARDLINK => {
                body.string().map(|path| self.refuse(id, "link", &lossy(path), &read_only("making a link")))
            }
            "lsetstat@openssh.com" => body
                .string()
                .map(|path| self.refuse(id, "setstat", &lossy(path), &read_only("changing attributes"))),
            _ => {
                Some((packet::status(id, StatusCode::OpUnsupported, "this extension is not supported"), None))
            }
        };
        Extended::Now(answer.unwrap_or_else(|| {
            (
                packet::status(
                    id,
                    StatusCode::BadMessage,
                    "the extension's packet is shorter than its fields",
                ),
                None,
            )
        }))
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

    /// Everything belongs to user and group 0, which have the tenant's name.
    fn names_by_id(&self, id: u32, users: &[u8], groups: &[u8]) -> Answer {
        // 36 bytes each, for which an extension's cost has room.
        if users.len() + groups.len() > 4 * MAX_IDS {
            let message = format!("at most {MAX_IDS} ids are looked up at once");
            return (packet::status(id, StatusCode::Failure, &message), None);
        }
        let owner = self.owner();
        let names = |ids: &[u8]| -> Vec<&str> {
            ids.chunks_exact(4)
                .map(|id| if id == [0; 4] { owner.get(..32).unwrap_or(&owner) } else { "" })
                .collect()
        };
        (packet::name_lists(id, [&names(users), &names(groups)]), None)
    }
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

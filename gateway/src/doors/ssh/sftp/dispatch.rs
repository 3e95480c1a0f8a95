//! What each request does.

use std::{fmt::Display, future::Future, sync::Arc};

use bytes::BytesMut;

use super::{
    super::budget::Charge,
    Out, Owed, Sftp,
    handles::{File, Folder, Handles, MAX_HANDLES, Node},
    listing::{self, MAX_NAMES, Pages},
    packet::{self, Code, DATA_HEADER, MAX_READ, PFLAG_READ, Reader, Request},
    status::{bad_path, read_only},
};
use crate::{
    identity::Account,
    vfs::{Refusal, RefusalKind, VPath},
};

/// Bytes that a reply without content costs.
pub(super) const SMALL: usize = 1024;
/// The longest packet that a client may send, as limits@openssh.com says it.
const MAX_PACKET: u64 = 256 * 1024;
/// Ids that one users-groups-by-id@openssh.com may ask about.
const MAX_IDS: usize = 512;

/// Bytes that a request's reply may have at most.
pub(super) fn cost(request: &Request<'_>) -> usize {
    match request {
        Request::Read { len, .. } => DATA_HEADER + clamp(*len).max(SMALL),
        Request::Readdir { .. } => MAX_NAMES + SMALL,
        // A path comes back twice.
        Request::Realpath { .. } | Request::Extended { .. } => SMALL + 3 * VPath::MAX_BYTES,
        _ => SMALL,
    }
}

impl Sftp {
    /// Answers at once, or starts a task that will.
    pub(super) fn dispatch(
        self: &Arc<Self>,
        handles: &mut Handles,
        id: u32,
        request: Request<'_>,
        charge: Charge,
    ) -> Vec<Out> {
        let now = match request {
            Request::Read { handle, offset, len } => {
                return self.read(handles, id, handle, offset, len, charge);
            }
            Request::Open { path, flags } => {
                if flags & !PFLAG_READ != 0 {
                    self.refuse(id, "open", &lossy(path), &read_only("writing"))
                } else if flags & PFLAG_READ == 0 {
                    (
                        packet::status(
                            id,
                            Code::BadMessage,
                            "the file is to be opened neither to read nor to write",
                        ),
                        None,
                    )
                } else {
                    return self.open(handles, id, path, charge, Kind::File);
                }
            }
            Request::Opendir { path } => return self.open(handles, id, path, charge, Kind::Folder),
            Request::Readdir { handle } => match handles.find(handle) {
                Some(Node::Folder(folder)) => {
                    self.readdir(Arc::clone(folder), id, charge);
                    return Vec::new();
                }
                _ => (bad_handle(id), None),
            },
            Request::Close { handle } => match handles.close(handle) {
                Some(_) => (packet::status(id, Code::Ok, ""), None),
                None => (bad_handle(id), None),
            },
            Request::Fstat { handle } => match handles.find(handle) {
                Some(Node::File(file)) => (packet::attrs(id, &file.file.attributes()), None),
                Some(Node::Folder(folder)) => return self.stat(id, folder.path.clone(), charge),
                None => (bad_handle(id), None),
            },
            Request::Stat { path } => match self.path(path) {
                Ok(path) => return self.stat(id, path, charge),
                Err(refusal) => self.refuse(id, "stat", &lossy(path), &refusal),
            },
            Request::Remove { path } => match self.path(path) {
                Ok(path) => return self.remove(id, path, charge),
                Err(refusal) => self.refuse(id, "remove", &lossy(path), &refusal),
            },
            Request::Realpath { path } => self.realpath(id, path),
            Request::Readlink { path } => match self.path(path) {
                Ok(path) => return self.readlink(id, path, charge),
                Err(refusal) => self.refuse(id, "readlink", &lossy(path), &refusal),
            },
            Request::Write => self.refuse(id, "write", &"an open file", &read_only("writing")),
            Request::Fsetstat => {
                self.refuse(id, "setstat", &"an open file", &read_only("changing attributes"))
            }
            Request::Setstat { path } => {
                self.refuse(id, "setstat", &lossy(path), &read_only("changing attributes"))
            }
            Request::Mkdir { path } => self.refuse(id, "mkdir", &lossy(path), &read_only("making a folder")),
            Request::Rmdir { path } => {
                self.refuse(id, "rmdir", &lossy(path), &read_only("removing a folder"))
            }
            Request::Rename { path } => self.refuse(id, "rename", &lossy(path), &read_only("renaming")),
            Request::Symlink { path } => {
                self.refuse(id, "symlink", &lossy(path), &read_only("making a link"))
            }
            Request::Extended { name, body } => match self.extended(handles, id, name, body) {
                Extended::Now(reply) => reply,
                Extended::Statvfs(path) => return self.statvfs(id, path, charge),
            },
            Request::Unknown { kind } => (
                packet::status(
                    id,
                    Code::OpUnsupported,
                    &format!("requests of type {kind} are not supported"),
                ),
                None,
            ),
        };
        outs(now, charge)
    }

    fn read(
        self: &Arc<Self>,
        handles: &Handles,
        id: u32,
        handle: Option<u64>,
        offset: u64,
        len: u32,
        charge: Charge,
    ) -> Vec<Out> {
        let Some(file) = handles.file(handle) else { return outs((bad_handle(id), None), charge) };
        let left = usize::try_from(file.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        // Never shorter than asked but at the end: OpenSSH lowers its request size for good.
        let want = clamp(len).min(left);
        if want == 0 {
            return outs((packet::status(id, Code::Eof, "end of file"), None), charge);
        }
        let mut out = packet::begin_data(id, want);
        if file.file.read_now(offset, want, &mut out) {
            let done = self.finish_read(id, file, offset, want, out);
            return outs(done, charge);
        }
        let (this, file) = (Arc::clone(self), Arc::clone(file));
        self.spawn(id, charge, async move {
            match file.file.read(offset, want, &mut out).await {
                Ok(()) => this.finish_read(id, &file, offset, want, out),
                Err(refusal) => this.refuse(id, "read", &file.path, &refusal),
            }
        });
        Vec::new()
    }

    fn finish_read(
        &self,
        id: u32,
        file: &File,
        offset: u64,
        want: usize,
        out: BytesMut,
    ) -> (BytesMut, Option<String>) {
        if out.len() == DATA_HEADER + want {
            file.count(offset, want);
            return (packet::finish_data(out), None);
        }
        let got = out.len().saturating_sub(DATA_HEADER);
        let refusal = Refusal::new(RefusalKind::Internal, "the file could not be read")
            .with_detail(format!("{got} bytes came instead of {want} at offset {offset} of {}", file.size));
        self.refuse(id, "read", &file.path, &refusal)
    }

    fn open(
        self: &Arc<Self>,
        handles: &mut Handles,
        id: u32,
        path: &[u8],
        charge: Charge,
        kind: Kind,
    ) -> Vec<Out> {
        let operation = kind.operation();
        let refused = match self.path(path) {
            Err(refusal) => refusal,
            Ok(_) if self.connection.drain.has_begun() => {
                Refusal::new(RefusalKind::Busy, "the gateway is shutting down")
            }
            Ok(_) if !handles.reserve() => Refusal::new(
                RefusalKind::Busy,
                format!("{MAX_HANDLES} files and folders are open, close some"),
            ),
            Ok(path) => {
                let place = Place(Arc::clone(self), false);
                self.spawn(id, charge, async move {
                    let mut place = place;
                    match open_node(&place.0, &path, kind).await {
                        Ok(node) => match place.take(node) {
                            Some(handle) => (packet::handle(id, handle), None),
                            None => (bad_handle(id), None),
                        },
                        Err(refusal) => place.0.refuse(id, operation, &path, &refusal),
                    }
                });
                return Vec::new();
            }
        };
        outs(self.refuse(id, operation, &lossy(path), &refused), charge)
    }

    fn readdir(self: &Arc<Self>, folder: Arc<Folder>, id: u32, charge: Charge) {
        if !folder.push(id, charge) {
            return;
        }
        let owed = Owed::new(self);
        tokio::spawn(async move {
            let this = &owed.0;
            while let Some((id, charge)) = folder.pop() {
                let answer = async {
                    let answer = match this.account() {
                        Ok(_) => folder.pages.lock().await.next(id).await,
                        Err(refusal) => Err(refusal),
                    };
                    match answer {
                        Ok(Some(names)) => (names, None),
                        Ok(None) => (packet::status(id, Code::Eof, "end of folder"), None),
                        Err(refusal) => this.refuse(id, "readdir", &folder.path, &refusal),
                    }
                };
                this.work(id, charge, answer).await;
            }
        });
    }

    fn stat(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "stat", path, charge, move |this, account, path| async move {
            Ok(packet::attrs(id, &this.connection.fs.stat(&account, &path).await?))
        })
    }

    fn remove(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "remove", path, charge, move |this, account, path| async move {
            this.connection.fs.remove(&account, &path).await?;
            Ok(packet::status(id, Code::Ok, ""))
        })
    }

    fn readlink(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "readlink", path, charge, move |this, account, path| async move {
            this.connection.fs.stat(&account, &path).await?;
            Ok(packet::status(id, Code::Failure, "not a link"))
        })
    }

    /// A file system without free space, read-only, whose names have at most 255 bytes.
    fn statvfs(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "statvfs", path, charge, move |this, account, path| async move {
            this.connection.fs.stat(&account, &path).await?;
            Ok(packet::numbers(id, &[4096, 4096, 0, 0, 0, 0, 0, 0, 0, 1, 255]))
        })
    }

    /// Normalises; the path needn't exist. Nothing leads above the root.
    fn realpath(&self, id: u32, path: &[u8]) -> (BytesMut, Option<String>) {
        match self.path(path) {
            Ok(path) => (packet::path(id, &path.to_string()), None),
            Err(refusal) => self.refuse(id, "realpath", &lossy(path), &refusal),
        }
    }

    fn extended(&self, handles: &Handles, id: u32, name: &[u8], body: &[u8]) -> Extended {
        let mut body = Reader(body);
        let answer = match name {
            b"limits@openssh.com" => {
                let (read, open) = (MAX_READ as u64, MAX_HANDLES as u64);
                Some((packet::numbers(id, &[MAX_PACKET, read, read, open]), None))
            }
            b"home-directory" => body.string().map(|_| (packet::path(id, "/"), None)),
            b"expand-path@openssh.com" => body.string().map(|path| self.realpath(id, expand(path))),
            b"fsync@openssh.com" => body.handle().map(|handle| match handles.file(handle) {
                Some(_) => (packet::status(id, Code::Ok, ""), None),
                None => (bad_handle(id), None),
            }),
            b"statvfs@openssh.com" => match body.string().map(|path| (self.path(path), path)) {
                Some((Ok(path), _)) => return Extended::Statvfs(path),
                Some((Err(refusal), path)) => Some(self.refuse(id, "statvfs", &lossy(path), &refusal)),
                None => None,
            },
            b"fstatvfs@openssh.com" => match body.handle().map(|handle| handles.find(handle)) {
                Some(Some(Node::File(file))) => return Extended::Statvfs(file.path.clone()),
                Some(Some(Node::Folder(folder))) => return Extended::Statvfs(folder.path.clone()),
                Some(None) => Some((bad_handle(id), None)),
                None => None,
            },
            b"users-groups-by-id@openssh.com" => {
                body.string().zip(body.string()).map(|(users, groups)| self.names_by_id(id, users, groups))
            }
            b"posix-rename@openssh.com" => {
                body.string().map(|path| self.refuse(id, "rename", &lossy(path), &read_only("renaming")))
            }
            b"hardlink@openssh.com" => {
                body.string().map(|path| self.refuse(id, "link", &lossy(path), &read_only("making a link")))
            }
            b"lsetstat@openssh.com" => body
                .string()
                .map(|path| self.refuse(id, "setstat", &lossy(path), &read_only("changing attributes"))),
            _ => Some((packet::status(id, Code::OpUnsupported, "this extension is not supported"), None)),
        };
        Extended::Now(answer.unwrap_or_else(|| {
            (packet::status(id, Code::BadMessage, "the extension's packet is shorter than its fields"), None)
        }))
    }

    /// Everything belongs to user and group 0, which have the tenant's name.
    fn names_by_id(&self, id: u32, users: &[u8], groups: &[u8]) -> (BytesMut, Option<String>) {
        if users.len() + groups.len() > 4 * MAX_IDS {
            let message = format!("at most {MAX_IDS} ids are looked up at once");
            return (packet::status(id, Code::Failure, &message), None);
        }
        let owner = self.owner();
        let names = |ids: &[u8]| -> Vec<&str> {
            ids.chunks_exact(4)
                .map(|id| if id == [0; 4] { owner.get(..32).unwrap_or(&owner) } else { "" })
                .collect()
        };
        (packet::name_lists(id, [&names(users), &names(groups)]), None)
    }

    /// Asks the vfs in a task of its own.
    fn ask<A, F>(
        self: &Arc<Self>,
        id: u32,
        operation: &'static str,
        path: VPath,
        charge: Charge,
        ask: A,
    ) -> Vec<Out>
    where
        A: FnOnce(Arc<Sftp>, Account, VPath) -> F + Send + 'static,
        F: Future<Output = Result<BytesMut, Refusal>> + Send,
    {
        let this = Arc::clone(self);
        self.spawn(id, charge, async move {
            let answer = match this.account() {
                Ok(account) => ask(Arc::clone(&this), account, path.clone()).await,
                Err(refusal) => Err(refusal),
            };
            match answer {
                Ok(reply) => (reply, None),
                Err(refusal) => this.refuse(id, operation, &path, &refusal),
            }
        });
        Vec::new()
    }

    fn account(&self) -> Result<Account, Refusal> {
        self.connection.account().map_err(|ended| Refusal::new(RefusalKind::Forbidden, ended.to_string()))
    }

    /// The tenant's name, as `ls -l` shows it.
    fn owner(&self) -> String {
        let login = self.connection.login_name();
        listing::one_word(login.split('/').next().unwrap_or_default())
    }

    /// Paths are taken from the root: a session has no working folder.
    #[expect(clippy::unused_self, reason = "reads as the session's own notion of a path")]
    fn path(&self, text: &[u8]) -> Result<VPath, Refusal> {
        VPath::parse(&VPath::root(), text).map_err(bad_path)
    }
}

/// What an open opens.
#[derive(Debug, Clone, Copy)]
enum Kind {
    File,
    Folder,
}

impl Kind {
    fn operation(self) -> &'static str {
        match self {
            Kind::File => "open",
            Kind::Folder => "opendir",
        }
    }
}

enum Extended {
    Now((BytesMut, Option<String>)),
    Statvfs(VPath),
}

async fn open_node(sftp: &Arc<Sftp>, path: &VPath, kind: Kind) -> Result<Node, Refusal> {
    let account = sftp.account()?;
    let fs = &sftp.connection.fs;
    match kind {
        Kind::File => {
            let file = fs.open(&account, path).await?;
            Ok(Node::File(Arc::new(File::new(file, path.clone(), Arc::clone(&sftp.connection)))))
        }
        Kind::Folder => {
            let listing = fs.list(&account, path).await?;
            let folder = fs.stat(&account, path).await?;
            Ok(Node::Folder(Arc::new(Folder::new(path.clone(), Pages::new(listing, folder, &sftp.owner())))))
        }
    }
}

/// A place in the table of handles that an open holds. It is given back however the open ends.
struct Place(Arc<Sftp>, bool);

impl Place {
    /// The handle; `None` where the channel has ended meanwhile.
    fn take(&mut self, node: Node) -> Option<u64> {
        self.1 = true;
        let mut state = self.0.state();
        let node = (!self.0.has_ended()).then_some(node);
        state.handles.opened(node)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.1 {
            self.0.state().handles.opened(None);
        }
    }
}

fn outs((reply, explanation): (BytesMut, Option<String>), charge: Charge) -> Vec<Out> {
    let mut outs = Vec::with_capacity(1);
    outs.extend(explanation.map(Out::StandardError));
    outs.push(Out::Reply(charge.reply(reply)));
    outs
}

fn bad_handle(id: u32) -> BytesMut {
    packet::status(id, Code::Failure, "no such handle")
}

fn clamp(len: u32) -> usize {
    usize::try_from(len).unwrap_or(MAX_READ).min(MAX_READ)
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

/// A path for the log and for people, whatever its bytes.
fn lossy(path: &[u8]) -> impl Display {
    let path = path.get(..200).unwrap_or(path);
    let text: String =
        String::from_utf8_lossy(path).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    text
}

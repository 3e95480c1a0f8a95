//! What each request does.

use std::{future::Future, sync::Arc};

use bytes::BytesMut;
use russh_sftp::protocol::{self, OpenFlags, Packet, StatusCode};

use super::{
    super::budget::Charge,
    Out, Owed, Sftp,
    extensions::{Extended, MAX_NAMES_BY_ID},
    handles::{File, Folder, Handles, MAX_HANDLES, Node},
    listing::{self, MAX_NAMES, Pages},
    packet::{self, DATA_HEADER, Decoded, EXTENDED, MAX_READ, READ, READDIR, REALPATH, Request, Undecodable},
    status::{bad_path, read_only},
};
use crate::{
    identity::Account,
    telemetry::{SftpWork, metrics},
    vfs::{PathError, Refusal, RefusalKind, VPath},
};

/// A reply, and a line for the client's standard error.
pub(super) type Answer = (BytesMut, Option<String>);

/// Bytes that a reply without content costs.
const SMALL: usize = 1024;

/// Bytes that a request's reply may have at most.
pub(super) fn cost(request: &Request<'_>) -> usize {
    match request {
        Request::Read { len, .. } => DATA_HEADER + clamp(*len).max(SMALL),
        Request::Other { kind: READDIR, .. } => MAX_NAMES + SMALL,
        // A path comes back twice.
        Request::Other { kind: REALPATH, .. } => SMALL + 3 * VPath::MAX_BYTES,
        Request::Other { kind: EXTENDED, .. } => SMALL + (3 * VPath::MAX_BYTES).max(MAX_NAMES_BY_ID),
        Request::MalformedRead | Request::Other { .. } => SMALL,
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
        metrics().sftp().count(request.label());
        let now = match request {
            Request::Read { handle, offset, len } => {
                return self.read(handles, id, handle, offset, len, charge);
            }
            Request::MalformedRead => malformed(id, READ),
            Request::Other { kind, frame } => match packet::decode(frame) {
                Ok(decoded) => return self.decoded(handles, id, decoded, charge),
                Err(Undecodable::Malformed) => malformed(id, kind),
                Err(Undecodable::Unknown) => unknown(id, kind),
            },
        };
        outs((now, None), charge)
    }

    /// All requests but READ.
    fn decoded(
        self: &Arc<Self>,
        handles: &mut Handles,
        id: u32,
        Decoded { packet, is_utf8 }: Decoded,
        charge: Charge,
    ) -> Vec<Out> {
        let parse = |path: &str| match is_utf8 {
            true => self.path(path.as_bytes()),
            false => Err(bad_path(PathError::NotUtf8)),
        };
        let now = match packet {
            Packet::Open(open) => {
                // `bits` has those too that aren't named.
                let flags = open.pflags.bits();
                if flags & !OpenFlags::READ.bits() != 0 {
                    self.refuse(id, "open", &lossy(&open.filename), &read_only("writing"))
                } else if flags == 0 {
                    let message = "the file is to be opened neither to read nor to write";
                    (packet::status(id, StatusCode::BadMessage, message), None)
                } else {
                    let path = parse(&open.filename);
                    return self.open(handles, id, &open.filename, path, charge, Kind::File);
                }
            }
            Packet::OpenDir(open) => {
                return self.open(handles, id, &open.path, parse(&open.path), charge, Kind::Folder);
            }
            Packet::ReadDir(read) => match handles.find(packet::number(read.handle)) {
                Some(Node::Folder(folder)) => {
                    self.readdir(Arc::clone(folder), id, charge);
                    return Vec::new();
                }
                _ => (bad_handle(id), None),
            },
            Packet::Close(close) => match handles.close(packet::number(close.handle)) {
                Some(_) => (packet::status(id, StatusCode::Ok, ""), None),
                None => (bad_handle(id), None),
            },
            Packet::Fstat(stat) => match handles.find(packet::number(stat.handle)) {
                Some(Node::File(file)) => (packet::attrs(id, &file.file.attributes()), None),
                Some(Node::Folder(folder)) => return self.stat(id, folder.path.clone(), charge),
                None => (bad_handle(id), None),
            },
            // There are no links.
            Packet::Stat(protocol::Stat { path, .. }) | Packet::Lstat(protocol::Lstat { path, .. }) => {
                match parse(&path) {
                    Ok(path) => return self.stat(id, path, charge),
                    Err(refusal) => self.refuse(id, "stat", &lossy(&path), &refusal),
                }
            }
            Packet::Remove(remove) => match parse(&remove.filename) {
                Ok(path) => return self.remove(id, path, charge),
                Err(refusal) => self.refuse(id, "remove", &lossy(&remove.filename), &refusal),
            },
            Packet::RealPath(real) => self.realpath(id, &real.path, parse(&real.path)),
            Packet::ReadLink(link) => match parse(&link.path) {
                Ok(path) => return self.readlink(id, path, charge),
                Err(refusal) => self.refuse(id, "readlink", &lossy(&link.path), &refusal),
            },
            Packet::Write(_) => self.refuse(id, "write", &"an open file", &read_only("writing")),
            Packet::FSetStat(_) => {
                self.refuse(id, "setstat", &"an open file", &read_only("changing attributes"))
            }
            Packet::SetStat(set) => {
                self.refuse(id, "setstat", &lossy(set.path), &read_only("changing attributes"))
            }
            Packet::MkDir(make) => self.refuse(id, "mkdir", &lossy(make.path), &read_only("making a folder")),
            Packet::RmDir(remove) => {
                self.refuse(id, "rmdir", &lossy(remove.path), &read_only("removing a folder"))
            }
            Packet::Rename(rename) => {
                self.refuse(id, "rename", &lossy(rename.oldpath), &read_only("renaming"))
            }
            // OpenSSH sends the target first, against the draft, so what is called the target is the link.
            Packet::Symlink(link) => {
                self.refuse(id, "symlink", &lossy(link.targetpath), &read_only("making a link"))
            }
            Packet::Extended(extended) => {
                match self.extended(handles, id, &extended.request, &extended.data) {
                    Extended::Now(reply) => reply,
                    Extended::Statvfs(path) => return self.statvfs(id, path, charge),
                    Extended::CheckFile(path, wanted) => return self.check_file(id, path, wanted, charge),
                }
            }
            // READ is taken before, replies aren't decoded.
            _ => (packet::status(id, StatusCode::OpUnsupported, "not a request"), None),
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
            let end = (packet::status(id, StatusCode::Eof, "end of file"), None);
            if file.nobody_waits() {
                return outs(end, charge);
            }
            self.spawn_in_turn(id, charge, file.join_line(), std::future::ready(end));
            return Vec::new();
        }
        if !self.connection.may_send(want) {
            return self.read_paced(id, Arc::clone(file), offset, want, charge);
        }
        let mut out = packet::begin_data(id, want);
        let overtakes = !file.nobody_waits();
        if !overtakes && file.file.read_now(offset, want, &mut out) {
            let done = self.finish_read(id, file, offset, want, out);
            return outs(done, charge);
        }
        let (this, file) = (Arc::clone(self), Arc::clone(file));
        let timer = metrics().sftp().start(SftpWork::Read);
        self.spawn_in_turn(id, charge, file.join_line(), async move {
            let _timer = timer;
            match file.file.read(offset, want, &mut out).await {
                Ok(()) => this.finish_read(id, &file, offset, want, out),
                Err(refusal) => this.refuse(id, "read", &file.path, &refusal),
            }
        });
        Vec::new()
    }

    /// A read that waits for its share of the bandwidth. Nothing is read or allocated before.
    fn read_paced(
        self: &Arc<Self>,
        id: u32,
        file: Arc<File>,
        offset: u64,
        want: usize,
        charge: Charge,
    ) -> Vec<Out> {
        let this = Arc::clone(self);
        let share = self.connection.paced(want);
        self.spawn_in_turn(id, charge, file.join_line(), async move {
            share.await;
            let mut out = packet::begin_data(id, want);
            if !file.file.read_now(offset, want, &mut out) {
                // The wait for the share isn't storage's.
                let _timer = metrics().sftp().start(SftpWork::Read);
                if let Err(refusal) = file.file.read(offset, want, &mut out).await {
                    return this.refuse(id, "read", &file.path, &refusal);
                }
            }
            this.finish_read(id, &file, offset, want, out)
        });
        Vec::new()
    }

    fn finish_read(&self, id: u32, file: &File, offset: u64, want: usize, out: BytesMut) -> Answer {
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
        text: &str,
        path: Result<VPath, Refusal>,
        charge: Charge,
        kind: Kind,
    ) -> Vec<Out> {
        let operation = kind.operation();
        let refused = match path {
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
                let timer = metrics().sftp().start(kind.work());
                self.spawn(id, charge, async move {
                    let _timer = timer;
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
        outs(self.refuse(id, operation, &lossy(text), &refused), charge)
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
                    let _timer = metrics().sftp().start(SftpWork::Readdir);
                    let answer = match this.account() {
                        Ok(_) => folder.pages.lock().await.next(id).await,
                        Err(refusal) => Err(refusal),
                    };
                    match answer {
                        Ok(Some(names)) => (names, None),
                        Ok(None) => (packet::status(id, StatusCode::Eof, "end of folder"), None),
                        Err(refusal) => this.refuse(id, "readdir", &folder.path, &refusal),
                    }
                };
                this.work(id, charge, answer).await;
            }
        });
    }

    fn stat(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        let timer = metrics().sftp().start(SftpWork::Stat);
        self.ask(id, "stat", path, charge, move |this, account, path| async move {
            let _timer = timer;
            Ok(packet::attrs(id, &this.connection.fs.stat(&account, &path).await?))
        })
    }

    fn remove(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "remove", path, charge, move |this, account, path| async move {
            this.connection.fs.remove(&account, &path).await?;
            Ok(packet::status(id, StatusCode::Ok, ""))
        })
    }

    fn readlink(self: &Arc<Self>, id: u32, path: VPath, charge: Charge) -> Vec<Out> {
        self.ask(id, "readlink", path, charge, move |this, account, path| async move {
            this.connection.fs.stat(&account, &path).await?;
            Ok(packet::status(id, StatusCode::Failure, "not a link"))
        })
    }

    /// Normalises; the path needn't exist. Nothing leads above the root.
    pub(super) fn realpath(&self, id: u32, text: impl AsRef<[u8]>, path: Result<VPath, Refusal>) -> Answer {
        match path {
            Ok(path) => (packet::path(id, &path.to_string()), None),
            Err(refusal) => self.refuse(id, "realpath", &lossy(text), &refusal),
        }
    }

    /// Asks the vfs.
    pub(super) fn ask<A, F>(
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
        self.at_once_or_spawn(id, charge, async move {
            let answer = match this.account() {
                Ok(account) => ask(Arc::clone(&this), account, path.clone()).await,
                Err(refusal) => Err(refusal),
            };
            match answer {
                Ok(reply) => (reply, None),
                Err(refusal) => this.refuse(id, operation, &path, &refusal),
            }
        })
    }

    fn account(&self) -> Result<Account, Refusal> {
        self.connection.account().map_err(|ended| Refusal::new(RefusalKind::Forbidden, ended.to_string()))
    }

    /// The tenant's name, as `ls -l` shows it.
    pub(super) fn owner(&self) -> String {
        let login = self.connection.login_name();
        listing::one_word(login.split('/').next().unwrap_or_default())
    }

    /// Paths are taken from the root: a session has no working folder.
    #[expect(clippy::unused_self, reason = "reads as the session's own notion of a path")]
    pub(super) fn path(&self, text: &[u8]) -> Result<VPath, Refusal> {
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

    fn work(self) -> SftpWork {
        match self {
            Kind::File => SftpWork::Open,
            Kind::Folder => SftpWork::Opendir,
        }
    }
}

async fn open_node(sftp: &Arc<Sftp>, path: &VPath, kind: Kind) -> Result<Node, Refusal> {
    let account = sftp.account()?;
    let fs = &sftp.connection.fs;
    match kind {
        Kind::File => {
            let permit = sftp.connection.open_file(&account)?;
            let file = fs.open(&account, path).await?;
            Ok(Node::File(Arc::new(File::new(file, path.clone(), Arc::clone(&sftp.connection), permit))))
        }
        Kind::Folder => {
            let open = sftp.connection.open_folder()?;
            let listing = fs.list(&account, path).await?;
            let folder = fs.stat(&account, path).await?;
            Ok(Node::Folder(Arc::new(Folder::new(
                path.clone(),
                Pages::new(listing, folder, &sftp.owner()),
                open,
            ))))
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

pub(super) fn outs((reply, explanation): Answer, charge: Charge) -> Vec<Out> {
    let mut outs = Vec::with_capacity(1);
    outs.extend(explanation.map(Out::StandardError));
    outs.push(Out::Reply(charge.reply(reply)));
    outs
}

pub(super) fn bad_handle(id: u32) -> BytesMut {
    packet::status(id, StatusCode::Failure, "no such handle")
}

fn malformed(id: u32, kind: u8) -> BytesMut {
    let message = format!("the packet of type {kind} is shorter than its fields");
    packet::status(id, StatusCode::BadMessage, &message)
}

fn unknown(id: u32, kind: u8) -> BytesMut {
    let message = format!("requests of type {kind} are not supported");
    packet::status(id, StatusCode::OpUnsupported, &message)
}

fn clamp(len: u32) -> usize {
    usize::try_from(len).unwrap_or(MAX_READ).min(MAX_READ)
}

/// A path for the log and for people, whatever its bytes.
pub(in super::super) fn lossy(path: impl AsRef<[u8]>) -> String {
    let path = path.as_ref();
    let path = path.get(..200).unwrap_or(path);
    String::from_utf8_lossy(path).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

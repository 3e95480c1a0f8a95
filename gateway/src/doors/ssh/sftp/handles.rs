//! Open files and folders of one channel. Numbers are never used again, so that a stale handle names nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    super::{
        budget::Charge,
        connection::{Connection, OpenFolder},
    },
    listing::Pages,
};
use crate::{
    doors::common::Transfer,
    identity::OpenFilePermit,
    vfs::{OpenFile, VPath},
};

/// Handles of one channel; advertised through limits@openssh.com.
pub(super) const MAX_HANDLES: usize = 1024;

/// The table of handles.
#[derive(Default)]
pub(super) struct Handles {
    last: u64,
    open: HashMap<u64, Node>,
    /// Opens that are being worked on.
    opening: usize,
}

/// What a handle names.
#[derive(Clone)]
pub(super) enum Node {
    File(Arc<File>),
    Folder(Arc<Folder>),
}

impl Handles {
    /// Takes a place for an open that has yet to succeed.
    pub(super) fn reserve(&mut self) -> bool {
        let free = self.open.len() + self.opening < MAX_HANDLES;
        if free {
            self.opening += 1;
        }
        free
    }

    /// Ends what [`Handles::reserve`] began; gives the handle where the open succeeded.
    pub(super) fn opened(&mut self, node: Option<Node>) -> Option<u64> {
        self.opening = self.opening.saturating_sub(1);
        let node = node?;
        self.last += 1;
        self.open.insert(self.last, node);
        Some(self.last)
    }

    pub(super) fn find(&self, handle: Option<u64>) -> Option<&Node> {
        self.open.get(&handle?)
    }

    pub(super) fn file(&self, handle: Option<u64>) -> Option<&Arc<File>> {
        match self.find(handle)? {
            Node::File(file) => Some(file),
            Node::Folder(_) => None,
        }
    }

    pub(super) fn close(&mut self, handle: Option<u64>) -> Option<Node> {
        self.open.remove(&handle?)
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

/// An open file. When the last reader lets go of it, its transfer is logged.
pub(super) struct File {
    pub(super) file: Arc<dyn OpenFile>,
    pub(super) path: VPath,
    pub(super) size: u64,
    connection: Arc<Connection>,
    _permit: OpenFilePermit,
    opened: Instant,
    sent: Mutex<Sent>,
    line: Mutex<Line>,
}

/// The READs of a file that aren't answered yet. They are worked on at once and answered in the order in which they
/// came: OpenSSH's `scp` (seen in 9.2) cuts its copy off at the first answer that overtakes another.
#[derive(Default)]
struct Line {
    waiting: usize,
    /// Dropped when the last one has been answered.
    last: Option<oneshot::Receiver<Never>>,
}

enum Never {}

/// A READ's place in the line, until its answer is on its way.
pub(super) struct Turn {
    file: Arc<File>,
    before: Option<oneshot::Receiver<Never>>,
    _done: oneshot::Sender<Never>,
}

impl Turn {
    /// Returns when all READs before have been answered.
    pub(super) async fn comes(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: it ends when the other side is dropped.
            let _ = before.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.file.line().waiting -= 1;
    }
}

#[derive(Default)]
struct Sent {
    from: Option<u64>,
    end: u64,
    bytes: u64,
}

impl File {
    pub(super) fn new(
        file: Arc<dyn OpenFile>,
        path: VPath,
        connection: Arc<Connection>,
        permit: OpenFilePermit,
    ) -> Self {
        let size = file.attributes().size;
        connection.file_opened();
        Self {
            file,
            path,
            size,
            connection,
            _permit: permit,
            opened: Instant::now(),
            sent: Mutex::default(),
            line: Mutex::default(),
        }
    }

    /// Whether an answer now would overtake none.
    pub(super) fn nobody_waits(&self) -> bool {
        self.line().waiting == 0
    }

    /// Takes a READ's place behind those that came before.
    pub(super) fn join_line(self: &Arc<Self>) -> Turn {
        let (done, last) = oneshot::channel();
        let mut line = self.line();
        line.waiting += 1;
        let before = line.last.replace(last);
        Turn { file: Arc::clone(self), before, _done: done }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes that were given to the client.
    pub(super) fn count(&self, offset: u64, len: usize) {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.connection.log.sent(len);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.from = Some(sent.from.map_or(offset, |from| from.min(offset)));
        sent.end = sent.end.max(offset.saturating_add(len));
        sent.bytes = sent.bytes.saturating_add(len);
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        let from = sent.from.unwrap_or(0);
        self.connection.file_closed();
        self.connection.log.transferred(&Transfer {
            path: &self.path,
            from,
            bytes: sent.bytes,
            complete: sent.from.is_some()
                && sent.end == self.size
                && sent.bytes >= self.size.saturating_sub(from),
            duration: self.opened.elapsed(),
        });
    }
}

/// An open folder. Its READDIRs are answered in the order in which they came: some clients send many at once and
/// take the replies by position.
pub(super) struct Folder {
    pub(super) path: VPath,
    pub(super) pages: tokio::sync::Mutex<Pages>,
    queue: Mutex<Queue>,
    _open: OpenFolder,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u32, Charge)>,
    running: bool,
}

impl Folder {
    pub(super) fn new(path: VPath, pages: Pages, open: OpenFolder) -> Self {
        Self { path, pages: tokio::sync::Mutex::new(pages), queue: Mutex::default(), _open: open }
    }

    /// Queues a READDIR; true when nobody works on the queue yet and the caller must.
    pub(super) fn push(&self, id: u32, charge: Charge) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push_back((id, charge));
        !std::mem::replace(&mut queue.running, true)
    }

    /// The next READDIR for whoever works on the queue; after `None` nobody does.
    pub(super) fn pop(&self) -> Option<(u32, Charge)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.waiting.pop_front();
        queue.running = next.is_some();
        next
    }
}

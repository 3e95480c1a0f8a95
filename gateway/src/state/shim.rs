//! A disk in memory that can lose its power: what wasn't synced is then lost in any part and in any order,
//! sector by sector, and the last write is torn.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use ::redb::StorageBackend;

use super::journal::storage::{LogFile, Storage};
use super::{Chain, Journal, JournalOptions};

const SECTOR: usize = 512;

/// Numbers that are the same for the same seed (splitmix64, Steele and others 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[derive(Debug)]
pub struct Disk(Mutex<State>);

#[derive(Debug)]
struct State {
    files: BTreeMap<String, File>,
    random: Random,
    /// Changes until the power goes; `None` for never.
    fuse: Option<u64>,
    full_after: Option<u64>,
    fail_sync: bool,
    off: bool,
    /// Counts the boots: handles from before are dead.
    boot: u64,
}

#[derive(Debug, Default, Clone)]
struct File {
    /// Whether the folder with its name has been synced.
    named: bool,
    synced: Vec<u8>,
    view: Vec<u8>,
    pending: Vec<Op>,
}

#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Disk {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            files: BTreeMap::new(),
            random: Random(seed),
            fuse: None,
            full_after: None,
            fail_sync: false,
            off: false,
            boot: 0,
        })))
    }

    /// The power goes in the midst of the change with this number, counted from now.
    pub fn cut_power_after(&self, changes: u64) {
        self.0.lock().unwrap().fuse = Some(changes);
    }

    /// Files can't grow by more than this from now on.
    pub fn fill_after(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().full_after = bytes;
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.0.lock().unwrap().fail_sync = fail;
    }

    /// Loses what wasn't synced, or parts of it, and starts again.
    pub fn reboot(&self) {
        let state = &mut *self.0.lock().unwrap();
        state.files.retain(|_, file| file.named || state.random.below(2) == 0);
        for file in state.files.values_mut() {
            file.lose(&mut state.random);
        }
        state.fuse = None;
        state.off = false;
        state.boot += 1;
    }

    /// Whoever has it open writes no more, as after a SIGKILL; what was written is there.
    pub fn kill(&self) {
        let state = &mut *self.0.lock().unwrap();
        state.fuse = None;
        state.off = false;
        state.boot += 1;
    }

    /// A governance chain on this disk.
    pub fn journal(self: &Arc<Self>, applied: u64) -> Option<Journal> {
        let storage: Arc<dyn Storage> = Arc::new(DiskFolder(Arc::clone(self)));
        let applied = [("the catalog", applied)];
        let options = JournalOptions::default();
        Some(Journal::open_on(storage, Chain::Governance, uuid::Uuid::nil(), options, &applied).ok()?.0)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().files.keys().cloned().collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        self.0.lock().unwrap().files[name].view.clone()
    }

    /// Puts content on the disk, synced; `None` removes the file.
    pub fn put(&self, name: &str, content: Option<Vec<u8>>) {
        let mut state = self.0.lock().unwrap();
        match content {
            Some(content) => {
                let file = File { named: true, synced: content.clone(), view: content, pending: Vec::new() };
                state.files.insert(name.to_owned(), file);
            }
            None => {
                state.files.remove(name);
            }
        }
    }

    /// A handle for redb; the file is made if it isn't there.
    pub fn file(self: &Arc<Self>, name: &str) -> DiskFile {
        let mut state = self.0.lock().unwrap();
        state.files.entry(name.to_owned()).or_default().named = true;
        DiskFile { disk: Arc::clone(self), name: name.to_owned(), boot: state.boot }
    }
}

impl State {
    /// Counts a change. An error says that the power went, after `then` had its part of the change pending.
    fn change(&mut self) -> (bool, io::Result<()>) {
        if self.off {
            return (false, Err(off()));
        }
        match &mut self.fuse {
            Some(0) => {
                self.off = true;
                (true, Err(off()))
            }
            Some(left) => {
                *left -= 1;
                (true, Ok(()))
            }
            None => (true, Ok(())),
        }
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl File {
    fn lose(&mut self, random: &mut Random) {
        let mode = random.below(4);
        let pending = std::mem::take(&mut self.pending);
        let lengths = pending.iter().filter(|op| matches!(op, Op::Length(_))).count() as u64;
        let mut lengths_kept = if mode == 0 { 0 } else { random.below(lengths + 1) };
        let settled = self.synced.len();
        let last = pending.len().saturating_sub(1);
        for (index, op) in pending.into_iter().enumerate() {
            match op {
                Op::Length(length) if mode == 1 || lengths_kept > 0 => {
                    lengths_kept = lengths_kept.saturating_sub(1);
                    self.synced.resize(usize::try_from(length).unwrap(), 0);
                }
                Op::Length(_) => {}
                Op::Write(offset, bytes) => {
                    let mut offset = usize::try_from(offset).unwrap();
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let part = (SECTOR - offset % SECTOR).min(rest.len());
                        let (sector, after) = rest.split_at(part);
                        let keep = match mode {
                            0 => 0,
                            // Everything but the end of the last write.
                            1 if index == last && after.is_empty() => {
                                usize::try_from(random.below(part as u64 + 1)).unwrap()
                            }
                            1 => part,
                            _ if random.below(2) == 0 => part,
                            _ => 0,
                        };
                        write(&mut self.synced, offset, &sector[..keep]);
                        if mode == 3 && keep == 0 && offset >= settled && random.below(2) == 0 {
                            // Blocks of which only the allocation was recorded show what was in them before.
                            let stale: Vec<u8> = (0..part).map(|_| random.next().to_le_bytes()[0]).collect();
                            write(&mut self.synced, offset, &stale);
                        }
                        offset += part;
                        rest = after;
                    }
                }
            }
        }
        self.view = self.synced.clone();
        self.named = true;
    }

    fn apply(&mut self, op: Op) {
        match &op {
            Op::Write(offset, bytes) => write(&mut self.view, usize::try_from(*offset).unwrap(), bytes),
            Op::Length(length) => self.view.resize(usize::try_from(*length).unwrap(), 0),
        }
        self.pending.push(op);
    }

    fn sync(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            match op {
                Op::Write(offset, bytes) => write(&mut self.synced, usize::try_from(offset).unwrap(), &bytes),
                Op::Length(length) => self.synced.resize(usize::try_from(length).unwrap(), 0),
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// An open file of a [`Disk`].
#[derive(Debug, Clone)]
pub struct DiskFile {
    disk: Arc<Disk>,
    name: String,
    boot: u64,
}

impl DiskFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, &str) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock().unwrap();
        if state.off || state.boot != self.boot {
            return Err(off());
        }
        work(&mut state, &self.name)
    }

    fn op(&self, op: Op) -> io::Result<()> {
        self.with(|state, name| {
            let (happens, result) = state.change();
            let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            if let (Op::Write(offset, bytes), Some(left)) = (&op, &mut state.full_after) {
                let growth = (offset + bytes.len() as u64).saturating_sub(file.view.len() as u64);
                if growth > *left {
                    let part = usize::try_from(*left).unwrap().min(bytes.len());
                    *left = 0;
                    file.apply(Op::Write(*offset, bytes[..part].to_vec()));
                    return Err(io::ErrorKind::StorageFull.into());
                }
                *left -= growth;
            }
            if happens {
                file.apply(op);
            }
            result
        })
    }
}

impl LogFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|state, name| Ok(state.files[name].view.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.with(|state, name| {
            let view = &state.files[name].view;
            let rest = view.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let length = rest.len().min(out.len());
            out[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.op(Op::Write(offset, bytes.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, name| {
            if state.fail_sync {
                // As Linux does it: the pages count as clean from now on.
                let file = state.files.get_mut(name).unwrap();
                file.pending.clear();
                return Err(io::Error::other("the disk doesn't answer"));
            }
            let (_, result) = state.change();
            result?;
            state.files.get_mut(name).unwrap().sync();
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.op(Op::Length(length))
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.read_at(offset, out)? {
            read if read == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_length(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_at(offset, data)
    }
}

/// A [`Disk`] as the journal's folder.
#[derive(Debug)]
pub struct DiskFolder(pub Arc<Disk>);

impl Storage for DiskFolder {
    fn describe(&self, name: &str) -> String {
        format!("disk/{name}")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.names())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let state = self.0.0.lock().unwrap();
        if state.off {
            return Err(off());
        }
        state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(DiskFile { disk: Arc::clone(&self.0), name: name.to_owned(), boot: state.boot }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        {
            let state = &mut *self.0.0.lock().unwrap();
            let (happens, result) = state.change();
            if happens {
                let file = state.files.entry(name.to_owned()).or_default();
                if file.named {
                    file.apply(Op::Length(0));
                }
            }
            result?;
        }
        self.open(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let state = &mut *self.0.0.lock().unwrap();
        state.change().1?;
        for file in state.files.values_mut() {
            file.named = true;
        }
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.0.0.lock().unwrap().change().1?;
        self.0.put(name, Some(content.to_vec()));
        Ok(())
    }
}

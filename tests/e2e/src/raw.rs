//! A small SFTP client (draft-ietf-secsh-filexfer-02, version 3) that asks exactly what a test wants asked.
//!
//! It speaks through `ssh -s HOST sftp`, so the transport under it is a real client's.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

const INIT: u8 = 1;
const VERSION: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const LSTAT: u8 = 7;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

const END_OF_FILE: u32 = 1;
const ATTRIBUTE_SIZE: u32 = 1;
const ATTRIBUTE_IDS: u32 = 2;
const ATTRIBUTE_PERMISSIONS: u32 = 4;
const ATTRIBUTE_TIMES: u32 = 8;
const ATTRIBUTE_EXTENDED: u32 = 0x8000_0000;

/// Longer than any answer takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A refusal: SFTP's code, and the sentence that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// 2 no such file, 3 permission denied, 4 failure, 5 bad message, 8 unsupported.
    pub code: u32,
    /// For people.
    pub message: String,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
}

/// What stat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Folder or file.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u32,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The line of `ls -l` that came with it.
    pub long: String,
    /// What it is.
    pub stat: Stat,
}

/// An open connection.
#[derive(Debug)]
pub struct Raw {
    child: Child,
    stdin: ChildStdin,
    packets: Receiver<Vec<u8>>,
    next_id: u32,
}

impl Raw {
    /// Starts the transport and exchanges versions.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, packets) = channel();
        thread::spawn(move || {
            let mut length = [0; 4];
            while stdout.read_exact(&mut length).is_ok() {
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                assert!(length <= 1 << 20, "a packet of {length} bytes");
                let mut packet = vec![0; length];
                if stdout.read_exact(&mut packet).is_err() || sender.send(packet).is_err() {
                    return;
                }
            }
        });
        let mut raw = Self { child, stdin, packets, next_id: 0 };
        raw.send(INIT, &3_u32.to_be_bytes());
        let packet = raw.packet();
        assert_eq!((packet[0], &packet[1..5]), (VERSION, &3_u32.to_be_bytes()[..]));
        raw
    }

    /// `SSH_FXP_STAT`.
    pub fn stat(&mut self, path: &[u8]) -> Result<Stat, Status> {
        let (kind, payload) = self.ask(STAT, &text(path));
        attributes_of(kind, &payload)
    }

    /// `SSH_FXP_LSTAT`.
    pub fn lstat(&mut self, path: &[u8]) -> Result<Stat, Status> {
        let (kind, payload) = self.ask(LSTAT, &text(path));
        attributes_of(kind, &payload)
    }

    /// `SSH_FXP_REALPATH`.
    pub fn realpath(&mut self, path: &[u8]) -> Result<String, Status> {
        let (kind, payload) = self.ask(REALPATH, &text(path));
        let mut fields = Fields(&payload);
        if kind == STATUS {
            return Err(fields.status());
        }
        assert_eq!((kind, fields.u32()), (NAME, 1));
        Ok(fields.string())
    }

    /// Opens a file for reading.
    pub fn open(&mut self, path: &[u8]) -> Result<Vec<u8>, Status> {
        self.open_with(path, 1)
    }

    /// Opens a file with these `SSH_FXF_*` flags.
    pub fn open_with(&mut self, path: &[u8], flags: u32) -> Result<Vec<u8>, Status> {
        let mut payload = text(path);
        payload.extend(flags.to_be_bytes());
        payload.extend(0_u32.to_be_bytes());
        self.handle(OPEN, &payload)
    }

    /// Opens a folder.
    pub fn opendir(&mut self, path: &[u8]) -> Result<Vec<u8>, Status> {
        self.handle(OPENDIR, &text(path))
    }

    /// Closes a handle.
    pub fn close(&mut self, handle: &[u8]) {
        let (kind, payload) = self.ask(CLOSE, &text(handle));
        assert_eq!((kind, Fields(&payload).u32()), (STATUS, 0));
    }

    /// One read; `None` at the end of the file.
    pub fn read(&mut self, handle: &[u8], offset: u64, length: u32) -> Result<Option<Vec<u8>>, Status> {
        let mut payload = text(handle);
        payload.extend(offset.to_be_bytes());
        payload.extend(length.to_be_bytes());
        let (kind, payload) = self.ask(READ, &payload);
        let mut fields = Fields(&payload);
        if kind == STATUS {
            let status = fields.status();
            return if status.code == END_OF_FILE { Ok(None) } else { Err(status) };
        }
        assert_eq!(kind, DATA);
        Ok(Some(fields.bytes().to_vec()))
    }

    /// Many reads at once. Tells for each answer, in the order in which they came, which of the reads it answers and
    /// what it brought.
    pub fn read_at_once(&mut self, handle: &[u8], reads: &[(u64, u32)]) -> Vec<(usize, Vec<u8>)> {
        let first = self.next_id;
        for (offset, length) in reads {
            let mut body = self.next_id.to_be_bytes().to_vec();
            self.next_id += 1;
            body.extend(text(handle));
            body.extend(offset.to_be_bytes());
            body.extend(length.to_be_bytes());
            self.send(READ, &body);
        }
        let answers = reads.iter().map(|_| {
            let packet = self.packet();
            assert_eq!(packet[0], DATA);
            let mut fields = Fields(&packet[1..]);
            (usize::try_from(fields.u32() - first).unwrap(), fields.bytes().to_vec())
        });
        answers.collect()
    }

    /// A whole file.
    pub fn file(&mut self, path: &str) -> Result<Vec<u8>, Status> {
        let handle = self.open(path.as_bytes())?;
        let mut whole = Vec::new();
        let ended = loop {
            match self.read(&handle, u64::try_from(whole.len()).unwrap(), 32 << 10) {
                Ok(Some(bytes)) => whole.extend(bytes),
                Ok(None) => break Ok(whole),
                Err(status) => break Err(status),
            }
        };
        self.close(&handle);
        ended
    }

    /// Opens a folder and takes what it answers first: how many names.
    ///
    /// # Errors
    /// What the gateway said.
    pub fn first_entries(&mut self, path: &str) -> Result<u32, Status> {
        let handle = self.opendir(path.as_bytes())?;
        let (kind, payload) = self.ask(READDIR, &text(&handle));
        let mut fields = Fields(&payload);
        let answer = if kind == STATUS { Err(fields.status()) } else { Ok(fields.u32()) };
        self.close(&handle);
        answer
    }

    /// A whole folder, without `.` and `..`, by ascending name.
    pub fn list(&mut self, path: &str) -> Result<Vec<Entry>, Status> {
        let handle = self.opendir(path.as_bytes())?;
        let mut entries = Vec::new();
        loop {
            let (kind, payload) = self.ask(READDIR, &text(&handle));
            let mut fields = Fields(&payload);
            if kind == STATUS {
                let status = fields.status();
                self.close(&handle);
                if status.code != END_OF_FILE {
                    return Err(status);
                }
                break;
            }
            assert_eq!(kind, NAME);
            for _ in 0..fields.u32() {
                let (name, long, stat) = (fields.string(), fields.string(), fields.attributes());
                if name != "." && name != ".." {
                    entries.push(Entry { name, long, stat });
                }
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn handle(&mut self, kind: u8, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let (kind, payload) = self.ask(kind, payload);
        let mut fields = Fields(&payload);
        if kind == STATUS {
            return Err(fields.status());
        }
        assert_eq!(kind, HANDLE);
        Ok(fields.bytes().to_vec())
    }

    /// One request and its answer: the answer's type, and what follows its id.
    fn ask(&mut self, kind: u8, payload: &[u8]) -> (u8, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let mut body = id.to_be_bytes().to_vec();
        body.extend(payload);
        self.send(kind, &body);
        let packet = self.packet();
        assert_eq!(packet[1..5], id.to_be_bytes(), "the answer to another request");
        (packet[0], packet[5..].to_vec())
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 1).unwrap();
        let mut packet = length.to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend(body);
        self.stdin.write_all(&packet).expect("the connection has ended");
        self.stdin.flush().unwrap();
    }

    fn packet(&self) -> Vec<u8> {
        self.packets.recv_timeout(DEADLINE).expect("no answer: the connection has ended or hangs")
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let mut field = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend(bytes);
    field
}

fn attributes_of(kind: u8, payload: &[u8]) -> Result<Stat, Status> {
    let mut fields = Fields(payload);
    if kind == STATUS {
        return Err(fields.status());
    }
    assert_eq!(kind, ATTRS);
    Ok(fields.attributes())
}

/// The fields of a packet, from first to last.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(length);
        self.0 = rest;
        field
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.u32()).unwrap();
        self.take(length)
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("text that is not UTF-8")
    }

    fn status(&mut self) -> Status {
        Status { code: self.u32(), message: self.string() }
    }

    fn attributes(&mut self) -> Stat {
        let flags = self.u32();
        let size = if flags & ATTRIBUTE_SIZE == 0 { 0 } else { self.u64() };
        if flags & ATTRIBUTE_IDS != 0 {
            self.take(8);
        }
        let mode = if flags & ATTRIBUTE_PERMISSIONS == 0 { 0 } else { self.u32() };
        let modified = if flags & ATTRIBUTE_TIMES == 0 {
            0
        } else {
            self.take(4);
            self.u32()
        };
        if flags & ATTRIBUTE_EXTENDED != 0 {
            for _ in 0..self.u32() {
                self.bytes();
                self.bytes();
            }
        }
        let kind = match mode & 0o170_000 {
            0o040_000 => Kind::Folder,
            0o100_000 => Kind::File,
            other => panic!("neither file nor folder: mode {other:o}"),
        };
        Stat { kind, size, modified }
    }
}

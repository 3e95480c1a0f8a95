//! Reading a chain: lines, entries in order, copies.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::format::{
    Entry, Link, MAX_ENTRY_BYTES, hash, parse_entry, parse_link, segment_first, segment_name,
};
use super::storage::{Folder, LogFile, Storage};
use super::writer::Published;
use super::{Head, JournalError, Segment};

/// Bytes read at once; holds at least one line.
const CHUNK: usize = 256 << 10;

/// Entries of a chain in their order; each is checked against the one before. Ends after the first error.
#[derive(Debug)]
pub struct JournalReader {
    storage: Arc<dyn Storage>,
    segments: VecDeque<u64>,
    current: Option<(String, Lines)>,
    /// The last entry passed; the hash is unknown where a segment is begun in the middle of the chain.
    sequence: u64,
    previous: Option<[u8; 32]>,
    from: u64,
    until: Published,
    ended: bool,
}

impl JournalReader {
    pub(super) fn new(storage: Arc<dyn Storage>, until: Published, from: u64) -> Result<Self, JournalError> {
        if from == 0 || from > until.head.sequence.saturating_add(1) {
            return Err(JournalError::Argument(format!(
                "the journal has entries 1 to {}, none from {from}",
                until.head.sequence
            )));
        }
        let mut segments: VecDeque<u64> = firsts(storage.as_ref())?
            .into_iter()
            .filter(|first| *first <= until.head.sequence && *first <= until.segment_first)
            .collect();
        while segments.get(1).is_some_and(|second| *second <= from) {
            segments.pop_front();
        }
        let begin = segments.front().copied().unwrap_or(1);
        Ok(Self {
            storage,
            segments,
            current: None,
            sequence: begin.saturating_sub(1),
            previous: (begin == 1).then_some([0; 32]),
            from,
            until,
            ended: false,
        })
    }

    /// The next entry with its hash.
    pub(super) fn advance(&mut self) -> Result<Option<(Entry, [u8; 32])>, JournalError> {
        while self.sequence < self.until.head.sequence {
            let expected = self.sequence.saturating_add(1);
            let (name, lines) = match &mut self.current {
                Some(current) => current,
                None => {
                    let Some(first) = self.segments.pop_front() else {
                        return Err(JournalError::Short {
                            folder: self.storage.describe(""),
                            head: self.sequence,
                            by: "this gateway".into(),
                            known: self.until.head.sequence,
                        });
                    };
                    let name = segment_name(first);
                    let limit = (first == self.until.segment_first).then_some(self.until.segment_bytes);
                    let lines = open_lines(self.storage.as_ref(), &name, limit)?;
                    self.current.insert((name, lines))
                }
            };
            let (number, offset) = lines.upcoming();
            let found = lines.next().map_err(|source| read_error(self.storage.as_ref(), name, source))?;
            let broken = |detail: &str| {
                let place = Place { name: name.clone(), line: number, offset };
                place.broken(self.storage.as_ref(), expected, detail)
            };
            let line = match found {
                Found::Line(line) => line,
                Found::End => {
                    self.current = None;
                    continue;
                }
                other => return Err(broken(&other.complaint())),
            };
            let checked = parse_link(line).and_then(|link| {
                follows(&link, expected, self.previous)?;
                if expected < self.from { Ok(None) } else { parse_entry(line).map(Some) }
            });
            let hash = hash(line);
            if expected == self.until.head.sequence && hash != self.until.head.hash {
                return Err(broken("it is not what was appended"));
            }
            let entry = checked.map_err(|detail| broken(&detail))?;
            self.sequence = expected;
            self.previous = Some(hash);
            if let Some(entry) = entry {
                return Ok(Some((entry, hash)));
            }
        }
        Ok(None)
    }
}

impl Iterator for JournalReader {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.advance();
        self.ended = !matches!(item, Ok(Some(_)));
        item.map(|found| found.map(|(entry, _)| entry)).transpose()
    }
}

/// Whether an entry continues the chain; `previous` where it is known.
pub(super) fn follows(link: &Link, expected: u64, previous: Option<[u8; 32]>) -> Result<(), String> {
    if link.sequence != expected {
        return Err(format!("entry {} stands where {expected} should", link.sequence));
    }
    if previous.is_some_and(|previous| previous != link.previous) {
        return Err(format!("its `prev` isn't the hash of entry {}", expected.saturating_sub(1)));
    }
    Ok(())
}

/// First sequence numbers of the segments, ascending.
pub(super) fn firsts(storage: &dyn Storage) -> Result<Vec<u64>, JournalError> {
    let names = storage.list().map_err(|source| JournalError::Io { path: storage.describe(""), source })?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_first(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// The segments of a settled prefix.
pub(super) fn segments(storage: &dyn Storage, until: Published) -> Result<Vec<Segment>, JournalError> {
    let mut segments = Vec::new();
    for first in firsts(storage)? {
        if until.head.sequence == 0 || first > until.segment_first {
            continue;
        }
        let name = segment_name(first);
        let bytes = if first == until.segment_first {
            until.segment_bytes
        } else {
            let file = storage.open(&name).map_err(|source| read_error(storage, &name, source))?;
            file.length().map_err(|source| read_error(storage, &name, source))?
        };
        segments.push(Segment { path: storage.describe(&name).into(), first, bytes });
    }
    Ok(segments)
}

/// Copies a settled prefix into another folder.
pub(super) fn copy(storage: &dyn Storage, until: Published, target: &Path) -> Result<Head, JournalError> {
    let to = Folder::create(target)
        .map_err(|source| JournalError::Io { path: target.display().to_string(), source })?;
    if !firsts(&to)?.is_empty() {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "a chain is there already");
        return Err(JournalError::Io { path: target.display().to_string(), source });
    }
    let mut buffer = vec![0; CHUNK];
    for segment in segments(storage, until)? {
        let name = segment_name(segment.first);
        let from = storage.open(&name).map_err(|source| read_error(storage, &name, source))?;
        let copied = (|| {
            let file = to.create(&name)?;
            let mut offset = 0;
            while offset < segment.bytes {
                let wanted =
                    usize::try_from(segment.bytes.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
                let Some(part) = buffer.get_mut(..wanted) else { break };
                let read = from.read_at(offset, part)?;
                let Some(part) = part.get(..read).filter(|part| !part.is_empty()) else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                file.write_at(offset, part)?;
                offset = offset.saturating_add(read as u64);
            }
            file.sync()
        })();
        copied.map_err(|source| read_error(&to, &name, source))?;
    }
    to.sync_folder().map_err(|source| read_error(&to, "", source))?;
    Ok(until.head)
}

pub(super) fn read_error(storage: &dyn Storage, name: &str, source: io::Error) -> JournalError {
    JournalError::Io { path: storage.describe(name), source }
}

pub(super) fn open_lines(
    storage: &dyn Storage,
    name: &str,
    limit: Option<u64>,
) -> Result<Lines, JournalError> {
    let file = storage.open(name).map_err(|source| read_error(storage, name, source))?;
    let length = match limit {
        Some(limit) => limit,
        None => file.length().map_err(|source| read_error(storage, name, source))?,
    };
    Ok(Lines::new(file, length))
}

/// Where a line stands, for errors.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub name: String,
    pub line: u64,
    pub offset: u64,
}

impl Place {
    pub(super) fn broken(&self, storage: &dyn Storage, sequence: u64, detail: &str) -> JournalError {
        JournalError::Broken {
            file: storage.describe(&self.name),
            line: self.line,
            offset: self.offset,
            sequence,
            detail: detail.to_owned(),
        }
    }
}

/// The lines of a file, in bounded memory.
#[derive(Debug)]
pub(super) struct Lines {
    file: Arc<dyn LogFile>,
    /// Bytes of the file that count.
    pub length: u64,
    /// Where the line that was found last begins, and its number from 1.
    pub offset: u64,
    pub line: u64,
    /// Bytes of the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// Where the next line begins.
    next: u64,
}

/// What stands at a place of a file.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A line, without its newline.
    Line(&'a [u8]),
    /// Bytes that no newline ends.
    Unterminated,
    /// More bytes without a newline than an entry may have.
    TooLong,
    /// Nothing more.
    End,
}

impl Found<'_> {
    /// Why this is no line.
    pub(super) fn complaint(&self) -> String {
        match self {
            Self::Line(_) => "it is no entry".into(),
            Self::Unterminated => "the file ends within it".into(),
            Self::TooLong => format!("it is longer than {MAX_ENTRY_BYTES} bytes"),
            Self::End => "the file ends before it".into(),
        }
    }
}

impl Lines {
    fn new(file: Arc<dyn LogFile>, length: u64) -> Self {
        Self { file, length, offset: 0, line: 0, buffer: Vec::new(), buffer_at: 0, next: 0 }
    }

    pub(super) fn file(&self) -> &Arc<dyn LogFile> {
        &self.file
    }

    /// The number and the offset of the next line.
    pub(super) fn upcoming(&self) -> (u64, u64) {
        (self.line.saturating_add(1), self.next)
    }

    /// The next line. After anything but a line the place stays.
    pub(super) fn next(&mut self) -> io::Result<Found<'_>> {
        self.offset = self.next;
        self.line = self.line.saturating_add(1);
        let begin = self.buffered_from(self.next);
        let end = match begin.and_then(|begin| self.newline_after(begin)) {
            Some(end) => Some(end),
            None => {
                self.fill()?;
                self.newline_after(0)
            }
        };
        let begin = self.buffered_from(self.next).unwrap_or(0);
        let rest = self.buffer.get(begin..).unwrap_or_default();
        match end.and_then(|end| rest.get(..end.saturating_sub(begin))) {
            Some(line) => {
                self.next = self.next.saturating_add(line.len() as u64).saturating_add(1);
                Ok(Found::Line(line))
            }
            None if rest.is_empty() => Ok(Found::End),
            None if rest.len() >= MAX_ENTRY_BYTES => Ok(Found::TooLong),
            None => Ok(Found::Unterminated),
        }
    }

    /// The place of an offset of the file in the buffer.
    fn buffered_from(&self, offset: u64) -> Option<usize> {
        let begin = usize::try_from(offset.checked_sub(self.buffer_at)?).ok()?;
        (begin <= self.buffer.len()).then_some(begin)
    }

    /// The first newline of the buffer that can end a line beginning at `begin`.
    fn newline_after(&self, begin: usize) -> Option<usize> {
        let rest = self.buffer.get(begin..)?;
        let within = rest.get(..MAX_ENTRY_BYTES).unwrap_or(rest);
        within.iter().position(|byte| *byte == b'\n').map(|at| begin.saturating_add(at))
    }

    /// Reads a chunk from the next line on.
    fn fill(&mut self) -> io::Result<()> {
        let left = self.length.saturating_sub(self.next);
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        self.buffer.clear();
        self.buffer.resize(wanted, 0);
        self.buffer_at = self.next;
        let mut filled = 0;
        while let Some(part) = self.buffer.get_mut(filled..).filter(|part| !part.is_empty()) {
            let read = self.file.read_at(self.next.saturating_add(filled as u64), part)?;
            if read == 0 {
                break;
            }
            filled = filled.saturating_add(read);
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

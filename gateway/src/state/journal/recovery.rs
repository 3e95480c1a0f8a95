//! Opening a chain: what is verified, what may be cut, what is an error.
//!
//! A power loss can leave anything of what was written since the last fsync returned: some pages but not
//! others, zeros in their place, a line torn anywhere. Before that, everything is as it was written. The
//! writer never has more than [`MAX_UNSYNCED_BYTES`] unsynced, all in the last segment (it syncs a segment
//! before it begins the next), and marks every entry with the first number of its batch, the entries since
//! the last fsync. So the first line that is no entry is taken for torn, and it and all behind it is cut off,
//! only when
//!
//! - it stands in the last segment, at most that many bytes before its end, and
//! - no store, checkpoint or `synced` mark knows of that entry or a later one, and
//! - no whole entry behind it belongs to a batch that began later: that one was written after an fsync that
//!   covered the line in question, which therefore was damaged afterwards.
//!
//! Anything else is an error. A whole line that is an entry but doesn't continue the chain is never taken for
//! torn: lost pages don't make one. Whole entries before the torn line are kept though nobody was told that
//! they are there; they are synced before anything relies on them.
//!
//! What this can't see: after a power loss, damage to entries of the very last batch that was synced but that
//! no store has applied and no mark knows looks the same as a torn batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::format::{MAX_ENTRY_BYTES, from_hex, hash, hex, parse_link, segment_name};
use super::reader::{Found, JournalReader, Place, firsts, follows, open_lines, read_error};
use super::storage::{LogFile, Storage};
use super::writer::{MARK, MAX_UNSYNCED_BYTES, Mark, Published};
use super::{Head, JournalError};

/// The file that says from where to verify.
const CHECKPOINT: &str = "checkpoint.json";
/// The longest content of it that is read.
const MAX_CHECKPOINT_BYTES: u64 = 4096;

/// What opening a journal found.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The last entry.
    pub head: Head,
    /// From where it was verified; `None` for the whole chain.
    pub checkpoint: Option<Head>,
    /// How many entries were read and verified.
    pub verified: u64,
    /// The incomplete last write, which was cut off. To be logged.
    pub cut: Option<Cut>,
}

/// An incomplete last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub file: String,
    /// From where it was cut off, in bytes.
    pub offset: u64,
    /// How many bytes that was.
    pub bytes: u64,
    /// The number that the first incomplete entry would have had.
    pub sequence: u64,
}

/// What verifying a chain found.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many entries there are, all verified.
    pub entries: u64,
    /// In how many files.
    pub segments: usize,
    /// The last one.
    pub head: Head,
    /// The last checkpoint.
    pub checkpoint: Option<Head>,
    /// An incomplete last write, which the next start cuts off.
    pub incomplete: Option<Cut>,
}

/// Where the writer goes on.
#[derive(Debug)]
pub(super) struct Position {
    pub head: Head,
    /// The last segment: its first number, its file, its length.
    pub segment: Option<(u64, Arc<dyn LogFile>, u64)>,
}

/// Verifies, cuts off what was torn, and makes durable what is left.
pub(super) fn recover(
    storage: &dyn Storage,
    all: bool,
    applied: &[(&str, u64)],
) -> Result<(Recovery, Position), JournalError> {
    let scan = Scan::run(storage, all, applied)?;
    if let Some(last) = &scan.last {
        let name = segment_name(last.first);
        secure(storage, last, scan.cut.is_some(), scan.mark)
            .map_err(|source| read_error(storage, &name, source))?;
    }
    let recovery = Recovery {
        head: scan.head,
        checkpoint: scan.checkpoint.filter(|_| !all),
        verified: scan.verified,
        cut: scan.cut,
    };
    let segment = scan.last.map(|last| (last.first, last.file, last.good));
    Ok((recovery, Position { head: scan.head, segment }))
}

/// Verifies the whole chain and changes nothing.
pub(super) fn verify(storage: &dyn Storage) -> Result<Report, JournalError> {
    let scan = Scan::run(storage, true, &[])?;
    Ok(Report {
        entries: scan.verified,
        segments: scan.segments,
        head: scan.head,
        checkpoint: scan.checkpoint,
        incomplete: scan.cut,
    })
}

#[derive(Serialize, Deserialize)]
struct CheckpointFile {
    seq: u64,
    hash: String,
}

pub(super) fn write_checkpoint(
    storage: &Arc<dyn Storage>,
    published: Published,
    known: Option<Head>,
    sequence: u64,
) -> Result<Head, JournalError> {
    let head = if sequence == published.head.sequence && sequence > 0 {
        published.head
    } else if let Some(known) = known {
        known
    } else {
        let mut reader = JournalReader::new(Arc::clone(storage), published, sequence)?;
        let found = reader.advance()?;
        let (entry, hash) = found.ok_or_else(|| {
            JournalError::Argument(format!("there is no entry {sequence} to write a checkpoint at"))
        })?;
        Head { sequence: entry.sequence, hash }
    };
    let content = serde_json::to_vec(&CheckpointFile { seq: head.sequence, hash: hex(&head.hash) })
        .map_err(|e| JournalError::Argument(e.to_string()))?;
    storage
        .replace(CHECKPOINT, &content)
        .map_err(|source| read_error(storage.as_ref(), CHECKPOINT, source))?;
    Ok(head)
}

fn read_checkpoint(storage: &dyn Storage, names: &[String]) -> Result<Option<Head>, JournalError> {
    if !names.iter().any(|name| name == CHECKPOINT) {
        return Ok(None);
    }
    let content = read_small(storage, CHECKPOINT, MAX_CHECKPOINT_BYTES)?;
    let damaged = |detail: &str| JournalError::Damaged {
        file: storage.describe(CHECKPOINT),
        detail: detail.to_owned(),
    };
    let file: CheckpointFile = serde_json::from_slice(&content).map_err(|e| damaged(&e.to_string()))?;
    let hash = from_hex(&file.hash).ok_or_else(|| damaged("its hash is no SHA-256"))?;
    if file.seq == 0 {
        return Err(damaged("its sequence number is 0"));
    }
    Ok(Some(Head { sequence: file.seq, hash }))
}

fn read_small(storage: &dyn Storage, name: &str, most: u64) -> Result<Vec<u8>, JournalError> {
    let read = || {
        let file = storage.open(name)?;
        let length = usize::try_from(file.length()?.min(most)).unwrap_or_default();
        read_exactly(file.as_ref(), 0, length)
    };
    read().map_err(|source| read_error(storage, name, source))
}

/// At most `length` bytes, fewer where the file ends.
fn read_exactly(file: &dyn LogFile, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut content = vec![0; length];
    let mut filled = 0;
    while let Some(part) = content.get_mut(filled..).filter(|part| !part.is_empty()) {
        let read = file.read_at(offset.saturating_add(filled as u64), part)?;
        if read == 0 {
            break;
        }
        filled = filled.saturating_add(read);
    }
    content.truncate(filled);
    Ok(content)
}

/// Makes the last segment's good bytes durable. What no mark covers is written once more: after an fsync that
/// failed, the kernel may hold pages for clean that never reached the disk.
fn secure(storage: &dyn Storage, last: &Last, cut: bool, mark: Option<Mark>) -> std::io::Result<()> {
    if cut {
        last.file.set_length(last.good)?;
    }
    let covered = match mark {
        Some(mark) if mark.segment == last.first => mark.bytes.min(last.good),
        _ => 0,
    };
    let begin = covered.max(last.good.saturating_sub(MAX_UNSYNCED_BYTES));
    if begin < last.good {
        let length = usize::try_from(last.good.saturating_sub(begin)).unwrap_or_default();
        let bytes = read_exactly(last.file.as_ref(), begin, length)?;
        last.file.write_at(begin, &bytes)?;
    }
    last.file.sync()?;
    storage.sync_folder()
}

/// The last segment.
#[derive(Debug)]
struct Last {
    first: u64,
    file: Arc<dyn LogFile>,
    /// Bytes of whole entries.
    good: u64,
}

/// One pass over the chain.
struct Scan<'a> {
    storage: &'a dyn Storage,
    /// Who knows of an entry that must be there.
    known: Vec<(String, u64)>,
    checkpoint: Option<Head>,
    mark: Option<Mark>,
    segments: usize,
    head: Head,
    verified: u64,
    last: Option<Last>,
    cut: Option<Cut>,
}

impl<'a> Scan<'a> {
    fn run(storage: &'a dyn Storage, all: bool, applied: &[(&str, u64)]) -> Result<Self, JournalError> {
        let names = storage.list().map_err(|source| read_error(storage, "", source))?;
        let checkpoint = read_checkpoint(storage, &names)?;
        let mark = if names.iter().any(|name| name == MARK) {
            Mark::parse(&read_small(storage, MARK, Mark::MAX_BYTES)?)
        } else {
            None
        };
        let mut known: Vec<(String, u64)> =
            applied.iter().map(|(store, sequence)| (format!("the store {store}"), *sequence)).collect();
        if let Some(checkpoint) = checkpoint {
            known.push(("the checkpoint".into(), checkpoint.sequence));
        }
        if let Some(mark) = mark {
            known.push((format!("the mark of the last fsync (the file {MARK})"), mark.head.sequence));
        }
        let firsts = firsts(storage)?;
        let mut scan = Self {
            storage,
            known,
            checkpoint,
            mark,
            segments: firsts.len(),
            head: Head::default(),
            verified: 0,
            last: None,
            cut: None,
        };
        scan.chain(&firsts, all)?;
        match scan.known.iter().find(|(_, sequence)| *sequence > scan.head.sequence) {
            Some((by, known)) => Err(JournalError::Short {
                folder: storage.describe(""),
                head: scan.head.sequence,
                by: by.clone(),
                known: *known,
            }),
            None => Ok(scan),
        }
    }

    fn chain(&mut self, firsts: &[u64], all: bool) -> Result<(), JournalError> {
        let begin = match self.checkpoint {
            Some(checkpoint) if !all => {
                firsts.iter().rposition(|first| *first <= checkpoint.sequence).unwrap_or(0)
            }
            _ => 0,
        };
        for (index, first) in firsts.iter().enumerate() {
            let name = segment_name(*first);
            let expected = self.head.sequence.saturating_add(1);
            if *first != expected {
                let missing = format!("entries {expected} to {} are missing", first.saturating_sub(1));
                return Err(Place { name, line: 1, offset: 0 }.broken(self.storage, expected, &missing));
            }
            let is_last = index.saturating_add(1) == firsts.len();
            if index < begin {
                self.skip(&name)?;
            } else {
                self.segment(*first, &name, is_last)?;
            }
        }
        Ok(())
    }

    /// Passes over a segment before the checkpoint: only its first and last entry are looked at.
    fn skip(&mut self, name: &str) -> Result<(), JournalError> {
        let mut lines = open_lines(self.storage, name, None)?;
        let found = lines.next().map_err(|source| read_error(self.storage, name, source))?;
        let expected = self.head.sequence.saturating_add(1);
        let first_place = Place { name: name.to_owned(), line: 1, offset: 0 };
        let first = match found {
            Found::Line(line) => parse_link(line),
            other => Err(other.complaint()),
        };
        first
            .and_then(|link| follows(&link, expected, Some(self.head.hash)))
            .map_err(|detail| first_place.broken(self.storage, expected, &detail))?;

        let window = lines.length.saturating_sub(MAX_ENTRY_BYTES as u64);
        let length = usize::try_from(lines.length.saturating_sub(window)).unwrap_or_default();
        let tail = read_exactly(lines.file().as_ref(), window, length)
            .map_err(|source| read_error(self.storage, name, source))?;
        let last = tail.strip_suffix(b"\n").and_then(|tail| tail.rsplit(|byte| *byte == b'\n').next());
        let offset =
            lines.length.saturating_sub(last.map_or(0, <[u8]>::len) as u64).saturating_sub(1).max(window);
        let link = match last {
            Some(line) => parse_link(line).map(|link| (link, hash(line))),
            None => Err("the file doesn't end with a whole entry".into()),
        };
        match link {
            Ok((link, hash)) if link.sequence >= expected => {
                self.head = Head { sequence: link.sequence, hash };
                Ok(())
            }
            other => {
                let detail = other.err().unwrap_or_else(|| "its sequence number went back".into());
                // The line's number would cost reading the file; the offset says enough.
                let place = Place { name: name.to_owned(), line: 0, offset };
                Err(place.broken(self.storage, expected, &format!("the segment's last entry: {detail}")))
            }
        }
    }

    fn segment(&mut self, first: u64, name: &str, is_last: bool) -> Result<(), JournalError> {
        let mut lines = open_lines(self.storage, name, None)?;
        loop {
            let expected = self.head.sequence.saturating_add(1);
            let found = lines.next().map_err(|source| read_error(self.storage, name, source))?;
            let complaint = match found {
                Found::End => break,
                Found::Line(line) => match parse_link(line) {
                    Ok(link) => {
                        let checked = follows(&link, expected, Some(self.head.hash)).and_then(|()| {
                            let head = Head { sequence: expected, hash: hash(line) };
                            self.check_anchors(head).map(|()| head)
                        });
                        match checked {
                            Ok(head) => {
                                self.head = head;
                                self.verified = self.verified.saturating_add(1);
                                continue;
                            }
                            Err(detail) => {
                                let place =
                                    Place { name: name.to_owned(), line: lines.line, offset: lines.offset };
                                return Err(place.broken(self.storage, expected, &detail));
                            }
                        }
                    }
                    Err(detail) => detail,
                },
                other => other.complaint(),
            };
            let place = Place { name: name.to_owned(), line: lines.line, offset: lines.offset };
            let bytes = lines.length.saturating_sub(lines.offset);
            if !is_last {
                return Err(place.broken(self.storage, expected, &complaint));
            }
            if let Some(reason) = self.why_not_torn(lines.file().as_ref(), lines.offset, bytes, expected)? {
                return Err(place.broken(self.storage, expected, &format!("{complaint}, and {reason}")));
            }
            self.cut = Some(Cut {
                file: self.storage.describe(name),
                offset: lines.offset,
                bytes,
                sequence: expected,
            });
            break;
        }
        if is_last {
            self.last = Some(Last { first, file: Arc::clone(lines.file()), good: lines.offset });
        }
        Ok(())
    }

    /// Whether an entry is the one that the checkpoint or the mark was written at.
    fn check_anchors(&self, head: Head) -> Result<(), String> {
        let anchors =
            [("checkpoint", self.checkpoint), ("mark of an fsync", self.mark.map(|mark| mark.head))];
        for (what, anchor) in anchors {
            if anchor.is_some_and(|anchor| anchor.sequence == head.sequence && anchor != head) {
                return Err(format!("it isn't the entry that the {what} was written at"));
            }
        }
        Ok(())
    }

    /// Why bytes at the end of the last segment can't be an incomplete write; `None` when they can.
    fn why_not_torn(
        &self,
        file: &dyn LogFile,
        offset: u64,
        bytes: u64,
        sequence: u64,
    ) -> Result<Option<String>, JournalError> {
        if let Some((by, known)) = self.known.iter().find(|(_, known)| *known >= sequence) {
            return Ok(Some(format!("{by} has seen entry {known}")));
        }
        if bytes > MAX_UNSYNCED_BYTES {
            return Ok(Some(format!("{bytes} bytes stand from there on, more than one write can have torn")));
        }
        let length = usize::try_from(bytes).unwrap_or_default();
        let tail =
            read_exactly(file, offset, length).map_err(|source| read_error(self.storage, "", source))?;
        for line in tail.split(|byte| *byte == b'\n').skip(1) {
            let Ok(link) = parse_link(line) else { continue };
            if link.sequence <= sequence || link.batch > sequence {
                return Ok(Some(format!(
                    "entry {} behind it shows that it was written whole",
                    link.sequence
                )));
            }
        }
        Ok(None)
    }
}

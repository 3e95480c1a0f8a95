//! Headers of WAV files, seen through where they are wrong.
//!
//! Asterisk writes 0 for both sizes when it begins a file, and the right ones when it closes it. A crash leaves zeros,
//! or, in a recording that was paused and appended to, the sizes of its first part; a copy that broke off leaves sizes
//! beyond the end. The length of the file is what can be believed: audio reaches from the beginning of the data chunk
//! to the end of the file, unless the chunk says less and what follows it are chunks again.
//!
//! hound reads the headers it can; it refuses what isn't PCM or float, odd sizes and padded chunks, and doesn't tell
//! the size of a frame where there is no data. For those there is a walker of RIFF chunks. Only the first
//! bytes of the file and the heads of its chunks are read, whatever the sizes claim.

use std::io::{self, Cursor};

/// The most bytes that a header patch may have.
const PATCH_MAX: u64 = 4096;
/// Chunks before the data, and after it, that are looked at.
const CHUNKS_MAX: usize = 256;
/// Fewer bytes than this after the data are neither a chunk nor a millisecond of audio.
const CHUNK_HEAD: u64 = 8;

/// Reads bytes at an offset, like `pread`.
pub type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<usize>;

/// What a header says, corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Length of the audio that is there, in milliseconds.
    pub duration_ms: u64,
    /// The first bytes of the file with the right sizes in them; empty where they are right as stored, and where
    /// they can't be put right (a data chunk that begins beyond 4096 bytes, or more audio than 32 bits can count).
    pub patch: Vec<u8>,
    /// The sizes don't fit the file: it is being written, or its writer has crashed.
    pub unfinished: bool,
}

/// Why there is no header.
#[derive(Debug)]
pub enum Unreadable {
    /// Reading failed.
    Io(io::Error),
    /// It is not a WAV.
    Content {
        /// What is wrong with it.
        reason: String,
        /// The file ends too early: what is missing may still be written.
        unfinished: bool,
    },
}

/// Reads the header of a file of `length` bytes.
pub fn examine(length: u64, read: ReadAt<'_>) -> Result<Header, Unreadable> {
    let mut head = vec![0; usize::try_from(length.min(PATCH_MAX)).unwrap_or(0)];
    read_exact(read, 0, &mut head)?;
    let layout = match by_hound(&head) {
        Some(layout) => layout,
        None => by_walking(length, read)?,
    };
    layout.correct(length, &head, read)
}

/// Where the audio is and how it is counted, as the header declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Offset of the first byte of audio.
    data_at: u64,
    /// Bytes of audio, as declared.
    data_size: u32,
    /// The declared size of the whole form; `None` for RF64, whose sizes are elsewhere and left alone.
    riff_size: Option<u32>,
    measure: Measure,
}

/// How bytes of audio become time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Bytes a frame (a sample of each channel), frames a second.
    Frames { frame: u64, rate: u64 },
    /// Bytes a block, bytes a second: compressed audio.
    Blocks { block: u64, byte_rate: u64 },
}

impl Measure {
    /// Bytes that belong together.
    fn unit(self) -> u64 {
        match self {
            Self::Frames { frame: unit, .. } | Self::Blocks { block: unit, .. } => unit.max(1),
        }
    }

    fn millis(self, bytes: u64) -> u64 {
        let (count, a_second) = match self {
            Self::Frames { frame, rate } => (bytes / frame.max(1), rate),
            Self::Blocks { byte_rate, .. } => (bytes, byte_rate),
        };
        u64::try_from(u128::from(count) * 1000 / u128::from(a_second.max(1))).unwrap_or(u64::MAX)
    }
}

impl Layout {
    fn correct(&self, length: u64, head: &[u8], read: ReadAt<'_>) -> Result<Header, Unreadable> {
        let there = length.saturating_sub(self.data_at);
        let declared = u64::from(self.data_size);
        let padded_end = self.data_at.saturating_add(declared).saturating_add(declared & 1);

        let chunks_follow = declared <= there && are_chunks(padded_end, length, read)?;
        let whole = there - there % self.measure.unit();
        let is_right = declared <= there
            && (declared == whole || chunks_follow || (declared > 0 && there - declared < CHUNK_HEAD));
        let data_size = if is_right { declared } else { whole };
        let duration_ms = self.measure.millis(data_size);

        // Bytes beyond whole frames, or that are no chunk, are left outside of the form: they are served, for the
        // length never changes, and a reader that keeps to the sizes doesn't stumble over them.
        let form_end = if is_right && chunks_follow {
            length
        } else {
            self.data_at.saturating_add(data_size).saturating_add(data_size & 1).min(length)
        };
        let Some(riff_size) = self.riff_size else {
            return Ok(Header { duration_ms, patch: Vec::new(), unfinished: false });
        };
        let declared_end = u64::from(riff_size).saturating_add(8);
        // One byte beyond the end is a pad byte that was counted and not written.
        let riff_is_right = is_right
            && declared_end >= self.data_at.saturating_add(declared)
            && declared_end <= length.max(padded_end);
        if is_right && riff_is_right {
            return Ok(Header { duration_ms, patch: Vec::new(), unfinished: false });
        }
        let patch = self.patch(head, form_end, data_size).unwrap_or_default();
        Ok(Header { duration_ms, patch, unfinished: true })
    }

    /// The bytes before the audio with these sizes in them.
    fn patch(&self, head: &[u8], form_end: u64, data_size: u64) -> Option<Vec<u8>> {
        let data_at = usize::try_from(self.data_at).ok()?;
        let riff_size = u32::try_from(form_end.checked_sub(8)?).ok()?;
        let data_size = u32::try_from(data_size).ok()?;
        let mut patch = head.get(..data_at)?.to_vec();
        patch.get_mut(4..8)?.copy_from_slice(&riff_size.to_le_bytes());
        patch.get_mut(data_at.checked_sub(4)?..)?.copy_from_slice(&data_size.to_le_bytes());
        Some(patch)
    }
}

/// What hound makes of the first bytes.
fn by_hound(head: &[u8]) -> Option<Layout> {
    let reader = hound::WavReader::new(Cursor::new(head)).ok()?;
    let (spec, samples) = (reader.spec(), reader.len());
    let data_at = usize::try_from(reader.into_inner().position()).ok()?;
    let data_size = u32_at(head, data_at.checked_sub(4)?)?;
    // hound keeps the bytes of a sample to itself (24 bits may lie in 4 bytes); the count of samples tells them.
    let sample = data_size.checked_div(samples)?;
    let frame = u64::from(sample).checked_mul(u64::from(spec.channels))?;
    if frame == 0 || spec.sample_rate == 0 {
        return None;
    }
    Some(Layout {
        data_at: data_at as u64,
        data_size,
        riff_size: Some(u32_at(head, 4)?),
        measure: Measure::Frames { frame, rate: u64::from(spec.sample_rate) },
    })
}

/// Walks the chunks up to the data.
fn by_walking(length: u64, read: ReadAt<'_>) -> Result<Layout, Unreadable> {
    if length == 0 {
        return Err(cut_off("the file is empty"));
    }
    if length < 12 {
        return Err(cut_off("the file ends within its RIFF header"));
    }
    let mut form = [0; 12];
    read_exact(read, 0, &mut form)?;
    let riff_size = match form.get(..4) {
        Some(b"RIFF") => u32_at(&form, 4),
        Some(b"RF64" | b"BW64") => None,
        _ => return Err(not_wav("the file is not a WAV: it doesn't begin with RIFF")),
    };
    if form.get(8..) != Some(b"WAVE") {
        return Err(not_wav("the file is RIFF, but not a WAVE form"));
    }
    let (mut at, mut measure) = (12_u64, None);
    for _ in 0..CHUNKS_MAX {
        let Some((kind, size)) = chunk_head(at, length, read)? else {
            return Err(cut_off("the file ends before its data chunk"));
        };
        let body = at.saturating_add(CHUNK_HEAD);
        match &kind {
            b"data" => {
                let measure = measure.ok_or_else(|| not_wav("its data chunk comes before a fmt chunk"))?;
                return Ok(Layout { data_at: body, data_size: size, riff_size, measure });
            }
            b"fmt " => measure = Some(format(body, size, length, read)?),
            _ => {}
        }
        at = body.saturating_add(u64::from(size)).saturating_add(u64::from(size & 1));
    }
    Err(not_wav("no data chunk is among its first 256 chunks"))
}

/// Reads a fmt chunk: WAVEFORMAT with `wBitsPerSample`, and the sub-format of WAVEFORMATEXTENSIBLE
/// (Microsoft, "Multiple channel audio data and WAVE files").
fn format(at: u64, size: u32, length: u64, read: ReadAt<'_>) -> Result<Measure, Unreadable> {
    if size < 16 {
        return Err(not_wav(&format!("its fmt chunk has {size} bytes, at least 16 are needed")));
    }
    let mut fmt = [0_u8; 26];
    let wanted = usize::try_from(size).unwrap_or(usize::MAX).min(fmt.len());
    if at.saturating_add(wanted as u64) > length {
        return Err(cut_off("the file ends within its fmt chunk"));
    }
    let Some(fmt) = fmt.get_mut(..wanted) else {
        return Err(not_wav("its fmt chunk can't be read"));
    };
    read_exact(read, at, fmt)?;
    let tag = match u16_at(fmt, 0) {
        Some(EXTENSIBLE) => u16_at(fmt, 24).unwrap_or(EXTENSIBLE),
        tag => tag.unwrap_or(0),
    };
    let rate = u64::from(u32_at(fmt, 4).unwrap_or(0));
    let byte_rate = u64::from(u32_at(fmt, 8).unwrap_or(0));
    let block = u64::from(u16_at(fmt, 12).unwrap_or(0));
    if block == 0 {
        return Err(not_wav("its fmt chunk says that a frame has 0 bytes"));
    }
    let (measure, a_second) = match tag {
        PCM | FLOAT | A_LAW | MU_LAW => (Measure::Frames { frame: block, rate }, rate),
        _ => (Measure::Blocks { block, byte_rate }, byte_rate),
    };
    if a_second == 0 {
        return Err(not_wav("its fmt chunk says that a second has no audio"));
    }
    Ok(measure)
}

// Format tags of mmreg.h whose blocks are single frames.
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const EXTENSIBLE: u16 = 0xfffe;

/// Whether chunks reach from here to the end of the file. Audio doesn't look like that: each chunk begins with
/// four printable characters, and its size leads to the next or to the end.
fn are_chunks(mut at: u64, length: u64, read: ReadAt<'_>) -> Result<bool, Unreadable> {
    for _ in 0..CHUNKS_MAX {
        if at == length {
            return Ok(true);
        }
        match chunk_head(at, length, read)? {
            Some((kind, size)) if kind.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
                let end = at.saturating_add(CHUNK_HEAD).saturating_add(u64::from(size));
                if end == length {
                    return Ok(true);
                }
                at = end.saturating_add(u64::from(size & 1));
            }
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// The kind and size of the chunk that begins here; `None` where the file ends first.
fn chunk_head(at: u64, length: u64, read: ReadAt<'_>) -> Result<Option<([u8; 4], u32)>, Unreadable> {
    if at.saturating_add(CHUNK_HEAD) > length {
        return Ok(None);
    }
    let mut kind = [0; 4];
    let mut size = [0; 4];
    read_exact(read, at, &mut kind)?;
    read_exact(read, at.saturating_add(4), &mut size)?;
    Ok(Some((kind, u32::from_le_bytes(size))))
}

fn read_exact(read: ReadAt<'_>, offset: u64, buf: &mut [u8]) -> Result<(), Unreadable> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(offset.saturating_add(filled as u64), rest) {
            Ok(0) => return Err(cut_off("the file has become shorter while it was read")),
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unreadable::Io(error)),
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn not_wav(reason: &str) -> Unreadable {
    Unreadable::Content { reason: reason.to_owned(), unfinished: false }
}

fn cut_off(reason: &str) -> Unreadable {
    Unreadable::Content { reason: reason.to_owned(), unfinished: true }
}

/// A WAV for tests, as Asterisk writes it (16-bit mono at 8 kHz): so many samples, which count up.
pub fn counting(samples: u32) -> Vec<u8> {
    let data = samples.saturating_mul(2);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(data.saturating_add(36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    bytes.extend(data.to_le_bytes());
    for sample in 0..samples {
        let [low, high, ..] = sample.to_le_bytes();
        bytes.extend([low, high]);
    }
    bytes
}

#[cfg(test)]
mod tests;

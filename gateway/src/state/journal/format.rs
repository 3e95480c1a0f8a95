//! A line of the journal, and the names of its files.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Head, JournalError, NewEntry};

/// The longest line in bytes, its newline included.
pub const MAX_ENTRY_BYTES: usize = 64 << 10;
/// How deep an entry's data may be nested, well below what the parser takes (128).
pub const MAX_DEPTH: usize = 32;

/// Room in a line for everything but kind and data: six names, three numbers, a hash, a UUID.
const ENVELOPE_BYTES: usize = 256;

/// An entry as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number in the chain, from 1 without gaps.
    pub sequence: u64,
    /// The gateway that wrote it.
    pub gateway: Uuid,
    /// When, in milliseconds since 1970 (UTC), by that gateway's clock.
    pub at_ms: u64,
    /// See [`NewEntry::kind`].
    pub kind: String,
    /// See [`NewEntry::data`].
    pub data: Value,
}

/// What the chain is verified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub sequence: u64,
    pub previous: [u8; 32],
    pub batch: u64,
}

/// Kind and data of an entry as JSON, bounded, before its number is known.
#[derive(Debug)]
pub(super) struct Body(String);

impl Body {
    pub(super) fn new(entry: &NewEntry) -> Result<Self, JournalError> {
        let refused = |detail: String| {
            // A kind comes from the code, but may be as wrong as the rest: it is cut for the message.
            JournalError::Refused { kind: entry.kind.chars().take(64).collect(), detail }
        };
        if depth(entry.data()) > MAX_DEPTH {
            return Err(refused(format!("its data is nested deeper than {MAX_DEPTH}")));
        }
        let kind = serde_json::to_string(entry.kind.as_ref()).map_err(|e| refused(e.to_string()))?;
        let body = format!("\"kind\":{kind},\"data\":{}", entry.data());
        let bytes = body.len().saturating_add(ENVELOPE_BYTES);
        if bytes > MAX_ENTRY_BYTES {
            return Err(refused(format!("it has {bytes} bytes of {MAX_ENTRY_BYTES} allowed")));
        }
        Ok(Self(body))
    }

    /// The most bytes that its line can have.
    pub(super) fn line_bytes(&self) -> usize {
        self.0.len().saturating_add(ENVELOPE_BYTES)
    }

    /// Appends the line with its newline to `out` and returns the new head.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        before: Head,
        gateway: Uuid,
        at_ms: u64,
        batch: u64,
    ) -> Head {
        let sequence = before.sequence.saturating_add(1);
        let line = format!(
            "{{\"seq\":{sequence},\"prev\":\"{}\",\"gateway\":\"{gateway}\",\"at\":{at_ms},\"batch\":{batch},{}}}",
            hex(&before.hash),
            self.0
        );
        let hash = hash(line.as_bytes());
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        Head { sequence, hash }
    }
}

#[derive(Deserialize)]
struct Line<D> {
    seq: u64,
    prev: String,
    gateway: Uuid,
    at: u64,
    batch: u64,
    kind: String,
    data: D,
}

/// What a line (without newline) says of the chain, or why it is no entry.
pub(super) fn parse_link(line: &[u8]) -> Result<Link, String> {
    let line: Line<IgnoredAny> = serde_json::from_slice(line).map_err(|e| format!("it is no entry ({e})"))?;
    let previous = from_hex(&line.prev).ok_or("its `prev` is no SHA-256")?;
    if line.batch == 0 || line.batch > line.seq {
        return Err(format!("its `batch` {} doesn't go with its `seq` {}", line.batch, line.seq));
    }
    Ok(Link { sequence: line.seq, previous, batch: line.batch })
}

/// The entry in a line (without newline), or why there is none.
pub(super) fn parse_entry(line: &[u8]) -> Result<Entry, String> {
    let line: Line<Value> = serde_json::from_slice(line).map_err(|e| format!("it is no entry ({e})"))?;
    Ok(Entry { sequence: line.seq, gateway: line.gateway, at_ms: line.at, kind: line.kind, data: line.data })
}

/// SHA-256.
pub(super) fn hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

/// The file of the segment that begins with this entry. The width makes names sort as numbers.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The first entry of a segment by its file's name; `None` for other files.
pub(super) fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    if digits.len() != 20 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| *first > 0)
}

/// How deep JSON is nested; 1 where it isn't.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (1_usize, 1, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::borrow::Cow;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn new(kind: impl Into<Cow<'static, str>>, data: Value) -> NewEntry {
        NewEntry::new(kind, &data).unwrap()
    }

    fn line(entry: &NewEntry, before: Head, batch: u64) -> (Vec<u8>, Head) {
        let mut out = Vec::new();
        let head = Body::new(entry).unwrap().write(&mut out, before, Uuid::nil(), 7, batch);
        (out, head)
    }

    #[test]
    fn a_line_looks_as_documented() {
        let (line, head) = line(&new("hold", json!({"case": "4711"})), Head::default(), 1);
        let text = std::str::from_utf8(&line).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                "{{\"seq\":1,\"prev\":\"{zeros}\",\"gateway\":\"00000000-0000-0000-0000-000000000000\",\"at\":7,\"batch\":1,\"kind\":\"hold\",\"data\":{{\"case\":\"4711\"}}}}\n"
            )
        );
        assert_eq!(head, Head { sequence: 1, hash: hash(text.trim_end().as_bytes()) });
    }

    #[test]
    fn the_longest_envelope_fits_its_room() {
        let entry = new("", Value::Null);
        let body = Body::new(&entry).unwrap();
        let mut out = Vec::new();
        let before = Head { sequence: u64::MAX - 1, hash: [255; 32] };
        body.write(&mut out, before, Uuid::max(), u64::MAX, u64::MAX);
        assert!(out.len() <= body.line_bytes(), "{}", out.len());
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_refused() {
        let large = new("large", json!("x".repeat(MAX_ENTRY_BYTES)));
        assert!(Body::new(&large).unwrap_err().to_string().contains("bytes of 65536 allowed"));
        let deep = (0..MAX_DEPTH).fold(json!(1), |value, _| json!([value]));
        assert!(Body::new(&new("deep", deep)).unwrap_err().to_string().contains("nested deeper"));
        let fits = (1..MAX_DEPTH).fold(json!("[[\\\"]["), |value, _| json!([value, "}"]));
        Body::new(&new("fits", fits)).unwrap();
    }

    #[test]
    fn only_names_of_segments_are_segments() {
        assert_eq!(segment_first(&segment_name(42)), Some(42));
        assert_eq!(segment_first(&segment_name(u64::MAX)), Some(u64::MAX));
        for name in [
            "1.jsonl",
            "00000000000000000000.jsonl",
            "99999999999999999999.jsonl",
            "checkpoint.json",
            "+0000000000000000001.jsonl",
        ] {
            assert_eq!(segment_first(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_went(kind in ".{0,20}", text in any::<String>(), number in any::<f64>(), sequence in 0..u64::MAX) {
            let data = json!({"text": text, "number": number, "list": [null, true, -1]});
            let (line, head) = line(&new(kind.clone(), data.clone()), Head { sequence, hash: [9; 32] }, 1);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = &line[..line.len() - 1];
            let link = parse_link(line).unwrap();
            prop_assert_eq!(link, Link { sequence: head.sequence, previous: [9; 32], batch: 1 });
            let entry = parse_entry(line).unwrap();
            prop_assert_eq!(entry.kind, kind);
            prop_assert_eq!(&entry.data["text"], &data["text"]);
        }

        #[test]
        fn nonsense_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse_link(&bytes).is_err());
            prop_assert!(parse_entry(&bytes).is_err());
        }
    }
}

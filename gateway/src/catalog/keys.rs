//! Keys of the catalog's store, ordered so that each listing is one range scan:
//! tenant (u32), kind (u8), then day (i32), second (u32), sequence (u32) or what the kind needs;
//! big-endian, signs biased.

use crate::layout::{Extension, LocalDay, RecordingName, UtcDay, UtcSecond};

/// Key of the number of the last governance entry that the store has applied.
pub const APPLIED: &[u8] = &[0, 0, 0, 0, 0xFF, b'a'];

/// Key of the mark that the store was made for a journal that was there already.
pub const REBUILT: &[u8] = &[0, 0, 0, 0, 0xFF, b'r'];

/// What follows the tenant in a key. Numbers are part of the format on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Recording = 1,
    Media = 2,
    Uid = 3,
    Due = 4,
    Join = 5,
    Facts = 6,
    LocalOrder = 7,
    FolderOrder = 8,
    Folder = 9,
    RootIndex = 10,
    Source = 11,
    Tenant = 12,
    /// Marks of media and facts whose personal values were erased.
    Erased = 16,
    /// Days whose index files may still hold what was erased.
    Erasing = 17,
    /// How many facts join no medium.
    UnmatchedCount = 18,
    /// Facts that join no medium, by the start of their call.
    Unmatched = 19,
    /// Uids of media that have vanished before they got a name.
    Vanished = 20,
    /// What index files said of recordings when the store was lost.
    Recovered = 21,
}

/// Where a published recording stands: its row's key within the tenant, and its name but for the extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// UTC day of the start, days since 1970-01-01.
    pub day: i32,
    /// Second of that day.
    pub second: u32,
    /// Tells apart the recordings of one second.
    pub sequence: u32,
}

impl Place {
    /// The place of a start and a sequence.
    pub fn new(start: UtcSecond, sequence: u32) -> Self {
        Self { day: start.day().number(), second: start.second_of_day(), sequence }
    }

    /// The name of the recording here.
    pub fn name(self, extension: &str) -> Option<RecordingName> {
        let second = UtcSecond::from_parts(UtcDay::from_number(self.day)?, self.second)?;
        Some(RecordingName { second, sequence: self.sequence, extension: Extension::parse(extension).ok()? })
    }

    fn append_to(self, key: &mut Vec<u8>) {
        push_day(key, self.day);
        key.extend_from_slice(&self.second.to_be_bytes());
        key.extend_from_slice(&self.sequence.to_be_bytes());
    }
}

fn start(tenant: u32, kind: Kind) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.extend_from_slice(&tenant.to_be_bytes());
    key.push(kind as u8);
    key
}

fn push_day(key: &mut Vec<u8>, day: i32) {
    // Flipping the sign bit makes negative days sort below positive ones.
    key.extend_from_slice(&(day.cast_unsigned() ^ 0x8000_0000).to_be_bytes());
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn read_day(bytes: &[u8], at: usize) -> Option<i32> {
    Some((read_u32(bytes, at)? ^ 0x8000_0000).cast_signed())
}

/// Row of a published recording.
pub fn recording(tenant: u32, place: Place) -> Vec<u8> {
    let mut key = start(tenant, Kind::Recording);
    place.append_to(&mut key);
    key
}

/// Whether a key is that of a published recording.
pub fn is_recording(key: &[u8]) -> bool {
    key.get(4) == Some(&(Kind::Recording as u8))
}

/// Prefix of a tenant's published recordings, in the order of their names.
pub fn recordings(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Recording)
}

/// Prefix of a day's published recordings.
pub fn recordings_of(tenant: u32, day: UtcDay) -> Vec<u8> {
    let mut key = start(tenant, Kind::Recording);
    push_day(&mut key, day.number());
    key
}

/// Prefix of the recordings of one second.
pub fn recordings_at(tenant: u32, second: UtcSecond) -> Vec<u8> {
    let mut key = recordings_of(tenant, second.day());
    key.extend_from_slice(&second.second_of_day().to_be_bytes());
    key
}

/// The place in a key of [`recording`].
pub fn place_of_recording(key: &[u8]) -> Option<Place> {
    Some(Place { day: read_day(key, 5)?, second: read_u32(key, 9)?, sequence: read_u32(key, 13)? })
}

/// Row of a medium, as its source told it last.
pub fn media(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    let mut key = media_of(tenant, source);
    key.extend_from_slice(id.as_bytes());
    key
}

/// Prefix of a source's media.
pub fn media_of(tenant: u32, source: u32) -> Vec<u8> {
    let mut key = start(tenant, Kind::Media);
    key.extend_from_slice(&source.to_be_bytes());
    key
}

/// Prefix of a tenant's media, by source.
pub fn all_media(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Media)
}

/// The source in a key of [`media`] or [`source`].
pub fn source_of(key: &[u8]) -> Option<u32> {
    read_u32(key, 5)
}

/// The medium's id in a key of [`media`].
pub fn id_of_media(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(9..)?).ok()
}

/// Which medium a uid belongs to.
pub fn uid(tenant: u32, uid: &[u8; 16]) -> Vec<u8> {
    let mut key = start(tenant, Kind::Uid);
    key.extend_from_slice(uid);
    key
}

/// The uid of a medium that has vanished before it got a name, for its return.
pub fn vanished(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    let mut key = start(tenant, Kind::Vanished);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// Media that wait for facts, by the time (Unix milliseconds) until which they do.
pub fn due(tenant: u32, at_ms: i64, uid: &[u8; 16]) -> Vec<u8> {
    let mut key = due_of(tenant);
    key.extend_from_slice(&(at_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(uid);
    key
}

/// Prefix of the media that wait.
pub fn due_of(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Due)
}

/// Time and uid in a key of [`due`].
pub fn parse_due(key: &[u8]) -> Option<(i64, [u8; 16])> {
    let at = (read_u64(key, 5)? ^ (1 << 63)).cast_signed();
    Some((at, key.get(13..29)?.try_into().ok()?))
}

/// Media and facts that share a join key.
pub fn join(tenant: u32, source: u32, kind: u32, value: &str) -> Vec<u8> {
    let mut key = start(tenant, Kind::Join);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(&kind.to_be_bytes());
    key.extend_from_slice(value.as_bytes());
    key
}

/// Row of facts.
pub fn facts(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    let mut key = start(tenant, Kind::Facts);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// How many facts of a source join no medium.
pub fn unmatched_count(tenant: u32, source: u32) -> Vec<u8> {
    let mut key = start(tenant, Kind::UnmatchedCount);
    key.extend_from_slice(&source.to_be_bytes());
    key
}

/// Facts that join no medium, the oldest (Unix milliseconds) first.
pub fn unmatched(tenant: u32, source: u32, age_ms: i64, id: &str) -> Vec<u8> {
    let mut key = all_unmatched(tenant, source);
    key.extend_from_slice(&(age_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// Prefix of [`unmatched`].
pub fn all_unmatched(tenant: u32, source: u32) -> Vec<u8> {
    let mut key = start(tenant, Kind::Unmatched);
    key.extend_from_slice(&source.to_be_bytes());
    key
}

/// Age and id in a key of [`unmatched`].
pub fn parse_unmatched(key: &[u8]) -> Option<(i64, &str)> {
    let age = (read_u64(key, 9)? ^ (1 << 63)).cast_signed();
    Some((age, std::str::from_utf8(key.get(17..)?).ok()?))
}

/// Places of a local day in the order of publication.
pub fn local_order(tenant: u32, day: LocalDay, publication: u64) -> Vec<u8> {
    let mut key = local_order_of(tenant, day);
    key.extend_from_slice(&publication.to_be_bytes());
    key
}

/// Prefix of [`local_order`].
pub fn local_order_of(tenant: u32, day: LocalDay) -> Vec<u8> {
    let mut key = start(tenant, Kind::LocalOrder);
    push_day(&mut key, day.number());
    key
}

/// Places of a UTC day in the order of publication.
pub fn folder_order(tenant: u32, day: UtcDay, publication: u64) -> Vec<u8> {
    let mut key = folder_order_of(tenant, day);
    key.extend_from_slice(&publication.to_be_bytes());
    key
}

/// Prefix of [`folder_order`].
pub fn folder_order_of(tenant: u32, day: UtcDay) -> Vec<u8> {
    let mut key = start(tenant, Kind::FolderOrder);
    push_day(&mut key, day.number());
    key
}

/// Row of a day folder.
pub fn folder(tenant: u32, day: UtcDay) -> Vec<u8> {
    let mut key = folders(tenant);
    push_day(&mut key, day.number());
    key
}

/// Prefix of the day folders.
pub fn folders(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Folder)
}

/// Row of a local day's root index.
pub fn root_index(tenant: u32, day: LocalDay) -> Vec<u8> {
    let mut key = root_indexes(tenant);
    push_day(&mut key, day.number());
    key
}

/// Prefix of the root indexes.
pub fn root_indexes(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::RootIndex)
}

/// The day in a key of [`folder`] or [`root_index`].
pub fn day_of(key: &[u8]) -> Option<i32> {
    read_day(key, 5)
}

/// Row of a source's scans.
pub fn source(tenant: u32, source: u32) -> Vec<u8> {
    let mut key = start(tenant, Kind::Source);
    key.extend_from_slice(&source.to_be_bytes());
    key
}

/// Prefix of the rows of a tenant's sources, those that aren't configured any more among them.
pub fn sources(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Source)
}

/// The mark of a medium whose personal values were erased.
pub fn erased_media(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    erased(tenant, 1, source, id)
}

/// The mark of facts whose personal values were erased.
pub fn erased_facts(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    erased(tenant, 2, source, id)
}

fn erased(tenant: u32, what: u8, source: u32, id: &str) -> Vec<u8> {
    let mut key = all_erased(tenant);
    key.push(what);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// Prefix of all marks of a tenant.
pub fn all_erased(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Erased)
}

/// The days of a recording (days since 1970-01-01) whose index files may still hold what was erased.
pub fn erasing(tenant: u32, local_day: i32, utc_day: i32) -> Vec<u8> {
    let mut key = all_erasing(tenant);
    push_day(&mut key, local_day);
    push_day(&mut key, utc_day);
    key
}

/// Prefix of [`erasing`].
pub fn all_erasing(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Erasing)
}

/// Local day and UTC day in a key of [`erasing`].
pub fn days_of_erasing(key: &[u8]) -> Option<(i32, i32)> {
    Some((read_day(key, 5)?, read_day(key, 9)?))
}

/// What an index said of a published medium when the store was lost.
pub fn recovered(tenant: u32, source: u32, id: &str) -> Vec<u8> {
    let mut key = all_recovered(tenant);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// Prefix of [`recovered`].
pub fn all_recovered(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Recovered)
}

/// Row of a tenant's counters.
pub fn tenant(tenant: u32) -> Vec<u8> {
    start(tenant, Kind::Tenant)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_parts() {
        let place = |day, second, sequence| recording(7, Place { day, second, sequence });
        let mut keys =
            [place(-3, 5, 0), place(-1, 0, 9), place(0, 0, 0), place(0, 86_399, 10_000), place(16_958, 1, 2)];
        let sorted = keys.clone();
        keys.reverse();
        keys.sort();
        assert_eq!(keys, sorted);
        assert_eq!(place_of_recording(&keys[0]).unwrap(), Place { day: -3, second: 5, sequence: 0 });
    }

    #[test]
    fn due_keys_sort_by_time() {
        let early = due(1, -5, &[255; 16]);
        let late = due(1, 5, &[0; 16]);
        assert!(early < late);
        assert_eq!(parse_due(&early), Some((-5, [255; 16])));
    }
}

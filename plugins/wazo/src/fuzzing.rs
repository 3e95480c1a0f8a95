//! What the fuzz targets in `tests/fuzz` call; exists with `--cfg fuzzing` alone.

use crate::wav;

/// Reads the header of a recording: the bytes after the first two, and as many KiB of silence after them as the first
/// two say, so that large sizes can be right.
pub fn wav_header(input: &[u8]) {
    let Some((&silence, stored)) = input.split_first_chunk::<2>() else { return };
    let length = (stored.len() as u64).saturating_add(u64::from(u16::from_le_bytes(silence)) << 10);
    let Ok(header) = examine(stored, length) else { return };
    assert!(header.patch.len() as u64 <= length.min(4096));
    assert!(header.unfinished || header.patch.is_empty());
    if header.patch.is_empty() {
        return;
    }
    // The patched header is right: nothing is left to do, and the audio is as long.
    let mut served = header.patch.clone();
    served.extend(stored.get(header.patch.len()..).unwrap_or_default());
    let Ok(again) = examine(&served, length) else {
        // hound doesn't look at the size of a fmt chunk, which the walker that takes over where there is no audio does.
        assert_eq!(header.duration_ms, 0, "the patched file is no WAV");
        return;
    };
    assert!(again.patch.is_empty() && !again.unfinished, "{header:?} then {again:?}");
    assert_eq!(again.duration_ms, header.duration_ms);
}

fn examine(stored: &[u8], length: u64) -> Result<wav::Header, wav::Unreadable> {
    let read = |offset: u64, buf: &mut [u8]| {
        let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
        // Reads are cut now and then, as a file system may.
        let count = buf.len().min(left).min(1000);
        let buf = buf.get_mut(..count).unwrap_or_default();
        buf.fill(0);
        let rest = usize::try_from(offset).ok().and_then(|from| stored.get(from..)).unwrap_or_default();
        for (to, byte) in buf.iter_mut().zip(rest) {
            *to = *byte;
        }
        Ok(count)
    };
    wav::examine(length, &read)
}

//! A WAV of tones (RIFF, PCM, one channel of 16 bits) that can be computed from any offset on.

/// Samples a second.
pub(crate) const RATE: u64 = 8000;
/// Bytes before the samples.
pub(crate) const HEADER: u64 = 44;

/// Samples that one note lasts.
const NOTE: u64 = 2000;
/// How far a note's saw tooth rises with each sample: some 200 to 700 Hz.
const STEPS: [i16; 6] = [1639, 2048, 2458, 3072, 4096, 5735];

/// Writes what a WAV of so many samples has from `offset` on.
pub(crate) fn fill(number: u64, samples: u64, offset: u64, buf: &mut [u8]) {
    let header = header(samples);
    let mut at = offset;
    for byte in buf.iter_mut() {
        *byte = match usize::try_from(at).ok().and_then(|at| header.get(at)) {
            Some(byte) => *byte,
            None => {
                let position = at.saturating_sub(HEADER);
                let [low, high] = sample(number, position / 2).to_le_bytes();
                if position & 1 == 0 { low } else { high }
            }
        };
        at = at.saturating_add(1);
    }
}

/// A quarter of the full scale; each note of a call is one of [`STEPS`].
fn sample(number: u64, at: u64) -> i16 {
    let note = crate::calls::mixed(number.wrapping_mul(31).wrapping_add(at / NOTE));
    let step = usize::try_from(note % 6).ok().and_then(|at| STEPS.get(at)).copied().unwrap_or(1639);
    let phase = i16::try_from(at % NOTE).unwrap_or(0).wrapping_mul(step);
    phase / 4
}

fn header(samples: u64) -> [u8; 44] {
    let data = u32::try_from(samples.saturating_mul(2)).unwrap_or(u32::MAX - 36);
    let rate = u32::try_from(RATE).unwrap_or(8000);
    let mut header = [0; 44];
    let parts: [&[u8]; 13] = [
        b"RIFF",
        &(data + 36).to_le_bytes(),
        b"WAVE",
        b"fmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(), // PCM
        &1_u16.to_le_bytes(), // one channel
        &rate.to_le_bytes(),
        &(rate * 2).to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &data.to_le_bytes(),
    ];
    for (to, from) in header.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    header
}

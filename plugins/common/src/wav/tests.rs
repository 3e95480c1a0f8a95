#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

/// A WAV of these parts; sizes are right.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let block = channels * bits.div_ceil(8);
    let mut fmt = Vec::new();
    fmt.extend(tag.to_le_bytes());
    fmt.extend(channels.to_le_bytes());
    fmt.extend(rate.to_le_bytes());
    fmt.extend((rate * u32::from(block)).to_le_bytes());
    fmt.extend(block.to_le_bytes());
    fmt.extend(bits.to_le_bytes());
    if tag == EXTENSIBLE {
        fmt.extend(22_u16.to_le_bytes());
        fmt.extend(bits.to_le_bytes());
        fmt.extend(3_u32.to_le_bytes());
        fmt.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
    }
    form(&[(b"fmt ", &fmt), (b"data", data)])
}

fn form(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"RIFF\0\0\0\0WAVE".to_vec();
    for (kind, body) in chunks {
        bytes.extend(*kind);
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(*body);
        if body.len() % 2 == 1 {
            bytes.push(0);
        }
    }
    let size = u32::try_from(bytes.len() - 8).unwrap();
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes
}

fn set_sizes(bytes: &mut [u8], riff: u32, data: u32) {
    let at = bytes.windows(4).position(|four| four == b"data").unwrap() + 4;
    bytes[4..8].copy_from_slice(&riff.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&data.to_le_bytes());
}

fn look(bytes: &[u8]) -> Result<Header, Unreadable> {
    let read = |offset: u64, buf: &mut [u8]| {
        let from = usize::try_from(offset).unwrap().min(bytes.len());
        let count = buf.len().min(bytes.len() - from).min(1000);
        buf[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    };
    examine(bytes.len() as u64, &read)
}

fn reason(bytes: &[u8]) -> (String, bool) {
    match look(bytes).unwrap_err() {
        Unreadable::Content { reason, unfinished } => (reason, unfinished),
        Unreadable::Io(error) => panic!("{error}"),
    }
}

fn patched(bytes: &[u8]) -> Vec<u8> {
    let header = look(bytes).unwrap();
    let mut served = bytes.to_vec();
    served[..header.patch.len()].copy_from_slice(&header.patch);
    served
}

#[test]
fn right_headers_are_left_alone() {
    let second = vec![1_u8; 16_000];
    for (bytes, duration_ms) in [
        (wav(PCM, 1, 8000, 16, &second), 1000),
        (wav(PCM, 2, 8000, 16, &second), 500),
        (wav(PCM, 1, 16_000, 16, &second), 500),
        (wav(PCM, 1, 8000, 8, &second), 2000),
        (wav(PCM, 1, 8000, 24, &second[..12_000]), 500),
        (wav(MU_LAW, 1, 8000, 8, &second), 2000),
        (wav(A_LAW, 2, 8000, 8, &second), 1000),
        (wav(EXTENSIBLE, 2, 16_000, 16, &second), 250),
        (wav(FLOAT, 1, 8000, 32, &second), 500),
        (wav(PCM, 1, 8000, 16, &[]), 0),
        (wav(PCM, 1, 8000, 8, &second[..801]), 100),
    ] {
        let expected = Header { duration_ms, patch: Vec::new(), unfinished: false };
        assert_eq!(look(&bytes).unwrap(), expected, "{:?}", &bytes[..44]);
    }
}

#[test]
fn chunks_before_and_after_the_data_are_no_audio() {
    let good = wav(PCM, 1, 8000, 16, &[]);
    let fmt = &good[20..36];
    let info = vec![b'x'; 9001];
    let bytes = form(&[
        (b"fmt ", fmt),
        (b"LIST", &info),
        (b"data", &[1; 1600]),
        (b"LIST", b"INFOabc"),
        (b"id3 ", b""),
    ]);
    let expected = Header { duration_ms: 100, patch: Vec::new(), unfinished: false };
    assert_eq!(look(&bytes).unwrap(), expected);

    // A few stray bytes after the data don't matter either.
    let mut bytes = wav(PCM, 1, 8000, 16, &[1; 1600]);
    bytes.extend([0, 0, 0]);
    assert_eq!(look(&bytes).unwrap(), expected);
}

#[test]
fn zero_sizes_are_seen_through() {
    let right = wav(PCM, 1, 8000, 16, &[0; 1600]);
    let mut bytes = right.clone();
    set_sizes(&mut bytes, 0, 0);
    let header = look(&bytes).unwrap();
    assert_eq!((header.duration_ms, header.unfinished, header.patch.len()), (100, true, 44));
    assert_eq!(patched(&bytes), right);

    // Only one of the two wrong.
    set_sizes(&mut bytes, 0, 1600);
    assert_eq!(patched(&bytes), right);
    set_sizes(&mut bytes, 1636, 0);
    assert_eq!(patched(&bytes), right);
}

#[test]
fn sizes_beyond_the_end_and_stale_ones_are_seen_through() {
    let right = wav(PCM, 2, 16_000, 16, &[7; 6400]);
    for (riff, data) in [(99_036, 99_000), (u32::MAX, u32::MAX), (836, 800), (6437, 6401), (36, 0)] {
        let mut bytes = right.clone();
        set_sizes(&mut bytes, riff, data);
        assert_eq!(look(&bytes).unwrap().duration_ms, 100, "{data}");
        assert_eq!(patched(&bytes), right, "{data}");
    }
}

#[test]
fn a_file_that_ends_within_a_frame_has_whole_frames_and_all_its_bytes() {
    let mut bytes = wav(PCM, 2, 8000, 16, &[7; 32]);
    set_sizes(&mut bytes, 0, 0);
    bytes.truncate(44 + 31);
    let header = look(&bytes).unwrap();
    assert_eq!(u32_at(&header.patch, 40), Some(28));
    assert_eq!(u32_at(&header.patch, 4), Some(64));
    assert_eq!(patched(&bytes).len(), bytes.len());
}

#[test]
fn compressed_audio_is_measured_by_its_byte_rate() {
    let mut bytes = wav(49, 1, 8000, 8, &[7; 1625]);
    bytes[28..32].copy_from_slice(&1625_u32.to_le_bytes());
    bytes[32..34].copy_from_slice(&65_u16.to_le_bytes());
    assert_eq!(look(&bytes).unwrap().duration_ms, 1000);
}

#[test]
fn what_cannot_be_put_right_is_served_as_it_is() {
    // RF64 has its sizes elsewhere.
    let mut bytes = wav(PCM, 1, 8000, 16, &[7; 1600]);
    bytes[..4].copy_from_slice(b"RF64");
    set_sizes(&mut bytes, u32::MAX, u32::MAX);
    assert_eq!(look(&bytes).unwrap(), Header { duration_ms: 100, patch: Vec::new(), unfinished: false });

    // The size lies beyond what a patch may change.
    let good = wav(PCM, 1, 8000, 16, &[]);
    let mut bytes = form(&[(b"fmt ", &good[20..36]), (b"LIST", &[0; 5000]), (b"data", &[7; 1600])]);
    set_sizes(&mut bytes, 0, 0);
    assert_eq!(look(&bytes).unwrap(), Header { duration_ms: 100, patch: Vec::new(), unfinished: true });
}

#[test]
fn what_is_no_wav_says_why() {
    let good = wav(PCM, 1, 8000, 16, &[7; 16]);
    for (bytes, said, unfinished) in [
        (Vec::new(), "empty", true),
        (good[..11].to_vec(), "RIFF header", true),
        (good[..30].to_vec(), "fmt chunk", true),
        (good[..40].to_vec(), "before its data chunk", true),
        (vec![0; 100], "not a WAV", false),
        ([b"RIFF\0\0\0\0AVI ".as_slice(), &[0; 50]].concat(), "WAVE", false),
        (form(&[(b"data", &[0; 8])]), "before a fmt", false),
        (form(&[(b"fmt ", &[0; 8])]), "at least 16", false),
        (form(&[(b"fmt ", &[0; 16]), (b"data", &[0; 8])]), "0 bytes", false),
        (form(&vec![(b"junk", b"".as_slice()); 300]), "256", false),
    ] {
        let (reason, is_unfinished) = reason(&bytes);
        assert!(reason.contains(said), "{reason}");
        assert_eq!(is_unfinished, unfinished, "{reason}");
    }
    let mut no_rate = good;
    no_rate[24..28].fill(0);
    assert!(reason(&no_rate).0.contains("no audio"));
}

#[test]
fn a_failing_disk_is_no_bad_file() {
    let read = |_: u64, _: &mut [u8]| Err(io::Error::other("disk"));
    assert!(matches!(examine(100, &read), Err(Unreadable::Io(_))));
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(header) = look(bytes) else { return Ok(()) };
    prop_assert!(header.patch.len() <= bytes.len().min(4096));
    if header.patch.is_empty() {
        return Ok(());
    }
    let served = patched(bytes);
    prop_assert_eq!(served.len(), bytes.len());
    // The patched header is right: nothing is left to do, and the audio is as long.
    let again = look(&served).unwrap();
    prop_assert!(again.patch.is_empty() && !again.unfinished, "{:?} then {:?}", header, again);
    prop_assert_eq!(again.duration_ms, header.duration_ms);
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_in_a_riff_never_panic(
        chunks in prop::collection::vec(
            (prop::sample::select(vec![b"fmt ", b"data", b"LIST", b"fact"]), prop::collection::vec(any::<u8>(), 0..50)),
            0..6,
        ),
        cut in 0_usize..400,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let parts: Vec<(&[u8; 4], &[u8])> = chunks.iter().map(|(kind, body)| (*kind, body.as_slice())).collect();
        let mut bytes = form(&parts);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(12));
        check(&bytes)?;
    }

    #[test]
    fn any_sizes_in_a_good_file_are_put_right(
        tag in prop::sample::select(vec![PCM, MU_LAW, EXTENSIBLE]),
        channels in 1_u16..4,
        bits in prop::sample::select(vec![8_u16, 16, 24]),
        data in prop::collection::vec(any::<u8>(), 0..200),
        riff in any::<u32>(),
        size in prop_oneof![Just(0_u32), Just(u32::MAX), any::<u32>(), 0_u32..300],
    ) {
        let mut bytes = wav(tag, channels, 8000, bits, &data);
        set_sizes(&mut bytes, riff, size);
        check(&bytes)?;
    }

    #[test]
    fn hound_and_the_walker_agree(
        channels in 1_u16..4,
        bits in prop::sample::select(vec![8_u16, 16, 24]),
        frames in 1_usize..50,
        extensible in any::<bool>(),
    ) {
        let data = vec![1; frames * usize::from(channels) * usize::from(bits / 8)];
        let bytes = wav(if extensible { EXTENSIBLE } else { PCM }, channels, 8000, bits, &data);
        let read = |offset: u64, buf: &mut [u8]| {
            let from = usize::try_from(offset).unwrap();
            buf.copy_from_slice(&bytes[from..from + buf.len()]);
            Ok(buf.len())
        };
        prop_assert_eq!(by_hound(&bytes).unwrap(), by_walking(bytes.len() as u64, &read).unwrap());
    }
}

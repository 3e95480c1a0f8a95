#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use proptest::prelude::*;
use recgate_plugin_api::{Error, ErrorCode};

use super::*;
use crate::{
    sources::SourceError,
    vfs::{Refusal, RefusalKind},
};

const K32: usize = 32 << 10;
const MIB: u64 = 1 << 20;

/// What a fake medium does next instead of answering.
#[derive(Clone)]
enum Trick {
    Fail(ErrorCode),
    Short(usize),
    Long,
    Panic,
}

/// A medium whose byte at an offset follows from the offset; counts what is asked of it and what lives.
#[derive(Default)]
struct Fake {
    size: u64,
    delay: Duration,
    tricks: Mutex<VecDeque<Trick>>,
    always: Option<ErrorCode>,
    reads: Mutex<Vec<(u64, usize)>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    live: Arc<AtomicU64>,
    most_live: Arc<AtomicU64>,
}

/// Bytes that count themselves while anybody holds them.
struct Counted(Vec<u8>, Arc<AtomicU64>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len() as u64, Ordering::SeqCst);
    }
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl OpenMedia for Fake {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, SourceError> {
        self.reads.lock().unwrap().push((offset, len));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most_running.fetch_max(running, Ordering::SeqCst);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let fail =
            |code| SourceError { source_name: Arc::from("fake"), error: Error::new(code, "made to fail") };
        if let Some(code) = self.always {
            return Err(fail(code));
        }
        let trick = self.tricks.lock().unwrap().pop_front();
        let mut end = (offset + len as u64).min(self.size);
        match trick {
            Some(Trick::Fail(code)) => return Err(fail(code)),
            Some(Trick::Short(by)) => end -= by as u64,
            Some(Trick::Long) => end += 1,
            Some(Trick::Panic) => panic!("made to panic"),
            None => {}
        }
        let bytes: Vec<u8> = (offset..end).map(byte).collect();
        let live = self.live.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
        self.most_live.fetch_max(live, Ordering::SeqCst);
        Ok(Bytes::from_owner(Counted(bytes, Arc::clone(&self.live))))
    }
}

fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn attributes(size: u64) -> Attributes {
    Attributes { is_folder: false, size, modified: 7 }
}

fn medium(fake: &Arc<Fake>) -> Medium {
    let media: Arc<dyn OpenMedia> = Arc::<Fake>::clone(fake);
    Medium { media, first: None, source: (1, 1), describe: "recording 1".into() }
}

fn open(reader: &MediaReader, fake: &Arc<Fake>) -> Arc<dyn OpenFile> {
    reader.open(medium(fake), fake.size, Bytes::new(), attributes(fake.size), None)
}

async fn read(file: &Arc<dyn OpenFile>, offset: u64, len: usize) -> Result<BytesMut, Refusal> {
    let mut out = BytesMut::from(&b"before"[..]);
    if !file.read_now(offset, len, &mut out) {
        assert_eq!(&out[..], b"before", "a read that is refused appends nothing");
        let result = file.read(offset, len, &mut out).await;
        if result.is_err() {
            assert_eq!(&out[..], b"before", "a read that fails appends nothing");
        }
        result?;
    }
    assert_eq!(&out[..6], b"before");
    Ok(out.split_off(6))
}

fn expected(size: u64, offset: u64, len: usize) -> Vec<u8> {
    (offset.min(size)..(offset + len as u64).min(size)).map(byte).collect()
}

/// Lets tasks that were aborted end, then checks that all memory was given back.
async fn assert_nothing_held(reader: &MediaReader) {
    for _ in 0..100 {
        if reader.bytes_in_use() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((reader.bytes_in_use(), reader.active_files()), (0, 0));
}

/// Reads a file as OpenSSH does: 64 requests outstanding. Returns the virtual time that it took.
async fn download(file: &Arc<dyn OpenFile>, size: u64, step: usize) -> Duration {
    let begin = tokio::time::Instant::now();
    let mut pending = VecDeque::new();
    let mut asked = 0;
    let mut checked = 0;
    while checked < size {
        while pending.len() < 64 && asked < size {
            let file = Arc::clone(file);
            let at = asked;
            pending.push_back(tokio::spawn(async move { read(&file, at, step).await }));
            asked += step as u64;
        }
        let got = pending.pop_front().unwrap().await.unwrap().unwrap();
        assert!(got[..] == expected(size, checked, step)[..], "wrong bytes at {checked}");
        checked += step as u64;
    }
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_short_file_costs_one_read_and_is_there_when_it_is_asked_for() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 64 << 10, ..Fake::default() });
    let file = open(&reader, &fake);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut out = BytesMut::new();
    assert!(file.read_now(0, K32, &mut out) && file.read_now(K32 as u64, K32, &mut out));
    assert!(file.read_now(64 << 10, K32, &mut out), "nothing beyond the end, at once");
    assert_eq!(out[..], expected(fake.size, 0, 64 << 10)[..]);
    assert_eq!(*fake.reads.lock().unwrap(), [(0, 64 << 10)]);
    assert_nothing_held(&reader).await;
}

#[tokio::test(start_paused = true)]
async fn slow_storage_is_read_at_forty_times_the_serial_rate() {
    for millis in [20, 100] {
        let reader = MediaReader::new(256 * MIB, 8 * MIB);
        let delay = Duration::from_millis(millis);
        let fake = Arc::new(Fake { size: 32 * MIB + 5, delay, ..Fake::default() });
        let file = open(&reader, &fake);
        let took = download(&file, fake.size, K32).await;
        let serial = delay * (fake.size / K32 as u64) as u32;
        assert!(took * 40 <= serial, "{took:?} against {serial:?}");
        let fetched: u64 = fake.reads.lock().unwrap().iter().map(|(_, len)| *len as u64).sum();
        assert_eq!(fetched, fake.size, "each byte is fetched once");
        assert!(fake.most_running.load(Ordering::SeqCst) <= 32, "at most 8 MiB of the smallest blocks");
        drop(file);
        assert_nothing_held(&reader).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_access_fetches_just_what_is_asked_for() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 1 << 40, ..Fake::default() });
    let file = open(&reader, &fake);
    let offsets: Vec<u64> = (1..50).map(|i| (i * 7_919_191_919) % (1 << 40)).collect();
    for &offset in &offsets {
        assert_eq!(read(&file, offset, 1000).await.unwrap()[..], expected(fake.size, offset, 1000)[..]);
    }
    let reads = fake.reads.lock().unwrap().clone();
    assert_eq!(reads, offsets.iter().map(|offset| (*offset, 1000)).collect::<Vec<_>>());
    assert_eq!(reader.bytes_in_use(), 0, "a block of which all was read is dropped");
}

#[tokio::test(start_paused = true)]
async fn read_now_brings_the_read_ahead_forward() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 20 * MIB, delay: Duration::from_millis(5), ..Fake::default() });
    let file = open(&reader, &fake);
    let mut offset = 0;
    let mut misses = 0;
    while offset < fake.size {
        let mut out = BytesMut::new();
        while !file.read_now(offset, K32, &mut out) {
            misses += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(out[..], expected(fake.size, offset, K32)[..]);
        offset += K32 as u64;
    }
    assert!(misses < 20, "{misses}");
}

#[tokio::test(start_paused = true)]
async fn the_header_patch_covers_the_first_bytes_only() {
    let reader = MediaReader::new(MIB, MIB);
    let fake = Arc::new(Fake { size: 100, ..Fake::default() });
    let patch = Bytes::from(vec![b'p'; 44]);
    let mut whole = patch.to_vec();
    whole.extend((44..100).map(byte));
    let file = reader.open(medium(&fake), 100, patch, attributes(100), Some([9; 32]));
    for (offset, len) in [(0, 100), (0, 1), (43, 2), (44, 5), (10, 30), (90, 50), (100, 1), (u64::MAX, 9)] {
        let end = (offset as usize).saturating_add(len).min(100);
        let begin = end.min(offset as usize);
        assert_eq!(read(&file, offset, len).await.unwrap()[..], whole[begin..end], "{offset} {len}");
    }
    assert_eq!((file.sha256(), file.attributes()), (Some([9; 32]), attributes(100)));
    // A patch longer than the file doesn't lengthen it.
    let file = reader.open(medium(&fake), 10, Bytes::from(vec![b'q'; 44]), attributes(10), None);
    assert_eq!(read(&file, 0, 99).await.unwrap()[..], [b'q'; 10]);
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_retried_and_lasting_ones_told_and_not_kept() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 10 * MIB, ..Fake::default() });
    let file = open(&reader, &fake);
    let play = |tricks: &[Trick]| *fake.tricks.lock().unwrap() = tricks.iter().cloned().collect();

    play(&[Trick::Fail(ErrorCode::Unavailable), Trick::Fail(ErrorCode::Busy)]);
    assert_eq!(read(&file, 5000, 10).await.unwrap()[..], expected(fake.size, 5000, 10)[..]);

    for (trick, kind, words) in [
        (Trick::Fail(ErrorCode::Precondition), RefusalKind::Corrupt, "has changed since it was published"),
        (Trick::Fail(ErrorCode::NotFound), RefusalKind::Corrupt, "has changed since it was published"),
        (Trick::Fail(ErrorCode::Archived), RefusalKind::Archived, "restored"),
        (Trick::Fail(ErrorCode::Timeout), RefusalKind::Unavailable, "try again later"),
        (Trick::Short(1), RefusalKind::Corrupt, "end early"),
        (Trick::Long, RefusalKind::Internal, "the log says why"),
        (Trick::Panic, RefusalKind::Internal, "the log says why"),
    ] {
        play(&[trick]);
        let refusal = read(&file, MIB, 1000).await.unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.client.contains(words), "{refusal}");
        assert!(refusal.detail.contains("recording 1"), "{refusal}");
        assert_eq!(read(&file, MIB, 1000).await.unwrap()[..], expected(fake.size, MIB, 1000)[..]);
    }

    play(&vec![Trick::Fail(ErrorCode::RateLimited); 3]);
    assert_eq!(read(&file, 5 * MIB, 10).await.unwrap_err().kind, RefusalKind::Unavailable);
    drop(file);
    assert_nothing_held(&reader).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_not_hammered_with_read_ahead() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 100 * MIB, always: Some(ErrorCode::Permission), ..Fake::default() });
    let file = open(&reader, &fake);
    for i in 0..50 {
        let refusal = read(&file, i * K32 as u64, K32).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
    }
    let reads = fake.reads.lock().unwrap().len();
    assert!(reads <= 60, "{reads} reads for 50 requests");
}

#[tokio::test(start_paused = true)]
async fn media_that_is_shorter_than_published_never_yields_a_wrong_byte() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 3 * MIB, ..Fake::default() });
    let file = reader.open(medium(&fake), 4 * MIB, Bytes::new(), attributes(4 * MIB), None);
    let mut refused = 0;
    for i in 0..128 {
        let offset = i * K32 as u64;
        match read(&file, offset, K32).await {
            Ok(bytes) => assert_eq!(bytes[..], expected(3 * MIB, offset, K32)[..]),
            Err(refusal) => {
                assert_eq!(
                    (refusal.kind, &*refusal.client),
                    (RefusalKind::Corrupt, "the stored bytes end early")
                );
                refused += 1;
            }
        }
    }
    assert!(refused >= 32, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_fetches_and_frees_the_memory() {
    let reader = MediaReader::new(256 * MIB, 8 * MIB);
    let fake = Arc::new(Fake { size: 100 * MIB, delay: Duration::from_secs(3600), ..Fake::default() });
    let file = open(&reader, &fake);
    let mut out = BytesMut::new();
    for i in 0..64 {
        assert!(!file.read_now(i * K32 as u64, K32, &mut out));
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(fake.running.load(Ordering::SeqCst) >= 4);
    assert_eq!(reader.active_files(), 1);
    drop(file);
    assert_nothing_held(&reader).await;
    assert_eq!(fake.running.load(Ordering::SeqCst), 0);
    assert_eq!(Arc::strong_count(&fake), 1, "the medium is closed");
}

#[tokio::test(start_paused = true)]
async fn five_hundred_files_get_on_with_a_budget_of_one_mebibyte() {
    let reader = MediaReader::new(MIB, 8 * MIB);
    let live = Arc::new(AtomicU64::new(0));
    let most_live = Arc::new(AtomicU64::new(0));
    let downloads = (0..500_u64).map(|i| {
        let fake = Arc::new(Fake {
            size: 300_000 + i * 100,
            delay: Duration::from_millis(i % 7),
            live: Arc::clone(&live),
            most_live: Arc::clone(&most_live),
            ..Fake::default()
        });
        let file = open(&reader, &fake);
        async move {
            let mut offset = 0;
            while offset < fake.size {
                // Large reads span blocks; the last quarter is left unread, in memory or not.
                let step = if i % 3 == 0 { 200_000 } else { K32 };
                assert!(
                    read(&file, offset, step).await.unwrap()[..] == expected(fake.size, offset, step)[..]
                );
                offset += step as u64;
                if i % 5 == 0 && offset > fake.size / 2 {
                    // A reader that stops keeps its file open until all are done.
                    return Some(file);
                }
            }
            None
        }
    });
    let stalled =
        tokio::time::timeout(Duration::from_secs(600), join_all(downloads)).await.expect("a deadlock");
    assert_eq!(stalled.iter().flatten().count(), 100);
    let most = most_live.load(Ordering::SeqCst);
    assert!(most <= MIB, "{most} bytes lived at once");
    drop(stalled);
    assert_nothing_held(&reader).await;
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_blocks_of_a_stalled_reader_make_room() {
    let reader = MediaReader::new(2 * MIB, 8 * MIB);
    let stalled_media = Arc::new(Fake { size: 50 * MIB, ..Fake::default() });
    let stalled = open(&reader, &stalled_media);
    for i in 0..40 {
        read(&stalled, i * K32 as u64, K32).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(reader.bytes_in_use() > MIB);
    let fake = Arc::new(Fake { size: 20 * MIB, ..Fake::default() });
    let file = open(&reader, &fake);
    tokio::time::timeout(Duration::from_secs(60), download(&file, fake.size, 255 << 10))
        .await
        .expect("a deadlock");
    assert_eq!(
        read(&stalled, 40 * K32 as u64, K32).await.unwrap()[..],
        expected(50 * MIB, 40 * K32 as u64, K32)[..]
    );
}

#[tokio::test(start_paused = true)]
async fn reading_ahead_keeps_the_block_that_a_read_is_about_to_take() {
    let reader = MediaReader::new(MIB, 64 << 10);
    let fake = Arc::new(Fake { size: 10 * MIB, ..Fake::default() });
    let file = open(&reader, &fake);
    for i in 0..3 {
        read(&file, i * K32 as u64, K32).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(reader.bytes_in_use(), 64 << 10, "two blocks wait for their reads");
    // Far larger than what the file may hold, and beginning with what is in memory.
    let mut out = BytesMut::new();
    file.read(3 * K32 as u64, 8 * K32, &mut out).await.unwrap();
    assert_eq!(out[..], expected(fake.size, 3 * K32 as u64, 8 * K32)[..]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_holds_up_none_but_its_own() {
    let reader = MediaReader::new(16 * MIB, 8 * MIB);
    let hangs = Arc::new(Fake { size: 100 * MIB, delay: Duration::from_secs(3600), ..Fake::default() });
    let stuck: Vec<_> = (0..40).map(|_| open(&reader, &hangs)).collect();
    let mut out = BytesMut::new();
    for file in &stuck {
        for i in 0..16 {
            assert!(!file.read_now(i * K32 as u64, K32, &mut out));
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let on_their_way: u64 = hangs.reads.lock().unwrap().iter().map(|(_, len)| *len as u64).sum();
    assert!((MIB..=4 * MIB).contains(&on_their_way), "{on_their_way}");
    let works = Arc::new(Fake { size: 20 * MIB, delay: Duration::from_millis(1), ..Fake::default() });
    let file = reader.open(
        Medium { source: (1, 2), ..medium(&works) },
        works.size,
        Bytes::new(),
        attributes(works.size),
        None,
    );
    let took = download(&file, works.size, K32).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop((stuck, file));
    assert_nothing_held(&reader).await;
}

/// On real threads: many files on little memory, readers that give up in the middle of a read, files that are closed
/// while they are fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_readers_that_give_up_and_little_memory_leave_nothing_behind() {
    let reader = MediaReader::new(2 * MIB, 8 * MIB);
    let live = Arc::new(AtomicU64::new(0));
    let most_live = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..48_u64)
        .map(|i| {
            let fake = Arc::new(Fake {
                size: 3 * MIB + i,
                delay: Duration::from_micros(i % 5 * 200),
                live: Arc::clone(&live),
                most_live: Arc::clone(&most_live),
                ..Fake::default()
            });
            let file = open(&reader, &fake);
            tokio::spawn(async move {
                let step = if i % 2 == 0 { K32 } else { 255 << 10 };
                let mut offset = 0;
                while offset < fake.size {
                    if i % 3 == 0 {
                        let soon = Duration::from_micros(offset % 700);
                        drop(tokio::time::timeout(soon, read(&file, offset, step)).await);
                    }
                    let both = [offset, offset + step as u64].map(|at| read(&file, at, step));
                    for (at, got) in [offset, offset + step as u64].into_iter().zip(join_all(both).await) {
                        assert!(got.unwrap()[..] == expected(fake.size, at, step)[..], "wrong bytes at {at}");
                    }
                    if i % 7 == 0 && offset > MIB {
                        return;
                    }
                    offset += 2 * step as u64;
                }
            })
        })
        .collect();
    let all = tokio::time::timeout(Duration::from_secs(120), join_all(tasks)).await.expect("a deadlock");
    all.into_iter().for_each(|task| task.unwrap());
    assert!(most_live.load(Ordering::SeqCst) <= 2 * MIB);
    assert_nothing_held(&reader).await;
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_pattern_of_reads_equals_the_reference(
        size in 0_u64..6_000_000,
        budget in 1_u64..12_000_000,
        per_file in 1_u64..9_000_000,
        delay in 0_u64..30,
        patch_len in 0_usize..100,
        // Bursts of reads that run at once: a jump or a continuation, then steps of about a length.
        bursts in prop::collection::vec((any::<Option<u32>>(), 1_usize..300_000, 1_usize..30, any::<u8>()), 1..12),
        failures in prop::collection::vec(0_u8..12, 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let reader = MediaReader::new(budget, per_file);
            let tricks = failures.iter().map(|which| match which {
                0 => Trick::Fail(ErrorCode::Unavailable),
                1 => Trick::Fail(ErrorCode::Permission),
                2 => Trick::Short(1),
                _ => Trick::Fail(ErrorCode::Busy),
            }).collect();
            let fake = Arc::new(Fake {
                size, delay: Duration::from_millis(delay), tricks: Mutex::new(tricks), ..Fake::default()
            });
            let patch = vec![0xA5; patch_len];
            let mut whole: Vec<u8> = (0..size).map(byte).collect();
            let patched = patch_len.min(whole.len());
            whole[..patched].fill(0xA5);
            let file = reader.open(medium(&fake), size, Bytes::from(patch), attributes(size), None);
            let mut offset = 0_u64;
            for (jump, len, count, shuffle) in bursts {
                if let Some(jump) = jump {
                    offset = u64::from(jump) % (size + 1000);
                }
                let mut reads: Vec<u64> = (0..count as u64).map(|i| offset + i * len as u64).collect();
                offset += (count * len) as u64;
                if shuffle & 1 == 1 {
                    reads.rotate_left(usize::from(shuffle) % count);
                }
                if shuffle & 2 == 2 {
                    reads.reverse();
                }
                let all = join_all(reads.iter().map(|at| read(&file, *at, len)));
                let all = tokio::time::timeout(Duration::from_secs(3600), all).await.expect("a deadlock");
                for (at, got) in reads.iter().zip(all) {
                    if let Ok(got) = got {
                        let begin = (*at).min(size) as usize;
                        let end = (*at + len as u64).min(size) as usize;
                        assert!(got[..] == whole[begin..end], "wrong bytes at {at}");
                    }
                }
                assert!(reader.bytes_in_use() <= reader.budget_bytes());
            }
            assert!(fake.most_live.load(Ordering::SeqCst) <= reader.budget_bytes());
            // Once the failures are used up, all can be read.
            fake.tricks.lock().unwrap().clear();
            assert!(read(&file, 0, size as usize).await.unwrap()[..] == whole[..]);
            drop(file);
            assert_nothing_held(&reader).await;
            assert_eq!(fake.live.load(Ordering::SeqCst), 0);
        });
    }
}

#[tokio::test]
async fn bytes_that_come_with_the_opening_are_not_read_again() {
    let fake = Arc::new(Fake { size: K32 as u64, ..Fake::default() });
    let whole: Bytes = (0..fake.size).map(byte).collect::<Vec<_>>().into();
    let reader = MediaReader::new(64 * MIB, 8 * MIB);
    assert_eq!(MediaReader::first(fake.size), K32);
    assert_eq!(MediaReader::first(256 << 10), 256 << 10);
    assert_eq!(MediaReader::first((256 << 10) + 1), 0);

    let with = |first| Medium { first, ..medium(&fake) };
    let patch = Bytes::from_static(b"patch");
    let file = reader.open(with(Some(whole.clone())), fake.size, patch, attributes(fake.size), None);
    assert_eq!(reader.bytes_in_use(), fake.size);
    let got = read(&file, 0, K32).await.unwrap();
    assert_eq!((&got[..5], &got[5..]), (&b"patch"[..], &whole[5..]));
    assert_eq!(read(&file, 5, 100).await.unwrap(), whole[5..105]);
    drop(file);
    assert_eq!(reader.bytes_in_use(), 0);
    let again = fake.reads.lock().unwrap().len();

    // Too few are none.
    let few =
        reader.open(with(Some(whole.slice(..100))), fake.size, Bytes::new(), attributes(fake.size), None);
    assert_eq!(read(&few, 0, K32).await.unwrap(), whole);
    assert_eq!(fake.reads.lock().unwrap().len(), again + 1);
}

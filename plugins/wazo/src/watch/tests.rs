#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use recgate_plugin_api::testing::{self, TestCall, Told};
use recgate_plugin_api::{Item, Media, MediaState, ScanFrom, Source as _};
use recgate_plugin_common::wav::counting as wav;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const ONE: &str = "5ea37d0b-0823-4d2b-a18c-b9082e551b50.wav";
const TWO: &str = "00000000-0823-4d2b-a18c-b9082e551b50.wav";
/// Longer than any test: nothing is complete because it is quiet.
const NEVER: u32 = 3600;
const DEADLINE: Duration = Duration::from_secs(30);

/// A watched PBX.
struct Bench {
    dir: TempDir,
    source: Arc<Wazo>,
    told: Receiver<Told>,
    stop: Arc<TestCall>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Bench {
    fn new(growing_after: u32) -> Self {
        let mut bench = Self::asleep(growing_after);
        bench.watch();
        bench
    }

    fn asleep(growing_after: u32) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("monitor")).unwrap();
        fs::create_dir(dir.path().join("cdr")).unwrap();
        let (root, cdr_dir) = (dir.path().join("monitor"), dir.path().join("cdr"));
        let config = json!({"root": root, "cdr_dir": cdr_dir, "growing_after": growing_after}).to_string();
        let host = testing::host();
        host.run_ahead(0);
        let source = Arc::new(Wazo::create(&config, host).unwrap());
        Self { dir, source, told: testing::watcher().1, stop: Arc::new(testing::call()), thread: None }
    }

    fn watch(&mut self) {
        let (mut watcher, told) = testing::watcher();
        let (source, stop) = (Arc::clone(&self.source), Arc::clone(&self.stop));
        self.told = told;
        self.thread = Some(thread::spawn(move || source.watch(&*stop, &mut watcher)));
        assert_eq!(self.told.recv_timeout(DEADLINE).unwrap(), Told::Listening);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("monitor").join(name)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.dir.path().join("cdr").join(name)
    }

    fn next(&self) -> Item {
        match self.told.recv_timeout(DEADLINE).expect("something is told") {
            Told::Item(item) => item,
            Told::Listening => panic!("nothing was missed"),
        }
    }

    /// What is told of a recording until it is so, that included.
    fn until(&self, id: &str, is: impl Fn(&Media) -> bool) -> Vec<Media> {
        let begin = Instant::now();
        let mut seen = Vec::new();
        loop {
            assert!(begin.elapsed() < DEADLINE, "{id} was told as {seen:?}");
            if let Item::Media(media) = self.next()
                && media.id == id
            {
                seen.push(media.clone());
                if is(&media) {
                    return seen;
                }
            }
        }
    }

    fn until_available(&self, id: &str) -> Media {
        self.until(id, |media| media.state == MediaState::Available).pop().unwrap()
    }

    fn scanned(&self, id: &str) -> Media {
        let mut found = None;
        let mut emit = |item| {
            if let Item::Media(media) = item
                && media.id == id
            {
                found = Some(media);
            }
            Ok(())
        };
        self.source.scan(&testing::call(), ScanFrom::Full, &mut emit).unwrap();
        found.unwrap()
    }

    fn end(mut self) -> Error {
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[test]
fn a_recording_that_its_writer_closes_is_available_before_it_is_quiet() {
    let bench = Bench::new(NEVER);
    // As Asterisk does it: sizes of zero at first, the right ones at the end.
    let whole = wav(8000);
    let mut begun = whole.clone();
    begun[4..8].fill(0);
    begun[40..44].fill(0);
    let mut file = File::create(bench.path(ONE)).unwrap();
    file.write_all(&begun[..4000]).unwrap();
    let told = bench.until(ONE, |media| media.state == MediaState::Growing);
    assert_eq!(told.len(), 1);
    assert_eq!(bench.scanned(ONE).state, MediaState::Growing);
    file.write_all(&begun[4000..]).unwrap();
    file.write_all_at(&whole[..44], 0).unwrap();
    let closed = Instant::now();
    drop(file);
    let media = bench.until_available(ONE);
    assert!(closed.elapsed() < Duration::from_secs(2), "{:?}", closed.elapsed());
    assert_eq!((media.size, media.duration_ms, media.header_patch.len()), (16_044, Some(1000), 0));
    // Scans and stat say the same from then on.
    assert_eq!(bench.scanned(ONE), media);
    assert_eq!(bench.source.stat(&testing::call(), ONE, Some(&media.version)).unwrap(), media);
}

#[test]
fn a_recording_that_is_resumed_takes_back_that_it_was_available() {
    let bench = Bench::new(NEVER);
    fs::write(bench.path(ONE), wav(8000)).unwrap();
    let paused = bench.until_available(ONE);
    let mut file = File::options().append(true).read(true).open(bench.path(ONE)).unwrap();
    file.write_all(&[9; 800]).unwrap();
    let resumed = bench.until(ONE, |media| media.version != paused.version);
    assert_eq!(resumed.last().unwrap().state, MediaState::Growing);
    assert_eq!(bench.scanned(ONE).state, MediaState::Growing);
    file.write_all(&[9; 800]).unwrap();
    drop(file);
    // The writer corrects the sizes when it closes.
    let mut file = File::options().write(true).open(bench.path(ONE)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&wav(8800)[..44]).unwrap();
    drop(file);
    let told = bench.until(ONE, |media| media.state == MediaState::Available);
    let ended = told.last().unwrap();
    assert_eq!((ended.size, ended.duration_ms), (17_644, Some(1100)));
    assert!(told.iter().all(|media| media.state == MediaState::Growing || media == ended), "{told:?}");
}

#[test]
fn a_recording_with_wrong_sizes_is_not_available_because_it_is_closed() {
    let bench = Bench::new(1);
    let mut crashed = wav(8000);
    crashed[40..44].fill(0);
    fs::write(bench.path(ONE), crashed).unwrap();
    fs::write(bench.path(TWO), "no WAV at all").unwrap();
    let told = bench.until(TWO, |media| media.state != MediaState::Growing);
    assert_eq!(told.last().unwrap().state, MediaState::Failed, "once it is quiet");
    assert_eq!(bench.scanned(ONE).state, MediaState::Growing, "for five minutes");
}

#[test]
fn what_is_moved_or_linked_into_place_is_told() {
    let bench = Bench::new(1);
    let outside = bench.dir.path().join("outside.wav");
    fs::write(&outside, wav(8)).unwrap();
    fs::hard_link(&outside, bench.path(ONE)).unwrap();
    bench.until_available(ONE);
    fs::rename(&outside, bench.path(TWO)).unwrap();
    let media = bench.until_available(TWO);
    // One that replaces another is told as what it is.
    fs::write(&outside, wav(16)).unwrap();
    fs::rename(&outside, bench.path(TWO)).unwrap();
    assert_ne!(bench.until_available(TWO).version, media.version);
}

#[test]
fn a_recording_that_nobody_closes_is_available_once_it_is_quiet() {
    let bench = Bench::new(1);
    let mut file = File::create(bench.path(ONE)).unwrap();
    file.write_all(&wav(8000)).unwrap();
    let told = bench.until(ONE, |media| media.state == MediaState::Available);
    assert_eq!(told[0].state, MediaState::Growing);
    drop(file);
}

#[test]
fn what_a_scan_found_growing_is_looked_at_again() {
    let mut bench = Bench::asleep(2);
    let mut file = File::create(bench.path(ONE)).unwrap();
    file.write_all(&wav(8000)).unwrap();
    bench.watch();
    assert_eq!(bench.scanned(ONE).state, MediaState::Growing);
    bench.until_available(ONE);
    drop(file);
}

#[test]
fn times_that_are_set_after_the_close_are_part_of_what_is_told() {
    let bench = Bench::new(NEVER);
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_465_171_277);
    fs::write(bench.path(ONE), wav(8000)).unwrap();
    File::open(bench.path(ONE)).unwrap().set_modified(long_ago).unwrap();
    let told = bench.until(ONE, |media| media.state == MediaState::Available);
    assert!(told.last().unwrap().version.starts_with("1465171277000000000-"), "{told:?}");
}

#[test]
fn what_goes_is_told_as_gone() {
    let bench = Bench::new(NEVER);
    for away in [false, true] {
        fs::write(bench.path(ONE), wav(8)).unwrap();
        bench.until_available(ONE);
        match away {
            true => fs::rename(bench.path(ONE), bench.dir.path().join("away.wav")).unwrap(),
            false => fs::remove_file(bench.path(ONE)).unwrap(),
        }
        assert_eq!(bench.next(), Item::MediaGone(ONE.to_owned()));
    }
}

fn record(id: u64) -> String {
    json!({"id": id, "recordings": [{"uuid": &ONE[..36], "start_time": "2021-05-14T17:47:16.7+00:00"}]})
        .to_string()
}

#[test]
fn records_are_told_when_they_are_written() {
    let bench = Bench::new(NEVER);
    let facts = |id: u64| {
        let Item::Facts(facts) = bench.next() else { panic!("facts") };
        assert_eq!(facts.id, format!("cdr-{id}-{}", &ONE[..36]));
    };
    fs::write(bench.record("ignored.json.tmp"), record(7)).unwrap();
    fs::write(bench.record("1.json"), record(1)).unwrap();
    facts(1);
    fs::write(bench.record("2.json.part"), record(2)).unwrap();
    fs::rename(bench.record("2.json.part"), bench.record("2.json")).unwrap();
    facts(2);
    // In place, bit by bit: read when it is closed.
    let (begin, end) = (format!("[{},", record(3)), format!("{}]", record(4)));
    let mut file = File::create(bench.record("3.json")).unwrap();
    file.write_all(begin.as_bytes()).unwrap();
    file.sync_all().unwrap();
    fs::write(bench.record("5.json"), record(5)).unwrap();
    facts(5);
    file.write_all(end.as_bytes()).unwrap();
    drop(file);
    facts(3);
    facts(4);
}

#[test]
fn records_that_nobody_closes_are_told_once_they_are_quiet() {
    let bench = Bench::new(1);
    let mut file = File::create(bench.record("1.json")).unwrap();
    file.write_all(record(1).as_bytes()).unwrap();
    assert!(matches!(bench.next(), Item::Facts(facts) if facts.id.starts_with("cdr-1-")));
    drop(file);
}

#[test]
fn a_folder_that_is_replaced_ends_the_watch() {
    for (folder, replace) in [("monitor", false), ("monitor", true), ("cdr", false), ("cdr", true)] {
        let bench = Bench::new(NEVER);
        let (there, away) = (bench.dir.path().join(folder), bench.dir.path().join("away"));
        match replace {
            true => fs::rename(&there, &away).unwrap(),
            false => fs::remove_dir(&there).unwrap(),
        }
        fs::create_dir(&there).unwrap();
        let error = bench.end();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        assert!(error.message.contains("moved, deleted, unmounted or replaced"), "{error}");
    }
    // Nothing happens to the folder itself when another is mounted over it, or one above it is moved.
    let bench = Bench::new(NEVER);
    let away = bench.dir.path().with_extension("away");
    fs::rename(bench.dir.path(), &away).unwrap();
    fs::create_dir_all(bench.path("")).unwrap();
    fs::create_dir_all(bench.record("")).unwrap();
    let error = bench.end();
    fs::remove_dir_all(away).unwrap();
    assert!(error.message.contains("moved, deleted, unmounted or replaced"), "{error}");

    let bench = Bench::asleep(NEVER);
    fs::remove_dir(bench.path("")).unwrap();
    let error = bench.source.watch(&testing::call(), &mut testing::watcher().0).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
}

#[test]
fn a_watch_ends_when_it_is_cancelled_or_nobody_takes_what_it_tells() {
    let bench = Bench::new(NEVER);
    bench.stop.cancel();
    assert_eq!(bench.end().code, ErrorCode::Cancelled);

    let mut bench = Bench::new(NEVER);
    bench.told = testing::watcher().1;
    fs::write(bench.path(ONE), wav(8)).unwrap();
    assert_eq!(bench.end().code, ErrorCode::Cancelled);
}

#[test]
fn events_that_were_lost_ask_for_a_scan() {
    let bench = Bench::asleep(NEVER);
    let (listener, deaf) = Listener::open(&bench.source.settings, &Folder::network).unwrap();
    assert!(deaf.is_empty(), "{deaf:?}");
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let files = [ONE, TWO].map(|name| File::create(bench.path(name)).unwrap());
    // Two files in turn: what repeats itself is told once.
    for n in 0..limit + 100 {
        files[n % 2].write_all_at(b"x", 0).unwrap();
    }
    let (mut to, told) = testing::watcher();
    let (call, host) = (testing::call(), testing::host());
    let mut turns = Turns {
        wazo: &bench.source,
        call: &call,
        to: &mut to,
        reports: Reports::new(&*host, Wazo::NAME),
        hears_all: true,
        records: BTreeMap::new(),
    };
    while listener.wait(Duration::ZERO).unwrap() {
        turns.turn(&listener).unwrap();
    }
    let told: Vec<Told> = told.try_iter().collect();
    assert_eq!(told.iter().filter(|told| **told == Told::Listening).count(), 1);
}

#[test]
fn a_watch_that_hears_only_records_does_not_say_that_it_misses_nothing() {
    let bench = Bench::asleep(NEVER);
    let (root, source, stop) = (bench.path(""), Arc::clone(&bench.source), Arc::new(testing::call()));
    let (mut watcher, told) = testing::watcher();
    let watching = Arc::clone(&stop);
    let ended = thread::spawn(move || {
        let of_root = move |folder: &Folder| {
            let root = Folder::open(&root, "root")?.identity()?;
            Ok((folder.identity()? == root).then_some("NFS"))
        };
        listen(&source, &*watching, &mut watcher, &of_root)
    });
    // It listens once it tells of a record; before, nobody hears that one was written.
    let begin = Instant::now();
    let first = loop {
        fs::write(bench.record("1.json"), record(1)).unwrap();
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(told) => break told,
            Err(_) => assert!(begin.elapsed() < DEADLINE, "no record was told"),
        }
    };
    assert!(matches!(first, Told::Item(Item::Facts(_))), "{first:?}");
    fs::write(bench.path(ONE), "not heard").unwrap();
    stop.cancel();
    assert_eq!(ended.join().unwrap().unwrap_err().code, ErrorCode::Cancelled);
    assert!(told.try_iter().all(|told| matches!(told, Told::Item(Item::Facts(_)))));
}

#[test]
fn the_disk_of_the_tests_is_no_network() {
    let bench = Bench::asleep(NEVER);
    assert_eq!(Folder::open(&bench.path(""), "root").unwrap().network().unwrap(), None);
    for (magic, name) in [(0x6969, Some("NFS")), (0xff53_4d42, Some("CIFS")), (0xef53, None)] {
        assert_eq!(folder::network_name(magic), name);
    }
}

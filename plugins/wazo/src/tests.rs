#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recgate_plugin_api::testing::{self, TestHost};
use recgate_plugin_api::{Facts, JoinKey, JoinKind, Level, MediaState, Precision};
use recgate_plugin_common::wav::counting as wav;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const UUID: &str = "5ea37d0b-0823-4d2b-a18c-b9082e551b50";
/// Ten minutes: long enough that everything is quiet.
const LATER: i64 = 600_000;

fn ms(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

struct Bench {
    dir: TempDir,
    host: Arc<TestHost>,
    source: Wazo,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("monitor")).unwrap();
        fs::create_dir(dir.path().join("cdr")).unwrap();
        let config =
            json!({"root": dir.path().join("monitor"), "cdr_dir": dir.path().join("cdr")}).to_string();
        let host = testing::host();
        host.run_ahead(LATER);
        let source = Wazo::create(&config, host.clone()).unwrap();
        Self { dir, host, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("monitor").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn put_cdr(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join("cdr").join(name), bytes).unwrap();
    }

    fn scan(&self) -> Result<(Vec<Media>, Vec<Facts>, ScanEnd), Error> {
        let (mut media, mut facts) = (Vec::new(), Vec::new());
        let end = self.source.scan(&testing::call(), ScanFrom::Full, &mut |item| {
            match item {
                Item::Media(medium) => media.push(medium),
                Item::Facts(fact) => facts.push(fact),
                Item::MediaGone(id) => panic!("{id}"),
            }
            Ok(())
        })?;
        media.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((media, facts, end))
    }

    fn one(&self) -> Media {
        let (media, ..) = self.scan().unwrap();
        assert_eq!(media.len(), 1, "{media:?}");
        media.into_iter().next().unwrap()
    }
}

fn unfinished(samples: u32) -> Vec<u8> {
    let mut bytes = wav(samples);
    bytes[4..8].fill(0);
    bytes[40..44].fill(0);
    bytes
}

fn name() -> String {
    format!("{UUID}.wav")
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn the_forms_of_names_become_media_and_all_else_is_ignored() {
    let bench = Bench::new();
    let download = format!("2021-05-14T17_47_16UTC-2060-{UUID}.wav");
    let upper = UUID.to_uppercase() + ".wav";
    for file in [&name(), &upper, &download, "conference-3001.wav"] {
        bench.put(file, &wav(8000));
    }
    for file in ["notes.txt", "user-1001-1002-1387463700.wav", &format!("{UUID}.WAV"), ".hidden.wav"] {
        bench.put(file, b"x");
    }
    fs::create_dir(bench.path("conference-folder.wav")).unwrap();
    fs::create_dir(bench.path("sub")).unwrap();
    fs::copy(bench.path(&name()), bench.path("sub").join(name())).unwrap();
    fs::write(bench.path("").join(std::ffi::OsStr::from_bytes(b"\xff.wav")), b"x").unwrap();

    let (media, facts, end) = bench.scan().unwrap();
    let ids: Vec<_> = media.iter().map(|medium| medium.id.as_str()).collect();
    assert_eq!(ids, [&download, &upper, &name(), "conference-3001.wav"]);
    assert!(facts.is_empty());
    assert!(end.complete);
    assert_eq!(bench.host.said(Level::Warn, "UTF-8"), 1);
    assert_eq!(bench.host.said(Level::Debug, "4 recordings, 6 other files ignored"), 1);

    for medium in &media {
        assert_eq!(
            (medium.state, medium.size, medium.duration_ms),
            (MediaState::Available, 16_044, Some(1000))
        );
        assert!(medium.header_patch.is_empty());
        assert_eq!(medium.media_type, "audio/wav");
        assert_eq!(bench.source.stat(&testing::call(), &medium.id, Some(&medium.version)).unwrap(), *medium);
    }
    let uuid_key = JoinKey { kind: JoinKind::RecordingUuid, value: UUID.to_owned() };
    assert!(media[..3].iter().all(|medium| medium.keys[0] == uuid_key));
    assert_eq!((media[0].start_ms, media[0].start_precision), (Some(1_621_014_436_000), Precision::Second));
    assert_eq!((media[2].start_ms, media[2].start_precision), (None, Precision::Unknown));
    let key = JoinKey { kind: JoinKind::ObjectKey, value: "conference-3001.wav".to_owned() };
    assert_eq!(media[3].keys, [key]);
    assert_eq!(media[3].start_ms, Some(media[3].changed_ms - 1000));
    assert_eq!(media[3].start_precision, Precision::Minute);
}

#[test]
fn nothing_but_regular_files_is_opened() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside.wav");
    fs::write(&outside, wav(10)).unwrap();
    let link = "00000000-0000-0000-0000-000000000001.wav";
    let inner = "00000000-0000-0000-0000-000000000002.wav";
    let fifo = "00000000-0000-0000-0000-000000000003.wav";
    let socket = "00000000-0000-0000-0000-000000000004.wav";
    let device = "00000000-0000-0000-0000-000000000005.wav";
    symlink(&outside, bench.path(link)).unwrap();
    bench.put(&name(), &wav(10));
    symlink(name(), bench.path(inner)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, bench.path(fifo), rustix::fs::Mode::RUSR).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(bench.path(socket)).unwrap();
    symlink("/dev/zero", bench.path(device)).unwrap();

    assert_eq!(bench.one().id, name());
    for id in [
        link,
        inner,
        fifo,
        socket,
        device,
        "../outside.wav",
        "/etc/passwd",
        "",
        ".",
        "..",
        "conference-\0.wav",
    ] {
        assert_eq!(code(bench.source.stat(&testing::call(), id, None)), ErrorCode::NotFound, "{id:?}");
        assert_eq!(code(bench.source.open(&testing::call(), id, "0-0")), ErrorCode::NotFound, "{id:?}");
    }
    // Records are read with the same care.
    fs::write(bench.dir.path().join("secret.json"), "[1]").unwrap();
    symlink(bench.dir.path().join("secret.json"), bench.dir.path().join("cdr/a.json")).unwrap();
    let (_, facts, end) = bench.scan().unwrap();
    assert!(facts.is_empty());
    assert_ne!(end.watermark_ms, i64::MIN);
    assert_eq!(bench.host.said(Level::Warn, ""), 0);
}

#[test]
fn a_young_file_grows_and_an_unfinished_one_longer() {
    let bench = Bench::new();
    bench.host.run_ahead(0);
    bench.put(&name(), &wav(8000));
    let medium = bench.one();
    assert_eq!((medium.state, medium.duration_ms), (MediaState::Growing, Some(1000)));
    let (_, _, end) = bench.scan().unwrap();
    assert!(end.watermark_ms <= medium.changed_ms - 1000, "what is running is not told yet");

    bench.host.run_ahead(60_000);
    assert_eq!(bench.one().state, MediaState::Available);
    for content in [unfinished(8000), wav(8000)[..9000].to_vec(), Vec::new(), wav(8)[..40].to_vec()] {
        bench.put(&name(), &content);
        let medium = bench.one();
        assert_eq!(medium.state, MediaState::Growing, "{} bytes", content.len());
        assert!(medium.header_patch.is_empty());
    }
}

#[test]
fn a_crashed_recording_is_served_with_a_right_header() {
    let bench = Bench::new();
    bench.put(&name(), &unfinished(8000));
    let medium = bench.one();
    assert_eq!((medium.state, medium.duration_ms, medium.size), (MediaState::Available, Some(1000), 16_044));
    assert_eq!(medium.header_patch, wav(8000)[..44]);

    bench.put(&name(), &wav(8000)[..8045]);
    let medium = bench.one();
    assert_eq!((medium.state, medium.duration_ms, medium.size), (MediaState::Available, Some(500), 8045));
    assert_eq!(medium.header_patch, wav(4000)[..44]);

    // The stored bytes are read unpatched.
    let handle = bench.source.open(&testing::call(), &medium.id, &medium.version).unwrap();
    let mut buf = [0; 100];
    assert_eq!(bench.source.read_at(&testing::call(), &handle, 0, &mut buf).unwrap(), 100);
    assert_eq!(buf[..], wav(8000)[..100]);

    // Hung up before the first sample.
    bench.put(&name(), &wav(0));
    let medium = bench.one();
    assert_eq!((medium.state, medium.duration_ms), (MediaState::Available, Some(0)));
}

#[test]
fn what_is_no_wav_has_failed_and_says_why() {
    let bench = Bench::new();
    for (content, said) in
        [(Vec::new(), "empty"), (vec![b'x'; 500], "RIFF"), (wav(8)[..43].to_vec(), "before its data chunk")]
    {
        bench.put(&name(), &content);
        let medium = bench.one();
        assert_eq!((medium.state, medium.duration_ms), (MediaState::Failed, None));
        assert!(medium.state_reason.contains(said), "{}", medium.state_reason);
    }
}

#[test]
fn a_modification_time_in_the_future_is_seen_through() {
    let bench = Bench::new();
    bench.put(&name(), &wav(8000));
    let future = SystemTime::now() + Duration::from_secs(30 * 24 * 3600);
    fs::File::options().write(true).open(bench.path(&name())).unwrap().set_modified(future).unwrap();
    let medium = bench.one();
    assert_eq!(medium.state, MediaState::Available);
    assert!(medium.changed_ms <= ms(SystemTime::now()));
    assert!(medium.version.starts_with(&future.duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string()));
}

#[test]
fn reads_are_exact_and_of_one_version() {
    let bench = Bench::new();
    let content = wav(8000);
    bench.put(&name(), &content);
    let medium = bench.one();
    let handle = bench.source.open(&testing::call(), &medium.id, &medium.version).unwrap();
    let read = |offset: u64, length: usize| {
        let mut buf = vec![0; length];
        bench.source.read_at(&testing::call(), &handle, offset, &mut buf).map(|got| {
            buf.truncate(got);
            buf
        })
    };
    assert_eq!(read(0, 20_000).unwrap(), content);
    assert_eq!(read(16_000, 100).unwrap(), content[16_000..]);
    assert_eq!(read(16_044, 100).unwrap(), b"");
    assert_eq!(read(5, 0).unwrap(), b"");
    assert_eq!(code(read(16_045, 1)), ErrorCode::Range);
    assert_eq!(code(read(u64::MAX, 1)), ErrorCode::Range);
    assert_eq!(
        code(bench.source.read_at(&testing::cancelled_after(0), &handle, 0, &mut [0; 8])),
        ErrorCode::Cancelled
    );

    // Cut, grown, written over: never a mixture of two versions.
    let file = fs::File::options().write(true).open(bench.path(&name())).unwrap();
    file.set_len(1000).unwrap();
    assert_eq!(code(read(0, 20_000)), ErrorCode::Precondition);
    assert_eq!(code(read(0, 10)), ErrorCode::Precondition);
    assert_eq!(
        code(bench.source.open(&testing::call(), &medium.id, &medium.version)),
        ErrorCode::Precondition
    );
    assert_eq!(
        code(bench.source.stat(&testing::call(), &medium.id, Some(&medium.version))),
        ErrorCode::Precondition
    );
    assert_eq!(bench.source.stat(&testing::call(), &medium.id, None).unwrap().size, 1000);

    // Replaced by another file: the open one stays as it was.
    bench.put(&name(), &content);
    let medium = bench.one();
    let handle = bench.source.open(&testing::call(), &medium.id, &medium.version).unwrap();
    fs::remove_file(bench.path(&name())).unwrap();
    bench.put(&name(), b"other");
    let mut buf = vec![0; 100];
    assert_eq!(bench.source.read_at(&testing::call(), &handle, 44, &mut buf).unwrap(), 100);
    assert_eq!(buf, content[44..144]);

    fs::remove_file(bench.path(&name())).unwrap();
    assert_eq!(code(bench.source.stat(&testing::call(), &medium.id, None)), ErrorCode::NotFound);
    assert_eq!(code(bench.source.open(&testing::call(), &medium.id, &medium.version)), ErrorCode::NotFound);
}

fn record(id: u64, uuid: &str) -> serde_json::Value {
    json!({"id": id, "call_direction": "inbound", "recordings": [{
        "uuid": uuid, "start_time": "2021-05-14T17:47:16.701984+00:00", "end_time": null, "deleted": false
    }]})
}

#[test]
fn records_are_read_in_the_order_of_names_and_broken_files_do_not_stop_them() {
    let bench = Bench::new();
    bench.put_cdr("b.json", json!({"items": [record(2, UUID), record(3, UUID)], "total": 2}).to_string());
    bench.put_cdr("a.json", record(1, UUID).to_string());
    bench.put_cdr("c.json", format!("[{}, oops", record(4, UUID)));
    bench.put_cdr("d.json", json!([record(5, "no uuid"), 17, record(6, UUID)]).to_string());
    bench.put_cdr("e.json.tmp", record(7, UUID).to_string());
    bench.put_cdr("f.json", b"\xff\xfe");
    fs::create_dir(bench.dir.path().join("cdr/g.json")).unwrap();
    let huge = fs::File::create(bench.dir.path().join("cdr/h.json")).unwrap();
    huge.set_len(64 * 1024 * 1024 + 1).unwrap();

    let (media, facts, end) = bench.scan().unwrap();
    assert!(media.is_empty());
    let ids: Vec<_> = facts.iter().map(|facts| facts.id.as_str()).collect();
    let expected: Vec<_> = [1, 2, 3, 4, 6].iter().map(|id| format!("cdr-{id}-{UUID}")).collect();
    assert_eq!(ids, expected);
    for part in [
        "\"c.json\" is broken",
        "\"d.json\", item 0",
        "\"d.json\", item 1",
        "\"f.json\" is broken",
        "split it",
    ] {
        assert_eq!(bench.host.said(Level::Warn, part), 1, "{part}");
    }
    assert_ne!(end.watermark_ms, i64::MIN);
    let mtime = fs::metadata(bench.dir.path().join("cdr/a.json")).unwrap().modified().unwrap();
    assert_eq!(u128::from(facts[0].revision), mtime.duration_since(UNIX_EPOCH).unwrap().as_nanos());
}

/// Facts that come first would publish what the gateway was told by an earlier scan.
#[test]
fn recordings_are_told_before_their_records() {
    let bench = Bench::new();
    bench.put(&name(), &wav(8));
    bench.put_cdr("a.json", record(1, UUID).to_string());
    let mut told = Vec::new();
    let mut emit = |item| {
        told.push(matches!(item, Item::Media(_)));
        Ok(())
    };
    bench.source.scan(&testing::call(), ScanFrom::Full, &mut emit).unwrap();
    assert_eq!(told, [true, false]);
}

#[test]
fn a_record_file_that_is_being_written_holds_the_watermark_back() {
    let bench = Bench::new();
    bench.host.run_ahead(0);
    bench.put_cdr("a.json", format!("[{},", record(1, UUID)));
    let (_, facts, end) = bench.scan().unwrap();
    assert_eq!((facts.len(), end.watermark_ms), (1, i64::MIN));
    assert_eq!(bench.host.said(Level::Warn, ""), 0);
}

#[test]
fn warnings_of_a_scan_are_bounded() {
    let bench = Bench::new();
    bench.put_cdr("a.json", serde_json::Value::from(vec![0; 1000]).to_string());
    bench.scan().unwrap();
    assert_eq!(bench.host.said(Level::Warn, "it is not an object"), 20);
    assert_eq!(bench.host.said(Level::Warn, "980 more warnings"), 1);
}

#[test]
fn a_folder_that_is_gone_is_an_error_never_an_empty_scan() {
    let bench = Bench::new();
    bench.put(&name(), &wav(8));
    let healthy = bench.source.health(&testing::call()).unwrap();
    assert_eq!((healthy.reachable, healthy.message.as_str()), (true, ""));

    for folder in ["monitor", "cdr"] {
        let (there, away) = (bench.dir.path().join(folder), bench.dir.path().join("away"));
        fs::rename(&there, &away).unwrap();
        assert_eq!(code(bench.scan()), ErrorCode::Unavailable);
        let health = bench.source.health(&testing::call()).unwrap();
        assert!(!health.reachable);
        assert!(health.message.contains("mounted") && health.message.contains(folder), "{}", health.message);
        if folder == "monitor" {
            assert_eq!(code(bench.source.stat(&testing::call(), &name(), None)), ErrorCode::Unavailable);
            assert_eq!(code(bench.source.open(&testing::call(), &name(), "0-0")), ErrorCode::Unavailable);
        }
        // A file in its place is no folder either.
        fs::write(&there, b"").unwrap();
        assert_eq!(code(bench.scan()), ErrorCode::Unavailable);
        fs::remove_file(&there).unwrap();
        fs::rename(&away, &there).unwrap();
    }
    assert_eq!(bench.one().id, name());
}

#[test]
fn a_scan_can_be_cancelled_and_its_taker_can_refuse() {
    let bench = Bench::new();
    for n in 0..10 {
        bench.put(&format!("conference-{n}.wav"), &wav(8));
    }
    let mut told = 0;
    let result = bench.source.scan(&testing::cancelled_after(5), ScanFrom::Full, &mut |_| {
        told += 1;
        Ok(())
    });
    assert_eq!((code(result), told), (ErrorCode::Cancelled, 5));

    bench.put_cdr("a.json", json!([record(1, UUID), record(2, UUID)]).to_string());
    let mut told = 0;
    let result = bench.source.scan(&testing::call(), ScanFrom::Since(b"full"), &mut |_| {
        told += 1;
        Err(Error::new(ErrorCode::NoSpace, "enough"))
    });
    assert_eq!((code(result), told), (ErrorCode::NoSpace, 1));
}

#[test]
fn thousands_of_files_are_told_once_each_and_alike_each_time() {
    let bench = Bench::new();
    let content = wav(80);
    for n in 0..5000 {
        bench.put(&format!("00000000-0000-4000-8000-{n:012}.wav"), &content);
    }
    let (first, _, end) = bench.scan().unwrap();
    assert_eq!(first.len(), 5000);
    assert!(first.windows(2).all(|two| two[0].id < two[1].id));
    assert!(end.complete && end.watermark_ms > first.iter().map(|medium| medium.changed_ms).max().unwrap());
    let (second, ..) = bench.scan().unwrap();
    assert!(first == second);
}

#[test]
fn a_file_that_cannot_be_read_is_not_told_and_named() {
    let bench = Bench::new();
    bench.put(&name(), &wav(8));
    bench.put("conference-1.wav", &wav(8));
    let mut mode = fs::metadata(bench.path(&name())).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0);
    fs::set_permissions(bench.path(&name()), mode).unwrap();
    if can_read(&bench.path(&name())) {
        // Root reads everything: then both are told.
        assert_eq!(bench.scan().unwrap().0.len(), 2);
        return;
    }
    let (media, _, end) = bench.scan().unwrap();
    assert_eq!((media.len(), end.watermark_ms), (1, i64::MIN));
    assert_eq!(bench.host.said(Level::Warn, UUID), 1);
    assert_eq!(code(bench.source.stat(&testing::call(), &name(), None)), ErrorCode::Permission);
}

fn can_read(path: &Path) -> bool {
    fs::File::open(path).is_ok()
}

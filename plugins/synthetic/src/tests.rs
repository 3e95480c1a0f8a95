#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use recgate_plugin_api::testing::{self, TestCall, Told};
use recgate_plugin_common::settings as common;
use serde_json::json;
use tempfile::TempDir;

use super::*;

fn source(config: &str, now_ms: i64) -> Synthetic {
    let host = testing::host();
    host.set_now_ms(now_ms);
    Synthetic::create(config, host).unwrap()
}

fn scan(source: &Synthetic, from: ScanFrom<'_>) -> (Vec<Item>, ScanEnd) {
    let mut items = Vec::new();
    let mut emit = |item| {
        items.push(item);
        Ok(())
    };
    let end = source.scan(&testing::call(), from, &mut emit).unwrap();
    (items, end)
}

/// The first day has 7 calls, each other one 5.
const SMALL: &str = r#"{"recordings": 23, "first_day": 16958, "per_day": 5, "on_first_day": 7}"#;
const LATE: i64 = 1_600_000_000_000;
const DAY_MS: i64 = 86_400_000;

#[test]
fn each_scan_tells_the_same_in_the_order_of_their_starts() {
    let source = source(SMALL, LATE);
    let (items, end) = scan(&source, ScanFrom::Full);
    assert!(end.complete);
    assert_eq!(end.watermark_ms, LATE - calls::LONGEST_MS);
    assert_eq!(items, scan(&source, ScanFrom::Full).0);
    let media: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::Media(media) => Some(media),
            _ => None,
        })
        .collect();
    assert_eq!((media.len(), items.len()), (23, 46));
    assert_eq!(media.iter().map(|media| &media.id).collect::<BTreeSet<_>>().len(), 23);
    let starts: Vec<_> = media.iter().map(|media| media.start_ms.unwrap()).collect();
    assert!(starts.is_sorted());
    let on = |day: i64| starts.iter().filter(|start| *start / DAY_MS == 16_958 + day).count();
    assert_eq!([on(0), on(1), on(2), on(3), on(4), on(5)], [7, 5, 5, 5, 1, 0]);
}

#[test]
fn facts_and_media_share_a_key() {
    let (items, _) = scan(&source(SMALL, LATE), ScanFrom::Full);
    for pair in items.chunks(2) {
        let [Item::Facts(facts), Item::Media(media)] = pair else { panic!("{pair:?}") };
        assert_eq!(facts.keys, media.keys);
        let started = facts.values.iter().find(|(key, _)| key == "started_at").unwrap();
        assert_eq!(started.1, media.start_ms.unwrap().to_string());
    }
}

#[test]
fn calls_that_have_not_ended_are_not_told_yet() {
    let noon = 16_958 * DAY_MS + DAY_MS / 2;
    let (items, _) = scan(&source(SMALL, noon), ScanFrom::Full);
    assert_eq!(items.len(), 2 * 4);
    for item in items {
        if let Item::Media(media) = item {
            assert!(media.stop_ms.unwrap() <= noon);
        }
    }
}

#[test]
fn a_scan_goes_on_at_its_cursor() {
    let source = source(r#"{"recordings": 100003, "first_day": 16958}"#, LATE);
    let (first, end) = scan(&source, ScanFrom::Full);
    assert_eq!((first.len(), end.complete), (200_000, false));
    let (rest, end) = scan(&source, ScanFrom::Since(&end.cursor));
    assert_eq!((rest.len(), end.complete), (6, true));
    // A cursor of a time when there were more.
    let (none, end) = scan(&source, ScanFrom::Since(&u64::MAX.to_be_bytes()));
    assert!(none.is_empty());
    assert!(!end.complete || end.cursor == 0_u64.to_be_bytes());
}

#[test]
fn it_is_a_wav() {
    let source = source(SMALL, LATE);
    let call = testing::call();
    let media = source.stat(&call, "call-000000003", None).unwrap();
    let handle = source.open(&call, &media.id, &media.version).unwrap();
    let mut bytes = vec![0; usize::try_from(media.size).unwrap() + 10];
    let read = source.read_at(&call, &handle, 0, &mut bytes).unwrap();
    assert_eq!(read as u64, media.size);
    let reader = hound::WavReader::new(&bytes[..read]).unwrap();
    assert_eq!(
        (reader.spec().channels, reader.spec().sample_rate, reader.spec().bits_per_sample),
        (1, 8000, 16)
    );
    assert_eq!(u64::from(reader.duration()) * 1000 / 8000, media.duration_ms.unwrap());
    let samples: BTreeSet<i16> = reader.into_samples().map(Result::unwrap).collect();
    assert!(samples.len() > 100, "it is nearly silent");
    assert_eq!(source.read_at(&call, &handle, media.size, &mut bytes).unwrap(), 0);
    assert_eq!(
        source.read_at(&call, &handle, media.size + 1, &mut bytes).unwrap_err().code,
        ErrorCode::Range
    );
}

#[test]
fn what_is_not_there_is_refused() {
    let source = source(SMALL, LATE);
    let call = testing::call();
    for id in ["", "call-", "call-3", "call-000000023", "call-0000000003", "call-+00000003", "x"] {
        assert_eq!(source.stat(&call, id, None).unwrap_err().code, ErrorCode::NotFound, "{id}");
    }
    assert_eq!(source.open(&call, "call-000000003", "2").unwrap_err().code, ErrorCode::Precondition);
    assert_eq!(source.stat(&call, "call-000000003", Some("2")).unwrap_err().code, ErrorCode::Precondition);
    for cursor in [&b""[..], b"full", b"123456789"] {
        let end = source.scan(&call, ScanFrom::Since(cursor), &mut |_| Ok(()));
        assert_eq!(end.unwrap_err().code, ErrorCode::Invalid);
    }
    call.cancel();
    let end = source.scan(&call, ScanFrom::Full, &mut |_| Ok(()));
    assert_eq!(end.unwrap_err().code, ErrorCode::Cancelled);
}

#[test]
fn no_recording_is_larger_than_it_may_be() {
    let config = |largest: u64| json!({"recordings": 23, "first_day": 16958, "largest": largest}).to_string();
    let tiny = source(&config(400), LATE);
    let call = testing::call();
    let mut sizes = BTreeSet::new();
    for number in 0..23 {
        let media = tiny.stat(&call, &format!("call-{number:09}"), None).unwrap();
        assert!((46..=400).contains(&media.size), "{}", media.size);
        sizes.insert(media.size);
        let mut bytes = vec![0; 500];
        let read = tiny.read_at(&call, &number, 0, &mut bytes).unwrap();
        let wav = hound::WavReader::new(&bytes[..read]).unwrap();
        assert_eq!(u64::from(wav.duration()), (media.size - 44) / 2);
        // The call was longer than what is left of its sound.
        assert!(media.stop_ms.unwrap() >= media.start_ms.unwrap() + 1000);
        assert!(media.duration_ms.unwrap() < 1000);
    }
    assert!(sizes.len() > 10, "{sizes:?}");
    let at_least = source(&config(46), LATE);
    assert_eq!(at_least.stat(&call, "call-000000000", None).unwrap().size, 46);
}

/// Another process says how many calls there are.
fn counted(folder: &TempDir, count: &str) -> Synthetic {
    let file = folder.path().join("count");
    write_count(&file, count);
    source(&json!({"recordings": 23, "first_day": 16958, "per_day": 5, "count_file": file}).to_string(), LATE)
}

fn write_count(file: &Path, count: &str) {
    let unfinished = file.with_extension("part");
    fs::write(&unfinished, count).unwrap();
    fs::rename(unfinished, file).unwrap();
}

#[test]
fn a_file_says_how_many_there_are() {
    let folder = TempDir::new().unwrap();
    let source = counted(&folder, "7\n");
    let file = folder.path().join("count");
    let call = testing::call();
    for (count, told) in [("7\n", 7), ("0", 0), ("22", 22), ("23", 23), ("1000", 23)] {
        write_count(&file, count);
        let (items, end) = scan(&source, ScanFrom::Full);
        assert_eq!((items.len(), end.complete), (2 * told, true), "{count}");
        let untold = (told < 23).then(|| source.calls.call(told as u64).start_ms());
        assert_eq!(end.watermark_ms, untold.unwrap_or(LATE - calls::LONGEST_MS), "{count}");
        let stat = |number: usize| source.stat(&call, &format!("call-{number:09}"), None);
        assert!(told == 0 || stat(told - 1).is_ok(), "{count}");
        assert_eq!(stat(told).unwrap_err().code, ErrorCode::NotFound, "{count}");
    }
    for wrong in ["", "seven", "-1", "7 8", "99999999999999999999999999"] {
        write_count(&file, wrong);
        let error = source.scan(&call, ScanFrom::Full, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable, "{wrong:?}");
        assert!(error.message.starts_with("count_file: /"), "{}", error.message);
    }
    assert!(!source.health(&call).unwrap().reachable);
    fs::remove_file(&file).unwrap();
    assert!(source.health(&call).unwrap().message.contains("No such file"));
    write_count(&file, "7");
    assert!(source.health(&call).unwrap().reachable);
}

/// Watches while something else happens, which gets the next thing that the watch tells: the id of a medium, or
/// "listening". Facts are passed over.
fn watched(source: &Synthetic, during: impl FnOnce(&dyn Fn() -> String)) {
    struct Cancelling<'a>(&'a TestCall);
    impl Drop for Cancelling<'_> {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
    let (mut watcher, told) = testing::watcher();
    let call = testing::call();
    thread::scope(|scope| {
        let watch = scope.spawn(|| source.watch(&call, &mut watcher));
        let cancelling = Cancelling(&call);
        during(&|| {
            loop {
                match told.recv_timeout(Duration::from_secs(60)).unwrap() {
                    Told::Listening => return "listening".to_owned(),
                    Told::Item(Item::Media(media)) => return media.id,
                    Told::Item(_) => {}
                }
            }
        });
        drop(cancelling);
        assert_eq!(watch.join().unwrap().unwrap_err().code, ErrorCode::Cancelled);
        assert!(told.try_iter().next().is_none(), "it told more");
    });
}

#[test]
fn a_watch_tells_what_the_file_counts_anew() {
    let folder = TempDir::new().unwrap();
    let source = counted(&folder, "3");
    let file = folder.path().join("count");
    watched(&source, |next| {
        assert_eq!(next(), "listening");
        write_count(&file, "5");
        assert_eq!([next(), next()], ["call-000000003", "call-000000004"]);
        // Fewer: that is for scans to find out.
        write_count(&file, "4");
        assert_eq!(next(), "listening");
        write_count(&file, "6");
        assert_eq!([next(), next()], ["call-000000004", "call-000000005"]);
    });
}

#[test]
fn a_watch_tells_calls_as_they_end() {
    let config = json!({"recordings": 1_000_000, "first_day": 16958, "per_day": 1_000_000}).to_string();
    let host = testing::host();
    let noon = 16_958 * DAY_MS + DAY_MS / 2;
    host.set_now_ms(noon);
    let source = Synthetic::create(&config, host.clone()).unwrap();
    let ends = |from: i64, until: i64| -> BTreeSet<String> {
        let near = source.calls.first_from(from - 60_000)..source.calls.first_from(until);
        let calls = near.map(|number| source.calls.call(number));
        calls
            .filter(|call| (from + 1..=until).contains(&call.stop_ms()))
            .map(|call| call.media().id)
            .collect()
    };
    watched(&source, |next| {
        assert_eq!(next(), "listening");
        for (from, until) in [(noon, noon + 1000), (noon + 1000, noon + 90_000)] {
            host.set_now_ms(until);
            let expected = ends(from, until);
            assert!(expected.len() > 5);
            let told: BTreeSet<String> = expected.iter().map(|_| next()).collect();
            assert_eq!(told, expected);
        }
        host.set_now_ms(noon);
        assert_eq!(next(), "listening");
    });
}

#[test]
fn each_mistake_names_its_setting() {
    let mistakes = [
        ("{}", "recordings"),
        (r#"{"recordings": 0, "first_day": 1}"#, "recordings"),
        (r#"{"recordings": 1}"#, "first_day"),
        (r#"{"recordings": 1, "first_day": -1}"#, "settings"),
        (r#"{"recordings": 1, "first_day": 1, "per_day": 0}"#, "per_day"),
        (r#"{"recordings": 1, "first_day": 1, "on_first_day": 1000001}"#, "on_first_day"),
        (r#"{"recordings": 100000000, "first_day": 2000000, "per_day": 1}"#, "first_day"),
        (r#"{"recordings": 1, "first_day": 1, "largest": 45}"#, "largest"),
        (r#"{"recordings": 1, "first_day": 1, "largest": 960045}"#, "largest"),
        (r#"{"recordings": 1, "first_day": 1, "count_file": "count"}"#, "count_file"),
        (r#"{"recordings": 1, "first_day": 1, "more": 1}"#, "more"),
    ];
    assert_eq!(common::faults_of_messages(Settings::parse, &mistakes), [""; 0]);
    let known = ["count_file", "first_day", "largest", "on_first_day", "per_day", "recordings"];
    assert_eq!(common::faults_of_schema(&settings::schema(), &known), [""; 0]);
}

proptest! {
    /// Wherever a read begins and ends, it has the bytes of the whole.
    #[test]
    fn reads_are_pieces_of_one_whole(number in 0_u64..23, from in 0_u64..200_000, len in 0_usize..5000) {
        let source = source(SMALL, LATE);
        let call = testing::call();
        let size = usize::try_from(source.calls.call(number).size()).unwrap();
        let mut whole = vec![0; size];
        source.read_at(&call, &number, 0, &mut whole).unwrap();
        let from = usize::try_from(from).unwrap().min(size);
        let mut piece = vec![0; len];
        let read = source.read_at(&call, &number, from as u64, &mut piece).unwrap();
        prop_assert_eq!(read, len.min(size - from));
        prop_assert_eq!(&piece[..read], &whole[from..from + read]);
    }
}

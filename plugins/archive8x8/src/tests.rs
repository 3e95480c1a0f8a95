#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use recgate_plugin_api::testing::{self, TestHost};
use recgate_plugin_api::{Facts, Item, JoinKey, JoinKind, Level, MediaState, Precision, fact};
use recgate_plugin_common::wav::counting as wav;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Two hours: long enough that everything is quiet.
const LATER: i64 = 7_200_000;
/// 2016-06-06T17:30:05Z.
const START: i64 = 1_465_234_205_000;
const NAME: &str = "S20160606/R201606061730050000.wav";

struct Bench {
    dir: TempDir,
    host: Arc<TestHost>,
    source: Archive,
}

/// What a scan told, in its order.
type Told = (Vec<Item>, ScanEnd);

impl Bench {
    fn new() -> Self {
        Self::with(json!({"time_zone": "America/Los_Angeles"}))
    }

    fn with(mut settings: serde_json::Value) -> Self {
        let dir = TempDir::new().unwrap();
        settings["root"] = json!(dir.path().join("archive"));
        fs::create_dir(dir.path().join("archive")).unwrap();
        let host = testing::host();
        host.run_ahead(LATER);
        let source = Archive::create(&settings.to_string(), host.clone()).unwrap();
        Self { dir, host, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("archive").join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn scan(&self) -> Result<Told, Error> {
        let mut items = Vec::new();
        let end = self.source.scan(&testing::call(), ScanFrom::Full, &mut |item| {
            items.push(item);
            Ok(())
        })?;
        Ok((items, end))
    }

    /// Media by id.
    fn media(&self) -> BTreeMap<String, Media> {
        let (items, _) = self.scan().unwrap();
        let media = items.into_iter().filter_map(|item| match item {
            Item::Media(medium) => Some((medium.id.clone(), medium)),
            _ => None,
        });
        media.collect()
    }

    /// Facts in the order in which they were told.
    fn facts(&self) -> Vec<Facts> {
        let (items, _) = self.scan().unwrap();
        let facts = items.into_iter().filter_map(|item| match item {
            Item::Facts(facts) => Some(facts),
            _ => None,
        });
        facts.collect()
    }

    /// The agent that the gateway would show for each path: that of the greatest revision.
    fn agents(&self) -> BTreeMap<String, String> {
        let mut best: BTreeMap<String, Facts> = BTreeMap::new();
        for facts in self.facts() {
            let path = facts.keys[0].value.clone();
            if best.get(&path).is_none_or(|known| known.revision <= facts.revision) {
                best.insert(path, facts);
            }
        }
        best.into_iter().map(|(path, facts)| (path, value(&facts, fact::AGENT_NAME))).collect()
    }

    fn warned(&self) -> Vec<String> {
        let warnings = self.host.lines().into_iter().filter(|(level, ..)| *level == Level::Warn);
        warnings.map(|(.., line)| line).collect()
    }
}

fn value(facts: &Facts, key: &str) -> String {
    facts.values.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.unwrap_err().code
}

fn object_key(value: &str) -> JoinKey {
    JoinKey { kind: JoinKind::ObjectKey, value: value.to_owned() }
}

/// A full index about these files, with their agents.
fn full(rows: &[(&str, &str)]) -> String {
    let mut text = "AGENT NAME,FILENAME,DIRECTORY,START TIME UTC,STOP TIME UTC\r\n".to_owned();
    for (path, agent) in rows {
        let (folder, file) = path.rsplit_once('/').unwrap();
        let stamp = &file[1..15];
        let (day, time) = stamp.split_at(8);
        let utc = format!(
            "{}-{}-{} {}:{}:{}",
            &day[..4],
            &day[4..6],
            &day[6..],
            &time[..2],
            &time[2..4],
            &time[4..]
        );
        text.push_str(&format!("{agent},{file},{folder},{utc},{utc}\r\n"));
    }
    text
}

#[test]
fn recordings_are_told_with_their_names_and_all_else_is_ignored() {
    let bench = Bench::new();
    bench.put(NAME, wav(8000));
    bench.put("S20160606/R20160606173006.wav", wav(80));
    bench.put("S20160606/r201606061730070012.WAV", wav(80));
    bench.put("S20160606/R201606061730080000.mp3", b"ID3");
    bench.put("S20160606/O201606061730090000.wav", wav(80));
    bench.put("Orphans/O201606061730090001.wav", wav(80));
    for other in
        ["S20160606/notes.txt", "S20160606/R201606061730050000.wav.part", "S20160606/R201606061730050001.xyz"]
    {
        bench.put(other, b"x");
    }
    bench.put("R201606061730050009.wav", wav(8));
    bench.put("Index/R201606061730050009.wav", wav(8));
    bench.put("S20160606/deeper/R201606061730050009.wav", wav(8));
    fs::create_dir(bench.path("S20160606/R201606061730050008.wav")).unwrap();
    fs::write(bench.path("S20160606").join(std::ffi::OsStr::from_bytes(b"R\xff.wav")), b"x").unwrap();

    let media = bench.media();
    let ids: Vec<_> = media.keys().map(String::as_str).collect();
    assert_eq!(
        ids,
        [
            "Orphans/O201606061730090001.wav",
            "S20160606/O201606061730090000.wav",
            NAME,
            "S20160606/R20160606173006.wav",
            "S20160606/R201606061730080000.mp3",
            "S20160606/r201606061730070012.WAV",
        ]
    );
    let one = &media[NAME];
    assert_eq!((one.state, one.size, one.duration_ms), (MediaState::Available, 16_044, Some(1000)));
    assert_eq!((one.start_ms, one.stop_ms), (Some(START), Some(START + 1000)));
    assert_eq!(one.preferred_name.as_deref(), Some("R201606061730050000.wav"));
    assert_eq!((one.media_type.as_str(), &one.keys[..]), ("audio/wav", &[object_key(NAME)][..]));
    assert!(one.header_patch.is_empty());
    let preferred = |id: &str| media[id].preferred_name.as_deref();
    assert_eq!(preferred("S20160606/R20160606173006.wav"), Some("R20160606173006.wav"));
    assert_eq!(preferred("S20160606/r201606061730070012.WAV"), Some("R201606061730070012.wav"));
    assert_eq!(
        media["S20160606/r201606061730070012.WAV"].keys,
        [object_key("S20160606/R201606061730070012.wav")]
    );
    assert_eq!(preferred("S20160606/O201606061730090000.wav"), None, "an orphan had no recording's name");
    let mp3 = &media["S20160606/R201606061730080000.mp3"];
    assert_eq!((mp3.media_type.as_str(), mp3.stop_ms, mp3.duration_ms), ("audio/mpeg", None, None));
    assert!(media.values().all(|medium| medium.start_precision == Precision::Second));
    for medium in media.values() {
        assert_eq!(bench.source.stat(&testing::call(), &medium.id, Some(&medium.version)).unwrap(), *medium);
    }
    assert_eq!(bench.host.said(Level::Warn, "UTF-8"), 1);
    assert_eq!(
        bench.host.said(Level::Debug, "6 recordings and 0 rows in 1 day folders, 5 other files ignored"),
        1
    );
}

#[test]
fn names_that_lie_are_told_as_they_can_be() {
    let bench = Bench::new();
    let other_day = "S20160606/R201606071730050000.wav";
    let impossible = "S20160606/R201613400000000000.wav";
    let nowhere = "S20161340/R201613400000000000.wav";
    let odd = "S20160606/R2016060617300500001.wav";
    for id in [other_day, impossible, nowhere, odd] {
        bench.put(id, wav(8000));
    }
    let media = bench.media();
    let start = |id: &str| (media[id].start_ms, media[id].start_precision);
    assert_eq!(start(other_day), (Some(START + 86_400_000), Precision::Second));
    assert!(media[other_day].preferred_name.is_some());
    assert_eq!(start(impossible), (Some(1_465_171_200_000), Precision::Day));
    assert_eq!(start(nowhere), (None, Precision::Unknown));
    assert_eq!(start(odd), (Some(START), Precision::Second));
    for id in [impossible, nowhere, odd] {
        assert_eq!(media[id].preferred_name, None, "{id}");
    }
    assert_eq!(bench.host.said(Level::Warn, "another day"), 1);
    assert_eq!(bench.host.said(Level::Warn, "a time that doesn't exist"), 2);
    assert_eq!(bench.host.said(Level::Warn, "a day that doesn't exist"), 1);
}

#[test]
fn facts_come_before_the_media_that_they_are_about() {
    let bench = Bench::new();
    let paths = [
        // 6 June already, east of Greenwich.
        "S20160605/R201606052359590000.wav",
        "S20160606/R201606060000000000.wav",
        "S20160607/R201606070659590000.wav",
        "S20160901/R201609010000000000.wav",
    ];
    for path in paths {
        bench.put(path, wav(8));
    }
    bench.put("S20160606/I20160606_version2.csv", full(&[(paths[1], "Full")]));
    bench.put("Index/I20160606.csv", full(&[(paths[0], "Root"), (paths[1], "Root"), (paths[2], "Root")]));
    bench.put("Index/I20161231.csv", full(&[("S20161231/R201612310000000000.wav", "Nobody's")]));
    let (items, end) = bench.scan().unwrap();
    let mut known = Vec::new();
    let mut media = Vec::new();
    for item in items {
        match item {
            Item::Facts(facts) => known.push(facts.keys[0].value.clone()),
            Item::Media(medium) => {
                assert_eq!(known.contains(&medium.id), medium.id != paths[3], "{}", medium.id);
                media.push(medium.id);
            }
            Item::MediaGone(id) => panic!("{id}"),
        }
    }
    assert_eq!(media, paths, "days in their order");
    assert!(known.contains(&"S20161231/R201612310000000000.wav".to_owned()), "rows without a file are told");
    assert!(end.complete && end.watermark_ms > START);
    assert_eq!(bench.agents()[paths[1]], "Full");
    assert_eq!(bench.agents()[paths[2]], "Root");
}

#[test]
fn no_cell_gets_into_the_log() {
    // A comma that isn't quoted shifts names and numbers into other columns.
    let bench = Bench::new();
    bench.put(NAME, wav(100));
    let header = "AGENT NAME,CUSTOMER NUMBER,START TIME,STOP TIME,START TIME UTC,STOP TIME UTC,CASEID,DURATION,DIRECTORY,FILENAME\r\n";
    let cells = [
        "Jane Roe",
        "+15550100",
        "Roe Jane",
        "555-0101",
        "Dr Roe",
        "Mrs Roe",
        "Roe",
        "Roe",
        "Roe/Jane",
        "Roe, Jane",
    ];
    let named = [&cells[..9], &["R201606061730050000.wav", "Roe"]].concat();
    let shifted = [&cells[..], &["Roe"]].concat().join(",").replace("Roe, Jane", "\"Roe, Jane\"");
    bench.put("S20160606/I20160606.csv", format!("{header}{}\r\n{shifted}\r\n", named.join(",")));
    let (items, _) = bench.scan().unwrap();
    assert_eq!(items.len(), 2, "the first row is about the file");
    for says in
        ["row 1: START TIME UTC is not a time", "row 1: STOP TIME is not a time", "row 2: FILENAME is no"]
    {
        assert_eq!(bench.host.said(Level::Warn, says), 1, "{says}: {:?}", bench.warned());
    }
    let lines = bench.host.lines();
    for line in lines.iter().map(|line| format!("{line:?}")) {
        assert!(!line.contains("Roe") && !line.contains("Jane") && !line.contains("555"), "{line}");
    }
}

#[test]
fn the_fuller_index_wins_and_the_brief_one_fills_its_gaps() {
    let bench = Bench::new();
    let [one, two, three] = [0, 1, 2].map(|n| format!("S20160606/R20160606173005000{n}.wav"));
    for path in [&one, &two, &three] {
        bench.put(path, wav(8));
    }
    bench.put("Index/I20160606.csv", full(&[(&one, "Root 1"), (&three, "Root 3")]));
    bench.put("S20160606/I20160606.csv", full(&[(&one, "Brief 1"), (&two, "Brief 2"), (&three, "Brief 3")]));
    bench.put("S20160606/I20160606_version2.csv", full(&[(&one, "Full 1")]));
    let agents = bench.agents();
    assert_eq!((agents[&one].as_str(), agents[&two].as_str()), ("Full 1", "Brief 2"));
    assert_eq!(agents[&three], "Root 3");
    let facts = bench.facts();
    assert_eq!(facts.len(), 5, "the brief index's row about the first is not told");
    let ids: std::collections::BTreeSet<_> = facts.iter().map(|facts| &facts.id).collect();
    assert_eq!(ids.len(), 3, "all rows about a file are one set of facts");
    // A file that is listed twice: the later line counts, in each scan.
    bench.put("S20160606/I20160606_version2.csv", full(&[(&one, "First"), (&one, "Second")]));
    assert_eq!((bench.agents()[&one].as_str(), bench.agents()[&one].as_str()), ("Second", "Second"));
}

#[test]
fn rows_find_their_files_however_they_are_spelled() {
    let bench = Bench::new();
    bench.put("S20160606/r201606061730050000.WAV", wav(8));
    let day = "FILENAME,DIRECTORY,AGENT NAME\n\
        R201606061730050000.wav,S20160606,a\n\
        R201606061730060000.WAV,s20160606/,b\n\
        S20160606/R201606061730070000.wav,,c\n\
        R201606061730080000.wav,\\\\server\\acme\\S20160606\\,d\n\
        R201606071730090000.wav,S20160607,e\n\
        R201606061730100000.wav,somewhere,f\n\
        ,S20160606,g\n\
        notes.txt,S20160606,h\n";
    bench.put("S20160606/I20160606_version2.csv", day);
    // Without DIRECTORY the name says the day.
    bench.put("Index/I20160606.csv", "FILENAME,AGENT NAME\nR201606070000000000.wav,i\n");
    let agents = bench.agents();
    let found: Vec<_> = agents.iter().map(|(path, agent)| (path.as_str(), agent.as_str())).collect();
    assert_eq!(
        found,
        [
            ("S20160606/R201606061730050000.wav", "a"),
            ("S20160606/R201606061730060000.wav", "b"),
            ("S20160606/R201606061730070000.wav", "c"),
            ("S20160606/R201606061730080000.wav", "d"),
            ("S20160606/R201606061730100000.wav", "f"),
            ("S20160607/R201606070000000000.wav", "i"),
            ("S20160607/R201606071730090000.wav", "e"),
        ]
    );
    let media = bench.media();
    assert_eq!(media["S20160606/r201606061730050000.WAV"].keys, [object_key(NAME)]);
    let warned = bench.warned();
    for part in ["row 6: DIRECTORY", "row 7: FILENAME is empty", "row 8: FILENAME is no recording"] {
        assert!(warned.iter().any(|line| line.contains(part)), "{part}: {warned:?}");
    }
}

#[test]
fn archives_lie_in_the_root_or_in_its_folders() {
    let bench = Bench::new();
    let name = "R201606061730050000.wav";
    for base in ["2016/", "2017/", "acme/", "globex/"] {
        bench.put(&format!("{base}S20160606/{name}"), wav(8));
    }
    bench.put(&format!("2017/S20170101/{name}"), wav(8));
    bench.put("2016/Index/I20161231.csv", full(&[("S20170101/R201701010000000000.wav", "year")]));
    bench.put("acme/Index/I20160606.csv", full(&[(NAME, "acme")]));
    // Globex has no folder of that day left, and acme's recordings are none of its business.
    bench.put("globex/Index/I20160605.csv", full(&[("S20160605/R201606051730050000.wav", "globex")]));
    bench.put("acme/S20160605/R201606051730050000.wav", wav(8));
    // It may be about the first or the second year.
    bench.put("Index/I20160606.csv", full(&[(NAME, "root")]));
    for nothing in [".hidden/S20160606", "lost+found/S20160606", "x/y/S20160606"] {
        bench.put(&format!("{nothing}/{name}"), wav(8));
    }
    let media = bench.media();
    let ids: Vec<_> = media.keys().map(String::as_str).collect();
    assert_eq!(
        ids,
        [
            "2016/S20160606/R201606061730050000.wav",
            "2017/S20160606/R201606061730050000.wav",
            "2017/S20170101/R201606061730050000.wav",
            "acme/S20160605/R201606051730050000.wav",
            "acme/S20160606/R201606061730050000.wav",
            "globex/S20160606/R201606061730050000.wav",
        ]
    );
    let agents = bench.agents();
    let found: Vec<_> = agents.iter().map(|(path, agent)| (path.as_str(), agent.as_str())).collect();
    assert_eq!(
        found,
        [
            ("2017/S20170101/R201701010000000000.wav", "year"),
            ("S20160606/R201606061730050000.wav", "root"),
            ("acme/S20160606/R201606061730050000.wav", "acme"),
            ("globex/S20160605/R201606051730050000.wav", "globex"),
        ]
    );

    // A single archive in the root, whose index lies beside it.
    let bench = Bench::new();
    bench.put(&format!("recordings/{NAME}"), wav(8));
    bench.put("Index/I20160606.csv", full(&[(NAME, "root")]));
    assert_eq!(bench.agents().keys().collect::<Vec<_>>(), [&format!("recordings/{NAME}")]);
}

#[test]
fn nothing_but_regular_files_in_folders_is_opened() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs::create_dir_all(outside.join("S20160607")).unwrap();
    fs::write(outside.join("S20160607/R201606071730050000.wav"), wav(10)).unwrap();
    fs::write(outside.join("secret.csv"), "FILENAME\nR201606061730050000.wav\n").unwrap();
    bench.put(NAME, wav(10));
    symlink(outside.join("S20160607"), bench.path("S20160607")).unwrap();
    symlink(&outside, bench.path("linked")).unwrap();
    symlink(
        outside.join("S20160607/R201606071730050000.wav"),
        bench.path("S20160606/R201606061730050001.wav"),
    )
    .unwrap();
    symlink(outside.join("secret.csv"), bench.path("S20160606/I20160606_version2.csv")).unwrap();
    symlink("/dev/zero", bench.path("S20160606/R201606061730050002.wav")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        bench.path("S20160606/R201606061730050003.wav"),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    let (items, end) = bench.scan().unwrap();
    assert_eq!(items.len(), 1, "{items:?}");
    assert!(end.watermark_ms > START, "a link is not something that can't be read");
    assert_eq!(bench.host.said(Level::Warn, "links are not followed"), 1);
    for id in [
        "S20160606/R201606061730050001.wav",
        "S20160606/R201606061730050002.wav",
        "S20160606/R201606061730050003.wav",
        "S20160607/R201606071730050000.wav",
        "linked/S20160607/R201606071730050000.wav",
        "../outside/S20160607/R201606071730050000.wav",
        "S20160606/../../outside/S20160607/R201606071730050000.wav",
        "/etc/passwd",
        "",
        "S20160606/R201606061730059999.wav",
        "S20160608/R201606081730050000.wav",
    ] {
        assert_eq!(code(bench.source.stat(&testing::call(), id, None)), ErrorCode::NotFound, "{id:?}");
        assert_eq!(code(bench.source.open(&testing::call(), id, "0-0")), ErrorCode::NotFound, "{id:?}");
    }
}

#[test]
fn exactly_the_version_that_was_asked_for_is_read() {
    let bench = Bench::new();
    let bytes = wav(100_000);
    bench.put(NAME, &bytes);
    let medium = &bench.media()[NAME];
    let handle = bench.source.open(&testing::call(), NAME, &medium.version).unwrap();
    let mut read = vec![0; bytes.len() + 10];
    let count = bench.source.read_at(&testing::call(), &handle, 0, &mut read).unwrap();
    assert!(count == bytes.len() && read[..count] == bytes);
    let mut part = [0; 100];
    assert_eq!(bench.source.read_at(&testing::call(), &handle, 150_000, &mut part).unwrap(), 100);
    assert_eq!(part, bytes[150_000..150_100]);
    let size = medium.size;
    assert_eq!(bench.source.read_at(&testing::call(), &handle, size, &mut part).unwrap(), 0);
    assert_eq!(code(bench.source.read_at(&testing::call(), &handle, size + 1, &mut part)), ErrorCode::Range);
    let cancelling = testing::cancelled_after(0);
    assert_eq!(code(bench.source.read_at(&cancelling, &handle, 0, &mut part)), ErrorCode::Cancelled);
    assert_eq!(code(bench.source.open(&testing::call(), NAME, "1-1")), ErrorCode::Precondition);

    bench.put(NAME, wav(99_999));
    assert_eq!(code(bench.source.read_at(&testing::call(), &handle, 0, &mut part)), ErrorCode::Precondition);
    assert_eq!(
        code(bench.source.stat(&testing::call(), NAME, Some(&medium.version))),
        ErrorCode::Precondition
    );
}

#[test]
fn files_that_are_being_copied_are_growing() {
    let bench = Bench::new();
    bench.host.run_ahead(0);
    bench.put(NAME, wav(80));
    let whole = wav(8000);
    let half = "S20160606/R201606061730060000.wav";
    bench.put(half, &whole[..4000]);
    let old = "S20160605/R201606050000000000.wav";
    bench.put(old, wav(80));
    let file = fs::File::options().write(true).open(bench.path(old)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
    let state = |id: &str| bench.media()[id].state;
    assert_eq!((state(NAME), state(old)), (MediaState::Growing, MediaState::Available));
    assert_eq!(bench.scan().unwrap().1.watermark_ms, START, "the earliest that is still being copied");
    // Quiet, but less than its header says.
    bench.host.run_ahead(61_000);
    assert_eq!((state(NAME), state(half)), (MediaState::Available, MediaState::Growing));
    bench.host.run_ahead(3_601_000);
    let medium = &bench.media()[half];
    assert_eq!((medium.state, medium.header_patch.len()), (MediaState::Available, 44));
    assert_eq!((medium.size, medium.duration_ms), (4000, Some(247)));
    // Called a WAV.
    bench.put(half, b"not found: please log in");
    let medium = &bench.media()[half];
    assert_eq!(medium.state, MediaState::Failed);
    assert!(medium.state_reason.contains("RIFF"), "{}", medium.state_reason);
    // An index that is being written keeps the watermark back.
    bench.put("Index/I20160606.csv", full(&[(NAME, "a")]));
    bench.host.run_ahead(0);
    assert_eq!(bench.scan().unwrap().1.watermark_ms, i64::MIN);
}

#[test]
fn what_cannot_be_read_costs_itself() {
    let bench = Bench::new();
    bench.put(NAME, wav(8));
    bench.put("S20160607/R201606071730050000.wav", wav(8));
    bench.put("S20160606/I20160606_version2.csv", b"\xff\xfeF\0I\0");
    bench.put("S20160606/I20160606.csv", full(&[(NAME, "brief")]));
    bench.put("Index/I20160606.csv", "no header at all\n");
    let (items, end) = bench.scan().unwrap();
    assert_eq!(items.len(), 3, "{items:?}");
    assert!(end.watermark_ms > START);
    assert_eq!(
        bench.host.said(Level::Warn, "UTF-16") + bench.host.said(Level::Warn, "no column FILENAME"),
        2
    );

    let closed = bench.path("S20160607");
    set_mode(&closed, 0);
    if fs::read_dir(&closed).is_err() {
        let (items, end) = bench.scan().unwrap();
        assert_eq!((items.len(), end.watermark_ms), (2, i64::MIN));
        let id = "S20160607/R201606071730050000.wav";
        assert_eq!(
            code(bench.source.stat(&testing::call(), id, None)),
            ErrorCode::Permission,
            "it is not gone"
        );
    }
    set_mode(&closed, 0o755);
    set_mode(&bench.path(NAME), 0);
    if fs::File::open(bench.path(NAME)).is_err() {
        let (items, end) = bench.scan().unwrap();
        assert_eq!((items.len(), end.watermark_ms), (2, i64::MIN));
    }
}

fn set_mode(path: &Path, mode: u32) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, mode);
    fs::set_permissions(path, permissions).unwrap();
}

#[test]
fn a_root_that_is_away_is_unavailable_and_an_empty_one_is_said() {
    let bench = Bench::new();
    assert!(bench.source.health(&testing::call()).unwrap().reachable);
    assert!(bench.scan().unwrap().0.is_empty());
    assert_eq!(bench.host.said(Level::Warn, "is it the right path"), 1);
    bench.put(NAME, wav(8));
    let medium = bench.media()[NAME].clone();
    let away = bench.dir.path().join("away");
    fs::rename(bench.path(""), &away).unwrap();
    assert_eq!(code(bench.scan()), ErrorCode::Unavailable);
    assert_eq!(code(bench.source.stat(&testing::call(), NAME, None)), ErrorCode::Unavailable);
    assert_eq!(code(bench.source.open(&testing::call(), NAME, &medium.version)), ErrorCode::Unavailable);
    let health = bench.source.health(&testing::call()).unwrap();
    assert!(!health.reachable && health.message.contains("mounted"), "{}", health.message);
    fs::rename(&away, bench.path("")).unwrap();
    assert_eq!(bench.media()[NAME], medium);
}

#[test]
fn a_scan_can_be_cancelled_and_its_taker_can_refuse() {
    let bench = Bench::new();
    let paths: Vec<_> = (0..20).map(|n| format!("S20160606/R2016060617300500{n:02}.wav")).collect();
    let rows: Vec<_> = paths.iter().map(|path| (path.as_str(), "a")).collect();
    bench.put("S20160606/I20160606_version2.csv", full(&rows));
    bench.put("Index/I20160606.csv", full(&rows));
    for path in &paths {
        bench.put(path, wav(8));
    }
    let total = bench.scan().unwrap().0.len();
    assert_eq!(total, 60);
    for looks in [0, 5, 15, 30, 45, 60, 75] {
        let mut told = 0;
        let call = testing::cancelled_after(looks);
        let result = bench.source.scan(&call, ScanFrom::Since(b"full"), &mut |_| {
            told += 1;
            Ok(())
        });
        assert_eq!(code(result), ErrorCode::Cancelled, "{looks}");
        assert!(told < total && told <= looks as usize, "{looks}: {told}");
    }
    for refused in [1, 25, 45] {
        let mut told = 0;
        let result = bench.source.scan(&testing::call(), ScanFrom::Full, &mut |_| {
            told += 1;
            if told == refused { Err(Error::new(ErrorCode::NoSpace, "enough")) } else { Ok(()) }
        });
        assert_eq!((code(result), told), (ErrorCode::NoSpace, refused));
    }
}

#[test]
fn thousands_of_files_are_told_once_each_and_alike_each_time() {
    let bench = Bench::new();
    let content = wav(80);
    let paths: Vec<_> = (0..3000)
        .map(|n| {
            format!(
                "S201606{:02}/R201606{:02}{:06}0000.wav",
                n % 30 + 1,
                n % 30 + 1,
                n / 30 % 60 + n / 1800 * 100
            )
        })
        .collect();
    let mut days: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for path in &paths {
        bench.put(path, &content);
        days.entry(&path[..9]).or_default().push((path, "Agent"));
    }
    for (day, rows) in &days {
        bench.put(&format!("{day}/I{}_version2.csv", &day[1..]), full(rows));
        bench.put(&format!("{day}/I{}.csv", &day[1..]), full(rows));
    }
    let (first, end) = bench.scan().unwrap();
    let count = paths.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(first.len(), count * 2, "a row and a medium each");
    assert!(end.complete);
    let (second, _) = bench.scan().unwrap();
    assert!(first == second);
    assert_eq!(bench.warned(), [""; 0]);
}

#[test]
fn the_seeds_of_the_fuzz_target_are_read() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/archive_index");
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        fuzzing::index(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 2);
}

proptest::proptest! {
    #[test]
    fn what_the_fuzz_target_demands_holds_for_rows_of_all_kinds(
        header in "(FILENAME|START TIME UTC|STOP TIME|SKILL|DURATION|,|;){3,9}",
        rows in "((R20160606173005|R201613400000000000|2016-06-06 17:30|\"|,|;|\r?\n|[0-9é=']){0,9}(\\.wav)?){0,40}",
    ) {
        fuzzing::index(format!("FILENAME,{header}\n{rows}").as_bytes());
    }
}

//! A day of 100,000 calls on which the clocks are put back, mirrored while its last calls still come.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use chrono::{DateTime, TimeDelta, Utc};
use recgate_e2e::{
    ACME, Fixture, Kind, Stat, TenantSpec, files_below, read_columns, turn, untouched, utc, wait_for,
};
use recgate_plugin_api::{Media, Source as _, testing};
use recgate_synthetic::Synthetic;
use serde_json::json;
use tempfile::TempDir;

/// 2016-11-06, in days since 1970. New York's clocks go back from 02:00 (UTC-4) to 01:00 (UTC-5) at 06:00 UTC.
const FIRST_DAY: i64 = 17_111;
/// Ten calls in nine seconds, from 00:00 UTC on.
const STEP_MS: i64 = 900;
const PER_DAY: u64 = 96_000;
/// Those of New York's 6 November: 04:00 UTC to 05:00 UTC of the next day, 25 hours.
const SIXTH: Range<u64> = 16_000..116_000;
const ALL: u64 = 117_000;
/// What is there when the mirror begins, and what there is when its first pass has ended.
const AT_FIRST: u64 = 114_000;
const MEANWHILE: u64 = 115_000;
/// How many come at a time.
const STEP: usize = 200;
/// What is mirrored: all indexes, the hour that comes twice, and the last hours, in which calls still come. 100,000 files
/// take lftp minutes on a machine that has much else to do.
const MIRRORED: &str = "/$|[.]csv$|/R201611060[56]|/R201611070[2-5]";
const MIRRORED_HOURS: [&str; 6] =
    ["R2016110605", "R2016110606", "R2016110702", "R2016110703", "R2016110704", "R2016110705"];
/// Bytes of a recording at most, so that 100,000 of them take no gigabytes.
const LARGEST: u64 = 400;
/// For a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(600);

/// The gateway, and what decides which calls are there.
struct Day {
    fixture: Fixture,
    count_file: PathBuf,
    /// All calls, as the plugin computes them.
    calls: Synthetic,
    _folder: TempDir,
}

/// Each recording's number to the path that it has.
type Paths = BTreeMap<u64, String>;

impl Day {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let count_file = folder.path().join("count");
        let mut settings = json!({
            "recordings": ALL,
            "first_day": FIRST_DAY,
            "per_day": PER_DAY,
            "largest": LARGEST,
        });
        let host = testing::host();
        host.set_now_ms(Utc::now().timestamp_millis());
        let calls = Synthetic::create(&settings.to_string(), host).unwrap();

        settings["count_file"] = json!(count_file);
        let settings: Vec<String> =
            settings.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let more = format!(
            "[[tenant.source]]\nid = 2\nname = \"computed\"\nplugin = \"synthetic\"\nscan_interval = \"20s\"\n\
             [tenant.source.settings]\n{}",
            settings.concat()
        );
        let fixture = Fixture::in_memory(vec![TenantSpec { zone: "America/New_York", more, ..ACME }]);
        fixture.write_config(&fixture.config().replace("info,recgate=debug", "info"));
        let day = Self { fixture, count_file, calls, _folder: folder };
        day.tell(AT_FIRST);
        day
    }

    /// So many calls are there from now on.
    fn tell(&self, count: u64) {
        let unfinished = self.count_file.with_extension("part");
        fs::write(&unfinished, count.to_string()).unwrap();
        fs::rename(unfinished, &self.count_file).unwrap();
    }

    fn wait_published(&self, count: u64) {
        wait_for(&format!("{count} names"), PATIENCE, || {
            // Each question costs the gateway something, too.
            thread::sleep(Duration::from_millis(200));
            let status = self.fixture.recgate(&["status", "--json"]).success();
            let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
            let published = status["tenants"][0]["recordings"]["published"].as_u64().unwrap();
            assert!(published <= count, "{published} names");
            (published == count).then_some(())
        });
    }

    /// Waits until the root index of a day is complete.
    fn wait_complete(&self, day: &str, rows: u64) {
        wait_for(&format!("{rows} rows in the index of {day}"), PATIENCE, || {
            let printed =
                self.fixture.recgate(&["index", "list", "--json", "--from", day, "--until", day]).success();
            let index: serde_json::Value = serde_json::from_str(printed.stdout.trim()).ok()?;
            (index["complete"] == true && index["rows"] == rows).then_some(())
        });
    }

    fn media(&self, number: u64) -> Media {
        self.calls.stat(&testing::call(), &format!("call-{number:09}"), None).unwrap()
    }

    /// What the plugin has for a recording.
    fn bytes(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(LARGEST).unwrap()];
        let read = self.calls.read_at(&testing::call(), &number, 0, &mut bytes).unwrap();
        bytes.truncate(read);
        bytes
    }

    /// Mirrors the tree, and says which files lftp has transferred.
    fn mirror(&self, to: &Path) -> BTreeSet<String> {
        let command = format!("mirror --verbose=3 --parallel=4 --include=\"{MIRRORED}\" / {}", to.display());
        let ended = self.fixture.login("acme").lftp(&command).success();
        let transfers = ended.stdout.lines().filter_map(|line| line.strip_prefix("Transferring file `"));
        transfers.map(|rest| rest.strip_suffix('\'').unwrap().to_owned()).collect()
    }
}

fn start_of(number: u64) -> DateTime<Utc> {
    let ms = FIRST_DAY * 86_400_000 + i64::try_from(number).unwrap() * STEP_MS;
    DateTime::from_timestamp_millis(ms).unwrap()
}

/// The folder of a call, and what its name begins with.
fn second_of(number: u64) -> String {
    start_of(number).format("S%Y%m%d/R%Y%m%d%H%M%S").to_string()
}

fn in_utc(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// What the clocks in New York show.
fn in_new_york(at: DateTime<Utc>) -> String {
    let hours = if at < utc("2016-11-06 06:00:00") { 4 } else { 5 };
    in_utc(at - TimeDelta::hours(hours))
}

#[test]
fn a_day_of_25_hours_is_mirrored_while_calls_still_come() {
    let _turn = turn();
    let mut day = Day::new();
    day.fixture.start();
    day.wait_published(AT_FIRST);

    // The first pass: recordings come while it runs, and some are still to come when it has ended.
    let mirror = day.fixture.new_folder("mirror");
    thread::scope(|scope| {
        let first = scope.spawn(|| day.mirror(&mirror));
        wait_for("the mirror's first files", PATIENCE, || {
            let mut folders = fs::read_dir(&mirror).unwrap();
            folders.any(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count() > 0).then_some(())
        });
        assert!(!first.is_finished(), "nothing comes while it mirrors");
        for count in (AT_FIRST..MEANWHILE).step_by(STEP).skip(1).chain([MEANWHILE]) {
            day.tell(count);
            day.wait_published(count);
        }
        let there = (0..AT_FIRST).filter(|number| is_mirrored(&second_of(*number))).count();
        assert!(first.join().unwrap().len() >= there);
    });
    let begun = files_below(&mirror);
    let before = untouched(&mirror);
    day.tell(ALL);
    day.wait_published(ALL);
    day.wait_complete("2016-11-05", SIXTH.start);
    day.wait_complete("2016-11-06", SIXTH.end - SIXTH.start);
    day.wait_complete("2016-11-07", ALL - SIXTH.end);

    // The second one fetches what is new, and nothing else.
    let tree = day.fixture.login("acme").raw().tree();
    let new = new_in(&tree, &mirror);
    let recordings = new.iter().filter(|path| path.ends_with(".wav")).count() as u64;
    assert!((ALL - MEANWHILE..=ALL - AT_FIRST).contains(&recordings), "{recordings} are new");
    assert_eq!(day.mirror(&mirror), new);
    for (path, state) in untouched(&mirror) {
        assert_eq!(before.get(&path) != Some(&state), new.contains(&path), "{path}");
    }
    // The third one finds nothing.
    let settled = untouched(&mirror);
    assert_eq!(day.mirror(&mirror), BTreeSet::new());
    assert!(untouched(&mirror) == settled);

    let files = files_below(&mirror);
    let paths = check_folders(&day, &files);
    check_root_indexes(&day, &files, &paths);
    let wanted = paths.iter().filter(|(_, path)| is_mirrored(path));
    for (number, path) in wanted.clone() {
        assert!(files[path] == day.bytes(*number), "{path}");
    }
    let wavs = files.keys().filter(|path| path.ends_with(".wav")).count();
    assert_eq!(wavs, wanted.count(), "the mirror has other recordings besides");
    let mut raw = day.fixture.login("acme").raw();
    for (number, path) in paths.iter().step_by(997) {
        assert!(raw.file(&format!("/{path}")).unwrap() == day.bytes(*number), "{path}");
    }
    // What the first pass had was whole, and is the beginning of what there is now.
    for (path, bytes) in &begun {
        if path.ends_with(".wav") {
            assert!(*bytes == files[path], "{path} wasn't whole");
        } else {
            assert!(bytes.ends_with(b"\r\n") && files[path].starts_with(bytes), "{path} wasn't whole");
        }
    }
}

/// Files of the tree that a mirror lacks, or has with another size or time.
fn new_in(tree: &BTreeMap<String, Stat>, mirror: &Path) -> BTreeSet<String> {
    let is_there = |path: &str, stat: &Stat| {
        fs::metadata(mirror.join(path)).is_ok_and(|metadata| {
            let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
            (metadata.len(), modified.as_secs()) == (stat.size, u64::from(stat.modified))
        })
    };
    let files = tree.iter().filter(|(_, stat)| stat.kind == Kind::File);
    let files = files.map(|(path, stat)| (path.trim_start_matches('/'), stat));
    let new = files.filter(|(path, stat)| is_mirrored(path) && !is_there(path, stat));
    new.map(|(path, _)| path.to_owned()).collect()
}

fn is_mirrored(path: &str) -> bool {
    path.ends_with(".csv") || MIRRORED_HOURS.iter().any(|hour| path.contains(hour))
}

/// Each folder's indexes list exactly its WAVs, each call is there once, in the folder and under a name of its second.
fn check_folders(day: &Day, files: &BTreeMap<String, Vec<u8>>) -> Paths {
    let mut paths = Paths::new();
    let mut raw = day.fixture.login("acme").raw();
    for (folder, count) in [("S20161106", PER_DAY), ("S20161107", ALL - PER_DAY)] {
        let date = &folder[1..];
        let listed: BTreeSet<String> =
            raw.list(&format!("/{folder}")).unwrap().into_iter().map(|entry| entry.name).collect();
        let (indexes, wavs): (BTreeSet<&str>, BTreeSet<&str>) =
            listed.iter().map(String::as_str).partition(|name| name.ends_with(".csv"));
        let full = format!("I{date}_version2.csv");
        assert_eq!(indexes, BTreeSet::from([full.as_str(), &format!("I{date}.csv")]));
        assert_eq!(wavs.len() as u64, count, "{folder}");
        for index in &indexes {
            let rows = read_columns(&files[&format!("{folder}/{index}")], &["FILENAME", "DIRECTORY"]);
            assert_eq!(rows.len() as u64, count, "{index}");
            assert!(rows.iter().all(|row| row[1] == folder), "{index}");
            let names: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
            assert!(names == wavs, "{index} lists other files than the folder has");
        }
        for row in read_columns(&files[&format!("{folder}/{full}")], &["TRANS ID", "FILENAME"]) {
            let number = row[0].parse().unwrap();
            let path = format!("{folder}/{}", row[1]);
            let second = second_of(number);
            // Two calls of a second, at most.
            let is_its =
                path.strip_prefix(&second).is_some_and(|rest| ["0000.wav", "0001.wav"].contains(&rest));
            assert!(is_its, "call {number} is {path}");
            assert_eq!(paths.insert(number, path), None, "call {number} is there twice");
        }
    }
    assert!(paths.keys().copied().eq(0..ALL));
    let folders = raw.list("/").unwrap().into_iter().map(|entry| entry.name);
    assert_eq!(folders.collect::<Vec<_>>(), ["Index", "S20161106", "S20161107"]);
    let listed = day.fixture.login("acme").lftp("cls -1 /S20161106/ /S20161107/").success().stdout;
    let listed: BTreeSet<&str> = listed.lines().filter(|path| path.ends_with(".wav")).collect();
    let all: BTreeSet<String> = paths.values().map(|path| format!("/{path}")).collect();
    assert!(listed.iter().copied().eq(all.iter().map(String::as_str)), "lftp lists other recordings");
    paths
}

/// Each root index has the calls of its local date, with their times in both zones.
fn check_root_indexes(day: &Day, files: &BTreeMap<String, Vec<u8>>, paths: &Paths) {
    const COLUMNS: [&str; 7] = [
        "TRANSACTION ID",
        "DIRECTORY",
        "FILENAME",
        "START TIME",
        "START TIME UTC",
        "STOP TIME",
        "STOP TIME UTC",
    ];
    let mut hours: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (date, numbers) in [("20161105", 0..SIXTH.start), ("20161106", SIXTH), ("20161107", SIXTH.end..ALL)] {
        let mut found = BTreeSet::new();
        for row in read_columns(&files[&format!("Index/I{date}.csv")], &COLUMNS) {
            let number: u64 = row[0].parse().unwrap();
            let start = start_of(number);
            let stop = DateTime::from_timestamp_millis(day.media(number).stop_ms.unwrap()).unwrap();
            assert_eq!(format!("{}/{}", row[1], row[2]), paths[&number], "{row:?}");
            let times = [in_new_york(start), in_utc(start), in_new_york(stop), in_utc(stop)];
            assert_eq!(row[3..], times, "call {number}");
            assert_eq!(row[3][..10].replace('-', ""), date, "call {number}");
            assert!(found.insert(number), "call {number} has two rows");
            if SIXTH.contains(&number) {
                let in_utc = hours.entry(row[3][11..13].to_owned()).or_default();
                *in_utc.entry(row[4][11..13].to_owned()).or_default() += 1;
            }
        }
        assert!(found.into_iter().eq(numbers), "{date} has other calls");
    }
    // 24 hours on the clock, one of them twice.
    assert_eq!(hours.len(), 24);
    for (hour, in_utc) in &hours {
        let twice = BTreeMap::from([("05".to_owned(), 4000), ("06".to_owned(), 4000)]);
        assert!(if hour == "01" { *in_utc == twice } else { in_utc.len() == 1 }, "{hour}: {in_utc:?}");
    }
}

//! What a damaged state does to names: nothing, as long as the journal is whole. Without it nothing is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use recgate_e2e::{Fixture, Kind, Raw, Row, Stat, files_below, read_index, wait_for};
use serde_json::Value;

/// Exit code of a damaged state.
const DAMAGED: i32 = 6;

/// The recording that is gone.
const GONE: &str = "R201606061730050000.wav";
/// The one that began in the same second: without what is remembered it would have the other's name.
const KEPT: &str = "R201606061730050001.wav";

/// A tree: each path with what is said of it, and the bytes of files.
type Whole = BTreeMap<String, (Stat, Option<Vec<u8>>)>;

/// The tree with all bytes; `None` where it changes meanwhile, or some of it isn't to be had.
fn whole(raw: &mut Raw) -> Option<Whole> {
    let mut whole = Whole::new();
    let tree = raw.tree();
    for (path, stat) in &tree {
        let bytes = if stat.kind == Kind::File { Some(raw.file(path).ok()?) } else { None };
        whole.insert(path.clone(), (*stat, bytes));
    }
    if raw.tree() != tree {
        return None;
    }
    // A test that runs over the tenant's midnight finds one index more.
    let all = whole.len();
    whole.retain(|path, _| !path.starts_with("/Index/") || path.starts_with("/Index/I2016"));
    if whole.len() < all {
        whole.remove("/Index");
    }
    Some(whole)
}

/// What no loss may change of a path. Where the index files are lost, they are published anew, so their times change, and
/// with them those of folders.
#[derive(Debug, PartialEq)]
enum Lasting {
    Folder,
    Recording(Stat, Vec<u8>),
    Index(Vec<Row>),
}

fn lasting(whole: &Whole) -> BTreeMap<&str, Lasting> {
    let of = |path: &str, stat: Stat, bytes: Option<&Vec<u8>>| match bytes {
        None => Lasting::Folder,
        Some(bytes) if path.ends_with(".csv") => Lasting::Index(rows(bytes)),
        Some(bytes) => Lasting::Recording(stat, bytes.clone()),
    };
    whole.iter().map(|(path, (stat, bytes))| (path.as_str(), of(path, *stat, bytes.as_ref()))).collect()
}

fn rows(index: &[u8]) -> Vec<Row> {
    let mut rows = read_index(index).1;
    for row in rows.iter_mut().filter(|row| row["FILENAME"] == GONE) {
        // What was said of it may be lost with the catalog and the indexes; what it was called and when it was not.
        row.retain(|column, _| ["FILENAME", "DIRECTORY"].contains(&&**column) || column.contains(" TIME"));
    }
    rows
}

/// Whether the folder and its indexes know of what is gone.
fn is_settled(whole: &Whole) -> bool {
    let names = |path: &str| -> Option<BTreeSet<String>> {
        let index = whole.get(path)?.1.as_ref()?;
        Some(rows(index).iter().map(|row| row["FILENAME"].clone()).collect())
    };
    let wavs = |folder: &str| -> BTreeSet<String> {
        let below = whole.keys().filter_map(|path| path.strip_prefix(folder));
        below.filter(|name| name.ends_with(".wav")).map(str::to_owned).collect()
    };
    let day = wavs("/S20160606/");
    day.contains(KEPT)
        && !day.contains(GONE)
        && names("/S20160606/I20160606.csv").as_ref() == Some(&day)
        && names("/S20160606/I20160606_version2.csv").as_ref() == Some(&day)
}

/// A stopped gateway whose names no scan of what its PBX has now would give: of two recordings of one second the first
/// is gone. Returns what acme is shown.
fn stopped() -> (Fixture, Whole) {
    let mut fixture = Fixture::new();
    let calls = fixture.fill().remove("acme").unwrap();
    fixture.start();
    fixture.wait_published("acme", &calls);
    for (date, rows) in [("20160605", 1), ("20160606", 7), ("20160607", 1)] {
        fixture.wait_root_index("acme", date, rows);
    }
    let mut raw = fixture.login("acme").raw();
    let first = format!("/S20160606/{GONE}");
    let bytes = raw.file(&first).unwrap();
    let gone = calls.iter().find(|call| call.bytes == bytes).unwrap();
    fs::remove_file(fixture.wazo["acme"].media_path(gone)).unwrap();
    wait_for("the deleted recording's end", Duration::from_secs(60), || raw.file(&first).err());
    let before =
        wait_for("the indexes of all this", Duration::from_secs(60), || whole(&mut raw).filter(is_settled));
    fixture.gateway.take().unwrap().stop();
    (fixture, before)
}

/// What differs between two trees, without the bytes of recordings.
fn differences(before: &Whole, after: &Whole) -> String {
    let shown = |tree: &Whole, path: &str| match tree.get(path) {
        None => "nothing".to_owned(),
        Some((stat, Some(bytes))) if path.ends_with(".csv") => {
            format!("{stat:?}\n{}", String::from_utf8_lossy(bytes))
        }
        Some((stat, _)) => format!("{stat:?}"),
    };
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    changed.map(|path| format!("{path}: {}\nbecame {}\n", shown(before, path), shown(after, path))).collect()
}

/// Starts the gateway, waits until the tree is the `same` as before, and stops it. Returns what it has logged meanwhile.
#[track_caller]
fn starts_and_shows(
    fixture: &mut Fixture,
    before: &Whole,
    damage: &str,
    same: fn(before: &Whole, after: &Whole) -> bool,
) -> String {
    let logged = fs::metadata(fixture.path().join("gateway.log")).unwrap().len();
    fixture.start();
    let mut raw = fixture.login("acme").raw();
    let begin = Instant::now();
    loop {
        let after = whole(&mut raw);
        if after.as_ref().is_some_and(|after| same(before, after)) {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{damage}: {}",
            after.map_or(
                "the tree changes all the time, or a file that is listed can't be read".into(),
                |after| differences(before, &after)
            )
        );
        thread::sleep(Duration::from_millis(100));
    }
    drop(raw);
    let gateway = fixture.gateway.take().unwrap();
    let log = gateway.log()[usize::try_from(logged).unwrap()..].to_owned();
    gateway.stop();
    log
}

/// Names, sizes, times and bytes of everything.
fn exactly(before: &Whole, after: &Whole) -> bool {
    before == after
}

/// All but the times of indexes, and of the folders that hold them.
fn published_anew(before: &Whole, after: &Whole) -> bool {
    lasting(before) == lasting(after)
}

/// Fills the file with what was never in it.
fn garble(path: &Path) {
    let length = fs::read(path).unwrap().len();
    let garbage: Vec<u8> = (0..length).map(|at| u8::try_from(at * 131 % 251).unwrap() ^ 0x5a).collect();
    fs::write(path, garbage).unwrap();
}

/// The files of a folder, by ascending path.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    files_below(folder).into_keys().map(|path| folder.join(path)).collect()
}

/// The names in a folder.
fn names_in(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The last segment of the journal's governance chain.
fn segment(fixture: &Fixture) -> PathBuf {
    let mut segments: Vec<PathBuf> = files_of(&fixture.data_dir().join("journal").join("governance"))
        .into_iter()
        .filter(|path| !["checkpoint.json", "synced"].contains(&path.file_name().unwrap().to_str().unwrap()))
        .collect();
    segments.pop().unwrap()
}

/// Appends the first half of its last line to a segment, as a power loss leaves what was being written.
fn tear(segment: &Path) {
    let bytes = fs::read(segment).unwrap();
    let whole = bytes.strip_suffix(b"\n").expect("a segment that doesn't end with a whole line");
    let last = whole.rsplit(|byte| *byte == b'\n').next().unwrap();
    File::options().append(true).open(segment).unwrap().write_all(&last[..last.len() / 2]).unwrap();
}

#[test]
fn a_lost_governance_store_or_last_line_changes_nothing_and_indexes_come_back() {
    let (mut fixture, before) = stopped();
    let governance = fixture.data_dir().join("governance");
    starts_and_shows(&mut fixture, &before, "a stop and a start", exactly);

    for file in files_of(&governance) {
        garble(&file);
    }
    let log = starts_and_shows(&mut fixture, &before, "the governance store garbled", exactly);
    assert!(log.contains("the governance store is rebuilt from the journal"), "{log}");

    fs::remove_dir_all(&governance).unwrap();
    starts_and_shows(&mut fixture, &before, "the governance store deleted", exactly);

    tear(&segment(&fixture));
    let log = starts_and_shows(&mut fixture, &before, "the journal's last line torn", exactly);
    assert!(log.contains("an incomplete write at the journal's end was cut off"), "{log}");

    fs::remove_dir_all(fixture.data_dir().join("index")).unwrap();
    starts_and_shows(&mut fixture, &before, "the index files deleted", published_anew);
    fixture.recgate(&["state", "verify"]).success();
}

#[test]
fn a_damaged_or_lost_catalog_comes_back_with_the_same_names() {
    let (mut fixture, before) = stopped();
    let data = fixture.data_dir();
    let catalog = data.join("catalog.redb");

    let length = fs::metadata(&catalog).unwrap().len();
    File::options().write(true).open(&catalog).unwrap().set_len(length / 2).unwrap();
    let log = starts_and_shows(&mut fixture, &before, "the catalog cut to half", exactly);
    assert!(log.contains("the catalog is damaged"), "{log}");

    fs::write(&catalog, b"").unwrap();
    starts_and_shows(&mut fixture, &before, "the catalog empty", exactly);

    fs::remove_file(&catalog).unwrap();
    let log = starts_and_shows(&mut fixture, &before, "the catalog deleted", exactly);
    assert!(log.contains("brought up to the journal"), "{log}");

    // All that can be lost at once.
    fs::remove_file(&catalog).unwrap();
    fs::remove_dir_all(data.join("governance")).unwrap();
    fs::remove_dir_all(data.join("index")).unwrap();
    tear(&segment(&fixture));
    starts_and_shows(&mut fixture, &before, "stores and index files lost, the journal torn", published_anew);
    fixture.recgate(&["state", "verify"]).success();
}

#[test]
fn what_the_pbx_has_forgotten_is_in_the_indexes_after_the_catalog_is_lost() {
    let (mut fixture, before) = stopped();
    let day = read_index(before["/S20160606/I20160606_version2.csv"].1.as_ref().unwrap()).1;
    assert!(day.len() > 3 && day.iter().all(|row| row["AGENT NAME"] == "Björn Ågren"), "{day:?}");
    // A PBX keeps its records for a while only.
    for record in files_of(&fixture.wazo["acme"].cdr) {
        fs::remove_file(record).unwrap();
    }
    starts_and_shows(&mut fixture, &before, "the PBX's records gone", exactly);

    let catalog = fixture.data_dir().join("catalog.redb");
    fs::remove_file(&catalog).unwrap();
    let log = starts_and_shows(&mut fixture, &before, "the catalog deleted", exactly);
    assert!(log.contains("the catalog was rebuilt; its index files told of recordings"), "{log}");
    let log = starts_and_shows(&mut fixture, &before, "a start after that", exactly);
    assert!(!log.contains("the catalog was rebuilt"), "{log}");

    garble(&catalog);
    starts_and_shows(&mut fixture, &before, "the catalog garbled", exactly);
    fixture.recgate(&["state", "rebuild"]).success();
    starts_and_shows(&mut fixture, &before, "a rebuild", exactly);
    fixture.recgate(&["state", "verify"]).success();
}

/// The stopped gateway refuses to start, to be verified and to be rebuilt, says that the journal is at fault, and leaves
/// everything as it is.
#[track_caller]
fn refuses(fixture: &Fixture, damage: &str) {
    let stores = |name: &str| {
        let path = fixture.data_dir().join(name);
        if path.is_dir() {
            files_below(&path)
        } else {
            BTreeMap::from([(name.to_owned(), fs::read(path).unwrap())])
        }
    };
    // With what else lies there: nothing is set aside.
    let state = || (["catalog.redb", "governance"].map(stores), names_in(&fixture.data_dir()));
    let before = state();
    for command in
        [&["state", "verify"][..], &["state", "verify", "--json"], &["state", "rebuild"], &["serve"]]
    {
        let refused = fixture.recgate(command);
        assert_eq!(refused.status.code(), Some(DAMAGED), "{damage}: {command:?}: {refused}");
        assert!(
            refused.text().contains("journal"),
            "{damage}: {command:?} doesn't name the journal: {refused}"
        );
        if command.contains(&"--json") {
            let report: Value = serde_json::from_str(&refused.stdout).unwrap();
            assert!(report["damage"].as_str().unwrap().contains("journal"), "{damage}: {report}");
        }
        // A start opens the stores before the journal, which leaves marks in them.
        if command[0] == "state" {
            assert!(state() == before, "{damage}: {command:?} touched the stores");
        }
    }
}

#[test]
fn a_damaged_journal_is_refused_and_nothing_is_touched() {
    let (mut fixture, before) = stopped();
    let journal = fixture.data_dir().join("journal");
    let segment = segment(&fixture);
    let sound = fs::read(&segment).unwrap();
    let checkpoint = journal.join("governance/checkpoint.json");
    let checkpointed = fs::read(&checkpoint).unwrap();

    let mut changed = sound.clone();
    changed[sound.len() / 2] ^= 1;
    fs::write(&segment, &changed).unwrap();
    // Without it the whole chain is verified at the start, not only what came afterwards.
    fs::remove_file(&checkpoint).unwrap();
    refuses(&fixture, "a byte of the journal changed");
    assert!(fs::read(&segment).unwrap() == changed, "the damaged journal was touched");

    fs::write(&segment, &sound).unwrap();
    fs::write(&checkpoint, &checkpointed).unwrap();
    starts_and_shows(&mut fixture, &before, "the journal put back", exactly);

    let aside = fixture.path().join("journal-aside");
    fs::rename(&journal, &aside).unwrap();
    refuses(&fixture, "the journal deleted");
    drop(fs::remove_dir_all(&journal));
    fs::rename(&aside, &journal).unwrap();
    starts_and_shows(&mut fixture, &before, "the journal's folder put back", exactly);
}

#[test]
fn a_rebuild_of_a_sound_state_keeps_names_and_verify_tells_how_far_it_reaches() {
    let (mut fixture, before) = stopped();
    let verify = |fixture: &Fixture| -> Value {
        let printed = fixture.recgate(&["state", "verify", "--json"]).success();
        serde_json::from_str(&printed.stdout).unwrap()
    };
    let report = verify(&fixture);
    assert_eq!(report["damage"], Value::Null, "{report}");
    assert_eq!(report["data_dir"], fixture.data_dir().to_str().unwrap());
    let head = |report: &Value, chain: &str| -> Value {
        let journals = report["journals"].as_array().unwrap();
        journals.iter().find(|journal| journal["chain"] == chain).unwrap().clone()
    };
    let governance = head(&report, "governance");
    assert!(governance["sequence"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(governance["sha256"].as_str().unwrap().len(), 64, "{report}");
    // Verifying changes nothing.
    assert_eq!(verify(&fixture), report);

    fixture.recgate(&["state", "rebuild"]).success();
    assert_eq!(head(&verify(&fixture), "governance"), governance, "a rebuild wrote into the journal");
    starts_and_shows(&mut fixture, &before, "a rebuild", exactly);

    // Neither works on a running gateway.
    fixture.start();
    for command in ["verify", "rebuild"] {
        fixture.recgate(&["state", command]).code(5);
    }
    fixture.gateway.take().unwrap().stop();
}

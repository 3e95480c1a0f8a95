//! What a damaged state does to names: nothing, as long as the journal is whole. Without it nothing is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use recgate_e2e::{Call, Fixture, Kind, Raw, Stat, files_below, utc, wait_for};
use serde_json::Value;

/// Exit code of a damaged state.
const DAMAGED: i32 = 6;

/// A tree: each path with what is said of it, and the bytes of files. `None` while some of it isn't to be had.
type Whole = BTreeMap<String, (Stat, Option<Vec<u8>>)>;

/// The tree with all bytes.
fn whole(raw: &mut Raw) -> Option<Whole> {
    let mut whole = Whole::new();
    for (path, stat) in raw.tree() {
        let bytes = if stat.kind == Kind::File { Some(raw.file(&path).ok()?) } else { None };
        whole.insert(path, (stat, bytes));
    }
    Some(whole)
}

/// A stopped gateway whose names no scan of what its PBX has now would give: there are three recordings of one second,
/// of which the first is gone and the last came with the lowest uuid. Returns what acme is shown.
fn stopped() -> (Fixture, Whole) {
    let mut fixture = Fixture::new();
    let mut calls = fixture.fill().remove("acme").unwrap();
    fixture.start();
    fixture.wait_published("acme", &calls);
    let acme = fixture.wazo.get_mut("acme").unwrap();
    let mut late = acme.plan(utc("2016-06-06 17:30:05"), 48);
    late.uuid.replace_range(..8, "00000000");
    acme.write_record(&late);
    acme.write_media(&late);
    calls.push(late);
    fixture.wait_published("acme", &calls);
    let mut raw = fixture.login("acme").raw();
    let first = "/S20160606/R201606061730050000.wav";
    let bytes = raw.file(first).unwrap();
    let gone = calls.iter().position(|call| call.bytes == bytes).unwrap();
    let gone: Call = calls.remove(gone);
    fs::remove_file(fixture.wazo["acme"].media_path(&gone)).unwrap();
    wait_for("the deleted recording's end", Duration::from_secs(60), || raw.file(first).err());
    let names = |raw: &mut Raw| -> Vec<String> { raw.tree().into_keys().collect() };
    // What is published stays so for a moment: nothing of it may be about to change.
    fixture.restart();
    let mut raw = fixture.login("acme").raw();
    let before = wait_for("the whole tree", Duration::from_secs(60), || whole(&mut raw));
    assert!(
        names(&mut raw).contains(&"/S20160606/R201606061730050002.wav".to_owned()),
        "{:?}",
        before.keys()
    );
    fixture.gateway.take().unwrap().stop();
    (fixture, before)
}

/// What differs between two trees, without their bytes.
fn differences(before: &Whole, after: &Whole) -> Vec<String> {
    let stat = |tree: &Whole, path: &String| tree.get(path).map(|(stat, _)| *stat);
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| format!("{path}: {:?} became {:?}", stat(before, path), stat(after, path)))
        .collect()
}

/// Starts the gateway, waits until it shows the same as before, and stops it. Returns what it has logged meanwhile.
fn starts_and_shows(fixture: &mut Fixture, before: &Whole, damage: &str) -> String {
    let logged = fs::metadata(fixture.path().join("gateway.log")).unwrap().len();
    fixture.start();
    let mut raw = fixture.login("acme").raw();
    let begin = std::time::Instant::now();
    loop {
        let after = whole(&mut raw);
        if after.as_ref() == Some(before) {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{damage}: {}",
            after.map_or("some file can't be read".into(), |after| differences(before, &after).join("\n"))
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(raw);
    let gateway = fixture.gateway.take().unwrap();
    let log = gateway.log()[usize::try_from(logged).unwrap()..].to_owned();
    gateway.stop();
    log
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

/// The last segment of a chain of the journal.
fn segment(fixture: &Fixture, chain: &str) -> PathBuf {
    let mut segments: Vec<PathBuf> = files_of(&fixture.data_dir().join("journal").join(chain))
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
fn damaged_or_lost_stores_come_back_with_the_same_names() {
    let (mut fixture, before) = stopped();
    let data = fixture.data_dir();
    let (catalog, governance, index) =
        (data.join("catalog.redb"), data.join("governance"), data.join("index"));

    let length = fs::metadata(&catalog).unwrap().len();
    File::options().write(true).open(&catalog).unwrap().set_len(length / 2).unwrap();
    let log = starts_and_shows(&mut fixture, &before, "the catalog cut to half");
    assert!(log.contains("the catalog is damaged"), "{log}");

    fs::write(&catalog, b"").unwrap();
    starts_and_shows(&mut fixture, &before, "the catalog empty");

    fs::remove_file(&catalog).unwrap();
    let log = starts_and_shows(&mut fixture, &before, "the catalog deleted");
    assert!(log.contains("brought up to the journal"), "{log}");

    for file in files_of(&governance) {
        garble(&file);
    }
    let log = starts_and_shows(&mut fixture, &before, "the governance store garbled");
    assert!(log.contains("the governance store is rebuilt from the journal"), "{log}");

    fs::remove_dir_all(&governance).unwrap();
    starts_and_shows(&mut fixture, &before, "the governance store deleted");

    fs::remove_dir_all(&index).unwrap();
    starts_and_shows(&mut fixture, &before, "the index files deleted");

    for chain in ["governance", "access"] {
        tear(&segment(&fixture, chain));
        let log = starts_and_shows(&mut fixture, &before, "the journal's last line torn");
        assert!(log.contains("an incomplete write at the journal's end was cut off"), "{chain}: {log}");
    }

    // All that can be lost at once.
    fs::remove_file(&catalog).unwrap();
    fs::remove_dir_all(&governance).unwrap();
    fs::remove_dir_all(&index).unwrap();
    tear(&segment(&fixture, "governance"));
    starts_and_shows(&mut fixture, &before, "both stores and the index files lost, the journal torn");
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
    let before = ["catalog.redb", "governance"].map(stores);
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
        assert!(
            ["catalog.redb", "governance"].map(stores) == before,
            "{damage}: {command:?} touched the stores"
        );
        for entry in fs::read_dir(fixture.data_dir()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("set-aside"), "{damage}: {command:?} left {name}");
        }
    }
}

#[test]
fn a_damaged_journal_is_refused_and_nothing_is_touched() {
    let (mut fixture, before) = stopped();
    let journal = fixture.data_dir().join("journal");
    let segment = segment(&fixture, "governance");
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
    starts_and_shows(&mut fixture, &before, "the journal put back");

    let aside = fixture.path().join("journal-aside");
    fs::rename(&journal, &aside).unwrap();
    refuses(&fixture, "the journal deleted");
    drop(fs::remove_dir_all(&journal));
    fs::rename(&aside, &journal).unwrap();
    starts_and_shows(&mut fixture, &before, "the journal's folder put back");
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
    starts_and_shows(&mut fixture, &before, "a rebuild");

    // Neither works on a running gateway.
    fixture.start();
    for command in ["verify", "rebuild"] {
        fixture.recgate(&["state", command]).code(5);
    }
    fixture.gateway.take().unwrap().stop();
}

//! A store that is lost, and index files that are not, or in part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Write;

use recgate_plugin_api::{Facts, JoinKey, JoinKind, Media};

use super::*;
use crate::catalog::{
    Actor, FolderRow,
    tests::{EVENING, World, add, facts, june, medium, now, open, utc_june},
};

const HOUR: i64 = 3_600_000;

/// The gateway stops, its store is lost, and it starts again.
async fn lose(world: World) -> World {
    lose_and(world, |_| ()).await
}

/// The same; something else happens meanwhile.
async fn lose_and(world: World, meanwhile: impl FnOnce(&Path)) -> World {
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    meanwhile(&dir.path().join("index"));
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    world.catalog.check_index_files(&world.tenant, now()).await.unwrap();
    world.catalog.rewrite_folders(&world.tenant, now()).await.unwrap();
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    world
}

/// All that clients see of the indexes: rows of the store without the mark that nobody sees, and the files' texts.
type Seen = (Vec<(LocalDay, IndexFile, u64)>, Vec<(UtcDay, FolderRow)>, Vec<String>);

async fn seen(world: &World) -> Seen {
    let (roots, _) = world.catalog.root_indexes(7, None).await.unwrap();
    let (folders, _) = world.catalog.folders(7, None).await.unwrap();
    let mut texts = Vec::new();
    let mut parts: Vec<_> = roots
        .iter()
        .filter(|(_, row)| row.file.generation != 0)
        .map(|(day, _)| IndexPart::Root(*day))
        .collect();
    for (day, row) in &folders {
        parts.extend([IndexPart::Brief(*day), IndexPart::Full(*day)]);
        parts.extend((row.media.generation != 0).then_some(IndexPart::Media(*day)));
    }
    for part in parts {
        texts.push(world.index(part).await);
    }
    let published = roots.into_iter().filter(|(_, row)| row.file.generation != 0);
    (published.map(|(day, row)| (day, row.file, row.rows)).collect(), folders, texts)
}

/// Says what differs, if anything.
#[track_caller]
fn assert_same(after: &Seen, before: &Seen, when: &str) {
    for (after, before) in after.0.iter().zip(&before.0) {
        assert_eq!(after, before, "{when}");
    }
    assert_eq!(after.0.len(), before.0.len(), "{when}");
    assert_eq!(after.1, before.1, "{when}");
    for (after, before) in after.2.iter().zip(&before.2) {
        assert_eq!(after, before, "{when}");
    }
}

/// Facts with a value in every column, some of which spreadsheets must not see as they are.
fn all_facts(n: u32, start: i64) -> Facts {
    let mut facts = facts(n, start);
    for (key, _) in TEXTS {
        facts.values.retain(|(known, _)| known != key);
        facts.values.push((key.to_owned(), format!("={key}, \"{n}\"")));
    }
    for (key, value) in facts.values.iter_mut() {
        match key.as_str() {
            fact::CASE_ID => *value = "4711".into(),
            fact::CALL_TYPE => *value = "direct_agent_access".into(),
            fact::CUSTOMER_NUMBER => *value = "+12025550143".into(),
            _ => {}
        }
    }
    facts.values.push(("not_in_any_index".into(), "x".into()));
    facts
}

/// A day with recordings in two folders, one of them no WAV, and an empty day before; all of it published.
async fn filled() -> World {
    let world = World::new().await;
    world.catalog.adopt(&world.tenant, EVENING - 24 * HOUR).await.unwrap();
    world.bent.change(|storage| {
        for (n, start) in [(1, EVENING - 8 * HOUR), (2, EVENING), (3, EVENING), (4, EVENING + 1234)] {
            add(storage, n, start);
            storage.facts.insert(format!("cdr-{n}"), all_facts(n, start));
        }
        storage.media.get_mut("3.wav").unwrap().media_type = "video/webm".into();
        storage.media.get_mut("4.wav").unwrap().duration_ms = None;
    });
    assert_eq!(world.scan().await.error, None);
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    world
}

/// Time passes, and the gateway does what it does meanwhile.
async fn rest(world: &World) {
    world.catalog.publish_indexes(&world.tenant, now() + HOUR).await.unwrap();
}

#[tokio::test]
async fn what_nobody_tells_any_more_stays_in_the_indexes_and_they_stay_as_they_are() {
    let world = filled().await;
    // A correction that the journal knows nothing of.
    world.bent.change(|storage| {
        let facts = storage.facts.get_mut("cdr-2").unwrap();
        facts.revision = 2;
        facts.values.iter_mut().find(|(key, _)| key == fact::STARTED_AT).unwrap().1 =
            (EVENING + 5000).to_string();
    });
    world.scan().await;
    rest(&world).await;
    let before = seen(&world).await;
    assert!(before.2.concat().contains("\"'=agent_name, \"\"2\"\"\",+12025550143"), "{:?}", before.2);
    assert!(before.2.concat().contains("2016-06-07 00:30:05"), "{:?}", before.2);

    // Only one of them is still told whole; of one the record is forgotten, of one the media, of one both.
    world.bent.change(|storage| {
        storage.facts.retain(|id, _| id == "cdr-1" || id == "cdr-4");
        storage.media.retain(|id, _| id == "1.wav" || id == "2.wav");
    });
    let world = lose(world).await;
    assert_same(&seen(&world).await, &before, "at once");
    world.scan().await;
    rest(&world).await;
    assert_same(&seen(&world).await, &before, "after scans");
    // And again, with what was recovered and not told.
    let world = lose(world).await;
    rest(&world).await;
    assert_same(&seen(&world).await, &before, "after another loss");
    let values = world.catalog.describe(7, 3, "3.wav").await.unwrap().unwrap().found.values;
    assert_eq!(values[fact::AGENT_NAME], "=agent_name, \"3\"");
    assert_eq!(values[fact::CALL_TYPE], "direct_agent_access");
    // What was told again needs no second place.
    assert_eq!(
        world.catalog.recording(7, place(&world, "1.wav").await).await.unwrap().unwrap().details.start_ms,
        EVENING - 8 * HOUR
    );
}

async fn place(world: &World, media: &str) -> Place {
    let row: rows::MediaRow = world.catalog.row(&keys::media(7, 3, media)).await.unwrap().unwrap();
    row.place.unwrap()
}

#[tokio::test]
async fn facts_that_are_told_count_more_and_those_that_are_not_stay() {
    let world = World::new().await;
    let second = |revision, agent: &str| {
        let key = JoinKey { kind: JoinKind::RecordingUuid, value: "1".into() };
        let values = vec![(fact::WRAP_UP_CODE.to_owned(), agent.to_owned())];
        Facts { id: "wrap".into(), revision, keys: vec![key], values, ..Facts::default() }
    };
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        storage.facts.insert("wrap".into(), second(1, "old"));
    });
    world.scan().await;
    rest(&world).await;
    let before = seen(&world).await;
    // The record is forgotten; what is still told comes in two steps.
    world.bent.change(|storage| storage.facts.retain(|id, _| id == "wrap"));
    let world = lose(world).await;
    world.scan().await;
    rest(&world).await;
    assert_same(&seen(&world).await, &before, "");
    world.bent.change(|storage| {
        storage.facts.insert("wrap".into(), second(2, "new"));
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now() + 2 * HOUR).await.unwrap();
    let root = world.index(IndexPart::Root(june(6))).await;
    assert!(root.contains("Agent 1") && root.contains("new") && !root.contains("old"), "{root}");

    // Once all is told again, nothing else counts.
    world.bent.change(|storage| {
        storage.facts.insert("cdr-1".into(), facts(1, EVENING));
    });
    world.scan().await;
    let prefix = keys::all_recovered(7);
    assert!(world.catalog.store.scan(&prefix, &prefix, 9).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_root_index_that_was_behind_is_behind_and_catches_up_by_its_rules() {
    let world = filled().await;
    let before = seen(&world).await;
    world.bent.change(|storage| {
        add(storage, 9, EVENING + 1000);
        let facts = storage.facts.get_mut("cdr-1").unwrap();
        facts.revision = 2;
        facts.values.iter_mut().find(|(key, _)| key == fact::QUEUE_NAME).unwrap().1 = "Late".into();
    });
    world.scan().await;
    world.catalog.rewrite_folders(&world.tenant, now() + 60_000).await.unwrap();
    let world = lose(world).await;
    world.catalog.publish_indexes(&world.tenant, now() + 60_000).await.unwrap();
    assert_eq!(seen(&world).await.0, before.0, "not more often than once in five minutes");
    assert!(world.catalog.root_index(7, june(6)).await.unwrap().unwrap().dirty_since_ms.is_some());
    assert!(world.index(IndexPart::Full(utc_june(6))).await.contains("Late"));
    rest(&world).await;
    let root = world.index(IndexPart::Root(june(6))).await;
    assert_eq!(root.lines().count(), 6, "{root}");
    assert!(root.contains("Late") && root.contains("R201606070030010001.wav"), "{root}");
    assert!(root.lines().last().unwrap().contains("Agent 9"), "{root}");
}

#[tokio::test]
async fn what_a_crash_leaves_behind_the_rows_does_not_count() {
    let world = filled().await;
    let before = seen(&world).await;
    let before_brief = world.index(IndexPart::Brief(utc_june(7))).await;
    let paths: Vec<PathBuf> = [IndexPart::Brief(utc_june(7)), IndexPart::Full(utc_june(7))]
        .into_iter()
        .map(|part| world.catalog.index_path(7, part, world_generation(&before, part)))
        .collect();
    let root = world.catalog.index_path(
        7,
        IndexPart::Root(june(6)),
        world_generation(&before, IndexPart::Root(june(6))),
    );
    let world = lose_and(world, |_| {
        for path in &paths {
            let text = fs::read_to_string(path).unwrap();
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let line = text.lines().nth(1).unwrap();
            // A row of a name that was never given, and half a row.
            let unknown = line.replace("R20160607003000", "R20160607112233");
            assert_ne!(line, unknown);
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            write!(file, "{unknown}\r\n{}", &line[..line.len() / 2]).unwrap();
            file.set_modified(modified).unwrap();
        }
        // A younger generation that was never finished, and files that are nobody's.
        let text = fs::read(&root).unwrap();
        let folder = root.parent().unwrap();
        fs::write(folder.join("20160606.99999999999999.csv"), &text[..text.len() / 2]).unwrap();
        fs::write(folder.join("20160606.csv"), &text).unwrap();
        fs::write(folder.join("20160606.0x7.csv"), &text).unwrap();
        fs::create_dir(folder.join("20160606.5.csv")).unwrap();
    })
    .await;
    assert_same(&seen(&world).await, &before, "");
    rest(&world).await;
    assert_same(&seen(&world).await, &before, "");
    // The next row stands where the last one ended.
    world.bent.change(|storage| add(storage, 9, EVENING + 1000));
    world.scan().await;
    rest(&world).await;
    let brief = world.index(IndexPart::Brief(utc_june(7))).await;
    assert_eq!(brief.lines().count(), 4, "{brief}");
    assert!(brief.starts_with(&before_brief), "{brief}");
}

fn world_generation(seen: &Seen, part: IndexPart) -> u64 {
    let folder = |day: UtcDay| &seen.1.iter().find(|(other, _)| *other == day).unwrap().1;
    match part {
        IndexPart::Root(day) => seen.0.iter().find(|(other, ..)| *other == day).unwrap().1.generation,
        IndexPart::Brief(day) => folder(day).brief.generation,
        IndexPart::Full(day) => folder(day).full.generation,
        IndexPart::Media(day) => folder(day).media.generation,
    }
}

#[tokio::test]
async fn files_that_do_not_hold_what_was_published_are_written_anew() {
    let edits: [fn(&str) -> String; 5] = [
        |text| text.lines().skip(1).map(|line| format!("{line}\r\n")).collect(),
        |text| {
            text.lines().enumerate().filter(|(n, _)| *n != 1).map(|(_, line)| format!("{line}\r\n")).collect()
        },
        |text| {
            let mut lines: Vec<_> = text.lines().collect();
            lines[1..].reverse();
            lines.iter().map(|line| format!("{line}\r\n")).collect()
        },
        |text| text.replace("\r\n", "\n"),
        |_| "\u{0}".repeat(100_000),
    ];
    for (n, edit) in edits.into_iter().enumerate() {
        let world = filled().await;
        let before = seen(&world).await;
        let full = IndexPart::Full(utc_june(7));
        let parts = [IndexPart::Root(june(6)), full];
        let paths = parts.map(|part| world.catalog.index_path(7, part, world_generation(&before, part)));
        let world = lose_and(world, |_| {
            for path in &paths {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, edit(&text)).unwrap();
            }
        })
        .await;
        world.scan().await;
        rest(&world).await;
        let after = seen(&world).await;
        for (after, before) in after.2.iter().zip(&before.2) {
            assert_eq!(after, before, "edit {n}");
        }
        // The other folder's are as they were.
        assert_eq!(after.1[0], before.1[0], "edit {n}");
        assert_eq!(after.0[0], before.0[0], "edit {n}: the empty day");
    }
}

#[tokio::test]
async fn what_was_erased_does_not_come_back() {
    let world = filled().await;
    let plan = world.catalog.plan_erasure(7, 3, "2.wav").await.unwrap().unwrap();
    assert!(plan.is_needed);
    world.catalog.erase_facts(7, 3, "2.wav", Actor::LocalUser(0), None, now()).await.unwrap().unwrap();
    // The loss comes before the files are replaced.
    world.bent.change(|storage| storage.facts.clear());
    let world = lose(world).await;
    let is_there = async |world: &World, n: u32| {
        let text = format!("agent_name, \"\"{n}\"\"");
        let texts = seen(world).await.2;
        let found = world.catalog.describe(7, 3, &format!("{n}.wav")).await.unwrap().unwrap().found;
        assert_eq!(found.values.contains_key(fact::AGENT_NAME), texts.concat().contains(&text));
        texts.concat().contains(&text)
    };
    assert!(is_there(&world, 1).await && is_there(&world, 4).await && !is_there(&world, 2).await);
    let before = seen(&world).await;

    // Nor when it comes after the files were replaced, nor is anything written anew then.
    let world = lose(world).await;
    rest(&world).await;
    assert!(is_there(&world, 1).await && !is_there(&world, 2).await);
    assert_same(&seen(&world).await, &before, "");

    // What is known from an index alone can be erased.
    world.catalog.erase_facts(7, 3, "1.wav", Actor::LocalUser(0), None, now()).await.unwrap().unwrap();
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    assert!(!is_there(&world, 1).await && is_there(&world, 4).await);
    world.bent.change(|storage| {
        let key = JoinKey { kind: JoinKind::RecordingUuid, value: "1".into() };
        let values = vec![(fact::QUEUE_NAME.to_owned(), "Sales".to_owned())];
        storage
            .facts
            .insert("late".into(), Facts { id: "late".into(), keys: vec![key], values, ..Facts::default() });
    });
    world.scan().await;
    assert!(!is_there(&world, 1).await);
}

#[tokio::test]
async fn reading_that_was_cut_short_begins_again() {
    let world = filled().await;
    world.bent.change(|storage| storage.facts.clear());
    let before = seen(&world).await;
    let world = lose(world).await;
    // As it is before the mark is gone.
    let mut batch = Batch::new();
    batch.put(keys::REBUILT, rows::encode(&true).unwrap());
    for day in [utc_june(6), utc_june(7)] {
        let row = FolderRow { dirty_since_ms: Some(0), ..FolderRow::default() };
        let known: FolderRow = world.catalog.folder(7, day).await.unwrap().unwrap();
        let row = FolderRow { newest: known.newest, ..row };
        batch.put(keys::folder(7, day), rows::encode(&row).unwrap());
    }
    world.catalog.store.commit(batch).await.unwrap();
    let world = world.restart().await;
    assert_same(&seen(&world).await, &before, "");
    assert!(world.catalog.store.get(keys::REBUILT).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_crash_has_left_is_gone_before_the_catalog_is_lost() {
    let world = filled().await;
    let before = seen(&world).await;
    let (root, full) = (IndexPart::Root(june(6)), IndexPart::Full(utc_june(7)));
    let paths = [root, full].map(|part| world.catalog.index_path(7, part, world_generation(&before, part)));
    // Whole generations that were never published, and a row that was never committed.
    let text = fs::read(&paths[0]).unwrap();
    let stray = world.catalog.index_path(7, root, 99_999_999_999_999);
    fs::write(&stray, &text).unwrap();
    fs::OpenOptions::new().append(true).open(&paths[1]).unwrap().write_all(&text).unwrap();
    let world = world.restart().await;
    assert_eq!(world.catalog.check_index_files(&world.tenant, now()).await.unwrap(), 0);
    assert!(!stray.exists());
    let world = lose(world).await;
    assert_same(&seen(&world).await, &before, "");
}

#[tokio::test]
async fn a_folder_without_what_is_missing_stays_as_it_is() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=40).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    rest(&world).await;
    world.bent.change(|storage| {
        storage.media.remove("5.wav");
        storage.facts.remove("cdr-5");
    });
    world.scan().await;
    rest(&world).await;
    let before = seen(&world).await;
    assert_eq!(world.index(IndexPart::Full(utc_june(7))).await.lines().count(), 40);
    let world = lose(world).await;
    assert_same(&seen(&world).await, &before, "");
    // It comes back, with what was known of it.
    world.bent.change(|storage| {
        storage.media.insert("5.wav".into(), Media { version: "5-1".into(), ..medium(5) });
    });
    world.scan().await;
    world.catalog.rewrite_folders(&world.tenant, now()).await.unwrap();
    let full = world.index(IndexPart::Full(utc_june(7))).await;
    assert!(full.lines().count() == 41 && full.contains("Agent 5"), "{full}");
}

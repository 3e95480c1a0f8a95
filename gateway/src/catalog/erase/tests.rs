//! What was erased is nowhere, and never comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use recgate_plugin_api::{JoinKey, JoinKind};

use super::*;
use crate::catalog::tests::{EVENING, World, add, facts, june, medium, now, open, utc_june};

const ME: Actor = Actor::LocalUser(1000);

/// Where a text stands: rows of the store, index files, the journal.
async fn places_of(world: &World, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let mut places = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = world.catalog.store.scan(&[], &from, 512).await.unwrap();
        places.extend(
            page.rows
                .iter()
                .filter(|row| holds(&row.value) || holds(&row.key))
                .map(|row| format!("a row of kind {}", row.key[4])),
        );
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let mut folders = vec![world.dir.path().join("index"), world.dir.path().join("journal")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if holds(&std::fs::read(&path).unwrap()) {
                places.push(path.display().to_string());
            }
        }
    }
    places
}

async fn filled() -> World {
    let world = World::new().await;
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert!(!places_of(&world, "Agent 2").await.is_empty());
    world
}

async fn erase(world: &World, media: &str) -> Erasure {
    world.catalog.erase_facts(7, 3, media, ME, None, now()).await.unwrap().unwrap()
}

/// The gateway stops, its catalog is lost, and it starts again.
async fn lose_the_store(world: World) -> World {
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    World { dir, tenant, bent, catalog, governance }
}

#[tokio::test]
async fn erased_values_are_nowhere_and_what_is_kept_stays() {
    let world = filled().await;
    let before = world.index(IndexPart::Root(june(6))).await;
    let plan = world.catalog.plan_erasure(7, 3, "2.wav").await.unwrap().unwrap();
    assert!(plan.is_needed && plan.before.is_none());
    assert_eq!(plan.values.iter().map(String::as_str).collect::<Vec<_>>(), [fact::AGENT_NAME]);
    assert_eq!(plan.facts, ["cdr-2"]);
    assert!(!places_of(&world, "Agent 2").await.is_empty(), "a plan changes nothing");

    let names = world.names().await;
    let erasure = erase(&world, "2.wav").await;
    assert!(world.catalog.is_erasing(&erasure).await.unwrap());
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    assert!(!world.catalog.is_erasing(&erasure).await.unwrap());
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());

    assert_eq!(world.names().await, names);
    let after = world.index(IndexPart::Root(june(6))).await;
    assert_eq!(after, before.replace("Agent 2", ""), "everything else is as it was");
    assert!(world.index(IndexPart::Full(utc_june(7))).await.contains("Agent 3"));
    let described = world.catalog.describe(7, 3, "2.wav").await.unwrap().unwrap();
    assert_eq!(described.found.start_ms, EVENING);
    assert!(described.found.values.contains_key(fact::STARTED_AT));
    assert_eq!(described.erased.map(|row| row.by), Some(ME));
}

#[tokio::test]
async fn facts_that_are_told_again_stay_erased_also_after_the_store_was_lost() {
    let world = filled().await;
    erase(&world, "2.wav").await;
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    let counts = world.catalog.counts(7).await.unwrap();
    world.scan().await;
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());

    // Corrected at the source: times count, persons don't.
    world.bent.change(|storage| {
        let facts = storage.facts.get_mut("cdr-2").unwrap();
        facts.revision = 2;
        facts.values[1].1 = (EVENING + 9000).to_string();
    });
    world.scan().await;
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
    let described = world.catalog.describe(7, 3, "2.wav").await.unwrap().unwrap();
    assert_eq!(described.found.stop_ms, EVENING + 9000);

    let world = world.restart().await;
    world.bent.change(|storage| storage.facts.get_mut("cdr-2").unwrap().revision = 3);
    world.scan().await;
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());

    // The facts come back before the media that they belong to.
    let world = lose_the_store(world).await;
    world.bent.change(|storage| {
        storage.media.remove("2.wav");
    });
    world.scan().await;
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
    world.bent.change(|storage| {
        storage.media.insert("2.wav".into(), medium(2));
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
    assert!(!places_of(&world, "Agent 3").await.is_empty(), "others have come back");
    assert_eq!(world.catalog.counts(7).await.unwrap(), counts);
    assert!(world.catalog.describe(7, 3, "2.wav").await.unwrap().unwrap().erased.is_some());
}

#[tokio::test]
async fn other_facts_that_come_later_are_dropped_as_well() {
    let world = filled().await;
    erase(&world, "2.wav").await;
    world.bent.change(|storage| {
        let mut late = facts(2, EVENING);
        late.id = "late".into();
        late.values.push(("cost_centre".into(), "Agent 2 again".into()));
        storage.facts.insert("late".into(), late);
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
    // Nothing is left to do, so nothing is written.
    let head = world.catalog.journal.head();
    assert!(!erase(&world, "2.wav").await.is_needed);
    assert_eq!(world.catalog.journal.head(), head);
}

#[tokio::test]
async fn facts_of_several_recordings_stay_until_the_last_is_erased() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        add(storage, 2, EVENING);
        let key = JoinKey { kind: JoinKind::ConversationId, value: "call".into() };
        storage.media.values_mut().for_each(|media| media.keys.push(key.clone()));
        let mut shared = facts(9, EVENING);
        shared.id = "call".into();
        shared.keys = vec![key];
        shared.values[2] = (fact::CUSTOMER_NUMBER.into(), "+12025550143".into());
        storage.facts.insert("call".into(), shared);
    });
    world.scan().await;
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    let first = erase(&world, "1.wav").await;
    assert_eq!((first.facts, first.shared.len()), (vec!["cdr-1".to_owned()], 1));
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    let values = |media: &'static str| {
        let catalog = std::sync::Arc::clone(&world.catalog);
        async move { catalog.describe(7, 3, media).await.unwrap().unwrap().found.values }
    };
    assert_eq!(values("1.wav").await.get(fact::CUSTOMER_NUMBER), None);
    assert_eq!(values("2.wav").await[fact::CUSTOMER_NUMBER], "+12025550143");
    // The shared facts change; only the one that isn't erased gets to know.
    world.bent.change(|storage| {
        let shared = storage.facts.get_mut("call").unwrap();
        (shared.revision, shared.values[2].1) = (2, "+12025550199".into());
    });
    world.scan().await;
    assert_eq!(values("1.wav").await.get(fact::CUSTOMER_NUMBER), None);
    assert_eq!(values("2.wav").await[fact::CUSTOMER_NUMBER], "+12025550199");

    let second = erase(&world, "2.wav").await;
    assert_eq!((second.facts.len(), second.shared.len()), (2, 0));
    world.catalog.publish_indexes(&world.tenant, now()).await.unwrap();
    for text in ["+120255501", "Agent"] {
        assert_eq!(places_of(&world, text).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_a_crash_leaves_is_finished_at_the_next_start() {
    let world = filled().await;
    let store = world.dir.path().join("catalog.redb");
    let older = world.dir.path().join("older.redb");
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::copy(&store, &older).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    erase(&world, "2.wav").await;

    // Power fails after the journal was written and before the store was.
    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::rename(&older, &store).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    assert!(places_of(&world, "Agent 2").await.iter().all(|place| place.contains("/index/")));

    // And again, after the store was written and before the index files were.
    let world = world.restart().await;
    assert!(!places_of(&world, "Agent 2").await.is_empty());
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());

    // And again, when files of older generations were left behind.
    let world = filled().await;
    let erasure = erase(&world, "2.wav").await;
    let path = world.catalog.index_path(7, IndexPart::Root(june(6)), 17);
    std::fs::write(&path, "Agent 2").unwrap();
    let path = world.catalog.index_path(7, IndexPart::Media(utc_june(7)), 17);
    std::fs::write(&path, "Agent 2").unwrap();
    world.catalog.finish_erasures(&world.tenant, now()).await.unwrap();
    assert!(!world.catalog.is_erasing(&erasure).await.unwrap());
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_erasure_during_a_build_is_carried_out_after_it() {
    let world = World::new().await;
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let (catalog, tenant) = (Arc::clone(&world.catalog), Arc::clone(&world.tenant));
    // What a build that was killed has left behind.
    let left = catalog.index_path(7, IndexPart::Media(utc_june(7)), 17).with_file_name("media.building.csv");
    std::fs::write(left, "Agent 2").unwrap();

    let building = catalog.builds.lock().await;
    let begun = catalog.begin_root(&building, &tenant, june(6)).await.unwrap();
    let erasure = erase(&world, "2.wav").await;
    let finishing = tokio::spawn({
        let (catalog, tenant) = (Arc::clone(&catalog), Arc::clone(&tenant));
        async move { catalog.finish_erasures(&tenant, now()).await }
    });
    tokio::task::yield_now().await;
    catalog.commit_root(&building, &tenant, june(6), begun, false, now()).await.unwrap();
    drop(building);
    assert_eq!(finishing.await.unwrap().unwrap(), 1);
    assert!(!catalog.is_erasing(&erasure).await.unwrap());
    assert_eq!(places_of(&world, "Agent 2").await, Vec::<String>::new());
    assert!(world.index(IndexPart::Root(june(6))).await.contains("Agent 3"));
}

#[tokio::test]
async fn an_erasure_whose_files_can_not_be_removed_is_not_done() {
    let world = filled().await;
    let erasure = erase(&world, "2.wav").await;
    // A folder can't be removed as a file is, whoever tries.
    let path = world.catalog.index_path(7, IndexPart::Brief(utc_june(7)), 17);
    std::fs::create_dir(&path).unwrap();
    assert_eq!(world.catalog.finish_erasures(&world.tenant, now()).await.unwrap(), 0);
    assert!(world.catalog.is_erasing(&erasure).await.unwrap());
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(world.catalog.finish_erasures(&world.tenant, now()).await.unwrap(), 1);
    assert!(!world.catalog.is_erasing(&erasure).await.unwrap());
}

#[tokio::test]
async fn a_recording_without_a_name_can_be_erased_before_it_gets_one() {
    let world = World::new().await;
    world.bent.change(|storage| {
        storage.media.insert("5.wav".into(), medium(5));
    });
    world.scan().await;
    let erasure = erase(&world, "5.wav").await;
    assert!(erasure.is_needed && erasure.place.is_none() && erasure.facts.is_empty());
    world.bent.change(|storage| {
        storage.facts.insert("cdr-5".into(), facts(5, EVENING));
    });
    world.scan().await;
    assert_eq!(world.names().await, ["S20160607/R201606070030000000.wav"]);
    assert_eq!(places_of(&world, "Agent 5").await, Vec::<String>::new());
    assert_eq!(world.catalog.plan_erasure(7, 3, "none.wav").await.unwrap(), None);
}

#[test]
fn ids_of_facts_fit_into_entries() {
    let ids: Vec<String> = (0..100).map(|n| format!("{n}{}", "\u{1}".repeat(1000))).collect();
    let portions = portions(&ids);
    assert!(
        portions.len() > 1 && portions.iter().all(|ids| serde_json::to_string(ids).unwrap().len() < 50 << 10)
    );
    assert_eq!(portions.concat(), ids);
    assert_eq!(super::portions(&[]), [Vec::<String>::new()]);
}

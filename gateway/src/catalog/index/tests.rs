//! When indexes are written, whatever the clock does, and what they hold while more is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{due::LATEST_MS, *};
use crate::catalog::tests::{EVENING, World, add, june, now, utc_june};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

async fn publish(world: &World, at: i64) -> u64 {
    world.catalog.publish_indexes(&world.tenant, at).await.unwrap()
}

async fn root(world: &World, day: LocalDay) -> RootIndexRow {
    world.catalog.root_index(7, day).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_clock_that_was_ahead_once_keeps_no_index_back() {
    let world = World::new().await;
    publish(&world, now()).await;
    // The clock is ahead for a while: days to come are published, empty.
    publish(&world, now() + 30 * DAY).await;
    let day = world.tenant.zone.day_of(now() + DAY).unwrap();
    let end = world.tenant.zone.end_of(day).unwrap();
    let ahead = root(&world, day).await;
    assert!(ahead.file.generation != 0 && ahead.rows == 0);

    // It is right again, and the day has a call.
    world.bent.change(|storage| add(storage, 1, end - 60 * MINUTE));
    world.scan().await;
    let overdue = async |at| world.catalog.overdue_indexes(&world.tenant, at).await.unwrap().indexes;
    publish(&world, end - 1).await;
    publish(&world, end + 54 * MINUTE).await;
    assert_eq!(root(&world, day).await.file, ahead.file, "its source has not told all of it");
    assert_eq!(overdue(end + 54 * MINUTE).await, 0);
    let due = end + 55 * MINUTE;
    assert_eq!(overdue(due).await, 1);
    publish(&world, due).await;
    let row = root(&world, day).await;
    assert!(row.rows == 1 && row.incomplete && row.file.generation > ahead.file.generation);
    assert_eq!(row.file.modified, due / 1000, "it is stamped with the right time");
    assert_eq!(overdue(due).await, 0);
    assert_eq!(publish(&world, due + 1000).await, 0, "once is enough");
}

#[test]
fn what_a_clock_that_was_ahead_has_written_is_due_when_its_day_is_known() {
    let (end, now) = (100 * DAY, 100 * DAY + MINUTE);
    let file = |stamp: i64| IndexFile { generation: 1, length: 9, modified: stamp / 1000 };
    let row = |stamp, since| RootIndexRow {
        file: file(stamp),
        dirty_since_ms: Some(since),
        ..RootIndexRow::default()
    };
    let ahead = row(end + 30 * DAY, end - 60 * MINUTE);
    assert!(is_due(&ahead, Span { start: end - DAY, end }, false, end, now), "complete");
    assert!(!is_due(&ahead, Span { start: end - DAY, end }, false, end - 1, now), "not complete");
    assert!(is_due(&ahead, Span { start: end - DAY, end }, false, end - 1, end + LATEST_MS));
    assert!(!is_due(&ahead, Span { start: end - DAY, end }, false, end, end - 1), "not over");
    let unchanged = RootIndexRow { dirty_since_ms: None, ..ahead };
    assert!(!is_due(&unchanged, Span { start: end - DAY, end }, false, end, now));

    // What is marked by a clock that is ahead is missed nevertheless.
    for stamp in [0, end + 30 * DAY] {
        let mut marked = row(stamp, end + 20 * DAY);
        if stamp == 0 {
            marked.file = IndexFile::default();
        }
        assert_eq!(latest(&believable(&marked, end, now), end, false), Some(end + LATEST_MS));
    }
    // And a right clock's marks count as they are.
    let late = row(end + DAY, end + 2 * DAY);
    assert_eq!(latest(&believable(&late, end, end + 3 * DAY), end, false), Some(end + 2 * DAY));
}

#[tokio::test]
async fn sources_that_are_not_heard_keep_no_index_back_for_ever() {
    let world = World::new().await;
    let unheard = async |since, at| {
        world.catalog.publish_due(&world.tenant, Some(since), at, &mut Turn::new(&|| {})).await.unwrap()
    };
    let is_published = async |day| root(&world, day).await.file.generation != 0;
    publish(&world, now()).await;
    let day = world.tenant.zone.day_of(now()).unwrap();
    let end = world.tenant.zone.end_of(day).unwrap();
    unheard(now(), end + 55 * MINUTE - 1).await;
    assert!(!is_published(day).await);
    unheard(now(), end + 55 * MINUTE).await;
    assert!(is_published(day).await && root(&world, day).await.incomplete);

    // The gateway was off when the next day ended.
    let day = world.tenant.zone.day_of(end + 60 * MINUTE).unwrap();
    let start = world.tenant.zone.end_of(day).unwrap() + 180 * MINUTE;
    unheard(start, start + 5 * MINUTE - 1).await;
    assert!(!is_published(day).await, "a short scan makes it complete");
    unheard(start, start + 5 * MINUTE).await;
    assert!(is_published(day).await);

    // Days of an archive come while it is scanned: they wait, but no longer than a day that has ended.
    world.bent.change(|storage| add(storage, 1, EVENING));
    world.scan().await;
    let known = root(&world, june(6)).await.dirty_since_ms.unwrap();
    unheard(known, known + 55 * MINUTE - 1).await;
    assert!(!is_published(june(6)).await);
    unheard(known, known + 55 * MINUTE).await;
    assert!(is_published(june(6)).await);
}

#[tokio::test]
async fn a_turn_writes_the_newest_days_and_leaves_the_rest_to_the_next() {
    let world = World::new().await;
    let day_of = |n: i64| world.tenant.zone.day_of(EVENING - n * DAY).unwrap();
    world.bent.change(|storage| (0..40).for_each(|n| add(storage, n, EVENING - i64::from(n) * DAY)));
    world.scan().await;
    let beats = AtomicUsize::new(0);
    let beat = || {
        beats.fetch_add(1, Ordering::Relaxed);
    };
    let is_published = async |n| root(&world, day_of(n)).await.file.generation != 0;
    for (written, more) in [(16, true), (32, true), (40, false)] {
        let mut turn = Turn::new(&beat);
        world.catalog.publish_due(&world.tenant, None, now(), &mut turn).await.unwrap();
        assert_eq!((beats.load(Ordering::Relaxed), turn.has_more()), (written, more));
        for n in 0..40 {
            assert_eq!(is_published(n).await, (n as usize) < written, "{n}");
        }
    }

    // Whoever has all of them written anew delays no new one.
    world.catalog.mark_for_republication(&world.tenant, day_of(39), day_of(0)).await.unwrap();
    world.bent.change(|storage| add(storage, 40, EVENING - 40 * DAY));
    world.scan().await;
    world.catalog.publish_due(&world.tenant, None, now(), &mut Turn::new(&beat)).await.unwrap();
    assert!(is_published(40).await);
    assert_eq!(root(&world, day_of(0)).await.dirty_since_ms, None);
    assert_eq!(root(&world, day_of(39)).await.dirty_since_ms, Some(AT_ONCE));
    let mut left = Turn::new(&beat);
    world.catalog.publish_due(&world.tenant, None, now(), &mut left).await.unwrap();
    assert!(left.has_more(), "as for what is left of them");
}

#[tokio::test]
async fn an_index_that_can_not_be_written_keeps_no_other_back() {
    let world = World::new().await;
    world.bent.change(|storage| {
        add(storage, 1, EVENING);
        add(storage, 2, EVENING + DAY);
    });
    world.scan().await;
    // Where it is written before it has its name.
    let named = world.catalog.index_path(7, IndexPart::Root(june(7)), 0);
    let blocked = PathBuf::from(named.to_str().unwrap().replace(".0.csv", ".building.csv"));
    fs::create_dir_all(&blocked).unwrap();
    let error = world.catalog.publish_indexes(&world.tenant, now()).await.unwrap_err();
    assert!(error.to_string().contains(blocked.to_str().unwrap()), "{error}");
    assert_eq!(root(&world, june(7)).await.file.generation, 0);
    assert_eq!(root(&world, june(6)).await.rows, 1);
    fs::remove_dir(&blocked).unwrap();
    publish(&world, now()).await;
    assert_eq!(root(&world, june(7)).await.rows, 1);
}

fn change_agent(world: &World, n: u32, revision: u64, agent: &str) {
    world.bent.change(|storage| {
        let facts = storage.facts.get_mut(&format!("cdr-{n}")).unwrap();
        facts.revision = revision;
        facts.values[2].1 = agent.to_owned();
    });
}

#[tokio::test]
async fn names_are_given_while_a_root_index_is_built_and_are_in_it() {
    let world = World::new().await;
    let (catalog, tenant, day) = (&world.catalog, &*world.tenant, june(6));
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let building = catalog.builds.lock().await;
    let begun = catalog.begin_root(&building, tenant, day).await.unwrap();
    world.bent.change(|storage| (4..=600).for_each(|n| add(storage, n, EVENING)));
    assert_eq!(world.scan().await.error, None);
    assert_eq!(world.names().await.len(), 600);
    assert!(root(&world, day).await.file.generation == 0, "nobody sees a draft");
    catalog.commit_root(&building, tenant, day, begun, false, now()).await.unwrap();
    let row = root(&world, day).await;
    assert_eq!((row.rows, row.dirty_since_ms), (600, None));
    let text = world.index(IndexPart::Root(day)).await;
    assert!(text.lines().count() == 601 && text.ends_with("\r\n"), "{text}");

    // Cells that change meanwhile are in the next generation.
    change_agent(&world, 1, 2, "Before");
    world.scan().await;
    let begun = catalog.begin_root(&building, tenant, day).await.unwrap();
    change_agent(&world, 2, 2, "Meanwhile");
    world.scan().await;
    catalog.commit_root(&building, tenant, day, begun, false, now()).await.unwrap();
    let text = world.index(IndexPart::Root(day)).await;
    assert!(text.contains("Before") && !text.contains("Meanwhile") && text.lines().count() == 601);
    assert!(root(&world, day).await.dirty_since_ms.is_some());
    drop(building);
    publish(&world, now() + 5 * MINUTE).await;
    assert!(world.index(IndexPart::Root(day)).await.contains("Meanwhile"));
    assert_eq!(root(&world, day).await.dirty_since_ms, None);

    // Those of other days don't matter.
    world.bent.change(|storage| add(storage, 601, EVENING + DAY));
    change_agent(&world, 1, 3, "Again");
    world.scan().await;
    let building = catalog.builds.lock().await;
    let begun = catalog.begin_root(&building, tenant, day).await.unwrap();
    change_agent(&world, 601, 2, "Elsewhere");
    world.scan().await;
    catalog.commit_root(&building, tenant, day, begun, false, now()).await.unwrap();
    assert_eq!(root(&world, day).await.dirty_since_ms, None);
    let folder = world.catalog.index_path(7, IndexPart::Root(day), 0);
    let left = fs::read_dir(folder.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "what was replaced is removed");
}

#[tokio::test]
async fn a_folder_shows_what_its_indexes_list_also_after_a_build() {
    let world = World::new().await;
    let (catalog, tenant, day) = (&world.catalog, &*world.tenant, utc_june(7));
    let folder = async || catalog.folder(7, day).await.unwrap().unwrap();
    let lines = async || {
        let (brief, full) =
            (world.index(IndexPart::Brief(day)).await, world.index(IndexPart::Full(day)).await);
        assert_eq!(brief.lines().count(), full.lines().count());
        full.lines().count()
    };
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, EVENING)));
    world.scan().await;
    let before = folder().await;
    let building = catalog.builds.lock().await;

    // Additions go on in the old files, and are in the new ones.
    let begun = catalog.begin_folder(&building, tenant, day).await.unwrap();
    world.bent.change(|storage| {
        add(storage, 4, EVENING);
        add(storage, 5, EVENING);
        storage.media.get_mut("5.wav").unwrap().media_type = "video/webm".into();
    });
    world.scan().await;
    let grown = folder().await;
    assert_eq!((lines().await, grown.brief.generation), (5, before.brief.generation));
    catalog.commit_folder(&building, tenant, day, begun, 0).await.unwrap();
    let after = folder().await;
    assert_eq!((lines().await, after.dirty_since_ms), (5, None));
    assert!(after.brief.generation > grown.brief.generation && after.full.generation > grown.full.generation);
    assert_eq!(after.full.modified, grown.full.modified, "it is no older than its rows");
    assert_eq!(world.index(IndexPart::Media(day)).await.lines().count(), 2);

    // What vanishes meanwhile is taken out at once.
    let begun = catalog.begin_folder(&building, tenant, day).await.unwrap();
    world.bent.change(|storage| {
        storage.media.remove("2.wav");
        add(storage, 6, EVENING);
    });
    world.scan().await;
    catalog.commit_folder(&building, tenant, day, begun, now()).await.unwrap();
    assert_eq!(folder().await.dirty_since_ms, Some(AT_ONCE));
    drop(building);
    catalog.rewrite_folders(tenant, now()).await.unwrap();
    assert_eq!((lines().await, folder().await.dirty_since_ms), (5, None));

    // Who asks for it meanwhile gets a newer one, and who corrects a cell as well, but not at once.
    let building = catalog.builds.lock().await;
    let begun = catalog.begin_folder(&building, tenant, day).await.unwrap();
    catalog.mark_for_republication(tenant, june(6), june(6)).await.unwrap();
    catalog.commit_folder(&building, tenant, day, begun, now()).await.unwrap();
    assert_eq!(folder().await.dirty_since_ms, Some(AT_ONCE));
    let begun = catalog.begin_folder(&building, tenant, day).await.unwrap();
    change_agent(&world, 1, 2, "Meanwhile");
    world.scan().await;
    catalog.commit_folder(&building, tenant, day, begun, 17).await.unwrap();
    assert_eq!(folder().await.dirty_since_ms, Some(17));
}

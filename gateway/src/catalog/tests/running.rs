//! Root indexes of days that run: they grow as recordings come, and end as those of any other day.

use super::*;

const MINUTE: i64 = 60_000;

/// A tenant that sees its running day.
async fn live() -> World {
    let mut world = World::new().await;
    world.tenant = Arc::new(Tenant { live_index: true, ..(*world.tenant).clone() });
    world
}

/// The tenant's day now, and its end.
fn today(world: &World) -> (LocalDay, i64) {
    let day = world.tenant.zone.day_of(now()).unwrap();
    (day, world.tenant.zone.end_of(day).unwrap())
}

async fn row(world: &World) -> RootIndexRow {
    world.catalog.root_index(7, today(world).0).await.unwrap().unwrap()
}

async fn publish(world: &World, at: i64) {
    world.catalog.publish_indexes(&world.tenant, at).await.unwrap();
}

/// The source has told all until then.
async fn told_until(world: &World, watermark_ms: i64) {
    let row = SourceRow { watermark_ms, ..SourceRow::default() };
    world.catalog.scanned(7, 3, &row).await.unwrap();
}

fn change_agent(world: &World, n: u32, name: &str) {
    world.bent.change(|storage| {
        let facts = storage.facts.get_mut(&format!("cdr-{n}")).unwrap();
        facts.revision += 1;
        facts.values[2].1 = name.into();
    });
}

#[tokio::test]
async fn a_running_day_grows_and_ends_as_it_was_shown() {
    let world = live().await;
    let (day, end) = today(&world);
    publish(&world, now()).await;
    let empty = world.index(IndexPart::Root(day)).await;
    assert_eq!(empty.lines().count(), 1, "{empty}");
    let first = row(&world).await.file.generation;

    // 17:30 in Los Angeles: the day lies in two folders, and the later call is published first.
    let midnight = now() - 30 * MINUTE;
    world.bent.change(|storage| {
        add(storage, 1, midnight + 1000);
        add(storage, 2, midnight - 9000);
        add(storage, 3, midnight + 2000);
    });
    world.scan().await;
    let grown = world.index(IndexPart::Root(day)).await;
    assert!(grown.starts_with(&empty) && grown.lines().count() == 4, "{grown}");
    let names: Vec<_> = grown.lines().skip(1).map(|line| line.split(",R2016").nth(1).unwrap()).collect();
    assert!(names[0].starts_with("07170000010000") && names[1].starts_with("07162359510000"), "{names:?}");
    world.bent.change(|storage| add(storage, 4, now() - 9000));
    world.scan().await;
    let more = world.index(IndexPart::Root(day)).await;
    assert!(more.starts_with(&grown) && more.lines().count() == 5, "{more}");
    let shown = row(&world).await;
    assert_eq!((shown.file.generation, shown.rows, shown.dirty_since_ms), (first, 4, None));

    // Nobody calls it complete, and nobody calls it late.
    let (indexed, _) = world.catalog.indexed(&world.tenant, Some(day)).await.unwrap();
    assert!(indexed[0].running && indexed[0].incomplete);
    assert_eq!(world.catalog.overdue_indexes(&world.tenant, end + MINUTE).await.unwrap(), Overdue::default());

    // The day is over; what still comes is appended until the source has told all of it.
    publish(&world, end + MINUTE).await;
    assert!(row(&world).await.running);
    world.bent.change(|storage| add(storage, 5, end - 1000));
    world.scan().await;
    let last = world.index(IndexPart::Root(day)).await;
    assert!(last.starts_with(&more) && last.lines().count() == 6, "{last}");
    told_until(&world, end).await;
    publish(&world, end + 2 * MINUTE).await;
    let settled = row(&world).await;
    assert_eq!((settled.running, settled.incomplete), (false, false));
    assert_eq!(settled.file.generation, first, "who has it needn't fetch it again");
    // Written from the catalog, it is the same.
    world.catalog.mark_for_republication(&world.tenant, day, day).await.unwrap();
    publish(&world, end + 3 * MINUTE).await;
    assert!(row(&world).await.file.generation > first);
    assert_eq!(world.index(IndexPart::Root(day)).await, last);
}

#[tokio::test]
async fn changed_cells_of_a_running_day_are_written_five_minutes_later_however_much_is_added() {
    let world = live().await;
    let day = today(&world).0;
    publish(&world, now()).await;
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, now() - i64::from(n) * 1000)));
    world.scan().await;
    let before = row(&world).await.file;
    change_agent(&world, 2, "Zoë");
    world.scan().await;
    world.bent.change(|storage| add(storage, 4, now() - 9000));
    world.scan().await;
    let since = row(&world).await.dirty_since_ms.unwrap();
    publish(&world, since + 5 * MINUTE - 1).await;
    let text = world.index(IndexPart::Root(day)).await;
    assert!(!text.contains("Zoë") && text.lines().count() == 5, "{text}");
    assert_eq!(row(&world).await.file.generation, before.generation);
    // The file was written to meanwhile: what counts is how long the change has waited.
    let later = since + 5 * MINUTE;
    publish(&world, later).await;
    let text = world.index(IndexPart::Root(day)).await;
    assert!(text.contains("Zoë") && text.lines().count() == 5, "{text}");
    let after = row(&world).await;
    assert!(after.running && after.file.generation > before.generation && after.dirty_since_ms.is_none());
    // On it goes with the new generation.
    world.bent.change(|storage| add(storage, 5, now() - 9000));
    world.scan().await;
    assert!(world.index(IndexPart::Root(day)).await.starts_with(&text));
    assert_eq!(row(&world).await.file.generation, after.file.generation);
}

#[tokio::test]
async fn a_running_day_whose_source_does_not_tell_ends_incomplete() {
    let world = live().await;
    let end = today(&world).1;
    publish(&world, now()).await;
    let incomplete = async |at| world.catalog.overdue_indexes(&world.tenant, at).await.unwrap().incomplete;
    publish(&world, end + 54 * MINUTE).await;
    assert!(row(&world).await.running);
    assert_eq!(incomplete(end + 54 * MINUTE).await, 0);
    publish(&world, end + 55 * MINUTE).await;
    let row = row(&world).await;
    assert_eq!((row.running, row.incomplete, incomplete(end + 55 * MINUTE).await), (false, true, 1));
}

#[tokio::test]
async fn a_running_day_survives_a_restart_a_lost_file_and_a_lost_store() {
    let world = live().await;
    let day = today(&world).0;
    publish(&world, now()).await;
    world.bent.change(|storage| (1..=3).for_each(|n| add(storage, n, now() - i64::from(n) * 1000)));
    world.scan().await;
    let text = world.index(IndexPart::Root(day)).await;
    let world = world.restart().await;
    world.bent.change(|storage| add(storage, 4, now() - 9000));
    world.scan().await;
    let more = world.index(IndexPart::Root(day)).await;
    assert!(more.starts_with(&text) && more.lines().count() == 5, "{more}");

    std::fs::remove_dir_all(world.dir.path().join("index")).unwrap();
    // It is missed when it is to be appended to; everything is written anew then.
    world.bent.change(|storage| add(storage, 5, now() - 8000));
    world.scan().await;
    publish(&world, now()).await;
    let whole = world.index(IndexPart::Root(day)).await;
    assert!(whole.starts_with(&more) && whole.lines().count() == 6, "{whole}");

    let World { dir, tenant, bent, catalog, governance } = world;
    drop((catalog, governance));
    std::fs::remove_file(dir.path().join("catalog.redb")).unwrap();
    let (catalog, governance) = open(dir.path()).await;
    let world = World { dir, tenant, bent, catalog, governance };
    world.scan().await;
    publish(&world, now()).await;
    assert_eq!(world.index(IndexPart::Root(day)).await, whole);
    assert!(row(&world).await.running);
}

#[tokio::test]
async fn a_day_that_is_shown_no_more_waits_for_its_end() {
    let mut world = live().await;
    let (day, end) = today(&world);
    publish(&world, now()).await;
    let text = world.index(IndexPart::Root(day)).await;
    world.tenant = Arc::new(Tenant { live_index: false, ..(*world.tenant).clone() });
    world.bent.change(|storage| add(storage, 1, now() - 1000));
    world.scan().await;
    publish(&world, end - 1).await;
    assert_eq!(world.index(IndexPart::Root(day)).await, text, "what was shown stays");
    assert_eq!(world.catalog.overdue_indexes(&world.tenant, end).await.unwrap().indexes, 0);
    told_until(&world, end).await;
    publish(&world, end).await;
    assert_eq!(world.index(IndexPart::Root(day)).await.lines().count(), 2);
    // And a day to come isn't shown before it has begun.
    world.tenant = Arc::new(Tenant { live_index: true, ..(*world.tenant).clone() });
    world.bent.change(|storage| add(storage, 2, end + 24 * 60 * MINUTE));
    world.scan().await;
    publish(&world, end).await;
    let tomorrow = world.tenant.zone.day_of(end + 24 * 60 * MINUTE).unwrap();
    assert_eq!(world.catalog.root_index(7, tomorrow).await.unwrap().unwrap().file.generation, 0);
}

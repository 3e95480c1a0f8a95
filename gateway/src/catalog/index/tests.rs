//! When indexes are written, whatever the clock does, and what they hold while more is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::catalog::tests::{World, add, now};

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
    assert!(is_due(&ahead, end, end, now), "complete");
    assert!(!is_due(&ahead, end, end - 1, now), "not complete");
    assert!(is_due(&ahead, end, end - 1, end + LATEST_MS));
    assert!(!is_due(&ahead, end, end, end - 1), "not over");
    let unchanged = RootIndexRow { dirty_since_ms: None, ..ahead };
    assert!(!is_due(&unchanged, end, end, now));

    // What is marked by a clock that is ahead is missed nevertheless.
    for stamp in [0, end + 30 * DAY] {
        let mut marked = row(stamp, end + 20 * DAY);
        if stamp == 0 {
            marked.file = IndexFile::default();
        }
        assert_eq!(latest(&believable(&marked, end, now), end), Some(end + LATEST_MS));
    }
    // And a right clock's marks count as they are.
    let late = row(end + DAY, end + 2 * DAY);
    assert_eq!(latest(&believable(&late, end, end + 3 * DAY), end), Some(end + 2 * DAY));
}
